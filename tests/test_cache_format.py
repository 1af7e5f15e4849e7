"""The published file: what it holds, who else can read it, what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from cache_data import blocks, recipe
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from features_cache.errors import (
    CacheDamaged,
    CacheIncomplete,
    CacheMissing,
    ForeignCache,
    OptionError,
    OutputExists,
    RecipeMismatch,
)
from features_cache.inspect import describe
from features_cache.reader import FeatureCache
from features_cache.recipe import Block, Recipe
from features_cache.seal import CACHE_MAGIC, check_bytes
from features_cache.settle import require_same_recipes
from features_cache.status import Status
from features_cache.writer import write_cache

GOLDEN = Path(__file__).parent / "golden"


def values(n_images: int = 10, n_views: int = 2, n_columns: int = 8) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n_images, n_views, n_columns)).astype(np.float16)


def write(path: Path, features: np.ndarray | None = None, **options: object) -> np.ndarray:
    features = values() if features is None else features
    ids = [f"image-{index:02d}é" for index in range(len(features))]
    write_cache(path, ids=ids, features=features, blocks=blocks(3, features.shape[2] - 3), **options)  # type: ignore[arg-type]
    return features


@given(
    features=arrays.arrays(
        np.float16,
        arrays.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=9).map(
            lambda shape: (*shape[:2], shape[2] + 3)
        ),
        elements=st.floats(-1000, 1000, width=16),
    )
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read_back(tmp_path: Path, features: np.ndarray) -> None:
    path = tmp_path / "any.h5"
    write(path, features, replace=True)
    with FeatureCache(path) as cache:
        np.testing.assert_array_equal(cache.load(), features.astype(np.float32))
        assert cache.blocks == blocks(3, features.shape[2] - 3)


def test_rows_views_and_blocks_are_selected_in_the_order_asked_for(tmp_path: Path) -> None:
    features = write(tmp_path / "c.h5")
    with FeatureCache(tmp_path / "c.h5") as cache:
        picked = cache.load(rows=np.array([7, 2, 2]), views=slice(1, 2), blocks=["b", "a"])
    np.testing.assert_array_equal(picked, features[[7, 2, 2], 1:2][:, :, [3, 4, 5, 6, 7, 0, 1, 2]].astype(np.float32))


def test_a_large_cache_is_read_in_slabs_without_a_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("features_cache.raw._BUFFER_BYTES", 100)
    features = write(tmp_path / "c.h5")
    with FeatureCache(tmp_path / "c.h5") as cache:
        np.testing.assert_array_equal(cache.load(), features.astype(np.float32))


def test_plain_h5py_reads_the_file_without_code_of_ours(tmp_path: Path) -> None:
    features = write(tmp_path / "c.h5", status=np.array([0] * 9 + [2], np.uint8))
    with h5py.File(tmp_path / "c.h5") as file:
        np.testing.assert_array_equal(file["features"][()], features)
        assert file["ids"].asstr()[0] == "image-00é"
        assert file["status"][9] == Status.TRUNCATED
        assert [block["name"] for block in json.loads(file["blocks"][()].tobytes())] == ["a", "b"]
        assert file["features"].compression is None and file["features"].chunks is None


def test_the_same_work_gives_the_same_bytes(tmp_path: Path) -> None:
    write(tmp_path / "one.h5")
    write(tmp_path / "two.h5")
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "two.h5").read_bytes()


@pytest.mark.parametrize("version", [1, 2])
def test_a_file_of_each_released_format_is_read_for_ever(tmp_path: Path, version: int) -> None:
    shutil.copy(GOLDEN / f"format-{version}.cache", tmp_path / "golden.h5")
    with FeatureCache(tmp_path / "golden.h5") as cache:
        assert cache.ids == ("cell-1", "cell-2", "zelle-ä")
        np.testing.assert_array_equal(cache.load().ravel(), np.arange(24, dtype=np.float32) / 8)
        np.testing.assert_array_equal(cache.good, [True, True, False])
        assert [block.digest for block in cache.blocks] == [block.digest for block in blocks(1, 3)]
        assert cache.seal.version == version
        assert (cache.checksum is None) == (version == 1)
    check_bytes(tmp_path / "golden.h5", CACHE_MAGIC)


@pytest.mark.parametrize("change", [lambda raw: raw[:-1], lambda raw: raw + b"x"])
def test_a_file_cut_or_added_to_is_told_at_once(tmp_path: Path, change) -> None:
    path = tmp_path / "c.h5"
    write(path)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(CacheDamaged, match=r"bytes long; \d+ were written"):
        FeatureCache(path)


def test_another_file_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["features"] = np.zeros((2, 2, 2))
    with pytest.raises(ForeignCache, match="not a permafeat file"):
        FeatureCache(tmp_path / "other.h5")
    assert ForeignCache.exit_code == 3


def test_a_missing_and_an_unfinished_cache_say_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(CacheMissing, match="run `cli featurize` first"):
        FeatureCache(tmp_path / "c.h5")
    (tmp_path / "c.parts").mkdir()
    with pytest.raises(CacheIncomplete, match="run `cli featurize` again to resume"):
        FeatureCache(tmp_path / "c.h5")


def test_nothing_is_overwritten_unless_told(tmp_path: Path) -> None:
    path = tmp_path / "c.h5"
    path.write_text("mine")
    with pytest.raises(OutputExists, match="--overwrite"):
        write(path)
    assert path.read_text() == "mine"
    assert [file.name for file in tmp_path.iterdir()] == ["c.h5"]
    write(path, replace=True)
    FeatureCache(path).close()


def test_an_unknown_block_is_told_with_the_nearest(tmp_path: Path) -> None:
    write(tmp_path / "c.h5")
    with FeatureCache(tmp_path / "c.h5") as cache, pytest.raises(OptionError, match=r"no block 'A'; it holds a, b"):
        cache.load(blocks=["A"])


def test_shapes_ids_and_blocks_must_fit_together(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="different ids"):
        write_cache(tmp_path / "c.h5", ids=["x", "x"], features=values(2), blocks=blocks(3, 5))
    with pytest.raises(OptionError, match="8 columns"):
        write_cache(tmp_path / "c.h5", ids=["x", "y"], features=values(2), blocks=blocks(3, 6))


def test_a_recipe_survives_json_and_knows_its_digest() -> None:
    one = recipe(channels=("nucleus", "er", "microtubules"))
    assert Recipe.from_json(json.loads(json.dumps(one.to_json()))) == one
    assert one.digest != recipe(seed=1).digest
    assert one.digest == recipe(channels=("nucleus", "er", "microtubules")).digest


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [("weights_sha256", "abc", "64 lower-case"), ("size_px", 2, "8 to 4096"), ("precision", "int8", "int8"), ("std", (0, 1, 1), "above 0"),
     ("seed", -1, "0 or more")],
)  # fmt: skip
def test_a_recipe_refuses_nonsense_at_birth(field: str, value: object, complaint: str) -> None:
    with pytest.raises(OptionError, match=complaint):
        recipe(**{field: value})


def test_an_edited_block_is_damage() -> None:
    fields = blocks(3)[0].to_json()
    fields["recipe"]["seed"] = 7
    with pytest.raises(CacheDamaged, match="claims the digest"):
        Block.from_json(fields)


def test_another_recipe_is_told_field_by_field() -> None:
    with pytest.raises(RecipeMismatch, match=r"seed: 1 asked for, 0 found") as caught:
        require_same_recipes(blocks(3), blocks(3, seed=1, precision="bfloat16"), "features/train.h5")
    assert "precision: bfloat16 asked for, float32 found" in str(caught.value)
    with pytest.raises(RecipeMismatch, match=r"block 'b' is asked for; found only a"):
        require_same_recipes(blocks(3), blocks(3, 4), "features/train.h5")


def test_random_weights_are_announced_by_inspect(tmp_path: Path) -> None:
    write_cache(tmp_path / "c.h5", ids=["x"], features=values(1, 1, 3), blocks=blocks(3, pretrained=False))
    description = describe(tmp_path / "c.h5")
    assert description["random_weights"] is True
    assert description["statuses"] == {"good": 1}


def test_a_damaged_file_of_the_first_format_is_not_used(tmp_path: Path) -> None:
    raw = bytearray((GOLDEN / "format-1.cache").read_bytes())
    shutil.copy(GOLDEN / "format-1.cache", tmp_path / "sound.h5")
    with FeatureCache(tmp_path / "sound.h5") as cache:
        value = cache.stored(np.arange(1)).ravel()[:4].tobytes()
        cache.require_sound(np.arange(3))
    raw[raw.index(value)] ^= 1
    (tmp_path / "damaged.h5").write_bytes(raw)
    with FeatureCache(tmp_path / "damaged.h5") as cache, pytest.raises(CacheDamaged):
        cache.require_sound(np.arange(1))


@pytest.mark.parametrize("width", [1, 7, 20, 40, 300, 4000])
@pytest.mark.parametrize("columns", [1, 16, 700])
def test_any_number_of_images_with_ids_of_any_length_is_read_back(tmp_path: Path, width: int, columns: int) -> None:
    """libhdf5 puts small arrays wherever there is room: none may land where another one's bytes go."""
    rng = np.random.default_rng(width)
    for n_images in (1, 2, 3, 5, 13, 26, 33, 46, 47, 64, 128, 129, 300):
        ids = [f"{number:x}".rjust(width, "i")[-max(width, 3) :] for number in range(n_images)]
        features = rng.normal(size=(n_images, 1, columns)).astype(np.float16)
        write_cache(tmp_path / "x.h5", ids=ids, features=features, blocks=blocks(columns), replace=True)
        with FeatureCache(tmp_path / "x.h5") as cache:
            assert cache.ids == tuple(ids)
            np.testing.assert_array_equal(cache.stored(np.arange(n_images)), features)
            cache.check_bytes()
            cache.require_sound(np.arange(n_images))
        with h5py.File(tmp_path / "x.h5") as file:
            np.testing.assert_array_equal(file["features"], features)
            assert [name.decode() for name in file["ids"][()]] == ids


@pytest.mark.parametrize("bad", ["a\0", "\udc80", "x" * 4097])
def test_an_id_that_would_not_come_back_is_refused(tmp_path: Path, bad: str) -> None:
    with pytest.raises(OptionError, match=r"the id .* is no text|the longest id has 4097 bytes"):
        write_cache(tmp_path / "x.h5", ids=["b", bad], features=np.zeros((2, 1, 3), np.float16), blocks=blocks(3))
    assert not list(tmp_path.iterdir())
