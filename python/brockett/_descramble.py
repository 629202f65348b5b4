"""The descrambler P of a layer: what it is made from, and what comes out."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from . import _arrays, _files, _options
from ._arrays import Operand, Space
from ._autocorrelation import Autocorrelation
from ._engine import Engine
from ._errors import FileFormatError, InvalidArgument, InvalidType, PrecisionWarning
from .penalty import FourierDerivative, Penalty

__all__ = ["BrockettCost", "Descrambling", "Diagonalization", "brockett_cost", "descramble", "diagonalize"]

GROUPS = ("orthogonal", "special_orthogonal", "permutation")
GAUGES = ("identity", "canonical")
CRITERIA = ("sum", "square")

_FORMAT = "brockett.Descrambling/1"
_DEFAULT_PENALTY = FourierDerivative(order=2)


@dataclass(frozen=True, eq=False)
class Descrambling:
    """A descrambler and what is known about it. All costs are per sample.

    Attributes
    ----------
    P : array (n, n)
        The descrambler, in the dtype of the weights. Row i is output i in terms of the neurons.
    weights : array or None
        P W, folded back to the shape of W; None where only pre-activations were given.
    permutation : array of int64 (n,) or None
        group="permutation": row i of P W is row permutation[i] of W.
    cost : float
        η(P) = ‖D P Y‖²/N, evaluated in float64 from the P above after its cast, never copied from the optimum. NaN with
        verify=False.
    optimum : float or None
        Σ λᵢ σᵢ², the exact minimum over orthogonal P. None for permutations, and where `rank` left σᵢ unknown.
    identity_cost : float
        η(I): of the layer as it is. NaN with verify=False.
    bound : float
        A lower bound of the cost in the group: the optimum, or the projection bound for permutations. With `rank`, the
        least that variances with this beginning and the trace of C can cost: Σ λᵢ σᵢ² over the known ones, and what is
        left of the trace spread over the smoothest modes after them, none above the first variance that was cut off.
    rank : int
        Numerical rank of C = E[y yᵀ], at most the `rank` asked for. Rows of P W beyond it are fixed by the gauge alone.
    sigma : array (n,) or (rank,), float64
        Standard deviations of the outputs, descending: square roots of the eigenvalues of C, as many as were asked for.
    gauge_conditioning : float or None
        1 is ideal; near 0 the choice of P among its equals is arbitrary. None for the canonical gauge and permutations.
    blocks : array of int64 (n_blocks + 1,)
        Where each block of equal penalty eigenvalues starts, with n at the end.
    block_error : array (n_blocks,), float64, or None
        Sampling error of the subspace of each block, sqrt(E‖sin Θ‖²_F), at most the square root of its size; with
        `rank` an upper bound of it, and that square root beyond the cut. None where the number of samples is unknown,
        sources are stacked, and for permutations.
    used : dict
        What went in: source, engine, n_samples, center, bias, penalty, group, gauge, precision and method of R, the
        model of the errors, …
    """

    P: Any
    weights: Any
    permutation: Any
    cost: float
    optimum: float | None
    identity_cost: float
    bound: float
    rank: int
    sigma: Any
    gauge_conditioning: float | None
    blocks: Any
    block_error: Any
    used: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        optimum = "None" if self.optimum is None else f"{self.optimum:.6g}"
        return (
            f"Descrambling(n={self.P.shape[0]}, cost={self.cost:.6g}, optimum={optimum}, "
            f"identity_cost={self.identity_cost:.6g}, rank={self.rank}, source={self.used.get('source')!r})"
        )

    def save(self, path: _files.PathLike) -> None:
        """Write everything to an `.npz` file, atomically.

        Parameters
        ----------
        path : path-like
            Taken as given, no suffix is added.

        Raises
        ------
        OSError
            The file cannot be written.

        Notes
        -----
        Arrays that are None are left out; numbers are 0-d arrays (NaN for None), `used` is JSON in a string.

        Examples
        --------
        >>> import numpy as np, brockett as bk, tempfile, os
        >>> d = bk.descramble(np.eye(3))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     d.save(os.path.join(folder, "d.npz"))
        ...     bk.Descrambling.load(os.path.join(folder, "d.npz")).rank
        3
        """
        data: dict[str, Any] = {"format": np.array(_FORMAT), "used": np.array(json.dumps(self.used))}
        for name in _ARRAYS:
            value = getattr(self, name)
            if value is not None:
                host = _arrays.accept(value, name).host()
                data[name] = host.astype(np.int64) if name in _INTEGERS else host
        for name in _NUMBERS:
            value = getattr(self, name)
            data[name] = np.array(np.nan if value is None else value)
        _files.save_npz(path, data)

    @classmethod
    def load(cls, path: _files.PathLike) -> Descrambling:
        """Read what `save` wrote; arrays are NumPy's.

        Parameters
        ----------
        path : path-like

        Returns
        -------
        descrambling : Descrambling

        Raises
        ------
        FileFormatError
            The file is damaged, truncated, a pickle, or was not written by `save`.
        OSError
            The file cannot be opened.
        """
        data = _files.load_npz(path, ("format", "used", "P", "sigma", "blocks", *_NUMBERS))
        try:
            if str(data["format"]) != _FORMAT:
                raise ValueError(f"its format is {str(data['format'])!r}, expected {_FORMAT!r}")
            values: dict[str, Any] = {name: data.get(name) for name in _ARRAYS}
            values |= {name: float(data[name]) for name in _NUMBERS}
            for name in ("optimum", "gauge_conditioning"):
                values[name] = None if np.isnan(values[name]) else values[name]
            values["rank"] = int(data["rank"])
            n = values["P"].shape[0]
            used = dict(json.loads(str(data["used"])))
            known = n if used.get("group") == "permutation" else used.get("rank") or n
            if values["P"].shape != (n, n) or values["sigma"].shape != (known,):
                raise ValueError(f"P has shape {values['P'].shape}, sigma {values['sigma'].shape}")
            return cls(**values, used=used)
        except (ValueError, TypeError, IndexError) as error:
            raise FileFormatError(f"{path}: is not a descrambling saved by brockett ({error})") from error

    def plot(self, path: _files.PathLike) -> None:
        """Draw the layer before and after to a PNG file.

        Parameters
        ----------
        path : path-like
            Where the picture goes.

        Raises
        ------
        ImportError
            matplotlib is missing (``pip install 'brockett[cli]'``).

        Notes
        -----
        Raw and descrambled weights, the magnitudes of their 2-D DFT, and the singular values and leading left singular
        vectors of the descrambled weights. Where no weights were given: P, its 2-D DFT, and sigma. That pictures become
        smoother is no proof of structure: descrambling an untrained layer does it, too. Compare with such a layer.
        """
        from . import plotting

        plotting.plot_descrambling(self, path)


_ARRAYS = ("P", "weights", "permutation", "sigma", "blocks", "block_error")
_INTEGERS = ("permutation", "blocks")
_NUMBERS = ("cost", "optimum", "identity_cost", "bound", "rank", "gauge_conditioning")
assert {f.name for f in fields(Descrambling)} == {*_ARRAYS, *_NUMBERS, "used"}


def descramble(
    W: Any = None,
    *,
    inputs: Any = None,
    preactivations: Any = None,
    autocorrelation: Any = None,
    n_samples: int | None = None,
    bias: Any = None,
    center: bool = False,
    stack: Iterable[tuple[float, Any]] = (),
    penalty: Penalty = _DEFAULT_PENALTY,
    group: str = "orthogonal",
    gauge: Any = "identity",
    rank: int | None = None,
    seed: int = 0,
    starts: int = 8,
    max_sweeps: int = 1000,
    verify: bool = True,
) -> Descrambling:
    """The orthogonal P that makes the outputs P W x of a layer smoothest, in closed form.

    P minimises the Brockett cost η(P) = ‖D P Y‖²/N = tr(A P C Pᵀ), with A = DᵀD the penalty and C = E[y yᵀ] the second
    moments of the pre-activations y = W x (+ b). With A = T diag(λ) Tᵀ ascending and C = U diag(σ²) Uᵀ descending,
    P = T Uᵀ and the optimum is Σ λᵢ σᵢ².

    Parameters
    ----------
    W : array_like (n, m) or (n, in, k…), optional
        Weights of the layer; those of convolutions are unfolded to (n, in k…). May be left out with `preactivations`.
    inputs : array_like (…, n_samples, m), optional
        Samples of x. Read in place, block by block: may be a memory-mapped array larger than memory.
    preactivations : array_like (…, n_samples, n), optional
        Samples of y itself.
    autocorrelation : Autocorrelation or array_like (m, m), optional
        R = E[x xᵀ], accumulated before. At most one of these three; without any, inputs are white: R = I. Say which one
        a published P was made from: that of white inputs costs 26 times the optimum on real data, in our experiments.
    n_samples : int, optional
        Number of samples behind a bare matrix `autocorrelation`; without it there are no error bars.
    bias : array_like (n,), optional
        b; left out unless given. With an `Autocorrelation` its mean is used; a bare matrix has none.
    center : bool, default False
        Take the covariance of y instead of E[y yᵀ] (the bias then has no effect). The mean often holds most of the
        energy and then fixes the first row of P W.
    stack : iterable of (alpha, Y2), optional
        Further pre-activations of the same n neurons, (…, n_samples, n): C += alpha Y2ᵀY2/N2, alpha ≥ 0. For the other
        layers that share these neurons.
    penalty : Penalty, default FourierDerivative(order=2)
        A; see `brockett.penalty`.
    group : {"orthogonal", "special_orthogonal", "permutation"}, default "orthogonal"
        Which P are allowed. Rotations do not pass through a nonlinearity, permutations do; the best one is a quadratic
        assignment problem, of which a good solution and a lower bound are returned.
    gauge : {"identity", "canonical"} or array_like (n, n), default "identity"
        Which of the equally good P is returned: the one nearest to I (no data give P = I), P = T Uᵀ with sign-fixed
        eigenvectors, or the one nearest to a given orthogonal P0. Compare the P of two computations in one gauge only.
    rank : int, optional
        Treat the spectrum beyond the first `rank` directions as noise: the smoothest modes get the leading directions
        as ever, and the rest is moved as little as it can be, so that P - I (or P - P0) has rank 2 `rank` or a little
        more. For large layers of which a few directions are wanted: n² rank operations instead of n³. A cut through
        equal variances is moved to before them. `optimum` is then unknown, `bound` is below it. Ignored for
        permutations.
    seed : int, default 0
        Of the randomized starts of the permutation search; the same seed gives the same bits on every engine.
    starts : int, default 8
        Number of these.
    max_sweeps : int, default 1000
        Cap on the sweeps of each local search.
    verify : bool, default True
        Evaluate the cost of the P returned, that of the identity, and the sampling errors. Turn it off to save 2 n³
        flops, or with samples the second reading of them; costs are NaN and errors None then.

    Returns
    -------
    descrambling : Descrambling
        P, P W, cost, optimum, error bars and more; arrays in the library and on the device of W, P in its dtype
        (float32 for half types, float64 for integers).

    Raises
    ------
    InvalidArgument
        Two sources; W left out without `preactivations`; `center` or `bias` with a bare matrix; a gauge with
        "permutation"; an R that is not symmetric positive semidefinite; a P0 that is not orthogonal; shapes that do not
        fit; an unknown word.
    NonFinite
        A NaN or Inf; the message names the argument and the index in it.
    InvalidType
        Not arrays of real numbers, or of several libraries or devices.

    Warns
    -----
    PrecisionWarning
        R was accumulated with anything but precision="double": the error can exceed the optimum itself on smooth data.

    Notes
    -----
    N n (m + n) flops for samples, or n m² for R; 9 n³ for the eigenvectors; n² log n for a closed-form penalty. P is
    not unique: rows within blocks of equal λ or σ may be mixed. `gauge_conditioning` tells how well the gauge fixed
    that, and `block_error` how much of each block the sample fixed. The sampling errors assume independent samples.

    With `rank` = r, after C is there: some 10 r products of C with a vector by block Lanczos, to a residual of 1e-13,
    or a decomposition where that is cheaper; 24 n² r flops for P, P W and the cost from C, n² log n for the modes
    (samples are gone through again for the cost, 2 N n²). The complement of the leading directions is mapped onto that
    of the r smoothest modes by the direct rotation between them (Davis and Kahan, SIAM J. Numer. Anal. 7 (1970) 1),
    which is the identity but for 2 r dimensions. A gauge given as P0 adds n³ flops to see that it is orthogonal; where
    it is so to 1e-6 only, its polar factor is meant. A C that is not positive semidefinite is refused where Lanczos
    meets a negative variance, and not looked for beyond that.

    References
    ----------
    arXiv 2301.07820 (closed form); Amey, Keeley, Choudhury, Kuprov, PNAS 118 (2021) e2016917118 (the descrambler);
    R. W. Brockett, Linear Algebra Appl. 146 (1991) 79.

    Examples
    --------
    >>> import numpy as np, brockett as bk
    >>> x = np.cos(2 * np.pi * np.arange(8) / 8)          # one smooth wave …
    >>> scrambled = x[[3, 1, 4, 7, 5, 0, 2, 6]]           # … whose neurons were shuffled
    >>> d = bk.descramble(preactivations=scrambled[np.newaxis, :])
    >>> d.identity_cost > 10 * d.cost
    True
    >>> round(d.optimum, 12), d.rank                      # the energy of one sample fits into the constant mode
    (0.0, 1)
    """
    _check_sources(W, inputs, preactivations, autocorrelation)
    _check_words(penalty, group, gauge)
    centered = _options.flag("center", center)
    weights = None if W is None else _arrays.unfolded(_arrays.accept(W, "W"))
    stacked = _stack_items(stack)
    source = _Source(weights, inputs, preactivations, autocorrelation, stacked)
    n = source.n
    space = source.space
    penalty._size(n, "penalty")
    if rank is not None and not 1 <= _options.count("rank", rank) <= n:
        raise InvalidArgument("rank", f"expected 1 to {n}, got {rank}")
    given = None
    if not isinstance(gauge, str):
        given = _arrays.accept(gauge, "gauge").in_space(space)
        _arrays.common_space(source.first, given)
        if given.shape != (n, n):
            raise InvalidArgument("gauge", f"P0 must have shape ({n}, {n}), got {given.shape}")
        given = _arrays.matrix(given).as_float64()
    engine = space.engine(source.first.argument)
    spec, used = source.describe(engine, bias, centered, n_samples)
    dtype = source.first.dtype
    with _arrays.user_errors(weights, source.samples, given, *source.stack_operands, rename=_RENAMED):
        found = engine.module.descramble(
            None if weights is None else source.weights_array(space),
            spec,
            penalty._spec(),
            group,
            "given" if given is not None else gauge,
            None if given is None else given.array,
            0 if rank is None else int(rank),
            _options.seed("seed", seed),
            _options.count("starts", starts),
            _options.count("max_sweeps", max_sweeps),
            dtype,
            _options.flag("verify", verify),
        )
    used |= {
        "engine": engine.name,
        "dtype": dtype,
        "penalty": repr(penalty),
        "group": group,
        "gauge": "given" if given is not None else gauge if group != "permutation" else None,
        "rank": rank,
        "error_model": found["error_model"] or None,
    }
    if group == "permutation":
        used |= {"seed": int(seed), "starts": int(starts), "max_sweeps": int(max_sweeps)}
    return _result(found, weights, space, used)


def _result(found: dict[str, Any], weights: Operand | None, space: Space, used: dict[str, Any]) -> Descrambling:
    folded = found["weights"]
    if folded is not None and weights is not None:
        folded = space.back(space.xp.reshape(folded, weights.shape))

    def number(value: Any) -> float | None:
        return None if value is None or np.isnan(value) else float(value)

    def back(value: Any) -> Any:
        return None if value is None else space.back(value)

    return Descrambling(
        P=space.back(found["P"]),
        weights=folded,
        permutation=back(found["permutation"]),
        cost=float(found["cost"]),
        optimum=number(found["optimum"]),
        identity_cost=float(found["identity_cost"]),
        bound=float(found["bound"]),
        rank=int(found["rank"]),
        sigma=space.back(found["sigma"]),
        gauge_conditioning=number(found["gauge_conditioning"]),
        blocks=space.back(found["blocks"]),
        block_error=back(found["block_error"]),
        used=used,
    )


#: Names that engines use for what the caller calls otherwise.
_RENAMED = {
    "P0": "gauge",
    "Y": "preactivations",
    "X": "inputs",
    "R": "autocorrelation",
    "Autocorrelation": "autocorrelation",
}


class _Source:
    """What C is made from: the one source given, in the one place of all arrays."""

    def __init__(
        self,
        weights: Operand | None,
        inputs: Any,
        preactivations: Any,
        autocorrelation: Any,
        stacked: list[tuple[float, Operand]],
    ) -> None:
        self.weights = weights
        self.kind = "isotropic"
        self.samples: Operand | None = None
        self.accumulator: Autocorrelation | None = None
        if inputs is not None:
            self.kind = "inputs"
            self.samples = _arrays.accept(inputs, "inputs", samples=True)
        elif preactivations is not None:
            self.kind = "preactivations"
            self.samples = _arrays.accept(preactivations, "preactivations", samples=True)
        elif isinstance(autocorrelation, Autocorrelation):
            self.kind = "accumulator"
            self.accumulator = autocorrelation
        elif autocorrelation is not None:
            self.kind = "matrix"
            self.samples = _arrays.accept(autocorrelation, "autocorrelation")
        first = weights if weights is not None else self.samples
        assert first is not None
        self.space = _arrays.common_space(weights, self.samples, *(item for _, item in stacked))
        self.first = first.in_space(self.space)
        self.n = weights.shape[0] if weights is not None else first.shape[-1] if first.ndim else 0
        self._lay_out(stacked)

    def _lay_out(self, stacked: list[tuple[float, Operand]]) -> None:
        """Shapes, checked; and arrays that the engine can read."""
        m = None if self.weights is None else int(self.weights.array.shape[1])
        if self.samples is not None:
            samples = _no_bfloat16(self.samples.in_space(self.space))
            if self.kind == "matrix":
                if samples.shape != (m, m):
                    raise InvalidArgument("autocorrelation", f"expected shape ({m}, {m}) to fit W, got {samples.shape}")
                samples = _arrays.matrix(samples).as_float64()
            else:
                wanted = m if self.kind == "inputs" else None if self.weights is None else self.n
                samples = _some_samples(_arrays.sample_rows(samples, wanted))
            self.samples = samples
        if self.accumulator is not None and self.accumulator.n_features != m:
            raise InvalidArgument("autocorrelation", f"is of {self.accumulator.n_features} features, W takes {m}")
        self.stack = [
            (alpha, _some_samples(_arrays.sample_rows(_no_bfloat16(item.in_space(self.space)), self.n)))
            for alpha, item in stacked
        ]

    @property
    def stack_operands(self) -> list[Operand]:
        return [item for _, item in self.stack]

    def weights_array(self, space: Space) -> Any:
        assert self.weights is not None
        return self.weights.in_space(space).array

    def describe(
        self, engine: Engine, bias: Any, center: bool, n_samples: int | None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The engine's description of the source, and the record of it for the result."""
        if self.kind != "matrix" and n_samples is not None:
            raise InvalidArgument(
                "n_samples", "goes with a bare matrix autocorrelation only; here it is known or has no meaning"
            )
        vector = self._bias(bias)
        if self.kind == "matrix" and center:
            raise InvalidArgument(
                "center", "needs the mean of the inputs, which a bare matrix does not hold; pass an Autocorrelation"
            )
        spec: dict[str, Any] = {"kind": self.kind, "center": center, "bias": vector}
        used: dict[str, Any] = {"source": self.kind, "n_samples": None, "center": center, "bias": vector is not None}
        if self.kind == "isotropic":
            # The mean of white inputs is zero, so centring takes away the bias and nothing else.
            spec = {"kind": "isotropic", "bias": None if center else vector}
        elif self.kind == "matrix":
            assert self.samples is not None
            known = 0 if n_samples is None else _options.count("n_samples", n_samples, least=1, most=2**62)
            spec = {"kind": "matrix", "R": self.samples.array, "n_samples": known}
            used["n_samples"] = known or None
        elif self.accumulator is not None:
            spec["acc"] = self.accumulator._for_engine(engine, self.space)
            used |= {
                "n_samples": self.accumulator.n_samples,
                "method": self.accumulator.method,
                "precision": self.accumulator.precision,
                "accumulated_center": self.accumulator.center,
            }
            if self.accumulator.precision != "double":
                warnings.warn(
                    f"this descrambler is made from an autocorrelation of precision={self.accumulator.precision!r}; on "
                    "smooth data float32 products cost 4 % to 22 % of the optimum, rounded samples more, and both more "
                    "for ill-conditioned data: accumulate with precision='double'",
                    PrecisionWarning,
                    stacklevel=3,
                )
        else:
            assert self.samples is not None
            spec["Y" if self.kind == "preactivations" else "X"] = self.samples.array
            if self.kind == "preactivations":
                del spec["bias"]
            used |= {"n_samples": int(self.samples.array.shape[0]), "method": "gram", "precision": "double"}
        if self.stack:
            spec["stack"] = [(alpha, item.array) for alpha, item in self.stack]
            used["stack"] = [{"alpha": alpha, "n_samples": int(item.array.shape[0])} for alpha, item in self.stack]
        return spec, used

    def _bias(self, bias: Any) -> Any:
        if bias is None:
            return None
        if self.kind == "preactivations":
            raise InvalidArgument("bias", "pre-activations hold their bias already")
        if self.kind == "matrix":
            raise InvalidArgument(
                "bias", "needs the mean of the inputs, which a bare matrix does not hold; pass an Autocorrelation"
            )
        return _arrays.host_vector(bias, "bias", self.n, self.space)


