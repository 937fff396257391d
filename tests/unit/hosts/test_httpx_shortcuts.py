"""The shortcuts of httpx's clients: with them a call is, does and leaves what it is, does and leaves without them."""

from __future__ import annotations

import asyncio
import functools
import gzip
import logging
import pickle
import re
import weakref
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import httpx
import httpx2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import meshlib
import meshlib.httpx2
from meshlib.hosts.httpx.shortcuts import Shortcuts
from tests.support.raw_server import RawServer

LIBRARIES: dict[str, tuple[ModuleType, Any]] = {"httpx": (httpx, meshlib), "httpx2": (httpx2, meshlib.httpx2)}
URL = "http://reviews/some/where?a=1"


def answer(*lines: str, body: bytes = b"ok", status: str = "200 OK") -> bytes:
    head = "\r\n".join((f"HTTP/1.1 {status}", *lines, f"Content-Length: {len(body)}", "", ""))
    return head.encode() + body


ANSWERS = {
    "plain": answer(),
    "empty": answer(body=b""),
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n3\r\nand\r\n0\r\n\r\n",
    "gzip": answer("Content-Encoding: gzip", body=gzip.compress(b"packed")),
    "not gzip": answer("Content-Encoding: gzip", body=b"no"),
    "identity": answer("Content-Encoding: identity"),
    "cookies": answer("Set-Cookie: a=1; Path=/", "set-cookie: b=2"),
    "redirect": answer("Location: http://reviews/other", status="302 Found"),
    "a redirect to nowhere": answer("Location: http://\x7f", status="302 Found"),
    "failed": answer(status="500 Internal Server Error"),
    "text": answer("Content-Type: text/plain; charset=latin-1", body="für".encode("latin-1")),
    "other bytes": answer("X-Name: f\xfcr"),
    "cut off": b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nok",
    "garbage": b"what?\r\n\r\n",
}

Make = Callable[..., Any]


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> tuple[ModuleType, Any]:
    """The host library and what meshlib has for it."""
    return LIBRARIES[request.param]


@pytest.fixture(params=["sync", "async"])
def awaited(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "async")


@pytest.fixture
def mesh(server: RawServer) -> Iterator[meshlib.Mesh]:
    with meshlib.Mesh({"services": {"reviews": {"endpoints": [server.address]}}}) as made:
        yield made


class Calls:
    """Calls of one client, told as facts; ``shortcuts`` as the client's."""

    def __init__(
        self, ours: Any, mesh: meshlib.Mesh, *, awaited: bool, shortcuts: bool, **options: Any
    ) -> None:
        kind = ours.AsyncClient if awaited else ours.Client
        self.client = kind(mesh=mesh, **options)
        self.client.shortcuts = shortcuts
        self._awaited = awaited
        self._runner = asyncio.Runner() if awaited else None

    def run(self, made: Any) -> Any:
        return made if self._runner is None else self._runner.run(made)

    def request(self, method: str = "GET", url: Any = URL, **options: Any) -> Any:
        if self._runner is None:
            return self.client.request(method, url, **options)

        async def call() -> Any:
            return await self.client.request(method, url, **options)

        return self._runner.run(call())

    def close(self) -> None:
        if self._runner is None:
            self.client.close()
        else:
            self._runner.run(self.client.aclose())
            self._runner.close()

    def facts(self, *arguments: Any, **options: Any) -> Any:
        """What one call leaves, to its last detail; or what it raised."""
        try:
            response = self.request(*arguments, **options)
        except Exception as error:  # noqa: BLE001 - it is a fact
            asked = getattr(error, "_request", None)
            words = re.sub(r"after [0-9.]+ m?s", "after a while", str(error))
            return type(error).__name__, words, asked and (asked.method, str(asked.url))
        return self.of(response), dict(self.client.cookies)

    def of(self, response: Any) -> Any:
        request = response.request
        following = response.next_request
        return {
            "request": (request.method, str(request.url), request.headers.raw, request.content),
            "timeout": request.extensions["timeout"],
            "response": (response.status_code, response.headers.raw, response.headers.encoding),
            "text": (response.text, response.content, response.encoding),
            "version": (response.http_version, response.reason_phrase),
            "ended": (response.is_closed, response.is_stream_consumed, response.num_bytes_downloaded),
            "elapsed": response.elapsed.total_seconds() > 0,
            "history": [self.of(one) for one in response.history],
            "next": following and (following.method, str(following.url), following.headers.raw),
            "read again": self._again(response),
            "mesh": (response.extensions["meshlib"].via, len(response.extensions["meshlib"].attempts)),
            "pickled": pickle.loads(pickle.dumps(response)).content,
        }

    def _again(self, response: Any) -> Any:
        if self._runner is None:
            return b"".join(response.iter_bytes()), _raised(lambda: next(response.iter_raw()))

        async def read() -> Any:
            parts = [part async for part in response.aiter_bytes()]
            try:
                await anext(response.aiter_raw())
            except Exception as error:  # noqa: BLE001
                return b"".join(parts), type(error).__name__

        return self._runner.run(read())


