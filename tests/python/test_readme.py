"""The README's Python example runs and prints what the README says; its files and commands exist."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from absent_packages import DEEP_DATA_PROFILER, standing_in

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_example_prints_what_is_written() -> None:
    example = blocks("python")[0]
    code = [line for line in example.splitlines() if line.strip() and not line.startswith("import")]
    assert len(code) <= 10
    names: dict[str, Any] = {}
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(example, "README.md", "exec"), names)
    assert said.getvalue() == blocks("text")[0]

    # and what it prints is right: the same numbers by NumPy alone
    rng = np.random.default_rng(0)
    W = rng.standard_normal((64, 32))
    X = np.concatenate([np.cumsum(rng.standard_normal((1000, 32)), axis=1) for _ in range(10)])
    Y = X @ W.T
    k = np.fft.fftfreq(64, 1 / 64)
    lam = np.sort(k**4)
    sigma2 = np.linalg.eigvalsh(Y.T @ Y / len(Y))[::-1]
    layer = names["layer"]
    assert layer.optimum == pytest.approx(lam @ sigma2, rel=1e-9)
    assert layer.cost == pytest.approx(lam @ sigma2, rel=1e-9)
    identity = np.mean(np.sum(np.abs(np.fft.fft(Y, axis=1, norm="ortho")) ** 2 * k**4, axis=1))
    assert layer.identity_cost == pytest.approx(identity, rel=1e-9)


def test_accelerate_takes_what_the_recipe_says() -> None:
    (recipe,) = [block for block in blocks("python") if "accelerate" in block]
    names: dict[str, Any] = {}
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(recipe, "README.md", "exec"), names)
    assert names["report"].functions()["numpy.linalg.svd"]["taken"] == 1, said.getvalue()
    assert said.getvalue().splitlines()[1].startswith("numpy.linalg.svd")
    np.testing.assert_allclose(names["s"], np.linalg.svd(names["W"], compute_uv=False), rtol=1e-6)


def test_model_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (recipe,) = [block for block in blocks("python") if "bk.models.load(" in block]
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(recipe, "README.md", "exec"), names)
    state = names["state"]
    sigma = {key: np.linalg.svd(state[key].reshape(len(state[key]), -1))[1][0] for key in ("conv.weight", "fc.weight")}
    assert said.getvalue().splitlines() == [
        f"conv.weight conv2d (16, 3, 3, 3) {sigma['conv.weight']:.3f}",
        f"fc.weight linear (10, 64) {sigma['fc.weight']:.3f}",
    ]
    command = next(block for block in blocks("sh") if "spectra net.npz" in block).split()
    assert command[0] == "brockett"
    pytest.importorskip("typer", reason="the command needs the extra 'cli'")
    from brockett.cli import main

    assert main(command[1:]) == 0


@pytest.mark.parametrize("recipe", blocks("py"))
def test_recipes_run(recipe: str) -> None:
    """What needs other people's packages runs where they are installed."""
    with contextlib.ExitStack() as stack:
        if "deep_data_profiler" in recipe:
            stack.enter_context(standing_in(DEEP_DATA_PROFILER, "deep_data_profiler"))
        for package in re.findall(r"^(?:import|from) (\w+)", recipe, re.MULTILINE):
            pytest.importorskip(package, reason=f"a recipe of the README needs {package}")
        said = stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        exec(compile(recipe, "README.md", "exec"), {})
    assert "nan" not in said.getvalue()


def test_first_two_shell_blocks_are_the_two_commands() -> None:
    demo, tests = blocks("sh")[:2]
    assert "python3 -m venv" in demo
    assert "pip install '.[cli]'" in demo
    assert demo.endswith("brockett demo\n")
    assert "python3 -m venv" in tests
    assert "libgtest-dev" in tests
    assert tests.endswith("OPENBLAS_NUM_THREADS=1 python -m pytest\n")


def test_where_things_live() -> None:
    """Every folder and file of the map exists."""
    (tree,) = [block for block in blocks("text") if block.startswith("CMakeLists.txt")]
    stack: list[str] = []
    for line in tree.splitlines():
        indent = (len(line) - len(line.lstrip())) // 2
        stack[indent:] = [""]
        for name in re.match(r"\s*((?:\S+ )*\S+)", line)[1].split():  # type: ignore[index]
            path = "/".join([*stack[:indent], name.strip("/")])
            assert (ROOT / path).exists(), path
            stack[indent] = name.strip("/")


def test_links_within_the_tree() -> None:
    """Paths in backquotes that look like files of this tree are files of this tree."""
    named = re.findall(r"`((?:csrc|python|tests|examples|benches)/[\w./-]+)`", README)
    assert named
    for path in named:
        assert (ROOT / path).exists(), path


def test_every_public_name_is_there() -> None:
    section = README.partition("\n## Names\n")[2].partition("\n## ")[0]
    for module in ("", ".convolution", ".penalty", ".random_matrix", ".hypergraph", ".models", ".plotting"):
        names = importlib.import_module(f"brockett{module}").__all__
        missing = [name for name in names if not re.search(rf"`(?:bk\.)?(?:\w+\.)*{name}\b", section)]
        assert missing == [], module
