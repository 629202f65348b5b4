"""Adapters of compression tools, against their definitions in float64 NumPy, and the tool itself where it is here."""

from __future__ import annotations

import types
from typing import Any

import numpy as np
import pytest

import brockett as bk

torch = pytest.importorskip("torch")

from brockett.integrations import gptq, slicegpt, svd_llm
from tensors import EPS, Array, close, values

nn = torch.nn


def tokens(*shape: int, seed: int = 0, dtype: Any = torch.float32) -> Any:
    """Inputs with channels of very different sizes."""
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (x * torch.logspace(0, 2, shape[-1], dtype=torch.float64)).to(dtype)


def gram(*batches: Any) -> Array:
    rows = np.concatenate([values(x).reshape(-1, x.shape[-1]) for x in batches])
    result: Array = rows.T @ rows
    return result


# --- GPTQ -------------------------------------------------------------------------------------------------------------


class GPTQ:
    """The contract of IST-DASLab/gptq and AutoGPTQ 0.7.1: H = 2/n Σ x xᵀ in float32, n counting sequences."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer
        self.H = torch.zeros(layer.in_features, layer.in_features)
        self.nsamples = 0

    def add_batch(self, inp: Any, out: Any) -> None:
        inp = inp[None] if inp.ndim == 2 else inp
        added = inp.shape[0]
        rows = inp.reshape(-1, inp.shape[-1]).float()
        self.H = self.H * (self.nsamples / (self.nsamples + added)) + rows.T @ rows * (2 / (self.nsamples + added))
        self.nsamples += added


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("shape", [(3, 7, 6), (7, 6), (2, 3, 4, 6)])
def test_hessian_is_twice_the_mean_over_sequences(engine: str, dtype: Any, shape: tuple[int, ...]) -> None:
    layer, first, second = nn.Linear(6, 2), tokens(*shape, dtype=dtype), tokens(*shape, seed=1, dtype=dtype)
    first[..., 2] = second[..., 2] = 0  # a dead channel
    n = 2 * (shape[0] if len(shape) > 2 else 1)
    wanted = 2 / n * gram(first, second)
    hessian = gptq.Hessian(layer)
    state = types.SimpleNamespace(layer=layer, H=torch.zeros(6, 6), nsamples=0)
    peer = GPTQ(layer)
    H, count = torch.zeros(6, 6, dtype=torch.float64), torch.zeros(())
    for x in (first, second):
        before = x.clone()
        hessian.add_batch(x)
        gptq.add_batch(state, x, None)
        peer.add_batch(x, None) if len(shape) < 4 else None
        same, again = gptq.accumulate_hessian(x, layer, H, count)
        assert same is H
        assert again is count
        assert torch.equal(x, before)
    assert hessian.nsamples == state.nsamples == int(count) == n
    close(hessian.matrix(), wanted, 1e-14)
    close(H, wanted, 1e-14)
    assert hessian.H.dtype == state.H.dtype == torch.float32
    close(hessian.H, wanted, 1e-7)
    close(state.H, wanted, 1e-6)
    if len(shape) < 4:
        close(peer.H, wanted, 1e-5)
    for found in (hessian.matrix(), state.H):
        assert (found[2] == 0).all()
        assert (found[:, 2] == 0).all()


def test_hessian_in_single_precision_and_as_a_sum(rng: np.random.Generator) -> None:
    layer, x = nn.Linear(5, 2), tokens(4, 9, 5)
    H, n = gptq.accumulate_hessian(x, layer, torch.zeros(5, 5), 3, normalized=False, precision="single")
    assert n == 7
    close(H, 2 * gram(x), 1e-6)
    H, n = gptq.accumulate_hessian(x, layer, torch.eye(5), 4)
    close(H, 0.5 * np.eye(5) + 2 / 8 * gram(x), 1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 2, "padding": 1},
        {"dilation": 2, "padding": (2, 1)},
        {"padding": "same"},
    ],
    ids=str,
)
def test_hessian_of_a_convolution_is_that_of_unfold(options: dict[str, Any]) -> None:
    layer = nn.Conv2d(3, 4, (3, 2), **options)
    images = torch.randn(5, 3, 8, 9, generator=torch.Generator().manual_seed(0))
    images[:, 1] = 0
    padded, words = images.double(), {**options}
    if words.pop("padding", 0) == "same":  # a row above and one below; one column, on the right
        padded = nn.functional.pad(padded, (0, 1, 1, 1))
    elif "padding" in options:
        words["padding"] = options["padding"]
    patches = nn.functional.unfold(padded, (3, 2), **words).permute(1, 0, 2).flatten(1).numpy()
    H, n = gptq.accumulate_hessian(images, layer, torch.zeros(18, 18, dtype=torch.float64), 0)
    assert n == 5
    close(H, 2 / 5 * patches @ patches.T, 1e-12)
    assert (H.diagonal()[6:12] == 0).all()


def test_hessian_of_transformers_conv1d_takes_the_rows_of_its_weight() -> None:
    kind = type("Conv1D", (nn.Module,), {"__module__": "transformers.pytorch_utils"})
    layer = kind()
    layer.weight = nn.Parameter(torch.zeros(4, 7))  # (in, out)
    x = tokens(2, 5, 4)
    H, _ = gptq.accumulate_hessian(x, layer, torch.zeros(4, 4), 0)
    close(H, gram(x), 1e-6)


@pytest.mark.parametrize("order", [(True, False), (False, True), (True, True)], ids=str)
def test_batches_inside_and_outside_of_inference_mode_are_one_sum(engine: str, order: tuple[bool, bool]) -> None:
    layer, batches = nn.Linear(6, 2), (tokens(2, 7, 6), tokens(2, 7, 6, seed=1))
    hessian, H, n = gptq.Hessian(layer), torch.zeros(6, 6, dtype=torch.float64), 0
    for mode, x in zip(order, batches, strict=True):
        with torch.inference_mode(mode):
            hessian.add_batch(x)
            _, n = gptq.accumulate_hessian(x, layer, H, n)
    close(hessian.matrix(), 2 / 4 * gram(*batches), 1e-14)
    close(H, 2 / 4 * gram(*batches), 1e-14)


def test_what_inference_mode_made_is_changed_in_it_only() -> None:
    layer, x = nn.Linear(6, 2), tokens(2, 7, 6)
    with torch.inference_mode():
        made = {"H": torch.zeros(6, 6), "num_samples": torch.zeros(())}
    for argument, tensor in made.items():
        arguments = {"H": torch.zeros(6, 6), "num_samples": torch.zeros(()), argument: tensor}
        with pytest.raises(bk.InvalidArgument, match="under torch") as caught:
            gptq.accumulate_hessian(x, layer, **arguments)
        assert caught.value.argument == argument
        assert all(not one.any() for one in arguments.values())
    with torch.inference_mode():
        gptq.accumulate_hessian(x, layer, **made)
    close(made["H"], gram(x), 1e-6)


def test_a_first_batch_of_no_sequences_changes_nothing() -> None:
    H, n = gptq.accumulate_hessian(torch.zeros(0, 5, 6), nn.Linear(6, 2), torch.zeros(6, 6), 0)
    assert (float(H.abs().max()), n) == (0, 0)
    x = tokens(2, 5, 6)
    H, n = gptq.accumulate_hessian(x, nn.Linear(6, 2), H, n)
    close(H, gram(x), 1e-6)
    assert n == 2


def test_padding_may_be_left_out() -> None:
    x, mask = tokens(2, 5, 4), torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    x[0, 3:] = float("nan")
    hessian = gptq.Hessian(nn.Linear(4, 1))
    hessian.add_batch(x, mask=mask)
    close(hessian.matrix(), gram(x[0, :3], x[1]), 1e-14)
    hessian.add_batch(x, mask=torch.zeros(2, 5, dtype=torch.bool))
    assert hessian.nsamples == 4
    close(hessian.matrix(), gram(x[0, :3], x[1]) / 2, 1e-14)


def test_refused_batches_are_named_by_layer_and_change_nothing() -> None:
    layer, H = nn.Linear(4, 1), torch.eye(4)
    bad = tokens(2, 3, 4)
    bad[1, 2, 3] = float("inf")
    with pytest.raises(bk.NonFinite, match=r"input of layer 'fc1': NaN or Inf at index \(1, 2, 3\)"):
        gptq.accumulate_hessian(bad, layer, H, 2, name="fc1")
    with pytest.raises(bk.InvalidArgument, match=r"input of layer 'fc1'.*4"):
        gptq.accumulate_hessian(tokens(2, 3, 5), layer, H, 2, name="fc1")
    with pytest.raises(bk.InvalidArgument, match=r"input of Linear\(in_features=4"):
        gptq.accumulate_hessian(tokens(2, 3, 5), layer, H, 2)
    with pytest.raises(bk.InvalidArgument, match=r"layer 'fc1' has 4 features, H is of shape \(5, 5\)"):
        gptq.accumulate_hessian(tokens(2, 3, 4), layer, torch.eye(5), 2, name="fc1")
    with pytest.raises(bk.InvalidType, match="H: expected a square matrix"):
        gptq.accumulate_hessian(tokens(2, 3, 4), layer, None, 2)
    with pytest.raises(bk.InvalidType, match=r"expected a torch.Tensor, got ndarray"):
        gptq.accumulate_hessian(np.ones((1, 2, 4)), layer, H, 2)
    with pytest.raises(bk.Unsupported, match="2 groups"):
        gptq.Hessian(nn.Conv2d(4, 4, 1, groups=2), "conv").add_batch(torch.ones(1, 4, 2, 2))
    with pytest.raises(bk.Unsupported, match=r"layer 'emb'.*Embedding"):
        gptq.Hessian(nn.Embedding(4, 4), "emb").add_batch(torch.ones(1, 2, 4))
    with pytest.raises(bk.InvalidArgument, match="mask for input"):
        gptq.Hessian(layer, "fc1").add_batch(tokens(2, 3, 4), mask=torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(bk.InvalidArgument, match="no batch"):
        gptq.Hessian(layer).matrix()
    assert torch.equal(H, torch.eye(4))


def test_gptq_class_is_taken_over_and_given_back() -> None:
    class Inherits(GPTQ):
        pass

    x, own = tokens(3, 5, 4), GPTQ.add_batch
    for kind in (GPTQ, Inherits):
        with gptq.accelerated(kind):
            one = kind(nn.Linear(4, 2))
            one.add_batch(x, None)
            assert kind.add_batch is not own
        assert kind.add_batch is own
        with pytest.raises(RuntimeError, match="stop"), gptq.accelerated(kind):
            raise RuntimeError("stop")
        assert kind.add_batch is own
        assert "add_batch" not in vars(Inherits)
        close(one.H, 2 / 3 * gram(x), 1e-6)
    with gptq.accelerated(GPTQ), gptq.accelerated(GPTQ, precision="single"):  # nested
        pass
    assert GPTQ.add_batch is own
    with pytest.raises(bk.Unsupported, match=r"builtins\.int has no add_batch\(inp, out\)"), gptq.accelerated(int):
        pass


@pytest.mark.parametrize("normalized", [True, False])
def test_a_module_with_accumulate_hessian_is_asked_which_sum_it_keeps(normalized: bool) -> None:
    def original(inp: Any, module: Any, H: Any, num_samples: Any) -> tuple[Any, Any]:
        n = num_samples + inp.shape[0]
        rows = inp.reshape(-1, inp.shape[-1])
        return (H * num_samples + 2 * rows.T @ rows) / n if normalized else H + 2 * rows.T @ rows, n

    module = types.SimpleNamespace(accumulate_hessian=original)
    x, layer = tokens(3, 5, 4), nn.Linear(4, 2)
    with gptq.accelerated(module):
        H, n = module.accumulate_hessian(x, layer, torch.zeros(4, 4), 0)
        H, n = module.accumulate_hessian(x, layer, H, n)
    assert module.accumulate_hessian is original
    close(H, (2 / 6 if normalized else 2) * gram(x, x), 1e-6)
    module.accumulate_hessian = lambda inp, module, H, n: (H + 5, n + 1)
    neither = r"for two samples x = 1.*llmcompressor 0\.14\.0\.1"
    with pytest.raises(bk.Unsupported, match=neither), gptq.accelerated(module):
        pass


def test_llm_compressor_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    base = pytest.importorskip("llmcompressor.modifiers.gptq.base", reason="llm-compressor is an optional peer")
    sparse = pytest.importorskip("llmcompressor.modifiers.pruning.sparsegpt.base")
    layer, batches = nn.Linear(6, 2), [tokens(3, 5, 6), tokens(2, 5, 6, seed=1)]
    wanted = {base: 2 * gram(*batches), sparse: 2 / 5 * gram(*batches)}
    originals = {module: module.accumulate_hessian for module in wanted}

    def hessian(module: Any, modifier: Any) -> Any:
        # the hook of the modifier itself, which looks the name up
        state = types.SimpleNamespace(_num_samples={}, _hessians={})
        if module is sparse:
            state._maybe_onload_hessian = lambda layer: __import__("contextlib").nullcontext()
        for x in batches:
            modifier.calibrate_module(state, layer, (x,), None)
        assert int(state._num_samples[layer]) == 5
        return state._hessians[layer]

    kinds = {base: base.GPTQModifier, sparse: sparse.SparseGPTModifier}
    peers = {module: hessian(module, kind) for module, kind in kinds.items()}
    with gptq.accelerated():
        assert all(module.accumulate_hessian is not originals[module] for module in kinds)
        ours = {module: hessian(module, kind) for module, kind in kinds.items()}
    for module in kinds:
        assert module.accumulate_hessian is originals[module]
        assert ours[module].dtype == peers[module].dtype
        assert ours[module].shape == peers[module].shape
        close(ours[module], wanted[module], 3e-7)
        close(peers[module], wanted[module], 3e-6)
    monkeypatch.delattr(sparse, "accumulate_hessian")
    moved = r"llmcompressor \S+ has no .*accumulate_hessian.*0\.14"
    with pytest.raises(bk.Unsupported, match=moved), gptq.accelerated():
        pass
    assert base.accumulate_hessian is originals[base]  # all or none


# --- SVD-LLM ----------------------------------------------------------------------------------------------------------


def layer_and_data(n: int, m: int, samples: int, dtype: Any = torch.float32) -> tuple[Any, Any]:
    W = torch.randn(n, m, generator=torch.Generator().manual_seed(3), dtype=torch.float64).to(dtype)
    return W, tokens(2, samples // 2, m, seed=4, dtype=dtype)


def by_definition(W: Array, X: Array, k: int) -> tuple[Array, Array]:
    """SVD-LLM's factors with its Cholesky factor, in float64; X has samples in columns."""
    S = np.linalg.cholesky(X @ X.T)
    U, s, Vt = np.linalg.svd(W @ S, full_matrices=False)
    root = np.sqrt(s[:k])
    return U[:, :k] * root, root[:, None] * Vt[:k] @ np.linalg.inv(S)


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (7, 7), (30, 5), (5, 30)], ids=str)
@pytest.mark.parametrize("source", ["accumulator", "sum"])
def test_whiten_gives_the_factors_of_the_tool(engine: str, shape: tuple[int, int], source: str) -> None:
    W, x = layer_and_data(*shape, 80, torch.float64)
    X = values(x).reshape(-1, shape[1]).T
    acc: Any = torch.from_numpy(X @ X.T)
    if source == "accumulator":
        acc = bk.Autocorrelation(shape[1])
        acc.update(x)
    k = min(shape) // 2
    found = svd_llm.whiten(W, acc, rank=k)
    W_u, W_v = found
    wanted_u, wanted_v = by_definition(values(W), X, k)
    assert found.rank == k
    assert W_u.dtype == W_v.dtype == torch.float64
    signs = np.sign(np.sum(values(W_u) * wanted_u, axis=0))
    close(W_u, wanted_u * signs, 1e-7)
    close(W_v, wanted_v * signs[:, None], 1e-7)
    lost = (values(W) - values(W_u) @ values(W_v)) @ X
    assert found.error == pytest.approx(np.linalg.norm(lost), rel=1e-9)
    assert found.relative_error == pytest.approx(np.linalg.norm(lost) / np.linalg.norm(values(W) @ X), rel=1e-9)
    np.testing.assert_allclose(values(found.s), np.linalg.svd(values(W) @ X, compute_uv=False)[: min(shape)], rtol=1e-6)


