"""collect: what each kind of layer is given and gives, against the same computed by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import brockett as bk

torch = pytest.importorskip("torch", reason="collect runs PyTorch modules")
nn = torch.nn
F = torch.nn.functional


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(7)


def moments(a: Any, center: bool = False) -> np.ndarray[Any, Any]:
    rows = a.detach().double().reshape(-1, a.shape[-1]).numpy()
    if center:
        rows = rows - rows.mean(axis=0)
    result: np.ndarray[Any, Any] = rows.T @ rows / len(rows)
    return result


def collected(module: Any, batches: list[Any], layers: Any = None, **options: Any) -> Any:
    return bk.collect(module, batches, layers, progress=False, **options)


def close(acc: Any, expected: Any, atol: float = 1e-5) -> None:
    np.testing.assert_allclose(np.asarray(acc.matrix()), expected, atol=atol)


def heads(x: Any, n: int) -> Any:
    """(batch, sequence, features) as (batch, head, sequence, features of the head)."""
    return x.reshape(*x.shape[:2], n, -1).transpose(1, 2)


def context(attention: Any, query: Any, key: Any, value: Any, hidden: Any = None) -> Any:
    """The inputs of out_proj, from the definition: softmax(q kᵀ / √d) v for each head; batch first."""
    size = attention.embed_dim
    if attention.in_proj_weight is not None:
        weights = attention.in_proj_weight.split(size)
    else:
        weights = (attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight)
    biases = attention.in_proj_bias.split(size)
    inputs = zip((query, key, value), weights, biases, strict=True)
    q, k, v = (heads(x @ w.T + b, attention.num_heads) for x, w, b in inputs)
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    if hidden is not None:
        scores = scores.masked_fill(hidden[:, None, None, :], -math.inf)
    out = scores.softmax(-1) @ v
    return out.transpose(1, 2).reshape(query.shape[0], query.shape[1], size)


# --- attention --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_first", [True, False])
def test_self_attention(engine: str, batch_first: bool) -> None:
    attention = nn.MultiheadAttention(8, 2, batch_first=batch_first).eval()
    x = torch.randn(3, 5, 8)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn = attention
            self.results: list[Any] = []

        def forward(self, x: Any) -> Any:
            x = x if batch_first else x.transpose(0, 1)
            self.results.append(self.attn(x, x, x, need_weights=True))
            return self.results[-1][0]

    model = Model()
    with torch.no_grad():
        model(x)
        expected = context(attention, x, x, x)
    out_proj = attention.out_proj
    seen: list[Any] = []
    handle = attention.register_forward_hook(lambda _m, _a, out: seen.append(out[0]))
    found = collected(model, [x])
    handle.remove()
    assert list(found) == ["attn.query", "attn.key", "attn.value", "attn.out_proj"]
    for name in ("attn.query", "attn.key", "attn.value"):
        close(found[name], moments(x), 1e-12)
    close(found["attn.out_proj"], moments(expected))
    assert all(acc.n_samples == 15 for acc in found.values())
    # Neither what comes out, nor what other hooks see, nor the module itself is another than without the watching.
    (before, weights), (after, weights_after) = model.results
    np.testing.assert_allclose(after, before, atol=1e-6)
    np.testing.assert_allclose(weights_after, weights, atol=1e-6)
    assert seen[0] is after
    assert attention.out_proj is out_proj
    assert torch.backends.mha.get_fastpath_enabled()
    assert not attention._forward_hooks
    assert not attention._forward_pre_hooks


def test_cross_attention_of_other_widths() -> None:
    attention = nn.MultiheadAttention(6, 3, kdim=4, vdim=5, batch_first=True).double().eval()
    q, k, v = (torch.randn(2, n, d, dtype=torch.float64) for n, d in ((3, 6), (7, 4), (7, 5)))

    def forward(module: Any, batch: Any) -> None:
        module(batch[0], value=batch[2], key=batch[1])

    found = collected(attention, [(q, k, v)], forward=forward)
    for name, x in (("query", q), ("key", k), ("value", v)):
        close(found[name], moments(x), 1e-12)
    with torch.no_grad():
        close(found["out_proj"], moments(context(attention, q, k, v)), 1e-12)
    only = collected(attention, [(q, k, v)], ["key"], forward=forward)
    assert list(only) == ["key"]
    out = collected(attention, [(q, k, v)], of="preactivations", forward=forward)
    assert list(out) == ["out_proj"]
    with torch.no_grad():
        close(out["out_proj"], moments(attention(q, k, v)[0]), 1e-12)


def test_the_name_of_attention_stands_for_its_three_inputs() -> None:
    block = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
    x = torch.randn(2, 3, 8)
    found = collected(block, [x], ["self_attn", "linear1"])
    assert list(found) == ["self_attn.query", "self_attn.key", "self_attn.value", "linear1"]
    with pytest.raises(bk.Unsupported, match=r"'self_attn' is a MultiheadAttention: .*its outputs are those of"):
        collected(block, [x], ["self_attn"], of="preactivations")


@pytest.mark.parametrize("norm_first", [False, True])
def test_an_encoder_layer_equals_a_hand_computation(engine: str, norm_first: bool) -> None:
    """In evaluation mode PyTorch runs it as one kernel, in which no hook is called."""
    block = nn.TransformerEncoderLayer(8, 2, 12, activation="gelu", batch_first=True, norm_first=norm_first).double()
    x = torch.randn(3, 5, 8, dtype=torch.float64)
    found = collected(block, [x[:1], x[1:]])
    block.eval()
    with torch.no_grad():
        a = block.norm1(x) if norm_first else x
        c = context(block.self_attn, a, a, a)
        after = x + c @ block.self_attn.out_proj.weight.T + block.self_attn.out_proj.bias
        h = block.norm2(after) if norm_first else block.norm1(after)
        y = h @ block.linear1.weight.T + block.linear1.bias
        act = y * 0.5 * (1 + torch.erf(y / math.sqrt(2)))
    expected = {"self_attn.query": a, "self_attn.out_proj": c, "linear1": h, "linear2": act}
    for name, samples in expected.items():
        close(found[name], moments(samples), 1e-12)
        assert found[name].n_samples == 15
    pre = collected(block, [x], ["linear1"], of="preactivations", center=True)
    close(pre["linear1"], moments(y, center=True), 1e-12)
    post = collected(block, [x], ["linear1"], of="activations")
    close(post["linear1"], moments(act), 1e-12)


def test_an_encoder_with_padding(engine: str) -> None:
    """PyTorch packs what is not padding into a nested tensor there, which a watched layer cannot take."""
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2).double()
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    keep = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]).bool()
    found = collected(
        encoder,
        [{"src": x, "src_key_padding_mask": ~keep}],
        mask=lambda batch: ~batch["src_key_padding_mask"],
    )
    encoder.eval()
    with torch.no_grad():
        for i, part in enumerate(encoder.layers):
            c = context(part.self_attn, x, x, x, ~keep)
            after = part.norm1(x + c @ part.self_attn.out_proj.weight.T + part.self_attn.out_proj.bias)
            act = torch.relu(after @ part.linear1.weight.T + part.linear1.bias)
            for name, samples in (
                ("self_attn.value", x), ("self_attn.out_proj", c), ("linear1", after), ("linear2", act)
            ):  # fmt: skip
                close(found[f"layers.{i}.{name}"], moments(samples[keep]), 1e-12)
                assert found[f"layers.{i}.{name}"].n_samples == 8
            x = part.norm2(after + act @ part.linear2.weight.T + part.linear2.bias)


def test_a_whole_transformer() -> None:
    model = nn.Transformer(8, 2, 1, 1, 12, batch_first=True).double()
    source, target = torch.randn(2, 4, 8, dtype=torch.float64), torch.randn(2, 3, 8, dtype=torch.float64)
    names = [one.name for one in bk.collect_plan(model).layers]
    assert len(names) == 3 * 4 + 2 * 2
    found = collected(model, [{"src": source, "tgt": target}])
    assert list(found) == names
    model.eval()
    with torch.no_grad():
        memory = model.encoder(source)
    cross = "decoder.layers.0.multihead_attn"
    for part, n in (("query", 6), ("key", 8), ("value", 8), ("out_proj", 6)):
        assert found[f"{cross}.{part}"].n_samples == n
    close(found[f"{cross}.key"], moments(memory), 1e-12)
    close(found["decoder.layers.0.self_attn.query"], moments(target), 1e-12)


def test_attention_that_fails_is_put_back() -> None:
    attention = nn.MultiheadAttention(8, 2)
    out_proj = attention.out_proj
    x = torch.ones(2, 3, 8)
    with pytest.raises((RuntimeError, AssertionError)):  # torch's own
        collected(attention, [1], forward=lambda module, _: module(x, torch.ones(4, 5, 8), x))
    assert attention.out_proj is out_proj
    assert torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        collected(attention, [1], forward=lambda module, _: module(x, x, x))
        assert not torch.backends.mha.get_fastpath_enabled(), "the user's own choice is kept"
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


def test_attention_of_another_making_is_seen_by_its_parts() -> None:
    class Own(nn.MultiheadAttention):
        def forward(self, x: Any) -> Any:
            return self.out_proj(x + 1)

    x = torch.randn(4, 6)
    found = collected(Own(6, 2), [x])
    assert list(found) == ["out_proj"]
    close(found["out_proj"], moments(x + 1))


# --- linear layers of all kinds ---------------------------------------------------------------------------------------


class Conv1D(nn.Module):
    """As transformers has it in GPT-2: y = x W + b with W (in, out)."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight = nn.Parameter(torch.randn(nx, nf))
        self.bias = nn.Parameter(torch.randn(nf))

    def forward(self, x: Any) -> Any:
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(*x.shape[:-1], self.nf)


