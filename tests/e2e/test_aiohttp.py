"""aiohttp's session and connector in the mesh, against real servers."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import os
import pickle
import random
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import trustme
from aiohttp.client_exceptions import UnixClientConnectorError

import meshlib
import meshlib_aiohttp
from meshlib.model.events import AttemptEnded, AttemptStarted, CallEnded
from meshlib.testing import build
from tests.support.watch import until

UpstreamFactory = Any


def service(*upstreams: Any, **policies: Any) -> dict[str, Any]:
    return {"services": {"reviews": {"endpoints": [up.address for up in upstreams], **policies}}}


class Client:
    """A session of one of the three kinds; what it made is closed with it."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.session: Any = None
        self.mesh: Any = None

    def __call__(self, config: Any, *, options: dict[str, Any] | None = None, **session: Any) -> Any:
        self.mesh = config if isinstance(config, meshlib.Mesh) else meshlib.Mesh(config)
        options = options or {}
        if self.kind == "connector":
            connector = meshlib_aiohttp.connector(self.mesh, **options)
            self.session = aiohttp.ClientSession(connector=connector, **session)
        elif self.kind == "adopted":
            connector = aiohttp.TCPConnector(**options)
            self.session = meshlib_aiohttp.ClientSession(connector=connector, mesh=self.mesh, **session)
        else:
            if options:
                session["connector"] = meshlib_aiohttp.connector(self.mesh, **options)
            self.session = meshlib_aiohttp.ClientSession(mesh=self.mesh, **session)
        return self.session

    def active(self) -> int:
        return sum(cluster.active for cluster in self.mesh.status().clusters.values())

    async def close(self) -> None:
        if self.session is not None:
            await self.session.close()
        if self.mesh is not None:
            self.mesh.close()


async def made(kind: str) -> AsyncIterator[Client]:
    client = Client(kind)
    yield client
    await client.close()


@pytest.fixture(params=["session", "adopted", "connector"])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    async for one in made(request.param):
        yield one


@pytest.fixture
async def session() -> AsyncIterator[Client]:
    """Only what runs the whole plan."""
    async for one in made("session"):
        yield one