@pytest.mark.parametrize("widened", [False, True])
def test_whiten_takes_sums_in_float32(engine: str, widened: bool) -> None:
    """SVD-LLM's own: rounding leaves eigenvalues below 0 and, here, mirrored entries that differ."""
    W, x = layer_and_data(9, 12, 6)
    X = values(x).reshape(-1, 12)[:6].astype(np.float32) * np.logspace(0, 3, 12, dtype=np.float32)
    sums = X.T @ X
    sums[0, 1] *= 1 + 2e-6
    sums -= 1e-7 * np.abs(sums).max() * np.eye(12, dtype=np.float32)
    acc = torch.from_numpy(sums.astype(np.float64) if widened else sums)
    before = acc.clone()
    found = svd_llm.whiten(W, acc, rank=4)
    assert torch.equal(acc, before)
    exact = values(W) @ X.T.astype(np.float64)
    s = np.linalg.svd(exact, compute_uv=False)
    lost = np.linalg.norm(exact - values(found.W_u) @ (values(found.W_v) @ X.T))
    assert lost <= np.linalg.norm(s[4:]) + 1e-3 * s[0]
    with pytest.raises(bk.InvalidArgument, match="acc: is not positive semidefinite"):
        svd_llm.whiten(W, acc - 1e-3 * acc.max() * torch.eye(12), rank=4)
    acc[0, 11] += 0.1 * acc.max()
    with pytest.raises(bk.InvalidArgument, match="acc: must be symmetric"):
        svd_llm.whiten(W, acc, rank=4)


