from __future__ import annotations

import gc
import json
import logging
import threading
import time
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import pytest

import meshlib
import meshlib_wsgi
from meshlib.deadlines import current_deadline
from meshlib.inbound import current

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def mesh(upstream):
    server = upstream("stock")
    with meshlib.Mesh({"services": {"stock": {"endpoints": [server.address]}}}) as mesh:
        yield mesh


class Got:
    status = ""
    headers: dict[str, str]
    body = b""
    parts: list[bytes]


def get(app, path="/", *, read=True, **headers):
    environ = {
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SCRIPT_NAME": "",
        **{"HTTP_" + name.upper(): value for name, value in headers.items()},
    }
    setup_testing_defaults(environ)
    got = Got()

    def start_response(status, headers, exc_info=None):
        got.status, got.headers = status, dict(headers)
        return lambda data: None

    result = app(environ, start_response)
    if not read:
        return result
    try:
        got.parts = list(result)
        got.body = b"".join(got.parts)
    finally:
        if hasattr(result, "close"):
            result.close()
    return got


def plain(work):
    """An application that answers with what ``work`` gives."""

    def app(environ, start_response):
        start_response("200 OK", [("content-type", "text/plain")])
        return [str(work()).encode()]

    return app


def seen():
    request = current()
    return "" if request is None else request.request_id


