"""What a rate limit service (`envoy.service.ratelimit.v3.RateLimitService`) is asked, and what its answer means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.model.limits import Verdict
from meshlib.xds import schema
from meshlib.xds.decode.values import is_header_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from meshlib.core.effects import Ask
    from meshlib.xds.schema import WireMessage

__all__ = ["METHOD", "question", "verdict"]

METHOD = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"

_OVER = 2
#: Seconds of the units of a limit.
_UNITS = {1: 1, 2: 60, 3: 3600, 4: 86400, 5: 2_592_000, 6: 31_536_000, 7: 604_800}
#: Lines that a service may add each way, limits that are told, and bytes of a name and of a body: no buffer is without a bound.
_MOST_LINES = 100
_LONGEST_NAME = 200
_LONGEST_BODY = 64 * 1024
_BAD = frozenset("\r\n\0")


def question(ask: Ask) -> bytes:
    """The RateLimitRequest."""
    made = schema.message("envoy.service.ratelimit.v3.RateLimitRequest")()
    made.domain = ask.domain
    for each in ask.descriptors:
        descriptor = made.descriptors.add()
        for key, value in each.entries:
            descriptor.entries.add(key=key, value=value)
        if each.hits is not None:
            descriptor.hits_addend.value = each.hits
    return bytes(made.SerializeToString())


def verdict(raw: bytes) -> Verdict | None:
    """What a RateLimitResponse says; None for what is none. UNKNOWN is not over the limit, as in Envoy."""
    try:
        answer = schema.message("envoy.service.ratelimit.v3.RateLimitResponse").FromString(raw)
    except schema.DecodeError:
        return None
    return Verdict(
        answer.overall_code == _OVER,
        _lines(answer.request_headers_to_add),
        _lines(answer.response_headers_to_add),
        bytes(answer.raw_body[:_LONGEST_BODY]),
        _limits(answer.statuses),
    )


def _lines(headers: Iterable[WireMessage]) -> tuple[tuple[bytes, bytes], ...]:
    """Those that can stand in a head."""
    found = []
    for item in list(headers)[:_MOST_LINES]:
        name, value = str(item.key).lower(), str(item.value) or item.raw_value.decode("latin-1")
        if is_header_name(name) and not name.startswith(":") and not _BAD.intersection(value):
            found.append((name.encode("ascii"), value.encode("utf-8", "replace")))
    return tuple(found)


def _limits(statuses: Iterable[WireMessage]) -> tuple[tuple[bytes, bytes], ...]:
    """``x-ratelimit-…`` (draft 3): of the status that is nearest to its limit, with the quotas of all."""
    with_limit = [status for status in statuses if status.HasField("current_limit")][:_MOST_LINES]
    if not with_limit:
        return ()
    nearest = min(with_limit, key=lambda status: int(status.limit_remaining))
    quotas = []
    for status in with_limit:
        limit = status.current_limit
        window = _UNITS.get(limit.unit, 0)
        if not window:
            continue
        name = str(limit.name)[:_LONGEST_NAME]
        named = (
            f';name="{name}"' if name and name.isprintable() and name.isascii() and '"' not in name else ""
        )
        quotas.append(f", {limit.requests_per_unit};w={window}{named}")
    text = f"{nearest.current_limit.requests_per_unit}{''.join(quotas)}"
    return (
        (b"x-ratelimit-limit", text.encode("ascii")),
        (b"x-ratelimit-remaining", b"%d" % nearest.limit_remaining),
        (b"x-ratelimit-reset", b"%d" % max(0, nearest.duration_until_reset.seconds)),
    )
