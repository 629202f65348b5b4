"""Power-law tails: brute force, the powerlaw package's figures, SciPy's maxima, and invariances."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st

import brockett as bk
from brockett import _engine
from layers import PEERS, TAILS

rm = bk.random_matrix


def brute_force(x: Any) -> tuple[float, float, float]:
    """alpha, xmin, D of the best of all candidates."""
    x = np.sort(x)
    best = (0.0, 0.0, 2.0)
    for xmin in np.unique(x)[:-1]:
        tail = x[x >= xmin]
        alpha = 1 + len(tail) / np.sum(np.log(tail / xmin))
        below = np.searchsorted(tail, tail) / len(tail)
        D = np.max(np.abs(1 - (tail / xmin) ** (1 - alpha) - below))
        if best[2] - 1e-12 > D:
            best = (alpha, xmin, D)
    return best


@pytest.mark.parametrize("name", TAILS)
def test_scan_equals_brute_force(engine: str, name: str) -> None:
    x = TAILS[name]
    alpha, xmin, D = brute_force(x)
    for whole in (False, True):
        fit = rm.fit_power_law(x, return_scan=whole)
        assert fit.alpha == pytest.approx(alpha, rel=1e-12)
        assert fit.xmin == xmin
        assert pytest.approx(D, abs=1e-12) == fit.D
        assert fit.n_tail == np.count_nonzero(x >= xmin)
        assert fit.sigma == pytest.approx((alpha - 1) / math.sqrt(fit.n_tail))
        assert fit.p_value is fit.declined is None
    assert len(fit.scan.xmins) == len(np.unique(x)) - 1
    assert np.min(fit.scan.distances) == pytest.approx(D, abs=1e-12)
    assert fit.scan.alphas[np.argmin(fit.scan.distances)] == pytest.approx(alpha)


def test_4096_values_equal_brute_force() -> None:
    """The pruned scan at the size that it is meant for, compiled."""
    rng = np.random.default_rng(1)
    for x in (rng.pareto(1.5, 4096) + 1, rng.lognormal(size=4096), rng.random(4096), np.ceil(rng.pareto(2, 4096) * 9)):
        alpha, xmin, D = brute_force(x[x > 0])
        fit = rm.fit_power_law(x, compare=False)
        assert (fit.alpha, fit.xmin) == (pytest.approx(alpha, rel=1e-12), xmin)
        assert pytest.approx(D, abs=1e-12) == fit.D


@pytest.mark.parametrize("name", TAILS)
def test_powerlaw_package(engine: str, name: str) -> None:
    """powerlaw 1.5: fit, given xmin, and the three likelihood ratios; 2.0.0: its range of exponents."""
    x, theirs = TAILS[name], PEERS["tails"][name]
    fit = rm.fit_power_law(x)
    for field in ("alpha", "xmin", "D", "sigma", "n_tail"):
        assert getattr(fit, field) == pytest.approx(theirs[field], rel=1e-12), field
    half = rm.fit_power_law(x, xmin=float(np.quantile(x, 0.5)))
    assert half.alpha == pytest.approx(theirs["given"]["alpha"], rel=1e-12)
    if name != "ties":  # there the package's distance is from a step that starts at another value
        assert pytest.approx(theirs["given"]["D"], abs=1e-12) == half.D
    restricted = rm.fit_power_law(x, alpha_range=(0, 3))
    for field in ("alpha", "xmin", "D"):
        assert getattr(restricted, field) == pytest.approx(theirs["powerlaw 2.0.0"][field], rel=1e-10), field
    for law, ours in fit.comparisons.items():
        # theirs come from a simplex search that stops early
        assert ours.ratio == pytest.approx(theirs[law]["R"], abs=5e-5), law
        assert ours.p_value == pytest.approx(theirs[law]["p"], abs=2e-3), law
        for mine, its in zip(ours.parameters.values(), theirs[law]["parameters"], strict=False):
            assert mine == pytest.approx(its, rel=2e-3), law


def log_likelihood(x: Any, xmin: float, xmax: float, log_density: Any) -> float:
    """On [xmin, xmax], normalized by SciPy's quadrature over u = log(x / xmin)."""
    tail = x[(x >= xmin) & (x <= xmax)]
    end = min(math.log(xmax / xmin), 40.0)
    peak = max(log_density(xmin * math.exp(u)) + u for u in np.linspace(0, end, 200))
    mass, _ = scipy.integrate.quad(
        lambda u: math.exp(log_density(xmin * math.exp(u)) + u - peak), 0, end, epsabs=0, epsrel=1e-11, limit=500
    )
    return float(sum(log_density(v) for v in tail)) - len(tail) * (math.log(mass) + peak + math.log(xmin))


