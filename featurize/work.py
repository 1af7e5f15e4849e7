"""What there is to do, found out and frozen before the first feature is computed."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from features_cache.errors import InputError
from features_cache.files import require_folder
from features_cache.plan import Execution, Plan
from features_cache.progress import Progress, silent
from features_cache.recipe import any_random
from features_cache.texts import Texts
from featurize.backbones.build import check_backbone
from featurize.device import Device, choose_device, choose_precision, choose_runtime, micro_batch, unit_images
from featurize.engine import Engine
from featurize.images.blends import parse_blends
from featurize.images.manifest import Manifest
from featurize.images.reading import Reading
from featurize.images.splits import find_images, reading_of
from featurize.networks import Network, build_networks, find_networks
from featurize.parents import parents_of
from featurize.settings import FeaturizeSettings
from featurize.there import executions_there, recipes_there
from featurize.training_pixels import calibration_inputs, dataset_statistics
from featurize.views.augmentation import Augmentation
from featurize.views.geometry import Square, square_of

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
    reading : Reading
        How images are read.
    augmentation : Augmentation
        What would make the copies.
    """

    manifests: dict[str, Manifest]
    plans: dict[str, Plan]
    networks: tuple[Network, ...]
    reading: Reading
    augmentation: Augmentation

    @property
    def random_weights(self) -> bool:
        """Whether any network was never trained."""
        return any_random(network.block for network in self.networks)


def plan_work(settings: FeaturizeSettings, progress: Progress = silent) -> Work:
    """Find images, device and weights, and freeze what there is to do.

    Parameters
    ----------
    settings : FeaturizeSettings
    progress : callable
        Told while all training images are read for their statistics (``--normalise dataset``).

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
    reading = reading_of(settings, manifests)
    blends = parse_blends(settings.channels, reading.planes)
    networks = find_networks(
        settings,
        precision,
        reading,
        blends,
        dataset_statistics(settings, manifests, reading, progress),
        lambda recipe: calibration_inputs(recipe, manifests, reading),
    )
    plans = {
        split: Plan(
            ids=manifest.ids,
            sources=manifest.sources,
            n_views=settings.n_views_of(split),
            blocks=tuple(network.block for network in networks),
            unit_images=settings.unit_images or unit_images(device),
            execution=Execution(
                device=device,
                micro_batch=micro_batch(device),
                n_threads=torch.get_num_threads(),
                runtime=_runtime(settings, device, split),
            ),
            parents=_parents(settings, split, manifest),
        )
        for split, manifest in manifests.items()
    }
    return Work(
        manifests=manifests, plans=plans, networks=networks, reading=reading, augmentation=settings.augmentation
    )


def _parents(settings: FeaturizeSettings, split: str, manifest: Manifest) -> Sequence[str]:
    table = settings.labels if split == settings.splits[0] else settings.sample
    return () if settings.cells is None or table is None else Texts(parents_of(table, manifest))


def _precision_there(settings: FeaturizeSettings, device: Device) -> str:
    """Let ``--precision auto`` follow a cache or an unfinished run that is there: another machine is no other work."""
    if settings.precision == "auto" and not settings.overwrite:
        for recipe in recipes_there(settings):
            if recipe.precision != "float16" or device != "cpu":
                return recipe.precision
    return settings.precision


def _runtime(settings: FeaturizeSettings, device: Device, split: str) -> str:
    """Let ``--runtime auto`` follow a cache or an unfinished run that is there."""
    if settings.runtime == "auto" and not settings.overwrite:
        for execution in executions_there(settings, split):
            if execution.device == device:
                return execution.runtime
    return choose_runtime(settings.runtime, device)


def require_runtime(execution: Execution, path: Path) -> None:
    """Check that what is to run the networks is installed; what is complete does without it.

    Raises
    ------
    OptionError
        If it is not.
    """
    choose_runtime(execution.runtime, execution.device, f"{path}: {execution.runtime} runs its networks; to go on")


def require_space(folder: Path, plan: Plan, parts: Path) -> None:
    """Check that parts and final file fit on the disk side by side; parts that are there already are counted.

    Raises
    ------
    InputError
        If they do not; the message says how much is needed and free.
    """
    require_bytes(folder, plan.n_feature_bytes, sum(path.stat().st_size for path in parts.glob("*.h5")))


def require_bytes(folder: Path, n_bytes: int, n_there: int = 0) -> None:
    """Check that features fit on the disk twice, as parts and as a file.

    Raises
    ------
    InputError
        If they do not; the message says how much is needed and free.
    """
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    needed = int(2.1 * n_bytes) - n_there
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
    engine = Engine(build_networks(work.networks), plan, work.augmentation, work.reading.planes)
    n_views = plan.execution.micro_batch
    by_square: dict[Square, list[str]] = {}
    for block in plan.blocks:
        by_square.setdefault(square_of(block.recipe), []).append(block.name)
    took = []
    for _ in range(_TIMED_PASSES):
        began = time.monotonic()
        for square, names in by_square.items():
            pictures = torch.full((n_views, len(work.reading.planes), square.side_px, square.side_px), 0.5)
            engine.collect(engine.features(pictures, ["estimate"] * n_views, range(n_views), names))
        took.append(time.monotonic() - began)
    return min(took) / n_views
