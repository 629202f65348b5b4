"""Where and from when to when `accelerate` holds: names, threads, tasks, generators; its arguments and its report."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
import types
import warnings
import weakref
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse.linalg

import brockett as bk
from accelerate_cases import originals_come_back, spectrum  # noqa: F401
from brockett import _accelerate_names, _accelerate_scope

GOOD = spectrum(60, 30, np.linspace(2, 1, 30)).astype(np.float32)


def taken_now() -> bool:
    """Whether a call from here runs on brockett."""
    scope = _accelerate_scope.current()
    return scope is not None and "numpy" in scope.options.libraries


def test_names_are_bound_and_come_back() -> None:
    original = np.linalg.svd
    module = types.ModuleType("somebody_s_module")
    module.mine = original  # type: ignore[attr-defined]
    module.other = np.linalg.qr  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    try:
        with bk.accelerate(only=["numpy"], min_size=1, report=True) as report:
            assert np.linalg.svd is not original
            assert np.linalg.svd.__name__ == "svd"
            assert np.linalg.svd._implementation is original._implementation
            assert module.mine is np.linalg.svd
            assert module.other is np.linalg.qr
            module.mine(GOOD, compute_uv=False)
            late = types.ModuleType("imported_inside")
            late.svd = np.linalg.svd  # type: ignore[attr-defined]
            sys.modules[late.__name__] = late
        assert report.taken == 1
        assert np.linalg.svd is module.mine is late.svd is original
    finally:
        del sys.modules[module.__name__]
        sys.modules.pop("imported_inside", None)


def test_a_stand_in_kept_for_later_is_the_original() -> None:
    with bk.accelerate(only=["numpy"], min_size=1, report=True) as report:
        kept = np.linalg.svd
    np.testing.assert_array_equal(kept(GOOD, compute_uv=False), np.linalg.svd(GOOD, compute_uv=False))
    assert report.taken == report.left == 0


def test_what_somebody_else_bound_meanwhile_stays() -> None:
    original = np.linalg.eigh

    def theirs(*_: Any) -> str:
        return "theirs"

    try:
        with bk.accelerate(only=["numpy"]):
            np.linalg.eigh = theirs
        assert np.linalg.eigh is theirs
    finally:
        np.linalg.eigh = original


def test_an_exception_restores() -> None:
    original = np.linalg.svd

    def fails() -> None:
        with bk.accelerate(only=["numpy"]):
            assert np.linalg.svd is not original
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        fails()
    assert np.linalg.svd is original


def test_nested_the_innermost_decides_and_all_count() -> None:
    with bk.accelerate(only=["numpy"], min_size=1, report=True) as outer:
        np.linalg.svd(GOOD, compute_uv=False)
        with bk.accelerate(only=["scipy"], min_size=1, report=True) as inner:
            np.linalg.svd(GOOD, compute_uv=False)  # not selected here
            scipy.linalg.svd(GOOD, compute_uv=False)
        with bk.accelerate(only=["numpy"], min_size=10**6):
            np.linalg.svd(GOOD, compute_uv=False)
        np.linalg.svd(GOOD, compute_uv=False)
    assert (inner.taken, inner.left) == (1, 0)
    assert outer.functions()["numpy.linalg.svd"]["taken"] == 2
    assert outer.functions()["numpy.linalg.svd"]["reasons"] == {"small": 1}
    assert outer.functions()["scipy.linalg.svd"]["taken"] == 1


def test_one_object_entered_twice() -> None:
    again = bk.accelerate(only=["numpy"], min_size=1, report=True)
    with again:
        with again:
            np.linalg.svd(GOOD, compute_uv=False)
        assert taken_now()
        np.linalg.svd(GOOD, compute_uv=False)
    assert not taken_now()
    assert again.report is not None
    assert again.report.taken == 2


def test_threads_are_on_their_own() -> None:
    seen: dict[str, Any] = {}
    inside, done = threading.Event(), threading.Event()
    shared = bk.accelerate(only=["numpy"], min_size=1, report=True)

    def stranger() -> None:
        inside.wait(20)
        seen["stranger"] = taken_now()
        with shared:
            seen["entered"] = taken_now()
        seen["left"] = taken_now()
        done.set()

    thread = threading.Thread(target=stranger)
    thread.start()
    with shared:
        inside.set()
        assert done.wait(20)
        assert taken_now()  # the other thread closed its own scope, not this one
        assert np.linalg.svd(GOOD, compute_uv=False).dtype == np.float32
    thread.join()
    assert seen == {"stranger": False, "entered": True, "left": False}
    assert shared.report is not None
    assert shared.report.taken == 1


def test_one_object_in_two_threads_that_overlap() -> None:
    """Who leaves first closes its own scope, not the one that was entered last."""
    shared = bk.accelerate(only=["numpy"])
    entered, go = threading.Event(), threading.Event()
    seen: list[bool] = []

    def later() -> None:
        with shared:
            entered.set()
            go.wait(20)
            seen.append(taken_now())

    thread = threading.Thread(target=later)
    with shared:
        thread.start()
        assert entered.wait(20)
    assert not taken_now()
    go.set()
    thread.join()
    assert seen == [True]


def test_many_threads_at_once() -> None:
    expected = np.linalg.svd(GOOD, compute_uv=False)
    failures: list[object] = []

    def work() -> None:
        try:
            for _ in range(5):
                with bk.accelerate(only=["numpy"], min_size=1, report=True) as report:
                    np.testing.assert_allclose(np.linalg.svd(GOOD, compute_uv=False), expected, rtol=1e-6)
                assert report.taken == 1
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_asyncio_tasks_are_on_their_own() -> None:
    async def inside(entered: asyncio.Event, go: asyncio.Event) -> bool:
        with bk.accelerate(only=["numpy"]):
            entered.set()
            await go.wait()
            return taken_now()

    async def main() -> tuple[bool, bool, bool]:
        entered, go = asyncio.Event(), asyncio.Event()
        first = asyncio.create_task(inside(entered, go))
        await entered.wait()
        outside = taken_now()
        go.set()
        return await first, outside, taken_now()

    assert asyncio.run(main()) == (True, False, False)


def test_generators_restore_however_they_end() -> None:
    def steps() -> Iterator[bool]:
        with bk.accelerate(only=["numpy"]):
            yield taken_now()
            yield taken_now()

    assert list(steps()) == [True, True]
    abandoned = steps()
    assert next(abandoned)
    abandoned.close()
    assert not taken_now()
    # closed in a context in which it was never entered
    elsewhere = steps()
    assert next(elsewhere)
    thread = threading.Thread(target=elsewhere.close)
    thread.start()
    thread.join()
    assert not taken_now()


def test_as_a_decorator() -> None:
    fast = bk.accelerate(only=["numpy"], min_size=1, report=True)

    @fast
    def values(A: Any) -> Any:
        """Of A."""
        return np.linalg.svd(A, compute_uv=False)

    @fast
    async def awaited() -> bool:
        await asyncio.sleep(0)
        return taken_now()

    @fast
    def generated() -> Iterator[bool]:
        yield taken_now()

    assert values.__name__ == "values"
    values(GOOD)
    values(GOOD)
    assert fast.report is not None
    assert fast.report.taken == 2
    assert asyncio.run(awaited())
    assert list(generated()) == [True]
    assert not taken_now()

    async def stream() -> Any:
        yield 1

    with pytest.raises(bk.InvalidType, match="asynchronous generator"):
        fast(stream)


def test_a_decorated_generator_is_inside_while_its_body_runs() -> None:
    seen: list[tuple[str, Any, bool]] = []

    @bk.accelerate(only=["numpy"])
    def steps(first: int) -> Generator[int, str, str]:
        try:
            seen.append(("sent", (yield first), taken_now()))
            try:
                yield first + 1
            except KeyError as error:
                seen.append(("thrown", error.args, taken_now()))
            yield first + 2
            return "result"
        finally:
            seen.append(("end", None, taken_now()))

    original = np.linalg.svd
    walk = steps(5)
    assert next(walk) == 5
    assert not taken_now()
    assert walk.send("word") == 6
    assert walk.throw(KeyError("k")) == 7
    assert not taken_now()
    with pytest.raises(StopIteration) as stopped:
        next(walk)
    assert stopped.value.value == "result"
    assert seen == [("sent", "word", True), ("thrown", ("k",), True), ("end", None, True)]
    assert np.linalg.svd is original

    seen.clear()
    walk = steps(0)
    next(walk)
    walk.close()
    assert seen == [("end", None, True)]
    assert list(walk) == []

    walk = steps(0)
    next(walk)
    with pytest.raises(OSError, match="not caught inside"):
        walk.throw(OSError("not caught inside"))
    assert not taken_now()
    assert np.linalg.svd is original

    def outer() -> Iterator[Any]:
        yield (yield from steps(1))

    assert list(outer()) == [1, 2, 3, "result"]


def test_a_decorated_generator_keeps_nothing_that_passes_through_it() -> None:
    class Batch:
        pass

    class Stop(Exception):
        pass

    @bk.accelerate(only=["numpy"])
    def steps() -> Generator[Batch, Any, None]:
        while True:
            yield Batch()

    walk = steps()
    batch = next(walk)
    kept = weakref.ref(batch)
    del batch
    assert kept() is None
    sent = Batch()
    kept = weakref.ref(sent)
    walk.send(sent)
    del sent
    assert kept() is None
    error = Stop()
    thrown = weakref.ref(error)
    with contextlib.suppress(Stop):
        walk.throw(error)
    del error
    assert thrown() is None


def test_a_decorated_generator_may_outlive_everything() -> None:
    lines = (
        "import brockett as bk",
        "@bk.accelerate(only=['numpy'])",
        "def steps():",
        "    try:",
        "        yield",
        "    finally:",
        "        print('closed')",
        "walk = steps()",
        "next(walk)",
    )
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("closed\n", "")


def test_leaving_what_was_not_entered_is_an_error() -> None:
    scope = bk.accelerate(only=["numpy"])
    for _ in range(2):
        with pytest.raises(bk.InvalidArgument, match="accelerate: was left without having been entered"):
            scope.__exit__(None, None, None)
        with scope:
            assert taken_now()
        assert not taken_now()


def test_a_fallback_that_calls_numpy_does_not_run_in_circles() -> None:
    bk.set_engine("numpy")
    with bk.accelerate(only=["numpy"], min_size=1, report=True) as report:
        np.linalg.svd(GOOD, full_matrices=False)
        bk.svd(GOOD, method="exact")  # brockett's own call, outside of what is taken over
    assert report.functions()["numpy.linalg.svd"]["taken"] >= 1


# --- arguments, reports, versions -------------------------------------------------------------------------------------


def test_report_says_what_happened() -> None:
    with bk.accelerate(only=["numpy"], min_size=1, report=True) as report:
        assert str(report) == "no call of a function that brockett can take"
        np.linalg.svd(GOOD, compute_uv=False)
        np.linalg.svd([[1.0]], compute_uv=False)
    row = report.functions()["numpy.linalg.svd"]
    assert (row["taken"], row["left"], row["reasons"]) == (1, 1, {"type": 1})
    assert row["taken_seconds"] > 0
    assert row["left_seconds"] > 0
    lines = str(report).splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("numpy.linalg.svd")
    assert lines[1].endswith("type (1)")
    assert repr(report) == "<AccelerationReport: 1 calls taken, 1 left>"
    with bk.accelerate(only=["numpy"]) as nothing:
        assert nothing is None


@pytest.mark.parametrize(
    ("arguments", "argument"),
    [
        ({"only": "numpy"}, "only"),
        ({"only": ["jax"]}, "only"),
        ({"only": 3}, "only"),
        ({"min_size": 0}, "min_size"),
        ({"tol": -1.0}, "tol"),
        ({"tol": float("nan")}, "tol"),
        ({"report": "yes"}, "report"),
    ],
    ids=str,
)
def test_arguments_are_checked(arguments: dict[str, Any], argument: str) -> None:
    with pytest.raises(bk.InvalidArgument) as error:
        bk.accelerate(**arguments)
    assert error.value.argument == argument


def test_a_moved_name_is_said_with_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(scipy.sparse.linalg, "svds")
    svd = scipy.linalg.svd
    with pytest.raises(bk.Unsupported, match=r"scipy .* has no scipy.sparse.linalg.svds, which scipy 1\.\d+"):
        bk.accelerate(only=["scipy", "numpy"]).__enter__()
    assert not _accelerate_names._bound
    assert scipy.linalg.svd is svd
    monkeypatch.setattr(_accelerate_names, "loaded", lambda: frozenset({"scipy"}))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with bk.accelerate(min_size=1, report=True) as report:
            scipy.linalg.svd(GOOD, compute_uv=False)
    assert ["scipy.sparse.linalg.svds is left as it is" in str(one.message) for one in caught] == [True]
    assert report.taken == 1
    monkeypatch.undo()


def test_a_library_that_is_not_installed_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = _accelerate_names._Library("no_such_package", "1.0", _accelerate_names.LIBRARIES["numpy"].functions)
    monkeypatch.setitem(_accelerate_names.LIBRARIES, "sklearn", absent)
    with bk.accelerate(only=["sklearn", "numpy"], min_size=1, report=True) as report:
        np.linalg.svd(GOOD, compute_uv=False)
    assert report.taken == 1
