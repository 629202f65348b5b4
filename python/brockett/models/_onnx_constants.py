"""What is constant in an ONNX graph: initializers, Constant nodes, and what the graph computes from these alone."""

from __future__ import annotations

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
_SAME_SHAPE = {"Cast", "CastLike", "DequantizeLinear", "Identity", "QuantizeLinear"}


@dataclass(frozen=True, eq=False)
class Constant:
    """A constant of the graph: what it is, and the stored tensors behind it, the one with the weights first.

    Two of the same `key` are the same numbers: branches of a graph often compute theirs from the same tensors.
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], npt.NDArray[Any]]
    roots: tuple[Tensor, ...]
    key: Hashable

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

        model = inliner.inline_local_functions(model)
    return model


class Constants:
    """Names of constants in a graph, and in a graph within it those of the outer one, too."""

    def __init__(self, path: str, model: Any) -> None:
        self.onnx = onnx_for("ONNX files")
        self.path = path
        self.opsets = list(model.opset_import)
        self.known: ChainMap[str, Constant] = ChainMap()
        self._made: ChainMap[str, Any] = ChainMap()

    def within(self) -> Constants:
        """For a graph inside this one."""
        inner = object.__new__(Constants)
        inner.onnx, inner.path, inner.opsets = self.onnx, self.path, self.opsets
        inner.known, inner._made = self.known.new_child(), self._made.new_child()
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
        if not name:
            return None
        if name in self.known:
            return self.known[name]
        node = self._made.get(name)
        if node is None or node.op_type not in _FOLDED or not any(node.input):
            return None
        inputs = [self.get(one) if one else None for one in node.input]
        if any(found is None and one for found, one in zip(inputs, node.input, strict=True)):
            return None
        found = self._computed(node, name, inputs)
        self.known[name] = found
        return found

    def _stored(self, name: str, proto: Any) -> Constant:
        onnx, folder = self.onnx, os.path.dirname(os.path.abspath(self.path))
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(proto.data_type)).name

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

    def _computed(self, node: Any, name: str, inputs: Sequence[Constant | None]) -> Constant:
        there = {str(one): found for one, found in zip(node.input, inputs, strict=True) if found is not None}

        def load() -> npt.NDArray[Any]:
            with _files._refuse_damage(self.path):
                found: npt.NDArray[Any] = self._evaluate(node, name, {one: it.read() for one, it in there.items()})
                return found

        sources = sorted(there.values(), key=lambda one: -int(np.prod(one.shape)))
        roots = tuple(dict.fromkeys(root for one in sources for root in one.roots))
        first = inputs[0]
        attributes = tuple(one.SerializeToString() for one in node.attribute)
        keys = tuple(one.key if one is not None else None for one in inputs)
        key = (node.op_type, list(node.output).index(name), attributes, keys)
        if node.op_type == "DequantizeLinear" and first is not None:
            return Constant(first.shape, "float32", load, roots, key)
        if node.op_type == "Identity" and first is not None:
            return first
        if node.op_type == "Transpose" and first is not None:
            orders = [list(one.ints) for one in node.attribute if one.name == "perm"]
            order = orders[0] if orders else list(range(len(first.shape)))[::-1]
            return Constant(tuple(first.shape[axis] for axis in order), first.dtype, load, roots, key)
        sample = load()  # the shape of the others is known once they are computed
        return Constant(sample.shape, sample.dtype.name, load, roots, key)

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
