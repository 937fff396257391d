"""Other projects' Envoy files, as the Go modules that hold them: Go's ordinary client brings each into its own cache."""

from __future__ import annotations

import functools
import json
import subprocess
import tempfile
from pathlib import Path

from tests.interop.build import ISTIO_MODULE, ISTIO_VERSION, go

__all__ = ["MODULES", "folder"]

#: Project → its module and version, so that the same files are read everywhere.
MODULES = {
    "gateway": ("github.com/envoyproxy/gateway", "v1.9.1"),
    "istio": (ISTIO_MODULE, ISTIO_VERSION),
    "go-control-plane": ("github.com/envoyproxy/go-control-plane", "v0.14.0"),
    "ratelimit": ("github.com/envoyproxy/ratelimit", "v1.4.1-0.20260122083618-3fb702589d36"),
}


@functools.cache
def folder(project: str) -> Path:
    """Where the project's files are, downloaded if need be. Raises GoMissing; RuntimeError with Go's own words."""
    module, version = MODULES[project]
    command = [go(), "mod", "download", "-json", f"{module}@{version}"]
    with tempfile.TemporaryDirectory() as nowhere:  # no go.mod there may say anything
        done = subprocess.run(command, cwd=nowhere, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"go mod download {module}@{version}:\n{done.stdout}{done.stderr}")
    return Path(json.loads(done.stdout)["Dir"])
