"""C++ programs that embed the library of the installed wheel: the consumer of tests/embed."""

from __future__ import annotations

from pathlib import Path

from cmake_project import ROOT, build, cmake_dir, configure, run


def test_embedding_from_the_wheel(tmp_path: Path) -> None:
    configure(ROOT / "tests/embed", tmp_path / "build", brockett_DIR=cmake_dir())
    build(tmp_path / "build")
    assert ": ok" in run(tmp_path / "build/embed")


def test_another_minor_version_is_refused(tmp_path: Path) -> None:
    """0.x releases promise nothing to one another."""
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.20)\nproject(p LANGUAGES CXX)\nfind_package(brockett 0.0.9 CONFIG)\n"
        "if(brockett_FOUND)\n  message(STATUS accepted)\nelse()\n  message(STATUS refused)\nendif()\n"
    )
    said = configure(tmp_path, tmp_path / "build", brockett_DIR=cmake_dir())
    assert "-- refused" in said
    assert "-- accepted" not in said


def test_the_component_cuda_is_its_plugin(tmp_path: Path) -> None:
    """Demanded where the plugin is not installed, find_package refuses; where it is, there is brockett::cuda."""
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.20)\nproject(p LANGUAGES CXX)\n"
        "find_package(brockett CONFIG COMPONENTS cuda)\nif(brockett_FOUND AND TARGET brockett::cuda)\n"
        "  message(STATUS accepted)\nelseif(NOT brockett_FOUND)\n  message(STATUS refused)\nendif()\n"
    )
    said = configure(tmp_path, tmp_path / "build", brockett_DIR=cmake_dir())
    installed = any(Path(cmake_dir()).parents[1].glob("libbrockett_cuda.so"))
    assert f"-- {'accepted' if installed else 'refused'}" in said
