"""`accelerate` on NumPy and SciPy: the caller's contract, against the originals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg

import brockett as bk
from accelerate_cases import originals_come_back, spectrum  # noqa: F401

EPS32 = 2.0**-23
SHAPES = [(40, 40), (90, 30), (30, 90)]


def symmetric(n: int, seed: int = 0) -> np.ndarray:
    X = np.random.default_rng(seed).standard_normal((n, n))
    return (X + X.T) / 2


def same_vectors(first: Any, other: Any, tolerance: float) -> None:
    """Columns equal up to their signs."""
    overlap = np.abs(np.sum(np.asarray(first, float) * np.asarray(other, float), axis=-2))
    np.testing.assert_allclose(overlap, 1, atol=tolerance)


# --- singular values and vectors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [*SHAPES, (3, 40, 20), (2, 3, 20, 40)], ids=str)
@pytest.mark.parametrize("order", ["C", "F", "strided"])
def test_numpy_values(engine: str, shape: tuple[int, ...], order: str) -> None:
    rng = np.random.default_rng(1)
    A = rng.standard_normal(shape).astype(np.float32)
    A[..., np.arange(min(shape[-2:])), np.arange(min(shape[-2:]))] += 30  # far from singular
    A = np.asfortranarray(A) if order == "F" else np.repeat(A, 2, axis=-1)[..., ::2] if order == "strided" else A
    kept, expected = A.copy(), np.linalg.svd(A, compute_uv=False)
    with bk.accelerate(only=["numpy"], min_size=1, report=True) as report:
        s = np.linalg.svd(A, compute_uv=False)
        through = np.linalg.svdvals(A) if hasattr(np.linalg, "svdvals") else s
    assert (report.taken, report.left) == (2, 0), str(report)
    assert s.dtype == expected.dtype == np.float32
    assert s.shape == expected.shape
    # both are the exact values, rounded: each to a unit in its own last place
    np.testing.assert_allclose(s, expected, rtol=2 * EPS32, atol=0)
    np.testing.assert_array_equal(through, s)
    np.testing.assert_array_equal(A, kept)


@pytest.mark.parametrize("shape", [*SHAPES, (3, 40, 20)], ids=str)
def test_numpy_vectors(engine: str, shape: tuple[int, ...]) -> None:
    k = min(shape[-2:])
    lead = int(np.prod(shape[:-2]))
    A = np.stack([spectrum(*shape[-2:], np.linspace(3, 1, k), seed) for seed in range(lead)])
    A = A.reshape(shape).astype(np.float32)
    expected = np.linalg.svd(A, full_matrices=False)
    with bk.accelerate(only=["numpy"], min_size=1, report=True) as report:
        found = np.linalg.svd(A, full_matrices=False)
    assert report.taken == 1, str(report)
    assert type(found) is type(expected)
    for name in ("U", "S", "Vh"):
        mine, original = getattr(found, name), getattr(expected, name)
        assert (mine.shape, mine.dtype, mine.flags.c_contiguous) == (original.shape, original.dtype, True)
    np.testing.assert_allclose(found.S, expected.S, rtol=2 * EPS32)
    same_vectors(found.U, expected.U, 1e-5)
    same_vectors(np.swapaxes(found.Vh, -1, -2), np.swapaxes(expected.Vh, -1, -2), 1e-5)
    # as accurate as float64 rounded to float32, which is what NumPy computes
    exact = A.astype(float)
    for U, s, Vh in (expected, found):
        U, s, Vh = (part.astype(float) for part in (U, s, Vh))
        assert np.abs((U * s[..., None, :]) @ Vh - exact).max() < 1e-6
        assert np.abs(np.swapaxes(U, -1, -2) @ U - np.eye(k)).max() < 1e-6


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("compute_uv", [True, False])
@pytest.mark.parametrize("flags", [{}, {"overwrite_a": True}, {"check_finite": False}], ids=str)
def test_scipy_svd(engine: str, shape: tuple[int, int], compute_uv: bool, flags: dict[str, Any]) -> None:
    A = spectrum(*shape, np.linspace(3, 1, min(shape))).astype(np.float32)
    expected = scipy.linalg.svd(A, full_matrices=False, compute_uv=compute_uv)
    with bk.accelerate(only=["scipy"], min_size=1, report=True) as report:
        found = scipy.linalg.svd(A.copy(), full_matrices=False, compute_uv=compute_uv, **flags)
        values = scipy.linalg.svdvals(A)
    assert (report.taken, report.left) == (2, 0), str(report)
    assert type(found) is type(expected)
    s, exact = (found[1], expected[1]) if compute_uv else (found, expected)
    assert s.dtype == np.float32
    np.testing.assert_allclose(s, exact, atol=20 * EPS32 * exact[0])
    np.testing.assert_allclose(values, exact, atol=20 * EPS32 * exact[0])
    if compute_uv:
        assert all(part.dtype == np.float32 for part in found)
        same_vectors(found[0], expected[0], 1e-5)
        np.testing.assert_allclose((found[0] * s) @ found[2], A, atol=2e-6)


@pytest.mark.parametrize("rank", [0, 1, 7, 29])
def test_rank_decisions_stay_right(engine: str, rank: int) -> None:
    """Zeros, and small values, are never noise of the Gram matrix: the original runs where it cannot tell."""
    s = np.where(np.arange(30) < rank, np.linspace(2, 1, 30), 0.0)
    A = spectrum(60, 30, s).astype(np.float32)
    tiny = spectrum(60, 30, np.r_[np.linspace(2, 1, 29), 1e-5]).astype(np.float32)
    ranks, pinv = [np.linalg.matrix_rank(A), np.linalg.matrix_rank(tiny)], np.linalg.pinv(tiny)
    values, cond = np.linalg.svd(tiny, compute_uv=False), np.linalg.cond(tiny)
    double = np.linalg.matrix_rank(A.astype(float))
    for tol in (1e-9, 1e-6):
        with bk.accelerate(only=["numpy"], min_size=1, tol=tol):
            assert np.linalg.matrix_rank(A) == ranks[0]
            assert np.linalg.matrix_rank(A.astype(float)) == double
    with bk.accelerate(only=["numpy", "scipy"], min_size=1):
        assert [np.linalg.matrix_rank(A), np.linalg.matrix_rank(tiny)] == ranks
        np.testing.assert_array_equal(np.linalg.pinv(tiny), pinv)
        np.testing.assert_array_equal(np.linalg.svd(tiny, compute_uv=False), values)
        assert np.linalg.cond(tiny) == cond
        found = scipy.linalg.svdvals(tiny)  # computed in float32 by SciPy: to eps s₁
        assert np.abs(found - values).max() <= 4 * EPS32 * values[0]
        assert np.linalg.norm(A, 2) == pytest.approx(s.max(), rel=1e-6)


def test_tol_lets_float64_through_the_gram_matrix(engine: str) -> None:
    A = spectrum(90, 40, np.linspace(2, 1, 40))
    exact = np.linalg.svd(A, compute_uv=False)
    with bk.accelerate(only=["numpy"], min_size=1, report=True) as report:
        np.testing.assert_array_equal(np.linalg.svd(A, compute_uv=False), exact)
    assert (report.taken, report.left) == (0, 1)
    with bk.accelerate(only=["numpy"], min_size=1, tol=1e-9, report=True) as report:
        np.testing.assert_allclose(np.linalg.svd(A, compute_uv=False), exact, atol=1e-9)
        small = spectrum(90, 40, np.r_[np.linspace(2, 1, 39), 1e-7])
        assert np.linalg.svd(small, compute_uv=False)[-1] == pytest.approx(1e-7, rel=1e-6)
    assert (report.taken, report.left) == (1, 1)
    assert report.functions()["numpy.linalg.svd"]["reasons"] == {"small singular values": 1}


# --- symmetric matrices -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("uplo", ["L", "U"])
def test_eigh(engine: str, dtype: Any, uplo: str) -> None:
    S = symmetric(33).astype(dtype)
    other = np.triu_indices(33, 1) if uplo == "L" else np.tril_indices(33, -1)
    S[other] = 77  # not read
    batch = np.stack([S, 2 * S])
    expected = np.linalg.eigh(batch, uplo), np.linalg.eigvalsh(batch, uplo), scipy.linalg.eigh(S, lower=uplo == "L")
    with bk.accelerate(only=["numpy", "scipy"], min_size=1, report=True) as report:
        found = np.linalg.eigh(batch, uplo), np.linalg.eigvalsh(batch, uplo), scipy.linalg.eigh(S, lower=uplo == "L")
        values = scipy.linalg.eigvalsh(S, lower=uplo == "L"), scipy.linalg.eigh(S, lower=uplo == "L", eigvals_only=True)
    assert (report.taken, report.left) == (5, 0), str(report)
    assert type(found[0]) is type(expected[0])
    atol = 40 * np.finfo(dtype).eps * 20
    np.testing.assert_allclose(found[1], expected[1], atol=2 * atol)
    for (w, V), (exact, vectors) in ((found[0], expected[0]), (found[2], expected[2])):
        assert (w.dtype, V.dtype, V.shape) == (exact.dtype, vectors.dtype, vectors.shape)
        np.testing.assert_allclose(w, exact, atol=2 * atol)
        same_vectors(V, vectors, 1e-3 if dtype is np.float32 else 1e-10)
    for w in values:
        np.testing.assert_allclose(w, expected[2][0], atol=atol)


# --- svds -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["dense", "csr", "coo", "operator"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("vectors", [True, False, "u", "vh"])
def test_svds(engine: str, kind: str, dtype: Any, vectors: Any) -> None:
    A = spectrum(120, 80, 0.9 ** np.arange(80)).astype(dtype)
    if kind != "dense":
        A = np.where(np.abs(A) > np.quantile(np.abs(A), 0.7), A, 0).astype(dtype)
    exact = np.linalg.svd(A.astype(float))
    given = {
        "dense": lambda: A,
        "csr": lambda: scipy.sparse.csr_array(A),
        "coo": lambda: scipy.sparse.coo_matrix(A),
        "operator": lambda: scipy.sparse.linalg.aslinearoperator(A),
    }[kind]()
    original = scipy.sparse.linalg.svds(given, 5, return_singular_vectors=vectors, rng=0)
    with bk.accelerate(only=["scipy"], min_size=1, report=True) as report:
        found = scipy.sparse.linalg.svds(given, 5, return_singular_vectors=vectors, rng=0)
    assert report.functions()["scipy.sparse.linalg.svds"]["taken"] == 1, str(report)
    s = found if vectors is False else found[1]
    assert s.dtype == (original if vectors is False else original[1]).dtype == dtype
    tolerance = 1e-6 if dtype is np.float32 else 1e-12
    np.testing.assert_allclose(s, exact[1][4::-1], rtol=tolerance)  # ascending, as ARPACK's are
    if vectors is False:
        return
    references = (exact[0][:, 4::-1], None, exact[2][4::-1])
    for part in (0, 2):
        mine, theirs, reference = found[part], original[part], references[part]
        assert (mine is None) == (theirs is None)
        if mine is not None:
            assert mine.shape == theirs.shape
            assert mine.dtype == theirs.dtype
            assert all(stride > 0 for stride in mine.strides)
            columns = (mine, reference) if mine.shape[0] == 120 else (mine.T, reference.T)
            same_vectors(*columns, 1e-4 if dtype is np.float32 else 1e-10)


def test_svds_leaves_generators_as_the_original_does() -> None:
    A = spectrum(60, 40, 0.8 ** np.arange(40))
    first, other = np.random.default_rng(3), np.random.default_rng(3)
    scipy.sparse.linalg.svds(A, 3, rng=first)
    with bk.accelerate(only=["scipy"], min_size=1, report=True) as report:
        scipy.sparse.linalg.svds(A, 3, rng=other)
        scipy.sparse.linalg.svds(A, 3, v0=np.ones(40), tol=1e-3, solver="arpack", which="LM")
    assert report.functions()["scipy.sparse.linalg.svds"]["taken"] == 2
    assert first.random() == other.random()


# --- what goes to the original ----------------------------------------------------------------------------------------


class Tagged(np.ndarray):
    """An array subclass of somebody's own."""


