"""Hypergraphs of SVD neurons: against hand solutions, plain loops, SciPy and the peers."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import scipy.spatial.distance
import xgi

import brockett as bk
from brockett import _similarity
from brockett.hypergraph import (
    ClassProfiles,
    Hypergraph,
    Influential,
    class_hypergraph,
    image_hypergraph,
    influential,
)


def rows(found, keep):
    return {
        name: Influential(one.projections[keep], one.mask[keep], one.weights[keep], one.threshold, one.aggregation)
        for name, one in found.items()
    }


# ---------------------------------------------------------------------------------------------------------- hypergraphs
@pytest.fixture
def planted(rng):
    """60 images of 3 classes: each class has its own 6 of 20 neurons, an image holds most of them and some others."""
    labels = np.arange(60) % 3
    mask = rng.random((60, 20)) < 0.1
    for i, c in enumerate(labels):
        mask[i, 6 * c : 6 * c + 6] |= rng.random(6) < 0.8
    weights = np.where(mask, rng.uniform(0.1, 1.0, mask.shape), 0.0)
    return Influential(weights, mask, weights, 0.5, "sum"), labels


def test_images_and_classes(planted):
    found, labels = planted
    images = image_hypergraph({"x": found, "y": found})
    assert images.shape == (40, 60)
    np.testing.assert_array_equal(images.incidence.toarray(), np.vstack([found.weights.T, found.weights.T]))
    assert images.nodes[:2] == ("x:0", "x:1")
    assert images.nodes[-1] == "y:19"
    assert images.layer_names == ("x", "y")
    np.testing.assert_array_equal(images.layers, np.repeat([0, 1], 20))
    assert image_hypergraph({"x": found, "y": found}, layers=["y"]).nodes[0] == "y:0"
    with pytest.raises(bk.InvalidType, match="found: expected what `influential` gives, or several, got int"):
        image_hypergraph(3)
    halves = [rows({"x": found}, slice(0, 25)), rows({"x": found}, slice(25, 60))]
    np.testing.assert_array_equal(image_hypergraph(halves).incidence.toarray(), found.weights.T)
    np.testing.assert_array_equal(images.node_degrees()[:20], found.mask.sum(axis=0))
    np.testing.assert_array_equal(images.edge_sizes(), 2 * found.mask.sum(axis=1))

    profiles = ClassProfiles(3, ["u", "v", "w"])
    profiles.update(found, labels)
    frequency = np.array([found.mask[labels == c].mean(axis=0) for c in range(3)])
    mean = np.array([found.weights[labels == c].sum(axis=0) for c in range(3)]) / (frequency * 20 + (frequency == 0))
    for least in (0.5, 0.35, 1.0):
        classes = class_hypergraph(profiles, min_frequency=least)
        np.testing.assert_allclose(classes.incidence.toarray().T, np.where(frequency >= least, mean, 0), rtol=1e-12)
    shares = class_hypergraph(profiles, min_frequency=None, values="frequency", classes=[2, 0])
    np.testing.assert_allclose(shares.incidence.toarray().T, frequency[[2, 0]], rtol=1e-12)
    assert shares.edges == ("w", "u")
    np.testing.assert_array_equal(images.dual().incidence.toarray(), images.incidence.toarray().T)
    assert images.dual().edges == images.nodes


def test_a_share_of_the_inputs_is_counted_exactly():
    """3 of 10 is at least 0.3, whatever 0.3 · 10 is in binary."""
    mask = (np.arange(10) < 3)[:, None]
    profiles = ClassProfiles(1)
    profiles.update(Influential(mask * 1.0, mask, mask * 1.0, 0.5, "sum"), np.zeros(10, int))
    assert class_hypergraph(profiles, min_frequency=0.3).edge_sizes().tolist() == [1]
    assert class_hypergraph(profiles, min_frequency=0.31).edge_sizes().tolist() == [0]


def test_weights_that_cancel_stay_members():
    signed = influential(np.eye(1), [[1.0], [-1.0]], threshold=None)
    profiles = ClassProfiles(1)
    profiles.update(signed, [0, 0])
    graph = class_hypergraph(profiles)
    assert graph.edge_sizes().tolist() == [1]
    assert 0 < graph.incidence.toarray()[0, 0] < 1e-300


def random_hypergraph(rng, n_nodes, n_edges, share):
    return Hypergraph.from_incidence((rng.random((n_nodes, n_edges)) < share) * rng.uniform(0.5, 2, (n_nodes, n_edges)))


@pytest.mark.parametrize("way", ["sparse", "dense"])
@pytest.mark.parametrize("s", [1, 2, 4])
def test_s_line_graph(rng, monkeypatch, way, s):
    graph = random_hypergraph(rng, 30, 23, 0.2)
    monkeypatch.setattr(_similarity, "_SPARSE_COST", 1e-9 if way == "sparse" else 1e9)
    monkeypatch.setattr(_similarity, "_BLOCK", 100)  # blocks of 4 edges, the last one shorter
    sets = [set(np.nonzero(column)[0]) for column in graph.incidence.toarray().T]
    expected = np.zeros((23, 23))
    for i, j in itertools.permutations(range(23), 2):
        shared = len(sets[i] & sets[j])
        expected[i, j] = shared if shared >= s else 0
    found = graph.s_line_graph(s)
    assert isinstance(found, scipy.sparse.csr_array)
    np.testing.assert_array_equal(found.toarray(), expected)
    assert found.nnz == np.count_nonzero(expected)
    _, components = scipy.sparse.csgraph.connected_components(scipy.sparse.csr_array(expected), directed=False)
    np.testing.assert_array_equal(graph.components(s), components)

    other = random_hypergraph(rng, 30, 5, 0.3)
    theirs = [set(np.nonzero(column)[0]) for column in other.incidence.toarray().T]
    jaccard = [[len(a & b) / len(a | b) if a | b else 0 for b in theirs] for a in sets]
    np.testing.assert_allclose(graph.jaccard(other), jaccard, rtol=1e-15)
    inside = [[len(a & b) / len(a) if a else 0 for b in theirs] for a in sets]
    np.testing.assert_allclose(graph.containment(other), inside, rtol=1e-15)


def test_jaccard_of_layers_and_of_nothing(planted):
    found, _ = planted
    other = Influential(found.weights[::-1], found.mask[::-1], found.weights[::-1], 0.5, "sum")
    graph = image_hypergraph({"x": found, "y": other})
    each = graph.jaccard(per_layer=True)
    assert each.shape == (2, 60, 60)
    expected = 1 - scipy.spatial.distance.cdist(found.mask, found.mask, "jaccard")
    np.testing.assert_allclose(each[0], expected, atol=1e-15)
    np.testing.assert_allclose(each[1], expected[::-1, ::-1], atol=1e-15)
    empty = Hypergraph.from_incidence(np.array([[1, 0, 0], [1, 0, 0]]))
    assert empty.jaccard().tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert empty.s_line_graph().nnz == 0
    nothing = Hypergraph.from_incidence(np.zeros((2, 0)))
    assert nothing.s_line_graph().shape == (0, 0)
    assert nothing.jaccard().shape == (0, 0)


@pytest.mark.parametrize("block", [1 << 22, 120])
def test_separation(planted, monkeypatch, block):
    found, labels = planted
    monkeypatch.setattr(_similarity, "_BLOCK", block)
    graph = image_hypergraph(found)
    result = graph.separation(labels)
    similarity = 1 - scipy.spatial.distance.cdist(found.mask, found.mask, "jaccard")
    expected, silhouette, nearest = np.zeros((3, 3)), np.zeros(60), np.zeros(60, int)
    for c, d in itertools.product(range(3), repeat=2):
        expected[c, d] = np.mean(
            [similarity[i, j] for i in range(60) for j in range(60) if i != j and (labels[i], labels[j]) == (c, d)]
        )
    for i in range(60):
        means = [np.mean([similarity[i, j] for j in range(60) if j != i and labels[j] == c]) for c in range(3)]
        nearest[i] = np.argmax(means)
        a, b = 1 - means[labels[i]], min(1 - means[c] for c in range(3) if c != labels[i])
        silhouette[i] = (b - a) / max(a, b)
    np.testing.assert_allclose(result.similarity, expected, rtol=1e-12)
    np.testing.assert_allclose(result.silhouette, silhouette, rtol=1e-10)
    np.testing.assert_array_equal(result.nearest, nearest)
    assert result.accuracy == np.mean(nearest == labels)
    assert result.accuracy > 0.9
    same = labels[:, None] == labels[None, :]
    pairs = ~np.eye(60, dtype=bool)
    assert result.within == pytest.approx(similarity[same & pairs].mean())
    assert result.between == pytest.approx(similarity[~same].mean())
    assert result.declined == {}


def test_separation_says_what_it_cannot_know(planted):
    found, labels = planted
    result = image_hypergraph(found).separation(np.where(np.arange(60) == 7, 3, np.minimum(labels, 1)), n_classes=5)
    assert result.declined == {
        2: "has no members",
        3: "has one member, and so no pair within",
        4: "has no members",
    }
    undefined = np.isnan(result.similarity)
    assert undefined[[2, 4]].all()
    assert undefined[3, 3]
    assert not undefined[:2, [0, 1, 3]].any()
    assert result.silhouette[7] == 0
    assert np.isfinite(result.silhouette).all()
    assert result.nearest[7] in (0, 1)  # not its own class, in which there is nobody else
    with pytest.raises(bk.InvalidArgument, match="hypergraph: has no hyperedges"):
        Hypergraph.from_incidence(np.zeros((3, 0))).separation([])
    lonely = Hypergraph.from_incidence(np.eye(3)).separation([0, 0, 1])
    assert lonely.nearest.tolist() == [-1, -1, -1]
    assert lonely.accuracy == 0
    with pytest.raises(bk.InvalidArgument, match="labels: expected classes 0 … 1, got 2 at index 2"):
        image_hypergraph(found).separation(labels, n_classes=2)
    with pytest.raises(bk.InvalidArgument, match=r"labels: .*\(60,\)"):
        image_hypergraph(found).separation(labels[1:])


def test_persistence_of_components(rng):
    graph = random_hypergraph(rng, 25, 14, 0.25)
    double = Hypergraph.from_incidence(graph.incidence.toarray()[:, [*range(14), 0, 1]])  # two pairs at distance 0
    (bars,) = double.persistence()
    # Kruskal by hand: a bar ends where an edge joins two components.
    similarity = double.jaccard()
    parent = list(range(16))

    def root(i):
        while parent[i] != i:
            i = parent[i]
        return i

    deaths = []
    for d, i, j in sorted((1 - similarity[i, j], i, j) for i, j in itertools.combinations(range(16), 2)):
        first, second = root(i), root(j)
        if first != second:
            parent[first] = second
            deaths.append(d)
    np.testing.assert_allclose(bars[:, 1], [*deaths, np.inf], atol=1e-15)
    assert (bars[:, 0] == 0).all()
    assert bars[0, 1] == bars[1, 1] == 0
    assert Hypergraph.from_incidence([[1.0]]).persistence()[0].tolist() == [[0.0, np.inf]]
    with pytest.raises(bk.InvalidArgument, match="hypergraph: has no hyperedges"):
        Hypergraph.from_incidence(np.zeros((2, 0))).persistence()


def test_persistence_of_loops():
    """Four sets in a ring, neighbours at Jaccard distance 2/3 and opposite ones at 1: one loop, born and dead there."""
    ring = Hypergraph.from_incidence(np.array([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1], [1, 0, 0, 1]]))
    components, loops = ring.persistence(1)
    np.testing.assert_allclose(components, [[0, 2 / 3], [0, 2 / 3], [0, 2 / 3], [0, np.inf]])
    np.testing.assert_allclose(loops, [[2 / 3, 1]])
    np.testing.assert_allclose(ring.persistence(0)[0], components)


# -------------------------------------------------------------------------------------------------------------- exports
@pytest.fixture
def small(planted):
    found, labels = planted
    profiles = ClassProfiles(3, ["u", "v", "w"])
    profiles.update(found, labels)
    return class_hypergraph(profiles)


def test_plain_dictionaries(small):
    members = small.to_dict()
    assert list(members) == ["u", "v", "w"]
    dense = small.incidence.toarray()
    for j, inside in enumerate(members.values()):
        assert inside == {f"layer:{i}": dense[i, j] for i in np.nonzero(dense[:, j])[0]}


def test_hypergraph_interchange_format(small, tmp_path):
    small.to_json(tmp_path / "graph.json")
    read = json.loads((tmp_path / "graph.json").read_text(encoding="utf-8"))
    assert read == small.to_hif()
    assert read["network-type"] == "undirected"
    assert {n["node"] for n in read["nodes"]} == set(small.nodes)
    assert [e["edge"] for e in read["edges"]] == ["u", "v", "w"]
    expected = {(e, n): w for e, inside in small.to_dict().items() for n, w in inside.items()}
    assert {(one["edge"], one["node"]): one["weight"] for one in read["incidences"]} == expected
    numbered = Hypergraph.from_incidence(np.eye(2), edges=np.arange(2)).to_hif()
    assert json.dumps(numbered["edges"]) == '[{"edge": 0}, {"edge": 1}]'


def test_to_xgi(small):
    graph = small.to_xgi()
    assert set(graph.nodes) == set(small.nodes)
    assert {e: graph.edges.members(e) for e in graph.edges} == {e: set(d) for e, d in small.to_dict().items()}
    assert graph.nodes["layer:3"] == {"layer": "layer"}
    line = xgi.to_line_graph(small.dual().to_xgi(), s=1)
    assert line.number_of_edges() == small.dual().s_line_graph(1).nnz // 2


def test_to_hypernetx_gives_it_cells_with_weights(small, monkeypatch):
    # HyperNetX holds pandas below 3 and brings a dozen more; here stands what its documentation says it takes.
    made = types.SimpleNamespace(Hypergraph=lambda cells: ("hypergraph", cells))
    monkeypatch.setitem(sys.modules, "hypernetx", made)
    kind, cells = small.to_hypernetx()
    assert kind == "hypergraph"
    assert cells == {e: {n: {"weight": w} for n, w in d.items()} for e, d in small.to_dict().items()}


@pytest.mark.parametrize(
    ("module", "call"),
    [
        ("hypernetx", lambda g: g.to_hypernetx()),
        ("xgi", lambda g: g.to_xgi()),
        ("gudhi", lambda g: g.persistence(1)),
        ("scipy.sparse", lambda g: g.s_line_graph()),
    ],
)
def test_a_missing_library_is_named(small, monkeypatch, module, call):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(bk.Unsupported, match=f"needs {module.partition('.')[0]}.*pip install"):
        call(small)


def test_scipy_stays_optional():
    """Influential neurons and profiles need none of it, and importing brockett loads none of it."""
    code = """
