"""Power-law tails: maximum likelihood for every xmin, the best xmin, the bootstrap, and other laws on the same tail.

With u = log(x / xmin) a power law is an exponential law of u with rate alpha - 1, on [0, L], L = log(xmax / xmin) or
infinite. The truncated power law and the lognormal are, in u, one family exp(-a u - k w(u)) / Z with k ≥ 0: w = eᵘ - 1
and w = u². Their likelihood has one maximum, found by Newton's method; the power law is the case k = 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._errors import InvalidArgument, NonFinite
from . import philox
from ._arrays import Host

#: Distances this close are equal: the smallest xmin among them is taken.
TIE = 1e-12
LAWS = ("truncated_power_law", "lognormal", "exponential")


def log_ratio(x: Host, reference: float) -> Host:
    """log(x / reference) of positive numbers of any magnitude, to rounding also where they are close."""
    m, e = np.frexp(x)
    r, f = math.frexp(reference)
    return np.asarray((e.astype(np.float64) - f) * math.log(2.0) + np.log1p((m - r) / r))


def mass_below(rate: float, length: float) -> float:
    """1 - exp(-rate length)."""
    return 1.0 if math.isinf(length) else -math.expm1(-rate * length)


def _share(y: float) -> float:
    # mean / length of the exponential law with rate y on [0, 1]
    if abs(y) < 1e-2:
        return 0.5 - y / 12 * (1 - y * y / 60 * (1 - y * y / 42))
    return 1 / y - (1 / math.expm1(y) if y < 700 else 0.0)


def rate_of_mean(mean: float, length: float) -> float:
    """Rate of the exponential law on [0, length] with this mean; negative where that is above length / 2."""
    if math.isinf(length):
        return 1 / mean
    target = mean / length
    near = min(target, 1 - target)
    if not near > 0:
        return math.copysign(math.inf, 0.5 - target)
    low, high = 0.0, 1 / near
    while _share(high) > near:
        high *= 2
    y = high
    for _ in range(200):
        error = _share(y) - near
        low, high = (y, high) if error > 0 else (low, y)
        slope = -1 / 12 + y * y / 240 if y < 1e-2 else -1 / (y * y) + 1 / (4 * math.sinh(0.5 * min(y, 700.0)) ** 2)
        step = y - error / slope
        if abs(step - y) <= 1e-16 * y or high - low <= 1e-16 * high:
            break
        y = step if low < step < high else 0.5 * (low + high)
    return (y if target <= 0.5 else -y) / length


@dataclass(frozen=True)
class _Sample:
    """Distinct values as ascending logarithms, how many values lie below each, and Σ log(value / each) of those not."""

    logs: Host
    below: Host
    excess: Host
    count: int


def _sample(ascending: Host) -> _Sample:
    logs, first = np.unique(ascending, return_index=True)
    below, n = first.astype(np.float64), len(ascending)
    # from the top, so that all terms are positive and nothing cancels
    steps = (n - below[1:]) * np.diff(logs)
    excess = np.concatenate([np.cumsum(steps[::-1])[::-1], [0.0]])
    return _Sample(logs, below, excess, n)


@dataclass(frozen=True)
class _Range:
    given: float | None
    low: float
    high: float
    end: float
    rate_low: float
    rate_high: float
    min_tail: int


def _best(s: _Sample, limits: _Range, scan: bool = False) -> tuple[int, float, float, float, list[Any]]:
    """First index of the tail (-1: none), origin, rate and distance of the best candidate; and all of them."""
    if limits.given is not None:
        first = int(np.searchsorted(s.logs, limits.given))
        index, origin = np.array([first] if first < len(s.logs) else [], dtype=np.int64), np.array([limits.given])
        origin = origin[: len(index)]
    else:
        index = np.arange(len(s.logs) - 1)
        origin = s.logs[:-1]
        inside = (origin >= limits.low) & (origin <= limits.high)
        index, origin = index[inside], origin[inside]
    n = s.count - s.below[index]
    excess = s.excess[index] + n * (s.logs[index] - origin)
    usable = (n >= limits.min_tail) & (excess > 0) & (limits.end > origin)
    index, origin, n, excess = index[usable], origin[usable], n[usable], excess[usable]
    if math.isinf(limits.end):
        rate = n / excess
    else:
        pairs = zip(excess / n, limits.end - origin, strict=True)
        rate = np.array([rate_of_mean(float(mean), float(length)) for mean, length in pairs])
    usable = np.isfinite(rate) & (rate > limits.rate_low) & (rate < limits.rate_high)
    index, origin, rate = index[usable], origin[usable], rate[usable]
    if len(index) == 0:
        return -1, 0.0, 0.0, 0.0, []
    mass = np.array([mass_below(float(r), float(limits.end - o)) for r, o in zip(rate, origin, strict=True)])

    def gap(c: Any, k: Any) -> Host:
        law = -np.expm1(-rate[c] * (s.logs[k] - origin[c])) / mass[c]
        start = s.below[index[c]]
        return np.asarray(np.abs(law - (s.below[k] - start) / (s.count - start)))

    # 33 places of every tail bound its distance from below: most candidates need no more than that
    spread = np.linspace(0, 1, 33)
    places = np.rint(index[:, None] + spread * (len(s.logs) - 1 - index)[:, None]).astype(np.int64)
    least = np.max(gap(np.arange(len(index))[:, None], places), axis=1)
    distances, smallest = np.full(len(index), np.inf), math.inf
    for c in np.argsort(least, kind="stable"):
        if least[c] > smallest + TIE and not scan:
            break
        distances[c] = np.max(gap(c, np.arange(index[c], len(s.logs))))
        smallest = min(smallest, float(distances[c]))
    best = int(np.argmax(distances <= smallest + TIE))
    found = [(int(index[c]), float(rate[c]), float(distances[c])) for c in range(len(index))] if scan else []
    return int(index[best]), float(origin[best]), float(rate[best]), float(distances[best]), found


def _checked(values: Host, xmax: float) -> Host:
    finite = np.isfinite(values)
    if not finite.all():
        raise NonFinite("values", (0, int(np.argmin(finite))))
    if len(values) and not np.all(values > 0):
        raise InvalidArgument("values", f"expected numbers above 0, got {float(values[values <= 0][0])!r}")
    return np.sort(values[values <= xmax])


def _limits(
    reference: float,
    xmin: float,
    xmin_low: float,
    xmin_high: float,
    xmax: float,
    alpha_low: float,
    alpha_high: float,
    min_tail: int,
) -> _Range:
    if not (xmin >= 0 and math.isfinite(xmin)):
        raise InvalidArgument("xmin", f"expected a finite number above 0, or 0 for the best, got {xmin!r}")
    if not 0 <= xmin_low <= xmin_high:
        raise InvalidArgument("xmin", f"expected a range (low, high), got ({xmin_low!r}, {xmin_high!r})")
    if not xmax > xmin:
        raise InvalidArgument("xmax", f"expected a number above xmin, got {xmax!r}")
    if not alpha_low < alpha_high:
        expected = "expected (low, high) with low < high"
        raise InvalidArgument("alpha_range", f"{expected}, got ({alpha_low!r}, {alpha_high!r})")
    if min_tail < 2:
        raise InvalidArgument("min_tail", f"expected 2 or more, got {min_tail}")

    def log(x: float) -> float:
        if x == 0 or math.isinf(x):
            return -math.inf if x == 0 else math.inf
        return float(log_ratio(np.array(x), reference))

    given = log(xmin) if xmin > 0 else None
    return _Range(given, log(xmin_low), log(xmin_high), log(xmax), alpha_low - 1, alpha_high - 1, min_tail)


def fit_power_law(
    values: Host,
    xmin: float,
    xmin_low: float,
    xmin_high: float,
    xmax: float,
    alpha_low: float,
    alpha_high: float,
    min_tail: int,
    scan: bool,
) -> dict[str, Any]:
    """Power-law tail of positive values: of the candidates for xmin the one with the smallest distance; 0 scans."""
    limits = (xmin, xmin_low, xmin_high, xmax, alpha_low, alpha_high, min_tail)
    _limits(1.0, *limits)
    ordered = _checked(values, xmax)
    empty = np.empty(0)
    none = {"found": False, "alpha": 0.0, "xmin": 0.0, "distance": 0.0, "sigma": 0.0, "n_tail": 0}
    if len(ordered) < 2:
        return none | {"xmins": empty, "alphas": empty, "distances": empty}
    reference = float(ordered[-1])
    sample, bounds = _sample(log_ratio(ordered, reference)), _limits(reference, *limits)
    first, origin, rate, distance, found = _best(sample, bounds, scan)

    def value(i: int) -> float:
        return xmin if xmin > 0 else float(ordered[int(sample.below[i])])

    curve = {
        "xmins": np.array([value(i) for i, _, _ in found]),
        "alphas": np.array([1 + r for _, r, _ in found]),
        "distances": np.array([d for _, _, d in found]),
    }
    if first < 0:
        return none | curve
    n_tail = sample.count - int(sample.below[first])
    information = 1 / rate**2  # of one value: the variance of u
    if math.isfinite(bounds.end):
        length = bounds.end - origin
        y = rate * length
        if abs(y) < 1e-2:
            information = length**2 * (1 / 12 - y * y / 240)
        elif abs(y) < 700:
            information -= length**2 / (4 * math.sinh(0.5 * y) ** 2)
    best = {"found": True, "alpha": 1 + rate, "xmin": value(first), "distance": distance, "n_tail": n_tail}
    return best | curve | {"sigma": 1 / math.sqrt(n_tail * information)}


def bootstrap_power_law(
    values: Host,
    alpha: float,
    fitted_xmin: float,
    xmin: float,
    xmin_low: float,
    xmin_high: float,
    xmax: float,
    alpha_low: float,
    alpha_high: float,
    min_tail: int,
    replicas: int,
    seed: int,
) -> Host:
    """Distances of synthetic data sets, each fitted like the data; pairs r n … r n + n - 1 of the stream make set r."""
    if replicas < 1:
        raise InvalidArgument("replicas", f"expected 1 or more, got {replicas}")
    ordered = _checked(values, xmax)
    n, n_below = len(ordered), int(np.searchsorted(ordered, fitted_xmin))
    reference = float(ordered[-1]) if n else fitted_xmin
    limits = _limits(reference, xmin, xmin_low, xmin_high, xmax, alpha_low, alpha_high, min_tail)
    logs, origin = log_ratio(ordered, reference), float(log_ratio(np.array(fitted_xmin), reference))
    rate = alpha - 1
    mass = mass_below(rate, limits.end - origin)
    drawn, share = (n - n_below, 1.0) if xmin > 0 else (n, (n - n_below) / n)
    distances = np.ones(replicas)
    for r in range(replicas):
        pairs = philox.uniform(seed, 2 * r * n, 2 * drawn).reshape(drawn, 2)
        replica = origin - np.log1p(-pairs[:, 1] * mass) / rate
        if share < 1:
            place = np.minimum(n_below - 1, (pairs[:, 1] * n_below).astype(np.int64))
            replica = np.where(pairs[:, 0] < share, replica, logs[place])
        first, _, _, distance, _ = _best(_sample(np.sort(replica)), limits)
        if first >= 0:
            distances[r] = distance
    return distances


# --- other laws -------------------------------------------------------------------------------------------------------

#: exp of what lies this far below the largest exponent is nothing in double precision.
_DROP = 45.0
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)


@dataclass(frozen=True)
class _Statistic:
    """w(u) of the family, divided by its largest value in the sample."""

    squares: bool
    top: float

    def __call__(self, u: Any) -> Any:
        if self.squares:
            return (u / self.top) ** 2
        if self.top < 1:
            return np.expm1(u) / math.expm1(self.top)
        # (eᵘ - 1) / (e^top - 1) for any top: what is larger than float64 has the exponent that ends the integral
        with np.errstate(over="ignore"):
            return (np.exp(u - self.top) - math.exp(-self.top)) / -math.expm1(-self.top)

    @property
    def log_scale(self) -> float:
        return 2 * math.log(self.top) if self.squares else self.top + math.log(-math.expm1(-self.top))

    def peak(self, a: float, k: float) -> float:
        if a >= 0 or k <= 0:
            return 0.0
        return -0.5 * a / k * self.top**2 if self.squares else max(0.0, math.log(-a / k) + self.log_scale)


def _moments(w: _Statistic, length: float, a: float, k: float) -> tuple[float, Host, Host]:
    """log Z, mean and covariance of (u, w) under exp(-a u - k w) / Z on [0, length], by quadrature."""

    def exponent(u: Any) -> Any:
        return -a * u - (k * w(u) if k > 0 else 0.0)

    peak = min(w.peak(a, k), length)
    top = float(exponent(peak))

    def low(u: float) -> bool:
        return float(exponent(u)) < top - _DROP

    def edge(out: float, inner: float) -> float:
        for _ in range(40):
            middle = 0.5 * (out + inner)
            out, inner = (middle, inner) if low(middle) else (out, middle)
        return out

    left = edge(0.0, peak) if low(0.0) else 0.0
    right = length
    if math.isinf(right):
        right = peak + 1
        while not low(right):
            right = peak + 2 * (right - peak)
    if low(right):
        right = edge(right, peak)
    nodes, weights = [], []
    for start, stop in ((left, peak), (peak, right)):
        panels = min(max(math.ceil((stop - start) / 1.5), 12), 2000)
        half = 0.5 * (stop - start) / panels
        nodes.append((start + half * (2 * np.arange(panels)[:, None] + 1 + _NODES)).reshape(-1))
        weights.append(np.tile(half * _WEIGHTS, panels))
    u, weight = np.concatenate(nodes), np.concatenate(weights)
    f = weight * np.exp(exponent(u) - top)
    total = float(np.sum(f))
    # moments about the peak, so that narrow laws lose nothing
    center = np.array([peak, float(w(peak))])
    offset = np.stack([u - center[0], w(u) - center[1]])
    mean = offset @ f / total
    return top + math.log(total), center + mean, (offset * f) @ offset.T / total - np.outer(mean, mean)


def _exp(x: float) -> float:
    # a rate per subnormal unit is infinite, not an error
    return math.exp(x) if x < 709 else math.inf


def _maximize(family: Callable[[float, float], Any], mean: Host, a: float, k: float) -> tuple[float, float, float]:
    """Newton's method on (a, k) · mean + log Z over k > 0, steps shortened until they keep k positive and descend."""
    at = np.array([a, k])
    log_z, expected, covariance = family(a, k)
    value = float(at @ mean) + log_z
    for _ in range(200):
        gradient = mean - expected
        det = covariance[0, 0] * covariance[1, 1] - covariance[0, 1] ** 2
        det = max(det, 1e-14 * covariance[0, 0] * covariance[1, 1])
        if not det > 0:
            break
        adjugate = np.array([[covariance[1, 1], -covariance[0, 1]], [-covariance[0, 1], covariance[0, 0]]])
        step = -adjugate @ gradient / det
        slope = float(gradient @ step)
        if not slope < -1e-24:
            break
        t = min(1.0, 0.9 * at[1] / -step[1]) if step[1] < 0 else 1.0
        for _ in range(60):
            there = at + t * step
            moments = family(float(there[0]), float(there[1]))
            after = float(there @ mean) + moments[0]
            if math.isfinite(after) and after <= value + 1e-4 * t * slope + 1e-15 * abs(value):
                break
            t *= 0.5
        else:
            break
        at, value, (log_z, expected, covariance) = there, after, moments
        if slope > -1e-20:
            break
    return float(at[0]), float(at[1]), log_z


