"""Class hypergraphs: which SVD neurons of a network carry which inputs, and how they tell classes apart.

`influential` finds, for each input, the few singular directions of a layer's weights that carry its pre-activations;
`ClassProfiles` accumulates them over batches; `class_hypergraph` and `image_hypergraph` make hypergraphs of SVD neurons
(nodes) and classes or images (hyperedges), with their similarities, s-line graphs, persistence and exports. Hypergraphs
need SciPy (``pip install 'brockett[hypergraph]'``); the rest does not.

B. Praggastis et al., *The SVD of convolutional weights: a CNN interpretability framework*, arXiv 2208.06894.

>>> import numpy as np
>>> import brockett as bk
>>> rng = np.random.default_rng(0)
>>> layer, profiles, seen = bk.svd(rng.normal(size=(16, 8))), bk.hypergraph.ClassProfiles(2), []
>>> labels = np.arange(40) % 2
>>> for batch in np.split(np.arange(40), 4):
...     x = rng.normal(size=(10, 8)) + 9 * layer.Vt[labels[batch]]  # a class is a direction
...     seen.append(bk.hypergraph.influential(layer, x @ (layer.U * layer.s @ layer.Vt).T))
...     profiles.update(seen[-1], labels[batch])
>>> bk.hypergraph.class_hypergraph(profiles).edge_sizes().tolist()
[1, 1]
>>> bk.hypergraph.image_hypergraph(seen).separation(labels).accuracy
1.0
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _options
from ._errors import InvalidArgument, InvalidType
from ._hypergraph import Hypergraph, build, edge_names, scipy_sparse
from ._influential import Influential, influential, share_of
from ._profiles import ClassProfiles, by_layer
from ._similarity import Matrix, Separation, Sparse

__all__ = [
    "ClassProfiles",
    "Hypergraph",
    "Influential",
    "Separation",
    "class_hypergraph",
    "image_hypergraph",
    "influential",
]


def class_hypergraph(
    profiles: ClassProfiles,
    *,
    min_frequency: float | None = 0.5,
    values: str = "weight",
    classes: Sequence[int] | None = None,
    layers: Sequence[str] | None = None,
) -> Hypergraph:
    """Classes as hyperedges of the SVD neurons that are influential for their inputs.

    Parameters
    ----------
    profiles : ClassProfiles
    min_frequency : float, default 0.5
        A neuron belongs to a class if it was influential for at least this share of its inputs, in (0, 1]. None: for at
        least one input, as in DeepDataProfiler's aggregated profiles.
    values : {"weight", "frequency"}, default "weight"
        What the incidence holds: the mean weight, or the share of the inputs.
    classes : sequence of int, optional
        Which ones; all by default.
    layers : sequence of str, optional
        Which ones; all by default.

    Returns
    -------
    hypergraph : Hypergraph
        All SVD neurons of the layers are nodes, also those of no class. A mean weight of exactly 0 (positive and
        negative projections that cancel) is stored as the smallest positive number, so that it stays a member.

    Raises
    ------
    InvalidArgument
        No inputs at all, a chosen class without inputs (named), an unknown class or layer.

    References
    ----------
    B. Praggastis et al., arXiv 2208.06894, section 4.

    Examples
    --------
    >>> import numpy as np, brockett as bk
    >>> profiles = bk.hypergraph.ClassProfiles(2, ["cat", "dog"])
    >>> profiles.update(bk.hypergraph.influential(np.eye(2), [[3.0, 1.0], [0.0, 2.0]]), [0, 1])
    >>> bk.hypergraph.class_hypergraph(profiles).to_dict()
    {'cat': {'layer:0': 0.75}, 'dog': {'layer:1': 1.0}}
    """
    if not isinstance(profiles, ClassProfiles):
        raise InvalidType("profiles", f"expected ClassProfiles, got {type(profiles).__name__}")
    least = None if min_frequency is None else share_of("min_frequency", min_frequency)
    word = _options.option("values", values, ("weight", "frequency"))
    if not profiles.layers:
        raise InvalidArgument("profiles", "are empty: update them with inputs first")
    chosen = _chosen_classes(profiles, classes)
    parts = []
    names = _chosen_layers(profiles.layers, layers)
    for name in names:
        counts = profiles.counts(name)[chosen]
        # In whole counts: a share such as 0.3 of 10 inputs must not be missed by rounding.
        needed = 1.0 if least is None else np.maximum(least * profiles.n_inputs[chosen], 1.0) * (1 - 1e-12)
        member = counts >= np.reshape(needed, (-1, 1))
        kept = profiles.weights(name)[chosen] if word == "weight" else profiles.frequencies(name)[chosen]
        parts.append(_members(member, kept))
    edges = [profiles.class_names[c] if profiles.class_names else int(c) for c in chosen]
    return _stacked(names, parts, edges)


def image_hypergraph(
    found: Any, *, names: Sequence[Hashable] | None = None, layers: Sequence[str] | None = None
) -> Hypergraph:
    """Inputs (images) as hyperedges of their influential SVD neurons.

    Parameters
    ----------
    found : Influential, mapping of str to Influential, or a sequence of these
        By layer; several batches, of the same layers, are joined in their order.
    names : sequence, optional
        Names of the images; their numbers where not given.
    layers : sequence of str, optional
        Which ones; all by default.

    Returns
    -------
    hypergraph : Hypergraph
        The incidence holds the weights.

    Raises
    ------
    InvalidArgument
        No batches, batches of different layers, names that do not fit.

    Examples
    --------
    >>> import numpy as np, brockett as bk
    >>> found = bk.hypergraph.influential(np.eye(2), [[3.0, 1.0], [0.0, 2.0], [1.0, 0.0]])
    >>> images = bk.hypergraph.image_hypergraph(found)
    >>> images.jaccard().tolist()
    [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 1.0]]
    >>> images.separation([0, 1, 0]).accuracy
    0.6666666666666666
    """
    single = isinstance(found, Influential | Mapping)
    if not single and not isinstance(found, Iterable):
        raise InvalidType("found", f"expected what `influential` gives, or several, got {type(found).__name__}")
    batches = [by_layer(one) for one in ([found] if single else found)]
    if not batches:
        raise InvalidArgument("found", "expected at least one batch, got none")
    sizes = {name: one.n_neurons for name, one in batches[0].items()}
    for i, batch in enumerate(batches):
        here = {name: one.n_neurons for name, one in batch.items()}
        if here != sizes:
            raise InvalidArgument("found", f"batch {i} is of the layers {here}, the first one of {sizes}")
    chosen = _chosen_layers(sizes, layers)
    sparse = scipy_sparse()
    parts = [
        sparse.vstack([_members(batch[name].mask, batch[name].weights).T for batch in batches], format="csr").T
        for name in chosen
    ]
    edges = edge_names("names", names, parts[0].shape[1], int)
    return _stacked(chosen, parts, edges)


def _chosen_layers(there: Mapping[str, int], wanted: Sequence[str] | None) -> list[str]:
    if wanted is None:
        return list(there)
    if isinstance(wanted, str):
        raise InvalidType("layers", f"expected a sequence of names, got the single name {wanted!r}")
    missing = [name for name in wanted if name not in there]
    if missing or not wanted:
        raise InvalidArgument("layers", f"expected some of {list(there)}, got {list(wanted)}")
    return [name for name in there if name in set(wanted)]


def _chosen_classes(profiles: ClassProfiles, wanted: Sequence[int] | None) -> npt.NDArray[np.int64]:
    if wanted is None:
        chosen = np.arange(profiles.n_classes)
    elif not isinstance(wanted, Iterable):
        raise InvalidType("classes", f"expected a sequence of classes, got {wanted!r}")
    else:
        chosen = np.array([_options.count("classes", c, most=profiles.n_classes - 1) for c in wanted], dtype=np.int64)
        if len(chosen) == 0 or len(set(chosen.tolist())) != len(chosen):
            raise InvalidArgument("classes", f"expected different classes, at least one, got {list(wanted)}")
    empty = chosen[profiles.n_inputs[chosen] == 0]
    if len(empty):
        listed = ", ".join(map(str, empty[:8])) + (" …" if len(empty) > 8 else "")
        raise InvalidArgument("profiles", f"hold no inputs of class {listed}: choose others by classes=")
    return chosen


def _members(member: npt.NDArray[np.bool_], values: Matrix) -> Sparse:
    """(n_edges, n_neurons) membership as incidence (n_neurons, n_edges); a member's weight is never a stored 0."""
    edge, node = np.nonzero(member)
    weight = values[edge, node]
    weight = np.where(weight == 0, np.finfo(np.float64).tiny, weight)
    return scipy_sparse().csr_array((weight, (node, edge)), shape=member.shape[::-1])


def _stacked(names: Sequence[str], parts: Sequence[Sparse], edges: Sequence[Hashable]) -> Hypergraph:
    sizes = [int(part.shape[0]) for part in parts]
    nodes = [f"{name}:{j}" for name, size in zip(names, sizes, strict=True) for j in range(size)]
    layers = np.repeat(np.arange(len(sizes), dtype=np.int64), sizes)
    return build(scipy_sparse().csr_array(scipy_sparse().vstack(parts, format="csr")), nodes, edges, layers, names)
