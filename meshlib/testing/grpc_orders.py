"""What a gRPC upstream is told to do with a call, instead of answering OK with who it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias

import grpc

__all__ = ["GrpcOrder", "Pairs"]

Pairs: TypeAlias = "tuple[tuple[str, str | bytes], ...]"


@dataclass(frozen=True, slots=True)
class GrpcOrder:
    """How to answer; each part stands by itself. Seconds are floats.

    code, details      the status at the end
    metadata           initial metadata, pairs after the server's own; sent as soon as there is nothing to wait for
    trailers           trailing metadata, pairs
    body               these bytes instead of who it is
    delay              before the initial metadata
    hold               keep back the `head` (everything), or the `body` (all behind the first message of a stream, a single
                       answer), until `GrpcUpstream.release()`
    messages           how many messages a stream has; None: one, or one for each that is sent; none where `code` is not OK
    message_delay      before each message of a stream but the first
    echo               send back what was sent; where that is a stream and the answer is not, all of it in one
    early              answer before the caller's stream is read

    A call that fails without `metadata` and `messages` has a trailers-only response, as gRPC's servers make it.
    """

    code: grpc.StatusCode = grpc.StatusCode.OK
    details: str = ""
    metadata: Pairs = ()
    trailers: Pairs = ()
    body: bytes | None = None
    delay: float = 0.0
    hold: Literal["", "head", "body"] = ""
    messages: int | None = None
    message_delay: float = 0.0
    echo: bool = False
    early: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Only what differs from the default, JSON-ready: the code's name, bytes as characters of Latin-1."""
        plain, found = GrpcOrder(), {}
        for field in fields(self):
            value = getattr(self, field.name)
            if value != getattr(plain, field.name):
                found[field.name] = _WRITTEN.get(field.name, _same)(value)
        return found

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> GrpcOrder:
        """From what `to_dict` gives, or what a call's metadata say. Raises ValueError for what is no order."""
        if not isinstance(given, Mapping):
            raise ValueError(f"an order is a mapping, not {given!r}")  # noqa: TRY004  (as for its parts)
        known, values = {field.name for field in fields(cls)}, {}
        for key, value in given.items():
            if key not in known:
                raise ValueError(f"an order has no {key!r}; it has {', '.join(sorted(known))}")
            try:
                values[key] = _READ[key](value)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise ValueError(f"an order's {key} cannot be {value!r}") from error
        return cls(**values)


def _same(value: Any) -> Any:
    return value


def _of_kind(*kinds: type) -> Any:
    def read(value: Any) -> Any:
        if type(value) not in kinds:
            raise TypeError(value)
        return value

    return read


def _code(value: Any) -> grpc.StatusCode:
    """By its name or its number."""
    if isinstance(value, str):
        return grpc.StatusCode[value.upper().replace("-", "_")]
    found = [code for code in grpc.StatusCode if code.value[0] == value and type(value) is int]
    return found[0] if found else grpc.StatusCode[str(value)]


def _hold(value: Any) -> str:
    if value not in ("", "head", "body"):
        raise ValueError(value)
    return str(value)


def _read_pairs(given: Iterable[Any]) -> Pairs:
    pairs = []
    for name, text in given:
        if not isinstance(name, str) or not isinstance(text, str):
            raise TypeError(name)
        pairs.append((name, text.encode("latin-1") if name.endswith("-bin") else text))
    return tuple(pairs)


def _written_pairs(pairs: Pairs) -> list[tuple[str, str]]:
    return [(name, text.decode("latin-1") if isinstance(text, bytes) else text) for name, text in pairs]


_READ: dict[str, Any] = {
    "code": _code,
    "details": _of_kind(str),
    "metadata": _read_pairs,
    "trailers": _read_pairs,
    "body": lambda text: text.encode("latin-1"),
    "delay": _of_kind(int, float),
    "hold": _hold,
    "messages": _of_kind(int),
    "message_delay": _of_kind(int, float),
    "echo": _of_kind(bool),
    "early": _of_kind(bool),
}
_WRITTEN: dict[str, Any] = {
    "code": lambda code: code.name,
    "metadata": _written_pairs,
    "trailers": _written_pairs,
    "body": lambda body: body.decode("latin-1"),
}
