"""PEFT's IncrementalPCA: each step keeps the leading triplets, not what a random projection finds of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from .. import _options
from .._errors import InvalidArgument, InvalidType, NonFinite
from .._svd import svd

__all__ = ["IncrementalPCA"]


class IncrementalPCA:
    """Principal components from batches, of which n_components triplets are carried from step to step.

    Parameters
    ----------
    n_components : int, optional
        Number of components; min(n_samples, n_features) of the first batch by default.
    copy : bool, default True
        Taken for compatibility: inputs are never changed.
    batch_size : int, optional
        Of `fit`; 5 n_features by default.
    svd_driver : str, optional
        Taken for compatibility.
    lowrank, lowrank_q, lowrank_niter, lowrank_seed : optional
        Taken for compatibility: triplets are the leading ones, to a residual of 1e-6 σ₁, and need no seed.

    Attributes
    ----------
    components_ : torch.Tensor (n_components, n_features)
        In rows, in the dtype of the batches (float32 for half types); the largest entry of each is positive.
    singular_values_, explained_variance_, explained_variance_ratio_ : torch.Tensor (n_components,)
        Likewise; the variances are s² / (n - 1), the ratios s² over the sum of squares of the centred data.
    mean_, var_ : torch.Tensor (n_features,), float64
    noise_variance_ : torch.Tensor ()
        Mean variance of the components of the last step that were left out.
    n_samples_seen_ : torch.Tensor (1,)

    Notes
    -----
    A step decomposes a matrix of n_components + n_samples + 1 rows, of which n_components triplets are wanted. What is
    left out is gone: results depend on the batches, as those of PEFT's and scikit-learn's classes of this name do.

    References
    ----------
    D. Ross, J. Lim, R.-S. Lin, M.-H. Yang, Int. J. Comput. Vision 77 (2008) 125. F. Paischer et al., EVA (arXiv
    2410.07170).

    Examples
    --------
    >>> import torch
    >>> from brockett.integrations import peft
    >>> pca = peft.IncrementalPCA(n_components=1)
    >>> _ = pca.partial_fit(torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]]))
    >>> pca.components_.abs().round().tolist(), round(float(pca.explained_variance_ratio_[0]), 4)
    ([[1.0, 0.0]], 0.9)
    """

    components_: Any
    singular_values_: Any
    explained_variance_: Any
    explained_variance_ratio_: Any
    noise_variance_: Any
    n_samples_seen_: Any
    mean_: Any
    var_: Any

    def __init__(
        self,
        n_components: int | None = None,
        copy: bool | None = True,
        batch_size: int | None = None,
        svd_driver: str | None = None,
        lowrank: bool = False,
        lowrank_q: int | None = None,
        lowrank_niter: int = 4,
        lowrank_seed: int | None = None,
    ) -> None:
        self.n_components = None if n_components is None else _options.count("n_components", n_components, least=1)
        self.copy = copy
        self.batch_size = None if batch_size is None else _options.count("batch_size", batch_size, least=1)
        self.svd_driver = svd_driver
        self.lowrank, self.lowrank_niter, self.lowrank_seed = lowrank, lowrank_niter, lowrank_seed
        if lowrank and lowrank_q is None:
            if self.n_components is None:
                raise InvalidArgument("n_components", "must be given with lowrank=True and no lowrank_q")
            lowrank_q = 2 * self.n_components
        if lowrank and lowrank_q is not None and lowrank_q < (self.n_components or 0):
            raise InvalidArgument("lowrank_q", f"expected at least n_components = {self.n_components}, got {lowrank_q}")
        self.lowrank_q = lowrank_q
        self.n_features_: int | None = None

    def fit(self, X: Any, check_input: bool = True) -> IncrementalPCA:
        """Take the rows of X in batches.

        Parameters
        ----------
        X : torch.Tensor (n_samples, n_features)
        check_input : bool, default True
            Taken for compatibility: inputs are always checked.

        Returns
        -------
        self : IncrementalPCA
        """
        X = self._validated(X)
        if self.batch_size is None:
            self.batch_size = 5 * int(X.shape[1])
        for part in self.gen_batches(int(X.shape[0]), self.batch_size, self.n_components or 0):
            self.partial_fit(X[part])
        return self

    def partial_fit(self, X: Any, check_input: bool = True) -> IncrementalPCA:
        """Take one batch.

        Parameters
        ----------
        X : torch.Tensor (n_samples, n_features)
            float16, bfloat16, float32 or float64; at least n_components rows.
        check_input : bool, default True
            Taken for compatibility.

        Returns
        -------
        self : IncrementalPCA

        Raises
        ------
        InvalidArgument
            Too few rows or columns, another number of columns than before.
        NonFinite
            A NaN or Inf; nothing of X was added.
        """
        import torch

        X = self._validated(X)
        rows, width = int(X.shape[0]), int(X.shape[1])
        first = not hasattr(self, "components_")
        if not first and width != self.n_features_:
            raise InvalidArgument("X", f"has {width} features, the batches before had {self.n_features_}")
        kept = self.n_components or min(rows, width)
        seen = 0 if first else int(self.n_samples_seen_)
        total = seen + rows

        batch_mean = X.mean(dim=0, dtype=torch.float64)
        centred = (X.double() - batch_mean).to(X.dtype)
        squares = centred.double().square().sum(dim=0)
        if first:
            mean, stacked = batch_mean, centred
        else:
            step = batch_mean - self.mean_
            mean = self.mean_ + step * (rows / total)
            squares = squares + self.var_ * seen + step.square() * (seen * rows / total)
            carried = self.singular_values_[:, None] * self.components_
            shift = (math.sqrt(seen * rows / total) * -step)[None]
            stacked = torch.vstack((carried.to(X.dtype), centred, shift.to(X.dtype)))

        # fewer triplets where the batch is a matrix of fewer rows than components, which only a first batch cannot be
        _, s, Vt = svd(stacked, rank=min(kept, *stacked.shape))
        whole, left = float(stacked.double().square().sum()), min(stacked.shape) - len(s)
        variance = max(whole - float(s.square().sum()), 0.0) / left / max(total - 1, 1) if left else 0.0

        self.n_components, self.n_features_ = kept, width
        self.n_samples_seen_ = torch.tensor([total], device=X.device)
        self.mean_, self.var_ = mean, squares / total
        self.components_, self.singular_values_ = Vt, s.to(X.dtype)
        self.explained_variance_ = (s.square() / max(total - 1, 1)).to(X.dtype)
        scatter = float(squares.sum())
        self.explained_variance_ratio_ = (s.square() / scatter if scatter > 0 else torch.zeros_like(s)).to(X.dtype)
        self.noise_variance_ = torch.tensor(variance, dtype=X.dtype, device=X.device)
        return self

    def transform(self, X: Any) -> Any:
        """Coordinates along the components.

        Parameters
        ----------
        X : torch.Tensor (n_samples, n_features)

        Returns
        -------
        Y : torch.Tensor (n_samples, n_components)
            (X - mean) componentsᵀ, in the dtype of X.

        Raises
        ------
        InvalidArgument
            Nothing was fitted.
        """
        if not hasattr(self, "components_"):
            raise InvalidArgument("IncrementalPCA", "was given no batch yet")
        return ((X.double() - self.mean_) @ self.components_.double().mT).to(X.dtype)

    @staticmethod
    def gen_batches(n: int, batch_size: int, min_batch_size: int = 0) -> Iterator[slice]:
        """Slices of `batch_size` that cover range(n); a remainder of less than `min_batch_size` joins the last one.

        Parameters
        ----------
        n : int
            Length.
        batch_size : int
            Of all slices but the last.
        min_batch_size : int, default 0
            Least length of the last.

        Yields
        ------
        part : slice
        """
        start = 0
        while start < n:
            end = start + batch_size
            if end + min_batch_size > n:
                end = n
            yield slice(start, end)
            start = end

    def _validated(self, X: Any) -> Any:
        import torch

        if not isinstance(X, torch.Tensor):
            X = torch.as_tensor(X, dtype=torch.float32)
        if X.is_complex() or X.ndim != 2 or 0 in X.shape:
            raise InvalidType("X", f"expected real numbers (n_samples, n_features), got {X.dtype} of {tuple(X.shape)}")
        X = X.detach()
        X = X if X.dtype in (torch.float32, torch.float64) else X.to(torch.float32)
        if self.n_components is not None and self.n_components > min(X.shape):
            raise InvalidArgument(
                "X",
                f"n_components={self.n_components} needs at least as many rows and columns in each batch, got shape "
                f"{tuple(X.shape)}",
            )
        bad = (~torch.isfinite(X)).nonzero()
        if len(bad):
            raise NonFinite("X", bad[0].tolist())
        return X
