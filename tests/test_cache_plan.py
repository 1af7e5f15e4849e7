"""The plan on disk, and the compact sequences that it is made of, against tuples."""

import dataclasses
import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_trials import plan, rows_of

from features_cache.errors import CacheDamaged
from features_cache.parts import Parts
from features_cache.plan import PLAN_NAME, Plan, plan_in
from features_cache.settle import settle_plan
from features_cache.sources import SourceFile, Sources
from features_cache.texts import Texts

names = st.text(st.characters() | st.sampled_from("\udc80\udcff\x00\n"), max_size=12)
files = st.builds(SourceFile, path=names, n_bytes=st.integers(0, 2**62), sign=st.integers(-(2**62), 2**62))


@given(st.lists(names), st.integers(-3, 9), st.integers(-3, 9))
def test_texts_are_as_a_tuple_of_them(texts: list[str], start: int, stop: int) -> None:
    compact = Texts(texts)
    assert tuple(compact) == tuple(texts)
    assert compact == texts == compact
    assert tuple(compact[start:stop]) == tuple(texts[start:stop])
    assert [compact[index] for index in range(-len(texts), len(texts))] == [*texts, *texts]
    assert compact != Texts([*texts, ""])
    assert compact != [*texts, ""]
    with pytest.raises(IndexError):
        compact[len(texts)]


@given(st.lists(st.lists(files, max_size=3)), st.integers(-3, 9))
def test_sources_are_as_a_tuple_of_tuples(images: list[list[SourceFile]], stop: int) -> None:
    compact, plain = Sources(images), tuple(map(tuple, images))
    assert tuple(compact) == plain
    assert compact == plain
    assert tuple(compact[:stop]) == plain[:stop]
    assert [compact[index] for index in range(-len(plain), len(plain))] == [*plain, *plain]
    assert compact != (*plain, ())


@given(st.lists(st.tuples(names, st.lists(files, max_size=2)), max_size=5, unique_by=lambda image: image[0]))
def test_a_plan_survives_its_lines(images: list[tuple[str, list[SourceFile]]]) -> None:
    ids, sources = zip(*images, strict=True) if images else ((), ())
    whole = plan(ids=ids, sources=tuple(map(tuple, sources)))
    again = Plan.from_lines(whole.lines())
    assert again == whole
    assert again.digest == whole.digest
    assert dataclasses.replace(again, n_views=9).digest != whole.digest


def test_a_plan_that_was_cut_or_changed_is_damage(tmp_path: Path) -> None:
    settle_plan(tmp_path, plan())
    path = tmp_path / PLAN_NAME
    lines = path.read_bytes().splitlines(keepends=True)
    damages: Iterable[list[bytes]] = (
        [],
        lines[:1],
        lines[:-1],
        [*lines, lines[-1]],
        lines[1:],
        [*lines[:-1], lines[-1][:-9]],
        [lines[0], b"7\n", *lines[2:]],
        [lines[0].replace(b'"version":3', b'"version":4'), *lines[1:]],
        [lines[0].replace(b'"unit_images":4', b'"unit_images":5'), *lines[1:]],
        [*lines[:-2], lines[-1]],
    )
    for damage in damages:
        path.write_bytes(b"".join(damage))
        with pytest.raises(CacheDamaged, match="makes it again, and keeps the parts"):
            plan_in(tmp_path)


def test_an_image_of_a_plan_costs_a_tenth_of_a_kilobyte() -> None:
    def images(n_images: int) -> tuple[Texts, Sources]:
        ids = Texts(f"image-{row:08d}" for row in range(n_images))
        return ids, Sources([SourceFile(path=f"{name}.png", n_bytes=1 << 20, sign=1 << 60)] for name in ids)

    tracemalloc.start()
    try:
        kept = images(20_000)
        assert tracemalloc.get_traced_memory()[0] < 20_000 * 100
    finally:
        tracemalloc.stop()
    assert len(kept[0]) == len(kept[1]) == 20_000


def test_a_damaged_plan_is_made_again_and_its_parts_are_kept(tmp_path: Path) -> None:
    parts = Parts(tmp_path, settle_plan(tmp_path, plan()))
    parts.commit(1, rows_of(1))
    (tmp_path / PLAN_NAME).write_bytes(b"{}")
    again = Parts(tmp_path, settle_plan(tmp_path, plan()))
    assert again.has(1)
    assert (tmp_path / "quarantine" / PLAN_NAME).read_bytes() == b"{}"


def test_compact_sequences_differ_from_other_things() -> None:
    assert Texts(["a"]) != [1]
    assert Sources([[]]) != [[]]
    assert Texts(["a"]) != "a"
