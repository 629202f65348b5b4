"""NumPy's and SciPy's dense functions that `accelerate` stands in for."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import _accelerate_kernels as kernels
from ._accelerate_limits import check_worth
from ._accelerate_scope import Left, Options


def svd(
    options: Options, a: Any, full_matrices: bool = True, compute_uv: bool = True, hermitian: bool = False
) -> Any:
    """numpy.linalg.svd, which svdvals, cond, matrix_rank, pinv and norm call in their turn."""
    if hermitian:
        raise Left("hermitian=True")
    dtype = check(options, a, "numpy vectors" if compute_uv else "numpy values")
    if not compute_uv:
        return kernels.values(options, a, dtype, wide=True, exact_float64=False).astype(a.dtype)
    _check_thin(a, full_matrices)
    U, s, Vh = kernels.svd_thin(options, a, dtype, wide=True, exact_float64=False)
    from numpy.linalg._linalg import SVDResult

    return SVDResult(np.ascontiguousarray(U), s.astype(a.dtype), np.ascontiguousarray(Vh))


def eigh(options: Options, a: Any, UPLO: str = "L") -> Any:
    check(options, a, "numpy eigh", square=True)
    w, V = kernels.eigen(_in_float64(a), lower=_lower(UPLO), vectors=True)
    from numpy.linalg._linalg import EighResult

    return EighResult(w.astype(a.dtype), V.astype(a.dtype))


def eigvalsh(options: Options, a: Any, UPLO: str = "L") -> Any:
    check(options, a, "numpy eigvalsh", square=True)
    return kernels.eigen(_in_float64(a), lower=_lower(UPLO), vectors=False)[0].astype(a.dtype)


def scipy_svd(
    options: Options,
    a: Any,
    full_matrices: bool = True,
    compute_uv: bool = True,
    overwrite_a: bool = False,
    check_finite: bool = True,
    lapack_driver: str = "gesdd",
) -> Any:
    """scipy.linalg.svd, which svdvals calls in its turn. Not finite is an error either way: brockett always looks."""
    if lapack_driver != "gesdd":
        raise Left("lapack_driver")
    dtype = check(options, a, "scipy vectors" if compute_uv else "scipy values", batch=False)
    if not compute_uv:
        return kernels.values(options, a, dtype, wide=False, exact_float64=False).astype(a.dtype)
    _check_thin(a, full_matrices)
    U, s, Vh = kernels.svd_thin(options, a, dtype, wide=False, exact_float64=False)
    return U, s.astype(a.dtype), Vh


def scipy_eigh(
    options: Options,
    a: Any,
    b: Any = None,
    *,
    lower: bool = True,
    eigvals_only: bool = False,
    overwrite_a: bool = False,
    overwrite_b: bool = False,
    type: int = 1,
    check_finite: bool = True,
    subset_by_index: Any = None,
    subset_by_value: Any = None,
    driver: str | None = None,
) -> Any:
    """scipy.linalg.eigh, which eigvalsh calls in its turn."""
    if b is not None:
        raise Left("b=")
    if subset_by_index is not None or subset_by_value is not None:
        raise Left("subset")
    if driver is not None:
        raise Left("driver=")
    check(options, a, "scipy eigvalsh" if eigvals_only else "scipy eigh", square=True, batch=False)
    if check_finite and not np.isfinite(a).all():  # of the other triangle, too
        raise Left("NonFinite")
    w, V = kernels.eigen(a, lower=bool(lower), vectors=not eigvals_only)
    values = w.astype(a.dtype)
    return values if eigvals_only else (values, V)


def check(options: Options, a: Any, function: str, *, square: bool = False, batch: bool = True) -> str:
    """The dtype of an array that can be taken. Subclasses, lists and other dtypes have rules of their own."""
    if type(a) is not np.ndarray:
        raise Left("type")
    if a.dtype.kind != "f" or a.dtype.itemsize not in (4, 8) or not a.dtype.isnative:
        raise Left(f"dtype {a.dtype}")
    if a.ndim < 2 or a.size == 0 or (square and a.shape[-1] != a.shape[-2]):
        raise Left("shape")
    if a.ndim > 2 and not batch:
        raise Left("batch")
    dtype = "float32" if a.dtype.itemsize == 4 else "float64"
    check_worth(options, f"{function} {dtype}", a.shape)
    return dtype


def _check_thin(a: Any, full_matrices: bool) -> None:
    if full_matrices and a.shape[-1] != a.shape[-2]:
        raise Left("full_matrices")


def _in_float64(a: Any) -> Any:
    return a.astype(np.float64, copy=False)


def _lower(word: Any) -> bool:
    if word not in ("L", "U"):
        raise Left("UPLO")
    return bool(word == "L")
