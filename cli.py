"""The program: its commands live beside what they call; here they come together, and errors become messages."""

from __future__ import annotations

import sys
import traceback
from importlib import metadata
from typing import Annotated

import typer

import featurize.cells_commands
import featurize.commands
import heads.commands

# isort: split
import features_cache.commands
from features_cache.console import app, print_lines
from features_cache.errors import PermafeatError

# Importing a room registers its commands; --help lists them in this order.
ROOMS = (featurize.commands, featurize.cells_commands, heads.commands, features_cache.commands)


def _version(wanted: bool) -> None:
    if wanted:
        print_lines([f"permafeat {metadata.version('permafeat')}"])
        raise typer.Exit


@app.callback()
def _root(
    ctx: typer.Context,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only data and errors.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show where an error arose.")] = False,
    version: Annotated[bool, typer.Option("--version", is_eager=True, callback=_version, help="Show it.")] = False,
) -> None:
    ctx.obj = quiet


def main() -> None:
    """Run the program; an error of ours is one message and its exit code, anything else a traceback and 1."""
    try:
        app()
    except PermafeatError as error:
        if {"-v", "--verbose"} & set(sys.argv[1:]):
            traceback.print_exc()
        print_lines([f"error: {error}"], file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
