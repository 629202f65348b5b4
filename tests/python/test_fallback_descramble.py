"""The descrambler of the fallback: its optimum against 40 digits and brute force, its sources, its error bars."""

from __future__ import annotations

import itertools
import math
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group

from brockett import InvalidArgument, InvalidType, NonFinite
from brockett import _fallback as fb

FOURIER = {"kind": "fourier", "order": 2.0}
PENALTIES: list[dict[str, Any]] = [
    FOURIER,
    {"kind": "fourier", "order": 1.0},
    {"kind": "difference", "order": 2, "boundary": "periodic"},
    {"kind": "difference", "order": 1, "boundary": "neumann"},
    {"kind": "grid", "shape": (5, 1), "order": 2.0, "boundary": "periodic"},
    {"kind": "matrix", "A": np.diag([2.0, -1.0, 0.5, 3.0, 0.0]) + 0.1, "power": 1, "laplacian": False},
]


def descramble(W: Any, source: dict[str, Any], penalty: Any = None, **options: Any) -> dict[str, Any]:
    o = {"group": "orthogonal", "gauge": "identity", "P0": None, "rank": 0, "dtype": "float64"} | options
    return fb.descramble(
        W, source, penalty or FOURIER, o["group"], o["gauge"], o["P0"], o["rank"], 0, 8, 1000, o["dtype"]
    )


def of_samples(Y: Any, center: bool = False, **options: Any) -> dict[str, Any]:
    return descramble(None, {"kind": "preactivations", "Y": np.asarray(Y), "center": center}, **options)


def of_covariance(C: Any, n_samples: int = 0, **options: Any) -> dict[str, Any]:
    return descramble(None, {"kind": "covariance", "C": np.asarray(C), "n_samples": n_samples}, **options)


def accumulator(X: np.ndarray, method: str = "gram", center: bool = False) -> fb.Accumulator:
    acc = fb.Accumulator(X.shape[1], center, method, "double")
    acc.update(X)
    return acc


def smooth(n: int, n_samples: int, noise: float, rng: np.random.Generator) -> np.ndarray:
    """Three random bumps and a little noise: ill-conditioned, as pre-activations are."""
    j = np.arange(n)
    place, width, height = (rng.uniform(a, b, (n_samples, 3, 1)) for a, b in ((0, n), (n / 20, n / 6), (-1, 1)))
    bumps = height * np.exp(-0.5 * ((j - place) / width) ** 2)
    return bumps.sum(axis=1) + noise * rng.standard_normal((n_samples, n))


# --- the optimum ------------------------------------------------------------------------------------------------------


