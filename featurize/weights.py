"""Where a network's weights are, what their bytes hash to, and how they are loaded without running anybody's code."""

from __future__ import annotations

import dataclasses
import hashlib
import pickle
import re
import socket
import urllib.error
import zipfile
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torchvision.models import WeightsEnum, get_model_weights

from features_cache.errors import OptionError, UnsafeFile, WeightsMismatch, WeightsMissing

_CONNECT_SECONDS = 20.0
_READ_BYTES = 1 << 22


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WeightsChoice:
    """What ``--weights`` says.

    Parameters
    ----------
    pretrained : bool
        False for ``random``.
    folder : Path or None
        Where ``NAME.safetensors`` or ``NAME.pth`` lie.
    files : tuple of (str, Path)
        ``NAME=FILE`` pairs; they come before the folder.
    """

    pretrained: bool = True
    folder: Path | None = None
    files: tuple[tuple[str, Path], ...] = ()


def parse_weights(texts: Sequence[str]) -> WeightsChoice:
    """Read ``imagenet``, ``random``, a folder, or ``NAME=FILE`` pairs.

    Raises
    ------
    OptionError
        If a text is none of these.

    Examples
    --------
    >>> parse_weights(["random"]).pretrained
    False
    """
    choice = WeightsChoice()
    for text in texts:
        name, equals, file = text.partition("=")
        if text == "imagenet":
            continue
        if text == "random":
            choice = dataclasses.replace(choice, pretrained=False)
        elif equals:
            choice = dataclasses.replace(choice, files=(*choice.files, (name, Path(file))))
        elif Path(text).is_dir():
            choice = dataclasses.replace(choice, folder=Path(text))
        else:
            msg = f"--weights {text!r}; expected imagenet, random, an existing folder, or NAME=FILE"
            raise OptionError(msg)
    if not choice.pretrained and (choice.folder or choice.files):
        msg = "--weights random goes with no other choice"
        raise OptionError(msg)
    return choice


def published_weights(name: str) -> WeightsEnum:
    """Return torchvision's default ImageNet weights of a network."""
    enum = get_model_weights(name)
    return next(iter(enum)) if not hasattr(enum, "DEFAULT") else enum.DEFAULT


def hub_path(name: str) -> Path:
    """Return where torchvision keeps, or would keep, a network's ImageNet weights (``TORCH_HOME``)."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(published_weights(name).url).name


def find_weights(name: str, choice: WeightsChoice) -> Path:
    """Find the file of a network's weights, downloading it where that is the choice and it is not here yet.

    Raises
    ------
    WeightsMissing
        If the file is nowhere; the message names it, its size, its place, and the other choices.
    WeightsMismatch
        If torchvision's own file does not have the hash in its name.
    """
    for known, file in choice.files:
        if known == name:
            if not file.is_file():
                msg = f"{file}: no such file; --weights {name}=FILE needs one (.safetensors or .pth)"
                raise WeightsMissing(msg)
            _check_promised_hash(name, file)
            return file
    if choice.folder is not None:
        for suffix in (".safetensors", ".pth"):
            if (choice.folder / f"{name}{suffix}").is_file():
                return choice.folder / f"{name}{suffix}"
        there = sorted(path.name for path in choice.folder.iterdir() if path.suffix in {".safetensors", ".pth"})
        msg = (
            f"{choice.folder}: neither {name}.safetensors nor {name}.pth; it holds {', '.join(there) or 'no weights'}. "
            f"Put the file there, or name the networks that are there with --backbone"
        )
        raise WeightsMissing(msg)
    path = hub_path(name)
    if not path.is_file():
        _download(name, path)
    _check_promised_hash(name, path)
    return path


def _check_promised_hash(name: str, path: Path) -> None:
    """Check torchvision's own file against the hash in its name; other names promise nothing."""
    promised = re.search(r"-([0-9a-f]{8,})\.", path.name)
    if promised and path.name == hub_path(name).name and not sha256_of(path).startswith(promised[1]):
        msg = f"{path}: its bytes do not have the hash in its name; remove the file, it was damaged or replaced"
        raise WeightsMismatch(msg)


def _download(name: str, path: Path) -> None:
    weights = published_weights(name)
    patience = socket.getdefaulttimeout()
    # torch.hub gives no timeout: behind a silent firewall it would hang for minutes, once a network.
    socket.setdefaulttimeout(_CONNECT_SECONDS)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(weights.url, str(path), hash_prefix=None, progress=False)
    except (urllib.error.URLError, OSError) as error:
        size_mb = weights.meta.get("_file_size", 0)
        msg = (
            f"{name}: no ImageNet weights on this machine, and the download failed ({error}). Three ways on: put "
            f"{path.name} ({size_mb:.0f} MB, from {weights.url}) into {path.parent}; or give files of your own with "
            f"--weights DIR or --weights {name}=FILE; or try the program with --weights random"
        )
        raise WeightsMissing(msg) from error
    finally:
        socket.setdefaulttimeout(patience)


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_READ_BYTES):
                digest.update(chunk)
    except OSError as error:
        msg = f"{path}: cannot be read ({error.strerror}); ask its owner for permission, or copy the file"
        raise WeightsMissing(msg) from error
    return digest.hexdigest()


def sha256_of_state(state: dict[str, Tensor]) -> str:
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
