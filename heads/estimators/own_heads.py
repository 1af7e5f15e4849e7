"""A project's own heads: the catalogue's with other settings, and new names for further ones."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from features_cache.errors import OptionError, did_you_mean
from heads.ensemble import NAME as ENSEMBLE
from heads.estimators.catalogue import HEADS, HeadKind
from heads.estimators.parameters import check_parameters
from heads.fusion import CELLS, FUSED
from heads.sizes import POWER

OwnHeads = Mapping[str, Mapping[str, Any]]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def own_kinds(own: OwnHeads, where: str = "") -> dict[str, HeadKind]:
    """Understand tables of heads.

    Parameters
    ----------
    own : mapping of str to mapping
        By name: ``kind``, the catalogue's name of a classifier (its own, where the name is one of the catalogue's), and
        parameters of it. A list for the parameter that is chosen inside the folds is its grid, a number fixes it.
    where : str
        What messages begin with, such as the file's name.

    Returns
    -------
    dict of HeadKind
        By name, in the order given.

    Raises
    ------
    OptionError
        If a name cannot be a file's, or a kind or parameter is unknown, out of its range, or not for this place.

    Examples
    --------
    >>> own_kinds({"ridge": {"alpha": [1.0, 100.0]}, "wide": {"kind": "mlp", "width": 512}})["ridge"].grid
    (100.0, 1.0)
    """
    kinds: dict[str, HeadKind] = {}
    for name, table in own.items():
        section = f"{where}[heads.{name}] "
        if not isinstance(table, Mapping):
            msg = f"{where}[heads] {name} is {table!r}; expected a table, such as [heads.{name}] and its keys below"
            raise OptionError(msg)
        _check_name(name, [*HEADS, *kinds], section)
        kinds[name] = _kind(_base(name, table, section), table, section)
    return kinds


def _check_name(name: str, others: list[str], section: str) -> None:
    if not _NAME.fullmatch(name):
        msg = f"{section}is no name of a head, which is also a file's; expected up to 64 letters, digits, - and _"
        raise OptionError(msg)
    # Some file systems hold ridge.json and Ridge.json to be one file.
    taken = [other for other in (ENSEMBLE, CELLS, FUSED, *others) if other.lower() == name.lower()]
    if taken and name not in HEADS:
        msg = f"{section}has the name of {taken[0]!r}, or differs by capitals alone; expected a name of its own"
        raise OptionError(msg)


def _base(name: str, table: Mapping[str, Any], section: str) -> HeadKind:
    kind = table.get("kind", name if name in HEADS else None)
    if kind is None:
        msg = f"{section}has no kind{did_you_mean(name, HEADS)}; expected kind = one of {', '.join(HEADS)}"
        raise OptionError(msg)
    if not isinstance(kind, str) or kind not in HEADS:
        msg = f"{section}kind is {kind!r}; expected one of {', '.join(HEADS)}{did_you_mean(str(kind), HEADS)}"
        raise OptionError(msg)
    if name in HEADS and kind != name:
        msg = f"{section}kind is {kind!r}, but {name!r} is a head of its own kind; expected another name for a head of kind {kind!r}"
        raise OptionError(msg)
    return HEADS[kind]


def _kind(base: HeadKind, table: Mapping[str, Any], section: str) -> HeadKind:
    """Change a kind of the catalogue as a table says."""
    chosen, known = base.head.chosen, base.head().get_params()
    given = {name: value for name, value in table.items() if name != "kind"}
    _check_keys(given, base, section)
    given.pop("power", None)
    # What a table says is no longer looked for.
    space = {name: each for name, each in base.space.items() if name not in given}
    grid = given.pop(chosen, None)
    if grid is None:
        return dataclasses.replace(base, settings={**base.settings, **given}, space=space)
    candidates = _grid(grid, base, section)
    watched: tuple[float, ...] = ()
    if chosen == "epochs":
        watched = tuple(epoch for epoch in range(1, int(max(candidates))) if epoch not in candidates)
    if "schedule_epochs" in known:
        # A learning rate that has come down to nothing learns nothing: the schedule ends with the last candidate.
        given.setdefault("schedule_epochs", max(candidates))
    settings = {**base.settings, **given}
    return dataclasses.replace(base, grid=candidates, watched=watched, settings=settings, space=space)


def _check_keys(given: Mapping[str, Any], base: HeadKind, section: str) -> None:
    """Check what a table says, but for the grid."""
    chosen, known = base.head.chosen, base.head().get_params()
    expected = ["kind", *(each for each in known if each not in {"power", "temperature"})]
    for name, value in given.items():
        if name not in known:
            msg = f"{section}has no key {name!r}{did_you_mean(name, expected)}; expected some of {', '.join(expected)}"
            raise OptionError(msg)
        if name != chosen and isinstance(value, list | tuple):
            msg = f"{section}{name} is a list; expected one value: inside the folds {chosen} is chosen, and no other"
            raise OptionError(msg)
    if "temperature" in given:
        msg = f"{section}temperature is chosen inside the folds, for each head; expected no such key"
        raise OptionError(msg)
    check_parameters({name: value for name, value in given.items() if name != chosen}, section)
    if given.get("power", POWER) != POWER:
        msg = f"{section}power is {given['power']}; expected {POWER}: all heads of a run share one copy of the rows, drawn in by one power"
        raise OptionError(msg)
    if "schedule_epochs" in given and chosen not in given:
        most = given["schedule_epochs"]
        msg = f"{section}schedule_epochs is {most}, but epochs are as they were; expected both, such as epochs = [{max(1, most - 4)}, {most}]"
        raise OptionError(msg)


def _grid(value: object, base: HeadKind, section: str) -> tuple[float, ...]:
    """Order candidates from simple to flexible, as the catalogue has them."""
    chosen = base.head.chosen
    values: list[Any] = list(value) if isinstance(value, list | tuple) else [value]
    if not values:
        msg = f"{section}{chosen} is an empty list; expected at least one candidate"
        raise OptionError(msg)
    for each in values:
        check_parameters({chosen: each}, section)
    return tuple(sorted(set(values), reverse=base.grid[0] > base.grid[-1]))
