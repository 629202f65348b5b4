"""Hypergraphs: incidence, s-line graphs, similarities, persistence, exports."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _files, _options
from ._errors import InvalidArgument, InvalidType, Unsupported
from ._profiles import class_labels
from ._similarity import Matrix, Separation, Sparse, jaccard_of, overlaps, ratios, separation_of

__all__ = ["Hypergraph", "build", "edge_names", "scipy_sparse"]


@dataclass(frozen=True, eq=False)
class Hypergraph:
    """Nodes, hyperedges, and which node lies in which: SVD neurons in classes, or in images.

    Attributes
    ----------
    incidence : scipy.sparse.csr_array (n_nodes, n_edges), float64
        Weight of a node in a hyperedge; stored entries are members, and none is 0.
    nodes : tuple of str
        Names of the nodes, "layer:index" for SVD neurons.
    edges : tuple of str or int
        Names of the hyperedges: classes or images.
    layers : ndarray (n_nodes,), int64
        Layer of each node, numbered from 0 in the order of `layer_names`.
    layer_names : tuple of str
    """

    incidence: Sparse
    nodes: tuple[str, ...]
    edges: tuple[Hashable, ...]
    layers: npt.NDArray[np.int64]
    layer_names: tuple[str, ...]

    @classmethod
    def from_incidence(
        cls, incidence: Any, nodes: Sequence[str] | None = None, edges: Sequence[Hashable] | None = None
    ) -> Hypergraph:
        """A hypergraph of one's own.

        Parameters
        ----------
        incidence : array_like or scipy.sparse array (n_nodes, n_edges)
            Finite weights; what is not 0 is a member.
        nodes, edges : sequences, optional
            Names; the numbers where not given.

        Returns
        -------
        hypergraph : Hypergraph
            With one layer, "".

        Raises
        ------
        InvalidArgument
            Not a matrix, entries that are not finite, names that do not fit or are given twice.
        """
        sparse = scipy_sparse()
        if not sparse.issparse(incidence):
            dense = np.asarray(incidence)
            if dense.ndim != 2 or dense.dtype.kind not in "fiub":
                raise InvalidArgument("incidence", f"expected a real matrix, got {dense.dtype} of shape {dense.shape}")
            incidence = dense
        elif incidence.dtype.kind not in "fiub":
            raise InvalidArgument("incidence", f"expected a real matrix, got {incidence.dtype}")
        B = sparse.csr_array(incidence, dtype=np.float64)
        if not np.isfinite(B.data).all():
            raise InvalidArgument("incidence", "holds NaN or Inf")
        return build(
            B,
            edge_names("nodes", nodes, B.shape[0], str),
            edge_names("edges", edges, B.shape[1], int),
            np.zeros(B.shape[0], dtype=np.int64),
            ("",),
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(n_nodes, n_edges)."""
        return int(self.incidence.shape[0]), int(self.incidence.shape[1])

    def __repr__(self) -> str:
        return f"Hypergraph({self.shape[0]} nodes, {self.shape[1]} edges, {self.incidence.nnz} incidences)"

    def node_degrees(self) -> npt.NDArray[np.int64]:
        """In how many hyperedges each node lies.

        Returns
        -------
        degrees : ndarray (n_nodes,), int64
        """
        return np.asarray(np.diff(self.incidence.indptr), dtype=np.int64)

    def edge_sizes(self) -> npt.NDArray[np.int64]:
        """How many nodes each hyperedge holds.

        Returns
        -------
        sizes : ndarray (n_edges,), int64
        """
        return np.bincount(self.incidence.indices, minlength=self.shape[1]).astype(np.int64)

    def dual(self) -> Hypergraph:
        """Nodes and hyperedges exchanged.

        Returns
        -------
        dual : Hypergraph
            With the edges' names as text, all in the layer "".
        """
        nodes = tuple(str(edge) for edge in self.edges)
        layers = np.zeros(len(nodes), dtype=np.int64)
        return build(scipy_sparse().csr_array(self.incidence.T), nodes, self.nodes, layers, ("",))

    def s_line_graph(self, s: int = 1) -> Sparse:
        """The graph of hyperedges that share at least s nodes.

        Parameters
        ----------
        s : int, default 1
            Least number of common nodes.

        Returns
        -------
        overlaps : scipy.sparse.csr_array (n_edges, n_edges), int64
            |A ∩ B| where it is at least s, symmetric, without a diagonal: half of ``nnz`` is the number of links.

        Notes
        -----
        BᵀB of the incidence B, block by block, thresholded: Σ degree² multiply-adds, or n_nodes n_edges² of dense ones
        where those are cheaper. Memory is that of the result and of one block.

        References
        ----------
        S. G. Aksoy et al., *Hypernetwork science via high-order hypergraph walks*, EPJ Data Science 9 (2020) 16.
        """
        sparse = scipy_sparse()
        least = _options.count("s", s, least=1)
        rows: list[npt.NDArray[np.int64]] = []
        columns: list[npt.NDArray[np.int64]] = []
        shared: list[npt.NDArray[np.int64]] = []
        for first, block in overlaps(self.incidence, self.incidence):
            row, column = np.nonzero(block >= least)
            off = row + first != column
            rows.append((row + first)[off])
            columns.append(column[off])
            shared.append(block[row[off], column[off]].astype(np.int64))
        n = self.shape[1]
        # Rows come in order, columns within them: the arrays are those of a csr matrix already.
        indptr = np.concatenate(([0], np.cumsum(np.bincount(_joined(rows), minlength=n))))
        return sparse.csr_array((_joined(shared), _joined(columns), indptr), shape=(n, n))

    def components(self, s: int = 1) -> npt.NDArray[np.int64]:
        """Connected components of the s-line graph.

        Parameters
        ----------
        s : int, default 1

        Returns
        -------
        labels : ndarray (n_edges,), int64
            Component of each hyperedge, numbered in the order of the edges.
        """
        from scipy.sparse.csgraph import connected_components

        _, labels = connected_components(self.s_line_graph(s), directed=False)
        return np.asarray(labels, dtype=np.int64)

    def jaccard(self, other: Hypergraph | None = None, *, per_layer: bool = False) -> Matrix:
        """|A ∩ B| / |A ∪ B| of every pair of hyperedges.

        Parameters
        ----------
        other : Hypergraph, optional
            Of the same nodes, whose edges are B; this one's own by default.
        per_layer : bool, default False
            One matrix for the nodes of each layer. Their mean is DeepDataProfiler's ``avg_jaccard``, where this one's
            result without `per_layer` is its ``jaccard``.

        Returns
        -------
        similarity : ndarray (n_edges, other's n_edges), or (n_layers, …) with `per_layer`
            0 for two empty sets, which share nothing.

        Raises
        ------
        InvalidArgument
            The other one has other nodes.

        Notes
        -----
        The product of `s_line_graph`; n_edges² numbers are kept.
        """
        return self._similarity(other, per_layer, contained=False)

    def containment(self, other: Hypergraph) -> Matrix:
        """|A ∩ B| / |A|: the share of an image's neurons that lie in a class, DeepDataProfiler's ``instance_jaccard``.

        Parameters
        ----------
        other : Hypergraph
            Of the same nodes, whose edges are B.

        Returns
        -------
        shares : ndarray (n_edges, other's n_edges)
            0 for an empty A.

        Raises
        ------
        InvalidArgument
            The other one has other nodes.
        """
        return self._similarity(other, False, contained=True)

    def _similarity(self, other: Hypergraph | None, per_layer: bool, contained: bool) -> Matrix:
        theirs = self if other is None else other
        if not isinstance(theirs, Hypergraph):
            raise InvalidType("other", f"expected a Hypergraph, got {type(theirs).__name__}")
        if theirs is not self and theirs.nodes != self.nodes:
            raise InvalidArgument("other", f"is of other nodes: {theirs.shape[0]} of them, this one of {self.shape[0]}")
        if not _options.flag("per_layer", per_layer):
            return ratios(self.incidence, theirs.incidence, contained)
        parts = [self.layers == k for k in range(len(self.layer_names))]
        return np.stack([ratios(self.incidence[rows], theirs.incidence[rows], contained) for rows in parts])

    def separation(self, labels: Any, n_classes: int | None = None) -> Separation:
        """How well the classes of the hyperedges (images) are told apart by the nodes they hold.

        Parameters
        ----------
        labels : array_like (n_edges,), integers
            Class of each hyperedge, 0 … n_classes - 1.
        n_classes : int, optional
            The largest label and one by default.

        Returns
        -------
        separation : Separation

        Raises
        ------
        InvalidArgument
            Labels that do not fit, or outside of the classes.

        Notes
        -----
        All pairs of hyperedges, in blocks: n_edges² products and O(n_edges n_classes) memory.

        References
        ----------
        P. J. Rousseeuw, *Silhouettes*, J. Comput. Appl. Math. 20 (1987) 53, with the distance 1 - Jaccard.
        """
        n = self.shape[1]
        most = _options.count("n_classes", n_classes, least=1) if n_classes is not None else _options.INT_MAX
        classes = class_labels(labels, n, most)
        k = most if n_classes is not None else int(classes.max(initial=-1)) + 1
        one_hot = np.zeros((n, k))
        one_hot[np.arange(n), classes] = 1.0
        sizes = self.edge_sizes()
        toward = np.empty((n, k))  # sum of the similarities of each hyperedge to those of each class
        for first, overlap in overlaps(self.incidence, self.incidence):
            rows = np.arange(first, first + len(overlap))
            similar = jaccard_of(overlap, sizes[rows], sizes)
            similar[np.arange(len(rows)), rows] = 0.0  # not with itself
            toward[rows] = similar @ one_hot
        return separation_of(toward, one_hot, classes)

    def persistence(self, max_dimension: int = 0) -> list[Matrix]:
        """Persistent homology of the hyperedges under the distance 1 - Jaccard.

        Parameters
        ----------
        max_dimension : int, default 0
            0: connected components, by SciPy (single linkage: the heights of its merges are the ends of the bars).
            Higher: loops and voids of the Vietoris–Rips complex, by the optional library gudhi.

        Returns
        -------
        diagrams : list of ndarray (n_bars, 2)
            Births and deaths in each dimension, the shortest bars first; the last of dimension 0 never dies (inf).

        Raises
        ------
        InvalidArgument
            No hyperedges.
        Unsupported
            A dimension above 0 without gudhi.

        Notes
        -----
        O(n_edges²) time and memory for dimension 0. A Rips complex of dimension d has up to n_edges^(d+2) simplices.
        """
        dimension = _options.count("max_dimension", max_dimension)
        if self.shape[1] == 0:
            raise InvalidArgument("hypergraph", "has no hyperedges")
        distance = 1.0 - self.jaccard()
        np.fill_diagonal(distance, 0.0)
        if dimension > 0:
            return _rips(distance, dimension)
        deaths = np.empty(0)
        if len(distance) > 1:
            from scipy.cluster.hierarchy import linkage
            from scipy.spatial.distance import squareform

            deaths = linkage(squareform(distance, checks=False), "single")[:, 2]
        bars = np.zeros((len(distance), 2))
        bars[:, 1] = [*np.sort(deaths), np.inf]
        return [bars]

    def to_dict(self) -> dict[Hashable, dict[str, float]]:
        """Hyperedges as plain dictionaries.

        Returns
        -------
        members : dict of edge to dict of node to weight
        """
        B = scipy_sparse().csc_array(self.incidence)
        return {
            edge: {
                self.nodes[i]: float(w)
                for i, w in zip(
                    B.indices[B.indptr[j] : B.indptr[j + 1]], B.data[B.indptr[j] : B.indptr[j + 1]], strict=True
                )
            }
            for j, edge in enumerate(self.edges)
        }

    def to_hif(self) -> dict[str, Any]:
        """The Hypergraph Interchange Format, which HyperNetX (``from_hif``) and XGI (``from_hif_dict``) read.

        Returns
        -------
        hif : dict
            Plain lists and dictionaries, empty hyperedges and lonely nodes included.

        References
        ----------
        https://github.com/HIF-org/HIF-standard
        """
        B = scipy_sparse().coo_array(self.incidence)
        names = [edge if isinstance(edge, str) else int(edge) for edge in self.edges]  # type: ignore[call-overload]
        return {
            "network-type": "undirected",
            "metadata": {"source": "brockett", "layers": list(self.layer_names)},
            "incidences": [
                {"edge": names[j], "node": self.nodes[i], "weight": float(w)}
                for i, j, w in zip(B.row, B.col, B.data, strict=True)
            ],
            "nodes": [
                {"node": node, "attrs": {"layer": self.layer_names[k]}}
                for node, k in zip(self.nodes, self.layers, strict=True)
            ],
            "edges": [{"edge": name} for name in names],
        }

    def to_json(self, path: _files.PathLike) -> None:
        """Write `to_hif` as JSON, atomically.

        Parameters
        ----------
        path : path-like
            Taken as given. Its folder must exist.
        """
        import json

        text = json.dumps(self.to_hif(), ensure_ascii=False)
        with _files.atomic_write(path) as file:
            file.write(text.encode())

    def to_hypernetx(self) -> Any:
        """As a ``hypernetx.Hypergraph``.

        Returns
        -------
        hypergraph : hypernetx.Hypergraph
            With the weights as cell weights. HyperNetX keeps no empty hyperedges and no lonely nodes.

        Raises
        ------
        Unsupported
            HyperNetX is not installed.
        """
        hypernetx = _optional("hypernetx", "to_hypernetx")
        members = self.to_dict()
        cells = {
            edge: {node: {"weight": w} for node, w in inside.items()} for edge, inside in members.items() if inside
        }
        return hypernetx.Hypergraph(cells)

    def to_xgi(self) -> Any:
        """As an ``xgi.Hypergraph``.

        Returns
        -------
        hypergraph : xgi.Hypergraph
            With the nodes' attribute "layer". XGI keeps no weights of incidences.

        Raises
        ------
        Unsupported
            XGI is not installed.
        """
        xgi = _optional("xgi", "to_xgi")
        graph = xgi.Hypergraph()
        graph.add_nodes_from(
            (node, {"layer": self.layer_names[k]}) for node, k in zip(self.nodes, self.layers, strict=True)
        )
        graph.add_edges_from((list(inside), edge, {}) for edge, inside in self.to_dict().items())
        return graph


