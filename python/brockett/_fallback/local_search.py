"""Descent over the orders of n neurons by single moves: exchanges, insertions and segment reversals."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Host = npt.NDArray[np.float64]
Order = npt.NDArray[np.int64]

#: multiplications that the matrix products of one descent may cost, and the least number of products
PRODUCT_WORK, FEWEST_PRODUCTS = 2**37, 14


class LocalSearch:
    """Descends from an order by exchanges, insertions and segment reversals. B is C in the present order, G = A B.

    A pass lists the best move of each neuron (or centre of reversal) for the order it begins with, all n² changes at
    once out of matrix products, and makes those that still help when their turn comes. Neurons, not positions, are
    remembered. The formulas stand beside the loops of csrc/src/permutation.cpp.
    """

    def __init__(self, A: Host, C: Host, circulant: bool) -> None:
        self.A, self.C, self.circulant = A, C, circulant
        n = A.shape[0]
        # changes of the cost below this are rounding: n products of two rows, to a few units in the last place each
        norms = [math.sqrt(float((M**2).sum(axis=1).max())) for M in (A, C)]
        self.rounding = 16.0 * n * 2.0**-52 * norms[0] * norms[1]

    def polish(self, start: Order, max_sweeps: int) -> Order:
        n = start.size
        if n < 2:
            return start
        self.order = start.copy()
        self.place = np.empty_like(start)
        self.place[start] = np.arange(n)
        self.B = self.C[np.ix_(start, start)]
        self.G: Host | None = None
        self.products = 0
        most = max(FEWEST_PRODUCTS, PRODUCT_WORK // n**3)
        for _ in range(max_sweeps):
            if self.products >= most:
                break
            # an exchange pass costs a fraction of the others: they wait until it has little left to do. Reversals are
            # what is left in the end, so they go on until there are none.
            exchanged = self._exchange_pass()
            if 16 * exchanged > n:
                continue
            inserted = self._insertion_pass()
            reversed_, made = 0, -1
            while made != 0 and self.products < most:
                made = self._reversal_pass()
                reversed_ += made
            if exchanged + inserted + reversed_ == 0:
                break
        return np.asarray(self.order)

    def _multiply(self, X: Host, Y: Host) -> Host:
        self.products += 1
        return np.asarray(X @ Y)

    def _fresh(self) -> Host:
        if self.G is None:
            self.G = self._multiply(self.A, self.B)
        return self.G

    def _exchanges(self) -> tuple[Host, Host]:
        """Σ_{k ≠ r, s} (A_rk - A_sk)(B_sk - B_rk) and (A_rr - A_ss)(B_ss - B_rr), both (n, n)."""
        A, B, G = self.A, self.B, self._fresh()
        a, b, g = np.diag(A), np.diag(B), np.diag(G)
        everything = G + G.T - g[:, None] - g[None, :]
        ends = (a[:, None] - A) * (B - b[:, None]) + (A - a[None, :]) * (b[None, :] - B)
        return everything - ends, (a[:, None] - a[None, :]) * (b[None, :] - b[:, None])

    def _exchange_pass(self) -> int:
        off, diagonal = self._exchanges()
        change = np.where(np.tri(off.shape[0], dtype=bool), np.inf, 2 * off + diagonal)
        lowest = np.minimum(change.min(axis=1), 0.0)
        partner = np.argmax(change <= lowest[:, None] + self.rounding, axis=1)
        at = np.flatnonzero(lowest < -4 * self.rounding)
        return self._make(self.order[at], self.order[partner[at]], self._exchange)

    def _insertion_pass(self) -> int:
        G = self._fresh()
        # change[j, i]: position i goes to j; to the left is to the right seen in a mirror
        change = self._insertions(self.A, self.B, G)
        change += self._insertions(self.A[::-1, ::-1], self.B[::-1, ::-1], G[::-1, ::-1])[::-1, ::-1]
        lowest = np.minimum(change.min(axis=0), 0.0)
        target = np.argmax(change <= lowest[None, :] + self.rounding, axis=0)
        at = np.flatnonzero(lowest < -4 * self.rounding)
        return self._make(self.order[at], self.order[target[at]], self._insertion)

    def _insertions(self, A: Host, B: Host, G: Host) -> Host:
        n = A.shape[0]
        dA = A[:-1] - A[1:]
        a, b, m = np.diag(A), np.diag(B), np.arange(n - 1)
        product = self._multiply(np.tril(dA[:, :-1], -1), np.tril(B[1:] - B[:-1]))
        terms = np.tril(dA[:, :-1] * (B[1:, 1:] - B[1:, :-1]), -1)
        shifted = np.zeros((n - 1, n))
        shifted[:, :-1] = np.cumsum(terms[:, ::-1], axis=1)[:, ::-1]
        everything = (G[m, m + 1] - G[m + 1, m + 1])[:, None] - G[:-1] + G[1:]
        ends = dA[m, m][:, None] * (B[m + 1, m][:, None] - B[:-1]) + dA[m, m + 1][:, None] * (b[1:, None] - B[1:])
        step = 2 * (everything - ends + shifted - product) + (a[:-1] - a[1:])[:, None] * (b[1:, None] - b[None, :])
        change = np.zeros((n, n))
        change[1:] = np.cumsum(np.tril(step), axis=0)
        return np.tril(change, -1)

    def _reversal_pass(self) -> int:
        n = self.A.shape[0]
        off, diagonal = self._exchanges()
        U, V = np.triu(self.A, 1), np.triu(self.B, 1)
        between = self._multiply(U, V) + self._multiply(V, U)
        UV = U * V
        between -= np.cumsum(UV, axis=1) - UV
        between -= np.cumsum(UV[::-1], axis=0)[::-1] - UV
        mirrored = -between if self.circulant else self._mirrored()
        change = 2 * (off - between + mirrored) + diagonal
        lowest = np.zeros(2 * n)
        for r in range(n - 2, -1, -1):
            if r + 3 < n:
                change[r, r + 3 :] += change[r + 1, r + 2 : n - 1]
            part = slice(2 * r + 1, r + n)
            lowest[part] = np.minimum(lowest[part], change[r, r + 1 :])
        first, second = [], []
        for total in np.flatnonzero(lowest < -4 * self.rounding).tolist():
            r = (total - 1) // 2
            while change[r, total - r] > lowest[total] + self.rounding:
                r -= 1
            first.append(r)
            second.append(total - r)
        return self._make(self.order[first], self.order[second], self._reversal)

    def _mirrored(self) -> Host:
        """Σ_{r < k < s} (A_rk - A_sk)(B_{s,r+s-k} - B_{r,r+s-k}), by centres."""
        A, B, n = self.A, self.B, self.A.shape[0]
        out = np.zeros((n, n))
        for total in range(2, 2 * n - 3):
            r = np.arange(max(0, total - n + 1), (total + 1) // 2)
            s = total - r
            k = np.arange(r[0] + 1, s[0])
            inside = (k > r[:, None]) & (k < s[:, None])
            dA, dB = A[np.ix_(r, k)] - A[np.ix_(s, k)], B[np.ix_(s, total - k)] - B[np.ix_(r, total - k)]
            out[r, s] = (dA * dB * inside).sum(axis=1)
        return out

    # What a move is: the positions it touches, and where each takes its neuron from.

    @staticmethod
    def _exchange(i: int, j: int) -> tuple[Order, Order]:
        low, high = min(i, j), max(i, j)
        return np.array([low, high]), np.array([high, low])

    @staticmethod
    def _insertion(i: int, j: int) -> tuple[Order, Order]:
        positions = np.arange(min(i, j), max(i, j) + 1)
        return positions, np.roll(positions, -1 if i < j else 1)

    @staticmethod
    def _reversal(i: int, j: int) -> tuple[Order, Order]:
        positions = np.arange(min(i, j), max(i, j) + 1)
        return positions, positions[::-1]

    def _make(self, first: Order, second: Order, move: Callable[[int, int], tuple[Order, Order]]) -> int:
        """Make the moves that help, one after the other; how many did."""
        made = 0
        for x, y in zip(first.tolist(), second.tolist(), strict=True):
            i, j = int(self.place[x]), int(self.place[y])
            if i == j:
                continue
            positions, sources = move(i, j)
            if self._change_of(positions, sources) >= -4 * self.rounding:
                continue
            moved = self.order[sources]
            self.order[positions] = moved
            self.place[moved] = positions
            rows = self.C[moved][:, self.order]
            self.B[positions] = rows
            self.B[:, positions] = rows.T
            self.G = None
            made += 1
        return made

    def _change_of(self, positions: Order, sources: Order) -> float:
        """Σ_{r in S} (2 Σ_{k not in S} + Σ_{k in S}) A_rk (B'_rk - B_rk), S the positions, B' what B becomes."""
        rows, before, after = self.A[positions], self.B[positions], self.B[sources]
        moved = after - before
        inside = after[:, sources] - before[:, positions] - 2 * moved[:, positions]
        return float(2 * (rows * moved).sum() + (rows[:, positions] * inside).sum())
