"""ONNX: each operator against onnx's own reference evaluator, order and edges, constants, quantization."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import brockett as bk

onnx = pytest.importorskip("onnx", reason="reading ONNX needs the extra 'models'")
reference = pytest.importorskip("onnx.reference")
TensorProto, helper, numpy_helper = onnx.TensorProto, onnx.helper, onnx.numpy_helper


def constants(**arrays):
    return [numpy_helper.from_array(np.ascontiguousarray(one), name) for name, one in arrays.items()]


def network(nodes, inputs, outputs=("y",), functions=(), opset=18, **arrays):
    described = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    graph = helper.make_graph(nodes, "net", described, ends, constants(**arrays))
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=imports, functions=list(functions), ir_version=9)


def saved(tmp_path, *args, **kwargs):
    path = tmp_path / "net.onnx"
    onnx.save(network(*args, **kwargs), path)
    return path


def node(kind, inputs, output="y", name="", domain="", **attributes):
    return helper.make_node(kind, inputs.split(), output.split(), name=name, domain=domain, **attributes)


def computed(path, **values):
    feeds = {name: np.asarray(x, np.float32) for name, x in values.items()}
    return reference.ReferenceEvaluator(str(path)).run(None, feeds)[0]


def float32(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (0.5, 2.0)])
def test_gemm(rng, tmp_path, transposed, alpha, beta):
    B = float32(rng, 5, 3) if transposed else float32(rng, 3, 5)
    one = node("Gemm", "x B c", transB=transposed, alpha=alpha, beta=beta)
    path = saved(tmp_path, [one], {"x": (2, 3)}, B=B, c=float32(rng, 5))
    (layer,) = bk.models.load(path)
    assert (layer.name, layer.kind, layer.shape) == ("B", "linear", (5, 3))
    x = float32(rng, 2, 3)
    np.testing.assert_allclose(x @ layer.weight.T + layer.bias, computed(path, x=x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm_with_weights_on_the_left(rng, tmp_path, transposed):
    A = float32(rng, 3, 5) if transposed else float32(rng, 5, 3)
    path = saved(tmp_path, [node("Gemm", "A x", transA=transposed)], {"x": (3, 2)}, A=A)
    (layer,) = bk.models.load(path)
    x = float32(rng, 3, 2)
    assert layer.shape == (5, 3)
    np.testing.assert_allclose(layer.weight @ x, computed(path, x=x), rtol=1e-4, atol=1e-5)


def test_matmul_with_its_bias(rng, tmp_path):
    nodes = [
        node("MatMul", "x B", "m"),
        node("Add", "c m", "a"),
        node("MatMul", "A a", "l"),
        node("MatMul", "l l", "y"),
    ]
    arrays = {"B": float32(rng, 3, 5), "c": float32(rng, 5), "A": float32(rng, 5, 5)}
    path = saved(tmp_path, nodes[:2], {"x": (2, 3)}, ("a",), B=arrays["B"], c=arrays["c"])
    (layer,) = bk.models.load(path)
    x = float32(rng, 2, 3)
    np.testing.assert_allclose(x @ layer.weight.T + layer.bias, computed(path, x=x), rtol=1e-4, atol=1e-5)
    path = saved(tmp_path, nodes, {"x": (5, 3)}, **arrays)
    model = bk.models.load(path)
    assert model.names == ["B", "A"]  # the product of two values is no layer
    np.testing.assert_array_equal(model["A"].weight, arrays["A"])
    assert model.edges == [("B", "A")]
    # a sum along another axis, or of a value that others read too, is no bias
    odd = saved(
        tmp_path,
        [node("MatMul", "x B", "m"), node("Add", "m c")],
        {"x": (5, 3)},
        B=float32(rng, 3, 5),
        c=float32(rng, 5, 1),
    )
    assert bk.models.load(odd)[0].bias is None
    nodes = [node("MatMul", "x B", "m"), node("Add", "m c", "a"), node("Mul", "m a")]
    assert (
        bk.models.load(saved(tmp_path, nodes, {"x": (5, 3)}, B=float32(rng, 3, 5), c=float32(rng, 5)))[0].bias is None
    )


@pytest.mark.parametrize(("groups", "kind"), [(1, "conv2d"), (2, "grouped conv2d"), (4, "depthwise conv2d")])
def test_convolutions(rng, tmp_path, groups, kind):
    torch = pytest.importorskip("torch")
    W, b = float32(rng, 8, 4 // groups, 3, 3), float32(rng, 8)
    path = saved(tmp_path, [node("Conv", "x W b", group=groups)], {"x": (1, 4, 5, 5)}, W=W, b=b)
    (layer,) = bk.models.load(path)
    assert (layer.kind, layer.groups, layer.shape) == (kind, groups, W.shape)
    x = float32(rng, 1, 4, 5, 5)
    found = torch.nn.functional.conv2d(*map(torch.tensor, (x, layer.weight, layer.bias)), groups=groups)
    np.testing.assert_allclose(found, computed(path, x=x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_convolutions(rng, tmp_path, groups):
    torch = pytest.importorskip("torch")
    up = torch.nn.ConvTranspose1d(4, 6, 3, groups=groups)
    W, b = up.weight.detach().numpy(), up.bias.detach().numpy()
    path = saved(tmp_path, [node("ConvTranspose", "x W b", group=groups)], {"x": (1, 4, 5)}, W=W, b=b)
    (layer,) = bk.models.load(path)
    (same,) = bk.models.load(up)
    assert layer.kind == same.kind == ("" if groups == 1 else "grouped ") + "transposed conv1d"
    assert layer.shape == (6, 4 // groups, 3)
    np.testing.assert_array_equal(layer.weight, same.weight.numpy())
    # one impulse in channel 3 comes out as the filters that lead from it
    x = torch.zeros(1, 4, 5)
    x[0, 3, 0] = 1
    out = up(x)[0].detach().numpy() - b[:, None]
    rows = slice(6 - 6 // groups, 6)
    np.testing.assert_allclose(out[rows, :3], layer.weight[rows, 3 % (4 // groups)], atol=1e-6)


def test_batch_norm_is_given_to_what_it_alone_reads(rng, tmp_path):
    torch = pytest.importorskip("torch")
    vectors = {"s": float32(rng, 6), "o": float32(rng, 6), "m": float32(rng, 6), "v": np.abs(float32(rng, 6)) + 1}
    W, b = float32(rng, 6, 4, 3), float32(rng, 6, 1)
    nodes = [node("Conv", "x W", "c"), node("Add", "c b", "a"), node("BatchNormalization", "a s o m v", epsilon=0.1)]
    path = saved(tmp_path, nodes, {"x": (1, 4, 5)}, W=W, b=b, **vectors)
    model = bk.models.load(path)
    assert [(layer.name, layer.kind) for layer in model] == [("W", "conv1d"), ("s", "norm")]
    assert (model["W"].norm.name, model["W"].norm.eps) == ("s", pytest.approx(0.1))
    weight, bias = model["W"].folded()
    x = float32(rng, 1, 4, 5)
    found = torch.nn.functional.conv1d(*map(torch.tensor, (x, weight, bias)))
    np.testing.assert_allclose(found, computed(path, x=x), rtol=1e-4, atol=1e-4)
    (folded,) = [layer for layer in bk.models.load(path, fold_norm=True) if layer.kind == "conv1d"]
    np.testing.assert_array_equal(folded.weight, weight)
    both = [*nodes[:2], node("Relu", "a", "r"), node("BatchNormalization", "a s o m v", "n"), node("Add", "r n")]
    assert bk.models.load(saved(tmp_path, both, {"x": (1, 4, 5)}, W=W, b=b, **vectors))["W"].norm is None
    after = [*nodes[:2], node("Relu", "a", "r"), node("BatchNormalization", "r s o m v")]
    assert bk.models.load(saved(tmp_path, after, {"x": (1, 4, 5)}, W=W, b=b, **vectors))["W"].norm is None


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_gates(rng, tmp_path, kind, direction):
    letters = {"LSTM": "iofc", "GRU": "zrh", "RNN": ""}[kind]
    n, d, gates = 3, 2 if direction == "bidirectional" else 1, max(len(letters), 1)
    W, R, B = float32(rng, d, gates * n, 4), float32(rng, d, gates * n, n), float32(rng, d, 2 * gates * n)
    one = node(kind, "x W R B", hidden_size=n, direction=direction)
    model = bk.models.load(saved(tmp_path, [one], {"x": (5, 1, 4)}, W=W, R=R, B=B))
    assert len(model) == 2 * d * gates
    for name, whole, first in (("W", W, 0), ("R", R, gates * n)):
        for k, suffix in enumerate(["", "[reverse]"][:d]):
            for j, letter in enumerate(letters or [""]):
                layer = model[f"{name}{suffix}" + (f"[{letter}]" if letter else "")]
                assert layer.kind == ("recurrent gate" if letter else "recurrent")
                np.testing.assert_array_equal(layer.weight, whole[k, j * n : j * n + n])
                np.testing.assert_array_equal(layer.bias, B[k, first + j * n : first + j * n + n])
    assert len(bk.models.load(tmp_path / "net.onnx", split=())) == 2 * d


def test_gates_agree_with_pytorch(rng, tmp_path):
    """The same numbers through both libraries' recurrences, so that the letters mean what they say."""
    torch = pytest.importorskip("torch")
    lstm = torch.nn.LSTM(4, 3)
    named = {"i": 0, "f": 1, "c": 2, "o": 3}
    order = "iofc"

    def onnx_rows(array):
        return np.concatenate([array.detach().numpy()[3 * named[g] : 3 * named[g] + 3] for g in order])[None]

    W, R = onnx_rows(lstm.weight_ih_l0), onnx_rows(lstm.weight_hh_l0)
    B = np.concatenate([onnx_rows(lstm.bias_ih_l0), onnx_rows(lstm.bias_hh_l0)], axis=1)
    path = saved(tmp_path, [node("LSTM", "x W R B", "y", hidden_size=3)], {"x": (5, 1, 4)}, W=W, R=R, B=B)
    x = float32(rng, 5, 1, 4)
    np.testing.assert_allclose(computed(path, x=x)[:, 0], lstm(torch.from_numpy(x))[0].detach(), rtol=1e-4, atol=1e-5)
    ours, theirs = bk.models.load(path), bk.models.load(lstm)
    for gate in "ifo":
        np.testing.assert_array_equal(ours[f"W[{gate}]"].weight, theirs[f"weight_ih_l0[{gate}]"].weight.numpy())
    np.testing.assert_array_equal(ours["R[c]"].bias, theirs["weight_hh_l0[g]"].bias.numpy())


