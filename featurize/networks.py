"""The networks of a run: their weights found and hashed, their blocks described, the networks built when needed."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from features_cache.errors import OptionError, WeightsMismatch, did_you_mean
from features_cache.recipe import Block, Precision, Recipe
from featurize.augment import FILL
from featurize.backbones import IMAGENET_MEAN, IMAGENET_STD, Backbone, build_backbone, shape_of
from featurize.calibrate import random_backbone
from featurize.decode import DECODING
from featurize.settings import FeaturizeSettings
from featurize.weights import find_weights, load_state, parse_weights, sha256_of


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """One network of a run.

    Parameters
    ----------
    block : Block
        Its columns and their recipe.
    file : Path or None
        Its weights; None where they are random.
    build : callable
        Builds it, on the CPU in float32.
    """

    block: Block
    file: Path | None
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
    for name, _ in choice.files:
        if name not in settings.backbones:
            msg = f"--weights {name}=FILE: no such network in --backbone{did_you_mean(name, settings.backbones)}"
            raise OptionError(msg)
    networks: list[Network] = []
    start = 0
    for name in settings.backbones:
        shape = shape_of(name, settings.size_px)
        file: Path | None
        build: Callable[[], Backbone]
        if choice.pretrained:
            found = file = find_weights(name, choice)
            sha256 = _sha256_once(found, found.stat().st_size, found.stat().st_mtime_ns)
            build = functools.partial(_from_file, name, settings.size_px, found)
        else:
            file = None
            backbone, sha256 = random_backbone(name, settings, calibration_images)
            build = functools.partial(_built, backbone)
        recipe = _recipe(settings, name, sha256, precision, tap=shape.tap, pretrained=choice.pretrained)
        networks.append(
            Network(block=Block(name=name, start=start, columns=shape.columns, recipe=recipe), file=file, build=build)
        )
        start += shape.columns
    return tuple(networks)


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
    return Recipe(
        backbone=name,
        weights_sha256=sha256,
        pretrained=pretrained,
        tap=tap,
        size_px=settings.size_px,
        interpolation="bilinear, antialias",
        fill=FILL,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        channels=settings.channels,
        scale=settings.scale,
        augmentation=settings.augmentation.terms,
        seed=settings.seed,
        precision=precision,
        storage=settings.storage,
        decoding=DECODING,
    )
