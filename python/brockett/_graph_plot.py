"""The picture of a spectral graph. matplotlib is imported when one is drawn, not before."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from . import _files

if TYPE_CHECKING:
    from ._graph_edges import GraphEdges, GraphSignificance

__all__ = ["plot_graph"]

Matrix = npt.NDArray[np.float64]

#: Colour maps of modes by intensity: fully connected, convolutional.
_NODES = ("Blues", "Reds")
#: Names of layers that fit beside each other upright, in characters an inch.
_CHARACTERS = 11.0


def plot_graph(graph: GraphSignificance, edges: GraphEdges, path: _files.PathLike, max_edges: int, log: bool) -> None:
    """Layers from left to right, a dot for each mode at its singular value, lines for the significant edges."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.lines import Line2D
    except ImportError as error:
        raise ImportError("matplotlib is needed to draw: pip install 'brockett[cli]'") from error

    n = len(graph.layers)
    figure = Figure(figsize=(min(max(6.4, 1.0 * n + 2.0), 24.0), 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.add_subplot()
    floor = _floor(graph) if log else 0.0
    heights = [np.maximum(s, floor) if log else s for s in graph._s]
    drawn = _lines(axis, edges, heights, max_edges)
    for layer in range(n):
        _dots(axis, graph, layer, heights[layer])

    if log:
        axis.set_yscale("log")
    axis.set(ylabel="singular value", xlim=(-0.5, n - 0.5))
    names = [layer.name for layer in graph.layers]
    room = figure.get_size_inches()[0] / n * _CHARACTERS
    axis.set_xticks(
        range(n),
        names,
        rotation=0 if max(map(len, names)) <= room else 40,
        ha="center" if max(map(len, names)) <= room else "right",
    )
    for side in ("top", "right", "bottom"):
        axis.spines[side].set_visible(False)
    axis.tick_params(axis="x", length=0)
    axis.grid(axis="y", alpha=0.2)
    correction = (
        "no correction"
        if edges.correction is None
        else {"bonferroni": "Bonferroni", "bh": "Benjamini–Hochberg"}[edges.correction]
    )
    shown = f"{len(edges):,} significant edges" + ("" if drawn == len(edges) else f" ({drawn:,} drawn)")
    axis.set_title(
        f"{graph.method}: {shown} of {edges.n_tests:,} pairs; level {edges.level:.2g}, {correction}, {edges.null} null",
        fontsize="medium",
    )
    kinds = {layer.convolutional for layer in graph.layers}
    keys: list[Any] = [
        Line2D([], [], marker="o", linestyle="", color=_colour(kind, 0.8), label=label)
        for kind, label in ((True, "convolution"), (False, "fully connected"))
        if kind in kinds
    ]
    keys.append(Line2D([], [], marker="o", linestyle="", color="0.85", markeredgecolor="0.6", label="low intensity"))
    keys.append(Line2D([], [], color="0.2", linewidth=1.6, label="strong edge"))
    keys.append(Line2D([], [], color="0.75", linewidth=0.8, label="weak edge"))
    axis.legend(handles=keys, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize="small")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=130)
    with _files.atomic_write(path) as file:
        file.write(picture.getvalue())


def _floor(graph: GraphSignificance) -> float:
    """A little below the smallest singular value above rounding: where the rest is drawn on a logarithmic axis."""
    resolved = [s[:r] for s, r in zip(graph._s, graph.n_resolved, strict=True) if r > 0]
    return 0.5 * float(min(s.min() for s in resolved)) if resolved else 1.0


def _colour(convolutional: bool, intensity: Any) -> Any:
    from matplotlib import colormaps

    return colormaps[_NODES[int(convolutional)]](0.15 + 0.75 * np.asarray(intensity))


def _dots(axis: Any, graph: GraphSignificance, layer: int, heights: Matrix) -> None:
    resolved = np.arange(len(heights)) < graph.n_resolved[layer]
    intensity = graph.node_intensity(layer)
    colour = _colour(graph.layers[layer].convolutional, intensity)
    x = np.full(len(heights), float(layer))
    order = np.argsort(intensity[resolved], kind="stable")  # the intense ones on top
    axis.scatter(
        x[resolved][order],
        heights[resolved][order],
        s=26,
        c=colour[resolved][order],
        edgecolors="0.35",
        linewidths=0.4,
        zorder=3,
    )
    axis.scatter(x[~resolved], heights[~resolved], s=16, marker="x", c="0.6", linewidths=0.8, zorder=3)


def _lines(axis: Any, edges: GraphEdges, heights: list[Matrix], max_edges: int) -> int:
    """Draw the strongest edges of each pair of layers, the stronger over the weaker; returns how many."""
    from matplotlib.collections import LineCollection

    drawn = 0
    for number in np.unique(edges.edge):
        at = np.flatnonzero(edges.edge == number)[:max_edges][::-1]  # by falling weight: turned, to draw these last
        drawn += at.size
        weight = edges.weight[at]
        low, high = float(edges.weight[edges.edge == number].min()), float(weight.max()) if at.size else 0.0
        strength = (weight - low) / (high - low) if high > low else np.ones(at.size)
        a = edges.source[at].astype(np.float64)
        b = edges.target[at].astype(np.float64)
        ya = np.array([heights[k][i] for k, i in zip(edges.source[at], edges.source_mode[at], strict=True)])
        yb = np.array([heights[k][j] for k, j in zip(edges.target[at], edges.target_mode[at], strict=True)])
        t = np.linspace(0, 1, 24)
        if np.all(np.abs(b - a) == 1):
            paths = [np.column_stack([[x0, x1], [y0, y1]]) for x0, x1, y0, y1 in zip(a, b, ya, yb, strict=True)]
        else:  # past other layers: an arc, so that it is not taken for an edge of these
            rise = 0.12 * max(float(h.max()) for h in heights)
            paths = [
                np.column_stack([x0 + (x1 - x0) * t, y0 + (y1 - y0) * t + rise * np.sin(np.pi * t)])
                for x0, x1, y0, y1 in zip(a, b, ya, yb, strict=True)
            ]
        shade = 0.82 - 0.68 * strength
        lines = LineCollection(paths, colors=[(g, g, g) for g in shade], linewidths=0.5 + 1.3 * strength, zorder=1)
        axis.add_collection(lines, autolim=False)
    return int(drawn)
