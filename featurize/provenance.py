"""What lies beside a cache: how it came about, which images were left out, which are the same bytes."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import platform
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features_cache.errors import listed
from features_cache.extras import installed_version, versions_here
from features_cache.files import publish
from features_cache.hardware import hardware_name
from features_cache.ledger import Ledger
from features_cache.plan import Execution, Plan
from features_cache.reader import FeatureCache
from features_cache.recipe import digest_of
from features_cache.record import EXECUTION, WEIGHTS, execution_in, read_record
from features_cache.sources import SourceFile
from features_cache.status import Status
from featurize.images.bad_image import BadImage
from featurize.images.channels import hash_image, load_image
from featurize.images.places import Place
from featurize.images.reading import Reading
from featurize.images.settings import SPLITS

_SOURCES = "sources_digest"


def write_quarantine(path: Path, plan: Plan, ledger: Ledger) -> None:
    """Write ``NAME.quarantine.csv`` beside a cache: id, status, reason and files of each image without features.

    Nothing is written where every image is good; a list of an earlier run then goes.
    """
    target = path.with_suffix(".quarantine.csv")
    if not ledger.reasons:
        target.unlink(missing_ok=True)
        return
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "status", "reason", "files"])
    for row, reason in sorted(ledger.reasons.items()):
        files = " ".join(source.path for source in plan.sources[row] if source.path)
        writer.writerow([plan.ids[row], Status(ledger.status[row]).words, reason, files])
    publish(target, [text.getvalue().encode("utf-8", "surrogateescape")], replace=True)


def write_provenance(
    path: Path,
    plan: Plan,
    *,
    weights: Mapping[str, str],
    n_computed: int,
    wall_s: float | None,
    conversions: Mapping[str, int],
) -> None:
    """Write ``NAME.json`` beside a cache: what moves no number, and yet one wants to know.

    Parameters
    ----------
    path : Path
        The cache.
    plan : Plan
    weights : mapping of str to str
        File, place on the hub and licence of each block's weights; of blocks that are not in it, what an earlier record said, or the file's hash.
    n_computed : int
        Images that the last run computed.
    wall_s : float or None
        Its seconds; None where it was killed before it could say.
    conversions : mapping of str to int
        How many images were converted, by rule.
    """
    hashes = {block.name: block.recipe.weights_sha256 if block.recipe.pretrained else "random" for block in plan.blocks}
    known = {name: file for name, file in read_record(path).get(WEIGHTS, {}).items() if name in hashes}
    record = {
        "program": f"permafeat {installed_version('permafeat')}",
        "libraries": versions_here(),
        "python": platform.python_version(),
        "hardware": hardware_name(plan.execution.device),
        EXECUTION: plan.execution.to_json(),
        "unit_images": plan.unit_images,
        WEIGHTS: hashes | (known if plan.base or not weights else {}) | dict(weights),
        "images_computed_by_the_last_run": n_computed,
        "seconds_of_the_last_run": None if wall_s is None else round(wall_s, 3),
        "conversions": dict(conversions),
        _SOURCES: _sources_digest(plan.sources),
    }
    _write(path, record)


def _write(path: Path, record: Mapping[str, Any]) -> None:
    publish(path.with_suffix(".json"), [json.dumps(record, indent=2).encode()], replace=True)


def execution_of(path: Path, otherwise: Execution) -> Execution:
    """Return how the networks ran that made a cache, if on the same kind of device: an extension runs alike."""
    found = known_execution(path)
    return found if found is not None and found.device == otherwise.device else otherwise


def known_execution(path: Path) -> Execution | None:
    """Return how the networks ran that made a cache, as far as it is known; a record that outlived its cache tells nothing."""
    return execution_in(read_record(path)) if path.is_file() else None


def _sources_digest(sources: Iterable[Sequence[SourceFile]]) -> str:
    return digest_of([[[file.path, file.n_bytes, file.sign] for file in files] for files in sources])


def _sources_of(ids: Sequence[str], plan: Plan) -> Sequence[tuple[SourceFile, ...]]:
    row_of = {image_id: row for row, image_id in enumerate(plan.ids)}
    return [plan.sources[row_of[image_id]] for image_id in ids]


def changed_rows(cache: FeatureCache, root: Place, plan: Plan, reading: Reading) -> NDArray[np.bool_]:
    """Find images that are no longer those that a cache was made from.

    Names, sizes and times are compared first, as one digest; only where they differ are the files read, and only a changed
    content counts. An image whose file could not be read has changed if it can be read now.

    Parameters
    ----------
    cache : FeatureCache
        Open; the plan has all its ids.
    root : Place
        Folder of the images.
    plan : Plan
        What would be computed now.
    reading : Reading
        How images are read.

    Returns
    -------
    bool array, shape (cache.n_images,)
    """
    known = read_record(cache.path)
    sources = plan.sources if cache.ids == plan.ids else _sources_of(cache.ids, plan)
    digest = _sources_digest(sources)
    if known.get(_SOURCES) == digest:
        return np.zeros(cache.n_images, bool)

    def is_changed(row: int) -> bool:
        files = sources[row]
        try:
            if cache.content_hash[row].any():
                return not np.array_equal(hash_image(root, files), cache.content_hash[row])
            load_image(root, files, reading)
        except BadImage:
            return bool(cache.good[row])
        return True

    with ThreadPoolExecutor() as pool:
        changed = np.fromiter(pool.map(is_changed, range(cache.n_images)), bool, cache.n_images)
    if not changed.any():
        # Copied files have other times: read once, and not at every run.
        _write(cache.path, known | {_SOURCES: digest})
    return changed


def other_runtimes(paths: Sequence[Path]) -> list[str]:
    """Say where networks of several caches, which heads will take for features of one kind, were not run by one runtime.

    Returns
    -------
    list of str
        One warning at most.
    """
    ran = {path: found.runtime for path in paths if (found := known_execution(path)) is not None}
    if len(set(ran.values())) < 2:
        return []
    told = ", ".join(f"{path} by {runtime}" for path, runtime in ran.items())
    return [f"networks were run {told}: features of the same image differ by rounding; --overwrite makes them alike"]


def same_bytes(paths: Sequence[Path]) -> list[str]:
    """Find images whose files are equal to the byte, within and between caches: leakage, if they part in a split.

    Returns
    -------
    list of str
        One warning at most, with the number of groups and examples.
    """
    with contextlib.ExitStack() as stack:
        caches = [stack.enter_context(FeatureCache(path)) for path in paths]
        holders: dict[bytes, list[str]] = defaultdict(list)
        for cache, rows in zip(caches, _doubled([cache.content_hash for cache in caches]), strict=True):
            for row in rows:
                if cache.good[row]:
                    holders[cache.content_hash[row].tobytes()].append(f"{cache.path.stem}:{cache.ids[row]}")
    groups = [names for names in holders.values() if len(names) > 1]
    if not groups:
        return []
    across = sum({name.partition(":")[0].removesuffix("_cells") for name in names} >= set(SPLITS) for names in groups)
    found = f"{len(groups)} groups of images are the same bytes, {across} of them in both train and test"
    shown = listed([" = ".join(names) for names in groups], 3)
    return [f"{found} ({shown}); where their copies part in a split, scores are too high"]


def _doubled(hashes: Sequence[NDArray[np.uint8]]) -> list[list[int]]:
    """Find the rows of each array whose hash is in any of them twice, ascending; sorted, as a dictionary of all takes ten times the memory."""
    if not hashes:
        return []
    every = np.ascontiguousarray(np.concatenate(hashes)).view(np.uint64)
    order = np.lexsort(every.T)
    alike = (every[order[1:]] == every[order[:-1]]).all(axis=1)
    is_doubled = np.zeros(len(every), bool)
    is_doubled[order[1:][alike]] = is_doubled[order[:-1][alike]] = True
    ends = np.cumsum([len(rows) for rows in hashes])[:-1]
    return [np.flatnonzero(rows).tolist() for rows in np.split(is_doubled, ends)]
