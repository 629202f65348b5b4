"""Spectra of convolutions against dense operators, and NumPy's FFT and SVD."""

from __future__ import annotations

import itertools
import math
from typing import Any

import array_api_strict
import numpy as np
import pytest
import scipy.linalg

import brockett as bk
from brockett import convolution


def dense(K: np.ndarray, grid: tuple[int, ...], stride: tuple[int, ...], groups: int = 1) -> np.ndarray:
    """The convolution as a matrix, tap by tap."""
    out, width = K.shape[:2]
    small = tuple(n // s for n, s in zip(grid, stride, strict=True))
    A = np.zeros((out, *small, width * groups, *grid))
    for o, c in itertools.product(range(out), range(width)):
        for tap in np.ndindex(*K.shape[2:]):
            for at in np.ndindex(*small):
                read = tuple((i * s + t) % n for i, s, t, n in zip(at, stride, tap, grid, strict=True))
                A[(o, *at, o // (out // groups) * width + c, *read)] += K[(o, c, *tap)]
    return A.reshape(out * math.prod(small), -1)


CASES: list[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], int]] = [
    ((3, 4, 3, 3), (5, 4), (1, 1), 1),
    ((5, 2, 2, 3), (4, 6), (1, 1), 1),
    ((2, 3, 4, 5), (3, 3), (1, 1), 1),  # kernel larger than the grid
    ((2, 2, 7, 1), (3, 4), (1, 1), 1),
    ((3, 3, 5), (6,), (1,), 1),
    ((2, 1, 9), (4,), (2,), 1),
    ((4, 2, 3, 3), (6, 4), (2, 2), 1),
    ((3, 2, 2, 2), (6, 6), (3, 2), 1),
    ((6, 2, 3, 3), (4, 5), (1, 1), 3),
    ((4, 1, 3, 3), (4, 4), (2, 2), 4),
    ((10, 12, 2, 2), (4, 4), (1, 1), 1),
    ((3, 2, 1, 1), (1, 1), (1, 1), 1),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_values_of_the_dense_operator(engine: str, rng: np.random.Generator, case: Any) -> None:
    shape, grid, stride, groups = case
    K = rng.normal(size=shape)
    kept = K.copy()
    want = scipy.linalg.svdvals(dense(K, grid, stride, groups))
    found = convolution.operator_singular_values(K, grid, stride=stride, groups=groups)
    assert found.shape == want.shape
    assert np.abs(found - want).max() < 5e-8 * want[0]
    large = want > 1e-3 * want[0]
    assert np.abs(found - want)[large].max() < 1e-12 * want[0]
    assert np.array_equal(K, kept)
    for top in (1, 5, 10**6):
        largest = convolution.operator_singular_values(K, grid, top, stride=stride, groups=groups)
        assert largest.shape == (min(top, len(want)),)
        assert np.abs(largest - found[:top]).max() < 1e-12 * want[0]


@pytest.mark.parametrize("shape", [(16, 16, 3, 3), (24, 12, 5, 5)])
def test_equals_fft_and_svd(engine: str, rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    """The published algorithm (Sedghi et al.), on float32 weights."""
    K = rng.normal(size=shape).astype(np.float32)
    for grid in ((12, 12), (9, 10)):
        H = np.fft.fft2(K.astype(np.float64), grid, axes=(2, 3)).transpose(2, 3, 0, 1)
        want = np.sort(np.linalg.svd(H, compute_uv=False).ravel())[::-1]
        found = convolution.operator_singular_values(K, grid)
        large = want > 1e-3 * want[0]
        assert np.abs(found - want)[large].max() < 1e-11 * want[0]
        assert np.abs(found - want).max() < 5e-8 * want[0]
        assert np.abs(convolution.operator_singular_values(K, grid, 7) - want[:7]).max() < 1e-12 * want[0]


def test_by_hand(engine: str) -> None:
    difference = np.array([[[1.0, -1.0]]])
    s = convolution.operator_singular_values(difference, 4)
    assert np.allclose(s, [2, math.sqrt(2), math.sqrt(2), 0], atol=1e-14)
    # both taps fall on one place
    assert convolution.operator_singular_values(difference, 1).tolist() == [0]
    assert tuple(convolution.norm_bounds(difference, 1)) == (0, 0)
    # a shift is an isometry
    shift = np.zeros((1, 1, 3, 3))
    shift[0, 0, 2, 1] = -3
    assert np.allclose(convolution.operator_singular_values(shift, (5, 4)), 3, rtol=1e-14)
    # equal values everywhere: multiplicities are counted in the largest, too
    eye = np.eye(12).reshape(12, 12, 1, 1)
    assert np.allclose(convolution.operator_singular_values(eye, 3, 20), np.ones(20), rtol=1e-12)
    assert (convolution.operator_singular_values(np.zeros((2, 3, 2, 2)), 4) == 0).all()


def test_bounds_hold(engine: str, rng: np.random.Generator) -> None:
    for shape, grid in (((3, 4, 3, 3), (7, 8)), ((4, 3, 3, 3), (3, 3)), ((3, 3, 5, 4), (3, 2)), ((2, 2, 6), (4,))):
        K = rng.normal(size=shape)
        norm = scipy.linalg.norm(dense(K, grid, (1,) * len(grid)), 2)
        lower, upper = convolution.norm_bounds(K, grid)
        assert lower * (1 - 1e-12) <= norm <= upper * (1 + 1e-12)
        if all(k <= n for k, n in zip(shape[2:], grid, strict=True)):
            unfolded = np.linalg.norm(K.reshape(shape[0], -1), 2)
            assert (lower, upper) == pytest.approx((unfolded, math.sqrt(math.prod(shape[2:])) * unfolded))
            assert convolution.norm_bounds(K) == convolution.norm_bounds(K, grid)
    K = rng.normal(size=(6, 2, 3, 3))
    K[4] *= 10
    lower, upper = convolution.norm_bounds(K, 5, groups=3)
    assert lower == pytest.approx(np.linalg.norm(K[4:].reshape(2, -1), 2))
    assert lower <= convolution.operator_singular_values(K, 5, 1, groups=3)[0] <= upper


def test_channel_gram(engine: str, rng: np.random.Generator) -> None:
    K = rng.normal(size=(5, 3, 3, 2))
    G = convolution.channel_gram(K)
    W = K.reshape(5, -1)
    assert np.abs(G - W @ W.T).max() < 1e-13
    assert np.array_equal(G, G.T)
    # the mean over the frequencies of a grid
    H = np.fft.fft2(K, (6, 7), axes=(2, 3)).transpose(2, 3, 0, 1)
    mean = (H @ H.conj().swapaxes(-1, -2)).mean(axis=(0, 1))
    assert np.abs(mean - G).max() < 1e-12


def test_unfolded_svd(engine: str, rng: np.random.Generator) -> None:
    K = rng.normal(size=(6, 3, 3, 2))
    modes = convolution.unfolded_svd(K)
    W = K.reshape(6, -1)
    assert np.allclose(modes.s, scipy.linalg.svdvals(W), rtol=1e-12)
    U, s, Vt = modes
    assert np.abs(U @ np.diag(s) @ Vt - W).max() < 1e-12
    assert modes.filters.shape == (6, 3, 3, 2)
    assert np.array_equal(modes.filters.reshape(6, -1), Vt)
    # the projection of the outputs is the convolution with the filters, times the singular values
    X = rng.normal(size=(2, 3, 6, 5))
    patches = np.lib.stride_tricks.sliding_window_view(X, (3, 2), axis=(2, 3))
    Y = np.einsum("nchwij,ocij->nohw", patches, K)
    Z = np.einsum("nchwij,ocij->nohw", patches, modes.filters) * s[:, None, None]
    assert np.abs(modes.project(Y) - Z).max() < 1e-11
    assert np.abs(modes.project(Y[0]) - Z[0]).max() < 1e-11
    few = convolution.unfolded_svd(K, rank=2)
    assert few.rank == 2
    assert few.filters.shape == (2, 3, 3, 2)
    assert few.project(Y).shape == (2, 2, 4, 4)
    sequence = convolution.unfolded_svd(rng.normal(size=(4, 2, 5)).astype(np.float32), rank=3)
    assert sequence.filters.dtype == np.float32
    assert sequence.project(rng.normal(size=(2, 4, 9))).shape == (2, 3, 9)
    for bad in (Y[:, :5], Y[..., 0, 0], Y[None]):
        with pytest.raises(bk.InvalidArgument, match="Y"):
            modes.project(bad)


def test_torch(engine: str) -> None:
    torch = pytest.importorskip("torch")
    conv = torch.nn.Conv2d(4, 6, 3)
    K = conv.weight.detach().numpy()
    s = convolution.operator_singular_values(conv.weight, (8, 8), 3)
    assert isinstance(s, torch.Tensor)
    assert np.allclose(s.numpy(), convolution.operator_singular_values(K, (8, 8), 3), rtol=1e-12)
    assert isinstance(convolution.channel_gram(conv.weight), torch.Tensor)
    modes = convolution.unfolded_svd(conv.weight.bfloat16(), rank=2)
    assert modes.filters.dtype == torch.float32
    with torch.no_grad():
        assert modes.project(conv(torch.randn(2, 4, 5, 5))).shape == (2, 2, 3, 3)
    with pytest.raises(bk.InvalidType, match="Y"):
        modes.project(np.zeros((1, 6, 2, 2)))


@pytest.mark.parametrize("place", ["cpu", "device1"])
def test_array_api(rng: np.random.Generator, place: str) -> None:
    device = array_api_strict.Device("device1") if place == "device1" else None
    cpu = array_api_strict.Device("CPU_DEVICE")

    def put(array: np.ndarray) -> Any:
        return array_api_strict.asarray(array, device=device)

    def get(array: Any) -> np.ndarray:
        assert device is None or array.device == device
        return np.asarray(array.to_device(cpu))

    K = rng.normal(size=(4, 2, 3, 3))
    for options in ({"input_shape": 4}, {"input_shape": (2, 6), "stride": (1, 2)}, {"input_shape": 5, "groups": 2}):
        want = convolution.operator_singular_values(K, **options)
        assert np.abs(get(convolution.operator_singular_values(put(K), **options)) - want).max() < 5e-8 * want[0]
    assert np.abs(get(convolution.channel_gram(put(K))) - convolution.channel_gram(K)).max() < 1e-13
    for grid in (None, 5, (2, 2)):
        assert tuple(convolution.norm_bounds(put(K), grid)) == pytest.approx(tuple(convolution.norm_bounds(K, grid)))
    modes = convolution.unfolded_svd(put(K), rank=2)
    Y = rng.normal(size=(2, 4, 3, 3))
    assert get(modes.filters).shape == (2, 2, 3, 3)
    assert np.abs(get(modes.project(put(Y))) - np.einsum("or,nohw->nrhw", get(modes.U), Y)).max() < 1e-13


def test_magnitudes(engine: str, rng: np.random.Generator) -> None:
    K = rng.normal(size=(3, 2, 2, 2))
    s = convolution.operator_singular_values(K, 4)
    for scale in (2.0**-900, 2.0**900):
        assert np.allclose(convolution.operator_singular_values(K * scale, 4) / scale, s, rtol=1e-12, atol=1e-8 * s[0])


def test_batch_norm_is_folded(engine: str, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    for layer, bn, X in (
        (torch.nn.Conv2d(3, 5, 3), torch.nn.BatchNorm2d(5), torch.randn(4, 3, 6, 6)),
        (torch.nn.Conv1d(4, 6, 3, groups=2, bias=False), torch.nn.BatchNorm1d(6, affine=False), torch.randn(4, 4, 7)),
        (torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4, eps=0.1), torch.randn(8, 3)),
    ):
        layer, bn, X = layer.double(), bn.double(), X.double()
        with torch.no_grad():
            for _ in range(3):
                bn(3 * layer(X) + 1)
            for p in bn.parameters():
                p.uniform_(-2, 2)
            want = bn.eval()(layer(X))
            K, bias = convolution.fold_batch_norm(layer.weight, layer.bias, bn)
            assert isinstance(K, torch.Tensor)
            layer.weight.copy_(K)
            got = layer(X) + (bias - (0 if layer.bias is None else layer.bias)).reshape(-1, *[1] * (X.ndim - 2))
        assert float((got - want).abs().max()) < 1e-13
    with pytest.raises(bk.InvalidArgument, match="running_mean"):
        convolution.fold_batch_norm(layer.weight, None, torch.nn.BatchNorm1d(4, track_running_stats=False))
    good = {"running_mean": [0.0, 0], "running_var": [1.0, 2], "eps": 0.0}
    kernel = rng.normal(size=(2, 3, 1)).astype(np.float32)
    folded, shift = convolution.fold_batch_norm(kernel, bn=good)
    assert (folded.dtype, shift.tolist()) == (np.float32, [0, 0])
    assert np.allclose(folded[1], kernel[1] / math.sqrt(2), rtol=1e-7)
    for name, broken in (
        ("bn.running_var", {**good, "running_var": [1.0, 0]}),
        ("bn.running_var", {**good, "running_var": [1.0]}),
        ("bn.running_mean", {**good, "running_mean": [np.nan, 0]}),
        ("bn.weight", {**good, "weight": [1.0, np.inf]}),
        ("bn.eps", {**good, "eps": -1.0}),
        ("bn", None),
        ("bn", {}),
    ):
        with pytest.raises(bk.InvalidArgument) as caught:
            convolution.fold_batch_norm(kernel, bn=broken)
        assert caught.value.argument == name


def test_fully_connected_layers_are_kernels(engine: str, rng: np.random.Generator) -> None:
    W, X = rng.normal(size=(4, 24)), rng.normal(size=(2, 3, 2, 4))
    K = convolution.as_kernel(W, (3, 2, 4))
    assert np.abs(np.einsum("ochw,nchw->no", K, X) - X.reshape(2, -1) @ W.T).max() < 1e-13
    for argument, shape in (("W", (3, 2, 3)), ("input_shape", (24,)), ("input_shape", "3"), ("input_shape", (0, 2, 4))):
        with pytest.raises(bk.InvalidArgument) as caught:
            convolution.as_kernel(W, shape)
        assert caught.value.argument == argument


def test_bad_input_is_named(engine: str, rng: np.random.Generator) -> None:
    K = rng.normal(size=(4, 2, 3, 3))
    values = convolution.operator_singular_values
    tiny = {"running_mean": [0.0] * 4, "running_var": [1e-200] * 4, "eps": 0.0}
    assert convolution.norm_bounds(K * 1e300, 2).lower > 1e300  # larger than any square
    for index in ((0, 0, 0, 0), (3, 1, 2, 0)):
        broken = K.copy()
        broken[index] = np.nan
        for function in (
            lambda k: values(k, 4),
            lambda k: values(k, 4, 1),
            lambda k: convolution.norm_bounds(k, 2),
            convolution.norm_bounds,
            convolution.channel_gram,
            convolution.unfolded_svd,
            lambda k: convolution.fold_batch_norm(k, None, {"running_mean": [0] * 4, "running_var": [1] * 4}),
        ):
            with pytest.raises(bk.NonFinite) as caught:
                function(broken)
            assert (caught.value.argument, caught.value.index) == ("K", index)
    for argument, call in (
        ("K", lambda: values(K[0, 0], 4)),
        ("K", lambda: values(K[:, :0], 4)),
        ("K", lambda: values(K + 0j, 4)),
        ("K", lambda: convolution.unfolded_svd(K[0, 0])),
        ("input_shape", lambda: values(K, 0)),
        ("input_shape", lambda: values(K, (4, 4, 4))),
        ("input_shape", lambda: values(K, 4.0)),
        ("input_shape", lambda: convolution.norm_bounds(K, -1)),
        ("top", lambda: values(K, 4, 0)),
        ("stride", lambda: values(K, 4, stride=3)),
        ("stride", lambda: values(K, 4, stride=0)),
        ("groups", lambda: values(K, 4, groups=3)),
        ("groups", lambda: convolution.norm_bounds(K, groups=3)),
        ("K", lambda: convolution.channel_gram(K * 1e200)),
        ("Y", lambda: convolution.unfolded_svd(K).project(np.full((1, 4, 2, 2), np.nan))),
        ("bn", lambda: convolution.fold_batch_norm(K * 1e300, None, tiny)),
        ("bn", lambda: convolution.fold_batch_norm(K.astype(np.float32), None, tiny)),
    ):
        with pytest.raises(bk.InvalidArgument) as error:
            call()
        assert error.value.argument == argument