S32 = symmetric(12).astype(np.float32)
LEFT = {
    "numpy list": lambda: np.linalg.svd([[1.0, 2.0], [3.0, 4.0]]),
    "numpy integers": lambda: np.linalg.svd(np.arange(12).reshape(3, 4), compute_uv=False),
    "numpy complex": lambda: np.linalg.svd(S32 + 1j),
    "numpy float64": lambda: np.linalg.svd(S32.astype(float)),
    "numpy hermitian": lambda: np.linalg.svd(S32, hermitian=True, compute_uv=False),
    "numpy full matrices": lambda: np.linalg.svd(S32[:4] + np.eye(12, dtype=np.float32)[:4] * 9),
    "numpy empty": lambda: np.linalg.svd(np.zeros((0, 3), np.float32)),
    "numpy matrix": lambda: np.linalg.svd(np.matrix(S32)),
    "numpy masked": lambda: np.linalg.svd(np.ma.masked_array(S32), compute_uv=False),
    "numpy subclass": lambda: np.linalg.eigh(S32.view(Tagged)),
    "numpy big-endian": lambda: np.linalg.svd(S32.astype(">f4"), compute_uv=False),
    "numpy lowercase uplo": lambda: np.linalg.eigvalsh(S32, "u"),
    "scipy gesvd": lambda: scipy.linalg.svd(S32, lapack_driver="gesvd"),
    "scipy batch": lambda: scipy.linalg.svd(np.stack([S32, S32])),
    "scipy complex": lambda: scipy.linalg.eigh(S32 + 0j),
    "scipy subset": lambda: scipy.linalg.eigh(S32, subset_by_index=[0, 2]),
    "scipy values subset": lambda: scipy.linalg.eigvalsh(S32, subset_by_value=[0, 2]),
    "scipy generalized": lambda: scipy.linalg.eigh(S32, np.eye(12)),
    "scipy driver": lambda: scipy.linalg.eigh(S32, driver="ev"),
    "svds smallest": lambda: scipy.sparse.linalg.svds(S32, 2, which="SM", return_singular_vectors=False, rng=0),
    "svds lobpcg": lambda: scipy.sparse.linalg.svds(S32.astype(float), 2, solver="lobpcg", rng=0)[1],
    "svds complex": lambda: scipy.sparse.linalg.svds(S32 + 1j, 2, return_singular_vectors=False, rng=0),
}


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("call", LEFT.values(), ids=LEFT)
def test_left_to_the_original(call: Any) -> None:
    expected = call()
    with bk.accelerate(only=["numpy", "scipy"], min_size=1, report=True) as report:
        found = call()
    assert report.left >= 1
    assert type(found) is type(expected)
    pairs = zip(found, expected, strict=True) if isinstance(found, tuple | list) else [(found, expected)]
    for mine, theirs in pairs:
        assert type(mine) is type(theirs)
        assert mine.dtype == theirs.dtype
        np.testing.assert_allclose(mine, theirs, atol=1e-5)


