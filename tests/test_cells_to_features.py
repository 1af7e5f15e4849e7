"""From images of a file a channel over `cli cells` to features of cells: crops are read as they were written, whatever holds for images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from cache_data import QUICK
from cells_project import rows_of, write_channels, write_deep, write_rgb, write_split

from features_cache.reader import FeatureCache

pytestmark = pytest.mark.usefixtures("one_thread")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def parents_in(path: str) -> dict[str, str]:
    with FeatureCache(Path(path)) as cache:
        assert cache.parents is not None
        assert cache.good.all()
        return dict(zip(cache.ids, cache.parents, strict=True))


def test_crops_of_channel_files_are_found_by_themselves_whatever_the_images_are_called(
    place: Path, run_cli: Run
) -> None:
    write_split("train", [1, -2, 3], write_channels)
    write_split("test", [4], write_channels)
    for path in list(Path("data").rglob("*.png")):
        image_id, _, channel = path.stem.rpartition("_")
        path.rename(path.with_name(f"{channel}-{image_id}.png"))
    Path("permafeat.toml").write_text(
        '[featurize]\nbackbone = ["squeezenet1_1"]\nweights = "random"\nsize = 64\npattern = "{channel}-{id}.png"\n'
        'channels = ["nucleus", "tubules", "er"]\nscale = "channel:1:99"\n\n[cells]\ncell = ["tubules", "er"]\n'
    )
    assert run_cli("cells")[0] == 0
    code, _, err = run_cli("featurize", "--cells", "cells", "--device", "cpu")
    assert code == 0, err
    for split in ("train", "test"):
        rows = rows_of(f"cells/{split}.csv")
        assert parents_in(f"features/{split}_cells.h5") == {row["id"]: row["parent"] for row in rows}
    with h5py.File("features/train_cells.h5") as file:
        assert file["/parent"].shape == (8,)
    assert set(parents_in("features/train_cells.h5").values()) == {"train0", "train2"}
    with FeatureCache(Path("features/train_cells.h5")) as cache:
        assert {block.recipe.scale for block in cache.blocks} == {"dtype"}
    code, _, err = run_cli("featurize", "--device", "cpu")
    assert code == 0, err
    with FeatureCache(Path("features/train.h5")) as cache:
        assert list(cache.ids) == ["train0", "train1", "train2"]
        assert {block.recipe.scale for block in cache.blocks} == {"channel:1:99"}


@pytest.mark.parametrize("write", [write_rgb, write_deep], ids=["RGB", "16 bits"])
def test_crops_of_ordinary_images_need_no_pattern_and_more_images_extend_the_cache(
    place: Path, run_cli: Run, write: Callable[..., None]
) -> None:
    write_split("train", [1, 2], write)
    words = ("featurize", *QUICK, "--cells", "cells")
    assert run_cli("cells", "--limit", "1")[0] == 0
    assert run_cli(*words)[0] == 0
    assert run_cli("cells")[0] == 0
    code, _, err = run_cli(*words)
    assert code == 0, err
    assert "4 computed" in err
    assert list(parents_in("features/train_cells.h5").values()) == ["train0.png"] * 4 + ["train1.png"] * 4
    with FeatureCache(Path("features/train_cells.h5")) as cache:
        assert len(np.unique(cache.load()[:, 0], axis=0)) == 8


def with_channels(first: str, second: str) -> None:
    write_split("train", [1], write_channels)
    for old, new in (("er", first), ("nucleus", second)):
        Path(f"data/train/train0_{old}.png").rename(f"data/train/{new}-train0.png")
    Path("data/train/train0_tubules.png").unlink()


def test_channels_of_crops_may_hold_underscores_and_need_no_pattern_to_be_named(place: Path, run_cli: Run) -> None:
    with_channels("C_1", "C_2")
    assert run_cli("cells", "--pattern", "{channel}-{id}.png", "--nucleus", "C_2")[0] == 0
    code, _, err = run_cli("featurize", *QUICK, "--cells", "cells", "--channels", "C_1+C_2+none")
    assert code == 0, err
    assert parents_in("features/train_cells.h5") == {f"train0/{number:03d}": "train0" for number in range(1, 5)}


def test_channels_that_crops_names_could_not_tell_apart_are_refused(place: Path, run_cli: Run) -> None:
    with_channels("R", "far_R")
    code, _, err = run_cli("cells", "--pattern", "{channel}-{id}.png", "--nucleus", "far_R")
    assert code == 2
    assert "channels 'far_R' and 'R': by '{id}_{channel}.png' crops of the one would be taken for the other's" in err
