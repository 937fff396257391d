"""Route configurations: every field into the model, every mistake by its path."""

from __future__ import annotations

from typing import ClassVar

import pytest

from meshlib.model.headers import OF_THE_CONNECTION
from meshlib.model.match import HeaderMatch, PathKind, StringKind, StringMatch
from meshlib.model.policy import (
    Elsewhere,
    HashKind,
    InternalRedirects,
    PredicateKind,
    RedirectPredicate,
    RetryPolicy,
)
from meshlib.model.route import (
    ClusterWeight,
    DirectResponse,
    Edit,
    EditAction,
    Forward,
    HostRewriteKind,
    Mirror,
    NonForwarding,
    Redirect,
)
from meshlib.testing import build
from meshlib.xds import decode
from tests.support.xds_kit import message, raw

RETRY = "type.googleapis.com/envoy.extensions.retry."


def config(*routes, host=None, **fields):
    return build.route_config("r", build.virtual_host("v", *routes, **(host or {})), **fields)


def good(resource):
    found = decode.route(raw(resource))
    assert found.problems == ()
    return found.value


def route_of(route):
    return good(config(route)).virtual_hosts[0].routes[0]


def problems(resource):
    """In the target view, the stricter one: test_decode_views.py has what Envoy takes."""
    found = decode.route(raw(resource), "target")
    assert found.value is None
    return found.problems


def ignored(resource):
    found = decode.route(raw(resource))
    assert found.problems == ()
    return dict(found.ignored)


def action_problem(**action):
    [found] = problems(config(build.route(cluster="a", action=action)))
    return found.removeprefix("virtual_hosts[0].routes[0].route.")


class TestHosts:
    def test_fields(self):
        made = good(
            config(
                build.route(cluster="a", name="first"),
                host={
                    "domains": ["A.example", "*.b.example", "c.*"],
                    "require_tls": "EXTERNAL_ONLY",
                    "include_request_attempt_count": True,
                },
                ignore_port_in_host_matching=True,
                most_specific_header_mutations_wins=True,
            )
        )
        host = made.virtual_hosts[0]
        assert made.name == "r"
        assert made.ignore_port
        assert made.most_specific_wins
        assert host.domains == ("A.example", "*.b.example", "c.*")
        assert host.require_tls == "external"
        assert host.include_attempt_count
        assert host.routes[0].name == "first"

    @pytest.mark.parametrize("domain", ["a*b", "**", "*a*", ""])
    def test_vh_04_inner_stars(self, domain):
        [found] = problems(config(host={"domains": ["fine.example", domain]}))
        assert found.startswith("virtual_hosts[0].domains[1]: ")

    def test_vh_04_no_domains(self):
        assert problems(config(host={"domains": []})) == ("virtual_hosts[0].domains: must not be empty",)

    def test_vh_04_a_domain_twice_in_another_case(self):
        two = build.route_config(
            "r",
            build.virtual_host("a", domains=["X.example"]),
            build.virtual_host("b", domains=["x.EXAMPLE"]),
        )
        [found] = problems(two)
        assert found.startswith("virtual_hosts[1].domains[0]: 'x.EXAMPLE' is already")

    def test_every_virtual_host_is_checked_and_every_problem_told(self):
        two = build.route_config(
            "r",
            build.virtual_host("a", build.route(), domains=["a"]),
            build.virtual_host("b", build.route(regex="("), build.route(respond=(42, "")), domains=["b"]),
        )
        found = problems(two)
        assert [text.partition(": ")[0] for text in found] == [
            "virtual_hosts[0].routes[0].route",
            "virtual_hosts[1].routes[0].match.safe_regex.regex",
            "virtual_hosts[1].routes[0].route",
            "virtual_hosts[1].routes[1].direct_response.status",
        ]

    def test_a_name_is_needed(self):
        assert problems(build.route_config("")) == ("name: must not be empty",)


