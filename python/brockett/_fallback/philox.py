"""Counter-based random numbers: Philox4x32-10, the same bits as the compiled core's (csrc/src/philox.hpp).

Word w (32 bits) of stream ``seed``: counter (w / 4 low, w / 4 high, 0, 0), key (seed low, seed high), output w % 4.
Number i takes the words 2i (high) and 2i + 1 (low), so any stretch of a stream can be made without what comes before.

References
----------
J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC'11.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from .._errors import InvalidArgument

Words = npt.NDArray[np.uint64]

_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)
_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = 0x9E3779B9, 0xBB67AE85


def block(seed: int, counter: npt.ArrayLike) -> Words:
    """Ten rounds of Philox4x32: four 32-bit words for each 64-bit counter.

    Parameters
    ----------
    seed : int
        The key, 0 to 2⁶⁴ - 1.
    counter : array_like of uint64, any shape

    Returns
    -------
    words : ndarray of uint64, shape (..., 4)
        Each below 2³².
    """
    if not 0 <= seed < 2**64:
        raise InvalidArgument("seed", f"expected 0 to 2**64 - 1, got {seed}")
    counter = np.asarray(counter, dtype=np.uint64)
    c0, c1 = counter & _LOW, counter >> _32
    c2 = c3 = np.zeros_like(counter)
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        # 32 × 32 → 64 bits; the high halves are mixed with the key, the low halves change places
        p0, p1 = _M0 * c0, _M1 * c2
        c0, c1, c2, c3 = (p1 >> _32) ^ c1 ^ np.uint64(k0), p1 & _LOW, (p0 >> _32) ^ c3 ^ np.uint64(k1), p0 & _LOW
        k0, k1 = (k0 + _W0) & 0xFFFFFFFF, (k1 + _W1) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=-1)


def _uniform_pairs(seed: int, first: int, count: int) -> npt.NDArray[np.float64]:
    # numbers 2 first … 2 (first + count) - 1 of the stream, (count, 2): a block of four words makes two
    words = block(seed, np.arange(count, dtype=np.uint64) + np.uint64(first))
    bits = ((words[:, 0::2] << _32) | words[:, 1::2]) >> np.uint64(11)
    return np.asarray((bits.astype(np.float64) + 0.5) * 2.0**-53)


def uniform(seed: int, start: int, count: int) -> npt.NDArray[np.float64]:
    """Uniform numbers start … start + count - 1 of a stream, in (0, 1): ((word high, word low) >> 11) + 1/2) 2⁻⁵³."""
    first = start // 2
    pairs = _uniform_pairs(seed, first, (start + count + 1) // 2 - first)
    return pairs.reshape(-1)[start - 2 * first :][:count]


def _each(f: Callable[[float], float], x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.fromiter(map(f, x.tolist()), np.float64, count=x.size)


def normal(seed: int, start: int, count: int) -> npt.NDArray[np.float64]:
    """Standard normal numbers start … start + count - 1 of a stream.

    Box-Muller with p = 2 (i / 2): sqrt(-2 ln u_p) times cos(2π u_{p+1}) for even i and sin for odd i. ln, cos and sin
    are the C library's, as in the compiled core: NumPy's vector kernels differ in the last bit of one number in 500.
    """
    first = start // 2
    u = _uniform_pairs(seed, first, (start + count + 1) // 2 - first)
    radius = np.sqrt(-2.0 * _each(math.log, u[:, 0]))
    angle = 2.0 * math.pi * u[:, 1]
    pairs = np.stack([radius * _each(math.cos, angle), radius * _each(math.sin, angle)], axis=-1)
    return pairs.reshape(-1)[start - 2 * first :][:count]
