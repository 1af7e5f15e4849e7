"""From one image to its crops: read, find the cells, cut them out."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features_cache.errors import ImagesMissing, OptionError, listed
from features_cache.layout import HASH_BYTES
from features_cache.recipe import digest_of
from features_cache.sources import SourceFile, Sources
from features_cache.status import Status
from features_cache.texts import Texts
from featurize.cells.crops import CropFiles, cut, list_cells, without_border_nuclei
from featurize.cells.label_images import decode_labels, list_label_images
from featurize.cells.records import Parent, crop_folders
from featurize.cells.segment import find_cells, find_nuclei
from featurize.cells.settings import CellsSettings
from featurize.crop_folder import CROP_PATTERN
from featurize.images.bad_image import BadImage
from featurize.images.channels import hash_image, load_image
from featurize.images.local_folder import LocalFolder
from featurize.images.places import Place
from featurize.images.reading import Reading
from featurize.images.splits import find_images, reading_of


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CellJob:
    """The images of one split, and what belongs to each.

    Parameters
    ----------
    split : str
    root : Place
        The folder that the sources' paths are relative to.
    ids : Texts
        Sorted.
    sources : Sources
        Each image's files.
    folders : sequence of str
        Each image's folder of crops, below the split's.
    masks_root : Path or None
        Folder of label images, where these say what is a cell.
    masks : mapping of str to SourceFile
        Label images by folder of crops; an image may have none.
    reading : Reading
        How files become planes; the same in both splits.
    warnings : tuple of str
    """

    split: str
    root: Place
    ids: Texts
    sources: Sources
    folders: Sequence[str]
    masks_root: Path | None
    masks: Mapping[str, SourceFile]
    reading: Reading
    warnings: tuple[str, ...]

    @property
    def crop_channels(self) -> tuple[str, ...]:
        """Channels of a crop that have files of their own; none where images are ordinary ones."""
        return self.reading.planes if self.reading.by_file or self.reading.places else ()

    def digest(self) -> str:
        """Return a digest of names, sizes and times of all files: where it is the same, none has to be read."""
        rows = []
        for image_id, sources, folder in zip(self.ids, self.sources, self.folders, strict=True):
            files = (*sources, *([self.masks[folder]] if folder in self.masks else []))
            rows.append([image_id, *([file.path, file.n_bytes, file.sign] for file in files)])
        return digest_of(rows)

    def content_hash(self, row: int) -> str:
        """Hash an image's files, label image included; empty where one cannot be read."""
        try:
            return _content_hash(hash_image(self.root, self.sources[row]), self.mask(row))
        except BadImage:
            return ""

    def mask(self, row: int) -> bytes | None:
        """Read an image's label image; None where label images are not asked for.

        Raises
        ------
        BadImage
            If there is none, or it cannot be read.
        """
        if self.masks_root is None:
            return None
        source = self.masks.get(self.folders[row])
        if source is None:
            raise BadImage(Status.CHANNEL, f"no label image {self.folders[row]}.png or .tif in {self.masks_root}")
        try:
            return (self.masks_root / source.path).read_bytes()
        except OSError as error:
            raise BadImage(Status.UNREADABLE, f"label image: {error.strerror} (errno {error.errno})") from error


def find_jobs(settings: CellsSettings) -> list[CellJob]:
    """List images and label images, before anything is written.

    Raises
    ------
    InputError, OptionError, Refused
        If images, tables or label images cannot be used.
    """
    jobs = []
    manifests = find_images(settings)
    reading = reading_of(settings, manifests)
    for split, manifest in manifests.items():
        folders = crop_folders(manifest.ids, settings.out / split)
        root, masks = (
            (None, {})
            if settings.masks is None
            else list_label_images(settings.masks, split, follow_links=settings.follow_symlinks)
        )
        for place in (manifest.root, *([LocalFolder(root)] if root is not None else [])):
            _require_apart(settings.out / split, place)
        if root is not None and not set(masks) & set(folders):
            msg = f"--masks {root}: holds none of {len(folders)} label images looked for (first: '{folders[0]}.png'); found {listed(list(masks), 3)}"
            raise ImagesMissing(msg)
        jobs.append(
            CellJob(
                split=split,
                root=manifest.root,
                ids=manifest.ids,
                sources=manifest.sources,
                folders=folders,
                masks_root=root,
                masks=masks,
                reading=reading,
                warnings=manifest.warnings,
            )
        )
    _require_unlike(jobs[0].crop_channels)
    return jobs


def _require_unlike(channels: Sequence[str]) -> None:
    """Check that crops' files can be told apart by their names, of which a channel is the shortest end that fits."""
    for name in channels:
        ends = [other for other in channels if name.endswith(f"_{other}")]
        if ends:
            msg = f"channels {name!r} and {ends[0]!r}: by {CROP_PATTERN!r} crops of the one would be taken for the other's; rename one"
            raise OptionError(msg)


def _require_apart(crops: Path, images: Place) -> None:
    """Check that crops would not lie among images: the next run would take them for further ones."""
    if images.holds(crops):
        msg = f"{crops}: lies in {images}, where the crops would be taken for further images; choose another --out"
        raise OptionError(msg)


def cut_image(
    job: CellJob, row: int, settings: CellsSettings
) -> tuple[Parent, Iterator[tuple[str, bytes]], tuple[str, ...]]:
    """Find the cells of one image.

    Returns
    -------
    parent : Parent
        What to remember of it.
    files : iterator of (str, bytes)
        The crops, encoded as they are asked for.
    notes : tuple of str
        Which conversions were made.

    Raises
    ------
    BadImage
        If the image or its label image cannot be used.
    ImageChanged
        If a file is not the one that was listed.
    """
    loaded = load_image(job.root, job.sources[row], job.reading)
    raw = job.mask(row)
    planes = loaded.pixels
    labels = _labels(planes, job.reading.planes, raw, settings)
    files = CropFiles(planes, job.crop_channels)
    cells = tuple(list_cells(labels))
    parent = Parent(
        content_hash=_content_hash(loaded.content_hash, raw),
        width=labels.shape[1],
        height=labels.shape[0],
        n_files=len(cells) * max(1, len(job.crop_channels)),
        cells=cells,
    )

    def crops() -> Iterator[tuple[str, bytes]]:
        for cell in cells:
            square = cut(planes, labels, cell, margin=settings.margin, background=settings.background)
            yield from files.of(cell.number, square).items()

    return parent, crops(), (*loaded.notes, *(files.notes if cells else ()))


def _labels(
    planes: NDArray[np.float32], names: Sequence[str], raw: bytes | None, settings: CellsSettings
) -> NDArray[Any]:
    """Take the labels of another tool, or find nuclei and cells, and apply the rule of the border."""
    labels: NDArray[Any]
    nuclei: NDArray[Any]
    if raw is not None:
        labels = nuclei = decode_labels(raw, planes.shape[:2], settings.max_pixels)
    else:
        by_name = {name: np.ascontiguousarray(planes[..., place]) for place, name in enumerate(names)}
        nuclei = find_nuclei(by_name[settings.nucleus_of(names)], settings.diameter_px)
        labels = find_cells(nuclei, [by_name[name] for name in settings.bodies])
    return without_border_nuclei(labels, nuclei) if settings.border == "drop" else labels


def _content_hash(image: NDArray[np.uint8], mask: bytes | None) -> str:
    digest = hashlib.blake2b(image.tobytes(), digest_size=HASH_BYTES)
    digest.update(mask or b"")
    return digest.hexdigest()
