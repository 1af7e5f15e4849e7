"""Names for the arrays that go from hand to hand."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Bool = NDArray[np.bool_]
Indices = NDArray[np.int64]
Float = NDArray[np.floating[Any]]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


class ImageArray(Protocol):
    """Features of images, shape (n_images, n_views, n_columns): an array, or a file that is read where it is asked."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Images, views, columns."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: Any, /) -> Any: ...  # noqa: ANN401 - slices and places, as numpy takes them
