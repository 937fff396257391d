"""The gRPC channel to a control plane: options, credentials, and whether this process may open one at all."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meshlib.xds.bootstrap import ChannelKind

if TYPE_CHECKING:
    import grpc

    from meshlib.xds.bootstrap import Server

__all__ = ["GEVENT", "OPTIONS", "gevent_refusal", "open_channel"]

#: ST-06: keepalive every 5 min, 20 s for its answer. ST-13: no limit on what is received; the CDS or EDS of a mesh is
#: large. A channel serves one stream, and the next try is a new channel's (ST-04), so that grpc's own backoff never
#: matters; ``min_reconnect_backoff_ms`` is how long a connection and its handshakes may take. A subchannel pool of its own
#: keeps an old attempt's backoff away from a new one.
OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.keepalive_time_ms", 300_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.enable_retries", 0),
)

GEVENT = (
    "meshlib: threading is patched by gevent, and grpc is not prepared for that: a control-plane stream would freeze "
    "every greenlet. Remedy: call grpc.experimental.gevent.init_gevent() right after gevent.monkey.patch_all()"
)


def gevent_refusal() -> str:
    """Why no stream may be opened here, or ``""``."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched("threading"):
        return ""
    cygrpc = sys.modules.get("grpc._cython.cygrpc")
    return "" if getattr(cygrpc, "g_gevent_activated", False) else GEVENT


def open_channel(server: Server) -> grpc.Channel:
    """A new channel; nothing is connected yet. Reads certificate files anew. Raises OSError where it cannot."""
    import grpc

    if server.channel.kind is ChannelKind.INSECURE:
        return grpc.insecure_channel(server.uri, options=OPTIONS)
    credentials = grpc.ssl_channel_credentials(
        root_certificates=_bytes(server.channel.ca_file),
        private_key=_bytes(server.channel.key_file),
        certificate_chain=_bytes(server.channel.cert_file),
    )
    return grpc.secure_channel(server.uri, credentials, options=OPTIONS)


def _bytes(path: str) -> bytes | None:
    return Path(path).read_bytes() if path else None
