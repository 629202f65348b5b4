"""On a GPU: against the measured rates of the device's own matrix products, and against PyTorch and CuPy.

The clock is the device's: events on the stream that PyTorch works on, which brockett takes for its arrays. Everything
runs once before it is timed, and that run's answer is checked against another method in float64; of what takes minutes
the first run is timed, after a smaller one, and its answer is checked then (`once`). Peers that take minutes are marked
large. `benches/gpu.sh` sets the surroundings up and runs this.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import brockett as bk
from brockett import _engine

torch: Any = pytest.importorskip("torch", reason="device events and most of the peers are PyTorch's")


class Clock:
    """Seconds of device time: the sum of what passed between events, one for each call."""

    def __init__(self) -> None:
        self.total, self.last = 0.0, None

    def __call__(self) -> float:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        event.synchronize()
        if self.last is not None:
            self.total += self.last.elapsed_time(event) / 1e3
        self.last = event
        return self.total


pytestmark = [pytest.mark.gpu, pytest.mark.benchmark(timer=Clock())]


@pytest.fixture(autouse=True)
def _gpu() -> Any:
    info = bk.engines()["cuda"]
    if not info.available:
        pytest.skip(info.reason)
    torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.cuda.empty_cache()


def seconds(run: Callable[[], Any], rounds: int = 7) -> float:
    """Median device time of a call, after one that is not counted."""
    clock, times = Clock(), []
    run()
    for _ in range(rounds):
        start = clock()
        run()
        times.append(clock() - start)
    return statistics.median(times)


def normal(*shape: int, seed: int = 0, dtype: Any = None) -> Any:
    generator = torch.Generator("cuda").manual_seed(seed)
    return torch.randn(*shape, generator=generator, device="cuda", dtype=dtype or torch.float32)


@functools.cache
def gemm_rate(kind: str, n: int) -> float:
    """Flops a second of a product of two n x n matrices, as PyTorch (cuBLAS) computes it."""
    dtype = getattr(torch, "float32" if kind == "tf32" else kind)
    A, B = normal(n, n, dtype=dtype), normal(n, n, seed=1, dtype=dtype)
    torch.backends.cuda.matmul.allow_tf32 = kind == "tf32"
    try:
        return 2 * n**3 / seconds(lambda: A @ B)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False


def once(benchmark: Any, run: Callable[[], Any], check: Callable[[Any], dict[str, Any]]) -> None:
    """As the fixture measure, but the run that is checked is the one that is timed."""
    benchmark.has_error = True  # what fails its check is not written down
    answer = benchmark.pedantic(run, rounds=1, iterations=1)
    benchmark.extra_info.update(check(answer))
    benchmark.has_error = False


@pytest.fixture
def cupy() -> Any:
    return pytest.importorskip("cupy", reason="CuPy is an optional peer")


# --- accumulation -----------------------------------------------------------------------------------------------------


def gram_blocks(X: Any, first: int, dtype: Any, rows: int = 16384) -> Any:
    """The first columns of XᵀX / N, in blocks of rows."""
    out = torch.zeros(first, X.shape[1], dtype=torch.float64, device="cuda")
    for block in X.split(rows):
        out += (block[:, :first].to(dtype).T @ block.to(dtype)).double()
    return out / X.shape[0]


def accumulated(precision: str) -> Callable[[Any], Any]:
    def run(X: Any) -> Any:
        acc = bk.Autocorrelation(X.shape[1], precision=precision)
        acc.update(X)
        return acc.matrix()

    return run


#: name -> (what runs, largest error over the largest entry, the product its rate is held against, useful flops / n²N)
ACCUMULATE: dict[str, tuple[Callable[[Any], Any], float, str, int]] = {
    "brockett double": (accumulated("double"), 1e-12, "float64", 1),
    "torch float64, in blocks": (lambda X: gram_blocks(X, X.shape[1], torch.float64), 1e-12, "float64", 1),
    "brockett single": (accumulated("single"), 3e-5, "float32", 1),  # 65536 terms in one sum: 3e-6 for one entry
    "brockett tf32": (accumulated("tf32"), 3e-3, "tf32", 2),  # 1e-3 where 10 bits are cut off, less where rounded
    "brockett bf16": (accumulated("bf16"), 1e-2, "bfloat16", 2),
    "brockett fp16": (accumulated("fp16"), 3e-3, "float16", 2),
    "torch bfloat16, in blocks": (lambda X: gram_blocks(X, X.shape[1], torch.bfloat16), 3e-2, "bfloat16", 2),
}


@pytest.mark.parametrize("peer", ACCUMULATE)
def bench_accumulate(benchmark, measure, size, peer):
    n_samples, n = size(262_144), size(8192)
    benchmark.group = "GPU: accumulation of 262144 × 8192 float32"
    run, tolerance, product, factor = ACCUMULATE[peer]
    rate = gemm_rate(product, n)
    X = normal(n_samples, n)
    X *= torch.logspace(0, -2, n, device="cuda")
    few = min(n, 64)

    def check(R: Any) -> dict[str, Any]:
        error = float((R[:few] - gram_blocks(X, few, torch.float64)).abs().max() / R[0, 0])
        assert error < tolerance, error
        return {"error": error}

    measure(lambda: run(X), check, rounds=5)
    if benchmark.stats is not None:
        done = factor * n * n * n_samples / benchmark.stats.stats.median
        benchmark.extra_info["TFLOP/s"] = done / 1e12
        benchmark.extra_info["of GEMM"] = f"{done / rate:.0%} of {rate / 1e12:.3g} {product}"


def streamed(X: np.ndarray) -> Any:
    acc = bk.Autocorrelation(X.shape[1], device=torch.device("cuda"))
    acc.update(X)
    return acc.matrix()


def copied_first(X: np.ndarray) -> Any:
    return accumulated("double")(torch.from_numpy(X).to("cuda"))


STREAM = {"brockett, streamed": streamed, "copied by torch, then brockett": copied_first}


@pytest.mark.parametrize("peer", STREAM)
def bench_from_host(benchmark, measure, size, peer):
    benchmark.group = "GPU: accumulation of 262144 × 4096 float32 in host memory"
    n_samples, n = size(262_144), size(4096)
    X = normal(n_samples, n).cpu().numpy()

    def check(R: Any) -> dict[str, Any]:
        expected = gram_blocks(torch.from_numpy(X).to("cuda"), 16, torch.float64)
        error = float((R[:16] - expected).abs().max() / R[0, 0])
        assert error < 1e-12, error
        return {"GB": X.nbytes / 1e9, "error": error}

    measure(lambda: STREAM[peer](X), check, rounds=3)


# --- the descrambler --------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def moments(n: int) -> tuple[Any, np.ndarray]:
    """C of a Gaussian layer whose inputs are smooth, three bumps and 2 % of noise; its eigenvalues by LAPACK."""
    t = torch.arange(n, device="cuda", dtype=torch.float64) / n
    X = 0.02 * normal(2 * n, n, dtype=torch.float64)
    for k in range(3):
        place = normal(2 * n, 1, seed=10 + k, dtype=torch.float64).sigmoid()
        width = 0.03 + 0.07 * normal(2 * n, 1, seed=20 + k, dtype=torch.float64).sigmoid()
        X += normal(2 * n, 1, seed=30 + k, dtype=torch.float64) * torch.exp(-(((t - place) / width) ** 2))
    Y = X @ normal(n, n, seed=40, dtype=torch.float64).T / n**0.5
    C = Y.T @ Y / (2 * n)
    return C, torch.linalg.eigvalsh(C.cpu()).numpy()


def closed_form(C: Any, verify: bool = False) -> Any:
    source = {"kind": "covariance", "C": C, "n_samples": 0}
    penalty = bk.penalty.FourierDerivative()._spec()
    return _engine.load("cuda").module.descramble(
        None, source, penalty, "orthogonal", "identity", None, 0, 0, 0, 0, "float64", verify
    )


DESCRAMBLE = ("brockett", "brockett, costs verified", "torch.linalg.eigh (cuSOLVER Xsyevd)", "cupy.linalg.eigh")


@pytest.mark.parametrize("peer", DESCRAMBLE)
def bench_descramble(benchmark, measure, size, peer):
    benchmark.group = "GPU: descrambler given C, n = 4096"
    n = size(4096)
    C, sigma2 = moments(n)
    if peer.startswith("brockett"):
        optimum = float(np.sort(np.fft.fftfreq(n, 1 / n) ** 4) @ sigma2[::-1])

        def check(found: Any) -> dict[str, Any]:
            P = found["P"]
            assert float((P @ P.T - torch.eye(n, device="cuda", dtype=P.dtype)).abs().max()) < 1e-11
            k = torch.fft.fftfreq(n, 1 / n, device="cuda", dtype=torch.float64)
            values, vectors = torch.linalg.eigh(C)
            spread = torch.fft.fft(P @ (vectors * values.clamp(min=0).sqrt()), dim=0, norm="ortho").abs() ** 2
            excess = float((k**4) @ spread.sum(dim=1)) / optimum - 1
            assert abs(excess) < 1e-6, excess
            return {"cost over optimum - 1": excess}

        measure(lambda: closed_form(C, peer != "brockett"), check, rounds=7)
        return
    if peer.startswith("cupy"):
        cp = pytest.importorskip("cupy", reason="CuPy is an optional peer")
        array = cp.from_dlpack(C)
        run: Callable[[], Any] = lambda: torch.from_dlpack(cp.linalg.eigh(array)[0])  # noqa: E731
    else:
        run = lambda: torch.linalg.eigh(C)[0]  # noqa: E731

    def check_values(values: Any) -> dict[str, Any]:
        assert np.abs(values.cpu().numpy() - sigma2).max() < 1e-11 * sigma2[-1]
        return {}

    measure(run, check_values, rounds=7)


# --- singular values --------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def layer(m: int, n: int) -> Any:
    """A layer-like spectrum: a Gaussian bulk and 200 power-law spikes above it, float32."""
    k = min(200, min(m, n) // 4)
    W = normal(m, n) / max(m, n) ** 0.5
    U, V = torch.linalg.qr(normal(m, k, seed=1))[0], torch.linalg.qr(normal(n, k, seed=2))[0]
    s = 3.0 * torch.arange(1, k + 1, device="cuda") ** -0.4 + 1.0
    return W + (U * s) @ V.T


def cupy_svd(A: Any, k: int) -> Any:
    cp = pytest.importorskip("cupy", reason="CuPy is an optional peer")
    U, s, Vt = cp.linalg.svd(cp.from_dlpack(A), full_matrices=False)
    return tuple(torch.from_dlpack(part) for part in (U[:, :k].copy(), s[:k].copy(), Vt[:k].copy()))


def torch_lowrank(A: Any, k: int, steps: int) -> Any:
    U, s, V = torch.svd_lowrank(A, q=k, niter=steps)
    return U, s, V.T


@functools.lru_cache(maxsize=1)
def values_of_layer(m: int, n: int) -> Any:
    """The singular values of that layer, by the Gram matrix in float64."""
    A = layer(m, n).double()
    return torch.linalg.eigvalsh(A @ A.T).flip(0).clamp(min=0).sqrt()


def peers(table: dict[str, Any], *large: str) -> list[Any]:
    """The names of a table, those marked large that take minutes."""
    return [pytest.param(name, marks=pytest.mark.large) if name in large else name for name in table]


#: name -> (what runs, rounds or 0 where the first run is timed, largest residual over s1, largest relative error of s)
TRUNCATED: dict[str, tuple[Callable[[Any, int], Any], int, float, float]] = {
    "brockett quick": (lambda A, k: tuple(bk.svd(A, rank=k, method="quick")), 5, 0.5, 0.5),
    "brockett auto": (lambda A, k: tuple(bk.svd(A, rank=k)), 3, 5e-6, 1e-5),
    "torch.svd_lowrank, 2 steps": (lambda A, k: torch_lowrank(A, k, 2), 5, 0.5, 0.5),
    "torch.svd_lowrank, 6 steps": (lambda A, k: torch_lowrank(A, k, 6), 5, 0.5, 0.5),
    "cupy.linalg.svd, cut": (cupy_svd, 0, 1e-4, 1e-4),
}


@pytest.mark.parametrize("peer", peers(TRUNCATED, "cupy.linalg.svd, cut"))
def bench_truncated(benchmark, measure, size, peer):
    benchmark.group = "GPU: 128 largest triplets, 8192 × 28672 float32"
    m, n = size(8192), size(28672)
    k = min(128, m // 3)
    A, exact = layer(m, n), values_of_layer(m, n)
    run, rounds, largest_residual, largest_error = TRUNCATED[peer]

    def check(answer: Any) -> dict[str, Any]:
        U, s, Vt = (part.double() for part in answer)
        right = (A.double() @ Vt.T - U * s).norm(dim=0).max()
        left = (A.double().T @ U - Vt.T * s).norm(dim=0).max()
        residual = float(torch.maximum(left, right) / exact[0])
        error = float((s / exact[:k] - 1).abs().max())
        assert residual < largest_residual, residual
        assert error < largest_error, error
        return {"residual over s1": residual, "max relative error of s": error}

    if rounds:
        measure(lambda: run(A, k), check, rounds=rounds)
        return
    run(A[: k + 1, : k + 2].contiguous(), k)
    once(benchmark, lambda: run(A, k), check)


#: name -> (what runs, rounds or 0 where the first run is timed, largest error over s1)
BATCH: dict[str, tuple[Callable[[Any], Any], int, float]] = {
    "brockett": (bk.singular_values, 3, 1e-6),
    # by eigenvalues of AᵀA in float32: a value s is off by the rounding of s1² over s
    "torch.linalg.svd, gesvda": (lambda A: torch.linalg.svd(A, full_matrices=False, driver="gesvda")[1], 3, 1e-2),
    "torch.linalg.svdvals": (torch.linalg.svdvals, 0, 1e-4),  # a loop of Jacobi's method (gesvdj)
}


@pytest.mark.parametrize("peer", peers(BATCH, "torch.linalg.svdvals"))
def bench_batch(benchmark, measure, size, timed, peer):
    benchmark.group = "GPU: all singular values of 1000 matrices, 256 × 256 float32"
    A = normal(1000 if timed else 40, size(256), size(256))
    exact = np.linalg.svd(A[:5].double().cpu().numpy(), compute_uv=False)
    run, rounds, largest = BATCH[peer]

    def check(s: Any) -> dict[str, Any]:
        error = float(np.max(np.abs(s[:5].double().cpu().numpy() - exact)) / exact.max())
        assert error < largest, error
        return {"max error over s1": error}

    if rounds:
        measure(lambda: run(A), check, rounds=rounds)
        return
    run(A[:2])
    once(benchmark, lambda: run(A), check)


def llama_layer(size: Callable[[int], int], seed: int) -> list[Any]:
    """The seven matrices of a layer of the shapes of Llama 2 7B, in float16 as checkpoints hold them."""
    shapes = [(size(4096), size(4096))] * 4 + [(size(11008), size(4096))] * 2 + [(size(4096), size(11008))]
    return [normal(*shape, seed=seed + k, dtype=torch.float16) for k, shape in enumerate(shapes)]


#: name -> (what runs, of how many of the 32 layers, largest error over s1)
SPECTRA: dict[str, tuple[Callable[[Any], Any], int, float]] = {
    "brockett, one layer": (bk.singular_values, 1, 1e-6),
    "brockett, all 32 layers": (bk.singular_values, 32, 1e-6),
    "torch.linalg.svdvals, one layer": (lambda A: torch.linalg.svdvals(A.float()), 1, 1e-4),
}


@pytest.mark.parametrize("peer", peers(SPECTRA, "brockett, all 32 layers", "torch.linalg.svdvals, one layer"))
def bench_llama(benchmark, size, timed, peer):
    benchmark.group = "GPU: all singular values of the layers of Llama 2 7B (random weights)"
    run, layers, largest = SPECTRA[peer]
    weights = [A for k in range(layers if timed else 1) for A in llama_layer(size, 100 * k)]
    wide = weights[-1].double()
    exact = torch.linalg.eigvalsh(wide @ wide.T).flip(0).clamp(min=0).sqrt()

    def check(found: Any) -> dict[str, Any]:
        assert len(found) == len(weights)
        error = float((found[-1] - exact).abs().max() / exact[0])
        assert error < largest, error
        return {"matrices": len(weights), "max error over s1": error}

    run(weights[0][:512])
    once(benchmark, lambda: [run(A) for A in weights], check)
