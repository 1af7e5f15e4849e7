"""Heads on a graphics card: every tensor where it belongs, and the results of the processor."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from features_cache.errors import OptionError
from features_cache.progress import silent
from features_cache.reader import FeatureCache
from features_cache.writer import write_cache
from heads import features
from heads.estimators import training
from heads.estimators.catalogue import HEADS
from heads.feature_rows import FeatureRows
from heads.features import CachedImages, LoadedFeatures, StoredFeatures
from heads.folds import make_folds
from heads.memory import INTERPRETER_BYTES, Memory, Work
from heads.out_of_fold import fit_final, out_of_fold
from heads.problem import TrainingData
from heads.sizes import POWER
from heads.targets import ManyLabels, OneLabel
from tests.fake_card import CARD, FakeCard, OnCard
from tests.heads_data import draw_features, make_blocks

pytestmark = pytest.mark.usefixtures("one_thread")


class Tight(Memory):
    """A few images at a time."""

    chunk_rows, shuffled_rows, piece_images = 40, 60, 2

    def sets_together(self, n_sets):
        return 4


def data_on(device, many, cache=None):
    labels = np.arange(60) % 3
    X = draw_features(labels, n_views=2, spread=2.0)
    targets = OneLabel(labels, 3)
    if many:
        targets = ManyLabels(np.stack([labels == 0, labels < 2, np.arange(60) % 4 == 0], axis=1))
    weights = np.random.default_rng(0).uniform(0.5, 2, 60)
    if cache is None:
        return TrainingData(rows=FeatureRows(X, POWER, device), targets=targets, weights=weights)
    numbers = {"n_cells": 3, "n_sets": 6, "n_scores": 10, "n_probabilities": 4}
    work = Work(n_images=60, n_views=2, n_columns=10, n_classes=3, **numbers)
    memory = Tight(work=work, limit=INTERPRETER_BYTES, folder=cache.parent)
    if not cache.exists():
        write_cache(cache, ids=[f"{place:02d}" for place in range(60)], features=X, blocks=make_blocks())
    stored = StoredFeatures([CachedImages(FeatureCache(cache), np.arange(60), 2)], make_blocks(), memory)
    rows = stored.rows(POWER, torch.device(device))
    return TrainingData(rows=rows, targets=targets, weights=weights, memory=memory)


def said_on(device, name, many, cache=None):
    data = data_on(device, many, cache)
    folds = make_folds(OneLabel(np.arange(60) % 3, 3), None, n_folds=3)
    kind = dataclasses.replace(HEADS[name], grid=HEADS[name].grid[2:4], watched=())
    oof = out_of_fold({name: kind}, data, folds, n_averaged=2, seed=0, progress=silent)[name]
    head = fit_final(HEADS[name], data, oof.final)
    return oof.predictions.averaged, {key: np.array(values) for key, values in head.arrays().items()}


def test_the_fake_card_refuses_what_a_card_refuses():
    with FakeCard():
        here, there = torch.ones(3), torch.ones(3).to(CARD)
        assert there.device.type == "cuda" and isinstance(there * 2, OnCard)
        assert here.device.type == "cpu" and (there.cpu() + here).device.type == "cpu"
        assert torch.zeros(2, device=CARD).device.type == "cuda"
        with pytest.raises(RuntimeError, match="on the card and on the processor"):
            here + there
        with pytest.raises(TypeError, match=r"expected \.cpu\(\) first"):
            there.numpy()


@pytest.mark.filterwarnings("ignore:.*CUDA is not available:UserWarning")
@pytest.mark.parametrize(("many", "limited"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("name", HEADS)
def test_no_tensor_of_the_processor_meets_one_of_the_card(monkeypatch, tmp_path, name, many, limited):
    cache = tmp_path / "c.h5" if limited else None
    monkeypatch.setattr(training, "cuda_is_fast_in_bfloat16", lambda: False)
    monkeypatch.setattr(training, "cpu_is_fast_in_bfloat16", lambda: False)
    expected, learned = said_on("cpu", name, many, cache)
    with FakeCard():
        found, learned_there = said_on(CARD, name, many, cache)
    np.testing.assert_allclose(found, expected, atol=2e-3)
    for key, values in learned.items():
        np.testing.assert_allclose(learned_there[key], values, atol=2e-3 * np.abs(values).max(initial=1))


def test_a_card_that_is_too_small_says_what_to_type(monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(features, "FeatureRows", full)
    loaded = LoadedFeatures(np.zeros((2, 3, 10), np.float32), make_blocks())
    with pytest.raises(
        OptionError, match=r"--device cuda: 240B of features do not fit its memory\. Type --memory-limit 240B"
    ):
        loaded.rows(POWER, torch.device("cuda"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize(("name", "tolerance"), [("ridge", 1e-3), ("logistic", 5e-3), ("mlp", 0.1)])
def test_a_gpu_gives_the_heads_of_the_cpu(name, tolerance, many):
    (expected, _), (found, _) = (said_on(device, name, many) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(found, expected, atol=tolerance)
