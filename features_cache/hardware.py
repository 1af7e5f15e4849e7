"""What processor and card are good at. Asked, never assumed."""

from __future__ import annotations

import torch


def cpu_is_fast_in_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 in hardware (AMX or AVX512-BF16); elsewhere it only loses time."""
    asked = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(bool(getattr(torch.cpu, name, lambda: False)()) for name in asked)


def cuda_is_fast_in_bfloat16() -> bool:
    """Whether the card multiplies bfloat16 in hardware; emulated, it only loses precision."""
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))
