"""The orthogonal P that makes P W as diagonal as can be, over the min(n, m) diagonal entries of W (n, m).

B (n, n): the first n columns of W, transposed, and rows of zeros where there are fewer. (P W)_ii is the product of row
i of P and row i of B.

sum
    Σ (P W)_ii = tr(P Bᵀ) is largest for the polar factor P = X Yᵀ of B = X S Yᵀ, with value Σ S, the nuclear norm.
square
    Σ (P W)_ii² is convex in P, so maximising its linearization never lowers it: P <- polar(diag(d) B), d = diag(P W).
    The diagonal is ≥ 0 at the start, the solution of "sum", and stays so: diag(d) B Pᵀ is positive semidefinite.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import array_namespace, device

from .._errors import InvalidArgument
from ._arrays import (
    EPS,
    Array,
    Host,
    check_count,
    check_matrix,
    choose,
    exponent,
    float64,
    max_abs,
    place_of,
    quiet,
    shift,
    svd_thin,
    to_device,
    to_host,
)


def diagonalize(W: Array, criterion: str, group: str, max_iterations: int, tol: float) -> dict[str, Any]:
    """P (n, n) of the largest Σ_i (P W)_ii ("sum") or Σ_i (P W)_ii² ("square").

    Parameters
    ----------
    W : array (n, m)
    criterion : {"sum", "square"}
    group : {"orthogonal", "special_orthogonal"}
    max_iterations, tol
        square: stop when the relative gain of an iteration is at most `tol`.

    Returns
    -------
    dict
        P, weights (P W), value, bound (the nuclear norm, or ‖W‖_F², over min(n, m) columns), iterations, converged.
    """
    choose("criterion", criterion, ("sum", "square"))
    choose("group", group, ("orthogonal", "special_orthogonal"))
    check_count("max_iterations", max_iterations, 0)
    if not tol >= 0:
        raise InvalidArgument("tol", f"must be ≥ 0, is {tol}")
    xp, place = place_of("W", W)
    check_matrix("W", W)
    n, m = W.shape
    count, special = min(n, m), group == "special_orthogonal"
    # squares of W 2⁻ᵉ are safe, and P does not depend on the scale
    e = exponent(max_abs(W))
    B = xp.matrix_transpose(shift(float64(W)[:, :count], -e))
    if count < n:
        B = xp.concat([B, xp.zeros((n - count, n), dtype=B.dtype, device=place)], axis=0)

    P, s = nearest_polar(B, special)
    iterations, converged = 0, True
    if criterion == "square":
        P, iterations, converged = _iterate(B, P, count, special, max_iterations, tol)

    P = xp.astype(P, W.dtype)
    d = _diagonal(float64(P), B)
    if criterion == "sum":
        value, bound, power = float(d.sum()), float(s.sum()), e
    else:
        value, bound, power = float(d @ d), float(s @ s), 2 * e
    with quiet():
        value, bound = float(np.ldexp(value, power)), float(np.ldexp(bound, power))
    if not np.isfinite(bound):
        raise InvalidArgument("W", "the criterion overflows float64; rescale")
    weights = xp.astype(shift(float64(P) @ shift(float64(W), -e), e), W.dtype)
    return {
        "P": P,
        "weights": weights,
        "value": value,
        "bound": bound,
        "iterations": iterations,
        "converged": converged,
    }


def nearest_polar(B: Array, special: bool) -> tuple[Array, Host]:
    """P of largest tr(P Bᵀ), nearest to I where B leaves it free, and the singular values of B.

    With `special`, of determinant 1: the direction that costs least, of the smallest singular value, is reversed.
    """
    xp = array_namespace(B)
    n = B.shape[0]
    X, s, Yt = svd_thin(B)
    r = int(np.sum(s > n * EPS * s[0]))
    if r < n:
        # any orthogonal G serves in the null space: X₀ G Y₀ᵀ; tr(X₀ G Y₀ᵀ) is largest for G = polar(X₀ᵀ Y₀)
        X0, Y0t = X[:, r:], Yt[r:, :]
        K, _, Lt = svd_thin(xp.matrix_transpose(X0) @ xp.matrix_transpose(Y0t))
        X = xp.concat([X[:, :r], X0 @ K], axis=1)
        Yt = xp.concat([Yt[:r, :], Lt @ Y0t], axis=0)
    P = X @ Yt
    if special and float(xp.linalg.slogdet(P)[0]) < 0:
        P = P - 2 * X[:, -1:] @ Yt[-1:, :]
    return P, s


def _diagonal(P: Array, B: Array) -> Host:
    xp = array_namespace(P)
    return to_host(xp.sum(P * B, axis=1))


def _iterate(B: Array, P: Array, count: int, special: bool, max_iterations: int, tol: float) -> tuple[Array, int, bool]:
    xp = array_namespace(B)
    d = _diagonal(P, B)
    for iteration in range(max_iterations):
        value = float(d @ d)
        # a zero stays zero: a stationary point, but no maximum
        largest = float(np.abs(d).max())
        d[:count] = np.where(d[:count] == 0, 1e-3 * largest if largest > 0 else 1.0, d[:count])
        trial, _ = nearest_polar(to_device(d, xp, device(B))[:, None] * B, special)
        d = _diagonal(trial, B)
        gain = float(d @ d) - value
        if gain >= 0:
            P = trial
        if gain <= tol * value:
            return P, iteration + 1, True
    return P, max_iterations, False
