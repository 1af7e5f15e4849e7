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
    UnsafeFile,
)
from features_cache.files import open_regular
from features_cache.recipe import STORAGE_BYTES, Block, Storage, canonical_json
from features_cache.sources import SourceFile, Sources
from features_cache.texts import Texts

TORCH, COMPILE, OPENVINO = RUNTIMES = ("torch", "compile", "openvino")
PLAN_NAME = "plan.jsonl"
QUARANTINE = "quarantine"
_PLAN_VERSION = 3
# Of images with parents. Other plans stay what they were: parts that were made under them serve on.
_PARENTS_VERSION = 4
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
    runtime : {"torch", "compile", "openvino"}
        What runs them.
    """

    device: str
    micro_batch: int
    n_threads: int
    runtime: str = TORCH

    def __post_init__(self) -> None:
        """Refuse a runtime of another version of permafeat, say: it would be taken for torch."""
        if self.runtime not in RUNTIMES:
            msg = f"runtime {self.runtime!r}; expected one of {', '.join(RUNTIMES)}"
            raise ValueError(msg)

    def to_json(self) -> dict[str, Any]:
        """Return the fields, but for a runtime that was the only one when caches began: plans of then stay what they were."""
        fields = dataclasses.asdict(self)
        return {name: value for name, value in fields.items() if (name, value) != ("runtime", TORCH)}


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
    parents : sequence of str
        What each image was cut from, such as the image of a cell; empty where images stand for themselves. :class:`Texts`, where
        there are many.
    """

    ids: Sequence[str]
    sources: Sequence[tuple[SourceFile, ...]]
    n_views: int
    blocks: tuple[Block, ...]
    unit_images: int
    execution: Execution
    base: str = ""
    anew: tuple[str, ...] = ()
    parents: Sequence[str] = ()

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
        return len(self.ids) * self.n_views * self.n_columns * STORAGE_BYTES[self.storage]

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
        return mark_of(self.digest)

    def lines(self) -> Iterator[bytes]:
        """Yield the plan as lines of JSON: the work, then each image's id, its parent if there are any, and its files."""
        yield _line(
            {
                "version": _PARENTS_VERSION if len(self.parents) else _PLAN_VERSION,
                "n_images": len(self.ids),
                "n_views": self.n_views,
                "blocks": [block.to_json() for block in self.blocks],
                "unit_images": self.unit_images,
                "execution": self.execution.to_json(),
                "base": self.base,
                "anew": list(self.anew),
            }
        )
        parents = ([parent] for parent in self.parents) if len(self.parents) else itertools.repeat([], len(self.ids))
        for image_id, parent, files in zip(self.ids, parents, self.sources, strict=True):
            yield _line([image_id, *parent, *([file.path, file.n_bytes, file.sign] for file in files)])

    def file_lines(self) -> Iterator[bytes]:
        """Yield what the plan's file holds: :meth:`lines`, then their digest."""
        yield from self.lines()
        yield _line(self.digest)

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
            if fields["version"] not in {_PLAN_VERSION, _PARENTS_VERSION}:
                msg = f"a plan of version {fields['version']}; expected {_PLAN_VERSION} or {_PARENTS_VERSION}. {_MADE_AGAIN}"
                raise CacheDamaged(msg)
            ids, parents = Texts(), Texts()
            has_parents = fields["version"] == _PARENTS_VERSION
            sources = Sources(_files(values, ids, parents if has_parents else None, fields["n_images"]))
            return cls(
                ids=ids,
                sources=sources,
                n_views=fields["n_views"],
                blocks=tuple(Block.from_json(block) for block in fields["blocks"]),
                unit_images=fields["unit_images"],
                execution=Execution(**fields["execution"]),
                base=fields["base"],
                anew=tuple(fields["anew"]),
                parents=parents if has_parents else (),
            )
        except (AttributeError, KeyError, OverflowError, StopIteration, TypeError, ValueError) as error:
            msg = f"the plan cannot be read ({str(error) or 'it is empty'}). {_MADE_AGAIN}"
            raise CacheDamaged(msg) from error


def _line(value: object) -> bytes:
    return canonical_json(value) + b"\n"


def _files(images: Iterator[Any], ids: Texts, parents: Texts | None, n_images: int) -> Iterator[Iterator[SourceFile]]:
    """Yield each image's files, and append its id, and its parent where it has one; as many as there were."""
    for image_id, *files in images:
        ids.append(image_id)
        if parents is not None:
            parents.append(files.pop(0))
        yield (SourceFile(path=path, n_bytes=size, sign=sign) for path, size, sign in files)
    if len(ids) != n_images:
        msg = f"{len(ids)} images; {n_images} were written"
        raise ValueError(msg)


def mark_of(digest: str) -> str:
    """Return a plan's mark by its digest, which takes a while where there are millions of images."""
    return digest[:12]


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
