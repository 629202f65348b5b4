"""The folder rules of README's "Where things live", held by grep; each is also shown to fail on a seeded violation."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOPIC_HEADERS = {
    "autocorrelation",
    "svd",
    "penalty",
    "descramble",
    "eigen",
    "spectral_graph",
    "convolution",
    "random_matrix",
    "hypergraph",
}
# The loader of the CUDA plugin: not a topic, and the one file outside linalg/ that knows what a backend exchanges.
LOADER = {"cuda.cpp": {"linalg/cuda/plugin.hpp", "dlfcn.h", "unistd.h"}}
CUDA_HEADERS = {"cuda_runtime_api.h", "cublas_v2.h", "cusolverDn.h"}
INCLUDE = re.compile(r"^\s*#\s*include\s*([<\"])([^>\"]+)[>\"]", re.MULTILINE)


def sources(folder: Path) -> Iterator[Path]:
    """C++ and CUDA files at any depth."""
    yield from sorted(path for path in folder.rglob("*") if path.suffix in {".cpp", ".hpp", ".cu", ".cuh", ".h"})


def code(path: Path) -> str:
    """The text without comments: prose may say "NumPy", code may not."""
    return re.sub(r"//[^\n]*|/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)


def words(root: Path, paths: Iterator[Path], pattern: str) -> list[str]:
    """Where a pattern stands in code."""
    found = re.compile(pattern)
    return [f"{path.relative_to(root)}: {match[0]}" for path in paths for match in found.finditer(code(path))]


def core_knows_no_python(root: Path) -> list[str]:
    """Nothing in csrc knows Python."""
    return words(root, sources(root / "csrc"), r"\b(Python\.h|pybind11|[Nn]um[Pp]y|PyObject|torch)\b")


def topics_know_no_backend(root: Path) -> list[str]:
    """csrc/src/* includes public headers, private ones of its own, linalg.hpp and buffer.hpp; no BLAS, LAPACK, CUDA."""
    src = root / "csrc/src"
    files = [path for path in sources(src) if path.parent == src]
    allowed = {"linalg/linalg.hpp", "linalg/buffer.hpp"} | {path.name for path in files}
    found = []
    for path in files:
        for kind, name in INCLUDE.findall(code(path)):
            standard = kind == "<" and re.fullmatch(r"[a-z_]+", name)
            if not standard and not name.startswith("brockett/") and name not in allowed | LOADER.get(path.name, set()):
                found.append(f"{path.relative_to(root)}: #include {name}")
    fortran = r"\b(?:scipy_)?[sdcz](?:gemm|syrk|syevd|syevr|gesdd|gesvd|geqrf|potrf)_"
    return found + words(root, iter(files), fortran + r"|\bcblas_|\bLAPACKE_|\bcu(?:da|blas|solver)[A-Z]")


def linalg_knows_no_topic(root: Path) -> list[str]:
    """Nothing in linalg/ knows what an autocorrelation is."""
    folder = root / "csrc/src/linalg"
    found = [
        f"{path.relative_to(root)}: #include {name}"
        for path in sources(folder)
        for _, name in INCLUDE.findall(code(path))
        if Path(name).stem in TOPIC_HEADERS | {"brockett"}
    ]
    topics = r"(?i)\b\w*(autocorrelation|preactivation|penalty|descrambl|hypergraph|spectral_graph|random_matrix)\w*"
    return found + words(root, sources(folder), topics)


def only_linalg_cuda_names_cuda(root: Path) -> list[str]:
    """CUDA's headers, functions and keywords stand in csrc/src/linalg/cuda and nowhere else."""
    folder = root / "csrc/src/linalg/cuda"
    files = [
        path for part in ("csrc", "python/bindings") for path in sources(root / part) if folder not in path.parents
    ]
    names = r"\bcu(?:da|blas|solver)(?:[A-Z]\w+|_\w*\.h\b)|\bcu(?:blas|solver)_|\bCU(?:DA|BLAS|SOLVER)_\w+"
    return words(root, iter(files), names + r"|\b__(?:global|device|host)__\b")


def cuda_host_code_needs_no_nvcc(root: Path) -> list[str]:
    """kernels.cu alone is for nvcc; the rest of linalg/cuda includes three headers of NVIDIA's and no other backend."""
    folder = root / "csrc/src/linalg/cuda"
    found = [str(path.relative_to(root)) for path in sources(root / "csrc") if path.suffix in {".cu", ".cuh"}]
    found.remove("csrc/src/linalg/cuda/kernels.cu")
    for path in sources(folder):
        for kind, name in INCLUDE.findall(code(path)):
            standard = kind == "<" and re.fullmatch(r"[a-z_]+", name)
            own = name.startswith(("brockett/", "linalg/cuda/")) or re.fullmatch(r"linalg/\w+\.hpp|philox\.hpp", name)
            shim = path.name == "kernels.cu" and name == "shim_launch.hpp"
            if not (standard or own or shim or name in CUDA_HEADERS):
                found.append(f"{path.relative_to(root)}: #include {name}")
    host = [path for path in sources(folder) if path.name != "kernels.cu"]
    return found + words(root, iter(host), r"\b__(?:global|device|host|shared|CUDACC)__\b|<<<")


def lapack_knows_no_cuda(root: Path) -> list[str]:
    """The backends do not know each other."""
    return [
        f"{path.relative_to(root)}: #include {name}"
        for path in sources(root / "csrc/src/linalg/lapack")
        for _, name in INCLUDE.findall(code(path))
        if "cuda" in name
    ]


def shim_declares_what_is_used(root: Path) -> list[str]:
    """Own declarations of CUDA's functions are for what the backend, or the shim's own test, calls."""
    shim = root / "tests/cpp/cuda_shim"
    users = [*sources(root / "csrc/src/linalg/cuda"), root / "tests/cpp/test_cuda_shim.cpp"]
    text = "".join(code(path) for path in users)
    text += text.replace("##X##", "S") + text.replace("##X##", "D")  # macros over the two precisions
    called = set(re.findall(r"\w+", text))
    return [
        f"{path.relative_to(root)}: {name}"
        for path in sorted((shim / "include/declared").glob("*_functions.inc"))
        for name in re.findall(r"\b(cu(?:da|blas|solver)\w+)\(", code(path))
        if re.sub(r"_v2(?=_64$|$)", "", name) not in called
    ]


def core_has_no_device_switch(root: Path) -> list[str]:
    """A backend that is not built is a library that is not there, never an #ifdef."""
    files = [path for path in sources(root / "csrc") if "cuda" not in path.parts]
    return words(root, iter(files), r"#\s*(?:el)?if[^\n]*CUDA[^\n]*")


def bindings_use_public_headers(root: Path) -> list[str]:
    """Of brockett, python/bindings includes installed headers and itself."""
    folder = root / "python/bindings"
    own = {path.name for path in sources(folder)}
    return [
        f"{path.relative_to(root)}: #include {name}"
        for path in sources(folder)
        for kind, name in INCLUDE.findall(code(path))
        if kind == '"' and not name.startswith("brockett/") and name not in own
    ]


def public_headers_stand_alone(root: Path) -> list[str]:
    """Each installed header compiles alone with a plain C++20 compiler, and includes nothing that is not installed."""
    include = root / "csrc/include"
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    assert compiler, "a C++ compiler is needed"
    found = []
    for header in sorted((include / "brockett").glob("*.hpp")):
        warnings = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"]
        done = subprocess.run(
            [*compiler.split(), "-std=c++20", "-fsyntax-only", *warnings, f"-I{include}", "-x", "c++", "-"],
            input=f"#include <brockett/{header.name}>\n",
            text=True,
            capture_output=True,
            check=False,
        )
        if done.returncode != 0:
            found.append(f"{header.relative_to(root)}: {done.stderr}")
    return found


Rule = Callable[[Path], list[str]]

# rule, the file a violation is put into, the violation
SEEDS: list[tuple[Rule, str, str]] = [
    (core_knows_no_python, "csrc/src/svd.cpp", "#include <pybind11/pybind11.h>\n"),
    (core_knows_no_python, "csrc/src/linalg/linalg.hpp", "#include <Python.h>\n"),
    (core_knows_no_python, "csrc/include/brockett/svd.hpp", "struct PyObject;\n"),
    (topics_know_no_backend, "csrc/src/descramble.cpp", '#include "linalg/lapack/lapack.hpp"\n'),
    (topics_know_no_backend, "csrc/src/svd.cpp", "#include <cblas.h>\n"),
    (topics_know_no_backend, "csrc/src/svd.cpp", "#include <cuda_runtime.h>\n"),
    (topics_know_no_backend, "csrc/src/penalty.cpp", 'extern "C" void dgemm_(...);\n'),
    (topics_know_no_backend, "csrc/src/autocorrelation.cpp", "void f() { cudaMalloc(0, 0); }\n"),
    (linalg_knows_no_topic, "csrc/src/linalg/linalg.hpp", '#include "brockett/autocorrelation.hpp"\n'),
    (linalg_knows_no_topic, "csrc/src/linalg/buffer.hpp", "struct DescramblingBuffer;\n"),
    (core_has_no_device_switch, "csrc/src/context.cpp", "#ifdef BROCKETT_CUDA\n#endif\n"),
    (core_has_no_device_switch, "csrc/include/brockett/context.hpp", "#if defined(__CUDACC__)\n#endif\n"),
    (only_linalg_cuda_names_cuda, "csrc/src/cuda.cpp", "void f() { cudaFree(nullptr); }\n"),
    (only_linalg_cuda_names_cuda, "csrc/include/brockett/cuda.hpp", "#include <cuda_runtime_api.h>\n"),
    (only_linalg_cuda_names_cuda, "csrc/src/linalg/half.hpp", "__device__ int f();\n"),
    (only_linalg_cuda_names_cuda, "csrc/src/linalg/lapack/backend.cpp", "cublasHandle_t handle;\n"),
    (only_linalg_cuda_names_cuda, "python/bindings/core_module.cpp", "int type = CUDA_R_32F;\n"),
    (cuda_host_code_needs_no_nvcc, "csrc/src/linalg/cuda/device.cpp", "#include <cuda_bf16.h>\n"),
    (cuda_host_code_needs_no_nvcc, "csrc/src/linalg/cuda/products.cpp", "void g() { f<<<1, 1>>>(); }\n"),
    (cuda_host_code_needs_no_nvcc, "csrc/src/linalg/cuda/memory.cpp", '#include "linalg/lapack/memory.hpp"\n'),
    (cuda_host_code_needs_no_nvcc, "csrc/src/linalg/lapack/more.cu", "int f();\n"),
    (lapack_knows_no_cuda, "csrc/src/linalg/lapack/memory.cpp", '#include "linalg/cuda/kernels.hpp"\n'),
    (
        shim_declares_what_is_used,
        "tests/cpp/cuda_shim/include/declared/cudart_functions.inc",
        "cudaError_t cudaProfilerStart(void);\n",
    ),
    (bindings_use_public_headers, "python/bindings/core_module.cpp", '#include "linalg/linalg.hpp"\n'),
    (public_headers_stand_alone, "csrc/include/brockett/penalty.hpp", "inline brockett::Svd<float> f();\n"),
    (public_headers_stand_alone, "csrc/include/brockett/error.hpp", '#include "check.hpp"\n'),
]
RULES = list(dict.fromkeys(rule for rule, _, _ in SEEDS))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule_holds(rule: Rule) -> None:
    assert rule(ROOT) == []


@pytest.mark.parametrize(("rule", "path", "violation"), SEEDS, ids=lambda value: getattr(value, "__name__", None))
def test_rule_catches_a_violation(rule: Rule, path: str, violation: str, tmp_path: Path) -> None:
    for folder in ("csrc", "python/bindings", "tests/cpp"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    target = tmp_path / path
    target.write_text((target.read_text() if target.exists() else "") + "\n" + violation)
    found = rule(tmp_path)
    assert found, "the violation was not noticed"
    assert all(Path(path).name in line for line in found), found


def test_a_comment_is_no_violation(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "csrc", tmp_path / "csrc")
    target = tmp_path / "csrc/src/svd.cpp"
    target.write_text(target.read_text() + "\n// as numpy does; dgemm_ is called in linalg/lapack; #ifdef CUDA\n")
    assert core_knows_no_python(tmp_path) == []
    assert topics_know_no_backend(tmp_path) == []


@pytest.mark.parametrize("folder", ["csrc", "python/bindings"])
def test_every_source_is_built(folder: str) -> None:
    """The lists in the CMakeLists.txt are complete: a .cpp that nobody builds is a defect that no compiler reports."""
    commands = re.sub(r"#[^\n]*", "", (ROOT / folder / "CMakeLists.txt").read_text())
    listed = set(re.findall(r"(?<![\w/])([\w/]+\.(?:cpp|cu))\b", commands))
    assert listed == {
        path.relative_to(ROOT / folder).as_posix()
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".cpp", ".cu"}
    }


def test_version_stands_in_one_place() -> None:
    """CMakeLists.txt has the version; no other source or setting repeats it."""
    version = re.search(r"^project\(brockett VERSION (\S+)", (ROOT / "CMakeLists.txt").read_text(), re.MULTILINE)
    assert version
    repeated = [
        str(path.relative_to(ROOT))
        for folder in ("csrc", "python", "tests/cpp", "tests/embed", "examples")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".pyi", ".hpp", ".cpp", ".txt", ".cmake", ".in", ".toml"}
        and re.search(rf"(?<![\d.]){re.escape(version[1])}(?![\d.])", path.read_text())
    ]
    repeated += [
        name for name in ("pyproject.toml", "CITATION.cff", "README.md") if version[1] in (ROOT / name).read_text()
    ]
    assert repeated == []