def test_three_neurons_by_hand() -> None:
    # Y with orthogonal columns: C = diag(6, 3, 1)·… λ = 0, 1, 1
    Y = np.diag([3.0, 2.0, 1.0])
    found = of_samples(Y)  # C = diag(9, 4, 1) / 3
    assert found["optimum"] == pytest.approx((0 * 9 + 4 + 1) / 3)
    assert found["cost"] == pytest.approx(found["optimum"])
    # tr(A C) with A_ii = 2/3
    assert found["identity_cost"] == pytest.approx(2 / 3 * 14 / 3)
    np.testing.assert_allclose(found["sigma"], np.array([3, 2, 1]) / math.sqrt(3))
    assert found["rank"] == 3
    assert found["blocks"].tolist() == [0, 1, 3]
    # the largest direction e₁ becomes the mean: P e₁ = (1, 1, 1)/√3
    np.testing.assert_allclose(found["P"][:, 0], np.full(3, 1 / math.sqrt(3)), atol=1e-15)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_optimum_to_40_digits(penalty: dict[str, Any], rng: np.random.Generator) -> None:
    Y = rng.standard_normal((9, 5)) * 10.0 ** -np.arange(5)
    found = of_samples(Y, penalty=penalty)
    with mpmath.workdps(40):
        M = mpmath.matrix(Y.tolist())
        squares = sorted(mpmath.eigsy(M.T * M / 9, eigvals_only=True), reverse=True)
        if penalty["kind"] == "matrix":
            lam = sorted(mpmath.eigsy(mpmath.matrix(penalty["A"].tolist()), eigvals_only=True))
        else:
            lam = [mpmath.mpf(v) for v in fb.penalty_eigenvalues(penalty, 5)]
        optimum = float(sum(a * b for a, b in zip(lam, squares, strict=True)))
    assert found["optimum"] == pytest.approx(optimum, rel=1e-13)
    assert found["cost"] == pytest.approx(optimum, rel=1e-13)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_no_random_orthogonal_matrix_costs_less(penalty: dict[str, Any], rng: np.random.Generator) -> None:
    Y = rng.standard_normal((20, 5)) * np.arange(1, 6)
    found = of_samples(Y, penalty=penalty)
    A = fb.penalty_matrix(penalty, 5)
    P = np.asarray(ortho_group.rvs(5, size=2000, random_state=rng))
    Z = P @ Y.T
    costs = np.einsum("kin,ij,kjn->k", Z, A, Z, optimize=True) / 20
    assert costs.min() >= found["optimum"] - 1e-12 * abs(found["optimum"])
    # nor do small steps away from it
    for step in (1e-1, 1e-3):
        skew = rng.standard_normal((200, 5, 5)) * step
        near = found["P"] @ np.linalg.qr(np.eye(5) + skew - np.swapaxes(skew, 1, 2))[0]
        Z = near @ Y.T
        costs = np.einsum("kin,ij,kjn->k", Z, A, Z, optimize=True) / 20
        assert costs.min() >= found["optimum"] - 1e-12 * abs(found["optimum"])
    direct = found["P"] @ Y.T
    assert np.sum(direct * (A @ direct)) / 20 == pytest.approx(found["cost"], rel=1e-12)
    assert np.sum(Y.T * (A @ Y.T)) / 20 == pytest.approx(found["identity_cost"], rel=1e-12)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 8), st.integers(1, 12), st.sampled_from(["identity", "canonical"]))
