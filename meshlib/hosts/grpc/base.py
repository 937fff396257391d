"""What blocking and asyncio channels have in common: what the application gave, and the factories that stubs ask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from meshlib.hosts.grpc.replay import LIMIT, LIMIT_OPTION
from meshlib.hosts.grpc.request import Method
from meshlib.hosts.grpc.settings import Settings
from meshlib.hosts.grpc.target import read_target

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import grpc

    from meshlib.core.exchange import Place

__all__ = ["BaseChannel"]


def _factory(kind: str) -> Any:
    def factory(
        self: BaseChannel,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,
    ) -> Any:
        made = Method(kind, method, request_serializer, response_deserializer, _registered_method)
        return self.callables[kind](self, made)

    factory.__name__ = kind
    factory.__qualname__ = f"BaseChannel.{kind}"
    return factory


class BaseChannel:
    """``callables``: what a factory gives, by its name: made of the channel and the method. ``place``: where calls go, where that is
    not for ``target`` to say.
    """

    callables: ClassVar[Mapping[str, Any]]

    def __init__(
        self,
        target: str,
        credentials: grpc.ChannelCredentials | None,
        options: Sequence[tuple[str, Any]] | None,
        compression: grpc.Compression | None,
        place: Place | None = None,
    ) -> None:
        settings = self._settings = Settings(options or (), credentials, compression)
        read = read_target(target, settings.options, secure=settings.given.secure)
        self._target = read if place is None else read._replace(place=place, strict=True, outside=False)
        sizes = (int(value) for name, value in reversed(settings.options) if name == LIMIT_OPTION)
        self._limit = next(sizes, LIMIT)
        self._closed = False

    unary_unary = _factory("unary_unary")
    unary_stream = _factory("unary_stream")
    stream_unary = _factory("stream_unary")
    stream_stream = _factory("stream_stream")
