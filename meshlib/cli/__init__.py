"""The command line: ``meshlib`` and ``python -m meshlib``. The only room that prints."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from meshlib.extras import INSTALL

__all__ = ["main"]

_MISSING = """meshlib: the command line needs {name}, which is not installed. It comes with the extra cli:

    {install}
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; ``argv`` without the program's name, default: the process's. Returns the exit code: 0 fine, 1 a
    finding, 2 wrong usage.
    """
    try:
        import rich
        import typer
    except ImportError as missing:
        sys.stderr.write(_MISSING.format(name=missing.name or "a package", install=INSTALL.format("cli")))
        return 2
    del rich, typer
    from meshlib.cli.app import run

    return run(sys.argv[1:] if argv is None else list(argv))
