"""Spectral metrics of one layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from . import _arrays, _options, _svd
from ._errors import InvalidArgument, InvalidType, NonFinite
from ._marchenko_pastur import BulkFit, Vector, fit_bulk, nonnegative, positive, spectrum
from ._power_law import PowerLawFit, Scan, fit_power_law

__all__ = ["CONVENTIONS", "LayerMetrics", "PhaseCriteria", "layer_metrics", "log_base_of"]

CONVENTIONS = ("brockett", "weightwatcher", "deepdataprofiler")
#: WeightWatcher leaves out eigenvalues up to this, whatever their unit, when it fits a tail.
WEIGHTWATCHER_FLOOR = 1e-5
#: ... adds this to the shares of its entropy,
WEIGHTWATCHER_SHARE = 1e-10
#: ... and fits fewer eigenvalues than this by another rule, with tails of at least 8.
WEIGHTWATCHER_SMALL, WEIGHTWATCHER_SMALL_TAIL = 20, 8


@dataclass(frozen=True)
class PhaseCriteria:
    """Where the phases of training begin; the defaults are brockett's, the phases Martin and Mahoney's.

    Attributes
    ----------
    zero_share : float
        "rank_collapse": at least this share of the eigenvalues is zero.
    bulk_ks : float
        A bulk is there when its Kolmogorov-Smirnov distance from the Marchenko-Pastur law is at most this plus 3/n.
    spike_share : float
        ... and at most this share of the eigenvalues lies above it: more are a tail, not spikes. (Matrices whose
        entries have a tail with exponent 2 have 11 % to 17 % above the edge, with exponent 2.5 4 % to 5 %.)
    bleeding_soft_rank : float
        With a bulk and spikes, "bleeding_out" where the MP soft rank is at least this: the largest eigenvalue has left
        the bulk, but not its neighbourhood.
    heavy_alpha : float
        Without a bulk, "heavy_tailed" where alpha is at most this.

    Raises
    ------
    InvalidArgument
        One that is not a finite number.
    """

    zero_share: float = 0.1
    bulk_ks: float = 0.05
    spike_share: float = 0.1
    bleeding_soft_rank: float = 2 / 3
    heavy_alpha: float = 4.0

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _options.number(field.name, getattr(self, field.name)))


_CRITERIA = PhaseCriteria()


@dataclass(frozen=True, eq=False)
class LayerMetrics:
    """What `layer_metrics` found. Numbers that could not be had are None, and `declined` says why.

    Attributes
    ----------
    shape : tuple of int
        Of the weights.
    Q : float
        Larger over smaller dimension of the matrix (of each slice).
    convention : str
    log_base : float
        Base of every logarithm below.
    eigenvalues : ndarray (n,)
        λ, descending, normalized as the convention has it.
    rank : int
        Singular values above rounding.
    lambda_max : float
    log_norm : float or None
        log Σ λ, of the squared Frobenius norm.
    log_spectral_norm : float or None
        log λ_max, of the squared spectral norm.
    stable_rank : float or None
        Σ λ / λ_max.
    effective_rank : float or None
        exp(-Σ p log p), p = σ/Σσ (Roy and Vetterli).
    entropy : float or None
        -Σ p log p / log rank, p = λ/Σλ: 1 for equal eigenvalues.
    alpha : float or None
        Exponent of the power-law tail.
    alpha_weighted : float or None
        α log λ_max.
    log_alpha_norm : float or None
        log Σ λ^α.
    mp_soft_rank : float or None
        Upper edge of the bulk over λ_max.
    n_spikes : int or None
    phase : str or None
        "random_like", "bleeding_out", "bulk_spikes", "bulk_decay", "heavy_tailed" or "rank_collapse".
    power_law : PowerLawFit
    bulk : BulkFit
    declined : mapping of str to str
        Reasons, by what could not be had.
    """

    shape: tuple[int, ...]
    Q: float
    convention: str
    log_base: float
    eigenvalues: Vector
    rank: int
    lambda_max: float
    log_norm: float | None
    log_spectral_norm: float | None
    stable_rank: float | None
    effective_rank: float | None
    entropy: float | None
    alpha: float | None
    alpha_weighted: float | None
    log_alpha_norm: float | None
    mp_soft_rank: float | None
    n_spikes: int | None
    phase: str | None
    power_law: PowerLawFit
    bulk: BulkFit
    declined: Mapping[str, str]

    def row(self) -> dict[str, Any]:
        """One row of a table: every number and word, without the arrays and fits, and the reasons joined.

        Returns
        -------
        row : dict
            Also D, xmin, sigma, n_tail of the tail and variance, ks of the bulk.
        """
        whole = ("eigenvalues", "power_law", "bulk", "declined", "shape")
        out: dict[str, Any] = {"shape": "x".join(map(str, self.shape))}
        out |= {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in whole}
        out |= {name: getattr(self.power_law, name) for name in ("xmin", "D", "sigma", "n_tail", "p_value")}
        out |= {"bulk_variance": self.bulk.variance, "bulk_ks": self.bulk.ks}
        out["declined"] = "; ".join(f"{name}: {reason}" for name, reason in self.declined.items())
        return out


def layer_metrics(
    W: Any = None,
    *,
    singular_values: Any = None,
    shape: Sequence[int] | None = None,
    convention: str = "brockett",
    conv: str | None = None,
    log_base: float | None = None,
    alpha_range: tuple[float | None, float | None] | None = None,
    compare: bool = False,
    bootstrap: int = 0,
    seed: int = 0,
    criteria: PhaseCriteria = _CRITERIA,
) -> LayerMetrics:
    """Norms, ranks, tail exponent, bulk and phase of a layer's spectrum.

    Parameters
    ----------
    W : array_like (out, in) or (out, in, k…), optional
        Weights. A grouped convolution is as many layers as it has groups: pass each by itself.
    singular_values : array_like (n,), optional
        Instead of W, where they are known: all of them, in any order. Then `shape` is needed.
    shape : (int, int), optional
        (out, in) of the matrix whose singular values are given.
    convention : {"brockett", "weightwatcher", "deepdataprofiler"}, default "brockett"
        How eigenvalues are normalized, and what comes with that; see Notes.
    conv : {"unfold", "slices"}, optional
        What a convolution is: one matrix (out, in k²), or the k² matrices (out, in) of its places, their eigenvalues
        pooled. As the convention has it by default.
    log_base : float, optional
        Base of all logarithms; as the convention has it by default.
    alpha_range, bootstrap, seed
        As in `fit_power_law`.
    compare : bool, default False
        Compare the tail with other laws: `power_law.comparisons`.
    criteria : PhaseCriteria, optional
        Thresholds of the phases.

    Returns
    -------
    metrics : LayerMetrics

    Raises
    ------
    NonFinite
        A NaN or Inf in W or singular_values.
    InvalidArgument
        Neither or both of W and singular_values; a bias or another 1-D array; a shape that does not fit.

    Notes
    -----
    ================ ==================== =========== ===== =====================================================
    convention       eigenvalues          convolution log   besides
    ================ ==================== =========== ===== =====================================================
    brockett         σ²/larger            unfold      10    eigenvalues at rounding level are left out of the tail
    weightwatcher    σ² (slices: σ²/2)    slices      10    the tail starts above 1e-5; below 20 eigenvalues the
                                                            package's own rule: α with n - 1, D - 0.868/√n smallest
    deepdataprofiler σ²/out               unfold      e
    ================ ==================== =========== ===== =====================================================

    They were checked against weightwatcher 0.7.7 and deep-data-profiler 2.0.1 (with powerlaw 1.5: see `fit_power_law`
    for what its version 2.0 does). mp_soft_rank and the number of spikes are those of `fit_bulk` in all of them.

    The phases, in the order in which they are tried (thresholds: `PhaseCriteria`): *rank_collapse*, many zero
    eigenvalues; with a Marchenko-Pastur bulk: *random_like*, no spikes; *bleeding_out*, spikes at the edge;
    *bulk_spikes*, spikes beyond; without one: *heavy_tailed*, α at most 4; *bulk_decay*, a larger α.

    References
    ----------
    C. H. Martin, M. W. Mahoney, arXiv 1810.01075 (phases), 2002.06716 (weighted alpha); O. Roy, M. Vetterli, EUSIPCO
    2007 (effective rank).

    Examples
    --------
    >>> import numpy as np, brockett as bk
    >>> W = np.random.default_rng(0).normal(size=(200, 300))
    >>> m = bk.random_matrix.layer_metrics(W)
    >>> m.phase, m.n_spikes, m.rank, dict(m.declined)
    ('random_like', 0, 200, {})
    >>> bk.random_matrix.layer_metrics(np.eye(3)).declined["alpha"]
    '1 distinct positive values, a fit needs 10'
    """
    word = _options.option("convention", convention, CONVENTIONS)
    way = ("slices" if word == "weightwatcher" else "unfold") if conv is None else conv
    _options.option("conv", way, ("unfold", "slices"))
    base = log_base_of(word, log_base)
    if not isinstance(criteria, PhaseCriteria):
        raise InvalidType("criteria", f"expected a PhaseCriteria, got {criteria!r}")
    if (W is None) == (singular_values is None):
        raise InvalidArgument("W", "expected either W or singular_values")
    if W is None:
        sigma, matrix, whole = _given(singular_values, shape)
    else:
        if shape is not None:
            raise InvalidArgument("shape", "goes with singular_values; that of W is known")
        sigma, matrix, whole = _of_weights(W, way)
    pooled = len(sigma) // min(matrix)
    return _metrics(
        sigma,
        matrix,
        whole,
        pooled,
        word,
        base,
        criteria,
        halved=word == "weightwatcher" and len(whole) > 2,
        options={"alpha_range": alpha_range, "compare": compare, "bootstrap": bootstrap, "seed": seed},
    )


def log_base_of(convention: str, log_base: Any) -> float:
    """The base asked for, or the convention's."""
    if log_base is None:
        return math.e if convention == "deepdataprofiler" else 10.0
    base = positive("log_base", log_base)
    if base == 1:
        raise InvalidArgument("log_base", "expected a number above 0 other than 1, got 1")
    return base


