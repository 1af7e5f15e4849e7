"""Fitted heads on disk: JSON for what they are, safetensors for their numbers. No code is ever loaded."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from features_cache.errors import CacheDamaged, OptionError, RecipeMismatch, RunError, listed
from features_cache.recipe import Block, recipe_differences, show_differences
from heads.arrays import Float, Float32, Float64
from heads.estimators.catalogue import HEADS, kind_of, make_head
from heads.estimators.head import Head
from heads.probabilities import image_probabilities

FORMAT = "permafeat-head"
VERSION = 3


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FittedHead:
    """A head that can predict, and all that must fit for its predictions to mean something.

    Parameters
    ----------
    name : str
        What the run calls it.
    head : fitted head
        Its classes are indices into ``classes``.
    classes : tuple of str
    blocks : tuple of Block
        What it was fitted on, in order; positions are those in the training cache.
    shift : float64 array, shape (n_classes,)
        To the prior that probabilities speak of; see :mod:`heads.prior`.
    """

    name: str
    head: Head
    classes: tuple[str, ...]
    blocks: tuple[Block, ...]
    shift: Float64

    def predict_images(self, X: Float) -> Float64:
        """Predict images, views averaged; 0 for classes that the head never saw.

        Parameters
        ----------
        X : float32 array, shape (n_images, n_views, n_columns)
            The columns of ``blocks``, in order.

        Returns
        -------
        float64 array, shape (n_images, n_classes)
        """
        n_images, n_views, n_columns = X.shape
        known: Float32 = np.asarray(self.head.member_scores(X.reshape(n_images * n_views, n_columns)), dtype=np.float32)
        scores = np.full((len(known), n_images, n_views, len(self.classes)), -np.inf, dtype=np.float32)
        scores[..., self.head.classes_] = known.reshape(len(known), n_images, n_views, -1)
        return image_probabilities(scores, self.head.temperature, self.shift, many=self.head.is_many_)

    def to_bytes(self) -> tuple[bytes, bytes]:
        """Return the JSON and the safetensors file."""
        tensors = save(self.head.arrays())
        settings = {name: value for name, value in self.head.get_params().items() if value is not None}
        description = {
            "format": FORMAT,
            "version": VERSION,
            "name": self.name,
            "kind": kind_of(self.head),
            "settings": settings,
            "many_labels": self.head.is_many_,
            "shift": self.shift.tolist(),
            "classes": list(self.classes),
            "n_columns": self.head.n_features_in_,
            "blocks": [block.to_json() for block in self.blocks],
            "tensors_sha256": hashlib.sha256(tensors).hexdigest(),
        }
        return (json.dumps(description, indent=1, ensure_ascii=False) + "\n").encode(), tensors


def load_head(path: Path, *, sha256: str | None = None) -> FittedHead:
    """Rebuild a fitted head from the allow-list of heads.

    Parameters
    ----------
    path : Path
        The JSON file; the safetensors file stands beside it.
    sha256 : str, optional
        What the JSON's hash must be, as the run's ``run.json`` has it.

    Returns
    -------
    FittedHead

    Raises
    ------
    RunError
        If a file is missing, was edited, is of a newer format, names an unknown head, or its numbers do not fit.
    """
    text = _read(path)
    if sha256 is not None and hashlib.sha256(text).hexdigest() != sha256:
        msg = f"{path}: edited since it was written (sha256 {hashlib.sha256(text).hexdigest()[:12]}, run.json has {sha256[:12]}). {_AGAIN}"
        raise RunError(msg)
    fields = _fields(path, text)
    tensors_path = path.with_suffix(".safetensors")
    tensors = _read(tensors_path)
    found = hashlib.sha256(tensors).hexdigest()
    if found != fields["tensors_sha256"]:
        msg = f"{tensors_path}: edited since it was written (sha256 {found[:12]}, {path.name} has {fields['tensors_sha256'][:12]}). {_AGAIN}"
        raise RunError(msg)
    try:
        head = make_head(fields["kind"], **fields["settings"])
        blocks = tuple(Block.from_json(block) for block in fields["blocks"])
        classes = tuple(fields["classes"])
        shift = np.array(fields["shift"], dtype=np.float64).reshape(len(classes))
        head.is_many_ = bool(fields["many_labels"])
        head.restore(load(tensors), n_columns=fields["n_columns"], n_classes=len(classes))
    except (OptionError, CacheDamaged, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        msg = f"{path}: not a head that this version can rebuild ({error}). {_AGAIN}"
        raise RunError(msg) from error
    if sum(block.columns for block in blocks) != head.n_features_in_:
        msg = f"{path}: {head.n_features_in_} columns, but its blocks have {sum(block.columns for block in blocks)}. {_AGAIN}"
        raise RunError(msg)
    return FittedHead(name=fields["name"], head=head, classes=classes, blocks=blocks, shift=shift)


_AGAIN = "Fit the heads again with `cli fit-heads`"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        msg = f"{path}: cannot be read ({error.strerror}); expected a head of the run. {_AGAIN}"
        raise RunError(msg) from error


def _fields(path: Path, text: bytes) -> Mapping[str, Any]:
    try:
        fields = json.loads(text)
    except ValueError as error:
        msg = f"{path}: not JSON ({error}). {_AGAIN}"
        raise RunError(msg) from error
    wanted = {"format", "version", "name", "kind", "settings", "many_labels", "shift", "classes", "n_columns", "blocks"}
    wanted |= {"tensors_sha256"}
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        msg = f"{path}: not a head of permafeat (no format {FORMAT!r}). {_AGAIN}"
        raise RunError(msg)
    if fields.get("version") != VERSION:
        msg = f"{path}: head format {fields.get('version')!r}; this version of permafeat reads {VERSION}. {_AGAIN}, or change permafeat's version"
        raise RunError(msg)
    if set(fields) != wanted:
        msg = f"{path}: fields {listed(sorted(fields))}; expected {listed(sorted(wanted))}. {_AGAIN}"
        raise RunError(msg)
    if fields["kind"] not in HEADS:
        msg = f"{path}: head {fields['kind']!r} is not among {', '.join(HEADS)}. {_AGAIN}"
        raise RunError(msg)
    return fields


def check_blocks(where: str, wanted: Sequence[Block], found: Sequence[Block]) -> tuple[str, ...]:
    """Check that a cache holds the blocks that heads were fitted on, to the last field of their recipes.

    Parameters
    ----------
    where : str
        What to call the cache.
    wanted : sequence of Block
        The heads'.
    found : sequence of Block
        The cache's; there may be more.

    Returns
    -------
    tuple of str
        Names of the wanted blocks, in the heads' order.

    Raises
    ------
    RecipeMismatch
        If a block is missing or of another recipe; the message shows the differing fields.
    """
    by_name = {block.name: block for block in found}
    faults = []
    for block in wanted:
        other = by_name.get(block.name)
        if other is None:
            faults.append(f"no block {block.name!r} (it has {', '.join(by_name)})")
        elif other.digest != block.digest:
            shown = show_differences(recipe_differences(block.recipe, other.recipe), "in the heads", "in the cache")
            faults.append(f"block {block.name!r} is of another recipe:\n{shown}")
        elif other.columns != block.columns:
            faults.append(f"block {block.name!r} has {other.columns} columns, the heads {block.columns}")
    if faults:
        msg = (
            f"{where} does not hold what the heads were fitted on: " + "\n".join(faults) + "\n"
            "Featurize these images with the options of the training images, or fit the heads again"
        )
        raise RecipeMismatch(msg)
    return tuple(block.name for block in wanted)


def same_classes(heads: Sequence[FittedHead], where: Sequence[Path]) -> tuple[str, ...]:
    """Check that heads speak of the same classes, and return them.

    Raises
    ------
    RunError
        If they do not.
    """
    classes = heads[0].classes
    for head, path in zip(heads, where, strict=True):
        if head.classes != classes:
            only = sorted(set(classes) ^ set(head.classes))
            msg = f"{path}: head {head.name!r} knows other classes than {where[0]} (differing: {listed(only)}). Fit them on the same labels"
            raise RunError(msg)
    return classes
