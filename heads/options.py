"""Options that say what labels mean, which several commands take."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from features_cache.console import split_list

DropMissing = Annotated[bool, typer.Option(help="Leave out rows whose label is blank, NaN or ?.")]
LabelColumn = Annotated[list[str], typer.Option(help="Its column of labels; several: of 0 and 1, a class each.")]
Separator = Annotated[str | None, typer.Option(help="Between the labels of one image, where it may have many.")]


def how_labelled(
    label_column: LabelColumn = ["label"],
    separator: Separator = None,
    group_column: Annotated[str | None, typer.Option(help="Images that share its value stay in one fold.")] = None,
    exclude_class: Annotated[list[str], typer.Option(help="Classes that are left out.")] = [],
    folds: Annotated[int, typer.Option(help="Folds of each repeat.")] = 5,
    repeats: Annotated[int, typer.Option(help="Times that the folds are drawn anew.")] = 1,
    drop_missing: DropMissing = False,
) -> dict[str, Any]:
    """Take these options as those of ``FitSettings`` that they are."""
    return {
        "label_column": split_list(label_column),
        "separator": separator,
        "group_column": group_column,
        "exclude_class": split_list(exclude_class),
        "folds": folds,
        "repeats": repeats,
        "drop_missing": drop_missing,
    }
