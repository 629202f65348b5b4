"""One call over a network: the table, what stands behind it, files read a layer at a time, pictures."""

from __future__ import annotations

import csv
import json
import math
import sys
import tracemalloc
import types

import numpy as np
import pytest

import brockett as bk
from brockett import _progress, _spectra_plot

pytest.importorskip("safetensors", reason="reading .safetensors needs the extra 'cli'")

import safetensors.numpy


@pytest.fixture
def network(rng):
    """Layers of known character, and tensors that are none."""
    spiked = rng.normal(size=(120, 200)) / math.sqrt(200)
    u, v = rng.normal(size=120), rng.normal(size=200)
    return {
        "conv1.weight": rng.normal(size=(40, 30, 3, 3)),
        "conv1.bias": rng.normal(size=40),
        "conv2.weight": rng.normal(size=(120, 40, 1)),
        "fc.weight": spiked.T + 6 * np.outer(v, u) / np.linalg.norm(u) / np.linalg.norm(v),
        "head.weight": rng.normal(size=(10, 200)).astype(np.float32),
    }


def singular_values(W):
    return np.linalg.svd(W.reshape(len(W), -1).astype(np.float64), compute_uv=False)


def test_the_table(network):
    found = bk.analyze(network)
    assert [row["name"] for row in found.rows] == list(network)
    assert list(found.metrics) == [name for name in network if name != "conv1.bias"]
    table = {row["name"]: row for row in found.rows}
    for name, W in network.items():
        row = table[name]
        assert row["shape"] == W.shape
        assert row["dtype"] == str(W.dtype)
        if name == "conv1.bias":
            continue
        s = singular_values(W)
        flat = W.reshape(len(W), -1)
        np.testing.assert_allclose(found.singular_values[name], s, rtol=1e-6)
        assert row["Q"] == pytest.approx(max(flat.shape) / min(flat.shape))
        assert row["spectral_norm"] == pytest.approx(s[0], rel=1e-6)
        assert row["frobenius_norm"] == pytest.approx(np.linalg.norm(flat), rel=1e-6)
        assert row["log_norm"] == pytest.approx(np.log10(np.sum(s**2) / max(flat.shape)), abs=1e-6)
        assert row["stable_rank"] == pytest.approx(np.sum(s**2) / s[0] ** 2, rel=1e-6)
        p = s / s.sum()
        assert row["effective_rank"] == pytest.approx(np.exp(-np.sum(p * np.log(p))), rel=1e-6)
        assert row["alpha"] == pytest.approx(bk.random_matrix.fit_power_law(found.metrics[name].eigenvalues).alpha)
        assert row["alpha_weighted"] == pytest.approx(row["alpha"] * row["log_spectral_norm"])
        assert row["rank"] == min(flat.shape)
        assert row["declined"] == ""
    assert [table[name]["kind"] for name in network] == ["conv2d", "bias", "conv1d", "linear", "linear"]
    assert table["conv1.bias"]["declined"] == "one axis: a bias or a normalization"
    assert table["conv1.bias"]["alpha"] is None
    assert table["fc.weight"]["n_spikes"] == 1
    assert table["fc.weight"]["mp_variance"] == pytest.approx(1 / 200, rel=0.1)
    assert table["conv1.weight"]["phase"] == "random_like"
    assert table["conv1.weight"]["mp_variance"] == pytest.approx(1, rel=0.1)
    weighted = [row["alpha_weighted"] for row in found.rows if row["alpha_weighted"] is not None]
    assert found.universal.value == pytest.approx(np.mean(weighted))
    assert set(found.columns()) == set(found.rows[0])
    assert found.columns()["alpha"] == [row["alpha"] for row in found.rows]


@pytest.mark.parametrize("convention", ["brockett", "weightwatcher", "deepdataprofiler"])
@pytest.mark.parametrize("conv", [None, "unfold", "slices"])
def test_singular_values_whatever_the_convention(network, convention, conv):
    found = bk.analyze(network, convention=convention, conv=conv)
    way = conv or ("slices" if convention == "weightwatcher" else "unfold")
    for name, values in found.singular_values.items():
        W = network[name]
        expected = singular_values(W)
        if way == "slices" and W.ndim > 2:
            places = W.reshape(*W.shape[:2], -1)
            pooled = [np.linalg.svd(places[..., k], compute_uv=False) for k in range(places.shape[2])]
            expected = np.sort(np.concatenate(pooled))[::-1]
        np.testing.assert_allclose(values, expected, rtol=1e-6)
    direct = bk.random_matrix.layer_metrics(network["conv1.weight"], convention=convention, conv=conv)
    row = found.rows[0]
    assert (row["alpha"], row["n_spikes"], row["phase"]) == (direct.alpha, direct.n_spikes, direct.phase)