class TestMatch:
    @pytest.mark.parametrize(
        ("match", "kind", "value"),
        [
            ({"prefix": ""}, PathKind.PREFIX, ""),
            ({"path": "/a"}, PathKind.EXACT, "/a"),
            ({"path_separated_prefix": "/a/b"}, PathKind.SEPARATED_PREFIX, "/a/b"),
            ({"safe_regex": {"regex": "/[0-9]+"}}, PathKind.REGEX, "/[0-9]+"),
        ],
    )
    def test_paths(self, match, kind, value):
        made = route_of({"match": match, "route": {"cluster": "a"}}).match.path
        assert (made.kind, made.value, made.case_sensitive) == (kind, value, True)

    def test_rm_04_case(self):
        made = route_of(build.route("/A", cluster="a", match={"case_sensitive": False}))
        assert not made.match.path.case_sensitive

    def test_rm_02_a_path_is_needed(self):
        [found] = problems(config({"match": {}, "route": {"cluster": "a"}}))
        assert found.startswith("virtual_hosts[0].routes[0].match: one of prefix")

    @pytest.mark.parametrize("value", ["/a/", "/a?b", "/a#b", ""])
    def test_separated_prefixes(self, value):
        [found] = problems(config({"match": {"path_separated_prefix": value}, "route": {"cluster": "a"}}))
        assert "match.path_separated_prefix" in found

    def test_rm_03_what_re2_does_not_take(self):
        [found] = problems(config(build.route(regex=r"(a)\1", cluster="a")))
        assert found.startswith("virtual_hosts[0].routes[0].match.safe_regex.regex: ")

    def test_rm_05_uri_templates_are_refused(self):
        template = {"name": "t", "typed_config": {"@type": "type.googleapis.com/google.protobuf.Empty"}}
        [found] = problems(config({"match": {"path_match_policy": template}, "route": {"cluster": "a"}}))
        assert found.startswith("virtual_hosts[0].routes[0].match.path_match_policy: ")

    @pytest.mark.parametrize(
        ("match", "field"),
        [
            ({"connect_matcher": {}}, "connect_matcher"),
            ({"prefix": "/", "dynamic_metadata": [{}]}, "dynamic_metadata"),
            ({"prefix": "/", "dynamic_metadata": [{"invert": True}, {}]}, "dynamic_metadata"),
            ({"prefix": "/", "filter_state": [{}]}, "filter_state"),
            ({"prefix": "/", "tls_context": {"presented": True}}, "tls_context"),
        ],
    )
    def test_what_can_never_match_is_left_out_and_told(self, match, field):
        both = config({"match": match, "route": {"cluster": "a"}}, build.route(cluster="b"))
        assert [route.action.cluster for route in good(both).virtual_hosts[0].routes] == ["b"]
        assert list(ignored(both)) == [f"virtual_hosts[0].routes[0].match.{field}"]

    def test_a_route_for_calls_without_metadata_is_for_all(self):
        route = build.route(cluster="a", match={"dynamic_metadata": [{"filter": "f", "invert": True}]})
        assert route_of(route).match.path.value == "/"
        assert ignored(config(route)) == {}

    def test_rm_08_calls_come_without_tls(self):
        made = route_of(build.route(cluster="a", match={"tls_context": {"presented": False}}))
        assert made.match.path.value == "/"

    @pytest.mark.parametrize(
        ("fraction", "expected"),
        [
            ({"numerator": 50}, 500_000),
            ({"numerator": 1, "denominator": "TEN_THOUSAND"}, 100),
            ({"numerator": 7, "denominator": "MILLION"}, 7),
            ({"numerator": 300}, 1_000_000),
        ],
    )
    def test_rm_06_runtime_fraction(self, fraction, expected):
        made = route_of(build.route(cluster="a", match={"runtime_fraction": {"default_value": fraction}}))
        assert made.match.per_million == expected

    def test_rm_06_an_unknown_denominator(self):
        match = {"runtime_fraction": {"default_value": {"numerator": 1, "denominator": 9}}}
        [found] = problems(config(build.route(cluster="a", match=match)))
        assert found.endswith("match.runtime_fraction.default_value.denominator: 9 is not known")

    @pytest.mark.parametrize(
        ("matcher", "expected"),
        [
            ({"exact_match": "a"}, HeaderMatch("x", StringMatch(StringKind.EXACT, "a"))),
            ({"prefix_match": "a"}, HeaderMatch("x", StringMatch(StringKind.PREFIX, "a"))),
            ({"suffix_match": "a"}, HeaderMatch("x", StringMatch(StringKind.SUFFIX, "a"))),
            ({"contains_match": "a"}, HeaderMatch("x", StringMatch(StringKind.CONTAINS, "a"))),
            ({"safe_regex_match": {"regex": "a+"}}, HeaderMatch("x", StringMatch(StringKind.REGEX, "a+"))),
            (
                {"string_match": {"contains": "a", "ignore_case": True}},
                HeaderMatch("x", StringMatch(StringKind.CONTAINS, "a", True)),
            ),
            ({"range_match": {"start": -1, "end": 5}}, HeaderMatch("x", range=(-1, 5))),
            ({"present_match": False}, HeaderMatch("x", present=False)),
            ({"invert_match": True}, HeaderMatch("x", present=True, invert=True)),
            (
                {"exact_match": "", "treat_missing_header_as_empty": True},
                HeaderMatch("x", StringMatch(StringKind.PREFIX, ""), missing_as_empty=True),
            ),
        ],
    )
    def test_headers(self, matcher, expected):
        made = route_of(build.route(cluster="a", match={"headers": [{"name": "X", **matcher}]}))
        assert made.match.headers == (expected,)

    @pytest.mark.parametrize(
        ("matcher", "place"),
        [
            ({"range_match": {"start": 5, "end": 1}}, "range_match"),
            ({"prefix_match": ""}, "prefix_match"),
            ({"string_match": {"suffix": ""}}, "string_match.suffix"),
            ({"string_match": {"custom": {}}}, "string_match.custom"),
            ({"string_match": {}}, "string_match"),
            ({"name": "", "present_match": True}, "name"),
            ({"name": "a b", "present_match": True}, "name"),
        ],
    )
    def test_hm_03_hm_04_wrong_headers(self, matcher, place):
        [found] = problems(
            config(
                build.route(
                    cluster="a",
                    match={"headers": [{"name": "x", "present_match": True}, {"name": "x", **matcher}]},
                )
            )
        )
        assert found.startswith(f"virtual_hosts[0].routes[0].match.headers[1].{place}: ")

    def test_rm_07_query(self):
        query = [
            {"name": "a", "string_match": {"exact": "1"}},
            {"name": "b", "present_match": True},
            {"name": "c"},
        ]
        made = route_of(build.route(cluster="a", match={"query_parameters": query})).match.query
        assert [(each.name, each.present) for each in made] == [("a", None), ("b", True), ("c", True)]


