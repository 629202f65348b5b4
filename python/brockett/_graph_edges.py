"""Edges between singular modes that chance does not explain, and where they can be sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _files, _graph_export, _options
from ._errors import InvalidArgument
from ._graph_measures import GraphMeasures
from ._graph_null import CORRECTIONS, NULLS, Overlap, normal_log_tail

__all__ = ["GraphEdges", "GraphSignificance"]

Matrix = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class GraphEdges:
    """Significant edges between singular modes, one a row, those of each pair of layers by falling weight.

    Attributes
    ----------
    edge : ndarray of int
        Number of the pair of layers in `SpectralGraph.layer_edges`.
    source, target : ndarray of int
        The layers.
    source_mode, target_mode : ndarray of int
        Their modes, from 0, by falling singular value.
    weight : ndarray of float
        Squared overlap of the two vectors, in [0, 1].
    p_value, log10_p : ndarray of float
        Probability of such an overlap, or a larger one, between random vectors; its logarithm does not underflow.
    n_tests : int
        Pairs of modes that could have become an edge.
    level : float
        Largest p-value that counts, before any correction.
    cut : float
        Largest p-value that counts, after it.
    null, correction : str, str or None
        As asked for.
    """

    edge: Whole
    source: Whole
    source_mode: Whole
    target: Whole
    target_mode: Whole
    weight: Matrix
    p_value: Matrix
    log10_p: Matrix
    n_tests: int
    level: float
    cut: float
    null: str
    correction: str | None

    def __len__(self) -> int:
        return len(self.weight)

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """The table as plain columns.

        Returns
        -------
        columns : dict of str to ndarray
            edge, source, source_mode, target, target_mode, weight, p_value, log10_p: all of the same length.
        """
        names = ("edge", "source", "source_mode", "target", "target_mode", "weight", "p_value", "log10_p")
        return {name: getattr(self, name) for name in names}

    def to_dataframe(self) -> Any:
        """The table as a pandas DataFrame.

        Returns
        -------
        table : pandas.DataFrame
            The columns of `columns`.

        Raises
        ------
        ImportError
            pandas is missing.
        """
        return _graph_export.dataframe(self.columns())


class GraphSignificance(GraphMeasures):
    """The significant edges of a `SpectralGraph`, and its exports, which hold these."""

    def edges(
        self,
        sigma: float = 3.0,
        null: str = "chi2",
        correction: str | None = None,
        *,
        alpha: float | None = None,
    ) -> GraphEdges:
        """Edges between modes that random vectors would rarely have.

        Parameters
        ----------
        sigma : float, default 3.0
            Significance: the level is 1 - Φ(sigma), 1.35e-3 for 3.
        null : {"chi2", "beta"}, default "chi2"
            Distribution of an overlap of random vectors, as in `edge_threshold`: "chi2" is the paper's, conservative
            for small layers; "beta" is exact (for two grouped convolutions, and where positions are on both sides, a
            Beta distribution with the exact mean and variance).
        correction : {None, "bonferroni", "bh"}, default None
            For the number of pairs tested in the whole graph. None: each pair by itself; of a million random pairs at
            three sigma 1,350 are edges. "bonferroni": the level bounds the probability of a single false edge. "bh"
            (Benjamini and Hochberg): the level bounds the expected share of false edges among those found, for tests
            that are independent or positively dependent.
        alpha : float, optional
            The level itself, in (0, 1), instead of sigma.

        Returns
        -------
        edges : GraphEdges

        Raises
        ------
        InvalidArgument, InvalidType
            A number that is not finite, a level outside (0, 1), an unknown word.

        Notes
        -----
        Pairs with a mode that is not resolved, and of groups of channels without a common one, are not tested. In a
        layer with several modes of one singular value only the subspace of these is determined, and the overlaps of the
        single modes depend on the basis; their sum over such modes does not.

        References
        ----------
        arXiv 2302.08183, section 3. Y. Benjamini, Y. Hochberg, J. R. Stat. Soc. B 57 (1995) 289.

        Examples
        --------
        >>> import numpy as np, brockett as bk
        >>> rng = np.random.default_rng(0)
        >>> g = bk.spectral_graph([rng.normal(size=(64, 64)), rng.normal(size=(64, 64))])
        >>> found = g.edges(null="beta")
        >>> found.n_tests, len(found), len(g.edges(null="beta", correction="bonferroni"))
        (4096, 7, 0)
        """
        word = _options.option("null", null, NULLS)
        if correction is not None:
            _options.option("correction", correction, tuple(c for c in CORRECTIONS if c))
        if alpha is None:
            log_level = normal_log_tail(_options.number("sigma", sigma))
        else:
            level = _options.number("alpha", alpha)
            if not 0 < level < 1:
                raise InvalidArgument("alpha", f"expected a number between 0 and 1, got {alpha!r}")
            log_level = float(np.log(level))
        tests = [self._tests(number) for number in range(len(self.layer_edges))]
        n_tests = sum(int(where.sum()) for one in tests for _, where in one)
        log_cut = log_level - (np.log(n_tests) if correction == "bonferroni" and n_tests else 0.0)

        rows: list[npt.NDArray[Any]] = []
        for number, one in enumerate(tests):
            A = self._host[number]
            for overlap, where in one:
                j, i = np.nonzero(where & (overlap.threshold(log_cut, word) <= A))
                w = A[j, i]
                rows.append(np.stack([np.full(w.size, number), i, j, w, np.minimum(overlap.log_tail(w, word), 0.0)]))
        table = np.concatenate(rows, axis=1) if rows else np.zeros((5, 0))
        if correction == "bh":
            log_p = np.sort(table[4])
            with np.errstate(divide="ignore"):
                allowed = log_level + np.log(np.arange(1, log_p.size + 1)) - np.log(max(n_tests, 1))
            below = np.flatnonzero(log_p <= allowed)
            log_cut = float(log_p[below[-1]]) if below.size else -np.inf
            table = table[:, table[4] <= log_cut]
        table = table[:, np.lexsort((table[2], table[1], -table[3], table[0]))]
        number = table[0].astype(np.int64)
        ends = np.array(self.layer_edges, dtype=np.int64).reshape(-1, 2)
        return GraphEdges(
            edge=number,
            source=ends[number, 0],
            source_mode=table[1].astype(np.int64),
            target=ends[number, 1],
            target_mode=table[2].astype(np.int64),
            weight=table[3],
            p_value=np.exp(table[4]),
            log10_p=table[4] / np.log(10),
            n_tests=n_tests,
            level=float(np.exp(log_level)),
            cut=float(np.exp(log_cut)),
            null=word,
            correction=correction,
        )

    def _tests(self, number: int) -> list[tuple[Overlap, npt.NDArray[np.bool_]]]:
        """Null distributions of one edge of layers, each with the pairs of modes (target, source) that it is of."""
        a, b = self.layer_edges[number]
        source, target, joint = self.layers[a], self.layers[b], self._transitions[number]
        P, Q = joint.positions
        n1, n2 = joint.channels // source.groups, joint.channels // target.groups
        i, j = self.groups[a] * n1, self.groups[b] * n2  # first channel of the group of each mode
        shared = np.minimum(i[None, :] + n1, j[:, None] + n2) - np.maximum(i[None, :], j[:, None])
        resolved = np.zeros(shared.shape, dtype=bool)
        resolved[: self.n_resolved[b], : self.n_resolved[a]] = True
        found = []
        for s in np.unique(shared[shared > 0]):
            overlap = Overlap(n1, n2, int(s), P, Q)
            if overlap.mean < 1:  # of one channel each: always 1, whatever the weights
                found.append((overlap, resolved & (shared == s)))
        return found

    # --- exports ------------------------------------------------------------------------------------------------------

    def to_dataframe(
        self, sigma: float = 3.0, null: str = "chi2", correction: str | None = None, *, alpha: float | None = None
    ) -> Any:
        """The significant edges as a pandas DataFrame.

        Parameters
        ----------
        sigma, null, correction, alpha
            As in `edges`.

        Returns
        -------
        table : pandas.DataFrame
            The columns of `GraphEdges`; ``g.edges(…).columns()`` needs no pandas.

        Raises
        ------
        ImportError
            pandas is missing.
        """
        return self.edges(sigma, null, correction, alpha=alpha).to_dataframe()

    def to_networkx(
        self, sigma: float = 3.0, null: str = "chi2", correction: str | None = None, *, alpha: float | None = None
    ) -> Any:
        """The graph with its significant edges for networkx.

        Parameters
        ----------
        sigma, null, correction, alpha
            As in `edges`.

        Returns
        -------
        graph : networkx.DiGraph
            Nodes (layer, mode) with layer_name, kind, singular_value, resolved and intensity; edges with weight,
            p_value and log10_p.

        Raises
        ------
        ImportError
            networkx is missing (``pip install 'brockett[graph]'``).
        """
        return _graph_export.to_networkx(self, self.edges(sigma, null, correction, alpha=alpha))

    def to_graphml(
        self,
        path: _files.PathLike,
        sigma: float = 3.0,
        null: str = "chi2",
        correction: str | None = None,
        *,
        alpha: float | None = None,
    ) -> None:
        """Write the graph with its significant edges as GraphML, for Gephi, Cytoscape, yEd and the like.

        Parameters
        ----------
        path : path-like
            Written atomically.
        sigma, null, correction, alpha
            As in `edges`.

        Raises
        ------
        ImportError
            networkx is missing (``pip install 'brockett[graph]'``).
        OSError
            The file cannot be written.
        """
        _graph_export.to_graphml(self, self.edges(sigma, null, correction, alpha=alpha), path)

    def to_json(
        self,
        path: _files.PathLike,
        sigma: float = 3.0,
        null: str = "chi2",
        correction: str | None = None,
        *,
        alpha: float | None = None,
    ) -> None:
        """Write the graph with its significant edges as node-link JSON, for D3 and ``networkx.node_link_graph``.

        Parameters
        ----------
        path : path-like
            Written atomically.
        sigma, null, correction, alpha
            As in `edges`.

        Raises
        ------
        OSError
            The file cannot be written.
        """
        _graph_export.to_json(self, self.edges(sigma, null, correction, alpha=alpha), path)

    def plot(
        self,
        path: _files.PathLike,
        sigma: float = 3.0,
        null: str = "chi2",
        correction: str | None = None,
        *,
        alpha: float | None = None,
        max_edges: int = 200,
        log: bool = False,
    ) -> None:
        """Draw the layers side by side, their modes by singular value, joined by the significant edges, to a PNG file.

        Parameters
        ----------
        path : path-like
            Written atomically.
        sigma, null, correction, alpha
            As in `edges`.
        max_edges : int, default 200
            Edges drawn between two layers at most, the strongest; more cannot be told apart.
        log : bool, default False
            Singular values on a logarithmic axis.

        Raises
        ------
        ImportError
            matplotlib is missing (``pip install 'brockett[cli]'``).
        OSError
            The file cannot be written.
        """
        from ._graph_plot import plot_graph

        most = _options.count("max_edges", max_edges)
        scale = _options.flag("log", log)
        plot_graph(self, self.edges(sigma, null, correction, alpha=alpha), path, most, scale)