# --- building blocks --------------------------------------------------------------------------------------------------


def scipy_sparse() -> Any:
    return _optional("scipy.sparse", "hypergraphs")


def _optional(module: str, what: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise Unsupported(
            f"{what}: needs {package}, which does not load here ({error}): pip install {package}"
        ) from error


def build(
    B: Sparse, nodes: Sequence[str], edges: Sequence[Hashable], layers: npt.NDArray[np.int64], names: Sequence[str]
) -> Hypergraph:
    B.sum_duplicates()
    B.eliminate_zeros()
    B.sort_indices()
    return Hypergraph(B, tuple(nodes), tuple(edges), layers, tuple(names))


def edge_names(argument: str, names: Sequence[Any] | None, n: int, default: type) -> tuple[Any, ...]:
    if names is None:
        return tuple(default(i) for i in range(n))
    if isinstance(names, str):
        raise InvalidType(argument, f"expected a sequence of names, got the single name {names!r}")
    listed = tuple(int(name) if isinstance(name, np.integer) else name for name in names)
    if len(listed) != n:
        raise InvalidArgument(argument, f"expected {n}, got {len(listed)}")
    if any(not isinstance(name, str | int) for name in listed):
        raise InvalidType(argument, "expected words or integers")
    if len(set(listed)) != n:
        raise InvalidArgument(argument, "holds a name twice")
    return listed


def _joined(parts: list[npt.NDArray[Any]]) -> npt.NDArray[np.int64]:
    return np.concatenate(parts).astype(np.int64, copy=False) if parts else np.empty(0, dtype=np.int64)


def _rips(distance: Matrix, dimension: int) -> list[Matrix]:
    gudhi = _optional("gudhi", f"persistence in dimension {dimension}")
    tree = gudhi.RipsComplex(distance_matrix=distance).create_simplex_tree(max_dimension=dimension + 1)
    tree.compute_persistence()
    bars = [np.reshape(tree.persistence_intervals_in_dimension(d), (-1, 2)) for d in range(dimension + 1)]
    return [found[np.lexsort((found[:, 0], found[:, 1]))] for found in bars]
