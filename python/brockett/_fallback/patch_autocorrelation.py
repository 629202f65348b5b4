"""Streaming autocorrelation of the patches that a convolution sees, over any array namespace.

Tap t of a kernel, at (t₁, t₂), reads in window o the padded image at stride · o + dilation · t: over all windows that
is a slice x_t of the image, (channels, images · windows) once flattened. The block of R between taps t and t' is x_t
x_t'ᵀ, so patches are never put together: two slices at a time are in memory. (The compiled engine saves most of these
products, as many of them are nearly the same sum.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from array_api_compat import array_namespace
from array_api_compat import device as device_of

from .._errors import InvalidArgument, InvalidType, NonFinite
from ._arrays import (
    LARGEST,
    SMALLEST,
    Array,
    Device,
    Host,
    Namespace,
    check_count,
    check_magnitude,
    float64,
    max_abs,
    place_of,
    quiet,
    require_float64,
    to_device,
    to_host,
    widened_bfloat16,
)
from .autocorrelation import Moments, checked_field, checked_weights, joined

_PARAMS = ("in_channels", "kernel", "stride", "dilation", "padding", "groups", "circular", "center")


class PatchAccumulator:
    """A streaming accumulator of R = E[x xᵀ] over the patches x of images, one R for each group of channels.

    Parameters
    ----------
    in_channels : int
    kernel, stride, dilation : (int, int)
        Along the height and the width.
    padding : (int, int, int, int)
        Rows above and below, columns left and right.
    groups : int
    circular : bool
        Padding repeats the image around; zeros otherwise.
    center : bool
        The covariance instead of the second moment.
    xp, device
        Namespace and device of the totals and of the images to come; NumPy by default.
    """

    def __init__(
        self,
        in_channels: int,
        kernel: tuple[int, int],
        stride: tuple[int, int],
        dilation: tuple[int, int],
        padding: tuple[int, int, int, int],
        groups: int,
        circular: bool,
        center: bool,
        *,
        xp: Namespace = None,
        device: Device = None,
    ) -> None:
        self._channels = check_count("in_channels", in_channels, 1)
        self._groups = check_count("groups", groups, 1)
        if in_channels % groups:
            raise InvalidArgument("groups", f"{groups} do not divide {in_channels} channels")
        for name, values, least in (
            ("kernel_size", kernel, 1),
            ("stride", stride, 1),
            ("dilation", dilation, 1),
            ("padding", padding, 0),
        ):
            for value in values:
                check_count(name, value, least)
        self._kernel, self._stride, self._dilation = tuple(kernel), tuple(stride), tuple(dilation)
        self._padding = tuple(padding)
        self._circular, self._center = bool(circular), bool(center)
        empty = (np if xp is None else xp).empty(0)
        self._xp = array_namespace(empty)
        self._device = device_of(empty) if device is None else device
        require_float64("device", self._xp, self._device)
        self._totals: list[Moments] = []  # of each group; none before the first images
        self._largest = 0.0

    @property
    def n_features(self) -> int:
        return self._channels // self._groups * self._kernel[0] * self._kernel[1]

    n_samples = property(lambda self: self._totals[0].n_samples if self._totals else 0)
    weight = property(lambda self: self._totals[0].weight if self._totals else 0.0)

    def _params(self) -> dict[str, Any]:
        return {
            "in_channels": self._channels,
            "kernel": self._kernel,
            "stride": self._stride,
            "dilation": self._dilation,
            "padding": self._padding,
            "groups": self._groups,
            "circular": self._circular,
            "center": self._center,
        }

    # --- accumulation -------------------------------------------------------------------------------------------------

    def update(self, X: Array, height: int, width: int, weights: Host | None = None, bfloat16: bool = False) -> None:
        """Add the patches of images X (n_images, channels · height · width); on an error nothing has changed."""
        xp, place = place_of("X", X)
        if xp is not self._xp or place != self._device:
            raise InvalidType("X", f"expected an array of {self._xp.__name__} on {self._device}, got one on {place}")
        if X.ndim != 2 or X.shape[1] != self._channels * height * width or min(height, width) < 1:
            raise InvalidArgument(
                "X", f"expected {self._channels} channels of {height} x {width} in a row, has shape {tuple(X.shape)}"
            )
        windows = self._windows(height, width)
        w = checked_weights(weights, X.shape[0])
        rows = None
        if w is not None and not w.all():
            rows, w = np.flatnonzero(w), w[w > 0]
            X = xp.take(X, to_device(rows, xp, place), axis=0)
        if X.shape[0] == 0:
            return
        if bfloat16:
            X = widened_bfloat16(X)
        _check_finite(X, rows)
        magnitude = max_abs(X)
        self._check_magnitude(magnitude, w)
        images = xp.reshape(float64(X), (X.shape[0], self._channels, height, width))
        with quiet():
            totals = [
                joined(total, part, self._center)
                for total, part in zip(self._each(), self._moments(images, w, windows), strict=True)
            ]
        self._commit(totals, "X" if weights is None else "weights")
        self._largest = max(self._largest, magnitude)

    def _windows(self, height: int, width: int) -> tuple[int, int]:
        """How many windows there are along the height and the width."""
        counts = []
        for axis, size in enumerate((height, width)):
            padded = size + self._padding[2 * axis] + self._padding[2 * axis + 1]
            span = self._dilation[axis] * (self._kernel[axis] - 1) + 1
            if padded < span:
                raise InvalidArgument(
                    "X",
                    f"is too small for the kernel: its {('height', 'width')[axis]} is {size}, {padded} with padding, "
                    f"and a patch spans {span}",
                )
            counts.append((padded - span) // self._stride[axis] + 1)
        return counts[0], counts[1]

    def _moments(self, images: Array, w: Host | None, windows: tuple[int, int]) -> list[Moments]:
        """The sums of each group over the patches of images (n, channels, height, width)."""
        xp = self._xp
        n, channels, height, width = images.shape
        patches = n * windows[0] * windows[1]
        weight = float(patches) if w is None else float(w.sum()) * windows[0] * windows[1]
        each = None if w is None else to_device(w, xp, self._device)
        pivot = None
        if self._center:  # the mean of each channel, so that no digits cancel
            even = xp.full((n,), 1.0, dtype=xp.float64, device=self._device) if each is None else each
            share = even / xp.sum(even)
            pivot = share @ xp.mean(xp.reshape(images, (n, channels, height * width)), axis=2)
            images = images - pivot[None, :, None, None]
        padded = self._pad(images, pivot)
        taps = [(a, b) for a in range(self._kernel[0]) for b in range(self._kernel[1])]
        found = []
        for group in range(self._groups):
            size = channels // self._groups
            part = padded[:, group * size : (group + 1) * size, :, :]
            blocks: list[list[Array]] = [[None] * len(taps) for _ in taps]
            means = []
            for i, tap in enumerate(taps):
                weighted = self._slice(part, tap, windows, each)
                means.append(xp.sum(weighted, axis=1) / weight)
                for j, other in enumerate(taps[: i + 1]):
                    blocks[i][j] = weighted @ xp.matrix_transpose(self._slice(part, other, windows))
                    blocks[j][i] = xp.matrix_transpose(blocks[i][j])
            mean = xp.stack(means, axis=1)  # (size, taps)
            moment = xp.stack([xp.stack(row, axis=1) for row in blocks], axis=1)  # (size, taps, taps, size)
            moment = xp.reshape(xp.permute_dims(moment, (0, 1, 3, 2)), (self.n_features, self.n_features))
            mean = xp.reshape(mean, (-1,))
            if pivot is not None:
                moment = moment - weight * mean[:, None] * mean[None, :]
                below = (moment < 0) & xp.eye(self.n_features, dtype=xp.bool, device=self._device)
                moment = xp.where(below, xp.zeros_like(moment), moment)  # variances of channels that hardly vary
                own = pivot[group * size : (group + 1) * size]
                mean = mean + xp.repeat(own, len(taps))  # (channel, tap)
            found.append(Moments(0.5 * moment + 0.5 * xp.matrix_transpose(moment), mean, weight, patches))
        return found

    def _slice(self, images: Array, tap: tuple[int, int], windows: tuple[int, int], w: Array | None = None) -> Array:
        """What a tap reads in all windows: (channels, images · windows), times the weight of the image."""
        xp = self._xp
        rows, cols = (
            slice(d * t, d * t + s * (count - 1) + 1, s)
            for d, t, s, count in zip(self._dilation, tap, self._stride, windows, strict=True)
        )
        part = xp.permute_dims(images[:, :, rows, cols], (1, 0, 2, 3))
        if w is not None:
            part = part * w[None, :, None, None]
        return xp.reshape(part, (part.shape[0], -1))

    def _pad(self, images: Array, pivot: Array | None) -> Array:
        xp = self._xp
        top, bottom, left, right = self._padding
        if self._circular:
            for axis, before, after in ((2, top, bottom), (3, left, right)):
                size = images.shape[axis]
                index = to_device(np.arange(-before, size + after) % size, xp, self._device)
                images = xp.take(images, index, axis=axis)
            return images
        n, channels, height, width = images.shape
        shape = (n, channels, height + top + bottom, width + left + right)
        padded = xp.zeros(shape, dtype=xp.float64, device=self._device)
        if pivot is not None:
            padded = padded - pivot[None, :, None, None]
        padded[:, :, top : top + height, left : left + width] = images
        return padded

    def merge(self, other: PatchAccumulator) -> None:
        """Add what another accumulator of the same parameters holds."""
        if not isinstance(other, PatchAccumulator):
            raise InvalidType("other", f"expected an accumulator of this engine, got {type(other).__name__}")
        if other._params() != self._params():
            raise InvalidArgument(
                "other", "must have the same channels, kernel, stride, padding, dilation, groups and center"
            )
        if (other._xp, other._device) != (self._xp, self._device):
            raise InvalidType("other", f"is on device {other._device}, this one is on {self._device}")
        if not other._totals:
            return
        with quiet():
            totals = [joined(mine, its, self._center) for mine, its in zip(self._each(), other._totals, strict=True)]
        self._commit(totals, "other")
        self._largest = max(self._largest, other._largest)

    def clear(self) -> None:
        """Hold nothing again."""
        self._totals, self._largest = [], 0.0

    # --- results ------------------------------------------------------------------------------------------------------

    def matrix(self, group: int) -> Array:
        """R (n, n) of one group, symmetric float64."""
        total = self._filled()[self._checked(group)]
        return total.moment / total.weight

    def mean(self) -> Host:
        """E[x], groups · n numbers on the host."""
        return np.concatenate([to_host(total.mean).astype(np.float64) for total in self._filled()])

    def state(self) -> dict[str, Any]:
        """Everything it holds, on the host: what `from_state` takes."""
        g, n = self._groups, self.n_features
        mean, moment = np.zeros((g, n)), np.zeros((g, n, n))
        for i, total in enumerate(self._totals):
            mean[i], moment[i] = to_host(total.mean), to_host(total.moment)
        return {
            **self._params(),
            "n_samples": self.n_samples,
            "weight": self.weight,
            "mean": mean,
            "moment": moment,
        }

    def group_state(self, group: int) -> dict[str, Any]:
        """One group, as `Accumulator.from_state` takes it."""
        state = self.state()
        i = self._checked(group)
        return {
            "n_features": self.n_features,
            "n_samples": self.n_samples,
            "weight": self.weight,
            "center": self._center,
            "method": "gram",
            "precision": "double",
            "mean": state["mean"][i],
            "moment": state["moment"][i],
        }

    @staticmethod
    def from_state(state: Mapping[str, Any], *, xp: Namespace = None, device: Device = None) -> PatchAccumulator:
        """An accumulator that goes on from a saved state; a field that does not fit is named."""
        missing = [name for name in (*_PARAMS, "n_samples", "weight", "mean", "moment") if name not in state]
        if missing:
            raise InvalidArgument("state", f"lacks {', '.join(missing)}")
        kernel, stride, dilation = ((int(state[name][0]), int(state[name][1])) for name in _PARAMS[1:4])
        top, bottom, left, right = (int(p) for p in state["padding"])
        acc = PatchAccumulator(
            int(state["in_channels"]),
            kernel,
            stride,
            dilation,
            (top, bottom, left, right),
            int(state["groups"]),
            bool(state["circular"]),
            bool(state["center"]),
            xp=xp,
            device=device,
        )
        g, n, weight, n_samples = acc._groups, acc.n_features, float(state["weight"]), int(state["n_samples"])
        mean = checked_field("mean", np.reshape(state["mean"], (-1,)), (g * n,)).reshape(g, n)
        moment = checked_field("moment", np.reshape(state["moment"], (-1,)), (g * n * n,)).reshape(g, n, n)
        if not 0 <= weight < math.inf:
            raise InvalidArgument("weight", f"must be finite and ≥ 0, is {weight}")
        if n_samples < 0 or (n_samples == 0) != (weight == 0):
            raise InvalidArgument("n_samples", f"must be ≥ 0, and 0 exactly when weight ({weight}) is; got {n_samples}")
        if weight == 0:
            if moment.any():
                raise InvalidArgument("moment", "must be zero when weight is 0")
            return acc
        for one in moment:
            if np.abs(one - one.T).max() > 1e-8 * np.abs(one).max() or (np.diag(one) < 0).any():
                raise InvalidArgument("moment", "must be symmetric, its diagonal ≥ 0")
        acc._totals = [
            Moments(
                to_device(moment[i] / 2 + moment[i].T / 2, acc._xp, acc._device),
                to_device(mean[i], acc._xp, acc._device),
                weight,
                n_samples,
            )
            for i in range(g)
        ]
        acc._largest = float(np.abs(moment).max() / weight) ** 0.5
        return acc

    # --- checks -------------------------------------------------------------------------------------------------------

    def _commit(self, totals: list[Moments], argument: str) -> None:
        xp = self._xp
        for total in totals:
            if not (math.isfinite(total.weight) and xp.all(xp.isfinite(total.moment))):
                raise InvalidArgument(argument, "the weighted sum overflows float64; rescale")
        self._totals = totals

    def _each(self) -> list[Moments | None]:
        return [*self._totals] if self._totals else [None] * self._groups

    def _filled(self) -> list[Moments]:
        if not self._totals:
            raise InvalidArgument("PatchAutocorrelation", "no images have been accumulated")
        return self._totals

    def _checked(self, group: int) -> int:
        if not 0 <= group < self._groups:
            raise InvalidArgument("group", f"must be below {self._groups}, is {group}")
        return group

    def _check_magnitude(self, magnitude: float, w: Host | None) -> None:
        if magnitude > 0:
            check_magnitude("X", max(magnitude, self._largest))
        weighted = magnitude if w is None else magnitude * math.sqrt(w.max())
        if weighted >= LARGEST or 0 < weighted < SMALLEST:
            raise InvalidArgument("weights", "the weighted sum leaves float64; rescale the weights")


def _check_finite(X: Array, rows: Any) -> None:
    xp = array_namespace(X)
    finite = xp.isfinite(X)
    if xp.all(finite):
        return
    flat = int(xp.argmax(xp.reshape(xp.astype(~finite, xp.int8), (-1,))))
    image, offset = divmod(flat, X.shape[1])
    raise NonFinite("X", (image if rows is None else int(rows[image]), offset))
