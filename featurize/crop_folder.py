"""The folder of crops: what lies where in it, and how the crops are read."""

from __future__ import annotations

import json
from pathlib import Path

from features_cache.errors import ImagesMissing, TableError
from featurize.images.settings import SPLITS

# Nothing heavy is imported here: options are read with it.
STATE = "cells.json"
CROP_PATTERN = "{id}_{channel}.png"
"""Names of crops whose channels have a file each."""


def outputs(out: Path, split: str) -> tuple[Path, Path, Path]:
    """Return where the table of cells, the table of images and the crops of a split lie."""
    return out / f"{split}.csv", out / f"{split}_images.csv", out / split


def require_crops(folder: Path) -> None:
    """Check that a folder holds crops of training or test images, and a table of each.

    Raises
    ------
    ImagesMissing
        If it is no folder, holds neither, or no crop.
    TableError
        If crops have no table.
    """
    there = [split for split in SPLITS if (folder / split).is_dir()]
    if not there:
        msg = f"--cells {folder}: neither {folder / 'train'} nor {folder / 'test'} is there; run `cli cells` first, or name its folder"
        raise ImagesMissing(msg)
    for split in there:
        if not (folder / f"{split}.csv").is_file():
            msg = f"{folder / split}.csv: no such file; expected the table of the crops in {folder / split}. Run `cli cells` again"
            raise TableError(msg)
    if not any(has_cells(folder, split) for split in there):
        msg = f"--cells {folder}: no image has a cell; expected crops. Look at --nucleus and --diameter of `cli cells`, or give it --masks"
        raise ImagesMissing(msg)


def has_cells(folder: Path, split: str) -> bool:
    """Tell whether a split has any crop: in a table without rows, no image had a cell."""
    table, _, crops = outputs(folder, split)
    if not (crops.is_dir() and table.is_file()):
        return False
    with table.open("rb") as lines:
        return bool(lines.readline()) and bool(lines.readline())


def planes_of_crops(folder: Path) -> tuple[str, ...] | None:
    """Tell which channels of crops have files of their own.

    Parameters
    ----------
    folder : Path
        Of the crops.

    Returns
    -------
    tuple of str or None
        Empty where a crop is one ordinary image; None where no ``cells.json`` tells, as for crops made elsewhere.

    Raises
    ------
    TableError
        If ``cells.json`` cannot be read.
    """
    path = folder / STATE
    try:
        return tuple(map(str, json.loads(path.read_bytes())["rules"]["planes"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = (
            f"{path}: not what `cli cells` wrote; remove it, and name the channels of crops with --pattern and --planes"
        )
        raise TableError(msg) from error
