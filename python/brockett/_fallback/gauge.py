"""Which of the equally good descramblers: all minimisers are P = T G H Uᵀ.

G is orthogonal within the blocks of equal penalty λ, H within the clusters of equal variance σ². The P nearest to P₀
has the largest tr(P₀ᵀ P) = ⟨G H, M⟩, M = Tᵀ P₀ U. Positions that a block or a cluster ties together are a component:

* a component that is one block, or one cluster: G H = the polar factor of M there, X Yᵀ of M = X S Yᵀ;
* a component where blocks and clusters cross: alternate H_c = polar((Gᵀ M)_cc) and G_b = polar((M Hᵀ)_bb). Each step is
  the exact maximum given the other factor, so the trace never falls. H comes first: with rank-deficient data the large
  cluster is the null space, and G touches only the one block that it cuts.

Components are a column or two wide as a rule, so this is done on the host, with all components of one size at once.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ._arrays import Host
from .varying_polar import VaryingPolar, pays

#: polar factor of a square matrix by its SVD (X, s, Yt)
SVD = Callable[[Host], tuple[Host, Host, Host]]

MAX_SWEEPS = 200
#: Alternating polar factors that move no further than this have arrived.
SETTLED = 1e-12


@dataclass(frozen=True, eq=False)
class Rotation:
    """G H (n, n), block diagonal, and how well determined it is."""

    GH: Host
    conditioning: float  # smallest singular value of the overlaps that polar factors were taken of
    weakest: tuple[Host, Host]  # u, v: G H - 2 u vᵀ is the nearest one of the other determinant

    def flipped(self) -> Host:
        u, v = self.weakest
        return self.GH - 2 * np.outer(u, v)


def clusters_of(values: Host, tolerance: float) -> list[int]:
    """Offsets of the runs of equal `values` (descending), and their number: neighbours within `tolerance` are one."""
    cut = -np.diff(values) > tolerance
    return [0, *(np.flatnonzero(cut) + 1).tolist(), values.size] if values.size else [0]


def nearest(M: Host, blocks: Sequence[int], clusters: Sequence[int], svd: SVD = np.linalg.svd) -> Rotation:
    """G H of largest ⟨G H, M⟩, M (n, n) the overlap of the two bases."""
    n = M.shape[0]
    GH, weakest, conditioning = np.zeros((n, n)), (np.zeros(n), np.zeros(n)), math.inf
    simple: dict[int, list[int]] = {}  # width: offsets of the components that are one block or one cluster
    for lo, hi in _common_parts(blocks, clusters):
        crossing_blocks = _crossing(blocks, clusters, lo, hi)
        crossing_clusters = _crossing(clusters, blocks, lo, hi)
        if not crossing_blocks or not crossing_clusters:
            simple.setdefault(hi - lo, []).append(lo)
            continue
        part, s, u, v = _alternate(M[lo:hi, lo:hi], crossing_blocks, crossing_clusters, svd)
        GH[lo:hi, lo:hi] = part
        if s < conditioning:
            conditioning, weakest = s, (_placed(u, lo, n), _placed(v, lo, n))
    for width, offsets in simple.items():
        if width <= 2:
            X, S, Yt = np.linalg.svd(np.stack([M[lo : lo + width, lo : lo + width] for lo in offsets]))
        else:
            found = [svd(M[lo : lo + width, lo : lo + width]) for lo in offsets]
            X, S, Yt = (np.stack(list(part)) for part in zip(*found, strict=True))
        for lo, polar in zip(offsets, X @ Yt, strict=True):
            GH[lo : lo + width, lo : lo + width] = polar
        i = int(np.argmin(S[:, -1]))
        if S[i, -1] < conditioning:
            conditioning = float(S[i, -1])
            weakest = _placed(X[i, :, -1], offsets[i], n), _placed(Yt[i, -1, :], offsets[i], n)
    return Rotation(GH, conditioning, weakest)


def canonical(U: Host, clusters: Sequence[int], svd: SVD = np.linalg.svd) -> Host:
    """H (r, r) that fixes U (n, r) by itself: U Hᵀ is the canonical basis of the clusters.

    A single column: its largest entry positive. A cluster at positions c: nearest to the coordinate axes c.
    """
    r = U.shape[1]
    H = np.zeros((r, r))
    for lo, hi in itertools.pairwise(clusters):
        if hi - lo == 1:
            column = U[:, lo]
            H[lo, lo] = -1.0 if column[np.argmax(np.abs(column))] < 0 else 1.0
        else:
            X, _, Yt = svd(U[lo:hi, lo:hi])
            H[lo:hi, lo:hi] = X @ Yt
    return H


def _common_parts(blocks: Sequence[int], clusters: Sequence[int]) -> list[tuple[int, int]]:
    # what lies between two offsets that blocks and clusters share
    return list(itertools.pairwise(sorted(set(blocks) & set(clusters))))


def _crossing(parts: Sequence[int], others: Sequence[int], lo: int, hi: int) -> list[slice]:
    # the parts within [lo, hi) that a boundary of the others cuts, relative to lo
    cuts = [c for c in others if lo < c < hi]
    inside = ((a, b) for a, b in itertools.pairwise(parts) if lo <= a and b <= hi)
    return [slice(a - lo, b - lo) for a, b in inside if any(a < c < b for c in cuts)]


def _placed(v: Host, lo: int, n: int) -> Host:
    out = np.zeros(n)
    out[lo : lo + v.size] = v
    return out


def _alternate(M: Host, blocks: Sequence[slice], clusters: Sequence[slice], svd: SVD) -> tuple[Host, float, Host, Host]:
    """G H of a crossing component, its smallest singular value, and the direction (u, v) of it."""

    def polars(K: Host, parts: Sequence[slice], target: Host) -> tuple[float, Host, Host]:
        smallest, u, v = math.inf, np.zeros(len(M)), np.zeros(len(M))
        for part in parts:
            X, S, Yt = svd(K[part, part])
            target[part, part] = X @ Yt
            if S[-1] < smallest:
                smallest = float(S[-1])
                u, v = _placed(X[:, -1], part.start, len(M)), _placed(Yt[-1, :], part.start, len(M))
        return smallest, u, v

    G, H = np.eye(len(M)), np.eye(len(M))
    weakest: list[tuple[float, Host, Host]] = []

    def climb(patience: int, sweep: Callable[[], float]) -> None:
        """From G on, `sweep` taking it to the next and telling the trace, until that has not risen `patience` times."""
        before, still = -math.inf, 0
        arrived = moved = None  # where the step before ended, and how far it went
        extrapolated = False
        for count in range(MAX_SWEEPS):
            start = G.copy()
            trace = sweep()
            if extrapolated and trace < before and arrived is not None:  # too far: on from where the step before ended
                G[:], moved, extrapolated = arrived, None, False
                continue
            step = G - start
            still = still + 1 if trace - before <= 1e-15 * abs(trace) else 0
            if np.linalg.norm(step) <= SETTLED or still == patience:
                break
            before, now, extrapolated = trace, G.copy(), False
            # Steps that shrink by a constant factor are followed to where they end (Anderson's method of depth one: the
            # secant method where one angle is all that is free), and back onto the orthogonal matrices. Not so late
            # that no sweep would be left to judge it, and one to go back.
            late = count + 2 >= MAX_SWEEPS
            if not late and moved is not None and arrived is not None:
                change = float(np.linalg.norm(moved - step))
                share = float(np.sum(step * (moved - step))) / change / change if change > 0 else 0.0
                if math.isfinite(share) and share > -1:
                    polars((1 + share) * now - share * arrived, blocks, G)
                    extrapolated = True
            arrived, moved = now, step

    # A wide cluster whose ends are cut by narrow blocks: few columns of what it takes the polar factor of depend on G.
    J = np.concatenate([np.arange(b.start, b.stop) for b in blocks])
    wide = clusters[0]
    if len(clusters) == 1 and pays(wide.stop - wide.start, len(J)):
        V = np.isin(J, np.arange(wide.start, wide.stop))
        B = M[wide, wide].T.copy()
        B[:, J[V] - wide.start] = 0.0
        polar = VaryingPolar(B, M[J, wide].T, svd)
        K = np.zeros_like(M)

        def few() -> float:
            varying = G[np.ix_(J, J[V])]
            R, norm = polar(varying)
            KJ = M[np.ix_(J, J)]
            KJ[:, V] = R.T
            K[np.ix_(J, J)] = KJ
            polars(K, blocks, G)
            return norm - float(np.sum(R.T * varying)) + float(np.sum(G[np.ix_(J, J)] * KJ))

        climb(10, few)  # the angle is known better than the trace tells

    def whole() -> float:
        in_clusters = polars(G.T @ M, clusters, H)
        K = M @ H.T
        weakest[:] = [in_clusters, polars(K, blocks, G)]
        return float(np.sum(G * K))

    climb(2, whole)
    in_clusters, in_blocks = weakest
    if in_blocks[0] <= in_clusters[0]:
        s, u, v = in_blocks
        return G @ H, s, u, v @ H  # (G - 2 u vᵀ) H
    s, u, v = in_clusters
    return G @ H, s, G @ u, v  # G (H - 2 u vᵀ)
