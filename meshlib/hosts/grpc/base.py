"""What blocking and asyncio channels have in common: what the application gave, and the factories that stubs ask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from meshlib.hosts.grpc.replay import LIMIT, LIMIT_OPTION
from meshlib.hosts.grpc.request import Method
from meshlib.hosts.grpc.subchannels import Settings
from meshlib.hosts.grpc.target import read_target

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import grpc

__all__ = ["BaseChannel"]


class BaseChannel:
    """``callables``: what a factory gives, by its name: made of the channel and the method."""

    callables: ClassVar[Mapping[str, Any]]

    def __init__(
        self,
        target: str,
        credentials: grpc.ChannelCredentials | None,
        options: Sequence[tuple[str, Any]] | None,
        compression: grpc.Compression | None,
    ) -> None:
        settings = self._settings = Settings(options or (), credentials, compression)
        self._target = read_target(target, settings.options, secure=settings.secure)
        sizes = (int(value) for name, value in reversed(settings.options) if name == LIMIT_OPTION)
        self._limit = next(sizes, LIMIT)
        self._closed = False

    def unary_unary(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,
    ) -> Any:
        return self._made(
            "unary_unary", method, request_serializer, response_deserializer, _registered_method
        )

    def unary_stream(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,
    ) -> Any:
        return self._made(
            "unary_stream", method, request_serializer, response_deserializer, _registered_method
        )

    def stream_unary(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,
    ) -> Any:
        return self._made(
            "stream_unary", method, request_serializer, response_deserializer, _registered_method
        )

    def stream_stream(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,
    ) -> Any:
        return self._made(
            "stream_stream", method, request_serializer, response_deserializer, _registered_method
        )

    def _made(self, kind: str, *method: Any) -> Any:
        return self.callables[kind](self, Method(kind, *method))
