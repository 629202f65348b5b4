"""collect: the memory it takes is known before, and sums lie where they are asked for."""

from __future__ import annotations

import os
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import brockett as bk
from brockett import _collect_plan, _collection
from collect_cases import check, five_batches, inputs, small_net

torch = pytest.importorskip("torch", reason="collect runs PyTorch modules")
nn = torch.nn

net = pytest.fixture(small_net, name="net")
batches = pytest.fixture(five_batches, name="batches")


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
