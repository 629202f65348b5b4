"""collect: a batch is all of it or nothing, what was accumulated is kept, and memory is known before."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import brockett as bk
from brockett import _collect_checkpoint, _collect_plan, _collection, _files

torch = pytest.importorskip("torch", reason="collect runs PyTorch modules")
nn = torch.nn


@pytest.fixture
def net() -> Any:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2))


@pytest.fixture
def batches() -> list[Any]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(n, 3, generator=generator) for n in (4, 7, 2, 5, 3)]


def inputs(net: Any, batches: list[Any]) -> dict[str, np.ndarray[Any, Any]]:
    """R of the inputs of each linear layer, by NumPy over what torch computes."""
    x, out = torch.cat(batches), {}
    with torch.no_grad():
        for name, layer in net.named_children():
            if isinstance(layer, nn.Linear):
                rows = x.double().numpy()
                out[name] = rows.T @ rows / len(rows)
            x = layer(x)
    return out


def check(found: Any, net: Any, batches: list[Any]) -> None:
    expected = inputs(net, batches)
    assert set(found) == set(expected)
    for name, R in expected.items():
        assert found[name].n_samples == sum(map(len, batches))
        np.testing.assert_allclose(np.asarray(found[name].matrix()), R, atol=1e-6)


def hooks(module: Any) -> int:
    return sum(len(part._forward_pre_hooks) + len(part._forward_hooks) for part in module.modules())


class Stop(Exception):
    """What a loader dies of."""


def ending(batches: list[Any], n: int, error: BaseException) -> Iterator[Any]:
    yield from batches[:n]
    raise error


# --- all or nothing ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["gram", "qr"])
@pytest.mark.parametrize("center", [False, True])
def test_a_bad_batch_is_in_no_layer(engine: str, net: Any, batches: list[Any], center: bool, method: str) -> None:
    """The first layer sees finite inputs, and the last ones a NaN."""
    found: dict[str, Any] = {}

    def forward(module: Any, batch: Any) -> None:
        if len(batch) == 2:
            batch = batch * torch.nan_to_num(batch)  # another tensor, as finite as before
            with torch.no_grad():
                hidden = torch.tanh(module[0](batch))
                hidden[1, 2] = float("nan")
                module[2](hidden)
        module(batch)

    with pytest.raises(bk.NonFinite, match=r"batches\[2\], input of layer '2': NaN or Inf at index \(1, 2\)"):
        bk.collect(net, batches, into=found, forward=forward, center=center, method=method, progress=False)
    alone = bk.collect(net, batches[:2], center=center, method=method, progress=False)
    for name, acc in found.items():
        assert acc.n_samples == 11
        assert acc.weight == 11
        np.testing.assert_allclose(np.asarray(acc.matrix()), np.asarray(alone[name].matrix()), atol=1e-12)
        np.testing.assert_allclose(np.asarray(acc.mean()), np.asarray(alone[name].mean()), atol=1e-12)


def test_a_failing_commit_changes_nothing(net: Any, batches: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory may run out when two of three layers are merged."""
    real, calls = bk.Autocorrelation.merge, []

    def merge(self: Any, other: Any) -> None:
        calls.append(self)
        if len(calls) == 6 + 2:
            raise bk.OutOfMemory("no 8 bytes left")
        real(self, other)

    found: dict[str, Any] = {}
    with monkeypatch.context() as patch:
        patch.setattr(bk.Autocorrelation, "merge", merge)
        with pytest.raises(bk.OutOfMemory, match="8 bytes"):
            bk.collect(net, batches, into=found, progress=False)
    check(found, net, batches[:2])
    bk.collect(net, batches[2:], into=found, progress=False)
    check(found, net, batches)


def test_ctrl_c_during_a_commit_waits_for_its_end(
    net: Any, batches: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = bk.Autocorrelation._exchange, []

    def exchange(self: Any, other: Any) -> None:
        calls.append(self)
        if len(calls) == 4:  # the first layer of the second batch
            os.kill(os.getpid(), signal.SIGINT)
        real(self, other)

    found: dict[str, Any] = {}
    monkeypatch.setattr(bk.Autocorrelation, "_exchange", exchange)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        bk.collect(net, batches, into=found, progress=False)
    assert signal.getsignal(signal.SIGINT) is before
    check(found, net, batches[:2])
    assert hooks(net) == 0


def test_it_runs_in_another_thread(net: Any, batches: list[Any]) -> None:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(bk.collect(net, batches, progress=False)))
    thread.start()
    thread.join()
    check(results[0], net, batches)


