"""A leak is planted in each place where something is chosen: the figures would have moved, and without it they are chance.

Labels here are drawn by lot, so nothing can be learned: whatever looks better than chance was leaked.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest

from heads import choosing
from heads import out_of_fold as story
from heads.choosing import fit_temperature
from heads.decisions import decide
from heads.ensemble import combine
from heads.estimators.catalogue import HEADS
from heads.feature_rows import FeatureRows
from heads.folds import make_folds
from heads.metrics.one_label import headline
from heads.nesting import nest
from heads.out_of_fold import out_of_fold
from heads.predictions import Inner
from heads.probabilities import image_probabilities
from heads.problem import TrainingData
from heads.scores import join_scores
from heads.sizes import POWER
from heads.targets import ManyLabels, OneLabel

pytestmark = pytest.mark.usefixtures("one_thread")

N_IMAGES = 90


def silent(_what, _done, _total):
    pass


def noise(targets):
    X = np.random.default_rng(7).normal(size=(N_IMAGES, 2, 12)).astype(np.float32)
    return TrainingData(rows=FeatureRows(X, POWER), targets=targets, weights=np.ones(N_IMAGES))


def one_label():
    return OneLabel(np.random.default_rng(8).integers(0, 3, N_IMAGES), 3)


def many_labels():
    return ManyLabels(np.random.default_rng(9).uniform(size=(N_IMAGES, 8)) < 0.12)


def choosing_by_what_is_held_out(*args, **options):
    """The planted leak: settings and temperatures are chosen by the images that the fold holds out."""
    honest = nest(*args, **options)
    folds = tuple(dataclasses.replace(nested, inner=(nested.outer,)) for nested in honest.folds)
    return dataclasses.replace(honest, folds=folds)


def choosing_one_thing_by(outer, part):
    """The planted leak in one thing alone: everything else is chosen as ever, inside the training images."""

    def choose(kind, settings, given, shift):
        honest = choosing.choose(kind, settings, given, shift)
        chosen, many = kind.head.chosen, outer.targets.is_many
        if part == "temperature":
            temperature, _ = fit_temperature(outer.scores(honest.settings[chosen]), outer.targets, shift)
            return dataclasses.replace(honest, settings=honest.settings | {"temperature": temperature})
        first, *others = (each.targets for each in given)
        targets = functools.reduce(lambda joined, each: joined.join(each), others, first)
        tried = {}
        for candidate in kind.grid:
            inner = join_scores([each.scores(candidate) for each in given])
            temperature, _ = fit_temperature(inner, targets, shift)
            said = image_probabilities(outer.scores(candidate), temperature, shift, many=many)
            tried[outer.targets.losses(said).mean()] = {chosen: candidate, "temperature": temperature}
        return dataclasses.replace(honest, settings=honest.settings | tried[min(tried)])

    return choose


def with_leaky_inner(predictions, folds):
    """The same leak in what comes after the heads: thresholds and weights are chosen by held-out images."""
    inner = tuple(Inner(fold.held_out, predictions.averaged[fold.repeat, fold.held_out]) for fold in folds)
    return dataclasses.replace(predictions, inner=inner)


@pytest.mark.parametrize("name", HEADS)
def test_settings_and_temperatures_chosen_by_held_out_images_would_have_flattered(name, monkeypatch):
    targets = one_label()
    folds = make_folds(targets, None, n_folds=3)
    kinds = {name: HEADS[name]}
    honest = out_of_fold(kinds, noise(targets), folds, n_averaged=2, seed=0, progress=silent)[name]
    monkeypatch.setattr(story, "nest", choosing_by_what_is_held_out)
    leaked = out_of_fold(kinds, noise(targets), folds, n_averaged=2, seed=0, progress=silent)[name]

    losses = [targets.losses(each.predictions.averaged[0]).mean() for each in (honest, leaked)]
    assert losses[1] < losses[0] - 1e-3
    assert losses[0] > np.log(3) - 0.02
    assert headline(targets.labels, honest.predictions.averaged[0])["balanced_accuracy"] < 0.45


@pytest.mark.parametrize("part", ["setting", "temperature"])
@pytest.mark.parametrize("name", HEADS)
def test_a_setting_alone_and_a_temperature_alone_chosen_by_held_out_images_would_have_flattered(
    name, part, monkeypatch
):
    targets = one_label()
    folds = make_folds(targets, None, n_folds=3)
    kinds = {name: HEADS[name]}
    honest = out_of_fold(kinds, noise(targets), folds, n_averaged=2, seed=0, progress=silent)[name]
    enter = story._Gathered.enter

    def leaky_enter(self, fold, inner, outer, kind, seed):
        with monkeypatch.context() as patched:
            patched.setattr(story, "choose", choosing_one_thing_by(outer, part))
            enter(self, fold, inner, outer, kind, seed)

    monkeypatch.setattr(story._Gathered, "enter", leaky_enter)
    leaked = out_of_fold(kinds, noise(targets), folds, n_averaged=2, seed=0, progress=silent)[name]
    losses = [targets.losses(each.predictions.averaged[0]).mean() for each in (honest, leaked)]
    assert losses[1] < losses[0] - 1e-4
    assert losses[0] > np.log(3) - 0.02


@pytest.mark.parametrize("rule", ["each", "common"])
def test_thresholds_chosen_by_held_out_images_would_have_flattered(rule):
    targets = many_labels()
    folds = make_folds(targets, None, n_folds=3)
    kinds = {"ridge": HEADS["ridge"]}
    said = out_of_fold(kinds, noise(targets), folds, n_averaged=2, prior="train", seed=0, progress=silent)["ridge"]
    scores = []
    for predictions in (said.predictions, with_leaky_inner(said.predictions, folds)):
        called = decide(predictions, folds, targets, None, rule=rule, at_least_one=False, seed=0).called[0]
        hits = (called & targets.members).sum(axis=0)
        scores.append(np.mean(2 * hits / np.maximum(called.sum(axis=0) + targets.counts, 1)))
    assert scores[1] > scores[0] + 0.005


def test_ensemble_weights_chosen_by_held_out_images_would_have_flattered():
    targets = one_label()
    folds = make_folds(targets, None, n_folds=3)
    kinds = {name: HEADS[name] for name in ("ridge", "logistic", "mlp")}
    found = out_of_fold(kinds, noise(targets), folds, n_averaged=2, seed=0, progress=silent)
    losses = []
    for leaky in (False, True):
        members = {
            name: with_leaky_inner(each.predictions, folds) if leaky else each.predictions
            for name, each in found.items()
        }
        together = combine(members, folds, targets, "greedy")
        losses.append(targets.losses(together.predictions.averaged[0]).mean())
    assert losses[1] < losses[0]
