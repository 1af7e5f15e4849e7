"""The submission: probabilities of all heads (and runs) averaged, written in the sample's rows, order and columns."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from features_cache.errors import OptionError, OutputExists, RunError, SubmissionError, listed
from features_cache.files import publish, require_folder
from features_cache.reader import FeatureCache
from features_cache.recipe import RANDOM_WEIGHTS, any_random
from heads.arrays import Bool, Float64, Indices
from heads.ensemble import NAME as ENSEMBLE
from heads.ensemble import average
from heads.fitted import check_blocks, same_classes
from heads.fitted_run import FittedRun
from heads.run_folder import known_submissions, remember_submission
from heads.submission_format import FORMATS, Form, Format, read_form
from heads.thresholds import apply_thresholds


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SubmitSettings:
    """Settings of one submission.

    Parameters
    ----------
    runs : tuple of Path
        Run folders (or ``runs/latest``); each counts by its number of heads, and within a run its ensemble's weights hold.
    features : Path
        The cache of the test images.
    sample : Path, optional
        A sample submission: ids in its first column, then labels, or a column a class. Without one, the cache's ids.
    format : {"auto", "label", "labels", "probabilities"}
        What stands beside an id; auto goes by the sample's columns.
    out : Path
        Where the submission goes.
    probabilities : Path, optional
        Where a CSV of probabilities goes, a column a class.
    heads : tuple of str
        Which heads; empty for all.
    overwrite : bool
        Whether a file that we did not write may be replaced.
    fill_quarantined : {"no", "prior"}
        Whether a quarantined image gets the training images' class frequencies (an error otherwise).
    """

    runs: tuple[Path, ...]
    features: Path
    sample: Path | None
    out: Path
    format: Format = "auto"
    probabilities: Path | None = None
    heads: tuple[str, ...] = ()
    overwrite: bool = False
    fill_quarantined: Literal["no", "prior"] = "no"

    def __post_init__(self) -> None:
        if not self.runs:
            msg = "no run; expected at least one folder that `cli fit-heads` wrote (--run)"
            raise OptionError(msg)
        if self.fill_quarantined not in ("no", "prior"):
            msg = f"--fill-quarantined {self.fill_quarantined!r}; expected no or prior"
            raise OptionError(msg)
        if self.format not in FORMATS:
            msg = f"--format {self.format!r}; expected {', '.join(FORMATS)}"
            raise OptionError(msg)
        if self.probabilities is not None and self.probabilities == self.out:
            msg = f"--probabilities {self.probabilities} is also --out; expected two files"
            raise OptionError(msg)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SubmissionSummary:
    """What was written.

    Parameters
    ----------
    path : Path
    n_rows : int
    class_counts : dict of str to int
        How often each class was predicted.
    heads : tuple of str
        What was averaged, as ``run/head``.
    n_views : int
        Views averaged over.
    n_filled : int
        Quarantined images that got the class frequencies.
    random_weights : bool
    """

    path: Path
    n_rows: int
    class_counts: dict[str, int]
    heads: tuple[str, ...]
    n_views: int
    n_filled: int
    random_weights: bool

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return dataclasses.asdict(self) | {"path": self.path.as_posix(), "heads": list(self.heads)}


def summary_lines(summary: SubmissionSummary) -> list[str]:
    """Tell a submission in lines of text, for a terminal."""
    counts = ", ".join(f"{name} {count}" for name, count in summary.class_counts.items())
    averaged = f"{len(summary.heads)} heads ({', '.join(summary.heads)}) and {summary.n_views} views averaged"
    lines = [f"{summary.path}: {summary.n_rows} rows; {averaged}", f"predicted: {counts}"]
    if summary.n_filled:
        lines.append(f"{summary.n_filled} quarantined images got the training images' class frequencies")
    if summary.random_weights:
        lines.append(RANDOM_WEIGHTS)
    return lines


def submit(settings: SubmitSettings) -> SubmissionSummary:
    """Predict the test images and write a submission; nothing is written if it would be wrong.

    Parameters
    ----------
    settings : SubmitSettings

    Returns
    -------
    SubmissionSummary

    Raises
    ------
    RunError
        If a run or head cannot be used, or runs know different classes.
    RecipeMismatch
        If the cache lacks a block that a head was fitted on, or holds it by another recipe.
    SubmissionError
        If ids are missing, double or extra, a test image is quarantined, or a probability is not a number.
    OutputExists
        If a file stands there that no run remembers.
    TableError
        If the sample cannot be read.
    """
    runs = _runs(settings)
    folders = [each.folder for each in runs]
    for path in (settings.out, settings.probabilities):
        if path is not None:
            check_replaceable(path, folders, overwrite=settings.overwrite)
    classes = _common(runs)
    with FeatureCache(settings.features) as cache:
        for head in (head for each in runs for head in each.heads):
            check_blocks(str(settings.features), head.blocks, cache.blocks)
        form = read_form(settings.sample, cache.ids, classes, settings.format, many=runs[0].many_labels)
        rows = rows_of(form.ids, cache.ids, str(settings.sample or settings.features), str(settings.features))
        good = cache.good[rows]
        _check_quarantined(settings, form.ids, good)
        cache.require_sound(rows[good])
        probabilities = np.tile(_prior(runs), (len(form.ids), 1))
        probabilities[good] = _predict(runs, cache, rows[good])
        n_views = 1 if all(each.views for each in runs) else cache.n_views
    if not np.isfinite(probabilities).all():
        bad = [form.ids[row] for row in np.flatnonzero(~np.isfinite(probabilities).all(axis=1)).tolist()]
        msg = f"{len(bad)} images have a probability that is not a number ({listed(bad, 5)}); expected none. Run `cli featurize --repair`"
        raise SubmissionError(msg)
    called = _call(runs, probabilities)
    files = {settings.out: form.table(probabilities, called, classes, runs[0].separator or " ")}
    if settings.probabilities is not None:
        whole = Form("probabilities", (form.columns[0], *classes), form.ids)
        files[settings.probabilities] = whole.table(probabilities, called, classes, " ")
    for path in files:  # both or none, as far as can be known beforehand
        require_folder(path.parent)
    for path, content in files.items():
        _publish(path, content, folders[0])
    counts = probabilities.argmax(axis=1)[:, None] == np.arange(len(classes)) if called is None else called
    return SubmissionSummary(
        path=settings.out,
        n_rows=len(form.ids),
        class_counts={name: int(count) for name, count in zip(classes, counts.sum(axis=0), strict=True)},
        heads=tuple(f"{each.folder.name}/{head.name}" for each in runs for head in each.heads),
        n_views=n_views,
        n_filled=int(np.sum(~good)),
        random_weights=any(any_random(head.blocks) for each in runs for head in each.heads),
    )


def _runs(settings: SubmitSettings) -> list[FittedRun]:
    runs = [FittedRun.load(path, settings.heads) for path in settings.runs]
    if len({each.folder for each in runs}) < len(runs):
        msg = f"--run names a run twice ({listed([str(path) for path in settings.runs])}); expected each once"
        raise OptionError(msg)
    return runs


def _common(runs: Sequence[FittedRun]) -> tuple[str, ...]:
    """Return the classes of all runs, which must be the same."""
    kinds = {(each.many_labels, each.separator) for each in runs}
    if len(kinds) > 1:
        msg = f"--run names runs of one label an image and of many ({listed([str(each.folder) for each in runs])}); expected one kind"
        raise RunError(msg)
    pairs = [(head, each.folder) for each in runs for head in each.heads]
    return same_classes([head for head, _ in pairs], [folder for _, folder in pairs])


def _call(runs: Sequence[FittedRun], probabilities: Float64) -> Bool | None:
    """Say what images are called, where they may have many labels: by the runs' thresholds, averaged as their probabilities are."""
    if not runs[0].many_labels:
        return None
    names = [ENSEMBLE if len(each.heads) > 1 else each.heads[0].name for each in runs]
    own = [each.thresholds(name) for each, name in zip(runs, names, strict=True)]
    values = np.average(own, axis=0, weights=[len(each.heads) for each in runs])
    return apply_thresholds(probabilities, values, at_least_one=bool(runs[0].run["target"]["at_least_one"]))


