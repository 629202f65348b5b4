"""Everything about the weights of a network: one table, a row a layer, and one object."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from . import _files, _layer_metrics, _options
from ._errors import BrockettError, InvalidArgument, OutOfMemory, Unsupported
from ._layer_metrics import LayerMetrics
from ._progress import progress as show_progress
from ._universal_metric import UniversalMetric, universal_metric

if TYPE_CHECKING:
    from ._spectral_graph import SpectralGraph
    from .models import Layer, Tensor

__all__ = ["Analysis", "analyze"]

Vector = npt.NDArray[np.float64]

#: Columns of the table. The numbers are those of `LayerMetrics`, but for the two norms.
COLUMNS = (
    "name",
    "kind",
    "shape",
    "dtype",
    "Q",
    "rank",
    "frobenius_norm",
    "spectral_norm",
    "log_norm",
    "log_spectral_norm",
    "stable_rank",
    "effective_rank",
    "entropy",
    "alpha",
    "sigma",
    "xmin",
    "D",
    "n_tail",
    "p_value",
    "alpha_weighted",
    "log_alpha_norm",
    "mp_variance",
    "mp_ks",
    "n_spikes",
    "mp_soft_rank",
    "phase",
    "declined",
)


@dataclass(frozen=True, eq=False)
class Analysis:
    """What `analyze` found: a table, and behind it the spectrum and the fits of each layer.

    Attributes
    ----------
    rows : list of dict
        The table, a row a layer in the order of the network, also for tensors that are no layers. A number that could
        not be had is None, and the column "declined" says why: it is empty where there is nothing to say.
    metrics : dict of str to LayerMetrics
        Of each layer that has numbers: spectrum, norms, tail and bulk.
    singular_values : dict of str to ndarray
        Of the same layers, descending; below the resolution of the method they are 0.
    universal : UniversalMetric or None
        The weighted alpha of the network; None where no layer has numbers.
    """

    rows: list[dict[str, Any]]
    metrics: dict[str, LayerMetrics]
    singular_values: dict[str, Vector]
    universal: UniversalMetric | None
    _source: Any

    def __repr__(self) -> str:
        return f"Analysis({len(self.metrics)} layers, {len(self.rows) - len(self.metrics)} tensors declined)"

    def columns(self) -> dict[str, list[Any]]:
        """The table by columns.

        Returns
        -------
        columns : dict of str to list
            All of the same length.
        """
        return {name: [row[name] for row in self.rows] for name in COLUMNS}

    def to_dataframe(self) -> Any:
        """The table as a pandas DataFrame.

        Returns
        -------
        table : pandas.DataFrame
            Indexed by the names of the layers.

        Raises
        ------
        Unsupported
            pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise Unsupported(f"to_dataframe: needs pandas: pip install pandas ({error})") from error
        return pandas.DataFrame(self.columns()).set_index("name")

    def save(self, path: _files.PathLike) -> None:
        """Write the table, atomically: as JSON with the spectra where the name ends in ``.json``, else as CSV.

        Parameters
        ----------
        path : path-like
            Its folder must exist.

        Raises
        ------
        OSError
            The file cannot be written.
        """
        import csv
        import json

        rows = [{**row, "shape": "x".join(map(str, row["shape"]))} for row in self.rows]
        if str(path).lower().endswith(".json"):
            whole = {
                "layers": [
                    {**row, "singular_values": self.singular_values.get(row["name"], np.empty(0)).tolist()}
                    for row in rows
                ],
                "universal_metric": None if self.universal is None else self.universal.value,
            }
            text = json.dumps(whole, ensure_ascii=False, allow_nan=False, indent=1)
        else:
            written = io.StringIO()
            table = csv.DictWriter(written, COLUMNS, lineterminator="\n")
            table.writeheader()
            table.writerows(rows)
            text = written.getvalue()
        with _files.atomic_write(path) as file:
            file.write(text.encode())

    def graph(
        self,
        edges: Sequence[tuple[int | str, int | str]] | None = None,
        method: str = "svr",
        rank: int | None = None,
        *,
        select: str | Sequence[str] | None = None,
    ) -> SpectralGraph:
        """The singular value representation of the layers: see `spectral_graph`.

        Parameters
        ----------
        edges : sequence of (from, to), optional
            Names of layers, or their numbers among those selected. By default the graph of the file where it has one
            (ONNX, Keras); else each layer and the next, where their shapes chain, which does not mean that one reads
            the other.
        method : {"svr", "cosvr"}, default "svr"
        rank : int, optional
            Leading modes kept of each layer; all by default.
        select : str or sequence of str, optional
            Patterns such as ``"features.*"``; layers that match one are taken, all by default.

        Returns
        -------
        graph : SpectralGraph

        Raises
        ------
        InvalidArgument
            No layer is selected, no two of them chain, or given edges do not fit.

        Notes
        -----
        The layers are read again, and those selected held together.
        """
        return graph_of(self._source, edges, method, rank, select)

    def plot(self, path: _files.PathLike, *, select: str | Sequence[str] | None = None, max_layers: int = 12) -> None:
        """Draw the spectra of the layers to a PNG file: density, Marchenko–Pastur bulk, spikes, power-law tail.

        Parameters
        ----------
        path : path-like
            Written atomically.
        select : str or sequence of str, optional
            Patterns of names, as in `graph`.
        max_layers : int, default 12
            Panels at most; more layers are thinned out evenly.

        Raises
        ------
        InvalidArgument
            No layer to draw.
        ImportError
            matplotlib is missing (``pip install 'brockett[cli]'``).
        """
        from ._spectra_plot import plot_spectra

        plot_spectra(self._chosen(select), _options.count("max_layers", max_layers, least=1), path)

    def interactive(self, path: _files.PathLike, *, select: str | Sequence[str] | None = None) -> None:
        """Write the spectra of all layers and the table to a page with Plotly.

        Parameters
        ----------
        path : path-like
            An HTML file that needs nothing else; written atomically.
        select : str or sequence of str, optional
            Patterns of names, as in `graph`.

        Raises
        ------
        InvalidArgument
            No layer to draw.
        ImportError
            Plotly is missing (``pip install 'brockett[interactive]'``).
        """
        from ._interactive import write_spectra

        write_spectra(self._chosen(select), self.rows, path)

    def _chosen(self, select: str | Sequence[str] | None) -> dict[str, LayerMetrics]:
        from .models._model import matches

        # A layer of zeros has a row and nothing to draw; one of a few values hardly more.
        fitted = {name: one for name, one in self.metrics.items() if one.alpha is not None or one.n_spikes is not None}
        chosen = {name: one for name, one in fitted.items() if matches(name, select)}
        if not chosen:
            wanted = "has" if select is None else f"matches {select!r} and has"
            raise InvalidArgument("select", f"no layer {wanted} a bulk or a tail to draw")
        return chosen


