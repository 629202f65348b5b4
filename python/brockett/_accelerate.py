"""Other libraries' decompositions on brockett, for as long as a `with` block lasts."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Generator, Iterable
from types import TracebackType
from typing import Any

from . import _options
from ._accelerate_scope import AccelerationReport, Options, Scope, enter, leave
from ._errors import InvalidArgument, InvalidType

__all__ = ["AccelerationReport", "accelerate"]


class accelerate:
    """Run the SVDs and symmetric eigendecompositions of NumPy, SciPy, PyTorch and scikit-learn on brockett.

    A context manager, and a decorator of functions, coroutines and generators (asynchronous ones are refused). Inside
    it these functions, wherever they are called from, are answered by brockett where it is faster and at least as
    accurate, and by their originals otherwise:

    * torch.linalg.svd, svdvals, eigh, eigvalsh; torch.svd, svd_lowrank, pca_lowrank
    * numpy.linalg.svd, eigh, eigvalsh, and through them svdvals, cond, matrix_rank, pinv, norm
    * scipy.linalg.svd, eigh, and through them svdvals, eigvalsh; scipy.sparse.linalg.svds
    * scikit-learn's randomized_svd, and through it and svds TruncatedSVD, PCA, NMF, FactorAnalysis

    Parameters
    ----------
    only : iterable of {"torch", "numpy", "scipy", "sklearn"}, optional
        The libraries whose functions are taken over; by default those that are imported already. A library named here
        is imported; one that is not installed is passed over.
    report : bool, default False
        Count the calls: ``with bk.accelerate(report=True) as report`` gives an `AccelerationReport`.
    min_size : int, optional
        Smallest min(m, n) that is taken, faster or not. By default each function has its own limits of size and shape,
        from where on it pays (measured).
    tol : float, optional
        Largest error |sᵢ - exact| / s₁ of singular values, where no vectors are asked for, that you accept. By default
        that of the original: see Notes. Set 1e-9 where the spectrum's bulk matters and not its smallest values: float64
        values then come from a Gram matrix, in a third of the time.

    Attributes
    ----------
    report : AccelerationReport or None
        What this object's uses added up to.

    Raises
    ------
    InvalidArgument, InvalidType
        An unknown library, `min_size` below 1, `tol` below 0.
    Unsupported
        A library named in `only` whose functions have moved; the message names the version tested. Without `only` that
        is a RuntimeWarning, and those functions are left alone.

    Notes
    -----
    **What is kept.** Shapes, dtypes, V or Vᴴ, order, the types of results (``SVDResult``, ``torch.return_types``), and
    the errors, since whatever brockett refuses (a NaN, say) goes to the original. To the original go as well: complex,
    half and extended precision, integers, lists and subclasses of arrays, `out=`, drivers asked for by name, subsets,
    generalized problems, devices other than the CPU, tensors that require a gradient or are seen by a transform, a mode
    or a tracer, and small matrices; sparse ones, too, unless `min_size` is given. Signs of singular vectors are
    arbitrary, except those of scikit-learn, whose rule is kept. Random generators advance as with the original.

    **Accuracy.** Values of float32 matrices: torch and SciPy compute in float32, and the error is at most
    max(m, n) eps s₁ (the cut of ``matrix_rank``; 3e-7 s₁ in fact); NumPy computes in float64, and each value is right
    to float32's rounding, or the original runs. float64: the error of LAPACK, unless `tol` is given. Truncated: `svds`
    to a residual of 1e-13 s₁ (float32: 5e-7) or tol²; `randomized_svd` and `svd_lowrank` by a Krylov space from fewer
    products than subspace iteration takes, and no larger an error on every spectrum that was tried; for that it needs
    blocks of eleven columns, and of narrower ones (``svd_lowrank(A, q=6)``) the originals run.

    **Scope.** Names are bound anew for the process while any `accelerate` is open (including those that other modules
    imported by ``from … import``) and restored after the last one; but brockett answers only where the calling context
    (PEP 567) is inside: other threads and other asyncio tasks get the originals. A new thread starts outside. Of nested
    ones the innermost decides, and all of them count. A decorated generator is inside while its own body runs, and what
    reads it is not, though names stay bound until it ends. A ``with`` block in a generator is open between its yields,
    too, as that of any context manager. Calls from compiled code (``torch.linalg.matrix_rank``) and
    functions kept in closures, classes or containers before are not seen, and torch.jit.script cannot compile what it
    sees inside: script before. About 10 ms to enter and 3 ms to leave, for the search through the modules (2,500 with
    torch, SciPy and scikit-learn); 5 µs a call inside.

    Cost: that of `singular_values`, `svd`; 9 n³ flops for eigh.

    Examples
    --------
    >>> import numpy as np, brockett as bk
    >>> A = np.random.default_rng(0).normal(size=(400, 200)).astype(np.float32)
    >>> s = np.linalg.svd(A, compute_uv=False)
    >>> with bk.accelerate(only=["numpy"], report=True) as report:
    ...     fast = np.linalg.svd(A, compute_uv=False)
    >>> report.taken, fast.dtype, bool(np.allclose(fast, s, rtol=1e-6))
    (1, dtype('float32'), True)
    """

    def __init__(
        self,
        *,
        only: Iterable[str] | None = None,
        report: bool = False,
        min_size: int | None = None,
        tol: float | None = None,
    ) -> None:
        self._only = _chosen(only)
        self._min_size = None if min_size is None else _options.count("min_size", min_size, least=1)
        self._tol = None if tol is None else _options.number("tol", tol, least=0)
        self.report = AccelerationReport() if _options.flag("report", report) else None
        self._lock = threading.Lock()
        self._entered: list[Scope] = []

    def _acquire(self) -> frozenset[str]:
        names = _names()
        wanted = names.loaded() if self._only is None else self._only
        taken: frozenset[str] = names.acquire(wanted, strict=self._only is not None)
        return taken

    def __enter__(self) -> AccelerationReport | None:
        scope = Scope(self, Options(self._acquire(), self._min_size, self._tol), self.report)
        with self._lock:
            self._entered.append(scope)
        enter(scope)
        return self.report

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            if not self._entered:
                raise InvalidArgument("accelerate", "was left without having been entered")
            scope = leave(self, self._entered)
        _names().release(scope.options.libraries)

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Decorate: each call of `function` runs inside."""
        if inspect.isasyncgenfunction(function):
            raise InvalidType("function", "is an asynchronous generator; enter accelerate inside of it")
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def awaited(*args: Any, **kwargs: Any) -> Any:
                with self:
                    return await function(*args, **kwargs)

            return awaited
        if inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def generated(*args: Any, **kwargs: Any) -> Any:
                held = self._acquire()  # names stay bound from step to step: each step would search the modules again
                try:
                    return (yield from self._stepwise(function(*args, **kwargs)))
                finally:
                    _names().release(held)

            return generated

        @functools.wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        return called

    def _stepwise(self, body: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """`yield from body` (PEP 380), inside while `body` runs and outside while its reader does."""
        resume: Callable[[], Any] = functools.partial(next, body)
        while True:
            try:
                with self:
                    items = [resume()]
            except StopIteration as end:
                return end.value
            finally:
                del resume  # what was thrown knows this frame
            try:
                resume = functools.partial(body.send, (yield items.pop()))  # nothing that was yielded is kept
            except GeneratorExit:
                with self:
                    body.close()
                raise
            except BaseException as thrown:
                resume = functools.partial(body.throw, thrown)


@functools.cache  # a generator that nobody reads to its end is closed when Python ends, and imports nothing any more
def _names() -> Any:
    # on first use: six modules that `import brockett` need not wait for
    from . import _accelerate_names

    return _accelerate_names


def _chosen(only: Any) -> frozenset[str] | None:
    if only is None:
        return None
    names = _names()
    words = ", ".join(map(repr, names.LIBRARIES))
    if isinstance(only, str) or not isinstance(only, Iterable):
        raise InvalidType("only", f"expected an iterable of {words}, got {only!r}")
    chosen = list(only)
    for name in chosen:
        if name not in names.LIBRARIES:
            raise InvalidArgument("only", f"expected some of {words}, got {name!r}")
    return frozenset(chosen)
