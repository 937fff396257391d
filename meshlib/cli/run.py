"""``meshlib run``: the command in the place of this process, with meshlib in its Python from the start."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from meshlib.cli.common import USAGE, Stop, hush, remark
from meshlib.config import Config, strangers
from meshlib.errors import ConfigError
from meshlib.mesh import Mesh

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["environment", "run"]

#: What shells say of a command that is not there, and of one that cannot be executed.
NOT_FOUND, NOT_EXECUTABLE = 127, 126

BOOTSTRAP = Path(__file__).resolve().parents[1] / "patching" / "bootstrap"


def run(command: Sequence[str], *, config: Path | None) -> int:
    """Become ``command``. Returns only where that cannot be; raises Stop for a configuration that is wrong."""
    if not command:
        raise Stop(USAGE, ["run: a COMMAND is needed: meshlib run -- python program.py"])
    variables = environment(os.environ, config)
    _look_at(variables)
    program = shutil.which(command[0])
    if program is None:
        found = Path(command[0]).exists()
        why = "cannot be executed" if found else "command not found"
        raise Stop(NOT_EXECUTABLE if found else NOT_FOUND, [f"run: {command[0]}: {why}"])
    sys.stdout.flush()
    sys.stderr.flush()
    _restore_signals()
    try:
        os.execve(program, list(command), variables)  # noqa: S606 - this is what was asked for
    except OSError as error:
        raise Stop(NOT_EXECUTABLE, [f"run: {command[0]}: {error.strerror}"]) from None


def _look_at(variables: Mapping[str, str]) -> None:
    """Say what is odd about the configuration of the command, which it cannot say for itself. Raises Stop where it is wrong."""
    hush()
    try:
        found = Config.from_env(variables)
        Mesh(found)  # starts nothing
    except ConfigError as error:
        raise Stop(USAGE, [f"run: {line}" for line in error.problems]) from None
    notes = [f"run: {line}" for line in strangers(variables)]
    if not (found.configured or found.disabled):
        notes.append(
            "run: nothing is configured: unless the command configures meshlib itself, its calls go as without it "
            "(give --config FILE, or set MESHLIB_CONFIG, MESHLIB_XDS_SERVER or GRPC_XDS_BOOTSTRAP)"
        )
    remark(notes)


def environment(variables: Mapping[str, str], config: Path | None) -> dict[str, str]:
    """The environment of the command: ours comes first on PYTHONPATH, and is there once."""
    mine, found = str(BOOTSTRAP), variables.get("PYTHONPATH", "")
    rest = [one for one in found.split(os.pathsep) if one not in ("", mine)]
    more = {} if config is None else {"MESHLIB_CONFIG": str(config.resolve())}
    return {**variables, **more, "PYTHONPATH": os.pathsep.join([mine, *rest])}


def _restore_signals() -> None:
    """What Python ignores for itself would stay ignored in the command."""
    for name in ("SIGPIPE", "SIGXFSZ"):
        number = getattr(signal, name, None)
        if number is not None:
            signal.signal(number, signal.SIG_DFL)
