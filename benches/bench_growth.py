"""Each primitive at three sizes: the exponent that its time grows with, and the memory beyond its input.

The exponent of a row is log(t / t') / log(n / n') between its time and that of the size before. Memory is the peak of
the resident set during the call over what it was before, in a process of its own, after a call at a tenth of the size.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import brockett as bk

LARGE = pytest.mark.large


def batch(n: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(n)).standard_normal((4 * n, n), dtype=np.float32)


def matrix(n: int) -> np.ndarray:
    """A layer-like spectrum: a Gaussian bulk, and a tail above it."""
    rng = np.random.Generator(np.random.Philox(n))
    A = rng.standard_normal((n, n), dtype=np.float32) / np.float32(np.sqrt(n))
    k = n // 16
    U, V = (np.linalg.qr(rng.standard_normal((n, k), dtype=np.float32))[0] for _ in range(2))
    return A + (U * (3.0 * np.arange(1, k + 1) ** -0.4 + 1.0).astype(np.float32)) @ V.T


def images(n: int) -> np.ndarray:
    """n / 16 channels of 56 × 56."""
    return np.random.Generator(np.random.Philox(n)).standard_normal((4, n // 16, 56, 56), dtype=np.float32)


def patches(x: np.ndarray) -> Any:
    acc = bk.PatchAutocorrelation(x.shape[1], 3, padding=1)
    acc.update(x)
    return acc.matrix()


def spectrum(n: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(n)).pareto(2.0, n) + 0.1


def power_law(x: np.ndarray) -> Any:
    return bk.random_matrix.fit_power_law(x, compare=False)


Task = tuple[Callable[[int], np.ndarray], Callable[[np.ndarray], Any], Callable[[Any, np.ndarray], float], float]


def second_moments(R: Any, X: np.ndarray) -> float:
    X = X.astype(np.float64)
    return float(np.max(np.abs(R - X.T @ X / len(X))))


def values_error(s: Any, A: np.ndarray) -> float:
    exact = np.linalg.svd(A.astype(np.float64), compute_uv=False)
    return float(np.max(np.abs(np.asarray(s) - exact)) / exact[0])


def triplets_error(found: Any, A: np.ndarray) -> float:
    exact = np.linalg.svd(A.astype(np.float64), compute_uv=False)[: len(found.s)]
    return float(np.max(np.abs(found.s / exact - 1)))


def descrambler_error(d: Any, W: np.ndarray) -> float:
    C = W.astype(np.float64) @ W.T.astype(np.float64)
    optimum = bk.penalty.FourierDerivative().eigenvalues(len(W)) @ np.linalg.eigvalsh(C)[::-1]
    return abs(float(d.cost / optimum) - 1)


def patches_error(R: Any, x: np.ndarray) -> float:
    around = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    shifts = [around[:, :, i : i + 56, j : j + 56] for i in range(3) for j in range(3)]
    columns = np.stack(shifts, axis=2).transpose(0, 3, 4, 1, 2).reshape(-1, 9 * x.shape[1])
    return float(np.max(np.abs(R - columns.T @ columns / len(columns))))


def power_law_error(fit: Any, x: np.ndarray) -> float:
    """Of the exponent at the cut that was found: the maximum of the likelihood in closed form."""
    tail = x[x >= fit.xmin]
    return abs(float(fit.alpha - 1 - len(tail) / np.sum(np.log(tail / fit.xmin))))


TASKS: dict[str, Task] = {
    "autocorrelation of 4n × n": (batch, bk.autocorrelation, second_moments, 1e-11),
    "all singular values, n × n": (matrix, bk.singular_values, values_error, 1e-9),
    "n / 32 triplets, n × n": (matrix, lambda A: bk.svd(A, rank=len(A) // 32), triplets_error, 1e-5),
    "descramble, n × n": (matrix, bk.descramble, descrambler_error, 1e-4),
    "patches 3 × 3 of n / 16 channels": (images, patches, patches_error, 1e-11),
    "power law of n values": (spectrum, power_law, power_law_error, 1e-9),
}


def peak_memory(task: str, n: int) -> float:
    """MiB above the input, at the peak of one call."""
    script = f"""
import sys; sys.path.insert(0, {str(__file__.rpartition("/")[0])!r})
import bench_growth
make, run, _, _ = bench_growth.TASKS[{task!r}]
run(make({max(64, n // 10)}))
x = make({n})
open('/proc/self/clear_refs', 'w').write('5')  # the peak starts again from what is resident now
field = lambda key: next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith(key))
before = field('VmRSS')
answer = run(x)
print((field('VmHWM') - before) / 1024)
"""
    return float(subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("n", [512, 1024, pytest.param(2048, marks=LARGE), pytest.param(4096, marks=LARGE)])
def bench_growth(benchmark, measure, timed, size, n, task):
    benchmark.group = f"growth: {task}"
    make, run, error, tolerance = TASKS[task]
    here = n if timed else max(64, size(n))
    x = make(here)

    def check(answer: Any) -> dict[str, Any]:
        found = error(answer, x)
        assert found <= tolerance, found
        notes: dict[str, Any] = {"n": here, "error": found}
        if timed and sys.platform == "linux":
            notes["peak MiB"] = round(peak_memory(task, here), 1)
        return notes

    measure(lambda: run(x), check, rounds=5 if n <= 1024 else 1)
