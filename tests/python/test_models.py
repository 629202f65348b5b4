"""Layers of what a caller has in hand, and what names of tensors say: mappings, lists, PyTorch modules, state dicts."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest

import brockett as bk


def state(rng, **shapes):
    return {name.replace("__", "."): rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def kinds(model):
    return {layer.name: layer.kind for layer in model}


def norms(model):
    return {layer.name: layer.norm.name for layer in model if layer.norm is not None}


def test_a_model_is_a_sequence_that_takes_names(rng):
    tensors = state(rng, fc1__weight=(4, 3), fc1__bias=(4,), fc2__weight=(2, 4), scale=())
    with bk.models.load(tensors) as model:
        assert model.names == ["fc1.weight", "fc2.weight", "scale"]
        assert [layer.name for layer in model[:2]] == model.names[:2]
        assert model["fc2.weight"] is model[1] is model[-2]
        assert "fc1.weight" in model
        assert "fc1.bias" not in model
        assert len(model) == 3
        assert model.edges is None
        np.testing.assert_array_equal(model[0].weight, tensors["fc1.weight"])
        np.testing.assert_array_equal(model[0].bias, tensors["fc1.bias"])
        assert model[1].bias is None
        assert model["scale"].declined == "no axes: a number"
        assert [layer.name for layer in model.select("fc*")] == ["fc1.weight", "fc2.weight"]
        assert repr(model) == "Model(source: 2 layers of weights, 1 others)"
        with pytest.raises(
            bk.InvalidArgument, match=r"layer: .* has no 'fc3'; there are fc1.weight, fc2.weight, scale"
        ):
            model["fc3"]
        with pytest.raises(bk.InvalidArgument, match=r"select: no layer matches 'x'; there are fc1.weight"):
            model.select("x")
    with pytest.raises(bk.InvalidArgument, match=r"fc1.weight: source was closed"):
        model[0].read()
    assert bk.models.load(tensors, select="fc2*").names == ["fc2.weight"]


@pytest.mark.parametrize(
    ("source", "error", "says"),
    [
        ({}, bk.InvalidArgument, "source: expected at least one layer"),
        (3, bk.InvalidType, "source: expected a mapping of names"),
        ({"weight": np.eye(3), "groups": 1}, bk.InvalidType, "source: is one layer"),
        ({"a": None}, bk.InvalidArgument, r"source\['a'\]: has no weight"),
        (
            {"a": {"weight": np.eye(2), "transposed": "x"}},
            bk.InvalidType,
            r"source\['a'\].transposed: expected True or",
        ),
        ({"a": {"weight": np.ones((4, 2, 3)), "groups": 3}}, bk.InvalidArgument, "do not divide into 3 groups"),
        ({"a": {"weight": np.eye(2), "norm": {}}}, bk.InvalidArgument, "norm: expected a batch normalization"),
    ],
)
def test_what_holds_no_layers(source, error, says):
    with pytest.raises(error, match=says):
        bk.models.load(source)


@pytest.mark.parametrize(("option", "value"), [("split", "heads"), ("split", ["gates", 3]), ("fold_norm", "yes")])
def test_wrong_options(option, value):
    with pytest.raises(bk.InvalidArgument, match=f"^{option}: expected"):
        bk.models.load([np.eye(2)], **{option: value})


def test_transposed_is_a_flag_of_the_graph_too():
    for bad in ("x", 1, np.ones(2)):
        with pytest.raises(bk.InvalidType, match=r"layers\[0\].transposed: expected True or False"):
            bk.spectral_graph([{"weight": np.ones((4, 4, 2)), "transposed": bad}])


def test_mappings_that_say_more(rng):
    K = rng.normal(size=(6, 2, 3, 3))  # (in, out / groups, k…): 6 channels to 4 in two groups
    bn = {"running_mean": [1.0] * 4, "running_var": [4.0] * 4, "weight": [2.0] * 4, "bias": [0.5] * 4, "eps": 0.0}
    layer = {"weight": K, "groups": 2, "transposed": True, "bias": np.ones(4), "norm": bn}
    (one,) = bk.models.load({"up": layer})
    assert (one.kind, one.shape, one.groups) == ("grouped transposed conv2d", (4, 3, 3, 3), 2)
    by_hand = np.concatenate([K[:3].swapaxes(0, 1), K[3:].swapaxes(0, 1)])
    np.testing.assert_array_equal(one.weight, by_hand)
    (folded,) = bk.models.load({"up": layer}, fold_norm=True)  # γ / √v = 1, and (1 - 1) 1 + 0.5
    np.testing.assert_allclose(folded.weight, by_hand)
    np.testing.assert_allclose(folded.bias, [0.5] * 4)
    assert folded.norm is None


def test_nan_names_the_tensor(rng):
    tensors = state(rng, a__weight=(4, 3), b__weight=(4, 4))
    tensors["b.weight"][2, 1] = np.nan
    model = bk.models.load(tensors)
    with pytest.raises(bk.NonFinite, match=r"b.weight: NaN or Inf at index \(2, 1\)"):
        _ = model["b.weight"].weight
    assert np.isnan(model["b.weight"].read()[2, 1])
    with pytest.raises(bk.NonFinite, match=r"b.weight"):
        bk.spectral_graph(model)


# ----------------------------------------------------------------------------------------------------- names of tensors
def test_prefixes_of_wrappers(rng):
    plain = state(rng, net__0__weight=(4, 3), net__0__bias=(4,))
    for wrapped in ("module.{}", "_orig_mod.{}", "module._orig_mod.{}", "_orig_mod.module.{}"):
        model = bk.models.load({wrapped.format(name): one for name, one in plain.items()})
        assert model.names == ["net.0.weight"]
        np.testing.assert_array_equal(model[0].bias, plain["net.0.bias"])
    inside = {"net._orig_mod.0.weight": plain["net.0.weight"], "module.x": np.eye(2)}
    assert bk.models.load(inside).names == ["net.0.weight", "module.x"]  # one module that is called so is no wrapper
    both = {"a._orig_mod.weight": np.eye(2), "a.weight": np.eye(2)}
    assert bk.models.load(both).names == list(both)


def test_checkpoints_in_memory(rng):
    tensors = state(rng, fc__weight=(4, 3), fc__bias=(4,))
    optimizer = {"state": {0: {"exp_avg": np.ones((4, 3))}}, "param_groups": []}
    for found in (
        {"state_dict": tensors, "optimizer": optimizer, "epoch": 3},
        {"model": {"model_state": {f"module.{name}": one for name, one in tensors.items()}}},
    ):
        (one,) = bk.models.load(found)
        assert one.name == "fc.weight"
        np.testing.assert_array_equal(one.bias, tensors["fc.bias"])
    (one,) = bk.models.load({"net": {"weight": np.eye(3), "groups": 3}})  # one layer, that is called so
    assert (one.name, one.groups) == ("net", 3)


@pytest.mark.parametrize(
    "name",
    [
        "fc.weight.exp_avg", "exp_avg.fc.weight", "optimizer.state.0.exp_avg_sq", "optimizer_state.0.momentum_buffer",
        "optimizer_state_dict.fc.weight", "optim.fc.weight", "state.0.max_exp_avg_sq", "gen_optimizer.fc.weight",
    ],
)  # fmt: skip
def test_moments_are_no_layers(rng, name):
    model = bk.models.load({"fc.weight": rng.normal(size=(4, 3)), name: rng.normal(size=(4, 3))})
    assert model["fc.weight"].declined == ""
    assert model[name].declined == "state of an optimizer, no weights"
    assert [row["name"] for row in bk.analyze(model).rows if not row["declined"].startswith("state")] == ["fc.weight"]


def test_names_like_those_of_optimizers_stay_layers(rng):
    names = ["optimal.weight", "my.optimizer_head.weight", "momentum.weight", "encoder.optim.weight"]
    assert all(not layer.declined for layer in bk.models.load({name: rng.normal(size=(4, 3)) for name in names}))


def test_kinds(rng):
    tensors = state(
        rng, wte__weight=(9, 4), embeddings__word_embeddings__weight=(9, 4), patch_embed__proj__weight=(4, 3, 2, 2),
        embed_out__weight=(9, 4), ln__weight=(4,), ln__bias=(4,), act__weight=(4,), rms_norm__weight=(4,),
        conv__weight=(4, 2, 3), video__weight=(4, 2, 3, 3, 3), pos_embed=(1, 7, 4), cls_token=(1, 1, 4),
        attn__qkv__weight=(12, 4), attn__in_proj_weight=(12, 4),
    )  # fmt: skip
    model = bk.models.load(tensors)
    assert kinds(model) == {
        "wte.weight": "embedding", "embeddings.word_embeddings.weight": "embedding",
        "patch_embed.proj.weight": "conv2d", "embed_out.weight": "linear", "ln.weight": "norm", "act.weight": "",
        "rms_norm.weight": "norm", "conv.weight": "conv1d", "video.weight": "conv3d", "pos_embed": "", "cls_token": "",
        "attn.qkv.weight": "qkv", "attn.in_proj_weight": "qkv",
    }  # fmt: skip
    assert model["pos_embed"].declined == "a table of tokens or positions, no layer"
    assert "cls_token" not in bk.analyze(model).metrics


def test_gpt2_keeps_weights_as_in_out(rng):
    """As transformers stores them: c_attn (in, 3 out), square c_proj told by its neighbours' biases."""
    tensors = state(
        rng, h__0__attn__c_attn__weight=(4, 12), h__0__attn__c_attn__bias=(12,), h__0__attn__c_proj__weight=(4, 4),
        h__0__attn__c_proj__bias=(4,), h__0__mlp__c_fc__weight=(4, 16), h__0__mlp__c_fc__bias=(16,),
        lm_head__weight=(9, 4),
    )  # fmt: skip
    model = bk.models.load(tensors, split=("gates", "qkv"))
    for part, letter in enumerate("qkv"):
        one = model[f"h.0.attn.c_attn.weight[{letter}]"]
        np.testing.assert_array_equal(one.weight, tensors["h.0.attn.c_attn.weight"].T[4 * part : 4 * part + 4])
        np.testing.assert_array_equal(one.bias, tensors["h.0.attn.c_attn.bias"][4 * part : 4 * part + 4])
    np.testing.assert_array_equal(model["h.0.attn.c_proj.weight"].weight, tensors["h.0.attn.c_proj.weight"].T)
    assert model["h.0.mlp.c_fc.weight"].shape == (16, 4)
    assert model["lm_head.weight"].shape == (9, 4)
    assert len(bk.models.load(tensors)) == 4  # stacked unless it is asked for
    other = state(rng, h__0__c_attn__weight=(12, 4), h__0__c_attn__bias=(12,), h__0__c_proj__weight=(4, 4),
                  h__0__c_proj__bias=(4,))  # fmt: skip
    model = bk.models.load(other)  # linear layers of the same names, as in nanoGPT
    np.testing.assert_array_equal(model["h.0.c_proj.weight"].weight, other["h.0.c_proj.weight"])


