"""The descrambler through the façade: sources, options, results, and what is refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.linalg

import brockett as bk
from brockett import penalty

Matrix = npt.NDArray[np.float64]


def cost(P: Any, C: Matrix, A: Matrix) -> float:
    """η(P) = tr(A P C Pᵀ), by the definition."""
    p = np.asarray(P, dtype=np.float64)
    return float(np.trace(A @ p @ C @ p.T))


def optimum(C: Matrix, A: Matrix) -> float:
    """Σ λᵢ(asc) σᵢ²(desc), by SciPy."""
    return float(scipy.linalg.eigvalsh(A) @ scipy.linalg.eigvalsh(C)[::-1])


class Layer:
    """A layer with correlated inputs, and C of its pre-activations in every variant."""

    def __init__(self, rng: np.random.Generator, n: int = 7, m: int = 9, n_samples: int = 400) -> None:
        self.W = rng.normal(size=(n, m))
        self.X = rng.normal(size=(n_samples, m)) @ rng.normal(size=(m, m)) + rng.normal(size=m)
        self.b = rng.normal(size=n)
        self.n, self.m = n, m

    def moments(self, bias: bool, center: bool) -> Matrix:
        Y = self.X @ self.W.T + (self.b if bias else 0)
        Y = Y - Y.mean(axis=0) if center else Y
        return Y.T @ Y / len(Y)

    def accumulator(self, **params: Any) -> bk.Autocorrelation:
        acc = bk.Autocorrelation(self.m, **params)
        for part in np.array_split(self.X, 5):
            acc.update(part)
        return acc


@pytest.fixture
def layer(rng: np.random.Generator) -> Layer:
    return Layer(rng)


def check(d: bk.Descrambling, C: Matrix, W: Any, A: Matrix, tolerance: float = 1e-9) -> None:
    P = np.asarray(d.P)
    np.testing.assert_allclose(P @ P.T, np.eye(len(P)), atol=1e-12)
    assert d.optimum == pytest.approx(optimum(C, A), rel=tolerance)
    assert d.cost == pytest.approx(cost(P, C, A), rel=tolerance)
    assert d.cost == pytest.approx(d.optimum, rel=tolerance)
    assert d.bound == d.optimum
    assert d.identity_cost == pytest.approx(float(np.trace(A @ C)), rel=tolerance)
    np.testing.assert_allclose(d.sigma, np.sqrt(scipy.linalg.eigvalsh(C)[::-1]), rtol=1e-7)
    if W is not None:
        np.testing.assert_allclose(d.weights, P @ np.asarray(W), atol=1e-12)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("center", [False, True])
def test_sources_with_samples(engine: str, layer: Layer, bias: bool, center: bool) -> None:
    A = penalty.FourierDerivative(2).matrix(layer.n)
    C = layer.moments(bias, center)
    keywords: dict[str, Any] = {"center": center, "bias": layer.b if bias else None}
    Y = layer.X @ layer.W.T + (layer.b if bias else 0)
    results = [bk.descramble(layer.W, inputs=layer.X, **keywords)]
    for params in ({}, {"center": True}, {"method": "qr"}, {"method": "qr", "center": True}):
        results.append(bk.descramble(layer.W, autocorrelation=layer.accumulator(**params), **keywords))
    results.append(bk.descramble(layer.W, preactivations=Y, center=center))
    results.append(bk.descramble(preactivations=Y, center=center))
    for d in results:
        check(d, C, layer.W if d.weights is not None else None, A)
        assert d.used["n_samples"] == 400
        assert d.used["center"] is center
        assert d.block_error.shape == (len(d.blocks) - 1,)
        np.testing.assert_allclose(d.P, results[0].P, atol=1e-6)
        np.testing.assert_allclose(d.block_error, results[0].block_error, rtol=0.7)
    assert results[-1].weights is None
    assert [d.used["source"] for d in results] == ["inputs", *["accumulator"] * 4, *["preactivations"] * 2]
    assert [d.used["error_model"] for d in results] == ["moments", *["gaussian"] * 4, *["moments"] * 2]
    assert results[3].used["method"] == "qr"
    assert results[1].used["precision"] == "double"


def test_bare_matrix_and_white_inputs(engine: str, layer: Layer) -> None:
    A = penalty.FourierDerivative(2).matrix(layer.n)
    R = layer.X.T @ layer.X / len(layer.X)
    d = bk.descramble(layer.W, autocorrelation=R)
    check(d, layer.W @ R @ layer.W.T, layer.W, A)
    assert d.block_error is None
    assert d.used["n_samples"] is None
    known = bk.descramble(layer.W, autocorrelation=R, n_samples=400)
    np.testing.assert_allclose(
        known.block_error, bk.descramble(layer.W, autocorrelation=layer.accumulator()).block_error, rtol=1e-6
    )
    assert known.used["n_samples"] == 400
    white = bk.descramble(layer.W)
    check(white, layer.W @ layer.W.T, layer.W, A)
    assert white.used["source"] == "isotropic"
    assert white.block_error is None
    biased = layer.W @ layer.W.T + np.outer(layer.b, layer.b)
    check(bk.descramble(layer.W, bias=layer.b), biased, layer.W, A)
    # The mean of white inputs is zero: centring leaves out the bias.
    check(bk.descramble(layer.W, bias=layer.b, center=True), layer.W @ layer.W.T, layer.W, A)


def test_stacked_sources_add_up(engine: str, layer: Layer, rng: np.random.Generator) -> None:
    A = penalty.FourierDerivative(2).matrix(layer.n)
    Y2, Y3 = rng.normal(size=(30, layer.n)), rng.normal(size=(2, 5, layer.n))
    C2, C3 = Y2.T @ Y2 / 30, Y3.reshape(-1, layer.n).T @ Y3.reshape(-1, layer.n) / 10
    stack = [(0.5, Y2), (2.0, Y3), (0.0, Y2)]
    d = bk.descramble(layer.W, inputs=layer.X, stack=stack)
    check(d, layer.moments(False, False) + 0.5 * C2 + 2 * C3, layer.W, A)
    assert d.block_error is None
    assert d.used["stack"] == [
        {"alpha": 0.5, "n_samples": 30},
        {"alpha": 2.0, "n_samples": 10},
        {"alpha": 0.0, "n_samples": 30},
    ]
    check(bk.descramble(layer.W, stack=((1, Y2) for _ in range(1))), layer.W @ layer.W.T + C2, layer.W, A)


def test_batch_axes_and_layouts_of_samples(engine: str, layer: Layer) -> None:
    expected = bk.descramble(layer.W, inputs=layer.X)
    for X in (
        layer.X.reshape(4, 100, layer.m),
        layer.X.reshape(2, 2, 100, layer.m),
        np.asfortranarray(layer.X),
        np.repeat(layer.X, 2, axis=1)[:, ::2],
    ):
        d = bk.descramble(np.asfortranarray(layer.W), inputs=X)
        assert d.cost == pytest.approx(expected.cost, rel=1e-12)
        np.testing.assert_allclose(d.P, expected.P, atol=1e-9)


@pytest.mark.parametrize(
    "kind",
    [
        penalty.FourierDerivative(1),
        penalty.FourierDerivative(1.5),
        penalty.FiniteDifference(2),
        penalty.FiniteDifference(1, "neumann"),
        penalty.Grid((7,), order=1),
        penalty.Custom(np.diag(np.arange(7.0)) - 2),
        penalty.GraphLaplacian(7 * np.eye(7) - np.ones((7, 7)), power=2),
    ],
    ids=repr,
)
def test_penalties(engine: str, kind: penalty.Penalty, layer: Layer) -> None:
    A, C = kind.matrix(layer.n), layer.moments(False, False)
    d = bk.descramble(layer.W, inputs=layer.X, penalty=kind)
    check(d, C, layer.W, A)
    assert d.used["penalty"] == repr(kind)
    values = kind.eigenvalues(layer.n)
    assert d.blocks[0] == 0
    assert d.blocks[-1] == layer.n
    for start, stop in zip(d.blocks[:-1], d.blocks[1:], strict=True):
        np.testing.assert_allclose(values[start:stop], values[start], rtol=1e-9, atol=1e-9)


def test_gauges(engine: str, layer: Layer, rng: np.random.Generator) -> None:
    results = {name: bk.descramble(layer.W, inputs=layer.X, gauge=name) for name in ("identity", "canonical")}
    P0 = np.linalg.qr(rng.normal(size=(layer.n, layer.n)))[0]
    results["given"] = bk.descramble(layer.W, inputs=layer.X, gauge=P0)
    for name, d in results.items():
        assert d.used["gauge"] == name
        assert d.cost == pytest.approx(d.optimum, rel=1e-9)
    distance = {name: np.linalg.norm(d.P - np.eye(layer.n)) for name, d in results.items()}
    assert distance["identity"] <= min(distance.values())
    given = {name: np.linalg.norm(d.P - P0) for name, d in results.items()}
    assert given["given"] <= min(given.values())
    assert results["canonical"].gauge_conditioning is None
    assert 0 <= results["identity"].gauge_conditioning <= 1
    # The gauge of a P already found returns that P.
    again = bk.descramble(layer.W, inputs=layer.X, gauge=results["canonical"].P)
    np.testing.assert_allclose(again.P, results["canonical"].P, atol=1e-8)
    np.testing.assert_allclose(
        bk.descramble(layer.W, inputs=layer.X, gauge=np.eye(layer.n, dtype=int)).P, results["identity"].P, atol=1e-12
    )


def test_special_orthogonal(engine: str, rng: np.random.Generator) -> None:
    for seed in range(6):
        layer = Layer(np.random.default_rng(seed))
        for gauge in ("identity", "canonical"):
            d = bk.descramble(layer.W, inputs=layer.X, group="special_orthogonal", gauge=gauge)
            assert np.linalg.det(d.P) == pytest.approx(1)
            assert d.cost == pytest.approx(optimum(layer.moments(False, False), penalty.FourierDerivative().matrix(7)))


def test_permutation(engine: str, rng: np.random.Generator) -> None:
    # Neurons on a ring, shuffled: the search has to find the ring again.
    n = 10
    angle = 2 * np.pi * np.arange(n) / n
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    W = ring[rng.permutation(n)]
    d = bk.descramble(W, group="permutation", seed=3)
    assert sorted(d.permutation.tolist()) == list(range(n))
    assert np.array_equal(np.asarray(d.P).argmax(axis=1), d.permutation)
    assert np.array_equal(d.weights, W[d.permutation])
    assert d.cost == pytest.approx(cost(np.eye(n), ring @ ring.T, penalty.FourierDerivative().matrix(n)))
    assert d.optimum is None
    assert d.bound <= d.cost * (1 + 1e-9)
    assert d.block_error is None
    assert d.gauge_conditioning is None
    assert d.used["gauge"] is None
    assert (d.used["seed"], d.used["starts"]) == (3, 8)
    again = bk.descramble(W, group="permutation", seed=3)
    assert np.array_equal(again.permutation, d.permutation)


def test_convolutions_are_unfolded_and_folded_back(engine: str, rng: np.random.Generator) -> None:
    K = rng.normal(size=(4, 3, 2, 2)).astype(np.float32)
    flat = bk.descramble(K.reshape(4, 12))
    d = bk.descramble(K)
    assert d.weights.shape == K.shape
    np.testing.assert_allclose(d.P, flat.P, atol=1e-6)
    np.testing.assert_allclose(d.weights.reshape(4, 12), flat.weights, atol=1e-6)
    R = rng.normal(size=(12, 12))
    assert bk.descramble(K, autocorrelation=(R @ R.T)).weights.shape == K.shape
    assert bk.diagonalize(K).weights.shape == K.shape
    torch = pytest.importorskip("torch")
    conv = torch.nn.Conv2d(3, 4, 2)
    d = bk.descramble(conv.weight, bias=conv.bias)
    assert d.weights.shape == conv.weight.shape
    assert d.weights.dtype == torch.float32


def test_rank_cut(engine: str, layer: Layer) -> None:
    full, cut = bk.descramble(layer.W, inputs=layer.X), bk.descramble(layer.W, inputs=layer.X, rank=2)
    assert cut.used["rank"] == 2
    assert cut.cost >= full.cost * (1 - 1e-12)
    # What carries the first two directions is the same subspace.
    T = penalty.FourierDerivative().basis(layer.n)
    one, two = (np.linalg.norm((T.T @ d.P)[0]) for d in (full, cut))
    assert one == pytest.approx(two)
    np.testing.assert_allclose(np.abs((T.T @ full.P)[0]), np.abs((T.T @ cut.P)[0]), atol=1e-7)


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("group", ["orthogonal", "special_orthogonal", "permutation"])
def test_small_layers(engine: str, n: int, group: str, rng: np.random.Generator) -> None:
    W, X = rng.normal(size=(n, 2)), rng.normal(size=(5, 2))
    d = bk.descramble(W, inputs=X, group=group)
    A = penalty.FourierDerivative().matrix(n)
    assert d.cost == pytest.approx(cost(d.P, W @ (X.T @ X / 5) @ W.T, A), abs=1e-12)
    assert d.cost <= d.identity_cost + 1e-9
    if n == 1 and group != "orthogonal":
        assert d.P.tolist() == [[1.0]]


def test_zero_data_gives_the_identity(engine: str) -> None:
    for keywords in ({"inputs": np.zeros((4, 3))}, {"autocorrelation": np.zeros((3, 3))}):
        d = bk.descramble(np.ones((5, 3)), **keywords)
        np.testing.assert_allclose(d.P, np.eye(5), atol=1e-14)
        assert (d.rank, d.cost, d.optimum, d.identity_cost) == (0, 0, 0, 0)
        assert not np.any(d.sigma)
    assert bk.descramble(np.zeros((3, 3))).rank == 0


def test_fewer_samples_than_neurons(engine: str, rng: np.random.Generator) -> None:
    Y = rng.normal(size=(3, 9))
    d = bk.descramble(preactivations=Y)
    assert d.rank == 3
    assert d.cost == pytest.approx(optimum(Y.T @ Y / 3, penalty.FourierDerivative().matrix(9)), rel=1e-9)
    np.testing.assert_allclose(d.P @ d.P.T, np.eye(9), atol=1e-12)


@pytest.mark.parametrize("scale", [1e-120, 1e-60, 1e60, 1e120])
def test_scales(engine: str, scale: float, layer: Layer) -> None:
    expected = bk.descramble(layer.W, inputs=layer.X)
    d = bk.descramble(layer.W, inputs=layer.X * scale)
    np.testing.assert_allclose(d.P, expected.P, atol=1e-8)
    assert d.cost / scale / scale == pytest.approx(expected.cost)
    np.testing.assert_allclose(np.asarray(d.sigma) / scale, expected.sigma, rtol=1e-9)


def test_scales_beyond_float64_are_refused_not_rounded(engine: str, layer: Layer) -> None:
    for scale in (1e-170, 1e170):
        with pytest.raises(bk.InvalidArgument, match="rescale") as caught:
            bk.descramble(layer.W, inputs=layer.X * scale)
        assert caught.value.argument == "inputs"
        with pytest.raises(bk.InvalidArgument, match="rescale") as caught:
            bk.descramble(preactivations=layer.X * scale)
        assert caught.value.argument == "preactivations"


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_costs_are_evaluated_from_the_p_returned(engine: str, dtype: Any, rng: np.random.Generator) -> None:
    # Smooth data: a float32 trace would be off by percents, and P itself is orthogonal to 1e-7 only.
    n = 64
    Y = np.cumsum(np.cumsum(rng.normal(size=(2000, n)), axis=1), axis=1).astype(dtype) / dtype(8)
    d = bk.descramble(preactivations=Y)
    assert d.P.dtype == np.float32
    wide = Y.astype(np.float64)
    QY = penalty.FourierDerivative().basis(n).T @ d.P.astype(np.float64) @ wide.T
    exact = float(penalty.FourierDerivative().eigenvalues(n) @ (QY**2).mean(axis=1))
    assert d.cost == pytest.approx(exact, rel=1e-9)
    assert d.cost != d.optimum


def test_single_precision_is_recorded_and_warned_about(engine: str, layer: Layer) -> None:
    acc = layer.accumulator(precision="single")
    with pytest.warns(bk.PrecisionWarning, match="precision='double'") as caught:
        d = bk.descramble(layer.W, autocorrelation=acc)
    assert Path(caught[0].filename).name == Path(__file__).name
    assert d.used["precision"] == "single"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bk.descramble(layer.W, autocorrelation=layer.accumulator())


def test_accumulators_of_one_engine_and_library_serve_the_others(layer: Layer) -> None:
    torch = pytest.importorskip("torch")
    bk.set_engine("cpu")
    expected = bk.descramble(layer.W, inputs=layer.X)
    accumulators = []
    for name in ("cpu", "numpy"):
        bk.set_engine(name)
        accumulators.append(layer.accumulator())
    fed_by_torch = bk.Autocorrelation(layer.m)
    fed_by_torch.update(torch.from_numpy(layer.X))
    accumulators.append(fed_by_torch)
    for name in ("cpu", "numpy"):
        bk.set_engine(name)
        for acc in accumulators:
            assert bk.descramble(layer.W, autocorrelation=acc).cost == pytest.approx(expected.cost)
            assert bk.whitened_svd(layer.W, acc, 2).error == pytest.approx(
                bk.whitened_svd(layer.W, accumulators[0], 2).error
            )
    d = bk.descramble(torch.from_numpy(layer.W), autocorrelation=accumulators[0])
    assert isinstance(d.P, torch.Tensor)


# --- refusals ---------------------------------------------------------------------------------------------------------

W34, X4, Y3 = np.ones((3, 4)), np.ones((5, 4)), np.ones((5, 3))
NOT_PSD = np.diag([1.0, 1.0, 1.0, -0.5])
NAN = np.array([[1.0, np.nan, 1.0, 1.0]])


@pytest.mark.parametrize(
    ("call", "argument", "message"),
    [
        (lambda: bk.descramble(), "W", "left out only where preactivations"),
        (lambda: bk.descramble(inputs=X4), "W", "left out only"),
        (lambda: bk.descramble(autocorrelation=np.eye(3)), "W", "left out only"),
        (
            lambda: bk.descramble(W34, inputs=X4, preactivations=Y3),
            "preactivations",
            "at most one source.*inputs and preact",
        ),
        (lambda: bk.descramble(W34, inputs=X4, autocorrelation=np.eye(4)), "autocorrelation", "at most one source"),
        (lambda: bk.descramble(W34, autocorrelation=np.eye(4), center=True), "center", "pass an Autocorrelation"),
        (lambda: bk.descramble(W34, autocorrelation=np.eye(4), bias=np.ones(3)), "bias", "pass an Autocorrelation"),
        (lambda: bk.descramble(W34, preactivations=Y3, bias=np.ones(3)), "bias", "already"),
        (lambda: bk.descramble(W34, inputs=X4, n_samples=5), "n_samples", "bare matrix"),
        (lambda: bk.descramble(W34, n_samples=5), "n_samples", "bare matrix"),
        (lambda: bk.descramble(W34, autocorrelation=np.eye(4), n_samples=0), "n_samples", "1 or more"),
        (lambda: bk.descramble(W34, group="permutation", gauge="canonical"), "gauge", "permutations"),
        (lambda: bk.descramble(W34, group="permutation", gauge=np.eye(3)), "gauge", "permutations"),
        (
            lambda: bk.descramble(W34, group="unitary"),
            "group",
            "'orthogonal', 'special_orthogonal', 'permutation', got 'unitary'",
        ),
        (lambda: bk.descramble(W34, gauge="aligned"), "gauge", "'identity', 'canonical' or .* got 'aligned'"),
        (lambda: bk.descramble(W34, gauge=None), "gauge", "got None"),
        (lambda: bk.descramble(W34, gauge=np.eye(4)), "gauge", r"\(3, 3\), got \(4, 4\)"),
        (lambda: bk.descramble(W34, gauge=np.ones((3, 3))), "gauge", "orthogonal"),
        (lambda: bk.descramble(W34, gauge=np.full((3, 3), np.nan)), "gauge", r"index \(0, 0\)"),
        (lambda: bk.descramble(W34, penalty="fourier"), "penalty", "a penalty of brockett.penalty"),
        (lambda: bk.descramble(W34, penalty=penalty.Grid((2, 2))), "penalty", "4 neurons, got 3"),
        (lambda: bk.descramble(W34, penalty=penalty.Custom(np.eye(5))), "penalty", "5 neurons, got 3"),
        (lambda: bk.descramble(W34, inputs=Y3), "inputs", "expected 4 features"),
        (lambda: bk.descramble(W34, preactivations=X4), "preactivations", "expected 3 features"),
        (lambda: bk.descramble(W34, autocorrelation=np.eye(3)), "autocorrelation", r"\(4, 4\) to fit W, got \(3, 3\)"),
        (lambda: bk.descramble(W34, autocorrelation=np.ones(4)), "autocorrelation", r"got \(4,\)"),
        (lambda: bk.descramble(W34, autocorrelation=bk.Autocorrelation(3)), "autocorrelation", "3 features, W takes 4"),
        (lambda: bk.descramble(W34, autocorrelation=bk.Autocorrelation(4)), "autocorrelation", "no samples"),
        (lambda: bk.descramble(W34, inputs=np.ones((0, 4))), "inputs", "must not be empty"),
        (lambda: bk.descramble(W34, inputs=np.ones(4)), "inputs", r"got shape \(4,\)"),
        (lambda: bk.descramble(W34, inputs=X4, bias=np.ones(4)), "bias", r"\(3,\), got \(4,\)"),
        (lambda: bk.descramble(W34, inputs=X4, bias=[1, 2, np.inf]), "bias", r"index \(2,\)"),
        (lambda: bk.descramble(W34, inputs=X4, center="yes"), "center", "True or False"),
        (lambda: bk.descramble(W34, stack=[(1.0, X4)]), "stack", "expected 3 features"),
        (lambda: bk.descramble(W34, stack=[(-1.0, Y3)]), "stack", "at least 0"),
        (lambda: bk.descramble(W34, stack=[Y3]), "stack", r"pairs \(alpha, Y2\)"),
        (lambda: bk.descramble(W34, stack=3), "stack", "pairs"),
        (lambda: bk.descramble(W34, stack=[(1.0, Y3 * np.nan)]), "stack", r"index \(0, 0\)"),
        (lambda: bk.descramble(W34, rank=0), "rank", "1 to 3"),
        (lambda: bk.descramble(W34, rank=4), "rank", "1 to 3, got 4"),
        (lambda: bk.descramble(W34, seed=-1), "seed", "0 or more"),
        (lambda: bk.descramble(W34, starts=-1), "starts", "0 or more"),
        (lambda: bk.descramble(W34, max_sweeps=1.5), "max_sweeps", "an integer"),
        (lambda: bk.descramble(W34[0]), "W", r"got shape \(4,\)"),
        (lambda: bk.descramble(W34[:0]), "W", "must not be empty"),
        (lambda: bk.descramble(W34 * 1j), "W", "complex"),
        (lambda: bk.descramble(W34, inputs=X4 * 1j), "inputs", "complex"),
        (lambda: bk.descramble(W34, autocorrelation=np.eye(4) * 1j), "autocorrelation", "complex"),
        (lambda: bk.descramble(np.eye(4), autocorrelation=NOT_PSD), "autocorrelation", "positive semidefinite"),
        (lambda: bk.descramble(W34, autocorrelation=np.triu(np.ones((4, 4)))), "autocorrelation", "symmetric"),
        (lambda: bk.descramble(NAN), "W", r"index \(0, 1\)"),
        (lambda: bk.descramble(np.array([[[1.0, 1.0], [np.inf, 1.0]]])), "W", r"index \(0, 1, 0\)"),
        (lambda: bk.descramble(W34, inputs=NAN), "inputs", r"index \(0, 1\)"),
        (
            lambda: bk.descramble(W34, inputs=np.stack([np.ones((2, 4)), NAN.repeat(2, 0)])),
            "inputs",
            r"index \(1, 0, 1\)",
        ),
        (lambda: bk.descramble(preactivations=NAN), "preactivations", r"index \(0, 1\)"),
        (lambda: bk.descramble(W34, autocorrelation=NAN.repeat(4, 0)), "autocorrelation", r"index \(0, 1\)"),
        (lambda: bk.diagonalize(W34, "trace"), "criterion", "'sum', 'square', got 'trace'"),
        (lambda: bk.diagonalize(W34, group="permutation"), "group", "'orthogonal', 'special_orthogonal', got"),
        (lambda: bk.diagonalize(W34, max_iterations=-1), "max_iterations", "0 or more"),
        (lambda: bk.diagonalize(W34, tol=-1), "tol", "at least 0"),
        (lambda: bk.diagonalize(NAN), "W", r"index \(0, 1\)"),
        (lambda: bk.diagonalize(W34[0]), "W", "got shape"),
        (lambda: bk.brockett_cost(np.eye(3), np.eye(4)), "C", r"\(3, 3\), got \(4, 4\)"),
        (lambda: bk.brockett_cost(W34, np.eye(3)), "P", r"\(3, 3\), got \(3, 4\)"),
        (lambda: bk.brockett_cost(np.eye(3), np.eye(3), "A"), "penalty", "a penalty of"),
        (lambda: bk.brockett_cost(np.eye(3), np.eye(3) * np.nan), "C", r"index \(0, 0\)"),
        (lambda: bk.brockett_cost(np.eye(3), np.triu(np.ones((3, 3)))), "C", "symmetric"),
    ],
)
def test_refusals_name_the_argument(engine: str, call: Any, argument: str, message: str) -> None:
    with pytest.raises(bk.InvalidArgument, match=message) as caught:
        call()
    assert caught.value.argument == argument


def test_inputs_are_never_modified(engine: str, layer: Layer) -> None:
    arrays = [layer.W, layer.X, layer.b, np.eye(layer.n), layer.X[:, : layer.n].copy()]
    copies = [a.copy() for a in arrays]
    W, X, b, P0, Y2 = arrays
    bk.descramble(W, inputs=X, bias=b, center=True, gauge=P0, stack=[(1.0, Y2)])
    bk.descramble(W, autocorrelation=bk.autocorrelation(X), group="permutation")
    bk.diagonalize(W, "square")
    bk.brockett_cost(P0, P0)
    bk.svd(W)
    bk.whitened_svd(W, bk.autocorrelation(X))
    for a, copy in zip(arrays, copies, strict=True):
        assert np.array_equal(a, copy)


# --- diagonalize and the cost -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4, 4), (3, 6), (6, 3)])
def test_diagonalize(engine: str, shape: tuple[int, int], rng: np.random.Generator) -> None:
    W = rng.normal(size=shape)
    k = min(shape)
    best = bk.diagonalize(W)
    assert best.value == pytest.approx(np.trace(best.P @ W[:, :k] if shape[1] > k else best.P @ W))
    assert best.value == pytest.approx(scipy.linalg.svdvals(W[:, :k] if shape[1] > k else W).sum())
    assert best.value == pytest.approx(best.bound)
    square = bk.diagonalize(W, "square")
    d = np.diag(square.weights)
    assert square.value == pytest.approx((d**2).sum())
    assert square.value >= (np.diag(best.weights) ** 2).sum() * (1 - 1e-12)
    assert square.value <= square.bound * (1 + 1e-12)
    assert square.converged
    assert square.iterations >= 1
    for result in (best, square):
        np.testing.assert_allclose(result.P @ W, result.weights, atol=1e-12)
        np.testing.assert_allclose(result.P @ result.P.T, np.eye(shape[0]), atol=1e-12)
    rotation = bk.diagonalize(W, group="special_orthogonal")
    assert np.linalg.det(rotation.P) == pytest.approx(1)
    assert rotation.value <= best.value + 1e-9
    with pytest.raises(AttributeError):
        best.value = 0  # type: ignore[misc]


def test_brockett_cost_and_its_gradient(engine: str, rng: np.random.Generator) -> None:
    n = 5
    P, C = rng.normal(size=(n, n)), rng.normal(size=(n, n))
    C = C @ C.T
    kind = penalty.FiniteDifference(2, "neumann")
    value, gradient = bk.brockett_cost(P, C, kind)
    assert value == pytest.approx(cost(P, C, kind.matrix(n)))
    step = rng.normal(size=(n, n))
    h = 1e-6
    slope = (bk.brockett_cost(P + h * step, C, kind).value - bk.brockett_cost(P - h * step, C, kind).value) / (2 * h)
    assert (gradient * step).sum() == pytest.approx(slope, rel=1e-6)


# --- keeping and drawing ----------------------------------------------------------------------------------------------


def results_to_keep(layer: Layer) -> dict[str, bk.Descrambling]:
    return {
        "plain": bk.descramble(layer.W, inputs=layer.X),
        "float32": bk.descramble(layer.W.astype(np.float32)),
        "permutation": bk.descramble(layer.W, group="permutation"),
        "preactivations": bk.descramble(preactivations=layer.X),
        "canonical": bk.descramble(layer.W, gauge="canonical"),
        "conv": bk.descramble(layer.W.reshape(layer.n, 3, 3)),
        "zero": bk.descramble(np.zeros((2, 3))),
        "one": bk.descramble(np.ones((1, 1))),
    }


def test_save_and_load(engine: str, layer: Layer, tmp_path: Path) -> None:
    for name, d in results_to_keep(layer).items():
        path = tmp_path / f"{name}.out"
        d.save(path)
        assert path.exists()
        again = bk.Descrambling.load(path)
        for field in ("P", "weights", "permutation", "sigma", "blocks", "block_error"):
            one, two = getattr(d, field), getattr(again, field)
            assert (one is None) == (two is None), field
            if one is not None:
                assert np.array_equal(one, two)
                assert np.asarray(one).dtype == two.dtype
        for field in ("cost", "optimum", "identity_cost", "bound", "rank", "gauge_conditioning", "used"):
            assert getattr(d, field) == getattr(again, field), field
        assert repr(d) == repr(again)


def test_torch_results_are_kept_as_numpy(layer: Layer, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    d = bk.descramble(torch.from_numpy(layer.W).float(), inputs=torch.from_numpy(layer.X))
    d.save(tmp_path / "d.npz")
    again = bk.Descrambling.load(tmp_path / "d.npz")
    assert again.P.dtype == np.float32
    assert np.array_equal(again.P, d.P.numpy())


def test_unverified_is_the_same_p_without_the_evaluations(engine: str, layer: Layer) -> None:
    R = layer.X.T @ layer.X
    for keywords in ({"inputs": layer.X}, {"autocorrelation": R, "n_samples": 9}, {"group": "permutation"}):
        full = bk.descramble(layer.W, **keywords)
        fast = bk.descramble(layer.W, **keywords, verify=False)
        assert np.array_equal(full.P, fast.P)
        assert np.array_equal(full.weights, fast.weights)
        assert (full.optimum, full.bound, full.rank) == (fast.optimum, fast.bound, fast.rank)
        assert full.cost > 0
        assert np.isnan(fast.cost)
        assert np.isnan(fast.identity_cost)
        assert fast.block_error is None


def test_plot(layer: Layer, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    import sys

    before = "matplotlib.pyplot" in sys.modules  # of another test's partner, perhaps
    kept = results_to_keep(layer)
    for name in ("float32", "preactivations", "conv", "zero", "one"):
        path = tmp_path / f"{name}.png"
        kept[name].plot(path)
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size > 10_000
    assert len(list(tmp_path.iterdir())) == 5  # nothing else was left behind
    assert ("matplotlib.pyplot" in sys.modules) == before


def test_plot_without_matplotlib_says_what_to_install(
    layer: Layer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'brockett\[cli\]'"):
        bk.descramble(layer.W).plot(tmp_path / "x.png")
    assert list(tmp_path.iterdir()) == []
