"""One node's view of a split: the plan read from the shared disk, and networks built from the files that the node sees."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import Tensor

from features_cache.allocator import keep_freed_memory
from features_cache.errors import ImagesMissing, InputError, OptionError, PermafeatError, WeightsMissing
from features_cache.extend import Held, base_of
from features_cache.extras import versions_here
from features_cache.hardware import hardware_name
from features_cache.parts import Parts
from features_cache.plan import Plan, parts_folder, plan_in
from features_cache.recipe import Recipe
from features_cache.settle import require_same_recipes
from featurize.backbones.build import Backbone
from featurize.cluster.share import Share, Told
from featurize.computation import Computation
from featurize.device import choose_device
from featurize.images.blends import Blend, parse_blends
from featurize.images.places import place_of
from featurize.networks import build_networks, find_networks
from featurize.pixel_statistics import blend_statistics, frozen_statistics
from featurize.views.geometry import Square

_SHARED = "Images, weights and --out must be on a file system that all nodes share, at the same paths"


class Node:
    """The units of a split, computed on this node.

    Parameters
    ----------
    share : Share
        The split, as the driver tells of it.

    Raises
    ------
    PermafeatError
        If the node lacks what the driver has: folders, plan, weights, device, versions. The message names the node.
    """

    def __init__(self, share: Share) -> None:
        keep_freed_memory()
        try:
            self._parts = _parts_here(share)
            plan = self._parts.plan
            self._held = Held(plan, base_of(share.path, plan))
            backbones = _backbones(share, plan, self._held.missing_blocks())
            place, notes = place_of(share.where), _other_hardware(share)
            self._computation = Computation(
                place, self._parts, self._held, share.reading, share.settings, backbones, notes
            )
        except PermafeatError as error:
            msg = f"node {platform.node()}: {error}"
            raise type(error)(msg) from error

    def compute(self, numbers: Sequence[int], *, look_at_first: bool) -> Iterator[Told]:
        """Compute and commit units, but for those that an actor committed which was lost before it could tell."""
        for number in filter(self._parts.has, numbers):
            yield Told(number)
        missing = [self._held.unit(number) for number in numbers if not self._parts.has(number)]
        for unit, _ in self._computation.units(missing, _go_on, look_at_first=look_at_first):
            yield Told(unit.number)


def _other_hardware(share: Share) -> list[str]:
    here = hardware_name(share.device)
    told = f"computed by {here}, and not by {share.hardware}: the last bits may differ"
    return [] if here == share.hardware else [told]


def _go_on() -> None:
    """Never stop: an actor is killed when the run stops, which costs the units in hand."""


def _parts_here(share: Share) -> Parts:
    os.environ.update(share.weights_environment)
    sys.path += [place for place in share.import_path if place not in sys.path]
    try:
        os.chdir(share.folder)
    except OSError as error:
        msg = f"{share.folder}: no such folder ({error.strerror}); the command was typed there. {_SHARED}"
        raise InputError(msg) from error
    here = versions_here()
    if here != share.versions:
        unknown = "unknown"
        other = ", ".join(
            f"{name} {here.get(name, unknown)} instead of {share.versions.get(name, unknown)}"
            for name in sorted(here.keys() | share.versions.keys())
            if here.get(name) != share.versions.get(name)
        )
        msg = f"has {other}, which may move features; install the same versions on every node"
        raise OptionError(msg)
    choose_device(share.device)
    if isinstance(share.where, Path) and not share.where.is_dir():
        msg = f"{share.where}: no such folder of images. {_SHARED}"
        raise ImagesMissing(msg)
    plan = plan_in(parts_folder(share.path))
    parts = None if plan is None else Parts(parts_folder(share.path), plan)
    if parts is None or parts.mark != share.mark:
        msg = f"{parts_folder(share.path)}: holds {'another' if parts else 'no'} plan. {_SHARED}"
        raise InputError(msg)
    return parts


def _backbones(share: Share, plan: Plan, missing: set[str]) -> dict[str, Backbone]:
    """Build the networks of a plan, and check that they are those of its recipes."""
    reading, recipes = share.reading, [block.recipe for block in plan.blocks]
    known = frozen_statistics(recipes, reading)

    def statistics(blend: Blend, square: Square) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return blend_statistics(known, blend, square, reading)

    networks = find_networks(
        share.settings,
        recipes[0].precision,
        reading,
        parse_blends(share.settings.channels, reading.planes),
        statistics,
        _not_calibrated,
    )
    needed = tuple(block for block in plan.blocks if block.name in missing)
    require_same_recipes(tuple(network.block for network in networks), needed, "this node's weights")
    return build_networks(networks)


def _not_calibrated(_recipe: Recipe) -> Tensor:
    msg = f"the statistics of random weights are not beside the cache. {_SHARED}"
    raise WeightsMissing(msg)
