"""What may come in, and how results go out: NumPy, PyTorch, DLPack, array-API namespaces.

The rules, the same for every function:

* Arrays come back in the library and on the device of the first array argument; Python lists count as NumPy, and go
  along with whatever they stand beside. Arrays of two libraries or devices in one call are refused by name.
* float32 and float64 are computed with as they are; half types (float16, bfloat16) are widened to float32; integers
  and booleans become float64. Complex, extended-precision, object, structured and string arrays are refused by name.
* Nothing is copied where a row- or column-major view describes the array: C and Fortran order, slices with a step of
  one in the contiguous axis, read-only and memory-mapped arrays. Other strides, foreign byte order and unaligned data
  cost one copy. Inputs are never written to.
* torch tensors are taken as they are; a graph they belong to is left alone (`detach`).
* Memory on a device is never moved: it is served where it is, or refused by name. On a CUDA device the work is queued
  on the stream that the caller's library works on. Spectra and other short vectors of an array whose library has no
  namespace (whatever has nothing but DLPack or ``__cuda_array_interface__``) come as NumPy arrays, its matrices as
  `DeviceArray`, which any library takes over without a copy.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _device
from ._engine import Engine, engine_for, serves
from ._errors import BrockettError, InvalidArgument, InvalidType, NonFinite, OutOfMemory

__all__ = [
    "Operand",
    "Space",
    "accept",
    "check_finite",
    "check_finite_host",
    "common_space",
    "host_matrix",
    "host_vector",
    "need_functions",
    "user_errors",
]

_DLPACK_CPU = 1


@dataclass(frozen=True)
class Space:
    """A place where arrays live: a library and a device.

    Attributes
    ----------
    library : str
        Name of the library, for messages and comparison.
    device : str
        Name of the device, likewise.
    where : {"host", "cuda", "cupy", "array-api"}
        Which kind of engine serves it.
    xp : module
        Namespace of the arrays given to the engine: NumPy for everything in host memory.
    xp_device : object
        Device of those, None for host memory.
    """

    library: str
    device: str
    where: str
    xp: Any
    xp_device: Any
    _back: Callable[[Any], Any]

    def __str__(self) -> str:
        return f"{self.library} on {self.device}"

    def same(self, other: Space) -> bool:
        return (self.library, self.device) == (other.library, other.device)

    @property
    def memory(self) -> str:
        """What is equal where one engine reaches both: libraries share host memory, and that of a CUDA device."""
        if self.where == "host":
            return "host memory"
        if self.where in ("cuda", "cupy"):
            return f"cuda:{_device.ordinal(self.xp_device)}"
        return str(self)

    def back(self, array: Any) -> Any:
        """An engine's result as the caller's kind of array; no copy in host memory."""
        return self._back(array)

    def engine(self, argument: str) -> Engine:
        return engine_for(self.where, argument)

    def place(self) -> dict[str, Any]:
        """Keywords that tell an engine's constructors where to work; none for host memory."""
        return {} if self.where == "host" else {"xp": self.xp, "device": self.xp_device}


HOST = Space("numpy", "cpu", "host", np, None, lambda array: array)


def cuda_space(library: str, xp: Any, number: int) -> Space:
    """CUDA device `number`, for arrays of a library."""
    device = _device.device_of(xp, number)

    def back(array: Any) -> Any:
        if xp is _device.Namespace or not isinstance(array, np.ndarray):
            return array
        return xp.asarray(array, device=device)

    where = "cupy" if library == "cupy" else "cuda"
    return Space(library, f"cuda:{number}", where, xp, device, back)


@dataclass(frozen=True)
class Operand:
    """An array argument as the engines take it.

    Attributes
    ----------
    array : array
        Numeric and native; bfloat16 as uint16 with `bfloat16` set.
    argument : str
        Its name, for messages.
    shape : tuple of int
        Shape that the caller gave; indices in messages refer to it.
    dtype : {"float32", "float64"}
        Dtype of results that follow this argument.
    space : Space
    neutral : bool
        Came as a Python list or number, and goes along with any space.
    """

    array: Any
    argument: str
    shape: tuple[int, ...]
    dtype: str
    space: Space
    bfloat16: bool = False
    neutral: bool = False

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def with_array(self, array: Any) -> Operand:
        return replace(self, array=array)

    def in_space(self, space: Space) -> Operand:
        """A list, as an array of the space it goes along with; anything else is returned as it is."""
        if not self.neutral or space.where == "host":
            return self
        array = space.xp.asarray(self.array, device=space.xp_device)
        return replace(self, array=array, space=space, neutral=False)

    def as_float64(self) -> Operand:
        """The same values in float64."""
        xp = self.space.xp
        if self.array.dtype == xp.float64:
            return self
        array = self.array.astype(np.float64) if xp is np else xp.astype(self.array, xp.float64)
        return replace(self, array=array)

    def host(self) -> npt.NDArray[Any]:
        """The values in host memory: for small vectors, whose move is the point."""
        return to_host(self.array, self.space)


