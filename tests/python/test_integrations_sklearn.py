"""The scikit-learn estimators: scikit-learn's own checks, its full solver as the reference, and the hard cases."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sklearn = pytest.importorskip("sklearn", reason="scikit-learn is an optional partner")

from scipy import sparse
from sklearn import decomposition
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import brockett as bk
from brockett.integrations import _principal
from brockett.integrations.sklearn import PCA, IncrementalPCA, TruncatedSVD
from sklearn_cases import FITTED, assert_same, full, samples

SOLVERS = ("auto", "full", "covariance_eigh", "arpack")

_ESTIMATORS = [
    *[PCA(svd_solver=solver) for solver in (*SOLVERS, "randomized")],
    PCA(n_components=1, whiten=True),
    PCA(n_components=0.9),
    *[TruncatedSVD(n_components=1, algorithm=word) for word in ("auto", "arpack", "randomized")],
    TruncatedSVD(),
    IncrementalPCA(),
    IncrementalPCA(n_components=1, whiten=True, batch_size=7),
    IncrementalPCA(method="qr"),
]
_CHECKS = parametrize_with_checks(_ESTIMATORS).mark
_NEEDS_SCIPY_ARRAY_API = "check_array_api"


@pytest.mark.parametrize(
    ("estimator", "check"),
    [case for case in _CHECKS.args[1] if _NEEDS_SCIPY_ARRAY_API not in str(case)],
    **_CHECKS.kwargs,
)
def test_scikit_learns_checks(estimator: Any, check: Any) -> None:
    check(estimator)


def test_scikit_learns_checks_of_array_api() -> None:
    """These run where SCIPY_ARRAY_API is set before SciPy is imported."""
    code = """
from sklearn.utils.estimator_checks import parametrize_with_checks
from brockett.integrations.sklearn import PCA, IncrementalPCA, TruncatedSVD
cases = parametrize_with_checks([PCA(), PCA(svd_solver="arpack"), TruncatedSVD(), IncrementalPCA()]).mark.args[1]
ran = 0
for case in cases:
    estimator, check = getattr(case, "values", case)
    if "check_array_api" in str(check):
        check(estimator)
        ran += 1
print(ran)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "SCIPY_ARRAY_API": "1"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 4


# --- PCA --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(("m", "n"), [(300, 12), (40, 12), (13, 12), (12, 12), (12, 40), (30, 29)])
@pytest.mark.parametrize("k", [1, 3, None])
def test_pca_is_the_full_solvers(rng: np.random.Generator, solver: str, m: int, n: int, k: int | None) -> None:
    X = samples(rng, m, n)
    mine = PCA(k, svd_solver=solver, tol=1e-12).fit(X)
    if k is None and solver == "arpack":
        k = min(m, n) - 1
    theirs = full(X, k)
    assert mine.n_components_ == theirs.n_components_
    assert mine.n_samples_ == m
    clear = theirs.explained_variance_ > 1e-9  # an axis of no variance is any that is orthogonal to the others
    # eigenvectors are as good as their gaps
    np.testing.assert_allclose(mine.components_[clear], theirs.components_[clear], atol=1e-7)
    names = ("explained_variance_", "explained_variance_ratio_", "mean_")
    assert_same(mine, theirs, names, atol=1e-13 * theirs.explained_variance_[0])
    np.testing.assert_allclose(mine.singular_values_, theirs.singular_values_, atol=1e-6)
    # what is left of the total has its rounding
    total = theirs.explained_variance_.sum()
    np.testing.assert_allclose(mine.noise_variance_, theirs.noise_variance_, rtol=1e-9, atol=4e-16 * n * total)
    assert mine.residual_ < 1e-9
    np.testing.assert_allclose(mine.components_ @ mine.components_.T, np.eye(mine.n_components_), atol=1e-12)
    np.testing.assert_allclose(mine.transform(X)[:, clear], theirs.transform(X)[:, clear], atol=1e-6)
    np.testing.assert_array_equal(clone(mine).fit_transform(X), mine.transform(X))


