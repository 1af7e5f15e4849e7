"""What tests of views compare with: every term written down once more, slowly, one after the other, without torch."""

from __future__ import annotations

import hashlib
import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from featurize.views.augmentation import Augmentation

NOTHING = {"flip": "none", "rotate": 0.0}
ALONE = {
    "flip": {"flip": "both"},
    "rotate": {"rotate": 30.0},
    "quarter": {"rotate": "quarter"},
    "zoom": {"zoom": (0.5, 2.0)},
    "shift": {"shift": 0.3},
    "skew": {"skew": 30.0},
    "brightness": {"brightness": 0.3},
    "contrast": {"contrast": 0.5},
    "blur": {"blur": (0.3, 2.0)},
    "noise": {"noise": (0.01, 0.1)},
}
GEOMETRIC = ("flip", "rotate", "quarter", "zoom", "shift", "skew")
EVERYTHING = {key: value for name, fields in ALONE.items() if name != "quarter" for key, value in fields.items()}


def augmentation(**fields: object) -> Augmentation:
    """The terms named, and no other."""
    return Augmentation(**(NOTHING | fields))  # type: ignore[arg-type]


def images(n_images: int, n_planes: int = 3, side: int = 24, seed: int = 0) -> NDArray[np.float32]:
    """Smooth pictures within 0.1 and 0.9, so that a coordinate's rounding moves a pixel by little."""
    coarse = np.random.default_rng(seed).random((n_images, n_planes, 6, 6))
    zoomed = ndimage.zoom(coarse, (1, 1, side / 6, side / 6), order=1, mode="reflect", grid_mode=True)
    return (0.1 + 0.8 * zoomed).astype(np.float32)


def source(seed: int, image_id: str, view: int, *term: str) -> np.random.Generator:
    """A stream as the docs describe it."""
    text = "\0".join([str(seed), str(view), image_id, *term]).encode()
    return np.random.Generator(
        np.random.Philox(key=np.frombuffer(hashlib.blake2b(text, digest_size=16).digest(), "<u8"))
    )


def slow_view(image: NDArray[np.float32], terms: Augmentation, seed: int, image_id: str, view: int) -> NDArray:
    """One view of one image, shape (planes, side, side), in float64: a point of the view is followed back to the image."""
    if view == 0:
        return image.astype(np.float64)

    def draw(term: str, low: float, high: float) -> float:
        return source(seed, image_id, view, term).uniform(low, high)

    side = image.shape[-1]
    down, right = np.meshgrid(*[(np.arange(side) + 0.5) / side * 2 - 1] * 2, indexing="ij")
    if terms.shift:
        across, along = source(seed, image_id, view, "shift").uniform(-terms.shift, terms.shift, 2)
        right, down = right - 2 * across, down - 2 * along
    if terms.zoom != (1, 1):
        zoom = math.exp(draw("zoom", math.log(terms.zoom[0]), math.log(terms.zoom[1])))
        right, down = right / zoom, down / zoom
    if terms.skew:
        right = right - math.tan(math.radians(draw("skew", -terms.skew, terms.skew))) * down
    rng = source(seed, image_id, view)
    mirrored_x, mirrored_y, share = rng.random() < 0.5, rng.random() < 0.5, rng.random()
    turn = (
        math.pi / 2 * math.floor(4 * share)
        if terms.rotate == "quarter"
        else (2 * share - 1) * math.radians(terms.rotate)
    )
    right, down = right * math.cos(turn) - down * math.sin(turn), right * math.sin(turn) + down * math.cos(turn)
    right = -right if mirrored_x and terms.flip in {"horizontal", "both"} else right
    down = -down if mirrored_y and terms.flip in {"vertical", "both"} else down
    places = [(down + 1) * side / 2 - 0.5, (right + 1) * side / 2 - 0.5]
    planes = [ndimage.map_coordinates(plane.astype(np.float64), places, order=1, mode="reflect") for plane in image]
    return np.stack([_recoloured(plane, terms, seed, image_id, view, index) for index, plane in enumerate(planes)])


def _recoloured(plane: NDArray, terms: Augmentation, seed: int, image_id: str, view: int, index: int) -> NDArray:
    def draw(term: str, low: float, high: float) -> float:
        return source(seed, image_id, view, term).uniform(low, high)

    active = terms.brightness or terms.contrast or terms.blur[1] or terms.noise[1]
    if terms.brightness:
        plane = plane * draw("brightness", 1 - terms.brightness, 1 + terms.brightness)
    if terms.contrast:
        plane = plane.mean() + (plane - plane.mean()) * draw("contrast", 1 - terms.contrast, 1 + terms.contrast)
    if terms.blur[1]:
        radius = int(4 * terms.blur[1] + 0.5)
        plane = ndimage.gaussian_filter(plane, draw("blur", *terms.blur), mode="reflect", radius=radius)
    if terms.noise[1]:
        fields = source(seed, image_id, view, "noise field").standard_normal(
            (index + 1, *plane.shape), dtype=np.float32
        )
        plane = plane + draw("noise", *terms.noise) * fields[index]
    return plane.clip(0, 1) if active else plane
