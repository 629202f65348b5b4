"""Singular value decompositions through the façade: shapes, options, batches, signs, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.linalg

import brockett as bk


def check(A: Any, result: bk.SVDResult, rank: int, tolerance: float) -> None:
    """Orthonormal factors, SciPy's singular values, and the residual as it says."""
    U, s, Vt = (np.asarray(part, dtype=np.float64) for part in result)
    A = np.asarray(A, dtype=np.float64)
    assert (U.shape, s.shape, Vt.shape) == ((len(A), rank), (rank,), (rank, A.shape[1]))
    np.testing.assert_allclose(U.T @ U, np.eye(rank), atol=tolerance)
    np.testing.assert_allclose(Vt @ Vt.T, np.eye(rank), atol=tolerance)
    np.testing.assert_allclose(s, scipy.linalg.svdvals(A)[:rank], atol=tolerance * max(1.0, float(s[0])))
    measured = max(np.linalg.norm(A @ Vt.T - U * s, axis=0).max(), np.linalg.norm(A.T @ U - Vt.T * s, axis=0).max())
    assert result.residual == pytest.approx(measured / s[0], abs=tolerance / 10, rel=0.1)
    assert np.all(Vt[np.arange(rank), np.abs(Vt).argmax(axis=1)] > 0)
    assert result.rank == rank


@pytest.mark.parametrize("method", ["auto", "exact", "gram", "krylov", "quick"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (9, 4), (4, 9), (13, 13)])
def test_svd(engine: str, method: str, dtype: Any, shape: tuple[int, int], rng: np.random.Generator) -> None:
    A = rng.normal(size=shape).astype(dtype)
    tolerance = 1e-5 if dtype == np.float32 else 1e-7 if method == "gram" else 1e-11
    for rank in (None, 1, min(shape)):
        result = bk.svd(A, rank, method=method)
        check(A, result, rank or min(shape), tolerance)
        assert result.method == method or method == "auto"
        assert result.U.dtype == result.Vt.dtype == dtype
        assert result.s.dtype == np.float64


def test_frobenius_tolerance_chooses_the_rank(engine: str, rng: np.random.Generator) -> None:
    s = np.array([8.0, 4.0, 2.0, 1.0, 0.5])
    U, _ = np.linalg.qr(rng.normal(size=(7, 5)))
    V, _ = np.linalg.qr(rng.normal(size=(6, 5)))
    A = U * s @ V.T
    norm = np.linalg.norm(s)
    for rank in range(1, 5):
        tail = np.linalg.norm(s[rank:]) / norm
        assert bk.svd(A, frobenius_tol=tail * 1.001).rank == rank
        assert bk.svd(A, frobenius_tol=tail * 0.999).rank == rank + 1
    assert bk.svd(A, rank=2, frobenius_tol=1e-9).rank == 2


@pytest.mark.parametrize("lead", [(1,), (3,), (2, 3), (2, 1, 2)])
def test_batches(engine: str, lead: tuple[int, ...], rng: np.random.Generator) -> None:
    A = rng.normal(size=(*lead, 4, 6))
    many = bk.svd(A, rank=3)
    values, info = bk.singular_values(A, return_info=True)
    assert many.U.shape == (*lead, 4, 3)
    assert many.s.shape == (*lead, 3)
    assert many.Vt.shape == (*lead, 3, 6)
    assert many.residual.shape == lead
    assert values.shape == info.unresolved.shape == (*lead, 4)
    assert info.n_resolved.shape == info.bound.shape == lead
    for index in np.ndindex(*lead):
        one = bk.svd(A[index], rank=3)
        np.testing.assert_allclose(many.U[index], one.U, atol=1e-13)
        np.testing.assert_allclose(many.Vt[index], one.Vt, atol=1e-13)
        np.testing.assert_allclose(many.s[index], one.s, rtol=1e-13)
        np.testing.assert_allclose(values[index], scipy.linalg.svdvals(A[index]), rtol=1e-10)


def test_batches_of_any_layout(engine: str, rng: np.random.Generator) -> None:
    A = rng.normal(size=(3, 4, 5))
    expected = bk.svd(A).s
    for a in (
        A.swapaxes(-1, -2).copy().swapaxes(-1, -2),
        np.asfortranarray(A),
        np.repeat(A, 2, axis=0)[::2],
        np.repeat(A, 2, axis=2)[..., ::2],
        A[::-1].copy()[::-1],
    ):
        np.testing.assert_allclose(bk.svd(a).s, expected, rtol=1e-12)
        np.testing.assert_allclose(bk.singular_values(a), expected, rtol=1e-10)


