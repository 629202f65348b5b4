"""What every module here needs of an array, whatever namespace it comes from.

The rule of this engine: arrays stay in the namespace and on the device they came in. What goes to the host does so by
name, through `to_host`: 1-D spectra, and the small matrices that a decision is made on.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from array_api_compat import array_namespace, device, is_cupy_array

from .._errors import InvalidArgument, InvalidType, NonFinite, NotConverged

Array: TypeAlias = Any
Namespace: TypeAlias = Any
Device: TypeAlias = Any
Host: TypeAlias = npt.NDArray[np.float64]

EPS = 2.0**-52
#: Equal eigenvalues leave an eigensolver at most this far apart, times the largest of all (measured: 2.4 ε, for null
#: spaces at n = 1024). With n ε instead, distinct small variances pass for equal: that cost 2e-4 of the optimum on
#: smooth data (n = 512, 4,000 samples, noise 1e-4) where this costs 6e-11.
TIE = 8 * EPS
#: Magnitudes whose squares neither overflow nor vanish in float64 sums: data outside are refused, not rounded away.
LARGEST, SMALLEST = 1e150, 1e-150


def place_of(argument: str, x: Array) -> tuple[Namespace, Device]:
    """Namespace and device of an array; a device without float64 is refused by name."""
    xp, place = array_namespace(x), device(x)
    require_float64(argument, xp, place)
    return xp, place


def same_place(argument: str, x: Array, W: Array, other: str = "W") -> tuple[Namespace, Device]:
    """Namespace and device of x, refused where they are not those of W."""
    here, there = place_of(argument, x), place_of(other, W)
    if here != there:
        raise InvalidType(
            argument, f"is on {here[1]} of {here[0].__name__}, {other} on {there[1]} of {there[0].__name__}"
        )
    return here


def require_float64(argument: str, xp: Namespace, place: Device) -> None:
    """Refuse a device on which sums in float64, and so every number promised here, cannot be had."""
    if "float64" not in xp.__array_namespace_info__().dtypes(device=place, kind="real floating"):
        raise InvalidType(argument, f"is on device {place}, which has no float64")


def to_host(x: Array) -> npt.NDArray[Any]:
    """The array as a NumPy array: the only way off a device."""
    if isinstance(x, np.ndarray):
        return x
    if is_cupy_array(x):
        return np.asarray(x.get())
    host = array_namespace(x).__array_namespace_info__().default_device()
    return np.asarray(x.to_device(host))


def to_device(x: npt.ArrayLike, xp: Namespace, place: Device, dtype: Any = None) -> Array:
    """A host array as an array of `xp` on `place`."""
    return xp.asarray(np.asarray(x), dtype=dtype, device=place)


def float64(x: Array) -> Array:
    """The array in float64; itself where it is that already."""
    xp = array_namespace(x)
    return x if x.dtype == xp.float64 else xp.astype(x, xp.float64)


def widened_bfloat16(bits: Array) -> Array:
    """The float32 numbers that bits (uint16) of bfloat16 numbers stand for."""
    # a bfloat16 is the upper half of a float32: all 65,536 of them, looked up
    table = (np.arange(2**16, dtype=np.uint32) << 16).view(np.float32)
    xp = array_namespace(bits)
    index = xp.astype(xp.reshape(bits, (-1,)), xp.int64)
    return xp.reshape(xp.take(to_device(table, xp, device(bits)), index), bits.shape)


# --- checks -----------------------------------------------------------------------------------------------------------


def choose(argument: str, word: str, words: Sequence[str]) -> str:
    """`word`, refused where it is not one of `words`."""
    if word not in words:
        raise InvalidArgument(argument, f"expected one of {', '.join(map(repr, words))}, got {word!r}")
    return word


def check_count(argument: str, value: int, least: int, most: float = math.inf) -> int:
    """`value`, refused outside [least, most]."""
    if not least <= value <= most:
        expected = f"{least} or more" if most == math.inf else f"{least} to {most}"
        raise InvalidArgument(argument, f"expected {expected}, got {value}")
    return value


def check_matrix(argument: str, A: Array, shape: tuple[int | None, int | None] = (None, None)) -> Array:
    """A 2-D array of the given shape (None: any size from 1 on) without NaN or Inf."""
    if A.ndim != 2 or any(want not in (None, got) for want, got in zip(shape, A.shape, strict=False)):
        wanted = ", ".join("*" if want is None else str(want) for want in shape)
        raise InvalidArgument(argument, f"expected shape ({wanted}), got {tuple(A.shape)}")
    if 0 in A.shape:
        raise InvalidArgument(argument, f"must not be empty, has shape {tuple(A.shape)}")
    check_finite(argument, A)
    return A


def check_finite(argument: str, A: Array, rows: Sequence[int] | None = None) -> None:
    """Refuse NaN and Inf, naming the first index; `rows` are the caller's own numbers of the rows of A."""
    xp = array_namespace(A)
    finite = xp.isfinite(A)
    if xp.all(finite):
        return
    bad = xp.reshape(xp.astype(~finite, xp.int8), (-1,))
    index = np.unravel_index(int(xp.argmax(bad)), A.shape)
    first = int(index[0]) if rows is None else int(rows[int(index[0])])
    raise NonFinite(argument, (first, *(int(i) for i in index[1:])))


