"""What to know of a GPU before its figures are read: rates, the libraries' routines that brockett builds on, brockett.

    python benches/gpu_probe.py [--small]     # a minute; --small: tiny sizes, where only the program is to be tried

One line for each measurement: the median of a few runs by the device's events after one that is not counted, or one run
where it takes long. A line that fails prints its error and the next one goes on; none begins once the time is over.
"""

from __future__ import annotations

import ctypes
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import brockett as bk
from brockett import _core

SECONDS = 75.0  # after which no line begins
SMALL = "--small" in sys.argv[1:]
BEGIN = time.perf_counter()


def size(n: int) -> int:
    return max(24, n // 32) if SMALL else n


def normal(*shape: int, dtype: Any = torch.float32, seed: int = 0) -> Any:
    generator = torch.Generator("cuda").manual_seed(seed)
    return torch.randn(*shape, generator=generator, device="cuda", dtype=dtype)


def seconds(run: Callable[[], Any], rounds: int = 5, warm: bool = True) -> float:
    """Median device time of a call."""
    times = []
    if warm:
        run()
    for _ in range(rounds):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        begin.record()
        run()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return statistics.median(times)


def text(t: float) -> str:
    return f"{t * 1e6:.3g} us" if t < 1e-3 else f"{t * 1e3:.3g} ms" if t < 1 else f"{t:.3g} s"


def row(name: str, run: Callable[[], str]) -> None:
    if time.perf_counter() - BEGIN > SECONDS:
        words = "left out: the time is over"
    else:
        try:
            words = run()
        except Exception as error:
            words = f"{type(error).__name__}: {error}".splitlines()[0][:160]
    print(f"{name:<58} {words}", flush=True)


# --- rates ------------------------------------------------------------------------------------------------------------


def copies() -> str:
    X = normal(size(16384), size(16384))
    Y = torch.empty_like(X)
    return f"{2 * 4 * X.numel() / seconds(lambda: Y.copy_(X)) / 1e12:.3g} TB/s, bytes read and written"


def launches() -> str:
    x = torch.zeros(1, device="cuda")

    def many() -> None:
        for _ in range(1000):
            x.add_(1)

    each = seconds(many) / 1000
    begin = time.perf_counter()
    for _ in range(100):
        x.item()
    return f"{text(each)} a small kernel, {text((time.perf_counter() - begin) / 100)} a wait for a number"


def host_copies() -> str:
    host = torch.zeros(size(8192), size(32768))
    pinned = host.pin_memory()
    target = torch.empty_like(host, device="cuda")
    rates = [4 * host.numel() / seconds(lambda each=each: target.copy_(each), 3) / 1e9 for each in (host, pinned)]
    return f"{rates[0]:.3g} GB/s pageable, {rates[1]:.3g} GB/s pinned"


def product(kind: str) -> str:
    n = size(8192)
    dtype = getattr(torch, "float32" if kind == "tf32" else kind)
    A, B = normal(n, n, dtype=dtype), normal(n, n, dtype=dtype, seed=1)
    torch.backends.cuda.matmul.allow_tf32 = kind == "tf32"
    try:
        return f"{2 * n**3 / seconds(lambda: A @ B) / 1e12:.3g} TFLOP/s"
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False


# --- cuBLAS and cuSOLVER ----------------------------------------------------------------------------------------------


def library(name: str) -> Any:
    """A library that PyTorch has loaded, or that lies in NVIDIA's wheels."""
    try:
        return ctypes.CDLL(name)
    except OSError:
        for folder in sys.path:
            path = Path(folder, "nvidia", "cu13", "lib", name)
            if path.is_file():
                return ctypes.CDLL(str(path))
        raise


def number(value: int) -> Any:
    return ctypes.c_int64(value)


def pointer(tensor: Any) -> Any:
    return ctypes.c_void_p(tensor.data_ptr())


def checked(status: int, name: str) -> None:
    if status != 0:
        raise RuntimeError(f"{name}: status {status}")


def handle_of(create: Callable[[Any], int], name: str) -> Any:
    handle = ctypes.c_void_p()
    checked(create(ctypes.byref(handle)), name)
    return handle


def syrk_against_gemm(n: int, k: int) -> str:
    blas = library("libcublas.so.13")
    handle = handle_of(blas.cublasCreate_v2, "cublasCreate")
    stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
    checked(blas.cublasSetStream_v2(handle, stream), "cublasSetStream")
    X = normal(k, n, dtype=torch.float64)  # in memory n x k, column by column
    C, D = torch.zeros(n, n, device="cuda", dtype=torch.float64), torch.zeros(n, n, device="cuda", dtype=torch.float64)
    one, zero, N, T, lower = ctypes.c_double(1), ctypes.c_double(0), 0, 1, 0
    alpha, beta = ctypes.byref(one), ctypes.byref(zero)

    def syrk() -> None:
        checked(
            blas.cublasDsyrk_v2_64(
                handle, lower, N, number(n), number(k), alpha, pointer(X), number(n), beta, pointer(C), number(n)
            ),
            "Dsyrk",
        )

    def gemm() -> None:
        checked(
            blas.cublasDgemm_v2_64(
                handle, N, T, number(n), number(n), number(k), alpha, pointer(X), number(n), pointer(X), number(n),
                beta, pointer(D), number(n),
            ),
            "Dgemm",
        )  # fmt: skip

    t, g = seconds(syrk), seconds(gemm)
    error = float((C - D).triu().abs().max() / D.abs().max())  # the lower half of columns is the upper one of rows
    blas.cublasDestroy_v2(handle)
    flops = n * n * k / 1e12
    return (
        f"syrk {text(t)} ({flops / t:.3g} TFLOP/s of n^2 k), gemm {text(g)} ({2 * flops / g:.3g} of 2 n^2 k), "
        f"gemm over syrk {g / t:.2f}, differ by {error:.0e}"
    )


def symmetric(n: int) -> Any:
    A = normal(n, n, dtype=torch.float64)
    return A + A.T


def eigen(n: int) -> str:
    A = symmetric(n)
    rounds = 3 if n <= 2048 else 1
    values = seconds(lambda: torch.linalg.eigvalsh(A), rounds, warm=n <= 2048)
    return f"values {text(values)}, with vectors {text(seconds(lambda: torch.linalg.eigh(A), rounds, warm=False))}"


def eigen_at_once(n: int) -> str:
    """Two, each on a stream and in a thread of its own, against one after the other."""
    A = [symmetric(n), symmetric(n)]
    streams = [torch.cuda.Stream() for _ in A]
    errors: list[Exception] = []

    def work(k: int) -> None:
        try:
            with torch.cuda.stream(streams[k]):
                torch.linalg.eigvalsh(A[k])
                streams[k].synchronize()
        except Exception as error:
            errors.append(error)

    def at_once() -> None:
        torch.cuda.synchronize()
        threads = [threading.Thread(target=work, args=(k,)) for k in range(len(A))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    both, turns = seconds(at_once, 3), seconds(lambda: [torch.linalg.eigvalsh(each) for each in A], 3)
    if errors:
        raise errors[0]
    return f"values of two at once {text(both)}, by turns {text(turns)}"


def torch_values(n: int) -> str:
    A = normal(n, n)
    torch.linalg.svdvals(A[:256, :256])
    return f"{text(seconds(lambda: torch.linalg.svdvals(A), 1, warm=n <= 2048))} (one run)"


def polar(n: int, rank: int, dtype: Any, vectors: bool) -> str:
    """cusolverDnXgesvdp: what it says, and what its vectors are worth."""
    torch.linalg.eigvalsh(torch.eye(2, device="cuda"))  # PyTorch loads cuSOLVER at the first use
    solver = library("libcusolver.so.12")
    handle = handle_of(solver.cusolverDnCreate, "cusolverDnCreate")
    params = handle_of(solver.cusolverDnCreateParams, "cusolverDnCreateParams")
    checked(solver.cusolverDnSetStream(handle, ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)), "SetStream")
    A = normal(n, n, dtype=dtype) if rank == n else normal(n, rank, dtype=dtype) @ normal(rank, n, dtype=dtype, seed=1)
    work, U, V = A.T.contiguous(), torch.empty_like(A), torch.empty_like(A)
    s = torch.empty(n, device="cuda", dtype=dtype)
    info, shift = torch.zeros(1, device="cuda", dtype=torch.int32), ctypes.c_double(0)
    kind, job = (1 if dtype == torch.float64 else 0), (1 if vectors else 0)
    shape = (
        handle, params, job, 1, number(n), number(n), kind, pointer(work), number(n), kind, pointer(s), kind,
        pointer(U), number(n), kind, pointer(V), number(n), kind,
    )  # fmt: skip
    on_device, on_host = ctypes.c_size_t(0), ctypes.c_size_t(0)
    checked(solver.cusolverDnXgesvdp_bufferSize(*shape, ctypes.byref(on_device), ctypes.byref(on_host)), "bufferSize")
    device_work = torch.empty(max(1, on_device.value), device="cuda", dtype=torch.uint8)
    host_work = ctypes.create_string_buffer(max(1, on_host.value))

    def run() -> None:
        work.copy_(A.T)  # column by column
        checked(
            solver.cusolverDnXgesvdp(
                *shape, pointer(device_work), on_device, host_work, on_host, pointer(info), ctypes.byref(shift)
            ),
            "Xgesvdp",
        )

    t = seconds(run, 3 if n <= 512 else 1)
    words = f"{text(t)}, shift {shift.value:.2g}, info {int(info.item())}, s {float(s[0]):.4g} to {float(s[-1]):.2g}"
    if vectors:  # U and V in memory are their transposes
        residual = float((A @ V.T - U.T * s).norm(dim=0).max() / s[0])
        words += f", residual {residual:.1g}, U'U - I {float((U @ U.T - torch.eye(n, device='cuda')).abs().max()):.1g}"
    torch.cuda.synchronize()
    solver.cusolverDnDestroyParams(params)
    solver.cusolverDnDestroy(handle)
    return words


# --- brockett ---------------------------------------------------------------------------------------------------------


def accumulation(precision: str) -> str:
    n_samples, n = size(65536), size(8192)
    X = normal(n_samples, n)

    def run() -> None:
        acc = bk.Autocorrelation(n, precision=precision)
        acc.update(X)
        acc.matrix()

    t = seconds(run, 3)
    factor = 1 if precision in ("double", "single") else 2
    return f"{text(t)}, {factor * n * n * n_samples / t / 1e12:.3g} TFLOP/s of {factor} n^2 k"


def streamed() -> str:
    X = np.ones((size(65536), size(4096)), dtype=np.float32)

    def run() -> None:
        acc = bk.Autocorrelation(X.shape[1], device=torch.device("cuda"))
        acc.update(X)
        acc.matrix()

    return f"{X.nbytes / seconds(run, 2) / 1e9:.3g} GB/s"


def truncated(method: str) -> str:
    m, n = size(4096), size(11008)
    A, k = normal(m, n), min(128, m // 3)
    residual = 0.0

    def run() -> None:
        nonlocal residual
        residual = float(np.max(bk.svd(A, rank=k, method=method).residual))

    return f"{text(seconds(run, 2))}, residual {residual:.1e}"


def values(*shape: int) -> str:
    A = normal(*shape)
    return text(seconds(lambda: bk.singular_values(A), 2))


def descrambler(n: int) -> str:
    W, X = normal(n, n), normal(4 * n, n, seed=1)
    R = bk.autocorrelation(X)
    rounds = 3 if n <= 1024 else 1
    times = [seconds(lambda v=v: bk.descramble(W, autocorrelation=R, verify=v), rounds) for v in (True, False)]
    return f"{text(times[0])}, unverified {text(times[1])}"


def small_calls() -> str:
    W = normal(16, 8)
    calls = {"singular_values": bk.singular_values, "svd": bk.svd, "descramble": bk.descramble}
    return ", ".join(f"{name} {text(seconds(lambda call=call: call(W), 50))}" for name, call in calls.items())


def memory() -> str:
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    kept = _core.cuda_device_info(0)["free_memory"] - free
    return f"{free / 1e9:.4g} GB free of {total / 1e9:.4g}, {kept / 1e6:.4g} MB kept by brockett's pool and unused"


def questions() -> str:
    """How much memory is free is asked at every update of an accumulator."""
    begin = time.perf_counter()
    for _ in range(100):
        torch.cuda.mem_get_info()
    return f"{text((time.perf_counter() - begin) / 100)} a question"


def main() -> None:
    info = bk.engines()["cuda"]
    if not info.available:
        sys.exit(f"gpu_probe.py: {info.reason}")
    if not torch.cuda.is_available():
        sys.exit("gpu_probe.py: this PyTorch has no CUDA, and the clock is its events")
    torch.backends.cuda.matmul.allow_tf32 = False
    print(info, f"torch {torch.__version__}", sep="; ")
    row("memory, at first", memory)
    row("copy on the device", copies)
    row("copy from the host", host_copies)
    row("launches", launches)
    row("cudaMemGetInfo", questions)
    for kind in ("float64", "float32", "tf32", "float16", "bfloat16"):
        row(f"product of 8192 x 8192, {kind}", lambda kind=kind: product(kind))
    for n in (512, 2048, 8192):
        row(f"Dsyrk and Dgemm, n {n}, k 65536", lambda n=n: syrk_against_gemm(size(n), size(65536)))
    for precision in ("double", "single", "tf32", "fp16", "bf16"):
        row(f"brockett, accumulation of 65536 x 8192, {precision}", lambda p=precision: accumulation(p))
    row("brockett, 65536 x 4096 float32 streamed from the host", streamed)
    for n in (1024, 2048, 4096):
        row(f"torch.linalg.eigvalsh, eigh, float64, n {n}", lambda n=n: eigen(size(n)))
    for n in (1024, 2048):
        row(f"torch.linalg.eigvalsh, float64, n {n}", lambda n=n: eigen_at_once(size(n)))
    row("brockett, a call with 16 x 8 float32", small_calls)
    for n in (1024, 4096):
        row(f"brockett, descramble of {n} x {n} float32", lambda n=n: descrambler(size(n)))
    for method in ("quick", "auto"):
        row(f"brockett, svd {method}, 128 of 4096 x 11008 float32", lambda method=method: truncated(method))
    row("brockett, values of 1000 of 256 x 256 float32", lambda: values(1000 if not SMALL else 5, size(256), size(256)))
    row("brockett, values of 4096 x 4096 float32", lambda: values(size(4096), size(4096)))
    row("brockett, values of 4 of 4096 x 4096 float32 in one call", lambda: values(4, size(4096), size(4096)))
    for n, rank in ((512, 512), (512, 300), (2048, 2048), (2048, 1200)):
        for dtype in (torch.float64, torch.float32):
            name = f"Xgesvdp, {n} x {n} of rank {rank}, {str(dtype).removeprefix('torch.')}"
            row(name, lambda n=n, rank=rank, dtype=dtype: polar(size(n), size(rank), dtype, True))
    row("Xgesvdp, 4096 x 4096 float64", lambda: polar(size(4096), size(4096), torch.float64, True))
    row("Xgesvdp, 2048 x 2048 float64, values alone", lambda: polar(size(2048), size(2048), torch.float64, False))
    row("memory, at last", memory)
    for n in (1024, 2048, 4096):
        row(f"torch.linalg.svdvals, {n} x {n} float32", lambda n=n: torch_values(size(n)))
    print(f"{time.perf_counter() - BEGIN:.0f} s in all")


if __name__ == "__main__":
    main()
