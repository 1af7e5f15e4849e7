"""Submissions that ask for the cells of each image: class, confidence and mask of each, a row an image."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from features_cache.errors import OptionError, RunError, SubmissionError, listed
from features_cache.reader import FeatureCache
from features_cache.tables import read_table
from heads.arrays import Float64, Indices
from heads.ensemble import average
from heads.fitted_run import FittedRun
from heads.fused_run import CellCounts, NewCells, find_cells, fused_confidences
from heads.submitting.answers import ask_runs, require_numbers, rows_of
from heads.submitting.cell_table import CellTable, images_table, read_cell_table
from heads.submitting.prediction_string import check_classes, chosen_classes, is_prediction_string, prediction_string
from heads.submitting.settings import SubmitSettings
from heads.submitting.submission_format import Filled, ids_of

COLUMNS = ("ImageID", "ImageWidth", "ImageHeight", "PredictionString")


def asks_for_cells(sample: Path) -> bool:
    """Whether a sample submission has the columns of one that asks for cells."""
    return tuple(read_table(sample).columns) == COLUMNS


def fill_cells(
    settings: SubmitSettings,
    runs: Sequence[FittedRun],
    classes: Sequence[str],
    cache: FeatureCache,
    cell_cache: FeatureCache | None,
) -> Filled:
    """Say of each cell of each image of the sample what it is, and where.

    A cell's confidence in a class is ``w * cell + (1 - w) * image``, with the weight that each run chose; runs count by their
    numbers of heads. An image without cells gets an empty text.

    Parameters
    ----------
    settings : SubmitSettings
    runs : sequence of FittedRun
    classes : sequence of str
    cache : FeatureCache
        Of the images.
    cell_cache : FeatureCache or None
        Of their cells; None where each cell is to be called what its image is.

    Returns
    -------
    Filled

    Raises
    ------
    OptionError
        If there is no table of cells.
    RunError
        If a run has no heads of cells.
    SubmissionError
        If sample, tables and caches do not tell of the same images and cells, or sizes differ.
    """
    if settings.sample is None or settings.cells_table is None:
        msg = (
            f"{settings.sample}: asks for cells ({', '.join(COLUMNS)}); expected the table of the test images' cells. Type `cli cells`, or "
            f"name it with --cells-table"
        )
        raise OptionError(msg)
    check_classes(classes)
    without = [each.folder for each in runs if each.cells is None]
    if without and not settings.without_cells:
        msg = (
            f"{without[0]}: has no heads of cells; expected runs of `cli fit-heads --cells`. Fit one, or type --without-cells, which calls "
            f"each cell what its image is"
        )
        raise RunError(msg)
    table = read_cell_table(settings.cells_table)
    sample = _checked_sample(settings.sample, table)
    ids = sample[COLUMNS[0]].tolist()
    fill = settings.fill_quarantined == "prior"
    if not fill:
        _require_looked_through(table)
    answers = ask_runs(runs, cache, ids, settings.sample, fill=fill)
    told = _of_table(table, ids) if cell_cache is None else _of_cache(table, ids, runs, cell_cache)
    confidences = (
        average([each[told.parents] for each in answers.said], [len(each.heads) for each in runs])
        if told.heard is None
        else fused_confidences(runs, answers.said, told.heard)
    )
    require_numbers(told.ids, confidences)
    chosen = chosen_classes(confidences, settings.least_confidence)
    order = np.array(sorted(range(len(told.ids)), key=lambda place: (told.parents[place], told.ids[place])), dtype=int)
    cells_of = np.split(order, np.searchsorted(told.parents[order], np.arange(1, len(ids))))
    texts = [
        prediction_string(confidences[own], chosen[own], classes, [table.masks[told.ids[place]] for place in own])
        for own in cells_of
    ]
    files = {settings.out: sample.assign(**{COLUMNS[3]: texts})}
    if settings.probabilities is not None:
        files[settings.probabilities] = _confidences_table(told, ids, order, confidences, classes)
    return Filled(
        files=files,
        n_rows=len(ids),
        counts=np.bincount(confidences.argmax(axis=1), minlength=len(classes)),
        n_filled=answers.n_filled,
        cells=CellCounts(
            n_cells=len(told.ids),
            n_quarantined=told.n_quarantined,
            n_images_without=sum(not len(own) for own in cells_of),
            n_told=int(chosen.sum()),
        ),
    )


def _require_looked_through(table: CellTable) -> None:
    """Refuse images in which nobody could look for cells: an empty text would say that they have none."""
    bad = [f"{image_id}: {each.reason}" for image_id, each in table.images.items() if each.reason]
    if bad:
        msg = (
            f"{images_table(table.path)}: {len(bad)} test images are quarantined ({listed(bad, 5)}); expected cells of each, or none. Mend "
            f"the images and run `cli cells` again, or leave their {COLUMNS[3]} empty with --fill-quarantined prior"
        )
        raise SubmissionError(msg)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """The cells that are told, the place of each one's image, and how they can be asked themselves, if they are."""

    ids: list[str]
    parents: Indices
    n_quarantined: int
    heard: NewCells | None


