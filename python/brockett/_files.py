"""Files: `.npy` and `.npz`, written atomically and read without trusting them.

Nothing here unpickles. A file that is truncated, is not what its name says, or announces more data than it holds is
refused with `FileFormatError` before anything of that size is allocated.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ._errors import FileFormatError

__all__ = ["atomic_write", "load_npy", "load_npz", "save_npy", "save_npz"]

PathLike = str | os.PathLike[str]

_NPY_MAGIC = b"\x93NUMPY"
_ZIP_MAGIC = b"PK\x03\x04"


@contextlib.contextmanager
def atomic_write(path: PathLike) -> Iterator[IO[bytes]]:
    """Open a file that replaces `path` when the block ends well, and leaves `path` alone when it does not.

    Parameters
    ----------
    path : path-like
        The file to write. Its folder must exist.

    Yields
    ------
    file : binary file object
        A temporary file in the same folder, so that the final rename is atomic.

    Raises
    ------
    OSError
        It cannot be written. The error names `path`, not the temporary file.
    """
    import tempfile  # here, not above: half of the import time of brockett would be tempfile's and zipfile's

    target = Path(path)
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    except OSError as error:
        raise _of_path(error, path) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # mkstemp gives 0600 whatever the umask; a result file should be as readable as any other.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(name)
        # A full disk gives no name at all, a rename that of the temporary file; other files' errors are left alone.
        if isinstance(error, OSError) and error.errno is not None and error.filename in (None, name):
            raise _of_path(error, path) from error
        raise


def _of_path(error: OSError, path: PathLike) -> OSError:
    return type(error)(error.errno, error.strerror, os.fspath(path))


def save_npz(path: PathLike, arrays: Mapping[str, npt.ArrayLike] | Iterable[tuple[str, npt.ArrayLike]]) -> None:
    """Write named arrays to an uncompressed `.npz`, atomically.

    Parameters
    ----------
    path : path-like
        Written exactly as given; no suffix is added.
    arrays : mapping of str to array_like, or iterable of (str, array_like)
        No object arrays. Of an iterable one array is held at a time.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    import zipfile

    pairs = arrays.items() if isinstance(arrays, Mapping) else arrays
    with atomic_write(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, value in pairs:
            # A fixed date keeps equal contents equal files.
            info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            plain = _plain(name, value)
            with archive.open(info, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, plain, allow_pickle=False)


def save_npy(path: PathLike, array: npt.ArrayLike) -> None:
    """Write one array to a `.npy`, atomically. `path` is taken exactly as given."""
    value = _plain("array", array)
    with atomic_write(path) as file:
        np.lib.format.write_array(file, value, allow_pickle=False)


def load_npy(path: PathLike, *, mmap: bool = False) -> npt.NDArray[Any]:
    """Read one `.npy` file.

    Parameters
    ----------
    path : path-like
        A `.npy` file.
    mmap : bool, default False
        Map the file instead of reading it: for files larger than memory. The array is then read-only.

    Returns
    -------
    array : ndarray

    Raises
    ------
    FileFormatError
        The file is not a `.npy`, is truncated, or holds pickled objects.
    OSError
        The file cannot be opened.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        _check_magic(path, file)
        with _refuse_damage(path):
            _check_header(file, size)
            file.seek(0)
            if not mmap:
                return np.lib.format.read_array(file, allow_pickle=False)
    with _refuse_damage(path):
        return np.lib.format.open_memmap(path, mode="r")


def load_npz(path: PathLike, required: tuple[str, ...] = ()) -> dict[str, npt.NDArray[Any]]:
    """Read all arrays of an `.npz` file.

    Parameters
    ----------
    path : path-like
        An `.npz` file.
    required : tuple of str, optional
        Names that must be there.

    Returns
    -------
    arrays : dict of str to ndarray

    Raises
    ------
    FileFormatError
        The file is not an `.npz`, is damaged, holds pickled objects, or lacks a required name.
    OSError
        The file cannot be opened.
    """
    import zipfile

    arrays: dict[str, npt.NDArray[Any]] = {}
    with open(path, "rb") as file:
        head = file.read(len(_ZIP_MAGIC))
        if head != _ZIP_MAGIC:
            raise FileFormatError(f"{os.fspath(path)}: is not an .npz file ({_describe(head, path)})")
        with _refuse_damage(path), zipfile.ZipFile(file) as archive:
            for info in archive.infolist():
                if not info.filename.endswith(".npy"):
                    continue
                # The announced size is the compressed entry's own claim: cap what a forged one could make us read.
                if info.compress_type != zipfile.ZIP_STORED and info.file_size > 1100 * max(info.compress_size, 1):
                    raise ValueError(f"entry {info.filename!r} announces an impossible compression ratio")
                with archive.open(info) as member:
                    prefix = io.BytesIO(member.read(1 << 16))
                    _check_header(prefix, info.file_size)
                with archive.open(info) as member:
                    arrays[info.filename[: -len(".npy")]] = np.lib.format.read_array(member, allow_pickle=False)
                    # zipfile compares the checksum only once the end of the entry is reached.
                    if member.read(1):
                        raise ValueError(f"entry {info.filename!r} holds more than its header announces")
    missing = [name for name in required if name not in arrays]
    if missing:
        raise FileFormatError(
            f"{os.fspath(path)}: holds no {', '.join(missing)} (has {', '.join(arrays) or 'nothing'})"
        )
    return arrays


def _plain(name: str, value: npt.ArrayLike) -> npt.NDArray[Any]:
    array = np.asarray(value)
    if array.dtype.hasobject:
        raise TypeError(f"{name}: object arrays are not written, they would have to be pickled")
    return array


def _describe(head: bytes, path: PathLike) -> str:
    if os.path.getsize(path) == 0:
        return "it is empty"
    if head.startswith(b"\x80"):
        return "it looks like a pickle, which is never loaded"
    return f"it starts with {head!r}"


def _check_magic(path: PathLike, file: IO[bytes]) -> None:
    head = file.read(len(_NPY_MAGIC))
    file.seek(0)
    if head != _NPY_MAGIC:
        hint = "; it is an .npz archive" if head.startswith(_ZIP_MAGIC) else ""
        raise FileFormatError(f"{os.fspath(path)}: is not a .npy file ({_describe(head, path)}{hint})")


def _check_header(file: IO[bytes], size: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype; a header that announces more than the file holds is refused before anything is allocated."""
    version = np.lib.format.read_magic(file)
    readers: dict[tuple[int, int], Callable[[IO[bytes]], tuple[tuple[int, ...], bool, np.dtype[Any]]]] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
        # 3.0 differs from 2.0 only in the encoding of field names, and arrays with fields are refused below.
        (3, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"unknown .npy version {version}")
    shape, _, dtype = readers[version](file)
    if dtype.hasobject:
        raise ValueError("it holds pickled Python objects, which are never loaded")
    if any(length < 0 for length in shape):
        raise ValueError(f"negative shape {shape}")
    count = 1
    for length in shape:
        count *= length  # Python integers: a forged shape must not wrap around
    expected = count * dtype.itemsize
    if size - file.tell() < expected:
        raise ValueError(f"truncated: shape {shape} of {dtype} needs {expected} bytes, {size - file.tell()} are there")
    return shape, dtype


@contextlib.contextmanager
def _refuse_damage(path: PathLike) -> Iterator[None]:
    """Whatever a damaged file makes NumPy, zipfile or zlib raise, the caller sees one kind of error."""
    try:
        yield
    except (FileFormatError, FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except MemoryError:
        raise
    except Exception as error:
        # ValueError, EOFError, BadZipFile, zlib.error, struct.error, KeyError, SyntaxError and tokenize's own errors
        # have all been seen to come out of np.load on damaged files.
        raise FileFormatError(f"{os.fspath(path)}: is damaged or not an array file ({error})") from error
