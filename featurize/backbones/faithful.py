"""Whether a network that was converted computes what the network itself does."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from features_cache.recipe import Precision
from featurize.backbones.build import Backbone

N_COMPARED = 2
# A wrong conversion is far off. Rounding is not: of bfloat16's 8 bits, a few per cent are left after a deep network.
_MOST_OFF = {"float32": 1e-3, "float16": 0.02, "bfloat16": 0.1}
_ROUNDING = {"float32": 1e-6, "float16": 5e-4, "bfloat16": 4e-3}
_TIMES_SHAKEN = 20


class NotConverted(Exception):
    """A runtime cannot convert a network, or not faithfully: torch has to run it as it is."""


@contextlib.contextmanager
def conversion_faults(runtime: str) -> Iterator[None]:
    """Turn whatever goes wrong inside into NotConverted.

    Parameters
    ----------
    runtime : str
        What converts, for the message.
    """
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError, torch.AcceleratorError):
        raise  # of the machine, and not of the network
    except Exception as error:  # their own failures have no common class, and tracing runs a network's own code
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        msg = f"{runtime} cannot convert it ({first[:200]})"
        raise NotConverted(msg) from error


def example_for(backbone: Backbone, side_px: int) -> Tensor:
    """Draw inputs for a comparison.

    Returns
    -------
    float32 tensor, shape (2, n_channels, side_px, side_px)
    """
    generator = torch.Generator().manual_seed(0)
    return torch.randn((N_COMPARED, backbone.n_channels, side_px, side_px), generator=generator)


def require_faithful(
    runtime: str, found: Tensor, network: Callable[[Tensor], Tensor], example: Tensor, precision: Precision
) -> None:
    """Check features against those of the network itself.

    Parameters
    ----------
    runtime : str
        What converted it, for the message.
    found : float32 tensor, shape (n, n_columns)
        Features of the first n examples.
    network : callable
        Gives features as they should be.
    example : float32 tensor, shape (>= n, n_channels, side_px, side_px)
    precision : {"float32", "bfloat16", "float16"}
        Arithmetic of the converted network.

    Raises
    ------
    NotConverted
        If they differ by more than rounding.
    """
    example = example[: len(found)]
    expected = network(example)
    off = _off(found, expected)
    if not off <= _MOST_OFF[precision]:
        # A chaotic network, as untrained ones may be, makes as much of the last bits of its input.
        shaken = _off(network(example * (1 + _ROUNDING[precision])), expected)
        if not off <= _TIMES_SHAKEN * shaken:
            msg = f"{runtime} computes other features ({off:.2g} off)"
            raise NotConverted(msg)


def _off(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm().clamp_min(1e-12))
