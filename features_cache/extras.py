"""Libraries that come with an extra: loaded where they are needed, or named with what to type."""

from __future__ import annotations

import importlib
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
        name = module.partition(".")[0]
        msg = (
            f"{wanted_by or f'cli {extra}'} needs {name}, which is not installed; type pip install 'permafeat[{extra}]'"
        )
        raise OptionError(msg) from error
