"""Convolutions: R of the patches against im2col, and the operator spectrum against NumPy's FFT and SVD."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import brockett as bk


def peak_megabytes(run: Callable[[], Any]) -> float | None:
    """What a call adds to the resident memory at most; None where the system does not tell."""
    status = Path("/proc/self/status")

    def field(name: str) -> float:
        return next(float(line.split()[1]) / 1024 for line in status.read_text().splitlines() if line.startswith(name))

    with contextlib.suppress(OSError, StopIteration):
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again
        before = field("VmRSS")
        run()
        return max(0.0, field("VmHWM") - before)
    return None


# --- R of the patches -------------------------------------------------------------------------------------------------

# batch, channels, height, width, kernel
IMAGES = [(16, 64, 56, 56, 3), (16, 128, 28, 28, 3), (16, 256, 14, 14, 3), (16, 64, 28, 28, 3), (4, 64, 56, 56, 7)]


@functools.lru_cache(maxsize=1)
def images(n: int, channels: int, height: int, width: int) -> np.ndarray:
    X = np.random.Generator(np.random.Philox(3)).standard_normal((n, channels, height, width), dtype=np.float32)
    return np.ascontiguousarray(np.maximum(np.cumsum(X, axis=3), 0))  # as after a ReLU, smooth along a row


def im2col(X: np.ndarray, k: int) -> np.ndarray:
    padded = np.pad(X.astype(np.float64), ((0, 0), (0, 0), (k // 2, k // 2), (k // 2, k // 2)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (k, k), axis=(2, 3))
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, X.shape[1] * k * k)


@functools.lru_cache(maxsize=1)
def reference(n: int, channels: int, height: int, width: int, k: int) -> np.ndarray:
    """Image by image, so that it needs no memory of its own to speak of."""
    R = np.zeros((channels * k * k,) * 2)
    for image in images(n, channels, height, width):
        Z = im2col(image[None], k)
        R += Z.T @ Z
    return R / (n * height * width)


def brockett_patches(X: np.ndarray, k: int) -> np.ndarray:
    acc = bk.PatchAutocorrelation(X.shape[1], k, padding=k // 2)
    acc.update(X)
    return acc.matrix()


def im2col_dsyrk(X: np.ndarray, k: int) -> np.ndarray:
    from scipy.linalg.blas import dsyrk

    Z = im2col(X, k)
    return dsyrk(1.0 / len(Z), Z.T, lower=1)


def torch_unfold(X: np.ndarray, k: int, dtype: str) -> np.ndarray:
    torch = pytest.importorskip("torch", reason="torch is an optional peer")
    columns = torch.nn.functional.unfold(torch.from_numpy(X).to(getattr(torch, dtype)), k, padding=k // 2)
    flat = columns.transpose(0, 1).reshape(columns.shape[1], -1)
    return (flat @ flat.T / flat.shape[1]).numpy()


PATCH_PEERS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "brockett": brockett_patches,
    "im2col + dsyrk": im2col_dsyrk,
    "torch unfold + matmul, float64": functools.partial(torch_unfold, dtype="float64"),
    "torch unfold + matmul, float32": functools.partial(torch_unfold, dtype="float32"),
}


@pytest.mark.parametrize("peer", PATCH_PEERS)
@pytest.mark.parametrize("shape", IMAGES, ids=str)
def bench_patch_autocorrelation(benchmark, measure, size, timed, shape, peer):
    n, channels, height, width, k = shape
    if not timed:
        n, channels, height, width = 2, max(4, channels // 16), 12, 11
    benchmark.group = f"R of the patches of {shape[:4]} float32 images, {k} × {k}"
    pytest.importorskip("scipy", reason="scipy is an optional peer")
    X, R = images(n, channels, height, width), reference(n, channels, height, width, k)

    def check(got: np.ndarray) -> dict[str, Any]:
        low = np.tril_indices(len(R))
        error = float(np.max(np.abs(got[low] - R[low])) / np.max(np.abs(R)))
        assert error < (1e-5 if peer.endswith("float32") else 1e-12), error
        notes: dict[str, Any] = {"error": error}
        if timed:
            notes["peak MB"] = peak_megabytes(lambda: PATCH_PEERS[peer](X, k))
        return notes

    measure(lambda: PATCH_PEERS[peer](X, k), check, rounds=5)


# --- the spectrum of the operator -------------------------------------------------------------------------------------

# out, in, kernel, grid
KERNELS = [(64, 64, 3, 32), (256, 128, 3, 28), (128, 128, 3, 16), (32, 32, 3, 32), (128, 128, 3, 32)]


@functools.lru_cache(maxsize=1)
def kernel(out: int, width: int, k: int) -> np.ndarray:
    rng = np.random.Generator(np.random.Philox(4))
    return rng.standard_normal((out, width, k, k), dtype=np.float32) / np.float32(k * width**0.5)


def numpy_spectrum(K: np.ndarray, n: int) -> np.ndarray:
    """As published with the paper: FFT, then the SVD of every transfer matrix."""
    H = np.fft.fft2(K.astype(np.float64), (n, n), axes=(2, 3)).transpose(2, 3, 0, 1)
    return np.sort(np.linalg.svd(H, compute_uv=False).ravel())[::-1]


def torch_spectrum(K: np.ndarray, n: int) -> np.ndarray:
    torch = pytest.importorskip("torch", reason="torch is an optional peer")
    H = torch.fft.fft2(torch.from_numpy(K), (n, n)).permute(2, 3, 0, 1)
    return torch.linalg.svdvals(H).flatten().sort(descending=True).values.numpy()


SPECTRUM_PEERS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "brockett": bk.convolution.operator_singular_values,
    "brockett, 10 largest": functools.partial(bk.convolution.operator_singular_values, top=10),
    "numpy fft2 + svd": numpy_spectrum,
    "torch fft2 + svdvals, float32": torch_spectrum,
}


@functools.lru_cache(maxsize=1)
def spectrum(out: int, width: int, k: int, n: int) -> np.ndarray:
    return numpy_spectrum(kernel(out, width, k), n)


@pytest.mark.parametrize("peer", SPECTRUM_PEERS)
@pytest.mark.parametrize("shape", KERNELS, ids=str)
def bench_operator_singular_values(benchmark, measure, timed, shape, peer):
    out, width, k, n = shape if timed else (shape[0] // 8, shape[1] // 8, shape[2], 8)
    benchmark.group = f"operator spectrum of {shape[0]} × {shape[1]} × {k} × {k}, grid {shape[3]} × {shape[3]}"
    K, want = kernel(out, width, k), spectrum(out, width, k, n)

    def check(got: np.ndarray) -> dict[str, Any]:
        error = float(np.max(np.abs(got - want[: len(got)])) / want[0])
        assert error < (1e-5 if peer.endswith("float32") else 5e-8), error
        return {"max error over s1": error}

    measure(lambda: SPECTRUM_PEERS[peer](K, n), check, rounds=3)
