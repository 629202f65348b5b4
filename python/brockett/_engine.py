"""Engines: which there are, why one is missing, and which one serves an array.

An engine is a module of low-level functions with one interface: `_core` (compiled, on BLAS/LAPACK) or `_fallback`
(array-API Python over NumPy, CuPy or any other array namespace). They are loaded on first use, not on import.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from . import _options
from ._errors import EngineUnavailable, InvalidArgument, InvalidType, Unsupported

__all__ = ["Engine", "EngineInfo", "engine_for", "engines", "load", "set_engine", "set_threads", "threads"]

#: In the order in which "auto" prefers them.
NAMES = ("cuda", "cpu", "cupy", "numpy")


@dataclass(frozen=True)
class EngineInfo:
    """What `engines` says of one engine.

    Attributes
    ----------
    name : str
        "cuda", "cpu", "cupy" or "numpy".
    available : bool
        Whether it can be used here and now.
    reason : str
        Why not; empty when it is available.
    details : mapping of str to object
        Version, BLAS library, threads: what the engine says of itself. Empty when it is not available.
    """

    name: str
    available: bool
    reason: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        if not self.available:
            return f"{self.name}: not available ({self.reason})"
        return f"{self.name}: " + ", ".join(f"{key} {value}" for key, value in self.details.items())


@dataclass(frozen=True)
class Engine:
    """A loaded engine: its name and the module with its functions."""

    name: str
    module: Any

    @property
    def compiled(self) -> bool:
        return self.name in ("cpu", "cuda")


# What was loaded, or why it could not be. Guarded by the lock: a failed import must be tried, and remembered, once.
_lock = threading.RLock()
_loaded: dict[str, Engine] = {}
_missing: dict[str, str] = {}
_chosen: str | None = None  # set_engine's word; None: the environment's, else "auto"


def load(name: str) -> Engine:
    """Load the engine `name`, or raise EngineUnavailable with the reason why it is missing."""
    with _lock:
        if name in _loaded:
            return _loaded[name]
        if name not in _missing:
            try:
                _loaded[name] = Engine(name, _LOADERS[name]())
                return _loaded[name]
            except EngineUnavailable as error:
                _missing[name] = str(error)
            except Exception as error:  # a broken installation must be reported, not crash "auto"
                _missing[name] = f"{type(error).__name__}: {error}"
        raise EngineUnavailable(f"engine {name!r} is not available: {_missing[name]}")


def _load_cuda() -> Any:
    core = _load_cpu()
    for folder in _nvidia_folders():
        core.add_cuda_library_folder(folder)
    status = core.cuda_status()
    if not status["available"]:
        raise EngineUnavailable(status["reason"])
    return importlib.import_module("brockett._cuda")


def _nvidia_folders() -> list[str]:
    """Where NVIDIA's wheels keep their libraries; the plugin finds them itself only if they lie beside brockett."""
    spec = importlib.util.find_spec("nvidia")
    places = [] if spec is None or spec.submodule_search_locations is None else spec.submodule_search_locations
    folders = (os.path.join(place, "cu13", "lib") for place in places)
    return [folder for folder in folders if os.path.isdir(folder)]


def _load_cpu() -> Any:
    # import_module, not `from . import _core`: of an absent module the latter reports a circular import.
    try:
        return importlib.import_module("brockett._core")
    except ImportError as error:
        raise EngineUnavailable(f"the compiled core does not load: {error}") from error


def _load_numpy() -> Any:
    return importlib.import_module("brockett._fallback")


def _load_cupy() -> Any:
    if importlib.util.find_spec("cupy") is None:
        raise EngineUnavailable("CuPy is not installed")
    cupy = importlib.import_module("cupy")
    # CuPy imports without a driver, so only this tells.
    if not cupy.cuda.is_available():
        raise EngineUnavailable("CuPy is installed, but finds no CUDA device")
    return importlib.import_module("brockett._fallback")


_LOADERS = {"cuda": _load_cuda, "cpu": _load_cpu, "cupy": _load_cupy, "numpy": _load_numpy}


def _details(engine: Engine) -> dict[str, Any]:
    if engine.name == "cpu":
        core = engine.module
        return {"version": core.version(), "blas": core.blas_info(), "threads": core.threads()}
    if engine.name == "cuda":
        core = load("cpu").module
        status = core.cuda_status()
        names = [core.cuda_device_info(number)["name"] for number in range(status["devices"])]
        return {"version": core.version(), "devices": names} | {
            name: status[name] for name in ("runtime", "driver", "cublas", "cusolver")
        }
    xp = importlib.import_module(engine.name)
    return {engine.name: xp.__version__}


def engines() -> dict[str, EngineInfo]:
    """What engines there are, and why one is missing.

    Returns
    -------
    engines : dict of str to EngineInfo
        "cuda", "cpu", "cupy" and "numpy", in the order in which "auto" prefers them, each with `available`, `reason`
        and `details` (version, BLAS library and its core type, threads; "cuda": the names of the devices, and the
        versions of CUDA, driver, cuBLAS and cuSOLVER in NVIDIA's own counting, 13000 for 13.0).

    Notes
    -----
    Loads every engine that can be loaded, CuPy included where it is installed (0.4 s), and the CUDA plugin with cuBLAS
    and cuSOLVER where there is a driver (0.2 s); the answer about a missing one is kept for the life of the process.

    Examples
    --------
    >>> import brockett as bk
    >>> list(bk.engines())
    ['cuda', 'cpu', 'cupy', 'numpy']
    >>> bk.engines()["cpu"].available
    True
    """
    found: dict[str, EngineInfo] = {}
    for name in NAMES:
        try:
            engine = load(name)
            found[name] = EngineInfo(name, True, "", _details(engine))
        except EngineUnavailable:
            found[name] = EngineInfo(name, False, _missing[name])
    return found


