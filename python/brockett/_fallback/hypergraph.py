"""Projections of pre-activations on the left singular vectors of a layer, over any array namespace.

One text serves every engine: the work is one product per block, which the namespace's own BLAS does as well as ours.
"""

from __future__ import annotations

import numpy as np
from array_api_compat import array_namespace

from ._arrays import Array, Host, to_host

__all__ = ["project"]

#: Bytes of projections held at once.
_BLOCK_BYTES = 32 << 20


def project(U: Array, Y: Array, bias: Array | None, aggregation: str) -> Host:
    """Aggregate over the positions p of u_jᵀ (y_p - b): "sum" is their mean, "max" and "min" what they say.

    Parameters
    ----------
    U : array (n, r)
        Left singular vectors, in the dtype of Y.
    Y : array (n_inputs, n, n_positions)
        Pre-activations.
    bias : array (n,), float64, or None
    aggregation : {"sum", "max", "min"}

    Returns
    -------
    projections : ndarray (n_inputs, r), float64, in host memory

    Notes
    -----
    The bias is the same at all positions, so it is taken off after the aggregation: no copy of Y. The mean over the
    positions goes before the product, which costs n_positions times less; it is summed in float64.
    """
    xp = array_namespace(Y)
    n_inputs, _, positions = Y.shape
    rank = U.shape[1]
    wide = xp.astype(U, xp.float64)
    offset = 0.0 if bias is None else xp.matmul(xp.matrix_transpose(wide), bias)
    if aggregation == "sum":
        mean = xp.sum(Y, axis=2, dtype=xp.float64) / positions
        return to_host(xp.matmul(mean, wide) - offset)
    step = max(1, _BLOCK_BYTES // max(1, rank * positions * 8))
    extreme = xp.max if aggregation == "max" else xp.min
    transposed = xp.matrix_transpose(U)
    parts = [
        extreme(xp.matmul(transposed, Y[first : min(first + step, n_inputs), ...]), axis=2)
        for first in range(0, n_inputs, step)
    ]
    if not parts:
        return np.zeros((0, rank))
    return to_host(xp.astype(xp.concat(parts, axis=0), xp.float64) - offset)
