"""The Brockett cost η(P) = tr(A P C Pᵀ), through the eigenbasis T of the penalty and never as a trace of products.

With Q = Tᵀ P: η = Σ λ_i E[(Q y)_i²], a sum of terms ≥ 0. In tr(A P C Pᵀ) large terms cancel: it is off by ε (n/2)⁴ σ₁².
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._errors import InvalidArgument
from ._arrays import (
    Array,
    Host,
    check_matrix,
    exponent,
    float64,
    max_abs,
    place_of,
    quiet,
    same_place,
    shift,
    symmetric,
    to_device,
    to_host,
)
from .penalty import Spec, spectrum
from .preactivations import Preactivations


def energies(y: Preactivations, Q: Array) -> Host:
    """E[(Q y)_i²] (n,), on the host: from the samples where there are any, from a square root of C, or from C."""
    xp = y.xp
    Qt = xp.matrix_transpose(Q)
    if y.samples is not None:
        total = np.zeros(y.n)
        for block in y.samples():
            total += to_host(xp.sum((block @ Qt) ** 2, axis=0))
        return total / y.n_samples
    if y.F is not None:
        return to_host(xp.sum((Q @ y.F) ** 2, axis=1))
    return to_host(xp.sum((Q @ y.C) * Q, axis=1))


def scaled_back(name: str, value: float, e: int) -> float:
    """value 2ᵉ, refused where it leaves float64."""
    with quiet():
        out = float(np.ldexp(value, e))
    if not np.isfinite(out):
        raise InvalidArgument(name, f"a cost of {value:.3g} 2^{e} overflows float64; rescale the data")
    return out


def brockett_cost(P: Array, C: Array, penalty: Spec) -> dict[str, Any]:
    """Value tr(A P C Pᵀ) and Euclidean gradient 2 A P C of the Brockett cost at any P (n, n), orthogonal or not.

    Parameters
    ----------
    P : array (n, n)
    C : array (n, n), symmetric
    penalty : dict
    """
    place_of("P", P)
    xp, place = same_place("C", C, P, "P")
    check_matrix("P", P)
    n = P.shape[0]
    check_matrix("P", P, (n, n))
    C = symmetric("C", float64(C), n)
    lam = spectrum(penalty, n)
    T = to_device(lam.basis, xp, place)
    p, c = exponent(max_abs(P)), exponent(max_abs(C))
    # Q = Tᵀ P; value Σ λ_i (Q C Qᵀ)_ii; gradient 2 T diag(λ) Q C
    Q = xp.matrix_transpose(T) @ shift(float64(P), -p)
    QC = Q @ shift(C, -c)
    value = float(np.sum(lam.values * to_host(xp.sum(QC * Q, axis=1))))
    gradient = T @ (to_device(2 * lam.values, xp, place)[:, None] * QC)
    return {"value": scaled_back("C", value, 2 * p + c), "gradient": shift(gradient, p + c)}
