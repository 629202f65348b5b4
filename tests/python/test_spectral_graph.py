"""Spectral graphs: by hand, against NumPy's own SVD and tensordot, on every engine and kind of array."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace
from typing import Any

import array_api_strict
import numpy as np
import pytest

import brockett as bk


def reference(a: np.ndarray, b: np.ndarray, method: str = "svr") -> np.ndarray:
    """Squared overlaps of two ungrouped layers, each decomposed by NumPy, summed over the positions of both."""

    def vectors(W: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        o, i = W.shape[:2]
        k = W.shape[2:]
        if method == "svr":
            U, _, Vt = np.linalg.svd(W.reshape(o, -1).astype(float), full_matrices=False)
            return U.reshape(o, 1, -1), Vt.T.reshape(i, math.prod(k), -1)
        M = np.moveaxis(W.astype(float), 1, -1).reshape(-1, i)  # (o k…, i)
        U, _, Vt = np.linalg.svd(M, full_matrices=False)
        return U.reshape(o, math.prod(k), -1), Vt.T.reshape(i, 1, -1)

    U, V = vectors(a)[0], vectors(b)[1]
    if len(V) > len(U):
        V = V.reshape(len(U), -1, V.shape[-1])
    if len(U) > len(V):
        U = U.reshape(len(V), -1, U.shape[-1])
    overlaps = np.tensordot(V, U, axes=(0, 0))  # q j p i
    return (overlaps**2).sum(axis=(0, 2))


def host(array: Any) -> np.ndarray:
    if isinstance(array, np.ndarray):
        return array
    if hasattr(array, "numpy"):
        return array.numpy()
    return np.asarray(array.to_device(array_api_strict.Device("CPU_DEVICE")))


SHAPES = {
    "fully connected": [(7, 5), (6, 7), (3, 6)],
    "convolutions": [(6, 3, 3, 3), (8, 6, 3, 3), (5, 8, 1, 1)],
    "1-D": [(6, 3, 5), (4, 6, 3)],
    "convolution to fully connected": [(4, 3, 3, 3), (6, 4 * 5), (2, 6)],
    "pooled": [(4, 3, 3, 3), (6, 4)],
    "fully connected to convolution": [(20, 6), (7, 4, 3, 3)],
    "one row": [(1, 5), (4, 1), (1, 4)],
    "wide and tall": [(3, 40), (40, 3), (2, 40)],
}


@pytest.mark.parametrize("method", ["svr", "cosvr"])
@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_adjacency(engine: str, dtype: Any, shapes: Any, method: str, rng: np.random.Generator) -> None:
    layers = [rng.normal(size=shape).astype(dtype) for shape in shapes]
    before = [W.copy() for W in layers]
    g = bk.spectral_graph(layers, method=method)
    tolerance = 1e-11 if dtype == np.float64 else 2e-4
    assert g.layer_edges == tuple((k, k + 1) for k in range(len(layers) - 1))
    for k, A in enumerate(g.adjacency):
        assert A.dtype == np.float64
        np.testing.assert_allclose(A, reference(layers[k], layers[k + 1], method), atol=tolerance)
    for k, W in enumerate(layers):
        M = W.reshape(len(W), -1) if method == "svr" else np.moveaxis(W, 1, -1).reshape(-1, W.shape[1])
        s = np.linalg.svd(M.astype(float), compute_uv=False)
        np.testing.assert_allclose(g.singular_values[k], s, rtol=tolerance)
        assert g.n_resolved[k] == len(s)
        # the vectors give the layer back
        U, V = g.left_vectors(k), g.right_vectors(k)
        assert U.dtype == V.dtype == dtype
        back = (
            np.einsum("om,m,ikm->oik", U.reshape(len(W), -1), s, V.reshape(W.shape[1], -1, len(s)))
            if (method == "svr")
            else np.einsum("okm,m,im->oik", U.reshape(len(W), -1, len(s)), s, V.reshape(W.shape[1], -1))
        )
        np.testing.assert_allclose(back.reshape(W.shape), W, atol=tolerance)
        np.testing.assert_array_equal(W, before[k])


def test_by_hand(engine: str) -> None:
    """A rotation by 3-4-5, and a convolution whose kernel puts weight 3 on one position and 4 on another."""
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    g = bk.spectral_graph([turn @ np.diag([2.0, 1.0]), np.diag([5.0, 3.0])])
    np.testing.assert_allclose(g.adjacency[0], [[0.36, 0.64], [0.64, 0.36]], atol=1e-15)
    np.testing.assert_allclose(g.singular_values[1], [5, 3], rtol=1e-15)
    # one output channel, two input channels: v = (3 at position 0 of channel 0, 4 at position 1 of channel 1) / 5
    K = np.zeros((1, 2, 2))
    K[0, 0, 0], K[0, 1, 1] = 3, 4
    g = bk.spectral_graph([np.diag([2.0, 1.0]), K])
    np.testing.assert_allclose(g.singular_values[1], [5], rtol=1e-15)
    np.testing.assert_allclose(g.adjacency[0], [[9 / 25, 16 / 25]], atol=1e-15)
    np.testing.assert_allclose(np.abs(g.filters(0)), [[[0.6, 0], [0, 0.8]]], atol=1e-15)
    # cosvr: the same weights as (positions out) × in, diag(3, 4), so modes are channel 1, then channel 0
    g = bk.spectral_graph([np.diag([2.0, 1.0]), K], method="cosvr")
    np.testing.assert_allclose(g.singular_values[1], [4, 3], rtol=1e-15)
    np.testing.assert_allclose(g.adjacency[0], [[0, 1], [1, 0]], atol=1e-15)


@pytest.mark.parametrize("method", ["svr", "cosvr"])
def test_linear_chain(engine: str, method: str, rng: np.random.Generator) -> None:
    """‖W₂ W₁‖_F² = S₂² · A · S₁²; of convolutions, summed over pairs of kernel positions."""
    a, b = rng.normal(size=(5, 4, 3)), rng.normal(size=(6, 5, 2))
    g = bk.spectral_graph([a, b], method=method)
    W = np.einsum("dcq,cip->dqip", b, a)
    s1, s2 = g.singular_values
    assert s2**2 @ g.adjacency[0] @ s1**2 == pytest.approx((W**2).sum(), rel=1e-12)


@pytest.mark.parametrize("method", ["svr", "cosvr"])
@pytest.mark.parametrize("groups", [(2, 1), (1, 3), (2, 3), (6, 1), (6, 6)])
def test_grouped_convolutions_are_block_diagonal(
    engine: str, groups: tuple[int, int], method: str, rng: np.random.Generator
) -> None:
    g1, g2 = groups
    a, b = rng.normal(size=(6, 12 // g1, 3)), rng.normal(size=(12, 6 // g2, 3))

    def dense(W: np.ndarray, groups: int) -> np.ndarray:
        o, i, k = W.shape
        full = np.zeros((o, i * groups, k))
        for g in range(groups):
            full[g * o // groups : (g + 1) * o // groups, g * i : (g + 1) * i] = W[
                g * o // groups : (g + 1) * o // groups
            ]
        return full

    g = bk.spectral_graph([{"weight": a, "groups": g1}, {"weight": b, "groups": g2}], method=method)
    whole = bk.spectral_graph([dense(a, g1), dense(b, g2)], method=method)
    m = [len(s) for s in g.singular_values]  # the dense one has further modes where s = 0
    for k in range(2):
        np.testing.assert_allclose(whole.singular_values[k][: m[k]], g.singular_values[k], rtol=1e-12)
        np.testing.assert_allclose(whole.singular_values[k][m[k] :], 0, atol=1e-12)
    np.testing.assert_allclose(whole.adjacency[0][: m[1], : m[0]], g.adjacency[0], atol=1e-10)
    np.testing.assert_allclose(
        g.adjacency[0], reference(dense(a, g1), dense(b, g2), method)[: m[1], : m[0]], atol=1e-10
    )
    # each mode lives in its group alone
    for k, W, n in ((0, a, g1), (1, b, g2)):
        U = np.abs(g.left_vectors(k)).reshape(len(W), -1, m[k]).sum(axis=1)
        size = len(W) // n
        for mode, group in enumerate(g.groups[k]):
            outside = np.delete(U[:, mode], np.arange(group * size, (group + 1) * size))
            assert not outside.any()


def test_depthwise_by_hand(engine: str) -> None:
    """Channel by channel: s = norm of the kernel, u = e_c; a 1×1 layer after it reads e_c."""
    K = np.array([[[3.0, 4.0]], [[0.0, 1.0]], [[5.0, 12.0]]])
    g = bk.spectral_graph([{"weight": K, "groups": 3}, np.eye(3)[:, :, None] * [[[3.0]], [[2.0]], [[1.0]]]])
    np.testing.assert_allclose(g.singular_values[0], [13, 5, 1], rtol=1e-14)
    np.testing.assert_array_equal(g.groups[0], [2, 0, 1])
    np.testing.assert_allclose(g.adjacency[0], [[0, 1, 0], [0, 0, 1], [1, 0, 0]], atol=1e-14)


@pytest.mark.parametrize("method", ["svr", "cosvr"])
def test_rank_keeps_the_leading_modes(engine: str, method: str, rng: np.random.Generator) -> None:
    layers = [rng.normal(size=s) for s in [(12, 3, 3), (9, 12, 3), (7, 9)]]
    whole, part = bk.spectral_graph(layers, method=method), bk.spectral_graph(layers, method=method, rank=5)
    for k in range(3):
        kept = min(5, len(whole.singular_values[k]))
        np.testing.assert_allclose(part.singular_values[k], whole.singular_values[k][:kept], rtol=1e-12)
        assert part.left_vectors(k).shape[-1] == kept
    for k in range(2):
        rows, cols = part.adjacency[k].shape
        np.testing.assert_allclose(part.adjacency[k], whole.adjacency[k][:rows, :cols], atol=1e-10)
    grouped = bk.spectral_graph([{"weight": rng.normal(size=(12, 3, 3)), "groups": 4}, layers[1]], rank=5)
    assert len(grouped.singular_values[0]) == 5


def test_any_directed_graph(engine: str, rng: np.random.Generator) -> None:
    """A residual stream of 8: two blocks that read and write it, and an unembedding; by name and by number."""
    d = 8
    layers = {
        "embed": rng.normal(size=(d, 20)),
        "read 0": rng.normal(size=(12, d)),
        "write 0": rng.normal(size=(d, 12)),
        "read 1": rng.normal(size=(12, d)),
        "write 1": rng.normal(size=(d, 12)),
        "unembed": rng.normal(size=(20, d)),
    }
    edges = [
        ("embed", "read 0"), ("read 0", "write 0"), ("embed", "read 1"), ("write 0", "read 1"), ("read 1", "write 1"),
        ("embed", "unembed"), ("write 0", "unembed"), ("write 1", "unembed"),
    ]  # fmt: skip
    g = bk.spectral_graph(layers, edges)
    names = list(layers)
    assert g.layer_edges == tuple((names.index(a), names.index(b)) for a, b in edges)
    for (a, b), A in zip(edges, g.adjacency, strict=True):
        np.testing.assert_allclose(A, reference(layers[a], layers[b]), atol=1e-11)
    by_number = bk.spectral_graph(list(layers.values()), g.layer_edges)
    for one, other in zip(g.adjacency, by_number.adjacency, strict=True):
        np.testing.assert_array_equal(one, other)
    # the sum over all ways, written out
    S = {name: np.diag(np.linalg.svd(W, compute_uv=False)) for name, W in layers.items()}
    A = {edge: reference(layers[edge[0]], layers[edge[1]]) for edge in edges}
    ways = [
        ["embed", "read 0", "write 0", "read 1", "write 1", "unembed"],
        ["embed", "read 0", "write 0", "unembed"],
        ["embed", "read 1", "write 1", "unembed"],
        ["embed", "unembed"],
    ]
    total, best = 0.0, 0.0
    for way in ways:
        M, top = S["embed"], np.diag(S["embed"])
        for a, b in itertools.pairwise(way):
            M = S[b] @ A[a, b] @ M
            top = np.diag(S[b]) * (A[a, b] * top[None, :]).max(axis=1)
        total, best = total + M.sum(), max(best, top.max())
    assert g.path_metric() == pytest.approx(total, rel=1e-10)
    path = g.strongest_path()
    assert path.value == pytest.approx(best, rel=1e-10)
    value = 1.0
    for k, (layer, mode) in enumerate(path.nodes):
        value *= S[names[layer]][mode, mode]
        if k:
            before = path.nodes[k - 1]
            value *= A[names[before[0]], names[layer]][mode, before[1]]
    assert value == pytest.approx(path.value, rel=1e-10)
    # node intensity takes the best of the edges that leave
    excess = [np.maximum(np.cumsum(d * A[e] - 1, axis=0).max(axis=0), 0) for e in edges if e[0] == "embed"]
    expected = np.max(excess, axis=0)
    np.testing.assert_allclose(g.node_intensity("embed"), expected / expected.max(), rtol=1e-9)


def test_measures_of_a_chain(engine: str, rng: np.random.Generator) -> None:
    layers = [rng.normal(size=s) for s in [(9, 7), (8, 9), (5, 8)]]
    g = bk.spectral_graph(layers)
    A = [reference(layers[0], layers[1]), reference(layers[1], layers[2])]
    S = [np.linalg.svd(W, compute_uv=False) for W in layers]
    assert g.path_metric() == pytest.approx(float(S[2] @ (A[1] @ (S[1] * (A[0] @ S[0])))), rel=1e-12)
    assert g.path_metric(singular_values=False) == pytest.approx(float((A[1] @ A[0]).sum()), rel=1e-12)
    cut = float(np.sort(np.concatenate(S))[8:10].mean())
    kept = [np.where(s > cut, s, 0) for s in S]
    assert g.path_metric(threshold=cut) == pytest.approx(
        float(kept[2] @ (A[1] @ (kept[1] * (A[0] @ kept[0])))), rel=1e-12
    )
    np.testing.assert_allclose(g.entropy(), [-(a * np.log(a)).sum() for a in A], rtol=1e-10)
    for k, n in ((0, 9), (1, 8)):
        total = np.cumsum(np.cumsum(n * A[k] - 1, axis=0), axis=1)
        place = np.unravel_index(total.argmax(), total.shape)
        assert g.internal_dimensions(k) == ((place[0] + 1, place[1] + 1) if total.max() > 0 else (0, 0))
        best = np.maximum(np.cumsum(n * A[k] - 1, axis=0).max(axis=0), 0)
        np.testing.assert_allclose(g.node_intensity(k), best / best.max(), rtol=1e-9)
    np.testing.assert_array_equal(g.node_intensity(2), np.ones(5))
    brute = max(
        (S[0][i] * A[0][j, i] * S[1][j] * A[1][k, j] * S[2][k], ((0, i), (1, j), (2, k)))
        for i in range(7) for j in range(8) for k in range(5)
    )  # fmt: skip
    path = g.strongest_path()
    assert path.nodes == brute[1]
    assert path.value == pytest.approx(brute[0], rel=1e-12)


@pytest.mark.parametrize("method", ["svr", "cosvr"])
@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
def test_filters(engine: str, shapes: Any, method: str, rng: np.random.Generator) -> None:
    layers = [rng.normal(size=shape) for shape in shapes]
    g = bk.spectral_graph(layers, method=method)
    for e, (a, b) in enumerate(g.layer_edges):
        kernels = g.filters(e)
        flat = kernels.reshape(*kernels.shape[:2], -1)
        np.testing.assert_allclose((flat**2).sum(axis=-1), g.adjacency[e], atol=1e-12)
        expected_target = layers[b].shape[2:] if method == "svr" else ()
        expected_source = layers[a].shape[2:] if method == "cosvr" else ()
        if layers[a].shape[0] < layers[b].shape[1]:
            expected_target = (layers[b].shape[1] // layers[a].shape[0],)
        if layers[a].shape[0] > layers[b].shape[1]:
            expected_source = (layers[a].shape[0] // layers[b].shape[1],)
        assert kernels.shape[2:] == (*expected_target, *expected_source)
        # the overlaps themselves, with the graph's own vectors (their signs are arbitrary)
        n = min(layers[a].shape[0], layers[b].shape[1])
        U, V = g.left_vectors(a), g.right_vectors(b)
        U, V = U.reshape(n, -1, U.shape[-1]), V.reshape(n, -1, V.shape[-1])
        expected = np.einsum("cpi,cqj->jiqp", U, V)
        np.testing.assert_allclose(flat.reshape(expected.shape), expected, atol=1e-12)
        some = g.filters(e, target_modes=[0], source_modes=[kernels.shape[1] - 1, 0])
        np.testing.assert_allclose(some, kernels[:1][:, [-1, 0]], atol=1e-13)


# --- what is degenerate -----------------------------------------------------------------------------------------------


def test_modes_at_rounding_level_have_no_edges(engine: str, rng: np.random.Generator) -> None:
    low = rng.normal(size=(10, 2)) @ rng.normal(size=(2, 9))
    for dtype in (np.float32, np.float64):
        layers = [rng.normal(size=(9, 9)).astype(dtype), low.astype(dtype), rng.normal(size=(8, 10)).astype(dtype)]
        g = bk.spectral_graph(layers)
        assert g.n_resolved == (9, 2, 8)
        assert (g.adjacency[0][:2] > 0).all()
        assert not g.adjacency[0][2:].any()
        assert not g.adjacency[1][:, 2:].any()
        assert not g.filters(0)[2:].any()
        assert not g.filters(0, target_modes=[5, 1])[0].any()
        assert g.edges(sigma=-5).n_tests == 9 * 2 + 2 * 8
        assert np.isfinite(g.entropy()).all()
        assert (g.node_intensity(1)[2:] == 0).all()


@pytest.mark.parametrize("value", [0.0, 2.0])
def test_zero_and_constant_layers(engine: str, value: float, rng: np.random.Generator) -> None:
    layers = [rng.normal(size=(6, 5)), np.full((4, 6), value), np.full((3, 4, 2), value)]
    for method in ("svr", "cosvr"):
        g = bk.spectral_graph(layers, method=method)
        rank = int(value != 0)
        assert g.n_resolved == (5, rank, rank)
        assert not g.adjacency[0][rank:].any()
        if value:  # (1, …, 1): the overlap of constant vectors is 1, over two positions of svr 2 · 1/2
            np.testing.assert_allclose(g.adjacency[1][0, 0], 1, rtol=1e-12)
        else:
            assert g.path_metric() == 0
            assert g.strongest_path() == bk.GraphPath((), 0.0)
            assert not g.node_intensity(0).any()
            assert g.internal_dimensions(0) == (0, 0)
            np.testing.assert_array_equal(g.entropy(), [0, 0])
            assert len(g.edges()) == g.edges().n_tests == 0


def test_equal_singular_values_are_subspaces(engine: str, rng: np.random.Generator) -> None:
    """Any basis of a multiple singular value will do, and the sums of A over it do not depend on which."""
    Q = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    T = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    s = np.array([3.0, 2.0, 2.0, 2.0, 1.0, 1.0])
    b = rng.normal(size=(4, 6))
    V = np.linalg.svd(b)[2][:4].T
    A = bk.spectral_graph([(Q * s) @ T.T, b]).adjacency[0]
    expected = (V.T @ Q) ** 2
    for block in (slice(0, 1), slice(1, 4), slice(4, 6)):
        np.testing.assert_allclose(A[:, block].sum(axis=1), expected[:, block].sum(axis=1), atol=1e-12)


def test_extreme_magnitudes(engine: str, rng: np.random.Generator) -> None:
    a, b = rng.normal(size=(5, 4)), rng.normal(size=(6, 5))
    expected = bk.spectral_graph([a, b]).adjacency[0]
    for scale in (1e-200, 1e200):
        g = bk.spectral_graph([a * scale, b])
        np.testing.assert_allclose(g.adjacency[0], expected, atol=1e-12)
        assert g.n_resolved == (4, 5)


# --- what comes in ----------------------------------------------------------------------------------------------------


def test_dtypes_mix_and_results_follow_the_weights(engine: str, rng: np.random.Generator) -> None:
    a, b, c = rng.normal(size=(6, 4)), rng.normal(size=(5, 6)), rng.integers(-3, 4, size=(3, 5))
    g = bk.spectral_graph([a.astype(np.float32), b, c])
    assert [g.left_vectors(k).dtype for k in range(3)] == [np.float32, np.float64, np.float64]
    assert all(A.dtype == np.float64 for A in g.adjacency)
    assert all(s.dtype == np.float64 for s in g.singular_values)
    np.testing.assert_allclose(g.adjacency[0], reference(a.astype(np.float32), b), atol=1e-5)
    np.testing.assert_allclose(g.adjacency[1], reference(b, c), atol=1e-11)
    half = bk.spectral_graph([a.astype(np.float16), b.astype(np.float16)])
    assert half.left_vectors(0).dtype == np.float32


def test_layouts(engine: str, rng: np.random.Generator) -> None:
    a, b = rng.normal(size=(6, 4, 3)), rng.normal(size=(5, 6, 3))
    for method in ("svr", "cosvr"):
        expected = bk.spectral_graph([a, b], method=method).adjacency[0]
        for form in (
            np.asfortranarray,
            lambda W: np.repeat(W, 2, axis=0)[::2],
            lambda W: W[::-1][::-1],
            np.ndarray.tolist,
        ):
            np.testing.assert_allclose(
                bk.spectral_graph([form(a), form(b)], method=method).adjacency[0], expected, atol=1e-12
            )
    fc = [rng.normal(size=(6, 4)), rng.normal(size=(5, 6))]
    expected = bk.spectral_graph(fc).adjacency[0]
    np.testing.assert_allclose(bk.spectral_graph([np.asfortranarray(W) for W in fc]).adjacency[0], expected, atol=1e-12)


@pytest.mark.parametrize("device", ["CPU_DEVICE", "device1"])
def test_array_api_strict(device: str, rng: np.random.Generator) -> None:
    layers = [rng.normal(size=s) for s in [(6, 3, 3, 3), (8, 2, 3, 3), (5, 8 * 4), (4, 5)]]
    extras: list[dict[str, Any]] = [{}, {"groups": 3}, {}, {}]
    place = array_api_strict.Device(device)

    def put(W: np.ndarray) -> Any:
        return array_api_strict.asarray(W, device=place)

    layers[1] = rng.normal(size=(9, 2, 3, 3))
    layers[2] = rng.normal(size=(5, 9 * 4))
    norm = {"running_mean": np.zeros(5), "running_var": rng.uniform(1, 2, size=5)}
    for method in ("svr", "cosvr"):
        for rank in (None, 3):
            host_layers = [{"weight": W, **e} for W, e in zip(layers, extras, strict=True)]
            there = [{"weight": put(W), **e} for W, e in zip(layers, extras, strict=True)]
            host_layers[2]["norm"] = norm
            there[2]["norm"] = {key: put(value) for key, value in norm.items()}
            g = bk.spectral_graph(host_layers, method=method, rank=rank)
            found = bk.spectral_graph(there, method=method, rank=rank)
            for k in range(3):
                A = found.adjacency[k]
                assert array_api_strict.asarray(A).device == place
                np.testing.assert_allclose(host(A), g.adjacency[k], atol=1e-10)
                np.testing.assert_allclose(np.abs(host(found.filters(k))), np.abs(g.filters(k)), atol=1e-10)
                np.testing.assert_allclose(
                    np.abs(host(found.filters(k, [1], [2, 0]))), np.abs(g.filters(k, [1], [2, 0])), atol=1e-10
                )
            np.testing.assert_allclose(found.path_metric(), g.path_metric(), rtol=1e-10)
            assert host(found.left_vectors(0)).shape == g.left_vectors(0).shape
            np.testing.assert_allclose(found.edges(null="beta").weight, g.edges(null="beta").weight, rtol=1e-9)


def test_torch_modules(engine: str) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    modules = [
        torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 8, 3, groups=8), torch.nn.ConvTranspose2d(8, 6, 2, groups=2),
        torch.nn.Linear(6 * 9, 5),
    ]  # fmt: skip
    g = bk.spectral_graph(modules)
    assert [layer.groups for layer in g.layers] == [1, 8, 2, 1]
    assert [(layer.n_in, layer.n_out) for layer in g.layers] == [(3, 8), (8, 8), (8, 6), (54, 5)]
    assert all(isinstance(A, torch.Tensor) for A in [*g.adjacency, *g.singular_values, g.filters(0), g.left_vectors(0)])
    # the transposed layer as the dense map of channels that it is
    W = modules[2].weight.detach().numpy()  # (in, out / groups, k, k)
    dense = np.zeros((6, 8, 2, 2))
    for group in range(2):
        dense[group * 3 : group * 3 + 3, group * 4 : group * 4 + 4] = W[group * 4 : group * 4 + 4].swapaxes(0, 1)
    s = np.linalg.svd(dense.reshape(6, -1), compute_uv=False)
    np.testing.assert_allclose(g.singular_values[2].numpy(), s, rtol=1e-5)
    np.testing.assert_allclose(g.layers[3].bias, modules[3].bias.detach().numpy())
    expected = reference(dense, modules[3].weight.detach().numpy())
    np.testing.assert_allclose(g.adjacency[2].numpy(), expected, atol=1e-5)
    assert modules[0].weight.requires_grad


def test_batch_norm_is_folded(engine: str) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    conv, norm, after = (
        torch.nn.Conv2d(3, 8, 3).double(),
        torch.nn.BatchNorm2d(8).double().eval(),
        torch.nn.Linear(8, 4).double(),
    )
    with torch.no_grad():
        norm.running_var.uniform_(0.1, 3)
        norm.running_mean.normal_()
        norm.weight.normal_()
        norm.bias.normal_()
        x = torch.randn(2, 3, 5, 5, dtype=torch.float64)
        y = norm(conv(x))
    layer = {"weight": conv.weight, "bias": conv.bias, "norm": norm, "name": "conv"}
    g = bk.spectral_graph([layer, after])
    assert g.layers[0].name == "conv"
    U, V, s = g.left_vectors(0), g.right_vectors(0), g.singular_values[0]
    folded = torch.einsum("om,m,ijkm->oijk", U, s, V)
    with torch.no_grad():  # the folded layer does what the two did
        again = torch.nn.functional.conv2d(x, folded, torch.from_numpy(g.layers[0].bias))
    np.testing.assert_allclose(again, y, atol=1e-12)
    np.testing.assert_allclose(g.adjacency[0], reference(folded.numpy(), after.weight.detach().numpy()), atol=1e-11)
    plain = SimpleNamespace(running_mean=[0.0] * 8, running_var=[3.0] * 8, eps=1.0)
    half = bk.spectral_graph([{"weight": conv.weight, "norm": plain}])
    np.testing.assert_allclose(
        half.singular_values[0], bk.spectral_graph([conv.weight]).singular_values[0] / 2, rtol=1e-12
    )


# --- what is refused --------------------------------------------------------------------------------------------------

W = np.ones((4, 3))
K = np.ones((4, 3, 3, 3))


@pytest.mark.parametrize(
    ("layers", "options", "argument", "message"),
    [
        ([W, np.ones((2, 5))], {}, "layers", "layer 1 follows layer 0, which has 4 outputs: expected 4 inputs, got 5"),
        ([W, np.ones((2, 8))], {}, "layers", "expected 4 inputs, got 8"),
        ([K, np.ones((2, 6))], {}, "layers", "expected 4 inputs, or 4 times the number of positions, got 6"),
        ([K, np.ones((2, 3, 3, 3))], {}, "layers", r"expected 4 inputs \(channels\), got 3"),
        ([K, np.ones((4, 1, 3, 3))], {}, "layers", "a convolution of 4 groups is given as"),
        ([W, W], {"edges": [(0, 1)]}, r"edges\[0\]", "expected 4 inputs, got 3"),
        ({"a": W, "b": W}, {"edges": [("a", "b")]}, r"edges\[0\]", "b follows a, which has 4 outputs"),
        ({"a": W, "b": W}, {"edges": [("a", "c")]}, r"edges\[0\]", "expected one of the layers 'a', 'b', got 'c'"),
        ([W], {"edges": [(0, 1)]}, r"edges\[0\]", "at most 0, got 1"),
        ([W], {"edges": [(0,)]}, r"edges\[0\]", r"expected a pair \(from, to\)"),
        ([W, W.T], {"edges": [(0, 1), (0, 1)]}, r"edges\[1\]", "given twice"),
        ([W], {"edges": 3}, "edges", "expected pairs of layers"),
        ([W], {"method": "sv"}, "method", "expected one of 'svr', 'cosvr', got 'sv'"),
        ([W], {"rank": 0}, "rank", "expected 1 or more, got 0"),
        ([W], {"rank": 1.5}, "rank", "expected an integer"),
        ([], {}, "layers", "at least one layer"),
        ([{"weight": W, "name": "x"}, {"weight": W.T, "name": "x"}], {}, "layers", "two of them have the name 'x'"),
        (W, {}, "layers", "expected a sequence of layers"),
        ({"weight": W}, {}, "layers", "is one layer"),
        ([W, np.ones(4)], {}, r"layers\[1\]", r"got shape \(4,\); a bias or a normalization comes with"),
        ([np.ones((0, 3))], {}, r"layers\[0\]", "must not be empty"),
        ([W * 1j], {}, r"layers\[0\]", "complex"),
        ([{"weight": W, "stride": 2}], {}, r"layers\[0\]", "got 'stride'"),
        ([{"bias": W}], {}, r"layers\[0\]", "has no weight"),
        ([{"weight": W, "bias": [1.0]}], {}, r"layers\[0\].bias", r"expected shape \(4,\), got \(1,\)"),
        ([{"weight": K, "groups": 3}], {}, r"layers\[0\]", "4 output channels do not divide into 3 groups"),
        ([{"weight": K, "groups": 0}], {}, r"layers\[0\].groups", "expected 1 or more"),
        ([{"weight": W, "norm": {}}], {}, r"layers\[0\].norm", "running_var"),
        ([{"weight": W, "norm": {"running_var": [-1.0] * 4}}], {}, r"layers\[0\].norm.running_var", "above 0"),
        ([{"weight": W, "norm": {"running_var": [1.0, np.nan, 1, 1]}}], {}, r"layers\[0\].norm.running_var", "NaN"),
    ],
)  # fmt: skip
def test_refusals(engine: str, layers: Any, options: dict[str, Any], argument: str, message: str) -> None:
    with pytest.raises(bk.InvalidArgument, match=f"^{argument}: .*{message}"):
        bk.spectral_graph(layers, **options)


@pytest.mark.parametrize("method", ["svr", "cosvr"])
def test_nonfinite_weights_are_named(engine: str, method: str) -> None:
    bad = K.copy()
    bad[2, 1, 0, 2] = np.inf
    with pytest.raises(bk.NonFinite) as caught:
        bk.spectral_graph([W.astype(np.float32), bad], edges=[], method=method)
    assert (caught.value.argument, caught.value.index) == ("layers[1]", (2, 1, 0, 2))
    with pytest.raises(bk.NonFinite, match=r"layers\['second'\]"):
        bk.spectral_graph({"first": W, "second": bad}, edges=[], method=method)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_libraries_do_not_mix(engine: str) -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(bk.InvalidType, match=r"^layers\[1\]: is an array of torch"):
        bk.spectral_graph([W, torch.ones(2, 4)])
    quantized = torch.quantize_per_tensor(torch.ones(2, 3), 0.1, 0, torch.qint8)
    with pytest.raises(bk.InvalidType, match=r"^layers\[0\]: quantized"):
        bk.spectral_graph([quantized])


def test_methods_refuse(engine: str, rng: np.random.Generator) -> None:
    a = rng.normal(size=(4, 4))
    g = bk.spectral_graph([a, a], edges=[(0, 1), (1, 0)])
    with pytest.raises(bk.InvalidArgument, match=r"^edges: .*without cycles; in or after one: layer 0, layer 1"):
        g.path_metric()
    with pytest.raises(bk.InvalidArgument, match=r"^edges: "):
        g.strongest_path()
    with pytest.raises(bk.InvalidArgument, match=r"^edge: expected at most 1, got 2"):
        g.internal_dimensions(2)
    with pytest.raises(bk.InvalidArgument, match=r"^edge: layers .* are not joined"):
        g.filters((0, 0))
    with pytest.raises(bk.InvalidArgument, match=r"^target_modes: expected at most 3, got 4"):
        g.filters(0, target_modes=[4])
    with pytest.raises(bk.InvalidArgument, match=r"^source_modes: expected at least one"):
        g.filters(0, source_modes=[])
    with pytest.raises(bk.InvalidType, match=r"^target_modes: expected a sequence of modes, got 0"):
        g.filters(0, target_modes=0)
    with pytest.raises(bk.InvalidArgument, match=r"^layer: expected at most 1"):
        g.node_intensity(2)
    single = bk.spectral_graph([a])
    assert single.adjacency == []
    assert len(single.edges()) == 0
    assert single.path_metric() == pytest.approx(np.linalg.svd(a, compute_uv=False).sum())
    with pytest.raises(bk.InvalidArgument, match=r"^edge: the graph has a single layer"):
        single.filters(0)