def analyze(
    layers: Any,
    *,
    select: str | Sequence[str] | None = None,
    convention: str = "brockett",
    conv: str | None = None,
    log_base: float | None = None,
    alpha_range: tuple[float | None, float | None] | None = None,
    compare: bool = False,
    bootstrap: int = 0,
    seed: int = 0,
    progress: bool | None = None,
) -> Analysis:
    """Spectra, norms, ranks, power-law tails, bulks and phases of all layers of a network.

    Parameters
    ----------
    layers : mapping of str to weights, sequence of weights, path, torch.nn.Module, or Model
        Whatever `models.load` takes, with its defaults, or what it gives (which is left open): weights are arrays
        (out, in) or (out, in / groups, k…), or mappings with ``weight``, ``groups`` and ``transposed`` as in
        `spectral_graph`; a path is that of safetensors (or its index of shards), `.npz`, ONNX, Keras or a PyTorch
        checkpoint, read a layer at a time.
    select : str or sequence of str, optional
        Patterns such as ``"encoder.*.weight"``: only layers whose name matches one are taken.
    convention, conv, log_base, alpha_range, compare, bootstrap, seed
        As in `random_matrix.layer_metrics`.
    progress : bool, optional
        Show a progress bar, through rich where that is installed. By default where standard error is a terminal.

    Returns
    -------
    analysis : Analysis
        With `Analysis.rows`, the table.

    Raises
    ------
    FileFormatError
        A file that is damaged or of another kind.
    InvalidArgument
        No layers, no layer that matches, an unknown word.
    OutOfMemory, OSError

    Notes
    -----
    A tensor that is no layer of weights (one axis, integers, quantized, empty) and a layer about which nothing can be
    said (NaN, all zeros, too few values) has a row with the reason, and stops nothing; biases, statistics and scales
    follow the layer that they belong to. Each group of a grouped convolution is a layer of its own, "name[group 0]" and
    so on, each gate of a recurrent layer likewise ("name[i]"); a depthwise convolution has no matrix.

    The cost is that of `singular_values` (2/3 n m² + O(m³) flops for the Gram method, m ≤ n) and of one power-law fit a
    layer; memory that of one layer.

    References
    ----------
    C. H. Martin, M. W. Mahoney, arXiv 1810.01075; B. Praggastis et al., arXiv 2208.06894.

    Examples
    --------
    >>> import numpy as np, brockett as bk
    >>> rng = np.random.default_rng(0)
    >>> found = bk.analyze({"fc1": rng.normal(size=(200, 300)), "bias": np.zeros(200), "fc2": np.eye(4)})
    >>> [(row["name"], row["phase"], row["n_spikes"]) for row in found.rows]
    [('fc1', 'random_like', 0), ('bias', None, None), ('fc2', None, None)]
    >>> found.rows[1]["declined"]
    'one axis: a bias or a normalization'
    """
    from .models._load import open_model
    from .models._model import Model, matches, some, why_declined

    options: dict[str, Any] = {
        "convention": _options.option("convention", convention, _layer_metrics.CONVENTIONS),
        "conv": conv,
        "log_base": log_base,
        "alpha_range": alpha_range,
        "compare": _options.flag("compare", compare),
        "bootstrap": _options.count("bootstrap", bootstrap),
        "seed": _options.seed("seed", seed),
    }
    _layer_metrics.layer_metrics(np.eye(2), **options)  # a wrong option is an error of the call, not of every layer
    rows: list[dict[str, Any]] = []
    metrics: dict[str, LayerMetrics] = {}
    values: dict[str, Vector] = {}
    with contextlib.ExitStack() as stack:
        model = layers if isinstance(layers, Model) else stack.enter_context(open_model(layers, "layers"))
        found_parts = [(layer, _parts(layer, select)) for layer in model]
        wanted = [(layer, parts) for layer, parts in found_parts if parts or matches(layer.name, select)]
        if not wanted:
            raise InvalidArgument("select", f"no layer matches {select!r}; there are {some(model.names)}")
        with show_progress("layers", len(wanted), progress) as advance:
            told: set[str] = set()  # the parts of a stack share one bias
            for layer, parts in wanted:
                advance(layer.name)
                if matches(layer.name, select):
                    for name, shape, found, sigma, why in _of_layer(layer, options):
                        if found is not None and sigma is not None:
                            metrics[name], values[name] = found, sigma
                        rows.append(_row(name, layer.kind, shape, layer.dtype, found, sigma, why))
                for role, part in parts.items():
                    if part.name not in told:
                        why = why_declined(part.shape, part.dtype) or f"{role} of {layer.name}"
                        rows.append(_row(part.name, role, part.shape, part.dtype, None, None, why))
                        told.add(part.name)
    universal = universal_metric(list(metrics.values()), convention=convention, log_base=log_base) if metrics else None
    return Analysis(rows, metrics, values, universal, layers)