def _maximize_held(
    family: Callable[[float, float], Any], mean_w: float, a: float, k: float
) -> tuple[float, float, float]:
    """The same along k alone, a held: where the mean of w, which falls with k, is that of the sample."""
    low, high = 0.0, math.inf
    log_z, expected, covariance = family(a, k)
    for _ in range(200):
        excess = float(expected[1]) - mean_w
        low, high = (k, high) if excess > 0 else (low, k)
        step = k * math.exp(min(max(excess / (float(covariance[1, 1]) * k), -3.0), 3.0))
        if not low < step < high:
            step = 2 * k if math.isinf(high) else 0.5 * (low + high)
        done = abs(step - k) <= 1e-14 * k
        k = step
        log_z, expected, covariance = family(a, k)
        if done:
            break
    return a, k, log_z


def compare_power_law(values: Host, alpha: float, xmin: float, xmax: float, law: str) -> dict[str, Any]:
    """Likelihood ratio of the power law with exponent alpha on [xmin, xmax] and another law, fitted there."""
    if law not in LAWS:
        raise InvalidArgument("law", f"expected one of {', '.join(map(repr, LAWS))}, got {law!r}")
    if not (xmin > 0 and xmax > xmin):
        raise InvalidArgument("xmax", "expected a number above xmin > 0")
    tail = values[(values >= xmin) & (values <= xmax)]
    if len(tail) == 0:
        raise InvalidArgument("values", "none lie in the tail of the fit")
    u = np.maximum(0.0, log_ratio(tail, xmin))
    top = float(np.max(u))
    if not top > 0:
        raise InvalidArgument("values", "all of the tail are equal")
    length = float(log_ratio(np.array(xmax), xmin)) if math.isfinite(xmax) else math.inf
    rate = alpha - 1
    log_mass = math.log(abs(rate / mass_below(rate, length)))
    w = _Statistic(law == "lognormal", top)
    stretched = w(u)
    mean = np.array([float(np.mean(u)), float(np.mean(stretched))])
    log_scale, log_xmin = w.log_scale, math.log(xmin)
    degenerate, second = False, 0.0
    if law == "exponential":
        # in w: density k exp(-k w) on [0, w(L)]
        end = length if math.isinf(length) else float(w(length))
        a, k = -1.0, rate_of_mean(float(mean[1]), end)
        if k > 0:
            log_z = log_scale - math.log(k / mass_below(k, end))
            first = _exp(math.log(k) - log_scale - log_xmin)
        else:  # uniform on [xmin, xmax]
            k, log_z, first, degenerate = 0.0, log_scale + math.log(end), 0.0, True
    else:
        at_zero = rate_of_mean(float(mean[0]), length)
        # the power law is the maximum where more weight on large w would not help
        expected = math.inf
        if math.isfinite(length):
            expected = float(_moments(w, length, at_zero, 0.0)[1][1])
        elif w.squares:
            expected = 2 * (float(mean[0]) / top) ** 2
        elif at_zero > 1:
            expected = math.exp(-math.log(at_zero - 1) - log_scale)
        degenerate = bool(mean[1] >= expected)
        if degenerate:
            a, k, log_z = rate, 0.0, -log_mass
        else:

            def family(p: float, q: float) -> Any:
                return _moments(w, length, p, q)

            a, k, log_z = _maximize(family, mean, 0.5 * at_zero, 0.5 / float(mean[1]))
            # an exponent below 1 is no power law any more; convex, so the best of the others lies on the border
            if law == "truncated_power_law" and a < min(0.0, rate):
                a, k, log_z = _maximize_held(family, float(mean[1]), min(0.0, rate), k)
        if law == "truncated_power_law":
            first, second = 1 + a, _exp(math.log(k) - log_scale - log_xmin) if k > 0 else 0.0
        elif degenerate:
            first, second = -math.inf, math.inf
        else:
            curvature = 2 * k / top**2  # 1 / σ²
            first, second = log_xmin - a / curvature, 1 / math.sqrt(curvature)
    terms = (log_mass - rate * u) - (-a * u - k * stretched - log_z)
    ratio, n = float(np.sum(terms)), len(terms)
    variance = float(np.mean((terms - ratio / n) ** 2))
    if law != "exponential" and degenerate:
        ratio = variance = 0.0  # the same law twice, up to rounding
    normalized = ratio / math.sqrt(n * variance) if variance > 0 else 0.0
    if law == "truncated_power_law":
        p_value = math.erfc(math.sqrt(abs(ratio)))  # χ², one degree of freedom, at 2 |ratio|
    else:
        p_value = math.erfc(abs(normalized) / math.sqrt(2)) if variance > 0 else 1.0
    return {
        "ratio": ratio,
        "normalized": normalized,
        "p_value": p_value,
        "first": first,
        "second": second,
        "degenerate": degenerate,
    }
