"""Other projects' Envoy files, as the Go modules that hold them: Go's ordinary client brings each into its own cache.

What cannot be had so is read from a checkout beside others in the folder that ``MESHLIB_TEST_CHECKOUTS`` names.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import tempfile
from pathlib import Path

from tests.interop.build import GATEWAY_MODULE, GATEWAY_VERSION, ISTIO_MODULE, ISTIO_VERSION, go

__all__ = ["CHECKOUTS", "MODULES", "checkout", "folder"]

#: Project → its module and version, so that the same files are read everywhere.
MODULES = {
    "gateway": (GATEWAY_MODULE, GATEWAY_VERSION),
    "istio": (ISTIO_MODULE, ISTIO_VERSION),
    "go-control-plane": ("github.com/envoyproxy/go-control-plane", "v0.14.0"),
    "ratelimit": ("github.com/envoyproxy/ratelimit", "v1.4.1-0.20260122083618-3fb702589d36"),
}


#: Project → its repository. Its module is not to be had through Go's proxy.
CHECKOUTS = {"kuma": "github.com/kumahq/kuma"}


def checkout(project: str) -> Path | None:
    """Where the project is checked out; None where it is not."""
    folder = Path(os.environ.get("MESHLIB_TEST_CHECKOUTS", "")) / project
    return folder if "MESHLIB_TEST_CHECKOUTS" in os.environ and folder.is_dir() else None


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