def test_a_loader_may_use_the_module_itself(net: Any, batches: list[Any]) -> None:
    def loader() -> Iterator[Any]:
        for batch in batches:
            net(torch.full((9, 3), 1e3))
            yield batch

    check(bk.collect(net, loader(), progress=False), net, batches)


# --- into -------------------------------------------------------------------------------------------------------------


def test_into_goes_on(engine: str, net: Any, batches: list[Any]) -> None:
    found = bk.collect(net, batches[:2], progress=False)
    again = bk.collect(net, batches[2:], into=found, progress=False)
    assert again is found
    assert (found.n_batches, found.of) == (5, "inputs")
    check(found, net, batches)
    plain = dict(bk.collect(net, batches[:3], ["2"], progress=False))
    result = bk.collect(net, batches[3:], into=plain, progress=False)
    assert list(result) == ["2"], "the layers of an earlier result are those that go on"
    assert result["2"] is plain["2"]
    np.testing.assert_allclose(plain["2"].matrix(), inputs(net, batches)["2"], atol=1e-6)
    empty = bk.Collection()
    assert bk.collect(net, batches, into=empty, progress=False) is empty
    check(empty, net, batches)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Stop("gone"), MemoryError()])
def test_what_was_accumulated_stays(net: Any, batches: list[Any], error: BaseException) -> None:
    found: dict[str, Any] = {}
    with pytest.raises(type(error)):
        bk.collect(net, ending(batches, 3, error), into=found, progress=False)
    check(found, net, batches[:3])
    bk.collect(net, batches[3:], into=found, progress=False)
    check(found, net, batches)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layers": ["0"]}, "into: is of other layers: '2' is, '4' is"),
        ({"center": True}, "into: layer '0' has center=False, now it would be True"),
        ({"method": "qr"}, "into: layer '0' has method='gram', now it would be 'qr'"),
        ({"of": "preactivations"}, "into: is of inputs, now it would be of preactivations"),
    ],
)
def test_into_something_else_is_refused(net: Any, batches: list[Any], options: dict[str, Any], words: str) -> None:
    found = bk.collect(net, batches, progress=False)
    with pytest.raises(bk.InvalidArgument, match=words):
        bk.collect(net, batches, into=found, progress=False, **options)
    check(found, net, batches)


def test_into_of_other_layers_and_things(net: Any, batches: list[Any]) -> None:
    wider = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2))
    found = bk.collect(wider, batches, progress=False)
    with pytest.raises(bk.InvalidArgument, match="into: layer '2' has n_features=6, now it would be 5"):
        bk.collect(net, batches, into=found, progress=False)
    patches = {"0": bk.PatchAutocorrelation(3, (1,))}
    patches["0"].update(np.ones((1, 3, 2)))
    with pytest.raises(bk.InvalidArgument, match="layer '0' is a PatchAutocorrelation, expected an"):
        bk.collect(net, batches, into=patches, progress=False)
    for wrong in ([], {"0": 3}, "x"):
        with pytest.raises(bk.InvalidType, match="into: expected a dict of Autocorrelation"):
            bk.collect(net, batches, ["0"], into=wrong, progress=False)  # type: ignore[arg-type]


# --- checkpoints ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interval", [0.0, 1e9])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), Stop("gone")])
def test_a_checkpoint_counts_every_batch_once(
    engine: str, net: Any, batches: list[Any], tmp_path: Path, interval: float, error: BaseException
) -> None:
    path = tmp_path / "r.npz"
    with pytest.raises(type(error)):
        bk.collect(net, ending(batches, 3, error), checkpoint=path, checkpoint_interval=interval, progress=False)
    half = bk.Collection.load(path)
    assert half.n_batches == 3
    check(half, net, batches[:3])
    runs = []

    def forward(module: Any, batch: Any) -> None:
        runs.append(batch)
        module(batch)

    found = bk.collect(net, iter(batches), checkpoint=path, forward=forward, progress=False)
    assert [len(batch) for batch in runs] == [5, 3], "what is in the file is not run again"
    check(found, net, batches)
    assert found.n_batches == 5
    check(bk.Collection.load(path), net, batches)
    finished = bk.collect(net, batches, checkpoint=path, forward=forward, progress=False)
    assert len(runs) == 2
    check(finished, net, batches)
    assert sorted(os.listdir(tmp_path)) == ["r.npz"]