def _given(values: Any, shape: Any) -> tuple[Vector, tuple[int, int], tuple[int, ...]]:
    sigma = np.sort(nonnegative(spectrum(values, "singular_values"), "singular_values"))[::-1]
    if shape is None:
        raise InvalidArgument("shape", "is needed with singular_values: (out, in) of their matrix")
    if not isinstance(shape, tuple | list) or len(shape) != 2:
        raise InvalidType("shape", f"expected (out, in), got {shape!r}")
    rows, columns = (_options.count("shape", length, least=1) for length in shape)
    if len(sigma) != min(rows, columns):
        raise InvalidArgument(
            "singular_values", f"expected {min(rows, columns)} of a matrix ({rows}, {columns}), got {len(sigma)}"
        )
    return sigma, (rows, columns), (rows, columns)


def _of_weights(W: Any, way: str) -> tuple[Vector, tuple[int, int], tuple[int, ...]]:
    """Singular values in descending order, those below the method's resolution as 0; shape of a matrix, and of W."""
    operand = _arrays.accept(W, "W")
    if operand.ndim < 2:
        raise InvalidArgument("W", f"expected weights (out, in) or (out, in, kernel…), got shape {operand.shape}")
    if math.prod(operand.shape) == 0:
        raise InvalidArgument("W", f"must not be empty, got shape {operand.shape}")
    rows, columns, kernel = operand.shape[0], operand.shape[1], operand.shape[2:]
    places = math.prod(kernel)
    xp = operand.space.xp
    sliced = way == "slices" and bool(kernel)
    if sliced:
        A = xp.permute_dims(xp.reshape(operand.array, (rows, columns, places)), (2, 0, 1))
    else:
        A = xp.reshape(operand.array, (rows, columns * places))
        columns *= places
    try:
        found, info = _svd.singular_values(A, return_info=True)
    except NonFinite as error:
        flat = error.index
        if sliced:
            flat = (*flat[1:], *(int(i) for i in np.unravel_index(flat[0], kernel)))
        else:
            flat = (flat[0], *(int(i) for i in np.unravel_index(flat[1], operand.shape[1:])))
        raise NonFinite("W", flat) from None
    except InvalidArgument as error:
        raise type(error)("W", error.message) from None
    host = np.array(_arrays.to_host(found, operand.space), dtype=np.float64)
    host[np.asarray(info.unresolved)] = 0.0
    return np.sort(host.reshape(-1))[::-1], (rows, columns), operand.shape


