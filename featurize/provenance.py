"""What lies beside a cache: how it came about, which images were left out, which are the same bytes."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import platform
from collections import defaultdict
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch

from features_cache.errors import listed
from features_cache.files import publish
from features_cache.parts import Parts
from features_cache.plan import Plan
from features_cache.reader import FeatureCache
from features_cache.recipe import digest_of
from features_cache.status import Status
from featurize.channels import load_image
from featurize.decode import BadImage
from featurize.networks import Network

_SOURCES = "sources_digest"
_LIBRARIES = ("torch", "torchvision", "numpy", "h5py", "pillow", "safetensors")


def write_quarantine(path: Path, parts: Parts) -> int:
    """Write ``NAME.quarantine.csv`` beside a cache: id, status, reason and files of each image without features.

    Nothing is written where every image is good; a list of an earlier run then goes.

    Returns
    -------
    int
        How many images are in it.
    """
    target = path.with_suffix(".quarantine.csv")
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "status", "reason", "files"])
    n_bad = 0
    for unit, rows in parts.check():
        if rows is None:
            continue
        for row, code, reason in zip(parts.plan.rows_of(unit), rows.status, rows.reasons, strict=True):
            if code != Status.GOOD:
                files = " ".join(source.path for source in parts.plan.sources[row] if source.path)
                writer.writerow([parts.plan.ids[row], Status(code).words, reason, files])
                n_bad += 1
    if n_bad:
        publish(target, [text.getvalue().encode("utf-8", "surrogateescape")], replace=True)
    else:
        target.unlink(missing_ok=True)
    return n_bad


def write_provenance(
    path: Path, plan: Plan, networks: Sequence[Network], *, n_computed: int, wall_s: float, notes: Mapping[str, int]
) -> None:
    """Write ``NAME.json`` beside a cache: what moves no number, and yet one wants to know."""
    card = (
        torch.cuda.get_device_name() if plan.execution.device == "cuda" else platform.processor() or platform.machine()
    )
    record = {
        "program": f"permafeat {_version('permafeat')}",
        "libraries": {name: _version(name) for name in _LIBRARIES},
        "python": platform.python_version(),
        "hardware": card,
        "execution": dataclasses.asdict(plan.execution),
        "unit_images": plan.unit_images,
        "weights": {network.block.name: network.file.name if network.file else "random" for network in networks},
        "images_computed_by_the_last_run": n_computed,
        "seconds_of_the_last_run": round(wall_s, 3),
        "conversions": dict(notes),
        _SOURCES: _sources_digest(plan),
    }
    publish(path.with_suffix(".json"), [json.dumps(record, indent=2).encode()], replace=True)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _sources_digest(plan: Plan) -> str:
    return digest_of([[[file.path, file.n_bytes, file.mtime_ns] for file in files] for files in plan.sources])


def changed_images(cache: FeatureCache, root: Path, plan: Plan, max_pixels: int) -> list[str]:
    """Find images that are no longer those that a cache was made from.

    Names, sizes and times are compared first, as one digest; only where they differ are the files read, and only a changed
    content counts. An image that was quarantined has changed if it can be read now.

    Parameters
    ----------
    cache : FeatureCache
        Open; with the plan's ids.
    root : Path
        Folder of the images.
    plan : Plan
        What would be computed now.
    max_pixels : int
        Largest image that would be decoded.

    Returns
    -------
    list of str
        Ids.
    """
    try:
        known = json.loads(cache.path.with_suffix(".json").read_bytes()).get(_SOURCES)
    except (OSError, ValueError, AttributeError):
        known = None
    if known == _sources_digest(plan):
        return []
    changed = []
    recipe = plan.blocks[0].recipe
    for image_id, sources, digest, good in zip(plan.ids, plan.sources, cache.content_hash, cache.good, strict=True):
        try:
            loaded = load_image(root, sources, recipe.channels, scale=recipe.scale, max_pixels=max_pixels)
        except BadImage:
            if good:
                changed.append(image_id)
            continue
        if not good or not np.array_equal(loaded.content_hash, digest):
            changed.append(image_id)
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
    groups = [" = ".join(names) for names in holders.values() if len(names) > 1]
    if not groups:
        return []
    across = sum("train:" in group and "test:" in group for group in groups)
    found = f"{len(groups)} groups of images are the same bytes, {across} of them in both train and test"
    return [f"{found} ({listed(groups, 3)}); where their copies part in a split, scores are too high"]
