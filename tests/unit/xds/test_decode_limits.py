"""Rate limits as decoded: what is honoured is in `tests/e2e/oracle/test_rate_limits.py`; here is what is refused, reported and bounded."""

from __future__ import annotations

from typing import ClassVar

import pytest

from meshlib.core.effects import Ask
from meshlib.model.limits import Action, ActionKind, Descriptor, GlobalLimit, LocalLimit
from meshlib.model.listener import FilterKind
from meshlib.model.policy import RateLimit
from meshlib.testing import build
from meshlib.xds import decode, rls, schema
from tests.support.xds_kit import raw

LOCAL = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
GLOBAL = "envoy.extensions.filters.http.ratelimit.v3.RateLimit"
BUCKET = {"max_tokens": 5, "tokens_per_fill": 2, "fill_interval": "0.5s"}
SERVICE = {"grpc_service": {"envoy_grpc": {"cluster_name": "limits"}}}
PLACE = "filter_chains[0].filters[0].typed_config.http_filters[0].typed_config"


def listener(kind, routed=None, **fields):
    route = build.route(cluster="c")
    route["route"].update(routed or {})
    routes = build.route_config("r", build.virtual_host("v", route))
    return build.listener(
        "l", routes, filters=[{"name": "limits", "typed_config": build.any_of(kind, fields)}]
    )


def decoded(resource, view="sidecar"):
    kind = next(kind for kind in decode.types(view) if kind.short == "listener")
    return kind.decode(raw(resource))


@pytest.mark.parametrize(
    ("kind", "fields", "problem"),
    [
        (LOCAL, {}, "stat_prefix: must not be empty"),
        (LOCAL, {"stat_prefix": "l", "token_bucket": {**BUCKET, "max_tokens": 0}}, "token_bucket.max_tokens: must be more"),
        (LOCAL, {"stat_prefix": "l", "token_bucket": {**BUCKET, "tokens_per_fill": 0}}, "tokens_per_fill: must be more"),
        (LOCAL, {"stat_prefix": "l", "token_bucket": {**BUCKET, "fill_interval": "0.01s"}}, "fill_interval: must be at least"),
        (LOCAL, {"stat_prefix": "l", "token_bucket": {"max_tokens": 1}}, "fill_interval: is missing"),
        (LOCAL, {"stat_prefix": "l", "stage": 11}, "stage: must be 0 to 10"),
        (LOCAL, {"stat_prefix": "l", "vh_rate_limits": 9}, "vh_rate_limits: 9 is not known"),
        (LOCAL, {"stat_prefix": "l", "descriptors": [{"entries": [{"key": "", "value": "x"}], "token_bucket": BUCKET}]},
         "descriptors[0].entries[0].key: must not be empty"),
        (LOCAL, {"stat_prefix": "l", "descriptors": [{"entries": [{"key": "a", "value": "x"}]}]},
         "descriptors[0].token_bucket: is missing"),
        (LOCAL, {"stat_prefix": "l", "response_headers_to_add": [{"header": {"key": f"x-{n}", "value": "v"}} for n in range(11)]},
         "response_headers_to_add: must be at most 10"),
        (GLOBAL, {"domain": "d"}, "rate_limit_service: is missing"),
        (GLOBAL, {"rate_limit_service": SERVICE}, "domain: must not be empty"),
        (GLOBAL, {"domain": "d", "rate_limit_service": SERVICE, "request_type": "mine"}, "request_type: 'mine' is not known"),
        (GLOBAL, {"domain": "d", "rate_limit_service": {}}, "grpc_service: must say whom to ask"),
        (GLOBAL, {"domain": "d", "rate_limit_service": SERVICE, "rate_limits": [{}]}, "rate_limits[0].actions: must not be empty"),
        (GLOBAL, {"domain": "d", "rate_limit_service": SERVICE, "rate_limits": [{"actions": [{}]}]},
         "rate_limits[0].actions[0]: one kind of action must be set"),
        (GLOBAL, {"domain": "d", "rate_limit_service": SERVICE,
                  "rate_limits": [{"actions": [{"generic_key": {}}]}]}, "generic_key.descriptor_value: must not be empty"),
        (GLOBAL, {"domain": "d", "rate_limit_service": SERVICE,
                  "rate_limits": [{"actions": [{"masked_remote_address": {"v4_prefix_mask_len": 33}}]}]}, "has more bits"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_with_its_place(kind, fields, problem):
    found = decoded(listener(kind, **fields))
    assert any(problem in line and line.startswith(PLACE) for line in found.problems), found.problems


def test_a_filter_as_istio_sends_it_is_read():
    value = {
        "stat_prefix": "l",
        "token_bucket": BUCKET,
        "filter_enabled": {"default_value": {"numerator": 100}},
    }
    struct = build.any_of(
        "udpa.type.v1.TypedStruct", {"type_url": f"type.googleapis.com/{LOCAL}", "value": value}
    )
    routes = build.route_config("r", build.virtual_host("v", build.route(cluster="c")))
    found = decoded(build.listener("l", routes, filters=[{"name": "limits", "typed_config": struct}]))
    assert not found.problems
    made = found.value.http.filters[0]
    assert made.kind is FilterKind.RATE_LIMIT
    assert (made.limit.limit, made.limit.enabled, made.limit.enforced) == (RateLimit(4.0, 5.0), 1_000_000, 0)
    value["token_bucket"] = {"max_tokens": "many"}
    found = decoded(build.listener("l", routes, filters=[{"name": "limits", "typed_config": struct}]))
    assert any("token_bucket.max_tokens" in line for line in found.problems)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"apply_on_stream_done": True}, "apply_on_stream_done"),
        ({"hits_addend": {"format": "%BYTES_RECEIVED%"}}, "hits_addend.format"),
        (
            {"actions": [{"extension": {"name": "e", "typed_config": build.any_of("my.Computed", {})}}]},
            "extension",
        ),
    ],
)
def test_a_rule_that_cannot_be_followed_is_reported_and_makes_no_descriptor(fields, field):
    rule = {"actions": [{"source_cluster": {}}], **fields}
    found = decoded(listener(GLOBAL, {"rate_limits": [rule]}, domain="d", rate_limit_service=SERVICE))
    assert not found.problems
    assert any(field in path for path, _ in found.ignored), found.ignored
    assert found.value.http.routes.virtual_hosts[0].routes[0].action.rate_limits == ()