def _metrics(
    sigma: Vector,
    matrix: tuple[int, int],
    whole: tuple[int, ...],
    pooled: int,
    convention: str,
    base: float,
    criteria: PhaseCriteria,
    *,
    halved: bool,
    options: Mapping[str, Any],
) -> LayerMetrics:
    larger, Q = max(matrix), max(matrix) / min(matrix)
    largest = float(sigma[0])
    declined: dict[str, str] = {}
    # λ = unit · (σ/σ₁)²: fits see the ratios, so that no square leaves the range of float64
    ratios = (sigma / largest) ** 2 if largest > 0 else np.zeros_like(sigma)
    divisor = {"brockett": larger, "deepdataprofiler": matrix[0], "weightwatcher": 2 if halved else 1}[convention]
    log_unit = 2 * math.log(largest) - math.log(divisor) if largest > 0 else -math.inf
    unit = largest / divisor * largest
    rank = int(np.count_nonzero(sigma > largest * larger * 2.0**-52))
    counted = ratios[:rank]
    log_norm = log_spectral = stable = effective = entropy = None
    per_base = 1 / math.log(base)
    if rank == 0:
        reason = "all singular values are zero"
        declined |= dict.fromkeys(("norms", "ranks", "alpha", "bulk", "phase"), reason)
        law, bulk = PowerLawFit(declined=reason), fit_bulk(ratios, Q, n_matrices=pooled)
    else:
        total = float(np.sum(ratios))
        log_norm, log_spectral = (math.log(total) + log_unit) * per_base, log_unit * per_base
        stable = total
        roots = sigma[:rank] / largest
        share = roots / np.sum(roots)
        effective = math.exp(-float(np.sum(share * np.log(share))))
        entropy = _entropy(ratios if convention == "weightwatcher" else counted, rank, convention)
        if entropy is None:
            declined["entropy"] = "rank 1"
        law = _tail(ratios, counted, unit, convention, options)
        bulk = fit_bulk(ratios, Q, n_matrices=pooled)
        if law.declined:
            declined["alpha"] = law.declined
        if bulk.declined:
            declined["bulk"] = bulk.declined
    phase = None
    if rank > 0:
        phase, why = _phase(law, bulk, rank, len(sigma), criteria)
        if phase is None:
            declined["phase"] = why
    alpha = law.alpha
    weighted = None if alpha is None or log_spectral is None else alpha * log_spectral
    log_alpha_norm = None
    if alpha is not None:
        log_alpha_norm = (math.log(float(np.sum(counted**alpha))) + alpha * log_unit) * per_base
    return LayerMetrics(
        shape=whole,
        Q=Q,
        convention=convention,
        log_base=base,
        eigenvalues=ratios * unit,
        rank=rank,
        lambda_max=unit,
        log_norm=log_norm,
        log_spectral_norm=log_spectral,
        stable_rank=stable,
        effective_rank=effective,
        entropy=entropy,
        alpha=alpha,
        alpha_weighted=weighted,
        log_alpha_norm=log_alpha_norm,
        mp_soft_rank=bulk.soft_rank,
        n_spikes=bulk.n_spikes,
        phase=phase,
        power_law=_rescaled(law, unit),
        bulk=_rescaled_bulk(bulk, unit),
        declined=declined,
    )


