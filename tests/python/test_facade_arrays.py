"""What may come in, and that the same kind goes out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import array_api_strict
import ml_dtypes
import numpy as np
import pytest

import brockett as bk

Make = Callable[[Any], Any]


class OnlyDLPack:
    """Memory of a library that speaks DLPack and nothing else."""

    def __init__(self, array: np.ndarray[Any, Any], device: tuple[int, int] = (1, 0)) -> None:
        self._array, self._device = array, device

    def __dlpack__(self, **keywords: Any) -> Any:
        return self._array.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._device


def torch_tensor(a: Any) -> Any:
    torch = pytest.importorskip("torch")
    return torch.from_numpy(np.array(a))


def strict(a: Any, device: str = "CPU_DEVICE") -> Any:
    return array_api_strict.asarray(np.array(a), device=array_api_strict.Device(device))


def host(a: Any) -> np.ndarray[Any, Any]:
    """Values of an array of any library."""
    if type(a).__module__.startswith("array_api_strict"):
        a = a.to_device(array_api_strict.Device("CPU_DEVICE"))
    return np.asarray(a)


KINDS: list[Any] = [
    pytest.param(np.asarray, np.ndarray, id="numpy"),
    pytest.param(torch_tensor, "torch", id="torch"),
    pytest.param(strict, "array_api_strict", id="strict"),
    pytest.param(lambda a: strict(a, "device1"), "array_api_strict", id="strict-device1"),
    pytest.param(lambda a: OnlyDLPack(np.asarray(a)), np.ndarray, id="dlpack"),
    pytest.param(lambda a: np.asarray(a).tolist(), np.ndarray, id="list"),
]


def check_kind(array: Any, kind: Any, like: Any) -> None:
    if isinstance(kind, type):
        assert type(array) is kind
    else:
        assert type(array).__module__.partition(".")[0] == kind
        if hasattr(like, "device"):
            assert array.device == like.device


@pytest.mark.parametrize(("make", "kind"), KINDS)
def test_the_same_kind_goes_out(make: Make, kind: Any, rng: np.random.Generator) -> None:
    W, X = rng.normal(size=(3, 5)), rng.normal(size=(40, 5))
    w, x = make(W), make(X)
    reference = bk.descramble(W, inputs=X)
    d = bk.descramble(w, inputs=x)
    for name in ("P", "weights", "sigma", "blocks", "block_error"):
        check_kind(getattr(d, name), kind, w)
        np.testing.assert_allclose(host(getattr(d, name)), getattr(reference, name), atol=1e-9)
    assert d.cost == pytest.approx(reference.cost)

    acc = bk.Autocorrelation(5)
    acc.update(x)
    for result, expected in ((acc.matrix(), X.T @ X / 40), (acc.mean(), X.mean(axis=0))):
        check_kind(result, kind, x)
        np.testing.assert_allclose(host(result), expected, atol=1e-12)
    check_kind(bk.autocorrelation(x), kind, x)

    for part, expected in zip(bk.svd(w), bk.svd(W), strict=True):
        check_kind(part, kind, w)
        np.testing.assert_allclose(host(part), expected, atol=1e-12)
    check_kind(bk.singular_values(w), kind, w)
    best = bk.whitened_svd(w, acc.matrix() if kind is not np.ndarray else X.T @ X / 40, rank=2)
    check_kind(best.U, kind, w)
    check_kind(best.projected, kind, w)
    check_kind(bk.diagonalize(w).P, kind, w)
    check_kind(bk.brockett_cost(make(np.eye(3)), make(np.eye(3))).gradient, kind, w)
    for part in bk.randomized_svd(w, 2, random_state=0):
        check_kind(part, kind, w)


@pytest.mark.parametrize(
    ("dtype", "result"),
    [
        (np.float64, np.float64),
        (np.float32, np.float32),
        (np.float16, np.float32),
        (ml_dtypes.bfloat16, np.float32),
        (np.int8, np.float64),
        (np.uint64, np.float64),
        (np.bool_, np.float64),
        (np.dtype(">f8"), np.float64),
        (np.dtype(">f4"), np.float32),
        (np.dtype(">f2"), np.float32),
        (np.dtype(">i4"), np.float64),
    ],
    ids=str,
)
def test_dtypes(engine: str, dtype: Any, result: Any, rng: np.random.Generator) -> None:
    W = rng.integers(0, 2, size=(4, 6)).astype(np.float64)  # exact in every dtype
    w = W.astype(dtype)
    before = w.tobytes()
    for array, expected in ((w, W), (w.T, W.T)):
        d = bk.descramble(array)
        assert d.P.dtype == d.weights.dtype == result
        assert d.sigma.dtype == np.float64
        assert d.cost == pytest.approx(bk.descramble(expected).cost, rel=1e-5, abs=1e-5)
        U, s, Vt = bk.svd(array)
        assert U.dtype == Vt.dtype == result
        assert s.dtype == np.float64
        np.testing.assert_allclose(U * s @ Vt, expected, atol=1e-5)
        # Samples are summed exactly whatever their dtype.
        R = bk.autocorrelation(array)
        assert R.dtype == np.float64
        np.testing.assert_allclose(R, expected.T @ expected / len(expected), rtol=1e-14)
        y = bk.descramble(preactivations=array)
        assert y.P.dtype == result
    assert w.tobytes() == before


def test_torch_dtypes_and_views(engine: str, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    W = torch.from_numpy(rng.integers(0, 2, size=(4, 6)).astype(np.float32))
    for dtype, result in (
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.int64, torch.float64),
    ):
        for w in (W.to(dtype), W.T.to(dtype), W.to(dtype).T, W.to(dtype)[:, ::2]):
            U, s, Vt = bk.svd(w)
            assert U.dtype == Vt.dtype == result
            assert s.dtype == torch.float64
            np.testing.assert_allclose((U.double() * s @ Vt.double()).numpy(), w.double().numpy(), atol=1e-5)
            np.testing.assert_allclose(
                bk.autocorrelation(w).numpy(), (w.double().T @ w.double() / len(w)).numpy(), rtol=1e-14
            )
    weight = torch.nn.Linear(6, 4).weight
    d = bk.descramble(weight)
    assert not d.P.requires_grad
    assert weight.requires_grad
    assert d.weights.dtype == torch.float32
    minus = torch._neg_view(W)  # a tensor whose memory holds the opposite numbers
    np.testing.assert_allclose(bk.autocorrelation(minus).numpy(), bk.autocorrelation(W).numpy())
    np.testing.assert_allclose(bk.svd(minus).U.numpy(), -bk.svd(W).U.numpy(), atol=1e-6)


LAYOUTS: list[Any] = [
    pytest.param(lambda a: a, id="C"),
    pytest.param(np.asfortranarray, id="F"),
    pytest.param(lambda a: np.repeat(a, 2, axis=0)[::2], id="every-second-row"),
    pytest.param(lambda a: np.repeat(a, 3, axis=1)[:, ::3], id="every-third-column"),
    pytest.param(lambda a: a[::-1].copy()[::-1], id="rows-backwards"),
    pytest.param(lambda a: a[:, ::-1].copy()[:, ::-1], id="columns-backwards"),
    pytest.param(lambda a: np.pad(a, 2)[2:-2, 2:-2], id="inside"),
    pytest.param(lambda a: np.asfortranarray(np.pad(a, 2))[2:-2, 2:-2], id="inside-F"),
    pytest.param(
        lambda a: np.frombuffer(b"x" + a.tobytes(), dtype=np.uint8)[1:].view(a.dtype).reshape(a.shape), id="unaligned"
    ),
    pytest.param(
        lambda a: np.matrix(a), id="matrix", marks=pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
    ),
]


@pytest.mark.parametrize("lay_out", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("read_only", [False, True])
def test_layouts(engine: str, lay_out: Make, dtype: Any, read_only: bool, rng: np.random.Generator) -> None:
    for shape in ((7, 5), (5, 7), (1, 4), (4, 1), (1, 1)):
        A = rng.normal(size=shape).astype(dtype)
        a = lay_out(A)
        assert np.array_equal(a, A)
        a.flags.writeable = a.flags.writeable and not read_only
        copy = np.array(a)
        U, s, Vt = bk.svd(a)
        np.testing.assert_allclose(U * s @ Vt, A, atol=1e-5 if dtype == np.float32 else 1e-13)
        np.testing.assert_allclose(bk.singular_values(a), np.linalg.svd(A, compute_uv=False), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(bk.autocorrelation(a), A.T.astype(float) @ A / len(A), atol=1e-14 * 50)
        np.testing.assert_allclose(bk.descramble(a).cost, bk.descramble(A).cost, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(bk.diagonalize(a).value, bk.diagonalize(A).value, rtol=1e-5)
        assert np.array_equal(a, copy)


def test_zero_strides_and_overlapping_windows(engine: str, rng: np.random.Generator) -> None:
    row = rng.normal(size=9)
    for a in (np.broadcast_to(row, (4, 9)), np.lib.stride_tricks.sliding_window_view(row, 4)):
        np.testing.assert_allclose(bk.autocorrelation(a), a.T @ a / len(a), atol=1e-13)
        U, s, Vt = bk.svd(a)
        np.testing.assert_allclose(U * s @ Vt, a, atol=1e-12)


def test_samples_are_read_in_place(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    # What reaches the engine shares memory with what came.
    from brockett import _arrays

    X = rng.normal(size=(6, 10, 4)).astype(np.float32)
    taken = _arrays.sample_rows(_arrays.accept(X, "X", samples=True))
    assert np.shares_memory(taken.array, X)
    for A in (X[0], X[0].T, X[0][:, :3], X[0][::2]):
        assert np.shares_memory(_arrays.matrix(_arrays.accept(A, "A")).array, A)
    torch = pytest.importorskip("torch")
    t = torch.from_numpy(X[0])
    assert np.shares_memory(_arrays.matrix(_arrays.accept(t, "A")).array, X)
    half = t.to(torch.bfloat16)
    assert np.shares_memory(_arrays.accept(half, "X", samples=True).array, half.view(torch.int16).numpy())


def test_results_own_their_memory(engine: str, rng: np.random.Generator) -> None:
    import gc

    W = rng.normal(size=(30, 20))
    U, s, Vt = bk.svd(W)
    P = bk.descramble(W).P
    kept = U.copy(), s.copy(), Vt.copy(), P.copy()
    gc.collect()
    junk = [rng.normal(size=(30, 30)) for _ in range(50)]
    assert len(junk) == 50
    for array, copy in zip((U, s, Vt, P), kept, strict=True):
        assert array.flags.writeable
        assert np.array_equal(array, copy)


COMPLEX = np.ones((3, 3), dtype=np.complex64)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (COMPLEX, "complex arrays .* stack the real and the imaginary"),
        ([[1j, 2.0]], "complex"),
        (np.ones((2, 2), dtype=np.longdouble), "dtype .* is not supported"),
        (np.array([[1, "a"]], dtype=object), "not supported"),
        (np.array([["a", "b"]]), "not supported"),
        (np.zeros((2, 2), dtype=[("a", "f8")]), "not supported"),
        (np.zeros((2, 2), dtype="M8[s]"), "not supported"),
        (np.zeros((2, 2), dtype=ml_dtypes.float8_e4m3fn), "not supported"),
        (np.ma.masked_array([[1.0, 2.0]], mask=[[True, False]]), "masked entries"),
        ([[1.0], [2.0, 3.0]], "does not convert"),
        ([["a"]], "not supported"),
        ([[None]], "does not convert"),
        (None, "expected an array, got NoneType"),
        ("W.npy", "expected an array, got str"),
        ({"W": 1}, "expected an array, got dict"),
        (object(), "expected an array, got object"),
        (OnlyDLPack(np.eye(2), (2, 0)), "is on a CUDA device, which"),
        (OnlyDLPack(np.eye(2), (10, 0)), r"DLPack device \(10, 0\)"),
        (array_api_strict.asarray(COMPLEX), "complex arrays"),
        (strict(np.eye(2, dtype=np.float32), "no_float64"), "no_float64.*has no float64"),
        (strict(np.eye(2, dtype=np.float32), "no_x64"), "no_x64.*has no float64"),
    ],
)
def test_what_is_refused_is_refused_by_name(value: Any, message: str) -> None:
    with pytest.raises(bk.InvalidType, match=message) as caught:
        bk.svd(value)
    assert caught.value.argument == "A"
    assert isinstance(caught.value, TypeError | ValueError)
    with pytest.raises(bk.InvalidType) as caught:
        bk.Autocorrelation(2).update(value)
    assert caught.value.argument == "X"


def test_other_libraries_are_refused_by_name() -> None:
    import scipy.sparse

    with pytest.raises(bk.InvalidType, match="sparse arrays"):
        bk.svd(scipy.sparse.eye_array(3))
    with pytest.raises(bk.InvalidType, match="which `svd` serves"):
        bk.singular_values(scipy.sparse.linalg.aslinearoperator(np.eye(3)))
    torch = pytest.importorskip("torch")
    for bad in (
        torch.eye(2).to_sparse(),
        torch.eye(2, dtype=torch.complex64),
        torch.eye(2, device="meta"),
        torch.eye(2).to(torch.float8_e4m3fn),
    ):
        with pytest.raises(bk.InvalidType) as caught:
            bk.svd(bad)
        assert caught.value.argument == "A"


def test_masked_arrays_without_a_mask_are_fine() -> None:
    assert bk.svd(np.ma.masked_array(np.eye(2), mask=False)).s.tolist() == [1, 1]


def test_mixed_libraries_and_devices_are_refused_by_name(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    W, X = rng.normal(size=(3, 2)), rng.normal(size=(8, 2))
    cases: list[tuple[Callable[[], Any], str]] = [
        (lambda: bk.descramble(W, inputs=torch.from_numpy(X)), "inputs"),
        (lambda: bk.descramble(torch.from_numpy(W), inputs=X), "inputs"),
        (lambda: bk.descramble(strict(W), inputs=strict(X, "device1")), "inputs"),
        (lambda: bk.descramble(W, autocorrelation=torch.eye(2)), "autocorrelation"),
        (lambda: bk.descramble(W, inputs=X, bias=torch.ones(3)), "bias"),
        (lambda: bk.descramble(W, gauge=torch.eye(3)), "gauge"),
        (lambda: bk.descramble(W, stack=[(1.0, torch.ones(4, 3))]), "stack"),
        (lambda: bk.whitened_svd(W, torch.eye(2)), "R"),
        (lambda: bk.brockett_cost(W @ W.T, torch.eye(3)), "C"),
        (lambda: bk.autocorrelation(X, weights=torch.ones(8)), "weights"),
        (lambda: bk.autocorrelation(X, mask=torch.ones(8, dtype=torch.bool)), "mask"),
    ]
    for call, argument in cases:
        with pytest.raises(bk.InvalidType) as caught:
            call()
        assert caught.value.argument == argument
        assert "numpy" in str(caught.value) or "torch" in str(caught.value) or "device1" in str(caught.value)
    acc = bk.Autocorrelation(2)
    acc.update(X)
    with pytest.raises(bk.InvalidType, match="holds samples of numpy on cpu"):
        acc.update(torch.from_numpy(X))
    acc.update(X.tolist())
    assert acc.n_samples == 16


def test_lists_go_along_with_their_neighbours(rng: np.random.Generator) -> None:
    W, X, b = rng.normal(size=(3, 2)), rng.normal(size=(8, 2)), [1.0, 2.0, 3.0]
    expected = bk.descramble(W, inputs=X, bias=b, center=False)
    for make in (torch_tensor, lambda a: strict(a, "device1")):
        w = make(W)
        for d in (
            bk.descramble(w, inputs=X.tolist(), bias=b, gauge=np.eye(3).tolist(), stack=[(0.0, [[0.0, 0.0, 1.0]])]),
            bk.descramble(W.tolist(), inputs=make(X), bias=b),
        ):
            assert type(d.P) is type(w)
            assert d.cost == pytest.approx(expected.cost)
    assert type(bk.descramble(W.tolist(), inputs=X.tolist()).P) is np.ndarray


def test_engine_that_does_not_serve_an_array_refuses_it() -> None:
    bk.set_engine("cpu")
    with pytest.raises(bk.InvalidType, match="which engine 'cpu' does not serve; 'numpy' does"):
        bk.svd(strict(np.eye(2)))


def test_pandas_and_other_array_likes_are_converted() -> None:
    class Frame:
        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray[Any, Any]:
            return np.array([[3.0, 0.0], [0.0, 4.0]])

    assert bk.svd(Frame()).s.tolist() == [4.0, 3.0]
