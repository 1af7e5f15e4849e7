"""The demo's challenge: its layout, its seeding, and that shape and texture, not brightness, tell the classes."""

import csv
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torchvision.models import mobilenet_v2, resnet18

from examples.demo import draw

N_TRAIN, N_TEST = 400, 200
MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]


def table_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def bytes_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def network_input(pixels, side_px):
    resized = torch.nn.functional.interpolate(pixels, size=(side_px, side_px), mode="bilinear", antialias=True)
    return (resized - MEAN) / STD


def features_of(network, pixels, side_px):
    with torch.no_grad():
        parts = [network(network_input(part, side_px)) for part in pixels.split(32)]
    return torch.cat(parts).numpy()


def score_on_other_plates(train, test, labels):
    head = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000, class_weight="balanced"))
    return balanced_accuracy_score(labels["test"], head.fit(train, labels["train"]).predict(test))


@pytest.fixture(scope="module")
def pixels():
    sizes = {"train": N_TRAIN, "test": N_TEST}
    samples = {split: draw.samples_of(split, n_images, 0) for split, n_images in sizes.items()}
    return {
        split: torch.from_numpy(np.stack([draw.draw_sample(sample, 0) for sample in half])).float() / 255
        for split, half in samples.items()
    }


@pytest.fixture(scope="module")
def labels():
    sizes = {"train": N_TRAIN, "test": N_TEST}
    return {split: [sample.label for sample in draw.samples_of(split, n, 0)] for split, n in sizes.items()}


@pytest.fixture(scope="module")
def intensity_scores(pixels, labels):
    means = {split: half.mean((2, 3)).numpy() for split, half in pixels.items()}
    spreads = {split: np.hstack([means[split], half.std((2, 3)).numpy()]) for split, half in pixels.items()}
    return [score_on_other_plates(kind["train"], kind["test"], labels) for kind in (means, spreads)]


