"""Singular value decompositions with a measured residual."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import _arrays, _options
from ._arrays import Operand, Space
from ._autocorrelation import Autocorrelation
from ._errors import InvalidArgument, InvalidType

__all__ = [
    "Product",
    "SVDResult",
    "SingularValuesInfo",
    "WhitenedSVD",
    "randomized_svd",
    "singular_values",
    "svd",
    "whitened_svd",
]

SVD_METHODS = ("auto", "exact", "gram", "krylov", "quick")
VALUE_METHODS = ("auto", "gram", "exact")


@dataclass(frozen=True, eq=False)
class SVDResult:
    """A ≈ U diag(s) Vt; unpacks as ``U, s, Vt``.

    Attributes
    ----------
    U : array (…, m, r)
        Orthonormal columns, in the dtype of A.
    s : array (…, r), float64
        Descending.
    Vt : array (…, r, n)
        Orthonormal rows, in the dtype of A. The largest entry of each row is positive.
    residual : float or ndarray (…)
        max over i of max(‖A vᵢ - sᵢ uᵢ‖, ‖Aᵀ uᵢ - sᵢ vᵢ‖) / s₁, measured with the vectors returned; compiled engines
        take that of "quick" from the recurrence of its basis where it is the same to two hundredths. 0 for A = 0.
    method : str
        What ran: "exact", "gram", "krylov" or "quick"; for a batch all that ran, joined by commas.
    columns : int or ndarray of int (…)
        "krylov" and "quick": vectors that were multiplied by A and by Aᵀ; 0 for the others.
    """

    U: Any
    s: Any
    Vt: Any
    residual: Any
    method: str
    columns: Any = 0

    def __iter__(self) -> Iterator[Any]:
        return iter((self.U, self.s, self.Vt))

    @property
    def rank(self) -> int:
        """Number of triplets kept."""
        return int(self.s.shape[-1])


@dataclass(frozen=True, eq=False)
class SingularValuesInfo:
    """How far singular values can be trusted.

    Attributes
    ----------
    n_resolved : int or ndarray of int (…)
        Number of leading values that the method resolves; the rest are only known to be below the resolution (1e-7 s₁
        for "gram").
    unresolved : ndarray of bool (…, k)
        True for the rest.
    bound : float or ndarray (…)
        Rounding bound. "gram": |sᵢ² - exact²| ≤ bound s₁². "qr+gesdd": |sᵢ - exact| ≤ bound s₁.
    method : str
        What ran: "gram" or "qr+gesdd"; for a batch all that ran, joined by commas.
    """

    n_resolved: Any
    unresolved: Any
    bound: Any
    method: str


@dataclass(frozen=True, eq=False)
class WhitenedSVD:
    """W ≈ U projected, best in the norm ‖W‖_R² = tr(W R Wᵀ).

    Attributes
    ----------
    U : array (n, r)
        Left singular vectors of W R^(1/2), in the dtype of W.
    s : array (min(n, m),), float64
        All singular values of W R^(1/2), descending.
    projected : array (r, m)
        Uᵀ W, in the dtype of W.
    error : float
        ‖W - U Uᵀ W‖_R: the root mean square change of the outputs W x.
    """

    U: Any
    s: Any
    projected: Any
    error: float

    def matrix(self) -> Any:
        """The approximation itself.

        Returns
        -------
        W_r : array (n, m)
            U Uᵀ W.
        """
        return self.U @ self.projected


class Product:
    """The product of matrices F₁ F₂ …, which is never formed: P W, W R^(1/2) given a factor of R, layers in a row.

    Parameters
    ----------
    *factors : array_like (n_i, n_{i+1})
        Of one library and device; read, and neither copied nor changed, where they have one dtype. float32 beside
        float64 is widened to float64.

    Attributes
    ----------
    shape : tuple of int
        (rows of the first, columns of the last).
    dtype : numpy.dtype
        float32 or float64.

    Raises
    ------
    InvalidArgument
        No factor, one without two axes (named ``factors[i]``), or neighbours that do not fit.
    NonFinite
        A NaN or Inf in a factor, found when it is decomposed.
    InvalidType
        Factors of two libraries or devices.

    Notes
    -----
    A block of b columns costs 2 b flops for each entry of each factor.

    Examples
    --------
    >>> import numpy as np, brockett as bk
    >>> A = bk.Product(np.diag([1.0, 2.0, 3.0]), np.ones((3, 1)), np.ones((1, 4)))
    >>> A.shape, bk.svd(A, rank=1).s.round(12).tolist()  # 2 √14
    ((3, 4), [7.483314773548])
    """

    def __init__(self, *factors: Any) -> None:
        if not factors:
            raise InvalidArgument("factors", "expected at least one matrix")
        operands = [_arrays.matrix(_arrays.accept(factor, f"factors[{i}]")) for i, factor in enumerate(factors)]
        space = _arrays.common_space(*operands)
        operands = [_arrays.matrix(operand.in_space(space)) for operand in operands]
        dtype = "float64" if any(operand.dtype == "float64" for operand in operands) else "float32"
        if dtype == "float64":
            operands = [operand.as_float64() for operand in operands]
        for i, (before, after) in enumerate(itertools.pairwise(operands), 1):
            if before.shape[1] != after.shape[0]:
                raise InvalidArgument(
                    "factors",
                    f"factor {i} of shape {after.shape} does not fit the one before it, of shape {before.shape}",
                )
        self._factors = [operand.array for operand in operands]
        self._space = space
        self.shape: tuple[int, int] = (operands[0].shape[0], operands[-1].shape[1])
        self.dtype = np.dtype(dtype)


def svd(
    A: Any,
    rank: int | None = None,
    tol: float | None = None,
    frobenius_tol: float | None = None,
    method: str = "auto",
    seed: int = 0,
    *,
    oversampling: int = 10,
    iterations: int = 1,
    max_columns: int | None = None,
) -> SVDResult:
    """Singular value decomposition A = U diag(s) Vᵀ, full or truncated.

    Parameters
    ----------
    A : array_like (…, m, n), Product or linear operator (m, n)
        A matrix, or a batch of them along the leading axes. Or anything with `shape`, `dtype`, `matmat` and `rmatmat`
        that works on NumPy blocks, like SciPy's LinearOperator; or a `Product`. Of those nothing is formed.
    rank : int, optional
        Number of triplets kept, at most min(m, n); all of them by default. Needed for an operator, unless
        `frobenius_tol` is given.
    tol : float, optional
        Largest residual over s₁ that "krylov" and "auto" accept, 1e-6 by default. Raise it to 1e-4 where the error of
        the values, its square over their gaps, is all that counts (it saves a tenth of the time); lower it where small
        singular vectors matter. float32 data reach about 5e-7 (float64: 1e-15): pass float64 for less.
    frobenius_tol : float, optional
        Keep the smallest rank whose tail ‖A - A_r‖_F is at most this share of ‖A‖_F (and at most `rank`). For one
        matrix, not for a batch, whose ranks would differ.
    method : {"auto", "exact", "gram", "krylov", "quick"}, default "auto"
        "exact": LAPACK gesdd, and gesvd where that fails. "gram": eigenvectors of the smaller Gram matrix in float64.
        "krylov": block Lanczos with thick restarts, until the measured residual is at most `tol`. "quick": the same
        within a budget of products, whose error is whatever `residual` says. "auto" takes the cheapest of krylov, gram
        and exact by measured costs, and exact where the others miss `tol` and it is nearer; never "quick".
    seed : int, default 0
        Of the start block of "krylov" and "quick". The same seed starts from the same bits on every engine.
    oversampling : int, default 10
        "quick": see `iterations`.
    iterations : int, default 1
        "quick": (iterations + 1)(rank + oversampling) columns go through A and Aᵀ, as in so many subspace iterations.
        Raise it where `residual` is too large.
    max_columns : int, optional
        "krylov": columns through A and Aᵀ after which it gives up, 10 min(m, n) by default; whole blocks, and at
        least `rank`, are always done. Lower it to be told early.

    Returns
    -------
    result : SVDResult
        U, s, Vt, the measured residual and the method that ran. U and Vt in the dtype of A (float32 for half types,
        float64 for integers), s in float64; all in the library and on the device of A.

    Raises
    ------
    NonFinite
        A NaN or Inf in A; the index is that of the caller's array, batch axes included.
    InvalidArgument
        An unknown word, an empty array, a rank beyond min(m, n), an operator whose products have the wrong shape or are
        not finite. What an operator raises itself is passed on.
    NotConverged
        "krylov": `tol` was not reached, the message says what was. Else neither LAPACK driver converged.

    Notes
    -----
    From 4 m n min(m, n) flops for "exact"; 2 m n min(m, n) + 9 min(m, n)³ for "gram"; 4 m n for each column of
    "krylov", about 6 rank of them where the spectrum has a heavy tail, fewer where it falls fast. Memory beside A:
    "krylov" 3 rank + 128 vectors of the smaller side, for "quick" and a `tol` above 5e-5 (float64: 1e-13) as many of
    the larger one, six blocks of `rank` vectors of either side in float64, and one copy of A where it is wide in C
    order (or tall or square in Fortran order; of "quick" with less than min(m, n) / 4 columns only in Fortran order);
    "gram" 16 min(m, n)² bytes; "exact" three times A.
    C and Fortran order are not copied otherwise. Many small matrices, and the blocks of "krylov" and "quick", run on
    as many workers as `threads` says, other large ones on as many BLAS threads. Ctrl-C stops between blocks; one
    LAPACK call cannot be interrupted.

    Equal singular values: a block of b columns finds b of them. Where that many values that were found lie within tol,
    random columns are added until no more turn up.

    References
    ----------
    G. Golub, R. Underwood, Mathematical Software III (1977) 361; K. Wu, H. Simon, SIAM J. Matrix Anal. Appl. 22 (2000)
    602; C. Musco, C. Musco, NeurIPS 2015 (arXiv 1504.05477), for "krylov". W. Yu, Y. Gu, Y. Li, SIAM J. Matrix Anal.
    Appl. 39 (2018) 1339, for the tail that needs no small singular value.

    Examples
    --------
    >>> import numpy as np, brockett as bk
    >>> U, s, Vt = bk.svd(np.array([[0.0, 2.0], [1.0, 0.0]]))
    >>> s.round(12).tolist()
    [2.0, 1.0]
    >>> bk.svd(np.eye(3), rank=2).U.shape
    (3, 2)
    >>> A = np.random.default_rng(0).normal(size=(300, 200))
    >>> bk.svd(A, rank=5, method="krylov").residual <= 1e-6
    True
    """
    accepted = 1e-6 if tol is None else _options.number("tol", tol, least=0)
    tail = 0.0 if frobenius_tol is None else _options.number("frobenius_tol", frobenius_tol, least=0)
    word = _options.option("method", method, SVD_METHODS)
    rest = (
        _options.seed("seed", seed),
        _options.count("oversampling", oversampling),
        _options.count("iterations", iterations),
        "right",
        0 if max_columns is None else _options.count("max_columns", max_columns, least=1),
    )
    if isinstance(A, Product) or _is_operator(A):
        m, n = A.shape if isinstance(A, Product) else _operator_shape(A)
        arguments = (_rank(rank, min(m, n)), accepted, tail, word, *rest)
        if isinstance(A, Product):
            return _svd_of_product(A, arguments)
        return _svd_of_operator(A, (m, n), arguments)
    operand = _arrays.batch(_matrix_argument(A, "A"))
    m, n = operand.shape[-2:]
    kept = _rank(rank, min(m, n))
    if tail > 0 and operand.ndim > 2:
        raise InvalidArgument("frobenius_tol", f"serves one matrix, A is a batch of shape {operand.shape}")
    return _svd(operand, (kept, accepted, tail, word, *rest))


def _is_operator(A: Any) -> bool:
    return not hasattr(A, "__array__") and all(hasattr(A, name) for name in ("shape", "dtype", "matmat", "rmatmat"))


def _operator_shape(A: Any) -> tuple[int, int]:
    shape = tuple(A.shape)
    if len(shape) != 2 or min(shape) < 1:
        raise InvalidArgument("A", f"expected an operator of shape (m, n), none of them 0, got {shape}")
    return int(shape[0]), int(shape[1])


def _svd_of_operator(A: Any, shape: tuple[int, int], arguments: tuple[Any, ...]) -> SVDResult:
    dtype = np.dtype(A.dtype) if A.dtype is not None else np.dtype(np.float64)
    if dtype.kind not in "fiub":
        raise InvalidType("A", f"expected an operator of real numbers, got dtype {dtype}")
    single = dtype.kind == "f" and dtype.itemsize <= 4
    module = _arrays.HOST.engine("A").module
    found = module.svd_operator(*shape, "float32" if single else "float64", A.matmat, A.rmatmat, *arguments)
    return _result(found, _arrays.HOST)


def _svd_of_product(A: Product, arguments: tuple[Any, ...]) -> SVDResult:
    space = A._space
    if space.where == "host":  # the fallback looks at arrays elsewhere
        for i, factor in enumerate(A._factors):
            _arrays.check_finite_host(f"factors[{i}]", factor)
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            found = space.engine("factors").module.svd_product(A._factors, *arguments)
    except InvalidArgument as error:
        if space.where != "host" or "holds NaN or Inf" not in error.message:
            raise
        # Each factor is finite, as was just seen.
        wider = ", or pass one in float64" if A.dtype == np.float32 else ""
        message = f"their product leaves the range of {A.dtype}: rescale them{wider}"
        raise InvalidArgument("factors", message) from None
    return _result(found, space)


def _result(found: dict[str, Any], space: Space) -> SVDResult:
    U, s, Vt = (space.back(found[part]) for part in ("U", "s", "Vt"))
    return SVDResult(U, s, Vt, found["residual"], found["method"], found["columns"])


def _svd(operand: Operand, arguments: tuple[Any, ...]) -> SVDResult:
    space, module = operand.space, operand.space.engine(operand.argument).module
    if operand.ndim == 2:
        one = operand.with_array(operand.array[0, ...])
        with _arrays.user_errors(one, rename={"A": operand.argument}):
            found = module.svd(one.array, *arguments)
        return _result(found, space)
    with _arrays.user_errors(operand, rename={"A": operand.argument}):
        results = module.svd_batch(operand.array, *arguments)
    lead = operand.shape[:-2]
    return SVDResult(
        _stack([one["U"] for one in results], lead, space),
        _stack([one["s"] for one in results], lead, space),
        _stack([one["Vt"] for one in results], lead, space),
        np.array([one["residual"] for one in results]).reshape(lead),
        _joined(results),
        np.array([one["columns"] for one in results]).reshape(lead),
    )


def singular_values(A: Any, return_info: bool = False, method: str = "auto") -> Any:
    """All singular values of A, largest first.

    Parameters
    ----------
    A : array_like (…, m, n)
        A matrix, or a batch of them along the leading axes.
    return_info : bool, default False
        Also return which values are resolved, and the error bound.
    method : {"auto", "gram", "exact"}, default "auto"
        "gram": float64 Gram matrix and a values-only eigensolver; for float32 data faster than LAPACK's SVD and more
        accurate, but values below 1e-7 s₁ are not resolved. "exact": QR to a square matrix and values-only gesdd.
        "auto": "gram" for float32 and half types, and for float64 where it is accurate to 1e-12; "exact" otherwise.

    Returns
    -------
    s : array (…, min(m, n)), float64
        Descending, in the library and on the device of A.
    info : SingularValuesInfo
        Only with `return_info`.

    Raises
    ------
    NonFinite, InvalidArgument, InvalidType, NotConverged
        As `svd`.

    Notes
    -----
    m n min(m, n) + 4/3 min(m, n)³ flops for "gram", twice to four times that for "exact". The Gram matrix is that of
    the smaller side, summed over pieces of A: beside A there are its 8 min(m, n)² bytes and 32 MB, for each worker of a
    batch.

    Examples
    --------
    >>> import numpy as np, brockett as bk
    >>> bk.singular_values(np.array([[3.0, 0.0], [4.0, 5.0]])).round(12).tolist()
    [6.708203932499, 2.2360679775]
    >>> s, info = bk.singular_values(np.ones((2, 2), np.float32), return_info=True)
    >>> int(info.n_resolved), info.unresolved.tolist()
    (1, [False, True])
    """
    operand = _arrays.batch(_matrix_argument(A, "A"))
    word = _options.option("method", method, VALUE_METHODS)
    wanted = _options.flag("return_info", return_info)
    space, module = operand.space, operand.space.engine("A").module
    if operand.ndim == 2:
        one = operand.with_array(operand.array[0, ...])
        with _arrays.user_errors(one):
            found = module.singular_values(one.array, word)
        values = space.back(found["values"])
        info = _info([found], ())
    else:
        with _arrays.user_errors(operand):
            results = module.singular_values_batch(operand.array, word)
        values = _stack([one["values"] for one in results], operand.shape[:-2], space)
        info = _info(results, operand.shape[:-2])
    return (values, info) if wanted else values


def _info(results: list[dict[str, Any]], lead: tuple[int, ...]) -> SingularValuesInfo:
    resolved = np.array([one["n_resolved"] for one in results]).reshape(lead)
    bound = np.array([one["bound"] for one in results], dtype=np.float64).reshape(lead)
    k = len(results[0]["values"])
    unresolved = np.arange(k) >= resolved[..., np.newaxis]
    if not lead:
        return SingularValuesInfo(int(resolved), unresolved, float(bound), _joined(results))
    return SingularValuesInfo(resolved, unresolved, bound, _joined(results))


def whitened_svd(W: Any, R: Any, rank: int | None = None) -> WhitenedSVD:
    """Best approximation of rank r of a layer, in the norm of its inputs: ‖W‖_R² = tr(W R Wᵀ) = E‖W x‖².

    Parameters
    ----------
    W : array_like (n, m) or (n, in, k…)
        Weights; those of convolutions are unfolded to (n, in k…).
    R : array_like (m, m) or Autocorrelation
        E[x xᵀ] of the inputs: symmetric positive semidefinite, singular allowed.
    rank : int, optional
        r, at most min(n, m), which is the default.

    Returns
    -------
    result : WhitenedSVD
        W_r = U Uᵀ W with U the leading left singular vectors of W R^(1/2), as its two factors; the singular values; the
        error, which is the square root of the sum of the s² left out.

    Raises
    ------
    InvalidArgument
        R is not symmetric, not positive semidefinite, or does not fit W; the magnitudes of W have squares that leave
        float64.
    NonFinite, InvalidType, NotConverged
        As `svd`.

    Notes
    -----
    2 n m² + n² m + 9 n³ flops for n ≤ m; a tall W = Q F goes by its QR factorization to the smaller side, 6 n m² +
    11 m³.

    References
    ----------
    C. Eckart, G. Young, Psychometrika 1 (1936) 211, applied to W R^(1/2).

    Examples
    --------
    >>> import numpy as np, brockett as bk
    >>> W = np.diag([1.0, 2.0])
    >>> best = bk.whitened_svd(W, np.diag([9.0, 1.0]), rank=1)  # the small weight carries the larger signal
    >>> best.matrix().round(12).tolist(), round(best.error, 12)
    ([[1.0, 0.0], [0.0, 0.0]], 2.0)
    """
    weights = _arrays.unfolded(_matrix_argument(W, "W"))
    n, m = weights.array.shape
    kept = _rank(rank, min(n, m))
    if isinstance(R, Autocorrelation):
        if R.n_features != m:
            raise InvalidArgument("R", f"is of {R.n_features} features, W takes {m}")
        moments = _arrays.accept(R.matrix(), "R")
        # An accumulator's library says where its samples were, not what its matrix may be used with.
        moments = _arrays.in_library_of(moments, weights.space)
        space = _arrays.common_space(weights, moments)
    else:
        moments = _arrays.accept(R, "R")
        space = _arrays.common_space(weights, moments)
        if moments.shape != (m, m):
            raise InvalidArgument("R", f"expected shape ({m}, {m}) to fit W, got {moments.shape}")
    weights, moments = weights.in_space(space), _arrays.matrix(moments.in_space(space)).as_float64()
    with _arrays.user_errors(weights, moments):
        found = space.engine("W").module.whitened_svd(weights.array, moments.array, kept)
    return WhitenedSVD(
        space.back(found["U"]), space.back(found["s"]), space.back(found["projected"]), float(found["error"])
    )


def randomized_svd(
    M: Any,
    n_components: int,
    *,
    n_oversamples: int = 10,
    n_iter: int | str = "auto",
    power_iteration_normalizer: str = "auto",
    transpose: bool | str = "auto",
    flip_sign: bool = True,
    random_state: Any = None,
    svd_lapack_driver: str = "gesdd",
) -> tuple[Any, Any, Any]:
    """Truncated randomized SVD with the signature and the sign rule of scikit-learn's function of this name.

    Block Krylov in place of subspace iteration: the same products with M make a larger space, whose error is smaller.

    Parameters
    ----------
    M : array_like (m, n)
        A dense matrix.
    n_components : int
        Number of triplets; beyond min(m, n) there are none.
    n_oversamples : int, default 10
        See `n_iter`.
    n_iter : int or "auto", default "auto"
        (n_iter + 1)(n_components + n_oversamples) columns go through M and its transpose at most, as in so many
        subspace iterations; fewer where rounding is reached before. "auto" is 7 where n_components < 0.1 min(m, n),
        4 otherwise.
    power_iteration_normalizer : {"auto", "QR", "LU", "none"}, default "auto"
        Taken for compatibility: every block is orthogonalized here, which is never less accurate.
    transpose : bool or "auto", default "auto"
        Taken for compatibility: the cheaper side is always the one iterated on.
    flip_sign : bool, default True
        The largest entry of each column of U is made positive. False leaves brockett's own rule (rows of Vt).
    random_state : int, RandomState, Generator or None, default None
        None draws a seed from NumPy's global generator. An int gives the same bits on every engine (not those of
        scikit-learn, whose generator is another).
    svd_lapack_driver : {"gesdd", "gesvd"}, default "gesdd"
        Taken for compatibility: gesvd is tried where gesdd fails.

    Returns
    -------
    U : array (m, n_components)
    s : array (n_components,), float64
    Vt : array (n_components, n)

    Raises
    ------
    NonFinite, InvalidArgument, InvalidType, NotConverged
        As `svd`.

    Notes
    -----
    4 m n (n_components + n_oversamples) flops an iteration. `svd` with method="quick" is the same algorithm and also
    tells its residual; with method="krylov" it is told which residual to reach.

    References
    ----------
    N. Halko, P. G. Martinsson, J. A. Tropp, SIAM Review 53 (2011) 217. C. Musco, C. Musco, NeurIPS 2015.

    Examples
    --------
    >>> import numpy as np, brockett as bk
    >>> U, s, Vt = bk.randomized_svd(np.diag([3.0, 2.0, 1.0]), 2, random_state=0)
    >>> s.round(6).tolist(), U.shape, Vt.shape
    ([3.0, 2.0], (3, 2), (2, 3))
    """
    operand = _matrix_argument(M, "M")
    if operand.ndim != 2:
        raise InvalidArgument("M", f"expected a matrix (2 axes), got shape {operand.shape}")
    operand = _arrays.batch(operand)
    least = min(operand.shape)
    components = _options.count("n_components", n_components, least=1)
    if isinstance(n_iter, str):
        _options.option("n_iter", n_iter, ("auto",))
        steps = 7 if components < 0.1 * least else 4
    else:
        steps = _options.count("n_iter", n_iter)
    _options.option("power_iteration_normalizer", power_iteration_normalizer, ("auto", "QR", "LU", "none"))
    if isinstance(transpose, str):
        _options.option("transpose", transpose, ("auto",))
    else:
        _options.flag("transpose", transpose)
    _options.option("svd_lapack_driver", svd_lapack_driver, ("gesdd", "gesvd"))
    arguments = (
        min(components, least),
        0.0,
        0.0,
        "quick",
        _seed_of(random_state),
        _options.count("n_oversamples", n_oversamples),
        steps,
        "left" if _options.flag("flip_sign", flip_sign) else "right",
        0,
    )
    U, s, Vt = _svd(operand, arguments)
    return U, s, Vt


def _seed_of(state: Any) -> int:
    if state is None:
        # scikit-learn's users seed NumPy's global generator.
        return int(np.random.randint(0, 2**31 - 1))  # noqa: NPY002
    if isinstance(state, np.random.RandomState):
        return int(state.randint(0, 2**31 - 1))
    if isinstance(state, np.random.Generator):
        return int(state.integers(0, 2**63))
    return _options.seed("random_state", state)


def _matrix_argument(A: Any, argument: str) -> Operand:
    if isinstance(A, Product) or _is_operator(A):
        raise InvalidType(argument, "is an operator, which `svd` serves; this function needs the entries of a matrix")
    return _arrays.accept(A, argument)


def _rank(rank: Any, most: int) -> int:
    """0 stands for all, in the engines; None does for the caller."""
    if rank is None:
        return 0
    kept = _options.count("rank", rank, least=1)
    if kept > most:
        raise InvalidArgument("rank", f"expected at most min(m, n) = {most}, got {kept}")
    return kept


def _stack(parts: list[Any], lead: tuple[int, ...], space: Space) -> Any:
    if isinstance(parts[0], np.ndarray):
        stacked = np.stack(parts)
        return space.back(stacked.reshape(lead + stacked.shape[1:]))
    joined = space.xp.stack(parts)
    return space.back(space.xp.reshape(joined, lead + tuple(joined.shape[1:])))


def _joined(results: list[dict[str, Any]]) -> str:
    return ", ".join(sorted({str(one["method"]) for one in results}))