def test_which_normalization_follows(rng):
    bn = dict.fromkeys(("weight", "bias", "running_mean", "running_var"))

    def named(*entries):
        found = {}
        for name, shape in entries:
            if isinstance(shape, tuple):
                found[f"{name}.weight"] = rng.normal(size=shape)
            else:
                found |= {f"{name}.{leaf}": np.abs(rng.normal(size=shape)) for leaf in bn}
        return found

    chained = named(("conv1", (4, 3, 3, 3)), ("bn1", 4), ("conv2", (4, 4, 3, 3)), ("bn2", 4), ("fc", (2, 4)))
    assert norms(bk.models.load(chained)) == {"conv1.weight": "bn1.weight", "conv2.weight": "bn2.weight"}
    # numbered modules must be neighbours: 0 conv, 1 ReLU, 2 norm is none to fold
    assert norms(bk.models.load(named(("f.0", (4, 3, 1, 1)), ("f.2", 4)))) == {}
    assert norms(bk.models.load(named(("f.0", (4, 3, 1, 1)), ("f.1", 4)))) == {"f.0.weight": "f.1.weight"}
    # another parent, another width
    assert norms(bk.models.load(named(("a.conv", (4, 3, 1, 1)), ("b.bn", 4)))) == {}
    assert norms(bk.models.load(named(("conv", (4, 3, 1, 1)), ("bn", 5)))) == {}
    # a normalization of the inputs comes first
    first = named(("bn1", 4), ("conv1", (4, 4, 3, 3)), ("bn2", 4), ("conv2", (6, 4, 3, 3)))
    assert norms(bk.models.load(first)) == {"conv1.weight": "bn2.weight"}


