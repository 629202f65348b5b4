"""Metrics of a layer: by definition, by the peers' figures, and what is declined."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import brockett as bk
from layers import LAYERS, PEERS, weights

rm = bk.random_matrix


@pytest.mark.parametrize("name", LAYERS)
def test_weightwatcher(engine: str, name: str) -> None:
    """weightwatcher 0.7.7 reads the weights in float32."""
    m, theirs = rm.layer_metrics(LAYERS[name], convention="weightwatcher"), PEERS["layers"][name]["weightwatcher"]
    assert (m.Q, len(m.eigenvalues), m.power_law.n_tail) == (
        theirs["Q"],
        theirs["num_evals"],
        theirs["num_pl_spikes"],
    )
    for field in ("alpha", "alpha_weighted", "log_alpha_norm", "log_norm", "log_spectral_norm", "stable_rank",
                  "entropy", "lambda_max"):  # fmt: skip
        assert getattr(m, field) == pytest.approx(theirs[field], rel=1e-6), field
    for field in ("D", "xmin", "sigma"):
        assert getattr(m.power_law, field) == pytest.approx(theirs[field], rel=2e-6), field
    assert m.log_base == 10


@pytest.mark.parametrize("name", LAYERS)
def test_deepdataprofiler(engine: str, name: str) -> None:
    W, theirs = LAYERS[name], PEERS["layers"][name]["deepdataprofiler"]
    m = rm.layer_metrics(W, convention="deepdataprofiler")
    for field in ("alpha", "lambda_max", "Q"):
        assert getattr(m, field) == pytest.approx(theirs[field], rel=1e-10), field
    metric = rm.universal_metric([W], convention="deepdataprofiler")
    assert metric.value == pytest.approx(theirs["universal"], rel=1e-10)
    assert metric.log_base == math.e


@pytest.mark.parametrize("shape", [(40, 30), (30, 40), (25, 25), (12, 5, 3), (12, 8, 3, 3)])
def test_by_definition(engine: str, shape: tuple[int, ...]) -> None:
    W = weights("heavy", shape, 40)
    A = W.reshape(shape[0], -1)
    s = np.linalg.svd(A, compute_uv=False)
    lam = s**2 / max(A.shape)
    for base in (10.0, 2.0, math.e):
        m = rm.layer_metrics(W, log_base=base)
        np.testing.assert_allclose(m.eigenvalues, lam, rtol=1e-9)
        assert max(A.shape) / min(A.shape) == m.Q
        assert m.rank == np.linalg.matrix_rank(A)
        assert m.lambda_max == pytest.approx(lam[0])
        assert m.log_norm == pytest.approx(math.log(np.sum(W**2) / max(A.shape), base))
        assert m.log_spectral_norm == pytest.approx(math.log(lam[0], base))
        assert m.stable_rank == pytest.approx(np.sum(s**2) / s[0] ** 2)
        p = s / s.sum()
        assert m.effective_rank == pytest.approx(np.exp(-np.sum(p * np.log(p))))
        q = lam / lam.sum()
        assert m.entropy == pytest.approx(-np.sum(q * np.log(q)) / np.log(len(q)))
        assert m.alpha == pytest.approx(rm.fit_power_law(lam).alpha, rel=1e-7)
        assert m.power_law.xmin == pytest.approx(rm.fit_power_law(lam).xmin, rel=1e-7)
        assert m.alpha_weighted == pytest.approx(m.alpha * math.log(lam[0], base))
        assert m.log_alpha_norm == pytest.approx(math.log(np.sum(lam**m.alpha), base))
        fit = rm.fit_bulk(lam, m.Q)
        assert (m.n_spikes, m.mp_soft_rank) == (fit.n_spikes, pytest.approx(fit.soft_rank))
        assert m.bulk.variance == pytest.approx(fit.variance, rel=1e-9)
        np.testing.assert_allclose(m.bulk.spikes, fit.spikes, rtol=1e-9)


def test_slices_of_a_convolution(engine: str) -> None:
    W = LAYERS["conv"]
    pooled = np.concatenate([np.linalg.svd(W[:, :, i, j], compute_uv=False) ** 2 for i in range(3) for j in range(3)])
    m = rm.layer_metrics(W, conv="slices")
    np.testing.assert_allclose(m.eigenvalues, np.sort(pooled)[::-1] / 16, rtol=1e-10)
    assert m.Q == 16 / 12
    assert m.rank == 9 * 12
    watched = rm.layer_metrics(W, convention="weightwatcher", conv="unfold")
    np.testing.assert_allclose(
        watched.eigenvalues, np.linalg.svd(W.reshape(16, -1), compute_uv=False) ** 2 / 2, rtol=1e-9
    )


def test_singular_values_instead_of_weights(engine: str, rng: np.random.Generator) -> None:
    W = LAYERS["heavy"]
    s = np.linalg.svd(W, compute_uv=False)
    for convention in ("brockett", "weightwatcher", "deepdataprofiler"):
        one = rm.layer_metrics(W, convention=convention).row()
        two = rm.layer_metrics(singular_values=rng.permutation(s), shape=W.shape, convention=convention).row()
        for field, value in one.items():
            assert two[field] == (pytest.approx(value, rel=1e-8) if isinstance(value, float) else value), field


def test_types_and_layouts(engine: str) -> None:
    torch = pytest.importorskip("torch")
    W = LAYERS["heavy"].astype(np.float32)
    expected = rm.layer_metrics(W)
    for A in (torch.tensor(W), np.asfortranarray(W), np.repeat(W, 2, axis=1)[:, ::2], W.astype(np.float64), W.tolist()):
        m = rm.layer_metrics(A)
        assert m.alpha == pytest.approx(expected.alpha, rel=1e-6)
        assert m.rank == 60
    half = rm.layer_metrics(torch.tensor(W).to(torch.bfloat16))
    assert half.log_norm == pytest.approx(expected.log_norm, abs=0.01)
    strict = pytest.importorskip("array_api_strict")
    bk.set_engine("auto")
    for shape in ((40, 30), (8, 4, 3, 3)):
        A = weights("noise", shape, 3)
        for conv in ("unfold", "slices"):
            one, two = rm.layer_metrics(strict.asarray(A), conv=conv), rm.layer_metrics(A, conv=conv)
            assert one.log_norm == pytest.approx(two.log_norm, rel=1e-12)
            np.testing.assert_allclose(one.eigenvalues, two.eigenvalues, rtol=1e-9)


@pytest.mark.parametrize("unit", [1e-140, 1e-30, 1e30, 1e140])
def test_any_unit(engine: str, unit: float) -> None:
    W = LAYERS["spikes"]
    one, two = rm.layer_metrics(W, compare=True), rm.layer_metrics(W * unit, compare=True)
    for field in ("alpha", "stable_rank", "effective_rank", "entropy", "mp_soft_rank"):
        assert getattr(two, field) == pytest.approx(getattr(one, field), rel=1e-8), field
    assert (two.phase, two.rank, two.n_spikes) == (one.phase, one.rank, one.n_spikes)
    shift = 2 * math.log10(unit)
    assert two.log_norm == pytest.approx(one.log_norm + shift)
    assert two.log_spectral_norm == pytest.approx(one.log_spectral_norm + shift)
    assert two.log_alpha_norm == pytest.approx(one.log_alpha_norm + one.alpha * shift)
    rate = [m.power_law.comparisons["exponential"].parameters["Lambda"] for m in (one, two)]
    assert rate[1] == pytest.approx(rate[0] / unit**2, rel=1e-7)
    mu = [m.power_law.comparisons["lognormal"].parameters["mu"] for m in (one, two)]
    assert mu[1] == pytest.approx(mu[0] + 2 * math.log(unit), rel=1e-6)


def test_what_float32_does_not_resolve_is_zero(engine: str) -> None:
    """Twice the same 30 rows: rank 30, whatever a float64 Gram matrix leaves of the other 30 singular values."""
    half = weights("heavy", (30, 80), 5).astype(np.float32)
    m = rm.layer_metrics(np.repeat(half, 2, axis=0))
    assert m.rank == 30
    assert m.phase == "rank_collapse"
    assert m.power_law.n_values == 30
    np.testing.assert_array_equal(m.eigenvalues[30:], 0)


def test_arrays_on_a_device(engine: str) -> None:
    strict = pytest.importorskip("array_api_strict")
    bk.set_engine("auto")
    W = weights("heavy", (20, 30), 9)
    A = strict.asarray(W, device=strict.Device("device1"))
    assert rm.layer_metrics(A).alpha == pytest.approx(rm.layer_metrics(W).alpha, rel=1e-9)
    eigs = rm.layer_metrics(W).eigenvalues
    there = strict.asarray(eigs.copy(), device=strict.Device("device1"))
    assert rm.fit_power_law(there).alpha == rm.fit_power_law(eigs).alpha
    assert rm.fit_bulk(there, 1.5).variance == rm.fit_bulk(eigs, 1.5).variance
    law = rm.marchenko_pastur(2.0)
    assert str(law.cdf(there).device) == str(there.device)


# --- phases -----------------------------------------------------------------------------------------------------------


def test_phases(engine: str, rng: np.random.Generator) -> None:
    n, m = 200, 300
    noise = rng.normal(size=(n, m))
    U, V = np.linalg.qr(rng.normal(size=(n, n)))[0], np.linalg.qr(rng.normal(size=(m, n)))[0]

    def planted(strength: float) -> Any:
        return noise + math.sqrt(m * strength) * np.outer(U[:, 0], V[:, 0])

    heavy = (rng.pareto(1.0, (n, m)) + 1) * rng.choice([-1, 1], (n, m))
    collapsed = noise.copy()
    collapsed[: n // 8] = 0
    slow = (U * np.linspace(1, 40, n)) @ V.T
    cases = {
        "random_like": noise,
        "bleeding_out": planted(1.6),
        "bulk_spikes": planted(9.0),
        "heavy_tailed": heavy,
        "bulk_decay": slow,
        "rank_collapse": collapsed,
    }
    for phase, W in cases.items():
        found = rm.layer_metrics(W)
        assert found.phase == phase, (phase, found.row())
    assert rm.layer_metrics(planted(1.6)).mp_soft_rank > 2 / 3 > rm.layer_metrics(planted(9.0)).mp_soft_rank
    # thirty strong directions of two hundred are no spikes any more
    many = noise + math.sqrt(m) * (U[:, :30] * np.linspace(3, 9, 30)) @ V[:, :30].T
    assert rm.layer_metrics(many).n_spikes == 30
    assert rm.layer_metrics(many).phase in ("heavy_tailed", "bulk_decay")
    assert rm.layer_metrics(many, criteria=rm.PhaseCriteria(spike_share=0.2)).phase == "bulk_spikes"
    # the thresholds are the caller's to choose
    strict = rm.PhaseCriteria(bulk_ks=-1.0, heavy_alpha=1e9)
    assert rm.layer_metrics(noise, criteria=strict).phase == "heavy_tailed"
    assert rm.layer_metrics(noise, criteria=rm.PhaseCriteria(zero_share=0.0)).phase == "rank_collapse"


# --- declined and refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 50), (50, 1), (3, 3), (9, 80), (1, 1), (4, 1, 1, 1)])
@pytest.mark.parametrize("convention", ["brockett", "weightwatcher", "deepdataprofiler"])
def test_small_layers_are_declined(engine: str, shape: tuple[int, ...], convention: str) -> None:
    m = rm.layer_metrics(weights("noise", shape, 7), convention=convention)
    assert m.alpha is m.alpha_weighted is m.log_alpha_norm is m.mp_soft_rank is m.n_spikes is m.phase is None
    assert "a fit needs 10" in m.declined["alpha"]
    assert "a fit needs 10" in m.declined["bulk"]
    assert "phase" in m.declined
    assert m.log_norm is not None
    assert m.stable_rank >= 1


@pytest.mark.parametrize("W", [np.zeros((20, 30)), np.ones((20, 30)), np.eye(20), np.zeros((8, 4, 3, 3))], ids=str)
@pytest.mark.parametrize("convention", ["brockett", "weightwatcher", "deepdataprofiler"])
def test_no_nan_without_its_reason(engine: str, W: Any, convention: str) -> None:
    row = rm.layer_metrics(W, convention=convention).row()
    for field, value in row.items():
        assert not (isinstance(value, float) and not math.isfinite(value)), field
    assert row["alpha"] is None
    assert "alpha: " in row["declined"]
    if not np.any(W):
        assert row["log_norm"] is row["stable_rank"] is row["phase"] is None
        assert "norms: all singular values are zero" in row["declined"]
    elif np.all(W == 1):
        assert (row["rank"], row["phase"]) == (1, "rank_collapse")
        assert row["stable_rank"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("call", "argument", "message"),
    [
        (lambda W: rm.layer_metrics(), "W", "either W or singular_values"),
        (lambda W: rm.layer_metrics(W, singular_values=[1.0]), "W", "either W or singular_values"),
        (lambda W: rm.layer_metrics(W[0]), "W", r"got shape \(12,\)"),
        (lambda W: rm.layer_metrics(W[:0]), "W", "must not be empty"),
        (lambda W: rm.layer_metrics(W, shape=(2, 2)), "shape", "goes with singular_values"),
        (lambda W: rm.layer_metrics(W, convention="ww"), "convention", "'brockett', 'weightwatcher'"),
        (lambda W: rm.layer_metrics(W, conv="fft"), "conv", "'unfold', 'slices'"),
        (lambda W: rm.layer_metrics(W, log_base=1), "log_base", "other than 1"),
        (lambda W: rm.layer_metrics(W, log_base=-2), "log_base", "above 0"),
        (lambda W: rm.layer_metrics(W, criteria={}), "criteria", "a PhaseCriteria"),
        (lambda W: rm.layer_metrics(W * 1j), "W", "complex"),
        (lambda W: rm.layer_metrics(singular_values=[1.0]), "shape", "is needed"),
        (lambda W: rm.layer_metrics(singular_values=[1.0], shape=4), "shape", r"\(out, in\)"),
        (lambda W: rm.layer_metrics(singular_values=[1.0], shape=(2, 2)), "singular_values", "expected 2"),
        (lambda W: rm.layer_metrics(singular_values=[-1.0, 1], shape=(2, 2)), "singular_values", "at least 0"),
        (lambda W: rm.universal_metric(W), "layers", "a list of layers"),
        (lambda W: rm.universal_metric([W], normalization="max"), "normalization", "'mean', 'sum'"),
        (lambda W: rm.universal_metric([W, -W[0] - 1]), r"layers[1]", "at least 0"),
        (lambda W: rm.universal_metric([W, np.nan * W]), r"layers[1]", "index"),
        (
            lambda W: rm.universal_metric([rm.layer_metrics(W), rm.layer_metrics(W, convention="weightwatcher")]),
            "layers",
            "several conventions",
        ),
    ],
)
def test_bad_arguments(engine: str, call: Any, argument: str, message: str) -> None:
    with pytest.raises(bk.InvalidArgument, match=message) as caught:
        call(weights("noise", (15, 12), 1))
    assert caught.value.argument == argument


def test_the_index_of_a_nan_is_the_callers(engine: str) -> None:
    for shape, index in (((12, 15), (3, 4)), ((6, 5, 3, 2), (4, 1, 2, 1))):
        W = weights("noise", shape, 1)
        W[index] = np.nan
        for conv in ("unfold", "slices"):
            with pytest.raises(bk.NonFinite) as caught:
                rm.layer_metrics(W, conv=conv)
            assert (caught.value.argument, caught.value.index) == ("W", index)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_quantized_weights_are_refused_by_name(engine: str) -> None:
    torch = pytest.importorskip("torch")
    W = torch.quantize_per_tensor(torch.randn(12, 12), 0.1, 0, torch.qint8)
    with pytest.raises(bk.InvalidType, match="quantized"):
        rm.layer_metrics(W)


# --- a model ----------------------------------------------------------------------------------------------------------


def test_universal_metric(engine: str) -> None:
    layers = [LAYERS["heavy"], LAYERS["conv"], np.eye(4), LAYERS["square"]]
    for convention, base in (("brockett", 10.0), ("weightwatcher", 10.0), ("deepdataprofiler", math.e)):
        metrics = [rm.layer_metrics(W, convention=convention) for W in layers]
        terms = [m.alpha * math.log(m.lambda_max) / math.log(base) for m in metrics if m.alpha is not None]
        for given in (layers, metrics):
            mean = rm.universal_metric(given, convention=convention)
            assert mean.value == pytest.approx(np.mean(terms), rel=1e-9)
            assert (mean.n_layers, mean.log_base, mean.normalization) == (3, base, "mean")
            assert list(mean.declined) == [2]
            assert "a fit needs 10" in mean.declined[2]
            assert mean.terms[2] is None
        total = rm.universal_metric(metrics, convention=convention, normalization="sum", log_base=2)
        assert total.value == pytest.approx(np.sum(terms) * math.log(base) / math.log(2), rel=1e-9)
    nothing = rm.universal_metric([np.eye(3)])
    assert (nothing.value, nothing.n_layers) == (None, 0)
    assert rm.universal_metric([]).value is None


@pytest.mark.parametrize("value", ["many", float("nan"), float("inf"), None])
def test_phase_criteria_are_numbers(value: Any) -> None:
    with pytest.raises(bk.InvalidArgument, match="spike_share: expected"):
        rm.PhaseCriteria(spike_share=value)
    assert rm.PhaseCriteria(spike_share=np.float32(0.25)).spike_share == 0.25
