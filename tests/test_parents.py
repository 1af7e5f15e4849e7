"""Rows that were cut from something, such as cells from an image: what the cache knows of their parents."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import shutil
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
from cache_data import blocks
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_trials import FEATURES, IDS, N_IMAGES, plan, rows_of

from features_cache.errors import CacheDamaged, ForeignCache, ImageChanged, OptionError
from features_cache.export import export
from features_cache.extend import Held, extended_plan
from features_cache.inspect import describe, describe_lines
from features_cache.ledger import Ledger
from features_cache.parts import Parts
from features_cache.plan import PLAN_NAME, Plan, parts_folder, plan_in
from features_cache.reader import FeatureCache
from features_cache.seal import CACHE_MAGIC, Sealing
from features_cache.settle import settle_plan
from features_cache.texts import Texts
from features_cache.verify import verify
from features_cache.writer import publish_cache, write_cache

PARENTS = tuple(f"plate-{index // 4}é" for index in range(N_IMAGES))
GOLDEN = Path(__file__).parent / "golden"


def write(path: Path, parents: tuple[str, ...] = PARENTS, **options: object) -> Path:
    write_cache(path, ids=IDS, features=FEATURES[:, :2], blocks=blocks(3, 5), parents=parents, **options)  # type: ignore[arg-type]
    return path


@pytest.mark.skipif(h5py.version.hdf5_version != "2.0.0", reason="another libhdf5 lays out its own metadata otherwise")
def test_a_cache_without_parents_has_the_bytes_that_it_had_before_there_were_any(tmp_path: Path) -> None:
    """The digest is of what the program wrote before it knew parents."""
    raw = write(tmp_path / "c.h5", ()).read_bytes()
    assert hashlib.sha256(raw).hexdigest() == "404f3a2f0c5989cb6d540568752312c6d5207a1ba07b710230ffb24ca2ca19b3"


def test_a_plan_without_parents_has_the_digest_that_it_had_so_that_its_parts_serve_on() -> None:
    assert plan().digest == "e3a2ce1b85a852a2697a74bb81002293"


@given(
    st.lists(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=9),
        min_size=N_IMAGES,
        max_size=N_IMAGES,
    )
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_parents_are_read_back_as_they_were_written(tmp_path: Path, parents: list[str]) -> None:
    path = write(tmp_path / "c.h5", tuple(parents), replace=True)
    with FeatureCache(path) as cache:
        assert cache.parents == tuple(parents)
        np.testing.assert_array_equal(cache.stored(), FEATURES[:, :2])
        cache.check_bytes()
    with h5py.File(path) as file:
        assert [name.decode() for name in file["parent"][()]] == parents
        assert file.attrs["format_version"] == 3


def test_images_that_stand_for_themselves_have_no_parents(tmp_path: Path) -> None:
    with FeatureCache(write(tmp_path / "c.h5", ())) as cache:
        assert cache.parents is None
        assert cache.seal.version == 2
    with h5py.File(tmp_path / "c.h5") as file:
        assert "parent" not in file


def test_equal_parents_are_one_text_in_memory(tmp_path: Path) -> None:
    with FeatureCache(write(tmp_path / "c.h5")) as cache:
        assert cache.parents is not None
        assert cache.parents[0] is cache.parents[1]


@pytest.mark.parametrize("parents", [PARENTS[:-1], (*PARENTS[:-1], ""), ("a\0", *PARENTS[1:])])
def test_parents_that_would_not_come_back_are_refused(tmp_path: Path, parents: tuple[str, ...]) -> None:
    with pytest.raises(OptionError, match=r"expected one each, or none at all|the parent .* is no text"):
        write(tmp_path / "c.h5", parents)
    assert not list(tmp_path.iterdir())


def test_a_flipped_bit_of_a_parent_is_told_at_opening(tmp_path: Path) -> None:
    path = write(tmp_path / "c.h5")
    raw = bytearray(path.read_bytes())
    raw[raw.index("plate-1é".encode())] ^= 1
    path.write_bytes(raw)
    with pytest.raises(CacheDamaged, match="what stands around its features is damaged"):
        FeatureCache(path)


def test_a_file_that_claims_another_format_than_its_members_is_refused(tmp_path: Path, monkeypatch) -> None:
    """A forged file: sealed as one with parents, and without them."""
    monkeypatch.setattr("features_cache.writer.version_of", lambda _: 3)
    monkeypatch.setattr("features_cache.layout.version_of", lambda _: 3)
    with pytest.raises(ForeignCache, match=r"holds 6 members; expected .*'parent'"):
        FeatureCache(write(tmp_path / "c.h5", ()))


def test_a_file_in_which_some_have_no_parent_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("features_cache.writer.all", lambda _: True, raising=False)
    with pytest.raises(ForeignCache, match="some of its images have a parent, and others none"):
        FeatureCache(write(tmp_path / "c.h5", ("", *PARENTS[1:])))


def test_a_newer_format_says_so(tmp_path: Path) -> None:
    sealing = Sealing(CACHE_MAGIC, version=4)
    body = b"".join(map(bytes, sealing.pass_through([b"x"])))
    (tmp_path / "c.h5").write_bytes(sealing.seal() + body[512:])
    with pytest.raises(ForeignCache, match=r"written in format 4; this program reads up to 3\. Update permafeat"):
        FeatureCache(tmp_path / "c.h5")


def test_the_golden_file_with_parents_is_read_for_ever(tmp_path: Path) -> None:
    shutil.copy(GOLDEN / "format-3.cache", tmp_path / "golden.h5")
    with FeatureCache(tmp_path / "golden.h5") as cache:
        assert cache.ids == ("cell-1", "cell-2", "zelle-ä")
        assert cache.parents == ("bild-ö", "bild-ö", "image-2")
        np.testing.assert_array_equal(cache.load().ravel(), np.arange(24, dtype=np.float32) / 8)
    assert verify(tmp_path / "golden.h5").faults == ()


def test_a_plan_carries_parents_and_knows_them_by_its_digest(tmp_path: Path) -> None:
    whole = plan(parents=Texts(PARENTS))
    again = Plan.from_lines(whole.lines())
    assert again == whole
    assert again.parents == PARENTS
    others = dataclasses.replace(whole, parents=("x", *PARENTS[1:]))
    assert len({each.digest for each in (whole, others, plan())}) == 3
    settle_plan(tmp_path, whole)
    assert plan_in(tmp_path) == whole


def test_a_plan_of_a_version_that_nobody_knows_is_damage(tmp_path: Path) -> None:
    first, *others = plan(parents=PARENTS).lines()
    for version in (2, 5):
        with pytest.raises(CacheDamaged, match=f"a plan of version {version}; expected 3 or 4"):
            Plan.from_lines([first.replace(b'"version":4', b'"version":%d' % version), *others])


def test_parents_of_a_plan_cost_their_bytes_and_eight_more() -> None:
    tracemalloc.start()
    try:
        parents = Texts(f"image-{row // 20:08d}" for row in range(20_000))
        assert tracemalloc.get_traced_memory()[0] < 20_000 * 32
    finally:
        tracemalloc.stop()
    assert len(parents) == 20_000


def make(path: Path, wanted: Plan, cache: FeatureCache | None = None) -> None:
    """Compute what a plan lacks, and publish it."""
    folder = parts_folder(path)
    settled = settle_plan(folder, wanted)
    parts, ledger, held = Parts(folder, settled), Ledger(settled), Held(settled, cache)
    for unit in range(settled.n_units):
        if not held.is_whole(unit):
            parts.commit(unit, rows_of(unit, settled.n_views))
    publish_cache(path, parts, ledger, held)
    parts.remove()


def test_parts_and_one_piece_give_the_same_file(tmp_path: Path) -> None:
    make(tmp_path / "parts.h5", plan(parents=PARENTS))
    assert (tmp_path / "parts.h5").read_bytes() == write(tmp_path / "whole.h5").read_bytes()


def test_an_extension_keeps_the_parents(tmp_path: Path) -> None:
    path = tmp_path / "c.h5"
    make(path, plan(1, parents=PARENTS))
    with FeatureCache(path) as cache:
        make(path, extended_plan(cache, plan(2, parents=PARENTS), "."), cache)
    assert path.read_bytes() == write(tmp_path / "whole.h5").read_bytes()


@pytest.mark.parametrize(
    ("before", "after", "match"),
    [
        (
            PARENTS,
            ("elsewhere", *PARENTS[1:]),
            r"1 images have another parent than the one that they had \('image-00'\)",
        ),
        (PARENTS, (), "holds parents of its images; none are asked for"),
        ((), PARENTS, "holds no parents; some are asked for"),
    ],
)
def test_an_image_of_another_parent_is_told_and_nothing_is_extended(
    tmp_path: Path, before: tuple[str, ...], after: tuple[str, ...], match: str
) -> None:
    with FeatureCache(write(tmp_path / "c.h5", before)) as cache, pytest.raises(ImageChanged, match=match):
        extended_plan(cache, plan(2, parents=after), "Type --overwrite.")


def test_an_unfinished_run_with_other_parents_is_not_taken_up(tmp_path: Path) -> None:
    parts = Parts(tmp_path, settle_plan(tmp_path, plan(parents=PARENTS)))
    parts.commit(0, rows_of(0))
    with pytest.raises(ImageChanged, match="the unfinished run knows other parents of the same images"):
        settle_plan(tmp_path, plan(parents=("x", *PARENTS[1:])))
    assert (tmp_path / PLAN_NAME).exists()


def test_a_cache_is_made_of_a_plan_with_its_parents_and_of_no_other(tmp_path: Path) -> None:
    with FeatureCache(write(tmp_path / "c.h5")) as cache:
        assert cache.is_made_of(plan(parents=PARENTS))
        assert not cache.is_made_of(plan())
        assert not cache.is_made_of(plan(parents=("x", *PARENTS[1:])))


def test_parents_are_counted_verified_and_exported(tmp_path: Path) -> None:
    path = write(tmp_path / "c.h5")
    description = describe(path)
    assert description["n_parents"] == 3
    assert "parents: 3" in describe_lines(description)
    assert verify(path).faults == ()
    with export(path, None, "csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["parent"] for row in rows] == [parent for parent in PARENTS for _ in range(2)]
    assert list(rows[0])[:3] == ["id", "parent", "view"]
    arrays = np.load(export(path, None, "npz"))
    assert arrays["parents"].tolist() == [parent for parent in PARENTS for _ in range(2)]
    with h5py.File(export(path, None, "h5ad")) as file:
        assert file["obs/parent"].asstr()[0] == PARENTS[0]
    parquet = pytest.importorskip("pyarrow.parquet")
    assert parquet.read_table(export(path, None, "parquet"))["parent"].to_pylist()[0] == PARENTS[0]
