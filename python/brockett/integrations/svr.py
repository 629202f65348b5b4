"""The singular value representation of github.com/danmlr/svr on brockett.

>>> import brockett as bk
>>> callable(bk.integrations.svr.svr_class)
True

Its class computes every decomposition in one method, which a subclass replaces::

    from svr import SVR
    fast = bk.integrations.svr.svr_class(SVR)
    representation = fast(weights, max_dim_svd=128)

`brockett.spectral_graph` is the same representation as a function of its own, with significance, exports and any graph
of layers; this is for programs that use the class.
"""

from __future__ import annotations

import inspect
from typing import Any

from .. import _svd
from .._errors import InvalidType, Unsupported

__all__ = ["svr_class"]


def svr_class(SVR: type[Any]) -> type[Any]:
    """A subclass of SVR whose singular value decompositions are brockett's.

    Parameters
    ----------
    SVR : type
        The class of svr.py, or one with its contract: a method `svd(self, A)` that returns u, s, v of a tensor A
        (m, n), A ≈ u diag(s) vᵀ (v, not its transpose), s descending; and an attribute `max_dim_svd`, the number of
        triplets that are wanted of larger matrices.

    Returns
    -------
    subclass : type
        Of the same name. `svd` returns tensors in the dtype of A (float32 for half types), on its device.

    Raises
    ------
    InvalidType
        Something else than a class.
    Unsupported
        A class without a method `svd(self, A)`.

    Notes
    -----
    `brockett.svd`: where min(m, n) > max_dim_svd, the cheapest of the block Krylov method (4 m n flops a vector, about
    6 max_dim_svd of them) and the eigenvectors of a Gram matrix take the place of ARPACK, whose products with one
    vector at a time are bound by memory. The residual is at most 1e-6 σ₁.

    svr.py of 2023 fails with SciPy 1.17 and later at such a layer (torch.tensor of an array with a negative stride);
    the subclass does not.

    Examples
    --------
    >>> import brockett as bk
    >>> class SVR:
    ...     max_dim_svd = 2
    ...
    ...     def svd(self, A):
    ...         raise NotImplementedError
    >>> import torch
    >>> u, s, v = bk.integrations.svr.svr_class(SVR)().svd(torch.diag(torch.tensor([1.0, 3.0, 2.0])))
    >>> s.tolist(), tuple(v.shape)
    ([3.0, 2.0], (3, 2))
    """
    if not isinstance(SVR, type):
        raise InvalidType("SVR", f"expected a class, got {SVR!r}")
    method = inspect.getattr_static(SVR, "svd", None)
    if not inspect.isfunction(method) or len(inspect.signature(method).parameters) != 2:
        raise Unsupported(
            f"{SVR.__module__}.{SVR.__qualname__} has no method svd(self, A); "
            "this adapter was made for danmlr/svr of 2023"
        )

    def svd(self: Any, A: Any) -> tuple[Any, Any, Any]:
        k = min(A.shape)
        U, s, Vt = _svd.svd(A.detach(), rank=min(k, int(self.max_dim_svd)))
        return U, s.to(U.dtype), Vt.mT

    return type(SVR.__name__, (SVR,), {"svd": svd, "__doc__": SVR.__doc__, "__module__": SVR.__module__})
