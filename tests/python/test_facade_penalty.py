"""Penalties: hand-solved cases, references of SciPy, and the rules of the classes."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import scipy.fft
import scipy.linalg

import brockett as bk
from brockett import penalty

PENALTIES = [
    penalty.FourierDerivative(),
    penalty.FourierDerivative(1),
    penalty.FourierDerivative(0.5),
    penalty.FiniteDifference(1),
    penalty.FiniteDifference(3),
    penalty.FiniteDifference(1, "neumann"),
    penalty.FiniteDifference(2, "neumann"),
]


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 13])
@pytest.mark.parametrize("kind", PENALTIES, ids=repr)
def test_matrix_basis_eigenvalues_and_operator_agree(engine: str, kind: penalty.Penalty, n: int) -> None:
    A, values, T, D = kind.matrix(n), kind.eigenvalues(n), kind.basis(n), kind.operator(n)
    scale = max(1.0, float(values[-1]))
    assert A.shape == T.shape == (n, n)
    assert values.shape == (n,)
    assert np.all(np.diff(values) >= 0)
    np.testing.assert_allclose(T.T @ T, np.eye(n), atol=1e-13)
    np.testing.assert_allclose(A, (T * values) @ T.T, atol=1e-12 * scale)
    np.testing.assert_allclose(D.T @ D, A, atol=1e-11 * scale)
    np.testing.assert_allclose(scipy.linalg.eigvalsh(A), values, atol=1e-12 * scale)


@pytest.mark.parametrize("n", [3, 4, 7, 8])
def test_fourier_operator_is_the_spectral_derivative(engine: str, n: int) -> None:
    # Second derivatives of the trigonometric interpolant, by SciPy's FFT.
    k = scipy.fft.fftfreq(n, 1 / n)
    D = scipy.fft.ifft(-(k**2)[:, None] * scipy.fft.fft(np.eye(n), axis=0), axis=0).real
    np.testing.assert_allclose(penalty.FourierDerivative(2).operator(n), -D, atol=1e-11)


def test_fourier_eigenvalues_are_exact_integers(engine: str) -> None:
    assert penalty.FourierDerivative(2).eigenvalues(7).tolist() == [0, 1, 1, 16, 16, 81, 81]
    assert penalty.FourierDerivative(2).eigenvalues(2).tolist() == [0, 1]
    assert penalty.FourierDerivative(2).eigenvalues(1).tolist() == [0]
    assert penalty.FourierDerivative(0).eigenvalues(3).tolist() == [1, 1, 1]


def test_differences_by_hand(engine: str) -> None:
    assert penalty.FiniteDifference(1, "neumann").operator(3).tolist() == [[-1, 1, 0], [0, -1, 1]]
    np.testing.assert_allclose(
        penalty.FiniteDifference(1, "neumann").matrix(3), [[1, -1, 0], [-1, 2, -1], [0, -1, 1]], atol=1e-14
    )
    np.testing.assert_allclose(
        penalty.FiniteDifference(1).matrix(4),
        [[2, -1, 0, -1], [-1, 2, -1, 0], [0, -1, 2, -1], [-1, 0, -1, 2]],
        atol=1e-14,
    )


def test_neumann_basis_is_the_dct(engine: str) -> None:
    dct = scipy.fft.dct(np.eye(6), type=2, norm="ortho", axis=0)
    np.testing.assert_allclose(penalty.FiniteDifference(2, "neumann").basis(6), dct.T, atol=1e-14)


@pytest.mark.parametrize("boundary", ["periodic", "neumann"])
def test_grid_is_a_kronecker_sum(engine: str, boundary: str) -> None:
    grid = penalty.Grid((3, 4), order=1, boundary=boundary)
    one = penalty.Grid((3,), order=1, boundary=boundary).matrix()
    two = penalty.Grid((4,), order=1, boundary=boundary).matrix()
    expected = np.kron(one, np.eye(4)) + np.kron(np.eye(3), two)
    np.testing.assert_allclose(grid.matrix(12), expected, atol=1e-11)
    np.testing.assert_allclose(penalty.Grid((3, 4), 2, boundary).matrix(), expected @ expected, atol=1e-9)
    np.testing.assert_allclose(grid.operator().T @ grid.operator(), expected, atol=1e-11)


def test_graph_laplacian(engine: str, rng: np.random.Generator) -> None:
    weights = np.triu(rng.random((5, 5)), 1)
    weights += weights.T
    L = np.diag(weights.sum(axis=1)) - weights
    one, two = penalty.GraphLaplacian(L), penalty.GraphLaplacian(L, power=2)
    np.testing.assert_allclose(one.matrix(), L, atol=1e-13)
    np.testing.assert_allclose(two.matrix(5), L @ L, atol=1e-12)
    np.testing.assert_allclose(two.operator(), L, atol=1e-15)
    np.testing.assert_allclose(one.eigenvalues(), scipy.linalg.eigvalsh(L), atol=1e-13)
    with pytest.raises(bk.Unsupported, match="odd power"):
        one.operator()


def test_custom(engine: str, rng: np.random.Generator) -> None:
    A = rng.normal(size=(4, 4))
    A = A + A.T  # indefinite
    kind = penalty.Custom(A)
    np.testing.assert_allclose(kind.matrix(), A, atol=1e-13)
    np.testing.assert_allclose(kind.eigenvalues(4), scipy.linalg.eigvalsh(A), atol=1e-13)
    with pytest.raises(bk.Unsupported, match="no operator"):
        kind.operator()
    A[0, 0] += 1  # a copy was kept
    assert abs(kind.matrix()[0, 0] - A[0, 0]) > 0.5


def test_custom_takes_other_libraries() -> None:
    torch = pytest.importorskip("torch")
    assert (
        penalty.Custom(torch.eye(3)) == penalty.Custom(np.eye(3)) == penalty.Custom([[1, 0, 0], [0, 1, 0], [0, 0, 1]])
    )


def test_equality_hash_repr_and_pickle() -> None:
    L = [[1.0, -1.0], [-1.0, 1.0]]
    kinds = [
        penalty.FourierDerivative(2),
        penalty.FourierDerivative(3),
        penalty.FiniteDifference(2),
        penalty.FiniteDifference(2, "neumann"),
        penalty.Grid((2, 3)),
        penalty.Grid((3, 2)),
        penalty.Grid((2, 3), boundary="neumann"),
        penalty.GraphLaplacian(L),
        penalty.GraphLaplacian(L, 2),
        penalty.Custom(L),
    ]
    for i, a in enumerate(kinds):
        for j, b in enumerate(kinds):
            assert (a == b) == (i == j)
        again = pickle.loads(pickle.dumps(a))
        assert again == a
        assert hash(again) == hash(a)
        assert type(a).__name__ in repr(a)
    assert penalty.FourierDerivative(2) == penalty.FourierDerivative(2.0)
    assert penalty.FourierDerivative(2) != "FourierDerivative(order=2)"


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: penalty.FourierDerivative(-1), "order"),
        (lambda: penalty.FourierDerivative(float("nan")), "order"),
        (lambda: penalty.FourierDerivative("2"), "order"),
        (lambda: penalty.FiniteDifference(0), "order"),
        (lambda: penalty.FiniteDifference(1.5), "order"),
        (lambda: penalty.FiniteDifference(2, "dirichlet"), "boundary"),
        (lambda: penalty.Grid(()), "shape"),
        (lambda: penalty.Grid((2, 0)), "shape"),
        (lambda: penalty.Grid(6), "shape"),
        (lambda: penalty.Grid((2, 2), boundary="open"), "boundary"),
        (lambda: penalty.GraphLaplacian([[1, 0], [0, 1]]), "L"),
        (lambda: penalty.GraphLaplacian([[1, -1], [-2, 2]]), "L"),
        (lambda: penalty.GraphLaplacian([[1, -1], [-1, 1]], power=0), "power"),
        (lambda: penalty.Custom([[1, 2], [3, 4]]), "A"),
        (lambda: penalty.Custom([[1, 2, 3], [3, 4, 5]]), "A"),
        (lambda: penalty.Custom([[1, np.nan], [np.nan, 1]]), "A"),
        (lambda: penalty.Custom(np.zeros((0, 0))), "A"),
        (lambda: penalty.Custom([[1j]]), "A"),
        (lambda: penalty.FourierDerivative().matrix(), "n"),
        (lambda: penalty.FourierDerivative().matrix(0), "n"),
        (lambda: penalty.FourierDerivative().basis(2.0), "n"),
        (lambda: penalty.Grid((2, 3)).matrix(5), "n"),
        (lambda: penalty.Custom(np.eye(3)).eigenvalues(4), "n"),
    ],
)
def test_bad_penalties_are_refused(make: object, argument: str) -> None:
    with pytest.raises(bk.InvalidArgument) as caught:
        make()  # type: ignore[operator]
    assert caught.value.argument == argument
