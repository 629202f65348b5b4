"""Spectral graphs for other libraries and files. networkx and pandas are imported when one is asked for, not before."""

from __future__ import annotations

import importlib
import io
import json
from typing import TYPE_CHECKING, Any

from . import _files

if TYPE_CHECKING:
    from ._graph_edges import GraphEdges, GraphSignificance

__all__ = ["dataframe", "nodes", "to_graphml", "to_json", "to_networkx"]


def _optional(library: str, install: str) -> Any:
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise ImportError(f"{library} is needed: {install}") from error


def dataframe(columns: dict[str, Any]) -> Any:
    """Columns as a pandas DataFrame."""
    return _optional("pandas", "pip install pandas").DataFrame(columns)


def nodes(graph: GraphSignificance) -> list[tuple[int, int, dict[str, Any]]]:
    """(layer, mode, attributes) of every mode; attributes are plain numbers and text, which every format can hold."""
    found = []
    for number, layer in enumerate(graph.layers):
        intensity = graph.node_intensity(number)
        for mode, s in enumerate(graph._s[number]):
            attributes = {
                "layer": number,
                "mode": mode,
                "layer_name": layer.name,
                "kind": "convolution" if layer.convolutional else "fully connected",
                "singular_value": float(s),
                "resolved": mode < graph.n_resolved[number],
                "intensity": float(intensity[mode]),
            }
            found.append((number, mode, attributes))
    return found


def _links(edges: GraphEdges) -> list[tuple[tuple[int, int], tuple[int, int], dict[str, float]]]:
    rows = zip(
        zip(edges.source.tolist(), edges.source_mode.tolist(), strict=True),
        zip(edges.target.tolist(), edges.target_mode.tolist(), strict=True),
        edges.weight.tolist(),
        edges.p_value.tolist(),
        edges.log10_p.tolist(),
        strict=True,
    )
    return [(a, b, {"weight": w, "p_value": p, "log10_p": logarithm}) for a, b, w, p, logarithm in rows]


def _about(graph: GraphSignificance, edges: GraphEdges) -> dict[str, Any]:
    return {
        "method": graph.method,
        "null": edges.null,
        "correction": edges.correction or "none",
        "level": edges.level,
        "n_tests": edges.n_tests,
    }


def to_networkx(graph: GraphSignificance, edges: GraphEdges, text: bool = False) -> Any:
    """A DiGraph over (layer, mode), or over "layer:mode" for files whose nodes are text."""
    networkx = _optional("networkx", "pip install 'brockett[graph]'")

    def name(node: tuple[int, int]) -> Any:
        return f"{node[0]}:{node[1]}" if text else node

    out = networkx.DiGraph(**_about(graph, edges))
    out.add_nodes_from((name((layer, mode)), attributes) for layer, mode, attributes in nodes(graph))
    out.add_edges_from((name(a), name(b), attributes) for a, b, attributes in _links(edges))
    return out


def to_graphml(graph: GraphSignificance, edges: GraphEdges, path: _files.PathLike) -> None:
    """GraphML by networkx's writer, atomically."""
    networkx = _optional("networkx", "pip install 'brockett[graph]'")
    text = io.BytesIO()
    networkx.write_graphml(to_networkx(graph, edges, text=True), text)
    with _files.atomic_write(path) as file:
        file.write(text.getvalue())


def to_json(graph: GraphSignificance, edges: GraphEdges, path: _files.PathLike) -> None:
    """Node-link JSON, atomically."""
    document = {
        "directed": True,
        "multigraph": False,
        "graph": _about(graph, edges),
        "nodes": [{"id": f"{layer}:{mode}", **attributes} for layer, mode, attributes in nodes(graph)],
        "links": [
            {"source": f"{a[0]}:{a[1]}", "target": f"{b[0]}:{b[1]}", **attributes} for a, b, attributes in _links(edges)
        ],
    }
    with _files.atomic_write(path) as file:
        file.write(json.dumps(document, allow_nan=False).encode())
