"""torch's functions that `accelerate` stands in for."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from . import _accelerate_kernels as kernels
from ._accelerate_limits import check_worth
from ._accelerate_scope import Left, Options
from ._errors import BrockettError

#: svd_lowrank: with fewer iterations subspace iteration is as cheap.
LEAST_STEPS = 4


def _torch() -> Any:
    return sys.modules["torch"]


def bypass() -> bool:
    """While torch.compile traces: arguments may not be looked at, and the original belongs into the graph."""
    return bool(_torch().compiler.is_compiling())


def svd(
    options: Options, A: Any, full_matrices: bool = True, *, driver: str | None = None, out: Any = None
) -> Any:
    torch = _torch()
    dtype = _check(options, A, "svd", driver, out, full=full_matrices)
    U, s, Vh = kernels.svd_thin(options, A, dtype, wide=False, exact_float64=True)
    if full_matrices:
        U, Vh = _completed(torch, U, Vh)
    return torch.return_types.linalg_svd((U, s.to(A.dtype), Vh))


def svdvals(options: Options, A: Any, *, driver: str | None = None, out: Any = None) -> Any:
    dtype = _check(options, A, "svdvals", driver, out)
    return kernels.values(options, A, dtype, wide=False, exact_float64=True).to(A.dtype)


def old_svd(options: Options, input: Any, some: bool = True, compute_uv: bool = True, *, out: Any = None) -> Any:
    torch = _torch()
    dtype = _check(options, input, "svd" if compute_uv else "svdvals", None, out, full=compute_uv and not some)
    if not compute_uv:
        s = kernels.values(options, input, dtype, wide=False, exact_float64=True).to(input.dtype)
        m, n = input.shape[-2:]
        lead = tuple(input.shape[:-2])
        return torch.return_types.svd((_zeros(torch, (*lead, m, m), input), s, _zeros(torch, (*lead, n, n), input)))
    U, s, Vh = kernels.svd_thin(options, input, dtype, wide=False, exact_float64=True)
    if not some:
        U, Vh = _completed(torch, U, Vh)
    return torch.return_types.svd((U, s.to(input.dtype), Vh.mT))


def eigh(options: Options, A: Any, UPLO: str = "L", *, out: Any = None) -> Any:
    torch = _torch()
    _check(options, A, "eigh", None, out)
    w, V = kernels.eigen(_square(A), lower=_lower(UPLO), vectors=True)
    return torch.return_types.linalg_eigh((w.to(A.dtype), V))


def eigvalsh(options: Options, A: Any, UPLO: str = "L", *, out: Any = None) -> Any:
    _check(options, A, "eigvalsh", None, out)
    return kernels.eigen(_square(A), lower=_lower(UPLO), vectors=False)[0].to(A.dtype)


def svd_lowrank(options: Options, A: Any, q: int | None = 6, niter: int | None = 2, M: Any = None) -> Any:
    torch = _torch()
    _check(options, A, "svd_lowrank", None, None)
    if M is not None:
        raise Left("M")
    if A.ndim != 2:
        raise Left("batch")
    m, n = A.shape
    rank, steps = 6 if q is None else q, 2 if niter is None else niter
    if not (isinstance(rank, int) and isinstance(steps, int) and 1 <= rank <= min(m, n) and steps >= 0):
        raise Left("arguments")
    if steps < LEAST_STEPS and options.min_size is None:
        raise Left("few iterations")
    fewer = kernels.krylov_steps(steps, rank)
    # The start block that the original would have drawn: the state of torch's generator is left as it would be.
    state = torch.get_rng_state()
    start = torch.randn(min(m, n), rank, dtype=A.dtype, device=A.device)
    try:
        U, s, Vt = kernels.low_rank(A, rank, fewer, 0, seed_of(start.numpy()))
    except BrockettError:
        torch.set_rng_state(state)  # the original draws again
        raise
    return U, s.to(A.dtype), Vt.mT


def seed_of(start: Any) -> int:
    """A seed from a drawn block of numbers: equal blocks give equal results."""
    first = np.ascontiguousarray(np.ravel(start)[:1], dtype=np.float64)
    return int(first.view(np.uint64)[0])


def _check(options: Options, A: Any, function: str, driver: Any, out: Any, *, full: bool = False) -> str:
    """The dtype of a tensor that can be taken."""
    torch = _torch()
    if type(A) is not torch.Tensor and type(A) is not torch.nn.Parameter:
        raise Left("type")
    if A.dtype is torch.float32:
        dtype = "float32"
    elif A.dtype is torch.float64:
        dtype = "float64"
    else:
        raise Left(f"dtype {A.dtype}")
    if out is not None:
        raise Left("out=")
    if driver is not None:
        raise Left("driver=")
    if A.layout is not torch.strided:
        raise Left("layout")
    if A.device.type != "cpu":
        raise Left(f"device {A.device.type}")
    if A.requires_grad and torch.is_grad_enabled():
        raise Left("requires grad")
    if _transformed(torch, A):
        raise Left("transformed or traced")
    if A.ndim < 2 or A.numel() == 0:
        raise Left("shape")
    if full and A.shape[-1] != A.shape[-2]:
        function = f"full {function}"
    check_worth(options, f"torch {function} {dtype}", A.shape)
    return dtype


def _transformed(torch: Any, A: Any) -> bool:
    """Forward mode, torch.func transforms, modes (FakeTensor, tracing): all want more than values."""
    C = torch._C
    try:
        return bool(
            torch.jit.is_tracing()
            or C._len_torch_dispatch_stack() > 0
            or C._len_torch_function_stack() > 0
            or C._functorch.peek_interpreter_stack() is not None
            or torch.autograd.forward_ad._current_level >= 0
            or any(getattr(A, "names", ()))
        )
    except AttributeError as error:  # private names: where they have moved, nothing may be taken for granted
        raise Left(f"unknown torch: {error}") from error


def _square(A: Any) -> Any:
    if A.shape[-1] != A.shape[-2]:
        raise Left("shape")
    return A


def _lower(word: Any) -> bool:
    if word not in ("L", "U"):
        raise Left("UPLO")
    return bool(word == "L")


def _completed(torch: Any, U: Any, Vh: Any) -> tuple[Any, Any]:
    m, n = U.shape[-2], Vh.shape[-1]

    def qr(basis: Any) -> Any:
        return torch.linalg.qr(basis, mode="complete").Q

    if m > n:
        U = torch.cat((U, kernels.complement(U, qr)), dim=-1)
    elif n > m:
        Vh = torch.cat((Vh, kernels.complement(Vh.mT, qr).mT), dim=-2)
    return U, Vh


def _zeros(torch: Any, shape: tuple[int, ...], like: Any) -> Any:
    # From calloc, so that the pages of what nobody reads are never there; torch.zeros writes to each.
    return torch.from_numpy(np.zeros(shape, dtype=np.float32 if like.dtype is torch.float32 else np.float64))