def _entropy(ratios: Vector, rank: int, convention: str) -> float | None:
    share = ratios / np.sum(ratios)
    if convention == "weightwatcher":
        share = share + WEIGHTWATCHER_SHARE
        return -float(np.sum(share * np.log(share))) / math.log(rank + WEIGHTWATCHER_SHARE)
    return -float(np.sum(share * np.log(share))) / math.log(rank) if rank > 1 else None


def _tail(ratios: Vector, counted: Vector, unit: float, convention: str, options: Mapping[str, Any]) -> PowerLawFit:
    if convention != "weightwatcher":
        return fit_power_law(counted, **options)
    values = ratios[ratios * unit > WEIGHTWATCHER_FLOOR]
    if len(values) < WEIGHTWATCHER_SMALL and len(np.unique(values)) >= 10:
        return _weightwatcher_small(values)
    return fit_power_law(values, **options)


def _weightwatcher_small(values: Vector) -> PowerLawFit:
    """The tail of 10 to 19 eigenvalues as WeightWatcher 0.7.7 fits it."""
    x = np.sort(values)
    logs, n_all = np.log(x), len(x)
    best, least = None, math.inf
    for i in range(n_all - WEIGHTWATCHER_SMALL_TAIL + 1):
        n = n_all - i
        excess = float(np.sum(logs[i:] - logs[i]))
        if excess <= 1e-12:
            continue
        rate = (n - 1) / excess
        distance = float(np.max(np.abs(-np.expm1(-rate * (logs[i:] - logs[i])) - np.arange(n) / n)))
        if distance - 0.868 / math.sqrt(n) < least:
            least = distance - 0.868 / math.sqrt(n)
            best = PowerLawFit(
                alpha=1 + rate,
                xmin=float(x[i]),
                D=distance,
                sigma=rate / math.sqrt(n),
                n_tail=int(np.count_nonzero(x >= x[i])),
                n_values=n_all,
            )
    return best or PowerLawFit(n_values=n_all, declined="all of every tail are equal")


