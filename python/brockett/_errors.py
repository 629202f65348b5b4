"""The one exception family of brockett. Pure Python, no dependencies.

Every error raised on purpose derives from `BrockettError` and from the built-in exception that callers already catch
for that kind of mistake. The compiled engine's C++ exceptions arrive as these classes, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = [
    "BrockettError",
    "EngineUnavailable",
    "FileFormatError",
    "InvalidArgument",
    "InvalidType",
    "NonFinite",
    "NotConverged",
    "OutOfMemory",
    "PrecisionWarning",
    "Unsupported",
]


class BrockettError(Exception):
    """Base of every error that brockett raises on purpose."""


class InvalidArgument(BrockettError, ValueError):
    """An argument is not what the function asks for.

    Parameters
    ----------
    argument : str
        Name of the argument, as the caller spells it.
    message : str
        What was expected, and what came.

    Attributes
    ----------
    argument : str
        Name of the argument. ``str(error)`` is ``"argument: message"``.

    Examples
    --------
    >>> import brockett as bk
    >>> try:
    ...     bk.svd([[1.0, 2.0]], method="fast")
    ... except bk.InvalidArgument as error:
    ...     error.argument
    'method'
    """

    def __init__(self, argument: str, message: str) -> None:
        super().__init__(f"{argument}: {message}")
        self.argument = argument
        self.message = message

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception pickles by its args, which here are the joined text and not what __init__ takes.
        return type(self), (self.argument, self.message)


class NonFinite(InvalidArgument):
    """A NaN or an infinity in an argument.

    Parameters
    ----------
    argument : str
        Name of the argument.
    index : sequence of int
        Index of the first one met in memory order, in the caller's own array.

    Attributes
    ----------
    index : tuple of int

    Examples
    --------
    >>> import brockett as bk
    >>> try:
    ...     bk.svd([[1.0, float("nan")]])
    ... except bk.NonFinite as error:
    ...     error.argument, error.index
    ('A', (0, 1))
    """

    def __init__(self, argument: str, index: Sequence[int]) -> None:
        self.index: tuple[int, ...] = tuple(int(i) for i in index)
        inner = ", ".join(str(i) for i in self.index) + ("," if len(self.index) == 1 else "")
        super().__init__(argument, f"NaN or Inf at index ({inner})")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.argument, self.index)


class InvalidType(InvalidArgument, TypeError):
    """An argument has the wrong type, dtype, array namespace or device."""


class NotConverged(BrockettError, ArithmeticError):
    """A LAPACK driver, and the more robust one tried after it, did not converge."""


class OutOfMemory(BrockettError, MemoryError):
    """Memory for a workspace or a result could not be had."""


class Unsupported(BrockettError, NotImplementedError):
    """A request that this build or this engine cannot serve."""


class FileFormatError(BrockettError, ValueError):
    """A file is damaged, truncated, or not of the kind that was asked for."""


class EngineUnavailable(BrockettError, RuntimeError):
    """An engine that was asked for by name cannot be used here; the message says why."""


class PrecisionWarning(UserWarning):
    """A result was computed from sums of less than float64 products, and may be off by more than rounding."""