def test_stacked_weights_are_split_into_gates(rng):
    torch = pytest.importorskip("torch")
    for cell, letters, options in (
        (torch.nn.LSTM, "ifgo", {}), (torch.nn.GRU, "rzn", {}), (torch.nn.RNN, "", {}),
        (torch.nn.LSTM, "ifgo", {"proj_size": 2}), (torch.nn.GRU, "rzn", {"bidirectional": True, "num_layers": 2}),
    ):  # fmt: skip
        rnn = cell(3, 5, **options)
        for source in (rnn, {name: one.detach().numpy() for name, one in rnn.state_dict().items()}):
            model = bk.models.load(source)
            for name, whole in rnn.named_parameters():
                if name.startswith("bias"):
                    continue
                split = letters if not name.startswith("weight_hr") else ""
                for k, letter in enumerate(split):
                    one = model[f"{name}[{letter}]"]
                    assert one.kind == "recurrent gate"
                    np.testing.assert_array_equal(np.asarray(one.weight), whole.detach()[5 * k : 5 * k + 5].numpy())
                    bias = getattr(rnn, name.replace("weight", "bias")).detach()
                    np.testing.assert_array_equal(np.asarray(one.bias), bias[5 * k : 5 * k + 5].numpy())
                if not split:
                    assert model[name].kind == "recurrent"
            assert len(bk.models.load(source, split=())) == sum("weight" in name for name in rnn.state_dict())
    rows = bk.analyze({"weight_ih_l0": rng.normal(size=(60, 20)), "weight_hh_l0": rng.normal(size=(60, 15))}).rows
    assert [row["name"] for row in rows][:4] == [f"weight_ih_l0[{letter}]" for letter in "ifgo"]


