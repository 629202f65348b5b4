"""Block Krylov through the façade, on every engine: spectra that are hard in different ways, operators, refusals."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse.linalg

import brockett as bk


def with_values(m: int, n: int, s: np.ndarray, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    U = np.linalg.qr(rng.standard_normal((m, len(s))))[0]
    V = np.linalg.qr(rng.standard_normal((n, len(s))))[0]
    return (U * s) @ V.T


def heavy(m: int, n: int) -> np.ndarray:
    """A Gaussian bulk and power-law spikes above it: the rank asked for ends inside the bulk."""
    rng = np.random.default_rng(m + n)
    spikes = with_values(m, n, 4 * np.arange(1.0, 21) ** -0.6 + 1, 1)
    return rng.standard_normal((m, n)) / np.sqrt(max(m, n)) + spikes


def check(A: np.ndarray, found: bk.SVDResult, rank: int, tol: float) -> None:
    """Against SciPy's exact values; the residual recomputed in float64."""
    U, s, Vt = (np.asarray(x, dtype=np.float64) for x in found)
    B = np.asarray(A, dtype=np.float64)
    single = A.dtype == np.float32
    assert (U.shape, s.shape, Vt.shape) == ((len(B), rank), (rank,), (rank, B.shape[1]))
    np.testing.assert_allclose(U.T @ U, np.eye(rank), atol=3e-6 if single else 1e-12)
    np.testing.assert_allclose(Vt @ Vt.T, np.eye(rank), atol=3e-6 if single else 1e-12)
    scale = s[0] or 1.0
    right = np.linalg.norm(B @ Vt.T - U * s, axis=0).max() / scale
    left = np.linalg.norm(B.T @ U - Vt.T * s, axis=0).max() / scale
    assert max(left, right) <= tol * 1.05 + (1e-7 if single else 0)
    assert found.residual == pytest.approx(max(left, right), rel=1e-2, abs=1.5e-7 if single else 1e-14)
    # values are off by no more than the residual, and every one of the leading values is there
    np.testing.assert_allclose(s, scipy.linalg.svdvals(B)[:rank], atol=2 * (tol + (1e-7 if single else 0)) * scale)
    assert np.all(Vt[np.arange(rank), np.abs(Vt).argmax(axis=1)] > 0)


