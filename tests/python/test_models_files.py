"""Files of tensors: safetensors and shards, `.npz`, `.npy`, PyTorch checkpoints; what is damaged, how much memory."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import warnings
import zipfile

import numpy as np
import pytest

import brockett as bk

pytest.importorskip("safetensors", reason="reading .safetensors needs the extra 'models'")

from safetensors.numpy import save_file


@pytest.fixture
def tensors(rng):
    return {
        "conv.weight": rng.normal(size=(6, 3, 3, 3)).astype(np.float32),
        "conv.bias": rng.normal(size=6).astype(np.float32),
        "fc.weight": rng.normal(size=(5, 6)),
        "half.weight": rng.normal(size=(4, 6)).astype(np.float16),
        "steps": np.array(7),
    }


def header(path, entries, data=b""):
    """A safetensors file by hand."""
    text = json.dumps(entries).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def same(model, tensors):
    assert set(model.names) == {name for name in tensors if not name.endswith("bias")}
    for layer in model:
        np.testing.assert_array_equal(layer.read(), tensors[layer.name])
        if f"{layer.name[:-6]}bias" in tensors:
            np.testing.assert_array_equal(layer.bias, tensors[f"{layer.name[:-6]}bias"])


def test_all_files_of_arrays_give_the_same(tensors, tmp_path):
    torch = pytest.importorskip("torch")
    save_file(tensors, tmp_path / "w.safetensors")
    np.savez(tmp_path / "w.npz", **tensors)
    np.savez_compressed(tmp_path / "c.npz", **tensors)
    state = {name: torch.from_numpy(np.array(one)) for name, one in tensors.items()}
    torch.save(state, tmp_path / "w.pt")
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for name in ("w.safetensors", "w.npz", "c.npz", "w.pt", "old.pth"):
        path = tmp_path / "renamed"  # known by its contents
        (tmp_path / name).rename(path)
        with bk.models.load(path) as model:
            same(model, tensors)
            assert model["steps"].declined
            assert all(isinstance(layer.read(), np.ndarray) for layer in model)


def test_one_array(tmp_path, rng):
    np.save(tmp_path / "layer.npy", rng.normal(size=(4, 3)))
    (one,) = bk.models.load(tmp_path / "layer.npy")
    assert (one.name, one.kind) == ("layer", "linear")
    np.testing.assert_array_equal(one.weight, np.load(tmp_path / "layer.npy"))


def test_a_file_that_is_replaced_stays_the_one_that_was_opened(tensors, tmp_path):
    save_file(tensors, tmp_path / "w.safetensors")
    with bk.models.load(tmp_path / "w.safetensors") as model:
        save_file({"fc.weight": np.zeros((5, 6))}, tmp_path / "new")
        (tmp_path / "new").replace(tmp_path / "w.safetensors")  # as training scripts write checkpoints
        same(model, tensors)


def test_float8_of_safetensors(tmp_path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    codes = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for kind, dtype in (("F8_E4M3", ml_dtypes.float8_e4m3fn), ("F8_E5M2", ml_dtypes.float8_e5m2)):
        values = codes.view(dtype).astype(np.float32)
        scale = np.full(16, 0.5, np.float32)
        path = header(
            tmp_path / "w.safetensors",
            {
                "fc.weight": {"dtype": kind, "shape": [16, 16], "data_offsets": [0, 256]},
                "fc.weight_scale": {"dtype": "F32", "shape": [16], "data_offsets": [256, 320]},
                "raw.weight": {"dtype": kind, "shape": [16, 16], "data_offsets": [320, 576]},
            },
            codes.tobytes() + scale.tobytes() + codes.tobytes(),
        )
        model = bk.models.load(path)
        np.testing.assert_array_equal(model["fc.weight"].read(), values * np.float32(0.5))
        assert "quantized" in model["raw.weight"].declined  # no scale beside it
        with pytest.raises(bk.NonFinite, match=r"fc.weight: NaN or Inf at index \(7, 1[25]\)"):
            _ = model["fc.weight"].weight


# --------------------------------------------------------------------------------------------------------------- shards
@pytest.fixture
def sharded(tensors, tmp_path):
    names = list(tensors)
    parts = {"a.safetensors": names[:2], "b.safetensors": names[2:]}
    for shard, some in parts.items():
        save_file({name: tensors[name] for name in some}, tmp_path / shard)
    places = {name: shard for shard, some in parts.items() for name in some}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return tmp_path


def test_shards(sharded, tensors):
    for path in (sharded, sharded / "model.safetensors.index.json"):
        with bk.models.load(path) as model:
            same(model, tensors)
            assert model.source.endswith("index.json")


def test_shards_of_pytorch(tensors, tmp_path):
    torch = pytest.importorskip("torch")
    for k, name in enumerate(tensors):
        torch.save({name: torch.from_numpy(np.array(tensors[name]))}, tmp_path / f"part-{k}.bin")
    places = {name: f"part-{k}.bin" for k, name in enumerate(tensors)}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    with bk.models.load(tmp_path) as model:
        same(model, tensors)


@pytest.mark.parametrize("name", ["../a.safetensors", "/etc/passwd", "..", ".", "", "x/a.safetensors", "..\\a", "a\0b"])
def test_an_index_that_leaves_its_folder_is_refused(sharded, name):
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"fc.weight": name}}))
    with pytest.raises(bk.FileFormatError, match=r"names the shard .* expected a file beside the index"):
        bk.models.load(sharded)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no index of shards"), ("[]", "no index of shards"), ("{}", "no index of shards"),
        ('{"weight_map": 3}', "no index of shards"), ('{"weight_map": {"a": 3}}', "no index of shards"),
        ("[" * 100_000, "no index of shards"), ('{"weight_map": {}}', "holds no arrays"),
        ('{"weight_map": {"x": "a.safetensors"}}', "a.safetensors does not hold x"),
        ('{"weight_map": {"x": "w.npz"}}', "the shard 'w.npz' is npz"),
    ],
)  # fmt: skip
def test_a_damaged_index_is_refused(sharded, text, says):
    np.savez(sharded / "w.npz", x=np.eye(2))
    (sharded / "model.safetensors.index.json").write_text(text)
    with pytest.raises(bk.FileFormatError, match=says):
        bk.models.load(sharded)


def test_a_missing_shard(sharded):
    (sharded / "b.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"b\.safetensors"):
        bk.models.load(sharded)


def test_folders(tmp_path, tensors):
    with pytest.raises(bk.FileFormatError, match="holds no model; it has nothing"):
        bk.models.load(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(bk.FileFormatError, match=r"holds no model; it has config\.json"):
        bk.models.load(tmp_path)
    np.savez(tmp_path / "w.npz", **tensors)
    same(bk.models.load(tmp_path), tensors)
    save_file(tensors, tmp_path / "x.safetensors")
    assert bk.models.load(tmp_path).source.endswith("x.safetensors")
    save_file(tensors, tmp_path / "y.safetensors")
    with pytest.raises(bk.FileFormatError, match=r"several models \(x.safetensors, y.safetensors\): name one"):
        bk.models.load(tmp_path)
    save_file(tensors, tmp_path / "model.safetensors")
    assert bk.models.load(tmp_path).source.endswith("model.safetensors")


# --------------------------------------------------------------------------------------------------------------- memory
def test_a_large_checkpoint_is_scanned_in_the_memory_of_its_largest_tensor(tmp_path):
    """24 tensors of 16 MiB in a sparse file: what is resident at most grows by little more than one of them."""
    size, count = 16 << 20, 24
    entries = {
        f"layers.{k}.weight": {"dtype": "F32", "shape": [2048, 2048], "data_offsets": [k * size, (k + 1) * size]}
        for k in range(count)
    }
    path = header(tmp_path / "big.safetensors", entries)
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size + count * size)
    code = """