def test_selected_by_a_name_with_brackets(rng):
    model = bk.models.load({"weight_ih_l0": rng.normal(size=(60, 20)), "weight_hh_l0": rng.normal(size=(60, 15))})
    assert model.select("weight_ih_l0[g]").names == ["weight_ih_l0[g]"]
    assert [row["name"] for row in bk.analyze(model, select="weight_hh_l0[o]").rows] == ["weight_hh_l0[o]"]


# -------------------------------------------------------------------------------------------------------------- modules
def test_modules(rng):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    nn = torch.nn
    net = nn.Sequential(
        nn.Embedding(9, 4), nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6, eps=1e-3), nn.Conv2d(6, 6, 3, groups=6),
        nn.ConvTranspose2d(6, 4, 3, groups=2), nn.Linear(4, 5), nn.LayerNorm(5),
    )  # fmt: skip
    net[2].running_mean.normal_()
    net[2].running_var.uniform_(1, 2)
    model = bk.models.load(net)
    assert model.source == "Sequential"
    assert [(one.name, one.kind, one.shape, one.groups) for one in model] == [
        ("0.weight", "embedding", (9, 4), 1),
        ("1.weight", "grouped conv2d", (6, 2, 3, 3), 2),
        ("2.weight", "norm", (6,), 1),
        ("3.weight", "depthwise conv2d", (6, 1, 3, 3), 6),
        ("4.weight", "grouped transposed conv2d", (4, 3, 3, 3), 2),
        ("5.weight", "linear", (5, 4), 1),
        ("6.weight", "norm", (5,), 1),
    ]
    assert isinstance(model["5.weight"].weight, torch.Tensor)
    assert model["5.weight"].read().data_ptr() == net[5].weight.data_ptr()  # no copy
    stored = net[4].weight.detach()
    by_hand = torch.cat([stored[:3].swapaxes(0, 1), stored[3:].swapaxes(0, 1)])
    assert torch.equal(model["4.weight"].weight, by_hand)
    # the layer with its normalization does what the two do
    x = torch.randn(1, 4, 5, 5)
    weight, bias = model["1.weight"].folded()
    both = nn.functional.conv2d(x, weight, bias, groups=2)
    torch.testing.assert_close(both, net.eval()[2](net[1](x)), atol=1e-5, rtol=1e-5)
    assert model["1.weight"].norm.eps == 1e-3
    assert norms(model) == {"1.weight": "2.weight"}
    wrapped = bk.models.load(nn.DataParallel(net))
    assert wrapped.names == model.names
    assert kinds(wrapped) == kinds(model)
    rows = {row["name"]: row for row in bk.analyze(net).rows}
    assert rows["3.weight"]["declined"].startswith("depthwise: one filter for each channel")
    assert rows["2.running_var"]["declined"].startswith("one axis")
    assert bk.spectral_graph(net[3:6]).layer_edges == ((0, 1), (1, 2))


