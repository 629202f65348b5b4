"""The picture of a spectral graph. matplotlib is imported when one is drawn, not before."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from . import _files
from ._progress import printable

if TYPE_CHECKING:
    from ._graph_edges import GraphEdges, GraphSignificance

__all__ = ["plot_graph"]

Matrix = npt.NDArray[np.float64]

#: Colours of modes of full intensity: fully connected, convolutional; and of none.
_NODES = ((0.07, 0.33, 0.61), (0.74, 0.10, 0.12))
_GREY = (0.87, 0.87, 0.87)
#: Names of layers that fit beside each other upright, in characters an inch.
_CHARACTERS = 9.0


def plot_graph(graph: GraphSignificance, edges: GraphEdges, path: _files.PathLike, max_edges: int, log: bool) -> None:
    """Layers from left to right, a dot for each mode at its singular value, lines for the significant edges."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.lines import Line2D
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
    except ImportError as error:
        raise ImportError("matplotlib is needed to draw: pip install 'brockett[cli]'") from error

    n = len(graph.layers)
    figure = Figure(figsize=(min(max(6.4, 1.0 * n + 2.0), 24.0), 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.add_subplot()
    floor = _floor(graph) if log else 0.0
    heights = [np.maximum(s, floor) if log else s for s in graph._s]
    drawn = _lines(axis, edges, heights, max_edges, log)
    for layer in range(n):
        _dots(axis, graph, layer, heights[layer])

    axis.autoscale_view()
    if log:
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.yaxis.set_minor_formatter(NullFormatter())
    else:
        axis.set_ylim(bottom=0)
    axis.set(ylabel="singular value", xlim=(-0.5, n - 0.5))
    names = [printable(layer.name) for layer in graph.layers]
    upright = max(map(len, names)) <= figure.get_size_inches()[0] / n * _CHARACTERS
    angle, side = (0, "center") if upright else (40, "right")
    axis.set_xticks(range(n), names, rotation=angle, ha=side, parse_math=False)  # a $ in a name starts no formula
    for side in ("top", "right", "bottom"):
        axis.spines[side].set_visible(False)
    axis.tick_params(axis="x", length=0)
    axis.grid(axis="y", alpha=0.2)
    correction = {None: "no correction", "bonferroni": "Bonferroni", "bh": "Benjamini–Hochberg"}[edges.correction]
    shown = f"{len(edges):,} significant edges" + ("" if drawn == len(edges) else f" ({drawn:,} drawn)")
    axis.set_title(
        f"{graph.method}: {shown} of {edges.n_tests:,} pairs; level {edges.level:.2g}, {correction}, {edges.null} null",
        fontsize="medium",
    )
    kinds = {layer.convolutional for layer in graph.layers}
    keys: list[Any] = [
        Line2D([], [], marker="o", linestyle="", color=tuple(_colour(kind, 1.0)), markeredgecolor="0.35", label=label)
        for kind, label in ((True, "convolution"), (False, "fully connected"))
        if kind in kinds
    ]
    keys.append(Line2D([], [], marker="o", linestyle="", color=_GREY, markeredgecolor="0.35", label="no intensity"))
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


def _colour(convolutional: bool, intensity: npt.ArrayLike) -> Matrix:
    share = np.asarray(intensity, dtype=np.float64)[..., None]
    return np.asarray(np.array(_GREY) * (1 - share) + np.array(_NODES[int(convolutional)]) * share)


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


def _lines(axis: Any, edges: GraphEdges, heights: list[Matrix], max_edges: int, log: bool) -> int:
    """Draw the strongest edges of each pair of layers, the stronger over the weaker; returns how many."""
    from matplotlib.collections import LineCollection

    strongest = [np.flatnonzero(edges.edge == k)[:max_edges] for k in np.unique(edges.edge)]
    at = np.concatenate([np.zeros(0, dtype=np.int64), *strongest])
    at = at[np.argsort(edges.weight[at], kind="stable")]
    if at.size == 0:
        return 0
    # |u · v|: on the scale of the weight itself all but the very strongest would look alike
    strength = np.sqrt(edges.weight[at] / edges.weight[at].max())
    t = np.linspace(0, 1, 32)
    scale, back = (np.log, np.exp) if log else (np.asarray, np.asarray)
    values = np.concatenate([scale(h) for h in heights])
    paths = []
    for k in at:
        a, b = int(edges.source[k]), int(edges.target[k])
        start, end = scale(heights[a][edges.source_mode[k]]), scale(heights[b][edges.target_mode[k]])
        y = start + (end - start) * t
        if b - a != 1:  # past other layers: an arc, so that it is not taken for an edge of these
            y = y + 0.12 * np.sqrt(abs(b - a)) * np.ptp(values) * np.sin(np.pi * t)
        paths.append(np.column_stack([a + (b - a) * t, back(y)]))
    shades = [(g, g, g) for g in 0.95 - 0.85 * strength]
    lines = LineCollection(paths, colors=shades, linewidths=0.4 + 1.4 * strength, zorder=1)
    axis.add_collection(lines)
    return int(at.size)
