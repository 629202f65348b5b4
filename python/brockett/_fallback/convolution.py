"""Spectra of convolutions over any array namespace: the transfer matrices of the periodic operator, one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import array_namespace, device

from .._errors import InvalidArgument
from ._arrays import Array, check_magnitude, check_matrix, exponent, float64, max_abs, shift, to_device, to_host

Pair = tuple[int, int]


def operator_singular_values(K: Array, kernel: Pair, grid: Pair, stride: Pair, groups: int, top: int) -> dict[str, Any]:
    """Singular values of the periodic convolution with K (out, in / groups · k₁ k₂), unfolded; `top` of them or all.

    A stride makes an input channel s₁ s₂ channels, one for each residue of the positions, over the grid n / s. There
    the operator falls apart into H(f) = Σ_q K_q exp(-i f·q), and the frequencies f and -f have conjugate matrices.
    """
    check_matrix("K", K)
    taps, out = kernel[0] * kernel[1], K.shape[0]
    _check(kernel, grid, stride, groups, top, out, K.shape[1])
    xp, place = array_namespace(K), device(K)
    e = exponent(max_abs(K))
    W = xp.reshape(shift(float64(K), -e), (groups, out // groups, K.shape[1] // taps, taps))
    values = []
    half = _half_of_frequencies((grid[0] // stride[0], grid[1] // stride[1]))
    for row, column, copies in half:
        phases = []
        for phase in np.ndindex(*stride):
            wave = np.zeros(taps, dtype=np.complex128)
            for t, tap in enumerate(np.ndindex(*kernel)):
                at = [i % n for i, n in zip(tap, grid, strict=True)]
                if all(i % s == p for i, s, p in zip(at, stride, phase, strict=True)):
                    # at = phase + stride q: the angle 2π f·q / (n / s), whole turns taken off first
                    turns = [
                        f * (i // s) % (n // s) / (n // s)
                        for f, i, s, n in zip((row, column), at, stride, grid, strict=True)
                    ]
                    wave[t] = np.exp(-2j * np.pi * sum(turns))
            phases.append(wave)
        waves = to_device(np.stack(phases, axis=1), xp, place)  # (taps, phases)
        H = xp.matmul(xp.astype(W, xp.complex128), waves)  # (groups, out, in, phases)
        H = xp.reshape(H, (groups, out // groups, -1))
        s = to_host(xp.linalg.svdvals(H)).ravel()
        values.extend([s] * copies)
    found = np.sort(np.concatenate(values))[::-1] * 2.0**e
    n = groups * len(half)
    return {"values": found[:top].copy() if top else found.copy(), "n_transfer": n, "n_solved": n}


def channel_gram(W: Array) -> Array:
    """W Wᵀ in float64."""
    check_matrix("K", W)
    check_magnitude("K", max_abs(W))
    W = float64(W)
    return W @ array_namespace(W).matrix_transpose(W)


def _half_of_frequencies(grid: Pair) -> list[tuple[int, int, int]]:
    """One of each pair f, -f, and how many of the two there are."""
    half = []
    for j in range(grid[1] // 2 + 1):
        own = 2 * j in (0, grid[1])
        for i in range(grid[0] // 2 + 1 if own else grid[0]):
            half.append((i, j, 1 if own and 2 * i in (0, grid[0]) else 2))
    return half


def _check(kernel: Pair, grid: Pair, stride: Pair, groups: int, top: int, out: int, width: int) -> None:
    for n, s in zip(grid, stride, strict=True):
        if n < 1:
            raise InvalidArgument("input_shape", f"must be at least 1, is {n}")
        if s < 1 or n % s:
            raise InvalidArgument("stride", f"must divide the grid: {s} does not divide {n}")
    if groups < 1 or out % groups:
        raise InvalidArgument("groups", f"{groups} do not divide {out} output channels")
    if min(kernel) < 1 or width % (kernel[0] * kernel[1]):
        raise InvalidArgument("K", "rows do not fit the size of the kernel")
    if top < 0:
        raise InvalidArgument("top", f"must be at least 0, is {top}")
