"""How the calls of one asyncio channel leave, in one event loop."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

from grpc import StatusCode
from grpc.aio import AioRpcError

from meshlib.hosts.grpc.subchannels import Subchannels
from meshlib.hosts.runtime import later
from meshlib.runtime import own_channels

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import grpc

    from meshlib.hosts.grpc.out_of_band import Begin
    from meshlib.hosts.grpc.settings import Settings
    from meshlib.hosts.grpc.target import Target
    from meshlib.runtime.runtime import Runtime

__all__ = ["AioGrpcWire"]


def _open(
    target: str, options: Sequence[tuple[str, Any]], credentials: Any, compression: Any
) -> grpc.aio.Channel:
    return own_channels.aio_channel(target, options, credentials, compression)


def _state(channel: grpc.aio.Channel, connect: bool) -> int:
    return int(channel.get_state(connect).value[0])


def _stream(loop: asyncio.AbstractEventLoop, channel: grpc.aio.Channel) -> Begin:
    """Streams of load reports, each a task of the loop."""

    def soon(call: Callable[[], object]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and all that ran in it is over
            loop.call_soon_threadsafe(call)

    def begin(
        request: bytes, heard: Callable[[bytes], object], ended: Callable[[bool], object]
    ) -> Callable[[], object]:
        from meshlib.xds.schema import ORCA

        tasks: list[asyncio.Task[None]] = []

        async def read() -> None:
            unimplemented = False
            try:
                async for raw in channel.unary_stream(ORCA)(request, wait_for_ready=True):
                    heard(raw)
            except AioRpcError as error:
                unimplemented = error.code() is StatusCode.UNIMPLEMENTED
            ended(unimplemented)

        soon(lambda: tasks.append(loop.create_task(read())))
        return lambda: soon(lambda: [task.cancel() for task in tasks])

    return begin


class AioGrpcWire:
    """Used by the tasks of one loop."""

    def __init__(self, target: Target, settings: Settings, runtime: Runtime) -> None:
        self.runtime = runtime
        self.loop = asyncio.get_running_loop()
        self._closing: set[asyncio.Task[None]] = set()
        clock = runtime.clock
        self.subchannels: Subchannels[grpc.aio.Channel] = Subchannels(
            runtime,
            target,
            settings,
            _open,
            _state,
            self._close,
            lambda seconds, call: later(clock, seconds, call),
            self._rest,
            partial(_stream, self.loop),
        )

    def _close(self, channel: grpc.aio.Channel) -> None:
        task = self.loop.create_task(channel.close(None))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _rest(self, channel: grpc.aio.Channel) -> None:
        """Close one in the thread that forks; where its loop runs in another, that does it when it can."""
        try:
            here: object = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if self.loop.is_running() and here is not self.loop:
            self.loop.call_soon_threadsafe(self._close, channel)
        else:
            channel._channel.closing()
            channel._channel.close()

    async def aclose(self) -> None:
        """Close all at once."""
        self.subchannels.close()
        if self._closing:
            await asyncio.gather(*self._closing, return_exceptions=True)