def test_any_sample(seed: int, n: int, n_samples: int, gauge: str) -> None:
    rng = np.random.default_rng(seed)
    Y = rng.standard_normal((n_samples, n)) * rng.integers(0, 3, n)
    found = of_samples(Y, gauge=gauge, group=("orthogonal", "special_orthogonal")[seed % 2])
    P = found["P"]
    np.testing.assert_allclose(P @ P.T, np.eye(n), atol=1e-13)
    assert found["cost"] == pytest.approx(found["optimum"], rel=1e-10, abs=1e-10)
    assert found["identity_cost"] >= found["optimum"] - 1e-10
    assert found["rank"] == np.linalg.matrix_rank(Y)
    # a common rotation, or another order, of the samples changes nothing
    Q = np.linalg.qr(rng.standard_normal((n_samples, n_samples)))[0]
    assert of_samples(Q @ Y)["optimum"] == pytest.approx(found["optimum"], rel=1e-10, abs=1e-10)
    turned = of_samples(Y @ np.linalg.qr(rng.standard_normal((n, n)))[0])
    assert turned["optimum"] == pytest.approx(found["optimum"], rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("gauge", ["identity", "canonical"])
@pytest.mark.parametrize("group", ["orthogonal", "special_orthogonal"])
def test_the_smallest_layers(n: int, gauge: str, group: str, rng: np.random.Generator) -> None:
    W = rng.standard_normal((n, 4))
    found = descramble(W, {"kind": "isotropic", "bias": None}, gauge=gauge, group=group)
    lam = np.array([0.0, 1, 1])[:n]
    assert found["cost"] == pytest.approx(lam @ np.linalg.svd(W)[1] ** 2, abs=1e-13)
    if group == "special_orthogonal":
        assert np.linalg.det(found["P"]) == pytest.approx(1)
    np.testing.assert_allclose(found["weights"], found["P"] @ W, atol=1e-14)
    if n == 1:
        assert found["P"] == [[1.0]]


def test_fewer_samples_than_neurons(rng: np.random.Generator) -> None:
    found = of_samples(rng.standard_normal((3, 12)))
    assert found["rank"] == 3
    assert found["cost"] == pytest.approx(found["optimum"], rel=1e-12)
    assert (found["sigma"][3:] < 1e-7).all()
    one = of_samples(rng.standard_normal((1, 12)))
    assert one["cost"] < 1e-25  # one direction, and it becomes the mean


# --- precision --------------------------------------------------------------------------------------------------------


def test_smooth_data_reach_the_optimum(rng: np.random.Generator) -> None:
    n = 96
    Y = smooth(n, 1500, 1e-4, rng) @ (rng.standard_normal((n, n)) / math.sqrt(n))
    true = fb.penalty_eigenvalues(FOURIER, n) @ (np.linalg.svd(Y, compute_uv=False) ** 2 / 1500)
    assert np.linalg.cond(Y) > 1e6
    assert of_samples(Y)["cost"] == pytest.approx(true, rel=1e-11)
    assert of_samples(Y)["optimum"] == pytest.approx(true, rel=1e-9)
    # float32 P is orthogonal to 4e-7 only, and the cost says what it costs
    rounded = of_samples(Y, dtype="float32")
    assert rounded["P"].dtype == np.float32
    assert rounded["cost"] != rounded["optimum"]
    P = rounded["P"].astype(float)
    Q = fb.penalty_basis(FOURIER, n).T @ P
    evaluated = fb.penalty_eigenvalues(FOURIER, n) @ np.mean((Y @ Q.T) ** 2, axis=0)
    assert rounded["cost"] == pytest.approx(evaluated, rel=1e-12)


def test_close_variances_are_not_equal_ones(rng: np.random.Generator) -> None:
    # κ = 1e8: what is below n ε σ₁² still counts, because λ = 1e7 multiplies it
    n = 256
    Y = smooth(n, 600, 1e-5, rng) @ np.linalg.qr(rng.standard_normal((n, n)))[0]
    true = fb.penalty_eigenvalues(FOURIER, n) @ (np.linalg.svd(Y, compute_uv=False) ** 2 / 600)
    assert of_samples(Y)["cost"] == pytest.approx(true, rel=1e-6)


def test_a_square_root_keeps_what_squares_lose(rng: np.random.Generator) -> None:
    n = 64
    X = smooth(n, 400, 1e-9, rng)
    W = rng.standard_normal((n, n))
    true = fb.penalty_eigenvalues(FOURIER, n) @ (np.linalg.svd(X @ W.T, compute_uv=False) ** 2 / 400)
    source = {"kind": "accumulator", "bias": None, "center": False}
    root = descramble(W, source | {"acc": accumulator(X, "qr")})
    assert root["cost"] == pytest.approx(true, rel=1e-12)
    assert root["optimum"] == pytest.approx(true, rel=1e-12)
    assert root["rank"] == n
    smallest = np.linalg.svd(X @ W.T, compute_uv=False)[-1] / 20
    assert root["sigma"][-1] == pytest.approx(smallest, rel=1e-4)
    squares = descramble(W, source | {"acc": accumulator(X, "gram")})
    assert squares["rank"] < n
    assert abs(squares["sigma"][-1] / smallest - 1) > 0.1  # or the test would show nothing


def test_a_cost_from_a_square_root_has_no_large_terms_to_cancel(rng: np.random.Generator) -> None:
    # σ falls so steeply that the optimum is 1e-3 σ₁², where the rounding of C times λ = 1e6 is 1e-10 σ₁²
    n = 64
    Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    X = np.linalg.qr(rng.standard_normal((200, n)))[0] * (1.0 + np.arange(n)) ** -6.0 @ Q
    true = fb.penalty_eigenvalues(FOURIER, n) @ ((1.0 + np.arange(n)) ** -12.0 / 200)
    acc = accumulator(X, "qr")
    found = descramble(np.eye(n), {"kind": "accumulator", "acc": acc, "bias": None, "center": False})
    assert found["cost"] == pytest.approx(true, rel=1e-12, abs=0)


@pytest.mark.parametrize("scale", [1e-149, 1e-100, 1e100, 1e149])
def test_scales(scale: float, rng: np.random.Generator) -> None:
    X, W = rng.uniform(-1, 1, (30, 5)), rng.uniform(-1, 1, (4, 5))
    b = rng.uniform(-1, 1, 4)
    one = descramble(W, {"kind": "inputs", "X": X, "bias": None, "center": False})
    found = descramble(W, {"kind": "inputs", "X": X * scale, "bias": None, "center": False})
    np.testing.assert_allclose(found["P"], one["P"], atol=1e-12)
    for name in ("cost", "optimum", "identity_cost", "bound"):
        assert found[name] / scale / scale == pytest.approx(one[name], rel=1e-12)
    np.testing.assert_allclose(found["sigma"] / scale, one["sigma"], rtol=1e-12)
    np.testing.assert_allclose(found["block_error"], one["block_error"], rtol=1e-9)
    samples = of_samples(X @ W.T * scale)
    np.testing.assert_allclose(samples["P"], one["P"], atol=1e-12)
    np.testing.assert_allclose(samples["block_error"], one["block_error"], rtol=1e-9)
    for method in ("gram", "qr"):
        source = {"kind": "accumulator", "acc": accumulator(X * scale, method), "bias": None, "center": False}
        np.testing.assert_allclose(descramble(W, source)["P"], one["P"], atol=1e-10)
    C = of_covariance((X @ W.T).T @ (X @ W.T) / 30 * scale * scale)
    np.testing.assert_allclose(C["P"], one["P"], atol=1e-11)
    # a small layer of large inputs, and the other way round
    counter = descramble(W / scale, {"kind": "inputs", "X": X * scale, "bias": b, "center": False})
    plain = descramble(W, {"kind": "inputs", "X": X, "bias": b, "center": False})
    np.testing.assert_allclose(counter["P"], plain["P"], atol=1e-12)
    assert counter["cost"] == pytest.approx(plain["cost"], rel=1e-12)
    R = {"kind": "matrix", "R": X.T @ X / 30 * scale * scale, "n_samples": 0}
    np.testing.assert_allclose(descramble(W / scale, R)["P"], one["P"], atol=1e-11)
    tiny = descramble(W * scale, {"kind": "isotropic", "bias": None})
    np.testing.assert_allclose(tiny["P"], descramble(W, {"kind": "isotropic", "bias": None})["P"], atol=1e-12)
    np.testing.assert_allclose(tiny["weights"], tiny["P"] @ (W * scale), rtol=1e-13)


def test_a_cost_that_overflows_is_refused(rng: np.random.Generator) -> None:
    with pytest.raises(InvalidArgument, match="overflows") as error:
        of_samples(rng.uniform(-9e149, 9e149, (50, 160)))
    assert error.value.argument == "preactivations"


# --- sources ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_all_sources_agree(dtype: Any, biased: bool, center: bool, rng: np.random.Generator) -> None:
    W = rng.standard_normal((5, 7)).astype(dtype)
    X = (rng.standard_normal((40, 7)) @ rng.standard_normal((7, 7)) + 2).astype(dtype)
    b = rng.standard_normal(5) * 3 if biased else None
    W64, X64 = W.astype(float), X.astype(float)
    Y = X64 @ W64.T + (0 if b is None else b)
    expected = of_samples(Y, center)
    C = np.cov(Y.T, ddof=0) if center else Y.T @ Y / 40
    sources: dict[str, dict[str, Any]] = {
        "inputs": {"kind": "inputs", "X": X, "bias": b, "center": center},
        "covariance": {"kind": "covariance", "C": C, "n_samples": 40},
    }
    for method, centred in itertools.product(("gram", "qr"), (False, True)):
        acc = accumulator(X64, method, centred)
        name = f"{method}, accumulated about {'the mean' if centred else 'zero'}"
        sources[name] = {"kind": "accumulator", "acc": acc, "bias": b, "center": center}
    if not biased:
        R = np.cov(X64.T, ddof=0) if center else X64.T @ X64 / 40
        sources["matrix"] = {"kind": "matrix", "R": R, "n_samples": 40}
    for name, source in sources.items():
        found = descramble(W, source)
        for value in ("cost", "optimum", "identity_cost"):
            assert found[value] == pytest.approx(expected[value], rel=1e-9), name
        np.testing.assert_allclose(found["P"], expected["P"], atol=1e-8, err_msg=name)
        np.testing.assert_allclose(found["sigma"], expected["sigma"], rtol=1e-9, err_msg=name)
        np.testing.assert_allclose(found["weights"], found["P"] @ W64, atol=1e-13, err_msg=name)
        assert found["error_model"] == ("moments" if name == "inputs" else "gaussian")


@pytest.mark.parametrize("biased", [False, True])
def test_isotropic(biased: bool, rng: np.random.Generator) -> None:
    W, b = rng.standard_normal((5, 3)), rng.standard_normal(5) * biased
    found = descramble(W, {"kind": "isotropic", "bias": b if biased else None})
    expected = of_covariance(W @ W.T + np.outer(b, b))
    np.testing.assert_allclose(found["P"], expected["P"], atol=1e-12)
    assert found["cost"] == pytest.approx(expected["cost"], rel=1e-12)
    assert found["block_error"] is None
    assert found["rank"] == (4 if biased else 3)


def test_long_samples_go_in_blocks(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    from brockett._fallback import preactivations

    W, X = rng.standard_normal((4, 6)), rng.standard_normal((29, 6)) + 1
    source = {"kind": "inputs", "X": X, "bias": np.ones(4), "center": True}
    whole = descramble(W, source)
    monkeypatch.setattr(preactivations, "blocks_of", lambda n, _: [slice(a, min(a + 7, n)) for a in range(0, n, 7)])
    parts = descramble(W, source)
    for name in ("P", "cost", "identity_cost", "optimum", "block_error"):
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-10, atol=1e-12)


def test_centring_does_not_cancel(rng: np.random.Generator) -> None:
    X, W = rng.standard_normal((50, 4)), rng.standard_normal((4, 4))
    expected = descramble(W, {"kind": "inputs", "X": X, "bias": None, "center": True})
    far = X + 1e7
    found = descramble(W, {"kind": "inputs", "X": far, "bias": None, "center": True})
    assert found["optimum"] == pytest.approx(expected["optimum"], rel=1e-6)
    for method in ("gram", "qr"):
        acc = accumulator(far, method, center=True)
        found = descramble(W, {"kind": "accumulator", "acc": acc, "bias": None, "center": True})
        assert found["optimum"] == pytest.approx(expected["optimum"], rel=1e-6)
    # about zero, then centred: what is left is noise of the size of 1e14 ε, and it is not called indefinite
    acc = accumulator(far, "gram", center=False)
    for seed in range(5):
        W = np.random.default_rng(seed).standard_normal((8, 4))
        found = descramble(W, {"kind": "accumulator", "acc": acc, "bias": None, "center": True})
        assert found["optimum"] >= 0


@pytest.mark.parametrize("kind", ["isotropic", "preactivations", "qr"])
def test_stacking_adds_second_moments(kind: str, rng: np.random.Generator) -> None:
    W = rng.standard_normal((5, 6))
    X, Y2, Y3 = rng.standard_normal((30, 6)), rng.standard_normal((8, 5)), rng.standard_normal((12, 5)) * 1e-3
    sources: dict[str, dict[str, Any]] = {
        "isotropic": {"kind": "isotropic", "bias": None},
        "preactivations": {"kind": "preactivations", "Y": X @ W.T, "center": False},
        "qr": {"kind": "accumulator", "acc": accumulator(X, "qr"), "bias": None, "center": False},
    }
    C = W @ W.T if kind == "isotropic" else W @ X.T @ X @ W.T / 30
    C = C + 0.7 * Y2.T @ Y2 / 8 + 1e5 * Y3.T @ Y3 / 12
    found = descramble(W, sources[kind] | {"stack": [(0.7, Y2), (1e5, Y3)]})
    expected = of_covariance(C)
    np.testing.assert_allclose(found["P"], expected["P"], atol=1e-10)
    assert found["cost"] == pytest.approx(expected["cost"], rel=1e-12)
    assert found["block_error"] is None
    assert found["error_model"] == ""


def test_stacking_at_scale(rng: np.random.Generator) -> None:
    Y, Y2 = rng.standard_normal((20, 4)), rng.standard_normal((9, 4))
    one = descramble(None, {"kind": "preactivations", "Y": Y, "center": False, "stack": [(2.0, Y2)]})
    for factor, size in ((2e280, 1e-140), (2e-280, 1e140)):
        stack = [(factor, Y2 * size)]
        found = descramble(None, {"kind": "preactivations", "Y": Y, "center": False, "stack": stack})
        assert found["optimum"] == pytest.approx(one["optimum"], rel=1e-12)


def test_stacking_real_and_imaginary_part_serves_complex_data(rng: np.random.Generator) -> None:
    Z = rng.standard_normal((20, 4)) + 1j * rng.standard_normal((20, 4))
    found = descramble(None, {"kind": "preactivations", "Y": Z.real, "center": False, "stack": [(1.0, Z.imag)]})
    expected = of_covariance((Z.T @ Z.conj()).real / 20)
    assert found["optimum"] == pytest.approx(expected["optimum"], rel=1e-12)


def test_half_types(rng: np.random.Generator) -> None:
    Y = rng.standard_normal((30, 4)).astype(np.float32)
    half = of_samples(Y.astype(np.float16))
    assert half["optimum"] == pytest.approx(of_samples(Y.astype(np.float16).astype(float))["optimum"], rel=1e-13)
    bits = (Y.view(np.uint32) >> 16).astype(np.uint16)
    source = {"kind": "preactivations", "Y": bits, "center": False, "bfloat16": True}
    wide = (bits.astype(np.uint32) << 16).view(np.float32)
    assert descramble(None, source)["optimum"] == pytest.approx(of_samples(wide)["optimum"], rel=1e-13)


def test_inputs_are_not_modified(rng: np.random.Generator) -> None:
    W, X, b = rng.standard_normal((4, 5)), rng.standard_normal((9, 5)), rng.standard_normal(4)
    P0 = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    for array in (W, X, b, P0):
        array.flags.writeable = False
    descramble(W, {"kind": "inputs", "X": X, "bias": b, "center": True}, gauge="given", P0=P0)


# --- error bars -------------------------------------------------------------------------------------------------------


def test_error_bars_by_hand() -> None:
    # C = diag(4, 1) about T: two blocks; E‖sin Θ‖² = 4·1 / (4 - 1)² / N for each
    T = fb.penalty_basis(FOURIER, 2)
    C = (T * np.array([4.0, 1.0])) @ T.T
    np.testing.assert_allclose(of_covariance(C, 100)["block_error"], np.full(2, math.sqrt(4 / 9 / 100)), rtol=1e-12)
    # at most the size of a block
    np.testing.assert_allclose(of_covariance(np.diag([4.0, 3.99]), 10)["block_error"], [1, 1])
    # nothing to tell apart
    np.testing.assert_allclose(of_covariance(np.eye(3), 10)["block_error"], [1, math.sqrt(2)])
    np.testing.assert_allclose(of_covariance(np.zeros((3, 3)), 10)["block_error"], [1, math.sqrt(2)])
    assert of_covariance(np.eye(3), 0)["block_error"] is None
    assert of_covariance(np.eye(3), 0)["error_model"] == ""


def test_what_lies_in_the_null_space_is_not_known(rng: np.random.Generator) -> None:
    # its computed variances differ by rounding: no reason to call the subspaces of its blocks certain
    Y = rng.standard_normal((200, 2)) @ rng.standard_normal((2, 6))
    C = Y.T @ Y / 200
    for found in (of_samples(Y), of_covariance(C, 200), of_covariance(C, 200, rank=4)):
        bars = found["block_error"]
        assert bars[0] < 0.2
        np.testing.assert_allclose(bars[1:], [math.sqrt(2), math.sqrt(2), 1])


def test_moments_by_hand() -> None:
    # z = (±2, ±1), all four: E[z₁² z₂²] = 4 = s₁ s₂; and z on the axes in turn: E[z₁² z₂²] = 0
    T = fb.penalty_basis(FOURIER, 2)
    independent = np.array([[2.0, 1.0], [2, -1], [-2, 1], [-2, -1]]) @ T.T
    np.testing.assert_allclose(of_samples(independent)["block_error"], np.full(2, math.sqrt(4 / 9 / 4)), rtol=1e-12)
    exclusive = np.array([[2.0, 0.0], [0.0, 1.0]]) @ T.T
    np.testing.assert_allclose(of_samples(exclusive)["block_error"], [0, 0], atol=1e-12)


@pytest.mark.parametrize("law", ["gaussian", "heavy"])
def test_error_bars_are_the_spread_of_the_subspaces(law: str, rng: np.random.Generator) -> None:
    n, n_samples, repeats = 5, 400, 300
    s = np.array([16.0, 8.0, 8.0, 2.0, 1.0])[: n - 0] * np.array([1, 1, 0.8, 1, 1])
    T = fb.penalty_basis(FOURIER, n)
    observed, bars = np.zeros(3), np.zeros(3)
    for _ in range(repeats):
        Z = rng.standard_normal((n_samples, n))
        if law == "heavy":  # a common random size: E[z_i² z_j²] = 2.5 s_i s_j
            Z = Z * np.sqrt(rng.choice([0.5, 3.0], (n_samples, 1), p=[0.8, 0.2]))
        found = of_samples(Z * np.sqrt(s))
        rows = (T.T @ found["P"])[1:3]
        observed += [
            1 - (T.T @ found["P"])[0, 0] ** 2,
            np.sum(rows[:, [0, 3, 4]] ** 2),
            np.sum((T.T @ found["P"])[3:, :3] ** 2),
        ]
        bars += found["block_error"] ** 2
    np.testing.assert_allclose(observed / bars, 1, atol=0.2)


# --- permutations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", [FOURIER, PENALTIES[3]])
@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_permutations_against_all_of_them(n: int, penalty: dict[str, Any], rng: np.random.Generator) -> None:
    W, Y2 = rng.standard_normal((n, 4)).astype(np.float32), rng.standard_normal((7, n))
    source = {"kind": "isotropic", "bias": None, "stack": [(2.0, Y2)]}
    found = descramble(W, source, penalty, group="permutation", dtype="float32")
    order = found["permutation"]
    assert order.dtype == np.int64
    np.testing.assert_array_equal(found["P"], np.eye(n)[order])
    np.testing.assert_array_equal(found["weights"], W[order])
    C = W.astype(float) @ W.T.astype(float) + 2.0 * Y2.T @ Y2 / 7
    A = fb.penalty_matrix(penalty, n)
    costs = [np.sum(A * C[np.ix_(p, p)]) for p in itertools.permutations(range(n))]
    assert found["cost"] == pytest.approx(min(costs), rel=1e-10, abs=1e-12)
    assert found["identity_cost"] == pytest.approx(np.sum(A * C), rel=1e-10, abs=1e-12)
    assert found["bound"] <= min(costs) + 1e-10
    assert descramble(W, source, penalty)["optimum"] <= found["bound"] + 1e-10
    assert math.isnan(found["optimum"])
    assert math.isnan(found["gauge_conditioning"])
    assert found["block_error"] is None


def test_permutations_at_scale(rng: np.random.Generator) -> None:
    Y = rng.uniform(-1, 1, (40, 9))
    one, scaled = of_samples(Y, group="permutation"), of_samples(Y * 1e149, group="permutation")
    np.testing.assert_array_equal(scaled["permutation"], one["permutation"])
    for name in ("cost", "bound", "identity_cost"):
        assert scaled[name] / 1e149 / 1e149 == pytest.approx(one[name], rel=1e-10)


# --- refusals ---------------------------------------------------------------------------------------------------------

I3 = np.eye(3)
NAN = np.array([[1.0, 0, 0], [0, 1, np.nan], [0, 0, 1]])


@pytest.mark.parametrize(
    ("argument", "W", "source"),
    [
        ("W", I3 * 1e150, {"kind": "isotropic", "bias": None}),
        ("W", I3 * 1e-151, {"kind": "isotropic", "bias": None}),
        ("W", np.ones(3), {"kind": "isotropic", "bias": None}),
        ("W", np.ones((0, 3)), {"kind": "isotropic", "bias": None}),
        ("W", None, {"kind": "inputs", "X": I3, "bias": None, "center": False}),
        ("W", np.eye(4), {"kind": "covariance", "C": I3}),
        ("W", np.eye(4), {"kind": "preactivations", "Y": I3, "center": False}),
        ("bias", I3, {"kind": "isotropic", "bias": np.ones(2)}),
        ("preactivations", None, {"kind": "preactivations", "Y": I3 * 1e150, "center": False}),
        ("preactivations", None, {"kind": "preactivations", "Y": np.ones(3), "center": False}),
        ("preactivations", None, {"kind": "preactivations", "Y": np.ones((0, 3)), "center": False}),
        ("inputs", I3, {"kind": "inputs", "X": np.ones((5, 4)), "bias": None, "center": False}),
        ("inputs", I3, {"kind": "inputs", "X": I3 * 1e-151, "bias": None, "center": False}),
        ("autocorrelation", I3, {"kind": "matrix", "R": np.eye(4), "n_samples": 0}),
        ("autocorrelation", I3, {"kind": "matrix", "R": np.triu(np.ones((3, 3))), "n_samples": 0}),
        ("autocorrelation", I3, {"kind": "matrix", "R": np.diag([1.0, 1, -1e-6]), "n_samples": 0}),
        ("autocorrelation", I3, {"kind": "matrix", "R": -I3, "n_samples": 0}),
        ("n_samples", I3, {"kind": "matrix", "R": I3, "n_samples": -1}),
        ("C", None, {"kind": "covariance", "C": np.diag([1.0, -1.0])}),
        ("C", None, {"kind": "covariance", "C": np.ones((2, 3))}),
        ("stack", I3, {"kind": "isotropic", "bias": None, "stack": [(-1.0, I3)]}),
        ("stack", I3, {"kind": "isotropic", "bias": None, "stack": [(np.nan, I3)]}),
        ("stack", I3, {"kind": "isotropic", "bias": None, "stack": [(1.0, np.eye(4))]}),
        ("stack", I3, {"kind": "isotropic", "bias": None, "stack": [(1.0, np.ones((0, 3)))]}),
        ("source", I3, {"kind": "guess"}),
    ],
)
def test_refusals(argument: str, W: Any, source: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument) as error:
        descramble(W, source)
    assert error.value.argument == argument


@pytest.mark.parametrize(
    ("argument", "W", "source", "index"),
    [
        ("W", NAN, {"kind": "isotropic", "bias": None}, (1, 2)),
        ("bias", I3, {"kind": "isotropic", "bias": np.array([0, np.inf, 0])}, (1,)),
        ("preactivations", None, {"kind": "preactivations", "Y": NAN, "center": False}, (1, 2)),
        ("inputs", I3, {"kind": "inputs", "X": NAN, "bias": None, "center": False}, (1, 2)),
        ("autocorrelation", I3, {"kind": "matrix", "R": NAN, "n_samples": 0}, (1, 2)),
        ("C", None, {"kind": "covariance", "C": NAN}, (1, 2)),
        ("stack", I3, {"kind": "isotropic", "bias": None, "stack": [(1.0, NAN)]}, (1, 2)),
    ],
)
def test_non_finite(argument: str, W: Any, source: dict[str, Any], index: tuple[int, ...]) -> None:
    with pytest.raises(NonFinite) as error:
        descramble(W, source)
    assert (error.value.argument, error.value.index) == (argument, index)


def test_accumulators_that_do_not_fit() -> None:
    source = {"kind": "accumulator", "bias": None, "center": False}
    for acc in (accumulator(np.eye(4)), fb.Accumulator(3, False, "gram", "double")):
        with pytest.raises(InvalidArgument, match=r"features|no samples"):
            descramble(I3, source | {"acc": acc})
    with pytest.raises(InvalidType, match="accumulator"):
        descramble(I3, source | {"acc": I3})


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("group", {"group": "unitary"}),
        ("gauge", {"gauge": "nearest"}),
        ("dtype", {"dtype": "float16"}),
        ("rank", {"rank": 4}),
        ("rank", {"rank": -1}),
        ("penalty", {"penalty": {"kind": "grid", "shape": (2, 2), "order": 2.0, "boundary": "periodic"}}),
    ],
)
def test_bad_options(argument: str, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument) as error:
        descramble(I3, {"kind": "isotropic", "bias": None}, **options)
    assert error.value.argument == argument
