"""The networks of a run: their weights found and hashed, their blocks described, the networks built when needed."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from features_cache.errors import WeightsMismatch
from features_cache.recipe import Block, Precision, Recipe
from featurize.augment import AUGMENTATION, FILL
from featurize.backbones import Backbone, build_backbone
from featurize.calibrate import random_backbone
from featurize.decode import DECODING
from featurize.origin import RANDOM, Origin, check_choice, find_origin
from featurize.profile import profile_of
from featurize.settings import FeaturizeSettings
from featurize.shape import shape_of
from featurize.spelling import Spelling
from featurize.state import load_state, sha256_of_state
from featurize.weights import parse_weights, sha256_of


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """One network of a run.

    Parameters
    ----------
    block : Block
        Its columns and their recipe.
    origin : Origin
        Where its weights came from.
    build : callable
        Builds it, on the CPU in float32.
    """

    block: Block
    origin: Origin
    build: Callable[[], Backbone]


def find_networks(
    settings: FeaturizeSettings, precision: Precision, calibration_images: Callable[[], Tensor]
) -> tuple[Network, ...]:
    """Find every network's weights before any is run.

    Parameters
    ----------
    settings : FeaturizeSettings
        Which networks, and which weights.
    precision : {"float32", "bfloat16", "float16"}
        Arithmetic, for the recipes.
    calibration_images : callable
        Gives the images that set the statistics of networks with random weights.

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
        shape = shape_of(name, settings.size_px)
        origin = find_origin(name, choice) if choice.pretrained else RANDOM
        build, sha256 = _builder(name, settings, origin, calibration_images)
        recipe = _recipe(settings, name, sha256, precision, tap=shape.tap, pretrained=choice.pretrained)
        block = Block(name=name, start=start, columns=shape.columns, recipe=recipe)
        networks.append(Network(block=block, origin=origin, build=build))
        start += shape.columns
    return tuple(networks)


def _builder(
    name: str, settings: FeaturizeSettings, origin: Origin, calibration_images: Callable[[], Tensor]
) -> tuple[Callable[[], Backbone], str]:
    """Return what builds a network, and the sha256 of its weights."""
    if origin.file is not None:
        found = origin.file.stat()
        sha256 = _sha256_once(origin.file, found.st_size, found.st_mtime_ns)
        return functools.partial(_from_file, name, settings.size_px, origin.file), sha256
    if origin is RANDOM:
        backbone, sha256 = random_backbone(name, settings, calibration_images)
    else:
        backbone = build_backbone(name, settings.size_px, None)
        sha256 = sha256_of_state(backbone.state_dict())
    return functools.partial(_built, backbone), sha256


@functools.cache
def _sha256_once(file: Path, _n_bytes: int, _mtime_ns: int) -> str:
    return sha256_of(file)


def _built(backbone: Backbone) -> Backbone:
    return backbone


def _from_file(name: str, size_px: int, file: Path) -> Backbone:
    try:
        return build_backbone(name, size_px, load_state(file))
    except WeightsMismatch as error:
        msg = f"{file}: {error}" if str(file) not in str(error) else str(error)
        raise WeightsMismatch(msg) from error


def _recipe(
    settings: FeaturizeSettings, name: str, sha256: str, precision: Precision, *, tap: str, pretrained: bool
) -> Recipe:
    profile = profile_of(name)
    return Recipe(
        backbone=Spelling.parse(name).network,
        weights_sha256=sha256,
        pretrained=pretrained,
        tap=tap,
        size_px=settings.size_px,
        interpolation="bilinear, antialias",
        fill=FILL,
        mean=profile.mean,
        std=profile.std,
        channels=settings.channels,
        scale=settings.scale,
        augmentation=AUGMENTATION,
        seed=settings.seed,
        precision=precision,
        storage=settings.storage,
        decoding=DECODING,
    )
