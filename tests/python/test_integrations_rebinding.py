"""Names of other packages while `brockett.integrations` has bound them to something else, and after."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import brockett as bk
from brockett.integrations import _rebind


def tool() -> Any:
    return types.SimpleNamespace(f=lambda: "tool")


def wrapping(word: str) -> Any:
    return lambda old: lambda: f"{word}({old()})"


@pytest.mark.parametrize("first", ["one", "two"])
def test_blocks_that_end_in_any_order_give_the_original_back(first: str) -> None:
    """As those of two threads do: the name stays bound for whoever is inside, and to nothing of who has left."""
    owner = tool()
    original = owner.f
    blocks = {word: _rebind.rebound("tool", "1.0", [(owner, "f", wrapping(word))]) for word in ("one", "two")}
    for block in blocks.values():
        block.__enter__()
    assert owner.f() == "two(one(tool))"
    blocks.pop(first).__exit__(None, None, None)
    assert owner.f() == {"one": "two(one(tool))", "two": "one(tool)"}[first]
    for block in blocks.values():
        block.__exit__(None, None, None)
    assert owner.f is original


def test_methods_are_given_back_as_they_were_kept() -> None:
    class Base:
        def inherited(self) -> str:
            return "base"

    class Tool(Base):
        @staticmethod
        def static() -> str:
            return "static"

    before = dict(vars(Tool))
    names = [(Tool, "inherited", lambda old: lambda self: f"new {old(self)}"), (Tool, "static", wrapping("new"))]
    with _rebind.rebound("tool", "1.0", names):
        assert Tool().inherited() == "new base"
        assert Base().inherited() == "base"
    assert dict(vars(Tool)) == before


def test_all_names_or_none() -> None:
    owner = tool()
    original = owner.f
    with (
        pytest.raises(bk.Unsupported, match=r"tool of unknown version has no .*\.g; .*tested with tool 1\.0"),
        _rebind.rebound("tool", "1.0", [(owner, "f", wrapping("new")), (owner, "g", wrapping("new"))]),
    ):
        pass
    assert owner.f is original
    refuses = [(owner, "f", wrapping("new")), (int, "bit_length", wrapping("new"))]
    with pytest.raises(TypeError, match="immutable"), _rebind.rebound("tool", "1.0", refuses):
        pass
    assert owner.f is original


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "some_tool").mkdir()
    (tmp_path / "some_tool/__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path / "some_tool"
    for name in [name for name in sys.modules if name.partition(".")[0] == "some_tool"]:
        del sys.modules[name]


@pytest.mark.parametrize("kind", [bk.Unsupported, ImportError])
def test_a_tool_that_is_not_there_is_named(kind: type[Exception]) -> None:
    with pytest.raises(kind, match=r"no-such-tool is not installed \(brockett is tested with 1\.0; pip install it\)"):
        _rebind.import_tool("no-such-tool", "1.0", "no_such.part", "pip install it")
    missing = _rebind.Rebinding("no-such-tool", "1.0", "pip install it", lambda: [_rebind.Name("no_such", "f", (), id)])
    with pytest.raises(kind, match="no-such-tool is not installed"):
        missing.install()
    assert not missing.active


def test_a_tool_without_what_it_imports_itself(package: Path) -> None:
    (package / "part.py").write_text("import some\n")  # a package of its own, however its name begins
    with pytest.raises(ImportError, match=r"some-tool does not import here: No module named 'some'") as caught:
        _rebind.import_tool("some-tool", "1.0", "some_tool.part")
    assert isinstance(caught.value, bk.Unsupported)


def test_a_module_that_has_moved(package: Path) -> None:
    with pytest.raises(bk.Unsupported, match=r"some-tool of unknown version has no some_tool\.part; .*some-tool 1\.0"):
        _rebind.import_tool("some-tool", "1.0", "some_tool.part")