async def turned(condition: Any) -> None:
    """Let the event loop, which alone can bring it about, turn until ``condition()`` is true."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the loop's own callbacks have no event
            await asyncio.sleep(0)


async def said(session: Any, url: str = "http://reviews/", **options: Any) -> dict[str, Any]:
    async with session.get(url, **options) as response:
        return await response.json(content_type=None)


def _listener(port: int, cluster: str) -> dict[str, Any]:
    """A listener of an Envoy on 127.0.0.1 whose every request goes to ``cluster``."""
    types = "type.googleapis.com/envoy.extensions.filters"
    route = {"match": {"prefix": "/"}, "route": {"cluster": cluster}}
    manager = {
        "@type": f"{types}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "s",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "router", "typed_config": {"@type": f"{types}.http.router.v3.Router"}}],
    }
    return {
        "name": f"out-{port}",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "hcm", "typed_config": manager}]}],
    }


class TestEveryFace:
    async def test_a_call_reaches_an_endpoint_with_the_host_that_was_asked(
        self, client: Client, upstream: UpstreamFactory
    ) -> None:
        one = upstream("v1")
        async with client(service(one)).get(
            "http://reviews/api/1?q=a%20b", headers={"X-Thing": "é"}
        ) as response:
            told = await response.json(content_type=None)
            assert str(response.url) == "http://reviews/api/1?q=a%20b"
            assert str(response.request_info.url) == "http://reviews/api/1?q=a%20b"
        assert (told["name"], told["method"], told["path"]) == ("v1", "GET", "/api/1?q=a%20b")
        assert [value for name, value in told["headers"] if name.lower() == "host"] == ["reviews"]
        info = meshlib.call_info(response)
        assert info is not None
        assert (info.via, info.cluster, info.endpoint) == ("mesh", "reviews", one.address)
        assert [(a.number, a.outcome, a.status, a.sent) for a in info.attempts] == [(1, "ok", 200, True)]
        assert client.active() == 0

    async def test_balances_and_keeps_a_connection_an_endpoint(
        self, client: Client, upstream: UpstreamFactory
    ) -> None:
        servers = [upstream(f"v{n}") for n in range(3)]
        session = client(service(*servers, balancer="round_robin"))
        names = [(await said(session))["name"] for _ in range(9)]
        assert sorted(names) == ["v0"] * 3 + ["v1"] * 3 + ["v2"] * 3
        assert [server.connections_total for server in servers] == [1, 1, 1]

    async def test_unknown_hosts_are_called_as_they_are(
        self, client: Client, upstream: UpstreamFactory
    ) -> None:
        one = upstream("plain")
        assert (await said(client({}), one.url + "/x"))["name"] == "plain"

    async def test_unknown_hosts_can_be_refused(self, client: Client, upstream: UpstreamFactory) -> None:
        one = upstream()
        with pytest.raises(meshlib.UnknownService) as caught:
            await said(client({"unknown_hosts": "refuse"}), one.url)
        assert isinstance(caught.value, aiohttp.ClientConnectorError)
        assert one.requests_total == 0

    async def test_bypassed_and_disabled_calls_are_plain(
        self, client: Client, upstream: UpstreamFactory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one, other = upstream("one"), upstream("other")
        config = {**service(other), "bypass": ["127.0.0.1"]}
        config["services"]["127.0.0.1"] = {"endpoints": [other.address]}
        async with client(config).get(one.url) as response:
            assert (await response.json(content_type=None))["name"] == "one"
        assert meshlib.call_info(response) is None
        await client.close()
        monkeypatch.setenv("MESHLIB_DISABLED", "1")
        del config["bypass"]
        assert (await said(client(config), one.url))["name"] == "one"

    async def test_a_proxy_wins(self, client: Client, upstream: UpstreamFactory, caplog: Any) -> None:
        one, proxy = upstream("one"), upstream("proxy")
        told = await said(client(service(one)), "http://reviews/a", proxy=proxy.url)
        assert (told["name"], told["path"]) == ("proxy", "http://reviews/a")
        assert one.requests_total == 0

    async def test_a_dead_endpoint_is_ejected(self, client: Client, upstream: UpstreamFactory) -> None:
        dead, alive = upstream("dead"), upstream("alive")
        dead.kill()
        session = client(
            service(
                dead,
                alive,
                balancer="round_robin",
                outlier={"consecutive_5xx": 2, "max_ejection_percent": 100, "base_ejection": 60},
            )
        )
        errors = []
        for _ in range(20):
            try:
                assert (await said(session))["name"] == "alive"
            except aiohttp.ClientConnectorError as error:
                errors.append(error)
        assert len(errors) == 2
        assert all(isinstance(error, meshlib.ConnectFailed) for error in errors)
        assert dead.address in str(errors[0])
        info = meshlib.call_info(errors[0])
        assert info is not None
        assert [(a.endpoint, a.outcome, a.sent) for a in info.attempts] == [(dead.address, "connect", False)]
        states = {e.address: e.health for e in client.mesh.status().clusters["reviews"].endpoints}
        assert states == {dead.address: "ejected", alive.address: "healthy"}

    async def test_answers_that_are_errors_eject_too(self, client: Client, upstream: UpstreamFactory) -> None:
        bad, good = upstream("bad"), upstream("good")
        bad.fail(503)
        outlier = {"consecutive_5xx": 3, "max_ejection_percent": 100, "base_ejection": 60}
        session = client(service(bad, good, balancer="round_robin", outlier=outlier))
        codes = []
        for _ in range(16):
            async with session.get("http://reviews/") as response:
                codes.append(response.status)
        assert codes.count(503) == 3

    async def test_a_connection_that_breaks_is_told_and_reported(
        self, client: Client, upstream: UpstreamFactory
    ) -> None:
        bad = upstream("bad")
        bad.reset()
        session = client(service(bad))
        with pytest.raises(meshlib.TransportFailed) as caught:
            await said(session, "http://reviews/")
        assert isinstance(caught.value, aiohttp.ClientOSError | aiohttp.ServerDisconnectedError)
        assert caught.value.sent
        assert client.active() == 0

    async def test_a_body_that_breaks_raises_with_its_endpoint(
        self, client: Client, upstream: UpstreamFactory
    ) -> None:
        bad = upstream("bad")
        bad.reset_body()
        async with client(service(bad)).get("http://reviews/") as response:
            assert response.status == 200
            with pytest.raises(meshlib.TransportFailed) as caught:
                await response.read()
        assert isinstance(caught.value, aiohttp.ClientPayloadError | aiohttp.ClientOSError)
        assert caught.value.phase == "body"
        info = meshlib.call_info(caught.value)
        assert info is not None
        assert info.endpoint == bad.address
        assert client.active() == 0

    async def test_the_routes_timeout_bounds_the_call(
        self, client: Client, upstream: UpstreamFactory
    ) -> None:
        slow = upstream("slow")
        slow.hang()
        with pytest.raises(meshlib.DeadlineExceeded) as caught:
            await said(client(service(slow, timeout=1.0)))
        assert isinstance(caught.value, aiohttp.ServerTimeoutError)
        assert isinstance(caught.value, TimeoutError)
        info = caught.value.info
        assert info is not None
        assert [a.outcome for a in info.attempts] == ["timeout"]
        assert client.active() == 0

    async def test_a_deadline_bounds_the_call_and_travels(
        self, client: Client, upstream: UpstreamFactory
    ) -> None:
        one = upstream()
        session = client(service(one))
        with meshlib.deadline(5):
            told = await said(session)
        left = {n.lower(): v for n, v in told["headers"]}["x-envoy-expected-rq-timeout-ms"]
        assert 0 < int(left) <= 5000
        one.hang()
        with meshlib.deadline(1.0), pytest.raises(meshlib.DeadlineExceeded):
            await said(session)

    async def test_the_applications_total_timeout_is_its_own(
        self, client: Client, upstream: UpstreamFactory
    ) -> None:
        slow = upstream("slow")
        slow.hang()
        timeout = aiohttp.ClientTimeout(total=1.0)
        retry = {"attempts": 5, "on": ["5xx", "reset", "connect-failure"]}
        with pytest.raises(TimeoutError) as caught:
            await said(client(service(slow, retry=retry)), timeout=timeout)
        assert not isinstance(caught.value, meshlib.MeshError)
        assert client.active() == 0
        assert slow.requests_total == 1

    async def test_what_the_configuration_orders_is_a_response(
        self, client: Client, upstream: UpstreamFactory
    ) -> None:
        one = upstream()
        routes = [
            {"match": {"path": "/stop"}, "response": {"status": 418, "body": "short and stout"}},
            {"match": {"path": "/old"}, "redirect": {"path": "/new", "status": 301}},
            {"match": {"prefix": "/"}},
        ]
        session = client(service(one, routes=routes))
        async with session.get("http://reviews/stop") as response:
            assert (response.status, await response.text()) == (418, "short and stout")
        assert meshlib.call_info(response) is not None
        async with session.head("http://reviews/stop") as response:
            assert (response.status, await response.read()) == (418, b"")
        async with session.get("http://reviews/old", allow_redirects=False) as response:
            assert response.status == 301
            assert response.headers["Location"].endswith("/new")
        async with session.get("http://reviews/old") as response:
            assert (await response.json(content_type=None))["path"] == "/new"
            assert len(response.history) == 1
        assert [got.path for got in one.requests] == ["/new"]

    async def test_failures_can_be_responses(self, client: Client, upstream: UpstreamFactory) -> None:
        dead = upstream()
        dead.kill()
        session = client({**service(dead), "failures": "respond"})
        async with session.get("http://reviews/") as response:
            assert response.status == 503
            assert "connection failure" in await response.text()

    async def test_max_connections_and_max_pending(self, client: Client, upstream: UpstreamFactory) -> None:
        one = upstream()
        one.hang()
        session = client(service(one, limits={"max_connections": 1, "max_pending": 1}))
        first = asyncio.create_task(said(session))
        await asyncio.to_thread(one.wait_for, lambda: one.held)
        others = {asyncio.create_task(said(session)) for _ in range(2)}
        refused, waiting = await asyncio.wait(others, return_when=asyncio.FIRST_COMPLETED)
        with pytest.raises(aiohttp.ConnectionTimeoutError) as caught:
            await refused.pop()
        assert isinstance(caught.value, meshlib.Overloaded)
        one.behave()
        one.release()
        await asyncio.gather(first, *waiting)
        assert one.connections_total == 1
        assert client.active() == 0

    async def test_a_call_that_is_cancelled_lets_go(self, client: Client, upstream: UpstreamFactory) -> None:
        slow = upstream()
        slow.hang()
        session = client(service(slow))
        task = asyncio.create_task(said(session))
        await asyncio.to_thread(slow.wait_for, lambda: slow.held)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert client.active() == 0
        slow.behave()
        slow.release()
        assert (await said(session))["name"]

    async def test_a_response_that_is_forgotten_lets_go(
        self, client: Client, upstream: UpstreamFactory
    ) -> None:
        one = upstream()
        one.reset_body()
        response = await client(service(one)).get("http://reviews/")
        del response
        gc.collect()
        await turned(lambda: client.active() == 0)

    async def test_tls_as_the_url_asks(self, client: Client, upstream: UpstreamFactory) -> None:
        ca = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert("reviews").configure_cert(context)
        mine = ssl.create_default_context()
        ca.configure_trust(mine)
        one = upstream("tls", tls=context)
        session = client(service(one), options={"ssl": mine})
        told = await said(session, "https://reviews/")
        assert (told["name"], told["sni"]) == ("tls", "reviews")
        await client.close()
        untrusting = client(service(one))
        with pytest.raises(meshlib.ConnectFailed) as caught:
            await said(untrusting, "https://reviews/")
        assert isinstance(caught.value, aiohttp.ClientConnectorCertificateError)

    async def test_a_websocket_outlives_the_routes_timeout(self, client: Client) -> None:
        from aiohttp import web

        async def echo(request: web.Request) -> web.WebSocketResponse:
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            async for message in socket:
                await socket.send_str(message.data + "!")
            return socket

        app = web.Application()
        app.router.add_get("/ws", echo)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        address = "{}:{}".format(*runner.addresses[0][:2])
        session = client({"services": {"chat": {"endpoints": [address], "timeout": 1.0}}})
        async with session.ws_connect("ws://chat/ws") as socket:
            over = time.monotonic() + 1.25
            while time.monotonic() < over:
                await socket.send_str("a")
                assert await socket.receive_str() == "a!"
            assert client.active() == 1
        assert client.active() == 0
        await runner.cleanup()

    async def test_an_endpoint_over_a_unix_socket(self, client: Client, tmp_path: Any) -> None:
        from aiohttp import web

        async def hello(request: web.Request) -> web.Response:
            return web.Response(text=request.headers["Host"])

        app = web.Application()
        app.router.add_get("/", hello)
        runner = web.AppRunner(app)
        await runner.setup()
        path = str(tmp_path / "s")
        await web.UnixSite(runner, path).start()
        session = client({"services": {"local": {"endpoints": [f"unix:{path}"]}}})
        for _ in range(2):
            async with session.get("http://local/") as response:
                assert await response.text() == "local"
        await runner.cleanup()


class TestTheWholePlan:
    async def test_a_failed_connection_is_tried_elsewhere(
        self, session: Client, upstream: UpstreamFactory
    ) -> None:
        dead, alive = upstream("dead"), upstream("alive")
        dead.kill()
        calls = session(
            service(dead, alive, balancer="round_robin", retry={"attempts": 2, "on": ["connect-failure"]})
        )
        attempts = []
        for _ in range(4):
            async with calls.get("http://reviews/") as response:
                assert (await response.json(content_type=None))["name"] == "alive"
                attempts.append(len(meshlib.call_info(response).attempts))
        assert 2 in attempts

    @pytest.mark.parametrize("data", [b"bytes", {"a": "form"}, io.BytesIO(b"file")])
    async def test_bodies_are_sent_again(self, session: Client, upstream: UpstreamFactory, data: Any) -> None:
        bad, good = upstream("bad"), upstream("good")
        bad.fail(503)
        calls = session(service(bad, good, balancer="round_robin", retry={"attempts": 2, "on": ["5xx"]}))
        for _ in range(2):
            if isinstance(data, io.BytesIO):
                data = io.BytesIO(b"file")
            async with calls.post("http://reviews/", data=data) as response:
                assert response.status == 200
        bodies = {got.body for server in (bad, good) for got in server.requests}
        assert len(bodies) == 1
        assert bodies != {b""}

    async def test_a_body_that_cannot_be_replayed_is_sent_once(
        self, session: Client, upstream: UpstreamFactory
    ) -> None:
        bad, other = upstream("bad"), upstream("other")
        bad.fail(503)
        other.fail(503)

        async def body() -> AsyncIterator[bytes]:
            yield b"once"

        calls = session(service(bad, other, retry={"attempts": 3, "on": ["5xx"]}))
        async with calls.post("http://reviews/", data=body()) as response:
            assert response.status == 503
        assert bad.requests_total + other.requests_total == 1

    async def test_after_the_last_try_the_last_response(
        self, session: Client, upstream: UpstreamFactory
    ) -> None:
        bad = upstream()
        bad.fail(503)
        async with session(service(bad, retry={"attempts": 3, "on": ["5xx"]})).get(
            "http://reviews/"
        ) as response:
            assert response.status == 503
        info = meshlib.call_info(response)
        assert [a.outcome for a in info.attempts] == ["status"] * 3
        assert bad.requests_total == 3

    async def test_aiohttps_own_second_try_is_not_made(
        self, session: Client, upstream: UpstreamFactory
    ) -> None:
        bad = upstream()
        bad.reset()
        with pytest.raises(meshlib.TransportFailed):
            await said(session(service(bad)))
        assert bad.requests_total == 1

    async def test_a_kept_connection_that_was_closed_is_no_failure(self, session: Client) -> None:
        """The server closes as soon as the second request arrives on a connection."""
        served = 0

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal served
            await reader.readuntil(b"\r\n\r\n")
            served += 1
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            await writer.drain()
            await reader.read(1)
            writer.transport.abort()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()[:2]
        calls = session({"services": {"reviews": {"endpoints": [f"{host}:{port}"]}}})
        for _ in range(3):
            async with calls.get("http://reviews/") as response:
                assert await response.text() == "ok"
            assert len(meshlib.call_info(response).attempts) == 1
        assert served == 3
        async with calls.get("http://reviews/"):
            pass
        with pytest.raises(meshlib.TransportFailed):  # aiohttp does not repeat a POST, nor do we
            await calls.post("http://reviews/", data=b"x")
        server.close()

    async def test_call_options(self, session: Client, upstream: UpstreamFactory) -> None:
        bad = upstream()
        bad.fail(503)
        calls = session(service(bad, retry={"attempts": 3, "on": ["5xx"]}))
        async with calls.get("http://reviews/", meshlib=meshlib.CallOptions(retry=False)) as response:
            assert response.status == 503
        assert bad.requests_total == 1
        bad.hang()
        with pytest.raises(meshlib.DeadlineExceeded):
            await said(calls, meshlib=meshlib.CallOptions(timeout=0.1))
        with pytest.raises(TypeError, match="CallOptions"):
            await said(calls, meshlib={"retry": False})

    async def test_routes_rewrite_and_redirects_stay_what_was_asked(
        self, session: Client, upstream: UpstreamFactory
    ) -> None:
        one = upstream("one")
        routes = [{"match": {"prefix": "/api/"}, "rewrite": {"prefix": "/v2/", "host": "inner"}}]
        async with session(service(one, routes=routes)).get("http://reviews/api/x?y=%20z") as response:
            told = await response.json(content_type=None)
        headers = {name.lower(): value for name, value in told["headers"]}
        assert (told["path"], headers["host"]) == ("/v2/x?y=%20z", "inner")
        assert str(response.url) == str(response.request_info.url) == "http://reviews/api/x?y=%20z"
        assert response.request_info.headers["Host"] == "reviews"

    async def test_white_space_around_a_header_value_is_not_part_of_it(
        self, session: Client, upstream: UpstreamFactory
    ) -> None:
        """RFC 9110, 5.5; as a proxy would read it."""
        one, gold = upstream("one"), upstream("gold")
        config = service(one, routes=[{"match": {"headers": {"x-tier": "gold"}}, "split": {"gold": 1}}])
        config["services"]["gold"] = {"endpoints": [gold.address]}
        lines = {"x-tier": " gold\t", "x-name": "caf\xe9"}
        async with session(config).get("http://reviews/", headers=lines) as response:
            told = await response.json(content_type=None)
        assert told["name"] == "gold"
        assert ["x-tier", "gold"] in [[name.lower(), value] for name, value in told["headers"]]
        assert ["x-name", "caf\xc3\xa9"] in [[name.lower(), value] for name, value in told["headers"]]

    async def test_observers_see_attempts_and_calls(self, session: Client, upstream: UpstreamFactory) -> None:
        one = upstream("one")
        mesh = meshlib.Mesh(service(one))
        events: list[Any] = []

        def look(event: Any) -> None:
            events.append(event)
            if isinstance(event, AttemptStarted):
                event.head.headers.set("x-seen", str(event.number))

        mesh._observe(look)
        calls = session(mesh)
        told = await said(calls)
        assert ["x-seen", "1"] in [[name.lower(), value] for name, value in told["headers"]]
        told = await said(calls, one.url)
        assert ["x-seen", "1"] in [[name.lower(), value] for name, value in told["headers"]]
        assert [type(e).__name__ for e in events if not type(e).__name__.endswith("Changed")] == [
            "AttemptStarted", "AttemptEnded", "CallEnded", "AttemptStarted", "AttemptEnded",
        ]  # fmt: skip
        assert any(isinstance(e, CallEnded) and e.info.endpoint == one.address for e in events)

    async def test_direct_calls_have_an_info_and_the_deadline(
        self, session: Client, upstream: UpstreamFactory
    ) -> None:
        one = upstream()
        calls = session({})
        async with calls.get(one.url) as response:
            await response.read()
        info = meshlib.call_info(response)
        assert (info.via, len(info.attempts)) == ("direct", 1)
        one.hang()
        with meshlib.deadline(0.2), pytest.raises(meshlib.DeadlineExceeded) as caught:
            await said(calls, one.url)
        assert isinstance(caught.value, aiohttp.ServerTimeoutError)

    async def test_middlewares_of_the_application_see_one_call(
        self, session: Client, upstream: UpstreamFactory
    ) -> None:
        bad, good = upstream("bad"), upstream("good")
        bad.fail(503)
        seen = []

        async def note(request: Any, handler: Any) -> Any:
            response = await handler(request)
            seen.append((str(request.url), request.headers["Host"], response.status))
            return response

        calls = session(
            service(bad, good, balancer="round_robin", retry={"attempts": 2, "on": ["5xx"]}),
            middlewares=[note],
        )
        for _ in range(2):
            await said(calls)
        assert seen == [("http://reviews/", "reviews", 200)] * 2

    async def test_a_connector_of_another_kind_is_used_as_it_is(
        self, session: Client, upstream: UpstreamFactory
    ) -> None:
        one = upstream()
        calls = session(service(one), connector=aiohttp.UnixConnector("/nowhere"))
        with pytest.raises(UnixClientConnectorError) as caught:
            await said(calls)
        assert not isinstance(caught.value, meshlib.MeshError)

    async def test_a_connector_that_is_mocked_stays_in_charge(
        self, session: Client, upstream: UpstreamFactory
    ) -> None:
        one, connector = upstream(), aiohttp.TCPConnector()

        async def connect(*_: Any, **__: Any) -> Any:
            raise TimeoutError

        connector.connect = connect  # type: ignore[method-assign]
        with pytest.raises(aiohttp.ConnectionTimeoutError) as caught:
            await said(session(service(one), connector=connector))
        assert not isinstance(caught.value, meshlib.MeshError)
        assert one.requests_total == 0

    async def test_errors_travel_between_processes(self, session: Client, upstream: UpstreamFactory) -> None:
        dead = upstream()
        dead.kill()
        with pytest.raises(meshlib.ConnectFailed) as caught:
            await said(session(service(dead)))
        caught.value._conn_key = caught.value._conn_key._replace(ssl=True)
        again = pickle.loads(pickle.dumps(caught.value))
        assert type(again) is type(caught.value)
        assert (str(again), again.sent) == (str(caught.value), False)
        assert again.info == caught.value.info

    async def test_many_tasks(self, session: Client, upstream: UpstreamFactory) -> None:
        servers = [upstream(f"v{n}") for n in range(2)]
        calls = session(service(*servers, limits={"max_connections": 4}))
        done = await asyncio.gather(*(said(calls) for _ in range(100)))
        assert len(done) == 100
        assert session.active() == 0
        assert sum(server.connections_total for server in servers) <= 5

    async def test_endpoints_that_come_and_go_fail_no_call(
        self, session: Client, upstream: UpstreamFactory
    ) -> None:
        servers = [upstream(f"v{n}") for n in range(3)]
        # One of three is away at a time; a slow machine may meet the next one's turn with the next try, too.
        retry = {"attempts": 10, "on": ["5xx", "reset", "connect-failure"]}
        calls = session(service(*servers, retry=retry, limits={"max_connections": 8}))

        async def many() -> None:
            for _ in range(40):
                assert (await said(calls))["name"]

        async def disturb() -> None:
            for turn in range(6):
                server = servers[turn % 3]
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.restart)

        await asyncio.gather(disturb(), *(many() for _ in range(10)))
        assert session.active() == 0
        await calls.close()
        live = session.mesh._runtime().clusters.get("static", "reviews")
        await turned(lambda: (live.connections, live.pending) == (0, 0))

    async def test_an_endpoint_that_leaves_has_its_connections_closed(
        self, session: Client, upstream: UpstreamFactory, tmp_path: Any
    ) -> None:
        one, other = upstream("one"), upstream("other")
        file = tmp_path / "mesh.toml"
        file.write_text(f'[services.reviews]\nendpoints = ["{one.address}"]\n')
        calls = session(meshlib.Mesh(str(file)))
        assert (await said(calls))["name"] == "one"
        assert one.connections_open == 1
        file.write_text(f'[services.reviews]\nendpoints = ["{other.address}"]\n')
        mesh = session.mesh
        await asyncio.to_thread(
            until, mesh, lambda: mesh.explain("GET", "http://reviews/").endpoint == other.address
        )
        assert (await said(calls))["name"] == "other"
        await asyncio.to_thread(one.wait_for, lambda: not one.connections_open)

    async def test_calls_pass_where_the_route_says_so(
        self, session: Client, upstream: UpstreamFactory, tmp_path: Any
    ) -> None:
        """A route to an ORIGINAL_DST cluster: the URL is called as it is."""
        one = upstream("one")
        listener = _listener(int(one.address.rpartition(":")[2]), "pass")
        clusters = [{"name": "pass", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED"}]
        file = tmp_path / "envoy.json"
        file.write_text(json.dumps({"static_resources": {"listeners": [listener], "clusters": clusters}}))
        async with session({"services_file": str(file)}).get(one.url) as response:
            assert (await response.json(content_type=None))["name"] == "one"
        assert meshlib.call_info(response).via == "direct"

    @pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
    def test_tls_that_the_mesh_demands(self, upstream: UpstreamFactory, tmp_path: Any, loop: str) -> None:
        """An UpstreamTlsContext: encrypted to the endpoint though the URL is plain, its name checked by the mesh (TL-04)."""
        ca = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert("inner.mesh").configure_cert(context)
        one = upstream("tls", tls=context)

        def config(san: str) -> dict[str, Any]:
            validation = {
                "trusted_ca": {"inline_string": ca.cert_pem.bytes().decode()},
                "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": san}}],
            }
            tls = {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": "sni.mesh",
                "common_tls_context": {"validation_context": validation},
            }
            host, _, port = one.address.rpartition(":")
            endpoint = {"address": {"socket_address": {"address": host, "port_value": int(port)}}}
            cluster = {
                "name": "c",
                "type": "STATIC",
                "transport_socket": {"name": "tls", "typed_config": tls},
                "load_assignment": {
                    "cluster_name": "c",
                    "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}],
                },
            }
            path = tmp_path / f"{san}.json"
            resources = {"listeners": [_listener(9, "c")], "clusters": [cluster]}
            path.write_text(json.dumps({"static_resources": resources}))
            return {"services_file": str(path)}

        async def call(san: str) -> dict[str, Any]:
            client = Client("session")
            try:
                return await said(client(config(san)), "http://127.0.0.1:9/")
            finally:
                await client.close()

        factory = asyncio.new_event_loop
        if loop == "uvloop":
            import uvloop

            factory = uvloop.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            told = runner.run(call("inner.mesh"))
            assert (told["name"], told["sni"]) == ("tls", "sni.mesh")
            with pytest.raises(meshlib.ConnectFailed, match='none of the names dns exact "other'):
                runner.run(call("other.mesh"))


#: Tasks that are cancelled; a long run says more.
CANCELLED = int(os.environ.get("CANCELLED_TASKS", "600"))


@pytest.mark.parametrize("options", [{}, {"limit": 4}], ids=["cluster", "limit"])
async def test_whoever_is_cancelled_leaves_nothing(
    client: Client, upstream: UpstreamFactory, options: dict[str, Any]
) -> None:
    """Tasks are cancelled at any turn of the loop: while they wait for a connection, connect, send, wait for an answer, read."""
    servers = [upstream("one"), upstream("two")]
    servers[0].order(body="x" * 30_000, chunks=3, where=lambda request: request.path == "/long")
    servers[1].order(reset="head", where=lambda request: request.path == "/long")
    for server in servers:
        server.order(status=503, body="x" * 300_000, where=lambda request: request.path == "/busy")
    limits = {"max_connections": 6, "max_pending": 1000}
    retry = {"attempts": 2, "on": ["reset", "connect-failure", "5xx"]}
    session = client(service(*servers, limits=limits, retry=retry), options=options)
    seen: list[Any] = []
    client.mesh._observe(seen.append)
    chance = random.Random(7)
    ended: Counter[str] = Counter()

    async def body() -> AsyncIterator[bytes]:
        yield b"one"
        await asyncio.sleep(0)
        yield b"two"

    async def call(number: int) -> None:
        kind = number % 5
        url = servers[0].url if kind == 0 else "http://reviews" + ("/", "/", "/long", "/busy")[kind - 1]
        data = body() if kind == 1 else None
        async with session.request("POST" if kind == 1 else "GET", url, data=data) as response:
            await response.read()

    async def cancelled(number: int) -> None:
        task = asyncio.create_task(call(number))
        turns = chance.choice((0, 1, 2, 3, 5, 8, 13, 40, 100, 300, None))
        for _ in range(turns or 0):
            await asyncio.sleep(0)
        if turns is not None:  # else it comes to its end, however many turns a busy machine needs for that
            task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            ended["cancelled"] += 1
        except aiohttp.ClientError:
            ended["failed"] += 1
        else:
            ended["done"] += 1

    async def several(first: int) -> None:
        for number in range(first, CANCELLED, 30):
            await cancelled(number)

    await asyncio.gather(*(several(first) for first in range(30)))
    assert ended["cancelled"] > CANCELLED / 5
    assert ended["done"]
    await turned(lambda: client.active() == 0)
    started = Counter(event.key for event in seen if isinstance(event, AttemptStarted))
    assert started == Counter(event.key for event in seen if isinstance(event, AttemptEnded))
    for server in servers:
        server.behave()
    # Every connection and every turn can be had.
    answers = await asyncio.gather(*(said(session) for _ in range(12)))
    assert len(answers) == 12
    live = client.mesh._runtime().clusters.get("static", "reviews")
    assert (client.active(), live.pending) == (0, 0)
    assert live.connections <= 6
    await session.close()
    await turned(lambda: live.connections == 0)
    for server in servers:
        await asyncio.to_thread(server.wait_for, lambda: not server.connections_open)  # noqa: B023 - awaited here


class TestAControlPlane:
    async def test_the_first_call_waits_for_it_and_follows_it(
        self, client: Client, control_plane: Any, upstream: UpstreamFactory
    ) -> None:
        one, other = upstream("one"), upstream("other")

        def serve(*addresses: str) -> None:
            every = build.route_config("r", build.virtual_host("all", build.route(cluster="c")))
            control_plane.set(
                build.api_listener("reviews", every), build.cluster("c"), build.endpoints("c", *addresses)
            )

        serve(one.address)
        session = client({"xds": {"server": control_plane.address}})
        assert (await said(session))["name"] == "one"
        serve(other.address)
        mesh = client.mesh
        await asyncio.to_thread(
            until, mesh, lambda: mesh.explain("GET", "http://reviews/").endpoint == other.address
        )
        assert (await said(session))["name"] == "other"
        await asyncio.to_thread(one.wait_for, lambda: not one.connections_open)

    async def test_without_an_answer_the_url_is_called_as_it_is(
        self, client: Client, control_plane: Any
    ) -> None:
        session = client({"xds": {"server": control_plane.address}})
        timeout = aiohttp.ClientTimeout(sock_connect=0.2)
        with pytest.raises(aiohttp.ClientConnectorDNSError) as caught:
            await said(session, "http://nobody/", timeout=timeout)
        assert not isinstance(caught.value, meshlib.MeshError)
