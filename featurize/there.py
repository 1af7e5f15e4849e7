"""Which recipes caches and unfinished runs hold already, and what ran their networks: what is added follows them."""

from __future__ import annotations

from collections.abc import Iterator

from features_cache.errors import CacheError, Refused
from features_cache.plan import Execution, parts_folder, plan_in
from features_cache.reader import FeatureCache
from features_cache.recipe import Recipe
from featurize.provenance import known_execution
from featurize.settings import FeaturizeSettings


def recipes_there(settings: FeaturizeSettings) -> Iterator[Recipe]:
    """Yield the recipes of caches and unfinished runs, the training images' first."""
    for split in settings.splits:
        path = settings.out / f"{split}.h5"
        try:
            if path.is_file():
                with FeatureCache(path) as cache:
                    yield from (block.recipe for block in cache.blocks)
            elif (plan := plan_in(parts_folder(path))) is not None:
                yield from (block.recipe for block in plan.blocks)
        except (CacheError, Refused):
            continue  # told where the split is begun


def executions_there(settings: FeaturizeSettings, first: str) -> Iterator[Execution]:
    """Yield how the networks of caches and unfinished runs run, as far as known, those of one split first."""
    for split in sorted(settings.splits, key=lambda split: split != first):
        path = settings.out / f"{split}.h5"
        try:
            plan = plan_in(parts_folder(path))
        except (CacheError, Refused):
            continue  # told where the split is begun
        found = known_execution(path) or (plan.execution if plan is not None else None)
        if found is not None:
            yield found
