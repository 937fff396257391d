"""The content of a response that ends its call: read to its end, given up, lost, broken, or in an encoding that it is not in."""

from __future__ import annotations

import asyncio
import gc
import gzip
from collections.abc import Iterator
from typing import Any

import pytest

from meshlib.hosts.content import AsyncContent, Content, decoding
from meshlib.hosts.info import call_info
from meshlib.model.call import CallInfo
from meshlib.model.headers import Headers
from meshlib.wire.errors import ReadError, RemoteProtocolError


class Response:
    """As the wire's: parts, or an error among them."""

    def __init__(self, *parts: bytes | Exception) -> None:
        self.parts = parts
        self.said: list[str] = []

    def __iter__(self) -> Any:
        for part in self.parts:
            if isinstance(part, Exception):
                raise part
            yield part

    async def __aiter__(self) -> Any:
        for part in iter(self):
            yield part

    def close(self) -> None:
        self.said.append("closed")

    async def aclose(self) -> None:
        self.close()

    def abandon(self) -> None:
        self.said.append("abandoned")


class Call:
    def __init__(self) -> None:
        self.said: list[str] = []

    def end(self) -> None:
        self.said.append("ended")

    def abandon(self) -> None:
        self.said.append("abandoned")

    def broken(self, error: Exception) -> BaseException:
        self.said.append(f"broken by {type(error).__name__}")
        return ConnectionError("made of it")


class Reading:
    """Both kinds in the same words."""

    def __init__(self, kind: str, runner: asyncio.Runner) -> None:
        self.is_async = kind == "async"
        self.run = runner.run

    def make(self, *arguments: Any, **words: Any) -> Any:
        return (AsyncContent if self.is_async else Content)(*arguments, **words)

    def next(self, content: Any) -> bytes | None:
        if not self.is_async:
            return next(content, None)

        async def one() -> bytes | None:
            return await anext(content, None)

        return self.run(one())

    def all(self, content: Any) -> list[bytes]:
        found = []
        while (part := self.next(content)) is not None:
            found.append(part)
        return found

    def close(self, content: Any) -> None:
        if self.is_async:
            self.run(content.aclose())
        else:
            content.close()


@pytest.fixture(params=["blocking", "async"])
def reading(request: pytest.FixtureRequest) -> Iterator[Reading]:
    with asyncio.Runner() as runner:
        yield Reading(request.param, runner)


def test_reading_to_the_end_ends_the_call(reading: Reading) -> None:
    response, call, whole = Response(b"a", b"", b"b"), Call(), []
    content = reading.make(response, response, call, whole=lambda: whole.append(list(response.said)))
    assert [reading.next(content) for _ in range(4)] == [b"a", b"b", None, None]
    assert whole == [[]], "before it is closed, and once"
    assert (response.said, call.said) == (["closed"], ["ended"])
    reading.close(content)
    del content
    gc.collect()
    assert (response.said, call.said) == (["closed"], ["ended"])


def test_giving_up_ends_the_call(reading: Reading) -> None:
    response, call, whole = Response(b"a", b"b"), Call(), []
    content = reading.make(response, response, call, whole=lambda: whole.append(1))
    assert reading.next(content) == b"a"
    reading.close(content)
    assert (response.said, call.said, whole) == (["closed"], ["ended"], [])
    assert reading.next(content) is None


def test_what_is_lost_is_abandoned(reading: Reading) -> None:
    """Without a lock or a wait: the collector may run anywhere."""
    response, call = Response(b"a"), Call()
    content = reading.make(response, response, call)
    del content
    gc.collect()
    assert (response.said, call.said) == (["abandoned"], ["abandoned"])


def test_what_breaks_raises_what_the_call_makes_of_it(reading: Reading) -> None:
    response, call = Response(b"a", ReadError("gone")), Call()
    content = reading.make(response, response, call)
    assert reading.next(content) == b"a"
    with pytest.raises(ConnectionError, match="made of it") as caught:
        reading.next(content)
    assert isinstance(caught.value.__cause__, ReadError)
    assert call.said[0] == "broken by ReadError"
    assert response.said == ["closed"]
    assert reading.next(content) is None


def test_of_a_call_that_is_not_the_meshs_the_error_is_the_librarys(reading: Reading) -> None:
    response = Response(KeyError("theirs"))
    content = reading.make(response, response)
    with pytest.raises(KeyError):
        reading.next(content)
    assert response.said == ["closed"]


def test_what_is_made_here_has_only_parts(reading: Reading) -> None:
    info = CallInfo(via="mesh")
    content = reading.make([b"said"], info=info)
    assert call_info(content) is info
    assert [reading.next(content), reading.next(content)] == [b"said", None]


PLAIN = b"again and again" * 500


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_gzip_is_undone_part_by_part(reading: Reading, size: int) -> None:
    packed = gzip.compress(PLAIN)
    lines = Headers.of(("Content-Encoding", "gzip"), ("Content-Length", str(len(packed))), ("x-a", "1"))
    decode = decoding(lines)
    assert list(lines) == [("x-a", "1")]
    response = Response(*(packed[at : at + size] for at in range(0, len(packed), size)))
    parts = reading.all(reading.make(response, response, Call(), decode=decode))
    assert all(parts)
    assert b"".join(parts) == PLAIN


@pytest.mark.parametrize(
    "data",
    [b"this is no gzip", gzip.compress(PLAIN)[:-8] + b"somewhat", gzip.compress(PLAIN)[:-9]],
    ids=["none", "another checksum", "cut short"],
)
def test_what_is_not_in_its_encoding_is_the_peers_fault(reading: Reading, data: bytes) -> None:
    decode = decoding(Headers.of(("content-encoding", "gzip")))
    response, call = Response(data), Call()
    content = reading.make(response, response, call, decode=decode)
    with pytest.raises(ConnectionError):
        reading.all(content)
    assert call.said[0] == f"broken by {RemoteProtocolError.__name__}"


def test_where_nothing_comes_nothing_is_missing(reading: Reading) -> None:
    """The answer to HEAD says how it would be encoded."""
    decode = decoding(Headers.of(("content-encoding", "gzip")))
    assert reading.all(reading.make(Response(), Response(), Call(), decode=decode)) == []


@pytest.mark.parametrize("encoding", ["br", "identity", "gzip, br", ""])
def test_another_encoding_is_left_as_it_is(encoding: str) -> None:
    lines = Headers.of(("content-encoding", encoding), ("content-length", "3"))
    assert decoding(lines) is None
    assert len(lines) == 2
    assert decoding(Headers.of(("x-a", "1"))) is None
