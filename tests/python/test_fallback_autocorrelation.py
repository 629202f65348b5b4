"""Accumulator of the fallback: hand-solved sums, any split and order, cancellation, refusals that change nothing."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brockett import InvalidArgument, InvalidType, NonFinite
from brockett._fallback import Accumulator
from brockett._fallback import autocorrelation as module

KINDS = [(method, center) for method in ("gram", "qr") for center in (False, True)]
kinds = pytest.mark.parametrize(("method", "center"), KINDS)


def accumulated(X: Any, weights: Any = None, method: str = "gram", center: bool = False, **kw: Any) -> Accumulator:
    acc = Accumulator(np.shape(X)[1], center, method, kw.pop("precision", "double"))
    acc.update(np.asarray(X, dtype=kw.pop("dtype", np.float64)), weights, **kw)
    return acc


def exact(X: np.ndarray, w: np.ndarray, center: bool) -> np.ndarray:
    """Σ w x xᵀ / Σ w in rational arithmetic, rounded once."""
    rows = [[Fraction(float(v)) for v in row] for row in X]
    weights = [Fraction(float(v)) for v in w]
    total = sum(weights)
    n = X.shape[1]
    mean = [sum(wi * row[j] for wi, row in zip(weights, rows, strict=True)) / total for j in range(n)]
    shift = mean if center else [Fraction(0)] * n
    R = [
        [
            sum(wi * (row[i] - shift[i]) * (row[j] - shift[j]) for wi, row in zip(weights, rows, strict=True)) / total
            for j in range(n)
        ]
        for i in range(n)
    ]
    return np.array([[float(v) for v in row] for row in R])


# --- by hand ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["gram", "qr"])
def test_two_samples_by_hand(method: str) -> None:
    X = [[1.0, 2.0], [3.0, 4.0]]
    acc = accumulated(X, method=method)
    # (1 + 9, 2 + 12; 2 + 12, 4 + 16) / 2
    np.testing.assert_allclose(acc.matrix(), [[5, 7], [7, 10]], rtol=1e-15)
    assert acc.mean().tolist() == [2, 3]
    assert (acc.n_features, acc.n_samples, acc.weight, acc.method) == (2, 2, 2.0, method)
    # deviations (-1, -1) and (1, 1)
    np.testing.assert_allclose(accumulated(X, method=method, center=True).matrix(), [[1, 1], [1, 1]], rtol=1e-15)


@pytest.mark.parametrize("method", ["gram", "qr"])
def test_weights_by_hand(method: str) -> None:
    acc = accumulated([[1.0, 0.0], [0.0, 2.0], [9.0, 9.0]], np.array([3.0, 1.0, 0.0]), method)
    np.testing.assert_allclose(acc.matrix(), [[0.75, 0], [0, 1]], rtol=1e-15)
    np.testing.assert_allclose(acc.mean(), [0.75, 0.5])
    assert (acc.n_samples, acc.weight) == (2, 4.0)


def test_factor_by_hand() -> None:
    # R = diag(4, 9) / 2 + …: two orthogonal samples
    acc = accumulated([[2.0, 0.0], [0.0, -3.0]], method="qr")
    np.testing.assert_allclose(acc.factor(), np.diag([2, 3]) / np.sqrt(2), rtol=1e-15)


# --- equalities -------------------------------------------------------------------------------------------------------


@kinds
def test_against_rational_arithmetic(method: str, center: bool, rng: np.random.Generator) -> None:
    X, w = rng.standard_normal((9, 4)) + 5, rng.integers(1, 6, 9).astype(float)
    R = accumulated(X, w, method, center).matrix()
    np.testing.assert_allclose(R, exact(X, w, center), rtol=1e-13, atol=1e-14)


@kinds
def test_integer_weights_repeat_samples(method: str, center: bool, rng: np.random.Generator) -> None:
    X, w = rng.standard_normal((8, 3)) + 1, rng.integers(0, 4, 8)
    repeated = accumulated(np.repeat(X, w, axis=0), None, method, center)
    weighted = accumulated(X, w.astype(float), method, center)
    np.testing.assert_allclose(weighted.matrix(), repeated.matrix(), rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(weighted.mean(), repeated.mean(), rtol=1e-13)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(data=st.data())
def test_any_split_and_order(data: st.DataObject) -> None:
    method, center = data.draw(st.sampled_from(KINDS))
    n_samples = data.draw(st.integers(1, 12))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    X, w = rng.standard_normal((n_samples, 4)) * 3 + 2, rng.uniform(0, 2, n_samples)
    w[rng.uniform(size=n_samples) < 0.2] = 0
    w[0] = 1
    whole = accumulated(X, w, method, center)
    order = data.draw(st.permutations(range(n_samples)))
    cuts = sorted(data.draw(st.lists(st.integers(0, n_samples), max_size=3)))
    parts = np.split(np.array(order), cuts)
    acc = Accumulator(4, center, method, "double")
    for i, part in enumerate(parts):
        if i % 2:  # every other part by way of an accumulator of its own, and its saved state
            other = Accumulator(4, center, method, "double")
            other.update(X[part], w[part])
            acc.merge(Accumulator.from_state(other.state()))
        else:
            acc.update(X[part], w[part])
    np.testing.assert_allclose(acc.matrix(), whole.matrix(), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(acc.mean(), whole.mean(), rtol=1e-12, atol=1e-13)
    assert acc.n_samples == whole.n_samples == np.count_nonzero(w)
    assert acc.weight == pytest.approx(whole.weight)


@kinds
def test_long_updates_go_in_blocks(
    method: str, center: bool, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    X, w = rng.standard_normal((23, 3)) + 4, rng.uniform(0, 1, 23)
    whole = accumulated(X, w, method, center)
    monkeypatch.setattr(module, "blocks_of", lambda n, _: [slice(a, min(a + 5, n)) for a in range(0, n, 5)])
    np.testing.assert_allclose(accumulated(X, w, method, center).matrix(), whole.matrix(), rtol=1e-12)


def test_blocks_cover_every_sample_once() -> None:
    for n_samples, n_features in ((1, 1), (65536, 1), (65537, 1), (5000, 2048), (3, 10**7)):
        covered = [i for part in module.blocks_of(n_samples, n_features) for i in range(part.start, part.stop)]
        assert covered == list(range(n_samples))


@kinds
def test_merging_nothing_changes_nothing(method: str, center: bool, rng: np.random.Generator) -> None:
    acc = accumulated(rng.standard_normal((5, 3)), method=method, center=center)
    before = acc.matrix()
    acc.merge(Accumulator(3, center, method, "double"))
    np.testing.assert_array_equal(acc.matrix(), before)


def test_merging_itself_doubles_the_weight(rng: np.random.Generator) -> None:
    acc = accumulated(rng.standard_normal((5, 3)), center=True)
    before = acc.matrix()
    acc.merge(acc)
    assert acc.n_samples == 10
    np.testing.assert_allclose(acc.matrix(), before, rtol=1e-15)


# --- precision --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["gram", "qr"])
def test_centring_does_not_cancel(method: str, rng: np.random.Generator) -> None:
    # a mean of 1e9: E[x xᵀ] - μ μᵀ in float64 would leave nothing of a variance of 1
    X = rng.standard_normal((30, 3)) + 1e9
    acc = Accumulator(3, True, method, "double")
    for i in range(0, 30, 7):
        acc.update(X[i : i + 7])
    np.testing.assert_allclose(acc.matrix(), exact(X, np.ones(30), True), rtol=1e-6, atol=1e-7)


def test_qr_keeps_the_small_end(rng: np.random.Generator) -> None:
    # singular values down to 1e-12, whose squares a Gram matrix has lost
    n = 5
    Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    X = rng.standard_normal((40, n)) * 10.0 ** np.arange(0, -15, -3) @ Q
    acc = accumulated(X[:13], method="qr")
    acc.update(X[13:])
    with mpmath.workdps(50):
        true = np.array([float(s) for s in mpmath.svd_r(mpmath.matrix(X.tolist()) / mpmath.sqrt(40), compute_uv=False)])
    s = np.linalg.svd(acc.factor(), compute_uv=False)
    np.testing.assert_allclose(s, true, atol=1e-15 * 10)
    np.testing.assert_allclose(s[:4], true[:4], rtol=1e-5)
    lost = np.sqrt(np.abs(np.linalg.eigvalsh(accumulated(X).matrix())[::-1]))
    assert abs(lost[3] / true[3] - 1) > 1e-2  # or the test would show nothing


def test_factor_is_lower_triangular_with_a_diagonal_of_one_sign(rng: np.random.Generator) -> None:
    for count in (1, 3, 20):  # fewer samples than features, too
        acc = accumulated(rng.standard_normal((count, 4)), method="qr", center=count == 3)
        L = acc.factor()
        assert not np.triu(L, 1).any()
        assert (np.diag(L) >= 0).all()
        np.testing.assert_allclose(L @ L.T, acc.matrix(), atol=1e-15)


def test_products_are_float64_whatever_the_data(rng: np.random.Generator) -> None:
    for dtype in (np.float16, np.float32):
        X = rng.standard_normal((200, 3)).astype(dtype)
        R = accumulated(X, dtype=dtype).matrix()
        np.testing.assert_allclose(R, X.astype(float).T @ X.astype(float) / 200, rtol=1e-14, atol=1e-16)


def test_single_precision_is_float32_and_says_so(rng: np.random.Generator) -> None:
    X = rng.standard_normal((500, 3))
    acc = accumulated(X, precision="single")
    error = np.abs(acc.matrix() - X.T @ X / 500).max()
    assert 1e-12 < error < 1e-6
    assert acc.precision == "single"


def test_the_input_is_not_modified(rng: np.random.Generator) -> None:
    X, w = rng.standard_normal((6, 3)), rng.uniform(size=6)
    before = X.copy(), w.copy()
    for method, center in KINDS:
        accumulated(X, w, method, center)
    np.testing.assert_array_equal(X, before[0])
    np.testing.assert_array_equal(w, before[1])


@pytest.mark.parametrize("layout", ["fortran", "reversed", "strided", "read-only", "big-endian"])
def test_layouts(layout: str, rng: np.random.Generator) -> None:
    X = rng.standard_normal((6, 4))
    views = {
        "fortran": np.asfortranarray(X),
        "reversed": np.ascontiguousarray(X[::-1, ::-1])[::-1, ::-1],
        "strided": np.repeat(np.repeat(X, 2, axis=0), 3, axis=1)[::2, ::3],
        "read-only": X.copy(),
        "big-endian": X.astype(">f8"),
    }
    view = views[layout]
    view.flags.writeable = False
    acc = Accumulator(4, True, "gram", "double")
    acc.update(view)
    np.testing.assert_allclose(acc.matrix(), np.cov(X.T, ddof=0), rtol=1e-13)


@pytest.mark.parametrize("scale", [1e-149, 1e-75, 1e75, 9.9e149 / 4])
@kinds
def test_scales(scale: float, method: str, center: bool, rng: np.random.Generator) -> None:
    X = rng.uniform(-4, 4, (12, 3))
    expected = accumulated(X, method=method, center=center).matrix()
    R = accumulated(X * scale, method=method, center=center).matrix()
    np.testing.assert_allclose(R / scale / scale, expected, rtol=1e-12, atol=1e-13)


# --- state ------------------------------------------------------------------------------------------------------------


@kinds
def test_state_goes_there_and_back(method: str, center: bool, rng: np.random.Generator) -> None:
    acc = accumulated(rng.standard_normal((7, 3)), rng.uniform(size=7), method, center)
    state = acc.state()
    again = Accumulator.from_state(state)
    for name, value in again.state().items():
        np.testing.assert_array_equal(value, state[name])
    more = rng.standard_normal((5, 3))
    acc.update(more)
    again.update(more)
    np.testing.assert_array_equal(again.matrix(), acc.matrix())
    before = acc.matrix().copy()
    for name in ("moment", "mean"):  # a state is a copy
        acc.state()[name][...] = 7
    np.testing.assert_array_equal(acc.matrix(), before)


GOOD = {
    "n_features": 2,
    "n_samples": 3,
    "weight": 3.0,
    "center": False,
    "method": "gram",
    "precision": "double",
    "mean": np.zeros(2),
    "moment": np.eye(2),
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_features", 0),
        ("n_samples", -1),
        ("n_samples", 0),
        ("weight", -1.0),
        ("weight", np.inf),
        ("method", "cholesky"),
        ("precision", "half"),
        ("mean", np.zeros(3)),
        ("mean", np.array([0, np.nan])),
        ("moment", np.eye(3)),
        ("moment", np.array([[1.0, 2.0], [0.0, 1.0]])),
        ("moment", -np.eye(2)),
        ("moment", np.full((2, 2), np.inf)),
    ],
)
def test_a_state_that_does_not_fit_is_named(name: str, value: Any) -> None:
    Accumulator.from_state(GOOD)
    with pytest.raises(InvalidArgument) as error:
        Accumulator.from_state(GOOD | {name: value})
    assert error.value.argument == name


def test_a_state_with_a_field_missing() -> None:
    with pytest.raises(InvalidArgument, match="lacks weight"):
        Accumulator.from_state({name: value for name, value in GOOD.items() if name != "weight"})


def test_a_root_must_be_triangular() -> None:
    with pytest.raises(InvalidArgument, match="lower triangular"):
        Accumulator.from_state(GOOD | {"method": "qr", "moment": np.ones((2, 2))})


# --- refusals ---------------------------------------------------------------------------------------------------------


def refused(acc: Accumulator, argument: str, X: Any, weights: Any = None) -> None:
    before = acc.state()
    with pytest.raises(InvalidArgument) as error:
        acc.update(X, weights)
    assert error.value.argument == argument
    for name, value in acc.state().items():
        np.testing.assert_array_equal(value, before[name])


@kinds
def test_a_refused_update_changes_nothing(method: str, center: bool, rng: np.random.Generator) -> None:
    good = rng.standard_normal((4, 2))
    acc = accumulated(good, method=method, center=center)
    for value in (np.nan, np.inf, -np.inf):
        bad = good.copy()
        bad[2, 1] = value
        refused(acc, "X", bad)
    refused(acc, "X", good[:, :1])
    refused(acc, "X", good[0])
    refused(acc, "X", np.array([[1e150, 0.0]]))
    refused(acc, "weights", good, np.array([1, 1, -1.0, 1]))
    refused(acc, "weights", good, np.array([1, 1, np.nan, 1]))
    refused(acc, "weights", good, np.ones(3))
    refused(acc, "weights", good, np.full(4, 1e300))
    refused(acc, "weights", np.full((4, 2), 1e149), np.full(4, 1e10))


def test_non_finite_is_named_by_the_callers_row() -> None:
    X = np.ones((5, 3))
    X[1, 0] = np.nan  # weight 0: skipped
    X[3, 2] = np.inf
    acc = Accumulator(3, False, "gram", "double")
    with pytest.raises(NonFinite) as error:
        acc.update(X, np.array([1.0, 0, 1, 1, 1]))
    assert error.value.index == (3, 2)
    assert error.value.argument == "X"
    with pytest.raises(NonFinite) as error:
        acc.update(X)
    assert error.value.index == (1, 0)


def test_float16_overflow_is_named() -> None:
    with np.errstate(over="ignore"):
        X = np.array([[1e5, 1.0]]).astype(np.float16)
    with pytest.raises(NonFinite):
        accumulated(X, dtype=np.float16)


@pytest.mark.parametrize("magnitude", [1e-151, 5e-324, -1e-151, 1e150, -1e150, 1.7e308])
def test_magnitudes_whose_squares_leave_float64(magnitude: float) -> None:
    with pytest.raises(InvalidArgument, match=r"largest magnitude .* rescale"):
        accumulated([[magnitude, 0.0]])


@pytest.mark.parametrize("method", ["gram", "qr"])
def test_small_samples_beside_large_ones_do_no_harm(method: str) -> None:
    acc = accumulated([[1.0, 0.0]], method=method)
    acc.update(np.array([[1e-200, 0.0]]))
    acc = Accumulator.from_state(acc.state())
    acc.update(np.array([[1e-200, 0.0]]))
    assert acc.matrix()[0, 0] == pytest.approx(1 / 3)


def test_weights_so_small_that_products_vanish() -> None:
    with pytest.raises(InvalidArgument, match="rescale the weights"):
        accumulated([[1e-140, 0.0]], np.array([1e-40]))


def test_a_total_that_overflows_is_refused() -> None:
    state = accumulated(np.full((4, 1), 9e149)).state() | {"moment": np.full((1, 1), np.finfo(np.float64).max)}
    acc = Accumulator.from_state(state)
    refused(acc, "X", np.full((20, 1), 9.9e149))
    with pytest.raises(InvalidArgument, match="overflows"):
        acc.merge(Accumulator.from_state(state))


@pytest.mark.parametrize("magnitude", [1e18, 1e-19])
def test_single_precision_has_a_range(magnitude: float) -> None:
    accumulated([[magnitude]])
    with pytest.raises(InvalidArgument, match="float32 products"):
        accumulated([[magnitude]], precision="single")


def test_nothing_accumulated() -> None:
    acc = Accumulator(2, False, "gram", "double")
    acc.update(np.empty((0, 2)))
    acc.update(np.full((2, 2), np.nan), np.zeros(2))
    acc.merge(Accumulator(2, False, "gram", "double"))
    assert (acc.n_samples, acc.weight) == (0, 0.0)
    for call in (acc.matrix, acc.mean):
        with pytest.raises(InvalidArgument, match="no samples"):
            call()


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("n_features", (0, False, "gram", "double")),
        ("method", (2, False, "svd", "double")),
        ("precision", (2, False, "gram", "half")),
        ("precision", (2, False, "qr", "single")),
    ],
)
def test_bad_options(argument: str, options: Any) -> None:
    with pytest.raises(InvalidArgument) as error:
        Accumulator(*options)
    assert error.value.argument == argument


def test_merging_other_kinds_is_refused() -> None:
    acc = accumulated(np.eye(2))
    for other in (
        accumulated(np.eye(3)),
        accumulated(np.eye(2), center=True),
        accumulated(np.eye(2), method="qr"),
        accumulated(np.eye(2), precision="single"),
    ):
        with pytest.raises(InvalidArgument) as error:
            acc.merge(other)
        assert error.value.argument == "other"
    with pytest.raises(InvalidType):
        acc.merge(np.eye(2))  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument) as error:
        acc.factor()
    assert error.value.argument == "method"
