"""Which images, in which order, and the files of each."""

from __future__ import annotations

import dataclasses
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from features_cache.errors import ImagesMissing, TableError, UnsafePath, listed
from features_cache.layout import MOST_ID_BYTES
from features_cache.sources import SourceFile, Sources
from features_cache.tables import read_table, require_column
from features_cache.texts import Texts
from features_cache.urls import Url
from featurize.images.blends import COLOURS
from featurize.images.channel_files import channel_sets
from featurize.images.places import Place, place_of

Extra = Literal["error", "ignore", "ignore both"]
_MISSING = SourceFile(path="", n_bytes=0, sign=0)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The images of one split, sorted by id.

    Parameters
    ----------
    root : Place
        The folder that the sources' paths are relative to.
    ids : Texts
        Sorted; no two equal.
    sources : Sources
        Each image's files in channel order; an empty path where a channel file is missing.
    planes : tuple of str
        Names of an image's planes.
    warnings : tuple of str
        What the user should know.
    """

    root: Place
    ids: Texts
    sources: Sources
    planes: tuple[str, ...] = COLOURS
    warnings: tuple[str, ...] = ()

    def first(self, n_images: int | None) -> Manifest:
        """Keep the first images in id order."""
        return dataclasses.replace(self, ids=self.ids[:n_images], sources=self.sources[:n_images])


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WantedIds:
    """The images that a table asks for.

    Parameters
    ----------
    table : Path
        The CSV.
    paths : dict of str to str or None
        Each id and its ``path`` cell, where the table has such a column.
    warnings : tuple of str
        Ids that stand in more than one row.
    """

    table: Path
    paths: dict[str, str | None]
    warnings: tuple[str, ...] = ()


def read_ids(path: Path, id_column: str | None) -> WantedIds:
    """Read image ids, never labels, from a CSV.

    Parameters
    ----------
    path : Path
        The CSV.
    id_column : str or None
        The column of ids; the one named ``id`` in any case, else the first, if None.

    Returns
    -------
    WantedIds

    Raises
    ------
    TableError
        If the CSV or an id cannot be used.
    UnsafePath
        If a path leaves the images' folder.
    """
    table = read_table(path)
    column = id_column or next((name for name in table.columns if name.lower() == "id"), table.columns[0])
    require_column(path, list(table.columns), column)
    blank = [int(line) for line in table.index[table[column] == ""]]
    if blank:
        msg = f"{path}: {len(blank)} rows without an id (lines {listed(blank)})"
        raise TableError(msg)
    places = table["path"] if "path" in table else [None] * len(table)
    paths: dict[str, str | None] = {}
    for line, image_id, place in zip(table.index, table[column], places, strict=True):
        if place is not None:
            _require_inside(place, f"{path}:{line}")
        paths.setdefault(image_id, place)
    doubled = table[table[column].duplicated()]
    if doubled.empty:
        return WantedIds(table=path, paths=paths)
    first = f"first: {doubled[column].iloc[0]!r}, line {doubled.index[0]}"
    return WantedIds(table=path, paths=paths, warnings=(f"{path}: {len(doubled)} rows repeat an id ({first})",))


def _require_inside(path: str, where: str) -> None:
    if (
        "\x00" in path
        or path.startswith(("/", "~"))
        or ".." in PurePosixPath(path).parts
        or re.match(r"[A-Za-z]:", path)
    ):
        msg = f"{where}: path {path!r} leaves the images' folder; expected one inside it, without '..' or '~'. Refused"
        raise UnsafePath(msg)


def list_images(
    where: Path | Url,
    *,
    ids: WantedIds | None,
    pattern: str | None = None,
    planes: Sequence[str] = (),
    extra: Extra = "error",
    follow_links: bool = False,
    skip_unsafe: bool = False,
    named_by: str = "--train-images or --test-images",
) -> Manifest:
    """Find the files of every image.

    Parameters
    ----------
    where : Path or Url
        Folder of images, flat or of class folders.
    ids : WantedIds, optional
        The images wanted. All files unless given.
    pattern : str, optional
        Name of a channel file, such as ``{id}_{channel}.png``; then an image has one file a channel.
    planes : sequence of str
        Names of an image's planes, in order. Unless given, the channels that ``pattern`` finds, or red, green and blue.
    extra : {"error", "ignore", "ignore both"}
        What an image without a row gets; with ``"ignore both"`` a row without an image is left out too.
    follow_links : bool
        Whether links may lead out of the folder.
    skip_unsafe : bool
        Whether files that would be refused are passed over.
    named_by : str
        The option that names the folder, for messages.

    Returns
    -------
    Manifest

    Raises
    ------
    ImagesMissing
        If the folder has no image, or an id has none, or (``extra="error"``) an image has no id.
    OptionError
        If the pattern cannot be used, or finds too many channels.
    UnsafePath, StoreUnreachable
        As :meth:`featurize.images.places.Place.files`.
    """
    root = place_of(where)
    files = root.files(follow_links=follow_links, skip_unsafe=skip_unsafe, named_by=named_by)
    if pattern:
        found, named = channel_sets(
            root,
            ((_escaped(file.path), file) for file in files),
            pattern,
            planes,
        )
    else:
        found, named = _single_files(root, files), tuple(planes) or COLOURS
    if not found:
        raise root.nothing_found(pattern)
    chosen, warnings = (found, ()) if ids is None else _join(root, found, ids, by_stem=pattern is None, extra=extra)
    order = sorted(chosen)
    longest = max(order, key=lambda image_id: len(os.fsencode(image_id)))
    if len(os.fsencode(longest)) > MOST_ID_BYTES:
        msg = (
            f"{root}: the id {longest[:40]!r}… has {len(os.fsencode(longest))} bytes; expected at most {MOST_ID_BYTES}"
        )
        raise TableError(msg)
    sources = Sources([file or _MISSING for file in chosen[image_id]] for image_id in order)
    return Manifest(root=root, ids=Texts(order), sources=sources, planes=named, warnings=warnings)


def _escaped(path: str) -> str:
    """Relative POSIX path as text; bytes that are not UTF-8 become %XX."""
    raw = os.fsencode(path)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return "".join(
            f"%{ord(char) - 0xDC00:02X}" if 0xDC80 <= ord(char) <= 0xDCFF else char
            for char in raw.decode("utf-8", "surrogateescape")
        )


def _single_files(root: Place, files: Iterator[SourceFile]) -> dict[str, tuple[SourceFile | None, ...]]:
    found: dict[str, tuple[SourceFile | None, ...]] = {}
    for file in files:
        name = _escaped(file.path)
        if name in found:
            msg = f"{root}: two files have the id {name!r}, one of them by bytes that are not UTF-8; rename one"
            raise ImagesMissing(msg)
        found[name] = (file,)
    return found


def _join(
    root: Place,
    found: dict[str, tuple[SourceFile | None, ...]],
    wanted: WantedIds,
    *,
    by_stem: bool,
    extra: Extra,
) -> tuple[dict[str, tuple[SourceFile | None, ...]], tuple[str, ...]]:
    """Give each wanted id its files; an id is a relative path, a file name, or a name without its extension."""
    known_as: dict[str, set[str]] = defaultdict(set)
    for key in found:
        pure = PurePosixPath(key)
        for name in {key, pure.name, *((pure.stem, pure.with_suffix("").as_posix()) if by_stem else ())}:
            known_as[name].add(key)
    chosen: dict[str, tuple[SourceFile | None, ...]] = {}
    used: set[str] = set()
    missing: list[str] = []
    for image_id, path in wanted.paths.items():
        name = path or image_id
        keys = {name} if name in found else known_as.get(name, set())
        if len(keys) > 1:
            msg = (
                f"{root}: id {image_id!r} fits {len(keys)} files ({listed(sorted(keys), 5)}); use relative paths as ids"
            )
            raise ImagesMissing(msg)
        if keys & used:
            msg = f"{root}: two ids in {wanted.table} name the file {min(keys)!r} (one of them {image_id!r}); remove one row"
            raise ImagesMissing(msg)
        for key in keys:
            chosen[image_id] = found[key]
            used.add(key)
        if not keys:
            missing.append(image_id)
    told = _told(wanted, missing, sorted(set(found) - used))
    unused = len(found) > len(used)
    if not chosen or (missing and extra != "ignore both") or (unused and extra == "error"):
        msg = f"{root}: {'; '.join(told)}. Complete the folder or the table, or leave them out with --ignore-unlabelled"
        raise ImagesMissing(msg)
    return chosen, (*wanted.warnings, *(f"{root}: {text}; left out" for text in told))


def _told(wanted: WantedIds, missing: Sequence[str], unused: Sequence[str]) -> list[str]:
    told = []
    if missing:
        told.append(f"{len(missing)} of {len(wanted.paths)} ids in {wanted.table} have no image ({listed(missing, 5)})")
    if unused:
        told.append(f"{len(unused)} images have no row in {wanted.table} ({listed(unused, 5)})")
    return told
