"""Other libraries' calls as they are, and inside `brockett.accelerate`; errors first, against float64 LAPACK."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from bench_svd import exact_values, layer

import brockett as bk

LARGE = pytest.mark.large


def torch_values(A: np.ndarray) -> Any:
    torch = pytest.importorskip("torch", reason="torch is an optional peer")
    return torch.linalg.svdvals(torch.from_numpy(A)).numpy()


def torch_svd(A: np.ndarray) -> Any:
    torch = pytest.importorskip("torch", reason="torch is an optional peer")
    return torch.linalg.svd(torch.from_numpy(A), full_matrices=False).S.numpy()


def numpy_values(A: np.ndarray) -> Any:
    return np.linalg.svd(A, compute_uv=False)


def numpy_svd(A: np.ndarray) -> Any:
    return np.linalg.svd(A, full_matrices=False)[1]


def scipy_values(A: np.ndarray) -> Any:
    linalg = pytest.importorskip("scipy.linalg", reason="scipy is an optional peer")
    return linalg.svdvals(A)


def scipy_svds(A: np.ndarray) -> Any:
    sparse = pytest.importorskip("scipy.sparse.linalg", reason="scipy is an optional peer")
    return sparse.svds(A, min(64, min(A.shape) // 2), return_singular_vectors=True, rng=0)[1][::-1]


def sklearn_randomized(A: np.ndarray) -> Any:
    extmath = pytest.importorskip("sklearn.utils.extmath", reason="scikit-learn is an optional peer")
    return extmath.randomized_svd(A, min(64, min(A.shape) // 4), random_state=0)[1]


# call, shape, largest error over s₁ that either may have
CALLS: dict[str, tuple[Callable[[np.ndarray], Any], tuple[int, int], float]] = {
    "torch.linalg.svdvals": (torch_values, (1024, 4096), 1e-5),
    "torch.linalg.svd, thin": (torch_svd, (1024, 4096), 1e-5),
    "numpy.linalg.svd, values": (numpy_values, (1024, 4096), 1e-6),
    "numpy.linalg.svd, thin": (numpy_svd, (1024, 4096), 1e-6),
    "scipy.linalg.svdvals": (scipy_values, (1024, 4096), 1e-5),
    "scipy.sparse.linalg.svds, k = 64": (scipy_svds, (1024, 4096), 1e-5),
    "sklearn randomized_svd, k = 64": (sklearn_randomized, (1024, 4096), 0.1),
}


@pytest.mark.parametrize("peer", ["brockett.accelerate", "as it is"])
@pytest.mark.parametrize("call", CALLS)
def bench_accelerate(benchmark, measure, size, timed, call, peer):
    run, (m, n), tolerance = CALLS[call]
    benchmark.group = f"{call}, {m} × {n} float32"
    A, exact = layer(size(m), size(n)), exact_values(size(m), size(n))
    run(A)  # the library has to be there before its functions can be taken over
    # where nothing is timed, matrices are too small to be taken by the measured limits
    inside = bk.accelerate(report=True, min_size=None if timed else 1) if peer.startswith("brockett") else None

    def check(s: Any) -> dict[str, Any]:
        error = float(np.max(np.abs(np.asarray(s, dtype=np.float64) - exact[: len(s)])) / exact[0])
        assert error < tolerance, error
        if inside is not None and inside.report is not None:
            assert inside.report.taken > 0, str(inside.report)
        return {"max error over s1": error}

    with inside or contextlib.nullcontext():
        measure(lambda: run(A), check, rounds=5)
