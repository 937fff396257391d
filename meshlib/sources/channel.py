"""The gRPC channel to a control plane: options, credentials, and whether this process may open one at all."""

from __future__ import annotations

import contextlib
import sys
import time
from os import getpid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meshlib.runtime import greenlets
from meshlib.runtime.process import grpc_keeps_out_of_forks
from meshlib.runtime.tokens import read_token
from meshlib.xds.bootstrap import ChannelKind

if TYPE_CHECKING:
    import grpc

    from meshlib.xds.bootstrap import Server

__all__ = [
    "FORK_OFF",
    "GEVENT",
    "OPTIONS",
    "call_metadata",
    "gevent_refusal",
    "note_fork",
    "open_channel",
    "refusal",
    "wait_quiet",
]

#: Options that the application may not have otherwise: a stream would work no more.
_OURS = (
    "grpc.use_local_subchannel_pool",
    "grpc.service_config_disable_resolution",
    "grpc.enable_retries",
)

#: ST-06: keepalive every 5 min, 20 s for its answer. ST-13: what is received may be large, as the CDS or EDS
#: of a mesh is; what is larger than that is none. A channel serves one stream, and the next try is a new channel's (ST-04), so that grpc's own backoff never
#: matters; ``min_reconnect_backoff_ms`` is how long a connection and its handshakes may take. A subchannel pool of its own
#: keeps an old attempt's backoff away from a new one.
OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.keepalive_time_ms", 300_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.max_receive_message_length", 512 * 2**20),
    ("grpc.max_send_message_length", -1),
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.enable_retries", 0),
)

GEVENT = (
    "meshlib: threading is patched by gevent, and grpc is not prepared for that: a gRPC call or a control-plane stream would "
    "freeze every greenlet. Remedy: call grpc.experimental.gevent.init_gevent() right after gevent.monkey.patch_all()"
)


FORK_OFF = (
    "this process is the fork of one in which grpc was in use, and GRPC_ENABLE_FORK_SUPPORT switches grpc's "
    "support for that off: a control-plane stream would crash or freeze it, so that it has none. Remedy: unset the "
    "variable, or use grpc (channels of the application, too) after the fork only"
)

#: The process that last forked while grpc was in use without its support for forks; 0: none. Descendants inherit it.
_left_by = 0


def note_fork() -> None:
    """Before a fork, in the parent, when our own channels are gone: what the child must know."""
    global _left_by  # noqa: PLW0603 - inherited by the child, and that is what it is for
    if _left_by in (0, getpid()):
        unsafe = "grpc" in sys.modules and grpc_keeps_out_of_forks() and bool(_grpc_threads())
        _left_by = getpid() if unsafe else 0


def refusal() -> str:
    """Why no stream may be opened in this process, or ``""``."""
    if _left_by not in (0, getpid()):
        return FORK_OFF
    return gevent_refusal()


def gevent_refusal() -> str:
    """Why grpc cannot be used in this process by a thread that waits, or ``""``."""
    if not greenlets.patched("threading"):
        return ""
    cygrpc = sys.modules.get("grpc._cython.cygrpc")
    return "" if getattr(cygrpc, "g_gevent_activated", False) else GEVENT


def wait_quiet(timeout: float) -> bool:
    """Wait until grpc's own threads are gone, at most ``timeout`` seconds; whether they are. They end a few milliseconds
    after the last channel was closed, and a fork before that is not safe: about one child in a hundred then hangs in
    making its own channel. Where other channels of this process live on they do not end. Without ``/proc`` it waits for
    as long as they usually take.
    """
    if "grpc" not in sys.modules:
        return True
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        names = _grpc_threads()
        if names is None:
            time.sleep(min(timeout, 0.1))
            return False
        if not names and not _gevent_busy():
            return True
        time.sleep(0.001)
    return False


def _gevent_busy() -> bool:
    """Whether a thread of gevent's pool may still hold the lock of grpc's queue of greenlets: the last channel's closing
    wakes one that waits there. A child would wait for that lock for ever. Threads that do other things count as well.
    """
    cygrpc = sys.modules.get("grpc._cython.cygrpc")
    pool = getattr(cygrpc, "g_gevent_threadpool", None)
    return pool is not None and len(pool) > 0


#: Names of grpc core's threads, as far as Linux keeps them (15 characters).
_GRPC_THREADS = ("event_engine", "grpc_", "lifeguard", "timer_manager", "default-executo", "resolver-execut")


def _grpc_threads() -> list[str] | None:
    """The names of grpc's own threads in this process; None where the system does not tell."""
    names = []
    try:
        for comm in Path("/proc/self/task").glob("*/comm"):
            with contextlib.suppress(OSError):  # that thread has just ended
                names.append(comm.read_text().strip())
    except OSError:
        return None
    return [name for name in names if name.startswith(_GRPC_THREADS)] if names else None


def open_channel(server: Server) -> grpc.Channel:
    """A new channel; nothing is connected yet. Reads certificate files anew. Raises OSError where it cannot."""
    import grpc

    from meshlib.runtime import own_channels

    options = _options(server)
    if server.channel.kind is ChannelKind.INSECURE:
        return own_channels.channel(server.uri, options, None)
    credentials = grpc.ssl_channel_credentials(
        root_certificates=_bytes(server.channel.ca_file),
        private_key=_bytes(server.channel.key_file),
        certificate_chain=_bytes(server.channel.cert_file),
    )
    return own_channels.channel(server.uri, options, credentials)


def call_metadata(server: Server) -> tuple[tuple[str, str], ...]:
    """What a call to a server has: what the configuration says, and its tokens, which are read anew. Raises OSError where a
    token cannot be had; its words never have it.
    """
    tokens = tuple(("authorization", f"Bearer {read_token(path)}") for path in server.channel.tokens)
    return (*server.metadata, *tokens)


def _options(server: Server) -> tuple[tuple[str, Any], ...]:
    """The application's stand in the place of ours (gRFC A110)."""
    theirs = {name: value for name, value in server.options if name not in _OURS}
    return tuple(({**dict(OPTIONS), **theirs}).items())


def _bytes(path: str) -> bytes | None:
    return Path(path).read_bytes() if path else None
