"""Draw a challenge of the form of S0: nine imbalanced classes of cells, three grey 64 x 64 PNG files a sample.

The cells are drawn, not photographed; their classes are named after their looks. Classes differ in shape and texture
only: each channel is exposed to a brightness that belongs to the image and its plate, never to the class.

    python examples/demo/draw.py demo --train 400 --test 200 --seed 0
"""

import argparse
import csv
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float64]

VERSION = 1  # raised whenever any pixel or label changes: an older drawing must not pass for a newer one
SIDE_PX = 64
CHANNELS = ("nucleus", "microtubules", "er")
PLATES = {"train": tuple(f"P{n:02}" for n in range(1, 9)), "test": tuple(f"P{n:02}" for n in range(9, 13))}
LEVEL, SPREAD = 45, 40  # grey levels: mean of a channel, and its standard deviation
COMMONEST = "cobble"
LIMITS = {"train": 9632, "test": 6869}  # images, S0's own
N_FIRST = 20  # images; the shortest opening of the labels in which every class occurs, with some room
# images a class, of S0's 9,632
COUNTS = {"cobble": 2100, "spindle": 1520, "lobed": 1180, "giant": 1000, "compact": 900}
COUNTS |= {"stellate": 820, "foamy": 780, "whorled": 724, "mottled": 608}
# fmt: off
# Traits of the cells, a row each: of an ordinary cell, then of the nine classes in the order of COUNTS.
TRAITS = {
    #                    ordin  cobbl  spind  lobed  giant  compa  stell  foamy  whorl  mottl
    "cell_px":        (   19,    19,    20,    19,    26,  12.5,    21,    19,    19,    19),  # radius
    "cell_aspect":    (  1.2,  1.05,   2.4,   1.2,   1.2,  1.05,   1.2,   1.2,   1.2,   1.2),  # length over width
    "arms":           (    0,     0,     0,     0,     0,     0,  0.34,     0,     0,     0),  # five processes
    "nucleus_px":     (  8.5,   8.5,   8.5,   8.5,  12.5,   9.4,     7,     7,   8.5,   8.5),  # radius
    "nucleus_aspect": ( 1.15,  1.15,   1.9,  1.15,  1.15,  1.05,  1.15,  1.15,  1.15,  1.15),  # likewise
    "lobes":          (    0,     0,     0,   0.3,     0,     0,     0,     0,     0,     0),  # three lobes
    "bean":           (    0,     0,     0,     0,     0,     0,     0,     0,   0.5,     0),  # one dent
    "grain_px":       (  1.4,   1.4,   1.4,   2.4,   1.4,   1.4,   1.4,   1.4,   1.4,     1),  # width of the chromatin's grain
    "grain":          ( 0.25,   0.1,  0.25,   0.4,  0.15,  0.05,  0.25,   0.2,  0.25,   0.3),  # chromatin
    "nucleoli":       (    2,     2,     2,     0,     6,     0,     2,     2,     1,     0),  # dark spots a nucleus
    "foci":           (    0,     0,     0,     0,     0,     0,     0,     4,     0,    14),  # bright spots a nucleus
    "rim":            (    0,     0,     0,     0,     0,   1.2,     0,     0,     0,     0),  # bright edge of the nucleus
    "filaments":      (   45,    90,    40,    36,    14,    30,    32,    38,    16,    60),  # a cell
    "filament_px":    (   16,    16,    24,    16,    30,    16,    24,    16,    28,     3),  # length
    "curl":           (  0.1,  0.16,  0.02,  0.04,  0.07,   0.1,  0.03,  0.45,  0.06,   0.1),  # radians a pixel
    "turn":           (  0.3,   0.3,   0.3,     0,   0.3,     1,     0,   0.3,     1,   0.3),  # 0 filaments leave the centre, 1 circle it
    "stray":          (  0.5,   1.6,   0.1,   0.2,   0.8,  0.15,  0.12,   1.2,   0.2,   1.6),  # radians about that direction
    "parallel":       (    0,     0,     1,     0,     0,     0,     0,     0,     0,     0),  # 1 all filaments follow the cell's axis
    "bundle_px":      (  0.6,   0.6,   0.6,   0.9,   0.6,   0.6,   1.1,   0.6,   1.3,   0.9),  # width
    "origin":         (  0.5,     1,   0.8,   0.1,   0.8,   0.2,  0.05,   0.7,   0.9,     1),  # start of filaments: 0 the nucleus, 1 anywhere
    "haze":           (  0.3,   0.6,   0.3,     0,     0,   0.8,   0.3,   1.5,     0,     0),  # tubulin outside the filaments
    "cover":          (  0.4,   0.1,   0.9,   0.1,     1,   0.4,   0.1,   0.3,   0.6,     1),  # filaments over the nucleus
    "er_px":          (  1.5,     1,   1.8,   1.5,   1.1,   1.2,   1.5,   1.3,   2.4,     3),  # width of the mesh or the grains
    "sheet":          (  0.4,   0.1,   0.8,   1.2,  0.05,   0.8,   0.8,     1,  0.05,     0),  # smooth part
    "net":            (  0.5,     0,   0.2,     0,   1.2,     0,     0,     0,   1.2,     0),  # mesh
    "granules":       (  0.4,   1.2,     0,     0,     0,   0.6,   0.2,     0,     0,   1.5),  # grains
    "vacuoles":       (    0,     0,     0,     0,     0,     0,     0,     1,     0,     0),  # holes
    "follow":         (  0.2,     0,   0.9,     0,     0,   0.5,   0.8,     0,     0,   0.9),  # ER along the filaments
    "reach":          (  0.7,   1.4,   0.8,  0.45,   1.3,   1.5,  0.35,   1.6,     1,   1.2),  # how far the ER fills the cell
}
# fmt: on
Look = dict[str, float]  # a number for each of TRAITS


