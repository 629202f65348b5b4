"""The façade on memory of a CUDA device: what test_cuda_arrays.py runs over the CPU shim, and test_gpu.py on a GPU.

Answers come from NumPy and SciPy in host memory. BROCKETT_TEST_DEVICE_LIBRARIES names the libraries that arrays come
from: "interface" has nothing but ``__cuda_array_interface__``, "dlpack" nothing but DLPack (both are written here),
"brockett" is `DeviceArray` itself, "torch" and "cupy" need a GPU.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg

import brockett as bk
from brockett import _core

DeviceArray = _core.DeviceArray


class Interface:
    """An array that exposes ``__cuda_array_interface__`` and nothing else; `changes` replace fields of it."""

    def __init__(self, array: Any, **changes: Any) -> None:
        self.array, self.changes = array, changes

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {**self.array.__cuda_array_interface__, **self.changes}


class Exporter:
    """An array that exposes DLPack and nothing else, and notes the stream that it was asked to be ready on."""

    def __init__(self, array: Any, device: tuple[int, int] | None = None, versioned: bool = True) -> None:
        self.array, self.device, self.versioned = array, device or array.__dlpack_device__(), versioned
        self.streams: list[Any] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, *, stream: Any = None, **wanted: Any) -> Any:
        if not self.versioned and wanted:
            raise TypeError(f"unexpected keywords {sorted(wanted)}")
        self.streams.append(stream)
        return self.array.__dlpack__(stream=stream, **wanted)


class Library:
    """Makes arrays of one library on device 0, and reads them back."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name

    def array(self, values: Any) -> Any:
        host = np.asarray(values)
        if self.name == "torch":
            torch = pytest.importorskip("torch")
            if host.dtype.name == "bfloat16":
                return torch.from_numpy(host.astype(np.float32)).to("cuda", torch.bfloat16)
            return torch.from_numpy(np.ascontiguousarray(host)).to("cuda")
        if self.name == "cupy":
            if host.dtype.name == "bfloat16":
                pytest.skip("CuPy has no bfloat16")
            return pytest.importorskip("cupy").asarray(host)
        array = DeviceArray.from_host(host)
        if self.name == "interface" and host.dtype.name != "bfloat16":
            return Interface(array)
        return array if self.name == "brockett" else Exporter(array)

    def host(self, value: Any) -> Any:
        if isinstance(value, DeviceArray):
            return value.to_host()
        if self.name == "torch":
            return value.cpu().numpy()
        return value.get() if self.name == "cupy" else np.asarray(value)

    def owns(self, value: Any) -> bool:
        """Whether a matrix came back in the library and on its device."""
        if self.name == "torch":
            return str(getattr(value, "device", "")) == "cuda:0"
        if self.name == "cupy":
            return type(value).__module__.partition(".")[0] == "cupy"
        return isinstance(value, DeviceArray) and value.device == 0


NAMES = tuple(os.environ.get("BROCKETT_TEST_DEVICE_LIBRARIES", "interface,dlpack,brockett").split(","))


@pytest.fixture(params=NAMES)
def library(request: pytest.FixtureRequest) -> Library:
    return Library(request.param)


@pytest.fixture
def on_device(library: Library) -> Callable[[Any], Any]:
    return library.array


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(42)


def penalised(P: Any, Y: Any) -> float:
    """‖D P Y‖²/N with D the second Fourier derivative, by NumPy's FFT."""
    n = P.shape[0]
    k = np.fft.fftfreq(n, 1 / n)
    return float(np.mean(np.sum(np.abs(np.fft.fft(Y @ P.T, axis=1, norm="ortho")) ** 2 * k**4, axis=1)))


def optimum(C: Any) -> float:
    n = C.shape[0]
    return float(np.sort(np.fft.fftfreq(n, 1 / n) ** 4) @ np.linalg.eigvalsh(C)[::-1])


