"""
Compiled engine of brockett on BLAS/LAPACK. Private: use the functions of brockett itself.
"""
from __future__ import annotations
import collections.abc
import numpy
import typing
__all__: list[str] = ['Accumulator', 'DeviceArray', 'PatchAccumulator', 'add_cuda_library_folder', 'blas_info', 'bootstrap_power_law', 'brockett_cost', 'channel_gram', 'compare_power_law', 'cuda_device_info', 'cuda_status', 'cuda_synchronize', 'descramble', 'diagonalize', 'eigen_symmetric', 'fit_bulk', 'fit_power_law', 'graph_adjacency', 'graph_modes', 'graph_overlaps', 'lib_dir', 'marchenko_pastur', 'operator_singular_values', 'penalty_basis', 'penalty_eigenvalues', 'penalty_matrix', 'set_threads', 'singular_values', 'singular_values_batch', 'svd', 'svd_batch', 'svd_operator', 'svd_product', 'threads', 'tracy_widom_cdf', 'tracy_widom_edge', 'tracy_widom_quantile', 'version', 'whitened_svd']
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
    def clear(self) -> None:
        """
        Hold nothing again, in the same memory.
        """
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
class PatchAccumulator:
    """
    Streaming second moments of patches. Not for use from two threads at once.
    """
    @staticmethod
    def from_state(state: dict[str, typing.Any], *, xp: typing.Any = None, device: typing.Any = None, stream: typing.SupportsInt | typing.SupportsIndex = 0) -> PatchAccumulator:
        """
        From what state() gave.
        """
    def __init__(self, in_channels: typing.SupportsInt | typing.SupportsIndex, kernel: tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex], stride: tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex], dilation: tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex], padding: tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex], groups: typing.SupportsInt | typing.SupportsIndex, circular: bool, center: bool, *, xp: typing.Any = None, device: typing.Any = None, stream: typing.SupportsInt | typing.SupportsIndex = 0) -> None:
        ...
    def clear(self) -> None:
        """
        Hold nothing again, in the same memory.
        """
    def group_state(self, group: typing.SupportsInt | typing.SupportsIndex) -> dict[str, typing.Any]:
        """
        One group, as Accumulator.from_state takes it.
        """
    def matrix(self, group: typing.SupportsInt | typing.SupportsIndex) -> typing.Any:
        """
        R (n, n) of one group.
        """
    def mean(self) -> numpy.ndarray[typing.Any, numpy.dtype[typing.Any]]:
        """
        E[x], groups x n, in host memory.
        """
    def merge(self, other: PatchAccumulator) -> None:
        """
        Add what another one of the same parameters holds.
        """
    def state(self) -> dict[str, typing.Any]:
        """
        Everything held, as NumPy arrays and numbers.
        """
    def update(self, X: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]] | DeviceArray, height: typing.SupportsInt | typing.SupportsIndex, width: typing.SupportsInt | typing.SupportsIndex, weights: typing.Any = None, bfloat16: bool = False) -> None:
        """
        Add the patches of images (n_images, channels height width), rows contiguous; in host memory bfloat16 comes as uint16.
        """
    @property
    def n_features(self) -> int:
        ...
    @property
    def n_samples(self) -> int:
        ...
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
def bootstrap_power_law(values: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]], alpha: typing.SupportsFloat | typing.SupportsIndex, fitted_xmin: typing.SupportsFloat | typing.SupportsIndex, xmin: typing.SupportsFloat | typing.SupportsIndex, xmin_low: typing.SupportsFloat | typing.SupportsIndex, xmin_high: typing.SupportsFloat | typing.SupportsIndex, xmax: typing.SupportsFloat | typing.SupportsIndex, alpha_low: typing.SupportsFloat | typing.SupportsIndex, alpha_high: typing.SupportsFloat | typing.SupportsIndex, min_tail: typing.SupportsInt | typing.SupportsIndex, replicas: typing.SupportsInt | typing.SupportsIndex, seed: typing.SupportsInt | typing.SupportsIndex) -> numpy.ndarray[typing.Any, numpy.dtype[typing.Any]]:
    """
    Distances of synthetic data sets, each fitted as the data were.
    """
