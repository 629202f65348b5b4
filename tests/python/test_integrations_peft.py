"""PiSSA, CorDA and EVA: against the definition in float64 NumPy and scikit-learn, and inside PEFT itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import brockett as bk

torch = pytest.importorskip("torch")

from brockett.integrations import peft as adapter
from tensors import EPS, Array, close, values

nn = torch.nn


def normal(*shape: int, seed: int = 0, dtype: Any = torch.float32) -> Any:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


# --- PiSSA ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("shape", [(9, 6), (6, 9)], ids=str)
def test_pissa_is_the_leading_part(engine: str, dtype: Any, shape: tuple[int, int]) -> None:
    W = normal(*shape, dtype=dtype).requires_grad_()
    before = W.detach().clone()
    A, B, residual = adapter.pissa(W, 3, scaling=2.0, niter=4)
    u, s, vt = np.linalg.svd(values(W), full_matrices=False)
    wide = torch.float32 if EPS[dtype] > 1e-6 else dtype
    assert (A.shape, B.shape, residual.shape) == ((3, shape[1]), (shape[0], 3), shape)
    assert (A.dtype, B.dtype, residual.dtype) == (wide, wide, dtype)
    close(2.0 * B @ A, (u[:, :3] * s[:3]) @ vt[:3], 1e-6)
    np.testing.assert_allclose(np.linalg.norm(values(A), axis=1), np.sqrt(s[:3] / 2), rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(values(B), axis=0), np.sqrt(s[:3] / 2), rtol=1e-6)
    close(residual, (u[:, 3:] * s[3:]) @ vt[3:], 4 * EPS[dtype])
    assert torch.equal(W, before)
    assert not residual.requires_grad


def test_pissa_of_numpy_and_what_it_refuses() -> None:
    A, _B, residual = adapter.pissa(normal(5, 4).numpy(), 2)
    assert isinstance(A, np.ndarray)
    assert A.dtype == residual.dtype == np.float32
    for words, argument in (({"r": 5}, "r"), ({"r": 0}, "r"), ({"r": 1, "scaling": 0.0}, "scaling")):
        with pytest.raises(bk.InvalidArgument, match=f"^{argument}: expected"):
            adapter.pissa(normal(5, 4), **words)
    with pytest.raises(bk.InvalidArgument, match=r"W: expected a matrix.*\(5,\)"):
        adapter.pissa(normal(5), 1)
    with pytest.raises(bk.NonFinite, match=r"index \(0, 0\)"):
        adapter.pissa(normal(5, 4) / 0, 1)


# --- CorDA ------------------------------------------------------------------------------------------------------------


def corda_by_definition(W: Array, covariance: Array, damp: float = 0.01) -> tuple[Array, Array, Array]:
    C = covariance + damp * np.mean(np.diag(covariance)) * np.eye(len(covariance))
    U, S, Vh = np.linalg.svd(W @ C, full_matrices=False)
    return S, U, (Vh @ np.linalg.inv(C)).T


def covariance_of(samples: int, m: int, dead: tuple[int, ...] = ()) -> Any:
    x = normal(samples, m, seed=7, dtype=torch.float64) * torch.logspace(0, 1.5, m, dtype=torch.float64)
    x[:, list(dead)] = 0
    return x.T @ x


@pytest.mark.parametrize("shape", [(9, 6), (6, 9)], ids=str)
@pytest.mark.parametrize("samples", [50, 3])
@pytest.mark.parametrize("method", ["ipm", "kpm"])
def test_corda_is_the_definition(engine: str, shape: tuple[int, int], samples: int, method: str) -> None:
    W, C = normal(*shape, dtype=torch.float64), covariance_of(samples, shape[1], dead=(2,))
    S, U, V = adapter.corda(W, C, 3, method)
    wanted_s, wanted_u, wanted_v = corda_by_definition(values(W), values(C))
    part = slice(None, 3) if method == "ipm" else slice(-3, None)
    np.testing.assert_allclose(values(S), wanted_s[part], rtol=1e-7)
    signs = np.sign(np.sum(values(U) * wanted_u[:, part], axis=0))
    close(U, wanted_u[:, part] * signs, 1e-6)
    close(V, wanted_v[:, part] * signs, 1e-6)
    S, U, V = adapter.corda(W, C)  # all of them: the weight itself, whatever the covariance
    close(U * S @ V.T, values(W), 1e-10)


def test_corda_of_a_singular_weight_and_half_types() -> None:
    W = normal(6, 2) @ normal(2, 8, seed=1)
    C = covariance_of(40, 8)
    S, _U, V = adapter.corda(W.bfloat16(), C, 4, "kpm")
    assert S.dtype == V.dtype == torch.float32
    low = values(W.float())
    exact = np.outer(low[:, 0], low[0])  # rank 1: five values are zero
    S, U, V = adapter.corda(exact, values(C), method="kpm", rank=4)
    wanted = corda_by_definition(exact, values(C))
    assert np.all(1e-9 * wanted[0][0] > S)
    damped = values(C) + 0.01 * np.mean(np.diag(values(C))) * np.eye(8)
    # V = C⁻¹ Q with orthonormal Q, also where S says nothing
    np.testing.assert_allclose((damped @ V).T @ (damped @ V), np.eye(4), atol=1e-6)
    assert np.abs(U * S @ V.T).max() < 1e-9 * np.abs(exact).max()
    acc = bk.Autocorrelation(8)
    acc.update(normal(30, 8))
    np.testing.assert_allclose(
        adapter.corda(W, acc, 2).S, adapter.corda(W, acc.matrix(), 2).S, rtol=1e-6
    )


def test_corda_refuses_by_name() -> None:
    W, C = normal(4, 6), covariance_of(40, 6)
    for bad, message in (
        (C[:5, :5], r"covariance of layer 'fc': expected shape \(6, 6\)"),
        (torch.zeros(6, 6), "covariance of layer 'fc': is zero"),
        (torch.triu(C), "covariance of layer 'fc': is not symmetric"),
        (C / 0, "covariance of layer 'fc': NaN or Inf"),
    ):
        with pytest.raises(bk.InvalidArgument, match=message):
            adapter.corda(W, bad, 2, name="fc")
    with pytest.raises(bk.InvalidArgument, match="method: expected one of"):
        adapter.corda(W, C, 2, "both")
    with pytest.raises(bk.InvalidArgument, match="rank: expected at most 4"):
        adapter.corda(W, C, 5)


# --- EVA --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("n_components", [1, 3])
def test_incremental_pca_is_scikit_learns(engine: str, dtype: Any, n_components: int) -> None:
    decomposition = pytest.importorskip("sklearn.decomposition", reason="scikit-learn is an optional peer")
    scale = torch.logspace(1, 0, 6, dtype=torch.float64)
    batches = [(normal(n, 6, seed=n, dtype=torch.float64) * scale + n).to(dtype) for n in (9, 20, 4)]
    before = [x.clone() for x in batches]
    ours = adapter.IncrementalPCA(n_components, lowrank=True, lowrank_seed=42)
    peer = decomposition.IncrementalPCA(n_components)
    for x in batches:
        assert ours.partial_fit(x) is ours
        peer.partial_fit(values(x))
    tolerance = 1e-10 if dtype == torch.float64 else 3e-6
    assert int(ours.n_samples_seen_) == 33
    assert ours.components_.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    signs = np.sign(np.sum(values(ours.components_) * peer.components_, axis=1))
    close(ours.components_, peer.components_ * signs[:, None], tolerance)
    for name in ("singular_values_", "explained_variance_", "explained_variance_ratio_", "mean_", "var_"):
        np.testing.assert_allclose(values(getattr(ours, name)), getattr(peer, name), rtol=tolerance, err_msg=name)
    np.testing.assert_allclose(float(ours.noise_variance_), peer.noise_variance_, rtol=100 * tolerance)
    close(ours.transform(batches[1].double()), peer.transform(values(batches[1])) * signs, tolerance)
    assert all(torch.equal(x, old) for x, old in zip(batches, before, strict=True))


def test_incremental_pca_fits_in_batches_and_refuses() -> None:
    x = normal(23, 4, dtype=torch.float64)
    pca = adapter.IncrementalPCA(2, batch_size=10)
    pca.fit(x)
    assert [(s.start, s.stop) for s in pca.gen_batches(23, 10, 4)] == [(0, 10), (10, 23)]
    assert [(s.start, s.stop) for s in pca.gen_batches(23, 10)] == [(0, 10), (10, 20), (20, 23)]
    twice = adapter.IncrementalPCA(2).partial_fit(x[:10]).partial_fit(x[10:20]).partial_fit(x[20:])
    np.testing.assert_allclose(values(pca.singular_values_), values(twice.singular_values_), rtol=1e-12)
    kept = pca.components_.clone()
    with pytest.raises(bk.InvalidArgument, match="has 3 features, the batches before had 4"):
        pca.partial_fit(x[:, :3])
    with pytest.raises(bk.InvalidArgument, match="n_components=2 needs at least as many rows"):
        pca.partial_fit(x[:1])
    with pytest.raises(bk.NonFinite, match=r"X: NaN or Inf at index \(0, 0\)"):
        pca.partial_fit(x / 0)
    with pytest.raises(bk.InvalidType, match=r"expected real numbers \(n_samples, n_features\)"):
        pca.partial_fit(x[None])
    assert int(pca.n_samples_seen_) == 23
    assert torch.equal(pca.components_, kept)
    with pytest.raises(ValueError, match="lowrank_q"):
        adapter.IncrementalPCA(4, lowrank=True, lowrank_q=3)
    with pytest.raises(ValueError, match="n_components"):
        adapter.IncrementalPCA(lowrank=True)
    constant = adapter.IncrementalPCA().partial_fit(torch.ones(3, 2))
    assert constant.n_components == 2
    assert not constant.explained_variance_ratio_.any()


# --- inside PEFT ------------------------------------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 10), nn.Linear(10, 4)

    def forward(self, x: Any) -> Any:
        return self.fc2(torch.tanh(self.fc1(x)))


@pytest.fixture
def peft() -> Any:
    return pytest.importorskip("peft", reason="PEFT is an optional peer")


@pytest.fixture
def restored(peft: Any) -> Callable[[], list[Any]]:
    from peft.tuners.lora import corda, eva, layer

    def names() -> list[Any]:
        return [
            layer.LoraLayer.pissa_init,
            corda.calib_cov_distribution,
            corda.collect_eigens_for_layer,
            eva.IncrementalPCA,
        ]

    return names


def test_pissa_inside_peft(peft: Any, restored: Callable[[], list[Any]]) -> None:
    torch.manual_seed(0)
    net, x, before = Net(), normal(5, 6), restored()
    W, out = values(net.fc1.weight), net(x)
    config = peft.LoraConfig(r=3, lora_alpha=6, target_modules=["fc1", "fc2"], init_lora_weights="pissa_niter_4")
    with adapter.accelerated():
        assert all(new is not old for new, old in zip(restored(), before, strict=True))
        model = peft.get_peft_model(net, config)
    assert restored() == before
    layer = model.base_model.model.fc1
    A, B = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    u, s, vt = np.linalg.svd(W, full_matrices=False)
    close(2 * B @ A, (u[:, :3] * s[:3]) @ vt[:3], 1e-5)
    close(layer.base_layer.weight, (u[:, 3:] * s[3:]) @ vt[3:], 1e-5)
    close(model(x), values(out), 1e-5)
    model(x).sum().backward()
    assert layer.lora_A["default"].weight.grad is not None
    assert A.is_contiguous()
    wrong = peft.LoraConfig(r=3, target_modules=["fc1"], init_lora_weights="pissa_4")
    with pytest.raises(ValueError, match="pissa_niter"), adapter.accelerated():
        peft.get_peft_model(Net(), wrong)
    assert restored() == before
    with pytest.raises(TypeError, match="float64"), adapter.accelerated():
        peft.get_peft_model(Net().double(), config)


@pytest.mark.parametrize("shape", [(20, 12), (12, 20)], ids=str)
def test_pissa_of_a_transposed_weight_can_be_saved(peft: Any, shape: tuple[int, int]) -> None:
    """safetensors refuses tensors that are not contiguous."""
    conv1d = pytest.importorskip("transformers.pytorch_utils", reason="transformers is an optional peer").Conv1D
    net = nn.Sequential(conv1d(*shape))
    W = values(net[0].weight)
    config = peft.LoraConfig(r=3, target_modules=["0"], init_lora_weights="pissa", fan_in_fan_out=True)
    with adapter.accelerated():
        layer = peft.get_peft_model(net, config).base_model.model[0]
    A, B, rest = layer.lora_A["default"].weight, layer.lora_B["default"].weight, layer.base_layer.weight
    assert all(part.is_contiguous() for part in (A, B, rest))
    close(rest + layer.scaling["default"] * (B @ A).T, W, 1e-6)


@pytest.mark.parametrize("method", ["ipm", "kpm"])
def test_corda_inside_peft(peft: Any, restored: Callable[[], list[Any]], tmp_path: Path, method: str) -> None:
    from peft.tuners.lora.corda import preprocess_corda

    torch.manual_seed(0)
    net, before = Net(), restored()
    batches = [normal(1, 7, 6, seed=s) for s in range(3)]
    weights, outs = {name: values(getattr(net, name).weight) for name in ("fc1", "fc2")}, [net(x) for x in batches]

    def config() -> Any:
        corda = peft.tuners.lora.config.CordaConfig(corda_method=method, covariance_file=str(tmp_path / "c" / "cov.pt"))
        return peft.LoraConfig(
            r=2, lora_alpha=2, target_modules=["fc1", "fc2"], init_lora_weights="corda", corda_config=corda
        )

    with adapter.accelerated():
        preprocess_corda(net, config(), run_model=lambda: [net(x) for x in batches])
        stored = torch.load(tmp_path / "c" / "cov.pt")
        C = np.mean([gram(values(x[0]) / float(x.max().abs())) for x in batches], axis=0)
        close(stored["fc1"], C, 1e-12)
        wanted = corda_by_definition(weights["fc1"], C)
        part = slice(None, 2) if method == "ipm" else slice(-2, None)
        eigens = net.fc1.eigens
        np.testing.assert_allclose(values(eigens.S_WC), wanted[0][part], rtol=1e-5)
        low = (wanted[1][:, part] * wanted[0][part]) @ wanted[2][:, part].T
        close((eigens.U_WC * eigens.S_WC) @ eigens.V_WC.T, low, 1e-5)
        model = peft.get_peft_model(net, config())
        for x, out in zip(batches, outs, strict=True):
            close(model(x), values(out), 1e-5)
        again = Net()
        preprocess_corda(again, config())  # from the file
        assert again.fc2.eigens.S_WC.shape == (2,)
    assert restored() == before
    (tmp_path / "c" / "cov.pt").unlink()
    with adapter.accelerated():
        with pytest.raises(ValueError, match="run_model"):
            preprocess_corda(Net(), config())
        broken = Net()
        bad = batches[0].clone()
        bad[0, 1, 2] = float("nan")
        with pytest.raises(bk.NonFinite, match=r"input of layer 'fc1': NaN or Inf at index \(0, 1, 2\)"):
            preprocess_corda(broken, config(), run_model=lambda: broken(bad))
        assert not broken.fc1._forward_hooks
        with pytest.raises(bk.InvalidArgument, match="layer 'fc1': its largest entry is 0"):
            preprocess_corda(broken, config(), run_model=lambda: broken(torch.zeros(1, 2, 6)))
        with pytest.raises(bk.InvalidArgument, match="layer 'fc1' was never called"):
            preprocess_corda(broken, config(), run_model=lambda: None)


def gram(rows: Array) -> Array:
    result: Array = rows.T @ rows
    return result


def test_eva_inside_peft(peft: Any, restored: Callable[[], list[Any]]) -> None:
    torch.manual_seed(0)
    net, before = Net(), restored()
    batches = [normal(12, 6, seed=s) * torch.logspace(1, -1, 6) for s in range(4)]
    config = peft.LoraConfig(
        r=2,
        target_modules=["fc1"],
        init_lora_weights="eva",
        eva_config=peft.EvaConfig(rho=1.0, tau=0.9999),
    )
    with adapter.accelerated():
        model = peft.get_peft_model(net, config, low_cpu_mem_usage=True)
        peft.initialize_lora_eva_weights(
            model,
            batches,
            forward_fn=lambda module, x: module(x),
            prepare_model_inputs_fn=None,
            prepare_layer_inputs_fn=None,
            show_progress_bar=False,
        )
    assert restored() == before
    found = values(model.base_model.model.fc1.lora_A["default"].weight)
    # the leading directions of such a spectrum are those of any of the batches seen, to a few degrees
    rows = np.concatenate([values(x) for x in batches])
    vt = np.linalg.svd(rows - rows.mean(axis=0))[2][:2]
    assert np.linalg.svd(found @ vt.T, compute_uv=False).min() > 0.98


def test_peft_of_another_version_or_none(peft: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from peft.tuners.lora import corda, layer

    original = layer.LoraLayer.pissa_init
    monkeypatch.delattr(corda, "collect_eigens_for_layer")
    moved = r"peft \S+ has no peft.tuners.lora.corda.collect_eigens_for_layer.*0\.21"
    with pytest.raises(bk.Unsupported, match=moved), adapter.accelerated():
        pass
    assert layer.LoraLayer.pissa_init is original
    monkeypatch.setitem(sys.modules, "peft.tuners.lora.eva", None)
    with pytest.raises(bk.Unsupported, match=r"has no peft.tuners.lora.eva.*0\.21"), adapter.accelerated():
        pass
