"""What a run takes from the pixels of the training images before it begins: the data set's statistics, and calibration inputs."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import torch
from torch import Tensor

from features_cache.errors import ImagesMissing, OptionError
from features_cache.progress import Progress
from features_cache.recipe import Recipe
from featurize.backbones.calibrate import CALIBRATION_IMAGES
from featurize.images.bad_image import BadImage
from featurize.images.blends import NONE, Blend
from featurize.images.channels import load_image
from featurize.images.manifest import Manifest
from featurize.images.reading import Reading
from featurize.networks import Statistics
from featurize.pixel_statistics import Moments, blend_statistics, frozen_statistics, plane_statistics
from featurize.settings import FeaturizeSettings
from featurize.there import recipes_there
from featurize.views.geometry import Square, as_planes, square_of, to_square
from featurize.views.inputs import NetworkInput


def dataset_statistics(
    settings: FeaturizeSettings, manifests: Mapping[str, Manifest], reading: Reading, progress: Progress
) -> Statistics:
    """Give the data set's statistics: those that were frozen, or else computed when they are first asked for.

    Parameters
    ----------
    settings : FeaturizeSettings
    manifests : mapping of str to Manifest
        The images of each split; only the training images' pixels are looked at.
    reading : Reading
        How they are read.
    progress : callable
        Told while they are read.

    Returns
    -------
    callable
        From a blend and a square to mean and standard deviation of each channel of a network's input. It raises ImagesMissing
        where there are no training images to take them from.
    """
    frozen = {} if settings.overwrite else frozen_statistics(recipes_there(settings), reading)

    @functools.cache
    def computed(square: Square) -> dict[tuple[Square, str], Moments]:
        train = settings.splits[0]
        if settings.limit is not None:
            msg = (
                f"--normalise dataset with --limit {settings.limit}: the statistics of these few would be kept for all; expected those of "
                f"all training images. Leave --limit out, or try with --normalise imagenet"
            )
            raise OptionError(msg)
        if train not in manifests:
            msg = "--normalise dataset takes the statistics of the training images; featurize these first, or with the test images"
            raise ImagesMissing(msg)
        return plane_statistics(manifests[train], reading, [square], n_workers=settings.n_readers, progress=progress)

    def statistics(blend: Blend, square: Square) -> tuple[tuple[float, ...], tuple[float, ...]]:
        needed = (set(blend.channels) or set(reading.planes)) - {NONE}
        known = frozen if all((square, plane) in frozen for plane in needed) else computed(square) | frozen
        return blend_statistics(known, blend, square, reading)

    return statistics


def calibration_inputs(recipe: Recipe, manifests: Mapping[str, Manifest], reading: Reading) -> Tensor:
    """Read the first training images that can be read (of the test images, where there are no others), as a network sees them."""
    manifest = next(iter(manifests.values()))
    images: list[Tensor] = []
    reasons: dict[str, str] = {}
    for sources in manifest.sources:
        if len(images) == CALIBRATION_IMAGES:
            break
        try:
            images.append(to_square(as_planes(load_image(manifest.root, sources, reading).pixels), square_of(recipe)))
        except BadImage as error:
            reasons.setdefault(error.reason, sources[0].path)  # told, counted and listed when its row is computed
    if not images:
        shown = "".join(f"\n  {path}: {reason}" for reason, path in list(reasons.items())[:5])
        msg = f"{manifest.root}: none of {len(manifest.ids)} images can be read; expected one at least. Mend them, or how they are read:{shown}"
        raise ImagesMissing(msg)
    return NetworkInput(recipe, reading.planes, torch.device("cpu")).of(torch.stack(images))[0]
