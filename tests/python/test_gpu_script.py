"""What benches/gpu.sh does where there is no GPU: what it says, and how it puts the files of the benches together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cmake_project import ENVIRONMENT, ROOT

SCRIPT = ROOT / "benches" / "gpu.sh"


def gpu_sh(folder: Path, *steps: str, **environment: str) -> subprocess.CompletedProcess[str]:
    folders = {"WORK": str(folder / "work"), "RESULTS": str(folder / "results"), "OUT": ""}
    environment = {**ENVIRONMENT, **folders, **environment}
    return subprocess.run(
        ["bash", str(SCRIPT), *steps], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        timeout=120, check=False,
    )  # fmt: skip


def environment_of(folder: Path) -> Path:
    """Where the step build would have put a Python."""
    python = folder / "work" / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return folder / "work"


def bench(group: str, peer: str, median: float) -> dict[str, Any]:
    stats = {"median": median, "data": [median]}
    return {"group": group, "params": {"peer": peer}, "stats": stats, "extra_info": {"of GEMM": "5%", "error": 1e-9}}


def of(*benches: dict[str, Any], commit: str = "a1", date: str = "2026-01-02T03:04:05") -> str:
    info = {"gpu": "NVIDIA X100 80GB, NVIDIA X100 80GB", "brockett": "cuda: x", "peers": {"torch": "2"}, "threads": 1}
    return json.dumps({"datetime": date, "commit_info": {"id": commit}, "machine_info": info, "benchmarks": benches})


def test_words_that_are_no_step(tmp_path: Path) -> None:
    done = gpu_sh(tmp_path, "biuld")
    assert done.returncode == 1
    assert "gpu.sh: unknown step biuld; there are: build probe" in done.stdout


@pytest.mark.parametrize("step", ["probe", "cpp", "python", "memcheck", "racecheck", "bench", "bench-large", "results"])
def test_steps_before_the_build(tmp_path: Path, step: str) -> None:
    done = gpu_sh(tmp_path, step)
    assert done.returncode == 1
    assert done.stdout.split("\n")[2] == "gpu.sh: run the step build first"


@pytest.mark.parametrize("step", ["probe", "cpp", "python", "memcheck", "racecheck", "bench", "bench-svd"])
def test_steps_without_a_gpu(tmp_path: Path, step: str) -> None:
    environment_of(tmp_path)
    done = gpu_sh(tmp_path, step, BROCKETT_CUDA_PLUGIN=str(tmp_path / "none.so"))
    assert done.returncode == 1
    assert done.stdout.split("\n")[2].startswith("gpu.sh: no GPU to work on: ")
    assert "names no readable file" in done.stdout


def test_results_are_one_file(tmp_path: Path) -> None:
    work = environment_of(tmp_path)
    out = tmp_path / "out"
    done = gpu_sh(tmp_path, "results", OUT=str(out))
    assert done.returncode == 1
    assert "nothing was timed yet" in done.stdout
    (work / "bench-batch-large.json").write_text(of(bench("values", "slow", 9.0)))
    (work / "bench-truncated.json").write_text(of(bench("truncated", "brockett", 2.0)))
    (work / "bench-batch.json").write_text(of(bench("values", "brockett", 0.5), bench("values", "quick", 1.5)))
    (work / "bench-llama.json").write_text(of(bench("llama", "brockett", 1.0))[:-9])  # of a process that was killed
    old = of(bench("accumulation", "brockett", 1.0), commit="b2", date="2026-01-01T03:04:05")
    (work / "bench-accumulate.json").write_text(old)
    done = gpu_sh(tmp_path, "results", OUT=str(out))
    assert done.returncode == 0, done.stdout
    assert "gpu.sh: bench-llama.json is not whole and is left out" in done.stdout
    assert "gpu.sh: bench-accumulate.json is of another GPU or commit and is left out" in done.stdout
    (path,) = (tmp_path / "results").iterdir()
    assert path.name == "2026-01-02-nvidia-x100-80gb.json"
    found = json.loads(path.read_text())["benchmarks"]
    assert [one["params"]["peer"] for one in found] == ["brockett", "quick", "brockett", "slow"]
    assert all("data" not in one["stats"] for one in found)
    assert json.loads((out / "results.json").read_text())["benchmarks"] == found
    rows = [line for line in done.stdout.split("\n") if line.startswith("| ")][2:]
    assert rows == [
        "| values | brockett | 500 ms | 1 | 5% | error 1e-09 |",
        "|  | quick | 1.5 s | 3 | 5% | error 1e-09 |",
        "|  | slow | 9 s | 18 | 5% | error 1e-09 |",
        "| truncated | brockett | 2 s | 1 | 5% | error 1e-09 |",
    ]
    assert (out / "gpu.log").read_text().count("=== results") == 4
    assert os.access(SCRIPT, os.X_OK)
