"""Outlier detection: when an endpoint is ejected (OD)."""

from __future__ import annotations

from meshlib.model.policy import FailurePercentage, Outlier, SuccessRate
from meshlib.xds.decode.report import Report, join
from meshlib.xds.decode.values import boolean, number, seconds
from meshlib.xds.schema import WireMessage

__all__ = ["outlier"]


def outlier(owner: WireMessage, path: str, report: Report) -> Outlier | None:
    """`owner.outlier_detection`, None if it is not set: then nothing is ejected (OD-02). Defaults are Envoy's."""
    if not owner.HasField("outlier_detection"):
        return None
    held, path = owner.outlier_detection, join(path, "outlier_detection")
    base = _positive(held, "base_ejection_time", path, report, 30.0)
    most = seconds(held, "max_ejection_time", path, report)
    if most is not None and most < base:
        report.problem(join(path, "max_ejection_time"), f"{most} s is less than base_ejection_time, {base} s")
    return Outlier(
        consecutive_5xx=_or(number(held, "consecutive_5xx"), 5),
        enforcing_5xx=_percent(held, "enforcing_consecutive_5xx", path, report, 100),
        consecutive_gateway=_or(number(held, "consecutive_gateway_failure"), 5),
        enforcing_gateway=_percent(held, "enforcing_consecutive_gateway_failure", path, report, 0),
        interval=_positive(held, "interval", path, report, 10.0),
        base_ejection=base,
        max_ejection=max(300.0, base) if most is None else most,
        max_ejection_percent=float(_percent(held, "max_ejection_percent", path, report, 10)),
        jitter=seconds(held, "max_ejection_time_jitter", path, report) or 0.0,
        split_local_origin=bool(held.split_external_local_origin_errors),
        consecutive_local_origin=_or(number(held, "consecutive_local_origin_failure"), 5),
        enforcing_local_origin=_percent(
            held, "enforcing_consecutive_local_origin_failure", path, report, 100
        ),
        always_eject_one=boolean(held, "always_eject_one_host", False),
        success_rate=_success_rate(held, path, report),
        failure_percentage=_failure_percentage(held, path, report),
        uneject_by_check=boolean(held, "successful_active_health_check_uneject_host", True),
    )


def _success_rate(held: WireMessage, path: str, report: Report) -> SuccessRate | None:
    """None where it would eject nobody; then nothing has to be counted."""
    made = SuccessRate(
        minimum_hosts=_or(number(held, "success_rate_minimum_hosts"), 5),
        request_volume=_or(number(held, "success_rate_request_volume"), 100),
        stdev_factor=_or(number(held, "success_rate_stdev_factor"), 1900) / 1000,
        enforcing=_percent(held, "enforcing_success_rate", path, report, 100),
        enforcing_local_origin=_percent(held, "enforcing_local_origin_success_rate", path, report, 100),
    )
    return made if _ejects(made, held) else None


def _failure_percentage(held: WireMessage, path: str, report: Report) -> FailurePercentage | None:
    """Likewise; off unless enforced (OD-02)."""
    made = FailurePercentage(
        threshold=float(_percent(held, "failure_percentage_threshold", path, report, 85)),
        minimum_hosts=_or(number(held, "failure_percentage_minimum_hosts"), 5),
        request_volume=_or(number(held, "failure_percentage_request_volume"), 50),
        enforcing=_percent(held, "enforcing_failure_percentage", path, report, 0),
        enforcing_local_origin=_percent(held, "enforcing_failure_percentage_local_origin", path, report, 0),
    )
    return made if _ejects(made, held) else None


def _ejects(made: SuccessRate | FailurePercentage, held: WireMessage) -> bool:
    return bool(made.enforcing or (held.split_external_local_origin_errors and made.enforcing_local_origin))


def _or(value: int | None, default: int) -> int:
    return default if value is None else value


def _percent(held: WireMessage, field: str, path: str, report: Report, default: int) -> int:
    value = number(held, field)
    if value is not None and value > 100:
        report.problem(join(path, field), f"must be 0 to 100, not {value}")
    return _or(value, default)


def _positive(held: WireMessage, field: str, path: str, report: Report, default: float) -> float:
    value = seconds(held, field, path, report)
    if value == 0:
        report.problem(join(path, field), "must be more than 0")
    return value or default
