"""Spectra and graphs as pages to look around in, with Plotly: an extra, imported when a page is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _files
from ._layer_metrics import LayerMetrics
from ._spectra_plot import bulk_curve, density, tail_curve, title_of

if TYPE_CHECKING:
    from ._graph_edges import GraphEdges
    from ._spectral_graph import SpectralGraph

__all__ = ["write_graph", "write_spectra"]

#: What of the table is worth a tip when the mouse is over a layer.
_SHOWN = ("alpha", "stable_rank", "effective_rank", "spectral_norm", "n_spikes", "mp_soft_rank", "phase")


def _plotly() -> Any:
    try:
        import plotly.graph_objects
    except ImportError as error:
        raise ImportError("interactive pages need Plotly: pip install 'brockett[interactive]'") from error
    return plotly.graph_objects


def _write(figure: Any, path: _files.PathLike) -> None:
    # With the library in the page: it opens without a network, for as long as there are browsers.
    page = figure.to_html(include_plotlyjs=True, full_html=True)
    with _files.atomic_write(path) as file:
        file.write(page.encode())


def write_spectra(layers: Mapping[str, LayerMetrics], rows: Sequence[Mapping[str, Any]], path: _files.PathLike) -> None:
    """Densities of all layers, one shown at a time, chosen from a menu; all of them as the first entry."""
    go = _plotly()
    table = {row["name"]: row for row in rows}
    figure = go.Figure()
    owner: list[str] = []

    def add(name: str, trace: Any) -> None:
        figure.add_trace(trace)
        owner.append(name)

    for name, one in layers.items():
        tip = "<br>".join(f"{key}: {_short(table[name].get(key))}" for key in _SHOWN)
        x, y = density(one.eigenvalues)
        add(
            name,
            go.Scatter(
                x=x,
                y=y,
                mode="markers",
                name=name,
                hovertemplate=f"<b>{name}</b><br>λ = %{{x:.4g}}<br>{tip}<extra></extra>",
            ),
        )
        for label, curve, dash in (
            ("Marchenko–Pastur", bulk_curve(one), "solid"),
            ("power law", tail_curve(one), "dash"),
        ):
            if curve is not None:
                add(
                    name,
                    go.Scatter(x=curve[0], y=curve[1], mode="lines", line={"dash": dash}, name=label, showlegend=False),
                )
    everything = [{"visible": [True] * len(owner)}, {"title.text": f"{len(layers)} layers"}]
    buttons = [{"label": "all layers", "method": "update", "args": everything}]
    for name, one in layers.items():
        seen = [{"visible": [one_name == name for one_name in owner]}]
        title = title_of(name, one, width=80).replace("\n", "<br>")
        buttons.append({"label": name, "method": "update", "args": [*seen, {"title.text": title}]})
    figure.update_layout(
        title={"text": f"{len(layers)} layers"},
        template="plotly_white",
        updatemenus=[{"buttons": buttons, "x": 1.0, "xanchor": "right", "y": 1.12}],
    )
    figure.update_xaxes(type="log", title="eigenvalue λ", exponentformat="power")
    figure.update_yaxes(type="log", title="density", exponentformat="power")
    _write(figure, path)


def write_graph(graph: SpectralGraph, edges: GraphEdges, path: _files.PathLike, max_edges: int = 2000) -> None:
    """Layers from left to right, modes by singular value, the strongest significant edges in ten shades.

    One trace a shade: Plotly takes seconds to draw one trace an edge, and milliseconds to draw these. As SVG, which
    every browser draws; WebGL is not there on remote desktops and in headless ones.
    """
    go = _plotly()
    figure = go.Figure()
    values = [np.asarray(s, dtype=np.float64) for s in graph.singular_values]
    strongest = np.argsort(-edges.weight, kind="stable")[:max_edges]
    if len(strongest):
        weight = edges.weight[strongest]
        shade = np.minimum((10 * weight / max(float(weight.max()), 1e-300)).astype(int), 9)
        for k in range(10):
            chosen = strongest[shade == k]
            if len(chosen) == 0:
                continue
            x = np.full(3 * len(chosen), np.nan)
            y = np.full(3 * len(chosen), np.nan)
            x[0::3], x[1::3] = edges.source[chosen], edges.target[chosen]
            y[0::3] = [values[a][i] for a, i in zip(edges.source[chosen], edges.source_mode[chosen], strict=True)]
            y[1::3] = [values[b][j] for b, j in zip(edges.target[chosen], edges.target_mode[chosen], strict=True)]
            colour = f"rgba(76, 114, 176, {0.08 + 0.09 * k:.2f})"
            label = f"overlap ≥ {k / 10 * float(weight.max()):.2g}"
            figure.add_trace(go.Scatter(x=x, y=y, mode="lines", line={"color": colour}, name=label, hoverinfo="skip"))
    for number, layer in enumerate(graph.layers):
        s = values[number]
        drawn = s > 0
        figure.add_trace(
            go.Scatter(
                x=np.full(int(drawn.sum()), number),
                y=s[drawn],
                mode="markers",
                marker={"size": 5},
                name=layer.name,
                customdata=np.nonzero(drawn)[0],
                hovertemplate=f"<b>{layer.name}</b><br>mode %{{customdata}}<br>σ = %{{y:.4g}}<extra></extra>",
            )
        )
    names = [layer.name for layer in graph.layers]
    figure.update_layout(template="plotly_white", title={"text": f"{graph.method}: {len(edges)} significant edges"})
    figure.update_xaxes(tickvals=list(range(len(names))), ticktext=names)
    figure.update_yaxes(type="log", title="singular value", exponentformat="power")
    _write(figure, path)


def _short(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("_", " ")
