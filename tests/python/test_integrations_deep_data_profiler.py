"""DeepDataProfiler given brockett's spectra and decompositions, against DeepDataProfiler alone."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import brockett as bk
from absent_packages import DEEP_DATA_PROFILER, standing_in

torch = pytest.importorskip("torch", reason="DeepDataProfiler reads PyTorch modules")
pytest.importorskip("powerlaw", reason="pip install --no-deps deep-data-profiler==2.0.1 powerlaw==1.5 tqdm")
adapter = bk.integrations.deep_data_profiler


@pytest.fixture(scope="module")
def ddp() -> Iterator[Any]:
    """The package, with stand-ins for what it only draws with; all of it is forgotten afterwards."""
    with standing_in(DEEP_DATA_PROFILER, "deep_data_profiler"):
        yield pytest.importorskip("deep_data_profiler", reason="pip install --no-deps deep-data-profiler==2.0.1")
    logging.disable(logging.NOTSET)


@pytest.fixture
def model() -> Any:
    """Convolutions, wide and tall fully connected layers, heavy-tailed; the subclass is one that DDP leaves out."""
    generator = torch.Generator().manual_seed(3)

    class Linear2(torch.nn.Linear):
        pass

    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3),
        torch.nn.ReLU(),
        torch.nn.Sequential(torch.nn.Conv2d(16, 24, 3, bias=False), torch.nn.ReLU()),
        torch.nn.Flatten(),
        torch.nn.Linear(24 * 8 * 8, 60),
        torch.nn.ReLU(),
        Linear2(60, 60),
        torch.nn.Linear(60, 10),
    )
    for module in net.modules():
        if hasattr(module, "weight"):
            W = module.weight.data.flatten(1)
            r = max(1, min(W.shape) // 4)
            left = torch.randn(W.shape[0], r, generator=generator)
            right = torch.randn(r, W.shape[1], generator=generator)
            W += 0.05 * (left * torch.arange(1, r + 1) ** -0.7) @ right
    return net.eval()


def matrices(model: Any) -> list[np.ndarray]:
    kinds = (torch.nn.Linear, torch.nn.Conv2d)
    layers = [module for module in model.modules() if type(module) in kinds]
    return [module.weight.detach().flatten(1).numpy().astype(float) for module in layers]


def test_spectra(ddp: Any, model: Any) -> None:
    alone, within = ddp.SpectralAnalysis(model).spectral_analysis(), adapter.eig_dict(model)
    assert list(alone) == list(within) == [1, 2, 3, 4]
    for number, W in enumerate(matrices(model), 1):
        (theirs, Q), (ours, q) = alone[number], within[number]
        assert q == Q
        exact = np.linalg.svd(W, compute_uv=False) ** 2 / len(W)
        np.testing.assert_allclose(ours, exact, rtol=1e-9)
        np.testing.assert_allclose(theirs, exact, rtol=2e-5)
    again = adapter.eig_dict(ddp.SpectralAnalysis(model))
    for number, (spectrum, _) in within.items():
        np.testing.assert_array_equal(again[number][0], spectrum)


def test_one_layer_and_no_layer(ddp: Any) -> None:
    linear = torch.nn.Linear(7, 5)
    exact = np.linalg.svd(linear.weight.detach().numpy().astype(float), compute_uv=False) ** 2 / 5
    np.testing.assert_allclose(adapter.eig_dict(linear)[1][0], exact, rtol=1e-9)
    with pytest.raises(bk.InvalidArgument, match=r"model: has no torch\.nn\.Linear"):
        adapter.eig_dict(torch.nn.Sequential(torch.nn.ReLU()))
    with pytest.raises(bk.InvalidType, match="model: expected a torch"):
        adapter.eig_dict([np.eye(3)])


def test_what_float32_does_not_resolve_is_zero(ddp: Any, rng: np.random.Generator) -> None:
    linear = torch.nn.Linear(20, 12)
    half = torch.tensor(rng.normal(size=(6, 20)), dtype=torch.float32)
    linear.weight.data = half.repeat(2, 1)
    np.testing.assert_array_equal(adapter.eig_dict(linear)[1][0][6:], 0)


@pytest.fixture
def old_powerlaw() -> Any:
    powerlaw = importlib.import_module("powerlaw")
    metadata = importlib.import_module("importlib.metadata")
    if int(metadata.version("powerlaw").split(".")[0]) >= 2:
        pytest.skip("powerlaw 2 looks only at exponents up to 3; the test needs 1.5")
    return powerlaw


def test_exponents_and_what_takes_them(ddp: Any, model: Any, old_powerlaw: Any) -> None:
    analysis = ddp.SpectralAnalysis(model)
    spectra = adapter.eig_dict(model)
    injected, ours = analysis.fit_power_law(eig_dict=spectra), adapter.alpha_dict(spectra)
    alone = analysis.fit_power_law()
    assert list(ours) == list(injected) == list(alone)
    for number in ours:
        assert ours[number] == pytest.approx(injected[number], rel=1e-6)
        assert ours[number] == pytest.approx(alone[number], rel=1e-4)  # the peer's spectra are float32
    assert adapter.alpha_dict(model) == ours
    assert analysis.layer_RMT(ours) == analysis.layer_RMT(injected) == analysis.layer_RMT(alone)
    assert analysis.universal_metric(ours) == pytest.approx(analysis.universal_metric(injected), rel=1e-6)


@pytest.mark.parametrize("n", [2, 3, 9, 10, 40])
def test_exponents_of_few_values(ddp: Any, rng: np.random.Generator, old_powerlaw: Any, n: int) -> None:
    values = np.append((1 - rng.random(n)) ** (-1 / 1.5), 0.0)
    (alpha, largest), theirs = adapter.alpha_dict({4: (values, 1.0)})[4], old_powerlaw.Fit(values, verbose=False)
    assert alpha == pytest.approx(theirs.power_law.alpha, rel=1e-6)
    assert largest == values.max()


def test_exponents_within_a_range_are_those_of_powerlaw_2(rng: np.random.Generator) -> None:
    """Its default is (0, 3): the best of the candidates below 3, here by trying each."""
    x = np.sort(rng.lognormal(0, 0.7, 300))
    best = (9.0, 0.0)
    for i in range(len(x) - 1):
        n = len(x) - i
        alpha = 1 + n / np.sum(np.log(x[i:] / x[i]))
        if alpha < 3:
            best = min(best, (float(np.max(np.abs(1 - (x[i:] / x[i]) ** (1 - alpha) - np.arange(n) / n))), alpha))
    assert adapter.alpha_dict({1: (x, 1.0)}, alpha_range=(0, 3))[1][0] == pytest.approx(best[1], rel=1e-9)
    assert adapter.alpha_dict({1: (x, 1.0)})[1][0] > 3


def test_exponents_that_there_are_not() -> None:
    found = adapter.alpha_dict({1: (np.zeros(4), 1.0), 2: (np.full(4, 2.0), 1.0)})
    assert np.isnan([found[1][0], found[2][0]]).all()
    assert (found[1][1], found[2][1]) == (0.0, 2.0)
    for bad in ([1.0, np.nan], [-1.0, 2.0], [[1.0, 2.0]]):
        with pytest.raises(bk.InvalidArgument, match=r"spectra: expected finite eigenvalues ≥ 0 .* for layer 7"):
            adapter.alpha_dict({7: (np.array(bad), 1.0)})
    with pytest.raises(bk.InvalidArgument, match="alpha_range"):
        adapter.alpha_dict({}, alpha_range=(3, 2))


@pytest.fixture
def chain() -> Any:
    """A chain of the kind that DeepDataProfiler's graph of layers knows."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3),
        torch.nn.ReLU(),
        torch.nn.Conv2d(16, 24, 3),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(24 * 8 * 8, 10),
    ).eval()