def _check_sources(W: Any, inputs: Any, preactivations: Any, autocorrelation: Any) -> None:
    sources = {"inputs": inputs, "preactivations": preactivations, "autocorrelation": autocorrelation}
    named = [name for name, value in sources.items() if value is not None]
    if len(named) > 1:
        raise InvalidArgument(named[1], f"at most one source is taken, {' and '.join(named)} were given")
    if W is None and preactivations is None:
        raise InvalidArgument("W", "may be left out only where preactivations are given")


def _check_words(penalty: Any, group: Any, gauge: Any) -> None:
    _options.option("group", group, GROUPS)
    if not isinstance(penalty, Penalty):
        raise InvalidType("penalty", f"expected a penalty of brockett.penalty, got {penalty!r}")
    if isinstance(gauge, str):
        if gauge not in GAUGES:
            raise InvalidArgument(
                "gauge", f"expected 'identity', 'canonical' or an orthogonal matrix P0, got {gauge!r}"
            )
    elif gauge is None:
        raise InvalidType("gauge", "expected 'identity', 'canonical' or an orthogonal matrix P0, got None")
    if group == "permutation" and not (isinstance(gauge, str) and gauge == "identity"):
        raise InvalidArgument("gauge", "has no meaning for permutations: leave it at 'identity'")


