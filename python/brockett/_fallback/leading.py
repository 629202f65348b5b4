"""The descrambler of the leading directions alone: the spectrum beyond them is one cluster, moved as little as can be.

P maps A = span(U_r) onto B = span(T_r) and, in the way nearest to P₀, the complement of A onto that of B. Let P₀ = I
(else P₀ᵀ P and P₀ᵀ T). On the complement of Z = A + B the identity does that, for every choice within A and B. What is
left is the same problem in the at most 2 r dimensions of Z: in an orthonormal basis Q = [U_r, …] of it the eigenvectors
are I, the modes Qᵀ T_r are completed to a square, their overlap decides the gauge, and P = I + Q (P_z - I) Qᵀ. Where r
cuts a block of equal penalty the whole block goes into Z: which of its directions is a leading one the gauge decides.

In the canonical gauge the vectors beyond r are the images of the coordinate axes under the direct rotation between
E = I_r X and A = U_r Y, aligned by I_rᵀ U_r = X cos Θ Yᵀ: I - (E + A)(1 + cos Θ)⁻¹(E + A)ᵀ + 2 A Eᵀ (Davis and Kahan,
SIAM J. Numer. Anal. 7 (1970) 1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from array_api_compat import array_namespace, device

from . import gauge as gauges
from ._arrays import (
    EPS,
    TIE,
    Array,
    Device,
    Host,
    Namespace,
    check_semidefinite,
    eigh_descending,
    lower_root,
    max_abs,
    orthonormal,
    quiet,
    svd_thin,
    to_device,
    to_host,
)
from .krylov import Lanczos, LinearMap, column_norms, crowded, krylov
from .penalty import Spectrum
from .preactivations import Preactivations
from .svd_costs import eigen_seconds, krylov_costs

#: Residual over the largest eigenvalue: the goal of the iteration, and what products of order 4096 let it measure.
GOAL, ACCEPTED = 1e-14, 1e-13
#: Deviations below this share of the first are left to the SVD of a square root: Lanczos works with their squares.
RESOLVED = 1e-6


class _Moments(LinearMap):
    """C as MᵀM of an M that nobody needs: the way there does nothing, the way back is C."""

    def __init__(self, y: Preactivations) -> None:
        super().__init__((y.n, y.n), y.xp, y.place, y.xp.float64)
        self.C = y.C

    def apply(self, X: Array, transposed: bool) -> Array:
        return self.C @ X if transposed else X


class _Root(LinearMap):
    def __init__(self, F: Array, y: Preactivations) -> None:
        super().__init__((F.shape[0], F.shape[1]), y.xp, y.place, y.xp.float64)
        self.F = F

    def apply(self, X: Array, transposed: bool) -> Array:
        return (self.xp.matrix_transpose(self.F) if transposed else self.F) @ X


# --- eigenvectors -----------------------------------------------------------------------------------------------------


def leading_spectrum(y: Preactivations, count: int, everything: bool) -> tuple[Host, Host, Array]:
    """Values that ties are told from, variances, both descending, and U: the `count` largest at least.

    Block Lanczos where it is cheaper than the decomposition, which takes its place where it does not get there.
    """
    n = y.n
    if y.F is not None:
        if not everything and count < min(n, y.F.shape[1]):
            root = _Root(y.F, y)
            U, s, _, residual, _ = krylov(root, count, 1e-13, 0.0, 0.0, 0, n, False)
            if residual <= 1e-13 and s[-1] > RESOLVED * s[0]:
                return s, s**2, U
        U, s, _ = svd_thin(lower_root(y.F))
        return s, s**2, U
    if not everything and (found := _by_krylov(y, count)) is not None:
        values, U, smallest = found
    else:
        values, U = eigh_descending(y.C)
        smallest = float(values[-1])
    check_semidefinite(y.name, n, smallest, float(values[0]), y.noise)
    values = np.maximum(values, 0.0)
    return values, values, U


def _worth_it(y: Preactivations, count: int) -> tuple[bool, float]:
    # by what Lanczos and the decomposition take, and the columns after which to give up; as many eigenvalues share
    # their sum as its square over the sum of their squares says
    n, product = y.n, 2.0 * y.n**2
    with quiet():
        ratio = np.float64(trace(y)) / float(y.xp.linalg.matrix_norm(y.C))
    lanczos, columns = krylov_costs(n, count, product, 2 * product, 4e10, ratio**2 if math.isfinite(ratio) else 0.0)
    direct = eigen_seconds(n, count)
    return lanczos < direct, 2 * direct / lanczos * columns


def _by_krylov(y: Preactivations, count: int) -> tuple[Host, Array, float] | None:
    """The largest eigenvalues, their vectors, and the smallest Ritz value met; None where it gave up."""
    worth, max_columns = _worth_it(y, count)
    if not worth:
        return None
    xp, C = y.xp, y.C
    L = Lanczos(_Moments(y), count, 0, 0)
    next_check, last_error, last_columns, smallest = count + count // 2 + 2 * L.width, 0.0, 0, math.inf
    while True:
        if L.size + L.width <= L.capacity and L.width > 0:
            L.expand()
        full, whole = L.size + L.width > L.capacity, L.width == 0
        spent = L.columns >= max_columns
        if not full and not whole and not spent and L.size < next_check:
            continue
        keep = L.size if whole else min(count + max(count // 4, 2 * L.width), L.size)
        sigma, Q, distance, low = L.moments(keep)
        smallest, values = min(smallest, low), sigma**2
        error = float(distance[: min(count, L.size)].max()) / values[0] if values[0] > 0 else 0.0
        if whole or (L.size >= count and error <= GOAL):
            if whole or values[0] == 0 or not crowded(values, count, L.width, GOAL):
                X = orthonormal(L.vectors(Q[:, :count]))
                H = xp.matrix_transpose(X) @ (C @ X)
                theta, Z = eigh_descending(0.5 * (H + xp.matrix_transpose(H)))
                X = X @ Z
                residual = column_norms(C @ X - X * to_device(theta, xp, y.place)[None, :]).max()
                if not residual <= ACCEPTED * abs(theta[0]):
                    return None
                return theta, X, min(smallest, float(theta[-1]))
            if spent:
                return None
            L.restart(sigma, Q, min(keep, L.size - 1))
            L.widen()
            next_check, last_columns = L.size + 2 * L.width, 0
            continue
        if spent:
            return None
        more = count
        if last_columns > 0 and error < last_error:
            slope = math.log(last_error / error) / (L.columns - last_columns)
            more = int(min(0.2 * math.log(error / GOAL) / slope, 1e9))
        last_error, last_columns = error, L.columns
        if full:
            L.restart(sigma, Q, min(keep, L.size - 1))
        next_check = L.size + max(more, 3 * L.width)


# --- which P ----------------------------------------------------------------------------------------------------------


def modes_needed(blocks: Sequence[int], r: int) -> int:
    """Up to the end of the block that r cuts, or to its start where it is the last: then the tail is solved in it."""
    end = next(i for i, b in enumerate(blocks) if b >= r)
    return blocks[end] if blocks[end] < blocks[-1] else blocks[end - 1]


def nearest_leading(
    lam: Spectrum, T: Array, U: Array, clusters: list[int], P0: Array | None, special: bool, svd: gauges.SVD
) -> tuple[Array, Array, float]:
    """F, G (n, z) with P = P₀ (I + G Fᵀ) nearest to P₀ (orthogonal; None: I), and the conditioning of the gauge."""
    xp, place = _space(U)
    r = U.shape[1]
    q = modes_needed(lam.blocks, r)
    if r == 0:
        if special and P0 is not None and float(xp.linalg.slogdet(P0)[0]) < 0:
            v = xp.matrix_transpose(P0) @ T[:, -1:]  # every reversal is as near: the last mode's, as canonically
            return -2.0 * v, v, 1.0
        return U, U, 1.0
    Tq = T[:, :q]
    if P0 is not None:
        Tq = xp.matrix_transpose(P0) @ Tq
    Q = orthonormal(xp.concat([U, Tq], axis=1))  # signs apart, U is its beginning: those are the gauge's anyway
    z = r + q
    square = np.zeros((z, z))
    square[:, :q] = to_host(xp.matrix_transpose(Q) @ Tq)
    Tz = np.linalg.qr(square)[0]
    blocks = [b for b in lam.blocks if b < q] + ([q, z] if q > 0 else [0, z])
    tails = [*clusters, z] if z > r else clusters
    rotation = gauges.nearest(Tz.T, blocks, tails, svd)
    Pz = Tz @ rotation.GH
    if special:
        sign = np.linalg.slogdet(Pz)[0]
        if P0 is not None:
            sign *= float(xp.linalg.slogdet(P0)[0])
        if sign < 0:
            Pz = Tz @ rotation.flipped()
    return Q @ to_device(Pz.T - np.eye(z), xp, place), Q, rotation.conditioning


def canonical_leading(U: Array, clusters: list[int], svd: gauges.SVD) -> Array:
    """U (n, n): the leading vectors fixed by themselves, the others nearest to the axes of their positions."""
    xp, place = _space(U)
    n, r = U.shape
    eye = xp.eye(n, dtype=xp.float64, device=place)
    if r == 0:
        return eye
    fixed = U @ to_device(gauges.canonical(to_host(U), clusters, svd).T, xp, place)
    X, cosines, Yt = svd_thin(fixed[:r, :])
    A = fixed @ xp.matrix_transpose(Yt)
    E = eye[:, :r] @ X
    shares = to_device(1 / (1 + cosines), xp, place)[None, :]
    return eye - ((E + A) * shares) @ xp.matrix_transpose(E + A) + (A + fixed @ X) @ xp.matrix_transpose(E)


def orthogonal_reference(P0: Array) -> Array:
    """The polar factor of a P₀ that is orthogonal to 1e-6, by Newton and Schulz."""
    xp, place = _space(P0)
    n = P0.shape[0]
    eye = xp.eye(n, dtype=xp.float64, device=place)
    for _ in range(4):
        E = xp.matrix_transpose(P0) @ P0 - eye
        if max_abs(E) <= 8 * math.sqrt(n) * EPS:
            break
        P0 = P0 - 0.5 * (P0 @ E)
    return P0


def tied_cut(values: Host, rank: int) -> int:
    """The cut before all directions that equal one beyond it: they cannot be told from it."""
    r = rank
    while r > 0 and values[r - 1] - values[r] <= TIE * values[0]:
        r -= 1
    return r


def least_cost(lam: Host, known: Host, bound: float, rest: float) -> float:
    """Least Σ λ_i s_i of variances that begin like this, are at most `bound` after it, and add up to `rest` there."""
    r = len(known)
    total = float(lam[:r] @ known)
    if bound > 0:
        filled = np.clip(rest - bound * np.arange(len(lam) - r), 0.0, bound)
        total += float(lam[r:] @ filled)
    return total


def trace(y: Preactivations) -> float:
    return float(y.xp.sum(y.xp.linalg.diagonal(y.C)))


def _space(A: Array) -> tuple[Namespace, Device]:
    return array_namespace(A), device(A)