def test_lists_and_the_reasons_of_what_is_declined(rng):
    broken = rng.normal(size=(12, 12))
    broken[3, 4] = np.nan
    layers = [
        rng.normal(size=(30, 20)),
        np.zeros((15, 15)),
        np.ones((20, 20)),
        rng.normal(size=(1, 40)),
        broken,
        np.ones((4, 4), np.int8),
        np.ones((4, 4), bool),
        np.ones((4, 4)) * 1j,
        np.zeros((0, 4)),
        np.float64(3.0),
        np.ones((2,) * 6),
        [[1.0, 2.0], [3.0, 4.0]],
    ]
    found = bk.analyze(layers)
    assert [row["name"] for row in found.rows] == [f"layer {k}" for k in range(len(layers))]
    reasons = [row["declined"] for row in found.rows]
    assert reasons[0] == ""
    assert "all singular values are zero" in reasons[1]
    for k in (2, 3, 11):
        assert "alpha: " in reasons[k]
        assert "a fit needs 10" in reasons[k]
    assert reasons[4] == "NaN or Inf at index (3, 4)"
    assert "int8: integers" in reasons[5]
    assert "quantized" in reasons[5]
    assert "bool: integers or booleans" in reasons[6]
    assert "complex" in reasons[7]
    assert reasons[8] == "empty"
    assert reasons[9] == "no axes: a number"
    assert "6 axes" in reasons[10]
    # never NaN in the table, and never a missing number without its reason
    for row in found.rows:
        numbers = [value for value in row.values() if isinstance(value, float)]
        assert np.isfinite(numbers).all()
        assert row["alpha"] is not None or row["declined"]
        assert row["phase"] is not None or row["declined"]
    assert [row["spectral_norm"] for row in found.rows][1:3] == [0.0, pytest.approx(20.0)]
    assert found.universal.n_layers == 1
    nothing = bk.analyze([np.zeros(3)])
    assert nothing.universal is None
    assert nothing.metrics == {}


def test_groups_are_layers_of_their_own(rng):
    W = rng.normal(size=(40, 12, 3))
    found = bk.analyze({"grouped": {"weight": W, "groups": 2}, "after": rng.normal(size=(30, 40))})
    assert [row["name"] for row in found.rows] == ["grouped[group 0]", "grouped[group 1]", "after"]
    np.testing.assert_allclose(found.singular_values["grouped[group 1]"], singular_values(W[20:]), rtol=1e-6)
    assert found.rows[0]["shape"] == (20, 12, 3)
    graph = found.graph()
    assert graph.layers[0].groups == 2
    with pytest.raises(bk.InvalidArgument, match="3 groups"):
        bk.analyze({"grouped": {"weight": W, "groups": 3}})


def test_select(network):
    names = [row["name"] for row in bk.analyze(network, select="conv*.weight").rows]
    assert names == ["conv1.weight", "conv2.weight"]
    assert len(bk.analyze(network, select=["conv1.*", "head.*"]).rows) == 3
    with pytest.raises(bk.InvalidArgument, match=r"select: no layer matches 'x\*'; there are conv1.weight"):
        bk.analyze(network, select="x*")
    with pytest.raises(bk.InvalidType, match="select: expected a pattern"):
        bk.analyze(network, select=3)


@pytest.mark.parametrize(
    ("layers", "error", "says"),
    [
        ({}, bk.InvalidArgument, "at least one layer"),
        ([], bk.InvalidArgument, "at least one layer"),
        (3, bk.InvalidType, "expected a mapping of names"),
        ({"weight": np.eye(3)}, bk.InvalidType, "is one layer"),
        ({"a": {"weight": None}}, bk.InvalidArgument, "has no weight"),
        ({"a": "text"}, bk.InvalidType, "expected weights"),
        (b"abc", bk.InvalidType, "expected a mapping"),
    ],
)
def test_what_has_no_layers(layers, error, says):
    with pytest.raises(error, match=f"^layers.*{says}"):
        bk.analyze(layers)


@pytest.mark.parametrize(
    "options", [{"convention": "mine"}, {"conv": "both"}, {"log_base": 1.0}, {"bootstrap": -1}, {"compare": "yes"}]
)
def test_wrong_options_are_errors_of_the_call(options):
    with pytest.raises(bk.InvalidArgument, match=f"^{next(iter(options))}: "):
        bk.analyze([np.eye(12)], **options)