class TestForward:
    def test_fields(self):
        made = route_of(
            build.route(
                cluster="a",
                timeout=2.5,
                action={
                    "prefix_rewrite": "/new",
                    "host_rewrite_literal": "h",
                    "append_x_forwarded_host": True,
                    "cluster_not_found_response_code": "NOT_FOUND",
                    "idle_timeout": "3s",
                    "max_stream_duration": {"max_stream_duration": "4s", "grpc_timeout_header_max": "5s"},
                },
            )
        ).action
        assert isinstance(made, Forward)
        assert (made.cluster, made.timeout, made.prefix_rewrite) == ("a", 2.5, "/new")
        assert made.host_rewrite.kind is HostRewriteKind.LITERAL
        assert made.append_forwarded_host
        assert (made.not_found_status, made.idle_timeout) == (404, 3.0)
        assert (made.max_stream_duration, made.grpc_timeout_header_max) == (4.0, 5.0)

    def test_a_limit_of_grpc_calls_that_envoy_alone_reads(self):
        def limit(**action):
            return route_of(build.route(cluster="a", action=action)).action.grpc_timeout_header_max

        assert limit(max_grpc_timeout="0s") == 0.0
        assert limit(max_grpc_timeout="3s") == 3.0
        beside = {"max_grpc_timeout": "3s", "max_stream_duration": {"max_stream_duration": "9s"}}
        assert limit(**beside) is None
        told = ignored(config(build.route(cluster="a", action=beside)))
        assert list(told) == ["virtual_hosts[0].routes[0].route.max_grpc_timeout"]
        found = decode.route(
            raw(config(build.route(cluster="a", action={"max_grpc_timeout": "3s"}))), view="target"
        )
        assert found.value.virtual_hosts[0].routes[0].action.grpc_timeout_header_max is None

    @pytest.mark.parametrize(
        ("said", "limit"),
        [
            ({}, None),
            ({"per_request_buffer_limit_bytes": 5}, 5),
            ({"request_body_buffer_limit": 0}, 0),
            ({"per_request_buffer_limit_bytes": 5, "request_body_buffer_limit": 7}, 7),
        ],
    )
    def test_how_long_a_body_may_be_that_is_sent_again(self, said, limit):
        resource = config(build.route(cluster="a", **said), host=said)
        [host] = good(resource).virtual_hosts
        assert (host.body_limit, host.routes[0].body_limit) == (limit, limit)
        assert ignored(resource) == {}

    def test_the_number_that_chooses_a_share(self):
        def made(**more):
            shares = {"clusters": [{"name": "a", "weight": 1}], **more}
            return config({"match": {"prefix": "/"}, "route": {"weighted_clusters": shares}})

        by_header = good(made(header_name="X-Share")).virtual_hosts[0].routes[0].action
        assert (by_header.share_header, by_header.share_by_hash) == ("x-share", False)
        by_hash = good(made(use_hash_policy=True)).virtual_hosts[0].routes[0].action
        assert (by_hash.share_header, by_hash.share_by_hash) == ("", True)
        [found] = problems(made(header_name="a b"))
        assert found.startswith("virtual_hosts[0].routes[0].route.weighted_clusters.header_name: ")

    def test_to_02_no_timeout_is_not_zero(self):
        assert route_of(build.route(cluster="a")).action.timeout is None
        assert route_of(build.route(cluster="a", timeout=0)).action.timeout == 0.0

    @pytest.mark.parametrize(
        ("rewrite", "kind", "value"),
        [
            ({"host_rewrite_header": "X-H"}, HostRewriteKind.HEADER, "x-h"),
            ({"auto_host_rewrite": True}, HostRewriteKind.AUTO, ""),
            (
                {"host_rewrite_path_regex": {"pattern": {"regex": "^/(.+)$"}, "substitution": r"\1"}},
                HostRewriteKind.PATH_REGEX,
                "",
            ),
        ],
    )
    def test_rw_02_host_rewrites(self, rewrite, kind, value):
        made = route_of(build.route(cluster="a", action=rewrite)).action.host_rewrite
        assert (made.kind, made.value) == (kind, value)

    def test_ra_01_weights(self):
        clusters = [
            {"name": "a", "weight": 80, "request_headers_to_remove": ["X-A"], "host_rewrite_literal": "h"},
            {"name": "b", "weight": 0},
            {"cluster_header": "X-C", "weight": 20},
        ]
        made = route_of(build.route(action={"weighted_clusters": {"clusters": clusters}})).action.weighted
        assert [(each.cluster, each.cluster_header, each.weight) for each in made] == [
            ("a", "", 80),
            ("", "x-c", 20),
        ]
        assert made[0].edits.request_remove == ("x-a",)
        assert isinstance(made[0], ClusterWeight)
        assert made[0].host_rewrite.value == "h"

    def test_labels(self):
        """Those of a share over the route's; only what is under `envoy.lb`."""

        def match(**labels):
            return {"metadata_match": {"filter_metadata": {"envoy.lb": labels, "other": {"x": "y"}}}}

        shares = [
            {"name": "a", "weight": 1, **match(v="2", on=True)},
            {"name": "b", "weight": 1},
        ]
        action = route_of(
            build.route(action={"weighted_clusters": {"clusters": shares}, **match(v="1", n=1)})
        ).action
        assert action.labels == (("n", 1.0), ("v", "1"))
        assert [share.labels for share in action.weighted] == [
            (("n", 1.0), ("on", (bool, True)), ("v", "2")),
            action.labels,
        ]
        assert route_of(build.route(cluster="a")).action.labels == ()

    @pytest.mark.parametrize(
        ("clusters", "place"),
        [
            ([], "clusters"),
            ([{"name": "a", "weight": 0}], "clusters"),
            ([{"name": "a"}], "clusters[0].weight"),
            ([{"weight": 1}], "clusters[0]"),
            ([{"name": "a", "cluster_header": "b", "weight": 1}], "clusters[0]"),
            ([{"name": "a", "weight": 4294967295}, {"name": "b", "weight": 1}], "clusters"),
        ],
    )
    def test_ra_01_wrong_weights(self, clusters, place):
        [found] = problems(config(build.route(action={"weighted_clusters": {"clusters": clusters}})))
        assert found.startswith(f"virtual_hosts[0].routes[0].route.weighted_clusters.{place}: ")

    def test_ra_03_cluster_header_and_plugins(self):
        assert route_of(build.route(action={"cluster_header": "X-To"})).action.cluster_header == "x-to"
        both = config(build.route(action={"cluster_specifier_plugin": "p"}), build.route(cluster="b"))
        assert [route.action.cluster for route in good(both).virtual_hosts[0].routes] == ["b"]
        assert ignored(both) == {"virtual_hosts[0].routes[0].route.cluster_specifier_plugin": "p"}

    @pytest.mark.parametrize(
        ("action", "place"),
        [
            ({"regex_rewrite": {"pattern": {"regex": "("}}}, "regex_rewrite.pattern.regex"),
            (
                {"regex_rewrite": {"pattern": {"regex": "a"}, "substitution": r"\1"}},
                "regex_rewrite.substitution",
            ),
            ({"prefix_rewrite": "/a", "regex_rewrite": {"pattern": {"regex": "a"}}}, "prefix_rewrite"),
            ({"prefix_rewrite": "/a\r\nx: y"}, "prefix_rewrite"),
            ({"host_rewrite_literal": "a\nb"}, "host_rewrite_literal"),
            ({"path_rewrite": "%PATH%"}, "path_rewrite"),
            ({"cluster_not_found_response_code": 7}, "cluster_not_found_response_code"),
        ],
    )
    def test_wrong_actions(self, action, place):
        assert action_problem(**action).startswith(f"{place}: ")

    def test_er_12_durations(self):
        made = message(config(build.route(cluster="a", timeout=1)))
        held = made.virtual_hosts[0].routes[0].route.timeout
        held.seconds, held.nanos = -1, 0
        found = decode.route(made.SerializeToString())
        assert found.problems[0].startswith("virtual_hosts[0].routes[0].route.timeout: must be 0 to")
        held.seconds, held.nanos = 1, 1_000_000_000
        assert decode.route(made.SerializeToString()).value is None

    def test_rw_04_mirrors(self):
        mirrors = [
            {
                "cluster": "m",
                "runtime_fraction": {"default_value": {"numerator": 10}},
                "disable_shadow_host_suffix_append": True,
            },
            {"cluster_header": "X-M"},
        ]
        made = route_of(build.route(cluster="a", action={"request_mirror_policies": mirrors})).action.mirrors
        assert made == (Mirror("m", 100_000, "", False), Mirror("", None, "x-m", True))

    def test_hp_01_hash_policies(self):
        policies = [
            {"header": {"header_name": "X-U"}, "terminal": True},
            {"cookie": {"name": "c", "ttl": "5s", "path": "/"}},
            {"connection_properties": {"source_ip": True}},
            {"query_parameter": {"name": "q"}},
            {"filter_state": {"key": "k"}},
        ]
        made = route_of(build.route(cluster="a", action={"hash_policy": policies})).action.hash_policy
        assert [(each.kind, each.name) for each in made] == [
            (HashKind.HEADER, "x-u"),
            (HashKind.COOKIE, "c"),
            (HashKind.SOURCE_IP, ""),
            (HashKind.QUERY, "q"),
            (HashKind.FILTER_STATE, "k"),
        ]
        assert made[0].terminal
        assert (made[1].ttl, made[1].path) == (5.0, "/")


