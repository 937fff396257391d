"""Replies of a listener's own: `local_reply_config`, and the formats of bodies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from meshlib.core.formats import check_format, compile_format
from meshlib.model.body import BodyFormat
from meshlib.model.replies import (
    AllOf,
    AnyOf,
    Anything,
    Comparison,
    DurationTest,
    FlagTest,
    GrpcStatusTest,
    HeaderTest,
    LocalReplies,
    ReplyMapper,
    ReplyTest,
    StatusTest,
)
from meshlib.xds.decode.headers import added
from meshlib.xds.decode.report import Report, join
from meshlib.xds.decode.values import boolean, fraction, header_match, header_value, number, struct
from meshlib.xds.schema import WireMessage

__all__ = ["body_format", "inline_body", "local_replies"]

_COMPARISONS = {0: Comparison.EQ, 1: Comparison.GE, 2: Comparison.LE, 3: Comparison.NE}
_MILLION = 1_000_000
#: ``AccessLogType`` of what is asked while a reply is made.
_NOT_SET = 0
_STATUSES = range(200, 600)
#: Envoy's response flags, short.
_FLAG_NAMES = """
    DC DF DI DO DPE DR DT FI IH LH LR NC NFCF NR OM RFCF RL RLSE SI UAEX UC UDO UF UH UMSDR UO UPE UR URX UT
"""
_FLAGS = frozenset(_FLAG_NAMES.split())


def local_replies(owner: WireMessage, path: str, report: Report) -> LocalReplies | None:
    """`owner.local_reply_config`. A mapper whose test cannot be made here is left out, and reported."""
    if not owner.HasField("local_reply_config"):
        return None
    held, path = owner.local_reply_config, join(path, "local_reply_config")
    mappers = (
        _mapper(item, f"{join(path, 'mappers')}[{index}]", report, traced=owner.HasField("tracing"))
        for index, item in enumerate(held.mappers)
    )
    return LocalReplies(
        tuple(mapper for mapper in mappers if mapper is not None),
        body_format(held, "body_format", path, report),
    )


def _mapper(message: WireMessage, path: str, report: Report, *, traced: bool) -> ReplyMapper | None:
    test = None
    if message.HasField("filter"):
        test = _test(message.filter, join(path, "filter"), report, traced=traced)
    else:
        report.problem(join(path, "filter"), "is missing")
    status = number(message, "status_code")
    if status is not None and status not in _STATUSES:
        report.problem(join(path, "status_code"), f"must be 200 to 599, not {status}")
    made = ReplyMapper(
        test or Anything(),
        status,
        inline_body(message, "body", path, report),
        body_format(message, "body_format_override", path, report),
        added(message, "headers_to_add", path, report),
    )
    return made if test is not None else None


def _test(message: WireMessage, path: str, report: Report, *, traced: bool) -> ReplyTest | None:
    """An AccessLogFilter; None where what it asks for is not known here: then it is reported."""
    which = message.WhichOneof("filter_specifier")
    if which is None:
        report.problem(path, "one of its filters must be set")
        return None
    held, here = getattr(message, which), join(path, which)
    if which == "status_code_filter":
        return _status(held, here, report)
    if which == "duration_filter":
        found = _compared(held, here, report)
        return None if found is None else DurationTest(*found)
    if which == "header_filter":
        return HeaderTest(header_match(held.header, join(here, "header"), report))
    if which == "response_flag_filter":
        return _flags(held, here, report)
    if which == "not_health_check_filter":
        return Anything()
    if which in ("and_filter", "or_filter"):
        return _joined(held, here, report, AllOf if which == "and_filter" else AnyOf, traced=traced)
    if which == "grpc_status_filter":
        return GrpcStatusTest(frozenset(held.statuses), bool(held.exclude))
    if which == "metadata_filter":
        return Anything(boolean(held, "match_if_key_not_found", True))
    if which == "log_type_filter":
        return Anything((_NOT_SET in held.types) is not held.exclude)
    if which == "traceable_filter" and not traced:
        return Anything(False)
    if which == "runtime_filter":
        share = fraction(held.percent_sampled, join(here, "percent_sampled"), report)
        if share in (0, _MILLION):
            return Anything(bool(share))
    report.ignore(here, held)
    return None


def _status(message: WireMessage, path: str, report: Report) -> ReplyTest | None:
    found = _compared(message, path, report)
    return None if found is None else StatusTest(*found)


def _compared(message: WireMessage, path: str, report: Report) -> tuple[Comparison, int] | None:
    if not message.HasField("comparison"):
        report.problem(join(path, "comparison"), "is missing")
        return None
    comparison = _COMPARISONS.get(message.comparison.op)
    if comparison is None:
        report.problem(join(path, "comparison.op"), f"{message.comparison.op} is not known")
        return None
    return comparison, int(message.comparison.value.default_value)


def _flags(message: WireMessage, path: str, report: Report) -> FlagTest:
    for index, flag in enumerate(message.flags):
        if flag not in _FLAGS:
            report.problem(f"{join(path, 'flags')}[{index}]", f"{flag[:40]!r} is no response flag")
    return FlagTest(tuple(str(flag) for flag in message.flags))


def _joined(
    message: WireMessage, path: str, report: Report, kind: type[AllOf | AnyOf], *, traced: bool
) -> ReplyTest | None:
    if len(message.filters) < 2:
        report.problem(join(path, "filters"), "must have two members at least")
    tests = [
        _test(item, f"{join(path, 'filters')}[{index}]", report, traced=traced)
        for index, item in enumerate(message.filters)
    ]
    known = tuple(test for test in tests if test is not None)
    return kind(known) if len(known) == len(tests) else None


def inline_body(owner: WireMessage, field: str, path: str, report: Report) -> bytes | None:
    """The DataSource in `field`, None if it is not set."""
    if not owner.HasField(field):
        return None
    which = getattr(owner, field).WhichOneof("specifier")
    if which is None:
        report.problem(join(path, field), "one of filename, inline_bytes and inline_string must be set")
    if which == "filename":
        report.problem(join(path, f"{field}.filename"), "a body from a file is not supported")
    if which == "inline_bytes":
        return bytes(getattr(owner, field).inline_bytes)
    return str(getattr(owner, field).inline_string).encode() if which == "inline_string" else None


def body_format(owner: WireMessage, field: str, path: str, report: Report) -> BodyFormat | None:
    """The SubstitutionFormatString in `field`, None if it is not set."""
    if not owner.HasField(field):
        return None
    held, path = getattr(owner, field), join(path, field)
    which = held.WhichOneof("format")
    text, json = "", None
    if which == "json_format":
        json = struct(held.json_format)
    elif which == "text_format":
        text = str(held.text_format)
    elif which == "text_format_source":
        raw = inline_body(held, "text_format_source", path, report) or b""
        text = raw.decode("utf-8", "replace")
    else:
        report.problem(path, "one of text_format, json_format and text_format_source must be set")
    for place, format_text in _texts(json if json is not None else text, join(path, which or "")):
        _check(format_text, place, report)
    content_type = header_value(str(held.content_type), join(path, "content_type"), report)
    return BodyFormat(text, json, bool(held.omit_empty_values), content_type)


def _texts(value: object, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(item, join(path, str(key)[:100]))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts(item, f"{path}[{index}]")


def _check(text: str, path: str, report: Report) -> None:
    wrong = check_format(text, body=True)
    if wrong is not None:
        report.problem(path, wrong)
        return
    for name in compile_format(text, body=True).unsupported:
        report.ignore(path, f"%{name}% has no value in a client")
