"""A run's fitted heads, averaged as the run says, and what images are called by them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from features_cache.errors import RunError
from features_cache.reader import FeatureCache
from heads.arrays import Bool, Float, Float64, Indices
from heads.ensemble import NAME as ENSEMBLE
from heads.ensemble import average
from heads.fitted import FittedHead
from heads.fusion import CELLS
from heads.run_folder import find_run, load_heads, read_run
from heads.thresholds import Thresholds, apply_thresholds

_CHUNK_IMAGES = 2048


@dataclasses.dataclass(frozen=True, slots=True)
class FittedRun:
    """A run with its heads, or some of them.

    Parameters
    ----------
    folder : Path
    run : dict
        As in run.json.
    heads : tuple of FittedHead
    cells : FittedRun or None
        The same of the heads that were fitted on cells of the images, if any were.
    """

    folder: Path
    run: dict[str, Any]
    heads: tuple[FittedHead, ...]
    cells: FittedRun | None = None

    @classmethod
    def load(cls, path: Path, names: Sequence[str] = ()) -> FittedRun:
        """Load a run.

        Parameters
        ----------
        path : Path
            Its folder, or ``runs/latest``.
        names : sequence of str
            Which heads; empty for all.

        Raises
        ------
        RunError
            If it cannot be used.
        """
        folder = find_run(path)
        run = read_run(folder)
        heads, cells = load_heads(folder, run, names), None
        if run.get(CELLS):
            own = run | run[CELLS]
            cells = cls(folder, own, load_heads(folder, own, names, under=CELLS))
        return cls(folder, run, heads, cells)

    @property
    def block_names(self) -> list[str]:
        """The blocks that all heads take, in order."""
        return [block.name for block in self.heads[0].blocks]

    @property
    def views(self) -> slice | None:
        """Which views of a cache the heads predict."""
        return slice(0, 1) if self.run["settings"]["views"] == "0" else None

    @property
    def many_labels(self) -> bool:
        """Whether an image may have many labels."""
        return bool(self.run["target"]["many_labels"])

    @property
    def separator(self) -> str | None:
        """What stands between the labels of an image, where it may have many."""
        separator: str | None = self.run["target"]["separator"]
        return separator

    def predict(self, X: Float) -> dict[str, Float64]:
        """Predict images by each head and, where there are several, by their ensemble.

        Parameters
        ----------
        X : float32 array, shape (n_images, n_views, n_columns)
            Columns of ``block_names``.

        Returns
        -------
        dict of float64 array, shape (n_images, n_classes)
        """
        predicted = {head.name: head.predict_images(X) for head in self.heads}
        if len(predicted) > 1:
            weights = self._weights(list(predicted))
            predicted[ENSEMBLE] = average(list(predicted.values()), weights)
        return predicted

    def predict_rows(self, cache: FeatureCache, rows: Indices, *, view_0: bool = False) -> dict[str, Float64]:
        """Predict images of a cache by each head and their ensemble; features are read in pieces.

        Parameters
        ----------
        cache : FeatureCache
        rows : int64 array, shape (n_images,)
        view_0 : bool
            Whether by view 0 alone, instead of the views that heads predict.

        Returns
        -------
        dict of float64 array, shape (n_images, n_classes)
            NaN for images whose features are not all numbers.
        """
        n_classes = len(self.heads[0].classes)
        names = [head.name for head in self.heads] + [ENSEMBLE] * (len(self.heads) > 1)
        said = {name: np.full((len(rows), n_classes), np.nan) for name in names}
        views = slice(0, 1) if view_0 else self.views
        for start in range(0, len(rows), _CHUNK_IMAGES):
            X: Float = cache.load(rows=rows[start : start + _CHUNK_IMAGES], views=views, blocks=self.block_names)
            known = np.flatnonzero(np.isfinite(X).all(axis=(1, 2)))
            if len(known):
                for name, probabilities in self.predict(X[known]).items():
                    said[name][start + known] = probabilities
        return said

    def _weights(self, names: Sequence[str]) -> list[float]:
        weights = [float(self.run["ensemble"]["weights"][name]) for name in names]
        total = sum(weights)
        # Of heads that were chosen by name, none may have been given a weight.
        return [weight / total for weight in weights] if total else [1 / len(weights)] * len(weights)

    def thresholds(self, name: str) -> Float64:
        """Return the thresholds of a head or of the ensemble, shape (n_classes,).

        Where some heads of the run were left out, their ensemble's are the mean of their own.
        """
        chosen = self._all_thresholds()
        if name == ENSEMBLE and len(self.heads) < len(self.run["heads"]):
            return np.asarray(np.mean([chosen[head.name].values for head in self.heads], axis=0))
        return chosen[name].values

    def _all_thresholds(self) -> Mapping[str, Thresholds]:
        try:
            return {name: Thresholds.from_json(each) for name, each in self.run["target"]["thresholds"].items()}
        except (KeyError, TypeError, AttributeError) as error:
            msg = f"{self.folder}: run.json holds no thresholds ({error!r}); it was edited. Fit the heads again with `cli fit-heads`"
            raise RunError(msg) from error

    def call(self, probabilities: Float64, name: str) -> Bool | None:
        """Say what images are called: bool array, shape (n_images, n_classes); None where they have one label."""
        if not self.many_labels:
            return None
        return apply_thresholds(probabilities, self.thresholds(name), at_least_one=self.run["target"]["at_least_one"])
