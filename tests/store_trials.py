"""The store put to the test: faults at every operation, power cuts, real kills. Quick shares run in tests, all of it in bench/store.py."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from cache_data import KilledError, blocks, picture

from features_cache.errors import CacheDamaged, CacheIncomplete, PermafeatError
from features_cache.extend import Held
from features_cache.files import Disk
from features_cache.layout import Rows
from features_cache.ledger import Ledger
from features_cache.parts import Parts
from features_cache.plan import Execution, Plan, parts_folder, plan_in
from features_cache.reader import FeatureCache
from features_cache.settle import settle_plan
from features_cache.sources import SourceFile
from features_cache.verify import verify
from features_cache.writer import publish_cache, write_cache

N_IMAGES = 11
VIEWS = 4
FEATURES = np.random.default_rng(0).normal(size=(N_IMAGES, VIEWS, 8)).astype(np.float16)
IDS = tuple(f"image-{index:02d}" for index in range(N_IMAGES))
HOUSE = Path(__file__).parent.parent


def plan(n_views: int = 2, **changes: object) -> Plan:
    """The work of a small cache."""
    whole = Plan(
        ids=IDS,
        sources=tuple((SourceFile(path=f"{name}.png", n_bytes=9, sign=5),) for name in IDS),
        n_views=n_views,
        blocks=blocks(3, 5),
        unit_images=4,
        execution=Execution(device="cpu", micro_batch=16, n_threads=2),
    )
    return dataclasses.replace(whole, **changes)  # type: ignore[arg-type]


def rows_of(unit: int, n_views: int = 2) -> Rows:
    """What a network would give for a unit."""
    here = plan().rows_of(unit)
    return Rows(
        features=FEATURES[here.start : here.stop, :n_views],
        status=np.zeros(len(here), np.uint8),
        content_hash=np.zeros((len(here), 16), np.uint8),
        reasons=("",) * len(here),
    )


def make(path: Path, disk: Disk, n_views: int = 2, acked: Callable[[int], None] = lambda _: None) -> None:
    """Do what featurize does, without networks: begin, resume, extend, publish, tidy up."""
    folder = parts_folder(path)
    base, wanted = None, plan(n_views)
    if path.exists():
        base = FeatureCache(path)
        if base.n_views >= n_views:
            base.close()
            left = plan_in(folder)
            if left is not None:
                Parts(folder, left, disk).remove()
            return
        wanted = dataclasses.replace(wanted, base=base.seal.checksum.hex())
    try:
        settled = settle_plan(folder, wanted, disk=disk)
        parts, ledger, held = Parts(folder, settled, disk), Ledger(settled), Held(settled, base)
        for unit, rows in list(parts.check()):
            if rows is None:
                parts.commit(unit, rows_of(unit, n_views))
                acked(unit)
            ledger.enter(unit, rows or rows_of(unit, n_views))
        publish_cache(path, parts, ledger, held, disk=disk)
        acked(-1)
        parts.remove()
    finally:
        if base is not None:
            base.close()


def undisturbed(folder: Path, n_views: int = 2) -> bytes:
    """The bytes that every run has to end in."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"undisturbed-{n_views}.h5"
    write_cache(path, ids=IDS, features=FEATURES[:, :n_views], blocks=blocks(3, 5), replace=True)
    return path.read_bytes()


# Faults at every operation


@dataclasses.dataclass(frozen=True)
class Fault:
    """What happens at one operation."""

    name: str
    error: BaseException
    only: tuple[str, ...] = ()


FAULTS = (
    Fault("kill", KilledError()),
    Fault("disk full", OSError(errno.ENOSPC, "No space left on device")),
    Fault("over quota", OSError(errno.EDQUOT, "Disk quota exceeded")),
    Fault("EIO", OSError(errno.EIO, "Input/output error")),
    Fault("error at fsync", OSError(errno.EIO, "Input/output error"), only=("fsync", "fsync_folder")),
    Fault("no hard links", OSError(errno.EPERM, "Operation not permitted"), only=("link",)),
)
OPERATIONS = (
    "create",
    "write",
    "write_at",
    "fsync",
    "link",
    "replace",
    "unlink",
    "make_folder",
    "remove_tree",
    "fsync_folder",
)


