"""Philox4x32-10 of the fallback: known answers, and the same bits wherever a stretch of the stream starts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brockett import InvalidArgument
from brockett._fallback import normals, philox

SEEDS = st.integers(0, 2**64 - 1)


def reference(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x32-10 as its paper writes it, in Python's integers, for counters and keys of any value."""
    c, k, low = list(counter), list(key), 0xFFFFFFFF
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & low, (p0 >> 32) ^ c[3] ^ k[1], p0 & low]
        k = [(k[0] + 0x9E3779B9) & low, (k[1] + 0xBB67AE85) & low]
    return c


# from kat_vectors of Random123, by the authors of the paper
KNOWN = [
    ([0, 0, 0, 0], [0, 0], [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_the_reference_gives_the_known_answers(counter: list[int], key: list[int], words: list[int]) -> None:
    assert reference(counter, key) == words


def test_block_known_answer() -> None:
    assert philox.block(0, 0).tolist() == KNOWN[0][2]


@settings(derandomize=True, deadline=None, max_examples=50)
@given(SEEDS, st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4))
def test_block_is_the_reference(seed: int, counters: list[int]) -> None:
    words = philox.block(seed, np.array(counters, dtype=np.uint64))
    key = [seed & 0xFFFFFFFF, seed >> 32]
    assert words.tolist() == [reference([c & 0xFFFFFFFF, c >> 32, 0, 0], key) for c in counters]


# printed by a C++ program over csrc/src/philox.hpp: (seed, start), then numbers start and start + 1
UNIFORM = [
    (0, 0, "0x1.989fa35785a71p-2", "0x1.78af58993601cp-1"),
    (12345, 8589934597, "0x1.eb7d84eea664ep-3", "0x1.a7201240c20efp-2"),
    (2**64 - 1, 8589934597, "0x1.11a10d0a06b88p-5", "0x1.aee5bbd544e4cp-1"),
]
NORMAL = [
    (0, 0, "-0x1.f1bcd5498378cp-4", "-0x1.599bbd8a9eda8p+0"),
    (12345, 8589934597, "0x1.5b3df3a9e0d2ap+0", "0x1.c29e3fa4d2178p-1"),
    (2**64 - 1, 8589934597, "0x1.984f867707b01p-2", "0x1.83433cd5dfe47p-5"),
]


@pytest.mark.parametrize(("seed", "start", "first", "second"), UNIFORM)
def test_uniform_bits_of_the_compiled_core(seed: int, start: int, first: str, second: str) -> None:
    assert philox.uniform(seed, start, 2).tolist() == [float.fromhex(first), float.fromhex(second)]


@pytest.mark.parametrize(("seed", "start", "first", "second"), NORMAL)
def test_normal_bits_of_the_compiled_core(seed: int, start: int, first: str, second: str) -> None:
    assert philox.normal(seed, start, 2).tolist() == [float.fromhex(first), float.fromhex(second)]


@settings(derandomize=True, deadline=None, max_examples=50)
@given(SEEDS, st.integers(0, 9), st.integers(0, 12))
def test_any_stretch_of_the_stream(seed: int, start: int, count: int) -> None:
    for numbers in (philox.uniform, philox.normal):
        np.testing.assert_array_equal(numbers(seed, start, count), numbers(seed, 0, 30)[start : start + count])


def test_distribution() -> None:
    n = 100_000
    u, z = philox.uniform(7, 0, n), philox.normal(7, 0, n)
    assert u.min() > 0
    assert u.max() < 1
    # five standard deviations of the mean, and of the variance
    assert abs(u.mean() - 0.5) < 5 * np.sqrt(1 / 12 / n)
    assert abs(z.mean()) < 5 / np.sqrt(n)
    assert abs(z.var() - 1) < 5 * np.sqrt(2 / n)
    assert abs(np.corrcoef(z[0::2], z[1::2])[0, 1]) < 5 / np.sqrt(n / 2)


def test_normals_are_numbered_by_columns() -> None:
    A = normals(3, 4, 99)
    np.testing.assert_array_equal(A, philox.normal(99, 0, 12).reshape(4, 3).T)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seed_out_of_range(seed: int) -> None:
    with pytest.raises(InvalidArgument, match="seed"):
        philox.uniform(seed, 0, 1)
