"""Autocorrelation: what is accumulated, and that nothing is lost when an update is refused."""

from __future__ import annotations

import copy
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import brockett as bk

Matrix = npt.NDArray[np.float64]

WAYS = [("gram", "double"), ("qr", "double"), ("gram", "single")]


def reference(X: Any, weights: Any = None, center: bool = False) -> tuple[Matrix, Matrix]:
    """R and the mean, by NumPy's extended precision."""
    x = np.asarray(X, dtype=np.longdouble).reshape(-1, np.shape(X)[-1])
    w = np.ones(len(x), dtype=np.longdouble) if weights is None else np.asarray(weights, np.longdouble).reshape(-1)
    mean = (w @ x) / w.sum()
    y = x - mean if center else x
    return ((y.T * w) @ y / w.sum()).astype(np.float64), mean.astype(np.float64)


def filled(X: Any, **params: Any) -> bk.Autocorrelation:
    acc = bk.Autocorrelation(np.shape(X)[-1], **params)
    acc.update(X)
    return acc


@pytest.mark.parametrize(("method", "precision"), WAYS)
@pytest.mark.parametrize("center", [False, True])
def test_by_hand(engine: str, method: str, precision: str, center: bool) -> None:
    acc = bk.Autocorrelation(2, center, method, precision)
    acc.update([[1.0, 0.0], [3.0, 4.0]])
    expected = [[1.0, 2.0], [2.0, 4.0]] if center else [[5.0, 6.0], [6.0, 8.0]]
    np.testing.assert_allclose(acc.matrix(), expected, rtol=1e-6 if precision == "single" else 1e-14)
    assert acc.mean().tolist() == [2.0, 2.0]
    assert (acc.n_samples, acc.weight, acc.n_features) == (2, 2.0, 2)
    assert (acc.center, acc.method, acc.precision) == (center, method, precision)


@pytest.mark.parametrize(("method", "precision"), WAYS)
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (50, 7), (4, 5, 7), (2, 3, 4, 5), (2, 0, 3)])
def test_batches_and_weights(
    engine: str, method: str, precision: str, center: bool, shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    X = rng.normal(size=shape) + 3
    weights = rng.uniform(0.5, 2.0, size=shape[:-1])
    acc = bk.Autocorrelation(shape[-1], center, method, precision)
    plain = bk.Autocorrelation(shape[-1], center, method, precision)
    for x, w in zip(X, weights, strict=True):
        if X.ndim > 2:
            acc.update(x, weights=w)
        plain.update(x if X.ndim > 2 else x[None])
    if X.ndim == 2:
        acc.update(X, weights=weights)
    if X.size == 0:
        assert acc.n_samples == plain.n_samples == 0
        return
    tolerance = 2e-6 if precision == "single" else 1e-13
    for one, w in ((acc, weights), (plain, None)):
        R, mean = reference(X, w, center)
        np.testing.assert_allclose(one.matrix(), R, atol=tolerance * max(1.0, float(np.abs(R).max())) * 10)
        np.testing.assert_allclose(one.mean(), mean, rtol=1e-6 if precision == "single" else 1e-13)
        assert np.array_equal(one.matrix(), one.matrix().T)
        assert one.n_samples == X[..., 0].size
    assert acc.weight == pytest.approx(weights.sum())
    if method == "qr":
        L = acc.factor()
        np.testing.assert_allclose(L @ L.T, acc.matrix(), atol=1e-12)
        assert np.array_equal(L, np.tril(L))


def test_mask_and_zero_weights_skip_what_may_be_nan(engine: str, rng: np.random.Generator) -> None:
    X = rng.normal(size=(3, 4, 5))
    mask = rng.random((3, 4)) < 0.6
    mask[0, 0] = True
    R, _ = reference(X[mask])
    X[~mask] = np.nan
    ways: list[dict[str, Any]] = [
        {"mask": mask},
        {"mask": mask.astype(np.int64)},
        {"mask": mask.tolist()},
        {"weights": mask.astype(float)},
        {"weights": np.where(mask, 1.0, np.nan), "mask": mask},
    ]
    for way in ways:
        acc = bk.Autocorrelation(5)
        acc.update(X, **way)
        np.testing.assert_allclose(acc.matrix(), R, atol=1e-13)
        assert acc.n_samples == mask.sum()
    nothing = bk.Autocorrelation(5)
    nothing.update(X, mask=np.zeros((3, 4), bool))
    assert nothing.n_samples == 0


def test_weights_and_mask_multiply(engine: str, rng: np.random.Generator) -> None:
    X, w = rng.normal(size=(6, 3)), rng.random(6) + 0.1
    mask = np.array([1, 1, 0, 1, 0, 1], bool)
    acc = bk.Autocorrelation(3)
    acc.update(X, weights=w, mask=mask)
    np.testing.assert_allclose(acc.matrix(), reference(X[mask], w[mask])[0], atol=1e-14)


def test_torch_masks_and_weights(engine: str, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    X = torch.from_numpy(rng.normal(size=(2, 3, 4))).to(torch.bfloat16)
    mask = torch.tensor([[True, False, True], [True, True, False]])
    weights = torch.arange(1.0, 7.0).reshape(2, 3)
    acc = bk.Autocorrelation(4)
    acc.update(X, weights=weights, mask=mask)
    expected, _ = reference(X[mask].double().numpy(), weights[mask].numpy())
    np.testing.assert_allclose(acc.matrix().numpy(), expected, atol=1e-13)


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(0, 40), max_size=6), seed=st.integers(0, 2**32 - 1), center=st.booleans())
def test_independent_of_the_split_and_the_order(cuts: list[int], seed: int, center: bool) -> None:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(40, 4)) + 10
    R, mean = reference(X, center=center)
    for name in ("cpu", "numpy"):
        bk.set_engine(name)
        for method in ("gram", "qr"):
            parts = np.split(X, sorted(cuts))
            one = bk.Autocorrelation(4, center, method)
            two = bk.Autocorrelation(4, center, method)
            for k in rng.permutation(len(parts)):
                (one if rng.random() < 0.5 else two).update(parts[k])
            one.merge(two)
            np.testing.assert_allclose(one.matrix(), R, atol=1e-11)
            np.testing.assert_allclose(one.mean(), mean, rtol=1e-13)
            assert one.n_samples == 40


