"""Clusters of near-duplicates, and the groups that keep them in one fold."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from heads.arrays import Indices


def clusters(pairs: Indices, n_images: int) -> Indices:
    """Give one number to images that pairs link, directly or through others.

    Parameters
    ----------
    pairs : int64 array, shape (n_pairs, 2)
        Places of two images.
    n_images : int

    Returns
    -------
    int64 array, shape (n_images,)
        0 to n_clusters - 1, in the order of the clusters' first images; an image that is in no pair is a cluster of its own.

    Examples
    --------
    >>> clusters(np.array([[0, 3], [3, 4]]), 6).tolist()
    [0, 1, 2, 0, 0, 3]
    """
    links = coo_array((np.ones(len(pairs), np.int32), (pairs[:, 0], pairs[:, 1])), shape=(n_images, n_images))
    found = connected_components(links, directed=False)[1]
    return _in_order_of_first(found)


def groups_with_clusters(groups: Indices | None, clusters: Indices, *, n_folds: int) -> tuple[Indices, tuple[str, ...]]:
    """Keep each cluster in one group, and each group whole: groups that a cluster links become one.

    Chance likenesses chain: image after image, a cluster (or the groups that it links) can come to hold so much of the data that
    folds of like size cannot be made. So no groups are joined to one of more than ``1 / (2 n_folds)`` of the images: the images of
    a cluster that asks for it keep their own groups, and this is told. Small clusters are grouped first.

    Parameters
    ----------
    groups : int64 array, shape (n_images,), or None
        Group indices; None where images stand for themselves.
    clusters : int64 array, shape (n_images,)
        As :func:`clusters` numbers them.
    n_folds : int

    Returns
    -------
    groups : int64 array, shape (n_images,)
        0 to n_groups - 1, in the order of their first images.
    told : tuple of str
        What could not be grouped.

    Examples
    --------
    >>> groups_with_clusters(None, np.array([0, 1, 0, 2, 3, 4, 5, 6, 7, 8, 9, 10]), n_folds=2)[0].tolist()
    [0, 1, 0, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    """
    n_images = len(clusters)
    most = n_images / (2 * n_folds)
    own = np.arange(n_images) if groups is None else _in_order_of_first(groups)
    union = _Union(own)
    by_cluster = np.split(np.argsort(clusters, kind="stable"), np.cumsum(np.bincount(clusters))[:-1])
    refused = [
        members for members in sorted(by_cluster, key=len) if len(members) > 1 and not union.join(own[members], most)
    ]
    merged = _in_order_of_first(np.array([union.root(group) for group in own.tolist()], dtype=np.int64))
    if not refused:
        return merged, ()
    n_refused = sum(map(len, refused))
    owner = "own images" if groups is None else "own groups"
    text = (
        f"{len(refused)} clusters of near-duplicates ({n_refused} of {n_images} images, the largest of {len(refused[-1])}) would "
        f"make groups of more than {int(most)} images, which is too much for {n_folds} folds: they keep their {owner}, and "
        f"figures may be too good. Look at near_duplicates.csv; use fewer folds (--folds), or name what these images share with "
        f"--group-column"
    )
    return merged, (text,)


class _Union:
    """Groups, joined one after another, with the number of images in each.

    Parameters
    ----------
    groups : int64 array, shape (n_images,)
        0 to n_groups - 1.
    """

    def __init__(self, groups: Indices) -> None:
        self._parents = list(range(int(groups.max(initial=-1)) + 1))
        self._sizes = np.bincount(groups).tolist()

    def root(self, group: int) -> int:
        """Return the group that stands for all that were joined with this one."""
        while self._parents[group] != group:
            self._parents[group] = self._parents[self._parents[group]]
            group = self._parents[group]
        return group

    def join(self, groups: Indices, most: float) -> bool:
        """Make some groups one, unless they are several and would hold more images than this together."""
        roots = sorted({self.root(group) for group in groups.tolist()})
        sizes = [self._sizes[root] for root in roots]
        if len(roots) > 1 and sum(sizes) > most:
            return False
        for root in roots[1:]:
            self._parents[root] = roots[0]
        self._sizes[roots[0]] = sum(sizes)
        return True


def _in_order_of_first(numbers: Indices) -> Indices:
    _, first, inverse = np.unique(numbers, return_index=True, return_inverse=True)
    order = np.empty(len(first), np.int64)
    order[np.argsort(first)] = np.arange(len(first))
    renumbered: Indices = order[inverse]
    return renumbered