def test_decompositions_and_profiles(ddp: Any, chain: Any) -> None:
    alone, within = ddp.SVDProfiler(chain), ddp.SVDProfiler(chain, compute_svd=False)
    within.svd_dict = adapter.svd_dict(within)
    assert list(alone.svd_dict) == list(within.svd_dict)
    for key, (names, theirs) in alone.svd_dict.items():
        ours = within.svd_dict[key]
        assert ours[0] == names
        assert type(ours[1]) is type(theirs)
        U, S, V = (part.double() for part in ours[1])
        W = within.hooks[names[0]].weight.detach().flatten(1).double()
        np.testing.assert_allclose((U * S) @ V.T, W, atol=1e-6)
        np.testing.assert_allclose(U.T @ U, np.eye(len(S)), atol=5e-6)
        np.testing.assert_allclose(S, theirs.S, rtol=1e-5)
        assert {part.dtype for part in ours[1]} == {torch.float32}
        np.testing.assert_allclose(np.abs(np.diagonal(U.T @ theirs.U.double())), 1, atol=1e-4)
    x = torch.randn(1, 3, 12, 12)
    for one, two in zip(alone.svd_dict, within.svd_dict, strict=True):
        ours, theirs = (p.create_influential(x, threshold=0.3) for p in (within, alone))
        np.testing.assert_array_equal(ours.neuron_counts[two].todense(), theirs.neuron_counts[one].todense())
        np.testing.assert_allclose(
            ours.neuron_weights[two].todense(), theirs.neuron_weights[one].todense(), rtol=1e-3, atol=1e-5
        )