class Sample(NamedTuple):
    """One image to draw: its id, the name of its class, and its plate."""

    id: str
    label: str
    plate: str


def rng_of(*words: object) -> np.random.Generator:
    """Make the random generator that belongs to some words, such as a seed and an image's id."""
    return np.random.default_rng(list(hashlib.blake2b("/".join(map(str, words)).encode(), digest_size=16).digest()))


def samples_of(split: str, n_images: int, seed: int) -> list[Sample]:
    """List the images of one half of a challenge; a longer list begins with the shorter one, up to order.

    Parameters
    ----------
    split : str
        ``train`` or ``test``.
    n_images : int
        20 to `LIMITS`; any number keeps the proportions of `COUNTS`.
    seed : int

    Returns
    -------
    list of Sample, sorted by id

    Raises
    ------
    ValueError
        If there are fewer than 20 or more than S0 had.
    """
    if not N_FIRST <= n_images <= LIMITS[split]:
        msg = f"{n_images} {split} images, expected {N_FIRST} to {LIMITS[split]}: choose another --{split}"
        raise ValueError(msg)
    dues = np.concatenate([(np.arange(count) + 0.5) / count for count in COUNTS.values()])
    labels = np.repeat(list(COUNTS), list(COUNTS.values()))[np.argsort(dues, kind="stable")][:n_images]
    samples = []
    for n, label in enumerate(labels):
        name = "s" + hashlib.blake2b(f"{seed}/{split}/{n}".encode(), digest_size=5).hexdigest()  # tells no label
        plate = PLATES[split][int(rng_of(seed, name, "plate").integers(len(PLATES[split])))]
        samples.append(Sample(id=name, label=str(label), plate=plate))
    return sorted(samples, key=lambda sample: sample.id)


@cache
def _blur_matrix(tenths: int) -> Array:
    offsets = np.arange(SIDE_PX)[:, None] - np.arange(SIDE_PX)
    weights = np.exp(-0.5 * (offsets / (tenths / 10)) ** 2)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float64)


def blur(field: Array, width_px: float) -> Array:
    """Blur a field of shape (64, 64) with a Gaussian; the width, in pixels, is rounded to tenths."""
    matrix = _blur_matrix(max(round(width_px * 10), 3))
    return matrix @ field @ matrix.T


def speckle(rng: np.random.Generator, width_px: float) -> Array:
    """Draw band-passed noise of mean 0 and variance about 1, shape (64, 64), whose blobs are `width_px` wide."""
    white = rng.standard_normal((SIDE_PX, SIDE_PX))
    band = blur(white, width_px) - blur(white, 1.8 * width_px)
    return np.asarray(band / band.std())


