"""What is said of an image's cells in one text: `class confidence mask`, cell after cell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from features_cache.errors import OptionError, SubmissionError, listed
from heads.arrays import Bool, Float64

LEAST_CONFIDENCE = 0.01
"""A class below it is left out: it stands at the end of every ranking, and would make the file several times as long."""


def check_least(least: float) -> None:
    """Check a least confidence.

    Raises
    ------
    OptionError
        If it is not 0 to 1.
    """
    if not 0 <= least <= 1:
        msg = f"--least-confidence {least:g}; expected 0 to 1, such as {LEAST_CONFIDENCE:g}"
        raise OptionError(msg)


def chosen_classes(confidences: Float64, least: float) -> Bool:
    """Say which classes of each cell are told: those of at least a confidence, and in any case the most confident one.

    Parameters
    ----------
    confidences : float64 array, shape (n_cells, n_classes)
    least : float
        0 to 1.

    Returns
    -------
    bool array, same shape

    Examples
    --------
    >>> chosen_classes(np.array([[0.6, 0.2], [0.05, 0.01]]), 0.2).tolist()
    [[True, True], [True, False]]
    """
    chosen: Bool = confidences >= least
    chosen[np.arange(len(confidences)), confidences.argmax(axis=1)] = True
    return chosen


def prediction_string(confidences: Float64, chosen: Bool, classes: Sequence[str], masks: Sequence[str]) -> str:
    """Write what is said of some cells.

    Parameters
    ----------
    confidences : float64 array, shape (n_cells, n_classes)
        0 to 1.
    chosen : bool array, same shape
        Which classes of each cell are told.
    classes : sequence of str
        Words without blanks.
    masks : sequence of str
        Of each cell, likewise.

    Returns
    -------
    str
        Cells in the order given, the classes of a cell in theirs; confidences with six digits. Empty without cells.

    Examples
    --------
    >>> prediction_string(np.array([[0.25, 0.75]]), np.array([[False, True]]), ["0", "16"], ["eNo="])
    '16 0.750000 eNo='
    """
    cells, labels = np.nonzero(chosen)
    return " ".join(
        f"{classes[label]} {confidence:.6f} {masks[cell]}"
        for cell, label, confidence in zip(
            cells.tolist(), labels.tolist(), confidences[cells, labels].tolist(), strict=True
        )
    )


def check_classes(classes: Sequence[str]) -> None:
    """Check that names of classes can stand between blanks.

    Raises
    ------
    SubmissionError
        If one is empty or holds a blank.
    """
    bad = [name for name in classes if name.split() != [name]]
    if bad:
        msg = (
            f"the classes {listed(bad)} hold blanks; expected one word each, as `class confidence mask` is parted by blanks. Fit on "
            f"labels without them"
        )
        raise SubmissionError(msg)


def is_prediction_string(text: str) -> bool:
    """Whether a text is empty, or triples of a class, a confidence and a mask.

    Examples
    --------
    >>> [is_prediction_string(text) for text in ("", "0 1 eNo=", "0 1", "a 0.5 m b x m")]
    [True, True, False, False]
    """
    words = text.split()
    return not len(words) % 3 and all(map(_is_number, words[1::3]))


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
