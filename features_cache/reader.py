"""Open a published cache and read images, views and blocks of it."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from features_cache.errors import (
    CacheDamaged,
    CacheError,
    ForeignCache,
    OptionError,
    Refused,
    did_you_mean,
    listed,
)
from features_cache.foreign import check_contents, check_members
from features_cache.layout import read_json, row_checksums
from features_cache.opening import opened
from features_cache.plan import Plan
from features_cache.raw import RawFeatures
from features_cache.recipe import Block, any_random
from features_cache.seal import CACHE_MAGIC, check_around, check_whole, read_seal
from features_cache.status import Status

if TYPE_CHECKING:  # loaded where they are asked for: reading a cache needs neither
    import pandas as pd
    import torch

UNKNOWN_CONTENT = "0" * 32
_CHUNK_BYTES = 64 << 20
_HASHED_IMAGES = 64

Picks = NDArray[np.intp] | slice | int | None


class FeatureCache:
    """A published cache, read-only.

    Parameters
    ----------
    path : Path
        The ``*.h5`` file.

    Attributes
    ----------
    ids : tuple of str, length n_images
        Image ids in row order.
    parents : tuple of str, length n_images, or None
        What each image was cut from, such as the image of a cell; None where images stand for themselves.
    status : uint8 array, shape (n_images,)
        :class:`~features_cache.status.Status` codes.
    content_hash : uint8 array, shape (n_images, 16)
        blake2b-128 of each image's bytes.
    checksum : uint8 array, shape (n_images, 16), or None
        blake2b-128 of each image's features; None in format 1.
    blocks : tuple of Block
        The columns, in order.
    n_images, n_views, n_columns : int
        Shape of the features.
    storage : str
        ``float16`` or ``float32``.

    Raises
    ------
    CacheMissing
        If there is no file.
    CacheIncomplete
        If featurize has not finished it.
    CacheDamaged
        If it is shorter or longer than when it was written.
    ForeignCache
        If we did not write it.

    Examples
    --------
    >>> FeatureCache(Path("nowhere.h5"))
    Traceback (most recent call last):
    features_cache.errors.CacheMissing: nowhere.h5: no such cache; run `cli featurize` first, or name one with --features
    """

    def __init__(self, path: Path) -> None:
        self.path = path = Path(path)
        # One descriptor for all: the name may be given to an extended cache at any moment.
        self._handle = opened(path)
        try:
            self.seal = read_seal(self._handle, path, CACHE_MAGIC)
            check_around(self._handle, path, self.seal)
            try:
                with h5py.File(self._handle, "r") as file:
                    self._read_members(file)
            except (OSError, RuntimeError, TypeError, ValueError, KeyError, AttributeError) as error:
                if isinstance(error, CacheError | Refused):
                    raise
                msg = f"{path}: cannot be read as a cache ({type(error).__name__}: {error}); refused"
                raise ForeignCache(msg) from error
        except BaseException:
            self.close()
            raise

    def _read_members(self, file: h5py.File) -> None:
        """Read all but the features, once nothing speaks against it."""
        check_members(self.path, file, self.seal)
        features = file["features"]
        self.n_images, self.n_views, self.n_columns = map(int, features.shape)
        self.storage = features.dtype.name
        self._raw = RawFeatures(
            self._handle.fileno(),
            self.path,
            features.id.get_offset(),
            (self.n_images, self.n_views, self.n_columns),
            features.dtype,
        )
        self._is_whole = False
        self.ids = tuple(raw.decode("utf-8") for raw in file["ids"][()])
        self.parents = _shared_texts(file["parent"][()]) if "parent" in file else None
        self.status: NDArray[np.uint8] = file["status"][()]
        self.content_hash: NDArray[np.uint8] = file["content_hash"][()]
        self.checksum: NDArray[np.uint8] | None = file["checksum"][()] if "checksum" in file else None
        try:
            self.blocks = tuple(Block.from_json(fields) for fields in read_json(file["blocks"]))
        except CacheDamaged as error:  # its bytes are those that were sealed: they were written so
            msg = f"{self.path}: {error}; it is not a cache of ours; refused"
            raise ForeignCache(msg) from error
        check_contents(self.path, self.ids, self.parents, self.status, self.blocks, self.n_columns)

    @functools.cached_property
    def good(self) -> NDArray[np.bool_]:
        """Which images are not quarantined, shape (n_images,)."""
        return np.equal(self.status, Status.GOOD)

    def content_of(self, rows: NDArray[np.intp]) -> list[str]:
        """Return the hashes of some images' bytes in hexadecimal digits; ``UNKNOWN_CONTENT`` of features made elsewhere."""
        return [digest.tobytes().hex() for digest in self.content_hash[rows]]

    @property
    def random_weights(self) -> bool:
        """Whether any block comes from a network that was never trained."""
        return any_random(self.blocks)

    def check_bytes(self) -> None:
        """Read the whole file, and raise ``CacheDamaged`` if a byte is not what was written."""
        check_whole(self._handle, self.path, self.seal)

    def damaged(self, rows: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Find the images whose features are not the bytes that were written; reads all views and blocks of these rows.

        Returns
        -------
        bool array, shape of rows

        Raises
        ------
        CacheDamaged
            If any byte of a file of format 1 differs, which has no checksum a row; it is read once.
        """
        if self.checksum is None:
            if not self._is_whole:
                self.check_bytes()
                self._is_whole = True
            return np.zeros(len(rows), bool)
        expected = self.checksum

        def differ(here: NDArray[np.intp]) -> NDArray[np.bool_]:
            found: NDArray[np.bool_] = (row_checksums(self.stored(here)) != expected[here]).any(axis=1)
            return found

        # In threads: hashing releases the interpreter, and is slower than the disk.
        with ThreadPoolExecutor() as pool:
            pieces = list(pool.map(differ, np.split(rows, range(_HASHED_IMAGES, len(rows), _HASHED_IMAGES))))
        return np.concatenate(pieces)

    def require_sound(self, rows: NDArray[np.intp]) -> None:
        """Check some images' features against their checksums.

        Raises
        ------
        CacheDamaged
            If a byte differs; in format 1, if any byte of the file does.
        """
        damaged = self.damaged(rows)
        if damaged.any():
            names = listed([self.ids[row] for row in rows[damaged]])
            msg = f"{self.path}: the features of {names} are damaged; run `cli verify`, then `cli featurize --repair`, or restore the file"
            raise CacheDamaged(msg)

    def is_made_of(self, plan: Plan) -> bool:
        """Whether a plan describes this very file."""
        same_images = plan.ids == self.ids and plan.parents == (self.parents or ())
        return same_images and (self.n_views, self.blocks) == (plan.n_views, plan.blocks)

    def load(
        self, *, rows: Picks = None, views: Picks = None, blocks: Sequence[str] | None = None
    ) -> NDArray[np.float32]:
        """Read features into memory, the rest staying on the disk.

        Parameters
        ----------
        rows, views : int array or slice, optional
            Which images and which views, in the order wanted; all unless given.
        blocks : sequence of str, optional
            Names of blocks, in the order wanted; all unless given.

        Returns
        -------
        float32 array, shape (rows, views, columns)

        Raises
        ------
        OptionError
            If a block is not in the cache.
        CacheDamaged
            If the file cannot be read to its end.
        """
        wanted = _places(self.n_images, rows)
        out: NDArray[np.float32] = self._read(wanted, views, blocks, np.dtype(np.float32))
        return out

    def stored(
        self, rows: Picks = None, *, views: Picks = None, blocks: Sequence[str] | None = None
    ) -> NDArray[np.floating[Any]]:
        """Read features as :meth:`load` does, in the number type in which they are stored."""
        wanted = _places(self.n_images, rows)
        return self._read(wanted, views, blocks, np.dtype(self.storage))

    def to_torch(self, *, rows: Picks = None, views: Picks = None, blocks: Sequence[str] | None = None) -> torch.Tensor:
        """Read features into a float32 tensor, shape (rows, views, columns); arguments as of :meth:`load`."""
        import torch

        return torch.from_numpy(self.load(rows=rows, views=views, blocks=blocks))

    def to_frame(self, *, rows: Picks = None, views: Picks = None, blocks: Sequence[str] | None = None) -> pd.DataFrame:
        """Read features into a table.

        Parameters
        ----------
        rows, views, blocks
            As of :meth:`load`.

        Returns
        -------
        DataFrame of float32
            A row for each view of each image that is not quarantined, indexed by ``id`` and ``view``; columns are named after
            their blocks, ``resnet18_0`` and so on.
        """
        import pandas as pd

        wanted = _places(self.n_images, rows)
        wanted = wanted[self.good[wanted]]
        numbers = _places(self.n_views, views)
        features = self.load(rows=wanted, views=views, blocks=blocks)
        index = pd.MultiIndex.from_product([[self.ids[row] for row in wanted], numbers], names=["id", "view"])
        names = self.column_names(blocks)
        return pd.DataFrame(features.reshape(len(index), len(names)), index=index, columns=names)

    def column_names(self, blocks: Sequence[str] | None = None) -> list[str]:
        """Name the columns of some blocks, or of all, after their blocks: ``resnet18_0``, ``resnet18_1``, ..."""
        of_place = {place: block for block in self.blocks for place in range(block.start, block.stop)}
        return [f"{of_place[place].name}_{place - of_place[place].start}" for place in self.columns_of(blocks).tolist()]

    def chunks(
        self,
        *,
        rows: Picks = None,
        views: Picks = None,
        blocks: Sequence[str] | None = None,
        n_bytes: int = _CHUNK_BYTES,
    ) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
        """Go through features in pieces, for caches larger than memory.

        Parameters
        ----------
        rows, views, blocks
            As of :meth:`load`.
        n_bytes : int
            Size of a piece in memory, at most (but one image at least).

        Yields
        ------
        rows : int array, shape (n,)
            Places of the images in the cache.
        features : float32 array, shape (n, views, columns)
        """
        wanted = _places(self.n_images, rows)
        n_views = len(_places(self.n_views, views))
        per_chunk = max(1, n_bytes // max(1, 4 * n_views * len(self.columns_of(blocks))))
        for first in range(0, len(wanted), per_chunk):
            here = wanted[first : first + per_chunk]
            yield here, self.load(rows=here, views=views, blocks=blocks)

    def _read(
        self, rows: NDArray[np.intp], views: Picks, blocks: Sequence[str] | None, dtype: np.dtype[Any]
    ) -> NDArray[Any]:
        wanted_views = _places(self.n_views, views)
        columns = self.columns_of(blocks)
        out = np.empty((len(rows), len(wanted_views), len(columns)), dtype)
        self._raw.read_into(out, rows, wanted_views, columns)
        return out

    def columns_of(self, blocks: Sequence[str] | None) -> NDArray[np.intp]:
        """Return the column numbers of some blocks, or of all.

        Raises
        ------
        OptionError
            If a block is not in the cache.
        """
        there = {block.name: block for block in self.blocks}
        names = list(there) if blocks is None else [blocks] if isinstance(blocks, str) else list(blocks)
        for name in names:
            if name not in there:
                msg = f"{self.path}: no block {name!r}; it holds {', '.join(there)}{did_you_mean(name, there)}"
                raise OptionError(msg)
        return np.concatenate([np.arange(0), *(np.arange(there[name].start, there[name].stop) for name in names)])

    def close(self) -> None:
        """Close the file."""
        self._handle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _shared_texts(raw: NDArray[np.bytes_]) -> tuple[str, ...]:
    """Decode texts of which many are equal: each is in memory once."""
    known = {each: each.decode("utf-8") for each in np.unique(raw).tolist()}
    return tuple(known[each] for each in raw.tolist())


def _places(count: int, wanted: Picks) -> NDArray[np.intp]:
    return np.atleast_1d(np.arange(count)[slice(None) if wanted is None else wanted])
