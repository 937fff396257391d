"""Connections to an Envoy whose filter chains say their names and close, and what the core is told of them."""

from __future__ import annotations

import ipaddress
import random
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from meshlib.core.chains import Connection
from meshlib.testing import build
from tests.e2e.oracle.envoy_process import EnvoyProcess

__all__ = ["ADDRESSES", "INSPECTORS", "SERVERS", "at", "connected", "forwarded", "listening", "told"]

ADDRESSES = ("127.0.0.1", "127.0.0.2", "127.1.0.1", "127.1.2.3")
SERVERS = ("", "www.a.test", "x.www.a.test", "a.test", "b.test", "www.b.test", "other.example")
OFFERED = ((), ("http/1.1",), ("h2", "http/1.1"), ("y", "x", "h2"))
PLAIN = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
_TYPES = "type.googleapis.com/envoy.extensions.filters."
#: Of a listener: it looks into TLS, and which protocol plain text is.
INSPECTORS = [
    {
        "name": f"envoy.filters.listener.{kind}_inspector",
        "typed_config": {"@type": f"{_TYPES}listener.{kind}_inspector.v3.{kind.title()}Inspector"},
    }
    for kind in ("tls", "http")
]


def at(port: int, hosts: Sequence[str] = ADDRESSES) -> dict[str, Any]:
    """The addresses of a listener: the port at each of these."""
    first, *others = ({"address": build.socket_address(f"{host}:{port}")} for host in hosts)
    return {**first, "additional_addresses": others}


def told(name: str) -> list[dict[str, Any]]:
    kind = f"{_TYPES}network.direct_response.v3.Config"
    return [{"name": "told", "typed_config": {"@type": kind, "response": {"inline_string": name}}}]


def forwarded(name: str) -> list[dict[str, Any]]:
    kind = f"{_TYPES}network.tcp_proxy.v3.TcpProxy"
    return [{"name": "tcp", "typed_config": {"@type": kind, "stat_prefix": "s", "cluster": name}}]


@contextmanager
def listening(listeners: list[dict[str, Any]], folder: Path) -> Iterator[None]:
    """An Envoy with these."""
    bootstrap = {
        "admin": {"address": build.socket_address("127.0.0.1:0")},
        "static_resources": {"listeners": listeners},
    }
    with EnvoyProcess(bootstrap, folder) as envoy:
        envoy.wait_for_listeners(len(listeners))
        yield


def connected(draw: random.Random, port: int) -> tuple[Connection, str]:
    """One connection, drawn: what the core is told of it, and the name of the chain that took it, "" for none."""
    address, secure = draw.choice(ADDRESSES), draw.random() < 0.6
    server, offered = draw.choice(SERVERS), draw.choice(OFFERED)
    to = Connection(port, ipaddress.ip_address(address), "", "raw_buffer", ("http/1.1",))
    if secure:
        to = Connection(port, ipaddress.ip_address(address), server, "tls", offered)
    return to, answer(address, port, hello(server, offered) if secure else PLAIN)


def hello(server: str, offered: tuple[str, ...]) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    if offered:
        context.set_alpn_protocols(list(offered))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        context.wrap_bio(incoming, outgoing, server_hostname=server or None).do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("a handshake without a peer")


def answer(address: str, port: int, first: bytes) -> str:
    with socket.create_connection((address, port), timeout=20) as connection:
        connection.sendall(first)
        found = b""
        try:
            while piece := connection.recv(1000):
                found += piece
        except ConnectionResetError:
            pass
        return found.decode()
