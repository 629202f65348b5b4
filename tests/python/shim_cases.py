"""What only the CPU shim of CUDA can bring about: failures, small devices, two devices. test_cuda_arrays.py runs them.

The shim is driven through ctypes, in the plugin that the process has loaded (tests/cpp/cuda_shim/control.h).
"""

from __future__ import annotations

import ctypes
import gc
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import brockett as bk
from brockett import _collection, _core

DeviceArray = _core.DeviceArray


@pytest.fixture
def shim() -> Iterator[Any]:
    library = ctypes.CDLL(os.environ["BROCKETT_CUDA_PLUGIN"])
    for name in ("live_allocations", "live_bytes", "live_handles", "calls"):
        getattr(library, f"brockett_shim_{name}").restype = ctypes.c_size_t
    library.brockett_shim_set_memory.argtypes = [ctypes.c_size_t]
    library.brockett_shim_fail_allocation.argtypes = [ctypes.c_size_t]
    library.brockett_shim_fail_info.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_size_t]
    library.brockett_shim_fail_status.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_size_t]
    yield library
    library.brockett_shim_reset()


def test_two_devices_in_one_call_are_an_error_that_names_both(rng: np.random.Generator) -> None:
    here, there = DeviceArray.from_host(np.eye(3)), DeviceArray.from_host(np.eye(3), 1)
    assert (there.device, there.__dlpack_device__()) == (1, (2, 1))
    assert np.array_equal(there.to_host(), np.eye(3))
    for call in (
        lambda: bk.descramble(here, inputs=there),
        lambda: bk.whitened_svd(here, there),
        lambda: bk.brockett_cost(here, there),
        lambda: bk.descramble(here, gauge=there),
        lambda: bk.descramble(preactivations=here, stack=[(1.0, there)]),
        lambda: _core.brockett_cost(here, there, {"kind": "fourier", "order": 2.0}),
        lambda: _core.whitened_svd(here, there, 0),
    ):
        with pytest.raises(bk.InvalidArgument, match=r"cuda:1.*cuda:0"):
            call()
    acc = bk.Autocorrelation(3)
    acc.update(there)
    with pytest.raises(bk.InvalidType, match=r"X: .*cuda:0.*cuda:1"):
        acc.update(here)
    with pytest.raises(bk.InvalidType, match=r"cuda:1.*cuda:0"):
        bk.descramble(here, autocorrelation=acc)
    other = bk.Autocorrelation(3, device="cuda:0")
    other.update(np.eye(3))
    with pytest.raises(bk.InvalidType, match=r"other: .*cuda:0.*cuda:1"):
        acc.merge(other)
    with pytest.raises(bk.InvalidType, match=r"X: .*cuda:1.*cuda:0"):
        other.update(there)
    # Each works on its own device.
    assert bk.svd(there).U.device == 1
    assert acc.matrix().device == 1


def test_a_full_device_is_our_error_and_everything_goes_on(shim: Any, rng: np.random.Generator) -> None:
    W, X = rng.normal(size=(9, 7)), rng.normal(size=(50, 7))
    expected = bk.descramble(W, inputs=X)

    def work() -> Any:
        acc = bk.Autocorrelation(7, device="cuda:0")
        acc.update(X)
        w = DeviceArray.from_host(W)
        bk.svd(w)
        return bk.descramble(w, autocorrelation=acc)

    work()
    failures = []
    for k in range(1, 400):
        shim.brockett_shim_fail_allocation(k)
        try:
            layer = work()
        except bk.OutOfMemory as error:
            failures.append(str(error))
        else:
            assert layer.cost == pytest.approx(expected.cost, rel=1e-10)
            if shim.brockett_shim_failure_pending():
                break
        shim.brockett_shim_fail_allocation(0)
    else:
        pytest.fail("the work never ran through")
    shim.brockett_shim_fail_allocation(0)
    assert len(failures) >= 5
    sizes = [message for message in failures if re.search(r"\d+ bytes", message)]
    assert len(sizes) >= 5, failures  # others are streams and handles
    assert work().cost == pytest.approx(expected.cost, rel=1e-10)


