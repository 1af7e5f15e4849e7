"""The images of each split: which there are, and how they are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from features_cache.errors import ImagesMissing, TableError
from featurize.images.manifest import Extra, Manifest, list_images, read_ids
from featurize.images.reading import Reading
from featurize.images.scale import Scale
from featurize.images.settings import ImageSettings


def find_images(settings: ImageSettings) -> dict[str, Manifest]:
    """List the images of each split that there is.

    Raises
    ------
    ImagesMissing
        If there is neither a training nor a test folder, or a named one is missing or empty.
    """
    settings.require_folders()
    manifests: dict[str, Manifest] = {}
    for split in settings.splits:
        planes = next((found.planes for found in manifests.values()), settings.named_planes)
        manifest = find_split(settings, split, planes)
        if manifest is not None:
            manifests[split] = manifest
    if not manifests:
        msg = (
            f"neither {settings.train_images} nor {settings.test_images} exists in {Path.cwd()}; change to the project "
            f"folder, or name the images with --train-images and --test-images"
        )
        raise ImagesMissing(msg)
    return manifests


def find_split(
    settings: ImageSettings, split: str, planes: Sequence[str], *, skip_unsafe: bool = False
) -> Manifest | None:
    """List the images of one split.

    Parameters
    ----------
    settings : ImageSettings
    split : str
        One of ``settings.splits``.
    planes : sequence of str
        Names of the images' planes, where they are known.
    skip_unsafe : bool
        Whether files that would be refused are passed over.

    Returns
    -------
    Manifest or None
        None where its folder is the default one and does not exist.

    Raises
    ------
    InputError, Refused
        As :func:`featurize.images.manifest.read_ids` and :func:`featurize.images.manifest.list_images`.
    """
    is_test = split == settings.splits[1]
    table, flag = (settings.sample, "--sample") if is_test else (settings.labels, "--labels")
    if table is not None and not table.is_file():
        msg = f"{flag} {table}: no such file; expected a CSV of image ids"
        raise TableError(msg)
    if settings.is_left_out(split):
        return None
    ids = None if table is None else read_ids(table, None if is_test else settings.id_column)
    # The sample submission says which test images count; others in the folder do no harm.
    extra: Extra = "ignore" if is_test else "ignore both" if settings.ignore_unlabelled else "error"
    manifest = list_images(
        settings.folder_of(split),
        ids=ids,
        pattern=settings.pattern,
        planes=planes,
        extra=extra,
        follow_links=settings.follow_symlinks,
        skip_unsafe=skip_unsafe,
    )
    return manifest.first(settings.limit)


def reading_of(settings: ImageSettings, manifests: Mapping[str, Manifest]) -> Reading:
    """Say how the images are read: their planes are the same in each split."""
    return Reading(
        planes=next(iter(manifests.values())).planes,
        by_file=settings.pattern is not None,
        scale=Scale.parse(settings.scale),
        max_pixels=settings.max_pixels,
        frame=settings.frame,
    )
