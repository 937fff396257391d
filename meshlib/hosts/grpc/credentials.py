"""Whose TLS a connection to an endpoint has: the application's, the mesh's, or none (gRFC A29, TL-01).

    the application gave            where the mesh demands TLS        elsewhere
    ------------------------------  --------------------------------  -----------------
    nothing, or plain text          the mesh's                        plain text
    ``xds_channel_credentials(x)``  the mesh's                        x
    anything else                   what it gave                      what it gave

The mesh's is a tunnel's (:mod:`meshlib.hosts.grpc.tunnel`): grpc speaks plain text to a Unix socket of this process, over its
*local* credentials, so that it takes the connection for a secure one: credentials of calls are sent over it, as over TLS. Those are
told the wrong URL of their service then, without its scheme; they get the right one here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
from grpc._cython import cygrpc

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Given", "of_https"]

_PLAIN = (cygrpc.InsecureChannelCredentials, cygrpc.LocalChannelCredentials)


class Given:
    """What the application gave its channel.

    Attributes:
        secure: It brings TLS, whatever the mesh demands.
        elsewhere: Where the mesh demands none.
        tunnelled: Where it does, and ``secure`` is not set.
    """

    __slots__ = ("elsewhere", "secure", "tunnelled")

    def __init__(self, credentials: grpc.ChannelCredentials | None) -> None:
        inner, of_calls = _parted(None if credentials is None else credentials._credentials)
        fallback, of_fallback = inner, ()
        self.elsewhere = credentials
        if isinstance(inner, cygrpc.XDSChannelCredentials):
            fallback, of_fallback = _parted(inner._fallback_credentials)
            self.elsewhere = _joined(fallback, (*of_fallback, *of_calls))
        self.secure = inner is not None and inner is fallback and not isinstance(inner, _PLAIN)
        local = grpc.local_channel_credentials(grpc.LocalConnectionType.UDS)._credentials
        self.tunnelled = _joined(local, tuple(of_https(each) for each in of_calls))


def _parted(credentials: Any) -> tuple[Any, tuple[Any, ...]]:
    """Those of the channel, and those of its calls that come with them."""
    if isinstance(credentials, cygrpc.CompositeChannelCredentials):
        inner, of_calls = _parted(credentials._channel_credentials)
        return inner, (*of_calls, *credentials._call_credentialses)
    return credentials, ()


def _joined(channel: Any, of_calls: tuple[Any, ...]) -> grpc.ChannelCredentials:
    made = cygrpc.CompositeChannelCredentials(of_calls, channel) if of_calls else channel
    return grpc.ChannelCredentials(made)


# --- credentials of calls -------------------------------------------------------------------------------------------------


def of_https(credentials: Any) -> Any:
    """Call credentials of the core, whose plug-ins get a URL of https from what has none."""
    if isinstance(credentials, cygrpc.CompositeCallCredentials):
        return cygrpc.CompositeCallCredentials(
            tuple(of_https(each) for each in credentials._call_credentialses)
        )
    if isinstance(credentials, cygrpc.MetadataPluginCallCredentials):
        plugin = _OfHttps(credentials._metadata_plugin)
        return cygrpc.MetadataPluginCallCredentials(plugin, credentials._name)
    return credentials


class _OfHttps:
    """A plug-in as the core calls it: with the URL of the service, its method, and what takes the metadata."""

    def __init__(self, plugin: Callable[[bytes, bytes, Any], None]) -> None:
        self._plugin = plugin
        self._stored_ctx = getattr(plugin, "_stored_ctx", None)  # which the core calls it in

    def __call__(self, url: bytes, method: bytes, callback: Any) -> None:
        head, mark, rest = url.partition(b"://")
        if not head and mark:
            host, slash, path = rest.partition(b"/")
            # As the core: https's own port is not said.
            url = b"https://" + host.removesuffix(b":443") + slash + path
        self._plugin(url, method, callback)
