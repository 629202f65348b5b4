"""What is constant in an ONNX graph: initializers, Constant nodes, and what the graph computes from these alone."""

from __future__ import annotations

import math
import os
from collections import ChainMap
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import _files
from .._errors import FileFormatError
from ._given import array_tensor
from ._model import Tensor

__all__ = ["Constant", "Constants", "onnx_for", "read_model"]

#: Operators that only rearrange, convert or scale: evaluated by onnx's own reference implementation where a layer reads
#: their result as its weights.
_FOLDED = {
    "Add", "Cast", "CastLike", "Concat", "DequantizeLinear", "Div", "Expand", "Flatten", "Gather", "Identity", "Mul",
    "Neg", "QuantizeLinear", "Reshape", "Slice", "Split", "Sqrt", "Squeeze", "Sub", "Transpose", "Unsqueeze",
}  # fmt: skip
_ELEMENTWISE = {"Add", "Div", "Mul", "Sub"}
#: Nodes of a graph with its functions written out, at most; the largest models have some 10⁵.
_MOST_NODES = 2_000_000
#: Numbers that a graph may compute from each stored one; of fewer than 2²⁴ in all, any number.
_MOST_OF_EACH = 1100


@dataclass(frozen=True, eq=False)
class Constant:
    """A constant of the graph: what it is, and the stored tensors behind it, the one with the weights first.

    `read` of one that is `computed` also takes a dict of what has been computed so far, by numbers of keys.
    Two of the same `key` are the same numbers: branches of a graph often compute theirs from the same tensors.
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[..., npt.NDArray[Any]]
    roots: tuple[Tensor, ...]
    key: Hashable
    computed: bool = False

    @property
    def name(self) -> str:
        return self.roots[0].name


def onnx_for(what: str) -> Any:
    try:
        import onnx
        import onnx.helper
        import onnx.numpy_helper
    except ImportError as error:
        raise ImportError(f"reading {what} needs onnx: pip install 'brockett[models]'") from error
    return onnx


def read_model(path: str) -> Any:
    """The message, without the tensors that lie in other files."""
    onnx = onnx_for("ONNX files")
    try:
        model = onnx.load(path, load_external_data=False)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # protobuf's DecodeError has no public base
        raise FileFormatError(f"{path}: is damaged or not an ONNX file ({error})") from error
    if not model.HasField("graph") or not model.graph.node:
        raise FileFormatError(f"{path}: is damaged or not an ONNX file (it holds no graph)")
    if model.functions:
        from onnx import inliner

        with _files._refuse_damage(path):
            _check_functions(model)
            model = inliner.inline_local_functions(model)
    return model


def _check_functions(model: Any) -> None:
    """Functions that call functions, n deep and each twice, are 2ⁿ nodes once they are written out."""
    bodies = {(one.domain, one.name): one for one in model.functions}
    sizes: dict[tuple[str, str], int] = {}

    def size(nodes: Any) -> int:
        total = 0
        for node in nodes:
            name = (node.domain, node.op_type)
            if name in bodies and name not in sizes:
                sizes[name] = _MOST_NODES + 1  # while it is counted: one that calls itself is too large
                sizes[name] = size(bodies[name].node)
            total += sizes.get(name, 1)
            total += sum(size(one.g.node) for one in node.attribute if one.HasField("g"))
        return min(total, _MOST_NODES + 1)

    if size(model.graph.node) > _MOST_NODES:
        raise ValueError(f"its functions, written out, are more than {_MOST_NODES} nodes, or call themselves")


class Constants:
    """Names of constants in a graph, and in a graph within it those of the outer one, too."""

    def __init__(self, path: str, model: Any) -> None:
        self.onnx = onnx_for("ONNX files")
        self.path = path
        self.opsets = list(model.opset_import)
        self.known: ChainMap[str, Constant] = ChainMap()
        self._made: ChainMap[str, Any] = ChainMap()
        self._never: set[str] = set()  # no constants, as far as asked
        self._keys: dict[Hashable, int] = {}  # a number for each: one made of 40 others' would take 2⁴⁰ steps to hash

    def within(self) -> Constants:
        """For a graph inside this one."""
        inner = object.__new__(Constants)
        inner.onnx, inner.path, inner.opsets = self.onnx, self.path, self.opsets
        inner.known, inner._made, inner._keys = self.known.new_child(), self._made.new_child(), self._keys
        inner._never = set()
        return inner

    def add_graph(self, graph: Any) -> None:
        for proto in graph.initializer:
            self.known[proto.name] = self._stored(proto.name, proto)
        for node in graph.node:
            if node.op_type == "Constant":
                found = self._of_node(node)
                if found is not None:
                    self.known[node.output[0]] = found
            for name in node.output:
                self._made[name] = node

    def get(self, name: str) -> Constant | None:
        """The constant of this name, computed where the graph computes it from constants; else None."""
        entered: set[str] = set()
        stack = [name] if name else []  # depth first, each name once: graphs are deeper than Python's calls may be
        while stack:
            one = stack[-1]
            node = self._made.get(one)
            if one in self.known or one in self._never or node is None:
                stack.pop()
                continue
            inputs = [other for other in node.input if other]
            waiting = [other for other in inputs if other in self._made and not self._settled(other)]
            if node.op_type not in _FOLDED or not inputs or not entered.isdisjoint(waiting):  # the last: a cycle
                self._never.add(one)
            elif waiting:
                entered.add(one)
                stack += waiting
            elif all(other in self.known for other in inputs):
                found = self._computed(node, one, [self.known[other] if other else None for other in node.input])
                if found is None:
                    self._never.add(one)
                else:
                    self.known[one] = found
            else:
                self._never.add(one)
        return self.known.get(name)

    def _settled(self, name: str) -> bool:
        return name in self.known or name in self._never

    def _stored(self, name: str, proto: Any) -> Constant:
        onnx, folder = self.onnx, os.path.dirname(os.path.abspath(self.path))
        try:
            dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(proto.data_type)).name
        except KeyError:
            raise ValueError(f"{name} has the unknown data type {proto.data_type}") from None

        def load() -> npt.NDArray[Any]:
            stored = proto
            if onnx.external_data_helper.uses_external_data(proto):
                stored = onnx.TensorProto()  # a copy: older readers leave the numbers in the message
                stored.CopyFrom(proto)
            with _files._refuse_damage(self.path):
                array = onnx.numpy_helper.to_array(stored, folder)
            found: npt.NDArray[Any] = array.astype(np.float32) if array.dtype.name == "bfloat16" else array
            return found

        shape = tuple(proto.dims)
        small = int(np.prod(shape)) <= 16 and not onnx.external_data_helper.uses_external_data(proto)
        key = (dtype, shape, load().tobytes()) if small and dtype != "object" else (name, id(proto))
        return Constant(shape, dtype, load, (Tensor(name, shape, dtype, load),), key)

    def _of_node(self, node: Any) -> Constant | None:
        name = node.output[0]
        for one in node.attribute:
            if one.name == "value":
                return self._stored(name, one.t)
            if one.name in ("value_float", "value_floats", "value_int", "value_ints"):
                value = self.onnx.helper.get_attribute_value(one)
                array = np.asarray(value, np.float32 if "float" in one.name else np.int64)
                tensor = array_tensor(name, array)
                return Constant(array.shape, tensor.dtype, tensor.read, (tensor,), (tensor.dtype, array.tobytes()))
        return None

    def _computed(self, node: Any, name: str, inputs: Sequence[Constant | None]) -> Constant | None:
        """None: more numbers than any file of weights would make of those that it has."""
        there = {str(one): found for one, found in zip(node.input, inputs, strict=True) if found is not None}

        def load(memo: dict[int, npt.NDArray[Any]] | None = None) -> npt.NDArray[Any]:
            memo = {} if memo is None else memo  # of one reading: what is used twice is computed once
            if number not in memo:
                with _files._refuse_damage(self.path):
                    values = {one: it.read(memo) if it.computed else it.read() for one, it in there.items()}
                    memo[number] = self._evaluate(node, name, values)
            return memo[number]

        sources = sorted(there.values(), key=lambda one: -math.prod(one.shape))
        roots = tuple(dict.fromkeys(root for one in sources for root in one.roots))
        first = inputs[0]
        attributes = tuple(one.SerializeToString() for one in node.attribute)
        keys = tuple(one.key if one is not None else None for one in inputs)
        whole = (node.op_type, list(node.output).index(name), attributes, keys)
        number = self._keys.setdefault(whole, len(self._keys))
        key = ("computed", number)
        if node.op_type == "DequantizeLinear" and first is not None:
            return Constant(first.shape, "float32", load, roots, key, True)
        if node.op_type == "Identity" and first is not None:
            return first
        if node.op_type == "Transpose" and first is not None:
            orders = [list(one.ints) for one in node.attribute if one.name == "perm"]
            order = orders[0] if orders else list(range(len(first.shape)))[::-1]
            return Constant(tuple(first.shape[axis] for axis in order), first.dtype, load, roots, key, True)
        shape = _grown(node, inputs)
        stored = sum(math.prod(one.shape) for one in roots)
        if shape is not None and math.prod(shape) > max(1 << 24, _MOST_OF_EACH * stored):
            return None
        if shape is not None and node.op_type in _ELEMENTWISE and first is not None:
            return Constant(shape, first.dtype, load, roots, key, True)
        sample = load()  # the shape of the others is known once they are computed
        return Constant(sample.shape, sample.dtype.name, load, roots, key, True)

    def _evaluate(self, node: Any, name: str, values: dict[str, npt.NDArray[Any]]) -> Any:
        from onnx.reference import ReferenceEvaluator

        helper = self.onnx.helper

        def described(one: str, array: npt.NDArray[Any]) -> Any:
            return helper.make_tensor_value_info(one, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)

        inputs = [described(one, array) for one, array in values.items()]
        graph = helper.make_graph([node], "constant", inputs, [self.onnx.ValueInfoProto(name=name)])
        try:
            evaluator = ReferenceEvaluator(helper.make_model(graph, opset_imports=self.opsets))
        except RuntimeError:  # it has not every old version of every operator; the newest does the same
            evaluator = ReferenceEvaluator(helper.make_model(graph))
        found: Any = evaluator.run([name], values)
        return np.asarray(found[0])


def _grown(node: Any, inputs: Sequence[Constant | None]) -> tuple[int, ...] | None:
    """The shape of what operators give that can make much of little; None of others."""
    shapes = [one.shape for one in inputs if one is not None]
    whole = {one.name: int(one.i) for one in node.attribute if one.type == 2}
    axis = whole.get("axis", 0)
    if node.op_type in _ELEMENTWISE:
        return np.broadcast_shapes(*shapes)
    if node.op_type == "Expand" and len(inputs) == 2 and inputs[1] is not None:
        return np.broadcast_shapes(shapes[0], tuple(int(n) for n in inputs[1].read()))
    if node.op_type == "Concat":
        first = list(shapes[0])
        first[axis] = sum(shape[axis] for shape in shapes)
        return tuple(first)
    if node.op_type == "Gather" and len(shapes) == 2:
        axis %= max(len(shapes[0]), 1)
        return (*shapes[0][:axis], *shapes[1], *shapes[0][axis + 1 :])
    return None
