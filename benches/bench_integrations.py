"""Other people's tools with brockett inside and without, in one run: their own output is compared first."""

from __future__ import annotations

import functools
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_random_matrix import model, peer_module, quiet, torch_model
from bench_spectral_graph import network

import brockett as bk

LARGE = pytest.mark.large
WITH, WITHOUT = "with brockett", "alone"


# --- WeightWatcher ----------------------------------------------------------------------------------------------------


def watch(module: Any, within: bool, **options: Any) -> Any:
    """The table of analyze(); the seed makes its random matrices the same."""
    ww = peer_module("weightwatcher")
    np.random.seed(3)  # noqa: NPY002 (the generator that it draws from)
    with bk.integrations.weightwatcher.accelerated() if within else nullcontext():
        return quiet(lambda: ww.WeightWatcher(model=module).analyze(model=module, min_evals=0, **options))


def table_error(found: Any, expected: Any) -> float:
    """Largest relative difference of any number in the table; words must be the same."""
    assert list(found.columns) == list(expected.columns)
    worst = 0.0
    for column in expected.columns:
        one, two = expected[column].to_numpy(), found[column].to_numpy()
        if expected[column].dtype.kind in "fiu":
            worst = max(worst, float(np.max(np.abs(two - one) / np.maximum(np.abs(one), 1e-300), initial=0)))
        else:
            assert [str(value) for value in one] == [str(value) for value in two], column
    return worst


@contextmanager
def tail_below_its_start() -> Iterator[None]:
    """xmin is an eigenvalue itself, and rounding decides whether its vector counts as tail: moved off, in both runs."""
    main = importlib.import_module("weightwatcher.weightwatcher").WeightWatcher
    original = main.apply_analyze_eigenvectors

    def moved(self: Any, ww_layer: Any, params: Any = None) -> Any:
        xmin = ww_layer.xmin
        ww_layer.xmin = xmin * (1 - 1e-9)
        try:
            return original(self, ww_layer, params)
        finally:
            ww_layer.xmin = xmin

    main.apply_analyze_eigenvectors = moved
    try:
        yield
    finally:
        main.apply_analyze_eigenvectors = original


WATCHED: dict[str, tuple[str, dict[str, Any]]] = {
    "MiniLM": ("MiniLM", {}),
    "MiniLM, vectors=True": ("MiniLM", {"vectors": True}),
    "MiniLM, randomize=True": ("MiniLM", {"randomize": True}),
    "VGG16's convolutions": ("VGG16's convolutions", {}),
    "VGG16": ("VGG16", {}),
}


@pytest.mark.parametrize("peer", [WITH, WITHOUT])
@pytest.mark.parametrize("what", [*list(WATCHED)[:4], pytest.param("VGG16", marks=LARGE)])
def bench_weightwatcher(benchmark, measure, timed, what, peer):
    benchmark.group = f"WeightWatcher.analyze(), shapes of {what}"
    peer_module("weightwatcher")
    name, options = WATCHED[what]
    module = torch_model(model(name, timed))
    with tail_below_its_start():
        expected = watched(name, timed, what)

        def check(table: Any) -> dict[str, Any]:
            error = table_error(table, expected)
            assert error < 1e-6, error
            return {"max relative difference in the table": error}

        rounds = {"MiniLM": 5, "VGG16's convolutions": 3}.get(what, 1)
        measure(lambda: watch(module, peer == WITH, **options), check, rounds=rounds)


@functools.lru_cache(maxsize=1)
def watched(name: str, timed: bool, what: str) -> Any:
    """The peer's own table."""
    return watch(torch_model(model(name, timed)), False, **WATCHED[what][1])


# --- DeepDataProfiler -------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def deep_data_profiler() -> Any:
    """The package; of what it draws and downloads with, and nothing here uses, the names will do."""
    pytest.importorskip("torch", reason="torch is an optional peer")
    sys.path.append(str(Path(__file__).parents[1] / "tests/python"))
    stand_ins = importlib.import_module("absent_packages")
    stand_ins.stand_in(stand_ins.DEEP_DATA_PROFILER)
    return peer_module("deep_data_profiler")


def profiled(module: Any, within: bool) -> dict[int, tuple[float, float]]:
    analysis = deep_data_profiler().SpectralAnalysis(module)
    if within:
        return bk.integrations.deep_data_profiler.alpha_dict(module)
    return quiet(lambda: analysis.fit_power_law())


@functools.lru_cache(maxsize=1)
def exact_exponents(name: str, timed: bool) -> list[float]:
    """Of float64 spectra, by NumPy, and brockett's scan, which has a bench and tests of its own."""
    out = []
    for W in model(name, timed):
        A = W.reshape(len(W), -1).astype(np.float64)
        gram = A @ A.T if A.shape[0] <= A.shape[1] else A.T @ A
        eigs = np.maximum(np.linalg.eigvalsh(gram), 0) / len(A)
        out.append(bk.random_matrix.fit_power_law(eigs, compare=False).alpha)
    return out


@pytest.mark.parametrize("peer", [WITH, WITHOUT])
@pytest.mark.parametrize("name", ["MiniLM", "VGG16's convolutions", pytest.param("VGG16", marks=LARGE)])
def bench_deep_data_profiler(benchmark, measure, timed, name, peer):
    benchmark.group = f"DeepDataProfiler, spectra and exponents, shapes of {name}"
    deep_data_profiler()
    module = torch_model(model(name, timed))
    expected = exact_exponents(name, timed)

    def check(found: dict[int, tuple[float, float]]) -> dict[str, Any]:
        assert len(found) == len(expected)
        error = max(
            abs(alpha / e - 1) for (alpha, _), e in zip(found.values(), expected, strict=True) if e is not None
        )
        # the peer decomposes in float32, and fits in it
        assert error < (1e-9 if peer == WITH else 1e-2), error
        return {"max relative error of alpha": error}

    measure(lambda: profiled(module, peer == WITH), check, rounds=3 if name != "VGG16" else 1)


