"""The iterative descrambler of the PNAS paper (doi 10.1073/pnas.2016917118), for comparison.

P = (I + Q)⁻¹ (I - Q) with an antisymmetric Q (Cayley), its strict upper triangle q found by L-BFGS from q = 0. Costs
and gradients in float64; C and A are scaled to spectral norm 1, as the method asks for. The gradient follows from
dP = -(I + Q)⁻¹ dQ (I + P): with M = (I + P) Gᵀ (I + Q)⁻¹, G = 2 A P C, it is (M - Mᵀ)_ij in each q_ij, i < j.
"""

from __future__ import annotations

import contextlib

import numpy as np


class _Reached(Exception):
    pass


def cayley_lbfgs(C: np.ndarray, A: np.ndarray, optimum: float, target: float, max_evaluations: int) -> dict[str, float]:
    """Minimise tr(A P C Pᵀ) until it is within `target` of the known optimum.

    Returns
    -------
    dict
        excess: best cost / optimum - 1 reached; evaluations: of cost and gradient. The Gram matrix C is given, its
        cost is not counted.
    """
    from scipy.linalg import lu_factor, lu_solve
    from scipy.optimize import minimize

    n = C.shape[0]
    scale_a, scale_c = np.linalg.norm(A, 2), np.linalg.norm(C, 2)
    A, C = A / scale_a, C / scale_c
    upper = np.triu_indices(n, 1)
    eye = np.eye(n)
    best, evaluations = np.inf, 0

    def cost(q: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal best, evaluations
        Q = np.zeros((n, n))
        Q[upper] = q
        Q -= Q.T
        lu = lu_factor(eye + Q)
        P = lu_solve(lu, eye - Q)
        G = 2 * A @ P @ C
        value = 0.5 * np.sum(G * P)
        evaluations += 1
        best = min(best, value * scale_a * scale_c)
        if best <= (1 + target) * optimum or evaluations >= max_evaluations:
            raise _Reached
        Mt = lu_solve(lu, G @ (eye + P).T, trans=1)
        return value, (Mt.T - Mt)[upper]

    options = {"maxcor": 20, "maxiter": 10**9, "maxfun": 10**9, "ftol": 0, "gtol": 0}
    with contextlib.suppress(_Reached):
        minimize(cost, np.zeros(n * (n - 1) // 2), jac=True, method="L-BFGS-B", options=options)
    return {"excess": best / optimum - 1, "evaluations": float(evaluations)}
