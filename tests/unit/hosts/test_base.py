"""What hosts over our own wire have in common: a request read once, and how a call goes to its URL as it is."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from meshlib.core.effects import Direct
from meshlib.hosts.base import Asked, AsyncBaseWire, BaseHost, BaseWire
from meshlib.hosts.endpoints import WireSettings
from meshlib.pools import PoolSettings
from meshlib.pools.bounds import Bounds
from meshlib.testing import VirtualClock
from meshlib.wire.errors import ReadTimeout

LENGTH, CHUNKED = ("Content-Length", "3"), ("Transfer-Encoding", "chunked")


def asked(
    method: str = "GET", url: str = "http://reviews/", headers: Any = (), body: Any = b"", request: Any = None
) -> Asked:
    return Asked(request, method, url, headers, body, {})


@pytest.mark.parametrize(
    ("method", "body", "given", "added"),
    [
        ("GET", b"", (), []),
        ("GET", b"abc", (), [LENGTH]),
        ("POST", b"", (), [("Content-Length", "0")]),
        ("put", b"", (), [("Content-Length", "0")]),
        ("PATCH", b"abc", (), [LENGTH]),
        ("DELETE", b"", (), []),
        ("POST", iter([b"abc"]), (), [CHUNKED]),
        ("POST", iter([b"abc"]), [("content-length", "3")], []),
        ("POST", b"abc", [("CONTENT-LENGTH", "3")], []),
        ("POST", b"abc", [("transfer-encoding", "chunked")], []),
    ],
)
def test_lines_that_frame_the_body_are_added_where_they_are_missing(
    method: str, body: Any, given: Any, added: list[tuple[str, str]]
) -> None:
    made = asked(method, headers=given, body=body)
    assert list(made.head.headers) == [*given, *added]
    assert made.body == (body or None)


def test_the_host_line_is_the_authority() -> None:
    made = asked(url="https://Reviews:8443/a b?q=1", headers=[("Host", "shown"), ("x-a", "1")])
    assert made.place == ("https", "reviews", 8443, "shown")
    assert (made.head.authority, made.head.path) == ("shown", "/a%20b?q=1")
    assert list(made.head.headers) == [("x-a", "1")]


@pytest.mark.parametrize("url", ["nonsense", "ftp://x/", "http://", "http://x:0/", "http://[::1/"])
def test_a_url_that_is_none_is_named(url: str) -> None:
    with pytest.raises(ValueError, match="http"):
        asked(url=url)


@pytest.mark.parametrize(("body", "replayable"), [(b"", True), (b"abc", True), (iter([b"abc"]), False)])
def test_only_bytes_can_be_sent_again(body: Any, replayable: bool) -> None:
    call = BaseHost().read(asked("POST", body=body), VirtualClock(), None, SimpleNamespace())  # type: ignore[arg-type]
    assert call.replayable is replayable


class Library:
    """Its own transport: does what it is told."""

    def __init__(self, does: Any) -> None:
        self.does = does
        self.seconds: Any = "not asked"

    def __call__(self, request: Any) -> Any:
        if isinstance(self.does, Exception):
            raise self.does
        return request


class _Wire(BaseWire):
    def call(self, request: Any, seconds: float | None) -> Any:
        self.own.seconds = seconds
        return self.own(request)


class _AsyncWire(AsyncBaseWire):
    async def call(self, request: Any) -> Any:
        return self.own(request)


@pytest.fixture(params=["blocking", "async"])
def direct(request: pytest.FixtureRequest) -> Any:
    """One direct call by a library that does ``does``."""
    settings = WireSettings(lambda _: None, PoolSettings())  # type: ignore[arg-type,return-value]
    runtime = SimpleNamespace(clusters=SimpleNamespace(holders=set()))

    runtime: Any = SimpleNamespace(clusters=SimpleNamespace(holders=set()))

    def go(does: Any, made: Asked, call: Direct, bounds: Bounds) -> Any:
        if request.param == "blocking":
            return _Wire(settings, Library(does), runtime).direct(made, call, bounds)  # type: ignore[arg-type]
        return asyncio.run(_AsyncWire(settings, Library(does), runtime).direct(made, call, bounds))  # type: ignore[arg-type]

    return go


def test_what_observers_made_of_the_lines_is_sent(direct: Any) -> None:
    made = asked(
        headers=[("x-keep", "1"), ("x-drop", "1")],
        request=SimpleNamespace(headers={"x-keep": "1", "x-drop": "1"}),
    )
    call = Direct(made.head, None)
    call.before = list(made.head.headers.raw)
    made.head.headers.remove("x-drop")
    made.head.headers.set("traceparent", "00-1")
    sent = direct(None, made, call, Bounds(VirtualClock()))
    assert sent.headers == {"x-keep": "1", "traceparent": "00-1"}


def test_the_librarys_error_is_its_own(direct: Any) -> None:
    made, bounds = asked(request=SimpleNamespace(headers={})), Bounds(VirtualClock())
    for error, sent in ((KeyError("x"), True), (ConnectionError("x"), False), (TimeoutError("x"), True)):
        with pytest.raises(type(error)) as caught:
            direct(error, made, Direct(made.head, None), bounds)
        assert caught.value is error
        assert bounds.sent is sent


def test_a_timeout_is_late_where_the_deadline_is_over(direct: Any) -> None:
    made, clock = asked(request=SimpleNamespace(headers={})), VirtualClock()
    near = Bounds(clock, clock.now() + 0.0005)  # timers are exact to a millisecond
    with pytest.raises(ReadTimeout):
        direct(TimeoutError("over"), made, Direct(made.head, near.deadline), near)
    assert near.expired
    far = Bounds(clock, clock.now() + 60.0)
    with pytest.raises(TimeoutError, match="own"):
        direct(TimeoutError("its own"), made, Direct(made.head, far.deadline), far)
    assert not far.expired


def test_a_deadline_that_is_over_sends_nothing(direct: Any) -> None:
    made, clock = asked(request=SimpleNamespace(headers={})), VirtualClock()
    bounds = Bounds(clock, clock.now() - 1.0)
    with pytest.raises(ReadTimeout):
        direct(AssertionError("it was called"), made, Direct(made.head, bounds.deadline), bounds)
    assert not bounds.sent
