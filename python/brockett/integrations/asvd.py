"""ASVD's two decompositions: `torch.svd_lowrank` of `SVDLinear.from_linear`, and the norm in its stable rank.

Contract: hahnyuan/ASVD4LLM ``modules/svd_linear.py`` ``SVDLinear.from_linear`` (main at 055232e, 2024) calls
``torch.svd_lowrank(w, q=rank)`` without oversampling, 13 % off at the cut; ``sensitivity.py``
``calib_sensitivity_stable_rank`` (at 168744b) calls ``torch.svd(w, compute_uv=False)`` for one value.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .. import _options
from .._accelerate_scope import Left
from .._accelerate_torch import _transformed
from .._errors import InvalidArgument
from .._svd import singular_values, svd
from . import _hooks, _rebind

__all__ = ["accelerated", "sensitivity", "sigma_max", "stable_rank", "svd_lowrank"]

TESTED = "main at 055232e"
PARAM_RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def svd_lowrank(A: Any, q: int = 6, niter: int = 2, M: Any = None) -> tuple[Any, Any, Any]:
    """`torch.svd_lowrank`, whose triplets are the leading ones: to a residual of 1e-6 σ₁, whatever the spectrum.

    Parameters
    ----------
    A : torch.Tensor (…, m, n)
        float16, bfloat16, float32 or float64. One that requires a gradient, is empty, integer, complex, sparse, of a
        subclass (but for Parameter), or seen by a transform, a mode or a tracer (torch.func, FakeTensor, torch.fx,
        torch.jit.trace, torch.compile) goes to PyTorch's own function.
    q : int, default 6
        Number of triplets, at most min(m, n).
    niter : int, default 2
        Taken for compatibility: as much is done as the residual needs.
    M : torch.Tensor (…, m, n), optional
        Subtracted from A first. For one of another dtype, or that could not be A, PyTorch's own function runs, too.

    Returns
    -------
    U : torch.Tensor (…, m, q)
    S : torch.Tensor (…, q)
        Descending.
    V : torch.Tensor (…, n, q)
        All in the dtype of A; not Vᵀ.

    Raises
    ------
    InvalidArgument
        q beyond min(m, n).
    NonFinite, InvalidType, NotConverged
        As `brockett.svd`.

    Notes
    -----
    The cost of `brockett.svd`: 2 m n min(m, n) + 9 min(m, n)³ flops at the ranks that compression keeps.

    Examples
    --------
    >>> import torch
    >>> from brockett.integrations import asvd
    >>> U, S, V = asvd.svd_lowrank(torch.diag(torch.tensor([3.0, 2.0, 1.0])), q=2)
    >>> [round(v, 5) for v in S.tolist()], tuple(V.shape)
    ([3.0, 2.0], (3, 2))
    """
    import torch

    if not _takes(A, M):
        U, s, V = torch.svd_lowrank(A, q=q, niter=niter, M=M)
        return U, s, V
    matrix = A.detach() if M is None else A.detach() - M.detach()
    k = _options.count("q", q, least=0)
    if k > min(matrix.shape[-2:]):
        raise InvalidArgument("q", f"expected at most min(m, n) = {min(matrix.shape[-2:])}, got {k}")
    if k == 0:
        lead, (m, n) = matrix.shape[:-2], matrix.shape[-2:]
        return matrix.new_zeros(*lead, m, 0), matrix.new_zeros(*lead, 0), matrix.new_zeros(*lead, n, 0)
    U, s, Vt = svd(matrix, rank=k)
    return U.to(A.dtype), s.to(A.dtype), Vt.mT.contiguous().to(A.dtype)


def _takes(A: Any, M: Any = None) -> bool:
    """Whether the entries of A (less M) are all that PyTorch's answer depends on."""
    import torch

    if torch.compiler.is_compiling():  # arguments may not be looked at, and the original belongs into the graph
        return False
    tensors = [A] if M is None else [A, M]
    if any(type(one) is not torch.Tensor and type(one) is not torch.nn.Parameter for one in tensors):
        return False
    if any(_symbolic(one) for one in tensors):  # asked first: a tracer would write down what follows
        return False
    return all(
        one.dtype == A.dtype
        and one.layout is torch.strided
        and one.is_floating_point()
        and one.numel() > 0
        and not _hooks.needs_gradient(one)
        for one in tensors
    )


def _symbolic(A: Any) -> bool:
    """Whether a transform, a mode or the meta device stands between A and its entries."""
    import torch

    try:
        return A.is_meta or _transformed(torch, A)
    except Left:  # a PyTorch that does not say
        return True