def test_conv1d_of_transformers(engine: str) -> None:
    net = nn.Sequential(Conv1D(7, 4), nn.GELU(), Conv1D(3, 7))
    x = torch.randn(2, 5, 4)
    found = collected(net, [x])
    with torch.no_grad():
        hidden = net[0](x)
        close(found["0"], moments(x))
        close(found["2"], moments(F.gelu(hidden)))
        close(collected(net, [x], of="preactivations")["0"], moments(hidden))
        post = collected(net, [x], ["0"], of="activations")
    close(post["0"], moments(F.gelu(hidden)))


def test_parametrized_layers() -> None:
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))
    conv = nn.utils.parametrizations.spectral_norm(nn.Conv1d(2, 3, 2))
    x = torch.randn(6, 4)
    net = nn.Sequential(layer)
    close(collected(net, [x])["0"], moments(x))
    with torch.no_grad():
        close(collected(net, [x], of="preactivations")["0"], moments(x @ layer.weight.T + layer.bias))
    images = torch.randn(5, 2, 6)
    patches = images.unfold(2, 2, 1).transpose(1, 2).reshape(-1, 4)
    close(collected(conv, [images])[""], moments(patches))


def test_a_module_with_two_names_counts_once() -> None:
    shared = nn.Linear(3, 3)
    net = nn.Module()
    net.a, net.b, net.c = shared, shared, nn.Linear(3, 3)
    x = torch.randn(5, 3)

    def forward(module: Any, batch: Any) -> None:
        module.b(module.a(batch))

    found = collected(net, [x], ["a"], forward=forward)
    with torch.no_grad():
        close(found["a"], moments(torch.cat([x, shared(x)])))
    assert found["a"].n_samples == 10
    assert list(collected(net, [x], ["b"], forward=forward)) == ["b"]
    plan = bk.collect_plan(net)
    assert [(one.name, one.also) for one in plan.layers] == [("a", ("b",)), ("c", ())]
    assert "'a' = 'b'" in str(plan)
    with pytest.raises(bk.InvalidArgument, match="layers: 'a' and 'b' are one and the same module"):
        collected(net, [x], ["a", "b"], forward=forward)


