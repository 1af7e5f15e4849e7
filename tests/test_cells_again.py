"""`cli cells` typed again: nothing to do, more images, other images, other settings; killed, stopped, a full disk, two at once."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cells_project import BY_CHANNEL, all_bytes, drawn, rows_of, write_channels, write_grey, write_rgb, write_split

import cli
import featurize.cells.run as story
from features_cache.files import publish

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three training images and a test image, and the process beside them."""
    monkeypatch.chdir(tmp_path)
    write_split("train", [1, 2, 3], write_grey)
    write_split("test", [4], write_grey)
    return tmp_path


def times(folder: str) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in Path(folder).rglob("*")}


def test_typed_again_nothing_is_done_even_where_files_were_copied(place: Path, run_cli: Run) -> None:
    assert run_cli("cells")[0] == 0
    before, written = all_bytes("cells"), times("cells")
    code, _, err = run_cli("cells")
    assert code == 0
    assert err.count("complete, nothing to do") == 2
    assert {path: at for path, at in times("cells").items() if path != Path("cells")} == {
        path: at for path, at in written.items() if path != Path("cells")
    }
    for path in Path("data/train").iterdir():
        os.utime(path, (1, 1))
    code, _, err = run_cli("cells")
    assert code == 0
    assert err.count("complete, nothing to do") == 2
    after = all_bytes("cells")
    assert {name for name in after if after[name] != before[name]} == {"cells.json"}


def test_images_that_come_later_are_added_and_the_bytes_are_those_of_all_at_once(place: Path, run_cli: Run) -> None:
    assert run_cli("cells", "--limit", "2", "--out", "grown")[0] == 0
    crop = Path("grown/train/train0/001.png").stat().st_mtime_ns
    code, _, err = run_cli("cells", "--out", "grown")
    assert code == 0
    assert "grown/train.csv: 12 cells of 3 images; 1 images cut in" in err
    assert Path("grown/train/train0/001.png").stat().st_mtime_ns == crop
    assert run_cli("cells", "--out", "once")[0] == 0
    assert all_bytes("grown") == all_bytes("once")


def test_a_changed_and_a_missing_image_are_told_and_nothing_is_touched(place: Path, run_cli: Run) -> None:
    assert run_cli("cells")[0] == 0
    before = all_bytes("cells")
    write_grey(Path("data/train"), "train1", drawn(9).planes)
    code, _, err = run_cli("cells")
    assert code == 2
    assert "cells/train: 1 images are not those that their cells were cut out of ('train1.png')" in err
    assert "--overwrite" in err
    write_grey(Path("data/train"), "train1", drawn(2).planes)
    Path("data/train/train2.png").rename("train2.png")
    code, _, err = run_cli("cells")
    assert code == 2
    assert "the images of 1 folders of crops are gone ('train2')" in err
    assert all_bytes("cells") == before
    assert run_cli("cells", "--overwrite")[0] == 0
    assert {row["parent"] for row in rows_of("cells/train.csv")} == {"train0.png", "train1.png"}
    assert not Path("cells/train/train2").exists()


def test_other_settings_are_refused_by_name_and_overwrite_begins_anew(place: Path, run_cli: Run) -> None:
    assert run_cli("cells")[0] == 0
    before = all_bytes("cells")
    code, _, err = run_cli("cells", "--margin", "0.5", "--border", "drop")
    assert code == 2
    assert "border: drop asked for, keep found; margin: 0.5 asked for, 0.05 found" in err
    assert all_bytes("cells") == before
    assert run_cli("cells", "--margin", "0.5", "--overwrite")[0] == 0
    assert run_cli("cells", "--margin", "0.5", "--out", "fresh")[0] == 0
    assert all_bytes("cells") == all_bytes("fresh")


