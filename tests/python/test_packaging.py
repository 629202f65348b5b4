"""What a wheel and an sdist hold, and what the build refuses."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import brockett
import brockett._core as core
from cmake_project import ENVIRONMENT, ROOT, cmake_dir, run, tool


def test_one_version() -> None:
    """CMakeLists.txt, the library, the distribution and the package agree."""
    cmake = re.search(r"^project\(brockett VERSION (\S+)", (ROOT / "CMakeLists.txt").read_text(), re.MULTILINE)
    assert cmake
    assert core.version() == importlib.metadata.version("brockett") == brockett.__version__ == cmake[1]


def test_installed_files() -> None:
    """Headers, library, BLAS, its licence and the CMake package lie where BLAS is found without any search path."""
    prefix = Path(core.__file__).parent
    assert (prefix / "lib/libbrockett.so").is_file()
    public = {path.name for path in (ROOT / "csrc/include/brockett").glob("*.hpp")}
    assert {path.name for path in (prefix / "include/brockett").iterdir()} == public
    licence = (prefix / "share/licenses/brockett/OpenBLAS.txt").read_text()
    assert "OpenBLAS" in licence
    assert "Redistribution" in licence
    assert Path(cmake_dir()) == prefix / "lib/cmake/brockett"
    blas = [path for path in (prefix / "lib").iterdir() if "openblas" in path.name]
    assert len(blas) == 1, "OpenBLAS must be bundled once, and without symlinks (a wheel would store each as a copy)"
    assert not [path for path in prefix.rglob("*") if path.is_symlink()]
    for library in (prefix / "lib").glob("*.so"):
        assert b"\0.symtab\0" not in library.read_bytes(), f"{library.name} carries symbols that only debuggers read"


def test_typed() -> None:
    assert (Path(brockett.__file__).parent / "py.typed").is_file()


def test_entry_points() -> None:
    """The shell command, and the CMake root that downstream scikit-build-core projects look up."""
    points = importlib.metadata.distribution("brockett").entry_points
    assert {(point.group, point.name, point.value) for point in points} == {
        ("console_scripts", "brockett", "brockett.cli:main"),
        ("cmake.root", "brockett", "brockett"),
    }


def test_required_and_optional_dependencies() -> None:
    """numpy and array-api-compat, and nothing else, come with a plain install."""
    requires = importlib.metadata.requires("brockett") or []
    plain = {re.split(r"[ ;<>=!~]", line)[0] for line in requires if "extra ==" not in line}
    assert plain == {"numpy", "array-api-compat"}
    extras = importlib.metadata.metadata("brockett").get_all("Provides-Extra")
    assert {"cli", "cuda13", "torch", "sklearn", "test", "bench"} <= set(extras or [])


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names in the source distribution of this tree, without the leading folder."""
    folder = tmp_path_factory.mktemp("sdist")
    run(
        sys.executable, "-c",
        "import sys; from scikit_build_core.build import build_sdist; build_sdist(sys.argv[1])", folder,
        cwd=ROOT,
    )  # fmt: skip
    (archive,) = folder.glob("*.tar.gz")
    assert archive.stat().st_size < 5e6
    with tarfile.open(archive) as tar:
        return {name.partition("/")[2] for name in tar.getnames()}


def test_sdist_holds_what_building_and_testing_need(sdist: set[str]) -> None:
    needed = [
        "CMakeLists.txt",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "CITATION.cff",
        "CONTRIBUTING.md",
    ]
    for folder in ("csrc", "python", "tests", "examples"):
        needed += [
            path.relative_to(ROOT).as_posix()
            for path in (ROOT / folder).rglob("*")
            if path.is_file() and path.suffix not in {".pyc", ".so"} and "__pycache__" not in path.parts
        ]
    assert sorted(set(needed) - sdist) == []


def test_sdist_holds_no_junk(sdist: set[str]) -> None:
    tops = {name.partition("/")[0] for name in sdist}
    assert tops <= {
        "CMakeLists.txt", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md",
        "PKG-INFO", ".clang-format", ".gitignore", "csrc", "python", "tests", "examples", "benches",
    }  # fmt: skip
    junk = re.compile(r"\.(so|o|a|pyc|whl|log|npz)$|__pycache__|_cache/|(^|/)(build|dist|\.venv)")
    assert sorted(name for name in sdist if junk.search(name) and not name.startswith("tests/data/")) == []


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("BROCKETT_BLAS=mkl", "expected AUTO, system, scipy-openblas64 or scipy-openblas32"),
    ],
)
def test_refused_options(option: str, words: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            tool("cmake"), "-S", str(ROOT), "-B", str(tmp_path), "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}",
            f"-D{option}",
        ],
        env=ENVIRONMENT, text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert words in " ".join(done.stderr.split())
