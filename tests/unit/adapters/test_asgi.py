from __future__ import annotations

import asyncio
import json
import logging

import httpx
import pytest

import meshlib
import meshlib_asgi
from meshlib.deadlines import current_deadline
from meshlib.inbound import current

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def seen():
    request = current()
    return "" if request is None else request.request_id


def plain(work):
    async def app(scope, receive, send):
        text = str(await work()).encode()
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}
        )
        await send({"type": "http.response.body", "body": text})

    return app


async def says_app():
    return "app"


async def get(app, path="/", **headers):
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
        return await client.get(
            path, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )


class TestServing:
    async def test_the_request_is_there_while_it_is_served_and_not_after(self):
        async def work():
            return seen()

        app = meshlib_asgi.Middleware(plain(work))
        assert (await get(app, x_request_id="one")).text == "one"
        assert current() is None
        assert (await get(app)).text == ""

    async def test_requests_at_once_do_not_mix(self):
        together = asyncio.Barrier(20)

        async def work():
            before = seen()
            await together.wait()
            return before + seen()

        app = meshlib_asgi.Middleware(plain(work))
        answers = await asyncio.gather(*(get(app, x_request_id=f"{n:02}") for n in range(20)))
        assert [answer.text for answer in answers] == [f"{n:02}{n:02}" for n in range(20)]

    async def test_calls_carry_on_what_the_request_said(self, upstream):
        server = upstream("stock")
        with meshlib.Mesh({"services": {"stock": {"endpoints": [server.address]}}}) as mesh:
            async with meshlib.AsyncClient(mesh=mesh) as client:

                async def work():
                    answer = await asyncio.create_task(client.get("http://stock/"))
                    return answer.text

                answer = await get(
                    meshlib_asgi.Middleware(plain(work)),
                    traceparent=PARENT,
                    baggage="b=2",
                    x_request_id="id",
                    grpc_timeout="5S",
                    x_envoy_attempt_count="7",
                )
        received = dict(answer.json()["headers"])
        assert received["traceparent"] == PARENT
        assert received["baggage"] == "b=2"
        assert received["x-request-id"] == "id"
        assert received["x-envoy-attempt-count"] == "1"
        assert 1 <= int(received["x-envoy-expected-rq-timeout-ms"]) <= 5000

    async def test_an_exception_leaves_nothing_behind(self):
        async def work():
            raise RuntimeError(seen())

        with pytest.raises(RuntimeError, match="one"):
            await get(meshlib_asgi.Middleware(plain(work)), x_request_id="one", grpc_timeout="1S")
        assert current() is None
        assert current_deadline() is None

    async def test_messages_pass_as_they_are_and_when_they_are(self):
        sent = []
        body = {"type": "http.response.body", "body": b"x", "more_body": True}
        last = {"type": "http.response.body", "body": b"", "more_body": False}
        bound = []

        async def app(scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send(body)
            assert sent[-1] is body
            bound.append(current_deadline() is not None)
            await send(last)
            bound.append(current_deadline() is not None)
            bound.append(seen())

        async def send(message):
            sent.append(message)

        scope = {
            "type": "http",
            "path": "/",
            "headers": [(b"grpc-timeout", b"5S"), (b"x-request-id", b"one")],
        }
        await meshlib_asgi.Middleware(app)(scope, None, send)
        assert sent[-1] is last
        # The work that goes on after the response keeps its request's trace, and loses its deadline.
        assert bound == [True, False, "one"]

    async def test_the_servers_own_calls_are_not_part_of_serving(self):
        found = []

        async def receive():
            found.append((seen(), current_deadline() is not None))
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message):
            found.append((seen(), current_deadline() is not None))
            if message["type"] == "http.response.body":
                raise OSError("gone")

        async def app(scope, receive, send):
            with meshlib.deadline(5):
                await receive()
                await send({"type": "http.response.start", "status": 200, "headers": []})
                with pytest.raises(OSError, match="gone"):
                    await send({"type": "http.response.body", "body": b""})
                found.append((seen(), current_deadline() is not None))

        scope = {"type": "http", "path": "/", "headers": [(b"x-request-id", b"one")]}
        await meshlib_asgi.Middleware(app)(scope, receive, send)
        assert found == [("", False), ("", False), ("", False), ("one", True)]

    async def test_a_task_that_outlives_its_request_loses_the_deadline(self):
        tasks, go = [], asyncio.Event()

        async def later():
            inside = current_deadline() is not None
            await go.wait()
            return inside, current_deadline(), seen()

        async def work():
            tasks.append(asyncio.create_task(later()))
            await asyncio.sleep(0)
            return ""

        await get(meshlib_asgi.Middleware(plain(work)), grpc_timeout="5S", x_request_id="one")
        go.set()
        assert await tasks[0] == (True, None, "one")

    async def test_other_kinds_of_scope_are_passed_on(self):
        got = []

        async def app(scope, receive, send):
            got.append((scope["type"], receive, send))

        await meshlib_asgi.Middleware(app)({"type": "other"}, "receive", "send")
        assert got == [("other", "receive", "send")]