# --- autocorrelation --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("method", ["gram", "qr"])
@pytest.mark.parametrize("center", [False, True])
def test_autocorrelation(library: Library, rng: np.random.Generator, dtype: str, method: str, center: bool) -> None:
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes").bfloat16
    X = (rng.normal(size=(2, 60, 7)) + 2).astype(dtype)
    weights = rng.integers(0, 3, size=(2, 60)).astype(np.float64)
    exact = X.reshape(-1, 7).astype(np.float64)
    w = weights.reshape(-1)
    mean = w @ exact / w.sum()
    moved = exact - mean if center else exact
    expected = (moved * w[:, None]).T @ moved / w.sum()
    acc = bk.Autocorrelation(7, center=center, method=method)
    acc.update(library.array(X[0]), weights[0].tolist())
    acc.update(library.array(X[1:]), library.array(weights[1:]))
    R = acc.matrix()
    assert library.owns(R)
    assert library.host(R) == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert library.host(acc.mean()) == pytest.approx(mean, rel=1e-12)
    assert acc.n_samples == np.count_nonzero(w)
    if method == "qr":
        L = library.host(acc.factor())
        assert pytest.approx(expected, rel=1e-12, abs=1e-12) == L @ L.T
    again = bk.autocorrelation(library.array(X), center, weights=library.array(weights), method=method)
    assert library.host(again) == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_masks(library: Library, rng: np.random.Generator) -> None:
    X = rng.normal(size=(3, 8, 4))
    keep = rng.random((3, 8)) < 0.6
    X[~keep] = np.nan  # padding may hold anything
    for mask in (library.array(keep), keep, keep.tolist()):
        R = library.host(bk.autocorrelation(library.array(X), mask=mask))
        assert pytest.approx(X[keep].T @ X[keep] / keep.sum(), rel=1e-12) == R


def test_rows_with_gaps_are_read_in_place(rng: np.random.Generator) -> None:
    wide = rng.normal(size=(40, 9)).astype(np.float32)
    array = DeviceArray.from_host(wide)
    part = Interface(array, shape=(40, 5), strides=(36, 4))
    R = bk.autocorrelation(part).to_host()
    X = wide[:, :5].astype(np.float64)
    assert pytest.approx(X.T @ X / 40, rel=1e-12) == R


@pytest.mark.parametrize(("precision", "tolerance"), [("single", 1e-5), ("tf32", 3e-3), ("fp16", 3e-3), ("bf16", 3e-2)])
def test_precisions(library: Library, rng: np.random.Generator, precision: str, tolerance: float) -> None:
    X = rng.normal(size=(500, 6)).astype(np.float32)
    acc = bk.Autocorrelation(6, precision=precision)
    acc.update(library.array(X))
    expected = X.astype(np.float64).T @ X.astype(np.float64) / 500
    R = library.host(acc.matrix())
    assert np.abs(R - expected).max() <= tolerance * np.abs(expected).max()
    W = rng.normal(size=(5, 6))
    with pytest.warns(bk.PrecisionWarning, match=f"precision='{precision}'"):
        layer = bk.descramble(library.array(W), autocorrelation=acc)
    assert layer.used["precision"] == precision
    # It can be kept, and read where there is no GPU; only the sums themselves need one.
    kept = pickle.loads(pickle.dumps(acc))
    assert isinstance(kept.matrix(), np.ndarray)
    assert kept.matrix() == pytest.approx(R, rel=1e-15)
    if precision != "single":
        with pytest.raises(bk.Unsupported, match=precision):
            kept.update(X)
        assert kept.n_samples == 500


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_samples_that_the_precision_holds_lose_nothing_but_float32_sums(
    library: Library, rng: np.random.Generator, precision: str
) -> None:
    X = rng.integers(-8, 9, size=(64, 5)).astype(np.float32)  # exact in both, and so are all of their sums
    acc = bk.Autocorrelation(5, precision=precision)
    acc.update(library.array(X))
    assert np.array_equal(library.host(acc.matrix()), X.T @ X / 64)


def test_merge_pickle_and_save(library: Library, rng: np.random.Generator, tmp_path: Path) -> None:
    X = rng.normal(size=(90, 5))
    expected = np.cov(X.T, bias=True)
    parts = [bk.Autocorrelation(5, center=True) for _ in range(3)]
    for part, rows in zip(parts, np.split(X, 3), strict=True):
        part.update(library.array(rows))
    parts[0].merge(parts[1])
    parts[2].save(tmp_path / "third.npz")
    from_file = bk.Autocorrelation.load(tmp_path / "third.npz")
    assert isinstance(from_file.matrix(), np.ndarray)
    parts[0].merge(from_file)  # what was loaded goes along
    assert library.owns(parts[0].matrix())
    assert library.host(parts[0].matrix()) == pytest.approx(expected, rel=1e-12, abs=1e-13)
    from_file.merge(pickle.loads(pickle.dumps(parts[1])))
    from_file.update(library.array(X[:30]))  # and goes on where the samples are
    assert library.owns(from_file.matrix())
    assert library.host(from_file.matrix()) == pytest.approx(expected, rel=1e-12, abs=1e-13)
    other = bk.Autocorrelation.load(tmp_path / "third.npz")
    other.merge(parts[1])
    assert library.owns(other.matrix())
    on_device = bk.Autocorrelation.load(tmp_path / "third.npz", device="cuda:0")
    assert on_device.matrix().device == 0
    assert on_device.matrix().to_host() == pytest.approx(np.cov(X[60:].T, bias=True), rel=1e-12, abs=1e-13)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("method", ["gram", "qr"])