class TestServing:
    def test_the_request_is_there_while_it_is_served_and_not_after(self):
        app = meshlib_wsgi.Middleware(plain(seen))
        assert get(app, x_request_id="one").body == b"one"
        assert current() is None
        assert get(app).body == b""

    def test_calls_carry_on_what_the_request_said(self, mesh, upstream):
        with meshlib.Client(mesh=mesh) as client:
            app = meshlib_wsgi.Middleware(plain(lambda: client.get("http://stock/").text))
            body = get(
                app,
                traceparent=PARENT,
                tracestate="a=1",
                baggage="b=2",
                x_request_id="id",
                x_envoy_attempt_count="7",
                x_envoy_expected_rq_timeout_ms="5000",
            ).body
            received = dict(json.loads(body)["headers"])
            after = dict(client.get("http://stock/").json()["headers"])
        assert received["traceparent"] == PARENT
        assert received["tracestate"] == "a=1"
        assert received["baggage"] == "b=2"
        assert received["x-request-id"] == "id"
        assert received["x-envoy-attempt-count"] == "1"
        assert 1 <= int(received["x-envoy-expected-rq-timeout-ms"]) <= 5000
        assert not {"traceparent", "x-request-id", "x-envoy-attempt-count"} & set(after)

    def test_each_attempt_says_its_number(self, upstream):
        server = upstream("stock")
        server.fail(503, times=2)
        service = {"endpoints": [server.address], "retry": {"attempts": 3, "on": ["5xx"]}}
        with (
            meshlib.Mesh({"services": {"stock": service}}) as mesh,
            meshlib.Client(mesh=mesh) as client,
        ):
            get(
                meshlib_wsgi.Middleware(plain(lambda: client.get("http://stock/").text)),
                x_envoy_attempt_count="1",
            )
        assert [received.header("x-envoy-attempt-count") for received in server.requests] == ["1", "2", "3"]

    @pytest.mark.parametrize("style", ["finagle", "linkerd"])
    def test_finagles_and_linkerds_deadlines_are_read_and_where_ordered_sent_on(self, upstream, style):
        name = {"finagle": "finagle-ctx-com.twitter.finagle.deadline", "linkerd": "l5d-ctx-deadline"}[style]
        server = upstream("stock")
        service = {"endpoints": [server.address], "timeout": 60.0}
        for ordered in ([], [style]):
            with (
                meshlib.Mesh({"services": {"stock": service}, "deadline_headers": ordered}) as mesh,
                meshlib.Client(mesh=mesh) as client,
            ):
                app = meshlib_wsgi.Middleware(plain(lambda client=client: client.get("http://stock/").text))
                # Said long ago, by a clock that is not ours: 5 s were left then.
                get(app, **{name.replace("-", "_"): "1000000000 6000000000"})
            received = server.requests[-1]
            assert 1 <= int(received.header("x-envoy-expected-rq-timeout-ms")) <= 5000
            if not ordered:
                assert received.header(name) is None
                continue
            said, until = map(int, received.header(name).split(" "))
            assert abs(said / 1e9 - time.time()) < 60.0
            assert 0 < until - said <= 5_000_000_000

    @pytest.mark.parametrize(
        ("said", "chains", "attempts"),
        [
            ({}, {}, 3),
            ({"x_envoy_attempt_count": "1"}, {}, 3),
            ({"x_envoy_attempt_count": "2"}, {}, 1),
            ({"grpc_previous_rpc_attempts": "1"}, {}, 1),
            ({"grpc_previous_rpc_attempts": "0"}, {}, 3),
            ({"x_envoy_attempt_count": "2"}, {"retry_chains": "go_on"}, 3),
        ],
    )
    def test_what_is_called_for_a_retry_is_not_retried(self, upstream, said, chains, attempts):
        server = upstream("stock")
        server.fail(503)
        service = {"endpoints": [server.address], "retry": {"attempts": 3, "on": ["5xx"]}}
        infos = []

        def work():
            infos.append(meshlib.call_info(client.get("http://stock/")))

        with (
            meshlib.Mesh({"services": {"stock": service}, **chains}) as mesh,
            meshlib.Client(mesh=mesh) as client,
        ):
            get(meshlib_wsgi.Middleware(plain(work)), **said)
            work()
        inside, outside = infos
        assert (len(inside.attempts), len(outside.attempts)) == (attempts, 3)
        assert any("is a retry itself" in line for line in inside.trace()) is (attempts == 1)

    def test_what_was_not_sent_is_tried_elsewhere_also_for_a_retry(self, upstream):
        """It adds nothing to what a service has to bear."""
        gone, server = upstream("gone"), upstream("stock")
        gone.kill()
        retry = {"attempts": 2, "on": ["connect-failure"]}
        service = {"endpoints": [gone.address, server.address], "retry": retry}
        with (
            meshlib.Mesh({"services": {"stock": service}}) as mesh,
            meshlib.Client(mesh=mesh) as client,
        ):
            app = meshlib_wsgi.Middleware(plain(lambda: client.get("http://stock/").status_code))
            assert {get(app, x_envoy_attempt_count="2").body for _ in range(4)} == {b"200"}

    def test_a_call_ends_with_the_deadline_of_the_request(self, upstream):
        server = upstream("stock")
        server.hang()
        with (
            meshlib.Mesh({"services": {"stock": {"endpoints": [server.address]}}}) as mesh,
            meshlib.Client(mesh=mesh) as client,
        ):

            def call():
                with pytest.raises(meshlib.DeadlineExceeded):
                    client.get("http://stock/")
                return "late"

            assert get(meshlib_wsgi.Middleware(plain(call)), grpc_timeout="100m").body == b"late"

    def test_a_direct_call_is_left_alone(self, upstream):
        server = upstream("outside")
        with meshlib.Mesh({}) as mesh, meshlib.Client(mesh=mesh) as client:
            get(
                meshlib_wsgi.Middleware(plain(lambda: client.get(server.url).text)),
                traceparent=PARENT,
                baggage="b=2",
            )
        assert server.requests[0].header("traceparent") is None
        assert server.requests[0].header("baggage") is None

    def test_an_exception_leaves_nothing_behind(self):
        def app(environ, start_response):
            raise RuntimeError(seen())

        with pytest.raises(RuntimeError, match="one"):
            get(meshlib_wsgi.Middleware(app), x_request_id="one", grpc_timeout="1S")
        assert current() is None
        assert current_deadline() is None

    def test_it_keeps_to_the_protocol(self):
        def app(environ, start_response):
            start_response("200 OK", [("content-type", "text/plain")])
            return iter([b"a", b"b"])

        checked = validator(meshlib_wsgi.Middleware(validator(app)))
        assert get(checked).body == b"ab"


