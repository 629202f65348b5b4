"""Docstrings: each public name has one, its example runs, and it says what it must."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest

import brockett as bk
from brockett import convolution, hypergraph, models, penalty, random_matrix

MODULES = [
    "brockett",
    "brockett._accelerate",
    "brockett._analyze",
    "brockett._autocorrelation",
    "brockett._collect",
    "brockett._collection",
    "brockett._descramble",
    "brockett._engine",
    "brockett._errors",
    "brockett._patch_autocorrelation",
    "brockett._svd",
    "brockett.convolution",
    "brockett._layer_metrics",
    "brockett._marchenko_pastur",
    "brockett._power_law",
    "brockett._graph_edges",
    "brockett._graph_measures",
    "brockett._graph_null",
    "brockett._influential",
    "brockett._profiles",
    "brockett._spectral_graph",
    "brockett._universal_metric",
    "brockett.hypergraph",
    "brockett.models",
    "brockett.models._load",
    "brockett.integrations._incremental_pca",
    "brockett.integrations.asvd",
    "brockett.integrations.galore",
    "brockett.integrations.gptq",
    "brockett.integrations.mergekit",
    "brockett.integrations.peft",
    "brockett.integrations.slicegpt",
    "brockett.integrations.svd_llm",
    "brockett.integrations.sklearn",
    "brockett.integrations",
    "brockett.integrations.deep_data_profiler",
    "brockett.integrations.svr",
    "brockett.integrations.weightwatcher",
    "brockett.penalty",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    if name == "brockett._collect" or ".integrations." in name:
        pytest.importorskip("torch")
    if name == "brockett.integrations.sklearn":
        pytest.importorskip("sklearn")
    failed, run = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert failed == 0
    assert run > 0


def functions() -> Iterator[tuple[str, Any]]:
    """Public functions, and public methods of public classes."""
    spaces = [
        ("", bk, bk.__all__),
        ("convolution.", convolution, convolution.__all__),
        ("hypergraph.", hypergraph, hypergraph.__all__),
        ("models.", models, models.__all__),
        ("penalty.", penalty, penalty.__all__),
        ("random_matrix.", random_matrix, random_matrix.__all__),
    ]
    for tool in ("asvd", "galore", "gptq", "mergekit", "peft", "slicegpt", "svd_llm"):
        adapter = getattr(bk.integrations, tool)
        spaces.append((f"integrations.{tool}.", adapter, adapter.__all__))
    if importlib.util.find_spec("sklearn"):
        estimators = importlib.import_module("brockett.integrations.sklearn")
        spaces.append(("integrations.sklearn.", estimators, estimators.__all__))
    for tool in ("deep_data_profiler", "svr", "weightwatcher"):
        adapter = importlib.import_module(f"brockett.integrations.{tool}")
        spaces.append((f"integrations.{tool}.", adapter, adapter.__all__))
    for prefix, space, names in spaces:
        for name in names:
            value = inspect.getattr_static(space, name) if name != "__version__" else None
            if inspect.isfunction(value):
                yield prefix + name, value
            if inspect.isclass(value):
                for method, member in inspect.getmembers(value):
                    if (
                        not method.startswith("_")
                        and inspect.isfunction(getattr(member, "__func__", member))  # none of dict's own
                        and member.__qualname__.startswith((name, "Graph"))
                        and not member.__module__.startswith("sklearn")
                    ):
                        yield f"{prefix}{name}.{method}", member


@pytest.mark.parametrize(("name", "function"), [pytest.param(n, f, id=n) for n, f in functions()])
def test_parameters_are_documented(name: str, function: Any) -> None:
    text = inspect.getdoc(function) or ""
    assert text, name
    signature = inspect.signature(function)
    wanted = [p for p in signature.parameters if p not in ("self", "cls")]
    section = re.search(r"Parameters\n-+\n(.*?)(?:\n\n[A-Z][a-z]+\n-+\n|\Z)", text, re.DOTALL)
    if wanted:
        assert section, f"{name} documents no parameters"
        documented = {
            word.strip()
            for line in re.findall(r"^(\w[\w, ]*)(?: :.*)?$", section[1], re.MULTILINE)
            for word in line.split(",")
        }
        assert set(wanted) <= documented, f"{name}: {sorted(set(wanted) - documented)} undocumented"
    if signature.return_annotation not in (None, "None"):
        assert "Returns\n---" in text or "Yields\n---" in text, f"{name} documents no return value"


MATHEMATICAL = (
    "analyze",
    "autocorrelation",
    "collect",
    "svd",
    "singular_values",
    "whitened_svd",
    "randomized_svd",
    "descramble",
)


@pytest.mark.parametrize("name", [*MATHEMATICAL, "diagonalize", "brockett_cost", "spectral_graph"])
def test_mathematical_functions_say_cost_errors_source_and_example(name: str) -> None:
    text = inspect.getdoc(getattr(bk, name)) or ""
    for section in ("Returns", "Raises", "Notes", "Examples"):
        assert f"{section}\n{'-' * len(section)}" in text, f"{name} lacks {section}"
    assert "flops" in text


def test_all_is_what_there_is() -> None:
    for name in bk.__all__:
        assert getattr(bk, name) is not None
    assert sorted(bk.__all__) == sorted(set(bk.__all__))
    kinds = [value for value in vars(bk).values() if isinstance(value, type) and issubclass(value, Exception)]
    family = [kind for kind in kinds if not issubclass(kind, Warning)]
    assert len(family) == 9
    assert all(issubclass(kind, bk.BrockettError) for kind in family)