import re, sys, tracemalloc
import numpy as np
import brockett as bk
from safetensors import safe_open

def resident(what):
    return int(re.search(what + r":\\s+(\\d+)", open("/proc/self/status").read())[1]) << 10

bk.models.load([np.ones((8, 8))])[0].weight
before, peak = resident("VmRSS"), resident("VmHWM")
tracemalloc.start()
with bk.models.load(sys.argv[1]) as model:
    total = 0
    for layer in model:
        weight = layer.weight
        total += weight.size + float(weight[:, ::7].sum())
        del weight
print(int(total), resident("VmHWM") - max(before, peak), tracemalloc.get_traced_memory()[1])
"""
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True, timeout=120)
    total, grown, traced = map(int, done.stdout.split())
    assert total == count * 2048 * 2048  # all were read, and are zero
    assert grown < 3 * size  # the file is 24 of these
    assert traced < 2 * size


def test_a_checkpoint_of_100_gb_is_opened_at_once(tmp_path):
    size = 100 << 30
    entries = {
        "huge.weight": {"dtype": "F32", "shape": [5 << 10, size // (20 << 10)], "data_offsets": [0, size]},
        "small.weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": [size, size + 16]},
    }
    path = header(tmp_path / "w.safetensors", entries)
    start = path.stat().st_size
    with open(path, "r+b") as file:
        file.truncate(start + size)
        file.seek(start + size)
        file.write(np.arange(4, dtype=np.float32).tobytes())
    with bk.models.load(path) as model:
        assert [layer.shape for layer in model] == [(5120, 5242880), (2, 2)]
        np.testing.assert_array_equal(model["small.weight"].weight, [[0, 1], [2, 3]])
        assert model["huge.weight"].read()[-1, -1] == 0  # mapped, not read


# --------------------------------------------------------------------------------------------------------------- damage
def test_truncated_and_oversized_headers_are_errors(tensors, tmp_path):
    path = tmp_path / "w.safetensors"
    save_file(tensors, path)
    whole = path.read_bytes()
    for cut in (3, 8, 20, 200, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(bk.FileFormatError, match=r"w\.safetensors: "):
            bk.models.load(path)
    for announced in (101_000_000, 2**40, 2**63, 2**64 - 1):
        path.write_bytes(announced.to_bytes(8, "little") + whole[8:])
        with pytest.raises(bk.FileFormatError, match=f"a header of {announced} bytes is no safetensors header"):
            bk.models.load(path)
    one = {"dtype": "F32", "shape": [2**31, 2**31], "data_offsets": [0, 16]}
    for wrong in (
        one,
        {**one, "shape": [2, 2], "data_offsets": [0, 2**62]},
        {**one, "shape": [2, 2], "data_offsets": [16, 0]},
        {**one, "shape": [2, -2]},
        {**one, "shape": [2, 3]},
        {**one, "shape": [2, 2], "dtype": "F99"},
    ):
        with pytest.raises(bk.FileFormatError, match="damaged"):
            bk.models.load(header(path, {"a.weight": wrong}, bytes(16)))


def test_an_empty_archive_says_so(tmp_path):
    np.savez(tmp_path / "none.npz")
    with pytest.raises(bk.FileFormatError, match=r"none.npz: is an empty archive, it holds no arrays"):
        bk.models.load(tmp_path / "none.npz")
    with zipfile.ZipFile(tmp_path / "other.npz", "w") as archive:
        archive.writestr("readme.txt", "x")
    with pytest.raises(bk.FileFormatError, match=r"archive that holds no arrays \(its entries are readme.txt\)"):
        bk.models.load(tmp_path / "other.npz")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "it is empty"),
        (pickle.dumps({"a": 1}), "a pickle, which is never loaded"),
        (b"GGUF\3\0\0\0", "it is GGUF"),
    ],
)
def test_other_files(tmp_path, content, says):
    (tmp_path / "w").write_bytes(content)
    with pytest.raises(bk.FileFormatError, match=says):
        bk.models.load(tmp_path / "w")


# ---------------------------------------------------------------------------------------------------------- checkpoints
@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def test_nesting(torch, tmp_path):
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state, moments = net.state_dict(), optimizer.state_dict()
    wrapped = {f"module.{name}": one for name, one in state.items()}
    for found in (
        {"state_dict": state, "optimizer": moments, "epoch": 3},
        {"model_state_dict": state, "optimizer_state_dict": moments, "loss": torch.tensor(1.0)},
        {"epoch": torch.tensor(3), "model_state": {"state_dict": wrapped}},
        {"optimizer": moments, "model": wrapped, "args": {"lr": 1e-3}},
        {"net": state, "best": 0.9},
        wrapped,
    ):
        torch.save(found, tmp_path / "w.pt")
        model = bk.models.load(tmp_path / "w.pt")
        assert model.names == ["0.weight", "1.weight"]
        np.testing.assert_array_equal(model[1].weight, state["1.weight"].numpy())
    torch.save({"generator": state, "critic": state, "anything": moments}, tmp_path / "w.pt")
    names = bk.models.load(tmp_path / "w.pt").names
    assert names == [f"{part}.{k}.weight" for part in ("generator", "critic") for k in (0, 1)]


def test_kinds_of_numbers(torch, tmp_path, rng):
    W = torch.from_numpy(rng.normal(size=(4, 3)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch announces that it will drop this some day
        step, zero = torch.full((4,), 0.1, dtype=torch.float64), torch.zeros(4, dtype=torch.long)
        quantized = torch.quantize_per_channel(W.float(), step, zero, 0, torch.qint8)
    found = {
        "a.weight": W.bfloat16(), "b.weight": W.half(), "c.weight": W.float(), "d.weight": W,
        "e.weight": W.to(torch.int8), "f.weight": W.to(torch.complex64), "g.weight": quantized,
        "h.weight": W.float().to_sparse(), "i.weight": W.float().t(), "flag": torch.tensor(True),
        "j.weight": W.to(torch.float8_e4m3fn), "j.weight_scale": torch.tensor(2.0),
    }  # fmt: skip
    torch.save(found, tmp_path / "w.pt")
    model = bk.models.load(tmp_path / "w.pt")
    for letter in "abcdi":
        expected = found[f"{letter}.weight"]
        got = model[f"{letter}.weight"].weight
        np.testing.assert_array_equal(got, (expected.float() if letter == "a" else expected).numpy())
    assert model["a.weight"].weight.dtype == np.float32
    assert model["b.weight"].weight.dtype == np.float16
    np.testing.assert_allclose(model["g.weight"].weight, found["g.weight"].dequantize().numpy())
    np.testing.assert_allclose(model["j.weight"].weight, 2 * found["j.weight"].float().numpy())
    declined = {layer.name: layer.declined for layer in model}
    assert declined["e.weight"].startswith("int8: integers")
    assert declined["f.weight"].startswith("complex")
    assert declined["h.weight"].startswith("sparse_coo")
    assert declined["flag"].startswith("bool")


def test_quantized_state_dicts(torch, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = torch.ao.quantization.quantize_dynamic(torch.nn.Sequential(torch.nn.Linear(6, 4)), {torch.nn.Linear})
        torch.save(net.state_dict(), tmp_path / "w.pt")
        model = bk.models.load(tmp_path / "w.pt")
    one = model["0.weight"]
    np.testing.assert_array_equal(one.weight, net[0].weight().dequantize().numpy())
    np.testing.assert_array_equal(one.bias, net[0].bias().detach().numpy())


def test_storages_of_other_devices_come_to_the_cpu(torch, tmp_path):
    torch.save({"fc.weight": torch.arange(6.0).reshape(2, 3)}, tmp_path / "cpu.pt")
    with zipfile.ZipFile(tmp_path / "cpu.pt") as old, zipfile.ZipFile(tmp_path / "cuda.pt", "w") as new:
        for info in old.infolist():
            content = old.read(info)
            if info.filename.endswith("data.pkl"):  # the location of the storage, as a GPU's checkpoint has it
                assert content.count(b"X\x03\x00\x00\x00cpu") == 1
                content = content.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:3")
            new.writestr(info.filename, content)
    assert not torch.cuda.is_available() or torch.cuda.device_count() < 4
    with pytest.raises(RuntimeError, match="CUDA"):
        torch.load(tmp_path / "cuda.pt", weights_only=True)
    (one,) = bk.models.load(tmp_path / "cuda.pt")
    np.testing.assert_array_equal(one.weight, np.arange(6.0, dtype=np.float32).reshape(2, 3))


class Evil:
    """Unpickling this would leave a trace."""

    def __reduce__(self):
        return os.mkdir, ("unpickled",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickled_module_is_refused_and_never_unpickled(torch, tmp_path, monkeypatch, zipped):
    monkeypatch.chdir(tmp_path)
    torch.save(torch.nn.Linear(2, 3), "module.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        bk.FileFormatError, match=r"holds pickled Python objects \(torch.nn.modules.linear.Linear\), which"
    ):
        bk.models.load("module.pt")
    torch.save({"state_dict": {"w": torch.eye(2)}, "extra": Evil()}, "evil.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        bk.FileFormatError, match=r"pickled Python objects \((?:posix|os).mkdir\), which are never unpickled"
    ):
        bk.models.load("evil.pt")
    with open("plain.pkl", "wb") as file:
        pickle.dump(Evil(), file)
    with pytest.raises(bk.FileFormatError, match="pickle, which is never loaded"):
        bk.models.load("plain.pkl")
    assert not (tmp_path / "unpickled").exists()


def test_programs_are_refused(torch, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated in PyTorch, and in every second model zoo
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 3)), tmp_path / "program.pt")
    with pytest.raises(bk.FileFormatError, match="is a TorchScript program, which holds code and is never run"):
        bk.models.load(tmp_path / "program.pt")


def test_damaged_checkpoints(torch, tmp_path):
    path = tmp_path / "w.pt"
    for zipped in (True, False):
        torch.save({"fc.weight": torch.eye(40)}, path, _use_new_zipfile_serialization=zipped)
        whole = path.read_bytes()
        for cut in (20, len(whole) // 2, len(whole) - 9):
            path.write_bytes(whole[:cut])
            with pytest.raises(bk.FileFormatError, match=r"w\.pt: "):
                bk.models.load(path)
    for other, says in (
        ([1, 2], "holds no tensors"),
        ({"epoch": 3}, "holds no tensors .its keys are epoch"),
        ("x", "holds a str"),
    ):
        torch.save(other, path)
        with pytest.raises(bk.FileFormatError, match=says):
            bk.models.load(path)
    torch.save(torch.eye(3), path)
    assert bk.models.load(path).names == ["w"]


def test_mappings_within_themselves_end(torch, tmp_path):
    cycle = {"fc.weight": torch.eye(3)}
    cycle["again"] = cycle["model"] = cycle
    torch.save(cycle, tmp_path / "w.pt")
    assert bk.models.load(tmp_path / "w.pt").names == ["fc.weight"]
    with pytest.raises(bk.InvalidArgument, match=r"source\['again'\]: has no weight"):
        bk.models.load(cycle)
    twice = {"fc.weight": torch.eye(3)}
    for _ in range(40):  # 2⁴⁰ names
        twice = {"a": twice, "b": twice}
    torch.save(twice, tmp_path / "w.pt")
    with pytest.raises(bk.FileFormatError, match=r"w\.pt: .*more than 10000 times"):
        bk.models.load(tmp_path / "w.pt")
    with pytest.raises(bk.InvalidArgument, match=r"source: .*more than 10000 times"):
        bk.models.load({"model": twice})


def test_checkpoints_that_were_compressed_again(torch, tmp_path, rng):
    W = torch.from_numpy(rng.integers(0, 3, size=(40, 30)).astype(np.float32))
    torch.save({"fc.weight": W}, tmp_path / "w.pt")
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / "w.pt") as old, zipfile.ZipFile(tmp_path / "z.pt", "w", compression) as new:
            for name in old.namelist():
                new.writestr(name, old.read(name))
        np.testing.assert_array_equal(bk.models.load(tmp_path / "z.pt")["fc.weight"].weight, W.numpy())


def test_tensors_that_hold_less_than_their_shape_says(torch, tmp_path):
    path = tmp_path / "w.pt"
    torch.save({"a.weight": torch.empty(3, 4, device="meta"), "b.weight": torch.ones(1).expand(3, 4)}, path)
    model = bk.models.load(path)
    assert model["a.weight"].declined == "meta float32: no real numbers"
    np.testing.assert_array_equal(model["b.weight"].weight, np.ones((3, 4)))
    assert bk.analyze(path, progress=False).rows[0]["declined"].startswith("meta")
    torch.save({"fc.weight": torch.ones(1).expand(10**6, 10**6)}, path)
    with pytest.raises(bk.FileFormatError, match=r"fc\.weight announces 4000000000000 bytes, 4 are there"):
        bk.models.load(path)


def test_a_name_that_is_there_twice_is_two_layers(tmp_path):
    path = tmp_path / "w.npz"
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Duplicate name
        for factor in (1, 2):
            array = io.BytesIO()
            np.save(array, factor * np.eye(3))
            archive.writestr("module.w.npy", array.getvalue())
    model = bk.models.load(path)
    assert model.names == ["w", "w (2)"]
    for factor, layer in enumerate(model, 1):
        np.testing.assert_array_equal(layer.weight, factor * np.eye(3))


@pytest.mark.parametrize(
    ("name", "library", "extra"),
    [
        ("w.safetensors", "safetensors", "models"),
        ("w.pt", "torch", "torch"),
        ("w.onnx", "onnx", "models"),
        ("w.h5", "h5py", "models"),
    ],
)
def test_a_missing_library_is_named_with_the_line_for_pip(tmp_path, monkeypatch, name, library, extra):
    contents = {"w.h5": b"\x89HDF\r\n\x1a\n" + bytes(16), "w.onnx": b"\x08\x07\x12\x00"}
    (tmp_path / name).write_bytes(contents.get(name, b""))
    if name == "w.safetensors":
        save_file({"a.weight": np.eye(2)}, tmp_path / name)
    elif name == "w.pt":
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("archive/data.pkl", b"")
        (tmp_path / name).write_bytes(archive.getvalue())
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=rf"needs \w+: pip install 'brockett\[{extra}\]'"):
        bk.models.load(tmp_path / name)
