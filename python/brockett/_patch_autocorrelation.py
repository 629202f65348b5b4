"""Autocorrelation of the patches that a convolution sees, accumulated from batches of its inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _arrays, _files, _options
from ._arrays import HOST, Operand, Space
from ._autocorrelation import Autocorrelation, _plain, _sample_weights, check_counts, check_moment
from ._engine import Engine
from ._errors import BrockettError, FileFormatError, InvalidArgument

__all__ = ["PatchAutocorrelation"]

PADDING_MODES = ("zeros", "circular")

_FORMAT = "brockett.PatchAutocorrelation/1"
_STATE = (
    "in_channels",
    "kernel",
    "stride",
    "dilation",
    "padding",
    "groups",
    "circular",
    "center",
    "n_samples",
    "weight",
    "mean",
    "moment",
)


class PatchAutocorrelation(Autocorrelation):
    """A streaming accumulator of R = E[x xᵀ] over the patches x that a convolution sees in its inputs.

    Goes wherever an `Autocorrelation` goes: ``bk.descramble(conv.weight, autocorrelation=patches, bias=conv.bias)``.

    Parameters
    ----------
    in_channels : int
        Channels of the images.
    kernel_size : int or tuple of int
        An int k means k × k; (k₁, k₂) a kernel over images, (k,) one over sequences.
    stride, dilation : int or tuple of int, default 1
        As in ``torch.nn.Conv2d``.
    padding : int, tuple or {"same", "valid"}, default 0
        An int or one for each axis, on both sides; a pair (before, after) for each axis; "same": as many windows as
        positions (stride 1 only), of an odd number one more after than before, as PyTorch has it; "valid": none.
    groups : int, default 1
        Channels are cut into this many equal groups; there is one R for each.
    padding_mode : {"zeros", "circular"}, default "zeros"
        What is padded.
    center : bool, default False
        The covariance E[(x - μ)(x - μ)ᵀ], with one μ for each channel and tap, instead of E[x xᵀ].

    Attributes
    ----------
    in_channels, kernel_size, stride, padding, dilation, groups, padding_mode, center
        As given, as tuples; the padding as pairs (before, after).
    n_features : int
        Length of a patch of one group, in_channels / groups · k₁ k₂, ordered (channel, row, column) as an unfolded
        kernel is.
    n_samples : int
        Patches of images with a weight above zero.
    weight : float
        Sum of the weights over patches.

    Raises
    ------
    InvalidArgument
        A number out of range, groups that do not divide the channels, or "same" with a stride.

    Notes
    -----
    Patches are never formed. At stride 1 two taps t and t' multiply the same pairs of pixels as any two of
    the same difference, but for the borders: so a k × k kernel takes 2k² - 2k + 1 products of channels × channels over
    the images and a few over strips of the border, where the patches take k⁴/2. With many channels all differences
    along the width come from the Fourier modes of the lines by the correlation theorem, at the price of two: 2k
    products. Strides are taken apart into phases, within which the same holds. All sums are in float64, whatever the
    images are. Memory: n_features² / 2 numbers for each group, and a few copies of 8 MB of images at a time; images may
    differ in size between updates.

    An update that raises leaves the accumulator as it was; calls from several threads wait for each other.

    Examples
    --------
    >>> import numpy as np, brockett as bk
    >>> acc = bk.PatchAutocorrelation(1, kernel_size=(2,))
    >>> acc.update(np.array([[[1.0, 2.0, 4.0]]]))            # patches (1, 2) and (2, 4)
    >>> acc.matrix().tolist(), acc.mean().tolist(), acc.n_samples
    ([[2.5, 5.0], [5.0, 10.0]], [1.5, 3.0], 2)
    """

    _ENGINE_CLASS = "PatchAccumulator"
    _PARAMS = ("in_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode", "center")
    _KEPT = _PARAMS

    def __init__(
        self,
        in_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | str | Sequence[Any] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        padding_mode: str = "zeros",
        center: bool = False,
    ) -> None:
        self._in_channels = _options.count("in_channels", in_channels, least=1)
        self._kernel_size = _axes("kernel_size", kernel_size, None, least=1)
        axes = len(self._kernel_size)
        self._stride = _axes("stride", stride, axes, least=1)
        self._dilation = _axes("dilation", dilation, axes, least=1)
        self._padding = _paddings(padding, self._kernel_size, self._stride, self._dilation)
        self._groups = _options.count("groups", groups, least=1)
        if self._in_channels % self._groups:
            raise InvalidArgument("groups", f"{self._groups} do not divide {self._in_channels} channels")
        self._padding_mode = _options.option("padding_mode", padding_mode, PADDING_MODES)
        self._center = _options.flag("center", center)
        self._n_features = self._in_channels // self._groups * math.prod(self._kernel_size)
        self._method, self._precision = "gram", "double"
        self._device = None  # images are summed where they are
        self._reset()

    # --- what it is ---------------------------------------------------------------------------------------------------

    @property
    def in_channels(self) -> int:
        """Channels of the images."""
        return self._in_channels

    @property
    def kernel_size(self) -> tuple[int, ...]:
        """Taps along each axis: two for images, one for sequences."""
        return self._kernel_size

    @property
    def stride(self) -> tuple[int, ...]:
        """Steps of the windows along each axis."""
        return self._stride

    @property
    def padding(self) -> tuple[tuple[int, int], ...]:
        """Padding (before, after) of each axis."""
        return self._padding

    @property
    def dilation(self) -> tuple[int, ...]:
        """Distance of the taps along each axis."""
        return self._dilation

    @property
    def groups(self) -> int:
        """Groups of channels."""
        return self._groups

    @property
    def padding_mode(self) -> str:
        """What is padded: "zeros" or "circular"."""
        return self._padding_mode

    def __repr__(self) -> str:
        words = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._PARAMS)
        return f"PatchAutocorrelation({words}) of {self.n_samples} patches"

    # --- adding -------------------------------------------------------------------------------------------------------

    def update(self, X: Any, weights: Any = None, mask: Any = None) -> None:
        """Add the patches of images.

        Parameters
        ----------
        X : array_like (n_images, in_channels, height, width), or (n_images, in_channels, length) for sequences
            What the layer is given. Without the first axis it is one image. float16, bfloat16, float32, float64 or
            integers; C-ordered arrays are read in place.
        weights : array_like (n_images,), optional
            Finite numbers of at least 0. An image of weight 0 is skipped, and may hold NaN.
        mask : array_like of bool (n_images,), optional
            True for the images to take.

        Raises
        ------
        NonFinite
            A NaN or Inf in an image that counts; the index is that of X. Nothing of X was added.
        InvalidArgument
            A shape does not fit, the kernel is larger than the padded image, a weight is negative, or magnitudes are
            such that squares leave float64.
        InvalidType
            Not an array of real numbers, or one of another library or device than the images before.

        Notes
        -----
        At stride 1 about (4k² - 4k + 2) in_channels² / groups flops for each position of the padded images; with many
        channels 4k in place of the bracket.

        Examples
        --------
        >>> import numpy as np, brockett as bk
        >>> acc = bk.PatchAutocorrelation(2, 3, padding=1)
        >>> acc.update(np.ones((4, 2, 8, 8), dtype=np.float32))
        >>> acc.update(np.ones((1, 2, 5, 7), dtype=np.float32))
        >>> acc.n_samples, acc.matrix().shape
        (291, (18, 18))
        """
        super().update(X, weights, mask)

    def _rows(self, operand: Operand) -> Operand:
        axes = len(self._kernel_size)
        shape = operand.shape
        if len(shape) == axes + 1:
            shape = (1, *shape)
        if len(shape) != axes + 2 or shape[1] != self._in_channels or 0 in shape[1:]:
            names = ("height", "width") if axes == 2 else ("length",)
            raise InvalidArgument(
                operand.argument,
                f"expected (n_images, {self._in_channels}, {', '.join(names)}), got shape {operand.shape}",
            )
        flat = replace(operand, shape=(shape[0], math.prod(shape[1:])))
        return replace(_arrays.sample_rows(flat.with_array(_arrays._reshape(operand, flat.shape))), shape=operand.shape)

    def _counted(self, operand: Operand, weights: Any, mask: Any) -> Operand | None:
        return _sample_weights(replace(operand, shape=(operand.array.shape[0], 1)), weights, mask)

    def _add(self, total: Any, operand: Operand, weights: Any) -> None:
        size = operand.shape[-2:] if len(self._kernel_size) == 2 else (1, operand.shape[-1])
        total.update(operand.array, size[0], size[1], weights, bfloat16=operand.bfloat16)

    def _new(self, engine: Engine, space: Space) -> Any:
        return self._kind(engine)(
            self._in_channels,
            *(_plane(values, 1) for values in (self._kernel_size, self._stride, self._dilation)),
            sum(_plane(self._padding, (0, 0)), ()),
            self._groups,
            self._padding_mode == "circular",
            self._center,
            **space.place(),
        )

    # --- results ------------------------------------------------------------------------------------------------------

    def matrix(self) -> Any:
        """R, or the covariance with `center`.

        Returns
        -------
        R : array (n_features, n_features), or (groups, n_features, n_features) of grouped layers, float64
            Symmetric, in the order (channel, row, column). In the library and on the device of the images; NumPy after
            `load`.

        Raises
        ------
        InvalidArgument
            Nothing was accumulated.
        """
        with self._lock:
            total = self._filled()
            parts = [total.matrix(g) for g in range(self._groups)]
            xp = (self._space or HOST).xp
            return self._result(parts[0] if self._groups == 1 else xp.stack(parts))

    def factor(self) -> Any:
        """Not kept: raises InvalidArgument. For the square root of R use `Autocorrelation` with method="qr".

        Returns
        -------
        never

        Raises
        ------
        InvalidArgument
        """
        raise InvalidArgument("method", "the square root of R is kept only by an Autocorrelation with method='qr'")

    def mean(self) -> Any:
        """E[x], kept whether or not `center` is set.

        Returns
        -------
        mean : array (n_features,), or (groups, n_features) of grouped layers, float64

        Raises
        ------
        InvalidArgument
            Nothing was accumulated.
        """
        with self._lock:
            mean = np.asarray(self._filled().mean())
            return self._result(mean if self._groups == 1 else mean.reshape(self._groups, self._n_features))

    def group(self, index: int) -> Autocorrelation:
        """One group of a grouped layer, as the `Autocorrelation` of its inputs.

        Parameters
        ----------
        index : int
            0 to groups - 1. Its kernels are the rows ``index * out // groups`` to ``(index + 1) * out // groups`` of
            the weights.

        Returns
        -------
        autocorrelation : Autocorrelation
            A copy, with n_features features.

        Raises
        ------
        InvalidArgument
            Nothing was accumulated, or no such group.

        Examples
        --------
        >>> import numpy as np, brockett as bk
        >>> acc = bk.PatchAutocorrelation(4, 1, groups=2)
        >>> acc.update(np.arange(8.0).reshape(1, 4, 1, 2))
        >>> acc.group(1).matrix().tolist()
        [[20.5, 29.5], [29.5, 42.5]]
        """
        at = _options.count("index", index, most=self._groups - 1)
        with self._lock:
            total, engine, space = self._filled(), self._engine, self._space
            new = Autocorrelation(self._n_features, self._center)
            assert engine is not None
            new._sum = engine.module.Accumulator.from_state(total.group_state(at), **(space or HOST).place())
            new._engine, new._space = engine, space
            return new

    def _for_engine(self, engine: Engine, space: Space) -> Any:
        if self._groups > 1:
            raise InvalidArgument(
                "autocorrelation",
                f"is of {self._groups} groups of channels, and their joint moments are not kept; take the rows of one "
                "group of the weights, and .group(index) of this accumulator",
            )
        return self.group(0)._for_engine(engine, space)

    # --- keeping ------------------------------------------------------------------------------------------------------

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
        """
        _files.save_npz(path, self._record())

    def _record(self) -> dict[str, npt.NDArray[Any]]:
        with self._lock:
            state = self._state()
            if state is None:
                g, n = self._groups, self._n_features
                state = {
                    "in_channels": self._in_channels,
                    "kernel": _plane(self._kernel_size, 1),
                    "stride": _plane(self._stride, 1),
                    "dilation": _plane(self._dilation, 1),
                    "padding": sum(_plane(self._padding, (0, 0)), ()),
                    "groups": g,
                    "circular": self._padding_mode == "circular",
                    "center": self._center,
                    "n_samples": 0,
                    "weight": 0.0,
                    "mean": np.zeros((g, n)),
                    "moment": np.zeros((g, n, n)),
                }
        arrays = {name: np.asarray(state[name]) for name in _STATE}
        return {"format": np.array(_FORMAT), "axes": np.array(len(self._kernel_size)), **arrays}

    @classmethod
    def load(cls, path: _files.PathLike) -> PatchAutocorrelation:  # type: ignore[override]
        """Read what `save` wrote.

        Parameters
        ----------
        path : path-like

        Returns
        -------
        autocorrelation : PatchAutocorrelation
            In host memory; updates go on with any library.

        Raises
        ------
        FileFormatError
            The file is damaged, truncated, a pickle, or was not written by `save`.
        OSError
            The file cannot be opened.
        """
        data = _files.load_npz(path, ("format", "axes", *_STATE))
        try:
            return cls._from_record(data)
        except (ValueError, TypeError, BrockettError) as error:
            raise FileFormatError(f"{path}: is not a patch accumulator saved by brockett ({error})") from error

    @classmethod
    def _from_record(cls, data: Mapping[str, npt.NDArray[Any]]) -> PatchAutocorrelation:
        if str(data["format"]) != _FORMAT:
            raise ValueError(f"its format is {str(data['format'])!r}, expected {_FORMAT!r}")
        axes = _whole(data, "axes")
        if axes not in (1, 2):
            raise ValueError(f"kernels of {axes} axes")
        sizes = {"kernel": 2, "stride": 2, "dilation": 2, "padding": 4}
        plane = {name: _integers(data[name], (size,), name) for name, size in sizes.items()}
        height = (*(plane[name][0] for name in ("kernel", "stride", "dilation")), *plane["padding"][:2])
        if axes == 1 and height != (1, 1, 1, 0, 0):
            raise ValueError(f"kernels of one axis have no height, but it is said to have {height}")
        pairs = (plane["padding"][:2], plane["padding"][2:])
        circular = bool(_whole(data, "circular", 1))
        new = cls(
            _whole(data, "in_channels"),
            plane["kernel"][2 - axes :],
            plane["stride"][2 - axes :],
            pairs[2 - axes :],
            plane["dilation"][2 - axes :],
            _whole(data, "groups"),
            "circular" if circular else "zeros",
            bool(_whole(data, "center", 1)),
        )
        g, n = new._groups, new._n_features
        state: dict[str, Any] = {
            "in_channels": new._in_channels,
            **plane,
            "groups": g,
            "circular": circular,
            "center": new._center,
            "n_samples": _whole(data, "n_samples"),
            "weight": float(data["weight"]),
            "mean": _plain(data["mean"], (g, n), "mean"),
            "moment": _plain(data["moment"], (g, n, n), "moment"),
        }
        check_counts(state["n_samples"], state["weight"])
        for moment, mean in zip(state["moment"], state["mean"], strict=True):
            check_moment(moment, mean, state["weight"], new._center, 1e-8)
        new._restore(state)
        return new


