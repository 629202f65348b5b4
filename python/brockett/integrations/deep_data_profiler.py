"""DeepDataProfiler on brockett: what its own arguments take, computed sooner and in float64.

>>> import brockett as bk
>>> bk.integrations.deep_data_profiler.TESTED
'2.0.1'

Nothing is replaced: `SpectralAnalysis` and `SVDProfiler` accept spectra, exponents and decompositions from outside::

    import deep_data_profiler as ddp
    from brockett.integrations import deep_data_profiler as fast

    analysis, alphas = ddp.SpectralAnalysis(model), fast.alpha_dict(model)
    analysis.layer_RMT(alphas), analysis.universal_metric(alphas)

    profiler = ddp.SVDProfiler(model, compute_svd=False)
    profiler.svd_dict = fast.svd_dict(profiler)
    profiler.create_influential(x)

One part has no such argument: `project_svd`, which decomposes the whole model for its feature visualizations. Inside
`accelerated()` that is done by brockett as well.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from .. import _svd
from .._errors import InvalidArgument, InvalidType, NonFinite
from .._marchenko_pastur import host_engine
from .._power_law import alpha_bounds
from ._rebind import Name, Rebinding, import_tool

__all__ = ["TESTED", "accelerated", "alpha_dict", "eig_dict", "left_vectors", "svd_dict"]

#: The version that the contracts were taken from.
TESTED = "2.0.1"
PACKAGE, HOW = "deep-data-profiler", f"pip install deep-data-profiler=={TESTED}"


def eig_dict(model: Any) -> dict[int, tuple[np.ndarray, float]]:
    """Spectra of the linear and convolutional layers: `SpectralAnalysis.fit_power_law(eig_dict=…)` takes them.

    Parameters
    ----------
    model : torch.nn.Module or SpectralAnalysis
        Layers are found and numbered as `SpectralAnalysis` does it: torch.nn.Linear and torch.nn.Conv2d themselves, not
        their subclasses, from 1 in the order of the modules.

    Returns
    -------
    spectra : dict of int to (ndarray (k,), float)
        Eigenvalues σ²/out of the weights (a convolution unfolded to (out, in k²)), float64 and descending; and the
        aspect ratio Q, larger over smaller side.

    Raises
    ------
    ImportError
        DeepDataProfiler is not installed (an `Unsupported`, too).
    NonFinite
        A NaN or Inf in a layer, which is named.
    InvalidArgument
        A model without such a layer.

    Notes
    -----
    `brockett.singular_values`: m n min(m, n) + 4/3 min(m, n)³ flops a layer. DeepDataProfiler takes them in float32 of
    torch.svd, which allocates zeros for the vectors that nobody asked for (2.5 GB for VGG16's first fully connected
    layer) and errs by 1e-4 in the small ones. Values that float32 weights do not resolve, below 1e-7 σ₁, are exact
    zeros here, which a power-law fit leaves out.

    Examples
    --------
    ::

        analysis = ddp.SpectralAnalysis(model)
        analysis.fit_power_law(eig_dict=eig_dict(model))
    """
    found: dict[int, tuple[np.ndarray, float]] = {}
    for number, (name, W) in enumerate(_weights(model), 1):
        try:
            s, info = _svd.singular_values(W, return_info=True)
        except NonFinite as error:
            raise NonFinite(name, error.index) from None
        sigma = s.cpu().numpy().copy()
        sigma[info.unresolved] = 0.0
        rows, columns = W.shape
        found[number] = sigma * sigma / rows, max(rows, columns) / min(rows, columns)
    if not found:
        raise InvalidArgument("model", "has no torch.nn.Linear or torch.nn.Conv2d")
    return found


def alpha_dict(
    spectra: Any, *, alpha_range: tuple[float | None, float | None] | None = None
) -> dict[int, tuple[float, float]]:
    """Power-law exponents of the layers: `SpectralAnalysis.layer_RMT` and `universal_metric` take them.

    Parameters
    ----------
    spectra : mapping, torch.nn.Module or SpectralAnalysis
        What `eig_dict` or `SpectralAnalysis.spectral_analysis` returned; or a model, whose spectra are then computed.
    alpha_range : (float or None, float or None), optional
        Only exponents strictly inside count. (0, 3) is what the powerlaw package does since its version 2.0, and with
        it DeepDataProfiler; by default there is no limit, as in powerlaw 1.5 and the paper, and layers above 3 are told
        apart.

    Returns
    -------
    exponents : dict of int to (float, float)
        alpha and the largest eigenvalue. alpha is NaN, as the powerlaw package has it, where no two eigenvalues differ.

    Raises
    ------
    InvalidArgument
        A spectrum with a negative or non-finite value, or a range that is empty.
    ImportError, NonFinite
        As `eig_dict`.

    Notes
    -----
    The scan of `brockett.random_matrix.fit_power_law`, about n log n operations for n eigenvalues where the package has
    n². That function declines to fit fewer than ten values; here they are fitted, since the package does.

    Examples
    --------
    >>> import numpy as np
    >>> from brockett.integrations.deep_data_profiler import alpha_dict
    >>> heavy = (1 - np.random.default_rng(0).random(2000)) ** (-1 / 1.5)  # alpha = 2.5
    >>> alpha, largest = alpha_dict({1: (heavy, 1.0)})[1]
    >>> abs(alpha - 2.5) < 0.1, largest == float(heavy.max())
    (True, True)
    """
    low, high = alpha_bounds(alpha_range)
    known = spectra if isinstance(spectra, Mapping) else eig_dict(spectra)
    module = host_engine().module
    found = {}
    for number, entry in known.items():
        values = np.asarray(entry[0], dtype=np.float64)
        if values.ndim != 1 or not np.all(values >= 0) or not np.all(np.isfinite(values)):
            raise InvalidArgument("spectra", f"expected finite eigenvalues ≥ 0 on one axis for layer {number!r}")
        positive = values[values > 0]
        alpha = np.nan
        if len(np.unique(positive)) > 1:
            law = module.fit_power_law(positive, 0.0, 0.0, np.inf, np.inf, low, high, 2, False)
            alpha = float(law["alpha"]) if law["found"] else np.nan
        found[number] = alpha, float(np.max(values))
    return found


def svd_dict(profiler: Any, layers_to_find: Any = None) -> OrderedDict[int, tuple[Any, Any]]:
    """Decompositions of the layers of an SVDProfiler: assign them to its `svd_dict`.

    Parameters
    ----------
    profiler : SVDProfiler
        Made with `compute_svd=False`.
    layers_to_find : list or (start, end), optional
        Positions of layers, as `SVDProfiler.create_svd` takes them; all by default.

    Returns
    -------
    decompositions : OrderedDict of int to (list of str, torch.return_types.svd)
        By position: the names of the supernode, and U, S, V with W = U diag(S) Vᵀ, in the dtype and on the device of
        the weights (a convolution unfolded to (out, in k²)).

    Raises
    ------
    ImportError
        DeepDataProfiler is not installed (an `Unsupported`, too).
    InvalidType
        Something else than an SVDProfiler.
    NonFinite
        A NaN or Inf in a layer, which is named.

    Notes
    -----
    The cost is that of `brockett.svd`. Signs are brockett's (the largest entry of each row of Vᵀ is positive), where
    those of torch.svd follow from its algorithm; the neurons found influential and their weights do not depend on them.

    Examples
    --------
    ::

        profiler = ddp.SVDProfiler(model, compute_svd=False)
        profiler.svd_dict = svd_dict(profiler)
    """
    profiler_class = import_tool(PACKAGE, TESTED, "deep_data_profiler", HOW).SVDProfiler
    if not isinstance(profiler, profiler_class):
        raise InvalidType("profiler", f"expected a deep_data_profiler.SVDProfiler, got {type(profiler).__name__}")
    nodes = sorted(profiler.SG.nodes, key=lambda node: node[0])
    modules = profiler.model.available_modules()
    found: OrderedDict[int, tuple[Any, Any]] = OrderedDict()
    for place in _places(layers_to_find, len(nodes)):
        position, name = nodes[place][:2]
        if type(modules[name]) in profiler.implemented_classes:
            found[position] = profiler.supernodes[name], _decomposed(name, profiler.hooks[name].weight)
    return found


def left_vectors(profiler: Any) -> OrderedDict[str, Any]:
    """Left singular vectors of the layers by name, as DeepDataProfiler's `model_svd_dict` returns them.

    Parameters
    ----------
    profiler : TorchProfiler
        Any of DeepDataProfiler's profilers.

    Returns
    -------
    vectors : OrderedDict of str to torch.Tensor (out, k)

    Raises
    ------
    NonFinite
        A NaN or Inf in a layer, which is named.

    Notes
    -----
    The cost is that of `brockett.svd` for each layer, and signs are brockett's, as in `svd_dict`.

    Examples
    --------
    ::

        vectors = left_vectors(ddp.SVDProfiler(model, compute_svd=False))
    """
    hooks = profiler.hooks
    found: OrderedDict[str, Any] = OrderedDict()
    for names in profiler.create_layers().values():
        name = names[0][0]
        if name == "x_in" or "resnetadd" in name or "weight" not in hooks[name]._parameters:
            continue
        if names[-1] in ("contrib_linear", "contrib_conv2d"):
            found[name] = _decomposed(name, hooks[name].weight).U
    return found


def accelerated() -> AbstractContextManager[None]:
    """A block in which `project_svd`, and with it the feature visualizations, take the SVD from brockett.

    Returns
    -------
    block : context manager
        DeepDataProfiler is as it was before when the outermost block has ended, by an exception too.

    Raises
    ------
    ImportError
        DeepDataProfiler is not installed (an `Unsupported`, too).
    Unsupported
        The installed version has other names: it names both versions.

    Notes
    -----
    The name is the process's: other threads that project meanwhile use brockett as well.

    Examples
    --------
    ::

        with bk.integrations.deep_data_profiler.accelerated():
            projected = svd_utils.project_svd(profiler)  # of deep_data_profiler.optimization
    """
    return _REBINDING.bound()


def _names() -> Sequence[Name]:
    module = "deep_data_profiler.optimization.svd_utils"
    return [Name(module, "model_svd_dict", ("profiler",), lambda _: left_vectors)]


_REBINDING = Rebinding(PACKAGE, TESTED, HOW, _names)


def _weights(model: Any) -> list[tuple[str, Any]]:
    """Name and matrix of each layer that SpectralAnalysis looks at, in its order."""
    import torch

    ddp = import_tool(PACKAGE, TESTED, "deep_data_profiler", HOW)
    analysis = model if isinstance(model, ddp.SpectralAnalysis) else None
    if analysis is None:
        if not isinstance(model, torch.nn.Module):
            raise InvalidType("model", f"expected a torch.nn.Module or SpectralAnalysis, got {type(model).__name__}")
        analysis = ddp.SpectralAnalysis(model)
    names = {id(module): name for name, module in analysis.model.named_modules()}
    layers = [layer for layer in ddp.utils.get_children(analysis.model) if type(layer) in analysis.implemented_classes]
    return [(names.get(id(layer), "model"), layer.weight.detach().flatten(start_dim=1)) for layer in layers]


def _places(layers: Any, count: int) -> Sequence[int]:
    if layers is None:
        return range(1, count)
    if isinstance(layers, list):
        return [place for place in layers if 1 <= place < count]
    start, end = layers
    return range(max(1, start), min(count, end))


def _decomposed(name: str, weight: Any) -> Any:
    import torch

    W = weight.detach().flatten(start_dim=1)
    try:
        U, s, Vt = _svd.svd(W)
    except NonFinite as error:
        raise NonFinite(name, error.index) from None
    return torch.return_types.svd((U.to(W.dtype), s.to(W.dtype), Vt.to(W.dtype).mT))