def test_a_challenge_has_the_layout_of_s0_and_keeps_its_solution_outside_of_the_data(tmp_path):
    draw.draw_challenge(tmp_path / "demo", n_train=30, n_test=20, seed=3)
    data = tmp_path / "demo" / "data"
    assert sorted(path.name for path in data.iterdir()) == ["sample_submission.csv", "test", "train", "train.csv"]
    train, sample = table_of(data / "train.csv"), table_of(data / "sample_submission.csv")
    solution = table_of(tmp_path / "demo" / "solution.csv")
    assert list(train[0]) == ["id", "label", "plate"]
    assert list(sample[0]) == ["id", "label"]
    assert [row["id"] for row in sample] == [row["id"] for row in solution]
    assert {row["label"] for row in sample} == {max(draw.COUNTS, key=draw.COUNTS.get)}
    for split, rows, n_images in (("train", train, 30), ("test", sample, 20)):
        wanted = {f"{row['id']}_{channel}.png" for row in rows for channel in ("nucleus", "microtubules", "er")}
        assert len(wanted) == 3 * n_images
        assert {path.name for path in (data / split).iterdir()} == wanted
    with draw.Image.open(data / "train" / f"{train[0]['id']}_er.png") as image:
        assert (image.mode, image.size, image.format) == ("L", (64, 64), "PNG")


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_ids(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        draw.draw_challenge(tmp_path / name, n_train=24, n_test=20, seed=seed)
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")
    ids = [{row["id"] for row in table_of(tmp_path / name / "data" / "train.csv")} for name in "ac"]
    assert ids[0].isdisjoint(ids[1])


def test_an_image_does_not_depend_on_the_size_of_its_challenge(tmp_path):
    draw.draw_challenge(tmp_path / "small", n_train=20, n_test=20)
    draw.draw_challenge(tmp_path / "large", n_train=45, n_test=30)
    small, large = bytes_of(tmp_path / "small"), bytes_of(tmp_path / "large")
    images = [path for path in small if path.suffix == ".png"]
    assert len(images) == 3 * (20 + 20)
    assert all(small[path] == large[path] for path in images)
    rows = {row["id"]: row for row in table_of(tmp_path / "large" / "data" / "train.csv")}
    assert all(rows[row["id"]] == row for row in table_of(tmp_path / "small" / "data" / "train.csv"))


def test_a_whole_challenge_is_left_alone_and_half_of_one_is_drawn_again(tmp_path):
    draw.draw_challenge(tmp_path, n_train=20, n_test=20)
    first = bytes_of(tmp_path)
    image = next((tmp_path / "data" / "train").iterdir())
    image.unlink()
    draw.draw_challenge(tmp_path, n_train=20, n_test=20)
    assert not image.exists()  # not a file was touched
    (tmp_path / "challenge.json").write_text("{}\n")  # as an interrupted drawing leaves it
    draw.draw_challenge(tmp_path, n_train=20, n_test=20)
    assert bytes_of(tmp_path) == first


def test_a_challenge_of_another_size_leaves_no_image_of_the_one_before(tmp_path):
    draw.draw_challenge(tmp_path / "a", n_train=40, n_test=30)
    draw.draw_challenge(tmp_path / "a", n_train=20, n_test=20)
    draw.draw_challenge(tmp_path / "b", n_train=20, n_test=20)
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")


def test_data_that_was_not_drawn_here_is_refused(tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(FileExistsError, match=r"no challenge\.json, so it was not drawn here\. Choose another folder"):
        draw.draw_challenge(tmp_path, n_train=20, n_test=20)
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize(("split", "n_images"), [("train", 19), ("train", 9633), ("test", 6870)])
def test_a_size_beyond_s0_is_refused_with_the_range(split, n_images):
    with pytest.raises(ValueError, match=rf"{n_images} {split} images, expected 20 to \d+: choose another --{split}"):
        draw.samples_of(split, n_images, 0)


@pytest.mark.parametrize("n_images", [20, 400, 9632])
def test_the_classes_are_as_imbalanced_as_those_of_s0_at_every_size(n_images):
    counts = Counter(sample.label for sample in draw.samples_of("train", n_images, 0))
    for label, full in draw.COUNTS.items():
        assert counts[label] >= 1
        assert abs(counts[label] - full * n_images / 9632) < 1.5
    if n_images == 9632:
        assert counts == draw.COUNTS
        assert (max(counts.values()), min(counts.values())) == (2100, 608)


def test_ids_are_unique_at_full_size():
    ids = [sample.id for split, n_images in draw.LIMITS.items() for sample in draw.samples_of(split, n_images, 0)]
    assert len(set(ids)) == 9632 + 6869


def test_test_images_come_from_other_plates_than_training_images():
    train, test = ({sample.plate for sample in draw.samples_of(split, 400, 0)} for split in ("train", "test"))
    assert train.isdisjoint(test)
    assert (len(train), len(test)) == (8, 4)


def test_mean_intensities_do_poorly(intensity_scores):
    means, means_and_spreads = intensity_scores
    assert means <= 0.30
    assert means_and_spreads <= 0.33


def test_features_of_a_random_network_do_much_better_than_mean_intensities(pixels, labels, intensity_scores):
    side_px = 96
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = resnet18()
    network.fc = torch.nn.Identity()
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None  # plain averages: one pass sets the statistics
    with torch.no_grad():
        network.train()(network_input(pixels["train"][:64], side_px))
    network.eval()
    features = {split: features_of(network, half, side_px) for split, half in pixels.items()}
    score = score_on_other_plates(features["train"], features["test"], labels)
    assert score >= 0.36
    assert score >= intensity_scores[0] + 0.15


def test_features_of_a_pretrained_network_do_well_and_leave_something_to_win(pixels, labels):
    weights = Path(os.environ.get("PERMAFEAT_DATA", "")).parent / "weights" / "mobilenet_v2.pth"
    if not os.environ.get("PERMAFEAT_DATA") or not weights.is_file():
        pytest.skip("no weights/mobilenet_v2.pth beside the folder that PERMAFEAT_DATA names")
    network = mobilenet_v2()
    network.load_state_dict(torch.load(weights, weights_only=True))
    network.classifier = torch.nn.Identity()
    network.eval()
    features = {split: features_of(network, half, 64) for split, half in pixels.items()}
    assert 0.75 <= score_on_other_plates(features["train"], features["test"], labels) <= 0.93
