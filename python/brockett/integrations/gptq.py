"""The Hessian of GPTQ and its kin (GPTQ, AutoGPTQ, GPTQModel, llm-compressor, SparseGPT), H = 2/n Σ x xᵀ.

The products are summed by a symmetric rank-k update in float64 where the tools multiply in float32: the same time, half
the flops, and no digits lost. What a tool does with H afterwards (dead columns, damping, Cholesky) is left to it.

Contracts: IST-DASLab/gptq ``gptq.py`` ``GPTQ.add_batch`` (main, 2024; AutoGPTQ 0.7.1 has the same text);
vllm-project/llm-compressor 0.14.0.1 ``modifiers/gptq/helpers.py`` and ``modifiers/pruning/sparsegpt/sgpt_sparsify.py``
``accumulate_hessian``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from .._errors import InvalidArgument, InvalidType, Unsupported
from . import _hooks, _rebind

__all__ = ["Hessian", "accelerated", "accumulate_hessian", "add_batch"]

TESTED = "0.14.0.1"
_MODULES = ("llmcompressor.modifiers.gptq.base", "llmcompressor.modifiers.pruning.sparsegpt.base")


class Hessian:
    """H = 2/n Σ x xᵀ of a layer's inputs, in float64 from batch to batch.

    Parameters
    ----------
    layer : torch.nn.Linear, Conv1d, Conv2d or transformers' Conv1D
        Whose inputs are added. A convolution's are its patches, in the order of ``torch.nn.Unfold``.
    name : str, optional
        Of the layer, for messages.
    precision : {"double", "single"}, default "double"
        Of the products, as in `brockett.Autocorrelation`; "single" halves the time. Convolutions are always "double".

    Attributes
    ----------
    nsamples : int
        n: entries of the first axis of the batches (sequences, images), not tokens. A batch of two axes is one
        sequence.

    Raises
    ------
    Unsupported
        Another kind of layer, or a grouped convolution.

    Notes
    -----
    n_tokens n_features² flops a batch, 8 n_features² bytes.

    References
    ----------
    E. Frantar et al., GPTQ, ICLR 2023 (arXiv 2210.17323), section 3.

    Examples
    --------
    >>> import torch
    >>> from brockett.integrations import gptq
    >>> hessian = gptq.Hessian(torch.nn.Linear(2, 1))
    >>> hessian.add_batch(torch.tensor([[[1.0, 0.0], [3.0, 0.0]]]))
    >>> hessian.H.tolist(), hessian.nsamples
    ([[20.0, 0.0], [0.0, 0.0]], 1)
    """

    def __init__(self, layer: Any, name: str | None = None, precision: str = "double") -> None:
        import torch

        self.layer, self.name, self._precision = layer, name, precision
        self.nsamples = 0
        self._total = torch.zeros(0, dtype=torch.float64)

    def add_batch(self, inp: Any, out: Any = None, mask: Any = None) -> None:
        """Add the inputs of one call of the layer.

        Parameters
        ----------
        inp : torch.Tensor (n, n_tokens, n_features), (n_tokens, n_features) or (n, channels, height, width)
            float16, bfloat16, float32 or float64.
        out : object, optional
            Taken for compatibility, not used.
        mask : torch.Tensor of bool (n, n_tokens), optional
            True for the tokens (of a convolution: the images) to take. Padding counts without it.

        Raises
        ------
        NonFinite, InvalidArgument, InvalidType
            Named after the layer; nothing was added.
        """
        import torch

        acc = _hooks.moments_of_inputs(self.layer, inp, mask, self.name, self._precision)
        # What is made under torch.inference_mode could not be added to outside of it.
        with torch.inference_mode(False), torch.no_grad():
            if self.nsamples == 0:
                self._total = _hooks.total(acc)
            elif acc.n_samples:
                self._total.add_(acc.matrix(), alpha=acc.weight)
        self.nsamples += _n_added(self.layer, inp)

    def matrix(self) -> Any:
        """H in float64.

        Returns
        -------
        H : torch.Tensor (n_features, n_features), float64

        Raises
        ------
        InvalidArgument
            No batch was added.
        """
        if self.nsamples == 0:
            raise InvalidArgument("Hessian", "holds no batch yet")
        return self._total * (2.0 / self.nsamples)

    @property
    def H(self) -> Any:
        """The same in float32, as the tools keep it."""
        import torch

        return self.matrix().to(torch.float32)


def add_batch(self: Any, inp: Any, out: Any = None) -> None:
    """`GPTQ.add_batch`: H ← H n/(n + b) + 2/(n + b) Σ x xᵀ in place, n ← n + b.

    Parameters
    ----------
    self : GPTQ
        Any object with `layer`, `H` (n_features, n_features) and `nsamples`, as IST-DASLab's and AutoGPTQ's have.
    inp : torch.Tensor
        As in `Hessian.add_batch`.
    out : object, optional
        Not used.

    Raises
    ------
    NonFinite, InvalidArgument, InvalidType, Unsupported
        Named after the layer; H and nsamples stay as they were.

    Notes
    -----
    n_tokens n_features² flops, in float64; H keeps its own dtype.

    Examples
    --------
    >>> import torch, types
    >>> from brockett.integrations import gptq
    >>> state = types.SimpleNamespace(layer=torch.nn.Linear(1, 1), H=torch.zeros(1, 1), nsamples=0)
    >>> gptq.add_batch(state, torch.tensor([[[3.0]], [[1.0]]]))
    >>> state.H.tolist(), state.nsamples
    ([[10.0]], 2)
    """
    _, self.nsamples = accumulate_hessian(inp, self.layer, self.H, self.nsamples, name=getattr(self, "name", None))


def accumulate_hessian(
    inp: Any,
    module: Any,
    H: Any,
    num_samples: Any,
    *,
    normalized: bool = True,
    name: str | None = None,
    precision: str = "double",
) -> tuple[Any, Any]:
    """llm-compressor's and SparseGPT's `accumulate_hessian`: one batch of a layer's inputs into H, in place.

    Parameters
    ----------
    inp : torch.Tensor
        As in `Hessian.add_batch`.
    module : torch.nn.Module
        The layer.
    H : torch.Tensor (n_features, n_features)
        Changed in place; pass float64 to lose nothing between batches. One made under ``torch.inference_mode`` can be
        changed inside that mode only.
    num_samples : int or torch.Tensor
        n before this batch; a tensor is changed in place.
    normalized : bool, default True
        True: H = 2/n Σ x xᵀ (GPTQ, SparseGPT, llm-compressor's GPTQ before 0.10). False: 2 Σ x xᵀ, which the caller
        divides by n (llm-compressor's GPTQ since).
    name : str, optional
        Of the layer, for messages.
    precision : {"double", "single"}, default "double"
        Of the products.

    Returns
    -------
    H : torch.Tensor
        The one that came.
    num_samples : int or torch.Tensor
        n with this batch.

    Raises
    ------
    NonFinite, InvalidArgument, InvalidType, Unsupported
        Named after the layer; H and num_samples stay as they were.

    Notes
    -----
    n_tokens n_features² flops.

    Examples
    --------
    >>> import torch
    >>> from brockett.integrations import gptq
    >>> H, n = gptq.accumulate_hessian(torch.tensor([[[3.0]]]), torch.nn.Linear(1, 1), torch.zeros(1, 1), 0)
    >>> H.tolist(), n
    ([[18.0]], 1)
    """
    import torch

    where = _hooks.layer_argument(module, name)
    if not isinstance(H, torch.Tensor) or not H.is_floating_point() or H.ndim != 2:
        raise InvalidType("H", f"expected a square matrix of floats (torch.Tensor), got {_described(H)}")
    for argument, tensor in (("H", H), ("num_samples", num_samples)):
        if isinstance(tensor, torch.Tensor) and tensor.is_inference() and not torch.is_inference_mode_enabled():
            raise InvalidArgument(
                argument,
                "was made under torch.inference_mode and is to be changed in place: call inside that mode, or pass a "
                "clone made outside of it",
            )
    moved = inp.to(H.device) if isinstance(inp, torch.Tensor) else inp
    acc = _hooks.moments_of_inputs(module, moved, None, name, precision)
    if tuple(H.shape) != (acc.n_features, acc.n_features):
        raise InvalidArgument("H", f"{where} has {acc.n_features} features, H is of shape {tuple(H.shape)}")
    added = _n_added(module, inp)
    n = int(num_samples) + added
    with torch.no_grad():
        if normalized and added:  # a batch of no sequences changes nothing, a first one included
            H *= int(num_samples) / n
        if acc.n_samples:  # rounded before it is added: a sum of two types takes PyTorch four times as long
            H.add_(acc.matrix().to(H.dtype), alpha=2.0 * acc.weight / (n if normalized else 1))
        num_samples += added
    return H, num_samples


def _n_added(layer: Any, inp: Any) -> int:
    """What the tools count: the first axis, and one where there is none for the batch."""
    import torch

    axes = {torch.nn.Conv2d: 4, torch.nn.Conv1d: 3}
    full = next((n for kind, n in axes.items() if isinstance(layer, kind)), 3)
    return int(inp.shape[0]) if inp.ndim >= full else 1


def _described(value: Any) -> str:
    return f"{value.dtype} of shape {tuple(value.shape)}" if hasattr(value, "shape") else type(value).__name__


@contextlib.contextmanager
def accelerated(target: Any = None, precision: str = "double") -> Iterator[None]:
    """Inside the block, a tool's Hessians are summed by brockett.

    Parameters
    ----------
    target : class, module or None
        A class with `add_batch` (``GPTQ``), a module with `accumulate_hessian`, or None for llm-compressor's GPTQ and
        SparseGPT modifiers.
    precision : {"double", "single"}, default "double"
        Of the products.

    Yields
    ------
    None

    Raises
    ------
    Unsupported
        llm-compressor is not installed (an ImportError, too), the names are not where the version tested has them, or
        `target` has neither.

    Notes
    -----
    The name is bound anew for all threads, and to the old value at the end, on exceptions too. Whether a tool's
    `accumulate_hessian` divides by n is found out by calling it once with a layer of one weight.

    Examples
    --------
    >>> import torch
    >>> from brockett.integrations import gptq
    >>> class GPTQ:
    ...     def __init__(self, layer):
    ...         self.layer, self.H, self.nsamples = layer, torch.zeros(1, 1), 0
    ...     def add_batch(self, inp, out): ...
    >>> with gptq.accelerated(GPTQ):
    ...     one = GPTQ(torch.nn.Linear(1, 1))
    ...     one.add_batch(torch.ones(1, 2, 1), None)
    >>> one.H.tolist()
    [[4.0]]
    """
    if isinstance(target, type):

        def method(self: Any, inp: Any, out: Any = None) -> None:
            label = getattr(self, "name", None)
            _, self.nsamples = accumulate_hessian(
                inp, self.layer, self.H, self.nsamples, name=label, precision=precision
            )

        if not hasattr(target, "add_batch"):
            raise Unsupported(f"{target.__module__}.{target.__qualname__} has no add_batch(inp, out) to be replaced")
        with _rebind.rebound(target.__module__, TESTED, [(target, "add_batch", lambda old: method)]):
            yield
        return
    modules = [target] if target is not None else [_rebind.import_tool("llmcompressor", TESTED, m) for m in _MODULES]
    names = [(module, "accumulate_hessian", _taking_over(precision)) for module in modules]
    with _rebind.rebound("llmcompressor", TESTED, names):
        yield


def _taking_over(precision: str) -> Any:
    def make(original: Any) -> Any:
        normalized = _divides(original)

        def accumulate(inp: Any, module: Any, H: Any, num_samples: Any) -> tuple[Any, Any]:
            return accumulate_hessian(inp, module, H, num_samples, normalized=normalized, precision=precision)

        return accumulate

    return make


def _divides(original: Any) -> bool:
    """Whether a tool's function keeps the mean (two batches of one 1 each: 2) or the sum (4)."""
    import torch

    layer, one = torch.nn.Linear(1, 1), torch.ones(1, 1, 1)
    H, n = torch.zeros(1, 1), torch.zeros(())
    for _ in range(2):
        H, n = original(one, layer, H, n)
    value = round(float(H), 4)
    if value not in (2.0, 4.0) or int(n) != 2:
        raise Unsupported(
            f"accumulate_hessian gives {value} for two samples x = 1: neither 2, twice the mean of x², nor 4, twice "
            f"the sum; brockett is tested with llmcompressor {TESTED}"
        )
    return value == 2.0
