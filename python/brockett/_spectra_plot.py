"""The spectra of a network's layers as a picture. matplotlib is imported when one is drawn, not before."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _files
from ._layer_metrics import LayerMetrics
from ._marchenko_pastur import marchenko_pastur
from ._progress import printable

__all__ = ["bulk_curve", "density", "plot_spectra", "tail_curve", "thinned", "title_of"]

Vector = npt.NDArray[np.float64]

#: Of λ on an axis, before its lowest 3 % are cut off.
_DECADES = 1e3
_DOTS, _BULK, _TAIL, _SPIKES = "#4C72B0", "#DD8452", "#C44E52", "#55A868"


def density(eigenvalues: Vector, bins: int = 40) -> tuple[Vector, Vector]:
    """Density of the positive eigenvalues over logarithmic bins: centres, and values, of the bins that are filled."""
    positive = eigenvalues[eigenvalues > 0]
    low, high = float(positive.min()), float(positive.max())
    if high > _DECADES * low:
        # Square matrices have a few eigenvalues arbitrarily near 0, which would take most of the axis.
        low = max(low, min(float(np.quantile(positive, 0.03)), high / _DECADES))
    if high <= low * (1 + 1e-9):  # one value, or equal ones
        low, high = low / 1.5, high * 1.5
    count = max(5, min(bins, len(positive) // 3))
    edges = np.geomspace(low, high * (1 + 1e-12), count + 1)
    edges[0], edges[-1] = low, high  # rounding must not push an end outside
    found, _ = np.histogram(positive, edges)
    filled = found > 0
    height = found[filled] / (len(eigenvalues) * np.diff(edges)[filled])
    return np.sqrt(edges[:-1] * edges[1:])[filled], height


def bulk_curve(one: LayerMetrics) -> tuple[Vector, Vector] | None:
    """The fitted Marchenko-Pastur law, for the share of the eigenvalues that it describes."""
    bulk = one.bulk
    if bulk.variance is None or bulk.support is None or bulk.n_spikes is None:
        return None
    low, high = bulk.support
    # The law that was fitted: without k spikes and the zero columns the noise is of another shape than the layer, which
    # its edges v (1 ∓ Q^(-1/2))² tell.
    inner, outer = np.sqrt(low), np.sqrt(high)
    law = marchenko_pastur(max(1.0, float(((outer + inner) / (outer - inner)) ** 2)), float((outer + inner) / 2) ** 2)
    # Dense at the two edges, where the law rises like a root.
    x = low + (high - low) * 0.5 * (1 - np.cos(np.linspace(0.0, np.pi, 202)[1:-1]))
    share = 1 - (bulk.n_spikes + bulk.n_zero) / len(one.eigenvalues)
    return x, share * np.asarray(law.pdf(x))


def tail_curve(one: LayerMetrics) -> tuple[Vector, Vector] | None:
    """The fitted power law, for the share of the eigenvalues in the tail."""
    law = one.power_law
    if law.alpha is None or law.xmin is None or law.n_tail is None:
        return None
    x = np.geomspace(law.xmin, float(one.eigenvalues[0]), 60)
    return x, law.n_tail / len(one.eigenvalues) * (law.alpha - 1) / law.xmin * (x / law.xmin) ** -law.alpha


def title_of(name: str, one: LayerMetrics, width: int = 38) -> str:
    """Name (its end, where it is long), shape and verdict in two lines."""
    name = printable(name)
    short = name if len(name) <= width else "…" + name[1 - width :]
    verdict = (one.phase or "no verdict").replace("_", " ")
    alpha = "" if one.alpha is None else f", α = {one.alpha:.2f}"
    spikes = "" if not one.n_spikes else f", {one.n_spikes} spike{'s' if one.n_spikes > 1 else ''}"
    return f"{short}  ({'×'.join(map(str, one.shape))})\n{verdict}{alpha}{spikes}"


def thinned(layers: Mapping[str, LayerMetrics], most: int) -> dict[str, LayerMetrics]:
    """At most so many, spread evenly from the first to the last."""
    names = list(layers)
    if len(names) > most:
        names = [names[i] for i in np.unique(np.linspace(0, len(names) - 1, most).round().astype(int))]
    return {name: layers[name] for name in names}


def plot_spectra(layers: Mapping[str, LayerMetrics], most: int, path: _files.PathLike) -> None:
    """Draw the density of each layer's eigenvalues with its bulk, spikes and tail, on logarithmic axes, to a PNG."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'brockett[cli]'") from error

    drawn = thinned(layers, most)
    columns = min(3, len(drawn)) if len(drawn) != 4 else 2
    lines = -(-len(drawn) // columns)
    # A figure of its own, not pyplot's: nothing global changes, and no display is needed.
    height = 3.4 * lines + 1.0
    figure = Figure(figsize=(5.0 * columns + 0.4, height))
    FigureCanvasAgg(figure)
    axes = np.atleast_1d(figure.subplots(lines, columns)).ravel()
    figure.subplots_adjust(
        left=0.75 / (5.0 * columns + 0.4),
        right=1 - 0.15 / (5.0 * columns + 0.4),
        bottom=0.95 / height,
        top=1 - 0.55 / height,
        wspace=0.24,
        hspace=0.46,
    )
    handles: dict[str, Any] = {}
    for axis, (name, one) in zip(axes, drawn.items(), strict=False):
        handles |= _panel(axis, one)
        axis.set_title(title_of(name.removesuffix(".weight"), one), fontsize=9, parse_math=False)
    for axis in axes[len(drawn) :]:
        axis.set_visible(False)
    for k in range(len(drawn)):
        if k % columns == 0:
            axes[k].set_ylabel("density")
        if k + columns >= len(drawn):
            axes[k].set_xlabel("eigenvalue λ")
    order = [label for label in ("eigenvalues", "spikes", "Marchenko–Pastur", "power law") if label in handles]
    figure.legend(
        [handles[label] for label in order], order, loc="lower center", ncols=len(order), frameon=False, fontsize=10
    )
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    with _files.atomic_write(path) as file:
        file.write(picture.getvalue())


def _panel(axis: Any, one: LayerMetrics) -> dict[str, Any]:
    from matplotlib.ticker import FuncFormatter, LogFormatterSciNotation, LogLocator, MaxNLocator, NullFormatter

    x, y = density(one.eigenvalues)
    handles = {"eigenvalues": axis.plot(x, y, "o", color=_DOTS, markersize=3.5, zorder=3)[0]}
    lowest, highest = float(y.min()) / 3, float(y.max()) * 4
    curve = bulk_curve(one)
    if curve is not None:
        handles["Marchenko–Pastur"] = axis.plot(*curve, color=_BULK, linewidth=1.8, zorder=2)[0]
        axis.fill_between(curve[0], lowest, curve[1], color=_BULK, alpha=0.12, linewidth=0)
        highest = max(highest, float(curve[1].max()) * 2)
    curve = tail_curve(one)
    if curve is not None:
        handles["power law"] = axis.plot(*curve, "--", color=_TAIL, linewidth=1.8, zorder=4)[0]
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_ylim(lowest, highest)
    left, right = float(x.min()), max(float(one.eigenvalues[0]), float(x.max()))
    axis.set_xlim(left / (right / left) ** 0.05, right * (right / left) ** 0.05)
    for side, span in ((axis.xaxis, right / left), (axis.yaxis, highest / lowest)):
        # Within a decade or two there is hardly a power of ten to label; beyond, the powers are enough.
        if span < 6:
            side.set_major_locator(MaxNLocator(4))
            side.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
        elif span < 60:
            side.set_minor_locator(LogLocator(subs=(2.0, 5.0), numticks=50))
            side.set_minor_formatter(LogFormatterSciNotation(labelOnlyBase=False))
        if not 6 <= span < 60:
            side.set_minor_formatter(NullFormatter())
    if len(one.bulk.spikes):
        # On the floor of the panel: each spike where it is, above the one dot that a bin makes of several.
        handles["spikes"] = axis.plot(
            one.bulk.spikes, np.full(len(one.bulk.spikes), lowest * 1.5), "|", color=_SPIKES, markersize=9, zorder=5
        )[0]
    axis.grid(alpha=0.25, which="major")
    axis.tick_params(labelsize=8, which="both")
    return handles
