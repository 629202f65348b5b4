"""WeightWatcher on brockett: the same table, sooner.

>>> import brockett as bk
>>> bk.integrations.weightwatcher.TESTED
'0.7.7'

WeightWatcher has no place to plug a linear algebra in, so the names of the functions it calls are bound to others while
a block runs::

    import weightwatcher
    with bk.integrations.weightwatcher.accelerated():
        details = weightwatcher.WeightWatcher(model=model).analyze()

What is replaced, and by what:

* singular values: float64 Gram matrices (`brockett.singular_values`), the smallest values of square matrices from a
  Krylov method on the inverse, each to 2.5e-7 of itself at worst; matrices are not copied to float64 first;
* the power-law tail (`pl_package="ww"`, the default): the exact scan of `brockett.random_matrix.fit_power_law`;
* `randomize=True` and `mp_fit=True`: the density of the eigenvalues is estimated once instead of 230 times;
* `vectors=True`: the symmetric eigensolver in place of the general one, and a table of all vectors' numbers at once;
* `SVDSmoothing`: the best approximation of the rank asked for, where WeightWatcher has a randomized one.

Everything else runs as it is: other fits (`fit="TPL"`, `pl_package="powerlaw"`), complex weights, plots.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from . import _weightwatcher_fits as fits
from . import _weightwatcher_linalg as linalg
from ._rebind import Name, Rebinding, import_tool

__all__ = ["TESTED", "accelerated", "install", "installed", "uninstall"]

#: The version that the names and contracts were taken from.
TESTED = "0.7.7"
PACKAGE, HOW = "weightwatcher", f"pip install weightwatcher=={TESTED}"


def accelerated() -> AbstractContextManager[None]:
    """A block in which WeightWatcher computes with brockett.

    Returns
    -------
    block : context manager
        WeightWatcher is as it was before when the outermost block has ended, by an exception too. The names are the
        process's: other threads that use WeightWatcher meanwhile use brockett as well.

    Raises
    ------
    ImportError
        WeightWatcher is not installed.
    Unsupported
        The installed version has other names, or functions with other parameters: it names both versions.

    Notes
    -----
    The table is equal to WeightWatcher's to 1e-6 in every column, and random matrices are the same for the same seed of
    NumPy's generator. Of `vectors=True` that holds for eigenvectors that are determined: the one at xmin, which is an
    eigenvalue itself, falls to the tail or to the bulk by its last bit. A NaN or Inf in the weights raises `NonFinite`,
    a ValueError as before.

    Where WeightWatcher computes with PyTorch on a GPU (in half precision for vectors), that is left as it is, and only
    the fits are replaced.

    Examples
    --------
    >>> import brockett as bk
    >>> bk.integrations.weightwatcher.installed()
    False
    """
    return _REBINDING.bound()


def install() -> None:
    """WeightWatcher computes with brockett from now on, until `uninstall`.

    Raises
    ------
    ImportError, Unsupported
        As `accelerated`.
    """
    _REBINDING.install()


def uninstall() -> None:
    """Undo `install`. Blocks of `accelerated` that are open stay so."""
    _REBINDING.uninstall()


def installed() -> bool:
    """Whether WeightWatcher computes with brockett now.

    Returns
    -------
    installed : bool
    """
    return _REBINDING.active


def _names() -> Sequence[Name]:
    util, main, power = f"{PACKAGE}.RMT_Util", f"{PACKAGE}.{PACKAGE}", f"{PACKAGE}.WW_powerlaw"
    watcher = f"{main}:WeightWatcher"
    rmt = import_tool(PACKAGE, util, HOW)
    table = linalg.VectorTable(lambda: float(rmt.EPSILON))
    density = fits.fast_density_fit(rmt.calc_sigma)
    fit_parameters = ("data", "xmin", "xmax", "verbose", "distribution", "pl_package")
    names = [
        # each module has names of its own for what it imported
        *(Name(module, "pl_fit", fit_parameters, _tail_fit) for module in (util, main, power)),
        *(
            Name(module, "fit_density_with_range", ("evals", "Q", "bw", "sigma_range"), lambda _: density)
            for module in (util, main)
        ),
        Name(main, "discrete_entropy", ("vec", "num_bins"), lambda f: _looked_up(table, 0, f)),
        Name(main, "localization_ratio", ("vec",), lambda f: _looked_up(table, 1, f)),
        Name(main, "participation_ratio", ("vec",), lambda f: _looked_up(table, 2, f)),
        Name(watcher, "combined_eigenvalues", ("self", "Wmats", "N", "M", "n_comp", "params"), _decomposed_as_is),
        Name(watcher, "apply_normalize_Wmats", ("self", "ww_layer", "params"), _scaled_as_is),
    ]
    # WeightWatcher has both kinds twice: "fast" is the accurate one where there is no GPU
    on_gpu = getattr(rmt, "_svd_vals_fast", None) is not getattr(rmt, "_svd_vals_accurate", None)
    for kind in ("accurate",) if on_gpu else ("accurate", "fast"):
        names += [
            Name(util, f"_svd_vals_{kind}", ("W",), _singular_values),
            Name(util, f"_svd_full_{kind}", ("W",), _svd_full),
            Name(util, f"_eig_full_{kind}", ("W",), lambda f: _eig_full(table, f)),
            Name(util, f"_svd_values_{kind}", ("W", "k"), _leading_values),
            Name(util, f"_svd_lowrank_{kind}", ("W", "k"), _leading),
            Name(util, f"_smooth_W_{kind}", ("W", "n_comp"), _smoothed),
        ]
    return names


_REBINDING = Rebinding(PACKAGE, TESTED, HOW, _names)


# --- one function for each name: what brockett takes, and the original for the rest ---------------------------------


def _tail_fit(original: Callable[..., Any]) -> Callable[..., Any]:
    return fits.fast_pl_fit(import_tool(PACKAGE, f"{PACKAGE}.WW_powerlaw", HOW).WWFit, original)


def _singular_values(original: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda W: linalg.singular_values(W) if linalg.takes(W) else original(W)


def _svd_full(original: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda W: linalg.svd_full(W) if linalg.takes(W) else original(W)


def _leading_values(original: Callable[[Any, int], Any]) -> Callable[[Any, int], Any]:
    return lambda W, k: linalg.leading(W, k)[1] if linalg.takes(W) else original(W, k)


def _leading(original: Callable[[Any, int], Any]) -> Callable[[Any, int], Any]:
    return lambda W, k: linalg.leading(W, k) if linalg.takes(W) else original(W, k)


def _smoothed(original: Callable[[Any, int], Any]) -> Callable[[Any, int], Any]:
    return lambda W, n_comp: linalg.smoothed(W, n_comp) if linalg.takes(W) else original(W, n_comp)


def _eig_full(table: linalg.VectorTable, original: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def eig_full(W: Any) -> Any:
        found = linalg.symmetric_eigen(W)
        return original(W) if found is None else (found[0], table.remember(found[1]))

    return eig_full


def _looked_up(table: linalg.VectorTable, which: int, original: Callable[..., Any]) -> Callable[..., Any]:
    def metric(vec: Any, num_bins: int = table.BINS) -> Any:
        found = table.lookup(which, vec) if num_bins == table.BINS else None
        if found is not None:
            return found
        return original(vec, num_bins) if which == 0 else original(vec)

    return metric


def _decomposed_as_is(original: Callable[..., Any]) -> Callable[..., Any]:
    def combined_eigenvalues(self: Any, Wmats: Any, N: int, M: int, n_comp: int, params: Any = None) -> Any:
        return original(self, linalg.as_is(Wmats), N, M, n_comp, params)

    return combined_eigenvalues


def _scaled_as_is(original: Callable[..., Any]) -> Callable[..., Any]:
    def apply_normalize_Wmats(self: Any, ww_layer: Any, params: Any = None) -> Any:
        ww_layer.Wmats = linalg.as_is(ww_layer.Wmats)
        try:
            return original(self, ww_layer, params)
        finally:
            ww_layer.Wmats = linalg.plain(ww_layer.Wmats)

    return apply_normalize_Wmats