class TestRetry:
    def policy(self, **fields):
        return route_of(build.route(cluster="a", retry=fields)).action.retry

    def test_defaults_are_envoys(self):
        made = self.policy(retry_on="5xx")
        assert made == RetryPolicy(on=frozenset({"5xx"}))
        assert (made.retries, made.base_interval, made.max_interval) == (1, 0.025, 0.25)

    def test_dv_14_tokens_are_trimmed_and_lower_case(self):
        assert self.policy(retry_on=" 5XX , reset,").on == {"5xx", "reset"}

    def test_every_condition_of_envoys_is_taken(self):  # RT-02, RT-06
        words = (
            "5xx,gateway-error,reset,reset-before-request,connect-failure,envoy-ratelimited,retriable-4xx,refused-stream,"
            "retriable-status-codes,retriable-headers,http3-post-connect-failure,"
            "cancelled,deadline-exceeded,internal,resource-exhausted,unavailable"
        )
        assert self.policy(retry_on=words).on == set(words.split(","))
        assert ignored(config(build.route(cluster="a", retry={"retry_on": words}))) == {}

    def test_unknown_tokens_are_told(self):
        found = ignored(config(build.route(cluster="a", retry={"retry_on": "5xx,moon"})))
        assert found == {"virtual_hosts[0].routes[0].route.retry_policy.retry_on": "moon"}

    def test_fields(self):
        made = self.policy(
            retry_on="retriable-status-codes",
            num_retries=0,
            per_try_timeout="0.5s",
            retriable_status_codes=[418, 503],
            retry_back_off={"base_interval": "0.0001s", "max_interval": "1s"},
            retriable_headers=[{"name": "X-R"}],
            retriable_request_headers=[{"name": "X-Q"}],
            rate_limited_retry_back_off={
                "reset_headers": [{"name": "Retry-After"}, {"name": "X-At", "format": "UNIX_TIMESTAMP"}],
                "max_interval": "7s",
            },
        )
        assert (made.retries, made.per_try_timeout, made.statuses) == (0, 0.5, frozenset({418, 503}))
        assert (made.base_interval, made.max_interval) == (0.001, 1.0)  # RT-04
        assert [each.name for each in made.headers + made.request_headers] == ["x-r", "x-q"]
        assert made.reset_headers == (("retry-after", "seconds"), ("x-at", "unix_timestamp"))
        assert made.max_reset_interval == 7.0

    @pytest.mark.parametrize(
        ("policy", "place"),
        [
            ({"retry_back_off": {}}, "retry_back_off.base_interval"),
            ({"retry_back_off": {"base_interval": "0s"}}, "retry_back_off.base_interval"),
            (
                {"retry_back_off": {"base_interval": "2s", "max_interval": "1s"}},
                "retry_back_off.max_interval",
            ),
            ({"rate_limited_retry_back_off": {}}, "rate_limited_retry_back_off.reset_headers"),
        ],
    )
    def test_rt_04_wrong(self, policy, place):
        [found] = problems(config(build.route(cluster="a", retry=policy)))
        assert found.startswith(f"virtual_hosts[0].routes[0].route.retry_policy.{place}: ")

    def test_rt_01_a_virtual_hosts_own(self):
        made = good(config(build.route(cluster="a"), host={"retry_policy": {"retry_on": "reset"}}))
        assert made.virtual_hosts[0].retry.on == {"reset"}
        assert made.virtual_hosts[0].routes[0].action.retry is None

    def test_previous_hosts_is_the_rule_and_others_are_told(self):
        kind = "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
        predicates = [{"name": "p", "typed_config": {"@type": kind}}, {"name": "canary"}]
        found = ignored(config(build.route(cluster="a", retry={"retry_host_predicate": predicates})))
        assert list(found) == ["virtual_hosts[0].routes[0].route.retry_policy.retry_host_predicate[1]"]


