"""Libraries that may be missing: loaded where they are needed, or named with what to type; and their versions."""

from __future__ import annotations

import importlib
import importlib.util
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

from features_cache.errors import OptionError


def load_extra(module: str, extra: str, wanted_by: str = "") -> ModuleType:
    """Import a library that only an extra installs.

    Parameters
    ----------
    module : str
        Such as ``pyarrow.parquet``.
    extra : str
        The extra's name.
    wanted_by : str
        What needs it, as typed; ``cli`` and the extra's name unless given.

    Returns
    -------
    module

    Raises
    ------
    OptionError
        If it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise _not_installed(module, extra, wanted_by) from error


def require_extra(module: str, extra: str, wanted_by: str = "") -> None:
    """Check that a library is installed, without the time that importing it takes; parameters as of :func:`load_extra`.

    Raises
    ------
    OptionError
        If it is not.
    """
    if importlib.util.find_spec(module) is None:
        raise _not_installed(module, extra, wanted_by)


def _not_installed(module: str, extra: str, wanted_by: str) -> OptionError:
    name = module.partition(".")[0]
    return OptionError(
        f"{wanted_by or f'cli {extra}'} needs {name}, which is not installed; type pip install 'permafeat[{extra}]'"
    )


_LIBRARIES = (
    "permafeat",
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "h5py",
    "pillow",
    "tifffile",
    "imagecodecs",
    "safetensors",
    "openvino",
)


def versions_here() -> dict[str, str]:
    """Return the versions of the libraries that features come from."""
    return {name: installed_version(name) for name in _LIBRARIES}


def installed_version(library: str) -> str:
    """Return the version of a library, for records of what something was made with; or that it is not installed."""
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"