def test_attention_of_a_module(rng):
    torch = pytest.importorskip("torch")
    attention = torch.nn.MultiheadAttention(6, 2)
    assert kinds(bk.models.load(attention)) == {"in_proj_weight": "qkv", "out_proj.weight": "linear"}
    model = bk.models.load(attention, split="qkv")
    for k, letter in enumerate("qkv"):
        one = model[f"in_proj_weight[{letter}]"]
        assert one.kind == "qkv part"
        assert torch.equal(one.weight, attention.in_proj_weight[6 * k : 6 * k + 6])
        assert torch.equal(one.bias, attention.in_proj_bias[6 * k : 6 * k + 6])


def test_parametrizations_are_computed_by_the_module_and_declined_without_it(rng):
    torch = pytest.importorskip("torch")
    nn, P = torch.nn, torch.nn.utils.parametrizations

    class Symmetric(nn.Module):
        def forward(self, X):
            return X.triu() + X.triu(1).mT

    def symmetric(layer):
        nn.utils.parametrize.register_parametrization(layer, "weight", Symmetric())
        return layer

    for linear in (
        P.orthogonal(nn.Linear(6, 6)),
        symmetric(nn.Linear(6, 6)),
        P.spectral_norm(P.weight_norm(nn.Linear(6, 6))),
        symmetric(P.spectral_norm(nn.Linear(6, 6))),
    ):
        linear.train()
        state = {name: one.clone() for name, one in linear.state_dict().items()}
        (one,) = bk.models.load(nn.Sequential(linear))
        assert (one.name, one.kind, one.shape, one.declined) == ("0.weight", "linear", (6, 6), "")
        weight = one.weight  # read in training mode, which a power iteration would change the vectors of
        assert one.bias is not None
        assert linear.training
        assert all(torch.equal(one, state[name]) for name, one in linear.state_dict().items())
        with torch.no_grad():
            torch.testing.assert_close(weight, linear.eval().weight)
    gates = P.weight_norm(nn.LSTM(3, 4), "weight_ih_l0")
    found = torch.cat([bk.models.load(gates)[f"weight_ih_l0[{letter}]"].weight for letter in "ifgo"])
    torch.testing.assert_close(found, gates.weight_ih_l0.detach())

    for linear in (P.orthogonal(nn.Linear(6, 6)), P.spectral_norm(P.weight_norm(nn.Linear(6, 6)))):
        matrices = [layer for layer in bk.models.load(linear.state_dict()) if len(layer.shape) == 2]
        assert len(matrices) > 0
        assert all("parametrization that is not known" in layer.declined for layer in matrices)
        assert all(layer.name.startswith("parametrizations.weight.") for layer in matrices)
    spectral = P.spectral_norm(nn.Linear(6, 6)).train()
    before = spectral.parametrizations.weight[0]._u.clone()
    assert bk.models.load(spectral).names == ["weight"]
    assert torch.equal(spectral.parametrizations.weight[0]._u, before)