class TestOtherActions:
    def test_where_retries_go(self):
        """RT-07: another host first is the rule whatever is said."""

        def of(kind, **fields):
            return {"name": "x", "typed_config": {"@type": f"{RETRY}{kind}", **fields}}

        def labels(**held):
            matched = {"filter_metadata": {"envoy.lb": held}}
            return of("host.omit_host_metadata.v3.OmitHostMetadataConfig", metadata_match=matched)

        def elsewhere(**retry):
            made = config(build.route(cluster="a", retry=retry))
            assert ignored(made) == {}
            return route_of(build.route(cluster="a", retry=retry)).action.retry.elsewhere

        previous = of("priority.previous_priorities.v3.PreviousPrioritiesConfig", update_frequency=2)
        canaries = of("host.omit_canary_hosts.v3.OmitCanaryHostsPredicate")
        assert elsewhere() is None
        assert elsewhere(retry_host_predicate=[of("host.previous_hosts.v3.PreviousHostsPredicate")]) is None
        assert elsewhere(retry_priority=previous) == Elsewhere(2)
        assert elsewhere(retry_host_predicate=[canaries]) == Elsewhere(canaries=False)
        named = {"name": "envoy.retry_host_predicates.omit_canary_hosts"}
        assert elsewhere(retry_host_predicate=[named]) == Elsewhere(canaries=False)
        two = [labels(v="1", on=True), labels(), labels(v="2"), canaries]
        assert elsewhere(retry_host_predicate=two, retry_priority=previous) == Elsewhere(
            2, False, ((("on", (bool, True)), ("v", "1")), (("v", "2"),))
        )

    @pytest.mark.parametrize(
        ("retry", "path"),
        [
            ({"retry_priority": {"name": "other"}}, "retry_priority"),
            ({"retry_priority": {"name": "envoy.retry_priorities.previous_priorities"}}, "retry_priority"),
            (
                {"retry_host_predicate": [{"name": "envoy.retry_host_predicates.omit_host_metadata"}]},
                "retry_host_predicate[0]",
            ),
        ],
    )
    def test_where_retries_go_by_what_is_not_known(self, retry, path):
        found = ignored(config(build.route(cluster="a", retry=retry)))
        assert list(found) == [f"virtual_hosts[0].routes[0].route.retry_policy.{path}"]

    @pytest.mark.parametrize("every", [0, -1])
    def test_priorities_that_are_left_after_no_attempts(self, every):
        typed = {
            "@type": f"{RETRY}priority.previous_priorities.v3.PreviousPrioritiesConfig",
            "update_frequency": every,
        }
        retry = {"retry_priority": {"name": "x", "typed_config": typed}}
        [found] = problems(config(build.route(cluster="a", retry=retry)))
        assert found.endswith(f"typed_config.update_frequency: must be more than 0, not {every}")

    def test_ra_04_redirect(self):
        made = route_of(
            build.route(
                redirect={
                    "https_redirect": True,
                    "host_redirect": "h",
                    "port_redirect": 444,
                    "path_redirect": "/p",
                    "response_code": "PERMANENT_REDIRECT",
                    "strip_query": True,
                }
            )
        ).action
        assert made == Redirect(308, True, "", "h", 444, "/p", None, None, True)
        assert route_of(build.route(redirect={"prefix_rewrite": "/n"})).action == Redirect(
            prefix_rewrite="/n"
        )

    def test_ra_04_direct_response(self):
        assert route_of(build.route(respond=(418, "tea"))).action == DirectResponse(418, b"tea")
        [found] = problems(config(build.route(respond=(199, ""))))
        assert found == "virtual_hosts[0].routes[0].direct_response.status: must be 200 to 599, not 199"
        file = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"filename": "x"}}}
        assert "direct_response.body.filename" in problems(config(file))[0]

    def test_non_forwarding(self):
        made = route_of({"match": {"prefix": "/"}, "non_forwarding_action": {}})
        assert made.action == NonForwarding()

    def test_nothing_to_do(self):
        [found] = problems(config({"match": {"prefix": "/"}}))
        assert found.startswith("virtual_hosts[0].routes[0]: one of route")