@pytest.mark.parametrize("xmax", [None, 5.0])
def test_other_laws_are_at_their_maxima(engine: str, xmax: float | None) -> None:
    x = TAILS["lognormal"]
    xmin, end = 0.8, xmax or math.inf
    fit = rm.fit_power_law(x, xmin, xmax, alpha_range=(-10, None))
    own = log_likelihood(x, xmin, end, lambda v: -fit.alpha * math.log(v))
    laws: dict[str, Any] = {
        "truncated_power_law": lambda p: lambda v: -p[0] * math.log(v) - p[1] * v,
        "lognormal": lambda p: lambda v: -math.log(v) - (math.log(v) - p[0]) ** 2 / (2 * p[1] ** 2),
        "exponential": lambda p: lambda v: -p[0] * v,
    }
    bounds = {
        "truncated_power_law": [(1, None), (0, None)],
        "lognormal": [(None, None), (1e-3, None)],
        "exponential": [(1e-9, None)],
    }
    for name, density in laws.items():
        ours = fit.comparisons[name]
        at = np.array(list(ours.parameters.values()))
        best = scipy.optimize.minimize(
            lambda p, density=density: -log_likelihood(x, xmin, end, density(p)),
            at * 1.05,
            method="Nelder-Mead",
            bounds=bounds[name],
            options={"xatol": 1e-5, "fatol": 1e-9},
        )
        assert ours.ratio == pytest.approx(own + best.fun, abs=2e-5), name
        np.testing.assert_allclose(at, best.x, rtol=2e-3, err_msg=name)
        # Vuong's normal approximation, from the terms themselves
        if name != "truncated_power_law":
            assert ours.p_value == pytest.approx(math.erfc(abs(ours.normalized) / math.sqrt(2)), rel=1e-12)
        else:
            assert ours.p_value == pytest.approx(math.erfc(math.sqrt(abs(ours.ratio))), rel=1e-12)


def test_exponential_terms_by_hand(engine: str) -> None:
    x = np.arange(1.0, 21.0)
    fit = rm.fit_power_law(x, xmin=1.0)
    ours = fit.comparisons["exponential"]
    rate = 1 / np.mean(x - 1)
    terms = np.log(fit.alpha - 1) - fit.alpha * np.log(x) - (np.log(rate) - rate * (x - 1))
    assert ours.parameters == {"Lambda": pytest.approx(rate, rel=1e-12)}
    assert ours.ratio == pytest.approx(np.sum(terms), rel=1e-12)
    assert ours.normalized == pytest.approx(np.sum(terms) / np.sqrt(20 * np.var(terms)), rel=1e-12)


def test_a_pure_power_law_is_where_its_rivals_end(engine: str) -> None:
    """Exact quantiles: no curvature, so that the laws that contain the power law are at their limit or near it."""
    x = (1 - (np.arange(200) + 0.5) / 200) ** (-1 / 1.5)
    degenerate = rm.fit_power_law(np.append(x, [4e3, 8e3]), xmin=1.0)
    for law in ("truncated_power_law", "lognormal"):
        found = degenerate.comparisons[law]
        assert found.degenerate
        assert (found.ratio, found.normalized, found.p_value) == (0, 0, 1)
    assert degenerate.comparisons["truncated_power_law"].parameters["Lambda"] == 0
    assert degenerate.comparisons["lognormal"].parameters == {"mu": -math.inf, "sigma": math.inf}
    assert degenerate.comparisons["exponential"].ratio > 100


# --- invariances ------------------------------------------------------------------------------------------------------

samples = st.lists(st.integers(1, 400), min_size=12, max_size=60).filter(lambda x: len(set(x)) >= 10)


