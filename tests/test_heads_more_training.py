"""Resampling, further images, blocks left out, weights of the ensemble: each does what it says, and none looks at what is held out."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pandas as pd
import pytest

from features_cache.errors import LabelError, OptionError, RecipeMismatch
from features_cache.reader import FeatureCache
from features_cache.writer import write_cache
from heads.ensemble import combine, greedy_weights
from heads.estimators.catalogue import HEADS
from heads.feature_rows import FeatureRows
from heads.folds import make_folds
from heads.gather import gather, training_data
from heads.leaks.guard import guarded
from heads.out_of_fold import out_of_fold
from heads.predictions import Inner, Predictions
from heads.prior import prior_shift
from heads.problem import TrainingData
from heads.run import FitSettings, fit_heads
from heads.run_folder import read_run
from heads.sizes import POWER
from heads.targets import ManyLabels, OneLabel
from tests.heads_data import CLASSES, draw_features, make_blocks, make_project, write_csv

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("project"))


@pytest.fixture
def settings(project, tmp_path):
    return FitSettings(
        features=project.train,
        labels=project.csv,
        group_column="lab",
        heads=("ridge", "logistic"),
        folds=3,
        out=tmp_path / "run",
    )


def silent(_what, _done, _total):
    pass


def uneven(settings, tmp_path):
    """The same images, but a class has a fifth of its images."""
    table = pd.read_csv(settings.labels, dtype=str)
    rare = table.index[table["label"] == "anaphase"]
    kept = table.drop(index=rare[4:])
    path = write_csv(tmp_path / "uneven.csv", list(table.columns), kept.to_numpy().tolist())
    return dataclasses.replace(settings, labels=path, ignore_unlabelled=True, group_column=None)


@pytest.mark.parametrize("kind", ["over", "under", "both"])
def test_resampling_evens_the_classes_out_and_is_told(settings, tmp_path, kind):
    resampled = dataclasses.replace(uneven(settings, tmp_path), resample=kind, least_share=0.0)
    gathered = gather(resampled)
    data = training_data(resampled, gathered, POWER)
    totals = data.weights @ gathered.targets.members
    assert totals.tolist() == {"over": [20, 20, 20], "under": [4, 20, 20], "both": [20, 20, 20]}[kind]
    run = fit_heads(resampled)
    told = read_run(run.folder)["resampling"]
    assert told["before"]["n_of_class"] == [4, 20, 20]
    assert told["after"]["n_of_class"] == totals.tolist()


def test_copies_are_rows_twice_in_the_data(settings, tmp_path):
    """Ridge on resampled images is ridge on a cache in which the copies stand."""
    resampled = dataclasses.replace(uneven(settings, tmp_path), resample="over")
    gathered = gather(resampled)
    data = training_data(resampled, gathered, 1.0)
    places = np.arange(len(gathered.targets)).repeat(data.counts.astype(int))
    copied = TrainingData(
        rows=FeatureRows(gathered.features.scored(len(gathered.targets))[places], 1.0),
        targets=gathered.targets.take(places),
        weights=np.ones(len(places)),
    )
    for name in ("ridge", "logistic"):
        head = HEADS[name].head(power=1.0)
        candidate = [getattr(head, head.chosen)]
        found, expected = (
            next(iter(head.fit_sets(each.problem(), [each.problem().whole], candidate)))[0].head
            for each in (data, copied)
        )
        np.testing.assert_allclose(found.coef_, expected.coef_, atol=2e-3)


def test_resampling_with_class_weights_is_refused_with_a_reason_unless_forced(settings):
    with pytest.raises(OptionError, match="--resample over with --class-weight balanced lifts rare classes twice"):
        dataclasses.replace(settings, resample="over", class_weight="balanced")
    forced = dataclasses.replace(settings, resample="over", class_weight="balanced", force=True)
    assert forced.class_weighting == "balanced"
    assert dataclasses.replace(settings, resample="over").class_weighting == "none"
    assert settings.class_weighting == "balanced"


def write_extra(folder, n_images=30, *, n_views=3, blocks=None, label=None, groups=None):
    labels = np.arange(n_images) % 3
    ids = [f"x{place:03d}" for place in range(n_images)]
    X = draw_features(labels, n_views=n_views, seed=5)
    write_cache(folder / "extra.h5", ids=ids, features=X, blocks=blocks or make_blocks())
    names = [label or CLASSES[index] for index in labels]
    groups = groups or [f"other{place}" for place in range(n_images)]
    write_csv(folder / "extra.csv", ["id", "label", "lab"], list(zip(ids, names, groups, strict=True)))
    return {"extra": folder / "extra.h5", "extra_labels": folder / "extra.csv"}


def test_further_images_train_in_every_fold_and_are_never_scored(settings, tmp_path):
    more = dataclasses.replace(settings, **write_extra(tmp_path))
    gathered = gather(more)
    data = training_data(more, gathered, POWER)
    assert (len(gathered.targets), data.n_scored) == (90, 60)
    kinds = {"ridge": HEADS["ridge"]}
    found = out_of_fold(kinds, data, gathered.folds, n_averaged=3, seed=0, progress=silent)["ridge"]
    assert found.predictions.averaged.shape == (1, 60, 3)

    # Each fold's heads are those fitted on its training part and the further images together.
    fold = gathered.folds[0]
    places = np.concatenate([fold.train, np.arange(60, 90)])
    alone = TrainingData(
        rows=FeatureRows(gathered.features.scored(len(gathered.targets))[places], POWER),
        targets=gathered.targets.take(places),
        weights=data.weights[places],
    ).problem()
    alpha = found.choices[0].settings["alpha"]
    ((fit, *_),) = HEADS["ridge"].build(0).fit_sets(alone, [alone.whole], [alpha])
    fit.head.set_params(temperature=found.choices[0].settings["temperature"])
    X = gathered.features.scored(len(gathered.targets))[fold.held_out][:, 0]
    shift = prior_shift(data, "balanced", fold.held_out)
    raw = fit.head.decision_function(X) / fit.head.temperature + shift
    expected = np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.predictions.view_0[0, fold.held_out], expected, atol=1e-4)

    run = fit_heads(more)
    assert run.metrics["n_images"] == 60
    assert read_run(run.folder)["n_extra"] == 30


def test_further_images_that_would_give_held_out_ones_away_are_left_out(settings, project, tmp_path):
    groups = ["w3", "w3", *(f"other{place}" for place in range(28))]
    more = dataclasses.replace(settings, **write_extra(tmp_path, groups=groups))
    gathered = gather(more)
    assert len(gathered.targets) == 88
    assert any(
        "2 images share a group with them ('x000', 'x001'); left out" in text for text in gathered.images.warnings
    )

    content = np.arange(60 * 16, dtype=np.uint16).astype(np.uint8).reshape(60, 16)
    write_cache(
        tmp_path / "train.h5",
        ids=project.ids,
        features=draw_features(np.array([CLASSES.index(label) for label in project.labels])),
        blocks=make_blocks(),
        content_hash=content,
    )
    write_cache(
        tmp_path / "double.h5",
        ids=["a", "b"],
        features=draw_features(np.array([0, 1])),
        blocks=make_blocks(),
        content_hash=np.stack([content[7], content[7] + 1]),
    )
    labels = write_csv(tmp_path / "double.csv", ["id", "label"], [["a", "anaphase"], ["b", "prophase"]])
    double = dataclasses.replace(
        settings, features=tmp_path / "train.h5", extra=tmp_path / "double.h5", extra_labels=labels
    )
    gathered = gather(double)
    assert len(gathered.targets) == 61
    assert any(
        "1 images have the bytes, or the name, of scored images ('a'); left out" in text
        for text in gathered.images.warnings
    )
    assert any("has no column 'lab': nobody can tell" in text for text in gathered.images.warnings)


def test_further_images_of_unknown_bytes_are_told_apart_by_their_names(settings, project, tmp_path):
    labels = np.array([CLASSES.index(label) for label in project.labels])[:2]
    ids = [project.ids[0], "another"]
    write_cache(tmp_path / "made.h5", ids=ids, features=draw_features(labels, seed=9), blocks=make_blocks())
    table = write_csv(tmp_path / "made.csv", ["id", "label"], list(zip(ids, project.labels[:2], strict=True)))
    gathered = gather(dataclasses.replace(settings, extra=tmp_path / "made.h5", extra_labels=table))
    assert gathered.further_ids == ("another",)


@pytest.mark.parametrize("is_grouped", [False, True])
def test_a_further_image_that_is_nearly_a_scored_one_is_told_and_left_out_where_near_duplicates_are_grouped(
    settings, project, tmp_path, is_grouped
):
    more = dataclasses.replace(settings, **write_extra(tmp_path), group_near_duplicates=is_grouped, repeats=2)
    with FeatureCache(settings.features) as cache:
        copied = cache.load(rows=np.array([4]))
    labels = np.append(np.arange(29) % 3, CLASSES.index(project.labels[4]))
    X = draw_features(labels, seed=5)
    X[29:] = copied * 1.001
    (tmp_path / "extra.h5").unlink()
    ids = [f"x{place:03d}" for place in range(30)]
    write_cache(tmp_path / "extra.h5", ids=ids, features=X, blocks=make_blocks())
    names = [CLASSES[index] for index in labels]
    write_csv(
        tmp_path / "extra.csv", ["id", "label", "lab"], [[a, b, f"o{a}"] for a, b in zip(ids, names, strict=True)]
    )

    gathered, seen = guarded(more, gather(more))
    (told,) = (text for text in seen.warnings if "further images" in text)
    assert f"'{project.ids[4]}' and 'x029' (cosine 1.000)" in told
    assert told.endswith("left out" if is_grouped else "--group-near-duplicates leaves them out")
    listed = pd.read_csv(io.BytesIO(seen.table), dtype=str)
    pairs = listed[listed["where"] == "extra"]
    assert pairs.loc[pairs["id"] == project.ids[4], "other_id"].tolist() == ["x029"]
    learned = training_data(more, gathered, POWER).weights > 0
    assert learned[:60].all()
    assert learned[89] == (not is_grouped)
    assert read_run(fit_heads(more).folder)["n_extra"] == learned[60:].sum()


@pytest.mark.parametrize(
    ("made", "error", "match"),
    [
        ({"label": "telophase"}, LabelError, "labels 'telophase' are no classes of the run"),
        ({"n_views": 1}, OptionError, r"1 views an image, but .* has 3; .*--augment 2"),
        ({"blocks": make_blocks(seed=3)}, RecipeMismatch, "of another recipe"),
        ({"groups": ["w0"] * 30}, LabelError, "no image is left to learn from"),
    ],
)
def test_further_images_that_do_not_fit_are_an_error(settings, tmp_path, made, error, match):
    with pytest.raises(error, match=match):
        gather(dataclasses.replace(settings, **write_extra(tmp_path, **made)))


def test_further_images_and_their_labels_belong_together(settings, tmp_path):
    with pytest.raises(OptionError, match="--extra and --extra-labels belong together"):
        dataclasses.replace(settings, extra=tmp_path / "x.h5")


def test_each_block_is_left_out_in_turn(settings):
    run = fit_heads(dataclasses.replace(settings, ablate=True))
    rows = run.metrics["ablation"]
    assert [row["left_out"] for row in rows] == [None, "tiny", "wee"]
    whole = {name: figures["macro_f1"]["value"] for name, figures in run.metrics["heads"].items()}
    assert {name: figures["macro_f1"] for name, figures in rows[0]["heads"].items()} == pytest.approx(whole)
    alone = fit_heads(dataclasses.replace(settings, blocks=("wee",), out=settings.out.with_name("alone")))
    expected = {name: figures["macro_f1"]["value"] for name, figures in alone.metrics["heads"].items()}
    assert {name: figures["macro_f1"] for name, figures in rows[1]["heads"].items()} == pytest.approx(expected)
    with pytest.raises(OptionError, match="--ablate: the only block is wee"):
        fit_heads(dataclasses.replace(settings, blocks=("wee",), ablate=True, out=settings.out.with_name("one")))


def drawn_predictions(folds, labels, sharpness, rng):
    """Members that are right to different degrees, everywhere alike."""
    n_images = len(labels)
    logits = sharpness * np.eye(3)[labels] + rng.normal(size=(n_images, 3))
    said = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    inner = tuple(Inner(fold.train, said[fold.train]) for fold in folds)
    return Predictions(averaged=said[None].copy(), view_0=said[None].copy(), inner=inner)


def test_greedy_weights_favour_the_better_members_and_come_from_inside_the_folds():
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 3
    targets = OneLabel(labels, 3)
    folds = make_folds(targets, None, n_folds=3)
    members = {name: drawn_predictions(folds, labels, sharp, rng) for name, sharp in (("good", 2.0), ("bad", 0.0))}

    greedy = combine(members, folds, targets, "greedy")

    assert greedy.weights["good"] > 0.7
    assert sum(greedy.weights.values()) == pytest.approx(1)
    plain = combine(members, folds, targets, "average")
    assert plain.weights == {"good": 0.5, "bad": 0.5}
    losses = [targets.losses(each.predictions.averaged[0]).mean() for each in (greedy, plain)]
    assert losses[0] < losses[1]

    # In fold 0 the held-out images say the opposite: its weights stay as they are, the others' and the final ones move.
    turned = labels.copy()
    turned[folds[0].held_out] = (labels[folds[0].held_out] + 1) % 3
    again = combine(members, folds, OneLabel(turned, 3), "greedy")
    assert again.weights_in_folds[0] == greedy.weights_in_folds[0]
    assert again.weights_in_folds[1] != greedy.weights_in_folds[1]


def test_an_ensemble_is_no_worse_inside_than_its_best_member():
    rng = np.random.default_rng(1)
    members = [rng.dirichlet(np.ones(4), size=50) for _ in range(5)]
    for targets in (OneLabel(rng.integers(0, 4, 50), 4), ManyLabels(rng.uniform(size=(50, 4)) < 0.3)):
        weights = greedy_weights(members, targets)
        together = sum(weight * member for weight, member in zip(weights, members, strict=True))
        assert targets.losses(together).mean() <= min(targets.losses(member).mean() for member in members) + 1e-12


@pytest.mark.parametrize("prior", ["balanced", "train"])
def test_a_prior_is_reached_whatever_the_training_weights_were(prior):
    """Bayes' rule on data whose likelihoods are known: a fitted head's log-odds are those of the prior that was asked for."""
    rng = np.random.default_rng(0)
    labels = (rng.uniform(size=4000) < 0.1).astype(np.int64)
    X = (rng.normal(size=4000) + 2 * labels)[:, None, None].astype(np.float64)
    targets = OneLabel(labels, 2)
    for weights in (np.ones(4000), np.where(labels == 1, 7.0, 1.0)):
        data = TrainingData(rows=FeatureRows(X, 1.0), targets=targets, weights=weights)
        head = HEADS["logistic"].head(C=100.0, power=1.0, shrinkage=1.0, tolerance=1e-12, max_steps=500)
        ((fit,),) = head.fit_sets(data.problem(), [data.problem().whole], [100.0])
        outputs = fit.head.member_scores(np.array([[1.0]]))[0, 0] + prior_shift(data, prior)
        odds = float(outputs[1] - outputs[0])
        # At 1, midway between the classes, the likelihoods are the same.
        expected = 0.0 if prior == "balanced" else np.log(labels.mean() / (1 - labels.mean()))
        assert odds == pytest.approx(expected, abs=0.2)