def check_magnitude(argument: str, magnitude: float) -> None:
    """Refuse data whose squares leave float64."""
    if magnitude >= LARGEST or 0 < magnitude < SMALLEST:
        raise InvalidArgument(
            argument,
            f"largest magnitude {magnitude:.3g} is outside [1e-150, 1e150), its square leaves float64; "
            "rescale the data",
        )


def symmetric(argument: str, A: Array, n: int | None = None) -> Array:
    """(A + Aᵀ) / 2 of a finite square A; refused where A is not symmetric to 1e-8 of its largest entry."""
    xp = array_namespace(A)
    check_matrix(argument, A, (n, n))
    if A.shape[0] != A.shape[1]:
        raise InvalidArgument(argument, f"expected a square matrix, got shape {tuple(A.shape)}")
    magnitude = max_abs(A)
    asymmetry = max_abs(0.5 * A - 0.5 * xp.matrix_transpose(A))
    if 2 * asymmetry > 1e-8 * magnitude:
        raise InvalidArgument(
            argument, f"must be symmetric; its largest asymmetry is {2 * asymmetry:.3g} of an entry of {magnitude:.3g}"
        )
    return 0.5 * A + 0.5 * xp.matrix_transpose(A)  # halves first: A + Aᵀ may overflow where its half does not


# --- scale ------------------------------------------------------------------------------------------------------------


def max_abs(A: Array) -> float:
    """Largest magnitude; 0 of nothing."""
    if 0 in A.shape:
        return 0.0
    xp = array_namespace(A)
    return max(float(xp.max(A)), -float(xp.min(A)))  # no |A| beside A


def exponent(magnitude: float) -> int:
    """e with magnitude 2⁻ᵉ in [1/2, 1); 0 for 0."""
    return math.frexp(magnitude)[1]


