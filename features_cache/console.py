"""The terminal: the options that commands share, and how results are printed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from features_cache.config import CONFIG_NAME, read_defaults, read_tables

ENVIRONMENT = "PERMAFEAT"
QUARANTINED = 4
"""Exit code of what is finished although some images could not be used."""
app = typer.Typer(
    name="cli",
    help="Featurize images once with frozen networks, fit heads on the features in seconds, submit the average.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"auto_envvar_prefix": ENVIRONMENT, "help_option_names": ["-h", "--help"]},
)


def _configured(ctx: typer.Context, file: Path | None) -> Path | None:
    """Take the command's defaults from permafeat.toml: flags and environment come before them."""
    path = file or if_there(Path(CONFIG_NAME))
    if path and not ctx.resilient_parsing:
        command = str(ctx.info_name)
        defaults: dict[str, Any] = {}
        for like, shared in _SHARED.get(command, ()):
            theirs = read_defaults(path, like, _commands(), _TABLES)
            defaults |= {name: value for name, value in theirs.items() if name in shared}
        ctx.default_map = defaults | read_defaults(path, command, _commands(), _TABLES)
    return file


def _commands() -> dict[str, Callable[..., None]]:
    return {
        command.name or command.callback.__name__.replace("_", "-"): command.callback
        for command in app.registered_commands
        if command.callback
    }


def add_tables(section: str) -> str:
    """Register a section of permafeat.toml that is no command's, as rooms register commands; return its name."""
    _TABLES.append(section)
    return section


def share_section(command: str, like: str, options: Iterable[str]) -> None:
    """Let a command take its defaults of some options from another's section of permafeat.toml, and then from its own."""
    _SHARED.setdefault(command, []).append((like, tuple(options)))


def tables_of(section: str, file: Path | None) -> tuple[dict[str, Any] | None, Path]:
    """Read a registered section of permafeat.toml, or of the file that ``--config`` names.

    Returns
    -------
    tables : dict or None
        None where there is no file, or no such section.
    path : Path
        The file, for messages.

    Raises
    ------
    OptionError
        If the file cannot be used.
    """
    path = file or Path(CONFIG_NAME)
    if file is None and not path.is_file():
        return None, path
    return read_tables(path, section, (*_commands(), *_TABLES)), path


_TABLES: list[str] = []
_SHARED: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
_CONFIG = typer.Option("--config", is_eager=True, callback=_configured, help=f"Defaults. (default: {CONFIG_NAME})")
Config = Annotated[Path | None, _CONFIG]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs on stdout.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", allow_from_autoenv=False, help="Begin anew where something stands already.")
]
IgnoreUnlabelled = Annotated[bool, typer.Option(help="Leave out images without a row in --labels.")]


def split_list(values: Sequence[str]) -> tuple[str, ...]:
    """Take apart a list that was given comma-separated, repeated, or both."""
    return tuple(name.strip() for value in values for name in value.split(",") if name.strip())


def if_there(path: Path) -> Path | None:
    """Return a default file if it exists."""
    return path if path.is_file() else None


def print_table(table: Any) -> None:  # noqa: ANN401 - rich is imported where it is needed
    """Print a rich table on stdout, never folded below what it needs."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 200).print(table)


def print_lines(lines: Sequence[str], *, file: Any = None) -> None:  # noqa: ANN401 - a text stream
    """Print lines on stdout, or on another stream; control characters, which a foreign file may hold, as their codes."""
    print("\n".join(map(_without_controls, lines)), file=file or sys.stdout)


def _without_controls(text: str) -> str:
    return "".join(char if char.isprintable() or char in "\n\t" else repr(char)[1:-1] for char in text)


def say(ctx: typer.Context, lines: Sequence[str]) -> None:
    """Tell people on stderr, unless ``--quiet``."""
    if lines and not ctx.obj:
        print_lines(lines, file=sys.stderr)
