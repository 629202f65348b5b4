"""The commands of the ``brockett`` program. `brockett.cli` starts them and says what their exit codes mean."""

from __future__ import annotations

import io
import os
import platform
import sys
import time
import warnings
from enum import Enum
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

import brockett as bk
from brockett import _files
from brockett._progress import printable

app = typer.Typer(
    name="brockett",
    help="Spectral analysis of trained neural networks: descramble layers, and see what their weights hold.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

#: Bytes of samples read at once: large enough for BLAS, small beside any memory.
_BLOCK_BYTES = 32 << 20


class Refused(Exception):
    """What the user gave cannot be used; the text is the one line to print."""


def run(arguments: list[str]) -> int:
    """Run the program and turn every expected failure into one line on standard error and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # σ and × in an ASCII locale are no reason to fail
    from brockett import _weights_commands  # noqa: F401  # adds its commands; it needs what is above

    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn  # until the block ends: then the caller's own is back
            code = app(args=arguments, prog_name="brockett", standalone_mode=False)
        if code == 130:  # newer typer turns Ctrl-C into this exit code, older into Abort
            return _fail("interrupted", 130)
        return code if isinstance(code, int) else 0
    except typer.Abort:
        return _fail("interrupted", 130)
    except (Refused, bk.BrockettError) as error:
        return _fail(str(error))
    except OSError as error:
        # "[Errno 2] No such file or directory: 'W.npy'" reads better the other way round.
        return _fail(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
    except MemoryError as error:
        return _fail(f"out of memory {error}".strip())
    except Exception as error:
        # Usage errors of click, which newer typer carries inside itself: known by what they can do.
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):
            return _fail(error.format_message(), 2)
        raise


def _fail(message: str, code: int = 2) -> int:
    print("brockett: " + printable(" ".join(message.split())), file=sys.stderr)
    return code


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    """In place of warnings.showwarning: the user did not write the line of code that Python would quote."""
    print(f"brockett: warning: {message}", file=sys.stderr)


def _installed_version() -> str:
    try:
        return bk.__version__
    except metadata.PackageNotFoundError:  # run from a source tree
        return "(not installed)"


def _version(wanted: bool) -> None:
    if wanted:
        print(f"brockett {_installed_version()}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description:<22}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


def _advance(bar: Progress, task: TaskID, done: int) -> None:
    bar.update(task, completed=done)


def check_outputs(*paths: Path | None) -> None:
    """Refuse files that could not be written, before the work."""
    for path in paths:
        if path is None:
            continue
        if not path.parent.is_dir():
            raise Refused(f"{path}: the folder {path.parent} is not there")
        if path.is_dir():
            raise Refused(f"{path}: is a folder")


def console(width: int = 120) -> Console:
    """Standard output; wide enough for the tables where there is no terminal to ask."""
    wide = Console()
    return wide if wide.is_terminal else Console(width=width)


# -------------------------------------------------------------------------------------------------------------- demo
_LEGEND = """\
cost of I, optimum, reached: roughness of the pre-activations for P = I, its exact minimum, and that of the P returned.
W, P W, Q W, untrained: structure, the share of 2-D DFT energy in the brightest 1 % of cells, before and after
descrambling, under random rotations, and after descrambling the untrained twin."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder of the page; made if it is not there.")] = Path("brockett-demo"),
    samples: Annotated[
        int | None,
        typer.Option(min=1, help="Inputs per net.  [default: 100000, with --quick 4096]", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the inputs and of the random rotations.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="Few inputs and rotations: a look in seconds.")] = False,
) -> None:
    """Descramble the three trained networks that brockett ships, and write a page with the pictures."""
    # Imported here: the other commands need none of it.
    from threadpoolctl import threadpool_limits

    from brockett._demo import page, run

    settings = run.Settings(samples or (4096 if quick else 100_000), seed, 2 if quick else 5)
    # Found out now rather than after the work.
    out.mkdir(parents=True, exist_ok=True)
    if not os.access(out, os.W_OK):
        raise Refused(f"{out}: is not writable")
    began = time.perf_counter()
    studies = []
    bk.threads()  # loads the engine, for the limit below reaches only libraries that are loaded
    # One BLAS thread: the matrices are small, NumPy and brockett each bring an OpenBLAS, and where other programs keep
    # the cores busy its waiting threads turned 9 s into 340 s (2 cores, load 9).
    with _progress() as bar, threadpool_limits(1, user_api="blas"):
        for name in run.names():
            task = bar.add_task(run.title(name), total=settings.samples)
            studies.append(run.study(name, settings, partial(_advance, bar, task)))
        by_name = {study.name: study for study in studies}
        band, dipolar = run.study_band(by_name["bandpass"]), run.study_dipolar(by_name["dipolar"])
    built = page.build(studies, band, dipolar, settings)
    took = time.perf_counter() - began
    command = f"brockett demo --samples {settings.samples} --seed {settings.seed}"
    footer = f"Written by brockett {_installed_version()}: {command}, {took:.0f} s."
    path = built.write(out / "index.html", footer)

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    for i, column in enumerate(("net", *page.COLUMNS)):
        table.add_column(column, justify="left" if i == 0 else "right", no_wrap=True)
    for study in studies:
        for i, layer in enumerate(study.layers):
            table.add_row(study.name, *page.row(layer), end_section=i + 1 == len(study.layers))
    console().print(table)
    # Not through rich, which would break a long path into lines.
    print(f"{_LEGEND}\n\npage: {path.resolve()}")


