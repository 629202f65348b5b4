"""Influential SVD neurons of inputs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _arrays, _options
from ._errors import InvalidArgument, InvalidType
from ._svd import svd

__all__ = ["Influential", "influential"]

Matrix = npt.NDArray[np.float64]

AGGREGATIONS = ("sum", "max", "min")
WEIGHTS = ("share", "deepdataprofiler")


@dataclass(frozen=True, eq=False)
class Influential:
    """What `influential` found in a batch of inputs, in host memory.

    Attributes
    ----------
    projections : ndarray (n_inputs, n_neurons), float64
        Aggregated projections of the pre-activations, with their sign.
    mask : ndarray (n_inputs, n_neurons), bool
        Which SVD neurons are influential for which input.
    weights : ndarray (n_inputs, n_neurons), float64
        Their weights; 0 where a neuron is not influential.
    threshold : float or None
        Share of the contributions that was asked for.
    aggregation : str
        Over the positions: "sum", "max" or "min".
    """

    projections: Matrix
    mask: npt.NDArray[np.bool_]
    weights: Matrix
    threshold: float | None
    aggregation: str

    @property
    def n_inputs(self) -> int:
        """Number of inputs."""
        return int(self.mask.shape[0])

    @property
    def n_neurons(self) -> int:
        """Number of SVD neurons of the layer."""
        return int(self.mask.shape[1])

    def neurons(self, i: int) -> npt.NDArray[np.int64]:
        """The influential neurons of one input, the largest contribution first.

        Parameters
        ----------
        i : int
            Which input, from 0.

        Returns
        -------
        neurons : ndarray (k,), int64
            Indices of singular vectors.
        """
        row = _options.count("i", i, most=self.n_inputs - 1)
        order = np.argsort(-np.abs(self.projections[row]), kind="stable")
        return np.asarray(order[self.mask[row][order]], dtype=np.int64)


def influential(
    layer: Any,
    preactivations: Any,
    *,
    bias: Any = None,
    threshold: float | None = 0.1,
    aggregation: str = "sum",
    weights: str = "share",
    rank: int | None = None,
    channel_axis: int = 1,
) -> Influential:
    """SVD neurons of a layer that carry an input: the fewest whose contributions exceed a share of the total.

    With W = U diag(s) Vᵀ the weights (n, in k…) of the layer and y_p its pre-activations at position p, SVD neuron j
    has the projection a_j = agg over p of u_jᵀ (y_p - b) = s_j agg over p of v_jᵀ x_p, and contributes |a_j|.

    Parameters
    ----------
    layer : array_like (n, in) or (n, in, k…), or an object with ``U``
        Weights, which are decomposed here; or a decomposition of them (`svd` of the unfolded weights), which saves that
        in a stream of batches.
    preactivations : array_like (n_inputs, n) or (n_inputs, n, positions…)
        Outputs of the layer before its activation function, the bias still in.
    bias : array_like (n,), optional
        b, taken off. Leave it out for layers without one.
    threshold : float, default 0.1
        Share of Σ|a_j|, in (0, 1]. The largest contributions are taken until their sum exceeds it, the one that passes
        it included; contributions of 0 never count. None takes every neuron that contributes, with a_j as its weight.
    aggregation : {"sum", "max", "min"}, default "sum"
        Over the positions. "sum" is their mean (the sum divided by their number), and costs the number of positions
        times less. "max" and "min" depend on the sign of u_j, which `svd` fixes.
    weights : {"share", "deepdataprofiler"}, default "share"
        "share": |a_j| / Σ|a_i|. "deepdataprofiler": divided by the sum of the taken contributions but the last one (by
        the total where one is taken), so that the weights of an input sum to more than 1; to compare with that library.
    rank : int, optional
        Keep the leading singular vectors only; the share is then one of theirs.
    channel_axis : int, default 1
        Axis of the n outputs. -1 for (n_inputs, tokens, n).

    Returns
    -------
    found : Influential
        Of shape (n_inputs, r), r = min(n, in k…) or `rank`, in host memory: statistics that go on to counts and sparse
        matrices.

    Raises
    ------
    InvalidArgument
        Pre-activations that do not fit the layer, a threshold outside (0, 1], an unknown word.
    NonFinite
        A NaN or Inf in the pre-activations, the weights or the bias; the index is that of the caller's array.
    InvalidType
        Arrays of two libraries or devices.

    Notes
    -----
    2 n_inputs n r flops for "sum", n_positions times that for "max" and "min", in the dtype of the pre-activations
    there; and the decomposition where weights are given. DeepDataProfiler 2.0's ``SVDProfiler.create_influential`` is
    ``weights="deepdataprofiler"`` for "sum" and ``threshold=None`` for "max" and "min".

    References
    ----------
    B. Praggastis et al., arXiv 2208.06894, section 4.

    Examples
    --------
    >>> import numpy as np, brockett as bk
    >>> W = np.diag([2.0, 1.0])
    >>> found = bk.hypergraph.influential(W, [[6.0, 1.0], [0.0, 3.0]], bias=[0.0, 1.0], threshold=0.5)
    >>> found.mask.tolist()
    [[True, False], [False, True]]
    >>> found.projections.tolist()
    [[6.0, 0.0], [0.0, 2.0]]
    """
    share = None if threshold is None else share_of("threshold", threshold)
    word = _options.option("aggregation", aggregation, AGGREGATIONS)
    convention = _options.option("weights", weights, WEIGHTS)
    Y = _arrays.accept(preactivations, "preactivations")
    vectors = _left_vectors(layer, rank)
    space = _arrays.common_space(Y, vectors)
    Y, vectors = Y.in_space(space), vectors.in_space(space)
    _arrays.need_functions(Y)
    n = vectors.shape[0]
    offset = None if bias is None else _arrays.host_vector(bias, "bias", n, space)
    axis = _axis(Y, n, channel_axis)
    with np.errstate(over="ignore", invalid="ignore"):
        projections = _project(Y, vectors, offset, word, axis)
    if not np.isfinite(projections).all():
        raise InvalidArgument("preactivations", f"their projections leave the range of {Y.dtype}: rescale the data")
    mask, values = select(projections, share, convention)
    return Influential(projections, mask, values, share, word)


def share_of(argument: str, value: Any) -> float:
    real = _options.number(argument, value)
    if not 0 < real <= 1:
        raise InvalidArgument(argument, f"expected a share in (0, 1], got {value!r}")
    return real


def _left_vectors(layer: Any, rank: int | None) -> _arrays.Operand:
    """U (n, r) of the weights or of a decomposition that the caller brings."""
    if hasattr(layer, "U"):
        vectors = _arrays.accept(layer.U, "layer.U")
        if vectors.ndim != 2:
            raise InvalidArgument("layer.U", f"expected one matrix (n, r), got shape {vectors.shape}")
        _arrays.check_finite(vectors)
    else:
        given = _arrays.accept(layer, "layer")
        flat = _arrays.unfolded(given)
        with _arrays.user_errors(flat, rename={"A": "layer"}):
            found = svd(flat.space.back(flat.array))
        vectors = _arrays.accept(found.U, "layer")
        if given.neutral:
            vectors = replace(vectors, neutral=True)
    if 0 in vectors.shape:
        raise InvalidArgument(vectors.argument, f"must not be empty, got shape {vectors.shape}")
    if rank is not None:
        kept = _options.count("rank", rank, least=1)
        if kept > vectors.shape[1]:
            raise InvalidArgument("rank", f"expected at most the {vectors.shape[1]} of the layer, got {kept}")
        vectors = replace(vectors, array=vectors.array[:, :kept], shape=(vectors.shape[0], kept))
    return vectors


def _axis(Y: _arrays.Operand, n: int, channel_axis: Any) -> int:
    if isinstance(channel_axis, bool) or not hasattr(channel_axis, "__index__"):
        raise InvalidType("channel_axis", f"expected an integer, got {channel_axis!r}")
    axis = int(channel_axis.__index__())
    if Y.ndim < 2 or not (1 <= axis < Y.ndim or 1 - Y.ndim <= axis < 0):
        raise InvalidArgument(
            "preactivations",
            f"expected (n_inputs, n, positions…) with the outputs on axis {axis}, got shape {Y.shape}",
        )
    axis %= Y.ndim
    if Y.shape[axis] != n:
        raise InvalidArgument("preactivations", f"expected the layer's {n} outputs on axis {axis}, got shape {Y.shape}")
    if math.prod(Y.shape[1:]) == 0:
        raise InvalidArgument("preactivations", f"has no positions: shape {Y.shape}")
    return axis


def _project(Y: _arrays.Operand, U: _arrays.Operand, bias: Matrix | None, aggregation: str, axis: int) -> Matrix:
    from ._fallback.hypergraph import project  # array-API code, the same on every engine

    space, xp = Y.space, Y.space.xp
    _arrays.check_finite(Y)
    moved = Y.array if axis == 1 else xp.moveaxis(Y.array, axis, 1)
    stacked = xp.reshape(moved, (Y.shape[0], U.shape[0], math.prod(Y.shape[1:]) // U.shape[0]))
    vectors = U.array.astype(stacked.dtype) if xp is np else xp.astype(U.array, stacked.dtype)
    offset = None if bias is None else xp.asarray(bias, **({"device": space.xp_device} if space.xp_device else {}))
    return project(vectors, stacked, offset, aggregation)


def select(projections: Matrix, threshold: float | None, weights: str) -> tuple[npt.NDArray[np.bool_], Matrix]:
    """The fewest neurons of each row whose |projections| exceed a share of the row's sum, and their weights."""
    size = np.abs(projections)
    if threshold is None:
        return size > 0, projections.copy()
    # Sums of a row must not leave the range of its entries; a power of two changes no digit.
    size = np.ldexp(size, -np.frexp(size.max(axis=1, keepdims=True))[1])
    order = np.argsort(-size, axis=1, kind="stable")
    descending = np.take_along_axis(size, order, axis=1)
    running = np.cumsum(descending, axis=1)
    total = running[:, -1:]
    # An input that the layer does not see has no influential neurons, and no 0/0.
    safe = np.where(total > 0, total, 1.0)
    within = np.sum(running / safe <= threshold, axis=1, keepdims=True)  # a prefix: running sums ascend
    taken = (np.arange(size.shape[1]) <= within) & (descending > 0)
    if weights == "share":
        scale = safe
    else:
        last = np.take_along_axis(running, np.maximum(within - 1, 0), axis=1)
        scale = np.where((within > 0) & (last > 0), last, safe)
    mask = np.zeros(size.shape, dtype=np.bool_)
    np.put_along_axis(mask, order, taken, axis=1)
    return mask, np.where(mask, size / scale, 0.0)
