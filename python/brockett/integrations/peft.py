"""PEFT's data-aware initialisers of LoRA: PiSSA, CorDA and EVA.

Contract: huggingface/peft 0.21.2: ``tuners/lora/layer.py`` ``LoraLayer.pissa_init``; ``tuners/lora/corda.py``
``calib_cov_distribution`` and ``collect_eigens_for_layer``; ``utils/incremental_pca.py`` ``IncrementalPCA``, as
``tuners/lora/eva.py`` uses it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import _arrays, _options
from .._autocorrelation import Autocorrelation
from .._collect_layers import is_conv1d_of_transformers
from .._errors import InvalidArgument, InvalidType
from .._svd import svd
from . import _hooks, _rebind
from ._incremental_pca import IncrementalPCA

__all__ = ["Corda", "IncrementalPCA", "Pissa", "accelerated", "corda", "pissa"]

TESTED = "0.21.2"
CORDA_METHODS = ("ipm", "kpm")


@dataclass(frozen=True, eq=False)
class Pissa:
    """W = residual + scaling B A; unpacks as ``A, B, residual``.

    Attributes
    ----------
    A : array (r, m)
        √(S / scaling) Vᵀ, in the dtype of W, float32 for half types, as PEFT has it.
    B : array (n, r)
        U √(S / scaling), likewise.
    residual : array (n, m)
        W - scaling B A, in the dtype of W.
    """

    A: Any
    B: Any
    residual: Any

    def __iter__(self) -> Iterator[Any]:
        return iter((self.A, self.B, self.residual))


def pissa(W: Any, r: int, scaling: float = 1.0, niter: int | None = None) -> Pissa:
    """PiSSA: the r leading triplets of a weight to be trained, and the rest to be frozen.

    Parameters
    ----------
    W : array_like (n, m)
        Weights; float16 and bfloat16 are computed with in float32.
    r : int
        Rank of the adapter, at most min(n, m).
    scaling : float, default 1.0
        PEFT's lora_alpha / r (or / √r).
    niter : int, optional
        Of ``pissa_niter_<n>``. Taken for compatibility: the triplets are the leading ones, to a residual of 1e-6 σ₁.

    Returns
    -------
    result : Pissa
        In the library and on the device of W.

    Raises
    ------
    InvalidArgument
        r beyond min(n, m), or a scaling that is not above 0.
    NonFinite, InvalidType, NotConverged
        As `brockett.svd`.

    Notes
    -----
    The cost of `brockett.svd` for r triplets, and 2 n m r flops for the residual.

    References
    ----------
    F. Meng, Z. Wang, M. Zhang, PiSSA, NeurIPS 2024 (arXiv 2404.02948).

    Examples
    --------
    >>> import numpy as np
    >>> from brockett.integrations import peft
    >>> A, B, residual = peft.pissa(np.diag([4.0, 1.0]), 1)
    >>> (B @ A).round(9).tolist(), residual.round(9).tolist()
    ([[4.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]])
    """
    if niter is not None:
        _options.count("niter", niter)
    share = _options.number("scaling", scaling)
    if share <= 0:
        raise InvalidArgument("scaling", f"expected a number above 0, got {scaling!r}")
    plain = _matrix(W, "W")
    U, s, Vt = svd(plain, rank=_options.count("r", r, least=1, most=min(plain.shape)))
    root = _hooks.cast((s / share) ** 0.5, U.dtype)
    A, B = root[:, None] * Vt, U * root
    return Pissa(A, B, _hooks.cast(_hooks.cast(plain, U.dtype) - share * (B @ A), plain.dtype))


@dataclass(frozen=True, eq=False)
class Corda:
    """W ≈ U diag(S) Vᵀ by CorDA's choice of triplets; unpacks as ``S, U, V`` in the order of PEFT's CordaEigens.

    Attributes
    ----------
    S : array (r,)
    U : array (n, r)
    V : array (m, r)
        C⁻¹ times the right singular vectors of W C; in the dtype of W, float32 for half types.
    """

    S: Any
    U: Any
    V: Any

    def __iter__(self) -> Iterator[Any]:
        return iter((self.S, self.U, self.V))


def corda(
    W: Any,
    covariance: Any,
    rank: int | None = None,
    method: str = "ipm",
    damp: float = 0.01,
    *,
    name: str | None = None,
) -> Corda:
    """CorDA: the SVD of W C, C = covariance + damp · mean(diag) I, with C taken off again: U S Vᵀ = W.

    Parameters
    ----------
    W : array_like (n, m)
        Weights.
    covariance : array_like (m, m) or Autocorrelation
        Σ x xᵀ or E[x xᵀ] of the layer's inputs. A factor of it goes into S and out of V.
    rank : int, optional
        r, all min(n, m) by default.
    method : {"ipm", "kpm"}, default "ipm"
        The r leading triplets (instruction-previewed), or the r trailing ones (knowledge-preserved).
    damp : float, default 0.01
        PEFT doubles it until the inverse of C in float32 passes a test; here nothing is inverted, so it stays.
    name : str, optional
        Of the layer, for messages.

    Returns
    -------
    result : Corda
        In the library and on the device of W.

    Raises
    ------
    InvalidArgument
        A covariance that does not fit, is not symmetric, or is zero; a rank beyond min(n, m).
    NonFinite, InvalidType, NotConverged
        As `brockett.svd`.

    Notes
    -----
    In float64: 2 n m² flops and the cost of `brockett.svd`. V S = Wᵀ U, so V comes from W; only for triplets with
    S = 0, where that says nothing, C V = Q is solved, with the right singular vectors Q.

    References
    ----------
    Y. Yang et al., CorDA, NeurIPS 2024 (arXiv 2406.05223), section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from brockett.integrations import peft
    >>> S, U, V = peft.corda(np.diag([1.0, 2.0]), np.diag([9.0, 1.0]), rank=1)
    >>> (U * S @ V.T).round(9).tolist()
    [[1.0, 0.0], [0.0, 0.0]]
    """
    where = "covariance" if name is None else f"covariance of layer {name!r}"
    word = _options.option("method", method, CORDA_METHODS)
    share = _options.number("damp", damp, least=0)
    plain = _matrix(W, "W")
    n, m = plain.shape
    r = _options.count("rank", rank, least=1, most=min(n, m)) if rank is not None else min(n, m)
    C = covariance.matrix() if isinstance(covariance, Autocorrelation) else covariance
    operand = _arrays.accept(C, where)
    if operand.shape != (m, m):
        raise InvalidArgument(where, f"expected shape ({m}, {m}) to fit W, got {operand.shape}")
    _arrays.check_finite(operand)
    wide = _arrays.accept(plain, "W").as_float64()
    C = wide.space.back(operand.as_float64().array) if operand.space.memory == wide.space.memory else C
    W64 = wide.space.back(wide.array)
    spread, largest = abs(C - C.T).max(), abs(C).max()
    if float(largest) == 0:
        raise InvalidArgument(where, "is zero: the layer saw nothing but zeros")
    if float(spread) > 1e-6 * float(largest):
        raise InvalidArgument(where, f"is not symmetric: mirrored entries differ by up to {float(spread):.3g}")
    C = C / largest  # only ratios count below, and nothing overflows
    C = 0.5 * (C + C.T) + share * float(C.diagonal().mean()) * _identity(C)
    product = W64 @ C
    if word == "ipm" and r < min(n, m):
        U, s, Vt = svd(product, rank=r, tol=1e-9)
    else:
        U, s, Vt = svd(product, method="exact")
        U, s, Vt = (U[:, :r], s[:r], Vt[:r]) if word == "ipm" else (U[:, -r:], s[-r:], Vt[-r:])
        # of the whole spectrum, which is what makes a value zero
    host = _arrays.accept(s, "S").host()
    zero = host <= 1e-12 * float(abs(product).max())
    safe = s + _hooks.cast(_vector(zero, s), s.dtype)
    V = (W64.T @ U) / safe
    if zero.any():
        V[:, zero] = _solved(C, Vt.T[:, zero])
    dtype = _narrow(plain)
    return Corda(*(_hooks.cast(part, dtype) for part in (s * float(largest), U, V / float(largest))))


def _matrix(W: Any, argument: str) -> Any:
    """Weights as an array of floats with two axes, cut off from autograd."""
    plain = W.detach() if hasattr(W, "detach") else np.asarray(W)
    if isinstance(plain, np.ndarray) and plain.dtype.kind != "f":
        plain = plain.astype(np.float64)
    if len(plain.shape) != 2 or 0 in plain.shape:
        raise InvalidArgument(argument, f"expected a matrix (2 axes), got shape {tuple(plain.shape)}")
    return plain


def _narrow(plain: Any) -> Any:
    """The dtype of results: that of the weights, float32 for half types."""
    if isinstance(plain, np.ndarray):
        return np.float32 if plain.dtype.itemsize < 4 else plain.dtype
    import torch

    return torch.float32 if plain.dtype in (torch.float16, torch.bfloat16) else plain.dtype


def _identity(C: Any) -> Any:
    if isinstance(C, np.ndarray):
        return np.eye(C.shape[0])
    import torch

    return torch.eye(C.shape[0], dtype=C.dtype, device=C.device)


def _vector(flags: Any, like: Any) -> Any:
    if isinstance(like, np.ndarray):
        return flags
    import torch

    return torch.from_numpy(flags).to(like.device)


def _solved(C: Any, Q: Any) -> Any:
    if isinstance(C, np.ndarray):
        return np.linalg.solve(C, Q)
    import torch

    return torch.linalg.solve(C, Q)


# --- PEFT's own names -------------------------------------------------------------------------------------------------


def _pissa_init(self: Any, adapter_name: str, init_lora_weights: str) -> None:
    """`LoraLayer.pissa_init`."""
    import torch

    found = re.fullmatch(r"pissa(?:_niter_(\d+))?", init_lora_weights)
    if found is None:
        raise InvalidArgument(
            "init_lora_weights", f"should be 'pissa' or 'pissa_niter_[number of iters]', got {init_lora_weights!r}"
        )
    base = self.get_base_layer()
    if base.weight.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise InvalidType("weight", f"PiSSA starts from float32, float16 or bfloat16, this is {base.weight.dtype}")
    weight = base.weight.detach()
    weight = weight.T if self.fan_in_fan_out else weight
    niter = None if found[1] is None else int(found[1])
    A, B, residual = pissa(weight, self.r[adapter_name], self.scaling[adapter_name], niter)
    # contiguous, as safetensors wants them: the factors of a transposed weight (GPT-2's Conv1D) are laid out like it
    self.lora_A[adapter_name].weight.data = A.contiguous()
    self.lora_B[adapter_name].weight.data = B.contiguous()
    base.weight.data = (residual.T if self.fan_in_fan_out else residual).contiguous()


def _collect_eigens(eigens: Any) -> Any:
    """`collect_eigens_for_layer`, which makes a CordaEigens: of the columns that PEFT keeps, where it says which."""

    def collect(linear: Any, config: Any) -> Any:
        if not hasattr(linear, "covariance_matrix"):
            raise InvalidArgument("linear", "has no covariance_matrix: call preprocess_corda, which makes it")
        W = linear.weight.data
        W = W.T if is_conv1d_of_transformers(linear) else W
        method = str(getattr(linear, "corda_method", ""))
        rank = getattr(linear, "rank", None) if method in CORDA_METHODS else None
        S, U, V = corda(W.float(), linear.covariance_matrix, rank, method if rank is not None else "ipm")
        return eigens(S_WC=S, U_WC=U, V_WC=V)

    return collect


def _calibrate(target_modules: Any, model_device: Any) -> Any:
    """`calib_cov_distribution`: the mean over calls of x xᵀ / max(x)², summed in float64."""

    def calibrate(model: Any, config: Any, run_model: Any, hooked_model: Any, covariance_file: str | None) -> None:
        import os

        import torch

        if covariance_file is not None and os.path.exists(covariance_file) and os.path.getsize(covariance_file) > 0:
            stored = torch.load(covariance_file, map_location=model_device(model))
            for name, module in target_modules(model, config):
                module.covariance_matrix = stored[name]
            return
        if run_model is None:
            raise InvalidArgument("run_model", "must be given where there is no covariance file and no cache file")
        hooked = model if hooked_model is None else hooked_model
        hooked.eval()
        sums: dict[str, Any] = {}
        counts: dict[str, int] = {}

        def hook(name: str) -> Any:
            def add(module: Any, args: Any, output: Any) -> None:
                x = args[0].detach()
                largest = float(x.max().abs())
                where = _hooks.layer_argument(module, name)
                if largest == 0 or not np.isfinite(largest):
                    # a NaN is found by index below; an input whose largest entry is 0 cannot be scaled to 1
                    _arrays.check_finite_host(where, x.double().cpu().numpy())
                    raise InvalidArgument(where, "its largest entry is 0, by which PEFT divides")
                acc = _hooks.moments_of_inputs(module, x, name=name)
                added = _hooks.total(acc) / largest**2
                sums[name] = sums[name] + added if name in sums else added
                counts[name] = counts.get(name, 0) + 1

            return add

        with contextlib.ExitStack() as stack:
            for name, module in target_modules(hooked, config):
                stack.callback(module.register_forward_hook(hook(name)).remove)
            run_model()
        for name, module in target_modules(model, config):
            if name not in sums:
                raise InvalidArgument("run_model", f"layer {name!r} was never called")
            module.sample_count = counts[name]
            module.covariance_matrix = sums[name] / counts[name]
        if covariance_file is not None:
            os.makedirs(os.path.dirname(covariance_file) or ".", exist_ok=True)
            matrices = {name: module.covariance_matrix for name, module in target_modules(model, config)}
            torch.save(matrices, covariance_file)

    return calibrate


@contextlib.contextmanager
def accelerated() -> Iterator[None]:
    """Inside the block, PEFT initialises PiSSA, CorDA and EVA through brockett.

    Yields
    ------
    None

    Raises
    ------
    Unsupported
        PEFT is not installed (an ImportError, too), or the names are not where the version tested has them.

    Notes
    -----
    Bound anew for all threads, and to the old values at the end, on exceptions too: ``LoraLayer.pissa_init`` (all of
    ``init_lora_weights="pissa…"``), ``corda.calib_cov_distribution`` and ``corda.collect_eigens_for_layer`` (what
    ``preprocess_corda`` calls), ``eva.IncrementalPCA`` (what ``initialize_lora_eva_weights`` and ``get_peft_model``
    with EVA use). CorDA's covariances are float64 then, in its covariance file as well.

    Examples
    --------
    >>> from brockett.integrations import peft
    >>> with peft.accelerated():  # doctest: +SKIP
    ...     model = get_peft_model(base, LoraConfig(init_lora_weights="pissa", r=64, target_modules=["q_proj"]))
    """
    layer = _rebind.import_tool("peft", TESTED, "peft.tuners.lora.layer")
    corda_module = _rebind.import_tool("peft", TESTED, "peft.tuners.lora.corda")
    eva = _rebind.import_tool("peft", TESTED, "peft.tuners.lora.eva")
    for module, name in (
        (layer, "LoraLayer"),
        (corda_module, "CordaEigens"),
        (corda_module, "target_modules"),
        (corda_module, "get_model_device"),
    ):
        if not hasattr(module, name):
            raise _rebind.moved("peft", TESTED, f"{module.__name__}.{name}")
    calibrate = _calibrate(corda_module.target_modules, corda_module.get_model_device)
    names = [
        (layer.LoraLayer, "pissa_init", lambda old: _pissa_init),
        (corda_module, "calib_cov_distribution", lambda old: calibrate),
        (corda_module, "collect_eigens_for_layer", lambda old: _collect_eigens(corda_module.CordaEigens)),
        (eva, "IncrementalPCA", lambda old: IncrementalPCA),
    ]
    with _rebind.rebound("peft", TESTED, names):
        yield