# -------------------------------------------------------------------------------------------------------- descramble
class Penalty(str, Enum):
    fourier = "fourier"
    difference = "difference"
    neumann = "neumann"


class Group(str, Enum):
    orthogonal = "orthogonal"
    special_orthogonal = "special_orthogonal"
    permutation = "permutation"


def _load(path: Path, name: str, mmap: bool = False) -> npt.NDArray[Any]:
    """Read a numeric .npy; ``name`` is what messages call it."""
    array = _files.load_npy(path, mmap=mmap)
    if array.dtype.kind not in "fiub":
        raise Refused(f"{name} ({path}): expected real numbers, got {array.dtype}")
    return array


def _layer(path: Path, name: str | None) -> npt.NDArray[Any]:
    """The weights to descramble: those of a .npy, or of a layer of a model in any other file."""
    with open(path, "rb") as file:
        plain = file.read(6) == b"\x93NUMPY"
    if plain and name is None:
        weight = _load(path, "W")
        if weight.ndim < 2 or 0 in weight.shape:
            raise Refused(f"W ({path}): expected a matrix, got shape {weight.shape}")
        return weight
    with bk.models.load(path) as model:
        there = [layer for layer in model if not layer.declined]
        if name is None and len(there) != 1:
            names = ", ".join(layer.name for layer in there[:8]) + (" …" if len(there) > 8 else "")
            raise Refused(f"{path}: holds {len(there)} layers of weights: name one with --layer ({names or 'none'})")
        layer = there[0] if name is None else model[name]
        if layer.declined:
            raise Refused(f"{layer.name} ({path}): {layer.declined}")
        if layer.groups > 1:
            raise Refused(f"{layer.name} ({path}): has {layer.groups} groups, each a layer of its own")
        return np.asarray(layer.weight)


def _penalty(kind: Penalty, order: float) -> Any:
    if kind is Penalty.fourier:
        return bk.penalty.FourierDerivative(order=order)
    if order != int(order):
        raise Refused(f"--order: finite differences have a whole order, got {order:g}")
    return bk.penalty.FiniteDifference(int(order), boundary="neumann" if kind is Penalty.neumann else "periodic")


