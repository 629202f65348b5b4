"""Which positions of a batch count, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _arrays
from ._errors import InvalidArgument, InvalidType

__all__ = ["Mask", "Masks"]

Mask = str | Callable[[Any], Any] | None


class Masks:
    """The masks of one batch after another.

    Parameters
    ----------
    mask : str, callable, mapping or None
        As `collect` takes it.
    names : sequence of str
        Of the layers.
    """

    def __init__(self, mask: Mask | Mapping[str, Mask], names: Sequence[str]) -> None:
        by_layer = mask if isinstance(mask, Mapping) else {"*": mask}
        for pattern, source in by_layer.items():
            if source is not None and not isinstance(source, str) and not callable(source):
                raise InvalidType(
                    "mask",
                    "expected a key of the batches or a function of a batch, or these by the name of a layer, got "
                    f"{source!r}",
                )
            if not isinstance(pattern, str):
                raise InvalidType("mask", f"expected names of layers, got {pattern!r}")
            if pattern not in names and not any(fnmatchcase(name, pattern) for name in names):
                raise InvalidArgument("mask", f"no layer matches {pattern!r}; there are {list(names)}")
        self._sources = {name: _source(by_layer, name) for name in names}
        self._values: dict[int, npt.NDArray[np.bool_] | None] = {}  # by the id of the source: not all have a hash

    def read(self, batch: Any) -> None:
        """Take the masks of a batch, each once."""
        self._values.clear()
        for source in self._sources.values():
            if source is None or id(source) in self._values:
                continue
            if callable(source):
                value = source(batch)
            elif not isinstance(batch, Mapping) or source not in batch:
                raise InvalidArgument("mask", f"the batches have no {source!r}")
            else:
                value = batch[source]
            self._values[id(source)] = None if value is None else _booleans(value)

    def of(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.bool_] | None:
        """Booleans of `shape` for the samples of a layer; None: all of them count."""
        values = self._values.get(id(self._sources[name]))
        return None if values is None else fit(values, shape)


def _source(by_layer: Mapping[str, Mask], name: str) -> Mask:
    if name in by_layer:
        return by_layer[name]
    return next((source for pattern, source in by_layer.items() if fnmatchcase(name, pattern)), None)


def _booleans(mask: Any) -> npt.NDArray[np.bool_]:
    values = _arrays.accept(mask, "mask").host()
    dtype = str(mask.dtype) if hasattr(mask, "dtype") else str(np.asarray(mask).dtype)
    if "bool" not in dtype and "int" not in dtype:
        raise InvalidType("mask", f"expected booleans, True for the positions that count, got dtype {dtype}")
    if not np.isin(values, (0, 1)).all():
        raise InvalidArgument("mask", "expected booleans (or the integers 0 and 1), got other integers")
    return np.asarray(values != 0)


def fit(mask: npt.NDArray[np.bool_], shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """A mask (batch, sequence) for samples of `shape`: as it is, for each of further axes, or for rows in one axis."""
    if mask.shape == shape:
        return mask
    if mask.ndim == len(shape) and all(m in (1, s) for m, s in zip(mask.shape, shape, strict=True)):
        return np.broadcast_to(mask, shape)
    if shape[: mask.ndim] == mask.shape:  # (batch, sequence) of (batch, sequence, heads): all heads of a position
        return np.broadcast_to(mask.reshape(*mask.shape, *(1,) * (len(shape) - mask.ndim)), shape)
    if len(shape) == 1 and math.prod(mask.shape) == shape[0]:  # positions that were joined to one axis
        return mask.reshape(shape)
    raise InvalidArgument(
        "mask",
        f"expected shape {shape}, one for each sample, or the leading axes of it, got {mask.shape}; a mask for each "
        "layer goes in a mapping, None for layers that take every sample",
    )
