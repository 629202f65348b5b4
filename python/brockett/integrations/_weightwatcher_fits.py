"""The two fits that WeightWatcher spends its time in: the power-law tail and the Marchenko-Pastur density."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .._power_law import fit_power_law

__all__ = ["fast_density_fit", "fast_pl_fit"]

POWER_LAW, WW_PACKAGE = "power_law", "ww"

#: Fewer values are fitted by a rule of WeightWatcher's own.
SMALL = 20
#: WeightWatcher compares densities at this many points, and where the smoothed one is above this.
POINTS, LEAST_DENSITY = 1000, 0.01


def fast_pl_fit(WWFit: type[Any], original: Callable[..., Any]) -> Callable[..., Any]:
    """pl_fit: WWFit's power law by brockett's scan over all xmin; every other fit by the original."""

    class Fit(WWFit):  # type: ignore[misc]
        """A WWFit whose best xmin is known; what plots need of every xmin is made when it is asked for."""

        def __init__(self, values: np.ndarray, first: int, last: int, start: int) -> None:
            # not WWFit's: that would scan again
            self.i_min, self.i_max = first, last
            self.xmax = values[last]
            self.distribution = POWER_LAW
            self.dists = {POWER_LAW: self}
            self._scanned = values[first : last + 1]
            self.N = len(self._scanned)
            self.xmins = self._scanned[:-1]
            self.data = self._scanned[start:]
            self.xmin = self._scanned[start]
            self.alpha, self.D = tail(self._scanned, np.log(self._scanned), start)
            self.sigma = (self.alpha - 1) / np.sqrt(self.N - start)

        def __getattr__(self, item: str) -> Any:
            if item in ("alphas", "Ds", "sigmas") and "_scanned" in self.__dict__:
                logs = np.log(self._scanned)
                found = np.array([tail(self._scanned, logs, i) for i in range(self.N - 1)])
                self.alphas, self.Ds = np.ascontiguousarray(found.T)
                self.sigmas = (self.alphas - 1) / np.sqrt(self.N - np.arange(self.N - 1))
                return self.__dict__[item]
            if item == "dists":  # not there yet: WWFit's own look-up would ask for it for ever
                raise AttributeError(item)
            return super().__getattr__(item)

    def pl_fit(
        data: Any = None,
        xmin: Any = None,
        xmax: Any = None,
        verbose: bool = False,
        distribution: str = POWER_LAW,
        pl_package: str = WW_PACKAGE,
    ) -> Any:
        if pl_package == WW_PACKAGE and distribution == POWER_LAW:
            values = np.sort(np.asarray(data, dtype=np.float64))
            if len(values) >= SMALL and not isinstance(xmin, tuple):
                # WWFit starts and ends at the values next to xmin and xmax; "force" is the largest
                first = 0 if xmin is None else int(np.argmin(np.abs(values - xmin)))
                whole = xmax is None or xmax == "force"
                last = len(values) - 1 if whole else int(np.argmin(np.abs(values - xmax)))
                start = best_start(values[first : last + 1])
                if start is not None:
                    return Fit(values, first, last, start)
        return original(data, xmin, xmax, verbose, distribution, pl_package)

    return pl_fit


def best_start(values: np.ndarray) -> int | None:
    """Index of the xmin of ascending values; None where the two scans would not look at the same candidates."""
    if len(values) < SMALL or not 0 < values[0] <= values[-1] < np.inf or np.any(values[1:] == values[:-1]):
        return None
    xmin = fit_power_law(values, compare=False).xmin
    return None if xmin is None else int(np.searchsorted(values, xmin))


def tail(values: np.ndarray, logs: np.ndarray, start: int) -> tuple[float, float]:
    """Exponent and distance of the tail from index `start`, by the sums that WWFit takes, to its last bit."""
    n = float(len(values) - start)
    alpha = 1 + n / (np.sum(logs[start:]) - n * logs[start])
    below = 1 - (values[start:] / values[start]) ** (-alpha + 1)
    return alpha, np.max(np.abs(below - np.arange(n) / n)) if alpha > 1 else 1.0


def fast_density_fit(calc_sigma: Callable[[float, np.ndarray], float]) -> Callable[..., tuple[float, float]]:
    """fit_density_with_range: the σ of the Marchenko-Pastur density nearest to a smoothed spectrum.

    The density of the eigenvalues is estimated once, where WeightWatcher does so anew for each of some 230 values of σ,
    on which it does not depend. The estimate is scikit-learn's, the search SciPy's, as there, so that σ is the same.
    """

    def fit_density_with_range(
        evals: Any, Q: float, bw: float = 0.1, sigma_range: Any = (slice(0.1, 1.25, 0.01),)
    ) -> tuple[float, float]:
        from scipy import optimize

        if not isinstance(sigma_range, tuple) or not isinstance(sigma_range[0], slice):
            raise AssertionError("sigma_range must be a tuple of slices")
        unit = calc_sigma(Q, evals)
        distance = density_distance(np.sqrt(evals) if Q == 1 else np.asarray(evals), Q, bw)
        # the range that is given is not used there either
        grid = np.mgrid[0.05 * unit : 2.0 * unit : 0.01 * unit]
        start = grid[np.argmin(distance(grid))]
        found = optimize.fmin(lambda s: distance(s)[0], start, full_output=True, disp=False)
        return found[0][0], found[1]

    return fit_density_with_range


def density_distance(values: np.ndarray, Q: float, bandwidth: float) -> Callable[[np.ndarray], np.ndarray]:
    """Of standard deviations σ, the sum of squares between the law's density and that of the values.

    Marchenko-Pastur's for eigenvalues, the quarter circle's for singular values (Q = 1), where the values' own is above
    0.01. A law whose upper edge lies beyond that stretch, or whose support misses the mode, is at 1000 from each point.
    """
    from sklearn.neighbors import KernelDensity

    estimate = KernelDensity(kernel="linear", bandwidth=bandwidth).fit(values.reshape(-1, 1))
    at = np.linspace(0, np.max(values) + 0.5, POINTS)
    density = np.exp(estimate.score_samples(at[:, np.newaxis]))
    kept = density > LEAST_DENSITY
    padding = np.count_nonzero(density < LEAST_DENSITY)
    x, y = at[kept], density[kept]
    mode = x[np.argmax(y)] if Q != 1 else 0.0

    def distance(sigma: np.ndarray) -> np.ndarray:
        s = np.reshape(sigma, (-1, 1))
        with np.errstate(all="ignore"):
            if Q == 1:
                law = np.nan_to_num((1 / (np.pi * s * s)) * np.sqrt(4 - x**2))
                off = np.zeros(len(s), dtype=bool)
            else:
                lower, upper = (np.power(s * (1 + sign * np.sqrt(1 / Q)), 2) for sign in (-1, 1))
                law = np.nan_to_num((1 / (2 * np.pi * s * s * x * (1 / Q))) * np.sqrt((upper - x) * (x - lower)))
                off = ((upper < mode) | (upper > x[-1]) | (lower > mode))[:, 0]
        residual = np.where(off[:, np.newaxis], 1000.0, law - y)
        # zeros where there is no density: they do not change the sum, but the order in which it is taken
        padded = np.concatenate([residual, np.zeros((len(s), padding))], axis=1)
        return np.asarray(np.sum(padded**2, axis=1))

    return distance
