"""Penalties of the fallback: bases and eigenvalues against definitions that use neither."""

from __future__ import annotations

import itertools
import math
from typing import Any

import mpmath
import numpy as np
import pytest
import scipy.fft
from hypothesis import given, settings
from hypothesis import strategies as st

from brockett import InvalidArgument, NonFinite
from brockett import _fallback as fb
from brockett._fallback.penalty import spectrum


def fourier(order: float = 2.0) -> dict[str, Any]:
    return {"kind": "fourier", "order": order}


def difference(order: int = 1, boundary: str = "periodic") -> dict[str, Any]:
    return {"kind": "difference", "order": order, "boundary": boundary}


def grid(*shape: int, order: float = 2.0, boundary: str = "periodic") -> dict[str, Any]:
    return {"kind": "grid", "shape": shape, "order": order, "boundary": boundary}


def matrix(A: Any, power: int = 1, laplacian: bool = False) -> dict[str, Any]:
    return {"kind": "matrix", "A": np.asarray(A, dtype=float), "power": power, "laplacian": laplacian}


PATH = np.array([[1.0, -1, 0, 0], [-1, 2, -1, 0], [0, -1, 2, -1], [0, 0, -1, 1]])


# --- by hand ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "n", "values"),
    [
        (fourier(), 1, [0]),
        (fourier(), 2, [0, 1]),
        (fourier(), 3, [0, 1, 1]),
        (fourier(), 6, [0, 1, 1, 16, 16, 81]),
        (fourier(1), 5, [0, 1, 1, 4, 4]),
        (fourier(0.5), 4, [0, 1, 1, 2]),
        (fourier(0), 3, [1, 1, 1]),
        (difference(), 4, [0, 2, 2, 4]),
        (difference(2), 4, [0, 4, 4, 16]),
        (difference(1, "neumann"), 2, [0, 2]),
        (difference(2, "neumann"), 3, [0, 1, 9]),
        (grid(2, 2, order=1), 4, [0, 1, 1, 2]),
        (grid(3, 2), 6, [0, 1, 1, 1, 4, 4]),
        (grid(2, 2, order=1, boundary="neumann"), 4, np.pi**2 / 4 * np.array([0, 1, 1, 2])),
        (matrix(np.diag([3.0, -1.0, 2.0])), 3, [-1, 2, 3]),
        (matrix([[1.0, -1.0], [-1.0, 1.0]], 3, True), 2, [0, 8]),
    ],
)
def test_eigenvalues_by_hand(spec: dict[str, Any], n: int, values: Any) -> None:
    np.testing.assert_allclose(fb.penalty_eigenvalues(spec, n), values, rtol=1e-15, atol=1e-15)


def test_fourier_basis_by_hand() -> None:
    h, q = np.sqrt(0.5), 0.5
    T = [[q, h, 0, q], [q, 0, h, -q], [q, -h, 0, q], [q, 0, -h, -q]]
    np.testing.assert_allclose(fb.penalty_basis(fourier(), 4), T, atol=1e-15)


def test_second_difference_by_hand() -> None:
    A = [[2, -1, 0, -1], [-1, 2, -1, 0], [0, -1, 2, -1], [-1, 0, -1, 2]]
    np.testing.assert_allclose(fb.penalty_matrix(difference(), 4), A, atol=1e-14)
    np.testing.assert_allclose(fb.penalty_matrix(difference(1, "neumann"), 4), PATH, atol=1e-14)
    np.testing.assert_allclose(fb.penalty_matrix(difference(2, "neumann"), 4), PATH @ PATH, atol=1e-14)


# --- what each is by definition ---------------------------------------------------------------------------------------

ALL = [fourier(), fourier(1.5), difference(2), difference(3, "neumann"), grid(12), grid(3, 4), grid(2, 2, 3)]
ALL += [grid(4, 3, boundary="neumann"), grid(2, 3, 2, order=1, boundary="neumann")]


@pytest.mark.parametrize("spec", ALL)
def test_every_kind_is_a_decomposition(spec: dict[str, Any]) -> None:
    values, T, A = (f(spec, 12) for f in (fb.penalty_eigenvalues, fb.penalty_basis, fb.penalty_matrix))
    assert (np.diff(values) >= 0).all()
    np.testing.assert_allclose(T.T @ T, np.eye(12), atol=1e-14)
    np.testing.assert_allclose(A @ T, T * values, atol=1e-13 * values[-1])
    np.testing.assert_array_equal(A, A.T)


