"""A run's heads of images and of cells, asked about new images together."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Self

import numpy as np

from features_cache.errors import OptionError, RunError, listed
from features_cache.reader import FeatureCache
from heads.arrays import Float64, Indices
from heads.ensemble import average, overall
from heads.features import require_finite
from heads.fitted import check_blocks
from heads.fitted_run import FittedRun
from heads.fusion import fused
from heads.pooling import POOLS, Pool, pooled


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NewCells:
    """Cells of new images that have features.

    Parameters
    ----------
    cache : FeatureCache
        Open for as long as they are asked about.
    rows : int64 array, shape (n_cells,)
        Their rows there.
    parents : int64 array, shape (n_cells,)
        The place of each one's image.
    n_quarantined : int
        Cells of these images that have none.
    other_images : tuple of str
        Of which there are cells, too.
    """

    cache: FeatureCache
    rows: Indices
    parents: Indices
    n_quarantined: int
    other_images: tuple[str, ...]

    @property
    def ids(self) -> list[str]:
        """Their ids."""
        return [self.cache.ids[row] for row in self.rows.tolist()]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CellCounts:
    """What became of the cells of new images.

    Parameters
    ----------
    n_cells : int
        With features.
    n_quarantined : int
        Without; they are left out.
    n_images_without : int
        Images without a cell that has features.
    n_told : int or None
        Classes that a submission tells of cells; None where it tells of images alone.
    """

    n_cells: int
    n_quarantined: int
    n_images_without: int
    n_told: int | None = None

    @classmethod
    def of(cls, cells: NewCells, n_images: int) -> Self:
        """Count them."""
        return cls(
            n_cells=len(cells.rows),
            n_quarantined=cells.n_quarantined,
            n_images_without=n_images - len(np.unique(cells.parents)),
        )

    def lines(self) -> list[str]:
        """Tell them in lines of text."""
        classes = "" if self.n_told is None else f", {self.n_told} classes told of them"
        told = [f"{self.n_cells} cells{classes}; {self.n_images_without} images have none"]
        if self.n_quarantined:
            told.append(f"{self.n_quarantined} quarantined cells are left out")
        return told


def find_cells(cache: FeatureCache, images: Sequence[str], runs: Sequence[FittedRun]) -> NewCells:
    """Find the cells of some images, and check that heads of cells can be asked about them.

    Parameters
    ----------
    cache : FeatureCache
        Of cells, with parents.
    images : sequence of str
        Ids.
    runs : sequence of FittedRun
        Those with heads of cells will be asked.

    Returns
    -------
    NewCells

    Raises
    ------
    OptionError
        If the cache knows no parents.
    RecipeMismatch
        If it lacks a block that a head was fitted on, or holds it by another recipe.
    CacheError
        If a byte of the features differs from what was written, or one is no number.
    """
    if cache.parents is None:
        msg = f"{cache.path}: its images have no parents; expected cells of images. Make them with `cli featurize --cells DIR`"
        raise OptionError(msg)
    for run in runs:
        for head in () if run.cells is None else run.cells.heads:
            check_blocks(str(cache.path), head.blocks, cache.blocks)
    place_of = {image_id: place for place, image_id in enumerate(images)}
    parents = np.array([place_of.get(parent, -1) for parent in cache.parents], dtype=np.int64)
    rows = np.flatnonzero((parents >= 0) & cache.good)
    cache.require_sound(rows)
    for run in runs:
        if run.cells is not None:  # NaN means that there are no cells, from here on
            require_finite(cache, rows, run.cells.views, run.cells.block_names)
    return NewCells(
        cache=cache,
        rows=rows,
        parents=parents[rows],
        n_quarantined=int(((parents >= 0) & ~cache.good).sum()),
        other_images=tuple(sorted(set(cache.parents) - set(place_of))),
    )


def predict_fused(run: FittedRun, image: Float64, cells: NewCells) -> tuple[Float64, Float64]:
    """Predict images by their cells alone, and by both.

    Parameters
    ----------
    run : FittedRun
        With heads of cells.
    image : float64 array, shape (n_images, n_classes)
        What its heads of images say of them.
    cells : NewCells

    Returns
    -------
    alone, together : float64 arrays, shape (n_images, n_classes)
        Images without cells as they say themselves.
    """
    said = pooled(cell_probabilities(run, cells), cells.parents, len(image), _pool(run), many=run.many_labels)
    return fused(image, said, 1.0), fused(image, said, weight_of(run))


def fused_confidences(runs: Sequence[FittedRun], said: Sequence[Float64], cells: NewCells) -> Float64:
    """Predict cells by themselves and by their images, ``w * cell + (1 - w) * image``, each run with its own weight.

    Parameters
    ----------
    runs : sequence of FittedRun
        With heads of cells; each counts by its number of heads.
    said : sequence of float64 arrays, shape (n_images, n_classes)
        What each one's heads of images say of them.
    cells : NewCells

    Returns
    -------
    float64 array, shape (n_cells, n_classes)
    """
    both = [
        fused(image[cells.parents], cell_probabilities(run, cells), weight_of(run))
        for run, image in zip(runs, said, strict=True)
    ]
    return average(both, [len(run.heads) for run in runs])


def cell_probabilities(run: FittedRun, cells: NewCells) -> Float64:
    """Predict cells by a run's heads of cells, or their ensemble."""
    if run.cells is None:
        msg = f"{run.folder}: has no heads of cells; expected a run of `cli fit-heads --cells`. Fit one, or leave the cells out"
        raise RunError(msg)
    return overall(run.cells.predict_rows(cells.cache, cells.rows))


def weight_of(run: FittedRun) -> float:
    """Return the weight of cells that a run chose.

    Raises
    ------
    RunError
        If run.json holds none.
    """
    weight = None if run.cells is None else run.cells.run.get("weight")
    if not isinstance(weight, float) or not 0 <= weight <= 1:
        msg = f"{run.folder}: run.json holds no weight of cells ({weight!r}); expected 0 to 1. Fit the heads again with `cli fit-heads --cells`"
        raise RunError(msg)
    return weight


def _pool(run: FittedRun) -> Pool:
    found = None if run.cells is None else run.cells.run.get("pool")
    if found not in POOLS:
        msg = f"{run.folder}: run.json holds no pool of cells ({listed([found])}); expected one of {', '.join(POOLS)}. Fit the heads again"
        raise RunError(msg)
    pool: Pool = found
    return pool