def _raised(call: Callable[[], Any]) -> str:
    try:
        call()
    except Exception as error:  # noqa: BLE001
        return type(error).__name__
    return ""


@pytest.fixture
def pair(library: Any, mesh: meshlib.Mesh, awaited: bool) -> Iterator[Make]:
    """Two clients of the same options, with the shortcuts and without."""
    made: list[Calls] = []

    def make(**options: Any) -> tuple[Calls, Calls]:
        both = tuple(
            Calls(library[1], mesh, awaited=awaited, shortcuts=shortcuts, **options)
            for shortcuts in (True, False)
        )
        made.extend(both)
        return both  # type: ignore[return-value]

    yield make
    for one in made:
        one.close()


def agree(both: tuple[Calls, Calls], server: RawServer, *arguments: Any, **options: Any) -> Any:
    """What both clients make of the same call, which must be one thing. A client's first call goes the long way: two each."""
    told = []
    for calls in both:
        before = len(server.heads)
        facts = [calls.facts(*arguments, **options) for _ in range(2)]
        told.append((facts, server.heads[before:], server.bodies[before:]))
    assert told[0] == told[1]
    return told[0][0][1]


@pytest.mark.parametrize("name", ANSWERS)
def test_every_kind_of_answer(pair: Make, library: Any, server: RawServer, name: str) -> None:
    server.answer = ANSWERS[name]
    # Only what is cut off must time out, and no more of that than its reading.
    timeout = library[0].Timeout(20.0, read=0.4 if name == "cut off" else 20.0)
    both = pair(timeout=timeout, max_redirects=3)
    agree(both, server)
    agree(both, server, follow_redirects=True)


@pytest.mark.parametrize(
    "options",
    [
        {"method": "HEAD"},
        {"method": "DELETE"},
        {"method": "get"},
        {"method": "POST"},
        {"method": "POST", "json": {"a": 1}},
        {"method": "PUT", "content": b"bytes"},
        {"content": b""},
        {"headers": {"x-one": "1", "Host": "reviews"}},
        {"headers": [("x-one", "1"), ("X-One", "2"), ("user-agent", "mine")]},
        {"params": {"b": "2"}},
        {"params": {}},
        {"timeout": 3.0},
        {"timeout": None},
        {"extensions": {"timeout": {"read": 5.0}}},
        {"auth": ("user", "password")},
        {"auth": None},
        {"url": "http://user:word@reviews/x"},
        {"url": "HTTP://Reviews/A B/../c?ü#part"},
        {"url": "http://reviews"},
        {"url": "/relative"},
        {"url": httpx.URL("http://reviews/made")},
        {"url": 7},
    ],
    ids=repr,
)
def test_every_kind_of_request(pair: Make, server: RawServer, library: Any, options: dict[str, Any]) -> None:
    options = dict(options)
    if isinstance(options.get("url"), httpx.URL):
        options["url"] = library[0].URL(str(options["url"]))
    agree(pair(), server, options.pop("method", "GET"), options.pop("url", URL), **options)


@pytest.mark.parametrize(
    "options",
    [
        {"base_url": "http://reviews/base"},
        {"headers": {"x-mine": "1", "host": "reviews"}},
        {"params": {"always": "1"}},
        {"cookies": {"a": "1"}},
        {"auth": ("user", "password")},
        {"follow_redirects": True},
        {"timeout": 7.0},
        {"default_encoding": "utf-16-le"},
    ],
    ids=repr,
)
def test_every_kind_of_client(pair: Make, server: RawServer, options: dict[str, Any]) -> None:
    agree(pair(**options), server)


def test_hooks_see_each_request_and_response(pair: Make, server: RawServer, awaited: bool) -> None:
    server.answer = ANSWERS["redirect"]
    seen: list[Any] = []

    def look(one: Any) -> None:
        seen.append((type(one).__name__, str(one.url), getattr(one, "is_closed", None)))

    async def look_on(one: Any) -> None:
        look(one)

    hook = look_on if awaited else look
    both = pair(event_hooks={"request": [hook], "response": [hook]}, follow_redirects=True, max_redirects=2)
    agree(both, server)
    half = len(seen) // 2
    assert seen[:half] == seen[half:] != []


