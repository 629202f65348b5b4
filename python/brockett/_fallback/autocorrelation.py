"""Streaming autocorrelation R = E[x xᵀ] of the inputs of a layer, over any array namespace.

What is carried along is the weighted sum of a set of samples, in one of four forms::

                 center=False                    center=True
    gram         M = Σ wᵢ xᵢ xᵢᵀ                 M = Σ wᵢ (xᵢ - μ)(xᵢ - μ)ᵀ
    qr           L lower triangular, L Lᵀ = M    L lower triangular, L Lᵀ = M

with the mean μ and the weight Σ wᵢ beside it. Two sets a and b of samples join by (Chan, Golub, LeVeque)::

    M = M_a + M_b (+ w_a w_b / (w_a + w_b) δ δᵀ when centred),   δ = μ_b - μ_a,   μ = μ_a + w_b / (w_a + w_b) δ

so a centred moment is never found as the difference of two large numbers, and updating, merging and reading blocks of a
long update are the same operation.

References
----------
T. F. Chan, G. H. Golub, R. J. LeVeque, "Algorithms for computing the sample variance", Am. Stat. 37 (1983) 242.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace
from array_api_compat import device as device_of

from .._errors import InvalidArgument, InvalidType, Unsupported
from ._arrays import (
    LARGEST,
    SMALLEST,
    Array,
    Device,
    Host,
    Namespace,
    check_count,
    check_finite,
    check_magnitude,
    choose,
    float64,
    lower_root,
    max_abs,
    place_of,
    quiet,
    require_float64,
    to_device,
    to_host,
    widened_bfloat16,
)

#: Precisions that only a GPU works in; what was summed in them can be read, merged and saved here.
TENSOR_UNITS = ("tf32", "bf16", "fp16")

#: Products of two float32 numbers must stay clear of float32's own range (precision="single").
LARGEST_SINGLE, SMALLEST_SINGLE = 1e18, 1e-18


@dataclass(frozen=True, eq=False)
class Moments:
    """The weighted sums of a set of samples."""

    moment: Array  # (n, n): M (gram) or L (qr)
    mean: Array  # (n,)
    weight: float
    n_samples: int


def moments_of(X: Array, w: Array | None, center: bool, method: str = "gram", precision: str = "double") -> Moments:
    """The sums of samples X (n_samples, n), float64, with weights w (n_samples,) > 0 or None for ones."""
    xp = array_namespace(X)
    weight = float(X.shape[0]) if w is None else float(xp.sum(w))
    # μ = Σ wᵢ xᵢ / Σ wᵢ
    mean = xp.mean(X, axis=0) if w is None else (w / weight) @ X
    if center:
        X = X - mean[None, :]
    if w is not None:
        X = X * xp.sqrt(w)[:, None]  # so that XᵀX is the weighted sum
    Xt = xp.matrix_transpose(X)
    if method == "qr":
        moment = lower_root(Xt)
    elif precision == "single":
        X32 = xp.astype(X, xp.float32)
        moment = xp.astype(xp.matrix_transpose(X32) @ X32, xp.float64)
    else:
        moment = Xt @ X
    return Moments(moment, mean, weight, X.shape[0])


def joined(a: Moments | None, b: Moments, center: bool, method: str = "gram") -> Moments:
    """The sums of two sets of samples together."""
    if a is None or a.n_samples == 0:
        return b
    xp = array_namespace(b.moment)
    weight = a.weight + b.weight
    delta = b.mean - a.mean
    # what the two means add to the moment about the common mean: c δ (c δ)ᵀ
    between = math.sqrt(a.weight * (b.weight / weight)) * delta[:, None] if center else None
    if method == "qr":
        parts = [a.moment, b.moment] if between is None else [a.moment, b.moment, between]
        moment = lower_root(xp.concat(parts, axis=1))
    else:
        moment = a.moment + b.moment
        if between is not None:
            moment = moment + between @ xp.matrix_transpose(between)
    mean = a.mean + (b.weight / weight) * delta
    return Moments(moment, mean, weight, a.n_samples + b.n_samples)


def blocks_of(n_samples: int, n_features: int) -> Iterator[slice]:
    """Stretches of samples to hold in float64 at a time.

    Long enough for the n² work of joining each, short enough for memory; float32 products are summed in float32 only
    within one of them.
    """
    longest = min(max(2**22 // n_features, 512, 2 * n_features), 2**16)
    for first in range(0, n_samples, longest):
        yield slice(first, min(first + longest, n_samples))


class Accumulator:
    """A streaming accumulator of R = Σ wᵢ xᵢ xᵢᵀ / Σ wᵢ in O(n²) memory, however many samples pass.

    Parameters
    ----------
    n_features : int
        n, the length of a sample.
    center : bool
        Accumulate the covariance E[(x - μ)(x - μ)ᵀ] instead of E[x xᵀ].
    method : {"gram", "qr"}
        What is summed: x xᵀ, or its square root by LQ (for data of condition beyond 1e7; about three times the cost).
    precision : {"double", "single", "tf32", "bf16", "fp16"}
        Products of a block in float64, or in float32 (1e-7 of the largest eigenvalue is lost); totals always float64.
    xp, device
        Namespace and device of the totals and of the samples to come; NumPy by default.
    """

    def __init__(
        self,
        n_features: int,
        center: bool,
        method: str,
        precision: str,
        *,
        xp: Namespace = None,
        device: Device = None,
    ) -> None:
        self._n = check_count("n_features", n_features, 1)
        self._center = bool(center)
        self._method = choose("method", method, ("gram", "qr"))
        self._precision = choose("precision", precision, ("double", "single", *TENSOR_UNITS))
        if method == "qr" and precision != "double":
            raise InvalidArgument("precision", 'method "qr" is for ill-conditioned data and works in "double" only')
        empty = (np if xp is None else xp).empty(0)
        self._xp = array_namespace(empty)
        self._device = device_of(empty) if device is None else device
        require_float64("device", self._xp, self._device)
        zeros = self._xp.zeros((n_features, n_features), dtype=self._xp.float64, device=self._device)
        self._total = Moments(zeros, zeros[0, :], 0.0, 0)
        self._largest = 0.0  # of sqrt(w) |x| so far

    n_features = property(lambda self: self._n)
    center = property(lambda self: self._center)
    method = property(lambda self: self._method)
    precision = property(lambda self: self._precision)
    #: samples with a weight above zero, and the sum of their weights
    n_samples = property(lambda self: self._total.n_samples)
    weight = property(lambda self: self._total.weight)

    # --- accumulation -------------------------------------------------------------------------------------------------

    def update(self, X: Array, weights: Host | None = None, bfloat16: bool = False) -> None:
        """Add samples X (n_samples, n_features); on an error nothing has changed.

        Parameters
        ----------
        X : array (n_samples, n_features) of float16, float32 or float64, or uint16 with `bfloat16`
        weights : ndarray of float64, (n_samples,), optional
            wᵢ ≥ 0, on the host. A sample of weight 0 is left out, and may hold NaN.
        bfloat16 : bool
            X holds the bits of bfloat16 numbers.
        """
        if self._precision in TENSOR_UNITS:
            raise Unsupported(f"precision={self._precision!r} needs the tensor units of a GPU, and engine 'cuda'")
        self._check_place(X)
        if X.ndim != 2 or X.shape[1] != self._n:
            raise InvalidArgument("X", f"must have shape (n_samples, {self._n}), has {tuple(X.shape)}")
        w = checked_weights(weights, X.shape[0])
        rows = None
        if w is not None and not w.all():
            rows, w = np.flatnonzero(w), w[w > 0]
            X = self._xp.take(X, to_device(rows, self._xp, self._device), axis=0)
        if X.shape[0] == 0:
            return
        if bfloat16:
            X = widened_bfloat16(X)
        check_finite("X", X, None if rows is None else rows.tolist())
        largest = self._checked_magnitude(X, w)
        total = self._total
        with quiet():
            for part in blocks_of(X.shape[0], self._n):
                weight = None if w is None else to_device(w[part], self._xp, self._device)
                block = moments_of(float64(X[part, :]), weight, self._center, self._method, self._precision)
                total = joined(total, block, self._center, self._method)
        self._commit(total, "X" if weights is None else "weights")
        self._largest = largest

    def merge(self, other: Accumulator) -> None:
        """Add what another accumulator of the same kind holds."""
        if not isinstance(other, Accumulator):
            raise InvalidType("other", f"expected an accumulator of this engine, got {type(other).__name__}")
        mine, its = (
            {"n_features": a._n, "center": a._center, "method": a._method, "precision": a._precision}
            for a in (self, other)
        )
        for name, value in mine.items():
            if its[name] != value:
                raise InvalidArgument("other", f"has {name}={its[name]!r}, this one has {value!r}")
        if (other._xp, other._device) != (self._xp, self._device):
            raise InvalidType("other", f"is on device {other._device}, this one is on {self._device}")
        with quiet():
            total = joined(self._total, other._total, self._center, self._method)
        self._commit(total, "other")
        self._largest = max(self._largest, other._largest)

    def clear(self) -> None:
        """Hold nothing again."""
        zeros = self._xp.zeros((self._n, self._n), dtype=self._xp.float64, device=self._device)
        self._total, self._largest = Moments(zeros, zeros[0, :], 0.0, 0), 0.0

    # --- results ------------------------------------------------------------------------------------------------------

    def matrix(self) -> Array:
        """R (n, n), symmetric float64: M / Σ wᵢ."""
        self._check_filled()
        if self._method == "gram":
            return self._total.moment / self._total.weight
        L = self.factor()
        return L @ self._xp.matrix_transpose(L)

    def factor(self) -> Array:
        """L (n, n), lower triangular, of R = L Lᵀ; only with ``method="qr"``."""
        if self._method != "qr":
            raise InvalidArgument("method", 'the square root of R is kept only by method "qr"')
        self._check_filled()
        return self._total.moment / math.sqrt(self._total.weight)

    def mean(self) -> Host:
        """E[x] (n,), whether or not `center` is set."""
        self._check_filled()
        return to_host(self._total.mean).astype(np.float64)

    def state(self) -> dict[str, Any]:
        """Everything it holds, on the host: what `from_state` takes."""
        return {
            "n_features": self._n,
            "n_samples": self.n_samples,
            "weight": self.weight,
            "center": self._center,
            "method": self._method,
            "precision": self._precision,
            "mean": to_host(self._total.mean).copy(),
            "moment": to_host(self._total.moment).copy(),
        }

    @staticmethod
    def from_state(state: Mapping[str, Any], *, xp: Namespace = None, device: Device = None) -> Accumulator:
        """An accumulator that goes on from a saved state; a field that does not fit is named."""
        missing = [name for name in _FIELDS if name not in state]
        if missing:
            raise InvalidArgument("state", f"lacks {', '.join(missing)}")
        acc = Accumulator(
            int(state["n_features"]),
            bool(state["center"]),
            str(state["method"]),
            str(state["precision"]),
            xp=xp,
            device=device,
        )
        n, weight, n_samples = acc._n, float(state["weight"]), int(state["n_samples"])
        mean = checked_field("mean", state["mean"], (n,))
        moment = checked_field("moment", state["moment"], (n, n))
        if not 0 <= weight < math.inf:
            raise InvalidArgument("weight", f"must be finite and ≥ 0, is {weight}")
        if n_samples < 0 or (n_samples == 0) != (weight == 0):
            raise InvalidArgument("n_samples", f"must be ≥ 0, and 0 exactly when weight ({weight}) is; got {n_samples}")
        if acc._method == "qr" and np.triu(moment, 1).any():
            raise InvalidArgument("moment", "must be lower triangular")
        if acc._method == "gram":
            if np.abs(moment - moment.T).max() > 1e-8 * np.abs(moment).max() or (np.diag(moment) < 0).any():
                raise InvalidArgument("moment", "must be symmetric, its diagonal ≥ 0")
            moment = moment / 2 + moment.T / 2
        acc._total = Moments(
            to_device(moment, acc._xp, acc._device), to_device(mean, acc._xp, acc._device), weight, n_samples
        )
        acc._largest = float(np.abs(moment).max()) ** (0.5 if acc._method == "gram" else 1)
        return acc

    # --- checks -------------------------------------------------------------------------------------------------------

    def _commit(self, total: Moments, argument: str) -> None:
        xp = self._xp
        if not (math.isfinite(total.weight) and xp.all(xp.isfinite(total.moment)) and xp.all(xp.isfinite(total.mean))):
            raise InvalidArgument(argument, "the weighted sum overflows float64; rescale")
        self._total = total

    def _check_filled(self) -> None:
        if self.n_samples == 0:
            raise InvalidArgument("Autocorrelation", "no samples have been accumulated")

    def _check_place(self, X: Array) -> None:
        xp, place = place_of("X", X)
        if xp is not self._xp or place != self._device:
            raise InvalidType(
                "X",
                f"expected an array of {self._xp.__name__} on {self._device}, got one of {xp.__name__} on {place}",
            )

    def _checked_magnitude(self, X: Array, w: Host | None) -> float:
        magnitude = max_abs(X)
        weighted = magnitude if w is None else magnitude * math.sqrt(w.max())
        largest = max(self._largest, weighted)
        if (magnitude > 0 and self._largest == 0) or magnitude >= LARGEST:  # small beside larger ones does no harm
            check_magnitude("X", magnitude)
        if weighted >= LARGEST or 0 < largest < SMALLEST:
            raise InvalidArgument(
                "weights", f"√w |x| reaches {weighted:.3g}, outside [1e-150, 1e150); rescale the weights"
            )
        if self._precision == "single" and not (weighted == 0 or SMALLEST_SINGLE <= weighted < LARGEST_SINGLE):
            raise InvalidArgument(
                "X", "magnitudes leave the range of float32 products, [1e-18, 1e18); use precision 'double'"
            )
        return largest


_FIELDS = ("n_features", "n_samples", "weight", "center", "method", "precision", "mean", "moment")


def checked_weights(weights: Host | None, n_samples: int) -> Host | None:
    if weights is None:
        return None
    w = np.asarray(weights, dtype=np.float64)
    if w.shape != (n_samples,):
        raise InvalidArgument("weights", f"expected shape ({n_samples},), got {w.shape}")
    bad = np.flatnonzero(~(np.isfinite(w) & (w >= 0)))
    if bad.size:
        raise InvalidArgument("weights", f"must be finite and ≥ 0, is {w[bad[0]]} at index {bad[0]}")
    return w


def checked_field(name: str, value: Any, shape: tuple[int, ...]) -> Host:
    array = np.asarray(value, dtype=np.float64)
    if array.shape != shape or not np.isfinite(array).all():
        raise InvalidArgument(name, f"must be finite numbers of shape {shape}, has shape {array.shape}")
    return array
