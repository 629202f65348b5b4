"""Eigenvalues and eigenvectors of symmetric matrices. What `accelerate` hands other libraries' calls to."""

from __future__ import annotations

from typing import Any

from . import _arrays, _options
from ._errors import InvalidArgument

__all__ = ["eigh"]


def eigh(A: Any, *, lower: bool = True, vectors: bool = True) -> tuple[Any, Any]:
    """A = V diag(w) Vᵀ of a symmetric matrix.

    Parameters
    ----------
    A : array_like (n, n)
        Its lower triangle is read, with `lower` False the upper one; the other may hold anything.
    lower : bool, default True
    vectors : bool, default True
        Also compute the eigenvectors.

    Returns
    -------
    w : array (n,), float64
        Ascending, in the library and on the device of A.
    V : array (n, n) or None
        Eigenvectors in columns, in the dtype of A.

    Raises
    ------
    InvalidArgument
        A is not square, or empty.
    NonFinite
        A NaN or Inf in the triangle that is read.
    InvalidType, NotConverged
        As `svd`.

    Notes
    -----
    9 n³ flops with vectors (LAPACK syevd), 4/3 n³ without, of which from n = 2200 on most are products (two-stage
    reduction, where LAPACK has it).
    """
    operand = _arrays.matrix(_arrays.accept(A, "A"))
    if operand.array.shape[0] != operand.array.shape[1]:
        raise InvalidArgument("A", f"expected a square matrix, got shape {operand.shape}")
    low, wanted = _options.flag("lower", lower), _options.flag("vectors", vectors)
    space = operand.space
    with _arrays.user_errors(operand):
        found = space.engine("A").module.eigen_symmetric(operand.array, low, wanted)
    return space.back(found["values"]), space.back(found["vectors"]) if wanted else None
