"""Profiles of classes: which SVD neurons are influential for their inputs, accumulated in a stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _files, _options
from ._errors import BrockettError, FileFormatError, InvalidArgument, InvalidType
from ._influential import Influential

__all__ = ["ClassProfiles", "by_layer", "class_labels"]

Matrix = npt.NDArray[np.float64]

#: The name of the layer where one comes without a name.
ONE_LAYER = "layer"

_FORMAT = "brockett class profiles 1"


class ClassProfiles:
    """Counts and weights of influential SVD neurons per class, accumulated over batches.

    Parameters
    ----------
    n_classes : int
        Classes are the labels 0 … n_classes - 1.
    class_names : sequence of str, optional
        Names of the hyperedges made from this; the numbers where not given.

    Attributes
    ----------
    n_classes : int
    class_names : tuple of str or None
    n_inputs : ndarray (n_classes,), int64
        Inputs seen of each class.
    layers : dict of str to int
        Number of SVD neurons of each layer; empty before the first update.

    Notes
    -----
    Memory 16 n_classes Σ n_neurons bytes, however many inputs pass. Counts are exact; results do not depend on how the
    inputs were split into batches, but for the rounding of weights. One thread at a time: give each its own, then
    `merge`.

    Examples
    --------
    >>> import numpy as np, brockett as bk
    >>> profiles = bk.hypergraph.ClassProfiles(2)
    >>> found = bk.hypergraph.influential(np.eye(2), [[3.0, 1.0], [0.0, 2.0], [5.0, 0.0]])
    >>> profiles.update(found, [0, 1, 0])
    >>> profiles.counts("layer").tolist(), profiles.n_inputs.tolist()
    ([[2, 0], [0, 1]], [2, 1])
    """

    def __init__(self, n_classes: int, class_names: Sequence[str] | None = None) -> None:
        self.n_classes = _options.count("n_classes", n_classes, least=1)
        self.class_names = _names(class_names, self.n_classes)
        self.n_inputs: npt.NDArray[np.int64] = np.zeros(self.n_classes, dtype=np.int64)
        self._counts: dict[str, npt.NDArray[np.int64]] = {}
        self._sums: dict[str, Matrix] = {}

    @property
    def layers(self) -> dict[str, int]:
        """Number of SVD neurons of each layer, in the order of the first update."""
        return {name: int(counts.shape[1]) for name, counts in self._counts.items()}

    def update(self, found: Influential | Mapping[str, Influential], labels: Any) -> None:
        """Add a batch of inputs.

        Parameters
        ----------
        found : Influential, or mapping of str to Influential
            By layer; one without a name is "layer". The same layers in every update.
        labels : array_like (n_inputs,), integers
            Class of each input.

        Raises
        ------
        InvalidArgument
            Labels outside 0 … n_classes - 1 or not one per input, layers or numbers of neurons that differ from those
            seen before. Nothing is added then.
        """
        batch = by_layer(found)
        sizes = {name: one.n_neurons for name, one in batch.items()}
        if self._counts and sizes != self.layers:
            raise InvalidArgument("found", f"expected the layers and neurons seen before, {self.layers}, got {sizes}")
        n_inputs = next(iter(batch.values())).n_inputs
        classes = class_labels(labels, n_inputs, self.n_classes)
        present, place = np.unique(classes, return_inverse=True)
        one_hot = (place[None, :] == np.arange(len(present))[:, None]).astype(np.float64)
        # All sums first: what fails must leave everything as it was.
        added = {name: (one_hot @ one.mask, one_hot @ one.weights) for name, one in batch.items()}
        for name, (counts, sums) in added.items():
            if name not in self._counts:
                self._counts[name] = np.zeros((self.n_classes, sizes[name]), dtype=np.int64)
                self._sums[name] = np.zeros((self.n_classes, sizes[name]))
            self._counts[name][present] += np.rint(counts).astype(np.int64)
            self._sums[name][present] += sums
        self.n_inputs[present] += np.bincount(place, minlength=len(present))

    def merge(self, other: ClassProfiles) -> None:
        """Add what another one holds, which is left as it is.

        Parameters
        ----------
        other : ClassProfiles
            Of the same classes and layers.

        Raises
        ------
        InvalidArgument
            These differ.
        """
        if not isinstance(other, ClassProfiles):
            raise InvalidType("other", f"expected ClassProfiles, got {type(other).__name__}")
        if (other.n_classes, other.class_names) != (self.n_classes, self.class_names):
            raise InvalidArgument(
                "other",
                f"is of {other.n_classes} classes {other.class_names or ''}, this one of {self.n_classes} "
                f"{self.class_names or ''}",
            )
        if not other._counts:
            return
        if self._counts and other.layers != self.layers:
            raise InvalidArgument("other", f"is of layers {other.layers}, this one of {self.layers}")
        for name, counts in other._counts.items():
            self._counts[name] = counts + self._counts.get(name, np.int64(0))
            self._sums[name] = other._sums[name] + self._sums.get(name, 0.0)
        self.n_inputs = self.n_inputs + other.n_inputs

    def counts(self, layer: str = ONE_LAYER) -> npt.NDArray[np.int64]:
        """For how many inputs of each class a neuron was influential.

        Parameters
        ----------
        layer : str, default "layer"

        Returns
        -------
        counts : ndarray (n_classes, n_neurons), int64
            A copy.
        """
        return np.array(self._of(layer, self._counts), dtype=np.int64)

    def frequencies(self, layer: str = ONE_LAYER) -> Matrix:
        """`counts` as shares of the inputs of each class.

        Parameters
        ----------
        layer : str, default "layer"

        Returns
        -------
        frequencies : ndarray (n_classes, n_neurons), float64
            0 for classes without inputs.
        """
        shares: Matrix = self._of(layer, self._counts) / np.maximum(self.n_inputs, 1)[:, None]
        return shares

    def weights(self, layer: str = ONE_LAYER) -> Matrix:
        """Mean weight of a neuron over the inputs of a class for which it was influential.

        Parameters
        ----------
        layer : str, default "layer"

        Returns
        -------
        weights : ndarray (n_classes, n_neurons), float64
            0 where there were none.
        """
        mean: Matrix = self._of(layer, self._sums) / np.maximum(self._counts[layer], 1)
        return mean

    def _of(self, layer: str, values: Mapping[str, Any]) -> Any:
        if layer not in values:
            raise InvalidArgument("layer", f"there is no layer {layer!r}; there are {list(values)}")
        return values[layer]

    def save(self, path: _files.PathLike) -> None:
        """Write everything held to an `.npz` file, atomically.

        Parameters
        ----------
        path : path-like
            Taken as given. The file appears whole or not at all, an older one stays until then.
        """
        arrays: dict[str, npt.ArrayLike] = {
            "format": np.array(_FORMAT),
            "n_inputs": self.n_inputs,
            "class_names": np.array(self.class_names or (), dtype=np.str_),
            "layers": np.array(list(self._counts), dtype=np.str_),
        }
        for i, name in enumerate(self._counts):
            arrays[f"counts_{i}"] = self._counts[name]
            arrays[f"weights_{i}"] = self._sums[name]
        _files.save_npz(path, arrays)

    @classmethod
    def load(cls, path: _files.PathLike) -> ClassProfiles:
        """Read what `save` wrote.

        Parameters
        ----------
        path : path-like

        Returns
        -------
        profiles : ClassProfiles

        Raises
        ------
        FileFormatError
            The file is damaged, truncated, a pickle, or was not written by `save`.
        OSError
            The file cannot be opened.
        """
        data = _files.load_npz(path, ("format", "n_inputs", "class_names", "layers"))
        try:
            if str(data["format"]) != _FORMAT:
                raise ValueError(f"its format is {str(data['format'])!r}, expected {_FORMAT!r}")
            n_inputs = _plain(data["n_inputs"], "iu", "n_inputs", 1)
            names = [str(name) for name in data["class_names"]]
            new = cls(len(n_inputs), names or None)
            new.n_inputs = n_inputs.astype(np.int64)
            for i, name in enumerate(str(name) for name in data["layers"]):
                counts = _plain(data[f"counts_{i}"], "iu", f"counts_{i}", 2)
                sums = _plain(data[f"weights_{i}"], "f", f"weights_{i}", 2)
                if name in new._counts:
                    raise ValueError(f"layer {name!r} is there twice")
                if counts.shape != sums.shape or len(counts) != new.n_classes or np.any(counts > n_inputs[:, None]):
                    raise ValueError(f"counts and weights of layer {name!r} do not fit")
                if counts.shape[1] == 0:
                    raise ValueError(f"layer {name!r} has no neurons")
                if np.any(sums[counts == 0] != 0):
                    raise ValueError(f"layer {name!r} has weights where no input was counted")
                new._counts[name] = counts.astype(np.int64)
                new._sums[name] = sums.astype(np.float64)
            if new.n_inputs.any() and not new._counts:
                raise ValueError("inputs were counted, but there is no layer")
        except (ValueError, TypeError, KeyError, BrockettError) as error:
            raise FileFormatError(f"{path}: is not a file of class profiles saved by brockett ({error})") from error
        return new


def _plain(array: npt.NDArray[Any], kinds: str, name: str, ndim: int) -> npt.NDArray[Any]:
    if array.ndim != ndim or array.dtype.kind not in kinds:
        raise ValueError(f"{name} has shape {array.shape} and dtype {array.dtype}")
    if kinds == "iu" and array.size and (array.min() < 0 or array.max() > np.iinfo(np.int64).max):
        raise ValueError(f"{name} holds counts from {array.min()} to {array.max()}")
    if kinds == "f" and not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or Inf")
    return array


def by_layer(found: Any) -> dict[str, Influential]:
    batch = {ONE_LAYER: found} if isinstance(found, Influential) else found
    if not isinstance(batch, Mapping) or not all(isinstance(one, Influential) for one in batch.values()):
        raise InvalidType("found", f"expected Influential, or a mapping of layers to it, got {type(found).__name__}")
    if not batch:
        raise InvalidArgument("found", "expected at least one layer, got none")
    rows = {str(name): one.n_inputs for name, one in batch.items()}
    if len(set(rows.values())) > 1:
        raise InvalidArgument("found", f"its layers hold different numbers of inputs: {rows}")
    return {str(name): one for name, one in batch.items()}


def _names(names: Sequence[str] | None, n: int) -> tuple[str, ...] | None:
    if names is None:
        return None
    if isinstance(names, str):
        raise InvalidType("class_names", f"expected a sequence of names, got the single name {names!r}")
    listed = tuple(str(name) for name in names)
    if len(listed) != n:
        raise InvalidArgument("class_names", f"expected {n}, one a class, got {len(listed)}")
    if len(set(listed)) != n:
        raise InvalidArgument("class_names", "holds a name twice")
    return listed


def class_labels(labels: Any, n_inputs: int, n_classes: int) -> npt.NDArray[np.int64]:
    """Class of each input; refused by the first place that is wrong."""
    array = np.asarray(_host(labels))
    if array.shape != (n_inputs,):
        raise InvalidArgument("labels", f"expected one per input, shape ({n_inputs},), got {array.shape}")
    if array.size and array.dtype.kind not in "iu":
        raise InvalidType("labels", f"expected integers, got {array.dtype}")
    outside = (array < 0) | (array >= n_classes)
    if outside.any():
        i = int(np.argmax(outside))
        raise InvalidArgument("labels", f"expected classes 0 … {n_classes - 1}, got {array[i]} at index {i}")
    return array.astype(np.int64)


def _host(value: Any) -> Any:
    """Labels of any library as NumPy, their integer dtype kept: `accept` would make them floats."""
    if isinstance(value, list | tuple | np.ndarray):
        return value
    if hasattr(value, "detach"):
        return value.detach().cpu().numpy()
    if hasattr(value, "get") and hasattr(value, "__cuda_array_interface__"):
        return value.get()
    return np.from_dlpack(value) if hasattr(value, "__dlpack__") and not hasattr(value, "__array__") else value
