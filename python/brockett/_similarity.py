"""Similarities of hyperedges by the nodes they share, and how well they tell classes apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ._errors import InvalidArgument

__all__ = ["Separation", "jaccard_of", "overlaps", "ratios", "separation_of"]

Matrix = npt.NDArray[np.float64]
Sparse = Any  # scipy.sparse.csr_array; SciPy is an optional library

#: Entries of a block of overlaps held at once: 32 MiB of float64.
_BLOCK = 1 << 22
#: A multiply-add of a sparse product costs as much as this many of a dense one (measured: scipy.sparse 1.17 against
#: NumPy's OpenBLAS in float32, one thread, 1,000 edges of 50 nodes of 512: 3.6 ns against 0.022 ns).
_SPARSE_COST = 150.0


@dataclass(frozen=True, eq=False)
class Separation:
    """How well classes are told apart, from the mean Jaccard similarities of their members.

    Attributes
    ----------
    similarity : ndarray (n_classes, n_classes)
        Mean over pairs of different members; NaN where there is no pair, for the reason in `declined`.
    within, between : float
        Mean over all pairs of one class, and of two classes; NaN likewise.
    silhouette : ndarray (n_edges,)
        (b - a) / max(a, b) of each member, in [-1, 1]: a its mean distance 1 - Jaccard to its own class, b to the
        nearest other one. 0 for the only member of a class, and where there is one class.
    nearest : ndarray (n_edges,), int64
        Class whose members are the most similar on average, the member itself left out; -1 for one that shares nothing
        with anybody.
    accuracy : float
        Share of the members whose nearest class is their own.
    declined : dict of int to str
        Classes about which nothing can be said, and why.
    """

    similarity: Matrix
    within: float
    between: float
    silhouette: Matrix
    nearest: npt.NDArray[np.int64]
    accuracy: float
    declined: dict[int, str]


def overlaps(A: Sparse, B: Sparse) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Blocks of rows of AᵀB of the memberships, and the number of their first row: how many nodes two edges share."""
    members, theirs = A.copy(), B.copy()
    n, m = A.shape[1], B.shape[1]
    step = max(1, _BLOCK // max(1, m))
    sparse_cost = float(np.diff(A.indptr).astype(np.float64) @ np.diff(B.indptr)) * _SPARSE_COST
    if sparse_cost > float(A.shape[0]) * n * m and A.shape[0] < 1 << 24:  # counts below 2^24 are exact in float32
        members.data, theirs.data = np.ones(members.nnz, np.float32), np.ones(theirs.nnz, np.float32)
        left, right = members.toarray(), theirs.toarray()
        for first in range(0, n, step):
            yield first, left[:, first : first + step].T @ right
        return
    members.data, theirs.data = np.ones(members.nnz, np.int32), np.ones(theirs.nnz, np.int32)
    transposed = members.T.tocsr()
    for first in range(0, n, step):
        yield first, (transposed[first : first + step] @ theirs).toarray()


def jaccard_of(overlap: npt.NDArray[Any], sizes: npt.NDArray[np.int64], others: npt.NDArray[np.int64]) -> Matrix:
    union = sizes[:, None] + others[None, :] - overlap.astype(np.float64)
    return np.asarray(overlap / np.maximum(union, 1.0), dtype=np.float64)


def ratios(A: Sparse, B: Sparse, contained: bool) -> Matrix:
    mine = np.bincount(A.indices, minlength=A.shape[1])
    theirs = np.bincount(B.indices, minlength=B.shape[1])
    result = np.empty((A.shape[1], B.shape[1]))
    for first, overlap in overlaps(A, B):
        rows = slice(first, first + len(overlap))
        if contained:
            result[rows] = overlap / np.maximum(mine[rows], 1)[:, None]
        else:
            result[rows] = jaccard_of(overlap, mine[rows], theirs)
    return result


def separation_of(toward: Matrix, one_hot: Matrix, classes: npt.NDArray[np.int64]) -> Separation:
    n, k = one_hot.shape
    if n == 0:
        raise InvalidArgument("hypergraph", "has no hyperedges")
    members = one_hot.sum(axis=0)
    pairs = np.outer(members, members) - np.diag(members)
    sums = one_hot.T @ toward
    similarity = np.divide(sums, pairs, out=np.full((k, k), np.nan), where=pairs > 0)
    declined = {
        int(c): "has no members" if members[c] == 0 else "has one member, and so no pair within"
        for c in range(k)
        if members[c] < 2
    }
    own = np.arange(k)
    inside, outside = pairs[own, own].sum(), pairs.sum() - pairs[own, own].sum()
    within = float(sums[own, own].sum() / inside) if inside else float("nan")
    between = float((sums.sum() - sums[own, own].sum()) / outside) if outside else float("nan")
    others = np.maximum(members[None, :] - one_hot, 0.0)  # whom a member is compared with
    mean = np.divide(toward, others, out=np.full((n, k), -np.inf), where=others > 0)
    each = np.arange(n)
    nearest = mean.argmax(axis=1)
    nearest[mean[each, nearest] <= 0] = -1  # shares nothing with anybody
    a = 1.0 - mean[each, classes]
    mean_others = mean.copy()
    mean_others[each, classes] = -np.inf
    b = 1.0 - mean_others.max(axis=1, initial=-np.inf)
    defined = np.isfinite(a) & np.isfinite(b) & (np.maximum(a, b) > 0)
    silhouette = np.zeros(n)
    silhouette[defined] = (b[defined] - a[defined]) / np.maximum(a[defined], b[defined])
    accuracy = float(np.mean(nearest == classes)) if n else float("nan")
    return Separation(similarity, within, between, silhouette, nearest.astype(np.int64), accuracy, declined)