def graph_of(
    layers: Any,
    edges: Sequence[tuple[int | str, int | str]] | None,
    method: str,
    rank: int | None,
    select: str | Sequence[str] | None,
) -> SpectralGraph:
    """`spectral_graph` of the layers of a file, a module, a model or a mapping; see `Analysis.graph`."""
    from ._graph_layers import layers_of_source
    from ._spectral_graph import spectral_graph

    taken, joined = layers_of_source(layers, edges, method, select)
    return spectral_graph(taken, edges=joined, method=method, rank=rank)


def _parts(layer: Layer, select: str | Sequence[str] | None) -> dict[str, Tensor]:
    """What belongs to a layer beside its weights, by role."""
    from .models._model import matches

    others = {role: one for role, one in layer.tensors.items() if role != "weight" and one.name != layer.name}
    return {role: one for role, one in others.items() if matches(one.name, select)}


def _of_layer(layer: Layer, options: Mapping[str, Any]) -> Any:
    """(name, shape, metrics, singular values, why not) of the layer, or of each of its groups."""
    why = layer.declined
    if not why and layer.kind.startswith("depthwise"):
        why = "depthwise: one filter for each channel, no matrix between channels"
    if why:
        yield layer.name, layer.shape, None, None, why
        return
    weight = layer.read()
    rows = layer.shape[0] // layer.groups
    for g in range(layer.groups):
        name = layer.name if layer.groups == 1 else f"{layer.name}[group {g}]"
        part = weight if layer.groups == 1 else weight[g * rows : (g + 1) * rows]
        shape = (rows, *layer.shape[1:])
        try:
            found, sigma = _metrics(part, options)
        except OutOfMemory:
            raise
        except BrockettError as error:
            yield name, shape, None, None, str(error).removeprefix("W: ")
        else:
            yield name, shape, found, sigma, ""


