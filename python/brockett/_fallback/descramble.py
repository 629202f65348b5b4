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
        Above 0: σ² from this position on count as one cluster, fixed by the gauge alone.
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

    c = principal(y, rank)
    found: dict[str, Any] = {
        "permutation": None,
        "rank": c.rank,
        "sigma": np.ldexp(np.sqrt(c.variances), y.e),
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
        P, conditioning = _orthogonal(y, lam, T, c, group == "special_orthogonal", gauge, P0)
        optimum = scaled_back(y.name, float(lam.values @ c.variances), 2 * y.e)
        found |= {"optimum": optimum, "bound": optimum, "gauge_conditioning": conditioning}
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
    """C = U diag(variances) Uᵀ."""

    variances: Host  # descending
    U: Array  # in columns
    rank: int
    ties: list[int]  # offsets of the runs of equal variances
    clusters: list[int]  # the same, all from the rank cut on being one


def principal(y: Preactivations, rank: int = 0) -> Principal:
    """Eigenvalues and eigenvectors of C; with `rank` > 0 the variances from there on count as equal."""
    if y.F is None:
        variances, U = eigh_positive(y.name, y.C, y.noise)
        values = variances
    else:
        # C = F Fᵀ = L Lᵀ: singular values of L keep the small end that C has lost to rounding
        U, values, _ = svd_thin(lower_root(y.F))
        variances = values**2
    # rounding is relative to what was decomposed: C, or its square root
    n_above = int(np.sum(values > y.n * EPS * values[0]))
    tie = TIE * float(values[0])
    ties = gauges.clusters_of(values, tie)
    return Principal(variances, U, n_above, ties, gauges.clusters_of(values, tie, rank) if rank else ties)


# --- which P ----------------------------------------------------------------------------------------------------------


def _orthogonal(
    y: Preactivations, lam: Spectrum, T: Array, c: Principal, special: bool, gauge: str, P0: Array | None
) -> tuple[Array, float]:
    xp = y.xp
    Tt, Ut = xp.matrix_transpose(T), xp.matrix_transpose(c.U)

    def svd(M: Host) -> tuple[Host, Host, Host]:
        # a component is a column or two, or as wide as a null space: then it is worth the way to the device
        if len(M) <= WIDE:
            X, S, Yt = np.linalg.svd(M)
            return X, S, Yt
        X, s, Yt = svd_thin(to_device(M, xp, y.place))
        return to_host(X), s, to_host(Yt)

    def P_of(GH: Host) -> Array:
        return T @ (to_device(GH, xp, y.place) @ Ut)

    if gauge == "canonical":
        H = gauges.canonical(to_host(c.U), c.clusters, svd)
        P, conditioning = P_of(H), math.nan
        flipped = H.copy()
        flipped[-1, :] *= -1  # the last column of T
    else:
        M = Tt @ c.U if gauge == "identity" else Tt @ _checked_reference(P0, y) @ c.U
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
    samples are at hand, E[z_i² z_j²] of their principal components z = Uᵀ y.
    """
    s = c.variances
    if y.samples is None:
        m = s[:, None] * s[None, :]
    else:
        xp, total = y.xp, None
        for Y in y.samples():
            Z2 = (Y @ c.U) ** 2
            part = xp.matrix_transpose(Z2) @ Z2
            total = part if total is None else total + part
        m = to_host(total) / y.n_samples
    gap = s[:, None] - s[None, :]
    block, tie = (np.repeat(np.arange(len(offsets) - 1), np.diff(offsets)) for offsets in (blocks, c.ties))
    with quiet():
        terms = np.where(tie[:, None] == tie[None, :], np.inf, m / gap**2)
    terms[block[:, None] == block[None, :]] = 0.0
    sums = np.add.reduceat(terms.sum(axis=1), blocks[:-1]) / y.n_samples
    return np.sqrt(np.minimum(np.diff(blocks), sums))


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
