"""Rate limits: the rules of routes and virtual hosts, the local filter and the one that asks a service."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping

from meshlib.core.formats import check_format, compile_format
from meshlib.model.limits import (
    Action,
    ActionKind,
    Admission,
    DescriptorLimit,
    DescriptorRule,
    GlobalLimit,
    HostRules,
    LimitOverride,
    LocalLimit,
)
from meshlib.model.policy import RateLimit
from meshlib.xds import schema
from meshlib.xds.decode.address import cidr
from meshlib.xds.decode.headers import added
from meshlib.xds.decode.match import query_match
from meshlib.xds.decode.report import Report, join, walk
from meshlib.xds.decode.values import (
    boolean,
    header_match,
    header_name,
    header_value,
    metadata,
    number,
    percent,
    runtime_fraction,
    seconds,
    typed,
)
from meshlib.xds.names import canonical
from meshlib.xds.schema import WireMessage

__all__ = [
    "ADMISSION",
    "GLOBAL",
    "GLOBAL_HERE",
    "LIMITS",
    "LOCAL",
    "admission",
    "descriptor_rules",
    "global_limit",
    "local_limit",
    "override",
]

ADMISSION = "envoy.extensions.filters.http.admission_control.v3.AdmissionControl"
LOCAL = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
GLOBAL = "envoy.extensions.filters.http.ratelimit.v3.RateLimit"
#: What the latter's configuration is at one place.
GLOBAL_HERE = "envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute"

_MILLION = 1_000_000
_HIGHEST_STAGE = 10
_MOST_EDITS = 10
#: Envoy's least interval of a bucket, in seconds.
_LEAST_FILL = 0.05
_DEFAULT_WAIT = 0.02
_ROUTE_ENTRY = 1
_LOOPBACK = ipaddress.ip_address("127.0.0.1")


def descriptor_rules(
    owner: WireMessage, path: str, report: Report, *, hits: bool = False
) -> tuple[DescriptorRule, ...]:
    """`owner.rate_limits`, as those that can be followed here; of the others it is reported that they cannot. `hits`: calls may count
    more than once, which is so where a filter has the rules (measured with Envoy 1.40).
    """
    path = join(path, "rate_limits")
    made = (_rule(item, f"{path}[{index}]", report, hits) for index, item in enumerate(owner.rate_limits))
    return tuple(rule for rule in made if rule is not None)


def _rule(message: WireMessage, path: str, report: Report, more: bool) -> DescriptorRule | None:
    stage = number(message, "stage") or 0
    if stage > _HIGHEST_STAGE:
        report.problem(join(path, "stage"), f"must be 0 to {_HIGHEST_STAGE}, not {stage}")
    if not len(message.actions):
        report.problem(join(path, "actions"), "must not be empty")
    actions = [
        _action(item, f"{join(path, 'actions')}[{index}]", report, of_filter=more)
        for index, item in enumerate(message.actions)
    ]
    hits = number(message.hits_addend, "number") if more else None
    form = _hits_format(message.hits_addend, join(path, "hits_addend"), report)
    if message.apply_on_stream_done or form is None:
        return None  # that has been reported
    kept = tuple(action for action in actions if action is not None)
    made = DescriptorRule(kept, stage, hits, form if more else "")
    return made if len(kept) == len(actions) else None


def _hits_format(message: WireMessage, path: str, report: Report) -> str | None:
    """One command alone, as Envoy takes it; None: it cannot be followed here."""
    text = str(message.format)
    if not text:
        return ""
    place = join(path, "format")
    wrong = check_format(text)
    if wrong is None and (
        message.HasField("number") or text.count("%") != 2 or len(text) == 2 or text[0] + text[-1] != "%%"
    ):
        wrong = "must be one command, and stand alone"
    if wrong is not None:
        report.problem(place, wrong)
        return None
    unsupported = compile_format(text).unsupported
    for name in unsupported:
        report.ignore(place, f"%{name}% has no value in a client: the rule makes no descriptor")
    return None if unsupported else text


def _action(message: WireMessage, path: str, report: Report, *, of_filter: bool) -> Action | None:
    which = message.WhichOneof("action_specifier")
    if which is None:
        report.problem(path, "one kind of action must be set")
        return None
    held, here = getattr(message, which), join(path, which)
    if which in ("source_cluster", "destination_cluster", "remote_address"):
        return Action(ActionKind(which), which)
    if which == "masked_remote_address":
        return Action(ActionKind.REMOTE_ADDRESS, which, value=_masked(held, here, report))
    if which in ("request_headers", "query_parameters"):
        return _copied(which, held, here, report)
    if which == "generic_key":
        return Action(
            ActionKind.GENERIC_KEY,
            str(held.descriptor_key) or which,
            value=_needed(held, "descriptor_value", here, report),
        )
    if which == "header_value_match":
        tests = tuple(
            header_match(item, f"{join(here, 'headers')}[{index}]", report)
            for index, item in enumerate(held.headers)
        )
        return _tested(ActionKind.HEADER_MATCH, "header_match", held, here, report, headers=tests)
    if which == "query_parameter_value_match":
        queries = tuple(
            query_match(item, f"{join(here, 'query_parameters')}[{index}]", report)
            for index, item in enumerate(held.query_parameters)
        )
        return _tested(ActionKind.QUERY_MATCH, "query_match", held, here, report, query=queries)
    if which in ("metadata", "dynamic_metadata"):
        key = _needed(held, "descriptor_key", here, report)
        skips = which == "metadata" and bool(held.skip_if_absent)
        kind = ActionKind.ABSENT
        where: tuple[str, ...] = ()
        if _asks_route(message):
            if of_filter:
                report.ignore(join(here, "source"), "a filter's own rules do not see it: the default holds")
            else:
                kind, where = ActionKind.ROUTE, _path(held.metadata_key)
        return Action(kind, key, value=str(held.default_value), skip=skips, path=where)
    if which == "remote_address_match":
        return _of_address(held, here, report)
    return None  # what is not done: the table has reported it


def _asks_route(action: WireMessage) -> bool:
    return bool(action.metadata.source == _ROUTE_ENTRY)


def _path(key: WireMessage) -> tuple[str, ...]:
    return (str(key.key), *(str(segment.key) for segment in key.path))


def asked_of_routes(owner: WireMessage) -> frozenset[tuple[str, ...]]:
    """What of a route's metadata `owner.rate_limits` ask for, by its path: nothing, as a rule."""
    if not len(owner.rate_limits):
        return frozenset()
    actions = (action for rule in owner.rate_limits for action in rule.actions)
    return frozenset(_path(action.metadata.metadata_key) for action in actions if _asks_route(action))