@pytest.mark.parametrize("shape", [(6, 12), (24, 12)], ids=str)
def test_whiten_needs_no_invertible_data(engine: str, shape: tuple[int, int]) -> None:
    W, x = layer_and_data(*shape, 8)  # fewer samples than features, and two dead channels
    x[..., [1, 5]] = 0
    X = values(x).reshape(-1, 12).T
    raw = torch.from_numpy((X @ X.T).astype(np.float32)).double()
    with pytest.raises(torch.linalg.LinAlgError):
        torch.linalg.cholesky(raw)
    acc = bk.Autocorrelation(12)
    acc.update(x)
    found = svd_llm.whiten(W, acc, rank=3)
    s = np.linalg.svd(values(W) @ X, compute_uv=False)
    best = np.sqrt(np.sum(s[3:] ** 2))
    lost = np.linalg.norm((values(W) - values(found.W_u) @ values(found.W_v)) @ X)
    assert lost == pytest.approx(best, rel=1e-4)
    assert found.error == pytest.approx(best, rel=1e-6)
    # the tool's way out: a shift, whose factors can only be worse on these data
    shift = -float(torch.linalg.eigvalsh(raw)[0]) + 1e-6
    shifted = np.linalg.cholesky(raw.numpy() + max(shift, 1e-6) * np.eye(12))
    U, t, Vt = np.linalg.svd(values(W) @ shifted, full_matrices=False)
    cut = (U[:, :3] * t[:3]) @ Vt[:3] @ np.linalg.inv(shifted)
    assert lost <= np.linalg.norm((values(W) - cut) @ X) * (1 + 1e-5)
    whole = svd_llm.whiten(W, acc, rank=min(shape))  # components the data do not reach: finite, and W comes back
    if shape[0] < shape[1]:
        close(whole.W_u.double() @ whole.W_v.double(), values(W), 1e-4)
    assert torch.isfinite(whole.W_u).all()
    assert torch.isfinite(whole.W_v).all()


