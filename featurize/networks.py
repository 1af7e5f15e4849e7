"""The networks of a run: their weights found and hashed, their blocks described, the networks built when needed."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path

from torch import Tensor

from features_cache.errors import OptionError, WeightsMismatch
from features_cache.recipe import Block, Precision, Recipe
from featurize.backbones.build import Backbone, build_backbone
from featurize.backbones.calibrate import random_backbone
from featurize.backbones.origin import RANDOM, Origin, check_choice, find_origin
from featurize.backbones.profile import profile_of
from featurize.backbones.shape import shape_of
from featurize.backbones.spelling import Spelling
from featurize.backbones.state import load_state, sha256_of_state
from featurize.backbones.weights import parse_weights, sha256_of
from featurize.images.blends import NONE, Blend
from featurize.images.decode import DECODING
from featurize.images.reading import Reading
from featurize.settings import FeaturizeSettings
from featurize.views.affine import FILL
from featurize.views.geometry import Square

Statistics = Callable[[Blend, Square], tuple[tuple[float, ...], tuple[float, ...]]]
Calibration = Callable[[Recipe], Tensor]
_UNKNOWN = "0" * 64


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """One network of a run, and what it is given.

    Parameters
    ----------
    block : Block
        Its columns and their recipe.
    origin : Origin
        Where its weights came from.
    key : hashable
        Equal where two blocks can share one network.
    build : callable
        Builds it, on the CPU in float32.
    """

    block: Block
    origin: Origin
    key: Hashable
    build: Callable[[], Backbone]


def find_networks(
    settings: FeaturizeSettings,
    precision: Precision,
    reading: Reading,
    blends: Sequence[Blend],
    statistics: Statistics,
    calibration: Calibration,
) -> tuple[Network, ...]:
    """Find every network's weights before any is run: a block for each network and blend.

    Parameters
    ----------
    settings : FeaturizeSettings
        Which networks, and which weights.
    precision : {"float32", "bfloat16", "float16"}
        Arithmetic, for the recipes.
    reading : Reading
        How images are read, for the recipes.
    blends : sequence of Blend
        What each network is given.
    statistics : callable
        Gives mean and standard deviation of the data set's pixels, of a blend of a square; asked with ``--normalise dataset``.
    calibration : callable
        Gives what sets the statistics of a network with random weights: inputs by a recipe, normalised.

    Raises
    ------
    WeightsError, OptionError
        If weights are missing or wrong, or a network does not take the size.
    """
    choice = parse_weights(settings.weights)
    check_choice(choice, settings.backbones)
    networks: list[Network] = []
    start = 0
    for name in settings.backbones:
        size_px = settings.size_px or profile_of(name).size_px
        origin = find_origin(name, choice) if choice.pretrained else RANDOM
        for blend in blends:
            shape = shape_of(name, size_px, blend.n_inputs)
            recipe = _recipe(settings, name, size_px, precision, reading, blend, statistics, tap=shape.tap)
            key, build, sha256 = _builder(name, recipe, settings.out, origin, calibration)
            recipe = dataclasses.replace(recipe, weights_sha256=sha256)
            label = f"{name}:{blend.label}" if blend.label else name
            block = Block(name=label, start=start, columns=shape.columns, recipe=recipe)
            networks.append(Network(block=block, origin=origin, key=key, build=build))
            start = block.stop
    return tuple(networks)


def build_networks(networks: Iterable[Network]) -> dict[str, Backbone]:
    """Build networks, by the names of their blocks; those that can be shared, once.

    Raises
    ------
    WeightsError
        If weights are not the network's.
    """
    built: dict[Hashable, Backbone] = {}
    by_block: dict[str, Backbone] = {}
    for network in networks:
        if network.key not in built:
            built[network.key] = network.build()
        by_block[network.block.name] = built[network.key]
    return by_block


def _builder(
    name: str, recipe: Recipe, out: Path, origin: Origin, calibration: Calibration
) -> tuple[Hashable, Callable[[], Backbone], str]:
    """Return what is equal for blocks that share a network, what builds it, and the sha256 of its weights."""
    n_inputs = len(recipe.mean)
    key = (name, recipe.size_px, n_inputs)
    if origin.file is not None:
        found = origin.file.stat()
        sha256 = _sha256_once(origin.file, found.st_size, found.st_mtime_ns)
        return key, functools.partial(_from_file, name, recipe.size_px, n_inputs, origin.file), sha256
    if origin is RANDOM:
        # Its statistics are of what it is given.
        backbone, sha256 = random_backbone(name, recipe, out, functools.partial(calibration, recipe))
        return (*key, recipe.digest), functools.partial(_built, backbone), sha256
    backbone = build_backbone(name, recipe.size_px, None, n_inputs)
    return key, functools.partial(_built, backbone), sha256_of_state(backbone.state_dict())


@functools.cache
def _sha256_once(file: Path, _n_bytes: int, _mtime_ns: int) -> str:
    return sha256_of(file)


def _built(backbone: Backbone) -> Backbone:
    return backbone


def _from_file(name: str, size_px: int, n_inputs: int, file: Path) -> Backbone:
    try:
        return build_backbone(name, size_px, load_state(file), n_inputs)
    except WeightsMismatch as error:
        msg = f"{file}: {error}" if str(file) not in str(error) else str(error)
        raise WeightsMismatch(msg) from error


def _recipe(
    settings: FeaturizeSettings,
    name: str,
    size_px: int,
    precision: Precision,
    reading: Reading,
    blend: Blend,
    statistics: Statistics,
    *,
    tap: str,
) -> Recipe:
    """Describe a block, but for the hash of weights that may not be there yet."""
    resize_px = settings.resize_px if settings.resize_px != size_px else None
    if resize_px is not None and resize_px < size_px:
        msg = f"--resize {resize_px} with {name}, which sees {size_px} px; expected at least as much as is cut from it"
        raise OptionError(msg)
    if settings.normalise == "dataset":
        mean, std = statistics(blend, Square(settings.fit, resize_px or size_px))
    else:
        profile = profile_of(name)
        mean, std = (
            tuple(values[place % len(values)] for place in range(blend.n_inputs))
            for values in (profile.mean, profile.std)
        )
    is_widened = blend.is_widened and blend.n_inputs != 3
    return Recipe(
        backbone=Spelling.parse(name).network,
        weights_sha256=_UNKNOWN,
        pretrained=settings.weights != ("random",),
        tap=tap,
        size_px=size_px,
        interpolation="bilinear, antialias",
        fill=FILL,
        mean=mean,
        std=std,
        channels=blend.channels,
        scale=settings.scale,
        augmentation=settings.augmentation.terms,
        seed=settings.seed,
        precision=precision,
        storage=settings.storage,
        decoding=DECODING,
        places=tuple(reading.places[reading.planes.index(name)] if name != NONE else -1 for name in blend.channels)
        if reading.places
        else (),
        frame=settings.frame,
        fit=settings.fit,
        resize_px=resize_px,
        crops=settings.crops,
        statistics=settings.normalise,
        first_layer=f"weights repeated over {blend.n_inputs} channels, each divided by how often" if is_widened else "",
    )
