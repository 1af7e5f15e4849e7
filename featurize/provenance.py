"""What lies beside a cache: how it came about, which images were left out, which are the same bytes."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import platform
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from features_cache.errors import listed
from features_cache.extras import installed_version
from features_cache.files import open_regular, publish
from features_cache.ledger import Ledger
from features_cache.plan import Execution, Plan
from features_cache.reader import FeatureCache
from features_cache.recipe import digest_of
from features_cache.status import Status
from featurize.images.bad_image import BadImage
from featurize.images.channels import hash_image, load_image
from featurize.images.reading import Reading
from featurize.images.settings import SPLITS

_SOURCES, _EXECUTION, _WEIGHTS = "sources_digest", "execution", "weights"
_LIBRARIES = ("torch", "torchvision", "timm", "numpy", "h5py", "pillow", "safetensors")


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
    known = {name: file for name, file in _provenance(path).get(_WEIGHTS, {}).items() if name in hashes}
    record = {
        "program": f"permafeat {installed_version('permafeat')}",
        "libraries": {name: installed_version(name) for name in _LIBRARIES},
        "python": platform.python_version(),
        "hardware": _hardware(plan.execution.device),
        _EXECUTION: dataclasses.asdict(plan.execution),
        "unit_images": plan.unit_images,
        _WEIGHTS: hashes | (known if plan.base or not weights else {}) | dict(weights),
        "images_computed_by_the_last_run": n_computed,
        "seconds_of_the_last_run": None if wall_s is None else round(wall_s, 3),
        "conversions": dict(conversions),
        _SOURCES: _sources_digest(plan),
    }
    _write(path, record)


def _hardware(device: str) -> str:
    # Parts may be joined on a machine without the card that computed them.
    if device == "cuda" and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return platform.processor() or platform.machine()


def _provenance(path: Path) -> dict[str, Any]:
    """Read ``NAME.json``; empty where it is lost, as nothing depends on it."""
    try:
        with open_regular(path.with_suffix(".json")) as file:
            record = json.load(file)
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _write(path: Path, record: Mapping[str, Any]) -> None:
    publish(path.with_suffix(".json"), [json.dumps(record, indent=2).encode()], replace=True)


def execution_of(path: Path, otherwise: Execution) -> Execution:
    """Return how the networks ran that made a cache, if on the same kind of device: an extension runs alike."""
    try:
        found = Execution(**_provenance(path).get(_EXECUTION, {}))
    except TypeError:
        return otherwise
    return found if found.device == otherwise.device else otherwise


def _sources_digest(plan: Plan) -> str:
    return digest_of([[[file.path, file.n_bytes, file.mtime_ns] for file in files] for files in plan.sources])


def changed_rows(cache: FeatureCache, root: Path, plan: Plan, reading: Reading) -> NDArray[np.bool_]:
    """Find images that are no longer those that a cache was made from.

    Names, sizes and times are compared first, as one digest; only where they differ are the files read, and only a changed
    content counts. An image whose file could not be read has changed if it can be read now.

    Parameters
    ----------
    cache : FeatureCache
        Open; the plan has all its ids.
    root : Path
        Folder of the images.
    plan : Plan
        What would be computed now.
    reading : Reading
        How images are read.

    Returns
    -------
    bool array, shape (cache.n_images,)
    """
    known = _provenance(cache.path)
    if cache.ids == plan.ids and known.get(_SOURCES) == _sources_digest(plan):
        return np.zeros(cache.n_images, bool)
    sources = dict(zip(plan.ids, plan.sources, strict=True))

    def is_changed(row: int) -> bool:
        files = sources[cache.ids[row]]
        try:
            if cache.content_hash[row].any():
                return not np.array_equal(hash_image(root, files), cache.content_hash[row])
            load_image(root, files, reading)
        except BadImage:
            return bool(cache.good[row])
        return True

    with ThreadPoolExecutor() as pool:
        changed = np.fromiter(pool.map(is_changed, range(cache.n_images)), bool, cache.n_images)
    if cache.ids == plan.ids and not changed.any():
        # Copied files have other times: read once, and not at every run.
        _write(cache.path, known | {_SOURCES: _sources_digest(plan)})
    return changed


def same_bytes(paths: Sequence[Path]) -> list[str]:
    """Find images whose files are equal to the byte, within and between caches: leakage, if they part in a split.

    Returns
    -------
    list of str
        One warning at most, with the number of groups and examples.
    """
    holders: dict[bytes, list[str]] = defaultdict(list)
    for path in paths:
        with FeatureCache(path) as cache:
            for image_id, digest, good in zip(cache.ids, cache.content_hash, cache.good, strict=True):
                if good:
                    holders[digest.tobytes()].append(f"{path.stem}:{image_id}")
    groups = [names for names in holders.values() if len(names) > 1]
    if not groups:
        return []
    across = sum({name.partition(":")[0].removesuffix("_cells") for name in names} >= set(SPLITS) for names in groups)
    found = f"{len(groups)} groups of images are the same bytes, {across} of them in both train and test"
    shown = listed([" = ".join(names) for names in groups], 3)
    return [f"{found} ({shown}); where their copies part in a split, scores are too high"]
