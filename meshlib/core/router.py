"""What a listener's router filter is told of the ``x-envoy-…`` lines of calls (Envoy's ``Router``), and whose calls are internal.

Internal are calls that came from one address of ``internal_address_config``, as their ``x-forwarded-for`` tells; as in Envoy nobody else's
lines steer anything. Measured with Envoy 1.40.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from meshlib.core.conditions import unsigned
from meshlib.core.lines import first_value
from meshlib.core.replies import Reply
from meshlib.model.call import Response
from meshlib.model.hosts import ip_of
from meshlib.model.retry_on import ENVOY_RETRY_GRPC_ON, ENVOY_RETRY_ON

if TYPE_CHECKING:
    from meshlib.core.lines import Lines
    from meshlib.model.call import Head
    from meshlib.model.listener import HttpManager

__all__ = ["Internal", "Router", "compile_router"]

_EXPECTED = "x-envoy-expected-rq-timeout-ms"
#: What a rewritten path and host were.
_ORIGINALS = (b"x-envoy-original-path", b"x-envoy-original-host")
_LISTS = {"x-envoy-retry-on": ENVOY_RETRY_ON, "x-envoy-retry-grpc-on": ENVOY_RETRY_GRPC_ON}


class Internal:
    """Whose calls are. Immutable; safe to share between threads."""

    __slots__ = ("_networks",)

    def __init__(self, prefixes: tuple[str, ...]) -> None:
        self._networks = tuple(map(ipaddress.ip_network, prefixes))

    def has(self, head: Head) -> bool:
        """Whether the call came straight from an internal address."""
        address = ip_of((head.headers.get("x-forwarded-for") or "").strip())
        return address is not None and any(address in network for network in self._networks)


class Router:
    """Compiled. Immutable; safe to share between threads. ``suppresses``: no ``x-envoy-…`` line is added by it."""

    __slots__ = ("_internal", "_respects", "_strict", "suppresses")

    def __init__(self, manager: HttpManager) -> None:
        self.suppresses = manager.suppress_envoy_headers
        self._strict = manager.strict_headers
        self._respects = manager.respect_timeout
        self._internal = Internal(manager.internal)

    def refusal(self, head: Head) -> Reply | None:
        """The reply to a call one of whose lines cannot be read, where that is to be looked for."""
        if not self._strict or not self._internal.has(head):
            return None
        for name in self._strict:
            value = head.headers.get(name)
            if value is None or _is_valid(name, value):
                continue
            lines = [line for key, line in head.headers.raw if key.lower() == name.encode()]
            shown = b",".join(lines)[:1024]
            body = b"invalid header '%s' with value '%s'" % (name.encode(), shown)
            return Reply(head, Response(400, (), body), flags="IH")
        return None

    def timeout(self, head: Head) -> float | None:
        """How long the call may take by its own word, in place of its route's, seconds: 0 for no limit, None where it says nothing."""
        if not self._respects or not self._internal.has(head):
            return None
        said = unsigned(head.headers.get(_EXPECTED) or "")
        return None if said is None else said / 1000.0

    def unmark(self, lines: Lines, asked: Lines) -> None:
        """Take back what a rewrite added to the lines of a call that had those of ``asked``."""
        for name in _ORIGINALS:
            if first_value(lines, name) is not None:
                lines[:] = [line for line in lines if line[0].lower() != name]
                lines += [line for line in asked if line[0].lower() == name]


def compile_router(manager: HttpManager) -> Router | None:
    """None where nothing is to be done otherwise than as a rule."""
    listens = manager.internal and (manager.strict_headers or manager.respect_timeout)
    return Router(manager) if manager.suppress_envoy_headers or listens else None


def _is_valid(name: str, value: str) -> bool:
    known = _LISTS.get(name)
    if known is None:
        return unsigned(value) is not None
    return all(each.strip() in known for each in value.split(",") if each.strip())