def test_samples_in_host_memory_are_streamed(rng: np.random.Generator, tmp_path: Path, dtype: str, method: str) -> None:
    path = tmp_path / "X.npy"
    np.save(path, rng.normal(size=(3000, 12)).astype(dtype))
    X = np.load(path, mmap_mode="r")
    weights = rng.random(3000)
    acc = bk.Autocorrelation(12, method=method, device="cuda:0")
    assert acc.device == "cuda:0"
    acc.update(X[:2000], weights[:2000])
    acc.update(DeviceArray.from_host(np.array(X[2000:])), weights[2000:])
    exact = X.astype(np.float64)
    expected = (exact * weights[:, None]).T @ exact / weights.sum()
    R = acc.matrix()
    assert isinstance(R, DeviceArray)
    assert R.to_host() == pytest.approx(expected, rel=1e-12, abs=1e-12)
    kept = pickle.loads(pickle.dumps(acc))
    assert kept.device == "cuda:0"
    kept.update(X[:1], [0.0])
    assert kept.matrix().to_host() == pytest.approx(expected, rel=1e-12, abs=1e-12)
    W = rng.normal(size=(6, 12))
    layer = bk.descramble(DeviceArray.from_host(W), autocorrelation=acc)
    assert layer.optimum == pytest.approx(optimum(W @ expected @ W.T), rel=1e-9)
    with pytest.raises(bk.NonFinite, match=r"X: NaN or Inf at index \(1, 3\)"):
        acc.update(np.where(np.arange(24).reshape(2, 12) == 15, np.nan, 1.0).astype(dtype))
    assert acc.n_samples == np.count_nonzero(weights)


def test_bfloat16_in_host_memory_is_streamed(rng: np.random.Generator) -> None:
    X = rng.normal(size=(50, 4)).astype(pytest.importorskip("ml_dtypes").bfloat16)
    acc = bk.Autocorrelation(4, device="cuda")
    acc.update(X)
    exact = X.astype(np.float64)
    assert acc.matrix().to_host() == pytest.approx(exact.T @ exact / 50, rel=1e-12)


# --- singular values --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["auto", "exact", "gram", "quick"])
@pytest.mark.parametrize("shape", [(9, 5), (5, 9), (6, 6), (2, 3, 7, 4)])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_svd(library: Library, rng: np.random.Generator, method: str, shape: tuple[int, ...], dtype: str) -> None:
    A = rng.normal(size=shape).astype(dtype)
    found = bk.svd(library.array(A), method=method)
    assert library.owns(found.U)
    assert library.owns(found.Vt)
    U, s, Vt = (library.host(part) for part in found)
    assert U.dtype == Vt.dtype == dtype
    eps = 1e-10 if dtype == "float64" else 2e-5
    assert np.abs((U * s[..., None, :]) @ Vt - A).max() < eps * 10
    k = min(shape[-2:])
    assert np.abs(np.swapaxes(U, -1, -2) @ U - np.eye(k)).max() < eps
    assert s == pytest.approx(np.linalg.svd(A.astype(np.float64), compute_uv=False), rel=eps * 10, abs=eps)
    rows = Vt.reshape(-1, Vt.shape[-1])
    assert (rows[np.arange(len(rows)), np.abs(rows).argmax(axis=1)] > 0).all()


def test_svd_of_a_column_major_matrix(rng: np.random.Generator) -> None:
    A = rng.normal(size=(3, 8, 5))
    array = DeviceArray.from_host(np.ascontiguousarray(np.swapaxes(A, 1, 2)))
    one = bk.svd(array[1].T)
    assert (one.U.to_host() * one.s) @ one.Vt.to_host() == pytest.approx(A[1], abs=1e-12)
    batch = bk.svd(Interface(array, shape=(3, 8, 5), strides=(320, 8, 64)))
    U, Vt = batch.U.to_host(), batch.Vt.to_host()
    assert U.shape == (3, 8, 5)
    assert (U * batch.s[:, None, :]) @ Vt == pytest.approx(A, abs=1e-12)


@pytest.mark.parametrize("method", ["auto", "gram", "exact"])
@pytest.mark.parametrize("shape", [(12, 7), (4, 2, 6, 8)])
def test_singular_values(library: Library, rng: np.random.Generator, method: str, shape: tuple[int, ...]) -> None:
    A = rng.normal(size=shape)
    s, info = bk.singular_values(library.array(A), return_info=True, method=method)
    assert library.host(s) == pytest.approx(np.linalg.svd(A, compute_uv=False), rel=1e-9)
    assert (np.asarray(info.n_resolved) == min(shape[-2:])).all()
    assert np.shape(info.n_resolved) == shape[:-2]


