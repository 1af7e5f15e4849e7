"""The features of labelled images: in memory, or left on the disk where they have no room."""

from __future__ import annotations

import abc
import weakref
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from features_cache.errors import CacheError, OptionError, listed
from features_cache.reader import FeatureCache, Picks
from features_cache.recipe import Block
from heads import sizes
from heads.arrays import Float32, ImageArray, Indices
from heads.feature_rows import FeatureRows, RowSource
from heads.memory import Memory, show_size
from heads.stored_rows import StoredRows


def require_finite(cache: FeatureCache, rows: Indices, views: slice | None, blocks: Sequence[str]) -> None:
    """Check that features are numbers; they are read in pieces.

    Raises
    ------
    CacheError
        If one is NaN or infinite.
    """
    n_images = max(1, sizes.PIECE_VALUES // (cache.n_views * len(cache.columns_of(blocks))))
    bad: list[str] = []
    for start in range(0, len(rows), n_images):
        here = rows[start : start + n_images]
        is_bad = ~np.isfinite(cache.stored(here, views=views, blocks=blocks)).all(axis=(1, 2))
        bad += [cache.ids[row] for row in here[is_bad].tolist()]
    if bad:
        msg = (
            f"{cache.path}: {len(bad)} images have features that are no numbers ({listed(bad, 5)}); expected finite ones. Type "
            f"`cli featurize --repair`, or mend features that were made elsewhere"
        )
        raise CacheError(msg)


class CachedImages:
    """Some images of a cache, which stays open as long as they are needed.

    Parameters
    ----------
    cache : FeatureCache
        Taken over.
    rows : int64 array, shape (n_images,)
        Their places in the cache.
    n_views : int
        How many of each, from view 0 on.
    """

    def __init__(self, cache: FeatureCache, rows: Indices, n_views: int) -> None:
        self._cache, self._rows, self.n_views = cache, rows, n_views
        self.close = weakref.finalize(self, cache.close)

    def __len__(self) -> int:
        return len(self._rows)

    def require_sound(self) -> None:
        """Check their features against their checksums.

        Raises
        ------
        CacheDamaged
            If a byte differs.
        """
        self._cache.require_sound(self._rows)

    def require_finite(self, blocks: Sequence[str]) -> None:
        """Check that their features are numbers.

        Raises
        ------
        CacheError
            If one is NaN or infinite.
        """
        require_finite(self._cache, self._rows, slice(0, self.n_views), blocks)

    def n_columns_of(self, blocks: Sequence[str]) -> int:
        """Return how many columns some blocks have."""
        return len(self._cache.columns_of(blocks))

    def load(self, blocks: Sequence[str]) -> Float32:
        """Read all of them, shape (n_images, n_views, n_columns)."""
        return self._cache.load(rows=self._rows, views=slice(0, self.n_views), blocks=blocks)

    def array(self, blocks: Sequence[str]) -> CachedArray:
        """Return what can be read like an array."""
        return CachedArray(self, blocks)

    def some(self, images: Picks, views: Picks, blocks: Sequence[str]) -> Float32:
        """Read some of them, by their places among these."""
        return self._cache.load(rows=self._rows[images], views=np.arange(self.n_views)[views], blocks=blocks)

    def stored(self, images: Indices, n_views: int, blocks: Sequence[str]) -> NDArray[np.floating[Any]]:
        """Read some of them, by their places among these, in the order wanted and as they are stored."""
        return self._cache.stored(self._rows[images], views=slice(0, n_views), blocks=blocks)


class CachedArray:
    """Features that are read where they are asked for, as an array would give them.

    Parameters
    ----------
    images : CachedImages
    blocks : sequence of str
        The columns.
    """

    def __init__(self, images: CachedImages, blocks: Sequence[str]) -> None:
        self._images, self._blocks = images, tuple(blocks)
        self.shape = len(images), images.n_views, images.n_columns_of(blocks)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Picks | tuple[Picks, Picks]) -> Float32:
        images, views = key if isinstance(key, tuple) else (key, slice(None))
        found = self._images.some(images, views, self._blocks)
        return found[:, 0] if isinstance(views, int) else found


class FirstView:
    """View 0 of each image, read where it is asked for.

    Parameters
    ----------
    X : ImageArray
    """

    def __init__(self, X: ImageArray) -> None:
        self._X = X
        self.shape = len(X), X.shape[2]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, images: Indices) -> Float32:
        found: Float32 = self._X[images, 0]
        return found


