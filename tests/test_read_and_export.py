"""Reading any choice of cells, in memory or piece by piece, and features for other tools."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from cache_data import blocks
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features_cache.errors import CacheDamaged, OptionError, OutputExists
from features_cache.export import export
from features_cache.reader import FeatureCache
from features_cache.writer import write_cache

FEATURES = np.random.default_rng(3).normal(size=(13, 4, 9)).astype(np.float16)
IDS = [f"é{index:02d}" for index in range(13)]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("cache") / "c.h5"
    status = np.zeros(13, np.uint8)
    status[4] = 2
    write_cache(path, ids=IDS, features=FEATURES, blocks=blocks(2, 3, 4), status=status)
    with FeatureCache(path) as opened:
        yield opened


GOOD = [row for row in range(13) if row != 4]


@given(
    rows=st.none() | st.lists(st.integers(0, 12), max_size=20),
    views=st.none() | st.lists(st.integers(0, 3), min_size=1, max_size=6),
    names=st.none() | st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True),
    buffer=st.sampled_from([1, 50, 1000, 1 << 22]),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_choice_of_rows_views_and_blocks_is_what_numpy_would_give(cache, monkeypatch, rows, views, names, buffer):
    monkeypatch.setattr("features_cache.raw._BUFFER_BYTES", buffer)
    columns = {"a": [0, 1], "b": [2, 3, 4], "c": [5, 6, 7, 8]}
    picked = FEATURES
    picked = picked if rows is None else picked[np.array(rows, int)]
    picked = picked if views is None else picked[:, views]
    picked = picked if names is None else picked[:, :, np.concatenate([columns[name] for name in names])]
    chosen = {
        "rows": None if rows is None else np.array(rows, int),
        "views": None if views is None else np.array(views),
        "blocks": names,
    }
    np.testing.assert_array_equal(cache.load(**chosen), picked.astype(np.float32))
    stored = cache.stored(**chosen)
    assert stored.dtype == np.float16
    np.testing.assert_array_equal(stored, picked)
    pieces = list(cache.chunks(**chosen, n_bytes=200))
    if pieces:
        np.testing.assert_array_equal(np.concatenate([piece for _, piece in pieces]), picked.astype(np.float32))
        assert all(len(piece) == 1 or piece.nbytes <= 200 for _, piece in pieces)


def test_only_what_is_wanted_is_read(cache, monkeypatch):
    import os

    whole, read = os.preadv, []

    def counting(descriptor, buffers, at):
        read.append(sum(len(buffer) for buffer in buffers))
        return whole(descriptor, buffers, at)

    monkeypatch.setattr("features_cache.raw.os.preadv", counting)
    cache.load(rows=np.array([3, 9]), views=slice(1, 2), blocks=["b"])
    assert read == [6, 6]
    read.clear()
    cache.load()
    assert read == [FEATURES.nbytes]


def test_a_file_that_is_cut_while_it_is_open_is_told(tmp_path):
    path = tmp_path / "c.h5"
    write_cache(path, ids=IDS, features=FEATURES, blocks=blocks(2, 3, 4))
    with FeatureCache(path) as opened:
        with path.open("r+b") as file:
            file.truncate(opened.seal.features_at + 100)
        with pytest.raises(CacheDamaged, match=r"ends at byte \d+, within its features"):
            opened.load()


def test_tensors_and_tables_hold_the_same_values(cache):
    import torch

    tensor = cache.to_torch(views=slice(0, 2))
    assert tensor.dtype == torch.float32
    np.testing.assert_array_equal(tensor.numpy(), FEATURES[:, :2].astype(np.float32))
    frame = cache.to_frame(blocks=["c", "a"])
    assert frame.columns.tolist() == ["c_0", "c_1", "c_2", "c_3", "a_0", "a_1"]
    assert frame.index.names == ["id", "view"]
    assert len(frame) == 12 * 4 and "é04" not in frame.index.get_level_values("id")
    np.testing.assert_array_equal(frame.loc[("é07", 2)], FEATURES[7, 2, [5, 6, 7, 8, 0, 1]].astype(np.float32))


def expected(views: slice = slice(None)) -> np.ndarray:
    return FEATURES[GOOD, views].reshape(-1, 9).astype(np.float32)


def test_npz_csv_h5ad_and_parquet_hold_the_same_values(cache, tmp_path):
    written = {to: export(cache.path, tmp_path / f"x.{to}", to) for to in ("npz", "csv", "h5ad", "parquet")}
    ids = [IDS[row] for row in GOOD for _ in range(4)]
    with np.load(written["npz"], allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["features"], expected())
        assert arrays["ids"].tolist() == ids
        assert arrays["views"].tolist() == [0, 1, 2, 3] * 12
    with written["csv"].open(newline="", encoding="utf-8") as file:
        header, *records = csv.reader(file)
    assert header[:4] == ["id", "view", "a_0", "a_1"]
    np.testing.assert_array_equal(np.array([record[2:] for record in records], np.float32), expected())
    with h5py.File(written["h5ad"]) as file:
        np.testing.assert_array_equal(file["X"][()], expected())
        assert file["obs/id"].asstr()[()].tolist() == ids
        assert file["var/block"].asstr()[()].tolist() == list("aabbbcccc")
        assert (file.attrs["encoding-type"], file["obs"].attrs["_index"]) == ("anndata", "_index")
        assert file["obs"].attrs["column-order"].tolist() == ["id", "view"]
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(written["parquet"]).to_pandas()
    np.testing.assert_array_equal(table.drop(columns=["id", "view"]).to_numpy(), expected())
    assert table["id"].tolist() == ids


def test_the_command_chooses_views_and_blocks_and_overwrites_nothing(
    cache, tmp_path: Path, run_cli: Callable[..., tuple[int, str, str]]
) -> None:
    target = tmp_path / "v.npz"
    words = ("export", cache.path, "--to", "npz", "--out", target, "--views", "0", "--blocks", "b")
    assert run_cli(*words) == (0, f"{target}: written\n", "")
    with np.load(target) as arrays:
        np.testing.assert_array_equal(arrays["features"], expected(slice(0, 1))[:, 2:5])
    code, _, err = run_cli(*words)
    assert code == OutputExists.exit_code
    assert "type --overwrite" in err
    assert run_cli(*words, "--overwrite")[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["v.npz"]
    for wrong, told in (
        (("--to", "xls"), "expected one of parquet, npz, h5ad, csv"),
        (("--views", "2"), "expected all or 0"),
    ):
        code, _, err = run_cli("export", cache.path, *wrong)
        assert code == 2
        assert told in err


def test_a_missing_library_is_told_with_what_to_install(cache, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(OptionError, match=r"--to parquet needs pyarrow, .* pip install 'permafeat\[export\]'"):
        export(cache.path, tmp_path / "x.parquet", "parquet")
    assert not list(tmp_path.iterdir())


def test_an_export_replaces_no_cache_and_hides_no_damage(cache, tmp_path, run_cli) -> None:
    import shutil

    path = tmp_path / "c.h5"
    shutil.copy(cache.path, path)
    whole = path.read_bytes()
    code, _, err = run_cli("export", path, "--to", "csv", "--out", path, "--overwrite")
    assert code == 2
    assert "is the cache itself" in err
    assert path.read_bytes() == whole
    path.write_bytes(
        whole[: cache.seal.features_at]
        + bytes([whole[cache.seal.features_at] ^ 1])
        + whole[cache.seal.features_at + 1 :]
    )
    code, _, err = run_cli("export", path, "--to", "npz")
    assert code == 2
    assert "the features of 'é00' are damaged" in err


@pytest.mark.parametrize("to", ["csv", "npz", "h5ad", "parquet"])
def test_a_place_that_cannot_be_written_to_is_told(cache, tmp_path, run_cli, to: str) -> None:
    for out in (f"/proc/x.{to}", str(tmp_path / ("x" * 300))):
        code, _, err = run_cli("export", cache.path, "--to", to, "--out", out)
        assert code == 2, err
        assert "cannot be written" in err or "may not be written to" in err


def test_rows_views_and_blocks_may_be_single(cache) -> None:
    assert cache.load(rows=3, views=0, blocks="b").shape == (1, 1, 3)
    assert cache.load(blocks=[]).shape == (13, 4, 0)
    assert cache.to_frame(rows=np.array([], int)).shape == (0, 9)
    with FeatureCache(str(cache.path)) as again:
        assert again.ids == cache.ids


@pytest.mark.parametrize("to", ["h5ad", "npz", "csv", "parquet"])
def test_a_disk_that_fills_during_an_export_stops_it_with_75(cache, tmp_path, run_cli, to: str) -> None:
    import resource
    import signal

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    target = tmp_path / f"full.{to}"
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
        code, _, err = run_cli("export", cache.path, "--to", to, "--out", target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 75, err
    assert not target.exists()
