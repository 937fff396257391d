"""Which virtual host an authority belongs to (VH-01 to VH-03)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

from meshlib.core.strings import fold, wire

__all__ = ["DomainIndex", "by_key", "without_port"]

T = TypeVar("T")


def without_port(authority: str) -> str:
    """The authority up to its port, if it has one. IPv6 addresses keep their brackets."""
    colon = authority.rfind(":")
    return authority if colon < 0 or authority.rfind("]") > colon else authority[:colon]


class DomainIndex(Generic[T]):
    """Domains to values: exact before longest suffix before longest prefix before ``*``; among equals the first.

    Case is ignored, and a ``*`` stands for one character or more. Immutable once made.
    """

    __slots__ = ("_exact", "_prefixes", "_suffixes", "default")

    def __init__(self, items: Iterable[tuple[str, T]]) -> None:
        self._exact: dict[str, T] = {}
        self.default: T | None = None
        suffixes: dict[int, dict[str, T]] = {}
        prefixes: dict[int, dict[str, T]] = {}
        for written, value in items:
            domain = fold(wire(written))
            if domain == "*":
                if self.default is None:
                    self.default = value
            elif domain.startswith("*"):
                suffixes.setdefault(len(domain) - 1, {}).setdefault(domain[1:], value)
            elif domain.endswith("*"):
                prefixes.setdefault(len(domain) - 1, {}).setdefault(domain[:-1], value)
            else:
                self._exact.setdefault(domain, value)
        self._suffixes = sorted(suffixes.items(), reverse=True)
        self._prefixes = sorted(prefixes.items(), reverse=True)

    def names(self) -> Iterable[str]:
        """The domains that are whole names, in lower case."""
        return self._exact

    def exact(self, authority: str) -> T | None:
        """The value of the domain that is ``authority`` itself."""
        return self._exact.get(fold(authority))

    def named(self, authority: str) -> T | None:
        """The value of the best domain other than ``*``."""
        host = fold(authority)
        value = self._exact.get(host)
        return value if value is not None else self._inexact(host)

    def find(self, authority: str) -> T | None:
        """The value of the best domain."""
        host = fold(authority)
        value = self._exact.get(host)
        if value is None:
            value = self._inexact(host)
        return self.default if value is None else value

    def _inexact(self, host: str) -> T | None:
        size = len(host)
        for length, table in self._suffixes:
            if length < size:
                value = table.get(host[size - length :])
                if value is not None:
                    return value
        for length, table in self._prefixes:
            if length < size:
                value = table.get(host[:length])
                if value is not None:
                    return value
        return None


def by_key(index: DomainIndex[tuple[str, T]], host: str, port: int) -> tuple[str, T] | None:
    """The key and the value of the service of a configuration that ``host:port`` is: the key that is ``host:port``, else ``host``,
    else the longest wildcard. The values of ``index`` have their keys with them.
    """
    shown = f"[{host}]" if ":" in host else host
    written = f"{shown}:{port}"
    found = index.exact(written) or index.exact(shown)
    if found is None:
        wildcards = [item for item in (index.named(written), index.named(shown)) if item is not None]
        if wildcards:
            # The longest; of two that are equally long, the one that names the port.
            found = max(wildcards, key=lambda item: len(item[0].partition(":")[0]))
    return found