def told_of_route(
    route: WireMessage, asked: frozenset[tuple[str, ...]]
) -> tuple[tuple[tuple[str, ...], str], ...]:
    """What of that there is: texts that are not empty, as in Envoy."""
    held, found = metadata(route), []
    for path in sorted(asked):
        value: object = held
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, str) and value:
            found.append((path, value))
    return tuple(found)


def _of_address(held: WireMessage, path: str, report: Report) -> Action | None:
    """The caller is the loopback address, as a sidecar sees an application beside it: whether it matches is known now."""
    value, key = _needed(held, "descriptor_value", path, report), str(held.descriptor_key)
    place = join(path, "address_matcher.ranges")
    if not len(held.address_matcher.ranges):
        report.problem(place, "must not be empty")
    ranges = [
        cidr(item, f"{place}[{index}]", report) for index, item in enumerate(held.address_matcher.ranges)
    ]
    inside = any(_LOOPBACK in ipaddress.ip_network(each) for each in ranges if each)
    if "%" in value:
        report.ignore(path, "formats have no value here: the rule makes no descriptor")
        return None
    said = "" if inside is held.address_matcher.invert_match else value
    return Action(ActionKind.ABSENT, key or "remote_address_match", value=said)


def _copied(which: str, held: WireMessage, path: str, report: Report) -> Action:
    field = "header_name" if which == "request_headers" else "query_parameter_name"
    source = _needed(held, field, path, report)
    if which == "request_headers":
        source = header_name(source, join(path, field), report)
    key = _needed(held, "descriptor_key", path, report)
    return Action(ActionKind(which), key, source, skip=bool(held.skip_if_absent))