def test_lazy_layers_are_asked_to_be_run_first() -> None:
    net = nn.Sequential(nn.LazyLinear(3), nn.LazyConv1d(2, 1))
    with pytest.raises(bk.InvalidArgument, match=r"module: layer '0' is a LazyLinear .*run one batch"):
        collected(net, [torch.ones(2, 5)])
    with pytest.raises(bk.InvalidArgument, match=r"layer '1' is a LazyConv1d"):
        bk.collect_plan(net, ["1"])
    net[0](torch.ones(2, 5))
    assert collected(net, [torch.ones(2, 5)], ["0"], forward=lambda net, x: net[0](x))["0"].n_features == 5


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (nn.Embedding(5, 2), "indices"),
        (nn.EmbeddingBag(5, 2), "indices"),
        (nn.ConvTranspose2d(2, 2, 3), "transposed"),
        (nn.Conv3d(2, 2, 3), "volumes"),
        (nn.LSTM(2, 2), "recurrent"),
        (nn.GRUCell(2, 2), "recurrent"),
        (nn.Bilinear(2, 2, 2), "bilinear"),
    ],
)
def test_other_kinds_say_why_not(layer: Any, words: str) -> None:
    net = nn.Sequential(layer, nn.Linear(2, 2))
    with pytest.raises(bk.Unsupported, match=rf"layers: '0' is a {type(layer).__name__}: .*{words}"):
        collected(net, [], ["0"])
    with pytest.raises(bk.InvalidArgument, match=rf"module: Sequential has no torch.nn.Linear.*{words}"):
        collected(nn.Sequential(layer), [])