def test_the_seed_of_quick_is_the_same_everywhere(rng: np.random.Generator) -> None:
    A = rng.normal(size=(30, 20))
    options: dict[str, Any] = {"rank": 3, "method": "quick", "iterations": 0, "oversampling": 0}
    results = {}
    for name in ("cpu", "numpy"):
        bk.set_engine(name)
        results[name] = bk.svd(A, seed=5, **options)
        assert np.array_equal(results[name].s, bk.svd(A, seed=5, **options).s)
        assert not np.allclose(results[name].s, bk.svd(A, seed=6, **options).s, rtol=1e-3)
    np.testing.assert_allclose(results["cpu"].s, results["numpy"].s, rtol=1e-12)
    assert results["cpu"].residual > 0.05  # a rough basis, and it says so


def test_singular_values_report_what_is_unresolved(engine: str) -> None:
    A = np.diag(np.array([1.0, 1e-3, 1e-9], np.float32))
    s, info = bk.singular_values(A, return_info=True)
    assert (info.n_resolved, info.unresolved.tolist(), info.method) == (2, [False, False, True], "gram")
    np.testing.assert_allclose(s[:2], [1.0, 1e-3], rtol=1e-6)
    assert s[2] < 1e-7
    s, info = bk.singular_values(A.astype(np.float64), return_info=True)
    assert (info.n_resolved, info.method) == (3, "qr+gesdd")
    np.testing.assert_allclose(s, [1.0, 1e-3, 1e-9], rtol=1e-6)
    s, info = bk.singular_values(A, True, method="exact")
    assert info.method == "qr+gesdd"
    assert type(info.n_resolved) is int
    assert type(info.bound) is float


def test_whitened_svd_is_the_best_of_its_rank(engine: str, rng: np.random.Generator) -> None:
    W = rng.normal(size=(5, 4))
    X = rng.normal(size=(50, 4)) * [1, 2, 3, 0]  # a singular R
    R = X.T @ X / 50
    acc = bk.Autocorrelation(4)
    acc.update(X)
    root = scipy.linalg.sqrtm(R + 1e-14 * np.eye(4)).real
    exact = scipy.linalg.svdvals(W @ root)
    for moments in (R, acc, R.tolist()):
        for rank in (1, 2, 4, None):
            best = bk.whitened_svd(W, moments, rank)
            r = rank or 4
            assert (best.U.shape, best.projected.shape, best.s.shape) == ((5, r), (r, 4), (4,))
            np.testing.assert_allclose(best.s, exact, atol=1e-6)
            assert best.error == pytest.approx(np.sqrt((exact[r:] ** 2).sum()), abs=1e-6)
            change = W - best.matrix()
            assert np.trace(change @ R @ change.T) == pytest.approx(best.error**2, abs=1e-9)
    kernel = rng.normal(size=(5, 2, 2))
    assert bk.whitened_svd(kernel, np.eye(4)).projected.shape == (4, 4)


def test_whitened_svd_of_weights_of_deficient_rank(engine: str, rng: np.random.Generator) -> None:
    X = rng.normal(size=(50, 6)) * [1, 2, 3, 1, 1, 0]
    R = X.T @ X / 50
    for n in (40, 6, 3):  # tall, square, wide
        W = rng.normal(size=(n, 2)) @ rng.normal(size=(2, 6))
        exact = scipy.linalg.svdvals(W @ X.T / np.sqrt(50))
        best = bk.whitened_svd(W, R, 3)
        np.testing.assert_allclose(best.s, exact[: min(n, 6)], atol=1e-6 * exact[0])
        np.testing.assert_allclose(best.U.T @ best.U, np.eye(3), atol=1e-13)
        np.testing.assert_allclose(best.matrix() @ X.T, W @ X.T, atol=1e-12 * np.abs(W @ X.T).max())
        assert best.error < 1e-6 * exact[0]


@pytest.mark.parametrize("scale", [1e-151, 2e150])
def test_whitened_svd_refuses_weights_whose_squares_leave_float64(engine: str, scale: float) -> None:
    with pytest.raises(bk.InvalidArgument) as caught:
        bk.whitened_svd(scale * np.eye(3), np.eye(3))
    text = "is outside [1e-150, 1e150), its square leaves float64; rescale the data"
    assert str(caught.value) == f"W: largest magnitude {scale:.3g} {text}"
    zero = bk.whitened_svd(np.zeros((3, 3)), np.eye(3), 1)  # no magnitude, no square to lose
    assert (zero.error, zero.s.tolist()) == (0, [0, 0, 0])