def test_whitened_svd(library: Library, rng: np.random.Generator) -> None:
    W, X = rng.normal(size=(6, 9)), rng.normal(size=(40, 9))
    R = X.T @ X / 40
    root = np.real(scipy.linalg.sqrtm(R))
    U, s, _ = np.linalg.svd(W @ root)
    acc = bk.Autocorrelation(9)
    acc.update(library.array(X))
    streamed = bk.Autocorrelation(9, device="cuda:0")
    streamed.update(X)
    for moments in (library.array(R), acc, streamed):
        best = bk.whitened_svd(library.array(W), moments, rank=3)
        assert library.owns(best.U)
        assert library.owns(best.projected)
        assert library.host(best.s) == pytest.approx(s, rel=1e-9)
        assert best.error == pytest.approx(np.sqrt(np.sum(s[3:] ** 2)), rel=1e-9)
        product = library.host(best.U) @ library.host(best.projected)
        assert product == pytest.approx(U[:, :3] @ U[:, :3].T @ W, abs=1e-9)


def test_randomized_svd(library: Library, rng: np.random.Generator) -> None:
    A = rng.normal(size=(30, 4)) @ rng.normal(size=(4, 20))
    U, s, Vt = (library.host(part) for part in bk.randomized_svd(library.array(A), 4, random_state=3))
    assert (U * s) @ Vt == pytest.approx(A, abs=1e-10)
    assert (U[np.abs(U).argmax(axis=0), np.arange(4)] > 0).all()
    # The same seed gives the same numbers as in host memory, up to rounding.
    host = bk.randomized_svd(A, 4, random_state=3)
    assert pytest.approx(host[0], abs=1e-9) == U


# --- the descrambler --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["inputs", "preactivations", "accumulator", "matrix", "isotropic"])
@pytest.mark.parametrize("center", [False, True])
def test_descramble_sources(library: Library, rng: np.random.Generator, source: str, center: bool) -> None:
    on_device = library.array
    W, b = rng.normal(size=(8, 6)), rng.normal(size=8)
    X = rng.normal(size=(200, 6)) + 1
    Y = X @ W.T + b
    arguments: dict[str, Any] = {"center": center}
    if source == "inputs":
        arguments |= {"inputs": on_device(X), "bias": on_device(b)}
    elif source == "preactivations":
        arguments |= {"preactivations": on_device(Y)}
    elif source == "accumulator":
        acc = bk.Autocorrelation(6)
        acc.update(on_device(X))
        arguments |= {"autocorrelation": acc, "bias": b.tolist()}
    elif source == "matrix":
        arguments = {"autocorrelation": on_device(X.T @ X / 200), "n_samples": 200}
        Y, center = X @ W.T, False
    C = Y.T @ Y / 200
    if source == "isotropic":
        arguments |= {"bias": on_device(b)}
        C = W @ W.T + np.outer(b, b)
    if center:
        C = W @ W.T if source == "isotropic" else np.cov(Y.T, bias=True)
    layer = bk.descramble(on_device(W), **arguments)
    assert layer.used["engine"] == "cuda"
    assert library.owns(layer.P)
    assert library.owns(layer.weights)
    P, weights = library.host(layer.P), library.host(layer.weights)
    assert pytest.approx(np.eye(8), abs=1e-11) == P @ P.T
    assert weights == pytest.approx(P @ W, abs=1e-11)
    assert layer.optimum == pytest.approx(optimum(C), rel=1e-8)
    assert layer.cost == pytest.approx(optimum(C), rel=1e-8)
    # Y with C = Y Yᵀ is any root of C
    values, vectors = np.linalg.eigh(C)
    root = (vectors * np.sqrt(np.maximum(values, 0))).T * np.sqrt(8)
    assert penalised(P, root) == pytest.approx(layer.cost, rel=1e-8)
    assert layer.identity_cost == pytest.approx(penalised(np.eye(8), root), rel=1e-8)
    assert library.host(layer.sigma)[: layer.rank] ** 2 == pytest.approx(values[::-1][: layer.rank], rel=1e-8)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_descramble_follows_the_dtype(library: Library, rng: np.random.Generator, dtype: str) -> None:
    W, X = rng.normal(size=(5, 3, 2)).astype(dtype), rng.normal(size=(50, 6)).astype(dtype)
    layer = bk.descramble(library.array(W), inputs=library.array(X))
    weights = library.host(layer.weights)
    assert weights.dtype == np.float32
    assert weights.shape == (5, 3, 2)
    P = library.host(layer.P).astype(np.float64)
    Y = X.astype(np.float64) @ W.reshape(5, 6).astype(np.float64).T
    assert penalised(P, Y) == pytest.approx(optimum(Y.T @ Y / 50), rel=1e-4)


