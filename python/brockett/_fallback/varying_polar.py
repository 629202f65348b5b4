"""The polar factor of [V G, B], of which a few columns vary with G, by what one SVD of B tells about all G.

polar(M) = M (Mᵀ M)^(-1/2) = 2/π ∫ M (Mᵀ M + t²)⁻¹ dt over t > 0. With B Bᵀ = X S² Xᵀ, D = Xᵀ V, w = 1/(S² + t²) and
A(t) = Dᵀ diag(w) D, the varying columns of M (Mᵀ M + t²)⁻¹ are X diag(w) D G N⁻¹, N = I + Gᵀ A G. That is
analytic in log t in a strip of width π, where the trapezoidal rule of step h errs by exp(-π²/h) (Trefethen, Weideman,
SIAM Review 56 (2014) 385).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ._arrays import Host

#: exp(-π²/h) = 7e-18; beyond the ends there is less than exp(-40), and exp(-70) over the smallest singular value.
STEP, FIRST, NODES = 0.25, -70.0, 441
#: Where columns of V G depend on each other in the null space of B, N (up to 1/t²) is singular but for rounding. What
#: is below this share of the terms that it is the sum of is nothing else: taken as this share, it leaves an error of
#: order t.
RESOLVED = 1e-14


def pays(q: int, j: int) -> bool:
    """Where it is cheaper than some SVDs of order q, and its moments are few."""
    return 0 < j <= 64 and 16 * j <= q


class VaryingPolar:
    """B (q, q) with zeros in place of the p columns that vary, V (q, j), all of norms about 1."""

    def __init__(self, B: Host, V: Host, svd: Callable[[Host], tuple[Host, Host, Host]]) -> None:
        X, s, _ = svd(B)
        D = X.T @ V
        self.t = np.exp(FIRST + STEP * np.arange(NODES))
        w = 1 / (s**2 + self.t[:, None] ** 2)
        q, j = D.shape
        products = (D[:, :, None] * D[:, None, :]).reshape(q, j * j)
        self.first, self.second = ((power @ products).reshape(NODES, j, j) for power in (w, w**2))

    def __call__(self, G: Host) -> tuple[Host, float]:
        """(The columns of the polar factor that vary with G (j, p))ᵀ V; the nuclear norm of [V G, B] less that of B.

        To rounding; to about 1e-7 where [V G, B] is singular.
        """
        weight = 2 / np.pi * STEP * self.t  # dt = t d(log t)
        E = G.T @ self.first
        sizes = np.sqrt(np.diagonal(self.first, axis1=1, axis2=2)) @ np.abs(G)
        scale = 1 / np.sqrt(1 + sizes**2)
        N = (np.eye(G.shape[1]) + E @ G) * scale[:, :, None] * scale[:, None, :]
        values, vectors = np.linalg.eigh(N)
        root = scale[:, :, None] * vectors / np.sqrt(np.maximum(values, RESOLVED))[:, None, :]
        inverse = root @ root.transpose(0, 2, 1)
        # the nuclear norm is 1/π ∫ log det N dt above that of B, by parts
        traces = np.einsum("kab,kba->k", inverse, G.T @ self.second @ G)
        return np.tensordot(weight, inverse @ E, axes=1), float(np.sum(weight * self.t**2 * traces))
