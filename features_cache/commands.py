"""Commands on a cache: each parses, calls one function, prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from features_cache.console import AsJson, Config, Overwrite, app, print_lines, say, split_list
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


@app.command("import", epilog="Example: cli import dino.npy --ids data/train.csv --block dino")
def import_features(
    ctx: typer.Context,
    features: Annotated[Path, typer.Argument(metavar="FEATURES", help="A .npy, .parquet or .csv, a row an image.")],
    ids: Annotated[Path | None, typer.Option(help="CSV of the rows' ids. (default: a column of the table)")] = None,
    id_column: Annotated[str | None, typer.Option(help="Column of ids. (default: id)")] = None,
    block: Annotated[str, typer.Option(help="Name of the block.")] = "",
    made_by: Annotated[str, typer.Option(help="What made it: equal words for training and test features.")] = "",
    out: Annotated[Path, typer.Option(help="The cache: new, or one of the same images.")] = Path("features/train.h5"),
    dtype: Annotated[str | None, typer.Option(help="Number type of a new cache: float16 or float32.")] = None,
    overwrite: Overwrite = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Take features that were made elsewhere into a cache, as a block."""
    from features_cache import imports
    from features_cache.made_elsewhere import read_features

    found = read_features(features, ids, id_column)
    done = imports.import_features(
        found, out, block=block, made_by=made_by, storage=imports.storage_named(dtype), replace=overwrite
    )
    say(ctx, [f"warning: {text}" for text in done.warnings])
    print_lines([json.dumps(done.to_json())] if as_json else [done.line])
