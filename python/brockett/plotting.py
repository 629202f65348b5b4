"""Pictures of layers. matplotlib is imported when one is drawn, not before."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from . import _arrays, _files
from ._svd import svd

if TYPE_CHECKING:
    from ._descramble import Descrambling

__all__ = ["plot_descrambling"]

Matrix = npt.NDArray[np.float64]

#: Left singular vectors drawn: more lines than these cannot be told apart.
_VECTORS = 4
#: Range of the 2-D DFT, dB over the mean cell.
_DECIBEL = (-10.0, 30.0)


def plot_descrambling(result: Descrambling, path: _files.PathLike) -> None:
    """Draw a `Descrambling` to a PNG file.

    Parameters
    ----------
    result : Descrambling
    path : path-like
        Written atomically.

    Raises
    ------
    ImportError
        matplotlib is missing (``pip install 'brockett[cli]'``).
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'brockett[cli]'") from error

    P = _host(result.P)
    with_weights = result.weights is not None
    # A figure of its own, not pyplot's: nothing global changes, and no display is needed.
    figure = Figure(figsize=(15, 8) if with_weights else (10.5, 8))
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 3 if with_weights else 2)
    # Fixed margins: a layout engine would draw everything several times to find the same ones.
    figure.subplots_adjust(left=0.06, right=0.97, bottom=0.07, top=0.89, wspace=0.36, hspace=0.32)
    if with_weights:
        after = _host(result.weights).reshape(len(P), -1)
        before = P.T @ after
        _image(axes[0, 0], before, "raw weights W", "input", "neuron")
        _image(axes[0, 1], after, "descrambled weights P W", "input", "row of P W")
        _spectrum(axes[1, 0], before, "2-D DFT of W")
        _spectrum(axes[1, 1], after, "2-D DFT of P W")
        U, s, _ = svd(after)
        _values(axes[0, 2], s, "singular values of W (and of P W)")
        _vectors(axes[1, 2], U, "leading left singular vectors of P W", "row of P W")
    else:
        _image(axes[0, 0], P, "descrambler P", "neuron", "row of P")
        _spectrum(axes[1, 0], P, "2-D DFT of P")
        _values(axes[0, 1], _host(result.sigma), "standard deviations of the outputs")
        _vectors(axes[1, 1], P.T, "first rows of P", "neuron")
    optimum = "" if result.optimum is None else f", optimum {result.optimum:.4g}"
    figure.suptitle(
        f"cost {result.cost:.4g}{optimum}, as it was {result.identity_cost:.4g}; rank {result.rank} of {len(P)}; "
        f"source: {result.used.get('source')}"
    )
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    with _files.atomic_write(path) as file:
        file.write(picture.getvalue())


def _host(array: Any) -> Matrix:
    return np.asarray(_arrays.accept(array, "array").host(), dtype=np.float64)


def _image(axis: Any, A: Matrix, title: str, x: str, y: str) -> None:
    # Symmetric about zero, and cut at a quantile: a single large weight would leave the rest white.
    limit = float(np.quantile(np.abs(A), 0.995)) or float(np.abs(A).max()) or 1.0
    image = axis.imshow(A, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    axis.set(title=title, xlabel=x, ylabel=y)
    axis.figure.colorbar(image, ax=axis, fraction=0.05)


def _spectrum(axis: Any, A: Matrix, title: str) -> None:
    energy = np.abs(np.fft.fftshift(np.fft.fft2(A))) ** 2
    n, m = A.shape
    # Relative to the mean cell, over a fixed range: the same colour means the same concentration before and after.
    floor = 10 ** (_DECIBEL[0] / 10)
    decibel = 10 * np.log10(np.maximum(energy / (energy.mean() or 1.0), floor))
    extent = (-(m // 2) - 0.5, (m - 1) // 2 + 0.5, (n - 1) // 2 + 0.5, -(n // 2) - 0.5)
    low, high = _DECIBEL
    image = axis.imshow(
        decibel, cmap="magma", vmin=low, vmax=high, aspect="auto", extent=extent, interpolation="nearest"
    )
    axis.set(title=title, xlabel="input frequency (cycles)", ylabel="output frequency (cycles)")
    axis.figure.colorbar(image, ax=axis, fraction=0.05).set_label("dB over the mean cell")


def _values(axis: Any, s: Any, title: str) -> None:
    values = np.asarray(s, dtype=np.float64)
    positive = values > 0
    axis.plot(np.arange(1, len(values) + 1)[positive], values[positive], ".-", linewidth=0.8, markersize=4)
    if positive.any():
        axis.set_yscale("log")
    axis.set(title=title, xlabel="index", ylabel="σ")
    axis.grid(alpha=0.3)


def _vectors(axis: Any, U: Any, title: str, x: str) -> None:
    for k, vector in enumerate(np.asarray(U, dtype=np.float64).T[:_VECTORS]):
        axis.plot(vector, linewidth=1.2, label=f"{k + 1}")
    axis.set(title=title, xlabel=x)
    axis.margins(y=0.15)  # room for the legend
    axis.legend(fontsize="small", ncols=_VECTORS, loc="upper right", frameon=False)
    axis.grid(alpha=0.3)
