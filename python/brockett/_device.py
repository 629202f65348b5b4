"""Arrays on CUDA devices: whose they are, on which stream their library works, and how they change hands.

PyTorch tensors, CuPy arrays and arrays of other array-API namespaces stay what they are until an engine is called;
arrays of libraries without such a namespace (Numba, a DLPack capsule, whatever has ``__cuda_array_interface__``) are
seen as a `DeviceArray` of the compiled core, for which `Namespace` has the few functions that are needed here.
Nothing is copied on the way in or out, and nothing leaves the device.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._engine import engine_for, load
from ._errors import InvalidArgument, InvalidType

__all__ = ["Device", "Namespace", "exporter", "import_array", "is_device_array", "namespace_of", "on_cuda", "ordinal"]

#: DLPack's device types whose memory a CUDA device reads: its own, and managed memory.
_CUDA_KINDS = (2, 13)


def _core() -> Any:
    return load("cpu").module  # host and device are one compiled module


class Namespace:
    """The functions of an array namespace that this package needs, for `DeviceArray`."""

    float32 = "float32"
    float64 = "float64"

    @staticmethod
    def asarray(value: Any, device: Any = None) -> Any:
        return _core().DeviceArray.from_host(np.asarray(value), 0 if device is None else int(device))

    @staticmethod
    def astype(array: Any, dtype: str) -> Any:
        return array.astype(dtype)

    @staticmethod
    def reshape(array: Any, shape: Sequence[int]) -> Any:
        return array.reshape([int(length) for length in shape])

    @staticmethod
    def stack(arrays: Sequence[Any]) -> Any:
        return _core().DeviceArray.stack(list(arrays))


@dataclass(frozen=True)
class Device:
    """A CUDA device that a caller named, and the library that results there come in (None: as `DeviceArray`)."""

    ordinal: int
    library: str | None = None

    @classmethod
    def named(cls, value: Any, argument: str = "device") -> Device:
        """From "cuda", "cuda:1", a torch.device or a cupy.cuda.Device."""
        library = type(value).__module__.partition(".")[0]
        if library == "cupy" and hasattr(value, "id"):
            return cls(int(value.id), "cupy")
        word = str(value) if library == "torch" else value
        kind, _, number = word.partition(":") if isinstance(word, str) else ("", "", "")
        if isinstance(value, Device):
            return value
        if kind != "cuda" or not (number == "" or number.isdecimal()) or word == "cuda:":
            raise InvalidArgument(
                argument, f"expected 'cuda', 'cuda:<n>', a torch.device or a cupy.cuda.Device of CUDA, got {value!r}"
            )
        chosen = int(number or 0)
        if library == "torch" and not number:
            chosen = int(sys.modules["torch"].cuda.current_device())
        return cls(chosen, "torch" if library == "torch" else None)

    def __str__(self) -> str:
        return f"cuda:{self.ordinal}"


def is_device_array(value: Any) -> bool:
    """Whether it is the compiled core's own class; it cannot be where the core was never loaded."""
    core = sys.modules.get("brockett._core")
    return core is not None and isinstance(value, core.DeviceArray)


def on_cuda(value: Any) -> int | None:
    """The ordinal of the CUDA device that DLPack says an array is on; None: it says another one, or nothing."""
    try:
        kind, number = value.__dlpack_device__()
    except Exception:
        return None
    return int(number) if int(kind) in _CUDA_KINDS else None


def ordinal(device: Any) -> int:
    """The number of a device as its own library describes it."""
    if isinstance(device, int):
        return device
    for name in ("index", "id"):  # torch.device, cupy.cuda.Device and jax.Device
        number = getattr(device, name, None)
        if isinstance(number, int):
            return number
    return 0


def namespace_of(library: str) -> Any:
    """The namespace of a library's arrays, by name."""
    if library in ("torch", "cupy"):
        return importlib.import_module(f"array_api_compat.{library}")
    return Namespace


def device_of(xp: Any, number: int) -> Any:
    """Device `number` as the library of a namespace describes it."""
    library = _library(xp)
    if library == "torch":
        return sys.modules["torch"].device("cuda", number)
    if library == "cupy":
        return sys.modules["cupy"].cuda.Device(number)
    return number


def _library(xp: Any) -> str:
    """ "torch" of array_api_compat.torch, "cupy" of cupy and array_api_compat.cupy; "" of `Namespace`."""
    name = str(getattr(xp, "__name__", ""))
    return "" if xp is Namespace else name.removeprefix("array_api_compat.").partition(".")[0]


def current_stream(xp: Any, number: int) -> int:
    """Handle of the stream that a library works on now; 0 is CUDA's legacy default stream."""
    library = _library(xp)
    if library == "torch":
        return int(sys.modules["torch"].cuda.current_stream(number).cuda_stream)
    if library == "cupy":
        stream = sys.modules["cupy"].cuda.get_current_stream(number)
        # Memory is given back in the order of the stream it was made on, which CuPy destroys with its last reference.
        return int(_streams.setdefault(int(stream.ptr), stream).ptr)
    return 0


_streams: dict[int, Any] = {}


def import_array(value: Any, stream: int, argument: str) -> Any:
    """Another library's array as a `DeviceArray`, ready in the order of `stream`; its memory, not a copy."""
    device_array = _core().DeviceArray
    if isinstance(value, device_array):
        return value
    if hasattr(value, "__dlpack__") or type(value).__name__ == "PyCapsule":
        return device_array.from_dlpack(value, stream, argument)
    return device_array.from_interface(value, stream, argument)


def exporter(xp: Any) -> Callable[[Any], Any]:
    """What makes a library's own array of a `DeviceArray`: again its memory, not a copy."""
    library = _library(xp)
    source = sys.modules[library] if library in ("torch", "cupy") else xp
    take: Callable[[Any], Any] | None = getattr(source, "from_dlpack", None)
    return take or (lambda array: array)


def accept_foreign(value: Any, argument: str) -> tuple[Any, int, str] | None:
    """Device memory of a library without a namespace: the `DeviceArray`, its device, the library's name.

    None where `value` is nothing of the kind.
    """
    if is_device_array(value):
        return value, int(value.device), "brockett"
    module = type(value).__module__.partition(".")[0]
    library = module if module != "builtins" else "DLPack"
    capsule = type(value).__name__ == "PyCapsule"
    exported = on_cuda(value) is not None
    if not (capsule or exported) and (hasattr(value, "__dlpack__") or not hasattr(value, "__cuda_array_interface__")):
        return None
    if not capsule:  # of which nothing is known before it is read
        engine_for("cuda", argument)
    array = import_array(value, 0, argument)
    return array, int(array.device), library


def check_numeric(array: Any, argument: str) -> str:
    """The dtype of results that follow a `DeviceArray`; what is no real number is refused."""
    name = str(array.dtype)
    if name in ("float16", "bfloat16", "float32"):
        return "float32"
    if name == "float64" or "int" in name or name == "bool":
        return "float64"
    if name.startswith("complex"):
        raise InvalidType(
            argument, f"complex arrays ({name}) are not supported; stack the real and the imaginary part instead"
        )
    raise InvalidType(argument, f"dtype {name} is not supported: expected float16, bfloat16, float32 or float64")
