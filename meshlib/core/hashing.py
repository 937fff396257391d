"""The hash of balancing and affinity: XXH64 with seed 0, as Envoy and gRPC (HP-01), and what of a request is hashed.

Each policy of a route gives a hash, or nothing where the request has not what it looks at; those that give one are combined in
their order. A *terminal* policy ends the row once there is a hash. Where none gives one the call draws a number, which holds for
all its attempts.

What differs from an Envoy is what a client is: the address that its calls come from is its own, so that by ``source_ip`` all calls
of a process go the same way; and a cookie that is made, since the request has none, is the application's to keep: it comes with
the response.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from meshlib.core.conditions import cookie, header_value, query_parameters
from meshlib.core.regex import compile_regex
from meshlib.core.strings import wire
from meshlib.model.policy import HashKind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meshlib.model.call import Head
    from meshlib.model.policy import HashPolicy
    from meshlib.model.session import Session

__all__ = ["CHANNEL", "Hashed", "RouteHash", "combine", "drawn", "hash_bytes", "hash_text", "set_cookie"]

_MASK = (1 << 64) - 1
#: gRPC's name for the channel of a call, as a key of the filter state (gRFC A42).
CHANNEL = "io.grpc.channel_id"


def hash_text(text: str) -> int:
    """XXH64 of the text in UTF-8 (a lone surrogate as its three bytes, so that no text fails)."""
    return hash_bytes(text.encode("utf-8", "surrogatepass"))


def hash_bytes(data: bytes, seed: int = 0) -> int:
    """XXH64."""
    import xxhash

    return int(xxhash.xxh64_intdigest(data, seed))


def combine(old: int | None, new: int) -> int:
    """The hash of two policies in a row: the first turned left by one bit, exclusive-or the second (HP-01)."""
    if old is None:
        return new
    return ((old << 1 | old >> 63) & _MASK) ^ new


def drawn(random: Callable[[], float]) -> int:
    """A hash by chance."""
    return int(random() * (1 << 64))


class Hashed(NamedTuple):
    """``value``: a request's hash. ``cookie``: what its response is to set, or ``""``."""

    value: int
    cookie: str = ""


class RouteHash:
    """The policies of a route. Immutable; safe to share between threads."""

    __slots__ = ("_policies",)

    def __init__(self, policies: Sequence[HashPolicy]) -> None:
        self._policies = [(policy, _METHODS[policy.kind](policy)) for policy in policies]

    def of(self, head: Head, own: int, random: Callable[[], float]) -> Hashed:
        """The request's hash. ``own``: what stands for the caller; ``random`` gives floats in [0, 1), for a new cookie and for a
        request in which nothing is hashed.
        """
        found: int | None = None
        made = ""
        for policy, method in self._policies:
            value = method(head, own)
            if value is None and policy.kind is HashKind.COOKIE and policy.ttl is not None:
                text = f"{drawn(random):016x}"
                value, made = hash_text(text), set_cookie(policy, text)
            if value is not None:
                found = combine(found, value)
            if policy.terminal and found is not None:
                break
        return Hashed(drawn(random) if found is None else found, made)


def _header(policy: HashPolicy) -> Callable[[Head, int], int | None]:
    """Several lines count alike in whatever order they stand."""
    name = wire(policy.name).lower()
    raw_name = name.encode("latin-1")
    regex = compile_regex(policy.pattern) if policy.pattern else None
    substitution = wire(policy.substitution)

    def of(head: Head, own: int) -> int | None:  # noqa: ARG001 - of the request alone, as the next two
        joined = header_value(head, name)
        if joined is None:
            return None
        values = [joined]
        if "," in joined and name in head.headers:
            values = [line.decode("latin-1") for key, line in head.headers.raw if key.lower() == raw_name]
        if regex is not None:
            values = [regex.replace_all(value, substitution) for value in values]
        found = 0
        for value in sorted(values):
            found = hash_bytes(value.encode("latin-1", "replace"), found)
        return found

    return of


def _cookie(policy: HashPolicy) -> Callable[[Head, int], int | None]:
    name = wire(policy.name)

    def of(head: Head, own: int) -> int | None:  # noqa: ARG001
        value = cookie(head, name)
        return hash_bytes(value.encode("latin-1", "replace")) if value else None

    return of


def _query(policy: HashPolicy) -> Callable[[Head, int], int | None]:
    name = wire(policy.name)

    def of(head: Head, own: int) -> int | None:  # noqa: ARG001
        values = query_parameters(head.path, name)
        return hash_bytes(values[0].encode("latin-1", "replace")) if values else None

    return of


def _caller(policy: HashPolicy) -> Callable[[Head, int], int | None]:
    """The source's address, and gRPC's channel; there is no other filter state here."""
    known = policy.kind is HashKind.SOURCE_IP or policy.name == CHANNEL
    return lambda head, own: own if known else None  # noqa: ARG005


_METHODS = {
    HashKind.HEADER: _header,
    HashKind.COOKIE: _cookie,
    HashKind.QUERY: _query,
    HashKind.SOURCE_IP: _caller,
    HashKind.FILTER_STATE: _caller,
}


def set_cookie(policy: HashPolicy | Session, value: str) -> str:
    """As Envoy writes it; a ``ttl`` of 0 is a cookie of the session."""
    parts = [f'{wire(policy.name)}="{value}"']
    if policy.ttl:
        parts.append(f"Max-Age={int(policy.ttl)}")
    if policy.path:
        parts.append(f"Path={wire(policy.path)}")
    parts += [f"{wire(key)}={wire(value)}" if value else wire(key) for key, value in policy.attributes]
    return "; ".join([*parts, "HttpOnly"])
