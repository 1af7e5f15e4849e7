"""Open a published cache and read images, views and blocks of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from features_cache.errors import CacheIncomplete, CacheMissing, ForeignCache, OptionError, did_you_mean
from features_cache.layout import HASH_BYTES, read_json
from features_cache.recipe import Block
from features_cache.seal import CACHE_MAGIC, read_seal
from features_cache.status import Status
from features_cache.writer import parts_folder

_DATASETS = {
    "features": ("float16", "float32"),
    "ids": ("bytes",),
    "status": ("uint8",),
    "content_hash": ("uint8",),
    "blocks": ("uint8",),
}
_SLAB_BYTES = 64 << 20

Rows = NDArray[np.intp] | slice | None


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
    status : uint8 array, shape (n_images,)
        :class:`~features_cache.status.Status` codes.
    content_hash : uint8 array, shape (n_images, 16)
        blake2b-128 of each image's bytes.
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
        self.path = path
        try:
            self.seal = read_seal(path, CACHE_MAGIC)
        except FileNotFoundError as error:
            raise _absent(path) from error
        except IsADirectoryError as error:
            msg = f"{path}: a folder; expected a cache (*.h5)"
            raise CacheMissing(msg) from error
        self._file = h5py.File(path, "r", locking=False)
        try:
            _check_members(path, self._file)
            self._features: h5py.Dataset = self._file["features"]
            self.n_images, self.n_views, self.n_columns = map(int, self._features.shape)
            self.storage = self._features.dtype.name
            self.ids = tuple(raw.decode("utf-8") for raw in self._file["ids"][()])
            self.status: NDArray[np.uint8] = self._file["status"][()]
            self.content_hash: NDArray[np.uint8] = self._file["content_hash"][()]
            self.blocks = tuple(Block.from_json(fields) for fields in read_json(self._file["blocks"]))
            _check_contents(path, self.ids, self.blocks, self.n_columns)
        except BaseException:
            self._file.close()
            raise

    @property
    def good(self) -> NDArray[np.bool_]:
        """Which images are not quarantined, shape (n_images,)."""
        return np.equal(self.status, Status.GOOD)

    @property
    def random_weights(self) -> bool:
        """Whether any block comes from a network that was never trained."""
        return not all(block.recipe.pretrained for block in self.blocks)

    def load(
        self, *, rows: Rows = None, views: Rows = None, blocks: Sequence[str] | None = None
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
        """
        wanted_rows = np.arange(self.n_images)[slice(None) if rows is None else rows]
        wanted_views = np.arange(self.n_views)[slice(None) if views is None else views]
        columns = self.columns_of(blocks)
        out = np.empty((len(wanted_rows), len(wanted_views), len(columns)), np.float32)
        everything = len(wanted_views) == self.n_views and len(columns) == self.n_columns
        in_order = everything and bool((np.diff(wanted_views) == 1).all() and (np.diff(columns) == 1).all())
        per_slab = max(1, _SLAB_BYTES // (self.n_views * self.n_columns * self._features.dtype.itemsize))
        for first in range(0, self.n_images, per_slab):
            last = min(first + per_slab, self.n_images)
            here = (wanted_rows >= first) & (wanted_rows < last)
            if not here.any():
                continue
            slab = self._features[first:last]
            picked = slab[wanted_rows[here] - first]
            out[here] = picked if in_order else picked[:, wanted_views][:, :, columns]
        return out

    def columns_of(self, blocks: Sequence[str] | None) -> NDArray[np.intp]:
        """Return the column numbers of some blocks, or of all.

        Raises
        ------
        OptionError
            If a block is not in the cache.
        """
        there = {block.name: block for block in self.blocks}
        names = list(there) if blocks is None else list(blocks)
        for name in names:
            if name not in there:
                msg = f"{self.path}: no block {name!r}; it holds {', '.join(there)}{did_you_mean(name, there)}"
                raise OptionError(msg)
        return np.concatenate([np.arange(there[name].start, there[name].stop) for name in names])

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _absent(path: Path) -> Exception:
    if parts_folder(path).is_dir():
        msg = f"{path}: not finished ({parts_folder(path)} holds its parts); run `cli featurize` again to resume"
        return CacheIncomplete(msg)
    msg = f"{path}: no such cache; run `cli featurize` first, or name one with --features"
    return CacheMissing(msg)


def _check_members(path: Path, file: h5py.File) -> None:
    """Refuse what reaches outside the file or is not of the format, before a byte of data is read."""
    names = set(file)
    if names != set(_DATASETS):
        msg = f"{path}: holds {sorted(names)}; expected {sorted(_DATASETS)}. It is not a cache of ours; refused"
        raise ForeignCache(msg)
    for name, types in _DATASETS.items():
        if not isinstance(file.get(name, getlink=True), h5py.HardLink):
            msg = f"{path}: {name} is a link to somewhere else; refused"
            raise ForeignCache(msg)
        member: Any = file[name]
        if not isinstance(member, h5py.Dataset) or not member.dtype.name.startswith(types):
            msg = f"{path}: {name} is not the array that the format describes; refused"
            raise ForeignCache(msg)
        creation = member.id.get_create_plist()
        if creation.get_layout() != h5py.h5d.CONTIGUOUS or creation.get_external_count() or creation.get_nfilters():
            msg = f"{path}: {name} is stored outside the file or through a filter; refused"
            raise ForeignCache(msg)
        if member.id.get_storage_size() != member.nbytes:
            msg = f"{path}: {name} declares {member.nbytes} bytes and stores {member.id.get_storage_size()}; refused"
            raise ForeignCache(msg)
    n_images = file["features"].shape[0] if file["features"].ndim == 3 else -1
    shapes = {"ids": (n_images,), "status": (n_images,), "content_hash": (n_images, HASH_BYTES)}
    if any(file[name].shape != shape for name, shape in shapes.items()):
        msg = f"{path}: ids, status, content_hash and features do not have the same number of images; refused"
        raise ForeignCache(msg)


def _check_contents(path: Path, ids: tuple[str, ...], blocks: tuple[Block, ...], n_columns: int) -> None:
    if len(set(ids)) != len(ids):
        msg = f"{path}: {len(ids) - len(set(ids))} ids occur twice; it is not a cache of ours; refused"
        raise ForeignCache(msg)
    if [block.start for block in blocks] + [n_columns] != [0, *(block.stop for block in blocks)]:
        msg = f"{path}: its blocks do not cover its {n_columns} columns; it is not a cache of ours; refused"
        raise ForeignCache(msg)
