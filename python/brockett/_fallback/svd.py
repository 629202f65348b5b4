"""Singular value decompositions with a measured residual, over any array namespace.

Methods of `svd`
----------------
exact
    LAPACK's divide and conquer (gesdd), in the precision of A or better (NumPy computes in float64, and rounds).
gram
    Eigenvectors of the smaller Gram matrix in float64. For A (m, n), m ≥ n: AᵀA = V diag(s²) Vᵀ, U = A V / s, whose
    columns are orthogonal to ε (s₁/s_r)². Where s_r < 1e-4 s₁ that is not enough: then U is the Q factor of A V, and s
    the diagonal of its R. Values below about 1e-8 s₁ are noise of that size.
krylov
    Block Lanczos with thick restarts (krylov.py) until the measured residual is at most tol, else NotConverged.
quick
    The same within a budget of columns: (iterations + 1)(r + oversampling) through A and Aᵀ.
auto
    The cheapest by measured costs (`svd_costs`) of krylov, gram (float32 A, where rank < min(m, n) or one side is at
    least twice the other) and exact; gram counts where s_r ≥ 1e-4 s₁, and stands where its residual is at most tol or
    what the precision reaches; else the nearer of gram and exact. Never quick.

Methods of `singular_values`
----------------------------
gram
    Roots of the eigenvalues of the float64 Gram matrix: |s² - exact²| ≤ bound s₁². Values below 1e-7 s₁ are unresolved.
exact
    QR to a square triangle, then gesdd, in the precision of A: |s - exact| ≤ bound s₁, values below min(m, n) ε s₁ are
    unresolved. The result calls it "qr+gesdd".
auto
    float32 A: gram. float64 A: gram where one side is at least twice the other and s_min ≥ 1e-2 s₁ (good to 1e-12),
    else exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device

from .._errors import InvalidArgument, NotConverged
from . import philox
from ._arrays import (
    EPS,
    Array,
    Device,
    Host,
    Namespace,
    check_count,
    check_magnitude,
    check_matrix,
    choose,
    eigenvalues_descending,
    eigh_descending,
    eigh_positive,
    exponent,
    float64,
    max_abs,
    orthonormal,
    place_of,
    quiet,
    require_float64,
    same_place,
    shift,
    signs_of_largest,
    svd_thin,
    symmetric,
    to_device,
    to_host,
)
from .krylov import Chain, Checked, Dense, Functions, LinearMap, krylov
from .svd_costs import svd_costs

#: Below this times s₁ a value from a float64 Gram matrix is unresolved.
GRAM_FLOOR = 1e-7

Triplets = tuple[Array, Host, Array]


def normals(n_rows: int, n_cols: int, seed: int, *, xp: Namespace = None, device: Device = None) -> Array:
    """Standard normal numbers (n_rows, n_cols), float64; entry (i, j) is number i + j n_rows of stream `seed`."""
    numbers = np.ascontiguousarray(philox.normal(seed, 0, n_rows * n_cols).reshape(n_cols, n_rows).T)
    if xp is None:
        return numbers
    require_float64("device", xp, device)
    return to_device(numbers, xp, device)


# --- svd --------------------------------------------------------------------------------------------------------------


def svd(
    A: Array,
    rank: int,
    tol: float,
    frobenius_tol: float,
    method: str,
    seed: int,
    oversampling: int,
    iterations: int,
    signs: str,
    max_columns: int = 0,
) -> dict[str, Any]:
    """A ≈ U diag(s) Vt with r triplets.

    Parameters
    ----------
    A : array (m, n), float32 or float64
    rank : int
        r, cut at min(m, n); 0 keeps min(m, n).
    tol : float
        Largest residual that krylov accepts, and "auto" of krylov and gram.
    frobenius_tol : float
        Above 0: the smallest r with ‖A - A_r‖_F ≤ frobenius_tol ‖A‖_F, at most `rank` where that is not 0. Not for
        "quick"; for krylov from 2e-3 (float32) or 1e-7 on.
    method : {"auto", "exact", "gram", "krylov", "quick"}
    seed : int
        krylov, quick: stream of the start block.
    oversampling, iterations : int
        quick: (iterations + 1)(r + oversampling) columns go through A and Aᵀ.
    max_columns : int
        krylov: columns after which it gives up; 0: 10 min(m, n).
    signs : {"left", "right"}
        Whose entry of largest magnitude is made positive: U's columns' or Vt's rows'.

    Returns
    -------
    dict
        U (m, r), s (r,) float64 on the host, Vt (r, n), residual, method, columns. The residual is
        max_i max(‖A v_i - s_i u_i‖, ‖Aᵀ u_i - s_i v_i‖) / s₁, measured in float64 with the vectors returned.
    """
    xp, _ = place_of("A", A)
    _check_options(rank, tol, frobenius_tol, method, oversampling, iterations, signs, max_columns)
    check_matrix("A", A)
    _check_tail(frobenius_tol, method, A.dtype == xp.float64)
    longer, side = max(A.shape), min(A.shape)
    rank = min(rank, side) or side
    A, e = _in_range(A)
    quick = (iterations + 1) * (rank + oversampling)
    reach = 4 * (EPS if A.dtype == xp.float64 else 2.0**-23)

    def run(name: str, limit: int = 0) -> dict[str, Any]:
        columns, residual = 0, None
        if name == "exact":
            triplets = _exact(A, rank, frobenius_tol)
        elif name == "gram":
            triplets = _gram(A, rank, frobenius_tol)
        else:
            square = float(xp.linalg.vector_norm(float64(A))) ** 2 if frobenius_tol > 0 else 0.0
            U, s, V, residual, columns = krylov(
                Dense(A, xp),
                rank,
                tol,
                frobenius_tol,
                square,
                seed,
                limit,
                name == "quick",
                rank + oversampling if name == "quick" else 0,
            )
            triplets = U, s, xp.matrix_transpose(V)
        return _finished(A, e, triplets, name, signs, residual) | {"columns": columns}

    if method == "krylov":
        result = run("krylov", max_columns or 10 * side + 64)
        _check_converged(result, tol, reach)
        return result
    if method != "auto":
        return run(method, quick)
    cost = svd_costs(longer, side, rank, A.dtype == xp.float32)
    direct = cost["gram"] or cost["exact"]
    if rank < side and frobenius_tol == 0 and tol >= reach and cost["krylov"] < direct:
        result = run("krylov", max_columns or int(2 * direct / cost["krylov"] * cost["columns"]))
        if result["residual"] <= tol:
            return result
    if cost["gram"]:
        result = run("gram")
        if result["s"][-1] >= 1e-4 * result["s"][0]:
            if result["residual"] <= max(tol, reach):  # what nothing reaches is no reason to try the next
                return result
            return min(result, run("exact"), key=lambda r: r["residual"])
    return run("exact")


def svd_operator(
    rows: int,
    cols: int,
    dtype: str,
    matmat: Callable[..., Any],
    rmatmat: Callable[..., Any],
    rank: int,
    tol: float,
    frobenius_tol: float,
    method: str,
    seed: int,
    oversampling: int,
    iterations: int,
    signs: str,
    max_columns: int = 0,
) -> dict[str, Any]:
    """`svd` of a linear operator in host memory, given its products with blocks and its transpose's."""
    choose("dtype", dtype, ("float32", "float64"))
    _check_options(rank, tol, frobenius_tol, method, oversampling, iterations, signs, max_columns)
    _check_tail(frobenius_tol, "krylov", dtype == "float64")
    M = Functions((rows, cols), dtype, matmat, rmatmat)
    return _of_map(M, rank, tol, frobenius_tol, method, seed, oversampling, iterations, signs, max_columns)


