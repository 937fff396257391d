"""Retry policies and hash policies of a route (RT, HP)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from meshlib.model.match import HeaderMatch
from meshlib.model.policy import Elsewhere, HashKind, HashPolicy, RetryPolicy
from meshlib.model.retry_on import ENVOY_RETRY_GRPC_ON, ENVOY_RETRY_ON
from meshlib.xds.decode.report import Report, join, walk
from meshlib.xds.decode.subset import call_labels
from meshlib.xds.decode.values import header_match, header_name, number, rewrite, seconds, unpacked
from meshlib.xds.schema import WireMessage, type_name

__all__ = ["hash_policies", "retry_policy"]

_CONDITIONS = ENVOY_RETRY_ON | ENVOY_RETRY_GRPC_ON
_PREVIOUS_HOSTS = "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
_OMIT_CANARIES = "envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate"
_OMIT_METADATA = "envoy.extensions.retry.host.omit_host_metadata.v3.OmitHostMetadataConfig"
_PREVIOUS_PRIORITIES = "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig"
#: What needs no configuration, by the extension's name.
_PREDICATES = {
    "envoy.retry_host_predicates.previous_hosts": _PREVIOUS_HOSTS,
    "envoy.retry_host_predicates.omit_canary_hosts": _OMIT_CANARIES,
}
# RT-04, RT-07, in seconds.
_BASE = 0.025
_LEAST_BASE = 0.001
_RESET_MAX = 300.0
_FORMATS = {0: "seconds", 1: "unix_timestamp"}


def retry_policy(owner: WireMessage, path: str, report: Report) -> RetryPolicy | None:
    """`owner.retry_policy`, None if it is not set. One without a condition stands: it says "no retries" (RT-01)."""
    if not owner.HasField("retry_policy"):
        return None
    message, path = owner.retry_policy, join(path, "retry_policy")
    retries = number(message, "num_retries")
    if report.target and retries == 0:
        report.problem(join(path, "num_retries"), "must not be 0")  # RT-03
    base, most = _backoff(message, path, report)
    reset, reset_max = _rate_limited(message, path, report)
    return RetryPolicy(
        on=_conditions(message.retry_on, path, report),
        retries=1 if retries is None else retries,
        per_try_timeout=seconds(message, "per_try_timeout", path, report) or None,
        per_try_idle_timeout=seconds(message, "per_try_idle_timeout", path, report) or None,
        base_interval=base,
        max_interval=most,
        statuses=frozenset(int(code) for code in message.retriable_status_codes),
        headers=_headers(message, "retriable_headers", path, report),
        request_headers=_headers(message, "retriable_request_headers", path, report),
        reset_headers=reset,
        max_reset_interval=reset_max,
        elsewhere=_elsewhere(message, path, report),
    )


def _conditions(text: str, path: str, report: Report) -> frozenset[str]:
    tokens = frozenset(token.strip().lower() for token in text.split(",")) - {""}  # DV-14
    for token in sorted(tokens - _CONDITIONS):
        report.ignore(join(path, "retry_on"), token)
    return tokens & _CONDITIONS


def _headers(message: WireMessage, field: str, path: str, report: Report) -> tuple[HeaderMatch, ...]:
    return tuple(
        header_match(item, f"{join(path, field)}[{index}]", report)
        for index, item in enumerate(getattr(message, field))
    )


def _backoff(message: WireMessage, path: str, report: Report) -> tuple[float, float]:
    if not message.HasField("retry_back_off"):
        return _BASE, 10 * _BASE
    path = join(path, "retry_back_off")
    base = seconds(message.retry_back_off, "base_interval", path, report)
    if not base:
        report.problem(join(path, "base_interval"), "must be set and more than 0")
        base = _BASE
    base = max(base, _LEAST_BASE)
    most = seconds(message.retry_back_off, "max_interval", path, report)
    if most is not None and most < base:
        report.problem(join(path, "max_interval"), f"{most} s is less than base_interval, {base} s")
    return base, 10 * base if most is None else most


def _rate_limited(
    message: WireMessage, path: str, report: Report
) -> tuple[tuple[tuple[str, str], ...], float]:
    if not message.HasField("rate_limited_retry_back_off"):
        return (), _RESET_MAX
    path = join(path, "rate_limited_retry_back_off")
    held = message.rate_limited_retry_back_off
    if not len(held.reset_headers):
        report.problem(join(path, "reset_headers"), "must not be empty")
    found: list[tuple[str, str]] = []
    for index, header in enumerate(held.reset_headers):
        here = f"{join(path, 'reset_headers')}[{index}]"
        if header.format not in _FORMATS:
            report.problem(join(here, "format"), f"{header.format} is not known")
        name = header_name(header.name, join(here, "name"), report)
        found.append((name, _FORMATS.get(header.format, "seconds")))
    most = seconds(held, "max_interval", path, report)
    if most is not None and most <= 0:
        report.problem(join(path, "max_interval"), "must be more than 0")
    return tuple(found), _RESET_MAX if most is None else most


def _elsewhere(message: WireMessage, path: str, report: Report) -> Elsewhere | None:
    """Another host first is the rule here whatever is said; what else is known is kept, the rest is reported."""
    made = Elsewhere(_update_frequency(message, path, report))
    for index, predicate in enumerate(message.retry_host_predicate):
        here = f"{join(path, 'retry_host_predicate')}[{index}]"
        name = _extension(predicate, _PREDICATES)
        if name == _OMIT_CANARIES:
            made = replace(made, canaries=False)
        elif name == _OMIT_METADATA:
            held = unpacked(predicate.typed_config, f"{here}.typed_config", report, name)
            if held is not None:
                walk(held, f"{here}.typed_config", report)
                labels = call_labels(held)
                made = replace(made, labels=(*made.labels, labels)) if labels else made
        elif name != _PREVIOUS_HOSTS:
            report.ignore(here, predicate)
    return made if made != Elsewhere() else None


def _update_frequency(message: WireMessage, path: str, report: Report) -> int:
    if not message.HasField("retry_priority"):
        return 0
    held, path = message.retry_priority, join(path, "retry_priority")
    if _extension(held, {}) != _PREVIOUS_PRIORITIES or not held.HasField("typed_config"):
        report.ignore(path, held)
        return 0
    path = join(path, "typed_config")
    config = unpacked(held.typed_config, path, report, _PREVIOUS_PRIORITIES)
    if config is None:
        return 0
    walk(config, path, report)
    if config.update_frequency <= 0:
        report.problem(join(path, "update_frequency"), f"must be more than 0, not {config.update_frequency}")
    return max(0, int(config.update_frequency))


def _extension(message: WireMessage, names: Mapping[str, str]) -> str:
    """The type that is meant, by its configuration, or by one of the ``names`` where there is none."""
    if not message.HasField("typed_config"):
        return names.get(str(message.name), "")
    try:
        return type_name(message.typed_config.type_url)
    except ValueError:
        return ""


def hash_policies(owner: WireMessage, path: str, report: Report) -> tuple[HashPolicy, ...]:
    """`owner.hash_policy`, in order (HP-01, HP-02)."""
    made = (
        _hash_policy(item, f"{join(path, 'hash_policy')}[{index}]", report)
        for index, item in enumerate(owner.hash_policy)
    )
    return tuple(policy for policy in made if policy is not None)


def _hash_policy(message: WireMessage, path: str, report: Report) -> HashPolicy | None:
    which = message.WhichOneof("policy_specifier")
    if which is None:
        report.problem(
            path, "one of header, cookie, connection_properties, query_parameter, filter_state must be set"
        )
        return None
    held, terminal = getattr(message, which), bool(message.terminal)
    path = join(path, which)
    if which == "header":
        name = header_name(held.header_name, join(path, "header_name"), report)
        if not held.HasField("regex_rewrite"):
            return HashPolicy(HashKind.HEADER, name, terminal)
        edit = rewrite(held.regex_rewrite, join(path, "regex_rewrite"), report)
        return HashPolicy(HashKind.HEADER, name, terminal, edit.pattern, edit.substitution)
    if which == "connection_properties":
        return HashPolicy(HashKind.SOURCE_IP, terminal=terminal) if held.source_ip else None
    name = str(held.key if which == "filter_state" else held.name)
    if not name:
        report.problem(join(path, "key" if which == "filter_state" else "name"), "must not be empty")
    if which == "cookie":
        ttl = seconds(held, "ttl", path, report)
        attributes = tuple((str(item.name), str(item.value)) for item in held.attributes)
        for text in (name, str(held.path), *(part for pair in attributes for part in pair)):
            if ";" in text or not text.isprintable():
                report.problem(path, "name, path and attributes must be printable, without ;")
        return HashPolicy(
            HashKind.COOKIE, name, terminal, ttl=ttl, path=str(held.path), attributes=attributes
        )
    return HashPolicy(HashKind.QUERY if which == "query_parameter" else HashKind.FILTER_STATE, name, terminal)
