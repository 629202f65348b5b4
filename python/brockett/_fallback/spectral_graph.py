"""The singular value representation of a network (arXiv 2302.08183), over any array namespace.

Modes
-----
W (o, i, K): weights of one layer, K the positions of its kernel in one axis, 1 where there is no kernel.

    svr     W as o × (i K) = Σ s u vᵀ: output vectors u (o), input vectors v (i, K)
    cosvr   W as (o K) × i = Σ s u vᵀ: output vectors u (o, K), input vectors v (i)

Grouped layers are block diagonal, and have the modes of their blocks, with zeros in the channels of the other groups.

Overlaps
--------
    O_qp (j, i) = Σ_c v_j(c, q) u_i(c, p),    A (j, i) = Σ_qp O_qp(j, i)²

between mode i of the source and mode j of the target, c over the channels that they have in common. Where a fully
connected layer reads what a convolution writes (or the other way round), its axis is channels before positions.

Vectors are kept as (channels, positions · modes), the mode running fastest: entry (c, p modes + i).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device

from .._errors import InvalidArgument
from ._arrays import EPS, Array, Host, check_count, check_matrix, choose, float64, place_of, to_device
from .svd import svd

#: svd's tol, frobenius_tol, method, seed, oversampling, iterations, signs
_SVD = (1e-6, 0.0, "auto", 0, 10, 4, "right")


def graph_modes(
    weights: Sequence[Array], positions: Sequence[int], groups: Sequence[int], method: str, rank: int
) -> list[dict[str, Any]]:
    """Modes of each layer.

    Parameters
    ----------
    weights : list of arrays (o, i / groups · K), float32 or float64
    positions, groups : lists of int
        K and the number of groups, of each.
    method : {"svr", "cosvr"}
    rank : int
        Modes kept of each layer, at most; 0 keeps all.

    Returns
    -------
    list of dict
        out (o, P · m), in (i, Q · m), s (m,) float64 on the host, descending, group (m,) int64 on the host: where the
        mode lives; n_resolved: the leading modes with s > max(rows, columns) ε s₁, the vectors of the rest being
        arbitrary; residual, the largest of all groups, and method, of the first, as svd's.
    """
    choose("method", method, ("svr", "cosvr"))
    check_count("rank", rank, 0)
    for k, (W, K, G) in enumerate(zip(weights, positions, groups, strict=True)):
        name = f"layers[{k}]"
        place_of(name, W)
        check_matrix(name, W)
        if K < 1 or W.shape[1] % K:
            raise InvalidArgument(name, f"{W.shape[1]} columns are not a number of channels times {K} positions")
        if G < 1 or W.shape[0] % G:
            raise InvalidArgument(name, f"{W.shape[0]} output channels do not divide into {G} groups")
    return [_modes(*layer, method, rank) for layer in zip(weights, positions, groups, strict=True)]


def _modes(W: Array, K: int, G: int, method: str, rank: int) -> dict[str, Any]:
    xp = array_namespace(W)
    o, i = W.shape[0] // G, W.shape[1] // K
    parts = [_group_modes(W[g * o : (g + 1) * o, :], K, method, rank) for g in range(G)]
    # a block diagonal matrix has the modes of its blocks
    s = np.concatenate([part["s"] for part in parts])
    group = np.concatenate([np.full(part["s"].size, g) for g, part in enumerate(parts)])
    order = np.argsort(-s, kind="stable")[: rank or None]
    if G == 1:
        U, V = parts[0]["out"], parts[0]["in"]
    else:
        at = to_device(order, xp, device(W))
        U = xp.take(_block_diagonal([part["out"] for part in parts]), at, axis=2)
        V = xp.take(_block_diagonal([part["in"] for part in parts]), at, axis=2)
    s = s[order]
    longest = max(o, i * K) if method == "svr" else max(o * K, i)
    eps = EPS if W.dtype == xp.float64 else 2.0**-23
    return {
        "out": xp.reshape(U, (U.shape[0], -1)),
        "in": xp.reshape(V, (V.shape[0], -1)),
        "s": s,
        "group": group[order].astype(np.int64),
        "n_resolved": int(np.sum(s > longest * eps * s[0])),
        "residual": max(part["residual"] for part in parts),
        "method": parts[0]["method"],
    }


def _group_modes(W: Array, K: int, method: str, rank: int) -> dict[str, Any]:
    """Vectors of one group: out (o, P, m), in (i, Q, m)."""
    xp = array_namespace(W)
    o, i = W.shape[0], W.shape[1] // K
    if method == "cosvr":  # (o, i, K) -> (o K, i)
        W = xp.reshape(xp.matrix_transpose(xp.reshape(W, (o, i, K))), (o * K, i))
    found = svd(W, min(rank, *W.shape), *_SVD)
    m = found["s"].size
    V = xp.matrix_transpose(found["Vt"])
    U_shape, V_shape = ((o, 1, m), (i, K, m)) if method == "svr" else ((o, K, m), (i, 1, m))
    return {**found, "out": xp.reshape(found["U"], U_shape), "in": xp.reshape(V, V_shape)}


def _block_diagonal(parts: list[Array]) -> Array:
    """(n, P, m) of each group, as one (groups · n, P, groups · m) with zeros elsewhere."""
    xp = array_namespace(parts[0])
    rows = []
    for g, part in enumerate(parts):
        n, P, m = part.shape
        before = xp.zeros((n, P, g * m), dtype=part.dtype, device=device(part))
        after = xp.zeros((n, P, (len(parts) - 1 - g) * m), dtype=part.dtype, device=device(part))
        rows.append(xp.concat([before, part, after], axis=2))
    return xp.concat(rows, axis=0)


def graph_adjacency(source: dict[str, Any], target: dict[str, Any]) -> Array:
    """A (modes of target, modes of source), float64; 0 for modes that are not resolved.

    `source` and `target`: vectors (channels, positions · modes), "out" of the one and "in" of the other; modes;
    resolved, how many of the leading ones count; convolutional, whether the axis is channels alone.
    """
    L, R = _sides(source, target)
    total: Array = None
    for p in range(L.shape[1]):
        for q in range(R.shape[1]):
            squares = (array_namespace(L).matrix_transpose(R[:, q, :]) @ L[:, p, :]) ** 2
            total = squares if total is None else total + squares
    return total


def graph_overlaps(source: dict[str, Any], target: dict[str, Any]) -> Array:
    """O (Q · P · modes of target, modes of source), float64; 0 for modes that are not resolved."""
    L, R = _sides(source, target)
    xp = array_namespace(L)
    return xp.concat(
        [xp.matrix_transpose(R[:, q, :]) @ L[:, p, :] for q in range(R.shape[1]) for p in range(L.shape[1])], axis=0
    )


def _sides(source: dict[str, Any], target: dict[str, Any]) -> tuple[Array, Array]:
    """Vectors (channels, positions, modes) of both sides over the channels in common, float64, unresolved ones 0."""
    a, b = source["vectors"].shape[0], target["vectors"].shape[0]
    flattened = source["convolutional"] and not target["convolutional"] and b % a == 0
    if a == b or flattened:
        n = a
    elif target["convolutional"] and not source["convolutional"] and a % b == 0:
        n = b
    else:
        raise InvalidArgument("edges", f"{a} outputs do not fit {b} inputs")
    return _side(source, n), _side(target, n)


def _side(side: dict[str, Any], n: int) -> Array:
    vectors, m = float64(side["vectors"]), side["modes"]
    xp = array_namespace(vectors)
    resolved: Host = (np.arange(m) < side["resolved"]).astype(np.float64)
    return xp.reshape(vectors, (n, -1, m)) * to_device(resolved, xp, device(vectors))[None, None, :]