ERRORS = {
    "numpy vector": lambda: np.linalg.svd(np.ones(3, np.float32)),
    "numpy nan": lambda: np.linalg.svd(np.full((9, 9), np.nan, np.float32)),
    "numpy not square": lambda: np.linalg.eigh(np.ones((3, 4))),
    "numpy uplo": lambda: np.linalg.eigh(S32, "X"),
    "numpy unknown keyword": lambda: np.linalg.svd(S32, compute=True),
    "numpy no argument": lambda: np.linalg.svd(),
    "numpy half": lambda: np.linalg.svd(S32.astype(np.float16)),
    "numpy extended": lambda: np.linalg.svd(S32.astype(np.longdouble)),
    "scipy nan": lambda: scipy.linalg.svd(np.full((9, 9), np.nan, np.float32)),
    "scipy eigh nan": lambda: scipy.linalg.eigh(np.full((9, 9), np.nan)),
    "scipy eigh nan in the other triangle": lambda: scipy.linalg.eigh(S32 + np.triu(np.full((12, 12), np.nan), 1)),
    "scipy driver": lambda: scipy.linalg.svd(S32, lapack_driver="fast"),
    "scipy not square": lambda: scipy.linalg.eigh(np.ones((3, 4))),
    "svds k": lambda: scipy.sparse.linalg.svds(S32, 12),
    "svds v0": lambda: scipy.sparse.linalg.svds(S32, 2, v0=np.ones(5)),
    "svds integers": lambda: scipy.sparse.linalg.svds("words", 2),
    "svds which": lambda: scipy.sparse.linalg.svds(S32, 2, which="XX"),
}


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("call", ERRORS.values(), ids=ERRORS)
def test_errors_are_the_original_s(call: Any) -> None:
    with pytest.raises(Exception) as expected:
        call()
    with bk.accelerate(only=["numpy", "scipy"], min_size=1), pytest.raises(Exception) as found:
        call()
    assert type(found.value) is type(expected.value)
    assert str(found.value) == str(expected.value)
    assert not isinstance(found.value, bk.BrockettError)


