"""The files below a folder of images: regular ones, and links only where they are wanted."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from features_cache.errors import ImagesMissing, UnsafePath
from features_cache.sources import SourceFile, sign_of_file
from featurize.images.nothing_found import ARCHIVES, EXTENSIONS

_MOST_SHOWN = 20


def walk(root: Path, *, follow_links: bool, skip_unsafe: bool, named_by: str) -> Iterator[SourceFile]:
    """Yield the image files below a folder, relative to it, in no order.

    Parameters
    ----------
    root : Path
        The folder.
    follow_links : bool
        Whether links may lead out of it, and to folders; otherwise only links to files inside it are sound.
    skip_unsafe : bool
        Whether what would be refused is passed over.
    named_by : str
        The option that names the folder, for messages.

    Raises
    ------
    ImagesMissing
        If there is no such folder, or one that cannot be listed.
    UnsafePath
        If a link leads out of the folder unasked, nowhere or in a circle, or a file is not a regular one.
    """
    _require_folder(root, named_by)
    inside = root.resolve()
    # Each folder with the real folders above it: a link to one of these would be followed for ever.
    pending = [(root, frozenset({inside}))]
    unsafe: list[str] = []
    while pending:
        folder, above = pending.pop()
        with _listing(folder) as entries:
            for entry in entries:
                path = Path(entry.path)
                if entry.is_symlink():
                    fault = _fault_of_link(path, root, inside=None if follow_links else inside, above=above)
                    if fault:
                        unsafe.append(fault)
                        continue
                if entry.is_dir(follow_symlinks=follow_links):
                    pending.append((path, above | {path.resolve()}))
                elif path.suffix.lower() in EXTENSIONS:
                    state = entry.stat()
                    if not stat.S_ISREG(state.st_mode):
                        unsafe.append(f"{path}: not a regular file (a pipe, device or folder link); refused")
                        continue
                    yield SourceFile(
                        path=path.relative_to(root).as_posix(), n_bytes=state.st_size, sign=sign_of_file(state)
                    )
    if not skip_unsafe:
        require_safe(unsafe)


def require_safe(unsafe: Sequence[str]) -> None:
    """Check that there is nothing to refuse.

    Raises
    ------
    UnsafePath
        If there is; the first are shown, a line each.
    """
    if unsafe:
        more = f"\nand {len(unsafe) - _MOST_SHOWN} more" if len(unsafe) > _MOST_SHOWN else ""
        raise UnsafePath("\n".join(sorted(unsafe)[:_MOST_SHOWN]) + more)


def _require_folder(root: Path, named_by: str) -> None:
    if not root.is_dir():
        if root.exists():
            what = "an archive: unpack it first" if root.suffix.lower() in ARCHIVES else "a file"
            msg = f"{root}: {what}; expected a folder of images"
            raise ImagesMissing(msg)
        msg = f"{root}: no such folder; name the folder with {named_by}"
        raise ImagesMissing(msg)


def _listing(folder: Path) -> AbstractContextManager[Iterator[os.DirEntry[str]]]:
    try:
        return os.scandir(folder)
    except PermissionError as error:
        msg = (
            f"{folder}: cannot be listed ({error.strerror}); ask its owner for permission, or move it out of the images"
        )
        raise ImagesMissing(msg) from error


def _fault_of_link(link: Path, root: Path, *, inside: Path | None, above: frozenset[Path]) -> str:
    """Say what is wrong with where a link leads: out of ``inside``, to a folder that it lies in, nowhere; nothing where all is well."""
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):
        return f"{link}: a link that leads nowhere or in a circle; refused. Remove it"
    if inside is None and target in above:
        return f"{link}: a link to a folder that it lies in; refused. Remove it"
    if inside is not None and not target.is_relative_to(inside):
        return f"{link}: a link out of {root}; refused. Copy the images in, name the folder itself, or type --follow-symlinks"
    return ""