def test_a_line_is_logged(pair: Make, library: Any, caplog: pytest.LogCaptureFixture) -> None:
    name = library[0].__name__
    for calls in pair():
        caplog.clear()
        with caplog.at_level(logging.INFO, logger=name):
            calls.request()
            calls.request()
        lines = [record.getMessage() for record in caplog.records if record.name == name]
        assert lines == [f'HTTP Request: GET {URL} "HTTP/1.1 200 OK"'] * 2


def test_a_stream_is_read_by_its_reader(pair: Make, server: RawServer, awaited: bool) -> None:
    server.answer = ANSWERS["chunks"]
    for calls in pair():
        for _ in range(2):
            request = calls.client.build_request("GET", URL)
            if not awaited:
                response = calls.client.send(request, stream=True)
                assert not response.is_closed
                assert b"".join(response.iter_raw()) == b"okand"
            else:

                async def read(client: Any = calls.client, request: Any = request) -> None:
                    response = await client.send(request, stream=True)
                    assert not response.is_closed
                    assert b"".join([part async for part in response.aiter_raw()]) == b"okand"
                    assert response.elapsed.total_seconds() > 0

                calls.run(read())
                continue
            assert response.elapsed.total_seconds() > 0


def test_a_request_may_be_sent_twice(pair: Make, awaited: bool) -> None:
    for calls in pair():
        request = calls.client.build_request("GET", URL)
        for _ in range(3):
            if awaited:

                async def send(client: Any = calls.client, request: Any = request) -> Any:
                    return await client.send(request)

                assert calls.run(send()).text == "ok"
            else:
                assert calls.client.send(request).text == "ok"


def test_a_closed_client_refuses(pair: Make) -> None:
    for calls in pair():
        calls.request()
        calls.request()
        if calls._runner is None:
            calls.client.close()
        else:
            calls._runner.run(calls.client.aclose())
        with pytest.raises(RuntimeError, match="closed"):
            calls.request()


def test_a_response_is_let_go_without_the_collector(library: Any, mesh: meshlib.Mesh) -> None:
    with library[1].Client(mesh=mesh) as client:
        client.get(URL)
        response = client.get(URL)
        gone = weakref.ref(response)
        del response
        assert gone() is None


@pytest.mark.parametrize("step", ["send", "_send_single_request", "_send_handling_auth", "build_request"])
@pytest.mark.parametrize("how", ["wraps", "plain"])
def test_who_stands_in_the_place_of_a_step_sees_every_call(
    pair: Make, library: Any, awaited: bool, monkeypatch: pytest.MonkeyPatch, step: str, how: str
) -> None:
    kind = library[0].AsyncClient if awaited else library[0].Client
    real = getattr(kind, step)
    seen: list[str] = []

    def stand(self: Any, *arguments: Any, **options: Any) -> Any:
        seen.append(step)
        return real(self, *arguments, **options)

    monkeypatch.setattr(kind, step, functools.wraps(real)(stand) if how == "wraps" else stand)
    calls, _ = pair()
    for _ in range(3):
        assert calls.request().text == "ok"
    assert len(seen) == 3


