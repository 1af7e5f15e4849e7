"""Outputs of heads turned into probabilities of images."""

from __future__ import annotations

import numpy as np
import torch

from heads.arrays import Float32, Float64
from heads.scores import ScoresOnDisk
from heads.targets import to_probabilities


def image_probabilities(
    scores: Float32 | ScoresOnDisk,
    temperature: float,
    shift: Float64 | float = 0.0,
    *,
    many: bool,
    n_views: int | None = None,
) -> Float64:
    """Turn outputs into probabilities, averaged over members and views.

    Parameters
    ----------
    scores : float array, shape (n_members, n_images, n_views, n_classes), or ScoresOnDisk
        Outputs of a head; minus infinity for classes that it never saw.
    temperature : float
        They are divided by it.
    shift : float64 array, shape (n_classes,)
        And this is added; see :mod:`heads.prior`.
    many : bool
        Whether an image may have many labels.
    n_views : int, optional
        Over how many views, from view 0 on; all unless given.

    Returns
    -------
    float64 array, shape (n_images, n_classes)

    Examples
    --------
    >>> import numpy as np
    >>> scores = np.log(np.array([[[[1.0, 3.0]], [[1.0, 1.0]]]]))
    >>> image_probabilities(scores, 1.0, many=False).tolist()
    [[0.25, 0.75], [0.5, 0.5]]
    """
    if isinstance(scores, ScoresOnDisk):
        pieces = [
            image_probabilities(piece, temperature, shift, many=many, n_views=n_views) for piece in scores.pieces()
        ]
        return np.concatenate(pieces)
    outputs = torch.from_numpy(scores[:, :, :n_views]) / temperature
    outputs += torch.as_tensor(shift, dtype=outputs.dtype)
    mean: Float64 = to_probabilities(outputs, many=many).mean(dim=(0, 2), dtype=torch.float64).numpy()
    return mean
