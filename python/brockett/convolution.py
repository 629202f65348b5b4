"""Convolutions: the SVD of the unfolded kernel, the spectrum of the operator, bounds of its norm.

A kernel K of shape (out, in, k₁, k₂), or (out, in, k) over sequences, unfolds to the matrix W (out, in · k₁ k₂). Two
spectra are of use, and they answer different questions. The SVD of W says which combinations of output channels answer
to which patches: for white inputs its left vectors are the principal directions of the channels. The operator spectrum
says by how much the layer as a whole can stretch an image; it needs the size of the image and periodic borders to be
exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _arrays, _options
from ._arrays import Operand
from ._errors import InvalidArgument, NonFinite
from ._svd import SVDResult, svd

__all__ = [
    "NormBounds",
    "UnfoldedSVD",
    "as_kernel",
    "channel_gram",
    "fold_batch_norm",
    "norm_bounds",
    "operator_singular_values",
    "unfolded_svd",
]


@dataclass(frozen=True, eq=False)
class UnfoldedSVD:
    """W ≈ U diag(s) Vt of an unfolded kernel; unpacks as ``U, s, Vt``.

    Attributes
    ----------
    U : array (out, r)
        Orthonormal columns: one direction among the output channels for each mode.
    s : array (r,), float64
        Descending.
    Vt : array (r, in · k₁ k₂)
        Orthonormal rows: the patch that each mode answers to.
    filters : array (r, in, k₁, k₂)
        The rows of Vt as filters.
    residual : float
        As in `brockett.svd`.
    method : str
        What ran.
    """

    U: Any
    s: Any
    Vt: Any
    filters: Any
    residual: float
    method: str

    def __iter__(self) -> Iterator[Any]:
        return iter((self.U, self.s, self.Vt))

    @property
    def rank(self) -> int:
        """Number of modes kept."""
        return int(self.s.shape[-1])

    def project(self, Y: Any) -> Any:
        """The outputs of the layer in the basis of its modes: Uᵀ y at every position.

        Parameters
        ----------
        Y : array_like (n_images, out, height, width), or (n_images, out, length)
            Outputs of the layer, before the non-linearity; without the first axis one image.

        Returns
        -------
        Z : array (n_images, r, height, width)
            Channel i is the activation of mode i (an "SVD neuron"). In the dtype of the wider of Y and U.

        Raises
        ------
        InvalidArgument
            Y has no axis of `out` channels where it should.
        InvalidType
            Not an array of real numbers, or one of another library or device than U.

        Notes
        -----
        2 r · out flops for each position. The bias is part of Y if the caller left it there.

        References
        ----------
        B. Praggastis et al., arXiv 2208.06894, section 3.

        Examples
        --------
        >>> import numpy as np, brockett as bk
        >>> K = np.zeros((2, 1, 1, 1)); K[1] = 3.0
        >>> modes = bk.convolution.unfolded_svd(K, rank=1)
        >>> modes.project(np.array([[[[5.0]], [[7.0]]]])).ravel().tolist()
        [7.0]
        """
        left, outputs = _arrays.accept(self.U, "U"), _arrays.accept(Y, "Y")
        space = _arrays.common_space(left, outputs)
        axes = len(self.filters.shape) - 2
        shape = outputs.shape
        channels = left.shape[0]
        if len(shape) not in (axes + 1, axes + 2) or shape[-axes - 1] != channels:
            raise InvalidArgument(
                "Y", f"expected (n_images, {channels}, and {axes} more axes), got shape {outputs.shape}"
            )
        _arrays.need_functions(outputs)
        xp = space.xp
        _arrays.check_finite(outputs)
        u, y = left.in_space(space).array, outputs.in_space(space).array
        dtype = xp.float64 if "float64" in (left.dtype, outputs.dtype) else xp.float32
        u, y = xp.astype(u, dtype), xp.astype(y, dtype)
        flat = xp.reshape(y, (*shape[:-axes], math.prod(shape[-axes:])))
        projected = xp.matmul(xp.matrix_transpose(u), flat)
        return space.back(xp.reshape(projected, (*shape[: -axes - 1], u.shape[1], *shape[-axes:])))


@dataclass(frozen=True)
class NormBounds:
    """lower ≤ ‖convolution‖ ≤ upper; unpacks as ``lower, upper``.

    Attributes
    ----------
    lower : float
        ‖W‖, the spectral norm of the unfolded kernel.
    upper : float
        √(k₁ k₂) ‖W‖.
    """

    lower: float
    upper: float

    def __iter__(self) -> Iterator[float]:
        return iter((self.lower, self.upper))


def unfolded_svd(
    K: Any,
    rank: int | None = None,
    tol: float | None = None,
    frobenius_tol: float | None = None,
    method: str = "auto",
    seed: int = 0,
) -> UnfoldedSVD:
    """SVD of the unfolded kernel W (out, in · k₁ k₂), its right vectors folded back to filters.

    Parameters
    ----------
    K : array_like (out, in, k₁, k₂) or (out, in, k)
        Weights of a convolution; of a grouped one the rows of one group, as each group sees other inputs.
    rank, tol, frobenius_tol, method, seed
        As in `brockett.svd`.

    Returns
    -------
    modes : UnfoldedSVD
        `U`, `s`, `Vt`, `filters`, and `project` for activations.

    Raises
    ------
    NonFinite, InvalidArgument, InvalidType, NotConverged
        As `brockett.svd`; also where K has not 3 or 4 axes.

    Notes
    -----
    That of an SVD of a matrix (out, in · k₁ k₂).

    References
    ----------
    B. Praggastis et al., arXiv 2208.06894, section 3; D. Meller, N. Berkouk, arXiv 2302.08183.

    Examples
    --------
    >>> import numpy as np, brockett as bk
    >>> modes = bk.convolution.unfolded_svd(np.ones((2, 3, 2, 2)))
    >>> modes.s.round(12).tolist(), modes.filters.shape
    ([4.898979485566, 0.0], (2, 3, 2, 2))
    """
    kernel = _kernel(K)
    # As one of the caller's own arrays, so that the answer comes back in kind; the unfolding moves no data.
    flat = kernel.space.back(_arrays.unfolded(kernel).array)
    with _arrays.user_errors(_arrays.unfolded(kernel), rename={"A": "K"}):
        found: SVDResult = svd(flat, rank, tol, frobenius_tol, method, seed)
    filters = _arrays.accept(found.Vt, "Vt")
    folded = kernel.space.back(filters.space.xp.reshape(filters.array, (filters.shape[0], *kernel.shape[1:])))
    return UnfoldedSVD(found.U, found.s, found.Vt, folded, float(found.residual), found.method)


def operator_singular_values(
    K: Any,
    input_shape: int | Sequence[int],
    top: int | None = None,
    *,
    stride: int | Sequence[int] = 1,
    groups: int = 1,
) -> Any:
    """Singular values of a convolution as an operator on whole images, with periodic borders.

    Parameters
    ----------
    K : array_like (out, in / groups, k₁, k₂) or (out, in / groups, k)
        Weights. A kernel that is larger than the image is wrapped around.
    input_shape : int or tuple of int
        Height and width of the input (length, for sequences); an int goes for all axes.
    top : int, optional
        Only that many of the largest values. Frequencies which cannot hold one of them are told by an upper bound and
        left unsolved: most of them for smooth kernels, few or none for random ones, whose frequencies are alike.
    stride : int or tuple of int, default 1
        Must divide the input shape.
    groups : int, default 1
        As in ``torch.nn.Conv2d``.

    Returns
    -------
    s : array, float64
        Descending: all n₁ n₂ / (s₁ s₂) · min(out, in s₁ s₂ …) of them, counted as often as they occur (of each group),
        or `top`. In the library and on the device of K.

    Raises
    ------
    NonFinite, InvalidArgument, InvalidType, NotConverged
        NaN or Inf; shapes that do not fit; a stride that does not divide the input; groups that do not divide the
        output channels.

    Notes
    -----
    The Fourier transform takes the operator apart into one matrix H(f) = Σ_t K_t exp(-i f·t) for each
    frequency, out × in; f and -f have the same values, so half of them are solved, as Hermitian eigenproblems of the
    smaller side summed in float64: 16/3 min(out, in)³ flops each. Values below 1e-7 of the largest are rounding. With a
    stride, the positions of one residue are a channel of a smaller image. Zero padding makes another operator, whose
    norm is no larger.

    References
    ----------
    H. Sedghi, V. Gupta, P. M. Long, The singular values of convolutional layers, ICLR 2019, theorem 6.

    Examples
    --------
    >>> import numpy as np, brockett as bk
    >>> difference = np.array([[[1.0, -1.0]]])
    >>> bk.convolution.operator_singular_values(difference, 4).round(12).tolist()
    [2.0, 1.414213562373, 1.414213562373, 0.0]
    >>> bk.convolution.operator_singular_values(difference, 1).tolist()        # both taps fall on one place
    [0.0]
    """
    kernel = _kernel(K)
    axes = len(kernel.shape) - 2
    grid = _per_axis("input_shape", input_shape, axes)
    steps = _per_axis("stride", stride, axes)
    most = 0 if top is None else _options.count("top", top, least=1)
    parts = _options.count("groups", groups, least=1)
    _check_groups(kernel, parts)
    flat = _arrays.unfolded(kernel)
    with _arrays.user_errors(flat):
        found = kernel.space.engine("K").module.operator_singular_values(
            flat.array, _plane(kernel.shape[2:]), _plane(grid), _plane(steps), parts, most
        )
    return kernel.space.back(found["values"])


def norm_bounds(K: Any, input_shape: int | Sequence[int] | None = None, *, groups: int = 1) -> NormBounds:
    """Bounds of the norm of a periodic convolution, from one singular value of the unfolded kernel.

    Parameters
    ----------
    K : array_like (out, in / groups, k₁, k₂) or (out, in / groups, k)
        Weights, of stride 1.
    input_shape : int or tuple of int, optional
        Size of the images. Left out, the bounds hold for every image that is no smaller than the kernel; a kernel that
        is larger than `input_shape` is wrapped around, and the bounds are those of the wrapped one.
    groups : int, default 1
        The norm is the largest of all groups.

    Returns
    -------
    bounds : NormBounds
        ‖W‖ ≤ ‖convolution‖ ≤ √(k₁ k₂) ‖W‖.

    Raises
    ------
    NonFinite, InvalidArgument, InvalidType, NotConverged
        As `operator_singular_values`.

    Notes
    -----
    One values-only SVD for each group. W Wᵀ is the mean of H(f) H(f)* over the frequencies, which gives the
    lower bound; H(f) = W (e_f ⊗ I) with ‖e_f‖² = k₁ k₂ gives the upper one. The upper bound holds for zero padding as
    well.

    References
    ----------
    H. Sedghi, V. Gupta, P. M. Long, ICLR 2019; S. Singla, S. Feizi, ICML 2021, theorem 1.

    Examples
    --------
    >>> import numpy as np, brockett as bk
    >>> bounds = bk.convolution.norm_bounds(np.array([[[3.0, 4.0]]]))
    >>> round(bounds.lower, 12), round(bounds.upper, 12)
    (5.0, 7.071067811865)
    """
    kernel = _kernel(K)
    parts = _options.count("groups", groups, least=1)
    _check_groups(kernel, parts)
    xp, array, shape = kernel.space.xp, kernel.array, kernel.shape
    if input_shape is not None:
        grid = _per_axis("input_shape", input_shape, len(shape) - 2)
        if any(k > n for k, n in zip(shape[2:], grid, strict=True)):
            _arrays.need_functions(kernel)
            _arrays.check_finite(kernel)
            array = _wrapped(xp, kernel.as_float64().array, grid)
            shape = tuple(array.shape)
    out = shape[0] // parts
    norm = 0.0
    flat = _arrays.unfolded(Operand(array, "K", shape, kernel.dtype, kernel.space))
    engine = kernel.space.engine("K").module
    each = [flat.array]
    if parts > 1:
        grouped = xp.reshape(flat.array, (parts, out, flat.array.shape[1]))
        each = [grouped[part, ...] for part in range(parts)]
    for part, array in enumerate(each):
        rows = _arrays.described(array)
        operand = Operand(rows, "K", (out, *shape[1:]), kernel.dtype, kernel.space)
        try:
            with _arrays.user_errors(operand, rename={"A": "K"}):
                found = engine.singular_values(rows, "auto")
        except NonFinite as error:
            raise NonFinite("K", (error.index[0] + part * out, *error.index[1:])) from None
        norm = max(norm, float(found["values"][0]))
    return NormBounds(norm, math.sqrt(math.prod(shape[2:])) * norm)


def channel_gram(K: Any) -> Any:
    """W Wᵀ of the unfolded kernel: how much any two output channels have in common.

    Parameters
    ----------
    K : array_like (out, in, k₁, k₂) or (out, in, k)
        Weights.

    Returns
    -------
    G : array (out, out), float64
        Symmetric positive semidefinite; the second moment of the outputs for white inputs, and the mean of H(f) H(f)*
        of the operator over all frequencies.

    Raises
    ------
    NonFinite, InvalidArgument, InvalidType
        NaN or Inf; not a kernel; magnitudes whose squares leave float64.

    Notes
    -----
    out² in k₁ k₂ flops.

    References
    ----------
    B. Praggastis et al., arXiv 2208.06894, section 3.

    Examples
    --------
    >>> import numpy as np, brockett as bk
    >>> bk.convolution.channel_gram(np.array([[[1.0, 2.0]], [[0.0, 3.0]]])).tolist()
    [[5.0, 6.0], [6.0, 9.0]]
    """
    kernel = _kernel(K)
    flat = _arrays.unfolded(kernel)
    with _arrays.user_errors(flat):
        return kernel.space.back(kernel.space.engine("K").module.channel_gram(flat.array))


def fold_batch_norm(K: Any, bias: Any = None, bn: Any = None) -> tuple[Any, Any]:
    """A layer and the batch normalization after it as one layer, as they are in evaluation mode.

    Parameters
    ----------
    K : array_like (out, in, k…) or (out, in)
        Weights of the convolution or of a fully connected layer.
    bias : array_like (out,), optional
        Its bias.
    bn : torch.nn.BatchNorm1d, torch.nn.BatchNorm2d or a mapping
        Anything with `running_mean`, `running_var` (out,), `eps`, and `weight` and `bias` (out,) or None; a mapping
        holds them under these names, `eps` 1e-5 and the last two None where it does not.

    Returns
    -------
    K, bias : array, array (out,)
        γ / √(variance + eps) K, and γ / √(variance + eps) (bias - mean) + β. In the dtype of K, computed in float64.

    Raises
    ------
    NonFinite
        NaN or Inf in one of the vectors, which is named.
    InvalidArgument, InvalidType
        A vector has not one number for each output, or a variance + eps is not positive; no running statistics.

    Notes
    -----
    O(size of K).

    References
    ----------
    S. Ioffe, C. Szegedy, ICML 2015, algorithm 2.

    Examples
    --------
    >>> import numpy as np, brockett as bk
    >>> bn = {"running_mean": [1.0], "running_var": [4.0], "eps": 0.0, "weight": [6.0], "bias": [0.5]}
    >>> K, bias = bk.convolution.fold_batch_norm(np.ones((1, 1, 2)), [2.0], bn)
    >>> K.tolist(), bias.tolist()
    ([[[3.0, 3.0]]], [3.5])
    """
    weights = _arrays.accept(K, "K")
    if weights.ndim < 2 or 0 in weights.shape:
        raise InvalidArgument("K", f"expected weights (out, in, …), got shape {weights.shape}")
    if bn is None:
        raise InvalidArgument("bn", "expected a batch normalization, got None")
    out, space = weights.shape[0], weights.space
    _arrays.need_functions(weights)
    _arrays.check_finite(weights)

    def part(name: str, default: Any) -> Any:
        return bn.get(name, default) if isinstance(bn, Mapping) else getattr(bn, name, default)

    def vector(value: Any, name: str, default: float) -> npt.NDArray[np.float64]:
        return np.full(out, default) if value is None else _arrays.host_vector(value, name, out, space)

    mean, variance = part("running_mean", None), part("running_var", None)
    if mean is None or variance is None:
        raise InvalidArgument("bn", "has no running_mean and running_var: nothing is known of its evaluation mode")
    spread = vector(variance, "bn.running_var", 1.0) + _options.number("bn.eps", part("eps", 1e-5), least=0)
    if not (spread > 0).all():
        at = int(np.argmin(spread > 0))
        raise InvalidArgument("bn.running_var", f"plus eps must be positive, is {spread[at]} at index ({at},)")
    gain = vector(part("weight", None), "bn.weight", 1.0) / np.sqrt(spread)
    moved = vector(bias, "bias", 0.0) - vector(mean, "bn.running_mean", 0.0)
    shift = gain * moved + vector(part("bias", None), "bn.bias", 0.0)
    xp = space.xp
    dtype = xp.float64 if weights.dtype == "float64" else xp.float32
    place = space.place()
    where = {"device": place["device"]} if place else {}
    scale = xp.reshape(xp.asarray(gain, **where), (out,) + (1,) * (weights.ndim - 1))
    with np.errstate(over="ignore", invalid="ignore"):  # refused below, in every library alike
        folded = xp.astype(weights.as_float64().array * scale, dtype)
        moved_bias = xp.astype(xp.asarray(shift, **where), dtype)
    if not bool(xp.all(xp.isfinite(folded))) or not bool(xp.all(xp.isfinite(moved_bias))):
        raise InvalidArgument("bn", f"the folded weights or bias leave the range of {weights.dtype}")
    return space.back(folded), space.back(moved_bias)


def as_kernel(W: Any, input_shape: Sequence[int]) -> Any:
    """A fully connected layer that reads a flattened image, as the convolution over that whole image.

    Parameters
    ----------
    W : array_like (out, channels · height · width)
        Weights of the layer behind a flattening of (channels, height, width), in that order.
    input_shape : tuple of int
        (channels, height, width), or (channels, length).

    Returns
    -------
    K : array (out, channels, height, width)
        The same numbers.

    Raises
    ------
    InvalidArgument, InvalidType
        Sizes do not fit.

    Notes
    -----
    No data is moved.

    References
    ----------
    D. Meller, N. Berkouk, arXiv 2302.08183, section 3 (transitions from convolutional to fully connected layers).

    Examples
    --------
    >>> import numpy as np, brockett as bk
    >>> bk.convolution.as_kernel(np.ones((10, 12)), (3, 2, 2)).shape
    (10, 3, 2, 2)
    """
    weights = _arrays.accept(W, "W")
    if isinstance(input_shape, str) or not hasattr(input_shape, "__len__") or len(input_shape) not in (2, 3):
        raise InvalidArgument(
            "input_shape", f"expected (channels, height, width) or (channels, length), got {input_shape!r}"
        )
    shape = tuple(_options.count("input_shape", n, least=1) for n in input_shape)
    if weights.ndim != 2 or weights.shape[1] != math.prod(shape) or weights.shape[0] == 0:
        raise InvalidArgument("W", f"expected (out, {math.prod(shape)}) to fit {shape}, got shape {weights.shape}")
    return weights.space.back(weights.space.xp.reshape(weights.array, (weights.shape[0], *shape)))


def _kernel(K: Any) -> Operand:
    operand = _arrays.accept(K, "K")
    if operand.ndim not in (3, 4):
        raise InvalidArgument(
            "K", f"expected weights (out, in, k₁, k₂) or (out, in, k) of a convolution, got shape {operand.shape}"
        )
    if 0 in operand.shape:
        raise InvalidArgument("K", f"must not be empty, got shape {operand.shape}")
    return operand


def _per_axis(argument: str, value: Any, axes: int) -> tuple[int, ...]:
    if isinstance(value, str) or not hasattr(value, "__len__"):
        return (_options.count(argument, value, least=1),) * axes
    counts = tuple(_options.count(argument, one, least=1) for one in value)
    if len(counts) != axes:
        raise InvalidArgument(argument, f"expected {axes}, one for each axis of the kernel, got {value!r}")
    return counts


def _plane(values: tuple[int, ...]) -> tuple[int, int]:
    """For both axes of an image; a sequence is an image of height 1."""
    return (1, values[0]) if len(values) == 1 else (values[0], values[1])


def _check_groups(kernel: Operand, groups: int) -> None:
    if kernel.shape[0] % groups:
        raise InvalidArgument("groups", f"{groups} do not divide {kernel.shape[0]} output channels")


def _wrapped(xp: Any, K: Any, grid: tuple[int, ...]) -> Any:
    """Taps that fall on one position of a periodic grid, added up."""
    for axis, n in enumerate(grid, start=2):
        size = K.shape[axis]
        if size <= n:
            continue
        pieces = []
        for first in range(0, size, n):
            part = slice(first, min(first + n, size))
            piece = K[:, :, part, ...] if axis == 2 else K[:, :, :, part]
            if piece.shape[axis] < n:
                shape = list(piece.shape)
                shape[axis] = n - shape[axis]
                # zeros in the namespace and on the device of K
                zeros = xp.zeros(tuple(shape), dtype=K.dtype, **_device_of(xp, K))
                piece = xp.concat([piece, zeros], axis=axis)
            pieces.append(piece)
        K = sum(pieces[1:], pieces[0])
    return K


def _device_of(xp: Any, array: Any) -> dict[str, Any]:
    import array_api_compat

    return {"device": array_api_compat.device(array)}