@pytest.mark.parametrize("dtype", EPS)
def test_whiten_gives_back_what_came(dtype: Any) -> None:
    W, x = layer_and_data(8, 6, 60, dtype)
    acc = bk.Autocorrelation(6)
    acc.update(x)
    found = svd_llm.whiten(W.requires_grad_(), acc, ratio=0.9)
    assert found.rank == int(8 * 6 * 0.9 / 14) == svd_llm.rank_for_ratio(8, 6, 0.9)
    assert found.W_u.dtype == found.W_v.dtype == dtype
    assert found.s.dtype == torch.float64
    X = values(x).reshape(-1, 6).T
    best = np.sqrt(np.sum(np.linalg.svd(values(W) @ X, compute_uv=False)[found.rank :] ** 2))
    lost = np.linalg.norm((values(W) - values(found.W_u) @ values(found.W_v)) @ X)
    assert lost <= best + 4 * EPS[dtype] * np.linalg.norm(values(W) @ X)
    layers = found.linears(torch.arange(8.0))
    out = layers(x.detach())
    wanted = values(x).reshape(-1, 6) @ (values(found.W_u) @ values(found.W_v)).T + np.arange(8.0)
    close(out.reshape(-1, 8), wanted, 20 * EPS[dtype])
    if dtype == torch.float32:
        plain = svd_llm.whiten(W.detach().numpy(), acc, ratio=0.9)
        assert isinstance(plain.W_u, np.ndarray)
        assert plain.W_u.dtype == np.float32
        np.testing.assert_array_equal(plain.W_v, found.W_v.numpy())
        with pytest.raises(bk.InvalidType, match="torch tensors"):
            plain.linears()


