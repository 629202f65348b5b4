"""Autocorrelation R = E[x xᵀ] of the inputs of a layer, accumulated from batches."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _arrays, _device, _files, _options
from ._arrays import HOST, Operand, Space
from ._engine import Engine, engine_for, load
from ._errors import BrockettError, FileFormatError, InvalidArgument, InvalidType

__all__ = ["Autocorrelation", "autocorrelation"]

METHODS = ("gram", "qr")
PRECISIONS = ("double", "single", "tf32", "bf16", "fp16")

_FORMAT = "brockett.Autocorrelation/1"
_FIELDS = ("n_features", "n_samples", "weight", "center", "method", "precision", "mean", "moment")


class Autocorrelation:
    """A streaming accumulator of R = Σᵢ wᵢ xᵢ xᵢᵀ / Σᵢ wᵢ.

    Parameters
    ----------
    n_features : int
        Length of a sample x.
    center : bool, default False
        Report the covariance E[(x - μ)(x - μ)ᵀ] instead of E[x xᵀ]. The central moment is what is summed then, so that
        no digits cancel. The mean is kept in either case.
    method : {"gram", "qr"}, default "gram"
        "gram" adds up x xᵀ. "qr" streams a square root L of it, R = L Lᵀ, by LQ: about twice the cost, for data whose
        condition number is beyond 1e7, where the Gram matrix loses the small end of the spectrum.
    precision : {"double", "single", "tf32", "bf16", "fp16"}, default "double"
        "double": float64 products and totals, whatever the data. "single": float32 products within a block of samples,
        float64 totals; half the cost, 1e-7 of the largest eigenvalue as the error. "tf32", "bf16" and "fp16" round the
        samples to the 10, 7 or 10 bits of mantissa of these types, on a CUDA device only, whose tensor units sum their
        products in float32; totals are float64. The rounding is an error of 5e-4 ("bf16": 4e-3) in every entry of x
        that the type does not hold: none for samples that came as bfloat16 or float16. Where a descrambler is made from
        anything but "double" there is a warning: on smooth data float32 products cost 4 % to 22 % of the optimum. Only
        with "gram".
    device : {None, "cuda", "cuda:<n>"}, torch.device or cupy.cuda.Device, default None
        Where to sum. None: where the samples are. With a CUDA device, samples in host memory are taken as well: they
        are streamed through pinned buffers, copy and sums overlapped, so a memory-mapped file may be larger than the
        memory of the device. Results are then on the device: PyTorch tensors for a torch.device and for samples that
        are tensors, CuPy arrays for a cupy.cuda.Device, and otherwise `DeviceArray`, which any library takes over
        without a copy (``torch.from_dlpack(acc.matrix())``).

    Attributes
    ----------
    n_features, center, method, precision, device
        As given.
    n_samples : int
        Samples with a weight above zero.
    weight : float
        Sum of the weights.

    Raises
    ------
    InvalidArgument
        An unknown word, `n_features` below 1, or anything but precision="double" with method="qr".
    EngineUnavailable
        There is no such CUDA device, or no plugin for it.

    Notes
    -----
    Memory is O(n_features²) however many samples pass; an update costs n_samples n_features² flops. Results do not
    depend on how the samples were split into batches, to rounding: moments are merged pairwise (Chan, Golub, LeVeque).

    An update that raises leaves the accumulator as it was. One accumulator may be used from several threads: its calls
    then wait for each other. For parallel sums give every thread its own and `merge` them. Accumulators can be pickled
    and copied.

    References
    ----------
    T. F. Chan, G. H. Golub, R. J. LeVeque, The American Statistician 37 (1983) 242; arXiv 2301.07820, section 3.

    Examples
    --------
    >>> import numpy as np, brockett as bk
    >>> acc = bk.Autocorrelation(2)
    >>> acc.update([[1.0, 0.0], [1.0, 2.0]])
    >>> acc.update(np.array([[1.0, 4.0]], dtype=np.float32))
    >>> acc.matrix().round(3).tolist()
    [[1.0, 2.0], [2.0, 6.667]]
    >>> acc.mean().tolist(), acc.n_samples
    ([1.0, 2.0], 3)
    """

    def __init__(
        self,
        n_features: int,
        center: bool = False,
        method: str = "gram",
        precision: str = "double",
        *,
        device: Any = None,
    ) -> None:
        self._n_features = _options.count("n_features", n_features, least=1)
        self._center = _options.flag("center", center)
        self._method = _options.option("method", method, METHODS)
        self._precision = _options.option("precision", precision, PRECISIONS)
        if self._method == "qr" and self._precision != "double":
            raise InvalidArgument(
                "precision", f"{self._precision!r} goes with method='gram' only: 'qr' is there for more digits"
            )
        self._device = None if device is None else _device.Device.named(device)
        if self._device is not None and not isinstance(device, _device.Device):
            _check_device(self._device)
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.RLock()
        # Made at the first update, which tells where the samples live.
        self._engine: Engine | None = None
        self._sum: Any = None
        self._space: Space | None = None  # None: not tied to a library yet (new, loaded or unpickled)

    # --- what it is ---------------------------------------------------------------------------------------------------

    @property
    def n_features(self) -> int:
        """Length of a sample."""
        return self._n_features

    @property
    def center(self) -> bool:
        """Whether the covariance is reported."""
        return self._center

    @property
    def method(self) -> str:
        """What is summed: "gram" or "qr"."""
        return self._method

    @property
    def precision(self) -> str:
        """Precision of the products: "double" or "single"."""
        return self._precision

    @property
    def device(self) -> str | None:
        """The CUDA device that was asked for, "cuda:<n>"; None: the samples' own place."""
        return None if self._device is None else str(self._device)

    @property
    def n_samples(self) -> int:
        """Samples with a weight above zero."""
        with self._lock:
            return 0 if self._sum is None else int(self._sum.n_samples)

    @property
    def weight(self) -> float:
        """Sum of the weights."""
        with self._lock:
            return 0.0 if self._sum is None else float(self._sum.weight)

    def __repr__(self) -> str:
        return (
            f"Autocorrelation(n_features={self.n_features}, center={self.center}, method={self.method!r}, "
            f"precision={self.precision!r}) of {self.n_samples} samples"
        )

    # --- adding -------------------------------------------------------------------------------------------------------

    def update(self, X: Any, weights: Any = None, mask: Any = None) -> None:
        """Add samples.

        Parameters
        ----------
        X : array_like (…, n_samples, n_features)
            Samples in rows; leading axes are further samples. float16, bfloat16, float32, float64 or integers.
            C-ordered samples are read in place.
        weights : array_like (…, n_samples), optional
            Finite numbers of at least 0, one for each sample. A sample of weight 0 is skipped, and may hold NaN.
        mask : array_like of bool (…, n_samples), optional
            True for the samples to take, False for padding, as attention masks have it (integers 0 and 1 do, too).

        Raises
        ------
        NonFinite
            A NaN or Inf in a sample that counts; the index is that of X. Nothing of X was added.
        InvalidArgument
            A shape does not fit, a weight is negative, or magnitudes are such that squares leave float64.
        InvalidType
            Not an array of real numbers, or one of another library or device than the samples before.

        Notes
        -----
        n_samples n_features² flops ("qr": twice that). All is checked before anything is added.

        Examples
        --------
        >>> import brockett as bk
        >>> acc = bk.Autocorrelation(2)
        >>> acc.update([[[1, 2], [3, 4]], [[5, 6], [0, 0]]], mask=[[True, True], [True, False]])
        >>> acc.n_samples
        3
        """
        self._update(_arrays.accept(X, "X", samples=True), weights, mask)

    def _update(self, operand: Operand, weights: Any, mask: Any) -> None:
        with self._lock:
            space = self._space_for(operand)
            if self._device is None or operand.space.where != "host":  # else the engine streams it from host memory
                operand = operand.in_space(space)
            operand = self._rows(operand)
            counted = self._counted(operand, weights, mask)
            engine, total = self._engine, self._sum
            with _arrays.user_errors(operand, counted):
                if engine is None or total is None:
                    engine = space.engine("X")
                    total = self._new(engine, space)
                elif self._space is None and space.where != "host":
                    # Loaded from a file into host memory, and now fed from a device.
                    engine = space.engine("X")
                    total = self._kind(engine).from_state(total.state(), **space.place())
                if operand.array.shape[0] > 0:
                    self._add(total, operand, None if counted is None else counted.array)
            self._engine, self._sum, self._space = engine, total, space

    def _space_for(self, operand: Operand) -> Space:
        """Where these samples are summed, which is where those before them were."""
        space, mine = operand.space, self._space
        if self._device is not None:
            if space.where == "host":
                return mine or _space_on(self._device, space.library)
            if space.memory != str(self._device):
                raise InvalidType("X", f"is an array of {space}, but this accumulator sums on {self._device}")
            return mine or space
        if mine is None:
            return space
        if operand.neutral:
            return mine
        if not space.same(mine):
            raise InvalidType(
                "X",
                f"is an array of {space}, but this accumulator holds samples of {mine}; arrays are not moved: keep one "
                "accumulator for each, and merge them",
            )
        return space

    # What an accumulator of another kind of samples has to say anew.

    #: Name of the class in an engine, and what two accumulators that are merged must agree in.
    _ENGINE_CLASS = "Accumulator"
    _PARAMS: tuple[str, ...] = ("n_features", "center", "method", "precision")
    #: What a pickled one is made again from.
    _KEPT: tuple[str, ...] = (*_PARAMS, "device")

    def _kind(self, engine: Engine) -> Any:
        return getattr(engine.module, self._ENGINE_CLASS)

    def _rows(self, operand: Operand) -> Operand:
        """The operand with one row for each thing that has a weight."""
        return _arrays.sample_rows(operand, self.n_features)

    def _counted(self, operand: Operand, weights: Any, mask: Any) -> Operand | None:
        return _sample_weights(operand, weights, mask)

    def _add(self, total: Any, operand: Operand, weights: Any) -> None:
        total.update(operand.array, weights, bfloat16=operand.bfloat16)

    def merge(self, other: Autocorrelation) -> None:
        """Add what another accumulator holds; the other one is left as it is.

        Parameters
        ----------
        other : Autocorrelation
            Of the same n_features, center, method and precision.

        Raises
        ------
        InvalidArgument
            One of these differs.
        InvalidType
            Not an accumulator, or one on another device.

        Notes
        -----
        O(n_features²) for "gram", O(n_features³) for "qr".

        Examples
        --------
        >>> import brockett as bk
        >>> a, b = bk.Autocorrelation(1), bk.Autocorrelation(1)
        >>> a.update([[1.0]]); b.update([[3.0]])
        >>> a.merge(b)
        >>> a.matrix().tolist(), a.n_samples
        ([[5.0]], 2)
        """
        if type(other) is not type(self):
            raise InvalidType("other", f"expected {article(type(self).__name__)}, got {type(other).__name__}")
        for name in self._PARAMS:
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise InvalidArgument("other", f"has {name}={theirs!r}, this accumulator has {name}={mine!r}")
        # Always in the same order: two threads may merge two accumulators into each other.
        first, second = sorted((self, other), key=id)
        with first._lock, second._lock:
            if other._sum is None:
                return
            here = self._space or (None if self._device is None else _space_on(self._device, ""))
            if here is not None and other._space is not None and here.memory != other._space.memory:
                raise InvalidType("other", f"holds samples of {other._space}, this accumulator of {here}")
            space = here or other._space  # None: both come from files
            if self._sum is None or (self._space is None and space is not None):
                # What was loaded from a file lies in host memory, and goes along.
                engine = other._engine if space is None or other._space is not None else space.engine("other")
                assert engine is not None
                accumulator, place = self._kind(engine), (space or HOST).place()
                total = accumulator.from_state((other if self._sum is None else self)._sum.state(), **place)
                if self._sum is not None:
                    with _arrays.user_errors(rename={"X": "other"}):
                        total.merge(accumulator.from_state(other._sum.state(), **place))
                self._sum, self._engine, self._space = total, engine, space
                return
            # Only sums of one engine can be added.
            theirs = other._sum
            if type(theirs) is not type(self._sum) or (self._space is not None and other._space is None):
                theirs = type(self._sum).from_state(theirs.state(), **(self._space or HOST).place())
            with _arrays.user_errors(rename={"X": "other"}):
                self._sum.merge(theirs)
            self._space = self._space or other._space

    def _new(self, engine: Engine, space: Space) -> Any:
        return self._kind(engine)(self.n_features, self.center, self.method, self.precision, **space.place())

    def _twin(self) -> Autocorrelation:
        """An empty one of the same parameters."""
        new = type(self).__new__(type(self))
        new.__setstate__({"params": {name: getattr(self, f"_{name}") for name in self._KEPT}, "state": None})
        return new

    def _exchange(self, twin: Autocorrelation) -> None:
        """Hold what a twin holds, and the other way round. A few assignments: nothing is copied, nothing can fail."""
        with self._lock, twin._lock:
            mine = self._engine, self._sum, self._space
            self._engine, self._sum, self._space = twin._engine, twin._sum, twin._space
            twin._engine, twin._sum, twin._space = mine

    def _clear(self) -> None:
        """Hold nothing again, in the memory that is there: to allocate it anew would cost more than to sum a batch."""
        with self._lock:
            if self._sum is not None:
                self._sum.clear()

    # --- results ------------------------------------------------------------------------------------------------------

    def matrix(self) -> Any:
        """R, or the covariance with `center`.

        Returns
        -------
        R : array (n_features, n_features), float64
            Symmetric. In the library and on the device of the samples; NumPy after `load`.

        Raises
        ------
        InvalidArgument
            Nothing was accumulated.

        Examples
        --------
        >>> import brockett as bk
        >>> acc = bk.Autocorrelation(2, center=True)
        >>> acc.update([[1, 0], [3, 0]])
        >>> acc.matrix().tolist()
        [[1.0, 0.0], [0.0, 0.0]]
        """
        with self._lock:
            return self._result(self._filled().matrix())

    def factor(self) -> Any:
        """L with R = L Lᵀ; only with method="qr".

        Returns
        -------
        L : array (n_features, n_features), float64
            Lower triangular. Its singular values are the square roots of the eigenvalues of R, to full relative
            accuracy of the largest: down to 1e-16, where R itself reaches 1e-8.

        Raises
        ------
        InvalidArgument
            method="gram", or nothing was accumulated.

        Examples
        --------
        >>> import brockett as bk
        >>> acc = bk.Autocorrelation(1, method="qr")
        >>> acc.update([[3.0], [4.0]])
        >>> abs(acc.factor()).round(6).tolist()
        [[3.535534]]
        """
        if self.method != "qr":
            raise InvalidArgument("method", "factor() needs an accumulator made with method='qr', this one has 'gram'")
        with self._lock:
            return self._result(self._filled().factor())

    def mean(self) -> Any:
        """E[x], kept whether or not `center` is set.

        Returns
        -------
        mean : array (n_features,), float64

        Raises
        ------
        InvalidArgument
            Nothing was accumulated.

        Examples
        --------
        >>> import brockett as bk
        >>> acc = bk.Autocorrelation(2)
        >>> acc.update([[1, 5], [3, 5]], weights=[3, 1])
        >>> acc.mean().tolist()
        [1.5, 5.0]
        """
        with self._lock:
            return self._result(self._filled().mean())

    def _filled(self) -> Any:
        if self._sum is None or self._sum.n_samples == 0:
            raise InvalidArgument("autocorrelation", "holds no samples yet")
        return self._sum

    def _result(self, array: Any) -> Any:
        return (self._space or HOST).back(array)

    def _for_engine(self, engine: Engine, space: Space) -> Any:
        """The engine's own accumulator, for another function of that engine; a copy where it is of another engine."""
        with self._lock:
            total = self._filled()
            if (self._space or HOST).memory != space.memory:
                raise InvalidType(
                    "autocorrelation", f"holds samples of {self._space or HOST}, the other arrays are of {space}"
                )
            accumulator = engine.module.Accumulator
            if isinstance(total, accumulator):
                return total
            return accumulator.from_state(total.state(), **space.place())

    # --- keeping ------------------------------------------------------------------------------------------------------

    def _state(self) -> dict[str, Any] | None:
        with self._lock:
            return None if self._sum is None else dict(self._sum.state())

    def _restore(self, state: dict[str, Any] | None) -> None:
        self._reset()
        if state is not None:
            try:
                engine = engine_for("host")
            except InvalidType:  # an engine is forced that serves no host arrays
                engine = load("numpy")
            self._sum, self._engine = self._kind(engine).from_state(state), engine

    def __getstate__(self) -> dict[str, Any]:
        params = {name: getattr(self, f"_{name}") for name in self._KEPT}
        return {"params": params, "state": self._state()}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        self.__init__(**kept["params"])  # type: ignore[misc]
        self._restore(kept["state"])

    def save(self, path: _files.PathLike) -> None:
        """Write everything held to an `.npz` file, atomically.

        Parameters
        ----------
        path : path-like
            Taken as given, no suffix is added. The file appears whole or not at all, an older one stays until then.

        Raises
        ------
        OSError
            The file cannot be written.

        Examples
        --------
        >>> import brockett as bk, tempfile, os
        >>> acc = bk.Autocorrelation(1)
        >>> acc.update([[2.0]])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     acc.save(os.path.join(folder, "r.npz"))
        ...     bk.Autocorrelation.load(os.path.join(folder, "r.npz")).matrix().tolist()
        [[4.0]]
        """
        _files.save_npz(path, self._record())

    def _record(self) -> dict[str, npt.NDArray[Any]]:
        """What a file holds of it, by name."""
        with self._lock:
            state = self._state()
            if state is None:
                n = self.n_features
                state = {name: getattr(self, name) for name in _FIELDS[:6]}
                state |= {"mean": np.zeros(n), "moment": np.zeros((n, n))}
        return {"format": np.array(_FORMAT), **{name: np.asarray(state[name]) for name in _FIELDS}}

    @classmethod
    def load(cls, path: _files.PathLike, *, device: Any = None) -> Autocorrelation:
        """Read what `save` wrote.

        Parameters
        ----------
        path : path-like
        device : {None, "cuda", "cuda:<n>"}, torch.device or cupy.cuda.Device, default None
            As in `Autocorrelation`; what was saved moves there.

        Returns
        -------
        autocorrelation : Autocorrelation
            In host memory unless a device is named; updates go on with any library.

        Raises
        ------
        FileFormatError
            The file is damaged, truncated, a pickle, or was not written by `save`.
        OSError
            The file cannot be opened.
        """
        where = None if device is None else _device.Device.named(device)
        data = _files.load_npz(path, ("format", *_FIELDS))
        try:
            new = cls._from_record(data)
        except (ValueError, TypeError, BrockettError) as error:
            raise FileFormatError(f"{path}: is not an accumulator saved by brockett ({error})") from error
        if where is not None:
            _check_device(where)
            space = _space_on(where, "")
            engine = space.engine("device")
            new._sum = engine.module.Accumulator.from_state(new._sum.state(), **space.place())
            new._device, new._engine, new._space = where, engine, space
        return new

    @classmethod
    def _from_record(cls, data: Mapping[str, npt.NDArray[Any]]) -> Autocorrelation:
        """From what `_record` gave, in host memory; ValueError, KeyError, TypeError or BrockettError if it cannot."""
        if str(data["format"]) != _FORMAT:
            raise ValueError(f"its format is {str(data['format'])!r}, expected {_FORMAT!r}")
        state: dict[str, Any] = {
            "n_features": int(data["n_features"]),
            "n_samples": int(data["n_samples"]),
            "weight": float(data["weight"]),
            "center": bool(data["center"]),
            "method": str(data["method"]),
            "precision": str(data["precision"]),
            "mean": _plain(data["mean"], (int(data["n_features"]),), "mean"),
            "moment": _plain(data["moment"], (int(data["n_features"]),) * 2, "moment"),
        }
        check_counts(state["n_samples"], state["weight"])
        exact = state["precision"] == "double"
        if state["method"] == "gram":
            check_moment(state["moment"], state["mean"], state["weight"], state["center"], 1e-8 if exact else 1e-3)
        new = cls(state["n_features"], state["center"], state["method"], state["precision"])
        new._restore(state)
        return new


