"""`accelerate` on torch: the caller's contract against the originals; autograd, transforms and compile see those."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import brockett as bk

torch = pytest.importorskip("torch", reason="torch is an optional partner")

EPS = {torch.float32: 2.0**-23, torch.float64: 2.0**-52}
SHAPES = [(40, 40), (90, 30), (30, 90), (2, 3, 20, 40)]
FUNCTIONS = ("linalg.svd", "linalg.svdvals", "linalg.eigh", "linalg.eigvalsh", "svd", "svd_lowrank", "pca_lowrank")


def lookup(name: str) -> Any:
    place: Any = torch
    for part in name.split("."):
        place = getattr(place, part)
    return place


@pytest.fixture(autouse=True)
def _originals_come_back() -> Iterator[None]:
    before = [lookup(name) for name in FUNCTIONS]
    yield
    assert [lookup(name) for name in FUNCTIONS] == before


def layer(shape: tuple[int, ...], dtype: Any = torch.float32) -> Any:
    """A bulk far from singular."""
    A = np.random.default_rng(5).standard_normal(shape)
    k = np.arange(min(shape[-2:]))
    A[..., k, k] += 30 + 3 * k
    return torch.from_numpy(A).to(dtype)


def same_vectors(first: Any, other: Any, tolerance: float) -> None:
    overlap = (first.double() * other.double()).sum(dim=-2).abs()
    torch.testing.assert_close(overlap, torch.ones_like(overlap), atol=tolerance, rtol=0)


def taken(report: bk.AccelerationReport, name: str) -> tuple[int, int]:
    row = report.functions().get(name, {"taken": 0, "left": 0})
    return row["taken"], row["left"]


# --- the contract -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("full", [True, False])
def test_svd(engine: str, shape: tuple[int, ...], dtype: Any, full: bool) -> None:
    A = layer(shape, dtype)
    kept, expected = A.clone(), torch.linalg.svd(A, full_matrices=full)
    old = torch.svd(A, some=not full)
    with bk.accelerate(only=["torch"], min_size=1, report=True) as report:
        found = torch.linalg.svd(A, full_matrices=full)
        found_old = torch.svd(A, some=not full)
        values = torch.linalg.svdvals(A)
    assert report.left == 0, str(report)
    assert type(found) is type(expected)
    assert type(found_old) is type(old)
    k, eps = min(shape[-2:]), EPS[dtype]
    scale = float(expected.S.max())
    for mine, theirs in zip((*found, *found_old), (*expected, *old), strict=True):
        assert (mine.shape, mine.dtype, mine.device) == (theirs.shape, theirs.dtype, theirs.device)
        assert not mine.requires_grad
    for s in (found.S, found_old.S, values):
        torch.testing.assert_close(s, expected.S, atol=40 * eps * scale, rtol=0)
    same_vectors(found.U[..., :k], expected.U[..., :k], 1e-3 if dtype is torch.float32 else 1e-9)
    same_vectors(found_old.V[..., :k], old.V[..., :k], 1e-3 if dtype is torch.float32 else 1e-9)
    middle = found.U[..., :k] * found.S[..., None, :] @ found.Vh[..., :k, :]
    torch.testing.assert_close(middle, A, atol=40 * eps * scale, rtol=0)
    for Q in (found.U, found.Vh.mT, found_old.U, found_old.V):
        eye = torch.eye(Q.shape[-1], dtype=dtype).expand(*Q.shape[:-2], -1, -1)
        torch.testing.assert_close(Q.mT @ Q, eye, atol=60 * eps, rtol=0)
    assert torch.equal(A, kept)


@pytest.mark.parametrize("shape", [(6, 9), (2, 5, 3)], ids=str)
def test_old_svd_without_vectors_gives_zeros_that_can_be_written(shape: tuple[int, ...]) -> None:
    A = layer(shape)
    expected = torch.svd(A, compute_uv=False)
    with bk.accelerate(only=["torch"], min_size=1, report=True) as report:
        found = torch.svd(A, compute_uv=False)
    assert taken(report, "torch.svd") == (1, 0)
    torch.testing.assert_close(found.S, expected.S)
    for mine, theirs in ((found.U, expected.U), (found.V, expected.V)):
        assert torch.equal(mine, theirs)
        mine += 1
        assert bool((mine == 1).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("uplo", ["L", "U"])
@pytest.mark.parametrize("shape", [(33, 33), (2, 3, 8, 8)], ids=str)
def test_eigh(engine: str, dtype: Any, uplo: str, shape: tuple[int, ...]) -> None:
    X = layer(shape, dtype)
    S = (X + X.mT) / 2
    S += torch.triu(torch.full_like(S, 7), 1) if uplo == "L" else torch.tril(torch.full_like(S, 7), -1)  # not read
    expected, values = torch.linalg.eigh(S, UPLO=uplo), torch.linalg.eigvalsh(S, UPLO=uplo)
    with bk.accelerate(only=["torch"], min_size=1, report=True) as report:
        found, mine = torch.linalg.eigh(S, UPLO=uplo), torch.linalg.eigvalsh(S, UPLO=uplo)
    assert (report.taken, report.left) == (2, 0), str(report)
    assert type(found) is type(expected)
    scale = float(values.abs().max())
    for w in (found.eigenvalues, mine):
        torch.testing.assert_close(w, values, atol=40 * EPS[dtype] * scale, rtol=0)
    assert found.eigenvectors.shape == expected.eigenvectors.shape
    assert found.eigenvectors.dtype == dtype
    same_vectors(found.eigenvectors, expected.eigenvectors, 1e-3 if dtype is torch.float32 else 1e-9)


def test_rank_deficient_values_are_below_the_cut_of_matrix_rank(engine: str) -> None:
    rng = np.random.default_rng(0)
    A = torch.from_numpy((rng.standard_normal((80, 7)) @ rng.standard_normal((7, 60))).astype(np.float32))
    for matrix, rank in ((A, 7), (torch.zeros(9, 5), 0), (torch.ones(5, 9), 1)):
        with bk.accelerate(only=["torch"], min_size=1, report=True) as report:
            s = torch.linalg.svdvals(matrix)
        assert report.taken == 1
        assert int((s > max(matrix.shape) * EPS[torch.float32] * s[0]).sum()) == rank
        torch.testing.assert_close(s, torch.linalg.svdvals(matrix), atol=1e-5 * float(s[0]) + 1e-30, rtol=0)


def test_svd_lowrank_and_pca_lowrank() -> None:
    s = 0.7 ** np.arange(60)
    rng = np.random.default_rng(2)
    U, V = (np.linalg.qr(rng.standard_normal((m, 60)))[0] for m in (120, 60))
    A = torch.from_numpy((U * s) @ V.T)
    for matrix, name in ((A, "svd_lowrank"), (A.mT, "svd_lowrank"), (A, "pca_lowrank")):
        call = getattr(torch, name)
        torch.manual_seed(3)
        expected = call(matrix, q=12, niter=6)
        after = torch.rand(())
        torch.manual_seed(3)
        with bk.accelerate(only=["torch"], min_size=1, report=True) as report:
            found = call(matrix, q=12, niter=6)
            again = torch.rand(())
        assert taken(report, "torch.svd_lowrank") == (1, 0), str(report)
        assert torch.equal(after, again)  # the generator went as far
        centered = matrix - matrix.mean(dim=0) if name == "pca_lowrank" else matrix
        exact = torch.linalg.svd(centered, full_matrices=False)
        assert type(found) is type(expected)
        for mine, theirs in zip(found, expected, strict=True):
            assert (mine.shape, mine.dtype) == (theirs.shape, theirs.dtype)
        worst = (expected[1] - exact.S[:12]).abs().max()
        assert float((found[1] - exact.S[:12]).abs().max()) <= max(float(worst), 1e-12)
        same_vectors(found[2], exact.Vh[:12].mT, 1e-5)
    torch.manual_seed(0)
    with bk.accelerate(only=["torch"], report=True) as report:
        torch.svd_lowrank(layer((300, 300)), q=6)
        torch.svd_lowrank(layer((300, 300)), q=1, niter=8)
    assert report.functions()["torch.svd_lowrank"]["reasons"] == {"few iterations": 1, "few columns": 1}


@pytest.mark.parametrize("q", [1, 6, 12, 40])
@pytest.mark.parametrize("niter", [4, 7])
@pytest.mark.parametrize("power", [-0.1, -0.3, -1.0])
def test_errors_of_svd_lowrank_are_no_larger_than_the_original_s(q: int, niter: int, power: float) -> None:
    """Power iteration for one value among them, for which a space of half as many steps is too small."""
    s = np.arange(1, 301) ** power
    rng = np.random.default_rng(4)
    U, V = (np.linalg.qr(rng.standard_normal((m, 300)))[0] for m in (400, 300))
    A = torch.from_numpy((U * s) @ V.T)
    error: dict[bool, list[float]] = {False: [], True: []}
    for seed in range(3):
        for within in error:
            torch.manual_seed(seed)
            if within:
                with bk.accelerate(only=["torch"], report=True) as report:
                    U_, S, V_ = torch.svd_lowrank(A, q=q, niter=niter)
                assert taken(report, "torch.svd_lowrank") == ((1, 0) if q >= 12 else (0, 1))
            else:
                U_, S, V_ = torch.svd_lowrank(A, q=q, niter=niter)
            lost = float(torch.linalg.norm(A - (U_ * S) @ V_.mT)) ** 2 - float((s[q:] ** 2).sum())
            error[within].append(lost)
    assert sum(error[True]) <= 1.05 * sum(error[False]) + 1e-12, error


def test_a_call_of_svd_lowrank_that_fails_leaves_the_generator_as_the_original_does() -> None:
    A = layer((60, 40))
    A[3, 4] = torch.nan
    states = []
    for scope in (contextlib.nullcontext(), bk.accelerate(only=["torch"], min_size=1)):
        torch.manual_seed(5)
        with scope, pytest.raises(RuntimeError, match="converge"):
            torch.svd_lowrank(A, q=12, niter=4)
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


# --- what goes to the original ----------------------------------------------------------------------------------------


def test_autograd_is_not_broken() -> None:
    A = layer((5, 7), torch.float64).requires_grad_()
    S = layer((6, 6), torch.float64)

    def loss(X: Any) -> Any:
        return torch.linalg.svdvals(X).sum() + torch.svd(X)[1].sum() + torch.linalg.svd(X, full_matrices=False).S.sum()

    def eigen(X: Any) -> Any:
        X = X + X.mT
        return torch.linalg.eigvalsh(X).square().sum() + torch.linalg.eigh(X).eigenvalues.sum()

    with bk.accelerate(only=["torch"], min_size=1):
        assert torch.autograd.gradcheck(loss, (A,))
        assert torch.autograd.gradcheck(eigen, (S.clone().requires_grad_(),))
    loss(A).backward()
    expected, A.grad = A.grad, None
    with bk.accelerate(only=["torch"], min_size=1, report=True) as report:
        loss(A).backward()
    assert report.taken == 0
    assert all(row["reasons"] == {"requires grad": 1} for row in report.functions().values())
    torch.testing.assert_close(A.grad, expected)
    weight = torch.nn.Parameter(layer((20, 30)))
    with bk.accelerate(only=["torch"], min_size=1, report=True) as report, torch.no_grad():
        assert not torch.linalg.svdvals(weight).requires_grad
    assert report.taken == 1


def test_transforms_and_modes_see_the_original() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.overrides import TorchFunctionMode

    A = layer((3, 8, 6), torch.float64)
    values = torch.linalg.svdvals(A)
    gradient = torch.func.grad(lambda X: torch.linalg.svdvals(X).sum())
    expected = gradient(A[0])
    tangent = torch.func.jvp(lambda X: torch.linalg.svdvals(X), (A[0],), (A[1],))

    class Seen(TorchFunctionMode):
        names: list[str] = []  # noqa: RUF012

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.names.append(func.__name__)
            return func(*args, **(kwargs or {}))

    with bk.accelerate(only=["torch"], min_size=1, report=True) as report:
        torch.testing.assert_close(torch.func.vmap(torch.linalg.svdvals)(A), values)
        torch.testing.assert_close(gradient(A[0]), expected)
        torch.testing.assert_close(torch.func.jvp(lambda X: torch.linalg.svdvals(X), (A[0],), (A[1],)), tangent)
        with Seen():
            torch.linalg.svdvals(A)
        with FakeTensorMode() as mode:
            assert torch.linalg.svdvals(mode.from_tensor(A)).shape == (3, 6)
        traced = torch.jit.trace(lambda X: torch.linalg.svdvals(X), (A,), check_trace=False)
        assert report.taken == 0, str(report)
        reasons = report.functions()["torch.linalg.svdvals"]["reasons"]
        assert set(reasons) <= {"transformed or traced", "requires grad", "type"}, reasons
    assert "linalg_svdvals" in Seen.names
    assert "svdvals" in str(traced.graph)
    torch.testing.assert_close(traced(2 * A), 2 * values)


def test_compiled_functions_keep_the_original_in_their_graph() -> None:
    A = layer((8, 6), torch.float64)
    expected = torch.linalg.svdvals(A) * 2

    def double(X: Any) -> Any:
        return torch.linalg.svdvals(X) * 2

    compiled = torch.compile(double, backend="eager", fullgraph=True)
    with bk.accelerate(only=["torch"], min_size=1, report=True) as report:
        torch.testing.assert_close(compiled(A), expected)
        assert report.taken == 0
    torch.testing.assert_close(compiled(A), expected)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(double, backend="eager", fullgraph=True)(A), expected)
    torch._dynamo.reset()


class Tagged(torch.Tensor):
    """Somebody's own tensor."""