class TestBodies:
    def test_a_generator_is_part_of_serving_and_nothing_is_held_back(self):
        steps = []

        def app(environ, start_response):
            start_response("200 OK", [("content-type", "text/plain")])
            try:
                for number in range(2):
                    steps.append(f"{number}:{seen()}:{current_deadline() is not None}")
                    yield b"x"
            finally:
                steps.append(f"end:{seen()}")

        body = get(meshlib_wsgi.Middleware(app), read=False, x_request_id="one", grpc_timeout="9S")
        assert steps == []
        assert next(body) == b"x"
        assert steps == ["0:one:True"]
        assert current() is None
        body.close()
        assert steps == ["0:one:True", "end:one"]
        assert current() is None

    def test_two_bodies_read_in_turn_in_one_thread_do_not_mix(self):
        def app(environ, start_response):
            start_response("200 OK", [("content-type", "text/plain")])
            for _ in range(3):
                yield seen().encode()

        wrapped = meshlib_wsgi.Middleware(app)
        one, two = (get(wrapped, read=False, x_request_id=name) for name in ("one", "two"))
        assert [next(body) for body in (one, two, two, one)] == [b"one", b"two", b"two", b"one"]
        one.close()
        two.close()
        assert current() is None

    def test_a_body_that_breaks_leaves_nothing_behind(self):
        def app(environ, start_response):
            start_response("200 OK", [("content-type", "text/plain")])
            yield b"x"
            raise RuntimeError("broken")

        body = get(meshlib_wsgi.Middleware(app), read=False, x_request_id="one")
        next(body)
        with pytest.raises(RuntimeError, match="broken"):
            next(body)
        assert current() is None

    def test_a_list_stays_a_list(self):
        assert type(get(meshlib_wsgi.Middleware(plain(seen)), read=False)) is list

    def test_a_file_that_the_server_would_send_stays_one(self, tmp_path):
        path = tmp_path / "file"
        path.write_bytes(b"abc")
        files = []

        def app(environ, start_response):
            start_response("200 OK", [("content-type", "text/plain")])
            files.append(FileWrapper(path.open("rb")))
            return files[0]

        def server(environ, start_response):
            return meshlib_wsgi.Middleware(app)({**environ, "wsgi.file_wrapper": FileWrapper}, start_response)

        body = get(server, read=False)
        assert body is files[0]
        body.close()

    def test_after_the_response_its_deadline_binds_nothing(self):
        kept = []

        def app(environ, start_response):
            kept.append(current())
            start_response("200 OK", [("content-type", "text/plain")])
            yield b"x"

        body = get(meshlib_wsgi.Middleware(app), read=False, grpc_timeout="1S")
        list(body)
        assert kept[0].answered


class TestInbound:
    def test_all_is_off_by_default(self):
        app = meshlib_wsgi.Middleware(plain(lambda: "app"))
        assert get(app, "/ready").body == b"app"
        assert get(app, x_envoy_expected_rq_timeout_ms="0").body == b"app"

    def test_a_wrong_key_is_told(self):
        with pytest.raises(meshlib.ConfigError, match=r"inbound\.max_request.*max_requests"):
            meshlib_wsgi.Middleware(plain(seen), inbound={"max_request": 1})

    def test_a_late_request_is_answered_at_once(self):
        app = meshlib_wsgi.Middleware(plain(lambda: "app"), inbound={"reject_expired": True})
        assert get(app, grpc_timeout="0n").status == "504 Gateway Timeout"
        assert get(app, grpc_timeout="5S").body == b"app"
        assert get(app, grpc_timeout="-1S").body == b"app"

    def test_the_mesh_says_what_is_switched_on(self):
        with meshlib.Mesh({"inbound": {"reject_expired": True}}) as mesh:
            assert get(meshlib_wsgi.Middleware(plain(seen), mesh=mesh), grpc_timeout="0n").status.startswith(
                "504"
            )

    def test_readiness(self, upstream):
        server = upstream("stock")
        with meshlib.Mesh({"services": {"stock": {"endpoints": [server.address]}}}) as mesh:
            ready = meshlib_wsgi.Middleware(
                plain(lambda: "app"), mesh=mesh, inbound={"ready": "/ready", "ready_for": ["stock"]}
            )
            lacking = meshlib_wsgi.Middleware(
                plain(lambda: "app"), mesh=mesh, inbound={"ready": "/ready", "ready_for": ["nobody"]}
            )
            assert get(ready, "/ready").status == "200 OK"
            assert get(ready, "/").body == b"app"
            answer = get(lacking, "/ready")
            assert answer.status == "503 Service Unavailable"
            assert "nobody" in json.loads(answer.body)["missing"]
        assert get(ready, "/ready").status == "503 Service Unavailable"

    def test_more_than_the_limit_is_told_to_go(self):
        inside, go = threading.Event(), threading.Event()

        def slow():
            inside.set()
            assert go.wait(10)
            return "app"

        app = meshlib_wsgi.Middleware(plain(slow), inbound={"max_requests": 1})
        thread = threading.Thread(target=get, args=(app,))
        thread.start()
        assert inside.wait(10)
        refused = get(app)
        go.set()
        thread.join(10)
        assert refused.status == "503 Service Unavailable"
        assert refused.headers["x-envoy-overloaded"] == "true"
        assert app.desk.active == 0
        assert get(app).body == b"app"

    @pytest.mark.parametrize("end", ["close", "drop", "break", "raise"])
    def test_a_place_is_given_back_however_it_ends(self, end):
        def app(environ, start_response):
            if end == "raise":
                raise RuntimeError("no")
            start_response("200 OK", [("content-type", "text/plain")])

            def parts():
                yield b"x"
                raise RuntimeError("no")

            return parts()

        wrapped = meshlib_wsgi.Middleware(app, inbound={"max_requests": 1})
        for _ in range(3):
            if end == "raise":
                with pytest.raises(RuntimeError):
                    get(wrapped)
                continue
            body = get(wrapped, read=False)
            assert next(body) == b"x"
            assert wrapped.desk.active == 1
            if end == "close":
                body.close()
            elif end == "break":
                with pytest.raises(RuntimeError):
                    next(body)
            del body
            gc.collect()
        assert wrapped.desk.active == 0

    def test_a_response_that_the_collector_ends_under_any_lock_hangs_nobody_and_is_told(self, caplog):
        """The collector runs in whatever a thread is doing, counting and logging among it."""
        caplog.set_level(logging.INFO, "meshlib.access")

        def app(environ, start_response):
            start_response("200 OK", [("content-type", "text/plain")])
            yield b"one"
            yield b"two"

        wrapped = meshlib_wsgi.Middleware(app, inbound={"max_requests": 1, "access_log": "json"})
        bodies = [get(wrapped, "/dropped", read=False)]
        assert next(bodies[0]) == b"one"
        told = []

        def collect():
            with wrapped.desk._count.get().lock:
                bodies.clear()
                gc.collect()
            told.extend(caplog.records)

        thread = threading.Thread(target=collect, daemon=True)
        thread.start()
        thread.join(10.0)
        assert not thread.is_alive(), "the finalizer waits for the lock that its own thread holds"
        assert told == [], "a handler of the log may hold a lock, too"
        get(wrapped, "/next")
        lines = [json.loads(record.getMessage()) for record in caplog.records]
        assert [line["path"] for line in lines] == ["/dropped", "/next"]
        assert wrapped.desk.active == 0


