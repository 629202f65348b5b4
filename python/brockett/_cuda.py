"""The cuda engine: the functions of `_core`, on the CUDA device that their arrays lie on.

Arrays of any library go in as `DeviceArray`, on the stream that the library works on now, and results come out as the
library's own arrays; NumPy arrays among the arguments (weights, penalties) stay in host memory. No mathematics in here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import _core, _device

__all__ = ["Accumulator", "PatchAccumulator"]


class _Total:
    """An accumulator of `_core` on a CUDA device, on the stream that the library of its results works on."""

    def __init__(self, total: Any, xp: Any, device: Any) -> None:
        self.total, self.xp, self.device = total, xp, device

    def merge(self, other: Any) -> None:
        self.total.merge(other.total)

    def clear(self) -> None:
        self.total.clear()

    def matrix(self, *group: int) -> Any:
        return _device.exporter(self.xp)(self.total.matrix(*group))

    def mean(self) -> Any:
        return self.total.mean()

    def state(self) -> dict[str, Any]:
        return dict(self.total.state())

    n_features = property(lambda self: self.total.n_features)
    n_samples = property(lambda self: self.total.n_samples)
    weight = property(lambda self: self.total.weight)


def _where(xp: Any, device: Any) -> dict[str, Any]:
    number = _device.ordinal(device)
    return {"device": number, "stream": _device.current_stream(xp, number)}


class Accumulator(_Total):
    """`_core.Accumulator` on a CUDA device; samples in host memory are streamed to it."""

    def __init__(self, n_features: int, center: bool, method: str, precision: str, *, xp: Any, device: Any) -> None:
        super().__init__(_core.Accumulator(n_features, center, method, precision, **_where(xp, device)), xp, device)

    def update(self, X: Any, weights: Any = None, bfloat16: bool = False) -> None:
        # On the stream of X's own library, which may not be the one that this accumulator was made on.
        self.total.update(_Call().take(X, "X"), weights, bfloat16)

    def factor(self) -> Any:
        return _device.exporter(self.xp)(self.total.factor())

    @staticmethod
    def from_state(state: dict[str, Any], *, xp: Any, device: Any) -> Accumulator:
        new = Accumulator.__new__(Accumulator)
        _Total.__init__(new, _core.Accumulator.from_state(state, **_where(xp, device)), xp, device)
        return new

    center = property(lambda self: self.total.center)
    method = property(lambda self: self.total.method)
    precision = property(lambda self: self.total.precision)


class PatchAccumulator(_Total):
    """`_core.PatchAccumulator` on a CUDA device."""

    def __init__(self, *params: Any, xp: Any, device: Any) -> None:
        super().__init__(_core.PatchAccumulator(*params, **_where(xp, device)), xp, device)

    def update(self, X: Any, height: int, width: int, weights: Any = None, bfloat16: bool = False) -> None:
        self.total.update(_Call().take(X, "X"), height, width, weights, bfloat16)

    def group_state(self, group: int) -> dict[str, Any]:
        return dict(self.total.group_state(group))

    @staticmethod
    def from_state(state: dict[str, Any], *, xp: Any, device: Any) -> PatchAccumulator:
        new = PatchAccumulator.__new__(PatchAccumulator)
        _Total.__init__(new, _core.PatchAccumulator.from_state(state, **_where(xp, device)), xp, device)
        return new


class _Call:
    """One call: device arrays in, on one stream; device arrays out, in the library of the first that came in."""

    def __init__(self) -> None:
        self.xp: Any = None
        self.stream = 0

    def take(self, value: Any, argument: str) -> Any:
        if isinstance(value, Accumulator):
            if self.xp is None:
                self.xp = value.xp
            return value.total
        if isinstance(value, dict):
            return {key: self.take(item, argument if key == "kind" else str(key)) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self.take(item, argument) for item in value)
        if value is None or isinstance(value, np.ndarray | str | int | float):
            return value
        if self.xp is None:
            self.xp = _namespace(value)
            number = _device.on_cuda(value)
            self.stream = _device.current_stream(self.xp, 0 if number is None else number)
        return _device.import_array(value, self.stream, argument)

    def give(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self.give(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.give(item) for item in value]
        return _device.exporter(self.xp)(value) if _device.is_device_array(value) else value


def _namespace(value: Any) -> Any:
    if _device.is_device_array(value):
        return _device.Namespace
    import array_api_compat

    return array_api_compat.array_namespace(value)


def __getattr__(name: str) -> Callable[..., Any]:
    """Any function of `_core`, over device arrays."""
    function = getattr(_core, name)  # AttributeError names the engine's own module
    if not callable(function):
        raise AttributeError(f"module {__name__!r} has no function {name!r}")

    def on_device(*args: Any, **kwargs: Any) -> Any:
        call = _Call()
        # The first array of every engine function is the one its errors call by the function's own word for it.
        taken = [call.take(value, "array") for value in args]
        named = {key: call.take(value, key) for key, value in kwargs.items()}
        return call.give(function(*taken, **named))

    on_device.__name__ = name
    globals()[name] = on_device  # the next look-up finds it at once
    return on_device