def test_layers_that_a_parametrization_refers_to_are_layers_still():
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Tied(nn.Module):
        def __init__(self, source):
            super().__init__()
            self.source = source

        def forward(self, X):
            return self.source.weight.mT

    for first in ("encoder", "decoder"):
        parts = {"encoder": nn.Linear(6, 3), "decoder": nn.Linear(3, 6)}
        nn.utils.parametrize.register_parametrization(parts["decoder"], "weight", Tied(parts["encoder"]))
        order = sorted(parts, key=lambda name: name != first)
        model = bk.models.load(nn.ModuleDict({name: parts[name] for name in order}))
        assert {kinds(model)[f"{name}.weight"] for name in parts} == {"linear"}
        torch.testing.assert_close(model["encoder.weight"].weight, parts["encoder"].weight.detach())
        torch.testing.assert_close(model["decoder.weight"].weight, parts["encoder"].weight.detach().mT)


def test_parametrizations_that_fail_are_declined_and_those_without_numbers_named():
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Failing(nn.Module):
        def forward(self, X):
            if not self.training:
                raise NotImplementedError("not for half types")
            return X

    layer = nn.Linear(6, 6)
    nn.utils.parametrize.register_parametrization(layer, "weight", Failing())
    model = bk.models.load(nn.Sequential(layer, nn.Linear(6, 4)))
    assert "parametrization that is not known" in model["0.parametrizations.weight.original"].declined
    assert model["1.weight"].shape == (4, 6)

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("scale", torch.ones(6, device="meta"))

        def forward(self, X):
            return X * self.scale.to("cpu") if self.scale.device.type != "meta" else X

    layer = nn.Linear(6, 6)
    nn.utils.parametrize.register_parametrization(layer, "weight", Scaled())
    with pytest.raises(bk.InvalidArgument, match="weight is on the meta device"):
        bk.models.load(layer)


def test_spectral_norm_of_a_square_transposed_convolution():
    torch = pytest.importorskip("torch")
    nn = torch.nn
    for norm in (nn.utils.parametrizations.spectral_norm, nn.utils.spectral_norm):
        for layer in (nn.ConvTranspose2d(5, 5, 3), nn.Conv2d(5, 5, 3)):
            layer = norm(layer)
            for _ in range(3):
                layer(torch.zeros(1, 5, 9, 9))  # steps of its power iteration
            layer.eval()(torch.zeros(1, 5, 9, 9))
            wanted = layer.weight.detach()
            for source in (layer, layer.state_dict()):
                weight = torch.as_tensor(bk.models.load(source)["weight"].weight)
                if source is layer and isinstance(layer, nn.ConvTranspose2d):
                    weight = weight.transpose(0, 1)
                torch.testing.assert_close(weight, wanted)


def test_pruned_weights_that_are_shared():
    torch = pytest.importorskip("torch")
    prune = pytest.importorskip("torch.nn.utils.prune")
    nn = torch.nn
    for pruned in (0, 1):
        net = nn.Sequential(nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False))
        net[1].weight = net[0].weight
        prune.random_unstructured(net[pruned], "weight", 0.5)
        model = bk.models.load(net)
        assert model.names == ["0.weight", "1.weight"]
        for layer, part in zip(model, net, strict=True):
            torch.testing.assert_close(torch.as_tensor(layer.weight), part.weight.detach())