def test_pca_of_dependent_features_has_a_precision(rng: np.random.Generator) -> None:
    X = np.zeros((20, 3))
    X[:, 0] = rng.standard_normal(20)
    mine = PCA(2).fit(X)
    expected = np.zeros((3, 3))
    expected[0, 0] = 1 / X[:, 0].var(ddof=1)
    np.testing.assert_allclose(mine.get_precision(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("whiten", [False, True])
def test_pca_generative_model(rng: np.random.Generator, whiten: bool) -> None:
    X = samples(rng, 200, 8)
    mine, theirs = PCA(3, whiten=whiten).fit(X), full(X, 3, whiten=whiten)
    for name in ("get_covariance", "get_precision"):
        np.testing.assert_allclose(getattr(mine, name)(), getattr(theirs, name)(), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(mine.score_samples(X), theirs.score_samples(X), rtol=1e-9)
    assert mine.score(X) == pytest.approx(theirs.score(X), rel=1e-10)
    np.testing.assert_allclose(mine.transform(X), theirs.transform(X), atol=1e-10)
    np.testing.assert_allclose(mine.inverse_transform(mine.transform(X)), theirs.inverse_transform(theirs.transform(X)))
    if whiten:
        np.testing.assert_allclose(mine.transform(X).var(axis=0, ddof=1), 1.0, rtol=1e-10)


@pytest.mark.parametrize("solver", ["auto", "full", "covariance_eigh"])
@pytest.mark.parametrize("k", [0, 0.05, 0.5, 0.9, 0.9999, "mle"])
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_number_of_components(rng: np.random.Generator, solver: str, k: Any, noise: float) -> None:
    X = samples(rng, 150, 9, 0.7) + noise * rng.normal(size=(150, 9))
    mine, theirs = PCA(k, svd_solver=solver).fit(X), full(X, k)
    assert mine.n_components_ == theirs.n_components_
    assert mine.components_.shape == theirs.components_.shape
    np.testing.assert_allclose(mine.noise_variance_, theirs.noise_variance_, rtol=1e-8)


def test_mle_of_many_spectra(rng: np.random.Generator) -> None:
    """The running sums give what the double loop over pairs gives."""
    for n in (2, 3, 7, 20):
        for true in range(1, n):
            X = rng.normal(size=(60, true)) @ rng.normal(size=(true, n)) * 3 + rng.normal(size=(60, n))
            assert PCA("mle").fit(X).n_components_ == full(X, "mle").n_components_


def test_float32_in_float32_out(rng: np.random.Generator) -> None:
    X = samples(rng, 500, 40, 0.95)
    theirs = full(X.astype(np.float32), 5)
    for solver in (*SOLVERS, "randomized"):
        mine = PCA(5, svd_solver=solver).fit(X.astype(np.float32))
        for name in (*FITTED, "noise_variance_"):
            assert getattr(mine, name).dtype == np.float32, name
        assert mine.transform(X.astype(np.float32)).dtype == np.float32
        np.testing.assert_allclose(mine.explained_variance_, theirs.explained_variance_, rtol=1e-5)
        np.testing.assert_allclose(mine.components_, theirs.components_, atol=2e-4)


def test_float32_sums_are_improved_and_measured(rng: np.random.Generator) -> None:
    """Far from the origin, where float32 products lose digits: the values are those of float64."""
    X = (samples(rng, 4000, 64, 0.9) + 30.0).astype(np.float32)
    theirs = full(X, 8)
    mine = PCA(8).fit(X)
    assert mine.method_ == "covariance"
    np.testing.assert_allclose(mine.explained_variance_, theirs.explained_variance_, rtol=2e-6)
    assert mine.residual_ < 2e-6


def test_residual_of_float32_sums_is_that_of_the_samples(rng: np.random.Generator) -> None:
    """Axes that are wrong by a known amount: four random combinations tell it to a factor."""
    X = (samples(rng, 4000, 64, 0.9) + 3.0).astype(np.float32)
    C = np.cov(X.astype(np.float64), rowvar=False)
    values, vectors = np.linalg.eigh(C)
    lam, V = values[::-1][:8], vectors[:, ::-1][:, :8]
    for wrong in (1e-5, 1e-3):
        turned = np.linalg.qr(V + wrong * rng.normal(size=V.shape))[0]
        residuals = np.linalg.norm(C @ turned - turned * lam, axis=0) / np.sqrt(lam * lam[0])
        axes = _principal.Axes(turned.T, lam, float(values.sum()), 0.0, "covariance", 8)
        found = _principal.measured(axes, X, X.mean(axis=0, dtype=np.float64), seed=0).residual
        assert 0.5 < found / np.linalg.norm(residuals) < 2.0


def test_small_variances_take_the_exact_route(rng: np.random.Generator) -> None:
    """Variances beyond what a covariance resolves: found by auto, said by covariance_eigh."""
    X = rng.normal(size=(400, 6)) * 10.0 ** -np.arange(0.0, 12.0, 2.0) @ np.linalg.qr(rng.normal(size=(6, 6)))[0]
    theirs = full(X)
    mine = PCA().fit(X)
    assert mine.method_ == "exact"
    assert mine.n_resolved_ == 6
    np.testing.assert_allclose(mine.singular_values_, theirs.singular_values_, rtol=1e-3)
    np.testing.assert_allclose(mine.singular_values_[:5], theirs.singular_values_[:5], rtol=1e-6)
    rough = PCA(svd_solver="covariance_eigh").fit(X)
    assert rough.method_ == "covariance"
    assert rough.n_resolved_ < 5
    few = PCA(2).fit(X)
    assert few.method_ == "covariance"
    assert few.n_resolved_ == 2


@pytest.mark.parametrize("shape", [(200, 10), (12, 50), (20, 18)])
def test_rank_deficient(rng: np.random.Generator, shape: tuple[int, int]) -> None:
    """More components than the rank: orthonormal ones of no variance, and nothing that is not finite."""
    X = rng.normal(size=(shape[0], 3)) @ rng.normal(size=(3, shape[1])) + 5.0
    for whiten in (False, True):
        mine = PCA(8, whiten=whiten).fit(X)
        theirs = full(X, 3)
        np.testing.assert_allclose(mine.components_ @ mine.components_.T, np.eye(8), atol=1e-10)
        np.testing.assert_allclose(mine.explained_variance_[:3], theirs.explained_variance_, rtol=1e-9)
        np.testing.assert_allclose(mine.explained_variance_[3:], 0.0, atol=1e-12)
        assert mine.n_resolved_ == 3
        assert np.isfinite(mine.transform(X)).all()


def test_constant_features(rng: np.random.Generator) -> None:
    X = samples(rng, 50, 4)
    X[:, 2] = 7.0
    mine, theirs = PCA(3).fit(X), full(X, 3)
    assert_same(mine, theirs)
    assert np.abs(mine.components_[:, 2]).max() < 1e-12
    flat = PCA(2).fit(np.full((9, 4), 3.0))
    assert (flat.explained_variance_ == 0).all()
    assert np.isnan(flat.explained_variance_ratio_).all()
    assert flat.n_resolved_ == 0
    np.testing.assert_array_equal(flat.transform(np.full((2, 4), 3.0)), 0.0)


def test_far_from_the_origin(rng: np.random.Generator) -> None:
    """A mean of 1e6 deviations costs no digits of the variances."""
    X = samples(rng, 5000, 5)
    near = full(X, 3)
    for solver in SOLVERS:
        mine = PCA(3, svd_solver=solver, tol=1e-10).fit(X + 1e6)
        np.testing.assert_allclose(mine.explained_variance_, near.explained_variance_, rtol=1e-8, err_msg=solver)


@pytest.mark.parametrize("solver", SOLVERS)
def test_float32_far_from_the_origin(rng: np.random.Generator, solver: str) -> None:
    """A float32 mean would be off by as much as the samples vary."""
    X = (samples(rng, 3000, 5) * 0.02 + 7000.1 * np.arange(1.0, 6.0)).astype(np.float32)
    theirs = full(X, 3)  # of these very entries, in float64
    mine = PCA(3, svd_solver=solver).fit(X)
    np.testing.assert_allclose(mine.explained_variance_, theirs.explained_variance_, rtol=1e-5)
    np.testing.assert_allclose(mine.explained_variance_ratio_, theirs.explained_variance_ratio_, rtol=1e-5)
    np.testing.assert_allclose(mine.components_, theirs.components_, atol=1e-4)


@pytest.mark.parametrize("solver", ["auto", "arpack", "covariance_eigh"])
@pytest.mark.parametrize("kind", [sparse.csr_array, sparse.csc_array, sparse.csr_matrix])
@pytest.mark.parametrize("density", [0.05, 0.7])
def test_sparse_pca(rng: np.random.Generator, solver: str, kind: Any, density: float) -> None:
    X = sparse.random_array((200, 30), density=density, rng=rng).toarray() * (1 + np.arange(30))
    mine = PCA(4, svd_solver=solver, tol=1e-12).fit(kind(X))
    assert_same(mine, full(X, 4), atol=1e-9)
    np.testing.assert_allclose(mine.noise_variance_, full(X, 4).noise_variance_, rtol=1e-9)
    np.testing.assert_allclose(mine.transform(kind(X)), full(X, 4).transform(X), atol=1e-8)


def test_sparse_pca_keeps_a_share_of_the_variance(rng: np.random.Generator) -> None:
    X = sparse.random_array((300, 40), density=0.1, rng=rng).toarray() * 0.8 ** np.arange(40)
    mine = PCA(0.8).fit(sparse.csr_array(X))
    assert mine.n_components_ == full(X, 0.8).n_components_
    assert mine.explained_variance_ratio_.sum() >= 0.8


def test_sparse_duplicates_are_summed(rng: np.random.Generator) -> None:
    X = sparse.csr_array(
        (np.ones(6), np.array([0, 0, 1, 1, 0, 2]), np.array([0, 2, 3, 4, 5, 6])), shape=(5, 3)
    )
    assert not X.has_canonical_format
    mine = PCA(2, tol=0.0).fit(X)
    assert_same(mine, full(X.toarray(), 2))
    assert X.nnz == 6  # the caller's is as it was
    model = TruncatedSVD(2, tol=0.0).fit(X)
    np.testing.assert_allclose(model.singular_values_, np.linalg.svd(X.toarray(), compute_uv=False)[:2])


def test_sparse_goes_with_some_solvers(rng: np.random.Generator) -> None:
    for solver in ("full", "randomized"):
        with pytest.raises(TypeError, match="svd_solver: sparse X goes with"):
            PCA(1, svd_solver=solver).fit(sparse.csr_array(np.eye(4)))


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"n_components": 7}, r"n_components: 7 must be between 0 and min\(n_samples, n_features\)=5"),
        ({"n_components": -1}, "must be between"),
        ({"n_components": 0, "svd_solver": "randomized"}, "must be between 1"),
        ({"n_components": 1.5}, "lies between 0 and 1"),
        ({"n_components": 1.0}, "lies between 0 and 1"),
        ({"n_components": True}, "lies between 0 and 1"),
        ({"n_components": "many"}, "expected one of 'mle'"),
        ({"n_components": "mle", "svd_solver": "arpack"}, "needs all variances"),
        ({"n_components": 0.5, "svd_solver": "randomized"}, "another solver"),
        ({"svd_solver": "fast"}, "svd_solver: expected one of 'auto'"),
        ({"tol": -1.0}, "tol: expected"),
        ({"whiten": 1}, "whiten: expected True or False"),
        ({"iterated_power": -1, "svd_solver": "randomized"}, "iterated_power"),
        ({"n_oversamples": 0, "svd_solver": "randomized"}, "n_oversamples"),
        ({"power_iteration_normalizer": "no"}, "power_iteration_normalizer"),
    ],
)
def test_pca_refuses(parameters: dict[str, Any], words: str) -> None:
    with pytest.raises(bk.InvalidArgument, match=words):
        PCA(**parameters).fit(np.arange(40.0).reshape(8, 5) ** 2)


