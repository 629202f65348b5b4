"""WeightWatcher with brockett inside, against WeightWatcher alone."""

from __future__ import annotations

import copy
import importlib
import logging
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import brockett as bk

torch = pytest.importorskip("torch", reason="WeightWatcher reads PyTorch modules")
pytest.importorskip("weightwatcher", reason="pip install --no-deps weightwatcher==0.7.7 powerlaw==1.5 tqdm")
linalg = importlib.import_module("scipy.linalg")
adapter = bk.integrations.weightwatcher
rmt = importlib.import_module("weightwatcher.RMT_Util")
main = importlib.import_module("weightwatcher.weightwatcher")
power = importlib.import_module("weightwatcher.WW_powerlaw")


@pytest.fixture(autouse=True)
def _quiet(capsys: pytest.CaptureFixture[str]) -> Iterator[None]:
    """The peer logs and prints much; and a test that leaves its names bound fails."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
    assert not adapter.installed()


def heavy(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """Noise and a few directions whose strengths fall like a power law, float32."""
    rows, columns = shape[0], int(np.prod(shape[1:]))
    r = max(1, min(rows, columns) // 4)
    W = rng.normal(size=(rows, columns)) / np.sqrt(columns)
    W += (rng.normal(size=(rows, r)) * np.arange(1, r + 1) ** -0.7) @ rng.normal(size=(r, columns)) / np.sqrt(columns)
    return torch.tensor(W.reshape(shape), dtype=torch.float32)


def layer(weight: Any) -> Any:
    rows, columns = weight.shape[:2]
    module = torch.nn.Linear(columns, rows) if weight.ndim == 2 else torch.nn.Conv2d(columns, rows, weight.shape[2:])
    module.weight.data = weight
    return module


@pytest.fixture
def model(rng: np.random.Generator) -> Any:
    """Tall, wide, square, nearly singular, exactly singular and small layers, a convolution and an embedding."""
    square = heavy(rng, (64, 64)).double()
    U, s, Vt = np.linalg.svd(square.numpy())
    s[-3:] = s[0] * np.array([3e-5, 2e-6, 4e-7])
    near = torch.tensor((U * s) @ Vt, dtype=torch.float32)
    twice = heavy(rng, (40, 90)).repeat(2, 1)
    embedding = torch.nn.Embedding(70, 32)
    embedding.weight.data = heavy(rng, (70, 32))
    shapes = [(96, 40), (40, 110), (72, 72), (15, 30), (48, 20, 3, 3), (20, 24, 1, 1)]
    return torch.nn.Sequential(*(layer(heavy(rng, shape)) for shape in shapes), layer(near), layer(twice), embedding)


def analyze(model: Any, **options: Any) -> Any:
    np.random.seed(5)  # noqa: NPY002 (the generator that the peer draws from)
    return main.WeightWatcher(model=model).analyze(**options)


def both(model: Any, **options: Any) -> tuple[Any, Any]:
    """The table without brockett, and with it; what the peer decomposes with must not be called in the second run."""
    alone = analyze(model, **options)
    with adapter.accelerated(), pytest.MonkeyPatch.context() as patch:
        for name in ("svd", "eig"):
            patch.setattr(linalg, name, None)
        within = analyze(model, **options)
    return alone, within


def assert_same(alone: Any, within: Any) -> None:
    assert list(alone.columns) == list(within.columns)
    assert len(alone) == len(within) > 0
    for column in alone.columns:
        one, two = alone[column].to_numpy(), within[column].to_numpy()
        if alone[column].dtype.kind in "fiu":
            # relative to the column's own size where a value is rounding: the smallest σ of a singular matrix
            scale = np.abs(one).max() if column != "sv_min" else alone["sv_max"].to_numpy()
            np.testing.assert_array_less(np.abs(two - one), 1e-6 * np.abs(one) + 1e-12 * scale + 1e-300, err_msg=column)
        else:
            assert [str(value) for value in one] == [str(value) for value in two], column


OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "accurate": {"svd_method": "accurate"},
    "randomize": {"randomize": True},
    "mp_fit": {"mp_fit": True},
    "slices": {"pool": False},
    "detX": {"detX": True},
    "fingers": {"fix_fingers": "clip_xmax", "max_fingers": 4},
    "few values": {"max_evals": 30},
    "inverse": {"inverse": True, "layers": [1, 2, 3]},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_same_table(model: Any, options: dict[str, Any]) -> None:
    """Every column to 1e-6: the smallest values of singular layers and random matrices of one seed among them."""
    assert_same(*both(model, min_evals=0, **options))


def test_same_vectors(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Localization of eigenvectors, of the layers whose eigenvectors are determined.

    xmin is an eigenvalue itself, and whether rounding puts its vector into the bulk or the tail is up to the BLAS: it
    is moved off in both runs.
    """
    original = main.WeightWatcher.apply_analyze_eigenvectors

    def moved(self: Any, ww_layer: Any, params: Any = None) -> Any:
        xmin = ww_layer.xmin
        ww_layer.xmin = xmin * (1 - 1e-9)
        original(self, ww_layer, params)
        ww_layer.xmin = xmin

    monkeypatch.setattr(main.WeightWatcher, "apply_analyze_eigenvectors", moved)
    alone, within = both(model[:6], min_evals=0, vectors=True)
    assert "tail_var_part_ratio" in alone.columns
    assert_same(alone, within)


