"""A network's state: read from a file without running anybody's code, hashed, and filled into a network."""

from __future__ import annotations

import hashlib
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from features_cache.errors import UnsafeFile, WeightsMismatch, listed


def sha256_of_state(state: Mapping[str, Tensor]) -> str:
    """Return the sha256 of tensors, by name in sorted order."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}\x00{tensor.dtype}\x00{tuple(tensor.shape)}\x00".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def load_state(path: Path) -> dict[str, Tensor]:
    """Load a state dict from ``.safetensors`` or ``.pth``, never running code from the file.

    Raises
    ------
    UnsafeFile
        If the file is a pickle that names anything but tensors.
    WeightsMismatch
        If it is damaged, or holds no state dict.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=None)
    except pickle.UnpicklingError as error:
        # Half a zip archive is read as a bare pickle, whose first operation then is a "P": damage, and no code.
        if "nsupported" in str(error) and not _is_half_a_zip(path):
            named = re.search(r"(?:GLOBAL|global|class|operand)\s+([\w.]+)", str(error))
            msg = (
                f"{path}: holds code beside tensors ({named[1] if named else 'unknown'}); refused. Save the state dict alone: "
                f"torch.save(model.state_dict(), FILE)"
            )
            raise UnsafeFile(msg) from error
        raise _unreadable(path, error) from error
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise _unreadable(path, error) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        msg = f"{path}: holds {type(state).__name__}; expected a state dict of tensors: torch.save(model.state_dict(), FILE)"
        raise WeightsMismatch(msg)
    return state


def _is_half_a_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return b"PK".startswith(file.read(2)) and not zipfile.is_zipfile(path)


def _unreadable(path: Path, error: Exception) -> WeightsMismatch:
    first = (str(error).splitlines() or [""])[0][:120]
    found = f"{type(error).__name__}: {first}" if first else type(error).__name__
    size = path.stat().st_size
    return WeightsMismatch(
        f"{path}: cannot be read as weights ({found}; {size:,} bytes): damaged, half copied, or no .safetensors or .pth file. "
        f"Copy it again"
    )


def fill(name: str, network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Fill a network with a state, in place.

    Raises
    ------
    WeightsMismatch
        If a tensor is missing, not the network's, of another shape, or not finite.
    """
    try:
        result = network.load_state_dict(state, strict=False)
    except RuntimeError as error:
        shapes = [line.strip() for line in str(error).splitlines()[1:]]
        msg = f"the weights are not those of {name}: {listed(shapes, 2)}"
        raise WeightsMismatch(msg) from error
    missing = [key for key in result.missing_keys if not key.endswith("num_batches_tracked")]
    if missing or result.unexpected_keys:
        msg = (
            f"the weights are not those of {name}: {len(missing)} keys missing ({listed(missing, 3)}), "
            f"{len(result.unexpected_keys)} unexpected ({listed(result.unexpected_keys, 3)})"
        )
        raise WeightsMismatch(msg)
    require_finite(name, state)


def require_finite(name: str, state: Mapping[str, Tensor]) -> None:
    """Check that a state holds numbers.

    Raises
    ------
    WeightsMismatch
        If a tensor holds NaN or an infinite value.
    """
    broken = [key for key, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        msg = f"the weights of {name} hold NaN or infinite values ({listed(broken, 3)})"
        raise WeightsMismatch(msg)