class TestEdits:
    def test_rw_01(self):
        edits = {
            "request_headers_to_add": [
                build.header("X-A", "1"),
                build.header("x-b", "%%", action="OVERWRITE_IF_EXISTS", keep_empty_value=True),
                {"header": {"key": "x-c", "value": "2"}, "append": False},
            ],
            "response_headers_to_remove": ["X-D"],
        }
        made = good(config(build.route(cluster="a"), **edits)).edits
        assert made.request_add == (
            Edit("x-a", "1"),
            Edit("x-b", "%%", EditAction.OVERWRITE_IF_EXISTS, True),
            Edit("x-c", "2", EditAction.OVERWRITE),
        )
        assert made.response_remove == ("x-d",)

    @pytest.mark.parametrize(
        ("field", "value", "place"),
        [
            ("request_headers_to_add", [build.header(":path", "x")], "[0].header.key"),
            ("request_headers_to_add", [build.header("Host", "x")], "[0].header.key"),
            ("request_headers_to_add", [build.header("a", "x\r\ny: z")], "[0].header.value"),
            ("response_headers_to_remove", ["ok", "host"], "[1]"),
        ],
    )
    def test_wrong(self, field, value, place):
        [found] = problems(config(build.route(cluster="a"), **{field: value}))
        assert found.startswith(f"{field}{place}: ")


