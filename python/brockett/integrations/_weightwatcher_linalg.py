"""The decompositions that WeightWatcher calls, with its contracts, on brockett's."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import _svd

__all__ = [
    "AsIs",
    "VectorTable",
    "as_is",
    "leading",
    "plain",
    "singular_values",
    "smoothed",
    "svd_full",
    "symmetric_eigen",
    "takes",
]

#: Bound of the relative error of any singular value; what is found is a hundredth of it. Tables are to agree to 1e-6.
ACCURACY = 2.5e-7
#: Share of the values that may lie below what a Gram matrix resolves, for these to be worth an inverse of their own.
FEW = 1 / 16


def takes(W: Any, dtypes: tuple[type, ...] = (np.float32, np.float64)) -> bool:
    """A real matrix of a precision that LAPACK has; everything else is left to the original."""
    return isinstance(W, np.ndarray) and W.ndim == 2 and W.dtype.type in dtypes and min(W.shape) > 0


class AsIs(np.ndarray):
    """A view of weights whose `astype(float)` and product with 1 are the view.

    WeightWatcher scales each matrix, by 1 unless it is a convolution's, and widens it to float64 before it decomposes
    it. The sums of a Gram matrix are taken in float64 from float32 as they come, so that the copies (1.2 GB for VGG16's
    largest layer) would change nothing.
    """

    def astype(self, dtype: Any, *args: Any, **kwargs: Any) -> Any:
        """Itself, where float64 is asked for; else what NumPy gives."""
        if np.dtype(dtype) == np.float64 and takes(self):
            return self
        return super().astype(dtype, *args, **kwargs)

    def __mul__(self, factor: Any) -> Any:
        return self if type(factor) in (int, float) and factor == 1 else super().__mul__(factor)


def as_is(matrices: Any) -> list[Any]:
    """Views of the arrays of a list (or of one array)."""
    found = matrices if isinstance(matrices, list) else [matrices]
    return [W.view(AsIs) if isinstance(W, np.ndarray) else W for W in found]


def plain(matrices: list[Any]) -> list[Any]:
    """NumPy's arrays again."""
    return [W.view(np.ndarray) if isinstance(W, AsIs) else W for W in matrices]


# --- values -----------------------------------------------------------------------------------------------------------


def singular_values(W: np.ndarray) -> np.ndarray:
    """All singular values, descending, each to 2.5e-7 of itself (those at rounding level to s₁ ε, as LAPACK's).

    From the Gram matrix, whose values below about 2e-4 s₁ are not as good. Where those are few (a square matrix has
    always some) they are the largest of the inverse, found by the block Krylov method on an LU decomposition; where
    they are many, or the matrix is not square, all values come from LAPACK's SVD instead.
    """
    matrix = np.asarray(W)
    s, info = _svd.singular_values(matrix, return_info=True, method="gram")
    # |s² - exact²| ≤ bound s₁² makes the relative error of s at most bound/2 (s₁/s)²
    poor = int(np.count_nonzero(s < s[0] * np.sqrt(info.bound / (2 * ACCURACY))))
    if poor == 0:
        return np.asarray(s)
    if matrix.shape[0] == matrix.shape[1] and poor <= max(2, FEW * len(s)):
        small = smallest_values(matrix, poor, float(s[0]))
        if small is not None:
            s = np.concatenate([s[:-poor], small])
            return np.sort(s)[::-1]
    return np.asarray(_svd.singular_values(matrix.astype(np.float64), method="exact"))


def smallest_values(matrix: np.ndarray, count: int, largest: float) -> np.ndarray | None:
    """The smallest singular values of a square matrix, descending; None where it is singular to rounding."""
    from scipy.linalg import lapack
    from scipy.sparse.linalg import LinearOperator

    n = len(matrix)
    # its transpose has the same values, and the order that LAPACK wants
    factors, pivots, _ = lapack.dgetrf(matrix.T.astype(np.float64, order="F"), overwrite_a=True)
    if np.min(np.abs(np.diagonal(factors))) < n * np.finfo(float).eps * largest:
        return None

    def solve(transposed: int) -> Callable[[np.ndarray], np.ndarray]:
        return lambda X: np.asarray(lapack.dgetrs(factors, pivots, X, trans=transposed)[0])

    inverse = LinearOperator((n, n), matmat=solve(0), rmatmat=solve(1), matvec=solve(0), rmatvec=solve(1), dtype=float)
    found = _svd.svd(inverse, rank=count, method="krylov", tol=1e-9)
    return 1 / np.asarray(found.s)[::-1]


