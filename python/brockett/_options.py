"""Options that are words, counts, numbers and flags: taken, or refused with their name and what was expected."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ._errors import InvalidArgument, InvalidType

__all__ = ["count", "flag", "number", "option", "seed"]


def option(argument: str, value: object, choices: tuple[str, ...]) -> str:
    """`value`, which must be one of the words in `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise InvalidArgument(argument, f"expected one of {', '.join(map(repr, choices))}, got {value!r}")
    return value


#: What a C int holds: options are kept in it.
INT_MAX = 2**31 - 1


def count(argument: str, value: Any, least: int = 0, most: int = INT_MAX) -> int:
    """`value` as an int in [least, most]; booleans and floats are refused."""
    if isinstance(value, bool | np.bool_) or not hasattr(value, "__index__"):
        raise InvalidType(argument, f"expected an integer, got {value!r}")
    whole = int(value.__index__())
    if whole < least:
        raise InvalidArgument(argument, f"expected {least} or more, got {whole}")
    if whole > most:
        raise InvalidArgument(argument, f"expected at most {most}, got {whole}")
    return whole


def number(argument: str, value: Any, least: float = -math.inf) -> float:
    """`value` as a finite float of at least `least`."""
    if isinstance(value, str | bytes):
        raise InvalidType(argument, f"expected a number, got {value!r}")
    try:
        real = float(value)
    except (TypeError, ValueError) as error:
        raise InvalidType(argument, f"expected a number, got {value!r}") from error
    if not math.isfinite(real) or real < least:
        bound = "a finite number" if least == -math.inf else f"a finite number of at least {least:g}"
        raise InvalidArgument(argument, f"expected {bound}, got {value!r}")
    return real


def flag(argument: str, value: Any) -> bool:
    """`value` as a bool; anything but True and False is refused (a word passed by position lands here)."""
    if not isinstance(value, bool | np.bool_):
        raise InvalidType(argument, f"expected True or False, got {value!r}")
    return bool(value)


def seed(argument: str, value: Any) -> int:
    """A seed: an integer from 0 to 2^64 - 1."""
    return count(argument, value, most=2**64 - 1)
