"""What a cluster itself orders of the calls to it: it goes before what routes order, as in Envoy (measured, 1.40)."""

from __future__ import annotations

from meshlib.model.cluster import CallPolicies
from meshlib.model.policy import HashPolicy, MatchKind, ResponseMatch
from meshlib.xds import schema
from meshlib.xds.decode.action import mirrors
from meshlib.xds.decode.report import Report, join
from meshlib.xds.decode.retry import hash_policies, retry_policy
from meshlib.xds.decode.values import header_match
from meshlib.xds.schema import WireMessage

__all__ = ["call_policies"]

_KEY = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_FIELDS = ("retry_policy", "outlier_detection")
_LISTS = ("hash_policy", "request_mirror_policies")
_NEVER = ResponseMatch(MatchKind.NOT, (ResponseMatch(MatchKind.EVERYTHING),))
_SETS = {"or_match": MatchKind.ANY, "and_match": MatchKind.ALL}


def call_policies(
    cluster: WireMessage, path: str, report: Report
) -> tuple[CallPolicies | None, tuple[HashPolicy, ...]]:
    """The policies, None where it orders none, and the hash policies of its own."""
    held = cluster.typed_extension_protocol_options
    if _KEY not in held:
        return None, ()
    try:
        message = schema.unpack(held[_KEY])
    except (KeyError, ValueError, schema.DecodeError):
        return None, ()  # told already (`decode.upstream`)
    if schema.full_name(message.DESCRIPTOR) != _KEY:
        return None, ()
    set_here = [name for name in _FIELDS if message.HasField(name)]
    set_here += [name for name in _LISTS if len(getattr(message, name))]
    path = join(path, f"typed_extension_protocol_options[{_KEY!r}]")
    if report.grpc_tls:
        for name in set_here:
            report.ignore(join(path, name), "gRPC does not read it")
        return None, ()
    if not set_here:
        return None, ()
    errors = None
    if message.HasField("outlier_detection"):
        place = join(path, "outlier_detection.error_matcher")
        if message.outlier_detection.HasField("error_matcher"):
            errors = _match(message.outlier_detection.error_matcher, place, report)
    made = CallPolicies(retry_policy(message, path, report), mirrors(message, path, report), errors)
    return made, hash_policies(message, path, report)


def _match(message: WireMessage, path: str, report: Report) -> ResponseMatch:
    """What is of requests, trailers or bodies never holds: as in Envoy, only the headers of a response are looked at."""
    which = message.WhichOneof("rule")
    here = join(path, which or "")
    if which == "any_match":
        return ResponseMatch(MatchKind.EVERYTHING)
    if which == "http_response_headers_match":
        headers = tuple(
            header_match(item, f"{join(here, 'headers')}[{index}]", report)
            for index, item in enumerate(message.http_response_headers_match.headers)
        )
        return ResponseMatch(MatchKind.HEADERS, headers=headers)
    if which == "not_match":
        return ResponseMatch(MatchKind.NOT, (_match(message.not_match, here, report),))
    if which in _SETS:
        rules = getattr(message, which).rules
        if len(rules) < 2:
            report.problem(join(here, "rules"), "must have two members at least")
        inner = (_match(rule, f"{join(here, 'rules')}[{index}]", report) for index, rule in enumerate(rules))
        return ResponseMatch(_SETS[which], tuple(inner))
    if which is None:
        report.problem(path, "one of its rules must be set")
    return _NEVER
