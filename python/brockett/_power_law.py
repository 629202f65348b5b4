"""Power-law tails of spectra."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import _arrays, _options
from ._errors import InvalidArgument, InvalidType
from ._marchenko_pastur import Vector, host_engine, nonnegative, spectrum

__all__ = ["PowerLawFit", "Scan", "TailComparison", "fit_power_law"]

#: Fewer values carry no verdict.
FEWEST = 10
#: The laws that a power law is compared with, and their parameters.
LAWS = {
    "truncated_power_law": ("alpha", "Lambda"),
    "lognormal": ("mu", "sigma"),
    "exponential": ("Lambda",),
}


@dataclass(frozen=True)
class TailComparison:
    """A power-law tail against another law fitted to the same tail.

    Attributes
    ----------
    ratio : float
        R = Σ log p_power_law(x) - log p_other(x). Positive: the power law is likelier.
    normalized : float
        R / (√n · standard deviation of the terms); 0 where the terms are all equal.
    p_value : float
        Chance of a ratio that far from 0 if neither law is better: small means that the sign of `ratio` can be trusted.
        erfc(\\|normalized\\|/√2) (Vuong); for the truncated power law, which contains the power law, χ² with one degree
        of freedom of 2\\|R\\|.
    parameters : mapping of str to float
        truncated_power_law, x^-alpha exp(-Lambda x): alpha ≥ 1, Lambda ≥ 0. lognormal: mu, sigma of log x.
        exponential: Lambda.
    degenerate : bool
        The other law is likeliest at the border of its parameters: Lambda = 0 or sigma infinite, where it *is* the
        power law and the ratio is 0; for the exponential Lambda = 0, the uniform law on [xmin, xmax], whose ratio
        stands.
    """

    ratio: float
    normalized: float
    p_value: float
    parameters: Mapping[str, float]
    degenerate: bool


@dataclass(frozen=True, eq=False)
class Scan:
    """All candidates for xmin that counted.

    Attributes
    ----------
    xmins, alphas, distances : ndarray (n_candidates,)
        Ascending xmin, the exponent and the Kolmogorov-Smirnov distance of its tail.
    """

    xmins: Vector
    alphas: Vector
    distances: Vector


@dataclass(frozen=True, eq=False)
class PowerLawFit:
    """A fitted power-law tail; see `fit_power_law`.

    Attributes
    ----------
    alpha : float or None
        Exponent of the density. None, like all numbers here, where there is no verdict; `declined` then says why.
    xmin : float or None
        Where the tail starts.
    xmax : float or None
        Where it was made to end.
    D : float or None
        Kolmogorov-Smirnov distance of the tail from the law.
    sigma : float or None
        Standard error of alpha.
    n_tail : int or None
        Values in the tail.
    n_values : int
        Positive values that were fitted (zeros and those above xmax left out).
    p_value : float or None
        Share of synthetic data sets further from their law than the data are; None without `bootstrap`.
    comparisons : mapping of str to TailComparison
        By law; empty without `compare`.
    scan : Scan or None
        Every candidate, with `return_scan`.
    declined : str or None
        Why there is no verdict.
    """

    alpha: float | None = None
    xmin: float | None = None
    xmax: float | None = None
    D: float | None = None
    sigma: float | None = None
    n_tail: int | None = None
    n_values: int = 0
    p_value: float | None = None
    comparisons: Mapping[str, TailComparison] = field(default_factory=dict)
    scan: Scan | None = None
    declined: str | None = None


def fit_power_law(
    eigs: Any,
    xmin: float | tuple[float, float] | None = None,
    xmax: float | None = None,
    *,
    alpha_range: tuple[float | None, float | None] | None = None,
    min_tail: int = 2,
    compare: bool = True,
    bootstrap: int = 0,
    seed: int = 0,
    return_scan: bool = False,
) -> PowerLawFit:
    """Fit p(x) = (α - 1)/xmin (x/xmin)^-α, x ≥ xmin, to the tail of a spectrum (Clauset, Shalizi and Newman).

    Parameters
    ----------
    eigs : array_like (n,)
        Eigenvalues, in any order and unit. Zeros carry no logarithm and are left out.
    xmin : float or (float, float), optional
        A given start of the tail; or a range in which it is looked for. By default every distinct value but the largest
        is a candidate.
    xmax : float, optional
        Values above are left out, and the law is cut and normalized there.
    alpha_range : (float or None, float or None), optional
        Only candidates with an exponent strictly inside count. (0, 3) does what the powerlaw package does since its
        version 2.0; off by default, because it moves xmin, and with it α, of every layer with an exponent above 3.
    min_tail : int, default 2
        Fewest values in the tail of a candidate. Raise it to keep a handful of outliers from being the tail.
    compare : bool, default True
        Fit the truncated power law, the lognormal and the exponential to the same tail, and give likelihood ratios.
    bootstrap : int, default 0
        Synthetic data sets for the p-value; 1,000 give it to 0.01, and cost as many fits.
    seed : int, default 0
        Of the synthetic data: the same numbers on every engine and any number of threads.
    return_scan : bool, default False
        Also return exponent and distance of every candidate, which makes the fit O(n²).

    Returns
    -------
    fit : PowerLawFit
        Declined, with its reason: fewer than 10 distinct positive values, or no candidate within the ranges.

    Raises
    ------
    NonFinite
        A NaN or Inf in eigs.
    InvalidArgument
        A negative value (beyond rounding); ranges that are empty; an option out of range.

    Notes
    -----
    For each xmin, α = 1 + n_tail/Σ log(x/xmin); with xmax the root of the likelihood equation of the law cut there. D
    is max |F(x) - share of the tail below x|, the distance of the published method and of the powerlaw and
    WeightWatcher packages, which looks at each step of the empirical distribution from the left. The smallest xmin
    within 1e-12 of the smallest D is taken. The scan is exact: candidates, and stretches of a tail, are left out only
    where a bound on the distance shows that they cannot matter (0.5 ms for 4,096 values). Working on logarithms, it
    does not depend on the unit.

    In the bootstrap each of the n values of a synthetic set is drawn from the law with probability n_tail/n, and from
    the values below xmin otherwise; it is fitted like the data (with a given xmin: n_tail values of the law). A small
    p-value (0.1, say) rules the power law out. The largest tail exponents of small matrices are biased upwards.

    References
    ----------
    A. Clauset, C. R. Shalizi, M. E. J. Newman, SIAM Review 51 (2009) 661; Q. H. Vuong, Econometrica 57 (1989) 307.

    Examples
    --------
    >>> import numpy as np, brockett as bk
    >>> x = (1 - np.random.default_rng(0).random(2000)) ** (-1 / 1.5)  # alpha = 2.5
    >>> fit = bk.random_matrix.fit_power_law(x, bootstrap=50)
    >>> abs(fit.alpha - 2.5) < 4 * fit.sigma, fit.p_value > 0.1, fit.comparisons["exponential"].ratio > 0
    (True, True, True)
    >>> bk.random_matrix.fit_power_law([1.0, 2.0]).declined
    '2 distinct positive values, a fit needs 10'
    """
    values = nonnegative(spectrum(eigs, "eigs"), "eigs")
    given, low, high = _xmin(xmin)
    end = math.inf if xmax is None else _above_zero("xmax", xmax)
    exponents = alpha_bounds(alpha_range)
    fewest = _options.count("min_tail", min_tail, least=2)
    wanted = _options.flag("compare", compare)
    replicas = _options.count("bootstrap", bootstrap)
    stream = _options.seed("seed", seed)
    whole = _options.flag("return_scan", return_scan)
    if end <= max(given, low):
        raise InvalidArgument("xmax", f"expected a number above xmin, got {xmax!r}")
    values = values[(values > 0) & (values <= end)]
    limit = None if math.isinf(end) else end
    distinct = len(np.unique(values))
    if distinct < FEWEST:
        reason = f"{distinct} distinct positive values, a fit needs {FEWEST}"
        return PowerLawFit(xmax=limit, n_values=len(values), declined=reason)
    arguments = (given, low, high, end, *exponents, fewest)
    module = host_engine().module
    with _arrays.user_errors(rename={"values": "eigs"}):
        found = module.fit_power_law(values, *arguments, whole)
    scan = Scan(*(np.asarray(found[name]) for name in ("xmins", "alphas", "distances"))) if whole else None
    if not found["found"]:
        start = max(given, low)
        tail = int((values >= start).sum())
        if start > 0 and tail < fewest:
            reason = f"{tail} values from xmin = {start:g} on (the largest is {values.max():g}), a fit needs {fewest}"
        else:
            reason = "no xmin has a tail of distinct values with an exponent in range"
        return PowerLawFit(xmax=limit, n_values=len(values), scan=scan, declined=reason)
    alpha, start, distance = float(found["alpha"]), float(found["xmin"]), float(found["distance"])
    p_value = None
    if replicas:
        synthetic = module.bootstrap_power_law(values, alpha, start, *arguments, replicas, stream)
        p_value = float(np.mean(np.asarray(synthetic) >= distance))
    comparisons = {}
    if wanted:
        for law, names in LAWS.items():
            other = module.compare_power_law(values, alpha, start, end, law)
            parameters = dict(zip(names, (float(other["first"]), float(other["second"])), strict=False))
            comparisons[law] = TailComparison(
                float(other["ratio"]),
                float(other["normalized"]),
                float(other["p_value"]),
                parameters,
                bool(other["degenerate"]),
            )
    return PowerLawFit(
        alpha=alpha,
        xmin=start,
        xmax=limit,
        D=distance,
        sigma=float(found["sigma"]),
        n_tail=int(found["n_tail"]),
        n_values=len(values),
        p_value=p_value,
        comparisons=comparisons,
        scan=scan,
    )


def _above_zero(argument: str, value: Any) -> float:
    number = _options.number(argument, value)
    if number <= 0:
        raise InvalidArgument(argument, f"expected a number above 0, got {value!r}")
    return number


def _pair(argument: str, value: Any) -> tuple[Any, Any]:
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise InvalidType(argument, f"expected two numbers (low, high), got {value!r}")
    return value[0], value[1]


def _xmin(value: Any) -> tuple[float, float, float]:
    """Given xmin (0: none), and the range of candidates."""
    if value is None:
        return 0.0, 0.0, math.inf
    if not isinstance(value, tuple | list):
        return _above_zero("xmin", value), 0.0, math.inf
    low, high = (_options.number("xmin", bound, least=0) for bound in _pair("xmin", value))
    if low > high:
        raise InvalidArgument("xmin", f"expected (low, high) with low at most high, got {value!r}")
    return 0.0, low, high


def alpha_bounds(value: Any) -> tuple[float, float]:
    # an exponent of at most 1 has no law without an end
    if value is None:
        return 1.0, math.inf
    low, high = _pair("alpha_range", value)
    least = 1.0 if low is None else _options.number("alpha_range", low)
    most = math.inf if high is None else _options.number("alpha_range", high)
    if not least < most:
        raise InvalidArgument("alpha_range", f"expected (low, high) with low < high, got {value!r}")
    return least, most
