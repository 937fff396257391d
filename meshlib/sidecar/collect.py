"""What can be seen without asking anybody: variables, a file, the kernel's tables. Takes well below 5 ms.

All reads are bounded. Where the system has no such tables (it is not Linux) or hides them, they are None, and what would need
them is not sure.
"""

from __future__ import annotations

import errno
import json
import os
import socket
from functools import cache
from typing import TYPE_CHECKING, Any

from meshlib.interceptors import own_class
from meshlib.sidecar import sock_diag
from meshlib.sidecar.environment import BOOTSTRAP, relevant
from meshlib.sidecar.evidence import Evidence
from meshlib.sidecar.proc import interfaces, listening, unix_listening
from meshlib.sidecar.signatures import HOST_PORTS, PORTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from meshlib.config import SidecarConfig
    from meshlib.sidecar.evidence import Listening

__all__ = ["Collector"]

_PROC = "/proc/net"
_CHUNK = 16384
#: Of a table of TCP sockets: Linux lists those that listen first.
_MOST = 2**20
_LARGEST_BOOTSTRAP = 2**18

_FAMILIES = (socket.AF_INET, socket.AF_INET6)

# linux/netfilter_ipv4.h and netfilter_ipv6/ip6_tables.h; Linux alone has them.
_SO_ORIGINAL_DST = 80
_SOL_IP, _SOL_IPV6 = 0, 41
_LARGEST_ADDRESS = 28  # struct sockaddr_in6

#: Where Istio's agent writes its gRPC bootstrap, and the socket that it names there.
_AGENT = "/etc/istio/proxy/"

#: How interfaces of a node are called, and of no pod: bridges and tunnels of container runtimes and of network plugins. Ends of
#: veth pairs are not among them: a pod may have one.
_BRIDGES = (
    "docker",
    "cni",
    "cbr",
    "flannel",
    "cali",
    "cilium",
    "lxc",
    "kube-",
    "nodelocaldns",
    "weave",
    "antrea",
    "ovn",
    "br-",
)


class Collector:
    """Looks, again and again. Not thread-safe.

    Args:
        settings: The section ``[sidecar]``: what is told need not be looked for.
        environ: Default: the process's.
        proc: The directory of the kernel's tables.
    """

    def __init__(
        self, settings: SidecarConfig, environ: Mapping[str, str] | None = None, proc: str = _PROC
    ) -> None:
        environ = os.environ if environ is None else environ
        # What a process was started with does not change.
        self._environ = relevant(environ)
        self._bootstrap = _istio_bootstrap(environ.get(BOOTSTRAP, ""))
        self._unix = (settings.address or "").startswith("unix:")
        self._proc = proc
        self._redirected: bool | None = None
        self._last: tuple[Listening, ...] | None = None

    def look(self) -> Evidence:
        # A process that has no file descriptor left sees nothing, which is no reason to believe that nothing is there.
        found = self._listeners()
        self._last = listeners = self._last if found is None else found
        matched = any(one.port in PORTS for one in listeners or ())
        if matched and not self._redirected:
            self._redirected = redirected()
        return Evidence(
            environ=self._environ,
            bootstrap=self._bootstrap,
            listeners=listeners,
            sockets=self._sockets() if self._unix else None,
            uid=os.geteuid() if hasattr(os, "geteuid") else None,
            redirected=self._redirected if matched else None,
            shared=self._shared(listeners or ()) if matched else (),
        )

    def _listeners(self) -> tuple[Listening, ...] | None:
        if self._proc == _PROC and (found := _asked()) is not None:
            return found
        four, six = (_read(f"{self._proc}/{name}", b" 0A ") for name in ("tcp", "tcp6"))
        if four is None and six is None:
            return None
        return (*listening(four or b""), *listening(six or b""))

    def _sockets(self) -> frozenset[str] | None:
        table = _read(f"{self._proc}/unix")
        return None if table is None else unix_listening(table)

    def _shared(self, listeners: tuple[Listening, ...]) -> tuple[str, ...]:
        """What says that this is a whole machine's network: another tenant's proxy may be the one that is seen."""
        lines = [
            f"{name} listens on {port}: this is the network of a node"
            for port, name in HOST_PORTS.items()
            if any(one.port == port for one in listeners)
        ]
        names = interfaces(_read(f"{self._proc}/dev") or b"")
        bridges = [name for name in names if name.startswith(_BRIDGES)]
        pairs = [name for name in names if name.startswith("veth")]
        strange = bridges or (pairs if len(pairs) > 1 else [])
        if strange:
            lines.append(f"there is an interface {strange[0]}: this is the network of a whole machine")
        return tuple(lines)


