"""Each head fitted on all rows, with what the folds chose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from features_cache.progress import Progress
from features_cache.recipe import Block
from heads.estimators.catalogue import HeadKind
from heads.fitted import FittedHead
from heads.out_of_fold import OutOfFold, fit_final
from heads.prior import Prior, prior_shift
from heads.problem import TrainingData


def fit_finals(
    kinds: Mapping[str, HeadKind],
    data: TrainingData,
    found: Mapping[str, OutOfFold],
    *,
    classes: Sequence[str],
    blocks: Sequence[Block],
    prior: Prior,
    progress: Progress,
) -> tuple[FittedHead, ...]:
    """Fit each head on all rows.

    Parameters
    ----------
    kinds : mapping of str to HeadKind
    data : TrainingData
    found : mapping of str to OutOfFold
        By the same names: what the folds chose.
    classes : sequence of str
    blocks : sequence of Block
        The columns of the rows.
    prior : {"balanced", "train"}
        Which class frequencies probabilities speak of.
    progress : callable

    Returns
    -------
    tuple of FittedHead
    """
    fitted = []
    for place, (name, kind) in enumerate(kinds.items()):
        progress(f"final fit: {name}", place, len(kinds))
        head = fit_final(kind, data, found[name].final)
        shift = prior_shift(data, prior, weighs_members=head.weighs_members)
        fitted.append(FittedHead(name=name, head=head, classes=tuple(classes), blocks=tuple(blocks), shift=shift))
    return tuple(fitted)
