"""Penalties: the quadratic forms A that a descrambler makes small.

A layer with outputs x of n neurons pays xᵀ A x. Each class describes one family of A for any n (or for the one
n that its data have); `matrix`, `eigenvalues`, `basis` and `operator` evaluate it. Two penalties are equal when they
describe the same A.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _arrays, _options
from ._engine import Engine, engine_for, load
from ._errors import InvalidArgument, InvalidType, Unsupported

__all__ = ["Custom", "FiniteDifference", "FourierDerivative", "GraphLaplacian", "Grid", "Penalty"]

Matrix = npt.NDArray[np.float64]

_BOUNDARIES = ("periodic", "neumann")
#: Rows of a Laplacian sum to zero, and matrices are symmetric, to this share of the largest entry.
_TOLERANCE = 1e-8


def _host_engine() -> Engine:
    """Penalties are evaluated in host memory, whatever engine is forced for arrays elsewhere."""
    try:
        return engine_for("host")
    except InvalidType:
        return load("numpy")


class Penalty(ABC):
    """What all penalties can do; see `FourierDerivative` for the default one."""

    @abstractmethod
    def _spec(self) -> dict[str, Any]:
        """The description that engines take."""

    @abstractmethod
    def _key(self) -> tuple[Any, ...]:
        """What equality means."""

    def _own_size(self) -> int | None:
        return None

    def _size(self, n: int | None, argument: str = "n") -> int:
        own = self._own_size()
        if n is None:
            if own is None:
                raise InvalidArgument(argument, f"{self!r} serves any number of neurons: give one")
            return own
        size = _options.count(argument, n, least=1)
        if own is not None and size != own:
            raise InvalidArgument(argument, f"{self!r} is a penalty on {own} neurons, got {size}")
        return size

    def matrix(self, n: int | None = None) -> Matrix:
        """A, the quadratic form.

        Parameters
        ----------
        n : int, optional
            Number of neurons. May be left out where the penalty has a size of its own.

        Returns
        -------
        A : ndarray (n, n), float64
            T diag(eigenvalues) Tᵀ, symmetric positive semidefinite (for `Custom`: symmetric).

        Raises
        ------
        InvalidArgument
            `n` does not fit the penalty.

        Notes
        -----
        Costs 2 n³ flops.

        Examples
        --------
        >>> import brockett as bk
        >>> bk.penalty.FiniteDifference(order=1).matrix(3).round(12).tolist()
        [[2.0, -1.0, -1.0], [-1.0, 2.0, -1.0], [-1.0, -1.0, 2.0]]
        """
        return np.asarray(_host_engine().module.penalty_matrix(self._spec(), self._size(n)))

    def eigenvalues(self, n: int | None = None) -> Matrix:
        """Eigenvalues of A, ascending.

        Parameters
        ----------
        n : int, optional
            Number of neurons.

        Returns
        -------
        eigenvalues : ndarray (n,), float64
            Exact for the closed forms; by an eigensolver, 4/3 n³ flops, for matrices.

        Examples
        --------
        >>> import brockett as bk
        >>> bk.penalty.FourierDerivative(order=2).eigenvalues(6).tolist()
        [0.0, 1.0, 1.0, 16.0, 16.0, 81.0]
        """
        return np.asarray(_host_engine().module.penalty_eigenvalues(self._spec(), self._size(n)))

    def basis(self, n: int | None = None) -> Matrix:
        """Orthonormal eigenvectors T of A.

        Parameters
        ----------
        n : int, optional
            Number of neurons.

        Returns
        -------
        T : ndarray (n, n), float64
            Eigenvectors in columns, in the order of `eigenvalues`; of a pair of equal frequency the cosine comes first.

        Examples
        --------
        >>> import brockett as bk
        >>> bk.penalty.FourierDerivative().basis(2).round(3).tolist()
        [[0.707, 0.707], [0.707, -0.707]]
        """
        return np.asarray(_host_engine().module.penalty_basis(self._spec(), self._size(n)))

    def operator(self, n: int | None = None) -> Matrix:
        """D with A = Dᵀ D, where there is one.

        Parameters
        ----------
        n : int, optional
            Number of neurons.

        Returns
        -------
        D : ndarray (rows, n), float64

        Raises
        ------
        Unsupported
            The penalty is given by a matrix of which no root is known in closed form.

        Examples
        --------
        >>> import brockett as bk
        >>> bk.penalty.FiniteDifference(order=1, boundary="neumann").operator(3).tolist()
        [[-1.0, 1.0, 0.0], [0.0, -1.0, 1.0]]
        """
        size = self._size(n)
        T = self.basis(size)
        D: Matrix = (T * np.sqrt(self.eigenvalues(size))) @ T.T
        return D

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and isinstance(other, Penalty) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash((type(self).__name__, self._key()))


class FourierDerivative(Penalty):
    """Spectral derivative of any order on n periodic points.

    D = T diag(|k|^order) Tᵀ, A = Dᵀ D with eigenvalues k^(2 order), where T are
    the real Fourier modes with k = 0, 1, 1, 2, 2, … [, n/2]. Integers, and exact, for an integer order.

    Parameters
    ----------
    order : float, default 2
        Order of the derivative, at least 0. Larger orders punish high frequencies more; for every order above 0 the
        descrambler is the same (the order of the eigenvalues is), only the costs differ.

    Notes
    -----
    Known without an eigensolver, and applied by FFT. For even n, order 2 is the second derivative itself and not the
    square of the first one: these differ on the Nyquist mode. D is the spectral derivative up to the sign
    (-1)^(order/2), which A does not see.

    References
    ----------
    arXiv 2301.07820, section 2; Amey, Keeley, Choudhury, Kuprov, PNAS 118 (2021) e2016917118.

    Examples
    --------
    >>> import brockett as bk
    >>> bk.penalty.FourierDerivative()
    FourierDerivative(order=2)
    >>> bk.penalty.FourierDerivative(2) == bk.penalty.FourierDerivative(2.0)
    True
    """

    def __init__(self, order: float = 2) -> None:
        self.order = _options.number("order", order, least=0)

    def _spec(self) -> dict[str, Any]:
        return {"kind": "fourier", "order": self.order}

    def _key(self) -> tuple[Any, ...]:
        return (self.order,)

    def __repr__(self) -> str:
        return f"FourierDerivative(order={self.order:g})"


class FiniteDifference(Penalty):
    """Compact differences of neighbouring neurons.

    A = L^order, L the second difference. Periodic: eigenvalues (4 sin²(πk/n))^order, Fourier modes.
    Neumann (even reflection at both ends): (4 sin²(πk/2n))^order, k = 0 … n-1, in the DCT-II basis.

    Parameters
    ----------
    order : int, default 2
        Number of differences taken, at least 1.
    boundary : {"periodic", "neumann"}, default "periodic"
        "neumann" where the first and the last neuron are no neighbours. Its eigenvalues are all distinct, so that only
        signs of the descrambler's rows remain to be chosen.

    Examples
    --------
    >>> import brockett as bk
    >>> bk.penalty.FiniteDifference(2, "neumann")
    FiniteDifference(order=2, boundary='neumann')
    """

    def __init__(self, order: int = 2, boundary: str = "periodic") -> None:
        self.order = _options.count("order", order, least=1)
        self.boundary = _options.option("boundary", boundary, _BOUNDARIES)

    def _spec(self) -> dict[str, Any]:
        return {"kind": "difference", "order": self.order, "boundary": self.boundary}

    def _key(self) -> tuple[Any, ...]:
        return (self.order, self.boundary)

    def operator(self, n: int | None = None) -> Matrix:
        size = self._size(n)
        forward = np.roll(np.eye(size), 1, axis=1) - np.eye(size)
        if self.boundary == "neumann":
            forward = forward[:-1]
        L = forward.T @ forward
        # order = 2p: L^p; order = 2p + 1: one forward difference on top.
        root: Matrix = np.linalg.matrix_power(L, self.order // 2)
        return forward @ root if self.order % 2 else root

    def __repr__(self) -> str:
        return f"FiniteDifference(order={self.order}, boundary={self.boundary!r})"


class Grid(Penalty):
    """Neurons on a grid of any number of axes, for layers whose outputs are images or volumes.

    A = (sum over the axes of the squared first derivative)^order, a Kronecker sum with eigenvalues
    (k₁² + k₂² + …)^order; Neumann: with πk/n in place of k.

    Parameters
    ----------
    shape : sequence of int
        Shape that the n = prod(shape) neurons are laid out in, in C order.
    order : float, default 2
        Power of the negative Laplacian, at least 0: 2 is the penalty of the second derivatives.
    boundary : {"periodic", "neumann"}, default "periodic"
        Fourier modes or DCT-II in every axis.

    Examples
    --------
    >>> import brockett as bk
    >>> bk.penalty.Grid((2, 3), order=1).eigenvalues().tolist()
    [0.0, 1.0, 1.0, 1.0, 2.0, 2.0]
    """

    def __init__(self, shape: Sequence[int], order: float = 2, boundary: str = "periodic") -> None:
        if isinstance(shape, str) or not hasattr(shape, "__iter__"):
            raise InvalidType("shape", f"expected a sequence of integers, got {shape!r}")
        self.shape = tuple(_options.count("shape", length, least=1) for length in shape)
        if not self.shape:
            raise InvalidArgument("shape", "expected at least one axis, got none")
        self.order = _options.number("order", order, least=0)
        self.boundary = _options.option("boundary", boundary, _BOUNDARIES)

    def _own_size(self) -> int:
        return math.prod(self.shape)

    def _spec(self) -> dict[str, Any]:
        return {"kind": "grid", "shape": self.shape, "order": self.order, "boundary": self.boundary}

    def _key(self) -> tuple[Any, ...]:
        return (self.shape, self.order, self.boundary)

    def __repr__(self) -> str:
        return f"Grid(shape={self.shape}, order={self.order:g}, boundary={self.boundary!r})"


class _MatrixPenalty(Penalty):
    """A penalty that its own matrix describes."""

    _A: Matrix

    def _own_size(self) -> int:
        return int(self._A.shape[0])

    def _key(self) -> tuple[Any, ...]:
        return (self._A.shape, self._A.tobytes())


class GraphLaplacian(_MatrixPenalty):
    """A = L^power, for neurons that are the vertices of a graph.

    Parameters
    ----------
    L : array_like (n, n)
        Laplacian of the graph, degrees minus adjacency: symmetric, rows that sum to zero. Copied.
    power : int, default 1
        xᵀ L x is the weighted sum of squared differences along the edges; 2 punishes curvature.

    Raises
    ------
    InvalidArgument
        L is not square or not symmetric, or a row does not sum to zero.

    Notes
    -----
    One symmetric eigendecomposition, 9 n³ flops.

    Examples
    --------
    >>> import brockett as bk
    >>> path = bk.penalty.GraphLaplacian([[1, -1, 0], [-1, 2, -1], [0, -1, 1]])
    >>> path.eigenvalues().round(12).tolist()
    [0.0, 1.0, 3.0]
    """

    def __init__(self, L: Any, power: int = 1) -> None:
        self._A = _symmetric(L, "L")
        scale = float(np.abs(self._A).max())
        sums = np.abs(self._A.sum(axis=1))
        if float(sums.max()) > _TOLERANCE * scale * len(sums):
            row = int(sums.argmax())
            raise InvalidArgument("L", f"rows of a Laplacian sum to zero, row {row} sums to {self._A[row].sum():.3g}")
        self.power = _options.count("power", power, least=1)

    def _spec(self) -> dict[str, Any]:
        return {"kind": "matrix", "A": self._A, "power": self.power, "laplacian": True}

    def _key(self) -> tuple[Any, ...]:
        return (*super()._key(), self.power)

    def operator(self, n: int | None = None) -> Matrix:
        self._size(n)
        if self.power % 2:
            raise Unsupported(f"{self!r} has no operator D: an odd power of a Laplacian has no root in closed form")
        root: Matrix = np.linalg.matrix_power(self._A, self.power // 2)
        return root

    def __repr__(self) -> str:
        return f"GraphLaplacian(<{len(self._A)} x {len(self._A)}>, power={self.power})"


class Custom(_MatrixPenalty):
    """Any symmetric A.

    Parameters
    ----------
    A : array_like (n, n)
        Symmetric; negative eigenvalues are allowed, costs may then be negative. Copied.

    Raises
    ------
    InvalidArgument
        A is not square, or not symmetric to 1e-8 of its largest entry.

    Notes
    -----
    One symmetric eigendecomposition, 9 n³ flops.

    Examples
    --------
    >>> import brockett as bk
    >>> bk.penalty.Custom([[2.0, 0.0], [0.0, 1.0]]).eigenvalues().tolist()
    [1.0, 2.0]
    """

    def __init__(self, A: Any) -> None:
        self._A = _symmetric(A, "A")

    def _spec(self) -> dict[str, Any]:
        return {"kind": "matrix", "A": self._A, "power": 1, "laplacian": False}

    def operator(self, n: int | None = None) -> Matrix:
        self._size(n)
        raise Unsupported(f"{self!r} has no operator D: only A itself was given")

    def __repr__(self) -> str:
        return f"Custom(<{len(self._A)} x {len(self._A)}>)"


def _symmetric(value: Any, argument: str) -> Matrix:
    A = _arrays.host_matrix(value, argument)
    gap = np.abs(A - A.T)
    scale = float(np.abs(A).max())
    if float(gap.max()) > _TOLERANCE * scale:
        i, j = np.unravel_index(int(gap.argmax()), gap.shape)
        raise InvalidArgument(
            argument, f"is not symmetric: entries ({i}, {j}) and ({j}, {i}) differ by {gap[i, j]:.3g}"
        )
    A.flags.writeable = False
    return A
