"""The same kinds of heads, fitted on the cells of images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from features_cache.progress import Progress
from heads.cell_data import Cells, cell_training_data
from heads.ensemble import NAME as ENSEMBLE
from heads.ensemble import Ensemble, combine
from heads.estimators.catalogue import HeadKind
from heads.final_fit import fit_finals
from heads.fitted import FittedHead
from heads.gather import Gathered, ImageWeights
from heads.out_of_fold import OutOfFold, out_of_fold
from heads.predictions import Predictions
from heads.settings import FitSettings
from heads.sizes import POWER


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CellHeads:
    """Heads of cells, and what they said of cells that they never saw.

    Parameters
    ----------
    found : dict of OutOfFold
        By head.
    ensemble : Ensemble
    predictions : dict of Predictions
        Of cells: by head, and of the ensemble where there are several heads.
    fitted : tuple of FittedHead
        On all cells.
    """

    found: dict[str, OutOfFold]
    ensemble: Ensemble
    predictions: dict[str, Predictions]
    fitted: tuple[FittedHead, ...]


def fit_cells(
    settings: FitSettings,
    gathered: Gathered,
    cells: Cells,
    of_images: ImageWeights,
    kinds: Mapping[str, HeadKind],
    progress: Progress,
) -> CellHeads:
    """Predict every cell by heads that never saw its image, and fit each head on all cells with what the folds chose.

    Parameters
    ----------
    settings : FitSettings
    gathered : Gathered
        The images.
    cells : Cells
    of_images : ImageWeights
    kinds : mapping of str to HeadKind
    progress : callable

    Returns
    -------
    CellHeads
    """

    def told(what: str, n_done: int, n_total: int) -> None:
        progress(f"cells: {what}", n_done, n_total)

    images = gathered.images
    prior = settings.prior_of(many=images.targets.is_many)
    data = cell_training_data(settings, gathered, cells, of_images, POWER)
    found = out_of_fold(
        kinds,
        data,
        cells.folds,
        n_averaged=cells.n_averaged,
        prior=prior,
        seed=settings.seed,
        progress=told,
        n_settings=settings.search,
    )
    predictions = {name: oof.predictions for name, oof in found.items()}
    ensemble = combine(predictions, cells.folds, cells.targets, settings.ensemble, cells.parents)
    if len(predictions) > 1:
        predictions[ENSEMBLE] = ensemble.predictions
    fitted = fit_finals(kinds, data, found, classes=images.classes, blocks=cells.blocks, prior=prior, progress=told)
    return CellHeads(found=found, ensemble=ensemble, predictions=predictions, fitted=fitted)