def svd_product(
    factors: list[Array],
    rank: int,
    tol: float,
    frobenius_tol: float,
    method: str,
    seed: int,
    oversampling: int,
    iterations: int,
    signs: str,
    max_columns: int = 0,
) -> dict[str, Any]:
    """`svd` of a product of matrices, which is not formed."""
    if not factors:
        raise InvalidArgument("factors", "must be at least one matrix")
    xp, _ = place_of("factors", factors[0])
    _check_options(rank, tol, frobenius_tol, method, oversampling, iterations, signs, max_columns)
    _check_tail(frobenius_tol, "krylov", factors[0].dtype == xp.float64)
    for i, F in enumerate(factors):
        same_place("factors", F, factors[0], "factors")
        check_matrix("factors", F)
        if i and factors[i - 1].shape[1] != F.shape[0]:
            raise InvalidArgument(
                "factors",
                f"factor {i} of shape {tuple(F.shape)} does not fit the one before it, of shape "
                f"{tuple(factors[i - 1].shape)}",
            )
    M = Chain(factors, xp)
    return _of_map(M, rank, tol, frobenius_tol, method, seed, oversampling, iterations, signs, max_columns)


def _of_map(
    inner: LinearMap,
    rank: int,
    tol: float,
    frobenius_tol: float,
    method: str,
    seed: int,
    oversampling: int,
    iterations: int,
    signs: str,
    max_columns: int,
) -> dict[str, Any]:
    if method in ("exact", "gram"):
        raise InvalidArgument(
            "method", "an operator is served by krylov and quick, not by methods that need its entries"
        )
    if rank == 0 and frobenius_tol == 0:
        raise InvalidArgument("rank", "must be given for an operator, unless frobenius_tol is")
    M, xp, side = Checked(inner), inner.xp, min(inner.shape)
    rank, quick = min(rank, side) or side, method == "quick"
    square = 0.0
    if frobenius_tol > 0:  # ‖A‖² from the images of the identity
        turned = M.shape[0] < M.shape[1]
        for first in range(0, side, 64):
            w = min(64, side - first)
            block = np.zeros((side, w))
            block[first : first + w] = np.eye(w)
            image = M.apply(to_device(block, xp, M.place, dtype=M.dtype), turned)
            square += float(xp.sum(float64(image) ** 2))
    limit = (iterations + 1) * (rank + oversampling) if quick else max_columns or 10 * side + 64
    widest = rank + oversampling if quick else 0
    U, s, V, residual, columns = krylov(M, rank, tol, frobenius_tol, square, seed, limit, quick, widest)
    sign = signs_of_largest(U if signs == "left" else V)
    result = {
        "U": U * sign[None, :],
        "s": s / M.scale,
        "Vt": xp.matrix_transpose(V * sign[None, :]),
        "residual": residual,
        "method": "quick" if quick else "krylov",
        "columns": columns,
    }
    if not quick:
        _check_converged(result, tol, 4 * (EPS if M.dtype == xp.float64 else 2.0**-23))
    return result


