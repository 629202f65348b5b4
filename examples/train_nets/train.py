"""Train the networks that brockett ships, and write them to python/brockett/data.

    python examples/train_nets/train.py [relaxometry|dipolar|bandpass ...] [--out DIR]

Needs brockett, PyTorch (CPU) and safetensors; 170 s of CPU for all three. One thread, fixed seeds, data by formula
(brockett/_demo/signals.py), initial weights from brockett/_demo/nets.py. The same PyTorch build gives the same bits.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from brockett._demo.nets import ARCHITECTURES, Layer, Net, initial_layers, relative_error
from brockett._demo.signals import TRAIN, generator

DATA = Path(__file__).resolve().parents[2] / "python" / "brockett" / "data"


@dataclass(frozen=True)
class Recipe:
    """AdamW on the mean squared error, learning rate falling from ``rate`` to zero along a half cosine."""

    steps: int
    batch: int
    rate: float
    decay: float
    train_seed: int = 7
    test_seed: int = 8


RECIPES = {
    "relaxometry": Recipe(steps=12_000, batch=512, rate=1e-3, decay=0.02),
    "dipolar": Recipe(steps=9_000, batch=512, rate=2e-3, decay=0.05),
    "bandpass": Recipe(steps=5_000, batch=512, rate=2e-3, decay=0.2),
}


def module(name: str) -> torch.nn.Sequential:
    """Build the net in PyTorch with the initial weights that define its untrained twin."""
    architecture = ARCHITECTURES[name]
    activation = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}[architecture.activation]
    parts: list[torch.nn.Module] = []
    for layer in initial_layers(architecture):
        linear = torch.nn.Linear(layer.weight.shape[1], layer.weight.shape[0])
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(layer.weight))
            linear.bias.copy_(torch.from_numpy(layer.bias))
        parts += [linear, activation()]
    return torch.nn.Sequential(*parts[:-1])


def layers_of(net: torch.nn.Sequential) -> tuple[Layer, ...]:
    return tuple(
        Layer(m.weight.detach().numpy().copy(), m.bias.detach().numpy().copy())
        for m in net
        if isinstance(m, torch.nn.Linear)
    )


def train(name: str, recipe: Recipe) -> Net:
    """Train one net; returns it with its record (seeds, steps, test error, CPU seconds)."""
    architecture = ARCHITECTURES[name]
    net = module(name)
    optimizer = torch.optim.AdamW(net.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: 0.5 * (1.0 + math.cos(math.pi * s / recipe.steps))
    )
    start = time.process_time()
    for step in range(recipe.steps):
        x, target = (
            torch.from_numpy(a)
            for a in architecture.task.sample(generator(recipe.train_seed, TRAIN, step), recipe.batch)
        )
        loss = torch.nn.functional.mse_loss(net(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 500 == 0:
            print(
                f"{name:12} step {step:6d}  loss {loss.item():.5f}  {time.process_time() - start:6.1f} s CPU",
                flush=True,
            )
    cpu = time.process_time() - start
    result = Net(architecture, layers_of(net))
    record = {
        "widths": list(architecture.widths),
        "activation": architecture.activation,
        "init_seed": architecture.init_seed,
        "train_seed": recipe.train_seed,
        "test_seed": recipe.test_seed,
        "steps": recipe.steps,
        "batch": recipe.batch,
        "learning_rate": recipe.rate,
        "weight_decay": recipe.decay,
        "test_error": round(relative_error(result, recipe.test_seed), 6),
        "untrained_test_error": round(
            relative_error(Net(architecture, initial_layers(architecture)), recipe.test_seed), 6
        ),
        "cpu_seconds": round(cpu),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
    return Net(architecture, result.layers, record)


def save(net: Net, folder: Path) -> Path:
    tensors = {}
    for i, layer in enumerate(net.layers):
        tensors[f"layer{i}.weight"], tensors[f"layer{i}.bias"] = layer.weight, layer.bias
    path = folder / f"{net.architecture.name}.safetensors"
    save_file(tensors, path, metadata={"record": json.dumps(net.record), "format": "np"})
    path.chmod(0o644)  # save_file writes 0600
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(RECIPES), metavar="NET", help=", ".join(RECIPES))
    parser.add_argument("--out", type=Path, default=DATA)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for name in args.names:
        net = train(name, RECIPES[name])
        print(save(net, args.out), net.record, flush=True)


if __name__ == "__main__":
    main()