def check_counts(n_samples: int, weight: float) -> None:
    """ValueError where no samples can have had this number and sum of weights."""
    if n_samples < 0 or not np.isfinite(weight) or weight < 0 or (n_samples == 0) != (weight == 0):
        raise ValueError(f"{n_samples} samples of weight {weight} cannot be")


def check_moment(
    moment: npt.NDArray[np.float64], mean: npt.NDArray[np.float64], weight: float, center: bool, tolerance: float
) -> None:
    """ValueError where no samples can have had this sum Σ w x xᵀ (about the mean with `center`); O(n²), row by row.

    What is tested is |m_ij| ≤ √(m_ii m_jj), and m_ii ≥ W E[x_i]² where the sum is not about the mean: what follows from
    M being positive semidefinite and costs no decomposition.
    """
    diagonal = np.diagonal(moment)
    if (diagonal < 0).any():
        raise ValueError(f"moment has {diagonal.min()} on its diagonal, which is a sum of squares")
    roots = np.sqrt(diagonal)
    slack = tolerance * float(diagonal.max())
    for i, row in enumerate(moment):
        if np.any(np.abs(row - moment[:, i]) > slack):
            raise ValueError(f"moment is not symmetric: see row {i}")
        if np.any(np.abs(row) > roots[i] * roots * (1 + tolerance) + slack):
            raise ValueError(f"moment has an entry in row {i} that is larger than its diagonal allows")
    if not center and np.any(np.sqrt(weight) * np.abs(mean) > roots * (1 + tolerance) + np.sqrt(slack)):
        raise ValueError("mean is larger than the sum of squares on the diagonal of moment allows")


