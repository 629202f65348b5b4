"""SVD of the fallback: by reconstruction and orthogonality, a residual that is measured, values against mpmath."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from brockett import InvalidArgument, NonFinite, NotConverged
from brockett import _fallback as fb
from brockett._fallback._arrays import signs_of_largest

METHODS = ["exact", "gram", "krylov", "quick", "auto"]
SHAPES = [(1, 1), (1, 5), (5, 1), (4, 4), (7, 3), (3, 7), (23, 17), (17, 40)]


def svd(A: np.ndarray, rank: int = 0, method: str = "exact", signs: str = "right", **options: Any) -> dict[str, Any]:
    o = {"tol": 1e-6, "frobenius_tol": 0.0, "seed": 0, "oversampling": 10, "iterations": 4, "max_columns": 0} | options
    words = (o["tol"], o["frobenius_tol"], method, o["seed"], o["oversampling"], o["iterations"], signs)
    return fb.svd(A, rank, *words, o["max_columns"])


def graded(m: int, n: int, s: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    U = np.linalg.qr(rng.standard_normal((m, len(s))))[0]
    V = np.linalg.qr(rng.standard_normal((n, len(s))))[0]
    return (U * s) @ V.T


def check(A: np.ndarray, found: dict[str, Any], tolerance: float) -> None:
    U, s, Vt = found["U"].astype(float), found["s"], found["Vt"].astype(float)
    assert s.dtype == np.float64
    assert found["U"].dtype == found["Vt"].dtype == A.dtype
    r = s.size
    assert (U.shape, Vt.shape) == ((A.shape[0], r), (r, A.shape[1]))
    assert (np.diff(s) <= 0).all()
    np.testing.assert_allclose(U.T @ U, np.eye(r), atol=tolerance)
    np.testing.assert_allclose(Vt @ Vt.T, np.eye(r), atol=tolerance)
    true = np.linalg.svd(A.astype(float), compute_uv=False)
    np.testing.assert_allclose(s, true[:r], atol=tolerance * true[0])
    best = np.sqrt(np.sum(true[r:] ** 2))
    assert np.linalg.norm(A - (U * s) @ Vt) <= best + r * tolerance * true[0]
    # the residual is what it says
    B = A.astype(float)
    right, left = np.linalg.norm(B @ Vt.T - U * s, axis=0), np.linalg.norm(B.T @ U - Vt.T * s, axis=0)
    assert found["residual"] == pytest.approx(max(right.max(), left.max()) / s[0], rel=1e-3, abs=1e-15)


# --- by hand ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_two_by_two_by_hand(method: str) -> None:
    # AAᵀ = (9, 12; 12, 41): eigenvalues 45 and 5
    found = svd(np.array([[3.0, 0.0], [4.0, 5.0]]), method=method)
    np.testing.assert_allclose(found["s"], np.sqrt([45, 5]), rtol=1e-14)
    np.testing.assert_allclose(np.abs(found["U"]), np.array([[1, 3], [3, 1]]) / np.sqrt(10), rtol=1e-13)
    np.testing.assert_allclose(np.abs(found["Vt"]), np.full((2, 2), np.sqrt(0.5)), rtol=1e-13)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(3, 3), (2, 4), (5, 1)])
def test_zero(method: str, shape: tuple[int, int]) -> None:
    found = svd(np.zeros(shape), method=method)
    assert not found["s"].any()
    assert found["residual"] == 0
    k = min(shape)
    np.testing.assert_allclose(found["U"].T @ found["U"], np.eye(k), atol=1e-15)
    np.testing.assert_allclose(found["Vt"] @ found["Vt"].T, np.eye(k), atol=1e-15)


# --- reconstruction ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_full(shape: tuple[int, int], dtype: Any, method: str, rng: np.random.Generator) -> None:
    A = rng.standard_normal(shape).astype(dtype)
    before = A.copy()
    found = svd(A, method=method)
    check(A, found, 3e-6 if dtype == np.float32 else 1e-13)
    np.testing.assert_array_equal(A, before)
    assert found["method"] == method or method == "auto"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(23, 17), (17, 40)])
def test_truncated(shape: tuple[int, int], method: str, rng: np.random.Generator) -> None:
    A = graded(*shape, 2.0 ** -np.arange(17), rng)
    check(A, svd(A, 5, method), 1e-12)
    assert svd(A, 99, method)["s"].size == 17


def test_rank_deficient(rng: np.random.Generator) -> None:
    A = graded(9, 6, np.array([3.0, 2.0]), rng)
    for method in ("exact", "gram", "quick"):
        check(A, svd(A, method=method), 1e-7 if method == "gram" else 1e-13)


def test_gram_stays_orthogonal_beyond_its_resolution(rng: np.random.Generator) -> None:
    # A V / s would be orthogonal to ε (s₁/s)² only: not at all at 1e-9
    A = graded(30, 20, 10.0 ** -np.linspace(0, 9, 20), rng)
    found = svd(A, method="gram")
    np.testing.assert_allclose(found["U"].T @ found["U"], np.eye(20), atol=1e-14)
    assert found["residual"] < 1e-7
    check(A, found, 1e-7)


# --- auto -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "dtype", "smallest", "rank", "method"),
    [
        ((20, 20), np.float32, 0.1, 0, "exact"),  # all of a square one: gram does not pay
        ((20, 20), np.float32, 0.1, 5, "gram"),
        ((40, 20), np.float32, 0.1, 0, "gram"),
        ((20, 40), np.float32, 0.1, 0, "gram"),
        ((39, 20), np.float32, 0.1, 0, "exact"),
        ((40, 20), np.float32, 1e-5, 0, "exact"),  # below 1e-4
        ((40, 20), np.float32, 1e-5, 3, "gram"),  # what is below is not asked for
        ((40, 20), np.float64, 0.1, 3, "exact"),
    ],
)
def test_what_auto_takes(
    shape: tuple[int, int], dtype: Any, smallest: float, rank: int, method: str, rng: np.random.Generator
) -> None:
    A = graded(*shape, np.geomspace(1, smallest, 20), rng).astype(dtype)
    found = svd(A, rank, "auto")
    assert found["method"] == method
    check(A, found, 3e-6)


@pytest.mark.parametrize("tol", [1e-6, 1e-9, 0.0])
def test_auto_keeps_gram_where_nothing_reaches_tol(tol: float, rng: np.random.Generator) -> None:
    A = rng.standard_normal((40, 10)).astype(np.float32)
    found = svd(A, method="auto", tol=tol)
    assert found["method"] == "gram"
    assert found["residual"] <= svd(A, method="exact")["residual"]


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_signs(method: str, rng: np.random.Generator) -> None:
    A = rng.standard_normal((8, 6))
    right, left = svd(A, 4, method, "right"), svd(A, 4, method, "left")
    rows = np.argmax(np.abs(right["Vt"]), axis=1)
    assert (right["Vt"][np.arange(4), rows] > 0).all()
    columns = np.argmax(np.abs(left["U"]), axis=0)
    assert (left["U"][columns, np.arange(4)] > 0).all()
    np.testing.assert_allclose(
        (left["U"] * left["s"]) @ left["Vt"], (right["U"] * right["s"]) @ right["Vt"], atol=1e-12
    )


def test_of_equal_entries_the_first_decides() -> None:
    columns = np.array([[1.0, -2.0, 0.0], [-3.0, 2.0, 0.0], [3.0, -2.0, 0.0]])
    assert signs_of_largest(columns).tolist() == [-1, -1, 1]


@pytest.mark.parametrize("method", ["exact", "gram", "auto"])
def test_frobenius_tolerance(method: str, rng: np.random.Generator) -> None:
    s = np.array([4.0, 2.0, 1.0, 0.5, 0.25])
    A = graded(9, 7, s, rng)
    tails = np.sqrt(np.cumsum(s[::-1] ** 2)[::-1])
    for r in range(1, 5):
        just = tails[r] / tails[0]
        assert svd(A, 0, method, frobenius_tol=just * 1.001)["s"].size == r
        assert svd(A, 0, method, frobenius_tol=just * 0.999)["s"].size == r + 1
    assert svd(A, 2, method, frobenius_tol=1e-3)["s"].size == 2


def test_quick_is_as_good_as_its_iterations(rng: np.random.Generator) -> None:
    A = graded(60, 50, 1 / np.arange(1.0, 51), rng)
    residuals = [svd(A, 5, "quick", iterations=q, oversampling=2)["residual"] for q in (0, 2, 12)]
    assert residuals[0] > 10 * residuals[1] > 100 * residuals[2]
    np.testing.assert_allclose(svd(A, 5, "quick", iterations=30)["s"], 1 / np.arange(1.0, 6), rtol=1e-10)


def test_quick_is_seeded(rng: np.random.Generator) -> None:
    A = rng.standard_normal((30, 20))
    one, again, other = (svd(A, 3, "quick", seed=seed, iterations=1, oversampling=0)["U"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert not np.allclose(one, other, atol=1e-6)


def test_quick_survives_what_powers_alone_do_not(rng: np.random.Generator) -> None:
    # (A Aᵀ)^q without re-orthonormalization loses everything below ε^(1/(2q+1)) s₁: here 1e-3 after two iterations
    s = np.array([1.0, 1e-3, 1e-6, 1e-9, 1e-12, 1e-14])
    found = svd(graded(40, 30, s, rng), 4, "quick", iterations=6)
    np.testing.assert_allclose(found["s"], s[:4], rtol=1e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [1e-300, 1e-150, 1e150, 1e300])
def test_scales(method: str, scale: float, rng: np.random.Generator) -> None:
    A = graded(8, 5, np.geomspace(1, 0.1, 5), rng)
    one, scaled = svd(A, 4, method), svd(A * scale, 4, method)
    np.testing.assert_allclose(scaled["s"] / scale, one["s"], rtol=1e-12)
    np.testing.assert_allclose(scaled["U"], one["U"], atol=1e-12)
    assert scaled["residual"] < 1e-12
    np.testing.assert_allclose(
        fb.singular_values(A * scale, "auto")["values"] / scale, np.geomspace(1, 0.1, 5), rtol=1e-12
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [1e-40, 1e-30, 1e30, 1e37])
def test_scales_of_float32(method: str, scale: float, rng: np.random.Generator) -> None:
    A = (graded(8, 5, np.geomspace(1, 0.1, 5), rng) * scale).astype(np.float32)
    # at 1e-40 the entries are subnormal, and have five digits fewer
    np.testing.assert_allclose(svd(A, 4, method)["s"] / scale, np.geomspace(1, 0.1, 5)[:4], rtol=1e-4)


def test_values_that_overflow_are_refused() -> None:
    A = np.full((4, 4), 1.7e308)
    for call in (lambda: svd(A), lambda: fb.singular_values(A, "exact")):
        with pytest.raises(InvalidArgument, match="overflow"):
            call()


@settings(derandomize=True, deadline=None, max_examples=30)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 10**6), st.sampled_from(["exact", "gram", "quick"]))
def test_transposing_exchanges_the_sides(m: int, n: int, seed: int, method: str) -> None:
    A = np.random.default_rng(seed).standard_normal((m, n))
    one, other = svd(A, method=method, signs="right"), svd(A.T, method=method, signs="left")
    np.testing.assert_allclose(one["s"], other["s"], atol=1e-10)
    gaps = np.diff(np.append(one["s"], 0.0))
    if (np.abs(gaps) > 1e-2).all():
        np.testing.assert_allclose(one["Vt"], other["U"].T, atol=1e-9)


# --- singular values --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["auto", "gram", "exact"])
@pytest.mark.parametrize("shape", SHAPES)
def test_values(shape: tuple[int, int], method: str, rng: np.random.Generator) -> None:
    A = rng.standard_normal(shape)
    found = fb.singular_values(A, method)
    np.testing.assert_allclose(found["values"], np.linalg.svd(A, compute_uv=False), rtol=1e-10, atol=1e-14)
    assert found["n_resolved"] == min(shape)


def test_values_against_mpmath(rng: np.random.Generator) -> None:
    s = 10.0 ** -np.arange(0.0, 12, 2)
    A = graded(14, 6, s, rng)
    with mpmath.workdps(40):
        true = np.array([float(v) for v in mpmath.svd_r(mpmath.matrix(A.tolist()), compute_uv=False)])
    exact, gram = fb.singular_values(A, "exact"), fb.singular_values(A, "gram")
    assert (np.abs(exact["values"] - true) <= exact["bound"] * true[0]).all()
    assert (np.abs(gram["values"] ** 2 - true**2) <= gram["bound"] * true[0] ** 2).all()
    assert exact["n_resolved"] == 6
    assert gram["n_resolved"] == 4  # 1, 1e-2, 1e-4, 1e-6
    assert (exact["method"], gram["method"]) == ("qr+gesdd", "gram")
    assert exact["bound"] < 1e-14


def test_float32_values_are_better_than_gesdd(rng: np.random.Generator) -> None:
    A = graded(24, 24, np.geomspace(1, 1e-5, 24), rng).astype(np.float32)
    with mpmath.workdps(40):
        true = np.array([float(v) for v in mpmath.svd_r(mpmath.matrix(A.tolist()), compute_uv=False)])
    found = fb.singular_values(A, "auto")
    assert found["method"] == "gram"
    np.testing.assert_allclose(found["values"], true, rtol=1e-5)
    # SciPy's is LAPACK's sgesdd; NumPy's would compute in float64
    assert np.abs(scipy.linalg.svdvals(A) / true - 1).max() > 1e-4
    np.testing.assert_allclose(fb.singular_values(A, "exact")["values"], true, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "smallest", "method"),
    [((20, 10), 0.1, "gram"), ((20, 10), 5e-3, "qr+gesdd"), ((19, 10), 0.1, "qr+gesdd"), ((10, 20), 0.1, "gram")],
)
def test_what_auto_takes_for_float64_values(
    shape: tuple[int, int], smallest: float, method: str, rng: np.random.Generator
) -> None:
    s = np.geomspace(1, smallest, 10)
    found = fb.singular_values(graded(*shape, s, rng), "auto")
    assert found["method"] == method
    np.testing.assert_allclose(found["values"], s, rtol=1e-12)


def test_unresolved_values_are_returned_and_counted(rng: np.random.Generator) -> None:
    A = graded(10, 6, np.array([1.0, 1e-3, 1e-6]), rng)  # three zeros
    for method in ("gram", "exact"):
        found = fb.singular_values(A, method)
        assert found["values"].size == 6
        assert found["n_resolved"] == 3
    assert fb.singular_values(np.zeros((3, 2)), "gram")["n_resolved"] == 0
    assert fb.singular_values(np.zeros((3, 2)), "exact")["n_resolved"] == 0


# --- whitened ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4, 7), (7, 4)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_whitened(shape: tuple[int, int], dtype: Any, rng: np.random.Generator) -> None:
    n, m = shape
    W, X = rng.standard_normal(shape).astype(dtype), rng.standard_normal((30, m)) * np.arange(1, m + 1)
    R = X.T @ X / 30
    root = scipy.linalg.sqrtm(R).real
    true = np.linalg.svd(W.astype(float) @ root, compute_uv=False)
    for r in (1, 3, 0):
        found = fb.whitened_svd(W, R, r)
        k = r or 4
        np.testing.assert_allclose(found["s"], true, rtol=1e-6)
        assert found["U"].dtype == found["projected"].dtype == dtype
        approximation = found["U"].astype(float) @ found["projected"]
        # the mean square of what is lost of the outputs, from the samples themselves
        lost = np.sqrt(np.mean(np.sum((X @ (W - approximation).T) ** 2, axis=1)))
        assert lost == pytest.approx(found["error"], rel=1e-4, abs=1e-4)
        assert found["error"] == pytest.approx(np.sqrt(np.sum(true[k:] ** 2)), abs=1e-6)
        if k == min(n, m):
            assert found["error"] == 0  # nothing is left out
        signs = found["U"][np.argmax(np.abs(found["U"]), axis=0), np.arange(k)]
        assert (signs > 0).all()
        # no other projection of this rank loses less
        for _ in range(50):
            Q = np.linalg.qr(rng.standard_normal((n, k)))[0]
            assert np.linalg.norm((W - Q @ (Q.T @ W)) @ root) >= found["error"] - 1e-5


def test_whitened_with_singular_and_scaled_moments(rng: np.random.Generator) -> None:
    W = rng.standard_normal((3, 4))
    x = rng.standard_normal(4)
    found = fb.whitened_svd(W, np.outer(x, x), 1)  # one direction: nothing is lost
    assert found["error"] < 1e-7 * found["s"][0]
    np.testing.assert_allclose(found["s"][0], np.linalg.norm(W @ x), rtol=1e-12)
    for scale, square in ((1e-120, 1e200), (1e140, 1e100), (1e-140, 1e-100)):
        scaled = fb.whitened_svd(W * scale, np.outer(x, x) * square, 2)
        np.testing.assert_allclose(scaled["s"][0] / scale / math.sqrt(square), found["s"][0], rtol=1e-12)
        np.testing.assert_allclose(scaled["projected"][:1] / scale, found["projected"], rtol=1e-10)
    assert fb.whitened_svd(np.zeros((2, 2)), np.eye(2), 0)["error"] == 0


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("method", {"method": "lanczos"}),
        ("frobenius_tol", {"frobenius_tol": 1e-8, "method": "krylov"}),
        ("signs", {"signs": "both"}),
        ("rank", {"rank": -1}),
        ("tol", {"tol": -1.0}),
        ("tol", {"tol": np.nan}),
        ("frobenius_tol", {"frobenius_tol": 1.0}),
        ("frobenius_tol", {"frobenius_tol": -0.1}),
        ("frobenius_tol", {"frobenius_tol": 0.1, "method": "quick"}),
        ("oversampling", {"oversampling": -1, "method": "quick"}),
        ("iterations", {"iterations": -1, "method": "quick"}),
        ("seed", {"seed": -1, "method": "quick"}),
    ],
)
def test_bad_options(argument: str, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument) as error:
        svd(np.eye(3), **options)
    assert error.value.argument == argument


def test_bad_matrices() -> None:
    for A in (np.ones(3), np.ones((2, 2, 2)), np.ones((0, 3)), np.ones((3, 0))):
        for call in (lambda A=A: svd(A), lambda A=A: fb.singular_values(A, "auto")):
            with pytest.raises(InvalidArgument) as error:
                call()
            assert error.value.argument == "A"
    A = np.ones((3, 3))
    A[2, 1] = np.nan
    for call in (lambda: svd(A), lambda: fb.singular_values(A, "auto"), lambda: fb.whitened_svd(np.eye(3), A, 0)):
        with pytest.raises(NonFinite) as error:
            call()
        assert error.value.index == (2, 1)
    with pytest.raises(InvalidArgument, match="not positive semidefinite"):
        fb.whitened_svd(np.eye(3), np.diag([1.0, 1.0, -1.0]), 0)
    for asymmetry in (1.0, 1e-7):
        with pytest.raises(InvalidArgument, match="must be symmetric"):
            fb.whitened_svd(np.eye(2), np.array([[1.0, asymmetry], [0.0, 1.0]]), 0)
    fb.whitened_svd(np.eye(2), np.array([[1.0, 1e-9], [0.0, 1.0]]), 0)
    with pytest.raises(InvalidArgument, match="shape"):
        fb.whitened_svd(np.eye(2), np.eye(3), 0)
    with pytest.raises(InvalidArgument, match="rank"):
        fb.whitened_svd(np.eye(2), np.eye(2), 3)


def failing(function: Any, times: int) -> Any:
    """The function, but for the first calls, which do not converge."""
    left = [times]

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise np.linalg.LinAlgError("did not converge")
        return function(*args, **kwargs)

    return wrapped


def test_a_failing_driver_is_retried(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    import array_api_compat.numpy as xp

    A = rng.standard_normal((6, 4))
    svd_driver, eigh, eigvalsh = xp.linalg.svd, xp.linalg.eigh, xp.linalg.eigvalsh
    monkeypatch.setattr(xp.linalg, "svd", failing(svd_driver, 1))
    check(A, svd(A), 1e-13)
    monkeypatch.setattr(xp.linalg, "eigh", failing(eigh, 1))
    check(A, svd(A, method="gram"), 1e-13)
    monkeypatch.setattr(xp.linalg, "eigvalsh", failing(eigvalsh, 1))
    np.testing.assert_allclose(fb.singular_values(A, "gram")["values"], np.linalg.svd(A)[1], rtol=1e-12)
    monkeypatch.setattr(xp.linalg, "svd", failing(svd_driver, 2))
    with pytest.raises(NotConverged, match=r"\(6, 4\)"):
        svd(A)
    monkeypatch.setattr(xp.linalg, "eigh", failing(eigh, 2))
    with pytest.raises(NotConverged):
        svd(A, method="gram")
