"""Adapters of tools that cut singular value decompositions: ASVD, GaLore, mergekit, against float64 NumPy."""

from __future__ import annotations

import types
import warnings
from typing import Any

import numpy as np
import pytest

import brockett as bk

torch = pytest.importorskip("torch")

from brockett.integrations import asvd, galore, mergekit
from tensors import EPS, close, values

nn = torch.nn


# --- ASVD -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("shape", [(9, 14), (14, 9), (2, 9, 14)], ids=str)
def test_svd_lowrank_is_exact(engine: str, dtype: Any, shape: tuple[int, ...]) -> None:
    A = torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    before = A.clone()
    U, S, V = asvd.svd_lowrank(A, q=4, niter=0)
    u, s, vt = np.linalg.svd(values(A), full_matrices=False)
    assert U.dtype == S.dtype == V.dtype == dtype
    assert torch.equal(A, before)
    assert U.shape == (*shape[:-1], 4)
    assert V.shape == (*shape[:-2], shape[-1], 4)
    assert S.shape == (*shape[:-2], 4)
    np.testing.assert_allclose(values(S), s[..., :4], rtol=4 * EPS[dtype] + 1e-7)
    product = values(U) * values(S)[..., None, :] @ np.swapaxes(values(V), -1, -2)
    close(torch.from_numpy(product), u[..., :4] * s[..., None, :4] @ vt[..., :4, :], 20 * EPS[dtype])


def test_svd_lowrank_keeps_the_contract_of_torch() -> None:
    A = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    M = A.mean(dim=0).expand(7, 5)
    np.testing.assert_allclose(
        values(asvd.svd_lowrank(A, 3, M=M)[1]), np.linalg.svd(values(A - M), compute_uv=False)[:3], rtol=1e-5
    )
    assert [tuple(part.shape) for part in asvd.svd_lowrank(A, 0)] == [(7, 0), (0,), (5, 0)]
    with pytest.raises(ValueError, match="q: expected at most"):
        asvd.svd_lowrank(A, 6)
    with pytest.raises(bk.NonFinite):
        asvd.svd_lowrank(A / 0, 2)
    A.requires_grad_()
    asvd.svd_lowrank(A, 2)[1].sum().backward()  # autograd goes to torch
    assert A.grad is not None


class SVDLinear:
    """The contract of ASVD4LLM's `SVDLinear.from_linear`: names looked up in torch, V over the scales of the inputs."""

    @staticmethod
    def from_linear(linear: Any, param_ratio: float, act_aware: bool = False) -> tuple[Any, Any, Any]:
        rank = int(linear.weight.numel() * param_ratio) // (linear.in_features + linear.out_features)
        w = linear.weight.data.float()
        scale = linear.input_abs_mean + 1e-6 if act_aware else torch.ones(linear.in_features)
        U, S, V = torch.svd_lowrank(w * scale.view(1, -1), q=rank)
        return U, S, V / scale.view(-1, 1)


def test_asvd_is_taken_over() -> None:
    linear = nn.Linear(40, 30)
    linear.input_abs_mean = torch.logspace(0, 2, 40)
    originals = torch.svd_lowrank, torch.svd
    with asvd.accelerated():
        U, S, V = SVDLinear.from_linear(linear, 0.5, act_aware=True)
        left, s, right = torch.svd(linear.weight.data.half(), compute_uv=False)
        full = torch.svd(linear.weight.data)
        B = torch.randn(4, 3, requires_grad=True)
        torch.svd(B, compute_uv=False)[1].sum().backward()
        assert B.grad is not None
    assert (torch.svd_lowrank, torch.svd) == originals
    with pytest.raises(RuntimeError, match="stop"), asvd.accelerated():
        raise RuntimeError("stop")
    assert (torch.svd_lowrank, torch.svd) == originals
    scale = values(linear.input_abs_mean) + 1e-6
    u, sigma, vt = np.linalg.svd(values(linear.weight) * scale, full_matrices=False)
    rank = 600 // 70
    close((U * S) @ V.T, (u[:, :rank] * sigma[:rank]) @ vt[:rank] / scale, 1e-5)
    wanted = np.linalg.svd(values(linear.weight), compute_uv=False)
    np.testing.assert_allclose(values(s), wanted, atol=2e-3)
    assert s.dtype == torch.float16
    assert left.shape == (30, 30)
    assert right.shape == (40, 40)
    assert not left.any()
    np.testing.assert_allclose(values(full.S), wanted, rtol=1e-4)