class TestReported:
    def test_settings_that_are_not_honoured(self):
        fault = {"@type": "type.googleapis.com/google.protobuf.Empty"}
        found = ignored(
            config(
                build.route(
                    cluster="a",
                    typed_per_filter_config={"envoy.filters.http.fault": fault},
                ),
                host={"include_is_timeout_retry_header": True},
            )
        )
        assert found == {
            "virtual_hosts[0].routes[0].typed_per_filter_config[envoy.filters.http.fault]": "google.protobuf.Empty",
        }

    def test_a_priority_is_envoys_alone(self):
        resource = config(build.route(cluster="a", action={"priority": "HIGH"}))
        assert good(resource).virtual_hosts[0].routes[0].action.high
        assert ignored(resource) == {}
        found = decode.route(raw(resource), "target")
        assert not found.value.virtual_hosts[0].routes[0].action.high
        assert dict(found.ignored)["virtual_hosts[0].routes[0].route.priority"] == "gRPC does not read it"

    def test_what_says_no_more_than_silence_is_not_reported(self):
        route = build.route(
            cluster="a",
            action={"max_stream_duration": {"max_stream_duration": "0s"}, "include_vh_rate_limits": False},
            decorator={"operation": "o"},
        )
        assert ignored(config(route, validate_clusters=False)) == {}

    def test_commands_that_have_no_value_here(self):
        edits = [build.header("x", "%HOSTNAME% at %START_TIME%"), build.header("y", "%REQ(x)%")]
        found = ignored(config(build.route(cluster="a", request_headers_to_add=edits)))
        assert found == {
            "virtual_hosts[0].routes[0].request_headers_to_add[0].header.value": "%HOSTNAME% has no value in a client"
        }

    def test_a_raw_value_is_not_looked_at_as_by_envoy(self):
        edits = [{"header": {"key": "x", "raw_value": "/w=="}}]
        resource = config(build.route(cluster="a"), request_headers_to_add=edits)
        assert ignored(resource) == {}
        assert good(resource).edits.request_add == (Edit("x", ""),)

    def test_fields_newer_than_the_schema(self):
        made = raw(config(build.route(cluster="a"))) + b"\xba\x3e\x01x"  # field 999, one byte
        assert decode.route(made).ignored == (("#999", "a field that is not known"),)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"key": "x", "value": "%REQ(a"}, "header.value"),
        ({"key": "x", "value": "100%"}, "header.value"),
    ],
)
def test_a_header_value_that_is_no_format_is_a_problem(header: dict[str, str], words: str) -> None:
    """RW-01, as Envoy refuses it."""
    host = build.virtual_host("v", build.route("/", cluster="c"), request_headers_to_add=[{"header": header}])
    decoded = decode.route(raw(build.route_config("r", host)))
    assert decoded.value is None
    assert any(words in problem for problem in decoded.problems)


class TestWordsOfALine:
    """What would end a line of a request, or say where one ends."""

    @pytest.mark.parametrize("evil", ["a\r\nx: 1", "a\nb", "a\rb", "a\0b"])
    def test_ends_of_lines_are_refused(self, evil):
        rewrites = {"pattern": {"regex": "/a"}, "substitution": evil}
        for action, place in (
            ({"prefix_rewrite": evil}, "prefix_rewrite"),
            ({"host_rewrite_literal": evil}, "host_rewrite_literal"),
            ({"regex_rewrite": rewrites}, "regex_rewrite.substitution"),
            ({"host_rewrite_path_regex": rewrites}, "host_rewrite_path_regex.substitution"),
        ):
            assert action_problem(**action) == f"{place}: must not hold a line break or NUL"

    @pytest.mark.parametrize("name", sorted(OF_THE_CONNECTION))
    def test_framing_is_no_edit(self, name):
        edits = {
            "request_headers_to_add": [build.header(name.title(), "1")],
            "response_headers_to_remove": [name],
        }
        assert ignored(config(build.route(cluster="a", **edits))) == {
            f"virtual_hosts[0].routes[0].{place}": f"{name} is for the connection to say"
            for place in ("request_headers_to_add[0].header.key", "response_headers_to_remove[0]")
        }