class Features(abc.ABC):
    """Features of images, shape (n_images, n_views, n_columns).

    Attributes
    ----------
    n_images, n_views : int
    blocks : tuple of Block
        Their columns, in order.
    """

    n_images: int
    n_views: int
    blocks: tuple[Block, ...]

    @property
    def n_columns(self) -> int:
        """Columns of all blocks."""
        return sum(block.columns for block in self.blocks)

    @abc.abstractmethod
    def without(self, name: str) -> Self:
        """Return the same without the columns of a block."""

    @abc.abstractmethod
    def emptied(self) -> Self:
        """Return the same columns and views of no image."""

    @abc.abstractmethod
    def scored(self, n_images: int) -> ImageArray:
        """Return the features of the images that are scored, which come first."""

    @abc.abstractmethod
    def further(self, n_scored: int) -> ImageArray | None:
        """Return the features of the images after those that are scored, if there are any."""

    @abc.abstractmethod
    def rows(self, power: float, device: torch.device) -> RowSource:
        """Return what heads learn from."""

    def _others(self, name: str) -> tuple[Block, ...]:
        return tuple(block for block in self.blocks if block.name != name)


class LoadedFeatures(Features):
    """Features in memory.

    Parameters
    ----------
    X : float32 array, shape (n_images, n_views, n_columns)
    blocks : tuple of Block
    """

    def __init__(self, X: Float32, blocks: tuple[Block, ...]) -> None:
        self.n_images, self.n_views = X.shape[:2]
        self.blocks = blocks
        self._X = X

    def without(self, name: str) -> LoadedFeatures:
        """Return a copy without the columns of a block."""
        place = [block.name for block in self.blocks].index(name)
        start = sum(block.columns for block in self.blocks[:place])
        columns = slice(start, start + self.blocks[place].columns)
        return LoadedFeatures(np.delete(self._X, columns, axis=2), self._others(name))

    def emptied(self) -> LoadedFeatures:
        """Return the same columns and views of no image."""
        return LoadedFeatures(np.empty((0, self.n_views, self.n_columns), np.float32), self.blocks)

    def scored(self, n_images: int) -> Float32:
        """Return the first images' features."""
        return self._X[:n_images]

    def further(self, n_scored: int) -> Float32 | None:
        """Return the features of the images after those that are scored, if there are any."""
        return self._X[n_scored:] if self.n_images > n_scored else None

    def rows(self, power: float, device: torch.device) -> FeatureRows:
        """Draw in all of them.

        Raises
        ------
        OptionError
            If they do not fit the device.
        """
        try:
            return FeatureRows(self._X, power, device)
        except torch.OutOfMemoryError as error:
            n_bytes = show_size(self._X.nbytes)
            msg = (
                f"--device {device.type}: {n_bytes} of features do not fit its memory. Type --memory-limit {n_bytes}, which leaves them "
                f"on the disk, or --device cpu"
            )
            raise OptionError(msg) from error


class StoredFeatures(Features):
    """Features on the disk.

    Parameters
    ----------
    parts : sequence of CachedImages
        One after the other, of the same number of views.
    blocks : tuple of Block
    memory : Memory
    """

    def __init__(self, parts: Sequence[CachedImages], blocks: tuple[Block, ...], memory: Memory) -> None:
        self._parts, self._memory = tuple(parts), memory
        self.n_images, self.n_views = sum(map(len, parts)), parts[0].n_views
        self.blocks = blocks
        self._starts = np.cumsum([0, *map(len, parts)])

    def without(self, name: str) -> StoredFeatures:
        """Return the same without the columns of a block; nothing is read."""
        return StoredFeatures(self._parts, self._others(name), self._memory)

    def emptied(self) -> StoredFeatures:
        """Return itself: nothing is in memory."""
        return self

    def scored(self, n_images: int) -> CachedArray:
        """Return the first images' features: those of the first part."""
        if n_images != len(self._parts[0]):
            msg = f"{n_images} images are scored; expected {len(self._parts[0])}, those of the first cache"
            raise ValueError(msg)
        return self._parts[0].array([block.name for block in self.blocks])

    def further(self, n_scored: int) -> CachedArray | None:
        """Return the features of the images after those that are scored, if there are any: those of the second part."""
        if self.n_images == n_scored:
            return None
        return self._parts[1].array([block.name for block in self.blocks])

    def rows(self, power: float, device: torch.device) -> StoredRows:
        """Return rows that are read when they are needed."""
        return StoredRows(self, power, device, self._memory.chunk_rows)

    def stored(self, images: Indices, n_views: int) -> NDArray[np.floating[Any]]:
        """Read some images, in the order wanted, as they are stored: shape (len(images), n_views, n_columns)."""
        names = [block.name for block in self.blocks]
        of_part = np.searchsorted(self._starts, images, side="right") - 1
        found = {
            part: self._parts[part].stored(images[of_part == part] - self._starts[part], n_views, names)
            for part in np.unique(of_part).tolist()
        }
        if len(found) == 1:
            return next(iter(found.values()))
        out = np.empty((len(images), n_views, self.n_columns), dtype=np.result_type(*found.values()))
        for part, features in found.items():
            out[of_part == part] = features
        return out
