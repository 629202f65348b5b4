"""The graph of a VGG16-shaped network, 128 modes a layer, against ARPACK layer by layer, which is what svr.py calls."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import brockett as bk

LARGE = pytest.mark.large
CONVOLUTIONS = ((64, 3), (64, 64), (128, 64), (128, 128), (256, 128), (256, 256), (256, 256), (512, 256)) + (
    (512, 512),
) * 5
#: What is built of VGG16: the convolutions with half the channels, all of them, and with its fully connected layers.
NETWORKS = {"13 convolutions, half width": 2, "13 convolutions": 1, "all 16 layers": 1}


def layer_like(m: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """A Gaussian bulk and power-law spikes above it, float32."""
    k = min(200, min(m, n) // 4)
    W = rng.standard_normal((m, n), dtype=np.float32) / np.float32(np.sqrt(max(m, n)))
    if k:
        U = np.linalg.qr(rng.standard_normal((m, k), dtype=np.float32))[0]
        V = np.linalg.qr(rng.standard_normal((n, k), dtype=np.float32))[0]
        W += (U * (3.0 * np.arange(1, k + 1) ** -0.4 + 1.0).astype(np.float32)) @ V.T
    return W


@functools.lru_cache(maxsize=1)
def network(name: str, shrink: int) -> list[np.ndarray]:
    rng = np.random.Generator(np.random.Philox(16))
    least = NETWORKS[name] * shrink

    def channels(n: int) -> int:
        return max(3, n // least)

    layers = [
        layer_like(channels(o), channels(i) * 9, rng).reshape(channels(o), channels(i), 3, 3) for o, i in CONVOLUTIONS
    ]
    if name.startswith("all"):
        n = channels(512)
        hidden = max(24, 4096 // shrink)
        layers += [
            layer_like(hidden, n * 49, rng),
            layer_like(hidden, hidden, rng),
            layer_like(1000 // shrink, hidden, rng),
        ]
    return layers


def overlaps_of(U: list[np.ndarray], V: list[np.ndarray]) -> list[np.ndarray]:
    """Squared overlaps of left vectors (out, m) and right vectors (in positions, m) of the next layer."""
    found = []
    for left, right in zip(U, V[1:], strict=False):
        apart = right.reshape(len(left), -1, right.shape[1])
        found.append((np.tensordot(apart, left, axes=(0, 0)) ** 2).sum(axis=0))
    return found


def by_arpack(layers: list[np.ndarray], k: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    sparse = pytest.importorskip("scipy.sparse.linalg", reason="scipy is an optional peer")
    U, S, V = [], [], []
    for W in layers:
        A = W.reshape(len(W), -1)
        if min(A.shape) > k:
            u, s, vt = sparse.svds(A, k=k, rng=np.random.default_rng(0))
            order = np.argsort(s)[::-1]
            u, s, vt = u[:, order], s[order], vt[order]
        else:
            u, s, vt = np.linalg.svd(A, full_matrices=False)
        U, S, V = [*U, u], [*S, s], [*V, vt.T]
    return S, overlaps_of(U, V)


def by_full_svd(layers: list[np.ndarray], k: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    torch = pytest.importorskip("torch", reason="torch is an optional peer")
    U, S, V = [], [], []
    for W in layers:
        u, s, vt = torch.linalg.svd(torch.from_numpy(W.reshape(len(W), -1)), full_matrices=False)
        U, S, V = [*U, u[:, :k].numpy()], [*S, s[:k].numpy()], [*V, vt[:k].numpy().T]
    return S, overlaps_of(U, V)


def by_brockett(layers: list[np.ndarray], k: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    graph = bk.spectral_graph(layers, rank=k)
    return graph.singular_values, graph.adjacency


PEERS: dict[str, Callable[[list[np.ndarray], int], tuple[list[np.ndarray], list[np.ndarray]]]] = {
    "brockett": by_brockett,
    "svds (ARPACK), tensordot": by_arpack,
    "torch svd, cut, tensordot": by_full_svd,
}


@functools.lru_cache(maxsize=1)
def exact(name: str, shrink: int, k: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Values and overlaps in float64: eigenvectors of the smaller Gram matrix, by NumPy."""
    U, S, V = [], [], []
    for W in network(name, shrink):
        A = W.reshape(len(W), -1).astype(np.float64)
        tall = A.shape[0] >= A.shape[1]
        w, X = np.linalg.eigh(A.T @ A if tall else A @ A.T)
        s, X = np.sqrt(np.maximum(w[::-1][:k], 0)), X[:, ::-1][:, :k]
        Y = (A @ X if tall else A.T @ X) / s
        U, S, V = [*U, Y if tall else X], [*S, s], [*V, X if tall else Y]
    return S, overlaps_of(U, V)


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("name", [*list(NETWORKS)[:2], pytest.param("all 16 layers", marks=LARGE)])
def bench_spectral_graph(benchmark, measure, timed, name, peer):
    benchmark.group = f"graph of VGG16-shaped weights, {name}, 128 modes a layer"
    if name.startswith("all") and peer.startswith("torch"):
        pytest.skip("a full decomposition of 4096 × 25088 takes minutes and is not what anybody calls for 128 modes")
    shrink, k = (1, 128) if timed else (8, 8)
    layers = network(name, shrink)
    S, A = exact(name, shrink, k)

    def check(answer: tuple[list[np.ndarray], list[np.ndarray]]) -> dict[str, Any]:
        values = max(float(np.max(np.abs(s / t - 1))) for s, t in zip(answer[0], S, strict=True))
        assert values < 1e-5, values
        # vectors of close values mix at float32, and only sums over these have a meaning: the leading 8 by 8 are apart
        leading = max(float(np.max(np.abs(a[:8, :8] - b[:8, :8]))) for a, b in zip(answer[1], A, strict=True))
        sums = max(float(abs(a.sum() - b.sum()) / b.sum()) for a, b in zip(answer[1], A, strict=True))
        assert leading < 1e-4, leading
        assert sums < 1e-3, sums
        return {"max relative error of s": values, "max error of leading overlaps": leading}

    measure(lambda: PEERS[peer](layers, k), check, rounds=1 if name.startswith("all") else 3)


@pytest.mark.parametrize("peer", ["brockett beta", "brockett chi2"])
@pytest.mark.parametrize("n", [128, 256, 512])
def bench_false_positives(benchmark, measure, timed, n, peer):
    """Random weights, 1.05 million pairs of modes at three sigma: how many are edges, beside the nominal rate."""
    rng = np.random.Generator(np.random.Philox(n))
    pairs = 2**20 if timed else 2**16
    benchmark.group = f"edges of random layers of {n} neurons, {pairs:,} pairs"
    null = peer.split()[1]
    graph = bk.spectral_graph([rng.standard_normal((n, n)) for _ in range(max(1, pairs // n**2) + 1)])
    nominal = 0.0013498980316301

    def check(found: Any) -> dict[str, Any]:
        rate = len(found) / found.n_tests
        if null == "beta":
            assert abs(rate / nominal - 1) < (0.1 if timed else 0.5), rate
        return {"rate": rate, "over nominal": rate / nominal}

    measure(lambda: graph.edges(3.0, null), check, rounds=3)
