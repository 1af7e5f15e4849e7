"""A picture sheet of views: what the networks are shown of some images, before it is normalised."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from features_cache.errors import ImagesMissing, OptionError, OutputExists, did_you_mean, listed
from features_cache.files import publish_written
from features_cache.urls import require_local
from featurize.images.bad_image import BadImage
from featurize.images.blends import Blend, parse_blends
from featurize.images.channels import load_image
from featurize.images.manifest import Manifest
from featurize.images.reading import Reading
from featurize.images.splits import find_images, reading_of
from featurize.settings import TRAINED_SIZE_PX, FeaturizeSettings
from featurize.views.geometry import Square, as_planes, cut_crops, to_square

Pixels = NDArray[np.uint8]
_MARK = "permafeat"
_GAP_PX, _CAPTION_PX, _LEAST_COLUMN_PX, _MOST_NAME_PX = 4, 14, 24, 640
_PAPER, _INK = (255, 255, 255), (0, 0, 0)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One image of a sheet, or one blend of its channels.

    Parameters
    ----------
    image_id : str
    split : str
        ``train`` or ``test``.
    blend : str
        Empty where nobody named channels.
    views : uint8 array, shape (views, side, side, 3)
        View 0 first.
    """

    image_id: str
    split: str
    blend: str
    views: Pixels


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """What was drawn.

    Parameters
    ----------
    path : Path
        The picture.
    rows : tuple of Row
        In the order of the ids given; an id of both splits has two.
    bad : dict of str to str
        Images that cannot be drawn, nor featurized, and why not.
    """

    path: Path
    rows: tuple[Row, ...]
    bad: dict[str, str]

    @property
    def lines(self) -> list[str]:
        """Say what was written, for people."""
        n_views = sum(len(row.views) for row in self.rows)
        n_images = len({(row.image_id, row.split) for row in self.rows})
        return [f"{self.path}: {n_views} views of {n_images} images"]

    @property
    def warnings(self) -> list[str]:
        """Say what is missing, a line an image."""
        told = [f"warning: {image_id} would be quarantined: {reason}" for image_id, reason in self.bad.items()]
        if all(len(row.views) == 1 for row in self.rows):
            told.append("no augmented copies are asked for; --augment 6 draws six beside each image")
        return told

    def to_json(self) -> dict[str, Any]:
        """Return what was written, for programs."""
        rows = [
            {"id": row.image_id, "split": row.split, "blend": row.blend, "n_views": len(row.views)} for row in self.rows
        ]
        return {"path": self.path.as_posix(), "rows": rows, "quarantined": self.bad}


def write_sheet(settings: FeaturizeSettings, ids: Sequence[str], out: Path, *, replace: bool = False) -> Sheet:
    """Draw images and their augmented copies side by side.

    Parameters
    ----------
    settings : FeaturizeSettings
        Which images there are, and how networks see them; neither networks nor caches are touched.
    ids : sequence of str
        Which images are drawn, a row each.
    out : Path
        The picture, a PNG; an earlier sheet there gives way.
    replace : bool
        Whether any other file there gives way, too.

    Returns
    -------
    Sheet

    Raises
    ------
    OptionError
        If an id is no image's, or ``out`` no name of a PNG.
    OutputExists
        If another file stands there.
    ImagesMissing
        If there are no images, or none of those named can be read.
    """
    if out.suffix.lower() != ".png":
        msg = f"--out is {str(out)!r}; expected a name that ends in .png: a sheet keeps every pixel as it is"
        raise OptionError(msg)
    require_local("--out", out)
    if out.is_dir():
        msg = f"{out}: a folder stands there; choose another --out"
        raise OutputExists(msg)
    replace = replace or _is_ours(out)
    if out.exists() and not replace:
        msg = f"{out}: stands there already and is no sheet of views; choose another --out, or add --overwrite"
        raise OutputExists(msg)
    rows: list[Row] = []
    bad: dict[str, str] = {}
    manifests = find_images(settings)
    reading = reading_of(settings, manifests)
    blends = _shown(parse_blends(settings.channels, reading.planes))
    for image_id, split, manifest, index in _places(manifests, list(dict.fromkeys(ids))):
        try:
            views = _views(settings, reading, split, manifest, index)
            rows += [
                Row(image_id=image_id, split=split, blend=blend.label, views=_as_colours(views, blend, reading))
                for blend in blends
            ]
        except BadImage as error:
            bad[image_id] = f"{error.status.name.lower()} ({error.reason})"
    if not rows:
        told = "; ".join(f"{image_id} is {reason}" for image_id, reason in bad.items())
        msg = f"nothing to draw, and {out} was not written: {told}"
        raise ImagesMissing(msg)
    mark = PngInfo()
    mark.add_text(_MARK, "views")
    save = functools.partial(draw(rows).save, format="PNG", pnginfo=mark)
    if not publish_written(out, save, replace=replace):
        msg = f"{out}: appeared while the sheet was drawn; choose another --out, or add --overwrite"
        raise OutputExists(msg)
    return Sheet(path=out, rows=tuple(rows), bad=bad)


