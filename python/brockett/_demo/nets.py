"""The three demonstration networks and their untrained twins, in NumPy.

A net is a list of layers y = W x + b with one activation between them; the last layer is linear. Weights are trained by
``examples/train_nets/train.py`` (PyTorch) from the initial values that :func:`initial_layers` draws from a seed, so the
*untrained twin* of a net is that seed and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import pairwise

import numpy as np

from brockett._demo.signals import TASKS, TEST, Float32, Task, generator

ACTIVATIONS: dict[str, Callable[[Float32], Float32]] = {
    "tanh": np.tanh,
    "relu": lambda y: np.maximum(y, np.float32(0.0)),
}


@dataclass(frozen=True)
class Layer:
    """One affine layer: ``weight`` (n_outputs, n_inputs) and ``bias`` (n_outputs,), float32."""

    weight: Float32
    bias: Float32


@dataclass(frozen=True)
class Architecture:
    """What defines an untrained net: its task, widths, activation and the seed of its initial weights."""

    task: Task
    widths: tuple[int, ...]
    activation: str
    init_seed: int

    @property
    def name(self) -> str:
        return self.task.name

    @property
    def shape(self) -> str:
        return "-".join(map(str, self.widths))


ARCHITECTURES: dict[str, Architecture] = {
    a.name: a
    for a in (
        Architecture(TASKS["relaxometry"], (64, 32, 256, 256, 32, 2), "relu", 101),
        Architecture(TASKS["dipolar"], (256, 80, 256), "tanh", 102),
        Architecture(TASKS["bandpass"], (256, 256, 256), "tanh", 103),
    )
}


@dataclass(frozen=True)
class Net:
    """A network: architecture, layers and, for a trained one, what its training recorded."""

    architecture: Architecture
    layers: tuple[Layer, ...]
    record: dict[str, object] = field(default_factory=dict)

    def hidden(self, x: Float32) -> Iterator[Float32]:
        """Yield the input of each layer in turn, (n_samples, n_inputs): x first, then the activations."""
        activation = ACTIVATIONS[self.architecture.activation]
        yield x
        for layer in self.layers[:-1]:
            x = activation(x @ layer.weight.T + layer.bias)
            yield x

    def __call__(self, x: Float32) -> Float32:
        """Return the output of the net for inputs of shape (n_samples, n_inputs)."""
        *_, last = self.hidden(x)
        return np.asarray(last @ self.layers[-1].weight.T + self.layers[-1].bias)


def initial_layers(architecture: Architecture) -> tuple[Layer, ...]:
    """Draw the initial weights of a net from its seed: weights and biases uniform in +-1/sqrt(n_inputs).

    The rule is PyTorch's for a linear layer; the numbers are NumPy's Philox, weight first, then bias, layer by layer.
    """
    rng = np.random.Generator(np.random.Philox(architecture.init_seed))
    layers = []
    for n_in, n_out in pairwise(architecture.widths):
        bound = np.float32(1.0 / np.sqrt(n_in))
        weight = (2.0 * rng.random((n_out, n_in), dtype=np.float32) - 1.0) * bound
        bias = (2.0 * rng.random(n_out, dtype=np.float32) - 1.0) * bound
        layers.append(Layer(weight, bias))
    return tuple(layers)


def untrained(name: str) -> Net:
    """Return the untrained twin of a net, regenerated from its seed."""
    architecture = ARCHITECTURES[name]
    return Net(architecture, initial_layers(architecture))


def trained(name: str) -> Net:
    """Load a trained net from ``brockett/data/<name>.safetensors``.

    Raises
    ------
    ModuleNotFoundError
        Without the ``safetensors`` package (extra ``cli``).
    ValueError
        If a tensor is missing or its shape is not the architecture's: a damaged installation.
    """
    from safetensors.numpy import load

    architecture = ARCHITECTURES[name]
    raw = (files("brockett") / "data" / f"{name}.safetensors").read_bytes()
    tensors = load(raw)
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    layers = []
    for i, (n_in, n_out) in enumerate(pairwise(architecture.widths)):
        weight, bias = tensors.get(f"layer{i}.weight"), tensors.get(f"layer{i}.bias")
        if weight is None or bias is None or weight.shape != (n_out, n_in) or bias.shape != (n_out,):
            raise ValueError(f"{name}.safetensors: layer{i} is missing or is not {n_out} x {n_in}; reinstall brockett")
        layers.append(Layer(weight.astype(np.float32), bias.astype(np.float32)))
    return Net(architecture, tuple(layers), json.loads(header["__metadata__"]["record"]))


def relative_error(net: Net, seed: int, n_samples: int = 20_000) -> float:
    """Return the test error of a net: mean squared error over the variance of the targets.

    On ``n_samples`` of the test stream of ``seed``. The best constant answer has 1, a perfect one 0.
    """
    x, target = net.architecture.task.sample(generator(seed, TEST), n_samples)
    residual = np.asarray(net(x), dtype=np.float64) - target
    return float(np.mean(residual**2) / np.mean((target - target.mean(axis=0, dtype=np.float64)) ** 2))
