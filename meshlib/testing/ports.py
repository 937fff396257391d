"""Loopback ports that stay ours while nobody listens on them.

A server that is down for a while must find its port again. Left alone, the port may become the local end of
somebody's outgoing connection meanwhile; a client that keeps trying to connect to it can even meet itself. So a
socket is bound to it and does not listen: who connects is refused, and the kernel gives the port to nobody else.
Sockets share a port only if all of them have SO_REUSEPORT; where a system lacks that, nothing is reserved.
"""

from __future__ import annotations

import errno
import socket

__all__ = ["bind", "refuse_taken", "reserve"]

_HOST = "127.0.0.1"


def bind(port: int) -> socket.socket:
    """A socket bound to that port of 127.0.0.1 (0: a free one). Raises OSError."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "SO_REUSEPORT"):
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((_HOST, port))
    except BaseException:
        bound.close()
        raise
    return bound


def reserve(port: int) -> socket.socket | None:
    """A socket that keeps the port until it is closed."""
    return bind(port) if hasattr(socket, "SO_REUSEPORT") else None


def refuse_taken(port: int) -> None:
    """Raises OSError if somebody listens on the port: sharing it unseen would be worse."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        if port and probe.connect_ex((_HOST, port)) == 0:
            raise OSError(errno.EADDRINUSE, f"somebody listens on {_HOST}:{port}")
