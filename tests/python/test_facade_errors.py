"""The exception family."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import brockett as bk


def test_each_kind_is_also_the_built_in_that_callers_catch() -> None:
    for kind, built_in in (
        (bk.InvalidArgument, ValueError),
        (bk.NonFinite, ValueError),
        (bk.InvalidType, TypeError),
        (bk.InvalidType, ValueError),
        (bk.NotConverged, ArithmeticError),
        (bk.OutOfMemory, MemoryError),
        (bk.Unsupported, NotImplementedError),
        (bk.FileFormatError, ValueError),
        (bk.EngineUnavailable, RuntimeError),
    ):
        assert issubclass(kind, built_in)
        assert issubclass(kind, bk.BrockettError)


def test_messages_and_attributes_survive_pickling() -> None:
    for error in (
        bk.InvalidArgument("W", "is wrong"),
        bk.InvalidType("W", "is wrong"),
        bk.NonFinite("X", (1, np.int64(2))),
    ):
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert again.__dict__ == error.__dict__
    assert str(bk.InvalidArgument("W", "is wrong")) == "W: is wrong"
    assert str(bk.NonFinite("X", (1, 2))) == "X: NaN or Inf at index (1, 2)"
    assert str(bk.NonFinite("b", [3])) == "b: NaN or Inf at index (3,)"
    assert bk.NonFinite("X", (1, np.int64(2))).index == (1, 2)


def test_engine_errors_arrive_as_these(engine: str) -> None:
    with pytest.raises(bk.NonFinite) as caught:
        bk.svd([[1.0, np.inf]])
    assert (caught.value.argument, caught.value.index) == ("A", (0, 1))
    assert type(caught.value) is bk.NonFinite
    with pytest.raises(bk.InvalidArgument) as other:
        bk.descramble(np.eye(3), autocorrelation=-np.eye(3))
    assert other.value.argument == "autocorrelation"
    assert str(other.value).startswith("autocorrelation: ")


def test_memory_that_cannot_be_had_is_an_error(engine: str) -> None:
    with pytest.raises(bk.OutOfMemory):
        bk.Autocorrelation(30_000_000).update(np.broadcast_to(np.float32(1), (1, 30_000_000)))