@pytest.mark.parametrize("group", ["orthogonal", "special_orthogonal"])
@pytest.mark.parametrize("gauge", ["identity", "canonical", "given"])
def test_gauges(library: Library, rng: np.random.Generator, group: str, gauge: str) -> None:
    X, W = rng.normal(size=(100, 6)), rng.normal(size=(7, 6))
    P0 = scipy.linalg.qr(rng.normal(size=(7, 7)))[0]
    word = library.array(P0) if gauge == "given" else gauge
    layer = bk.descramble(library.array(W), inputs=library.array(X), group=group, gauge=word)
    P = library.host(layer.P)
    Y = X @ W.T
    # P is closest to the reference among the equals: turning it within a block of equal eigenvalues leads away.
    assert penalised(P, Y) == pytest.approx(optimum(Y.T @ Y / 100), rel=1e-8)
    if group == "special_orthogonal":
        assert np.linalg.det(P) == pytest.approx(1, rel=1e-9)
    if gauge != "canonical":
        near = np.linalg.norm(P - (P0 if gauge == "given" else np.eye(7)))
        T = bk.penalty.FourierDerivative(2).basis(7)
        for first in (1, 3, 5):
            for angle in (-1e-3, 1e-3):
                turn = np.eye(7)
                c, s = np.cos(angle), np.sin(angle)
                turn[first : first + 2, first : first + 2] = [[c, -s], [s, c]]
                moved = np.linalg.norm(T @ turn @ T.T @ P - (P0 if gauge == "given" else np.eye(7)))
                assert moved > near


@pytest.mark.parametrize(
    "penalty",
    [
        bk.penalty.FourierDerivative(1.5),
        bk.penalty.FiniteDifference(2, "neumann"),
        bk.penalty.Grid((2, 3)),
        bk.penalty.Grid((3, 2), 1, "neumann"),
        bk.penalty.GraphLaplacian(np.diag([1, 2, 2, 2, 2, 1.0]) - np.eye(6, k=1) - np.eye(6, k=-1)),
        bk.penalty.Custom(np.diag(np.arange(6.0)) + 0.1),
    ],
    ids=repr,
)
def test_penalties(library: Library, rng: np.random.Generator, penalty: Any) -> None:
    Y = rng.normal(size=(80, 6))
    C = Y.T @ Y / 80
    layer = bk.descramble(preactivations=library.array(Y), penalty=penalty)
    A = penalty.matrix(6)
    P = library.host(layer.P)
    assert np.trace(A @ P @ C @ P.T) == pytest.approx(layer.cost, rel=1e-9)
    best = np.linalg.eigvalsh(A) @ np.linalg.eigvalsh(C)[::-1]
    assert layer.optimum == pytest.approx(best, rel=1e-9)
    value, gradient = bk.brockett_cost(library.array(P), library.array(C), penalty)
    assert value == pytest.approx(best, rel=1e-9)
    assert library.owns(gradient)
    assert library.host(gradient) == pytest.approx(2 * A @ P @ C, abs=1e-9 * np.abs(A).max())


def test_stacked_sources(library: Library, rng: np.random.Generator) -> None:
    Y, Y2 = rng.normal(size=(50, 5)), rng.normal(size=(30, 5)).astype(np.float32)
    layer = bk.descramble(preactivations=library.array(Y), stack=[(0.5, library.array(Y2))])
    exact = Y2.astype(np.float64)
    assert layer.optimum == pytest.approx(optimum(Y.T @ Y / 50 + 0.5 * exact.T @ exact / 30), rel=1e-9)


def test_permutations(library: Library, rng: np.random.Generator) -> None:
    Y = np.cumsum(rng.normal(size=(60, 9)), axis=1)
    order = rng.permutation(9)
    layer = bk.descramble(preactivations=library.array(Y[:, order]), group="permutation")
    found = library.host(layer.permutation)
    assert sorted(found) == list(range(9))
    P = library.host(layer.P)
    assert np.array_equal(P, np.eye(9)[found])
    assert layer.cost == pytest.approx(penalised(P, Y[:, order]), rel=1e-9)
    assert layer.bound <= layer.cost <= layer.identity_cost


def test_a_descrambling_can_be_saved(library: Library, rng: np.random.Generator, tmp_path: Path) -> None:
    layer = bk.descramble(library.array(rng.normal(size=(4, 3))))
    layer.save(tmp_path / "layer.npz")
    kept = bk.Descrambling.load(tmp_path / "layer.npz")
    assert np.array_equal(kept.P, library.host(layer.P))
    assert kept.used == layer.used


