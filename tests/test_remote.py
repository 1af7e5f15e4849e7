"""Images by URL: the same features as from a folder, each file read once, asked for again where that helps, and never again where not."""

from __future__ import annotations

import io
import itertools
import json
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest
from cache_data import QUICK, KilledError, quarantine
from remote_data import Store, upload

from features_cache.errors import OptionError, UnsafePath
from features_cache.reader import FeatureCache
from features_cache.urls import Url
from featurize.images.manifest import list_images
from featurize.images.retries import waits_s
from featurize.run import featurize
from featurize.settings import FeaturizeSettings

Run = Callable[..., tuple[int, str, str]]
TRIAL = ("--train-images", "trial://data/train", "--test-images", "trial://data/test")
MEMORY = ("--train-images", "memory://data/train", "--test-images", "memory://data/test")
TRAIN = [f"train{index}.png" for index in range(6)]
EVERY = [*TRAIN, *(f"test{index}.png" for index in range(3))]
LOST = ConnectionError("the line is dead")


@pytest.fixture
def stored(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The project with its images in stores, whose waits take no time."""
    monkeypatch.setattr("featurize.images.retries._FIRST_WAIT_S", 0)
    for scheme in ("trial", "memory"):
        upload(Path("data"), f"{scheme}://data")
    yield project
    for store in (Store.store, fsspec.filesystem("memory").store, Store.asked, Store.faults):
        store.clear()


def caches(folder: str = "features") -> list[bytes]:
    return [Path(folder, f"{split}.h5").read_bytes() for split in ("train", "test")]


def reads() -> list[int]:
    return [Store.asked[name] for name in EVERY]


def test_features_by_url_are_those_of_the_same_files_in_a_folder_to_the_byte(stored: Path, run_cli: Run) -> None:
    assert run_cli("featurize", *QUICK, "--augment", "1", "--out", "local")[0] == 0
    for number, urls in enumerate((MEMORY, TRIAL)):
        code, _, err = run_cli("featurize", *QUICK, "--augment", "1", "--out", f"out{number}", *urls)
        assert code == 0, err
        assert caches(f"out{number}") == caches("local")
    digests = [json.loads(Path(out, "train.json").read_text())["sources_digest"] for out in ("local", "out0")]
    assert digests[0] != digests[1], "other times, which are in no cache"


def test_each_file_is_read_once_and_looked_at_once_where_its_store_tells_only_times(stored: Path, run_cli: Run) -> None:
    assert run_cli("featurize", *QUICK, *TRIAL)[0] == 0
    assert reads() == [1] * 9
    assert (Store.asked["find"], Store.asked["info"]) == (2, 9)
    code, _, err = run_cli("featurize", *QUICK, *TRIAL)
    assert code == 0
    assert "nothing to compute" in err
    assert reads() == [1] * 9


def test_where_a_store_tells_checksums_the_bytes_are_their_own_proof(
    stored: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "tells_md5", True)
    assert run_cli("featurize", *QUICK, *TRIAL)[0] == 0
    assert reads() == [1] * 9
    assert Store.asked["info"] == 0


def test_what_may_pass_is_asked_for_again(stored: Path, run_cli: Run) -> None:
    Store.faults = {
        "train2.png": iter([LOST, TimeoutError()]),
        "train4.png": iter([lambda raw: raw[:-9]]),
        "find": iter([LOST]),
    }
    assert run_cli("featurize", *QUICK, *TRIAL)[0] == 0
    assert [Store.asked[name] for name in TRAIN] == [1, 1, 3, 1, 2, 1]
    assert not Path("features/train.quarantine.csv").exists()


@pytest.mark.parametrize("fault", [LOST, lambda raw: raw[:-1]], ids=["dead", "truncated"])
def test_a_store_that_gives_no_answer_ends_the_run_which_goes_on_where_it_stopped(
    stored: Path, run_cli: Run, fault: object
) -> None:
    assert run_cli("featurize", *QUICK, "--out", "whole")[0] == 0
    Store.faults = {"train3.png": itertools.repeat(fault)}
    words = ("featurize", *QUICK, *TRIAL, "--batch-size", "1")
    code, _, err = run_cli(*words)
    assert code == 75
    assert "error: trial://data/train/train3.png: the store gave no answer" in err
    assert "6 times). Type the same command again to go on" in err
    assert Store.asked["train3.png"] == 6
    n_parts = len(list(Path("features/train.parts").glob("*.h5")))
    assert n_parts >= 2
    Store.faults = {}
    Store.asked.clear()
    assert run_cli(*words)[0] == 0
    assert sum(Store.asked[name] for name in TRAIN) == 6 - n_parts
    assert caches() == caches("whole")


def test_a_store_that_cannot_be_listed_ends_the_run_before_anything_is_written(stored: Path, run_cli: Run) -> None:
    Store.faults = {"find": itertools.repeat(LOST)}
    code, _, err = run_cli("featurize", *QUICK, *TRIAL)
    assert code == 75
    assert "error: trial://data/train: the store gave no answer (ConnectionError: the line is dead, 6 times)" in err
    Store.faults = {"find": itertools.repeat(PermissionError("who are you"))}
    code, _, err = run_cli("featurize", *QUICK, *TRIAL)
    assert code == 2
    assert "access denied (PermissionError: who are you)" in err
    assert Store.asked["find"] == 7
    assert not Path("features").exists()


def test_images_that_are_gone_or_denied_are_quarantined_and_asked_for_once(stored: Path, run_cli: Run) -> None:
    Store.faults = {
        "train1.png": itertools.repeat(FileNotFoundError("train1")),
        "train4.png": itertools.repeat(PermissionError("not yours")),
    }
    assert run_cli("featurize", *QUICK, *TRIAL, "--max-bad", "0.5")[0] == 4
    assert quarantine() == {
        "train1": ("unreadable", "No such file or directory (errno 2)"),
        "train4": ("unreadable", "Permission denied (errno 13)"),
    }
    assert reads() == [1] * 9


def test_credentials_that_expire_quarantine_nothing(stored: Path, run_cli: Run) -> None:
    denied = PermissionError("the token has expired")
    Store.faults = dict.fromkeys(("train2.png", "train3.png", "info"), itertools.repeat(denied))
    Store.tells_md5, before = True, Store.tells_md5
    try:
        code, _, err = run_cli("featurize", *QUICK, *TRIAL, "--max-bad", "1")
    finally:
        Store.tells_md5 = before
    assert code == 75
    assert "the store gave no answer (PermissionError: the token has expired)" in err
    assert not list(Path("features").glob("*.parts/*.h5"))


@pytest.mark.parametrize("tells_md5", [False, True], ids=["times", "checksums"])
def test_an_image_that_is_another_one_than_was_listed_is_noticed(
    stored: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch, tells_md5: bool
) -> None:
    monkeypatch.setattr(Store, "tells_md5", tells_md5)
    system = fsspec.filesystem("trial")

    def swapped(raw: bytes) -> bytes:
        other = raw[:-1] + bytes([raw[-1] ^ 1])
        system.pipe_file("/data/train/train3.png", other)
        return other

    Store.faults = {"train3.png": iter([swapped])}
    code, _, err = run_cli("featurize", *QUICK, *TRIAL)
    assert code == 2
    assert "trial://data/train/train3.png: changed since the run began. Put it back" in err
    assert Store.asked["train3.png"] == 1


def test_one_connection_is_used_by_one_thread_at_a_time_and_its_kept_listings_hide_no_change(
    stored: Path, run_cli: Run
) -> None:
    places = ("--train-images", "oneline://data/train", "--test-images", "oneline://data/test")
    code, _, err = run_cli("featurize", *QUICK, *places, "--workers", "4", "--out", "whole")
    assert code == 0, err
    system = fsspec.filesystem("oneline")

    def swapped(raw: bytes) -> bytes:
        system.pipe_file("/data/train/train3.png", raw)  # as large, and written later
        return raw

    Store.faults = {"train3.png": iter([swapped])}
    code, _, err = run_cli("featurize", *QUICK, *places, "--workers", "4")
    assert code == 2
    assert "oneline://data/train/train3.png: changed since the run began" in err


def test_a_killed_run_by_url_goes_on_and_ends_in_the_same_bytes(
    stored: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_cli("featurize", *QUICK, "--out", "whole")[0] == 0
    words = ("featurize", *QUICK, *TRIAL, "--batch-size", "2")

    def dying(*_: object, **__: object) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr("featurize.finish.publish_cache", dying)
        with pytest.raises(KilledError):
            run_cli(*words)
    assert run_cli(*words)[0] == 0
    assert reads() == [1] * 9
    assert caches() == caches("whole")


def test_an_extension_by_url_reads_the_new_images_and_no_others(stored: Path, run_cli: Run) -> None:
    rows = Path("data/train.csv").read_text()
    words = ("featurize", *QUICK, *TRIAL, "--ignore-unlabelled")
    Path("data/train.csv").write_text("\n".join(rows.splitlines()[:-2]) + "\n")
    assert run_cli(*words)[0] == 0
    Store.asked.clear()
    Path("data/train.csv").write_text(rows)
    code, _, err = run_cli(*words)
    assert code == 0
    assert "2 computed" in err
    assert reads() == [0, 0, 0, 0, 1, 1, 0, 0, 0]
    assert run_cli("featurize", *QUICK, "--out", "whole")[0] == 0
    assert caches() == caches("whole")


def test_other_commands_take_urls_from_flags_the_environment_and_the_file(
    stored: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = run_cli("check", *QUICK, "--folds", "2", *TRIAL)
    assert code == 0
    assert "note: train: 6 images in trial://data/train" in out
    assert run_cli("views", "train1", "--out", "local.png")[0] == 0
    monkeypatch.setenv("PERMAFEAT_FEATURIZE_TRAIN_IMAGES", TRIAL[1])
    Store.asked.clear()
    assert run_cli("views", "train1")[0] == 0
    assert Store.asked["train1.png"] == 1
    assert Path("sheet.png").read_bytes() == Path("local.png").read_bytes()
    monkeypatch.delenv("PERMAFEAT_FEATURIZE_TRAIN_IMAGES")
    monkeypatch.setenv("BUCKET", "data")
    Path("permafeat.toml").write_text(
        '[featurize]\ntrain-images = "trial://$BUCKET/train"\ntest-images = "data/test"\n'
    )
    Store.asked.clear()
    assert run_cli("views", "train1")[0] == 0
    assert Store.asked["train1.png"] == 1


def test_cells_are_cut_out_of_images_by_url(stored: Path, run_cli: Run) -> None:
    pytest.importorskip("skimage")
    assert run_cli("cells", "--nucleus", "blue", "--out", "local")[0] == 0
    assert run_cli("cells", "--nucleus", "blue", "--out", "remote", *TRIAL)[0] == 0
    assert reads() == [1] * 9
    found = [
        {path.relative_to(out).as_posix(): path.read_bytes() for path in Path(out).rglob("*") if path.is_file()}
        for out in ("local", "remote")
    ]
    for files in found:
        assert files.pop("cells.json")
    assert found[0] == found[1]


@pytest.mark.parametrize("url", ["simplecache::trial://data/train", "zip://train::trial://data/all.zip"])
def test_urls_may_be_chained(stored: Path, url: str) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in TRAIN:
            archive.write(Path("data/train", name), f"train/{name}")
    fsspec.filesystem("trial").pipe_file("/data/all.zip", packed.getvalue())
    manifest = list_images(Url(url), ids=None)
    assert list(manifest.ids) == TRAIN
    for name, (source,) in zip(TRAIN, manifest.sources, strict=True):
        assert manifest.root.read(source) == Path("data/train", name).read_bytes()


def test_a_damaged_file_of_an_archive_is_an_unreadable_image(stored: Path, run_cli: Run) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in TRAIN:
            archive.write(Path("data/train", name), f"train/{name}")
    raw = bytearray(packed.getvalue())
    raw[raw.index(Path("data/train/train2.png").read_bytes()[-40:]) + 10] ^= 1
    fsspec.filesystem("trial").pipe_file("/data/all.zip", bytes(raw))
    places = ("--train-images", "zip://train::trial://data/all.zip", "--labels", "data/train.csv")
    code, _, err = run_cli("featurize", *QUICK, *places, "--max-bad", "0.5")
    assert code == 4, err
    assert "damaged in its archive" in next(iter(quarantine().values()))[1]


def test_secrets_of_a_url_are_told_nowhere(stored: Path, run_cli: Run) -> None:
    url = "trial://me:hunter2@data/train"
    words = ("--train-images", url, "--test-images", TRIAL[3])
    assert run_cli("featurize", *QUICK, *words)[0] == 0
    told = [
        run_cli("check", *QUICK, "--folds", "2", *words),
        run_cli("featurize", *QUICK, *words, "--dry-run", "--json"),
    ]
    Store.faults = {"train3.png": itertools.repeat(OSError(f"503 at {url}/train3.png?X-Signature=hunter2"))}
    told.append(run_cli("-v", "featurize", *QUICK, *words, "--overwrite"))
    assert (
        "trial://data/train/train3.png: the store gave no answer (OSError: 503 at trial://data/train/train3.png?..."
        in told[-1][2]
    )
    assert "hunter2" not in str(told)
    for path in Path("features").rglob("*"):
        assert path.is_dir() or b"hunter2" not in path.read_bytes()
    assert "hunter2" not in repr(FeaturizeSettings(train_images=Url(url)))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--out", "s3://bucket/features"), "--out s3://bucket/features: a URL; expected a path on this machine"),
        (("--cells", "s3://bucket/cells"), "--cells s3://bucket/cells: a URL"),
        (("--labels", "https://me:pw@host/train.csv"), "--labels https://host/train.csv: a URL"),
        (("--train-images", "s4://bucket/train"), "s4://bucket/train: cannot be opened (ValueError: Protocol not known: s4)"),
        (("--train-images", "absent://b/train"), "(Install absent_fs); type pip install absent_fs"),
        (("--train-images", "trial://data/nowhere"), "trial://data/nowhere: no such folder, or no images in it"),
        (("--train-images", "folders://data/nowhere"), "folders://data/nowhere: no such folder; name the folder with --train"),
        (("--train-images", "trial://data/train/train1.png"), "train1.png: a file; expected a folder of images"),
        (("--train-images", "trial://data/all.zip"), "or a zip as zip://::trial://data/all.zip"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told_in_a_line(stored: Path, run_cli: Run, words: tuple[str, ...], told: str) -> None:
    fsspec.register_implementation("absent", "absent_fs.FileSystem", errtxt="Install absent_fs", clobber=True)
    fsspec.filesystem("trial").pipe_file("/data/all.zip", b"PK")
    code, _, err = run_cli("featurize", *QUICK, *words)
    assert code == 2
    assert err.startswith("error: ")
    assert told in err


def test_a_missing_fsspec_is_named_with_what_to_type(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(OptionError, match=r"trial://data/train needs fsspec.*pip install 'permafeat\[remote\]'"):
        list_images(Url("trial://data/train"), ids=None)


def test_a_folder_that_cannot_be_listed_hides_no_images(stored: Path, run_cli: Run) -> None:
    system = fsspec.filesystem("trial")
    for name in ("a", "b"):
        system.pipe_file(f"/classes/{name}/1.png", Path("data/train/train0.png").read_bytes())
    url = Url("folders://classes")
    assert list(list_images(url, ids=None).ids) == ["a/1.png", "b/1.png"]
    Store.faults = {"b": itertools.repeat(LOST)}
    code, _, err = run_cli("featurize", *QUICK, "--train-images", "folders://classes", "--labels", "data/train.csv")
    assert code == 75
    assert "folders://classes: the store gave no answer" in err


@pytest.mark.parametrize("name", ["../out.png", "a/../../out.png", "a//b.png", "./a.png"])
def test_names_that_would_lead_elsewhere_on_a_disk_are_refused(stored: Path, name: str) -> None:
    Store.store[f"/data/train/{name}"] = Store.store["/data/train/train0.png"]
    with pytest.raises(UnsafePath, match="refused"):
        list_images(Url("trial://data/train"), ids=None)
    manifest = list_images(Url("trial://data/train"), ids=None, skip_unsafe=True)
    assert list(manifest.ids) == TRAIN


def test_the_library_takes_urls_too(stored: Path) -> None:
    settings = FeaturizeSettings.from_options(
        train_images=Url(TRIAL[1]),
        test_images=Url(TRIAL[3]),
        backbones=("squeezenet1_1",),
        weights=("random",),
        size_px=64,
    )
    assert featurize(settings).n_quarantined == 0
    with FeatureCache(Path("features/train.h5")) as cache:
        assert list(cache.ids) == [name.removesuffix(".png") for name in TRAIN]
    with pytest.raises(OptionError, match="--train-images s3://bucket/train: a URL"):
        FeaturizeSettings(train_images=Path("s3://bucket/train"))


def test_more_threads_wait_for_a_network_unless_a_number_is_asked_for() -> None:
    remote = FeaturizeSettings(train_images=Url("s3://bucket/train"))
    assert remote.n_readers > FeaturizeSettings().n_readers
    assert FeaturizeSettings(train_images=Url("s3://bucket/train"), n_workers=3).n_readers == 3


def test_waits_double_and_are_left_to_chance_by_half() -> None:
    drawn = [tuple(waits_s()) for _ in range(50)]
    for number, waits in enumerate(zip(*drawn, strict=True)):
        assert 0.25 * 2**number <= min(waits) < max(waits) <= 0.5 * 2**number
