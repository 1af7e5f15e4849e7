"""The program: its commands live beside what they call; here they come together, and errors become messages."""

from __future__ import annotations

import json
import sys
import traceback
from importlib import metadata
from typing import Annotated, Any

import typer

import featurize.cells.commands
import featurize.commands
import heads.commands

# isort: split
import features_cache.commands
from features_cache.console import AsJson, app, print_lines
from features_cache.errors import PermafeatError
from features_cache.progress import progress_bar
from features_cache.shared_options import takes
from featurize.options import what_is_computed, what_is_seen, which_images
from featurize.settings import FeaturizeSettings
from heads.options import how_labelled

# Importing a room registers its commands; --help lists them in this order.
ROOMS = (featurize.commands, featurize.cells.commands, heads.commands, features_cache.commands)


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


@app.command(epilog="Example: cli check --augment 6")
@takes("meant", how_labelled, like="fit-heads")
@takes("network", what_is_computed, like="featurize")
@takes("seen", what_is_seen, like="featurize")
@takes("images", which_images, like="featurize")
def check(
    ctx: typer.Context,
    images: dict[str, Any],
    seen: dict[str, Any],
    meant: dict[str, Any],
    network: dict[str, Any],
    as_json: AsJson = False,
) -> None:
    """Look at images, labels, weights and disk before anything is computed, and list all findings at once."""
    from featurize.check import check_images
    from heads.check import check_labels

    settings = FeaturizeSettings.from_options(**images, **seen, **network)
    with progress_bar(quiet=ctx.obj) as progress:
        found = check_images(settings, progress)
    if len(found.ids) and settings.cells is None:
        theirs = {name: getattr(settings, name) for name in ("labels", "ignore_unlabelled")}
        asked = meant | theirs | {"features": settings.out / "train.h5", "id_column": settings.id_column or "id"}
        found.findings.join(check_labels(asked, found.ids, found.good))
    print_lines([json.dumps(found.findings.to_json())] if as_json else found.findings.lines)
    if found.findings.exit_code:
        raise typer.Exit(found.findings.exit_code)


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
