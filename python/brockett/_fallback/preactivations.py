"""Second moments C = E[y yᵀ] of the pre-activations y = W x (+ b) of a layer: what a descrambler is made from.

Six sources, each a plain dict: samples of y or of x, an accumulated or a given R = E[x xᵀ], white inputs, or C itself.
What comes out is one `Preactivations`: C, and beside it whatever lets a cost be evaluated more accurately than from C.

Everything is kept at a scale near 1: C is the second moment of y 2⁻ᵉ. Data of any magnitude then pass through squares,
eigenvalues and costs as data near 1 would, to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .._errors import InvalidArgument, InvalidType, NonFinite
from ._arrays import (
    Array,
    Device,
    Host,
    Namespace,
    check_count,
    check_magnitude,
    check_matrix,
    choose,
    exponent,
    float64,
    max_abs,
    place_of,
    same_place,
    shift,
    symmetric,
    to_device,
    widened_bfloat16,
)
from .autocorrelation import Accumulator, Moments, blocks_of, joined, moments_of

Source = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Preactivations:
    """Second moments of y 2⁻ᵉ, y the n outputs of a layer."""

    name: str  # of the argument that they came from
    xp: Namespace
    place: Device
    C: Array  # (n, n) float64, symmetric
    e: int
    n_samples: int = 0  # 0: not known
    noise: float = 0.0  # magnitude of what C was summed up from, where that is above C itself
    F: Array | None = None  # (n, q), C = F Fᵀ: a square root that no square was taken for
    samples: Callable[[], Iterator[Array]] | None = None  # blocks (b, n) of y 2⁻ᵉ, less the mean where centred

    @property
    def n(self) -> int:
        return int(self.C.shape[0])


def preactivations(W: Array | None, source: Source) -> Preactivations:
    """Second moments of the pre-activations of W (n, m); W may be None where the source is of y itself."""
    kind = choose("source", source["kind"], tuple(_SOURCES))
    if W is None and kind not in ("preactivations", "covariance"):
        raise InvalidArgument("W", f"is needed with a source of kind {kind!r}")
    if W is not None:
        place_of("W", W)
        check_matrix("W", W)
        check_magnitude("W", max_abs(W))
        W = float64(W)
    y = _SOURCES[kind](W, source)
    if W is not None and W.shape[0] != y.n:
        raise InvalidArgument("W", f"has {W.shape[0]} rows, the pre-activations have {y.n} neurons")
    for alpha, Y2 in source.get("stack", ()):
        y = _stacked(y, float(alpha), Y2)
    return y


# --- from samples -----------------------------------------------------------------------------------------------------


def _from_preactivations(W: Array | None, source: Source, name: str = "preactivations") -> Preactivations:
    Y = _checked_samples(name, source["Y"], source)
    e = exponent(max_abs(Y))

    def block(part: slice) -> Array:
        return shift(float64(Y[part, :]), -e)

    return _from_samples(name, Y, Y.shape[1], e, block, bool(source["center"]))


def _from_inputs(W: Array, source: Source) -> Preactivations:
    X = _checked_samples("inputs", source["X"], source, W.shape[1], W)
    xp, place = place_of("inputs", X)
    bias = _checked_bias(source, W.shape[0])
    e_x = exponent(max_abs(X))
    e = exponent(max_abs(W)) + e_x
    if bias is not None:
        e = max(e, exponent(float(np.abs(bias).max())))
    # y 2⁻ᵉ = (W 2^(eₓ - e)) (x 2^-eₓ) + b 2⁻ᵉ
    Wt = xp.matrix_transpose(shift(W, e_x - e))
    b = None if bias is None else to_device(np.ldexp(bias, -e), xp, place)[None, :]

    def block(part: slice) -> Array:
        y = shift(float64(X[part, :]), -e_x) @ Wt
        return y if b is None else y + b

    return _from_samples("inputs", X, W.shape[0], e, block, bool(source["center"]))


def _from_samples(name: str, X: Array, n: int, e: int, block: Callable[[slice], Array], center: bool) -> Preactivations:
    xp, place = place_of(name, X)
    parts = list(blocks_of(X.shape[0], max(n, X.shape[1])))
    total: Moments | None = None
    for part in parts:
        total = joined(total, moments_of(block(part), None, center), center)
    assert total is not None
    mean = total.mean[None, :]

    def samples() -> Iterator[Array]:
        for part in parts:
            yield block(part) - mean if center else block(part)

    C = total.moment / total.weight
    return Preactivations(name, xp, place, _halves(xp, C), e, X.shape[0], samples=samples)


# --- from second moments ----------------------------------------------------------------------------------------------


def _from_accumulator(W: Array, source: Source) -> Preactivations:
    acc: Accumulator = source["acc"]
    name = "autocorrelation"
    if not isinstance(acc, Accumulator):
        raise InvalidType(name, f"expected an accumulator of this engine, got {type(acc).__name__}")
    if acc.n_features != W.shape[1]:
        raise InvalidArgument(name, f"has {acc.n_features} features, W has {W.shape[1]} inputs")
    R = acc.matrix()
    xp, place = same_place(name, R, W)
    bias, center = _checked_bias(source, W.shape[0]), bool(source["center"])
    mean = W @ to_device(acc.mean(), xp, place)
    with_bias = mean if bias is None else mean + to_device(bias, xp, place)

    # What has to be added to W R Wᵀ: outer products of E[W x] and E[y] = E[W x] + b
    #   R a covariance, not centred:    + E[y] E[y]ᵀ
    #   R about zero, centred:          - E[W x] E[W x]ᵀ
    #   R about zero, with a bias:      - E[W x] E[W x]ᵀ + E[y] E[y]ᵀ
    less, more = None, None
    if acc.center and not center:
        more = with_bias
    elif not acc.center and (center or bias is not None):
        less, more = mean, None if center else with_bias

    h = exponent(max_abs(R)) // 2
    means = [v for v in (less, more) if v is not None]
    e = max([exponent(max_abs(W)) + h, *(exponent(max_abs(v)) for v in means)])
    W_e = shift(W, h - e)
    C = W_e @ shift(R, -2 * h) @ xp.matrix_transpose(W_e)
    noise = 0.0
    for v, sign in ((less, -1.0), (more, 1.0)):
        if v is not None:
            v = shift(v, -e)[:, None]
            C = C + sign * (v @ xp.matrix_transpose(v))
            noise = max(noise, max_abs(v) ** 2)

    F = None
    if acc.method == "qr" and less is None:
        # C = F Fᵀ, F = [W L, E[y]]: no square is ever taken
        F = W_e @ shift(acc.factor(), -h)
        if more is not None:
            F = xp.concat([F, shift(more, -e)[:, None]], axis=1)
    return Preactivations(name, xp, place, _halves(xp, C), e, acc.n_samples, noise, F)


def _from_matrix(W: Array, source: Source) -> Preactivations:
    name, R = "autocorrelation", source["R"]
    xp, place = same_place(name, R, W)
    R = symmetric(name, float64(R), W.shape[1])
    n_samples = check_count("n_samples", source.get("n_samples", 0), 0)
    w, h = exponent(max_abs(W)), exponent(max_abs(R)) // 2
    W_e = shift(W, -w)
    C = W_e @ shift(R, -2 * h) @ xp.matrix_transpose(W_e)
    return Preactivations(name, xp, place, _halves(xp, C), w + h, n_samples)


def _isotropic(W: Array, source: Source) -> Preactivations:
    xp, place = place_of("W", W)
    bias = _checked_bias(source, W.shape[0])
    e = exponent(max_abs(W))
    if bias is not None:
        e = max(e, exponent(float(np.abs(bias).max())))
    # R = I: C = W Wᵀ + b bᵀ
    W_e = shift(W, -e)
    C = W_e @ xp.matrix_transpose(W_e)
    if bias is not None:
        b = to_device(np.ldexp(bias, -e), xp, place)[:, None]
        C = C + b @ xp.matrix_transpose(b)
    return Preactivations("W", xp, place, _halves(xp, C), e)


def _from_covariance(W: Array | None, source: Source) -> Preactivations:
    C = source["C"]
    xp, place = place_of("C", C) if W is None else same_place("C", C, W)
    C = symmetric("C", float64(C))
    e = exponent(max_abs(C)) // 2
    n_samples = check_count("n_samples", source.get("n_samples", 0), 0)
    return Preactivations("C", xp, place, shift(C, -2 * e), e, n_samples)


def _stacked(y: Preactivations, alpha: float, Y2: Array) -> Preactivations:
    """C + α E[y₂ y₂ᵀ]. No one sample size, square root or set of samples belongs to the sum."""
    if not 0 <= alpha < np.inf:
        raise InvalidArgument("stack", f"each factor must be finite and ≥ 0, is {alpha}")
    other = _from_preactivations(None, {"Y": Y2, "center": False}, "stack")
    if other.n != y.n:
        raise InvalidArgument("stack", f"has {other.n} neurons, the others have {y.n}")
    if (other.xp, other.place) != (y.xp, y.place):
        raise InvalidType("stack", f"is on device {other.place}, the others on {y.place}")
    a = exponent(alpha) // 2
    e = max(y.e, other.e + a)
    C = shift(y.C, 2 * (y.e - e)) + math.ldexp(alpha, -2 * a) * shift(other.C, 2 * (other.e + a - e))
    noise = math.ldexp(y.noise, 2 * (y.e - e))
    return replace(y, C=C, e=e, n_samples=0, F=None, samples=None, noise=noise)


_SOURCES: dict[str, Callable[[Any, Source], Preactivations]] = {
    "preactivations": _from_preactivations,
    "inputs": _from_inputs,
    "accumulator": _from_accumulator,
    "matrix": _from_matrix,
    "isotropic": _isotropic,
    "covariance": _from_covariance,
}


# --- checks -----------------------------------------------------------------------------------------------------------


def _halves(xp: Namespace, C: Array) -> Array:
    return 0.5 * C + 0.5 * xp.matrix_transpose(C)


def _checked_samples(
    name: str, X: Array, source: Source, n_features: int | None = None, W: Array | None = None
) -> Array:
    if W is None:
        place_of(name, X)
    else:
        same_place(name, X, W)
    if source.get("bfloat16"):
        X = widened_bfloat16(X)
    if X.ndim == 2 and X.shape[0] == 0:
        raise InvalidArgument(name, "must hold at least one sample")
    check_matrix(name, X, (None, n_features))
    check_magnitude(name, max_abs(X))
    return X


def _checked_bias(source: Source, n: int) -> Host | None:
    if source.get("bias") is None:
        return None
    bias = np.asarray(source["bias"], dtype=np.float64)
    if bias.shape != (n,):
        raise InvalidArgument("bias", f"expected shape ({n},), got {bias.shape}")
    bad = np.flatnonzero(~np.isfinite(bias))
    if bad.size:
        raise NonFinite("bias", (int(bad[0]),))
    return bias
