"""The submission: probabilities of all heads (and runs) averaged, written in the sample's rows, order and columns."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from features_cache.errors import OptionError, OutputExists, RunError, listed
from features_cache.files import publish, require_folder
from features_cache.reader import FeatureCache
from features_cache.recipe import RANDOM_WEIGHTS, any_random
from heads.arrays import Bool, Float64
from heads.ensemble import NAME as ENSEMBLE
from heads.ensemble import average
from heads.fitted import same_classes
from heads.fitted_run import FittedRun
from heads.fused_run import CellCounts, find_cells, predict_fused
from heads.fusion import FUSED
from heads.run_folder import known_submissions, remember_submission
from heads.submitting.answers import ask_runs, require_no_others, require_numbers
from heads.submitting.cells import asks_for_cells, fill_cells
from heads.submitting.settings import SubmitSettings
from heads.submitting.submission_format import Filled, Form, read_form
from heads.thresholds import apply_thresholds

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
__all__ = ["SubmissionSummary", "SubmitSettings", "submit", "summary_lines"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SubmissionSummary:
    """What was written.

    Parameters
    ----------
    path : Path
    n_rows : int
    class_counts : dict of str to int
        How often each class was predicted: of images, or of cells where the sample asks for these.
    heads : tuple of str
        What was averaged, as ``run/head``.
    n_views : int
        Views averaged over.
    n_filled : int
        Quarantined images that got the class frequencies.
    random_weights : bool
    cells : CellCounts or None
        Of the cells that were heard or told; None without any.
    """

    path: Path
    n_rows: int
    class_counts: dict[str, int]
    heads: tuple[str, ...]
    n_views: int
    n_filled: int
    random_weights: bool
    cells: CellCounts | None = None

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
    lines += [] if summary.cells is None else summary.cells.lines()
    if summary.random_weights:
        lines.append(RANDOM_WEIGHTS)
    return lines


def submit(settings: SubmitSettings) -> SubmissionSummary:
    """Predict the test images, or their cells, and write a submission; nothing is written if it would be wrong.

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
        If a cache lacks a block that a head was fitted on, or holds it by another recipe.
    SubmissionError
        If ids are missing, double or extra, a test image is quarantined, or a probability is not a number.
    OutputExists
        If a file stands there that no run remembers.
    TableError
        If the sample, or a table of cells, cannot be read.
    OptionError
        If cells are asked for, or were learned from, and are not there.
    """
    runs = _runs(settings)
    folders = [each.folder for each in runs]
    for path in (settings.out, settings.probabilities):
        if path is not None:
            check_replaceable(path, folders, overwrite=settings.overwrite)
    classes = _common(runs)
    hears_cells = not settings.without_cells and any(each.cells is not None for each in runs)
    with contextlib.ExitStack() as stack:
        cache = stack.enter_context(FeatureCache(settings.features))
        cell_cache = stack.enter_context(FeatureCache(_test_cells(settings, runs))) if hears_cells else None
        filled = (
            fill_cells(settings, runs, classes, cache, cell_cache)
            if settings.sample is not None and settings.format == "auto" and asks_for_cells(settings.sample)
            else _fill_images(settings, runs, classes, cache, cell_cache)
        )
        n_views = 1 if all(each.views for each in runs) else cache.n_views
    for path in filled.files:  # both or none, as far as can be known beforehand
        require_folder(path.parent)
    for path, content in filled.files.items():
        _publish(path, _quoted(content) if settings.excel_safe else content, folders[0])
    asked = [("", each, each.heads) for each in runs]
    asked += [("cells/", each, each.cells.heads) for each in runs if hears_cells and each.cells is not None]
    return SubmissionSummary(
        path=settings.out,
        n_rows=filled.n_rows,
        class_counts={name: int(count) for name, count in zip(classes, filled.counts.tolist(), strict=True)},
        heads=tuple(f"{each.folder.name}/{where}{head.name}" for where, each, heads in asked for head in heads),
        n_views=n_views,
        n_filled=filled.n_filled,
        random_weights=any(any_random(head.blocks) for _, _, heads in asked for head in heads),
        cells=filled.cells,
    )


def _fill_images(
    settings: SubmitSettings,
    runs: Sequence[FittedRun],
    classes: Sequence[str],
    cache: FeatureCache,
    cell_cache: FeatureCache | None,
) -> Filled:
    """Say what each image of the sample is."""
    form = read_form(settings.sample, cache.ids, classes, settings.format, many=runs[0].many_labels)
    answers = ask_runs(runs, cache, form.ids, settings.sample, fill=settings.fill_quarantined == "prior")
    said, notes = answers.said, None
    if cell_cache is not None:
        cells = find_cells(cell_cache, form.ids, runs)
        require_no_others(cells, settings.sample or settings.features)
        said = [
            predict_fused(each, image, cells)[1] if each.cells is not None else image
            for each, image in zip(runs, said, strict=True)
        ]
        notes = CellCounts.of(cells, len(form.ids))
    probabilities = average(said, [len(each.heads) for each in runs])
    require_numbers(form.ids, probabilities)
    called = _call(runs, probabilities, hears_cells=cell_cache is not None)
    files = {settings.out: form.table(probabilities, called, classes, runs[0].separator or " ")}
    if settings.probabilities is not None:
        whole = Form("probabilities", (form.columns[0], *classes), form.ids)
        files[settings.probabilities] = whole.table(probabilities, called, classes, " ")
    counts = probabilities.argmax(axis=1)[:, None] == np.arange(len(classes)) if called is None else called
    return Filled(files=files, n_rows=len(form.ids), counts=counts.sum(axis=0), n_filled=answers.n_filled, cells=notes)


def _test_cells(settings: SubmitSettings, runs: Sequence[FittedRun]) -> Path:
    if settings.test_cells is None:
        named = next(each.folder for each in runs if each.cells is not None)
        msg = (
            f"{named}: has heads of cells, too; expected the cache of the test images' cells. Type `cli featurize --cells cells`, name it "
            f"with --test-cells, or let images speak alone with --without-cells"
        )
        raise OptionError(msg)
    return settings.test_cells


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


def _call(runs: Sequence[FittedRun], probabilities: Float64, *, hears_cells: bool) -> Bool | None:
    """Say what images are called, where they may have many labels: by the runs' thresholds, averaged as their probabilities are."""
    if not runs[0].many_labels:
        return None
    names = [ENSEMBLE if len(each.heads) > 1 else each.heads[0].name for each in runs]
    if hears_cells:
        names = [name if each.cells is None else FUSED for each, name in zip(runs, names, strict=True)]
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


def _quoted(table: pd.DataFrame) -> pd.DataFrame:
    """Put an apostrophe before texts, names of columns included, that a spreadsheet would take for a formula (OWASP, "CSV injection")."""

    def quoted(cell: object) -> object:
        return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell

    return table.map(quoted).rename(columns=quoted)


def _publish(path: Path, table: pd.DataFrame, folder: Path) -> None:
    content = table.to_csv(index=False, lineterminator="\n").encode()
    # Remembered first: a file whose hash no run knows could never be replaced by us again.
    remember_submission(folder, hashlib.sha256(content).hexdigest())
    publish(path, [content], replace=True)