def test_randomized_svd_is_scikit_learns(engine: str, rng: np.random.Generator) -> None:
    extmath = pytest.importorskip("sklearn.utils.extmath")
    for shape in ((40, 25), (25, 40)):
        A = rng.normal(size=shape)
        for k in (3, 30):
            theirs = extmath.randomized_svd(A, k, n_iter=30, random_state=0)
            ours = bk.randomized_svd(A, k, n_iter=30, random_state=0)
            for mine, its in zip(ours, theirs, strict=True):
                assert mine.shape == its.shape
                np.testing.assert_allclose(mine, its, atol=1e-6)
    import inspect

    names = list(inspect.signature(extmath.randomized_svd).parameters)
    assert set(inspect.signature(bk.randomized_svd).parameters) >= set(names)


def test_randomized_svd_options(engine: str, rng: np.random.Generator) -> None:
    A = rng.normal(size=(12, 8))
    exact = scipy.linalg.svdvals(A)[:2]
    generators = (3, np.random.RandomState(1), np.random.default_rng(1), None, np.int64(4))
    for state in generators:
        for options in ({}, {"n_iter": 12, "power_iteration_normalizer": "LU", "transpose": True}):
            _, s, _ = bk.randomized_svd(A, 2, random_state=state, **options)
            np.testing.assert_allclose(s, exact, rtol=1e-3)
    for k, shape, steps in ((2, (30, 40), 7), (3, (30, 40), 4)):  # scikit-learn's rule: 7 below a tenth, else 4
        B = rng.normal(size=shape)
        results = {n: bk.randomized_svd(B, k, n_iter=n, n_oversamples=0, random_state=0)[1] for n in ("auto", 4, 7)}
        assert np.array_equal(results["auto"], results[steps])
        assert not np.array_equal(results[4], results[7])
    U, _, Vt = bk.randomized_svd(A, 2, random_state=0)
    assert np.all(U[np.abs(U).argmax(axis=0), [0, 1]] > 0)
    U, _, Vt = bk.randomized_svd(A, 2, random_state=0, flip_sign=False)
    assert np.all(Vt[[0, 1], np.abs(Vt).argmax(axis=1)] > 0)
    np.random.seed(7)  # noqa: NPY002 – what scikit-learn's users do
    first = bk.randomized_svd(A, 2, n_iter=0, n_oversamples=0)[1]
    np.random.seed(7)  # noqa: NPY002 – what scikit-learn's users do
    assert np.array_equal(bk.randomized_svd(A, 2, n_iter=0, n_oversamples=0)[1], first)