def brockett_cost(P: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]] | DeviceArray, C: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]] | DeviceArray, penalty: dict[str, typing.Any]) -> dict[str, typing.Any]:
    """
    value and gradient.
    """
def channel_gram(W: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]] | DeviceArray) -> typing.Any:
    """
    W W^T in float64.
    """
def compare_power_law(values: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]], alpha: typing.SupportsFloat | typing.SupportsIndex, xmin: typing.SupportsFloat | typing.SupportsIndex, xmax: typing.SupportsFloat | typing.SupportsIndex, law: str) -> dict[str, typing.Any]:
    """
    Likelihood ratio of a power-law tail and another law.
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
def eigen_symmetric(A: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]] | DeviceArray, lower: bool, vectors: bool) -> dict[str, typing.Any]:
    """
    values (ascending) and, where asked for, vectors (in columns) of the symmetric matrix of one triangle of A.
    """
def fit_bulk(eigenvalues: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]], Q: typing.SupportsFloat | typing.SupportsIndex, significance: typing.SupportsFloat | typing.SupportsIndex, pooled: typing.SupportsInt | typing.SupportsIndex) -> dict[str, typing.Any]:
    """
    Marchenko-Pastur bulk and spikes of eigenvalues.
    """
def fit_power_law(values: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]], xmin: typing.SupportsFloat | typing.SupportsIndex, xmin_low: typing.SupportsFloat | typing.SupportsIndex, xmin_high: typing.SupportsFloat | typing.SupportsIndex, xmax: typing.SupportsFloat | typing.SupportsIndex, alpha_low: typing.SupportsFloat | typing.SupportsIndex, alpha_high: typing.SupportsFloat | typing.SupportsIndex, min_tail: typing.SupportsInt | typing.SupportsIndex, scan: bool) -> dict[str, typing.Any]:
    """
    Power-law tail of positive values; xmin 0 takes the best.
    """
def graph_adjacency(source: dict[str, typing.Any], target: dict[str, typing.Any]) -> typing.Any:
    """
    Squared overlaps (modes of target, modes of source).
    """
def graph_modes(weights: list[numpy.ndarray[typing.Any, numpy.dtype[typing.Any]] | DeviceArray], positions: list[int], groups: list[int], method: str, rank: typing.SupportsInt | typing.SupportsIndex) -> list[dict[str, typing.Any]]:
    """
    out, in, s, group, n_resolved, residual and method of each W (out, in / groups * positions); rank 0 keeps all.
    """
def graph_overlaps(source: dict[str, typing.Any], target: dict[str, typing.Any]) -> typing.Any:
    """
    Overlaps (target positions * source positions * modes of target, modes of source).
    """
def lib_dir() -> str:
    """
    Folder that libbrockett was loaded from.
    """
def marchenko_pastur(what: str, x: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]], Q: typing.SupportsFloat | typing.SupportsIndex, variance: typing.SupportsFloat | typing.SupportsIndex) -> numpy.ndarray[typing.Any, numpy.dtype[typing.Any]]:
    """
    pdf or cdf at x, or quantile at the probabilities x, of the Marchenko-Pastur law.
    """
def operator_singular_values(K: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]] | DeviceArray, kernel: tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex], grid: tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex], stride: tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex], groups: typing.SupportsInt | typing.SupportsIndex, top: typing.SupportsInt | typing.SupportsIndex) -> dict[str, typing.Any]:
    """
    Singular values of a periodic convolution, K unfolded.
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
def svd(A: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]] | DeviceArray, rank: typing.SupportsInt | typing.SupportsIndex, tol: typing.SupportsFloat | typing.SupportsIndex, frobenius_tol: typing.SupportsFloat | typing.SupportsIndex, method: str, seed: typing.SupportsInt | typing.SupportsIndex, oversampling: typing.SupportsInt | typing.SupportsIndex, iterations: typing.SupportsInt | typing.SupportsIndex, signs: str, max_columns: typing.SupportsInt | typing.SupportsIndex = 0) -> dict[str, typing.Any]:
    """
    U, s, Vt, residual, method and columns of A (m, n); rank 0 keeps all.
    """
