"""The images of training and test, where each of them is."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from features_cache.errors import ImagesMissing, TableError
from featurize.manifest import Extra, Manifest, list_images, read_ids

SPLITS = ("train", "test")


class Sought(Protocol):
    """What says which images there are: settings of any command that reads images."""

    @property
    def train_images(self) -> Path:
        """Folder of training images."""

    @property
    def test_images(self) -> Path:
        """Folder of test images."""

    @property
    def labels(self) -> Path | None:
        """CSV of the training images' ids."""

    @property
    def sample(self) -> Path | None:
        """CSV of the test images' ids."""

    @property
    def id_column(self) -> str | None:
        """Column of ids in ``labels``."""

    @property
    def pattern(self) -> str | None:
        """Name of a channel file."""

    @property
    def channels(self) -> tuple[str, ...]:
        """Channels of ``pattern``."""

    @property
    def ignore_unlabelled(self) -> bool:
        """Whether images without a row in ``labels`` are left out."""


def list_splits(sought: Sought, *, defaults: Sought) -> dict[str, Manifest]:
    """List the images of each split that there is.

    Parameters
    ----------
    sought : Sought
        What was asked for.
    defaults : Sought
        What would have been, without being asked: a folder of these may be missing.

    Returns
    -------
    dict of str to Manifest

    Raises
    ------
    ImagesMissing
        If there is neither a training nor a test folder, or a named one is missing or empty.
    TableError
        If a named CSV is missing.
    """
    for flag, table in (("--labels", sought.labels), ("--sample", sought.sample)):
        if table is not None and not table.is_file():
            msg = f"{flag} {table}: no such file; expected a CSV of image ids"
            raise TableError(msg)
    manifests: dict[str, Manifest] = {}
    for split, root, default, table, id_column in (
        ("train", sought.train_images, defaults.train_images, sought.labels, sought.id_column),
        ("test", sought.test_images, defaults.test_images, sought.sample, None),
    ):
        if root == default and not root.exists():
            continue
        ids = None if table is None else read_ids(table, id_column)
        # The sample submission says which test images count; others in the folder do no harm.
        extra: Extra = "ignore" if split == "test" else "ignore both" if sought.ignore_unlabelled else "error"
        manifests[split] = list_images(root, ids=ids, pattern=sought.pattern, channels=sought.channels, extra=extra)
    if not manifests:
        msg = (
            f"neither {sought.train_images} nor {sought.test_images} exists in {Path.cwd()}; change to the project "
            f"folder, or name the images with --train-images and --test-images"
        )
        raise ImagesMissing(msg)
    return manifests
