"""Fixtures of all Python tests.

BROCKETT_TEST_ENGINES names the engines under test, "cpu,numpy" by default: an engine that is named and missing makes
its tests fail, they are never skipped.
"""

from __future__ import annotations

import os

# Before NumPy is imported: recent OpenBLAS wheels slow down by two orders of magnitude when cores are oversubscribed.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from collections.abc import Iterator

import numpy as np
import pytest

import brockett as bk
from brockett import _engine

ENGINES = tuple(name for name in os.environ.get("BROCKETT_TEST_ENGINES", "cpu,numpy").split(",") if name)


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """Every engine under test in turn, forced for the test."""
    bk.set_engine(request.param)
    return str(request.param)


@pytest.fixture(autouse=True)
def _engine_choice() -> Iterator[None]:
    """Whatever a test chooses is undone."""
    before = _engine._chosen
    yield
    _engine._chosen = before


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20230107)
