"""The symmetric eigendecomposition behind `accelerate`: over the engines, against LAPACK through SciPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.linalg

import brockett as bk
from brockett._eigen import eigh


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
@pytest.mark.parametrize("order", ["C", "F", "strided"])
@pytest.mark.parametrize("lower", [True, False])
def test_eigh_reads_one_triangle(engine: str, dtype: Any, order: str, lower: bool) -> None:
    rng = np.random.default_rng(3)
    A = rng.integers(-9, 9, (21, 21)).astype(dtype)  # not symmetric: only one triangle counts
    A = np.asfortranarray(A) if order == "F" else np.repeat(A, 2, axis=1)[:, ::2] if order == "strided" else A
    kept = A.copy()
    exact = scipy.linalg.eigh(A.astype(float), lower=lower)
    w, V = eigh(A, lower=lower)
    values, nothing = eigh(A, lower=lower, vectors=False)
    assert nothing is None
    eps = 2.0**-23 if dtype is np.float32 else 2.0**-52
    for found in (w, values):
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, exact[0], atol=100 * eps * np.abs(exact[0]).max())
    assert V.dtype == (np.float32 if dtype is np.float32 else np.float64)
    np.testing.assert_allclose(V.T @ V, np.eye(21), atol=100 * eps)
    strict = np.tril(A, -1) if lower else np.triu(A, 1)
    S = (strict + strict.T + np.diag(np.diag(A))).astype(float)
    np.testing.assert_allclose(S @ V, V * w, atol=1000 * eps * np.abs(w).max())
    np.testing.assert_array_equal(A, kept)


def test_eigh_by_hand_and_of_one_number(engine: str) -> None:
    w, V = eigh([[2.0, 0.0], [1.0, 2.0]])
    np.testing.assert_allclose(w, [1, 3], rtol=1e-15)
    np.testing.assert_allclose(np.abs(V), np.sqrt(0.5), rtol=1e-15)
    w, V = eigh(np.array([[-4.0]]))
    assert (w.tolist(), abs(V.item())) == ([-4.0], 1.0)


def test_eigh_of_tensors(engine: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is an optional partner")
    A = torch.tensor([[2.0, 1.0], [1.0, 2.0]])
    w, V = eigh(A)
    assert (w.dtype, V.dtype) == (torch.float64, torch.float32)
    torch.testing.assert_close(w, torch.tensor([1.0, 3.0], dtype=torch.float64), atol=1e-6, rtol=0)


def test_eigh_refuses(engine: str) -> None:
    with pytest.raises(bk.InvalidArgument, match="square"):
        eigh(np.ones((2, 3)))
    with pytest.raises(bk.InvalidArgument):
        eigh(np.ones((0, 0)))
    A = np.eye(4)
    A[3, 1] = np.nan
    with pytest.raises(bk.NonFinite) as error:
        eigh(A)
    assert error.value.index == (3, 1)
    assert eigh(A, lower=False)[0].tolist() == [1, 1, 1, 1]
    with pytest.raises(bk.NonFinite) as error:
        eigh(A.T, lower=False)
    assert error.value.index == (1, 3)
