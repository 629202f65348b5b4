"""Singular values and truncated decompositions against what people call today, with the accuracy beside the time."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import brockett as bk

LARGE = pytest.mark.large


@functools.lru_cache(maxsize=1)
def layer(m: int, n: int) -> np.ndarray:
    """A layer-like spectrum: a Gaussian bulk and 200 power-law spikes above it, float32."""
    rng = np.random.Generator(np.random.Philox(m + n))
    k = min(200, min(m, n) // 4)
    W = rng.standard_normal((m, n), dtype=np.float32) / np.float32(np.sqrt(max(m, n)))
    U = np.linalg.qr(rng.standard_normal((m, k)))[0].astype(np.float32)
    V = np.linalg.qr(rng.standard_normal((n, k)))[0].astype(np.float32)
    s = (3.0 * np.arange(1, k + 1) ** -0.4 + 1.0).astype(np.float32)
    return W + (U * s) @ V.T


@functools.lru_cache(maxsize=1)
def exact_values(m: int, n: int) -> np.ndarray:
    """float64 values of the float32 entries, by QR and LAPACK's gesdd through NumPy."""
    A = layer(m, n).astype(np.float64)
    R = np.linalg.qr(A if m >= n else A.T, mode="r")
    return np.linalg.svd(R, compute_uv=False)


def torch_values(A: np.ndarray) -> np.ndarray:
    torch = pytest.importorskip("torch", reason="torch is an optional peer")
    return torch.linalg.svdvals(torch.from_numpy(A)).numpy()


def scipy_values(A: np.ndarray) -> np.ndarray:
    linalg = pytest.importorskip("scipy.linalg", reason="scipy is an optional peer")
    return linalg.svdvals(A, check_finite=False)


VALUES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "brockett": bk.singular_values,
    "numpy (float64 inside)": lambda A: np.linalg.svd(A.astype(np.float64), compute_uv=False),
    "scipy float32": scipy_values,
    "torch float32": torch_values,
}


@pytest.mark.parametrize("peer", VALUES)
@pytest.mark.parametrize(
    "shape",
    [
        (1024, 1024),
        pytest.param((2048, 2048), marks=LARGE),
        pytest.param((4096, 4096), marks=LARGE),
        pytest.param((4096, 11008), marks=LARGE),
    ],
    ids=str,
)
def bench_singular_values(benchmark, measure, size, shape, peer):
    benchmark.group = f"all singular values, {shape[0]} × {shape[1]} float32"
    m, n = size(shape[0]), size(shape[1])
    A, exact = layer(m, n), exact_values(m, n)

    def check(s: Any) -> dict[str, Any]:
        error = float(np.max(np.abs(np.asarray(s, dtype=np.float64) - exact) / exact[0]))
        assert error < 1e-5, error
        return {"max error over s1": error}

    # the float64 Gram matrix and its reduction to tridiagonal form
    flops = m * n * min(m, n) + 4 / 3 * min(m, n) ** 3 if peer == "brockett" else 0
    measure(lambda: VALUES[peer](A), check, rounds=7 if shape[0] == 1024 else 1, flops=flops)


# 1000 matrices of one order: what the values of a layer's heads, groups or transfer matrices are


