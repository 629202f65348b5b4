"""Keras files: HDF5 of either layout and `.keras` archives; kernels (k…, in, out) as (out, in, k…)."""

from __future__ import annotations

import io
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import _arrays, _files
from .._errors import FileFormatError
from ._keras_graph import KerasGraph, Path, snake
from ._model import Layer, Norm, Resource, Tensor, conv_kind, uniquely_named, why_declined
from ._names import parts_of
from ._tensor_files import natural

__all__ = ["keras_layers"]

_ROLES = (
    "kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance", "depthwise_kernel", "pointwise_kernel",
    "embeddings", "recurrent_kernel",
)  # fmt: skip
_GATES = {"lstm": "ifco", "gru": "zrh", "simple_rnn": ""}
#: Variables in the order in which Keras 3 numbers them.
_NUMBERED = {
    "separable_conv": ("depthwise_kernel", "pointwise_kernel", "bias"),
    "embedding": ("embeddings",),
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
    "layer_normalization": ("gamma", "beta"),
    "group_normalization": ("gamma", "beta"),
    "lstm": ("kernel", "recurrent_kernel", "bias"),
    "gru": ("kernel", "recurrent_kernel", "bias"),
    "simple_rnn": ("kernel", "recurrent_kernel", "bias"),
}
#: The projections of MultiHeadAttention by the name of their group: whether heads are among the inputs.
_HEADS = {
    "query_dense": False, "key_dense": False, "value_dense": False, "output_dense": True,
    "query": False, "key": False, "value": False, "attention_output": True,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Unit:
    """What one Keras layer stores: `kind` is its class in snake case, `node` its place in the configuration.

    `name` is the layer's own after those of the layers that hold it, `place` where it lies in the file.
    """

    name: str
    place: str
    kind: str
    node: Path
    last: str
    variables: Mapping[str, Tensor]


def keras_layers(
    path: str, resource: Resource, split: Sequence[str], *, zipped: bool
) -> tuple[list[Layer], list[tuple[str, str]] | None]:
    """The layers of a file, and which follows which where the file has the configuration of the model."""
    try:
        import h5py
    except ImportError as error:
        raise ImportError("reading Keras files needs h5py: pip install 'brockett[models]'") from error
    with _files._refuse_damage(path):
        if zipped:
            content, config = _unzipped(path)
            file = resource.keep(h5py.File(io.BytesIO(content), "r"))
        else:
            file = resource.keep(h5py.File(path, "r"))
            config = _config(file.attrs.get("model_config"))
        graph = KerasGraph(config)
        reading = _Reading(path, h5py, graph)
        weights = reading.group(file, "model_weights") if "model_weights" in file else file
        names = _listed(weights.attrs, "layer_names")
        units = _told_apart(list(reading.legacy(weights, names) if names is not None else reading.numbered(file)))
        layers: list[Layer] = []
        owners: list[Path] = []
        for unit in units:
            made = _Layers(unit, graph.settings(unit.node), resource, split).made()
            layers += made
            owners += [unit.node] * len(made)
    if not layers:
        raise FileFormatError(f"{path}: is HDF5, but holds no layers of Keras")
    layers = uniquely_named(layers)
    if config is None:
        return layers, None
    weighty = {k: node for k, node in enumerate(owners) if len(layers[k].shape) > 1}
    states = {k for k in weighty if "/recurrent_kernel" in layers[k].name}
    norms = {node for k, node in enumerate(owners) if layers[k].kind == "norm"}
    with _files._refuse_damage(path):  # a configuration can be anything
        edges, follows = graph.walk(weighty, states, norms)
        for k, node in weighty.items():
            norm = next((one for one, it in zip(layers, owners, strict=True) if it == follows.get(node)), None)
            if norm is not None and norm.shape == (layers[k].shape[0],) and "running_mean" in norm.tensors:
                eps = float(graph.settings(follows[node]).get("epsilon", 1e-3))
                layers[k] = replace(layers[k], norm=Norm(norm.name, eps, norm.tensors, resource))
    return layers, [(layers[a].name, layers[b].name) for a, b in edges]


def _told_apart(units: Sequence[_Unit]) -> list[_Unit]:
    """Layers that share a name, as those of one class within another may, have that of their place in the file."""
    times = Counter(unit.name for unit in units)

    def moved(tensor: Tensor, unit: _Unit) -> Tensor:
        return replace(tensor, name=f"{unit.place}/{tensor.name.rpartition('/')[2]}")

    return [
        unit if times[unit.name] == 1
        else replace(unit, variables={role: moved(one, unit) for role, one in unit.variables.items()})
        for unit in units
    ]  # fmt: skip


def _unzipped(path: str) -> tuple[bytes, Any]:
    import zipfile

    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.compress_type != zipfile.ZIP_STORED and info.file_size > 1100 * max(info.compress_size, 1):
                raise ValueError(f"entry {info.filename!r} announces an impossible compression ratio")
        config = archive.read("config.json") if "config.json" in archive.namelist() else None
        return archive.read("model.weights.h5"), _config(config)


def _config(text: Any) -> Any:
    if text is None:
        return None
    found = json.loads(text)
    return found if isinstance(found, dict) else None


def _listed(attributes: Any, name: str) -> list[str] | None:
    """A list of names; long ones are cut into name0, name1, …"""
    if name in attributes:
        values = list(attributes[name])
    elif f"{name}0" in attributes:
        chunks = sorted((one for one in attributes if re.fullmatch(rf"{name}\d+", one)), key=natural)
        values = [value for chunk in chunks for value in attributes[chunk]]
    else:
        return None
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


class _Reading:
    def __init__(self, path: str, h5py: Any, graph: KerasGraph) -> None:
        self.path, self.h5py, self.graph = path, h5py, graph

    def group(self, parent: Any, name: str) -> Any:
        """What lies at a path, in this file: links to other files are refused."""
        found = parent
        for part in name.split("/"):
            if part:
                if isinstance(found.get(part, getlink=True), self.h5py.ExternalLink):
                    raise ValueError(f"{name} is a link to another file")
                found = found[part]
        return found

    def tensor(self, name: str, dataset: Any) -> Tensor:
        if not isinstance(dataset, self.h5py.Dataset):
            raise ValueError(f"{name} is no array")
        if dataset.external or dataset.is_virtual:
            raise ValueError(f"{name} lies in another file")
        announced, there = math.prod(dataset.shape) * dataset.dtype.itemsize, dataset.id.get_storage_size()
        if announced > there * (1 if dataset.chunks is None else 1100):
            raise ValueError(f"{name} announces {announced} bytes, {there} are there")
        bfloat16 = dataset.attrs.get("dtype") == "bfloat16" and dataset.dtype.itemsize == 2

        def load() -> Any:
            with _files._refuse_damage(self.path):
                array = dataset[()]
            return _arrays.widen_bfloat16(np.asarray(array).view(np.uint16)) if bfloat16 else array

        return Tensor(name, tuple(dataset.shape), "bfloat16" if bfloat16 else dataset.dtype.name, load)

    def legacy(self, weights: Any, names: Sequence[str]) -> Iterator[_Unit]:
        """A group for each layer, which lists its weights by name: "dense/kernel:0"."""
        for layer in [*names, "top_level_model_weights"]:
            if layer not in weights:
                continue
            group = self.group(weights, layer)
            units: dict[str, dict[str, Tensor]] = {}
            for listed in _listed(group.attrs, "weight_names") or []:
                name = re.sub(r":\d+$", "", listed)
                owner, _, leaf = name.rpartition("/")
                role = leaf if leaf in _ROLES else {"W": "kernel", "b": "bias"}.get(_initial(leaf), leaf)
                # Keras 1 has no folders: the two weights of a layer are then known by their layer.
                units.setdefault(owner or layer, {})[role] = self.tensor(name, self.group(group, listed))
            for owner, variables in units.items():
                parts = [layer, *owner.split("/")]
                node = self.graph.find(parts)
                kind = self.graph.kind(node) or _unnumbered(parts[-1])
                place = owner if owner.split("/")[0] == layer else f"{layer}/{owner}"
                yield _Unit(owner, place, kind, node or (layer,), parts[-1], variables)

    def numbered(self, file: Any) -> Iterator[_Unit]:
        """Keras 3: "layers/conv2d_1/vars/0", with the layer's own name as an attribute of vars."""
        found: list[str] = []
        file.visit(lambda name: found.append(name) if name.rpartition("/")[2] == "vars" else None)
        called = {one.removesuffix("vars").rstrip("/"): _text(self.group(file, one).attrs.get("name")) for one in found}
        for path in sorted(called, key=natural):
            parts = [part for part in path.split("/") if part and part != "layers"]
            variables = self.group(file, f"{path}/vars")
            if not len(variables) or (parts and parts[0].startswith("optimizer")):
                continue
            own, last = called[path] or "/".join(parts), parts[-1] if parts else "vars"
            steps = path.split("/")
            holders = [called.get("/".join(steps[:k])) for k in range(len(steps), 0, -1)]
            name = "/".join(one for one in reversed(holders[1:]) if one) + f"/{own}" if called[path] else own
            name = name.lstrip("/")
            node = self.graph.find([one for one in reversed(holders) if one])
            kind = (self.graph.kind(node) if node[-1:] == (own,) else "") or _unnumbered(last)
            if last == "cell":
                kind = next(
                    (one for one in _GATES if one in snake(own)), next((one for one in _GATES if one in path), "")
                )
            roles = self._roles(kind, len(variables), node)
            arrays = {
                role: self.tensor(f"{name}/{role}", self.group(variables, key))
                for role, key in zip(roles, sorted(variables, key=natural), strict=False)
            }
            yield _Unit(name, "/".join(parts), kind, node or (own,), last, arrays)

    def _roles(self, kind: str, count: int, node: Path) -> list[str]:
        known = next((roles for start, roles in _NUMBERED.items() if kind.startswith(start)), ("kernel", "bias"))
        if kind == "batch_normalization":
            settings = self.graph.settings(node)
            left_out = {"gamma": not settings.get("scale", True), "beta": not settings.get("center", True)}
            known = tuple(role for role in known if not left_out.get(role))
            known = known[-count:] if count < len(known) and count == 2 else known
        return [*known[:count], *(str(k) for k in range(len(known), count))]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value or "")


