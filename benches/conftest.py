"""One thread everywhere, the BLAS's own choice of kernels, and sizes that shrink where nothing is timed."""

import os

# before the first import of NumPy: each BLAS reads these once, when it is loaded
os.environ.pop("OPENBLAS_CORETYPE", None)
os.environ.pop("OPENBLAS_L2_SIZE", None)
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import platform
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
    if config.getoption("markexpr") == "gpu":
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


@pytest.fixture
def measure(benchmark: Any, timed: bool) -> Callable[..., None]:
    """measure(run, check, rounds=…, **notes): the answer first, then the clock."""

    def run_it(
        run: Callable[[], Any], check: Callable[[Any], dict[str, Any] | None], rounds: int = 5, **notes: Any
    ) -> None:
        answer = run()  # also the warm-up
        notes.update(check(answer) or {})
        del answer
        benchmark.extra_info.update(notes)
        benchmark.pedantic(run, rounds=rounds if timed else 1, iterations=1)

    return run_it


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.Generator(np.random.Philox(20231))
