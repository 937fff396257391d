"""Calls that go through a channel's interceptors. grpc's own end at a channel of its core; these at a call of the mesh.

What grpc has for the application's side (callbacks, cancelling, its proxy for writes) is used as it is.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from grpc.aio import ClientCallDetails
from grpc.aio import _base_call as base
from grpc.aio import _interceptor as grpc_interceptor

from meshlib.hosts.info import call_info

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.model.call import CallInfo

__all__ = ["INTERCEPTED"]


class _Chain:
    """``_channel``: makes the call of the mesh, of its details and its message."""

    hook: str
    _channel: Callable[[ClientCallDetails, Any], Any]
    _made: Any = None  # the last call that an interceptor was given, or gave

    @property
    def _meshlib_info(self) -> CallInfo | None:
        return call_info(self._made)

    async def _invoke(
        self,
        interceptors: Any,
        method: bytes,
        timeout: float | None,
        metadata: Any,
        credentials: Any,
        wait_for_ready: bool | None,
        request: Any,
        request_serializer: Any,
        response_deserializer: Any,
    ) -> Any:
        del request_serializer, response_deserializer
        details = ClientCallDetails(method, timeout, metadata, credentials, wait_for_ready)
        return await self._run(list(interceptors), details, request)

    async def _run(self, interceptors: list[Any], details: ClientCallDetails, request: Any) -> Any:
        if not interceptors:
            self._made = self._channel(details, request)
            return self._made
        hook = getattr(interceptors[0], self.hook)
        found = await hook(partial(self._run, interceptors[1:]), details, request)
        if not isinstance(found, base.Call):
            found = self._wrap(found)
        self._made = found
        return found

    def _wrap(self, found: Any) -> Any:
        """A bare answer as a call."""
        return found


class UnaryUnary(_Chain, grpc_interceptor.InterceptedUnaryUnaryCall):
    hook = "intercept_unary_unary"

    def _wrap(self, found: Any) -> Any:
        return grpc_interceptor.UnaryUnaryCallResponse(found)


class UnaryStream(_Chain, grpc_interceptor.InterceptedUnaryStreamCall):
    hook = "intercept_unary_stream"

    def _wrap(self, found: Any) -> Any:
        return grpc_interceptor.UnaryStreamCallResponseIterator(self._made, found)


class StreamUnary(_Chain, grpc_interceptor.InterceptedStreamUnaryCall):
    hook = "intercept_stream_unary"


class StreamStream(_Chain, grpc_interceptor.InterceptedStreamStreamCall):
    hook = "intercept_stream_stream"

    def _wrap(self, found: Any) -> Any:
        return grpc_interceptor.StreamStreamCallResponseIterator(self._made, found)


INTERCEPTED: dict[str, Any] = {
    "unary_unary": UnaryUnary,
    "unary_stream": UnaryStream,
    "stream_unary": StreamUnary,
    "stream_stream": StreamStream,
}
