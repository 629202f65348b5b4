"""Truncated decompositions that `accelerate` stands in for: scipy.sparse.linalg.svds, scikit-learn's randomized_svd."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import _accelerate_kernels as kernels
from . import _svd
from ._accelerate_limits import check_worth
from ._accelerate_scope import Left, Options
from ._accelerate_torch import seed_of
from ._errors import BrockettError

#: svds: dense matrices of at least as many bytes are taken. ARPACK reads the matrix twice for each vector: as long as a
#: cache holds it, that costs no more than blocks do (Zen 4: level at 4 to 8 MB, 2.1 to 2.6 times as long from 9 MB on).
#: Sparse matrices are small in that sense (0.4 to 0.8 times ARPACK's speed at 10⁵ entries), operators are not known.
LEAST_BYTES = 8 << 20

#: randomized_svd: with fewer iterations subspace iteration is as cheap; for blocks of WIDE columns with one more.
LEAST_STEPS, WIDE = 3, 48

#: The residual over s₁ that svds asks of block Krylov where the caller asks for rounding (tol = 0).
REACH = {"float32": 5e-7, "float64": 1e-13}


class _Operator:
    """A sparse matrix as what `svd` calls an operator."""

    def __init__(self, A: Any) -> None:
        self.shape = tuple(A.shape)
        self.dtype = np.dtype(A.dtype)
        rows = A.tocsr() if A.format not in ("csr", "csc") else A
        self.matmat = rows.__matmul__
        self.rmatmat = rows.T.__matmul__


def svds(
    options: Options,
    A: Any,
    k: Any = 6,
    ncv: Any = None,
    tol: Any = 0,
    which: Any = "LM",
    v0: Any = None,
    maxiter: Any = None,
    return_singular_vectors: Any = True,
    solver: Any = "arpack",
    rng: Any = None,
    *,
    random_state: Any = None,
) -> Any:
    """scipy.sparse.linalg.svds for the largest values by ARPACK; ascending, as ARPACK's come."""
    if random_state is not None:
        if rng is not None:
            raise Left("arguments")
        rng = random_state
    if which != "LM":
        raise Left(f"which={which!r}")
    if solver != "arpack":
        raise Left(f"solver={solver!r}")
    if ncv is not None or maxiter is not None:
        raise Left("ncv or maxiter")
    if not isinstance(return_singular_vectors, bool) and return_singular_vectors not in ("u", "vh"):
        raise Left("arguments")
    matrix, dtype = _taken(options, A)
    side = min(matrix.shape)
    if not isinstance(k, int | np.integer) or not 0 < k < side:
        raise Left("arguments")
    if not isinstance(tol, int | float | np.number) or not 0 <= float(tol) < math.inf:
        raise Left("arguments")
    if v0 is not None:
        start = np.atleast_1d(v0)
        if start.dtype.kind != "f" or start.shape != (side,):
            raise Left("v0")
    # ARPACK is given tol² for the eigenvalues of AᵀA, and that is its residual over the value.
    wanted = max(float(tol) ** 2, REACH[dtype])
    draw = _draws_normals(rng) if v0 is None else None
    found = _svd.svd(matrix, rank=int(k), tol=wanted)
    if draw is not None:
        draw(side)
    s = found.s[::-1].astype(dtype)
    if return_singular_vectors is False:
        return s
    U = np.ascontiguousarray(found.U[:, ::-1]) if return_singular_vectors != "vh" else None
    Vt = np.ascontiguousarray(found.Vt[::-1]) if return_singular_vectors != "u" else None
    return U, s, Vt


def _draws_normals(rng: Any) -> Any:
    """What advances the caller's generator as drawing ARPACK's start vector would; None where nobody sees it."""
    if rng is None or isinstance(rng, int | np.integer):
        return None
    if isinstance(rng, np.random.Generator):
        return rng.standard_normal
    if isinstance(rng, np.random.RandomState):
        return np.random.default_rng(rng).standard_normal
    raise Left("arguments")


