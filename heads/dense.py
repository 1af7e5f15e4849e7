"""Products and factors of matrices of thousands of columns, by whichever routine is fastest on the device.

On a processor these are BLAS's and LAPACK's own for symmetric and triangular matrices, which do half the work of the general
ones; bench/heads.py and docs/PERFORMANCE.md have the figures.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator

import numpy as np
import torch
from scipy.linalg import get_lapack_funcs

from features_cache.hardware import cpu_has_avx512

_FLOAT32_ROUNDING = 1e-5
_LIFTS = (0.0, 1e-6, 1e-5, 1e-4, 1e-3)
_SWITCH = threading.RLock()


def product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return ``left @ right`` of two matrices of one type; a narrow right one is where libraries differ most."""
    if left.device.type != "cpu":
        return left @ right
    if left.dtype == torch.float32 and _onednn_is_exact():
        with _by_onednn():
            return left @ right
    return torch.from_numpy(left.numpy() @ right.numpy())


@contextlib.contextmanager
def fast_layers(device: torch.device) -> Iterator[None]:
    """Have float32 layers of networks computed as :func:`product` would."""
    with _by_onednn() if device.type == "cpu" and _onednn_is_exact() else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def _by_onednn() -> Iterator[None]:
    """Have torch leave products to oneDNN, which it asks for float32 only where it would be allowed to round.

    They are twice as fast as those of BLAS libraries on some processors. The switch is the process's: other threads wait.
    """
    matmul = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    with _SWITCH:
        before, matmul.fp32_precision = matmul.fp32_precision, "bf16"
        try:
            yield
        finally:
            matmul.fp32_precision = before


@functools.cache
def _onednn_is_exact() -> bool:
    """Whether oneDNN is there, written for this processor, and does not round although it may: with AMX it would."""
    onednn = torch.backends.mkldnn
    is_there = bool(onednn.is_available()) and hasattr(onednn, "matmul")  # type: ignore[no-untyped-call]
    if not (is_there and cpu_has_avx512()):
        return False
    some = torch.linspace(-1, 1, 512 * 256).reshape(512, 256).sin_()
    exact = some.double() @ some.T.double()
    with _by_onednn():
        off = (some @ some.T - exact).abs().max()
    return float(off / exact.abs().max()) < _FLOAT32_ROUNDING


def gram(X: torch.Tensor) -> torch.Tensor:
    """Return ``X' X``, shape (n_columns, n_columns)."""
    if X.device.type != "cpu":
        return X.T @ X
    rows = X.numpy()
    # numpy sees that both factors are one array, and computes a half.
    return torch.from_numpy(rows.T @ rows)


def cholesky(matrix: torch.Tensor, shift: float = 0.0, *, clean: bool = False) -> torch.Tensor | None:
    """Return lower triangular L with ``L L' = matrix + shift I``; None where that is not positive definite.

    Parameters
    ----------
    matrix : float tensor, shape (n, n)
        Symmetric. Left as it is.
    shift : float
    clean : bool
        Whether zeros stand above the diagonal; otherwise what is there means nothing.
    """
    shifted = matrix.clone()
    shifted.diagonal().add_(shift)
    if matrix.device.type != "cpu":
        factor, failed = torch.linalg.cholesky_ex(shifted)
        return None if int(failed) else factor
    (potrf,) = get_lapack_funcs(("potrf",), (shifted.numpy(),))
    # The transpose of a symmetric matrix in C order is itself in Fortran order, which LAPACK overwrites without a copy.
    lower, failed = potrf(shifted.numpy().T, lower=1, overwrite_a=1, clean=int(clean))
    return None if failed else torch.from_numpy(lower)


def inverse_factor(matrix: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return ``inv(L)``, lower triangular, of ``L L' = matrix``.

    Where rounding has left a matrix that is not positive definite, as sums over float32 rows may, its diagonal is raised by as
    little as helps, a millionth to a thousandth of its mean.

    Parameters
    ----------
    matrix : float64 tensor, shape (n, n)
    dtype : torch.dtype
        Of the result, and of the work where its rounding leaves the matrix positive definite.

    Raises
    ------
    ValueError
        If that does not help.
    """
    factor = cholesky(matrix.to(dtype), clean=True)
    mean = float(matrix.diagonal().mean())
    for lift in _LIFTS:
        if factor is None:
            factor = cholesky(matrix, lift * mean, clean=True)
    if factor is None:
        msg = f"a matrix of {len(matrix)} columns is not positive definite"
        raise ValueError(msg)
    if factor.device.type != "cpu":
        unit = torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
        inverse: torch.Tensor = torch.linalg.solve_triangular(factor, unit, upper=False)
        return inverse.to(dtype)
    (trtri,) = get_lapack_funcs(("trtri",), (factor.numpy(),))
    found, _ = trtri(factor.numpy(), lower=1, overwrite_c=1)
    return torch.from_numpy(np.ascontiguousarray(found)).to(dtype)


def solve_factored(factor: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Solve ``L L' x = right``, shape (n, n_targets)."""
    half = torch.linalg.solve_triangular(factor, right, upper=False)
    solution: torch.Tensor = torch.linalg.solve_triangular(factor.T, half, upper=True)
    return solution
