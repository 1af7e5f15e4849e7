"""Where the weights of timm's networks are: in the Hugging Face cache, or on its hub."""

from __future__ import annotations

import re
from pathlib import Path

from features_cache.errors import WeightsMissing

# As timm looks for them.
HUB_FILES = (
    "model.safetensors",
    "pytorch_model.bin",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
)
_TIMEOUT_SECONDS = 20.0


def cached_file(hub_id: str, revision: str = "") -> Path | None:
    """Find a network's weights in the Hugging Face cache, without a network.

    Parameters
    ----------
    hub_id : str
        Such as ``timm/resnet50.a1_in1k``.
    revision : str
        Commit (40 hexadecimal digits), branch or tag; empty for the newest that the cache knows.

    Returns
    -------
    Path or None
    """
    from huggingface_hub import try_to_load_from_cache

    for name in HUB_FILES:
        found = try_to_load_from_cache(hub_id, name, revision=revision or None)
        if isinstance(found, str):
            return Path(found)
    return None


def hub_file(name: str, hub_id: str, revision: str = "") -> Path:
    """Find a network's weights in the Hugging Face cache, or download them into it.

    Parameters
    ----------
    name : str
        ``timm:`` and timm's name, for messages.
    hub_id, revision : str
        As in :func:`cached_file`.

    Raises
    ------
    WeightsMissing
        If they are not here and cannot be had; the message names file, place, and the other choices.
    """
    return cached_file(hub_id, revision) or _download(name, hub_id, revision)


def commit_of(path: Path) -> str:
    """Return the commit that a file of the Hugging Face cache belongs to; empty where its place does not say.

    Examples
    --------
    >>> commit_of(Path("hub/models--timm--x/snapshots") / ("ab" * 20) / "model.safetensors")[:6]
    'ababab'
    """
    return path.parent.name if re.fullmatch(r"[0-9a-f]{40}", path.parent.name) else ""


def _download(name: str, hub_id: str, revision: str) -> Path:
    from huggingface_hub import HfApi, hf_hub_download

    try:
        # Asked first, and once: without a network the download itself would try for half a minute.
        info = HfApi().model_info(hub_id, revision=revision or None, timeout=_TIMEOUT_SECONDS)
        there = {file.rfilename for file in info.siblings or ()}
        wanted = next((file for file in HUB_FILES if file in there), HUB_FILES[0])
        return Path(hf_hub_download(hub_id, wanted, revision=revision or None))
    except Exception as error:
        # Of any class: the hub's library changes its HTTP library, and with it the errors, between versions.
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsMissing(_missing(name, hub_id, revision, why)) from error


def _missing(name: str, hub_id: str, revision: str, why: str) -> str:
    from huggingface_hub import constants

    at = f" --revision {revision}" if revision else ""
    return (
        f"{name}: no weights of {hub_id}{f' at {revision}' if revision else ''} in {constants.HF_HUB_CACHE}, and the download "
        f"failed ({why}). Three ways on: where there is a network, type `hf download {hub_id} {HUB_FILES[0]}{at}`, and copy the "
        f"folder models--{hub_id.replace('/', '--')} to that place; or give a file of your own with --weights DIR "
        f"({name.replace(':', '-')}.safetensors in it) or --weights {name}=FILE; or try the program with --weights random"
    )
