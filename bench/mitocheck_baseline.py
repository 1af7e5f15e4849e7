"""Plain scikit-learn logistic regression on view 0, in the folds of a run.

    python bench/mitocheck_baseline.py --run runs/001 --features features/train.h5

C is chosen inside each training part, by the same kind of folds (by group where the run had groups).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, f1_score
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from features_cache.reader import FeatureCache

GRID = (1e-3, 1e-2, 1e-1)


def predict_fold(
    X: NDArray[np.float32], labels: NDArray[np.str_], groups: NDArray[np.str_] | None, held_out: NDArray[np.bool_]
) -> NDArray[np.str_]:
    """Fit without a fold, choosing C by inner folds, and predict it."""
    train = ~held_out
    inner: StratifiedGroupKFold | StratifiedKFold = StratifiedKFold(3, shuffle=True, random_state=0)
    if groups is not None:
        inner = StratifiedGroupKFold(3, shuffle=True, random_state=0)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300, tol=1e-3))
    search = GridSearchCV(model, {"logisticregression__C": list(GRID)}, cv=inner, scoring="f1_weighted")
    search.fit(X[train], labels[train], groups=None if groups is None else groups[train])
    predicted: NDArray[np.str_] = search.predict(X[held_out])
    return predicted


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="run folder whose oof.csv gives the folds")
    parser.add_argument("--features", type=Path, required=True, help="the cache that the run was fitted on")
    options = parser.parse_args()
    oof = pd.read_csv(options.run / "oof.csv", dtype={"id": str, "label": str, "group": str}, keep_default_na=False)
    oof = oof[oof["head"] == oof["head"].iloc[0]]
    with FeatureCache(options.features) as cache:
        row_of = {image_id: row for row, image_id in enumerate(cache.ids)}
        view_0 = cache.load(views=slice(0, 1))[:, 0]
    weighted, pooled, balanced = [], [], []
    for repeat, rows in oof.groupby("repeat"):
        X = view_0[[row_of[image_id] for image_id in rows["id"]]]
        labels, folds = rows["label"].to_numpy(dtype="U"), rows["fold"].to_numpy()
        groups = rows["group"].to_numpy(dtype="U") if (rows["group"] != "").all() else None
        predicted = np.empty_like(labels)
        for fold in np.unique(folds):
            held_out = folds == fold
            predicted[held_out] = predict_fold(X, labels, groups, held_out)
            weighted.append(f1_score(labels[held_out], predicted[held_out], average="weighted"))
            print(f"repeat {repeat} fold {fold}: weighted F1 {weighted[-1]:.4f}", flush=True)
        pooled.append(f1_score(labels, predicted, average="weighted"))
        balanced.append(balanced_accuracy_score(labels, predicted))
    print(f"weighted F1 by fold {np.mean(weighted):.4f} ± {np.std(weighted):.4f}; pooled {np.mean(pooled):.4f}")
    print(f"balanced accuracy pooled {np.mean(balanced):.4f}")


if __name__ == "__main__":
    main()
