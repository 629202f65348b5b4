"""Eigenvalues and eigenvectors of symmetric matrices, over any array namespace."""

from __future__ import annotations

from typing import Any

from .._errors import InvalidArgument
from ._arrays import Array, check_matrix, eigenvalues_descending, eigh_descending, place_of


def eigen_symmetric(A: Array, lower: bool, vectors: bool) -> dict[str, Any]:
    """The symmetric matrix whose lower (or upper) triangle is that of A (n, n); the other triangle is not read.

    Returns
    -------
    dict
        values (n,), ascending, float64 on the host; with `vectors` also vectors (n, n), in columns, in the dtype of A.
    """
    xp, _ = place_of("A", A)
    if A.ndim != 2 or A.shape[0] != A.shape[1]:
        raise InvalidArgument("A", f"must be square, has shape {tuple(A.shape)}")
    triangle = xp.tril(A) if lower else xp.triu(A)
    check_matrix("A", triangle)
    strict = xp.tril(A, k=-1) if lower else xp.triu(A, k=1)
    S = triangle + xp.matrix_transpose(strict)
    if not vectors:
        return {"values": eigenvalues_descending(S)[::-1].astype("float64")}
    w, V = eigh_descending(S)
    return {"values": w[::-1].astype("float64"), "vectors": xp.flip(V, axis=1)}