def test_whiten_refuses_by_name() -> None:
    W, x = layer_and_data(4, 6, 40)
    acc = bk.Autocorrelation(6)
    with pytest.raises(bk.InvalidArgument, match="holds no samples"):
        svd_llm.whiten(W, acc, rank=1, name="q")
    acc.update(x)
    for words in ({}, {"rank": 1, "ratio": 0.5}):
        with pytest.raises(bk.InvalidArgument, match="either rank or ratio"):
            svd_llm.whiten(W, acc, **words)
    with pytest.raises(bk.InvalidArgument, match="rank 0"):
        svd_llm.whiten(W, acc, ratio=0.1)
    with pytest.raises(bk.InvalidArgument, match="acc of layer 'q': is of 6 features, W takes 5"):
        svd_llm.whiten(W[:, :5], acc, rank=1, name="q")
    with pytest.raises(bk.InvalidArgument, match="centred"):
        svd_llm.whiten(W, bk.Autocorrelation(6, center=True), rank=1)
    with pytest.raises(bk.InvalidArgument, match="weight of layer 'q': expected the weights"):
        svd_llm.whiten(W[0], acc, rank=1, name="q")
    W[2, 3] = float("nan")
    with pytest.raises(bk.NonFinite, match=r"weight of layer 'q': NaN or Inf at index \(2, 3\)"):
        svd_llm.whiten(W, acc, rank=1, name="q")
    with pytest.raises(bk.InvalidArgument, match="acc: is not positive semidefinite"):
        svd_llm.whiten(np.eye(2), -np.eye(2), rank=1)
    zero = svd_llm.whiten(torch.zeros(4, 6), acc, rank=2)
    assert zero.error == zero.relative_error == 0
    assert not (zero.W_u @ zero.W_v).any()


