"""Heads on features that do not fit the memory limit: the same heads, in pieces."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from features_cache.errors import DiskFull, OptionError
from features_cache.progress import silent
from features_cache.reader import FeatureCache
from features_cache.writer import write_cache
from heads import memory as budget
from heads.estimators.batches import StreamedBatches
from heads.estimators.catalogue import HEADS
from heads.estimators.mlp import MLPHead
from heads.feature_rows import FeatureRows
from heads.features import CachedImages, LoadedFeatures, StoredFeatures
from heads.folds import make_folds
from heads.memory import INTERPRETER_BYTES, Memory, Work, parse_size, plan_memory, show_size
from heads.out_of_fold import fit_final, out_of_fold
from heads.probabilities import image_probabilities
from heads.problem import TrainingData
from heads.run import FitSettings, fit_heads
from heads.run_folder import read_run
from heads.scores import Scores, join_scores
from heads.scratch import Scratch
from heads.sizes import POWER
from heads.targets import OneLabel
from tests.heads_data import draw_features, make_blocks, make_project

pytestmark = pytest.mark.usefixtures("one_thread")

WORK = Work(n_images=150, n_views=4, n_columns=10, n_classes=3, n_cells=5, n_sets=15, n_scores=10, n_probabilities=10)
BIG = Work(
    n_images=31_072, n_views=42, n_columns=3072, n_classes=9, n_cells=5, n_sets=15, n_scores=150, n_probabilities=16
)


class Tight(Memory):
    """So little memory that a few images are a chunk, two training sets a group, and a few blocks a shuffle."""

    chunk_rows = 160
    shuffled_rows = 120
    piece_images = 2

    def sets_together(self, n_sets: int) -> int:
        return 2


def labels_of(n_images=150):
    return np.sort(np.arange(n_images) % 3)  # as folders of classes sort them: neighbours are of one class


def data_of(features, labels, memory=None):
    weights = np.random.default_rng(3).uniform(0.2, 3, len(labels))
    rows = features.rows(POWER, torch.device("cpu"))
    return TrainingData(rows=rows, targets=OneLabel(labels, 3), weights=weights, memory=memory)


@pytest.fixture
def both(tmp_path):
    """The same images in memory and on the disk."""
    labels = labels_of()
    X = draw_features(labels, n_views=4, spread=2.0)
    ids = [f"{place:03d}" for place in range(len(labels))]
    write_cache(tmp_path / "c.h5", ids=ids, features=X, blocks=make_blocks())
    memory = Tight(work=WORK, limit=INTERPRETER_BYTES, folder=tmp_path)
    images = CachedImages(FeatureCache(tmp_path / "c.h5"), np.arange(150), 4)
    stored = StoredFeatures([images], make_blocks(), memory)
    return data_of(LoadedFeatures(X, make_blocks()), labels), data_of(stored, labels, memory)


@pytest.mark.parametrize(("name", "n_folds"), [("ridge", 2), ("ridge", 5), ("logistic", 3)])
def test_linear_heads_within_a_limit_are_those_without_one(both, name, n_folds):
    free, limited = both
    folds = make_folds(free.targets, None, n_folds=n_folds)
    kinds = {name: HEADS[name]}
    expected, found = (
        out_of_fold(kinds, data, folds, n_averaged=3, seed=0, progress=silent)[name] for data in (free, limited)
    )
    np.testing.assert_allclose(found.predictions.averaged, expected.predictions.averaged, atol=1e-3)
    np.testing.assert_allclose(found.predictions.view_0, expected.predictions.view_0, atol=1e-3)
    chosen = HEADS[name].head.chosen
    assert [each.settings[chosen] for each in found.choices] == [each.settings[chosen] for each in expected.choices]
    heads = [fit_final(HEADS[name], data, expected.final) for data in both]
    np.testing.assert_allclose(heads[1].coef_, heads[0].coef_, atol=1e-3 * np.abs(heads[0].coef_).max())


def test_mlps_within_a_limit_are_as_good_and_the_same_each_time(both):
    free, limited = both
    X, labels, cells = free.rows, free.targets.labels, np.arange(150) % 3
    said = []
    for data in (free, limited, limited):
        ((fit,),) = MLPHead(width=32).fit_sets(data.problem(cells), [frozenset({0, 1})], [12])
        (judged,) = (chunk for _, chunk in X.chunks(np.flatnonzero(cells == 2)))
        said.append(fit.head.outputs(judged).mean(dim=0).reshape(50, 4, 3).mean(dim=1))
    assert torch.equal(said[1], said[2])
    accuracy = [np.mean(each.argmax(dim=1).numpy() == labels[cells == 2]) for each in said[:2]]
    assert accuracy[1] == pytest.approx(accuracy[0], abs=0.07)
    assert accuracy[1] > 0.6


def test_an_mlp_shown_on_its_way_is_the_mlp_fitted_that_far_also_within_a_limit(both):
    problem = both[1].problem()
    shown = [fits[0].head for fits in MLPHead(width=8).fit_sets(problem, [problem.whole], [2, 4])]
    (alone,) = (fits[0].head for fits in MLPHead(width=8, epochs=2).fit_sets(problem, [problem.whole], [2]))
    for name, values in alone.arrays().items():
        np.testing.assert_array_equal(shown[0].arrays()[name], values)


def test_rows_on_the_disk_are_the_rows_in_memory_in_any_order_and_choice(both):
    free, limited = (data.rows for data in both)
    images = np.array([7, 3, 4, 149, 0] * 9)
    for n_views in (4, 2):
        expected = torch.cat([chunk.clone() for _, chunk in free.chunks(images, n_views)])
        found = [(here, chunk.clone()) for here, chunk in limited.chunks(images, n_views)]
        np.testing.assert_array_equal(np.concatenate([here for here, _ in found]), images)
        assert torch.equal(torch.cat([chunk for _, chunk in found]), expected)
        assert max(len(chunk) for _, chunk in found) <= Tight.chunk_rows
    assert free.dtype == limited.dtype
    assert not list(limited.chunks(np.arange(0)))


def test_every_row_is_learned_from_once_an_epoch_and_batches_mix_what_is_sorted_by_class(both):
    problem = both[1].problem()

    class Plain:
        def apply(self, rows, dtype):
            return rows.to(dtype)

    memory = dataclasses.replace(problem.memory)
    batches = StreamedBatches(problem.rows, np.arange(10, 150), Plain(), torch.float32, memory)
    torch.manual_seed(0)
    epochs = [[(X.clone(), images) for X, images in batches.epoch(32)] for _ in range(2)]
    expected = torch.cat([chunk.clone() for _, chunk in problem.rows.chunks(np.arange(10, 150))])
    for epoch in epochs:
        assert len(epoch) == batches.n_steps(32)
        images = torch.cat([places for _, places in epoch])
        assert torch.equal(images.bincount(), torch.full((140,), 4))
        rows = torch.cat([X for X, _ in epoch])
        assert torch.equal(rows.sort(dim=0).values, expected.sort(dim=0).values)
        assert {len(X) for X, _ in epoch} <= {28, 29, 30, 31, 32}
        labels = [set(problem.targets.labels[10 + places.numpy()].tolist()) for _, places in epoch]
        assert np.mean([len(each) for each in labels]) > 2.5
    assert not torch.equal(epochs[0][0][0], epochs[1][0][0])
    assert all(
        torch.equal(X, expected.reshape(140, 4, -1)[i].gather(1, _view(X, expected, i))[:, 0]) for X, i in epochs[0]
    )


def _view(X, expected, images):
    """Of each row, which view of its image it is, as an index for gather."""
    of_image = expected.reshape(140, 4, -1)[images]
    view = (of_image == X[:, None]).all(dim=2).int().argmax(dim=1)
    return view[:, None, None].expand(-1, 1, X.shape[1])


def test_features_of_two_caches_are_one_array_and_blocks_can_be_left_out_without_reading(tmp_path):
    X = draw_features(labels_of(60), n_views=3).astype(np.float16)
    blocks = tuple(
        dataclasses.replace(block, recipe=dataclasses.replace(block.recipe, storage="float16"))
        for block in make_blocks()
    )
    parts = []
    for name, first, stop in (("a", 0, 40), ("b", 40, 60)):
        ids = [f"{place:03d}" for place in range(first, stop)]
        write_cache(tmp_path / f"{name}.h5", ids=ids, features=X[first:stop], blocks=blocks)
        parts.append(CachedImages(FeatureCache(tmp_path / f"{name}.h5"), np.arange(stop - first), 2))
    stored = StoredFeatures(parts, blocks, Tight(work=WORK, limit=0, folder=tmp_path))
    assert (stored.n_images, stored.n_views, stored.n_columns) == (60, 2, 10)
    images = np.array([59, 0, 41, 3])
    np.testing.assert_array_equal(stored.stored(images, 2), X[images, :2])
    np.testing.assert_array_equal(stored.without("tiny").stored(images, 1), X[images, :1, 6:])
    loaded = LoadedFeatures(X.astype(np.float32), blocks).without("wee").rows(1.0, torch.device("cpu"))
    assert loaded.n_columns == 6


def test_sums_on_the_disk_add_up_to_those_in_memory(both):
    cells = np.arange(150) % 4
    free, limited = (data.problem(cells) for data in both)
    for cells_asked in ([0], [1, 3], [0, 1, 2, 3]):
        for weighted in (False, True):
            expected, found = (each.moments_of(cells_asked, weighted=weighted) for each in (free, limited))
            scales = expected.inverse_scale(), found.inverse_scale()
            torch.testing.assert_close(found.mean, expected.mean, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(scales[1], scales[0], rtol=1e-4, atol=1e-5)
            for kind in ("correlation", "correlation_within"):
                one, other = (getattr(each, kind)(scales[0]) for each in (expected, found))
                torch.testing.assert_close(other, one, rtol=0, atol=1e-4)
            again = limited.moments_of(cells_asked, weighted=weighted)
            assert torch.equal(again.products, found.products)


@pytest.mark.parametrize("many", [False, True])
def test_outputs_on_the_disk_give_the_same_probabilities(tmp_path, many):
    rng = np.random.default_rng(0)
    kept, stored = (Scores(30, 3, 4, folder) for folder in (None, tmp_path))
    for candidate, classes in ((1.0, [0, 1, 2, 3]), (2.0, [0, 2, 3])):
        for places in (np.arange(10), np.array([12, 13, 20]), np.array([10, 11, *range(14, 20), *range(21, 30)])):
            raw = rng.normal(size=(2, 3 * len(places), len(classes))).astype(np.float32)
            for scores in (kept, stored):
                scores.enter(candidate, places, np.array(classes), raw)
    for candidate in (1.0, 2.0):
        for n_views in (None, 1):
            expected, found = (
                image_probabilities(
                    join_scores([each.of(np.array([2, 5, 6, 29]), candidate), each.of(np.array([0, 12]), candidate)]),
                    0.7,
                    np.arange(4.0),
                    many=many,
                    n_views=n_views,
                )
                for each in (kept, stored)
            )
            np.testing.assert_allclose(found, expected, atol=1e-7)
    assert image_probabilities(stored.of(np.arange(0), 1.0), 1.0, many=many).shape == (0, 4)
    assert list(tmp_path.iterdir()) == [], "what is kept for a while has no name"


def test_a_full_disk_is_told_and_not_a_traceback(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "full")

    scratch = Scratch(tmp_path)
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(DiskFull, match="no space left for what has no room in memory"):
        scratch.write(np.zeros(3), 0)


def test_features_that_fit_the_limit_change_nothing_and_larger_ones_stay_on_the_disk(tmp_path):
    assert plan_memory(None, BIG, tmp_path) is None
    assert plan_memory(BIG.most, BIG, tmp_path) is None
    memory = plan_memory(parse_size("2GB"), BIG, tmp_path / "not" / "yet")
    assert memory.folder == tmp_path
    assert 1024 <= memory.chunk_rows <= 8192
    assert memory.shuffled_rows > 20_000
    assert memory.piece_images == 4


def test_what_is_planned_never_needs_more_than_the_limit(tmp_path):
    for limit in range(BIG.least, BIG.most, 50_000_000):
        memory = plan_memory(limit, BIG, tmp_path)
        rows, sets = memory.chunk_rows, memory.sets_together(15)
        work = memory.work
        for peak in (
            work.sums(rows),
            work.ridge(rows),
            work.logistic(sets, rows),
            work.mlp(memory.shuffled_rows, rows),
        ):
            assert INTERPRETER_BYTES + work.results + peak <= limit * 1.0001
        assert sets == 15 or 2 * sets >= 15 // -(-15 // sets)
    assert plan_memory(BIG.least + 1, BIG, tmp_path).sets_together(15) < plan_memory(
        4 * BIG.least, BIG, tmp_path
    ).sets_together(15)


def test_a_limit_that_is_too_small_says_what_is_needed_and_that_is_enough(tmp_path):
    with pytest.raises(
        OptionError, match=r"--memory-limit 100MB: 3,072 columns, 9 classes .* Type --memory-limit \d+MB"
    ):
        plan_memory(parse_size("100MB"), BIG, tmp_path)
    assert plan_memory(parse_size(show_size(BIG.least)), BIG, tmp_path) is not None


def test_no_room_on_the_disk_is_told_before_anything_is_fitted(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 5_000_000))
    with pytest.raises(DiskFull, match=r"5MB free; .* needs \d+MB for a while\. Make room, or put the run elsewhere"):
        plan_memory(parse_size("2GB"), BIG, tmp_path)


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [
        ("2GB", 2 * 10**9),
        ("1500mb", 1_500_000_000),
        ("0.5 GiB", 2**29),
        ("2g", 2 * 10**9),
        ("4096", 4096),
        ("1KiB", 1024),
    ],
)
def test_sizes_are_understood(text, n_bytes):
    assert parse_size(text) == n_bytes


@pytest.mark.parametrize("text", ["", "GB", "-2GB", "2XB", "2GBs", "1e9", "2,5GB"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(OptionError, match=r"not a size; expected a number and a unit, such as 2GB"):
        parse_size(text)


@pytest.fixture
def free_interpreter(monkeypatch):
    """Small projects fit any limit that the interpreter fits; without it, one can be too small for them."""
    monkeypatch.setattr(budget, "INTERPRETER_BYTES", 0)


def test_a_run_within_a_limit_says_so_and_its_linear_heads_are_those_without(tmp_path, free_interpreter):
    project = make_project(tmp_path)
    settings = FitSettings(
        features=project.train,
        labels=project.csv,
        group_column="lab",
        folds=3,
        test_features=project.test,
        out=tmp_path / "runs" / "free",
    )
    free = fit_heads(settings)
    limited = fit_heads(dataclasses.replace(settings, out=tmp_path / "runs" / "limited", memory_limit=1_500_000))
    told = [read_run(run.folder)["memory"] for run in (free, limited)]
    assert told[0] is None
    assert told[1]["limit"] == 1_500_000
    assert told[1]["streamed"] is True
    for name in ("ridge", "logistic"):
        expected, found = (load_file(run.folder / "heads" / f"{name}.safetensors") for run in (free, limited))
        np.testing.assert_allclose(found["coef_"], expected["coef_"], atol=1e-3 * np.abs(expected["coef_"]).max())
    assert free.notes == limited.notes
    for name in ("near_duplicates.csv", "images.json"):
        assert (free.folder / name).read_bytes() == (limited.folder / name).read_bytes()
    figures = [run.metrics["heads"]["mlp"]["balanced_accuracy"]["value"] for run in (free, limited)]
    assert figures[1] == pytest.approx(figures[0], abs=0.1)
    assert not list(tmp_path.rglob(".permafeat*"))
    again = fit_heads(dataclasses.replace(settings, out=tmp_path / "runs" / "again", memory_limit=1_500_000))
    assert read_run(again.folder)["files"] == read_run(limited.folder)["files"]


def test_the_command_takes_a_limit_and_refuses_one_that_is_too_small(tmp_path, run_cli, free_interpreter):
    project = make_project(tmp_path, n_images=30)
    words = ("fit-heads", "--features", project.train, "--labels", project.csv, "--heads", "ridge", "--folds", "2")
    code, _, err = run_cli(*words, "--memory-limit", "20kB", "--out", tmp_path / "r")
    assert code == 2
    assert "--memory-limit 20000B: 10 columns, 3 classes and 30 images of 3 views need " in err
    assert not (tmp_path / "r").exists()
    code, out, _ = run_cli(*words, "--memory-limit", "0.9MB", "--out", tmp_path / "r", "--json")
    assert code == 0
    assert json.loads(out)["n_images"] == 30
    assert read_run(tmp_path / "r")["memory"]["streamed"] is True


def test_further_images_and_blocks_left_out_work_within_a_limit_too(tmp_path, free_interpreter):
    project = make_project(tmp_path, n_images=30)
    labels = np.arange(12) % 3
    ids = [f"x{place:02d}" for place in range(12)]
    write_cache(tmp_path / "extra.h5", ids=ids, features=draw_features(labels, seed=5), blocks=make_blocks())
    names = np.array(["anaphase", "interphase", "prophase"])[labels]
    lines = ["id,label", *(f"{image},{name}" for image, name in zip(ids, names, strict=True))]
    (tmp_path / "extra.csv").write_text("\n".join(lines) + "\n")
    settings = FitSettings(
        features=project.train,
        labels=project.csv,
        heads=("ridge",),
        folds=2,
        extra=tmp_path / "extra.h5",
        extra_labels=tmp_path / "extra.csv",
        ablate=True,
        out=tmp_path / "free",
    )
    free = fit_heads(settings)
    limited = fit_heads(dataclasses.replace(settings, out=tmp_path / "limited", memory_limit=1_000_000))
    assert read_run(limited.folder)["memory"]["streamed"] is True
    for expected, found in zip(free.metrics["ablation"], limited.metrics["ablation"], strict=True):
        assert found["left_out"] == expected["left_out"]
        assert found["heads"]["ridge"] == pytest.approx(expected["heads"]["ridge"], abs=1e-3)


def test_a_device_that_is_not_there_is_an_error_before_anything_is_read(tmp_path):
    with pytest.raises(OptionError, match="--device 'tpu'; expected cpu or cuda or auto"):
        FitSettings(features=Path("f.h5"), labels=None, device="tpu")
    if not torch.cuda.is_available():
        project = make_project(tmp_path, n_images=30)
        settings = FitSettings(features=project.train, labels=project.csv, heads=("ridge",), folds=2, device="cuda")
        with pytest.raises(OptionError, match="--device cuda: not on this machine; it has cpu"):
            fit_heads(settings)


def test_rows_in_memory_are_given_out_in_any_order_as_well():
    rows = FeatureRows(np.arange(24, dtype=np.float32).reshape(4, 2, 3), 1.0)
    ((here, chunk),) = rows.chunks(np.array([3, 0]), 1)
    assert here.tolist() == [3, 0]
    assert chunk[:, 0].tolist() == [18, 0]
