"""Engines: what there is, why something is missing, which one serves what; import costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import brockett as bk
from brockett import _engine


def run(code: str, **environment: str) -> str:
    """Output of a fresh interpreter; bytecode is cached, as it is in an installation."""
    env = {**os.environ, **environment}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_is_cheap_and_loads_no_extras(tmp_path: Path) -> None:
    code = """
import json, sys, time
import numpy
before = set(sys.modules)
start = time.process_time()
import brockett
took = time.process_time() - start
print(json.dumps([took, sorted(m for m in set(sys.modules) - before if "." not in m)]))
"""
    runs = [json.loads(run(code, PYTHONPYCACHEPREFIX=str(tmp_path))) for _ in range(5)]
    extras = {
        "torch",
        "cupy",
        "scipy",
        "matplotlib",
        "array_api_compat",
        "array_api_strict",
        "sklearn",
        "rich",
        "typer",
    }
    assert extras.isdisjoint(runs[0][1])
    assert not any("_core" in name for name in runs[0][1])
    # CPU time, and the best of several: what others do on this machine is not what is measured.
    assert min(took for took, _ in runs) <= 0.050


def test_numpy_work_loads_no_extras() -> None:
    loaded = run(
        "import sys, numpy as np, brockett as bk\n"
        "bk.descramble(np.eye(4), inputs=np.ones((3, 4)))\n"
        "print([m for m in ('torch', 'cupy', 'scipy', 'matplotlib', 'array_api_strict') if m in sys.modules])",
        BROCKETT_ENGINE="cpu",
    )
    assert loaded.strip() == "[]"


def test_engines_tells_what_is_there_and_why_not() -> None:
    found = bk.engines()
    assert list(found) == ["cuda", "cpu", "cupy", "numpy"]
    assert found["numpy"].available
    assert found["numpy"].details["numpy"] == np.__version__
    for info in found.values():
        assert info.available == (info.reason == "")
        assert info.name in str(info)


def test_a_missing_plugin_is_the_reason_why_there_is_no_cuda(tmp_path: Path) -> None:
    said = run(
        "import brockett as bk; info = bk.engines()['cuda']; print(info.available, info.details); print(info.reason)",
        BROCKETT_CUDA_PLUGIN=str(tmp_path / "none.so"),
    )
    assert said.startswith("False {}\nBROCKETT_CUDA_PLUGIN names no readable file")


def test_cpu_engine_says_what_it_runs_on(engine: str) -> None:
    if engine != "cpu":
        assert bk.engines()[engine].available
        return
    details = bk.engines()["cpu"].details
    assert details["version"].count(".") == 2
    assert details["blas"]
    assert details["threads"] >= 1


def test_unknown_engine_is_refused_with_the_choices() -> None:
    with pytest.raises(bk.InvalidArgument, match="'auto', 'cuda', 'cpu', 'cupy', 'numpy', got 'gpu'"):
        bk.set_engine("gpu")
    with pytest.raises(bk.InvalidArgument):
        bk.set_engine(None)  # type: ignore[arg-type]


def test_missing_engine_is_refused_and_the_choice_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_engine, "_loaded", {})
    monkeypatch.setattr(_engine, "_missing", {"cuda": "no NVIDIA driver"})
    bk.set_engine("numpy")
    with pytest.raises(bk.EngineUnavailable, match="no NVIDIA driver"):
        bk.set_engine("cuda")
    assert bk.descramble(np.eye(2)).used["engine"] == "numpy"


def test_result_says_which_engine_ran(engine: str) -> None:
    assert bk.descramble(np.eye(2)).used["engine"] == engine


def test_environment_chooses_and_set_engine_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_engine, "_chosen", None)
    monkeypatch.setenv("BROCKETT_ENGINE", "numpy")
    assert bk.descramble(np.eye(2)).used["engine"] == "numpy"
    monkeypatch.setenv("BROCKETT_ENGINE", "fast")
    with pytest.raises(bk.InvalidArgument, match=r"BROCKETT_ENGINE: expected one of .* got 'fast'"):
        bk.svd(np.eye(2))
    monkeypatch.setenv("BROCKETT_ENGINE", "cuda")
    with pytest.raises(bk.InvalidType, match="host memory, which engine 'cuda' does not serve"):
        bk.svd(np.eye(2))
    bk.set_engine("numpy")
    assert bk.descramble(np.eye(2)).used["engine"] == "numpy"


def test_bad_environment_does_not_break_the_import() -> None:
    assert run("import brockett; print('fine')", BROCKETT_ENGINE="nonsense").strip() == "fine"


def test_auto_falls_back_to_numpy_without_the_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BROCKETT_ENGINE", raising=False)
    monkeypatch.setattr(_engine, "_chosen", None)
    monkeypatch.setattr(_engine, "_loaded", {})
    monkeypatch.setattr(_engine, "_missing", {"cpu": "the compiled core does not load: lost"})
    assert bk.descramble(np.eye(2)).used["engine"] == "numpy"
    assert bk.engines()["cpu"].reason == "the compiled core does not load: lost"
    with pytest.raises(bk.EngineUnavailable, match="lost"):
        bk.set_engine("cpu")
    with pytest.raises(bk.Unsupported, match="lost"):
        bk.set_threads(1)
    assert bk.threads() >= 1


def test_threads(engine: str) -> None:
    if engine != "cpu":
        return
    before = bk.threads()
    try:
        bk.set_threads(1)
        assert bk.threads() == 1
        for bad in (-1, 1.5, True, "2"):
            with pytest.raises(bk.InvalidArgument):
                bk.set_threads(bad)  # type: ignore[arg-type]
        assert bk.threads() == 1
    finally:
        bk.set_threads(0)
    assert bk.threads() == before


def test_the_lock_is_released_in_long_calls(rng: np.random.Generator) -> None:
    bk.set_engine("cpu")
    X = np.tile(rng.normal(size=(1000, 400)), (60, 1))
    acc = bk.Autocorrelation(400)
    running, ticks = threading.Event(), 0

    def work() -> None:
        running.set()
        acc.update(X)
        running.clear()

    worker = threading.Thread(target=work)
    worker.start()
    running.wait()
    start = time.perf_counter()
    while running.is_set():
        time.sleep(0.002)
        ticks += 1
    took = time.perf_counter() - start
    worker.join()
    # With the lock held all through, the loop would not run once before the update is over.
    assert ticks >= 3, f"{ticks} ticks in {took:.3f} s"
    assert acc.n_samples == 60_000


def test_long_work_answers_interrupts() -> None:
    # In a process of its own: without an answer between its starts this search would run for days.
    said = run(
        "import signal, numpy as np, brockett as bk\n"
        "class Stop(Exception): pass\n"
        "def stop(*_): raise Stop\n"
        "signal.signal(signal.SIGALRM, stop)\n"
        "W = np.random.default_rng(0).normal(size=(120, 120))\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.3)\n"
        "try:\n"
        "    bk.descramble(W, group='permutation', starts=1_000_000)\n"
        "except Stop:\n"
        "    print('stopped', bk.descramble(np.eye(3)).rank)\n",
        BROCKETT_ENGINE="cpu",
    )
    assert said.split() == ["stopped", "3"]


def test_an_interrupted_update_changes_nothing(rng: np.random.Generator) -> None:
    import signal

    bk.set_engine("cpu")
    acc = bk.Autocorrelation(600)
    acc.update(rng.normal(size=(10, 600)))
    before = acc.matrix()
    X = np.tile(rng.normal(size=(1000, 600)).astype(np.float32), (150, 1))

    class Stop(Exception):
        pass

    def stop(*_: object) -> None:
        raise Stop

    def update_again_and_again() -> None:
        for _ in range(1000):
            acc.update(X)

    handler = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.4)
        with pytest.raises(Stop):
            update_again_and_again()
        signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
    # Stopped inside an update or between two of them: what is held is whole updates.
    whole, rest = divmod(acc.n_samples - 10, len(X))
    assert rest == 0
    if whole == 0:
        assert np.array_equal(acc.matrix(), before)
    acc.update(rng.normal(size=(1, 600)))
    assert acc.n_samples == 11 + whole * len(X)


def test_version_and_cmake_dir_have_one_source() -> None:
    core = _engine.load("cpu").module
    assert core.version() == bk.__version__
    assert Path(core.lib_dir()).is_dir()


def test_unknown_attribute() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        bk.nonsense  # noqa: B018