# ---------------------------------------------------------------------------------------------------------------- files
def bfloat16(array):
    """Rounded towards zero; the bits."""
    return (np.ascontiguousarray(array, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def safetensors_file(path, tensors):
    """The format by hand: safetensors' writer for NumPy knows no bfloat16."""
    header, data, position = {}, [], 0
    for name, (kind, array) in tensors.items():
        raw = np.ascontiguousarray(array).tobytes()
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [position, position + len(raw)]}
        data.append(raw)
        position += len(raw)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(data))


def test_npz_equals_the_mapping(network, tmp_path):
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "w.npz", **network)
        found, expected = bk.analyze(tmp_path / "w.npz"), bk.analyze(network)
        assert found.rows == expected.rows
        (tmp_path / "w.npz").rename(tmp_path / "renamed")  # known by its contents
        assert bk.analyze(str(tmp_path / "renamed"), select="fc*").rows == expected.rows[3:4]


def test_safetensors_of_every_float(rng, tmp_path):
    W = rng.normal(size=(30, 20)).astype(np.float32)
    bits = bfloat16(W)
    safetensors_file(
        tmp_path / "w.safetensors",
        {
            "layer.10.weight": ("F32", W),
            "layer.2.weight": ("BF16", bits),
            "layer.1.weight": ("F16", W.astype(np.float16)),
            "layer.3.weight": ("F64", W.astype(np.float64)),
            "layer.4.bias": ("BF16", bits[0]),
            "layer.5.weight": ("I8", W.astype(np.int8)),
            "layer.6.weight": ("F8_E4M3", W.astype(np.uint8)),
            "ids": ("I64", np.arange(6).reshape(2, 3)),
        },
    )
    found = bk.analyze(tmp_path / "w.safetensors")
    names = [row["name"] for row in found.rows]
    assert names == ["ids", *(f"layer.{k}" + (".bias" if k == 4 else ".weight") for k in (1, 2, 3, 4, 5, 6, 10))]
    widened = (bits.astype(np.uint32) << 16).view(np.float32)
    for k, expected in {1: W.astype(np.float16), 2: widened, 3: W, 10: W}.items():
        np.testing.assert_allclose(found.singular_values[f"layer.{k}.weight"], singular_values(expected), rtol=1e-6)
    assert found.rows[2]["dtype"] == "BF16"
    reasons = {row["name"]: row["declined"] for row in found.rows}
    assert "I8: integers" in reasons["layer.5.weight"]
    assert "F8_E4M3: quantized" in reasons["layer.6.weight"]
    assert "I64" in reasons["ids"]
    assert "one axis" in reasons["layer.4.bias"]


def test_files_are_read_a_layer_at_a_time(rng, tmp_path):
    layers = {f"layer.{k}": rng.normal(size=(300, 300)) for k in range(12)}
    safetensors.numpy.save_file(layers, tmp_path / "w.safetensors")
    np.savez(tmp_path / "w.npz", **layers)
    del layers
    bk.analyze([rng.normal(size=(20, 20))])  # what is loaded once
    for name in ("w.safetensors", "w.npz"):
        tracemalloc.start()
        bk.analyze(tmp_path / name)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 4 * 300 * 300 * 8, name  # the whole is 12 of these


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "it is empty"),
        (b"\x80\x04\x95 pickle", "looks like a pickle, which is never loaded"),
        (b"text, and more of it", "neither an .npz nor a .safetensors"),
        (b"PK\x03\x04garbage", "damaged"),
        ((9).to_bytes(8, "little") + b'{"a": [1}', "damaged"),
        ((200).to_bytes(8, "little") + b"{}", "damaged"),
    ],
)
def test_other_files_are_refused(tmp_path, content, says):
    (tmp_path / "w").write_bytes(content)
    with pytest.raises(bk.FileFormatError, match=f"w: .*{says}"):
        bk.analyze(tmp_path / "w")