def _initial(leaf: str) -> str:
    """Keras 1: dense_1_W, dense_1_b, also with a number that TensorFlow has added."""
    found = re.search(r"_([Wb])(?:_\d+)?$", leaf)
    return found[1] if found else ""


def _unnumbered(name: str) -> str:
    return re.sub(r"_\d+$", "", name)


class _Layers:
    """The layers of one unit."""

    def __init__(self, unit: _Unit, settings: Mapping[str, Any], resource: Resource, split: Sequence[str]) -> None:
        self.unit, self.settings, self.resource, self.split = unit, settings, resource, split

    def made(self) -> list[Layer]:
        kind, variables = self.unit.kind, self.unit.variables
        if {"moving_mean", "moving_variance"} <= set(variables):
            return [self._norm()]
        if "gamma" in variables:
            named = {"weight": variables["gamma"]} | ({"bias": variables["beta"]} if "beta" in variables else {})
            return [self._layer("gamma", "norm", named["weight"].shape, tensors=named)]
        if "recurrent_kernel" in variables and "kernel" in variables:
            return self._recurrent()
        found: list[Layer] = []
        for role, tensor in variables.items():
            if role == "embeddings":
                found.append(self._layer(role, "embedding", tensor.shape))
            elif role == "kernel" and len(tensor.shape) == 3 and self.unit.last in _HEADS and "conv" not in kind:
                found.append(self._attention(tensor))
            elif role in ("kernel", "depthwise_kernel", "pointwise_kernel"):
                found.append(self._kernel(role, tensor))
            elif role != "bias" or not any(one.endswith("kernel") for one in variables):
                why = why_declined(tensor.shape, tensor.dtype) or "a variable of a layer that is not known here"
                found.append(self._layer(role, "", tensor.shape, declined=why))
        return found

    def _layer(
        self,
        role: str,
        kind: str,
        shape: tuple[int, ...],
        turn: Callable[[Any], Any] | None = None,
        groups: int = 1,
        bias: Callable[[], Any] | None = None,
        declined: str | None = None,
        tensors: Mapping[str, Tensor] | None = None,
    ) -> Layer:
        stored = self.unit.variables[role]
        read = stored.read
        parts = dict(tensors or {"weight": stored})
        if bias is not None:
            parts["bias"] = self.unit.variables["bias"]
        why = why_declined(shape, stored.dtype) if declined is None else declined
        load = read if turn is None else lambda: turn(read())
        return Layer(stored.name, kind, shape, stored.dtype, groups, why, None, parts, load, bias, self.resource)

    def _bias(self, n_out: int) -> Callable[[], Any] | None:
        found = self.unit.variables.get("bias")
        if found is None or math.prod(found.shape) != n_out:
            return None
        read = found.read
        return lambda: read().reshape(-1)

    def _kernel(self, role: str, tensor: Tensor) -> Layer:
        shape, kind = tensor.shape, self.unit.kind
        axes = len(shape) - 2
        if axes == 0:
            return self._layer(role, "linear", shape[::-1], lambda array: array.T, bias=self._bias(shape[1]))
        if axes not in (1, 2, 3) or (kind and "conv" not in kind and not self._guess()):
            why = why_declined(shape, tensor.dtype) or f"a kernel of {kind}: its axes are not known"
            return self._layer(role, "", shape, declined=why)
        space, first, second = tuple(range(axes)), axes, axes + 1
        if role == "depthwise_kernel" or (kind.startswith("depthwise") and role == "kernel"):
            channels, multiplier = shape[first], shape[second]
            whole = (channels * multiplier, 1, *shape[:axes])
            return self._layer(
                role,
                conv_kind(axes, channels, channels),
                whole,
                lambda array: array.transpose(first, second, *space).reshape(whole),
                channels,
                self._bias(whole[0]) if "pointwise_kernel" not in self.unit.variables else None,
            )
        transposed = "transpose" in (kind or self.unit.name.rpartition("/")[2])
        if transposed:  # (k…, out, in)
            turned, order = (shape[first], shape[second], *shape[:axes]), (first, second, *space)
        else:
            turned, order = (shape[second], shape[first], *shape[:axes]), (second, first, *space)
        groups = int(self.settings.get("groups", 1)) if role == "kernel" else 1
        return self._layer(
            role,
            conv_kind(axes, groups, turned[1] * groups, transposed),
            turned,
            lambda array: array.transpose(order),
            groups,
            self._bias(turned[0]),
        )

    def _guess(self) -> bool:
        """A layer with a name of its own in a file without a configuration: four axes are those of a convolution."""
        return not self.settings and len(self.unit.variables["kernel"].shape) == 4

    def _attention(self, tensor: Tensor) -> Layer:
        """Projections to heads (in, heads, size), and back (heads, size, out)."""
        a, b, c = tensor.shape
        if _HEADS[self.unit.last]:
            return self._layer("kernel", "linear", (c, a * b), lambda w: w.reshape(a * b, c).T, bias=self._bias(c))
        return self._layer("kernel", "linear", (b * c, a), lambda w: w.reshape(a, b * c).T, bias=self._bias(b * c))

    def _norm(self) -> Layer:
        names = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
        tensors = {names[role]: one for role, one in self.unit.variables.items() if role in names}
        role = "gamma" if "gamma" in self.unit.variables else "moving_mean"
        return self._layer(role, "norm", self.unit.variables[role].shape, tensors=tensors)

    def _recurrent(self) -> list[Layer]:
        variables = self.unit.variables
        hidden, bias = variables["recurrent_kernel"].shape[0], variables.get("bias")
        letters = next((gates for word, gates in _GATES.items() if word in self.unit.kind), "")
        found: list[Layer] = []
        for k, role in enumerate(("kernel", "recurrent_kernel")):
            shape = variables[role].shape[::-1]
            own = None
            if bias is not None and (len(bias.shape) == 2 or k == 0):  # (2, gates · n) has one for the state, too
                own = _row(bias.read, k) if len(bias.shape) == 2 else bias.read
            whole = self._layer(role, "recurrent", shape, lambda array: array.T, bias=own)
            parts = "gates" in self.split and letters and not whole.declined and shape[0] == len(letters) * hidden
            found += parts_of(whole, letters, "recurrent gate") if parts else [whole]
        return found


def _row(read: Callable[[], Any], k: int) -> Callable[[], Any]:
    return lambda: read()[k]
