"""What processor and card are good at. Asked, never assumed."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from features_cache.errors import OptionError


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
    return bool(getattr(torch.cpu, "_is_avx512_supported", lambda: False)())


def cpu_is_fast_in_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 in hardware (AMX or AVX512-BF16); elsewhere it only loses time."""
    asked = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(bool(getattr(torch.cpu, name, lambda: False)()) for name in asked)


def cuda_is_fast_in_bfloat16() -> bool:
    """Whether the card multiplies bfloat16 in hardware; emulated, it only loses precision."""
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))