def test_nobody_is_asked_who_is_no_cluster_and_gRPC_has_no_such_filter():
    google = {"grpc_service": {"google_grpc": {"target_uri": "x", "stat_prefix": "x"}}}
    found = decoded(listener(GLOBAL, domain="d", rate_limit_service=google))
    assert found.value.http.filters[0].limit is None
    filters = [
        {
            "name": "limits",
            "typed_config": build.any_of(GLOBAL, {"domain": "d", "rate_limit_service": SERVICE}),
        }
    ]
    api = build.api_listener(
        "l", build.route_config("r", build.virtual_host("v", build.route(cluster="c"))), filters=filters
    )
    assert any("is not supported and not optional" in line for line in decoded(api, "target").problems)
    made = decoded(listener(GLOBAL, domain="d", rate_limit_service=SERVICE)).value.http.filters[0].limit
    assert isinstance(made, GlobalLimit)
    assert (made.cluster, made.seconds, made.deny) == ("limits", 0.02, 0)
    assert isinstance(decoded(listener(LOCAL, stat_prefix="l")).value.http.filters[0].limit, LocalLimit)


RESPONSE = "envoy.service.ratelimit.v3.RateLimitResponse"


def test_a_question_and_answers_that_are_none():
    ask = Ask("p", "limits", "", (), 0.02, "d", (Descriptor((("k", "v"),), 3), Descriptor((("a", "b"),))))
    asked = schema.to_json(
        schema.message("envoy.service.ratelimit.v3.RateLimitRequest").FromString(rls.question(ask))
    )
    assert asked == {
        "domain": "d",
        "descriptors": [
            {"entries": [{"key": "k", "value": "v"}], "hits_addend": "3"},
            {"entries": [{"key": "a", "value": "b"}]},
        ],
    }
    assert rls.verdict(b"\xff\xff\xff") is None
    assert rls.verdict(b"") == (False, (), (), b"", ())


def test_what_an_answer_adds_is_bounded():
    lines = [{"key": f"x-{number}", "value": "v"} for number in range(500)]
    made = schema.from_json(
        RESPONSE,
        {"overall_code": "OVER_LIMIT", "response_headers_to_add": lines, "raw_body": "AAAA" * 50_000},
    )
    found = rls.verdict(made.SerializeToString())
    assert found.over
    assert len(found.response) == 100
    assert len(found.body) == 64 * 1024