@pytest.mark.parametrize("n", range(1, 34))
def test_fourier_derivative_to_40_digits(n: int) -> None:
    # A x = the 4th derivative of the trigonometric interpolant of x: its kernel, by a Fourier sum in 40 digits
    with mpmath.workdps(40):
        kernel = []
        for j in range(n):
            angle = 2 * mpmath.pi * j / n
            total = sum(2 * mpmath.mpf(k) ** 4 * mpmath.cos(k * angle) for k in range(1, (n + 1) // 2))
            if n % 2 == 0:
                total += mpmath.mpf(n // 2) ** 4 * mpmath.cos(n // 2 * angle)
            kernel.append(float(total / n))
    A = fb.penalty_matrix(fourier(), n)
    circulant = np.array([[kernel[(i - j) % n] for j in range(n)] for i in range(n)])
    np.testing.assert_allclose(A, circulant, atol=1e-14 * max(1, (n // 2) ** 4))


@pytest.mark.parametrize("n", [7, 64, 1024])
def test_fourier_values_are_whole_numbers(n: int) -> None:
    assert fb.penalty_eigenvalues(fourier(), n).tolist() == [float(((j + 1) // 2) ** 4) for j in range(n)]


def test_bases_are_good_to_rounding_at_high_frequencies() -> None:
    n = 1000
    T = fb.penalty_basis(fourier(), n)
    np.testing.assert_allclose(T.T @ T, np.eye(n), atol=3e-15)
    with mpmath.workdps(30):
        expected = [float(mpmath.sqrt(mpmath.mpf(2) / n) * mpmath.sin(2 * mpmath.pi * 499 * j / n)) for j in range(n)]
    np.testing.assert_allclose(T[:, 998], expected, atol=1e-16)


def test_dct_is_scipys() -> None:
    T = fb.penalty_basis(difference(1, "neumann"), 13)
    np.testing.assert_allclose(T.T, scipy.fft.dct(np.eye(13), axis=0, norm="ortho"), atol=1e-15)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_differences_are_powers_of_one_difference(order: int) -> None:
    n = 9
    D = np.roll(np.eye(n), 1, axis=1) - np.eye(n)
    np.testing.assert_allclose(
        fb.penalty_matrix(difference(order), n), np.linalg.matrix_power(D.T @ D, order), atol=1e-12
    )
    N = D[:-1]  # reflected: no difference across the ends
    np.testing.assert_allclose(
        fb.penalty_matrix(difference(order, "neumann"), n), np.linalg.matrix_power(N.T @ N, order), atol=1e-12
    )


@pytest.mark.parametrize("boundary", ["periodic", "neumann"])
def test_grids_are_kronecker_sums(boundary: str) -> None:
    # one axis: k² or (πk/n)²
    def axis(n: int) -> np.ndarray:
        if boundary == "periodic":
            return fb.penalty_matrix(fourier(1), n)
        T = scipy.fft.dct(np.eye(n), axis=0, norm="ortho")
        return T.T @ np.diag((np.pi * np.arange(n) / n) ** 2) @ T

    kronecker = np.kron(axis(4), np.eye(3)) + np.kron(np.eye(4), axis(3))
    A = fb.penalty_matrix(grid(4, 3, boundary=boundary), 12)
    np.testing.assert_allclose(A, kronecker @ kronecker, atol=1e-11)


def test_a_grid_of_one_axis_is_the_line() -> None:
    np.testing.assert_array_equal(fb.penalty_basis(grid(9), 9), fb.penalty_basis(fourier(), 9))
    np.testing.assert_array_equal(fb.penalty_eigenvalues(grid(9), 9), fb.penalty_eigenvalues(fourier(), 9))
    np.testing.assert_array_equal(fb.penalty_basis(grid(9, 1), 9), fb.penalty_basis(fourier(), 9))


def test_ties_of_grids_are_ordered_by_flat_index() -> None:
    T = fb.penalty_basis(grid(3, 3), 9)
    F = fb.penalty_basis(fourier(), 3)
    # λ = 1: (0, 1), (0, 2), (1, 0), (2, 0)
    expected = [np.kron(F[:, a], F[:, b]) for a, b in ((0, 0), (0, 1), (0, 2), (1, 0), (2, 0), (1, 1))]
    np.testing.assert_allclose(T[:, :6], np.stack(expected, axis=1), atol=1e-15)


@settings(derandomize=True, deadline=None, max_examples=30)
@given(st.integers(1, 9), st.integers(0, 10**6), st.integers(1, 3))
def test_matrices(n: int, seed: int, power: int) -> None:
    M = np.random.default_rng(seed).standard_normal((n, n))
    A = M + M.T
    spec = matrix(A, power)
    values, T = fb.penalty_eigenvalues(spec, n), fb.penalty_basis(spec, n)
    np.testing.assert_allclose(values, np.sort(np.linalg.eigvalsh(A) ** power), atol=1e-12 * 100**power)
    np.testing.assert_allclose((T * values) @ T.T, np.linalg.matrix_power(A, power), atol=1e-12 * 100**power)
    np.testing.assert_allclose(fb.penalty_matrix(spec, n), np.linalg.matrix_power(A, power), atol=1e-12 * 100**power)
    largest = T[np.argmax(np.abs(T), axis=0), np.arange(n)]
    assert (largest > 0).all()


# --- blocks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "n", "blocks"),
    [
        (fourier(), 1, [0, 1]),
        (fourier(), 5, [0, 1, 3, 5]),
        (fourier(), 6, [0, 1, 3, 5, 6]),
        (fourier(0), 4, [0, 4]),
        (difference(), 6, [0, 1, 3, 5, 6]),
        (difference(2, "neumann"), 4, [0, 1, 2, 3, 4]),
        (grid(3, 3), 9, [0, 1, 5, 9]),
        (grid(4, 4, boundary="neumann"), 16, [0, 1, 3, 4, 6, 8, 9, 11, 13, 15, 16]),
        (matrix(np.eye(3)), 3, [0, 3]),
        (matrix(np.diag([1.0, -1.0, 2.0]), 2), 3, [0, 2, 3]),
        (matrix(np.diag([1.0, -1.0, 2.0]), 3), 3, [0, 1, 2, 3]),
    ],
)
def test_blocks(spec: dict[str, Any], n: int, blocks: list[int]) -> None:
    assert spectrum(spec, n).blocks == blocks


def test_small_eigenvalues_are_told_apart() -> None:
    # the smallest are 1e-12 and less of the largest, and no less distinct for it
    assert len(spectrum(grid(40, boundary="neumann", order=6), 40).blocks) == 41
    n = 40
    N = (np.roll(np.eye(n), 1, axis=1) - np.eye(n))[:-1]
    assert len(spectrum(matrix(N.T @ N, 6, True), n).blocks) == 41


def test_sums_of_squares_that_tie_but_for_rounding() -> None:
    # 3² + 4² = 5² + 0², times (π/n)², and so on: one block for each whole number, in it ordered by flat index
    for n, m in ((6, 6), (11, 11), (14, 14), (12, 13), (30, 31)):
        s = spectrum(grid(n, m, boundary="neumann"), n * m)
        sums = sorted((i * m) ** 2 + (j * n) ** 2 for i in range(n) for j in range(m))
        assert s.blocks == [0, *(k for k in range(1, n * m) if sums[k] > sums[k - 1]), n * m]
        T = [fb.penalty_basis(difference(1, "neumann"), side) for side in (n, m)]
        index = np.argmax(np.abs(np.kron(*T).T @ s.basis), axis=0)
        for lo, hi in itertools.pairwise(s.blocks):
            assert (np.diff(index[lo:hi]) > 0).all()


def test_zeros_of_a_power_are_zeros() -> None:
    L = np.kron(np.eye(3), PATH)  # three components
    for power in (1, 2, 3):
        assert fb.penalty_eigenvalues(matrix(L, power, True), 12)[:3].tolist() == [0, 0, 0]


def test_rounding_does_not_split_blocks(rng: np.random.Generator) -> None:
    Q = np.linalg.qr(rng.standard_normal((30, 30)))[0]
    A = (Q * np.repeat([0.0, 1.0, 5.0], 10)) @ Q.T
    assert spectrum(matrix((A + A.T) / 2), 30).blocks == [0, 10, 20, 30]
    cycle = 2 * np.eye(30) - np.roll(np.eye(30), 1, axis=1) - np.roll(np.eye(30), -1, axis=1)
    assert spectrum(matrix(cycle, 2, True), 30).blocks == spectrum(difference(2), 30).blocks


def test_which_are_circulant() -> None:
    for spec, expected in (
        (fourier(), True),
        (difference(), True),
        (grid(9), True),
        (difference(1, "neumann"), False),
        (grid(3, 3), False),
        (grid(9, boundary="neumann"), False),
        (matrix(np.eye(9)), False),
    ):
        assert spectrum(spec, 9).circulant is expected


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "spec", "n"),
    [
        ("penalty", {"kind": "wavelet"}, 4),
        ("n", fourier(), 0),
        ("order", fourier(-1), 4),
        ("order", fourier(math.nan), 4),
        ("order", fourier(math.inf), 4),
        ("order", difference(0), 4),
        ("order", {"kind": "difference", "order": 1.5, "boundary": "periodic"}, 4),
        ("boundary", difference(1, "dirichlet"), 4),
        ("boundary", grid(4, boundary="dirichlet"), 4),
        ("penalty", grid(2, 3), 5),
        ("shape", grid(), 1),
        ("shape", grid(0, 2), 1),
        ("penalty", matrix(np.eye(3)), 4),
        ("power", matrix(np.eye(3), 0), 3),
        ("A", matrix(np.ones((2, 2)) + np.triu(np.ones((2, 2)))), 2),
        ("A", matrix(np.ones(3)), 3),
        ("L", matrix(np.eye(3), 1, True), 3),
        ("penalty", fourier(60), 10**6),
        ("penalty", fourier(60.3), 10**6),
        ("penalty", matrix(np.diag([1e200, 0.0]), 2), 2),
    ],
)
def test_refusals(argument: str, spec: dict[str, Any], n: int) -> None:
    with pytest.raises(InvalidArgument) as error:
        fb.penalty_eigenvalues(spec, n)
    assert error.value.argument == argument


def test_non_finite_matrix() -> None:
    A = np.eye(3)
    A[0, 2] = np.nan
    with pytest.raises(NonFinite) as error:
        fb.penalty_basis(matrix(A), 3)
    assert error.value.index == (0, 2)
