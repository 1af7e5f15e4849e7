"""Project folders of drawn cells, as files in any form, and what `cli cells` leaves of them."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from cells_data import Drawn, draw, empty
from numpy.typing import NDArray
from PIL import Image

Write = Callable[[Path, str, NDArray[np.float32]], None]
CHANNELS = ("er", "nucleus", "tubules")
BY_CHANNEL = ("--pattern", "{id}_{channel}.png")
SIDE_PX = 96


def drawn(seed: int, n_cells: int = 4) -> Drawn:
    """A small picture of cells: planes in the order nucleus, tubules, ER."""
    return draw(seed, n_cells=n_cells, nucleus_px=12, side_px=SIDE_PX)


def nothing(seed: int) -> NDArray[np.float32]:
    """A small picture without cells, of three channels."""
    return empty(seed, SIDE_PX, n_channels=3)


def eight_bits(plane: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.rint(plane * 255).astype(np.uint8)


def write_rgb(folder: Path, image_id: str, planes: NDArray[np.float32]) -> None:
    """Blue nuclei, red tubules, green ER, in one PNG."""
    save(folder / f"{image_id}.png", np.stack([eight_bits(planes[..., place]) for place in (1, 2, 0)], axis=2))


def write_grey(folder: Path, image_id: str, planes: NDArray[np.float32]) -> None:
    """Nuclei alone, in a grey PNG."""
    save(folder / f"{image_id}.png", eight_bits(planes[..., 0]))


def write_deep(folder: Path, image_id: str, planes: NDArray[np.float32]) -> None:
    """Nuclei alone, in 16 bits, every value used."""
    save(folder / f"{image_id}.png", np.rint(planes[..., 0] ** 1.1 * 65535).astype(np.uint16))


def write_channels(folder: Path, image_id: str, planes: NDArray[np.float32]) -> None:
    """A grey PNG a channel."""
    for channel, place in zip(CHANNELS, (2, 0, 1), strict=True):
        save(folder / f"{image_id}_{channel}.png", eight_bits(planes[..., place]))


def write_pages(folder: Path, image_id: str, planes: NDArray[np.float32]) -> None:
    """A TIFF of a page a channel: nucleus, tubules, ER."""
    first, *others = (Image.fromarray(eight_bits(planes[..., place])) for place in range(3))
    folder.mkdir(parents=True, exist_ok=True)
    first.save(folder / f"{image_id}.tif", save_all=True, append_images=others)


def save(path: Path, pixels: NDArray[np.generic]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_split(split: str, seeds: Sequence[int], write: Write) -> None:
    """Write images of four cells; of every seed below 0, of none."""
    for number, seed in enumerate(seeds):
        write(Path("data", split), f"{split}{number}", drawn(seed).planes if seed >= 0 else nothing(-seed))


def rows_of(path: str | Path) -> list[dict[str, str]]:
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def all_bytes(folder: str | Path) -> dict[str, bytes]:
    """Every file below a folder, by name: what two runs are compared by."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()
    }
