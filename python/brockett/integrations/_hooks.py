"""What the adapters of compression tools share: casting, the second moments of a layer's inputs."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import _arrays
from .._autocorrelation import Autocorrelation
from .._collect_layers import chosen_sites, is_conv1d_of_transformers
from .._errors import InvalidArgument, InvalidType, NonFinite, Unsupported

__all__ = ["cast", "layer_argument", "moments_of_inputs", "needs_gradient", "total"]


def cast(array: Any, dtype: Any) -> Any:
    """The same values in another dtype of the same library."""
    return array.astype(dtype) if isinstance(array, np.ndarray) else array.to(dtype)


def needs_gradient(tensor: Any) -> bool:
    """Whether autograd records what is done with a tensor, which only the tool's own function can serve."""
    import torch

    return isinstance(tensor, torch.Tensor) and tensor.requires_grad and torch.is_grad_enabled()


def layer_argument(layer: Any, name: str | None) -> str:
    """How messages call the inputs of a layer: by its name, or by what it prints as."""
    return f"input of layer {name!r}" if name is not None else f"input of {layer}"


def moments_of_inputs(
    layer: Any, inp: Any, mask: Any = None, name: str | None = None, precision: str = "double"
) -> Autocorrelation:
    """The accumulator of what a layer sees in `inp`: rows of a linear layer, patches of a convolution.

    Raises
    ------
    InvalidArgument, NonFinite, InvalidType
        Named after the layer.
    Unsupported
        A layer that is neither, or a grouped convolution, whose joint moments no Hessian of all columns holds.
    """
    import torch

    where = layer_argument(layer, name)
    if not isinstance(inp, torch.Tensor):
        raise InvalidType(where, f"expected a torch.Tensor, got {type(inp).__name__}")
    kinds = (torch.nn.Linear, torch.nn.Conv1d, torch.nn.Conv2d)
    if not isinstance(layer, kinds) and not is_conv1d_of_transformers(layer):
        raise Unsupported(f"{where}: a {type(layer).__name__} is neither a linear layer nor a Conv1d or Conv2d")
    if getattr(layer, "groups", 1) != 1:
        raise Unsupported(f"{where}: {layer.groups} groups of channels have a Hessian each, not one")
    (site,) = chosen_sites(layer, [""], "inputs", torch)
    acc = site.make(False, "gram", precision)
    try:
        acc.update(site.rows(inp.detach()), mask=mask)
    except NonFinite as error:
        raise NonFinite(where, error.index) from error
    except InvalidArgument as error:
        argument = f"mask for {where}" if error.argument == "mask" else where
        raise type(error)(argument, error.message) from error
    return acc


def total(acc: Autocorrelation, space: Any = None) -> Any:
    """Σ x xᵀ of an accumulator, float64; zeros where nothing counted."""
    if acc.n_samples == 0:
        zeros = np.zeros((acc.n_features, acc.n_features))
        return (space or acc._space or _arrays.HOST).back(zeros)
    return acc.matrix() * acc.weight
