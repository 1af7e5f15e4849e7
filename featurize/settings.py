"""What the user asked of `cli featurize`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Self

from features_cache.errors import OptionError, did_you_mean, listed
from features_cache.plan import RUNTIMES
from features_cache.recipe import PRECISIONS, STORAGE_TYPES, Statistics, Storage
from features_cache.urls import require_local
from featurize.crop_folder import CROP_PATTERN, has_cells, outputs, planes_of_crops, require_crops
from featurize.images.blends import ADAPT, COLOURS, EACH, named_channels, parse_blends
from featurize.images.scale import SCALE_BY_TYPE
from featurize.images.settings import SPLITS, ImageSettings, auto_or_number
from featurize.views.augmentation import FLIPS_AND_TURNS, Augmentation

# Nothing heavy is imported here: `cli --help` shows these defaults and answers at once.
DEFAULT_BACKBONES = ("vgg19", "resnet18", "efficientnet_b0", "vit_b_16")
TRAINED_SIZE_PX = 224
ENGINES = ("local", "ray")
FITS = ("stretch", "crop", "pad")
_FLAGS = {
    "unit_images": "batch-size",
    "n_workers": "workers",
    "n_actors": "actors",
    "size_px": "size",
    "resize_px": "resize",
}
STATISTICS: tuple[Statistics, ...] = ("imagenet", "dataset")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FeaturizeSettings(ImageSettings):
    """Options of one run; the defaults are those of the command line, and what images there are is :class:`ImageSettings`.

    Parameters
    ----------
    cells : Path or None
        A folder of crops that ``cli cells`` made: they and their tables take the place of the images and theirs, and their caches
        know from which image each was cut.
    out : Path
        Folder of the caches.
    augment : int
        Augmented copies beside each image.
    tta : int or None
        The same for test images; as ``augment`` unless given.
    augmentation : Augmentation
        What makes the copies.
    backbones : tuple of str
        Networks, in the order of their columns.
    weights : tuple of str
        ``imagenet``, ``random``, a folder, or ``NAME=FILE``.
    channels : tuple of str
        How planes reach the networks; see :func:`featurize.images.blends.parse_blends`.
    normalise : {"imagenet", "dataset"}
        Whose pixels' mean and standard deviation normalise: those that a network was trained on, or this data set's training images.
    size_px : int or None
        Side of the networks' input; what each was trained on unless given.
    fit : {"stretch", "crop", "pad"}
        How an image becomes a square.
    resize_px : int or None
        Side of that square; as the networks' input unless given.
    crops : int
        1 or 5 squares of the networks' size whose vectors are averaged.
    device, precision : str
        Where and in which arithmetic the networks run.
    runtime : {"auto", "torch", "compile", "openvino"}
        What runs them: torch as they are or compiled, or OpenVINO.
    unit_images : int or None
        Images committed together; chosen unless given.
    seed : int
        Of the augmentation, and of random weights.
    storage : {"float16", "float32"}
        Number type in the cache.
    overwrite : bool
        Whether to begin anew where something stands already.
    shard : tuple of int or None
        ``(i, n)``: only every n-th unit from the i-th on (counted from 1), other processes do the rest.
    engine : {"local", "ray"}
        Whether this process computes, or actors of a Ray cluster do.
    address : str or None
        Of the cluster (``engine="ray"``): HOST:PORT; the environment's ``RAY_ADDRESS`` unless given, and without one Ray is started
        on this machine for the length of the run.
    n_actors : int or None
        Processes that hold networks (``engine="ray"``): one for each GPU of the cluster, or for as many CPUs as a network has threads,
        unless given.
    repair : bool
        Whether rows that are damaged, quarantined or of changed images are computed anew.

    Raises
    ------
    OptionError
        If a value makes no sense.
    """

    cells: Path | None = None
    out: Path = Path("features")
    augment: int = 0
    tta: int | None = None
    augmentation: Augmentation = FLIPS_AND_TURNS
    backbones: tuple[str, ...] = DEFAULT_BACKBONES
    weights: tuple[str, ...] = ("imagenet",)
    channels: tuple[str, ...] = ()
    normalise: Statistics = "imagenet"
    size_px: int | None = None
    fit: str = "stretch"
    resize_px: int | None = None
    crops: int = 1
    device: str = "auto"
    precision: str = "auto"
    runtime: str = "auto"
    unit_images: int | None = None
    seed: int = 0
    storage: Storage = "float16"
    overwrite: bool = False
    shard: tuple[int, int] | None = None
    engine: str = "local"
    address: str | None = None
    n_actors: int | None = None
    repair: bool = False

    def __post_init__(self) -> None:
        ImageSettings.__post_init__(self)  # slots make another class of this one, which a bare super() does not know
        least = {
            "augment": 0,
            "tta": 0,
            "unit_images": 1,
            "seed": 0,
            "size_px": 8,
            "resize_px": 8,
            "n_actors": 1,
        }
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and value < bound:
                flag = _FLAGS.get(name, name.replace("_", "-"))
                msg = f"--{flag} is {value}; expected {bound} or more"
                raise OptionError(msg)
        words = {
            "device": (self.device, ("auto", "cpu", "cuda", "mps")),
            "precision": (self.precision, ("auto", *PRECISIONS)),
            "runtime": (self.runtime, ("auto", *RUNTIMES)),
            "dtype": (self.storage, STORAGE_TYPES),
            "fit": (self.fit, FITS),
            "engine": (self.engine, ENGINES),
            "normalise": (self.normalise, STATISTICS),
            "crops": (str(self.crops), ("1", "5")),
        }
        for flag, (word, known) in words.items():
            if word not in known:
                msg = f"--{flag} is {word!r}; expected one of {', '.join(known)}{did_you_mean(word, known)}"
                raise OptionError(msg)
        doubled = sorted({name for name in self.backbones if self.backbones.count(name) > 1})
        if doubled or not self.backbones:
            msg = f"--backbone names {listed(doubled)} twice" if doubled else "--backbone names no network"
            raise OptionError(msg)
        self.augmentation.require_terms(max(self.augment, self.n_test_copies))
        _check_shard(self.shard, overwrite=self.overwrite)
        self._check_engine()
        self._check_channels()
        self._check_geometry()

    def _check_engine(self) -> None:
        flags = {"address": self.address, "actors": self.n_actors}
        given = next((flag for flag, value in flags.items() if value is not None), None)
        if self.engine == "local" and given is not None:
            msg = f"--{given} is of a Ray cluster, and --engine is local; add --engine ray, or leave --{given} out"
            raise OptionError(msg)
        if self.engine != "local" and self.shard is not None:
            msg = f"--shard with --engine {self.engine}: actors share all units among them; leave one of the two out"
            raise OptionError(msg)

    def _check_channels(self) -> None:
        if planes := self.named_planes or (() if self.pattern else COLOURS):
            parse_blends(self.channels, planes)

    def _check_geometry(self) -> None:
        if self.resize_px is not None and self.size_px is not None and self.resize_px < self.size_px:
            msg = f"--resize {self.resize_px} with --size {self.size_px}; expected at least as much as is cut from it"
            raise OptionError(msg)
        if self.crops > 1 and self.resize_px is None:
            msg = f"--crops {self.crops} cuts squares from a larger one: add --resize, such as --resize 256 with --size 224"
            raise OptionError(msg)

    @property
    def named_planes(self) -> tuple[str, ...]:
        """The planes that are known before an image is looked at; empty where all channel files count."""
        every = {EACH, ADAPT} & set(self.channels)
        return self.planes or (named_channels(self.channels) if self.pattern and not every else ())

    @property
    def splits(self) -> tuple[str, str]:
        """Names of the training and the test cache."""
        train, test = SPLITS
        return (train, test) if self.cells is None else (f"{train}_cells", f"{test}_cells")

    def is_left_out(self, split: str) -> bool:
        """Whether a split is to be passed over: nobody asked for its folder and there is none, or no image of it has a cell."""
        if self.cells is None:
            return ImageSettings.is_left_out(self, split)
        return not has_cells(self.cells, SPLITS[self.splits.index(split)])

    def require_folders(self) -> None:
        """Check that a folder of crops holds crops and their tables.

        Raises
        ------
        ImagesMissing, TableError
            If it does not.
        """
        if self.cells is not None:
            require_crops(self.cells)

    def n_views_of(self, split: str) -> int:
        """Count the views of an image of a split."""
        return 1 + (self.augment if split == self.splits[0] else self.n_test_copies)

    @property
    def n_test_copies(self) -> int:
        """Augmented copies of a test image."""
        return self.augment if self.tta is None else self.tta

    @classmethod
    def from_options(cls, **options: Any) -> Self:  # noqa: ANN401 - the fields above, as typed on a command line
        """Take the fields as a command line gives them: ``auto`` where a number may be chosen, and tables found.

        Raises
        ------
        OptionError
            If a value makes no sense.
        """
        for name in ("unit_images", "n_workers", "n_actors"):
            options[name] = auto_or_number(_FLAGS[name], str(options.get(name, "auto")))
        if isinstance(options.get("shard"), str):
            options["shard"] = _parse_shard(options["shard"])
        if options.get("cells") is None:
            return cls(**options).with_tables()
        require_local("--cells", options["cells"])
        # Before the settings are made: they ask whether the channels are among the planes.
        return cls(**(options | _of_cells(options["cells"])))


def _of_cells(folder: Path) -> dict[str, Any]:
    """Take crops and their tables for images and theirs; they are read as they were written, whatever holds for images."""
    planes = planes_of_crops(folder)
    written: dict[str, Any] = {}
    if planes is not None:
        written = {
            "pattern": CROP_PATTERN if planes else None,
            "planes": planes,
            "frame": None,
            "scale": SCALE_BY_TYPE,
        }
    (labels, _, train), (sample, _, test) = (outputs(folder, split) for split in SPLITS)
    return written | {
        "train_images": train,
        "test_images": test,
        "labels": labels if train.is_dir() else None,
        "sample": sample if test.is_dir() else None,
        "id_column": "id",
    }


def _parse_shard(text: str) -> tuple[int, int]:
    number, slash, count = text.partition("/")
    if not slash or not number.isdecimal() or not count.isdecimal():
        msg = f"--shard is {text!r}; expected i/n, such as 2/4"
        raise OptionError(msg)
    return int(number), int(count)


def _check_shard(shard: tuple[int, int] | None, *, overwrite: bool) -> None:
    if shard is None:
        return
    if not 1 <= shard[0] <= shard[1]:
        msg = f"--shard is {shard[0]}/{shard[1]}; expected i/n with i from 1 to n, such as 2/4"
        raise OptionError(msg)
    if overwrite:
        msg = "--shard with --overwrite: each shard would remove the others' parts; remove the old cache first, or choose another --out"
        raise OptionError(msg)
