"""The descrambler: the orthogonal P that makes P W x smoothest, in closed form.

For A = T diag(λ) Tᵀ (λ ascending) and C = E[y yᵀ] = U diag(σ²) Uᵀ (σ² descending)::

    min over P in O(n) of η(P) = tr(A P C Pᵀ)  =  Σ λ_i σ_i²,    reached by P = T G H Uᵀ

with G, H orthogonal within equal λ and equal σ² (gauge.py). The cost is then evaluated from the P that is returned, in
the precision it is returned in, and is never a copy of the optimum.

References
----------
R. W. Brockett, Linear Algebra Appl. 146 (1991) 79; arXiv 2301.07820.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._errors import InvalidArgument
from . import gauge as gauges
from . import leading
from . import permutation as permutations
from ._arrays import (
    EPS,
    TIE,
    Array,
    Host,
    check_count,
    check_matrix,
    choose,
    eigh_positive,
    float64,
    lower_root,
    max_abs,
    quiet,
    svd_thin,
    to_device,
    to_host,
)
from .cost import energies, scaled_back
from .penalty import Spec, Spectrum, penalty_matrix, spectrum
from .preactivations import Preactivations, Source, preactivations

#: Wider components of the gauge are decomposed on the device.
WIDE = 64


def descramble(
    W: Array | None,
    source: Source,
    penalty: Spec,
    group: str,
    gauge: str,
    P0: Array | None,
    rank: int,
    seed: int,
    starts: int,
    max_sweeps: int,
    dtype: str,
    verify: bool = True,
) -> dict[str, Any]:
    """P minimising η(P) = tr(A P C Pᵀ) over a group, and P W.

    Parameters
    ----------
    W : array (n, m) or None
    source : dict
        Where C comes from: see preactivations.py.
    penalty : dict
        A: see penalty.py.
    group : {"orthogonal", "special_orthogonal", "permutation"}
    gauge : {"identity", "canonical", "given"}
        Which of the equally good P: nearest to I, T Uᵀ with vectors fixed by themselves, nearest to `P0` (n, n).
    rank : int
        Above 0 and below n: σ² from this position on count as one cluster, fixed by the gauge alone.
    seed, starts, max_sweeps : int
        Of the search for a permutation.
    dtype : {"float32", "float64"}
        Of P and P W.
    verify : bool
        Evaluate the costs and the sampling error; they are NaN and None otherwise.

    Returns
    -------
    dict
        P, weights, permutation, cost, optimum, identity_cost, bound, rank, sigma, gauge_conditioning, blocks,
        block_error, error_model.
    """
    choose("group", group, ("orthogonal", "special_orthogonal", "permutation"))
    choose("gauge", gauge, ("identity", "canonical", "given"))
    choose("dtype", dtype, ("float32", "float64"))
    y = preactivations(W, source)
    n = y.n
    check_count("rank", rank, 0, n)
    check_count("starts", starts, 0)
    check_count("max_sweeps", max_sweeps, 0)
    lam = spectrum(penalty, n)
    T = to_device(lam.basis, y.xp, y.place)

    cut = rank if 0 < rank < n and group != "permutation" else 0
    c = principal(y) if cut == 0 else leading_principal(y, lam, cut)
    found: dict[str, Any] = {
        "permutation": None,
        "rank": c.rank,
        "sigma": np.ldexp(np.sqrt(c.variances if cut == 0 else c.variances[:cut]), y.e),
        "blocks": np.asarray(lam.blocks, dtype=np.int64),
        "block_error": None,
        "error_model": "",
    }
    if group == "permutation":
        search = _permutation(y, penalty, lam, seed, starts, max_sweeps)
        order = np.asarray(search.order, dtype=np.int64)
        P = to_device(np.eye(n)[order, :], y.xp, y.place)
        bound = scaled_back(y.name, search.bound, 2 * y.e)
        found |= {"permutation": order, "optimum": math.nan, "bound": bound, "gauge_conditioning": math.nan}
    else:
        special = group == "special_orthogonal"
        if cut > 0 and leading.modes_needed(lam.blocks, c.known) + c.known < n:
            P, conditioning = _leading(y, lam, T, c, special, gauge, P0)
        else:
            P, conditioning = _orthogonal(y, lam, T, c, special, gauge, P0)
        if cut > 0:
            least = leading.least_cost(lam.values, c.variances[: c.known], float(c.variances[c.known]), c.rest)
            found |= {"optimum": math.nan, "bound": scaled_back(y.name, least, 2 * y.e)}
        else:
            optimum = scaled_back(y.name, float(lam.values @ c.variances), 2 * y.e)
            found |= {"optimum": optimum, "bound": optimum}
        found["gauge_conditioning"] = conditioning
        if verify and y.n_samples > 0:
            found["error_model"] = "gaussian" if y.samples is None else "moments"
            found["block_error"] = block_errors(y, c, lam.blocks)

    xp = y.xp
    P = xp.astype(P, getattr(xp, dtype))
    weights = None
    if W is not None:
        weights = xp.astype(float64(P) @ float64(W), P.dtype)
    cost = identity_cost = math.nan
    if verify:  # from the P that is returned, the rounding of its cast included
        Tt = xp.matrix_transpose(T)
        cost = scaled_back(y.name, float(lam.values @ energies(y, Tt @ float64(P))), 2 * y.e)
        identity_cost = scaled_back(y.name, float(lam.values @ energies(y, Tt)), 2 * y.e)
    return found | {
        "P": P,
        "weights": weights,
        "cost": cost,
        "identity_cost": identity_cost,
    }


@dataclass(frozen=True, eq=False)
class Principal:
    """C = U diag(variances) Uᵀ, or the beginning of it."""

    variances: Host  # descending
    U: Array  # in columns
    rank: int
    known: int  # the variances that are told apart; those from there on are one cluster
    ties: list[int]  # offsets of the runs of equal variances among the known
    rest: float = 0.0  # the sum of the others

    @property
    def clusters(self) -> list[int]:
        n = int(self.U.shape[0])
        return self.ties if self.known == n else [*self.ties, n]


def principal(y: Preactivations) -> Principal:
    """Eigenvalues and eigenvectors of C."""
    if y.F is None:
        variances, U = eigh_positive(y.name, y.C, y.noise)
        values = variances
    else:
        # C = F Fᵀ = L Lᵀ: singular values of L keep the small end that C has lost to rounding
        U, values, _ = svd_thin(lower_root(y.F))
        variances = values**2
    # rounding is relative to what was decomposed: C, or its square root
    n_above = int(np.sum(values > y.n * EPS * values[0]))
    return Principal(variances, U, n_above, y.n, gauges.clusters_of(values, TIE * float(values[0])))


def leading_principal(y: Preactivations, lam: Spectrum, rank: int) -> Principal:
    """The `rank` largest eigenvalues of C, one more, and their vectors; all of them where those are most of them."""
    everything = leading.modes_needed(lam.blocks, rank) + rank >= y.n
    values, variances, U = leading.leading_spectrum(y, rank + 1, everything)
    known = leading.tied_cut(values, rank)
    n_above = int(np.sum(values[:rank] > y.n * EPS * values[0]))
    rest = max(0.0, leading.trace(y) - float(np.sum(variances[:known])))
    ties = gauges.clusters_of(values[:known], TIE * float(values[0]))
    return Principal(variances, U, n_above, known, ties, rest)


# --- which P ----------------------------------------------------------------------------------------------------------


def _svd_of(y: Preactivations) -> gauges.SVD:
    def svd(M: Host) -> tuple[Host, Host, Host]:
        # a component is a column or two, or as wide as a null space: then it is worth the way to the device
        if len(M) <= WIDE:
            X, S, Yt = np.linalg.svd(M)
            return X, S, Yt
        X, s, Yt = svd_thin(to_device(M, y.xp, y.place))
        return to_host(X), s, to_host(Yt)

    return svd


def _leading(
    y: Preactivations, lam: Spectrum, T: Array, c: Principal, special: bool, gauge: str, P0: Array | None
) -> tuple[Array, float]:
    xp, U = y.xp, c.U[:, : c.known]
    if gauge == "canonical":
        P = T @ xp.matrix_transpose(leading.canonical_leading(U, c.ties, _svd_of(y)))
        if special and float(xp.linalg.slogdet(P)[0]) < 0:
            last = T[:, -1:]  # of P = T Uᵀ, the last column of T is reversed
            P = P - 2 * last @ (xp.matrix_transpose(last) @ P)
        return P, math.nan
    reference = None if gauge == "identity" else leading.orthogonal_reference(_checked_reference(P0, y))
    F, G, conditioning = leading.nearest_leading(lam, T, U, c.ties, reference, special, _svd_of(y))
    if reference is None:
        return xp.eye(y.n, dtype=xp.float64, device=y.place) + G @ xp.matrix_transpose(F), conditioning
    return reference + (reference @ G) @ xp.matrix_transpose(F), conditioning


def _orthogonal(
    y: Preactivations, lam: Spectrum, T: Array, c: Principal, special: bool, gauge: str, P0: Array | None
) -> tuple[Array, float]:
    xp = y.xp
    Tt, Ut = xp.matrix_transpose(T), xp.matrix_transpose(c.U)

    svd = _svd_of(y)

    def P_of(GH: Host) -> Array:
        return T @ (to_device(GH, xp, y.place) @ Ut)

    if gauge == "canonical":
        H = gauges.canonical(to_host(c.U), c.clusters, svd)
        P, conditioning = P_of(H), math.nan
        flipped = H.copy()
        flipped[-1, :] *= -1  # the last column of T
    else:
        M = Tt @ c.U
        if gauge == "given":
            reference = _checked_reference(P0, y)
            M = Tt @ (reference if c.known == y.n else leading.orthogonal_reference(reference)) @ c.U
        rotation = gauges.nearest(to_host(M), lam.blocks, c.clusters, svd)
        P, conditioning = P_of(rotation.GH), rotation.conditioning
        flipped = rotation.flipped()
    if special and float(xp.linalg.slogdet(P)[0]) < 0:
        P = P_of(flipped)
    return P, conditioning


def _checked_reference(P0: Array | None, y: Preactivations) -> Array:
    if P0 is None:
        raise InvalidArgument("P0", "is needed with the gauge 'given'")
    xp = y.xp
    P0 = to_device(to_host(P0), xp, y.place, xp.float64)
    check_matrix("P0", P0, (y.n, y.n))
    departure = max_abs(xp.matrix_transpose(P0) @ P0 - xp.eye(y.n, dtype=xp.float64, device=y.place))
    if not departure <= 1e-6:
        raise InvalidArgument("P0", f"must be orthogonal to 1e-6; max|P0ᵀ P0 - I| is {departure:.3g}")
    return P0


# --- sampling error ---------------------------------------------------------------------------------------------------


def block_errors(y: Preactivations, c: Principal, blocks: list[int]) -> Host:
    """√E‖sin Θ_b‖² of the subspace of each block b, at most √(size of b).

    E‖sin Θ_b‖² = (1/N) Σ_{i in b, j not in b} m_ij / (s_i - s_j)², s = σ². m_ij = s_i s_j for Gaussian y; where the
    samples are at hand, E[z_i² z_j²] of their principal components z = Uᵀ y. Directions that are not known enter by a
    bound: none has more variance than the next one; blocks beyond the known ones have nothing to tell them apart.
    """
    r, sizes = c.known, np.diff(blocks)
    s, rest = c.variances[:r], r < y.n
    if r == 0:
        return np.sqrt(sizes)
    if y.samples is None:
        m = np.append(s, c.rest)[:, None] * s[None, :] if rest else s[:, None] * s[None, :]
    else:
        m = _fourth_moments(y, c.U[:, :r])[:, :r]
    gap = s[:, None] - s[None, :]
    block = np.repeat(np.arange(len(sizes)), sizes)[:r]
    tie = np.repeat(np.arange(len(c.ties) - 1), np.diff(c.ties))
    with quiet():
        terms = np.where(tie[:, None] == tie[None, :], np.inf, m[:r] / gap**2)
        terms[block[:, None] == block[None, :]] = 0.0
        sums = np.zeros(len(sizes))
        np.add.at(sums, block, terms.sum(axis=1))
        if rest:
            gap = s - c.variances[r]
            np.add.at(sums, block, np.where(gap > 0, m[r] / gap**2, np.inf))
    sums[np.asarray(blocks[1:]) > r] = np.inf
    return np.sqrt(np.minimum(sizes, sums / y.n_samples))


def _fourth_moments(y: Preactivations, U: Array) -> Host:
    """E[z_i² z_j²] of z = Uᵀ y; where U (n, r) is not square, a last row and column of |y|² - |z|² in place of a z²."""
    assert y.samples is not None
    xp, total = y.xp, None
    for Y in y.samples():
        Z2 = (Y @ U) ** 2
        if U.shape[1] < y.n:
            left = xp.sum(Y**2, axis=1) - xp.sum(Z2, axis=1)
            Z2 = xp.concat([Z2, xp.where(left > 0, left, xp.zeros_like(left))[:, None]], axis=1)
        part = xp.matrix_transpose(Z2) @ Z2
        total = part if total is None else total + part
    assert total is not None
    return np.asarray(to_host(total) / y.n_samples)


# --- permutations -----------------------------------------------------------------------------------------------------


def _permutation(
    y: Preactivations, penalty: Spec, lam: Spectrum, seed: int, starts: int, max_sweeps: int
) -> permutations.PermutationSearch:
    # a combinatorial search: on the host
    return permutations.search_permutation(
        penalty_matrix(penalty, y.n),
        to_host(y.C),
        circulant=lam.circulant,
        seed=seed,
        starts=starts,
        max_sweeps=max_sweeps,
        penalty_eigenvalues=lam.values,
    )