def test_order_and_edges(rng, tmp_path):
    """A residual block, a detour through shapes that carries nothing, an embedding, weights used twice."""
    nodes = [
        node("Gather", "table ids", "e"),
        node("MatMul", "e A", "a"), node("Relu", "a", "r"),
        node("MatMul", "r B", "b"), node("Add", "r b", "s"),
        node("Shape", "a", "shape"), node("Reshape", "s shape", "t"),
        node("LayerNormalization", "t g", "n"),
        node("MatMul", "n C", "c1"), node("MatMul", "x C", "c2"), node("Add", "c1 c2", "y"),
    ]  # fmt: skip
    arrays = {"table": float32(rng, 9, 4), "ids": np.arange(3), "g": np.ones(4, np.float32)}
    arrays |= {name: float32(rng, 4, 4) for name in "ABC"}
    path = saved(tmp_path, nodes, {"x": (3, 4)}, **arrays)
    assert "table" not in bk.models.load(path).names  # rows that are constant are a constant
    arrays.pop("ids")
    nodes[0] = node("Gather", "table tokens", "e")
    model = bk.models.load(saved(tmp_path, nodes, {"x": (3, 4), "tokens": (3,)}, **arrays))
    assert model.names == ["table", "A", "B", "C"]
    assert model["table"].kind == "embedding"
    assert model.edges == [("table", "A"), ("A", "B"), ("A", "C"), ("B", "C")]
    graph = bk.spectral_graph(tmp_path / "net.onnx")
    assert graph.layer_edges == ((0, 1), (1, 2), (1, 3), (2, 3))
    assert bk.analyze(model).graph(select=["A", "C"]).layer_edges == ((0, 1),)
    assert model[1:3].edges == [("A", "B")]