@pytest.mark.parametrize("layers", [[1, 2], (2, 4), [3], []])
def test_chosen_layers(ddp: Any, chain: Any, layers: Any) -> None:
    profiler = ddp.SVDProfiler(chain, compute_svd=False)
    assert list(adapter.svd_dict(profiler, layers)) == list(profiler.create_svd(layers))


def test_other_objects_are_refused(ddp: Any, chain: Any) -> None:
    with pytest.raises(bk.InvalidType, match=r"profiler: expected a deep_data_profiler\.SVDProfiler, got Sequential"):
        adapter.svd_dict(chain)


def test_nan_is_named_with_its_layer(ddp: Any, chain: Any) -> None:
    chain[2].weight.data[1, 2, 0, 1] = float("inf")
    with pytest.raises(bk.NonFinite, match=r"^2: NaN or Inf at index \(1, 19\)"):
        adapter.eig_dict(chain)
    profiler = ddp.SVDProfiler(chain, compute_svd=False)
    with pytest.raises(bk.NonFinite, match=r"NaN or Inf at index \(1, 19\)"):
        adapter.svd_dict(profiler)


def test_projections_for_feature_visualization(ddp: Any, chain: Any) -> None:
    """project_svd takes its vectors from nowhere but the model: inside the block they are brockett's."""
    profiler = ddp.ChannelProfiler(chain)
    utilities = importlib.import_module("deep_data_profiler.optimization.svd_utils")
    original = utilities.model_svd_dict
    theirs, ours = original(profiler), adapter.left_vectors(profiler)
    assert list(theirs) == list(ours)
    for name, U in theirs.items():
        np.testing.assert_allclose(np.abs(np.diagonal(U.T @ ours[name])), 1, atol=1e-3)
    activations = {name: torch.randn(2, U.shape[0], 4, 4) for name, U in theirs.items()}
    alone = utilities.project_svd(profiler)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "svd", None)
        with adapter.accelerated():
            within = utilities.project_svd(profiler)
    assert utilities.model_svd_dict is original
    for name in theirs:
        one, two = alone(activations, name), within(activations, name)
        np.testing.assert_allclose(two.abs(), one.abs(), atol=2e-3)
