"""Make data in the form of one of five challenges: what examples/s0 to s4 are typed on where there is no real data.

The pictures are drawn, and so are features, where a challenge's labels are at hand and its images are not; nothing that is
scored on them says how good a network is.

    python ../make_data.py s1 .        in examples/s1
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from demo.draw import COMMONEST, draw_challenge, draw_sample, samples_of
from made.atlas import CHANNELS, CLASSES_2018, CLASSES_OF_CELLS, draw_planes
from made.labels import Image, draw_labels, real_labels, real_test_images, rng_of
from PIL import Image as Picture

RECORD = "made.json"
SIDE_PX = {"s2": 256, "s3": 128, "s4": 64}
N_COLUMNS = 64  # of made features
SIZES = {"s0": (180, 60), "s1": (180, 60), "s2": (60, 20), "s3": (240, 60), "s4": (240, 60)}  # training and test images
SIGNAL, NOISE = 1.0, 1.6


def make_s0(folder: Path, n_train: int, n_test: int, seed: int) -> None:
    """Nine cell lines, one label an image: three channels of 64 x 64 px as one RGB file."""
    for split, count in (("train", n_train), ("test", n_test)):
        samples = samples_of(split, count, seed)
        for sample in samples:
            pixels = draw_sample(sample, seed).transpose(1, 2, 0)
            _save(folder / "data" / split / f"{sample.id}.png", pixels)
        told = [(sample.id, sample.label if split == "train" else COMMONEST) for sample in samples]
        _write(folder / "data" / _TABLES[split], ("id", "label"), told)
        if split == "test":
            _write(folder / "solution.csv", ("id", "label"), [(sample.id, sample.label) for sample in samples])


def make_s2(folder: Path, n_train: int, n_test: int, seed: int) -> None:
    """Nineteen classes, many labels an image, a file for each of four channels, a submission of cells."""
    for split, count in (("train", n_train), ("test", n_test)):
        images = draw_labels(split, count, len(CLASSES_OF_CELLS), seed)
        _draw(folder / "data" / split, images, "s2", CLASSES_OF_CELLS, seed)
        if split == "train":
            _write(folder / "data" / "train.csv", ("ID", "Label"), _told(images, "|"))
        else:
            side_px = SIDE_PX["s2"]
            rows = [(image.id, side_px, side_px, "0 1 eNoLCAgIMAEABJkBdQ==") for image in images]
            _write(folder / "data" / "sample_submission.csv", _OF_CELLS, rows)
            _write(folder / "solution.csv", ("ID", "Label"), _told(images, "|"))


def make_2018(folder: Path, halves: dict[str, list[Image]], system: str, seed: int, *, as_features: bool) -> None:
    """Twenty-eight classes, many labels an image: a file for each of four channels, or made features of all images."""
    for split, images in halves.items():
        # further images are a project of their own: their caches, too, are made by the commands' defaults
        root, name = (folder / "extra", "train") if split == "extra" else (folder, split)
        if as_features:
            (root / "made").mkdir(parents=True, exist_ok=True)
            np.save(root / "made" / f"{name}.npy", _features(images, seed))
        else:
            _draw(root / "data" / name, images, system, CLASSES_2018, seed)
        if name == "train":
            _write(root / "data" / "train.csv", ("Id", "Target"), _told(images, " "))
        else:
            rows = [(image.id, "0") for image in images]
            _write(root / "data" / "sample_submission.csv", ("Id", "Predicted"), rows)
            _write(root / "solution.csv", ("Id", "Target"), _told(images, " "))


_TABLES = {"train": "train.csv", "test": "sample_submission.csv"}
_OF_CELLS = ("ImageID", "ImageWidth", "ImageHeight", "PredictionString")


def _told(images: Iterable[Image], separator: str) -> list[tuple[str, str]]:
    return [(image.id, separator.join(map(str, image.classes))) for image in images]


def _draw(folder: Path, images: Sequence[Image], system: str, classes: Sequence[str], seed: int) -> None:
    for image in images:
        rng = rng_of(seed, image.id)
        planes = draw_planes(rng, SIDE_PX[system], [classes[number] for number in image.classes])
        for channel, pixels in zip(CHANNELS, planes, strict=True):
            _save(folder / f"{image.id}_{channel}.png", pixels)


def _features(images: Sequence[Image], seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float16]]:
    """Draw features that each class moves in its own direction; all positive, as behind a ReLU."""
    moves = rng_of(seed, "moves").normal(0, SIGNAL, (len(CLASSES_2018), N_COLUMNS))
    rows = rng_of(seed, "noise", images[0].id).normal(3, NOISE, (len(images), N_COLUMNS))
    for place, image in enumerate(images):
        rows[place] += moves[list(image.classes)].sum(0)
    drawn: np.ndarray[tuple[int, ...], np.dtype[np.float16]] = np.maximum(rows, 0).astype(np.float16)
    return drawn


def _save(path: Path, pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Picture.fromarray(pixels).save(path)


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def _halves(options: argparse.Namespace) -> Iterator[tuple[str, list[Image]]]:
    """List the images of a challenge with HPA 2018's classes."""
    if options.hpa2018:
        train = real_labels(options.hpa2018 / "train.csv", options.train)
        yield "train", train
        sample = options.hpa2018 / "sample_submission.csv"
        yield "test", real_test_images(sample, options.test, train, options.seed)
    else:
        sizes = SIZES[options.system]
        for split, given, usual in (("train", options.train, sizes[0]), ("test", options.test, sizes[1])):
            yield split, draw_labels(split, given or usual, len(CLASSES_2018), options.seed)
    if options.extra:
        yield "extra", draw_labels("extra", options.extra, len(CLASSES_2018), options.seed)


