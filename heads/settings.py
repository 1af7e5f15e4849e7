"""What `fit_heads` is asked to do."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Any, Literal, get_args

from features_cache.errors import OptionError
from heads.class_weights import ClassWeight
from heads.decisions import COMMON, EACH
from heads.ensemble import Kind as EnsembleKind
from heads.estimators.catalogue import DEFAULT_HEADS, HEADS, HeadKind, check_heads
from heads.estimators.own_heads import OwnHeads, own_kinds
from heads.folds import require_folds
from heads.pooling import Pool
from heads.prior import Prior
from heads.resample import Resampling

_SEEDS = 2**31  # scikit-learn's folds and torch's networks both take these
Views = Literal["all", "0"]
Resample = Literal["none", Resampling]
_DEVICES = ("cpu", "cuda", "auto")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FitSettings:
    """Settings of one run.

    Parameters
    ----------
    features : Path
        The cache of the training images.
    labels : Path, optional
        A CSV; without one, an image's class is the first folder of its id.
    id_column : str
        Its column of ids.
    label_column : tuple of str
        Its column of labels; several are a class each, of 0 and 1.
    separator : str, optional
        What stands between the labels of an image, where it may have many.
    group_column : str, optional
        Images that share its value stay in one fold.
    exclude_class : tuple of str
        Classes that are left out.
    heads : tuple of str, optional
        Which heads; those fitted by default and the project's own unless given.
    own_heads : mapping of str to mapping
        The project's own heads, and grids; see :func:`heads.estimators.own_heads.own_kinds`.
    blocks : tuple of str
        Which blocks of the cache; empty for all.
    folds, repeats : int
    views : {"all", "0"}
        Which views train and predict.
    class_weight : {"balanced", "none"}, optional
        Balanced unless given, or images are resampled.
    resample : {"none", "over", "under", "both"}
        Copies of images of rare classes, fewer images of common ones; see :mod:`heads.resample`.
    most_copies : int
        Of an image.
    least_share : float
        Of a class's images, that under-sampling keeps.
    force : bool
        Whether images may be resampled and weighed by class at once.
    extra : Path, optional
        A cache of further images, which train in every fold and are never scored.
    extra_labels : Path, optional
        Their labels, in columns of the same names.
    prior : {"balanced", "train"}, optional
        Which class frequencies probabilities speak of; train where images may have many labels, else balanced, unless given.
    ensemble : {"average", "greedy"}
        How heads are averaged.
    thresholds : str
        Where images may have many labels: ``each`` class its own, a ``common`` one, or a number between 0 and 1.
    at_least_one : bool
        Whether an image below all thresholds is called by the class that comes closest.
    group_near_duplicates : bool
        Whether near-duplicate images are kept in one fold.
    ablate : bool
        Whether each block is left out in turn, to see what it is worth.
    search : int
        How many settings of each head are tried inside each fold, its default among them; 0 for none.
    seed : int
        Of the folds, the networks and the bootstrap.
    out : Path, optional
        The run folder; the next free ``runs/001``, ``runs/002``, ... otherwise.
    device : {"cpu", "cuda", "auto"}
        Where heads are fitted.
    memory_limit : int, optional
        Bytes that the process may take, the interpreter included; features that do not fit stay on the disk.
    test_features : Path, optional
        The cache of the test images: the headline averages over as many views as it holds, and near-duplicates are looked for
        between them and the training images.
    cells : Path, optional
        A cache of cells of the training images, with parents: heads are fitted on them, too, and both are fused.
    test_cells : Path, optional
        The cache of the test images' cells: cells' figures average over as many views as it holds.
    pool : {"mean", "maximum"}, optional
        What an image's cells say of it together; the mean unless given.
    ignore_unlabelled, drop_missing : bool
        Whether images without a record, or with a blank label, are left out (an error otherwise).

    Raises
    ------
    OptionError
        If a value makes no sense.
    """

    features: Path
    labels: Path | None
    id_column: str = "id"
    label_column: tuple[str, ...] = ("label",)
    separator: str | None = None
    group_column: str | None = None
    exclude_class: tuple[str, ...] = ()
    heads: tuple[str, ...] | None = None
    own_heads: OwnHeads = dataclasses.field(default_factory=dict)
    blocks: tuple[str, ...] = ()
    folds: int = 5
    repeats: int = 1
    views: Views = "all"
    class_weight: ClassWeight | None = None
    resample: Resample = "none"
    most_copies: int = 10
    least_share: float = 0.25
    force: bool = False
    extra: Path | None = None
    extra_labels: Path | None = None
    prior: Prior | None = None
    ensemble: EnsembleKind = "average"
    thresholds: str = EACH
    at_least_one: bool = True
    group_near_duplicates: bool = False
    ablate: bool = False
    search: int = 0
    seed: int = 0
    out: Path | None = None
    device: str = "cpu"
    memory_limit: int | None = None
    test_features: Path | None = None
    cells: Path | None = None
    test_cells: Path | None = None
    pool: Pool | None = None
    ignore_unlabelled: bool = False
    drop_missing: bool = False

    def __post_init__(self) -> None:
        self.kinds  # noqa: B018 - refused at birth
        self._check_choices()
        self._check_numbers()
        self._check_company()
        self.threshold_rule  # noqa: B018 - refused at birth

    def _check_choices(self) -> None:
        for name, value, allowed in (
            ("views", self.views, get_args(Views)),
            ("class-weight", self.class_weight or "none", get_args(ClassWeight)),
            ("resample", self.resample, get_args(Resample)),
            ("prior", self.prior or "train", get_args(Prior)),
            ("ensemble", self.ensemble, get_args(EnsembleKind)),
            ("device", self.device, _DEVICES),
            ("pool", self.pool or "mean", get_args(Pool)),
        ):
            if value not in allowed:
                msg = f"--{name} {value!r}; expected {' or '.join(allowed)}"
                raise OptionError(msg)

    def _check_numbers(self) -> None:
        require_folds(self.folds, self.repeats)
        if not 0 <= self.seed < _SEEDS:
            msg = f"--seed {self.seed}; expected 0 to {_SEEDS - 1}"
            raise OptionError(msg)
        if self.search < 0 or self.search == 1:
            msg = f"--search {self.search}; expected 2 settings a head or more, the default among them, or 0 for no search"
            raise OptionError(msg)
        if self.most_copies < 1 or not 0 <= self.least_share <= 1:
            msg = f"--most-copies {self.most_copies} --least-share {self.least_share}; expected at least 1, and 0 to 1"
            raise OptionError(msg)
        if self.separator is not None and len(self.separator) != 1:
            msg = f"--separator {self.separator!r}; expected one character, such as ' ' or '|'"
            raise OptionError(msg)
        if not self.label_column:
            msg = "--label-column names no column; expected one, or one for each class"
            raise OptionError(msg)

    def _check_company(self) -> None:
        if self.resample != "none" and self.class_weight == "balanced" and not self.force:
            msg = (
                f"--resample {self.resample} with --class-weight balanced lifts rare classes twice; expected one of the two. Leave "
                f"one out, or say --force"
            )
            raise OptionError(msg)
        if (self.extra is None) != (self.extra_labels is None):
            msg = "--extra and --extra-labels belong together; give both, or none"
            raise OptionError(msg)
        if self.pool is not None and self.cells is None:
            msg = f"--pool {self.pool} is for cells; give their cache with --cells, or leave it out"
            raise OptionError(msg)
        if self.group_column is not None and self.labels is None:
            msg = f"--group-column {self.group_column} needs a labels CSV; give one with --labels"
            raise OptionError(msg)

    @property
    def kinds(self) -> dict[str, HeadKind]:
        """The heads that are fitted, by name."""
        own = own_kinds(self.own_heads)
        known = {**HEADS, **own}
        names = dict.fromkeys((*DEFAULT_HEADS, *own)) if self.heads is None else self.heads
        check_heads(tuple(names), known)
        return {name: known[name] for name in names}

    @property
    def class_weighting(self) -> ClassWeight:
        """Which class weights: balanced, unless told otherwise or images are resampled."""
        return self.class_weight or ("balanced" if self.resample == "none" else "none")

    def prior_of(self, *, many: bool) -> Prior:
        """Which prior probabilities speak of, where images may have many labels or one."""
        return self.prior or ("train" if many else "balanced")

    def pool_of(self, *, many: bool) -> Pool:
        """How an image's cells are pooled, where it may have many labels or has one."""
        return self.pool or ("maximum" if many else "mean")

    @property
    def threshold_rule(self) -> str | float:
        """Which thresholds: ``each``, ``common``, or a constant."""
        if self.thresholds in {EACH, COMMON}:
            return self.thresholds
        with contextlib.suppress(ValueError):
            if 0 < float(self.thresholds) < 1:
                return float(self.thresholds)
        msg = f"--thresholds {self.thresholds!r}; expected {EACH}, {COMMON}, or a number between 0 and 1"
        raise OptionError(msg)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as plain JSON values."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        own = {name: dict(table) for name, table in self.own_heads.items()}
        return {name: str(value) if isinstance(value, Path) else value for name, value in fields.items()} | {
            "own_heads": own
        }