def test_what_holds_layers_is_no_layer() -> None:
    net = nn.Sequential(nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(bk.Unsupported, match=r"'0' is a Sequential; .* by their own names"):
        collected(net, [], ["0"])


# --- outputs ----------------------------------------------------------------------------------------------------------


def test_preactivations_are_what_descrambling_takes(engine: str) -> None:
    net = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    x = torch.randn(50, 5, dtype=torch.float64)
    found = collected(net, [x], of="preactivations")
    with torch.no_grad():
        y = net[0](x)
    close(found["0"], moments(y), 1e-12)
    direct = bk.descramble(preactivations=y.numpy())
    by_moments = bk.descramble(np.eye(8), autocorrelation=np.asarray(found["0"].matrix()))
    assert by_moments.cost == pytest.approx(direct.cost, rel=1e-9)
    assert (found.of, found.n_batches) == ("preactivations", 1)


def test_outputs_of_convolutions(engine: str) -> None:
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(), nn.ReLU(inplace=True), nn.Conv2d(4, 3, 1)
    ).double()
    with torch.no_grad():
        net[1].running_mean.copy_(torch.randn(4))
        net[1].running_var.copy_(torch.rand(4) + 0.5)
    x = torch.randn(3, 2, 5, 6, dtype=torch.float64)
    pre = collected(net, [x], of="preactivations")
    with pytest.warns(UserWarning, match="no samples reached '4': no activation function took their outputs"):
        post = collected(net, [x], of="activations")
    net.eval()
    with torch.no_grad():
        y = net[0](x)
        close(pre["0"], moments(y.permute(0, 2, 3, 1)), 1e-12)
        close(post["0"], moments(torch.relu(net[1](y)).permute(0, 2, 3, 1)), 1e-12)
        close(pre["4"], moments(net(x).permute(0, 2, 3, 1)), 1e-12)
        assert pre["0"].n_samples == 3 * 5 * 6
        # one image without the batch axis, and one mask for each image
        close(collected(net[0], [x[0]], of="preactivations")[""], moments(net[0](x[0]).permute(1, 2, 0)), 1e-12)
        only = collected(net[0], [x], of="preactivations", mask=lambda _: [True, False, True])
        close(only[""], moments(net[0](x[[0, 2]]).permute(0, 2, 3, 1)), 1e-12)


class Swish(nn.Module):
    def forward(self, x: Any) -> Any:
        return x * torch.sigmoid(x)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize(
    "name", ["relu", "elu", "leaky_relu", "hardtanh", "celu", "selu", "relu6", "silu", "mish", "hardswish"]
)
def test_activation_functions_without_modules(name: str, inplace: bool) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 5), nn.Linear(5, 2)

        def forward(self, x: Any) -> Any:
            return torch.tanh(self.b(getattr(F, name)(F.dropout(self.a(x), training=self.training), inplace=inplace)))

    model, x = Model(), torch.randn(9, 3)
    found = collected(model, [x], of="activations")
    with torch.no_grad():
        h = getattr(F, name)(model.a(x))
        close(found["a"], moments(h))
        close(found["b"], moments(model.b(h).tanh()))


@pytest.mark.parametrize("act", [nn.PReLU(), nn.Softplus(), nn.LogSigmoid(), nn.Softsign(), nn.RReLU(), Swish()])
def test_activation_modules(act: Any) -> None:
    net, x = nn.Sequential(nn.Linear(3, 5), nn.Identity(), act), torch.randn(9, 3)
    found = collected(net, [x], of="activations")
    with torch.no_grad():
        close(found["0"], moments(net.eval()(x)))
    assert found["0"].n_samples == 9


