"""The scikit-learn estimators that keep few components, and those that see samples in parts: `TruncatedSVD` and
`IncrementalPCA` against scikit-learn's solvers."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

sklearn = pytest.importorskip("sklearn", reason="scikit-learn is an optional partner")

from scipy import sparse
from scipy.sparse.linalg import aslinearoperator
from sklearn import decomposition

import brockett as bk
from brockett.integrations.sklearn import IncrementalPCA, TruncatedSVD
from sklearn_cases import assert_same, full, samples

# --- TruncatedSVD -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["auto", "arpack"])
@pytest.mark.parametrize("shape", [(90, 20), (20, 90)])
@pytest.mark.parametrize("form", ["dense", "csr", "csc"])
def test_truncated_is_arpacks(rng: np.random.Generator, word: str, shape: tuple[int, int], form: str) -> None:
    X = samples(rng, *shape)
    X[rng.random(shape) < 0.5] = 0.0
    theirs = decomposition.TruncatedSVD(4, algorithm="arpack", random_state=0).fit(X)
    mine = TruncatedSVD(4, algorithm=word, tol=1e-12).fit(X if form == "dense" else sparse.csr_array(X).asformat(form))
    names = ("components_", "explained_variance_", "explained_variance_ratio_", "singular_values_")
    assert_same(mine, theirs, names, atol=1e-8)
    np.testing.assert_allclose(mine.transform(X), theirs.transform(X), atol=1e-8)
    np.testing.assert_allclose(mine.inverse_transform(mine.transform(X)), theirs.inverse_transform(theirs.transform(X)))
    assert mine.residual_ <= 1e-9


def test_truncated_of_an_operator(rng: np.random.Generator) -> None:
    X = samples(rng, 80, 30)
    mine, dense = TruncatedSVD(3, tol=1e-12).fit(aslinearoperator(X)), TruncatedSVD(3, tol=1e-12).fit(X)
    np.testing.assert_allclose(mine.components_, dense.components_, atol=1e-9)
    np.testing.assert_allclose(mine.explained_variance_, dense.explained_variance_, rtol=1e-9)
    assert np.isnan(mine.explained_variance_ratio_).all()
    np.testing.assert_allclose(mine.transform(aslinearoperator(X)), mine.transform(X), atol=1e-12)
    with pytest.raises(bk.InvalidArgument, match="has 29 features, but 30"):
        mine.transform(aslinearoperator(X[:, 1:]))


def test_truncated_randomized_is_no_worse(rng: np.random.Generator) -> None:
    """The same number of products as scikit-learn's, and no larger an error."""
    X = samples(rng, 300, 200, 0.97).astype(np.float32)
    exact = np.linalg.svd(X.astype(np.float64), compute_uv=False)[:10]
    theirs = decomposition.TruncatedSVD(10, n_iter=1, random_state=0).fit(X)
    mine = TruncatedSVD(10, algorithm="randomized", n_iter=1, random_state=0).fit(X)
    worst = [np.abs(model.singular_values_ / exact - 1).max() for model in (mine, theirs)]
    assert worst[0] < worst[1]
    assert mine.method_ == "quick"


def test_truncated_refuses() -> None:
    X = np.arange(12.0).reshape(4, 3) ** 2
    for parameters, words in (
        ({"n_components": 4}, r"n_components: 4 must be at most .*n_features=3"),
        ({"n_components": 0}, "n_components: expected 1 or more"),
        ({"algorithm": "lanczos"}, "algorithm: expected one of"),
        ({"tol": "small"}, "tol: expected a number"),
    ):
        with pytest.raises(bk.InvalidArgument, match=words):
            TruncatedSVD(**parameters).fit(X)
    with pytest.raises(ValueError, match="1 feature"):
        TruncatedSVD(1).fit(X[:, :1])


# --- IncrementalPCA ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["gram", "qr"])
@pytest.mark.parametrize("sizes", [[200], [1, 1, 198], [3] * 66 + [2], [150, 50]], ids=str)
def test_incremental_is_pca_of_all(rng: np.random.Generator, method: str, sizes: list[int]) -> None:
    """However the samples were split, and with batches smaller than n_components."""
    X = samples(rng, 200, 10)
    mine, start = IncrementalPCA(6, method=method), 0
    for size in sizes:
        mine.partial_fit(X[start : start + size])
        start += size
    theirs = full(X, 6)
    assert_same(mine, theirs, atol=1e-9)
    assert mine.n_samples_seen_ == 200
    assert mine.noise_variance_ == pytest.approx(theirs.noise_variance_, rel=1e-9)
    np.testing.assert_allclose(mine.var_, X.var(axis=0), rtol=1e-12)
    np.testing.assert_allclose(mine.transform(X), theirs.transform(X), atol=1e-8)
    assert mine.residual_ < 1e-10


