"""What a model is once it is loaded: layers that are read on demand, and what they are made of."""

from __future__ import annotations

import contextlib
import fnmatch
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, overload

from .. import _arrays
from .._errors import InvalidArgument, InvalidType

__all__ = ["Layer", "Model", "Norm", "Resource", "Tensor", "conv_kind", "matches", "uniquely_named", "why_declined"]


class Resource:
    """The files of a model: open until the model is closed, or until nobody holds one of its layers any more."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.closed = False
        self._stack = contextlib.ExitStack()

    def keep(self, file: Any) -> Any:
        """Close `file` with the model."""
        return self._stack.enter_context(file)

    def close(self) -> None:
        self.closed = True
        self._stack.close()

    def check(self, name: str) -> None:
        if self.closed:
            raise InvalidArgument(name, f"{self.source} was closed: read its layers inside the with block")

    def __del__(self) -> None:
        try:  # noqa: SIM105  # as Python ends, contextlib's names may be gone, too
            self.close()
        except Exception:  # h5py's names are then: nobody is left to tell
            pass


@dataclass(frozen=True, eq=False)
class Tensor:
    """One array as it is stored, not read yet.

    Attributes
    ----------
    name : str
        As in the file, without the prefixes of wrappers.
    shape : tuple of int
    dtype : str
        In the words of the file: "F16", "float32", "qint8", …
    read : callable
        Read it: an array.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], Any] = field(repr=False)


@dataclass(frozen=True, eq=False)
class Norm:
    """A batch normalization that follows a layer: y ↦ γ (y - μ) / √(v + ε) + β.

    `convolution.fold_batch_norm` and the ``norm`` of `spectral_graph`'s layers take it as it is.

    Attributes
    ----------
    name : str
        Of its layer in the model.
    eps : float
        ε. State dicts do not hold it: then it is PyTorch's default, 1e-5.
    running_mean, running_var : array (n_out,)
        μ and v; read when asked for.
    weight, bias : array (n_out,) or None
        γ and β.
    """

    name: str
    eps: float
    tensors: Mapping[str, Tensor] = field(repr=False)
    _resource: Resource = field(repr=False)

    def _read(self, role: str) -> Any:
        if role not in self.tensors:
            return None
        self._resource.check(self.tensors[role].name)
        return self.tensors[role].read()

    @property
    def running_mean(self) -> Any:
        return self._read("running_mean")

    @property
    def running_var(self) -> Any:
        return self._read("running_var")

    @property
    def weight(self) -> Any:
        return self._read("weight")

    @property
    def bias(self) -> Any:
        return self._read("bias")


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer of a model. Its weights are read each time they are asked for, and not kept.

    Attributes
    ----------
    name : str
        Of its weights, as in the file without the prefixes of wrappers ("module.", "_orig_mod."); of one part of
        stacked weights with that part: "rnn.weight_ih_l0[i]".
    kind : str
        "linear", "conv1d" … "conv3d", with "grouped ", "depthwise " and "transposed " before it; "embedding" (entries,
        features); "norm"; "recurrent", "recurrent gate"; "qkv" (stacked projections of attention), "qkv part"; "" where
        that is not known.
    shape : tuple of int
        Of `weight`: (out, in / groups, k…), however the file has it.
    dtype : str
        As stored, in the words of the file.
    groups : int
        Of a grouped convolution. Files of tensors without a graph do not tell, so 1 there.
    declined : str
        Why there is no matrix of weights; empty where there is one.
    norm : Norm or None
        The batch normalization that follows, where that is known.
    tensors : mapping of str to Tensor
        What it is made of, as stored: "weight", "bias", "running_mean", "scale", …; pruned weights and what a module
        parametrizes as the layer works with them.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    dtype: str
    groups: int
    declined: str
    norm: Norm | None
    tensors: Mapping[str, Tensor] = field(repr=False)
    _weight: Callable[[], Any] = field(repr=False)
    _bias: Callable[[], Any] | None = field(repr=False)
    _resource: Resource = field(repr=False)

    def __repr__(self) -> str:
        why = f", declined: {self.declined}" if self.declined else ""
        groups = f", {self.groups} groups" if self.groups > 1 else ""
        return (
            f"Layer({self.name}: {self.kind or 'unknown'}, {'×'.join(map(str, self.shape))} {self.dtype}{groups}{why})"
        )

    def read(self) -> Any:
        """The weights, whatever they hold.

        Returns
        -------
        weight : array (out, in / groups, k…)
            Oriented, dequantized, bfloat16 as float32. NumPy from files (read-only where the file is mapped); a
            module's or caller's own array where nothing had to be done to it, in its library and on its device.

        Raises
        ------
        InvalidArgument
            The model was closed, or the numbers cannot be read (see `declined`).
        FileFormatError, OSError
            The file is damaged, or gone.
        """
        self._resource.check(self.name)
        return self._weight()

    @property
    def weight(self) -> Any:
        """The weights (out, in / groups, k…), as `read` gives them; NaN or Inf is an error that names the tensor."""
        weight = self.read()
        _arrays.check_finite(_arrays.accept(weight, self.name))
        return weight

    @property
    def bias(self) -> Any:
        """The bias (out,), or None."""
        self._resource.check(self.name)
        return None if self._bias is None else self._bias()

    def folded(self) -> tuple[Any, Any]:
        """Weights and bias with the batch normalization that follows, by `convolution.fold_batch_norm`.

        Returns
        -------
        weight, bias : array (out, in / groups, k…), array (out,)
            As they are (and the bias None, if there is none) where no normalization is known to follow.

        Raises
        ------
        NonFinite, InvalidArgument
            As `fold_batch_norm`.
        """
        from ..convolution import fold_batch_norm

        if self.norm is None:
            return self.weight, self.bias
        return fold_batch_norm(self.weight, self.bias, self.norm)

    def with_norm_folded(self) -> Layer:
        """The layer and the normalization that follows it as one layer.

        Returns
        -------
        layer : Layer
            Whose weights and bias are those of `folded`, computed when they are read; the same layer where no
            normalization is known to follow.
        """
        if self.norm is None or self.declined:
            return self
        return replace(self, norm=None, _weight=lambda: self.folded()[0], _bias=lambda: self.folded()[1])