def _check_converged(result: dict[str, Any], tol: float, reach: float) -> None:
    if result["residual"] > tol:
        raise NotConverged(
            f"svd by block Krylov: residual {result['residual']:.3g} of s_1 after {result['columns']} columns, tol is "
            f"{tol:.3g}; data of this precision reach about {reach:.1g}"
        )


def _check_options(
    rank: int,
    tol: float,
    frobenius_tol: float,
    method: str,
    oversampling: int,
    iterations: int,
    signs: str,
    max_columns: int,
) -> None:
    choose("method", method, ("auto", "exact", "gram", "krylov", "quick"))
    choose("signs", signs, ("left", "right"))
    check_count("rank", rank, 0)
    check_count("oversampling", oversampling, 0)
    check_count("iterations", iterations, 0)
    check_count("max_columns", max_columns, 0)
    if not tol >= 0:
        raise InvalidArgument("tol", f"must be ≥ 0, is {tol}")
    if not 0 <= frobenius_tol < 1:
        raise InvalidArgument("frobenius_tol", f"must be in [0, 1), is {frobenius_tol}")
    if method == "quick" and frobenius_tol > 0:
        raise InvalidArgument(
            "frobenius_tol", 'needs singular values that have converged; those of method "quick" have not'
        )


def _check_tail(frobenius_tol: float, method: str, double: bool) -> None:
    # ‖A‖² minus the squares of the leading values keeps that square of the norm, times some ε
    least = 1e-7 if double else 2e-3
    if method == "krylov" and 0 < frobenius_tol < least:
        raise InvalidArgument(
            "frobenius_tol",
            f"method krylov resolves tails from {least:.1g} of ‖A‖_F on in this precision, is {frobenius_tol:.3g}",
        )


def svd_batch(A: Array, *options: Any) -> list[dict[str, Any]]:
    """`svd` of each matrix of A (batch, m, n)."""
    return [svd(A[i, :, :], *options) for i in range(A.shape[0])]


