"""The mathematics behind `accelerate`: what a caller's own library would have computed, as accurately, or `Left`.

Accuracy is held to what the original's arithmetic gives. `wide` callers compute float32 arguments in float64 (NumPy),
so that each value they return is right to its own rounding; the others compute in the dtype of the argument (SciPy,
torch), whose LAPACK bounds errors by a multiple of eps s₁.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import _eigen, _svd
from ._accelerate_scope import Left, Options

__all__ = ["complement", "eigen", "krylov_steps", "low_rank", "svd_thin", "values"]

#: eps of float32 and float64
EPS = {"float32": 2.0**-23, "float64": 2.0**-52}
#: Singular vectors of the float64 Gram matrix below this part of s₁ are orthogonal to less than float32's rounding.
LEAST_OF_GRAM = 1e-4
#: Columns of a block that half as many steps of block Krylov need for an error no larger than that of subspace
#: iteration; with fewer the space is too small to make up for them (1/i, one column: 10 % off where 4 iterations are
#: right to 1e-6). From the second number on an odd half may be rounded down.
LEAST_BLOCK, WIDE_BLOCK = 11, 20


def values(options: Options, A: Any, dtype: str, *, wide: bool, exact_float64: bool) -> Any:
    """All singular values of A (…, m, n), float64, descending; NumPy or torch, as A."""
    if dtype == "float64" and options.tol is None:
        if not exact_float64:
            raise Left("float64: the same LAPACK")
        return _svd.singular_values(A, method="exact")
    s, info = _svd.singular_values(A, return_info=True, method="gram")
    # A zero that came out as noise within tol would still be one too many for a rank.
    if options.tol is not None and not info.unresolved.any() and _worst(s, info) <= options.tol:
        return s
    if dtype == "float64":
        if not exact_float64:
            raise Left("small singular values")
        return _svd.singular_values(A, method="exact")
    if wide:
        enough = _each_to_rounding(s, info)
    else:
        # The caller's LAPACK leaves noise of max(m, n) eps s₁, which is also the cut that matrix_rank makes.
        enough = _worst(s, info) <= max(A.shape[-2:]) * EPS["float32"]
    if not enough:
        raise Left("small singular values")
    return s


def svd_thin(options: Options, A: Any, dtype: str, *, wide: bool, exact_float64: bool) -> tuple[Any, Any, Any]:
    """U, s, Vt of A (…, m, n) with min(m, n) triplets; s in float64."""
    if dtype == "float64":
        if not exact_float64:
            raise Left("float64: the same LAPACK")
        return _triplets(_svd.svd(A, method="exact"))
    if not wide:
        return _triplets(_svd.svd(A))
    found = _svd.svd(A, method="gram")
    s = _host(found.s)
    # Vectors rounded to float32 leave a residual of about eps; s is the root of a float64 sum of squares.
    resolved = np.all(s[..., -1] >= LEAST_OF_GRAM * s[..., 0]) and np.all(s[..., 0] > 0)
    if not resolved or np.max(found.residual) > 4 * EPS["float32"]:
        raise Left("small singular values")
    return _triplets(found)


def eigen(A: Any, *, lower: bool, vectors: bool) -> tuple[Any, Any]:
    """Eigenvalues (float64, ascending) and eigenvectors of each symmetric matrix of A (…, n, n), of which it reads one
    triangle; NumPy or torch, as A."""
    if A.ndim == 2:
        return _eigen.eigh(A, lower=lower, vectors=vectors)
    n = A.shape[-1]
    found = [_eigen.eigh(one, lower=lower, vectors=vectors) for one in A.reshape(-1, n, n)]
    stack = np.stack if isinstance(A, np.ndarray) else _torch_stack
    w = stack([one[0] for one in found]).reshape(*A.shape[:-1])
    return w, stack([one[1] for one in found]).reshape(*A.shape) if vectors else None


def krylov_steps(iterations: int, columns: int) -> int:
    """Steps of block Krylov in place of subspace iterations of as many columns, for an error that is no larger (ten
    spectra: Gaussian, powers i^-0.1 to i^-2, 0.9^i, steps, spikes on a bulk), and `Left` where there are none."""
    if columns < LEAST_BLOCK:
        raise Left("few columns")
    return max(2, iterations // 2 if columns >= WIDE_BLOCK else -(-iterations // 2))


def low_rank(A: Any, rank: int, steps: int, oversampling: int, seed: int) -> tuple[Any, Any, Any]:
    """U, s, Vt of rank `rank` from the products that `steps` subspace iterations take, used for a Krylov space; the
    largest entry of each column of U is positive."""
    return _svd.randomized_svd(A, rank, n_oversamples=oversampling, n_iter=steps, random_state=seed)


def complement(basis: Any, qr: Any) -> Any:
    """The columns that complete the orthonormal columns of basis (…, N, k), N > k, to a square orthogonal matrix."""
    return qr(basis)[..., :, basis.shape[-1] :]


def _triplets(found: _svd.SVDResult) -> tuple[Any, Any, Any]:
    return found.U, found.s, found.Vt


def _host(x: Any) -> Any:
    return np.asarray(x, dtype=np.float64)


def _worst(s: Any, info: _svd.SingularValuesInfo) -> float:
    """The largest error of a value over s₁ that the bound |s² - exact²| ≤ bound s₁² leaves."""
    values = _host(s)
    first, last = values[..., 0], values[..., -1]
    with np.errstate(divide="ignore", invalid="ignore"):
        far = np.where(last > 0, info.bound * first / (2 * last), np.inf)
    return float(np.max(np.where(first > 0, np.minimum(np.sqrt(info.bound), far), 0.0)))


def _each_to_rounding(s: Any, info: _svd.SingularValuesInfo) -> bool:
    """Whether each value is right to the rounding of float32 relative to itself."""
    values = _host(s)
    first, last = values[..., 0], values[..., -1]
    return bool(np.all((first == 0) | (info.bound * first**2 <= 2 * EPS["float32"] * last**2)))


def _torch_stack(parts: list[Any]) -> Any:
    import torch

    return torch.stack(parts)
