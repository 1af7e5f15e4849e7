"""Nuclei and cells found: the promised rates on drawn images, nothing where nothing is, and what holds for every plane."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from cells_data import Drawn, draw, empty, n_found, shared_border
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from features_cache.errors import OptionError
from featurize.cells.crops import list_cells, without_border_nuclei
from featurize.cells.segment import find_cells, find_nuclei, typical_diameter

Plane = NDArray[np.float32]
Labels = NDArray[np.int32]
NUCLEI_PX = (10, 20, 40)


def planes_of(drawn: Drawn) -> list[Plane]:
    return [np.ascontiguousarray(plane) for plane in np.moveaxis(drawn.planes, 2, 0)]


def found_in(drawn: Drawn) -> Labels:
    nuclei, *bodies = planes_of(drawn)
    return find_cells(find_nuclei(nuclei), bodies)


@pytest.fixture(scope="module")
def few() -> Drawn:
    return draw(7, n_cells=9, nucleus_px=20)


@pytest.mark.parametrize("bodies", [True, False], ids=["bodies", "nuclei only"])
@pytest.mark.parametrize(("touching", "promised"), [(False, 0.95), (True, 0.85)], ids=["apart", "touching"])
def test_the_promised_share_of_cells_is_found_and_few_that_are_none(
    touching: bool, promised: float, bodies: bool
) -> None:
    n_drawn = n_right = n_all = 0
    for place, nucleus_px in enumerate(NUCLEI_PX):
        for seed in range(2):
            # Clusters are costly to draw.
            n_cells = (5, 12, 16 if touching else 40)[(place + seed) % 3]
            drawn = draw(500 + seed, n_cells=n_cells, nucleus_px=nucleus_px, touching=touching, bodies=bodies)
            shares = shared_border(drawn.cells).values()
            assert all(0.1 <= share <= 0.3 for share in shares) if touching else not any(shares)
            cells = found_in(drawn)
            n_drawn, n_all = n_drawn + int(drawn.cells.max()), n_all + int(cells.max())
            n_right += n_found(cells, drawn.cells)
    assert n_drawn > 60
    assert n_right / n_drawn >= promised
    assert (n_all - n_right) / n_all <= 1.02 - promised, "found, and no drawn cell"


@pytest.mark.slow
@pytest.mark.parametrize("nucleus_px", NUCLEI_PX)
@pytest.mark.parametrize("bodies", [True, False], ids=["bodies", "nuclei only"])
@pytest.mark.parametrize(("touching", "promised"), [(False, 0.95), (True, 0.85)], ids=["apart", "touching"])
def test_the_promise_holds_at_each_magnification(
    touching: bool, promised: float, bodies: bool, nucleus_px: int
) -> None:
    drawn = [
        draw(2000 + seed, n_cells=5 + 7 * seed % 36, nucleus_px=nucleus_px, touching=touching, bodies=bodies)
        for seed in range(6)
    ]
    n_right = sum(n_found(found_in(each), each.cells) for each in drawn)
    assert n_right / sum(int(each.cells.max()) for each in drawn) >= promised


@pytest.mark.parametrize("photons", [30, 120, 2000])
def test_in_a_picture_of_nothing_nothing_is_found(photons: int) -> None:
    for seed in range(8):
        for side_px in (64, 300):
            assert not find_nuclei(empty(seed, side_px, photons)[..., 0]).any(), f"seed {seed}, {side_px} px"


def test_without_nuclei_there_are_no_cells_however_bright_the_bodies_are(few: Drawn) -> None:
    nothing = np.zeros(few.cells.shape, np.int32)
    assert not find_cells(nothing, planes_of(few)[1:]).any()


def test_without_bodies_and_with_dark_ones_a_cell_is_its_nucleus(few: Drawn) -> None:
    nuclei = find_nuclei(planes_of(few)[0])
    np.testing.assert_array_equal(find_cells(nuclei, []), nuclei)
    np.testing.assert_array_equal(find_cells(nuclei, [np.zeros(nuclei.shape, np.float32)]), nuclei)
    dark = empty(1, nuclei.shape[0], n_channels=2)
    np.testing.assert_array_equal(find_cells(nuclei, [dark[..., 0], dark[..., 1]]), nuclei)


def test_every_nucleus_lies_in_the_cell_of_its_number(few: Drawn) -> None:
    plane, *bodies = planes_of(few)
    nuclei = find_nuclei(plane)
    cells = find_cells(nuclei, bodies)
    np.testing.assert_array_equal(cells[nuclei > 0], nuclei[nuclei > 0])
    assert (cells > 0).sum() > 2 * (nuclei > 0).sum()
    assert set(np.unique(cells)) == set(np.unique(nuclei))


def test_numbers_follow_the_first_pixels_row_by_row(few: Drawn) -> None:
    nuclei = find_nuclei(planes_of(few)[0])
    _, first = np.unique(nuclei, return_index=True)
    assert nuclei.max() == 9
    assert (np.diff(first[1:]) > 0).all()


def test_the_same_plane_gives_the_same_cells_and_is_not_changed(few: Drawn) -> None:
    planes = planes_of(few)
    before = [plane.copy() for plane in planes]
    first, second = (find_cells(find_nuclei(planes[0]), planes[1:]) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    for plane, copy in zip(planes, before, strict=True):
        np.testing.assert_array_equal(plane, copy)


@pytest.mark.parametrize("factor", [2.0**-40, 2.0**10, 2.0**30])
def test_the_unit_of_a_plane_changes_no_pixel(few: Drawn, factor: float) -> None:
    plane, *bodies = planes_of(few)
    nuclei = find_nuclei(plane)
    np.testing.assert_array_equal(find_nuclei(plane * np.float32(factor)), nuclei)
    scaled = [body * np.float32(factor) for body in bodies]
    np.testing.assert_array_equal(find_cells(nuclei, scaled), find_cells(nuclei, bodies))


def test_a_factor_that_rounds_and_a_brighter_background_change_next_to_nothing(few: Drawn) -> None:
    plane = planes_of(few)[0]
    nuclei = find_nuclei(plane)
    for other in (plane * np.float32(0.003), plane * np.float32(1000), plane + np.float32(0.5)):
        assert (find_nuclei(other) != nuclei).mean() < 1e-3


def test_saturated_nuclei_are_found_as_well(few: Drawn) -> None:
    nuclei = find_nuclei(np.clip(planes_of(few)[0] * 4, 0, 1))
    assert n_found(nuclei, few.nuclei) == few.nuclei.max()


def test_an_image_turned_on_its_side_has_the_same_cells(few: Drawn) -> None:
    nuclei = find_nuclei(np.ascontiguousarray(planes_of(few)[0].T))
    assert n_found(nuclei.T, few.nuclei) == few.nuclei.max()


def test_a_given_diameter_takes_the_place_of_the_estimate(few: Drawn) -> None:
    plane = planes_of(few)[0]
    assert n_found(find_nuclei(plane, 20.0), few.nuclei) == few.nuclei.max()
    assert 14 < typical_diameter(find_nuclei(plane)) < 26


SHAPES = st.sampled_from([(1, 1), (1, 2), (1, 50), (50, 1), (3, 50), (7, 9), (12, 12), (13, 40), (33, 31)])


@settings(max_examples=60, deadline=None)
@given(
    SHAPES,
    st.sampled_from(["constant", "noise", "black and white", "ramp", "one pixel", "faint"]),
    st.sampled_from([None, 4.0, 20.0, 10_000.0]),
    st.integers(0, 5),
)
def test_whatever_a_small_plane_holds_labels_come_back(
    shape: tuple[int, int], kind: str, diameter_px: float | None, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    plane = {
        "constant": np.full(shape, seed / 5),
        "noise": rng.random(shape),
        "black and white": rng.random(shape) > 0.5,
        "ramp": np.linspace(0, 1, shape[0] * shape[1]).reshape(shape),
        "one pixel": np.arange(shape[0] * shape[1]).reshape(shape) == seed,
        "faint": rng.random(shape) * 1e-30,
    }[kind].astype(np.float32)
    nuclei = find_nuclei(plane, diameter_px)
    cells = find_cells(nuclei, [plane, rng.random(shape).astype(np.float32)])
    assert nuclei.shape == cells.shape == shape
    assert set(np.unique(nuclei)) == set(range(nuclei.max() + 1))
    np.testing.assert_array_equal(cells[nuclei > 0], nuclei[nuclei > 0])
    if kind == "constant":
        assert not nuclei.any()


def test_a_nucleus_that_the_border_cuts_is_found_said_to_touch_it_and_dropped_on_demand() -> None:
    drawn = draw(11, n_cells=16, nucleus_px=24, bodies=False)
    at_border = [cell.number for cell in list_cells(drawn.cells) if cell.touches_border]
    assert at_border, "this seed draws none at the border"
    nuclei = find_nuclei(planes_of(drawn)[0])
    assert n_found(nuclei, drawn.cells) == drawn.cells.max()
    inside = without_border_nuclei(nuclei, nuclei)
    assert not [cell for cell in list_cells(inside) if cell.touches_border]
    assert n_found(inside, drawn.cells) == drawn.cells.max() - len(at_border)


def test_without_scikit_image_the_message_says_what_to_type(few: Drawn, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "skimage"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(OptionError, match=r"cli cells needs skimage.*pip install 'permafeat\[cells\]'"):
        find_nuclei(planes_of(few)[0])
