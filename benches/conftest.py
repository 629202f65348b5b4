"""One thread everywhere (or BENCH_THREADS), the BLAS's own kernels, and sizes that shrink where nothing is timed."""

import os

# before the first import of NumPy: each BLAS reads these once, when it is loaded
os.environ.pop("OPENBLAS_CORETYPE", None)
os.environ.pop("OPENBLAS_L2_SIZE", None)
THREADS = os.environ.get("BENCH_THREADS", "1")
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = THREADS
if THREADS != "1":
    # NumPy and SciPy bring an OpenBLAS each; waiting threads of one that spin take the cores of the other
    os.environ["OPENBLAS_THREAD_TIMEOUT"] = "4"

import functools
import platform
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import pytest

import brockett as bk

PEERS = ("numpy", "scipy", "scikit-learn", "torch", "powerlaw", "weightwatcher", "deep-data-profiler")
GPU_PEERS = ("torch", "cupy-cuda13x")


def installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def pytest_report_header() -> list[str]:
    cpu = bk.engines()["cpu"]
    return [
        f"brockett {bk.__version__}: {cpu}",
        "peers: " + ", ".join(f"{p} {installed(p)}" for p in PEERS),
        f"machine: {platform.machine()}, {os.cpu_count()} cores, timer: CPU seconds of this process",
    ]


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Keep what a reader needs to judge the figures; leave out what names the machine."""
    machine_info.pop("node", None)
    machine_info["brockett"] = str(bk.engines()["cpu"])
    machine_info["peers"] = {p: installed(p) for p in PEERS}
    machine_info["threads"] = int(THREADS)
    if config.getoption("markexpr").startswith("gpu"):
        machine_info["brockett"] = str(bk.engines()["cuda"])
        machine_info["peers"] = {p: installed(p) for p in GPU_PEERS}
        machine_info["gpu"] = ", ".join(bk.engines()["cuda"].details.get("devices", ()))


def pytest_benchmark_update_commit_info(config: pytest.Config, commit_info: dict[str, Any]) -> None:
    commit_info.pop("author_time", None)


@pytest.fixture
def timed(request: pytest.FixtureRequest) -> bool:
    return not request.config.getoption("benchmark_disable")


@pytest.fixture
def size(timed: bool) -> Callable[[int], int]:
    """A dimension as it is where it is timed, a sixteenth of it (at least 24) where only the answer is checked."""
    return (lambda n: n) if timed else (lambda n: max(24, n // 16))


@functools.lru_cache(maxsize=2)
def gemm_rate(dtype: str, n: int = 2048) -> float:
    """Flops a second of NumPy's matrix product at one thread, the best of five: what nothing built on it can pass."""
    rng = np.random.Generator(np.random.Philox(1))
    A, B = (rng.standard_normal((n, n), dtype=np.float32).astype(dtype) for _ in range(2))
    best = np.inf
    for _ in range(6):
        start = time.process_time()
        A @ B
        best = min(best, time.process_time() - start)
    return 2 * n**3 / best


@pytest.fixture
def measure(benchmark: Any, timed: bool) -> Callable[..., None]:
    """measure(run, check, rounds=…, flops=…, dtype=…, **notes): the answer first, then the clock.

    `flops`, a number or a function of the answer, are the floating-point operations that the method needs; noted is
    what share of the rate of a matrix product in `dtype` they run at.
    """

    def run_it(
        run: Callable[[], Any],
        check: Callable[[Any], dict[str, Any] | None],
        rounds: int = 5,
        flops: float | Callable[[Any], float] = 0,
        dtype: str = "float64",
        **notes: Any,
    ) -> None:
        answer = run()  # also the warm-up
        notes.update(check(answer) or {})
        needed = flops(answer) if callable(flops) else flops
        del answer
        benchmark.extra_info.update(notes)
        rate = gemm_rate(dtype) if timed and needed else 0.0
        benchmark.has_error = True  # what is interrupted is not written down
        benchmark.pedantic(run, rounds=rounds if timed else 1, iterations=1)
        benchmark.has_error = False
        if rate:
            benchmark.extra_info["of GEMM"] = f"{needed / benchmark.stats.stats.median / rate:.0%} {dtype}"

    return run_it


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.Generator(np.random.Philox(20231))
