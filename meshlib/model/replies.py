"""What a listener makes of the replies that are its own (``local_reply_config``)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from meshlib.model.body import BodyFormat
from meshlib.model.match import HeaderMatch
from meshlib.model.route import Edit

__all__ = [
    "AllOf",
    "AnyOf",
    "Anything",
    "Comparison",
    "DurationTest",
    "FlagTest",
    "GrpcStatusTest",
    "HeaderTest",
    "LocalReplies",
    "ReplyMapper",
    "ReplyTest",
    "StatusTest",
]


class Comparison(StrEnum):
    EQ = "eq"
    GE = "ge"
    LE = "le"
    NE = "ne"


@dataclass(frozen=True, slots=True)
class StatusTest:
    comparison: Comparison
    value: int


@dataclass(frozen=True, slots=True)
class DurationTest:
    """Of the whole milliseconds since the call began."""

    comparison: Comparison
    value: int


@dataclass(frozen=True, slots=True)
class HeaderTest:
    """Of the request."""

    header: HeaderMatch


@dataclass(frozen=True, slots=True)
class FlagTest:
    """One of Envoy's response flags (``NR``, ``UH``, …); none named: any."""

    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GrpcStatusTest:
    """The status that the reply is to a gRPC client, whoever asks; ``exclude``: none of these."""

    codes: frozenset[int]
    exclude: bool = False


@dataclass(frozen=True, slots=True)
class Anything:
    """Every reply, or none."""

    holds: bool = True


@dataclass(frozen=True, slots=True)
class AllOf:
    tests: tuple[ReplyTest, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    tests: tuple[ReplyTest, ...]


ReplyTest = StatusTest | DurationTest | HeaderTest | FlagTest | GrpcStatusTest | Anything | AllOf | AnyOf


@dataclass(frozen=True, slots=True)
class ReplyMapper:
    """What becomes of a reply that ``test`` holds for; None: left as it is."""

    test: ReplyTest
    status: int | None = None
    body: bytes | None = None
    format: BodyFormat | None = None
    add: tuple[Edit, ...] = ()


@dataclass(frozen=True, slots=True)
class LocalReplies:
    """The first mapper whose test holds applies; then the body is formatted, by the mapper's format or by this one."""

    mappers: tuple[ReplyMapper, ...] = ()
    format: BodyFormat | None = None
