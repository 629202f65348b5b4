"""Block Lanczos with thick restarts, over any array namespace: the same steps, seeds and rules as the compiled core.

M (m, n) with m ≥ n (else its transpose) is only multiplied with blocks. V (n, d) is orthonormal and H = Vᵀ Mᵀ M V, all
of whose entries are computed. The eigenpairs (θ, q) of H give σ = √θ and v = V q; u = M v / σ is off by
‖Mᵀ u - σ v‖ = ‖W q_last‖ / σ, W being what the last block's image has outside V. When V is full it is shrunk to the
leading Ritz vectors (Wu and Simon). In the end M V = Q R in float64, R = P diag(s) Zᵀ, U = Q P, V ← V Z.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device

from .._errors import InvalidArgument
from . import philox
from ._arrays import Array, Host, Namespace, float64, max_abs, orthonormal, svd_thin, to_device, to_host

#: A column of which the basis leaves less than this share is orthogonalized once more.
CANCELLED = 0.5
INDEPENDENT = 0.7
#: Passes that end in a block orthogonal to the basis whatever it was; three were the most that were seen.
PASSES = 8


class LinearMap:
    """A matrix (rows, cols), or two functions of blocks, in one dtype of one namespace."""

    def __init__(self, shape: tuple[int, int], xp: Namespace, place: Any, dtype: Any) -> None:
        self.shape, self.xp, self.place, self.dtype = shape, xp, place, dtype

    def apply(self, X: Array, transposed: bool) -> Array:
        raise NotImplementedError

    def accurately(self, X: Array, transposed: bool) -> Array:
        """The product in float64, as far as the map can have it."""
        return float64(self.apply(X, transposed))


class Dense(LinearMap):
    def __init__(self, A: Array, xp: Namespace) -> None:
        super().__init__((A.shape[0], A.shape[1]), xp, device(A), A.dtype)
        self.A = A

    def apply(self, X: Array, transposed: bool) -> Array:
        return (self.xp.matrix_transpose(self.A) if transposed else self.A) @ X

    def accurately(self, X: Array, transposed: bool) -> Array:
        A = float64(self.A)
        return (self.xp.matrix_transpose(A) if transposed else A) @ float64(X)


class Chain(LinearMap):
    """A product of matrices, multiplied one after the other."""

    def __init__(self, factors: list[Array], xp: Namespace) -> None:
        shape = (factors[0].shape[0], factors[-1].shape[1])
        super().__init__(shape, xp, device(factors[0]), factors[0].dtype)
        self.factors = factors

    def apply(self, X: Array, transposed: bool) -> Array:
        for F in self.factors if transposed else reversed(self.factors):
            X = (self.xp.matrix_transpose(F) if transposed else F) @ X
        return X


class Functions(LinearMap):
    """Products that somebody else computes, in host memory."""

    def __init__(self, shape: tuple[int, int], dtype: str, matmat: Callable[..., Any], rmatmat: Callable[..., Any]):
        super().__init__(shape, np, None, np.dtype(dtype))
        self.functions = matmat, rmatmat

    def apply(self, X: Array, transposed: bool) -> Array:
        name, f = ("rmatmat", self.functions[1]) if transposed else ("matmat", self.functions[0])
        answer = f(np.array(X, order="F"))
        if np.iscomplexobj(answer):  # the cast would drop an imaginary part
            raise InvalidArgument("A", f"{name} returned complex numbers")
        try:
            image = np.asarray(answer, dtype=self.dtype)
        except (TypeError, ValueError) as error:
            raise InvalidArgument("A", f"{name} did not return an array of numbers") from error
        wanted = (self.shape[1] if transposed else self.shape[0], X.shape[1])
        if image.shape != wanted:
            raise InvalidArgument(
                "A", f"{name} of a block of shape {X.shape} must return shape {wanted}, returned {image.shape}"
            )
        return image


class Checked(LinearMap):
    """A map whose products are looked at, and scaled by a power of two so that their squares fit."""

    def __init__(self, inner: LinearMap) -> None:
        super().__init__(inner.shape, inner.xp, inner.place, inner.dtype)
        self.inner, self.scale = inner, 1.0
        x = normals(inner, inner.shape[1], 1, 0x5CA1E)
        largest = max_abs(self.apply(x, False))
        large = 1e100 if inner.dtype == inner.xp.float64 else 1e12
        if largest != 0 and not 1 / large <= largest <= large:
            self.scale = 2.0 ** min(1000.0, -round(math.log2(largest)))

    def apply(self, X: Array, transposed: bool) -> Array:
        image = self.inner.apply(X, transposed)
        if not self.xp.all(self.xp.isfinite(image)):
            which = "the transposed operator's" if transposed else "the operator's"
            raise InvalidArgument("A", f"{which} product holds NaN or Inf")
        return image * self.scale if self.scale != 1 else image


def normals(like: LinearMap, rows: int, cols: int, seed: int) -> Array:
    numbers = np.ascontiguousarray(philox.normal(seed, 0, rows * cols).reshape(cols, rows).T)
    return to_device(numbers, like.xp, like.place, dtype=like.dtype)


def width_for(rank: int) -> int:
    return 8 if rank <= 32 else 16


def depth_for(rank: int, width: int, n: int) -> int:
    depth = 3 * rank + 8 * width
    return n if depth >= n - n // 8 else depth


class Lanczos:
    def __init__(self, M: LinearMap, rank: int, seed: int, widest: int) -> None:
        self.M, self.xp, self.seed = M, M.xp, seed
        self.turned = M.shape[0] < M.shape[1]  # then the basis is on the left
        self.n = min(M.shape)
        self.width = min(width_for(rank), self.n, widest or self.n)
        self.capacity = min(self.n, depth_for(rank, self.width, self.n))
        self.next = self.cast(orthonormal(float64(normals(M, self.n, self.width, seed))))
        self.V: Array | None = None
        self.H: Host = np.zeros((0, 0))
        self.outside: Host = np.zeros((0, 0))  # WᵀW
        self.size = self.columns = self.previous = self.refills = self.restarted = 0

    def cast(self, X: Array) -> Array:
        return self.xp.astype(X, self.M.dtype)

    def joined(self) -> Array:
        return self.next if self.V is None else self.xp.concat([self.V, self.next], axis=1)

    def random(self, cols: int) -> Array:
        self.refills += 1
        return normals(self.M, self.n, cols, (self.seed + 0x9E3779B97F4A7C15 * self.refills) % 2**64)

    def expand(self) -> None:
        w = self.width
        V = self.joined()
        W = self.M.apply(self.M.apply(self.next, self.turned), not self.turned)
        self.columns += w
        # the blocks that the recurrence names first, then all: what is left of the others is rounding
        first = self.size - self.previous if self.size > self.restarted else 0
        known = self.size + w
        h = np.zeros((known, w))
        C, W = self.project(V[:, first:], W)
        h[first:] += C
        before = column_norms(W)
        C, W = self.project(V, W)
        h += C
        h[self.size :] = 0.5 * (h[self.size :] + h[self.size :].T)
        self.H = np.block([[self.H, h[: self.size]], [h[: self.size].T, h[self.size :]]])
        self.V, self.size, self.previous = V, known, w
        self.next_block(W, before)

    def project(self, V: Array, W: Array) -> tuple[Host, Array]:
        C = self.xp.matrix_transpose(V) @ W
        return to_host(C).astype(np.float64), W - V @ C

    def normalized(self, W: Array, V: Array, again: bool) -> Array:
        for again_after in range(PASSES, -1, -1):
            Wd = float64(W)
            lengths = column_norms(Wd)
            if again_after < PASSES:  # unit columns were projected: what hardly anything is left of is noise
                again = again or bool(np.any(lengths < INDEPENDENT))
            usable = bool(np.all(lengths >= np.finfo(np.float64).tiny))
            unit = Wd / to_device(lengths, self.xp, self.M.place)[None, :] if usable else Wd
            Q, R = self.xp.linalg.qr(unit, mode="reduced")
            pivot = float(np.abs(np.diagonal(to_host(R))).min()) if usable else 0.0
            W = self.cast(Q)
            if pivot >= INDEPENDENT and not again:
                break
            if again_after:
                W = self.project(V, W)[1]
            again = False
        return W

    def next_block(self, W: Array, before: Host) -> None:
        assert self.V is not None
        xp, w = self.xp, W.shape[1]
        Wd = float64(W)
        self.outside = to_host(xp.matrix_transpose(Wd) @ Wd).astype(np.float64)
        self.width = min(w, self.n - self.size)
        if self.width == 0:
            return
        after = column_norms(W)
        again = bool(np.any(after < CANCELLED * before))
        kind = np.finfo(np.float64 if self.M.dtype == xp.float64 else np.float32)
        dead = after <= float(kind.tiny) / float(kind.eps)
        if self.width < w:  # less than a block is left of the space: all of it is taken
            dead[:] = True
        if dead.any():
            W = xp.where(to_device(dead, xp, self.M.place)[None, :], self.random(w), W)
            again = True
        self.next = self.normalized(W[:, : self.width], self.V, again)

    def ritz(self, count: int) -> tuple[Host, Host, Host]:
        """The largest σ, descending; ‖Mᵀu - σv‖/σ₁ of each; and q in columns."""
        theta, Q = np.linalg.eigh(self.H)
        sigma, Q = np.sqrt(np.maximum(theta[::-1][:count], 0.0)), Q[:, ::-1][:, :count]
        last = Q[self.size - self.previous :]
        squares = np.maximum(np.sum(last * (self.outside @ last), axis=0), 0.0)
        # what rounding leaves of a value that is 0: of float32 products; of the eigenvalues of H, its square
        resolved = sigma > (1e-7 if self.M.dtype == self.xp.float64 else 2e-6) * sigma[0]
        residual = np.zeros(len(sigma))
        residual[resolved] = np.sqrt(squares[resolved]) / (sigma[resolved] * sigma[0])
        return sigma, residual, np.ascontiguousarray(Q)

    def moments(self, count: int) -> tuple[Host, Host, Host, float]:
        """The largest σ, descending; q in columns; ‖MᵀM v - σ² v‖ of each; and the smallest eigenvalue of H."""
        theta, Q = np.linalg.eigh(self.H)
        Q = Q[:, ::-1][:, :count]
        last = Q[self.size - self.previous :]
        squares = np.maximum(np.sum(last * (self.outside @ last), axis=0), 0.0)
        sigma = np.sqrt(np.maximum(theta[::-1][:count], 0.0))
        return sigma, np.ascontiguousarray(Q), np.sqrt(squares), float(theta[0])

    def vectors(self, Q: Host) -> Array:
        assert self.V is not None
        return self.V @ self.cast(to_device(Q, self.xp, self.M.place))

    def straight(self, Q: Host) -> Array:
        """V Q in float64, orthonormal."""
        return orthonormal(float64(self.vectors(Q)))

    def restart(self, sigma: Host, Q: Host, keep: int) -> None:
        self.V = self.cast(self.straight(Q[:, :keep]))
        self.H = np.diag(sigma[:keep] ** 2)
        self.size = self.restarted = keep

    def widen(self) -> None:
        """As many random columns again: a block of b finds at most b of equal singular values."""
        extra = min(self.width, self.n - self.size - self.width)
        if extra <= 0:
            return
        fresh = self.normalized(self.random(extra), self.joined(), True)
        self.next = self.xp.concat([self.next, fresh], axis=1)
        self.width += extra
        self.capacity = max(self.capacity, min(self.n, self.size + 4 * self.width))


def column_norms(A: Array) -> Host:
    return to_host(array_namespace(A).linalg.vector_norm(float64(A), axis=0)).astype(np.float64)


def rank_of_tail(s: Host, squared_norm: float, tol: float, cap: int) -> int:
    """Smallest r ≤ cap with ‖M‖² - Σ_{i<r} s² ≤ tol² ‖M‖²; 0 where the values do not reach that far."""
    left = squared_norm - np.cumsum(s**2)
    for r in range(1, len(s) + 1):
        if left[r - 1] <= tol**2 * squared_norm or r == cap:
            return r
    return 0


def crowded(s: Host, r: int, width: int, tol: float) -> bool:
    """Whether `width` values lie closer together than tol: such a block cannot tell whether there are more of them."""
    close = 2 * tol * s[0]
    return any(s[i] - s[i + width - 1] <= close and s[i] > close for i in range(r - width + 1))


def triplets(L: Lanczos, V0: Array, r: int) -> tuple[Array, Host, Array, float, Array]:
    """U, s, V of the r largest in the span of V0, the residual measured with them, and op(M)ᵀ U."""
    M, xp = L.M, L.xp
    V = L.cast(V0)
    Y = M.accurately(V, L.turned)
    Q = orthonormal(Y)
    P, s, Zt = svd_thin(xp.matrix_transpose(Q) @ Y)
    s, Z = s[:r], xp.matrix_transpose(Zt)[:, :r]
    U, V = L.cast(Q @ P[:, :r]), L.cast(float64(V) @ Z)
    back = M.accurately(U, not L.turned)
    if s[0] == 0:
        return U, s, V, 0.0, back
    d = to_device(s, xp, M.place)[None, :]
    right = column_norms(float64(V) * d - back)
    left = column_norms(float64(U) * d - M.accurately(V, L.turned))
    return U, s, V, float(max(left.max(), right.max()) / s[0]), back


def krylov(
    M: LinearMap,
    rank: int,
    tol: float,
    frobenius_tol: float,
    squared_norm: float,
    seed: int,
    max_columns: int,
    stop_at_limit: bool,
    widest: int = 0,
) -> tuple[Array, Host, Array, float, int]:
    """U, s, V, measured residual and columns multiplied."""
    n = min(M.shape)
    cap = min(rank, n)
    adaptive = frobenius_tol > 0
    wanted = min(cap, 32) if adaptive else cap
    L = Lanczos(M, wanted, seed, widest)
    next_check = wanted + wanted // 2 + 2 * L.width
    last_error, last_columns, best_error, idle = 0.0, 0, math.inf, 0
    strict = 1.0  # less where an estimate was not kept
    goal = math.inf if stop_at_limit else tol
    best: tuple[Array, Host, Array, float, Array] | None = None
    eps = 2.0**-52 if M.dtype == M.xp.float64 else 2.0**-23
    stagnation = 400 * eps  # residuals below this may be rounding that refinement takes out

    def refined(r: int) -> tuple[Array, Host, Array, float, Array]:
        # squares lose half of the digits of small values; the basis has them still, for as many products more
        everything = L.width == 0 and sigma[r - 1] < (1e-5 if M.dtype == M.xp.float64 else 0.03) * sigma[0]
        found = triplets(L, L.straight(Q if everything else Q[:, :r]), r)
        back = found[4]
        # half steps of orthogonal iteration in float64 take the rounding of the Lanczos vectors out
        while goal < found[3] < stagnation:
            now = triplets(L, orthonormal(back), r)
            back = now[4]
            helped = now[3] < 0.9 * found[3]
            if now[3] < found[3]:
                found = now
            if not helped:
                break
        if not everything and found[3] > goal:
            found = min(found, triplets(L, L.straight(L.ritz(L.size)[2]), r), key=lambda t: t[3])
        return found

    finished = False  # the basis as it is

    def done() -> bool:
        """Or not worth going on: no better by half than what there was."""
        nonlocal best, finished
        r = min(wanted, L.size)
        now, finished = refined(r), True
        before = best[3] if best is not None and len(best[1]) == r else math.inf
        if best is None or now[3] < before:
            best = now
        return best[3] <= goal or not now[3] < 0.5 * before

    while True:
        if L.size + L.width <= L.capacity and L.width > 0:
            L.expand()
        full, whole = L.size + L.width > L.capacity, L.width == 0
        spent = L.columns >= max_columns and L.size >= min(wanted, n)
        if not full and not whole and not spent and (stop_at_limit or L.size < next_check):
            continue
        keep = L.size if whole else min(wanted + max(wanted // 4, 2 * L.width), L.size)
        sigma, residual, Q = L.ritz(keep)
        finished = False
        if adaptive:
            r = rank_of_tail(sigma, squared_norm, frobenius_tol, cap)
            if r == 0 and not whole and not spent:  # not deep enough yet to tell
                wanted = min(cap, 2 * wanted)
                L.capacity = max(L.capacity, min(n, depth_for(wanted, L.width, n)))
                next_check = L.size + wanted // 2 + L.width
                continue
            wanted = r if r > 0 else min(cap, keep)
        error = float(residual[: min(wanted, L.size)].max()) if sigma[0] > 0 else 0.0
        # estimates leave room for the rounding that the measured residual has beside them
        steep = float(sigma[0]) / max(float(sigma[min(wanted, L.size) - 1]), float(np.finfo(np.float64).tiny))
        target = strict * max(0.5 * tol, tol - 64 * eps * steep)
        if whole or sigma[0] == 0:
            break
        near = L.size >= wanted and error <= target
        if near and not spent and crowded(sigma, wanted, L.width, tol):
            L.restart(sigma, Q, min(keep, L.size - 1))
            L.widen()
            next_check, last_columns = L.size + 2 * L.width, 0
            continue
        if spent:
            break
        if near:
            if done():
                break
            strict *= 0.1
        # Equal singular values, found to rounding, change places with copies that are still being found: their vectors
        # are none the worse for it, and finishing them shows whether they are good enough.
        if error < 0.5 * best_error:
            best_error, idle = error, 0
        elif full and L.size >= wanted and error < stagnation and not finished:
            idle += 1
            if idle == 4:
                if done():
                    break
                idle = -12
        # log(error) falls ever faster: going by its last slope is too far, a fifth of it is not
        more = wanted
        if last_columns > 0 and error < last_error:
            slope = math.log(last_error / error) / (L.columns - last_columns)
            more = int(min(0.2 * math.log(error / target) / slope if target > 0 else 1e9, 1e9))
        last_error, last_columns = error, L.columns
        if full:
            L.restart(sigma, Q, min(keep, L.size - 1))
        next_check = L.size + max(more, 3 * L.width)

    if not finished:
        done()
    assert best is not None
    U, s, V, measured, _ = best
    if adaptive:  # the values of the basis were a little too small
        r = rank_of_tail(s, squared_norm, frobenius_tol, cap) or len(s)
        U, s, V = U[:, :r], s[:r], V[:, :r]
    if L.turned:
        U, V = V, U
    return U, s, V, measured, L.columns