def splat(x_px: Array, y_px: Array, weights: Array) -> Array:
    """Add weighted points to an empty field of shape (64, 64), each shared among its four pixels."""
    left, top = np.floor(x_px).astype(np.intp), np.floor(y_px).astype(np.intp)
    right, down = x_px - left, y_px - top
    field = np.zeros((SIDE_PX + 2) ** 2)
    for step_x, step_y in ((0, 0), (1, 0), (0, 1), (1, 1)):
        share = weights * np.abs(1 - step_x - right) * np.abs(1 - step_y - down)
        column, row = np.clip(left + step_x, -1, SIDE_PX) + 1, np.clip(top + step_y, -1, SIDE_PX) + 1
        field += np.bincount((row * (SIDE_PX + 2) + column).ravel(), share.ravel(), field.size)
    return field.reshape(SIDE_PX + 2, SIDE_PX + 2)[1:-1, 1:-1]  # the margin took what fell outside


class Field:
    """The cells of one image: where they lie, and each pixel's place in the cell and the nucleus that own it.

    ``x_px, y_px, axis``, shape (n_cells,), are the centres of the nuclei and the directions of the cells in radians.
    ``depth, nucleus_depth``, shape (64, 64), are the distance from the centre over the outline's: 1 at the outline.
    ``body, nucleus``, shape (64, 64), are antialiased masks, 0 to 1.
    """

    def __init__(self, rng: np.random.Generator, look: Look) -> None:
        self.look = look
        self.n_cells = int(rng.choice((1, 2, 3, 4), p=(0.45, 0.3, 0.17, 0.08)))
        zoom = 1.12 * self.n_cells**-0.3 * rng.lognormal(0, 0.05, self.n_cells)
        places = SIDE_PX / 2 + rng.normal(0, 3.5, (1, 2))
        for _ in range(self.n_cells - 1):
            wanted = rng.uniform(4, SIDE_PX - 4, (12, 2))
            gaps = np.linalg.norm(wanted[:, None] - places, axis=2).min(axis=1)
            places = np.vstack([places, wanted[gaps.argmax()]])
        self.x_px, self.y_px = places.T
        self.axis = rng.uniform(-np.pi, np.pi) + rng.normal(0, 0.35, self.n_cells)
        grid = np.arange(SIDE_PX, dtype=np.float64)
        across = grid[None, None, :] - self.x_px[:, None, None]
        along = grid[None, :, None] - self.y_px[:, None, None]
        distance_px = np.hypot(across, along) + 1e-6
        angle = np.arctan2(along, across) - self.axis[:, None, None]
        phase = rng.uniform(-np.pi, np.pi, (4, self.n_cells, 1, 1))
        size = zoom[:, None, None]
        wobble = 1 + 0.06 * np.cos(2 * angle + phase[0]) + 0.05 * np.cos(3 * angle + phase[1])
        cell_px = look["cell_px"] * size * wobble * _ellipse(angle, look["cell_aspect"])
        cell_px = cell_px * (1 + look["arms"] * np.cos(5 * angle + phase[2]))
        depths = distance_px / cell_px
        owner = depths.argmin(axis=0)[None]
        self.depth = np.take_along_axis(depths, owner, 0)[0]
        self.body = _inside(self.depth, np.take_along_axis(cell_px, owner, 0)[0])
        dent = look["bean"] * np.exp(-((1 - np.cos(angle + phase[3])) * 3))
        nucleus_px = look["nucleus_px"] * size * (1 + look["lobes"] * np.cos(3 * angle + phase[3]) - dent)
        nucleus_px = nucleus_px * _ellipse(angle, look["nucleus_aspect"]) * (0.5 + 0.5 * wobble)
        nucleus_depths = distance_px / nucleus_px
        self.nucleus_depth = nucleus_depths.min(axis=0)
        self.nucleus = _inside(nucleus_depths, nucleus_px).max(axis=0)


def _ellipse(angle: Array, aspect: float) -> Array:
    return np.asarray(1 / np.sqrt(np.cos(angle) ** 2 / aspect + np.sin(angle) ** 2 * aspect))


def _inside(depth: Array, outline_px: Array) -> Array:
    return np.clip((1 - depth) * outline_px + 0.5, 0, 1)


def draw_nucleus(rng: np.random.Generator, field: Field) -> Array:
    """Draw the chromatin of all nuclei, with grain, nucleoli, foci and rim; shape (64, 64), no unit."""
    look = field.look
    rim = np.exp(-(((field.nucleus_depth - 0.85) / 0.15) ** 2))
    chromatin = 1 + look["grain"] * speckle(rng, look["grain_px"]) + look["rim"] * rim
    for spot, amplitude, width_px, spread in (("nucleoli", -5.0, 1.3, 0.6), ("foci", 4.0, 0.8, 0.8)):
        cell = np.repeat(np.arange(field.n_cells), rng.poisson(look[spot], field.n_cells))
        angle = rng.uniform(-np.pi, np.pi, cell.size)
        radius_px = spread * look["nucleus_px"] * np.sqrt(rng.random(cell.size))
        x_px, y_px = field.x_px[cell] + radius_px * np.cos(angle), field.y_px[cell] + radius_px * np.sin(angle)
        chromatin = chromatin + amplitude * blur(splat(x_px, y_px, rng.uniform(0.7, 1.3, cell.size)), width_px)
    return np.asarray(field.nucleus * np.maximum(chromatin, 0.1))