def svd_batch(A: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]] | DeviceArray, rank: typing.SupportsInt | typing.SupportsIndex, tol: typing.SupportsFloat | typing.SupportsIndex, frobenius_tol: typing.SupportsFloat | typing.SupportsIndex, method: str, seed: typing.SupportsInt | typing.SupportsIndex, oversampling: typing.SupportsInt | typing.SupportsIndex, iterations: typing.SupportsInt | typing.SupportsIndex, signs: str, max_columns: typing.SupportsInt | typing.SupportsIndex = 0) -> list[dict[str, typing.Any]]:
    """
    svd of each matrix of A (batch, m, n), on the workers.
    """
def svd_operator(rows: typing.SupportsInt | typing.SupportsIndex, cols: typing.SupportsInt | typing.SupportsIndex, dtype: str, matmat: collections.abc.Callable[[typing.Any], typing.Any], rmatmat: collections.abc.Callable[[typing.Any], typing.Any], rank: typing.SupportsInt | typing.SupportsIndex, tol: typing.SupportsFloat | typing.SupportsIndex, frobenius_tol: typing.SupportsFloat | typing.SupportsIndex, method: str, seed: typing.SupportsInt | typing.SupportsIndex, oversampling: typing.SupportsInt | typing.SupportsIndex, iterations: typing.SupportsInt | typing.SupportsIndex, signs: str, max_columns: typing.SupportsInt | typing.SupportsIndex = 0) -> dict[str, typing.Any]:
    """
    svd of a linear operator, given its products with blocks (cols, b) and those of its transpose.
    """
def svd_product(factors: list[numpy.ndarray[typing.Any, numpy.dtype[typing.Any]] | DeviceArray], rank: typing.SupportsInt | typing.SupportsIndex, tol: typing.SupportsFloat | typing.SupportsIndex, frobenius_tol: typing.SupportsFloat | typing.SupportsIndex, method: str, seed: typing.SupportsInt | typing.SupportsIndex, oversampling: typing.SupportsInt | typing.SupportsIndex, iterations: typing.SupportsInt | typing.SupportsIndex, signs: str, max_columns: typing.SupportsInt | typing.SupportsIndex = 0) -> dict[str, typing.Any]:
    """
    svd of a product of matrices, which is not formed.
    """
def threads() -> int:
    """
    Threads that a call started now would use.
    """
def tracy_widom_cdf(x: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]]) -> numpy.ndarray[typing.Any, numpy.dtype[typing.Any]]:
    """
    Tracy and Widom's F_1 at x.
    """
def tracy_widom_edge(larger: typing.SupportsFloat | typing.SupportsIndex, smaller: typing.SupportsFloat | typing.SupportsIndex, variance: typing.SupportsFloat | typing.SupportsIndex) -> tuple[float, float]:
    """
    Location and scale of the largest eigenvalue.
    """
def tracy_widom_quantile(p: typing.SupportsFloat | typing.SupportsIndex) -> float:
    """
    The x with F_1(x) = p.
    """
def version() -> str:
    """
    Version of libbrockett.
    """
def whitened_svd(W: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]] | DeviceArray, R: numpy.ndarray[typing.Any, numpy.dtype[typing.Any]] | DeviceArray, rank: typing.SupportsInt | typing.SupportsIndex) -> dict[str, typing.Any]:
    """
    U, s, projected and error of W (n, m) in the norm of R (m, m); rank 0 keeps all.
    """