@pytest.mark.parametrize("direct", [False, True])
def test_local_update_is_least_squares_over_all_batches(direct: bool) -> None:
    layer = nn.Linear(6, 8, bias=False, dtype=torch.float64)
    seen, later = tokens(2, 40, 6, dtype=torch.float64), [tokens(2, 20, 6, seed=s, dtype=torch.float64) for s in (5, 6)]
    S = torch.linalg.cholesky(torch.from_numpy(gram(seen)))
    update = svd_llm.LocalUpdate(layer, None if direct else S, 0.7, "fc", direct_update=direct)
    outs = [layer(x).detach() + 0.1 * tokens(2, 20, 8, seed=9, dtype=torch.float64) for x in later]
    for x, y in zip(later, outs, strict=True):
        update.add_batch_update_u(x, y)
    W_u, W_v = update.fasterprune()
    k = svd_llm.rank_for_ratio(8, 6, 0.7)
    assert W_u.shape == (8, k)
    assert W_v.shape == (k, 6)
    if direct:
        wanted_v = np.linalg.svd(values(layer.weight))[2][:k]
    else:
        wanted_v = by_definition(values(layer.weight), values(seen).reshape(-1, 6).T, k)[1]
    rows = np.concatenate([values(x).reshape(-1, 6) for x in later])
    targets = np.concatenate([values(y).reshape(-1, 8) for y in outs])
    solution, *_ = np.linalg.lstsq(rows @ wanted_v.T, targets, rcond=None)
    close(W_u @ W_v, solution.T @ wanted_v, 1e-9)
    left = np.linalg.norm(targets - rows @ values(W_u @ W_v).T) / np.linalg.norm(targets)
    assert update.updated_error == pytest.approx(left, rel=1e-6)
    first = values(svd_llm.whiten(layer.weight, torch.eye(6).double() if direct else S @ S.T, ratio=0.7).W_u) @ wanted_v
    assert left <= np.linalg.norm(targets - rows @ first.T) / np.linalg.norm(targets)


