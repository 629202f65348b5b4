"""mergekit's LoRA extraction: the leading triplets of a weight difference, where the tool computes all and keeps a few.

Contract: arcee-ai/mergekit ``mergekit/scripts/extract_lora.py``: ``low_rank_decomposition`` (main at 00243ac, 2024;
0.0.5 on PyPI), which 0.1 has as ``TaskVectorDecompositionTask.execute``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from .. import _options
from .._errors import InvalidArgument
from .._svd import svd
from . import _hooks, _rebind

__all__ = ["accelerated", "low_rank_decomposition"]

TESTED = "0.0.5"


def low_rank_decomposition(weight: Any, max_rank: int) -> tuple[Any, Any]:
    """L = √S Vᵀ and R = U √S with R L the best approximation of rank `max_rank`.

    Parameters
    ----------
    weight : torch.Tensor (m, n)
        float16, bfloat16, float32 or float64.
    max_rank : int
        r; beyond min(m, n) it is that.

    Returns
    -------
    L : torch.Tensor (r, n)
    R : torch.Tensor (m, r)
        In the dtype and on the device of the weight.

    Raises
    ------
    InvalidArgument
        Not a matrix, or a rank below 1.
    NonFinite, InvalidType, NotConverged
        As `brockett.svd`.

    Notes
    -----
    The cost of `brockett.svd`.

    Examples
    --------
    >>> import torch
    >>> from brockett.integrations import mergekit
    >>> L, R = mergekit.low_rank_decomposition(torch.diag(torch.tensor([4.0, 1.0])), 1)
    >>> (R @ L).round(decimals=5).tolist()
    [[4.0, 0.0], [0.0, 0.0]]
    """
    matrix = weight.detach()
    if matrix.ndim != 2:
        raise InvalidArgument("weight", f"expected a matrix (2 axes), got shape {tuple(matrix.shape)}")
    U, s, Vt = svd(matrix, rank=min(_options.count("max_rank", max_rank, least=1), *matrix.shape))
    root = s**0.5
    return _hooks.cast(root[:, None] * Vt, weight.dtype), _hooks.cast(U * root, weight.dtype)


@contextlib.contextmanager
def accelerated(module: Any = None) -> Iterator[None]:
    """Inside the block, `low_rank_decomposition` of mergekit's script is that of this module.

    Parameters
    ----------
    module : module, optional
        Where the name is: ``mergekit.scripts.extract_lora`` by default.

    Yields
    ------
    None

    Raises
    ------
    Unsupported
        mergekit is not installed (an ImportError, too), or the name is not where the version tested has it, as from 0.1
        on.

    Notes
    -----
    The name is bound anew for all threads, and to the old value at the end, on exceptions too.

    Examples
    --------
    >>> import types
    >>> from brockett.integrations import mergekit
    >>> script = types.SimpleNamespace(low_rank_decomposition=None)
    >>> with mergekit.accelerated(script):
    ...     script.low_rank_decomposition is mergekit.low_rank_decomposition
    True
    """
    owner = _rebind.import_tool("mergekit", TESTED, "mergekit.scripts.extract_lora") if module is None else module
    with _rebind.rebound("mergekit", TESTED, [(owner, "low_rank_decomposition", lambda old: low_rank_decomposition)]):
        yield
