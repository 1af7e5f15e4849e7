"""The networks of a run: their weights found and hashed, their blocks described, the networks built when needed."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path

from torch import Tensor

from features_cache.errors import OptionError, WeightsMismatch, did_you_mean
from features_cache.recipe import Block, Precision, Recipe
from featurize.augment import FILL
from featurize.backbones import IMAGENET_MEAN, IMAGENET_STD, Backbone, build_backbone, shape_of
from featurize.blends import NONE, Blend
from featurize.calibrate import random_backbone
from featurize.decode import DECODING
from featurize.geometry import Square
from featurize.reading import Reading
from featurize.settings import TRAINED_SIZE_PX, FeaturizeSettings
from featurize.weights import find_weights, load_state, parse_weights, sha256_of

Statistics = Callable[[Blend, Square], tuple[tuple[float, ...], tuple[float, ...]]]
Calibration = Callable[[Recipe], Tensor]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """One network of a run, and what it is given.

    Parameters
    ----------
    block : Block
        Its columns and their recipe.
    file : Path or None
        Its weights; None where they are random.
    key : hashable
        Equal where two blocks can share one network.
    build : callable
        Builds it, on the CPU in float32.
    """

    block: Block
    file: Path | None
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
    for name, _ in choice.files:
        if name not in settings.backbones:
            msg = f"--weights {name}=FILE: no such network in --backbone{did_you_mean(name, settings.backbones)}"
            raise OptionError(msg)
    networks: list[Network] = []
    start = 0
    for name in settings.backbones:
        size_px = settings.size_px or TRAINED_SIZE_PX
        file = find_weights(name, choice) if choice.pretrained else None
        for blend in blends:
            shape = shape_of(name, size_px, blend.n_inputs)
            recipe = _recipe(settings, name, size_px, precision, reading, blend, statistics, tap=shape.tap)
            if file is not None:
                recipe = dataclasses.replace(
                    recipe, weights_sha256=_sha256_once(file, file.stat().st_size, file.stat().st_mtime_ns)
                )
                key: Hashable = (name, size_px, blend.n_inputs)
                build: Callable[[], Backbone] = functools.partial(_from_file, name, size_px, blend.n_inputs, file)
            else:
                backbone, sha256 = random_backbone(recipe, settings.out, functools.partial(calibration, recipe))
                recipe = dataclasses.replace(recipe, weights_sha256=sha256)
                key, build = (name, blend), functools.partial(_built, backbone)
            label = f"{name}:{blend.label}" if blend.label else name
            block = Block(name=label, start=start, columns=shape.columns, recipe=recipe)
            networks.append(Network(block=block, file=file, key=key, build=build))
            start = block.stop
    return tuple(networks)


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
        mean, std = (
            tuple(values[place % 3] for place in range(blend.n_inputs)) for values in (IMAGENET_MEAN, IMAGENET_STD)
        )
    return Recipe(
        backbone=name,
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
        first_layer=f"weights repeated over {blend.n_inputs} channels, times 3/{blend.n_inputs}"
        if blend.is_widened and blend.n_inputs != 3
        else "",
    )


_UNKNOWN = "0" * 64
