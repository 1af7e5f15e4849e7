"""Options that say what networks see: which images, which pixels of theirs, and which views.

`cli featurize` computes with them, and other commands look at the same (``features_cache/shared_options.py``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from features_cache.console import Config, IgnoreUnlabelled, add_tables, split_list, tables_of
from featurize.augmentation import FLIPS_AND_TURNS, SECTION, augmentation_of
from featurize.settings import FeaturizeSettings

_DEFAULTS = FeaturizeSettings()
_AUGMENTATION = add_tables(SECTION)


def what_is_seen(
    train_images: Annotated[Path, typer.Option(help="Folder of training images.")] = _DEFAULTS.train_images,
    test_images: Annotated[Path, typer.Option(help="Folder of test images.")] = _DEFAULTS.test_images,
    labels: Annotated[Path | None, typer.Option(help="CSV whose ids say which training images there are.")] = None,
    sample: Annotated[Path | None, typer.Option(help="Sample submission: says which test images there are.")] = None,
    id_column: Annotated[str | None, typer.Option(help="Column of ids in --labels.")] = None,
    augment: Annotated[int, typer.Option(help="Augmented copies beside each image.")] = _DEFAULTS.augment,
    tta: Annotated[int | None, typer.Option(help="The same for test images. (default: as --augment)")] = None,
    pattern: Annotated[str | None, typer.Option(help="Channel files: '{id}_{channel}.png'.")] = None,
    channels: Annotated[list[str], typer.Option(help="Channels, in stacking order.")] = [],
    scale: Annotated[str, typer.Option(help="Pixel value that becomes 1: dtype, or such as 4095.")] = _DEFAULTS.scale,
    size: Annotated[int, typer.Option(help="Side of the networks' input, px.")] = _DEFAULTS.size_px,
    seed: Annotated[int, typer.Option(help="Of augmentation and random weights.")] = _DEFAULTS.seed,
    max_pixels: Annotated[int, typer.Option(help="Largest image that is decoded.")] = _DEFAULTS.max_pixels,
    limit: Annotated[int | None, typer.Option(help="Only the first images of each split, by id.")] = None,
    ignore_unlabelled: IgnoreUnlabelled = False,
    config: Config = None,
) -> dict[str, Any]:
    """Take these options as those of ``FeaturizeSettings.from_options`` that they are, with ``[augmentation]`` of permafeat.toml."""
    table, file = tables_of(_AUGMENTATION, config)
    return {
        "train_images": train_images,
        "test_images": test_images,
        "labels": labels,
        "sample": sample,
        "id_column": id_column,
        "augment": augment,
        "tta": tta,
        "augmentation": FLIPS_AND_TURNS if table is None else augmentation_of(table, f"{file}: "),
        "pattern": pattern,
        "channels": split_list(channels),
        "scale": scale,
        "size_px": size,
        "seed": seed,
        "max_pixels": max_pixels,
        "limit": limit,
        "ignore_unlabelled": ignore_unlabelled,
    }
