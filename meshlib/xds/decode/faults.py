"""Faults that a filter injects (FI-01 to FI-04)."""

from __future__ import annotations

from meshlib.model.policy import Fault
from meshlib.xds.decode.report import Report, join, walk
from meshlib.xds.decode.values import fraction, header_match, number, seconds, typed
from meshlib.xds.schema import WireMessage

__all__ = ["FAULT", "fault"]

FAULT = "envoy.extensions.filters.http.fault.v3.HTTPFault"
_UNITS = {0: 10_000, 1: 100, 2: 1}  # of a million: HUNDRED, TEN_THOUSAND, MILLION
_LARGEST_CODE = 16


def fault(outer: WireMessage, path: str, report: Report) -> Fault | None:
    """What an Any that means an HTTPFault injects; None where it cannot be told. Without a percentage that is nothing, as in Envoy."""
    message = typed(outer, path, report, FAULT)
    if message is None:
        return None
    walk(message, path, report)
    delay, abort = message.delay, message.abort
    here, there = join(path, "delay"), join(path, "abort")
    if message.HasField("delay") and delay.WhichOneof("fault_delay_secifier") is None:
        report.problem(here, "one of fixed_delay and header_delay must be set")
    status, code = _abort(message, there, report)
    return Fault(
        delay=(seconds(delay, "fixed_delay", here, report) or 0.0) if message.HasField("delay") else 0.0,
        delay_per_million=_share(delay, here, report),
        abort=status,
        abort_per_million=_share(abort, there, report),
        abort_code=code,
        delay_by_header=delay.HasField("header_delay"),
        abort_by_header=abort.HasField("header_abort"),
        delay_unit=_UNITS.get(delay.percentage.denominator, 1),
        abort_unit=_UNITS.get(abort.percentage.denominator, 1),
        cluster=str(message.upstream_cluster),
        headers=tuple(
            header_match(item, f"{join(path, 'headers')}[{index}]", report)
            for index, item in enumerate(message.headers)
        ),
        nodes=frozenset(map(str, message.downstream_nodes)),
        most=number(message, "max_active_faults"),
        rate=_rate(message.response_rate_limit, join(path, "response_rate_limit"), report)
        if message.HasField("response_rate_limit")
        else 0,
        rate_per_million=_share(message.response_rate_limit, join(path, "response_rate_limit"), report),
        rate_by_header=message.response_rate_limit.HasField("header_limit"),
        rate_unit=_UNITS.get(message.response_rate_limit.percentage.denominator, 1),
    )


def _abort(message: WireMessage, path: str, report: Report) -> tuple[int, int | None]:
    held = message.abort
    which = held.WhichOneof("error_type") if message.HasField("abort") else None
    if message.HasField("abort") and which is None:
        report.problem(path, "one of http_status, grpc_status and header_abort must be set")
    if which == "http_status" and not 200 <= held.http_status < 600:
        report.problem(join(path, which), f"must be 200 to 599, not {held.http_status}")
    if which == "grpc_status" and held.grpc_status > _LARGEST_CODE:
        report.problem(join(path, which), f"must be a code of gRPC, not {held.grpc_status}")
    status = int(held.http_status) if which == "http_status" else 0
    return status, int(held.grpc_status) if which == "grpc_status" else None


def _rate(message: WireMessage, path: str, report: Report) -> int:
    """Bytes a second."""
    which = message.WhichOneof("limit_type")
    if which is None:
        report.problem(path, "one of fixed_limit and header_limit must be set")
    if which == "fixed_limit" and not message.fixed_limit.limit_kbps:
        report.problem(join(path, "fixed_limit.limit_kbps"), "must be more than 0")
    return int(message.fixed_limit.limit_kbps) * 1024 if which == "fixed_limit" else 0


def _share(message: WireMessage, path: str, report: Report) -> int:
    return (
        fraction(message.percentage, join(path, "percentage"), report)
        if message.HasField("percentage")
        else 0
    )