def draw_microtubules(rng: np.random.Generator, field: Field) -> Array:
    """Draw filaments that start about the nuclei and end at the cell's outline; shape (64, 64), no unit."""
    look = field.look
    shape = (field.n_cells, max(round(look["filaments"]), 1), 1)
    start_angle = rng.uniform(-np.pi, np.pi, shape)
    inner_px = 0.9 * look["nucleus_px"]
    start_px = inner_px + look["origin"] * (look["cell_px"] - inner_px) * rng.random(shape)
    axis = field.axis[:, None, None]
    stretch = np.sqrt(look["cell_aspect"])
    ahead, aside = start_px * np.cos(start_angle) * stretch, start_px * np.sin(start_angle) / stretch
    x_px, y_px = ahead * np.cos(axis) - aside * np.sin(axis), ahead * np.sin(axis) + aside * np.cos(axis)
    side = rng.choice((-1.0, 1.0), shape)
    turned = np.arctan2(y_px, x_px) + side * look["turn"] * np.pi / 2
    heading = np.where(rng.random(shape) < look["parallel"], axis + (side > 0) * np.pi, turned)
    step_px = 0.7
    n_steps = max(int(look["filament_px"] / step_px), 4)
    circling = side * look["turn"] * (1 - look["parallel"]) / np.maximum(start_px, 4)
    bend = rng.normal(0, look["curl"], shape) + rng.normal(0, look["curl"], (*shape[:2], n_steps)) + circling
    heading = heading + rng.normal(0, look["stray"], shape) + np.cumsum(bend * step_px, axis=2)
    x_px = field.x_px[:, None, None] + x_px + np.cumsum(step_px * np.cos(heading), axis=2)
    y_px = field.y_px[:, None, None] + y_px + np.cumsum(step_px * np.sin(heading), axis=2)
    lines = blur(splat(x_px, y_px, np.broadcast_to(rng.uniform(0.4, 1.6, shape), x_px.shape)), look["bundle_px"])
    return np.asarray((lines + look["haze"] * lines.mean()) * field.body * (1 - (1 - look["cover"]) * field.nucleus))


def draw_er(rng: np.random.Generator, field: Field, filaments: Array) -> Array:
    """Draw the endoplasmic reticulum: mesh, grains and vacuoles that thin out from the nucleus; shape (64, 64), no unit."""
    look = field.look
    mesh = np.exp(-((speckle(rng, 1.5 * look["er_px"]) / 0.45) ** 2))
    grains = np.maximum(speckle(rng, look["er_px"]), 0)
    sheet = 0.1 + look["sheet"] + look["net"] * mesh + look["granules"] * grains
    sheet = sheet * np.maximum(1 - look["follow"] + look["follow"] * filaments / filaments.mean(), 0)
    holes = 1 / (1 + np.exp(-6 * (speckle(rng, 2.2) - 0.5)))
    sheet = sheet * np.maximum(1 - look["vacuoles"] * holes, 0)
    return np.asarray(sheet * np.exp(-((field.depth / look["reach"]) ** 2)) * field.body * (1 - 0.85 * field.nucleus))


def expose(rng: np.random.Generator, signal: Array, brightness: float, background: float) -> Array:
    """Expose one channel, shape (64, 64), to grey levels, with its plate's brightness (log) and background (grey levels).

    The camera steers to one mean, and for the most part to one spread, so that neither tells the class.
    """
    mean, spread = signal.mean(), signal.std()
    light = np.exp(brightness + rng.normal(0, 0.07))
    contrast = SPREAD * (spread / mean / 1.2) ** 0.5 * np.exp(brightness + rng.normal(0, 0.12))
    return np.asarray(background + rng.normal(0, 2.5) + LEVEL * light + contrast * (signal - mean) / spread)