def test_local_update_with_too_few_samples_and_by_name() -> None:
    layer = nn.Linear(6, 5, dtype=torch.bfloat16)
    acc = bk.Autocorrelation(6)
    acc.update(tokens(1, 50, 6))
    SVDLLM = types.SimpleNamespace(local_update=object)
    with svd_llm.accelerated(SVDLLM):
        update = SVDLLM.local_update(layer, acc, ratio=0.9, name="o_proj", direct_update=False)
    assert SVDLLM.local_update is object
    with pytest.raises(bk.InvalidArgument, match="'o_proj' holds no batch"):
        update.fasterprune()
    x = tokens(1, 1, 6)  # one token for a rank of 2: any solution that fits, of which the smallest is taken
    y = torch.ones(1, 1, 5)
    with pytest.raises(bk.InvalidArgument, match=r"layer 'o_proj': expected inputs \(…, 6\)"):
        update.add_batch_update_u(x[..., :5], y)
    with pytest.raises(bk.NonFinite, match="output of layer 'o_proj'"):
        update.add_batch_update_u(x, y * float("nan"))
    update.add_batch_update_u(x, y)
    W_u, W_v = update.fasterprune()
    assert W_u.dtype == W_v.dtype == torch.bfloat16
    z = update.W_v @ x[0, 0].double()
    close(W_u, values(torch.ones(5, 1, dtype=torch.float64) * z / (z @ z)), 1e-2)
    assert update.updated_error < 1e-6
    moved = r"SVD-LLM .* has no .*local_update.*0e31666"
    with pytest.raises(bk.Unsupported, match=moved), svd_llm.accelerated(types.SimpleNamespace()):
        pass


