"""Which weights the user chose, where those of torchvision's networks are, and what their bytes hash to."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import socket
import urllib.error
from collections.abc import Sequence
from pathlib import Path

import torch
from torchvision.models import WeightsEnum, get_model_weights

from features_cache.errors import OptionError, WeightsMismatch, WeightsMissing

_CONNECT_SECONDS = 20.0
_READ_BYTES = 1 << 22
SUFFIXES = (".safetensors", ".pth")


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


def published_licence(name: str) -> str:
    """Return the licence of torchvision's default weights; its own is BSD-3-Clause, where they name no other."""
    return str(published_weights(name).meta.get("license", "BSD-3-Clause"))


def hub_path(name: str) -> Path:
    """Return where torchvision keeps, or would keep, a network's ImageNet weights (``TORCH_HOME``)."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(published_weights(name).url).name


def given_file(network: str, file_stem: str, choice: WeightsChoice) -> Path | None:
    """Find the file that the user gave for a network.

    Parameters
    ----------
    network : str
        As ``--weights NAME=FILE`` names it.
    file_stem : str
        What its file in a folder is named after.
    choice : WeightsChoice

    Returns
    -------
    Path or None
        None where neither a file nor a folder was given.

    Raises
    ------
    WeightsMissing
        If the file is not there; the message says what is.
    """
    for known, file in choice.files:
        if known == network:
            if not file.is_file():
                msg = f"{file}: no such file; --weights {network}=FILE needs one (.safetensors or .pth)"
                raise WeightsMissing(msg)
            return file
    if choice.folder is None:
        return None
    for suffix in SUFFIXES:
        if (choice.folder / f"{file_stem}{suffix}").is_file():
            return choice.folder / f"{file_stem}{suffix}"
    there = sorted(path.name for path in choice.folder.iterdir() if path.suffix in SUFFIXES)
    msg = (
        f"{choice.folder}: neither {file_stem}.safetensors nor {file_stem}.pth; it holds {', '.join(there) or 'no weights'}. "
        f"Put the file there, or name the networks that are there with --backbone"
    )
    raise WeightsMissing(msg)


def find_weights(name: str, choice: WeightsChoice) -> Path:
    """Find the file of one of torchvision's networks, downloading it where that is the choice and it is not here yet.

    Raises
    ------
    WeightsMissing
        If the file is nowhere; the message names it, its size, its place, and the other choices.
    WeightsMismatch
        If torchvision's own file does not have the hash in its name.
    """
    path = given_file(name, name, choice)
    if path is None:
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
