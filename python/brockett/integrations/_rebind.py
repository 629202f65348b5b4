"""Names of another package's modules, bound to other values for a while, and always given back."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from .._errors import Unsupported

__all__ = ["Absent", "Name", "Rebinding", "import_tool", "moved", "rebound"]


class Absent(Unsupported, ImportError):
    """A tool that is not installed, or that does not import."""


def import_tool(tool: str, tested: str, module: str, how: str = "") -> Any:
    """A module of the tool.

    Raises
    ------
    Absent
        It is not there; the message has the version tested, and `how` to install it.
    Unsupported
        The tool is there, but not this module.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and missing != module.partition(".")[0] and f"{module}.".startswith(f"{missing}."):
            raise moved(tool, tested, module) from error
        advice = f"brockett is tested with {tested}" + (f"; {how}" if how else "")
        if missing == module.partition(".")[0]:
            raise Absent(f"{tool} is not installed ({advice})") from error
        raise Absent(f"{tool} does not import here: {error} ({advice})") from error


def moved(tool: str, tested: str, name: str, what: str = "") -> Unsupported:
    """The error for a tool whose `name` is elsewhere by now, or is not `what` it was."""
    try:
        found = metadata.version(tool)
    except metadata.PackageNotFoundError:
        found = "of unknown version"
    said = f": {name} {what}" if what else f" has no {name}"
    return Unsupported(f"{tool} {found}{said}; brockett is tested with {tool} {tested}")


# --- one name: who has bound it, in the order they came ---------------------------------------------------------------


@dataclass
class _Slot:
    """A name of `owner` while it is bound to something else; `own` unless a class inherits it."""

    owner: Any
    name: str
    own: bool
    original: Any
    values: dict[object, Any] = field(default_factory=dict)  # of those who are inside, the last one's is bound


_lock = threading.RLock()
_slots: dict[tuple[int, str], _Slot] = {}

#: owner of a name, the name, and what takes its place
_Plan = Sequence[tuple[Any, str, Any]]


def _bind(plan: _Plan) -> Callable[[], None]:
    """Bind each name; returns what undoes it.

    Threads leave in any order: whoever does takes its own value away, and the original is back after the last.
    """
    token = object()
    bound: list[_Slot] = []

    def undo() -> None:
        with _lock:
            while bound:
                slot = bound.pop()
                del slot.values[token]
                if slot.values:
                    setattr(slot.owner, slot.name, list(slot.values.values())[-1])
                    continue
                del _slots[id(slot.owner), slot.name]
                if slot.own:
                    setattr(slot.owner, slot.name, slot.original)
                else:
                    delattr(slot.owner, slot.name)

    with _lock:
        try:
            for owner, name, value in plan:
                names = vars(owner)
                slot = _slots.get((id(owner), name)) or _Slot(owner, name, name in names, names.get(name))
                setattr(owner, name, value)
                slot.values[token] = value
                _slots[id(owner), name] = slot
                bound.append(slot)
        except BaseException:  # an owner that lets nothing be set, say
            undo()
            raise
    return undo


@contextlib.contextmanager
def rebound(tool: str, tested: str, names: Sequence[tuple[Any, str, Callable[[Any], Any]]]) -> Iterator[None]:
    """The names (owner, name, what makes the new value from the old one) bound anew inside the block.

    All of them are looked up before any is bound, so that a tool whose names have moved is left as it was.
    """
    with _lock:
        plan = []
        for owner, name, make in names:
            if not hasattr(owner, name):
                raise moved(tool, tested, f"{getattr(owner, '__name__', type(owner).__name__)}.{name}")
            plan.append((owner, name, make(getattr(owner, name))))
        undo = _bind(plan)
    try:
        yield
    finally:
        undo()


# --- all names of a tool, by what they were when it was tested --------------------------------------------------------


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


class Rebinding:
    """The names of one tool, bound once for all who are inside; what was there comes back when the last one has left.

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
        self._users = 0
        self._permanent = False
        self._undo: Callable[[], None] | None = None

    @property
    def active(self) -> bool:
        """Whether the names are bound to brockett now."""
        return self._undo is not None

    def install(self) -> None:
        """Bind them until `uninstall`; a second time changes nothing."""
        with _lock:
            self._bind()
            self._permanent = True

    def uninstall(self) -> None:
        """Undo `install`; `with` blocks that are still open keep the names bound until they close."""
        with _lock:
            self._permanent = False
            self._release()

    @contextlib.contextmanager
    def bound(self) -> Iterator[None]:
        """The names are bound within, and given back however the block ends."""
        with _lock:
            self._bind()
            self._users += 1
        try:
            yield
        finally:
            with _lock:
                self._users -= 1
                self._release()

    def _bind(self) -> None:
        if self._undo is None:
            plan = []
            for name in self._names():
                owner, original = self._found(name)
                plan.append((owner, name.name, name.make(original)))
            self._undo = _bind(plan)  # everything was there: only now is anything changed

    def _release(self) -> None:
        if self._undo is not None and not self._users and not self._permanent:
            self._undo()
            self._undo = None

    def _found(self, name: Name) -> tuple[Any, Any]:
        module, _, attribute = name.module.partition(":")
        owner = import_tool(self._package, self._tested, module, self._how)
        if attribute:
            owner = getattr(owner, attribute, None)
        original = getattr(owner, name.name, None)
        if original is None:
            raise moved(self._package, self._tested, f"{name.module}.{name.name}")
        parameters = tuple(inspect.signature(original).parameters)
        fits = len(parameters) == len(name.parameters) and all(
            found in expected.split("|") for found, expected in zip(parameters, name.parameters, strict=True)
        )
        if not fits:
            what = f"takes ({', '.join(parameters)}), not ({', '.join(name.parameters)})"
            raise moved(self._package, self._tested, f"{name.module}.{name.name}", what)
        return owner, original