def test_layers_on_two_devices_are_staged_each_on_its_own(shim: Any, rng: np.random.Generator, tmp_path: Path) -> None:
    """What `collect` does with the layers of a model that is spread over devices; torch itself knows none here."""
    X = {"a": rng.normal(size=(30, 4)), "b": rng.normal(size=(30, 6)), "host": rng.normal(size=(30, 3))}
    images = rng.normal(size=(4, 2, 5, 5))
    place = {"a": 0, "b": 1}

    def samples(name: str, rows: Any) -> Any:
        return DeviceArray.from_host(rows, place[name]) if name in place else rows

    def fresh() -> bk.Collection:
        totals = {name: bk.Autocorrelation(rows.shape[1], center=True) for name, rows in X.items()}
        return bk.Collection({**totals, "conv": bk.PatchAutocorrelation(2, 3, center=True)})

    def add(found: Any, rows: slice, pictures: slice, bad: bool = False) -> None:
        staged = _collection.Staged(found)
        for name in X:
            staged.add(name, samples(name, X[name][rows]))
        staged.add("conv", DeviceArray.from_host(images[pictures], 1))
        if bad:
            staged.add("b", samples("b", np.full((1, 6), np.inf)))
        staged.commit()

    def check(found: Any, n: int) -> None:
        for name, rows in X.items():
            mean = rows[:n].mean(axis=0)
            R = found[name].matrix()
            R = R if isinstance(R, np.ndarray) else R.to_host()
            assert pytest.approx((rows[:n] - mean).T @ (rows[:n] - mean) / n, rel=1e-9, abs=1e-12) == R
            assert found[name].n_samples == n

    found = fresh()
    add(found, slice(0, 10), slice(0, 1))
    with pytest.raises(bk.NonFinite):
        add(found, slice(10, 20), slice(1, 2), bad=True)
    check(found, 10)
    assert (found["a"].matrix().device, found["b"].matrix().device) == (0, 1)
    # Out of memory in the middle of a batch or of its commit, on either device: all or nothing.
    failures = 0
    for k in range(1, 200):
        shim.brockett_shim_fail_allocation(k)
        try:
            add(found, slice(10, 20), slice(1, 2))
        except bk.OutOfMemory:
            failures += 1
            shim.brockett_shim_fail_allocation(0)
            check(found, 10)
        else:
            shim.brockett_shim_fail_allocation(0)
            break
    assert failures > 5
    check(found, 20)
    # From a file it lies in host memory, and goes back to the devices with the next batch.
    found.save(tmp_path / "r.npz")
    again = bk.Collection.load(tmp_path / "r.npz")
    add(again, slice(20, 30), slice(2, 4))
    check(again, 30)
    assert (again["a"].matrix().device, again["b"].matrix().device) == (0, 1)
    assert again["conv"].n_samples == 4 * 9
    # Samples that come from elsewhere than before are an error that names the layer.
    place["b"] = 0
    with pytest.raises(bk.InvalidType, match=r"layer 'b': what was collected before .*cuda:1.*accumulate_on="):
        add(again, slice(0, 5), slice(0, 1))
    place["b"] = 1
    check(again, 30)


def test_what_does_not_converge_names_its_size(shim: Any, rng: np.random.Generator) -> None:
    A = DeviceArray.from_host(rng.normal(size=(12, 12)))
    for name in (b"cusolverDnXgesvdp", b"cusolverDnXgesvd"):
        shim.brockett_shim_fail_info(name, 3, 1000)
    with pytest.raises(bk.NotConverged, match="12"):
        bk.svd(A, method="exact")
    shim.brockett_shim_reset()
    assert bk.svd(A, method="exact").residual < 1e-12


def test_samples_larger_than_the_device(shim: Any, rng: np.random.Generator, tmp_path: Path) -> None:
    n_samples, n = 1_000_000, 64
    path = tmp_path / "X.npy"
    X = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(n_samples, n))
    block = rng.integers(-3, 4, size=(1000, n)).astype(np.float32)
    X.reshape(-1, 1000, n)[:] = block
    _core.cuda_synchronize(0)
    shim.brockett_shim_set_memory(200 << 20)  # the samples have 256 MB
    acc = bk.Autocorrelation(n, device="cuda:0")
    acc.update(np.load(path, mmap_mode="r"))
    exact = block.astype(np.float64)
    # Sums of integers are exact: what is left is the division by the number of samples.
    assert np.abs(acc.matrix().to_host() * 1000 - exact.T @ exact).max() < 1e-9


def test_nothing_is_left_behind(shim: Any, rng: np.random.Generator) -> None:
    W, X = rng.normal(size=(5, 4)), rng.normal(size=(20, 4))

    def work() -> None:
        w = DeviceArray.from_host(W)
        layer = bk.descramble(w, inputs=DeviceArray.from_host(X))
        DeviceArray.from_dlpack(layer.P.__dlpack__(stream=2))
        acc = bk.Autocorrelation(4)
        acc.update(DeviceArray.from_host(X))
        bk.svd(DeviceArray.from_host(W[None]))
        with pytest.raises(bk.NonFinite):
            acc.update(DeviceArray.from_host(np.full((1, 4), np.nan)))

    work()
    _core.cuda_synchronize(0)
    before = shim.brockett_shim_live_allocations()
    for _ in range(25):
        work()
    _core.cuda_synchronize(0)
    assert shim.brockett_shim_live_allocations() == before


