"""The command that cuts images into cells: it parses, calls one function, prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from features_cache.console import QUARANTINED, AsJson, Config, Overwrite, app, print_lines, say, split_list
from features_cache.progress import progress_bar
from features_cache.shared_options import takes
from featurize.cells.settings import CellsSettings
from featurize.options import which_images

_DEFAULTS = CellsSettings()


@app.command(epilog="Example: cli cells --nucleus blue --cell red,green")
@takes("images", which_images, like="featurize")
def cells(
    ctx: typer.Context,
    images: dict[str, Any],
    out: Annotated[Path, typer.Option(help="Folder of the crops and their tables.")] = _DEFAULTS.out,
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
    max_bad: Annotated[float, typer.Option(help="Share of images that may be unusable.")] = _DEFAULTS.max_bad,
    workers: Annotated[str, typer.Option(help="Threads, an image each.")] = "auto",
    overwrite: Overwrite = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Cut images into cells: a crop of each, and a table of where it was and its mask."""
    settings = CellsSettings.from_options(
        **images,
        out=out,
        nucleus=nucleus,
        bodies=split_list(cell),
        masks=masks,
        diameter_px=diameter,
        background=background,
        border=border,
        margin=margin,
        max_bad=max_bad,
        n_workers=workers,
        overwrite=overwrite,
    )
    from featurize.cells.run import cut_cells

    with progress_bar(quiet=ctx.obj) as progress:
        summary = cut_cells(settings, progress=progress)
    say(ctx, summary.lines())
    if as_json:
        print_lines([json.dumps(summary.to_json())])
    if summary.n_quarantined:
        raise typer.Exit(QUARANTINED)