def _tested(
    kind: ActionKind, key: str, held: WireMessage, path: str, report: Report, **tests: tuple[object, ...]
) -> Action:
    if not any(tests.values()):
        report.problem(path, "must say what is to hold")
    value = _needed(held, "descriptor_value", path, report)
    expect = boolean(held, "expect_match", True)
    return Action(kind, str(held.descriptor_key) or key, value=value, expect=expect, **tests)  # type: ignore[arg-type]


def _masked(held: WireMessage, path: str, report: Report) -> str:
    """The network of the loopback address."""
    bits = number(held, "v4_prefix_mask_len")
    bits = 32 if bits is None else bits
    if bits > 32 or (number(held, "v6_prefix_mask_len") or 0) > 128:
        report.problem(path, "has more bits than an address")
        return ""
    return str(ipaddress.ip_network(f"127.0.0.1/{bits}", strict=False))


def _needed(owner: WireMessage, field: str, path: str, report: Report) -> str:
    value = str(getattr(owner, field))
    if not value:
        report.problem(join(path, field), "must not be empty")
    return value


def local_limit(outer: WireMessage, path: str, report: Report, *, here: bool = False) -> LocalLimit | None:
    """What an Any that means a LocalRateLimit says, ``here``: at one place; None where it cannot be told."""
    message = _read(outer, path, report, LOCAL)
    if message is None:
        return None
    walk(message, path, report)
    _needed(message, "stat_prefix", path, report)
    limit = _bucket(message, path, report)
    if limit is None and here:
        report.problem(join(path, "token_bucket"), "is missing")
    limits = []
    for index, item in enumerate(message.descriptors):
        place = f"{join(path, 'descriptors')}[{index}]"
        own = _bucket(item, place, report)
        if own is None:
            report.problem(join(place, "token_bucket"), "is missing")
            continue
        entries = tuple((str(entry.key), str(entry.value)) for entry in item.entries)
        for step, (key, value) in enumerate(entries):
            if not key:
                report.problem(f"{join(place, 'entries')}[{step}].key", "must not be empty")
            if not value:
                report.ignore(
                    f"{join(place, 'entries')}[{step}].value",
                    "of any value: such a descriptor has no limit here",
                )
        if all(value for _, value in entries):
            limits.append(DescriptorLimit(entries, own))
    for field in ("response_headers_to_add", "request_headers_to_add_when_not_enforced"):
        if len(getattr(message, field)) > _MOST_EDITS:
            report.problem(join(path, field), f"must be at most {_MOST_EDITS}")
    return LocalLimit(
        limit,
        tuple(limits),
        _status(message, "status", 429),
        runtime_fraction(message, "filter_enabled", path, report) or 0,
        runtime_fraction(message, "filter_enforced", path, report) or 0,
        added(message, "response_headers_to_add", path, report),
        added(message, "request_headers_to_add_when_not_enforced", path, report),
        message.enable_x_ratelimit_headers == 1,
        _stage(message, path, report),
        _host_rules(message, path, report),
        boolean(message, "always_consume_default_token_bucket", True),
        bool(message.rate_limited_as_resource_exhausted),
        descriptor_rules(message, path, report, hits=True),
    )


