"""The heads by name, and the settings from which `choosing` takes its pick."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from features_cache.errors import OptionError, did_you_mean
from heads.estimators.dropout_linear import DropoutLinearHead
from heads.estimators.head import Head
from heads.estimators.logistic import LogisticHead
from heads.estimators.mlp import MLPHead
from heads.estimators.neighbours import NeighboursHead
from heads.estimators.ridge import RidgeHead
from heads.estimators.spaces import LogUniform, OneOf, Space, Uniform


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HeadKind:
    """What is known of a head before it sees data.

    Parameters
    ----------
    head : type
        The classifier.
    grid : tuple of float
        Candidates of its chosen parameter, from simple to flexible.
    n_inner_folds : int
        A fold's settings are chosen on so many folds on either side of it; see :mod:`heads.nesting`.
    watched : tuple of float
        Further candidates, before the grid's, that are looked at for the learning curves, and never chosen.
    prefers_last : bool
        Whether a candidate after the best one is chosen that is not clearly worse.
    settings : mapping
        Parameters of the classifier that are not its defaults.
    space : mapping of str to Space
        Where `search` looks for other values of parameters. A chosen parameter that is not here keeps its grid, all of which
        comes with one fit.
    """

    head: type[Head]
    grid: tuple[float, ...]
    n_inner_folds: int
    watched: tuple[float, ...] = ()
    prefers_last: bool = False
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    space: Mapping[str, Space] = dataclasses.field(default_factory=dict)

    def build(self, seed: int) -> Head:
        """Return an unfitted classifier; the seed is for those that draw numbers and have none of their own."""
        takes_seed = "seed" in self.head().get_params()
        return self.head(**{**({"seed": seed} if takes_seed else {}), **self.settings})


_SHRINKAGE, _BATCH_ROWS = LogUniform(0.03, 1.0), OneOf((64, 128, 256, 512))

HEADS: Mapping[str, HeadKind] = MappingProxyType(
    {
        "ridge": HeadKind(
            head=RidgeHead,
            grid=(3e4, 1e4, 3e3, 1e3, 3e2, 1e2, 3e1, 1e1, 3.0, 1.0),
            n_inner_folds=2,
            space={"alpha": LogUniform(1e-2, 1e6)},
        ),
        "logistic": HeadKind(
            head=LogisticHead,
            grid=(1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1),
            n_inner_folds=2,
            space={"C": LogUniform(1e-6, 1e1), "shrinkage": _SHRINKAGE},
        ),
        # Before its learning rate has come down an MLP can lead by luck in one inner fold, and lose in the next.
        "mlp": HeadKind(
            head=MLPHead,
            grid=(8, 9, 10, 11, 12),
            n_inner_folds=1,
            watched=(1, 2, 3, 4, 5, 6, 7),
            prefers_last=True,
            space={
                "width": LogUniform(64, 512, whole=True),
                "dropout": Uniform(0.0, 0.8),
                "learning_rate": LogUniform(2e-4, 5e-3),
                "weight_decay": LogUniform(1e-4, 1.0),
                "batch_rows": _BATCH_ROWS,
                "shrinkage": _SHRINKAGE,
            },
        ),
        # At a constant rate no epoch is better for being late: the best one is taken.
        "linear": HeadKind(
            head=DropoutLinearHead,
            grid=tuple(range(1, 31)),
            n_inner_folds=1,
            space={
                "dropout": Uniform(0.0, 0.8),
                "learning_rate": LogUniform(2e-4, 1e-2),
                "batch_rows": _BATCH_ROWS,
                "shrinkage": _SHRINKAGE,
            },
        ),
        # Nuclei by well, log-loss: 0.75; 0.92 without whitening, 0.84 where view 0 is kept and not the mean over views.
        "knn": HeadKind(
            head=NeighboursHead,
            grid=(200, 100, 50, 30, 20, 10, 5, 3, 1),
            n_inner_folds=2,
            space={
                "closeness": LogUniform(1e-2, 1.0),
                "smoothing": LogUniform(1e-1, 1e1),
                "shrinkage": _SHRINKAGE,
            },
        ),
    }
)
DEFAULT_HEADS = ("ridge", "logistic", "mlp")


def make_head(name: str, **settings: Any) -> Head:  # noqa: ANN401 - each head has its own parameters
    """Build an unfitted head.

    Parameters
    ----------
    name : str
        A key of ``HEADS``.
    **settings
        Its constructor's parameters.

    Returns
    -------
    Head

    Raises
    ------
    OptionError
        If there is no such head, or it has no such parameter.

    Examples
    --------
    >>> make_head("ridge", alpha=10.0)
    RidgeHead(alpha=10.0)
    """
    check_heads([name])
    head = HEADS[name].head()
    known = head.get_params()
    for parameter in settings:
        if parameter not in known:
            msg = f"head {name!r} has no parameter {parameter!r}; it has {', '.join(sorted(known))}{did_you_mean(parameter, known)}"
            raise OptionError(msg)
    built: Head = head.set_params(**settings)
    return built


def kind_of(head: Head) -> str:
    """Return the catalogue's name of a classifier."""
    return next(name for name, kind in HEADS.items() if kind.head is type(head))


def check_heads(names: Sequence[str], known: Collection[str] = HEADS) -> None:
    """Check names of heads.

    Parameters
    ----------
    names : sequence of str
    known : collection of str
        Those that there are; the catalogue's unless given.

    Raises
    ------
    OptionError
        If there is none, one is unknown, or one is named twice.
    """
    if not names:
        msg = f"no head was named; expected some of {', '.join(known)}"
        raise OptionError(msg)
    for name in names:
        if name not in known:
            msg = f"unknown head {name!r}; expected one of {', '.join(known)}{did_you_mean(name, known)}"
            raise OptionError(msg)
    if len(set(names)) < len(names):
        msg = f"--heads {','.join(names)}: a head is named twice; expected each once"
        raise OptionError(msg)
