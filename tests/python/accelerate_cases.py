"""What the tests of `accelerate` share: matrices with given singular values, and that every name comes back."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse.linalg

from brockett import _accelerate_names, _accelerate_scope


def spectrum(m: int, n: int, s: Any, seed: int = 0) -> np.ndarray:
    """A matrix with these singular values."""
    rng = np.random.default_rng(seed)
    k = min(m, n)
    U, V = (np.linalg.qr(rng.standard_normal((rows, k)))[0] for rows in (m, n))
    return (U * s) @ V.T


@pytest.fixture(autouse=True)
def originals_come_back() -> Iterator[None]:
    """Every test leaves every name as it found it."""
    names = [
        (np.linalg, "svd"), (np.linalg, "eigh"), (np.linalg, "eigvalsh"), (np.linalg._linalg, "svd"),
        (scipy.linalg, "svd"), (scipy.linalg, "eigh"), (scipy.sparse.linalg, "svds"),
        (sys.modules["scipy.linalg._decomp_svd"], "svd"),
    ]  # fmt: skip
    before = [getattr(module, name) for module, name in names]
    yield
    assert [getattr(module, name) for module, name in names] == before
    assert not _accelerate_names._bound
    assert _accelerate_scope.current() is None
