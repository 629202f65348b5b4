"""collect: a batch is all of it or nothing, and what was accumulated is kept."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import brockett as bk
from brockett import _collect_checkpoint, _files
from collect_cases import check, five_batches, inputs, small_net

torch = pytest.importorskip("torch", reason="collect runs PyTorch modules")
nn = torch.nn

net = pytest.fixture(small_net, name="net")
batches = pytest.fixture(five_batches, name="batches")


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
