"""Networks with random weights: seeded, and given batch-norm statistics that keep their outputs alive.

In evaluation mode an untrained network divides by the variances 1 that it was born with; its outputs vanish or overflow. The
statistics of the first training images are set once, kept beside the cache, and loaded by everything that follows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from safetensors.torch import save
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from features_cache.files import publish
from features_cache.recipe import digest_of
from featurize.backbones import N_CHANNELS, Backbone, build_backbone
from featurize.profile import Profile, profile_of
from featurize.settings import FeaturizeSettings
from featurize.spelling import Spelling
from featurize.state import load_state, sha256_of_state

RANDOM_STATES = "random-weights"
CALIBRATION_IMAGES = 64


def random_backbone(
    name: str, settings: FeaturizeSettings, images: Callable[[], Tensor], n_channels: int = N_CHANNELS
) -> tuple[Backbone, str]:
    """Build a seeded network and set its batch-norm statistics, or load those set before.

    All taps of a network are of the same weights. An own network keeps those that it is built with.

    Parameters
    ----------
    name : str
        The backbone, as spelled.
    settings : FeaturizeSettings
        The seed fixes the weights with the network's name; size, channels and scale say what the statistics are of; they
        are kept beside the cache.
    images : callable
        Gives the calibration images: float32 tensor, shape (n, n_channels, size_px, size_px), in [0, 1]. Asked only if
        needed.
    n_channels : int
        Of the images.

    Returns
    -------
    backbone : Backbone
    sha256 : str
        Of all its weights and statistics.
    """
    spelling = Spelling.parse(name)
    with _seeded(f"{settings.seed}/{spelling.network}"):
        backbone = build_backbone(name, settings.size_px, None, n_channels)
    norms = {key: module for key, module in backbone.named_modules() if isinstance(module, _BatchNorm)}
    if norms:
        # Other statistics for other inputs; the images are not in the name, so that an extended set loads the same.
        facts = [settings.size_px, settings.seed, list(settings.channels), settings.scale]
        inputs = digest_of(facts + ([] if n_channels == N_CHANNELS else [n_channels]))[:8]
        path = settings.out / RANDOM_STATES / f"{spelling.file_stem}-{inputs}.safetensors"
        if not path.is_file():
            _set_statistics(backbone, list(norms.values()), images(), profile_of(name))
            state = {key: value for key, value in backbone.state_dict().items() if ".running_" in key}
            publish(path, [save(state)])
        # Loaded even by the process that wrote it: another may have come first.
        backbone.load_state_dict(load_state(path), strict=False)
    return backbone, sha256_of_state(backbone.state_dict())


@contextmanager
def _seeded(text: str) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "little"))
        yield


def _set_statistics(backbone: Backbone, norms: Sequence[_BatchNorm], images: Tensor, profile: Profile) -> None:
    """One pass in which the batch-norm layers, and they alone, are in training mode."""
    places = [channel % N_CHANNELS for channel in range(images.shape[1])]
    mean, std = (torch.tensor(values)[places].view(1, -1, 1, 1) for values in (profile.mean, profile.std))
    for norm in norms:
        norm.train()
        norm.momentum = 1.0  # the statistics of this one pass, nothing remembered
    with torch.inference_mode():
        backbone((images - mean) / std)
    for norm in norms:
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.zero_()  # not kept in the file: a process that loads it must have the same state
    backbone.eval()
