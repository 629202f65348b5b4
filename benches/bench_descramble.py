"""The closed-form descrambler against the one eigendecomposition it cannot do without, and against iterating for it."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from iterative import cayley_lbfgs

import brockett as bk
from brockett import _engine


@functools.lru_cache(maxsize=2)
def layer(n: int, n_samples: int = 50_000) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian W and the autocorrelation of smooth inputs: three random bumps and 2 % of noise."""
    rng = np.random.Generator(np.random.Philox(n))
    t = np.arange(n) / n
    X = 0.02 * rng.standard_normal((n_samples, n))
    for _ in range(3):
        centre, width = rng.uniform(0.2, 0.8, (n_samples, 1)), rng.uniform(0.03, 0.1, (n_samples, 1))
        X += rng.standard_normal((n_samples, 1)) * np.exp(-(((t - centre) / width) ** 2))
    W = rng.standard_normal((n, n)) / np.sqrt(n)
    R = X.T @ X / n_samples
    return W, R


def moments(n: int) -> np.ndarray:
    W, R = layer(n, 50_000 if n <= 1024 else 2 * n)
    C = W @ R @ W.T
    return (C + C.T) / 2


def closed_form(C: np.ndarray, verify: bool, W: np.ndarray | None = None) -> dict:
    """P, the gauge nearest to the identity and the optimum, from C alone; `verify` also evaluates the costs."""
    source = {"kind": "covariance", "C": C, "n_samples": 0}
    penalty = bk.penalty.FourierDerivative()._spec()
    return _engine.load("cpu").module.descramble(
        W, source, penalty, "orthogonal", "identity", None, 0, 0, 0, 0, "float64", verify
    )


