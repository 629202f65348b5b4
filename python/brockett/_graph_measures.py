"""Measures of a spectral graph: intensity of modes, internal dimensions, entropy, chains from input to output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _options
from ._errors import InvalidArgument
from ._graph_layers import GraphLayer, Transition, layer_number

__all__ = ["GraphMeasures", "GraphPath"]

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class GraphPath:
    """A chain of modes through the layers.

    Attributes
    ----------
    nodes : tuple of (int, int)
        (layer, mode) from input to output.
    value : float
        Product of its overlaps and, unless left out, of its singular values.
    """

    nodes: tuple[tuple[int, int], ...]
    value: float


class GraphMeasures:
    """What a `SpectralGraph` says of its layers and their joints. In host memory throughout."""

    method: str
    layers: tuple[GraphLayer, ...]
    layer_edges: tuple[tuple[int, int], ...]
    n_resolved: tuple[int, ...]
    groups: list[npt.NDArray[Any]]
    _transitions: tuple[Transition, ...]
    _s: list[Matrix]
    _host: list[Matrix]

    def node_intensity(self, layer: int | str) -> Matrix:
        """How far each mode of a layer leads to leading modes of the next, beyond chance.

        Parameters
        ----------
        layer : int or str
            Its number or name.

        Returns
        -------
        intensity : ndarray (m,)
            max over k of Σ_{j ≤ k} (n A_ji - 1), at least 0, and over the edges that leave the layer, relative to the
            largest of the layer; all 0 where none is above chance. All 1 for a layer that no edge leaves.

        References
        ----------
        arXiv 2302.08183 and its published code.
        """
        number = layer_number("layer", layer, self.layers)
        leaving = [e for e, (a, _) in enumerate(self.layer_edges) if a == number]
        if not leaving:
            return np.ones(len(self._s[number]))
        best = np.zeros(len(self._s[number]))
        for e in leaving:
            excess = self._excess(e)
            if excess.size:
                best[: excess.shape[1]] = np.maximum(best[: excess.shape[1]], np.cumsum(excess, axis=0).max(axis=0))
        largest = best.max()
        return best / largest if largest > 0 else best

    def internal_dimensions(self, edge: int | tuple[int | str, int | str]) -> tuple[int, int]:
        """How many leading modes of two joined layers belong together.

        Parameters
        ----------
        edge : int or (from, to)
            A pair of layers, or its number in `layer_edges`.

        Returns
        -------
        (to, from) : (int, int)
            The numbers (k, l) of leading modes with the largest Σ_{j < k, i < l} (n A_ji - 1); (0, 0) where no block
            is above chance. The published code returns k - 1 and l - 1, the place of the last.

        Notes
        -----
        The place of the largest of a noisy cumulative sum: not an estimate of the rank.

        References
        ----------
        arXiv 2302.08183 and its published code.
        """
        excess = self._excess(self._edge("edge", edge))
        if not excess.size:
            return 0, 0
        total = excess.cumsum(axis=0).cumsum(axis=1)
        k, l = np.unravel_index(int(total.argmax()), total.shape)  # noqa: E741
        return (int(k) + 1, int(l) + 1) if total[k, l] > 0 else (0, 0)

    def _excess(self, number: int) -> Matrix:
        a, b = self.layer_edges[number]
        part = self._host[number][: self.n_resolved[b], : self.n_resolved[a]]
        return np.asarray(self._transitions[number].channels * part - 1)

    def entropy(self) -> Matrix:
        """Entropy of each edge of layers.

        Returns
        -------
        entropy : ndarray (n_layer_edges,)
            -Σ_ji A_ji log A_ji in nats, 0 log 0 being 0. Low where few pairs of modes hold all overlap.

        References
        ----------
        arXiv 2302.08183 and its published code.
        """
        return np.array([-float(np.sum(A * np.log(np.where(A > 0, A, 1.0)))) for A in self._host])

    def path_metric(self, singular_values: bool = True, threshold: float = 0.0) -> float:
        """Sum over all chains of modes from input to output of the product of their overlaps and singular values.

        Parameters
        ----------
        singular_values : bool, default True
            False leaves the singular values out.
        threshold : float, default 0.0
            Chains through modes with a singular value not above this do not count.

        Returns
        -------
        metric : float
            For a chain 1ᵀ S_L A_{L-1} S_{L-1} … A_1 S_1 1; for other graphs the sum over all ways from layers that no
            edge enters to layers that none leaves.

        Raises
        ------
        InvalidArgument
            The layers form a cycle.

        Notes
        -----
        One product of a matrix and a vector for each edge of layers. With S² for S, two linear layers give ‖W₂ W₁‖_F².

        References
        ----------
        arXiv 2302.08183 and its published code.
        """
        weights = self._node_weights(singular_values, threshold)
        flow: list[Matrix] = [np.zeros(0)] * len(self.layers)
        entered, left = {b for _, b in self.layer_edges}, {a for a, _ in self.layer_edges}
        for layer in self._order():
            x = np.ones(len(weights[layer])) if layer not in entered else np.zeros(len(weights[layer]))
            for A, (a, b) in zip(self._host, self.layer_edges, strict=True):
                if b == layer:
                    x = x + A @ flow[a]
            flow[layer] = weights[layer] * x
        return float(sum(flow[layer].sum() for layer in range(len(self.layers)) if layer not in left))

    def strongest_path(self, singular_values: bool = True, threshold: float = 0.0) -> GraphPath:
        """The chain of modes from input to output with the largest product of overlaps and singular values.

        Parameters
        ----------
        singular_values : bool, default True
            False leaves the singular values out.
        threshold : float, default 0.0
            Modes with a singular value not above this are not passed.

        Returns
        -------
        path : GraphPath
            The largest term of the sum that `path_metric` is; no nodes and value 0 where all are 0.

        Raises
        ------
        InvalidArgument
            The layers form a cycle.

        Notes
        -----
        Dynamic programming over the layers, by logarithms: m_from m_to operations an edge of layers.

        Examples
        --------
        >>> import numpy as np, brockett as bk
        >>> g = bk.spectral_graph([np.diag([3.0, 2.0]), np.diag([1.0, 5.0])])
        >>> g.strongest_path()
        GraphPath(nodes=((0, 1), (1, 0)), value=10.0)
        """
        with np.errstate(divide="ignore"):
            weights = [np.log(w) for w in self._node_weights(singular_values, threshold)]
            logs = [np.log(A) for A in self._host]
        best: list[Matrix] = [np.zeros(0)] * len(self.layers)
        came: list[list[tuple[int, int]]] = [[]] * len(self.layers)
        entered, left = {b for _, b in self.layer_edges}, {a for a, _ in self.layer_edges}
        for layer in self._order():
            m = len(weights[layer])
            x = np.zeros(m) if layer not in entered else np.full(m, -np.inf)
            before = [(-1, -1)] * m
            for A, (a, b) in zip(logs, self.layer_edges, strict=True):
                if b != layer:
                    continue
                reach = A + best[a][None, :]
                i = reach.argmax(axis=1)
                value = reach[np.arange(m), i]
                for j in np.flatnonzero(value > x):
                    x[j], before[j] = value[j], (a, int(i[j]))
            best[layer], came[layer] = x + weights[layer], before
        ends = [(float(best[k].max()), k) for k in range(len(self.layers)) if k not in left]
        value, layer = max(ends, key=lambda end: (end[0], -end[1]))
        if value == -np.inf:
            return GraphPath((), 0.0)
        nodes = [(layer, int(best[layer].argmax()))]
        while came[nodes[-1][0]][nodes[-1][1]] != (-1, -1):
            nodes.append(came[nodes[-1][0]][nodes[-1][1]])
        nodes.reverse()
        return GraphPath(tuple(nodes), self._product(nodes, singular_values))

    def _product(self, nodes: list[tuple[int, int]], singular_values: bool) -> float:
        product = 1.0
        for k, (layer, mode) in enumerate(nodes):
            product *= float(self._s[layer][mode]) if singular_values else 1.0
            if k > 0:
                before, i = nodes[k - 1]
                product *= float(self._host[self.layer_edges.index((before, layer))][mode, i])
        return product

    def _node_weights(self, singular_values: bool, threshold: float) -> list[Matrix]:
        scale = _options.flag("singular_values", singular_values)
        least = _options.number("threshold", threshold)
        return [np.where(s > least, s if scale else 1.0, 0.0) for s in self._s]

    def _order(self) -> list[int]:
        """Layers, each after all that lead to it."""
        waiting = [sum(b == k for _, b in self.layer_edges) for k in range(len(self.layers))]
        ready = [k for k, count in enumerate(waiting) if count == 0]
        order: list[int] = []
        while ready:
            layer = ready.pop(0)
            order.append(layer)
            for a, b in self.layer_edges:
                if a == layer:
                    waiting[b] -= 1
                    if waiting[b] == 0:
                        ready.append(b)
        if len(order) < len(self.layers):
            stuck = ", ".join(self.layers[k].name for k, count in enumerate(waiting) if count > 0)
            raise InvalidArgument(
                "edges", f"chains through the layers need a graph without cycles; in or after one: {stuck}"
            )
        return order

    def _edge(self, argument: str, edge: Any) -> int:
        if isinstance(edge, tuple | list) and len(edge) == 2:
            pair = tuple(layer_number(argument, one, self.layers) for one in edge)
            if pair not in self.layer_edges:
                raise InvalidArgument(argument, f"layers {edge!r} are not joined")
            return self.layer_edges.index(pair)
        if not self.layer_edges:
            raise InvalidArgument(argument, "the graph has a single layer, or no edges")
        return _options.count(argument, edge, most=len(self.layer_edges) - 1)
