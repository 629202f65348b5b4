"""The demonstration nets, what is measured in them, and the page."""

from __future__ import annotations

import json
import re
import runpy
import struct
import zlib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("safetensors", reason="the nets are safetensors files: extra 'cli'")
pytest.importorskip("rich", reason="extra 'cli'")

import brockett as bk
from brockett import _panels, report
from brockett._demo import measure, nets, page, run, signals
from brockett._demo.signals import BAND, DEMO, TEST, TRAIN, generator

NAMES = list(nets.ARCHITECTURES)
SETTINGS = run.Settings(samples=4096, seed=0, rotations=2)


@pytest.fixture(scope="module")
def studies():
    done = {name: [] for name in NAMES}
    found = {name: run.study(name, SETTINGS, done[name].append) for name in NAMES}
    assert all(steps[-1] == SETTINGS.samples for steps in done.values())
    return found


@pytest.fixture(scope="module")
def band(studies):
    return run.study_band(studies["bandpass"])


@pytest.fixture(scope="module")
def dipolar(studies):
    return run.study_dipolar(studies["dipolar"])


@pytest.fixture(scope="module")
def html(studies, band, dipolar):
    return page.build([studies[n] for n in NAMES], band, dipolar, SETTINGS).html("the footer")


# ------------------------------------------------------------------------------------------------------------ the nets
def test_shipped_weights_are_small_and_say_where_they_come_from():
    folder = Path(bk.__file__).parent / "data"
    files = sorted(folder.glob("*.safetensors"))
    assert [f.stem for f in files] == sorted(NAMES)
    assert sum(f.stat().st_size for f in files) <= 2_000_000
    for name in NAMES:
        net = nets.trained(name)
        architecture = nets.ARCHITECTURES[name]
        record = net.record
        assert record["widths"] == list(architecture.widths)
        assert record["activation"] == architecture.activation
        assert record["init_seed"] == architecture.init_seed
        assert {"train_seed", "test_seed", "steps", "batch", "learning_rate", "weight_decay", "torch"} <= record.keys()
        assert all(np.isfinite(layer.weight).all() and np.isfinite(layer.bias).all() for layer in net.layers)


def test_architectures_are_those_of_the_papers():
    assert {n: a.shape for n, a in nets.ARCHITECTURES.items()} == {
        "relaxometry": "64-32-256-256-32-2",
        "dipolar": "256-80-256",
        "bandpass": "256-256-256",
    }


@pytest.mark.parametrize("name", NAMES)
def test_test_errors_are_the_recorded_ones(name):
    net = nets.trained(name)
    error = nets.relative_error(net, net.record["test_seed"])
    assert error == pytest.approx(net.record["test_error"], rel=2e-3)
    null = nets.relative_error(nets.untrained(name), net.record["test_seed"])
    assert null == pytest.approx(net.record["untrained_test_error"], rel=1e-3)
    assert error < 0.1 < 1.0 < null


def test_relative_error_of_known_answers():
    # The best constant has error 1; the identity on a task whose target is its input has error 0.
    task = signals.Task("copy", "copy", lambda rng, n: (x := rng.standard_normal((n, 3), dtype=np.float32), x))
    copy = nets.Architecture(task, (3, 3), "tanh", 0)
    eye, zero = np.eye(3, dtype=np.float32), np.zeros(3, dtype=np.float32)
    assert nets.relative_error(nets.Net(copy, (nets.Layer(eye, zero),)), 1) == 0.0
    assert nets.relative_error(nets.Net(copy, (nets.Layer(0 * eye, zero),)), 1) == pytest.approx(1.0, abs=1e-3)


def test_twins_are_their_seed():
    # First weight and last bias of each layer, to the bit: the twin must be the same net on every machine for ever,
    # for the recorded training started from it.
    first = {n: [(layer.weight[0, 0], layer.bias[-1]) for layer in nets.untrained(n).layers] for n in NAMES}
    expected = {
        "relaxometry": [
            ("-0x1.2a48dp-6", "-0x1.5fe59p-4"),
            ("0x1.aa4752p-4", "0x1.4922ccp-4"),
            ("0x1.8444cp-7", "0x1.c4c7e4p-5"),
            ("0x1.6fb4ap-6", "0x1.44a258p-5"),
            ("-0x1.de5a84p-8", "-0x1.bc71d6p-4"),
        ],
        "dipolar": [("-0x1.6feb78p-5", "-0x1.f377p-5"), ("-0x1.5f49fcp-5", "-0x1.5c4524p-5")],
        "bandpass": [("-0x1.8070f8p-5", "0x1.152898p-6"), ("-0x1.fad69cp-5", "-0x1.431f08p-5")],
    }
    for name in NAMES:
        assert [tuple(float(v) for v in pair) for pair in first[name]] == [
            tuple(float.fromhex(v) for v in pair) for pair in expected[name]
        ]
        for layer in nets.untrained(name).layers:
            bound = 1.0 / np.sqrt(layer.weight.shape[1])
            assert 0.99 * bound < np.abs(layer.weight).max() <= bound or layer.weight.size < 100
            assert layer.weight.dtype == layer.bias.dtype == np.float32