# --- SliceGPT ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", EPS)
def test_pca_calc(engine: str, dtype: Any) -> None:
    batches = [tokens(2, 5, 6, dtype=dtype), tokens(3, 7, 6, seed=1, dtype=dtype)]
    for x in batches:
        x[..., 3] = 0
    before = [x.clone() for x in batches]
    H = gram(*batches)
    damp = 0.01 * np.mean(np.diag(H))
    wanted, _ = np.linalg.eigh(H + damp * np.eye(6))
    eig_val, eigen_vec = slicegpt.pca_calc(batches)
    assert eig_val.dtype == eigen_vec.dtype == torch.float64
    np.testing.assert_allclose(values(eig_val), wanted[::-1], rtol=1e-10)  # descending
    Q = values(eigen_vec)
    np.testing.assert_allclose(Q.T @ Q, np.eye(6), atol=1e-12)
    close(torch.from_numpy(Q * values(eig_val) @ Q.T), H + damp * np.eye(6), 1e-12)
    assert (Q[np.abs(Q).argmax(axis=0), np.arange(6)] > 0).all()
    assert values(eig_val)[-1] == pytest.approx(damp, rel=1e-9)
    assert all(torch.equal(x, old) for x, old in zip(batches, before, strict=True))


def test_pca_calc_leaves_padding_out() -> None:
    batches = [tokens(2, 5, 6), tokens(5, 6, seed=1)]
    masks = [torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 1, 1]]), torch.ones(5)]
    masks[1] = masks[1].long()
    H = gram(batches[0][0, :2], batches[0][1], batches[1])
    wanted = np.linalg.eigvalsh(H + 0.01 * np.mean(np.diag(H)) * np.eye(6))
    np.testing.assert_allclose(values(slicegpt.pca_calc(batches, masks)[0]), wanted[::-1], rtol=1e-10)
    np.testing.assert_allclose(values(slicegpt.pca_calc(iter(batches), masks, damp=0)[0])[0], np.linalg.eigvalsh(H)[-1])
    assert slicegpt.pca_calc([batches[0].requires_grad_()])[0].requires_grad is False


def test_pca_calc_refuses_and_is_put_in_place() -> None:
    x = tokens(2, 5, 6)
    with pytest.raises(bk.InvalidArgument, match=r"X: holds no batch"):
        slicegpt.pca_calc([])
    with pytest.raises(bk.InvalidArgument, match=r"X\[1\]: .*6"):
        slicegpt.pca_calc([x, x[..., :5]])
    with pytest.raises(bk.InvalidArgument, match="ignore_masks: expected one for each batch, got 1"):
        slicegpt.pca_calc([x, x], [torch.ones(2, 5)])
    with pytest.raises(bk.InvalidArgument, match=r"ignore_masks\[0\]: expected shape \(2, 5\)"):
        slicegpt.pca_calc([x], [torch.ones(2, 4)])
    with pytest.raises(bk.InvalidArgument, match="no token"):
        slicegpt.pca_calc([x], [torch.zeros(2, 5)])
    with pytest.raises(bk.InvalidType, match=r"X\[0\]: expected a torch.Tensor"):
        slicegpt.pca_calc(x.numpy())
    with pytest.raises(bk.NonFinite, match=r"X\[1\]: NaN or Inf at index \(0, 0, 0\)"):
        slicegpt.pca_calc([x, x / 0])
    rotate = types.SimpleNamespace(pca_calc=print)
    with slicegpt.accelerated(rotate):
        assert rotate.pca_calc is slicegpt.pca_calc
    assert rotate.pca_calc is print
    with pytest.raises(RuntimeError, match="stop"), slicegpt.accelerated(rotate):
        raise RuntimeError("stop")
    assert rotate.pca_calc is print
    with pytest.raises(bk.Unsupported, match=r"slicegpt is not installed .*09bc68d"), slicegpt.accelerated():
        pass
