"""gRPC servers in the mesh: interceptors for ``grpc.server`` and ``grpc.aio.server``.

    server = grpc.server(pool, interceptors=[meshlib.grpc.ServerInterceptor()])
    server = grpc.aio.server(interceptors=[meshlib.grpc.aio.ServerInterceptor()])

Calls of the mesh that a handler makes carry the trace and the request id of the call that it serves on, and end with its
deadline. A handler stays of the kind that it is, and messages pass as they are.

A handler of one answer runs from one end to the other in one context, where the call being served is set and put back. A
generator of answers runs whenever the server asks for the next: a blocking one, which a server may drive from several threads
of its pool, in a context of its call's own, so that nothing that it sets stays with a thread; an asynchronous one in its
driver's, as asyncio has it, where the call is set for each step.
"""

from __future__ import annotations

import functools
import inspect
from contextvars import copy_context
from time import monotonic
from types import GeneratorType
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from meshlib.inbound import enter, leave, of_metadata, reset
from meshlib.mesh import runtime_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from contextvars import Context

    from meshlib.inbound import Inbound
    from meshlib.mesh import Mesh

    # Generic in the stubs only.
    Base = grpc.ServerInterceptor[Any, Any]
    AioBase = grpc.aio.ServerInterceptor[Any, Any]
    Handler = grpc.RpcMethodHandler[Any, Any]
else:
    Base, AioBase = grpc.ServerInterceptor, grpc.aio.ServerInterceptor

__all__ = ["AioServerInterceptor", "ServerInterceptor"]

Behaviour = TypeVar("Behaviour", bound="Callable[..., Any]")


class ServerInterceptor(Base):
    """For ``grpc.server(…, interceptors=[…])``: handlers run within the call that they serve. Thread-safe; starts nothing.

    Interceptors that stand before it in the list run outside of the call, those behind it within.

    Args:
        mesh: Whose rules hold for calls made while serving that name no mesh; None: ``meshlib.default()``. Raises TypeError
            for what is none.
    """

    def __init__(self, *, mesh: Mesh | None = None) -> None:
        runtime_of(mesh)
        self._mesh = mesh

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = continuation(handler_call_details)
        if handler is None:
            return None
        return _within(handler, functools.partial(_arrived, handler_call_details, self._mesh), _blocking)


class AioServerInterceptor(AioBase):
    """:class:`ServerInterceptor` for ``grpc.aio.server(interceptors=[…])``: handlers that are coroutines, asynchronous generators,
    and plain functions, which run in the server's pool of threads.
    """

    def __init__(self, *, mesh: Mesh | None = None) -> None:
        runtime_of(mesh)
        self._mesh = mesh

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        handler = await continuation(handler_call_details)
        if handler is None:  # nobody has the method
            return handler  # type: ignore[unreachable]
        return _within(handler, functools.partial(_arrived, handler_call_details, self._mesh), _any)


def _arrived(details: grpc.HandlerCallDetails, mesh: Mesh | None, context: Any) -> Inbound:
    """What the call says of itself. ``grpc-timeout`` does not come with the metadata: grpc keeps that deadline, and tells it."""
    return of_metadata(details.invocation_metadata or (), context.time_remaining(), monotonic(), mesh)


def _within(
    handler: Handler,
    arrived: Callable[[Any], Inbound],
    wrapped: Callable[[Any, Callable[[Any], Inbound], bool], Any],
) -> Handler:
    """The same handler, whose behaviour runs within the call."""
    streams = handler.response_streaming
    kind = f"{'stream' if handler.request_streaming else 'unary'}_{'stream' if streams else 'unary'}"
    behaviour = wrapped(getattr(handler, kind), arrived, streams)
    made: Handler = getattr(grpc, f"{kind}_rpc_method_handler")(
        behaviour, handler.request_deserializer, handler.response_serializer
    )
    return made