def _metrics(weight: Any, options: Mapping[str, Any]) -> tuple[LayerMetrics, Vector]:
    found = _layer_metrics.layer_metrics(weight, **options)
    return found, np.sqrt(found.eigenvalues) * math.sqrt(_divisor(found, options["conv"]))


def _divisor(found: LayerMetrics, conv: str | None) -> float:
    """What `layer_metrics` divides σ² by, to get its eigenvalues."""
    rows, columns, *kernel = found.shape
    sliced = (conv or ("slices" if found.convention == "weightwatcher" else "unfold")) == "slices"
    larger = max(rows, columns if sliced else columns * math.prod(kernel))
    return {"brockett": larger, "deepdataprofiler": rows, "weightwatcher": 2 if kernel else 1}[found.convention]


def _row(
    name: str,
    kind: str,
    shape: tuple[int, ...],
    dtype: str,
    found: LayerMetrics | None,
    sigma: Vector | None,
    why: str,
) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row |= {"name": name, "kind": kind, "shape": shape, "dtype": dtype, "declined": why}
    if found is None or sigma is None:
        return row
    whole = found.row()
    row |= {column: whole[column] for column in COLUMNS if column in whole and column not in ("shape", "declined")}
    row["frobenius_norm"] = _root_of_squares(sigma)
    row["spectral_norm"] = float(sigma[0])
    row["mp_variance"], row["mp_ks"] = found.bulk.variance, found.bulk.ks
    reasons: dict[str, list[str]] = {}
    for what, reason in found.declined.items():
        reasons.setdefault(reason, []).append(what)
    row["declined"] = "; ".join(f"{', '.join(whats)}: {reason}" for reason, whats in reasons.items())
    return row


def _root_of_squares(sigma: Vector) -> float:
    largest = float(sigma[0])
    return largest * float(np.linalg.norm(sigma / largest)) if largest > 0 else 0.0