def test_it_is_written_in_time_and_not_more_often(
    net: Any, batches: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    real = _collect_checkpoint.write

    def write(path: Any, found: Any, notes: Any) -> None:
        written.append(found.n_batches)
        real(path, found, notes)

    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(_collect_checkpoint, "write", write)
    monkeypatch.setattr(_collect_checkpoint.time, "monotonic", lambda: float(next(clock)))
    # Made at 0; asked at 10 (batch 1) and 20 (written, at 30), 40 and 50 (written, at 60), 70, and at the end.
    bk.collect(net, batches, checkpoint=tmp_path / "r.npz", checkpoint_interval=20, progress=False)
    assert written == [2, 4, 5]


def test_a_killed_process_leaves_a_whole_file(net: Any, batches: list[Any], tmp_path: Path) -> None:
    path = tmp_path / "r.npz"
    bk.collect(net, batches[:2], checkpoint=path, progress=False)
    before = path.read_bytes()

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match=r"No space left on device: .*r\.npz'"):
            bk.collect(net, batches, checkpoint=path, checkpoint_interval=0, progress=False)
        with pytest.warns(RuntimeWarning, match="could not be written.*No space"), pytest.raises(Stop):
            bk.collect(net, ending(batches, 4, Stop()), checkpoint=path, progress=False)
    assert path.read_bytes() == before
    check(bk.collect(net, batches, checkpoint=path, progress=False), net, batches)


def test_a_checkpoint_with_convolutions_and_groups(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), nn.ReLU(), nn.Conv1d(4, 2, 3)).double()
    generator = torch.Generator().manual_seed(0)
    x = [torch.randn(2, 4, 5, 6, dtype=torch.float64, generator=generator) for _ in range(3)]

    def forward(module: Any, batch: Any) -> None:
        module[2](module[1](module[0](batch)).flatten(2))

    path = tmp_path / "r.npz"
    with pytest.raises(Stop):
        bk.collect(net, ending(x, 2, Stop()), forward=forward, checkpoint=path, progress=False)
    found = bk.collect(net, x, forward=forward, checkpoint=path, progress=False)
    whole = bk.collect(net, x, forward=forward, progress=False)
    for name, acc in whole.items():
        assert repr(found[name]) == repr(acc)
        np.testing.assert_allclose(np.asarray(found[name].matrix()), np.asarray(acc.matrix()), rtol=1e-12, atol=1e-14)
    plan = bk.collect_plan(net)
    assert [(one.groups, one.n_features, one.n_bytes) for one in plan.layers] == [(2, 18, 8 * 2 * 18**2), (1, 12, 1152)]


def other_width() -> Any:
    return nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2))


def trained(net: Any) -> Any:
    changed = copy.deepcopy(net)
    with torch.no_grad():
        changed[4].bias += 1e-3
    return changed