def _integers(array: npt.NDArray[Any], shape: tuple[int, ...], name: str) -> tuple[int, ...]:
    if array.shape != shape or array.dtype.kind not in "iub":
        raise ValueError(f"{name} has shape {array.shape} and dtype {array.dtype}, expected {shape} and integers")
    return tuple(int(value) for value in array.reshape(-1))


def _whole(data: Mapping[str, npt.NDArray[Any]], name: str, most: int | None = None) -> int:
    (value,) = _integers(data[name], (), name)
    if most is not None and not 0 <= value <= most:
        raise ValueError(f"{name} is {value}, expected 0 to {most}")
    return value


def _axes(argument: str, value: Any, axes: int | None, least: int) -> tuple[int, ...]:
    """One count for each axis; an int goes for all (two where the kernel itself is asked for)."""
    if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str):
        counts = tuple(_options.count(argument, one, least) for one in value)
        if len(counts) not in ((1, 2) if axes is None else (axes,)):
            wanted = "1 or 2 numbers" if axes is None else f"{axes}, one for each axis of the kernel"
            raise InvalidArgument(argument, f"expected {wanted}, got {value!r}")
        return counts
    return (_options.count(argument, value, least),) * (2 if axes is None else axes)


def _paddings(
    value: Any, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[tuple[int, int], ...]:
    if isinstance(value, str):
        if _options.option("padding", value, ("same", "valid")) == "valid":
            return ((0, 0),) * len(kernel)
        if any(s != 1 for s in stride):
            raise InvalidArgument("padding", "'same' goes with stride 1 only")
        totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    if isinstance(value, Sequence | np.ndarray) and any(isinstance(one, Sequence | np.ndarray) for one in value):
        if len(value) != len(kernel):
            raise InvalidArgument("padding", f"expected {len(kernel)}, one for each axis of the kernel, got {value!r}")
        pairs = [_axes("padding", one, 2, 0) for one in value]
        return tuple((pair[0], pair[1]) for pair in pairs)
    return tuple((p, p) for p in _axes("padding", value, len(kernel), 0))


def _plane(values: tuple[Any, ...], missing: Any) -> tuple[Any, ...]:
    """For both axes of an image; a sequence is an image of height 1."""
    return values if len(values) == 2 else (missing, *values)
