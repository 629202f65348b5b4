"""The permutation descrambler: the order of n neurons that makes their outputs smoothest, and a bound on how smooth.

η(p) = Σ_ij A_ij C_{p_i p_j} = tr(A P C Pᵀ), row i of P being e_{p_i}: a quadratic assignment problem, so a good order
and a lower bound, not the optimum. The same search as the compiled core's (csrc/src/permutation.cpp, where the
constants are explained): same random numbers, same moves in the same order, same rules for ties, so the same answer up
to ties in rounding. NumPy on the host, whatever the arrays came from: the search branches on single numbers throughout.

References
----------
J. T. Vogelstein et al., "Fast approximate quadratic programming for graph matching", PLoS ONE 10 (2015) e0121002.
J. E. Atkins, E. G. Boman, B. Hendrickson, "A spectral algorithm for seriation", SIAM J. Comput. 28 (1998) 297.
S. W. Hadley, F. Rendl, H. Wolkowicz, "A new lower bound via projection for the quadratic assignment problem", Math.
Oper. Res. 17 (1992) 727.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .._errors import InvalidArgument, NonFinite
from . import philox
from .assignment import solve_assignment
from .local_search import LocalSearch

Host = npt.NDArray[np.float64]
Order = npt.NDArray[np.int64]

ALL_STARTS, SOME_STARTS = 256, 1024
DESCENT_STEPS, DESCENT_GAIN = 40, 1e-5
SHIFTS = (0.7, 1.0)
LEADING = 8
SPECTRAL_STARTS = 3


@dataclass(frozen=True)
class PermutationSearch:
    """A good order, and what is known of the best one.

    Attributes
    ----------
    order : ndarray of int64 (n,)
        Neuron order[i] comes i-th.
    cost : float
        η(order).
    bound : float
        No order costs less: the projection bound, or the cost itself if less by rounding.
    exact : bool
        Every order was tried, so the cost is the minimum.
    starts : int
        Orders that were polished, randomized or not.
    """

    order: Order
    cost: float
    bound: float
    exact: bool
    starts: int


def search_permutation(
    A: Host,
    C: Host,
    *,
    circulant: bool = False,
    seed: int = 0,
    starts: int = 8,
    max_sweeps: int = 1000,
    exhaustive_up_to: int = 8,
    penalty_eigenvalues: npt.ArrayLike | None = None,
) -> PermutationSearch:
    """A good order for η(p) = Σ_ij A_ij C_{p_i p_j}.

    Parameters
    ----------
    A, C : ndarray of float64 (n, n)
        Symmetric, n >= 1.
    circulant : bool, default False
        A_ij depends on (j - i) mod n alone: the cost does not change under rotations and reflections of the order,
        which is returned in the gauge p_0 = 0, p_1 < p_{n-1}.
    seed : int, default 0
        Of the randomized starts; start k reads the uniform numbers k n² … (k + 1) n² - 1 of this Philox stream.
    starts : int, default 8
        Randomized starts. More of them for a better order, at proportionate cost.
    max_sweeps : int, default 1000
        A cap on the sweeps of the local search from each start.
    exhaustive_up_to : int, default 8
        Up to this n every order is tried, and the cost is the minimum.
    penalty_eigenvalues : array_like (n,), optional
        Eigenvalues of A in any order, where they are known: saves an eigendecomposition.

    Returns
    -------
    PermutationSearch

    Raises
    ------
    InvalidArgument
        A or C is not (n, n).
    NonFinite
        A NaN or Inf in A or C.

    Notes
    -----
    The best of several starts: the identity; for circulant A the angles of the neurons in the plane of the two leading
    eigenvectors of the centred C, and the order along the smoothest eigenvector of their neighbourhood graph, folded
    around the ring; for other A the reversed order, and the three best alignments of the two smoothest eigenvectors of
    A with those of that graph; and `starts` Frank-Wolfe descents with exact line search from random doubly stochastic
    matrices, over tr((A - aI) P C Pᵀ). Each is polished by exchanges, insertions and segment reversals until none of
    them helps.

    The aI, a constant on permutations, matters: with A positive semidefinite the relaxation is convex with its minimum
    at the barycentre, which knows no order; a near tr A / n leaves saddles whose descent ends at good vertices.

    Per start about 40 assignment problems and 100 matrix products of n. Above n = 256 fewer starts are made.
    """
    n = _require_square("A", A)
    if C.shape != A.shape:
        raise InvalidArgument("C", f"expected shape {A.shape}, that of A, got {C.shape}")
    _require_square("C", C)
    A, a_exponent = _scaled(A)
    C, c_exponent = _scaled(C)
    if _annihilates_ones(A):
        # the parts m 1ᵀ + 1 mᵀ of C cost nothing, and taking them off keeps their rounding out of the rest,
        # which may be small beside them, unless it is their rounding
        mean = C.mean(axis=1)
        C = C - (mean[:, None] + mean[None, :] - mean.mean())
        C, more = _scaled(C if np.abs(C).max() > 4.0 * n * 2.0**-52 else np.zeros_like(C))
        c_exponent += more
    eigenvalues = None if penalty_eigenvalues is None else np.ldexp(np.asarray(penalty_eigenvalues, float), -a_exponent)

    search = LocalSearch(A, C, circulant)
    if n <= exhaustive_up_to:
        order, used = _try_all(A, C, circulant, search.rounding), 0
    else:
        order, used = _best_of_starts(search, seed, starts, max_sweeps, eigenvalues)
    if circulant:
        order = fix_dihedral_gauge(order)
    cost = permutation_cost(A, C, order)
    bound = min(_bound(A, C, eigenvalues), cost)
    exponent = a_exponent + c_exponent
    return PermutationSearch(
        order, float(np.ldexp(cost, exponent)), float(np.ldexp(bound, exponent)), n <= exhaustive_up_to, used
    )


def projection_bound(A: Host, C: Host, penalty_eigenvalues: npt.ArrayLike | None = None) -> float:
    """A lower bound on η over all permutations, from their being orthogonal with row and column sums 1.

    ⟨λ(VᵀAV) ascending, λ(VᵀCV) descending⟩ + (2/n) ⟨r(A) ascending, r(C) descending⟩ - s(A) s(C) / n², with V (n, n-1)
    an orthonormal basis of the complement of 1, r the row sums and s their total. Two eigenvalue problems of n - 1.

    Parameters
    ----------
    A, C : ndarray of float64 (n, n)
        Symmetric.
    penalty_eigenvalues : array_like (n,), optional
        Eigenvalues of A where they are known.

    Returns
    -------
    float
    """
    _require_square("A", A)
    _require_square("C", C)
    return _bound(A, C, None if penalty_eigenvalues is None else np.asarray(penalty_eigenvalues, float))


def permutation_cost(A: Host, C: Host, order: Order) -> float:
    """Σ_ij A_ij C_{p_i p_j}."""
    return float((A * C[np.ix_(order, order)]).sum())


def fix_dihedral_gauge(order: Order) -> Order:
    """The rotation or reflection of a cyclic order with p_0 = 0 and p_1 < p_{n-1}."""
    order = np.roll(order, -int(np.flatnonzero(order == 0)[0]))
    if order.size > 2 and order[1] > order[-1]:
        order[1:] = order[:0:-1].copy()
    return order


# --- starts -----------------------------------------------------------------------------------------------------------


def _best_of_starts(
    search: LocalSearch, seed: int, starts: int, max_sweeps: int, eigenvalues: Host | None
) -> tuple[Order, int]:
    A, C, n = search.A, search.C, search.A.shape[0]
    identity = np.arange(n)
    given = [identity]
    if n > 2 and search.circulant:
        given += [_circular_seriation(C), _folded_seriation(C)]
    elif n > 2:
        given += [identity[::-1], *_spectral_matches(A, C, search.rounding)]
    if n > ALL_STARTS:
        given = [given[_first_lowest(np.array([permutation_cost(A, C, p) for p in given]), search.rounding)]]

    best, lowest, used = identity, permutation_cost(A, C, identity), 0
    for start in itertools.chain(given, _descents(search, seed, starts, eigenvalues)):
        p = search.polish(fix_dihedral_gauge(start) if search.circulant else start, max_sweeps)
        cost = permutation_cost(A, C, p)
        if cost < lowest - 4 * search.rounding:
            best, lowest = p, cost
        used += 1
    return best, used


def _descents(search: LocalSearch, seed: int, starts: int, eigenvalues: Host | None) -> Iterator[Order]:
    A, C, n = search.A, search.C, search.A.shape[0]
    if n > SOME_STARTS:
        starts = 0
    elif n > ALL_STARTS:
        starts = min(starts, max(1, int(starts * (ALL_STARTS / n) ** 3)))
    if starts <= 0:
        return
    smallest = float(np.min(np.linalg.eigvalsh(A) if eigenvalues is None else eigenvalues))
    mean = float(np.trace(A)) / n
    # neurons that are alike tie in every assignment problem; this tells them apart above rounding
    C = C + np.diag(1e-7 * philox.uniform(0, 0, n))
    for k in range(starts):
        shift = smallest + SHIFTS[k % len(SHIFTS)] * (mean - smallest)
        P = _random_doubly_stochastic(seed, k * n * n, n)
        yield _descend(A - shift * np.eye(n), C, P)


def _random_doubly_stochastic(seed: int, first: int, n: int) -> Host:
    # half the barycentre and half a random doubly stochastic matrix, by ten rounds of Sinkhorn's scaling
    P = philox.uniform(seed, first, n * n).reshape(n, n)
    for _ in range(10):
        P = P / P.sum(axis=1, keepdims=True)
        P = P / P.sum(axis=0, keepdims=True)
    return 0.5 * P + 0.5 / n


def _descend(S: Host, C: Host, P: Host) -> Order:
    """Frank-Wolfe on f(P) = tr(S P C Pᵀ) from the doubly stochastic P; the permutation nearest to where it ends.

    With M = S P C, Q the vertex that ⟨M, Q⟩ likes least and N = S Q C, along P + t (Q - P):
    f(t) = f + 2t (⟨M, Q⟩ - f) + t² (⟨N, Q⟩ - 2 ⟨M, Q⟩ + f).
    """
    rows = np.arange(P.shape[0])
    M = S @ (P @ C)
    f = float((M * P).sum())
    duals = None
    for _ in range(DESCENT_STEPS):
        q, duals = solve_assignment(M, duals)
        N = S @ C[q]
        mq, nq = float(M[rows, q].sum()), float(N[rows, q].sum())
        slope, curvature = 2 * (mq - f), nq - 2 * mq + f
        if slope >= 0:
            break
        t = min(1.0, -slope / (2 * curvature)) if curvature > 0 else 1.0
        P = P * (1 - t)
        P[rows, q] += t
        M = (1 - t) * M + t * N
        before, f = f, f + t * (slope + t * curvature)
        if before - f <= DESCENT_GAIN * (abs(before) + abs(f)):
            break
    return solve_assignment(-P)[0]


def _circular_seriation(C: Host) -> Order:
    # by angle in the leading plane of the centred C: exact for a ring of neurons with alike tuning curves
    plane = _leading_plane(C)
    return _sorted_by(np.arctan2(plane[:, 1], plane[:, 0]))


def _neighbour_plane(C: Host) -> Host:
    """The two smoothest eigenvectors of the graph whose weights fall with the distance of two neurons' outputs.

    w_ij = exp(-3 d_ij² / mean d²), d_ij² = C_ii + C_jj - 2 C_ij. The first is monotone along a curve of neurons, where
    the leading eigenvectors of C bend back at the ends.
    """
    c = np.diag(C)
    d = np.maximum(0.0, c[:, None] + c[None, :] - 2 * C)
    total = float(d.sum())
    weights = np.exp((-3 * d.size / total if total > 0 else 0.0) * d)
    return _leading_plane(weights - np.diag(weights.sum(axis=1)))


def _folded_seriation(C: Host) -> Order:
    # a curve of neurons laid around a ring: every other one on the way out, the others on the way back
    along = _sorted_by(_neighbour_plane(C)[:, 0])
    return np.concatenate([along[::2], along[1::2][::-1]])


def _spectral_matches(A: Host, C: Host, rounding: float) -> list[Order]:
    """Orders that lay the plane of the neurons over the smoothest plane of A.

    Along the first axis either way, and by assignment for the eight ways of a square: the best few by cost.
    """
    n = A.shape[0]
    places, neurons = _leading_plane(-A), _neighbour_plane(C)
    orders: list[Order] = []
    along = _sorted_by(places[:, 0])
    for sign in (1.0, -1.0):
        order = np.empty_like(along)
        order[along] = _sorted_by(sign * neurons[:, 0])
        orders.append(order)
    if n <= SOME_STARTS:
        # places that mirror each other tie: noise far below the distances of others decides, not the last bit
        noise = 1e-7 / n * philox.uniform(0, 0, n * n).reshape(n, n)
        for axes in ((0, 1), (1, 0)):
            for sy, sx in itertools.product((1.0, -1.0), (1.0, -1.0)):
                x, y = sx * places[:, 0], sy * places[:, 1]
                match = x[:, None] * neurons[:, axes[0]] + y[:, None] * neurons[:, axes[1]]
                orders.append(solve_assignment(-match + noise)[0])
    costs = np.array([permutation_cost(A, C, p) for p in orders])
    found: list[Order] = []
    while len(found) < SPECTRAL_STARTS and math.isfinite(costs.min()):
        best = _first_lowest(costs, rounding)
        found.append(orders[best])
        # equal costs are the same order up to a symmetry of A as a rule
        costs[costs <= costs[best] + 8 * rounding] = np.inf
    return found


def _sorted_by(keys: Host) -> Order:
    # by the keys, and by index where they differ by rounding: alike neurons would else change places at will
    order = np.argsort(keys, kind="stable")
    run = np.cumsum(np.diff(keys[order], prepend=-np.inf) > 1e-9 * np.abs(keys).max())
    return order[np.lexsort((order, run))]


def _leading_plane(C: Host) -> Host:
    """Two orthonormal vectors (n, 2) of the leading eigenspaces of C on the complement of 1.

    Where eigenvalues coincide the basis of a LAPACK is anybody's; this one is made of the projections of unit vectors
    e_j onto the space, the longest first, so it depends on the space alone. A space that reaches beyond LEADING is
    nobody's: zeros instead.
    """
    n = C.shape[0]
    count = min(n - 1, LEADING)
    values, vectors = np.linalg.eigh(_compress(C))
    values = values[::-1][:count]
    w = _reflector(n)
    V = np.zeros((count, n))
    V[:, 1:] = vectors[:, ::-1][:, :count].T
    V -= 2 * (V @ w)[:, None] * w
    largest = float(np.abs(values).max())

    plane = np.zeros((n, 2))
    found, first = 0, 0
    while first < count and found < 2:
        last = first + 1
        while last < count and values[last - 1] - values[last] <= 1e-9 * largest:
            last += 1
        if last == count < n - 1 and last - first > 1:
            break
        space = V[first:last]
        length = (space**2).sum(axis=0)  # of the projection of e_j, squared
        for taken in range(min(last - first, 2 - found)):
            j = int(np.argmax(length >= length.max() * (1 - 1e-6)))
            u = space[:, j] @ space
            if taken == 1:
                u = u - plane[j, 0] * plane[:, 0]
            u = u / math.sqrt(float(u @ u))
            plane[:, found] = u
            length = length - u**2
            found += 1
        first = last
    return plane


def _first_lowest(costs: Host, rounding: float) -> int:
    return int(np.argmax(costs <= costs.min() + rounding))


# --- bound ------------------------------------------------------------------------------------------------------------


def _bound(A: Host, C: Host, eigenvalues: Host | None) -> float:
    n = A.shape[0]
    ra, rc = np.sort(A.sum(axis=1)), np.sort(C.sum(axis=1))[::-1]
    bound = 2 / n * float(ra @ rc) - float(ra.sum() * rc.sum()) / n**2
    if n == 1:
        return float(bound)
    if eigenvalues is not None and _annihilates_ones(A):
        # 1 is an eigenvector of eigenvalue 0; VᵀAV has the others
        a = np.sort(np.delete(eigenvalues, np.argmin(np.abs(eigenvalues))))
    else:
        a = np.asarray(np.linalg.eigvalsh(_compress(A)))
    return float(bound + a @ np.linalg.eigvalsh(_compress(C))[::-1])


def _reflector(n: int) -> Host:
    # H = I - 2 w wᵀ takes 1 / √n to -e_0; its other columns are V
    w = np.full(n, 1 / math.sqrt(n))
    w[0] += 1
    return w / math.sqrt(float(w @ w))


def _compress(A: Host) -> Host:
    """VᵀAV (n-1, n-1): HAH = A - 2 w zᵀ - 2 z wᵀ with z = A w - (wᵀA w) w, without its first row and column."""
    w = _reflector(A.shape[0])
    z = A @ w
    z = z - float(z @ w) * w
    return np.asarray((A - 2 * (w[:, None] * z + z[:, None] * w))[1:, 1:])


def _annihilates_ones(A: Host) -> bool:
    return bool(np.abs(A.sum(axis=1)).max() <= 1e-10 * np.abs(A).sum(axis=1).max())


# --- all orders -------------------------------------------------------------------------------------------------------


def _try_all(A: Host, C: Host, circulant: bool, rounding: float) -> Order:
    """The first order whose cost is the lowest to rounding, lexicographically; in the dihedral gauge if circulant."""
    n = A.shape[0]
    candidates: Iterable[tuple[int, ...]]
    if circulant:
        tails = itertools.permutations(range(1, n))
        candidates = ((0, *tail) for tail in tails if n < 3 or tail[0] < tail[-1])
    else:
        candidates = itertools.permutations(range(n))
    orders, costs = [], []
    while block := list(itertools.islice(candidates, 4096)):
        p = np.array(block, dtype=np.int64)
        orders.append(p)
        costs.append((C[p[:, :, None], p[:, None, :]] * A).sum(axis=(1, 2)))
    return np.asarray(np.concatenate(orders)[_first_lowest(np.concatenate(costs), rounding)])


# --- arguments --------------------------------------------------------------------------------------------------------


def _require_square(name: str, A: Host) -> int:
    if A.ndim != 2 or A.shape[0] != A.shape[1] or A.shape[0] < 1:
        raise InvalidArgument(name, f"expected shape (n, n), n >= 1, got {A.shape}")
    bad = np.argwhere(~np.isfinite(A))
    if bad.size:
        raise NonFinite(name, tuple(bad[0].tolist()))
    return int(A.shape[0])


def _scaled(A: Host) -> tuple[Host, int]:
    # by a power of two so that the largest entry is in [1/2, 1): no entry is rounded
    exponent = math.frexp(float(np.abs(A).max()))[1]
    return np.ldexp(A, -exponent), exponent
