"""What runs say of the images that a submission asks for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from features_cache.errors import SubmissionError, listed
from features_cache.reader import FeatureCache
from heads.arrays import Bool, Float64, Indices
from heads.ensemble import overall
from heads.fitted import check_blocks
from heads.fitted_run import FittedRun
from heads.fused_run import NewCells


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What heads of images say.

    Parameters
    ----------
    said : list of float64 arrays, shape (n_images, n_classes)
        Of each run; class frequencies where an image is quarantined.
    n_filled : int
        How many are.
    """

    said: list[Float64]
    n_filled: int


def ask_runs(
    runs: Sequence[FittedRun], cache: FeatureCache, ids: Sequence[str], source: Path | None, *, fill: bool
) -> Answers:
    """Ask each run about images.

    Parameters
    ----------
    runs : sequence of FittedRun
    cache : FeatureCache
    ids : sequence of str
        Of the images, in the order wanted; all that the cache holds.
    source : Path or None
        What asks for them, for messages.
    fill : bool
        Whether quarantined images get the training images' class frequencies (an error otherwise).

    Returns
    -------
    Answers

    Raises
    ------
    RecipeMismatch, CacheDamaged
        If the features are not those that heads were fitted on, or not what was written.
    SubmissionError
        If ids have no features, the cache holds others, or an image is quarantined.
    """
    for head in (head for each in runs for head in each.heads):
        check_blocks(str(cache.path), head.blocks, cache.blocks)
    rows = rows_of(ids, cache.ids, str(source or cache.path), str(cache.path))
    good = cache.good[rows]
    if not fill:
        _check_quarantined(cache.path, ids, good)
    cache.require_sound(rows[good])
    prior = _prior(runs)
    said = []
    for each in runs:
        probabilities = np.tile(prior, (len(ids), 1))
        probabilities[good] = overall(each.predict_rows(cache, rows[good]))
        said.append(probabilities)
    return Answers(said=said, n_filled=int(np.sum(~good)))


def rows_of(
    ids: Sequence[str],
    cache_ids: Sequence[str],
    source: str,
    where: str,
    cure: str = "Run `cli featurize` with this sample",
) -> Indices:
    """Find the cache's rows of ids, which must be the same set.

    Raises
    ------
    SubmissionError
        If ids of the source have no features, or the cache holds others.
    """
    row_of = {image_id: row for row, image_id in enumerate(cache_ids)}
    wanted = set(ids)
    missing = [image_id for image_id in ids if image_id not in row_of]
    extra = [image_id for image_id in cache_ids if image_id not in wanted]
    if missing or extra:
        parts = []
        if missing:
            parts.append(f"{len(missing)} of {len(ids)} ids have no features ({listed(missing, 5)})")
        if extra:
            parts.append(
                f"{len(extra)} of {len(cache_ids)} images with features are not asked for ({listed(extra, 5)})"
            )
        msg = f"{source}: {'; '.join(parts)}; expected the ids of {where}. {cure}"
        raise SubmissionError(msg)
    return np.array([row_of[image_id] for image_id in ids], dtype=np.int64)


def require_no_others(cells: NewCells, source: Path) -> None:
    """Check that all cells are of the images that are asked for.

    Raises
    ------
    SubmissionError
        If some are of others.
    """
    if cells.other_images:
        msg = (
            f"{cells.cache.path}: {len(cells.other_images)} images of its cells are not asked for ({listed(cells.other_images, 5)}); "
            f"expected the images of {source}. Run `cli cells` and `cli featurize --cells` with this sample"
        )
        raise SubmissionError(msg)


def require_numbers(ids: Sequence[str], probabilities: Float64) -> None:
    """Check that probabilities are numbers.

    Raises
    ------
    SubmissionError
        If one is not.
    """
    bad = [ids[row] for row in np.flatnonzero(~np.isfinite(probabilities).all(axis=1)).tolist()]
    if bad:
        msg = f"{len(bad)} images have a probability that is not a number ({listed(bad, 5)}); expected none. Run `cli featurize --repair`"
        raise SubmissionError(msg)


def _check_quarantined(path: Path, ids: Sequence[str], good: Bool) -> None:
    bad = [ids[row] for row in np.flatnonzero(~good).tolist()]
    if bad:
        msg = (
            f"{path}: {len(bad)} of {len(ids)} test images are quarantined ({listed(bad, 5)}); expected features "
            f"of each. Mend the images and run `cli featurize --repair`, or give them the training images' class frequencies "
            f"with --fill-quarantined prior"
        )
        raise SubmissionError(msg)


def _prior(runs: Sequence[FittedRun]) -> Float64:
    """Return class frequencies of the training images."""
    shares = [np.array(each.run["class_counts"]) / each.run["n_images"] for each in runs]
    return np.asarray(np.mean(shares, axis=0))