class TestHedges:
    """``hedge_on_per_try_timeout`` is what Envoy honours of a hedge policy."""

    HEDGED: ClassVar = {"hedge_on_per_try_timeout": True}

    def test_the_routes_takes_the_place_of_the_virtual_hosts(self):
        made = good(
            config(
                build.route(cluster="a"),
                build.route(cluster="a", action={"hedge_policy": {}}),
                build.route(redirect={"path_redirect": "/"}),
                host={"hedge_policy": self.HEDGED},
            )
        )
        inherited, own, _ = [route.action for route in made.virtual_hosts[0].routes]
        assert (inherited.hedge.on_try_timeout, inherited.hedge.methods) == (True, None)
        assert own.hedge.on_try_timeout is False

    def test_what_envoy_reads_and_does_nothing_by_is_no_news(self):
        fields = {"initial_requests": 3, "additional_request_chance": {"numerator": 5}}
        action = {"hedge_policy": {**self.HEDGED, **fields}}
        assert ignored(config(build.route(cluster="a", action=action))) == {}

    def test_no_request_at_first_is_refused(self):
        problem = action_problem(hedge_policy={"initial_requests": 0})
        assert problem == "hedge_policy.initial_requests: must not be 0"


class TestInternalRedirects:
    NAME = "envoy.extensions.internal_redirect."

    def decoded(self, **action):
        made = build.route(cluster="a", name="r")
        made["route"] |= action
        found = decode.route(raw(build.route_config("r", build.virtual_host("v", made))))
        return found, found.value.virtual_hosts[0].routes[0].action.redirects

    def predicate(self, kind, **fields):
        return {"name": "p", "typed_config": build.any_of(f"{self.NAME}{kind}", fields)}

    def test_as_a_rule_they_are_the_callers(self):
        assert self.decoded()[1] is None
        assert self.decoded(internal_redirect_policy={})[1] == InternalRedirects()

    def test_what_a_policy_says(self):
        found, made = self.decoded(
            internal_redirect_policy={
                "max_internal_redirects": 3,
                "redirect_response_codes": [301, 304, 307],
                "allow_cross_scheme_redirect": True,
                "response_headers_to_copy": ["X-A"],
                "predicates": [
                    self.predicate("previous_routes.v3.PreviousRoutesConfig"),
                    self.predicate("safe_cross_scheme.v3.SafeCrossSchemeConfig"),
                    self.predicate(
                        "allow_listed_routes.v3.AllowListedRoutesConfig", allowed_route_names=["to"]
                    ),
                ],
            }
        )
        predicates = (
            RedirectPredicate(PredicateKind.PREVIOUS_ROUTES),
            RedirectPredicate(PredicateKind.SAFE_CROSS_SCHEME),
            RedirectPredicate(PredicateKind.ALLOWED_ROUTES, frozenset({"to"})),
        )
        assert made == InternalRedirects(3, frozenset({301, 307}), predicates, True, ("x-a",))
        assert found.ignored == ()

    def test_with_a_predicate_that_is_not_known_nothing_is_followed(self):
        other = {"name": "p", "typed_config": build.any_of("envoy.config.core.v3.Locality", {"zone": "z"})}
        found, made = self.decoded(internal_redirect_policy={"predicates": [other]})
        assert made is None
        assert [value for path, value in found.ignored if path.endswith("predicates[0]")] == [
            "envoy.config.core.v3.Locality"
        ]

    def test_what_stood_for_it_once(self):
        handle = "HANDLE_INTERNAL_REDIRECT"
        assert self.decoded(internal_redirect_action=handle)[1] == InternalRedirects()
        assert self.decoded(internal_redirect_action=handle, max_internal_redirects=4)[1].most == 4
        assert self.decoded(max_internal_redirects=4)[1] is None
        both = {"internal_redirect_policy": {}, "max_internal_redirects": 4}
        assert self.decoded(internal_redirect_action=handle, **both)[1].most == 1


class TestOffsetsOfDeadlines:
    def decoded(self, view="auto", **action):
        made = build.route(cluster="a")
        made["route"] |= action
        routes = build.route_config("r", build.virtual_host("v", made))
        found = decode.route(raw(routes), view)
        return found.value.virtual_hosts[0].routes[0].action, [path for path, _ in found.ignored]

    def test_of_both_forms(self):
        held = {"grpc_timeout_header_max": "9s", "grpc_timeout_header_offset": "0.5s"}
        action, told = self.decoded(max_stream_duration=held)
        assert (action.grpc_timeout_header_max, action.grpc_timeout_offset, told) == (9.0, 0.5, [])
        action, told = self.decoded(max_grpc_timeout="9s", grpc_timeout_offset="0.5s")
        assert (action.grpc_timeout_header_max, action.grpc_timeout_offset, told) == (9.0, 0.5, [])
        action, told = self.decoded(max_stream_duration={}, grpc_timeout_offset="0.5s")
        assert action.grpc_timeout_offset == 0.0
        assert [path.rpartition(".")[2] for path in told] == ["grpc_timeout_offset"]

    def test_in_the_target_view_grpcs_rule_holds(self):
        held = {"grpc_timeout_header_max": "9s", "grpc_timeout_header_offset": "0.5s"}
        for fields in ({"max_stream_duration": held}, {"grpc_timeout_offset": "0.5s"}):
            action, told = self.decoded("target", **fields)
            assert action.grpc_timeout_offset == 0.0
            assert [path.rpartition("grpc_timeout_")[2].rpartition("_")[2] for path in told] == ["offset"]