def test_centred_moments_do_not_cancel(engine: str, rng: np.random.Generator) -> None:
    X = rng.normal(size=(200, 3))
    far = X + 1e8
    expected, _ = reference(far, center=True)
    acc = bk.Autocorrelation(3, center=True)
    for part in np.split(far, 10):
        acc.update(part)
    np.testing.assert_allclose(acc.matrix(), expected, rtol=1e-6, atol=1e-8)


def test_qr_keeps_what_the_gram_matrix_loses(engine: str, rng: np.random.Generator) -> None:
    Q = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    sigma = np.array([1.0, 1e-4, 1e-8, 1e-11])
    X = rng.normal(size=(400, 4)) * sigma @ Q
    exact = np.linalg.svd(X, compute_uv=False) / np.sqrt(400)
    acc = bk.Autocorrelation(4, method="qr")
    for part in np.split(X, 8):
        acc.update(part)
    np.testing.assert_allclose(np.linalg.svd(acc.factor(), compute_uv=False), exact, rtol=1e-3)


def test_one_shot(engine: str, rng: np.random.Generator) -> None:
    X, w = rng.normal(size=(2, 9, 3)), rng.random((2, 9))
    np.testing.assert_allclose(bk.autocorrelation(X), reference(X)[0], atol=1e-14)
    np.testing.assert_allclose(bk.autocorrelation(X, True, weights=w), reference(X, w, True)[0], atol=1e-14)
    np.testing.assert_allclose(bk.autocorrelation(X.astype(np.float32), precision="single"), reference(X)[0], atol=1e-5)
    np.testing.assert_allclose(bk.autocorrelation(X, method="qr", mask=w > 0.5), reference(X[w > 0.5])[0], atol=1e-13)
    with pytest.raises(bk.InvalidArgument, match="no samples that count"):
        bk.autocorrelation(X, mask=np.zeros((2, 9), bool))


# --- refused updates --------------------------------------------------------------------------------------------------