def with_a_norm(net: Any) -> Any:
    changed = copy.deepcopy(net)
    changed[1] = nn.BatchNorm1d(5)
    return changed


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        (lambda net: other_width(), {}, "layer '2' has n_features=5, now it would be 6"),
        (trained, {}, r"another model: since then '4\.bias' has changed"),
        (with_a_norm, {}, r"another model: since then '1\.weight' has come"),
        (lambda net: nn.Sequential(*net[:3]), {}, "other layers: '4' is"),
        (lambda net: net, {"layers": ["0", "2"]}, "other layers: '4' is"),
        (lambda net: net, {"center": True}, "layer '0' has center=False"),
        (lambda net: net, {"precision": "single"}, "layer '0' has precision='double'"),
        (lambda net: net, {"of": "activations", "layers": ["0", "2"]}, "is of inputs, now it would be of activations"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(
    net: Any, batches: list[Any], tmp_path: Path, change: Callable[[Any], Any], options: dict[str, Any], words: str
) -> None:
    path = tmp_path / "r.npz"
    bk.collect(net, batches[:2], checkpoint=path, progress=False)
    before = path.read_bytes()
    with pytest.raises(bk.InvalidArgument, match=rf"checkpoint: .*r\.npz.*{words}"):
        bk.collect(change(net), batches, checkpoint=path, progress=False, **options)
    assert path.read_bytes() == before
    assert hooks(net) == 0


def test_checkpoints_and_what_does_not_go_with_them(net: Any, batches: list[Any], tmp_path: Path) -> None:
    path = tmp_path / "r.npz"
    found = bk.collect(net, batches[:3], checkpoint=path, progress=False)
    with pytest.raises(bk.InvalidArgument, match=r"into: holds samples, and .*r\.npz does"):
        bk.collect(net, batches, into=found, checkpoint=path, progress=False)
    filled: dict[str, Any] = {}
    bk.collect(net, batches, into=filled, checkpoint=path, progress=False)
    check(filled, net, batches)
    with pytest.raises(bk.InvalidArgument, match=r"r\.npz holds 5 batches, but batches gave 2"):
        bk.collect(net, batches[:2], checkpoint=path, progress=False)
    found.save(path)
    with pytest.raises(bk.InvalidArgument, match=r"saved by hand.*into="):
        bk.collect(net, batches, checkpoint=path, progress=False)
    path.write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(bk.FileFormatError, match=r"r\.npz"):
        bk.collect(net, batches, checkpoint=path, progress=False)
    for wrong in (-1, float("nan"), "x"):
        with pytest.raises(bk.InvalidArgument, match="checkpoint_interval"):
            bk.collect(net, batches, checkpoint=path, checkpoint_interval=wrong, progress=False)  # type: ignore[arg-type]
    left = iter(batches)
    with pytest.raises(FileNotFoundError, match=r"missing/r\.npz'"):
        bk.collect(net, left, checkpoint=tmp_path / "missing" / "r.npz", progress=False)
    assert len(list(left)) == len(batches)  # known before the work, not when there is something to keep


def test_models_in_half_precision_have_a_fingerprint(tmp_path: Path) -> None:
    layer, x = nn.Linear(3, 2).to(torch.bfloat16), torch.ones(2, 3, dtype=torch.bfloat16)
    bk.collect(layer, [x], checkpoint=tmp_path / "r.npz", progress=False)
    with torch.no_grad():
        layer.weight += 1
    with pytest.raises(bk.InvalidArgument, match="another model: since then 'weight' has changed"):
        bk.collect(layer, [x], checkpoint=tmp_path / "r.npz", progress=False)


# --- the collection ---------------------------------------------------------------------------------------------------


def test_a_collection_is_kept_in_one_file(engine: str, net: Any, batches: list[Any], tmp_path: Path) -> None:
    found = bk.collect(net, batches, of="preactivations", center=True, method="qr", progress=False)
    found.save(tmp_path / "r.npz")
    for again in (bk.Collection.load(tmp_path / "r.npz"), pickle.loads(pickle.dumps(found)), copy.deepcopy(found)):
        assert list(again) == list(found)
        assert (again.of, again.n_batches) == ("preactivations", 5)
        for name, acc in found.items():
            assert repr(again[name]) == repr(acc)
            np.testing.assert_allclose(again[name].matrix(), acc.matrix(), rtol=1e-12)
    empty = bk.Collection({"a": bk.Autocorrelation(2)})
    empty.save(tmp_path / "e.npz")
    assert repr(bk.Collection.load(tmp_path / "e.npz")) == repr(empty)
    bk.Collection().save(tmp_path / "e.npz")
    assert not bk.Collection.load(tmp_path / "e.npz")


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("format", np.array("brockett.Autocorrelation/1"), "its format"),
        ("of", np.array("weights"), "of 'weights'"),
        ("n_batches", np.array(-1), "-1 batches"),
        ("n_batches", np.array(1.5), "1.5 batches"),
        ("names", np.array(["0", "2", "2"]), "twice"),
        ("names", np.array(["0", "2", "4", "6"]), "layer '6' lacks"),
        ("notes", np.frombuffer(b"[1]", dtype=np.uint8), "notes"),
        ("notes", np.frombuffer(b"{", dtype=np.uint8), "not a collection"),
        ("1.n_samples", np.array(-3), "layer '2': -3 samples"),
        ("1.n_features", np.array(7), "layer '2': mean has shape"),
        ("2.moment", None, "layer '4' lacks 'moment'"),
        ("names", None, "names"),
    ],
)
def test_collections_that_cannot_be(
    net: Any, batches: list[Any], tmp_path: Path, field: str, value: Any, words: str
) -> None:
    path = tmp_path / "r.npz"
    bk.collect(net, batches, progress=False).save(path)
    data = _files.load_npz(path)
    data.pop(field) if value is None else data.update({field: value})
    _files.save_npz(path, data)
    with pytest.raises(bk.FileFormatError, match=rf"r\.npz: .*{words}"):
        bk.Collection.load(path)


# --- memory -----------------------------------------------------------------------------------------------------------