def test_a_gate_that_cannot_be_told_from_an_activation_is_refused() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def forward(self, x: Any) -> Any:
            y = self.fc(x)
            return y * torch.sigmoid(y)

    with pytest.raises(bk.Unsupported, match="outputs of layer 'fc' are multiplied"):
        collected(Block(), [torch.randn(2, 3)], of="activations")

    class Gated(Block):
        def forward(self, x: Any) -> Any:  # as the feed-forward blocks of LLaMA
            return F.silu(self.fc(x)) * self.fc(x + 1)

    gated, x = Gated(), torch.randn(4, 3)
    found = collected(gated, [x], of="activations")
    with torch.no_grad():
        close(found["fc"], moments(F.silu(gated.fc(x))))


def test_of_is_checked() -> None:
    with pytest.raises(bk.InvalidArgument, match="of: expected one of 'inputs'"):
        collected(nn.Linear(2, 2), [], of="outputs")
    with pytest.raises(bk.InvalidArgument, match="of: expected one of 'inputs'"):
        bk.collect_plan(nn.Linear(2, 2), of="x")


# --- masks ------------------------------------------------------------------------------------------------------------


class Pooled(nn.Module):
    """A layer over tokens, one over tokens in one axis, one over heads, and one over whole sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.rows, self.heads, self.pooler = (nn.Linear(n, n) for n in (4, 4, 2, 4))

    def forward(self, x: Any, attention_mask: Any = None) -> Any:
        x = self.tokens(x)
        self.rows(x.reshape(-1, 4))
        self.heads(x.reshape(*x.shape[:2], 2, 2))
        return self.pooler(x[:, 0])


def test_masks_of_tokens_fit_what_is_made_of_them(engine: str) -> None:
    model, x = Pooled(), torch.randn(2, 3, 4)
    keep = torch.tensor([[1, 1, 0], [1, 0, 0]])
    batch = {"x": x, "attention_mask": keep}
    with pytest.raises(bk.InvalidArgument, match=r"batches\[0\], mask for layer 'pooler': .*None for layers that take"):
        collected(model, [batch], mask="attention_mask")
    found = collected(model, [batch], mask={"pooler": None, "*": "attention_mask"})
    with torch.no_grad():
        y = model.tokens(x)
    close(found["tokens"], moments(x[keep.bool()]))
    close(found["rows"], moments(y[keep.bool()]))
    close(found["heads"], moments(y[keep.bool()].reshape(-1, 2)))
    close(found["pooler"], moments(y[:, 0]))
    assert [acc.n_samples for acc in found.values()] == [3, 3, 6, 2]
    by_layer = {"tokens": lambda b: keep.numpy() == 0, "ro*": "attention_mask", "r*": None}
    found = collected(model, [batch], mask=by_layer)
    assert [acc.n_samples for acc in found.values()] == [3, 3, 12, 2]
    close(found["tokens"], moments(x[~keep.bool()]))
    assert collected(model, [batch], ["tokens"], mask=lambda _: [[True, False, True]])["tokens"].n_samples == 4
    assert collected(model, [batch], ["tokens"], mask=lambda _: None)["tokens"].n_samples == 6


@pytest.mark.parametrize(
    ("mask", "error", "words"),
    [
        ({"tokens": 3}, bk.InvalidType, "a key of the batches or a function"),
        ({"tokns": "attention_mask"}, bk.InvalidArgument, r"no layer matches 'tokns'; there are \['tokens'"),
        ({3: "attention_mask"}, bk.InvalidType, "names of layers"),
        ({"tokens": "padding"}, bk.InvalidArgument, "no 'padding'"),
        ({"tokens": lambda _: [[0.5, 1, 1]] * 2}, bk.InvalidType, "booleans"),
        ({"tokens": lambda _: [[2, 1, 1]] * 2}, bk.InvalidArgument, "other integers"),
        ({"tokens": lambda _: [[1, 1], [1, 1], [1, 1]]}, bk.InvalidArgument, r"layer 'tokens'.*\(2, 3\).*\(3, 2\)"),
        ({"rows": lambda _: [1] * 5}, bk.InvalidArgument, "layer 'rows'"),
    ],
)
def test_masks_that_do_not_fit(mask: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        collected(Pooled(), [{"x": torch.ones(2, 3, 4), "attention_mask": torch.ones(2, 3).int()}], mask=mask)