i = np.arange(1.0, 301)
SPECTRA = {
    "heavy": heavy(420, 300),
    "heavy, wide": heavy(420, 300).T.copy(),
    "1/i": with_values(420, 300, 1 / i),
    "geometric": with_values(420, 300, np.maximum(0.93**i, 1e-7)),
    "slow": with_values(420, 300, i**-0.3),
    "flat": np.random.default_rng(5).standard_normal((420, 300)),
    "clusters": with_values(420, 300, np.repeat([5.0, 3.0, 2.0, 1.0, 0.5], 60) * (1 + 1e-9 * i)),
    "ties of 40": with_values(420, 300, np.repeat([4.0, 3.0, 2.0, 1.0], [40, 40, 40, 180])),
    "rank 12": with_values(420, 300, np.linspace(2, 1, 12)),
    "one": with_values(420, 300, np.array([3.0])),
    "orthogonal": np.linalg.qr(np.random.default_rng(6).standard_normal((300, 300)))[0],
    "zero": np.zeros((60, 40)),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", SPECTRA)
def test_spectra(engine: str, name: str, dtype: Any) -> None:
    A = SPECTRA[name].astype(dtype)
    for rank in (1, 5, 24):
        found = bk.svd(A, rank, method="krylov")
        assert found.method == "krylov"
        check(A, found, rank, 1e-6)
    tol = 4e-7 if dtype == np.float32 else 1e-12
    check(A, bk.svd(A, 10, tol, method="krylov"), 10, tol)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (2, 2), (9, 8), (8, 30), (33, 32), (400, 3), (65, 600)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_rank_of_any_shape(engine: str, shape: tuple[int, int], dtype: Any, rng: np.random.Generator) -> None:
    A = rng.standard_normal(shape).astype(dtype)
    for array in (A, np.asfortranarray(A)):
        for rank in sorted({1, min(shape) // 2 or 1, max(1, min(shape) - 1), min(shape)}):
            check(A, bk.svd(array, rank, method="krylov"), rank, 1e-6)


def test_restarts(engine: str) -> None:
    A = np.random.default_rng(8).standard_normal((900, 700))  # no gaps: the basis of 94 vectors is far too small
    for dtype, tol in ((np.float64, 1e-10), (np.float32, 5e-7)):
        found = bk.svd(A.astype(dtype), 10, tol, method="krylov")
        check(A.astype(dtype), found, 10, tol)
        assert found.columns > 200


def test_one_seed_one_answer(engine: str) -> None:
    A = SPECTRA["heavy"]
    first, again = (bk.svd(A, 6, method="krylov", seed=3) for _ in range(2))
    assert np.array_equal(first.U, again.U)
    assert np.array_equal(first.s, again.s)
    other = bk.svd(A, 6, method="krylov", seed=4)
    assert not np.array_equal(first.U, other.U)
    np.testing.assert_allclose(first.s, other.s, rtol=1e-10)


def test_engines_take_the_same_steps() -> None:
    for name in ("heavy", "heavy, wide", "ties of 40", "rank 12"):
        results = []
        for engine in ("cpu", "numpy"):
            bk.set_engine(engine)
            results.append(bk.svd(SPECTRA[name], 10, method="krylov"))
        one, other = results
        assert one.columns == other.columns > 0, name
        np.testing.assert_allclose(one.s, other.s, rtol=1e-12)
    for tol in (1e-3, 3e-4, 1e-4, 1e-5, 1e-6, 1e-7):
        columns = set()
        for engine in ("cpu", "numpy"):
            bk.set_engine(engine)
            columns.add(bk.svd(SPECTRA["heavy"], 24, tol, method="krylov").columns)
        assert len(columns) == 1, tol


def test_it_says_what_was_reached_where_it_gives_up(engine: str) -> None:
    A = SPECTRA["flat"]
    with pytest.raises(bk.NotConverged, match=r"residual .* after (40|48) columns, tol is 1e-06"):
        bk.svd(A, 10, method="krylov", max_columns=40)
    with pytest.raises(bk.NotConverged, match="data of this precision reach about"):
        bk.svd(A.astype(np.float32), 10, tol=1e-10, method="krylov")
    found = bk.svd(A.astype(np.float32), 10, tol=1e-10)  # "auto" goes on instead, to what float32 can hold
    assert found.method in ("gram", "exact")
    assert found.residual < 4 * np.finfo(np.float32).eps


def test_auto_takes_what_is_cheapest(engine: str) -> None:
    A = heavy(1100, 900).astype(np.float32)
    found = bk.svd(A, 8)
    assert found.method == "krylov"
    check(A, found, 8, 1e-6)
    assert bk.svd(A[:200, :100], 90).method in ("gram", "exact")
    assert bk.svd(A[:300, :200]).method == "exact"


def test_rank_by_frobenius_tail(engine: str) -> None:
    for dtype in (np.float32, np.float64):
        for A in (SPECTRA["heavy"][:200, :150], SPECTRA["1/i"][:100], SPECTRA["rank 12"]):
            true = scipy.linalg.svdvals(A)
            tails = np.sqrt(np.cumsum(true[::-1] ** 2)[::-1]) / np.linalg.norm(true)
            for tail in (0.7, 0.3, 0.02):
                smallest = max(1, int(np.sum(tails > tail)))
                for operand in (A.astype(dtype), bk.Product(A.astype(dtype))):
                    found = bk.svd(operand, frobenius_tol=tail, method="krylov")
                    assert found.rank == smallest
                    assert found.residual <= 1e-6
                    np.testing.assert_allclose(found.s, true[:smallest], rtol=1e-4)
                if smallest > 3:
                    assert bk.svd(A.astype(dtype), 3, frobenius_tol=tail, method="krylov").rank == 3


def test_quick_beats_subspace_iteration_with_the_same_products(engine: str) -> None:
    extmath = pytest.importorskip("sklearn.utils.extmath")
    A = SPECTRA["heavy"]
    true = scipy.linalg.svdvals(A)[:12]
    for steps in (1, 2, 4):
        quick = bk.svd(A, 12, method="quick", iterations=steps)
        assert quick.columns <= (steps + 1) * 22 + 8
        theirs = extmath.randomized_svd(A, 12, n_iter=steps, power_iteration_normalizer="QR", random_state=0)[1]
        assert np.abs(quick.s / true - 1).max() < 0.8 * np.abs(theirs / true - 1).max()


STEEP = {
    "1/i": 1 / i,
    "1/i²": i**-2.0,
    "1/i³": i**-3.0,
    "geometric": 0.8**i,
    "steps": np.repeat([1.0, 1e-3, 1e-6, 1e-9, 1e-12], 60),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", STEEP)
def test_the_residual_of_quick_is_that_of_its_vectors(engine: str, name: str, dtype: Any) -> None:
    A, rounding = with_values(420, 300, STEEP[name]).astype(dtype), 2e-7 if dtype == np.float32 else 1e-14
    for rank in (1, 12, 60, 130, 299):
        for array in (A, np.asfortranarray(A), A.T):
            B = array.astype(np.float64)
            for iterations in (0, 1, 6):
                found = bk.svd(array, rank, method="quick", iterations=iterations)
                U, s, Vt = (np.asarray(x, dtype=np.float64) for x in found)
                right, left = (np.linalg.norm(D, axis=0).max() for D in (B @ Vt.T - U * s, B.T @ U - Vt.T * s))
                assert found.residual == pytest.approx(max(right, left) / s[0], rel=0.02, abs=rounding)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["1/i", "1/i²", "1/i³", "geometric"])
def test_tolerances_are_reached_on_steep_spectra(engine: str, name: str, dtype: Any) -> None:
    # Squares of the last values are below the rounding of the first: what estimates say of them, rounding contradicts.
    # And what a block has of the basis grows from step to step.
    for seed in range(3):
        A = with_values(420 if seed == 0 else 300, 300, STEEP[name], seed).astype(dtype)
        for rank in (10, 30, 40, 90):
            for tol in (1e-3, 1e-4, 1e-6 if dtype == np.float32 else 1e-10):
                check(A, bk.svd(A, rank, tol, method="krylov", seed=seed), rank, tol)


def test_rounding_does_not_grow_where_nothing_is_left(engine: str) -> None:
    # Blocks of rounding alone: what each keeps of the basis must not be more than the one before it had.
    for seed in range(40):
        A = with_values(300, 200, np.ones(10), seed).astype(np.float32)
        found = bk.svd(A, 20, method="quick", iterations=60, seed=seed)
        assert found.residual < 1e-5
        np.testing.assert_allclose(found.s, np.repeat([1.0, 0.0], 10), atol=1e-5)


@pytest.mark.parametrize(("dtype", "tol"), [(np.float32, 2e-8), (np.float64, 5e-16)])
def test_a_tolerance_out_of_reach_is_given_up_soon(engine: str, dtype: Any, tol: float) -> None:
    A = with_values(300, 250, np.exp(-np.arange(250) / 10.0)).astype(dtype)
    with pytest.raises(bk.NotConverged, match="svd by block Krylov: residual") as caught:
        bk.svd(A, 30, tol, method="krylov")
    residual, columns = re.findall(r"residual (\S+) of s_1 after (\d+) columns", str(caught.value))[0]
    assert float(residual) < 10 * tol  # the best there was
    assert int(columns) <= 300


def test_small_values_take_no_products_that_nobody_asked_for(engine: str) -> None:
    # σ_r is 1e-4 of σ_1, tol 1e-4 is met by the vectors of the squares
    A = with_values(420, 300, 10.0 ** -np.linspace(0, 12, 300)).astype(np.float32)
    multiplied = []

    def matmat(X: np.ndarray) -> np.ndarray:
        multiplied.append(X.shape[1])
        return A @ X

    operator = scipy.sparse.linalg.LinearOperator(
        A.shape, matvec=lambda x: A @ x, rmatvec=lambda y: A.T @ y, matmat=matmat, rmatmat=lambda Y: A.T @ Y,
        dtype=A.dtype,
    )  # fmt: skip
    found = bk.svd(operator, 100, 1e-4)
    assert found.residual <= 1e-4
    finishing = 0 if engine == "cpu" else 2 * 100  # the compiled core has kept the images of its basis
    assert sum(multiplied) <= found.columns + 1 + finishing


def test_an_estimate_that_is_not_kept_is_not_the_end(engine: str) -> None:
    for seed in range(5):
        A = with_values(250, 400, np.arange(1.0, 251) ** -4, seed)
        check(A, bk.svd(A, 50, 1e-13, method="krylov", seed=seed), 50, 1e-13)


@pytest.mark.parametrize("scale", [1e-140, 1e-30, 1e30, 1e140])
def test_scales_of_operators(engine: str, scale: float) -> None:
    A = SPECTRA["heavy"]
    product = bk.Product(A * scale)
    np.testing.assert_allclose(bk.svd(product, 4).s / scale, scipy.linalg.svdvals(A)[:4], rtol=1e-10)
    if 1e-30 <= scale <= 1e30:
        single = bk.Product((A * scale).astype(np.float32))
        np.testing.assert_allclose(bk.svd(single, 4).s / scale, scipy.linalg.svdvals(A)[:4], rtol=1e-5)


# --- operators --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_are_what_numpy_multiplies(engine: str, dtype: Any, rng: np.random.Generator) -> None:
    chain = [rng.standard_normal(shape).astype(dtype) for shape in ((50, 40), (40, 60), (60, 35))]
    full = chain[0].astype(np.float64) @ chain[1] @ chain[2]
    for factors in (chain, [np.asfortranarray(F) for F in chain], [F[::-1][::-1] for F in chain]):
        A = bk.Product(*factors)
        assert (A.shape, A.dtype) == ((50, 35), dtype)
        found = bk.svd(A, 7)
        assert found.method == "krylov"
        assert found.U.dtype == found.Vt.dtype == dtype
        U, s, Vt = (np.asarray(x, dtype=np.float64) for x in found)
        np.testing.assert_allclose(s, scipy.linalg.svdvals(full)[:7], rtol=3e-6)
        assert np.linalg.norm(full @ Vt.T - U * s, axis=0).max() < 3e-6 * s[0]
        assert np.linalg.norm(full.T @ U - Vt.T * s, axis=0).max() < 3e-6 * s[0]
    mixed = bk.Product(chain[0].astype(np.float32), chain[1].astype(np.float64))
    assert mixed.dtype == np.float64
    # W R^(1/2), with a factor of R in the place of the root
    root = np.linalg.cholesky(np.cov(rng.standard_normal((40, 200))))
    W = chain[0].astype(np.float64)
    np.testing.assert_allclose(bk.svd(bk.Product(W, root), 5).s, bk.whitened_svd(W, root @ root.T, 5).s[:5], rtol=1e-7)


@pytest.mark.parametrize(("n", "rank"), [(60, 23), (100, 36), (120, 25)])
def test_multiple_values_in_single_precision(engine: str, n: int, rank: int) -> None:
    """Half of the values are 2 and half 1: the basis has to span everything, down to its last, short block."""
    for seed in range(4):
        A = with_values(n, n, np.repeat([2.0, 1.0], n // 2), seed).astype(np.float32)
        found = bk.svd(A, rank, method="krylov", seed=seed)
        check(A, found, rank, 1e-6)


def test_linear_operators(engine: str, rng: np.random.Generator) -> None:
    A = rng.standard_normal((80, 50))
    for matrix in (A, A.T):
        for dtype in (np.float32, np.float64):
            operator = scipy.sparse.linalg.aslinearoperator(matrix.astype(dtype))
            found = bk.svd(operator, 6)
            assert found.U.dtype == dtype
            check(matrix.astype(dtype), found, 6, 1e-6)
    sparse = scipy.sparse.random_array((300, 200), density=0.05, rng=np.random.default_rng(0))
    found = bk.svd(scipy.sparse.linalg.aslinearoperator(sparse), 5, method="krylov")
    check(sparse.toarray(), found, 5, 1e-6)


class Broken:
    shape, dtype = (30, 20), np.dtype(np.float64)

    def __init__(self, matmat: Any = None, rmatmat: Any = None) -> None:
        A = np.random.default_rng(0).standard_normal(self.shape)
        self.matmat = matmat or (lambda X: A @ X)
        self.rmatmat = rmatmat or (lambda X: A.T @ X)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_transpose_that_is_none_shows_in_the_residual(engine: str, dtype: Any) -> None:
    A = SPECTRA["1/i"].astype(dtype)
    for wrong in (2 * A.T, A.T * np.linspace(1, 2, 420, dtype=dtype), -A.T, A.T[::-1]):
        for shape, there, back in ((A.shape, A, wrong), (A.T.shape, wrong, A)):
            operator = Broken(there.__matmul__, back.__matmul__)
            operator.shape, operator.dtype = shape, np.dtype(dtype)
            assert bk.svd(operator, 8, method="quick").residual > 0.2
            with pytest.raises(bk.NotConverged):
                bk.svd(operator, 8, method="krylov", tol=1e-3, max_columns=200)


def raising(X: np.ndarray) -> np.ndarray:
    raise KeyError("mine")


@pytest.mark.parametrize(
    ("operator", "message"),
    [
        (Broken(matmat=lambda X: X), r"matmat of a block of shape \(20, 1\) must return shape \(30, 1\)"),
        (Broken(rmatmat=lambda X: X[:, :1]), r"rmatmat of a block of shape \(30, 8\) must return shape \(20, 8\)"),
        (Broken(matmat=lambda X: np.full((30, X.shape[1]), np.nan)), "operator's product holds NaN or Inf"),
        (Broken(rmatmat=lambda X: np.full((20, X.shape[1]), np.inf)), "transposed operator's product holds NaN or Inf"),
        (Broken(matmat=lambda X: "no numbers"), "matmat did not return an array of numbers"),
        (Broken(matmat=lambda X: np.full((30, X.shape[1]), 1j)), "matmat returned complex numbers"),
        (Broken(rmatmat=lambda X: np.full((20, X.shape[1]), 1 + 0j)), "rmatmat returned complex numbers"),
    ],
)
def test_operators_that_misbehave(engine: str, operator: Broken, message: str) -> None:
    with pytest.raises(bk.InvalidArgument, match=message) as caught:
        bk.svd(operator, 4)
    assert caught.value.argument == "A"


def test_what_an_operator_raises_comes_through(engine: str) -> None:
    for operator in (Broken(matmat=raising), Broken(rmatmat=raising)):
        with pytest.raises(KeyError, match="mine"):
            bk.svd(operator, 4)


def test_operators_may_keep_their_blocks(engine: str) -> None:
    kept: list[np.ndarray] = []
    A = np.random.default_rng(1).standard_normal((30, 20))

    def matmat(X: np.ndarray) -> np.ndarray:
        kept.append(X)
        image = A @ X
        X[:] = np.nan  # theirs to write to
        return image

    np.testing.assert_allclose(bk.svd(Broken(matmat, lambda Y: A.T @ Y), 3).s, scipy.linalg.svdvals(A)[:3], rtol=1e-10)
    assert all(np.isnan(X).all() for X in kept)


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: bk.Product(), "factors"),
        (lambda: bk.Product(np.eye(3), np.eye(2)), "factors"),
        (lambda: bk.Product(np.eye(3), np.ones(3)), "factors[1]"),
        (lambda: bk.svd(bk.Product(np.ones((1, 1)), np.array([[1.0, np.nan]])), 1), "factors[1]"),
        (lambda: bk.svd(bk.Product(*[np.full((9, 9), 1e20, np.float32)] * 2), 1), "factors"),
        (lambda: bk.svd(bk.Product(np.eye(3))), "rank"),
        (lambda: bk.svd(bk.Product(np.eye(3)), 4), "rank"),
        (lambda: bk.svd(bk.Product(np.eye(3)), 1, method="gram"), "method"),
        (lambda: bk.svd(bk.Product(np.eye(3)), 1, method="exact"), "method"),
        (lambda: bk.svd(bk.Product(np.eye(3)), frobenius_tol=1e-9), "frobenius_tol"),
        (lambda: bk.singular_values(bk.Product(np.eye(3))), "A"),
        (lambda: bk.randomized_svd(bk.Product(np.eye(3)), 1), "M"),
        (lambda: bk.svd(Broken(), 21), "rank"),
    ],
)
def test_bad_operators(engine: str, call: Any, argument: str) -> None:
    with pytest.raises(bk.InvalidArgument) as caught:
        call()
    assert caught.value.argument == argument


def test_batches(engine: str) -> None:
    A = np.stack([heavy(90, 70), heavy(90, 70)[::-1], np.zeros((90, 70))])
    found = bk.svd(A, 4, method="krylov")
    for k in range(3):
        one = bk.svd(A[k], 4, method="krylov")
        np.testing.assert_allclose(found.s[k], one.s, rtol=1e-12)
        assert found.residual[k] <= 1e-6


def test_elsewhere_than_in_numpy() -> None:
    strict = pytest.importorskip("array_api_strict")
    place = strict.Device("device1")
    for name in ("heavy", "ties of 40", "rank 12"):
        A = SPECTRA[name][:120, :90].copy()
        there = strict.asarray(A, device=place)
        for operand in (there, bk.Product(there)):
            found = bk.svd(operand, 5, method="krylov")
            assert found.U.device == found.Vt.device == place
            np.testing.assert_allclose(np.asarray(found.s.to_device(strict.Device("CPU_DEVICE"))),
                                       scipy.linalg.svdvals(A)[:5], atol=1e-6)  # fmt: skip
