"""A folder of images in a store that fsspec reaches: listed once, each file read by one request, asked again where that may help."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from features_cache.errors import ImagesMissing, OptionError, PermafeatError, StoreUnreachable, image_changed
from features_cache.extras import load_extra
from features_cache.sources import SourceFile
from features_cache.status import Status
from features_cache.urls import Url, without_secrets
from featurize.images.bad_image import BadImage
from featurize.images.nothing_found import ARCHIVES, EXTENSIONS, looked_for
from featurize.images.retries import Fault, NoAnswer, ask
from featurize.images.signs import NO_SIGN, UNKNOWN_SIZE, is_proven, sign_of, size_of
from featurize.images.walk import require_safe

_AGAIN = "Type the same command again to go on"


class TruncatedRead(OSError):
    """Fewer or more bytes than the object has."""


class RemoteFolder:
    """A folder of images by a URL; see :class:`featurize.images.places.Place`.

    Parameters
    ----------
    url : Url
        Any that fsspec knows, chained ones too. Credentials are fsspec's affair: its own configuration, or the URL.

    Raises
    ------
    OptionError
        If fsspec, or the library that this kind of URL needs, is not installed, or there is no such kind.

    Attributes
    ----------
    where : Url
    """

    def __init__(self, url: Url) -> None:
        self._url = self.where = url
        try:
            self._system, folder = ask(_opened, url)
        except NoAnswer as error:
            raise self._unlisted(error, "another URL") from None
        self._folder = folder.rstrip("/")
        # Others than asynchronous ones may hold one connection, as that of FTP does.
        self._one_at_a_time = contextlib.nullcontext() if self._system.async_impl else threading.Lock()

    def __str__(self) -> str:
        return str(self._url).rstrip("/")

    def files(self, *, follow_links: bool, skip_unsafe: bool, named_by: str) -> Iterator[SourceFile]:  # noqa: ARG002 - as all places are asked
        """Yield the image files, with the size and the sign that the listing tells of each; links are refused."""
        unsafe: list[str] = []
        try:
            for name, entry in self._entries():
                path = self._relative(name)
                if PurePosixPath(name).suffix.lower() not in EXTENSIONS:
                    continue
                fault = "lies outside of it" if path is None else _fault_of(path, entry)
                if path is None or fault:
                    unsafe.append(
                        f"{self}/{without_secrets(path or name)}: {fault}; refused. Rename it, or move it away"
                    )
                else:
                    yield SourceFile(path=path, n_bytes=size_of(entry), sign=sign_of(entry))
        except NoAnswer as error:
            raise self._unlisted(error, named_by) from None
        if not skip_unsafe:
            require_safe(unsafe)

    def read(self, file: SourceFile) -> bytes:
        """Read a file that is as it was listed: one request, and another for size and sign where the bytes do not tell."""
        try:
            return ask(self._read_once, file)
        except NoAnswer as error:
            if error.fault is Fault.MISSING:
                raise BadImage(Status.UNREADABLE, "No such file or directory (errno 2)") from None
            if error.fault is Fault.DAMAGED:
                raise BadImage(Status.UNREADABLE, f"damaged in its archive ({error})") from None
            if error.fault is Fault.DENIED and self._lets_us_in():
                raise BadImage(Status.UNREADABLE, "Permission denied (errno 13)") from None
            msg = f"{self}/{file.path}: the store gave no answer ({error}). {_AGAIN}"
            raise StoreUnreachable(msg) from None

    def nothing_found(self, pattern: str | None) -> ImagesMissing:
        """Say that it holds no image."""
        return ImagesMissing(f"{self}: no such folder, or no images in it; looked for {looked_for(pattern)}")

    def holds(self, path: Path) -> bool:  # noqa: ARG002 - as all places are asked
        """Whether a path of this machine lies in it: none does."""
        return False

    def _entries(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield name and listing of what is below the folder, as the store tells it now."""
        self._system.invalidate_cache()
        try:
            if _lists_trees(self._system):
                for name, entry in ask(self._system.find, self._folder, detail=True).items():
                    yield self._not_itself(name), {"type": "file", **entry}
                return
            # fsspec's own way through folders leaves out those that could not be listed, and says nothing.
            pending = [f"{self._folder}/"]
            while pending:
                folder = pending.pop()
                for entry in ask(self._system.ls, folder, detail=True):
                    if entry["type"] != "directory":
                        yield self._not_itself(entry["name"]), entry
                    elif entry["name"].rstrip("/") != folder.rstrip("/"):
                        pending.append(entry["name"])
        finally:
            # Listings that fsspec keeps would answer later for the store, and fill the memory.
            self._system.invalidate_cache()

    def _not_itself(self, name: str) -> str:
        """Check that the URL names no file; a name that ends in a slash is how some stores mark a folder."""
        if name != self._folder:
            return name
        suffix = PurePosixPath(name).suffix.lower()
        what = "an archive: unpack it first" if suffix in ARCHIVES else "a file"
        hint = f", or a zip as zip://::{self}" if suffix == ".zip" else ""
        msg = f"{self}: {what}; expected a folder of images{hint}"
        raise ImagesMissing(msg)

    def _unlisted(self, error: NoAnswer, named_by: str) -> PermafeatError:
        if error.fault is Fault.PASSING:
            return StoreUnreachable(f"{self}: the store gave no answer ({error}). {_AGAIN}")
        if error.fault in {Fault.REFUSED, Fault.DAMAGED}:
            return OptionError(f"{self}: cannot be opened ({error}); expected a URL such as s3://bucket/folder")
        if error.fault is Fault.DENIED:
            msg = f"{self}: access denied ({error}); give fsspec credentials that may list and read it (docs/URLS.md)"
            return ImagesMissing(msg)
        return ImagesMissing(f"{self}: no such folder; name the folder with {named_by}")

    def _relative(self, name: str) -> str | None:
        """Return a name as it is below the folder; None for one that is not."""
        if not self._folder:
            return name.removeprefix("/")
        return name.removeprefix(f"{self._folder}/") if name.startswith(f"{self._folder}/") else None

    def _read_once(self, file: SourceFile) -> bytes:
        path = f"{self._folder}/{file.path}"
        # Without a range some file systems ask for the size first. A byte more than there should be: it tells if there is one.
        whole = {"start": 0, "end": file.n_bytes + 1} if file.n_bytes > 0 else {}
        with self._one_at_a_time:
            raw: bytes = self._system.cat_file(path, **whole)
        if is_proven(raw, file.n_bytes, file.sign):
            return raw
        has_its_size = file.n_bytes in {len(raw), UNKNOWN_SIZE}
        if has_its_size and file.sign == NO_SIGN:
            return raw
        with self._one_at_a_time:
            self._system.invalidate_cache()  # what it listed as it read would answer for the store
            now = self._system.info(path)
        if (size_of(now), sign_of(now)) != (file.n_bytes, file.sign):
            name = f"{self}/{file.path}"
            raise image_changed(name)
        if not has_its_size:
            msg = f"{len(raw)} bytes came of {file.n_bytes}"
            raise TruncatedRead(msg)
        return raw

    def _lets_us_in(self) -> bool:
        """Whether the folder itself can be asked for: if not, it is not one image that is denied to us."""
        try:
            with self._one_at_a_time:
                ask(self._system.info, self._folder)
        except NoAnswer:
            return False
        return True


