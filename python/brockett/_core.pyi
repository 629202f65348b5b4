"""
Compiled engine of brockett on BLAS/LAPACK. Private: use the functions of brockett itself.
"""
from __future__ import annotations
import collections.abc
import numpy
import typing
__all__: list[str] = ['Accumulator', 'DeviceArray', 'add_cuda_library_folder', 'blas_info', 'brockett_cost', 'cuda_device_info', 'cuda_status', 'cuda_synchronize', 'descramble', 'diagonalize', 'lib_dir', 'penalty_basis', 'penalty_eigenvalues', 'penalty_matrix', 'set_threads', 'singular_values', 'singular_values_batch', 'svd', 'svd_batch', 'threads', 'version', 'whitened_svd']
class DeviceArray:
    """
    An array in the memory of a CUDA device. Any library takes it over without a copy: torch.from_dlpack(a),
    cupy.from_dlpack(a), numba.cuda.as_cuda_array(a), jax.numpy.from_dlpack(a).
    """
    @staticmethod
    def from_dlpack(source: typing.Any, stream: typing.SupportsInt | typing.SupportsIndex = 0, argument: str = 'source') -> DeviceArray:
        """
        What has __dlpack__, or a DLPack capsule, without a copy; asked to be ready on `stream`.
        """
    @staticmethod
    def from_host(array: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]], device: typing.SupportsInt | typing.SupportsIndex = 0, stream: typing.SupportsInt | typing.SupportsIndex = 0) -> DeviceArray:
        """
        A copy of a NumPy array on a device.
        """
    @staticmethod
    def from_interface(source: typing.Any, stream: typing.SupportsInt | typing.SupportsIndex = 0, argument: str = 'source') -> DeviceArray:
        """
        What has __cuda_array_interface__, without a copy; `stream` waits for the stream that it names.
        """
    @staticmethod
    def stack(parts: collections.abc.Sequence[DeviceArray]) -> DeviceArray:
        """
        Arrays of one shape and layout along a new first axis; a copy.
        """
    def __array__(self, dtype: typing.Any = None, copy: typing.Any = None) -> typing.Any:
        ...
    def __dlpack__(self, *, stream: typing.Any = None, max_version: typing.Any = None, dl_device: typing.Any = None, copy: typing.Any = None) -> typing.Any:
        ...
    def __dlpack_device__(self) -> tuple[int, int]:
        ...
    def __float__(self) -> float:
        ...
    def __getitem__(self, key: typing.Any) -> DeviceArray:
        ...
    def __repr__(self) -> str:
        ...
    def astype(self, dtype: str) -> DeviceArray:
        """
        A copy in float32 or float64.
        """
    def reshape(self, shape: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]) -> DeviceArray:
        """
        The same memory in another shape.
        """
    def to_host(self) -> numpy.ndarray[typing.Any, numpy.dtype[typing.Any]]:
        """
        A NumPy array with the values; waits for them. bfloat16 becomes float32.
        """
    @property
    def T(self) -> DeviceArray:
        """
        The same memory with its axes in reverse order.
        """
    @property
    def __cuda_array_interface__(self) -> dict[str, typing.Any]:
        ...
    @property
    def device(self) -> int:
        """
        Ordinal of its CUDA device.
        """
    @property
    def dtype(self) -> str:
        """
        Name of the type of its elements.
        """
    @property
    def itemsize(self) -> int:
        """
        Bytes of one element.
        """
    @property
    def ndim(self) -> int:
        """
        Number of axes.
        """
    @property
    def shape(self) -> tuple[int, ...]:
        """
        Length of each axis.
        """
    @property
    def size(self) -> int:
        """
        Number of elements.
        """
    @property
    def stream(self) -> int:
        """
        The CUDA stream whose queued work makes its values; 1: the legacy default stream.
        """
    @property
    def strides(self) -> tuple[int, ...]:
        """
        Bytes from one element to the next along each axis.
        """
