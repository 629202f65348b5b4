"""PyTorch tensors in tests: their values in float64 NumPy, compared on the scale of the largest."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

Array = np.ndarray[Any, Any]
#: What rounding to each type leaves of values near 1, with room for a few operations.
EPS = {torch.float16: 1e-3, torch.bfloat16: 8e-3, torch.float32: 1e-6, torch.float64: 1e-13}


def values(tensor: Any) -> Array:
    """float64 NumPy values of a tensor of any type."""
    result: Array = tensor.detach().double().numpy()
    return result


def close(found: Any, wanted: Array, tolerance: float) -> None:
    """A tensor or array differs from another by at most `tolerance` of that one's largest entry."""
    scale = np.abs(wanted).max()
    found = found if isinstance(found, np.ndarray) else values(found)
    np.testing.assert_allclose(found / scale, wanted / scale, rtol=0, atol=tolerance)
