"""How requests of HTTP/1.1 are spelled where the mesh says so (Envoy ``Http1ProtocolOptions``)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.wire.dial import Place
from meshlib.wire.message import Outgoing
from meshlib.wire.spelled import Spelling
from tests.support.scripted import Awaited, Blocking, Peer, Scripted, get

Driver = Blocking | Awaited


@pytest.mark.parametrize(
    ("name", "spelled"),
    [
        (b"content-type", b"Content-Type"),
        (b"x-b3-traceid", b"X-B3-Traceid"),
        (b"ETAG", b"ETAG"),
        (b"a_b.c~d", b"A_B.C~D"),
        (b"x-1abc", b"X-1abc"),
        (b"te", b"Te"),
    ],
)
def test_a_capital_begins_a_word(name: bytes, spelled: bytes) -> None:
    request = Outgoing(b"GET", b"/", [(b"Host", b"a"), (name, b"v")])
    assert Spelling(proper_case=True).of(request)[1] == [(b"Host", b"a"), (spelled, b"v")]


@given(st.text("abcXYZ019-_.!", min_size=1))
def test_the_name_stays_the_name(text: str) -> None:
    request = Outgoing(b"GET", b"/", [(b"Host", b"a"), (text.encode(), b"v")])
    assert Spelling(proper_case=True).of(request)[1][1][0].lower() == text.encode().lower()


@pytest.mark.parametrize(
    ("target", "secure", "found"),
    [
        (b"/a?b=c", False, b"http://host:8080/a?b=c"),
        (b"/", True, b"https://host:8080/"),
        (b"*", False, b"*"),
        (b"host:443", False, b"host:443"),
    ],
)
def test_the_target_is_the_url(target: bytes, secure: bool, found: bytes) -> None:
    request = Outgoing(b"GET", target, [(b"x", b"y"), (b"HOST", b"host:8080")], secure=secure)
    assert Spelling(whole_urls=True).of(request) == (found, request.headers)


@pytest.mark.parametrize("body", [None, b"body"])
def test_by_every_driver(driver: Driver, body: bytes | None) -> None:
    heads = []

    def serve(peer: Peer) -> None:
        while head := peer.head():
            heads.append(head)
            peer.take(len(body or b""))
            peer.ok()

    with Scripted(serve) as server:
        connection = driver.connect(Place("127.0.0.1", server.port, spelling=Spelling(True, True)))
        lines = [] if body is None else [(b"content-length", b"4")]
        request = get(b"/a", (b"x-b", b"c"), *lines)
        request.body = body
        assert driver.read(driver.send(connection, request)) == b"ok"
        connection.close()
    assert heads[0].split(b"\r\n")[:3] == [b"GET http://test/a HTTP/1.1", b"Host: test", b"X-B: c"]
