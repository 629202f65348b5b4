"""The example program examples/cpp_pipeline: same layer, same numbers as from Python."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

import brockett as bk
from cmake_project import ENVIRONMENT, ROOT, build, build_folder, cmake_dir, configure, run


@pytest.fixture(scope="module")
def program(pytestconfig: pytest.Config) -> Path:
    folder = build_folder(pytestconfig, "pipeline")
    configure(ROOT / "examples/cpp_pipeline", folder, brockett_DIR=cmake_dir())
    build(folder)
    return folder / "cpp_pipeline"


def layer(dtype: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    smooth = np.cumsum(rng.standard_normal((1003, 12)), axis=1)
    return smooth.astype(dtype), rng.standard_normal((9, 12)).astype(dtype)


@pytest.mark.parametrize("batch_rows", [1, 64, 4096])
@pytest.mark.parametrize(("dtype", "tol"), [("float32", 2e-5), ("float64", 1e-9)])
def test_same_numbers_as_python(program: Path, tmp_path: Path, dtype: str, tol: float, batch_rows: int) -> None:
    X, W = layer(dtype)
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "W.npy", W)
    said = run(program, tmp_path / "X.npy", tmp_path / "W.npy", tmp_path / "out.npy", batch_rows)

    acc = bk.Autocorrelation(12)
    acc.update(X)
    want = bk.descramble(W, autocorrelation=acc)
    got = np.load(tmp_path / "out.npy")
    assert got.dtype == W.dtype
    np.testing.assert_allclose(got, want.weights, rtol=0, atol=tol * np.abs(W).max())

    numbers = dict(re.findall(r"(\w+) (\S+)", said))
    assert int(numbers["samples"]) == 1003
    assert int(numbers["rank"]) == want.rank == 9
    for name in ("identity_cost", "optimum"):
        assert float(numbers[name]) == pytest.approx(getattr(want, name), rel=1e-10)
    # the independent reference: eigenvalues of C = W R W^T against k^4, by NumPy
    C = W.astype(float) @ (X.astype(float).T @ X.astype(float) / 1003) @ W.astype(float).T
    sigma2 = np.linalg.eigvalsh(C)[::-1]
    optimum = float(np.dot([0, 1, 1, 16, 16, 81, 81, 256, 256], sigma2))
    assert float(numbers["optimum"]) == pytest.approx(optimum, rel=1e-9)
    # a float32 P is orthogonal to 4e-7 only, which a cost in the 4th power of the frequency amplifies
    assert float(numbers["cost"]) == pytest.approx(optimum, rel=1e-9 if dtype == "float64" else 1e-3)


def refused(program: Path, *arguments: object) -> str:
    done = subprocess.run(
        [str(program), *map(str, arguments)], env=ENVIRONMENT, text=True, capture_output=True, check=False
    )
    assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
    return done.stderr


def test_bad_files_are_refused_by_name(program: Path, tmp_path: Path) -> None:
    X, W = layer("float64")
    good = {"X": tmp_path / "X.npy", "W": tmp_path / "W.npy"}
    np.save(good["X"], X)
    np.save(good["W"], W)
    bad = tmp_path / "bad.npy"

    def with_bad_inputs() -> str:
        message = refused(program, bad, good["W"], tmp_path / "out.npy")
        assert not (tmp_path / "out.npy").exists()
        return message

    whole = good["X"].read_bytes()
    bad.write_bytes(whole[:-8])
    assert re.search(r"bad\.npy holds 96280 bytes of data, expected 96288", with_bad_inputs())
    for cut in (0, 5, 9, 30):
        bad.write_bytes(whole[:cut])
        assert "bad.npy" in with_bad_inputs()
    bad.write_bytes(b"garbage " * 100)
    assert "is not a .npy file" in with_bad_inputs()
    for array, words in [
        (np.asfortranarray(X), "Fortran order"),
        (X.astype(">f8"), "holds dtype '>f8'"),
        (X.astype(int), "expected '<f4'"),
        (X[0], "has 1 axes, expected 2"),
        (X[:0], "is empty"),
        (X[:, :5], "inputs have 5 features, weights expect 12"),
    ]:
        np.save(bad, array)
        assert words in with_bad_inputs()
    broken = X.copy()
    broken[500, 3] = np.nan
    np.save(bad, broken)
    assert "NaN or Inf" in with_bad_inputs()
    assert "BATCH_ROWS" in refused(program, good["X"], good["W"], tmp_path / "out.npy", "0")
