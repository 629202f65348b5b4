"""What the demo measures in a weight matrix. Each number has a null to be read against."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]


def structure(weight: npt.ArrayLike, share: float = 0.01) -> float:
    r"""Share of the 2-D DFT energy of a matrix that lies in its brightest cells.

    .. math:: \frac{\sum_{\text{top } k} |\hat W_{ab}|^2}{\sum_{ab} |\hat W_{ab}|^2},
              \qquad k = \lceil \text{share} \cdot n m \rceil

    It lies between ``share`` and 1; a Gaussian matrix of 256 x 256 has 0.056 at the default share of 1 %. It depends on
    the order and the mixing of both axes, unlike the spectrum along the input axis summed over rows, which P W shares
    with W for every orthogonal P. Cost: one FFT and a partial sort.
    """
    energy = np.abs(np.fft.fft2(np.asarray(weight, dtype=np.float64))).ravel() ** 2
    total = float(energy.sum())
    if total == 0.0:
        return 0.0
    k = max(1, int(np.ceil(share * energy.size)))
    return float(np.partition(energy, energy.size - k)[-k:].sum() / total)


def haar(n: int, rng: np.random.Generator) -> Float64:
    """Draw an orthogonal matrix (n, n) from the uniform (Haar) distribution: QR of a Gaussian matrix, signs from R."""
    q, r = np.linalg.qr(rng.standard_normal((n, n)))
    return np.asarray(q * np.where(np.diag(r) < 0.0, -1.0, 1.0))


def rotated_structure(weight: npt.ArrayLike, n_rotations: int, rng: np.random.Generator) -> float:
    """Mean :func:`structure` of Q W over random orthogonal Q: what rotating the outputs gives, without any data."""
    w = np.asarray(weight, dtype=np.float64)
    return float(np.mean([structure(haar(w.shape[0], rng) @ w) for _ in range(n_rotations)]))


def frequency_pairs(weight: npt.ArrayLike) -> Float64:
    """Energy of a matrix by output and input frequency, both 0..n//2: |FFT2|^2 with mirrored cells added up."""
    w = np.asarray(weight, dtype=np.float64)
    energy = np.abs(np.fft.fft2(w)) ** 2
    for axis in (0, 1):
        n = w.shape[axis]
        index = np.minimum(np.arange(n), n - np.arange(n))
        folded = np.zeros((n // 2 + 1, energy.shape[1 - axis]))
        np.add.at(folded, index, energy if axis == 0 else energy.T)
        energy = folded if axis == 0 else folded.T
    return np.asarray(energy)


def in_band_energy(weight: npt.ArrayLike, band: tuple[int, int]) -> Float64:
    """For each output frequency 0..n//2, the share of its energy at input frequencies inside ``band`` (ends included).

    A joint quantity: it changes with P. White weights give (number of band frequencies)/(n/2) everywhere.
    """
    energy = frequency_pairs(weight)
    total = energy.sum(axis=1)
    return np.asarray(energy[:, band[0] : band[1] + 1].sum(axis=1) / np.where(total > 0.0, total, 1.0))


def fourier_image(weight: npt.ArrayLike) -> npt.NDArray[np.complex128]:
    """Return F W F^H with F the unitary DFT, for a square W: diagonal if and only if W is circulant."""
    w = np.asarray(weight, dtype=np.float64)
    n, m = w.shape
    return np.asarray(np.fft.ifft(np.fft.fft(w, axis=0), axis=1) * np.sqrt(m / n))


def off_diagonal_energy(matrix: npt.ArrayLike) -> float:
    """Share of the squared magnitude of a square matrix that lies off its diagonal; (n-1)/n for white noise."""
    energy = np.abs(np.asarray(matrix)) ** 2
    total = float(energy.sum())
    return float(1.0 - np.trace(energy) / total) if total else 0.0


def chebyshev_energy(vectors: npt.ArrayLike, degree: int) -> Float64:
    """Share of the energy of each column that polynomials of at most ``degree`` explain, by least squares."""
    v = np.asarray(vectors, dtype=np.float64)
    basis = np.linalg.qr(np.polynomial.chebyshev.chebvander(np.linspace(-1.0, 1.0, v.shape[0]), degree))[0]
    return np.asarray(((basis.T @ v) ** 2).sum(axis=0) / (v**2).sum(axis=0))


def chebyshev_correlation(vectors: npt.ArrayLike) -> Float64:
    """|correlation| of column j with the Chebyshev polynomial T_j (the one-to-one match of the PNAS paper)."""
    v = np.asarray(vectors, dtype=np.float64)
    t = np.polynomial.chebyshev.chebvander(np.linspace(-1.0, 1.0, v.shape[0]), v.shape[1] - 1)
    return np.asarray(np.abs((t * v).sum(axis=0)) / (np.linalg.norm(t, axis=0) * np.linalg.norm(v, axis=0)))