@pytest.mark.parametrize("criterion", ["sum", "square"])
@pytest.mark.parametrize("group", ["orthogonal", "special_orthogonal"])
def test_diagonalize(library: Library, rng: np.random.Generator, criterion: str, group: str) -> None:
    W = rng.normal(size=(6, 4))
    found = bk.diagonalize(library.array(W), criterion, group)
    assert library.owns(found.P)
    P, weights = library.host(found.P), library.host(found.weights)
    assert weights == pytest.approx(P @ W, abs=1e-12)
    diagonal = np.diagonal(P @ W)
    value = diagonal.sum() if criterion == "sum" else (diagonal**2).sum()
    assert found.value == pytest.approx(value, rel=1e-10)
    if (criterion, group) == ("sum", "orthogonal"):
        assert value == pytest.approx(np.linalg.svd(W, compute_uv=False).sum(), rel=1e-10)
    if group == "special_orthogonal":
        assert np.linalg.det(P) == pytest.approx(1)


# --- how arrays change hands ------------------------------------------------------------------------------------------


def test_inputs_are_not_written(library: Library, rng: np.random.Generator) -> None:
    W, X = rng.normal(size=(6, 5)), rng.normal(size=(40, 5))
    w, x = library.array(W), library.array(X)
    bk.descramble(w, inputs=x)
    bk.svd(w)
    bk.singular_values(w)
    bk.diagonalize(w)
    bk.whitened_svd(w, library.array(X.T @ X))
    read = DeviceArray.from_interface if library.name == "interface" else DeviceArray.from_dlpack
    for array, values in ((w, W), (x, X)):
        kept = array if library.name == "brockett" else read(array)
        assert np.array_equal(kept.to_host(), values)


def test_nothing_is_copied_in_or_out() -> None:
    array = DeviceArray.from_host(np.arange(6.0).reshape(2, 3))
    address = array.__cuda_array_interface__["data"][0]
    for other in (
        DeviceArray.from_dlpack(Exporter(array)),
        DeviceArray.from_dlpack(Exporter(array, versioned=False)),
        DeviceArray.from_dlpack(array.__dlpack__()),
        DeviceArray.from_interface(Interface(array)),
        array.reshape((3, 2)),
        array.T,
        array[0],
    ):
        assert other.__cuda_array_interface__["data"][0] == address
    kept = DeviceArray.from_dlpack(array)
    del array, other
    assert kept.to_host().tolist() == [[0, 1, 2], [3, 4, 5]]


def test_the_producer_is_asked_for_the_stream_of_the_work() -> None:
    exporter = Exporter(DeviceArray.from_host(np.eye(3)))
    bk.singular_values(exporter)
    assert exporter.streams == [1]  # the legacy default stream: nothing says otherwise
    DeviceArray.from_dlpack(exporter, 2)
    assert exporter.streams == [1, 2]


def test_streams_are_told() -> None:
    array = DeviceArray.from_host(np.eye(2), 0, 2)
    assert array.stream == 2
    assert array.__cuda_array_interface__["stream"] == 2
    assert array.__cuda_array_interface__["version"] == 3
    for stream in (None, -1, 0, 1, 2):
        again = DeviceArray.from_dlpack(array.__dlpack__(stream=stream))
        assert np.array_equal(again.to_host(), np.eye(2))
    with pytest.raises(bk.InvalidArgument, match="stream"):
        array.__dlpack__(stream=-2)
    R = bk.autocorrelation(array).to_host()
    assert np.array_equal(R, np.eye(2) / 2)