def dsyevd(C: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    linalg = pytest.importorskip("scipy.linalg", reason="scipy is an optional peer")
    return linalg.eigh(C, driver="evd", check_finite=False)


PEERS = ("brockett", "brockett, costs verified and P W", "scipy dsyevd")


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("n", [80, 256, 1024, pytest.param(4096, marks=pytest.mark.large)])
def bench_closed_form(benchmark, measure, size, n, peer):
    benchmark.group = f"descrambler given C, n = {n}"
    n = size(n)
    C = moments(n)
    optimum = float(bk.penalty.FourierDerivative().eigenvalues(n) @ np.linalg.eigvalsh(C)[::-1])
    W = layer(n, 50_000 if n <= 1024 else 2 * n)[0]
    run = {
        PEERS[0]: lambda: closed_form(C, verify=False),
        PEERS[1]: lambda: closed_form(C, verify=True, W=W),
        PEERS[2]: lambda: dsyevd(C),
    }[peer]

    def check(answer):
        if peer == "scipy dsyevd":
            w, U = answer
            assert np.linalg.norm(C @ U - U * w) < 1e-12 * n * w[-1]
            return None
        P = answer["P"]
        assert np.max(np.abs(P @ P.T - np.eye(n))) < 1e-12
        # the trace form loses eps (n/2)^4 sigma_1^2 to cancellation: that, and not the method, bounds what C can tell
        rounding = 1e-16 * (n / 2) ** 4 * np.linalg.norm(C, 2) * np.sqrt(n)
        cost = bk.brockett_cost(P, C).value
        assert abs(cost - optimum) <= 1e-9 * optimum + rounding
        assert abs(answer["optimum"] - optimum) <= 1e-9 * optimum + rounding
        return {"cost over optimum - 1": cost / optimum - 1}

    measure(run, check, rounds=25 if n <= 256 else 7 if n <= 1024 else 3)


@functools.lru_cache(maxsize=1)
def heavy_tailed(n: int) -> np.ndarray:
    """W of singular values 1/i and random vectors: C = W Wᵀ has the eigenvalues i⁻²."""
    rng = np.random.Generator(np.random.Philox(n + 1))
    U, V = (np.linalg.qr(rng.standard_normal((n, n)))[0] for _ in range(2))
    return np.asfortranarray((U / np.arange(1.0, n + 1)) @ V)


def of_layer(W: np.ndarray, rank: int = 0, verify: bool = False) -> dict:
    """Everything from W on, white inputs: C = W Wᵀ, P in the gauge nearest to the identity, P W."""
    penalty = bk.penalty.FourierDerivative()._spec()
    return _engine.load("cpu").module.descramble(
        W, {"kind": "isotropic"}, penalty, "orthogonal", "identity", None, rank, 0, 0, 0, "float64", verify
    )


def dsyrk_dsyevd(W: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pytest.importorskip("scipy", reason="scipy is an optional peer")
    from scipy.linalg import eigh
    from scipy.linalg.blas import dsyrk

    return eigh(dsyrk(1.0, W, lower=1), lower=True, overwrite_a=True, driver="evd", check_finite=False)


LAYER_PEERS = ("brockett, with P W", "scipy dsyrk + dsyevd")


@pytest.mark.parametrize("peer", LAYER_PEERS)
@pytest.mark.parametrize("n", [1024, 2048, pytest.param(4096, marks=pytest.mark.large)])
def bench_whole_layer(benchmark, measure, size, n, peer):
    benchmark.group = f"descrambler of a layer, R = I, n = {n}: P, gauge and optimum"
    n = size(n)
    W = heavy_tailed(n)
    squares = np.arange(1.0, n + 1) ** -2
    optimum = float(bk.penalty.FourierDerivative().eigenvalues(n) @ squares)

    def check(answer):
        if peer == "scipy dsyrk + dsyevd":
            w, U = answer
            np.testing.assert_allclose(w[::-1], squares, atol=1e-13)
            assert np.linalg.norm(W @ (W.T @ U) - U * w) < 1e-12 * n
            return None
        P = answer["P"]
        assert np.max(np.abs(P @ P.T - np.eye(n))) < 1e-12
        rounding = 1e-16 * (n / 2) ** 4 * np.sqrt(n)
        cost = bk.brockett_cost(P, W @ W.T).value
        assert abs(cost - optimum) <= 1e-9 * optimum + rounding
        assert abs(answer["optimum"] - optimum) <= 1e-9 * optimum + rounding
        return {"cost over optimum - 1": cost / optimum - 1}

    run = (lambda: of_layer(W)) if peer == LAYER_PEERS[0] else (lambda: dsyrk_dsyevd(W))
    measure(run, check, rounds=7 if n <= 1024 else 3)


@pytest.mark.parametrize("peer", ["brockett, rank 16", "rank 64", "rank 256", "all", "rank 16, costs verified"])
@pytest.mark.parametrize("n", [1024, 2048, pytest.param(4096, marks=pytest.mark.large)])
def bench_leading_directions(benchmark, measure, size, n, peer):
    benchmark.group = f"descrambler given C, n = {n}, of the leading directions"
    n = size(n)
    W = heavy_tailed(n)
    C = W @ W.T
    C = (C + C.T) / 2
    rank = next((int(word) for word in peer.replace(",", "").split() if word.isdigit()), 0)
    rank = min(rank, n // 4)
    verify = "verified" in peer
    penalty = bk.penalty.FourierDerivative()
    T = penalty.basis(n)

    def run():
        return _engine.load("cpu").module.descramble(
            None, {"kind": "covariance", "C": C, "n_samples": 0}, penalty._spec(),
            "orthogonal", "identity", None, rank, 0, 0, 0, "float64", verify,
        )  # fmt: skip

    U = np.linalg.eigh(C)[1][:, ::-1][:, :rank]
    below = rank - 1 if rank % 2 == 0 else rank  # modes of whole blocks

    def check(answer):
        P = answer["P"]
        orthogonality = float(np.max(np.abs(P @ P.T - np.eye(n))))
        assert orthogonality < 1e-12
        if rank == 0:
            return {"orthogonality": orthogonality}
        rows = P.T @ T[:, :below]
        distance = float(np.linalg.norm(rows - U[:, :below] @ (U[:, :below].T @ rows), 2))
        assert distance < 1e-9
        if verify:
            cost = bk.brockett_cost(P, C).value
            assert answer["cost"] == pytest.approx(cost, rel=1e-9, abs=1e-16 * (n / 2) ** 4 * np.sqrt(n))
        return {"orthogonality": orthogonality, "angle of the leading directions": distance}

    measure(run, check, rounds=5 if n <= 2048 else 3)


@pytest.mark.parametrize("peer", ["brockett", "Cayley + L-BFGS to 1 %"])
@pytest.mark.parametrize("n", [16, pytest.param(80, marks=pytest.mark.large)])
def bench_against_iteration(benchmark, measure, timed, n, peer):
    pytest.importorskip("scipy", reason="scipy is an optional peer")
    benchmark.group = f"descrambler given C, n = {n}, against the iterative method (the Gram matrix not counted)"
    C = moments(n)
    optimum = float(bk.penalty.FourierDerivative().eigenvalues(n) @ np.linalg.eigvalsh(C)[::-1])
    if peer == "brockett":
        measure(
            lambda: closed_form(C, verify=False),
            lambda r: {"excess": bk.brockett_cost(r["P"], C).value / optimum - 1},
            rounds=25,
        )
        return
    A = bk.penalty.FourierDerivative().matrix(n)
    budget = 60_000 if timed else 200

    def check(answer):
        assert answer["excess"] > -1e-9, "nothing lies below the optimum"
        if timed and n == 16:
            assert answer["excess"] <= 0.0101
        return answer

    measure(lambda: cayley_lbfgs(C, A, optimum, 0.01, budget), check, rounds=1)
