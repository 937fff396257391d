"""Flask under gunicorn: nothing stays from one request to the next, in a process's or a thread's life."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.support.asking import asked
from tests.support.late import again_if_late, soon
from tests.support.web_servers import gunicorn

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
SAID = {"x-request-id": "one", "traceparent": PARENT, "x-envoy-expected-rq-timeout-ms": "9000"}
WORKERS = {
    "sync": (),
    "gthread": ("--worker-class", "gthread", "--threads", "2"),
    "preload": ("--preload", "--workers", "2"),
    "gevent": ("--worker-class", "gevent"),
}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("worker", WORKERS)
@again_if_late
def test_nothing_is_left(tmp_path_factory, worker):
    site = {"mesh": {"inbound": {"ready": "/ready", "access_log": "json"}}, "calls": "nobody", "name": "site"}
    log = tmp_path_factory.mktemp("log") / "log"
    server = gunicorn("tests.support.flask_site:create_app()", log, *WORKERS[worker], **site)
    with server, httpx.Client(base_url=server.url, timeout=20) as client:
        assert client.get("/ready").json() == {"ready": True}
        nothing = {"id": "", "trace": "", "deadline": None}

        def left(headers):
            found = client.get("/left", headers=headers).json()
            del found["pid"]
            return found

        def some(number):
            if number % 4 == 0:
                found = left(SAID)
                return 0 < found.pop("deadline") <= 9 and found == {"id": "one", "trace": PARENT}
            if number % 4 == 1:
                return client.get("/boom", headers=SAID).status_code == 500
            if number % 4 == 2:
                return client.get("/stream", headers=SAID).text == "one;one;one;"
            with client.stream("GET", "/stream", headers=SAID) as cut:  # and goes without reading it
                return cut.status_code == 200

        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(some, range(40)))
        assert [left({}) for _ in range(20)] == [nothing] * 20

        # A worker writes a line after the answer, while others serve; of one that was cut off perhaps with its next request.
        def written():
            assert left({}) == nothing
            return server.log.count('"request_id": "one"') >= 40

        assert asked(written)
        soon(server.stop(), 5.0, "the end")