def rules_of(**rule):
    filters = {"rate_limits": [{"actions": [{"source_cluster": {}}], **rule}]}
    found = decoded(listener(GLOBAL, {}, domain="d", rate_limit_service=SERVICE, **filters))
    return found, found.value.http.filters[0].limit.rules if found.value is not None else None


def test_how_many_a_call_counts_for_may_be_a_format():
    found, [rule] = rules_of(hits_addend={"format": "%REQ(x-cost)%"})
    assert (rule.hits, rule.hits_format) == (None, "%REQ(x-cost)%")
    assert found.ignored == ()


@pytest.mark.parametrize("text", ["7", "%REQ(a)%%REQ(b)%", "x%REQ(a)%", "%%", "%NOPE%"])
def test_a_format_of_hits_is_one_command(text):
    [problem] = rules_of(hits_addend={"format": text})[0].problems
    assert "hits_addend.format: " in problem


def test_either_a_number_or_a_format():
    assert rules_of(hits_addend={"format": "%REQ(a)%", "number": 3})[0].problems


@pytest.mark.parametrize(
    ("ranges", "invert", "value"),
    [
        ([("127.0.0.0", 8)], False, "here"),
        ([("10.0.0.0", 8), ("127.0.0.1", 32)], False, "here"),
        ([("10.0.0.0", 8), ("::", 0)], False, ""),
        ([("10.0.0.0", 8)], True, "here"),
        ([("127.0.0.0", 8)], True, ""),
    ],
)
def test_the_callers_address_is_the_loopback_address(ranges, invert, value):
    matcher = {"ranges": [{"address_prefix": prefix, "prefix_len": length} for prefix, length in ranges]}
    action = {"descriptor_value": "here", "address_matcher": {**matcher, "invert_match": invert}}
    _, [rule] = rules_of(actions=[{"remote_address_match": action}])
    assert rule.actions == (Action(ActionKind.ABSENT, "remote_address_match", value=value),)


@pytest.mark.parametrize(
    ("action", "problem"),
    [
        ({"descriptor_value": "v"}, "address_matcher.ranges: must not be empty"),
        ({"address_matcher": {"ranges": [{"address_prefix": "::"}]}}, "descriptor_value: must not be empty"),
        ({"descriptor_value": "v", "address_matcher": {"ranges": [{"address_prefix": "x"}]}}, "ranges[0]: "),
    ],
)
def test_an_address_match_that_says_nothing(action, problem):
    assert problem in rules_of(actions=[{"remote_address_match": action}])[0].problems[0]


class TestMetadataOfRoutes:
    ASKS: ClassVar = {
        "metadata": {
            "descriptor_key": "plan",
            "metadata_key": {"key": "team", "path": [{"key": "of"}, {"key": "plan"}]},
            "source": "ROUTE_ENTRY",
        }
    }

    def test_a_route_keeps_what_is_asked_for(self):
        told = {"metadata": {"filter_metadata": {"team": {"of": {"plan": "gold"}, "more": "x"}, "istio": {}}}}
        rules = {"rate_limits": [{"actions": [self.ASKS]}]}
        own = build.route("/own", cluster="a", action=rules, **told)
        config = build.route_config("r", build.virtual_host("v", own, build.route(cluster="a", **told)))
        found = decode.route(raw(config)).value.virtual_hosts[0].routes
        assert [route.metadata for route in found] == [((("team", "of", "plan"), "gold"),), ()]
        [rule] = found[0].action.rate_limits
        assert rule.actions == (Action(ActionKind.ROUTE, "plan", path=("team", "of", "plan")),)

    def test_a_virtual_host_asks_all_of_its_routes(self):
        told = [{"team": {"of": {"plan": "gold"}}}, {"team": {"of": {"plan": 7}}}, {"team": {"of": "x"}}, {}]
        routes = [build.route(cluster="a", metadata={"filter_metadata": each}) for each in told]
        host = build.virtual_host("v", *routes, rate_limits=[{"actions": [self.ASKS]}])
        found = decode.route(raw(build.route_config("r", host))).value.virtual_hosts[0].routes
        assert [route.metadata for route in found] == [((("team", "of", "plan"), "gold"),), (), (), ()]

    def test_in_a_filters_own_rules_it_is_reported(self):
        found, [rule] = rules_of(actions=[self.ASKS])
        assert rule.actions == (Action(ActionKind.ABSENT, "plan"),)
        assert [path.rpartition(".")[2] for path, _ in found.ignored] == ["source"]
