"""Products, factors and memory: the fast routines against plain float64."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from heads import dense
from heads.estimators import ridge
from heads.estimators.catalogue import make_head

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=["as this machine does", "by BLAS"])
def _library(request, monkeypatch):
    if request.param == "by BLAS":
        monkeypatch.setattr(dense, "_onednn_is_exact", lambda: False)


@pytest.mark.usefixtures("_library")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n_right", [1, 9, 135])
def test_a_product_has_the_precision_of_its_type_however_matrices_lie(dtype, n_right):
    draw = torch.Generator().manual_seed(0)
    left = torch.randn(300, 700, generator=draw).to(dtype)
    right = torch.randn(n_right, 700, generator=draw).to(dtype).T
    slope = torch.randn(n_right, 300, generator=draw).to(dtype)
    for a, b in ((left, right), (right.T, left.T), (slope, left), (left.T, slope.T)):
        exact = a.double().numpy() @ b.double().numpy()
        off = np.abs(dense.product(a, b).numpy() - exact).max() / np.abs(exact).max()
        assert off < 10 * torch.finfo(dtype).eps


@pytest.mark.usefixtures("_library")
def test_layers_of_networks_keep_float32s_precision_and_the_setting_comes_back():
    before = torch.backends.mkldnn.matmul.fp32_precision
    layer, rows = torch.nn.Linear(700, 50), torch.randn(300, 700, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        with dense.fast_layers(rows.device):
            said = layer(rows)
        exact = layer.double()(rows.double())
    assert float((said - exact).abs().max()) < 1e-5
    with pytest.raises(ZeroDivisionError, match="by zero"), dense.fast_layers(rows.device):
        _ = 1 / 0
    assert torch.backends.mkldnn.matmul.fp32_precision == before


def test_shifts_that_share_their_refinement_are_each_solved_as_in_float64_and_one_that_fails_takes_none_with_it():
    draw = np.random.default_rng(0)
    rows = draw.normal(size=(60, 80))  # so that the least shift is lost in float32's rounding
    gram, moment = rows.T @ rows, rows.T @ draw.normal(size=(60, 3))
    shifts = (100.0, 1.0, 1e-2, 1e-9)
    solved = ridge.solve_shifted(torch.from_numpy(gram), torch.from_numpy(moment), shifts, torch.float32)
    assert torch.linalg.cholesky_ex(torch.from_numpy(gram).float() + 1e-9 * torch.eye(80)).info > 0
    for shift, solution in zip(shifts, solved, strict=True):
        residual = moment - (gram + shift * np.eye(80)) @ solution.numpy()
        assert np.abs(residual).max() < 1e-5
        if shift > 1e-3:
            np.testing.assert_allclose(solution.numpy(), np.linalg.solve(gram + shift * np.eye(80), moment), rtol=1e-5)


TOUCHED_AGAIN = """
import resource, sys, numpy as np
from features_cache.allocator import keep_freed_memory
if sys.argv[1] == "kept" and not keep_freed_memory():
    sys.exit(3)
def touch():
    np.full(5_000_000, 1.0)  # 40 MB
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_memory_that_is_kept_is_not_asked_of_the_system_again():
    faults = {}
    for name in ("kept", "returned"):
        done = subprocess.run(
            [sys.executable, "-c", TOUCHED_AGAIN, name], capture_output=True, text=True, check=False, timeout=60
        )
        if done.returncode == 3:
            pytest.skip("this C library has no mallopt")
        assert done.returncode == 0, done.stderr
        faults[name] = int(done.stdout)
    assert faults["kept"] * 4 < faults["returned"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_inverse_factor_of_a_matrix_that_rounding_left_indefinite_is_that_of_one_a_hair_larger(dtype):
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(30, 80, generator=draw, dtype=torch.float64)
    matrix = rows.T @ rows - 1e-5 * torch.eye(80, dtype=torch.float64)
    assert torch.linalg.eigvalsh(matrix)[0] < 0
    inverse = dense.inverse_factor(matrix, dtype).double()
    factor = torch.linalg.solve_triangular(inverse, torch.eye(80, dtype=torch.float64), upper=False)
    assert float((factor @ factor.T - matrix).abs().max()) < 1e-3 * float(matrix.diagonal().mean())
    with pytest.raises(ValueError, match="not positive definite"):
        dense.inverse_factor(-matrix, dtype)


def test_the_logistic_head_fits_with_hardly_any_penalty_where_columns_outnumber_rows():
    draw = np.random.default_rng(0)
    X = draw.normal(size=(40, 200)).astype(np.float32) ** 2
    y = np.arange(40) % 4
    head = make_head("logistic", C=1e4, shrinkage=0.001).fit(X, y)
    assert (head.predict(X) == y).all()
