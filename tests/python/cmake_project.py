"""Configure, build and run CMake projects from tests; what fails, fails with the tool's own words."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import brockett

ROOT = Path(__file__).resolve().parents[2]
# One BLAS thread: OpenBLAS spins, and two threads on a machine that is shared take 100 times as long as one.
ENVIRONMENT = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def run(*command: object, cwd: Path | None = None) -> str:
    """Run a command; its output, or AssertionError with all it said."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words, cwd=cwd, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    assert done.returncode == 0, f"{' '.join(words)}\nexit status {done.returncode}\n{done.stdout}"
    return done.stdout


@functools.cache
def tool(name: str) -> str:
    """The path of cmake, ctest or ninja: of this environment, else of the system. Raises where there is none."""
    beside = Path(sys.executable).parent / name
    path = str(beside) if beside.exists() else shutil.which(name)
    if path is None:
        raise FileNotFoundError(f"{name} is needed to build the C++ tests: pip install '.[test]'")
    return path


def cmake_dir() -> str:
    """Where find_package(brockett) finds the package that this Python imports."""
    return run(sys.executable, "-m", "brockett", "--cmake-dir").strip()


def configure(source: Path, build: Path, **definitions: str) -> str:
    """Configure `source` into `build` with Ninja; CMake's words."""
    return run(
        tool("cmake"), "-S", source, "-B", build, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}",
        *(f"-D{key}={value}" for key, value in definitions.items()),
    )  # fmt: skip


def build(folder: Path) -> None:
    """Build all of a configured folder, two jobs at a time."""
    run(tool("cmake"), "--build", folder, "-j", "2")


@functools.cache
def build_folder(config: pytest.Config, name: str) -> Path:
    """A folder under pytest's cache, kept for the next run; another one for another Python environment."""
    cache = getattr(config, "cache", None)
    if cache is None:  # -p no:cacheprovider
        return Path(tempfile.mkdtemp(prefix=f"brockett-{name}-"))
    key = hashlib.sha256(f"{sys.prefix} {sys.version} {ROOT} {brockett.__file__}".encode()).hexdigest()[:12]
    return Path(cache.mkdir("cpp")) / f"{name}-{key}"


@functools.cache
def core_build(config: pytest.Config) -> Path:
    """The C++ library and its tests, built once per session against the OpenBLAS of this environment."""
    folder = build_folder(config, "core")
    configure(
        ROOT,
        folder,
        BROCKETT_BUILD_TESTS="ON",
        BROCKETT_BLAS="scipy-openblas64",
        Python_EXECUTABLE=sys.executable,
        CMAKE_INSTALL_LIBDIR="lib",
    )
    build(folder)
    return folder
