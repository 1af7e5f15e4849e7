"""Which device runs the networks, and which arithmetic it is good at. Asked, never assumed."""

from __future__ import annotations

from typing import Literal

from features_cache import hardware
from features_cache.errors import OptionError
from features_cache.hardware import cpu_is_fast_in_bfloat16, cuda_is_fast_in_bfloat16
from features_cache.recipe import Precision

Device = Literal["cpu", "cuda", "mps"]
_UNIT_IMAGES = {"cpu": 32, "cuda": 256, "mps": 64}
_MICRO_BATCH = {"cpu": 16, "cuda": 128, "mps": 32}


def choose_device(wanted: str) -> Device:
    """Turn ``auto`` into the best device there is.

    Raises
    ------
    OptionError
        If the device that was asked for is not there.
    """
    return hardware.choose_device(wanted, ("cuda", "mps", "cpu"))  # type: ignore[return-value]


def choose_precision(wanted: str, device: Device) -> Precision:
    """Turn ``auto`` into the fastest arithmetic whose features stay within tolerance.

    Raises
    ------
    OptionError
        If the device cannot do what was asked for.
    """
    if wanted == "auto":
        if device == "cpu":
            return "bfloat16" if cpu_is_fast_in_bfloat16() else "float32"
        if device == "cuda":
            return "bfloat16" if cuda_is_fast_in_bfloat16() else "float16"
        return "float32"
    if wanted == "float16" and device == "cpu":
        msg = "--precision float16 needs a GPU; on a CPU take bfloat16 or float32 (or auto)"
        raise OptionError(msg)
    return wanted  # type: ignore[return-value]


def unit_images(device: Device) -> int:
    """Return how many images are decoded, computed and committed together: what a kill costs, at most."""
    return _UNIT_IMAGES[device]


def micro_batch(device: Device) -> int:
    """Return how many views one forward pass takes. Fixed: features may move in the last bit with the shape of the batch."""
    return _MICRO_BATCH[device]