# --- danmlr/svr -------------------------------------------------------------------------------------------------------


class SVR:
    """The decompositions as svr.py calls them, with the arrays copied where SciPy 1.17 returns reversed views."""

    def __init__(self, weights: list[Any], max_dim_svd: int) -> None:
        self.max_dim_svd = max_dim_svd
        self.parts = [self.svd(W.flatten(start_dim=1)) for W in weights]

    def svd(self, A: Any) -> tuple[Any, Any, Any]:
        torch, sparse = importlib.import_module("torch"), importlib.import_module("scipy.sparse.linalg")
        if min(A.shape) <= self.max_dim_svd:
            u, s, vh = torch.linalg.svd(A, full_matrices=False)
            return u, s, vh.T
        u, s, vh = (torch.tensor(part.copy()) for part in sparse.svds(A.numpy(), k=self.max_dim_svd))
        order = torch.argsort(s, descending=True)
        return u[:, order], s[order], vh.T[:, order]


@functools.lru_cache(maxsize=1)
def exact_values(name: str, shrink: int, k: int) -> list[np.ndarray]:
    out = []
    for W in network(name, shrink):
        A = W.reshape(len(W), -1).astype(np.float64)
        gram = A @ A.T if A.shape[0] <= A.shape[1] else A.T @ A
        out.append(np.sqrt(np.maximum(np.linalg.eigvalsh(gram)[::-1][:k], 0)))
    return out


@pytest.mark.parametrize("peer", [WITH, WITHOUT])
@pytest.mark.parametrize("name", ["13 convolutions", pytest.param("all 16 layers", marks=LARGE)])
def bench_svr(benchmark, measure, timed, name, peer):
    benchmark.group = f"SVR's decompositions, VGG16-shaped weights, {name}, 128 modes a layer"
    torch = pytest.importorskip("torch", reason="torch is an optional peer")
    shrink, k = (1, 128) if timed else (8, 8)
    weights = [torch.from_numpy(W) for W in network(name, shrink)]
    kind = bk.integrations.svr.svr_class(SVR) if peer == WITH else SVR
    expected = exact_values(name, shrink, k)

    def check(found: Any) -> dict[str, Any]:
        values = max(
            float(np.max(np.abs(s.numpy() / e - 1))) for (_, s, _), e in zip(found.parts, expected, strict=True)
        )
        residual = 0.0
        for (u, s, v), W in zip(found.parts, weights, strict=True):
            A = W.flatten(start_dim=1)
            residual = max(residual, float(torch.linalg.norm(A @ v - u * s, dim=0).max() / s[0]))
        assert values < 1e-5, values
        assert residual < 1e-5, residual
        return {"max relative error of s": values, "residual": residual}

    measure(lambda: kind(weights, k), check, rounds=1 if name.startswith("all") else 3)


# --- memory -----------------------------------------------------------------------------------------------------------

PEAK = """
import sys
sys.path.insert(0, {folder!r})
import conftest, numpy, brockett as bk, bench_integrations as b
layers = b.model({name!r}, {timed!r})
module = b.torch_model(layers)
del layers
b.model.cache_clear()
{load}
before = int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1])
open("/proc/self/clear_refs", "w").write("5")
{run}
peak = int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
print("peak", before, peak)
"""
RUNS: dict[str, tuple[str, str]] = {
    "brockett, singular values": ("", "[bk.singular_values(p.detach().flatten(1)) for p in module.parameters()]"),
    "brockett, layer_metrics": (
        "from bench_random_matrix import brockett_layers",
        "brockett_layers([p.detach().numpy() for p in module.parameters()])",
    ),
    "WeightWatcher, with brockett": ("b.peer_module('weightwatcher')", "b.watch(module, True)"),
    "WeightWatcher, alone": ("b.peer_module('weightwatcher')", "b.watch(module, False)"),
    "DeepDataProfiler, with brockett": ("b.deep_data_profiler()", "b.profiled(module, True)"),
    "DeepDataProfiler, alone": ("b.deep_data_profiler()", "b.profiled(module, False)"),
}


@pytest.mark.parametrize("peer", RUNS)
@pytest.mark.parametrize("name", ["MiniLM", pytest.param("VGG16", marks=LARGE)])
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc")
def bench_peak_memory(benchmark, timed, name, peer):
    """Peak resident memory of a process of its own, weights and libraries included."""
    benchmark.group = f"peak memory of a process, shapes of {name}"
    load, command = RUNS[peer]
    peer_module("weightwatcher")
    deep_data_profiler()
    script = PEAK.format(folder=str(Path(__file__).parent), name=name, timed=timed, load=load, run=command)

    def measured() -> tuple[int, int]:
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        before, peak = re.findall(r"^peak (\d+) (\d+)$", done.stdout, re.MULTILINE)[-1]
        return int(before), int(peak)

    before, peak = measured()
    assert peak >= before
    if peer.startswith("brockett") and timed:
        assert peak < 1_500_000, peak
    benchmark.extra_info.update({"peak MB": peak / 1e3, "above what was there": (peak - before) / 1e3})
    benchmark.pedantic(lambda: None, rounds=1, iterations=1)