@pytest.mark.parametrize("before", [True, False], ids=["before ours", "after ours"])
def test_who_looks_on_while_requests_are_made_sees_every_one(
    pair: Make, library: Any, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    kind, seen = library[0].Request, []
    real = kind.__init__

    def stand(self: Any, *arguments: Any, **options: Any) -> None:
        seen.append("made")
        real(self, *arguments, **options)

    monkeypatch.setattr(kind, "__init__", functools.wraps(real)(stand))
    if before:
        host = library[1].Client.transport_class.host
        monkeypatch.setattr(host, "shortcuts", Shortcuts(library[0]))
    calls, _ = pair()
    for _ in range(3):
        assert calls.request().text == "ok"
    assert len(seen) == 3


def test_a_subclass_may_have_steps_of_its_own(library: Any, mesh: meshlib.Mesh) -> None:
    seen: list[str] = []

    class Own(library[1].Client):  # type: ignore[misc, name-defined]
        def send(self, request: Any, **options: Any) -> Any:
            seen.append("send")
            return super().send(request, **options)

        def _send_single_request(self, request: Any) -> Any:
            seen.append("single")
            return super()._send_single_request(request)

        def build_request(self, *arguments: Any, **options: Any) -> Any:
            seen.append("build")
            return super().build_request(*arguments, **options)

    with Own(mesh=mesh) as client:
        for _ in range(2):
            assert client.get(URL).text == "ok"
    assert seen == ["build", "send", "single"] * 2


@pytest.mark.parametrize("way", ["derived", "between", "instance"])
@pytest.mark.parametrize(
    "step",
    [
        "_merge_url",
        "_merge_headers",
        "_merge_cookies",
        "_merge_queryparams",
        "_build_request_auth",
        "_send_handling_auth",
    ],
)
def test_a_step_that_is_another_is_not_passed_over(
    library: Any, mesh: meshlib.Mesh, monkeypatch: pytest.MonkeyPatch, step: str, way: str
) -> None:
    theirs, ours = library
    real = getattr(theirs.Client, step)
    seen: list[str] = []

    def own(self: Any, *arguments: Any, **options: Any) -> Any:
        seen.append(step)
        return real(self, *arguments, **options)

    bases = {
        "derived": (ours.Client,),
        "between": (ours.Client, type("Mixin", (theirs.Client,), {step: own})),
    }
    kind = type("Own", bases.get(way, (ours.Client,)), {step: own} if way == "derived" else {})
    with kind(mesh=mesh) as client:
        if way == "instance":
            monkeypatch.setattr(client, step, functools.partial(own, client))
        for _ in range(3):
            assert client.get(URL).text == "ok"
    assert len(seen) == 3


@pytest.mark.parametrize("step", ["send", "build_request", "_send_single_request"])
def test_a_class_between_ours_and_the_librarys_is_asked(library: Any, mesh: meshlib.Mesh, step: str) -> None:
    theirs, ours = library
    real = getattr(theirs.Client, step)
    seen: list[str] = []

    def own(self: Any, *arguments: Any, **options: Any) -> Any:
        seen.append(step)
        return real(self, *arguments, **options)

    mixin = type("Mixin", (theirs.Client,), {step: own})
    with type("Own", (ours.Client, mixin), {})(mesh=mesh) as client:
        for _ in range(3):
            assert client.get(URL).text == "ok"
    assert len(seen) == 3


def test_an_argument_that_is_none_is_refused(pair: Make, awaited: bool) -> None:
    for calls in pair():
        calls.request()
        client = calls.client
        with pytest.raises(TypeError, match="tiemout"):
            client.build_request("GET", URL, tiemout=1)
        request = client.build_request("GET", URL)
        with pytest.raises(TypeError, match="straem"):
            calls.run(client.send(request, straem=True))


_TEXT = st.text("aZ09-._~!$&'()*+,;=:@/?#%[] \\\"<>^`{|}üx", max_size=12)
_HOSTS = st.sampled_from(
    ["a", "reviews", "a.b-c", "1.2.3.4", "1.2", "0", "9a", "xn--bcher-kva", "A", "a_b", "[::1]", "-a", ""]
)
_PORTS = st.sampled_from(["", ":", ":80", ":443", ":8080", ":080", ":0", ":99999", ":100000", ":x"])


@given(
    st.builds(
        lambda scheme, user, host, port, path, rest: f"{scheme}://{user}{host}{port}/{path}{rest}",
        st.sampled_from(["http", "https", "HTTP", "ws", "ftp"]),
        st.sampled_from(["", "", "user@", "user:word@"]),
        _HOSTS,
        _PORTS,
        _TEXT,
        st.one_of(st.just(""), _TEXT.map(lambda text: f"?{text}")),
    )
    | _TEXT
)
@example("http://reviews/a/../b")
@example("http://reviews/a/.hidden")
@example("http://reviews/?")
@example("http://reviews/\n")
@example("http://reviews/a\n")
@example("http://" + "a" * 5000 + "/")
@pytest.mark.parametrize("name", LIBRARIES)
def test_a_plain_url_is_the_librarys(name: str, text: str) -> None:
    theirs = LIBRARIES[name][0]
    made = Shortcuts(theirs).url(text)
    if made is not None:
        wanted = theirs.URL(text)
        assert type(made) is type(wanted)
        assert vars(made) == vars(wanted)
        assert (str(made), hash(made)) == (str(wanted), hash(wanted))


def test_usual_urls_are_plain() -> None:
    short = Shortcuts(httpx)
    for text in (
        "http://reviews/",
        "https://reviews.default.svc.cluster.local:9080/api/v1/things/7?page=2&sort=name",
        "http://a:80/x",
        "http://9to5/a.b/c-d_e~f",
    ):
        assert short.url(text) == httpx.URL(text)
