"""The file that `collect` goes on from after an interruption, and an earlier result that it adds to."""

from __future__ import annotations

import contextlib
import errno
import os
import time
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from . import _files
from ._autocorrelation import Autocorrelation
from ._collection import Collection, check_alike, read, write
from ._errors import InvalidArgument, InvalidType

__all__ = ["Checkpoint"]


class Checkpoint:
    """The file that `collect` goes on from; nothing where there is no path."""

    def __init__(self, path: _files.PathLike | None, interval: float, module: Any, of: str) -> None:
        self.path = None if path is None else os.fspath(path)
        self.position = 0
        self._interval, self._of = interval, of
        self._model = {} if path is None else _fingerprint(module)
        self._written_at, self._written = time.monotonic(), 0

    def start(
        self, totals: dict[str, Autocorrelation], into: dict[str, Autocorrelation] | None
    ) -> tuple[Collection, int]:
        """The collection to add to, and how many of the batches are in it."""
        found, resumed = Collection(totals, of=self._of), False
        if self.path is not None and not os.path.isdir(os.path.dirname(self.path) or "."):
            # found out now, not when there is something to keep
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.path)
        if self.path is not None and os.path.exists(self.path):
            found, notes = read(self.path)
            self._check(found, notes, totals)
            # In the order of now, which is the module's.
            found = Collection({name: found[name] for name in totals}, of=self._of, n_batches=found.n_batches)
            self.position = self._written = int(notes["position"])
            resumed = True
        if into is None:
            return found, self.position
        if not isinstance(into, dict) or not all(isinstance(one, Autocorrelation) for one in into.values()):
            raise InvalidType("into", f"expected a dict of Autocorrelation, as collect gives it, got {into!r}")
        if isinstance(into, Collection) and into and into.of != self._of:
            raise InvalidArgument("into", f"is of {into.of}, now it would be of {self._of}")
        if any(one.n_samples for one in into.values()):
            if resumed:
                raise InvalidArgument(
                    "into", f"holds samples, and {self.path} does: what is in the checkpoint would count twice"
                )
            check_alike("into", into, totals)
            n_batches = into.n_batches if isinstance(into, Collection) else 0
            found = Collection({name: into[name] for name in totals}, of=self._of, n_batches=n_batches)
        into.clear()
        into.update(found)
        if isinstance(into, Collection):
            into.of, into.n_batches = self._of, found.n_batches
            found = into
        return found, self.position

    def _check(self, found: Collection, notes: Mapping[str, Any], totals: Mapping[str, Autocorrelation]) -> None:
        where = f"{self.path}"
        if not isinstance(notes.get("position"), int) or not isinstance(notes.get("model"), dict):
            raise InvalidArgument(
                "checkpoint", f"{where} was saved by hand and not by collect; pass what it holds as into="
            )
        if found.of != self._of:
            raise InvalidArgument("checkpoint", f"{where} is of {found.of}, now it would be of {self._of}")
        try:
            check_alike("checkpoint", found, totals)
        except InvalidArgument as error:
            raise InvalidArgument("checkpoint", f"{where}: {error.message}") from None
        old, new = notes["model"], self._model
        for name in (*new, *old):
            if old.get(name) != new.get(name):
                words = "changed" if name in old and name in new else "come" if name in new else "gone"
                raise InvalidArgument("checkpoint", f"{where} is of another model: since then {name!r} has {words}")

    def write_if_due(self, found: Collection) -> None:
        if self.path is not None and time.monotonic() - self._written_at >= self._interval:
            self._write(found)

    def _write(self, found: Collection) -> None:
        if self.path is not None and self.position > self._written:
            # Even where that fails: it is not tried again on the way out.
            self._written = self.position
            write(self.path, found, {"position": self.position, "model": self._model})
            self._written_at = time.monotonic()

    @contextlib.contextmanager
    def kept_on_errors(self, found: Collection) -> Iterator[None]:
        """Written at the end, however it comes; then what was raised goes on."""
        try:
            yield
        except BaseException:
            try:
                self._write(found)
            except OSError as error:
                warnings.warn(f"the checkpoint could not be written: {error}", RuntimeWarning, stacklevel=2)
            raise
        self._write(found)


def _fingerprint(module: Any) -> dict[str, Any]:
    """Shape, dtype and a checksum of up to 4,096 spread entries of each parameter and buffer, to tell models apart."""
    import zlib

    import torch

    found: dict[str, Any] = {}
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        checksum = None
        # Parameters that hold nothing (offloaded, on the meta device) or bits that are not numbers have none.
        with contextlib.suppress(RuntimeError, NotImplementedError, TypeError):
            flat = tensor.detach().reshape(-1)
            sample = flat[:: max(1, flat.numel() // 4096)][:4096].contiguous().cpu()
            checksum = zlib.crc32(sample.view(torch.uint8).numpy().tobytes())
        found[name] = [list(tensor.shape), str(tensor.dtype), checksum]
    return found
