"""Django under gunicorn and under uvicorn: sync and async views, streams, and nothing left behind."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.support.web_servers import gunicorn, uvicorn

SAID = {"x-request-id": "one", "x-envoy-expected-rq-timeout-ms": "9000"}
SITE = {"mesh": {"inbound": {"ready": "/ready", "max_requests": 50}}, "calls": "nobody", "name": "site"}


def under(kind, log):
    if kind == "uvicorn":
        return uvicorn("tests.support.django_wsgi:asgi", log, "--lifespan", "off", **SITE)
    options = ("--worker-class", "gthread", "--threads", "2") if kind == "gthread" else ()
    return gunicorn("tests.support.django_wsgi:application", log, *options, **SITE)


@pytest.mark.parametrize("kind", ["sync", "gthread", "uvicorn"])
def test_nothing_is_left(tmp_path, kind):
    streams = ["/stream-async"] if kind == "uvicorn" else ["/stream"]
    with under(kind, tmp_path / "log") as server, httpx.Client(base_url=server.url, timeout=20) as client:
        assert client.get("/ready").json() == {"ready": True}
        paths = ["/id", "/id-async", "/boom", "/boom-async", "/file", *streams]
        expected = {
            "/id": "one",
            "/id-async": "one",
            "/file": "abc",
            "/stream": "oneone",
            "/stream-async": "oneone",
        }

        def some(number):
            path = paths[number % len(paths)]
            if number % 5 == 4:
                with client.stream("GET", path, headers=SAID) as cut:  # and goes without reading it
                    return cut.status_code in {200, 500}
            answer = client.get(path, headers=SAID)
            return answer.status_code == 500 if "boom" in path else answer.text == expected[path]

        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(some, range(60)))
        assert all(found), server.log
        # Every place of the limit was given back, and no thread kept a request.
        assert [client.get(path).text for path in ("/id", "/id-async") * 10] == ["empty"] * 20
