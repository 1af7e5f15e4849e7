"""What processor and card are good at. Asked, never assumed."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

import torch

from features_cache.errors import OptionError

_SKILLS = {
    "_is_avx512_supported": "AVX512",
    "_is_avx512_bf16_supported": "AVX512-BF16",
    "_is_amx_tile_supported": "AMX",
}


def choose_device(wanted: str, known: Sequence[str]) -> str:
    """Turn ``auto`` into the best device there is.

    Parameters
    ----------
    wanted : str
        ``auto``, or a device.
    known : sequence of str
        Which may do the work, the best first: some of ``cuda``, ``mps``, ``cpu``.

    Raises
    ------
    OptionError
        If the device that was asked for is not there.
    """
    is_there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    there = [name for name in known if is_there[name]]
    if wanted == "auto":
        return there[0]
    if wanted not in there:
        msg = (
            f"--device {wanted}: not on this machine; it has {', '.join(there)}. `--device auto` takes the best of them"
        )
        raise OptionError(msg)
    return wanted


def cpu_has_avx512() -> bool:
    """Whether the processor computes on sixteen float32 numbers at once."""
    return _has("_is_avx512_supported")


def cpu_is_fast_in_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 in hardware (AMX or AVX512-BF16); elsewhere it only loses time."""
    return _has("_is_amx_tile_supported") or _has("_is_avx512_bf16_supported")


def _has(asked: str) -> bool:
    return bool(getattr(torch.cpu, asked, lambda: False)())


def cuda_is_fast_in_bfloat16() -> bool:
    """Whether the card multiplies bfloat16 in hardware; emulated, it only loses precision."""
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def hardware_name(device: str) -> str:
    """Return what computes on a device here: features may move in their last bits from one kind to another.

    Parameters
    ----------
    device : {"cpu", "cuda", "mps"}
        Where there is none, as where parts of a card that is elsewhere are joined, the processor is named.

    Examples
    --------
    >>> hardware_name("cpu") == hardware_name("cpu") != ""
    True
    """
    if device == "cuda" and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    name = _processor_model() or platform.processor() or platform.machine()
    skills = [words for asked, words in _SKILLS.items() if _has(asked)]
    return f"{name} ({', '.join(skills)})" if skills else name


def _processor_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines()
    except OSError:  # told there by Linux alone
        return ""
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else ""
