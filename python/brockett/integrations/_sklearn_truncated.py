"""Truncated singular value decomposition with scikit-learn's contract."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.decomposition import TruncatedSVD as _TruncatedSVD
from sklearn.utils.validation import check_is_fitted

from .. import _options
from .._errors import InvalidArgument
from .._svd import _is_operator, _operator_shape, svd
from . import _principal
from ._sklearn_common import NORMALIZERS, reachable, seed_of, validated

__all__ = ["TruncatedSVD"]

Host = npt.NDArray[Any]

_ALGORITHMS = ("auto", "arpack", "randomized")


class TruncatedSVD(_TruncatedSVD):  # type: ignore[misc]
    """Leading singular vectors of X, not centred, with the contract of `sklearn.decomposition.TruncatedSVD`.

    X ≈ U diag(s) V with n_components rows V, the components.

    Parameters
    ----------
    n_components : int, default 2
    algorithm : {"auto", "arpack", "randomized"}, default "auto"
        "auto": `brockett.svd`, the cheapest of Krylov, Gram and exact by measured costs; Krylov where X is sparse or an
        operator. "arpack": Krylov. Both until the residual is at most `tol`. "randomized": Krylov within the budget of
        products that `n_iter` and `n_oversamples` state, whose error is whatever `residual_` says.
    n_iter : int, default 5
        "randomized": (n_iter + 1)(n_components + n_oversamples) columns are multiplied.
    n_oversamples : int, default 10
        See `n_iter`.
    power_iteration_normalizer : {"auto", "QR", "LU", "none"}, default "auto"
        Taken for compatibility: every block is orthogonalized.
    random_state : int, RandomState, Generator or None, default None
        Start of Krylov; None is a fixed one.
    tol : float, default 1e-5
        Largest residual accepted, relative to the first singular value. Values have an error of about its square. 0
        means as small as rounding allows.

    Attributes
    ----------
    components_ : ndarray (n_components, n_features_in_)
        In the dtype of X, as all arrays here.
    explained_variance_, explained_variance_ratio_ : ndarray (n_components,)
        Of the samples' scores (divisor n_samples), alone and over the variance of X. The ratio is NaN where X is an
        operator, whose variance is not known.
    singular_values_ : ndarray (n_components,)
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Where X was a dataframe.
    residual_ : float
        max over i of max(‖X vᵢ - sᵢ uᵢ‖, ‖Xᵀ uᵢ - sᵢ vᵢ‖) / s₁, measured.
    method_ : str
        What ran.

    Raises
    ------
    InvalidArgument
        A parameter, or one that does not fit X (a ValueError, as scikit-learn's).
    NotConverged
        `tol` was not reached.

    Notes
    -----
    4 n_samples n_features flops (sparse: 4 times what is stored) for each of about 6 n_components columns. The ranks,
    and operators with `shape`, `dtype`, `matmat` and `rmatmat` as X, are those of `brockett.svd`. fit(X).transform(X)
    and fit_transform(X) give the same bits.

    References
    ----------
    See `brockett.svd`.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from brockett.integrations.sklearn import TruncatedSVD
    >>> X = sp.random_array((200, 100), density=0.05, rng=np.random.default_rng(0), format="csr")
    >>> model = TruncatedSVD(n_components=3).fit(X)
    >>> bool(abs(model.singular_values_[0] / np.linalg.norm(X.toarray(), 2) - 1) < 1e-9), bool(model.residual_ <= 1e-5)
    (True, True)
    """

    __module__ = "brockett.integrations.sklearn"

    def __init__(
        self,
        n_components: int = 2,
        *,
        algorithm: str = "auto",
        n_iter: int = 5,
        n_oversamples: int = 10,
        power_iteration_normalizer: str = "auto",
        random_state: Any = None,
        tol: float = 1e-5,
    ) -> None:
        self.algorithm = algorithm
        self.n_components = n_components
        self.n_iter = n_iter
        self.n_oversamples = n_oversamples
        self.power_iteration_normalizer = power_iteration_normalizer
        self.random_state = random_state
        self.tol = tol

    def fit(self, X: Any, y: Any = None) -> TruncatedSVD:
        """Find the components of X.

        Parameters
        ----------
        X : array-like, sparse or linear operator (n_samples, n_features)
            At least two samples and two features.
        y : ignored

        Returns
        -------
        self : TruncatedSVD
        """
        self._fitted(X)
        return self

    def fit_transform(self, X: Any, y: Any = None) -> Any:
        """Find the components of X, and the scores X Vᵀ of its samples on them.

        Parameters
        ----------
        X : array-like, sparse or linear operator (n_samples, n_features)
        y : ignored

        Returns
        -------
        scores : ndarray (n_samples, n_components)
        """
        return self._fitted(X)

    def transform(self, X: Any) -> Any:
        """Scores X Vᵀ of samples.

        Parameters
        ----------
        X : array-like, sparse or linear operator (n_samples, n_features)

        Returns
        -------
        scores : ndarray (n_samples, n_components)
        """
        check_is_fitted(self)
        if _is_operator(X):
            if X.shape[1] != self.n_features_in_:
                raise InvalidArgument("X", f"has {X.shape[1]} features, but {self.n_features_in_} were fitted")
            return self._scores(X)
        return self._scores(validated(self, X, reset=False))

    def _scores(self, X: Any) -> Host:
        V = self.components_.T
        scores = np.asarray(X.matmat(np.ascontiguousarray(V)) if _is_operator(X) else X @ V)
        return scores.astype(self.components_.dtype, copy=False)

    def _fitted(self, X: Any) -> Host:
        word = _options.option("algorithm", self.algorithm, _ALGORITHMS)
        k = _options.count("n_components", self.n_components, least=1)
        steps = _options.count("n_iter", self.n_iter)
        oversampling = _options.count("n_oversamples", self.n_oversamples, least=1)
        _options.option("power_iteration_normalizer", self.power_iteration_normalizer, NORMALIZERS)
        if _is_operator(X):
            _operator_shape(X)
            self.n_features_in_ = int(X.shape[1])
            self.__dict__.pop("feature_names_in_", None)
            A, variance = X, float("nan")
        else:
            X = validated(self, X, ensure_min_samples=2, ensure_min_features=2)
            A = _principal.PlainMap(X) if sparse.issparse(X) else X
            variance = float(_principal.column_moments(X)[1].sum()) / X.shape[0]
        m, n = X.shape
        if k > min(m, n):
            raise InvalidArgument(
                "n_components", f"{k} must be at most min(n_samples, n_features) (n_samples={m}, n_features={n})"
            )
        dtype = np.dtype(np.float32 if np.dtype(X.dtype or np.float64) in (np.float32, np.float16) else np.float64)
        tol = reachable(self.tol, dtype)
        method = {"auto": "auto", "arpack": "krylov", "randomized": "quick"}[word]
        found = svd(
            A, k, tol, method=method, seed=seed_of(self.random_state), oversampling=oversampling, iterations=steps
        )
        self.components_ = np.array(found.Vt, dtype=dtype, order="C")
        self.singular_values_ = found.s.astype(dtype)
        scores = self._scores(X)
        explained = scores.var(axis=0, dtype=np.float64)
        self.explained_variance_ = explained.astype(dtype)
        ratio = explained / variance if variance != 0 else np.full(k, np.nan)
        self.explained_variance_ratio_ = ratio.astype(dtype)
        self.residual_, self.method_ = float(found.residual), found.method
        return scores
