"""The metric of a model that is made of its layers' tail exponents."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import _arrays, _options
from ._errors import InvalidArgument, InvalidType, NonFinite
from ._layer_metrics import CONVENTIONS, LayerMetrics, layer_metrics, log_base_of
from ._power_law import fit_power_law

__all__ = ["UniversalMetric", "universal_metric"]


@dataclass(frozen=True)
class UniversalMetric:
    """The metric of a model; see `universal_metric`.

    Attributes
    ----------
    value : float or None
        None where no layer has an exponent.
    terms : tuple of (float or None)
        α log λ_max of each layer.
    n_layers : int
        Layers that count.
    log_base : float
    normalization : str
        "mean" or "sum".
    declined : mapping of int to str
        Layers left out, by their place in the list, and why.
    """

    value: float | None
    terms: tuple[float | None, ...]
    n_layers: int
    log_base: float
    normalization: str
    declined: Mapping[int, str]


def universal_metric(
    layers: Sequence[Any], *, convention: str = "brockett", log_base: float | None = None, normalization: str = "mean"
) -> UniversalMetric:
    """Weighted alpha of a model: (1/L) Σ α_l log λ_max,l over its layers.

    Parameters
    ----------
    layers : sequence
        Of each layer its `LayerMetrics`, its weights (two axes or more), or its eigenvalues (one axis, taken as they
        are normalized). Metrics of one convention only.
    convention : {"brockett", "weightwatcher", "deepdataprofiler"}, default "brockett"
        For weights: the normalization of the eigenvalues, of which log λ_max is not independent. See `layer_metrics`.
    log_base : float, optional
        10 as in the papers and WeightWatcher, e as in DeepDataProfiler, by default as the convention has it.
    normalization : {"mean", "sum"}, default "mean"
        Over the layers that have an exponent.

    Returns
    -------
    metric : UniversalMetric
        Layers without an exponent are left out and named with their reason, not counted as 0.

    References
    ----------
    C. H. Martin, T. Peng, M. W. Mahoney, arXiv 2002.06716.

    Examples
    --------
    >>> import numpy as np, brockett as bk
    >>> eigs = np.arange(1.0, 101.0)
    >>> m = bk.random_matrix.universal_metric([eigs, [1.0, 2.0]])
    >>> alpha = bk.random_matrix.fit_power_law(eigs).alpha
    >>> round(m.value - alpha * 2, 12), m.n_layers, dict(m.declined)
    (0.0, 1, {1: '2 distinct positive values, a fit needs 10'})
    """
    word = _options.option("convention", convention, CONVENTIONS)
    base = log_base_of(word, log_base)
    _options.option("normalization", normalization, ("mean", "sum"))
    if isinstance(layers, str | bytes) or not isinstance(layers, Sequence):
        raise InvalidType("layers", f"expected a list of layers, got {type(layers).__name__}")
    terms: list[float | None] = []
    declined: dict[int, str] = {}
    conventions = {layer.convention for layer in layers if isinstance(layer, LayerMetrics)}
    if len(conventions) > 1:
        raise InvalidArgument("layers", f"are metrics of several conventions: {', '.join(sorted(conventions))}")
    for place, layer in enumerate(layers):
        try:
            term, why = _term(layer, word, base)
        except InvalidArgument as error:
            if isinstance(error, NonFinite):
                raise NonFinite(f"layers[{place}]", error.index) from None
            raise type(error)(f"layers[{place}]", error.message) from None
        terms.append(term)
        if term is None:
            declined[place] = why
    counted = [term for term in terms if term is not None]
    total = math.fsum(counted) if counted else None
    value = total / len(counted) if total is not None and normalization == "mean" else total
    return UniversalMetric(value, tuple(terms), len(counted), base, normalization, declined)


def _term(layer: Any, convention: str, base: float) -> tuple[float | None, str]:
    if not isinstance(layer, LayerMetrics):
        operand = _arrays.accept(layer, "layers")
        if operand.ndim == 1:
            law = fit_power_law(layer, compare=False)
            if law.alpha is None:
                return None, law.declined or ""
            return law.alpha * math.log(float(np.max(operand.host()))) / math.log(base), ""
        layer = layer_metrics(layer, convention=convention)
    if layer.alpha is None or layer.log_spectral_norm is None:
        return None, layer.declined.get("alpha", "")
    return layer.alpha * layer.log_spectral_norm * math.log(layer.log_base) / math.log(base), ""
