"""What there is to do, found out and frozen before the first feature is computed."""

from __future__ import annotations

import dataclasses
import functools
import shutil
import time
from pathlib import Path

import torch
from torch import Tensor

from features_cache.errors import CacheError, ImagesMissing, InputError, Refused, TableError
from features_cache.files import require_folder
from features_cache.plan import Execution, Plan, parts_folder, plan_in
from features_cache.reader import FeatureCache
from features_cache.recipe import any_random
from featurize.augmentation import Augmentation
from featurize.backbones import Backbone, check_backbone
from featurize.calibrate import CALIBRATION_IMAGES
from featurize.channels import load_image
from featurize.decode import BadImage
from featurize.device import Device, choose_device, choose_precision, micro_batch, unit_images
from featurize.engine import Engine
from featurize.manifest import Extra, Manifest, list_images, read_ids
from featurize.networks import Network, find_networks
from featurize.pipeline import resize
from featurize.settings import FeaturizeSettings

SPLITS = ("train", "test")
_TIMED_PASSES = 4


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a run would do.

    Parameters
    ----------
    manifests : dict of str to Manifest
        The images of each split.
    plans : dict of str to Plan
        What would be computed, whether or not it is there already.
    networks : tuple of Network
        What would compute it.
    augmentation : Augmentation
        What would make the copies.
    """

    manifests: dict[str, Manifest]
    plans: dict[str, Plan]
    networks: tuple[Network, ...]
    augmentation: Augmentation

    @property
    def random_weights(self) -> bool:
        """Whether any network was never trained."""
        return any_random(network.block for network in self.networks)

    def build(self) -> dict[str, Backbone]:
        """Build the networks, by the names of their blocks; wrong weights are found here, before anything is written."""
        return {network.block.name: network.build() for network in self.networks}


def plan_work(settings: FeaturizeSettings) -> Work:
    """Find images, device and weights, and freeze what there is to do.

    Raises
    ------
    InputError, WeightsError, OptionError, Refused
        If images, weights or options cannot be used.
    """
    for name in settings.backbones:
        check_backbone(name)
    require_folder(settings.out)
    manifests = find_images(settings)
    device = choose_device(settings.device)
    precision = choose_precision(_precision_there(settings, device), device)
    networks = find_networks(settings, precision, functools.partial(_calibration_images, settings, manifests))
    execution = Execution(device=device, micro_batch=micro_batch(device), n_threads=torch.get_num_threads())
    plans = {
        split: Plan(
            ids=manifest.ids,
            sources=manifest.sources,
            n_views=1 + (settings.augment if split == "train" else settings.n_test_copies),
            blocks=tuple(network.block for network in networks),
            unit_images=settings.unit_images or unit_images(device),
            execution=execution,
        )
        for split, manifest in manifests.items()
    }
    return Work(manifests=manifests, plans=plans, networks=networks, augmentation=settings.augmentation)


def _precision_there(settings: FeaturizeSettings, device: Device) -> str:
    """Let ``--precision auto`` follow a cache or an unfinished run that is there: another machine is no other work."""
    if settings.precision != "auto" or settings.overwrite:
        return settings.precision
    for split in SPLITS:
        path = settings.out / f"{split}.h5"
        try:
            if path.is_file():
                with FeatureCache(path) as cache:
                    found = cache.blocks[0].recipe.precision
            else:
                plan = plan_in(parts_folder(path))
                if plan is None:
                    continue
                found = plan.blocks[0].recipe.precision
        except (CacheError, Refused):
            continue  # told where the split is begun
        if found != "float16" or device != "cpu":
            return found
    return settings.precision


def find_images(settings: FeaturizeSettings) -> dict[str, Manifest]:
    """List the images of each split that there is.

    Raises
    ------
    ImagesMissing
        If there is neither a training nor a test folder, or a named one is missing or empty.
    """
    for flag, table in (("--labels", settings.labels), ("--sample", settings.sample)):
        if table is not None and not table.is_file():
            msg = f"{flag} {table}: no such file; expected a CSV of image ids"
            raise TableError(msg)
    defaults = FeaturizeSettings()
    manifests: dict[str, Manifest] = {}
    for split, root, default, table, id_column in (
        ("train", settings.train_images, defaults.train_images, settings.labels, settings.id_column),
        ("test", settings.test_images, defaults.test_images, settings.sample, None),
    ):
        if root == default and not root.exists():
            continue
        ids = None if table is None else read_ids(table, id_column)
        # The sample submission says which test images count; others in the folder do no harm.
        extra: Extra = "ignore" if split == "test" else "ignore both" if settings.ignore_unlabelled else "error"
        manifest = list_images(root, ids=ids, pattern=settings.pattern, channels=settings.channels, extra=extra)
        manifests[split] = manifest.first(settings.limit)
    if not manifests:
        msg = (
            f"neither {settings.train_images} nor {settings.test_images} exists in {Path.cwd()}; change to the project "
            f"folder, or name the images with --train-images and --test-images"
        )
        raise ImagesMissing(msg)
    return manifests


def _calibration_images(settings: FeaturizeSettings, manifests: dict[str, Manifest]) -> Tensor:
    """Read the first training images that can be read (of the test images, where there are no others)."""
    manifest = next(iter(manifests.values()))
    images: list[Tensor] = []
    for sources in manifest.sources:
        if len(images) == CALIBRATION_IMAGES:
            break
        try:
            loaded = load_image(
                manifest.root, sources, settings.channels, scale=settings.scale, max_pixels=settings.max_pixels
            )
        except BadImage:
            continue  # told, counted and listed when its row is computed
        images.append(resize(loaded.pixels, settings.size_px))
    if not images:
        msg = f"{manifest.root}: none of {len(manifest.ids)} images can be read; at least one must be"
        raise ImagesMissing(msg)
    return torch.stack(images)


def require_space(folder: Path, plan: Plan, parts: Path) -> None:
    """Check that parts and final file fit on the disk side by side; parts that are there already are counted.

    Raises
    ------
    InputError
        If they do not; the message says how much is needed and free.
    """
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    needed = int(2.1 * plan.n_feature_bytes) - sum(path.stat().st_size for path in parts.glob("*.h5"))
    if free < needed:
        msg = f"{folder}: {free / 1e9:.2f} GB free; {needed / 1e9:.2f} GB needed (parts and final file). Free some, or choose another --out"
        raise InputError(msg)


def seconds_per_view(work: Work) -> float:
    """Time a view through all networks, on grey pictures, for an estimate.

    Returns
    -------
    float
        Seconds of the fastest of four forward passes (the first ones are slow), a view.
    """
    plan = next(iter(work.plans.values()))
    engine = Engine(work.build(), plan, work.augmentation)
    n_views = plan.execution.micro_batch
    size_px = plan.blocks[0].recipe.size_px
    pictures = torch.full((n_views, 3, size_px, size_px), 0.5)
    took = []
    for _ in range(_TIMED_PASSES):
        began = time.monotonic()
        engine.features(pictures, ["estimate"] * n_views, range(n_views))
        took.append(time.monotonic() - began)
    return min(took) / n_views
