"""Cells drawn with known outlines: uneven light, noise, three magnifications, apart or sharing a part of their border."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Labels = NDArray[np.int32]
LEAST_SHARE, MOST_SHARE = 0.1, 0.3
"""Of its border, what a cell shares with its neighbours in a picture of touching cells."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A picture and what is true of it.

    Parameters
    ----------
    planes : float32 array, shape (height, width, n_channels)
        In [0, 1]: the nucleus, and where cells have bodies microtubules and endoplasmic reticulum.
    nuclei, cells : int32 array, shape (height, width)
        0 background; a nucleus has its cell's number. The same array where cells have no bodies.
    """

    planes: NDArray[np.float32]
    nuclei: Labels
    cells: Labels


def draw(
    seed: int,
    *,
    n_cells: int,
    nucleus_px: float,
    touching: bool = False,
    bodies: bool = True,
    photons: float = 120.0,
    side_px: int = 0,
) -> Drawn:
    """Draw cells that are apart, or of which each shares 10 to 30 % of its border with others.

    Parameters
    ----------
    seed : int
    n_cells : int
        One more where touching ones leave no other way.
    nucleus_px : float
        Typical diameter of a nucleus; a cell's is twice that.
    touching : bool
        Whether cells touch (nuclei, where cells have no bodies).
    bodies : bool
        Whether there are microtubules and ER, or nuclei alone.
    photons : float
        At the brightest; the fewer, the noisier.
    side_px : int
        Of the picture; of a size in which cells cover about a quarter, unless given.

    Returns
    -------
    Drawn
    """
    rng = np.random.default_rng(seed)
    radius = nucleus_px * (1.0 if bodies else 0.5)
    side = side_px or int(np.sqrt(n_cells * np.pi * radius**2 / 0.22) + 2 * radius)
    cells = _touching(rng, n_cells, radius, side) if touching else _apart(rng, n_cells, radius, side)
    nuclei = _nuclei_in(rng, cells, nucleus_px / 2) if bodies else cells
    planes = [_nucleus_plane(rng, nuclei, nucleus_px)]
    if bodies:
        planes += [_filaments(rng, cells, nuclei, nucleus_px), _grains(rng, cells, nuclei, nucleus_px)]
    taken = [_photographed(rng, plane, photons, nucleus_px) for plane in planes]
    return Drawn(planes=np.stack(taken, axis=2), nuclei=nuclei, cells=cells)


def empty(seed: int, side_px: int = 256, photons: float = 120.0, n_channels: int = 1) -> NDArray[np.float32]:
    """Photograph nothing: background, uneven light and noise."""
    rng = np.random.default_rng(seed)
    dark = np.zeros((side_px, side_px))
    return np.stack([_photographed(rng, dark, photons, side_px / 10) for _ in range(n_channels)], axis=2)


def shared_border(labels: Labels) -> dict[int, float]:
    """Measure of each cell the share of its border pixels that have another cell beside them."""
    padded = np.pad(labels, 1)
    sides = [np.roll(padded, step, axis)[1:-1, 1:-1] for axis in (0, 1) for step in (1, -1)]
    on_border = (labels > 0) & np.any([side != labels for side in sides], axis=0)
    shared = on_border & np.any([(side != labels) & (side > 0) for side in sides], axis=0)
    n_border = np.bincount(labels[on_border], minlength=labels.max() + 1)
    n_shared = np.bincount(labels[shared], minlength=labels.max() + 1)
    return {int(label): float(n_shared[label] / n_border[label]) for label in np.flatnonzero(n_border)}


def n_found(found: Labels, true: Labels, least_iou: float = 0.7) -> int:
    """Count the true cells that one found cell covers with at least this intersection over union (above 0.5 it is one)."""
    together = np.zeros((true.max() + 1, found.max() + 1), np.int64)
    np.add.at(together, (true.ravel(), found.ravel()), 1)
    union = together.sum(1)[:, None] + together.sum(0)[None, :] - together
    return int((together[1:, 1:] / np.maximum(union[1:, 1:], 1) >= least_iou).sum())


class _Blob:
    """An ellipse with dents, about the origin."""

    def __init__(self, rng: np.random.Generator) -> None:
        orders = np.arange(2, 6)
        amplitudes = rng.uniform(0, 1, 4) * np.array([0.20, 0.06, 0.05, 0.03])
        phases = rng.uniform(0, 2 * np.pi, 4)
        self._angles = np.linspace(-np.pi, np.pi, 361)
        waves = amplitudes[:, None] * np.cos(orders[:, None] * self._angles + phases[:, None])
        self._radii = rng.lognormal(0, 0.15) * (1 + waves.sum(0))
        self.radius = float(self._radii.mean())
        self._reach = float(self._radii.max())

    def depth(
        self, row: float, column: float, radius: float, side: int
    ) -> tuple[tuple[slice, slice], NDArray[np.float64]]:
        """Return the part of a picture that is reached, and how far out it lies: 0 at the centre, 1 on the border."""
        reach = int(np.ceil(1.2 * self._reach * radius)) + 1
        spans = [slice(max(0, int(at) - reach), max(0, min(side, int(at) + reach + 2))) for at in (row, column)]
        rows, columns = np.mgrid[spans[0], spans[1]].astype(np.float64) - np.array([row, column])[:, None, None]
        border = radius * np.interp(np.arctan2(rows, columns), self._angles, self._radii)
        return (spans[0], spans[1]), np.hypot(rows, columns) / border


Spots = list[tuple[_Blob, float, float]]


def _apart(rng: np.random.Generator, n_cells: int, radius: float, side: int) -> Labels:
    cells = np.zeros((side, side), np.int32)
    gap = max(2.0, 0.1 * radius) / radius
    for _ in range(n_cells * 2000):
        if cells.max() == n_cells:
            return cells
        blob = _Blob(rng)
        row, column = rng.uniform(0.3 * radius, side - 0.3 * radius, 2)
        window, depth = blob.depth(row, column, radius, side)
        if not cells[window][depth <= 1 + 1.3 * gap / blob.radius].any():
            cells[window][depth <= 1] = cells.max() + 1
    msg = f"{n_cells} cells do not fit into {side} px"
    raise ValueError(msg)


def _touching(rng: np.random.Generator, n_cells: int, radius: float, side: int) -> Labels:
    """Put clusters of two to five cells into a picture."""
    cells = np.zeros((side, side), np.int32)
    placed = 0
    for _ in range(n_cells * 300):
        if placed >= n_cells:
            return cells
        cluster = _rendered(_cluster(rng, min(int(rng.integers(2, 6)), max(2, n_cells - placed))), radius)
        row, column = rng.integers(-len(cluster) // 4, side - len(cluster) * 3 // 4, 2)
        rows, columns = (slice(max(0, at), min(side, at + len(cluster))) for at in (row, column))
        part = cluster[rows.start - row : rows.stop - row, columns.start - column : columns.stop - column]
        taken = ndimage.binary_dilation(part > 0, iterations=4) & (cells[rows, columns] > 0)
        if not taken.any() and _sound(part, int(cluster.max())):
            cells[rows, columns][part > 0] = part[part > 0] + placed
            placed += int(cluster.max())
    msg = f"{n_cells} touching cells do not fit into {side} px"
    raise ValueError(msg)


def _cluster(rng: np.random.Generator, n_cells: int) -> Spots:
    """Grow a cluster of cells of radius 1; give up on more cells than fit."""
    spots: Spots = [(_Blob(rng), 0.0, 0.0)]
    most = rng.uniform(
        LEAST_SHARE + 0.1, MOST_SHARE
    )  # without a limit of its own, nearly every cell would share the most
    for _ in range(300):
        if len(spots) == n_cells:
            break
        blob, (beside, row, column) = _Blob(rng), spots[int(rng.integers(len(spots)))]
        angle, away = rng.uniform(-np.pi, np.pi), rng.uniform(0.55, 1) * (beside.radius + blob.radius)
        more = [*spots, (blob, row + away * np.sin(angle), column + away * np.cos(angle))]
        if _sound(_rendered(more, 14), len(more), most):
            spots = more
    return spots


def _rendered(spots: Spots, radius: float) -> Labels:
    """Fill a square with a cluster; where two cells overlap, each keeps what lies deeper in it."""
    places = np.array([(row, column) for _, row, column in spots]) * radius
    low = places.min(0) - 2 * radius
    side = int((places.max(0) - low).max() + 2 * radius)
    cells, depths = np.zeros((side, side), np.int32), np.full((side, side), np.inf)
    for label, ((blob, _, _), (row, column)) in enumerate(zip(spots, places - low, strict=True), 1):
        window, depth = blob.depth(row, column, radius, side)
        inside = (depth <= 1) & (depth < depths[window])
        cells[window][inside], depths[window][inside] = label, depth[inside]
    return cells


def _sound(cells: Labels, n_cells: int, most: float = MOST_SHARE) -> bool:
    """Whether every cell is in one piece and shares neither too little nor too much of its border."""
    shares = shared_border(cells)
    if len(shares) != n_cells or not all(LEAST_SHARE <= share <= most for share in shares.values()):
        return False
    boxes = ndimage.find_objects(cells)
    return all(ndimage.label(cells[box] == label)[1] == 1 for label, box in enumerate(boxes, 1))


def _nuclei_in(rng: np.random.Generator, cells: Labels, radius: float) -> Labels:
    nuclei = np.zeros_like(cells)
    side = len(cells)
    for label, box in enumerate(ndimage.find_objects(cells), 1):
        own = np.zeros_like(cells, bool)
        depth_px = ndimage.distance_transform_edt(np.pad(cells[box] == label, 1))[1:-1, 1:-1]
        own[box] = depth_px > max(1.5, 0.12 * radius)
        row, column = np.argwhere(own).mean(0) + rng.normal(0, 0.1 * radius, 2)
        window, depth = _Blob(rng).depth(row, column, radius, side)
        nuclei[window][(depth <= 1) & own[window]] = label
    return nuclei


def _texture(rng: np.random.Generator, shape: tuple[int, ...], grain_px: float) -> NDArray[np.float64]:
    """Draw smooth noise of mean 0 and deviation 1."""
    noise = ndimage.gaussian_filter(rng.normal(size=shape), grain_px)
    return (noise - noise.mean()) / noise.std()


def _levels(rng: np.random.Generator, labels: Labels, spread: float) -> NDArray[np.float64]:
    """Give each cell a brightness of its own, and the background none."""
    return np.concatenate([[0.0], rng.lognormal(0, spread, labels.max())])[labels]


def _nucleus_plane(rng: np.random.Generator, nuclei: Labels, nucleus_px: float) -> NDArray[np.float64]:
    chromatin = 1 + 0.18 * _texture(rng, nuclei.shape, nucleus_px / 14)
    return _levels(rng, nuclei, 0.3) * np.clip(chromatin, 0.3, None)


def _falloff(cells: Labels, nuclei: Labels, nucleus_px: float) -> NDArray[np.float64]:
    """Return how bright a body is by its distance from the nucleus: 1 beside it, about 0.4 at the border."""
    away = ndimage.distance_transform_edt(nuclei == 0) / nucleus_px
    return (cells > 0) * (0.3 + 0.7 * np.exp(-1.5 * away))


def _filaments(rng: np.random.Generator, cells: Labels, nuclei: Labels, nucleus_px: float) -> NDArray[np.float64]:
    ridges = np.exp(-(np.abs(_texture(rng, cells.shape, nucleus_px / 10)) / 0.3))
    inside = np.where(nuclei > 0, 0.6, 1.0)
    return _levels(rng, cells, 0.25) * _falloff(cells, nuclei, nucleus_px) * (0.55 + 0.8 * ridges) * inside


def _grains(rng: np.random.Generator, cells: Labels, nuclei: Labels, nucleus_px: float) -> NDArray[np.float64]:
    grains = np.clip(1 + 0.35 * _texture(rng, cells.shape, nucleus_px / 16), 0.2, None)
    inside = np.where(nuclei > 0, 0.35, 1.0)
    return _levels(rng, cells, 0.25) * _falloff(cells, nuclei, nucleus_px) * grains * inside


def _photographed(
    rng: np.random.Generator, plane: NDArray[np.float64], photons: float, nucleus_px: float
) -> NDArray[np.float32]:
    """Blur by the lens, light unevenly (down to half, and a slope), add background, count photons, read out, store in 8 bits."""
    side = len(plane)
    rows, columns = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    angle, row, column = rng.uniform(-np.pi, np.pi), *rng.uniform(-0.5, 0.5, 2)
    vignette = 1 - 0.5 * np.clip(((rows - row) ** 2 + (columns - column) ** 2) / 2, 0, 1)
    slope = 0.06 * (1 + rows * np.sin(angle) + columns * np.cos(angle))
    seen = ndimage.gaussian_filter(plane, max(0.7, nucleus_px / 30)) * vignette * 0.4 + 0.06 * vignette + slope
    counted = rng.poisson(np.clip(seen, 0, None) * photons) / photons + rng.normal(0, 2 / photons, plane.shape)
    return (np.clip(np.round(counted * 255), 0, 255) / 255).astype(np.float32)