def _space_on(device: _device.Device, library: str) -> Space:
    """A CUDA device, with the library of its name or else of the samples for what comes out."""
    chosen = device.library or ("torch" if library == "torch" else "brockett")
    return _arrays.cuda_space(chosen, _device.namespace_of(chosen), device.ordinal)


def _check_device(device: _device.Device) -> None:
    """EngineUnavailable, or InvalidArgument: now, and not at the first of the samples."""
    load("cuda")
    load("cpu").module.cuda_device_info(device.ordinal)


def article(name: str) -> str:
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


def _plain(array: npt.NDArray[Any], shape: tuple[int, ...], name: str) -> npt.NDArray[np.float64]:
    if array.shape != shape or array.dtype.kind != "f":
        raise ValueError(f"{name} has shape {array.shape} and dtype {array.dtype}, expected {shape} and float64")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or Inf")
    return np.ascontiguousarray(array, dtype=np.float64)


def _sample_weights(X: Operand, weights: Any, mask: Any) -> Operand | None:
    """Weights and mask as one flat float64 vector in host memory, or None for all ones."""
    if weights is None and mask is None:
        return None
    shape = X.shape[:-1]
    keep = None if mask is None else _mask(mask, shape, X.space)
    if weights is None:
        assert keep is not None
        return Operand(keep.astype(np.float64).reshape(-1), "mask", shape, "float64", HOST)
    operand = _arrays.accept(weights, "weights")
    _same_library(operand, X.space)
    if operand.shape != shape:
        raise InvalidArgument("weights", f"expected shape {shape}, one for each sample, got {operand.shape}")
    values = np.array(operand.host(), dtype=np.float64)
    if keep is not None:
        values[~keep] = 0.0
    bad = ~(np.isfinite(values) & (values >= 0))
    if bad.any():
        at = tuple(int(i) for i in np.unravel_index(int(bad.argmax()), shape))
        raise InvalidArgument("weights", f"must be finite and at least 0, is {values[at]} at index {at}")
    return Operand(np.ascontiguousarray(values.reshape(-1)), "weights", shape, "float64", HOST)


