"""SliceGPT's principal components: `pca_calc` with the second moments summed by symmetric updates in float64.

Contract: microsoft/TransformerCompression ``src/slicegpt/rotate.py`` ``pca_calc`` (main at 09bc68d, 2024).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from .._autocorrelation import Autocorrelation
from .._errors import InvalidArgument, InvalidType, NonFinite
from . import _hooks, _rebind

__all__ = ["accelerated", "pca_calc"]

TESTED = "main at 09bc68d"


def pca_calc(X: Iterable[Any], ignore_masks: Sequence[Any] | None = None, *, damp: float = 0.01) -> tuple[Any, Any]:
    """Eigenvalues and eigenvectors of Σ x xᵀ + damp · mean(diag) I over batches of a layer's signals.

    Parameters
    ----------
    X : iterable of torch.Tensor (n, n_tokens, n_features)
        Batches; any floats, any number of leading axes. Not changed (SliceGPT sets masked tokens to zero in place).
    ignore_masks : sequence of torch.Tensor (n, n_tokens), optional
        Attention masks: tokens where one is 0 do not count.
    damp : float, default 0.01
        Share of the mean of the diagonal that is added to it.

    Returns
    -------
    eig_val : torch.Tensor (n_features,), float64
        Descending.
    eigen_vec : torch.Tensor (n_features, n_features), float64
        In columns, on the device of the batches; the largest entry of each is positive.

    Raises
    ------
    InvalidArgument
        No batch, no token that counts, batches of different widths, or fewer masks than batches.
    NonFinite
        A NaN or Inf; the message says in which batch.
    InvalidType
        A batch is not a tensor.

    Notes
    -----
    n_tokens n_features² + 9 n_features³ flops; one batch is held at a time.

    References
    ----------
    S. Ashkboos et al., SliceGPT, ICLR 2024 (arXiv 2401.15024), section 3.3.

    Examples
    --------
    >>> import torch
    >>> from brockett.integrations import slicegpt
    >>> values, vectors = slicegpt.pca_calc([torch.tensor([[[1.0, 0.0], [0.0, 3.0]]])])
    >>> values.tolist(), vectors.tolist()
    ([9.05, 1.05], [[0.0, 1.0], [1.0, 0.0]])
    """
    import torch

    acc: Autocorrelation | None = None
    for i, batch in enumerate(X):
        where = f"X[{i}]"
        if not isinstance(batch, torch.Tensor) or batch.ndim < 2:
            raise InvalidType(where, f"expected a torch.Tensor (n, n_tokens, n_features), got {_described(batch)}")
        if ignore_masks is not None and i >= len(ignore_masks):
            raise InvalidArgument("ignore_masks", f"expected one for each batch, got {len(ignore_masks)}")
        mask = None if ignore_masks is None else ignore_masks[i].to(batch.device) != 0
        acc = acc or Autocorrelation(int(batch.shape[-1]))
        try:
            acc.update(batch.detach(), mask=mask)
        except NonFinite as error:
            raise NonFinite(where, error.index) from error
        except InvalidArgument as error:
            argument = f"ignore_masks[{i}]" if error.argument == "mask" else where
            raise type(error)(argument, error.message) from error
    if acc is None or acc.n_samples == 0:
        raise InvalidArgument("X", "holds no batch" if acc is None else "holds no token that counts")
    H = _hooks.total(acc)
    H.diagonal().add_(damp * H.diagonal().mean())
    values, vectors = torch.linalg.eigh(H)
    values, vectors = values.flip(0), vectors.flip(1)
    largest = vectors.gather(0, vectors.abs().argmax(dim=0, keepdim=True))
    return values, vectors * largest.sign()


def _described(value: Any) -> str:
    return f"shape {tuple(value.shape)}" if hasattr(value, "shape") else type(value).__name__


@contextlib.contextmanager
def accelerated(module: Any = None) -> Iterator[None]:
    """Inside the block, `slicegpt.rotate.pca_calc` is `pca_calc` of this module.

    Parameters
    ----------
    module : module, optional
        Where the name is: ``slicegpt.rotate`` by default.

    Yields
    ------
    None

    Raises
    ------
    Unsupported
        SliceGPT is not installed (an ImportError, too), or the name is not where the version tested has it.

    Notes
    -----
    The name is bound anew for all threads, and to the old value at the end, on exceptions too.

    Examples
    --------
    >>> import types
    >>> from brockett.integrations import slicegpt
    >>> rotate = types.SimpleNamespace(pca_calc=None)
    >>> with slicegpt.accelerated(rotate):
    ...     rotate.pca_calc is slicegpt.pca_calc
    True
    """
    owner = _rebind.import_tool("slicegpt", TESTED, "slicegpt.rotate") if module is None else module
    with _rebind.rebound("slicegpt", TESTED, [(owner, "pca_calc", lambda old: pca_calc)]):
        yield
