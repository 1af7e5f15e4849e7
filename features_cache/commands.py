"""Commands on a cache: each parses, calls one function, prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from features_cache.console import AsJson, Config, app, print_lines
from features_cache.errors import CacheDamaged


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