def test_layouts_of_a_device_array(rng: np.random.Generator) -> None:
    values = rng.normal(size=(2, 3, 4))
    array = DeviceArray.from_host(values)
    assert (array.shape, array.ndim, array.size, array.itemsize, array.dtype) == ((2, 3, 4), 3, 24, 8, "float64")
    assert array.strides == values.strides
    assert np.array_equal(array[1].to_host(), values[1])
    assert np.array_equal(array[-1, 2, ...].to_host(), values[1, 2])
    assert float(array[1, 2, 3]) == values[1, 2, 3]
    assert np.array_equal(array.T.to_host(), values.T)
    assert np.array_equal(array.reshape((6, 4)).to_host(), values.reshape(6, 4))
    column_major = DeviceArray.stack([array[0].T, array[1].T])
    assert np.array_equal(column_major.to_host(), values.swapaxes(1, 2))
    assert np.array_equal(column_major.reshape((1, 2, 4, 1, 3)).to_host(), values.swapaxes(1, 2)[None, :, :, None])
    assert np.array_equal(column_major.astype("float32").to_host(), values.swapaxes(1, 2).astype(np.float32))
    for call, words in [
        (lambda: array[2], "out of range"),
        (lambda: array[0, 0, 0, 0], "more indices"),
        (lambda: array.reshape((5, 5)), r"cannot be \(5, 5\)"),
        (lambda: array.T.reshape((24,)), "without a copy"),
        (lambda: array.astype("int64"), "got int64"),
        (lambda: DeviceArray.stack([]), "one array or more"),
        (lambda: DeviceArray.stack([array, array.T]), "one shape"),
    ]:
        with pytest.raises((bk.InvalidArgument, IndexError), match=words):
            call()
    with pytest.raises(TypeError, match="to_host"):
        np.asarray(array)


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_other_types_pass_through(dtype: str) -> None:
    values = np.arange(6).reshape(2, 3).astype(dtype)
    array = DeviceArray.from_interface(Interface(DeviceArray.from_host(values)))
    assert array.dtype == dtype
    assert np.array_equal(DeviceArray.from_dlpack(array).to_host(), values)


# --- bad input --------------------------------------------------------------------------------------------------------


def test_bad_numbers_are_named_and_nothing_is_added(library: Library, rng: np.random.Generator) -> None:
    X = rng.normal(size=(2, 4, 3))
    acc = bk.Autocorrelation(3)
    acc.update(library.array(X))
    before = library.host(acc.matrix())
    X[1, 2, 0] = np.inf
    with pytest.raises(bk.NonFinite, match=r"X: NaN or Inf at index \(1, 2, 0\)"):
        acc.update(library.array(X))
    assert np.array_equal(library.host(acc.matrix()), before)
    assert acc.n_samples == 8
    A = rng.normal(size=(2, 2, 3, 4))
    A[1, 0, 2, 1] = np.nan
    for call in (bk.svd, bk.singular_values):
        with pytest.raises(bk.NonFinite, match=r"A: NaN or Inf at index \(1, 0, 2, 1\)"):
            call(library.array(A))
    with pytest.raises(bk.NonFinite, match=r"W: NaN or Inf at index \(0, 1\)"):
        bk.diagonalize(library.array([[1.0, np.nan]]))


def test_host_and_device_do_not_mix(library: Library) -> None:
    W, X = np.eye(3), np.ones((5, 3))
    for call, argument in [
        (lambda: bk.descramble(library.array(W), inputs=X), "inputs"),
        (lambda: bk.descramble(W, inputs=library.array(X)), "inputs"),
        (lambda: bk.whitened_svd(library.array(W), W), "R"),
        (lambda: bk.brockett_cost(W, library.array(W)), "C"),
    ]:
        with pytest.raises(bk.InvalidType, match=f"{argument}: .*not moved"):
            call()
    acc = bk.Autocorrelation(3)
    acc.update(X)
    with pytest.raises(bk.InvalidType, match="not moved"):
        acc.update(library.array(X))
    with pytest.raises(bk.InvalidType, match="autocorrelation: holds samples of numpy"):
        bk.descramble(library.array(W), autocorrelation=acc)
    bk.set_engine("cuda")
    with pytest.raises(bk.InvalidType, match="host memory, which engine 'cuda' does not serve"):
        bk.svd(W)
    bk.set_engine("cpu")
    with pytest.raises(bk.InvalidType, match=r"CUDA device|CuPy array"):
        bk.svd(library.array(W))


def test_engine_words(library: Library) -> None:
    bk.set_engine("cuda")
    assert bk.descramble(library.array(np.eye(2))).used["engine"] == "cuda"
    details = bk.engines()["cuda"].details
    assert len(details["devices"]) >= 1
    assert details["runtime"] >= 13000


class Elsewhere:
    """Claims to lie on a device that nothing here can read."""

    def __init__(self, kind: int) -> None:
        self.kind = kind

    def __dlpack_device__(self) -> tuple[int, int]:
        return (self.kind, 0)

    def __dlpack__(self, **_: Any) -> Any:
        raise AssertionError("must not be asked")


@pytest.mark.parametrize(("kind", "name"), [(10, "ROCm"), (8, "Metal"), (14, "oneAPI")])
def test_devices_of_others_are_refused(kind: int, name: str) -> None:
    with pytest.raises(bk.InvalidType, match=f"A: .*device \\({kind}, 0\\).*not moved"):
        bk.svd(Elsewhere(kind))
    with pytest.raises(bk.InvalidArgument, match=f"A: lies on {name} 0, expected memory of a CUDA device"):
        DeviceArray.from_dlpack(Elsewhere(kind), argument="A")


