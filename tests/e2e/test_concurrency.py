"""Many threads, many tasks, several loops, cancellation, fork: nothing is mixed up and nothing is kept."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import trio

import meshlib
from meshlib.testing import build
from meshlib.testing.control_plane import ControlPlane
from meshlib.testing.upstream import Upstream
from tests.e2e.oracle.envoy_process import EnvoyProcess
from tests.support.http2_servers import go_server
from tests.support.ports import Ports

UpstreamFactory = Any
ROOT = Path(__file__).resolve().parents[2]


def config(*servers: Upstream, **policies: Any) -> dict[str, Any]:
    return {"services": {"reviews": {"endpoints": [server.address for server in servers], **policies}}}


def active(mesh: meshlib.Mesh) -> int:
    return sum(cluster.active for cluster in mesh.status().clusters.values())


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads take turns at every chance."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_fifty_threads_share_one_client(upstream: UpstreamFactory) -> None:
    servers = [upstream(f"v{n}") for n in range(3)]
    with meshlib.Mesh(config(*servers)) as mesh, meshlib.Client(mesh=mesh) as client:

        def call(number: int) -> bool:
            said = client.get(f"http://reviews/{number}").json()
            return bool(said["path"] == f"/{number}")

        with ThreadPoolExecutor(50) as pool:
            assert all(pool.map(call, range(1000)))
        assert active(mesh) == 0
    for server in servers:  # closing the client closes them
        server.wait_for(lambda server=server: not server.connections_open)


def test_threads_that_take_turns_at_every_chance(upstream: UpstreamFactory, hasty: None) -> None:
    """Calls, updates, looks at the state, and meshes that come and go: nothing that they share goes wrong between two steps."""
    servers = [upstream(f"v{n}") for n in range(3)]

    def assignment(weight: int) -> dict[str, Any]:
        return build.endpoints(
            "reviews",
            *(build.endpoint(server.address, weight=weight + n) for n, server in enumerate(servers)),
        )

    routes = build.route_config(
        "r", build.virtual_host("reviews", build.route(cluster="reviews"), domains=["reviews"])
    )
    resources = (build.api_listener("reviews", routes), build.cluster("reviews"), assignment(1))
    over = threading.Event()
    with (
        ControlPlane(*resources) as plane,
        meshlib.Mesh({"xds": {"server": plane.address}}) as mesh,
        meshlib.Client(mesh=mesh) as client,
        ThreadPoolExecutor(11) as pool,
    ):
        mesh.wait_ready("reviews")

        def update() -> None:
            weight = 1
            while not over.is_set():
                weight += 1
                plane.update(assignment(weight))
                plane.wait_for_ack("endpoint", timeout=30.0)

        def look() -> None:
            while not over.is_set():
                assert "reviews" in mesh.status().clusters

        def come_and_go() -> None:
            while not over.is_set():
                with meshlib.Mesh(config(*servers)) as other:
                    other.wait_ready("reviews")

        def call(number: int) -> bool:
            return bool(client.get(f"http://reviews/{number}").json()["path"] == f"/{number}")

        beside = [pool.submit(work) for work in (update, look, come_and_go)]
        try:
            assert all(pool.map(call, range(400)))
        finally:
            over.set()
        for work in beside:
            work.result()
        assert active(mesh) == 0


async def test_five_hundred_tasks_share_one_client(upstream: UpstreamFactory) -> None:
    servers = [upstream(f"v{n}") for n in range(3)]
    with meshlib.Mesh(config(*servers)) as mesh:
        async with meshlib.AsyncClient(mesh=mesh, timeout=30) as client:
            answers = await asyncio.gather(*(client.get(f"http://reviews/{n}") for n in range(500)))
            assert [answer.json()["path"] for answer in answers] == [f"/{n}" for n in range(500)]
            assert active(mesh) == 0


async def test_cancelled_calls_release_everything(upstream: UpstreamFactory) -> None:
    one = upstream()
    one.order(hold="head")
    with meshlib.Mesh(config(one, retry={"attempts": 3, "on": ["5xx"]})) as mesh:
        async with meshlib.AsyncClient(mesh=mesh) as client:
            tasks = [asyncio.create_task(client.get("http://reviews/")) for _ in range(50)]
            await asyncio.to_thread(one.wait_for, lambda: one.held == 50)
            assert active(mesh) == 50
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(result, asyncio.CancelledError) for result in results)
            assert active(mesh) == 0
            infos = [meshlib.call_info(result) for result in results if isinstance(result, BaseException)]
            assert len(infos) == 50
            await asyncio.to_thread(one.wait_for, lambda: not one.connections_open)
            one.release()
            one.behave()
            assert (await client.get("http://reviews/")).status_code == 200


async def test_a_call_cancelled_in_its_backoff_releases_everything(upstream: UpstreamFactory) -> None:
    one = upstream()
    one.fail(503)
    retry = {"attempts": 3, "on": ["5xx"], "backoff_base": 30.0, "backoff_max": 30.0}
    with meshlib.Mesh({**config(one, retry=retry), "seed": 1}) as mesh:
        async with meshlib.AsyncClient(mesh=mesh) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await client.get("http://reviews/")
            assert active(mesh) == 0


def test_two_loops_in_two_threads_share_one_client(upstream: UpstreamFactory) -> None:
    one = upstream()
    with meshlib.Mesh(config(one)) as mesh:
        client = meshlib.AsyncClient(mesh=mesh)

        async def calls() -> list[int]:
            statuses = [(await client.get("http://reviews/")).status_code for _ in range(20)]
            await client._transport.aclose()
            return statuses

        with ThreadPoolExecutor(2) as pool:
            for statuses in pool.map(lambda _: asyncio.run(calls()), range(2)):
                assert statuses == [200] * 20


def test_under_trio(upstream: UpstreamFactory) -> None:
    one = upstream()
    one.fail(503, times=1)

    async def main() -> None:
        with meshlib.Mesh(config(one, retry={"attempts": 2, "on": ["5xx"]})) as mesh:
            async with meshlib.AsyncClient(mesh=mesh) as client:
                response = await client.get("http://reviews/x")
                assert response.json()["path"] == "/x"
                assert len(meshlib.call_info(response).attempts) == 2
                one.order(hold="head")
                with anyio.move_on_after(0.2):
                    await client.get("http://reviews/")
                assert active(mesh) == 0
                one.release()

    trio.run(main)


def test_a_client_made_before_a_fork_works_on_both_sides(upstream: UpstreamFactory) -> None:
    """A child drops its parent's connections and never writes on them."""
    one = upstream()
    program = textwrap.dedent(
        f"""
        import os, sys, meshlib
        mesh = meshlib.Mesh({config(one)!r})
        client = meshlib.Client(mesh=mesh)
        def calls(tag):
            for n in range(20):
                assert client.get(f"http://reviews/{{tag}}/{{n}}").json()["path"] == f"/{{tag}}/{{n}}"
        calls("parent")
        children = []
        for child in range(3):
            pid = os.fork()
            if pid == 0:
                try:
                    calls(f"child{{child}}")
                    os._exit(0)
                except BaseException as error:
                    print(repr(error), file=sys.stderr)
                    os._exit(1)
            children.append(pid)
        calls("parent-after")
        assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert one.requests_total == 20 * 5
    assert one.connections_total == 4, "the parent keeps its connection, each child opens one"


async def test_http2_to_the_upstream(control_plane: ControlPlane, tmp_path: Path) -> None:
    """A cluster that says HTTP/2 is spoken to in HTTP/2, many calls on a connection; the server is a real Envoy."""
    ports = Ports(1)
    routes = build.route_config("r", build.virtual_host("v", build.route("/", respond=(200, "hello"))))
    control_plane.set(build.listener("in", routes, address=f"127.0.0.1:{ports.numbers[0]}"))
    http2 = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": build.any_of(
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            {"explicit_http_config": {"http2_protocol_options": {}}},
        )
    }
    cluster = build.cluster("c", [f"127.0.0.1:{ports.numbers[0]}"], typed_extension_protocol_options=http2)
    target = build.api_listener(
        "h2.test", build.route_config("t", build.virtual_host("v", build.route("/", cluster="c")))
    )
    services = tmp_path / "services.json"
    services.write_text(
        json.dumps({"listeners": [build.without_type(target)], "clusters": [build.without_type(cluster)]})
    )
    with EnvoyProcess(control_plane.address, tmp_path) as envoy:
        envoy.wait_for_listeners(1)
        with meshlib.Mesh({"services_file": str(services)}) as mesh:
            with meshlib.Client(mesh=mesh) as client:
                responses = [client.get("http://h2.test/") for _ in range(5)]
                assert {response.http_version for response in responses} == {"HTTP/2"}
            async with meshlib.AsyncClient(mesh=mesh) as client:
                answers = await asyncio.gather(*(client.get("http://h2.test/") for _ in range(30)))
                assert {(answer.http_version, answer.text) for answer in answers} == {("HTTP/2", "hello")}
            assert active(mesh) == 0
        assert envoy.stats("listener.*downstream_cx_total").popitem()[1] <= 3
    ports.close()


async def test_what_cannot_be_said_over_http2_is_refused_once(tmp_path: Path) -> None:
    """On a connection that has carried a call, too: another connection would not mend it, and this one goes on."""
    wrong: dict[str, Any] = {"content": b"three", "headers": {"Content-Length": "7"}}
    services = tmp_path / "services.json"
    with go_server() as port:
        cluster = build.cluster("c", [f"127.0.0.1:{port}"], http2_protocol_options={})
        routes = build.route_config("t", build.virtual_host("v", build.route("/", cluster="c")))
        found = {
            "listeners": [build.without_type(build.api_listener("h2.test", routes))],
            "clusters": [build.without_type(cluster)],
        }
        services.write_text(json.dumps(found))
        with meshlib.Mesh({"services_file": str(services)}) as mesh:
            with meshlib.Client(mesh=mesh) as client:
                for _ in range(2):
                    assert client.get("http://h2.test/hello").http_version == "HTTP/2"
                    with pytest.raises(httpx.LocalProtocolError, match="Content-Length is 7"):
                        client.post("http://h2.test/echo", **wrong)
            async with meshlib.AsyncClient(mesh=mesh) as client:
                for _ in range(2):
                    assert (await client.get("http://h2.test/hello")).http_version == "HTTP/2"
                    with pytest.raises(httpx.LocalProtocolError, match="Content-Length is 7"):
                        await client.post("http://h2.test/echo", **wrong)
            assert active(mesh) == 0


def test_httpx_still_works_beside_it(upstream: UpstreamFactory) -> None:
    one = upstream()
    with httpx.Client(transport=meshlib.Transport(mesh=meshlib.Mesh(config(one)))) as client:
        assert client.get("http://reviews/x").json()["path"] == "/x"
