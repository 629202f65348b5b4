"""A progress bar on standard error: rich's where that is installed, a line that counts where it is not."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Protocol

from . import _options

__all__ = ["Advance", "printable", "progress"]


class Advance(Protocol):
    """One more is done; `name` is what is worked on now. Not `timed`: it took no time, and says nothing of the rest."""

    def __call__(self, name: str = "", timed: bool = True) -> None: ...


def printable(text: str) -> str:
    """Names come from files: what would move the cursor, colour the terminal or break a line is shown escaped."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


@contextlib.contextmanager
def progress(title: str, total: int | None, wanted: bool | None, note: str = "") -> Iterator[Advance]:
    """Yield a function that tells what is being worked on now, and that one more of `total` is done.

    Parameters
    ----------
    title : str
    total : int or None
        None: not known.
    wanted : bool or None
        None: where standard error is a terminal.
    note : str
        A line before it all, shown where the progress is.
    """
    shown = sys.stderr.isatty() if wanted is None else _options.flag("progress", wanted)
    if not shown:
        yield lambda name="", timed=True: None
        return
    try:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
    except ImportError:
        if note:
            print(note, file=sys.stderr, flush=True)
        with _plain(title, total) as count:
            yield count
        return
    columns = (
        TextColumn("{task.description:<40}", markup=False),  # names may hold brackets
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn() if total is None else TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    if note:
        console.print(note, markup=False, highlight=False, soft_wrap=True)
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=total)

        def advance(name: str = "", timed: bool = True) -> None:
            bar.update(task, advance=1, description=printable(f"{title}: {name}" if name else title)[:40])

        yield advance


@contextlib.contextmanager
def _plain(title: str, total: int | None) -> Iterator[Advance]:
    done = untimed = written = 0
    start = time.monotonic()

    def advance(name: str = "", timed: bool = True) -> None:
        nonlocal done, untimed, written
        done += 1
        untimed += not timed
        spent = time.monotonic() - start
        text = f"{title}: {done}" + (f" of {total}" if total else "")
        if total is None or done >= total:
            text += f" in {_clock(spent)}"
        elif done > untimed:
            text += f", {_clock(spent / (done - untimed) * (total - done))} left"
        # What a longer line left behind is written over.
        print("\r" + text.ljust(written), end="", file=sys.stderr, flush=True)
        written = len(text)

    try:
        yield advance
    finally:
        if done:
            print(file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