def make(options: argparse.Namespace) -> str:
    """Make what was asked for, unless it is there.

    Returns
    -------
    str
        What lies where.

    Raises
    ------
    FileExistsError
        If the folder holds other data.
    """
    folder, record = options.folder, options.folder / RECORD
    asked = json.dumps({name: str(value) for name, value in sorted(vars(options).items()) if name != "folder"})
    if record.is_file() and record.read_text("utf-8") == asked:
        return f"{folder}: this data is there already"
    if (folder / "data").exists():
        msg = f"{folder / 'data'}: is there, and is not what was asked for; remove it, or choose another folder"
        raise FileExistsError(msg)
    n_train, n_test = (
        given or usual for given, usual in zip((options.train, options.test), SIZES[options.system], strict=True)
    )
    if options.system == "s0":
        make_s0(folder, n_train, n_test, options.seed)
    elif options.system == "s1":
        draw_challenge(folder, n_train=n_train, n_test=n_test, seed=options.seed)
    elif options.system == "s2":
        make_s2(folder, n_train, n_test, options.seed)
    else:
        make_2018(folder, dict(_halves(options)), options.system, options.seed, as_features=options.features)
    record.write_text(asked, encoding="utf-8")
    return f"{folder}: data/ with labels and a sample submission, solution.csv with the answers"


def main() -> None:
    """Read the command line, make the data, say what lies where."""
    parser = argparse.ArgumentParser(description="Make data in the form of one of five challenges.")
    parser.add_argument("system", choices=sorted(SIZES))
    parser.add_argument("folder", type=Path, help="where data/ goes")
    parser.add_argument("--train", type=int, metavar="N", help="training images")
    parser.add_argument("--test", type=int, metavar="N", help="test images")
    parser.add_argument("--seed", type=int, default=0, help="of everything (0)")
    group = parser.add_argument_group("s3 and s4")
    group.add_argument("--extra", type=int, default=0, metavar="N", help="further training images, in extra/ (0)")
    group.add_argument(
        "--hpa2018", type=Path, metavar="DIR", help="real train.csv and sample_submission.csv (all rows)"
    )
    group.add_argument("--features", action="store_true", help="features of the images, in made/, for `cli import`")
    options = parser.parse_args()
    if options.system in {"s0", "s1", "s2"} and (options.extra or options.hpa2018 or options.features):
        parser.error(f"--extra, --hpa2018 and --features are for s3 and s4, not for {options.system}")
    try:
        print(make(options))
    except (ValueError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
