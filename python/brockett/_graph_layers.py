"""Layers of a spectral graph as callers give them (arrays, mappings, objects with a weight), and their edges."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _arrays, _options
from ._arrays import Operand, Space
from ._errors import InvalidArgument, InvalidType

__all__ = ["GraphLayer", "accept_edges", "accept_layers", "exchanged", "layers_of_source", "transition"]

#: What a mapping may hold; objects are asked for the same names.
KEYS = ("weight", "bias", "norm", "groups", "transposed", "name")


@dataclass(frozen=True, eq=False)
class GraphLayer:
    """One linear map of a spectral graph.

    Attributes
    ----------
    name : str
    n_out, n_in : int
        Output and input neurons; channels, of a convolution.
    kernel : tuple of int
        Shape of its kernel; empty for a fully connected layer.
    groups : int
    bias : ndarray (n_out,), float64, or None
        As given, the normalization folded in. It has no part in the graph.
    """

    name: str
    n_out: int
    n_in: int
    kernel: tuple[int, ...]
    groups: int
    bias: npt.NDArray[np.float64] | None
    operand: Operand

    @property
    def convolutional(self) -> bool:
        return len(self.kernel) > 0

    @property
    def positions(self) -> int:
        """Size of the kernel."""
        return math.prod(self.kernel)

    def __repr__(self) -> str:
        kind = f"convolution {'×'.join(map(str, self.kernel))}" if self.kernel else "fully connected"
        groups = f", {self.groups} groups" if self.groups > 1 else ""
        return f"{self.name}: {kind}, {self.n_in} → {self.n_out}{groups}"


def accept_layers(layers: Any) -> tuple[list[GraphLayer], Space]:
    """Layers as the engines take them, and the space that they share."""
    if isinstance(layers, Mapping):
        if "weight" in layers and not isinstance(layers["weight"], Mapping):
            raise InvalidType("layers", "is one layer; expected a sequence of layers, or a mapping of names to layers")
        items = [(str(name), f"layers[{name!r}]", layer) for name, layer in layers.items()]
    elif isinstance(layers, Iterable) and not isinstance(layers, str | bytes) and not hasattr(layers, "__array__"):
        items = [("", f"layers[{k}]", layer) for k, layer in enumerate(layers)]
    else:
        raise InvalidType("layers", f"expected a sequence of layers, got {type(layers).__name__}")
    if not items:
        raise InvalidArgument("layers", "expected at least one layer, got none")
    parts = [(name or f"layer {k}", _parts(layer, label)) for k, (name, label, layer) in enumerate(items)]
    weights = [
        _arrays.accept(_weight(part, label), label) for (_, part), (_, label, _) in zip(parts, items, strict=True)
    ]
    space = _arrays.common_space(*weights)
    names = [str(part.get("name") or name) for name, part in parts]
    twice = next((name for k, name in enumerate(names) if name in names[:k]), None)
    if twice is not None:
        raise InvalidArgument("layers", f"two of them have the name {twice!r}")
    return [
        _layer(weight.in_space(space), space, name, part)
        for weight, name, (_, part) in zip(weights, names, parts, strict=True)
    ], space


def layers_of_source(
    source: Any,
    edges: Sequence[tuple[int | str, int | str]] | None,
    method: str,
    select: str | Sequence[str] | None = None,
) -> tuple[dict[str, Any], Sequence[tuple[int | str, int | str]]]:
    """Layers of a file, a module or a model, and their edges: given, its own where shapes fit, or neighbours."""
    from .models._load import chosen_layers, open_model
    from .models._model import Model, some

    with contextlib.ExitStack() as stack:
        model = source if isinstance(source, Model) else stack.enter_context(open_model(source, "layers"))
        chosen = chosen_layers(model, select)
        taken: dict[str, Any] = {}
        for one in chosen:
            weight = one.read()
            # What an embedding writes are its features, the columns of its table.
            taken[one.name] = {"weight": weight.T if one.kind == "embedding" else weight}
            if one.groups > 1:
                taken[one.name]["groups"] = one.groups
        own = model.edges
    if edges is not None:
        return taken, edges
    pairs = itertools.pairwise(taken) if own is None else (pair for pair in own if set(pair) <= set(taken))
    found = _fitting(taken, list(pairs), method)
    if not found and len(taken) > 1:
        named = some(list(taken))
        raise InvalidArgument("edges", f"no layer of {named} has the inputs that the one before writes: give them")
    return taken, found


def _fitting(
    layers: Mapping[str, Any], pairs: Sequence[tuple[str, str]], method: str
) -> list[tuple[int | str, int | str]]:
    """Those of the pairs whose shapes fit."""
    accepted = {layer.name: layer for layer in accept_layers(layers)[0]}
    found: list[tuple[int | str, int | str]] = []
    for a, b in pairs:
        try:
            transition(accepted[a], accepted[b], method, "layers")
        except InvalidArgument:
            continue
        found.append((a, b))
    return found


def _parts(layer: Any, label: str) -> dict[str, Any]:
    """What KEYS say of a layer."""
    if isinstance(layer, Mapping):
        unknown = sorted(set(layer) - set(KEYS))
        if unknown:
            raise InvalidArgument(label, f"expected the keys {', '.join(KEYS)}, got {', '.join(map(repr, unknown))}")
        return dict(layer)
    if hasattr(layer, "weight"):  # torch.nn.Linear, torch.nn.Conv2d and what looks like them
        return {key: getattr(layer, key, None) for key in KEYS}
    return {"weight": layer}


def _weight(part: dict[str, Any], label: str) -> Any:
    weight = part.get("weight")
    if weight is None:
        raise InvalidArgument(label, "has no weight")
    return weight


def _layer(operand: Operand, space: Space, name: str, part: dict[str, Any]) -> GraphLayer:
    label = operand.argument
    if operand.ndim < 2:
        raise InvalidArgument(
            label,
            f"expected weights (out, in) or (out, in, kernel…), got shape {operand.shape}; a bias or a normalization "
            "comes with the weight that it belongs to, as {'weight': …, 'bias': …, 'norm': …}",
        )
    groups = 1 if part.get("groups") is None else _options.count(f"{label}.groups", part["groups"], least=1)
    turn = part.get("transposed") is not None and _options.flag(f"{label}.transposed", part["transposed"])
    if turn and math.prod(operand.shape) > 0:
        operand = exchanged(operand, groups)
    n_out, kernel = operand.shape[0], tuple(operand.shape[2:])
    if groups > 1 and n_out % groups:
        raise InvalidArgument(label, f"{n_out} output channels do not divide into {groups} groups")
    operand = _arrays.unfolded(operand)
    bias = None if part.get("bias") is None else _arrays.host_vector(part["bias"], f"{label}.bias", n_out, space)
    if part.get("norm") is not None:
        operand, bias = _folded(operand, bias, part["norm"], n_out, space)
    return GraphLayer(name, n_out, operand.shape[1] * groups, kernel, groups, bias, operand)


def exchanged(operand: Operand, groups: int) -> Operand:
    """Weights (in, out / groups, k…) of a transposed convolution as (out, in / groups, k…)."""
    xp, shape = operand.space.xp, operand.shape
    if shape[0] % groups:
        raise InvalidArgument(operand.argument, f"{shape[0]} input channels do not divide into {groups} groups")
    inputs, outputs = shape[0] // groups, shape[1]
    blocks = xp.reshape(operand.array, (groups, inputs, outputs, math.prod(shape[2:])))
    array = xp.reshape(xp.permute_dims(blocks, (0, 2, 1, 3)), (groups * outputs, inputs, *shape[2:]))
    return replace(operand, array=array, shape=tuple(array.shape))


def _folded(
    operand: Operand, bias: npt.NDArray[np.float64] | None, norm: Any, n: int, space: Space
) -> tuple[Operand, npt.NDArray[np.float64]]:
    """W and b with the batch normalization y ↦ γ (y - μ) / √(v + ε) + β that follows: row i times γᵢ / √(vᵢ + ε)."""
    label = f"{operand.argument}.norm"

    def get(key: str) -> Any:
        return norm.get(key) if isinstance(norm, Mapping) else getattr(norm, key, None)

    def vector(key: str, default: float) -> npt.NDArray[np.float64]:
        value = get(key)
        return np.full(n, default) if value is None else _arrays.host_vector(value, f"{label}.{key}", n, space)

    if get("running_var") is None:
        raise InvalidArgument(label, "expected a batch normalization with running_mean and running_var")
    variance = vector("running_var", 1.0)
    eps = 1e-5 if get("eps") is None else _options.number(f"{label}.eps", get("eps"), least=0)
    if np.any(variance + eps <= 0):
        raise InvalidArgument(f"{label}.running_var", f"expected variances above 0, the smallest is {variance.min():g}")
    factor = vector("weight", 1.0) / np.sqrt(variance + eps)
    offset = vector("bias", 0.0) - vector("running_mean", 0.0) * factor
    xp = space.xp
    scale = xp.asarray(factor, dtype=operand.array.dtype, device=space.xp_device)
    return operand.with_array(operand.array * scale[:, None]), offset + (0 if bias is None else bias * factor)


# --- edges ------------------------------------------------------------------------------------------------------------


def accept_edges(edges: Any, layers: Sequence[GraphLayer]) -> tuple[tuple[int, int], ...]:
    """Pairs of layer numbers; by default each layer and the next."""
    if edges is None:
        return tuple((k, k + 1) for k in range(len(layers) - 1))
    if isinstance(edges, str | bytes) or not isinstance(edges, Iterable):
        raise InvalidType("edges", f"expected pairs of layers, got {edges!r}")
    found: list[tuple[int, int]] = []
    for k, edge in enumerate(edges):
        if isinstance(edge, str) or not isinstance(edge, Sequence) or len(edge) != 2:
            raise InvalidArgument(f"edges[{k}]", f"expected a pair (from, to), got {edge!r}")
        pair = (layer_number(f"edges[{k}]", edge[0], layers), layer_number(f"edges[{k}]", edge[1], layers))
        if pair in found:
            raise InvalidArgument(f"edges[{k}]", f"{edge!r} is given twice")
        found.append(pair)
    return tuple(found)


def layer_number(argument: str, layer: Any, layers: Sequence[GraphLayer]) -> int:
    """The number of a layer given by its number or its name."""
    if isinstance(layer, str):
        numbers = [k for k, one in enumerate(layers) if one.name == layer]
        if len(numbers) != 1:
            known = ", ".join(repr(one.name) for one in layers)
            raise InvalidArgument(argument, f"expected one of the layers {known}, got {layer!r}")
        return numbers[0]
    return _options.count(argument, layer, most=len(layers) - 1)


@dataclass(frozen=True)
class Transition:
    """What an edge sums over: channels in common, and positions on either side, with the shapes of their axes."""

    channels: int
    source_shape: tuple[int, ...]
    target_shape: tuple[int, ...]

    @property
    def positions(self) -> tuple[int, int]:
        return math.prod(self.source_shape), math.prod(self.target_shape)


def transition(source: GraphLayer, target: GraphLayer, method: str, argument: str) -> Transition:
    """How the outputs of `source` meet the inputs of `target`; refused where they do not."""
    from_shape = source.kernel if method == "cosvr" else ()
    to_shape = target.kernel if method == "svr" else ()
    a, b = source.n_out, target.n_in
    if a == b:
        return Transition(a, from_shape, to_shape)
    if source.convolutional and not target.convolutional and b % a == 0:  # flattened: channels before positions
        return Transition(a, from_shape, (b // a,))
    if target.convolutional and not source.convolutional and a % b == 0:
        return Transition(b, (a // b,), to_shape)
    expected = f"{a} inputs (channels)" if target.convolutional else f"{a} inputs"
    if source.convolutional and not target.convolutional:
        expected += f", or {a} times the number of positions"
    hint = ""
    if target.convolutional and target.groups == 1 and a % b == 0:
        hint = f"; a convolution of {a // b} groups is given as {{'weight': …, 'groups': {a // b}}}"
    raise InvalidArgument(
        argument, f"{target.name} follows {source.name}, which has {a} outputs: expected {expected}, got {b}{hint}"
    )