def _in_range(A: Array) -> tuple[Array, int]:
    # A 2⁻ᵉ and e; e = 0, and no copy, where squares of A's entries are far from the ends of its precision
    largest = max_abs(A)
    safe = 1e100 if A.dtype == array_namespace(A).float64 else 1e12
    if largest == 0 or 1 / safe < largest < safe:
        return A, 0
    e = exponent(largest)
    return shift(A, -e), e


def _kept(s: Host, rank: int, frobenius_tol: float) -> int:
    # at most `rank`; with a tolerance, the smallest r whose tail √(Σ_{i ≥ r} s_i²) is within it
    if frobenius_tol == 0:
        return rank
    tails = np.cumsum(s[::-1] ** 2)[::-1]  # summed from the small end, so that small tails keep their digits
    return min(rank, max(int(np.sum(tails > frobenius_tol**2 * tails[0])), 1))


def _exact(A: Array, rank: int, frobenius_tol: float) -> Triplets:
    U, s, Vt = svd_thin(A)
    r = _kept(s, rank, frobenius_tol)
    return U[:, :r], s[:r], Vt[:r, :]


def _gram(A: Array, rank: int, frobenius_tol: float) -> Triplets:
    xp = array_namespace(A)
    if A.shape[0] < A.shape[1]:
        V, s, Ut = _gram(xp.matrix_transpose(A), rank, frobenius_tol)
        return xp.matrix_transpose(Ut), s, xp.matrix_transpose(V)
    A = float64(A)
    # AᵀA = V diag(s²) Vᵀ
    w, V = eigh_descending(xp.matrix_transpose(A) @ A)
    s = np.sqrt(np.maximum(w, 0.0))
    r = _kept(s, rank, frobenius_tol)
    s, V = s[:r], V[:, :r]
    AV = A @ V
    if s[-1] >= 1e-4 * s[0] > 0:
        return AV / to_device(s, xp, device(A))[None, :], s, xp.matrix_transpose(V)
    # A V = U R, R diagonal but for noise
    U = orthonormal(AV)
    diagonal = to_host(xp.sum(U * AV, axis=0))
    order = np.argsort(-np.abs(diagonal), kind="stable")
    U = U * to_device(np.where(diagonal < 0, -1.0, 1.0), xp, device(A))[None, :]
    at = to_device(order, xp, device(A))
    return xp.take(U, at, axis=1), np.abs(diagonal)[order], xp.matrix_transpose(xp.take(V, at, axis=1))


def _finished(
    A: Array, e: int, triplets: Triplets, method: str, signs: str, residual: float | None = None
) -> dict[str, Any]:
    """The result, in the precision of A: signs fixed, residual measured where it has not been, scale put back."""
    xp = array_namespace(A)
    U, s, Vt = triplets
    U, Vt = xp.astype(U, A.dtype), xp.astype(Vt, A.dtype)
    sign = signs_of_largest(U if signs == "left" else xp.matrix_transpose(Vt))
    U, Vt = U * sign[None, :], Vt * sign[:, None]
    with quiet():
        values = np.ldexp(s, e)
    if not np.isfinite(values).all():
        raise InvalidArgument("A", "its singular values overflow float64; rescale")
    measured = _residual(A, U, s, Vt) if residual is None else residual
    return {"U": U, "s": values, "Vt": Vt, "residual": measured, "method": method}


def _residual(A: Array, U: Array, s: Host, Vt: Array) -> float:
    # max_i max(‖A v_i - s_i u_i‖, ‖Aᵀ u_i - s_i v_i‖) / s₁
    if s[0] == 0:
        return 0.0
    xp = array_namespace(A)
    A, U, V = float64(A), float64(U), float64(xp.matrix_transpose(Vt))
    d = to_device(s, xp, device(A))[None, :]
    right = _column_norms(A @ V - U * d)
    left = _column_norms(xp.matrix_transpose(A) @ U - V * d)
    return float(max(right.max(), left.max()) / s[0])


def _column_norms(A: Array) -> Host:
    xp = array_namespace(A)
    return to_host(xp.linalg.vector_norm(A, axis=0)).astype(np.float64)


# --- singular values --------------------------------------------------------------------------------------------------


