"""`accelerate` under scikit-learn's estimators: the same attributes and signs, from the names that they really call."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse

import brockett as bk
from brockett import _accelerate_truncated

sklearn = pytest.importorskip("sklearn", reason="scikit-learn is an optional partner")

from sklearn.decomposition import PCA, TruncatedSVD, _pca, _truncated_svd  # noqa: E402
from sklearn.utils import extmath  # noqa: E402
from sklearn.utils.extmath import randomized_svd  # noqa: E402


def data(dtype: Any = np.float64, shape: tuple[int, int] = (200, 60)) -> np.ndarray:
    """Rapidly falling singular values, where randomized solvers converge."""
    rng = np.random.default_rng(4)
    k = min(shape)
    U, V = (np.linalg.qr(rng.standard_normal((m, k)))[0] for m in shape)
    return ((U * (10 * 0.6 ** np.arange(k))) @ V.T).astype(dtype)


def same(found: Any, expected: Any, names: tuple[str, ...], tolerance: float) -> None:
    for name in names:
        mine, theirs = np.asarray(getattr(found, name)), np.asarray(getattr(expected, name))
        assert (mine.shape, mine.dtype) == (theirs.shape, theirs.dtype), name
        np.testing.assert_allclose(mine, theirs, atol=tolerance * np.abs(theirs).max(), err_msg=name)


FITTED = ("components_", "explained_variance_", "explained_variance_ratio_", "singular_values_")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("solver", ["full", "covariance_eigh", "arpack", "randomized"])
def test_pca(engine: str, solver: str, dtype: Any) -> None:
    X = data(dtype)
    expected = PCA(5, svd_solver=solver, random_state=0).fit(X)
    with bk.accelerate(only=["numpy", "scipy", "sklearn"], min_size=1, report=True) as report:
        found = PCA(5, svd_solver=solver, random_state=0).fit(X)
    same(found, expected, (*FITTED, "mean_", "noise_variance_"), 1e-9 if dtype is np.float64 else 2e-4)
    called = {
        "full": "scipy.linalg.svd",
        "covariance_eigh": "numpy.linalg.eigh",
        "arpack": "scipy.sparse.linalg.svds",
        "randomized": "sklearn randomized_svd",
    }[solver]
    rows = report.functions()
    assert called in rows, str(report)
    if (solver, dtype) != ("full", np.float64):  # there both have the same LAPACK
        assert rows[called]["taken"] == 1, str(report)


@pytest.mark.parametrize("algorithm", ["randomized", "arpack"])
@pytest.mark.parametrize("sparse", [False, True])
def test_truncated_svd(engine: str, algorithm: str, sparse: bool) -> None:
    X = data()
    X = scipy.sparse.csr_array(np.where(np.abs(X) > 1e-3, X, 0)) if sparse else X
    expected = TruncatedSVD(4, algorithm=algorithm, n_iter=7, random_state=0).fit(X)
    with bk.accelerate(only=["scipy", "sklearn"], min_size=1, report=True) as report:
        found = TruncatedSVD(4, algorithm=algorithm, n_iter=7, random_state=0).fit(X)
    called = "sklearn randomized_svd" if algorithm == "randomized" else "scipy.sparse.linalg.svds"
    assert report.functions()[called]["taken"] == 1, str(report)
    same(found, expected, FITTED, 1e-8)


@pytest.mark.parametrize("shape", [(200, 60), (60, 200)], ids=str)
@pytest.mark.parametrize("transpose", ["auto", True, False])
@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_randomized_svd(shape: tuple[int, int], transpose: Any, flip: bool, dtype: Any) -> None:
    A = data(dtype, shape)
    arguments = {"n_components": 5, "n_iter": 6, "transpose": transpose, "flip_sign": flip, "random_state": 0}
    expected = randomized_svd(A, **arguments)
    with bk.accelerate(only=["sklearn"], min_size=1, report=True) as report:
        found = randomized_svd(A, **arguments)
    assert report.taken == 1, str(report)
    tolerance = 1e-8 if dtype is np.float64 else 1e-3
    for part, (mine, theirs) in enumerate(zip(found, expected, strict=True)):
        assert (mine.shape, mine.dtype) == (theirs.shape, theirs.dtype)
        if not flip and part != 1:
            mine, theirs = np.abs(mine), np.abs(theirs)
        np.testing.assert_allclose(mine, theirs, atol=tolerance * np.abs(theirs).max())


@pytest.mark.parametrize("n_iter", [3, 4, 5, "auto", 7, 9])
@pytest.mark.parametrize("n_components", [1, 3, 20])
@pytest.mark.parametrize("name", ["heavy", "slow", "1/i", "step"])
def test_errors_are_no_larger_than_the_original_s(n_iter: Any, n_components: int, name: str) -> None:
    i = np.arange(1, 301)
    s = {
        "heavy": np.where(i <= 80, 3 * i**-0.4 + 1, 1 - 0.9 * (i - 80) / 220),
        "slow": i**-0.3,
        "1/i": 1 / i,
        "step": np.where(i <= 30, 1.0, 0.01),
    }[name]
    rng = np.random.default_rng(1)
    U, V = (np.linalg.qr(rng.standard_normal((m, 300)))[0] for m in (500, 300))
    A = (U * s) @ V.T
    error = {}
    for kind in ("original", "accelerated"):
        worst = []
        for seed in range(3):
            if kind == "original":
                found = randomized_svd(A, n_components, n_iter=n_iter, random_state=seed)[1]
            else:
                with bk.accelerate(only=["sklearn"], min_size=1, report=True) as report:
                    found = randomized_svd(A, n_components, n_iter=n_iter, random_state=seed)[1]
                assert report.taken == 1
            worst.append(np.max(np.abs(found - s[:n_components]) / s[:n_components]))
        error[kind] = max(worst)
    assert error["accelerated"] <= max(1.05 * error["original"], 1e-12), error


def test_the_private_names_are_bound_and_come_back() -> None:
    before = _pca._randomized_svd, _truncated_svd._randomized_svd, _pca.svds, _truncated_svd.svds
    with bk.accelerate(only=["sklearn", "scipy"]):
        inside = _pca._randomized_svd, _truncated_svd._randomized_svd, _pca.svds, _truncated_svd.svds
        assert all(new is not old for new, old in zip(inside, before, strict=True))
        assert extmath._randomized_svd is inside[0]
    assert (_pca._randomized_svd, _truncated_svd._randomized_svd, _pca.svds, _truncated_svd.svds) == before
    assert extmath._randomized_svd is before[0]


def test_generators_advance_as_with_the_original() -> None:
    A = data()
    for make in (np.random.RandomState, lambda seed: np.random.mtrand._rand):
        first, other = make(7), make(7)
        np.random.seed(7)  # noqa: NPY002
        randomized_svd(A, 3, random_state=first)
        after = first.random_sample(3)
        np.random.seed(7)  # noqa: NPY002
        with bk.accelerate(only=["sklearn"], min_size=1, report=True) as report:
            randomized_svd(A, 3, random_state=other)
        assert report.taken == 1
        np.testing.assert_array_equal(other.random_sample(3), after)


def test_equal_seeds_give_equal_results_and_others_do_not() -> None:
    A = np.random.default_rng(0).standard_normal((100, 80))
    with bk.accelerate(only=["sklearn"], min_size=1):
        first, again, other = (randomized_svd(A, 3, n_iter=3, random_state=seed)[1] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-12


LEFT = {
    "the whole space": lambda: randomized_svd(data(shape=(20, 12)), 3, random_state=0)[1],
    "few iterations": lambda: randomized_svd(data(), 3, n_iter=2, random_state=0)[1],
    "few columns": lambda: randomized_svd(data(), 3, n_oversamples=5, random_state=0)[1],
    "dtype complex128": lambda: randomized_svd(scipy.sparse.csr_array(data()) * 1j, 3, n_iter=3, random_state=0)[1],
}


@pytest.mark.parametrize("reason", LEFT)
def test_left_to_the_original(reason: str) -> None:
    try:
        expected: Any = LEFT[reason]()
    except Exception as error:
        expected = error
    with bk.accelerate(only=["sklearn"], min_size=1, report=True) as report:
        if isinstance(expected, Exception):
            with pytest.raises(type(expected)):
                LEFT[reason]()
        else:
            np.testing.assert_array_equal(LEFT[reason](), expected)
    if report.functions():
        assert report.functions()["sklearn randomized_svd"]["reasons"] == {reason: 1}


def test_nan_is_the_original_s_error() -> None:
    A = data()
    A[3, 4] = np.nan
    with pytest.raises(ValueError, match="NaN") as expected:
        randomized_svd(A, 3)
    with bk.accelerate(only=["sklearn"], min_size=1), pytest.raises(ValueError, match="NaN") as found:
        randomized_svd(A, 3)
    assert str(found.value) == str(expected.value)


def test_sparse_matrices_are_left_unless_asked_for() -> None:
    A = scipy.sparse.random_array((700, 400), density=0.05, rng=0, format="csr")
    with bk.accelerate(only=["sklearn"], report=True) as report:
        randomized_svd(A, 4, random_state=0)
        randomized_svd(A.toarray(), 4, random_state=0)
    row = report.functions()["sklearn randomized_svd"]
    assert (row["taken"], row["reasons"]) == (1, {"sparse: not faster": 1})


def test_a_call_that_fails_leaves_the_generator_as_the_original_does() -> None:
    A = data()
    A[3, 4] = np.nan
    one, other = np.random.RandomState(5), np.random.RandomState(5)
    with pytest.raises(ValueError, match="NaN"):
        randomized_svd(A, 3, random_state=one)
    with bk.accelerate(only=["sklearn"], min_size=1), pytest.raises(ValueError, match="NaN"):
        randomized_svd(A, 3, random_state=other)
    np.testing.assert_array_equal(one.random_sample(3), other.random_sample(3))


def test_an_operator_of_a_sparse_matrix_multiplies_as_it_does() -> None:
    A = scipy.sparse.random_array((30, 20), density=0.2, rng=0)
    X = np.random.default_rng(0).standard_normal((20, 3))
    for format in ("csr", "csc", "coo", "bsr", "dia"):
        operator = _accelerate_truncated._Operator(A.asformat(format))
        np.testing.assert_allclose(operator.matmat(X), A.toarray() @ X)
        np.testing.assert_allclose(operator.rmatmat(A @ X), A.toarray().T @ (A @ X))