def admission(outer: WireMessage, path: str, report: Report) -> Admission | None:
    """What an Any that means an AdmissionControl says, of a listener's filter or at one place."""
    message = _read(outer, path, report, ADMISSION)
    if message is None:
        return None
    walk(message, path, report)
    if message.WhichOneof("evaluation_criteria") is None:
        report.problem(join(path, "success_criteria"), "is missing")
    window = seconds(message, "sampling_window", path, report)
    if window is not None and window < 1.0:
        report.problem(join(path, "sampling_window"), "must be at least 1 s")
    http, grpc = message.success_criteria.http_criteria, message.success_criteria.grpc_criteria
    here = join(path, "success_criteria.http_criteria")
    if message.success_criteria.HasField("http_criteria") and not len(http.http_success_status):
        report.problem(join(here, "http_success_status"), "must not be empty")
    for index, item in enumerate(http.http_success_status):
        if not 100 <= item.start <= item.end <= 600:
            report.problem(
                f"{join(here, 'http_success_status')}[{index}]", "must be statuses from 100 to 600"
            )
    codes = frozenset(int(code) for code in grpc.grpc_success_status)
    if any(code > 16 for code in codes):
        report.problem(
            join(path, "success_criteria.grpc_criteria.grpc_success_status"), "must be codes of gRPC"
        )
    off = message.HasField("enabled") and not boolean(message.enabled, "default_value", True)
    plain = Admission()
    return Admission(
        round(window) if window is not None else plain.window,
        _share(message, "sr_threshold", plain.threshold, path, report),
        max(1.0, message.aggression.default_value) if message.HasField("aggression") else plain.aggression,
        float(message.rps_threshold.default_value),
        _share(message, "max_rejection_probability", plain.most, path, report, zero=True),
        tuple((int(item.start), int(item.end)) for item in http.http_success_status) or plain.statuses,
        codes or plain.codes,
        0 if off else _MILLION,
    )


def _share(
    owner: WireMessage, field: str, default: float, path: str, report: Report, *, zero: bool = False
) -> float:
    if not owner.HasField(field):
        return default
    found = percent(getattr(owner, field), "default_value", join(path, field), report)
    share = (100.0 if found is None else found) / 100.0
    if not share and not zero:
        report.problem(join(path, field), "must be more than 0")
    return share or (0.0 if zero else 1.0)


def global_limit(outer: WireMessage, path: str, report: Report) -> GlobalLimit | None:
    """What an Any that means a RateLimit says; None where it cannot be told, or cannot be done here: that is reported."""
    message = _read(outer, path, report, GLOBAL)
    if message is None:
        return None
    walk(message, path, report)
    domain = _needed(message, "domain", path, report)
    service = message.rate_limit_service
    if not message.HasField("rate_limit_service"):
        report.problem(join(path, "rate_limit_service"), "is missing")
    which = service.grpc_service.WhichOneof("target_specifier")
    if message.request_type not in ("", "internal", "external", "both"):
        report.problem(join(path, "request_type"), f"{message.request_type[:100]!r} is not known")
    if which is None:
        report.problem(join(path, "rate_limit_service.grpc_service"), "must say whom to ask")
    if which != "envoy_grpc" or message.request_type == "external":
        return None  # nobody of the mesh; or calls of others, and ours are internal
    asked = service.grpc_service
    cluster = _needed(
        asked.envoy_grpc, "cluster_name", join(path, "rate_limit_service.grpc_service.envoy_grpc"), report
    )
    wait = seconds(message, "timeout", path, report)
    deny = runtime_fraction(message, "failure_mode_deny_percent", path, report)
    enabled = runtime_fraction(message, "filter_enabled", path, report)
    enforced = runtime_fraction(message, "filter_enforced", path, report)
    status, error = _status(message, "rate_limited_status", 429), _status(message, "status_on_error", 500)
    return GlobalLimit(
        domain,
        canonical(cluster),
        _DEFAULT_WAIT if wait is None else wait,
        (deny if deny is not None else _MILLION) if message.failure_mode_deny else 0,
        str(asked.envoy_grpc.authority),
        _metadata(asked, join(path, "rate_limit_service.grpc_service"), report),
        status,
        error,
        _MILLION if enabled is None else enabled,
        _MILLION if enforced is None else enforced,
        added(message, "response_headers_to_add", path, report),
        message.enable_x_ratelimit_headers == 1,
        not message.disable_x_envoy_ratelimited_header,
        _stage(message, path, report),
        HostRules.OVERRIDE,
        bool(message.rate_limited_as_resource_exhausted),
        descriptor_rules(message, path, report, hits=True),
    )