def draw_sample(sample: Sample, seed: int) -> NDArray[np.uint8]:
    """Draw the three channels of one image from its id, class and plate alone."""
    rng = rng_of(seed, sample.id)
    table = np.array(list(TRAITS.values()))
    ordinary, own = table[:, 0], table[:, 1 + list(COUNTS).index(sample.label)]
    typical = max(1.15 - rng.gamma(1.5, 0.15), 0.2)  # some cells hardly show their class
    values = np.maximum(ordinary + typical * (own - ordinary), 0) * rng.lognormal(0, 0.08, own.size)
    look = dict(zip(TRAITS, values.tolist(), strict=True))
    plate = rng_of(seed, sample.plate)
    brightness, background = plate.normal(0, 0.1, 3), plate.uniform(-4, 4, 3)
    focus_px = plate.uniform(0.4, 0.7) + rng.gamma(1.2, 0.18)
    field = Field(rng, look)
    signals = [draw_nucleus(rng, field), filaments := draw_microtubules(rng, field), draw_er(rng, field, filaments)]
    channels = [expose(rng, blur(signals[n], focus_px), brightness[n], background[n]) for n in range(len(CHANNELS))]
    return np.clip(np.rint(np.stack(channels)), 0, 255).astype(np.uint8)


def draw_challenge(folder: Path, *, n_train: int, n_test: int, seed: int = 0) -> None:
    """Draw a challenge into a folder, or leave it alone where it already lies there whole.

    Writes ``data/train.csv`` (id, label, plate), ``data/train/``, ``data/test/``, ``data/sample_submission.csv``
    (id, label: the commonest class), outside of ``data/`` ``solution.csv`` (id, label, plate), and, last,
    ``challenge.json``. A smaller challenge's images are a part of a larger one's of the same seed, byte for byte.

    Parameters
    ----------
    folder : Path
        Made if absent. Another challenge in it, or half of one, is replaced.
    n_train, n_test : int
        Images, 20 to 9,632 and 20 to 6,869; the classes keep S0's proportions.
    seed : int

    Raises
    ------
    ValueError
        If a number lies outside its range.
    FileExistsError
        If the folder holds a ``data/`` or a ``solution.csv`` that this function did not draw.
    """
    halves = {"train": samples_of("train", n_train, seed), "test": samples_of("test", n_test, seed)}
    data, record = folder / "data", folder / "challenge.json"
    whole = json.dumps({"version": VERSION, "seed": seed, "n_train": n_train, "n_test": n_test}) + "\n"
    if record.exists():
        if record.read_text(encoding="utf-8") == whole:
            return
    elif data.exists() or (folder / "solution.csv").exists():
        msg = f"{folder}: holds a challenge but no {record.name}, so it was not drawn here. Choose another folder."
        raise FileExistsError(msg)
    folder.mkdir(parents=True, exist_ok=True)
    # before the first image: a drawing cut short must be known as ours, and as unfinished
    record.write_text("{}\n", encoding="utf-8")
    for split, samples in halves.items():
        (data / split).mkdir(parents=True, exist_ok=True)
        for channel in CHANNELS:
            for stale in (data / split).glob(f"s*_{channel}.png"):
                stale.unlink()
        for sample in samples:
            for channel, pixels in zip(CHANNELS, draw_sample(sample, seed), strict=True):
                Image.fromarray(pixels).save(data / split / f"{sample.id}_{channel}.png")
    _write_table(data / "train.csv", ("id", "label", "plate"), halves["train"])
    _write_table(data / "sample_submission.csv", ("id", "label"), [(sample.id, COMMONEST) for sample in halves["test"]])
    _write_table(folder / "solution.csv", ("id", "label", "plate"), halves["test"])
    record.write_text(whole, encoding="utf-8")  # last: an older or a torn one is not equal, and is drawn again


def _write_table(path: Path, header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def main() -> None:
    """Read the command line, draw the challenge, say what lies where."""
    parser = argparse.ArgumentParser(description="Draw a challenge of the form of S0: nine classes of drawn cells.")
    parser.add_argument("folder", type=Path, help="where data/ and solution.csv go")
    parser.add_argument("--train", type=int, default=400, metavar="N", help="training images, up to 9632 (400)")
    parser.add_argument("--test", type=int, default=200, metavar="N", help="test images, up to 6869 (200)")
    parser.add_argument("--seed", type=int, default=0, help="of every image (0)")
    options = parser.parse_args()
    try:
        draw_challenge(options.folder, n_train=options.train, n_test=options.test, seed=options.seed)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(f"{options.folder}: {options.train} training and {options.test} test images, seed {options.seed}")


if __name__ == "__main__":
    main()
