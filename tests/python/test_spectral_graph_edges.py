"""Which edges are significant: null distributions against SciPy, mpmath and random weights; corrections; exports."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mpmath
import numpy as np
import pytest
import scipy.stats

import brockett as bk
from brockett import _graph_null as null_module
from brockett._graph_null import Overlap

# --- distributions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b"), [(0.5, 0.5), (0.5, 63.5), (4.5, 571.5), (0.5, 12543.5), (220.0, 112420.0), (3.0, 2.0), (24.5, 1.2)]
)
def test_beta_tail(a: float, b: float) -> None:
    x = np.concatenate([np.linspace(0, 1, 101), scipy.stats.beta.isf([1e-3, 1e-30, 0.3, 0.9], a, b)])
    expected = scipy.stats.beta.logsf(x, a, b)
    sure = np.isfinite(expected) & (expected > -600)  # SciPy takes the logarithm of what underflows beyond
    assert sure.sum() > 5
    np.testing.assert_allclose(null_module.beta_log_tail(x, a, b)[sure], expected[sure], rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("dof", [1, 2, 9, 49, 441])
def test_chi2_tail(dof: int) -> None:
    x = np.linspace(0, 1000, 501)
    expected = scipy.stats.chi2.logsf(x, dof)
    sure = np.isfinite(expected)
    np.testing.assert_allclose(null_module.chi2_log_tail(x, dof)[sure], expected[sure], rtol=1e-11, atol=1e-12)


def test_tails_far_beyond_float64() -> None:
    with mpmath.workdps(60):
        far = mpmath.log(mpmath.betainc(2000, mpmath.mpf("0.5"), 0, mpmath.mpf("0.25"), regularized=True))
        chi = mpmath.log(mpmath.gammainc(mpmath.mpf("4.5"), 2500, regularized=True))
        normal = mpmath.log(mpmath.erfc(60 / mpmath.sqrt(2)) / 2)
    assert far < -2000
    assert float(null_module.beta_log_tail([0.75], 0.5, 2000)[0]) == pytest.approx(float(far), rel=1e-12)
    assert float(null_module.chi2_log_tail([5000.0], 9)[0]) == pytest.approx(float(chi), rel=1e-12)
    assert null_module.normal_log_tail(60) == pytest.approx(float(normal), rel=1e-12)
    for sigma in (-3, 0, 3, 29.99, 30.01):
        assert null_module.normal_log_tail(sigma) == pytest.approx(scipy.stats.norm.logsf(sigma), rel=1e-9)


@pytest.mark.parametrize("sigma", [-1.0, 0.0, 2.0, 3.0, 6.0])
@pytest.mark.parametrize(("n", "z"), [(2, 1), (8, 1), (128, 1), (64, 9), (512, 49), (25088, 1)])
def test_threshold(n: int, z: int, sigma: float) -> None:
    p = scipy.stats.norm.sf(sigma)
    expected = scipy.stats.chi2.isf(p, z) / (z * n)
    assert bk.edge_threshold(n, z, sigma) == pytest.approx(expected, rel=1e-10)
    expected = scipy.stats.beta.isf(p, z / 2, z * (n - 1) / 2)
    assert bk.edge_threshold(n, z, sigma, null="beta") == pytest.approx(expected, rel=1e-9)


def test_thresholds_by_hand() -> None:
    # n = 2: (u · v)² = cos² of a uniform angle, above cos²(π p / 2) with probability p
    p = scipy.stats.norm.sf(3)
    assert bk.edge_threshold(2, null="beta") == pytest.approx(math.cos(math.pi * p / 2) ** 2, rel=1e-12)
    # n = 3: u · v is uniform on [-1, 1]
    assert bk.edge_threshold(3, null="beta") == pytest.approx((1 - p) ** 2, rel=1e-12)
    # two positions: the sum of two squares is exponential in the limit
    assert bk.edge_threshold(64, 2) == pytest.approx(-math.log(p) / 64, rel=1e-12)
    assert bk.edge_threshold(1, null="beta") == math.inf
    assert bk.edge_threshold(8) > 1


@pytest.mark.parametrize(
    ("arguments", "argument"),
    [
        ((0,), "n"), ((1.5,), "n"), ((8, 0), "n_positions"), ((8, (1, 2, 3)), "n_positions"),
        ((8, (1, 0)), "n_positions"),
        ((8, 1, math.nan), "sigma"), ((8, 1, "3"), "sigma"), ((8, 1, 3.0, "gamma"), "null"),
    ],
)  # fmt: skip
def test_threshold_refuses(arguments: tuple[Any, ...], argument: str) -> None:
    with pytest.raises(bk.InvalidArgument, match=rf"^{argument}: "):
        bk.edge_threshold(*arguments)


@pytest.mark.parametrize(
    ("n1", "n2", "shared", "P", "Q"),
    [
        (8, 8, 8, 1, 1), (8, 8, 8, 1, 4), (8, 8, 8, 4, 1), (8, 8, 8, 3, 5), (4, 8, 4, 1, 3), (8, 2, 2, 3, 1),
        (4, 6, 2, 2, 3), (1, 8, 1, 1, 2), (6, 6, 3, 1, 1), (1, 1, 1, 3, 2),
    ],
)  # fmt: skip
def test_mean_and_variance(n1: int, n2: int, shared: int, P: int, Q: int, rng: np.random.Generator) -> None:
    """Against random unit vectors in n₁ and n₂ channels that share some."""
    count = 200_000
    L, R = rng.normal(size=(count, n1, P)), rng.normal(size=(count, n2, Q))
    L /= np.linalg.norm(L, axis=(1, 2))[:, None, None]
    R /= np.linalg.norm(R, axis=(1, 2))[:, None, None]
    A = (np.swapaxes(L[:, n1 - shared :], 1, 2) @ R[:, :shared]) ** 2
    A = A.sum(axis=(1, 2))
    overlap = Overlap(n1, n2, shared, P, Q)
    assert A.mean() == pytest.approx(overlap.mean, abs=5 * A.std() / math.sqrt(count))
    assert A.var() == pytest.approx(overlap.variance, rel=0.04, abs=1e-12)
    if overlap.mean < 1 and n1 == n2 == shared:  # the closed form has the same moments
        a, b = overlap.shape
        assert a / (a + b) == pytest.approx(overlap.mean, rel=1e-12)
        assert a * b / ((a + b) ** 2 * (a + b + 1)) == pytest.approx(overlap.variance, rel=1e-10)
        assert P > 1 < Q or a == pytest.approx(max(P, Q) / 2, rel=1e-12)
    if n1 == n2 == shared and min(P, Q) == 1:  # the distribution itself
        assert scipy.stats.kstest(A[:20_000], lambda x: 1 - np.exp(overlap.log_tail(x, "beta"))).pvalue > 1e-3


# --- random weights ---------------------------------------------------------------------------------------------------


def rate(g: bk.SpectralGraph, sigma: float, null: str) -> tuple[float, int]:
    found = g.edges(sigma, null)
    return len(found) / found.n_tests, found.n_tests


def test_false_positives_of_fully_connected_layers(rng: np.random.Generator) -> None:
    """1.6 million pairs at n = 128: within 5 % of nominal, which is two deviations for three sigma, 6 for two."""
    g = bk.spectral_graph(list(rng.normal(size=(97, 128, 128))))
    for sigma in (2.0, 3.0):
        nominal = scipy.stats.norm.sf(sigma)
        found, pairs = rate(g, sigma, "beta")
        assert pairs >= 1_500_000
        assert found == pytest.approx(nominal, rel=0.05)
    assert rate(g, 3.0, "chi2")[0] < 0.85 * scipy.stats.norm.sf(3)  # the published threshold is conservative
    assert len(g.edges(3.0, "beta", "bonferroni")) == 0
    assert len(g.edges(3.0, "beta", "bh")) == 0


@pytest.mark.parametrize("method", ["svr", "cosvr"])
@pytest.mark.parametrize("groups", [1, 4])
def test_false_positives_of_convolutions(method: str, groups: int, rng: np.random.Generator) -> None:
    """Convolutions, grouped ones, and a transition to a fully connected layer over 16 positions."""
    n = 32
    layers = [{"weight": rng.normal(size=(n, n // groups, 3, 3)), "groups": groups} for _ in range(30)]
    chain = [(k, k + 1) for k in range(29)]
    nominal = scipy.stats.norm.sf(2)
    assert rate(bk.spectral_graph(layers, chain, method), 2.0, "beta")[0] == pytest.approx(nominal, rel=0.12)
    heads = [rng.normal(size=(64, n * 16)) for _ in range(20)]
    joints = [(k, 30 + k) for k in range(20)]
    g = bk.spectral_graph([*layers, *heads], joints, method)
    assert g.edges(null="beta").n_tests == 20 * n * 64
    assert rate(g, 2.0, "beta")[0] == pytest.approx(nominal, rel=0.12)


def test_transition_counts_the_positions_of_both_sides(rng: np.random.Generator) -> None:
    """cosvr from a convolution to a fully connected layer: k² z squares are summed, not k²."""
    n, z = 64, 16
    convolutions, heads = (
        [rng.normal(size=(n, n, 3, 3)) for _ in range(4)],
        [rng.normal(size=(256, n * z)) for _ in range(4)],
    )
    g = bk.spectral_graph([*convolutions, *heads], [(k, 4 + k) for k in range(4)], "cosvr")
    A = np.concatenate([part.ravel() for part in g.adjacency])
    assert A.size == 4 * n * 256
    nominal = scipy.stats.norm.sf(2)
    with_both = np.mean(bk.edge_threshold(n, (9, z), 2.0) <= A)
    kernel_alone = np.mean(bk.edge_threshold(n, 9, 2.0) <= A)
    assert 0.5 * nominal < with_both < 1.5 * nominal
    assert kernel_alone == 0
    assert np.mean(bk.edge_threshold(n, (9, z), 2.0, "beta") <= A) == pytest.approx(nominal, rel=0.1)
    assert len(g.edges(2.0)) == (bk.edge_threshold(n, 9 * z, 2.0) <= A).sum()


# --- significant edges ------------------------------------------------------------------------------------------------


def planted(rng: np.random.Generator, n: int = 64) -> list[np.ndarray]:
    """Random layers with one strong chain: mode 0 of each reads mode 0 of the one before."""
    layers = [rng.normal(size=(n, n)) / math.sqrt(n) for _ in range(4)]
    vectors = np.linalg.qr(rng.normal(size=(n, 5)))[0].T
    return [W + 9 * np.outer(vectors[k + 1], vectors[k]) for k, W in enumerate(layers)]


def test_benjamini_hochberg_by_hand() -> None:
    """p-values 0.001, 0.0126, 0.0187, 0.9 at level 0.025: one is below 0.025 / 4, the third below 3 · 0.025 / 4."""
    # n = 3: u · v is uniform on [-1, 1], so that p = 1 - |u · v|; one vector a layer
    ends = [0.001, 0.0126, 0.0187, 0.9]
    layers: dict[str, Any] = {"start": np.array([[1.0], [0.0], [0.0]])}
    for k, p in enumerate(ends):
        layers[f"end {k}"] = np.array([[1 - p, math.sqrt(1 - (1 - p) ** 2), 0.0]])
    g = bk.spectral_graph(layers, [("start", f"end {k}") for k in range(4)])
    found = {c: g.edges(null="beta", correction=c, alpha=0.025) for c in (None, "bonferroni", "bh")}
    np.testing.assert_allclose(found[None].p_value, ends[:3], rtol=1e-9)
    np.testing.assert_array_equal(found["bonferroni"].target, [1])
    np.testing.assert_array_equal(
        found["bh"].target, [1, 2, 3]
    )  # 0.0187 ≤ 3 · 0.025 / 4 takes the second along, above 2 · 0.025 / 4
    assert found["bh"].n_tests == 4


@pytest.mark.parametrize("null", ["chi2", "beta"])
@pytest.mark.parametrize("correction", [None, "bonferroni", "bh"])
def test_edges(engine: str, correction: str | None, null: str, rng: np.random.Generator) -> None:
    g = bk.spectral_graph(planted(rng))
    found = g.edges(2.5, null, correction)
    # every pair, its p-value by SciPy, and the rule written out
    level = scipy.stats.norm.sf(2.5)
    A = np.stack(g.adjacency)
    p = scipy.stats.chi2.sf(64 * A, 1) if null == "chi2" else scipy.stats.beta.sf(A, 0.5, 31.5)
    m = p.size
    assert found.n_tests == m == 3 * 64 * 64
    cut = {None: level, "bonferroni": level / m, "bh": 0.0}[correction]
    if correction == "bh":
        ordered = np.sort(p.ravel())
        cut = max(q for k, q in enumerate(ordered) if q <= level * (k + 1) / m)
    e, j, i = np.nonzero(p <= cut)
    assert len(found) == len(e) >= 3
    assert {None: True, "bonferroni": len(e) < 12, "bh": len(e) < 30}[correction]
    assert set(zip(found.edge, found.target_mode, found.source_mode, strict=True)) == set(zip(e, j, i, strict=True))
    at = (found.edge, found.target_mode, found.source_mode)
    np.testing.assert_array_equal(found.weight, A[at])
    np.testing.assert_allclose(found.p_value, p[at], rtol=1e-9)
    np.testing.assert_allclose(found.log10_p, np.log10(p[at]), rtol=1e-9)
    np.testing.assert_array_equal(found.source, found.edge)
    np.testing.assert_array_equal(found.target, found.edge + 1)
    for k in range(3):  # the planted one comes first, and is kept by every rule
        first = np.flatnonzero(found.edge == k)[0]
        assert (found.source_mode[first], found.target_mode[first]) == (0, 0)
        assert np.all(np.diff(found.weight[found.edge == k]) <= 0)
    assert g.strongest_path().nodes == ((0, 0), (1, 0), (2, 0), (3, 0))
    same = g.edges(null=null, correction=correction, alpha=level)
    np.testing.assert_array_equal(same.weight, found.weight)


def test_depthwise_pairs_are_not_tests(rng: np.random.Generator) -> None:
    """Two depthwise convolutions: of one channel each, so that an overlap is 1 or 0 by necessity."""
    depthwise = [{"weight": rng.normal(size=(6, 1, 3)), "groups": 6} for _ in range(2)]
    g = bk.spectral_graph([*depthwise, rng.normal(size=(6, 6, 1))])
    np.testing.assert_allclose(np.sort(g.adjacency[0], axis=1)[:, -1], 1, rtol=1e-12)
    found = g.edges(-10, "beta")
    assert found.n_tests == 6 * 6  # of the second joint alone
    assert set(found.edge) == {1}


def test_edges_refuse(rng: np.random.Generator) -> None:
    g = bk.spectral_graph([rng.normal(size=(4, 4))] * 2)
    for options, argument in [
        ({"sigma": math.inf}, "sigma"), ({"null": "normal"}, "null"), ({"correction": "fdr"}, "correction"),
        ({"alpha": 0.0}, "alpha"), ({"alpha": 1.0}, "alpha"),
    ]:  # fmt: skip
        with pytest.raises(bk.InvalidArgument, match=rf"^{argument}: "):
            g.edges(**options)


# --- exports ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def graph(rng: np.random.Generator) -> bk.SpectralGraph:
    names = ["embed", "mix é", "<out>", "head"]
    layers = dict(zip(names, planted(rng, 16), strict=True))
    layers["head"] = np.outer(layers["head"][:, 0], layers["head"][0])  # rank one: its other modes are not resolved
    return bk.spectral_graph(layers)


def test_networkx(graph: bk.SpectralGraph) -> None:
    import networkx

    found, out = graph.edges(2.0, "beta"), graph.to_networkx(2.0, "beta")
    assert isinstance(out, networkx.DiGraph)
    assert out.number_of_nodes() == 64
    assert out.number_of_edges() == len(found) > 0
    for k in range(len(found)):
        a, b = (int(found.source[k]), int(found.source_mode[k])), (int(found.target[k]), int(found.target_mode[k]))
        assert out.edges[a, b]["weight"] == found.weight[k]
        assert out.edges[a, b]["p_value"] == found.p_value[k]
    node = out.nodes[1, 3]
    assert node["singular_value"] == graph.singular_values[1][3]
    assert node["intensity"] == graph.node_intensity(1)[3]
    assert (node["layer_name"], node["kind"], node["resolved"]) == ("mix é", "fully connected", True)
    assert out.nodes[3, 1]["resolved"] is False
    assert networkx.is_directed_acyclic_graph(out)


def test_files(graph: bk.SpectralGraph, tmp_path: Path) -> None:
    import networkx

    expected = graph.to_networkx(2.0, correction="bh")
    named = {node: f"{node[0]}:{node[1]}" for node in expected}
    graph.to_graphml(tmp_path / "g.graphml", 2.0, correction="bh")
    graph.to_json(tmp_path / "g.json", 2.0, correction="bh")
    document = json.loads((tmp_path / "g.json").read_text())
    assert document["graph"] == expected.graph
    for out in (networkx.read_graphml(tmp_path / "g.graphml"), networkx.node_link_graph(document, edges="links")):
        assert out.is_directed()
        assert set(out) == set(named.values())
        assert {(a, b) for a, b in out.edges} == {(named[a], named[b]) for a, b in expected.edges} != set()
        for (a, b), attributes in expected.edges.items():
            assert out.edges[named[a], named[b]] == pytest.approx(attributes)
        for node, attributes in expected.nodes.items():
            assert dict(out.nodes[named[node]]) == attributes


def test_columns_and_dataframe(graph: bk.SpectralGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = graph.edges().columns()
    assert list(columns) == ["edge", "source", "source_mode", "target", "target_mode", "weight", "p_value", "log10_p"]
    assert {len(column) for column in columns.values()} == {len(graph.edges())}
    # of pandas no more is asked than DataFrame(columns)
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=lambda data: ("table", data)))
    kind, data = graph.to_dataframe()
    assert kind == "table"
    assert list(data) == list(columns)
    for name, column in columns.items():
        np.testing.assert_array_equal(data[name], column)


def test_missing_libraries_are_named(graph: bk.SpectralGraph, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for library, call in [
        ("networkx", graph.to_networkx), ("networkx", lambda: graph.to_graphml(tmp_path / "g")),
        ("pandas", graph.to_dataframe), ("matplotlib.figure", lambda: graph.plot(tmp_path / "g")),
    ]:  # fmt: skip
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, library, None)
            with pytest.raises(ImportError, match=rf"{library.partition('.')[0]} is needed.*pip install"):
                call()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("log", [False, True])
def test_plot(graph: bk.SpectralGraph, log: bool, tmp_path: Path, rng: np.random.Generator) -> None:
    from matplotlib import image

    graph.plot(tmp_path / "all.png", 2.0, log=log)
    graph.plot(tmp_path / "none.png", 2.0, log=log, max_edges=0)
    everything, nothing = image.imread(tmp_path / "all.png"), image.imread(tmp_path / "none.png")
    assert everything.shape == nothing.shape
    assert (everything != nothing).any(axis=2).mean() > 0.01  # the edges
    skip = bk.spectral_graph([rng.normal(size=(5, 5)), np.zeros((5, 5)), rng.normal(size=(5, 5, 3))], [(0, 1), (0, 2)])
    skip.plot(tmp_path / "skip.png", 0.5, log=log)  # an edge past a layer, and one whose values are all 0
    bk.spectral_graph([np.zeros((3, 2))]).plot(tmp_path / "zero.png", log=log)
    assert (tmp_path / "zero.png").stat().st_size > 1000
