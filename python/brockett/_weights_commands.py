"""The commands that read the weights of a whole network: ``spectra`` and ``graph``."""

from __future__ import annotations

import csv
import importlib.util
import io
from collections import Counter
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

import brockett as bk
from brockett import _files
from brockett._analyze import graph_of
from brockett._commands import Refused, app, check_outputs, console
from brockett._progress import printable

Weights = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="Weights: safetensors (or an index of shards, or a folder), .npz, ONNX, Keras, a PyTorch checkpoint.",
    ),
]
Select = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN", help="Only layers of this name, or that match, such as 'encoder.*'; may be given again."
    ),
]
FoldNorm = Annotated[bool, typer.Option("--fold-norm", help="Fold the batch normalization after a layer into it.")]
Plot = Annotated[Path | None, typer.Option(metavar="PNG", help="Picture.")]
Interactive = Annotated[
    Path | None, typer.Option(metavar="HTML", help="Page to look around in (needs brockett\\[interactive]).")
]


class Convention(str, Enum):
    brockett = "brockett"
    weightwatcher = "weightwatcher"
    deepdataprofiler = "deepdataprofiler"


class Method(str, Enum):
    svr = "svr"
    cosvr = "cosvr"


class Null(str, Enum):
    chi2 = "chi2"
    beta = "beta"


class Correction(str, Enum):
    bonferroni = "bonferroni"
    bh = "bh"


def _check(interactive: Path | None, *others: Path | None) -> None:
    """What would fail after the work is found out before it."""
    check_outputs(interactive, *others)
    if interactive is not None and importlib.util.find_spec("plotly") is None:
        raise Refused("--interactive needs Plotly: pip install 'brockett[interactive]'")


def _written(*paths: Path | None) -> None:
    for path in paths:
        if path is not None:
            print(f"written: {path}")


def _show(table: Table, width: int = 120) -> None:
    """As wide as it has to be: a name that is cut or folded cannot be pasted to --select or --edge."""
    wide = console(width)
    needed = Measurement.get(wide, wide.options.update(width=10_000), table).maximum
    (wide if needed <= wide.width else Console(width=needed)).print(table)


def _number(value: Any, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}g}"


# ------------------------------------------------------------------------------------------------------------- spectra
_SHOWN = (
    ("Q", "Q"),
    ("σ₁", "spectral_norm"),
    ("stable rank", "stable_rank"),
    ("eff. rank", "effective_rank"),
    ("α", "alpha"),
    ("α log λ", "alpha_weighted"),
    ("MP var.", "mp_variance"),
    ("spikes", "n_spikes"),
    ("soft rank", "mp_soft_rank"),
)


@app.command()
def spectra(
    file: Weights,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="TABLE", help="The whole table: .json (with spectra) or .csv."),
    ] = None,
    plot: Plot = None,
    interactive: Interactive = None,
    select: Select = None,
    fold_norm: FoldNorm = False,
    convention: Annotated[
        Convention, typer.Option(help="Whose normalization of eigenvalues, and what comes with it.")
    ] = Convention.brockett,
    panels: Annotated[int, typer.Option(min=1, help="Layers in the picture at most, spread evenly.")] = 12,
) -> None:
    """Spectra of all layers: norms, ranks, power-law tails, Marchenko–Pastur bulks, phases."""
    _check(interactive, output, plot)
    if output is not None and output.suffix.lower() not in (".json", ".csv"):
        raise Refused(f"{output}: expected a name that ends in .json or .csv")
    with bk.models.load(file, fold_norm=fold_norm) as model:
        found = bk.analyze(model, select=select, convention=convention.value, progress=True)
    if output is not None:
        found.save(output)
    _show(_table(found), 150)
    for line in _notes(found):
        print(printable(line))
    if not found.metrics:
        raise Refused(f"{file}: holds no layer that can be analysed (see above)")
    if plot is not None:
        found.plot(plot, max_layers=panels)
    if interactive is not None:
        found.interactive(interactive)
    _written(output, plot, interactive)


def _table(found: bk.Analysis) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    table.add_column("layer", no_wrap=True)
    table.add_column("shape", no_wrap=True)
    for title, _ in _SHOWN:
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("phase", no_wrap=True)
    for row in found.rows:
        if row["name"] not in found.metrics:
            continue
        numbers = (_number(row[column]) for _, column in _SHOWN)
        shape = "×".join(map(str, row["shape"]))
        table.add_row(Text(printable(row["name"])), shape, *numbers, (row["phase"] or "–").replace("_", " "))
    return table


def _notes(found: bk.Analysis) -> list[str]:
    """Why numbers are missing, and which tensors are no layers; the many biases in one line."""
    lines = []
    universal = found.universal
    if universal is not None and universal.value is not None:
        layers = "1 layer" if universal.n_layers == 1 else f"{universal.n_layers} layers"
        lines.append(f"weighted alpha of the network: {universal.value:.4g}, the mean of {layers}")
    lines += [
        f"{row['name']}: {row['declined']}" for row in found.rows if row["declined"] and row["name"] in found.metrics
    ]
    others = Counter(row["declined"] for row in found.rows if row["name"] not in found.metrics)
    for reason, count in others.most_common():
        names = [row["name"] for row in found.rows if row["declined"] == reason and row["name"] not in found.metrics]
        listed = ", ".join(names[:3]) + (" …" if count > 3 else "")
        lines.append(f"not analysed, {count}: {reason} ({listed})")
    return lines