def bad_updates() -> list[Any]:
    good = np.ones((4, 3))
    nan = good.copy()
    nan[2, 1] = np.nan
    deep = np.ones((2, 4, 3), np.float32)
    deep[1, 3, 2] = np.inf
    return [
        pytest.param((nan,), {}, bk.NonFinite, "X", r"index \(2, 1\)", id="nan"),
        pytest.param((deep,), {}, bk.NonFinite, "X", r"index \(1, 3, 2\)", id="inf-in-batch"),
        pytest.param((deep.astype(np.float16),), {}, bk.NonFinite, "X", r"index \(1, 3, 2\)", id="half"),
        pytest.param((good.T,), {}, bk.InvalidArgument, "X", r"expected 3 features .* got shape \(3, 4\)", id="width"),
        pytest.param((good[0],), {}, bk.InvalidArgument, "X", r"got shape \(3,\)", id="one-axis"),
        pytest.param((1.0,), {}, bk.InvalidArgument, "X", r"got shape \(\)", id="number"),
        pytest.param((good * 1j,), {}, bk.InvalidType, "X", "complex", id="complex"),
        pytest.param((good * 1e200,), {}, bk.InvalidArgument, "X", "1e[+]?200|float32 products", id="huge"),
        pytest.param((good,), {"weights": np.ones(3)}, bk.InvalidArgument, "weights", r"\(4,\).*\(3,\)", id="weights"),
        pytest.param(
            (good,), {"weights": [1, 1, -1, 1]}, bk.InvalidArgument, "weights", r"-1.0 at index \(2,\)", id="negative"
        ),
        pytest.param(
            (good,), {"weights": [1, 1, 1, np.nan]}, bk.InvalidArgument, "weights", r"index \(3,\)", id="nan-weight"
        ),
        pytest.param((good,), {"mask": [True] * 3}, bk.InvalidArgument, "mask", r"\(4,\)", id="mask-shape"),
        pytest.param((good,), {"mask": np.ones(4)}, bk.InvalidType, "mask", "float64", id="float-mask"),
        pytest.param((good,), {"mask": [0, 1, 2, 1]}, bk.InvalidArgument, "mask", "integers 0 and 1", id="int-mask"),
    ]


@pytest.mark.parametrize(("args", "keywords", "error", "argument", "message"), bad_updates())
@pytest.mark.parametrize(("method", "precision"), WAYS)
@pytest.mark.parametrize("center", [False, True])
def test_a_refused_update_changes_nothing(
    engine: str,
    method: str,
    precision: str,
    center: bool,
    args: Any,
    keywords: Any,
    error: type[bk.InvalidArgument],
    argument: str,
    message: str,
    rng: np.random.Generator,
) -> None:
    X = rng.normal(size=(9, 3))
    for before in (0, 5):
        acc = bk.Autocorrelation(3, center, method, precision)
        if before:
            acc.update(X[:before])
        state = acc._state()
        with pytest.raises(error, match=message) as caught:
            acc.update(*args, **keywords)
        assert caught.value.argument == argument
        assert acc.n_samples == before
        for name, value in (state or {}).items():
            assert np.array_equal((acc._state() or {})[name], value)
        acc.update(X[before:])
        np.testing.assert_allclose(acc.matrix(), reference(X, center=center)[0], rtol=1e-5, atol=1e-5)


def test_float16_samples_do_not_overflow(engine: str) -> None:
    X = np.full((3, 2), 60000, dtype=np.float16)
    assert bk.autocorrelation(X).tolist() == [[float(X[0, 0]) ** 2] * 2] * 2
    with pytest.raises(bk.NonFinite):
        bk.autocorrelation(np.array([[65504.0]], np.float16) * np.float16(np.inf))


@pytest.mark.parametrize("scale", [1e-140, 1e-75, 1e75, 1e140])
def test_scales(engine: str, scale: float, rng: np.random.Generator) -> None:
    X = rng.normal(size=(20, 3))
    for method in ("gram", "qr"):
        R = bk.autocorrelation(X * scale, method=method)
        np.testing.assert_allclose(R / scale / scale, reference(X)[0], rtol=1e-12)


def test_squares_that_would_vanish_are_refused(engine: str) -> None:
    for method in ("gram", "qr"):
        acc = bk.Autocorrelation(1, method=method)
        with pytest.raises(bk.InvalidArgument, match=r"magnitude 1e-200 .* rescale"):
            acc.update([[1e-200]])
        acc.update([[1.0]])
        acc.update([[1e-200], [0.0]])  # beside larger ones it is lost as any small number is
        assert acc.matrix().tolist() == [[pytest.approx(1 / 3)]]