def sigma_max(W: Any) -> float:
    """σ₁ of a matrix, the spectral norm, without the other values.

    Parameters
    ----------
    W : array_like (m, n) or (m, in, k…)
        Weights; those of convolutions are unfolded.

    Returns
    -------
    sigma : float

    Raises
    ------
    NonFinite, InvalidArgument, InvalidType, NotConverged
        As `brockett.svd`.

    Notes
    -----
    4 m n flops for each of a few dozen columns.

    Examples
    --------
    >>> from brockett.integrations import asvd
    >>> round(asvd.sigma_max([[3.0, 0.0], [0.0, 4.0]]), 12)
    4.0
    """
    matrix = W.detach() if hasattr(W, "detach") else W
    if len(getattr(matrix, "shape", ())) > 2:
        matrix = matrix.reshape(matrix.shape[0], -1)
    return float(svd(matrix, rank=1).s[0])


def stable_rank(W: Any) -> float:
    """‖W‖_F / σ₁, the square root of what is commonly called the stable rank, as ASVD takes it.

    Parameters
    ----------
    W : array_like (m, n)
        Weights.

    Returns
    -------
    rank : float

    Raises
    ------
    InvalidArgument
        W = 0, which has none; else as `sigma_max`.

    Notes
    -----
    The cost of `sigma_max`.

    Examples
    --------
    >>> from brockett.integrations import asvd
    >>> round(asvd.stable_rank([[3.0, 0.0], [0.0, 4.0]]), 12)
    1.25
    """
    top = sigma_max(W)
    if top == 0:
        raise InvalidArgument("W", "is zero, which has no stable rank")
    host = W.detach().double().cpu().numpy() if hasattr(W, "detach") else np.asarray(W, dtype=np.float64)
    return float(np.linalg.norm(host)) / top


def sensitivity(model: Any, param_ratios: tuple[float, ...] = PARAM_RATIOS) -> dict[str, dict[float, float]]:
    """`calib_sensitivity_stable_rank` without its cache: -stable rank · ratio^0.1 of each linear layer.

    Parameters
    ----------
    model : torch.nn.Module
        Whose ``torch.nn.Linear`` layers are taken.
    param_ratios : tuple of float
        Shares of the parameters, ASVD's nine by default.

    Returns
    -------
    sensitivity : dict of str to dict of float to float
        By name of the layer and ratio.

    Raises
    ------
    InvalidArgument
        No linear layer; a weight that is zero, not finite, … by the name of its layer.

    Notes
    -----
    The cost of `sigma_max` for each layer, where the tool computes all singular values.

    Examples
    --------
    >>> import torch
    >>> from brockett.integrations import asvd
    >>> layer = torch.nn.Linear(2, 2)
    >>> _ = layer.weight.data.copy_(torch.eye(2))
    >>> {name: round(row[0.5], 4) for name, row in asvd.sensitivity(torch.nn.Sequential(layer)).items()}
    {'0': -1.3195}
    """
    import torch

    layers = {name: part for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)}
    if not layers:
        raise InvalidArgument("model", f"{type(model).__name__} has no torch.nn.Linear layers")
    found = {}
    for name, layer in layers.items():
        try:
            rank = stable_rank(layer.weight)
        except InvalidArgument as error:
            raise InvalidArgument(f"weight of layer {name!r}", error.message) from error
        found[name] = {ratio: -rank * ratio**0.1 for ratio in param_ratios}
    return found


@contextlib.contextmanager
def accelerated() -> Iterator[None]:
    """Inside the block, `torch.svd_lowrank` and the values of `torch.svd(…, compute_uv=False)` are brockett's.

    Yields
    ------
    None

    Raises
    ------
    Unsupported
        PyTorch no longer has these names.

    Notes
    -----
    ASVD looks both names up in torch when it calls them, so they are bound anew there, for all threads, and to the old
    values at the end, on exceptions too; calls of functions kept before, or from C++, are not seen.
    Without vectors, U and V of `torch.svd` are zeros that take no memory; what `svd_lowrank` leaves to PyTorch, or
    wants vectors of `torch.svd`, goes there.

    Examples
    --------
    >>> import torch
    >>> from brockett.integrations import asvd
    >>> with asvd.accelerated():
    ...     torch.svd_lowrank(torch.eye(3), q=1)[1].tolist()
    [1.0]
    """
    import torch

    def low_rank(old: Callable[..., Any]) -> Callable[..., Any]:
        def replaced(A: Any, q: int | None = 6, niter: int | None = 2, M: Any = None) -> Any:
            if q is None or not _takes(A, M):
                return old(A, q=q, niter=niter, M=M)
            return svd_lowrank(A, q, 2, M)

        return replaced

    def values(old: Callable[..., Any]) -> Callable[..., Any]:
        def replaced(input: Any, some: bool = True, compute_uv: bool = True, *, out: Any = None) -> Any:
            if compute_uv or out is not None or not _takes(input):
                return old(input, some, compute_uv, out=out)
            S = singular_values(input.detach()).to(input.dtype)
            m, n = input.shape[-2:]
            zero = input.new_zeros(())
            lead = input.shape[:-2]
            return torch.return_types.svd((zero.expand(*lead, m, m), S, zero.expand(*lead, n, n)))

        return replaced

    names = [(torch, "svd_lowrank", low_rank), (torch, "svd", values)]
    with _rebind.rebound("torch", "2.13.0", names):
        yield
