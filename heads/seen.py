"""Whether images are among others: by their bytes where these are known, else by their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from features_cache.reader import UNKNOWN_CONTENT
from heads.arrays import Bool


def among(ids: Sequence[str], content: Sequence[str], others: Mapping[str, str]) -> Bool:
    """Find images that others hold, too.

    Parameters
    ----------
    ids : sequence of str
    content : sequence of str
        Hashes of their bytes, in hexadecimal digits.
    others : mapping of str to str
        Id to hash.

    Returns
    -------
    bool array, shape (len(ids),)

    Examples
    --------
    >>> among(["a", "b"], ["1" * 32, "2" * 32], {"c": "2" * 32}).tolist()
    [False, True]
    """
    known = set(others.values()) - {UNKNOWN_CONTENT}
    return np.array(
        [
            digest in known or (image_id in others and UNKNOWN_CONTENT in {digest, others[image_id]})
            for image_id, digest in zip(ids, content, strict=True)
        ],
        dtype=bool,
    )
