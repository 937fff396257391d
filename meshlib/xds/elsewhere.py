"""Control planes that a resource names (``google_grpc`` in an api_config_source), by the rule of gRFC A102. Pure.

A server that is not trusted may name those that the bootstrap allows, and is believed nothing of how they are reached. One that is
trusted may name any, with the credentials that are supported here and with metadata for its calls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from meshlib.errors import ConfigError
from meshlib.xds.bootstrap import Bootstrap, Channel, Server
from meshlib.xds.schema import WireMessage

__all__ = ["MOST", "Sources"]

#: Such servers at most: who is trusted may still go wrong, and each costs a stream.
MOST = 16
_PLAIN = "envoy.extensions.grpc_service.channel_credentials.insecure.v3.InsecureCredentials"
_NAME = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.")


class Sources:
    """What the resources of ``server`` say of others. ``put`` is told of each (`Elsewhere`); ``known``: those that there are; ``there``:
    whether something is at a path.
    """

    def __init__(
        self,
        bootstrap: Bootstrap,
        server: Server,
        put: Callable[[str, str, Server | None], object],
        known: Callable[[], Sequence[Server]],
        there: Callable[[str], bool],
    ) -> None:
        self._bootstrap = bootstrap
        self._server = server
        self._put = put
        self._known = known
        self._there = there

    def refuses(self, service: WireMessage) -> str:
        try:
            self._server_of(service)
        except ConfigError as problem:
            return str(problem)
        return ""

    def put(self, short: str, name: str, service: WireMessage | None) -> None:
        self._put(short, name, None if service is None else self._server_of(service))

    def absent(self, path: str) -> bool:
        return not self._there(path)

    def _server_of(self, service: WireMessage) -> Server:
        """Raises ConfigError for one that is not asked."""
        made = self._said(service)
        known = self._known()
        if made not in known and len(known) >= MOST:
            raise ConfigError(f"more than {MOST} other control planes are not asked")
        return made

    def _said(self, service: WireMessage) -> Server:
        target = str(service.google_grpc.target_uri)
        channel = self._bootstrap.side_channel(self._server, target)
        options = self._server.options
        if channel is not None:
            return Server(target, channel, options=options)
        channel = self._bootstrap.services.get(target) or _channel_said(service.google_grpc)
        metadata = tuple((str(each.key), str(each.value)) for each in service.initial_metadata)
        if not all(map(_sendable, metadata)):
            raise ConfigError("its initial_metadata cannot be sent")
        return Server(target, channel, metadata=metadata, options=options)


def _channel_said(held: WireMessage) -> Channel:
    """As the resource says; without a word of it in plain text, as Envoy. Raises ConfigError for what is not supported."""
    plugins = [str(each.type_url).rpartition("/")[2] for each in held.channel_credentials_plugin]
    if _PLAIN in plugins or not (plugins or held.HasField("channel_credentials")):
        return Channel()
    raise ConfigError(
        "its channel credentials are not supported: say how it is reached in allowed_grpc_services"
    )


def _sendable(entry: tuple[str, str]) -> bool:
    name, value = entry
    known = (
        bool(name) and _NAME.issuperset(name) and not name.startswith("grpc-") and not name.endswith("-bin")
    )
    return known and value.isascii() and value.isprintable()
