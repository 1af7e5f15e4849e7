"""A store that fsspec reaches, for tests: it counts what it is asked for, and fails on purpose."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractFileSystem

Fault = Exception | Callable[[bytes], bytes]


class Store(MemoryFileSystem):
    """Files of ``trial://``; a user and a password before the path are dropped, as a store of objects by name would."""

    protocol = "trial"
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list] = [""]
    asked: ClassVar[Counter[str]] = Counter()
    """How often each file was read, by name, and how often anything was listed or looked at."""
    faults: ClassVar[dict[str, Iterator[Fault]]] = {}
    """What the next reads of a file, or listings of a folder, by name, end in."""
    tells_md5: ClassVar[bool] = False

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(str(path).removeprefix("trial://").rpartition("@")[2])

    def cat_file(self, path, start=None, end=None, **kwargs):
        name = path.rpartition("/")[2]
        self.asked[name] += 1
        fault = next(self.faults.get(name, iter(())), None)
        if isinstance(fault, Exception):
            raise fault
        raw = super().cat_file(path, start, end, **kwargs)
        return fault(raw) if fault else raw

    def info(self, path, **kwargs):
        self.asked["info"] += 1
        if isinstance(fault := next(self.faults.get("info", iter(())), None), Exception):
            raise fault
        return self._told(super().info(path, **kwargs))

    def find(self, path, **kwargs):
        self.asked["find"] += 1
        if isinstance(fault := next(self.faults.get("find", iter(())), None), Exception):
            raise fault
        return {name: self._told(entry) for name, entry in super().find(path, **kwargs).items()}

    def _told(self, entry: dict) -> dict:
        if self.tells_md5 and entry["type"] == "file":
            entry["ETag"] = f'"{hashlib.md5(self.store[entry["name"]].getvalue(), usedforsecurity=False).hexdigest()}"'
        return entry


class Folders(Store):
    """The same files as ``folders://``, of which only one folder at a time can be listed."""

    protocol = "folders"
    find = AbstractFileSystem.find

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(str(path).removeprefix("folders://"))

    def ls(self, path, detail=True, **kwargs):
        if isinstance(fault := next(self.faults.get(path.rstrip("/").rpartition("/")[2], iter(())), None), Exception):
            raise fault
        return super().ls(path, detail, **kwargs)


class OneLine(Store):
    """The same files as ``oneline://``: one connection, as that of FTP, which lists a file before it reads it, and keeps that listing."""

    protocol = "oneline"
    kept: ClassVar[dict[str, dict]] = {}
    line: ClassVar = threading.Lock()

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(str(path).removeprefix("oneline://"))

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        if not self.line.acquire(blocking=False):
            msg = "two asked at once"
            raise TypeError(msg)
        try:
            time.sleep(0.002)  # what an answer takes, so that others come meanwhile
            yield
        finally:
            self.line.release()

    def cat_file(self, path, start=None, end=None, **kwargs):
        with self._alone():
            self.kept[path] = super().info(path)
            return super().cat_file(path, start, end, **kwargs)

    def info(self, path, **kwargs):
        with self._alone():
            if path not in self.kept:
                self.kept[path] = super().info(path, **kwargs)
            return self.kept[path]

    def invalidate_cache(self, path=None):
        self.kept.clear()


for kind in (Store, Folders, OneLine):
    fsspec.register_implementation(kind.protocol, kind, clobber=True)


def upload(folder: Path, url: str) -> None:
    """Copy a folder into a store."""
    system, place = fsspec.core.url_to_fs(url)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            system.pipe_file(f"{place}/{path.relative_to(folder).as_posix()}", path.read_bytes())
