"""Random-matrix statistics of a layer: Marchenko-Pastur bulk, spikes, power-law tails, and what is made of them.

A weight matrix W (out, in) has the eigenvalues λ = σ²/larger, larger = max(out, in), and the aspect ratio
Q = larger/smaller ≥ 1. Weights that are noise have eigenvalues on the interval of the Marchenko-Pastur law; training
adds spikes to it and, in the end, a power-law tail. Functions that take eigenvalues take them in any unit.

`marchenko_pastur`, `fit_bulk`
    the law, and its fit to the bulk of a spectrum with the spikes that stand out
`fit_power_law`
    exponent and start of a power-law tail, its p-value, and other laws on the same tail
`layer_metrics`, `universal_metric`
    everything of one layer, and one number of a model, as brockett, WeightWatcher or DeepDataProfiler define them
"""

from __future__ import annotations

from ._layer_metrics import LayerMetrics, PhaseCriteria, layer_metrics
from ._marchenko_pastur import BulkFit, Edge, MarchenkoPastur, fit_bulk, marchenko_pastur
from ._power_law import PowerLawFit, Scan, TailComparison, fit_power_law
from ._universal_metric import UniversalMetric, universal_metric

__all__ = [
    "BulkFit",
    "Edge",
    "LayerMetrics",
    "MarchenkoPastur",
    "PhaseCriteria",
    "PowerLawFit",
    "Scan",
    "TailComparison",
    "UniversalMetric",
    "fit_bulk",
    "fit_power_law",
    "layer_metrics",
    "marchenko_pastur",
    "universal_metric",
]
