"""The search for a permutation in Python: against SciPy, against all n! orders, and against the compiled core."""

from __future__ import annotations

import importlib
import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import null_space
from scipy.optimize import linear_sum_assignment, quadratic_assignment

import brockett as bk
from brockett._fallback import permutation as pm
from brockett._fallback.assignment import solve_assignment
from brockett._fallback.local_search import LocalSearch
from conftest import ENGINES


def fourier(n: int) -> np.ndarray:
    """k⁴ in the Fourier basis, by its circulant symbol."""
    symbol = np.fft.ifft(np.abs(np.fft.fftfreq(n, 1 / n)) ** 4).real
    i = np.arange(n)
    return symbol[(i[:, None] - i) % n]


def path(n: int, power: int = 1) -> np.ndarray:
    """Laplacian of n points in a row."""
    L = np.diag(np.r_[1.0, np.full(max(n - 2, 0), 2.0), 1.0][:n]) - np.eye(n, k=1) - np.eye(n, k=-1)
    return np.linalg.matrix_power(L, power)


def symmetric(rng: np.random.Generator, n: int) -> np.ndarray:
    X = rng.standard_normal((n, n))
    return X + X.T


def moments(rng: np.random.Generator, n: int, m: int) -> np.ndarray:
    X = rng.standard_normal((n, m))
    return X @ X.T / m


def ring(rng: np.random.Generator, n: int, noise: float) -> np.ndarray:
    x = 2 * np.pi * (np.arange(512) / 512 - np.arange(n)[:, None] / n)
    X = np.exp(3 * (np.cos(x) - 1)) + noise * rng.standard_normal((n, 512))
    return X @ X.T / 512


def relu_net(rng: np.random.Generator, n: int) -> np.ndarray:
    """Pre-activations of the second layer of a random net."""
    hidden = np.maximum(rng.standard_normal((32, 8)) @ rng.standard_normal((8, 1000)), 0)
    X = rng.standard_normal((n, 32)) @ hidden
    return X @ X.T / 1000


def every_cost(A: np.ndarray, C: np.ndarray) -> np.ndarray:
    p = np.array(list(itertools.permutations(range(len(A)))))
    return np.einsum("ij,pij->p", A, C[p[:, :, None], p[:, None, :]])


# --- assignment -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 8, 31, 90])
@pytest.mark.parametrize("kind", ["normal", "integer", "rank 2", "constant"])
def test_assignment_agrees_with_scipy(rng: np.random.Generator, n: int, kind: str) -> None:
    cost = {
        "normal": lambda: rng.standard_normal((n, n)),
        "integer": lambda: rng.integers(0, 4, (n, n)).astype(float),
        "rank 2": lambda: rng.standard_normal((n, 2)) @ rng.standard_normal((2, n)),
        "constant": lambda: np.full((n, n), 0.1),
    }[kind]()
    rows, columns = linear_sum_assignment(cost)
    for start in (None, 100 * rng.standard_normal(n)):
        order, duals = solve_assignment(cost, start)
        assert sorted(order.tolist()) == list(range(n))
        total = cost[np.arange(n), order].sum()
        assert total == pytest.approx(cost[rows, columns].sum(), abs=1e-11 * n)
        assert (cost - duals).min(axis=1).sum() + duals.sum() == pytest.approx(total, abs=1e-11 * n)


# --- bound ------------------------------------------------------------------------------------------------------------


def test_projection_bound_agrees_with_another_basis_and_is_below_every_order(rng: np.random.Generator) -> None:
    for n in range(2, 8):
        for A in (fourier(n), symmetric(rng, n), path(n)):
            C = symmetric(rng, n)
            V = null_space(np.ones((1, n)))
            a, c = np.linalg.eigvalsh(V.T @ A @ V), np.linalg.eigvalsh(V.T @ C @ V)
            ra, rc = np.sort(A.sum(axis=1)), np.sort(C.sum(axis=1))
            expected = a @ c[::-1] + 2 / n * ra @ rc[::-1] - A.sum() * C.sum() / n**2
            size = np.linalg.norm(A) * np.linalg.norm(C)
            bound = pm.projection_bound(A, C)
            assert bound == pytest.approx(expected, abs=1e-12 * size)
            assert bound <= every_cost(A, C).min() + 1e-12 * size
    assert pm.projection_bound(np.array([[1.0, 2], [2, 5]]), np.array([[3.0, 1], [1, 7]])) == pytest.approx(26)