def test_a_missing_crop_and_a_record_of_nonsense_are_told(place: Path, run_cli: Run) -> None:
    assert run_cli("cells")[0] == 0
    crop = Path("cells/train/train0/002.png")
    whole = crop.read_bytes()
    crop.unlink()
    code, _, err = run_cli("cells")
    assert code == 2
    assert "cells/train/train0: 3 of 4 crops are there" in err
    crop.write_bytes(whole)
    Path("cells/train/train0/record.json").write_text("[]")
    assert "record.json cannot be read" in run_cli("cells")[2]
    Path("cells/cells.json").write_text("{}")
    code, _, err = run_cli("cells", "--overwrite")
    assert code == 2
    assert "cells/cells.json: not what `cli cells` wrote" in err


def test_a_removed_table_is_written_again_and_the_crops_stay(place: Path, run_cli: Run) -> None:
    assert run_cli("cells")[0] == 0
    before = all_bytes("cells")
    Path("cells/train.csv").unlink()
    assert run_cli("cells")[0] == 0
    assert all_bytes("cells") == before


class EndedError(BaseException):
    """Stands for SIGKILL: nothing of ours catches it."""


@pytest.mark.parametrize("n_published", range(4))
def test_ended_between_any_two_files_of_an_extension_the_tables_end_up_right(
    place: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch, n_published: int
) -> None:
    assert run_cli("cells", "--limit", "2")[0] == 0
    left = [n_published]

    def publish_some(*given: object, **named: object) -> object:
        if left[0] == 0:
            raise EndedError
        left[0] -= 1
        return publish(*given, **named)

    with monkeypatch.context() as patch:
        for module in ("featurize.cells.run", "featurize.cells.state", "featurize.cells.tables"):
            patch.setattr(f"{module}.publish", publish_some)
        with pytest.raises(EndedError):
            run_cli("cells")
    assert run_cli("cells")[0] == 0
    assert run_cli("cells", "--out", "once")[0] == 0
    assert all_bytes("cells") == all_bytes("once")


def in_a_process(*words: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(cli.__file__).parent)}
    command = [sys.executable, "-m", "cli", "cells", *words]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_in_the_middle_and_typed_again_it_ends_in_the_same_bytes(
    place: Path, run_cli: Run, number: signal.Signals
) -> None:
    for path in Path("data").rglob("*.png"):
        path.unlink()
    write_split("train", range(20), write_channels)
    Path("data/test").rmdir()
    words = (*BY_CHANNEL, "--cell", "tubules,er")
    process = in_a_process(*words, "--workers", "1")
    limit = time.monotonic() + 60
    while len(list(Path("cells").glob("train/*/record.json"))) < 3:
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < limit
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 75
        assert "stopped by SIGTERM; what was committed is safe. Type the same command again to go on" in err
        assert not Path("cells/.making").exists()
    there = len(list(Path("cells").glob("train/*/record.json")))
    assert 3 <= there < 20
    assert not Path("cells/train.csv").exists()
    code, _, err = run_cli("cells", *words)
    assert code == 0
    assert f"{20 - there} images cut in" in err
    assert run_cli("cells", *words, "--out", "undisturbed")[0] == 0
    assert all_bytes("cells") == all_bytes("undisturbed")


def test_an_overwrite_that_was_stopped_goes_on_where_it_was(
    place: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_cli("cells")[0] == 0
    whole = story.publish_parent
    done = []

    def one(*given: object, **named: object) -> None:
        if done:
            raise EndedError
        done.append(given)
        whole(*given, **named)

    words = ("cells", "--margin", "0.2", "--overwrite", "--workers", "1")
    with monkeypatch.context() as patch:
        patch.setattr(story, "publish_parent", one)
        with pytest.raises(EndedError):
            run_cli(*words)
    code, _, err = run_cli(*words)
    assert code == 0
    assert "cells/train.csv: 12 cells of 3 images; 2 images cut in" in err
    assert run_cli("cells", "--margin", "0.2", "--out", "fresh")[0] == 0
    assert all_bytes("cells") == all_bytes("fresh")


def test_a_full_disk_stops_the_run_resumably(place: Path, run_cli: Run) -> None:
    """A limit on file size stands for a quota: the table that is too large fails with EFBIG, and a raised limit goes on."""
    assert run_cli("cells", "--out", "undisturbed")[0] == 0
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, hard))
        code, _, err = run_cli("cells")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert code == 75
    assert "free some space and type the same command again" in err
    assert run_cli("cells")[0] == 0
    assert all_bytes("cells") == all_bytes("undisturbed")


