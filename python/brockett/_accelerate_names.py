"""The names that `accelerate` binds anew while it is used anywhere in the process, and their return."""

from __future__ import annotations

import importlib
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from . import _accelerate_numpy, _accelerate_torch, _accelerate_truncated
from ._accelerate_scope import Taker, stand_in
from ._errors import Unsupported

__all__ = ["LIBRARIES", "acquire", "loaded", "release"]


@dataclass(frozen=True)
class _Function:
    """A function by the modules and names it may be found under (the first that exists), and its name for reports."""

    name: str
    places: tuple[tuple[str, str], ...]
    take: Taker
    bypass: Callable[[], bool] | None = None


@dataclass(frozen=True)
class _Library:
    """What is bound of a library; `tested` is the version that this was tested with."""

    package: str
    tested: str
    functions: tuple[_Function, ...]


def _torch(name: str, take: Taker, module: str = "torch.linalg", attribute: str | None = None) -> _Function:
    place = (module, attribute or name.rpartition(".")[2])
    return _Function(name, (place,), take, _accelerate_torch.bypass)


def _plain(name: str, take: Taker) -> _Function:
    module, _, attribute = name.rpartition(".")
    return _Function(name, ((module, attribute),), take)


LIBRARIES = {
    "torch": _Library(
        "torch",
        "2.13.0",
        (
            _torch("torch.linalg.svd", _accelerate_torch.svd),
            _torch("torch.linalg.svdvals", _accelerate_torch.svdvals),
            _torch("torch.linalg.eigh", _accelerate_torch.eigh),
            _torch("torch.linalg.eigvalsh", _accelerate_torch.eigvalsh),
            _torch("torch.svd", _accelerate_torch.old_svd, "torch"),
            # what svd_lowrank and pca_lowrank call once they have looked at their arguments
            _torch("torch.svd_lowrank", _accelerate_torch.svd_lowrank, "torch._lowrank", "_svd_lowrank"),
        ),
    ),
    "numpy": _Library(
        "numpy",
        "2.4.6",
        (
            _plain("numpy.linalg.svd", _accelerate_numpy.svd),
            _plain("numpy.linalg.eigh", _accelerate_numpy.eigh),
            _plain("numpy.linalg.eigvalsh", _accelerate_numpy.eigvalsh),
        ),
    ),
    "scipy": _Library(
        "scipy",
        "1.17.1",
        (
            _plain("scipy.linalg.svd", _accelerate_numpy.scipy_svd),
            _plain("scipy.linalg.eigh", _accelerate_numpy.scipy_eigh),
            _plain("scipy.sparse.linalg.svds", _accelerate_truncated.svds),
        ),
    ),
    "sklearn": _Library(
        "sklearn",
        "1.9.1",
        (
            _Function(
                "sklearn randomized_svd",
                # the first is what the estimators, and randomized_svd itself, call since 1.5
                (("sklearn.utils.extmath", "_randomized_svd"), ("sklearn.utils.extmath", "randomized_svd")),
                _accelerate_truncated.randomized_svd,
            ),
        ),
    ),
}

#: Modules of a library itself in which its functions are bound anew; elsewhere in these packages the originals stay:
#: torch's own tables (of torch.compile, of its decompositions) know functions by identity.
_INSIDE = {"torch": {"torch", "torch.linalg", "torch._lowrank"}}


@dataclass
class _Binding:
    module: ModuleType
    name: str
    original: Any
    replacement: Any


class _Bound:
    """The bindings of one library, and how many scopes use them."""

    def __init__(self, pairs: list[tuple[Any, Any]]) -> None:
        self.users = 0
        self.pairs = pairs
        self.seen: set[int] = set()
        self.bindings: list[_Binding] = []


_lock = threading.RLock()
_bound: dict[str, _Bound] = {}


def loaded() -> frozenset[str]:
    """The libraries that this process has imported."""
    return frozenset(name for name, library in LIBRARIES.items() if library.package in sys.modules)


