"""The command that cuts images into cells: it parses, calls one function, prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from features_cache.console import AsJson, Config, IgnoreUnlabelled, Overwrite, app, print_lines, say, split_list
from features_cache.progress import progress_bar
from featurize.cells_settings import CellsSettings

_DEFAULTS = CellsSettings()
_QUARANTINED = 4


@app.command(epilog="Example: cli cells --nucleus blue --cell red,green")
def cells(
    ctx: typer.Context,
    train_images: Annotated[Path, typer.Option(help="Folder of training images.")] = _DEFAULTS.train_images,
    test_images: Annotated[Path, typer.Option(help="Folder of test images.")] = _DEFAULTS.test_images,
    labels: Annotated[Path | None, typer.Option(help="CSV whose ids say which training images there are.")] = None,
    sample: Annotated[Path | None, typer.Option(help="Sample submission: says which test images there are.")] = None,
    id_column: Annotated[str | None, typer.Option(help="Column of ids in --labels.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the crops and their tables.")] = _DEFAULTS.out,
    pattern: Annotated[str | None, typer.Option(help="Channel files: '{id}_{channel}.png'.")] = None,
    channels: Annotated[list[str], typer.Option(help="Channels that have a file each; any number.")] = [],
    nucleus: Annotated[str | None, typer.Option(help="Channel of nuclei. (default: nucleus, else blue)")] = None,
    cell: Annotated[list[str], typer.Option(help="Channels that fill cells. (default: a cell is its nucleus)")] = [],
    masks: Annotated[Path | None, typer.Option(help="Label images by another tool: {id}.png or .tif.")] = None,
    diameter: Annotated[float | None, typer.Option(help="Of a nucleus, px. (default: as each image shows)")] = None,
    background: Annotated[
        str, typer.Option(help="Pixels around a cell in its crop: zero or keep.")
    ] = _DEFAULTS.background,
    border: Annotated[
        str, typer.Option(help="Cells whose nucleus touches the image's border: keep or drop.")
    ] = _DEFAULTS.border,
    margin: Annotated[float, typer.Option(help="Room around a cell, as a share of its size.")] = _DEFAULTS.margin,
    scale: Annotated[str, typer.Option(help="Pixel value that becomes 1: dtype, or such as 4095.")] = _DEFAULTS.scale,
    max_bad: Annotated[float, typer.Option(help="Share of images that may be unusable.")] = _DEFAULTS.max_bad,
    max_pixels: Annotated[int, typer.Option(help="Largest image that is decoded.")] = _DEFAULTS.max_pixels,
    workers: Annotated[str, typer.Option(help="Threads, an image each.")] = "auto",
    ignore_unlabelled: IgnoreUnlabelled = False,
    overwrite: Overwrite = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Cut images into cells: a crop of each, and a table of where it was and its mask."""
    settings = CellsSettings.from_options(
        train_images=train_images,
        test_images=test_images,
        labels=labels,
        sample=sample,
        id_column=id_column,
        out=out,
        pattern=pattern,
        channels=split_list(channels),
        nucleus=nucleus,
        bodies=split_list(cell),
        masks=masks,
        diameter_px=diameter,
        background=background,
        border=border,
        margin=margin,
        scale=scale,
        max_bad=max_bad,
        max_pixels=max_pixels,
        n_workers=workers,
        ignore_unlabelled=ignore_unlabelled,
        overwrite=overwrite,
    )
    from featurize.cells import cut_cells

    with progress_bar(quiet=ctx.obj) as progress:
        summary = cut_cells(settings, progress=progress)
    say(ctx, summary.lines())
    if as_json:
        print_lines([json.dumps(summary.to_json())])
    if summary.n_quarantined:
        raise typer.Exit(_QUARANTINED)