def _is_ours(path: Path) -> bool:
    """Whether an earlier sheet stands there."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            return image.info.get(_MARK) == "views"
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError):
        return False


def _places(manifests: dict[str, Manifest], ids: Sequence[str]) -> list[tuple[str, str, Manifest, int]]:
    """Find each image's split and row, in the order of the ids."""
    found: dict[str, list[tuple[str, str, Manifest, int]]] = {image_id: [] for image_id in ids}
    for split, manifest in manifests.items():
        for index, image_id in enumerate(manifest.ids):
            if image_id in found:
                found[image_id].append((image_id, split, manifest, index))
    unknown = [image_id for image_id, places in found.items() if not places]
    if unknown:
        known = [image_id for manifest in manifests.values() for image_id in manifest.ids]
        where = " and ".join(f"{len(manifest.ids)} in {manifest.root}" for manifest in manifests.values())
        msg = f"no image {listed(unknown, 5)} among {where}{did_you_mean(unknown[0], known)}; expected an id such as {known[0]!r}"
        raise OptionError(msg)
    return [place for places in found.values() for place in places]


def _shown(blends: Sequence[Blend]) -> list[Blend]:
    """Show what a widened network takes as one grey picture a channel."""
    return [
        one
        for blend in blends
        for one in ([Blend(channels=(name,), label=name) for name in blend.channels] if blend.is_widened else [blend])
    ]


def _views(
    settings: FeaturizeSettings, reading: Reading, split: str, manifest: Manifest, index: int
) -> NDArray[np.float32]:
    """Make one image's views as featurize does: shape (views, planes, side, side)."""
    loaded = load_image(manifest.root, manifest.sources[index], reading)
    size_px = settings.size_px or TRAINED_SIZE_PX
    pixels = to_square(as_planes(loaded.pixels), Square(settings.fit, settings.resize_px or size_px))
    n_views = settings.n_views_of(split)
    image_id = manifest.ids[index]
    made = settings.augmentation.views(
        pixels.expand(n_views, *pixels.shape), settings.seed, [image_id] * n_views, range(n_views)
    )
    middle: NDArray[np.float32] = cut_crops(made, size_px, 1)[0].numpy()
    return middle


def _as_colours(views: NDArray[np.float32], blend: Blend, reading: Reading) -> Pixels:
    """Show a blend as red, green and blue of 8 bits: shape (views, side, side, 3)."""
    places = blend.places(reading.planes)
    padded = np.concatenate([views, np.zeros_like(views[:, :1])], axis=1)[:, list(places)]
    colours: Pixels = np.rint(padded.transpose(0, 2, 3, 1) * 255).astype(np.uint8)
    return colours


def corner(row: int, view: int, side: int) -> tuple[int, int]:
    """Return where on a sheet a view's left upper pixel lies: (x, y) in pixels; a row's name and the view's number stand above."""
    return (
        _GAP_PX + view * (max(side, _LEAST_COLUMN_PX) + _GAP_PX),
        (row + 1) * (_GAP_PX + 2 * _CAPTION_PX) + row * side,
    )


def draw(rows: Sequence[Row]) -> Image.Image:
    """Lay rows out in a grid, every view at its own size, with names and view numbers above.

    Parameters
    ----------
    rows : sequence of Row
        All of one side.

    Returns
    -------
    PIL.Image.Image
        RGB.
    """
    side = rows[0].views.shape[1]
    font = ImageFont.load_default(_CAPTION_PX - 3)
    names = [_drawable(" ".join([row.image_id, f"({row.split})", row.blend])) for row in rows]
    # A long name widens a narrow sheet, up to what a page holds.
    names_px = [min(_MOST_NAME_PX, int(font.getlength(name)) + 2 * _GAP_PX) for name in names]
    width = max(corner(0, max(len(row.views) for row in rows), side)[0], *names_px)
    image = Image.new("RGB", (width, corner(len(rows), 0, side)[1] - 2 * _CAPTION_PX), _PAPER)
    pen = ImageDraw.Draw(image)
    for index, (row, name) in enumerate(zip(rows, names, strict=True)):
        for view, pixels in enumerate(row.views):
            left, top = corner(index, view, side)
            if view == 0:
                pen.text((left, top - 2 * _CAPTION_PX), name, fill=_INK, font=font)
            pen.text((left, top - _CAPTION_PX), str(view), fill=_INK, font=font)
            image.paste(Image.fromarray(pixels), (left, top))
    return image


def _drawable(text: str) -> str:
    """Write letters that the font does not have, and what is no letter, as their codes."""
    printable = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
    return printable.encode("latin-1", "backslashreplace").decode("latin-1")
