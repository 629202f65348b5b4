"""Principal component analysis with scikit-learn's contract."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.decomposition import PCA as _PCA

from .. import _options
from .._errors import InvalidArgument, InvalidType
from . import _principal
from ._principal import Axes
from ._sklearn_common import NORMALIZERS, check_flags, is_integer, reachable, seed_of, validated

__all__ = ["PCA"]

Host = npt.NDArray[Any]

_SOLVERS = ("auto", "full", "covariance_eigh", "arpack", "randomized")


class PCA(_PCA):  # type: ignore[misc]
    """Principal components of samples, with the contract of `sklearn.decomposition.PCA`.

    Cov(X) = (X - μ)ᵀ (X - μ) / (n_samples - 1) = Vᵀ diag(λ) V; rows of V are the components.

    Parameters
    ----------
    n_components : int, float, "mle" or None, default None
        How many to keep: a number; the smallest one that explains more than this share of the variance (0 to 1);
        Minka's estimate; or min(n_samples, n_features), one less for sparse X and "arpack".
    copy : bool, default True
        Taken for compatibility: X is never overwritten.
    whiten : bool, default False
        Scale the outputs of `transform` to unit variance.
    svd_solver : {"auto", "full", "covariance_eigh", "arpack", "randomized"}, default "auto"
        scikit-learn's words. "full": every digit of the small variances; a streamed LQ and LAPACK's SVD of its triangle
        for tall X, gesdd else. "covariance_eigh": float64 covariance, summed about the mean, and its leading
        eigenvectors; variances below 1e-10 of the largest are unresolved. "arpack": block Krylov until the residual is
        at most `tol`. "randomized": the same within the budget of products that `iterated_power` and `n_oversamples`
        state. "auto": Krylov where it is the cheapest by measured costs, and for sparse X; covariance (tall) or Gram
        matrix (wide) otherwise; and the full solver where a variance that was asked for is not resolved by these.
    tol : float, default 1e-5
        Largest residual accepted, relative to the first singular value. Explained variances have an error of about its
        square. Lower it where components of close variances must be told apart; 0 means as small as rounding allows.
    iterated_power : int or "auto", default "auto"
        "randomized": (iterated_power + 1)(n_components + n_oversamples) columns are multiplied. "auto" is 7 below a
        tenth of the components, 4 from there.
    n_oversamples : int, default 10
        See `iterated_power`.
    power_iteration_normalizer : {"auto", "QR", "LU", "none"}, default "auto"
        Taken for compatibility: every block is orthogonalized.
    random_state : int, RandomState, Generator or None, default None
        Start of Krylov; None is a fixed one.

    Attributes
    ----------
    components_ : ndarray (n_components_, n_features_in_)
        In the dtype of X, as all arrays here.
    explained_variance_, explained_variance_ratio_, singular_values_ : ndarray (n_components_,)
    mean_ : ndarray (n_features_in_,)
    n_components_, n_samples_, n_features_in_ : int
    noise_variance_ : float
        Mean of the min(n_samples, n_features) - n_components_ variances left out.
    feature_names_in_ : ndarray of str
        Where X was a dataframe.
    residual_ : float
        max over the components of ‖(X - μ)ᵀ uᵢ - sᵢ vᵢ‖ / s₁, measured; "covariance" measures it on the covariance, and
        where that came from float32 sums, on the samples (the root of all their squares, from four random
        combinations).
    n_resolved_ : int
        How many of the explained variances stand clear of rounding.
    method_ : str
        What ran: "covariance", "exact", "gram", "krylov" or "quick".

    Raises
    ------
    InvalidArgument
        A parameter, or one that does not fit X (a ValueError, as scikit-learn's).
    NotConverged
        "arpack", or a sparse X: `tol` was not reached.

    Notes
    -----
    Covariance: n_samples n_features² flops, at half their price where float32 sums reach `tol` (X is float32 and
    n_components at most a quarter of the features). Krylov: 4 n_samples n_features for each of about 6 n_components
    columns. Memory beside X: 16 n_features² bytes for the covariance; a centred copy of a dense X for the other routes.
    fit(X).transform(X) and fit_transform(X) give the same bits.

    References
    ----------
    M. E. Tipping, C. M. Bishop, J. R. Stat. Soc. B 61 (1999) 611; T. P. Minka, NIPS 2000, for "mle"; `brockett.svd`.

    Examples
    --------
    >>> import numpy as np
    >>> from brockett.integrations.sklearn import PCA
    >>> X = np.random.default_rng(0).normal(size=(1000, 5)) * [9.0, 5.0, 1.0, 0.1, 0.1]
    >>> pca = PCA(n_components=0.95).fit(X)
    >>> pca.n_components_, pca.method_, bool(pca.residual_ < 1e-12)
    (2, 'covariance', True)
    """

    __module__ = "brockett.integrations.sklearn"

    def __init__(
        self,
        n_components: Any = None,
        *,
        copy: bool = True,
        whiten: bool = False,
        svd_solver: str = "auto",
        tol: float = 1e-5,
        iterated_power: Any = "auto",
        n_oversamples: int = 10,
        power_iteration_normalizer: str = "auto",
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.copy = copy
        self.whiten = whiten
        self.svd_solver = svd_solver
        self.tol = tol
        self.iterated_power = iterated_power
        self.n_oversamples = n_oversamples
        self.power_iteration_normalizer = power_iteration_normalizer
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> PCA:
        """Find the components of X.

        Parameters
        ----------
        X : array-like or sparse (n_samples, n_features)
            At least two samples. Sparse with "auto", "arpack" and "covariance_eigh".
        y : ignored

        Returns
        -------
        self : PCA
        """
        solver = _options.option("svd_solver", self.svd_solver, _SOLVERS)
        check_flags(self, "copy", "whiten")
        _options.option("power_iteration_normalizer", self.power_iteration_normalizer, NORMALIZERS)
        if sparse.issparse(X) and solver in ("full", "randomized"):
            raise InvalidType(
                "svd_solver", f"sparse X goes with 'auto', 'arpack' and 'covariance_eigh', not with {solver!r}"
            )
        X = validated(self, X, ensure_min_samples=2)
        m, n = X.shape
        if solver == "auto" and sparse.issparse(X):
            solver = "arpack"
        wanted = self._wanted(solver, m, n)
        tol = reachable(self.tol, X.dtype)
        axes, mean = self._solved(X, solver, wanted, tol)
        k = wanted
        if wanted == "mle":
            k = _principal.mle_rank(axes.variances, m)
        elif not is_integer(wanted):
            k = len(axes.variances) if solver == "arpack" else _principal.share_rank(axes.variances, wanted)
        self._keep(axes, int(k), mean, m, X.dtype)
        return self

    def fit_transform(self, X: Any, y: Any = None) -> Any:
        """Find the components of X, and the scores of its samples on them.

        Parameters
        ----------
        X : array-like or sparse (n_samples, n_features)
        y : ignored

        Returns
        -------
        scores : ndarray (n_samples, n_components_)
        """
        return self.fit(X).transform(X)

    def _wanted(self, solver: str, m: int, n: int) -> Any:
        """n_components as an int, a float in (0, 1) or "mle", that fits X."""
        k, least = self.n_components, min(m, n)
        if k is None:
            return least - 1 if solver == "arpack" and least > 1 else least
        if isinstance(k, str):
            _options.option("n_components", k, ("mle",))
            if solver in ("arpack", "randomized"):
                raise InvalidArgument("n_components", f"'mle' needs all variances, which {solver!r} does not find")
            if m < n:
                raise InvalidArgument("n_components", f"'mle' needs n_samples >= n_features, got {m} and {n}")
            return k
        if is_integer(k):
            low = 1 if solver in ("arpack", "randomized") else 0
            if not low <= k <= least:
                raise InvalidArgument(
                    "n_components",
                    f"{k} must be between {low} and min(n_samples, n_features)={least} (n_samples={m}, n_features={n}) "
                    f"with svd_solver={self.svd_solver!r}",
                )
            return int(k)
        share = _options.number("n_components", k)
        if not 0 < share < 1:
            raise InvalidArgument("n_components", f"a share of the variance lies between 0 and 1, got {k!r}")
        if solver == "randomized":
            raise InvalidArgument("n_components", "a share of the variance needs another solver than 'randomized'")
        return share

    def _solved(self, X: Any, solver: str, wanted: Any, tol: float) -> tuple[Axes, Host]:
        m, n = X.shape
        most, single = min(m, n), X.dtype == np.float32
        some = is_integer(wanted)
        k = wanted if some else most
        if solver == "auto":
            if some and _principal.krylov_is_cheaper(m, n, k, single):
                mean, squares = _principal.column_moments(X)
                return _principal.from_matrix(
                    X, mean, squares, k, "auto", tol, seed=seed_of(self.random_state)
                ), mean
            solver = "covariance" if m >= n else "gram"
        if solver == "covariance":
            mean, axes = self._by_covariance(X, k, tol, some)
            enough = k if some else (_principal.share_rank(axes.variances, wanted) if wanted != "mle" else n)
            if axes.n_resolved >= enough or axes.total == 0:
                return axes, mean
            solver = "full"
        if solver == "covariance_eigh":
            if sparse.issparse(X):
                mean, _ = _principal.column_moments(X)
                return _principal.from_covariance(_principal.sparse_covariance(X, mean), m, k), mean
            total = _principal.streamed(X)
            return _principal.from_covariance(total.matrix(), m, k), total.mean()
        mean, squares = _principal.column_moments(X)
        if solver in ("full", "gram"):
            if m > n:
                return _principal.from_root(X, max(k, 1)), mean
            # A Gram matrix pays from two to one on, and resolves what it must or gives way to the exact route.
            route = "gram" if solver == "gram" and n >= 2 * m else "exact"
            return _principal.from_matrix(X, mean, squares, max(k, 1), route, tol), mean
        seed = seed_of(self.random_state)
        if solver == "arpack":
            share = None if some else wanted
            k = k if some else max(most - 1, 1)
            return _principal.from_matrix(X, mean, squares, k, "krylov", tol, seed=seed, share=share), mean
        if isinstance(self.iterated_power, str):
            _options.option("iterated_power", self.iterated_power, ("auto",))
            steps = 7 if k < 0.1 * most else 4
        else:
            steps = _options.count("iterated_power", self.iterated_power)
        oversampling = _options.count("n_oversamples", self.n_oversamples, least=1)
        return _principal.from_matrix(
            X, mean, squares, k, "quick", tol, seed=seed, oversampling=oversampling, iterations=steps
        ), mean

    def _by_covariance(self, X: Host, k: int, tol: float, some: bool) -> tuple[Host, Axes]:
        m, n = X.shape
        if X.dtype == np.float32 and some and 0 < k <= n // 4:
            mean, C = _principal.single_covariance(X)
            axes = _principal.from_covariance(C, m, k)
            if axes.n_resolved >= k:
                axes = _principal.measured(axes, X, mean, seed_of(self.random_state))
                if axes.residual <= tol:
                    return mean, axes
        total = _principal.streamed(X)
        return total.mean(), _principal.from_covariance(total.matrix(), m, k)

    def _keep(self, axes: Axes, k: int, mean: Host, m: int, dtype: Any) -> None:
        n = axes.components.shape[1]
        variances = axes.variances[:k]
        rest = min(m, n) - k
        self.components_ = np.array(axes.components[:k], dtype=dtype, order="C")
        self.explained_variance_ = variances.astype(dtype)
        ratio = variances / axes.total if axes.total > 0 else np.full(k, np.nan)
        self.explained_variance_ratio_ = ratio.astype(dtype)
        self.singular_values_ = np.sqrt(variances * (m - 1)).astype(dtype)
        self.mean_ = mean.astype(dtype)
        self.noise_variance_ = dtype.type(max(axes.total - float(variances.sum()), 0.0) / rest if rest > 0 else 0.0)
        self.n_components_, self.n_samples_ = k, m
        self.residual_, self.method_ = float(axes.residual), axes.method
        self.n_resolved_ = min(axes.n_resolved, k)

    def get_precision(self) -> Any:
        """The inverse of the covariance of the generative model.

        Where that is singular to the last digit, as samples of dependent features can make it, scikit-learn raises
        LinAlgError or not as its rounding has it; here it is the pseudo-inverse.

        Returns
        -------
        precision : ndarray (n_features, n_features)
            The inverse of `get_covariance()`; 2 n³ flops where the noise variance is 0, 2 n² k else.
        """
        try:
            return super().get_precision()
        except np.linalg.LinAlgError:
            return np.linalg.pinv(self.get_covariance(), hermitian=True)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.array_api_support = False
        return tags

    def _more_tags(self) -> dict[str, Any]:  # the same before scikit-learn 1.6
        return {"preserves_dtype": ["float64", "float32"], "array_api_support": False}
