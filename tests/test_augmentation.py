"""Augmented copies: every term is deterministic an image, stays in its range, and changes only what it says."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from augmentation_data import ALONE, EVERYTHING, GEOMETRIC, augmentation, images, slow_view
from hypothesis import given, settings
from hypothesis import strategies as st

from features_cache.errors import OptionError
from featurize.settings import FeaturizeSettings
from featurize.views.affine import affine, drawn, view_rng, warp
from featurize.views.augmentation import FLIPS_AND_TURNS, Augmentation, augmentation_of

CHOICES = {**ALONE, "everything": EVERYTHING, "the default": {"flip": "both", "rotate": 180.0}}
KEYS = [(0, "a", 1), (0, "a", 2), (0, "b", 1), (7, "a", 1), (0, "ü/c.png", 9)]


def views(terms: Augmentation, sources: np.ndarray, keys: list[tuple[int, str, int]]) -> np.ndarray:
    """One view a key, all of one seed in one batch."""
    made = np.empty_like(sources)
    for seed in {seed for seed, _, _ in keys}:
        chosen = [index for index, key in enumerate(keys) if key[0] == seed]
        batch = terms.views(
            torch.from_numpy(sources[chosen]),
            seed,
            [keys[index][1] for index in chosen],
            [keys[index][2] for index in chosen],
        )
        made[chosen] = batch.numpy()
    return made


def test_the_default_is_what_earlier_caches_were_made_with() -> None:
    assert Augmentation() == FLIPS_AND_TURNS == FeaturizeSettings().augmentation
    assert FLIPS_AND_TURNS.terms == (
        "horizontal flip p=0.5", "vertical flip p=0.5", "rotation uniform in +-180 degrees",
    )  # fmt: skip
    assert drawn(0, "train00", 1) == (False, False, 2.9580618121583653)
    assert drawn(3, "b/ü.png", 2) == (False, False, -1.2079106232425045)
    matrix = FLIPS_AND_TURNS.matrix(0, "train00", 1)
    np.testing.assert_allclose(matrix, [[-0.98320544, -0.18250224, 0], [0.18250224, -0.98320544, 0]], rtol=1e-6)


@pytest.mark.parametrize("name", CHOICES)
def test_a_view_is_that_of_a_slow_script_that_takes_the_terms_one_by_one(name: str) -> None:
    terms, sources = augmentation(**CHOICES[name]), images(len(KEYS))
    found = views(terms, sources, KEYS)
    for image, view, key in zip(sources, found, KEYS, strict=True):
        np.testing.assert_allclose(view, slow_view(image, terms, *key), atol=2e-5, err_msg=f"{name}, {key}")
    assert (np.abs(found - sources).max(axis=(1, 2, 3)) > 0.01).sum() >= 3, f"{name} does nothing"


TERMS = st.builds(
    augmentation,
    flip=st.sampled_from(["none", "horizontal", "vertical", "both"]),
    rotate=st.sampled_from([0.0, 15.0, 180.0, "quarter"]),
    zoom=st.sampled_from([(1.0, 1.0), (0.4, 0.9), (0.8, 1.25), (3.0, 3.0)]),
    shift=st.sampled_from([0.0, 0.05, 0.5]),
    skew=st.sampled_from([0.0, 10.0, 45.0]),
    brightness=st.sampled_from([0.0, 0.2, 1.0]),
    contrast=st.sampled_from([0.0, 0.2, 1.0]),
    blur=st.sampled_from([(0.0, 0.0), (0.0, 0.1), (0.5, 4.0)]),
    noise=st.sampled_from([(0.0, 0.0), (0.0, 0.01), (0.3, 0.3)]),
)


@given(
    terms=TERMS,
    n_planes=st.integers(1, 12),
    side=st.integers(8, 21),
    seed=st.integers(0, 2**40),
    view=st.integers(1, 99),
)
@settings(max_examples=150, deadline=None)
def test_any_terms_together_are_the_slow_script_s_so_none_moves_another_s_draws(
    terms: Augmentation, n_planes: int, side: int, seed: int, view: int
) -> None:
    image = images(1, n_planes, side, seed=seed % 5)
    found = views(terms, image, [(seed, "x", view)])
    np.testing.assert_allclose(found[0], slow_view(image[0], terms, seed, "x", view), atol=5e-5)


@pytest.mark.parametrize("name", CHOICES)
def test_order_batch_number_of_planes_and_threads_change_no_bit(name: str) -> None:
    terms, sources = augmentation(**CHOICES[name]), images(6, n_planes=5, side=33)
    keys = [(0, image_id, view) for image_id in "abc" for view in (1, 2)]
    together = views(terms, sources, keys)
    np.testing.assert_array_equal(views(terms, sources, keys), together)
    np.testing.assert_array_equal(views(terms, sources[::-1].copy(), keys[::-1])[::-1], together)
    alone = [views(terms, sources[[index]], [keys[index]])[0] for index in range(6)]
    np.testing.assert_array_equal(alone, together)
    np.testing.assert_array_equal(views(terms, sources[:, :2].copy(), keys), together[:, :2])
    n_threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3 - min(n_threads, 2))
        np.testing.assert_array_equal(views(terms, sources, keys), together)
    finally:
        torch.set_num_threads(n_threads)


@pytest.mark.parametrize("name", CHOICES)
def test_images_views_and_seeds_draw_differently_and_view_0_draws_nothing(name: str) -> None:
    terms = augmentation(**CHOICES[name])
    same = np.repeat(images(1), 40, axis=0)
    for keys in (
        [(0, "a", view) for view in range(1, 41)],
        [(0, f"image {number}", 1) for number in range(40)],
        [(seed, "a", 1) for seed in range(40)],
    ):
        n_kinds = len({view.tobytes() for view in views(terms, same, keys)})
        assert n_kinds == {"flip": 4, "quarter": 4}.get(name, 40)
    mixed = views(terms, same[:3], [(0, "a", 0), (0, "a", 1), (0, "b", 0)])
    np.testing.assert_array_equal(mixed[[0, 2]], same[:2])
    np.testing.assert_array_equal(mixed[1], views(terms, same[:1], [(0, "a", 1)])[0])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", CHOICES)
def test_a_gpu_makes_the_views_of_the_cpu(name: str) -> None:
    terms, sources = augmentation(**CHOICES[name]), torch.from_numpy(images(40, side=224))
    ids, numbers = [f"image {number}" for number in range(40)], [number % 7 for number in range(40)]
    found = terms.views(sources.cuda(), 0, ids, numbers)
    torch.testing.assert_close(found.cpu(), terms.views(sources, 0, ids, numbers), rtol=0, atol=1e-4)


def test_making_views_leaves_the_images_as_they_are() -> None:
    for fields in CHOICES.values():
        sources = torch.from_numpy(images(2))
        augmentation(**fields).views(sources, 0, ["a", "b"], [1, 2])
        np.testing.assert_array_equal(sources.numpy(), images(2))
    assert FLIPS_AND_TURNS.views(torch.empty(0, 3, 8, 8), 0, [], []).shape == (0, 3, 8, 8)


def matrices(terms: Augmentation, count: int = 500) -> np.ndarray:
    return np.stack([terms.matrix(0, f"image-{number}", 1) for number in range(count)]).astype(np.float64)


def test_flips_are_fair_and_angles_uniform() -> None:
    found = matrices(FLIPS_AND_TURNS, 4000)[:, :, :2]
    determinant = np.linalg.det(found)
    np.testing.assert_allclose(np.abs(determinant), 1, rtol=1e-5)
    assert abs((determinant > 0).mean() - 0.5) < 0.03
    angles = np.arctan2(found[:, 1, 0], found[:, 0, 0])
    counts, _ = np.histogram(angles, bins=8, range=(-np.pi, np.pi))
    assert counts.min() > 400


@pytest.mark.parametrize("flip", ["horizontal", "vertical", "both"])
def test_a_flip_alone_mirrors_only_the_axes_that_it_names(flip: str) -> None:
    found = matrices(augmentation(flip=flip))
    signs = found[:, [0, 1], [0, 1]]
    np.testing.assert_array_equal(np.abs(found), np.broadcast_to(np.eye(2, 3), found.shape))
    for axis, name in enumerate(("horizontal", "vertical")):
        share = (signs[:, axis] < 0).mean()
        assert (0.42 < share < 0.58) if flip in {name, "both"} else share == 0


def test_a_turn_alone_stays_within_its_degrees_and_quarter_turns_are_all_four() -> None:
    found = matrices(augmentation(rotate=30))
    angles = np.degrees(np.arctan2(found[:, 1, 0], found[:, 0, 0]))
    assert 28 < np.abs(angles).max() <= 30
    np.testing.assert_allclose(found[:, :, :2].transpose(0, 2, 1) @ found[:, :, :2], [np.eye(2)] * 500, atol=1e-6)
    quarters, counts = np.unique(matrices(augmentation(rotate="quarter")), axis=0, return_counts=True)
    assert {tuple(map(tuple, matrix[:, :2])) for matrix in quarters} == {
        ((1, 0), (0, 1)), ((0, -1), (1, 0)), ((-1, 0), (0, -1)), ((0, 1), (-1, 0)),
    }  # fmt: skip
    assert counts.min() > 95


def test_zoom_shift_and_skew_alone_stay_in_their_ranges_and_touch_nothing_else() -> None:
    zoomed = matrices(augmentation(zoom=(0.5, 2.0)))
    zooms = 1 / zoomed[:, 0, 0]
    assert 0.5 <= zooms.min() < 0.51 and 1.96 < zooms.max() <= 2
    assert abs((zooms < 1).mean() - 0.5) < 0.06, "as often smaller as larger"
    np.testing.assert_allclose(zoomed, zoomed[:, :1, :1] * np.eye(2, 3), atol=1e-7)
    shifted = matrices(augmentation(shift=0.3))
    np.testing.assert_array_equal(shifted[:, :, :2], [np.eye(2)] * 500)
    shares = -shifted[:, :, 2] / 2
    assert 0.29 < np.abs(shares).max() <= 0.3 and abs(np.corrcoef(shares.T)[0, 1]) < 0.15
    skewed = matrices(augmentation(skew=20))
    angles = np.degrees(np.arctan(-skewed[:, 0, 1]))
    assert 19 < np.abs(angles).max() <= 20 and (angles > 0).mean() == pytest.approx(0.5, abs=0.08)
    skewed[:, 0, 1] = 0
    np.testing.assert_array_equal(skewed, [np.eye(2, 3)] * 500)


@pytest.mark.parametrize(
    ("fields", "row", "column"),
    [
        ({"zoom": 2.0}, 32 + 2 * 8, 32 - 2 * 4),
        ({"zoom": 0.8}, 32 + 0.8 * 8, 32 - 0.8 * 4),
        ({"shift": (0.25, 0.0)}, 40, 28 + 16),
        ({"shift": (0.0, -0.125)}, 40 - 8, 28),
        ({"skew": 0.5}, 40, 28 + 0.5 * 8),
        ({"flip_x": True}, 40, 32 + 4),
        ({"flip_y": True}, 32 - 8, 28),
        ({"cos": 0.0, "sin": 1.0}, 32 + 4, 32 + 8),
        # (x, y) from the middle: (-4, 8) flipped is (4, 8), turned (-8, 4), skewed (-6, 4), zoomed (-9, 6), shifted (-1, -10)
        ({"flip_x": True, "cos": 0.0, "sin": -1.0, "skew": 0.5, "zoom": 1.5, "shift": (0.125, -0.25)}, 22, 31),
    ],
    ids=str,
)
def test_a_landmark_moves_to_where_the_formula_says(fields: dict, row: float, column: float) -> None:
    """A dot 8 px below and 4 px left of the middle of 64 x 64."""
    middle = np.arange(64) + 0.5
    dot = np.exp(-((middle[:, None] - 40) ** 2 + (middle - 28) ** 2) / 8).astype(np.float32)
    view = warp(torch.from_numpy(dot[None, None]), [affine(**fields)])[0, 0].numpy()
    view = np.where(view > 0.1, view, 0)  # beyond the border the dot is mirrored
    found = (view.sum(axis=1) @ middle / view.sum(), view.sum(axis=0) @ middle / view.sum())
    assert found == pytest.approx((row, column), abs=0.1)


def test_flips_and_quarter_turns_move_pixels_and_change_none() -> None:
    noisy = torch.from_numpy(np.random.default_rng(0).random((2, 3, 37, 37), np.float32))
    for quarters, flip_x, flip_y in itertools.product(range(4), (False, True), (False, True)):
        cos, sin = ((1, 0), (0, 1), (-1, 0), (0, -1))[quarters]
        made = warp(noisy, [affine(flip_x=flip_x, flip_y=flip_y, cos=cos, sin=sin)] * 2)
        flipped = noisy.flip([axis for axis, is_flipped in ((3, flip_x), (2, flip_y)) if is_flipped])
        np.testing.assert_array_equal(made.numpy(), torch.rot90(flipped, quarters, (2, 3)).numpy())
    terms = augmentation(flip="both", rotate="quarter")
    one = terms.views(noisy[:1], 0, ["a"], [1])
    symmetries = [
        torch.rot90(each, quarters, (2, 3)) for each in (noisy[:1], noisy[:1].flip(3)) for quarters in range(4)
    ]
    assert sum(torch.equal(one, each) for each in symmetries) == 1


@pytest.mark.parametrize("name", [*GEOMETRIC, "blur", "the default"])
@pytest.mark.parametrize("value", [0.0, 0.37, 1.0])
def test_a_constant_image_stays_constant(name: str, value: float) -> None:
    flat = np.full((30, 3, 24, 24), value, np.float32)
    keys = [(0, "a", view) for view in range(1, 31)]
    np.testing.assert_allclose(views(augmentation(**CHOICES[name]), flat, keys), flat, atol=1e-6)


def test_numbers_are_kept_within_0_and_1_only_where_a_term_changes_them() -> None:
    bright = np.full((1, 1, 16, 16), 1.5, np.float32)
    for name, fields in CHOICES.items():
        highest = views(augmentation(**fields), bright, [(0, "a", 1)]).max()
        assert highest == (pytest.approx(1.5) if name in {*GEOMETRIC, "the default"} else 1.0), name


def test_noise_has_the_deviation_drawn_no_mean_and_planes_of_its_own() -> None:
    grey = np.full((30, 4, 48, 48), 0.5, np.float32)
    keys = [(0, "a", view) for view in range(1, 31)]
    noise = views(augmentation(noise=(0.01, 0.1)), grey, keys).astype(np.float64) - 0.5
    deviations = noise.std(axis=(1, 2, 3))
    assert 0.0095 < deviations.min() < 0.02 and 0.09 < deviations.max() < 0.105
    standardised = (noise / deviations[:, None, None, None]).reshape(120, -1)
    assert np.abs(standardised.mean(axis=1)).max() < 4.5 / 48
    between = np.corrcoef(standardised) - np.eye(120)
    assert np.abs(between).max() < 5.5 / 48, "planes and views share no noise"
    assert np.abs((np.abs(standardised) < 1).mean() - 0.6827) < 0.003


WRONG = {
    "unknown key": ({"zooom": [1, 2]}, r"\[augmentation\] has no key 'zooom'; did you mean 'zoom'\?; expected some of flip, rotate"),
    "unknown flip": ({"flip": "horizontl"}, r"flip is 'horizontl'; expected one of none, horizontal, vertical, both; did you mean 'horizontal'\?"),
    "a flip that is none": ({"flip": True}, "flip is True; expected one of none"),
    "unknown turn": ({"rotate": "quater"}, "rotate is 'quater'; expected 0 to 180 degrees, or \"quarter\"; did you mean 'quarter'"),
    "too far a turn": ({"rotate": 270}, "rotate is 270; expected 0 to 180 degrees"),
    "truth": ({"rotate": True}, "rotate is True; expected 0 to 180"),
    "no number": ({"shift": float("nan")}, "shift is nan; expected 0 to 0.5 of the side"),
    "without an end": ({"skew": float("inf")}, "skew is inf; expected 0 to 45 degrees"),
    "more than any float": ({"brightness": 10**400}, "brightness is 1000"),
    "negative": ({"contrast": -0.1}, "contrast is -0.1; expected 0 to 1"),
    "one number for two": ({"zoom": 1.2}, r"zoom is 1.2; expected two numbers from 0.1 to 10, the smaller first, such as \[0.8, 1.25\]"),
    "backwards": ({"zoom": [1.25, 0.8]}, r"zoom is \[1.25, 0.8\]; expected two numbers"),
    "three": ({"blur": [0, 1, 2]}, r"blur is \[0, 1, 2\]; expected two numbers from 0 to 16"),
    "a text in a pair": ({"noise": [0, "much"]}, r"noise is \[0, 'much'\]; expected two numbers from 0 to 1"),
    "nothing left": ({"zoom": [0, 1]}, r"zoom is \[0, 1\]; expected two numbers from 0.1"),
    "a table": ({"zoom": {"least": 1}}, "expected two numbers"),
    "a list": ({"rotate": [90]}, r"rotate is \[90\]; expected 0 to 180"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_section_is_refused_with_what_is_expected(case: str) -> None:
    table, match = WRONG[case]
    with pytest.raises(OptionError, match=match) as caught:
        augmentation_of(table, "permafeat.toml: ")
    assert str(caught.value).startswith("permafeat.toml: [augmentation] ")


def test_a_section_means_the_terms_that_it_names_and_no_other() -> None:
    table = {
        "flip": "both", "rotate": 180, "zoom": [0.8, 1.25], "shift": 0.1, "skew": 10, "brightness": 0.2, "contrast": 0.2,
        "blur": [0.0, 1.5], "noise": [0.0, 0.05],
    }  # fmt: skip
    whole = augmentation_of(table)
    assert whole.terms == (
        "horizontal flip p=0.5",
        "vertical flip p=0.5",
        "rotation uniform in +-180 degrees",
        "skew of columns uniform in +-10 degrees",
        "zoom log-uniform in 0.8 to 1.25",
        "shift uniform in +-0.1 of the side",
        "brightness factor uniform in 1 +-0.2",
        "contrast factor uniform in 1 +-0.2, about each plane's mean",
        "blur sigma uniform in 0 to 1.5 px",
        "noise deviation uniform in 0 to 0.05",
    )
    for key, value in table.items():
        alone = augmentation_of({key: value})
        assert set(alone.terms) <= set(whole.terms) and len(alone.terms) == (2 if key == "flip" else 1)
    assert augmentation_of({"flip": "both", "rotate": 180}) == FLIPS_AND_TURNS
    assert augmentation_of({}).terms == augmentation_of({"rotate": 0, "zoom": [1, 1], "blur": [0, 0]}).terms == ()


@given(one=TERMS, other=TERMS)
def test_equal_words_are_said_of_equal_terms_alone(one: Augmentation, other: Augmentation) -> None:
    assert (one.terms == other.terms) == (one == other)


def test_numbers_that_differ_in_the_last_digit_are_told_apart() -> None:
    near = np.nextafter(0.1, 1)
    assert augmentation(shift=float(near)).terms != augmentation(shift=0.1).terms


def test_copies_that_would_be_the_image_itself_are_refused() -> None:
    idle = augmentation_of({"flip": "none"})
    assert FeaturizeSettings(augmentation=idle).augment == 0
    for copies in ({"augment": 2}, {"tta": 2}):
        with pytest.raises(
            OptionError, match=r"\[augmentation\] names no term that does anything, so that all 2 copies"
        ):
            FeaturizeSettings(augmentation=idle, **copies)


def test_streams_of_terms_are_apart_from_each_other_and_from_other_images() -> None:
    first = {
        view_rng(seed, image_id, view, term).random()
        for seed in (0, 1) for image_id in "ab" for view in (1, 2) for term in ("", "zoom", "noise", "noise field")
    }  # fmt: skip
    assert len(first) == 32
