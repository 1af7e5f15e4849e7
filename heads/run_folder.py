"""The run folder: it appears whole or not at all, and knows the hash of each of its files."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from features_cache.errors import InputError, OutputExists, RunError
from features_cache.files import DISK, publish
from heads.fitted import FittedHead, load_head, same_classes

FORMAT = "permafeat-run"
_MOST_NAME_BYTES = 255
VERSION = 3
RUNS = Path("runs")
LATEST = "latest"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one `fit_heads` leaves behind.

    Parameters
    ----------
    folder : Path
    metrics : dict
        As in metrics.json.
    warnings : tuple of str
    notes : tuple of str
        How far test images are from training images.
    search : dict
        As in run.json: what was tried for each head; empty without a search.
    """

    folder: Path
    metrics: dict[str, Any]
    warnings: tuple[str, ...]
    notes: tuple[str, ...] = ()
    search: dict[str, Any] = dataclasses.field(default_factory=dict)


def choose_folder(out: Path | None) -> Path:
    """Return the run folder: the one asked for, or the next free number under ``runs/``.

    Raises
    ------
    OutputExists
        If the folder asked for is there already.
    """
    if out is None:
        taken = [int(path.name) for path in RUNS.glob("[0-9]*") if path.name.isdecimal()] if RUNS.is_dir() else []
        return RUNS / f"{max(taken, default=0) + 1:03d}"
    if out.exists() or out.is_symlink():
        msg = f"{out}: exists; expected a new folder for the run. Name another with --out, or leave --out away for the next free number"
        raise OutputExists(msg)
    return out


def publish_run(
    folder: Path, files: Mapping[str, bytes], description: Mapping[str, Any], *, numbered: bool = False
) -> Path:
    """Write a run folder beside its place and rename it there.

    Parameters
    ----------
    folder : Path
        Must not exist.
    files : mapping of str to bytes
        Content by path within the folder.
    description : mapping
        What run.json holds beside the hashes.
    numbered : bool
        Whether the next free number will do where another run took the name meanwhile.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    InputError
        If the folder cannot be made.
    OutputExists
        If another run took the name meanwhile.
    """
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    run = {"format": FORMAT, "version": VERSION} | dict(description) | {"files": hashes, "submissions": []}
    run["sha256"] = _digest(run)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".permafeat-run-", dir=folder.parent))
    except OSError as error:
        msg = f"{folder.parent}: cannot be written ({error.strerror}); choose another folder with --out"
        raise InputError(msg) from error
    try:
        # mkdtemp makes a folder that only its owner can enter; a run is as readable as any other.
        temporary.chmod(folder.parent.stat().st_mode & 0o777)
        for name, content in files.items():
            publish(temporary / name, [content])
        publish(temporary / "run.json", [json_bytes(run)])
        folder = _take_name(temporary, folder, numbered=numbered)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _point_latest(folder)
    return folder


def _take_name(temporary: Path, folder: Path, *, numbered: bool) -> Path:
    """Rename a whole run to its place, durably."""
    while True:
        try:
            temporary.rename(folder)
        except OSError as error:
            if error.errno not in {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}:
                raise
            if not numbered:
                msg = f"{folder}: exists; another run took the name. Name another with --out"
                raise OutputExists(msg) from error
            folder = choose_folder(None)
        else:
            DISK.fsync_folder(folder.parent)
            return folder


