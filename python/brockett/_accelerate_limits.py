"""From which size and for which shape a function is faster here than its original: measured, one row a function."""

from __future__ import annotations

from collections.abc import Sequence

from ._accelerate_scope import Left, Options

__all__ = ["check_worth"]

#: Smallest min(m, n) for square matrices, for tall ones (m ≥ 2 n) and for wide ones (n ≥ 2 m); None: never. Measured on
#: a Zen 4 with AVX-512 at one thread, against NumPy 2.4 and SciPy 1.17 (OpenBLAS 0.3.31) and torch 2.13 (MKL 2024.2).
#: MKL's SVD of a wide matrix takes 3 to 10 times as long as that of its transpose; where both call the same LAPACK, the
#: original runs.
LIMITS: dict[str, tuple[int | None, int | None, int | None]] = {
    "torch svdvals float32": (256, 128, 64),
    "torch svdvals float64": (None, None, 128),
    "torch svd float32": (None, None, 128),
    "torch svd float64": (None, None, 256),
    "torch full svd float32": (None, None, 256),
    "torch full svd float64": (None, None, 256),
    "torch eigvalsh float32": (256, None, None),
    "torch eigvalsh float64": (256, None, None),
    "torch eigh float32": (None, None, None),
    "torch eigh float64": (256, None, None),
    "torch svd_lowrank float32": (256, 256, 256),
    "torch svd_lowrank float64": (256, 256, 256),
    # Square ones mostly have values that a Gram matrix does not resolve to rounding: the time for it would be lost.
    "numpy values float32": (None, 64, 64),
    "numpy vectors float32": (None, 64, 64),
    "numpy values float64": (None, None, None),
    "numpy vectors float64": (None, None, None),
    "numpy eigvalsh float32": (3000, None, None),  # the two-stage reduction
    "numpy eigvalsh float64": (3000, None, None),
    "numpy eigh float32": (None, None, None),
    "numpy eigh float64": (None, None, None),
    "scipy values float32": (384, 128, 128),
    "scipy values float64": (None, None, None),
    "scipy vectors float32": (None, None, 128),
    "scipy vectors float64": (None, None, None),
    "scipy eigvalsh float32": (3000, None, None),
    "scipy eigvalsh float64": (3000, None, None),
    "scipy eigh float32": (256, None, None),
    "scipy eigh float64": (512, None, None),
    "sklearn randomized_svd": (256, 256, 256),
    "values within tol": (128, 64, 64),
}


def check_worth(options: Options, function: str, shape: Sequence[int]) -> None:
    """`Left` where the original is as fast on matrices of `shape`; a `min_size` of the caller's own decides alone."""
    m, n = shape[-2:]
    if options.tol is not None and function.split()[1] in ("values", "svdvals"):
        function = "values within tol"
    if options.min_size is not None:
        least: int | None = options.min_size
    else:
        least = LIMITS[function][1 if m >= 2 * n else 2 if n >= 2 * m else 0]
    if least is None:
        raise Left("not faster for this shape" if any(LIMITS[function]) else "the same LAPACK")
    if min(m, n) < least:
        raise Left("small")
