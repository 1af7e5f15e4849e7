"""Which terms make an image's copies, within which ranges; docs/AUGMENTATION.md has each term's formula and source.

The geometric terms compose into one map and one resampling (``augment.py``), the photometric ones follow (``photometric.py``).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

from features_cache.errors import OptionError, did_you_mean

if TYPE_CHECKING:  # loaded where views are made: `cli --help` shows the defaults and answers at once
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

Flip = Literal["none", "horizontal", "vertical", "both"]
QUARTER = "quarter"
SECTION = "augmentation"
_FLIPS: tuple[Flip, ...] = get_args(Flip)
_COS_AND_SIN = ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0))  # of quarter turns: math.cos(math.pi / 2) is 6e-17
_MOST = {"rotate": 180.0, "shift": 0.5, "skew": 45.0, "brightness": 1.0, "contrast": 1.0}
_UNITS = {"rotate": " degrees", "skew": " degrees", "shift": " of the side"}
_BOUNDS = {"zoom": (0.1, 10.0, [0.8, 1.25]), "blur": (0.0, 16.0, [0.0, 1.5]), "noise": (0.0, 1.0, [0.0, 0.05])}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """The terms that every augmented copy goes through; the defaults flip both ways and turn freely, and do nothing else.

    Parameters
    ----------
    flip : {"none", "horizontal", "vertical", "both"}
        Each with probability 0.5.
    rotate : float or "quarter"
        Degrees either way, 0 to 180, uniform; or a multiple of 90 degrees, uniform.
    zoom : tuple of float
        Smallest and largest factor, 0.1 to 10; its logarithm is uniform. Above 1 the picture grows.
    shift : float
        Largest share of the side, 0 to 0.5, to either side and up or down, uniform each.
    skew : float
        Largest angle in degrees, 0 to 45, by which columns lean to either side, uniform.
    brightness : float
        A factor is uniform within 1 plus and minus this, 0 to 1.
    contrast : float
        Likewise the factor of the distance from each plane's mean.
    blur : tuple of float
        Smallest and largest standard deviation of a Gaussian, 0 to 16 px of the networks' input, uniform.
    noise : tuple of float
        Smallest and largest standard deviation of Gaussian noise, 0 to 1 in units of the range [0, 1], uniform.

    Raises
    ------
    OptionError
        If a value makes no sense.

    Examples
    --------
    >>> Augmentation(rotate="quarter", zoom=(0.8, 1.25)).terms[2:]
    ('rotation by quarter turns', 'zoom log-uniform in 0.8 to 1.25')
    """

    flip: Flip = "both"
    rotate: float | Literal["quarter"] = 180.0
    zoom: tuple[float, float] = (1.0, 1.0)
    shift: float = 0.0
    skew: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    blur: tuple[float, float] = (0.0, 0.0)
    noise: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        if self.flip not in _FLIPS:
            near = did_you_mean(str(self.flip), _FLIPS)
            raise _fault(name="flip", value=self.flip, expected=f"one of {', '.join(_FLIPS)}{near}")
        for name, most in _MOST.items():
            value = getattr(self, name)
            if (name, value) == ("rotate", QUARTER) or (_is_number(value) and 0 <= value <= most):
                continue
            expected = f"0 to {most:g}{_UNITS.get(name, '')}"
            if name == "rotate":
                expected += f', or "{QUARTER}"{did_you_mean(str(value), [QUARTER])}'
            raise _fault(name, value, expected)
        for name, (least, most, example) in _BOUNDS.items():
            value = getattr(self, name)
            if not _is_range(value, least, most):
                expected = f"two numbers from {least:g} to {most:g}, the smaller first, such as {example}"
                raise _fault(name, value, expected)

    @property
    def terms(self) -> tuple[str, ...]:
        """Each term in words, in the order in which they act; equal words make equal views."""
        turn = "by quarter turns" if isinstance(self.rotate, str) else f"uniform in +-{_digits(self.rotate)} degrees"
        is_used = {
            "horizontal flip p=0.5": self.flip in {"horizontal", "both"},
            "vertical flip p=0.5": self.flip in {"vertical", "both"},
            f"rotation {turn}": self.rotate != 0,
            f"skew of columns uniform in +-{_digits(self.skew)} degrees": self.skew > 0,
            f"zoom log-uniform in {_from_to(self.zoom)}": self.zoom != (1, 1),
            f"shift uniform in +-{_digits(self.shift)} of the side": self.shift > 0,
            f"brightness factor uniform in 1 +-{_digits(self.brightness)}": self.brightness > 0,
            f"contrast factor uniform in 1 +-{_digits(self.contrast)}, about each plane's mean": self.contrast > 0,
            f"blur sigma uniform in {_from_to(self.blur)} px": any(self.blur),
            f"noise deviation uniform in {_from_to(self.noise)}": any(self.noise),
        }
        return tuple(text for text, used in is_used.items() if used)

    def require_terms(self, n_copies: int) -> None:
        """Check that copies would differ from their image.

        Raises
        ------
        OptionError
            If there are to be copies, and no term makes them.
        """
        if n_copies and not self.terms:
            msg = (
                f"[{SECTION}] names no term that does anything, so that all {n_copies} copies of an image would be the image "
                f"itself; name one, such as rotate = 180, or type --augment 0"
            )
            raise OptionError(msg)

    @property
    def is_photometric(self) -> bool:
        """Whether a term changes the numbers of pixels, beside moving them."""
        return bool(self.brightness or self.contrast or any(self.blur) or any(self.noise))

    def views(self, images: Tensor, seed: int, ids: Sequence[str], views: Sequence[int]) -> Tensor:
        """Make one view of each image.

        Parameters
        ----------
        images : float32 tensor, shape (n, planes, side, side)
            One source a view, in [0, 1], on any device. Not changed.
        seed : int
            The run's seed.
        ids : sequence of str, length n
            The image of each view.
        views : sequence of int, length n
            Which view it is; 0 is the image itself.

        Returns
        -------
        float32 tensor, shape (n, planes, side, side)
            In [0, 1], on the images' device; a view's numbers do not depend on its neighbours.
        """
        import torch  # not above: what only reads settings needs no torch

        keys = [(seed, image_id, view) for image_id, view in zip(ids, views, strict=True)]
        copies = [index for index, view in enumerate(views) if view]
        if not copies:
            return images
        if len(copies) == len(keys):
            return self._copies(images, keys)
        chosen = torch.tensor(copies, device=images.device)
        made = images.clone()
        made[chosen] = self._copies(images[chosen], [keys[index] for index in copies])
        return made

    def matrix(self, seed: int, image_id: str, view: int) -> NDArray[np.float32]:
        """Draw the map from a view's coordinates to the image's.

        Parameters
        ----------
        seed : int
        image_id : str
        view : int
            0 is the image itself.

        Returns
        -------
        float32 array, shape (2, 3)
            As of :func:`featurize.views.affine.affine`.
        """
        from featurize.views.affine import affine, drawn, view_rng

        if view == 0:
            return affine()
        flip_x, flip_y, angle = drawn(seed, image_id, view)
        if isinstance(self.rotate, str):
            cos, sin = _COS_AND_SIN[int((angle + math.pi) // (math.pi / 2)) % 4]
        else:
            angle *= self.rotate / 180
            cos, sin = math.cos(angle), math.sin(angle)
        angle_of_skew, zoom, shift = 0.0, 1.0, (0.0, 0.0)
        if self.skew:
            angle_of_skew = math.radians(view_rng(seed, image_id, view, "skew").uniform(-self.skew, self.skew))
        if self.zoom != (1, 1):
            low, high = map(math.log, self.zoom)
            zoom = math.exp(view_rng(seed, image_id, view, "zoom").uniform(low, high))
        if self.shift:
            right, down = view_rng(seed, image_id, view, "shift").uniform(-self.shift, self.shift, 2).tolist()
            shift = (right, down)
        return affine(
            flip_x=flip_x and self.flip in {"horizontal", "both"},
            flip_y=flip_y and self.flip in {"vertical", "both"},
            cos=cos,
            sin=sin,
            skew=math.tan(angle_of_skew),
            zoom=zoom,
            shift=shift,
        )

    def _copies(self, images: Tensor, keys: Sequence[tuple[int, str, int]]) -> Tensor:
        """Make views of which none is the image itself; ``keys`` holds each one's seed, image and number."""
        from featurize.views.affine import view_rng, warp
        from featurize.views.photometric import add_noise, blur, brighten, stretch

        def strengths(term: str, low: float, high: float) -> list[float]:
            return [float(view_rng(*key, term).uniform(low, high)) for key in keys]

        made = warp(images, [self.matrix(*key) for key in keys])
        if self.brightness:
            made = brighten(made, strengths("brightness", 1 - self.brightness, 1 + self.brightness))
        if self.contrast:
            made = stretch(made, strengths("contrast", 1 - self.contrast, 1 + self.contrast))
        if any(self.blur):
            made = blur(made, strengths("blur", *self.blur), most=self.blur[1])
        if any(self.noise):
            # The field has a stream of its own: its numbers are the same at every strength.
            fields = [view_rng(*key, "noise field") for key in keys]
            made = add_noise(made, strengths("noise", *self.noise), fields)
        return made.clamp(0, 1) if self.is_photometric else made


