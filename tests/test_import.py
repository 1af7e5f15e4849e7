"""Features that were made elsewhere, in a cache of their own or beside ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cache_data import QUICK

from features_cache.reader import FeatureCache
from features_cache.verify import verify

Run = Callable[..., tuple[int, str, str]]
IDS = [f"train{index}" for index in range(6)]


def drawn(n_images: int = 6, *shape: int) -> np.ndarray:
    return np.random.default_rng(7).normal(size=(n_images, *(shape or (5,)))).astype(np.float32)


def write_ids(path: Path, ids: list[str]) -> Path:
    path.write_text("\n".join(["id,plate", *(f"{name},p" for name in ids)]) + "\n")
    return path


def write_features(kind: str, ids: list[str], values: np.ndarray) -> tuple[object, ...]:
    """Write features in one of the three kinds; return the words that name them."""
    path = Path(f"made.{kind}")
    if kind == "npy":
        np.save(path, values)
        return path, "--ids", write_ids(Path("ids.csv"), ids)
    table = pd.DataFrame(values, columns=[f"f{column}" for column in range(values.shape[1])])
    table.insert(0, "id", ids)
    if kind == "csv":
        table.to_csv(path, index=False)
    else:
        pytest.importorskip("pyarrow", reason="needs the extra `export`")
        table.to_parquet(path)
    return (path,)


@pytest.mark.parametrize("kind", ["npy", "csv", "parquet"])
def test_a_table_becomes_a_cache_sorted_by_id(project: Path, run_cli: Run, kind: str) -> None:
    shuffled = [IDS[place] for place in (3, 0, 5, 1, 4, 2)]
    values = drawn()
    code, out, err = run_cli("import", *write_features(kind, shuffled, values), "--block", "dino", "--dtype", "float32")
    assert code == 0, err
    assert "features/train.h5: 6 images x 1 views, blocks dino" in out
    with FeatureCache(Path("features/train.h5")) as cache:
        assert cache.ids == tuple(IDS)
        np.testing.assert_array_equal(cache.load()[:, 0], values[np.argsort(shuffled)])
    assert not verify(Path("features/train.h5")).faults


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_with_ids_of_its_own_is_never_joined_by_place(project: Path, run_cli: Run, kind: str) -> None:
    shuffled = [IDS[place] for place in (3, 0, 5, 1, 4, 2)]
    values = drawn()
    words = (*write_features(kind, shuffled, values), "--ids", write_ids(Path("ids.csv"), IDS), "--block", "dino")
    assert run_cli("import", *words, "--dtype", "float32")[0] == 0
    with FeatureCache(Path("features/train.h5")) as cache:
        np.testing.assert_array_equal(cache.load()[:, 0], values[np.argsort(shuffled)])
    strangers = ["stranger", *shuffled[1:]]
    words = (*write_features(kind, strangers, values), "--ids", "ids.csv", "--block", "other")
    code, _, err = run_cli("import", *words)
    assert code == 2
    assert "name other images (2 in one alone: 'stranger', 'train" in err


def test_it_joins_the_blocks_of_a_cache_and_heads_learn_from_all(project: Path, run_cli: Run) -> None:
    assert run_cli("featurize", *QUICK, "--augment", "1")[0] == 0
    with FeatureCache(Path("features/train.h5")) as cache:
        before, blocks = cache.load(), cache.blocks
    values = drawn()
    words = write_features("npy", IDS[::-1], values[::-1])
    code, _, err = run_cli("import", *words, "--block", "dino", "--made-by", "DINOv2 ViT-S/14, class token")
    assert code == 0, err
    assert "its one view is that of all 2: augmented copies add nothing to it" in err
    with FeatureCache(Path("features/train.h5")) as cache:
        np.testing.assert_array_equal(cache.load(blocks=[blocks[0].name]), before)
        for view in range(2):
            np.testing.assert_array_equal(cache.load(blocks=["dino"])[:, view], values.astype(np.float16))
    assert not verify(Path("features/train.h5")).faults
    code, _, err = run_cli("featurize", *QUICK, "--augment", "1")
    assert (code, err.count("complete, nothing to compute")) == (0, 2), err
    code, _, err = run_cli("fit-heads", "--heads", "ridge", "--folds", "2")
    assert code == 0, err
    run = json.loads(Path("runs/latest/run.json").read_text())
    assert "dino" in json.dumps(run["blocks"])

    test = write_features("npy", [f"test{index}" for index in range(3)], drawn(3))
    out = ("--out", "features/test.h5")
    assert run_cli("import", *test, "--block", "dino", "--made-by", "another network", *out)[0] == 0
    code, _, err = run_cli("submit")
    assert code == 2
    assert "tap: " in err, "features by another network are another recipe"
    words = (*test, "--block", "dino", "--made-by", "DINOv2 ViT-S/14, class token", *out)
    assert run_cli("import", *words)[0] == 2, "the block is there already"
    assert run_cli("import", *words, "--overwrite")[0] == 0
    assert run_cli("submit")[0] == 0


def test_what_was_imported_is_lost_by_no_extension(project: Path, run_cli: Run) -> None:
    assert run_cli("featurize", *QUICK)[0] == 0
    assert run_cli("import", *write_features("npy", IDS, drawn()), "--block", "dino")[0] == 0
    code, _, err = run_cli("featurize", *QUICK, "--augment", "1")
    assert code == 2
    assert "holds 'dino', made elsewhere, and what is missing is missing of it too" in err
    with FeatureCache(Path("features/train.h5")) as cache:
        assert [block.name for block in cache.blocks] == ["squeezenet1_1", "dino"]


def test_a_cache_of_imported_features_alone_is_none_to_featurize_into(project: Path, run_cli: Run) -> None:
    assert run_cli("import", *write_features("npy", IDS, drawn()), "--block", "dino")[0] == 0
    code, _, err = run_cli("featurize", *QUICK)
    assert code == 2
    assert "holds only features that were made elsewhere, of unknown images. Featurize into another --out" in err


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_what_export_writes_comes_back(project: Path, run_cli: Run, kind: str) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow", reason="needs the extra `export`")
    assert run_cli("featurize", *QUICK, "--augment", "2", "--dtype", "float32")[0] == 0
    assert run_cli("export", "features/train.h5", "--to", kind)[0] == 0
    words = (f"features/train.{kind}", "--block", "again", "--out", "back.h5", "--dtype", "float32")
    code, _, err = run_cli("import", *words)
    assert code == 0, err
    with FeatureCache(Path("features/train.h5")) as ours, FeatureCache(Path("back.h5")) as back:
        assert back.ids == ours.ids
        np.testing.assert_array_equal(back.load(), ours.load())


BAD = {
    "no ids": (lambda: (np.save("x.npy", drawn()), ("x.npy",))[1], "an array has no ids; name them with --ids"),
    "too few ids": (lambda: write_features("npy", IDS[:5], drawn()), "6 rows of features and 5 ids"),
    "an id twice": (lambda: write_features("csv", [*IDS[:5], "train0"], drawn()), "ids must differ, and none be empty; 'train0'"),
    "NaN": (lambda: write_features("npy", IDS, np.where(np.arange(5) == 2, np.nan, drawn())), "'train0' has the value nan"),
    "too large": (lambda: write_features("npy", IDS, drawn() * 1e6), "that fit float16; --dtype float32 holds more"),
    "objects": (lambda: write_features("npy", ["a"], np.array([{}], object)), "cannot be read as a NumPy array"),
    "words": (lambda: (Path("x.csv").write_text("id,f0,name\na,1,b\n"), ("x.csv",))[1], "column 'name' holds 'b' in row 1; expected a number"),
    "another kind": (lambda: ("x.mat",), "expected a name that ends in .npy, .parquet, .csv"),
    "missing": (lambda: ("x.csv",), "x.csv: no such file"),
    "half the views": (lambda: (Path("x.csv").write_text("id,view,f0\na,0,1\na,1,2\nb,0,3\n"), ("x.csv",))[1], "3 rows are not 2 views of 2 images"),
    "no Parquet": (lambda: (Path("x.parquet").write_text("no"), ("x.parquet",))[1], "cannot be read as Parquet"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_imported_is_told_and_nothing_is_written(project: Path, run_cli: Run, kind: str) -> None:
    make, complaint = BAD[kind]
    code, _, err = run_cli("import", *make(), "--block", "made")
    assert code == 2
    assert complaint in err
    assert not Path("features/train.h5").exists()


def test_other_images_than_the_cache_s_are_told_both_ways(project: Path, run_cli: Run) -> None:
    assert run_cli("featurize", *QUICK)[0] == 0
    whole = Path("features/train.h5").read_bytes()
    code, _, err = run_cli("import", *write_features("npy", [*IDS[:5], "stranger"], drawn()), "--block", "made")
    assert code == 2
    assert "1 images of the cache have no features ('train5'); 1 ids are not in the cache ('stranger')" in err
    assert run_cli("import", *write_features("npy", IDS, drawn()), "--block", "")[0] == 2
    assert Path("features/train.h5").read_bytes() == whole