class Model(Sequence[Layer]):
    """The layers of a network, each read when it is asked for. Made by `load`.

    A sequence of layers that also takes names, ``model["fc.weight"]``, and a context manager that closes the files.

    Attributes
    ----------
    source : str
        Where it comes from.
    edges : list of (str, str) or None
        Names of layers between which data flows with no other layer of weights between them, where the source tells
        (ONNX, Keras files with the model's configuration); None where it does not: state dicts and modules hold no
        graph.
    """

    def __init__(
        self, layers: Sequence[Layer], resource: Resource, edges: Sequence[tuple[str, str]] | None = None
    ) -> None:
        self._layers = tuple(layers)
        self._resource = resource
        self._numbers = {layer.name: k for k, layer in enumerate(self._layers)}
        self.edges = None if edges is None else list(edges)

    @property
    def source(self) -> str:
        return self._resource.source

    @property
    def names(self) -> list[str]:
        """Names of the layers, in order."""
        return [layer.name for layer in self._layers]

    @overload
    def __getitem__(self, layer: int | str) -> Layer: ...

    @overload
    def __getitem__(self, layer: slice) -> Model: ...

    def __getitem__(self, layer: int | str | slice) -> Layer | Model:
        if isinstance(layer, slice):
            return self._part(self._layers[layer])
        if isinstance(layer, str):
            if layer not in self._numbers:
                raise InvalidArgument("layer", f"{self.source} has no {layer!r}; there are {some(self.names)}")
            return self._layers[self._numbers[layer]]
        return self._layers[layer]

    def __len__(self) -> int:
        return len(self._layers)

    def __contains__(self, layer: object) -> bool:
        return layer in self._numbers if isinstance(layer, str) else layer in self._layers

    def __iter__(self) -> Iterator[Layer]:
        return iter(self._layers)

    def __repr__(self) -> str:
        usable = sum(not layer.declined for layer in self._layers)
        return f"Model({self.source}: {usable} layers of weights, {len(self) - usable} others)"

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files; layers cannot be read after that. Without it they close with the last layer that is held."""
        self._resource.close()

    def select(self, pattern: str | Sequence[str]) -> Model:
        """The layers whose names match.

        Parameters
        ----------
        pattern : str or sequence of str
            Names, or patterns such as ``"encoder.*.weight"``; one that matches is enough.

        Returns
        -------
        model : Model
            Of the same files; closing either closes both.

        Raises
        ------
        InvalidArgument
            Nothing matches.
        """
        chosen = [layer for layer in self._layers if matches(layer.name, pattern)]
        if not chosen:
            raise InvalidArgument("select", f"no layer matches {pattern!r}; there are {some(self.names)}")
        return self._part(chosen)

    def _part(self, layers: Sequence[Layer]) -> Model:
        names = {layer.name for layer in layers}
        edges = None if self.edges is None else [pair for pair in self.edges if names.issuperset(pair)]
        return Model(layers, self._resource, edges)


def uniquely_named(layers: Sequence[Layer]) -> list[Layer]:
    """Names are keys: a second layer of the same name gets a number."""
    times: Counter[str] = Counter()
    taken: set[str] = set()
    found = []
    for layer in layers:
        name = layer.name
        while name in taken:
            times[layer.name] += 1
            name = f"{layer.name} ({times[layer.name] + 1})"
        taken.add(name)
        found.append(layer if name == layer.name else replace(layer, name=name))
    return found


def some(names: Sequence[str]) -> str:
    """The first of many names, for a message."""
    return ", ".join(names[:8]) + (" …" if len(names) > 8 else "")


def matches(name: str, select: str | Sequence[str] | None) -> bool:
    """Whether a name is, or matches, one of the patterns; as a pattern, one with brackets would not match itself."""
    if select is None:
        return True
    patterns = [select] if isinstance(select, str) else select
    if not isinstance(patterns, Sequence) or not all(isinstance(one, str) for one in patterns):
        raise InvalidType("select", f"expected a pattern, or a sequence of them, got {select!r}")
    return any(name == pattern or fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def why_declined(shape: tuple[int, ...], dtype: str) -> str:
    """Why numbers of this kind are no matrix of weights; empty where they are."""
    word = dtype.lower()
    if word.startswith(("c", "complex")):
        return f"complex numbers ({dtype})"
    if word.startswith(("i", "u", "b")) and not word.startswith("bf"):
        return f"{dtype}: integers or booleans, quantized weights or an index; dequantize to analyse"
    if word in ("v2", "|v2") or word.startswith(("f8_", "float8", "float4", "f4", "f6_", "v", "|v", "q")):
        return f"{dtype}: quantized or unknown numbers; dequantize to analyse"
    if not word.startswith(("f", "bf", "<f", ">f", "float")):
        return f"{dtype}: no real numbers"
    if len(shape) < 2:
        return "no axes: a number" if not shape else "one axis: a bias or a normalization"
    if len(shape) > 5:
        return f"{len(shape)} axes: no layer that is known here"
    return "empty" if math.prod(shape) == 0 else ""


def conv_kind(axes: int, groups: int = 1, channels_in: int = 0, transposed: bool = False) -> str:
    """The word for a convolution over `axes` axes, `channels_in` channels in all going in."""
    how = "" if groups == 1 else "depthwise " if groups == channels_in else "grouped "
    return f"{how}{'transposed ' if transposed else ''}conv{axes}d"
