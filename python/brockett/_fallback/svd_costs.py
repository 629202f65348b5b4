"""What the methods of svd and of leading eigenvectors take: the core's model and numbers, as in svd_costs.cpp."""

from __future__ import annotations


def svd_costs(longer: int, side: int, rank: int, single: bool) -> dict[str, float]:
    """Seconds that each method of `svd` takes; 0 where it does not serve."""
    m, n, k = float(longer), float(side), float(rank)
    rate = 8e10 if single else 4e10
    gram = 0.0
    if single and (rank < side or longer >= 2 * side):
        gram = m * n**2 / 5e10 + eigen_seconds(side, rank) + 2 * m * n * k / 5e10
    krylov, columns = krylov_costs(side, rank, 4 * m * n, 6 * m * n, rate)
    return {
        "exact": (3.4e-10 if single else 5.7e-10) * n**3 + 6 * (m - n) * n**2 / (1e11 if single else 5e10),
        "gram": gram,
        "krylov": krylov,
        "columns": float(int(columns)),
    }


def eigen_seconds(order: int, count: int) -> float:
    """The largest eigenvalues of a symmetric float64 matrix and their vectors, all of them or a part."""
    n, k = float(order), float(count)
    if k > 0.75 * n:
        return 2.5e-10 * n**3
    return 6e-11 * (1 + min(1.0, n / 4096)) * n**3 + 2 * n**2 * k / 5e10 + 1.2e-7 * n * k + 2 * n * k**2 / 5e10


def krylov_costs(
    order: int, count: int, product: float, finish: float, rate: float, spread: float = 0.0
) -> tuple[float, float]:
    """Seconds, and columns needed, of block Krylov for `count` vectors of `order` components.

    `product` flops for one column there and back, `finish` for one vector at the end, at `rate` flops a second.
    `spread`: about how many directions share the sum of the eigenvalues, 0 where unknown.
    """
    n, k, width = float(order), float(count), 8 if count <= 32 else 16
    columns = min(n, 1 / (1 / (6.5 * k + 16 * width + 4 * spread) + 1 / (1.4 * n)))
    depth = min(columns, 3 * k + 8 * width)
    seconds = (product + 2.4 * n * depth) * columns / rate + 4e-10 * depth**3 + finish * k / rate
    return seconds + 1.2e-4 * columns / width, columns
