"""Files: written whole or not at all, and never trusted when read."""

from __future__ import annotations

import io
import os
import pickle
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import brockett as bk
from brockett import _files


def npy(array: Any, **keywords: Any) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(array), **keywords)
    return buffer.getvalue()


def npz(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def header(shape: str, dtype: str = "'<f8'", magic: bytes = b"\x93NUMPY\x01\x00") -> bytes:
    text = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return magic + len(text).to_bytes(2, "little") + text


class Bomb:
    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/brockett-was-unpickled",)


GOOD = np.arange(12.0).reshape(3, 4)

BAD_NPY: dict[str, bytes] = {
    "empty": b"",
    "garbage": os.urandom(200),
    "text": b"0.1 0.2\n0.3 0.4\n",
    "pickle": pickle.dumps(Bomb()),
    "npz": npz({"a.npy": npy(GOOD)}),
    "object": npy(np.array([Bomb()], dtype=object), allow_pickle=True),
    "magic only": b"\x93NUMPY",
    "unknown version": header("(1,)", magic=b"\x93NUMPY\x09\x00") + b"\0" * 8,
    "cut in the header": npy(GOOD)[:40],
    "cut in the data": npy(GOOD)[:-1],
    "huge shape": header("(1000000000000,)") + b"\0" * 8,
    "overflowing shape": header("(4294967296, 4294967296, 4294967296)") + b"\0" * 8,
    "negative shape": header("(-1, 2)") + b"\0" * 16,
    "shape of floats": header("(1.5,)") + b"\0" * 16,
    "code in the header": header("(__import__('os').system('true'),)") + b"\0" * 16,
    "unknown dtype": header("(1,)", "'<q9'") + b"\0" * 16,
    "broken braces": b"\x93NUMPY\x01\x00\x05\x00{'des",
}


@pytest.mark.parametrize("name", BAD_NPY)
@pytest.mark.parametrize("mmap", [False, True])
def test_bad_npy(name: str, mmap: bool, tmp_path: Path) -> None:
    path = tmp_path / "bad.npy"
    path.write_bytes(BAD_NPY[name])
    with pytest.raises(bk.FileFormatError, match=r"bad\.npy") as caught:
        _files.load_npy(path, mmap=mmap)
    assert isinstance(caught.value, ValueError)
    if "pickle" in name:
        assert "pickle" in str(caught.value)
    assert not Path("/tmp/brockett-was-unpickled").exists()


BAD_NPZ: dict[str, bytes] = {
    **{name: data for name, data in BAD_NPY.items() if name != "npz"},
    "npy": npy(GOOD),
    "cut": npz({"a.npy": npy(GOOD)})[:-30],
    "cut early": npz({"a.npy": npy(GOOD)})[:60],
    "damaged data": npz({"a.npy": npy(GOOD)}).replace(GOOD[1].tobytes(), GOOD[2].tobytes()),
    "bad entry": npz({"a.npy": BAD_NPY["garbage"]}),
    "object entry": npz({"a.npy": BAD_NPY["object"]}),
    "pickle entry": npz({"a.npy": BAD_NPY["pickle"]}),
    "huge entry": npz({"a.npy": BAD_NPY["huge shape"]}),
    "short entry": npz({"a.npy": BAD_NPY["cut in the data"]}),
    "long entry": npz({"a.npy": npy(GOOD) + b"x"}),
    "no entry": npz({}),
    "other entry": npz({"b.npy": npy(GOOD)}),
}


@pytest.mark.parametrize("name", BAD_NPZ)
def test_bad_npz(name: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.npz"
    path.write_bytes(BAD_NPZ[name])
    with pytest.raises(bk.FileFormatError, match=r"bad\.npz"):
        _files.load_npz(path, ("a",))
    for load in (bk.Autocorrelation.load, bk.Descrambling.load):
        with pytest.raises(bk.FileFormatError, match=r"bad\.npz"):
            load(path)
    assert not Path("/tmp/brockett-was-unpickled").exists()


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_numpys_own_files_are_read(compression: int, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(npz({"a.npy": npy(GOOD), "b.npy": npy(np.zeros(10_000)), "c.txt": b"x"}, compression))
    found = _files.load_npz(path, ("a",))
    assert sorted(found) == ["a", "b"]
    assert np.array_equal(found["a"], GOOD)
    np.savez_compressed(path, x=GOOD)
    assert np.array_equal(_files.load_npz(path)["x"], GOOD)
    for array in (GOOD, np.asfortranarray(GOOD), GOOD.astype(">f4"), np.array(3), np.zeros((0, 3)), np.array("text")):
        np.save(tmp_path / "a.npy", array)
        assert np.array_equal(_files.load_npy(tmp_path / "a.npy"), array)
        if array.size:
            mapped = _files.load_npy(tmp_path / "a.npy", mmap=True)
            assert isinstance(mapped, np.memmap)
            assert np.array_equal(mapped, array)
            assert not mapped.flags.writeable


def test_what_is_written_numpy_reads(tmp_path: Path) -> None:
    _files.save_npz(tmp_path / "a.npz", {"x": GOOD, "n": 3, "word": "text", "f": np.asfortranarray(GOOD)})
    with np.load(tmp_path / "a.npz") as found:
        assert np.array_equal(found["x"], GOOD)
        assert np.array_equal(found["f"], GOOD)
        assert (int(found["n"]), str(found["word"])) == (3, "text")
    _files.save_npy(tmp_path / "a.npy", GOOD)
    assert np.array_equal(np.load(tmp_path / "a.npy"), GOOD)
    before = (tmp_path / "a.npz").read_bytes()
    _files.save_npz(tmp_path / "a.npz", {"x": GOOD, "n": 3, "word": "text", "f": np.asfortranarray(GOOD)})
    assert (tmp_path / "a.npz").read_bytes() == before
    with pytest.raises(TypeError, match="pickled"):
        _files.save_npz(tmp_path / "a.npz", {"x": np.array([None])})
    assert (tmp_path / "a.npz").read_bytes() == before


def test_a_failing_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.npz"
    acc = bk.Autocorrelation(2)
    acc.update([[1.0, 2.0]])
    acc.save(path)
    before = path.read_bytes()
    acc.update([[3.0, 4.0]])

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, fail)
            with pytest.raises(OSError, match="No space") as caught:
                acc.save(path)
        assert caught.value.filename == str(path)
        assert path.read_bytes() == before
        assert [f.name for f in tmp_path.iterdir()] == ["r.npz"]
    acc.save(path)
    assert bk.Autocorrelation.load(path).n_samples == 2
    (tmp_path / "folder").mkdir()
    for target, kind in ((tmp_path / "missing" / "r.npz", FileNotFoundError), (tmp_path / "folder", IsADirectoryError)):
        for save in (acc.save, bk.Descrambling.save.__get__(bk.descramble(np.eye(2)))):
            with pytest.raises(kind) as caught:
                save(target)
            assert caught.value.filename == str(target), "and not the temporary file beside it"
            assert caught.value.filename2 is None
    with pytest.raises(FileNotFoundError) as caught, _files.atomic_write(path):
        (tmp_path / "other").read_bytes()
    assert caught.value.filename == str(tmp_path / "other"), "other errors within are left alone"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["folder", "r.npz"]


def test_files_are_as_readable_as_others(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        _files.save_npy(tmp_path / "a.npy", GOOD)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.npy").stat().st_mode) == 0o644


def test_missing_files_are_os_errors(tmp_path: Path) -> None:
    for load in (bk.Autocorrelation.load, bk.Descrambling.load, _files.load_npy, _files.load_npz):
        with pytest.raises(FileNotFoundError):
            load(tmp_path / "none.npz")
        with pytest.raises(OSError):
            load(tmp_path)


def saved(tmp_path: Path) -> dict[str, Any]:
    acc = bk.Autocorrelation(3)
    acc.update(np.ones((4, 3)))
    acc.save(tmp_path / "r.npz")
    return _files.load_npz(tmp_path / "r.npz")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format", "brockett.Descrambling/1"),
        ("format", "something else"),
        ("n_features", 4),
        ("n_features", 0),
        ("n_features", -3),
        ("n_samples", -1),
        ("weight", np.nan),
        ("weight", -1.0),
        ("method", "svd"),
        ("precision", "half"),
        ("mean", np.ones(2)),
        ("mean", np.array(["a", "b", "c"])),
        ("mean", np.array([1, np.inf, 1])),
        ("moment", np.ones((3, 2))),
        ("moment", np.full((3, 3), np.nan)),
        ("moment", np.ones((3, 3), complex)),
        ("moment", np.diag([4.0, -4.0, 4.0])),
        ("moment", np.triu(np.full((3, 3), 4.0))),
        ("moment", np.array([[4.0, 9, 0], [9, 4, 0], [0, 0, 4]])),  # |m_ij|² > m_ii m_jj
        ("mean", np.full(3, 2.0)),  # E[x]² > E[x²]
        ("n_samples", 0),
        ("weight", 0.0),
        ("n_samples", np.ones(2)),
        ("weight", None),
    ],
)
def test_accumulators_that_cannot_be_are_refused(field: str, value: Any, tmp_path: Path) -> None:
    state = saved(tmp_path)
    if value is None:
        del state[field]
    else:
        state[field] = value
    _files.save_npz(tmp_path / "bad.npz", state)
    with pytest.raises(bk.FileFormatError, match=r"bad\.npz"):
        bk.Autocorrelation.load(tmp_path / "bad.npz")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format", "x"),
        ("P", np.ones((2, 3))),
        ("P", np.ones(3)),
        ("sigma", np.ones(2)),
        ("used", "{"),
        ("rank", "many"),
        ("cost", None),
    ],
)
def test_descramblings_that_cannot_be_are_refused(field: str, value: Any, tmp_path: Path) -> None:
    bk.descramble(np.eye(3)).save(tmp_path / "d.npz")
    data = _files.load_npz(tmp_path / "d.npz")
    if value is None:
        del data[field]
    else:
        data[field] = value
    _files.save_npz(tmp_path / "bad.npz", data)
    with pytest.raises(bk.FileFormatError, match=r"bad\.npz"):
        bk.Descrambling.load(tmp_path / "bad.npz")


