"""The scikit-learn estimators against scikit-learn's own, with the error beside the time."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is the peer here")

from scipy import sparse
from sklearn import decomposition

from brockett.integrations import sklearn as ours

LARGE = pytest.mark.large


@functools.lru_cache(maxsize=1)
def samples(m: int, n: int, kind: str) -> np.ndarray:
    """float32 rows; variances fall as 1/i ("falling"), or 50 directions stand out of noise ("noise")."""
    rng = np.random.Generator(np.random.Philox(m + n))
    i = np.arange(1, n + 1)
    scale = i**-0.5 if kind == "falling" else np.where(i <= 50, 3.0 * i**-0.4, 0.0) + 0.3
    Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    factor = (Q * scale).astype(np.float32)
    return np.concatenate(
        [rng.standard_normal((len(part), n), dtype=np.float32) @ factor.T for part in np.array_split(np.arange(m), 16)]
    ) + Q[0].astype(np.float32)


@functools.lru_cache(maxsize=1)
def exact_variances(m: int, n: int, kind: str) -> np.ndarray:
    """float64 variances of the float32 entries."""
    X = samples(m, n, kind)
    C, mean = np.zeros((n, n)), X.mean(axis=0, dtype=np.float64)
    for part in np.array_split(X, max(1, m // 4096)):
        wide = part - mean
        C += wide.T @ wide
    return np.linalg.eigvalsh(C)[::-1] / (m - 1)


SOLVERS = ("full", "covariance_eigh", "arpack", "randomized")
PEERS = {"brockett auto": lambda k: ours.PCA(k)} | {
    f"scikit-learn {name}": lambda k, name=name: decomposition.PCA(k, svd_solver=name, random_state=0)
    for name in SOLVERS
}
PCAS = [(20_000, 512, 32), *[pytest.param(100_000, 1024, k, marks=LARGE) for k in (16, 64, 256)]]


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("kind", ["falling", "noise"])
@pytest.mark.parametrize(("rows", "cols", "k"), PCAS)
def bench_pca(benchmark, measure, size, rows, cols, k, kind, peer):
    benchmark.group = f"PCA, {k} components of {rows} × {cols} float32, {kind}"
    if rows > 20_000 and peer == "scikit-learn full" and k != 64:
        pytest.skip("its time does not depend on the number of components")
    m, n = size(rows), size(cols)
    if m < rows:
        k = min(k, n // 4)
    X, exact = samples(m, n, kind), exact_variances(m, n, kind)

    def check(model: Any) -> dict[str, Any]:
        error = float(np.abs(model.explained_variance_ / exact[:k] - 1).max())
        missed = float(1 - model.explained_variance_.sum(dtype=np.float64) / exact[:k].sum())
        assert error < (0.2 if "randomized" in peer else 1e-4), error
        notes = {"max relative error of a variance": error, "explained variance missed": missed}
        if peer.startswith("brockett"):
            notes["route"] = model.method_
        return notes

    measure(lambda: PEERS[peer](k).fit(X), check, rounds=3 if rows > 20_000 else 5)


@pytest.mark.parametrize("peer", ["brockett", "scikit-learn"])
@pytest.mark.parametrize(("rows", "cols", "k"), [(20_000, 256, 32), pytest.param(100_000, 1024, 64, marks=LARGE)])
def bench_incremental_pca(benchmark, measure, size, rows, cols, k, peer):
    benchmark.group = f"IncrementalPCA, {k} components of {rows} × {cols} float32 in batches of 5 × {cols}"
    m, n = size(rows), size(cols)
    if m < rows:
        k = min(k, n // 4)
    X, exact = samples(m, n, "falling"), exact_variances(m, n, "falling")
    kind = ours.IncrementalPCA if peer == "brockett" else decomposition.IncrementalPCA

    def run() -> Any:
        model = kind(k)
        for start in range(0, m, 5 * n):
            model.partial_fit(X[start : start + 5 * n])
        return model, model.components_

    def check(answer: Any) -> dict[str, Any]:
        error = float(np.abs(answer[0].explained_variance_ / exact[:k] - 1).max())
        assert error < (1e-6 if peer == "brockett" else 0.5), error
        return {"max relative error of a variance": error}

    measure(run, check, rounds=1 if rows > 20_000 else 3)


TRUNCATED = {
    "brockett auto": lambda k: ours.TruncatedSVD(k),
    "brockett auto, tol 1e-6": lambda k: ours.TruncatedSVD(k, tol=1e-6),
    "brockett randomized": lambda k: ours.TruncatedSVD(k, algorithm="randomized"),
    "scikit-learn arpack": lambda k: decomposition.TruncatedSVD(k, algorithm="arpack", random_state=0),
    "scikit-learn randomized": lambda k: decomposition.TruncatedSVD(k, random_state=0),
}


@functools.lru_cache(maxsize=1)
def documents(m: int, n: int) -> Any:
    """Counts of words, drawn by Zipf's law from topics: half a percent full."""
    rng = np.random.Generator(np.random.Philox(m * n))
    topics = 1.0 / (1.0 + rng.permuted(np.tile(np.arange(n), (50, 1)), axis=1)) + 1.0 / (1.0 + np.arange(n))
    topics /= topics.sum(axis=1, keepdims=True)
    length = max(8, n // 150)
    words = np.concatenate([rng.choice(n, size=(len(part), length), p=topics[i]) for i, part in
                            enumerate(np.array_split(np.arange(m), 50))])
    rows = np.repeat(np.arange(m), length)
    counts = sparse.coo_array((np.ones(m * length), (rows, words.ravel())), shape=(m, n)).tocsr()
    counts.data = np.log1p(counts.data)
    return counts


@functools.lru_cache(maxsize=1)
def exact_values(kind: str, m: int, n: int, k: int) -> np.ndarray:
    X = documents(m, n) if kind == "sparse" else samples(m, n, "falling").astype(np.float64)
    return np.sort(sparse.linalg.svds(X, k=k, tol=1e-12, return_singular_vectors=False, rng=1))[::-1]


@pytest.mark.parametrize("peer", TRUNCATED)
@pytest.mark.parametrize(
    ("kind", "rows", "cols", "k"),
    [
        ("dense", 4096, 2048, 32),
        ("sparse", 8192, 4096, 32),
        pytest.param("dense", 20_000, 4096, 100, marks=LARGE),
        pytest.param("sparse", 50_000, 20_000, 100, marks=LARGE),
    ],
)
def bench_truncated_svd(benchmark, measure, size, kind, rows, cols, k, peer):
    benchmark.group = f"TruncatedSVD, {k} components of {rows} × {cols}, {kind}"
    m, n = size(rows), size(cols)
    if m < rows:
        k = min(k, n // 4)
    X = documents(m, n) if kind == "sparse" else samples(m, n, "falling")
    exact = exact_values(kind, m, n, k)

    def check(model: Any) -> dict[str, Any]:
        error = float(np.abs(model.singular_values_ / exact - 1).max())
        assert error < (0.2 if "randomized" in peer else 1e-5), error
        right = np.asarray(X @ model.components_.T, dtype=np.float64)
        left = X.T @ right - model.components_.T * (model.singular_values_.astype(np.float64) ** 2)
        residual = np.linalg.norm(left, axis=0) / (model.singular_values_ * exact[0])
        return {"max relative error of s": error, "residual over s1": float(residual.max())}

    measure(lambda: TRUNCATED[peer](k).fit(X), check, rounds=1 if rows > 10_000 else 3)