@settings(max_examples=60, deadline=None)
@given(samples, st.integers(-200, 200), st.randoms(use_true_random=False))
def test_order_and_powers_of_two_change_nothing(values: list[int], power: int, random: Any) -> None:
    bk.set_engine("cpu")
    x = np.array(values, dtype=np.float64)
    shuffled = values[:]
    random.shuffle(shuffled)
    fit, other = rm.fit_power_law(x), rm.fit_power_law(np.ldexp(np.array(shuffled, dtype=np.float64), power))
    assert (other.alpha, other.D, other.n_tail) == (fit.alpha, fit.D, fit.n_tail)
    assert other.xmin == math.ldexp(fit.xmin, power)
    alpha, xmin, D = brute_force(x)
    assert (fit.alpha, fit.xmin) == (pytest.approx(alpha, rel=1e-11), xmin)
    assert pytest.approx(D, abs=1e-12) == fit.D


def test_any_unit(engine: str) -> None:
    x = TAILS["lognormal"]
    fit = rm.fit_power_law(x, bootstrap=20)
    for unit in (1e-305, 3e-9, 7e11, 1e300):
        other = rm.fit_power_law(x * unit, bootstrap=20)
        assert other.alpha == pytest.approx(fit.alpha, rel=1e-11)
        assert other.xmin == fit.xmin * unit
        assert pytest.approx(fit.D, abs=1e-12) == other.D
        assert other.p_value == fit.p_value
        for law, ours in fit.comparisons.items():
            assert other.comparisons[law].ratio == pytest.approx(ours.ratio, abs=1e-8), law


def test_engines_agree() -> None:
    options: list[dict[str, Any]] = [{}, {"xmax": 4.0}, {"xmin": 1.3}, {"xmin": (1.1, 2.0)}, {"alpha_range": (1.5, 4)}]
    for x in TAILS.values():
        for option in [*options, {"min_tail": 60}, {"xmax": 4.0, "alpha_range": (-9, None)}]:
            fits = []
            for name in ("cpu", "numpy"):
                bk.set_engine(name)
                fits.append(rm.fit_power_law(x, bootstrap=5, seed=3, return_scan=True, **option))
            one, two = fits
            assert one.declined == two.declined
            if one.declined:
                continue
            assert (one.xmin, one.n_tail, one.p_value) == (two.xmin, two.n_tail, two.p_value)
            assert one.alpha == pytest.approx(two.alpha, rel=1e-12)
            assert one.sigma == pytest.approx(two.sigma, rel=1e-10)
            np.testing.assert_allclose(one.scan.distances, two.scan.distances, atol=1e-13)
            for law, ours in one.comparisons.items():
                assert ours.ratio == pytest.approx(two.comparisons[law].ratio, rel=1e-7, abs=1e-8), law


# --- bootstrap --------------------------------------------------------------------------------------------------------


def test_bootstrap(engine: str) -> None:
    kept = rm.fit_power_law(TAILS["pareto"], bootstrap=60, seed=1)
    assert kept.p_value > 0.1
    # half of an exponential law above its median is far from any power law
    x = -np.log(1 - (np.arange(400) + 0.5) / 400)
    assert rm.fit_power_law(x, xmin=0.1, bootstrap=60).p_value == 0
    module = _engine.load(engine).module
    arguments = (kept.alpha, kept.xmin, 0.0, 0.0, math.inf, math.inf, 1.0, math.inf, 2)
    x = TAILS["pareto"]
    first = module.bootstrap_power_law(x, *arguments, 12, 1)
    assert np.array_equal(first[:5], module.bootstrap_power_law(x, *arguments, 5, 1))
    assert not np.array_equal(first[:5], module.bootstrap_power_law(x, *arguments, 5, 2))
    # the distances are those of samples of that law: about 0.8 / √n for the best xmin
    assert 0.3 < np.median(first) * math.sqrt(len(x)) < 1.2


def test_p_values_of_true_power_laws_are_spread_out() -> None:
    """Of 60 samples of a power law a tenth should have p < 0.1; more than 16 happen once in 10,000 such tests."""
    p = [
        rm.fit_power_law(np.random.default_rng(seed).pareto(1.5, 150) + 1, compare=False, bootstrap=100).p_value
        for seed in range(60)
    ]
    assert sum(value < 0.1 for value in p) <= 16
    assert sum(value < 0.5 for value in p) > 12