def test_two_in_one_folder_are_one_too_many(place: Path, run_cli: Run) -> None:
    Path("cells/.making").mkdir(parents=True)
    descriptor = os.open("cells/.making", os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        code, _, err = run_cli("cells")
        assert code == 2
        assert "another `cli cells` is at work there; wait for it, or choose another --out" in err
    finally:
        os.close(descriptor)
    assert run_cli("cells")[0] == 0
    assert not Path("cells/.making").exists()


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (("--out", "data"), "data/train: lies in data/train, where the crops would be taken for further images"),
        (("--out", "data", "--overwrite"), "data/train: lies in data/train"),
        (("--train-images", "data/test", "--out", "data"), "data/test: lies in data/test"),
        (("--out", "data/train"), "data/train/train: lies in data/train, where the crops would be taken for further"),
        (("--train-images", "."), "cells/train: lies in ., where the crops would be taken for further images"),
    ],
)
def test_the_images_own_folder_is_no_place_for_crops(
    place: Path, run_cli: Run, words: tuple[str, ...], match: str
) -> None:
    before = all_bytes(".")
    code, _, err = run_cli("cells", *words)
    assert code == 2
    assert match in err
    assert all_bytes(".") == before
    assert not list(Path().rglob(".making"))


def test_overwrite_removes_no_folder_that_it_did_not_make(place: Path, run_cli: Run) -> None:
    assert run_cli("cells", "--test-images", "data/train", "--train-images", "data/test", "--out", "both")[0] == 0
    Path("data/test").rename("elsewhere")
    assert run_cli("cells")[0] == 0
    write_rgb(Path("cells/test"), "test0", drawn(5).planes)
    code, _, err = run_cli("cells", "--overwrite")
    assert code == 2
    assert "cells/test: exists, and no cells/cells.json says that `cli cells` made it" in err
    assert Path("cells/test/test0.png").is_file()


def test_a_missing_extra_is_one_line_that_says_what_to_type(
    place: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "skimage", None)
    code, out, err = run_cli("cells")
    assert (code, out) == (2, "")
    assert err == "error: cli cells needs skimage, which is not installed; type pip install 'permafeat[cells]'"
    assert not Path("cells").exists()


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (("--nucleus", "blu"), "name 'blu', which is no channel; expected some of red, green, blue"),
        (("--cell", "blue"), "--cell names 'blue', which is the channel of nuclei"),
        (("--cell", "red,red"), "name 'red' twice"),
        (("--border", "dropp"), "did you mean 'drop'"),
        (("--background", "black"), "expected one of zero, keep"),
        (("--diameter", "3"), "--diameter is 3; expected 4 to 10000"),
        (("--margin", "-0.1"), "--margin is -0.1; expected 0 to 10"),
        (("--max-bad", "2"), "--max-bad is 2.0; expected a share from 0 to 1"),
        (("--workers", "0"), "--workers is 0; expected 1 or more"),
        (("--planes", "a,b"), "no channel is called nucleus or blue; expected one of a, b"),
    ],
)
def test_nonsense_is_refused_before_anything_is_written(
    place: Path, run_cli: Run, words: tuple[str, ...], match: str
) -> None:
    code, _, err = run_cli("cells", *words)
    assert code == 2
    assert match in err
    assert not list(Path().glob("cells/*"))