def augmentation_of(table: Mapping[str, Any], where: str = "") -> Augmentation:
    """Understand the section ``[augmentation]`` of permafeat.toml: it means the terms that it names, and no other.

    Parameters
    ----------
    table : mapping of str to object
        Fields of :class:`Augmentation`, as TOML has them: a list of two where that takes a pair.
    where : str
        What messages begin with, such as the file's name.

    Returns
    -------
    Augmentation

    Raises
    ------
    OptionError
        If a key is unknown or a value makes no sense.

    Examples
    --------
    >>> augmentation_of({"rotate": 30, "blur": [0, 1.5]}).terms
    ('rotation uniform in +-30 degrees', 'blur sigma uniform in 0 to 1.5 px')
    """
    known = [field.name for field in dataclasses.fields(Augmentation)]
    named: dict[str, Any] = {"flip": "none", "rotate": 0.0}
    for key, value in table.items():
        if key not in known:
            msg = (
                f"{where}[{SECTION}] has no key {key!r}{did_you_mean(key, known)}; expected some of {', '.join(known)}"
            )
            raise OptionError(msg)
        named[key] = tuple(value) if isinstance(value, list) else value
    try:
        return Augmentation(**named)
    except OptionError as error:
        msg = f"{where}{error}"
        raise OptionError(msg) from error


def _fault(name: str, value: object, expected: str) -> OptionError:
    shown = list(value) if isinstance(value, tuple) else value
    return OptionError(f"[{SECTION}] {name} is {shown!r}; expected {expected}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf


def _is_range(value: object, least: float, most: float) -> bool:
    if not isinstance(value, tuple) or len(value) != 2 or not all(map(_is_number, value)):
        return False
    return bool(least <= value[0] <= value[1] <= most)


def _digits(number: float) -> str:
    """Write a number in the fewest digits that no other number has."""
    return repr(float(number)).removesuffix(".0")


def _from_to(pair: tuple[float, float]) -> str:
    return f"{_digits(pair[0])} to {_digits(pair[1])}"


FLIPS_AND_TURNS = Augmentation()
