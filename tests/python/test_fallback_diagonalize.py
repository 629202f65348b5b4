"""Maximum diagonality and the Brockett cost of the fallback, against brute force, scipy and differences."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group

from brockett import InvalidArgument, NonFinite
from brockett import _fallback as fb

FOURIER = {"kind": "fourier", "order": 2.0}
CRITERIA = ["sum", "square"]
GROUPS = ["orthogonal", "special_orthogonal"]


def diagonalize(W: Any, criterion: str = "sum", group: str = "orthogonal", **o: Any) -> dict[str, Any]:
    return fb.diagonalize(np.asarray(W), criterion, group, o.get("max_iterations", 1000), o.get("tol", 1e-14))


def value_of(P: np.ndarray, W: np.ndarray, criterion: str) -> Any:
    d = np.einsum("...ik,ki->...i", P[..., : min(W.shape), :], W[:, : min(W.shape)])
    return np.sum(d if criterion == "sum" else d**2, axis=-1)


def haar(n: int, count: int, group: str, rng: np.random.Generator) -> np.ndarray:
    if n == 1:
        P = rng.choice([-1.0, 1.0], (count, 1, 1))
    else:
        P = np.asarray(ortho_group.rvs(n, size=count, random_state=rng))
    return P if group == "orthogonal" else P[np.linalg.det(P) > 0]


# --- by hand ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_scaled_rotation_by_hand(criterion: str) -> None:
    Q = np.array([[0.6, -0.8], [0.8, 0.6]])
    W = Q @ np.diag([3.0, 2.0])
    found = diagonalize(W, criterion)
    np.testing.assert_allclose(found["P"], Q.T, atol=1e-15)
    np.testing.assert_allclose(found["weights"], np.diag([3, 2]), atol=1e-14)
    assert found["value"] == pytest.approx(5 if criterion == "sum" else 13)
    assert found["bound"] == pytest.approx(found["value"])


def test_special_orthogonal_by_hand() -> None:
    W = np.diag([3.0, -1.0])  # a reflection: SO(2) has to give up the smaller value
    assert diagonalize(W)["value"] == pytest.approx(4)
    found = diagonalize(W, group="special_orthogonal")
    assert found["value"] == pytest.approx(2)
    assert found["bound"] == pytest.approx(4)
    np.testing.assert_allclose(found["P"], np.eye(2), atol=1e-15)


def test_a_derangement_is_not_a_trap() -> None:
    W = np.eye(3)[[1, 2, 0]]  # P = I has a zero diagonal, a stationary point
    found = diagonalize(W, "square")
    assert found["value"] == pytest.approx(3)
    np.testing.assert_allclose(found["weights"], np.eye(3), atol=1e-14)


def test_the_iteration_leaves_a_stationary_point() -> None:
    B = np.eye(3)[[1, 2, 0]].T
    P, iterations, converged = sys.modules["brockett._fallback.diagonalize"]._iterate(
        B, np.eye(3), 3, False, 100, 1e-14
    )
    np.testing.assert_allclose(np.sum(P * B, axis=1), 1)
    assert converged
    assert iterations >= 2


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("shape", [(3, 3), (4, 2), (2, 4), (1, 1)])
def test_zero_weights_give_the_identity(shape: tuple[int, int], criterion: str) -> None:
    found = diagonalize(np.zeros(shape), criterion)
    np.testing.assert_allclose(found["P"], np.eye(shape[0]), atol=1e-15)
    assert (found["value"], found["bound"], found["converged"]) == (0, 0, True)


# --- against others ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (3, 3), (4, 4), (4, 2), (3, 5), (5, 1)])
def test_no_random_matrix_is_better(
    shape: tuple[int, int], group: str, criterion: str, rng: np.random.Generator
) -> None:
    for _ in range(4):
        W = rng.standard_normal(shape)
        found = diagonalize(W, criterion, group)
        P = found["P"]
        np.testing.assert_allclose(P @ P.T, np.eye(shape[0]), atol=1e-13)
        if group == "special_orthogonal":
            assert np.linalg.det(P) == pytest.approx(1)
        assert found["value"] == pytest.approx(value_of(P, W, criterion), rel=1e-12)
        np.testing.assert_allclose(found["weights"], P @ W, atol=1e-13)
        assert found["value"] <= found["bound"] * (1 + 1e-12)
        others = value_of(haar(shape[0], 3000, group, rng), W, criterion)
        tolerance = 1e-12 if criterion == "sum" else 0.02 * found["value"]  # square is a local search
        assert others.max() <= found["value"] + tolerance
        skew = rng.standard_normal((300, shape[0], shape[0])) * 1e-3
        near = np.linalg.qr(np.eye(shape[0]) + skew - np.swapaxes(skew, 1, 2))[0]
        near = near * np.sign(np.einsum("kii->ki", near))[:, None, :]
        assert value_of(near @ P, W, criterion).max() <= found["value"] + 1e-10


def test_sum_is_scipys_polar_factor(rng: np.random.Generator) -> None:
    W = rng.standard_normal((6, 6))
    found = diagonalize(W)
    np.testing.assert_allclose(found["P"], scipy.linalg.polar(W)[0].T, atol=1e-13)
    np.testing.assert_allclose(found["weights"], found["weights"].T, atol=1e-13)
    assert np.linalg.eigvalsh(found["weights"]).min() > 0
    assert found["value"] == pytest.approx(np.linalg.norm(W, "nuc"), rel=1e-14)
    assert (found["iterations"], found["converged"]) == (0, True)


def test_a_null_space_is_nearest_to_the_identity(rng: np.random.Generator) -> None:
    W = rng.standard_normal((5, 2))
    P = diagonalize(W)["P"]
    # all maximisers: X₁ Y₁ᵀ + X₀ G Y₀ᵀ
    X, _, Yt = np.linalg.svd(np.hstack([W, np.zeros((5, 3))]).T)
    G = haar(3, 2000, "orthogonal", rng)
    others = X[:, :2] @ Yt[:2] + X[:, 2:] @ G @ Yt[2:]
    np.testing.assert_allclose(value_of(others[:9], W, "sum"), diagonalize(W)["value"])
    assert np.trace(P) >= np.einsum("kii->k", others).max() - 1e-12
    special = diagonalize(W, group="special_orthogonal")
    assert special["value"] == pytest.approx(diagonalize(W)["value"])  # a flip in the null space is free
    right = others[np.linalg.det(others) > 0]
    assert np.trace(special["P"]) >= np.einsum("kii->k", right).max() - 1e-12


@settings(derandomize=True, deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 6), st.sampled_from(GROUPS))
def test_square_never_falls(seed: int, n: int, m: int, group: str) -> None:
    W = np.random.default_rng(seed).standard_normal((n, m))
    values = [diagonalize(W, "square", group, max_iterations=k)["value"] for k in (0, 1, 2, 5, 1000)]
    assert (np.diff(values) >= -1e-12 * values[-1]).all()
    found = diagonalize(W, "square", group)
    assert found["converged"]
    assert found["iterations"] >= 1
    assert found["value"] <= np.sum(W[:, : min(n, m)] ** 2) * (1 + 1e-12)
    if group == "orthogonal":
        d = np.diag(found["P"] @ W)
        assert (d >= -1e-12).all()
    assert not diagonalize(np.eye(3) + 0.1, "square", max_iterations=0)["converged"]


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("scale", [1e-150, 1e149])
def test_scales(scale: float, criterion: str, rng: np.random.Generator) -> None:
    W = rng.standard_normal((4, 3))
    one, scaled = diagonalize(W, criterion), diagonalize(W * scale, criterion)
    np.testing.assert_allclose(scaled["P"], one["P"], atol=1e-9)
    power = scale if criterion == "sum" else scale * scale
    assert scaled["value"] / power == pytest.approx(one["value"], rel=1e-10)
    np.testing.assert_allclose(scaled["weights"] / scale, one["weights"], atol=1e-9)


def test_float32(rng: np.random.Generator) -> None:
    W = rng.standard_normal((4, 6)).astype(np.float32)
    found = diagonalize(W)
    assert found["P"].dtype == found["weights"].dtype == np.float32
    assert found["value"] == pytest.approx(value_of(found["P"].astype(float), W.astype(float), "sum"), rel=1e-12)


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("criterion", {"criterion": "cube"}),
        ("group", {"group": "permutation"}),
        ("max_iterations", {"max_iterations": -1}),
        ("tol", {"tol": -1.0}),
    ],
)
def test_bad_options(argument: str, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument) as error:
        diagonalize(np.eye(2), **options)
    assert error.value.argument == argument


def test_bad_weights() -> None:
    for W in (np.ones(3), np.ones((0, 2)), np.ones((2, 2, 2)), np.full((2, 2), 1e200)):
        with pytest.raises(InvalidArgument, match="W"):
            diagonalize(W, "square")
    with pytest.raises(NonFinite):
        diagonalize([[1.0, np.nan]])


# --- the cost ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "penalty", [FOURIER, {"kind": "matrix", "A": np.diag([1.0, -2, 3, 0.5]), "power": 1, "laplacian": False}]
)
def test_cost_and_gradient(penalty: dict[str, Any], rng: np.random.Generator) -> None:
    P, M = rng.standard_normal((4, 4)), rng.standard_normal((4, 4))
    C = M + M.T  # any symmetric C
    A = fb.penalty_matrix(penalty, 4)
    found = fb.brockett_cost(P, C, penalty)
    assert found["value"] == pytest.approx(np.trace(A @ P @ C @ P.T), rel=1e-12)
    np.testing.assert_allclose(found["gradient"], 2 * A @ P @ C, atol=1e-12 * 16 * 10)
    # central differences of a quadratic are exact but for rounding
    E = rng.standard_normal((4, 4))
    h = 1e-3
    slope = (
        (fb.brockett_cost(P + h * E, C, penalty)["value"] - fb.brockett_cost(P - h * E, C, penalty)["value"]) / 2 / h
    )
    assert slope == pytest.approx(np.sum(found["gradient"] * E), rel=1e-8)


def test_cost_by_hand() -> None:
    # n = 2: A = (1, -1; -1, 1)/2
    found = fb.brockett_cost(np.eye(2), np.array([[2.0, 1.0], [1.0, 4.0]]), FOURIER)
    assert found["value"] == pytest.approx(0.5 * (2 - 1 - 1 + 4))
    np.testing.assert_allclose(found["gradient"], [[1, -3], [-1, 3]], atol=1e-14)
    # what is symmetric to rounding is made symmetric
    found = fb.brockett_cost(np.eye(2), np.array([[2.0, 1.0 + 2e-9], [1.0, 4.0]]), FOURIER)
    np.testing.assert_allclose(found["gradient"], [[1 - 1e-9, -3 + 1e-9], [-1 + 1e-9, 3 - 1e-9]], rtol=0, atol=1e-14)


def test_the_gradient_vanishes_along_the_group_at_the_optimum(rng: np.random.Generator) -> None:
    Y = rng.standard_normal((20, 5))
    C = Y.T @ Y / 20
    source = {"kind": "covariance", "C": C}
    P = fb.descramble(None, source, FOURIER, "orthogonal", "identity", None, 0, 0, 1, 1, "float64")["P"]
    G = fb.brockett_cost(P, C, FOURIER)["gradient"]
    np.testing.assert_allclose(G @ P.T, P @ G.T, atol=1e-12)


def test_cost_at_scale(rng: np.random.Generator) -> None:
    P = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    C = np.eye(4) + 0.1
    one = fb.brockett_cost(P, C, FOURIER)
    found = fb.brockett_cost(P, C * 1e300, FOURIER)
    assert found["value"] / 1e300 == pytest.approx(one["value"], rel=1e-13)
    found = fb.brockett_cost(P * 1e150, C * 1e-300, FOURIER)
    assert found["value"] == pytest.approx(one["value"], rel=1e-13)
    with pytest.raises(InvalidArgument, match="overflow"):
        fb.brockett_cost(P * 1e10, C * 1e300, FOURIER)


@pytest.mark.parametrize(
    ("argument", "P", "C"),
    [
        ("P", np.ones((2, 3)), np.eye(2)),
        ("P", np.ones(2), np.eye(2)),
        ("C", np.eye(2), np.eye(3)),
        ("C", np.eye(2), np.array([[1.0, 2.0], [0.0, 1.0]])),
        ("P", np.full((2, 2), np.nan), np.eye(2)),
        ("C", np.eye(2), np.full((2, 2), np.inf)),
    ],
)
def test_bad_cost_arguments(argument: str, P: np.ndarray, C: np.ndarray) -> None:
    with pytest.raises(InvalidArgument) as error:
        fb.brockett_cost(P, C, FOURIER)
    assert error.value.argument == argument


def test_a_large_rotation_of_a_trap() -> None:
    # half-turns, where tr(P W) of the identity is negative
    W = -np.eye(4)
    assert diagonalize(W, group="special_orthogonal")["value"] == pytest.approx(4)
    assert math.isclose(diagonalize(-np.eye(3), group="special_orthogonal")["value"], 1)
