"""Quantized weights as the numbers they stand for, where the scale lies beside them by a known convention."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ._model import Tensor

__all__ = ["block_size", "dequantized", "float8", "scaled"]

Float32 = npt.NDArray[np.float32]


def float8(bits: npt.NDArray[np.uint8], dtype: str) -> Float32:
    """float8 as float32: "F8_E4M3" (no infinities; all ones are NaN) or "F8_E5M2" (the upper byte of a float16)."""
    if dtype.upper().startswith("F8_E5M2"):
        table = (np.arange(256, dtype=np.uint16) << np.uint16(8)).view(np.float16).astype(np.float32)
    else:
        code = np.arange(256)
        exponent, fraction = (code >> 3) & 15, code & 7
        normal = np.ldexp(1.0 + fraction / 8, exponent - 7)
        table = np.where(exponent == 0, np.ldexp(fraction / 8, -6), normal).astype(np.float32)
        table[(code & 127) == 127] = np.nan
        table[128:] *= -1
    return np.asarray(table[bits])


def block_size(shape: Sequence[int], scale: Sequence[int], blocks: bool = False) -> tuple[int, ...] | None:
    """How many entries along each axis of the weights share a scale; None where the shapes do not say so.

    A scale is one number, one for each output, or (two axes) one for each output and group of inputs. With `blocks` the
    weights are cut into square blocks and the last of a row may be smaller.
    """
    shape, scale = tuple(shape), tuple(scale)
    if math.prod(scale) == 1:
        return shape
    if scale[0] == shape[0] and math.prod(scale) == shape[0]:  # (out,), (out, 1), (out, 1, 1, 1)
        return (1, *shape[1:])
    if len(shape) != 2 or len(scale) != 2:
        return None
    if blocks:
        sides = {-(-n // b) for n, b in zip(shape, scale, strict=True) if b > 1}
        # The side is a power of two, 128 in practice: what reproduces the number of blocks along both axes.
        for side in (128, *(2**k for k in range(3, 12))):
            if tuple(-(-n // side) for n in shape) == scale and sides:
                return (side, side)
        return None
    return (1, shape[1] // scale[1]) if scale[0] == shape[0] and shape[1] % scale[1] == 0 else None


def scaled(
    values: npt.NDArray[Any], scale: npt.NDArray[Any], zero: npt.NDArray[Any] | None, size: Sequence[int]
) -> Any:
    """(values - zero) scale, one scale for each block of `size` entries."""

    def spread(small: npt.NDArray[Any]) -> Any:
        wide = np.asarray(small, np.float32)
        if wide.size == 1:
            return wide.reshape(())
        if size[0] == 1 and wide.size == values.shape[0]:
            return wide.reshape(-1, *(1,) * (values.ndim - 1))
        for axis, length in enumerate(size):
            wide = np.repeat(wide, length, axis)
        return wide[tuple(slice(n) for n in values.shape)]

    found = values.astype(np.float32)
    if zero is not None:
        found -= spread(zero)
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and Inf are for `Layer.weight` to name
        found *= spread(scale)
    return found


def dequantized(
    weight: Tensor, scale: Tensor, zero: Tensor | None, size: Sequence[int], divisor: float = 1.0
) -> Callable[[], Float32]:
    """A function that reads the three and puts them together."""

    def load() -> Float32:
        values = weight.read()
        if weight.dtype.upper().startswith("F8_"):
            values = float8(values, weight.dtype)
        factor = np.asarray(scale.read(), np.float32) / np.float32(divisor)
        found: Float32 = scaled(np.asarray(values), factor, None if zero is None else zero.read(), size)
        return found

    return load
