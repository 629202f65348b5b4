"""
Compiled engine of brockett on BLAS/LAPACK. Private: use the functions of brockett itself.
"""
from __future__ import annotations
import collections.abc
import numpy
import typing
__all__: list[str] = ['Accumulator', 'blas_info', 'brockett_cost', 'descramble', 'diagonalize', 'lib_dir', 'penalty_basis', 'penalty_eigenvalues', 'penalty_matrix', 'set_threads', 'singular_values', 'singular_values_batch', 'svd', 'svd_batch', 'svd_operator', 'svd_product', 'threads', 'version', 'whitened_svd']
class Accumulator:
    """
    Streaming second moments. Not for use from two threads at once.
    """
    @staticmethod
    def from_state(state: dict[str, typing.Any], *, xp: typing.Any = None, device: typing.Any = None) -> Accumulator:
        """
        From what state() gave.
        """
    def __init__(self, n_features: typing.SupportsInt | typing.SupportsIndex, center: bool, method: str, precision: str, *, xp: typing.Any = None, device: typing.Any = None) -> None:
        ...
    def factor(self) -> numpy.ndarray[typing.Any, numpy.dtype[typing.Any]]:
        """
        L with R = L L^T, of method qr.
        """
    def matrix(self) -> numpy.ndarray[typing.Any, numpy.dtype[typing.Any]]:
        """
        R (n_features, n_features).
        """
    def mean(self) -> numpy.ndarray[typing.Any, numpy.dtype[typing.Any]]:
        """
        E[x].
        """
    def merge(self, other: Accumulator) -> None:
        """
        Add what another one of the same parameters holds.
        """
    def state(self) -> dict[str, typing.Any]:
        """
        Everything held, as NumPy arrays and numbers.
        """
    def update(self, X: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]], weights: typing.Any = None, bfloat16: bool = False) -> None:
        """
        Add samples (n_samples, n_features), rows contiguous; bfloat16 comes as uint16.
        """
    @property
    def center(self) -> bool:
        ...
    @property
    def method(self) -> str:
        ...
    @property
    def n_features(self) -> int:
        ...
    @property
    def n_samples(self) -> int:
        ...
    @property
    def precision(self) -> str:
        ...
    @property
    def weight(self) -> float:
        ...
def blas_info() -> str:
    """
    Name, version, core type, integer width and threads of the BLAS library.
    """
def brockett_cost(P: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]], C: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]], penalty: dict[str, typing.Any]) -> dict[str, typing.Any]:
    """
    value and gradient.
    """
def descramble(W: typing.Any, source: dict[str, typing.Any], penalty: dict[str, typing.Any], group: str, gauge: str, P0: typing.Any, rank: typing.SupportsInt | typing.SupportsIndex, seed: typing.SupportsInt | typing.SupportsIndex, starts: typing.SupportsInt | typing.SupportsIndex, max_sweeps: typing.SupportsInt | typing.SupportsIndex, dtype: str, verify: bool = True) -> dict[str, typing.Any]:
    """
    P, weights, costs and spectra; source and penalty are descriptions, W may be None.
    """
def diagonalize(W: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]], criterion: str, group: str, max_iterations: typing.SupportsInt | typing.SupportsIndex, tol: typing.SupportsFloat | typing.SupportsIndex) -> dict[str, typing.Any]:
    """
    P, weights, value, bound, iterations and converged.
    """
def lib_dir() -> str:
    """
    Folder that libbrockett was loaded from.
    """
def penalty_basis(spec: dict[str, typing.Any], n: typing.SupportsInt | typing.SupportsIndex) -> numpy.ndarray[typing.Any, numpy.dtype[typing.Any]]:
    """
    Orthonormal eigenvectors of A in columns.
    """
def penalty_eigenvalues(spec: dict[str, typing.Any], n: typing.SupportsInt | typing.SupportsIndex) -> numpy.ndarray[typing.Any, numpy.dtype[typing.Any]]:
    """
    Eigenvalues of A, ascending.
    """
