"""All that is said of held-out images: by each head, by their ensemble, and what the images are called."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from features_cache.progress import Progress
from heads.decisions import N_RESAMPLES, Decisions, decide
from heads.ensemble import NAME as ENSEMBLE
from heads.ensemble import Ensemble, combine
from heads.estimators.catalogue import HeadKind
from heads.gather import Gathered
from heads.out_of_fold import OutOfFold, out_of_fold
from heads.predictions import Predictions
from heads.problem import TrainingData
from heads.settings import FitSettings


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What was said of images by heads that never saw them.

    Parameters
    ----------
    found : dict of OutOfFold
        By head.
    ensemble : Ensemble
    predictions : dict of Predictions
        By head, and of the ensemble where there are several heads.
    decisions : dict of Decisions or None
        By the same names; None where images have one label.
    """

    found: dict[str, OutOfFold]
    ensemble: Ensemble
    predictions: dict[str, Predictions]
    decisions: dict[str, Decisions | None]


def estimate(
    settings: FitSettings,
    gathered: Gathered,
    data: TrainingData,
    kinds: Mapping[str, HeadKind],
    progress: Progress,
) -> Estimate:
    """Predict every image by heads fitted without its fold, and choose weights and thresholds inside the folds.

    Parameters
    ----------
    settings : FitSettings
    gathered : Gathered
    data : TrainingData
    kinds : mapping of str to HeadKind
    progress : callable

    Returns
    -------
    Estimate
    """
    images, folds = gathered.images, gathered.folds
    prior = settings.prior_of(many=images.targets.is_many)
    found = out_of_fold(
        kinds,
        data,
        folds,
        n_averaged=gathered.n_averaged,
        prior=prior,
        seed=settings.seed,
        progress=progress,
        n_settings=settings.search,
    )
    predictions = {name: oof.predictions for name, oof in found.items()}
    ensemble = combine(predictions, folds, images.targets, settings.ensemble)
    if len(predictions) > 1:
        predictions[ENSEMBLE] = ensemble.predictions
    decisions = {name: decided(settings, gathered, said) for name, said in predictions.items()}
    return Estimate(found=found, ensemble=ensemble, predictions=predictions, decisions=decisions)


def decided(
    settings: FitSettings, gathered: Gathered, predictions: Predictions, *, n_resamples: int = N_RESAMPLES
) -> Decisions | None:
    """Decide what images are called by predictions of them, inside the folds; None where they have one label."""
    images = gathered.images
    if not images.targets.is_many:
        return None
    return decide(
        predictions,
        gathered.folds,
        images.targets,
        images.groups,
        rule=settings.threshold_rule,
        at_least_one=settings.at_least_one,
        seed=settings.seed,
        n_resamples=n_resamples,
    )
