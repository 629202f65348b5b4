"""Names of another package's modules, bound to other functions for a while, and always given back."""

from __future__ import annotations

import importlib
import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from .._errors import Unsupported

__all__ = ["Name", "Rebinding", "import_tool"]


@dataclass(frozen=True)
class Name:
    """A function that is to be replaced.

    Attributes
    ----------
    module : str
        Where it is looked up; "package.module" or "package.module:Class".
    name : str
    parameters : tuple of str
        Its parameters, as the version that the adapter was tested with has them: others would be called wrongly.
        "W|M" stands for either name.
    make : callable
        Of the original; returns what takes its place.
    """

    module: str
    name: str
    parameters: tuple[str, ...]
    make: Callable[[Any], Any]


def import_tool(package: str, module: str, how: str) -> Any:
    """A module of the tool, or an error that says how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{package} is needed: {how} ({error})") from error


class Rebinding:
    """The names of one tool. Re-entrant: what was there before comes back when the last user has left.

    Parameters
    ----------
    package : str
        Its distribution, whose version an error names.
    tested : str
        The version that the names were taken from.
    how : str
        The command that installs it.
    names : callable
        Returns the `Name`s; called when they are needed first, since it may import the tool.
    """

    def __init__(self, package: str, tested: str, how: str, names: Callable[[], Sequence[Name]]) -> None:
        self._package, self._tested, self._how, self._names = package, tested, how, names
        self._lock = threading.RLock()
        self._users = 0
        self._permanent = False
        self._bound: list[tuple[Any, str, Any]] = []

    @property
    def active(self) -> bool:
        """Whether the names are bound to brockett now."""
        return bool(self._bound)

    def install(self) -> None:
        """Bind them until `uninstall`; a second time changes nothing."""
        with self._lock:
            self._bind()
            self._permanent = True

    def uninstall(self) -> None:
        """Undo `install`; `with` blocks that are still open keep the names bound until they close."""
        with self._lock:
            self._permanent = False
            self._release()

    @contextmanager
    def bound(self) -> Iterator[None]:
        """The names are bound within, and given back however the block ends."""
        with self._lock:
            self._bind()
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                self._release()

    def _bind(self) -> None:
        if self._bound:
            return
        plan = []
        for name in self._names():
            owner = self._owner(name)
            original = self._original(owner, name)
            plan.append((owner, name.name, original, name.make(original)))
        # everything was there: only now is anything changed
        for owner, attribute, original, replacement in plan:
            self._bound.append((owner, attribute, original))
            setattr(owner, attribute, replacement)

    def _release(self) -> None:
        if self._users or self._permanent:
            return
        while self._bound:
            owner, name, original = self._bound.pop()
            setattr(owner, name, original)

    def _owner(self, name: Name) -> Any:
        module, _, attribute = name.module.partition(":")
        owner = import_tool(self._package, module, self._how)
        if not attribute:
            return owner
        try:
            return getattr(owner, attribute)
        except AttributeError:
            raise self._moved(name, "is not there") from None

    def _original(self, owner: Any, name: Name) -> Any:
        try:
            original = inspect.getattr_static(owner, name.name)
        except AttributeError:
            raise self._moved(name, "is not there") from None
        parameters = tuple(inspect.signature(original).parameters)
        fits = len(parameters) == len(name.parameters) and all(
            found in expected.split("|") for found, expected in zip(parameters, name.parameters, strict=True)
        )
        if not fits:
            raise self._moved(name, f"takes ({', '.join(parameters)}), not ({', '.join(name.parameters)})")
        return original

    def _moved(self, name: Name, what: str) -> Unsupported:
        try:
            version = metadata.version(self._package)
        except metadata.PackageNotFoundError:
            version = "of an unknown version"
        return Unsupported(
            f"{self._package} {version}: {name.module}.{name.name} {what}; "
            f"this adapter was tested with {self._package} {self._tested}"
        )