@pytest.mark.parametrize(
    ("keywords", "argument"),
    [
        ({"n_features": 0}, "n_features"),
        ({"n_features": 2.0}, "n_features"),
        ({"n_features": True}, "n_features"),
        ({"n_features": 2, "center": "yes"}, "center"),
        ({"n_features": 2, "method": "svd"}, "method"),
        ({"n_features": 2, "precision": "half"}, "precision"),
        ({"n_features": 2, "method": "qr", "precision": "single"}, "precision"),
    ],
)
def test_bad_parameters(keywords: Any, argument: str) -> None:
    with pytest.raises(bk.InvalidArgument) as caught:
        bk.Autocorrelation(**keywords)
    assert caught.value.argument == argument
    if argument in ("method", "precision") and keywords.get("method") != "qr":
        assert "expected one of" in str(caught.value)


def test_results_of_nothing_are_refused(engine: str) -> None:
    acc = bk.Autocorrelation(3, method="qr")
    for call in (acc.matrix, acc.mean, acc.factor):
        with pytest.raises(bk.InvalidArgument, match="no samples"):
            call()
    with pytest.raises(bk.InvalidArgument, match="method='qr'"):
        filled([[1.0]]).factor()
    assert "0 samples" in repr(acc)


# --- merging and keeping ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "precision"), WAYS)
def test_merge_of_empty_of_itself_and_of_another_engine(method: str, precision: str, rng: np.random.Generator) -> None:
    X = rng.normal(size=(12, 3))
    params = {"method": method, "precision": precision}
    R, _ = reference(X)
    accumulators = []
    for name, part in (("cpu", X[:5]), ("numpy", X[5:])):
        bk.set_engine(name)
        accumulators.append(filled(part, **params))
    for one, two in (accumulators, accumulators[::-1]):
        both = copy.deepcopy(one)
        both.merge(two)
        np.testing.assert_allclose(both.matrix(), R, rtol=1e-5, atol=1e-6)
        empty = bk.Autocorrelation(3, **params)  # type: ignore[arg-type]
        both.merge(empty)
        assert empty.n_samples == 0
        empty.merge(both)
        assert np.array_equal(empty.matrix(), both.matrix())
        empty.update(X)  # … and stays a sum of its own
        assert both.n_samples == 12
        both.merge(both)
        assert both.n_samples == 24
        np.testing.assert_allclose(both.matrix(), R, rtol=1e-5, atol=1e-6)
    assert [one.n_samples for one in accumulators] == [5, 7]


def test_merge_refuses_what_does_not_fit() -> None:
    acc = filled([[1.0, 2.0]])
    for other, word in (
        (bk.Autocorrelation(3), "n_features=3"),
        (bk.Autocorrelation(2, center=True), "center=True"),
        (bk.Autocorrelation(2, method="qr"), "method='qr'"),
        (bk.Autocorrelation(2, precision="single"), "precision='single'"),
        (np.eye(2), "ndarray"),
    ):
        with pytest.raises(bk.InvalidArgument, match=word) as caught:
            acc.merge(other)  # type: ignore[arg-type]
        assert caught.value.argument == "other"
    assert acc.n_samples == 1


@pytest.mark.parametrize(("method", "precision"), WAYS)
@pytest.mark.parametrize("center", [False, True])
def test_save_load_pickle_copy(
    engine: str, method: str, precision: str, center: bool, tmp_path: Path, rng: np.random.Generator
) -> None:
    X = rng.normal(size=(10, 4))
    for before in (0, 6):
        acc = bk.Autocorrelation(4, center, method, precision)
        if before:
            acc.update(X[:before], weights=rng.random(before) + 0.5)
        acc.save(tmp_path / "r.dat")
        assert [f.name for f in tmp_path.iterdir()] == ["r.dat"]
        for again in (
            bk.Autocorrelation.load(tmp_path / "r.dat"),
            pickle.loads(pickle.dumps(acc)),
            copy.copy(acc),
            copy.deepcopy(acc),
        ):
            assert repr(again) == repr(acc)
            assert again.weight == acc.weight
            if before:
                assert np.array_equal(again.matrix(), acc.matrix())
                assert np.array_equal(again.mean(), acc.mean())
            again.update(X[before:])
            assert (again.n_samples, acc.n_samples) == (10, before)
        both = copy.deepcopy(acc)
        both.update(X[before:])
        np.testing.assert_allclose(again.matrix(), both.matrix(), rtol=1e-14, atol=1e-14)


