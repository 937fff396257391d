"""meshlib's clients and a real Envoy on one control plane: the same tables, the same requests, the same outcomes.

What core decides is held against Envoy in test_core.py; here the whole way is: xDS, linking, plan, transport. Tables go by
turns to the transports of `Client` and `AsyncClient`: the clients themselves refuse a response whose location is no URL,
which a redirect of a Host that is none has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest

import meshlib
from tests.e2e.oracle.batch import NODE, Batch, Tally, resolution_of
from tests.e2e.oracle.compare import expectations, normal, tags, words
from tests.e2e.oracle.exchange import Client, Exchange, Request, described
from tests.e2e.oracle.requests import make_requests
from tests.e2e.oracle.seeds import REQUESTS, batches
from tests.support.watch import until

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(170)]

_Send = Callable[[Request], Exchange]


@pytest.mark.parametrize("seeds", batches(), ids=lambda seeds: f"{seeds.start}-{seeds.stop - 1}")
def test_envoy_and_clients_do_the_same(seeds, tmp_path):
    tally = Tally()
    with Batch(seeds, tmp_path) as batch:
        mesh = meshlib.Mesh({
            "xds": {"server": batch.control_plane.address, "view": "sidecar"},
            "failures": "respond",
            "node": {"cluster": NODE[0], "id": NODE[1]},
        })  # fmt: skip
        with mesh:
            _wait_for_all(mesh, batch)
            for seed in seeds:
                sender = _sync if seed % 2 else _async
                with sender(mesh, batch, seed) as send:
                    _compare(batch, seed, send, tally)
    assert not tally.differences, tally.told()
    assert tally.compared == len(seeds) * REQUESTS


def _wait_for_all(mesh: meshlib.Mesh, batch: Batch) -> None:
    """Until every listener is in force. Most tables have no virtual host for the address, so `wait_ready` is no help."""
    mesh.wait_ready(f"127.0.0.1:{batch.gate}", timeout=20)
    wanted = set(batch.ports.values())
    until(mesh, lambda: wanted <= _ports_in_force(mesh), 20)


def _ports_in_force(mesh: meshlib.Mesh) -> set[int]:
    listeners = (listener for part in mesh.snapshot().parts for listener in part.sidecar)
    linked = (
        listener for listener in listeners if listener.http is not None and listener.http.routes is not None
    )
    return {address.port for listener in linked for address in listener.addresses}


def _compare(batch: Batch, seed: int, send: _Send, tally: Tally) -> None:
    """Both must do what the configuration allows; where it leaves one outcome, that is the same one."""
    resolution = resolution_of(seed, batch.tables[seed], batch.ports[seed])
    upstreams = batch.upstreams.addresses
    with Client(batch.ports[seed]) as envoy:
        for request in make_requests(batch.tables[seed], seed, REQUESTS):
            expected = expectations(resolution, request, upstreams)
            allowed = [normal(one.exchange) for one in expected]
            batch.upstreams.mark()
            theirs = envoy.send(request, batch.upstreams.latest)
            ours = send(request)
            tally.compared += 1
            if normal(theirs) not in allowed or normal(ours) not in allowed:
                who = "client" if normal(theirs) in allowed else "Envoy"
                told = words(request, expected, ours if who == "client" else theirs)
                tally.differences.append(f"table {seed}, {who}: {told}")
            else:
                tally.hits.update(tags(expected[allowed.index(normal(ours))]))


# --- the two clients as one --------------------------------------------------------------------------------------------


def _httpx_request(request: Request, port: int) -> httpx.Request:
    """The request's own lines and target, nothing of httpx's."""
    lines = [("host", request.authority), *request.headers]
    # A value has no space around it on the wire; Envoy takes it off, httpx refuses it.
    raw = [(name.encode("latin-1"), value.strip().encode("latin-1")) for name, value in lines]
    url = f"http://127.0.0.1:{port}{request.path}"
    return httpx.Request(request.method, url, headers=raw, content=request.body or None)


def _exchange(batch: Batch, response: httpx.Response) -> Exchange:
    lines = tuple(
        (name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in response.headers.raw
    )
    body = response.content
    arrived = described(body)
    if arrived is not None:
        return Exchange(response.status_code, lines, b"", arrived)
    return Exchange(response.status_code, lines, body, None if body else batch.upstreams.latest())


@contextmanager
def _sync(mesh: meshlib.Mesh, batch: Batch, seed: int) -> Iterator[_Send]:
    with meshlib.Transport(mesh=mesh) as transport:

        def send(request: Request) -> Exchange:
            batch.upstreams.mark()
            response = transport.handle_request(_httpx_request(request, batch.ports[seed]))
            response.read()
            response.close()
            return _exchange(batch, response)

        yield send


@contextmanager
def _async(mesh: meshlib.Mesh, batch: Batch, seed: int) -> Iterator[_Send]:
    with asyncio.Runner() as runner:
        transport = meshlib.AsyncTransport(mesh=mesh)

        async def exchange(request: httpx.Request) -> Exchange:
            response = await transport.handle_async_request(request)
            await response.aread()
            await response.aclose()
            return _exchange(batch, response)

        def send(request: Request) -> Exchange:
            batch.upstreams.mark()
            return runner.run(exchange(_httpx_request(request, batch.ports[seed])))

        yield send
        runner.run(transport.aclose())
