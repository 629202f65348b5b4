"""GaLore's projector: the leading singular vectors of a gradient alone, where the tool computes all and keeps `rank`.

Contract: galore-torch 1.0 (jiaweizzhao/GaLore) ``galore_torch/galore_projector.py`` ``GaLoreProjector``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from .. import _options
from .._errors import InvalidArgument
from .._svd import svd
from . import _hooks, _rebind

__all__ = ["accelerated", "get_orthogonal_matrix"]

TESTED = "1.0"


def get_orthogonal_matrix(weights: Any, rank: int, type: str) -> Any:
    """The projection of a gradient: its `rank` leading right or left singular vectors, or both.

    Parameters
    ----------
    weights : torch.Tensor (m, n)
        The gradient; float16 and bfloat16 are computed with in float32.
    rank : int
        Number of vectors; beyond min(m, n) there are none.
    type : {"right", "left", "full"}
        Vᵀ (rank, n), U (m, rank), or the list of U and Vᵀ.

    Returns
    -------
    vectors : torch.Tensor or list of two
        In the dtype and on the device of the gradient. The largest entry of each row of Vᵀ is positive.

    Raises
    ------
    InvalidArgument
        An unknown `type`, or a rank below 1.
    NonFinite, InvalidType, NotConverged
        As `brockett.svd`; gradients that are NaN are named so before LAPACK fails on them.

    Notes
    -----
    The cost of `brockett.svd`.

    References
    ----------
    J. Zhao et al., GaLore, ICML 2024 (arXiv 2403.03507).

    Examples
    --------
    >>> import torch
    >>> from brockett.integrations import galore
    >>> galore.get_orthogonal_matrix(torch.diag(torch.tensor([1.0, 2.0])), 1, "right").abs().round().tolist()
    [[0.0, 1.0]]
    """
    if type not in ("right", "left", "full"):
        raise InvalidArgument("type", f"should be left, right or full, got {type!r}")
    matrix = weights.detach()
    if matrix.ndim != 2:
        raise InvalidArgument("weights", f"expected a matrix (2 axes), got shape {tuple(matrix.shape)}")
    kept = min(_options.count("rank", rank, least=1), *matrix.shape)
    U, _, Vt = svd(matrix, rank=kept)
    left, right = _hooks.cast(U, weights.dtype), _hooks.cast(Vt, weights.dtype)
    return {"left": left, "right": right, "full": [left, right]}[type]


@contextlib.contextmanager
def accelerated(projector: Any = None) -> Iterator[None]:
    """Inside the block, projectors take their vectors from `get_orthogonal_matrix`.

    Parameters
    ----------
    projector : class, optional
        With a method ``get_orthogonal_matrix(weights, rank, type)``; ``GaLoreProjector`` of
        ``galore_torch.galore_projector`` by default.

    Yields
    ------
    None

    Raises
    ------
    Unsupported
        GaLore is not installed (an ImportError, too), or the name is not where the version tested has it.

    Notes
    -----
    The method is bound anew for all threads, and to the old one at the end, on exceptions too. A projector that
    quantizes its vectors (`proj_quant`, in versions after 1.0) keeps its own.

    Examples
    --------
    >>> import torch
    >>> from brockett.integrations import galore
    >>> class Projector:
    ...     def get_orthogonal_matrix(self, weights, rank, type): ...
    >>> with galore.accelerated(Projector):
    ...     tuple(Projector().get_orthogonal_matrix(torch.eye(3), 2, "left").shape)
    (3, 2)
    """

    def make(old: Any) -> Any:
        def method(self: Any, weights: Any, rank: int, type: str) -> Any:
            if getattr(self, "proj_quant", False):  # quantizes what it keeps, and keeps what it quantizes
                return old(self, weights, rank, type)
            found = get_orthogonal_matrix(weights, rank, type)
            if type != "full" and hasattr(self, "proj_quant"):  # later versions keep the matrix themselves
                self.ortho_matrix = found
            return found

        return method

    if projector is None:
        module = _rebind.import_tool("galore-torch", TESTED, "galore_torch.galore_projector")
        if not hasattr(module, "GaLoreProjector"):
            raise _rebind.moved("galore-torch", TESTED, "galore_torch.galore_projector.GaLoreProjector")
        projector = module.GaLoreProjector
    with _rebind.rebound("galore-torch", TESTED, [(projector, "get_orthogonal_matrix", make)]):
        yield
