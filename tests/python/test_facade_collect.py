"""collect: accumulators from the layers of a torch module."""

from __future__ import annotations

import builtins
import re
import sys
from typing import Any

import numpy as np
import pytest

import brockett as bk

torch = pytest.importorskip("torch")
nn = torch.nn


@pytest.fixture
def net() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Dropout(0.5), nn.Linear(5, 2))


@pytest.fixture
def x() -> Any:
    return torch.randn(12, 3, generator=torch.Generator().manual_seed(1))


def moments(a: Any) -> np.ndarray[Any, Any]:
    a = a.detach().double().reshape(-1, a.shape[-1]).numpy()
    result: np.ndarray[Any, Any] = a.T @ a / len(a)
    return result


def hooks(module: Any) -> int:
    return sum(len(part._forward_pre_hooks) + len(part._forward_hooks) for part in module.modules())


def test_each_linear_layer_gets_its_inputs(engine: str, net: Any, x: Any) -> None:
    found = bk.collect(net, [x[:5], x[5:]], progress=False)
    assert list(found) == ["0", "3"]
    net.eval()
    with torch.no_grad():
        hidden = torch.tanh(net[0](x))
    np.testing.assert_allclose(found["0"].matrix(), moments(x), atol=1e-12)
    np.testing.assert_allclose(found["3"].matrix(), moments(hidden), atol=1e-6)  # no dropout: evaluation mode
    assert [acc.n_samples for acc in found.values()] == [12, 12]
    assert isinstance(found["0"].matrix(), torch.Tensor)
    d = bk.descramble(net[3].weight, autocorrelation=found["3"], bias=net[3].bias)
    assert d.cost == pytest.approx(d.optimum, rel=1e-5)


def test_the_module_is_left_as_it_was(net: Any, x: Any) -> None:
    net.train()
    net[3].eval()
    x.requires_grad_(True)
    graphs = []

    def forward(module: Any, batch: Any) -> None:
        graphs.append(module(batch).requires_grad)

    bk.collect(net, [x], forward=forward, progress=False)
    assert graphs == [False]
    assert [part.training for part in net.modules()] == [True, True, True, True, False]
    assert hooks(net) == 0
    assert torch.is_grad_enabled()
    assert all(parameter.grad is None for parameter in net.parameters())


def test_hooks_are_removed_on_errors(net: Any, x: Any) -> None:
    net.train()

    def broken() -> Any:
        yield x
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="disk"):
        bk.collect(net, broken(), progress=False)
    with pytest.raises(bk.InvalidArgument, match="input of layer '0': expected 3 features"):
        bk.collect(net, [torch.ones(2, 4)], progress=False)
    with pytest.raises(RuntimeError, match="shapes"):  # torch's own
        bk.collect(nn.Sequential(nn.Linear(3, 2), nn.Linear(4, 2)), [x], layers=["0"], progress=False)
    with pytest.raises(KeyboardInterrupt):
        bk.collect(net, [x], forward=lambda *_: (_ for _ in ()).throw(KeyboardInterrupt), progress=False)
    assert hooks(net) == 0
    assert net.training
    assert torch.is_grad_enabled()


def test_kinds_of_batches(net: Any, x: Any) -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = net

        def forward(self, features: Any, scale: float = 1.0) -> Any:
            return self.inner(features * scale)

    expected = moments(x)
    for module, batches in (
        (net, [(x, torch.zeros(12))]),
        (net, [[x, "target"]]),
        (net, iter([x])),
        (net, torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, x), batch_size=5)),
        (Named(), [{"features": x}]),
        (Named(), [{"features": x / 2, "scale": 2.0}]),
        (Named(), [x]),
    ):
        found = bk.collect(module, batches, progress=False)
        first = next(iter(found.values()))
        np.testing.assert_allclose(first.matrix(), expected, atol=1e-6)
    found = bk.collect(net, ["ab"], forward=lambda module, batch: module(x) if batch == "ab" else None, progress=False)
    np.testing.assert_allclose(found["0"].matrix(), expected, atol=1e-12)
    with pytest.raises(bk.InvalidType, match=r"batches: is one tensor; .*pass \[x\]"):
        bk.collect(net, x)
    with pytest.raises(bk.InvalidType, match="tensors, tuples or mappings"):
        bk.collect(net, ["ab"], progress=False)
    with pytest.raises(bk.InvalidArgument, match="empty batch"):
        bk.collect(net, [()], progress=False)


