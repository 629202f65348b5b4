"""The façade on CUDA devices, proven without one: on the plugin's own host code over the CPU shim of CUDA.

The cases of device_cases.py and shim_cases.py run in a process of their own for each mode of the shim: what a process
finds out about CUDA it keeps. In the mode "guard" device memory cannot be touched from the host at all, and work runs
as late as CUDA allows.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cmake_project import ENVIRONMENT, ROOT, core_build

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def plugin(pytestconfig: pytest.Config) -> Path:
    """The plugin over the shim."""
    (path,) = core_build(pytestconfig).rglob("libbrockett_cuda_shim_plugin.so")
    return path


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    environment = {**ENVIRONMENT, **environment}
    environment.pop("BROCKETT_ENGINE", None)
    return subprocess.run(
        [sys.executable, *arguments], env=environment, cwd=ROOT, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, timeout=900, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("mode", ["eager", "guard"])
def test_facade(plugin: Path, mode: str) -> None:
    done = python(
        "-m", "pytest", "-q", "-p", "no:cacheprovider",
        *(str(HERE / name) for name in ("device_cases.py", "device_topics.py", "shim_cases.py")),
        BROCKETT_CUDA_PLUGIN=str(plugin), BROCKETT_SHIM_MODE=mode,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-20_000:]
    assert " passed" in done.stdout
    assert " skipped" not in done.stdout


REASON = "import brockett as bk; print(bk.engines()['cuda'].reason)"


# Whoever asks for CUDA is told the reason; who does not, gets his answer.
REFUSED = """
import sys, numpy as np, brockett as bk
print(bk.engines()["cuda"].reason)
for call in (lambda: bk.set_engine("cuda"), lambda: bk.Autocorrelation(2, device="cuda:0")):
    try:
        call()
    except bk.EngineUnavailable as error:
        assert bk.engines()["cuda"].reason in str(error)
    else:
        sys.exit("was not refused")
assert bk.descramble(np.eye(3)).used["engine"] == "cpu"
"""


def reason(**environment: str) -> str:
    done = python("-c", REASON, **environment)
    assert done.returncode == 0, done.stdout
    return done.stdout.strip()


def test_a_plugin_that_is_not_there(tmp_path: Path) -> None:
    assert "names no readable file" in reason(BROCKETT_CUDA_PLUGIN=str(tmp_path / "none.so"))


def test_a_file_that_is_no_library(tmp_path: Path) -> None:
    path = tmp_path / "libbrockett_cuda.so"
    path.write_text("not a library")
    assert "does not load" in reason(BROCKETT_CUDA_PLUGIN=str(path))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("", "both must come from one build"),
        ("out.abi = linalg::cuda::kAbi;", "is of brockett 0.0.0"),
        ("NONE", "is no CUDA plugin of brockett"),
    ],
)
def test_plugins_of_another_build_are_refused(tmp_path: Path, change: str, words: str) -> None:
    """Another interface, another version, and a library that is none."""
    source = tmp_path / "other.cpp"
    entry = "" if change == "NONE" else (
        "extern \"C\" __attribute__((visibility(\"default\"))) const linalg::cuda::Plugin* brockett_cuda_plugin() {\n"
        "  static linalg::cuda::Plugin out{};\n"
        "  out.abi = linalg::cuda::kAbi + 1;\n"
        "  out.version = \"0.0.0\";\n"
        f"  {change}\n"
        "  return &out;\n"
        "}\n"
    )  # fmt: skip
    source.write_text('#include "linalg/cuda/plugin.hpp"\nusing namespace brockett;\n' + entry)
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    assert compiler
    built = subprocess.run(
        [*compiler.split(), "-std=c++20", "-shared", "-fPIC", f"-I{ROOT / 'csrc/include'}", f"-I{ROOT / 'csrc/src'}",
         str(source), "-o", str(tmp_path / "other.so")],
        text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    done = python("-c", REFUSED, BROCKETT_CUDA_PLUGIN=str(tmp_path / "other.so"))
    assert done.returncode == 0, done.stdout
    assert words in done.stdout


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("set_driver(12040)", "older"),
        ("set_driver(0)", "driver"),
        ("set_devices(0)", "finds no device"),
    ],
)
def test_what_is_wrong_with_the_machine_is_said(plugin: Path, setting: str, words: str) -> None:
    code = f"import ctypes, os\nctypes.CDLL(os.environ['BROCKETT_CUDA_PLUGIN']).brockett_shim_{setting}\n"
    done = python("-c", code + REFUSED, BROCKETT_CUDA_PLUGIN=str(plugin))
    assert done.returncode == 0, done.stdout
    assert words in done.stdout


def test_device_memory_without_an_engine_is_refused_with_the_reason(tmp_path: Path) -> None:
    code = (
        "import brockett as bk\n"
        "class OnDevice:\n"
        "    __cuda_array_interface__ = {'shape': (2, 2), 'typestr': '<f8', 'data': (4096, False), 'version': 3}\n"
        "class Exporting:\n"
        "    def __dlpack_device__(self): return (2, 0)\n"
        "    def __dlpack__(self, **_): raise AssertionError('must not be asked')\n"
        "for array in (OnDevice(), Exporting()):\n"
        "    try:\n"
        "        bk.svd(array)\n"
        "    except bk.BrockettError as error:\n"
        "        print(error)\n"
    )
    done = python("-c", code, BROCKETT_CUDA_PLUGIN=str(tmp_path / "none.so"))
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("A: is on a CUDA device, which no engine serves here") == 2
    assert done.stdout.count("names no readable file") == 2


def test_nothing_is_loaded_before_it_is_needed(plugin: Path) -> None:
    code = (
        "import numpy as np, brockett as bk\n"
        "bk.svd(np.eye(3)); bk.Autocorrelation(2).update(np.eye(2))\n"
        "maps = open('/proc/self/maps').read()\n"
        "assert 'cuda_shim_plugin' not in maps, 'the plugin was opened'\n"
        "assert bk.engines()['cuda'].available\n"
        "assert 'cuda_shim_plugin' in open('/proc/self/maps').read()\n"
    )
    done = python("-c", code, BROCKETT_CUDA_PLUGIN=str(plugin))
    assert done.returncode == 0, done.stdout