def test_projection_bound_takes_known_eigenvalues(rng: np.random.Generator) -> None:
    n, C = 9, moments(rng, 9, 20)
    eigenvalues = np.abs(np.fft.fftfreq(n, 1 / n)) ** 4
    assert pm.projection_bound(fourier(n), C, eigenvalues) == pytest.approx(pm.projection_bound(fourier(n), C))


# --- the search -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exhaustive", [0, 8])
def test_small_problems_are_solved(rng: np.random.Generator, exhaustive: int) -> None:
    elsewhere = 0
    for n in (3, 4, 5, 6, 6, 7):
        for A, circulant in ((fourier(n), True), (path(n, 2), False), (symmetric(rng, n), False)):
            C = moments(rng, n, 2 * n)
            found = pm.search_permutation(A, C, circulant=circulant, exhaustive_up_to=exhaustive)
            assert found.cost == pytest.approx(every_cost(A, C).min(), abs=1e-12 * np.abs(A).sum() * np.abs(C).max())
            assert found.bound <= found.cost
            assert found.exact == (exhaustive > 0)
            if circulant:
                assert found.order[0] == 0
                assert found.order[1] < found.order[-1]
            elsewhere += int(found.order[0] != 0)
    assert elsewhere > 3  # the gauge of the ring is not forced on others


@pytest.mark.parametrize("noise", [0.0, 0.02])
@pytest.mark.parametrize("n", [16, 45, 96])
def test_planted_rings_come_back(rng: np.random.Generator, n: int, noise: float) -> None:
    hidden = rng.permutation(n)
    C = ring(rng, n, noise)[np.ix_(hidden, hidden)]
    found = pm.search_permutation(fourier(n), C, circulant=True, starts=0)
    np.testing.assert_array_equal(found.order, pm.fix_dihedral_gauge(np.argsort(hidden)))
    assert 0.2 * found.cost < found.bound <= found.cost


@pytest.mark.parametrize("power", [1, 2])
def test_planted_lines_come_back(rng: np.random.Generator, power: int) -> None:
    n = 30
    hidden, x = rng.permutation(n), np.arange(n) / n
    C = np.exp(-12 * (x[hidden][:, None] - x[hidden]) ** 2)
    found = pm.search_permutation(path(n, power), C, starts=0)
    planted = np.argsort(hidden)
    assert found.order.tolist() in (planted.tolist(), planted[::-1].tolist())


def test_search_is_no_worse_than_scipy(rng: np.random.Generator) -> None:
    n = 24
    for A, circulant in ((fourier(n), True), (path(n, 2), False)):
        for C in (moments(rng, n, 40), relu_net(rng, n), ring(rng, n, 0.3)):
            centred = C - C.mean(axis=0) - C.mean(axis=1)[:, None] + C.mean()
            found = pm.search_permutation(A, C, circulant=circulant)
            options: dict[str, Any] = {"P0": "randomized", "rng": np.random.default_rng(1)}
            peers = [quadratic_assignment(A, centred, method="faq", options=options).fun for _ in range(8)]
            peers += [quadratic_assignment(A, centred, method="2opt", options={"rng": np.random.default_rng(2)}).fun]
            assert found.cost <= min(peers) * (1 + 1e-12)
            assert found.cost == pytest.approx((A * C[np.ix_(found.order, found.order)]).sum(), rel=1e-11)


def test_no_single_move_is_left_that_helps(rng: np.random.Generator) -> None:
    for n, circulant in itertools.product((5, 12), (False, True)):
        A, C = (fourier(n) if circulant else symmetric(rng, n)), moments(rng, n, n)
        p = LocalSearch(A, C, circulant).polish(rng.permutation(n), 1000)
        cost = pm.permutation_cost(A, C, p)
        for i, j in itertools.product(range(n), repeat=2):
            exchanged, turned = p.copy(), p.copy()
            exchanged[[i, j]] = exchanged[[j, i]]
            turned[min(i, j) : max(i, j) + 1] = p[min(i, j) : max(i, j) + 1][::-1]
            moved = np.insert(np.delete(p, i), j, p[i])
            for q in (exchanged, turned, moved):
                assert pm.permutation_cost(A, C, q) >= cost - 1e-11 * np.linalg.norm(A) * np.linalg.norm(C)


