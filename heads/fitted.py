"""Fitted heads on disk: JSON for what they are, safetensors for their numbers. No code is ever loaded."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from features_cache.errors import CacheDamaged, OptionError, RecipeMismatch, RunError, listed
from features_cache.recipe import Block, recipe_differences, show_differences
from heads.arrays import Float, Float64
from heads.catalogue import HEADS, make_head
from heads.ensemble import average_views
from heads.head import Head
from heads.mlp import MLPHead, S0Networks

FORMAT = "permafeat-head"
VERSION = 2
_LINEAR_ARRAYS = ("coef_", "intercept_")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FittedHead:
    """A head that can predict, and all that must fit for its predictions to mean something.

    Parameters
    ----------
    name : str
        A key of ``HEADS``.
    head : fitted head
        Its classes are indices into ``classes``.
    classes : tuple of str
    blocks : tuple of Block
        What it was fitted on, in order; positions are those in the training cache.
    """

    name: str
    head: Head
    classes: tuple[str, ...]
    blocks: tuple[Block, ...]

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
        probabilities = np.zeros((n_images * n_views, len(self.classes)), dtype=np.float32)
        probabilities[:, self.head.classes_] = self.head.predict_proba(X.reshape(n_images * n_views, n_columns))
        return average_views(probabilities, n_views)

    def to_bytes(self) -> tuple[bytes, bytes]:
        """Return the JSON and the safetensors file."""
        tensors = save(_arrays(self.head))
        settings = {name: value for name, value in self.head.get_params().items() if value is not None}
        description = {
            "format": FORMAT,
            "version": VERSION,
            "name": self.name,
            "settings": settings,
            "classes": list(self.classes),
            "n_columns": self.head.n_features_in_,
            "blocks": [block.to_json() for block in self.blocks],
            "tensors_sha256": hashlib.sha256(tensors).hexdigest(),
        }
        return (json.dumps(description, indent=1, ensure_ascii=False) + "\n").encode(), tensors


def _arrays(head: Head) -> dict[str, NDArray[Any]]:
    if isinstance(head, MLPHead):
        return {f"networks.{name}": tensor.numpy() for name, tensor in head.networks_.state_dict().items()}
    return {name: np.ascontiguousarray(getattr(head, name)) for name in _LINEAR_ARRAYS}


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
        head = make_head(fields["name"], **fields["settings"])
        blocks = tuple(Block.from_json(block) for block in fields["blocks"])
        classes = tuple(fields["classes"])
        _restore(head, load(tensors), len(classes), fields["n_columns"])
    except (OptionError, CacheDamaged, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        msg = f"{path}: not a head that this version can rebuild ({error}). {_AGAIN}"
        raise RunError(msg) from error
    if sum(block.columns for block in blocks) != head.n_features_in_:
        msg = f"{path}: {head.n_features_in_} columns, but its blocks have {sum(block.columns for block in blocks)}. {_AGAIN}"
        raise RunError(msg)
    return FittedHead(name=fields["name"], head=head, classes=classes, blocks=blocks)


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
    wanted = {"format", "version", "name", "settings", "classes", "n_columns", "blocks", "tensors_sha256"}
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        msg = f"{path}: not a head of permafeat (no format {FORMAT!r}). {_AGAIN}"
        raise RunError(msg)
    if fields.get("version") != VERSION:
        msg = f"{path}: head format {fields.get('version')!r}; this version of permafeat reads {VERSION}. {_AGAIN}, or change permafeat's version"
        raise RunError(msg)
    if set(fields) != wanted:
        msg = f"{path}: fields {listed(sorted(fields))}; expected {listed(sorted(wanted))}. {_AGAIN}"
        raise RunError(msg)
    if fields["name"] not in HEADS:
        msg = f"{path}: head {fields['name']!r} is not among {', '.join(HEADS)}. {_AGAIN}"
        raise RunError(msg)
    return fields


def _restore(head: Head, arrays: dict[str, NDArray[Any]], n_classes: int, n_columns: int) -> None:
    if isinstance(head, MLPHead):
        state = {
            name.removeprefix("networks."): array for name, array in arrays.items() if name.startswith("networks.")
        }
        head.networks_ = S0Networks(n_columns, head.width, n_classes, head.dropout)
        head.networks_.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in state.items()})
        head.networks_.eval()
    else:
        for name, shape in zip(_LINEAR_ARRAYS, ((n_columns, n_classes), (n_classes,)), strict=True):
            if arrays[name].shape != shape:
                msg = f"{name} has shape {arrays[name].shape}, expected {shape} for {n_columns} columns and {n_classes} classes"
                raise ValueError(msg)
            # A copy: arrays that lie askew in the file's bytes are slower, and torch warns of read-only ones.
            setattr(head, name, arrays[name].copy())
    head.classes_ = np.arange(n_classes)
    head.n_features_in_ = n_columns


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
