"""Pictures of a run say what they show."""

import numpy as np
import pytest

from heads.metrics.calibration import calibration, calibration_many
from heads.pictures import _reliability, reliability_picture

PROBABILITIES = np.array([[0.75, 0.25], [0.25, 0.75], [0.5, 0.5]])
LABELS = np.array([0, 1, 1])
FOUND = {
    False: calibration(LABELS, PROBABILITIES),
    True: calibration_many(np.eye(2, dtype=bool)[LABELS], PROBABILITIES),
}


@pytest.mark.parametrize(
    ("many", "x", "y", "dots"),
    [
        (False, "probability of the predicted class", "share of right predictions", "images of like confidence"),
        (
            True,
            "probability that an image is of a class",
            "share of decisions where it is of the class",
            "decisions of like probability",
        ),
    ],
)
def test_the_axes_of_a_reliability_picture_name_what_its_bins_hold(many, x, y, dots):
    axes = _reliability(FOUND[many], head="ridge", many=many, random_weights=False).axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == (x, y)
    assert f"{dots} (size: how many)" in [text.get_text() for text in axes.get_legend().get_texts()]


@pytest.mark.parametrize("many", [False, True])
def test_a_reliability_picture_is_the_same_bytes_each_time(many):
    first, second = (reliability_picture(FOUND[many], head="ridge", many=many, random_weights=True) for _ in range(2))
    assert first == second
    assert first.startswith(b"\x89PNG")
