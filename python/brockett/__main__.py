"""``python -m brockett``: the command line, and ``--cmake-dir`` for C++ builds."""

from __future__ import annotations

import sys
from pathlib import Path

from ._engine import load
from ._errors import EngineUnavailable


def cmake_dir() -> Path:
    """Folder of brockettConfig.cmake, for ``-Dbrockett_DIR=``.

    Raises
    ------
    EngineUnavailable
        The compiled core, and with it the C++ package, is missing.
    """
    # Beside the library that is really loaded: in an editable installation that is not where the Python files are.
    folder = Path(load("cpu").module.lib_dir()) / "cmake" / "brockett"
    if not (folder / "brockettConfig.cmake").is_file():
        raise EngineUnavailable(f"this installation has no C++ package: {folder} holds no brockettConfig.cmake")
    return folder


def main() -> int:
    if sys.argv[1:] == ["--cmake-dir"]:
        try:
            print(cmake_dir())
        except EngineUnavailable as error:
            print(f"brockett: {error}", file=sys.stderr)
            return 1
        return 0
    from .cli import main as command_line

    return int(command_line() or 0)


if __name__ == "__main__":
    sys.exit(main())
