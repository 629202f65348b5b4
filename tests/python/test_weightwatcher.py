"""WeightWatcher with brockett inside, against WeightWatcher alone."""

from __future__ import annotations

import importlib
import logging
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import brockett as bk
from brockett.integrations import _rebind

torch = pytest.importorskip("torch", reason="WeightWatcher reads PyTorch modules")
pytest.importorskip("weightwatcher", reason="pip install --no-deps weightwatcher==0.7.7 powerlaw==1.5 tqdm")
linalg = importlib.import_module("scipy.linalg")
adapter = bk.integrations.weightwatcher
rmt = importlib.import_module("weightwatcher.RMT_Util")
main = importlib.import_module("weightwatcher.weightwatcher")
power = importlib.import_module("weightwatcher.WW_powerlaw")


@pytest.fixture(autouse=True)
def _quiet(capsys: pytest.CaptureFixture[str]) -> Iterator[None]:
    """The peer logs and prints much; and a test that leaves its names bound fails."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
    assert not adapter.installed()


def heavy(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """Noise and a few directions whose strengths fall like a power law, float32."""
    rows, columns = shape[0], int(np.prod(shape[1:]))
    r = max(1, min(rows, columns) // 4)
    W = rng.normal(size=(rows, columns)) / np.sqrt(columns)
    W += (rng.normal(size=(rows, r)) * np.arange(1, r + 1) ** -0.7) @ rng.normal(size=(r, columns)) / np.sqrt(columns)
    return torch.tensor(W.reshape(shape), dtype=torch.float32)


def layer(weight: Any) -> Any:
    rows, columns = weight.shape[:2]
    module = torch.nn.Linear(columns, rows) if weight.ndim == 2 else torch.nn.Conv2d(columns, rows, weight.shape[2:])
    module.weight.data = weight
    return module


@pytest.fixture
def model(rng: np.random.Generator) -> Any:
    """Tall, wide, square, nearly singular, exactly singular and small layers, a convolution and an embedding."""
    square = heavy(rng, (64, 64)).double()
    U, s, Vt = np.linalg.svd(square.numpy())
    s[-3:] = s[0] * np.array([3e-5, 2e-6, 4e-7])
    near = torch.tensor((U * s) @ Vt, dtype=torch.float32)
    twice = heavy(rng, (40, 90)).repeat(2, 1)
    embedding = torch.nn.Embedding(70, 32)
    embedding.weight.data = heavy(rng, (70, 32))
    shapes = [(96, 40), (40, 110), (72, 72), (15, 30), (48, 20, 3, 3), (20, 24, 1, 1)]
    return torch.nn.Sequential(*(layer(heavy(rng, shape)) for shape in shapes), layer(near), layer(twice), embedding)


def analyze(model: Any, **options: Any) -> Any:
    np.random.seed(5)
    return main.WeightWatcher(model=model).analyze(**options)


def both(model: Any, **options: Any) -> tuple[Any, Any]:
    """The table without brockett, and with it; what the peer decomposes with must not be called in the second run."""
    alone = analyze(model, **options)
    with adapter.accelerated(), pytest.MonkeyPatch.context() as patch:
        for name in ("svd", "eig"):
            patch.setattr(linalg, name, None)
        within = analyze(model, **options)
    return alone, within


def assert_same(alone: Any, within: Any) -> None:
    assert list(alone.columns) == list(within.columns)
    assert len(alone) == len(within) > 0
    for column in alone.columns:
        one, two = alone[column].to_numpy(), within[column].to_numpy()
        if alone[column].dtype.kind in "fiu":
            # relative to the column's own size where a value is rounding: the smallest σ of a singular matrix
            scale = np.abs(one).max() if column != "sv_min" else alone["sv_max"].to_numpy()
            np.testing.assert_array_less(np.abs(two - one), 1e-6 * np.abs(one) + 1e-12 * scale + 1e-300, err_msg=column)
        else:
            assert [str(value) for value in one] == [str(value) for value in two], column


OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "accurate": {"svd_method": "accurate"},
    "vectors": {"vectors": True},
    "randomize": {"randomize": True},
    "mp_fit": {"mp_fit": True},
    "slices": {"pool": False},
    "detX": {"detX": True},
    "fingers": {"fix_fingers": "clip_xmax", "max_fingers": 4},
    "few values": {"max_evals": 30},
    "inverse": {"inverse": True, "layers": [1, 2, 3]},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_same_table(model: Any, options: dict[str, Any]) -> None:
    """Every column to 1e-6: the smallest values of singular layers and random matrices of one seed among them."""
    assert_same(*both(model, min_evals=0, **options))
