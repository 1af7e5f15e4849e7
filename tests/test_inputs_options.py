"""Bad tables, channel files, weights and flags: what each gets, in words and exit code."""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from cache_data import QUICK, picture, quarantine
from inputs_data import evil_weights
from PIL import Image

from features_cache.errors import ImagesMissing
from features_cache.reader import FeatureCache
from featurize.images.channels import hash_image
from featurize.images.local_folder import LocalFolder
from featurize.images.manifest import list_images, read_ids

Run = Callable[..., tuple[int, str, str]]
TRAIN = Path("data/train")


TABLES = {
    "missing": (None, "nowhere.csv: no such file"),
    "empty": ("", "labels.csv: empty; expected a header row"),
    "header only": ("id,label\n", "labels.csv: only a header (id, label)"),
    "semicolons": ("id;label\ntrain0;a\n", "labels.csv:1: the columns are separated by semicolons; expected commas"),
    "tabs": ("id\tlabel\ntrain0\ta\n", "labels.csv:1: the columns are separated by tabs"),
    "ragged": ("id,label\ntrain0,a\ntrain1,b,c\n", "labels.csv:3: 3 cells; expected 2"),
    "unclosed quote": ('id,label\ntrain0,"a\ntrain1,b\n', "labels.csv:2: malformed CSV"),
    "NUL": ("id,label\ntrain0,a\ntrain\x001,b\n", "labels.csv:3: a NUL byte"),
    "not UTF-8": (b"id,label\ntrain0,\xe4\n", "labels.csv:2: byte 0xe4 is not UTF-8"),
    "blank id": ("id,label\n,a\n", "labels.csv: 1 rows without an id (lines 2)"),
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_that_cannot_be_read_is_told_by_file_and_row(project: Path, run_cli: Run, kind: str) -> None:
    content, complaint = TABLES[kind]
    name = "nowhere.csv" if content is None else "labels.csv"
    if content is not None:
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    code, _, err = run_cli("featurize", *QUICK, "--labels", name)
    assert code == 2
    assert complaint in err


def test_a_wrong_column_is_told_with_those_found(project: Path, run_cli: Run) -> None:
    code, _, err = run_cli("featurize", *QUICK, "--id-column", "labels")
    assert code == 2
    assert "data/train.csv:1: no column 'labels'; found columns id, label; did you mean 'label'?" in err


def test_a_byte_order_mark_is_accepted_and_ids_stay_text(project: Path, run_cli: Run) -> None:
    rows = "id,label\n" + "".join(f"{name},a\n" for name in ("007", "1e5", "7"))
    for path in TRAIN.iterdir():
        path.unlink()
    for index, name in enumerate(("007", "1e5", "7")):
        picture(index).save(TRAIN / f"{name}.png")
    Path("data/train.csv").write_bytes(b"\xef\xbb\xbf" + rows.encode())
    code, _, err = run_cli("featurize", *QUICK)
    assert code == 0, err
    with FeatureCache(Path("features/train.h5")) as cache:
        assert cache.ids == ("007", "1e5", "7")


def test_ids_and_images_must_meet_both_ways(project: Path, run_cli: Run) -> None:
    (TRAIN / "train0.png").unlink()
    picture(8).save(TRAIN / "extra.png")
    code, _, err = run_cli("featurize", *QUICK)
    assert code == 2
    assert "1 of 6 ids in data/train.csv have no image ('train0')" in err
    assert "1 images have no row in data/train.csv ('extra.png')" in err
    assert "--ignore-unlabelled" in err
    code, _, err = run_cli("featurize", *QUICK, "--ignore-unlabelled")
    assert code == 0
    assert "left out" in err
    with FeatureCache(Path("features/train.h5")) as cache:
        assert cache.ids == ("train1", "train2", "train3", "train4", "train5")


def test_a_repeated_id_is_one_image_and_a_warning(project: Path, run_cli: Run) -> None:
    with Path("data/train.csv").open("a") as file:
        file.write("train0,a\n")
    code, _, err = run_cli("featurize", *QUICK)
    assert code == 0
    assert "1 rows repeat an id (first: 'train0', line 8)" in err


def channel_files(
    folder: Path, name: str, channels: tuple[str, ...] = ("er", "mt", "nucleus"), side_px: int = 30
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index, channel in enumerate(channels):
        picture(hash_of(name) + index, side_px).convert("L").save(folder / f"{name}_{channel}.png")


def hash_of(name: str) -> int:
    return zlib.crc32(name.encode()) % 1000


CHANNELS = ("--pattern", "{id}_{channel}.png", "--channels", "nucleus,mt,er")


def test_channel_files_are_stacked_in_the_order_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_cli: Run
) -> None:
    monkeypatch.chdir(tmp_path)
    channel_files(TRAIN, "cell_1")
    stacked = np.stack(
        [np.asarray(Image.open(TRAIN / f"cell_1_{name}.png")) for name in ("nucleus", "mt", "er")], axis=2
    )
    Path("rgb").mkdir()
    Image.fromarray(stacked).save("rgb/cell_1.png")
    assert run_cli("featurize", *QUICK, *CHANNELS)[0] == 0
    # The random network's statistics are those of the first run's images: the same numbers, here.
    assert run_cli("featurize", *QUICK, "--train-images", "rgb", "--out", "other")[0] == 0
    with FeatureCache(Path("features/train.h5")) as one, FeatureCache(Path("other/train.h5")) as other:
        assert one.ids == ("cell_1",)
        assert one.blocks[0].recipe.channels == ("nucleus", "mt", "er")
        np.testing.assert_array_equal(one.load(), other.load())


def test_a_missing_or_unequal_channel_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_cli: Run
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("whole", "missing", "unequal"):
        channel_files(TRAIN, name)
    (TRAIN / "missing_mt.png").unlink()
    picture(1, 31).convert("L").save(TRAIN / "unequal_er.png")
    code, _, _ = run_cli("featurize", *QUICK, *CHANNELS, "--max-bad", "0.9")
    assert code == 4
    assert {name: reason for name, (_, reason) in quarantine().items()} == {
        "missing": "channel mt has no file",
        "unequal": "channel er is 31 x 31; channel nucleus is 30 x 30",
    }


def test_weights_that_carry_code_are_refused_and_nothing_runs(project: Path, run_cli: Run) -> None:
    evil_weights()
    code, _, err = run_cli("featurize", "--backbone", "squeezenet1_1", "--weights", ".")
    assert code == 3
    assert "holds code beside tensors" in err
    assert "torch.save(model.state_dict(), FILE)" in err
    assert not Path("evil-was-here").exists()


def test_weights_of_another_network_or_damaged_are_told(project: Path, run_cli: Run) -> None:
    from torchvision import models

    state = models.mobilenet_v2(weights=None).state_dict()
    torch.save(state, "squeezenet1_1.pth")
    arguments = (
        "featurize",
        "--backbone",
        "squeezenet1_1",
        "--weights",
        "squeezenet1_1=squeezenet1_1.pth",
        "--size",
        "64",
    )
    code, _, err = run_cli(*arguments)
    assert code == 2
    assert "squeezenet1_1.pth: the weights are not those of squeezenet1_1" in err
    Path("squeezenet1_1.pth").write_bytes(Path("squeezenet1_1.pth").read_bytes()[:1000])
    code, _, err = run_cli(*arguments)
    assert code == 2
    assert "cannot be read as weights" in err
    code, _, err = run_cli("featurize", "--backbone", "resnet18", "--weights", ".")
    assert code == 2
    assert "neither resnet18.safetensors nor resnet18.pth; it holds squeezenet1_1.pth" in err


def test_a_hub_file_without_the_hash_in_its_name_is_told(
    project: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(project / "hub"))
    folder = project / "hub" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "squeezenet1_1-b8a52dc0.pth").write_bytes(b"not those bytes")
    code, _, err = run_cli("featurize", "--backbone", "squeezenet1_1")
    assert code == 2
    assert "its bytes do not have the hash in its name" in err