def _phase(law: PowerLawFit, bulk: BulkFit, rank: int, n: int, criteria: PhaseCriteria) -> tuple[str | None, str]:
    if n - rank >= criteria.zero_share * n:
        return "rank_collapse", ""
    if bulk.ks is not None and bulk.n_spikes is not None and bulk.soft_rank is not None:
        inside = n - bulk.n_zero - bulk.n_spikes
        if bulk.ks <= criteria.bulk_ks + 3 / inside and bulk.n_spikes <= criteria.spike_share * n:
            if bulk.n_spikes == 0:
                return "random_like", ""
            return ("bleeding_out" if bulk.soft_rank >= criteria.bleeding_soft_rank else "bulk_spikes"), ""
    if law.alpha is None:
        return None, f"no Marchenko-Pastur bulk, and no tail: {law.declined}"
    return ("heavy_tailed" if law.alpha <= criteria.heavy_alpha else "bulk_decay"), ""


def _rescaled(law: PowerLawFit, unit: float) -> PowerLawFit:
    def moved(name: str, parameters: Mapping[str, float]) -> dict[str, float]:
        out = dict(parameters)
        if "Lambda" in out:
            out["Lambda"] /= unit
        if name == "lognormal":
            out["mu"] += math.log(unit)
        return out

    comparisons = {
        name: replace(other, parameters=moved(name, other.parameters)) for name, other in law.comparisons.items()
    }
    scan = None if law.scan is None else Scan(law.scan.xmins * unit, law.scan.alphas, law.scan.distances)
    start = None if law.xmin is None else law.xmin * unit
    return replace(law, xmin=start, comparisons=comparisons, scan=scan)


def _rescaled_bulk(bulk: BulkFit, unit: float) -> BulkFit:
    if bulk.variance is None or bulk.support is None or bulk.cut is None:
        return bulk
    return replace(
        bulk,
        variance=bulk.variance * unit,
        support=(bulk.support[0] * unit, bulk.support[1] * unit),
        cut=bulk.cut * unit,
        spikes=bulk.spikes * unit,
        strengths=bulk.strengths * unit,
    )