class Accumulator:
    """
    Streaming second moments. Not for use from two threads at once.
    """
    @staticmethod
    def from_state(state: dict[str, typing.Any], *, xp: typing.Any = None, device: typing.Any = None, stream: typing.SupportsInt | typing.SupportsIndex = 0) -> Accumulator:
        """
        From what state() gave.
        """
    def __init__(self, n_features: typing.SupportsInt | typing.SupportsIndex, center: bool, method: str, precision: str, *, xp: typing.Any = None, device: typing.Any = None, stream: typing.SupportsInt | typing.SupportsIndex = 0) -> None:
        ...
    def factor(self) -> typing.Any:
        """
        L with R = L L^T, of method qr.
        """
    def matrix(self) -> typing.Any:
        """
        R (n_features, n_features).
        """
    def mean(self) -> numpy.ndarray[typing.Any, numpy.dtype[typing.Any]]:
        """
        E[x], in host memory.
        """
    def merge(self, other: Accumulator) -> None:
        """
        Add what another one of the same parameters holds.
        """
    def state(self) -> dict[str, typing.Any]:
        """
        Everything held, as NumPy arrays and numbers.
        """
    def update(self, X: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]] | DeviceArray, weights: typing.Any = None, bfloat16: bool = False) -> None:
        """
        Add samples (n_samples, n_features), rows contiguous; in host memory bfloat16 comes as uint16.
        """
    @property
    def center(self) -> bool:
        ...
    @property
    def device(self) -> typing.Any:
        """
        Ordinal of the CUDA device it lies on, None: host memory.
        """
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
    def stream(self) -> int:
        """
        Its CUDA stream.
        """
    @property
    def weight(self) -> float:
        ...
def add_cuda_library_folder(path: str) -> None:
    """
    Where NVIDIA's libraries may lie besides the places that the loader knows.
    """
def blas_info() -> str:
    """
    Name, version, core type, integer width and threads of the BLAS library.
    """
def brockett_cost(P: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]] | DeviceArray, C: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]] | DeviceArray, penalty: dict[str, typing.Any]) -> dict[str, typing.Any]:
    """
    value and gradient.
    """
def cuda_device_info(device: typing.SupportsInt | typing.SupportsIndex) -> dict[str, typing.Any]:
    """
    Name, compute capability and memory of a device.
    """
def cuda_status() -> dict[str, typing.Any]:
    """
    Whether the CUDA plugin works, why not, where it lies, devices and versions. Loads it at the first call.
    """
def cuda_synchronize(device: typing.SupportsInt | typing.SupportsIndex, stream: typing.SupportsInt | typing.SupportsIndex = 0) -> None:
    """
    Wait until all work queued on a stream is done.
    """
def descramble(W: typing.Any, source: dict[str, typing.Any], penalty: dict[str, typing.Any], group: str, gauge: str, P0: typing.Any, rank: typing.SupportsInt | typing.SupportsIndex, seed: typing.SupportsInt | typing.SupportsIndex, starts: typing.SupportsInt | typing.SupportsIndex, max_sweeps: typing.SupportsInt | typing.SupportsIndex, dtype: str, verify: bool = True) -> dict[str, typing.Any]:
    """
    P, weights, costs and spectra; source and penalty are descriptions, W may be None.
    """
def diagonalize(W: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]] | DeviceArray, criterion: str, group: str, max_iterations: typing.SupportsInt | typing.SupportsIndex, tol: typing.SupportsFloat | typing.SupportsIndex) -> dict[str, typing.Any]:
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
def singular_values(A: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]] | DeviceArray, method: str) -> dict[str, typing.Any]:
    """
    values, n_resolved, bound and method of A (m, n).
    """
def singular_values_batch(A: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]] | DeviceArray, method: str) -> list[dict[str, typing.Any]]:
    """
    singular_values of each matrix of A (batch, m, n), on the workers.
    """
def svd(A: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]] | DeviceArray, rank: typing.SupportsInt | typing.SupportsIndex, tol: typing.SupportsFloat | typing.SupportsIndex, frobenius_tol: typing.SupportsFloat | typing.SupportsIndex, method: str, seed: typing.SupportsInt | typing.SupportsIndex, oversampling: typing.SupportsInt | typing.SupportsIndex, iterations: typing.SupportsInt | typing.SupportsIndex, signs: str) -> dict[str, typing.Any]:
    """
    U, s, Vt, residual and method of A (m, n); rank 0 keeps all.
    """
def svd_batch(A: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]] | DeviceArray, rank: typing.SupportsInt | typing.SupportsIndex, tol: typing.SupportsFloat | typing.SupportsIndex, frobenius_tol: typing.SupportsFloat | typing.SupportsIndex, method: str, seed: typing.SupportsInt | typing.SupportsIndex, oversampling: typing.SupportsInt | typing.SupportsIndex, iterations: typing.SupportsInt | typing.SupportsIndex, signs: str) -> list[dict[str, typing.Any]]:
    """
    svd of each matrix of A (batch, m, n), on the workers.
    """
def threads() -> int:
    """
    Threads that a call started now would use.
    """
def version() -> str:
    """
    Version of libbrockett.
    """
def whitened_svd(W: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]] | DeviceArray, R: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]] | DeviceArray, rank: typing.SupportsInt | typing.SupportsIndex) -> dict[str, typing.Any]:
    """
    U, s, projected and error of W (n, m) in the norm of R (m, m); rank 0 keeps all.
    """