def penalty_matrix(spec: dict[str, typing.Any], n: typing.SupportsInt | typing.SupportsIndex) -> numpy.ndarray[typing.Any, numpy.dtype[typing.Any]]:
    """
    A (n, n).
    """
def set_threads(count: typing.SupportsInt | typing.SupportsIndex) -> None:
    """
    Threads to use; 0: what BLAS is set to.
    """
def singular_values(A: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]], method: str) -> dict[str, typing.Any]:
    """
    values, n_resolved, bound and method of A (m, n).
    """
def singular_values_batch(A: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]], method: str) -> list[dict[str, typing.Any]]:
    """
    singular_values of each matrix of A (batch, m, n), on the workers.
    """
def svd(A: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]], rank: typing.SupportsInt | typing.SupportsIndex, tol: typing.SupportsFloat | typing.SupportsIndex, frobenius_tol: typing.SupportsFloat | typing.SupportsIndex, method: str, seed: typing.SupportsInt | typing.SupportsIndex, oversampling: typing.SupportsInt | typing.SupportsIndex, iterations: typing.SupportsInt | typing.SupportsIndex, signs: str, max_columns: typing.SupportsInt | typing.SupportsIndex = 0) -> dict[str, typing.Any]:
    """
    U, s, Vt, residual, method and columns of A (m, n); rank 0 keeps all.
    """
def svd_batch(A: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]], rank: typing.SupportsInt | typing.SupportsIndex, tol: typing.SupportsFloat | typing.SupportsIndex, frobenius_tol: typing.SupportsFloat | typing.SupportsIndex, method: str, seed: typing.SupportsInt | typing.SupportsIndex, oversampling: typing.SupportsInt | typing.SupportsIndex, iterations: typing.SupportsInt | typing.SupportsIndex, signs: str, max_columns: typing.SupportsInt | typing.SupportsIndex = 0) -> list[dict[str, typing.Any]]:
    """
    svd of each matrix of A (batch, m, n), on the workers.
    """
def svd_operator(rows: typing.SupportsInt | typing.SupportsIndex, cols: typing.SupportsInt | typing.SupportsIndex, dtype: str, matmat: collections.abc.Callable[[typing.Any], typing.Any], rmatmat: collections.abc.Callable[[typing.Any], typing.Any], rank: typing.SupportsInt | typing.SupportsIndex, tol: typing.SupportsFloat | typing.SupportsIndex, frobenius_tol: typing.SupportsFloat | typing.SupportsIndex, method: str, seed: typing.SupportsInt | typing.SupportsIndex, oversampling: typing.SupportsInt | typing.SupportsIndex, iterations: typing.SupportsInt | typing.SupportsIndex, signs: str, max_columns: typing.SupportsInt | typing.SupportsIndex = 0) -> dict[str, typing.Any]:
    """
    svd of a linear operator, given its products with blocks (cols, b) and those of its transpose.
    """
def svd_product(factors: list[numpy.ndarray[typing.Any, numpy.dtype[typing.Any]]], rank: typing.SupportsInt | typing.SupportsIndex, tol: typing.SupportsFloat | typing.SupportsIndex, frobenius_tol: typing.SupportsFloat | typing.SupportsIndex, method: str, seed: typing.SupportsInt | typing.SupportsIndex, oversampling: typing.SupportsInt | typing.SupportsIndex, iterations: typing.SupportsInt | typing.SupportsIndex, signs: str, max_columns: typing.SupportsInt | typing.SupportsIndex = 0) -> dict[str, typing.Any]:
    """
    svd of a product of matrices, which is not formed.
    """
def threads() -> int:
    """
    Threads that a call started now would use.
    """
def version() -> str:
    """
    Version of libbrockett.
    """
def whitened_svd(W: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]], R: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]], rank: typing.SupportsInt | typing.SupportsIndex) -> dict[str, typing.Any]:
    """
    U, s, projected and error of W (n, m) in the norm of R (m, m); rank 0 keeps all.
    """
