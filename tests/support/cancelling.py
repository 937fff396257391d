"""Calls of many kinds that are cancelled at any moment, once or twice; and how each ended."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

from meshlib.testing.orders import ORDER_HEADER

__all__ = ["KINDS", "TASKS", "cancelled_calls"]

#: At once. More than the mesh opens connections, so that most wait for one.
TASKS = 100
#: Seconds that the bodies of streams take at the server.
_BODY = 0.04
_URL = "http://reviews/"

#: A whole call; it yields once there is a response.
Kind = Callable[[Any], AsyncIterator[None]]


def _ordered(**order: Any) -> dict[str, str]:
    return {ORDER_HEADER: json.dumps(order)}


async def _read(client: Any) -> AsyncIterator[None]:
    assert (await client.get(_URL)).status_code == 200
    yield


async def _waits_for_the_head(client: Any) -> AsyncIterator[None]:
    assert (await client.get(_URL, headers=_ordered(delay=0.01))).status_code == 200
    yield


async def _is_tried_again(client: Any) -> AsyncIterator[None]:
    assert (await client.get(_URL, headers=_ordered(status=503))).status_code == 503
    yield


async def _uploads(client: Any) -> AsyncIterator[None]:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * 1000
            await asyncio.sleep(0)

    assert (await client.post(_URL, content=parts())).json()["body_length"] == 3000
    yield


async def _streams(client: Any) -> AsyncIterator[None]:
    async with client.stream("GET", _URL, headers=_ordered(chunks=5, chunk_delay=0.01)) as response:
        yield
        async for _ in response.aiter_raw():
            pass


async def _leaves_a_stream(client: Any) -> AsyncIterator[None]:
    headers = _ordered(chunks=3, chunk_delay=0.01, body="x" * 100_000)
    async with client.stream("GET", _URL, headers=headers) as response:
        yield
        async for _ in response.aiter_raw():
            break


STREAMS: tuple[Kind, ...] = (_streams, _leaves_a_stream)
KINDS: tuple[Kind, ...] = (_read, _waits_for_the_head, _is_tried_again, _uploads, *STREAMS)


class _Pace:
    """How long calls take here, those of a kind on the average: a call is cancelled within that time, and a little more."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._seconds = dict.fromkeys(KINDS, 0.05)

    def kind(self) -> Kind:
        return self._chance.choice(KINDS)

    def one_in(self, number: int) -> bool:
        return self._chance.random() < 1 / number

    def took(self, kind: Kind, seconds: float) -> None:
        self._seconds[kind] += (seconds - self._seconds[kind]) / 8

    def moment(self, kind: Kind) -> float:
        return 0.0 if self.one_in(8) else self._chance.random() * 1.2 * self._seconds[kind]

    def moment_of_a_body(self) -> float:
        """As often the next step as some time of it: where a turn of the loop takes as long as a body, all of it is there by then."""
        return 0.0 if self.one_in(2) else self._chance.random() * _BODY


async def cancelled_calls(client: Any, number: int, seed: int) -> Counter[str]:
    """``number`` calls that are cancelled, and one in five between them that is not and must succeed: how those that were
    cancelled ended, ``"begun"`` or ``"answered"`` if they were cancelled before or after the response, ``"whole"`` if too late.
    """
    loop, pace = asyncio.get_running_loop(), _Pace(seed)
    ends: Counter[str] = Counter()
    begun = 0

    async def cancelled(kind: Kind) -> None:
        reached, in_the_body = "begun", kind in STREAMS and pace.one_in(2)

        async def one() -> None:
            nonlocal reached
            async for _ in kind(client):
                reached = "answered"
                if in_the_body:
                    moment = pace.moment_of_a_body()
                    if moment:
                        loop.call_later(moment, task.cancel)
                    else:
                        task.cancel()
            reached = "whole"

        task = asyncio.ensure_future(one())
        if not in_the_body:
            loop.call_later(pace.moment(kind), task.cancel)
        if pace.one_in(4):  # again, perhaps while it cleans up
            loop.call_later(pace.moment(kind), task.cancel)
        [ended] = await asyncio.gather(task, return_exceptions=True)
        if ended is not None and not isinstance(ended, asyncio.CancelledError):
            raise ended
        ends[reached] += 1

    async def caller() -> None:
        nonlocal begun
        while begun < number:
            kind = pace.kind()
            if pace.one_in(6):
                began = loop.time()
                async for _ in kind(client):
                    pass
                pace.took(kind, loop.time() - began)
            else:
                begun += 1
                await cancelled(kind)

    await asyncio.gather(*(caller() for _ in range(TASKS)))
    return ends
