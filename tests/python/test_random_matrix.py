"""The Marchenko-Pastur law, Tracy and Widom's, and the bulk and spikes of a spectrum."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.integrate
import scipy.special
from mpmath import mp, mpf

import brockett as bk
from brockett import _engine

rm = bk.random_matrix


def exact_cdf(angle: float, Q: float) -> float:
    """∫ of the density up to 1 + s² - 2 s cos(angle), by mpmath."""
    with mp.workdps(30):
        s = 1 / mp.sqrt(mpf(Q))

        def density(t: Any) -> Any:
            x = (1 - s) ** 2 + 4 * s * mp.sin(t / 2) ** 2
            return 2 * mp.sin(t) ** 2 / (mp.pi * x) if x > 0 else 2 / mp.pi

        # near Q = 1 the integrand has a dip of width 1 - s at 0
        points = [0, *(mpf(angle) * mpf(10) ** -k for k in (5, 4, 3, 2, 1)), angle]
        return float(mp.quad(density, points))


@pytest.mark.parametrize("Q", [1.0, 1.0001, 2.0, 60.0, 70.0, 1e4, 1e9])
def test_cdf_is_the_integral_of_the_density(engine: str, Q: float) -> None:
    law = rm.marchenko_pastur(Q, 0.7)
    s = 1 / math.sqrt(Q)
    for angle in (1e-3, 0.3, 1.6, 2.9, 3.14):
        # the point itself is only known to ε, and the support is 4 s wide
        x = 0.7 * ((1 - s) ** 2 + 4 * s * math.sin(angle / 2) ** 2)
        assert law.cdf(x) == pytest.approx(exact_cdf(angle, Q), abs=1e-12 + 5e-16 / s)
    p = np.array([0.0, 1e-9, 1e-3, 0.2, 0.5, 0.9, 1 - 1e-9, 1.0])
    x = law.quantile(p)
    assert (x[0], x[-1]) == law.support
    assert np.all(np.diff(x) > 0)
    np.testing.assert_allclose(law.cdf(x), p, atol=1e-13 + 5e-16 / s)
    np.testing.assert_array_equal(law.ppf(p), x)


def test_support_of_one_point(engine: str) -> None:
    law = rm.marchenko_pastur(1e300)
    assert law.support == (1.0, 1.0)
    assert [law.cdf(x) for x in (0.5, 1.0, 2.0)] == [0, 1, 1]


@pytest.mark.parametrize("Q", [0.1, 0.5, 1.0, 3.0, 40.0])
def test_density(engine: str, Q: float) -> None:
    law = rm.marchenko_pastur(Q, 2.0)
    a, b = law.support
    assert a == pytest.approx(2 * (1 - Q**-0.5) ** 2, abs=1e-15)
    assert b == pytest.approx(2 * (1 + Q**-0.5) ** 2)
    x = np.linspace(a, b, 7)[1:-1]
    np.testing.assert_allclose(law.pdf(x), Q * np.sqrt((b - x) * (x - a)) / (4 * np.pi * x), rtol=1e-12)
    outside = np.array([-np.inf, -1.0, 0.0, a, b, b + 1, np.inf])
    np.testing.assert_array_equal(law.pdf(outside), 0)
    np.testing.assert_array_equal(np.isfinite(law.cdf(outside)), True)
    mass, _ = scipy.integrate.quad(lambda t: law.pdf(a + (b - a) * t * t) * 2 * t * (b - a), 0, 1, limit=200)
    assert mass == pytest.approx(min(1, Q), rel=1e-7)
    assert law.point_mass == max(0, 1 - Q)
    assert law.cdf(0.0) == law.cdf(a) == pytest.approx(1 - min(1, Q))
    assert law.cdf(-1e-300) == 0
    assert law.cdf(b) == 1
    if Q < 1:
        assert law.quantile(0.9 * (1 - Q)) == 0
    assert np.isnan(law.cdf(np.nan))
    assert np.isnan(law.pdf(np.nan))


def test_shapes_and_libraries(engine: str) -> None:
    law = rm.marchenko_pastur(2)
    x = np.linspace(0, 3, 6).reshape(2, 3)
    assert law.cdf(x).shape == law.pdf(x).shape == (2, 3)
    assert isinstance(law.cdf(1), float)
    assert law.cdf([1.0, 2.0]).shape == (2,)
    torch = pytest.importorskip("torch")
    assert isinstance(law.cdf(torch.tensor([1.0, 2.0])), torch.Tensor)


def fredholm(x: float) -> float:
    """F₁ by Bornemann's method on SciPy's Airy function."""
    t, w = np.polynomial.legendre.leggauss(60)
    u = x + 9 * (t + 1)
    r = np.sqrt(9 * w)
    K = 0.5 * scipy.special.airy((u[:, None] + u) / 2)[0] * r[:, None] * r
    return float(np.linalg.det(np.eye(60) - K))


def test_tracy_widom(engine: str) -> None:
    module = _engine.load(engine).module
    x = np.array([-8.0, -5.0, -3.0, -1.2, 0.0, 1.0, 3.0, 6.0])
    np.testing.assert_allclose(module.tracy_widom_cdf(x), [fredholm(v) for v in x], atol=1e-8)
    for p in (1e-4, 0.05, 0.5, 0.95, 0.99, 0.999):
        assert fredholm(module.tracy_widom_quantile(p)) == pytest.approx(p, abs=1e-8)


def test_edge(engine: str, rng: np.random.Generator) -> None:
    law = rm.marchenko_pastur(2.0, 3.0)
    edge = law.edge(100)
    assert edge.cdf(edge.quantile(0.9)) == pytest.approx(0.9, abs=1e-7)
    assert abs(edge.location - law.support[1]) < 2 * edge.scale
    n, m = 100, 200
    largest = [3 * np.linalg.norm(rng.normal(size=(m, n)), 2) ** 2 / m for _ in range(400)]
    for p in (0.1, 0.5, 0.9):
        share = np.mean(np.array(largest) < edge.quantile(p))
        assert abs(share - p) < 4 * math.sqrt(p * (1 - p) / 400), p
    # fewer rows than columns: the eigenvalues that do not vanish are those of the transpose, 1 / Q times as large
    wide = rm.marchenko_pastur(0.5, 3.0).edge(200)
    assert wide.location == pytest.approx(2 * edge.location)
    assert wide.scale == pytest.approx(2 * edge.scale)


# --- bulk and spikes --------------------------------------------------------------------------------------------------


def test_noise_has_no_spikes(engine: str, rng: np.random.Generator) -> None:
    for n, m in ((300, 300), (200, 500), (100, 3000)):
        eigs = np.linalg.svd(rng.normal(size=(n, m)), compute_uv=False) ** 2 / m
        fit = rm.fit_bulk(eigs, m / n)
        assert fit.declined is None
        assert fit.n_spikes == 0
        assert fit.variance == pytest.approx(1, abs=0.05)
        assert fit.ks < 5 / n
        assert 0.9 < fit.soft_rank < 1.1
        lower, upper = fit.support
        assert (lower, upper) == pytest.approx(((1 - (n / m) ** 0.5) ** 2, (1 + (n / m) ** 0.5) ** 2), abs=0.1)


def test_false_spikes_are_as_rare_as_asked_for(engine: str) -> None:
    """200 draws at 5 %: more than 26 or none at all happen once in 10,000 such tests."""
    false = 0
    for seed in range(200):
        W = np.random.default_rng(seed).normal(size=(120, 360))
        false += rm.fit_bulk(np.linalg.svd(W, compute_uv=False) ** 2, 3.0, significance=0.05).n_spikes > 0
    assert 0 < false <= 26


@pytest.mark.parametrize("shape", [(300, 600), (250, 250), (600, 150)])
def test_planted_spikes(engine: str, shape: tuple[int, int], rng: np.random.Generator) -> None:
    n, m = shape
    larger, smaller = max(shape), min(shape)
    strengths = np.array([16.0, 9.0, 4.0])  # of the noise variance, far above the threshold √(smaller/larger)
    errors, cosines = [], []
    for _ in range(6):
        U, V = (np.linalg.qr(rng.normal(size=(k, 3)))[0] for k in shape)
        W = 0.2 * (rng.normal(size=shape) + np.sqrt(larger) * (U * np.sqrt(strengths)) @ V.T)
        left, s, right = np.linalg.svd(W, full_matrices=False)
        fit = rm.fit_bulk(s**2 / larger, larger / smaller)
        assert fit.n_spikes == 3
        np.testing.assert_allclose(fit.spikes, s[:3] ** 2 / larger, rtol=1e-12)
        assert fit.variance == pytest.approx(0.04, rel=0.06)
        errors.append(fit.strengths / 0.04 / strengths)
        both = np.sum((left[:, :3].T @ U) ** 2, axis=1), np.sum((right[:3] @ V) ** 2, axis=1)
        long, short = both if n >= m else both[::-1]
        cosines.append((long - fit.overlaps_larger, short - fit.overlaps_smaller))
        # the spike itself is larger than its strength: that is what is corrected
        assert np.all(fit.spikes > 1.02 * fit.strengths)
    np.testing.assert_allclose(np.mean(errors, axis=0), 1, atol=0.06)
    np.testing.assert_allclose(np.mean(cosines, axis=0), 0, atol=0.05)


def test_bulk_in_any_order_and_unit(engine: str, rng: np.random.Generator) -> None:
    eigs = np.linalg.svd(rng.normal(size=(60, 80)) + 3, compute_uv=False) ** 2
    fit = rm.fit_bulk(eigs, 80 / 60)
    assert fit.n_spikes == 1
    for unit in (1e-290, 3e-7, 1e280):
        other = rm.fit_bulk(rng.permutation(eigs) * unit, 80 / 60)
        assert other.n_spikes == 1
        assert other.variance == pytest.approx(fit.variance * unit, rel=1e-12)
        assert other.ks == pytest.approx(fit.ks, abs=1e-12)
        assert other.soft_rank == pytest.approx(fit.soft_rank, rel=1e-12)
        np.testing.assert_allclose(other.strengths, fit.strengths * unit, rtol=1e-10)
        np.testing.assert_allclose(other.support, np.array(fit.support) * unit, rtol=1e-12)


def test_pooled_slices(engine: str, rng: np.random.Generator) -> None:
    slices = [np.linalg.svd(rng.normal(size=(40, 50)), compute_uv=False) ** 2 / 50 for _ in range(9)]
    noise = rm.fit_bulk(np.concatenate(slices), 1.25, n_matrices=9)
    assert noise.n_spikes == 0
    # none of nine is to have a false spike
    edge = rm.marchenko_pastur(1.25, noise.variance).edge(40)
    assert noise.cut == pytest.approx(edge.quantile(0.99 ** (1 / 9)), rel=1e-9)
    slices[3] = np.append(slices[3][1:], 6.0)
    fit = rm.fit_bulk(np.concatenate(slices), 1.25, n_matrices=9)
    assert fit.n_spikes == 1
    assert fit.variance == pytest.approx(1, abs=0.05)
    # the largest of nine matrices of 40 columns lies further out than that of one of 360
    alone = rm.fit_bulk(np.concatenate(slices), 1.25)
    assert fit.cut > alone.cut


def test_zeros_are_columns_that_are_not_there(engine: str, rng: np.random.Generator) -> None:
    W = rng.normal(size=(300, 200))
    W[:, 120:] = 0
    fit = rm.fit_bulk(np.linalg.svd(W, compute_uv=False) ** 2 / 300, 1.5)
    assert fit.n_zero == 80
    assert fit.n_spikes == 0
    assert fit.variance == pytest.approx(1, abs=0.05)
    assert fit.ks < 0.05


@pytest.mark.parametrize(
    ("eigs", "reason"),
    [
        ([], "no eigenvalues"),
        ([1.0] * 9, "9 eigenvalues above rounding, a fit needs 10"),
        ([0.0] * 50, "0 eigenvalues above rounding"),
        ([1.0] * 5 + [0.0] * 50, "5 eigenvalues above rounding"),
        (2.0 ** np.arange(60), "lie above the bulk's edge: no bulk"),
    ],
)
def test_bulk_is_declined_with_its_reason(engine: str, eigs: Any, reason: str) -> None:
    fit = rm.fit_bulk(np.array(eigs), 1.0)
    assert reason in fit.declined
    assert fit.variance is fit.support is fit.cut is fit.n_spikes is fit.ks is fit.soft_rank is None
    assert len(fit.spikes) == 0


def test_equal_eigenvalues_are_no_marchenko_pastur_bulk(engine: str) -> None:
    fit = rm.fit_bulk(np.full(50, 3.0), 1.0)
    assert fit.declined is None
    assert fit.n_spikes == 0
    assert fit.ks == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("call", "argument", "message"),
    [
        (lambda x: rm.fit_bulk(x, 0.5), "Q", "at least 1, got 0.5"),
        (lambda x: rm.fit_bulk(x, np.nan), "Q", "finite"),
        (lambda x: rm.fit_bulk(x, "2"), "Q", "a number"),
        (lambda x: rm.fit_bulk(-x, 1), "eigs", "at least 0, got -12.0"),
        (lambda x: rm.fit_bulk(x * np.nan, 1), "eigs", r"index \(0,\)"),
        (lambda x: rm.fit_bulk(x[None], 1), "eigs", r"1-D array, got shape \(1, 12\)"),
        (lambda x: rm.fit_bulk(x * 1j, 1), "eigs", "complex"),
        (lambda x: rm.fit_bulk(x, 1, significance=0.9), "significance", "0.9"),
        (lambda x: rm.fit_bulk(x, 1, significance=0), "significance", "1e-6"),
        (lambda x: rm.fit_bulk(x, 1, n_matrices=0), "n_matrices", "1 or more"),
        (lambda x: rm.fit_bulk(x, 1, n_matrices=13), "n_matrices", "13 matrices cannot have 12 eigenvalues"),
        (lambda x: rm.marchenko_pastur(0), "Q", "above 0"),
        (lambda x: rm.marchenko_pastur(np.inf), "Q", "finite"),
        (lambda x: rm.marchenko_pastur(1, -1), "variance", "above 0"),
        (lambda x: rm.marchenko_pastur(1, 1e308), "variance", "overflows"),
        (lambda x: rm.marchenko_pastur(2).quantile(1.5), "p", "a probability, got 1.5"),
        (lambda x: rm.marchenko_pastur(2).quantile(np.nan), "p", "a probability"),
        (lambda x: rm.marchenko_pastur(2).edge(0), "n", "1 or more"),
        (lambda x: rm.marchenko_pastur(0.01).edge(5), "n", "less than one row"),
        (lambda x: rm.marchenko_pastur(2).edge(5).quantile(1), "p", "1e-6"),
    ],
)
def test_bad_arguments(engine: str, call: Any, argument: str, message: str) -> None:
    with pytest.raises(bk.InvalidArgument, match=message) as caught:
        call(np.arange(12.0, 0.0, -1.0))
    assert caught.value.argument == argument


def test_spectra_of_any_library(engine: str) -> None:
    torch, strict = pytest.importorskip("torch"), pytest.importorskip("array_api_strict")
    x = np.arange(1.0, 41.0)
    expected = rm.fit_bulk(x, 1.5).variance
    before = x.copy()
    for eigs in (x.tolist(), x[::-1], x.astype(np.float32), torch.tensor(x), x.astype(int), np.repeat(x, 2)[::2]):
        assert rm.fit_bulk(eigs, 1.5).variance == pytest.approx(expected, rel=1e-6)
    np.testing.assert_array_equal(x, before)
    bk.set_engine("auto")
    assert rm.fit_bulk(strict.asarray(x), 1.5).variance == pytest.approx(expected)
