"""ONNX files: what each operator with constant weights computes, as (out, in, k…), and which layer reads which."""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .. import _files
from ._model import Layer, Norm, Resource, Tensor, conv_kind, uniquely_named, why_declined
from ._names import exchanged, parts_of
from ._onnx_constants import Constant, Constants, read_model
from ._quantized import block_size, scaled

__all__ = ["onnx_layers"]

#: Operators with weights: which inputs are the weights, the bias, the scale and the zero point of the weights.
_CONVOLUTIONS = {
    "Conv": (1, 2, None, None), "FusedConv": (1, 2, None, None), "ConvTranspose": (1, 2, None, None),
    "QLinearConv": (3, 8, 4, 5), "ConvInteger": (1, None, None, 3),
}  # fmt: skip
_PRODUCTS = {
    "Gemm": (1, 2, None, None), "FusedGemm": (1, 2, None, None), "MatMul": (1, None, None, None),
    "FusedMatMul": (1, None, None, None), "QLinearMatMul": (3, None, 4, 5), "MatMulInteger": (1, None, None, 3),
    "DynamicQuantizeMatMul": (1, 4, 2, 3), "MatMulIntegerToFloat": (1, 6, 3, 5),
}  # fmt: skip
_GATES = {"LSTM": "iofc", "GRU": "zrh", "RNN": ""}
_NORMS = {
    "BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization", "RMSNormalization",
    "SkipLayerNormalization", "SimplifiedLayerNormalization", "EmbedLayerNormalization",
}  # fmt: skip
#: Operators whose result holds nothing of the values that they see, only their shape or order.
_CUT = {
    "Shape", "Size", "NonZero", "ArgMax", "ArgMin", "Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual", "Not",
    "And", "Or", "IsNaN", "IsInf", "ConstantOfShape", "Range", "RandomNormalLike", "RandomUniformLike", "EyeLike",
}  # fmt: skip
#: Inputs that carry values, where the others say how to arrange them; all inputs of other operators carry values.
_VALUES = dict.fromkeys(
    ("Reshape", "Slice", "Gather", "GatherElements", "GatherND", "Expand", "Tile", "Squeeze", "Unsqueeze", "Resize",
     "Pad", "TopK", "Split", "Clip", "Upsample", "ReduceSum", "ReduceMean", "DynamicQuantizeLinear", "QuantizeLinear",
     "DequantizeLinear", "Conv", "CumSum", "Trilu"),
    (0,),
) | {"Where": (1, 2)}  # fmt: skip
#: Names that exporters make up; the node then has a better one.
_MADE_UP = re.compile(r"onnx::.*|_?(?:val|t|tensor|const|initializer)?_?\d+|.*/?Constant(?:_\d+)?_output_\d+")


@dataclass
class _Flow:
    """Which layers' outputs a value holds, and of which layer it is the output, nothing but a bias added."""

    sources: ChainMap[str, frozenset[int]] = field(default_factory=ChainMap)
    direct: ChainMap[str, int] = field(default_factory=ChainMap)

    def within(self) -> _Flow:
        return _Flow(self.sources.new_child(), self.direct.new_child())


def onnx_layers(
    path: str, resource: Resource, split: Sequence[str]
) -> tuple[list[Layer], list[tuple[str, str]] | None]:
    """The layers of a file in the order of its nodes, and which follows which."""
    model = read_model(path)
    reading = _Reading(resource, split)
    with _files._refuse_damage(path):  # whatever a node that is none raises: too few inputs, unknown types, cycles
        reading.graph(model.graph, Constants(path, model), _Flow())
        return reading.result()


