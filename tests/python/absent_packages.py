"""Packages that a peer imports for what is not tested here, by name only: enough for its `import` lines."""

from __future__ import annotations

import contextlib
import importlib
import sys
import types
from collections.abc import Iterator
from typing import Any

#: What deep-data-profiler 2.0.1 imports for pictures and persistence diagrams, and downloads models with.
DEEP_DATA_PROFILER = (
    "torchvision",
    "torchvision.models",
    "torchvision.transforms",
    "torchvision.transforms.functional",
    "lucent",
    "lucent.misc",
    "lucent.misc.io",
    "lucent.optvis",
    "lucent.optvis.render",
    "lucent.optvis.transform",
    "ripser",
)


class Absent(type):
    """A class that nothing is an instance of, with any attribute: another such class."""

    def __getattr__(cls, name: str) -> Any:
        return attribute(name)


def attribute(name: str) -> Any:
    """Of a module that is not there."""
    if name.startswith("__"):
        raise AttributeError(name)
    return Absent(name, (), {})


def stand_in(names: tuple[str, ...]) -> list[str]:
    """Put empty modules where these are not installed; returns the names that were put."""
    put = []
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError:
            module = types.ModuleType(name)
            module.__path__ = []
            module.__getattr__ = attribute  # type: ignore[method-assign]
            sys.modules[name] = module
            put.append(name)
            parent, _, child = name.rpartition(".")
            if parent:
                setattr(sys.modules[parent], child, module)
    return put


@contextlib.contextmanager
def standing_in(names: tuple[str, ...], package: str) -> Iterator[None]:
    """`stand_in` within the block; the stand-ins, and the package that has seen them, are forgotten afterwards.

    Others ask whether torchvision is there, too, and would take the stand-in for it.
    """
    before = set(sys.modules)
    put = stand_in(names)
    try:
        yield
    finally:
        for name in set(sys.modules) - before:
            if name in put or name.partition(".")[0] == package:
                del sys.modules[name]
