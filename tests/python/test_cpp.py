"""The C++ tests, built and run by ctest, and the library as installed by ``cmake --install``.

Where they cannot be built (no compiler, no GoogleTest) these tests fail: they are part of the suite.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from cmake_project import ROOT, build, configure, core_build, run, tool

TOPICS = sorted(path.stem for path in (ROOT / "tests/cpp").glob("test_*.cpp"))


@pytest.fixture(scope="module")
def folder(pytestconfig: pytest.Config) -> Path:
    """The build folder of the library and its tests."""
    return core_build(pytestconfig)


def test_there_are_cpp_tests() -> None:
    assert len(TOPICS) >= 5, TOPICS


@pytest.mark.parametrize("topic", TOPICS)
def test_topic(folder: Path, topic: str) -> None:
    """One executable of tests/cpp: on the host's engines, and on the CUDA backend over each mode of the shim."""
    said = run(tool("ctest"), "--test-dir", folder, "--output-on-failure", "-R", rf"^{topic}(\.|$)", "--no-tests=error")
    assert "100% tests passed" in said


def test_embedding_from_an_install_prefix(folder: Path, tmp_path: Path) -> None:
    """An installed tree is complete, and still works when it has been moved (RPATH $ORIGIN)."""
    run(tool("cmake"), "--install", folder, "--prefix", tmp_path / "first")
    prefix = (tmp_path / "first").rename(tmp_path / "second")
    configure(ROOT / "tests/embed", tmp_path / "embed", CMAKE_PREFIX_PATH=str(prefix))
    build(tmp_path / "embed")
    assert ": ok" in run(tmp_path / "embed/embed")
    installed = {path.relative_to(prefix).as_posix() for path in prefix.rglob("*") if path.is_file()}
    public = {f"include/brockett/{path.name}" for path in (ROOT / "csrc/include/brockett").glob("*.hpp")}
    assert {path for path in installed if path.startswith("include/")} == public
    assert "share/licenses/brockett/OpenBLAS.txt" in installed