def _taken(options: Options, A: Any) -> tuple[Any, str]:
    """The array or operator, and its dtype."""
    import scipy.sparse
    import scipy.sparse.linalg

    sparse = bool(scipy.sparse.issparse(A))
    if type(A) is not np.ndarray and not sparse and not isinstance(A, scipy.sparse.linalg.LinearOperator):
        raise Left("type")
    if A.dtype not in (np.float32, np.float64) or not np.dtype(A.dtype).isnative:
        raise Left(f"dtype {A.dtype}")
    if len(A.shape) != 2 or min(A.shape) < 1:
        raise Left("shape")
    if options.min_size is not None:
        small = min(A.shape) < options.min_size
    else:
        if type(A) is not np.ndarray:
            raise Left("sparse or an operator: not faster")
        small = A.nbytes < LEAST_BYTES
    if small:
        raise Left("small")
    return _Operator(A) if sparse else A, np.dtype(A.dtype).name


def randomized_svd(
    options: Options,
    M: Any,
    n_components: Any,
    *,
    n_oversamples: Any = 10,
    n_iter: Any = "auto",
    power_iteration_normalizer: Any = "auto",
    transpose: Any = "auto",
    flip_sign: Any = True,
    random_state: Any = None,
    svd_lapack_driver: Any = "gesdd",
) -> Any:
    """sklearn.utils.extmath.randomized_svd. Its sign rule looks at U on either side that it works on."""
    import scipy.sparse
    from sklearn.utils import check_random_state

    sparse = bool(scipy.sparse.issparse(M))
    if type(M) is not np.ndarray and not sparse:
        raise Left("type")
    if M.dtype not in (np.float32, np.float64):
        raise Left(f"dtype {M.dtype}")
    if M.ndim != 2 or min(M.shape) < 1:
        raise Left("shape")
    if sparse and M.format in ("lil", "dok"):
        raise Left("format")  # warned of by the original
    counts = (n_components, n_oversamples)
    if not all(isinstance(count, int | np.integer) and count >= 0 for count in counts) or n_components < 1:
        raise Left("arguments")
    side, width = min(M.shape), int(n_components) + int(n_oversamples)
    if n_iter == "auto":
        steps = 7 if n_components < 0.1 * side else 4
    elif isinstance(n_iter, int | np.integer) and n_iter >= 0:
        steps = int(n_iter)
    else:
        raise Left("arguments")
    if power_iteration_normalizer not in ("auto", "QR", "LU", "none") or svd_lapack_driver not in ("gesdd", "gesvd"):
        raise Left("arguments")
    if transpose not in ("auto", True, False):
        raise Left("arguments")
    check_worth(options, "sklearn randomized_svd", M.shape)
    if sparse and options.min_size is None:
        raise Left("sparse: not faster")
    if steps < LEAST_STEPS + (width >= WIDE):
        raise Left("few iterations")
    if width >= side:
        raise Left("the whole space")
    fewer = kernels.krylov_steps(steps, width)
    turned = M.shape[0] < M.shape[1] if isinstance(transpose, str) else bool(transpose)
    # The block that the original would have drawn: the caller's generator is left in the state it would be in.
    generator = check_random_state(random_state)
    state = generator.get_state()
    seed = seed_of(generator.normal(size=(M.shape[0 if turned else 1], width)))
    try:
        if not sparse:
            U, s, Vt = kernels.low_rank(M, int(n_components), fewer, int(n_oversamples), seed)
        else:
            U, s, Vt = _svd.svd(
                _Operator(M),
                rank=int(n_components),
                method="quick",
                seed=seed,
                oversampling=int(n_oversamples),
                iterations=fewer,
            )
    except BrockettError:
        generator.set_state(state)  # the original draws again
        raise
    if flip_sign:
        from sklearn.utils.extmath import svd_flip

        U, Vt = svd_flip(U, Vt)
    return U, s.astype(M.dtype), Vt