def test_graphs_within_graphs(rng, tmp_path):
    arrays = {"A": float32(rng, 4, 4), "C": float32(rng, 4, 2)}

    def branch(name, extra):
        ends = [helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None)]
        inner = [node("MatMul", f"a {name}", f"{name}_out"), *extra]
        return helper.make_graph(inner, name, [], ends, constants(**{name: float32(rng, 4, 4)}))

    nodes = [
        node("MatMul", "x A", "a"),
        node("If", "flag", "b", then_branch=branch("T", []), else_branch=branch("E", [])),
        node("MatMul", "b C", "y"),
    ]
    model = bk.models.load(saved(tmp_path, nodes, {"x": (3, 4), "flag": ()}, **arrays))
    assert sorted(model.names) == ["A", "C", "E", "T"]
    assert set(model.edges) == {("A", "T"), ("A", "E"), ("T", "C"), ("E", "C")}


def test_functions_are_inlined(rng, tmp_path):
    body = [helper.make_node("MatMul", ["u", "w"], ["m"]), helper.make_node("Relu", ["m"], ["v"])]
    function = helper.make_function("own", "Dense", ["u", "w"], ["v"], body, [helper.make_opsetid("", 18)])
    nodes = [node("Dense", "x A", "a", domain="own"), node("Dense", "a B", "y", domain="own")]
    arrays = {"A": float32(rng, 4, 3), "B": float32(rng, 3, 2)}
    model = bk.models.load(saved(tmp_path, nodes, {"x": (3, 4)}, functions=[function], **arrays))
    assert model.names == ["A", "B"]
    assert model.edges == [("A", "B")]