def test_loaded_accumulators_take_any_library(tmp_path: Path, rng: np.random.Generator) -> None:
    import array_api_strict as xp

    X = rng.normal(size=(8, 3))
    filled(X[:4]).save(tmp_path / "r.npz")
    device = xp.Device("device1")
    for make in (np.asarray, lambda a: xp.asarray(a, device=device)):
        acc = bk.Autocorrelation.load(tmp_path / "r.npz")
        x = make(X[4:])
        acc.update(x)
        R = acc.matrix()
        assert type(R) is type(x)
        if R.__class__ is not np.ndarray:
            assert R.device == device
            R = np.asarray(R.to_device(xp.Device("CPU_DEVICE")))
        np.testing.assert_allclose(R, reference(X)[0], atol=1e-14)


def test_files_of_one_engine_load_in_the_other(tmp_path: Path, rng: np.random.Generator) -> None:
    X = rng.normal(size=(8, 3))
    for writer, reader in (("cpu", "numpy"), ("numpy", "cpu")):
        for method in ("gram", "qr"):
            bk.set_engine(writer)
            filled(X, method=method, center=True).save(tmp_path / "r.npz")
            bk.set_engine(reader)
            again = bk.Autocorrelation.load(tmp_path / "r.npz")
            np.testing.assert_allclose(again.matrix(), reference(X, center=True)[0], atol=1e-13)


def test_merging_both_ways_at_once_cannot_lock_up() -> None:
    # Two threads that take the same two locks wait for each other for ever, unless both take them in the same order.
    taken: list[str] = []

    class Recorder:
        def __init__(self, name: str) -> None:
            self.name = name

        def __enter__(self) -> None:
            taken.append(self.name)

        def __exit__(self, *_: object) -> None:
            pass

    one, two = bk.Autocorrelation(2), bk.Autocorrelation(2)
    one._lock, two._lock = Recorder("one"), Recorder("two")  # type: ignore[assignment]
    one.merge(two)
    two.merge(one)
    assert taken[:2] == taken[2:4]
    assert set(taken) == {"one", "two"}


def test_threads_may_share_one(engine: str, rng: np.random.Generator) -> None:
    X = rng.normal(size=(8, 50, 6))
    acc, other = bk.Autocorrelation(6), bk.Autocorrelation(6)

    def work(k: int) -> None:
        acc.update(X[k])
        acc.matrix()
        other.update(X[k])
        (acc if k % 2 else other).merge(bk.Autocorrelation(6))

    workers = [threading.Thread(target=work, args=(k,)) for k in range(len(X))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    np.testing.assert_allclose(acc.matrix(), reference(X)[0], atol=1e-13)
    assert acc.n_samples == other.n_samples == 400


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("method", ["gram", "qr"])
def test_cleared_sums_are_as_new(engine: str, rng: np.random.Generator, method: str, center: bool) -> None:
    """What `collect` keeps a batch in, time and again."""
    X = rng.normal(size=(20, 3))
    patches = bk.PatchAutocorrelation(1, (3,), center=center)
    for acc, shaped in ((bk.Autocorrelation(3, center, method), X), (patches, X[:, None, :])):
        acc.update(1e100 * shaped)
        acc._clear()
        assert (acc.n_samples, acc.weight) == (0, 0)
        with pytest.raises(bk.InvalidArgument, match="no samples"):
            acc.matrix()
        with pytest.raises(bk.InvalidArgument, match="X"):  # alone they are too small to square
            acc.update(1e-170 * shaped)
        acc.update(shaped + 1)
        mean = (X + 1).mean(axis=0)
        Z = X + 1 - mean if center else X + 1
        np.testing.assert_allclose(acc.matrix(), Z.T @ Z / 20, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(acc.mean(), mean, rtol=1e-12)
