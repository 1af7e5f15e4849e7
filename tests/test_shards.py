"""Several writers on one folder, and readers beside them: no lock, and the bytes of one writer alone."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cache_data import QUICK, picture
from shards_data import concurrent_reads, drawn_features

from features_cache.errors import CacheIncomplete, CacheMissing
from features_cache.layout import Rows
from features_cache.parts import Parts
from features_cache.reader import FeatureCache

Run = Callable[..., tuple[int, str, str]]
WORDS = (*QUICK, "--batch-size", "2")


def test_each_shard_does_its_share_and_the_last_one_publishes(project: Path, run_cli: Run) -> None:
    assert run_cli("featurize", *WORDS, "--out", "alone")[0] == 0
    code, _, err = run_cli("featurize", *WORDS, "--shard", "1/2")
    assert code == 0, err
    assert "features/train.h5: 4 computed" in err
    assert "1 parts of other shards are missing: the last shard to finish publishes, or `cli merge` does" in err
    assert not Path("features/train.h5").exists()
    code, _, err = run_cli("featurize", *WORDS, "--shard", "2/2")
    assert code == 0, err
    for split in ("train", "test"):
        assert Path(f"features/{split}.h5").read_bytes() == Path(f"alone/{split}.h5").read_bytes()
        assert not Path(f"features/{split}.parts").exists()
    assert "nothing to compute" in run_cli("featurize", *WORDS, "--shard", "1/2")[2]


def test_a_shard_follows_the_plan_that_stands_even_before_a_part_is_there(project: Path, run_cli: Run) -> None:
    run_cli("featurize", *WORDS, "--shard", "2/3")
    plan = Path("features/train.parts/plan.jsonl").read_bytes()
    assert run_cli("featurize", *QUICK, "--batch-size", "5", "--shard", "1/3")[0] == 0
    assert Path("features/train.parts/plan.jsonl").read_bytes() == plan
    code, _, err = run_cli("featurize", *QUICK, "--augment", "1", "--shard", "1/3")
    assert code == 2
    assert "makes 1 views an image; 2 are asked for" in err


def test_merge_publishes_what_no_shard_did(project: Path, run_cli: Run) -> None:
    assert run_cli("featurize", *WORDS, "--out", "alone")[0] == 0
    assert run_cli("featurize", *WORDS, "--shard", "1/2")[0] == 0
    code, _, err = run_cli("merge")
    assert code == CacheIncomplete.exit_code
    assert "1 of 2 parts are missing ('1')" in err
    Path("features/test.parts").rename("test.parts")
    # The other half, as a shard leaves it that was killed before it published.
    import featurize.finish

    publish = featurize.finish.publish_cache
    featurize.finish.publish_cache = lambda *_, **__: (_ for _ in ()).throw(KeyError("killed"))
    try:
        with pytest.raises(KeyError, match="killed"):
            run_cli("featurize", *WORDS, "--shard", "2/2")
    finally:
        featurize.finish.publish_cache = publish
    code, out, _ = run_cli("merge")
    assert (code, out) == (0, "features/train.h5: published\n")
    assert Path("features/train.h5").read_bytes() == Path("alone/train.h5").read_bytes()
    code, _, err = run_cli("merge")
    assert code == CacheMissing.exit_code
    assert "no parts to merge" in err


def test_merge_tells_of_quarantined_images(project: Path, run_cli: Run) -> None:
    Path("data/train/train1.png").write_text("no image")
    for number in (1, 2):
        assert run_cli("featurize", *WORDS, "--shard", f"{number}/3", "--max-bad", "0.5")[0] == 0
    code, _, err = run_cli("featurize", *WORDS, "--shard", "3/3", "--max-bad", "0")
    if code == 2:
        assert "above --max-bad" in err
        code, out, _ = run_cli("merge")
        assert (code, "features/train.h5: published, 1 images quarantined" in out) == (4, True)


def test_where_another_writer_came_first_its_rows_are_published_with_their_checksums(
    project: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = Parts.commit

    def beaten(self: Parts, unit: int, rows: Rows) -> bool:
        theirs = dataclasses.replace(rows, features=rows.features + np.float16(0.25))
        assert commit(self, unit, theirs)
        return commit(self, unit, rows)

    monkeypatch.setattr(Parts, "commit", beaten)
    assert run_cli("featurize", *WORDS)[0] == 0
    code, _, err = run_cli("verify", "features/train.h5")
    assert code == 0, err


def test_an_extension_is_shared_and_merged_alike(project: Path, run_cli: Run) -> None:
    more = (*WORDS, "--augment", "1")
    assert run_cli("featurize", *more, "--out", "alone")[0] == 0
    assert run_cli("featurize", *WORDS)[0] == 0
    before = Path("features/train.h5").read_bytes()
    assert run_cli("featurize", *more, "--shard", "1/2")[0] == 0
    assert Path("features/train.h5").read_bytes() == before
    assert run_cli("featurize", *more, "--shard", "2/2")[0] == 0
    assert Path("features/train.h5").read_bytes() == Path("alone/train.h5").read_bytes()


@pytest.mark.parametrize(("shard", "complaint"), [("0/2", "i from 1 to n"), ("3/2", "i from 1 to n"), ("half", "i/n")])
def test_nonsense_is_told(project: Path, run_cli: Run, shard: str, complaint: str) -> None:
    code, _, err = run_cli("featurize", *WORDS, "--shard", shard)
    assert code == 2
    assert complaint in err


def test_shards_do_not_overwrite(project: Path, run_cli: Run) -> None:
    code, _, err = run_cli("featurize", *WORDS, "--shard", "1/2", "--overwrite")
    assert code == 2
    assert "each shard would remove the others' parts" in err


@pytest.mark.slow
def test_ten_thousand_reads_beside_four_writers_are_whole(tmp_path: Path) -> None:
    n_reads, n_torn = concurrent_reads(tmp_path, n_generations=24, least=5000)
    assert (n_reads >= 10_000, n_torn) == (True, 0)


@pytest.mark.skipif(sys.platform == "darwin", reason="forks")
def test_four_writers_and_two_readers_at_once_without_locks(tmp_path: Path) -> None:
    n_reads, n_torn = concurrent_reads(tmp_path, n_generations=4, least=2000)
    assert (n_reads >= 4000, n_torn) == (True, 0)
    with FeatureCache(tmp_path / "train.h5") as cache:
        np.testing.assert_array_equal(cache.stored(), drawn_features(4))
    # What a writer had begun when another published may stay, and is swept away after an hour.
    left = {place.name for place in tmp_path.iterdir()} - {"train.h5", "train.parts"}
    assert all(name.startswith(".permafeat-") for name in left)


def test_an_image_that_a_shard_finds_bad_counts_for_all(project: Path, run_cli: Run) -> None:
    for name in ("train0", "train2", "train5"):
        Path(f"data/train/{name}.png").write_text("no image")
    picture(0)
    assert run_cli("featurize", *WORDS, "--shard", "1/2", "--max-bad", "0.34")[0] == 0
    code, _, err = run_cli("featurize", *WORDS, "--shard", "2/2", "--max-bad", "0.34")
    assert code == 2
    assert "3 of the images read so far cannot be used, above --max-bad 0.34 of 6" in err
