"""The ``brockett`` command: ``demo``, ``descramble``, ``spectra``, ``graph`` and ``info``.

Exit codes: 0 done; 1 the ``cli`` extra is not installed; 2 the input was not right, with one line on standard error
that says what; 130 interrupted.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence

__all__ = ["main"]

#: What the extra ``cli`` brings and the commands cannot do without.
_NEEDED = ("typer", "rich", "safetensors", "matplotlib", "threadpoolctl")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Parameters
    ----------
    arguments : sequence of str, optional
        The words after ``brockett``; those of the process where not given.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(f"brockett: the command needs {', '.join(missing)}: pip install 'brockett[cli]'", file=sys.stderr)
        return 1
    try:
        from brockett._commands import run

        code = run(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # who read left: what is still to be written at the end goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("brockett: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