@pytest.mark.parametrize("name", NAMES)
def test_training_moved_every_layer_away_from_the_twin(name):
    for layer, start in zip(nets.trained(name).layers, nets.untrained(name).layers, strict=True):
        moved = np.linalg.norm(layer.weight - start.weight) / np.linalg.norm(start.weight)
        assert moved > 0.1
        # … but from that start and no other: independent draws correlate by 0 ± 1/sqrt(size).
        correlation = np.corrcoef(layer.weight.ravel(), start.weight.ravel())[0, 1]
        if name != "bandpass":  # whose weight decay erases the start
            assert correlation > 4.0 / np.sqrt(layer.weight.size)


@pytest.mark.parametrize("name", NAMES)
def test_forward_pass_equals_torch(name):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    net = nets.trained(name)
    parts = []
    for layer in net.layers:
        linear = torch.nn.Linear(*layer.weight.shape[::-1])
        linear.load_state_dict({"weight": torch.tensor(layer.weight), "bias": torch.tensor(layer.bias)})
        parts += [linear, {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}[net.architecture.activation]()]
    module = torch.nn.Sequential(*parts[:-1])
    x, _ = net.architecture.task.sample(generator(3, TEST), 50)
    with torch.no_grad():
        expected = module(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(net(x), expected, rtol=0, atol=2e-5 * np.abs(expected).max())
    # The inputs of the layers, which the autocorrelations are made of.
    seen = torch.from_numpy(x)
    for i, mine in enumerate(net.hidden(x)):
        np.testing.assert_allclose(mine, seen.detach().numpy(), rtol=0, atol=2e-5 * max(1.0, np.abs(mine).max()))
        if i + 1 < len(net.layers):
            seen = module[2 * i : 2 * i + 2](seen)


def test_training_starts_from_the_twin():
    pytest.importorskip("torch", reason="PyTorch is not installed")
    script = Path(__file__).parents[2] / "examples" / "train_nets" / "train.py"
    if not script.exists():
        pytest.skip("the training script is in the repository, not in the sdist's tests")
    train = runpy.run_path(str(script))
    for name in NAMES:
        for mine, start in zip(train["layers_of"](train["module"](name)), nets.untrained(name).layers, strict=True):
            np.testing.assert_array_equal(mine.weight, start.weight)
            np.testing.assert_array_equal(mine.bias, start.bias)
        recipe, record = train["RECIPES"][name], nets.trained(name).record
        assert (recipe.steps, recipe.batch, recipe.rate, recipe.decay) == tuple(
            record[k] for k in ("steps", "batch", "learning_rate", "weight_decay")
        )


def test_damaged_weights_are_refused(monkeypatch):
    monkeypatch.setitem(
        nets.ARCHITECTURES, "dipolar", nets.Architecture(signals.TASKS["dipolar"], (255, 80, 256), "tanh", 1)
    )
    with pytest.raises(ValueError, match=r"dipolar\.safetensors: layer0 is missing or is not 80 x 255"):
        nets.trained("dipolar")


# --------------------------------------------------------------------------------------------------------- the signals
@pytest.mark.parametrize("name", NAMES)
def test_batches_are_their_key(name):
    sample = signals.TASKS[name].sample
    x, t = sample(generator(0, DEMO, 3), 7)
    for a, b in zip((x, t), sample(generator(0, DEMO, 3), 7), strict=True):
        np.testing.assert_array_equal(a, b)
    assert x.dtype == t.dtype == np.float32
    assert (x.shape[1], t.shape[1]) == nets.ARCHITECTURES[name].widths[:: len(nets.ARCHITECTURES[name].widths) - 1]
    for other in ((1, DEMO, 3), (0, TRAIN, 3), (0, TEST, 3), (0, DEMO, 4)):
        assert not np.allclose(sample(generator(*other), 7)[0], x)


def test_biexponential_obeys_its_formula():
    x, target = signals.biexponential(generator(0, TEST), 500)
    centre = np.array([0.5 * np.log(8 * 60), 0.5 * np.log(8 * 60) + 0.5 * np.log(1.5 * 6)])
    short, long = np.exp(target.astype(np.float64) + centre).T
    assert short.min() > 7.99
    assert short.max() < 60.01
    assert (long / short).min() > 1.499
    assert (long / short).max() < 6.01
    t = 5.0 * np.arange(1, 65)
    residuals, sums, shares = [], [], []
    for i in range(500):
        basis = np.column_stack([np.exp(-t / short[i]), np.exp(-t / long[i])])
        c, *_ = np.linalg.lstsq(basis, x[i].astype(np.float64), rcond=None)
        residuals.append(x[i] - basis @ c)
        sums.append(c.sum())
        shares.append(c[0])
    # 64 points less 2 fitted amplitudes, noise 0.005.
    assert np.std(residuals) == pytest.approx(0.005 * np.sqrt(62 / 64), rel=0.02)
    assert np.mean(sums) == pytest.approx(1.0, abs=2e-3)
    assert np.mean(shares) == pytest.approx(0.5, abs=0.03)


def test_dipolar_kernel_equals_fresnel_integrals():
    special = pytest.importorskip("scipy.special", reason="SciPy is not installed")
    kernel = signals.dipolar_kernel()
    np.testing.assert_allclose(kernel[0], 1.0, atol=1e-7)
    phase = np.outer(signals.DIPOLAR_TIMES[1:], 2 * np.pi * 52.04 / signals.DISTANCES**3)
    q = np.sqrt(6 * phase / np.pi)
    s, c = special.fresnel(q)
    np.testing.assert_allclose(kernel[1:], (np.cos(phase) * c + np.sin(phase) * s) / q, atol=2e-7)


def test_dipolar_traces_obey_their_formula():
    x, target = signals.dipolar(generator(0, TEST), 300)
    np.testing.assert_allclose(target.mean(axis=1), 1.0, rtol=1e-5)
    assert target.min() >= 0.0
    # V(0) = 1 but for the noise, whose standard deviation is uniform in 0..0.02.
    assert np.std(x[:, 0] - 1.0) == pytest.approx(0.02 / np.sqrt(3), rel=0.2)
    # V(t)/background is linear in the form factor: removing it leaves 1 - depth for long times and wide distributions.
    form = (target / 256.0) @ signals.dipolar_kernel().T
    for i in range(20):
        # ln V = ln(1 - l + l F) - (k t)^(d/3): with the true F the fit over (l, k, d) reaches the noise.
        best = min(
            np.std(x[i] - (1 - depth + depth * form[i]) * np.exp(-((k * signals.DIPOLAR_TIMES) ** (d / 3))))
            for depth in np.linspace(0.2, 0.6, 21)
            for k in np.linspace(0.0, 0.4, 21)
            for d in (2.5, 3.0, 3.5)
        )
        assert best < 0.026


def test_band_pass_is_the_ideal_filter():
    x, y = signals.band_pass(generator(0, TEST), 20)
    n = 256
    k = np.arange(n)
    keep = (np.minimum(k, n - k) >= 10) & (np.minimum(k, n - k) <= 50)
    dft = np.exp(-2j * np.pi * np.outer(k, k) / n) / np.sqrt(n)
    ideal = (dft.conj().T @ (keep[:, None] * dft)).real
    assert keep.sum() == 82
    np.testing.assert_allclose(y, x @ ideal.T, atol=2e-6)


# -------------------------------------------------------------------------------------------------------- the measures
def wave(n, m, a, b):
    return np.outer(np.cos(2 * np.pi * a * np.arange(n) / n), np.cos(2 * np.pi * b * np.arange(m) / m))


def test_structure_by_hand():
    assert measure.structure(wave(20, 20, 3, 5)) == pytest.approx(1.0)  # 4 cells of 400, and 1 % is 4 cells
    assert measure.structure(wave(10, 20, 3, 5)) == pytest.approx(0.5)  # 4 cells of 200, and 1 % is 2 cells
    spike = np.zeros((10, 10))
    spike[2, 3] = -7.0  # flat spectrum
    assert measure.structure(spike) == pytest.approx(0.01)
    assert measure.structure(spike, share=0.255) == pytest.approx(0.26)  # rounded up to whole cells
    assert measure.structure(np.zeros((4, 4))) == 0.0
    assert measure.structure(np.ones((2, 2))) == pytest.approx(1.0)


def test_structure_of_noise():
    # |FFT|^2 of noise is exponential and cells come in pairs: the top 1 % hold 0.01 (1 + ln 100) = 0.0561.
    w = np.random.default_rng(0).standard_normal((256, 256))
    assert measure.structure(w) == pytest.approx(0.01 * (1 + np.log(100)), abs=0.0015)


def test_haar_is_orthogonal_and_uniform():
    rng = np.random.default_rng(1)
    n = 5
    draws = np.array([measure.haar(n, rng) for _ in range(3000)])
    np.testing.assert_allclose(draws @ draws.transpose(0, 2, 1), np.broadcast_to(np.eye(n), draws.shape), atol=1e-13)
    # Without the signs from R, LAPACK's Householder vectors make the diagonal negative on average.
    np.testing.assert_allclose(draws.mean(axis=0), 0.0, atol=0.04)
    np.testing.assert_allclose((draws**2).mean(axis=0), 1 / n, atol=0.02)
    assert abs(np.linalg.det(draws).mean()) < 0.08


def test_rotations_keep_the_input_marginal_which_is_why_it_is_not_the_measure():
    rng = np.random.default_rng(2)
    w = rng.standard_normal((12, 9))
    q = measure.haar(12, rng)
    before, after = measure.frequency_pairs(w), measure.frequency_pairs(q @ w)
    np.testing.assert_allclose(before.sum(axis=0), after.sum(axis=0), rtol=1e-12)
    assert np.abs(before.sum(axis=1) - after.sum(axis=1)).max() > 0.1 * before.sum(axis=1).mean()


def test_rotated_structure_is_the_mean_over_seeded_rotations():
    w = wave(30, 30, 2, 7)
    got = measure.rotated_structure(w, 3, np.random.default_rng(5))
    rng = np.random.default_rng(5)
    each = [measure.structure(measure.haar(30, rng) @ w) for _ in range(3)]
    assert got == pytest.approx(np.mean(each))
    assert got < 0.9


@pytest.mark.parametrize("shape", [(8, 6), (7, 5), (1, 4)])
def test_frequency_pairs_hold_all_energy_in_the_right_cell(shape):
    n, m = shape
    w = np.random.default_rng(3).standard_normal(shape)
    pairs = measure.frequency_pairs(w)
    assert pairs.shape == (n // 2 + 1, m // 2 + 1)
    assert pairs.sum() == pytest.approx(n * m * (w**2).sum())
    if n > 4:
        one = measure.frequency_pairs(wave(n, m, 3, 2))
        assert one[3, 2] == pytest.approx(one.sum())


def test_in_band_energy():
    w = wave(128, 256, 5, 30) + wave(128, 256, 9, 60) + wave(128, 256, 9, 20)
    share = measure.in_band_energy(w, BAND)
    assert share[5] == pytest.approx(1.0)
    assert share[9] == pytest.approx(0.5)
    assert measure.in_band_energy(np.zeros((4, 256)), BAND).tolist() == [0.0, 0.0, 0.0]
    edges = measure.in_band_energy(wave(64, 256, 1, 10) + wave(64, 256, 2, 50) + wave(64, 256, 3, 9), BAND)
    np.testing.assert_allclose(edges[1:4], [1.0, 1.0, 0.0], atol=1e-12)


def test_fourier_image_against_the_matrix_product():
    n = 5
    w = np.random.default_rng(4).standard_normal((n, n))
    f = np.exp(-2j * np.pi * np.outer(range(n), range(n)) / n) / np.sqrt(n)
    np.testing.assert_allclose(measure.fourier_image(w), f @ w @ f.conj().T, atol=1e-14)
    circulant = np.array([[w[0, (j - i) % n] for j in range(n)] for i in range(n)])
    assert measure.off_diagonal_energy(measure.fourier_image(circulant)) < 1e-15
    assert measure.off_diagonal_energy([[1.0, 2.0], [2.0, 0.0]]) == pytest.approx(8 / 9)
    assert measure.off_diagonal_energy(np.zeros((2, 2))) == 0.0


def test_maximally_diagonal_turns_the_inputs():
    w = np.random.default_rng(5).standard_normal((6, 6))
    turned = run.maximally_diagonal(w)
    np.testing.assert_allclose(turned @ turned.T, w @ w.T, atol=1e-12)  # W P keeps W W^T
    np.testing.assert_allclose(turned, turned.T, atol=1e-12)
    assert np.trace(turned) == pytest.approx(np.linalg.svd(w, compute_uv=False).sum())


def test_chebyshev_measures():
    t = np.polynomial.chebyshev.chebvander(np.linspace(-1, 1, 50), 4)
    np.testing.assert_allclose(measure.chebyshev_correlation(-3.0 * t), 1.0)
    np.testing.assert_allclose(measure.chebyshev_energy(t, 4), 1.0)
    low = measure.chebyshev_energy(t, 2)
    np.testing.assert_allclose(low[:3], 1.0)
    assert (low[3:] < 0.5).all()


def test_spearman():
    assert run.spearman([1, 2, 3, 4], [1, 8, 27, 64]) == pytest.approx(1.0)
    assert run.spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1.0)
    assert run.spearman([1, 2, 3, 4], [2, 1, 4, 3]) == pytest.approx(0.6)  # 1 - 6·4/(4·15)


# --------------------------------------------------------------------------------------------------------- the effects
# Bands from runs at 2,048, 4,096 and 100,000 samples and three seeds; in each the measured value is given.
def test_accumulators_hold_every_sample_once():
    settings = run.Settings(samples=run.BATCH + 904, seed=3)
    real, null = run.accumulate(nets.trained("dipolar"), nets.untrained("dipolar"), settings, lambda done: None)
    assert real[0] is null[0]
    assert [a.n_samples for a in real + null] == [5000] * 4
    # Independent of the accumulator: the moments of the same batches, in float64.
    batches = [signals.dipolar(generator(3, DEMO, i), n)[0] for i, n in ((0, run.BATCH), (1, 904))]
    x = np.vstack(batches).astype(np.float64)
    np.testing.assert_allclose(real[0].matrix(), x.T @ x / 5000, rtol=1e-12)
    net = nets.untrained("dipolar")
    h = np.tanh(np.vstack([b @ net.layers[0].weight.T + net.layers[0].bias for b in batches])).astype(np.float64)
    np.testing.assert_allclose(null[1].matrix(), h.T @ h / 5000, atol=1e-6)


def test_optimum_against_an_independent_computation(studies):
    layer = studies["dipolar"].layers[0]
    x, _ = signals.dipolar(generator(0, DEMO, 0), 4096)
    y = layer.weight @ x.T.astype(np.float64)
    variances = np.sort(np.linalg.svd(y, compute_uv=False) ** 2 / 4096)[::-1]
    frequency = (np.arange(80) + 1) // 2
    assert layer.optimum == pytest.approx((frequency.astype(float) ** 4 * variances).sum(), rel=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_every_layer_reaches_its_optimum(studies, name):
    for layer, source in zip(studies[name].layers, nets.trained(name).layers, strict=True):
        assert layer.weight.shape == source.weight.shape
        # Directions below the numerical rank are one cluster, of which any basis will do: n eps sigma_1^2 lambda_max.
        assert layer.cost == pytest.approx(layer.optimum, rel=3e-5)  # 5e-6 at worst
        assert layer.optimum < layer.identity_cost
        assert layer.isotropic_cost > layer.optimum
        assert 1 <= layer.rank <= min(layer.weight.shape[0], layer.weight.shape[1])
        # P is orthogonal: P W has the singular values of W.
        np.testing.assert_allclose(
            np.linalg.svd(layer.descrambled, compute_uv=False),
            layer.singular_values,
            atol=1e-6 * layer.singular_values[0],
        )
        for vectors in (layer.left, layer.left_descrambled, layer.right):
            np.testing.assert_allclose(vectors.T @ vectors, np.eye(vectors.shape[1]), atol=1e-6)
        np.testing.assert_allclose(
            layer.weight @ layer.right, layer.left * layer.singular_values[: layer.left.shape[1]], atol=1e-6
        )


def test_band_net_separates_the_band(band):
    assert band.in_band[:41].min() > 0.999  # 1.0000
    assert band.in_band[42:].mean() < 0.04  # 0.020, 0.0008 at 100,000: a sampling error
    assert band.in_band_raw.min() > 0.99  # raw weights pass the band at every output frequency
    assert 0.2 < band.in_band_twin.min() < band.in_band_twin.max() < 0.5  # 0.23..0.41; white: 0.32
    assert band.sigma_ratio > 15.0  # 28.7


def test_band_net_second_layer_is_a_circulant_in_disguise(band):
    assert band.off_diagonal_raw > 0.99  # 0.997
    assert band.off_diagonal < 0.005  # 0.0021
    assert band.off_diagonal_twin_raw > 0.99  # 0.996
    assert 0.2 < band.off_diagonal_twin < 0.4  # 0.278


def test_structure_rises_beyond_its_nulls_where_it_should(studies):
    first = studies["dipolar"].layers[0]
    assert first.structure_before == pytest.approx(0.428, abs=0.005)  # of the stored weights alone
    assert first.structure_after > 0.84  # 0.868
    assert 0.40 < first.structure_rotated < 0.50  # 0.456
    assert first.structure_twin_after < 0.12  # 0.090
    third = studies["relaxometry"].layers[2]
    assert third.structure_after > 0.5 > 0.15 > max(third.structure_rotated, third.structure_twin_after)  # 0.58, 0.08
    wide = studies["bandpass"].layers[0]
    assert 0.29 < wide.structure_after < 0.34  # 0.319
    assert 0.12 < wide.structure_rotated < 0.16  # 0.138


def test_untrained_layers_gain_structure_too(studies):
    wide = studies["bandpass"].layers[0]
    assert wide.structure_twin_before == pytest.approx(0.056, abs=0.002)
    assert 1.6 < wide.structure_twin_after / wide.structure_twin_before < 2.3  # 1.95
    thin = studies["relaxometry"].layers[1]
    assert thin.structure_twin_after > 0.2  # 0.239, from 32 inputs alone
    assert thin.silent > 5  # 14 ReLUs that never fire
    assert thin.rank == 32 - thin.silent


def test_outputs_in_physical_order_leave_nothing_to_descramble(studies):
    for name in ("dipolar", "bandpass"):
        last = studies[name].layers[1]
        assert abs(last.structure_after - last.structure_before) < 0.1  # +0.06, -0.003
        assert last.structure_rotated < 0.5 * last.structure_before


def test_dipolar_left_vectors_are_smooth_but_not_chebyshev(dipolar):
    assert dipolar.smooth.min() > 0.9  # 0.94
    assert dipolar.smooth_twin.max() < 0.15  # 0.075
    assert dipolar.one_to_one.max() < 0.6  # 0.29: the one-to-one match is not found


def test_isotropic_source_is_another_descrambler(studies):
    first = studies["dipolar"].layers[0]
    assert first.isotropic_cost > 50 * first.optimum  # 168
    assert abs(first.structure_isotropic - first.structure_after) < 0.05  # 0.867, 0.868
    white = studies["bandpass"].layers[0]
    assert white.isotropic_cost < 1.5 * white.optimum  # 1.17: white inputs are isotropic


def test_same_seed_same_numbers(studies):
    again = run.study("dipolar", SETTINGS, lambda done: None)
    for a, b in zip(again.layers, studies["dipolar"].layers, strict=True):
        assert (a.structure_rotated, a.structure_twin_after) == pytest.approx(
            (b.structure_rotated, b.structure_twin_after), rel=1e-9
        )
        assert a.optimum == pytest.approx(b.optimum, rel=1e-12)


# ------------------------------------------------------------------------------------------------------------ the page
class Reader(HTMLParser):
    """What a browser would fetch, which tags are open, and which text is there."""

    def __init__(self):
        super().__init__()
        self.fetched, self.links, self.ids, self.open, self.text, self.attributes = [], [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        for name, value in attrs:
            self.attributes.append((tag, name, value or ""))
            if name in {"src", "srcset", "data", "poster", "action", "background", "xlink:href"} or (
                name == "href" and tag != "a"
            ):
                self.fetched.append(value)
            if name == "href" and tag == "a":
                self.links.append(value)
        if "id" in values:
            self.ids.append(values["id"])
        assert tag not in {"script", "iframe", "object", "embed"}
        if tag not in {"meta", "link", "image", "path", "rect", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def read(html):
    reader = Reader()
    reader.feed(html)
    reader.close()
    return reader


def test_page_is_self_contained(html, read):
    assert read.open == []
    assert read.fetched
    assert all(value.startswith("data:") for value in read.fetched)
    assert re.findall(r"url\(|@import|@font-face", html) == []
    assert {link for link in read.links if not link.startswith("#")} == {
        "https://doi.org/10.1073/pnas.2016917118",
        "https://arxiv.org/abs/2301.07820",
    }
    assert {link[1:] for link in read.links if link.startswith("#")} == set(read.ids)
    assert len(read.ids) == len(set(read.ids))
    # The texts a browser shows for a number that went wrong.
    assert not [a for a in read.attributes if re.search(r"\b(nan|inf)\b", a[2]) and not a[2].startswith("data:")]
    assert not re.search(r"\b(nan|inf|None)\b", " ".join(read.text))


def test_page_shows_every_layer_and_number(html, read, studies, band):
    text = " ".join(" ".join(read.text).split())
    for study in studies.values():
        assert study.title in text
        for layer in study.layers:
            assert f"{study.title}, layer {layer.index + 1}:" in text
            for cell in page.row(layer):
                assert page._typeset(cell) in text
    # Eight layers of nine pictures and three of the band net; the two-row layer has none.
    assert html.count("<figure>") == 8 * 9 + 3
    assert html.count("<svg ") == html.count("<figure>")
    assert f"1.00 of their energy inside the band, those from 42 on {band.in_band[42:].mean():.4f}" in text
    for phrase in ("Null: untrained twin", "Real:", "Half real:", "Not real:", "Not found here:", "the footer"):
        assert phrase in text


def test_page_follows_the_reader_and_the_window():
    style = report.style()
    assert "prefers-color-scheme: dark" in style
    assert "max-width: 600px" in style
    # Every colour a picture or text uses is defined for light, and the dark set overrides all of them.
    light, dark = re.findall(r":root \{(.*?)\}", style, flags=re.S)
    used = set(re.findall(r"var\((--[a-z0-9]+)\)", style)) - {"--sans"}
    assert used <= set(re.findall(r"(--[a-z0-9]+):", light))
    assert used <= set(re.findall(r"(--[a-z0-9]+):", dark))


def test_page_escapes_what_is_text():
    p = report.Page("<b>title</b>", "a & b")
    p.section("<i>")
    p.table(["<th>"], [("<group>", [["<cell>"]])])
    p.panels([report.Panel("<h>", "<svg></svg>", "<caption>")])
    text = p.html("<footer>")
    for given in ("<b>title</b>", "<i>", "<th>", "<group>", "<cell>", "<h>", "<caption>", "<footer>"):
        assert text.count(given) == (1 if given == "<footer>" else 0), given
    assert "a &amp; b" in text
    assert "<svg></svg>" in text


def test_page_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    target = tmp_path / "index.html"
    report.Page("one", "").write(target, "")
    before = target.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        report.Page("two", "").write(target, "")
    assert target.read_bytes() == before
    assert [f.name for f in tmp_path.iterdir()] == ["index.html"]


def test_page_bytes_are_written_as_they_are(tmp_path):
    target = report.Page("σ", "lead").write(tmp_path / "p.html", "f")
    assert target.read_text(encoding="utf-8") == report.Page("σ", "lead").html("f")


# ---------------------------------------------------------------------------------------------------------- the panels
def decode(data):
    """Palette indices of a PNG, read by the format's own rules."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, {}
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert zlib.crc32(kind + body) == struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0]
        chunks[kind] = body
        at += 12 + length
    width, height, depth, colour = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    assert (depth, colour) == (8, 3)
    raw = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, width + 1)
    assert (raw[:, 0] == 0).all()
    return raw[:, 1:], np.frombuffer(chunks[b"PLTE"], np.uint8).reshape(-1, 3)


def first_image(svg):
    import base64

    return decode(base64.b64decode(re.search(r'href="data:image/png;base64,([^"]+)"', svg)[1]))[0]


def test_png_round_trip():
    cells = np.arange(12, dtype=np.uint8).reshape(3, 4)
    indices, colours = decode(_panels.png(cells, _panels.palette("diverging")))
    np.testing.assert_array_equal(indices, cells)
    np.testing.assert_array_equal(colours, _panels.palette("diverging"))


def test_png_is_read_by_others(tmp_path):
    image = pytest.importorskip("matplotlib.image", reason="matplotlib is not installed")
    cells = np.random.default_rng(0).integers(0, 255, (7, 5)).astype(np.uint8)
    path = tmp_path / "a.png"
    path.write_bytes(_panels.png(cells, _panels.palette("sequential")))
    seen = np.rint(255 * image.imread(path)[..., :3]).astype(int)
    np.testing.assert_array_equal(seen, _panels.palette("sequential")[cells])


def oklab(rgb):
    """sRGB 0..255 to OKLab, forwards (Ottosson 2020): the inverse of what the palettes are made with."""
    c = rgb / 255.0
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    m1 = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    m2 = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    return np.cbrt(linear @ m1.T) @ m2.T


@pytest.mark.parametrize("kind", ["diverging", "sequential"])
def test_palettes_are_perceptually_uniform(kind):
    lab = oklab(_panels.palette(kind).astype(float))
    # Over 8 steps at a time: one step of 8-bit sRGB is as large as half a step of the palette. Chords shorten the few
    # windows across a corner of the path.
    steps = np.linalg.norm(lab[8:] - lab[:-8], axis=1)
    if kind == "diverging":
        steps = np.concatenate([steps[:119], steps[127:]])  # not across the white centre, where the path turns back
    assert steps.min() > 0.8 * np.median(steps)
    assert steps.max() < 1.2 * np.median(steps)
    lightness = lab[:, 0]
    if kind == "diverging":
        assert (np.diff(lightness[:128]) > -2e-3).all()
        assert (np.diff(lightness[127:]) < 2e-3).all()
        assert np.linalg.norm(lab[127, 1:]) < 0.005  # grey
        assert abs(lightness[0] - lightness[-1]) < 0.02
        assert lab[0, 2] < -0.05  # blue for negative
        assert lab[-1, 1] > 0.05  # red for positive
    else:
        assert (np.diff(lightness) > -2e-3).all()


def test_weights_picture_is_centred_at_zero():
    w = np.array([[-1.0, 0.0], [0.5, 1.0]])
    np.testing.assert_array_equal(first_image(_panels.weights(w, title="t")), [[0, 127], [190, 254]])
    np.testing.assert_array_equal(first_image(_panels.weights(np.zeros((2, 2)), title="t")), np.full((2, 2), 127))


def test_dft_picture_has_frequencies_where_its_axes_say():
    # Frequency pairs (+-3, +-5) of 16 x 32; rows run from -8 to 7 upwards, columns from -16 to 15.
    cells = first_image(_panels.dft(wave(16, 32, 3, 5), title="t"))
    bright = {(int(r), int(c)) for r, c in zip(*np.nonzero(cells > 127), strict=True)}
    assert bright == {(15 - (8 + k), 16 + m) for k in (-3, 3) for m in (-5, 5)}
    axis = _panels.frequencies("f", 16)
    assert axis.place(-8) == pytest.approx(0.5 / 16)  # the centre of the first cell
    assert axis.place(7) == pytest.approx(15.5 / 16)


def test_dft_picture_is_in_decibels_of_the_mean_cell():
    # 4 bright cells of 512 hold everything: 128 times the mean, 21.07 dB, on the scale from -10 to 30 at 254 steps.
    cells = first_image(_panels.dft(wave(16, 32, 3, 5), title="t"))
    assert cells.max() == round(254 * (10 * np.log10(128) + 10) / 40)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.0, 1.05, (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)),
        (-0.21, 0.21, (-0.2, -0.1, 0.0, 0.1, 0.2)),
        (0.0, 128.0, (0.0, 50.0, 100.0)),
        (3.0, 3.0, (2.6, 2.8, 3.0, 3.2, 3.4)),
    ],
)
def test_linear_ticks_are_round_and_inside(low, high, ticks):
    axis = _panels.linear("a", low, high)
    assert all(axis.low <= t <= axis.high for t in axis.ticks)
    assert 3 <= len(axis.ticks) <= 8
    assert len({len(f"{t:.6g}") for t in axis.ticks}) <= 4
    assert axis.ticks == pytest.approx(ticks)


def test_decades():
    axis = _panels.decades("s", 3e-5, 20.0)
    assert (axis.low, axis.high) == (-5.0, 2.0)
    assert axis.texts == ("10⁻⁵", "10⁻³", "10⁻¹", "10¹")
    assert _panels.decades("s", 1.0, 1.0).high == 1.0


def test_lines_leave_gaps_and_stay_in_the_box():
    curve = _panels.Line(np.array([0.0, np.nan, 5.0, 0.5]), "c", 1)
    x, y = _panels.Axis("x", 0.0, 3.0, (0.0,)), _panels.Axis("y", 0.0, 1.0, (0.0,))
    path = re.search(r'class="c s1" d="([^"]+)"', _panels.lines([curve], x, y, title="t"))[1]
    points = re.findall(r"([ML])([\d.]+) ([\d.]+)", path)
    assert [p[0] for p in points] == ["M", "M", "L"]
    heights = [float(p[2]) for p in points]
    assert heights == pytest.approx([8 + 264, 8, 8 + 132])  # 5 is clipped to the top


def test_typeset():
    assert page._typeset("5.29e+08") == "5.29×10⁸"
    assert page._typeset("0.0991") == "0.0991"
    assert json.loads(json.dumps(page._typeset("1e+10"))) == "1×10¹⁰"