def json_bytes(value: object) -> bytes:
    """Serialise as a run folder's JSON files are: one line a value, UTF-8, no NaN."""
    return (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _point_latest(folder: Path) -> None:
    latest = folder.parent / LATEST
    if folder.parent.name != RUNS.name:
        # A run that was put elsewhere has no neighbours to be the newest of.
        return
    if latest.exists() and not latest.is_symlink() and not latest.is_file():
        return
    with contextlib.suppress(OSError):
        temporary = folder.parent / f".permafeat-{LATEST}-{os.getpid()}"
        temporary.symlink_to(folder.name, target_is_directory=True)
        temporary.replace(latest)
        return
    # A file system without symbolic links: a text file says the same.
    publish(latest, [f"{folder.name}\n".encode()], replace=True)


def find_run(path: Path) -> Path:
    """Follow ``latest`` to a run folder, and check that it is one.

    Raises
    ------
    RunError
        If there is no run.
    """
    folder = path
    if path.is_file():
        folder = path.parent / path.read_bytes()[:_MOST_NAME_BYTES].decode("utf-8", "replace").strip()
    if not (folder / "run.json").is_file():
        msg = f"{path}: no run there (no run.json); expected a folder that `cli fit-heads` wrote. Run it first, or name one with --run"
        raise RunError(msg)
    return folder.resolve()


def read_run(folder: Path) -> dict[str, Any]:
    """Read run.json.

    Raises
    ------
    RunError
        If it is missing, malformed or of a newer format.
    """
    path = folder / "run.json"
    try:
        run = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        msg = f"{path}: cannot be read ({error}); expected what `cli fit-heads` wrote. Fit the heads again"
        raise RunError(msg) from error
    if not isinstance(run, dict) or run.get("format") != FORMAT:
        msg = f"{path}: not a run of permafeat (no format {FORMAT!r}). Fit the heads again with `cli fit-heads`"
        raise RunError(msg)
    if run.get("version") != VERSION:
        msg = (
            f"{path}: run format {run.get('version')!r}; this version of permafeat reads {VERSION}. Fit the heads again with "
            f"`cli fit-heads`, or change permafeat's version"
        )
        raise RunError(msg)
    lacking = sorted(
        {"heads", "files", "settings", "classes", "blocks", "submissions", "target", "ensemble", "sha256"} - set(run)
    )
    if lacking:
        msg = f"{path}: lacks {', '.join(lacking)}; it was edited. Fit the heads again with `cli fit-heads`"
        raise RunError(msg)
    if run["sha256"] != _digest(run):
        msg = f"{path}: edited since it was written (its content's sha256 is not the one in it). Fit the heads again with `cli fit-heads`"
        raise RunError(msg)
    return run


def _digest(run: Mapping[str, Any]) -> str:
    """Return the sha256 of what a run says of itself, but for the submissions, which are added later."""
    return hashlib.sha256(
        json_bytes({key: run[key] for key in sorted(set(run) - {"sha256", "submissions"})})
    ).hexdigest()


def read_checked(folder: Path, run: Mapping[str, Any], name: str) -> Any:  # noqa: ANN401 - JSON is anything
    """Read one of the run's JSON files, checked against its hash in run.json.

    Raises
    ------
    RunError
        If it is missing or edited.
    """
    path = folder / name
    try:
        content = path.read_bytes()
        expected = run["files"][name]
    except (OSError, KeyError) as error:
        msg = f"{path}: missing from the run. Fit the heads again with `cli fit-heads`"
        raise RunError(msg) from error
    if hashlib.sha256(content).hexdigest() != expected:
        msg = f"{path}: edited since it was written (its sha256 is not the one in run.json). Fit the heads again with `cli fit-heads`"
        raise RunError(msg)
    return json.loads(content)


def load_heads(
    folder: Path, run: Mapping[str, Any], names: Sequence[str] = (), *, under: str = "heads"
) -> tuple[FittedHead, ...]:
    """Load a run's heads.

    Parameters
    ----------
    folder : Path
    run : mapping
        As :func:`read_run` gives.
    names : sequence of str
        Which; empty for all.
    under : str
        The folder within the run.

    Returns
    -------
    tuple of FittedHead

    Raises
    ------
    RunError
        If the run lacks one, or a file was edited.
    """
    there = list(run["heads"])
    for name in names:
        if name not in there:
            msg = f"{folder}: no head {name!r}; the run has {', '.join(there)}. Choose among them with --heads"
            raise RunError(msg)
    wanted = list(names) or there
    paths = [folder / under / f"{name}.json" for name in wanted]
    unlisted = [path.name for path in paths if f"{under}/{path.name}" not in run["files"]]
    if unlisted:
        msg = f"{folder}: run.json does not list {', '.join(unlisted)}; it was edited. Fit the heads again with `cli fit-heads`"
        raise RunError(msg)
    heads = tuple(load_head(path, sha256=run["files"][f"{under}/{path.name}"]) for path in paths)
    classes = same_classes(heads, paths)
    if list(classes) != list(run["classes"]):
        msg = f"{paths[0]}: other classes than run.json. Fit the heads again with `cli fit-heads`"
        raise RunError(msg)
    return heads


def remember_submission(folder: Path, sha256: str) -> None:
    """Add the hash of a submission to run.json, so that it may be replaced later."""
    run = read_run(folder)
    if sha256 not in run["submissions"]:
        publish(folder / "run.json", [json_bytes(run | {"submissions": [*run["submissions"], sha256]})], replace=True)


def known_submissions(folders: Sequence[Path]) -> frozenset[str]:
    """Gather the hashes of all submissions that these runs, and the runs beside them, wrote."""
    hashes: set[str] = set()
    for parent in {folder.parent for folder in folders}:
        for path in parent.glob("*/run.json"):
            with contextlib.suppress(RunError):
                hashes.update(read_run(path.parent).get("submissions", ()))
    return frozenset(hashes)


def list_runs(folder: Path) -> list[dict[str, Any]]:
    """List runs with their headline figures, oldest name first.

    Parameters
    ----------
    folder : Path
        The folder of run folders.

    Returns
    -------
    list of dict
        ``run``, ``n_images``, ``n_classes``, ``folds``, ``repeats``, ``group_column``, ``blocks``, ``random_weights`` and
        ``heads``: each head's headline figures. Of a run that cannot be read ``run`` and ``error`` alone.

    Raises
    ------
    RunError
        If the folder is missing.
    """
    if not folder.is_dir():
        msg = f"{folder}: no such folder; expected runs of `cli fit-heads`. Run it first, or name the folder"
        raise RunError(msg)
    rows = []
    for path in sorted(folder.glob("*/run.json")):
        if path.parent.is_symlink() or path.parent.name.startswith("."):
            continue  # the link to the latest one, and what a killed fit left behind
        try:
            rows.append(_headline(path.parent))
        except RunError as error:
            rows.append({"run": path.parent.name, "error": str(error)})
    return rows


def _headline(folder: Path) -> dict[str, Any]:
    run = read_run(folder)
    metrics = read_checked(folder, run, "metrics.json")
    scores = {
        name: {key: value for key, value in figures.items() if isinstance(value, dict) and "low" in value}
        for name, figures in metrics["heads"].items()
    }
    settings = run["settings"]
    return {
        "run": folder.name,
        "n_images": metrics["n_images"],
        "n_classes": len(metrics["classes"]),
        "folds": settings["folds"],
        "repeats": settings["repeats"],
        "group_column": settings["group_column"],
        "blocks": [block["name"] for block in run["blocks"]],
        "random_weights": metrics["random_weights"],
        "heads": scores,
    }