class TestWebSocket:
    async def test_it_carries_on_and_its_deadline_ends_with_the_handshake(self):
        found = []

        async def app(scope, receive, send):
            found.append((seen(), current_deadline() is not None))
            await send({"type": "websocket.accept"})
            found.append((seen(), current_deadline() is not None))

        async def send(message):
            pass

        scope = {
            "type": "websocket",
            "path": "/",
            "headers": [(b"x-request-id", b"one"), (b"x-envoy-expected-rq-timeout-ms", b"5000")],
        }
        inbound = {"max_requests": 1, "reject_expired": True}
        await meshlib_asgi.Middleware(app, inbound=inbound)(scope, None, send)
        assert found == [("one", True), ("one", False)]
        assert current() is None


class TestLifespan:
    async def run(self, middleware):
        sent = []

        async def app(scope, receive, send):
            while True:
                message = await receive()
                await send({"type": message["type"] + ".complete"})
                if message["type"] == "lifespan.shutdown":
                    return

        middleware.app = app
        messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

        async def receive():
            return next(messages)

        async def send(message):
            sent.append(message["type"])

        await middleware({"type": "lifespan"}, receive, send)
        assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]

    async def test_the_process_s_mesh_is_closed(self):
        middleware = meshlib_asgi.Middleware(None)
        mesh = meshlib.default()
        await self.run(middleware)
        assert mesh.closed
        assert not meshlib.default().closed

    async def test_a_mesh_of_somebody_else_is_not(self):
        with meshlib.Mesh({}) as mesh:
            await self.run(meshlib_asgi.Middleware(None, mesh=mesh))
            assert not mesh.closed


class TestInbound:
    async def test_all_is_off_by_default(self):
        app = meshlib_asgi.Middleware(plain(says_app))
        assert (await get(app, "/ready")).text == "app"
        assert (await get(app, x_envoy_expected_rq_timeout_ms="0")).text == "app"

    async def test_late_readiness_and_limit(self):
        inside, go = asyncio.Event(), asyncio.Event()

        async def work():
            inside.set()
            await go.wait()
            return "app"

        inbound = {"max_requests": 1, "reject_expired": True, "ready": "/ready"}
        app = meshlib_asgi.Middleware(plain(work), inbound=inbound)
        first = asyncio.create_task(get(app))
        await inside.wait()
        refused, late, ready = await get(app), await get(app, grpc_timeout="0n"), await get(app, "/ready")
        go.set()
        assert (refused.status_code, refused.headers["x-envoy-overloaded"]) == (503, "true")
        assert late.status_code == 504
        assert ready.json() == {"ready": True}
        assert (await first).text == "app"
        assert (await get(app)).text == "app"
        assert app.desk.active == 0

    async def test_a_place_is_given_back_when_the_caller_goes(self):
        inside = asyncio.Event()

        async def work():
            inside.set()
            await asyncio.Event().wait()

        app = meshlib_asgi.Middleware(plain(work), inbound={"max_requests": 1})
        task = asyncio.create_task(get(app))
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert app.desk.active == 0

    async def test_the_log(self, caplog):
        caplog.set_level(logging.INFO, "meshlib.access")
        app = meshlib_asgi.Middleware(plain(says_app), inbound={"access_log": "json"})
        await get(app, "/a%20b?c=d", x_request_id="id", user_agent="me")
        line = json.loads(caplog.records[0].getMessage())
        expected = {
            "method": "GET",
            "path": "/a%20b?c=d",
            "protocol": "HTTP/1.1",
            "response_code": 200,
            "bytes_sent": 3,
            "request_id": "id",
            "user_agent": "me",
            "authority": "here",
        }
        assert {name: line[name] for name in expected} == expected
