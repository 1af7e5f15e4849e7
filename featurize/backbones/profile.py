"""What is known of a network before it is built: its normalisation, its own size, its weights and their licence."""

from __future__ import annotations

import dataclasses

from featurize.backbones.build import IMAGENET_MEAN, IMAGENET_STD, check_backbone
from featurize.backbones.own_backbones import own_backbone, own_names
from featurize.backbones.spelling import Spelling
from featurize.backbones.timm_backbones import timm_card
from featurize.backbones.weights import published_licence, published_weights
from featurize.settings import TRAINED_SIZE_PX

# Their texts allow any use, with the authors named; all else is told.
_PERMISSIVE = {
    "apache-2.0",
    "bsd-2-clause",
    "bsd-3-clause",
    "cc-by-4.0",
    "cc0-1.0",
    "isc",
    "mit",
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """How a network wants its images, and whose weights it has.

    Parameters
    ----------
    mean, std : tuple of float, length 3
        Normalisation in units of the [0, 1] range.
    size_px : int
        Side of the images that it was trained on; 224 for all of torchvision's networks.
    licence : str
        Of its published weights; empty where nobody says.
    weights : str
        Their name: torchvision's, a place on the Hugging Face hub, or the distribution that brings them.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    size_px: int
    licence: str
    weights: str

    @property
    def is_permissive(self) -> bool:
        """Whether the licence is known to allow any use; an unknown one is not."""
        return self.licence.lower() in _PERMISSIVE


def profile_of(name: str) -> Profile:
    """Look up what a backbone is, without building it.

    Parameters
    ----------
    name : str
        As spelled: ``NETWORK[@REVISION][/TAP]``.

    Raises
    ------
    OptionError
        If the network is unknown.

    Examples
    --------
    >>> profile_of("resnet18/gem").size_px, profile_of("resnet18").licence
    (224, 'BSD-3-Clause')
    """
    check_backbone(name)
    spelling = Spelling.parse(name)
    if spelling.is_timm:
        card = timm_card(spelling.timm_name)
        at = f"@{spelling.revision}" if spelling.revision else ""
        return Profile(
            mean=card.mean, std=card.std, size_px=card.size_px, licence=card.licence, weights=f"{card.hub_id}{at}"
        )
    if spelling.network in own_names():
        own = own_backbone(spelling.network)
        return Profile(
            mean=own.mean or IMAGENET_MEAN,
            std=own.std or IMAGENET_STD,
            size_px=own.size_px,
            licence=own.licence,
            weights=own.distribution,
        )
    return Profile(
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        size_px=TRAINED_SIZE_PX,
        licence=published_licence(spelling.network),
        weights=published_weights(spelling.network).name,
    )