def test_missing_weights_name_the_file_its_size_its_place_and_two_other_choices(
    project: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(project / "hub"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    code, _, err = run_cli("featurize", "--backbone", "resnet18")
    assert code == 2
    assert "put resnet18-f37072fd.pth (45 MB" in err
    assert str(project / "hub" / "hub" / "checkpoints") in err
    assert "--weights DIR" in err
    assert "--weights random" in err


FLAGS = {
    "unknown flag": (("--augmnt", "6"), "--augment"),
    "unknown backbone": (("--backbone", "resnet81", "--weights", "random"), "no backbone 'resnet81'; `cli backbones` lists them; did you mean"),
    "negative batch": (("--batch-size", "-1"), "--batch-size is -1; expected 1 or more"),
    "batch in words": (("--batch-size", "many"), "--batch-size is 'many'; expected auto or a number"),
    "negative copies": (("--augment", "-1"), "--augment is -1; expected 0 or more"),
    "bad share": (("--max-bad", "5"), "--max-bad is 5.0; expected a share from 0 to 1"),
    "unknown device": (("--device", "cdua"), "--device is 'cdua'; expected one of auto, cpu, cuda, mps; did you mean 'cuda'?"),
    "unknown dtype": (("--dtype", "int8"), "--dtype is 'int8'; expected one of float16, float32"),
    "weights of another network": (("--backbone", "resnet18", "--weights", "resnet81=x.pth"), "--weights resnet81=FILE: no such network"),
    "unknown weights": (("--weights", "imagnet"), "--weights 'imagnet'; expected imagenet, random, an existing folder, or NAME=FILE"),
    "two channels": (("--pattern", "{id}_{channel}.png", "--channels", "a,b"), "a+b names 2; a network takes three (a+b+none)"),
    "channels alone": (("--channels", "a,b,c"), "--channels: no channel 'a'; there are red, green, blue"),
    "no placeholder": (("--pattern", "x.png", "--channels", "a,b,c"), "expected one {id} and one {channel}"),
    "a size that a network does not take": (("--backbone", "vit_b_16", "--size", "100", "--weights", "random"), "vit_b_16 takes multiples of 16 px"),
    "an unknown config file": (("--config", "x.toml"), "x.toml: no such file"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FLAGS)
def test_a_wrong_flag_is_told_with_what_is_expected(project: Path, run_cli: Run, kind: str) -> None:
    words, complaint = FLAGS[kind]
    code, _, err = run_cli("featurize", *words)
    assert code == 2
    assert complaint in err.replace("│ ", "").replace(" │", "")
    assert not Path("features").exists() or not list(Path("features").glob("*.h5"))


CONFIGS = {
    "unknown key": ("[featurize]\naugmnt = 6\n", "[featurize] has no key 'augmnt'; did you mean 'augment'?"),
    "unknown section": ("[featurise]\naugment = 6\n", "no section [featurise]"),
    "no TOML": ("augment 6\n", "cannot be read as TOML"),
    "a list for one value": ("[featurize]\naugment = [6]\n", "augment is a list; expected one value"),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_wrong_word_in_permafeat_toml_is_an_error(project: Path, run_cli: Run, kind: str) -> None:
    content, complaint = CONFIGS[kind]
    Path("permafeat.toml").write_text(content)
    code, _, err = run_cli("featurize", *QUICK)
    assert code == 2
    assert complaint in err


def test_an_existing_output_that_is_not_ours_stays(project: Path, run_cli: Run) -> None:
    Path("features").mkdir()
    Path("features/train.h5").write_text("my thesis")
    code, _, err = run_cli("featurize", *QUICK)
    assert code == 2
    assert "features/train.h5: not a permafeat file" in err
    assert "--overwrite" in err
    assert Path("features/train.h5").read_text() == "my thesis"
    assert run_cli("featurize", *QUICK, "--overwrite")[0] == 0


def test_another_recipe_than_the_cache_holds_is_told_not_mixed(project: Path, run_cli: Run) -> None:
    assert run_cli("featurize", *QUICK, "--augment", "1")[0] == 0
    before = Path("features/train.h5").read_bytes()
    code, _, err = run_cli("featurize", *QUICK, "--augment", "1", "--dtype", "float32")
    assert code == 2
    assert "storage: float32 asked for, float16 found" in err
    assert "Type --overwrite to compute it anew, or choose another --out" in err
    assert Path("features/train.h5").read_bytes() == before


def test_a_file_where_the_caches_should_go_is_told(project: Path, run_cli: Run) -> None:
    Path("features").write_text("notes")
    for out in ("features", "features/below"):
        code, _, err = run_cli("featurize", *QUICK, "--out", out)
        assert code == 2
        assert "features is a file; expected a folder, or nothing. Choose another place with --out" in err


def test_a_half_copied_weight_file_is_told(project: Path, run_cli: Run) -> None:
    from torchvision import models

    torch.save(models.squeezenet1_1(weights=None).state_dict(), "whole.pth")
    raw = Path("whole.pth").read_bytes()
    for n_bytes in (0, 1, 5000, len(raw) // 2, len(raw) - 1):
        Path("cut.pth").write_bytes(raw[:n_bytes])
        code, _, err = run_cli("featurize", "--backbone", "squeezenet1_1", "--weights", "squeezenet1_1=cut.pth")
        assert code == 2
        assert "cut.pth: cannot be read as weights" in err and "Copy it again" in err


def test_torchvision_s_own_file_is_held_to_the_hash_in_its_name_wherever_it_lies(project: Path, run_cli: Run) -> None:
    from torchvision import models

    state = models.squeezenet1_1(weights=None).state_dict()
    for name in ("squeezenet1_1-b8a52dc0.pth", "squeezenet1_1-20240101.pth"):
        torch.save(state, name)
    words = ("featurize", "--backbone", "squeezenet1_1", "--size", "64", "--device", "cpu", "--weights")
    code, _, err = run_cli(*words, "squeezenet1_1=squeezenet1_1-b8a52dc0.pth")
    assert code == 2
    assert "its bytes do not have the hash in its name" in err
    code, _, err = run_cli(*words, "squeezenet1_1=squeezenet1_1-20240101.pth")
    assert code == 0, err


def test_a_named_table_that_is_not_there_is_an_error_even_without_its_images(project: Path, run_cli: Run) -> None:
    shutil.rmtree("data/test")
    code, _, err = run_cli("featurize", *QUICK, "--sample", "nope.csv")
    assert code == 2
    assert "--sample nope.csv: no such file" in err
    Path("data/sample_submission.csv").unlink()
    code, _, err = run_cli("featurize", *QUICK)
    assert code == 0
    assert "there is no folder of test images, so no test.h5" in err


def test_a_column_in_another_case_is_suggested_with_the_option_to_type(project: Path, run_cli: Run) -> None:
    code, _, err = run_cli("featurize", *QUICK, "--id-column", "ID")
    assert code == 2
    assert "did you mean 'id'? Name it as it is there (--id-column" in err


def test_grey_images_are_counted(project: Path, run_cli: Run) -> None:
    for path in TRAIN.iterdir():
        Image.open(path).convert("L").save(path)
    assert "6 images: grey turned to RGB" in run_cli("featurize", *QUICK)[2]


def test_views_that_stay_although_fewer_are_asked_for_are_told(project: Path, run_cli: Run) -> None:
    assert run_cli("featurize", *QUICK, "--augment", "2")[0] == 0
    code, _, err = run_cli("featurize", *QUICK, "--augment", "2", "--tta", "0")
    assert code == 0
    assert "features/test.h5: holds 3 views an image, 1 asked for: all stay, and are averaged" in err


def test_an_exact_relative_path_is_no_ambiguous_id(tmp_path: Path) -> None:
    for name in ("a.png", "sub/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        picture(1).save(tmp_path / name)
    table = tmp_path / "ids.csv"
    table.write_text("id\na.png\nsub/a.png\n")
    assert list_images(tmp_path, ids=read_ids(table, None)).ids == ("a.png", "sub/a.png")


@pytest.mark.parametrize("key", ["overwrite", "repair"])
def test_what_recomputes_features_is_no_default_of_a_file(project: Path, run_cli: Run, key: str) -> None:
    Path("permafeat.toml").write_text(f"[featurize]\n{key} = true\n")
    code, _, err = run_cli("featurize", "--config", "permafeat.toml")
    assert code == 2
    assert f"no key '{key}'" in err


def test_two_files_that_would_have_one_id_are_told(tmp_path: Path) -> None:
    picture(1).save(tmp_path / "a%FF.png")
    shutil.copy(tmp_path / "a%FF.png", os.fsencode(tmp_path) + b"/a\xff.png")
    with pytest.raises(ImagesMissing, match=r"two files have the id 'a%FF\.png'"):
        list_images(tmp_path, ids=None)


def test_a_file_from_the_far_future_is_read(tmp_path: Path) -> None:
    picture(1).save(tmp_path / "a.png")
    os.utime(tmp_path / "a.png", (0, 13569465600))  # the year 2400
    sources = list_images(tmp_path, ids=None).sources[0]
    assert sources[0].sign == 2**63 - 1
    assert hash_image(LocalFolder(tmp_path), sources).any(), "it is the file that was listed"