def test_constants_are_computed(rng, tmp_path):
    """Constant nodes, and weights that the graph transposes, cuts, joins, casts or shapes before a layer reads them."""
    K = float32(rng, 4, 6)
    held = helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(K, "k"))
    columns = node("Concat", "k2 k1", "j", axis=1)
    start, middle, end, axis = (np.array([n]) for n in (0, 2, 6, 1))
    nodes = [
        held, node("Slice", "k start middle axis", "k1"), node("Slice", "k middle end axis", "k2"), columns,
        node("Transpose", "j", "t", perm=[1, 0]), node("Cast", "t", "h", to=TensorProto.FLOAT16),
        node("Cast", "h", "w", to=TensorProto.FLOAT), node("Gemm", "x w", "y", transB=1),
    ]  # fmt: skip
    path = saved(tmp_path, nodes, {"x": (2, 4)}, start=start, middle=middle, end=end, axis=axis)
    (layer,) = bk.models.load(path)
    by_hand = np.concatenate([K[:, 2:], K[:, :2]], axis=1).T.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(layer.weight, by_hand)
    assert layer.name == "k"
    reshaped = [node("Reshape", "flat to", "w"), node("Conv", "x w")]
    (layer,) = bk.models.load(
        saved(tmp_path, reshaped, {"x": (1, 3, 9)}, flat=float32(rng, 24), to=np.array([4, 3, 2]))
    )
    assert (layer.kind, layer.shape) == ("conv1d", (4, 3, 2))


