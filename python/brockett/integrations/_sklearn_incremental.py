"""Principal component analysis in a stream, with scikit-learn's contract."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.decomposition import IncrementalPCA as _IncrementalPCA
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from .. import _arrays, _options
from .._autocorrelation import METHODS, Autocorrelation
from .._errors import InvalidArgument
from .._svd import svd
from . import _principal
from ._principal import Axes
from ._sklearn_common import check_flags, validated

__all__ = ["IncrementalPCA"]


class IncrementalPCA(_IncrementalPCA):  # type: ignore[misc]
    """Principal components of a stream of samples, with the contract of `sklearn.decomposition.IncrementalPCA`.

    The whole covariance is accumulated, so the result is that of `PCA` on all samples at once, to rounding, however
    they were split: nothing is lost between batches, which may be smaller than n_components.

    Parameters
    ----------
    n_components : int or None, default None
        None keeps min(n_samples_seen_, n_features).
    whiten : bool, default False
        Scale the outputs of `transform` to unit variance.
    copy : bool, default True
        Taken for compatibility: X is never overwritten.
    batch_size : int or None, default None
        Rows of a sparse X that `fit` makes dense at a time; None is 5 n_features. Dense samples are read in place.
    method : {"gram", "qr"}, default "gram"
        What is summed. "gram": the covariance, which resolves variances down to 1e-10 of the largest. "qr": its square
        root, at twice the cost, for data of which smaller ones matter.

    Attributes
    ----------
    components_ : ndarray (n_components_, n_features_in_)
        In the dtype of the first samples, as all arrays here. Found when one of these attributes is first asked for
        after new samples, so that `partial_fit` costs its sum alone.
    explained_variance_, explained_variance_ratio_, singular_values_ : ndarray (n_components_,)
    mean_, var_ : ndarray (n_features_in_,)
        Of all samples; var_ with divisor n_samples_seen_.
    noise_variance_ : float
        Mean of the min(n_samples_seen_, n_features) - n_components_ variances left out.
    n_components_, n_features_in_, batch_size_ : int
    n_samples_seen_ : int
        Samples with a weight above zero.
    feature_names_in_ : ndarray of str
        Where X was a dataframe.
    residual_ : float
        max over the components of ‖(X - μ)ᵀ uᵢ - sᵢ vᵢ‖ / s₁, measured on the covariance.
    n_resolved_ : int
        How many of the explained variances stand clear of rounding.

    Raises
    ------
    InvalidArgument
        A parameter, or one that does not fit X (a ValueError, as scikit-learn's).

    Notes
    -----
    n_samples n_features² flops for a batch and 8 n_features² bytes, whatever n_components; 4/3 to 9 n_features³ flops
    where the components are asked for. A batch that is refused leaves the estimator as it was.

    References
    ----------
    T. F. Chan, G. H. Golub, R. J. LeVeque, The American Statistician 37 (1983) 242.

    Examples
    --------
    >>> import numpy as np
    >>> from brockett.integrations.sklearn import PCA, IncrementalPCA
    >>> X = np.random.default_rng(0).normal(size=(1000, 5)) * [5.0, 4.0, 3.0, 2.0, 1.0]
    >>> model = IncrementalPCA(n_components=3)
    >>> for batch in np.array_split(X, 400):  # of two or three samples
    ...     model = model.partial_fit(batch)
    >>> bool(np.allclose(model.components_, PCA(n_components=3).fit(X).components_, atol=1e-12))
    True
    """

    __module__ = "brockett.integrations.sklearn"

    def __init__(
        self,
        n_components: int | None = None,
        *,
        whiten: bool = False,
        copy: bool = True,
        batch_size: int | None = None,
        method: str = "gram",
    ) -> None:
        self.n_components = n_components
        self.whiten = whiten
        self.copy = copy
        self.batch_size = batch_size
        self.method = method

    def fit(self, X: Any, y: Any = None) -> IncrementalPCA:
        """Forget what was seen, and find the components of X.

        Parameters
        ----------
        X : array-like or sparse (n_samples, n_features)
            At least two samples.
        y : ignored

        Returns
        -------
        self : IncrementalPCA
        """
        self._check_parameters()
        X = validated(self, X, ensure_min_samples=2)
        self._check_width(X.shape[1], X.shape[0])
        stream = self._stream_of(X.shape[1], X.dtype)
        self._add(stream, X, None)
        self._stream = stream
        return self

    def partial_fit(self, X: Any, y: Any = None, check_input: bool = True, sample_weight: Any = None) -> IncrementalPCA:
        """Add samples.

        Parameters
        ----------
        X : array-like or sparse (n_samples, n_features)
            Any number of samples. PyTorch tensors are summed where they are (half types and CUDA devices among them).
        y : ignored
        check_input : bool, default True
            Taken for compatibility.
        sample_weight : array-like (n_samples,), optional
            How often each sample counts; at least 0.

        Returns
        -------
        self : IncrementalPCA
        """
        self._check_parameters()
        first = not hasattr(self, "_stream")
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(X, torch.Tensor):
            if X.ndim != 2 or not X.numel():
                raise InvalidArgument("X", f"expected (n_samples, n_features), not empty, got shape {tuple(X.shape)}")
            dtype = np.dtype(np.float64 if X.dtype == torch.float64 else np.float32)
            if first:
                self.n_features_in_ = int(X.shape[1])
        else:
            X = validated(self, X, reset=first)
            dtype = X.dtype
        if X.shape[1] != self.n_features_in_:
            raise InvalidArgument("X", f"has {X.shape[1]} features, but {self.n_features_in_} were fitted")
        self._check_width(X.shape[1])
        stream = self._stream_of(X.shape[1], dtype) if first else self._stream
        self._add(stream, X, sample_weight)
        self._stream = stream
        return self

    def transform(self, X: Any) -> Any:
        """Scores of samples on the components.

        Parameters
        ----------
        X : array-like or sparse (n_samples, n_features)

        Returns
        -------
        scores : ndarray (n_samples, n_components_)
        """
        check_is_fitted(self)
        X = validated(self, X, reset=False)
        scores = np.asarray(X @ self.components_.T) - self.mean_ @ self.components_.T
        if self.whiten:
            scale = np.sqrt(self.explained_variance_)
            scores /= np.maximum(scale, np.finfo(scale.dtype).eps)
        return scores

    def _check_parameters(self) -> None:
        if self.n_components is not None:
            _options.count("n_components", self.n_components, least=1)
        if self.batch_size is not None:
            _options.count("batch_size", self.batch_size, least=1)
        check_flags(self, "copy", "whiten")
        _options.option("method", self.method, METHODS)

    def _check_width(self, n: int, m: int | None = None) -> None:
        k = self.n_components
        if k is not None and (k > n or (m is not None and k > m)):
            seen = "" if m is None else f"n_samples={m}, "
            raise InvalidArgument("n_components", f"{k} must be at most {seen}n_features={n}")

    def _stream_of(self, n: int, dtype: Any) -> _Stream:
        self.batch_size_ = 5 * n if self.batch_size is None else int(self.batch_size)
        return _Stream(Autocorrelation(n, center=True, method=self.method), dtype)

    def _add(self, stream: _Stream, X: Any, weights: Any) -> None:
        if not sparse.issparse(X):
            stream.update(X, weights)
            return
        total = stream.total
        part = Autocorrelation(total.n_features, center=True, method=total.method)
        X = X.tocsr()
        if weights is not None:
            weights = np.asarray(weights)
            if weights.shape != (X.shape[0],):
                raise InvalidArgument("sample_weight", f"expected shape ({X.shape[0]},), got {weights.shape}")
        for start in range(0, X.shape[0], self.batch_size_):
            rows = slice(start, start + self.batch_size_)
            part.update(X[rows].toarray(), None if weights is None else weights[rows])
        stream.merge(part)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_stream")

    def _of(self, name: str) -> Any:
        if not hasattr(self, "_stream"):
            raise NotFittedError(f"This {type(self).__name__} instance is not fitted yet: call 'fit' or 'partial_fit'.")
        return self._stream.results(self.n_components)[name]

    @property
    def n_samples_seen_(self) -> int:
        """Samples with a weight above zero."""
        if not hasattr(self, "_stream"):
            raise NotFittedError(f"This {type(self).__name__} instance has seen no samples.")
        return int(self._stream.total.n_samples)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _more_tags(self) -> dict[str, Any]:  # the same before scikit-learn 1.6
        return {"preserves_dtype": ["float64", "float32"]}


class _Stream:
    """The sum of an `IncrementalPCA`, and what follows from it once somebody asks."""

    def __init__(self, total: Autocorrelation, dtype: Any) -> None:
        self.total, self.dtype = total, dtype
        self._found: dict[str, Any] = {}
        self._key: Any = None

    def update(self, X: Any, weights: Any) -> None:
        self.total.update(X, weights)
        self._key = None

    def merge(self, part: Autocorrelation) -> None:
        self.total.merge(part)
        self._key = None

    def results(self, n_components: int | None) -> dict[str, Any]:
        if self._key is None or self._key != (n_components,):
            self._found, self._key = self._solved(n_components), (n_components,)
        return self._found

    def _solved(self, n_components: int | None) -> dict[str, Any]:
        total, dtype = self.total, self.dtype
        weight, n, m = total.weight, total.n_features, total.n_samples
        if not weight > 1:
            raise InvalidArgument("X", f"a variance needs two samples, n_samples={m} of weight {weight:g} were seen")
        k = min(m, n) if n_components is None else int(n_components)
        mean = np.asarray(_host(total.mean()))
        C = np.asarray(_host(total.matrix()))
        if total.method == "qr":
            found = svd(np.ascontiguousarray(np.asarray(_host(total.factor())).T), method="exact")
            variances = found.s**2 * (weight / (weight - 1))
            resolved = int((found.s > n * np.finfo(np.float64).eps * found.s[0]).sum())
            axes = Axes(found.Vt[:k], variances[:k], float(variances.sum()), found.residual, "exact", resolved)
        else:
            axes = _principal.from_covariance(C, weight, k)
        rest = min(m, n) - k
        ratio = axes.variances / axes.total if axes.total > 0 else np.full(k, np.nan)
        noise = max(axes.total - float(axes.variances.sum()), 0.0) / rest if rest > 0 else 0.0
        return {
            "components_": np.array(axes.components, dtype=dtype, order="C"),
            "explained_variance_": axes.variances.astype(dtype),
            "explained_variance_ratio_": ratio.astype(dtype),
            "singular_values_": np.sqrt(axes.variances * (weight - 1)).astype(dtype),
            "noise_variance_": dtype.type(noise),
            "mean_": mean.astype(dtype),
            "var_": np.diag(C).astype(dtype),
            "n_components_": k,
            "residual_": float(axes.residual),
            "n_resolved_": min(axes.n_resolved, k),
        }


def _host(array: Any) -> Any:
    return _arrays.to_host(array, _arrays.accept(array, "X").space)


def _result(name: str) -> property:
    return property(lambda self: self._of(name), doc="See the class.")


for _name in (
    "components_",
    "explained_variance_",
    "explained_variance_ratio_",
    "singular_values_",
    "noise_variance_",
    "mean_",
    "var_",
    "n_components_",
    "residual_",
    "n_resolved_",
):
    setattr(IncrementalPCA, _name, _result(_name))