@functools.lru_cache(maxsize=1)
def batch(count: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.Generator(np.random.Philox(n))
    A = rng.standard_normal((count, n, n), dtype=np.float32) * np.float32(n**-0.5)
    return A, np.linalg.svd(A.astype(np.float64), compute_uv=False)


@pytest.mark.parametrize("peer", [name for name in VALUES if not name.startswith("scipy")])
@pytest.mark.parametrize("order", [64, 256])
def bench_singular_values_of_a_batch(benchmark, measure, timed, order, peer):
    benchmark.group = f"all singular values of 1000 matrices, {order} × {order} float32"
    A, exact = batch(1000, order) if timed else batch(21, order // 8)

    def check(s: Any) -> dict[str, Any]:
        error = float(np.max(np.abs(np.asarray(s, dtype=np.float64) - exact) / exact[:, :1]))
        assert error < 1e-5, error
        return {"max error over s1": error}

    measure(lambda: VALUES[peer](A), check, rounds=3)


def torch_svd(A: np.ndarray, k: int) -> tuple[Any, ...]:
    torch = pytest.importorskip("torch", reason="torch is an optional peer")
    U, s, Vt = torch.linalg.svd(torch.from_numpy(A), full_matrices=False)
    return U[:, :k].numpy(), s[:k].numpy(), Vt[:k].numpy()


def torch_lowrank(A: np.ndarray, k: int) -> tuple[Any, ...]:
    torch = pytest.importorskip("torch", reason="torch is an optional peer")
    U, s, V = torch.svd_lowrank(torch.from_numpy(A), q=k)
    return U.numpy(), s.numpy(), V.numpy().T


def scipy_gesdd(A: np.ndarray, k: int) -> tuple[Any, ...]:
    linalg = pytest.importorskip("scipy.linalg", reason="scipy is an optional peer")
    U, s, Vt = linalg.svd(A, full_matrices=False, check_finite=False)
    return U[:, :k], s[:k], Vt[:k]


def propack(A: np.ndarray, k: int) -> tuple[Any, ...]:
    sparse = pytest.importorskip("scipy.sparse.linalg", reason="scipy is an optional peer")
    U, s, Vt = sparse.svds(A, k=k, solver="propack", rng=np.random.default_rng(0))
    order = np.argsort(s)[::-1]
    return U[:, order], s[order], Vt[order]


def arpack(A: np.ndarray, k: int) -> tuple[Any, ...]:
    sparse = pytest.importorskip("scipy.sparse.linalg", reason="scipy is an optional peer")
    U, s, Vt = sparse.svds(A, k=k, rng=np.random.default_rng(0))
    order = np.argsort(s)[::-1]
    return U[:, order], s[order], Vt[order]


def sklearn_randomized(A: np.ndarray, k: int) -> tuple[Any, ...]:
    extmath = pytest.importorskip("sklearn.utils.extmath", reason="scikit-learn is an optional peer")
    return extmath.randomized_svd(A, k, random_state=0)


TRUNCATED: dict[str, Callable[[np.ndarray, int], tuple[Any, ...]]] = {
    "brockett auto": lambda A, k: tuple(bk.svd(A, rank=k)),
    "brockett krylov, tol 1e-6": lambda A, k: tuple(bk.svd(A, rank=k, method="krylov")),
    "brockett krylov, tol 1e-4": lambda A, k: tuple(bk.svd(A, rank=k, method="krylov", tol=1e-4)),
    "brockett quick": lambda A, k: tuple(bk.svd(A, rank=k, method="quick")),
    "scipy gesdd, cut": scipy_gesdd,
    "scipy svds (ARPACK)": arpack,
    "scipy svds (PROPACK)": propack,
    "scikit-learn randomized_svd": sklearn_randomized,
    "torch svd_lowrank": torch_lowrank,
    "torch svd, cut": torch_svd,
}
# quick ones are held to being decompositions at all; their error is what the table shows
TOLERANCE = {
    "brockett krylov, tol 1e-4": 1e-4,
    "scipy svds (PROPACK)": 1e-4,
    "brockett quick": 0.3,
    "scikit-learn randomized_svd": 0.3,
    "torch svd_lowrank": 0.5,
}


# three sizes show the growth; the last two columns of ranks are what compression keeps of a layer
CASES = [
    (1024, 1024, 128),
    pytest.param(2048, 2048, 128, marks=LARGE),
    pytest.param(4096, 4096, 128, marks=LARGE),
    pytest.param(4096, 11008, 128, marks=LARGE),
    pytest.param(4096, 4096, 512, marks=LARGE),
    pytest.param(4096, 4096, 1638, marks=LARGE),
]
FULL = ("scipy gesdd, cut", "torch svd, cut")


@pytest.mark.parametrize(
    ("rows", "cols", "rank"), [(1024, 1024, 128), (2048, 2048, 512), pytest.param(4096, 11008, 128, marks=LARGE)]
)
def bench_what_auto_takes(benchmark, measure, size, timed, rows, cols, rank):
    """The time of "auto" over that of the quickest of the methods it chooses from."""
    benchmark.group = f"the choice of method auto, {rank} triplets of {rows} × {cols} float32"
    A = layer(size(rows), size(cols))
    k = rank * min(A.shape) // min(rows, cols)

    def seconds(method: str) -> float:
        start = time.process_time()
        bk.svd(A, rank=k, method=method)
        return time.process_time() - start

    def check(answer: Any) -> dict[str, Any]:
        assert answer.residual < 2e-6, answer.residual
        if not timed:
            return {}
        quickest = min(seconds(method) for method in ("krylov", "gram"))
        over = min(seconds("auto") for _ in range(2)) / quickest
        assert over < 1.25, over
        return {"took": answer.method, "over the quickest method": over}

    measure(lambda: bk.svd(A, rank=k), check, rounds=3 if rows < 4096 else 1)



@pytest.mark.parametrize("peer", TRUNCATED)
@pytest.mark.parametrize(("rows", "cols", "rank"), CASES)
def bench_truncated(benchmark, measure, size, rows, cols, rank, peer):
    benchmark.group = f"{rank} largest triplets, {rows} × {cols} float32"
    m, n = size(rows), size(cols)
    k = min(rank * min(m, n) // min(rows, cols) if m < rows else rank, min(m, n) // 2)
    if rows > 1024 and rank < 1024 and peer in FULL:
        pytest.skip("a full decomposition at this size takes minutes and is not what anybody calls for few triplets")
    if rank > 1024 and peer in ("scipy svds (PROPACK)", "brockett krylov, tol 1e-4"):
        pytest.skip("minutes, and no better than the rows beside it")
    A, exact = layer(m, n), exact_values(m, n)

    def check(answer: tuple[Any, ...]) -> dict[str, Any]:
        U, s, Vt = (np.asarray(x, dtype=np.float64) for x in answer)
        right = np.linalg.norm(A @ Vt.T - U * s, axis=0)
        left = np.linalg.norm(A.T @ U - Vt.T * s, axis=0)
        residual = float(max(right.max(), left.max()) / exact[0])
        error = float(np.max(np.abs(s / exact[:k] - 1)))
        assert residual < TOLERANCE.get(peer, 2e-5), residual
        assert error < (1e-5 if peer.startswith("brockett krylov") else TOLERANCE.get(peer, 1e-5)), error
        return {"residual over s1": residual, "max relative error of s": error}

    measure(lambda: TRUNCATED[peer](A, k), check, rounds=5 if rows == 1024 else 1)
