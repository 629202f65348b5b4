"""Autocorrelations of patches against the patches themselves: NumPy's sliding windows and PyTorch's unfold."""

from __future__ import annotations

import copy
import math
import pickle
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import array_api_strict
import numpy as np
import pytest

import brockett as bk

torch = pytest.importorskip("torch")

CASES: dict[str, dict[str, Any]] = {
    "3 x 3": {"in_channels": 3, "kernel_size": 3, "padding": 1},
    "no padding": {"in_channels": 2, "kernel_size": (3, 2)},
    "same": {"in_channels": 2, "kernel_size": (4, 3), "padding": "same", "dilation": (1, 2)},
    "valid": {"in_channels": 2, "kernel_size": 2, "padding": "valid", "stride": (2, 3)},
    "stride 2": {"in_channels": 3, "kernel_size": 3, "stride": 2, "padding": 1},
    "7 x 7, stride 2": {"in_channels": 1, "kernel_size": 7, "stride": 2, "padding": 3},
    "dilation": {"in_channels": 2, "kernel_size": 3, "dilation": 2, "padding": 2},
    "pairs": {"in_channels": 2, "kernel_size": 3, "padding": ((0, 2), (3, 1))},
    "1 x 1": {"in_channels": 4, "kernel_size": 1},
    "depthwise": {"in_channels": 9, "kernel_size": 3, "groups": 9, "padding": 1},
    "groups": {"in_channels": 6, "kernel_size": (1, 3), "groups": 2, "stride": (1, 2)},
    "sequence": {"in_channels": 3, "kernel_size": (5,), "padding": 2, "stride": 2},
    "sequence, same": {"in_channels": 2, "kernel_size": (4,), "padding": "same", "dilation": 3},
}


def pairs(acc: bk.PatchAutocorrelation) -> list[tuple[int, int]]:
    return [(int(a), int(b)) for a, b in acc.padding]


def patches(acc: bk.PatchAutocorrelation, X: np.ndarray) -> np.ndarray:
    """(groups, patches, n) by NumPy alone."""
    mode = "wrap" if acc.padding_mode == "circular" else "constant"
    X = np.pad(np.asarray(X, dtype=np.float64), [(0, 0), (0, 0), *pairs(acc)], mode=mode)  # type: ignore[call-overload]
    spans = [d * (k - 1) + 1 for k, d in zip(acc.kernel_size, acc.dilation, strict=True)]
    axes = tuple(range(2, X.ndim))
    Z = np.lib.stride_tricks.sliding_window_view(X, spans, axis=axes)
    Z = Z[(slice(None),) * 2 + tuple(slice(None, None, s) for s in acc.stride)]
    Z = Z[(..., *(slice(None, None, d) for d in acc.dilation))]
    Z = np.moveaxis(Z, 1, len(axes) + 1)  # (images, windows…, channels, taps…)
    Z = Z.reshape(math.prod(Z.shape[: len(axes) + 1]), acc.groups, -1)
    return np.moveaxis(Z, 1, 0)


