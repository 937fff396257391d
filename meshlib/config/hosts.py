"""Names of hosts: what one may look like, and patterns of them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache
from typing import TypeAlias

from meshlib.config.kinds import Kind, Place, Text, located, one_line
from meshlib.model.address import Address
from meshlib.model.hosts import ascii_host, canonical_host, ipv6_host, is_loopback

__all__ = [
    "LOCAL",
    "HostPatterns",
    "HostPort",
    "LocalAddress",
    "ServerAddress",
    "SidecarAddress",
    "Where",
    "check_address",
    "check_host",
    "check_key",
    "check_pattern",
    "key_form",
]

LOCAL = "<local>"
"""The pattern of names without a dot (the name that proxy settings have for them)."""

#: Bytes of the path of a socket that is served: what all systems can bind to, and a name beside it while it comes into being.
LONGEST_PATH = 80

_NAME = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.")


def check_host(text: str, *, whole: bool = True) -> str:
    """An IP address (IPv6 without brackets) or a DNS name, as it is looked up, connected to and sent.
    ``whole`` False: the first labels of one. Raises ValueError that says what is wrong.
    """
    if ":" in text:
        return ipv6_host(text)
    host = ascii_host(text)
    if not host or len(host) > 253:
        raise ValueError("a host name has 1 to 253 characters")
    if not _NAME.issuperset(host):
        strange = next(char for char in host if char not in _NAME)
        raise ValueError(f"{strange!r} cannot be in a host name")
    labels = host.removesuffix(".").split(".")
    if any(not label or len(label) > 63 for label in labels):
        raise ValueError("a label of a host name has 1 to 63 characters")
    if whole and labels[-1].isdigit():
        # All-digit last labels are IPv4 addresses, well formed or not (RFC 3696, section 2).
        ipaddress.IPv4Address(host)
    return host


def check_address(text: str) -> Address:
    """``10.0.0.1:80``, ``[::1]:80``, ``name:80`` or ``unix:/path``. Raises ValueError that says what is wrong."""
    if "://" in text and not text.startswith("unix:"):
        raise ValueError("an address has no scheme, only host:port")
    address = Address.parse(text)
    return address if address.unix else Address(check_host(address.host), address.port)


def check_key(text: str) -> str:
    """A service's name in the configuration: ``host``, ``host:port``, ``*.suffix``, ``*.suffix:port``; canonical."""
    if "://" in text:
        raise ValueError("without a scheme: host or host:port")
    left = text[:2] if text.startswith("*.") else ""
    host, port = _host_port(text.removeprefix(left))
    return left + _with_port(host, port)


@lru_cache(maxsize=4096)
def key_form(text: str) -> str:
    """What all spellings of one key have in common; of what is no key, its lower case."""
    try:
        return check_key(text)
    except ValueError:
        return text.lower()


def check_pattern(text: str) -> str:
    """``host``, ``host:port``, ``*.suffix``, ``prefix.*``, ``*.middle.*``, ``*`` or ``<local>``; canonical."""
    if text in ("*", LOCAL):
        return text
    if not text.endswith(".*"):
        return check_key(text)
    left = text[:2] if text.startswith("*.") else ""
    return left + check_host(text[len(left) : -2], whole=False) + ".*"


def _host_port(text: str) -> tuple[str, int | None]:
    """The two parts of ``host[:port]``, canonical; an IPv6 address without a port may go without its brackets."""
    bare = ":" not in text or text.endswith("]") or (text.count(":") > 1 and not text.startswith("["))
    host, port = text, None
    if not bare:
        address = Address.parse(text)
        host, port = address.host, address.port
    elif text.startswith("[") and text.endswith("]"):
        host = text[1:-1]
    # A name that is looked up may end with the root's dot; one that is compared does not.
    return canonical_host(check_host(host)), port


def _with_port(host: str, port: int | None) -> str:
    shown = f"[{host}]" if ":" in host else host
    return shown if port is None else f"{shown}:{port}"


class HostPort(Kind[Address]):
    """Where something listens."""

    allowed = '"host:port", "[IPv6]:port" or "unix:/path", the port from 1 to 65535'

    def __init__(self, *, unix: bool = True) -> None:
        self.unix = unix
        if not unix:
            self.allowed = '"host:port" or "[IPv6]:port", the port from 1 to 65535'

    def parse(self, raw: object, at: Place) -> Address:
        if isinstance(raw, Address):
            raw = str(raw)
        text = Text(self.allowed).parse(raw, at)
        try:
            address = check_address(text)
        except ValueError as problem:
            raise at.refuse(f"must be {self.allowed}: {one_line(str(problem), 160)}") from None
        if address.unix and not self.unix:
            raise self.wrong(raw, at)
        return Address(located(address.host, at), 0, unix=True) if address.unix else address

    def dump(self, value: object) -> object:
        return str(value)


Where: TypeAlias = Address | str
"""An address, or a URL."""


