"""Random-matrix statistics against the tools people use for them, on equal answers."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import brockett as bk

LARGE = pytest.mark.large
rm = bk.random_matrix


def quiet(run: Callable[[], Any]) -> Any:
    """Peers talk while they work."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return run()


def peer_module(name: str) -> Any:
    logging.disable(logging.CRITICAL)
    return quiet(lambda: pytest.importorskip(name, reason=f"{name} is an optional peer"))


# --- power law --------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def values(n: int) -> np.ndarray:
    """A heavy-tailed spectrum: a Marchenko-Pastur bulk whose upper quarter goes over into a power law."""
    rng = np.random.Generator(np.random.Philox(n))
    bulk = rm.marchenko_pastur(2.0).quantile(rng.random(n - n // 4))
    return np.concatenate([bulk, 1.5 * (1 - rng.random(n // 4)) ** (-1 / 1.8)])


def numpy_scan(x: np.ndarray) -> tuple[float, float, float]:
    """Every candidate on its whole tail, in NumPy: also the reference."""
    x = np.sort(x)
    logs, n_all = np.log(x), len(x)
    best = (0.0, 0.0, 2.0)
    for i in range(n_all - 1):
        n = n_all - i
        alpha = 1 + n / (np.sum(logs[i:]) - n * logs[i])
        D = np.max(np.abs(1 - (x[i:] / x[i]) ** (1 - alpha) - np.arange(n) / n))
        if best[2] > D:
            best = (alpha, x[i], D)
    return best


def brockett_fit(x: np.ndarray) -> tuple[float, float, float]:
    fit = rm.fit_power_law(x, compare=False)
    return fit.alpha, fit.xmin, fit.D


def powerlaw_fit(x: np.ndarray) -> tuple[float, float, float]:
    module = peer_module("powerlaw")
    fit = quiet(lambda: module.Fit(x, verbose=False))
    return fit.alpha, fit.xmin, fit.D


def weightwatcher_fit(x: np.ndarray) -> tuple[float, float, float]:
    peer_module("weightwatcher")
    from weightwatcher.WW_powerlaw import WWFit

    fit = quiet(lambda: WWFit(x))
    return fit.alpha, fit.xmin, fit.D


FITS: dict[str, Callable[[np.ndarray], tuple[float, float, float]]] = {
    "brockett": brockett_fit,
    "NumPy, every candidate": numpy_scan,
    "powerlaw": powerlaw_fit,
    "weightwatcher WWFit": weightwatcher_fit,
}


@pytest.mark.parametrize("peer", FITS)
def bench_power_law(benchmark, measure, timed, peer):
    benchmark.group = "power-law tail of 4096 values, best xmin"
    x = values(4096 if timed else 256)
    alpha, xmin, D = numpy_scan(x)

    def check(answer: tuple[float, float, float]) -> None:
        assert answer[0] == pytest.approx(alpha, rel=1e-10)
        assert answer[1] == xmin
        assert answer[2] == pytest.approx(D, abs=1e-12)

    measure(lambda: FITS[peer](x), check, rounds=7 if peer != "powerlaw" else 3)


# --- a model's layers -------------------------------------------------------------------------------------------------

MINILM = [*[(384, 384)] * 25, *[(1536, 384)] * 6, *[(384, 1536)] * 6]
VGG16_CONVOLUTIONS = [
    (64, 3, 3, 3), (64, 64, 3, 3), (128, 64, 3, 3), (128, 128, 3, 3), (256, 128, 3, 3), *[(256, 256, 3, 3)] * 2,
    (512, 256, 3, 3), *[(512, 512, 3, 3)] * 5,
]  # fmt: skip
VGG16 = [*VGG16_CONVOLUTIONS, (4096, 25088), (4096, 4096), (1000, 4096)]
MODELS = {"MiniLM": MINILM, "VGG16's convolutions": VGG16_CONVOLUTIONS, "VGG16": VGG16}


@functools.lru_cache(maxsize=1)
def model(name: str, timed: bool) -> list[np.ndarray]:
    """Gaussian weights with 1/4 of their variance in directions whose strengths fall like a power law, float32."""
    out = []
    for k, shape in enumerate(
        MODELS[name] if timed else [tuple(max(1, n // 8) for n in s[:2]) + s[2:] for s in MODELS[name][::4]]
    ):
        rng = np.random.Generator(np.random.Philox(k))
        W = rng.standard_normal(shape, dtype=np.float32)
        rows, columns = shape[0], int(np.prod(shape[1:]))
        r = max(1, min(rows, columns) // 8)
        left = rng.standard_normal((rows, r), dtype=np.float32)
        right = rng.standard_normal((r, columns), dtype=np.float32)
        strengths = np.float32(0.5) * np.arange(1, r + 1, dtype=np.float32) ** np.float32(-0.6)
        out.append((W + ((left * strengths) @ right).reshape(shape)) / np.float32(np.sqrt(columns)))
    return out


def brockett_layers(layers: list[np.ndarray]) -> list[Any]:
    return [rm.layer_metrics(W, convention="weightwatcher").alpha for W in layers]


def torch_model(layers: list[np.ndarray]) -> Any:
    torch = pytest.importorskip("torch", reason="torch is an optional peer")
    modules = []
    for W in layers:
        if W.ndim == 2:
            module = torch.nn.Linear(W.shape[1], W.shape[0], bias=False)
        else:
            module = torch.nn.Conv2d(W.shape[1], W.shape[0], W.shape[2:], bias=False)
        module.weight.data = torch.from_numpy(W)
        modules.append(module)
    return torch.nn.Sequential(*modules)


def weightwatcher_layers(layers: list[np.ndarray]) -> list[Any]:
    ww, module = peer_module("weightwatcher"), torch_model(layers)
    # its ceilings on sizes would leave out VGG16's first fully connected layer's dimension, its floor small layers
    details = quiet(lambda: ww.WeightWatcher(model=module).analyze(model=module, min_evals=0))
    return list(details["alpha"])


LAYERS: dict[str, Callable[[list[np.ndarray]], list[Any]]] = {
    "brockett": brockett_layers,
    "weightwatcher analyze": weightwatcher_layers,
}


@pytest.mark.parametrize("peer", LAYERS)
@pytest.mark.parametrize("name", ["MiniLM", "VGG16's convolutions", pytest.param("VGG16", marks=LARGE)])
def bench_layers(benchmark, measure, timed, name, peer):
    benchmark.group = f"metrics of all layers, shapes of {name}, float32"
    layers = model(name, timed)
    expected = brockett_layers(layers)

    def check(alphas: list[Any]) -> dict[str, Any]:
        assert len(alphas) == len(layers)
        pairs = [(a, b) for a, b in zip(alphas, expected, strict=True) if b is not None]
        assert pairs
        error = max(abs(a / b - 1) for a, b in pairs)
        assert error < 1e-6, error
        return {"max relative difference of alpha": error}

    measure(lambda: LAYERS[peer](layers), check, rounds=3 if name != "VGG16" else 1)


# --- bulk -------------------------------------------------------------------------------------------------------------


def brockett_bulk(eigs: np.ndarray, Q: float) -> tuple[float, int]:
    fit = rm.fit_bulk(eigs, Q)
    return fit.variance, fit.n_spikes


def weightwatcher_bulk(eigs: np.ndarray, Q: float) -> tuple[float, int]:
    ww, m = peer_module("weightwatcher"), len(eigs)
    watcher = quiet(lambda: ww.WeightWatcher())
    found = quiet(lambda: watcher.mp_fit(eigs, Q * m, m, 1, "", 0, 0, False, False, "", "blue", 0.5, True, eigs))
    spikes, sigma, _, _, _, scale = found
    return float(sigma / scale) ** 2, int(spikes)


BULKS: dict[str, Callable[[np.ndarray, float], tuple[float, int]]] = {
    "brockett": brockett_bulk,
    "weightwatcher mp_fit": weightwatcher_bulk,
}


@pytest.mark.parametrize("peer", BULKS)
def bench_bulk(benchmark, measure, timed, peer):
    benchmark.group = "Marchenko-Pastur fit, 384 × 1536 noise of variance 1, three spikes"
    n = 384 if timed else 96
    rng = np.random.Generator(np.random.Philox(5))
    W = rng.standard_normal((4 * n, n))
    W[:, :3] *= [5.0, 4.0, 3.0]
    eigs = np.linalg.svd(W, compute_uv=False) ** 2 / (4 * n)

    def check(answer: tuple[float, int]) -> dict[str, Any]:
        variance, spikes = answer
        # brockett is held to the truth, the peer's fit of a smoothed density to its neighbourhood
        assert abs(variance - 1) < (0.05 if peer == "brockett" else 0.3), variance
        if peer == "brockett":
            assert spikes == 3
        return {"variance": variance, "spikes": spikes}

    measure(lambda: BULKS[peer](eigs, 4.0), check, rounds=7 if peer == "brockett" else 3)
