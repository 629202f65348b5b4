"""The linear algebra inside compression tools: as they do it with PyTorch, and through brockett's adapters.

The peers' rows are the tools' arithmetic on their own types, written out from what they call. Every row asserts its
answer against float64 NumPy first.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import brockett as bk

torch = pytest.importorskip("torch", reason="the tools work on PyTorch")

from brockett.integrations import gptq, peft, slicegpt, svd_llm  # noqa: E402

LARGE = pytest.mark.large
Array = np.ndarray


def activations(tokens: int, features: int, seed: int = 0) -> Array:
    """What a transformer's layer sees: correlated features of unequal size, and a few channels 60 times as large."""
    rng = np.random.Generator(np.random.Philox([tokens, features, seed]))
    X = rng.standard_normal((tokens, features), dtype=np.float32)
    X *= (np.arange(1, features + 1) ** -0.5).astype(np.float32)
    X[:, 1:] += 0.5 * X[:, :-1]
    X[:, rng.choice(features, max(1, features // 200), replace=False)] *= 60
    return X


# --- SVD-LLM ----------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def calibrated(n: int, m: int) -> tuple[Any, Any, bk.Autocorrelation, Array, float]:
    """Weights, the float32 sum that SVD-LLM's hook keeps, the accumulator, the exact sum, ‖W X‖_F."""
    X = activations(m * 5 // 4, m)
    W = np.random.Generator(np.random.Philox(n)).standard_normal((n, m), dtype=np.float32) / np.float32(math.sqrt(m))
    raw = torch.zeros(m, m)
    acc = bk.Autocorrelation(m)
    exact = np.zeros((m, m))
    for batch in np.array_split(X, 8):
        x = torch.from_numpy(batch)[None]
        raw += torch.matmul(x.transpose(1, 2), x).sum(dim=0)
        acc.update(x)
        wide = batch.astype(np.float64)
        exact += wide.T @ wide
    return torch.from_numpy(W), raw, acc, exact, math.sqrt(np.vdot(W @ exact, W))


def whitening_of_svd_llm(W: Any, raw: Any, k: int) -> tuple[Any, Any]:
    wide = raw.double()
    try:
        S = torch.linalg.cholesky(wide)
    except torch.linalg.LinAlgError:
        wide = wide + (1e-6 - torch.linalg.eigvalsh(wide)[0]) * torch.eye(len(wide))
        S = torch.linalg.cholesky(wide)
    inverse = torch.linalg.inv(S).float()
    U, s, Vt = torch.linalg.svd(torch.matmul(W, S.float()), full_matrices=False)
    root = torch.sqrt(torch.diag(s[:k]))
    return U[:, :k] @ root, root @ (Vt[:k] @ inverse)


WHITENING: dict[str, Callable[[Any, Any, bk.Autocorrelation, int], Any]] = {
    "brockett svd_llm.whiten": lambda W, raw, acc, k: svd_llm.whiten(W, acc, rank=k),
    "torch as SVD-LLM does it": lambda W, raw, acc, k: whitening_of_svd_llm(W, raw, k),
}
_lost: dict[tuple[int, int], float] = {}


@pytest.mark.parametrize("peer", WHITENING)
@pytest.mark.parametrize(
    ("rows", "cols", "rank"),
    [
        (1024, 2752, 410),
        (2752, 1024, 410),
        pytest.param(2048, 5504, 819, marks=LARGE),
        pytest.param(4096, 11008, 1638, marks=LARGE),
    ],
)
def bench_whitening(benchmark, measure, size, rows, cols, rank, peer):
    benchmark.group = f"SVD-LLM whitening of a layer {rows} × {cols} at rank {rank}, from its sum of x xᵀ"
    n, m = size(rows), size(cols)
    k = rank * min(n, m) // min(rows, cols)
    W, raw, acc, exact, whole = calibrated(n, m)

    def check(answer: Any) -> dict[str, Any]:
        W_u, W_v = (part.double().numpy() for part in answer)
        assert W_u.shape == (n, k)
        assert W_v.shape == (k, m)
        D = W.double().numpy() - W_u @ W_v
        lost = math.sqrt(max(float(np.vdot(D @ exact, D)), 0.0)) / whole
        if peer.startswith("brockett"):
            _lost[n, m] = lost
            assert answer.relative_error == pytest.approx(lost, rel=1e-4)
        elif (n, m) in _lost:
            assert _lost[n, m] < lost, "brockett's factors are to lose less"
        return {"relative reconstruction error": lost, "k": k}

    measure(lambda: WHITENING[peer](W, raw, acc, k), check, rounds=3 if rows <= 2752 and cols <= 2752 else 1)


# --- GPTQ -------------------------------------------------------------------------------------------------------------


def hessian_of_gptq(x: Any, layer: Any, H: Any, n: int) -> Any:
    added = x.shape[0]
    H *= n / (n + added)
    rows = math.sqrt(2 / (n + added)) * x.reshape(-1, x.shape[-1]).t().float()
    H += rows.matmul(rows.t())
    return H


HESSIANS: dict[str, Callable[..., Any]] = {
    "brockett": lambda x, layer, H, n: gptq.accumulate_hessian(x, layer, H, n)[0],
    "brockett single": lambda x, layer, H, n: gptq.accumulate_hessian(x, layer, H, n, precision="single")[0],
    "torch as GPTQ does it": hessian_of_gptq,
}


@pytest.mark.parametrize("peer", HESSIANS)
def bench_hessian(benchmark, measure, size, peer):
    benchmark.group = "GPTQ Hessian, a batch of 2048 tokens × 2048 features, float32"
    tokens, features = size(2048), size(2048)
    x = activations(tokens, features)
    layer = torch.nn.Linear(features, 1, bias=False)
    H = torch.zeros(features, features)
    wide = x.astype(np.float64)
    exact = 2 * wide.T @ wide

    def check(found: Any) -> dict[str, Any]:
        error = float(np.abs(found.double().numpy() - exact).max() / np.abs(exact).max())
        assert error < 2e-6, error
        return {"max error over max": error}

    batch = torch.from_numpy(x)[None]
    measure(lambda: HESSIANS[peer](batch, layer, H.zero_(), 0), check, rounds=7)


# --- SliceGPT ---------------------------------------------------------------------------------------------------------


def pca_of_slicegpt(X: list[Any]) -> tuple[Any, Any]:
    H = sum(torch.sum(x.double().mT @ x.double(), dim=0) for x in X)
    diagonal = torch.arange(H.shape[-1])
    H[diagonal, diagonal] += 0.01 * torch.mean(torch.diag(H))
    values, vectors = torch.linalg.eigh(H)
    order = torch.argsort(values, descending=True)
    return values[order], vectors[:, order]


PCA = {"brockett": slicegpt.pca_calc, "torch as SliceGPT does it": pca_of_slicegpt}


@pytest.mark.parametrize("peer", PCA)
def bench_pca(benchmark, measure, size, peer):
    benchmark.group = "SliceGPT pca_calc, 16 sequences of 1024 tokens × 1024 features, float32"
    X = activations(16 * size(1024), size(1024)).reshape(16, size(1024), size(1024))
    rows = X.reshape(-1, X.shape[-1]).astype(np.float64)
    H = rows.T @ rows
    H += 0.01 * np.mean(np.diag(H)) * np.eye(len(H))
    batches = [torch.from_numpy(x)[None] for x in X]

    def check(answer: tuple[Any, Any]) -> dict[str, Any]:
        values, Q = (part.numpy() for part in answer)
        error = float(np.abs(H @ Q - Q * values).max() / values[0])
        assert error < 1e-12, error
        assert (np.diff(values) <= 0).all()
        return {"residual over largest": error}

    measure(lambda: PCA[peer](batches), check, rounds=3)


# --- PiSSA ------------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def heavy_tailed(n: int) -> tuple[Any, Array]:
    """A Gaussian bulk with power-law spikes, float32, and its singular values."""
    rng = np.random.Generator(np.random.Philox(n))
    k = max(4, n // 20)
    U, V = (np.linalg.qr(rng.standard_normal((n, k)))[0] for _ in range(2))
    s = 3.0 * np.arange(1, k + 1) ** -0.4 + 1.0
    W = (rng.standard_normal((n, n)) / math.sqrt(n) + (U * s) @ V.T).astype(np.float32)
    wide = W.astype(np.float64)
    return torch.from_numpy(W), np.sqrt(np.maximum(np.linalg.eigvalsh(wide.T @ wide)[::-1], 0))


def pissa_of_peft(W: Any, U: Any, s: Any, Vt: Any) -> tuple[Any, Any, Any]:
    root = torch.diag(torch.sqrt(s))
    A, B = root @ Vt, U @ root
    return A, B, W - B @ A


def pissa_full(W: Any, r: int) -> tuple[Any, Any, Any]:
    U, s, Vt = torch.linalg.svd(W, full_matrices=False)
    return pissa_of_peft(W, U[:, :r], s[:r], Vt[:r])


def pissa_niter_4(W: Any, r: int) -> tuple[Any, Any, Any]:
    U, s, V = torch.svd_lowrank(W, r, niter=4)
    return pissa_of_peft(W, U, s, V.t())


PISSA: dict[str, Callable[[Any, int], Any]] = {
    "brockett": peft.pissa,
    "torch.linalg.svd (pissa)": pissa_full,
    "torch.svd_lowrank (pissa_niter_4)": pissa_niter_4,
}


@pytest.mark.parametrize("peer", PISSA)
@pytest.mark.parametrize("n", [1024, pytest.param(4096, marks=LARGE)])
def bench_pissa(benchmark, measure, size, n, peer):
    benchmark.group = f"PiSSA of a {n} × {n} layer, r = 64, float32"
    W, s = heavy_tailed(size(n))
    r = min(64, size(n) // 4)

    def check(answer: Any) -> dict[str, Any]:
        A, B, residual = (part.double().numpy() for part in answer)
        assert np.abs(B @ A + residual - W.double().numpy()).max() < 1e-5
        # what the adapter holds beyond its share of the optimum is what it misses of the leading part
        missed = float(np.linalg.norm(residual) / np.sqrt(np.sum(s[r:] ** 2)) - 1)
        largest = float(np.linalg.svd(residual, compute_uv=False)[0] / s[r] - 1) if n <= 1024 else math.nan
        assert missed < (0.1 if "lowrank" in peer else 1e-5), missed
        return {"residual norm over optimum - 1": missed} | ({"its σ₁ over σ_r+1 - 1": largest} if n <= 1024 else {})

    measure(lambda: PISSA[peer](W, r), check, rounds=3 if n <= 1024 else 1)