def _opened(url: Url) -> tuple[Any, str]:
    """Return fsspec's file system, and where in it the folder is."""
    core = load_extra("fsspec.core", "remote", str(url))
    try:
        system, folder = core.url_to_fs(url.full)
    except ImportError as error:
        missing = getattr(error.__cause__, "name", None) or "what it names"
        msg = (
            f"{url}: needs a library that is not installed ({without_secrets(str(error))}); type pip install {missing}"
        )
        raise OptionError(msg) from error
    return system, folder


def _lists_trees(system: Any) -> bool:  # noqa: ANN401 - fsspec is imported where it is needed
    """Whether a file system lists all that is below a folder by a way of its own, in few requests."""
    asyn, spec = load_extra("fsspec.asyn", "remote"), load_extra("fsspec.spec", "remote")
    plain = {"find": spec.AbstractFileSystem.find, "_find": asyn.AsyncFileSystem._find}  # noqa: SLF001 - fsspec does not tell otherwise
    return any(getattr(type(system), name, way) is not way for name, way in plain.items())


def _fault_of(path: str, entry: Mapping[str, Any]) -> str:
    """Say why a file is refused; nothing where it is not."""
    if entry.get("islink") or entry["type"] == "link":
        return "a link"
    if entry["type"] != "file":
        return "not a regular file"
    # Ids become names of folders on this machine.
    if {"", ".", ".."} & set(path.split("/")) or "\x00" in path:
        return "a name with '.', '..' or nothing between two slashes"
    return ""
