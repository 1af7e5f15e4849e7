"""What a run is going to do, frozen before its first image is opened."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from features_cache.errors import (
    CacheDamaged,
    ImageChanged,
    OutputExists,
    PermafeatError,
    RecipeMismatch,
    UnsafeFile,
    listed,
)
from features_cache.files import DISK, Disk, open_regular, publish
from features_cache.recipe import Block, Storage, canonical_json, recipe_differences, show_differences
from features_cache.sources import SourceFile, Sources
from features_cache.texts import Texts

PLAN_NAME = "plan.jsonl"
QUARANTINE = "quarantine"
_PLAN_VERSION = 3
_LINES_A_WRITE = 1000
_MADE_AGAIN = "`cli featurize` with the options that it was begun with makes it again, and keeps the parts"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """How the networks run: kept so that a resumed run gives the same bytes.

    Parameters
    ----------
    device : str
        ``cpu``, ``cuda`` or ``mps``.
    micro_batch : int
        Views in one forward pass; always this many, the last ones padded.
    n_threads : int
        Threads of one forward pass.
    """

    device: str
    micro_batch: int
    n_threads: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The whole work of one cache.

    Parameters
    ----------
    ids : sequence of str
        Image ids; row order. :class:`Texts`, where there are many.
    sources : sequence of tuple of SourceFile
        Each image's files, in channel order. :class:`Sources`, where there are many.
    n_views : int
        Views an image, view 0 included.
    blocks : tuple of Block
        What each backbone contributes.
    unit_images : int
        Images in one unit of work; unit k holds the rows from ``k * unit_images`` on.
    execution : Execution
        How the networks run.
    base : str
        Checksum (hexadecimal) of the cache that is extended; empty where everything is computed.
    anew : tuple of str
        Ids of images that are computed anew although that cache holds them.
    """

    ids: Sequence[str]
    sources: Sequence[tuple[SourceFile, ...]]
    n_views: int
    blocks: tuple[Block, ...]
    unit_images: int
    execution: Execution
    base: str = ""
    anew: tuple[str, ...] = ()

    @property
    def n_columns(self) -> int:
        """Columns of all blocks together."""
        return self.blocks[-1].stop

    @property
    def n_units(self) -> int:
        """How many parts make the cache."""
        return -(-len(self.ids) // self.unit_images)

    @property
    def storage(self) -> Storage:
        """Number type of the features."""
        return self.blocks[0].recipe.storage

    @property
    def n_feature_bytes(self) -> int:
        """Bytes of the features on disk."""
        width = {"float16": 2, "float32": 4}[self.storage]
        return len(self.ids) * self.n_views * self.n_columns * width

    def rows_of(self, unit: int) -> range:
        """Return the rows that a unit covers."""
        return range(unit * self.unit_images, min((unit + 1) * self.unit_images, len(self.ids)))

    @property
    def digest(self) -> str:
        """Equal exactly when the plans are; every part carries it."""
        digest = hashlib.blake2b(digest_size=16)
        for line in self.lines():
            digest.update(line)
        return digest.hexdigest()

    @property
    def mark(self) -> str:
        """What the names of its parts end in: parts of two plans never take each other's place."""
        return self.digest[:12]

    def lines(self) -> Iterator[bytes]:
        """Yield the plan as lines of JSON: the work, then each image's id and files."""
        yield _line(
            {
                "version": _PLAN_VERSION,
                "n_images": len(self.ids),
                "n_views": self.n_views,
                "blocks": [block.to_json() for block in self.blocks],
                "unit_images": self.unit_images,
                "execution": dataclasses.asdict(self.execution),
                "base": self.base,
                "anew": list(self.anew),
            }
        )
        for image_id, files in zip(self.ids, self.sources, strict=True):
            yield _line([image_id, *([file.path, file.n_bytes, file.mtime_ns] for file in files)])

    @classmethod
    def from_lines(cls, lines: Iterable[bytes]) -> Self:
        """Rebuild a plan from :meth:`lines`.

        Raises
        ------
        CacheDamaged
            If it was written by another version, or damaged.
        """
        values = map(json.loads, lines)
        try:
            fields = next(values)
            if fields["version"] != _PLAN_VERSION:
                msg = f"a plan of version {fields['version']}; expected {_PLAN_VERSION}. {_MADE_AGAIN}"
                raise CacheDamaged(msg)
            ids = Texts()
            sources = Sources(_files(values, ids, fields["n_images"]))
            return cls(
                ids=ids,
                sources=sources,
                n_views=fields["n_views"],
                blocks=tuple(Block.from_json(block) for block in fields["blocks"]),
                unit_images=fields["unit_images"],
                execution=Execution(**fields["execution"]),
                base=fields["base"],
                anew=tuple(fields["anew"]),
            )
        except (AttributeError, KeyError, OverflowError, StopIteration, TypeError, ValueError) as error:
            msg = f"the plan cannot be read ({str(error) or 'it is empty'}). {_MADE_AGAIN}"
            raise CacheDamaged(msg) from error


def _line(value: object) -> bytes:
    return canonical_json(value) + b"\n"


def _joined(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Join lines to pieces that are worth a write."""
    rest = iter(lines)
    while piece := b"".join(itertools.islice(rest, _LINES_A_WRITE)):
        yield piece


def _files(images: Iterator[Any], ids: Texts, n_images: int) -> Iterator[Iterator[SourceFile]]:
    """Yield each image's files, and append its id; as many as there were."""
    for image_id, *files in images:
        ids.append(image_id)
        yield (SourceFile(path=path, n_bytes=size, mtime_ns=mtime) for path, size, mtime in files)
    if len(ids) != n_images:
        msg = f"{len(ids)} images; {n_images} were written"
        raise ValueError(msg)


def parts_folder(path: Path) -> Path:
    """Return where plan and parts of a cache lie while it is being made.

    Examples
    --------
    >>> parts_folder(Path("features/train.h5")).as_posix()
    'features/train.parts'
    """
    return path.with_suffix(".parts")


def plan_in(folder: Path) -> Plan | None:
    """Read the plan of a run in progress; None where there is none.

    Raises
    ------
    CacheDamaged
        If it cannot be read.
    """
    path = folder / PLAN_NAME
    try:
        with open_regular(path) as lines:
            plan = Plan.from_lines(_without_digest(lines))
    except FileNotFoundError:
        return None
    except (CacheDamaged, UnsafeFile) as error:
        msg = f"{path}: {error}"
        raise CacheDamaged(msg) from error
    return plan


def _without_digest(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yield all lines but the last, which must be their digest."""
    digest = hashlib.blake2b(digest_size=16)
    held: bytes | None = None
    for line in lines:
        if held is not None:
            digest.update(held)
            yield held
        held = line
    if held is None or held != _line(digest.hexdigest()):
        msg = f"damaged, or cut. {_MADE_AGAIN}"
        raise CacheDamaged(msg)


def settle_plan(folder: Path, wanted: Plan, *, shared: bool = False, disk: Disk = DISK) -> Plan:
    """Publish a plan, or take up the one that an unfinished run left.

    A run that goes on keeps the earlier unit size and execution, whatever this process would have chosen.

    Parameters
    ----------
    folder : Path
        Where parts lie.
    wanted : Plan
        What this process would do.
    shared : bool
        Whether other processes work on the same plan: then it binds even before anything was committed.
    disk : Disk
        The system calls.

    Returns
    -------
    Plan
        The plan to follow.

    Raises
    ------
    ImageChanged
        If an image is not the file that it was when the plan was made.
    RecipeMismatch, OutputExists
        If the unfinished run was asked for other features, images or views.
    """
    found = _sound_plan_in(folder, disk)
    if found is not None and not shared and not any(folder.glob(f"*-{found.mark}.h5")):
        try:
            require_same_work(found, wanted, folder)
        except PermafeatError:
            # Nothing was committed under the earlier plan: it binds nobody.
            disk.unlink(folder / PLAN_NAME)
            found = None
    if found is None:
        if publish(folder / PLAN_NAME, _joined(itertools.chain(wanted.lines(), [_line(wanted.digest)])), disk=disk):
            return wanted
        # Another writer came first: both follow the plan that stands.
        found = plan_in(folder) or wanted
    require_same_work(found, wanted, folder)
    return found


def _sound_plan_in(folder: Path, disk: Disk) -> Plan | None:
    """Read a plan; a damaged one is set aside, as the parts outlive it wherever the same plan is made again."""
    try:
        return plan_in(folder)
    except CacheDamaged:
        aside = folder / QUARANTINE
        disk.make_folder(aside)
        disk.replace(folder / PLAN_NAME, aside / PLAN_NAME)
        disk.fsync_folder(folder)
        return None


def require_same_work(found: Plan, wanted: Plan, folder: Path) -> None:
    """Check that an unfinished run is for the work that is asked for now.

    Raises
    ------
    ImageChanged, RecipeMismatch, OutputExists
        As :func:`settle_plan`.
    """
    ways_out = f"Finish it with its own options, or remove {folder} to give it up, or begin anew with --overwrite, or choose another --out"
    require_same_recipes(found.blocks, wanted.blocks, f"the unfinished run. {ways_out}")
    if found.blocks != wanted.blocks:
        began, now = (",".join(block.name for block in blocks) for blocks in (found.blocks, wanted.blocks))
        msg = f"the unfinished run has the blocks {began}; {now} are asked for. {ways_out}"
        raise OutputExists(msg)
    if found.execution.device != wanted.execution.device:
        began, now = found.execution.device, wanted.execution.device
        msg = f"the unfinished run began with --device {began}; this one would go on with {now}. {ways_out}"
        raise OutputExists(msg)
    if found.n_views != wanted.n_views:
        msg = f"the unfinished run makes {found.n_views} views an image; {wanted.n_views} are asked for. {ways_out}"
        raise OutputExists(msg)
    if found.ids != wanted.ids:
        n_new, n_gone = len(set(wanted.ids) - set(found.ids)), len(set(found.ids) - set(wanted.ids))
        msg = f"the unfinished run has other images ({n_new} are new, {n_gone} are gone). {ways_out}"
        raise OutputExists(msg)
    if (found.base, found.anew) != (wanted.base, wanted.anew):
        msg = f"the unfinished run extends another file than the one that stands there now, or repairs other rows. {ways_out}"
        raise OutputExists(msg)
    changed = [
        image_id for image_id, old, new in zip(found.ids, found.sources, wanted.sources, strict=True) if old != new
    ]
    if changed:
        msg = (
            f"{len(changed)} images changed since the run began: {listed(changed)}. Put the files back as they were, "
            f"or begin anew with --overwrite"
        )
        raise ImageChanged(msg)


def require_same_recipes(found: tuple[Block, ...], wanted: tuple[Block, ...], where: str) -> None:
    """Check that every wanted block is there with the same recipe.

    Raises
    ------
    RecipeMismatch
        If one is missing or differs; differing fields are shown side by side.
    """
    there = {block.name: block for block in found}
    for block in wanted:
        if block.name not in there:
            msg = f"block {block.name!r} is asked for; found only {', '.join(there)} in {where}"
            raise RecipeMismatch(msg)
        differences = recipe_differences(block.recipe, there[block.name].recipe)
        if differences:
            shown = show_differences(differences, "asked for", "found")
            msg = f"block {block.name!r} has another recipe in {where}:\n{shown}"
            raise RecipeMismatch(msg)
