"""Networks with random weights: seeded, and given batch-norm statistics that keep their outputs alive.

In evaluation mode an untrained network divides by the variances 1 that it was born with; its outputs vanish or overflow. The
statistics of the first training images are set once, kept beside the cache, and loaded by everything that follows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from features_cache.files import publish
from features_cache.recipe import ADDED, Recipe, digest_of
from featurize.backbones.build import Backbone, build_backbone
from featurize.backbones.spelling import Spelling
from featurize.backbones.state import load_state, sha256_of_state

RANDOM_STATES = "random-weights"
CALIBRATION_IMAGES = 64


def random_backbone(name: str, recipe: Recipe, out: Path, inputs: Callable[[], Tensor]) -> tuple[Backbone, str]:
    """Build a seeded network and set its batch-norm statistics, or load those set before.

    All taps of a network are of the same weights. An own network keeps those that it is built with.

    Parameters
    ----------
    name : str
        The backbone, as spelled.
    recipe : Recipe
        Network and seed fix the weights; what it is given says what the statistics are of.
    out : Path
        Folder of the caches: statistics are kept beside them.
    inputs : callable
        Gives the calibration images as the network sees them, normalised: float32 tensor, shape (n, n_inputs, size_px, size_px).
        Asked only if needed.

    Returns
    -------
    backbone : Backbone
    sha256 : str
        Of all its weights and statistics.
    """
    spelling = Spelling.parse(name)
    with _seeded(f"{recipe.seed}/{spelling.network}"):
        backbone = build_backbone(name, recipe.size_px, None, len(recipe.mean))
    norms = {key: module for key, module in backbone.named_modules() if isinstance(module, _BatchNorm)}
    if norms:
        # Other statistics for other inputs; the images are not in the name, so that an extended set loads the same.
        seen: list[Any] = [recipe.size_px, recipe.seed, list(recipe.channels), recipe.scale]
        more = recipe.to_json()
        seen += [more[field] for field in sorted(ADDED) if field in more]
        path = out / RANDOM_STATES / f"{spelling.file_stem}-{digest_of(seen)[:8]}.safetensors"
        if not path.is_file():
            _set_statistics(backbone, list(norms.values()), inputs())
            state = {key: value for key, value in backbone.state_dict().items() if ".running_" in key}
            publish(path, [save(state)])
        # Loaded even by the process that wrote it: another may have come first.
        _put_statistics(backbone, load_state(path))
    return backbone, sha256_of_state(backbone.state_dict())


def _put_statistics(backbone: Backbone, statistics: Mapping[str, Tensor]) -> None:
    # Not load_state_dict: MNASNet's asks for a version that a file of statistics does not have.
    own = backbone.state_dict()
    with torch.no_grad():
        for key, value in statistics.items():
            own[key].copy_(value)


@contextmanager
def _seeded(text: str) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "little"))
        yield


def _set_statistics(backbone: Backbone, norms: Sequence[_BatchNorm], inputs: Tensor) -> None:
    """One pass in which the batch-norm layers, and they alone, are in training mode."""
    for norm in norms:
        norm.train()
        norm.momentum = 1.0  # the statistics of this one pass, nothing remembered
    with torch.inference_mode():
        backbone(inputs)
    for norm in norms:
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.zero_()  # not kept in the file: a process that loads it must have the same state
    backbone.eval()
