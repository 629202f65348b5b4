"""brockett: spectral analysis of trained neural networks.

Accumulate the autocorrelation of a layer's inputs, decompose its weights, and descramble it: find the orthogonal P that
makes its outputs smoothest (arXiv 2301.07820). NumPy arrays, PyTorch CPU tensors and anything with DLPack come in, and
the same kind goes out.

>>> import numpy as np
>>> import brockett as bk
>>> W = np.random.default_rng(0).normal(size=(16, 8))
>>> d = bk.descramble(W, inputs=np.random.default_rng(1).normal(size=(1000, 8)))
>>> d.cost < d.identity_cost, abs(d.cost / d.optimum - 1) < 1e-10
(True, True)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import convolution, hypergraph, penalty, random_matrix
from ._accelerate import AccelerationReport, accelerate
from ._analyze import Analysis, analyze
from ._autocorrelation import Autocorrelation, autocorrelation
from ._collect import collect, collect_plan
from ._collect_plan import CollectionPlan
from ._collection import Collection
from ._descramble import BrockettCost, Descrambling, Diagonalization, brockett_cost, descramble, diagonalize
from ._engine import EngineInfo, engines, set_engine, set_threads, threads
from ._errors import (
    BrockettError,
    EngineUnavailable,
    FileFormatError,
    InvalidArgument,
    InvalidType,
    NonFinite,
    NotConverged,
    OutOfMemory,
    PrecisionWarning,
    Unsupported,
)
from ._patch_autocorrelation import PatchAutocorrelation
from ._spectral_graph import (
    GraphEdges,
    GraphLayer,
    GraphPath,
    SpectralGraph,
    edge_threshold,
    spectral_graph,
)
from ._svd import (
    Product,
    SingularValuesInfo,
    SVDResult,
    WhitenedSVD,
    randomized_svd,
    singular_values,
    svd,
    whitened_svd,
)

if TYPE_CHECKING:
    from . import integrations, models

    __version__: str

__all__ = [
    "AccelerationReport",
    "Analysis",
    "Autocorrelation",
    "BrockettCost",
    "BrockettError",
    "Collection",
    "CollectionPlan",
    "Descrambling",
    "Diagonalization",
    "EngineInfo",
    "EngineUnavailable",
    "FileFormatError",
    "GraphEdges",
    "GraphLayer",
    "GraphPath",
    "InvalidArgument",
    "InvalidType",
    "NonFinite",
    "NotConverged",
    "OutOfMemory",
    "PatchAutocorrelation",
    "PrecisionWarning",
    "Product",
    "SVDResult",
    "SingularValuesInfo",
    "SpectralGraph",
    "Unsupported",
    "WhitenedSVD",
    "__version__",
    "accelerate",
    "analyze",
    "autocorrelation",
    "brockett_cost",
    "collect",
    "collect_plan",
    "convolution",
    "descramble",
    "diagonalize",
    "edge_threshold",
    "engines",
    "hypergraph",
    "integrations",
    "models",
    "penalty",
    "random_matrix",
    "randomized_svd",
    "set_engine",
    "set_threads",
    "singular_values",
    "spectral_graph",
    "svd",
    "threads",
    "whitened_svd",
]


def __getattr__(name: str) -> Any:
    # The version has one place, CMakeLists.txt; reading it from the installed metadata costs 10 ms that few need.
    if name == "__version__":
        from importlib import metadata

        return metadata.version("brockett")
    if name in ("integrations", "models"):  # 10 ms, for those who use them
        import importlib

        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
