"""What fixes the numbers of one block of columns, and the digest that says whether two blocks are the same."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Literal, Self

from features_cache.errors import CacheDamaged, OptionError

Precision = Literal["float32", "bfloat16", "float16"]
Storage = Literal["float16", "float32"]
Statistics = Literal["imagenet", "dataset"]

IMPORTED = "imported"
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "float16")
STORAGE_BYTES: dict[Storage, int] = {"float16": 2, "float32": 4}
STORAGE_TYPES = tuple(STORAGE_BYTES)

# Stands in every output that a network of this kind has touched.
RANDOM_WEIGHTS = "RANDOM WEIGHTS: networks that were never trained; a dry run and no result"


def canonical_json(value: object) -> bytes:
    """Serialise to the one JSON text that digests are taken of: sorted keys, no spaces, ASCII.

    Examples
    --------
    >>> canonical_json({"b": 1, "a": [0.5]})
    b'{"a":[0.5],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def digest_of(value: object) -> str:
    """Return the blake2b digest (32 hexadecimal digits, 128 bits) of a JSON value's canonical text."""
    return hashlib.blake2b(canonical_json(value), digest_size=16).hexdigest()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that moves a feature's value by more than rounding: two equal recipes give features of one kind.

    The number of views is not here (more views leave the others as they are), nor are library versions, batch
    shape and thread count, which move the last bits: those are provenance.

    Parameters
    ----------
    backbone : str
        Name of the network.
    weights_sha256 : str
        64 hexadecimal digits; of the weights file, or of the initialised state where ``pretrained`` is false.
    pretrained : bool
        False for seeded random weights; every output says so.
    tap : str
        Where the vector leaves the network.
    size_px : int
        Side of the square that the network sees.
    interpolation, fill : str
        How pixels are resampled, and what stands beyond the border of a turned view.
    mean, std : tuple of float, one a channel of the network's input
        Normalisation in units of the [0, 1] range.
    channels : tuple of str
        Names of the image's channels that the network is given, in order; a single one as grey RGB, ``none`` as zeros. Empty
        where these are the three colours of an ordinary image.
    scale : str
        How stored integers and floats become [0, 1].
    augmentation : tuple of str
        Terms with their ranges, in the order in which they act.
    seed : int
        Seed of the augmentation.
    precision : {"float32", "bfloat16", "float16"}
        Arithmetic that the network may run in; layers that lose too much in it stay in float32.
    storage : {"float16", "float32"}
        Number type of the cached column.
    decoding : str
        Version of the rules that turn bytes into pixels; ``imported`` where the features were made elsewhere, and little of all
        this is known.
    places : tuple of int
        Which planes of a file the channels are, from 0; empty where channels are files, or colours.
    frame : int or None
        Which page of each file is read, from 0; None where files have one.
    fit : str
        How an image becomes a square: ``stretch``, ``crop`` (its middle) or ``pad`` (with zeros).
    resize_px : int or None
        Side of that square, from whose middle the network's input is cut; None where it is the input.
    crops : int
        Squares of the network's size whose vectors are averaged: 1, the middle; or 5, with the corners.
    statistics : {"imagenet", "dataset"}
        Of which images mean and std are: those that the network was trained on, or this data set's training images.
    first_layer : str
        How the first convolution was made to take other than three channels; empty where it was not.

    Raises
    ------
    OptionError
        If a value makes no sense.
    """

    backbone: str
    weights_sha256: str
    pretrained: bool
    tap: str
    size_px: int
    interpolation: str
    fill: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: tuple[str, ...]
    scale: str
    augmentation: tuple[str, ...]
    seed: int
    precision: Precision
    storage: Storage
    decoding: str
    places: tuple[int, ...] = ()
    frame: int | None = None
    fit: str = "stretch"
    resize_px: int | None = None
    crops: int = 1
    statistics: Statistics = "imagenet"
    first_layer: str = ""

    def __post_init__(self) -> None:
        if len(self.weights_sha256) != 64 or set(self.weights_sha256) - set("0123456789abcdef"):
            msg = f"weights_sha256 is {self.weights_sha256!r}; expected 64 lower-case hexadecimal digits"
            raise OptionError(msg)
        if self.decoding != IMPORTED and not 8 <= self.size_px <= 4096:
            msg = f"size is {self.size_px} px; expected 8 to 4096 (`--size 224` is what the networks were trained on)"
            raise OptionError(msg)
        if self.precision not in PRECISIONS or self.storage not in STORAGE_TYPES:
            msg = (
                f"precision {self.precision!r}, storage {self.storage!r}; expected one of {PRECISIONS}, {STORAGE_TYPES}"
            )
            raise OptionError(msg)
        if len(self.mean) != len(self.std) or min(self.std, default=1) <= 0:
            msg = f"mean is {self.mean}, std {self.std}; expected one each a channel, and standard deviations above 0"
            raise OptionError(msg)
        if self.resize_px is not None and not self.size_px < self.resize_px <= 4096:
            msg = f"resized to {self.resize_px} px; expected more than the {self.size_px} px that are cut from it, at most 4096"
            raise OptionError(msg)
        if self.seed < 0:
            msg = f"seed is {self.seed}; expected 0 or more"
            raise OptionError(msg)

    @property
    def digest(self) -> str:
        """32 hexadecimal digits; equal exactly when the recipes are."""
        return digest_of(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON values, but for those that were added to this format and have their defaults.

        So a recipe that does not use what a later version added keeps its digest.
        """
        return {name: value for name, value in self.every_field().items() if ADDED.get(name, _REQUIRED) != value}

    def every_field(self) -> dict[str, Any]:
        """Return all fields as plain JSON values."""
        return json.loads(canonical_json(dataclasses.asdict(self)))  # type: ignore[no-any-return]

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Rebuild a recipe from :meth:`to_json`.

        Raises
        ------
        CacheDamaged
            If a field is missing or unknown: the text was not written by this version.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if set(fields) | set(ADDED) != known:
            msg = (
                f"a recipe has the fields {sorted(fields)}; expected {sorted(known)} ({', '.join(sorted(ADDED))} may be missing). "
                f"It was written by another version of permafeat, or edited"
            )
            raise CacheDamaged(msg)
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
        }
        return cls(**values)


