"""The readable reference engine: the low-level interface of the compiled core in array-API Python, written once.

Each method is here in as few lines as it takes, over any array namespace: NumPy where the compiled core does not load,
CuPy arrays on a GPU, array-api-strict in the tests. To understand what brockett computes, read descramble.py first.
"""

from __future__ import annotations

from .autocorrelation import Accumulator
from .convolution import channel_gram, operator_singular_values
from .cost import brockett_cost
from .descramble import descramble
from .diagonalize import diagonalize
from .eigen import eigen_symmetric
from .patch_autocorrelation import PatchAccumulator
from .penalty import penalty_basis, penalty_eigenvalues, penalty_matrix
from .power_law import bootstrap_power_law, compare_power_law, fit_power_law
from .random_matrix import fit_bulk, marchenko_pastur, tracy_widom_cdf, tracy_widom_edge, tracy_widom_quantile
from .spectral_graph import graph_adjacency, graph_modes, graph_overlaps
from .svd import (
    normals,
    singular_values,
    singular_values_batch,
    svd,
    svd_batch,
    svd_operator,
    svd_product,
    whitened_svd,
)

__all__ = [
    "Accumulator",
    "PatchAccumulator",
    "bootstrap_power_law",
    "brockett_cost",
    "channel_gram",
    "compare_power_law",
    "descramble",
    "diagonalize",
    "eigen_symmetric",
    "fit_bulk",
    "fit_power_law",
    "graph_adjacency",
    "graph_modes",
    "graph_overlaps",
    "marchenko_pastur",
    "normals",
    "operator_singular_values",
    "penalty_basis",
    "penalty_eigenvalues",
    "penalty_matrix",
    "singular_values",
    "singular_values_batch",
    "svd",
    "svd_batch",
    "svd_operator",
    "svd_product",
    "tracy_widom_cdf",
    "tracy_widom_edge",
    "tracy_widom_quantile",
    "whitened_svd",
]