def test_memory_is_told_before(net: Any) -> None:
    plan = bk.collect_plan(net, ["2", "4"])
    assert [(one.name, one.kind, one.device, one.n_features, one.n_bytes) for one in plan.layers] == [
        ("2", "Linear", "cpu", 5, 200),
        ("4", "Linear", "cpu", 4, 128),
    ]
    assert (plan.n_bytes, plan.working_bytes, plan.of) == (328, {"cpu": 656}, "inputs")
    lines = str(plan).splitlines()
    assert lines[0].split() == ["layer", "kind", "device", "features", "memory"]
    assert lines[1].split() == ["'2'", "Linear", "cpu", "5", "200", "bytes"]
    assert "sums of 328 bytes, 656 bytes on cpu" in lines[-1]
    assert [one.n_features for one in bk.collect_plan(net, of="activations").layers] == [5, 4, 2]
    with pytest.raises(bk.OutOfMemory, match=r"2 layers take 656 bytes on cpu .* memory_limit is 600 bytes"):
        bk.collect_plan(net, ["2", "4"], memory_limit=600)
    with pytest.raises(bk.InvalidArgument, match="memory_limit"):
        bk.collect_plan(net, memory_limit=-1)


def test_what_does_not_fit_is_not_begun(net: Any, batches: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def loader() -> Iterator[Any]:
        pytest.fail("the loader was asked")
        yield

    with pytest.raises(MemoryError, match=r"'2' 400 bytes.*memory_limit is 799 bytes\. Name fewer layers"):
        bk.collect(net, loader(), memory_limit=799, progress=False)
    bk.collect(net, batches, memory_limit=800, progress=False)
    # A layer of a million inputs: 16 TB of sums, and nothing of the kind is allocated to find out.
    huge = nn.Linear(10**6, 1, device="meta")
    with pytest.raises(bk.OutOfMemory, match=r"1 layer take 16 TB on cpu.*memory_limit=float\('inf'\) tries"):
        bk.collect(huge, loader(), progress=False)
    monkeypatch.setattr(_collect_plan, "available_memory", lambda device: 790)
    with pytest.raises(bk.OutOfMemory, match="790 bytes are available"):
        bk.collect(net, batches, progress=False)
    found = bk.collect(net, batches, memory_limit=float("inf"), progress=False)
    bk.collect(net, batches, into=found, progress=False)  # half of it is there already
    monkeypatch.setattr(_collect_plan, "available_memory", lambda device: None)
    bk.collect(net, batches, progress=False)


def test_available_memory_is_what_the_kernel_says() -> None:
    free = _collect_plan.available_memory("cpu")
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert free is None or 0 <= free <= total
    assert _collect_plan.available_memory("mps:0") is None


def test_each_device_has_its_own_memory(batches: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers that say they are on CUDA devices: enough of them for what is only planned."""

    class There(nn.Linear):
        def __init__(self, place: str, *sizes: int) -> None:
            super().__init__(*sizes)
            self.place = place

        def parameters(self, recurse: bool = True) -> Any:
            return iter([types.SimpleNamespace(device=torch.device(self.place))])

    net = nn.Sequential(There("cuda:0", 30, 20), There("cuda:1", 20, 10), nn.Linear(10, 5))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: ({"cuda:0": 10**6, "cuda:1": 6000}[device], 10**7))
    plan = bk.collect_plan(net)
    assert plan.working_bytes == {"cuda:0": 2 * 8 * 900, "cuda:1": 2 * 8 * 400, "cpu": 2 * 8 * 100}
    assert (plan.available["cuda:0"], plan.available["cuda:1"]) == (10**6, 6000)
    plan.check(14_400)
    with pytest.raises(bk.OutOfMemory, match=r"6\.4 kB on cuda:1 .*6 kB are available.*accumulate_on='cpu'"):
        bk.collect(net, batches, progress=False)
    assert bk.collect_plan(net, accumulate_on="cpu").working_bytes == {"cpu": 2 * 8 * 1400}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: 1 / 0)
    assert bk.collect_plan(net).available["cuda:0"] is None


def test_a_collection_is_written_one_layer_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a collection that fills half of the memory no second copy is made."""
    alive: list[int] = []
    real = bk.Autocorrelation._record

    def record(self: Any) -> Any:
        alive.append(len(os.listdir(tmp_path)))
        return real(self)

    monkeypatch.setattr(bk.Autocorrelation, "_record", record)
    accumulators = {str(i): bk.Autocorrelation(3) for i in range(3)}
    bk.Collection(accumulators).save(tmp_path / "r.npz")
    assert alive == [1, 1, 1], "each is asked while the file is being written"


# --- places -----------------------------------------------------------------------------------------------------------


def test_where_to_sum(net: Any, batches: list[Any]) -> None:
    for place in ("cpu", torch.device("cpu")):
        found = bk.collect(net, batches, accumulate_on=place, progress=False)
        check(found, net, batches)
    for wrong in ("nowhere", "meta", 3.5):
        with pytest.raises(bk.InvalidArgument, match="accumulate_on: expected 'cpu' or a CUDA device"):
            bk.collect(net, batches, accumulate_on=wrong, progress=False)
    with pytest.raises(bk.EngineUnavailable, match="accumulate_on: cuda:99 is not there"):
        bk.collect(net, batches, accumulate_on="cuda:99", progress=False)


def test_samples_are_moved_before_they_are_summed(net: Any, batches: list[Any]) -> None:
    """On a device that no engine serves: meta stands for one, its tensors hold nothing."""
    far = nn.Linear(3, 2, device="meta")
    x = torch.ones(4, 3, device="meta")
    with pytest.raises(bk.InvalidType, match=r"batches\[0\], input of layer '': .*meta.*accumulate_on='cpu'"):
        bk.collect(far, [x], progress=False)

    class Far(torch.Tensor):
        """A tensor that says where it is, and notes where it went."""

        went: list[str] = []  # noqa: RUF012

        def to(self, device: Any) -> Any:
            Far.went.append(str(device))
            return self.as_subclass(torch.Tensor)

    found = bk.collect(net, [batch.as_subclass(Far) for batch in batches], ["0"], accumulate_on="cpu", progress=False)
    assert Far.went == ["cpu"] * 5
    np.testing.assert_allclose(found["0"].matrix(), inputs(net, batches)["0"], atol=1e-6)


def test_a_layer_that_moves_is_named() -> None:
    staged = _collection.Staged({"fc": bk.Autocorrelation(2)})
    strict = pytest.importorskip("array_api_strict", reason="a second kind of memory")
    staged.add("fc", np.ones((3, 2)))
    staged.commit()
    staged.add("fc", strict.ones((3, 2), device=strict.Device("device1")))
    with pytest.raises(bk.InvalidType, match=r"layer 'fc': what was collected before .*; accumulate_on= sums all"):
        staged.commit()


# --- bad input --------------------------------------------------------------------------------------------------------


def test_no_batches_at_all(net: Any, batches: list[Any]) -> None:
    spent = iter(batches)
    bk.collect(net, spent, progress=False)
    for nothing in (spent, [], iter([])):
        with pytest.raises(bk.InvalidArgument, match="batches: gave no batch at all"):
            bk.collect(net, nothing, progress=False)
    with pytest.raises(bk.InvalidType, match=r"batches: is one mapping; .*pass \[x\]"):
        bk.collect(net, {"input": batches[0]}, progress=False)
    with pytest.raises(bk.InvalidType, match="batches: is one string"):
        bk.collect(net, "abc", progress=False)
    with pytest.raises(bk.InvalidType, match="batches: expected an iterable of batches, got int"):
        bk.collect(net, 3, progress=False)  # type: ignore[arg-type]


def test_a_loader_that_changes_width(net: Any, batches: list[Any]) -> None:
    found: dict[str, Any] = {}
    with pytest.raises(bk.InvalidArgument, match=r"batches\[2\], input of layer '0': expected 3 features"):
        bk.collect(net, [*batches[:2], torch.ones(2, 4)], into=found, progress=False)
    check(found, net, batches[:2])


def test_loaders_without_a_length(net: Any, batches: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    class Stream(torch.utils.data.IterableDataset):  # type: ignore[misc]
        def __iter__(self) -> Iterator[Any]:
            return iter(torch.cat(batches))

    loader = torch.utils.data.DataLoader(Stream(), batch_size=4)  # it has __len__, and refuses to answer
    found = bk.collect(net, loader, progress=True)
    check(found, net, batches)
    assert "inputs of 3 layers" in capsys.readouterr().err


def test_compiled_modules_say_why_nothing_came(net: Any, batches: list[Any]) -> None:
    class OptimizedModule(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self._orig_mod = net

        def forward(self, x: Any) -> Any:
            return x

    with pytest.warns(UserWarning, match="never called that is seen; an OptimizedModule passes hooks by"):
        bk.collect(OptimizedModule(), batches, progress=False)