def check_replaceable(path: Path, folders: Sequence[Path], *, overwrite: bool) -> None:
    """Check that a file may be written: nothing is there, or what a run wrote, or ``overwrite``.

    Raises
    ------
    OutputExists
        If something else is there.
    """
    if overwrite and path.is_file():
        return
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() in known_submissions(folders):
        return
    if path.exists() or path.is_symlink():
        msg = f"{path}: exists, and is not a file that these runs wrote; expected to write a new one. Name another with --out, or use --overwrite"
        raise OutputExists(msg)


def rows_of(ids: Sequence[str], cache_ids: Sequence[str], source: str, where: str) -> Indices:
    """Find the cache's rows of ids, which must be the same set.

    Raises
    ------
    SubmissionError
        If ids of the source have no features, or the cache holds others.
    """
    row_of = {image_id: row for row, image_id in enumerate(cache_ids)}
    wanted = set(ids)
    missing = [image_id for image_id in ids if image_id not in row_of]
    extra = [image_id for image_id in cache_ids if image_id not in wanted]
    if missing or extra:
        parts = []
        if missing:
            parts.append(f"{len(missing)} of {len(ids)} ids have no features ({listed(missing, 5)})")
        if extra:
            parts.append(
                f"{len(extra)} of {len(cache_ids)} images with features are not asked for ({listed(extra, 5)})"
            )
        msg = f"{source}: {'; '.join(parts)}; expected the ids of {where}. Run `cli featurize` with this sample"
        raise SubmissionError(msg)
    return np.array([row_of[image_id] for image_id in ids], dtype=np.int64)


def _check_quarantined(settings: SubmitSettings, ids: Sequence[str], good: Bool) -> None:
    bad = [ids[row] for row in np.flatnonzero(~good).tolist()]
    if bad and settings.fill_quarantined == "no":
        msg = (
            f"{settings.features}: {len(bad)} of {len(ids)} test images are quarantined ({listed(bad, 5)}); expected features "
            f"of each. Mend the images and run `cli featurize --repair`, or give them the training images' class frequencies "
            f"with --fill-quarantined prior"
        )
        raise SubmissionError(msg)


def _prior(runs: Sequence[FittedRun]) -> Float64:
    """Return class frequencies of the training images."""
    shares = [np.array(each.run["class_counts"]) / each.run["n_images"] for each in runs]
    return np.asarray(np.mean(shares, axis=0))


def _predict(runs: Sequence[FittedRun], cache: FeatureCache, rows: Indices) -> Float64:
    """Average what runs say, each counting by its number of heads."""
    said = []
    for each in runs:
        *_, together = each.predict_rows(cache, rows).values()
        said.append(together)
    return average(said, [len(each.heads) for each in runs])


def _publish(path: Path, table: pd.DataFrame, folder: Path) -> None:
    content = table.to_csv(index=False, lineterminator="\n").encode()
    # Remembered first: a file whose hash no run knows could never be replaced by us again.
    remember_submission(folder, hashlib.sha256(content).hexdigest())
    publish(path, [content], replace=True)
