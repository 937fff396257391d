"""Connections of HTTP/2 whose peer stands still (a real nghttpd that is stopped): found by PINGs, by threads, asyncio and trio."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

import meshlib
from meshlib.testing import build
from tests.support.http2_servers import nghttpd

pytestmark = pytest.mark.timeout(120)

HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
#: Longer than any call of these tests may take.
LONG = 60.0


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[Any]:
    """Its mesh, by which ``name`` is called; and how it is stopped, and goes on."""
    (tmp_path / "a").write_text("fine")
    told: list[Any] = []
    keepalive = {"interval": "0.1s", "timeout": "1.5s"}
    options = {
        "connection_keepalive": keepalive,
        "custom_settings_parameters": [{"identifier": 9, "value": 1}],
    }
    http = {
        "@type": f"type.googleapis.com/{HTTP}",
        "explicit_http_config": {"http2_protocol_options": options},
    }
    with nghttpd(tmp_path, told=told) as port:
        cluster = build.cluster(
            "c",
            [f"127.0.0.1:{port}"],
            typed_extension_protocol_options={HTTP: http},
        )
        routes = build.route_config("r", build.virtual_host("v", build.route(cluster="c"), domains=["*"]))
        file = tmp_path / "mesh.yaml"
        listener = build.listener("l", routes, address="127.0.0.1:9")
        file.write_text(json.dumps({"listeners": [listener], "clusters": [cluster]}))
        with meshlib.Mesh({"services_file": str(file)}) as mesh:
            yield mesh, told[0]
        told[0].send_signal(signal.SIGCONT)


URL = "http://127.0.0.1:9/a"


def stop(server: subprocess.Popen[bytes]) -> None:
    """And wait until it stands still: a signal that is sent has not arrived yet."""
    server.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, server.pid, os.WSTOPPED)


def test_threads(stopped: Any) -> None:
    mesh, server = stopped
    with meshlib.Client(mesh=mesh, timeout=LONG) as client, ThreadPoolExecutor(4) as threads:
        assert client.get(URL).text == "fine"
        stop(server)
        begun = time.monotonic()
        found = [threads.submit(client.get, URL) for _ in range(4)]
        for one in found:
            with pytest.raises(httpx.TransportError, match="did not answer a PING"):
                one.result(30)
        assert time.monotonic() - begun < 20
        server.send_signal(signal.SIGCONT)
        assert client.get(URL).text == "fine"


@pytest.mark.parametrize("run", [asyncio.run, trio.run])
def test_tasks(stopped: Any, run: Any) -> None:
    mesh, server = stopped

    async def main() -> None:
        async with meshlib.AsyncClient(mesh=mesh, timeout=LONG) as client:
            assert (await client.get(URL)).text == "fine"
            stop(server)
            with pytest.raises(httpx.TransportError, match="did not answer a PING"):
                await client.get(URL)
            server.send_signal(signal.SIGCONT)
            assert (await client.get(URL)).text == "fine"

    begun = time.monotonic()
    run(main) if run is trio.run else run(main())
    assert time.monotonic() - begun < 20
