"""A progress bar on standard error: rich's where that is installed, a line that counts where it is not."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

from . import _options

__all__ = ["progress"]


@contextlib.contextmanager
def progress(title: str, total: int, wanted: bool | None) -> Iterator[Callable[[str], None]]:
    """Yield a function that tells what is being worked on now, and that one more of `total` is done.

    Parameters
    ----------
    title : str
    total : int
    wanted : bool or None
        None: where standard error is a terminal.
    """
    shown = sys.stderr.isatty() if wanted is None else _options.flag("progress", wanted)
    if not shown:
        yield lambda _: None
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:
        yield _plain(title, total)
        return
    text = TextColumn("{task.description:<40}", markup=False)  # names may hold brackets
    columns = (text, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)

        def advance(name: str) -> None:
            bar.update(task, advance=1, description=f"{title}: {name}"[:40])

        yield advance


def _plain(title: str, total: int) -> Callable[[str], None]:
    done = 0

    def advance(_: str) -> None:
        nonlocal done
        done += 1
        print(f"\r{title}: {done} of {total}", end="\n" if done == total else "", file=sys.stderr, flush=True)

    return advance
