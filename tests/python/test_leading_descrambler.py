"""descramble(rank=r), the leading directions alone, on every engine: against a dense solution of the same problem."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import brockett as bk
from brockett import penalty


def haar(n: int, seed: int) -> np.ndarray:
    Q, R = np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))
    return Q * np.sign(np.diagonal(R))


def polar(M: np.ndarray) -> np.ndarray:
    X, _, Yt = np.linalg.svd(M)
    return X @ Yt


def dense(
    C: np.ndarray, a: penalty.Penalty, r: int, P0: np.ndarray | None = None, ties: list[int] | None = None
) -> np.ndarray:
    """P = T G H Uᵀ nearest to P0: G in the blocks of λ, H in the clusters, everything from r on being one of them."""
    n = len(C)
    T, lam = a.basis(n), a.eigenvalues(n)
    U = np.linalg.eigh(C)[1][:, ::-1]
    blocks = [0, *(np.flatnonzero(np.diff(lam) > 1e-9 * np.abs(lam).max()) + 1), n]
    clusters = sorted({*(range(r) if ties is None else ties), r, n})
    M = T.T @ (np.eye(n) if P0 is None else P0) @ U
    G, H, before = np.eye(n), np.eye(n), -np.inf
    for _ in range(2000):
        for target, K, offsets in ((H, G.T @ M, clusters), (G, M @ H.T, blocks)):
            if target is G:
                K = M @ H.T
            for lo, hi in itertools.pairwise(offsets):
                target[lo:hi, lo:hi] = polar(K[lo:hi, lo:hi])
        trace = np.sum((G @ H) * M)
        if trace - before <= 1e-15 * abs(trace):
            break
        before = trace
    return T @ G @ H @ U.T


def moments(n: int, seed: int, ratio: float = 0.9) -> np.ndarray:
    Q = haar(n, seed)
    return (Q * ratio ** np.arange(n)) @ Q.T


def layer_of(C: np.ndarray, dtype: Any = np.float64) -> np.ndarray:
    """W with W Wᵀ = C: what white inputs make of it."""
    w, U = np.linalg.eigh(C)
    return ((U * np.sqrt(np.maximum(w, 0))) @ U.T).astype(dtype)


def run(C: np.ndarray, rank: int, **keywords: Any) -> bk.Descrambling:
    return bk.descramble(np.eye(len(C)), autocorrelation=C, rank=rank, **keywords)


def check(d: bk.Descrambling, C: np.ndarray, a: penalty.Penalty, r: int) -> None:
    """What holds in every gauge: orthogonal, the leading directions on the smoothest modes, costs as in NumPy."""
    n = len(C)
    P, A = np.asarray(d.P), a.matrix(n)
    T, lam = a.basis(n), a.eigenvalues(n)
    w, U = np.linalg.eigh(C)
    w, U = np.maximum(w[::-1], 0), U[:, ::-1]
    assert np.abs(P @ P.T - np.eye(n)).max() < 2e-14 * np.sqrt(n)
    whole = [hi for hi in d.blocks if hi <= r]
    for lo, hi in itertools.pairwise(whole):
        rows = T[:, lo:hi].T @ P
        np.testing.assert_allclose(rows.T @ rows, U[:, lo:hi] @ U[:, lo:hi].T, atol=1e-9)
    scale = np.abs(lam).max() * w[0]
    assert d.cost == pytest.approx(np.trace(A @ P @ C @ P.T), abs=1e-13 * n * scale)
    assert d.identity_cost == pytest.approx(np.trace(A @ C), abs=1e-13 * n * scale)
    optimum = lam @ w
    assert d.optimum is None
    assert d.bound <= optimum + 1e-13 * n * scale
    assert d.bound >= lam[:r] @ w[:r] + lam[r] * w[r:].sum() - 1e-13 * n * scale
    assert d.cost >= optimum - 1e-13 * n * scale
    np.testing.assert_allclose(np.asarray(d.sigma), np.sqrt(w[: d.used["rank"]]), atol=1e-7 * np.sqrt(w[0]))
    np.testing.assert_allclose(np.asarray(d.weights), P, atol=1e-13)


def star(n: int) -> np.ndarray:
    """Laplacian of one node joined to all others: eigenvalues 0, 1 (n - 2 times), n."""
    L = np.eye(n)
    L[0, :] = L[:, 0] = -1
    L[0, 0] = n - 1
    return L


PENALTIES = {
    "fourier": penalty.FourierDerivative(2),
    "neumann": penalty.FiniteDifference(1, boundary="neumann"),
    "grid": penalty.Grid((6, 4), order=1),
    "star": penalty.GraphLaplacian(star(24)),
    "complete": penalty.GraphLaplacian(24 * np.eye(24) - np.ones((24, 24))),
}


@pytest.mark.parametrize("rank", [1, 2, 3, 4, 7, 8, 11, 12, 20, 23])
@pytest.mark.parametrize("name", PENALTIES)
def test_nearest_to_the_identity(engine: str, name: str, rank: int) -> None:
    a, n = PENALTIES[name], 24
    C = moments(n, 3)
    d = run(C, rank, penalty=a)
    check(d, C, a, rank)
    want = dense(C, a, rank)
    assert np.trace(d.P) == pytest.approx(np.trace(want), abs=1e-9)
    np.testing.assert_allclose(d.P, want, atol=1e-5)
    # as few dimensions are moved as can be
    lo = max(b for b in d.blocks if b <= rank)
    hi = min(b for b in d.blocks if b >= rank)
    moved = np.linalg.svd(d.P - np.eye(n), compute_uv=False)
    assert np.sum(moved > 1e-12) <= min(n, rank + (hi if hi < n else lo))


@pytest.mark.parametrize("rank", [None, 32])
def test_rotations_of_what_lies_along_modes(engine: str, rank: int | None) -> None:
    """Overlaps of modes with modes are singular: the polar factor of one may be a rotation or a reflection."""
    a, rng = penalty.Grid((8, 8), order=1), np.random.default_rng(2)
    for _ in range(30):
        size = int(rng.integers(10, 60))
        F = a.basis(64)[:, rng.permutation(64)[:size]] * rng.integers(1, 5, size)
        d = bk.descramble(np.eye(64), autocorrelation=F @ F.T, penalty=a, rank=rank, group="special_orthogonal")
        assert np.linalg.det(d.P) == pytest.approx(1, abs=1e-10)


@pytest.mark.parametrize("wave", [(1, 1), (1, -1), (2, 1)])
def test_gratings_on_a_grid(engine: str, wave: tuple[int, int]) -> None:
    """The null space has two, or four, of the four modes of the block that it cuts, and gives it three directions."""
    side, rng = 16, np.random.default_rng(8)
    x, y = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    phases = [2 * np.pi * (a * x + b * y).ravel() / side for a, b in ((1, 0), (0, 1), wave)]
    gratings = np.stack([f(phase) for phase in phases for f in (np.cos, np.sin)])
    Y = rng.standard_normal((40, 6)) * [3, 2.5, 2, 1.5, 1, 0.8] @ gratings
    C, a = Y.T @ Y / 40, penalty.Grid((side, side), order=1)
    d = bk.descramble(np.eye(side**2), autocorrelation=C, penalty=a)
    P = np.asarray(d.P)
    assert np.abs(P @ P.T - np.eye(len(C))).max() < 1e-12
    assert d.cost == pytest.approx(d.optimum, rel=1e-10)
    assert np.trace(P) >= np.trace(dense(C, a, 6)) - 1e-7


@pytest.mark.parametrize("rank", [20, 33, 34, 39, 40, 41, 42, 47, 64])
def test_cuts_on_either_side_of_where_everything_is_decomposed(engine: str, rank: int) -> None:
    # the core reduces the problem to 2 rank dimensions, or one more, below 7/8 of 90 of them; even ranks cut a block
    n, a = 90, penalty.FourierDerivative(2)
    C = moments(n, 8, 0.93)
    d, want = run(C, rank), dense(C, a, rank)
    check(d, C, a, rank)
    assert np.trace(d.P) == pytest.approx(np.trace(want), abs=1e-9)
    np.testing.assert_allclose(d.P, want, atol=1e-5)
    # what lies outside of the vectors and of the modes stays where it is
    q = rank + 1 if rank % 2 == 0 else rank
    if rank + q < n:
        U = np.linalg.eigh(C)[1][:, ::-1][:, :rank]
        outside = np.linalg.svd(np.hstack([U, a.basis(n)[:, :q]]))[0][:, rank + q :]
        np.testing.assert_allclose(d.P @ outside, outside, atol=1e-10)


@pytest.mark.parametrize("rank", [1, 2, 5, 6, 9, 11])
def test_nearest_to_a_given_matrix(engine: str, rank: int) -> None:
    C, P0, a = moments(20, 4), haar(20, 5), penalty.FourierDerivative(2)
    d = run(C, rank, gauge=P0)
    check(d, C, a, rank)
    np.testing.assert_allclose(d.P, dense(C, a, rank, P0), atol=1e-5)
    # orthogonal to 1e-6 only: its polar factor is meant, and P is orthogonal to rounding all the same
    given = P0 + 1e-7 * np.random.default_rng(1).standard_normal((20, 20))
    rough = run(C, rank, gauge=given)
    check(rough, C, a, rank)
    np.testing.assert_allclose(rough.P, d.P, atol=1e-5)
    np.testing.assert_allclose(rough.P, run(C, rank, gauge=polar(given)).P, atol=1e-9)


@pytest.mark.parametrize("rank", [1, 2, 5, 6, 9, 16])
def test_canonical(engine: str, rank: int) -> None:
    C, a, n = moments(20, 6), penalty.FourierDerivative(2), 20
    d = run(C, rank, gauge="canonical")
    check(d, C, a, rank)
    U = np.linalg.eigh(C)[1][:, ::-1]
    U = U * np.sign(U[np.abs(U).argmax(axis=0), np.arange(n)])
    tail = U[:, rank:]
    U[:, rank:] = tail @ polar(tail.T @ np.eye(n)[:, rank:])
    np.testing.assert_allclose(d.P, a.basis(n) @ U.T, atol=1e-9)


@pytest.mark.parametrize("gauge", ["identity", "canonical", "given"])
@pytest.mark.parametrize("seed", range(6))
def test_special_orthogonal(engine: str, gauge: str, seed: int) -> None:
    C, n, rank = moments(18, 30 + seed), 18, 5
    P0 = haar(n, 60 + seed)
    word: Any = P0 if gauge == "given" else gauge
    free = run(C, rank, gauge=word)
    d = run(C, rank, gauge=word, group="special_orthogonal")
    check(d, C, penalty.FourierDerivative(2), rank)
    assert np.linalg.det(d.P) > 0
    if np.linalg.det(free.P) > 0:
        np.testing.assert_allclose(d.P, free.P, atol=1e-12)
    elif gauge == "canonical":  # the last column of T reversed
        last = penalty.FourierDerivative(2).basis(n)[:, -1:]
        np.testing.assert_allclose(d.P, free.P - 2 * last @ (last.T @ free.P), atol=1e-12)
    else:  # the least certain direction of all
        near = np.eye(n) if gauge == "identity" else P0
        lost = np.sum(near * (free.P - d.P))
        assert lost == pytest.approx(2 * free.gauge_conditioning, abs=1e-9)


@pytest.mark.parametrize("variances", ["equal", "none"])
def test_special_orthogonal_where_nothing_is_known(engine: str, variances: str) -> None:
    n = 9
    P0 = haar(n, 61)
    P0[:, 0] *= np.sign(np.linalg.det(P0))
    C = np.eye(n) if variances == "equal" else np.zeros((n, n))
    np.testing.assert_allclose(run(C, 4, gauge=P0, group="special_orthogonal").P, P0, atol=1e-13)
    P0[:, 0] *= -1
    np.testing.assert_allclose(run(C, 4, gauge=P0).P, P0, atol=1e-13)
    d = run(C, 4, gauge=P0, group="special_orthogonal")
    last = penalty.FourierDerivative(2).basis(n)[:, -1:]
    assert np.linalg.det(d.P) > 0
    np.testing.assert_allclose(d.P, P0 - 2 * last @ (last.T @ P0), atol=1e-13)
    np.testing.assert_allclose(d.weights, d.P, atol=1e-13)
    check(d, C, penalty.FourierDerivative(2), 0)


def test_sign_of_every_case_is_met() -> None:
    """The seeds above hold both signs in every gauge: neither branch goes untested."""
    C = [moments(18, 30 + seed) for seed in range(6)]
    for gauge in ("identity", "canonical"):
        signs = {np.sign(np.linalg.det(run(c, 5, gauge=gauge).P)) for c in C}
        assert signs == {-1.0, 1.0}


def test_all_of_it_is_the_full_one(engine: str) -> None:
    C = moments(12, 7)
    whole, full = run(C, 12), bk.descramble(np.eye(12), autocorrelation=C)
    np.testing.assert_array_equal(whole.P, full.P)
    assert whole.optimum == full.optimum


@pytest.mark.parametrize("rank", [3, 5, 6, 9])
def test_more_than_the_numerical_rank(engine: str, rank: int) -> None:
    """Directions without variance are one with what was cut off: any rank from the true one on is as good as all."""
    X = np.random.default_rng(8).standard_normal((3, 14))
    C = X.T @ X
    d, full = run(C, rank), bk.descramble(np.eye(14), autocorrelation=C)
    assert d.rank == full.rank == 3
    assert len(d.sigma) == rank
    np.testing.assert_allclose(d.P, full.P, atol=1e-7)
    assert d.bound == pytest.approx(full.optimum, abs=1e-12 * 7**4 * np.trace(C))
    assert d.cost == pytest.approx(full.cost, abs=1e-12 * 7**4 * np.trace(C))


def test_a_cut_through_equal_variances_moves_before_them(engine: str) -> None:
    Q = haar(16, 9)
    C = (Q * np.array([8.0, 5, *[3.0] * 4, *np.linspace(1, 0.1, 10)])) @ Q.T
    one = run(C, 2)
    for rank in (3, 4, 5):
        np.testing.assert_allclose(run(C, rank).P, one.P, atol=1e-9)
    assert np.abs(run(C, 6).P - one.P).max() > 1e-2
    # a cluster below the cut is turned as a whole
    d = run(C, 7)
    np.testing.assert_allclose(d.P, dense(C, penalty.FourierDerivative(2), 7, ties=[0, 1, 2, 6]), atol=1e-5)
    white = run(np.eye(16), 5)
    np.testing.assert_allclose(white.P, np.eye(16), atol=1e-13)
    assert white.gauge_conditioning == pytest.approx(1)
    zero = run(np.zeros((16, 16)), 5)
    np.testing.assert_array_equal(zero.P, np.eye(16))
    assert (zero.rank, zero.cost, zero.bound) == (0, 0, 0)
    np.testing.assert_allclose(run(np.zeros((16, 16)), 5, gauge=Q).P, Q, atol=1e-13)
    basis = penalty.FourierDerivative(2).basis(16)
    np.testing.assert_allclose(run(np.zeros((16, 16)), 5, gauge="canonical").P, basis, atol=1e-13)


@pytest.mark.parametrize("gauge", ["identity", "canonical"])
@pytest.mark.parametrize("rank", [3, 4])
def test_float32(engine: str, rank: int, gauge: str) -> None:
    """P is cast; the cost is that of the P returned, which on smooth data is far from that of the P before."""
    n = 64
    W = layer_of(moments(n, 10, 0.4), np.float32)
    d = bk.descramble(W, rank=rank, gauge=gauge)
    assert d.P.dtype == d.weights.dtype == np.float32
    P, W64 = d.P.astype(np.float64), W.astype(np.float64)
    A, C = penalty.FourierDerivative(2).matrix(n), W64 @ W64.T
    want = np.trace(A @ P @ C @ P.T)
    before = bk.descramble(W64, rank=rank, gauge=gauge).cost
    assert abs(before - want) > 1e-9 * want
    assert d.cost == pytest.approx(want, rel=1e-10, abs=1e-15 * 32**4 * C[0, 0] * n)
    np.testing.assert_allclose(d.weights, P @ W64, atol=4e-7 * np.abs(W).max())


def test_every_source_gives_the_same(engine: str) -> None:
    rng = np.random.default_rng(11)
    n, m, N, rank = 30, 22, 400, 5
    W, X, b = rng.standard_normal((n, m)) / 5, rng.standard_normal((N, m)) * 0.9 ** np.arange(m), rng.standard_normal(n)
    X += 0.3
    Y = X @ W.T + b
    for center in (False, True):
        C = np.cov(Y.T, ddof=0) if center else Y.T @ Y / N
        want = dense(C, penalty.FourierDerivative(2), rank)
        acc = bk.Autocorrelation(m)
        acc.update(X)
        root = bk.Autocorrelation(m, method="qr", center=center)
        root.update(X)
        found = {
            "inputs": bk.descramble(W, inputs=X, bias=b, center=center, rank=rank),
            "preactivations": bk.descramble(preactivations=Y, center=center, rank=rank),
            "autocorrelation": bk.descramble(W, autocorrelation=acc, bias=b, center=center, rank=rank),
            "root": bk.descramble(W, autocorrelation=root, bias=b, center=center, rank=rank),
            "stack": bk.descramble(
                preactivations=np.sqrt(2) * (Y - center * Y.mean(axis=0)), rank=rank,
                stack=[(1.0, 1e-9 * rng.standard_normal((3, n)))]
            ),
        }
        A = penalty.FourierDerivative(2).matrix(n)
        for name, d in found.items():
            np.testing.assert_allclose(d.P, want, atol=1e-5, err_msg=name)
            scale = 2 if name == "stack" else 1
            assert d.cost == pytest.approx(scale * np.trace(A @ d.P @ C @ d.P.T), rel=1e-9), name
        for name in ("inputs", "autocorrelation", "root"):
            np.testing.assert_allclose(found[name].weights, found[name].P @ W, atol=1e-13)


def test_sampling_errors_are_bounds(engine: str) -> None:
    """No less than the errors of the full spectrum; no more than a little where what was cut is small."""
    rng = np.random.default_rng(12)
    n, N = 17, 3000
    Y = rng.standard_normal((N, n)) * 0.6 ** np.arange(n) @ haar(n, 13).T
    C = Y.T @ Y / N
    for keywords in ({"preactivations": Y}, {"W": np.eye(n), "autocorrelation": C, "n_samples": N}):
        full, cut = bk.descramble(**keywords), bk.descramble(**keywords, rank=7)
        assert cut.used["error_model"] == full.used["error_model"]
        assert np.all(cut.block_error[:4] >= full.block_error[:4] * (1 - 1e-9))
        np.testing.assert_allclose(cut.block_error[:3], full.block_error[:3], rtol=0.1)
        np.testing.assert_allclose(cut.block_error[4:], np.sqrt(np.diff(full.blocks)[4:]))


@pytest.mark.parametrize("spectrum", ["falling", "bulk", "rank 12", "ties"])
def test_large_layers_by_lanczos(engine: str, spectrum: str) -> None:
    """Where Lanczos is what is cheaper: as accurate as the whole decomposition."""
    n, rank = 700, 9
    Q = haar(n, 14)
    s = {
        "falling": 0.8 ** np.arange(n),
        "bulk": np.concatenate([np.linspace(9, 4, 10), np.linspace(1, 0.5, n - 10)]),
        "rank 12": np.concatenate([np.linspace(3, 2, 7), np.zeros(n - 7)]),
        "ties": np.concatenate([[9.0, 8, 8, 8, 5], np.full(n - 5, 1.0)]),
    }[spectrum]
    C = (Q * s) @ Q.T
    C = (C + C.T) / 2
    d, full = run(C, rank, verify=False), np.linalg.eigvalsh(C)[::-1]
    np.testing.assert_allclose(np.square(d.sigma), np.maximum(full[:rank], 0), atol=1e-13 * full[0])
    assert np.abs(d.P @ d.P.T - np.eye(n)).max() < 1e-12
    lead = {"falling": 9, "bulk": 9, "rank 12": 7, "ties": 5}[spectrum]
    T = penalty.FourierDerivative(2).basis(n)
    for lo, hi in itertools.pairwise([b for b in d.blocks if b <= lead]):
        if spectrum == "ties" and lo > 0:
            lo, hi = 1, 5  # the tied directions and the last one: pairs of modes take them together
        rows = T[:, lo:hi].T @ d.P
        np.testing.assert_allclose(rows.T @ rows, Q[:, lo:hi] @ Q[:, lo:hi].T, atol=1e-10)
    np.testing.assert_allclose(np.linalg.svd(d.P - np.eye(n), compute_uv=False)[2 * lead + 2 :], 0, atol=1e-12)


@pytest.mark.parametrize("scale", [2.0**-930, 2.0**-600, 2.0**600, 2.0**930])
def test_extreme_variances_of_large_layers(engine: str, scale: float) -> None:
    C, rank = moments(420, 13, 0.93), 4
    one, d = run(C, rank), run(C * scale, rank)
    np.testing.assert_allclose(d.sigma / np.sqrt(scale), one.sigma, rtol=1e-12)
    np.testing.assert_allclose(d.P, one.P, atol=1e-10)
    assert d.cost / scale == pytest.approx(one.cost, rel=1e-9)
    assert d.bound / scale == pytest.approx(one.bound, rel=1e-9)


def test_indefinite_moments_are_refused(engine: str) -> None:
    for n in (12, 700):
        s = np.linspace(2, 1, n)
        s[-1] = -0.5
        Q = haar(n, 15)
        C = (Q * s) @ Q.T
        with pytest.raises(bk.InvalidArgument, match="positive semidefinite"):
            run((C + C.T) / 2, 3, verify=False)


def test_saved_and_loaded(engine: str, tmp_path: Any) -> None:
    d = run(moments(10, 16), 3)
    d.save(tmp_path / "d.npz")
    again = bk.Descrambling.load(tmp_path / "d.npz")
    np.testing.assert_array_equal(again.sigma, d.sigma)
    assert again.optimum is None
    assert again.bound == d.bound
