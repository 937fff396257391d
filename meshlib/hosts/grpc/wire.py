"""How the calls of one blocking channel leave, in one process."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc

from meshlib.core.hedging import UNREACHED
from meshlib.hosts.grpc.errors import LATE, Ended, local_end, number
from meshlib.hosts.grpc.request import Answer, measure, metadata_of, trailers
from meshlib.hosts.grpc.subchannels import Subchannels
from meshlib.hosts.grpc.unary import make_direct
from meshlib.model.call import OutcomeKind
from meshlib.pools.bounds import HedgedBounds
from meshlib.runtime import own_channels, threads
from meshlib.sources.channel import gevent_refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meshlib.core.attempt import Send
    from meshlib.core.effects import Direct
    from meshlib.hosts.grpc.out_of_band import Begin
    from meshlib.hosts.grpc.request import Request
    from meshlib.hosts.grpc.settings import Settings
    from meshlib.hosts.grpc.subchannel import Subchannel
    from meshlib.hosts.grpc.target import Target
    from meshlib.pools.bounds import Bounds
    from meshlib.runtime.runtime import Runtime

__all__ = ["GrpcWire"]

_UNKNOWN: Any = object()


def _open(
    target: str, options: Sequence[tuple[str, Any]], credentials: Any, compression: Any
) -> grpc.Channel:
    return own_channels.channel(target, options, credentials, compression)


def _state(channel: Any, connect: bool) -> int:
    return int(channel._channel.check_connectivity_state(connect))


def _close(channel: grpc.Channel) -> None:
    channel.close()


def _stream(channel: grpc.Channel) -> Begin:
    """Streams of load reports, each with a thread that reads it."""

    def begin(
        request: bytes, heard: Callable[[bytes], object], ended: Callable[[bool], object]
    ) -> Callable[[], object]:
        from meshlib.xds.schema import ORCA

        call = channel.unary_stream(ORCA, None, None)(request, wait_for_ready=True)

        def read() -> None:
            unimplemented = False
            try:
                for raw in call:
                    heard(raw)
            except grpc.RpcError as error:
                unimplemented = error.code() is grpc.StatusCode.UNIMPLEMENTED
            ended(unimplemented)

        threads.start(threading.Thread(target=read, name="meshlib-orca", daemon=True))
        return call.cancel

    return begin


class _Stop:
    """Cancels one RPC, also where it is rung for while the RPC begins. Any thread may ring."""

    __slots__ = ("_call", "_rung")

    def __init__(self) -> None:
        self._call: Any = None
        self._rung = False

    def begun(self, call: Any) -> None:
        self._call = call
        if self._rung:
            call.cancel()

    def ring(self) -> None:
        self._rung = True
        call = self._call
        if call is not None:
            call.cancel()


def _alone(bounds: HedgedBounds | None) -> HedgedBounds | None:
    return None if bounds is None else bounds.keep()


class GrpcWire:
    """:class:`meshlib.hosts.protocol.Wire`. Thread-safe."""

    def __init__(self, target: Target, settings: Settings, runtime: Runtime) -> None:
        self._settings = settings
        self.subchannels: Subchannels[grpc.Channel] = Subchannels(
            runtime,
            target,
            settings,
            _open,
            _state,
            _close,
            runtime.worker.later,
            _close,
            _stream,
            gevent_refusal,
        )

    def send(self, request: Request, attempt: Send, bounds: Bounds) -> Answer:
        if request.renews:
            self._settings.renewed(request)
        sub = self.subchannels.get(attempt, attempt)
        seconds = bounds.left("read")
        bounds.sent = True
        wait = False if request.wait_for_ready is False else None
        try:
            metadata = metadata_of(request, attempt.head.headers.raw)
            if not attempt.pick.listens:
                return self._made(bounds, request, sub, seconds, metadata, wait)
            answer = self._made(bounds, request, sub, seconds, metadata, wait, whole=True)
            measure(attempt.pick, answer.call.trailing_metadata())
            return answer
        except grpc.RpcError as error:
            if attempt.pick.listens:
                measure(attempt.pick, error.trailing_metadata())
            if error.initial_metadata() and request.call is not None:
                request.call.replayable = False  # its headers came before its status: RT-05
            attempt.error = error
            return self.refused(request, error, sub)
        finally:
            del sub.users[attempt]

    def direct(self, request: Request, call: Direct, bounds: Bounds) -> Answer:
        sub, metadata, seconds = self.subchannels.own_for(request), request.metadata or None, request.timeout
        if call.head is not None:
            metadata, seconds = metadata_of(request, call.head.headers.raw), bounds.left("read")
        bounds.sent = True
        try:
            return self._made(bounds, request, sub, seconds, metadata, request.wait_for_ready)
        except grpc.RpcError as error:
            if call.head is None:
                raise
            return self.refused(request, error, sub)
        finally:
            del sub.users[request]

    def refused(self, request: Request, error: Any, sub: Subchannel[grpc.Channel]) -> Answer:
        """What an RPC that failed is: an answer of the server, or raised, an end that the core made."""
        code = error.code()
        connected = partial(self.subchannels.connected, sub)
        trailing = error.trailing_metadata()
        brings = self._settings.brings_credentials(request.credentials) and not trailing
        kind = local_end(code, error.details(), connected, request.messages, credentials=brings)
        if kind is None:
            return Answer(number(code), error=error, headers=trailers(trailing))
        if sub.endpoint is None or kind not in UNREACHED:
            raise Ended(kind, error) from error
        words = sub.why(error.details())
        self.subchannels.unconnected(sub, words, kind)
        raise Ended(kind, error, words) from error

    def discard(self, response: Answer) -> None:
        """It is over already."""

    def close(self) -> None:
        self.subchannels.close()

    def _made(
        self,
        bounds: Bounds,
        request: Request,
        sub: Subchannel[grpc.Channel],
        seconds: float | None,
        metadata: Any,
        wait: bool | None,
        *,
        whole: bool = False,
    ) -> Answer:
        """``whole``: the answer has its call, which knows the trailing metadata."""
        method, credentials = request.method, sub.credentials(request.credentials)
        if bounds.alarmed:  # a virtual clock, which says when it ends, not grpc's
            begin = sub.callable(method).future
            messages, reader = request.messages, None
            if messages is not None and isinstance(bounds, HedgedBounds):
                reader, messages.alone = bounds, _alone
            sending, stop = request.sending(reader), _Stop()
            try:
                # Rung for before it begins: from then on it may be given up, and is not to be forgotten.
                with bounds.ringing(stop.ring):
                    call = begin(sending, seconds, metadata, credentials, wait, request.compression)
                    stop.begun(call)
                    return Answer(0, call.result(), call)
            except TimeoutError:
                raise Ended(OutcomeKind.TIMEOUT, TimeoutError(LATE)) from None
            finally:
                if reader is not None and messages is not None:
                    messages.drop(reader)
        if not (whole or request.with_call or request.messages or request.compression or wait):
            direct = sub.direct.get(method, _UNKNOWN)
            if direct is _UNKNOWN:
                direct = sub.direct[method] = make_direct(sub.callable(method), method)
            if direct is not None:
                return Answer(0, direct(request.message, seconds, metadata, credentials, wait))
        made = sub.callable(method)
        if whole or request.with_call:
            value, call = made.with_call(
                request.sending(), seconds, metadata, credentials, wait, request.compression
            )
            return Answer(0, value, call)
        return Answer(0, made(request.sending(), seconds, metadata, credentials, wait, request.compression))