def test_pruned_weights_are_those_that_the_layer_works_with(rng):
    torch = pytest.importorskip("torch")
    prune = pytest.importorskip("torch.nn.utils.prune")
    nn = torch.nn
    net = nn.Sequential(
        nn.Linear(5, 4), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 6, 3, groups=2),
        nn.MultiheadAttention(4, 2), nn.LSTM(3, 2), nn.Embedding(5, 4),
    )  # fmt: skip
    pruned = [(net[0], "weight"), (net[0], "bias"), (net[1], "weight"), (net[3], "weight"), (net[4], "in_proj_weight"),
              (net[5], "weight_ih_l0"), (net[6], "weight")]  # fmt: skip
    plain = bk.models.load(net)
    for part, name in pruned:
        prune.random_unstructured(part, name, 0.4)
        assert (getattr(part, name) == 0).any()
    prune.ln_structured(net[1], "weight", 0.5, 2, 0)  # a second one on the first
    for source, same in ((net, plain), (net.state_dict(), bk.models.load(net.state_dict()))):
        model = bk.models.load(source)
        assert not any(name.endswith(("_orig", "_mask")) for name in model.names)
        assert kinds(model).keys() == kinds(same).keys()
        torch.testing.assert_close(torch.as_tensor(model["0.weight"].weight), net[0].weight.detach())
        torch.testing.assert_close(torch.as_tensor(model["0.weight"].bias), net[0].bias.detach())
        torch.testing.assert_close(torch.as_tensor(model["1.weight"].weight), net[1].weight.detach())
        assert model["1.weight"].norm is not None
        assert model["1.weight"].bias is not None
        torch.testing.assert_close(torch.as_tensor(model["4.in_proj_weight"].weight), net[4].in_proj_weight.detach())
        gates = np.concatenate([model[f"5.weight_ih_l0[{one}]"].weight for one in "ifgo"])
        torch.testing.assert_close(torch.as_tensor(gates), net[5].weight_ih_l0.detach())
        torch.testing.assert_close(torch.as_tensor(model["6.weight"].weight), net[6].weight.detach())
    turned = net[3].weight.detach().reshape(2, 2, 3, 3, 3).swapaxes(1, 2).reshape(6, 2, 3, 3)
    torch.testing.assert_close(torch.as_tensor(bk.models.load(net)["3.weight"].weight), turned)
    row = bk.analyze(net[0]).rows[0]  # what reads through it
    assert row["spectral_norm"] == pytest.approx(np.linalg.norm(net[0].weight.detach().numpy(), 2), rel=1e-6)
    alone = {"fc.weight_orig": rng.normal(size=(5, 6)), "fc.weight_mask": np.ones((5, 7))}  # of another shape: no mask
    assert bk.models.load(alone).names == list(alone)


def test_many_normalizations_are_read_in_linear_time(monkeypatch):
    from brockett.models import _names

    calls, title = [], _names._title
    monkeypatch.setattr(_names, "_title", lambda name: calls.append(name) or title(name))
    state = {}
    for k in range(300):
        state[f"b{k}.conv.weight"] = np.zeros((4, 4, 1, 1))
        state |= {f"b{k}.bn.{one}": np.ones(4) for one in ("weight", "bias", "running_mean", "running_var")}
    model = bk.models.load(state)
    assert sum(layer.norm is not None for layer in model) == 300
    assert len(calls) <= 4 * len(state)


def test_modules_with_parametrized_weights(rng):
    torch = pytest.importorskip("torch")
    nn = torch.nn
    linear = nn.utils.parametrizations.weight_norm(nn.Linear(4, 5))
    turned = nn.utils.parametrizations.weight_norm(nn.ConvTranspose1d(4, 6, 3))
    spectral = nn.utils.parametrizations.spectral_norm(nn.Conv1d(3, 4, 2)).eval()
    with torch.no_grad():
        linear.parametrizations.weight.original0.mul_(3)
        expected = {"0": linear.weight, "1": turned.weight.swapaxes(0, 1), "2": spectral.weight}
    net = nn.Sequential(linear, turned, spectral)
    for source in (net, {name: one.numpy() for name, one in net.state_dict().items()}):
        model = bk.models.load(source)
        assert model.names == ["0.weight", "1.weight", "2.weight"]
        for name, weight in expected.items():
            if isinstance(source, dict) and name == "1":
                weight = weight.swapaxes(0, 1)  # names do not tell that it is transposed
            torch.testing.assert_close(torch.as_tensor(model[f"{name}.weight"].weight), weight.detach())
        assert model[0].bias is not None


def test_other_modules(rng):
    torch = pytest.importorskip("torch")

    class Conv1D(torch.nn.Module):
        """As transformers' layer for GPT-2: y = x W + b."""

        def __init__(self):
            super().__init__()
            self.nf = 5
            self.weight = torch.nn.Parameter(torch.randn(3, 5))
            self.bias = torch.nn.Parameter(torch.randn(5))

    one = bk.models.load(torch.nn.Sequential(Conv1D()))[0]
    assert one.shape == (5, 3)
    assert one.bias.shape == (5,)
    tied = torch.nn.ModuleDict({"wte": torch.nn.Embedding(9, 4), "head": torch.nn.Linear(4, 9, bias=False)})
    tied["head"].weight = tied["wte"].weight
    assert bk.models.load(tied).names == ["wte.weight"]
    with pytest.raises(bk.InvalidArgument, match="source: weight is not initialized yet"):
        bk.models.load(torch.nn.LazyLinear(3))
    with pytest.raises(bk.InvalidArgument, match="source: weight is on the meta device"):
        bk.models.load(torch.nn.Linear(3, 2, device="meta"))
    with pytest.raises(bk.InvalidArgument, match="at least one layer"):
        bk.models.load(torch.nn.ReLU())
    with pytest.raises(bk.InvalidArgument, match="holds no weights of layers"):
        bk.spectral_graph(torch.nn.LayerNorm(4))