@settings(max_examples=30, deadline=None)
@given(st.integers(3, 12), st.integers(0, 2**32), st.integers(0, 11), st.booleans())
def test_ring_costs_do_not_change_in_the_dihedral_group(n: int, seed: int, turn: int, flip: bool) -> None:
    rng = np.random.default_rng(seed)
    A, C, p = fourier(n), moments(rng, n, n), rng.permutation(n)
    q = np.roll(p[::-1] if flip else p, turn)
    assert pm.permutation_cost(A, C, q) == pytest.approx(pm.permutation_cost(A, C, p), rel=1e-9)
    np.testing.assert_array_equal(pm.fix_dihedral_gauge(q), pm.fix_dihedral_gauge(p))


def test_scale_does_not_matter(rng: np.random.Generator) -> None:
    A, C = fourier(14), moments(rng, 14, 20)
    plain = pm.search_permutation(A, C, circulant=True, starts=2)
    scaled = pm.search_permutation(A * 2.0**-600, C * 2.0**900, circulant=True, starts=2)
    np.testing.assert_array_equal(scaled.order, plain.order)
    assert scaled.cost == math.ldexp(plain.cost, 300)
    assert scaled.bound == math.ldexp(plain.bound, 300)


def test_mean_outputs_do_not_matter(rng: np.random.Generator) -> None:
    n = 20
    A, C, m = fourier(n), np.floor(100 * moments(rng, n, n)), np.arange(n) % 7
    C = np.tril(C) + np.tril(C, -1).T
    plain = pm.search_permutation(A, C, circulant=True)
    shifted = pm.search_permutation(A, C + 2.0**40 * (m[:, None] + m), circulant=True)  # integers: nothing of C is lost
    np.testing.assert_array_equal(shifted.order, plain.order)
    assert shifted.cost == pytest.approx(plain.cost, rel=1e-2)


def test_inputs_are_left_alone_and_checked(rng: np.random.Generator) -> None:
    A, C = fourier(10), moments(rng, 10, 20)
    before = A.copy(), C.copy()
    pm.search_permutation(A, C, circulant=True, starts=1)
    np.testing.assert_array_equal(A, before[0])
    np.testing.assert_array_equal(C, before[1])
    with pytest.raises(bk.InvalidArgument, match=r"^C: expected shape \(10, 10\)"):
        pm.search_permutation(A, C[:9, :9])
    with pytest.raises(bk.InvalidArgument, match=r"^A: expected shape"):
        pm.search_permutation(A[:9], C)
    C[2, 3] = np.nan
    with pytest.raises(bk.NonFinite) as error:
        pm.search_permutation(A, C)
    assert (error.value.argument, error.value.index) == ("C", (2, 3))


# --- the two engines --------------------------------------------------------------------------------------------------

FOURIER, PATH = {"kind": "fourier", "order": 2.0}, {"kind": "difference", "order": 2, "boundary": "neumann"}


@pytest.mark.parametrize("penalty", [FOURIER, PATH], ids=["ring", "path"])
@pytest.mark.parametrize("kind", ["noise", "net", "ring", "exact ring", "alike neurons", "one direction", "identity"])
def test_the_compiled_core_finds_the_same_order(rng: np.random.Generator, penalty: dict[str, Any], kind: str) -> None:
    if "cpu" not in ENGINES:
        pytest.skip("the compiled core is not under test")
    core = importlib.import_module("brockett._core")
    for n in (5, 9, 20, 48):
        bits = rng.integers(0, 2, (n, 3)).astype(float)
        direction = rng.standard_normal(n)
        C = {
            "noise": moments(rng, n, 2 * n),
            "net": relu_net(rng, n),
            "ring": ring(rng, n, 0.3),
            "exact ring": ring(rng, n, 0.0),
            "alike neurons": bits @ bits.T,
            "one direction": np.outer(direction, direction),
            "identity": np.eye(n),
        }[kind]
        hidden = rng.permutation(n)
        C = C[np.ix_(hidden, hidden)]
        A = fourier(n) if penalty is FOURIER else path(n, 2)
        here = pm.search_permutation(A, C, circulant=penalty is FOURIER, seed=7, starts=3)
        source = {"kind": "covariance", "C": C, "n_samples": 0}
        there = core.descramble(
            None,
            source,
            penalty,
            "permutation",
            "identity",
            None,
            0,
            seed=7,
            starts=3,
            max_sweeps=1000,
            dtype="float64",
        )
        np.testing.assert_array_equal(there["permutation"], here.order)
        size = np.linalg.norm(A) * np.linalg.norm(C)
        assert there["cost"] == pytest.approx(here.cost, abs=1e-12 * size)
        assert there["bound"] == pytest.approx(here.bound, abs=1e-12 * size)
