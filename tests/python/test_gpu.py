"""The façade on a real GPU: every case of device_cases.py with PyTorch's and CuPy's arrays, and what only these can do.

Not run by default, since most machines have no GPU: ``python -m pytest -m gpu``. Without one each test is skipped, with
the reason that `brockett.engines` gives.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import brockett as bk
import device_cases
from brockett import _core
from device_cases import *  # noqa: F403
from device_cases import Library, optimum
from device_topics import *  # noqa: F403

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _gpu() -> None:
    info = bk.engines()["cuda"]
    if not info.available:
        pytest.skip(info.reason)


@pytest.fixture(params=("torch", "cupy", *device_cases.NAMES))
def library(request: pytest.FixtureRequest) -> Library:
    if request.param in ("torch", "cupy"):
        pytest.importorskip(request.param)
    return Library(request.param)


@pytest.fixture
def torch() -> Any:
    found = pytest.importorskip("torch")
    if not found.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    return found


def test_torch_results_are_torch_s_own_and_share_memory(torch: Any, rng: np.random.Generator) -> None:
    W = torch.tensor(rng.normal(size=(6, 4)), device="cuda", requires_grad=True)
    layer = bk.descramble(W)
    for part in (layer.P, layer.weights, layer.sigma, layer.blocks):
        assert part.device.type == "cuda"
        assert not part.requires_grad
    assert torch.allclose(layer.P @ W.detach(), layer.weights)
    U, s, Vt = bk.svd(W.detach().T)  # column-major
    assert torch.allclose((U * s) @ Vt, W.detach().T)
    half = torch.tensor(rng.normal(size=(40, 4)), device="cuda", dtype=torch.bfloat16)
    R = bk.autocorrelation(half)
    exact = half.double()
    assert torch.allclose(R, exact.T @ exact / 40, rtol=1e-12)
    every_other = torch.tensor(rng.normal(size=(8, 12)), device="cuda")[::2, ::3]
    assert torch.allclose(bk.singular_values(every_other), torch.linalg.svdvals(every_other))


def test_work_is_queued_on_torch_s_stream(torch: Any) -> None:
    stream = torch.cuda.Stream()
    for trial in range(20):
        with torch.cuda.stream(stream):
            X = torch.randn(4096, 256, device="cuda", dtype=torch.float64)
            for _ in range(20):  # keeps the stream busy, so that a read on another one would come too early
                X = X + 1 / 16
            R = bk.autocorrelation(X)
            expected = X.T @ X / 4096
            close = torch.allclose(R, expected, rtol=1e-10)
        assert close, trial
    # an accumulator that lives on another stream than its samples
    acc = bk.Autocorrelation(256)
    acc.update(torch.ones(8, 256, device="cuda"))
    with torch.cuda.stream(stream):
        X = torch.zeros(100_000, 256, device="cuda")
        X += 1
        acc.update(X)
        del X
        torch.empty(100_000, 256, device="cuda").fill_(float("nan"))  # takes the same memory again
        ones = torch.ones(256, 256, device="cuda", dtype=torch.float64)
        assert torch.allclose(acc.matrix(), ones, rtol=1e-14, atol=0)  # 100008 / 100008 is done as a product


def test_cupy_streams() -> None:
    cupy = pytest.importorskip("cupy")
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        X = cupy.random.default_rng(0).standard_normal((4096, 128))
        for _ in range(20):
            X = X + 1 / 16
        R = bk.autocorrelation(X)
        assert isinstance(R, cupy.ndarray)
        assert bool(cupy.allclose(R, X.T @ X / 4096, rtol=1e-10))


def test_host_samples_come_out_where_they_were_asked_for(torch: Any, rng: np.random.Generator) -> None:
    X = rng.normal(size=(1000, 8)).astype(np.float32)
    expected = X.astype(np.float64).T @ X.astype(np.float64) / 1000
    by_name = bk.Autocorrelation(8, device="cuda:0")
    by_name.update(X)
    by_torch = bk.Autocorrelation(8, device=torch.device("cuda", 0))
    by_torch.update(X)
    from_torch = bk.Autocorrelation(8, device="cuda")
    from_torch.update(torch.from_numpy(X))
    assert isinstance(by_name.matrix(), _core.DeviceArray)
    for R in (torch.from_dlpack(by_name.matrix()), by_torch.matrix(), from_torch.matrix()):
        assert R.device.type == "cuda"
        assert R.cpu().numpy() == pytest.approx(expected, rel=1e-12)


def test_collect_on_the_device(torch: Any) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 3)).cuda()
    batches = [torch.randn(2, 9, 5, device="cuda") for _ in range(3)]
    found = bk.collect(net, batches, progress=False)
    with torch.no_grad():
        hidden = torch.cat([net[:2](batch).reshape(-1, 7) for batch in batches]).double()
    assert torch.allclose(found["2"].matrix(), hidden.T @ hidden / len(hidden), rtol=1e-12)
    layer = bk.descramble(net[2].weight, autocorrelation=found["2"])
    assert layer.cost == pytest.approx(layer.optimum, rel=1e-4)


def test_collect_sums_where_it_is_told_to(torch: Any, tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True))
    net = net.cuda()
    batches = [torch.randn(2, 9, 5, device="cuda") for _ in range(4)]
    there = bk.collect(net, batches[:2], checkpoint=tmp_path / "r.npz", progress=False)
    assert {str(acc.matrix().device) for acc in there.values()} == {"cuda:0"}
    assert set(bk.collect_plan(net).working_bytes) == {"cuda:0"}
    there = bk.collect(net, batches, checkpoint=tmp_path / "r.npz", progress=False)
    here = bk.collect(net, batches, accumulate_on="cpu", progress=False)
    for name, acc in here.items():
        assert str(acc.matrix().device) == "cpu"
        assert acc.n_samples == there[name].n_samples == 72
        assert torch.allclose(there[name].matrix().cpu(), acc.matrix(), rtol=1e-10, atol=1e-12)
    with pytest.raises(bk.InvalidType, match="what was collected before"):
        bk.collect(net, batches, into=here, progress=False)
    assert {acc.n_samples for acc in here.values()} == {72}
    x = torch.cat(batches)
    with torch.no_grad():
        y = net[0](x).double().reshape(-1, 8)
    assert torch.allclose(there["1.self_attn.query"].matrix(), y.T @ y / 72, rtol=1e-5, atol=1e-6)


def test_large_matrices(torch: Any) -> None:
    generator = torch.Generator("cuda").manual_seed(0)
    W = torch.randn(1024, 700, device="cuda", generator=generator)
    X = torch.randn(20_000, 700, device="cuda", generator=generator)
    layer = bk.descramble(W, inputs=X)
    Y = X.double() @ W.double().T
    assert layer.optimum == pytest.approx(optimum((Y.T @ Y / 20_000).cpu().numpy()), rel=1e-9)
    assert layer.cost == pytest.approx(layer.optimum, rel=1e-3)  # P is float32
    s = bk.singular_values(W)
    assert torch.allclose(s, torch.linalg.svdvals(W.double()), rtol=1e-7)
    quick = bk.svd(W, rank=20, method="quick")
    assert quick.residual < 0.5
    assert torch.allclose(quick.s.double(), s[:20], rtol=0.2)


def test_precisions_against_float64(torch: Any) -> None:
    X = torch.randn(8192, 512, device="cuda")
    exact = X.double().T @ X.double() / 8192
    scale = exact.abs().max()
    for precision, tolerance in (("single", 1e-5), ("tf32", 3e-3), ("fp16", 1e-3), ("bf16", 1e-2)):
        acc = bk.Autocorrelation(512, precision=precision)
        acc.update(X)
        error = float((acc.matrix() - exact).abs().max() / scale)
        assert error < tolerance, precision
        assert error > 1e-9, f"{precision}: float64 products are not what was asked for"


def test_ten_thousand_calls_leave_nothing(torch: Any) -> None:
    W, X = torch.randn(16, 8, device="cuda"), torch.randn(64, 8, device="cuda")

    def work() -> None:
        bk.descramble(W, inputs=X, verify=False)

    for _ in range(100):
        work()
    torch.cuda.synchronize()
    before = _core.cuda_device_info(0)["free_memory"]  # what the pool holds and nobody uses counts as free
    for _ in range(10_000):
        work()
    torch.cuda.synchronize()
    assert before - _core.cuda_device_info(0)["free_memory"] < 1 << 20  # the pool gives 512 bytes at least


def test_a_file_is_streamed_from_disk(torch: Any, tmp_path: Path) -> None:
    path = tmp_path / "X.npy"
    X = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(400_000, 256))
    block = np.random.default_rng(0).integers(-3, 4, size=(1000, 256)).astype(np.float32)
    for first in range(0, 400_000, 1000):
        X[first : first + 1000] = block
    torch.cuda.synchronize()
    before = torch.cuda.mem_get_info()[0]
    acc = bk.Autocorrelation(256, device="cuda:0")
    acc.update(np.load(path, mmap_mode="r"))
    used = before - torch.cuda.mem_get_info()[0]
    assert used < X.nbytes // 2
    exact = block.astype(np.float64)
    assert np.abs(acc.matrix().to_host() * 1000 - exact.T @ exact).max() < 1e-9
