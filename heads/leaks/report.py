"""What near-duplicates mean for an estimate: which of them stand on both sides of a fold, or in training and test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from heads.arrays import Bool, Indices
from heads.leaks.alike_pairs import AlikePairs
from heads.leaks.near_duplicates import NearDuplicates

COLUMNS = ("id", "other_id", "where", "cosine", "fold", "other_fold")
_MOST_EXAMPLES = 5


def across_folds(found: NearDuplicates, folds: Indices) -> Bool:
    """Find the pairs of labelled images that a fold of any repeat parts: one is learned from while the other is judged.

    Parameters
    ----------
    found : NearDuplicates
    folds : int64 array, shape (n_repeats, n_images)
        In which fold each image is held out.

    Returns
    -------
    bool array, shape (n_pairs,)
    """
    first, second = found.train.places.T
    parted: Bool = (folds[:, first] != folds[:, second]).any(axis=0)
    return parted


def leak_warnings(
    found: NearDuplicates,
    ids: Sequence[str],
    other_ids: Sequence[str],
    folds: Indices,
    *,
    is_grouped: bool,
) -> tuple[str, ...]:
    """Say how many near-duplicates are on both sides of a fold, and in training and test, with examples.

    Parameters
    ----------
    found : NearDuplicates
    ids : sequence of str, length n_images
    other_ids : sequence of str, length n_others
        Of the test images.
    folds : int64 array, shape (n_repeats, n_images)
        In which fold each image is held out.
    is_grouped : bool
        Whether near-duplicates were already made groups.

    Returns
    -------
    tuple of str
        Empty where there is nothing to tell.
    """
    told = []
    parted = across_folds(found, folds)
    if parted.any():
        examples = _examples(found.train, np.flatnonzero(parted), ids, ids)
        n_touched = len(np.unique(found.train.places[parted]))
        cure = (
            "they were too many or too chained to be grouped, see near_duplicates.csv"
            if is_grouped
            else "to keep them in one fold, type --group-near-duplicates; near_duplicates.csv lists them"
        )
        told.append(
            f"{parted.sum()}{_more(found.train)} pairs of near-duplicate images ({n_touched} of {found.n_images} images) stand in "
            f"different folds, so figures may be too good: {examples}; {cure}"
        )
    if len(found.test):
        examples = _examples(found.test, np.arange(len(found.test)), ids, other_ids)
        n_touched = len(np.unique(found.test.places[:, 1]))
        told.append(
            f"{len(found.test)}{_more(found.test)} pairs of a training and a test image are near-duplicates ({n_touched} of "
            f"{found.n_others} test images): {examples}. If they are copies, the test score will be better than for new images, "
            f"and --group-near-duplicates cannot help that: look at near_duplicates.csv, and take copies out of the training images"
        )
    if told:
        told.append(_how_sure(found))
    return tuple(told)


def _more(pairs: AlikePairs) -> str:
    return " or more" if pairs.truncated else ""


def _examples(pairs: AlikePairs, chosen: Indices, ids: Sequence[str], other_ids: Sequence[str]) -> str:
    shown = [
        f"{ids[pairs.places[pair, 0]]!r} and {other_ids[pairs.places[pair, 1]]!r} (cosine {pairs.cosines[pair]:.3f})"
        for pair in chosen[:_MOST_EXAMPLES]
    ]
    rest = len(chosen) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")


def _how_sure(found: NearDuplicates) -> str:
    threshold = found.threshold
    if threshold.is_fixed:
        how = "a fixed one, as there are no augmented views to show what copies look like: featurize with --augment for a better one"
    else:
        how = f"{threshold.found_share:.0%} of the copies that the augmentation makes are as alike"
    found_ones = f"{found.n_differing} of the {len(found.train)} pairs of training images have different labels"
    other = found.other_threshold
    if found.n_others and other != threshold:
        how += (
            f"; {other.value:.3f} and {other.found_share:.0%} between training and test, whose images have fewer views"
        )
    return (
        f"near-duplicates are pairs with a cosine of {threshold.value:.3f} or more ({how}). They are copies, overlapping crops, or "
        f"images that the networks cannot tell apart; {found_ones}"
    )


def leaks_table(
    found: NearDuplicates,
    ids: Sequence[str],
    other_ids: Sequence[str],
    folds: Indices,
    further_ids: Sequence[str] = (),
) -> pd.DataFrame:
    """List all pairs, for near_duplicates.csv.

    Parameters
    ----------
    found, ids, other_ids, folds
        As of :func:`leak_warnings`.
    further_ids : sequence of str, length n_further

    Returns
    -------
    DataFrame
        Columns ``id``, ``other_id``, ``where`` (``train``, ``test`` or ``extra``: where the other is), ``cosine`` (6 decimals), ``fold``,
        ``other_fold`` (of the first repeat; missing where the other is not scored); pairs of training images first, the most alike first.
    """
    parts = [
        _part(found.train, ids, ids, "train", folds[0], folds[0]),
        _part(found.test, ids, other_ids, "test", folds[0], None),
        _part(found.further, ids, further_ids, "extra", folds[0], None),
    ]
    table = {name: [cell for part in parts for cell in part[name]] for name in COLUMNS}
    kinds = {"cosine": "float64", "fold": "int64", "other_fold": "Int64"}
    return pd.DataFrame({name: pd.Series(cells, dtype=kinds.get(name, "str")) for name, cells in table.items()})


def further_warnings(
    found: NearDuplicates, ids: Sequence[str], further_ids: Sequence[str], *, is_grouped: bool
) -> tuple[str, ...]:
    """Say which further images are near-duplicates of scored ones: they train in every fold, also where those are held out.

    Parameters
    ----------
    found : NearDuplicates
    ids, further_ids : sequence of str, lengths n_images, n_further
    is_grouped : bool
        Whether such images were left out.
    """
    if not len(found.further):
        return ()
    examples = _examples(found.further, np.arange(len(found.further)), ids, further_ids)
    n_touched = len(np.unique(found.further.places[:, 1]))
    outcome = "left out" if is_grouped else "figures may be too good: --group-near-duplicates leaves them out"
    text = (
        f"{n_touched} of {found.n_further} further images are near-duplicates of scored images, which they give away where these "
        f"are held out: {examples}; {outcome}"
    )
    return (text,)


def _part(
    pairs: AlikePairs,
    ids: Sequence[str],
    other_ids: Sequence[str],
    where: str,
    folds: Indices,
    other_folds: Indices | None,
) -> dict[str, list[Any]]:
    first, second = pairs.places.T
    return {
        "id": [ids[place] for place in first.tolist()],
        "other_id": [other_ids[place] for place in second.tolist()],
        "where": [where] * len(pairs),
        "cosine": pairs.cosines.round(6).tolist(),
        "fold": folds[first].tolist(),
        "other_fold": [None] * len(pairs) if other_folds is None else other_folds[second].tolist(),
    }
