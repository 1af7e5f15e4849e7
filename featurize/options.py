"""Options that say what networks see: which images, which pixels of theirs, and which views.

`cli featurize` computes with them, and other commands look at the same (``features_cache/shared_options.py``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from features_cache.console import Config, IgnoreUnlabelled, add_tables, split_list, tables_of
from features_cache.urls import path_or_url
from featurize.settings import FeaturizeSettings
from featurize.views.augmentation import FLIPS_AND_TURNS, SECTION, augmentation_of

_DEFAULTS = FeaturizeSettings()
_AUGMENTATION = add_tables(SECTION)


def what_is_computed(
    out: Annotated[Path, typer.Option(help="Folder of the caches.")] = _DEFAULTS.out,
    backbone: Annotated[list[str], typer.Option(help="Networks; `cli backbones` lists them.")] = list(
        _DEFAULTS.backbones
    ),
    weights: Annotated[list[str], typer.Option(help="imagenet, random, a folder, or NAME=FILE.")] = list(
        _DEFAULTS.weights
    ),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = _DEFAULTS.device,
    precision: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = _DEFAULTS.precision,
    runtime: Annotated[
        str, typer.Option(help="What runs the networks: auto, torch, compile or openvino.")
    ] = _DEFAULTS.runtime,
    dtype: Annotated[str, typer.Option(help="Number type in the cache: float16 or float32.")] = _DEFAULTS.storage,
    workers: Annotated[str, typer.Option(help="Threads that read images.")] = "auto",
    max_bad: Annotated[float, typer.Option(help="Share of images that may be unusable.")] = _DEFAULTS.max_bad,
) -> dict[str, Any]:
    """Take these options as those of ``FeaturizeSettings.from_options`` that they are."""
    return {
        "out": out,
        "backbones": split_list(backbone),
        "weights": split_list(weights),
        "device": device,
        "precision": precision,
        "runtime": runtime,
        "storage": dtype,
        "n_workers": workers,
        "max_bad": max_bad,
    }


def which_images(
    train_images: Annotated[
        str, typer.Option(metavar="FOLDER|URL", help="Folder of training images, or its URL (s3://..., gs://...).")
    ] = str(_DEFAULTS.train_images),
    test_images: Annotated[str, typer.Option(metavar="FOLDER|URL", help="Folder of test images, or its URL.")] = str(
        _DEFAULTS.test_images
    ),
    labels: Annotated[Path | None, typer.Option(help="CSV whose ids say which training images there are.")] = None,
    sample: Annotated[Path | None, typer.Option(help="Sample submission: says which test images there are.")] = None,
    id_column: Annotated[str | None, typer.Option(help="Column of ids in --labels.")] = None,
    pattern: Annotated[str | None, typer.Option(help="Channel files: '{id}_{channel}.png'.")] = None,
    planes: Annotated[list[str], typer.Option(help="Names of an image's channels. (default: found)")] = [],
    frame: Annotated[int | None, typer.Option(help="Page of each file, from 0.")] = None,
    scale: Annotated[
        str, typer.Option(help="What becomes 0 and 1: dtype, 4095, 200:4095, image:1:99, channel:1:99.")
    ] = _DEFAULTS.scale,
    max_pixels: Annotated[int, typer.Option(help="Largest image that is decoded.")] = _DEFAULTS.max_pixels,
    limit: Annotated[int | None, typer.Option(help="Only the first images of each split, by id.")] = None,
    ignore_unlabelled: IgnoreUnlabelled = False,
    follow_symlinks: Annotated[
        bool, typer.Option("--follow-symlinks", help="Let links lead out of the folders of images.")
    ] = False,
) -> dict[str, Any]:
    """Take these options as the fields of ``ImageSettings`` that they are."""
    return {
        "train_images": path_or_url(train_images),
        "test_images": path_or_url(test_images),
        "labels": labels,
        "sample": sample,
        "id_column": id_column,
        "pattern": pattern,
        "planes": split_list(planes),
        "frame": frame,
        "scale": scale,
        "max_pixels": max_pixels,
        "limit": limit,
        "ignore_unlabelled": ignore_unlabelled,
        "follow_symlinks": follow_symlinks,
    }


def what_is_seen(
    cells: Annotated[Path | None, typer.Option(help="Folder of crops by `cli cells`, instead of images.")] = None,
    augment: Annotated[int, typer.Option(help="Augmented copies beside each image.")] = _DEFAULTS.augment,
    tta: Annotated[int | None, typer.Option(help="The same for test images. (default: as --augment)")] = None,
    channels: Annotated[
        list[str], typer.Option(help="Blends for the networks: a,b,c or a+b+c,c+d+a; each; adapt.")
    ] = [],
    size: Annotated[int | None, typer.Option(help="Side of the networks' input, px. (default: as trained)")] = None,
    fit: Annotated[str, typer.Option(help="Into a square: stretch, crop or pad.")] = _DEFAULTS.fit,
    resize: Annotated[int | None, typer.Option(help="Side of that square, px. (default: as --size)")] = None,
    crops: Annotated[int, typer.Option(help="1 or 5 inputs cut from it, averaged.")] = _DEFAULTS.crops,
    seed: Annotated[int, typer.Option(help="Of augmentation and random weights.")] = _DEFAULTS.seed,
    config: Config = None,
) -> dict[str, Any]:
    """Take these options as those of ``FeaturizeSettings.from_options`` that they are, with ``[augmentation]`` of permafeat.toml."""
    table, file = tables_of(_AUGMENTATION, config)
    return {
        "cells": cells,
        "augment": augment,
        "tta": tta,
        "augmentation": FLIPS_AND_TURNS if table is None else augmentation_of(table, f"{file}: "),
        "channels": split_list(channels),
        "size_px": size,
        "fit": fit,
        "resize_px": resize,
        "crops": crops,
        "seed": seed,
    }
