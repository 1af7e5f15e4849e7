"""Commands on a cache: each parses, calls one function, prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from features_cache.console import AsJson, Config, Overwrite, app, print_lines, split_list
from features_cache.errors import CacheDamaged, OptionError


@app.command(epilog="Example: cli inspect features/train.h5")
def inspect(
    path: Annotated[Path, typer.Argument(metavar="H5", help="A cache.")],
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Show what a cache holds: blocks, recipes, digests, shapes, statuses."""
    from features_cache.inspect import describe, describe_lines

    description = describe(path)
    print_lines([json.dumps(description)] if as_json else describe_lines(description))


@app.command(epilog="Example: cli verify features/train.h5")
def verify(
    path: Annotated[Path, typer.Argument(metavar="H5", help="A cache.")],
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Read every byte of a cache and say whether it is what was written."""
    from features_cache import verify as verification

    found = verification.verify(path)
    print_lines([json.dumps(found.to_json())] if as_json else verification.verify_lines(found))
    if found.faults:
        raise typer.Exit(CacheDamaged.exit_code)


@app.command(epilog="Example: cli export features/train.h5 --to npz")
def export(
    path: Annotated[Path, typer.Argument(metavar="H5", help="A cache.")],
    to: Annotated[str, typer.Option(help="parquet, npz, h5ad or csv.")] = "parquet",
    out: Annotated[Path | None, typer.Option(help="The file. (default: beside the cache)")] = None,
    views: Annotated[str, typer.Option(help="all or 0.")] = "all",
    blocks: Annotated[list[str], typer.Option(help="Blocks of the cache. (default: all)")] = [],
    overwrite: Overwrite = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Write features for other tools, a row for each view of each image."""
    from features_cache.export import export as write

    if views not in {"all", "0"}:
        msg = f"--views is {views!r}; expected all or 0"
        raise OptionError(msg)
    written = write(path, out, to, view_0=views == "0", blocks=split_list(blocks), replace=overwrite)
    print_lines([json.dumps(written.as_posix())] if as_json else [f"{written}: written"])