def test_mle_needs_samples() -> None:
    with pytest.raises(bk.InvalidArgument, match="n_samples >= n_features, got 4 and 6"):
        PCA("mle").fit(np.eye(4, 6))


@pytest.mark.parametrize("kind", [PCA, TruncatedSVD, IncrementalPCA])
def test_what_cannot_be_fitted(kind: Any) -> None:
    with pytest.raises(ValueError, match="1 sample"):
        kind(1).fit(np.ones((1, 5)))
    with pytest.raises(ValueError, match="contains NaN"):
        kind(1).fit(np.array([[1.0, 2.0], [np.nan, 1.0], [0.0, 1.0]]))
    with pytest.raises(ValueError, match="contains infinity"):
        kind(1).fit(np.array([[1.0, 2.0], [np.inf, 1.0], [0.0, 1.0]]))
    with pytest.raises(ValueError, match="n_components"):
        kind(6).fit(np.ones((4, 9)))


@pytest.mark.parametrize("kind", [PCA, TruncatedSVD, IncrementalPCA])
def test_input_is_never_modified(rng: np.random.Generator, kind: Any) -> None:
    X = samples(rng, 30, 6)
    before = X.copy()
    kind(2, **({} if kind is TruncatedSVD else {"copy": False})).fit_transform(X)
    np.testing.assert_array_equal(X, before)


