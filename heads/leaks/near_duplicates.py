"""The leak guard's eye: images so alike that they may be copies, among the labelled images and between them and the test's."""

from __future__ import annotations

import dataclasses

import numpy as np

from heads.arrays import ImageArray, Indices
from heads.leaks.alike_pairs import AlikePairs, alike_pairs
from heads.leaks.copy_space import CopySpace
from heads.leaks.copy_threshold import FIXED_THRESHOLD, Threshold, calibrated
from heads.sizes import MOST_COMPARED

MOST_PAIRS = 1_000_000


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NearDuplicates:
    """Pairs of images that are as alike as copies, the most alike first.

    Parameters
    ----------
    n_images, n_others, n_further : int
        How many images were compared; ``n_others`` is 0 without test images, ``n_further`` without further ones.
    n_views, n_other_views : int
        How many views of each were averaged.
    threshold : Threshold
    other_threshold : Threshold
        For pairs of a labelled and a test image; the same unless these have fewer views.
    train : AlikePairs
        Places of two labelled images, the smaller first.
    n_differing : int
        How many of those pairs have different labels: false pairs, or wrong labels.
    test : AlikePairs
        Place of a labelled image, place of a test image; empty without test images.
    further : AlikePairs
        Place of a labelled image, place of a further image; empty without further images.
    """

    n_images: int
    n_others: int
    n_further: int
    n_views: int
    n_other_views: int
    threshold: Threshold
    other_threshold: Threshold
    train: AlikePairs
    n_differing: int
    test: AlikePairs
    further: AlikePairs

    @property
    def truncated(self) -> bool:
        """Whether there were more pairs than are told."""
        return self.train.truncated or self.test.truncated or self.further.truncated


def find_near_duplicates(
    X: ImageArray,
    labels: Indices,
    others: ImageArray | None = None,
    further: ImageArray | None = None,
    *,
    most: int = MOST_PAIRS,
    most_fitted: int = MOST_COMPARED,
) -> NearDuplicates:
    """Find pairs of images whose features are as alike as those of copies of one image.

    All labelled (and no test) images and their views teach a :class:`~heads.leaks.copy_space.CopySpace`; cosines are between the
    means over views there. The threshold is the larger of two cosines:

    - the 5 % quantile of the cosines between two halves of the views of one image, which is what copies look like to the
      networks under this augmentation (means over half of the views are a little less alike than those of copies, which have all);
    - the lowest one at which false pairs are few, as far as labels can tell: copies share a label, and pairs of different labels,
      divided by their share among all pairs, estimate the false ones. They may be one for each hundred images, beside as large a
      share as among the pairs that are more alike than half of the copies: those are copies with wrong labels, if they are no more
      than a tenth. It is a lower bound, as images of one class are more alike than others.

    Where the second is larger the two distributions overlap, and ``found_share`` says how many copies are still found. Without
    views the threshold starts from 0.7 instead of the quantile: on 2,519 nuclei it found 75 to 99 % of copies that were saved
    as JPEG, scaled by 3/4, shifted by 2 of 64 pixels, mirrored or brightened; the result says that it was fixed.

    Parameters
    ----------
    X : float32 array, shape (n_images, n_views, n_columns)
        Raw features of the labelled images; view 0 is the image itself.
    labels : int64 array, shape (n_images,)
        What copies of one image share: the class, or a number for each combination of classes.
    others : float32 array, shape (n_others, n_other_views, n_columns), optional
        Raw features of the test images. Views beyond those of X are not used.
    further : float32 array, shape (n_further, n_views, n_columns), optional
        Raw features of images that are learned from and never scored.
    most : int
        How many pairs to keep, of each kind.
    most_fitted : int
        How many images the space is learned from.

    Returns
    -------
    NearDuplicates

    Raises
    ------
    ValueError
        If arrays do not fit each other.
    """
    n_images, n_views, n_columns = X.shape
    others = X[:0] if others is None else others
    further = X[:0] if further is None else further
    if len(labels) != n_images or others.shape[2] != n_columns or further.shape[1:] != (n_views, n_columns):
        msg = (
            f"features of shape {X.shape}, {len(labels)} labels, others of shape {others.shape}, further of shape {further.shape}; "
            f"expected a label an image, equal columns, and further images of as many views"
        )
        raise ValueError(msg)
    n_other_views = min(n_views, others.shape[1]) if len(others) else 0
    if n_images < 2:
        return _nothing(X, len(others), len(further), n_other_views)
    space = CopySpace.fit(X, most_fitted)
    rows = space.places(X, slice(0, n_views))
    threshold, train = calibrated(space, X, labels, n_views, most, rows)
    other_threshold, test, copied = threshold, _EMPTY, _EMPTY
    if len(others):
        if n_other_views != n_views:
            other_threshold, _ = calibrated(space, X, labels, n_other_views, most, rows)
        others_rows = space.places(others, slice(0, n_other_views))
        test = alike_pairs(rows, others_rows, least=other_threshold.value, most=most)
    if len(further):
        copied = alike_pairs(rows, space.places(further, slice(0, n_views)), least=threshold.value, most=most)
    first, second = train.places.T
    return NearDuplicates(
        n_images=n_images,
        n_others=len(others),
        n_further=len(further),
        n_views=n_views,
        n_other_views=n_other_views,
        threshold=threshold,
        other_threshold=other_threshold,
        train=train,
        n_differing=int((labels[first] != labels[second]).sum()),
        test=test,
        further=copied,
    )


_EMPTY = AlikePairs(places=np.zeros((0, 2), np.int64), cosines=np.zeros(0), truncated=False)


def _nothing(X: ImageArray, n_others: int, n_further: int, n_other_views: int) -> NearDuplicates:
    none = Threshold(value=FIXED_THRESHOLD, is_fixed=True, within={}, found_share=None)
    return NearDuplicates(
        n_images=len(X),
        n_others=n_others,
        n_further=n_further,
        n_views=X.shape[1],
        n_other_views=n_other_views,
        threshold=none,
        other_threshold=none,
        train=_EMPTY,
        n_differing=0,
        test=_EMPTY,
        further=_EMPTY,
    )
