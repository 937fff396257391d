"""How the calls of one blocking channel leave, in one process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from meshlib.errors import NoHealthyEndpoint
from meshlib.hosts.grpc.errors import Ended, local_end, number
from meshlib.hosts.grpc.request import Answer, metadata_of
from meshlib.hosts.grpc.subchannels import Settings, Subchannel, Subchannels
from meshlib.hosts.grpc.unary import make_direct
from meshlib.model.headers import Headers
from meshlib.runtime import own_channels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meshlib.core.attempt import Send
    from meshlib.core.effects import Direct
    from meshlib.hosts.grpc.request import Request
    from meshlib.hosts.grpc.target import Target
    from meshlib.pools.bounds import Bounds
    from meshlib.runtime.runtime import Runtime

__all__ = ["GrpcWire", "trailers"]

_UNKNOWN: Any = object()


def _open(target: str, options: Sequence[tuple[str, Any]], settings: Settings) -> grpc.Channel:
    return own_channels.channel(target, options, settings.credentials, settings.compression)


def _state(channel: Any, connect: bool) -> int:
    return int(channel._channel.check_connectivity_state(connect))


def _close(channel: grpc.Channel) -> None:
    channel.close()


class GrpcWire:
    """:class:`meshlib.hosts.protocol.Wire`. Thread-safe."""

    def __init__(self, target: Target, settings: Settings, runtime: Runtime) -> None:
        self._target = target
        self._settings = settings
        self.subchannels: Subchannels[grpc.Channel] = Subchannels(
            runtime, settings, _open, _state, _close, runtime.worker.later, _close
        )

    @property
    def own(self) -> Subchannel[grpc.Channel]:
        """The channel to the target as it is."""
        subchannels = self.subchannels
        own = subchannels.own
        if own is None:
            with subchannels._lock:
                own = subchannels.own
                if own is None:
                    settings = self._settings
                    own = subchannels.own = Subchannel(
                        _open(self._target.text, settings.options, settings), None, None
                    )
        return own

    def own_for(self, user: object) -> Subchannel[grpc.Channel]:
        """The same, for a call that is told among its users until it is over: no fork closes it before it is."""
        while True:
            own = self.own
            own.users[user] = None
            if self.subchannels.own is own:
                return own
            del own.users[user]  # a fork has closed it meanwhile

    def send(self, request: Request, attempt: Send, bounds: Bounds) -> Answer:
        sub = self.subchannel(attempt)
        seconds = bounds.left("read")
        bounds.sent = True
        wait = False if request.wait_for_ready is False else None
        try:
            return self._made(request, sub, seconds, metadata_of(request, attempt.head.headers.raw), wait)
        except grpc.RpcError as error:
            if error.initial_metadata() and request.call is not None:
                request.call.replayable = False  # its headers came before its status: RT-05
            return self.refused(error, sub)

    def direct(self, request: Request, call: Direct, bounds: Bounds) -> Answer:
        sub, metadata, seconds = self.own_for(request), request.metadata or None, request.timeout
        if call.head is not None:
            metadata, seconds = metadata_of(request, call.head.headers.raw), bounds.left("read")
        bounds.sent = True
        try:
            return self._made(request, sub, seconds, metadata, request.wait_for_ready)
        except grpc.RpcError as error:
            if call.head is None:
                raise
            return self.refused(error, sub)
        finally:
            del sub.users[request]

    def subchannel(self, attempt: Send) -> Subchannel[grpc.Channel]:
        """Where an attempt goes. Raises NoHealthyEndpoint for TLS that is demanded and cannot be had."""
        if attempt.endpoint.tls is not None and not self._settings.secure:
            cluster = attempt.upstream.cluster.name
            raise NoHealthyEndpoint(
                f"cluster {cluster!r} demands TLS, and the channel has no credentials: give it some"
            )
        return self.subchannels.get(attempt)

    def refused(self, error: Any, sub: Subchannel[grpc.Channel]) -> Answer:
        """What an RPC that failed is: an answer of the server, or raised, an end that the core made."""
        code = error.code()
        kind = local_end(code, error.details(), lambda: _state(sub.channel, False) == 2)
        if kind is None:
            return Answer(number(code), error=error, headers=trailers(error.trailing_metadata()))
        if sub.endpoint is not None and kind.value == "connect":
            self.subchannels.unconnected(sub)
        raise Ended(kind, error) from error

    def discard(self, response: Answer) -> None:
        """It is over already."""

    def close(self) -> None:
        self.subchannels.close()

    def _made(
        self,
        request: Request,
        sub: Subchannel[grpc.Channel],
        seconds: float | None,
        metadata: Any,
        wait: bool | None,
    ) -> Answer:
        method = request.method
        if not (request.with_call or request.messages or request.compression or wait):
            direct = sub.direct.get(method, _UNKNOWN)
            if direct is _UNKNOWN:
                direct = sub.direct[method] = make_direct(sub.callable(method), method)
            if direct is not None:
                return Answer(0, direct(request.message, seconds, metadata, request.credentials, wait))
        made = sub.callable(method)
        if request.with_call:
            value, call = made.with_call(
                request.sending(), seconds, metadata, request.credentials, wait, request.compression
            )
            return Answer(0, value, call)
        return Answer(
            0, made(request.sending(), seconds, metadata, request.credentials, wait, request.compression)
        )


def trailers(metadata: Any) -> Headers | None:
    """Trailing metadata, as far as it is text."""
    if not metadata:
        return None
    return Headers.of(*((key, value) for key, value in metadata if isinstance(value, str)))
