"""Adapters that put brockett under other tools, one module a tool; each is imported when it is first named.

>>> import brockett as bk
>>> "weightwatcher" in dir(bk.integrations)
True
"""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = ("weightwatcher", "deep_data_profiler", "svr", "sklearn", "gptq", "svd_llm", "slicegpt", "asvd", "peft")  # noqa: RUF022


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