def test_incremental_is_closer_than_scikit_learns(rng: np.random.Generator) -> None:
    X = samples(rng, 600, 30, 0.97)
    exact = full(X, 4).explained_variance_
    theirs = decomposition.IncrementalPCA(4, batch_size=20).fit(X).explained_variance_
    mine = IncrementalPCA(4, batch_size=20).fit(X).explained_variance_
    assert np.abs(mine / exact - 1).max() < 1e-12
    assert np.abs(theirs / exact - 1).max() > 1e-4


def test_incremental_of_a_subset_and_back(rng: np.random.Generator) -> None:
    X = samples(rng, 100, 5)
    mine = IncrementalPCA(2, whiten=True).partial_fit(X[:40])
    assert_same(mine, full(X[:40], 2), atol=1e-9)
    mine.partial_fit(X[40:])
    theirs = full(X, 2, whiten=True)
    assert_same(mine, theirs, atol=1e-9)
    np.testing.assert_allclose(mine.transform(X), theirs.transform(X), atol=1e-9)
    mine.fit(X[:40])  # forgets
    assert_same(mine, full(X[:40], 2), atol=1e-9)
    mine.set_params(n_components=3)
    assert mine.components_.shape == (3, 5)


def test_incremental_weights_count_samples(rng: np.random.Generator) -> None:
    X, weights = samples(rng, 60, 4), rng.integers(0, 4, 60)
    theirs = full(np.repeat(X, weights, axis=0), 2)
    for form in (X, sparse.csr_array(X)):
        mine = IncrementalPCA(2, batch_size=7).partial_fit(form, sample_weight=weights)
        assert_same(mine, theirs, atol=1e-9)
    with pytest.raises(ValueError, match="weights: "):
        IncrementalPCA(2).partial_fit(X, sample_weight=-weights)


def test_incremental_refused_batch_changes_nothing(rng: np.random.Generator) -> None:
    X = samples(rng, 50, 4)
    mine = IncrementalPCA(2).partial_fit(X)
    before = mine.components_.copy()
    for bad in (X[:, :3], np.full((2, 4), np.nan), sparse.csr_array(X[:, :3])):
        with pytest.raises(ValueError, match=r"features|NaN"):
            mine.partial_fit(bad)
    assert mine.n_samples_seen_ == 50
    np.testing.assert_array_equal(mine.components_, before)


def test_incremental_one_sample_is_too_few_for_a_variance(rng: np.random.Generator) -> None:
    mine = IncrementalPCA(2).partial_fit(np.ones((1, 3)))
    with pytest.raises(bk.InvalidArgument, match="a variance needs two samples, n_samples=1"):
        _ = mine.components_
    mine.partial_fit(np.eye(3))
    assert mine.components_.shape == (2, 3)
    assert not hasattr(IncrementalPCA(), "components_")


def test_incremental_keeps_its_sum_through_a_pickle(rng: np.random.Generator) -> None:
    X = samples(rng, 90, 5)
    half = IncrementalPCA(3).partial_fit(X[:45])
    for again in (pickle.loads(pickle.dumps(half)), copy.deepcopy(half)):
        again.partial_fit(X[45:])
        assert_same(again, full(X, 3), atol=1e-9)
    assert half.n_samples_seen_ == 45


def test_incremental_takes_tensors(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch", reason="torch is an optional partner")
    X = samples(rng, 90, 5)
    mine = IncrementalPCA(3)
    for part in torch.from_numpy(X).split(20):
        mine.partial_fit(part)
    assert_same(mine, full(X, 3), atol=1e-9)
    assert isinstance(mine.components_, np.ndarray)
    half = IncrementalPCA(1).partial_fit(torch.from_numpy(X).to(torch.bfloat16))
    rounded = torch.from_numpy(X).to(torch.bfloat16).to(torch.float64).numpy()
    np.testing.assert_allclose(half.explained_variance_, full(rounded, 1).explained_variance_, rtol=1e-6)
    with pytest.raises(bk.InvalidArgument, match="has 4 features, but 5"):
        mine.partial_fit(torch.zeros(3, 4))
