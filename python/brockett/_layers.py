"""The layers of a network, one at a time: from a mapping, a list, an `.npz` or `.safetensors` file, a torch module.

What a layer is called, its shape and its dtype are known before it is read, and no more than one is held.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import struct
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from . import _arrays, _files, _options
from ._errors import FileFormatError, InvalidArgument, InvalidType

if TYPE_CHECKING:
    import zipfile  # imported where a file is read: it takes longer than the rest of brockett

__all__ = ["Source", "open_layers"]

_KINDS = {2: "linear", 3: "conv1d", 4: "conv2d", 5: "conv3d"}
_MAGIC_ZIP, _MAGIC_HDF5 = b"PK\x03\x04", b"\x89HDF"
#: Of a safetensors header, by the format's own reader.
_HEADER_LIMIT = 100_000_000


@dataclass(frozen=True, eq=False)
class Source:
    """A layer that has not been read yet.

    Attributes
    ----------
    name : str
    kind : str
        "linear", "conv2d", …; "" where that is not known.
    shape : tuple of int
        Of the weights (out, in / groups, k…).
    dtype : str
    groups : int
        Of a grouped convolution; files do not tell, so 1 there.
    declined : str
        Why it is no matrix of weights; empty when it is one.
    load : callable
        Read it: an array.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    dtype: str
    groups: int
    declined: str
    load: Callable[[], Any]


@contextlib.contextmanager
def open_layers(layers: Any) -> Iterator[list[Source]]:
    """The layers of whatever a caller has, while the block lasts.

    Raises
    ------
    FileFormatError
        A file that is damaged, or neither `.npz` nor `.safetensors`.
    InvalidArgument, InvalidType
        No layers, or nothing that has layers.
    OSError
        The file cannot be opened.
    """
    torch = sys.modules.get("torch")
    with contextlib.ExitStack() as stack:
        if isinstance(layers, str | os.PathLike):
            found = stack.enter_context(_open_file(os.fspath(layers)))
        elif torch is not None and isinstance(layers, torch.nn.Module):
            found = _of_module(layers, torch)
        elif isinstance(layers, Mapping):
            if "weight" in layers and not isinstance(layers["weight"], Mapping):
                raise InvalidType("layers", "is one layer; expected a mapping of names to layers, or a list of them")
            found = [_of_value(str(name), value) for name, value in layers.items()]
        elif isinstance(layers, Sequence) and not isinstance(layers, bytes | bytearray):
            found = [_of_value(f"layer {k}", value) for k, value in enumerate(layers)]
        else:
            raise InvalidType(
                "layers",
                "expected a mapping of names to weights, a list of weights, the path of an .npz or .safetensors file, "
                f"or a torch.nn.Module, got {type(layers).__name__}",
            )
        if not found:
            raise InvalidArgument("layers", "expected at least one layer, got none")
        yield found


def _source(
    name: str, shape: Sequence[int], dtype: str, load: Callable[[], Any], kind: str | None = None, groups: int = 1
) -> Source:
    whole = tuple(int(length) for length in shape)
    return Source(name, kind or _KINDS.get(len(whole), ""), whole, dtype, groups, _why_not(whole, dtype), load)


def _why_not(shape: tuple[int, ...], dtype: str) -> str:
    word = dtype.lower()
    if word.startswith(("c", "complex")):
        return f"complex numbers ({dtype})"
    if word.startswith(("i", "u", "b")) and not word.startswith("bf"):
        return f"{dtype}: integers or booleans, quantized weights or an index; dequantize to analyse"
    if word in ("v2", "|v2") or word.startswith(("f8_", "float8", "float4", "f4", "f6_", "v", "|v", "q")):
        return f"{dtype}: quantized or unknown numbers; dequantize to analyse"
    if not word.startswith(("f", "bf", "<f", ">f", "float")):
        return f"{dtype}: no real numbers"
    if len(shape) < 2:
        return "no axes: a number" if not shape else "one axis: a bias or a normalization"
    if len(shape) > 5:
        return f"{len(shape)} axes: no layer that is known here"
    return "empty" if math.prod(shape) == 0 else ""


# --- arrays and modules -----------------------------------------------------------------------------------------------


def _of_value(name: str, value: Any) -> Source:
    groups, transposed, weight = 1, False, value
    if isinstance(value, Mapping):
        weight = value.get("weight")
        groups = _options.count(f"layers[{name!r}].groups", value.get("groups") or 1, least=1)
        transposed = bool(value.get("transposed"))
    elif not hasattr(value, "shape") and hasattr(value, "weight"):
        weight = value.weight
    if weight is None:
        raise InvalidArgument(f"layers[{name!r}]", "has no weight")
    if isinstance(weight, list | tuple):
        weight = np.asarray(weight)
    if not hasattr(weight, "shape") or not hasattr(weight, "dtype"):
        raise InvalidType(f"layers[{name!r}]", f"expected weights, got {type(weight).__name__}")
    return _of_array(name, weight, groups, transposed)


