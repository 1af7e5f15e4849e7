"""The files of a run, as bytes: predictions, heads, pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from heads import pictures as draw
from heads.cell_data import Cells
from heads.cell_heads import CellHeads
from heads.ensemble import overall
from heads.estimators.catalogue import HeadKind
from heads.fitted import FittedHead
from heads.folds import Fold, fold_numbers
from heads.fusion import CELLS
from heads.labelled import LabelledImages
from heads.metrics.scoring import headline_names
from heads.out_of_fold import OutOfFold
from heads.predictions import Predictions
from heads.report import TITLES


def oof_csv(images: LabelledImages, folds: Sequence[Fold], predictions: Mapping[str, Predictions]) -> bytes:
    """Write out-of-fold probabilities: id, label, repeat, fold, group, head, a column a class."""
    fold_of = fold_numbers(folds, images.n_images)
    groups = [""] * images.n_images if images.groups is None else [images.group_names[group] for group in images.groups]
    labels = images.label_texts
    tables = []
    for name, said in predictions.items():
        for repeat, rows in enumerate(said.averaged):
            first = {"id": images.ids, "label": labels, "repeat": repeat}
            described = pd.DataFrame({**first, "fold": fold_of[repeat], "group": groups, "head": name})
            # A class may be called `label`: columns of the same name are legal in a CSV, and their order tells them apart.
            tables.append(pd.concat([described, pd.DataFrame(np.round(rows, 6), columns=list(images.classes))], axis=1))
    return pd.concat(tables).to_csv(index=False, lineterminator="\n").encode()


def head_files(fitted: Sequence[FittedHead], folder: str = "heads") -> dict[str, bytes]:
    """Return each head's JSON and safetensors file."""
    files = {}
    for head in fitted:
        files[f"{folder}/{head.name}.json"], files[f"{folder}/{head.name}.safetensors"] = head.to_bytes()
    return files


def cell_files(images: LabelledImages, folds: Sequence[Fold], cells: Cells, heads: CellHeads) -> dict[str, bytes]:
    """Return the heads of cells, and oof_cells.csv: id, parent, repeat, fold, a column a class, by the last of them or their ensemble."""
    said = overall(heads.predictions)
    fold_of = fold_numbers(folds, images.n_images)[:, cells.parents]
    parents = [images.ids[place] for place in cells.parents.tolist()]
    tables = []
    for repeat, rows in enumerate(said.averaged):
        described = pd.DataFrame({"id": cells.ids, "parent": parents, "repeat": repeat, "fold": fold_of[repeat]})
        tables.append(pd.concat([described, pd.DataFrame(np.round(rows, 6), columns=list(images.classes))], axis=1))
    table = pd.concat(tables).to_csv(index=False, lineterminator="\n").encode()
    return {"oof_cells.csv": table, **head_files(heads.fitted, CELLS)}


def pictures(
    metrics: Mapping[str, Any], images: LabelledImages, kinds: Mapping[str, HeadKind], found: Mapping[str, OutOfFold]
) -> dict[str, bytes]:
    """Draw counts, and of each head confusion, reliability and how its settings were chosen."""
    random = bool(metrics["random_weights"])
    files = {"class_counts.png": draw.counts_picture(metrics["class_counts"], images.classes, random_weights=random)}
    for name, figures in metrics["heads"].items():
        if "confusion" in figures:
            files[f"confusion_{name}.png"] = draw.confusion_picture(
                figures["confusion"], images.classes, head=name, random_weights=random
            )
        files[f"reliability_{name}.png"] = draw.reliability_picture(
            figures["calibration"], head=name, many=bool(metrics["many_labels"]), random_weights=random
        )
    if "cells" in metrics:
        first = headline_names(many=bool(metrics["many_labels"]))[0]
        files["fusion.png"] = draw.fusion_picture(
            metrics["cells"], figure=first, title=TITLES[first], random_weights=random
        )
    for name, oof in found.items():
        picture = draw.learning_picture(oof.choices, head=name, chosen=kinds[name].head.chosen, random_weights=random)
        if picture is not None:
            files[f"learning_{name}.png"] = picture
    return files