def _stream(path: Path, n_features: int, center: bool) -> bk.Autocorrelation:
    """Accumulate the samples of a memory-mapped file block by block: memory does not grow with the file."""
    samples = _load(path, "inputs", mmap=True)
    if samples.ndim < 2 or samples.shape[-1] != n_features or 0 in samples.shape:
        raise Refused(f"inputs ({path}): expected (n_samples, {n_features}) for this W, got {samples.shape}")
    rows = samples.reshape(-1, n_features)
    step = max(1, _BLOCK_BYTES // (n_features * rows.itemsize))
    sums = bk.Autocorrelation(n_features, center=center)
    with _progress() as bar:
        task = bar.add_task("inputs", total=rows.shape[0])
        for first in range(0, rows.shape[0], step):
            try:
                sums.update(rows[first : first + step])
            except bk.NonFinite as error:
                # The engine counts within the block, the user within the file.
                row, *rest = error.index
                raise bk.NonFinite(f"inputs ({path})", (row + first, *rest)) from None
            bar.update(task, completed=min(first + step, rows.shape[0]))
    return sums


@app.command()
def descramble(
    weights: Annotated[
        Path,
        typer.Argument(
            metavar="W.npy",
            help="Weights (n_outputs, n_inputs), or of a convolution (out, in, k…); or a model (see spectra).",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The result: P, P W, costs and spectra, as .npz.")],
    layer: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which layer of a model; not needed where there is only one.")
    ] = None,
    inputs: Annotated[
        Path | None,
        typer.Option(metavar="X.npy", help="Inputs of the layer (n_samples, n_inputs); mapped and streamed."),
    ] = None,
    autocorrelation: Annotated[
        Path | None,
        typer.Option(
            metavar="R.npy", help="Or their autocorrelation: a matrix (.npy) or a saved Autocorrelation (.npz)."
        ),
    ] = None,
    isotropic: Annotated[
        bool, typer.Option("--isotropic", help="Or nothing known of the inputs: R = I. Another P than the inputs' own.")
    ] = False,
    bias: Annotated[
        Path | None, typer.Option(metavar="b.npy", help="Bias (n_outputs,); left out unless given.")
    ] = None,
    center: Annotated[bool, typer.Option("--center", help="Leave the mean of the pre-activations out.")] = False,
    penalty: Annotated[
        Penalty,
        typer.Option(help="What smooth means: a derivative by Fourier modes, or periodic or Neumann differences."),
    ] = Penalty.fourier,
    order: Annotated[float, typer.Option(help="Order of the derivative.")] = 2.0,
    group: Annotated[Group, typer.Option(help="What P may be.")] = Group.orthogonal,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the search over permutations.")] = 0,
    plot: Annotated[Path | None, typer.Option(metavar="PNG", help="Picture of the result.")] = None,
) -> None:
    """Descramble one layer of your own."""
    if (inputs is not None) + (autocorrelation is not None) + isotropic != 1:
        raise Refused("descramble: give exactly one of --inputs, --autocorrelation and --isotropic")
    check_outputs(output, plot)
    smooth = _penalty(penalty, order)
    weight = _layer(weights, layer)
    options: dict[str, Any] = {"penalty": smooth, "group": group.value, "center": center, "seed": seed}
    if bias is not None:
        options["bias"] = _load(bias, "bias")
    n_features = int(np.prod(weight.shape[1:]))
    if inputs is not None:
        options["autocorrelation"] = _stream(inputs, n_features, center)
    elif autocorrelation is not None:
        with open(autocorrelation, "rb") as file:
            archive = file.read(2) == b"PK"
        options["autocorrelation"] = (
            bk.Autocorrelation.load(autocorrelation) if archive else _load(autocorrelation, "R")
        )
    found = bk.descramble(weight, **options)
    found.save(output)
    if plot is not None:
        found.plot(plot)
    _describe(found, weight)
    for path in (output, plot):
        if path is not None:
            print(f"written: {path}")


def _describe(found: Any, weight: npt.NDArray[Any]) -> None:
    from brockett._demo.measure import structure

    table = Table(box=box.SIMPLE, show_header=False, padding=(0, 1))
    table.add_column(style="bold")
    table.add_column()
    flat = weight.reshape(weight.shape[0], -1)
    table.add_row("layer", f"{flat.shape[0]} × {flat.shape[1]}, rank of the pre-activations {found.rank}")
    table.add_row("cost of the identity", f"{found.identity_cost:.6g}")
    table.add_row("cost reached", f"{found.cost:.6g}")
    if found.optimum is not None:
        table.add_row("optimum", f"{found.optimum:.6g}")
    else:
        table.add_row("lower bound", f"{found.bound:.6g}")
    if found.gauge_conditioning is not None:
        table.add_row("gauge conditioning", f"{found.gauge_conditioning:.3g}")
    table.add_row("structure", f"{structure(flat):.3f} before, {structure(found.weights):.3f} after")
    console().print(table)


# -------------------------------------------------------------------------------------------------------------- info
def _processor() -> str:
    """The name of the CPU, from where Linux tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@app.command()
def info() -> None:
    """Print what runs here: version, engines and why one is missing, BLAS, threads, CPU."""
    table = Table(box=box.SIMPLE, show_header=False, padding=(0, 1))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("brockett", _installed_version())
    table.add_row("Python", f"{platform.python_version()}, NumPy {np.__version__}, {platform.platform()}")
    table.add_row("CPU", f"{_processor()}, {_cores()} cores for this process")
    table.add_row("threads", str(bk.threads()))
    for name, engine in bk.engines().items():
        if not engine.available:
            table.add_row(f"engine {name}", f"not available: {engine.reason}")
            continue
        details = ", ".join(f"{key} {value}" for key, value in engine.details.items())
        table.add_row(f"engine {name}", details or "available")
    for variable in ("BROCKETT_ENGINE", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_CORETYPE"):
        if variable in os.environ:
            table.add_row(variable, os.environ[variable])
    console().print(table)
