"""permafeat.toml: one section a command, one key an option; every word of it is checked.

A section may also hold tables of another kind, which the room that registered it understands (:func:`read_tables`).
"""

from __future__ import annotations

import dataclasses
import os
import re
import tomllib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Literal, get_type_hints

from features_cache.errors import OptionError, did_you_mean
from features_cache.urls import is_url, without_secrets

CONFIG_NAME = "permafeat.toml"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """An option of a command, as far as its value in a file has to be understood.

    Parameters
    ----------
    many : bool
        Whether it takes a list.
    kind : {"text", "path", "weights"}
        Paths are relative to the file's folder and may hold ``$VARIABLES``; of weights, all but ``imagenet`` and ``random`` hold a path.
    """

    many: bool
    kind: Literal["text", "path", "weights"]


_PATHS_AS_TEXT = {"run", "train_images", "test_images"}
# What replaces or recomputes features is asked for each time, never by default.
_NOT_IN_A_FILE = {"ctx", "return", "config", "as_json", "dry_run", "overwrite", "repair"}


def read_defaults(
    path: Path, command: str, commands: Mapping[str, Callable[..., None]], tables: Collection[str] = ()
) -> dict[str, Any]:
    """Read a command's defaults, its options known from the signature of its function.

    Parameters
    ----------
    path : Path
        The file.
    command : str
        The command's name.
    commands : mapping of str to callable
        All commands; parameters annotated as ``list[str]`` take many, as ``Path`` paths.
    tables : collection of str
        Sections that are no command's.

    Returns
    -------
    dict of str to object
        By parameter name.

    Raises
    ------
    OptionError
        As :func:`read_section`.
    """
    hints = get_type_hints(commands[command])
    options = {
        name.replace("_", "-"): _option(name, hint) for name, hint in hints.items() if name not in _NOT_IN_A_FILE
    }
    section = read_section(path, command, options, (*commands, *tables))
    return {name.replace("-", "_"): value for name, value in section.items()}


def _option(name: str, hint: object) -> Option:
    if name == "weights":
        return Option(many=True, kind="weights")
    is_path = name in _PATHS_AS_TEXT or "Path" in str(hint)
    return Option(many=str(hint).startswith("list"), kind="path" if is_path else "text")


def read_section(path: Path, section: str, options: Mapping[str, Option], sections: Collection[str]) -> dict[str, Any]:
    """Read one command's defaults.

    Parameters
    ----------
    path : Path
        The file.
    section : str
        The command's name.
    options : mapping of str to Option
        Its options, without dashes in front.
    sections : collection of str
        All there may be, for checking the other sections' names.

    Returns
    -------
    dict of str to object
        A value an option; lists where the option takes many.

    Raises
    ------
    OptionError
        If the file is missing or no TOML, or holds an unknown section or key.
    """
    defaults: dict[str, Any] = {}
    for key, value in (read_tables(path, section, sections) or {}).items():
        if key not in options:
            msg = f"{path}: [{section}] has no key {key!r}{did_you_mean(key, options)}; the keys are the options of `cli {section} --help`"
            raise OptionError(msg)
        if isinstance(value, dict) or (isinstance(value, list) and not options[key].many):
            msg = f"{path}: [{section}] {key} is a {'table' if isinstance(value, dict) else 'list'}; expected one value"
            raise OptionError(msg)
        defaults[key] = _understood(value, options[key], path)
    return defaults


def read_tables(path: Path, section: str, sections: Collection[str]) -> dict[str, Any] | None:
    """Read a section as TOML has it.

    Parameters
    ----------
    path : Path
        The file.
    section : str
    sections : collection of str
        All there may be.

    Returns
    -------
    dict of str to object, or None
        None where the file has no such section.

    Raises
    ------
    OptionError
        If the file is missing or no TOML, or holds an unknown section.
    """
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        msg = f"{path}: no such file; --config needs a TOML file"
        raise OptionError(msg) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        msg = f"{path}: cannot be read as TOML ({error})"
        raise OptionError(msg) from error
    for name, value in content.items():
        if name not in sections or not isinstance(value, dict):
            msg = f"{path}: no section [{name}]; expected {', '.join(sections)}{did_you_mean(name, sections)}"
            raise OptionError(msg)
    found: dict[str, Any] | None = content.get(section)
    return found


def _understood(value: Any, option: Option, file: Path) -> Any:  # noqa: ANN401 - whatever TOML holds
    if option.many:
        values = value if isinstance(value, list) else value.split(",") if isinstance(value, str) else [value]
        return [_understood(item, Option(many=False, kind=option.kind), file) for item in values]
    if not isinstance(value, str):
        return value
    if option.kind == "path":
        return _path(value, file)
    if option.kind == "weights" and value not in {"imagenet", "random"}:
        name, equals, place = value.rpartition("=")
        return f"{name}{equals}{_path(place, file)}"
    return value


def _path(text: str, file: Path) -> str:
    """Resolve a path of the file, or a URL: variables of the environment are filled in, relative paths begin at the file's folder."""
    filled = os.path.expandvars(text)
    missing = re.search(r"\$\{?(\w+)", filled)
    if missing:
        msg = f"{file}: {without_secrets(text)!r} needs the environment variable {missing[1]}; type `export {missing[1]}=...` first"
        raise OptionError(msg)
    return filled if is_url(filled) else str(file.parent / filled)