def test_damaged_files_are_refused(network, tmp_path):
    path = tmp_path / "w.safetensors"
    safetensors.numpy.save_file({name: np.ascontiguousarray(W) for name, W in network.items()}, path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(bk.FileFormatError, match="damaged"):
        bk.analyze(path)
    path = tmp_path / "w.npz"
    np.savez(path, **network)
    content = bytearray(path.read_bytes())
    content[2000] ^= 0xFF  # within the first layer: its checksum tells
    path.write_bytes(bytes(content))
    with pytest.raises(bk.FileFormatError, match="damaged"):
        bk.analyze(path)
    np.savez(path, a=np.array([{}], dtype=object))
    with pytest.raises(bk.FileFormatError, match="pickle"):
        bk.analyze(path)
    with pytest.raises(FileNotFoundError):
        bk.analyze(tmp_path / "none.npz")


# -------------------------------------------------------------------------------------------------------------- modules
def test_modules(rng):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Embedding(50, 16),
        torch.nn.Conv2d(16, 24, 3, groups=2),
        torch.nn.BatchNorm2d(24),
        torch.nn.ConvTranspose1d(24, 20, 3),
        torch.nn.Linear(20, 30).to(torch.bfloat16),
    )
    found = bk.analyze(net)
    weights = [row for row in found.rows if row["name"].startswith(("0.", "1.w", "3.w", "4.w"))]
    assert [(row["name"], row["kind"], row["shape"]) for row in weights] == [
        ("0.weight", "embedding", (50, 16)),
        ("1.weight[group 0]", "grouped conv2d", (12, 8, 3, 3)),
        ("1.weight[group 1]", "grouped conv2d", (12, 8, 3, 3)),
        ("3.weight", "transposed conv1d", (20, 24, 3)),
        ("4.weight", "linear", (30, 20)),
    ]
    swapped = net[3].weight.detach().numpy().swapaxes(0, 1)
    np.testing.assert_allclose(found.singular_values["3.weight"], singular_values(swapped), rtol=1e-5)
    wide = net[4].weight.detach().float().numpy()
    np.testing.assert_allclose(found.singular_values["4.weight"], singular_values(wide), rtol=1e-5)
    assert {row["name"]: row["declined"] for row in found.rows}["2.weight"].startswith("one axis")
    graph = found.graph(select=["1.weight", "3.weight"])
    assert graph.layer_edges == ((0, 1),)

    class Packed(torch.nn.Module):
        """As the layers of torch.ao.nn.quantized: weights behind a method, no parameter."""

        def weight(self):
            return torch.empty(4, 3, dtype=torch.int8)

    (row,) = bk.analyze(torch.nn.Sequential(Packed())).rows
    assert (row["name"], row["shape"], row["declined"][:14]) == ("0.weight", (4, 3), "int8: integers")


# ---------------------------------------------------------------------------------------------------------------- graph
def test_the_graph_joins_neighbours_that_chain(network, tmp_path):
    np.savez(tmp_path / "w.npz", **network)
    for source in (network, tmp_path / "w.npz"):
        graph = bk.analyze(source).graph(rank=9)
        names = [layer.name for layer in graph.layers]
        assert names == ["conv1.weight", "conv2.weight", "fc.weight", "head.weight"]
        assert graph.layer_edges == ((0, 1), (1, 2), (2, 3))
        assert [len(s) for s in graph.singular_values] == [9] * 4
    # one adjacency by NumPy: squared overlaps of what fc writes with what head reads
    u = np.linalg.svd(network["fc.weight"])[0][:, :9]
    v = np.linalg.svd(network["head.weight"].astype(np.float64))[2][:9]
    np.testing.assert_allclose(graph.adjacency[2], (v @ u) ** 2, atol=1e-6)
    apart = bk.analyze({"a": np.eye(12), "b": np.ones((3, 5))})
    with pytest.raises(bk.InvalidArgument, match="edges: no layer of a, b has the inputs"):
        apart.graph()
    with pytest.raises(bk.InvalidArgument, match="b follows a, which has 12 outputs: expected 12 inputs, got 5"):
        apart.graph(edges=[("a", "b")])
    with pytest.raises(bk.InvalidArgument, match="select: no layer matches 'c'"):
        apart.graph(select="c")
    assert bk.analyze(network).graph(edges=[("fc.weight", "head.weight")]).layer_edges == ((2, 3),)