def _mask(mask: Any, shape: tuple[int, ...], space: Space) -> npt.NDArray[np.bool_]:
    operand = _arrays.accept(mask, "mask")
    _same_library(operand, space)
    seen = operand.array if _device.is_device_array(operand.array) else mask  # integers come here as they are
    dtype = str(seen.dtype) if hasattr(seen, "dtype") else str(np.asarray(seen).dtype)
    if "bool" not in dtype and "int" not in dtype:
        raise InvalidType("mask", f"expected booleans, True for the samples to take, got dtype {dtype}")
    if operand.shape != shape:
        raise InvalidArgument("mask", f"expected shape {shape}, one for each sample, got {operand.shape}")
    values = operand.host()
    if not np.isin(values, (0, 1)).all():
        raise InvalidArgument("mask", "expected booleans (or the integers 0 and 1), got other integers")
    return np.asarray(values != 0)


def _same_library(operand: Operand, space: Space) -> None:
    if not _arrays.goes_with(operand, space):
        raise InvalidType(operand.argument, f"is an array of {operand.space}, but X is one of {space}")


def autocorrelation(
    X: Any,
    center: bool = False,
    *,
    weights: Any = None,
    mask: Any = None,
    method: str = "gram",
    precision: str = "double",
) -> Any:
    """R = E[x xᵀ] of samples that are all at hand.

    Parameters
    ----------
    X : array_like (…, n_samples, n_features)
        Samples in rows.
    center : bool, default False
        The covariance E[(x - μ)(x - μ)ᵀ] instead; divisor N, not N - 1.
    weights, mask : array_like (…, n_samples), optional
        As in `Autocorrelation.update`.
    method, precision : str
        As in `Autocorrelation`.

    Returns
    -------
    R : array (n_features, n_features), float64
        In the library and on the device of X.

    Raises
    ------
    InvalidArgument, InvalidType, NonFinite
        As `Autocorrelation` and its `update`; also where no sample counts.

    Notes
    -----
    n_samples n_features² flops. For samples that come in batches use `Autocorrelation`.

    References
    ----------
    arXiv 2301.07820, section 3.

    Examples
    --------
    >>> import brockett as bk
    >>> bk.autocorrelation([[1.0, 2.0], [3.0, 4.0]]).tolist()
    [[5.0, 7.0], [7.0, 10.0]]
    """
    operand = _arrays.accept(X, "X", samples=True)
    if operand.ndim < 2 or operand.shape[-1] == 0:
        raise InvalidArgument("X", f"expected (…, n_samples, n_features), got shape {operand.shape}")
    accumulator = Autocorrelation(operand.shape[-1], center, method, precision)
    accumulator._update(operand, weights, mask)
    if accumulator.n_samples == 0:
        raise InvalidArgument("X", f"holds no samples that count, its shape is {operand.shape}")
    return accumulator.matrix()