def _own_socket(*arguments: int) -> socket.socket:
    """One of Python's own, also while a tool that mocks sockets has put its class there: it is not to hear of a look."""
    made: socket.socket = _own_class()(*arguments)
    return made


@cache
def _own_class() -> Any:
    return own_class(socket, "socket")


def _asked() -> tuple[Listening, ...] | None:
    """The listening sockets, asked of the kernel. None where it does not tell: then its tables are read."""
    try:
        return tuple(one for family in _FAMILIES for one in _dumped(family))
    except (OSError, AttributeError, sock_diag.Failed):  # AttributeError: there is no netlink here
        return None


def _dumped(family: int) -> Iterator[Listening]:
    # All that a dump has is there when it is asked for, so nothing here waits.
    with _own_socket(socket.AF_NETLINK, socket.SOCK_RAW, sock_diag.PROTOCOL) as kernel:
        kernel.setblocking(False)
        kernel.sendto(sock_diag.request(family), (0, 0))
        for _ in range(_MOST // _CHUNK):
            for one in sock_diag.listening(kernel.recv(_CHUNK)):
                if one is None:
                    return
                yield one


def _read(path: str, wanted: bytes = b"") -> bytes | None:
    """A file, at most ``_MOST`` of it; with ``wanted`` until a piece has none of that. None where it cannot be read."""
    pieces: list[bytes] = []
    try:
        file = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0))
        try:
            while len(pieces) * _CHUNK < _MOST and (piece := os.read(file, _CHUNK)):
                pieces.append(piece)
                if wanted and wanted not in piece:
                    break
        finally:
            os.close(file)
    except OSError:
        return None
    return b"".join(pieces)


def redirected() -> bool | None:
    """Whether connections of this network namespace are redirected, as far as the kernel tells a client of its own listener.

    It tracks connections once there is a rule that rewrites addresses, and then knows the original destination of each. Where
    the rule takes loopback too, nobody may be listening at its end, and our own listener refuses us: that is the same answer.
    None: the system does not tell. Rules in eBPF are not seen; a firewall that tracks connections is taken for a redirect.
    """
    four = _redirected(socket.AF_INET, "127.0.0.1", _SOL_IP)
    # Where there is IPv6 alone, so are its rules.
    return True if four or _redirected(socket.AF_INET6, "::1", _SOL_IPV6) else four


def _redirected(family: int, host: str, level: int) -> bool | None:
    try:
        with _own_socket(family) as listener, _own_socket(family) as client:
            listener.bind((host, 0))
            listener.listen(1)
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
            if client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED:
                return True
            client.getsockopt(level, _SO_ORIGINAL_DST, _LARGEST_ADDRESS)
            return True
    except OSError as problem:
        return False if problem.errno in (errno.ENOENT, errno.ENOPROTOOPT) else None


def _istio_bootstrap(path: str) -> str:
    """``path``, where it is a gRPC bootstrap of Istio's agent."""
    if not path:
        return ""
    if os.path.normpath(path).startswith(_AGENT):
        return path
    text = _read(path)
    if text is None or len(text) > _LARGEST_BOOTSTRAP:
        return ""
    try:
        made = json.loads(text)
        server = made["xds_servers"][0]["server_uri"]
        mine = isinstance(server, str) and server.startswith("unix:") and _AGENT in server
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""
    return path if mine else ""