def test_managed_memory_is_a_device_s(rng: np.random.Generator) -> None:
    A = rng.normal(size=(4, 3))
    s = bk.singular_values(Exporter(DeviceArray.from_host(A), device=(13, 0)))
    assert s == pytest.approx(np.linalg.svd(A, compute_uv=False))


def test_capsules_are_read_once() -> None:
    for versioned in ({}, {"max_version": (1, 0)}):
        capsule = DeviceArray.from_host(np.eye(2)).__dlpack__(**versioned)
        assert bk.singular_values(capsule).tolist() == [1, 1]
        with pytest.raises(bk.InvalidArgument, match="A: is a DLPack capsule that was consumed before"):
            bk.singular_values(capsule)
    with pytest.raises(bk.InvalidArgument, match="lies on CPU 0"):
        DeviceArray.from_dlpack(np.eye(2).__dlpack__())


def test_a_producer_that_fails_is_quoted() -> None:
    class Freed:
        def __dlpack_device__(self) -> tuple[int, int]:
            return (2, 0)

        def __dlpack__(self, **_: Any) -> Any:
            raise BufferError("its memory was given back")

    with pytest.raises(bk.InvalidArgument, match=r"A: does not give its memory: .*was given back"):
        bk.svd(Freed())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"strides": (12, 8)}, "stride of 12 bytes"),
        ({"strides": (8,)}, "fewer strides"),
        ({"strides": (8, 24, 8)}, "stride"),
        ({"strides": (-24, 8)}, "neither a row- nor a column-major"),
        ({"strides": (0, 8)}, "neither a row- nor a column-major"),
        ({"strides": (48, 16)}, "neither a row- nor a column-major"),
        ({"typestr": "<c16"}, "'<c16' are not supported"),
        ({"typestr": ">f8"}, "'>f8' are not supported"),
        ({"mask": object()}, "masked array"),
        ({"data": (0, False)}, "no CUDA device"),
        ({"shape": "ab"}, "does not give its memory"),
    ],
)
def test_impossible_interfaces_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(bk.InvalidArgument, match=f"A: .*{words}"):
        bk.svd(Interface(DeviceArray.from_host(np.eye(3)), **changes))


def test_host_memory_in_a_device_s_clothes_is_refused() -> None:
    host = np.eye(3)
    fake = Interface(DeviceArray.from_host(host), data=(host.ctypes.data, False))
    with pytest.raises(bk.InvalidArgument, match=r"A: .*no CUDA device"):
        bk.svd(fake)


def test_read_only_arrays_are_fine(rng: np.random.Generator) -> None:
    A = rng.normal(size=(4, 3))
    array = DeviceArray.from_host(A)
    address = array.__cuda_array_interface__["data"][0]
    s = bk.singular_values(Interface(array, data=(address, True)))
    assert s == pytest.approx(np.linalg.svd(A, compute_uv=False))


def test_unsupported_types_are_refused(library: Library) -> None:
    if library.name in ("torch", "cupy"):  # they convert integers themselves, on the device
        s = bk.singular_values(library.array(np.diag([2, 1])))
        assert library.host(s).tolist() == [2, 1]
        return
    with pytest.raises(bk.InvalidArgument, match="A: expected float32 or float64, got int64"):
        bk.svd(library.array(np.eye(2, dtype=np.int64)))


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "cpu", 0, "CUDA:0"])
def test_words_that_are_no_device(device: Any) -> None:
    with pytest.raises(bk.InvalidArgument, match="device: expected 'cuda'"):
        bk.Autocorrelation(2, device=device)


def test_devices_that_are_not_there() -> None:
    with pytest.raises(bk.InvalidArgument, match="device"):
        bk.Autocorrelation(2, device="cuda:99")
    with pytest.raises(bk.InvalidArgument, match="device"):
        DeviceArray.from_host(np.eye(2), 99)


def test_memory_does_not_grow(library: Library, rng: np.random.Generator) -> None:
    W, X = rng.normal(size=(12, 8)), rng.normal(size=(64, 8))

    def work() -> None:
        w, x = library.array(W), library.array(X)
        bk.descramble(w, inputs=x)
        bk.svd(w)
        with pytest.raises(bk.NonFinite):
            bk.svd(library.array([[np.nan, 1.0]]))
        acc = bk.Autocorrelation(8, device="cuda:0")
        acc.update(X)
        acc.matrix().__dlpack__()  # never consumed

    for _ in range(3):  # handles and pools are made once
        work()
    _core.cuda_synchronize(0)
    before = _core.cuda_device_info(0)["free_memory"]
    for _ in range(40):
        work()
    _core.cuda_synchronize(0)
    assert _core.cuda_device_info(0)["free_memory"] >= before
