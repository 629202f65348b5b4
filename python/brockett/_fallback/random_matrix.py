"""Random-matrix statistics of spectra: the Marchenko-Pastur law, its bulk and spikes. Spectra are host NumPy arrays.

Written from the same formulas as the compiled core (csrc/src/random_matrix.cpp, tracy_widom.cpp), in which they are
derived. Power laws are in power_law.py.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from .._errors import InvalidArgument, NonFinite
from ._arrays import EPS, Host

#: Fewer eigenvalues carry no verdict on a law.
FEWEST = 10


class MarchenkoPastur:
    """Limit law of the eigenvalues of WᵀW/N, W (N, M) of independent entries, Q = N / M."""

    def __init__(self, Q: float, variance: float = 1.0) -> None:
        check_positive("Q", Q)
        check_positive("variance", variance)
        # Q < 1: the eigenvalues that do not vanish are those of WWᵀ/M, whose Q is 1 / Q, times M / N
        self.weight = min(1.0, Q)
        self.unit = variance / self.weight
        self.s = s = math.sqrt(Q if Q < 1 else 1 / Q)
        self.lower, self.upper = self.unit * (1 - s) * (1 - s), self.unit * (1 + s) * (1 + s)
        if not math.isfinite(self.upper):
            raise InvalidArgument("variance", f"the law's upper edge overflows at Q = {Q!r}")

    def pdf(self, x: Host) -> Host:
        inside = (x > self.lower) & (x < self.upper)
        safe = np.where(inside, x, self.upper)
        root = np.sqrt((self.upper - safe) / safe) * np.sqrt((safe - self.lower) / safe)
        density = self.weight * root / (2 * math.pi * self.s * self.s * self.unit)
        return np.where(np.isnan(x), np.nan, np.where(inside, density, 0.0))

    def _cdf_at(self, angle: Host) -> Host:
        # x = 1 + s² - 2 s cos(angle) in units of `unit`
        s, sine = self.s, np.sin(angle)
        if s < 0.125:  # the closed form loses ε / s here; 20 terms of its series do not
            total, power, k = angle - 0.5 * np.sin(2 * angle), s, 1
            while power > 0.01 * EPS:
                total = total + power * (np.sin(k * angle) / k - np.sin((k + 2) * angle) / (k + 2))
                power, k = power * s, k + 1
            return np.asarray(total / math.pi)
        psi = np.arctan2(s * sine, (1 - s) + 2 * s * np.sin(0.5 * angle) ** 2)
        return np.asarray((angle + sine / s - (1 / (s * s) - 1) * psi) / math.pi)

    def cdf(self, x: Host) -> Host:
        inside = np.clip(x, self.lower, self.upper)
        angle = 2 * np.arctan2(np.sqrt(inside - self.lower), np.sqrt(self.upper - inside))
        value = (1 - self.weight) + self.weight * np.clip(self._cdf_at(angle), 0.0, 1.0)
        value = np.where(x >= self.upper, 1.0, np.where(x <= self.lower, 1 - self.weight, value))
        return np.where(np.isnan(x), np.nan, np.where(x < 0, 0.0, value))

    def quantile(self, p: Host) -> Host:
        if not np.all((p >= 0) & (p <= 1)):
            bad = p[~((p >= 0) & (p <= 1))][0]
            raise InvalidArgument("p", f"expected a probability, got {float(bad)!r}")
        target = (p - (1 - self.weight)) / self.weight
        low, high = np.zeros_like(p), np.full_like(p, math.pi)
        angle = np.full_like(p, 0.5 * math.pi)
        # Newton's method on the angle, kept in a bracket that halves where it does not help
        for _ in range(200):
            error = self._cdf_at(angle) - target
            low, high = np.where(error <= 0, angle, low), np.where(error > 0, angle, high)
            sine, half = np.sin(angle), np.sin(0.5 * angle)
            slope = 2 * sine**2 / (math.pi * ((1 - self.s) ** 2 + 4 * self.s * half**2))
            with np.errstate(all="ignore"):
                step = angle - error / slope
            step = np.where(error == 0, angle, step)
            inside = (step > low) & (step < high) | (error == 0)
            step = np.where(inside, step, 0.5 * (low + high))
            done = np.all(np.abs(step - angle) <= EPS * angle)
            angle = step
            if done:
                break
        x = np.clip(self.lower + 4 * self.s * self.unit * np.sin(0.5 * angle) ** 2, self.lower, self.upper)
        x = np.where(target >= 1, self.upper, np.where(target <= 0, self.lower, x))
        return np.where((self.weight < 1) & (p <= 1 - self.weight), 0.0, x)


def check_positive(name: str, value: float) -> None:
    """Refuse what is not a finite number above 0."""
    if not (value > 0 and math.isfinite(value)):
        raise InvalidArgument(name, f"expected a finite number above 0, got {value!r}")


def marchenko_pastur(what: str, x: Host, Q: float, variance: float) -> Host:
    """pdf or cdf at x, or quantile at the probabilities x, of the law with aspect ratio Q."""
    law = MarchenkoPastur(Q, variance)
    if what not in ("pdf", "cdf", "quantile"):
        raise InvalidArgument("what", f"expected 'pdf', 'cdf' or 'quantile', got {what!r}")
    values: Host = getattr(law, what)(np.asarray(x, dtype=np.float64))
    return values


# --- Tracy and Widom --------------------------------------------------------------------------------------------------


def tracy_widom_edge(larger: float, smaller: float, variance: float) -> tuple[float, float]:
    """Location and scale of the largest eigenvalue of WᵀW / larger (Ma, Bernoulli 18 (2012) 322)."""
    check_positive("variance", variance)
    if not smaller >= 1:
        raise InvalidArgument("smaller", f"expected 1 or more, got {smaller!r}")
    if not (larger >= smaller and math.isfinite(larger)):
        raise InvalidArgument("larger", f"expected a finite number of at least smaller, got {larger!r}")
    a, b = math.sqrt(larger - 0.5), math.sqrt(smaller - 0.5)
    return variance / larger * (a + b) ** 2, variance / larger * (a + b) * (1 / a + 1 / b) ** (1 / 3)


def _airy(x: Host) -> Host:
    # Maclaurin's series up to 5, the asymptotic one beyond
    near, far = np.minimum(x, 5.0), np.maximum(x, 5.0)
    even, odd = np.ones_like(x), near.copy()
    f, g, cube = even.copy(), odd.copy(), near**3
    for k in range(1, 60):
        even, odd = even * cube / ((3 * k - 1) * (3 * k)), odd * cube / ((3 * k) * (3 * k + 1))
        f, g = f + even, g + odd
    series = 0.355028053887817239 * f - 0.258819403792806798 * g  # Ai(0), -Ai'(0)
    zeta = 2 / 3 * far * np.sqrt(far)
    term, total = np.ones_like(x), np.ones_like(x)
    for k in range(1, 12):
        term = term * -(6 * k - 5) * (6 * k - 3) * (6 * k - 1) / (216 * k * (2 * k - 1) * zeta)
        total = total + term
    return np.where(x > 5, np.exp(-zeta) * total / (2 * math.sqrt(math.pi) * np.sqrt(np.sqrt(far))), series)


def _tracy_widom_at(x: float) -> float:
    # F₁(x) = det(1 - T), T(u, v) = Ai((u + v) / 2) / 2 on (x, ∞), by Gauss-Legendre quadrature up to 16
    if not x >= -9:
        return math.nan if math.isnan(x) else 0.0
    if x >= 16:
        return 1.0
    nodes, weights = np.polynomial.legendre.leggauss(40)
    half, middle, root = 0.5 * (16 - x), 0.5 * (16 + x), np.sqrt(weights)
    kernel = 0.5 * half * root[:, None] * root * _airy(middle + 0.5 * half * (nodes[:, None] + nodes))
    return min(max(float(np.linalg.det(np.eye(40) - kernel)), 0.0), 1.0)


def tracy_widom_cdf(x: Host) -> Host:
    """F₁ at x, absolute error below 1e-8."""
    return np.array([_tracy_widom_at(float(value)) for value in np.asarray(x)], dtype=np.float64)


@functools.lru_cache(maxsize=16)
def tracy_widom_quantile(p: float) -> float:
    """The x with F₁(x) = p, by bisection."""
    if not 1e-6 <= p <= 1 - 1e-6:
        raise InvalidArgument("p", f"expected a probability from 1e-6 to 1 - 1e-6, got {p!r}")
    low, high = -9.0, 10.0
    while high - low > 1e-9:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if _tracy_widom_at(middle) < p else (low, middle)
    return 0.5 * (low + high)


# --- bulk and spikes --------------------------------------------------------------------------------------------------


def fit_bulk(eigenvalues: Host, Q: float, significance: float, pooled: int) -> dict[str, Any]:
    """Marchenko-Pastur bulk and spikes: variance from the median of what is no spike, until their count stays."""
    if not (Q >= 1 and math.isfinite(Q)):
        raise InvalidArgument("Q", f"expected larger / smaller, a finite number of at least 1, got {Q!r}")
    if not 1e-6 <= significance < 0.5:
        raise InvalidArgument("significance", f"expected a number from 1e-6 to 0.5, got {significance!r}")
    if pooled < 1:
        raise InvalidArgument("pooled", f"expected 1 or more, got {pooled}")
    finite = np.isfinite(eigenvalues)
    if not finite.all():
        raise NonFinite("eigenvalues", (0, int(np.argmin(finite))))
    ordered, none = np.sort(eigenvalues), np.empty(0)
    out: dict[str, Any] = dict.fromkeys(("variance", "lower", "upper", "cut", "distance", "soft_rank"), 0.0)
    out |= {"n_zero": 0, "spikes": none, "strengths": none, "overlaps_larger": none, "overlaps_smaller": none}
    n = len(ordered)
    if n == 0:
        return out | {"declined": "no eigenvalues"}
    largest = float(ordered[-1])
    noise = EPS * n * Q * max(largest, 0.0)
    if ordered[0] < -noise:
        raise InvalidArgument("eigenvalues", f"expected numbers of at least 0, got {float(ordered[0])!r}")
    positive = ordered[ordered > noise]
    m = len(positive)
    out["n_zero"] = n - m
    if m < FEWEST:
        return out | {"declined": f"{m} eigenvalues above rounding, a fit needs {FEWEST}"}
    # without its zero columns, and without k spikes, W is a (larger - k) × (m - k) matrix of noise
    larger, k = Q * n / pooled, 0
    quantile = tracy_widom_quantile(min(1 - 1e-6, (1 - significance) ** (1 / pooled)))
    while True:
        count = m - k
        rows, columns = larger - k / pooled, count / pooled
        share = rows / larger
        middle = float(MarchenkoPastur(rows / columns).quantile(np.array([0.5]))[0])
        bulk = positive[:count]
        out["variance"] = (0.5 * bulk[(count - 1) // 2] + 0.5 * bulk[count // 2]) / middle / share
        location, scale = tracy_widom_edge(rows, max(1.0, columns), share * out["variance"])
        out["cut"] = location + quantile * scale
        above = int(np.count_nonzero(positive > out["cut"]))
        if above <= k:
            break
        k = above
        if 2 * k > m:
            return out | {"declined": f"{k} of {m} eigenvalues lie above the bulk's edge: no bulk"}
    y, unit = columns / rows, share * out["variance"]
    law = MarchenkoPastur(1 / y, unit)
    F, steps = law.cdf(bulk), np.arange(count)
    out |= {"lower": law.lower, "upper": law.upper, "soft_rank": law.upper / largest, "declined": ""}
    out["distance"] = float(max(np.max(F - steps / count), np.max((steps + 1) / count - F)))
    spikes = positive[count:][::-1].copy()
    # l² - (x - 1 - y) l + y = 0, its larger root
    half = 0.5 * (spikes / unit - 1 - y)
    strength = half + np.sqrt(np.maximum(0.0, half * half - y))
    with np.errstate(all="ignore"):
        out["overlaps_larger"] = np.maximum(0.0, 1 - (y + strength) / (strength * (strength + 1)))
        out["overlaps_smaller"] = np.maximum(0.0, 1 - (1 + strength) / (strength * (strength / y + 1)))
    return out | {"spikes": spikes, "strengths": unit * strength, "variance": float(out["variance"])}