def test_order_of_samples_does_not_matter(rng: np.random.Generator) -> None:
    X = samples(rng, 400, 20)
    order = rng.permutation(400)
    for kind in (PCA, IncrementalPCA, TruncatedSVD):
        a, b = kind(4).fit(X), kind(4).fit(X[order])
        np.testing.assert_allclose(a.components_, b.components_, atol=1e-9)


@pytest.mark.parametrize("word", ["arpack", "auto"])
def test_large_enough_for_krylov(rng: np.random.Generator, word: str) -> None:
    """auto takes Krylov by its cost model; explained variances are good to the square of the residual."""
    X = samples(rng, 900, 500, 0.9).astype(np.float32)
    theirs = full(X, 5)
    mine = PCA(5, svd_solver=word).fit(X)
    assert mine.method_ == "krylov"
    assert mine.residual_ <= 1e-5
    np.testing.assert_allclose(mine.explained_variance_, theirs.explained_variance_, rtol=3e-6)
    assert mine.noise_variance_ == pytest.approx(theirs.noise_variance_, rel=1e-5)


def test_randomized_states_its_error(rng: np.random.Generator) -> None:
    X = samples(rng, 400, 100, 0.98)
    rough = PCA(5, svd_solver="randomized", iterated_power=0).fit(X)
    fine = PCA(5, svd_solver="randomized", iterated_power=8).fit(X)
    assert rough.method_ == "quick"
    assert fine.residual_ < 0.1 * rough.residual_
    seeds = [PCA(3, svd_solver="randomized", iterated_power=0, random_state=s).fit(X).components_ for s in (1, 1, 2)]
    np.testing.assert_array_equal(seeds[0], seeds[1])
    assert np.abs(seeds[0] - seeds[2]).max() > 1e-6


