"""The Marchenko-Pastur law, and the bulk and spikes of a spectrum."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _arrays, _options
from ._engine import Engine, engine_for, load
from ._errors import InvalidArgument, InvalidType

__all__ = ["BulkFit", "Edge", "MarchenkoPastur", "fit_bulk", "marchenko_pastur"]

Vector = npt.NDArray[np.float64]


def host_engine() -> Engine:
    """Spectra are worked on in host memory, whatever engine is forced for arrays elsewhere."""
    try:
        return engine_for("host")
    except InvalidType:
        return load("numpy")


def spectrum(value: Any, argument: str) -> Vector:
    """A 1-D array of eigenvalues or singular values, of any library, as finite float64 in host memory."""
    operand = _arrays.accept(value, argument)
    if operand.ndim != 1:
        raise InvalidArgument(argument, f"expected a 1-D array, got shape {operand.shape}")
    host = np.ascontiguousarray(operand.host(), dtype=np.float64)
    _arrays.check_finite_host(argument, host)
    return host


def nonnegative(values: Vector, argument: str) -> Vector:
    """The same with what rounding left of zeros set to 0; anything else below 0 is refused."""
    if len(values) == 0:
        return values
    lowest, place = float(np.min(values)), int(np.argmin(values))
    if lowest < -len(values) * 2.0**-52 * float(np.max(np.abs(values))):
        raise InvalidArgument(argument, f"expected numbers of at least 0, got {lowest!r} at index {place}")
    return np.maximum(values, 0.0)


def positive(argument: str, value: Any) -> float:
    """A finite number above 0."""
    number = _options.number(argument, value)
    if number <= 0:
        raise InvalidArgument(argument, f"expected a number above 0, got {value!r}")
    return number


@dataclass(frozen=True)
class Edge:
    """Where the largest eigenvalue of pure noise lies: location + scale · TW, TW of Tracy and Widom's law (real data).

    Attributes
    ----------
    location, scale : float
        In the unit of the eigenvalues.
    """

    location: float
    scale: float

    def quantile(self, p: float) -> float:
        """The value that the largest eigenvalue stays below with probability p.

        Parameters
        ----------
        p : float
            From 1e-6 to 1 - 1e-6.

        Returns
        -------
        value : float
            In the unit of the eigenvalues.
        """
        return self.location + self.scale * float(host_engine().module.tracy_widom_quantile(_options.number("p", p)))

    def cdf(self, x: float) -> float:
        """Probability that the largest eigenvalue of pure noise is at most x.

        Parameters
        ----------
        x : float
            In the unit of the eigenvalues.

        Returns
        -------
        probability : float
            F₁((x - location)/scale), to 1e-8.
        """
        at = (_options.number("x", x) - self.location) / self.scale
        return float(host_engine().module.tracy_widom_cdf(np.array([at]))[0])


@dataclass(frozen=True)
class MarchenkoPastur:
    """The law itself; made by `marchenko_pastur`, which describes it.

    Attributes
    ----------
    Q : float
        Rows over columns of W (N, M).
    variance : float
        Of the entries of W.
    """

    Q: float
    variance: float = 1.0

    @property
    def support(self) -> tuple[float, float]:
        """Edges (a, b) of the continuous part, variance (1 ∓ Q^(-1/2))²."""
        s = math.sqrt(self.Q if self.Q < 1 else 1 / self.Q)
        unit = self.variance / min(1.0, self.Q)
        return unit * (1 - s) * (1 - s), unit * (1 + s) * (1 + s)

    @property
    def point_mass(self) -> float:
        """Probability of 0: max(0, 1 - Q), for the eigenvalues that vanish as W has fewer rows than columns."""
        return max(0.0, 1 - self.Q)

    def _at(self, what: str, x: Any, argument: str) -> Any:
        operand = _arrays.accept(x, argument)
        host = np.ascontiguousarray(operand.host(), dtype=np.float64)
        with _arrays.user_errors(rename={"x": argument}):
            values = host_engine().module.marchenko_pastur(what, host.reshape(-1), self.Q, self.variance)
        out = np.asarray(values).reshape(operand.shape)
        return float(out) if operand.shape == () else operand.space.back(out)

    def pdf(self, x: Any) -> Any:
        """Density of the continuous part, Q sqrt((b - x)(x - a)) / (2π variance x).

        Parameters
        ----------
        x : array_like

        Returns
        -------
        density : array of the shape of x, float64
            0 at the edges and outside of them, also at 0, where for Q = 1 the density has no bound. Integrates to
            min(1, Q). NaN where x is.
        """
        return self._at("pdf", x, "x")

    def cdf(self, x: Any) -> Any:
        """P(λ ≤ x), in closed form.

        Parameters
        ----------
        x : array_like

        Returns
        -------
        probability : array of the shape of x, float64
            To 1e-14; with the point mass from x = 0 on. NaN where x is.

        Notes
        -----
        With s = Q^(-1/2) and x = variance (1 + s² - 2 s cos t): cdf = t/π + (sin t / s - (1/s² - 1) ψ)/π,
        ψ = arg(1 - s e^(-it)); its power series in s where Q > 64, so that nothing cancels.
        """
        return self._at("cdf", x, "x")

    def quantile(self, p: Any) -> Any:
        """The smallest x with cdf(x) ≥ p, by Newton's method on the angle t, within a bracket.

        Parameters
        ----------
        p : array_like
            From 0 to 1.

        Returns
        -------
        x : array of the shape of p, float64
        """
        return self._at("quantile", p, "p")

    def ppf(self, p: Any) -> Any:
        """`quantile`, by the name that scipy.stats gives it.

        Parameters
        ----------
        p : array_like
            From 0 to 1.

        Returns
        -------
        x : array of the shape of p, float64
        """
        return self.quantile(p)

    def edge(self, n: int) -> Edge:
        """Tracy-Widom location and scale of the largest of n eigenvalues (n columns of W).

        Parameters
        ----------
        n : int
            At least 1.

        Returns
        -------
        edge : Edge
            Ma's centring, right to O(n^(-2/3)): with N = Q n rows, location variance/N (√(N-½) + √(n-½))² and scale
            variance/N (√(N-½) + √(n-½)) (1/√(N-½) + 1/√(n-½))^(1/3).

        References
        ----------
        Z. Ma, Bernoulli 18 (2012) 322; I. M. Johnstone, Ann. Statist. 29 (2001) 295.
        """
        columns = _options.count("n", n, least=1)
        rows = self.Q * columns
        if min(rows, columns) < 1:
            raise InvalidArgument("n", f"gives less than one row at Q = {self.Q:g}")
        larger, smaller = max(rows, columns), min(rows, columns)
        unit = self.variance / min(1.0, self.Q)
        return Edge(*host_engine().module.tracy_widom_edge(float(larger), float(smaller), unit))


def marchenko_pastur(Q: float, variance: float = 1.0) -> MarchenkoPastur:
    """Limit law of the eigenvalues of WᵀW/N, W (N, M) with independent entries of mean 0.

    Parameters
    ----------
    Q : float
        N / M. For weight matrices the larger over the smaller dimension, so Q ≥ 1, of eigenvalues σ²/larger. Q < 1
        means the M × M matrix WᵀW/N of fewer rows than columns, with a point mass 1 - Q at 0 for its M - N zeros.
    variance : float, default 1
        Of the entries of W, and the mean of the law.

    Returns
    -------
    law : MarchenkoPastur
        With `pdf`, `cdf`, `quantile` (also `ppf`), `support`, `point_mass`, and `edge` for the largest eigenvalue.

    Raises
    ------
    InvalidArgument
        Q or variance is not a finite number above 0.

    References
    ----------
    V. A. Marchenko, L. A. Pastur, Mat. Sb. 72 (1967) 507.

    Examples
    --------
    >>> import brockett as bk
    >>> law = bk.random_matrix.marchenko_pastur(4.0)
    >>> law.support
    (0.25, 2.25)
    >>> round(law.cdf(2.25), 12), law.pdf(3.0), round(law.cdf(law.quantile(0.3)), 12)
    (1.0, 0.0, 0.3)
    """
    law = MarchenkoPastur(positive("Q", Q), positive("variance", variance))
    if not math.isfinite(law.support[1]):
        raise InvalidArgument("variance", f"the law's upper edge overflows at Q = {law.Q!r}")
    return law


@dataclass(frozen=True, eq=False)
class BulkFit:
    """The Marchenko-Pastur bulk of a spectrum and what stands out of it; see `fit_bulk`.

    Attributes
    ----------
    variance : float or None
        Of the entries of W, in the unit of the eigenvalues (σ²/larger). None, like all numbers here, where there is no
        verdict; `declined` then says why.
    support : tuple of float or None
        Edges of the fitted bulk.
    cut : float or None
        Eigenvalues above are spikes.
    n_spikes : int or None
    n_zero : int
        Eigenvalues at rounding level, left out.
    spikes : ndarray (n_spikes,)
        Descending.
    strengths : ndarray (n_spikes,)
        What each spike would be without the noise: variance · l, l the larger root of λ = variance (1 + l)(1/Q + l)/l.
        The population eigenvalue of a spiked covariance is this plus the variance.
    overlaps_larger, overlaps_smaller : ndarray (n_spikes,)
        Expected squared cosines between a spike's singular vectors and those of the low-rank part, on the side of the
        larger and of the smaller dimension.
    ks : float or None
        Kolmogorov-Smirnov distance of the other eigenvalues from the law. Eigenvalues of noise repel each other, so
        this is about 3/n for it, not 1/√n: the tables of the Kolmogorov-Smirnov test do not apply.
    soft_rank : float or None
        Upper edge over largest eigenvalue (Martin and Mahoney's MP soft rank).
    declined : str or None
        Why there is no verdict.
    """

    variance: float | None
    support: tuple[float, float] | None
    cut: float | None
    n_spikes: int | None
    n_zero: int
    spikes: Vector
    strengths: Vector
    overlaps_larger: Vector
    overlaps_smaller: Vector
    ks: float | None
    soft_rank: float | None
    declined: str | None


def fit_bulk(eigs: Any, Q: float, *, significance: float = 0.01, n_matrices: int = 1) -> BulkFit:
    """Fit the Marchenko-Pastur law to the bulk of a spectrum, and count what stands out of it.

    Parameters
    ----------
    eigs : array_like (n,)
        Eigenvalues σ² of a layer, in any order and unit: with σ²/larger the variance is that of the weights.
    Q : float
        Larger over smaller dimension of the layer, at least 1.
    significance : float, default 0.01
        Chance that the largest eigenvalue of noise alone passes for a spike, 1e-6 to 0.5. The variance is estimated
        from the same data: at n = 80 this gives 3 % to 5 % false spikes instead of 1 %, from n = 300 on none in 40.
    n_matrices : int, default 1
        Matrices of the same shape whose eigenvalues are pooled in `eigs` (the k² slices of a convolution).

    Returns
    -------
    fit : BulkFit
        Declined, with its reason: fewer than 10 eigenvalues above rounding, or more than half of them above the edge.

    Raises
    ------
    NonFinite
        A NaN or Inf in eigs.
    InvalidArgument
        A negative eigenvalue (beyond rounding), Q below 1, a significance outside its range.

    Notes
    -----
    The variance is the median of the eigenvalues that are not spikes over the median of the law; spikes are those above
    the Tracy-Widom quantile 1 - significance at that variance. Both are repeated until the number of spikes stays (it
    can only grow). With k spikes the rest is taken as noise of shape (larger - k) × (smaller - k). Zero eigenvalues
    count as zero columns. O(n log n); 0.1 ms for 1,000 eigenvalues.

    References
    ----------
    J. Baik, G. Ben Arous, S. Péché, Ann. Probab. 33 (2005) 1643; F. Benaych-Georges, R. R. Nadakuditi, J. Multivar.
    Anal. 111 (2012) 120; M. Gavish, D. L. Donoho, IEEE Trans. Inf. Theory 60 (2014) 5040, for the median match; C. H.
    Martin, M. W. Mahoney, arXiv 1810.01075.

    Examples
    --------
    >>> import numpy as np, brockett as bk
    >>> W = np.random.default_rng(0).normal(size=(400, 200))
    >>> W[:, 0] += 6 * W[:, 1]  # one strong direction
    >>> fit = bk.random_matrix.fit_bulk(bk.singular_values(W) ** 2 / 400, Q=2)
    >>> fit.n_spikes, abs(fit.variance - 1) < 0.05, fit.ks < 0.03
    (1, True, True)
    """
    values = nonnegative(spectrum(eigs, "eigs"), "eigs")
    aspect = _options.number("Q", Q)
    if aspect < 1:
        raise InvalidArgument("Q", f"expected larger / smaller, at least 1, got {Q!r}")
    level = _options.number("significance", significance)
    pooled = _options.count("n_matrices", n_matrices, least=1)
    if pooled > max(1, values.size):
        raise InvalidArgument("n_matrices", f"{pooled} matrices cannot have {values.size} eigenvalues")
    # powers of two are exact: no square of an edge leaves the range of float64
    scale = _binary_scale(values)
    with _arrays.user_errors(rename={"eigenvalues": "eigs", "pooled": "n_matrices"}):
        found = host_engine().module.fit_bulk(values / scale, aspect, level, pooled)
    declined = found["declined"] or None
    arrays = [np.asarray(found[name]) for name in ("spikes", "strengths", "overlaps_larger", "overlaps_smaller")]
    if declined:
        empty = np.empty(0)
        none = (None, None, None, None)
        return BulkFit(*none, int(found["n_zero"]), empty, empty, empty, empty, None, None, declined)
    return BulkFit(
        variance=float(found["variance"]) * scale,
        support=(float(found["lower"]) * scale, float(found["upper"]) * scale),
        cut=float(found["cut"]) * scale,
        n_spikes=len(arrays[0]),
        n_zero=int(found["n_zero"]),
        spikes=arrays[0] * scale,
        strengths=arrays[1] * scale,
        overlaps_larger=arrays[2],
        overlaps_smaller=arrays[3],
        ks=float(found["distance"]),
        soft_rank=float(found["soft_rank"]),
        declined=None,
    )


def _binary_scale(values: Vector) -> float:
    largest = float(np.max(values)) if len(values) else 0.0
    return 2.0 ** min(1000, max(-1000, math.frexp(largest)[1])) if largest > 0 else 1.0