import sys
for name in ("scipy", "xgi", "hypernetx", "gudhi", "pandas"): sys.modules[name] = None
import numpy as np, brockett as bk
profiles = bk.hypergraph.ClassProfiles(2)
profiles.update(bk.hypergraph.influential(np.eye(2), [[1.0, 2.0]]), [1])
try:
    bk.hypergraph.class_hypergraph(profiles, classes=[1])
except bk.Unsupported as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert "needs scipy" in done.stdout


# ------------------------------------------------------------------------------------------------------------ bad input
def test_what_a_hypergraph_cannot_be_made_of(planted):
    found, labels = planted
    empty, some = ClassProfiles(4), ClassProfiles(4)
    some.update(found, labels)
    bad = [
        (lambda: class_hypergraph(empty), "profiles: are empty"),
        (lambda: class_hypergraph(some), "profiles: hold no inputs of class 3"),
        (lambda: class_hypergraph(some, classes=[0, 4]), "classes: expected at most 3"),
        (lambda: class_hypergraph(some, classes=[]), "classes: expected different classes"),
        (lambda: class_hypergraph(some, classes=[1, 1]), "classes: expected different"),
        (lambda: class_hypergraph(some, classes=[0], min_frequency=0), r"min_frequency: expected a share in \(0, 1\]"),
        (lambda: class_hypergraph(some, classes=[0], values="sum"), "values: expected one of"),
        (lambda: class_hypergraph(some, classes=[0], layers=["x"]), "layers: expected some of"),
        (lambda: class_hypergraph(found), "profiles: expected ClassProfiles"),
        (lambda: image_hypergraph([]), "found: expected at least one batch"),
        (lambda: image_hypergraph([{"a": found}, {"b": found}]), "found: batch 1 is of the layers"),
        (lambda: image_hypergraph(found, names=["a"]), "names: expected 60, got 1"),
        (lambda: image_hypergraph(found, names=[0] * 60), "names: holds a name twice"),
        (lambda: image_hypergraph(found, names=[1.5] * 60), "names: expected words or integers"),
        (lambda: Hypergraph.from_incidence([[np.nan]]), "incidence: holds NaN"),
        (lambda: Hypergraph.from_incidence([1.0]), "incidence: expected a real matrix"),
        (lambda: Hypergraph.from_incidence(np.eye(2), nodes=["a"]), "nodes: expected 2"),
        (lambda: Hypergraph.from_incidence(np.eye(2)).s_line_graph(0), "s: expected 1 or more"),
        (
            lambda: Hypergraph.from_incidence(np.eye(2)).jaccard(Hypergraph.from_incidence(np.eye(3))),
            "other: is of other",
        ),
        (lambda: Hypergraph.from_incidence(np.eye(2)).jaccard(np.eye(2)), "other: expected a Hypergraph"),
        (lambda: Hypergraph.from_incidence(np.eye(2)).persistence(-1), "max_dimension: expected 0 or more"),
    ]
    for call, says in bad:
        with pytest.raises(bk.InvalidArgument, match=says):
            call()
    with pytest.raises(OSError):
        class_hypergraph(some, classes=[0]).to_json(Path("nowhere") / "graph.json")


def test_complex_incidences_are_refused() -> None:
    for incidence in (scipy.sparse.csr_array(np.eye(3) * 1j), np.eye(3) * 1j):
        with pytest.raises(bk.InvalidArgument, match="incidence: expected a real matrix, got complex128"):
            bk.hypergraph.Hypergraph.from_incidence(incidence)