def leading(W: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """U, s, Vh of the k largest triplets, s ascending: the order that scipy's svds has."""
    U, s, Vt = _svd.svd(np.asarray(W), rank=min(int(k), min(W.shape)))
    return (
        np.ascontiguousarray(U[:, ::-1]),
        np.ascontiguousarray(s[::-1]).astype(U.dtype, copy=False),
        np.ascontiguousarray(Vt[::-1]),
    )


def smoothed(W: np.ndarray, k: int) -> np.ndarray:
    """The best approximation of rank k, of W's shape and precision."""
    U, s, Vt = _svd.svd(np.asarray(W), rank=min(int(k), min(W.shape)))
    return np.asarray((U * s.astype(U.dtype, copy=False)) @ Vt)


def svd_full(W: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """U (m, m), s descending, Vh (n, n): W = U[:, :k] diag(s) Vh[:k], in W's precision."""
    m, n = W.shape
    U, s, Vt = _svd.svd(np.asarray(W), method="exact")
    if m > n:
        U = np.concatenate([U, completion(U)], axis=1)
    elif n > m:
        Vt = np.concatenate([Vt, completion(Vt.T).T])
    return U, s.astype(W.dtype), Vt


def completion(Q: np.ndarray) -> np.ndarray:
    """Orthonormal columns that complete those of Q (n, k) to a basis: the last n - k of its Householder QR."""
    return np.linalg.qr(Q, mode="complete")[0][:, Q.shape[1] :]


# --- eigenvectors -----------------------------------------------------------------------------------------------------


class VectorTable(threading.local):
    """Localization of eigenvectors, all at once where WeightWatcher asks for one after the other.

    It decomposes W Wᵀ and then calls three functions for each column of V. The last V of this thread is remembered (not
    kept alive), so that a column of it is known when it comes back, and its three numbers are in a table.
    """

    BINS = 100
    #: Entries of V that are looked at at a time.
    BLOCK = 2**18

    def __init__(self, epsilon: Callable[[], float]) -> None:
        self._epsilon = epsilon
        self._vectors: Callable[[], Any] = lambda: None
        self._table: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
        self._column: tuple[tuple[int, ...], tuple[int, ...]] = (0,), (0,)
        self._address = self._stride = 0

    def remember(self, V: np.ndarray) -> np.ndarray:
        """V, which must own its memory in Fortran order."""
        self._vectors, self._table = weakref.ref(V), None
        self._column = V.shape[:1], V.strides[:1]
        self._address, self._stride = V.__array_interface__["data"][0], V.strides[1]
        return V

    def lookup(self, which: int, vec: Any) -> float | None:
        """Number `which` of the column that `vec` is; None for a vector that is none."""
        base: Any = getattr(vec, "base", None)
        V = self._vectors()
        if V is None or base is not V or (vec.shape, vec.strides) != self._column:
            return None
        offset = vec.__array_interface__["data"][0] - self._address
        if self._table is None:
            self._table = self._measure(V)
        return float(self._table[which][offset // self._stride])

    def _measure(self, V: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        n, count = V.shape
        entropy, localization, participation = (np.empty(count) for _ in range(3))
        step = max(1, self.BLOCK // n)
        for first in range(0, count, step):
            rows = slice(first, min(first + step, count))
            A = np.abs(V[:, rows].T)
            squares = A * A
            localization[rows] = A.sum(axis=1) / A.max(axis=1)
            participation[rows] = np.sqrt(squares.sum(axis=1)) / np.sum(squares * squares, axis=1) ** 0.25
            entropy[rows] = histogram_entropy(A - A.mean(axis=1, keepdims=True), self.BINS, self._epsilon())
        return entropy, localization, participation


def histogram_entropy(rows: np.ndarray, bins: int, epsilon: float) -> np.ndarray:
    """-Σ p log p of each row's histogram over its range, p its density plus epsilon and scaled to sum 1.

    epsilon is added to the density itself, whose unit is not 1, and so decides what an empty bin counts.
    """
    count, n = rows.shape
    low, high = rows.min(axis=1), rows.max(axis=1)
    flat = low == high
    low, high = np.where(flat, low - 0.5, low), np.where(flat, high + 0.5, high)
    edges = np.linspace(low, high, bins + 1, axis=1)
    place = ((rows - low[:, None]) / (high - low)[:, None] * bins).astype(np.intp)
    np.minimum(place, bins - 1, out=place)
    # the quotient may err by a rounding next to an edge; the edges decide
    place -= rows < np.take_along_axis(edges, place, axis=1)
    place += (rows >= np.take_along_axis(edges, place + 1, axis=1)) & (place != bins - 1)
    place += bins * np.arange(count)[:, None]
    counts = np.bincount(place.ravel(), minlength=bins * count).reshape(count, bins)
    p = counts / np.diff(edges, axis=1) / n + epsilon
    p /= np.sqrt(2 * np.pi)
    p /= p.sum(axis=1, keepdims=True)
    return np.asarray(-np.sum(p * np.log(p), axis=1))


def symmetric_eigen(X: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Eigenvalues, ascending, and orthonormal columns; None for a matrix that is not symmetric to the last bit."""
    if not takes(X) or X.shape[0] != X.shape[1] or not np.array_equal(X, X.T):
        return None
    values, V = np.linalg.eigh(X)
    return values, np.array(V, order="F")