def set_engine(name: str) -> None:
    """Choose the engine for all calls that follow, in all threads.

    Parameters
    ----------
    name : {"auto", "cuda", "cpu", "cupy", "numpy"}
        "auto" (the default) takes the best engine that serves the array at hand: "cpu" for host arrays, or "numpy"
        where the compiled core does not load; "cuda" for arrays on a CUDA device, or "cupy" for CuPy arrays where the
        CUDA plugin does not load. Any other word forces that engine, and an array that it does not serve is then
        refused, never moved. Overrides the environment variable BROCKETT_ENGINE.

    Raises
    ------
    InvalidArgument
        An unknown word.
    EngineUnavailable
        The engine cannot be used here; the choice stays what it was.

    Examples
    --------
    >>> import brockett as bk
    >>> bk.set_engine("numpy")
    >>> bk.set_engine("auto")
    """
    global _chosen
    _check_name("name", name)
    if name != "auto":
        load(name)
    _chosen = name


def _check_name(argument: str, name: object) -> None:
    words = ("auto", *NAMES)
    if not isinstance(name, str) or name not in words:
        raise InvalidArgument(argument, f"expected one of {', '.join(map(repr, words))}, got {name!r}")


def _choice() -> str:
    if _chosen is not None:
        return _chosen
    # Read at every use, and not at import: so a bad value is an error of the call that needs it, with its name.
    name = os.environ.get("BROCKETT_ENGINE", "") or "auto"
    _check_name("BROCKETT_ENGINE", name)
    return name


def engine_for(where: str, argument: str = "X") -> Engine:
    """The engine that serves an array.

    Parameters
    ----------
    where : {"host", "cuda", "cupy", "array-api"}
        NumPy, torch CPU and DLPack host memory; memory of a CUDA device; CuPy, which two engines serve; any other
        array-API namespace, which the fallback serves over that namespace itself.
    argument : str
        Name of the array, for the message.
    """
    name = _choice()
    if where == "host":
        if name == "auto":
            try:
                return load("cpu")
            except EngineUnavailable:
                return load("numpy")
        if name in ("cpu", "numpy"):
            return load(name)
        raise InvalidType(argument, f"is in host memory, which engine {name!r} does not serve (arrays are not moved)")
    if where == "cuda":
        if name in ("auto", "cuda"):
            try:
                return load("cuda")
            except EngineUnavailable as error:
                raise InvalidType(
                    argument,
                    f"is on a CUDA device, which no engine serves here ({error}), and arrays are not moved: pass it on "
                    "the CPU",
                ) from None
        raise InvalidType(argument, f"is on a CUDA device, which engine {name!r} does not serve (arrays are not moved)")
    if where == "cupy":
        if name in ("cuda", "cupy"):
            return load(name)
        if name == "auto":
            try:
                return load("cuda")
            except EngineUnavailable:
                return load("cupy")
        raise InvalidType(argument, f"is a CuPy array, which engine {name!r} does not serve (arrays are not moved)")
    if name in ("auto", "numpy"):
        return load("numpy")
    raise InvalidType(argument, f"is an array of a namespace which engine {name!r} does not serve; 'numpy' does")


def serves(name: str) -> bool:
    """Whether the engine `name` loads and may be taken: "auto" was chosen, or that engine itself."""
    if _choice() not in ("auto", name):
        return False
    try:
        load(name)
    except EngineUnavailable:
        return False
    return True


def set_threads(count: int) -> None:
    """Set how many threads brockett may use, process-wide.

    Parameters
    ----------
    count : int
        Threads of one call: BLAS threads on one large matrix, or workers over a batch of small ones or over the parts
        of a product with few columns ("krylov", "quick"). 0 (the default at start) takes what the BLAS library is set
        to by OPENBLAS_NUM_THREADS or threadpoolctl, at most the number of cores this process may run on. Set 1 where
        several processes share the machine: OpenBLAS slows down by two orders of magnitude when cores are
        oversubscribed.

    Raises
    ------
    InvalidArgument
        `count` is negative or not an integer.
    Unsupported
        The compiled core is missing. NumPy's own BLAS takes its count from threadpoolctl or the environment.

    Examples
    --------
    >>> import brockett as bk
    >>> bk.set_threads(0)
    """
    number = _options.count("count", count)
    try:
        core = load("cpu").module
    except EngineUnavailable as error:
        raise Unsupported(f"set_threads needs the compiled core: {error}") from error
    core.set_threads(number)


def threads() -> int:
    """Number of threads a call started now would use.

    Returns
    -------
    threads : int
        Of the compiled core; where that is missing, the number of cores this process may run on.

    Examples
    --------
    >>> import brockett as bk
    >>> bk.threads() >= 1
    True
    """
    try:
        return int(load("cpu").module.threads())
    except EngineUnavailable:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
