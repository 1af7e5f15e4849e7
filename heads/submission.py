"""The submission: probabilities of all heads (and runs) averaged plainly, written in the sample's rows, order and columns."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features_cache.errors import OptionError, OutputExists, SubmissionError, listed
from features_cache.files import publish, require_folder
from features_cache.reader import FeatureCache
from features_cache.recipe import RANDOM_WEIGHTS, any_random
from features_cache.tables import read_table
from heads.arrays import Float
from heads.ensemble import average
from heads.fitted import FittedHead, check_blocks, same_classes
from heads.run_folder import find_run, known_submissions, load_heads, read_run, remember_submission

_CHUNK_IMAGES = 2048


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SubmitSettings:
    """Settings of one submission.

    Parameters
    ----------
    runs : tuple of Path
        Run folders (or ``runs/latest``); all heads of all of them weigh the same.
    features : Path
        The cache of the test images.
    sample : Path, optional
        A sample submission: ids in its first column, labels in its second. Without one, the cache's ids.
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


@dataclasses.dataclass(frozen=True, slots=True)
class _Member:
    """A run with its heads."""

    folder: Path
    run: dict[str, Any]
    heads: tuple[FittedHead, ...]


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
    members = _members(settings)
    folders = [member.folder for member in members]
    for path in (settings.out, settings.probabilities):
        if path is not None:
            check_replaceable(path, folders, overwrite=settings.overwrite)
    classes = _classes(members)
    with FeatureCache(settings.features) as cache:
        for member in members:
            for head in member.heads:
                check_blocks(str(settings.features), head.blocks, cache.blocks)
        names, ids = _wanted(settings, cache.ids)
        rows = rows_of(ids, cache.ids, str(settings.sample or settings.features), str(settings.features))
        good = cache.good[rows]
        _check_quarantined(settings, ids, good)
        cache.require_sound(rows[good])
        probabilities = np.tile(_prior(members), (len(ids), 1))
        probabilities[good] = _predict(members, cache, rows[good])
        n_views = 1 if all(member.run["settings"]["views"] == "0" for member in members) else cache.n_views
    if not np.isfinite(probabilities).all():
        bad = [ids[row] for row in np.flatnonzero(~np.isfinite(probabilities).all(axis=1)).tolist()]
        msg = f"{len(bad)} images have a probability that is not a number ({listed(bad, 5)}); expected none. Run `cli featurize --overwrite`"
        raise SubmissionError(msg)
    predicted = probabilities.argmax(axis=1)
    table = pd.DataFrame({names[0]: ids, names[1]: [classes[index] for index in predicted]})
    files = {settings.out: table}
    if settings.probabilities is not None:
        files[settings.probabilities] = pd.concat(
            [table[[names[0]]], pd.DataFrame(probabilities, columns=list(classes))], axis=1
        )
    for path in files:  # both or none, as far as can be known beforehand
        require_folder(path.parent)
    for path, content in files.items():
        _publish(path, content, folders[0])
    counts = np.bincount(predicted, minlength=len(classes))
    return SubmissionSummary(
        path=settings.out,
        n_rows=len(ids),
        class_counts={name: int(count) for name, count in zip(classes, counts, strict=True)},
        heads=tuple(f"{member.folder.name}/{head.name}" for member in members for head in member.heads),
        n_views=n_views,
        n_filled=int(np.sum(~good)),
        random_weights=any(any_random(head.blocks) for member in members for head in member.heads),
    )


def _members(settings: SubmitSettings) -> list[_Member]:
    folders = [find_run(path) for path in settings.runs]
    if len(set(folders)) < len(folders):
        msg = f"--run names a run twice ({listed([str(path) for path in settings.runs])}); expected each once"
        raise OptionError(msg)
    members = []
    for folder in folders:
        run = read_run(folder)
        members.append(_Member(folder, run, load_heads(folder, run, settings.heads)))
    return members


def _classes(members: Sequence[_Member]) -> tuple[str, ...]:
    pairs = [(head, member.folder) for member in members for head in member.heads]
    return same_classes([head for head, _ in pairs], [folder for _, folder in pairs])


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


def _wanted(settings: SubmitSettings, cache_ids: Sequence[str]) -> tuple[tuple[str, str], list[str]]:
    if settings.sample is None:
        return ("id", "label"), list(cache_ids)
    sample = read_table(settings.sample)
    if sample.shape[1] != 2:
        msg = f"{settings.sample}:1: columns {', '.join(sample.columns)}; expected two, ids and labels"
        raise SubmissionError(msg)
    first, second = sample.columns
    double = sample.loc[sample[first].duplicated(), first]
    if len(double):
        lines = listed(double.index.tolist(), 5)
        msg = (
            f"{settings.sample}: {len(double)} ids occur twice ({listed(double.tolist(), 5)}, lines {lines}); "
            f"expected each id once. Mend the sample"
        )
        raise SubmissionError(msg)
    return (first, second), sample[first].tolist()


def rows_of(ids: Sequence[str], cache_ids: Sequence[str], source: str, where: str) -> NDArray[np.int64]:
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


def _check_quarantined(settings: SubmitSettings, ids: Sequence[str], good: NDArray[np.bool_]) -> None:
    bad = [ids[row] for row in np.flatnonzero(~good).tolist()]
    if bad and settings.fill_quarantined == "no":
        msg = (
            f"{settings.features}: {len(bad)} of {len(ids)} test images are quarantined ({listed(bad, 5)}); expected features "
            f"of each. Mend the images and run `cli featurize --overwrite`, or give them the training images' class frequencies "
            f"with --fill-quarantined prior"
        )
        raise SubmissionError(msg)


def _prior(members: Sequence[_Member]) -> NDArray[np.float64]:
    counts = np.sum([member.run["class_counts"] for member in members], axis=0)
    frequencies: NDArray[np.float64] = counts / counts.sum()
    return frequencies


def _predict(members: Sequence[_Member], cache: FeatureCache, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    parts = []
    for start in range(0, len(rows), _CHUNK_IMAGES):
        chunk = rows[start : start + _CHUNK_IMAGES]
        probabilities = []
        for member in members:
            views = slice(0, 1) if member.run["settings"]["views"] == "0" else None
            X: Float = cache.load(rows=chunk, views=views, blocks=[block.name for block in member.heads[0].blocks])
            known = np.isfinite(X).all(axis=(1, 2))
            for head in member.heads:
                predicted = np.full((len(X), len(head.classes)), np.nan)
                if known.any():
                    predicted[known] = head.predict_images(X[known])
                probabilities.append(predicted)
        parts.append(average(probabilities))
    n_classes = len(members[0].heads[0].classes)
    return np.concatenate(parts) if parts else np.zeros((0, n_classes))


def _publish(path: Path, table: pd.DataFrame, folder: Path) -> None:
    content = table.to_csv(index=False, lineterminator="\n").encode()
    # Remembered first: a file whose hash no run knows could never be replaced by us again.
    remember_submission(folder, hashlib.sha256(content).hexdigest())
    publish(path, [content], replace=True)