def test_scales_of_eight_bits(rng):
    W = rng.normal(size=(6, 8)).astype(np.float32)
    row = np.abs(W).max(axis=1, keepdims=True) / 127
    q = np.rint(W / row).astype(np.int8)
    group = np.abs(W).reshape(6, 2, 4).max(axis=2) / 127
    grouped = np.rint(W / group.repeat(4, axis=1)).astype(np.int8)
    for name, scale in (("weight_scale", row), ("weight_scale", row[:, 0]), ("scales", row)):
        (one,) = bk.models.load({"fc.weight": q, f"fc.{name}": scale, "fc.bias": np.ones(6)})
        np.testing.assert_allclose(one.weight, q * row, rtol=1e-6)
        assert (one.dtype, one.declined, one.bias.shape) == ("int8", "", (6,))
    (one,) = bk.models.load({"fc.weight": grouped, "fc.scales": group})
    np.testing.assert_allclose(one.weight, W, atol=np.abs(W).max() / 127)
    (one,) = bk.models.load({"fc.weight": q, "fc.SCB": 127 * row[:, 0]})
    np.testing.assert_allclose(one.weight, q * row, rtol=1e-6)
    zero = np.full((6, 1), 3, np.int8)
    (one,) = bk.models.load({"fc.weight": q, "fc.weight_scale": row, "fc.weight_zero_point": zero})
    np.testing.assert_allclose(one.weight, (q.astype(int) - 3) * row, rtol=1e-5)
    big = rng.integers(-9, 9, size=(130, 300)).astype(np.int8)
    blocks = rng.uniform(1, 2, size=(2, 3))
    (one,) = bk.models.load({"fc.weight": big, "fc.weight_scale_inv": blocks})
    assert one.weight[129, 299] == pytest.approx(big[129, 299] * blocks[1, 2])
    assert one.weight[127, 128] == pytest.approx(big[127, 128] * blocks[0, 1])
    unknown = bk.models.load({"fc.weight": q, "fc.weight_scale": np.ones((3, 5))})
    assert "layout that is not known" in unknown["fc.weight"].declined
    assert bk.models.load({"fc.weight": q})[0].declined.startswith("int8: integers")
    packed = {"fc.qweight": q.astype(np.int32), "fc.scales": row, "fc.qzeros": q.astype(np.int32)}
    assert "integers" in bk.models.load(packed)["fc.qweight"].declined  # bits are packed in an order of its own


def test_quantized_modules(rng):
    torch = pytest.importorskip("torch")
    engines = torch.backends.quantized.supported_engines
    torch.backends.quantized.engine = next(one for one in ("fbgemm", "x86", "qnnpack") if one in engines)
    linear = torch.nn.Linear(8, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch announces that it will drop this some day
        packed = torch.ao.quantization.quantize_dynamic(torch.nn.Sequential(linear), {torch.nn.Linear})
    (one,) = (layer for layer in bk.models.load(packed) if layer.name == "0.weight")
    assert one.declined == ""
    torch.testing.assert_close(one.weight, packed[0].weight().dequantize())
    torch.testing.assert_close(one.weight, linear.weight.detach(), atol=2e-2, rtol=0)
    assert one.bias.shape == (5,)


# --------------------------------------------------------------------------------------------------------------- import
def test_importing_loads_no_reader():
    optional = "{'torch', 'safetensors', 'onnx', 'h5py', 'google.protobuf', 'zipfile', 'ml_dtypes'}"
    code = f"import sys, brockett; brockett.models.load; print(sorted({optional} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"