class Tensor(ctypes.Structure):
    """DLPack's, without its versions."""

    _fields_ = [
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]  # fmt: skip


def tensor_in(capsule: Any) -> Any:
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return ctypes.cast(get(capsule, b"dltensor"), ctypes.POINTER(Tensor)).contents


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("data", None, "has no memory: it was freed"),
        ("data", 4096, "memory of no CUDA device"),
        ("byte_offset", 4, "not aligned"),
        ("device_id", 1, "says CUDA 1, its memory lies on CUDA 0"),
        ("device_id", 99, "says CUDA 99"),
        ("device_type", 10, "lies on ROCm 0"),
        ("bits", 12, "elements of 12 bits"),
        ("lanes", 4, "in 4 lanes"),
        ("shape", None, "has no shape"),
        ("ndim", -1, "has no shape"),
    ],
)
def test_tensors_that_cannot_be_are_refused(shim: Any, field: str, value: Any, words: str) -> None:
    before = shim.brockett_shim_live_allocations()
    capsule = DeviceArray.from_host(np.eye(2)).__dlpack__()
    setattr(tensor_in(capsule), field, value)
    with pytest.raises(bk.InvalidArgument, match=f"A: .*{words}"):
        bk.svd(capsule)
    del capsule
    assert bk.singular_values(DeviceArray.from_host(np.eye(2))).tolist() == [1, 1]
    assert shim.brockett_shim_live_allocations() == before


def test_memory_that_was_given_back_is_no_array_s(shim: Any) -> None:
    array = DeviceArray.from_host(np.eye(2))
    capsule = array.__dlpack__()
    address = tensor_in(capsule).data
    del capsule, array  # and with them the memory
    _core.cuda_synchronize(0)
    stale = DeviceArray.from_host(np.eye(2)).__dlpack__()
    tensor_in(stale).data = address
    with pytest.raises(bk.InvalidArgument, match=r"A: .*memory of no CUDA device: it was freed"):
        bk.svd(stale)


def test_ten_thousand_calls_leave_nothing_behind(shim: Any) -> None:
    """Good ones, and such as are refused on the way in, on the device, and on the way out."""
    good, bad, there = (DeviceArray.from_host(x) for x in (np.eye(2), np.full((2, 2), np.nan), np.eye(3)))
    used = good.__dlpack__()
    bk.singular_values(used)

    def call(k: int) -> None:
        if k % 5 == 0:
            assert bk.singular_values(good).tolist() == [1, 1]
        elif k % 5 == 1:
            with pytest.raises(bk.NonFinite):
                bk.singular_values(bad)
        elif k % 5 == 2:
            with pytest.raises(bk.InvalidArgument):
                bk.singular_values(used)
        elif k % 5 == 3:
            with pytest.raises(bk.InvalidArgument):
                bk.brockett_cost(good, there)
        else:
            bk.svd(DeviceArray.from_host(np.eye(2)).__dlpack__(stream=2)).U.__dlpack__()

    for k in range(10):
        call(k)
    _core.cuda_synchronize(0)

    def alive() -> list[int]:
        return [getattr(shim, f"brockett_shim_live_{what}")() for what in ("allocations", "bytes", "handles")]

    before = alive()
    gc.collect()
    blocks = sys.getallocatedblocks()
    for k in range(10_000):
        call(k)
    _core.cuda_synchronize(0)
    gc.collect()  # errors and their tracebacks refer to each other
    assert alive() == before
    assert sys.getallocatedblocks() - blocks < 1000


def test_an_accumulator_keeps_to_its_stream(rng: np.random.Generator) -> None:
    # Samples and results on other streams than the accumulator's own: each waits for the other.
    X = rng.normal(size=(40, 5))
    acc = bk.Autocorrelation(5)
    acc.update(DeviceArray.from_host(X))
    acc.update(DeviceArray.from_host(X, 0, 2))
    R = DeviceArray.from_dlpack(acc.matrix().__dlpack__(stream=2), 2)
    assert R.to_host() == pytest.approx(X.T @ X / 40, rel=1e-12)
    W = rng.normal(size=(4, 5))
    layer = bk.descramble(DeviceArray.from_host(W, 0, 2), autocorrelation=acc)
    assert layer.P.to_host() @ W == pytest.approx(layer.weights.to_host(), abs=1e-12)
    other = _core.Accumulator(5, False, "gram", "double", device=0, stream=2)
    other.update(DeviceArray.from_host(X))
    total = _core.Accumulator(5, False, "gram", "double", device=0)
    total.merge(other)
    assert total.matrix().to_host() == pytest.approx(X.T @ X / 40, rel=1e-12)