# --- what is declined or refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "options", "reason"),
    [
        ([], {}, "0 distinct positive values"),
        (range(1, 10), {}, "9 distinct positive values, a fit needs 10"),
        ([3.0] * 50, {}, "1 distinct positive values"),
        ([0.0] * 50, {}, "0 distinct positive values"),
        (range(1, 30), {"xmax": 5}, "5 distinct positive values"),
        (range(1, 30), {"min_tail": 100}, "no xmin has a tail"),
        (range(1, 30), {"xmin": 29.5}, "0 values from xmin = 29.5 on (the largest is 29)"),
        (range(1, 30), {"alpha_range": (200, 201)}, "exponent in range"),
        (range(1, 30), {"xmin": (100, 200)}, "0 values from xmin = 100 on"),
    ],
)
def test_fit_is_declined_with_its_reason(engine: str, x: Any, options: dict[str, Any], reason: str) -> None:
    fit = rm.fit_power_law(np.array(list(x), dtype=np.float64), bootstrap=3, **options)
    assert reason in fit.declined
    assert fit.alpha is fit.xmin is fit.D is fit.sigma is fit.n_tail is fit.p_value is None
    assert fit.comparisons == {}


def test_zeros_and_rounding_below_zero_are_left_out(engine: str) -> None:
    x = TAILS["pareto"]
    fit = rm.fit_power_law(np.concatenate([x, np.zeros(30), [-1e-16]]))
    assert fit.alpha == rm.fit_power_law(x).alpha
    assert fit.n_values == 400


@pytest.mark.parametrize(
    ("call", "argument", "message"),
    [
        (lambda x: rm.fit_power_law(-x), "eigs", "at least 0, got -12.0 at index 0"),
        (lambda x: rm.fit_power_law(np.where(x == 5, np.inf, x)), "eigs", r"NaN or Inf at index \(7,\)"),
        (lambda x: rm.fit_power_law(x.reshape(3, 4)), "eigs", r"got shape \(3, 4\)"),
        (lambda x: rm.fit_power_law("12"), "eigs", "array"),
        (lambda x: rm.fit_power_law(x, 0), "xmin", "above 0"),
        (lambda x: rm.fit_power_law(x, -1), "xmin", "above 0"),
        (lambda x: rm.fit_power_law(x, (3, 2)), "xmin", "low at most high"),
        (lambda x: rm.fit_power_law(x, (3, 2, 1)), "xmin", "two numbers"),
        (lambda x: rm.fit_power_law(x, np.nan), "xmin", "finite"),
        (lambda x: rm.fit_power_law(x, 4, 3), "xmax", "above xmin, got 3"),
        (lambda x: rm.fit_power_law(x, xmax=0), "xmax", "above 0"),
        (lambda x: rm.fit_power_law(x, alpha_range=3), "alpha_range", "two numbers"),
        (lambda x: rm.fit_power_law(x, alpha_range=(3, 1)), "alpha_range", "low < high"),
        (lambda x: rm.fit_power_law(x, alpha_range=(None, 1)), "alpha_range", "low < high"),
        (lambda x: rm.fit_power_law(x, min_tail=1), "min_tail", "2 or more"),
        (lambda x: rm.fit_power_law(x, bootstrap=-1), "bootstrap", "0 or more"),
        (lambda x: rm.fit_power_law(x, bootstrap=True), "bootstrap", "an integer"),
        (lambda x: rm.fit_power_law(x, compare=1), "compare", "True or False"),
        (lambda x: rm.fit_power_law(x, seed=-1), "seed", "0 or more"),
    ],
)
def test_bad_arguments(engine: str, call: Any, argument: str, message: str) -> None:
    with pytest.raises(bk.InvalidArgument, match=message) as caught:
        call(np.arange(12.0, 0.0, -1.0))
    assert caught.value.argument == argument


@pytest.mark.parametrize("xmin", [50.0, (50.0, 60.0)])
def test_xmin_beyond_the_data_is_said(xmin: Any) -> None:
    found = bk.random_matrix.fit_power_law(np.arange(1.0, 41.0), xmin=xmin)
    assert found.alpha is None
    assert found.declined == "0 values from xmin = 50 on (the largest is 40), a fit needs 2"
