"""Which device runs the networks, and which arithmetic it is good at. Asked, never assumed."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from typing import Any, Literal, cast

from features_cache import hardware
from features_cache.errors import OptionError
from features_cache.extras import load_extra
from features_cache.hardware import cpu_is_fast_in_bfloat16, cuda_is_fast_in_bfloat16
from features_cache.plan import OPENVINO, TORCH
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


def choose_runtime(wanted: str, device: str, wanted_by: str = "--runtime openvino") -> str:
    """Turn ``auto`` into the quickest runtime that is installed and sure to run every network.

    Parameters
    ----------
    wanted : str
        ``auto``, or a runtime.
    device : str
        Where it is to run networks.
    wanted_by : str
        What asks for it, for the message where it is not installed.

    Raises
    ------
    OptionError
        If the one that was asked for is not installed, or not for this device.
    """
    if wanted == "auto":
        return OPENVINO if device == "cpu" and openvino_is_there() else TORCH
    if wanted == OPENVINO:
        if device != "cpu":
            msg = f"--runtime openvino with --device {device}: it runs networks on the processor; add --device cpu, or take --runtime torch"
            raise OptionError(msg)
        load_openvino(wanted_by)
    return wanted


def openvino_is_there() -> bool:
    """Whether the extra is installed; loading it would cost a second."""
    return importlib.util.find_spec(OPENVINO) is not None


def load_openvino(wanted_by: str) -> ModuleType:
    """Import OpenVINO, without what reports its use.

    Raises
    ------
    OptionError
        If it is not installed.
    """
    # Importing it sends a report over the network; without this module it takes a stand-in of its own that sends none.
    cast("dict[str, Any]", sys.modules).setdefault("openvino_telemetry", None)
    return load_extra(OPENVINO, OPENVINO, wanted_by)


def unit_images(device: Device) -> int:
    """Return how many images are decoded, computed and committed together: what a kill costs, at most."""
    return _UNIT_IMAGES[device]


def micro_batch(device: Device) -> int:
    """Return how many views one forward pass takes. Fixed: features may move in the last bit with the shape of the batch."""
    return _MICRO_BATCH[device]