class _Reading:
    def __init__(self, resource: Resource, split: Sequence[str]) -> None:
        self.resource, self.split = resource, split
        self.layers: list[Layer] = []
        self.edges: dict[tuple[int, int], None] = {}
        self.numbers: dict[tuple[Any, ...], list[int]] = {}
        self.states: set[int] = set()  # recurrent weights that read the state, not the input
        self.used: set[str] = set()
        self.rest: dict[str, tuple[Constant, str]] = {}

    def result(self) -> tuple[list[Layer], list[tuple[str, str]]]:
        layers = uniquely_named(self.layers)
        names = [layer.name for layer in layers]
        for name, (constant, operator) in self.rest.items():
            if name in self.used or name in names:
                continue
            why = why_declined(constant.shape, constant.dtype) or f"an input of {operator}: no weights of a layer"
            layers.append(self._layer(name, "", constant, constant.shape, why, constant.read, None))
        return layers, [(names[a], names[b]) for a, b in self.edges]

    # --- the graph ----------------------------------------------------------------------------------------------------

    def graph(self, graph: Any, constants: Constants, flow: _Flow) -> None:
        constants.add_graph(graph)
        self.readers: dict[str, list[Any]] = {}
        for node in graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        readers = self.readers
        outputs = {one.name for one in graph.output}
        for node in graph.node:
            self.readers = readers  # a graph within has its own
            self._node(node, constants, flow, outputs)

    def _node(self, node: Any, constants: Constants, flow: _Flow, outputs: set[str]) -> None:
        kind = node.op_type
        numbers: list[int] = []
        if kind in _CONVOLUTIONS:
            numbers = self._convolution(node, constants)
        elif kind in _PRODUCTS:
            numbers = self._product(node, constants)
        elif kind in _GATES:
            numbers = self._recurrent(node, constants)
        elif kind == "Gather":
            numbers = self._embedding(node, constants)
        elif kind in _NORMS:
            self._norm(node, constants, flow, outputs)
        elif kind != "Constant":
            self._note(node, constants)
        sources = self._sources(node, constants, flow)
        for graph in [one.g for one in node.attribute if one.HasField("g")]:
            inner = flow.within()
            for one in graph.input:
                inner.sources[one.name] = sources
            self.graph(graph, constants.within(), inner)
            sources |= frozenset().union(*(inner.sources.get(one.name, frozenset()) for one in graph.output))
        if numbers:
            self.edges |= dict.fromkeys(
                (a, b) for a in sorted(sources) for b in numbers if a != b and b not in self.states
            )
            sources = frozenset(numbers)
            if len(numbers) == 1 and kind != "Gather":
                flow.direct[node.output[0]] = numbers[0]
                self._added_bias(node, numbers[0], constants, flow)
        for name in node.output:
            flow.sources[name] = sources

    def _sources(self, node: Any, constants: Constants, flow: _Flow) -> frozenset[int]:
        if node.op_type in _CUT:
            return frozenset()
        carried = _VALUES.get(node.op_type)
        inputs = [name for k, name in enumerate(node.input) if carried is None or k in carried]
        if node.op_type == "Gather" and constants.get(node.input[0]) is not None:
            return frozenset()
        return frozenset().union(*(flow.sources.get(name, frozenset()) for name in inputs))

    # --- operators ----------------------------------------------------------------------------------------------------

    def _weights(self, node: Any, constants: Constants, places: Sequence[int | None]) -> tuple[Constant, str] | None:
        """The constant weights of a node, dequantized where it has a scale, and why they are no weights."""
        weights, _, scale, zero = (self._input(node, k, constants) for k in places)
        if weights is None:
            return None
        self.used.update(root.name for root in weights.roots)
        if weights.dtype in ("int8", "uint8"):
            base = weights.name.removesuffix("_quantized")  # ONNX Runtime's names beside its integer operators
            scale = scale or (constants.get(f"{base}_scale") if base != weights.name else None)
            if scale is not None:
                return self._dequantized(weights, scale, zero, node.op_type in _CONVOLUTIONS)
        return weights, why_declined(weights.shape, weights.dtype)

    @staticmethod
    def _dequantized(weights: Constant, scale: Constant, zero: Constant | None, first: bool) -> tuple[Constant, str]:
        """Scales are those of output channels: the first axis of a convolution, the last of a matrix product."""
        out = weights.shape if first else weights.shape[::-1]
        size = block_size(out, scale.shape) if len(weights.shape) > 1 else None
        if size is None:
            return weights, f"{weights.dtype} with a scale of shape {scale.shape}: a layout that is not known here"

        def load() -> Any:
            values = weights.read() if first else weights.read().T
            offset = None if zero is None else zero.read()
            found = scaled(values, scale.read(), offset, size)
            return found if first else found.T

        roots = weights.roots + scale.roots + (zero.roots if zero is not None else ())
        key = ("scaled", weights.key, scale.key, zero.key if zero is not None else None)
        return Constant(weights.shape, "float32", load, roots, key), ""

    def _convolution(self, node: Any, constants: Constants) -> list[int]:
        places = _CONVOLUTIONS[node.op_type]
        found = self._weights(node, constants, places)
        if found is None:
            return []
        weights, why = found
        groups = int(_attribute(node, "group", 1))
        shape, read, axes = weights.shape, weights.read, len(weights.shape) - 2
        if axes < 1 or axes > 3 or groups < 1 or shape[0] % groups:
            return self._add(node, "", weights, shape, why or f"weights {shape} in {groups} groups", read, None)
        turn = node.op_type == "ConvTranspose"
        if turn:
            shape = (shape[1] * groups, shape[0] // groups, *shape[2:])
            stored = weights.read
            read = lambda: exchanged(stored(), groups)  # noqa: E731
        kind = conv_kind(axes, groups, shape[1] * groups, turn)
        bias = self._bias(node, constants, places)
        return self._add(node, kind, weights, shape, why, read, bias, groups)

    def _product(self, node: Any, constants: Constants) -> list[int]:
        places = _PRODUCTS[node.op_type]
        found, left = self._weights(node, constants, places), False
        if found is None and node.op_type in ("Gemm", "MatMul", "FusedGemm", "FusedMatMul"):
            found, left = self._weights(node, constants, (0, None, None, None)), True
        if found is None:
            return []
        weights, why = found
        if len(weights.shape) != 2:
            why = why or f"{len(weights.shape)} axes: a product for each of a batch"
            return self._add(node, "", weights, weights.shape, why, weights.read, None)
        turned = bool(_attribute(node, "transA" if left else "transB", 0))
        # X B has outputs along the second axis of B, A X along the first of A.
        swap = turned if left else not turned
        alpha, beta = float(_attribute(node, "alpha", 1.0)), float(_attribute(node, "beta", 1.0))
        stored = weights.read

        def read() -> Any:
            array = stored().T if swap else stored()
            return array if alpha == 1 else (array * np.float32(alpha)).astype(array.dtype)

        bias = self._bias(node, constants, places)
        if bias is not None and beta != 1:
            plain = bias
            bias = replace(plain, read=lambda: plain.read() * np.float32(beta))
        shape = weights.shape[::-1] if swap else weights.shape
        return self._add(node, "linear", weights, shape, why, read, None if left else bias)

    def _bias(self, node: Any, constants: Constants, places: Sequence[int | None]) -> Constant | None:
        bias = self._input(node, places[1], constants)
        if bias is None or node.op_type != "QLinearConv":
            return bias
        scales = [self._input(node, k, constants) for k in (1, 4)]  # of the inputs and of the weights
        if any(one is None for one in scales):
            return None
        return replace(bias, dtype="float32", read=lambda: (
            bias.read().astype(np.float32) * scales[0].read() * scales[1].read()  # type: ignore[union-attr]
        ))  # fmt: skip

    def _embedding(self, node: Any, constants: Constants) -> list[int]:
        table, rows = self._input(node, 0, constants), self._input(node, 1, constants)
        if table is None or rows is not None or len(table.shape) != 2 or int(_attribute(node, "axis", 0)) != 0:
            return []
        if why_declined(table.shape, table.dtype):
            return []
        self.used.update(root.name for root in table.roots)
        return self._add(node, "embedding", table, table.shape, "", table.read, None)

    def _recurrent(self, node: Any, constants: Constants) -> list[int]:
        inputs, state, bias = (self._input(node, k, constants) for k in (1, 2, 3))
        if inputs is None or state is None or len(inputs.shape) != 3 or len(state.shape) != 3:
            return []
        if inputs.shape[0] != state.shape[0]:
            raise ValueError(f"{node.op_type} with {inputs.shape[0]} directions in W, {state.shape[0]} in R")
        gates, hidden = _GATES[node.op_type], state.shape[2]
        rows = inputs.shape[1]
        numbers: list[int] = []
        for d in range(inputs.shape[0]):
            for weights, role, first in ((inputs, "W", 0), (state, "R", rows)):
                self.used.update(root.name for root in weights.roots)
                title = self._name(weights, node, role) + ("" if d == 0 else "[reverse]")
                read = _slice(weights.read, d)
                own = None
                if bias is not None:
                    own = replace(bias, shape=(rows,), read=_slice(bias.read, d, slice(first, first + rows)))
                    self.used.update(root.name for root in bias.roots)
                shape = weights.shape[1:]
                why = why_declined(shape, weights.dtype)
                whole = self._layer(title, "recurrent", weights, shape, why, read, own)
                letters = gates if "gates" in self.split and not why and rows == len(gates) * hidden else ""
                parts = parts_of(whole, letters, "recurrent gate") if letters else [whole]
                entered = self._enter((role, d, weights.key), parts)
                self.states |= set(entered) if role == "R" else set()
                numbers += entered
        return numbers

    def _norm(self, node: Any, constants: Constants, flow: _Flow, outputs: set[str]) -> None:
        if node.op_type != "BatchNormalization":
            self._note(node, constants)
            return
        roles = ("weight", "bias", "running_mean", "running_var")
        vectors = [self._input(node, k, constants) for k in range(1, 5)]
        there = {role: one for role, one in zip(roles, vectors, strict=True) if one is not None}
        if len(there) < 4:
            return
        for one in there.values():
            self.used.update(root.name for root in one.roots)
        tensors = {role: Tensor(one.name, one.shape, one.dtype, one.read) for role, one in there.items()}
        scale = there["weight"]
        name = self._name(scale, node, "scale")
        norm = self._layer(name, "norm", scale, scale.shape, why_declined(scale.shape, scale.dtype), scale.read, None)
        (number,) = self._enter(
            ("norm", *(one.key for one in there.values())), [replace(norm, tensors=tensors)]
        )
        source = node.input[0]
        before = flow.direct.get(source)
        alone = len(self.readers.get(source, [])) == 1 and source not in outputs
        if before is not None and alone and self.layers[before].shape[0] == scale.shape[0]:
            eps = float(_attribute(node, "epsilon", 1e-5))
            follows = Norm(self.layers[number].name, eps, tensors, self.resource)
            self.layers[before] = replace(self.layers[before], norm=follows)

    def _added_bias(self, node: Any, number: int, constants: Constants, flow: _Flow) -> None:
        """Exporters write a linear layer as a product and a sum."""
        layer, output = self.layers[number], node.output[0]
        readers = self.readers.get(output, [])
        if layer._bias is not None or layer.declined or len(readers) != 1 or readers[0].op_type != "Add":
            return
        (other,) = [name for name in readers[0].input if name != output] or [""]
        bias = constants.get(other)
        axes = len(layer.shape) - 2
        n = layer.shape[0]
        if bias is None or int(np.prod(bias.shape)) != n or why_declined(bias.shape, bias.dtype).startswith(bias.dtype):
            return
        if bias.shape[len(bias.shape) - axes :] != (1,) * axes or bias.shape[: len(bias.shape) - axes][-1:] != (n,):
            return  # numbers along another axis
        self.used.update(root.name for root in bias.roots)
        self.layers[number] = replace(
            layer, tensors={**layer.tensors, "bias": bias.roots[0]}, _bias=lambda: bias.read().reshape(-1)
        )
        flow.direct[readers[0].output[0]] = number

    # --- layers -------------------------------------------------------------------------------------------------------

    def _input(self, node: Any, place: int | None, constants: Constants) -> Constant | None:
        return constants.get(node.input[place]) if place is not None and place < len(node.input) else None

    def _note(self, node: Any, constants: Constants) -> None:
        """Constants with two axes and more that no layer reads are named, with what reads them."""
        for name in node.input:
            found = constants.known.get(name)
            if found is not None and len(found.shape) > 1 and not found.dtype.startswith(("int64", "int32", "bool")):
                self.rest.setdefault(found.name, (found, node.op_type))

    @staticmethod
    def _name(weights: Constant, node: Any, role: str) -> str:
        if not _MADE_UP.fullmatch(weights.name) or not node.name:
            return weights.name
        return f"{node.name}.{role}" if node.op_type in _GATES or role == "scale" else str(node.name)

    def _layer(
        self,
        name: str,
        kind: str,
        weights: Constant,
        shape: tuple[int, ...],
        why: str,
        read: Callable[[], Any],
        bias: Constant | None,
        groups: int = 1,
    ) -> Layer:
        stored = weights.roots[0]
        tensors = {"weight": stored} | ({"bias": bias.roots[0]} if bias is not None else {})
        load = bias.read if bias is not None else None
        return Layer(name, kind, shape, stored.dtype, groups, why, None, tensors, read, load, self.resource)

    def _add(
        self,
        node: Any,
        kind: str,
        weights: Constant,
        shape: tuple[int, ...],
        why: str,
        read: Callable[[], Any],
        bias: Constant | None,
        groups: int = 1,
    ) -> list[int]:
        if bias is not None:
            self.used.update(root.name for root in bias.roots)
        layer = self._layer(self._name(weights, node, ""), kind, weights, shape, why, read, bias, groups)
        key = (shape, groups, kind, weights.key)  # used by several nodes, it is one layer
        return self._enter(key, [layer])

    def _enter(self, key: tuple[Any, ...], layers: Iterable[Layer]) -> list[int]:
        if key not in self.numbers:
            first = len(self.layers)
            self.layers += layers
            self.numbers[key] = list(range(first, len(self.layers)))
        return self.numbers[key]


def _slice(read: Callable[[], Any], direction: int, rows: slice | None = None) -> Callable[[], Any]:
    return lambda: read()[direction] if rows is None else read()[direction, rows]


def _attribute(node: Any, name: str, default: float) -> float:
    for one in node.attribute:
        if one.name == name:
            return float(one.f) if one.type == 1 else float(one.i)
    return default