def _of_table(table: CellTable, images: Sequence[str]) -> _Told:
    place_of = {image_id: place for place, image_id in enumerate(images)}
    parents = np.array([place_of[parent] for parent in table.parents.values()], dtype=np.int64)
    return _Told(ids=list(table.parents), parents=parents, n_quarantined=0, heard=None)


def _of_cache(table: CellTable, images: Sequence[str], runs: Sequence[FittedRun], cache: FeatureCache) -> _Told:
    """Check that a cache holds the cells of the table, with the same parents."""
    again = f"`cli featurize --cells {table.path.parent}`"
    rows_of(list(table.parents), cache.ids, str(table.path), str(cache.path), cure=f"Run {again}")
    cells = find_cells(cache, images, runs)
    named = zip(cache.ids, cache.parents or (), strict=True)
    moved = [cell for cell, parent in named if table.parents[cell] != parent]
    if moved:
        msg = (
            f"{cache.path}: {len(moved)} cells are of other images than in {table.path} ({listed(moved, 5)}); expected the same. Run "
            f"{again} again"
        )
        raise SubmissionError(msg)
    return _Told(ids=cells.ids, parents=cells.parents, n_quarantined=cells.n_quarantined, heard=cells)


def _checked_sample(path: Path, table: CellTable) -> pd.DataFrame:
    """Read the sample, with sizes from the table of images where it has none; both must tell of the same images and sizes."""
    sample = read_table(path)
    ids = ids_of(path, sample)
    images = table.images
    beside = images_table(table.path)
    for source, found, where, others in ((path, ids, beside, list(images)), (beside, list(images), path, ids)):
        missing = sorted(set(found) - set(others))
        if missing:
            msg = (
                f"{source}: {len(missing)} of {len(found)} images are not in {where} ({listed(missing, 5)}); expected the same images in "
                f"both. Run `cli cells` with this sample, or name another table with --cells-table"
            )
            raise SubmissionError(msg)
    wrong = sample.index[~sample[COLUMNS[3]].map(is_prediction_string)].tolist()
    if wrong:
        msg = f"{path}: {len(wrong)} cells of {COLUMNS[3]} are neither empty nor triples of class, confidence and mask (lines {listed(wrong)})"
        raise SubmissionError(msg)
    sizes = pd.DataFrame(
        [(images[image_id].width, images[image_id].height) for image_id in ids],
        columns=list(COLUMNS[1:3]),
        index=sample.index,
    ).astype(str)
    given = sample[list(COLUMNS[1:3])]
    differs = (given != "") & (given != sizes) & (sizes != "0")
    if differs.to_numpy().any():
        lines = sample.index[differs.any(axis=1)].tolist()
        msg = (
            f"{path}: {len(lines)} images have another size than in {beside} (lines {listed(lines)}); expected the same: masks are of the "
            f"images that cells were found in. Run `cli cells` on the images of this sample"
        )
        raise SubmissionError(msg)
    filled = given.where(given != "", sizes)
    return sample.assign(**{name: filled[name] for name in COLUMNS[1:3]})


def _confidences_table(
    told: _Told, images: Sequence[str], order: Indices, confidences: Float64, classes: Sequence[str]
) -> pd.DataFrame:
    """Return a row a cell: id, parent, a column a class."""
    named: Mapping[str, list[str]] = {
        "id": [told.ids[place] for place in order],
        "parent": [images[told.parents[place]] for place in order],
    }
    return pd.concat([pd.DataFrame(named), pd.DataFrame(confidences[order], columns=list(classes))], axis=1)
