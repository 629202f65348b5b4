"""The quadratic penalty xᵀ A x on the outputs x of a layer of n neurons: eigenvalues, eigenvectors T, matrix.

A penalty is a plain dict (the façade's classes make them):

=====================================================  ===============================================================
kind                                                   eigenvalues λ of A, eigenvectors
=====================================================  ===============================================================
``fourier``: order p                                   k^(2p); real Fourier modes, k = 0, 1, 1, 2, 2, … [, n/2]
``difference``: order p, boundary "periodic"           (4 sin²(πk/n))^p; the same modes
``difference``: order p, boundary "neumann"            (4 sin²(πk/2n))^p, k = 0 … n-1; DCT-II
``grid``: shape, order p, boundary "periodic"          (Σ k_a²)^p over the axes a; Kronecker products of Fourier modes
``grid``: shape, order p, boundary "neumann"           (Σ (πk_a/n_a)²)^p; Kronecker products of DCT-II
``matrix``: A, power q, laplacian                      those of A^q, by an eigensolver; each vector's largest entry > 0
=====================================================  ===============================================================

Everything here is of size n or n² and known before any data are: NumPy, float64, on the host.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._errors import InvalidArgument
from ._arrays import TIE, Host, check_count, choose, eigh_descending, quiet, signs_of_largest, symmetric

Spec = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Spectrum:
    """A = T diag(values) Tᵀ, values ascending; block b of equal ones is values[blocks[b]:blocks[b+1]]."""

    values: Host  # (n,)
    basis: Host  # (n, n), in columns
    blocks: list[int]  # n_blocks + 1 offsets
    circulant: bool = False  # A_ij depends on (j - i) mod n alone


def spectrum(spec: Spec, n: int) -> Spectrum:
    """Eigenvalues, eigenvectors and blocks of equal eigenvalues of the penalty `spec` on n neurons."""
    check_count("n", n, 1)
    kind = choose("penalty", spec["kind"], tuple(_SPECTRA))
    try:
        found = _SPECTRA[kind](spec, n)
    except OverflowError as error:
        raise InvalidArgument("penalty", f"its eigenvalues overflow float64 at n = {n}") from error
    if not np.isfinite(found.values).all():
        raise InvalidArgument("penalty", f"its eigenvalues overflow float64 at n = {n}")
    return found


def penalty_eigenvalues(spec: Spec, n: int) -> Host:
    """Eigenvalues of A (n,), ascending; exact for the closed forms."""
    return spectrum(spec, n).values


def penalty_basis(spec: Spec, n: int) -> Host:
    """Orthonormal eigenvectors T (n, n) of A, in columns, in the order of `penalty_eigenvalues`."""
    return spectrum(spec, n).basis


def penalty_matrix(spec: Spec, n: int) -> Host:
    """A (n, n) = T diag(λ) Tᵀ."""
    s = spectrum(spec, n)  # refuses what overflows
    if spec["kind"] == "matrix":
        A: Host = np.linalg.matrix_power(_matrix_of(spec, n), _power_of(spec))
    else:
        A = (s.basis * s.values) @ s.basis.T
    return np.asarray(A / 2 + A.T / 2)


def _blocks(values: Host, tolerance: float | Host = 0.0) -> list[int]:
    # offsets of the runs of neighbours that differ by at most the tolerance
    cuts = np.flatnonzero(np.diff(values) > tolerance) + 1
    return [0, *cuts.tolist(), values.size]


# --- bases ------------------------------------------------------------------------------------------------------------


def _frequencies(n: int) -> list[int]:
    """k of each real Fourier mode: 0, 1, 1, 2, 2, … and n/2 once for even n."""
    return [(j + 1) // 2 for j in range(n)]


def fourier_basis(n: int) -> Host:
    """Real Fourier modes in columns: 1/√n; √(2/n) cos(2πkj/n), √(2/n) sin(2πkj/n); (-1)ʲ/√n last for even n."""
    k, j = np.asarray(_frequencies(n)), np.arange(n)
    # kj mod n first: the angle is then good to a rounding for every k
    angle = 2 * np.pi * (np.outer(j, k) % n) / n
    sine = np.arange(n) % 2 == 0
    T = np.where(sine, np.sin(angle), np.cos(angle)) * math.sqrt(2 / n)
    T[:, 0] = 1 / math.sqrt(n)
    if n % 2 == 0:
        T[:, -1] = (1 - 2 * (j % 2)) / math.sqrt(n)
    return T


def dct_basis(n: int) -> Host:
    """DCT-II in columns: √(1/n); √(2/n) cos(πk(j + 1/2)/n)."""
    k, j = np.arange(n), np.arange(n)
    angle = np.pi * (np.outer(2 * j + 1, k) % (4 * n)) / (2 * n)
    T = np.cos(angle) * math.sqrt(2 / n)
    T[:, 0] = 1 / math.sqrt(n)
    return T


# --- the kinds --------------------------------------------------------------------------------------------------------


def _order_of(spec: Spec) -> float:
    order = float(spec["order"])
    if not 0 <= order < math.inf:
        raise InvalidArgument("order", f"must be finite and ≥ 0, is {order}")
    return order


def _power(base: float, p: float) -> float:
    # whole powers of whole numbers are exact in Python's integers
    if base == int(base) and p == int(p):
        return float(int(base) ** int(p))
    return float(math.pow(base, p))


def _is_periodic(spec: Spec) -> bool:
    return choose("boundary", spec["boundary"], ("periodic", "neumann")) == "periodic"


def _fourier(spec: Spec, n: int) -> Spectrum:
    p = 2 * _order_of(spec)
    values = np.array([_power(k, p) for k in _frequencies(n)])
    return Spectrum(values, fourier_basis(n), _blocks(values), circulant=True)


def _difference(spec: Spec, n: int) -> Spectrum:
    p = _order_of(spec)
    if p < 1 or p != int(p):
        raise InvalidArgument("order", f"must be a whole number ≥ 1, is {p}")
    periodic = _is_periodic(spec)
    k, period = (_frequencies(n), n) if periodic else (list(range(n)), 2 * n)
    # sine and cosine of one frequency have one eigenvalue, to the last bit
    values = np.array([_power(4 * math.sin(math.pi * i / period) ** 2, p) for i in k])
    return Spectrum(values, fourier_basis(n) if periodic else dct_basis(n), _blocks(values), circulant=periodic)


def _grid(spec: Spec, n: int) -> Spectrum:
    shape = tuple(spec["shape"])
    p, periodic = _order_of(spec), _is_periodic(spec)
    if not shape or min(shape) < 1:
        raise InvalidArgument("shape", f"must be one or more lengths ≥ 1, is {shape}")
    if math.prod(shape) != n:
        raise InvalidArgument("penalty", f"a grid of {math.prod(shape)} points does not fit n = {n}")
    if periodic:
        squares = [[float(k * k) for k in _frequencies(side)] for side in shape]
        bases = [fourier_basis(side) for side in shape]
    else:
        squares = [[(math.pi * k / side) ** 2 for k in range(side)] for side in shape]
        bases = [dct_basis(side) for side in shape]
    flat = np.array([_power(sum(q), p) for q in itertools.product(*squares)])
    T: Host = np.ones((1, 1))
    for basis in bases:
        T = np.asarray(np.kron(T, basis))
    order = np.argsort(flat, kind="stable")
    values = flat[order]
    # whole numbers tie exactly; squares of πk/n to rounding, relative to the eigenvalue itself: small ones count, too
    blocks = _blocks(values, 0.0 if periodic else 1e-12 * values[1:])
    for lo, hi in itertools.pairwise(blocks):
        order[lo:hi].sort()  # among equals by flat index, so that the order is the same on every machine
    return Spectrum(values, T[:, order], blocks, circulant=periodic and len(shape) == 1)


def _matrix_of(spec: Spec, n: int) -> Host:
    A: Host = np.asarray(spec["A"], dtype=np.float64)
    name = "L" if spec.get("laplacian") else "A"
    if A.ndim == 2 and A.shape != (n, n):
        raise InvalidArgument("penalty", f"has a matrix of shape {A.shape}, the layer has n = {n}")
    A = np.asarray(symmetric(name, A))
    row_sums = np.abs(A.sum(axis=1))
    if name == "L" and (row_sums > 1e-8 * np.abs(A).sum(axis=1)).any():
        worst = int(np.argmax(row_sums))
        raise InvalidArgument("L", f"rows of a graph Laplacian sum to zero; row {worst} sums to {A[worst].sum():.3g}")
    return A


def _power_of(spec: Spec) -> int:
    return check_count("power", int(spec.get("power", 1)), 1)


def _matrix(spec: Spec, n: int) -> Spectrum:
    power = _power_of(spec)
    w, V = eigh_descending(_matrix_of(spec, n))
    rounding = TIE * float(np.abs(w).max())
    w = np.where(np.abs(w) <= rounding, 0.0, w)  # the rounding of a zero must not be raised to a sign
    w = np.abs(w) if power % 2 == 0 else w
    order = np.argsort(w, kind="stable")
    w, T = w[order], V[:, order]
    with quiet():
        values = w**power
    # ties are told from the eigenvalues of the matrix itself: those of its power span more than rounding can tell apart
    return Spectrum(values, T * signs_of_largest(T), _blocks(w, rounding))


_SPECTRA = {"fourier": _fourier, "difference": _difference, "grid": _grid, "matrix": _matrix}
