"""Matrices and samples by formula, the same in every process: the inputs of tests/data/random_matrix_peers.json.

That file holds what weightwatcher 0.7.7, deep-data-profiler 2.0.1 and powerlaw 1.5 and 2.0.0 say of them (NumPy 2.4.6,
SciPy 1.17.1, PyTorch 2.13.0; WeightWatcher and DeepDataProfiler on torch.nn.Linear and Conv2d without bias).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
PEERS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "data/random_matrix_peers.json").read_text())


def uniform(n: int, seed: int = 0) -> Array:
    """splitmix64 of a counter (Steele, Lea, Flood, OOPSLA 2014)."""
    with np.errstate(over="ignore"):
        z = (np.arange(1, n + 1, dtype=np.uint64) + np.uint64(seed << 32)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return np.asarray(((z >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53)


def weights(kind: str, shape: tuple[int, ...], seed: int) -> Array:
    """Uniform noise of variance 1; entries with a tail of exponent 2.5; noise with two strong directions."""
    n = int(np.prod(shape))
    if kind == "noise":
        return (12.0**0.5 * (uniform(n, seed) - 0.5)).reshape(shape)
    if kind == "heavy":
        sign = np.where(uniform(n, seed + 1) < 0.5, -1.0, 1.0)
        return (uniform(n, seed) ** (-1 / 2.5) * sign).reshape(shape)
    rows, columns = np.arange(shape[0]), np.arange(shape[1])
    first, second = np.outer(np.cos(rows), np.sin(columns + 1.0)), np.outer(np.cos(2.0 * rows), np.cos(3.0 * columns))
    return weights("noise", shape, seed) + 0.9 * first + 0.6 * second


LAYERS: dict[str, Array] = {
    "noise": weights("noise", (60, 100), 1),
    "heavy": weights("heavy", (100, 60), 2),
    "square": weights("heavy", (80, 80), 4),
    "spikes": weights("spikes", (120, 90), 6),
    "conv": weights("heavy", (16, 12, 3, 3), 8),
    "small": weights("heavy", (12, 15), 10),
}

_U = uniform(400, 20)
TAILS: dict[str, Array] = {
    "pareto": _U ** (-1 / 1.7),
    "lognormal": np.exp(np.sum(uniform(12 * 400, 22).reshape(400, 12), axis=1) - 6),
    "exponential": -np.log(_U),
    "ties": np.floor(20 * _U ** (-1 / 1.7)) / 20.0,
    "marchenko-pastur": np.linalg.svd(weights("noise", (120, 240), 24), compute_uv=False) ** 2,
}