def shift(A: Array, e: int) -> Array:
    """A 2ᵉ, exact but for overflow and underflow of the result."""
    if e == 0:
        return A
    half = e // 2  # 2ᵉ itself may be out of range
    return A * 2.0**half * 2.0 ** (e - half)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No floating-point warnings from NumPy where what they warn of is looked for in the result."""
    with np.errstate(all="ignore"):
        yield


# --- decompositions ---------------------------------------------------------------------------------------------------


def eigh_descending(S: Array) -> tuple[Host, Array]:
    """Eigenvalues of a symmetric matrix, largest first, on the host, and its eigenvectors in columns."""
    xp = array_namespace(S)
    try:
        w, V = xp.linalg.eigh(S)
    except np.linalg.LinAlgError:
        # the same matrix in reversed order takes other rotations
        try:
            w, V = xp.linalg.eigh(xp.flip(S))
        except np.linalg.LinAlgError as error:
            raise NotConverged(f"symmetric eigenvalues of a matrix of shape {tuple(S.shape)}: {error}") from error
        V = xp.flip(V, axis=0)
    return to_host(w)[::-1].copy(), xp.flip(V, axis=1)


def eigenvalues_descending(S: Array) -> Host:
    """Eigenvalues of a symmetric matrix, largest first, on the host."""
    try:
        return np.asarray(to_host(array_namespace(S).linalg.eigvalsh(S))[::-1])
    except np.linalg.LinAlgError:
        return eigh_descending(S)[0]


def eigh_positive(argument: str, S: Array, noise: float = 0.0) -> tuple[Host, Array]:
    """`eigh_descending` of a positive semidefinite matrix, rounded-off negative eigenvalues set to 0.

    `noise` is the size of what S was summed up from, where that is above S itself.
    """
    w, V = eigh_descending(S)
    check_semidefinite(argument, w.size, float(w[-1]), float(w[0]), noise)
    return np.maximum(w, 0.0), V


def check_semidefinite(argument: str, n: int, smallest: float, largest: float, noise: float) -> None:
    """Refuse a matrix of order n whose smallest eigenvalue is below zero by more than rounding."""
    if smallest < -64 * n * EPS * max(largest, noise, 0.0):
        raise InvalidArgument(
            argument, f"is not positive semidefinite: eigenvalues from {smallest:.3g} to {largest:.3g} (before scaling)"
        )


def svd_thin(A: Array) -> tuple[Array, Host, Array]:
    """A = U diag(s) Vt with min(m, n) triplets; s in float64 on the host."""
    xp = array_namespace(A)
    try:
        U, s, Vt = xp.linalg.svd(A, full_matrices=False)
    except np.linalg.LinAlgError:
        # LAPACK's gesdd can fail where the same method on the transpose does not
        try:
            V, s, Ut = xp.linalg.svd(xp.matrix_transpose(A), full_matrices=False)
        except np.linalg.LinAlgError as error:
            raise NotConverged(f"SVD of a matrix of shape {tuple(A.shape)}: {error}") from error
        U, Vt = xp.matrix_transpose(Ut), xp.matrix_transpose(V)
    return U, to_host(s).astype(np.float64), Vt


def orthonormal(A: Array) -> Array:
    """Orthonormal basis that holds the range of A (m, k), m ≥ k; Householder QR fills up where the rank is short."""
    xp = array_namespace(A)
    return xp.linalg.qr(A, mode="reduced")[0]


def lower_root(A: Array) -> Array:
    """L (n, n), lower triangular with diagonal ≥ 0, of L Lᵀ = A Aᵀ: the LQ factor of A (n, q) without its Q."""
    xp = array_namespace(A)
    n, q = A.shape
    R = xp.linalg.qr(xp.matrix_transpose(A), mode="reduced")[1]  # (min(q, n), n)
    L = xp.matrix_transpose(R)
    if q < n:
        L = xp.concat([L, xp.zeros((n, n - q), dtype=L.dtype, device=device(L))], axis=1)
    negative = xp.linalg.diagonal(L) < 0
    one = xp.ones(n, dtype=L.dtype, device=device(L))
    return L * xp.where(negative, -one, one)[None, :]


def signs_of_largest(A: Array) -> Array:
    """Sign (+1 or -1) of the entry of largest magnitude of each column, the first of equals."""
    xp = array_namespace(A)
    rows = xp.argmax(xp.abs(A), axis=0)
    largest = xp.take_along_axis(A, rows[None, :], axis=0)[0, :]
    one = xp.ones(A.shape[1], dtype=A.dtype, device=device(A))
    return xp.where(largest < 0, -one, one)
