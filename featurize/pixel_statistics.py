"""Mean and standard deviation of the data set's own pixels: of all training images and of no other, and frozen from then on."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from features_cache.errors import ImagesMissing
from features_cache.progress import Progress, silent
from features_cache.recipe import Recipe
from featurize.images.bad_image import BadImage
from featurize.images.blends import NONE, Blend
from featurize.images.channels import load_image
from featurize.images.manifest import Manifest
from featurize.images.reading import Reading
from featurize.views.geometry import Square, as_planes, square_of, to_square

_LEAST_STD = 1e-6
Moments = tuple[float, float]


def plane_statistics(
    manifest: Manifest, reading: Reading, squares: Collection[Square], *, n_workers: int, progress: Progress = silent
) -> dict[tuple[Square, str], Moments]:
    """Compute the mean and the standard deviation of each plane over the pixels of all images, which count the same.

    Parameters
    ----------
    manifest : Manifest
        The training images; those that cannot be read are left out.
    reading : Reading
    squares : collection of Square
        What the images are fitted into before: pixels as the networks see them.
    n_workers : int
        Threads that read.
    progress : callable
        Told ``"statistics"``, how many images were read, and how many there are.

    Returns
    -------
    dict of (Square, str) to (float, float)
        Mean and standard deviation in units of [0, 1], by square and plane; the deviation at least 1e-6.

    Raises
    ------
    ImagesMissing
        If no image can be read.
    """

    def moments(row: int) -> NDArray[np.float64] | None:
        try:
            pixels = load_image(manifest.root, manifest.sources[row], reading).pixels
        except BadImage:
            return None  # told, counted and listed when its row is computed
        fitted = (to_square(as_planes(pixels), square).double() for square in squares)
        return np.stack(
            [np.stack([planes.mean((1, 2)).numpy(), (planes**2).mean((1, 2)).numpy()]) for planes in fitted]
        )

    n_images = len(manifest.ids)
    total = np.zeros((len(squares), 2, len(reading.planes)))
    n_read = 0
    with ThreadPoolExecutor(n_workers) as pool:
        # In the order of the images: the sum's last bits do not depend on the threads.
        for first in range(0, n_images, _AHEAD):
            for found in pool.map(moments, range(first, min(first + _AHEAD, n_images))):
                if found is not None:
                    total += found
                    n_read += 1
            progress("statistics", min(first + _AHEAD, n_images), n_images)
    if not n_read:
        msg = f"{manifest.root}: none of {n_images} images can be read; --normalise dataset needs at least one"
        raise ImagesMissing(msg)
    mean, square = np.moveaxis(total / n_read, 1, 0)
    std = np.sqrt(np.maximum(square - mean**2, _LEAST_STD**2))
    return {
        (wanted, plane): (float(mean[row, column]), float(std[row, column]))
        for row, wanted in enumerate(squares)
        for column, plane in enumerate(reading.planes)
    }


_AHEAD = 256


def frozen_statistics(recipes: Iterable[Recipe], reading: Reading) -> dict[tuple[Square, str], Moments]:
    """Return the statistics that recipes hold already, by square and plane, as far as these were read alike."""
    return {
        (square_of(recipe), plane): (mean, std)
        for recipe in recipes
        if recipe.statistics == "dataset" and (recipe.scale, recipe.frame) == (reading.scale.text, reading.frame)
        for plane, mean, std in zip(
            _planes_of(recipe.channels, len(recipe.mean), reading), recipe.mean, recipe.std, strict=True
        )
        if plane != NONE
    }


def blend_statistics(
    known: Mapping[tuple[Square, str], Moments], blend: Blend, square: Square, reading: Reading
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel of a network's input; 0 and 1 for one of zeros."""
    names = _planes_of(blend.channels, blend.n_inputs, reading)
    pairs = [(0.0, 1.0) if name == NONE else known[square, name] for name in names]
    return tuple(mean for mean, _ in pairs), tuple(std for _, std in pairs)


def _planes_of(channels: Sequence[str], n_inputs: int, reading: Reading) -> tuple[str, ...]:
    named = tuple(channels) or reading.planes
    return named * n_inputs if len(named) == 1 else named
