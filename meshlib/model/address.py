"""Where something listens: an IP and a port, a DNS name and a port, or a Unix socket."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from meshlib.model.hosts import is_ip

__all__ = ["Address"]

_UNIX = "unix:"


@dataclass(frozen=True, slots=True)
class Address:
    """``host`` is an IP literal (without brackets) or a DNS name and ``port`` 1 to 65535; for a Unix socket ``host``
    is its path, ``port`` is 0 and ``unix`` is True. ``str()`` gives the one textual form:
    ``"10.0.0.1:8080"``, ``"[::1]:8080"``, ``"unix:/path"``.
    """

    host: str
    port: int
    unix: bool = False

    def __str__(self) -> str:
        if self.unix:
            return _UNIX + self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str, default_port: int | None = None) -> Address:
        """The address that ``text`` spells. Raises ValueError that says what is wrong with it."""
        if text.startswith(_UNIX):
            path = text[len(_UNIX) :]
            if path.startswith("///"):
                path = path[2:]
            if not path:
                raise ValueError(f"{text!r}: a Unix socket needs a path")
            return cls(path, 0, True)
        host, port = _split(text, default_port)
        if not host:
            raise ValueError(f"{text!r}: the host is missing")
        return cls(host, port)

    @property
    def is_ip(self) -> bool:
        """Whether the host is an IP literal, so that nothing is left to resolve."""
        return not self.unix and is_ip(self.host)


def _split(text: str, default_port: int | None) -> tuple[str, int]:
    host, separator, digits = text.rpartition(":")
    if text.startswith("["):
        inside, closed, rest = text[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")):
            raise ValueError(f"{text!r}: expected [IPv6]:port")
        host, separator, digits = inside, rest[:1], rest[1:]
        ipaddress.IPv6Address(host)
    elif separator and ":" in host:
        raise ValueError(f"{text!r}: an IPv6 address with a port is written [{host}]:{digits}")
    elif not separator:
        host = text
    if not separator:
        if default_port is None:
            raise ValueError(f"{text!r}: the port is missing")
        return host, default_port
    if not (digits.isascii() and digits.isdigit() and 1 <= int(digits) <= 65535):
        raise ValueError(f"{text!r}: the port must be 1 to 65535, not {digits!r}")
    return host, int(digits)
