"""Layers that a caller has in hand: mappings and lists of weights, PyTorch modules."""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from .. import _options
from .._errors import InvalidArgument, InvalidType
from ._model import Layer, Norm, Resource, Tensor, conv_kind, why_declined
from ._names import Owner, exchanged

__all__ = ["array_tensor", "module_entries", "value_entries"]

Entry = tuple[Tensor, Owner | None] | Layer

#: Of a module's buffers, those that belong to its weights; masks, positions and the like do not.
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked", "weight_u", "weight_v", "_u", "_v")
_QUANTIZED_BUFFERS = ("weight", "weight_scale", "weight_scale_inv", "weight_zero_point", "scales", "SCB")


def array_tensor(name: str, array: Any) -> Tensor:
    """An array in memory; it is handed out as it is."""
    return Tensor(name, tuple(int(n) for n in array.shape), str(array.dtype).removeprefix("torch."), lambda: array)


def value_entries(values: Mapping[str, Any], argument: str, resource: Resource) -> list[Entry]:
    """Entries of a mapping of names to weights, or to layers that say more."""
    return [_entry(name, value, f"{argument}[{name!r}]", resource) for name, value in values.items()]


def _entry(name: str, value: Any, label: str, resource: Resource) -> Entry:
    if isinstance(value, Layer):
        return value
    weight = value
    if isinstance(value, Mapping):
        weight = value.get("weight")
    elif not hasattr(value, "shape") and hasattr(value, "weight"):
        weight = value.weight
    if weight is None:
        raise InvalidArgument(label, "has no weight")
    if isinstance(weight, list | tuple):
        weight = np.asarray(weight)
    if not hasattr(weight, "shape") or not hasattr(weight, "dtype"):
        raise InvalidType(label, f"expected weights, got {type(weight).__name__}")
    tensor = array_tensor(name, weight)
    if not isinstance(value, Mapping):
        return tensor, None
    groups = _options.count(f"{label}.groups", 1 if value.get("groups") is None else value["groups"], least=1)
    turn = value.get("transposed") is not None and _options.flag(f"{label}.transposed", value["transposed"])
    shape, axes = tensor.shape, len(tensor.shape) - 2
    if turn and axes > 0:
        if shape[0] % groups:
            raise InvalidArgument(label, f"{shape[0]} input channels do not divide into {groups} groups")
        shape = (shape[1] * groups, shape[0] // groups, *shape[2:])
    if groups > 1 and (not shape or shape[0] % groups):
        raise InvalidArgument(label, f"{shape[:1]} output channels do not divide into {groups} groups")
    kind = "linear" if axes == 0 else ""
    if 0 < axes < 4:
        kind = conv_kind(axes, groups, shape[1] * groups, turn)
    bias = value.get("bias")
    return Layer(
        name,
        kind,
        shape,
        tensor.dtype,
        groups,
        why_declined(shape, tensor.dtype),
        _norm(name, value.get("norm"), label, resource),
        {"weight": tensor},
        (lambda: exchanged(weight, groups)) if turn and axes > 0 else tensor.read,
        None if bias is None else lambda: bias,
        resource,
    )


def _norm(name: str, norm: Any, label: str, resource: Resource) -> Norm | None:
    if norm is None:
        return None

    def get(key: str) -> Any:
        return norm.get(key) if isinstance(norm, Mapping) else getattr(norm, key, None)

    if get("running_mean") is None or get("running_var") is None:
        raise InvalidArgument(f"{label}.norm", "expected a batch normalization with running_mean and running_var")
    vectors = {key: np.asarray(get(key)) if isinstance(get(key), list | tuple) else get(key) for key in
               ("running_mean", "running_var", "weight", "bias")}  # fmt: skip
    eps = 1e-5 if get("eps") is None else _options.number(f"{label}.norm.eps", get("eps"), least=0)
    tensors = {key: array_tensor(f"{name}.norm.{key}", one) for key, one in vectors.items() if one is not None}
    return Norm(f"{name}.norm", eps, tensors, resource)


def module_entries(module: Any, torch: Any, argument: str) -> list[Entry]:
    """Parameters of a module in the order of its modules, and the buffers that belong to them."""
    entries: list[Entry] = []
    seen: set[int] = set()
    made = _parametrized(module, torch, argument)
    modules = dict(module.named_modules(memo=set(made)))  # what they are made of is no entry
    for path, owner in modules.items():
        # The parameters of a parametrized weight lie in a module below that of the weight.
        said = _owner(modules.get(path.rpartition("parametrizations.weight")[0].rstrip("."), owner)
                      if "parametrizations.weight" in path else owner, torch)  # fmt: skip
        for leaf, tensor in [*owner.named_parameters(recurse=False), *owner.named_buffers(recurse=False)]:
            parameter = isinstance(tensor, torch.nn.Parameter)
            wanted = parameter or leaf in _BUFFERS or (leaf in _QUANTIZED_BUFFERS and isinstance(tensor, torch.Tensor))
            base, _, end = leaf.rpartition("_")
            pruned = end in ("orig", "mask") and hasattr(owner, f"{base}_orig") and hasattr(owner, f"{base}_mask")
            if not pruned:  # of those the weights are the product, which nobody shares
                if not wanted or id(tensor) in seen:
                    continue
                seen.add(id(tensor))
            name = f"{path}.{leaf}" if path else leaf
            _check_has_numbers(name, tensor, torch, argument)
            entries.append((array_tensor(name, tensor.detach()), said))
        entries += [(made[how], said) for _, how in _parametrizations(owner, torch) if how in made]
        entries += _packed(path, owner, torch)
    return entries


def _check_has_numbers(name: str, tensor: Any, torch: Any, argument: str) -> None:
    if torch.nn.parameter.is_lazy(tensor):
        raise InvalidArgument(argument, f"{name} is not initialized yet: run the module once")
    if tensor.device.type == "meta":
        raise InvalidArgument(argument, f"{name} is on the meta device: it has a shape and no numbers")


def _parametrizations(owner: Any, torch: Any) -> list[tuple[str, Any]]:
    """Parametrized tensors of a module, but for those whose tensors alone say what is made of them (`_names`)."""
    if not torch.nn.utils.parametrize.is_parametrized(owner):
        return []
    return [
        (leaf, how)
        for leaf, how in owner.parametrizations.items()
        if leaf != "weight" or len(how) > 1 or type(how[0]).__name__ not in ("_WeightNorm", "_SpectralNorm")
    ]


def _parametrized(module: Any, torch: Any, argument: str) -> dict[Any, Tensor]:
    """What parametrizations make, but for those that fail; their tensors are entries, which are declined."""
    made: dict[Any, Tensor] = {}
    for path, owner in module.named_modules():
        for leaf, how in _parametrizations(owner, torch):
            name = f"{path}.{leaf}" if path else leaf
            for tensor in [*how.parameters(), *how.buffers()]:
                _check_has_numbers(name, tensor, torch, argument)
            load = functools.partial(_evaluated, how, torch)
            with contextlib.suppress(Exception):  # factorizations know no half types, and it may be anybody's code
                made[how] = replace(array_tensor(name, load()), read=load)
    return made


def _evaluated(how: Any, torch: Any) -> Any:
    """By a copy in evaluation mode: one in training may change with each use."""
    with torch.no_grad():
        return copy.deepcopy(how).eval()().detach()


def _owner(owner: Any, torch: Any) -> Owner:
    nn = torch.nn
    if isinstance(owner, nn.Embedding | nn.EmbeddingBag):
        return Owner("embedding")
    if isinstance(owner, nn.modules.conv._ConvNd):
        return Owner("", owner.groups, owner.transposed)
    if isinstance(owner, nn.modules.batchnorm._NormBase):
        return Owner("norm", eps=float(owner.eps))
    # transformers' Conv1D is a linear layer with weights (in, out); known by its name, for that package may be absent.
    return Owner(input_first=type(owner).__name__ == "Conv1D" and hasattr(owner, "nf"))


def _packed(path: str, owner: Any, torch: Any) -> list[Entry]:
    """Weights of quantized modules, which lie behind methods."""
    if isinstance(inspect.getattr_static(type(owner), "weight", None), property):  # parametrized: asking computes it
        return []
    packed = getattr(owner, "weight", None)
    if not inspect.ismethod(packed):
        return []
    weight, name = packed(), f"{path}.weight" if path else "weight"
    tensors = [quantized_tensor(name, weight)]
    bias = owner.bias() if inspect.ismethod(getattr(owner, "bias", None)) else None
    if isinstance(bias, torch.Tensor):
        tensors.append(array_tensor(name.removesuffix("weight") + "bias", bias.detach()))
    said = Owner("", int(getattr(owner, "groups", 1)), bool(getattr(owner, "transposed", False)))
    return [(one, said) for one in tensors]


def quantized_tensor(name: str, tensor: Any) -> Tensor:
    """A tensor of PyTorch, as the numbers it stands for where it carries its own scale."""
    if not tensor.is_quantized:
        return array_tensor(name, tensor.detach())
    # float32 for the dtype: the numbers that are read; the scale is part of the tensor.
    return Tensor(name, tuple(tensor.shape), "float32", lambda: tensor.dequantize())
