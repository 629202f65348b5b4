"""Null distributions of squared overlaps: tails, thresholds, and corrections for many tests. NumPy and `math` alone.

Tails are computed as logarithms: at 128 neurons an overlap of 1 has a p-value far below the smallest float64.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from . import _options
from ._errors import InvalidArgument

__all__ = ["CORRECTIONS", "NULLS", "Overlap", "edge_threshold", "normal_log_tail"]

Array = npt.NDArray[np.float64]

NULLS = ("chi2", "beta")
CORRECTIONS = (None, "bonferroni", "bh")


# --- tails ------------------------------------------------------------------------------------------------------------


def normal_log_tail(sigma: float) -> float:
    """log P(Z > sigma) of a standard normal number."""
    if sigma < 30:
        return math.log(0.5 * math.erfc(sigma / math.sqrt(2)))
    t = 1 / sigma**2  # asymptotic series: its next term is below 1e-9 of the sum from 30 on
    return -0.5 * sigma**2 - math.log(sigma * math.sqrt(2 * math.pi)) + math.log1p(-t + 3 * t**2 - 15 * t**3)


def _fraction(step: Callable[[int], tuple[Array, Array]], first: Array, shape: tuple[int, ...]) -> Array:
    """Continued fraction first + a₁ / (b₁ + a₂ / (b₂ + …)) by the modified method of Lentz."""
    tiny = 1e-300
    f = np.where(first == 0, tiny, first)
    c, d = f.copy(), np.zeros(shape)
    for k in range(1, 100_000):
        a, b = step(k)
        d = b + a * d
        d = 1 / np.where(np.abs(d) < tiny, tiny, d)
        c = b + a / c
        c = np.where(np.abs(c) < tiny, tiny, c)
        f = f * c * d
        if np.all(np.abs(c * d - 1) < 1e-15):
            break
    return f


def _log_beta_fraction(x: Array, y: Array, a: float, b: float) -> Array:
    """log I_x(a, b) with y = 1 - x, for x ≤ (a + 1) / (a + b + 2), where the fraction converges fast."""

    def step(k: int) -> tuple[Array, Array]:
        m = k // 2
        if k == 1:
            return np.ones_like(x), np.ones_like(x)
        if k % 2 == 0:
            m = k // 2 - 1
            return -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)), np.ones_like(x)
        m = (k - 1) // 2
        return m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)), np.ones_like(x)

    fraction = _fraction(step, np.zeros_like(x), x.shape)
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) - math.log(a)
    with np.errstate(divide="ignore"):
        return np.asarray(front + a * np.log(x) + b * np.log(y) + np.log(fraction))


def _log_less(log_p: Array) -> Array:
    """log(1 - p) of log p ≤ 0."""
    with np.errstate(divide="ignore"):
        return np.where(log_p > -0.7, np.log(-np.expm1(np.minimum(log_p, 0))), np.log1p(-np.exp(np.minimum(log_p, 0))))


def beta_log_tail(x: npt.ArrayLike, a: float, b: float) -> Array:
    """log P(X > x) of X ~ Beta(a, b)."""
    x = np.clip(np.asarray(x, dtype=np.float64), 0.0, 1.0)
    out = np.zeros(x.shape)
    upper = x > (a + 1) / (a + b + 2)
    out[upper] = _log_beta_fraction(1 - x[upper], x[upper], b, a)
    inside = ~upper & (x > 0)
    out[inside] = _log_less(_log_beta_fraction(x[inside], 1 - x[inside], a, b))
    return out


def chi2_log_tail(x: npt.ArrayLike, dof: float) -> Array:
    """log P(X > x) of X ~ χ² with `dof` degrees of freedom."""
    a = 0.5 * dof
    z = 0.5 * np.maximum(np.asarray(x, dtype=np.float64), 0.0)
    out = np.zeros(z.shape)
    upper = z > a + 1
    if upper.any():  # Γ(a, z) / Γ(a) = z^a e^-z / Γ(a) / (z + 1 - a - 1 (1 - a) / (z + 3 - a - …))
        t = z[upper]

        def step(k: int) -> tuple[Array, Array]:
            j = k - 1
            return (np.ones_like(t) if k == 1 else np.full_like(t, -j * (j - a))), t + 2 * k - 1 - a

        fraction = _fraction(step, np.zeros_like(t), t.shape)
        out[upper] = a * np.log(t) - t - math.lgamma(a) + np.log(fraction)
    inside = ~upper & (z > 0)
    if inside.any():  # series of the lower part
        t = z[inside]
        term = np.full_like(t, 1 / a)
        total = term.copy()
        for k in range(1, 100_000):
            term = term * t / (a + k)
            total = total + term
            if np.all(term < 1e-17 * total):
                break
        out[inside] = _log_less(a * np.log(t) - t - math.lgamma(a) + np.log(total))
    return out


def _solve(log_tail: Callable[[Array], Array], log_p: float, low: float, high: float) -> float:
    """x in [low, high] with log_tail(x) = log_p: the tail falls, and 63 places at once cost little more than one."""
    for _ in range(20):
        x = np.linspace(low, high, 65)
        below = np.flatnonzero(log_tail(x[1:-1]) <= log_p)
        k = int(below[0]) + 1 if below.size else 64
        if (float(x[k - 1]), float(x[k])) == (low, high):
            break
        low, high = float(x[k - 1]), float(x[k])
    return high


# --- the null of an overlap -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Overlap:
    """The null distribution of one squared overlap A = ‖Lᵀ R‖², L (n₁ P) and R (n₂ Q) independent random unit vectors.

    L lives in n₁ channels at each of P positions, R in n₂ channels at each of Q, and `shared` channels are those of
    both: n₁ = n₂ = shared = n but for grouped convolutions. With s = shared, E A = s / (n₁ n₂).

    beta
        Beta(a, b) with the mean and the variance of A. Where P = Q = 1, or one of them is 1, and n₁ = n₂ = s = n this
        is the distribution itself: Beta(Q/2, Q (n - 1)/2). From E[A²] = α E(tr X)² + 2 β E tr X² with X = L Lᵀ on the
        shared channels and Y = R Rᵀ likewise, α s² + 2 β s = E(tr Y)², α s + β s (s + 1) = E tr Y²; for X (and with
        n₂, Q for Y) E(tr X)² = s P (s P + 2) / (n₁ P (n₁ P + 2)), E tr X² = s P (s + P + 1) / (n₁ P (n₁ P + 2)).
        For n₁ = n₂ = s = n: a = ((n P + 2)(n Q + 2) / (2 (n + 2)) - 1) / n, b = (n - 1) a.
    chi2
        A / E A ~ χ²_ν / ν with ν = P Q, the number of squares summed: the paper's, which is the limit of large n.
    """

    source_channels: int
    target_channels: int
    shared: int
    source_positions: int = 1
    target_positions: int = 1

    @property
    def mean(self) -> float:
        return self.shared / (self.source_channels * self.target_channels)

    @property
    def variance(self) -> float:
        s = self.shared

        def moments(n: int, P: int) -> tuple[float, float]:
            scale = s * P / (n * P * (n * P + 2))
            return scale * (s * P + 2), scale * (s + P + 1)  # E (tr X)², E tr X²

        (x_trace, x_square), (y_trace, y_square) = (
            moments(self.source_channels, self.source_positions),
            moments(self.target_channels, self.target_positions),
        )
        if s == 1:
            second = x_trace * y_trace
        else:
            beta = (y_square - y_trace / s) / ((s + 2) * (s - 1))
            alpha = (y_trace - 2 * beta * s) / s**2
            second = alpha * x_trace + 2 * beta * x_square
        return max(second - self.mean**2, 0.0)

    @property
    def shape(self) -> tuple[float, float]:
        """a and b of the Beta distribution; infinite where A is not random."""
        n, P, Q = self.shared, self.source_positions, self.target_positions
        if self.mean >= 1:
            return math.inf, math.inf
        if n == self.source_channels == self.target_channels:
            # the closed form, without the cancellation of the general one
            a = ((n * P + 2) * (n * Q + 2) / (2 * (n + 2)) - 1) / n
            return a, (n - 1) * a
        k = self.mean * (1 - self.mean) / self.variance - 1
        return self.mean * k, (1 - self.mean) * k

    def log_tail(self, A: npt.ArrayLike, null: str) -> Array:
        """log P(overlap ≥ A) of each."""
        A = np.asarray(A, dtype=np.float64)
        if self.shared == 0 or self.mean >= 1:  # always 0, always 1: no evidence of anything
            return np.zeros(A.shape)
        if null == "beta":
            return beta_log_tail(A, *self.shape)
        dof = self.source_positions * self.target_positions
        return chi2_log_tail(A / self.mean * dof, dof)

    def threshold(self, log_p: float, null: str) -> float:
        """The overlap that is exceeded with probability exp(log_p)."""
        if self.shared == 0 or self.mean >= 1 or log_p == -math.inf:
            return math.inf
        return _threshold(self, log_p, null)


@functools.lru_cache(maxsize=4096)  # the layers of a network are of few sizes
def _threshold(overlap: Overlap, log_p: float, null: str) -> float:
    high = 1.0
    if null == "chi2":  # has no upper end
        while float(overlap.log_tail([high], null)[0]) > log_p:
            high *= 2
    return _solve(lambda x: overlap.log_tail(x, null), log_p, 0.0, high)


def edge_threshold(n: int, n_positions: int | tuple[int, int] = 1, sigma: float = 3.0, null: str = "chi2") -> float:
    """The squared overlap from which on an edge counts as significant.

    Parameters
    ----------
    n : int
        Channels that the two layers share: outputs of the one, inputs of the other.
    n_positions : int or (int, int), default 1
        Squares that an overlap sums up: 1 between fully connected layers; the size of the kernel, k², between
        convolutions; the number of positions where a fully connected layer reads the output of a convolution. A pair
        where both sides have positions: kernel and output positions, for "cosvr" and such a transition.
    sigma : float, default 3.0
        Significance: an edge of a random network is above the threshold with probability 1 - Φ(sigma), 1.35e-3 for 3.
    null : {"chi2", "beta"}, default "chi2"
        "chi2": the paper's, χ²_ν / (ν n) with ν positions (the product of a pair), the limit of large n: conservative
        for small n. "beta": exact for random singular vectors at every n where n_positions is a number; the Beta
        distribution with the exact mean and variance for a pair.

    Returns
    -------
    threshold : float
        Above 1, or infinite, where no overlap is ever significant (chi2 and n = 8 at three sigma; n = 1).

    Raises
    ------
    InvalidArgument, InvalidType
        A count below 1, a sigma that is not finite, an unknown word.

    Notes
    -----
    A unit vector of n · ν random components, n channels at ν positions, is projected to the ν directions that a fixed
    unit vector of n channels spans, one a position: the squared length of that is Beta(ν/2, ν (n - 1)/2), of mean 1/n.

    References
    ----------
    D. Meller, N. Berkouk, *Singular value representation: a new graph perspective on neural networks*,
    arXiv 2302.08183, section 3, for the χ² form.

    Examples
    --------
    >>> import brockett as bk
    >>> round(bk.edge_threshold(128), 5), round(bk.edge_threshold(128, null="beta"), 5)
    (0.08026, 0.078)
    >>> bk.edge_threshold(8) > 1, bk.edge_threshold(8, null="beta") < 1
    (True, True)
    """
    channels = _options.count("n", n, least=1)
    pair = n_positions if isinstance(n_positions, tuple | list) else (1, n_positions)
    if len(pair) != 2:
        raise InvalidArgument("n_positions", f"expected a number or a pair, got {n_positions!r}")
    P, Q = (_options.count("n_positions", one, least=1) for one in pair)
    level = normal_log_tail(_options.number("sigma", sigma))
    word = _options.option("null", null, NULLS)
    return Overlap(channels, channels, channels, P, Q).threshold(level, word)