class Tagged(torch.Tensor):
    """What PyTorch's functions give back in kind."""


def recorded(function: Any) -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return [node.kind() for node in torch.jit.trace(function, torch.eye(3)).graph.nodes()]


def compiled(function: Any) -> Any:
    return torch.compile(function, backend="eager", fullgraph=True)


CALLS = {
    "integers": lambda: torch.svd(torch.arange(9).reshape(3, 3), compute_uv=False),
    "low rank of integers": lambda: torch.svd_lowrank(torch.arange(9).reshape(3, 3), q=1),
    "a list": lambda: torch.svd([[1.0]], compute_uv=False),
    "empty": lambda: torch.svd(torch.zeros(0, 3), compute_uv=False).S,
    "vmap": lambda: torch.vmap(lambda A: torch.svd(A, compute_uv=False).S)(torch.arange(24.0).reshape(2, 3, 4)),
    "meta": lambda: torch.svd(torch.zeros(4, 4, device="meta"), compute_uv=False).S.shape,
    "subclass": lambda: type(torch.svd(torch.eye(3).as_subclass(Tagged), compute_uv=False).S),
    "low rank of a subclass": lambda: type(torch.svd_lowrank(torch.eye(3).as_subclass(Tagged), q=1)[1]),
    "less a subclass": lambda: type(torch.svd_lowrank(torch.eye(3), q=1, M=torch.ones(3, 3).as_subclass(Tagged))[1]),
    "less another dtype": lambda: torch.svd_lowrank(torch.eye(3), q=1, M=torch.ones(3, 3).double()),
    "compiled": lambda: compiled(lambda A: torch.svd(A, compute_uv=False).S)(torch.eye(3)),
    "traced": lambda: recorded(lambda A: torch.svd(A, compute_uv=False).S),
    "symbolic": lambda: torch.fx.symbolic_trace(lambda A: torch.svd_lowrank(A, q=1)[1]).code,
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_what_asvd_leaves_to_pytorch(call: Any) -> None:
    try:
        expected = call()
    except Exception as error:
        with asvd.accelerated(), pytest.raises(type(error), match=str(error).partition("(")[0]):
            call()
    else:
        with asvd.accelerated():
            found = call()
        assert torch.equal(found, expected) if isinstance(found, torch.Tensor) else found == expected


def test_sensitivity() -> None:
    model = nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 3))
    found = asvd.sensitivity(model)
    assert list(found) == ["0", "2"]
    assert list(found["0"]) == [i / 10 for i in range(1, 10)]
    for name, row in found.items():
        W = values(model[int(name)].weight)
        rank = np.linalg.norm(W) / np.linalg.norm(W, 2)
        np.testing.assert_allclose(list(row.values()), [-rank * (i / 10) ** 0.1 for i in range(1, 10)], rtol=1e-6)
    assert asvd.sigma_max(torch.ones(2, 3, 2, 2)) == pytest.approx(np.sqrt(24))
    assert asvd.sigma_max(np.zeros((2, 2))) == 0
    model[2].weight.data.zero_()
    with pytest.raises(bk.InvalidArgument, match="weight of layer '2': is zero"):
        asvd.sensitivity(model)
    model[0].weight.data[1, 2] = float("nan")
    with pytest.raises(bk.InvalidArgument, match=r"weight of layer '0': NaN or Inf at index \(1, 2\)"):
        asvd.sensitivity(model)
    with pytest.raises(bk.InvalidArgument, match=r"has no torch.nn.Linear"):
        asvd.sensitivity(nn.Tanh())


