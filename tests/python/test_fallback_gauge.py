"""The gauge: the returned minimiser is the nearest of all, found against thousands of random ones."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group

from brockett import InvalidArgument
from brockett import _fallback as fb
from brockett._fallback import gauge, varying_polar

FOURIER = {"kind": "fourier", "order": 2.0}
NEUMANN = {"kind": "difference", "order": 1, "boundary": "neumann"}
RANDOM = 2000


def haar(d: int, count: int, rng: np.random.Generator) -> np.ndarray:
    if d == 1:
        return rng.choice([-1.0, 1.0], (count, 1, 1))
    return np.asarray(ortho_group.rvs(d, size=count, random_state=rng)).reshape(count, d, d)


def random_block_diagonal(offsets: list[int], count: int, rng: np.random.Generator) -> np.ndarray:
    n = offsets[-1]
    out = np.zeros((count, n, n))
    for lo, hi in itertools.pairwise(offsets):
        out[:, lo:hi, lo:hi] = haar(hi - lo, count, rng)
    return out


def descramble(C: Any, penalty: Any = None, **options: Any) -> dict[str, Any]:
    o = {"group": "orthogonal", "gauge": "identity", "P0": None, "rank": 0} | options
    source = {"kind": "covariance", "C": np.asarray(C, dtype=float), "n_samples": 0}
    return fb.descramble(
        None, source, penalty or FOURIER, o["group"], o["gauge"], o["P0"], o["rank"], 0, 8, 100, "float64"
    )


# σ² with the clusters planted in it (offsets), to be turned by a random rotation
SPECTRA = {
    "distinct": ([7.0, 5.0, 3.0, 2.0, 1.0, 0.5], [0, 1, 2, 3, 4, 5, 6]),
    "pairs like the blocks": ([9.0, 4.0, 4.0, 2.0, 2.0, 1.0], [0, 1, 3, 5, 6]),
    "pairs across the blocks": ([9.0, 9.0, 4.0, 4.0, 2.0, 2.0], [0, 2, 4, 6]),
    "three and three": ([9.0, 9.0, 9.0, 4.0, 4.0, 4.0], [0, 3, 6]),
    "rank two": ([9.0, 4.0, 0.0, 0.0, 0.0, 0.0], [0, 1, 2, 6]),
    "rank one": ([9.0, 0.0, 0.0, 0.0, 0.0, 0.0], [0, 1, 6]),
    "white": ([3.0] * 6, [0, 6]),
    "zero": ([0.0] * 6, [0, 6]),
}
BLOCKS = [0, 1, 3, 5, 6]  # of the Fourier penalty at n = 6


def planted(name: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list[int]]:
    variances, clusters = SPECTRA[name]
    U = haar(6, 1, rng)[0]
    C = (U * variances) @ U.T
    return (C + C.T) / 2, U, clusters


@pytest.mark.parametrize("reference", ["identity", "given"])
@pytest.mark.parametrize("name", SPECTRA)
def test_no_random_gauge_is_nearer(name: str, reference: str, rng: np.random.Generator) -> None:
    C, U, clusters = planted(name, rng)
    P0 = np.eye(6) if reference == "identity" else haar(6, 1, rng)[0]
    found = descramble(C, gauge=reference, P0=P0)
    P = found["P"]
    np.testing.assert_allclose(P @ P.T, np.eye(6), atol=1e-14)
    assert found["cost"] == pytest.approx(found["optimum"], abs=1e-11)
    T = fb.penalty_basis(FOURIER, 6)
    others = T @ random_block_diagonal(BLOCKS, RANDOM, rng) @ random_block_diagonal(clusters, RANDOM, rng) @ U.T
    # all of them are minimisers, or the test would show nothing
    Q = T.T @ others[:20]
    costs = np.einsum("i,kij,jl,kil->k", fb.penalty_eigenvalues(FOURIER, 6), Q, C, Q)
    np.testing.assert_allclose(costs, found["optimum"], atol=1e-11)
    overlaps = np.einsum("ij,kij->k", P0, others)
    assert np.sum(P * P0) >= overlaps.max() - 1e-12
    # and the special orthogonal one is the nearest among those of determinant 1
    special = descramble(C, gauge=reference, P0=P0, group="special_orthogonal")
    assert np.linalg.det(special["P"]) == pytest.approx(1)
    assert special["cost"] == pytest.approx(found["optimum"], abs=1e-11)
    right = overlaps[np.linalg.det(others) > 0]
    assert right.size > RANDOM / 4
    assert np.sum(special["P"] * P0) >= right.max() - 1e-12
    if np.linalg.det(P) > 0:
        np.testing.assert_array_equal(special["P"], P)


@pytest.mark.parametrize("name", SPECTRA)
def test_the_nearest_gauge_is_reached_by_climbing(name: str, rng: np.random.Generator) -> None:
    # random gauges seldom come near the best of a large set: improve 40 of them by random rotations, ever smaller
    C, U, clusters = planted(name, rng)
    best = np.trace(descramble(C)["P"])
    M = fb.penalty_basis(FOURIER, 6).T @ U
    inside = [random_block_diagonal(parts, 1, rng) != 0 for parts in (BLOCKS, clusters)]
    G, H = random_block_diagonal(BLOCKS, 40, rng), random_block_diagonal(clusters, 40, rng)
    value = np.einsum("ij,kij->k", M, G @ H)
    for step in np.geomspace(1, 1e-3, 400):
        turns = []
        for mask in inside:
            B = rng.standard_normal((40, 6, 6)) * mask * step
            turns.append(np.linalg.inv(np.eye(6) + B - np.swapaxes(B, 1, 2)) @ (np.eye(6) - B + np.swapaxes(B, 1, 2)))
        trial_G, trial_H = G @ turns[0], H @ turns[1]
        trial = np.einsum("ij,kij->k", M, trial_G @ trial_H)
        better = trial > value
        G[better], H[better], value[better] = trial_G[better], trial_H[better], trial[better]
    assert value.max() <= best + 1e-12
    assert value.max() >= best - 1e-2  # the climb does get there


# --- by hand ----------------------------------------------------------------------------------------------------------


def test_zero_data_give_the_reference_itself(rng: np.random.Generator) -> None:
    for n in (1, 2, 3, 6, 9):
        np.testing.assert_allclose(descramble(np.zeros((n, n)))["P"], np.eye(n), atol=1e-14)
        P0 = haar(n, 1, rng)[0]
        found = descramble(np.zeros((n, n)), gauge="given", P0=P0)
        np.testing.assert_allclose(found["P"], P0, atol=1e-14)
        assert found["gauge_conditioning"] == pytest.approx(1)
        assert (found["rank"], found["optimum"], found["cost"]) == (0, 0, 0)


def test_white_data_give_the_identity() -> None:
    np.testing.assert_allclose(descramble(3 * np.eye(7))["P"], np.eye(7), atol=1e-14)


def test_smooth_stationary_data_are_a_fixed_point() -> None:
    # a low-pass circulant C falls with frequency: P = I
    n = 8
    T = fb.penalty_basis(FOURIER, n)
    C = (T * (1.0 / (1 + fb.penalty_eigenvalues(FOURIER, n)))) @ T.T
    np.testing.assert_allclose(descramble(C)["P"], np.eye(n), atol=1e-12)
    # high-pass, n even: modulation by (-1)ʲ is a minimiser, so the one nearest to itself
    C = (T * fb.penalty_eigenvalues(FOURIER, n)) @ T.T
    modulation = np.diag((-1.0) ** np.arange(n))
    np.testing.assert_allclose(descramble(C, gauge="given", P0=modulation)["P"], modulation, atol=1e-12)


def test_one_neuron() -> None:
    assert descramble([[2.0]])["P"] == [[1.0]]
    assert descramble([[2.0]], gauge="given", P0=-np.eye(1))["P"] == [[-1.0]]
    assert descramble([[2.0]], gauge="given", P0=-np.eye(1), group="special_orthogonal")["P"] == [[1.0]]
    assert descramble([[2.0]], gauge="canonical", group="special_orthogonal")["P"] == [[1.0]]


def test_two_neurons_by_hand() -> None:
    # C = diag(1, 4): the larger variance goes to the mean mode (1, 1)/√2, signs nearest to I
    h = math.sqrt(0.5)
    found = descramble(np.diag([1.0, 4.0]))
    np.testing.assert_allclose(found["P"], [[h, h], [-h, h]], atol=1e-15)
    assert found["optimum"] == pytest.approx(1)  # 0·4 + 1·1
    assert found["gauge_conditioning"] == pytest.approx(h)
    assert found["bound"] == found["optimum"]


def test_canonical_by_hand() -> None:
    h = math.sqrt(0.5)
    # U = (e₂, e₁): P = T Uᵀ
    found = descramble(np.diag([1.0, 4.0]), gauge="canonical")
    np.testing.assert_allclose(found["P"], [[h, h], [-h, h]], atol=1e-15)
    assert math.isnan(found["gauge_conditioning"])
    T = fb.penalty_basis(FOURIER, 5)
    np.testing.assert_allclose(descramble(np.zeros((5, 5)), gauge="canonical")["P"], T, atol=1e-14)
    signs = []
    for n in range(2, 7):
        T = fb.penalty_basis(FOURIER, n)
        flipped = descramble(np.zeros((n, n)), gauge="canonical", group="special_orthogonal")["P"]
        signs.append(round(np.linalg.det(T)))
        np.testing.assert_allclose(flipped[:, :-1], T[:, :-1], atol=1e-14)
        np.testing.assert_allclose(flipped[:, -1], T[:, -1] * signs[-1], atol=1e-14)
    assert set(signs) == {-1, 1}


@pytest.mark.parametrize("name", SPECTRA)
def test_canonical(name: str, rng: np.random.Generator) -> None:
    C, _, clusters = planted(name, rng)
    for group in ("orthogonal", "special_orthogonal"):
        found = descramble(C, gauge="canonical", group=group)
        P = found["P"]
        np.testing.assert_allclose(P @ P.T, np.eye(6), atol=1e-14)
        assert found["cost"] == pytest.approx(found["optimum"], abs=1e-11)
        U = P.T @ fb.penalty_basis(FOURIER, 6)
        if group == "special_orthogonal":
            assert np.linalg.det(P) == pytest.approx(1)
            continue
        for lo, hi in itertools.pairwise(clusters):
            block = U[lo:hi, lo:hi]
            if hi - lo == 1:
                assert U[np.argmax(np.abs(U[:, lo])), lo] > 0
            else:  # nearest to its own axes: the overlap with them is symmetric and positive semidefinite
                np.testing.assert_allclose(block, block.T, atol=1e-12)
                assert np.linalg.eigvalsh((block + block.T) / 2).min() > -1e-12


def test_canonical_does_not_depend_on_the_eigensolver(rng: np.random.Generator) -> None:
    _, U, clusters = planted("three and three", rng)
    H = gauge.canonical(U, clusters)
    turned = U @ random_block_diagonal(clusters, 1, rng)[0]
    np.testing.assert_allclose(turned @ gauge.canonical(turned, clusters).T, U @ H.T, atol=1e-13)


# --- conditioning, clusters -------------------------------------------------------------------------------------------


def test_conditioning_is_the_smallest_overlap(rng: np.random.Generator) -> None:
    C, U, _ = planted("distinct", rng)
    M = fb.penalty_basis(FOURIER, 6).T @ U
    smallest = min(np.linalg.svd(M[a:b, a:b])[1].min() for a, b in itertools.pairwise(BLOCKS))
    assert descramble(C)["gauge_conditioning"] == pytest.approx(smallest, rel=1e-9)
    # Neumann: all blocks are single, signs are all there is
    M = fb.penalty_basis(NEUMANN, 6).T @ U
    found = descramble(C, NEUMANN)
    assert found["gauge_conditioning"] == pytest.approx(np.abs(np.diag(M)).min(), rel=1e-9)
    assert found["blocks"].tolist() == list(range(7))


def test_a_gauge_that_is_arbitrary_says_so() -> None:
    # variances rise with frequency: the overlap of every block is zero where the reference is I … and n is odd
    n = 5
    T = fb.penalty_basis(FOURIER, n)
    C = (T * np.array([1.0, 3.0, 3.0, 2.0, 2.0])) @ T.T
    assert descramble(C)["gauge_conditioning"] < 1e-12


def local(offsets: list[int], lo: int, hi: int) -> list[int]:
    return [k - lo for k in offsets if lo <= k <= hi]


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.integers(0, 10**6), st.integers(1, 9), st.data())
def test_any_pair_of_partitions(seed: int, n: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)

    def partition() -> list[int]:
        return [0, *sorted(data.draw(st.sets(st.integers(1, n)) if n else st.just(set())) - {n}), n]

    blocks, clusters = partition(), partition()
    M = haar(n, 1, rng)[0]
    found = gauge.nearest(M, blocks, clusters)
    for GH in (found.GH, found.flipped()):
        np.testing.assert_allclose(GH @ GH.T, np.eye(n), atol=1e-13)
    assert np.linalg.det(found.GH) * np.linalg.det(found.flipped()) == pytest.approx(-1)
    # G H has no entry between parts that neither ties
    cuts = sorted(set(blocks) & set(clusters))
    label = np.searchsorted(cuts, np.arange(n), side="right")
    assert not found.GH[label[:, None] != label[None, :]].any()
    samples = random_block_diagonal(blocks, 200, rng) @ random_block_diagonal(clusters, 200, rng)
    assert np.sum(found.GH * M) >= np.einsum("ij,kij->k", M, samples).max() - 1e-12
    # components are solved one by one, and the worst conditioned one is flipped
    parts = [
        gauge.nearest(M[lo:hi, lo:hi], local(blocks, lo, hi), local(clusters, lo, hi))
        for lo, hi in itertools.pairwise(cuts)
    ]
    assert found.conditioning == pytest.approx(min(part.conditioning for part in parts), abs=1e-14)
    # to flip costs twice the conditioning, wherever one polar factor gives the component
    crossing = any(
        gauge._crossing(blocks, clusters, lo, hi) and gauge._crossing(clusters, blocks, lo, hi)
        for lo, hi in itertools.pairwise(cuts)
    )
    if not crossing:
        cost = np.sum(found.GH * M) - np.sum(found.flipped() * M)
        assert cost == pytest.approx(2 * found.conditioning, abs=1e-12)


def test_the_worst_of_several_crossing_components(rng: np.random.Generator) -> None:
    blocks, clusters = [0, 1, 3, 4, 5, 7, 8], [0, 2, 4, 6, 8]  # two components, each with parts that cross
    for _ in range(20):
        M = haar(8, 1, rng)[0]
        found = gauge.nearest(M, blocks, clusters)
        parts = [gauge.nearest(M[a : a + 4, a : a + 4], [0, 1, 3, 4], [0, 2, 4]) for a in (0, 4)]
        worst = min(parts, key=lambda part: part.conditioning)
        assert found.conditioning == worst.conditioning
        at = 4 * parts.index(worst)
        np.testing.assert_allclose(found.flipped()[at : at + 4, at : at + 4], worst.flipped(), atol=1e-13)


@pytest.mark.parametrize("cut", [2, 4, 6])
def test_a_wide_cluster_that_a_narrow_block_cuts(cut: int, rng: np.random.Generator) -> None:
    n = cut + 40
    blocks, clusters = [0, *range(1, cut + 2, 2), n], [*range(cut + 1), n]
    wide = 0

    def svd(A: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        nonlocal wide
        wide += len(A) == n - cut
        X, s, Yt = np.linalg.svd(A)
        return X, s, Yt

    for _ in range(5):
        M, wide = haar(n, 1, rng)[0], 0
        GH = gauge.nearest(M, blocks, clusters, svd).GH
        assert wide <= 4  # of what does not vary, and up to three to see that the climb is over
        np.testing.assert_allclose(GH @ GH.T, np.eye(n), atol=1e-13)
        lo = cut - 1  # G and H of the last component, and what the best H makes of other angles
        angle = np.arctan2(GH[cut, lo], GH[lo, lo])
        reached = np.sum(GH[lo:, lo:] * M[lo:, lo:])

        def best_at(angle: float, M: np.ndarray = M, lo: int = lo) -> float:
            G = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            rows = G.T @ M[lo : lo + 2]
            rest = np.vstack([rows[1:], M[lo + 2 :]])[:, cut:]
            return float(abs(rows[0, lo]) + np.linalg.svd(rest, compute_uv=False).sum())

        assert reached == pytest.approx(best_at(angle), abs=1e-12)
        assert all(best_at(angle + step) < reached for step in (-1e-3, 1e-3))


def polar(M: np.ndarray) -> tuple[np.ndarray, float]:
    """The polar factor of what M does not take to nothing, and its nuclear norm."""
    X, s, Yt = np.linalg.svd(M)
    kept = s > 1e-9
    return X[:, kept] @ Yt[kept, :], float(s[kept].sum())


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_polar_factors_of_columns_that_depend_on_each_other(lost: int, rng: np.random.Generator) -> None:
    q, j, p = 20, 4, 3
    for _ in range(5):
        X = haar(q, 1, rng)[0]
        B = np.zeros((q, q))
        B[:, p:] = 0.6 * X[:, p:] @ haar(q - p, 1, rng)[0]
        V = X[:, : p - lost] @ rng.normal(size=(p - lost, j)) / 3  # within the null space of Bᵀ
        G = haar(j, 1, rng)[0][:, :p]
        M = B.copy()
        M[:, :p] = V @ G
        W, norm = polar(M)
        R, rise = varying_polar.VaryingPolar(B, V, np.linalg.svd)(G)
        np.testing.assert_allclose(R, W[:, :p].T @ V, atol=1e-7 if lost else 1e-13)
        assert rise == pytest.approx(norm - polar(B)[1], abs=1e-7 if lost else 1e-13)
    B = np.diag([0.0, 0.0, 0.8])  # and exactly: e1 / 2 twice
    V = np.outer([0.5, 0, 0], [1.0, 1.0])
    R, rise = varying_polar.VaryingPolar(B, V, np.linalg.svd)(np.eye(2))
    np.testing.assert_allclose(R, np.full((2, 2), math.sqrt(2) / 4), atol=1e-7)
    assert rise == pytest.approx(math.sqrt(0.5), abs=1e-7)


def test_varying_polar_pays_for_few_columns_of_many() -> None:
    cases = {(32, 2): True, (31, 2): False, (32, 0): False, (8192, 256): False}  # the last: 460 MB of moments
    assert {case: varying_polar.pays(*case) for case in cases} == cases


@pytest.mark.parametrize("n", [7, 40])
def test_a_climb_that_is_cut_off_ends_where_it_was(
    n: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks, clusters = [0, 1, 3, n], [0, 1, 2, n]
    for _ in range(20):
        M, reached = haar(n, 1, rng)[0], []
        for most in range(1, 14):
            monkeypatch.setattr(gauge, "MAX_SWEEPS", most)
            GH = gauge.nearest(M, blocks, clusters).GH
            np.testing.assert_allclose(GH @ GH.T, np.eye(n), atol=1e-12)
            reached.append(float(np.sum(GH * M)))
        assert all(later >= earlier - 1e-12 for earlier, later in itertools.pairwise(reached))


def test_clusters() -> None:
    values = np.array([5.0, 3.0, 3.0 - 1e-9, 1.0, 0.0, 0.0])
    assert gauge.clusters_of(values, 1e-8) == [0, 1, 3, 4, 6]
    assert gauge.clusters_of(values, 0.0) == [0, 1, 2, 3, 4, 6]
    assert gauge.clusters_of(np.array([2.0]), 0.0) == [0, 1]
    assert gauge.clusters_of(np.array([]), 0.0) == [0]


def test_a_rank_cut_leaves_the_rest_to_the_gauge(rng: np.random.Generator) -> None:
    C, U, _ = planted("distinct", rng)
    whole, cut = descramble(C), descramble(C, rank=3)
    assert cut["bound"] < whole["optimum"]
    assert cut["cost"] > whole["optimum"] * (1 + 1e-6)
    assert np.trace(cut["P"]) > np.trace(whole["P"])
    # the first three directions go where they went, up to the gauge of their blocks: block 2 is cut in two
    T = fb.penalty_basis(FOURIER, 6)
    rows = T[:, :3].T @ cut["P"]
    np.testing.assert_allclose(rows.T @ rows, U[:, :3] @ U[:, :3].T, atol=1e-12)
    C6 = descramble(C, rank=6)
    np.testing.assert_array_equal(C6["P"], whole["P"])


def test_ties_do_not_move_under_rounding(rng: np.random.Generator) -> None:
    # a null space of 59: its computed eigenvalues differ by rounding, and P must not
    Y = rng.standard_normal((5, 64))
    C = Y.T @ Y / 5
    P = descramble(C)["P"]
    again = descramble((Q := np.diag(rng.choice([-1.0, 1.0], 64))) @ C @ Q, gauge="given", P0=Q)["P"] @ Q
    assert np.abs(P @ P.T - np.eye(64)).max() < 1e-13
    # the reference is turned along with the data: so is the answer
    np.testing.assert_allclose(again, P, atol=1e-6)


@settings(derandomize=True, deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from(sorted(SPECTRA)))
def test_turning_data_and_reference_turns_p(seed: int, name: str) -> None:
    rng = np.random.default_rng(seed)
    C, _, _ = planted(name, rng)
    P0, Q = haar(6, 1, rng)[0], haar(6, 1, rng)[0]
    one = descramble(C, gauge="given", P0=P0)
    other = descramble((Q @ C @ Q.T + (Q @ C @ Q.T).T) / 2, gauge="given", P0=P0 @ Q.T)
    assert other["optimum"] == pytest.approx(one["optimum"], abs=1e-10)
    assert np.sum(other["P"] @ Q * P0) == pytest.approx(np.sum(one["P"] * P0), abs=1e-9)
    if one["gauge_conditioning"] > 1e-2 and name != "zero":
        np.testing.assert_allclose(other["P"] @ Q, one["P"], atol=1e-6)


@pytest.mark.parametrize(
    "P0", [np.eye(5), np.ones((6, 6)), np.eye(6) * (1 + 1e-5), np.full((6, 6), np.nan), np.ones(6), None]
)
def test_references_that_are_none(P0: Any) -> None:
    with pytest.raises(InvalidArgument) as error:
        descramble(np.eye(6), gauge="given", P0=P0)
    assert error.value.argument == "P0"