def _stack_items(stack: Any) -> list[tuple[float, Operand]]:
    items: list[tuple[float, Operand]] = []
    if isinstance(stack, str) or not hasattr(stack, "__iter__"):
        raise InvalidType("stack", f"expected pairs (alpha, Y2), got {stack!r}")
    for item in stack:
        if not isinstance(item, Sequence) or len(item) != 2:
            raise InvalidType("stack", "expected pairs (alpha, Y2)")
        alpha = _options.number("stack", item[0], least=0)
        items.append((alpha, _arrays.accept(item[1], "stack", samples=True)))
    return items


def _no_bfloat16(operand: Operand) -> Operand:
    """The engines' descramblers read bfloat16 as float32; exact, at twice the memory."""
    if not operand.bfloat16:
        return operand
    return Operand(_arrays.widen_bfloat16(operand.array), operand.argument, operand.shape, "float32", operand.space)


def _some_samples(operand: Operand) -> Operand:
    if operand.array.shape[0] == 0:
        raise InvalidArgument(operand.argument, f"must not be empty, got shape {operand.shape}")
    return operand


@dataclass(frozen=True, eq=False)
class Diagonalization:
    """P that makes P W as diagonal as can be.

    Attributes
    ----------
    P : array (n, n)
        In the dtype of W.
    weights : array
        P W, in the shape of W.
    value : float
        The criterion, evaluated in float64 from the P above after its cast.
    bound : float
        Upper bound: the nuclear norm of W over its min(n, m) columns for "sum" (attained), ‖W‖²_F for "square".
    iterations : int
        0 for the closed form.
    converged : bool
    """

    P: Any
    weights: Any
    value: float
    bound: float
    iterations: int
    converged: bool


