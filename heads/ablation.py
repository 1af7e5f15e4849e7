"""What each block is worth: the same estimate with that block left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from features_cache.errors import OptionError
from features_cache.progress import Progress
from heads.estimate import Estimate, estimate
from heads.estimators.catalogue import HeadKind
from heads.gather import Gathered, training_data
from heads.metrics.scoring import mean_headline
from heads.settings import FitSettings
from heads.sizes import POWER


def require_blocks(gathered: Gathered) -> None:
    """Check that there is a block to leave out.

    Raises
    ------
    OptionError
        If there is one block only.
    """
    if len(gathered.blocks) < 2:
        msg = (
            f"--ablate: the only block is {gathered.blocks[0].name}; expected at least 2. Featurize with a further --backbone, or "
            f"leave --ablate out"
        )
        raise OptionError(msg)


def ablate(
    settings: FitSettings, gathered: Gathered, kinds: Mapping[str, HeadKind], whole: Estimate, progress: Progress
) -> list[dict[str, Any]]:
    """Estimate anew without each block in turn, in the same folds; everything is chosen anew.

    Parameters
    ----------
    settings : FitSettings
    gathered : Gathered
        At least two blocks.
    kinds : mapping of str to HeadKind
    whole : Estimate
        With all blocks.
    progress : callable

    Returns
    -------
    list of dict
        ``left_out`` (None first, then each block) and ``heads``: each head's headline figures.
    """
    rows: list[dict[str, Any]] = [{"left_out": None, "heads": _figures(gathered, whole)}]
    for block in gathered.blocks:

        def told(what: str, n_done: int, n_total: int, name: str = block.name) -> None:
            progress(f"without {name}: {what}", n_done, n_total)

        others = dataclasses.replace(gathered, features=gathered.features.without(block.name))
        without = estimate(settings, others, training_data(settings, others, POWER), kinds, told)
        rows.append({"left_out": block.name, "heads": _figures(gathered, without)})
    return rows


def _figures(gathered: Gathered, said: Estimate) -> dict[str, dict[str, float]]:
    targets = gathered.images.targets
    return {
        name: mean_headline(targets, predictions, said.decisions[name])
        for name, predictions in said.predictions.items()
    }
