"""What a connection fails with. A host library's error table says what each is there (``hosts/errors.py``).

WireError
├── ConnectError           not connected: no byte of the request can have left
│   └── ConnectTimeout
├── ReadError              the connection broke, or the peer ended it, before the response was whole
│   ├── Disconnected       the peer ended it, without an error of the network's
│   └── ReadTimeout
├── WriteError             it broke while the request was sent
│   └── WriteTimeout
├── RemoteProtocolError    the peer's bytes are no response that everybody reads alike
│   └── StreamRefused      the peer has not looked at the request (RFC 9113, 8.7; GOAWAY), so it may be sent again
├── TlsUnusable            the TLS that the mesh demands cannot be had: what it is made of is not there, or is wrong
├── LocalProtocolError     the request cannot be sent as it is; nothing left
└── UnsupportedProtocol    what would be needed for it is not there (h2)
"""

from __future__ import annotations

__all__ = [
    "ConnectError",
    "ConnectTimeout",
    "Disconnected",
    "LocalProtocolError",
    "ReadError",
    "ReadTimeout",
    "RemoteProtocolError",
    "StreamRefused",
    "TlsUnusable",
    "UnsupportedProtocol",
    "WireError",
    "WriteError",
    "WriteTimeout",
]


class WireError(Exception):
    """The root. Never seen by an application, whose errors are its host library's."""


class ConnectError(WireError):
    """No connection was made."""


class ConnectTimeout(ConnectError):
    """It was not made in time."""


class ReadError(WireError):
    """The connection broke before the response was whole."""


class Disconnected(ReadError):
    """The peer closed its half before the response was whole, or before it began."""


class ReadTimeout(ReadError):
    """No byte came in time."""


class WriteError(WireError):
    """The connection broke while the request was sent."""


class WriteTimeout(WriteError):
    """The peer took no byte in time."""


class RemoteProtocolError(WireError):
    """The peer's bytes are no response."""


class StreamRefused(RemoteProtocolError):
    """The peer has not looked at the request."""


class TlsUnusable(WireError):
    """The TLS that the mesh demands cannot be had. No endpoint is to blame for it."""


class LocalProtocolError(WireError):
    """The request cannot be sent as it is."""


class UnsupportedProtocol(WireError):
    """What would be needed is not installed."""