def test_an_operator_s_own_error_passes() -> None:
    def broken(_: Any) -> Any:
        raise ZeroDivisionError("mine")

    A = scipy.sparse.linalg.LinearOperator((30, 20), matvec=broken, rmatvec=broken, dtype=np.float64)
    with bk.accelerate(only=["scipy"], min_size=1), pytest.raises(ZeroDivisionError, match="mine"):
        scipy.sparse.linalg.svds(A, 2)


def test_default_limits() -> None:
    A = np.eye(130, 300, dtype=np.float32)
    with bk.accelerate(only=["numpy", "scipy"], report=True) as report:
        np.linalg.svd(A, compute_uv=False)
        np.linalg.svd(A, full_matrices=False)
        scipy.linalg.svdvals(A)
        np.linalg.svd(A.astype(float), compute_uv=False)
    rows = report.functions()
    assert (rows["numpy.linalg.svd"]["taken"], rows["scipy.linalg.svd"]["taken"]) == (2, 1)
    assert rows["numpy.linalg.svd"]["reasons"] == {"the same LAPACK": 1}
    with bk.accelerate(only=["numpy"], tol=1e-9, report=True) as report:
        np.linalg.svd(A.astype(float), compute_uv=False)
        np.linalg.svd(np.eye(130), compute_uv=False)
        np.linalg.svd(np.eye(50), compute_uv=False)
    assert report.taken == 2
    assert report.functions()["numpy.linalg.svd"]["reasons"] == {"small": 1}


def test_small_matrices_run_as_they_did() -> None:
    A = np.eye(8, dtype=np.float32)
    with bk.accelerate(only=["numpy", "scipy"], report=True) as report:
        np.linalg.svd(A)
        np.linalg.eigh(A)
        scipy.sparse.linalg.svds(A, 2, return_singular_vectors=False)
    assert report.taken == 0
    reasons = report.functions()
    assert reasons["numpy.linalg.svd"]["reasons"] == {"not faster for this shape": 1}
    assert reasons["numpy.linalg.eigh"]["reasons"] == {"the same LAPACK": 1}
    assert reasons["scipy.sparse.linalg.svds"]["reasons"] == {"small": 1}
