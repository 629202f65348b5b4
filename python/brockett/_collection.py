"""What `collect` gives: accumulators by layer, kept in one file; and the batch that is all of it or nothing."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _files
from ._autocorrelation import Autocorrelation, article
from ._errors import BrockettError, FileFormatError, InvalidArgument, InvalidType
from ._patch_autocorrelation import PatchAutocorrelation

__all__ = ["OF", "Collection", "Staged", "read", "write"]

#: What of a layer is collected.
OF = ("inputs", "preactivations", "activations")

_FORMAT = "brockett.Collection/1"
_HEAD = ("format", "of", "n_batches", "names")


class Collection(dict[str, Autocorrelation]):
    """Accumulators by the name of their layer, as `collect` makes them: a dict that knows its file.

    Parameters
    ----------
    accumulators : mapping of str to Autocorrelation, optional
        The accumulators themselves are taken, not copies.
    of : {"inputs", "preactivations", "activations"}, default "inputs"
        What was accumulated.
    n_batches : int, default 0
        Batches that are in it.

    Attributes
    ----------
    of, n_batches
        As given.

    Examples
    --------
    >>> import brockett as bk, tempfile, os
    >>> acc = bk.Autocorrelation(1)
    >>> acc.update([[2.0]])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     bk.Collection({"fc": acc}, n_batches=1).save(os.path.join(folder, "r.npz"))
    ...     found = bk.Collection.load(os.path.join(folder, "r.npz"))
    >>> found["fc"].matrix().tolist(), found.of, found.n_batches
    ([[4.0]], 'inputs', 1)
    """

    def __init__(
        self, accumulators: Mapping[str, Autocorrelation] | None = None, *, of: str = "inputs", n_batches: int = 0
    ) -> None:
        super().__init__(accumulators or {})
        self.of, self.n_batches = of, n_batches

    def __repr__(self) -> str:
        return f"Collection({dict(self)!r}, of={self.of!r}, n_batches={self.n_batches})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _made, (dict(self), self.of, self.n_batches)

    def save(self, path: _files.PathLike) -> None:
        """Write all accumulators to one `.npz` file, atomically.

        Parameters
        ----------
        path : path-like
            Taken as given. The file appears whole or not at all, an older one stays until then.

        Raises
        ------
        OSError
            The file cannot be written.
        """
        write(path, self, {})

    @classmethod
    def load(cls, path: _files.PathLike) -> Collection:
        """Read what `save` wrote, or a checkpoint of `collect`.

        Parameters
        ----------
        path : path-like

        Returns
        -------
        collection : Collection
            In host memory; updates go on with any library.

        Raises
        ------
        FileFormatError
            The file is damaged, truncated, a pickle, or was not written by `save`.
        OSError
            The file cannot be opened.
        """
        return read(path)[0]


def _made(accumulators: dict[str, Autocorrelation], of: str, n_batches: int) -> Collection:
    return Collection(accumulators, of=of, n_batches=n_batches)


def write(path: _files.PathLike, found: Collection, notes: Mapping[str, Any]) -> None:
    """`found` and some notes as one file, one accumulator in host memory at a time."""
    import json  # here, as what only few runs need: importing brockett is cheap

    def arrays() -> Iterator[tuple[str, npt.NDArray[Any]]]:
        yield "format", np.array(_FORMAT)
        yield "of", np.array(found.of)
        yield "n_batches", np.array(found.n_batches)
        yield "names", np.array(list(found), dtype=np.str_)
        yield "notes", np.frombuffer(json.dumps(dict(notes)).encode(), dtype=np.uint8)
        for i, accumulator in enumerate(found.values()):
            for field, value in accumulator._record().items():
                yield f"{i}.{field}", value

    _files.save_npz(path, arrays())


def read(path: _files.PathLike) -> tuple[Collection, dict[str, Any]]:
    """What `write` wrote."""
    import json

    data = _files.load_npz(path, (*_HEAD, "notes"))
    try:
        if str(data["format"]) != _FORMAT:
            raise ValueError(f"its format is {str(data['format'])!r}, expected {_FORMAT!r}")
        of, n_batches, names = str(data["of"]), data["n_batches"], [str(name) for name in data["names"]]
        if of not in OF:
            raise ValueError(f"it says that it is of {of!r}")
        if n_batches.shape != () or n_batches.dtype.kind not in "iu" or n_batches < 0:
            raise ValueError(f"{n_batches} batches cannot be")
        if len(set(names)) != len(names):
            raise ValueError("a layer is there twice")
        notes = json.loads(data["notes"].astype(np.uint8).tobytes())
        if not isinstance(notes, dict):
            raise ValueError("its notes are none")
        found = Collection(of=of, n_batches=int(n_batches))
        for i, name in enumerate(names):
            # Taken out of `data`, so that an accumulator is there twice and not the whole collection.
            prefix = f"{i}."
            fields = {key[len(prefix) :]: data.pop(key) for key in list(data) if key.startswith(prefix)}
            kind = PatchAutocorrelation if "kernel" in fields else Autocorrelation
            try:
                found[name] = kind._from_record(fields)
            except KeyError as error:
                raise ValueError(f"layer {name!r} lacks {error}") from error
            except (ValueError, TypeError, BrockettError) as error:
                raise ValueError(f"layer {name!r}: {error}") from error
    except (ValueError, TypeError, BrockettError) as error:
        raise FileFormatError(f"{path}: is not a collection saved by brockett ({error})") from error
    return found, notes


class Staged:
    """Sums of one batch beside the totals: added to all of them, or to none.

    Parameters
    ----------
    totals : mapping of str to Autocorrelation
        Updated in place by `commit`, and untouched until then.

    Notes
    -----
    A second accumulator for each total, of its size. A commit adds a total to a stage, lets them change places, and
    clears what was the total: O(n_features²) for each (O(n_features³) with method="qr").
    """

    def __init__(self, totals: Mapping[str, Autocorrelation]) -> None:
        self._totals = dict(totals)
        self._stages = {name: total._twin() for name, total in self._totals.items()}

    def add(self, name: str, X: Any, mask: Any = None) -> None:
        """Samples of this batch for one of them."""
        stage = self._stages[name]
        try:
            stage.update(X, mask=mask)
        except InvalidType:
            if stage.n_samples:
                raise
            # What is left of it from the batches before may lie elsewhere.
            self._stages[name] = stage._twin()
            self._stages[name].update(X, mask=mask)

    def discard(self) -> None:
        """Forget the batch."""
        self._stages = {name: total._twin() for name, total in self._totals.items()}

    def commit(self) -> None:
        """Add the batch to the totals; whatever is raised, they are as they were."""
        filled = [name for name, stage in self._stages.items() if stage.n_samples]
        # Totals into stages, since a merge of the third layer may fail when two are through; then all change places.
        for name in filled:
            try:
                self._stages[name].merge(self._totals[name])
            except InvalidArgument as error:
                raise type(error)(f"layer {name!r}", _of_merge(error)) from error
        for name in filled:
            self._totals[name]._exchange(self._stages[name])
        for name in filled:
            try:
                self._stages[name]._clear()
            except BrockettError:  # a device that fails; the batch is in all the same
                self._stages[name] = self._totals[name]._twin()


def _of_merge(error: InvalidArgument) -> str:
    if isinstance(error, InvalidType):
        return f"what was collected before {error.message}; accumulate_on= sums all in one place"
    return f"what was collected before: {error.message}"


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C during these few statements comes right after them."""
    import signal

    before = signal.getsignal(signal.SIGINT) if threading.current_thread() is threading.main_thread() else None
    if before is None:  # another thread, which it never reaches; or a handler that is not Python's
        yield
        return
    came: list[tuple[int, Any]] = []
    signal.signal(signal.SIGINT, lambda number, frame: came.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came and callable(before):
            before(*came[-1])


def check_alike(argument: str, found: Mapping[str, Autocorrelation], wanted: Mapping[str, Autocorrelation]) -> None:
    """InvalidArgument names the first layer, and the first of its parameters, in which two collections differ."""
    missing, more = _others(wanted, found), _others(found, wanted)
    if missing or more:
        words = [*(f"{name!r} is not in it" for name in missing), *(f"{name!r} is" for name in more)]
        raise InvalidArgument(argument, f"is of other layers: {', '.join(words)}")
    for name, accumulator in found.items():
        fresh = wanted[name]
        if type(accumulator) is not type(fresh):
            raise InvalidArgument(
                argument, f"layer {name!r} is a {type(accumulator).__name__}, expected {article(type(fresh).__name__)}"
            )
        for param in fresh._PARAMS:
            old, new = getattr(accumulator, param), getattr(fresh, param)
            if old != new:
                raise InvalidArgument(argument, f"layer {name!r} has {param}={old!r}, now it would be {new!r}")


def _others(names: Iterable[str], known: Mapping[str, Any]) -> list[str]:
    return [name for name in names if name not in known]
