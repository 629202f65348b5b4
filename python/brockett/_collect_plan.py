"""How much memory the sums of `collect` take, before anything runs."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._autocorrelation import Autocorrelation
from ._errors import OutOfMemory

if TYPE_CHECKING:
    from ._collect_layers import Site

__all__ = ["CollectionPlan", "PlannedLayer", "available_memory", "plan_of"]

#: A batch is summed beside the totals (see `Staged`), so there are two of each accumulator meanwhile.
_COPIES = 2


@dataclass(frozen=True)
class PlannedLayer:
    """One accumulator that `collect` would make.

    Attributes
    ----------
    name : str
        Its name in the result.
    kind : str
        Class of the layer.
    device : str
        Where it would be summed: "cpu", "cuda:0", …
    n_features : int
        Length of a sample.
    groups : int
        Matrices R of this size: 1, or the groups of a grouped convolution.
    n_bytes : int
        8 groups n_features².
    also : tuple of str
        Other names of the same module.
    """

    name: str
    kind: str
    device: str
    n_features: int
    groups: int
    n_bytes: int
    also: tuple[str, ...]


@dataclass(frozen=True)
class CollectionPlan:
    """What `collect` would make, and the memory for it. ``print(plan)`` shows it as a table.

    Attributes
    ----------
    layers : tuple of PlannedLayer
        In the module's order.
    of : str
        What would be accumulated.
    available : dict of str to int or None
        Bytes that are free now on each device of the plan; None where that is not known.
    """

    layers: tuple[PlannedLayer, ...]
    of: str
    available: Mapping[str, int | None]

    @property
    def n_bytes(self) -> int:
        """Bytes that the result holds, Σ 8 groups n_features²."""
        return sum(layer.n_bytes for layer in self.layers)

    @property
    def working_bytes(self) -> dict[str, int]:
        """Bytes that are held on each device while it runs: twice the result, since a batch is summed beside it."""
        totals: dict[str, int] = {}
        for layer in self.layers:
            totals[layer.device] = totals.get(layer.device, 0) + _COPIES * layer.n_bytes
        return totals

    def check(self, memory_limit: float | None = None) -> None:
        """Refuse what does not fit.

        Parameters
        ----------
        memory_limit : float, optional
            Bytes allowed on each device; what is available by default.

        Raises
        ------
        OutOfMemory
            The sums need more, while they run, than the limit or than there is.
        """
        for device, needed in self.working_bytes.items():
            free = self.available.get(device)
            limit = free if memory_limit is None else memory_limit
            if limit is None or needed <= limit:
                continue
            mine = sorted((one for one in self.layers if one.device == device), key=lambda one: -one.n_bytes)
            largest = ", ".join(f"{one.name!r} {in_words(_COPIES * one.n_bytes)}" for one in mine[:3])
            why = (
                f"memory_limit is {in_words(limit)}"
                if memory_limit is not None
                else f"{in_words(limit)} are available (memory_limit=float('inf') tries all the same)"
            )
            raise OutOfMemory(
                f"the sums of {_layers(len(mine))} take {in_words(needed)} on {device} while they run, the largest "
                f"are {largest}; {why}. Name fewer layers at a time"
                + ("" if device == "cpu" else ", or sum in host memory with accumulate_on='cpu'")
            )

    def summary(self) -> str:
        """One line: the number of layers, and the memory on each device.

        Returns
        -------
        summary : str
        """
        parts = []
        for device, needed in self.working_bytes.items():
            free = self.available.get(device)
            parts.append(
                f"{in_words(needed)} on {device}" + ("" if free is None else f" ({in_words(free)} available)")
            )
        what = f"{self.of} of {_layers(len(self.layers))}: sums of {in_words(self.n_bytes)}"
        return f"{what}, {' and '.join(parts)} while they run"

    def __str__(self) -> str:
        head = ("layer", "kind", "device", "features", "memory")
        rows = [
            (
                repr(one.name) + "".join(f" = {other!r}" for other in one.also),
                one.kind,
                one.device,
                str(one.n_features) if one.groups == 1 else f"{one.groups} x {one.n_features}",
                in_words(one.n_bytes),
            )
            for one in self.layers
        ]
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(width) if i < 3 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in (head, *rows)
        ]
        return "\n".join([*lines, self.summary()])


def plan_of(
    sites: Sequence[Site], accumulators: Mapping[str, Autocorrelation], of: str, accumulate_on: Any
) -> CollectionPlan:
    layers = []
    for site in sites:
        accumulator = accumulators[site.name]
        groups = int(getattr(accumulator, "groups", 1))
        device = str(accumulate_on or site.device())
        n_bytes = 8 * groups * accumulator.n_features**2
        layers.append(
            PlannedLayer(site.name, site.kind, device, accumulator.n_features, groups, n_bytes, site.also)
        )
    devices = dict.fromkeys(layer.device for layer in layers)
    return CollectionPlan(tuple(layers), of, {device: available_memory(device) for device in devices})


def available_memory(device: str) -> int | None:
    """Bytes that can be had on a device now; None where nothing tells."""
    if device.startswith("cuda"):
        import torch

        with contextlib.suppress(Exception):  # no driver, no such device: others say so better
            return int(torch.cuda.mem_get_info(device)[0])
        return None
    found = list(_host_memory()) if device == "cpu" else []
    return min(found) if found else None


def _host_memory() -> Iterator[int]:
    """What the kernel, and the group of processes this one is in, say is left. Linux; elsewhere nothing is known."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        yield from (int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    with contextlib.suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")  # in a container; "max" is no number, and no limit
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        yield max(limit - used + int(stat.get("inactive_file", 0)), 0)


def _layers(count: int) -> str:
    return "1 layer" if count == 1 else f"{count} layers"


def in_words(n_bytes: float) -> str:
    if math.isinf(n_bytes):
        return "no limit"
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= size:
            return f"{n_bytes / size:.3g} {unit}"
    return f"{n_bytes:.0f} bytes"