LEFT = {
    "complex": lambda: torch.linalg.svd(layer((4, 4)).to(torch.complex64)),
    "out": lambda: torch.linalg.svdvals(layer((4, 4)), out=torch.empty(4)),
    "out of eigh": lambda: torch.linalg.eigh(layer((4, 4)), out=(torch.empty(4), torch.empty(4, 4))),
    "empty": lambda: torch.linalg.svdvals(torch.zeros(0, 4)),
    "subclass": lambda: torch.linalg.svdvals(layer((4, 4)).as_subclass(Tagged)),
    "meta": lambda: torch.linalg.svdvals(torch.empty(4, 4, device="meta")).shape,
}


@pytest.mark.parametrize("call", LEFT.values(), ids=LEFT)
def test_left_to_the_original(call: Any) -> None:
    expected = call()
    with bk.accelerate(only=["torch"], min_size=1, report=True) as report:
        found = call()
    assert (report.taken, report.left) == (0, 1)
    assert type(found) is type(expected)
    pairs = zip(found, expected, strict=True) if isinstance(found, tuple) else [(found, expected)]
    for mine, theirs in pairs:
        assert mine == theirs if isinstance(mine, int) else bool((mine == theirs).all())


ERRORS = {
    "vector": lambda: torch.linalg.svd(torch.ones(3)),
    "half": lambda: torch.linalg.svdvals(layer((4, 4)).half()),
    "bfloat16": lambda: torch.svd(layer((4, 4)).bfloat16()),
    "integers": lambda: torch.linalg.svd(torch.ones(3, 3, dtype=torch.int64)),
    "nan": lambda: torch.linalg.svd(torch.full((9, 9), float("nan"))),
    "not square": lambda: torch.linalg.eigh(layer((3, 4))),
    "uplo": lambda: torch.linalg.eigh(layer((3, 3)), UPLO="X"),
    "driver": lambda: torch.linalg.svd(layer((3, 3)), driver="gesvd"),
    "list": lambda: torch.linalg.svd([[1.0]]),
    "old list": lambda: torch.svd([[1.0]]),
    "array": lambda: torch.linalg.svdvals(np.eye(3)),
    "nothing": lambda: torch.linalg.svd(),
    "keyword": lambda: torch.linalg.svd(layer((3, 3)), full=True),
    "sparse": lambda: torch.linalg.svd(layer((3, 3)).to_sparse()),
    "lowrank of a vector": lambda: torch.svd_lowrank(torch.ones(3)),
}


