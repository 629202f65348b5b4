"""Files of named tensors: `.npy`, `.npz` and `.safetensors`, a tensor at a time."""

from __future__ import annotations

import io
import json
import math
import os
import re
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .. import _arrays, _files
from .._errors import FileFormatError
from ._model import Resource, Tensor

if TYPE_CHECKING:
    import zipfile  # imported where a file is read: it takes longer than the rest of brockett

__all__ = ["HEADER_LIMIT", "natural", "npy", "npz", "safetensors"]

#: Of a safetensors header, by the format's own reader.
HEADER_LIMIT = 100_000_000

#: How numbers of a kind lie in a safetensors file; the kinds that are not here have no whole bytes.
_STORED = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "F8_E4M3": "u1", "F8_E5M2": "u1", "F8_E8M0": "u1",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1",
    "BOOL": "?", "C64": "<c8",
}  # fmt: skip


def natural(name: str) -> list[tuple[int, str]]:
    """layer.2 before layer.10: the formats sort names as text, or keep no order of their own."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def npy(path: str) -> list[Tensor]:
    """The one array, mapped."""
    array = _files.load_npy(path, mmap=True)
    name = os.path.basename(path).removesuffix(".npy")
    return [Tensor(name, array.shape, str(array.dtype.newbyteorder("=")), lambda: np.asarray(array))]


def npz(path: str, resource: Resource) -> list[Tensor]:
    """The arrays of an archive, each read from its entry."""
    import zipfile

    with _files._refuse_damage(path):
        archive = resource.keep(zipfile.ZipFile(path))
        return [_member(path, archive, info) for info in archive.infolist() if info.filename.endswith(".npy")]


def _member(path: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Tensor:
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

    return Tensor(info.filename[: -len(".npy")], shape, str(dtype.newbyteorder("=")), load)


def safetensors(path: str, resource: Resource) -> list[Tensor]:
    """The tensors of a file, each mapped when it is read: what is not used is never in memory."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise ImportError("reading .safetensors needs safetensors: pip install 'brockett[models]'") from error
    try:
        # It checks the whole header: every offset lies within the file, and none overlaps another.
        with safe_open(path, framework="numpy"):
            pass
    except SafetensorError as error:
        raise FileFormatError(f"{path}: is damaged or not a .safetensors file ({error})") from error
    file = resource.keep(open(path, "rb"))  # noqa: SIM115  # kept: a file that is replaced meanwhile stays the one checked
    (size,) = struct.unpack("<Q", file.read(8))
    places = {name: one for name, one in json.loads(file.read(size)).items() if name != "__metadata__"}
    return [
        Tensor(name, tuple(one["shape"]), one["dtype"], _mapped(file, 8 + size, name, one))
        for name, one in sorted(places.items(), key=lambda item: natural(item[0]))
    ]


def _mapped(file: Any, start: int, name: str, entry: dict[str, Any]) -> Callable[[], npt.NDArray[Any]]:
    def load() -> npt.NDArray[Any]:
        shape, kind = tuple(entry["shape"]), entry["dtype"]
        if kind not in _STORED:
            raise FileFormatError(f"{file.name}: {name} is {kind}, which is not read")
        if math.prod(shape) == 0:
            return np.empty(shape, _STORED[kind])
        offset = start + int(entry["data_offsets"][0])
        array = np.asarray(np.memmap(file, _STORED[kind], "r", offset, shape))
        return _arrays.widen_bfloat16(array) if kind == "BF16" else array

    return load