def override(outer: WireMessage, path: str, report: Report) -> LimitOverride | None:
    """What an Any that means a RateLimitPerRoute says."""
    message = _read(outer, path, report, GLOBAL_HERE)
    if message is None:
        return None
    walk(message, path, report)
    return LimitOverride(
        _host_rules(message, path, report),
        str(message.domain),
        descriptor_rules(message, path, report, hits=True),
    )


def _read(outer: WireMessage, path: str, report: Report, name: str) -> WireMessage | None:
    """The message, also where it stands in a TypedStruct, as Istio's EnvoyFilter sends it."""
    if outer.type_url.rpartition("/")[2] == name:
        return typed(outer, path, report, name)
    try:
        return schema.from_json(name, schema.to_json(schema.unpack(outer).value), path=path)
    except schema.JsonError as error:
        for problem in error.problems:
            report.problem("", problem)
    except (KeyError, ValueError, schema.DecodeError) as error:
        report.problem(path, str(error.args[0] if error.args else error) or "cannot be read")
    return None


def _bucket(owner: WireMessage, path: str, report: Report) -> RateLimit | None:
    if not owner.HasField("token_bucket"):
        return None
    message, here = owner.token_bucket, join(path, "token_bucket")
    every = seconds(message, "fill_interval", here, report)
    fill = number(message, "tokens_per_fill")
    if not message.HasField("fill_interval"):
        report.problem(join(here, "fill_interval"), "is missing")
    elif every is not None and every < _LEAST_FILL:
        report.problem(join(here, "fill_interval"), f"must be at least {_LEAST_FILL:g} s")
    if not message.max_tokens:
        report.problem(join(here, "max_tokens"), "must be more than 0")
    if fill == 0:
        report.problem(join(here, "tokens_per_fill"), "must be more than 0")
    return RateLimit((1 if fill is None else fill) / (every or 1.0), float(message.max_tokens))


def _status(message: WireMessage, field: str, default: int) -> int:
    """One below 400 is the default, as in Envoy."""
    said = int(getattr(message, field).code) if message.HasField(field) else 0
    return said if 400 <= said < 600 else default


def _stage(message: WireMessage, path: str, report: Report) -> int:
    if message.stage > _HIGHEST_STAGE:
        report.problem(join(path, "stage"), f"must be 0 to {_HIGHEST_STAGE}, not {message.stage}")
    return int(message.stage)


def _host_rules(message: WireMessage, path: str, report: Report) -> HostRules:
    try:
        return HostRules(int(message.vh_rate_limits))
    except ValueError:
        report.problem(join(path, "vh_rate_limits"), f"{message.vh_rate_limits} is not known")
        return HostRules.OVERRIDE


def _metadata(message: WireMessage, path: str, report: Report) -> tuple[tuple[str, str], ...]:
    path = join(path, "initial_metadata")
    return tuple(
        (
            header_name(item.key, f"{path}[{index}].key", report),
            header_value(str(item.value), f"{path}[{index}].value", report),
        )
        for index, item in enumerate(message.initial_metadata)
    )


#: Filters that limit rates, by the types of their configurations.
LIMITS: Mapping[str, Callable[[WireMessage, str, Report], LocalLimit | GlobalLimit | Admission | None]] = {
    LOCAL: local_limit,
    GLOBAL: global_limit,
    ADMISSION: admission,
}