class ServerAddress(Kind[Where | tuple[Where, ...]]):
    """Where a control plane listens: an address, or a URL where it is asked by REST. A list: several, in the order of preference."""

    allowed = (
        '"host:port", "[IPv6]:port", "unix:/path", or "http://host:port" for REST, the port from 1 to 65535; '
        "or a list of them"
    )

    def parse(self, raw: object, at: Place) -> Where | tuple[Where, ...]:
        if not isinstance(raw, list | tuple):
            return self._one(raw, at)
        found = [self._one(item, at.child(index)) for index, item in enumerate(raw)]
        twice = next((item for item in found if found.count(item) > 1), None)
        if twice is not None:
            raise at.refuse(f"has {twice} more than once")
        if not found:
            raise self.wrong(raw, at)
        return found[0] if len(found) == 1 else tuple(found)

    def _one(self, raw: object, at: Place) -> Where:
        text = Text(self.allowed).parse(str(raw) if isinstance(raw, Address) else raw, at)
        scheme = next((each for each in ("http://", "https://") if text.startswith(each)), "")
        where = HostPort(unix=not scheme)
        where.allowed = self.allowed
        address = where.parse(text.removeprefix(scheme).removesuffix("/" if scheme else ""), at)
        return f"{scheme}{address}" if scheme else address

    def dump(self, value: object) -> object:
        return list(map(str, value)) if isinstance(value, tuple) else str(value)


class SidecarAddress(Text):
    """Where a sidecar listens, on this machine only, and how it is spoken to."""

    def __init__(self) -> None:
        super().__init__(
            '"host:port" or "unix:/path" (a listener) or "http://host:port" (a forward proxy), on loopback'
        )

    def parse(self, raw: object, at: Place) -> str:
        text = super().parse(raw, at)
        proxy = "http://" if text.startswith("http://") else ""
        try:
            address = check_address(text.removeprefix(proxy).removesuffix("/" if proxy else ""))
            self._check(address, proxy)
        except ValueError as problem:
            raise at.refuse(f"must be {self.allowed}: {one_line(str(problem), 160)}") from None
        return f"unix:{located(address.host, at)}" if address.unix else f"{proxy}{address}"

    @staticmethod
    def _check(address: Address, proxy: str) -> None:
        if address.unix:
            if proxy:
                raise ValueError("a forward proxy has a host and a port")
        elif not is_loopback(address.host):
            raise ValueError(
                f"{address.host} is none of 127.0.0.1, [::1] and localhost; all calls go there in plain text"
            )


class LocalAddress(Text):
    """Where something is served to this machine only: an address of loopback, or a socket. ``otherwise``: what any other would mean;
    ``longest``: bytes of a socket's path.
    """

    def __init__(
        self, otherwise: str = "whoever asks is told everything", longest: int = LONGEST_PATH
    ) -> None:
        super().__init__('"unix:/path", "127.0.0.1:port" or "[::1]:port"')
        self._otherwise = otherwise
        self._longest = longest

    def parse(self, raw: object, at: Place) -> str:
        text = super().parse(raw, at)
        try:
            address = self._local(check_address(text))
        except ValueError as problem:
            raise at.refuse(f"must be {self.allowed}: {one_line(str(problem), 160)}") from None
        path = located(address.host, at) if address.unix else ""
        if len(path.encode()) > self._longest:
            raise at.refuse(
                f"a socket's path has at most {self._longest} bytes, this one {len(path.encode())}"
            )
        return f"unix:{path}" if path else str(address)

    def _local(self, address: Address) -> Address:
        if not address.unix and (address.host == "localhost" or not is_loopback(address.host)):
            raise ValueError(f"{address.host} is no address of loopback, and {self._otherwise}")
        return address


class HostPatterns:
    """Patterns of hosts, compiled. A ``*`` stands for one character or more. Immutable; safe to share."""

    __slots__ = ("_all", "_exact", "_globs", "_local")

    def __init__(self, patterns: Iterable[str]) -> None:
        checked = [check_pattern(pattern) for pattern in patterns]
        self._all, self._local = "*" in checked, LOCAL in checked
        self._exact = frozenset(text for text in checked if "*" not in text)
        self._globs = tuple(_glob(text) for text in checked if "*" in text and text != "*")

    def matches(self, host: str, port: int | None = None) -> bool:
        """Whether ``host`` (canonical) or ``host:port`` is one of these."""
        if self._all or (self._local and "." not in host and ":" not in host):
            return True
        if _with_port(host, None) in self._exact or (
            port is not None and _with_port(host, port) in self._exact
        ):
            return True
        return any(_fits(host, port, glob) for glob in self._globs)


_Glob = tuple[bool, str, bool, int | None]  # open at the left, middle, open at the right, port


def _glob(text: str) -> _Glob:
    right = text.endswith(".*")
    name, _, digits = text.partition(":")
    middle = name.removeprefix("*").removesuffix("*")
    return name.startswith("*"), middle, right, int(digits) if digits else None


def _fits(host: str, port: int | None, glob: _Glob) -> bool:
    left, middle, right, wanted = glob
    if wanted is not None and wanted != port:
        return False
    if left and right:
        return host.find(middle, 1) not in (-1, len(host) - len(middle))
    if left:
        return len(host) > len(middle) and host.endswith(middle)
    return len(host) > len(middle) and host.startswith(middle)