def _of_array(name: str, weight: Any, groups: int, transposed: bool, kind: str | None = None) -> Source:
    dtype = str(weight.dtype).removeprefix("torch.")
    shape = tuple(weight.shape)
    swap = transposed and len(shape) > 2
    if swap:  # (in, out / groups, k…) as (out, in / groups, k…)
        shape = (shape[1] * groups, shape[0] // groups, *shape[2:])
    source = _source(name, shape, dtype, lambda: _swapped(weight, groups) if swap else weight, kind, groups)
    if groups > 1 and shape[0] % groups:
        raise InvalidArgument(f"layers[{name!r}]", f"{shape[0]} output channels do not divide into {groups} groups")
    return source


def _swapped(weight: Any, groups: int) -> Any:
    operand = _arrays.accept(weight, "layers")
    xp, shape = operand.space.xp, operand.shape
    blocks = xp.reshape(operand.array, (groups, shape[0] // groups, *shape[1:]))
    turned = xp.permute_dims(blocks, (0, 2, 1, *range(3, len(shape) + 1)))
    return operand.space.back(xp.reshape(turned, (shape[1] * groups, shape[0] // groups, *shape[2:])))


def _of_module(module: Any, torch: Any) -> list[Source]:
    owners = dict(module.named_modules())
    found = []
    for name, parameter in module.named_parameters():
        path, _, leaf = name.rpartition(".")
        owner = owners.get(path)
        groups, transposed, kind = 1, False, None
        if leaf == "weight" and owner is not None:
            if isinstance(owner, torch.nn.Embedding | torch.nn.EmbeddingBag):
                kind = "embedding"
            elif isinstance(owner, torch.nn.modules.conv._ConvNd):
                groups, transposed = owner.groups, owner.transposed
                kind = _KINDS.get(parameter.ndim, "") + (" transposed" if transposed else "")
        found.append(_of_array(name, parameter.detach(), groups, transposed, kind))
    for path, owner in owners.items():
        packed = getattr(owner, "weight", None)  # quantized modules hold theirs behind a method
        if callable(packed) and not isinstance(packed, torch.Tensor):
            weight = packed()
            found.append(_source(f"{path}.weight".lstrip("."), weight.shape, str(weight.dtype)[6:], lambda w=weight: w))  # type: ignore[misc]
    return found


# --- files ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _open_file(path: str) -> Iterator[list[Source]]:
    with open(path, "rb") as file:
        head = file.read(9)
    if head.startswith(_MAGIC_ZIP):
        with _npz(path) as found:
            yield found
    elif len(head) == 9 and head[8:] == b"{" and struct.unpack("<Q", head[:8])[0] <= _HEADER_LIMIT:
        with _safetensors(path) as found:
            yield found
    else:
        what = "it is empty" if not head else f"it starts with {head!r}"
        if head.startswith(b"\x80"):
            what = "it looks like a pickle, which is never loaded"
        elif head.startswith(_MAGIC_HDF5):
            what = "it is HDF5"
        raise FileFormatError(f"{path}: is neither an .npz nor a .safetensors file ({what})")


@contextlib.contextmanager
def _npz(path: str) -> Iterator[list[Source]]:
    import zipfile

    with contextlib.ExitStack() as stack:
        with _files._refuse_damage(path):
            archive = stack.enter_context(zipfile.ZipFile(path))
            found = [_npz_member(path, archive, info) for info in archive.infolist() if info.filename.endswith(".npy")]
        if not found:
            raise FileFormatError(
                f"{path}: holds no arrays (a PyTorch checkpoint is a zip file, too: save safetensors)"
            )
        yield found


def _npz_member(path: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Source:
    import io
    import zipfile

    if info.compress_type != zipfile.ZIP_STORED and info.file_size > 1100 * max(info.compress_size, 1):
        raise ValueError(f"entry {info.filename!r} announces an impossible compression ratio")
    with archive.open(info) as member:
        shape, dtype = _files._check_header(io.BytesIO(member.read(1 << 16)), info.file_size)

    def load() -> npt.NDArray[Any]:
        with _files._refuse_damage(path), archive.open(info) as member:
            array = np.lib.format.read_array(member, allow_pickle=False)
            if member.read(1):  # the checksum is compared at the end of the entry
                raise ValueError(f"entry {info.filename!r} holds more than its header announces")
            return np.asarray(array)

    return _source(info.filename[: -len(".npy")], shape, str(dtype.newbyteorder("=")), load)


@contextlib.contextmanager
def _safetensors(path: str) -> Iterator[list[Source]]:
    import json

    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise ImportError("reading .safetensors needs safetensors: pip install 'brockett[cli]'") from error
    with contextlib.ExitStack() as stack:
        try:
            # It checks the whole header: every offset lies within the file, and none overlaps another.
            archive = stack.enter_context(safe_open(path, framework="numpy"))
        except SafetensorError as error:
            raise FileFormatError(f"{path}: is damaged or not a .safetensors file ({error})") from error
        with open(path, "rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            places = {name: one for name, one in json.loads(file.read(size)).items() if name != "__metadata__"}
        found = []
        for name in sorted(places, key=_natural):
            one = places[name]
            read = _bfloat16(path, 8 + size, one) if one["dtype"] == "BF16" else _tensor(archive, name)
            found.append(_source(name, one["shape"], one["dtype"], read))
        yield found


def _natural(name: str) -> list[tuple[int, str]]:
    """layer.2 before layer.10: the format sorts names as text and keeps no order of its own."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _tensor(archive: Any, name: str) -> Callable[[], Any]:
    return lambda: archive.get_tensor(name)


def _bfloat16(path: str, start: int, entry: Mapping[str, Any]) -> Callable[[], npt.NDArray[np.float32]]:
    """NumPy has no bfloat16, so safetensors hands none out: upper halves of float32, from their place in the file."""

    def load() -> npt.NDArray[np.float32]:
        shape = tuple(entry["shape"])
        bits = np.fromfile(path, "<u2", math.prod(shape), offset=start + int(entry["data_offsets"][0]))
        return _arrays.widen_bfloat16(bits.astype(np.uint16, copy=False)).reshape(shape)

    return load