def moments(Z: np.ndarray, center: bool, w: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    w = np.ones(Z.shape[1]) if w is None else w
    mean = np.einsum("gpn,p->gn", Z, w) / w.sum()
    if center:
        Z = Z - mean[:, None, :]
    R = np.stack([(z * w[:, None]).T @ z / w.sum() for z in Z])
    return (R[0], mean[0]) if len(R) == 1 else (R, mean)


def shape_of(case: dict[str, Any], n: int, rng: np.random.Generator) -> tuple[int, ...]:
    size = (13,) if case["kernel_size"] in ((5,), (4,)) else (11, 9)
    return (n, case["in_channels"], *(s + int(rng.integers(3)) for s in size))


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize("name", CASES)
def test_equals_the_moments_of_the_patches(
    engine: str, rng: np.random.Generator, name: str, mode: str, center: bool
) -> None:
    case = CASES[name]
    acc = bk.PatchAutocorrelation(**case, padding_mode=mode, center=center)
    batches = [rng.normal(size=shape_of(case, n, rng)) + (7 if center else 0.2) for n in (2, 1, 3)]
    for X in batches:
        kept = X.copy()
        acc.update(X)
        assert np.array_equal(X, kept)
    Z = np.concatenate([patches(acc, X) for X in batches], axis=1)
    R, mean = moments(Z, center)
    assert acc.matrix().dtype == np.float64
    assert np.abs(acc.matrix() - R).max() <= 1e-12 * np.abs(R).max()
    assert np.abs(acc.mean() - mean).max() <= 1e-13 * max(1, np.abs(mean).max())
    assert (acc.n_samples, acc.weight, acc.n_features) == (Z.shape[1], Z.shape[1], Z.shape[2])


@pytest.mark.parametrize("name", [name for name in CASES if "same" not in name and name != "pairs"])
def test_equals_torch_unfold(engine: str, rng: np.random.Generator, name: str) -> None:
    case = dict(CASES[name])
    acc = bk.PatchAutocorrelation(**case)
    X = torch.from_numpy(rng.normal(size=shape_of(case, 2, rng)))
    acc.update(X)
    plane = X[:, :, None, :] if X.ndim == 3 else X
    one = [(1, *values) if len(values) == 1 else values for values in (acc.kernel_size, acc.stride, acc.dilation)]
    pad = [p for p, _ in pairs(acc)]
    U = torch.nn.functional.unfold(plane, one[0], one[2], [0, *pad] if len(pad) == 1 else pad, one[1])
    U = U.transpose(0, 1).reshape(acc.groups, acc.n_features, -1)
    R = (U @ U.transpose(1, 2) / U.shape[2]).squeeze(0)
    assert isinstance(acc.matrix(), torch.Tensor)
    assert float((acc.matrix() - R).abs().max()) <= 1e-12 * float(R.abs().max())


@pytest.mark.parametrize("size", [(2, 40, 24, 30), (6, 9, 40, 40), (3, 130, 9, 9)])
def test_larger_images(engine: str, rng: np.random.Generator, size: tuple[int, ...]) -> None:
    """Several stretches of columns, stacked lags, strips of the border."""
    for options in ({"padding": 1}, {"padding": 1, "stride": 2}):
        acc = bk.PatchAutocorrelation(size[1], 3, **options)  # type: ignore[arg-type]
        X = rng.normal(size=size).astype(np.float32)
        acc.update(X)
        R, mean = moments(patches(acc, X), False)
        assert np.abs(acc.matrix() - R).max() <= 1e-12 * np.abs(R).max()
        assert np.abs(acc.mean() - mean).max() <= 1e-13


@pytest.mark.parametrize(
    "case",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": (3, 5), "padding": (1, 2), "groups": 2, "center": True},
        {"kernel_size": (2, 5), "padding": ((0, 1), (3, 2)), "dilation": (2, 1), "weights": True},
        {"kernel_size": 7, "padding": 3, "stride": 2},
        {"kernel_size": 3, "padding": 1, "padding_mode": "circular"},
    ],
    ids=str,
)
def test_many_channels(engine: str, rng: np.random.Generator, case: dict[str, Any]) -> None:
    """Where many lags along the width are summed by way of the modes of the lines."""
    options = {name: value for name, value in case.items() if name != "weights"}
    acc = bk.PatchAutocorrelation(96, **options)
    X = rng.normal(size=(4, 96, 22, 25)) + 0.3
    weights = rng.uniform(0.5, 2, 4) if case.get("weights") else None
    acc.update(X, weights=weights)
    Z = patches(acc, X)
    R, mean = moments(Z, acc.center, None if weights is None else np.repeat(weights, Z.shape[1] // 4))
    assert np.abs(acc.matrix() - R).max() <= 1e-12 * np.abs(R).max()
    assert np.abs(acc.mean() - mean).max() <= 1e-12


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "int16"])
def test_element_types(engine: str, rng: np.random.Generator, dtype: str) -> None:
    X = torch.from_numpy(rng.integers(-8, 8, size=(2, 3, 6, 5)).astype(np.float64))
    acc = bk.PatchAutocorrelation(3, 3, padding=1)
    acc.update(X.to(getattr(torch, dtype)))
    R, _ = moments(patches(acc, X.numpy()), False)
    assert np.array_equal(np.asarray(acc.matrix()), R) or np.abs(np.asarray(acc.matrix()) - R).max() < 1e-14