def singular_values(A: Array, method: str) -> dict[str, Any]:
    """All min(m, n) singular values of A (m, n), largest first.

    Returns
    -------
    dict
        values (float64, on the host), n_resolved (how many leading ones are more than rounding noise), bound, method.
    """
    choose("method", method, ("auto", "exact", "gram"))
    xp, _ = place_of("A", A)
    check_matrix("A", A)
    is_float32 = A.dtype == xp.float32
    A, e = _in_range(A)
    longer, side = max(A.shape), min(A.shape)

    gram = method == "gram" or (method == "auto" and (is_float32 or longer >= 2 * side))
    if gram:
        s = _values_by_gram(float64(A))
        # squares lose ε (s₁/s)²: more than 1e-12 is too much for float64 data, whose user did not ask for it
        gram = is_float32 or method == "gram" or bool(s[-1] >= 1e-2 * s[0])
    if not gram:
        s = _values_by_qr(A)
    eps = EPS if gram or not is_float32 else 2.0**-23
    floor = GRAM_FLOOR if gram else side * eps
    n_resolved = int(np.sum((s >= floor * s[0]) & (s > 0)))
    with quiet():
        values = np.ldexp(s, e)
    if not np.isfinite(values).all():
        raise InvalidArgument("A", "its singular values overflow float64; rescale")
    name = "gram" if gram else "qr+gesdd"
    return {"values": values, "n_resolved": n_resolved, "bound": 4 * eps * math.sqrt(longer), "method": name}


def singular_values_batch(A: Array, method: str) -> list[dict[str, Any]]:
    """`singular_values` of each matrix of A (batch, m, n)."""
    return [singular_values(A[i, :, :], method) for i in range(A.shape[0])]


def _values_by_gram(A: Array) -> Host:
    xp = array_namespace(A)
    At = xp.matrix_transpose(A)
    squares = eigenvalues_descending(At @ A if A.shape[0] >= A.shape[1] else A @ At)
    return np.asarray(np.sqrt(np.maximum(squares, 0.0)))


def _values_by_qr(A: Array) -> Host:
    xp = array_namespace(A)
    tall = A if A.shape[0] >= A.shape[1] else xp.matrix_transpose(A)
    return svd_thin(xp.linalg.qr(tall, mode="reduced")[1])[1]


# --- whitened ---------------------------------------------------------------------------------------------------------


def whitened_svd(W: Array, R: Array, rank: int) -> dict[str, Any]:
    """Best approximation of W (n, m) of rank r in the norm ‖W‖_R² = tr(W R Wᵀ), the mean square of the outputs W x.

    W_r = U Uᵀ W, where U are the r leading eigenvectors of W R Wᵀ = U diag(s²) Uᵀ, left singular vectors of W R^(1/2);
    R may be singular. rank 0 keeps min(n, m).

    Returns
    -------
    dict
        U (n, r), s (all min(n, m), on the host), projected = Uᵀ W (r, m), error = ‖W - W_r‖_R = √(Σ_{i ≥ r} s_i²).
    """
    place_of("W", W)
    xp, _ = same_place("R", R, W)
    check_matrix("W", W)
    n, m = W.shape
    R = symmetric("R", float64(R), m)
    k = min(n, m)
    r = check_count("rank", rank, 0, k) or k
    check_magnitude("W", max_abs(W))
    # W 2^-w and R 2^-2h, so that their products are near 1
    w, h = exponent(max_abs(W)), exponent(max_abs(R)) // 2
    W64 = shift(float64(W), -w)
    # a tall W = Q F has U = Q Z, with F R Fᵀ = Z diag(s²) Zᵀ of the smaller side
    Q, F = xp.linalg.qr(W64, mode="reduced") if 7 * n > 8 * m else (None, W64)
    C = F @ shift(R, -2 * h) @ xp.matrix_transpose(F)
    squares, Z = eigh_positive("R", 0.5 * C + 0.5 * xp.matrix_transpose(C))
    U = Z[:, :r] if Q is None else Q @ Z[:, :r]
    U = U * signs_of_largest(U)[None, :]
    with quiet():
        s = np.ldexp(np.sqrt(squares[:k]), w + h)
        error = np.ldexp(math.sqrt(float(np.sum(squares[r:k]))), w + h)
    if not np.isfinite(s).all():
        raise InvalidArgument("W", "the values of W R^(1/2) overflow float64; rescale")
    return {
        "U": xp.astype(U, W.dtype),
        "s": s,
        "projected": xp.astype(shift(xp.matrix_transpose(U) @ W64, w), W.dtype),
        "error": float(error),
    }