_REQUIRED = object()
ADDED: Mapping[str, Any] = MappingProxyType(
    {
        field.name: list(field.default) if isinstance(field.default, tuple) else field.default
        for field in dataclasses.fields(Recipe)
        if field.default is not dataclasses.MISSING
    }
)


def any_random(blocks: Iterable[Block]) -> bool:
    """Whether any block comes from a network that was never trained."""
    return not all(block.recipe.pretrained for block in blocks)


def recipe_differences(ours: Recipe, theirs: Recipe) -> dict[str, tuple[Any, Any]]:
    """Return the fields in which two recipes differ, as ``{field: (ours, theirs)}``."""
    left, right = ours.every_field(), theirs.every_field()
    return {name: (left[name], right[name]) for name in left if left[name] != right[name]}


def show_differences(differences: Mapping[str, tuple[Any, Any]], ours: str, theirs: str) -> str:
    """Lay differing fields side by side, one a line, for an error message.

    Examples
    --------
    >>> print(show_differences({"seed": (0, 1)}, "asked for", "in the cache"))
      seed: 0 asked for, 1 in the cache
    """
    return "\n".join(f"  {name}: {left} {ours}, {right} {theirs}" for name, (left, right) in differences.items())


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """The columns that one backbone contributes, of one blend of an image's channels.

    Parameters
    ----------
    name : str
        The backbone as it was asked for; followed by a colon and the blend, where one was.
    start : int
        First column; the next block begins at ``start + columns``.
    columns : int
        How many columns.
    recipe : Recipe
        What fixes their values.
    """

    name: str
    start: int
    columns: int
    recipe: Recipe

    def __post_init__(self) -> None:
        if self.start < 0 or self.columns < 1:
            msg = f"block {self.name!r} covers {self.columns} columns from {self.start}; expected at least 1 from 0 on"
            raise OptionError(msg)

    @property
    def stop(self) -> int:
        """One past the last column."""
        return self.start + self.columns

    @property
    def digest(self) -> str:
        """The digest of the block's recipe."""
        return self.recipe.digest

    def to_json(self) -> dict[str, Any]:
        """Return the fields and the digest as plain JSON values."""
        return {
            "name": self.name,
            "start": self.start,
            "columns": self.columns,
            "digest": self.digest,
            "recipe": self.recipe.to_json(),
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Rebuild a block from :meth:`to_json`.

        Raises
        ------
        CacheDamaged
            If a field is missing, or the digest is not the recipe's.
        """
        try:
            block = cls(
                name=fields["name"],
                start=fields["start"],
                columns=fields["columns"],
                recipe=Recipe.from_json(fields["recipe"]),
            )
            digest = fields["digest"]
        except (KeyError, TypeError, OptionError) as error:
            msg = f"a block's description cannot be read ({error!r}); it was damaged or edited"
            raise CacheDamaged(msg) from error
        if block.digest != digest:
            msg = f"block {block.name!r} claims the digest {digest}, its recipe gives {block.digest}; it was damaged or edited"
            raise CacheDamaged(msg)
        return block