def acquire(libraries: Iterable[str], *, strict: bool) -> frozenset[str]:
    """Bind the functions of `libraries`; returns those that are installed.

    Raises
    ------
    Unsupported
        With `strict`, where a library lacks a name; without, that is a warning, and the function is left alone.
    """
    with _lock:
        found = {name: _find(LIBRARIES[name], strict) for name in sorted(libraries) if name not in _bound}
        fresh = {name: _Bound(pairs) for name, pairs in found.items() if pairs is not None}
        if fresh:
            _bind(list(fresh.values()))
            _bound.update(fresh)
        taken = frozenset(name for name in libraries if name in _bound)
        for name in taken:
            _bound[name].users += 1
    return taken


def release(libraries: Iterable[str]) -> None:
    """One user less of each; the last one's departure brings the originals back."""
    with _lock:
        for name in libraries:
            _bound[name].users -= 1
        idle = [_bound.pop(name) for name in libraries if _bound[name].users == 0]
        if idle:
            _restore(idle)


def _find(library: _Library, strict: bool) -> list[tuple[Any, Any]] | None:
    """(original, stand-in) of each function; None where the library is not installed."""
    try:
        package = importlib.import_module(library.package)
    except ImportError:
        return None
    pairs = []
    for function in library.functions:
        original = _look_up(function)
        if original is not None:
            pairs.append((original, stand_in(function.name, library.package, original, function.take, function.bypass)))
            continue
        module, attribute = function.places[0]
        message = (
            f"{library.package} {getattr(package, '__version__', '(version unknown)')} has no {module}.{attribute}, "
            f"which {library.package} {library.tested} has, the version that brockett.accelerate was tested with"
        )
        if strict:
            raise Unsupported(f"{message}; leave {library.package} out of only=")
        warnings.warn(f"{message}: {function.name} is left as it is", RuntimeWarning, stacklevel=4)
    return pairs


def _look_up(function: _Function) -> Any:
    for module, attribute in function.places:
        try:
            found = getattr(importlib.import_module(module), attribute, None)
        except ImportError:
            continue
        if callable(found):
            return found
    return None


def _modules() -> Iterator[tuple[str, ModuleType, dict[str, Any]]]:
    for name, module in list(sys.modules.items()):
        if isinstance(module, ModuleType) and not name.startswith("brockett."):
            # not module.__dict__, which makes a lazy module load itself
            yield name, module, object.__getattribute__(module, "__dict__")


def _may_bind(module: str) -> bool:
    package = module.partition(".")[0]
    return package not in _INSIDE or module in _INSIDE[package]


def _bind(libraries: list[_Bound]) -> None:
    # `from numpy.linalg import svd` has put the function into other modules: they are found by identity.
    table = {id(original): (bound, original, new) for bound in libraries for original, new in bound.pairs}
    seen = set()
    for module_name, module, names in _modules():
        seen.add(id(module))
        if not _may_bind(module_name):
            continue
        for name, value in [item for item in names.copy().items() if id(item[1]) in table]:
            bound, original, new = table[id(value)]
            bound.bindings.append(_Binding(module, name, original, new))
            names[name] = new
    for bound in libraries:
        bound.seen = seen


def _restore(libraries: list[_Bound]) -> None:
    for binding in [binding for bound in libraries for binding in bound.bindings]:
        names = object.__getattribute__(binding.module, "__dict__")
        if names.get(binding.name) is binding.replacement:  # not what somebody else has bound since
            names[binding.name] = binding.original
    # modules imported meanwhile may have taken the stand-ins
    table = {id(new): original for bound in libraries for original, new in bound.pairs}
    seen = set.intersection(*(bound.seen for bound in libraries))
    for _, module, names in _modules():
        if id(module) not in seen:
            for name, value in [item for item in names.copy().items() if id(item[1]) in table]:
                names[name] = table[id(value)]