@pytest.mark.parametrize(
    ("call", "argument", "message"),
    [
        (lambda A: bk.svd(A, max_columns=0), "max_columns", "1 or more"),
        (lambda A: bk.svd(A, frobenius_tol=1e-9, method="krylov"), "frobenius_tol", "resolves tails from 1e-07"),
        (lambda A: bk.svd(A, method="fast"), "method", "'auto', 'exact', 'gram', 'krylov', 'quick', got 'fast'"),
        (lambda A: bk.svd(A, rank=0), "rank", "1 or more, got 0"),
        (lambda A: bk.svd(A, rank=4), "rank", r"at most min\(m, n\) = 3, got 4"),
        (lambda A: bk.svd(A, rank=2.0), "rank", "an integer, got 2.0"),
        (lambda A: bk.svd(A, tol=-1), "tol", "at least 0"),
        (lambda A: bk.svd(A, tol=float("nan")), "tol", "at least 0"),
        (lambda A: bk.svd(A, frobenius_tol="a"), "frobenius_tol", "a number"),
        (lambda A: bk.svd(A, frobenius_tol=1.5), "frobenius_tol", "1.5"),
        (lambda A: bk.svd(A, frobenius_tol=0.1, method="quick"), "frobenius_tol", "quick"),
        (lambda A: bk.svd(A[None], frobenius_tol=0.1), "frobenius_tol", "batch"),
        (lambda A: bk.svd(A, seed=-1), "seed", "0 or more"),
        (lambda A: bk.svd(A, seed=2**64), "seed", "at most 18446744073709551615"),
        (lambda A: bk.svd(A, oversampling=-1), "oversampling", "0 or more"),
        (lambda A: bk.svd(A, iterations=1.5), "iterations", "an integer"),
        (lambda A: bk.svd(A, iterations=2**31), "iterations", "at most 2147483647"),
        (lambda A: bk.svd(A[0]), "A", r"got shape \(4,\)"),
        (lambda A: bk.svd(A[:0]), "A", r"must not be empty, got shape \(0, 4\)"),
        (lambda A: bk.svd(np.zeros((0, 2, 2))), "A", r"must not be empty"),
        (lambda A: bk.singular_values(A, "yes"), "return_info", "True or False"),
        (lambda A: bk.singular_values(A, method="krylov"), "method", "'auto', 'gram', 'exact'"),
        (lambda A: bk.singular_values(A[0, 0]), "A", "got shape"),
        (lambda A: bk.whitened_svd(A, np.eye(3)), "R", r"expected shape \(4, 4\)"),
        (lambda A: bk.whitened_svd(A, bk.Autocorrelation(3)), "R", "3 features, W takes 4"),
        (lambda A: bk.whitened_svd(A, -np.eye(4)), "R", "positive semidefinite"),
        (lambda A: bk.whitened_svd(A, np.triu(np.ones((4, 4)))), "R", "symmetric"),
        (lambda A: bk.whitened_svd(A, np.eye(4), rank=4), "rank", "got 4"),
        (lambda A: bk.whitened_svd(A[0], np.eye(4)), "W", "got shape"),
        (lambda A: bk.randomized_svd(A, 0), "n_components", "1 or more"),
        (lambda A: bk.randomized_svd(A, 1, n_iter="many"), "n_iter", "'auto'"),
        (lambda A: bk.randomized_svd(A, 1, power_iteration_normalizer="SVD"), "power_iteration_normalizer", "'QR'"),
        (lambda A: bk.randomized_svd(A, 1, transpose="yes"), "transpose", "'auto'"),
        (lambda A: bk.randomized_svd(A, 1, svd_lapack_driver="x"), "svd_lapack_driver", "'gesdd'"),
        (lambda A: bk.randomized_svd(A, 1, random_state="a"), "random_state", "an integer"),
        (lambda A: bk.randomized_svd(A[None], 1), "M", r"got shape \(1, 3, 4\)"),
        (lambda A: bk.randomized_svd(A * np.nan, 1), "M", r"index \(0, 0\)"),
    ],
)
def test_bad_arguments(engine: str, call: Any, argument: str, message: str) -> None:
    with pytest.raises(bk.InvalidArgument, match=message) as caught:
        call(np.ones((3, 4)))
    assert caught.value.argument == argument


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_index_of_a_nan_is_the_callers(engine: str, dtype: Any) -> None:
    for shape, index in (((3, 4), (1, 2)), ((2, 3, 4), (1, 0, 3)), ((2, 2, 3, 4), (1, 0, 2, 1))):
        A = np.ones(shape, dtype)
        A[index] = np.nan
        for a in (A, np.asfortranarray(A), np.repeat(A, 2, axis=-1)[..., ::2]):
            for call in (bk.svd, bk.singular_values):
                with pytest.raises(bk.NonFinite) as caught:
                    call(a)
                assert caught.value.index == index
                assert caught.value.argument == "A"
    A = np.ones((4, 3, 2), dtype)
    A[1:, 2, 1] = np.nan  # the first of several
    with pytest.raises(bk.NonFinite) as caught:
        bk.svd(A)
    assert caught.value.index == (1, 2, 1)
    kernel = np.ones((2, 3, 2, 2), dtype)
    kernel[1, 2, 0, 1] = np.inf
    with pytest.raises(bk.NonFinite) as caught:
        bk.whitened_svd(kernel, np.eye(12))
    assert caught.value.index == (1, 2, 0, 1)


@pytest.mark.parametrize("scale", [1e-150, 1e-40, 1e40, 1e150])
def test_scales(engine: str, scale: float, rng: np.random.Generator) -> None:
    A = rng.normal(size=(4, 3))
    exact = scipy.linalg.svdvals(A)
    for method in ("auto", "exact", "gram", "krylov", "quick"):
        result = bk.svd(A * scale, method=method)
        np.testing.assert_allclose(result.s / scale, exact, rtol=1e-6)
        assert result.residual < 1e-6
    for way in ("auto", "gram", "exact"):
        np.testing.assert_allclose(bk.singular_values(A * scale, method=way) / scale, exact, rtol=1e-6)


def test_all_zero(engine: str) -> None:
    for shape in ((3, 2), (2, 3), (2, 3, 2)):
        result = bk.svd(np.zeros(shape))
        assert not np.any(result.s)
        assert not np.any(result.residual)
        assert np.all(np.isfinite(result.U))
        assert not np.any(bk.singular_values(np.zeros(shape)))