def diagonalize(
    W: Any,
    criterion: str = "sum",
    group: str = "orthogonal",
    max_iterations: int = 1000,
    tol: float = 1e-14,
) -> Diagonalization:
    """The orthogonal P that makes P W as diagonal as can be: which output belongs to which input.

    Parameters
    ----------
    W : array_like (n, m) or (n, in, k…)
        Weights; those of convolutions are unfolded to (n, in k…). The diagonal has min(n, m) entries.
    criterion : {"sum", "square"}, default "sum"
        "sum": maximise Σᵢ (P W)ᵢᵢ, in closed form by the polar factor. "square": maximise Σᵢ (P W)ᵢᵢ², by the monotone
        iteration P ← polar(diag(d) Wᵀ), d = diag(P W), from the closed form; where entries of either sign may be large.
    group : {"orthogonal", "special_orthogonal"}, default "orthogonal"
        Which P are allowed.
    max_iterations : int, default 1000
        "square": cap on the iterations; 9 to 18 are typical.
    tol : float, default 1e-14
        "square": stop when an iteration gains less than this share.

    Returns
    -------
    diagonalization : Diagonalization

    Raises
    ------
    NonFinite, InvalidArgument, InvalidType, NotConverged
        As `brockett.svd`.

    Notes
    -----
    One SVD of n, 22 n³ flops, for "sum"; as much per iteration for "square".

    References
    ----------
    G. H. Golub, C. F. Van Loan, Matrix Computations, section 6.4.1 (orthogonal Procrustes problem); arXiv 2301.07820,
    section 5 for maximum diagonality of layers.

    Examples
    --------
    >>> import numpy as np, brockett as bk
    >>> bk.diagonalize([[0.0, 1.0], [2.0, 0.0]]).weights.round(12).tolist()
    [[2.0, 0.0], [0.0, 1.0]]
    """
    weights = _arrays.unfolded(_arrays.accept(W, "W"))
    space = weights.space
    with _arrays.user_errors(weights):
        found = space.engine("W").module.diagonalize(
            weights.array,
            _options.option("criterion", criterion, CRITERIA),
            _options.option("group", group, GROUPS[:2]),
            _options.count("max_iterations", max_iterations),
            _options.number("tol", tol, least=0),
        )
    return Diagonalization(
        space.back(found["P"]),
        space.back(space.xp.reshape(found["weights"], weights.shape)),
        float(found["value"]),
        float(found["bound"]),
        int(found["iterations"]),
        bool(found["converged"]),
    )


