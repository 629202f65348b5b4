"""The linear assignment problem: who takes what, at the least total cost (csrc/src/assignment.cpp, step by step).

References
----------
R. Jonker, A. Volgenant, "A shortest augmenting path algorithm for dense and sparse linear assignment problems",
Computing 38 (1987) 325.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Host = npt.NDArray[np.float64]
Order = npt.NDArray[np.int64]


def solve_assignment(cost: Host, duals: Host | None = None) -> tuple[Order, Host]:
    """The order minimising Σ_i cost[i, order_i], by shortest augmenting paths.

    Parameters
    ----------
    cost : ndarray of float64 (n, n)
        Finite.
    duals : ndarray (n,), optional
        Column duals of a similar problem to start from, any numbers.

    Returns
    -------
    order : ndarray of int64 (n,)
    duals : ndarray (n,)
        v with cost_ij >= u_i + v_j for some u, and equality along the order.

    Notes
    -----
    Column reduction, reduction transfer and augmenting row reduction before the paths; O(n³) at worst.
    """
    n = cost.shape[0]
    column_of, row_of = np.full(n, -1), np.full(n, -1)
    if duals is None:
        v, free = _reduce_columns(cost, column_of, row_of)
    else:
        v, free = duals.copy(), list(range(n))
    for _ in range(2):
        free = _reduce_rows(cost, v, column_of, row_of, free)
    for row in free:
        _augment(cost, v, column_of, row_of, row)
    return column_of, v


def _reduce_columns(cost: Host, column_of: Order, row_of: Order) -> tuple[Host, list[int]]:
    # v_j = min_i cost_ij; each column goes to the row of its minimum, last columns first. Then a row with one column
    # gives as much of its dual to the column as stays feasible.
    n = cost.shape[0]
    row_of_min = cost.argmin(axis=0)
    v = cost[row_of_min, np.arange(n)]
    matches = np.zeros(n, dtype=np.int64)
    for j in range(n - 1, -1, -1):
        i = row_of_min[j]
        if matches[i] == 0:
            column_of[i], row_of[j] = j, i
        matches[i] += 1
    for i in np.flatnonzero(matches == 1).tolist():
        slack = cost[i] - v
        slack[column_of[i]] = np.inf
        if n > 1:
            v[column_of[i]] -= slack.min()
    return v, np.flatnonzero(matches == 0).tolist()


def _reduce_rows(cost: Host, v: Host, column_of: Order, row_of: Order, free: Sequence[int]) -> list[int]:
    # Each free row takes its cheapest column and lowers that column's dual until the second cheapest ties; whoever had
    # the column is free again. Rounding can make that chain long: what is left after a while is left to the paths.
    n = cost.shape[0]
    stack, still_free = list(reversed(free)), []
    budget = 4 * n + 4 * len(stack)
    while stack:
        i = stack.pop()
        if n == 1 or budget <= 0:
            budget -= 1
            still_free.append(i)
            continue
        budget -= 1
        h = cost[i] - v
        first = int(h.argmin())
        lowest, h[first] = h[first], np.inf
        second = int(h.argmin())
        lowered = v[first] - (h[second] - lowest)
        lowers = lowered < v[first]
        if lowers:
            v[first] = lowered
        elif row_of[first] >= 0:
            first = second
        evicted = int(row_of[first])
        column_of[i], row_of[first] = first, i
        if evicted >= 0:
            column_of[evicted] = -1
            (stack if lowers else still_free).append(evicted)
    return still_free


def _augment(cost: Host, v: Host, column_of: Order, row_of: Order, start: int) -> None:
    # Dijkstra over the columns from one free row to the nearest free column, then the duals of the columns passed.
    n = cost.shape[0]
    distance, previous = np.full(n, np.inf), np.full(n, -1)
    reach = np.full(n, np.inf)  # the distance of the columns not yet passed
    passed: list[int] = []
    i, sink, shortest, offset = start, -1, 0.0, 0.0
    taken = np.zeros(n, dtype=bool)
    while sink < 0:
        d = cost[i] - v - offset + shortest
        shorter = (d < distance) & ~taken
        distance[shorter] = d[shorter]
        reach[shorter] = d[shorter]
        previous[shorter] = i
        column = int(reach.argmin())
        shortest = float(reach[column])
        if row_of[column] >= 0:
            # among equals a free column ends the search at once
            free = np.flatnonzero((reach == shortest) & (row_of < 0))
            if free.size:
                column = int(free[0])
        if row_of[column] < 0:
            sink = column
        else:
            taken[column] = True
            reach[column] = np.inf
            passed.append(column)
            i = int(row_of[column])
            offset = float(cost[i, column] - v[column])
    v[passed] += distance[passed] - shortest
    column = sink
    while True:
        row = int(previous[column])
        row_of[column] = row
        column_of[row], column = column, int(column_of[row])
        if row == start:
            break
