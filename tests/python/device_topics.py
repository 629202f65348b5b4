"""More of the façade on CUDA devices, as device_cases.py: networks, convolutions, truncated decompositions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import brockett as bk
from brockett import _core
from device_cases import Interface, Library, library, rng  # noqa: F401 (fixtures)

Rng = np.random.Generator


def patches_of(X: Any, k: int) -> Any:
    """(windows, channels k k) of zero-padded images, by NumPy."""
    wide = np.pad(X.astype(np.float64), ((0, 0), (0, 0), (k // 2, k // 2), (k // 2, k // 2)))
    windows = np.lib.stride_tricks.sliding_window_view(wide, (k, k), axis=(2, 3))
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, X.shape[1] * k * k)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_patches(library: Library, rng: Rng, dtype: str) -> None:
    X = rng.normal(size=(3, 4, 9, 8)).astype(dtype)
    acc = bk.PatchAutocorrelation(4, 3, padding=1)
    acc.update(library.array(X[:1]))
    acc.update(library.array(X[1:]))
    expected = patches_of(X, 3)
    R = acc.matrix()
    assert library.owns(R)
    np.testing.assert_allclose(library.host(R), expected.T @ expected / len(expected), atol=1e-13)
    np.testing.assert_allclose(library.host(acc.mean()), expected.mean(axis=0), atol=1e-14)
    other = bk.PatchAutocorrelation(4, 3, padding=1)
    other.update(library.array(X[:2]))
    other.merge(acc)
    assert other.n_samples == 5 * 72


def test_patches_of_groups_and_of_a_layer(library: Library, rng: Rng) -> None:
    X, W = rng.normal(size=(2, 4, 6, 6)), rng.normal(size=(5, 4, 3, 3))
    grouped = bk.PatchAutocorrelation(4, 3, padding=1, groups=2)
    grouped.update(library.array(X))
    for group, R in enumerate(library.host(grouped.matrix())):
        expected = patches_of(X[:, 2 * group : 2 * group + 2], 3)
        np.testing.assert_allclose(R, expected.T @ expected / len(expected), atol=1e-13)
    acc = bk.PatchAutocorrelation(4, 3, padding=1)
    acc.update(library.array(X))
    result = bk.descramble(library.array(W), autocorrelation=acc)
    Y = patches_of(X, 3) @ W.reshape(5, -1).T
    penalty = np.sort(np.fft.fftfreq(5, 1 / 5) ** 4)
    assert result.cost == pytest.approx(penalty @ np.linalg.eigvalsh(Y.T @ Y / len(Y))[::-1], rel=1e-10)
    assert library.owns(result.P)


def test_a_refused_image_changes_nothing(library: Library, rng: Rng) -> None:
    acc = bk.PatchAutocorrelation(2, 2)
    X = rng.normal(size=(1, 2, 4, 4))
    acc.update(library.array(X))
    before = library.host(acc.matrix())
    X[0, 1, 2, 3] = np.nan
    with pytest.raises(bk.NonFinite, match="X"):
        acc.update(library.array(X))
    assert np.array_equal(library.host(acc.matrix()), before)


def test_convolution(library: Library, rng: Rng) -> None:
    K = rng.normal(size=(6, 4, 3, 3))
    found = library.host(bk.convolution.operator_singular_values(library.array(K), (8, 6)))
    transfer = np.fft.fft2(K, (8, 6)).transpose(2, 3, 0, 1)
    expected = np.sort(np.linalg.svd(transfer, compute_uv=False), axis=None)[::-1]
    np.testing.assert_allclose(found, expected, atol=1e-11)
    unfolded = K.reshape(6, -1)
    np.testing.assert_allclose(library.host(bk.convolution.channel_gram(library.array(K))), unfolded @ unfolded.T)
    modes = bk.convolution.unfolded_svd(library.array(K))
    np.testing.assert_allclose(library.host(modes.s), np.linalg.svd(unfolded, compute_uv=False), rtol=1e-12)
    assert library.host(modes.filters).shape == (6, 4, 3, 3)
    norm = np.linalg.norm(unfolded[:3], 2), np.linalg.norm(unfolded[3:], 2)
    assert bk.convolution.norm_bounds(library.array(K), groups=2).lower == pytest.approx(max(norm), rel=1e-12)


@pytest.mark.parametrize("method", ["krylov", "quick", "gram", "exact", "auto"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_truncated_svd(library: Library, rng: Rng, method: str, dtype: str) -> None:
    U, V = (np.linalg.qr(rng.normal(size=(n, 60)))[0] for n in (90, 60))
    A = (U * 0.8 ** np.arange(60) @ V.T).astype(dtype)
    found = bk.svd(library.array(A), rank=6, method=method, tol=1e-5)
    assert library.owns(found.U)
    assert library.owns(found.Vt)
    u, s, vt = (library.host(part).astype(np.float64) for part in (found.U, found.s, found.Vt))
    residual = max(np.linalg.norm(A @ vt.T - u * s, axis=0).max(), np.linalg.norm(A.T @ u - vt.T * s, axis=0).max())
    # That of "exact" is measured in the dtype, whose products round differently on every device.
    assert residual / s[0] <= max(1.1 * found.residual, 1e-14 if dtype == "float64" else 1e-6)
    if method != "quick":
        assert found.residual <= 1e-5
        np.testing.assert_allclose(s, 0.8 ** np.arange(6), rtol=1e-5)
    host = bk.svd(A, rank=6, method=method, tol=1e-5)
    np.testing.assert_allclose(s, host.s, rtol=1e-6 if dtype == "float64" else 1e-5)


def test_product_that_is_never_formed(library: Library, rng: Rng) -> None:
    A, B = rng.normal(size=(50, 70)), rng.normal(size=(70, 40))
    found = bk.svd(bk.Product(library.array(A), library.array(B)), rank=4)
    np.testing.assert_allclose(library.host(found.s), np.linalg.svd(A @ B, compute_uv=False)[:4], rtol=1e-6)


def test_many_singular_values(library: Library, rng: Rng) -> None:
    A = rng.normal(size=(7, 12, 9)).astype(np.float32)
    found = library.host(bk.singular_values(library.array(A)))
    np.testing.assert_allclose(found, np.linalg.svd(A.astype(np.float64), compute_uv=False), rtol=1e-7)


@pytest.mark.parametrize("method", ["svr", "cosvr"])
def test_spectral_graph(library: Library, rng: Rng, method: str) -> None:
    first, second = rng.normal(size=(20, 30)), rng.normal(size=(10, 20)).astype(np.float32)
    graph = bk.spectral_graph([library.array(first), library.array(second)], method=method)
    U = np.linalg.svd(first, full_matrices=False)[0]
    Vt = np.linalg.svd(second.astype(np.float64), full_matrices=False)[2]
    np.testing.assert_allclose(library.host(graph.adjacency[0]), (Vt @ U) ** 2, atol=1e-5)
    found, expected = graph.edges(sigma=1.0), bk.spectral_graph([first, second], method=method).edges(sigma=1.0)
    assert len(found.source) > 0
    assert np.array_equal(found.source, expected.source)
    assert np.array_equal(found.target, expected.target)


def test_statistics(library: Library, rng: Rng) -> None:
    W = rng.normal(size=(40, 60))
    found, expected = (bk.random_matrix.layer_metrics(A) for A in (library.array(W), W))
    assert found.stable_rank == pytest.approx(np.sum(W**2) / np.linalg.norm(W, 2) ** 2, rel=1e-10)
    assert found.alpha == pytest.approx(expected.alpha, rel=1e-9)


def test_what_needs_functions_says_so(rng: Rng) -> None:
    """A DeviceArray only holds memory: projections are a matter of torch or CuPy."""
    K = _core.DeviceArray.from_host(rng.normal(size=(6, 4, 3, 3)))
    Y = _core.DeviceArray.from_host(rng.normal(size=(2, 6, 5, 5)))
    with pytest.raises(bk.InvalidType, match=r"preactivations: .*torch\.from_dlpack"):
        bk.hypergraph.influential(K, Y)
    with pytest.raises(bk.InvalidType, match=r"Y: .*torch\.from_dlpack"):
        bk.convolution.unfolded_svd(K).project(Y)


def test_memory_that_is_not_aligned_is_refused() -> None:
    """A kernel that reads it would end the CUDA context, the other libraries' with it."""
    array = _core.DeviceArray.from_host(np.ones((4, 5)))
    pointer, read_only = array.__cuda_array_interface__["data"]
    with pytest.raises(bk.InvalidArgument, match="A: is not aligned to its elements"):
        bk.singular_values(Interface(array, data=(pointer + 4, read_only), shape=(3, 5)))