# --- GaLore, mergekit -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("shape", [(9, 5), (5, 9)], ids=str)
def test_galore_projections(dtype: Any, shape: tuple[int, int]) -> None:
    G = torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    u, _, vt = np.linalg.svd(values(G), full_matrices=False)
    right, left = galore.get_orthogonal_matrix(G, 3, "right"), galore.get_orthogonal_matrix(G, 3, "left")
    both = galore.get_orthogonal_matrix(G, 99, "full")
    assert right.dtype == left.dtype == dtype
    assert right.shape == (3, shape[1])
    assert left.shape == (shape[0], 3)
    assert isinstance(both, list)
    assert [tuple(part.shape) for part in both] == [(shape[0], 5), (5, shape[1])]
    close(right.double().T @ right.double(), vt[:3].T @ vt[:3], 20 * EPS[dtype])
    close(left.double() @ left.double().T, u[:, :3] @ u[:, :3].T, 20 * EPS[dtype])
    with pytest.raises(bk.InvalidArgument, match="left, right or full"):
        galore.get_orthogonal_matrix(G, 3, "top")
    with pytest.raises(bk.NonFinite):
        galore.get_orthogonal_matrix(G / 0, 3, "right")


def test_galore_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real file of galore-torch, without its package, which imports bitsandbytes."""
    import importlib.util
    import sys
    from importlib import metadata

    try:
        path = metadata.distribution("galore-torch").locate_file("galore_torch/galore_projector.py")
    except metadata.PackageNotFoundError:
        pytest.skip("galore-torch is an optional peer")
    spec = importlib.util.spec_from_file_location("galore_torch.galore_projector", str(path))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, "galore_torch", types.ModuleType("galore_torch"))
    monkeypatch.setitem(sys.modules, "galore_torch.galore_projector", module)
    original = module.GaLoreProjector.get_orthogonal_matrix
    for kind in ("std", "reverse_std", "left", "right", "full"):
        for shape in ((8, 6), (6, 8)):
            G = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
            peer = module.GaLoreProjector(3, proj_type=kind)
            wanted = peer.project_back(peer.project(G, 0))
            with galore.accelerated():
                ours = module.GaLoreProjector(3, proj_type=kind)
                close(ours.project_back(ours.project(G, 0)), values(wanted), 1e-5)
    assert module.GaLoreProjector.get_orthogonal_matrix is original
    monkeypatch.delattr(module, "GaLoreProjector")
    with pytest.raises(bk.Unsupported, match=r"galore-torch \S+ has no .*GaLoreProjector.*1\.0"), galore.accelerated():
        pass


@pytest.mark.parametrize("dtype", EPS)
def test_mergekit_low_rank_decomposition(dtype: Any) -> None:
    W = torch.randn(9, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
    L, R = mergekit.low_rank_decomposition(W, 4)
    u, s, vt = np.linalg.svd(values(W), full_matrices=False)
    assert L.shape == (4, 6)
    assert R.shape == (9, 4)
    assert L.dtype == R.dtype == dtype
    close(R.double() @ L.double(), (u[:, :4] * s[:4]) @ vt[:4], 20 * EPS[dtype])
    np.testing.assert_allclose(np.linalg.norm(values(R), axis=0), np.sqrt(s[:4]), rtol=20 * EPS[dtype])
    assert mergekit.low_rank_decomposition(W, 99)[0].shape == (6, 6)
    with pytest.raises(bk.InvalidArgument, match="max_rank"):
        mergekit.low_rank_decomposition(W, 0)
    moved = r"has no .*low_rank_decomposition.*0\.0\.5"
    with pytest.raises(bk.Unsupported, match=moved), mergekit.accelerated(types.SimpleNamespace()):
        pass