@pytest.mark.parametrize("options", [{"fit": "TPL", "pl_package": "powerlaw"}, {"pl_package": "powerlaw"}])
def test_other_fits_are_the_originals(model: Any, options: dict[str, Any]) -> None:
    alone, within = both(model[:2], min_evals=0, **options)
    assert (alone["status"] == "success").all()
    assert_same(alone, within)


def test_smoothing_is_the_best_approximation(model: Any) -> None:
    """WeightWatcher's randomized one is off by percents; leaving out the strongest, both are exact."""
    for kept in (10, -10):
        weights = [module.weight.detach().numpy().astype(float) for module in model[:2]]
        smooth = copy.deepcopy(model[:2])
        with adapter.accelerated():
            main.WeightWatcher(model=smooth).SVDSmoothing(model=smooth, method="svd", percent=kept / 40)
        for W, module in zip(weights, smooth, strict=True):
            U, s, Vt = np.linalg.svd(W, full_matrices=False)
            s[slice(kept, None) if kept > 0 else slice(-kept)] = 0
            np.testing.assert_allclose(module.weight.detach().numpy(), (U * s) @ Vt, atol=1e-5 * np.abs(W).max())


# --- the functions that take the places -----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(30, 12), (12, 30), (20, 20), (7, 1)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_contracts(rng: np.random.Generator, shape: tuple[int, int], dtype: type) -> None:
    W = rng.normal(size=shape).astype(dtype)
    m, n = shape
    k, eps = min(shape), np.finfo(dtype).eps
    reference = np.linalg.svd(W.astype(float), compute_uv=False)
    with adapter.accelerated():
        values, (U, s, Vh) = rmt.svd_vals(W, method="fast"), rmt.svd_full(W, method="fast")
        few = max(1, k // 3)
        top, (u, t, vh) = rmt.svd_values(W, few), rmt.svd_lowrank(W, few)
        smooth = rmt.smooth_W_switch(W, few)
    np.testing.assert_allclose(values, reference, rtol=1e-8)
    assert (U.shape, s.shape, Vh.shape) == ((m, m), (k,), (n, n))
    assert {U.dtype, s.dtype, Vh.dtype} == {np.dtype(dtype)}
    np.testing.assert_allclose(U.T @ U, np.eye(m), atol=50 * eps)
    np.testing.assert_allclose(Vh @ Vh.T, np.eye(n), atol=50 * eps)
    np.testing.assert_allclose((U[:, :k] * s) @ Vh[:k], W, atol=50 * eps * s[0])
    np.testing.assert_allclose(s, reference, rtol=100 * eps, atol=50 * eps * s[0])
    s[1:] = 0  # WeightWatcher writes into it
    assert np.all(np.diff(t) >= 0)
    np.testing.assert_allclose(np.sort(top)[::-1], reference[:few], rtol=1e-5)
    np.testing.assert_allclose(u.T @ W @ vh.T, np.diag(t), atol=1e-5 * reference[0])
    assert smooth.shape == W.shape
    assert smooth.dtype == W.dtype
    full = np.linalg.svd(W.astype(float), full_matrices=False)
    np.testing.assert_allclose(smooth, (full[0][:, :few] * full[1][:few]) @ full[2][:few], atol=1e-5 * reference[0])


@pytest.mark.parametrize("n", [40, 200])
@pytest.mark.parametrize("count", [1, 3, 11])
def test_smallest_values(rng: np.random.Generator, n: int, count: int) -> None:
    """Down to 1e-9 of the largest, where squares have lost them: what is planted comes back."""
    U, V = (np.linalg.qr(rng.normal(size=(n, n)))[0] for _ in range(2))
    planted = np.concatenate([np.linspace(10, 1, n - count), np.geomspace(1e-5, 1e-9, count)])
    W = (U * planted) @ V.T
    with adapter.accelerated():
        found = np.sort(rmt.svd_vals(W))[::-1]
    # forming W rounds by ε s₁
    np.testing.assert_allclose(found, planted, rtol=2.5e-7, atol=2e-14)
    assert abs(bk.singular_values(W, method="gram")[-1] / planted[-1] - 1) > 1e-6


def test_singular_and_zero_matrices(rng: np.random.Generator) -> None:
    W = rng.normal(size=(30, 30))
    W[:, 3] = W[:, 4]
    for one in (W, np.zeros((4, 4)), np.zeros((3, 5))):
        with adapter.accelerated():
            found = rmt.svd_vals(one)
        np.testing.assert_allclose(found, np.linalg.svd(one, compute_uv=False), atol=1e-13)
        assert rmt.calc_rank_loss(found, max(one.shape)) == min(one.shape) - np.linalg.matrix_rank(one)


def test_what_is_not_taken(rng: np.random.Generator) -> None:
    """Complex matrices and eigenvectors of one that is not symmetric come from the originals, as they were."""
    Z = rng.normal(size=(6, 6)) + 1j * rng.normal(size=(6, 6))
    A = rng.normal(size=(6, 6))
    expected, values = rmt.svd_vals(Z), rmt.eig_full(A)
    with adapter.accelerated():
        np.testing.assert_array_equal(rmt.svd_vals(Z), expected)
        for one, two in zip(rmt.eig_full(A), values, strict=True):
            np.testing.assert_array_equal(one, two)


def test_eigenvectors_and_their_table(rng: np.random.Generator) -> None:
    """One column after the other from the table; foreign, shifted and constant vectors by the originals."""
    W = rng.normal(size=(30, 50))
    X = W @ W.T
    X = (X + X.T) / 2
    X[:4] = X[:, :4] = 0
    X[:4, :4] = 100 * np.kron([[1, 0], [0, 2]], [[2, 1], [1, 2]])  # eigenvectors (1, ±1, 0, …)/√2: many equal entries
    metrics = ("discrete_entropy", "localization_ratio", "participation_ratio")
    originals = [getattr(main, name) for name in metrics]
    with adapter.accelerated():
        values, V = rmt.eig_full(X)
        np.testing.assert_allclose(X @ V, V * values, atol=1e-12 * values[-1])
        for name, original in zip(metrics, originals, strict=True):
            ours = getattr(main, name)
            for column in range(30):
                assert ours(V[:, column]) == pytest.approx(original(V[:, column]), rel=1e-13), (name, column)
            for other in (V[1], V[3:, 2], V[:, 2].copy(), np.ones(8), V[::-1, 4]):
                assert ours(other) == original(other)
        assert main.discrete_entropy(V[:, 1], 10) == originals[0](V[:, 1], 10)


@pytest.mark.parametrize("n", [19, 20, 57, 300])
@pytest.mark.parametrize("limits", [{}, {"xmin": 1.3}, {"xmax": 4.0}, {"xmax": "force"}])
def test_tail_fit(rng: np.random.Generator, n: int, limits: dict[str, Any]) -> None:
    """Every attribute that is read of it, those that only plots read too, to the last bit."""
    data = rng.permutation((1 - rng.random(n)) ** (-1 / 1.5))
    alone = power.pl_fit(data=data, **limits)
    with adapter.accelerated():
        within = main.pl_fit(data=data, **limits)
    assert isinstance(within, power.WWFit)
    for name in ("alpha", "D", "sigma", "xmin", "xmax", "N", "i_min", "i_max", "distribution"):
        assert getattr(within, name) == getattr(alone, name), name
    for name in ("data", "xmins", "alphas", "Ds", "sigmas"):
        np.testing.assert_array_equal(getattr(within, name), getattr(alone, name), err_msg=name)
    assert str(within) == str(alone)
    assert within.power_law is within
    laws = ("power_law", "exponential")
    assert within.distribution_compare(*laws) == alone.distribution_compare(*laws)
    with pytest.raises(AttributeError, match="nothing"):
        _ = within.nothing


def test_tail_fit_of_repeated_values_is_the_originals(rng: np.random.Generator) -> None:
    data = np.append(np.repeat((1 - rng.random(30)) ** (-1 / 1.5), 2), 1e3)
    alone = power.pl_fit(data=data)
    with adapter.accelerated():
        within = power.pl_fit(data=data)
    assert (within.alpha, within.D, within.xmin) == (alone.alpha, alone.D, alone.xmin)


@pytest.mark.parametrize("Q", [1, 1.5, 4.0])
def test_density_fit(rng: np.random.Generator, Q: float) -> None:
    """The same σ to the last bits, since it is the same estimate and the same search."""
    m = 120
    for strength in (0.0, 6.0):
        W = rng.normal(size=(int(Q * m), m))
        W[:, 0] *= 1 + strength
        evals = np.linalg.svd(W, compute_uv=False) ** 2
        evals *= m / evals.sum()
        alone = rmt.fit_density_with_range(evals, Q, bw=0.1)
        with adapter.accelerated():
            within = main.fit_density_with_range(evals, Q, bw=0.1)
        np.testing.assert_allclose(within, alone, rtol=1e-12)


# --- given back -------------------------------------------------------------------------------------------------------


def bound() -> dict[str, Any]:
    """Every name of the peer's modules."""
    spaces = {"rmt": rmt, "main": main, "power": power, "class": main.WeightWatcher}
    return {
        f"{where}.{name}": value
        for where, space in spaces.items()
        for name, value in vars(space).items()
        if name != "__warningregistry__"  # there from a module's first warning on
    }


def changed(before: dict[str, Any]) -> set[str]:
    return {name for name, value in bound().items() if before.get(name) is not value}


def test_names_are_given_back() -> None:
    before = bound()
    with adapter.accelerated():
        assert {"rmt._svd_vals_fast", "main.pl_fit", "class.combined_eigenvalues"} <= changed(before)
        within = bound()
        with pytest.raises(RuntimeError, match="by hand"), adapter.accelerated():
            raise RuntimeError("by hand")
        assert not changed(within)
        adapter.install()
    assert not changed(within)
    assert adapter.installed()
    adapter.install()
    adapter.uninstall()
    assert not changed(before)
    adapter.uninstall()
    assert not changed(before)


def test_threads_that_come_and_go() -> None:
    """Blocks that overlap in time: the names stay until the last has left."""
    before, inside, leave = bound(), threading.Event(), threading.Event()

    def other() -> None:
        with adapter.accelerated():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with adapter.accelerated():
        thread.start()
        assert inside.wait(10)
    assert adapter.installed()
    leave.set()
    thread.join()
    assert not changed(before)


def test_nan_is_named_and_names_are_given_back(model: Any) -> None:
    before = bound()
    model[2].weight.data[3, 5] = float("nan")
    with pytest.raises(bk.NonFinite, match=r"\(3, 5\)"), adapter.accelerated():
        analyze(model)
    assert not changed(before)


@pytest.mark.parametrize("change", ["gone", "other parameters"])
def test_a_version_with_other_names_is_refused(monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    if change == "gone":
        monkeypatch.delattr(rmt, "_eig_full_fast")
    else:
        monkeypatch.setattr(rmt, "_eig_full_fast", lambda W, rank: None)
    before = bound()
    words = r"weightwatcher 0\.7\.7.* weightwatcher\.RMT_Util\._eig_full_fast.*tested with weightwatcher 0\.7\.7"
    with pytest.raises(bk.Unsupported, match=words):
        adapter.install()
    assert not changed(before)