def _blocking(behaviour: Any, arrived: Callable[[Any], Inbound], streams: bool) -> Any:
    if not streams:
        return _answering(behaviour, arrived)
    if getattr(behaviour, "experimental_non_blocking", False):
        return _sending(behaviour, arrived)
    return _generating(behaviour, arrived)


def _any(behaviour: Any, arrived: Callable[[Any], Inbound], streams: bool) -> Any:
    """By what grpc.aio itself tells the kinds of handlers apart."""
    if inspect.iscoroutinefunction(behaviour):
        return _awaiting(behaviour, arrived)
    if streams and inspect.isasyncgenfunction(behaviour):
        return _generating_later(behaviour, arrived)
    return _generating(behaviour, arrived) if streams else _answering(behaviour, arrived)


# --- blocking handlers -------------------------------------------------------------------------------------------------


def _answering(behaviour: Behaviour, arrived: Callable[[Any], Inbound]) -> Behaviour:
    """One answer."""

    @functools.wraps(behaviour)
    def serving(message: Any, context: Any) -> Any:
        request = arrived(context)
        token = enter(request)
        try:
            return behaviour(message, context)
        finally:
            reset(token)
            request.answered = True

    return serving  # type: ignore[return-value]


def _generating(behaviour: Behaviour, arrived: Callable[[Any], Inbound]) -> Behaviour:
    """An iterator of answers."""

    @functools.wraps(behaviour)
    def serving(message: Any, context: Any) -> Any:
        request, within = arrived(context), copy_context()
        within.run(enter, request)
        try:
            return _answers(within.run(behaviour, message, context), within, request)
        except BaseException:
            request.answered = True
            raise

    return serving  # type: ignore[return-value]


def _answers(answers: Any, within: Context, request: Inbound) -> Iterator[Any]:
    try:
        iterator = within.run(iter, answers)
        while True:
            try:
                answer = within.run(next, iterator)
            except StopIteration:
                break
            yield answer
    finally:
        try:
            if isinstance(answers, GeneratorType):  # what it has to clean up belongs to the call, too
                within.run(answers.close)
        finally:
            request.answered = True


def _sending(behaviour: Behaviour, arrived: Callable[[Any], Inbound]) -> Behaviour:
    """Answers that are handed to grpc's callback, now or later, from any thread; None is the end. The health service of
    grpcio-health-checking is such a handler.
    """

    @functools.wraps(behaviour)
    def serving(message: Any, context: Any, send: Callable[[Any], None]) -> Any:
        request = arrived(context)

        def sending(answer: Any) -> None:
            if answer is None:
                request.answered = True
            send(answer)

        token = enter(request)
        try:
            return behaviour(message, context, sending)
        except BaseException:
            request.answered = True
            raise
        finally:
            reset(token)

    return serving  # type: ignore[return-value]


# --- asyncio's ---------------------------------------------------------------------------------------------------------


def _awaiting(behaviour: Behaviour, arrived: Callable[[Any], Inbound]) -> Behaviour:
    """A coroutine: it gives one answer, or reads and writes a stream by itself."""

    @functools.wraps(behaviour)
    async def serving(message: Any, context: Any) -> Any:
        request = arrived(context)
        token = enter(request)
        try:
            return await behaviour(message, context)
        finally:
            leave(token)
            request.answered = True

    return serving  # type: ignore[return-value]


def _generating_later(behaviour: Behaviour, arrived: Callable[[Any], Inbound]) -> Behaviour:
    """An asynchronous generator of answers."""

    @functools.wraps(behaviour)
    async def serving(message: Any, context: Any) -> AsyncIterator[Any]:
        request = arrived(context)
        answers = behaviour(message, context)
        try:
            while True:
                token = enter(request)
                try:
                    answer = await anext(answers)
                except StopAsyncIteration:
                    break
                finally:
                    leave(token)
                yield answer
        finally:
            token = enter(request)
            try:
                await answers.aclose()
            finally:
                leave(token)
                request.answered = True

    return serving  # type: ignore[return-value]
