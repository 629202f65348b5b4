"""What is switched on where: the scopes of `accelerate`, its report, and the call that stands in for an original."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from ._errors import BrockettError

__all__ = ["AccelerationReport", "Left", "Options", "Scope", "current", "dispatch", "enter", "leave", "stand_in"]


class Left(Exception):
    """A call that goes to the original; the reason is for the report."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Options:
    """What a scope was entered with."""

    libraries: frozenset[str]
    min_size: int | None
    tol: float | None


@dataclass
class _Row:
    taken: int = 0
    left: int = 0
    taken_seconds: float = 0.0
    left_seconds: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)


class AccelerationReport:
    """Which calls brockett took and which went to the original, and why. ``print(report)`` gives a table.

    Counts and seconds of wall time, as measured; what the original would have taken is not guessed. The seconds of a
    call that went to the original include what was tried before. An original may call another one of these functions:
    both are counted then.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: dict[str, _Row] = {}

    def _add(self, name: str, seconds: float, reason: str | None) -> None:
        with self._lock:
            row = self._rows.setdefault(name, _Row())
            if reason is None:
                row.taken += 1
                row.taken_seconds += seconds
            else:
                row.left += 1
                row.left_seconds += seconds
                row.reasons[reason] += 1

    def functions(self) -> dict[str, dict[str, Any]]:
        """The counts of each function that was called.

        Returns
        -------
        functions : dict of str to dict
            Under the function's name: `taken` and `left` (calls), `taken_seconds` and `left_seconds` (wall time),
            `reasons` (dict of reason to calls that were left for it).
        """
        with self._lock:
            return {
                name: {
                    "taken": row.taken,
                    "left": row.left,
                    "taken_seconds": row.taken_seconds,
                    "left_seconds": row.left_seconds,
                    "reasons": dict(row.reasons),
                }
                for name, row in sorted(self._rows.items())
            }

    @property
    def taken(self) -> int:
        """Calls that brockett took."""
        return sum(row["taken"] for row in self.functions().values())

    @property
    def left(self) -> int:
        """Calls that went to the original."""
        return sum(row["left"] for row in self.functions().values())

    def __str__(self) -> str:
        rows = self.functions()
        if not rows:
            return "no call of a function that brockett can take"
        width = max(len(name) for name in rows)
        lines = [f"{'function':<{width}}  {'taken':>6} {'seconds':>9}  {'left':>6} {'seconds':>9}  why left"]
        for name, row in rows.items():
            why = ", ".join(f"{reason} ({count})" for reason, count in row["reasons"].items())
            counts = f"{row['taken']:>6} {row['taken_seconds']:>9.4f}  {row['left']:>6} {row['left_seconds']:>9.4f}"
            lines.append(f"{name:<{width}}  {counts}  {why}".rstrip())
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<AccelerationReport: {self.taken} calls taken, {self.left} left>"


class Scope:
    """One entry of `accelerate`. Once closed it counts for nothing, wherever a context still holds it."""

    def __init__(self, owner: object, options: Options, report: AccelerationReport | None) -> None:
        self.owner = owner
        self.options = options
        self.report = report
        self.open = True


# Of the context (PEP 567): a thread starts with none, an asyncio task with those of whoever made it.
_scopes: ContextVar[tuple[Scope, ...]] = ContextVar("brockett.accelerate", default=())


def enter(scope: Scope) -> None:
    """Switch `scope` on in this context."""
    _scopes.set((*_scopes.get(), scope))


def leave(owner: object, entered: list[Scope]) -> Scope:
    """Close the innermost scope of `owner`: of this context, or, where a generator is closed from another one, the last
    of `entered`. No ContextVar token is kept, since that may be used in its own context only."""
    scopes = _scopes.get()
    here = [scope for scope in scopes if scope.owner is owner and scope.open]
    scope = here[-1] if here else entered[-1]
    entered.remove(scope)
    scope.open = False
    _scopes.set(tuple(other for other in scopes if other.open))
    return scope


def current() -> Scope | None:
    """The innermost open scope of this context."""
    for scope in reversed(_scopes.get()):
        if scope.open:
            return scope
    return None


@contextlib.contextmanager
def _own_work() -> Iterator[None]:
    # brockett's own engines may call the functions that are taken over, and then mean the originals.
    token = _scopes.set(())
    try:
        yield
    finally:
        _scopes.reset(token)


Taker = Callable[..., Any]


def dispatch(
    name: str, library: str, original: Any, take: Taker, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """The answer of `take` where a scope is open and it serves the call, else of `original`."""
    scope = current()
    if scope is None or library not in scope.options.libraries:
        return original(*args, **kwargs)
    reports = [one.report for one in _scopes.get() if one.open and one.report is not None]
    start = time.perf_counter()
    reason: str | None = None
    try:
        with _own_work():
            return take(scope.options, *args, **kwargs)
    except Left as left:
        reason = left.reason
    except TypeError:  # arguments that do not fit: the original says so in its own words
        reason = "arguments"
    except BrockettError as error:
        reason = type(error).__name__
    finally:
        if reason is None:
            _count(reports, name, start, None)
    try:
        return original(*args, **kwargs)
    finally:
        _count(reports, name, start, reason)


def _count(reports: list[AccelerationReport], name: str, start: float, reason: str | None) -> None:
    if reports:
        seconds = time.perf_counter() - start
        for report in {id(report): report for report in reports}.values():
            report._add(name, seconds, reason)


def stand_in(
    name: str, library: str, original: Any, take: Taker, bypass: Callable[[], bool] | None = None
) -> Callable[..., Any]:
    """A function that can be bound to the name of `original`; `bypass` says when it must not look at its arguments."""
    if bypass is None:

        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            return dispatch(name, library, original, take, args, kwargs)
    else:

        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            if bypass():
                return original(*args, **kwargs)
            return dispatch(name, library, original, take, args, kwargs)

    # What __array_function__ of other array types calls by this name.
    if hasattr(original, "_implementation"):
        call._implementation = original._implementation  # type: ignore[attr-defined]
    return call
