"""Samples for the tests of the scikit-learn estimators, and scikit-learn's own answer."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn import decomposition

FITTED = ("components_", "explained_variance_", "explained_variance_ratio_", "singular_values_", "mean_")


def samples(rng: np.random.Generator, m: int, n: int, decay: float = 0.8) -> np.ndarray:
    """Correlated columns about a mean that is not zero."""
    scale = decay ** np.arange(n)
    return rng.normal(size=(m, n)) * scale @ np.linalg.qr(rng.normal(size=(n, n)))[0] + rng.normal(size=n)


def full(X: Any, k: Any = None, **more: Any) -> decomposition.PCA:
    """scikit-learn's answer by LAPACK's SVD in float64."""
    return decomposition.PCA(k, svd_solver="full", **more).fit(np.asarray(X, dtype=np.float64))


def assert_same(mine: Any, theirs: Any, names: Any = FITTED, rtol: float = 1e-9, atol: float = 1e-10) -> None:
    for name in names:
        np.testing.assert_allclose(getattr(mine, name), getattr(theirs, name), rtol=rtol, atol=atol, err_msg=name)
