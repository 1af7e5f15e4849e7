"""What is known of a parent image whose cells were cut out: a record beside its crops, published with them in one step."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from features_cache.errors import CacheDamaged, ImagesMissing, OutputExists, UnsafePath
from features_cache.folders import publish_folder
from featurize.cells.crops import Cell
from featurize.images.nothing_found import EXTENSIONS

RECORD = "record.json"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """An image whose cells were looked for.

    Parameters
    ----------
    content_hash : str
        Of the bytes of its files, label image included; hexadecimal.
    width, height : int
        Px.
    n_files : int
        Crop files of all its cells.
    cells : tuple of Cell
        By number; may be none.
    """

    content_hash: str
    width: int
    height: int
    n_files: int
    cells: tuple[Cell, ...]


def crop_folders(ids: Sequence[str], out: Path) -> list[str]:
    """Name the folder of each image's crops: its id without the extension.

    Parameters
    ----------
    ids : sequence of str
    out : Path
        The folder in which they would be, for messages.

    Returns
    -------
    list of str
        Relative POSIX paths, in the order of the ids.

    Raises
    ------
    UnsafePath
        If one would lie outside.
    ImagesMissing
        If two images would have one folder, or one a folder in another's.
    """
    owners: dict[str, str] = {}
    for image_id in ids:
        pure = PurePosixPath(image_id)
        name = pure.with_suffix("").as_posix() if pure.suffix.lower() in EXTENSIONS else pure.as_posix()
        if pure.is_absolute() or ".." in pure.parts or "\x00" in image_id or name in {"", "."}:
            msg = f"id {image_id!r}: its crops would lie outside of {out}; expected an id without '..', and not an absolute path. Refused"
            raise UnsafePath(msg)
        if name in owners:
            msg = f"{out}: the crops of {owners[name]!r} and {image_id!r} would have one folder ({name}); rename one image"
            raise ImagesMissing(msg)
        owners[name] = image_id
    for name, image_id in owners.items():
        above = next((str(path) for path in PurePosixPath(name).parents if str(path) in owners), None)
        if above is not None:
            msg = f"{out}: the crops of {image_id!r} would lie among those of {owners[above]!r} ({above}); rename one image"
            raise ImagesMissing(msg)
    return list(owners)


def publish_parent(folder: Path, parent: Parent, crops: Iterable[tuple[str, bytes]], *, making: Path) -> None:
    """Write an image's crops and its record, all at once.

    Parameters
    ----------
    folder : Path
        Of the crops; appears whole or not at all.
    parent : Parent
    crops : iterable of (str, bytes)
        PNG files.
    making : Path
        Folder in which it is made.

    Raises
    ------
    OutputExists
        If something else has the folder's name.
    DiskFull, InputError
        As :func:`features_cache.folders.publish_folder`.
    """

    def files() -> Iterable[tuple[str, bytes]]:
        yield from crops
        yield RECORD, (json.dumps(dataclasses.asdict(parent), separators=(",", ":")) + "\n").encode()

    if not publish_folder(folder, files(), making=making):
        msg = f"{folder}: something else took the name while its cells were cut. Remove it and type the same command again"
        raise OutputExists(msg)


def read_parent(folder: Path) -> Parent | None:
    """Read the record of a folder of crops; None where there is no such folder.

    Raises
    ------
    CacheDamaged
        If the record cannot be read, or crops are missing.
    """
    try:
        raw = (folder / RECORD).read_bytes()
    except FileNotFoundError:
        if folder.is_dir():
            raise _damaged(folder, f"no {RECORD}") from None
        return None
    try:
        found = json.loads(raw)
        cells = tuple(Cell(**cell) for cell in found.pop("cells"))
        parent = Parent(**found, cells=cells)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _damaged(folder, f"{RECORD} cannot be read") from error
    with os.scandir(folder) as entries:
        n_files = sum(entry.name.endswith(".png") for entry in entries)
    if n_files != parent.n_files:
        raise _damaged(folder, f"{n_files} of {parent.n_files} crops are there")
    return parent


def list_folders(out: Path) -> list[str]:
    """List the folders below a split's that hold a record, as relative POSIX paths."""
    return [Path(place).relative_to(out).as_posix() for place, _, names in os.walk(out) if RECORD in names]


def _damaged(folder: Path, found: str) -> CacheDamaged:
    return CacheDamaged(
        f"{folder}: {found}; expected what `cli cells` wrote. Remove the folder and type the same command again"
    )