@settings(max_examples=150, deadline=None)
@given(position=st.integers(0, 10_000), value=st.integers(0, 255), cut=st.booleans())
def test_any_damage_is_a_clean_error_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int, cut: bool
) -> None:
    folder = tmp_path_factory.getbasetemp()
    acc = bk.Autocorrelation(3)
    acc.update(np.arange(12.0).reshape(4, 3))
    acc.save(folder / "r.npz")
    _files.save_npy(folder / "a.npy", GOOD)
    loaders: list[tuple[str, Callable[[Path], Any]]] = [("r.npz", bk.Autocorrelation.load), ("a.npy", _files.load_npy)]
    for name, load in loaders:
        data = bytearray((folder / name).read_bytes())
        at = position % len(data)
        if cut:
            del data[at:]
        else:
            data[at] = value
        (folder / "damaged").write_bytes(data)
        try:
            load(folder / "damaged")
        except bk.FileFormatError:
            continue
        assert not cut


def test_mapped_inputs_are_descrambled_without_a_copy(engine: str, tmp_path: Path, rng: np.random.Generator) -> None:
    X, W = rng.normal(size=(50, 4)).astype(np.float32), rng.normal(size=(3, 4)).astype(np.float32)
    _files.save_npy(tmp_path / "X.npy", X)
    mapped = _files.load_npy(tmp_path / "X.npy", mmap=True)
    assert bk.descramble(W, inputs=mapped).cost == bk.descramble(W, inputs=X).cost
    acc = bk.Autocorrelation(4)
    acc.update(mapped)
    assert np.array_equal(acc.matrix(), bk.autocorrelation(X))
