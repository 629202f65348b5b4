"""brockett inside other tools: one module for each, loaded when it is asked for, and its tool with it."""

from __future__ import annotations

import importlib
from types import ModuleType

_NAMES = ("weightwatcher", "deep_data_profiler", "svr", "sklearn", "gptq", "svd_llm", "slicegpt", "asvd", "peft")


def __getattr__(name: str) -> ModuleType:
    if name in _NAMES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