class TestLog:
    @pytest.fixture
    def lines(self, caplog):
        caplog.set_level(logging.INFO, "meshlib.access")
        return lambda: [record.getMessage() for record in caplog.records if record.name == "meshlib.access"]

    def test_json(self, lines):
        app = meshlib_wsgi.Middleware(plain(lambda: "four"), inbound={"access_log": "json"})
        get(
            app,
            "/a b",
            traceparent=PARENT,
            x_request_id="id",
            x_envoy_attempt_count="2",
            x_forwarded_for="1.2.3.4",
        )
        line = json.loads(lines()[0])
        assert line["start_time"].endswith("Z")
        assert line["duration"] >= 0
        expected = {
            "method": "GET",
            "path": "/a%20b",
            "protocol": "HTTP/1.0",
            "response_code": 200,
            "response_flags": "-",
            "bytes_received": 0,
            "bytes_sent": 4,
            "request_id": "id",
            "trace_id": PARENT[3:35],
            "attempt": 2,
            "x_forwarded_for": "1.2.3.4",
            "authority": "127.0.0.1",
        }
        assert {name: line[name] for name in expected} == expected

    def test_envoys_format(self, lines):
        app = meshlib_wsgi.Middleware(plain(lambda: "four"), inbound={"access_log": "envoy"})
        get(app, "/x", x_request_id="id", user_agent='curl "8"', x_forwarded_for="1.2.3.4")
        start, rest = lines()[0].split("] ", 1)
        assert start.startswith("[20")
        assert rest.startswith('"GET /x HTTP/1.0" 200 - 0 4 ')
        assert rest.endswith(' - "1.2.3.4" "curl \\x228\\x22" "id" "127.0.0.1" "-"')

    def test_nothing_that_a_peer_sends_makes_a_line(self, lines):
        app = meshlib_wsgi.Middleware(plain(lambda: ""), inbound={"access_log": "envoy"})
        get(app, "/a\nGET", user_agent="\x1b[2J\r\nx" + "y" * 9000)
        assert len(lines()) == 1
        assert lines()[0].isprintable()
        assert len(lines()[0]) < 3000

    def test_an_exception_is_a_500_and_a_refusal_says_why(self, lines):
        def app(environ, start_response):
            raise RuntimeError("no")

        inbound = {"access_log": "json", "reject_expired": True}
        wrapped = meshlib_wsgi.Middleware(app, inbound=inbound)
        with pytest.raises(RuntimeError):
            get(wrapped)
        get(wrapped, grpc_timeout="0n")
        assert [
            (json.loads(line)["response_code"], json.loads(line)["response_flags"]) for line in lines()
        ] == [
            (500, "-"),
            (504, "DT"),
        ]

    def test_where_nobody_set_up_logging_it_goes_to_standard_output(self, monkeypatch, capsys):
        monkeypatch.setattr(logging.getLogger("meshlib.access"), "propagate", False)
        get(meshlib_wsgi.Middleware(plain(lambda: ""), inbound={"access_log": "json"}))
        assert json.loads(capsys.readouterr().out)["response_code"] == 200