# --------------------------------------------------------------------------------------------------------------- graph
@app.command()
def graph(
    file: Weights,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="GRAPH", help="The graph: .json, .graphml, or .csv of its edges."),
    ] = None,
    plot: Plot = None,
    interactive: Interactive = None,
    select: Select = None,
    fold_norm: FoldNorm = False,
    edge: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FROM:TO",
            help="Layers that are joined; by default as the file says, or each and the next, where shapes fit.",
        ),
    ] = None,
    method: Annotated[
        Method, typer.Option(help="Kernel positions to the inputs (svr) or the outputs (cosvr).")
    ] = Method.svr,
    rank: Annotated[int, typer.Option(min=0, help="Leading modes of each layer; 0 for all.")] = 128,
    sigma: Annotated[float, typer.Option(help="Significance of an edge.")] = 3.0,
    null: Annotated[
        Null, typer.Option(help="Distribution of an overlap by chance: the paper's, or the exact one.")
    ] = Null.chi2,
    correction: Annotated[Correction | None, typer.Option(help="For the number of pairs tested.")] = None,
) -> None:
    """The singular value graph: how the modes of one layer feed those of the next."""
    _check(interactive, output, plot)
    if output is not None and output.suffix.lower() not in (".json", ".graphml", ".csv"):
        raise Refused(f"{output}: expected a name that ends in .json, .graphml or .csv")
    if output is not None and output.suffix.lower() == ".graphml" and importlib.util.find_spec("networkx") is None:
        raise Refused(f"{output}: GraphML needs networkx: pip install networkx")
    with bk.models.load(file, fold_norm=fold_norm) as model, Console(stderr=True).status("decomposing the layers"):
        pairs = None if not edge else [_pair(one, model.names) for one in edge]
        found = graph_of(model, pairs, method.value, rank or None, select)
        if len(found.layers) == 1:
            raise Refused(f"{file}: {found.layers[0].name} is one layer, there is nothing to join it to")
        options: dict[str, Any] = {
            "sigma": sigma,
            "null": null.value,
            "correction": None if correction is None else correction.value,
        }
        edges = found.edges(**options)
    if output is not None:
        suffix = output.suffix.lower()
        if suffix == ".csv":
            _write_edges(found, edges, output)
        else:
            (found.to_json if suffix == ".json" else found.to_graphml)(output, **options)
    if plot is not None:
        found.plot(plot, **options)
    if interactive is not None:
        from brockett._interactive import write_graph

        write_graph(found, edges, interactive)
    _show(_joints(found, edges))
    _written(output, plot, interactive)


def _pair(text: str, names: Sequence[str]) -> tuple[str, str]:
    """FROM:TO; names may hold colons themselves ("onnx::MatMul_3"), so the one between two names that there are."""
    cuts = [(text[:k], text[k + 1 :]) for k, letter in enumerate(text) if letter == ":" and 0 < k < len(text) - 1]
    if not cuts:
        raise Refused(f"--edge: expected FROM:TO, two names of layers, got {text!r}")
    return next((pair for pair in cuts if pair[0] in names and pair[1] in names), cuts[0])


def _joints(found: Any, edges: Any) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    table.add_column("from", no_wrap=True)
    table.add_column("to", no_wrap=True)
    for title in ("modes", "edges", "by chance", "strongest"):
        table.add_column(title, justify="right", no_wrap=True)
    for number, (a, b) in enumerate(found.layer_edges):
        here = edges.edge == number
        pairs = found.n_resolved[a] * found.n_resolved[b]
        weight = edges.weight[here]
        table.add_row(
            Text(printable(found.layers[a].name)),
            Text(printable(found.layers[b].name)),
            f"{found.n_resolved[a]} × {found.n_resolved[b]}",
            str(int(np.count_nonzero(here))),
            _number(pairs * edges.cut),
            _number(float(weight.max()) if len(weight) else None),
        )
    return table


def _write_edges(found: Any, edges: Any, path: Path) -> None:
    columns = edges.columns()
    written = io.StringIO()
    table = csv.writer(written, lineterminator="\n")
    table.writerow(["from", "from_mode", "to", "to_mode", "weight", "p_value"])
    names = [layer.name for layer in found.layers]
    for k in range(len(edges)):
        table.writerow(
            [
                names[columns["source"][k]],
                columns["source_mode"][k],
                names[columns["target"][k]],
                columns["target_mode"][k],
                repr(float(columns["weight"][k])),
                repr(float(columns["p_value"][k])),
            ]
        )
    with _files.atomic_write(path) as file:
        file.write(written.getvalue().encode())
