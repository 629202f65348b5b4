"""python/brockett/_core.pyi is what pybind11-stubgen writes for the module that is installed."""

from __future__ import annotations

import sys
from pathlib import Path

from cmake_project import ROOT, run


def test_stubs_are_fresh(tmp_path: Path) -> None:
    run(
        sys.executable, "-m", "pybind11_stubgen", "brockett._core", "--output-dir", tmp_path,
        "--numpy-array-use-type-var", "--exit-code",
    )  # fmt: skip
    fresh = (tmp_path / "brockett/_core.pyi").read_text()
    committed = ROOT / "python/brockett/_core.pyi"
    assert committed.read_text() == fresh, (
        f"{committed.name} is out of date; write it again with\n"
        "pybind11-stubgen brockett._core --output-dir python --numpy-array-use-type-var"
    )