def accept(value: Any, argument: str, *, samples: bool = False) -> Operand:
    """Take what a caller passed as an array.

    Parameters
    ----------
    value : array_like
        What came.
    argument : str
        Its name in the caller's signature.
    samples : bool
        Keep float16 and bfloat16 as they are (engines widen samples block by block), instead of converting them here.

    Returns
    -------
    operand : Operand

    Raises
    ------
    InvalidType
        Not an array of real numbers, or in a place that no engine serves.
    """
    if isinstance(value, np.ndarray | np.generic):
        return _from_numpy(np.asarray(_unmasked(value, argument)), argument, samples, HOST)
    if isinstance(value, list | tuple | int | float):
        return replace(_from_numpy(_from_list(value, argument), argument, samples, HOST), neutral=True)
    if isinstance(value, complex):
        raise _complex_error(argument, "complex")
    # Optional libraries are looked up among those already imported: an array of theirs cannot exist otherwise.
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return _from_torch(value, argument, samples, torch)
    _refuse_by_name(value, argument)
    if not hasattr(value, "__array_namespace__") and not _is_cupy(value):
        found = _device.accept_foreign(value, argument)
        if found is not None:
            return _from_device(*found, argument, samples)
    if hasattr(value, "__array_namespace__") or _is_cupy(value):
        return _from_namespace(value, argument, samples)
    if hasattr(value, "__dlpack__"):
        return _from_dlpack(value, argument, samples, HOST)
    if hasattr(value, "__array__") or hasattr(value, "__array_interface__"):  # pandas, xarray, PIL and the like
        return _from_numpy(_from_list(value, argument), argument, samples, HOST)
    raise InvalidType(argument, f"expected an array, got {_type_name(value)}")


def common_space(*operands: Operand | None) -> Space:
    """The one space of all arguments of a call; lists go along. Mixed ones are refused by name."""
    space: Space | None = None
    first = ""
    for operand in operands:
        if operand is None or operand.neutral:
            continue
        if space is None:
            space, first = operand.space, operand.argument
        elif not space.same(operand.space):
            raise InvalidType(
                operand.argument,
                f"is an array of {operand.space}, but {first} is one of {space}; arrays are not moved: pass both in "
                "one library, on one device",
            )
    return space if space is not None else HOST


def in_library_of(operand: Operand, space: Space) -> Operand:
    """The same memory as an array of another library, where both libraries reach it; else as it is."""
    if operand.space.same(space) or operand.space.memory != space.memory:
        return operand
    if space.where == "host":  # all of these are NumPy's in the engine
        return replace(operand, space=space)
    stream = _device.current_stream(space.xp, _device.ordinal(space.xp_device))
    array = _device.exporter(space.xp)(_device.import_array(operand.array, stream, operand.argument))
    return replace(operand, array=array, space=space)


def need_functions(operand: Operand) -> None:
    """Refuse by name what only holds memory, where the functions of an array library are needed."""
    if operand.space.xp is _device.Namespace:
        raise InvalidType(
            operand.argument,
            f"is an array of {operand.space}, which has no functions of its own; hand it to torch.from_dlpack or "
            "cupy.from_dlpack first",
        )


def check_finite(operand: Operand) -> None:
    """NonFinite with the first index, whatever the magnitudes; for what no engine looks through."""
    xp = operand.space.xp
    if not bool(xp.all(xp.isfinite(operand.array))):
        check_finite_host(operand.argument, to_host(operand.array, operand.space))


def check_finite_host(argument: str, array: npt.NDArray[Any]) -> None:
    """NonFinite with the first index, of an array in host memory."""
    finite = np.isfinite(array)
    if not finite.all():
        raise NonFinite(argument, [int(i) for i in np.unravel_index(int(np.argmin(finite)), finite.shape)])