class FaultyDisk(Disk):
    """Fails at the n-th operation, or kills there; counts operations. Every write is short."""

    def __init__(self, fail_at: int = 0, fault: Fault | None = None) -> None:
        self.done: list[str] = []
        self._fail_at = fail_at
        self._fault = fault
        self._dead = False

    def step(self, name: str) -> None:
        """Go on, or fail."""
        if self._dead:
            raise KilledError  # a dead process does not tidy up
        if not self._fault or not self._fault.only or name in self._fault.only:
            self.done.append(name)
            if self._fault and len(self.done) == self._fail_at:
                self._dead = isinstance(self._fault.error, KilledError)
                raise self._fault.error


def _faulty(name: str) -> Callable[..., object]:
    whole = getattr(Disk, name)

    def operation(self: FaultyDisk, *given: object) -> object:
        self.step(name)
        if name == "write":
            given = (given[0], given[1][: max(1, len(given[1]) // 2)])  # type: ignore[index, arg-type]
        return whole(self, *given)

    return operation


for _name in OPERATIONS:
    setattr(FaultyDisk, _name, _faulty(_name))


def fault_points(folder: Path, fault: Fault, *, extend: bool) -> Iterator[bool]:
    """Put a fault at every operation of a run; yield for each whether nothing was torn and the rerun ends in the same bytes."""
    first, whole = undisturbed(folder, 2), undisturbed(folder, VIEWS if extend else 2)
    n_views = VIEWS if extend else 2
    fail_at = 0
    while True:
        fail_at += 1
        path = folder / f"{fault.name}-{extend}-{fail_at}" / "train.h5"
        path.parent.mkdir()
        if extend:
            path.write_bytes(first)
        disk = FaultyDisk(fail_at, fault)
        acked: list[int] = []
        reached = True
        try:
            make(path, disk, n_views, acked.append)
            reached = len(disk.done) >= fail_at
        except (KilledError, OSError, PermafeatError):
            pass
        if not reached:
            return
        sound = _is_whole(path, {first, whole}) and _has(path, acked, whole)
        make(path, Disk(), n_views)
        yield sound and path.read_bytes() == whole and not parts_folder(path).exists()


def _is_whole(path: Path, allowed: set[bytes]) -> bool:
    return not path.exists() or path.read_bytes() in allowed


def _has(path: Path, acked: list[int], whole: bytes) -> bool:
    """Whether all that was reported as saved is there: units in their parts, or everything (-1) in the file."""
    if path.exists() and path.read_bytes() == whole:
        return True
    if -1 in acked:
        return False
    parts = Parts(parts_folder(path), plan_in(parts_folder(path)) or plan())
    try:
        for unit in acked:
            parts.read(unit)
    except (CacheIncomplete, CacheDamaged):
        return False
    return True


# Power cuts


class RecordingDisk(Disk):
    """Does what it is told, and remembers it."""

    def __init__(self) -> None:
        self.log: list[tuple[object, ...]] = []
        self._open: dict[int, tuple[Path, int]] = {}

    def create(self, path: Path) -> int:
        descriptor = super().create(path)
        self.log.append(("create", path))
        self._open[descriptor] = (path, 0)
        return descriptor

    def write(self, descriptor: int, data: memoryview) -> int:
        n_written = super().write(descriptor, data[: max(1, len(data) // 2)])
        path, at = self._open[descriptor]
        self.log.append(("write", path, at, bytes(data[:n_written])))
        self._open[descriptor] = (path, at + n_written)
        return n_written

    def write_at(self, descriptor: int, data: bytes, offset: int) -> int:
        self.log.append(("write", self._open[descriptor][0], offset, bytes(data)))
        return super().write_at(descriptor, data, offset)

    def fsync(self, descriptor: int) -> None:
        super().fsync(descriptor)
        self.log.append(("fsync", self._open[descriptor][0]))

    def link(self, source: Path, target: Path) -> None:
        super().link(source, target)
        self.log.append(("link", source, target))

    def replace(self, source: Path, target: Path) -> None:
        super().replace(source, target)
        self.log.append(("replace", source, target))

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        self.log.append(("unlink", path))

    def make_folder(self, path: Path) -> None:
        super().make_folder(path)
        self.log.append(("make_folder", path))

    def remove_tree(self, path: Path) -> None:
        super().remove_tree(path)
        self.log.append(("remove_tree", path))

    def fsync_folder(self, path: Path) -> None:
        super().fsync_folder(path)
        self.log.append(("fsync_folder", path))


@dataclasses.dataclass
class _Inode:
    durable: bytes = b""
    pending: list[tuple[int, bytes]] = dataclasses.field(default_factory=list)


class CutPower:
    """A file system as a power cut may leave it: what an fsync did not cover may be there, in part, or not at all.

    Bytes are durable once their file was fsynced, names once their folder was; of all that came after, any subset survives.
    Parameters are the operations up to the cut, and what decides.
    """

    def __init__(self, log: list[tuple[object, ...]], rng: np.random.Generator) -> None:
        self._rng = rng
        self._now: dict[Path, _Inode] = {}
        self._durable: dict[Path, _Inode] = {}
        self._pending: list[tuple[Path, Callable[[dict[Path, _Inode]], None]]] = []
        for name, *given in log:
            getattr(self, f"_{name}")(*given)

    def leave(self, log_root: Path, target: Path) -> None:
        """Write what is left of a folder to another place."""
        names = dict(self._durable)
        for _, change in self._pending:
            if self._rng.random() < 0.5:
                change(names)
        target.mkdir(parents=True)
        for path, inode in names.items():
            place = target / path.relative_to(log_root)
            place.parent.mkdir(parents=True, exist_ok=True)
            kept = [write for write in inode.pending if self._rng.random() < 0.5]
            place.write_bytes(_written(inode.durable, kept))

    def _change(self, folder: Path, change: Callable[[dict[Path, _Inode]], None]) -> None:
        change(self._now)
        self._pending.append((folder, change))

    def _create(self, path: Path) -> None:
        inode = _Inode()
        self._change(path.parent, lambda names: names.__setitem__(path, inode))

    def _write(self, path: Path, at: int, data: bytes) -> None:
        self._now[path].pending.append((at, data))

    def _fsync(self, path: Path) -> None:
        inode = self._now[path]
        inode.durable = _written(inode.durable, inode.pending)
        inode.pending = []

    def _link(self, source: Path, target: Path) -> None:
        inode = self._now[source]
        self._change(target.parent, lambda names: names.__setitem__(target, inode))

    def _replace(self, source: Path, target: Path) -> None:
        if source in self._now:
            inode = self._now[source]

            def rename(names: dict[Path, _Inode]) -> None:
                names.pop(source, None)
                names[target] = inode

            self._change(target.parent, rename)
            return

        def move(names: dict[Path, _Inode]) -> None:
            for path in [path for path in names if source in path.parents]:
                names[target / path.relative_to(source)] = names.pop(path)

        self._change(target.parent, move)

    def _unlink(self, path: Path) -> None:
        self._change(path.parent, lambda names: names.pop(path, None) and None)

    def _remove_tree(self, path: Path) -> None:
        def remove(names: dict[Path, _Inode]) -> None:
            for inner in [inner for inner in names if path in inner.parents]:
                if self._rng.random() < 0.7:
                    del names[inner]

        self._change(path.parent, remove)

    def _make_folder(self, _path: Path) -> None:
        """Folders are made where a file needs them: a lost one loses its files, which their own entries stand for."""

    def _fsync_folder(self, path: Path) -> None:
        for folder, change in self._pending:
            if folder == path:
                change(self._durable)
        self._pending = [(folder, change) for folder, change in self._pending if folder != path]


def _written(content: bytes, writes: list[tuple[int, bytes]]) -> bytes:
    image = bytearray(content)
    for at, data in writes:
        image.extend(bytes(max(0, at + len(data) - len(image))))
        image[at : at + len(data)] = data
    return bytes(image)


def power_cuts(folder: Path, n_seeds: int) -> tuple[int, int]:
    """Cut the power at random moments of a run, or of an extension; return (cuts, cuts after which all was well)."""
    n_well = 0
    for seed in range(n_seeds):
        rng = np.random.default_rng(seed)
        extend = bool(seed % 2)
        n_views = VIEWS if extend else 2
        root = folder / f"power-{seed}"
        path = root / "before" / "features" / "train.h5"
        path.parent.mkdir(parents=True)
        first, whole = undisturbed(folder, 2), undisturbed(folder, n_views)
        disk = RecordingDisk()
        if extend:
            make(path, disk, 2)
        began = len(disk.log)
        acks: list[tuple[int, int]] = []
        make(path, disk, n_views, lambda unit, disk=disk, acks=acks: acks.append((len(disk.log), unit)))
        cut = int(rng.integers(began, len(disk.log) + 1))
        left = root / "after"
        CutPower(disk.log[:cut], rng).leave(root / "before", left)
        path = left / "features" / "train.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        acked = [unit for at, unit in acks if at <= cut]
        sound = _is_whole(path, {first, whole}) and (not extend or path.exists())
        sound &= _has(path, acked, whole)
        make(path, Disk(), n_views)
        n_well += sound and path.read_bytes() == whole
    return n_seeds, n_well


# Real kills of the real command

_SERVER = """
import os, sys
import cli, featurize.run, featurize.report
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        sys.argv = ["cli", *line.split()]
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            cli.main()
        except SystemExit as end:
            os._exit(int(end.code or 0))
        os._exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def sigkill_chain(folder: Path, n_images: int, words: tuple[str, ...]) -> tuple[int, int, bool]:
    """Kill `cli featurize` again and again until it is through.

    Returns
    -------
    n_kills, n_lost : int
        Kills, and committed parts that were not there any more after one.
    is_same : bool
        Whether the cache is that of an undisturbed run, to the byte.
    """
    images = folder / "images"
    images.mkdir(parents=True)
    for index in range(n_images):
        picture(index).save(images / f"{index:04d}.png")
    command = ("featurize", "--train-images", str(images), *words, "--batch-size", "1", "--workers", "1", "--out")
    environment = os.environ | {"PYTHONPATH": str(HOUSE), "OMP_NUM_THREADS": "1"}
    rng = np.random.default_rng(0)
    n_kills = n_lost = 0
    known: set[str] = set()
    path = folder / "killed" / "train.h5"
    with subprocess.Popen(
        [sys.executable, "-c", _SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=folder,
    ) as server:
        assert server.stdin is not None and server.stdout is not None

        def start(out: str) -> int:
            print(*command, out, file=server.stdin, flush=True)
            return int(server.stdout.readline())

        start("undisturbed")
        assert int(server.stdout.readline()) == 0
        while not path.exists() or parts_folder(path).exists():
            process = start("killed")
            target = len(known) + int(rng.integers(1, 3))
            # Once the file is there, only tidying up is left: that is killed too, but not for ever before it began.
            was_there = path.exists()
            deadline = time.monotonic() + (2 * float(rng.random()) if was_there else 60)
            while time.monotonic() < deadline:
                is_time = path.exists() or len(_parts(path)) >= target
                if not parts_folder(path).exists() if was_there else is_time:
                    break
                time.sleep(0.001)
            time.sleep(float(rng.random()) * 0.01)
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
            n_kills += int(server.stdout.readline()) == -signal.SIGKILL
            there = _parts(path)
            n_lost += 0 if path.exists() else len(known - there)
            known = there
        server.stdin.close()
    is_same = path.read_bytes() == (folder / "undisturbed" / "train.h5").read_bytes()
    return n_kills, n_lost, is_same and not verify(path).faults


def _parts(path: Path) -> set[str]:
    try:
        return {part.name for part in parts_folder(path).iterdir() if part.suffix == ".h5"}
    except FileNotFoundError:
        return set()
