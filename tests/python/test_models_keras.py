"""Keras: kernels turned to (out, in, k…), both layouts of HDF5 and `.keras`, files by hand and by Keras itself."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import brockett as bk

h5py = pytest.importorskip("h5py", reason="reading Keras files needs the extra 'models'")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """What Keras wrote, and the outputs of each layer."""
    for name in ("keras", "torch"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"needs {name}, whose files these are")
    folder = tmp_path_factory.mktemp("keras")
    script = Path(__file__).with_name("keras_models.py")
    done = subprocess.run([sys.executable, script, folder], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder


FILES = (".h5", ".keras", ".weights.h5")


def by_channels(array):
    return np.moveaxis(array, -1, 1)


@pytest.mark.parametrize("suffix", FILES)
def test_layers_compute_what_keras_computes(saved, suffix):
    import torch

    def conv(x, layer, function=torch.nn.functional.conv2d, **options):
        bias = None if layer.bias is None else torch.tensor(layer.bias)
        weight = torch.tensor(np.ascontiguousarray(layer.weight))
        return function(torch.tensor(x), weight, bias, groups=layer.groups, **options).numpy()

    y = {name: one.astype(np.float32) for name, one in np.load(saved / "images.npz").items()}
    x = next(one for name, one in y.items() if name.startswith("input"))
    close = {"rtol": 1e-4, "atol": 1e-4}
    with bk.models.load(saved / f"images{suffix}") as model:
        (first,) = [layer for layer in model if "first/" in layer.name]
        (deep,) = [layer for layer in model if "deep/" in layer.name]
        (grouped,) = [layer for layer in model if "grouped/" in layer.name]
        (along, across) = [layer for layer in model if "apart/" in layer.name]
        (up,) = [layer for layer in model if "up/" in layer.name and "grouped" not in layer.name]
        (inner,) = [layer for layer in model if "inner/" in layer.name]
        (head,) = [layer for layer in model if "head/" in layer.name]
        assert (first.kind, first.shape) == ("conv2d", (8, 4, 3, 3))
        np.testing.assert_allclose(conv(by_channels(x), first), by_channels(y["first"]), **close)
        assert (deep.kind, deep.groups, deep.shape) == ("depthwise conv2d", 8, (16, 1, 3, 3))
        np.testing.assert_allclose(conv(by_channels(y["bn"]), deep), by_channels(y["deep"]), **close)
        if suffix != ".weights.h5":  # weights alone do not tell groups
            assert (grouped.kind, grouped.groups) == ("grouped conv2d", 4)
            np.testing.assert_allclose(conv(by_channels(y["deep"]), grouped), by_channels(y["grouped"]), **close)
        assert (along.kind, across.kind) == ("depthwise conv2d", "conv2d")
        assert along.bias is None
        both = conv(conv(by_channels(y["grouped"]), along, padding="same"), across)
        np.testing.assert_allclose(both, by_channels(y["apart"]), **close)
        assert (up.kind, up.shape) == ("transposed conv2d", (5, 6, 2, 2))
        x = by_channels(y["apart"])
        stored = torch.tensor(np.ascontiguousarray(np.swapaxes(up.weight, 0, 1)))
        turned = torch.nn.functional.conv_transpose2d(torch.tensor(x), stored, torch.tensor(up.bias))
        np.testing.assert_allclose(turned.numpy(), by_channels(y["up"]), **close)
        assert (inner.kind, inner.shape) == ("linear", (5, 12))
        np.testing.assert_allclose(np.maximum(y["most"] @ inner.weight.T + inner.bias, 0), y["branch"], **close)
        np.testing.assert_allclose(y["sum"] @ head.weight.T + head.bias, y["head"], **close)


@pytest.mark.parametrize("suffix", FILES)
def test_the_model_tells_what_follows(saved, suffix):
    import torch

    with bk.models.load(saved / f"images{suffix}") as model:
        if suffix == ".weights.h5":
            assert model.edges is None
            assert all(layer.norm is None for layer in model)
            return
        short = {layer.name: next(part for part in reversed(layer.name.split("/")[:-1])) for layer in model}
        names = {(short[a], short[b]) for a, b in model.edges}
        assert names == {
            ("first", "deep"), ("deep", "grouped"), ("grouped", "apart"), ("apart", "apart"), ("apart", "up"),
            ("grouped", "inner"), ("up", "head"), ("inner", "head"),
        }  # fmt: skip
        assert [short[layer.name] for layer in model if layer.norm is not None] == ["first"]
        first = next(layer for layer in model if layer.norm is not None)
        assert first.norm.eps == pytest.approx(0.1)
        weight, bias = (torch.tensor(np.ascontiguousarray(one)) for one in first.folded())
        y = np.load(saved / "images.npz")
        x = by_channels(next(y[name] for name in y if name.startswith("input"))).astype(np.float32)
        found = torch.nn.functional.conv2d(torch.tensor(x), weight, bias)
        np.testing.assert_allclose(found, by_channels(y["bn"]), rtol=1e-4, atol=1e-4)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("suffix", FILES)
def test_gates_and_attention(saved, suffix):
    """The recurrences from the gates, in NumPy, so that the letters mean what they say."""
    y = {name: one.astype(np.float64) for name, one in np.load(saved / "tokens.npz").items()}
    with bk.models.load(saved / f"tokens{suffix}") as model:
        assert not any("optimizer" in name or "adam" in name for name in model.names)
        (table,) = [layer for layer in model if layer.kind == "embedding"]
        ids = next(one for name, one in y.items() if name.startswith("input")).astype(int)
        np.testing.assert_allclose(table.weight[ids], y["table"], rtol=1e-6)

        def gates(part, letters):
            kernels = {}
            for letter in letters:
                for role in ("kernel", "recurrent_kernel"):
                    (one,) = [
                        layer for layer in model if part in layer.name and layer.name.endswith(f"/{role}[{letter}]")
                    ]
                    kernels[letter, role] = (one.weight, one.bias)
            return kernels

        W = gates("lstm", "ifco")
        h = c = np.zeros((2, 3))
        states = []
        for t in range(6):
            x = y["attention"][:, t]
            a = {g: x @ W[g, "kernel"][0].T + W[g, "kernel"][1] + h @ W[g, "recurrent_kernel"][0].T for g in "ifco"}
            c = sigmoid(a["f"]) * c + sigmoid(a["i"]) * np.tanh(a["c"])
            h = sigmoid(a["o"]) * np.tanh(c)
            states.append(h)
        np.testing.assert_allclose(np.stack(states, 1), y["lstm"], rtol=1e-4, atol=1e-5)
        W = gates("forward", "zrh")
        h, states = np.zeros((2, 2)), []
        for t in range(6):
            x = y["lstm"][:, t]
            a = {g: x @ W[g, "kernel"][0].T + W[g, "kernel"][1] for g in "zrh"}
            b = {g: h @ W[g, "recurrent_kernel"][0].T + W[g, "recurrent_kernel"][1] for g in "zrh"}
            z, r = sigmoid(a["z"] + b["z"]), sigmoid(a["r"] + b["r"])
            h = z * h + (1 - z) * np.tanh(a["h"] + r * b["h"])
            states.append(h)
        np.testing.assert_allclose(np.stack(states, 1), y["both"][..., :2], rtol=1e-4, atol=1e-5)

        def projection(word):
            (one,) = [layer for layer in model if word in layer.name.split("/")]
            return one

        q, k, v = (y["table"] @ one.weight.T + one.bias for one in map(projection, ("query", "key", "value")))
        heads = []
        for at in (slice(0, 3), slice(3, 6)):
            score = np.exp(np.einsum("bqd,bkd->bqk", q[..., at], k[..., at]) / np.sqrt(3))
            heads.append(score / score.sum(-1, keepdims=True) @ v[..., at])
        end = projection("attention_output")
        found = np.concatenate(heads, -1) @ end.weight.T + end.bias
        np.testing.assert_allclose(found, y["attention"], rtol=1e-4, atol=1e-5)


# -------------------------------------------------------------------------------------------------------------- by hand
@pytest.mark.parametrize("suffix", FILES)
def test_names_say_which_layer(saved, suffix):
    """Keras calls the projections of every attention "query", "key", …: the name of their layer tells them apart."""
    projections = ("query", "key", "value", "attention_output")
    wanted = {f"{one}/{part}/kernel" for one in ("first", "second") for part in projections}
    with bk.models.load(saved / f"repeated{suffix}") as model:
        assert set(model.names) == wanted | {"branch_transpose/each/inner/kernel"}
        if model.edges is not None:
            assert set(model.edges) == {
                *((f"first/{a}/kernel", f"second/{b}/kernel") for a in projections for b in projections),
                *((f"second/{a}/kernel", "branch_transpose/each/inner/kernel") for a in projections),
            }


def test_layers_of_one_name_are_told_by_their_place(rng, tmp_path):
    numbered, old = tmp_path / "a.weights.h5", tmp_path / "a.h5"
    W = rng.normal(size=(3, 4, 4))
    with h5py.File(numbered, "w") as file:  # a layer that holds three of one name, two of them in a list
        file.create_group("layers/block/vars").attrs["name"] = "block"
        for place, array in zip(("up", "more/dense", "more/dense_1"), W, strict=True):
            group = file.create_group(f"layers/block/{place}/vars")
            group.attrs["name"] = "up"
            group["0"] = array
    names = [f"block/{place}/kernel" for place in ("more/dense", "more/dense_1", "up")]
    model = bk.models.load(numbered)
    assert model.names == names
    for name, array in zip(names, W[[1, 2, 0]], strict=True):
        np.testing.assert_array_equal(model[name].weight, array.T)
    # TensorFlow does not tell the layers of a model within the model from those outside
    legacy(old, {"dense": {"dense/kernel:0": W[0]}, "inner": {"dense/kernel:0": W[1]}})
    model = bk.models.load(old)
    assert model.names == ["dense/kernel", "inner/dense/kernel"]
    np.testing.assert_array_equal(model["inner/dense/kernel"].weight, W[1].T)


def test_models_within_the_model_may_have_the_same_names(rng, tmp_path):
    """Two branches by one function: each convolution has the normalization and the readers of its own branch."""
    path, W = tmp_path / "a.h5", rng.normal(size=(2, 3, 3, 4, 4))
    norm = {f"bn/{role}:0": rng.normal(size=4) ** 2 for role in ("gamma", "beta", "moving_mean", "moving_variance")}
    other = {name: array + 1 for name, array in norm.items()}

    def branch(name, groups):
        conv = {"class_name": "Conv2D", "config": {"name": "conv", "groups": groups}}
        bn = {"class_name": "BatchNormalization", "config": {"name": "bn", "epsilon": 1e-3 * groups}}
        return {"class_name": "Sequential", "config": {"name": name, "layers": [conv, bn]}}

    config = {"name": "both", "layers": [branch("first", 1), branch("second", 2)]}
    kernels = {"first": W[0], "second": W[1][:, :, :2]}
    legacy(
        path,
        {name: {"conv/kernel:0": kernels[name], **bn} for name, bn in (("first", norm), ("second", other))},
        {"class_name": "Sequential", "config": config},
    )
    model = bk.models.load(path)
    assert model.names == [f"{part}/{one}" for part in kernels for one in ("conv/kernel", "bn/gamma")]
    assert model.edges == [("first/conv/kernel", "second/conv/kernel")]
    for name, bn, groups in (("first", norm, 1), ("second", other, 2)):
        layer = model[f"{name}/conv/kernel"]
        assert (layer.groups, layer.norm.name, layer.norm.eps) == (groups, f"{name}/bn/gamma", 1e-3 * groups)
        np.testing.assert_array_equal(layer.norm.running_var, bn["bn/moving_variance:0"])


def test_a_layer_may_have_the_name_of_a_part_of_another(rng, tmp_path):
    path = tmp_path / "a.h5"
    W = {"attention/query/kernel:0": rng.normal(size=(4, 2, 3)), "attention/key/kernel:0": rng.normal(size=(4, 2, 3))}
    layers = [("MultiHeadAttention", {"name": "attention"}), ("Dense", {"name": "query"})]
    config = {"name": "m", "layers": [{"class_name": kind, "config": settings} for kind, settings in layers]}
    legacy(
        path,
        {"attention": W, "query": {"query/kernel:0": rng.normal(size=(4, 5))}},
        {"class_name": "Sequential", "config": config},
    )
    model = bk.models.load(path)
    assert set(model.edges) == {(f"attention/{one}/kernel", "query/kernel") for one in ("query", "key")}


def test_a_name_does_not_make_a_convolution_transposed(rng, tmp_path):
    path, W = tmp_path / "a.weights.h5", rng.normal(size=(3, 3, 2, 5))
    config = {"layers": [{"class_name": "Conv2D", "config": {"name": "transposed", "filters": 5}}]}
    legacy(path, {"transposed": {"transposed/kernel:0": W}}, {"class_name": "Sequential", "config": config})
    (layer,) = bk.models.load(path)
    assert (layer.kind, layer.shape) == ("conv2d", (5, 2, 3, 3))


def legacy(path, layers, config=None):
    """Keras 1 and 2: a group for each layer that lists its weights."""
    with h5py.File(path, "w") as file:
        if config is not None:
            file.attrs["model_config"] = json.dumps(config)
        root = file.create_group("model_weights")
        root.attrs["layer_names"] = [name.encode() for name in layers]
        for name, weights in layers.items():
            group = root.create_group(name)
            group.attrs["weight_names"] = [one.encode() for one in weights]
            for one, array in weights.items():
                group.create_dataset(one, data=array)
    return path


def test_files_of_tensorflow(rng, tmp_path):
    K, b, D = rng.normal(size=(3, 3, 2, 5)), rng.normal(size=5), rng.normal(size=(5, 4))
    layers = {
        "pool": {}, "conv": {"conv/kernel:0": K, "conv/bias:0": b},
        "bn": {f"bn/{role}:0": np.ones(5) for role in ("gamma", "beta", "moving_mean", "moving_variance")},
        "fc": {"fc/kernel:0": D},
    }  # fmt: skip
    with bk.models.load(legacy(tmp_path / "w.h5", layers)) as model:
        assert [(one.name, one.kind, one.shape) for one in model] == [
            ("conv/kernel", "conv2d", (5, 2, 3, 3)), ("bn/gamma", "norm", (5,)), ("fc/kernel", "linear", (4, 5)),
        ]  # fmt: skip
        np.testing.assert_array_equal(model[0].weight, K.transpose(3, 2, 0, 1))
        np.testing.assert_array_equal(model["fc/kernel"].weight, D.T)
        np.testing.assert_array_equal(model[0].bias, b)
    chain = [{"class_name": name, "config": {"name": one}} for name, one in
             (("MaxPooling2D", "pool"), ("Conv2D", "conv"), ("BatchNormalization", "bn"), ("Dense", "fc"))]  # fmt: skip
    for config in (
        {"class_name": "Sequential", "config": chain},
        {"class_name": "Sequential", "config": {"layers": chain}},
    ):
        with bk.models.load(legacy(tmp_path / "w.h5", layers, config)) as model:
            assert model.edges == [("conv/kernel", "fc/kernel")]
            assert (model[0].norm.name, model[0].norm.eps) == ("bn/gamma", 1e-3)
    functional = {"class_name": "Model", "config": {"layers": [
        {"class_name": "InputLayer", "config": {"name": "x"}, "name": "x", "inbound_nodes": []},
        {"class_name": "Conv2D", "config": {"name": "conv"}, "name": "conv", "inbound_nodes": [[["x", 0, 0, {}]]]},
        {"class_name": "Dense", "config": {"name": "fc"}, "name": "fc", "inbound_nodes": [[["conv", 0, 0, {}]]]},
    ], "output_layers": [["fc", 0, 0]]}}  # fmt: skip
    with bk.models.load(legacy(tmp_path / "w.h5", layers, functional)) as model:
        assert model.edges == [("conv/kernel", "fc/kernel")]


def test_names_of_keras_1_and_cut_lists(rng, tmp_path):
    W = rng.normal(size=(3, 4))
    path = legacy(tmp_path / "w.h5", {"dense_1": {"dense_1_W": W, "dense_1_b": np.ones(4)}})
    with h5py.File(path, "a") as file:
        root = file["model_weights"]
        root.attrs["layer_names0"] = root.attrs["layer_names"]
        del root.attrs["layer_names"]
    with bk.models.load(path) as model:
        assert (model[0].kind, model[0].shape) == ("linear", (4, 3))
        np.testing.assert_array_equal(model[0].weight, W.T)
        np.testing.assert_array_equal(model[0].bias, np.ones(4))


def test_what_is_not_known_is_declined(rng, tmp_path):
    path = legacy(tmp_path / "w.h5", {"odd": {"odd/codes:0": rng.normal(size=(3, 4))}})
    with bk.models.load(path) as model:
        assert model[0].declined == "a variable of a layer that is not known here"
    config = {"class_name": "Sequential", "config": {"layers": [{"class_name": "Odd", "config": {"name": "odd"}}]}}
    path = legacy(tmp_path / "w.h5", {"odd": {"odd/kernel:0": rng.normal(size=(3, 4, 5))}}, config)
    with bk.models.load(path) as model:
        assert model[0].declined == "a kernel of odd: its axes are not known"


def test_damaged_and_hostile_files_are_refused(rng, tmp_path):
    path = legacy(tmp_path / "w.h5", {"fc": {"fc/kernel:0": rng.normal(size=(30, 40))}})
    whole = path.read_bytes()
    for cut in (9, 100, len(whole) // 2):
        path.write_bytes(whole[:cut])
        with pytest.raises(bk.FileFormatError, match=r"w\.h5: "):
            bk.models.load(path)[0].read()
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.eye(3))
    with pytest.raises(bk.FileFormatError, match="is HDF5, but holds no layers of Keras"):
        bk.models.load(path)

    def forged(make):
        with h5py.File(path, "w") as file:
            root = file.create_group("model_weights")
            root.attrs["layer_names"] = [b"fc"]
            group = root.create_group("fc")
            group.attrs["weight_names"] = [b"kernel"]
            make(group)

    np.zeros(9).tofile(tmp_path / "secret")
    other = legacy(tmp_path / "other.h5", {"fc": {"fc/kernel:0": np.eye(3)}})
    layout = h5py.VirtualLayout((3, 3), "f8")
    layout[...] = h5py.VirtualSource(str(other), "/model_weights/fc/fc/kernel:0", (3, 3))
    for says, make in {
        "a link to another file": lambda g: g.__setitem__("kernel", h5py.ExternalLink("other.h5", "/model_weights")),
        "lies in another file": lambda g: g.create_virtual_dataset("kernel", layout),
        r"kernel lies in another file": lambda g: g.create_dataset(
            "kernel", (3, 3), "f8", external=[(str(tmp_path / "secret"), 0, 72)]
        ),
        r"announces \d+ bytes, 0 are there": lambda g: g.create_dataset(
            "kernel", (2**20, 2**20), "f4", chunks=(64, 64)
        ),
        "is no array": lambda g: g.create_group("kernel"),
    }.items():
        forged(make)
        with pytest.raises(bk.FileFormatError, match=says):
            bk.models.load(path)


def test_any_configuration_is_read_or_refused(rng, tmp_path):
    W = rng.normal(size=(3, 4))
    dense = {"class_name": "Dense", "config": {"name": "fc"}, "inbound_nodes": [["x", 0, 0]]}
    for outputs in (["fc", 0, 0], [["fc", 0, 0]], {"one": ["fc", 0, 0], "two": ["fc", 0, 0]}, 5):  # a dict: of Keras 3
        config = {"class_name": "Functional", "config": {"layers": [dense], "output_layers": outputs}}
        with bk.models.load(legacy(tmp_path / "w.h5", {"fc": {"fc/kernel:0": W}}, config)) as model:
            np.testing.assert_array_equal(model[0].weight, W.T)
    for config in ({"config": 5}, {"config": {"layers": 5}}, {"config": {"layers": [{"config": 5}]}}):
        with pytest.raises(bk.FileFormatError, match=r"w\.h5: is damaged"):
            bk.models.load(legacy(tmp_path / "w.h5", {"fc": {"fc/kernel:0": W}}, config))


def test_a_file_that_is_open_as_python_ends_says_nothing(rng, tmp_path):
    path = legacy(tmp_path / "w.h5", {"fc": {"fc/kernel:0": rng.normal(size=(3, 4))}})
    script = f"import brockett as bk; model = bk.models.load({str(path)!r}); model[0].weight"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