def test_layers_are_chosen_by_name(net: Any, x: Any) -> None:
    found = bk.collect(net, [x], layers=["3"], center=True, method="qr", progress=False)
    assert list(found) == ["3"]
    assert (found["3"].center, found["3"].method) == (True, "qr")
    assert bk.collect(net, [x], layers=["3"], precision="single", progress=False)["3"].precision == "single"
    single = nn.Linear(3, 2)
    assert list(bk.collect(single, [x], progress=False)) == [""]
    for layers, error, message in (
        (["4"], bk.InvalidArgument, r"no module '4'; linear and convolutional layers are \['0', '3'\]"),
        (["1"], bk.Unsupported, "'1' is a Tanh"),
        ([], bk.InvalidArgument, "at least one"),
        ("0", bk.InvalidType, "sequence of names"),
    ):
        with pytest.raises(error, match=message):
            bk.collect(net, [x], layers=layers, progress=False)
    with pytest.raises(bk.InvalidArgument, match=r"no torch.nn.Linear"):
        bk.collect(nn.Tanh(), [x], progress=False)
    with pytest.raises(bk.InvalidType, match=r"torch.nn.Module, got Sequential|got str"):
        bk.collect("net", [x], progress=False)


def test_masks_leave_padding_out(engine: str) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: Any, attention_mask: Any = None) -> Any:
            return self.fc(x)

    x = torch.randn(2, 5, 4)
    keep = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]])
    expected = moments(x[keep.bool()])
    x[keep == 0] = float("nan")
    batch = {"x": x, "attention_mask": keep}
    for mask in ("attention_mask", lambda b: b["attention_mask"].bool()):
        found = bk.collect(Model(), [batch, batch], mask=mask, progress=False)
        np.testing.assert_allclose(found["fc"].matrix(), expected, atol=1e-12)
        assert found["fc"].n_samples == 14
    for mask, error, message in (
        ("padding", bk.InvalidArgument, "no 'padding'"),
        (3, bk.InvalidType, "a key of the batches or a function"),
        (lambda b: keep[:, :3], bk.InvalidArgument, "mask for layer 'fc'"),
    ):
        with pytest.raises(error, match=message):
            bk.collect(Model(), [batch], mask=mask, progress=False)


def test_errors_name_the_layer(net: Any, x: Any) -> None:
    with torch.no_grad():
        net[0].weight[0, 0] = float("nan")
    with pytest.raises(bk.NonFinite, match=r"input of layer '3': NaN or Inf at index \(0, 0\)") as caught:
        bk.collect(net, [x], progress=False)
    assert caught.value.index == (0, 0)


def test_other_calls_and_shapes(x: Any) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 3)
            self.unused = nn.Linear(2, 2)

        def forward(self, x: Any) -> Any:
            return self.fc(input=self.fc(x)) + self.fc(x[0])

    with pytest.warns(UserWarning, match="no samples reached 'unused'"):
        found = bk.collect(Model(), [x], progress=False)
    assert found["fc"].n_samples == 12 + 12 + 1
    assert found["unused"].n_samples == 0


def test_half_precision_modules(x: Any) -> None:
    layer = nn.Linear(3, 2).to(torch.bfloat16)
    found = bk.collect(layer, [x.to(torch.bfloat16)], progress=False)
    np.testing.assert_allclose(found[""].matrix(), moments(x.to(torch.bfloat16)), atol=1e-12)


def test_progress(net: Any, x: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    bk.collect(net, [x, x])  # standard error is no terminal here
    assert capsys.readouterr().err == ""
    real = builtins.__import__

    def without_rich(name: str, *args: Any, **keywords: Any) -> Any:
        if name.partition(".")[0] == "rich":
            raise ImportError(name)
        return real(name, *args, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "__import__", without_rich)
        bk.collect(net, [x, x], progress=True)
        bk.collect(net, iter([x]), progress=True)
    known, unknown = re.split(r"(?<=\n)(?=inputs)", capsys.readouterr().err)
    note = r"inputs of 2 layers: sums of 272 bytes, 544 bytes on cpu( \(.* available\))? while they run\n"
    assert re.fullmatch(note + r"\rcollecting: 1 of 2, 0:\d\d left\rcollecting: 2 of 2 in 0:\d\d *\n", known)
    assert re.fullmatch(note + r"\rcollecting: 1 in 0:\d\d\n", unknown)
    pytest.importorskip("rich")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    bk.collect(net, iter([x, x]), progress=True)
    said = capsys.readouterr().err
    assert "collecting" in said
    assert "sums of 272 bytes" in said
    with pytest.raises(bk.InvalidType, match="progress"):
        bk.collect(net, [x], progress="yes")  # type: ignore[arg-type]
    assert hooks(net) == 0