def test_names(rng, tmp_path):
    """Exporters make names up; the node's says more then."""
    nodes = [
        node("MatMul", "x onnx::MatMul_7", "a", name="/encoder/query/MatMul"),
        node("MatMul", "a W", "y", name="/out"),
    ]
    arrays = {"onnx::MatMul_7": float32(rng, 4, 3), "W": float32(rng, 3, 2)}
    path = saved(tmp_path, nodes, {"x": (3, 4)}, **arrays)
    assert bk.models.load(path).names == ["/encoder/query/MatMul", "W"]
    nodes[0].name = ""
    path = saved(tmp_path, nodes, {"x": (3, 4)}, **arrays)
    assert bk.models.load(path).names == ["onnx::MatMul_7", "W"]


def test_what_is_no_layer_is_named(rng, tmp_path):
    nodes = [node("Add", "x table", "a"), node("MatMul", "a batch", "b"), node("MatMul", "b q", "y")]
    arrays = {
        "table": float32(rng, 3, 4),
        "batch": float32(rng, 2, 4, 4),
        "q": rng.integers(0, 9, (4, 4)).astype(np.int8),
    }
    model = bk.models.load(saved(tmp_path, nodes, {"x": (3, 4)}, **arrays))
    assert {layer.name: layer.declined for layer in model} == {
        "batch": "3 axes: a product for each of a batch",
        "q": "int8: integers or booleans, quantized weights or an index; dequantize to analyse",
        "table": "an input of Add: no weights of a layer",
    }


# --------------------------------------------------------------------------------------------------------- quantization
def test_dequantize_linear(rng, tmp_path):
    q, step = rng.integers(-9, 9, (5, 3)).astype(np.int8), np.abs(float32(rng, 5)) + 0.1
    zero = rng.integers(-3, 3, 5).astype(np.int8)
    nodes = [node("DequantizeLinear", "q s z", "w", axis=0), node("Gemm", "x w", transB=1)]
    path = saved(tmp_path, nodes, {"x": (2, 3)}, q=q, s=step, z=zero)
    (layer,) = bk.models.load(path)
    assert (layer.name, layer.dtype, layer.declined) == ("q", "int8", "")
    expected = (q.astype(np.float32) - zero[:, None]) * step[:, None]
    np.testing.assert_allclose(layer.weight, expected, rtol=1e-6)
    assert bk.analyze(path).rows[0]["frobenius_norm"] == pytest.approx(np.linalg.norm(expected), rel=1e-5)


@pytest.mark.parametrize("each", [True, False])
def test_qlinear_operators(rng, tmp_path, each):
    K, step = rng.integers(-9, 9, (4, 3, 2)).astype(np.int8), (np.abs(float32(rng, 4)) + 0.1)
    B = rng.integers(-9, 9, (3, 4)).astype(np.uint8) if not each else rng.integers(0, 9, (3, 4)).astype(np.uint8)
    step = step if each else step[:1].reshape(())
    zero = np.zeros(step.shape, np.int8)
    offset = np.full(step.shape, 4, np.uint8)
    shared = {"xs": np.float32(0.5), "xz": np.uint8(0), "s": step, "z": zero, "ys": np.float32(1), "yz": np.uint8(0)}
    bias = rng.integers(-9, 9, 4).astype(np.int32)
    path = saved(tmp_path, [node("QLinearConv", "x xs xz K s z ys yz b")], {"x": (1, 3, 9)}, K=K, b=bias, **shared)
    layer = bk.models.load(path)["K"]
    by_row = np.broadcast_to(step, 4)
    np.testing.assert_allclose(layer.weight, K * by_row[:, None, None], rtol=1e-6)
    np.testing.assert_allclose(layer.bias, bias * 0.5 * by_row, rtol=1e-6)
    path = saved(tmp_path, [node("QLinearMatMul", "x xs xz B s o ys yz")], {"x": (1, 3)}, B=B, o=offset, **shared)
    layer = bk.models.load(path)["B"]
    np.testing.assert_allclose(layer.weight, ((B.astype(np.float32) - 4) * step).T, rtol=1e-6)
    # ONNX Runtime's dynamic quantization: the scale is known by its name, and used after the product
    nodes = [node("MatMulInteger", "x B_quantized xz o"), ]  # fmt: skip
    names = {"B_quantized": B, "B_scale": step, "xz": np.uint8(0), "o": offset}
    layer = bk.models.load(saved(tmp_path, nodes, {"x": (1, 3)}, **names))["B_quantized"]
    np.testing.assert_allclose(layer.weight, ((B.astype(np.float32) - 4) * step).T, rtol=1e-6)
    names.pop("B_scale")
    assert "integers" in bk.models.load(saved(tmp_path, nodes, {"x": (1, 3)}, **names))["B_quantized"].declined


