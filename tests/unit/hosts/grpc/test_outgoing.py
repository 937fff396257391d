"""What an asyncio channel's streams send: a message that the core does not take leaves the status to the core."""

from __future__ import annotations

import asyncio
from typing import Any

from grpc.aio import InternalError

from meshlib.hosts.grpc_aio.outgoing import Outgoing


class _Core:
    """Takes so many messages; then the RPC is over, and says why a little later."""

    def __init__(self, takes: int) -> None:
        self.takes = takes
        self.took: list[bytes] = []

    async def send_serialized_message(self, data: bytes) -> None:
        if len(self.took) == self.takes:
            raise InternalError('Failed "execute_batch"')
        self.took.append(data)


class _Attempt:
    """grpc's call, with no way to put a status of its own on it."""

    def __init__(self, takes: int) -> None:
        self._cython_call = _Core(takes)
        self._metadata_sent = asyncio.Event()
        self._metadata_sent.set()
        self.status: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.half_closed = 0

    def done(self) -> bool:
        return self.status.done()

    async def code(self) -> str:
        return await self.status

    async def done_writing(self) -> None:
        self.half_closed += 1
        if self._cython_call.takes == len(self._cython_call.took):
            raise InternalError('Failed "execute_batch"')


class _Request:
    call = None


def _outgoing() -> Outgoing:
    request: Any = _Request()
    return Outgoing(request, None)


def test_a_message_that_is_not_taken_is_sent_by_the_next_attempt() -> None:
    async def main() -> None:
        outgoing, first = _outgoing(), _Attempt(1)
        outgoing.feed(1, first)
        await outgoing.write(b"one")
        writing = asyncio.ensure_future(outgoing.write(b"two"))
        feeder = outgoing._feeders[1].task
        assert feeder is not None
        first.status.set_result("UNAVAILABLE")
        await feeder
        assert not writing.done()
        second = _Attempt(9)
        outgoing.drop(1)
        outgoing.feed(2, second)
        await writing
        assert (first._cython_call.took, second._cython_call.took) == ([b"one"], [b"one", b"two"])

    asyncio.run(main())


def test_a_writer_waits_for_the_status_of_a_committed_rpc() -> None:
    async def main() -> None:
        outgoing, attempt = _outgoing(), _Attempt(1)
        outgoing.feed(1, attempt)
        await outgoing.write(b"one")
        outgoing.commit()
        assert outgoing._feeders[1].task is not None
        await outgoing._feeders[1].task
        writing = asyncio.ensure_future(outgoing.write(b"two"))
        done, _ = await asyncio.wait([writing], timeout=0)
        assert not done
        attempt.status.set_result("OK")  # a server need not read all
        await writing
        assert attempt._cython_call.took == [b"one"]

    asyncio.run(main())


def test_an_rpc_that_is_over_needs_no_half_close() -> None:
    async def main() -> None:
        outgoing, attempt = _outgoing(), _Attempt(0)
        outgoing.feed(1, attempt)
        await outgoing.close()
        assert outgoing._feeders[1].task is not None
        await outgoing._feeders[1].task
        assert attempt.half_closed == 1

    asyncio.run(main())
