"""The subclass for danmlr/svr's class, which is on no package index: on a class with its contract."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import brockett as bk

torch = pytest.importorskip("torch", reason="the class works on PyTorch tensors")
svr_class = bk.integrations.svr.svr_class


class SVR:
    """Layers (out, in) or (out, in, k, k), decomposed one by one by `self.svd`, joined by squared overlaps."""

    def __init__(self, weights: list[Any], max_dim_svd: int = 128) -> None:
        self.max_dim_svd = max_dim_svd
        self.U, self.S, self.V = [], [], []
        for W in weights:
            u, s, v = self.svd(W.flatten(start_dim=1))
            # svr.py's own lines: they need tensors that can be reshaped, and s on the CPU
            v = v.reshape(W.shape[1], *W.shape[2:], len(s))
            self.U.append(u.to("cpu"))
            self.S.append(s.to("cpu"))
            self.V.append(v.to("cpu"))
        self.adjacency = []
        for u, v in zip(self.U, self.V[1:], strict=False):
            a = torch.tensordot(v.transpose(0, -1), u, 1)
            self.adjacency.append((a**2).sum(dim=list(range(1, a.ndim - 1))) if a.ndim > 2 else a**2)

    def svd(self, A: Any) -> tuple[Any, Any, Any]:
        raise AssertionError("the subclass has its own")


def weights(dtype: Any = None) -> list[Any]:
    generator = torch.Generator().manual_seed(1)
    shapes = [(24, 3, 3, 3), (40, 24, 3, 3), (30, 40), (6, 30)]
    return [torch.randn(shape, generator=generator).to(dtype or torch.float32) for shape in shapes]


@pytest.mark.parametrize("kept", [4, 8, 128])
def test_representation(kept: int) -> None:
    """Values, vectors and overlaps by NumPy in float64; layers with fewer modes than are wanted have them all."""
    layers = weights()
    found = svr_class(SVR)(layers, max_dim_svd=kept)
    U, V = [], []
    for i, W in enumerate(layers):
        u, s, vt = np.linalg.svd(W.flatten(start_dim=1).numpy().astype(float), full_matrices=False)
        k = min(kept, len(s))
        np.testing.assert_allclose(found.S[i], s[:k], rtol=1e-5)
        assert {part.dtype for part in (found.U[i], found.S[i], found.V[i])} == {torch.float32}
        assert tuple(found.U[i].shape) == (W.shape[0], k)
        # u diag(s) vᵀ, whatever the signs: v and not its transpose
        ours = found.U[i].double() * found.S[i].double() @ found.V[i].reshape(-1, k).double().T
        np.testing.assert_allclose(ours, (u[:, :k] * s[:k]) @ vt[:k], atol=2e-5 * s[0])
        U.append(u[:, :k])
        V.append(vt[:k].T.reshape(*W.shape[1:], k))
    for i, (u, v) in enumerate(zip(U, V[1:], strict=False)):
        a = np.tensordot(np.moveaxis(v, -1, 0), u, axes=(1, 0)) ** 2
        np.testing.assert_allclose(found.adjacency[i], a.sum(axis=tuple(range(1, a.ndim - 1))), atol=1e-4)


def test_a_layer_that_breaks_the_original(rng: np.random.Generator) -> None:
    """SciPy 1.17's svds returns reversed views, which torch.tensor refuses; here nothing is reversed."""
    A = torch.tensor(rng.normal(size=(50, 70)))
    u, s, v = svr_class(SVR)([], max_dim_svd=5).svd(A)
    assert (u.dtype, s.dtype, v.dtype) == (torch.float64,) * 3
    assert (tuple(u.shape), tuple(v.shape)) == ((50, 5), (70, 5))
    assert torch.all(torch.diff(s) <= 0)
    np.testing.assert_allclose(A @ v, u * s, atol=1e-5 * float(s[0]))


def test_trainable_and_half_precision_weights() -> None:
    W = torch.nn.Linear(20, 12).weight
    u, s, _ = svr_class(SVR)([], max_dim_svd=4).svd(W)
    assert not u.requires_grad
    np.testing.assert_allclose(s, np.linalg.svd(W.detach().numpy(), compute_uv=False)[:4], rtol=1e-5)
    assert W.requires_grad
    u, s, v = svr_class(SVR)([], max_dim_svd=4).svd(W.detach().to(torch.bfloat16))
    assert {part.dtype for part in (u, s, v)} == {torch.float32}


def test_the_class_stays_what_it_is() -> None:
    fast = svr_class(SVR)
    assert issubclass(fast, SVR)
    assert (fast.__name__, fast.__doc__, fast.__module__) == (SVR.__name__, SVR.__doc__, SVR.__module__)
    with pytest.raises(AssertionError, match="its own"):
        SVR([], 3).svd(torch.eye(3))


def test_other_classes_are_refused() -> None:
    with pytest.raises(bk.InvalidType, match="SVR: expected a class"):
        svr_class(SVR([]))
    with pytest.raises(bk.Unsupported, match=r"has no method svd\(self, A\); this adapter was made for danmlr/svr"):
        svr_class(dict)

    class Moved:
        def svd(self, A: Any, k: int) -> None: ...

    with pytest.raises(bk.Unsupported, match="Moved has no method"):
        svr_class(Moved)


def test_nan_is_refused() -> None:
    A = torch.eye(4)
    A[1, 2] = float("nan")
    with pytest.raises(bk.NonFinite, match=r"\(1, 2\)"):
        svr_class(SVR)([]).svd(A)