# ---------------------------------------------------------------------------------------------------------------- files
def test_external_data(rng, tmp_path):
    W = float32(rng, 40, 30)
    model = network([node("Gemm", "x W", transB=1)], {"x": (2, 30)}, W=W)
    path = tmp_path / "net.onnx"
    onnx.save_model(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (layer,) = bk.models.load(path)
    np.testing.assert_array_equal(layer.weight, W)
    whole = (tmp_path / "weights.bin").read_bytes()
    (tmp_path / "weights.bin").write_bytes(whole[:-4])
    with pytest.raises(bk.FileFormatError, match="damaged"):
        bk.models.load(path)[0].read()
    (tmp_path / "inner").mkdir()
    path.rename(tmp_path / "inner/net.onnx")
    (tmp_path / "weights.bin").write_bytes(whole)
    message = onnx.load(tmp_path / "inner/net.onnx", load_external_data=False)
    message.graph.initializer[0].external_data[0].value = "../weights.bin"
    (tmp_path / "inner/net.onnx").write_bytes(message.SerializeToString())
    with pytest.raises(bk.FileFormatError, match="damaged"):  # outside of the model's folder
        bk.models.load(tmp_path / "inner/net.onnx")[0].read()


def test_damaged_files(rng, tmp_path):
    path = saved(tmp_path, [node("Gemm", "x W", transB=1)], {"x": (2, 30)}, W=float32(rng, 40, 30))
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:5], b"\x08\x07\x12\x00", b"text, no model"):
        path.write_bytes(content)
        with pytest.raises(bk.FileFormatError, match="damaged or not an ONNX file"):
            bk.models.load(path)
    forged = onnx.load_from_string(whole)
    forged.graph.initializer[0].dims[:] = [2**31, 2**31]
    path.write_bytes(forged.SerializeToString())
    with pytest.raises(bk.FileFormatError, match="damaged"):
        bk.models.load(path)[0].read()


def chain(kind, again, length):
    """Each node reads the one before, `again` times over."""
    names = ["W", *(f"c{k}" for k in range(length))]
    links = [node(kind, " ".join([a] * again), b, **({"axis": 0} if kind == "Concat" else {}))
             for a, b in itertools.pairwise(names)]  # fmt: skip
    return [*links, node("MatMul", f"x {names[-1]}")]