def test_readme_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).resolve().parents[2] / "README.md").read_text()
    section = re.search(r"^## In scikit-learn$.*?^```py$(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert section
    names: dict[str, Any] = {}
    exec(compile(section[1], "README.md", "exec"), names)
    X = names["X"]
    wanted = full((X - X.mean(axis=0)) / X.std(axis=0), 0.9).n_components_
    assert capsys.readouterr().out == f"{wanted} components, residual below 1e-12: True\nTrue\n"


# --- in scikit-learn's company ----------------------------------------------------------------------------------------


def test_pipeline_and_grid_search(rng: np.random.Generator) -> None:
    X = samples(rng, 120, 8) + 3 * rng.normal(size=(120, 2)) @ rng.normal(size=(2, 8))
    pipe = make_pipeline(StandardScaler(), PCA())
    grid = {"pca__n_components": [1, 2, 3, 5]}
    mine = GridSearchCV(pipe, grid, cv=3).fit(X)
    theirs = GridSearchCV(make_pipeline(StandardScaler(), decomposition.PCA(svd_solver="full")), grid, cv=3).fit(X)
    assert mine.best_params_ == theirs.best_params_
    np.testing.assert_allclose(mine.cv_results_["mean_test_score"], theirs.cv_results_["mean_test_score"], rtol=1e-9)


@pytest.mark.parametrize("model", [PCA(2), TruncatedSVD(2), IncrementalPCA(2)], ids=lambda m: type(m).__name__)
def test_dataframes(rng: np.random.Generator, model: Any) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is an optional partner")
    X = pandas.DataFrame(samples(rng, 30, 4), columns=list("abcd"))
    fitted = clone(model).set_output(transform="pandas").fit(X)
    assert list(fitted.feature_names_in_) == list("abcd")
    scores = fitted.transform(X)
    name = type(model).__name__.lower()
    assert list(scores.columns) == [f"{name}0", f"{name}1"] == list(fitted.get_feature_names_out())
    pandas.testing.assert_frame_equal(clone(model).set_output(transform="pandas").fit_transform(X), scores)
    with pytest.raises(ValueError, match="feature names"):
        fitted.transform(X[list("bcda")])


@pytest.mark.parametrize("model", [PCA(2), TruncatedSVD(2), IncrementalPCA(2)], ids=lambda m: type(m).__name__)
def test_stands_in_for_scikit_learns(rng: np.random.Generator, model: Any) -> None:
    theirs = getattr(decomposition, type(model).__name__)
    assert isinstance(model, theirs)
    X = samples(rng, 30, 4)
    again = pickle.loads(pickle.dumps(model.fit(X)))
    np.testing.assert_array_equal(again.transform(X), model.transform(X))
    assert f"{type(model).__module__}.{type(model).__qualname__}" == f"brockett.integrations.sklearn.{theirs.__name__}"
    # every parameter of theirs is one of ours
    assert set(theirs().get_params()) <= set(type(model)().get_params())
    # and every fitted attribute, too
    fitted = {name for name in vars(theirs(2).fit(X)) if name.endswith("_") and not name.startswith("_")}
    assert {name for name in fitted if not hasattr(model, name)} == set()


def test_integrations_are_lazy() -> None:
    code = (
        "import sys, brockett as bk; before = set(sys.modules); bk.integrations; "
        "assert not {'sklearn', 'scipy'} & set(sys.modules); "
        "assert bk.integrations.sklearn.PCA and 'sklearn' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'caffe'"):
        _ = bk.integrations.caffe


def test_absent_scikit_learn_has_a_sentence() -> None:
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "try:\n    import brockett.integrations.sklearn\n"
        "except ImportError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "pip install 'brockett[sklearn]'" in done.stdout
