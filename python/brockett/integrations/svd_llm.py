"""The truncation-aware low-rank factors of SVD-LLM, without its Cholesky factor, inverse, shift or full SVD.

SVD-LLM whitens a layer with S, S Sᵀ = Σ x xᵀ, and cuts the SVD of W S: W_r = U_k Σ_k V_kᵀ S⁻¹ is the best matrix of
rank k for the outputs on the calibration data. The same matrix is U_k U_kᵀ W, with U the leading eigenvectors of
W (Σ x xᵀ) Wᵀ: no factor of Σ x xᵀ is needed, so that it may be singular, and it is summed in float64.

Contract: AIoT-MLSys-Lab/SVD-LLM ``SVDLLM.py`` (main at 0e31666, 2025): ``profle_svdllm`` sums, ``whitening`` factors,
``local_update`` refits the left factor.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import _arrays, _options
from .._autocorrelation import Autocorrelation
from .._eigen import eigh
from .._errors import InvalidArgument, InvalidType, NonFinite
from .._svd import whitened_svd
from . import _hooks, _rebind

__all__ = ["LocalUpdate", "Whitened", "accelerated", "rank_for_ratio", "whiten"]

TESTED = "main at 0e31666"

# Factors are scaled by sqrt(s), and s below this share of s_1 is rounding of the second moments.
_FLOOR = 1e-8
# Share of the largest entry or eigenvalue by which Σ x xᵀ may miss symmetry, or fall below 0, where it was summed in
# float32, as SVD-LLM does.
_FLOAT32_SUMS = 1e-5


@dataclass(frozen=True, eq=False)
class Whitened:
    """A layer of low rank, W ≈ W_u W_v; unpacks as ``W_u, W_v``.

    Attributes
    ----------
    W_u : array (n, k)
        U √S, in the dtype of W.
    W_v : array (k, m)
        √S⁻¹ Uᵀ W, in the dtype of W: √S Vᵀ of SVD-LLM.
    s : array (min(n, m),), float64
        All singular values of W S, descending; those of SVD-LLM where Σ x xᵀ was given or an accumulator.
    error : float
        ‖(W - W_r) X‖_F over the calibration data.
    relative_error : float
        The same over ‖W X‖_F; 0 where that is 0.
    """

    W_u: Any
    W_v: Any
    s: Any
    error: float
    relative_error: float

    def __iter__(self) -> Iterator[Any]:
        return iter((self.W_u, self.W_v))

    @property
    def rank(self) -> int:
        """k."""
        return int(self.W_u.shape[1])

    def linears(self, bias: Any = None) -> Any:
        """The two layers that take the place of the one.

        Parameters
        ----------
        bias : torch.Tensor (n,), optional
            Of the layer that is replaced.

        Returns
        -------
        layers : torch.nn.Sequential
            ``Linear(m, k, bias=False)`` and ``Linear(k, n)``, holding copies of the factors.

        Raises
        ------
        InvalidType
            The factors are not PyTorch tensors.

        Examples
        --------
        >>> import torch, brockett as bk
        >>> from brockett.integrations import svd_llm
        >>> layer = torch.nn.Linear(3, 2)
        >>> svd_llm.whiten(layer.weight, torch.eye(3).double(), rank=1).linears(layer.bias)
        Sequential(
          (0): Linear(in_features=3, out_features=1, bias=False)
          (1): Linear(in_features=1, out_features=2, bias=True)
        )
        """
        import torch

        if not isinstance(self.W_u, torch.Tensor):
            raise InvalidType("W", f"layers are made of torch tensors, the weights were {type(self.W_u).__name__}")
        (n, k), m = self.W_u.shape, self.W_v.shape[1]
        like = {"device": self.W_u.device, "dtype": self.W_u.dtype}
        first, second = torch.nn.Linear(m, k, bias=False, **like), torch.nn.Linear(k, n, bias=bias is not None, **like)
        with torch.no_grad():
            first.weight.copy_(self.W_v)
            second.weight.copy_(self.W_u)
            if bias is not None:
                second.bias.copy_(bias)
        return torch.nn.Sequential(first, second)


def rank_for_ratio(n: int, m: int, ratio: float) -> int:
    """k = ⌊m n r / (m + n)⌋, with which the factors of an n × m layer have the share r of its parameters.

    Parameters
    ----------
    n, m : int
        Shape of the weights.
    ratio : float
        r, above 0; SVD-LLM's own ``--ratio`` is 1 - r.

    Returns
    -------
    k : int
        At most min(n, m).

    Raises
    ------
    InvalidArgument
        A ratio that leaves no rank.

    Examples
    --------
    >>> from brockett.integrations import svd_llm
    >>> svd_llm.rank_for_ratio(4096, 4096, 0.8)
    1638
    """
    share = _options.number("ratio", ratio, least=0)
    k = int(m * n * share / (m + n))
    if k < 1:
        raise InvalidArgument("ratio", f"{share:g} of the parameters of a layer of shape ({n}, {m}) leave rank 0")
    return min(k, n, m)


def whiten(
    W: Any, acc: Any, rank: int | None = None, ratio: float | None = None, *, name: str | None = None
) -> Whitened:
    """The best layer of rank k on the calibration data, as two factors.

    Parameters
    ----------
    W : array_like (n, m)
        Weights of a linear layer; half types give factors in float32's accuracy and the type of W.
    acc : Autocorrelation or array_like (m, m)
        What the layer saw: an accumulator, or Σ x xᵀ (SVD-LLM's `raw_scaling_diag_matrix`); singular is fine, and so
        is the rounding of sums in float32 (to 1e-5 of the largest entry and eigenvalue).
    rank : int, optional
        k. Give this or `ratio`.
    ratio : float, optional
        The share of the layer's parameters that is kept: k = `rank_for_ratio`.
    name : str, optional
        Of the layer, for messages.

    Returns
    -------
    result : Whitened
        In the library, on the device and in the dtype of W.

    Raises
    ------
    InvalidArgument
        Neither or both of `rank` and `ratio`, shapes that do not fit, Σ x xᵀ that is not positive semidefinite, a
        centred accumulator, or one without samples.
    NonFinite, InvalidType
        As `brockett.whitened_svd`.

    Notes
    -----
    The cost of `brockett.whitened_svd`: 2 n m² + n² m + 9 n³ flops for n ≤ m. Components that the data do not reach (s
    below 1e-8 of the largest) keep their share of U Uᵀ W, split at that floor.

    References
    ----------
    X. Wang, Y. Zheng, Z. Wan, M. Zhang, SVD-LLM, ICLR 2025 (arXiv 2403.07378), section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from brockett.integrations import svd_llm
    >>> best = svd_llm.whiten(np.diag([1.0, 2.0]), np.diag([9.0, 1.0]), rank=1)
    >>> (best.W_u @ best.W_v).round(12).tolist(), round(best.error, 12)
    ([[1.0, 0.0], [0.0, 0.0]], 2.0)
    """
    argument = "W" if name is None else f"weight of layer {name!r}"
    shape = tuple(getattr(W, "shape", np.shape(W)))
    if len(shape) != 2 or 0 in shape:
        raise InvalidArgument(argument, f"expected the weights (n, m) of a linear layer, got shape {shape}")
    if (rank is None) == (ratio is None):
        raise InvalidArgument("rank", f"give either rank or ratio, got rank={rank!r} and ratio={ratio!r}")
    k = rank_for_ratio(*shape, ratio) if ratio is not None else rank
    scale = 1.0
    if isinstance(acc, Autocorrelation):
        if acc.center:
            raise InvalidArgument("acc", "is centred: the layer also acts on the mean; accumulate with center=False")
        scale = math.sqrt(acc.weight)
    try:
        try:
            best = whitened_svd(W, acc, k)
        except InvalidArgument as error:
            repaired = None if error.argument != "R" or isinstance(error, NonFinite) else _semidefinite(acc)
            if repaired is None:
                raise
            best = whitened_svd(W, repaired, k)
    except NonFinite as error:
        raise NonFinite(argument if error.argument == "W" else _of("acc", name), error.index) from error
    except InvalidArgument as error:
        argument = {"W": argument, "R": _of("acc", name)}.get(error.argument, error.argument)
        raise type(error)(argument, error.message) from error
    # a list came as NumPy; a tensor's half type comes back as it was
    s = best.s * scale
    host = _arrays.accept(s, "s").host()
    d = np.sqrt(np.maximum(host[: best.U.shape[1]], _FLOOR * host[0])) if host[0] > 0 else np.ones(best.U.shape[1])
    back = _arrays.accept(best.s, "s").space
    d = back.back(back.xp.asarray(d) if back.where == "host" else back.xp.asarray(d, device=back.xp_device))
    dtype = W.dtype if hasattr(W, "dtype") and _is_float(W.dtype) else best.U.dtype
    whole = float(np.sqrt(np.sum(host**2)))
    lost = best.error * scale
    return Whitened(
        _hooks.cast(best.U * d, dtype),
        _hooks.cast(best.projected / d[:, None], dtype),
        s,
        lost,
        lost / whole if whole > 0 else 0.0,
    )


def _semidefinite(acc: Any) -> Any:
    """The nearest symmetric positive semidefinite matrix to Σ x xᵀ summed in float32; None where that is not what acc
    is. 9 m³ flops, and only for what was refused as it came."""
    if isinstance(acc, Autocorrelation):
        return None
    operand = _arrays.matrix(_arrays.accept(acc, "R")).as_float64()
    R = operand.space.back(operand.array)
    if len(R.shape) != 2 or R.shape[0] != R.shape[1] or abs(R - R.T).max() > _FLOAT32_SUMS * abs(R).max():
        return None
    values, Q = eigh(0.5 * R + 0.5 * R.T)
    if not 0 <= -values[0] <= _FLOAT32_SUMS * values[-1]:
        return None if values[0] < 0 else 0.5 * R + 0.5 * R.T
    R = (Q * values.clip(0)) @ Q.T
    return 0.5 * R + 0.5 * R.T


def _of(argument: str, name: str | None) -> str:
    return argument if name is None else f"{argument} of layer {name!r}"


def _is_float(dtype: Any) -> bool:
    return "float" in str(dtype)


class LocalUpdate:
    """SVD-LLM's `local_update`: the left factor refitted to the outputs that the layer has to give.

    Parameters
    ----------
    layer : torch.nn.Linear
        The layer.
    scaling_diag_matrix : torch.Tensor (m, m), Autocorrelation or None
        S with S Sᵀ = Σ x xᵀ, as `profle_svdllm` gives it, or the accumulator itself; None with `direct_update`.
    ratio : float
        As in `whiten`.
    name : str
        Of the layer, for messages.
    direct_update : bool, default False
        Start from the SVD of W itself.

    Attributes
    ----------
    error : float
        ‖out - W_r inp‖_F / ‖out‖_F of the last batch, before the update.

    Notes
    -----
    Minimises Σ ‖out - W_u W_v inp‖² over W_u: W_u = B G⁺, G = W_v Σ x xᵀ W_vᵀ and B = Σ out xᵀ W_vᵀ, summed in float64
    over the batches, where SVD-LLM solves one least-squares problem that holds them all. G may be singular: the
    smallest W_u is taken then. 2 n_tokens k (m + n) flops a batch.

    References
    ----------
    X. Wang et al., SVD-LLM (arXiv 2403.07378), section 3.2.

    Examples
    --------
    >>> import torch
    >>> from brockett.integrations import svd_llm
    >>> layer = torch.nn.Linear(4, 4, bias=False)
    >>> update = svd_llm.LocalUpdate(layer, torch.eye(4), 0.5, "fc")
    >>> x = torch.randn(1, 9, 4)
    >>> update.add_batch_update_u(x, layer(x).detach())
    >>> [tuple(factor.shape) for factor in update.fasterprune()]
    [(4, 1), (1, 4)]
    """

    def __init__(
        self, layer: Any, scaling_diag_matrix: Any, ratio: float, name: str, direct_update: bool = False
    ) -> None:
        import torch

        self.layer, self.name = layer, name
        W = layer.weight.detach()
        n, m = W.shape
        self._torch, self._dtype = torch, W.dtype
        if direct_update:
            moments: Any = torch.eye(m, dtype=torch.float64, device=W.device)
        elif isinstance(scaling_diag_matrix, Autocorrelation):
            moments = scaling_diag_matrix
        else:
            S = scaling_diag_matrix.to(device=W.device, dtype=torch.float64)
            moments = S @ S.mT
            moments = 0.5 * (moments + moments.mT)
        wide = W if W.dtype in (torch.float32, torch.float64) else W.float()
        found = whiten(wide, moments, ratio=ratio, name=name)
        self.W_u, self.W_v = found.W_u.double(), found.W_v.double()
        self.error = 0.0
        self._updated: Any = None
        self._seen = Autocorrelation(found.rank)
        self._cross = torch.zeros(n, found.rank, dtype=torch.float64, device=W.device)
        self._norm = 0.0

    def add_batch_update_u(self, inp: Any, out: Any) -> None:
        """Add the inputs of the layer and what it should give for them.

        Parameters
        ----------
        inp : torch.Tensor (…, m)
        out : torch.Tensor (…, n)

        Raises
        ------
        InvalidArgument, NonFinite
            Widths that do not fit, or a NaN or Inf, named after the layer; nothing was added.
        """
        torch, where = self._torch, _hooks.layer_argument(self.layer, self.name)
        n, m = self.W_u.shape[0], self.W_v.shape[1]
        if inp.shape[-1] != m or out.shape[-1] != n or inp.shape[:-1] != out.shape[:-1]:
            raise InvalidArgument(
                where, f"expected inputs (…, {m}) and outputs (…, {n}), got {tuple(inp.shape)} and {tuple(out.shape)}"
            )
        x, y = inp.detach().double().reshape(-1, m), out.detach().double().reshape(-1, n)
        for label, part in ((where, x), (where.replace("input", "output", 1), y)):
            bad = (~torch.isfinite(part)).nonzero()
            if len(bad):
                raise NonFinite(label, bad[0].tolist())
        z = x @ self.W_v.mT
        norm = float(torch.linalg.vector_norm(y))
        self.error = float(torch.linalg.vector_norm(y - z @ self.W_u.mT)) / norm if norm > 0 else 0.0
        self._seen.update(z)
        self._cross += y.mT @ z
        self._norm += norm**2
        self._updated = None

    def _solved(self) -> Any:
        """B G⁺."""
        if self._updated is None:
            values, Q = self._torch.linalg.eigh(_hooks.total(self._seen))
            inverse = self._torch.where(values > 1e-14 * len(values) * values[-1], 1 / values, 0.0)
            self._updated = ((self._cross @ Q) * inverse) @ Q.mT
        return self._updated

    @property
    def updated_error(self) -> float:
        """‖out - W_u W_v inp‖_F / ‖out‖_F over all batches, with the left factor that `fasterprune` gives."""
        if self._norm == 0:
            return 0.0
        updated = self._solved()
        left = self._norm - float((updated * (2 * self._cross - updated @ _hooks.total(self._seen))).sum())
        return math.sqrt(max(left, 0.0) / self._norm)

    def fasterprune(self) -> tuple[Any, Any]:
        """The two factors.

        Returns
        -------
        W_u : torch.Tensor (n, k)
        W_v : torch.Tensor (k, m)
            In the dtype of the layer.

        Raises
        ------
        InvalidArgument
            No batch was added.
        """
        if self._seen.n_samples == 0:
            raise InvalidArgument("LocalUpdate", f"layer {self.name!r} holds no batch yet")
        return self._solved().to(self._dtype), self.W_v.to(self._dtype)


@contextlib.contextmanager
def accelerated(module: Any) -> Iterator[None]:
    """Inside the block, `module.local_update` is `LocalUpdate`, for SVD-LLM's steps 2 and 3.

    Parameters
    ----------
    module : module
        SVD-LLM's ``SVDLLM``, which is not a package: the caller has imported it.

    Yields
    ------
    None

    Raises
    ------
    Unsupported
        The module has no `local_update`.

    Notes
    -----
    The name is bound anew for all threads, and to the old value at the end, on exceptions too. For the first step, put
    ``acc.update(input[0])`` into the hook of `profle_svdllm`, and `whiten` where `whitening` calls the SVD.

    Examples
    --------
    >>> import types
    >>> from brockett.integrations import svd_llm
    >>> SVDLLM = types.SimpleNamespace(local_update=None)
    >>> with svd_llm.accelerated(SVDLLM):
    ...     SVDLLM.local_update.__name__
    'LocalUpdate'
    """
    with _rebind.rebound("SVD-LLM", TESTED, [(module, "local_update", lambda old: LocalUpdate)]):
        yield
