"""A network, batches for it, and what is to be collected: what the tests of `collect` share."""

from __future__ import annotations

from typing import Any

import numpy as np


def small_net() -> Any:
    from torch import manual_seed, nn

    manual_seed(3)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2))


def five_batches() -> list[Any]:
    import torch

    generator = torch.Generator().manual_seed(5)
    return [torch.randn(n, 3, generator=generator) for n in (4, 7, 2, 5, 3)]


def inputs(net: Any, batches: list[Any]) -> dict[str, np.ndarray[Any, Any]]:
    """R of the inputs of each linear layer, by NumPy over what torch computes."""
    import torch

    x, out = torch.cat(batches), {}
    with torch.no_grad():
        for name, layer in net.named_children():
            if isinstance(layer, torch.nn.Linear):
                rows = x.double().numpy()
                out[name] = rows.T @ rows / len(rows)
            x = layer(x)
    return out


def check(found: Any, net: Any, batches: list[Any]) -> None:
    expected = inputs(net, batches)
    assert set(found) == set(expected)
    for name, R in expected.items():
        assert found[name].n_samples == sum(map(len, batches))
        np.testing.assert_allclose(np.asarray(found[name].matrix()), R, atol=1e-6)
