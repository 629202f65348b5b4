"""Accumulating R = XᵀX / N against a bare symmetric rank-k update of the same size."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

import brockett as bk


@functools.lru_cache(maxsize=1)
def data(n_samples: int, n: int) -> np.ndarray:
    X = np.random.Generator(np.random.Philox(1)).standard_normal((n_samples, n), dtype=np.float32)
    X *= np.geomspace(1, 1e-2, n, dtype=np.float32)
    return X


@functools.lru_cache(maxsize=1)
def reference(n_samples: int, n: int) -> np.ndarray:
    X = data(n_samples, n).astype(np.float64)
    return X.T @ X / n_samples


def brockett_double(X: np.ndarray) -> Any:
    acc = bk.Autocorrelation(X.shape[1])
    acc.update(X)
    return acc


def brockett_single(X: np.ndarray) -> Any:
    acc = bk.Autocorrelation(X.shape[1], precision="single")
    acc.update(X)
    return acc


def dsyrk(X: np.ndarray) -> np.ndarray:
    """The conversion to float64, and one dsyrk."""
    from scipy.linalg.blas import dsyrk as bare

    return bare(1.0 / X.shape[0], X.astype(np.float64).T, lower=1)


def ssyrk(X: np.ndarray) -> np.ndarray:
    from scipy.linalg.blas import ssyrk as bare

    return bare(np.float32(1.0 / X.shape[0]), X.T, lower=1)


def numpy_double(X: np.ndarray) -> np.ndarray:
    X = X.astype(np.float64)
    return X.T @ X / X.shape[0]


def torch_single(X: np.ndarray) -> np.ndarray:
    """What calibration hooks of today do: a float32 product of each batch."""
    torch = pytest.importorskip("torch", reason="torch is an optional peer")
    x = torch.from_numpy(X)
    return (x.T @ x / X.shape[0]).numpy()


PEERS = {f.__name__: f for f in (brockett_double, dsyrk, numpy_double, brockett_single, ssyrk, torch_single)}
DOUBLE = ("brockett_double", "dsyrk", "numpy_double")


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("shape", [(65_536, 1_024), (16_384, 4_096)], ids=str)
def bench_accumulate(benchmark, measure, size, shape, peer):
    n_samples, n = size(shape[0]), size(shape[1])
    precision = "float64" if peer in DOUBLE else "float32"
    benchmark.group = f"accumulation of {shape[0]} × {shape[1]} float32, {precision} products"
    if peer == "dsyrk" or peer == "ssyrk":
        pytest.importorskip("scipy", reason="scipy is an optional peer")
    X = data(n_samples, n)
    R = reference(n_samples, n)

    def check(answer: Any) -> dict[str, Any]:
        got = answer.matrix() if isinstance(answer, bk.Autocorrelation) else answer
        low = np.tril_indices(n)
        error = float(np.max(np.abs(got[low] - R[low])) / np.max(np.abs(R)))
        assert error < (1e-13 if precision == "float64" else 2e-6), error
        return {"error": error}

    measure(lambda: PEERS[peer](X), check, flops=n_samples * n * n, dtype=precision)
