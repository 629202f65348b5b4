"""Principal axes of centred samples: the routes that the scikit-learn estimators choose from."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import linalg, sparse

from .._autocorrelation import Autocorrelation
from .._errors import InvalidArgument
from .._fallback.svd_costs import svd_costs
from .._svd import svd

__all__ = [
    "RESOLVED",
    "Axes",
    "CentredMap",
    "PlainMap",
    "centred",
    "column_moments",
    "from_covariance",
    "from_matrix",
    "from_root",
    "krylov_is_cheaper",
    "measured",
    "mle_rank",
    "row_blocks",
    "share_rank",
    "signs_of_rows",
    "single_covariance",
    "sparse_covariance",
    "streamed",
]

Host = npt.NDArray[Any]

#: A variance below this share of the largest has lost more than five of its digits in a float64 covariance, whose
#: rounding error is about 2e-16 of the largest: it counts as unresolved.
RESOLVED = 1e-10
#: Bytes of samples that are centred, densified or multiplied at a time: they stay in the caches of a core.
_BLOCK_BYTES = 1 << 22


@dataclass(frozen=True, eq=False)
class Axes:
    """Principal axes in rows, largest variance first.

    Attributes
    ----------
    components : ndarray (k, n_features)
    variances : ndarray (k,), float64
        Divisor (sum of the weights) - 1.
    total : float
        Of all variances.
    residual : float
        Over the axes that are resolved, of the centred samples X: max ‖Xᵀ uᵢ - sᵢ vᵢ‖ / s₁, uᵢ = X vᵢ / sᵢ.
    method : str
    n_resolved : int
        Leading variances that are not rounding noise.
    """

    components: Host
    variances: Host
    total: float
    residual: float
    method: str
    n_resolved: int


def signs_of_rows(V: Host) -> Host:
    """±1 for each row, such that its entry of largest magnitude becomes positive."""
    largest = V[np.arange(V.shape[0]), np.abs(V).argmax(axis=1)] if V.size else np.ones(V.shape[0])
    return np.where(largest < 0, -1.0, 1.0).astype(V.dtype)


def row_blocks(X: Any) -> Iterator[slice]:
    """Slices of rows whose dense form is `_BLOCK_BYTES`."""
    step = max(1, _BLOCK_BYTES // max(1, X.shape[1] * X.dtype.itemsize))
    for start in range(0, X.shape[0], step):
        yield slice(start, min(start + step, X.shape[0]))


def _centred_blocks(X: Host, high: Host) -> Iterator[Host]:
    """Blocks of X - high, each in the place of the one before: their memory is had once."""
    place: Host | None = None
    for rows in row_blocks(X):
        if place is None:
            place = np.empty((rows.stop - rows.start, X.shape[1]), dtype=X.dtype)
        yield np.subtract(X[rows], high, out=place[: rows.stop - rows.start])


# --- moments ----------------------------------------------------------------------------------------------------------


def column_moments(X: Any) -> tuple[Host, Host]:
    """Mean and sum of squared deviations of each column, float64; of what is not centred about zero, no digits cancel.

    Parameters
    ----------
    X : ndarray or sparse (m, n)
        Sparse ones in CSR or CSC order without duplicates.

    Returns
    -------
    mean, squares : ndarray (n,), float64
    """
    m, n = X.shape
    if sparse.issparse(X):
        column = X.indices if X.format == "csr" else np.repeat(np.arange(n), np.diff(X.indptr))
        stored = np.bincount(column, minlength=n)
        mean = np.bincount(column, weights=X.data, minlength=n) / m
        deviation = X.data - mean[column]
        return mean, np.bincount(column, weights=deviation * deviation, minlength=n) + (m - stored) * mean**2
    mean = np.zeros(n)
    for rows in row_blocks(X):
        mean += X[rows].sum(axis=0, dtype=np.float64)
    mean /= m
    high = mean.astype(X.dtype)  # what is left of the mean beyond the precision of X is a term of its own
    squares = np.zeros(n)
    for deviation in _centred_blocks(X, high):
        squares += np.square(deviation, out=deviation).sum(axis=0, dtype=np.float64)
    return mean, np.maximum(squares - m * (mean - high) ** 2, 0.0)


def centred(X: Host, mean: Host) -> Host:
    """X - mean as a new array in the dtype of X."""
    high = mean.astype(X.dtype)
    low = (mean - high).astype(X.dtype)
    out = np.empty(X.shape, dtype=X.dtype)
    # A float32 mean of samples far from the origin is off by as much as they vary: the rest of it is a second
    # subtraction, made where it can change a digit.
    rest = low if np.abs(low).max() > np.finfo(X.dtype).eps * np.abs(X[0] - high).max() else None
    for rows in row_blocks(X):
        block = np.subtract(X[rows], high, out=out[rows])
        if rest is not None:
            np.subtract(block, rest, out=block)
    return out


def sparse_covariance(X: Any, mean: Host) -> Host:
    """Covariance (n, n) of a sparse X, divisor m, float64.

    Where no column is more than half full, XᵀX - m μ μᵀ loses no digits that count, since then var ≥ μ² (1 / fill - 1)
    ≥ μ². Else rows are made dense, block by block: m n² flops.
    """
    m, n = X.shape
    column = X.indices if X.format == "csr" else np.repeat(np.arange(n), np.diff(X.indptr))
    if np.bincount(column, minlength=n).max(initial=0) <= m / 2:
        wide = X.astype(np.float64)
        C: Host = np.asarray((wide.T @ wide).todense()) / m
        C -= np.outer(mean, mean)
        return C
    return streamed(X).matrix()  # type: ignore[no-any-return]


def streamed(X: Any, method: str = "gram", precision: str = "double") -> Autocorrelation:
    """The accumulated covariance of X; a sparse one is made dense block by block."""
    total = Autocorrelation(X.shape[1], center=True, method=method, precision=precision)
    if sparse.issparse(X):
        rows_first = X.tocsr()
        for rows in row_blocks(rows_first):
            total.update(rows_first[rows].toarray())
    else:
        total.update(X)
    return total


# --- axes from moments ------------------------------------------------------------------------------------------------


def from_covariance(C: Host, weight: float, k: int) -> Axes:
    """The k leading axes of a covariance (n, n) with divisor `weight`. From 4/3 n³ flops (k few) to 9 n³ (all)."""
    n = C.shape[0]
    total = float(np.trace(C))
    if 2 * k <= n:
        least = n - max(k, 1)
        values, vectors = linalg.eigh(C, subset_by_index=(least, n - 1), driver="evr", check_finite=False)
    else:
        values, vectors = linalg.eigh(C, driver="evd", check_finite=False)
    values, V = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    n_resolved = int((values > RESOLVED * values[0]).sum()) if values[0] > 0 else 0
    residual = 0.0
    if n_resolved:
        error = C @ V[:, :n_resolved] - V[:, :n_resolved] * values[:n_resolved]
        scale = np.sqrt(values[:n_resolved]) * math.sqrt(values[0])
        residual = float((np.linalg.norm(error, axis=0) / scale).max())
    rows = np.ascontiguousarray(V.T[:k])
    rows *= signs_of_rows(rows)[:, np.newaxis]
    to_sample = weight / (weight - 1)
    return Axes(rows, values[:k] * to_sample, total * to_sample, residual, "covariance", min(n_resolved, k))


def single_covariance(X: Host) -> tuple[Host, Host]:
    """Mean and covariance (divisor m) of float32 samples from float32 products, off by about 1e-7 of the largest
    variance.

    m n² flops at the rate of float32, and no second pass over X to centre it where it lies close enough to the origin
    that subtracting μ μᵀ from the sum afterwards costs less than a digit.
    """
    some = X[:: max(1, X.shape[0] // 1024)].astype(np.float64)
    middle = some.mean(axis=0)
    some -= middle
    v = some[np.square(some).sum(axis=1).argmax()]
    for _ in range(4):  # the Rayleigh quotient of the power method is no more than the largest variance
        v = some.T @ (some @ (v / max(float(np.linalg.norm(v)), np.finfo(np.float64).tiny)))
    close = float(middle @ middle) <= 4 * float(np.linalg.norm(v)) / len(some)
    total = Autocorrelation(X.shape[1], center=not close, precision="single")
    total.update(X)
    mean, C = total.mean(), total.matrix()
    if close:
        C -= np.outer(mean, mean)
    return mean, C


def measured(axes: Axes, X: Host, mean: Host, seed: int) -> Axes:
    """Axes whose covariance was rounded to float32, with a residual that is measured on the samples themselves.

    Cov(X) is applied to four random combinations t = Σ ±vᵢ / √(λᵢ λ₁) of the axes: the mean of ‖Cov t - Σ ±λᵢ vᵢ / √(λᵢ
    λ₁)‖² is the sum of all squared residuals, by expectation. 16 m n flops, in one reading of X.
    """
    V, lam = axes.components.T, axes.variances
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(V.shape[1], 4))
    T = V @ (signs / np.sqrt(lam * lam[0])[:, np.newaxis])
    narrow, high = T.astype(X.dtype), mean.astype(X.dtype)
    Z = np.zeros(T.shape)
    for block in _centred_blocks(X, high):  # float32 products of what is far from the origin would be noise
        Z += block.T @ (block @ narrow)
    error = Z / (X.shape[0] - 1) - V @ (lam[:, np.newaxis] * (V.T @ T))
    return replace(axes, residual=float(np.sqrt(np.square(error).sum(axis=0).mean())))


def from_root(X: Any, k: int) -> Axes:
    """The k leading axes of tall samples by a streamed LQ and an SVD of its triangle, which keeps small variances.

    2 m n² flops, and from 4 n³ for the triangle.
    """
    m = X.shape[0]
    root = streamed(X, method="qr").factor()
    found = svd(root.T, method="exact")
    variances = found.s**2 * (m / (m - 1))
    components = found.Vt[:k]
    total = float(variances.sum())
    return Axes(components, variances[:k], total, found.residual, "exact", _resolved(found.s[:k], m, X.dtype))


def from_matrix(
    X: Any,
    mean: Host,
    squares: Host,
    k: int,
    method: str,
    tol: float,
    *,
    seed: int = 0,
    share: float | None = None,
    oversampling: int = 10,
    iterations: int = 1,
) -> Axes:
    """The k leading axes by `brockett.svd` of the centred samples themselves; sparse ones are never centred in memory.

    With `share` as many axes as explain more than this share of the variance, at most k.
    """
    m = X.shape[0]
    A: Any = CentredMap(X, mean) if sparse.issparse(X) else centred(X, mean)
    more: dict[str, Any] = {"oversampling": oversampling, "iterations": iterations, "seed": seed}
    if share is not None:
        more["frobenius_tol"] = math.sqrt(1 - share)
    total = float(squares.sum()) / (m - 1)
    if method == "gram":
        found = svd(A, k, method="gram")
        # Centred wide samples have a zero value at the end; what comes before it must be resolved.
        last = min(k, m - 1) - 1
        if not found.s[last] > math.sqrt(RESOLVED) * found.s[0]:
            found = svd(A, k, method="exact")
    else:
        found = svd(A, k, tol, method=method, **more)
    s = np.array(found.s)
    if len(s) >= m:  # m centred samples span m - 1 dimensions: the last value is zero, whatever rounding says
        s[m - 1 :] = 0.0
    return Axes(found.Vt, s**2 / (m - 1), total, found.residual, found.method, _resolved(s, m, X.dtype))


def _resolved(s: Host, m: int, dtype: Any) -> int:
    return int((s > max(m, 1) * np.finfo(dtype).eps * s[0]).sum()) if len(s) and s[0] > 0 else 0


def krylov_is_cheaper(m: int, n: int, k: int, single: bool) -> bool:
    """Whether k triplets by block Krylov cost less than the covariance or Gram matrix and its eigenvectors.

    By the measured cost model of `brockett.svd`; a float32 covariance costs half of a float64 one.
    """
    side, longer = min(m, n), max(m, n)
    model = svd_costs(longer, side, k, single)
    direct = longer * side**2 / (9e10 if single and m >= n else 5e10) + side**3 * 3e-10
    return 0 < k < 0.8 * side and model["krylov"] < min(direct, model["exact"])


# --- matrices that are not formed -------------------------------------------------------------------------------------


class PlainMap:
    """A sparse matrix as `brockett.svd` takes operators."""

    def __init__(self, X: Any) -> None:
        self._X, self._Xt = X, X.T
        self.shape, self.dtype = X.shape, X.dtype

    def matmat(self, B: Host) -> Host:
        return self._X @ B  # type: ignore[no-any-return]

    def rmatmat(self, B: Host) -> Host:
        return self._Xt @ B  # type: ignore[no-any-return]


class CentredMap(PlainMap):
    """X - 1 μᵀ of a sparse X, which stays sparse."""

    def __init__(self, X: Any, mean: Host) -> None:
        super().__init__(X)
        self._mean = mean.astype(X.dtype)

    def matmat(self, B: Host) -> Host:
        return super().matmat(B) - self._mean @ B  # type: ignore[no-any-return]

    def rmatmat(self, B: Host) -> Host:
        return super().rmatmat(B) - np.outer(self._mean, B.sum(axis=0))


# --- how many ---------------------------------------------------------------------------------------------------------


def share_rank(variances: Host, share: float) -> int:
    """Smallest number of axes that explain more than a share of the variance."""
    total = variances.sum()
    if not total > 0:
        return 1
    return min(int(np.searchsorted(np.cumsum(variances) / total, share, side="right")) + 1, len(variances))


def mle_rank(variances: Host, n_samples: int) -> int:
    """Minka's most likely dimension of samples in Gaussian noise, from all eigenvalues of their covariance.

    log p(D | k) by Laplace's method (Minka, NIPS 2000, eqs. 76 to 80), for every k < n at once: the double sums over
    pairs of eigenvalues are running sums of the rows and columns of one triangle, n² flops where each k alone would
    take them.

    Parameters
    ----------
    variances : ndarray (n_features,)
        Descending.
    n_samples : int

    Returns
    -------
    k : int
        From 1 to n_features - 1.
    """
    lam = np.asarray(variances, dtype=np.float64)
    n = len(lam)
    if n < 2 or not lam[0] > 0:
        raise InvalidArgument("n_components", f"'mle' needs at least two features that vary, got {n} (n_features={n})")
    tiny = 1e-15
    most = min(n - 1, int((lam >= tiny).sum()))
    if most < 1:
        raise InvalidArgument("n_components", "'mle' needs variances of at least 1e-15: scale the samples")
    log_n = math.log(n_samples)
    # Equal eigenvalues would make a factor 0 where the prior has it as rounding noise at least.
    floor = np.finfo(np.float64).eps * lam[0]
    log_lam = np.log(lam[:most])
    gaps = np.triu(np.log(np.maximum(lam[:most, np.newaxis] - lam[np.newaxis, :], floor)), 1)
    rows = np.cumsum(gaps.sum(axis=1))  # Σ_{i<k} Σ_{j>i} log(λᵢ - λⱼ)
    pairs = np.cumsum(gaps[:, :most].sum(axis=0))  # Σ_{i<j<k} of the same
    logs = np.cumsum(log_lam)
    ranks = np.arange(1, most + 1)
    sphere = np.cumsum([math.lgamma((n - i + 1) / 2) - math.log(math.pi) * (n - i + 1) / 2 for i in ranks])
    best, likeliest = -math.inf, 1
    for k in ranks:
        v = max(tiny, float(lam[k:].sum()) / (n - k))
        m = n * k - k * (k + 1) / 2
        inverse = np.maximum(1 / v - 1 / lam[:k], np.finfo(np.float64).eps / v)
        hessian = (
            rows[k - 1]
            + pairs[k - 1]
            - (k - 1) * logs[k - 1]
            + (n - k) * float(np.log(inverse).sum())
            + m * log_n
        )
        evidence = (
            sphere[k - 1]
            - k * math.log(2)
            - logs[k - 1] * n_samples / 2
            - math.log(v) * n_samples * (n - k) / 2
            + math.log(2 * math.pi) * (m + k) / 2
            - hessian / 2
            - k * log_n / 2
        )
        if evidence > best:
            best, likeliest = evidence, int(k)
    return likeliest