def test_layouts(engine: str, rng: np.random.Generator) -> None:
    """Slices of images, channels last, one image, and lists."""
    X = rng.normal(size=(6, 5, 7, 3))
    want = bk.PatchAutocorrelation(3, 2)
    want.update(np.ascontiguousarray(X.transpose(0, 3, 1, 2)[::2]))
    for view in (X.transpose(0, 3, 1, 2)[::2], np.ascontiguousarray(X.transpose(0, 3, 1, 2))[::2]):
        acc = bk.PatchAutocorrelation(3, 2)
        acc.update(view)
        assert np.array_equal(acc.matrix(), want.matrix())
    one = bk.PatchAutocorrelation(3, 2)
    for image in X.transpose(0, 3, 1, 2)[::2]:
        one.update(image.tolist())
    assert np.abs(one.matrix() - want.matrix()).max() < 1e-14


def test_weights_and_masks(engine: str, rng: np.random.Generator) -> None:
    X = rng.normal(size=(5, 2, 6, 5))
    X[1, 0, 2, 3] = np.nan
    for center in (False, True):
        acc = bk.PatchAutocorrelation(2, 2, center=center)
        acc.update(X, weights=[0.5, 0, 3, 1, 4], mask=[True, True, True, False, True])
        acc.update(X[2:], weights=[2, 1, 0.25])
        own = np.array([0.5, 3, 4, 2, 1, 0.25])
        Z = patches(acc, X[[0, 2, 4, 2, 3, 4]])
        R, mean = moments(Z, center, np.repeat(own, Z.shape[1] // 6))
        assert np.abs(acc.matrix() - R).max() < 1e-13
        assert np.abs(acc.mean() - mean).max() < 1e-13
        assert (acc.n_samples, acc.weight) == (120, 20 * own.sum())


def test_centring_does_not_cancel(engine: str, rng: np.random.Generator) -> None:
    X = 1e6 + rng.normal(size=(3, 2, 12, 12))
    acc = bk.PatchAutocorrelation(2, 3, center=True)
    acc.update(X[:1])
    acc.update(X[1:])
    R, _ = moments(patches(acc, X), True)
    assert np.abs(acc.matrix() - R).max() < 1e-9  # 1e-16 · 1e6² would be 1e-4


def test_variances_that_are_nothing_but_rounding(engine: str, rng: np.random.Generator, tmp_path: Path) -> None:
    for constant in rng.normal(size=12):
        acc = bk.PatchAutocorrelation(2, 3, center=True)
        for _ in range(2):
            X = rng.normal(size=(3, 2, 7, 9))
            X[:, 1] = constant
            acc.update(X, weights=rng.uniform(0.5, 2, 3))
        R = acc.matrix()
        assert np.diag(R).min() >= 0
        acc.save(tmp_path / "r.npz")
        np.testing.assert_allclose(bk.PatchAutocorrelation.load(tmp_path / "r.npz").matrix(), R, rtol=1e-15, atol=1e-40)
        np.testing.assert_allclose(acc.group(0).matrix(), R, rtol=1e-15, atol=1e-40)


def test_channels_that_are_large_at_the_border_alone(engine: str, rng: np.random.Generator, tmp_path: Path) -> None:
    """Products by modes of the lines have the rounding of whole lines."""
    acc = bk.PatchAutocorrelation(96, (1, 9))
    X = rng.normal(size=(4, 96, 24, 32))  # of which tap 4 reads all but 4 columns on either side
    X[:, ::2, :, 4:-4] *= 1e-19
    acc.update(X)
    assert np.diag(acc.matrix()).min() >= 0
    acc.save(tmp_path / "r.npz")
    assert bk.PatchAutocorrelation.load(tmp_path / "r.npz").n_samples == acc.n_samples


def test_merge_pickle_copy_and_save(engine: str, rng: np.random.Generator, tmp_path: Path) -> None:
    for options in ({"groups": 2, "center": True}, {"stride": 2, "padding": (1, 0), "padding_mode": "circular"}):
        a = bk.PatchAutocorrelation(4, (3, 2), **options)  # type: ignore[arg-type]
        b = copy.deepcopy(a)
        X, Y = rng.normal(size=(2, 4, 6, 7)) + 1, rng.normal(size=(3, 4, 5, 5)) - 2
        a.update(X)
        b.update(Y)
        c = pickle.loads(pickle.dumps(a))
        c.merge(b)
        a.save(tmp_path / "a.npz")
        d = bk.PatchAutocorrelation.load(tmp_path / "a.npz")
        assert repr(d) == repr(a)
        d.merge(b)
        a.update(Y)
        R, mean = moments(np.concatenate([patches(a, X), patches(a, Y)], axis=1), a.center)
        for acc in (a, c, d):
            assert np.abs(acc.matrix() - R).max() < 1e-13 * np.abs(R).max()
            assert np.abs(acc.mean() - mean).max() < 1e-13
            assert acc.n_samples == a.n_samples
    empty = bk.PatchAutocorrelation(2, (3,), padding="same")
    empty.save(tmp_path / "empty.npz")
    assert repr(bk.PatchAutocorrelation.load(tmp_path / "empty.npz")) == repr(empty)
    with pytest.raises(bk.FileFormatError):
        bk.Autocorrelation.load(tmp_path / "empty.npz")
    other = bk.PatchAutocorrelation(2, (3,), padding=0)
    with pytest.raises(bk.InvalidArgument, match="padding"):
        empty.merge(other)
    with pytest.raises(bk.InvalidType, match="PatchAutocorrelation"):
        empty.merge(bk.Autocorrelation(6))
    with pytest.raises(bk.InvalidType, match="an Autocorrelation"):
        bk.Autocorrelation(6).merge(empty)


def test_engines_take_over_from_each_other(rng: np.random.Generator) -> None:
    X, Y = rng.normal(size=(2, 3, 5, 6)), rng.normal(size=(1, 3, 6, 4))
    results = []
    for first, second in (("cpu", "numpy"), ("numpy", "cpu")):
        bk.set_engine(first)
        a = bk.PatchAutocorrelation(3, 3, padding=1, center=True)
        a.update(X)
        bk.set_engine(second)
        b = bk.PatchAutocorrelation(3, 3, padding=1, center=True)
        b.update(Y)
        a.merge(b)
        results.append(a.matrix())
    assert np.abs(results[0] - results[1]).max() < 1e-14 * 100


@pytest.mark.parametrize("place", ["cpu", "device1"])
def test_array_api(rng: np.random.Generator, place: str) -> None:
    device = array_api_strict.Device("device1") if place == "device1" else None
    X = rng.normal(size=(2, 4, 6, 5))
    for options in ({}, {"groups": 2, "center": True}, {"stride": 2, "padding_mode": "circular"}):
        acc = bk.PatchAutocorrelation(4, 3, padding=1, **options)  # type: ignore[arg-type]
        acc.update(array_api_strict.asarray(X, device=device), weights=[1.0, 2.0])
        R = acc.matrix()
        assert isinstance(R, array_api_strict._array_object.Array)
        assert device is None or R.device == device
        Z = patches(acc, X)
        want, _ = moments(Z, acc.center, np.repeat([1.0, 2.0], Z.shape[1] // 2))
        host = np.asarray(R.to_device(array_api_strict.Device("CPU_DEVICE")))
        assert np.abs(host - want).max() < 1e-13 * np.abs(want).max()
        group = acc.group(0).matrix().to_device(array_api_strict.Device("CPU_DEVICE"))
        assert np.abs(np.asarray(group) - (want if acc.groups == 1 else want[0])).max() < 1e-13 * np.abs(want).max()


# --- where an Autocorrelation goes ------------------------------------------------------------------------------------


def test_descrambles_a_convolution(engine: str, rng: np.random.Generator) -> None:
    """The descrambler of a layer from its patches is the one from its pre-activations."""
    conv = torch.nn.Conv2d(3, 8, 3, padding=1).double()
    X = torch.from_numpy(np.cumsum(rng.normal(size=(4, 3, 7, 6)), axis=2))
    for center in (False, True):
        acc = bk.PatchAutocorrelation(3, 3, padding=1)
        acc.update(X)
        with torch.no_grad():
            Y = conv(X).permute(0, 2, 3, 1).reshape(-1, 8).numpy()
        found = bk.descramble(conv.weight, autocorrelation=acc, bias=conv.bias, center=center)
        want = bk.descramble(preactivations=Y, center=center)
        assert found.optimum == pytest.approx(want.optimum, rel=1e-10)
        assert found.cost == pytest.approx(want.optimum, rel=1e-8)
        assert found.weights.shape == conv.weight.shape
        assert found.used["n_samples"] == len(Y)


def test_whitens_a_convolution(engine: str, rng: np.random.Generator) -> None:
    K, X = rng.normal(size=(5, 2, 2, 2)), rng.normal(size=(3, 2, 6, 5))
    acc = bk.PatchAutocorrelation(2, 2)
    acc.update(X)
    Z = patches(acc, X)[0]
    s = np.linalg.svd(Z @ K.reshape(5, -1).T / np.sqrt(len(Z)), compute_uv=False)
    assert np.abs(bk.whitened_svd(K, acc).s - s).max() < 1e-12 * s[0]


def test_groups_are_descrambled_one_by_one(engine: str, rng: np.random.Generator) -> None:
    conv = torch.nn.Conv2d(4, 6, 2, groups=2).double()
    X = torch.from_numpy(rng.normal(size=(2, 4, 6, 5)))
    acc = bk.PatchAutocorrelation(4, 2, groups=2)
    acc.update(X)
    with pytest.raises(bk.InvalidArgument, match="group"):
        bk.descramble(conv.weight, autocorrelation=acc)
    with torch.no_grad():
        Y = conv(X).permute(0, 2, 3, 1).reshape(-1, 6)[:, 3:].numpy()
    part = bk.descramble(conv.weight[3:], autocorrelation=acc.group(1), bias=conv.bias[3:])
    assert part.optimum == pytest.approx(bk.descramble(preactivations=Y).optimum, rel=1e-10)
    for bad in (-1, 2):
        with pytest.raises(bk.InvalidArgument, match="index"):
            acc.group(bad)


def test_collect_takes_convolutions(engine: str, rng: np.random.Generator) -> None:
    layers = torch.nn.Sequential(
        torch.nn.Conv2d(2, 6, 3, padding="same"),
        torch.nn.ReLU(),
        torch.nn.Conv2d(6, 6, 3, stride=2, groups=6, padding=1, padding_mode="reflect"),
        torch.nn.Conv2d(6, 4, (2, 1), dilation=(2, 1), padding=(1, 0), padding_mode="circular", bias=False),
        torch.nn.Flatten(2),
        torch.nn.Conv1d(4, 3, 5, padding=2, padding_mode="replicate"),
        torch.nn.Flatten(),
        torch.nn.Linear(3 * 20, 2),
    ).double()
    batches = [torch.from_numpy(rng.normal(size=(n, 2, 9, 8))) for n in (2, 3)]
    found = bk.collect(layers, batches, progress=False)
    assert list(found) == ["0", "2", "3", "5", "7"]
    assert [type(acc).__name__ for acc in found.values()] == ["PatchAutocorrelation"] * 4 + ["Autocorrelation"]
    seen: dict[str, list[Any]] = {name: [] for name in found}
    for name in found:
        module = layers.get_submodule(name)
        module.register_forward_hook(lambda _m, _i, out, name=name: seen[name].append(out))
    with torch.no_grad():
        for batch in batches:
            layers(batch)
    for name, acc in found.items():
        layer = layers.get_submodule(name)
        outputs = [y.movedim(1, -1).reshape(-1, y.shape[1]).numpy() for y in seen[name]]
        Y = np.concatenate(outputs)
        assert acc.n_samples == len(Y)
        groups = getattr(layer, "groups", 1)
        size = Y.shape[1] // groups
        for g in range(groups):
            W = layer.weight.detach().numpy().reshape(Y.shape[1], -1)[g * size : (g + 1) * size]
            part = acc.group(g) if isinstance(acc, bk.PatchAutocorrelation) else acc
            own = Y[:, g * size : (g + 1) * size]
            own = own - (0 if layer.bias is None else layer.bias.detach().numpy()[g * size : (g + 1) * size])
            C = np.asarray(W @ np.asarray(part.matrix()) @ W.T)
            assert np.abs(C - own.T @ own / len(Y)).max() <= 1e-12 * max(np.abs(C).max(), 1e-3)
    with pytest.raises(bk.Unsupported, match="qr"):
        bk.collect(layers, batches, method="qr", progress=False)
    assert list(bk.collect(layers, batches, ["7"], method="qr", progress=False)) == ["7"]


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("in_channels", {"in_channels": 0}),
        ("kernel_size", {"kernel_size": 0}),
        ("kernel_size", {"kernel_size": (3, 3, 3)}),
        ("kernel_size", {"kernel_size": 2.5}),
        ("stride", {"stride": 0}),
        ("stride", {"stride": (1, 2, 3)}),
        ("dilation", {"dilation": -1}),
        ("padding", {"padding": -1}),
        ("padding", {"padding": ((0, -1), (0, 0))}),
        ("padding", {"padding": ((0, 1),)}),
        ("padding", {"padding": "full"}),
        ("padding", {"padding": "same", "stride": 2}),
        ("groups", {"groups": 3}),
        ("groups", {"groups": 0}),
        ("padding_mode", {"padding_mode": "reflect"}),
        ("center", {"center": 1.5}),
    ],
)
def test_parameters_that_make_no_sense(argument: str, options: dict[str, Any]) -> None:
    with pytest.raises(bk.InvalidArgument) as caught:
        bk.PatchAutocorrelation(**{"in_channels": 4, "kernel_size": 3, **options})
    assert caught.value.argument == argument


def test_bad_images_are_named_and_change_nothing(engine: str, rng: np.random.Generator) -> None:
    acc = bk.PatchAutocorrelation(2, 3, center=True)
    X = rng.normal(size=(3, 2, 5, 4))
    acc.update(X)
    before = acc._state()
    assert before is not None

    def refused(value: Any, **options: Any) -> bk.InvalidArgument:
        with pytest.raises(bk.InvalidArgument) as caught:
            acc.update(value, **options)
        return caught.value

    for index in ((0, 0, 0, 0), (2, 1, 3, 2)):
        for bad in (np.nan, np.inf, -np.inf):
            broken = X.copy()
            broken[index] = bad
            error = refused(broken)
            assert isinstance(error, bk.NonFinite)
            assert (error.argument, error.index) == ("X", index)
    assert refused(X[:, :1]).argument == "X"
    assert refused(X[0, 0]).argument == "X"
    assert refused(X[:, :, :, :0]).argument == "X"
    assert "width" in str(refused(X[..., :2]))
    assert "height" in str(refused(X[..., :2, :]))
    assert isinstance(refused(X + 0j), bk.InvalidType)
    assert refused(X * 1e160).argument == "X"
    assert refused(X, weights=[1, 2]).argument == "weights"
    assert refused(X, weights=[1, 2, -1]).argument == "weights"
    assert refused(X, mask=[1.5, 0, 1]).argument == "mask"
    acc.update(X[:0])
    after = acc._state()
    assert after is not None
    assert all(np.array_equal(before[name], after[name]) for name in before)
    with pytest.raises(bk.InvalidArgument, match="holds no samples"):
        bk.PatchAutocorrelation(1, 1).matrix()
    with pytest.raises(bk.InvalidArgument, match="qr"):
        acc.factor()


def impossible(good: dict[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """Fields that were edited to what no images can have left."""
    moment = good["moment"]
    skew, large, outside = moment.copy(), moment.copy(), good["mean"].copy()
    skew[0, 0, 1] += 0.1 * moment.max()
    large[0, 1, 2] = large[0, 2, 1] = 2 * moment.max()
    outside[0, 2] = 100 * np.sqrt(moment.max())
    yield from (("moment", skew), ("moment", large), ("mean", outside))
    yield from (("n_samples", np.array(0)), ("weight", np.array(0.0)), ("n_samples", np.array(2.5)))
    yield from (("kernel", np.array([2, 3])), ("kernel", np.array([2])), ("kernel", np.array([2.5, 2.0])))
    yield from (("stride", np.array([0, 1])), ("dilation", np.array([1, -1])), ("padding", np.array([0, 0, -1, 0])))
    yield from (("in_channels", np.array(0)), ("groups", np.array([1, 1])), ("circular", np.array(3)))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kernel", [2, 3]),
        ("stride", [2, 1]),
        ("dilation", [2, 1]),
        ("padding", [1, 0, 0, 0]),
        ("padding", [0, 1, 0, 0]),
    ],
)
def test_sequences_have_no_height(tmp_path: Path, field: str, value: list[int]) -> None:
    acc = bk.PatchAutocorrelation(2, (3,))
    acc.update(np.arange(10.0).reshape(1, 2, 5))
    acc.save(tmp_path / "r.npz")
    good = dict(np.load(tmp_path / "r.npz"))
    np.savez(tmp_path / "r.npz", **{**good, field: np.array(value)})
    with pytest.raises(bk.FileFormatError, match="no height"):
        bk.PatchAutocorrelation.load(tmp_path / "r.npz")


def test_damaged_files(tmp_path: Path, rng: np.random.Generator) -> None:
    acc = bk.PatchAutocorrelation(1, 2)
    acc.update(rng.normal(size=(1, 1, 3, 3)))
    path = tmp_path / "r.npz"
    acc.save(path)
    good = dict(np.load(path))
    for name, value in (
        ("moment", good["moment"] * np.nan),
        ("moment", -good["moment"]),
        ("moment", good["moment"][:, :3]),
        ("padding", np.zeros(3, dtype=int)),
        ("groups", np.array(2)),
        ("n_samples", np.array(-1)),
        ("weight", np.array(np.inf)),
        ("axes", np.array(3)),
        ("format", np.array("other/1")),
        *impossible(good),
    ):
        np.savez(path, **{**good, name: value})
        with pytest.raises(bk.FileFormatError, match=r"r\.npz: is not a patch accumulator"):
            bk.PatchAutocorrelation.load(path)
    path.write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(bk.FileFormatError):
        bk.PatchAutocorrelation.load(path)


def test_memory_does_not_grow_with_the_kernel(rng: np.random.Generator) -> None:
    """In the fallback, where NumPy's allocations can be watched: no patches are formed."""
    bk.set_engine("numpy")
    X = rng.normal(size=(1, 1, 192, 192))
    peaks = []
    for k in (3, 6):
        acc = bk.PatchAutocorrelation(1, k, padding="same")
        tracemalloc.start()
        acc.update(X)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]
    assert peaks[0] < 12 * X.nbytes
