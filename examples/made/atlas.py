"""Drawn cells in the form of the Human Protein Atlas: four grey planes, the green one tells where a protein is.

Red shows microtubules, blue nuclei, yellow the endoplasmic reticulum; they look the same whatever the labels are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float64]

CHANNELS = ("red", "green", "blue", "yellow")


class Place(NamedTuple):
    """Where a protein is: a zone of the cell, its texture there, and how many spots of which size (in radii of the nucleus)."""

    zone: str
    texture: str
    n_spots: int = 0
    spot: float = 0.0


PLACES = {
    "nucleoplasm": Place("nucleus", "smooth"),
    "nuclear membrane": Place("envelope", "smooth"),
    "nucleoli": Place("nucleus", "spots", 3, 0.28),
    "nucleoli fibrillar center": Place("nucleus", "spots", 7, 0.1),
    "nuclear speckles": Place("nucleus", "grains"),
    "nuclear bodies": Place("nucleus", "spots", 2, 0.14),
    "endoplasmic reticulum": Place("near", "mesh"),
    "golgi apparatus": Place("beside", "grains"),
    "peroxisomes": Place("cytosol", "spots", 40, 0.06),
    "endosomes": Place("cytosol", "spots", 14, 0.1),
    "lysosomes": Place("near", "spots", 10, 0.12),
    "intermediate filaments": Place("near", "fibres"),
    "actin filaments": Place("cytosol", "fibres"),
    "focal adhesion sites": Place("border", "spots", 14, 0.12),
    "microtubules": Place("cytosol", "microtubules"),
    "microtubule ends": Place("border", "spots", 30, 0.06),
    "cytokinetic bridge": Place("border", "spots", 1, 0.3),
    "mitotic spindle": Place("nucleus", "fibres"),
    "microtubule organizing center": Place("beside", "spots", 3, 0.1),
    "centrosome": Place("beside", "spots", 1, 0.12),
    "lipid droplets": Place("cytosol", "spots", 20, 0.15),
    "plasma membrane": Place("border", "smooth"),
    "cell junctions": Place("border", "fibres"),
    "mitochondria": Place("cytosol", "grains"),
    "aggresome": Place("beside", "smooth"),
    "cytosol": Place("cytosol", "smooth"),
    "cytoplasmic bodies": Place("cytosol", "spots", 4, 0.12),
    "rods and rings": Place("cytosol", "spots", 2, 0.25),
    "vesicles": Place("cytosol", "spots", 25, 0.08),
    "negative": Place("nowhere", "smooth"),
}
CLASSES_2018 = tuple(PLACES)[:28]
CLASSES_OF_CELLS = (
    *CLASSES_2018[:8],
    *("intermediate filaments", "actin filaments", "microtubules", "mitotic spindle", "centrosome"),
    *("plasma membrane", "mitochondria", "aggresome", "cytosol", "vesicles", "negative"),
)


class Textures(NamedTuple):
    """What fills zones, over a whole image: no unit, mean about 1."""

    grains: Array
    mesh: Array
    fibres: Array
    microtubules: Array


class Cell:
    """How far out each pixel lies in a cell and in its nucleus: 0 at the centre, 1 at the outline."""

    def __init__(
        self, rng: np.random.Generator, centre: Array, cell_px: float, nucleus_px: float, side_px: int
    ) -> None:
        rows, columns = np.mgrid[:side_px, :side_px] - centre[:, None, None]
        angle, away = np.arctan2(rows, columns), np.hypot(rows, columns)
        phase = rng.uniform(-np.pi, np.pi, 3)
        wobble = 1 + 0.1 * np.cos(2 * angle + phase[0]) + 0.06 * np.cos(3 * angle + phase[1])
        self.depth: Array = away / (cell_px * wobble)
        self.nucleus_depth: Array = away / (nucleus_px * (1 + 0.12 * np.cos(2 * angle + phase[2])))
        self.body: Array = np.clip((1 - self.depth) * cell_px + 0.5, 0, 1)
        self.nucleus: Array = np.clip((1 - self.nucleus_depth) * nucleus_px + 0.5, 0, 1)
        self.nucleus_px = nucleus_px
        at = centre + 1.5 * nucleus_px * np.array([np.sin(phase[1]), np.cos(phase[1])])
        beside = np.hypot(*(np.mgrid[:side_px, :side_px] - at[:, None, None])) / nucleus_px
        around = self.body * (1 - self.nucleus)
        self.zones: dict[str, Array] = {
            "nucleus": self.nucleus,
            "envelope": np.exp(-(((self.nucleus_depth - 1) / 0.12) ** 2)),
            "near": around * np.exp(-(((self.nucleus_depth - 1) / 0.6) ** 2)),
            "cytosol": around,
            "border": np.exp(-(((self.depth - 0.93) / 0.06) ** 2)),
            "beside": around * np.exp(-((beside / 0.5) ** 2)),
            "nowhere": np.zeros_like(away),
        }

    def fill(self, rng: np.random.Generator, place: Place, textures: Textures) -> Array:
        """Draw a protein in this cell; shape (side_px, side_px), no unit."""
        zone = self.zones[place.zone]
        if place.texture == "smooth":
            return zone
        if place.texture != "spots":
            return np.asarray(zone * getattr(textures, place.texture))
        seen = np.zeros_like(zone)
        # a pixel is chosen as often as the zone covers it; of a cell outside of the image nothing is seen
        share = zone.ravel() / max(float(zone.sum()), 1e-9)
        if share.sum() > 0.5:
            np.add.at(seen.ravel(), rng.choice(zone.size, place.n_spots, p=share / share.sum()), 1.0)
        width_px = max(place.spot * self.nucleus_px, 0.5)
        return np.asarray(ndimage.gaussian_filter(seen, width_px) * 2 * np.pi * width_px**2)


def speckle(rng: np.random.Generator, side_px: int, width_px: float) -> Array:
    """Draw band-passed noise of mean 0 and variance 1, shape (side_px, side_px)."""
    white = rng.standard_normal((side_px, side_px))
    band = ndimage.gaussian_filter(white, width_px) - ndimage.gaussian_filter(white, 2 * width_px)
    return np.asarray(band / band.std())


def draw_planes(
    rng: np.random.Generator, side_px: int, places: Sequence[str], *, most_cells: int = 6
) -> NDArray[np.uint8]:
    """Draw one image: cells beside each other, each of which shows one or more of the image's places, as labels of images are weak.

    Parameters
    ----------
    rng : numpy.random.Generator
    side_px : int
        A cell is a seventh of it in radius.
    places : sequence of str
        Keys of `PLACES`; each is shown by one cell at least.
    most_cells : int

    Returns
    -------
    uint8 array, shape (4, side_px, side_px)
        In the order of `CHANNELS`.
    """
    nucleus_px = side_px / 16 * rng.lognormal(0, 0.08)
    grain_px = max(nucleus_px / 8, 0.6)
    noise = [speckle(rng, side_px, width) for width in (grain_px, 2 * grain_px, 1.5 * grain_px, 1.2 * grain_px)]
    textures = Textures(
        grains=2 * np.maximum(noise[0], 0),
        mesh=2 * np.exp(-((noise[1] / 0.4) ** 2)),
        fibres=2.5 * np.exp(-((noise[2] / 0.25) ** 2)),
        microtubules=2.5 * np.exp(-((noise[3] / 0.25) ** 2)),
    )
    centres = _apart(rng, side_px, 4.4 * nucleus_px, int(rng.integers(3, most_cells + 1)))
    signals = np.zeros((len(CHANNELS), side_px, side_px))
    for place, centre in enumerate(centres):
        cell = Cell(rng, centre, 2.2 * nucleus_px, nucleus_px, side_px)
        fading = cell.zones["cytosol"] * np.exp(-cell.depth)
        shown = {places[place % len(places)], *(name for name in places if rng.random() < 0.5)}
        green = sum((cell.fill(rng, PLACES[name], textures) for name in sorted(shown)), np.zeros_like(fading))
        chromatin = cell.nucleus * (1 + 0.15 * noise[0])
        planes = (fading * (0.6 + textures.microtubules), green, chromatin, fading * (0.8 + 0.5 * textures.mesh))
        signals += np.stack(planes) * rng.lognormal(0, 0.15, len(CHANNELS))[:, None, None]
    light = np.array([150.0, 130.0, 160.0, 150.0]) * rng.lognormal(0, 0.1, len(CHANNELS))
    exposed = 8 + light[:, None, None] * np.stack([ndimage.gaussian_filter(plane, 0.6) for plane in signals])
    seen = exposed + rng.normal(0, 1, exposed.shape) * np.sqrt(exposed / 4)
    pixels: NDArray[np.uint8] = np.clip(np.rint(seen), 0, 255).astype(np.uint8)
    return pixels


def _apart(rng: np.random.Generator, side_px: int, gap_px: float, n_wanted: int) -> list[Array]:
    """Choose up to so many places that are so far apart; the first lies well inside."""
    found = [rng.uniform(0.3 * side_px, 0.7 * side_px, 2)]
    for _ in range(200):
        if len(found) == n_wanted:
            break
        wanted = rng.uniform(0.05 * side_px, 0.95 * side_px, 2)
        if min(float(np.hypot(*(wanted - other))) for other in found) >= gap_px:
            found.append(wanted)
    return found
