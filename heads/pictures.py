"""Pictures of a run, as PNG bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from features_cache.recipe import RANDOM_WEIGHTS
from heads.choosing import Choice
from heads.pooling import POOLS

_MOST_COUNTS = 20
_BLUE, _ORANGE = "#2b6ca3", "#d1711f"


def confusion_picture(
    confusion: Sequence[Sequence[int]], classes: Sequence[str], *, head: str, random_weights: bool
) -> bytes:
    """Draw a confusion matrix: colour is the share of the true class, numbers are counts.

    Parameters
    ----------
    confusion : sequence of sequence of int, shape (n_classes, n_classes)
        Rows are true classes.
    classes : sequence of str
    head : str
        Whose predictions.
    random_weights : bool

    Returns
    -------
    bytes
        PNG.
    """
    counts = np.asarray(confusion)
    n_classes = len(classes)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(max(4.5, 2.4 + 0.42 * n_classes), 24.0)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(
        range(n_classes), [_short(name) for name in classes], rotation=60, ha="right", rotation_mode="anchor"
    )
    axes.set_yticks(range(n_classes), [_short(name) for name in classes])
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if n_classes <= _MOST_COUNTS:
        for row, column in zip(*np.nonzero(counts), strict=True):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour, fontsize=8)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    _title(figure, f"Confusion of {head}, out of fold", random_weights=random_weights)
    return _png(figure)


def counts_picture(class_counts: Sequence[int], classes: Sequence[str], *, random_weights: bool) -> bytes:
    """Draw how many images each class has: PNG bytes."""
    figure = Figure(figsize=(7, min(max(2.6, 1.2 + 0.28 * len(classes)), 30.0)), layout="constrained")
    axes = figure.add_subplot()
    order = np.argsort(class_counts)
    bars = axes.barh([_short(classes[place]) for place in order], np.asarray(class_counts)[order], color=_BLUE)
    axes.bar_label(bars, padding=3, fontsize=8)
    axes.margins(x=0.1, y=0.02)
    axes.set_xlabel("images")
    axes.spines[["top", "right"]].set_visible(False)
    _title(figure, f"{int(np.sum(class_counts))} labelled images", random_weights=random_weights)
    return _png(figure)


def learning_picture(choices: Sequence[Choice], *, head: str, chosen: str, random_weights: bool) -> bytes | None:
    """Draw how each fold's choice was made: loss of the inner held-out images by epoch, alpha or C.

    Of heads with epochs the loss of the inner training rows stands beside it: a learning curve.

    Parameters
    ----------
    choices : sequence of Choice
    head : str
    chosen : str
        The parameter that was chosen.
    random_weights : bool

    Returns
    -------
    bytes or None
        PNG; None where nothing was chosen.
    """
    curves = [choice for choice in choices if choice.candidates]
    if not curves:
        return None
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for index, choice in enumerate(curves):
        if choice.training_loss:
            epochs = range(1, 1 + len(choice.training_loss))
            label = "" if index else "inner training, with dropout"
            axes.plot(epochs, choice.training_loss, color=_ORANGE, alpha=0.7, label=label)
        tried, losses = zip(*sorted(choice.candidates), strict=True)
        label = "" if index else "inner held out, views averaged"
        axes.plot(tried, losses, color=_BLUE, alpha=0.7, marker="" if choice.training_loss else ".", label=label)
        axes.axvline(choice.settings[chosen], color="0.6", lw=0.8, ls=":", label="" if index else "chosen")
    if not curves[0].training_loss:
        axes.set_xscale("log")
    axes.set_xlabel({"epochs": "epoch"}.get(chosen, chosen))
    axes.set_ylabel("log-loss (nats)")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    _title(figure, f"Choice of {chosen} for {head}, one curve a fold", random_weights=random_weights)
    return _png(figure)


def fusion_picture(cells: Mapping[str, Any], *, figure: str, title: str, random_weights: bool) -> bytes:
    """Draw a figure against the weight of cells, for each way to pool them: PNG bytes.

    Parameters
    ----------
    cells : mapping
        As in metrics.json.
    figure : str
        Its key.
    title : str
        Its name for people.
    random_weights : bool
    """
    picture = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = picture.add_subplot()
    weights = [row["weight"] for row in cells["table"]]
    for pool, colour in zip(POOLS, (_BLUE, _ORANGE), strict=True):
        axes.plot(
            weights, [row[pool][figure] for row in cells["table"]], marker=".", color=colour, label=f"{pool} of cells"
        )
    axes.axvline(cells["weight"], color="0.6", lw=0.8, ls=":", label="chosen for new images")
    axes.set_xlabel("weight of cells (0: images alone, 1: cells alone)")
    axes.set_ylabel(title)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    _title(picture, f"Cells and images together, out of fold: {title}", random_weights=random_weights)
    return _png(picture)


def reliability_picture(calibration: Mapping[str, Any], *, head: str, many: bool, random_weights: bool) -> bytes:
    """Draw how often predictions are right against the confidence that they were made with: PNG bytes.

    Parameters
    ----------
    calibration : mapping
        As :func:`heads.metrics.calibration.calibration` or :func:`heads.metrics.calibration.calibration_many` gives it.
    head : str
    many : bool
        Whether images may have many labels: then each image and class is a prediction.
    random_weights : bool
    """
    return _png(_reliability(calibration, head=head, many=many, random_weights=random_weights))


def _reliability(calibration: Mapping[str, Any], *, head: str, many: bool, random_weights: bool) -> Figure:
    figure = Figure(figsize=(4.8, 4.6), layout="constrained")
    axes = figure.add_subplot()
    bins = calibration["bins"]
    most = max(each["n_images"] for each in bins)
    axes.plot([0, 1], [0, 1], color="0.6", lw=0.8, ls=":", label="perfectly calibrated")
    axes.scatter(
        [each["confidence"] for each in bins],
        [each["accuracy"] for each in bins],
        s=[20 + 180 * each["n_images"] / most for each in bins],
        color=_BLUE,
        alpha=0.8,
        label=f"{'decisions of like probability' if many else 'images of like confidence'} (size: how many)",
    )
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.02)
    # Of many labels the bins hold decisions, one an image and class: most are of classes that an image is not of.
    axes.set_xlabel("probability that an image is of a class" if many else "probability of the predicted class")
    axes.set_ylabel("share of decisions where it is of the class" if many else "share of right predictions")
    axes.legend(frameon=False, loc="upper left", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    text = f"Reliability of {head}, out of fold: expected calibration error {calibration['expected_error']:.3f}"
    _title(figure, text, random_weights=random_weights)
    return figure


def _title(figure: Figure, text: str, *, random_weights: bool) -> None:
    figure.suptitle(
        f"{text}\n{RANDOM_WEIGHTS}" if random_weights else text,
        fontsize=11,
        color="darkred" if random_weights else "black",
    )


def _short(name: str) -> str:
    # A dollar sign would begin mathematics.
    return (name if len(name) <= 24 else f"{name[:22]}…").replace("$", r"\$")


def _png(figure: Figure) -> bytes:
    FigureCanvasAgg(figure)
    content = io.BytesIO()
    # Without the version's stamp the same run gives the same bytes.
    figure.savefig(content, format="png", dpi=120, metadata={"Software": None})
    return content.getvalue()