# --- the libraries ----------------------------------------------------------------------------------------------------


def _from_numpy(array: npt.NDArray[Any], argument: str, samples: bool, space: Space) -> Operand:
    shape, dtype, result, bfloat16 = array.shape, array.dtype, "float64", False
    if dtype.kind == "f" and dtype.itemsize in (4, 8):
        result = "float64" if dtype.itemsize == 8 else "float32"
        array = _native(array)
    elif dtype.kind == "f" and dtype.itemsize == 2:
        result = "float32"
        array = _native(array) if samples else array.astype(np.float32)
    elif dtype.name == "bfloat16":  # ml_dtypes registers it with NumPy
        result = "float32"
        bits = array.view(np.uint16)
        array, bfloat16 = (bits, True) if samples else (widen_bfloat16(bits), False)
    elif dtype.kind in "iub":
        array = array.astype(np.float64)
    elif dtype.kind == "c":
        raise _complex_error(argument, dtype.name)
    else:
        raise InvalidType(
            argument, f"dtype {dtype} is not supported: expected float16, bfloat16, float32, float64 or integers"
        )
    return Operand(array, argument, tuple(shape), result, space, bfloat16)


def _native(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if not array.dtype.isnative:
        return array.astype(array.dtype.newbyteorder("="))
    return array if array.flags.aligned else array.copy()


def widen_bfloat16(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    wide: npt.NDArray[np.float32] = (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return wide


def _from_list(value: Any, argument: str) -> npt.NDArray[Any]:
    try:
        array = np.asarray(value)
    except Exception as error:  # ragged lists, foreign __array__ methods
        raise InvalidType(argument, f"{_type_name(value)} does not convert to an array: {error}") from error
    if array.dtype.hasobject:
        raise InvalidType(argument, f"{_type_name(value)} does not convert to an array of numbers")
    return array


def _unmasked(value: Any, argument: str) -> Any:
    if isinstance(value, np.ma.MaskedArray) and bool(np.ma.getmaskarray(value).any()):
        # np.asarray would silently count what lies under the mask.
        raise InvalidType(argument, "is a masked array with masked entries; use mask= or weights=, or fill it")
    return value


def _from_torch(tensor: Any, argument: str, samples: bool, torch: Any) -> Operand:
    if tensor.layout != torch.strided:
        raise InvalidType(argument, f"torch layout {tensor.layout} is not supported, expected a dense (strided) tensor")
    if tensor.is_quantized:
        raise InvalidType(argument, "quantized torch tensors are not supported; call .dequantize()")
    if tensor.is_complex():
        raise _complex_error(argument, str(tensor.dtype))
    if tensor.device.type == "cuda":
        return _from_torch_device(tensor.detach().resolve_neg(), argument, samples, torch)
    if tensor.device.type != "cpu":
        raise InvalidType(
            argument,
            f"is a torch tensor on {tensor.device}, which no engine serves here (see brockett.engines()), and arrays "
            "are not moved: pass it on the CPU",
        )
    plain = tensor.detach().resolve_neg()
    bfloat16 = tensor.dtype == torch.bfloat16
    try:
        array = plain.view(torch.int16).numpy() if bfloat16 else plain.numpy()
    except Exception as error:  # float8, and tensors of torch.func and friends that have no memory
        raise InvalidType(argument, f"a torch tensor of {tensor.dtype} is not supported: {error}") from error
    space = Space("torch", "cpu", "host", np, None, _to_torch)
    if bfloat16:
        bits = array.view(np.uint16)
        shape = tuple(array.shape)
        if samples:
            return Operand(bits, argument, shape, "float32", space, bfloat16=True)
        return Operand(widen_bfloat16(bits), argument, shape, "float32", space)
    return _from_numpy(array, argument, samples, space)


def _from_torch_device(tensor: Any, argument: str, samples: bool, torch: Any) -> Operand:
    space = cuda_space("torch", _device.namespace_of("torch"), int(tensor.device.index))
    result, array = "float64", tensor
    if tensor.dtype in (torch.float16, torch.bfloat16):
        result, array = "float32", tensor if samples else tensor.to(torch.float32)
    elif tensor.dtype == torch.float32:
        result = "float32"
    elif tensor.dtype in (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64):
        array = tensor.to(torch.float64)
    elif tensor.dtype != torch.float64:
        raise InvalidType(argument, f"a torch tensor of {tensor.dtype} is not supported")
    return Operand(array, argument, tuple(tensor.shape), result, space)


def _from_device(array: Any, number: int, library: str, argument: str, samples: bool) -> Operand:
    space = cuda_space(library, _device.Namespace, number)
    result = _device.check_numeric(array, argument)
    shape = tuple(array.shape)
    if array.dtype in ("float16", "bfloat16") and not samples:
        array = array.astype("float32")
    return Operand(array, argument, shape, result, space)


def _to_torch(array: Any) -> Any:
    import torch

    return torch.from_numpy(np.asarray(array))


def _from_namespace(value: Any, argument: str, samples: bool) -> Operand:
    import array_api_compat

    xp: Any = array_api_compat.array_namespace(value)
    library = _library(value)
    device = array_api_compat.device(value)
    strict = library == "array_api_strict"  # exists to prove that the fallback needs nothing of NumPy's own
    if not strict and library != "cupy" and _on_cpu(value):
        space = Space(library, "cpu", "host", np, None, lambda array: xp.from_dlpack(np.asarray(array)))
        return _from_dlpack(value, argument, samples, space)

    def back(array: Any) -> Any:
        return xp.asarray(array, device=device) if isinstance(array, np.ndarray) else array

    number = _device.on_cuda(value)
    if library == "cupy":
        space = cuda_space("cupy", xp, _device.ordinal(device))
    elif number is not None and serves("cuda"):
        space = replace(cuda_space(library, xp, number), xp_device=device, _back=back)
    else:
        space = Space(library, str(device), "array-api", xp, device, back)
    _check_float64(xp, device, argument, space)
    dtype, result, array = value.dtype, "float64", value
    if dtype == xp.float32:
        result = "float32"
    elif dtype == xp.float64:
        pass
    elif str(dtype).endswith("float16"):  # not in the standard; CuPy has it
        result, array = "float32", value if samples else xp.astype(value, xp.float32)
    elif xp.isdtype(dtype, "integral") or xp.isdtype(dtype, "bool"):
        array = xp.astype(value, xp.float64)
    elif xp.isdtype(dtype, "complex floating"):
        raise _complex_error(argument, str(dtype))
    else:
        raise InvalidType(argument, f"dtype {dtype} is not supported: expected float32, float64 or integers")
    shape = tuple(value.shape)
    if any(length is None for length in shape):  # lazy namespaces
        raise InvalidType(argument, f"has the unknown shape {shape}; compute it first")
    return Operand(array, argument, shape, result, space)


def _from_dlpack(value: Any, argument: str, samples: bool, space: Space) -> Operand:
    if not _on_cpu(value):
        raise InvalidType(
            argument,
            f"is a {_type_name(value)} on DLPack device {_dlpack_device(value)}, which no engine serves here (see "
            "brockett.engines()), and arrays are not moved: pass it on the CPU",
        )
    try:
        array = np.from_dlpack(value)
    except Exception as error:  # bfloat16 and float8 have no NumPy dtype
        raise InvalidType(argument, f"{_type_name(value)} does not convert to an array: {error}") from error
    return _from_numpy(array, argument, samples, space)


def _check_float64(xp: Any, device: Any, argument: str, space: Space) -> None:
    info = xp.__array_namespace_info__()
    try:
        dtypes = info.dtypes(device=device, kind="real floating")
    except (TypeError, ValueError):
        dtypes = info.dtypes(kind="real floating")
    if "float64" not in dtypes:
        raise InvalidType(argument, f"is an array of {space}, which has no float64; brockett sums in float64")


def _refuse_by_name(value: Any, argument: str) -> None:
    module = type(value).__module__.partition(".")[0]
    if module in ("scipy", "sparse") and hasattr(value, "nnz"):
        raise InvalidType(argument, f"sparse arrays ({_type_name(value)}) are not supported; pass .toarray()")
    if hasattr(value, "__dask_graph__"):
        raise InvalidType(argument, "dask arrays are not supported; update an Autocorrelation block by block")
    if isinstance(value, str | bytes | bytearray | dict | set):
        raise InvalidType(argument, f"expected an array, got {_type_name(value)}")


def _is_cupy(value: Any) -> bool:
    cupy = sys.modules.get("cupy")
    return cupy is not None and isinstance(value, cupy.ndarray)


def _dlpack_device(value: Any) -> tuple[int, int] | None:
    try:
        kind, number = value.__dlpack_device__()
        return int(kind), int(number)
    except Exception:
        return None


def _on_cpu(value: Any) -> bool:
    device = _dlpack_device(value)
    return device is not None and device[0] == _DLPACK_CPU


def _library(value: Any) -> str:
    return type(value).__module__.partition(".")[0]


def _type_name(value: Any) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _complex_error(argument: str, dtype: str) -> InvalidType:
    return InvalidType(
        argument, f"complex arrays ({dtype}) are not supported; stack the real and the imaginary part instead"
    )


def to_host(array: Any, space: Space) -> npt.NDArray[Any]:
    """An engine's array as a NumPy array; a copy off a device."""
    if isinstance(array, np.ndarray):
        return array
    if _device.is_device_array(array):
        values: npt.NDArray[Any] = array.to_host()
        return values
    if space.library in ("torch", "cupy"):
        values = array.cpu().numpy() if space.library == "torch" else array.get()
        return np.asarray(values)
    if space.library == "array_api_strict":
        return np.asarray(array.to_device(space.xp.Device("CPU_DEVICE")))
    return np.asarray(array) if space.where == "cuda" else np.from_dlpack(array)


# --- shapes and layouts -----------------------------------------------------------------------------------------------


def matrix(operand: Operand, what: str = "a matrix") -> Operand:
    """A two-dimensional operand that is not empty, in a layout that the engines read."""
    if operand.ndim != 2:
        raise InvalidArgument(operand.argument, f"expected {what} (2 axes), got shape {operand.shape}")
    _check_not_empty(operand)
    return operand.with_array(described(operand.array))


def unfolded(operand: Operand) -> Operand:
    """Weights (out, in) or (out, in, k…) as the matrix (out, in k…); indices in messages stay the caller's."""
    if operand.ndim < 2:
        raise InvalidArgument(
            operand.argument, f"expected weights (out, in) or (out, in, kernel…), got shape {operand.shape}"
        )
    _check_not_empty(operand)
    rows = operand.shape[0]
    return operand.with_array(described(_reshape(operand, (rows, math.prod(operand.shape[1:])))))


def batch(operand: Operand) -> Operand:
    """(…, m, n) as (batch, m, n)."""
    if operand.ndim < 2:
        raise InvalidArgument(operand.argument, f"expected a matrix (…, m, n), got shape {operand.shape}")
    _check_not_empty(operand)
    stacked = _reshape(operand, (math.prod(operand.shape[:-2]), *operand.shape[-2:]))
    return operand.with_array(described(stacked))


def sample_rows(operand: Operand, n_features: int | None = None) -> Operand:
    """(…, n_samples, n_features) as (all samples, n_features), rows contiguous. No samples at all are fine."""
    if operand.ndim < 2:
        raise InvalidArgument(operand.argument, f"expected (…, n_samples, n_features), got shape {operand.shape}")
    width = operand.shape[-1]
    if n_features is not None and width != n_features:
        raise InvalidArgument(
            operand.argument, f"expected {n_features} features in the last axis, got shape {operand.shape}"
        )
    if width == 0:
        raise InvalidArgument(operand.argument, f"must have at least one feature, got shape {operand.shape}")
    rows = _reshape(operand, (math.prod(operand.shape[:-1]), width))
    layout = _layout(rows)
    if layout is not None and not _row_major(*layout):
        rows = _in_c_order(rows)
    return operand.with_array(rows)


def _check_not_empty(operand: Operand) -> None:
    if math.prod(operand.shape) == 0:
        raise InvalidArgument(operand.argument, f"must not be empty, got shape {operand.shape}")


def _reshape(operand: Operand, shape: tuple[int, ...]) -> Any:
    if tuple(operand.array.shape) == shape:
        return operand.array
    return operand.space.xp.reshape(operand.array, shape)


_Layout = tuple[tuple[int, ...], tuple[int, ...], int]


def _layout(array: Any) -> _Layout | None:
    """Shape, strides in bytes and bytes of an element; None of arrays that do not tell."""
    if hasattr(array, "strides"):  # NumPy, CuPy, DeviceArray
        return tuple(array.shape), tuple(array.strides), int(array.itemsize)
    if hasattr(array, "element_size"):  # torch
        size = int(array.element_size())
        return tuple(array.shape), tuple(step * size for step in array.stride()), size
    return None


def _row_major(shape: tuple[int, ...], strides: tuple[int, ...], size: int) -> bool:
    rows, cols = shape[-2:]
    step_row, step_col = strides[-2:]
    return (cols <= 1 or step_col == size) and (rows <= 1 or (step_row >= cols * size and step_row % size == 0))


def _in_c_order(array: Any) -> Any:
    if isinstance(array, np.ndarray):
        return np.ascontiguousarray(array)
    if hasattr(array, "contiguous"):
        return array.contiguous()
    # A DeviceArray has no copy of its own: the engine refuses it, by its argument's name.
    return array if _device.is_device_array(array) else sys.modules["cupy"].ascontiguousarray(array)


def described(array: Any) -> Any:
    """The same values such that the last two axes are row- or column-major; a copy only where they are not."""
    layout = _layout(array)
    if layout is None:
        return array
    shape, strides, size = layout
    swapped = (*shape[:-2], shape[-1], shape[-2]), (*strides[:-2], strides[-1], strides[-2])
    return array if _row_major(shape, strides, size) or _row_major(*swapped, size) else _in_c_order(array)


def goes_with(vector: Operand, like: Space) -> bool:
    """Whether a short vector may stand beside arrays of a space: of that space, a list, or already in host memory,
    which is where the engines want it, beside arrays on a CUDA device."""
    return vector.neutral or vector.space.same(like) or (like.where == "cuda" and vector.space.where == "host")


def host_vector(value: Any, argument: str, length: int, like: Space) -> npt.NDArray[np.float64]:
    """A short vector (a bias, weights) in host memory, from the same library as its neighbours or a list."""
    operand = accept(value, argument)
    if not goes_with(operand, like):
        raise InvalidType(argument, f"is an array of {operand.space}, but its neighbours are of {like}")
    if operand.shape != (length,):
        raise InvalidArgument(argument, f"expected shape ({length},), got {operand.shape}")
    vector = np.ascontiguousarray(operand.host(), dtype=np.float64)
    check_finite_host(argument, vector)
    return vector


def host_matrix(value: Any, argument: str) -> npt.NDArray[np.float64]:
    """A square matrix as float64 in host memory, for descriptions that outlive the call (penalties). Always a copy."""
    operand = accept(value, argument)
    if operand.ndim != 2 or operand.shape[0] != operand.shape[1]:
        raise InvalidArgument(argument, f"expected a square matrix, got shape {operand.shape}")
    _check_not_empty(operand)
    array = np.array(operand.host(), dtype=np.float64, order="C")
    check_finite_host(argument, array)
    return array


# --- messages ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def user_errors(*operands: Operand | None, rename: Mapping[str, str] | None = None) -> Iterator[None]:
    """Errors of an engine in the caller's words: his argument names, and indices into the shapes that he gave.

    All reshapes on the way to an engine keep C order, so an index is carried over by its flat position.
    """
    try:
        yield
    except NonFinite as error:
        name = (rename or {}).get(error.argument, error.argument)
        index = error.index
        for operand in operands:
            if operand is not None and operand.argument == name:
                index = _user_index(index, operand)
        if name == error.argument and index == error.index:
            raise
        raise NonFinite(name, index) from None
    except InvalidArgument as error:
        name = (rename or {}).get(error.argument, error.argument)
        if name == error.argument:
            raise
        raise type(error)(name, error.message) from None
    except BrockettError:
        raise
    except MemoryError as error:  # NumPy's own, in the fallback
        raise OutOfMemory(str(error) or "memory for a result could not be had") from error


def _user_index(index: tuple[int, ...], operand: Operand) -> tuple[int, ...]:
    inner = tuple(operand.array.shape)
    if len(index) == 2 and len(inner) == 3:
        # Engines take a batch matrix by matrix, and name the place in the first one that is not finite.
        i, j = index
        index = (next(k for k in range(inner[0]) if not math.isfinite(operand.array[k, i, j])), i, j)
    if inner == operand.shape or len(index) != len(inner):
        return index
    flat = int(np.ravel_multi_index(index, inner))
    return tuple(int(i) for i in np.unravel_index(flat, operand.shape))