# -------------------------------------------------------------------------------------------------- tables and pictures
def test_saved_tables(network, tmp_path):
    found = bk.analyze({**network, "zero": np.zeros((12, 12))})
    found.save(tmp_path / "table.csv")
    with open(tmp_path / "table.csv", newline="", encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    assert [row["name"] for row in read] == [row["name"] for row in found.rows]
    assert float(read[0]["alpha"]) == found.rows[0]["alpha"]
    assert read[0]["shape"] == "40x30x3x3"
    assert read[1]["alpha"] == ""
    found.save(tmp_path / "table.json")
    whole = json.loads((tmp_path / "table.json").read_text(encoding="utf-8"))
    assert whole["universal_metric"] == found.universal.value
    assert whole["layers"][3]["alpha"] == found.rows[3]["alpha"]
    assert whole["layers"][3]["singular_values"] == found.singular_values["fc.weight"].tolist()
    assert whole["layers"][5]["declined"].endswith("all singular values are zero")
    frame = found.to_dataframe()
    assert list(frame.index) == [row["name"] for row in found.rows]
    assert frame.loc["fc.weight", "n_spikes"] == 1


def test_a_missing_pandas_is_named(network, monkeypatch):
    found = bk.analyze(network)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(bk.Unsupported, match="needs pandas"):
        found.to_dataframe()


def test_curves_are_densities(rng):
    """Dots, bulk and tail share one scale: each integrates to the share of the eigenvalues that it stands for."""
    strengths = np.linspace(120, 60, 30)  # 30 spikes: a share of the eigenvalues that shows
    W = rng.normal(size=(400, 800)) + (rng.normal(size=(400, 30)) * strengths / 20) @ rng.normal(size=(30, 800)) / 28
    W += rng.standard_t(3, size=(400, 800)) * 0.2
    one = bk.random_matrix.layer_metrics(W)
    assert one.n_spikes > 20
    x, y = _spectra_plot.bulk_curve(one)
    assert np.trapezoid(y, x) == pytest.approx(1 - one.n_spikes / 400, abs=2e-3)
    x, y = _spectra_plot.tail_curve(one)
    law = one.power_law
    expected = law.n_tail / 400 * (1 - (one.eigenvalues[0] / law.xmin) ** (1 - law.alpha))
    assert np.trapezoid(y, x) == pytest.approx(expected, rel=1e-2)
    centres, height = _spectra_plot.density(np.geomspace(1, 100, 4000))
    np.testing.assert_allclose(height * centres * math.log(100), 1, rtol=0.02)
    assert _spectra_plot.density(np.array([2.0, 2.0, 2.0]))[1].size == 1


def test_pictures(network, tmp_path):
    image = pytest.importorskip("matplotlib.image")
    found = bk.analyze(network)
    found.plot(tmp_path / "all.png")
    found.plot(tmp_path / "two.png", max_layers=2)
    big, small = (image.imread(tmp_path / name) for name in ("all.png", "two.png"))
    assert big.shape[0] > 1.5 * small.shape[0]
    assert (big[..., :3].std(axis=(0, 1)) > 0.02).all()  # not a blank page
    with pytest.raises(bk.InvalidArgument, match="select: no layer has a bulk or a tail"):
        bk.analyze([np.zeros((12, 12))]).plot(tmp_path / "none.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.png", "two.png"]
    assert list(_spectra_plot.thinned(dict.fromkeys("abcdefg"), 3)) == ["a", "d", "g"]


def test_interactive_pages(network, tmp_path, monkeypatch):
    found = bk.analyze(network)
    found.interactive(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "plotly" in page
    for name in found.metrics:
        assert name in page
    assert "src=" not in page.split("<body>")[0]  # opens without a network
    monkeypatch.setitem(sys.modules, "plotly", None)
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    with pytest.raises(ImportError, match=r"brockett\[interactive\]"):
        found.interactive(tmp_path / "other.html")


def test_progress(network, capsys, monkeypatch):
    bk.analyze(network)
    assert capsys.readouterr().err == ""  # not a terminal
    bk.analyze(network, progress=True)
    capsys.readouterr()
    monkeypatch.setitem(sys.modules, "rich.console", None)
    bk.analyze(network, progress=True)
    assert "layers: 4 of 4 in 0:0" in capsys.readouterr().err
    with pytest.raises(bk.InvalidType, match="progress: expected True or False"):
        bk.analyze(network, progress="yes")
    with _progress.progress("x", 1, False) as advance:
        advance("nothing is shown")
    assert capsys.readouterr().err == ""


def test_memory_errors_are_not_swallowed(monkeypatch):
    def fail(*_, **__):
        raise bk.OutOfMemory("9 TiB")

    original = bk.random_matrix.layer_metrics
    calls = []

    def second(*words, **options):
        calls.append(1)
        return original(*words, **options) if len(calls) == 1 else fail()

    monkeypatch.setattr("brockett._layer_metrics.layer_metrics", second)
    with pytest.raises(bk.OutOfMemory):
        bk.analyze([np.eye(20)])


def test_sources_say_what_they_are_before_they_are_read():
    unread = types.SimpleNamespace(shape=(3, 4), dtype="float32")
    with bk.models.load({"a": unread}) as (one,):
        assert (one.name, one.kind, one.shape, one.dtype, one.declined) == ("a", "linear", (3, 4), "float32", "")
        assert one.read() is unread
