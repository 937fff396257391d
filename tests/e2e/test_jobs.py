"""A job ends when its program ends: nothing of the mesh outlives or delays it, whatever state its control plane is in."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.test_cli import environment
from tests.support.late import again_if_late, soon

#: Makes calls of every kind, closes nothing, and says when it is done.
PROGRAM = """
import asyncio, sys, time
import httpx
import meshlib, meshlib.grpc, meshlib_requests

url, target, end = sys.argv[1:]
client = meshlib.Client()
print(client.get(url).status_code, meshlib_requests.Session().get(url).status_code)
channel = meshlib.grpc.channel(target)
print(channel.unary_unary("/shop.Stock/Get")(b"", timeout=5)[:1])

async def main():
    asynchronous = meshlib.AsyncClient()
    return (await asynchronous.get(url)).status_code

print(asyncio.run(main()))
try:
    client.get("http://a-name-of-the-mesh/", timeout=0.2)
except httpx.HTTPError as error:
    print(type(error).__name__)
print(time.monotonic(), flush=True)
if end == "exit":
    sys.exit(0)
if end == "error":
    raise RuntimeError("the job's own")
"""


@pytest.fixture
def silent() -> Iterator[str]:
    """A control plane that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.timeout(180)
@pytest.mark.parametrize("end", ["return", "exit", "error"])
@pytest.mark.parametrize("plane", ["silent", "gone", "alive"])
@again_if_late
def test_a_job_ends_when_its_program_ends(
    end: str,
    plane: str,
    silent: str,
    meshlib_upstream: Any,
    meshlib_grpc_upstream: Any,
    meshlib_control_plane: Any,
) -> None:
    server = {"silent": silent, "gone": "127.0.0.1:1", "alive": meshlib_control_plane.address}[plane]
    arguments = [meshlib_upstream("one").url, meshlib_grpc_upstream("two").address, end]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env=environment(MESHLIB_XDS_SERVER=server),
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    ended = time.monotonic()
    lines = done.stdout.splitlines()
    assert lines[:1] == ["200 200"], done.stderr
    assert done.returncode == (1 if end == "error" else 0), done.stderr
    assert ("the job's own" in done.stderr) == (end == "error")
    soon(ended - float(lines[-1]), 2.0, "the end")