def test_constants_that_double_end(rng, tmp_path):
    W = float32(rng, 5, 3)
    (layer,) = bk.models.load(saved(tmp_path, chain("Add", 2, 40), {"x": (2, 5)}, W=W))
    np.testing.assert_array_equal(layer.weight, 2.0**40 * W.T)
    ones = {"one": np.ones(1, np.float32)}
    for start in ("W", "x"):  # constants, and what is none
        nodes, last = [], start
        for k in range(40):  # 1 more and 1 less, whose sum is twice that
            nodes += [node("Add", f"{last} one", f"p{k}"), node("Sub", f"{last} one", f"m{k}")]
            nodes.append(node("Add", f"p{k} m{k}", last := f"s{k}"))
        nodes += [node("MatMul", f"x {last}"), node("MatMul", "x W", "z")]
        path = saved(tmp_path, nodes, {"x": (2, 5)}, ("y", "z"), W=np.round(8 * W), **ones)
        factors = [2.0**40, 1.0] if start == "W" else [1.0]
        for layer, factor in zip(bk.models.load(path), factors, strict=True):
            np.testing.assert_allclose(layer.weight, factor * np.round(8 * W).T, rtol=1e-6)
    grown = bk.models.load(saved(tmp_path, chain("Concat", 2, 40), {"x": (2, 5)}, W=W))
    assert grown[0].declined == "an input of Concat: no weights of a layer"
    expand = [node("Expand", "W shape", "big"), node("MatMul", "x big")]
    path = saved(tmp_path, expand, {"x": (2, 5)}, W=np.ones((1, 1), np.float32), shape=np.array([10**6, 10**6]))
    assert bk.models.load(path)[0].declined == "an input of Expand: no weights of a layer"


def test_functions_that_double_end(tmp_path):
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    functions = [helper.make_function("own", "F0", ["a"], ["b"], [node("Relu", "a", "b")], imports)]
    for k in range(40):
        twice = [node(f"F{k}", "a", "t", domain="own"), node(f"F{k}", "t", "b", domain="own")]
        functions.append(helper.make_function("own", f"F{k + 1}", ["a"], ["b"], twice, imports))
    itself = helper.make_function("own", "F", ["a"], ["b"], [node("F", "a", "b", domain="own")], imports)
    for name, known in (("F40", functions), ("F", [itself])):
        path = saved(tmp_path, [node(name, "x", domain="own")], {"x": (2, 3)}, functions=known)
        with pytest.raises(bk.FileFormatError, match="more than 2000000 nodes, or call themselves"):
            bk.models.load(path)


def test_nodes_that_are_none_are_damage(rng, tmp_path):
    W, x = float32(rng, 5, 3), {"x": (2, 5)}
    for nodes, arrays in (
        ([node("Transpose", "W", "a", perm=[4, 5]), node("MatMul", "x a")], {"W": W}),
        ([helper.make_node("MatMul", ["x", "W"], [])], {"W": W}),
        ([node("LSTM", "x W R")], {"W": float32(rng, 2, 8, 5), "R": float32(rng, 1, 8, 2)}),
    ):
        with pytest.raises(bk.FileFormatError, match=r"net\.onnx: is damaged"):
            bk.models.load(saved(tmp_path, nodes, x, **arrays))
    model = network([node("MatMul", "x W")], x, W=W)
    model.graph.initializer[0].data_type = 99
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(bk.FileFormatError, match="W has the unknown data type 99"):
        bk.models.load(tmp_path / "net.onnx")
    cycle = [node("Identity", "b", "a"), node("Neg", "a", "b"), node("MatMul", "x a"), node("MatMul", "x W", "z")]
    assert bk.models.load(saved(tmp_path, cycle, x, W=W)).names == ["W"]
    with pytest.raises(bk.FileFormatError, match="damaged"):  # deeper than can be read
        bk.models.load(saved(tmp_path, chain("Transpose", 1, 3000), x, W=W))[0].read()


def test_half_numbers(rng, tmp_path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    W = float32(rng, 5, 3)
    for dtype in (np.float16, ml_dtypes.bfloat16):
        path = saved(tmp_path, [node("Gemm", "x W", transB=1)], {"x": (2, 3)}, W=W.astype(dtype))
        (layer,) = bk.models.load(path)
        np.testing.assert_array_equal(layer.weight, W.astype(dtype).astype(np.float32))
