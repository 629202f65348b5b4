"""Models: the layers of a network from the files that hold it, whatever wrote them.

>>> import numpy as np, brockett as bk
>>> model = bk.models.load([np.eye(4, 3), np.ones((2, 4))])
>>> [(layer.name, layer.shape) for layer in model]
[('layer 0', (4, 3)), ('layer 1', (2, 4))]
"""

from __future__ import annotations

from ._load import load
from ._model import Layer, Model, Norm, Tensor

__all__ = ["Layer", "Model", "Norm", "Tensor", "load"]