@dataclass(frozen=True, eq=False)
class BrockettCost:
    """Value and gradient of the Brockett cost; unpacks as ``value, gradient``.

    Attributes
    ----------
    value : float
        tr(A P C Pᵀ).
    gradient : array (n, n), float64
        2 A P C, the Euclidean gradient in P.
    """

    value: float
    gradient: Any

    def __iter__(self) -> Any:
        return iter((self.value, self.gradient))


def brockett_cost(P: Any, C: Any, penalty: Penalty = _DEFAULT_PENALTY) -> BrockettCost:
    """Cost η(P) = tr(A P C Pᵀ) of any P, and its gradient 2 A P C.

    Parameters
    ----------
    P : array_like (n, n)
        Orthogonal or not.
    C : array_like (n, n)
        E[y yᵀ], symmetric.
    penalty : Penalty, default FourierDerivative(order=2)
        A.

    Returns
    -------
    cost : BrockettCost
        `value` and `gradient`, in float64.

    Raises
    ------
    NonFinite, InvalidArgument, InvalidType
        As `descramble`.

    Notes
    -----
    4 n³ flops. The value is summed as Σ λᵢ (Q C Qᵀ)ᵢᵢ with Q = Tᵀ P. The Riemannian gradient on O(n) is
    (G - P Gᵀ P)/2 with G the gradient returned.

    References
    ----------
    R. W. Brockett, Linear Algebra Appl. 146 (1991) 79.

    Examples
    --------
    >>> import numpy as np, brockett as bk
    >>> value, gradient = bk.brockett_cost(np.eye(3), np.eye(3))
    >>> round(value, 12), gradient.shape                   # the sum of 0, 1, 1
    (2.0, (3, 3))
    """
    if not isinstance(penalty, Penalty):
        raise InvalidType("penalty", f"expected a penalty of brockett.penalty, got {penalty!r}")
    p, c = _arrays.accept(P, "P"), _arrays.accept(C, "C")
    space = _arrays.common_space(p, c)
    p, c = (_arrays.matrix(one.in_space(space)).as_float64() for one in (p, c))
    n = p.shape[0]
    for one in (p, c):
        if one.shape != (n, n):
            raise InvalidArgument(one.argument, f"expected shape ({n}, {n}), got {one.shape}")
    penalty._size(n, "penalty")
    with _arrays.user_errors(p, c):
        found = space.engine("P").module.brockett_cost(p.array, c.array, penalty._spec())
    return BrockettCost(float(found["value"]), space.back(found["gradient"]))