@pytest.mark.parametrize("call", ERRORS.values(), ids=ERRORS)
def test_errors_are_the_original_s(call: Any) -> None:
    with pytest.raises(Exception) as expected:
        call()
    with bk.accelerate(only=["torch"], min_size=1), pytest.raises(Exception) as found:
        call()
    assert type(found.value) is type(expected.value)
    assert str(found.value) == str(expected.value)


def test_default_limits_take_wide_layers_and_leave_square_ones() -> None:
    with bk.accelerate(only=["torch"], report=True) as report:
        torch.linalg.svdvals(layer((128, 512)))
        torch.linalg.svd(layer((128, 512)), full_matrices=False)
        torch.linalg.svd(layer((130, 150)), full_matrices=False)
        torch.linalg.svdvals(layer((32, 64)))
        torch.linalg.eigh(layer((40, 40)))
    rows = report.functions()
    assert (rows["torch.linalg.svdvals"]["taken"], rows["torch.linalg.svdvals"]["reasons"]) == (1, {"small": 1})
    assert rows["torch.linalg.svd"]["taken"] == 1
    assert rows["torch.linalg.svd"]["reasons"] == {"not faster for this shape": 1}
    assert rows["torch.linalg.eigh"]["reasons"] == {"the same LAPACK": 1}
