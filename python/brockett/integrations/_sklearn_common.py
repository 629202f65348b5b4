"""What the scikit-learn estimators share: input checks that work from scikit-learn 1.4 on, and seeds."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.utils import validation

from .. import _options
from .._svd import _seed_of

__all__ = ["NORMALIZERS", "check_flags", "is_integer", "reachable", "seed_of", "validated"]

NORMALIZERS = ("auto", "QR", "LU", "none")


def validated(estimator: Any, X: Any, **checks: Any) -> Any:
    """X as scikit-learn accepts it, float64 or float32; sparse ones as CSR or CSC without duplicates."""
    checks = {"dtype": [np.float64, np.float32], "accept_sparse": ("csr", "csc"), **checks}
    if hasattr(validation, "validate_data"):  # public since 1.6
        X = validation.validate_data(estimator, X, **checks)
    else:
        X = estimator._validate_data(X, **checks)
    if sparse.issparse(X) and not X.has_canonical_format:
        X = X.copy()
        X.sum_duplicates()
    return X


def is_integer(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def check_flags(estimator: Any, *names: str) -> None:
    for name in names:
        _options.flag(name, getattr(estimator, name))


def seed_of(random_state: Any) -> int:
    """No seed means the same one always: results depend on it by rounding alone, but for "randomized"."""
    return 0 if random_state is None else _seed_of(random_state)


def reachable(tol: Any, dtype: Any) -> float:
    """A tolerance that samples of this dtype can reach."""
    return max(_options.number("tol", tol, least=0), 1e-6 if dtype == np.float32 else 1e-12)
