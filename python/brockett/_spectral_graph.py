"""The singular value representation of a network: a graph of the singular modes of its layers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from . import _arrays, _options
from ._arrays import Space
from ._errors import InvalidArgument, InvalidType
from ._graph_edges import GraphEdges, GraphSignificance
from ._graph_layers import (
    GraphLayer,
    Transition,
    accept_edges,
    accept_layers,
    layer_number,
    layers_of_source,
    transition,
)
from ._graph_measures import GraphPath
from ._graph_null import edge_threshold

__all__ = ["GraphEdges", "GraphLayer", "GraphPath", "SpectralGraph", "edge_threshold", "spectral_graph"]

METHODS = ("svr", "cosvr")


class SpectralGraph(GraphSignificance):
    """Singular modes of the layers of a network as nodes, squared overlaps of their vectors as edges.

    Made by `spectral_graph`.

    Attributes
    ----------
    method : {"svr", "cosvr"}
    layers : tuple of GraphLayer
        name, n_out, n_in, kernel, groups and bias of each.
    layer_edges : tuple of (int, int)
        Pairs of layers that are joined: (from, to).
    singular_values : list of array (m,), float64
        Of each layer, descending.
    n_resolved : tuple of int
        Leading modes of each layer with s > max(rows, columns) ε s₁, ε the rounding of the dtype of its weights. The
        vectors of the others are arbitrary, so these have no edges: their overlaps are 0 here.
    groups : list of ndarray (m,) of int
        Group of channels that each mode lives in; 0 but for grouped convolutions.
    adjacency : list of array (m_to, m_from), float64
        For each of `layer_edges`: A_ji = Σ (Σ_c u_i(c, p) v_j(c, q))² over positions p, q, of output vector i of the
        first layer and input vector j of the second.
    residual : tuple of float
        Of the decomposition of each layer, as in `SVDResult`.
    """

    def __init__(
        self,
        layers: Sequence[GraphLayer],
        layer_edges: tuple[tuple[int, int], ...],
        transitions: Sequence[Transition],
        method: str,
        space: Space,
        modes: list[dict[str, Any]],
        adjacency: list[Any],
    ) -> None:
        self.method = method
        self.layers = tuple(layers)
        self.layer_edges = layer_edges
        self.singular_values = [space.back(one["s"]) for one in modes]
        self.n_resolved = tuple(int(one["n_resolved"]) for one in modes)
        self.groups = [np.asarray(one["group"]) for one in modes]
        self.adjacency = [space.back(one) for one in adjacency]
        self.residual = tuple(float(one["residual"]) for one in modes)
        self._space = space
        self._transitions = tuple(transitions)
        self._modes = modes
        self._s = [np.asarray(one["s"], dtype=np.float64) for one in modes]
        self._host = [np.asarray(_arrays.to_host(one, space), dtype=np.float64) for one in adjacency]

    def __repr__(self) -> str:
        modes = sum(len(s) for s in self._s)
        return f"SpectralGraph({self.method}: {len(self.layers)} layers, {modes} modes, {len(self.layer_edges)} joints)"

    def left_vectors(self, layer: int | str) -> Any:
        """Output vectors of a layer.

        Parameters
        ----------
        layer : int or str
            Its number or name.

        Returns
        -------
        U : array (n_out, m), or (n_out, k…, m) of a convolution with method "cosvr"
            In the dtype of the weights.
        """
        return self._vectors(layer, "out", "cosvr")

    def right_vectors(self, layer: int | str) -> Any:
        """Input vectors of a layer.

        Parameters
        ----------
        layer : int or str
            Its number or name.

        Returns
        -------
        V : array (n_in, m), or (n_in, k…, m) of a convolution with method "svr"
            In the dtype of the weights.
        """
        return self._vectors(layer, "in", "svr")

    def _vectors(self, layer: int | str, side: str, method: str) -> Any:
        number = layer_number("layer", layer, self.layers)
        vectors, xp = self._modes[number][side], self._space.xp
        kernel = self.layers[number].kernel if self.method == method else ()
        return self._space.back(xp.reshape(vectors, (vectors.shape[0], *kernel, len(self._s[number]))))

    def filters(
        self,
        edge: int | tuple[int | str, int | str],
        target_modes: Sequence[int] | None = None,
        source_modes: Sequence[int] | None = None,
    ) -> Any:
        """Overlaps position by position: between convolutions, the kernels that lead from mode to mode.

        Parameters
        ----------
        edge : int or (from, to)
            A pair of layers, or its number in `layer_edges`; layer l and the next are edge l of a chain.
        target_modes, source_modes : sequence of int, optional
            Modes wanted of either layer, all by default: every pair of them costs a kernel of memory.

        Returns
        -------
        kernels : array (m_to, m_from, k…), float64
            Σ_c u_i(c) v_j(c, q) with "svr", of the shape of the second layer's kernel; with "cosvr" that of the first.
            Where a fully connected layer reads a convolution, the positions of the flattened axis come as one axis,
            before the kernel. The sum of squares over the positions is the adjacency. The sign of each mode is
            arbitrary. 0 for modes that are not resolved.

        Raises
        ------
        InvalidArgument
            No such edge or mode.

        Notes
        -----
        2 n_channels flops a number of the result.

        Examples
        --------
        >>> import numpy as np, brockett as bk
        >>> K = np.random.default_rng(0).normal(size=(4, 4, 3, 3))
        >>> g = bk.spectral_graph([K, K])
        >>> g.filters(0).shape, np.allclose((g.filters(0) ** 2).sum(axis=(2, 3)), g.adjacency[0])
        ((4, 4, 3, 3), True)
        """
        number = self._edge("edge", edge)
        a, b = self.layer_edges[number]
        space, joint = self._space, self._transitions[number]
        source = _selected(self._side(a, "out"), source_modes, "source_modes", space)
        target = _selected(self._side(b, "in"), target_modes, "target_modes", space)
        found = space.engine("layers").module.graph_overlaps(source, target)
        P, Q = joint.positions
        xp = space.xp
        blocks = xp.permute_dims(xp.reshape(found, (Q, P, target["modes"], source["modes"])), (2, 3, 0, 1))
        shape = (target["modes"], source["modes"], *joint.target_shape, *joint.source_shape)
        return space.back(xp.reshape(blocks, shape))

    def _side(self, layer: int, side: str) -> dict[str, Any]:
        return _side(self.layers[layer], self._modes[layer], side)


def _side(layer: GraphLayer, modes: dict[str, Any], side: str) -> dict[str, Any]:
    """One side of a layer as the engines take it."""
    return {
        "vectors": modes[side],
        "modes": len(modes["s"]),
        "resolved": int(modes["n_resolved"]),
        "convolutional": layer.convolutional,
    }


def _selected(side: dict[str, Any], modes: Any, argument: str, space: Space) -> dict[str, Any]:
    """The same with the modes asked for alone: those that are resolved first, which they are by number."""
    if modes is None:
        return side
    if not isinstance(modes, Iterable) or isinstance(modes, str):
        raise InvalidType(argument, f"expected a sequence of modes, got {modes!r}")
    numbers = [_options.count(argument, one, most=side["modes"] - 1) for one in modes]
    if not numbers:
        raise InvalidArgument(argument, "expected at least one mode, got none")
    xp, vectors = space.xp, side["vectors"]
    apart = xp.reshape(vectors, (vectors.shape[0], -1, side["modes"]))
    at = xp.asarray(numbers, device=space.xp_device)
    # a mode that is not resolved is 0, wherever in the order it is asked for
    kept = xp.asarray([float(one < side["resolved"]) for one in numbers], dtype=vectors.dtype, device=space.xp_device)
    chosen = xp.reshape(xp.take(apart, at, axis=2) * kept[None, None, :], (vectors.shape[0], -1))
    chosen = np.asfortranarray(chosen) if xp is np else chosen  # as the compiled engine lays out vectors
    return {**side, "vectors": chosen, "modes": len(numbers), "resolved": len(numbers)}


def spectral_graph(
    layers: Any,
    edges: Sequence[tuple[int | str, int | str]] | None = None,
    method: str = "svr",
    rank: int | None = None,
) -> SpectralGraph:
    """The singular value representation of a network: singular modes as nodes, squared overlaps as edges.

    Each layer is W = Σ s_i u_i v_iᵀ; mode i of one layer is joined to mode j of the next by A_ji = (u_i · v_j)², the
    share of what one writes that the other reads. For convolutions the product runs over the channels, and the squares
    are summed over the positions of the kernel.

    Parameters
    ----------
    layers : sequence of layers, mapping of names to layers, path, torch.nn.Module, or Model
        A path, a module or what `models.load` gives: all layers of weights in it. Else each layer an array (out, in) or
        (out, in / groups, k…); or a mapping, or an object such as torch.nn.Conv2d, with ``weight`` and optionally
        ``bias``, ``groups``, ``transposed`` (weights of a transposed convolution, (in, out / groups, k…)), ``name`` and
        ``norm``: a batch normalization that follows, with ``running_mean``, ``running_var``, ``weight``, ``bias`` and
        ``eps``, which is folded into the weights. Biases have no part in the graph. Strides, paddings and dilations do
        not matter. All layers of one library, on one device; dtypes may differ.
    edges : sequence of (from, to), optional
        Which layer's outputs which layer reads, by number or name; each layer and the next by default (of a file that
        holds the graph, that graph; of files and modules only where shapes fit). Any directed graph: residual blocks,
        or all writers of a transformer's residual stream with all readers after them.
    method : {"svr", "cosvr"}, default "svr"
        Where the positions of a kernel go: "svr" decomposes out × (in k…), "cosvr" (out k…) × in. The same for fully
        connected layers.
    rank : int, optional
        Leading modes kept of each layer, at most; all by default. Much faster for large layers.

    Returns
    -------
    graph : SpectralGraph
        singular_values, adjacency, and what is made from them.

    Raises
    ------
    NonFinite
        A NaN or Inf in the weights of a layer, which is named.
    InvalidArgument
        Layers whose shapes do not fit, with both and what was expected; an edge that is none.
    InvalidType, NotConverged
        As `svd`.

    Notes
    -----
    A fully connected layer that reads a convolution of n channels may have n or n z inputs: z positions, channels
    before positions, as PyTorch's flatten has them; and the other way round where a convolution reads it.

    Grouped convolutions are block diagonal, and have the modes of their blocks. Modes of equal singular values are
    determined as a subspace only: then only sums of A over such modes have a meaning. Modes at rounding level have no
    edges (`SpectralGraph.n_resolved`).

    The cost is that of `svd` (method "auto") of each layer, and 2 n m_from m_to flops for each edge and position;
    overlaps are formed in float64.

    References
    ----------
    D. Meller, N. Berkouk, *Singular value representation: a new graph perspective on neural networks*,
    arXiv 2302.08183.

    Examples
    --------
    >>> import numpy as np, brockett as bk
    >>> turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    >>> g = bk.spectral_graph([turn @ np.diag([2.0, 1.0]), np.diag([5.0, 3.0])])
    >>> [s.round(12).tolist() for s in g.singular_values], g.adjacency[0].round(12).tolist()
    ([[2.0, 1.0], [5.0, 3.0]], [[0.36, 0.64], [0.64, 0.36]])
    """
    word = _options.option("method", method, METHODS)
    kept = 0 if rank is None else _options.count("rank", rank, least=1)
    from .models._load import is_source

    if is_source(layers):
        layers, edges = layers_of_source(layers, edges, word)
    found, space = accept_layers(layers)
    pairs = accept_edges(edges, found)
    joints = [
        transition(found[a], found[b], word, "layers" if edges is None else f"edges[{k}]")
        for k, (a, b) in enumerate(pairs)
    ]
    module = space.engine(found[0].operand.argument).module
    operands = [layer.operand for layer in found]
    with _arrays.user_errors(
        *operands, rename={f"layers[{k}]": operand.argument for k, operand in enumerate(operands)}
    ):
        modes = module.graph_modes(
            [operand.array for operand in operands],
            [layer.positions for layer in found],
            [layer.groups for layer in found],
            word,
            kept,
        )
    adjacency = [
        module.graph_adjacency(_side(found[a], modes[a], "out"), _side(found[b], modes[b], "in")) for a, b in pairs
    ]
    return SpectralGraph(found, pairs, joints, word, space, modes, adjacency)
