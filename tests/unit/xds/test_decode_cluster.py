"""Clusters and load assignments: every field into the model, every mistake by its path."""

from __future__ import annotations

from dataclasses import replace

import pytest

from meshlib.model.address import Address
from meshlib.model.cluster import (
    Connecting,
    Destination,
    Discovery,
    DnsTarget,
    Eyeballs,
    Keepalive,
    NameServers,
    Pings,
)
from meshlib.model.endpoint import Drop, Health, Locality
from meshlib.model.match import HeaderMatch
from meshlib.model.policy import (
    Aperture,
    Balancer,
    Balancing,
    FailurePercentage,
    HashKind,
    HashPolicy,
    Limits,
    MatchKind,
    Outlier,
    Reports,
    ResponseMatch,
    RetryBudget,
    SlowStart,
    SuccessRate,
    ZoneAware,
)
from meshlib.model.route import Mirror
from meshlib.model.subset import Selector, SubsetFallback, Subsets
from meshlib.testing import build
from meshlib.xds import decode
from tests.support.xds_kit import raw

LB = "type.googleapis.com/envoy.extensions.load_balancing_policies."
RETRY = {"retry_on": "5xx", "num_retries": 3}
HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def good(resource):
    found = decode.cluster(raw(resource))
    assert found.problems == ()
    return found.value


def problems(resource):
    """In the target view, the stricter one: test_decode_views.py has what Envoy takes."""
    found = decode.cluster(raw(resource), "target")
    assert found.value is None
    return found.problems


def problems_of_envoy(resource):
    return decode.cluster(raw(resource)).problems


def ignored(resource):
    found = decode.cluster(raw(resource))
    assert found.problems == ()
    return dict(found.ignored)


def made(**fields):
    return build.cluster("c", ["10.0.0.1:80"], **fields)


def http(**fields):
    """The same by the extension."""
    inner = {"@type": f"type.googleapis.com/{HTTP}", "explicit_http_config": fields}
    return made(typed_extension_protocol_options={HTTP: inner})


class TestConnecting:
    @staticmethod
    def bound(**fields):
        return made(upstream_bind_config=fields)

    def test_where_connections_come_from(self):
        source = {"address": "10.0.0.7", "port_value": 0}
        extra = [{"address": {"address": "fd00:0::7", "port_value": 0}}]
        found = good(self.bound(source_address=source, extra_source_addresses=extra))
        assert found.connecting.sources == ("10.0.0.7", "fd00::7")
        assert good(made()).connecting == Connecting()

    def test_a_port_would_be_for_one_connection(self):
        resource = self.bound(source_address={"address": "10.0.0.7", "port_value": 99})
        assert good(resource).connecting.sources == ("10.0.0.7",)
        assert ignored(resource) == {"upstream_bind_config.source_address.port_value": "99"}

    def test_no_address(self):
        [found] = problems(self.bound(source_address={"address": "a.example", "port_value": 0}))
        assert found.startswith("upstream_bind_config.source_address.")
        extra = [{"address": {"address": "10.0.0.7", "port_value": 0}}] * 2
        assert problems(self.bound(extra_source_addresses=extra))

    def test_addresses_that_the_machine_does_not_have(self):
        source = {"address": "10.0.0.7", "port_value": 0}
        assert good(self.bound(source_address=source, freebind=True)).connecting.socket_options == (
            (0, 15, 1),
            (41, 78, 1),
        )
        assert good(self.bound(source_address=source, freebind=False)).connecting.socket_options == ()

    @pytest.mark.parametrize(("kind", "told"), [("DefaultLocalAddressSelector", False), ("Another", True)])
    def test_who_chooses_among_addresses(self, kind, told):
        url = f"type.googleapis.com/envoy.config.upstream.local_address_selector.v3.{kind}"
        typed = {"name": "x", "typed_config": build.any_of("xds.type.v3.TypedStruct", {"type_url": url})}
        found = ignored(self.bound(local_address_selector=typed))
        assert list(found) == (["upstream_bind_config.local_address_selector"] if told else [])

    def test_options_that_shape_a_connection(self):
        taken = [{"level": 6, "name": 4, "int_value": 30}, {"level": 0, "name": 1, "int_value": 8}]
        mark, buffer = (
            {"level": 1, "name": 36, "int_value": 1},
            {"level": 1, "name": 25, "buf_value": "ZXRoMA=="},
        )
        resource = self.bound(socket_options=[*taken, mark, buffer])
        assert good(resource).connecting.socket_options == ((6, 4, 30), (0, 1, 8))
        assert set(ignored(resource)) >= {
            "upstream_bind_config.socket_options[2]",
            "upstream_bind_config.socket_options[3]",
        }
        [found] = problems(self.bound(socket_options=[{"level": 6, "name": 4}]))
        assert found.startswith("upstream_bind_config.socket_options[0]: ")

    def test_options_of_one_source(self):
        source, option = {"address": "10.0.0.7", "port_value": 0}, {"level": 6, "name": 4, "int_value": 30}
        extra = [
            {
                "address": {"address": "10.0.0.8", "port_value": 0},
                "socket_options": {"socket_options": [option]},
            },
            {"address": {"address": "10.0.0.9", "port_value": 0}, "socket_options": {}},
            {"address": {"address": "::1", "port_value": 0}},
        ]
        resource = self.bound(source_address=source, extra_source_addresses=extra)
        assert ignored(resource) == {}
        found = good(resource).connecting
        assert found.sources == ("10.0.0.7", "10.0.0.8", "10.0.0.9", "::1")
        assert found.source_options == (None, ((6, 4, 30),), (), None)
        free = self.bound(source_address=source, extra_source_addresses=extra[:1], freebind=True)
        assert good(free).connecting.source_options == (None, ((6, 4, 30), (0, 15, 1), (41, 78, 1)))
        extra[0]["socket_options"]["socket_options"] = [{"level": 1, "name": 36, "int_value": 1}]
        [(where, _)] = ignored(self.bound(source_address=source, extra_source_addresses=extra[:1])).items()
        assert where == "upstream_bind_config.extra_source_addresses[0].socket_options.socket_options[0]"

    @pytest.mark.parametrize(
        ("fields", "found"),
        [
            ({"use_http_header": True}, Destination("x-envoy-original-dst-host")),
            ({"use_http_header": True, "http_header_name": "X-To"}, Destination("x-to")),
            ({"upstream_port_override": 15001}, Destination(port=15001)),
            ({}, None),
        ],
    )
    def test_where_calls_that_pass_through_go(self, fields, found):
        resource = build.cluster(
            "c", type="ORIGINAL_DST", lb_policy="CLUSTER_PROVIDED", original_dst_lb_config=fields
        )
        assert (good(resource).destination, ignored(resource)) == (found, {})

    def test_where_calls_go_is_said_of_what_passes_through_alone(self):
        resource = made(original_dst_lb_config={"use_http_header": True})
        assert good(resource).destination is None
        assert list(ignored(resource)) == ["original_dst_lb_config"]
        original = {"type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED"}
        for fields in ({"http_header_name": "x"}, {"upstream_port_override": 65536}):
            assert problems_of_envoy(build.cluster("c", **original, original_dst_lb_config=fields))

    def test_connections_ahead_of_requests(self):
        resource = made(preconnect_policy={"per_upstream_preconnect_ratio": 1.5})
        assert (good(resource).ahead, ignored(resource)) == (1.5, {})
        assert good(made()).ahead == 1.0
        predictive = made(preconnect_policy={"predictive_preconnect_ratio": 2})
        assert list(ignored(predictive)) == ["preconnect_policy.predictive_preconnect_ratio"]
        for field in ("per_upstream_preconnect_ratio", "predictive_preconnect_ratio"):
            [problem] = problems(made(preconnect_policy={field: 3.5}))
            assert problem == f"preconnect_policy.{field}: must be 1 to 3, not 3.5"

    def test_how_long_a_stream_may_take(self):
        for text, seconds in (("2s", 2.0), ("0s", None)):
            common = {"max_stream_duration": text}
            resource = made(common_http_protocol_options=common)
            assert (good(resource).stream_limit, ignored(resource)) == (seconds, {})

    def test_http1_as_the_mesh_spells_it(self):
        options = {"header_key_format": {"proper_case_words": {}}, "send_fully_qualified_url": True}
        for resource in (made(http_protocol_options=options), http(http_protocol_options=options)):
            found = good(resource).connecting
            assert (found.proper_case, found.whole_urls) == (True, True)
            assert ignored(resource) == {}
        found = good(made())
        assert (found.connecting.proper_case, found.connecting.whole_urls) == (False, False)

    @pytest.mark.parametrize(
        ("kind", "fields", "told"),
        [
            ("preserve_case.v3.PreserveCaseFormatterConfig", {"forward_reason_phrase": True}, ""),
            (
                "preserve_case.v3.PreserveCaseFormatterConfig",
                {"formatter_type_on_envoy_headers": "PROPER_CASE"},
                ".typed_config.formatter_type_on_envoy_headers",
            ),
        ],
    )
    def test_names_as_they_are(self, kind, fields, told):
        typed = build.any_of(f"envoy.extensions.http.header_formatters.{kind}", fields)
        held = {"stateful_formatter": {"name": "x", "typed_config": typed}}
        resource = made(http_protocol_options={"header_key_format": held})
        assert not good(resource).connecting.proper_case
        path = "http_protocol_options.header_key_format.stateful_formatter"
        assert list(ignored(resource)) == ([path + told] if told else [])

    def test_another_way_of_names(self):
        typed = build.any_of("xds.type.v3.TypedStruct", {"type_url": "type.googleapis.com/a.b.Mine"})
        held = {"stateful_formatter": {"name": "x", "typed_config": typed}}
        resource = made(http_protocol_options={"header_key_format": held})
        assert list(ignored(resource)) == ["http_protocol_options.header_key_format.stateful_formatter"]
        assert problems(made(http_protocol_options={"header_key_format": {}}))

    def test_http2_settings_and_pings(self):
        keepalive = {"interval": "30s", "timeout": "5s", "interval_jitter": {"value": 10}}
        custom = [
            {"identifier": number, "value": value} for number, value in ((9, 1), (0x1234, 7), (3, 5), (2, 0))
        ]
        options = {"connection_keepalive": keepalive, "custom_settings_parameters": custom}
        for resource in (made(http2_protocol_options=options), http(http2_protocol_options=options)):
            found = good(resource).connecting
            assert found.settings == ((9, 1), (0x1234, 7))
            assert found.pings == Pings(5.0, 30.0, 0.1)
            assert ignored(resource) == {}
        idle = {"connection_keepalive": {"timeout": "5s", "connection_idle_interval": "60s"}}
        assert good(made(http2_protocol_options=idle)).connecting.pings == Pings(5.0, None, 0.15, 60.0)
        never = {"connection_keepalive": {"timeout": "5s"}}
        assert good(made(http2_protocol_options=never)).connecting.pings is None

    @pytest.mark.parametrize(
        ("options", "place"),
        [
            ({"connection_keepalive": {"interval": "1s"}}, "connection_keepalive.timeout: must be set"),
            ({"connection_keepalive": {"timeout": "0s"}}, "connection_keepalive.timeout: must be at least"),
            ({"custom_settings_parameters": [{"identifier": 9}]}, "custom_settings_parameters[0].value"),
            (
                {"custom_settings_parameters": [{"identifier": 65536, "value": 1}]},
                "custom_settings_parameters[0].identifier: must be at most",
            ),
            (
                {"custom_settings_parameters": [{"identifier": 9, "value": number} for number in (1, 1, 2)]},
                "custom_settings_parameters[2]: 9 has another value",
            ),
            (
                {"custom_settings_parameters": [{"identifier": 2, "value": 1}]},
                "custom_settings_parameters[0]: pushes",
            ),
        ],
    )
    def test_http2_that_cannot_be(self, options, place):
        [found] = problems(made(http2_protocol_options=options))
        assert found.startswith(f"http2_protocol_options.{place}")

    def test_sizes_of_http2_are_our_own(self):
        options = {"custom_settings_parameters": [{"identifier": 5, "value": 99999}]}
        resource = made(http2_protocol_options=options)
        assert good(resource).connecting.settings == ()
        assert list(ignored(resource)) == ["http2_protocol_options.custom_settings_parameters[0]"]

    def test_which_address_first(self):
        held = {"first_address_family_version": "V4", "first_address_family_count": 3}
        found = made(upstream_connection_options={"happy_eyeballs_config": held})
        assert good(found).connecting.eyeballs == Eyeballs("v4", 3)
        assert ignored(found) == {}
        held = {"first_address_family_count": 0}
        [problem] = problems(made(upstream_connection_options={"happy_eyeballs_config": held}))
        assert problem.endswith("happy_eyeballs_config.first_address_family_count: must be at least 1")

    def test_keepalive(self):
        held = {"keepalive_probes": 3, "keepalive_time": 60, "keepalive_interval": 40000}
        resource = made(upstream_connection_options={"tcp_keepalive": held})
        assert good(resource).connecting.keepalive == Keepalive(3, 60, None)
        assert list(ignored(resource)) == ["upstream_connection_options.tcp_keepalive.keepalive_interval"]
        assert (
            good(made(upstream_connection_options={"tcp_keepalive": {}})).connecting.keepalive == Keepalive()
        )

    def test_how_much_of_a_response_is_read(self):
        common = {"max_response_headers_kb": 8, "max_headers_count": 7}
        found = good(made(common_http_protocol_options=common)).connecting
        assert (found.most_head, found.most_lines) == (8192, 7)
        for wrong in (
            {"max_response_headers_kb": 0},
            {"max_response_headers_kb": 8193},
            {"max_headers_count": 0},
        ):
            assert problems(made(common_http_protocol_options=wrong))


class TestDiscovery:
    def test_cd_02_eds(self):
        assert good(build.cluster("c")).eds_name == "c"
        found = good(build.cluster("c", service_name="s"))
        assert (found.discovery, found.eds_name, found.assignment) == (Discovery.EDS, "s", None)

    @pytest.mark.parametrize("kind", ["GRPC", "DELTA_GRPC", "AGGREGATED_GRPC", "AGGREGATED_DELTA_GRPC"])
    def test_fe_04_a_cluster_that_a_source_names_is_the_server_itself(self, kind):
        services = [{"envoy_grpc": {"cluster_name": "kato_xds_cluster"}}]
        source = {"api_config_source": {"api_type": kind, "grpc_services": services}}
        assert good(build.cluster("c", eds_cluster_config={"eds_config": source})).eds_name == "c"

    @pytest.mark.parametrize(
        ("source", "place"),
        [
            ({"api_type": "REST", "cluster_names": ["x"]}, ".api_type: must be of gRPC"),
            (
                {"api_type": "GRPC", "grpc_services": [{"google_grpc": {}}]},
                ".grpc_services[0]: must have envoy_grpc",
            ),
            ({"api_type": "GRPC", "grpc_services": [{}]}, ".grpc_services[0]: must have envoy_grpc"),
        ],
    )
    def test_cd_02_another_server_is_not_asked(self, source, place):
        [found] = problems(
            build.cluster("c", eds_cluster_config={"eds_config": {"api_config_source": source}})
        )
        assert found.startswith(f"eds_cluster_config.eds_config.api_config_source{place}")

    @pytest.mark.parametrize("source", [{}, {"path": "/x"}, {"api_config_source": {"api_type": "GRPC"}}])
    def test_cd_02_only_from_this_stream(self, source):
        [found] = problems(build.cluster("c", eds_cluster_config={"eds_config": source}))
        assert found.startswith("eds_cluster_config.eds_config")

    def test_fe_03(self):
        [found] = problems(build.cluster("xdstp://a/b/c"))
        assert found.startswith("eds_cluster_config.service_name: ")

    def test_static(self):
        found = good(made())
        assert found.discovery is Discovery.STATIC
        assert [str(each.address) for each in found.assignment.endpoints] == ["10.0.0.1:80"]
        assert found.assignment.name == "c"

    def test_a_black_hole(self):
        found = good(build.cluster("c", type="STATIC"))
        assert found.assignment.endpoints == ()

    def test_static_needs_no_resolving(self):
        [found] = problems(build.cluster("c", ["name.example:80"]))
        assert found == (
            "load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address: "
            "'name.example' is no IP address"
        )

    def test_strict_dns(self):
        groups = [
            build.locality("a.example:80", "10.0.0.1:81", region="r"),
            build.locality(build.endpoint("b.example:82", weight=3, hostname="b"), region="s", priority=1),
        ]
        found = good(
            build.cluster("c", groups, type="STRICT_DNS", dns_refresh_rate="60s", dns_lookup_family="V4_ONLY")
        )
        assert found.dns == (DnsTarget("a.example", 80, 0, 1), DnsTarget("b.example", 82, 1, 3, "b"))
        assert [str(each.address) for each in found.assignment.endpoints] == ["10.0.0.1:81"]
        assert [group.priority for group in found.assignment.localities] == [0, 1]
        assert (found.dns_refresh, found.dns_family, found.respect_dns_ttl) == (60.0, "v4_only", False)

    def test_cd_03_logical_dns_has_one_endpoint(self):
        assert (
            good(build.cluster("c", ["a.example:80"], type="LOGICAL_DNS")).discovery is Discovery.LOGICAL_DNS
        )
        [found] = problems(build.cluster("c", ["a.example:80", "b.example:80"], type="LOGICAL_DNS"))
        assert found == "load_assignment: LOGICAL_DNS needs exactly one endpoint in one locality, not 2 in 1"
        groups = [build.locality("a.example:80"), build.locality(region="empty")]
        [found] = problems(build.cluster("c", groups, type="LOGICAL_DNS"))
        assert found.endswith(" not 1 in 2")

    def test_cd_03_a_resolver_of_its_own(self):  # as in Envoy
        for kind, refused in (("LOGICAL_DNS", True), ("STRICT_DNS", True)):
            resource = build.cluster("c", ["a.example:80"], type=kind)
            address = resource["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]
            address["socket_address"]["resolver_name"] = "mine"
            [found] = decode.cluster(raw(resource)).problems
            assert found.endswith("socket_address.resolver_name: must be empty") is refused

    def test_dns_cluster_extension(self):
        kind = {
            "@type": "type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster",
            "respect_dns_ttl": True,
        }
        resource = build.cluster("c", ["a.example:80"], cluster_type={"name": "d", "typed_config": kind})
        del resource["type"]
        found = good(resource)
        assert (found.discovery, found.respect_dns_ttl) == (Discovery.STRICT_DNS, True)

    @pytest.mark.parametrize("extension", [False, True])
    def test_how_names_are_resolved(self, extension):
        cares = build.any_of(
            "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
            {
                "resolvers": [{"socket_address": {"address": "10.0.0.53", "port_value": 0}}],
                "dns_resolver_options": {"use_tcp_for_dns_lookups": True, "no_default_search_domain": True},
                "rotate_nameservers": True,
                "filter_unroutable_families": True,
            },
        )
        fields = {
            "dns_jitter": "0.5s",
            "dns_failure_refresh_rate": {"base_interval": "2s"},
            "typed_dns_resolver_config": {"name": "cares", "typed_config": cares},
        }
        if extension:
            kind = {"@type": "type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster", **fields}
            resource = build.cluster("c", ["a:80"], cluster_type={"name": "d", "typed_config": kind})
            del resource["type"]
        else:
            resource = build.cluster("c", ["a:80"], type="STRICT_DNS", **fields)
        found = good(resource)
        assert ignored(resource) == {}
        assert (found.dns_jitter, found.dns_failure_refresh) == (0.5, (2.0, 20.0))
        servers = (Address("10.0.0.53", 53),)
        assert found.name_servers == NameServers(servers, tcp=True, search=False, rotate=True, routable=True)

    @pytest.mark.parametrize(
        ("fields", "servers"),
        [
            ({}, None),
            ({"use_tcp_for_dns_lookups": True}, NameServers(tcp=True)),
            (
                {"dns_resolvers": [{"socket_address": {"address": "::1", "port_value": 5353}}]},
                NameServers((Address("::1", 5353),)),
            ),
            (
                {"dns_resolution_config": {"resolvers": [], "dns_resolver_options": {}}},
                NameServers(),
            ),
        ],
    )
    def test_name_servers_of_older_fields(self, fields, servers):
        assert good(build.cluster("c", ["a:80"], type="STRICT_DNS", **fields)).name_servers == servers

    def test_name_servers_where_the_system_has_none(self):
        held = build.any_of(
            "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
            {
                "resolvers": [{"socket_address": {"address": "10.0.0.53", "port_value": 53}}],
                "use_resolvers_as_fallback": True,
            },
        )
        typed = {"typed_dns_resolver_config": {"name": "cares", "typed_config": held}}
        assert good(build.cluster("c", ["a:80"], type="STRICT_DNS", **typed)).name_servers == NameServers()

    @pytest.mark.parametrize(
        ("said", "timeout", "lifetime"),
        [
            ({"query_timeout_seconds": 2}, 2.0, 8.0),
            ({"query_tries": 3}, 5.0, 15.0),
            ({"query_timeout_seconds": 1, "query_tries": 1}, 1.0, 1.0),
        ],
    )
    def test_how_long_a_look_up_takes(self, said, timeout, lifetime):
        held = build.any_of("envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig", said)
        typed = {"typed_dns_resolver_config": {"name": "cares", "typed_config": held}}
        resource = build.cluster("c", ["a:80"], type="STRICT_DNS", **typed)
        assert good(resource).name_servers == NameServers(timeout=timeout, lifetime=lifetime)
        assert ignored(resource) == {}

    def test_a_look_up_that_is_none(self):
        kind = "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig"
        typed = {"name": "cares", "typed_config": build.any_of(kind, {"query_tries": 0})}
        [found] = problems(build.cluster("c", ["a:80"], type="STRICT_DNS", typed_dns_resolver_config=typed))
        assert found.startswith("typed_dns_resolver_config.typed_config.query_tries: ")

    def test_another_resolver_is_reported(self):
        kind = "type.googleapis.com/envoy.extensions.network.dns_resolver.apple.v3.AppleDnsResolverConfig"
        typed = {"name": "apple", "typed_config": {"@type": kind}}
        resource = build.cluster("c", ["a:80"], type="STRICT_DNS", typed_dns_resolver_config=typed)
        assert good(resource).name_servers is None
        assert list(ignored(resource)) == ["typed_dns_resolver_config"]

    @pytest.mark.parametrize(
        ("rate", "place"),
        [
            ({}, "base_interval"),
            ({"base_interval": "0s"}, "base_interval"),
            ({"base_interval": "2s", "max_interval": "1s"}, "max_interval"),
        ],
    )
    def test_wrong_pauses_after_failures(self, rate, place):
        [found] = problems(build.cluster("c", ["a:80"], type="LOGICAL_DNS", dns_failure_refresh_rate=rate))
        assert found.startswith(f"dns_failure_refresh_rate.{place}: ")

    def test_original_dst_passes_through(self):
        found = good(build.cluster("c", type="ORIGINAL_DST", lb_policy="CLUSTER_PROVIDED"))
        assert found.discovery is Discovery.ORIGINAL_DST

    @pytest.mark.parametrize("target", [False, True])
    def test_cd_04_an_aggregate_has_its_names_in_order(self, target):
        resource = build.aggregate(
            "c", "b", "a", "b", "", "xdstp://x/envoy.config.cluster.v3.Cluster/n?b=2&a=1"
        )
        found = decode.cluster(raw(resource), "target" if target else "sidecar")
        assert found.problems == ()
        assert found.value.discovery is Discovery.AGGREGATE
        assert found.value.children == ("b", "a", "xdstp://x/envoy.config.cluster.v3.Cluster/n?a=1&b=2")
        path = "cluster_type.typed_config.clusters"
        assert dict(found.ignored) == {f"{path}[2]": "is named before", f"{path}[3]": "is empty"}

    def test_cd_04_an_aggregate_names_somebody(self):
        [found] = problems(build.aggregate("c"))
        assert found == "cluster_type.typed_config.clusters: must not be empty"
        [found] = problems(build.aggregate("c", *(f"n{number}" for number in range(1001))))
        assert found == "cluster_type.typed_config.clusters: are 1001; the most are 1000"

    def test_an_aggregate_says_that_its_balancer_is_its_own(self):
        [found] = problems_of_envoy(build.aggregate("c", "a", lb_policy="ROUND_ROBIN"))
        assert found.startswith("lb_policy: must be CLUSTER_PROVIDED")

    def test_what_an_aggregate_says_of_endpoints_is_reported(self):
        """Of its limits those of retries hold (as Envoy's), and the others are its leaves'."""
        thresholds = {"max_requests": 7, "max_retries": 5, "retry_budget": {"min_retry_concurrency": 2}}
        resource = build.aggregate(
            "c",
            "a",
            outlier_detection={},
            circuit_breakers={"thresholds": [thresholds]},
            common_lb_config={"healthy_panic_threshold": {"value": 20}},
            load_assignment={"cluster_name": "c"},
        )
        found = decode.cluster(raw(resource))
        assert found.problems == ()
        words = "the clusters that it names have their own"
        assert {path: why for path, why in found.ignored if why == words} == {
            "outlier_detection": words,
            "load_assignment": words,
            "circuit_breakers.thresholds[0].max_requests": words,
        }
        cluster = found.value
        assert (cluster.limits.max_retries, cluster.limits.budget.min_concurrency) == (5, 2)
        assert cluster.outlier is None
        assert cluster.balancing.panic_threshold == 20

    def test_an_unknown_kind(self):
        kind = {"@type": "type.googleapis.com/google.protobuf.Empty"}
        resource = build.cluster("c", cluster_type={"name": "x", "typed_config": kind})
        del resource["type"], resource["eds_cluster_config"]
        assert "google.protobuf.Empty" in problems(resource)[0]

    def test_every_problem_is_told(self):
        found = problems(
            build.cluster(
                "",
                connect_timeout="0s",
                lb_policy="LOAD_BALANCING_POLICY_CONFIG",
                eds_cluster_config={},
                outlier_detection={"interval": "0s"},
            )
        )
        assert [text.partition(":")[0] for text in found] == [
            "name",
            "connect_timeout",
            "eds_cluster_config.eds_config",
            "lb_policy",
            "outlier_detection.interval",
        ]


class TestBalancing:
    @pytest.mark.parametrize(
        ("policy", "kind"),
        [
            ("ROUND_ROBIN", Balancer.ROUND_ROBIN),
            ("RANDOM", Balancer.RANDOM),
            ("LEAST_REQUEST", Balancer.LEAST_REQUEST),
        ],
    )
    def test_cd_06_enum(self, policy, kind):
        assert good(made(lb_policy=policy)).balancing.kind is kind

    def test_lb_03_lb_05_consistent_hashing_by_the_enum(self):
        common = {"consistent_hashing_lb_config": {"hash_balance_factor": 150}}
        ring = {"minimum_ring_size": 7, "maximum_ring_size": 9, "hash_function": "MURMUR_HASH_2"}
        resource = made(lb_policy="RING_HASH", ring_hash_lb_config=ring, common_lb_config=common)
        assert good(resource).balancing == Balancing(
            Balancer.RING_HASH, least_places=7, most_places=9, murmur=True, load_factor=150
        )
        assert ignored(resource) == {}
        assert good(made(lb_policy="RING_HASH")).balancing == Balancing(Balancer.RING_HASH)
        assert good(made(lb_policy="MAGLEV")).balancing == Balancing(Balancer.MAGLEV)
        assert (
            good(made(lb_policy="MAGLEV", maglev_lb_config={"table_size": 251})).balancing.table_size == 251
        )
        hashing = "common_lb_config.consistent_hashing_lb_config"
        low = {"consistent_hashing_lb_config": {"hash_balance_factor": 99}}
        assert problems(made(lb_policy="MAGLEV", common_lb_config=low)) == (
            f"{hashing}.hash_balance_factor: must be at least 100, not 99",
        )
        names = {"consistent_hashing_lb_config": {"use_hostname_for_hashing": True}}
        named = decode.cluster(raw(made(lb_policy="MAGLEV", common_lb_config=names)), "sidecar")
        assert named.problems == (f"{hashing}.use_hostname_for_hashing: is for clusters of type STRICT_DNS",)

    def test_lb_06_least_request(self):
        config = {"choice_count": 5, "active_request_bias": {"default_value": 0.5}}
        found = good(made(lb_policy="LEAST_REQUEST", least_request_lb_config=config)).balancing
        assert (found.choice_count, found.active_request_bias) == (5, 0.5)
        [problem] = problems(made(lb_policy="LEAST_REQUEST", least_request_lb_config={"choice_count": 1}))
        assert problem == "least_request_lb_config.choice_count: must be at least 2, not 1"

    def policy(self, *configs):
        entries = [{"typed_extension_config": {"name": "p", "typed_config": config}} for config in configs]
        return {"policies": entries}

    def test_cd_05_the_first_that_is_known(self):
        unknown = {"@type": "type.googleapis.com/google.protobuf.Empty"}
        least = {"@type": f"{LB}least_request.v3.LeastRequest", "choice_count": 3}
        round_robin = {"@type": f"{LB}round_robin.v3.RoundRobin"}
        found = good(made(load_balancing_policy=self.policy(unknown, least, round_robin))).balancing
        assert (found.kind, found.choice_count) == (Balancer.LEAST_REQUEST, 3)

    def test_cd_05_none_is_known(self):
        [found] = problems(
            made(load_balancing_policy=self.policy({"@type": "type.googleapis.com/google.protobuf.Empty"}))
        )
        assert found == "load_balancing_policy.policies: none is supported (google.protobuf.Empty)"
        assert problems(made(load_balancing_policy={}))[0].startswith("load_balancing_policy.policies: none")

    def test_cd_05_a_known_one_that_is_wrong_ends_the_search(self):
        wrong = {"@type": f"{LB}least_request.v3.LeastRequest", "choice_count": 1}
        fine = {"@type": f"{LB}round_robin.v3.RoundRobin"}
        [found] = problems(made(load_balancing_policy=self.policy(wrong, fine)))
        assert found.endswith(
            "policies[0].typed_extension_config.typed_config.choice_count: must be at least 2, not 1"
        )

    @pytest.mark.parametrize(
        ("name", "fields", "balancing"),
        [
            (
                "ring_hash.v3.RingHash",
                {"hash_function": "MURMUR_HASH_2", "locality_weighted_lb_config": {}, "hash_balance_factor": 120},
                Balancing(Balancer.RING_HASH, murmur=True, locality_weighted=True, load_factor=120),
            ),
            (
                "ring_hash.v3.RingHash",
                {"consistent_hashing_lb_config": {"use_hostname_for_hashing": True}, "hash_balance_factor": 120},
                Balancing(Balancer.RING_HASH, hash_hostname=True),
            ),
            (
                "maglev.v3.Maglev",
                {
                    "table_size": 251,
                    "consistent_hashing_lb_config": {"hash_policy": [{"header": {"header_name": "X"}, "terminal": True}]},
                },
                Balancing(
                    Balancer.MAGLEV, table_size=251, hash_policy=(HashPolicy(HashKind.HEADER, "x", terminal=True),)
                ),
            ),
            (
                "least_request.v3.LeastRequest",
                {"selection_method": "FULL_SCAN"},
                Balancing(Balancer.LEAST_REQUEST, full_scan=True),
            ),
            (
                "least_request.v3.LeastRequest",
                {"enable_full_scan": {"value": True}},
                Balancing(Balancer.LEAST_REQUEST, full_scan=True),
            ),
            (
                "client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin",
                {},
                Balancing(Balancer.ORCA),
            ),
            (
                "client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin",
                {
                    "enable_oob_load_report": {"value": True},
                    "oob_reporting_period": "5s",
                    "blackout_period": "0s",
                    "weight_expiration_period": "9s",
                    "weight_update_period": "0.001s",
                    "error_utilization_penalty": {"value": 2.5},
                    "metric_names_for_computing_utilization": ["named_metrics.kv"],
                },
                Balancing(
                    Balancer.ORCA,
                    reports=Reports(0.0, 9.0, 0.1, beside=5.0, penalty=2.5, names=("named_metrics.kv",)),
                ),
            ),
        ],
    )  # fmt: skip
    def test_policies_with_what_they_say(self, name, fields, balancing):
        """LB-03, LB-05, LB-06, LB-07."""
        resource = made(load_balancing_policy=self.policy({"@type": f"{LB}{name}", **fields}))
        assert good(resource).balancing == balancing
        assert ignored(resource) == {}

    @pytest.mark.parametrize("penalty", [-0.5, float("inf"), float("nan")])
    def test_lb_07_a_penalty_that_is_none(self, penalty):
        name = f"{LB}client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin"
        policy = {"@type": name, "error_utilization_penalty": {"value": penalty}}
        [problem] = problems(made(load_balancing_policy=self.policy(policy)))
        assert "error_utilization_penalty: must not be negative" in problem

    @pytest.mark.parametrize(
        ("written", "found"),
        [
            ({"slow_start_window": "30s"}, SlowStart(30.0)),
            (
                {
                    "slow_start_window": "30s",
                    "aggression": {"default_value": 2.0, "runtime_key": "k"},
                    "min_weight_percent": {"value": 25},
                },
                SlowStart(30.0, 2.0, 0.25),
            ),
            ({"slow_start_window": "30s", "aggression": {"default_value": -1.0, "runtime_key": "k"}}, SlowStart(30.0)),
            ({"slow_start_window": "0s"}, None),
        ],
    )  # fmt: skip
    def test_slow_start_of_every_policy_that_has_it(self, written, found):
        orca = "client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin"
        for name in ("round_robin.v3.RoundRobin", "least_request.v3.LeastRequest", orca):
            policy = self.policy({"@type": f"{LB}{name}", "slow_start_config": written})
            assert good(made(load_balancing_policy=policy)).balancing.slow_start == found
        for enum, field in (
            ("ROUND_ROBIN", "round_robin_lb_config"),
            ("LEAST_REQUEST", "least_request_lb_config"),
        ):
            config = {field: {"slow_start_config": written}}
            assert good(made(lb_policy=enum, **config)).balancing.slow_start == found

    @pytest.mark.parametrize("shuffled", [False, True])
    def test_lb_09_pick_first(self, shuffled):
        policy = {"@type": f"{LB}pick_first.v3.PickFirst", "shuffle_address_list": shuffled}
        found = decode.cluster(raw(made(load_balancing_policy=self.policy(policy))), "target").value
        assert found.balancing == Balancing(Balancer.PICK_FIRST, shuffled=shuffled)

    def test_wrr_locality(self):
        child = self.policy({"@type": f"{LB}random.v3.Random"})
        outer = {"@type": f"{LB}wrr_locality.v3.WrrLocality", "endpoint_picking_policy": child}
        found = good(made(load_balancing_policy=self.policy(outer))).balancing
        assert (found.kind, found.locality_weighted) == (Balancer.RANDOM, True)

    def test_cd_05_nesting(self):
        policy = self.policy({"@type": f"{LB}random.v3.Random"})
        for _ in range(17):
            policy = self.policy(
                {"@type": f"{LB}wrr_locality.v3.WrrLocality", "endpoint_picking_policy": policy}
            )
        assert "nested deeper than 16" in problems(made(load_balancing_policy=policy))[0]

    def test_common(self):
        found = good(
            made(common_lb_config={"healthy_panic_threshold": {}, "locality_weighted_lb_config": {}})
        )
        assert (found.balancing.panic_threshold, found.balancing.locality_weighted) == (0.0, True)
        assert good(made()).balancing.panic_threshold == 50.0
        assert good(made()).balancing.zones is None
        [problem] = problems(made(common_lb_config={"healthy_panic_threshold": {"value": 101}}))
        assert problem.startswith("common_lb_config.healthy_panic_threshold: ")

    @pytest.mark.parametrize(
        ("written", "found"),
        [
            ({}, ZoneAware()),
            (
                {
                    "routing_enabled": {"value": 12.9},
                    "min_cluster_size": 0,
                    "fail_traffic_on_panic": True,
                },
                ZoneAware(12, 0, fail_on_panic=True),
            ),
        ],
    )
    def test_zones(self, written, found):
        resource = made(common_lb_config={"zone_aware_lb_config": written})
        assert good(resource).balancing.zones == found
        assert ignored(resource) == {}
        for name in ("round_robin.v3.RoundRobin", "least_request.v3.LeastRequest", "random.v3.Random"):
            policy = {"@type": f"{LB}{name}", "locality_lb_config": {"zone_aware_lb_config": written}}
            resource = made(load_balancing_policy=self.policy(policy))
            assert good(resource).balancing.zones == found
            assert ignored(resource) == {}

    @pytest.mark.parametrize(
        ("written", "found"),
        [
            ({"force_local_zone": {}}, ZoneAware(force=1)),
            (
                {"force_local_zone": {"min_size": 3}, "force_locality_direct_routing": True},
                ZoneAware(force=3),
            ),
            ({"force_locality_direct_routing": True}, ZoneAware(force=1)),
            ({"locality_basis": "HEALTHY_HOSTS_WEIGHT"}, ZoneAware(by_weight=True)),
        ],
    )
    def test_zones_of_a_policy(self, written, found):
        policy = {
            "@type": f"{LB}round_robin.v3.RoundRobin",
            "locality_lb_config": {"zone_aware_lb_config": written},
        }
        resource = made(load_balancing_policy=self.policy(policy))
        assert good(resource).balancing.zones == found
        assert ignored(resource) == {}

    @pytest.mark.parametrize("field", ["lb_subset_config", "load_balancing_policy"])
    def test_subsets(self, field):
        written = {
            "fallback_policy": "DEFAULT_SUBSET",
            "default_subset": {"v": 1, "on": True},
            "subset_selectors": [
                {"keys": ["v", "a", "v"]},
                {"keys": ["on"], "fallback_policy": "ANY_ENDPOINT", "single_host_per_subset": True},
                {"keys": ["a", "b"], "fallback_policy": "KEYS_SUBSET", "fallback_keys_subset": ["b"]},
            ],
            "locality_weight_aware": True,
            "scale_locality_weight": True,
            "panic_mode_any": True,
            "list_as_any": True,
            "metadata_fallback_policy": "FALLBACK_LIST",
        }
        found = Subsets(
            (
                Selector(("a", "v")),
                Selector(("on",), SubsetFallback.ANY, single=True),
                Selector(("a", "b"), SubsetFallback.KEYS, ("b",)),
            ),
            SubsetFallback.DEFAULT,
            (("on", (bool, True)), ("v", 1.0)),
            weighted=True,
            scaled=True,
            any_in_panic=True,
            any_of_list=True,
            variants=True,
        )
        if field == "lb_subset_config":
            resource = made(lb_policy="RANDOM", lb_subset_config=written)
        else:
            child = self.policy({"@type": f"{LB}random.v3.Random"})
            outer = {"@type": f"{LB}subset.v3.Subset", **written, "subset_lb_policy": child}
            resource = made(load_balancing_policy=self.policy({**outer, "allow_redundant_keys": True}))
            found = replace(found, redundant=True)
        assert good(resource).balancing == Balancing(Balancer.RANDOM, subsets=found)
        assert ignored(resource) == {}

    def test_without_a_selector_there_are_no_subsets(self):
        assert good(made(lb_subset_config={"fallback_policy": "NO_FALLBACK"})).balancing.subsets is None

    @pytest.mark.parametrize(
        ("written", "problem"),
        [
            (
                {"subset_selectors": [{"keys": ["a"], "fallback_keys_subset": ["a"]}]},
                "subset_selectors[0].fallback_keys_subset: is for",
            ),
            (
                {"subset_selectors": [{"keys": ["a"], "fallback_policy": "KEYS_SUBSET"}]},
                "subset_selectors[0].fallback_keys_subset: must not be empty",
            ),
            (
                {
                    "subset_selectors": [
                        {"keys": ["a"], "fallback_policy": "KEYS_SUBSET", "fallback_keys_subset": ["a"]}
                    ]
                },
                "subset_selectors[0].fallback_keys_subset: must be some of keys",
            ),
            (
                {
                    "subset_selectors": [
                        {"keys": ["a", "b"], "fallback_policy": "KEYS_SUBSET", "fallback_keys_subset": ["c"]}
                    ]
                },
                "subset_selectors[0].fallback_keys_subset: must be some of keys",
            ),
            ({"fallback_policy": 7}, "fallback_policy: 7 is not known"),
            ({"subset_selectors": [{"fallback_policy": 9}]}, "subset_selectors[0].fallback_policy: 9"),
            ({"metadata_fallback_policy": 3}, "metadata_fallback_policy: 3 is not known"),
            ({"subset_selectors": [{}] * 101}, "subset_selectors: there may be 100 at most"),
            (
                {"subset_selectors": [{"keys": [str(number) for number in range(21)]}]},
                "subset_selectors[0].keys: there may be 20 at most",
            ),
        ],
    )
    def test_subsets_that_are_none(self, written, problem):
        [found] = problems(made(lb_subset_config=written))
        assert found.startswith(f"lb_subset_config.{problem}")

    def test_subsets_beside_what_they_cannot_stand_beside(self):
        child = self.policy({"@type": f"{LB}random.v3.Random"})
        config = {"subset_selectors": [{"keys": ["a"]}]}
        [problem] = problems_of_envoy(made(lb_subset_config=config, load_balancing_policy=child))
        assert problem == "lb_subset_config: cannot stand beside load_balancing_policy"
        assert "lb_subset_config: cannot stand beside lb_policy CLUSTER_PROVIDED" in problems(
            made(lb_policy="CLUSTER_PROVIDED", lb_subset_config=config)
        )
        inner = {"@type": f"{LB}subset.v3.Subset", "subset_lb_policy": child}
        outer = {"@type": f"{LB}subset.v3.Subset", "subset_lb_policy": self.policy(inner)}
        [problem] = problems(made(load_balancing_policy=self.policy(outer)))
        assert problem.endswith("subset_lb_policy: subsets of subsets are not supported")

    def test_lb_12_random_subsetting(self):
        """gRPC's own: an Envoy goes on to the next policy."""
        child = self.policy({"@type": f"{LB}least_request.v3.LeastRequest"})
        some = {
            "@type": f"{LB}random_subsetting.v3.RandomSubsetting",
            "subset_size": 7,
            "child_policy": child,
        }
        resource = made(load_balancing_policy=self.policy(some))
        found = decode.cluster(raw(resource), "target")
        assert found.value.balancing == Balancing(Balancer.LEAST_REQUEST, aperture=Aperture(7))
        assert found.ignored == ()
        both = self.policy(some, {"@type": f"{LB}round_robin.v3.RoundRobin"})
        assert good(made(load_balancing_policy=both)).balancing.kind is Balancer.ROUND_ROBIN

    @pytest.mark.parametrize("size", [{}, {"subset_size": 0}])
    def test_lb_12_a_subset_of_nobody(self, size):
        child = self.policy({"@type": f"{LB}round_robin.v3.RoundRobin"})
        some = {"@type": f"{LB}random_subsetting.v3.RandomSubsetting", "child_policy": child, **size}
        [problem] = problems(made(load_balancing_policy=self.policy(some)))
        assert problem.endswith("subset_size: must be set and more than 0")

    def test_a_share_of_zones_that_is_none(self):
        [problem] = problems(
            made(common_lb_config={"zone_aware_lb_config": {"routing_enabled": {"value": 101}}})
        )
        assert problem.startswith("common_lb_config.zone_aware_lb_config.routing_enabled: must be 0 to 100")


class TestPolicies:
    def test_cb_01_limits(self):
        thresholds = [
            {"priority": "HIGH", "max_requests": 1},
            {"max_requests": 5, "max_retries": 4294967295, "retry_budget": {"budget_percent": {"value": 10}}},
            {"max_requests": 6},
        ]
        resource = made(circuit_breakers={"thresholds": thresholds})
        assert good(resource).limits == Limits(1024, 1024, 5, None, RetryBudget(10.0, 3))
        assert good(resource).high_limits == Limits(max_requests=1)
        assert list(ignored(resource)) == ["circuit_breakers.thresholds[2]"]
        assert (good(made()).limits, good(made()).high_limits) == (Limits(), Limits())

    @pytest.mark.parametrize(("written", "limit"), [(3, 3), (100, 100), (4294967295, None), (None, None)])
    def test_cb_03_connections_of_an_endpoint(self, written, limit):
        thresholds = [
            {"priority": "HIGH", "max_connections": 1},
            {"max_requests": 7} if written is None else {"max_requests": 7, "max_connections": written},
            {"max_connections": 2},
        ]
        resource = made(circuit_breakers={"per_host_thresholds": thresholds})
        assert good(resource).limits == Limits(max_connections_per_endpoint=limit)
        assert good(resource).high_limits == good(resource).limits
        at = "circuit_breakers.per_host_thresholds"
        assert set(ignored(resource)) == {f"{at}[0]", f"{at}[2]"}

    def test_cb_03_no_connections_at_all_are_refused_by_a_grpc_client(self):
        resource = made(circuit_breakers={"per_host_thresholds": [{"max_connections": 0}]})
        [problem] = problems(resource)
        assert problem == "circuit_breakers.per_host_thresholds[0].max_connections: must not be 0"
        assert good(resource).limits.max_connections_per_endpoint == 0, "an Envoy has one nevertheless"

    def test_cb_03_a_grpc_client_has_one_connection_unless_it_is_told(self):
        views = ((), 10), (("target",), 1)
        for view, connections in views:
            found = decode.cluster(raw(build.cluster("c")), *view).value
            assert found.limits.grpc_connections == connections

    def test_od_01_outlier(self):
        assert good(made()).outlier is None
        assert good(made(outlier_detection={})).outlier == Outlier()
        found = good(
            made(
                outlier_detection={
                    "consecutive_5xx": 3,
                    "interval": "1s",
                    "base_ejection_time": "400s",
                    "max_ejection_percent": 50,
                    "enforcing_consecutive_gateway_failure": 100,
                }
            )
        ).outlier
        assert (found.consecutive_5xx, found.interval, found.max_ejection) == (3, 1.0, 400.0)
        assert (found.max_ejection_percent, found.enforcing_gateway) == (50.0, 100)

    def test_od_02_dv_04_an_empty_message_is_success_rate(self):
        found = good(made(outlier_detection={})).outlier
        assert found.success_rate == SuccessRate(5, 100, 1.9, 100, 100)
        assert found.failure_percentage is None

    def test_od_01_success_rate_and_failure_percentage(self):
        asked = {
            "success_rate_minimum_hosts": 3,
            "success_rate_request_volume": 7,
            "success_rate_stdev_factor": 2500,
            "enforcing_success_rate": 90,
            "enforcing_local_origin_success_rate": 80,
            "failure_percentage_threshold": 60,
            "failure_percentage_minimum_hosts": 0,
            "failure_percentage_request_volume": 9,
            "enforcing_failure_percentage": 70,
            "enforcing_failure_percentage_local_origin": 50,
        }
        resource = made(outlier_detection=asked)
        assert good(resource).outlier == Outlier(
            success_rate=SuccessRate(3, 7, 2.5, 90, 80),
            failure_percentage=FailurePercentage(60.0, 0, 9, 70, 50),
        )
        assert ignored(resource) == {}
        assert good(made(outlier_detection={"enforcing_failure_percentage": 1})).outlier == Outlier(
            failure_percentage=FailurePercentage(85.0, 5, 50, 1, 0)
        )

    @pytest.mark.parametrize("split", [False, True])
    def test_od_what_ejects_nobody_is_not_there(self, split):
        asked = {
            "split_external_local_origin_errors": split,
            "enforcing_success_rate": 0,
            "enforcing_failure_percentage_local_origin": 10,
        }
        found = good(made(outlier_detection=asked)).outlier
        assert (found.success_rate is not None, found.failure_percentage is not None) == (split, split)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("max_ejection_percent", 101),
            ("enforcing_consecutive_5xx", 101),
            ("enforcing_success_rate", 101),
            ("enforcing_local_origin_success_rate", 101),
            ("failure_percentage_threshold", 101),
            ("enforcing_failure_percentage", 101),
            ("enforcing_failure_percentage_local_origin", 4294967295),
            ("base_ejection_time", "0s"),
            ("max_ejection_time", "1s"),
        ],
    )
    def test_wrong_outlier(self, field, value):
        [found] = problems(made(outlier_detection={field: value}))
        assert found.startswith(f"outlier_detection.{field}: ")

    def test_cd_08_connect_timeout(self):
        resource = made()
        del resource["connect_timeout"]
        assert good(resource).connect_timeout == 5.0
        assert good(made(connect_timeout="0.25s")).connect_timeout == 0.25

    @pytest.mark.parametrize(
        ("options", "http2"),
        [
            ({"explicit_http_config": {"http2_protocol_options": {}}}, True),
            ({"explicit_http_config": {"http_protocol_options": {}}}, False),
            ({"use_downstream_protocol_config": {}}, False),
        ],
    )
    def test_protocols(self, options, http2):
        common = {"idle_timeout": "9s", "max_connection_duration": "70s", "max_requests_per_connection": 7}
        held = {"@type": f"type.googleapis.com/{HTTP}", "common_http_protocol_options": common, **options}
        found = good(made(typed_extension_protocol_options={HTTP: held}))
        assert (found.http2, found.idle_timeout, found.max_requests_per_connection) == (http2, 9.0, 7)
        assert found.max_connection_age == 70.0

    @pytest.mark.parametrize("wrong", [None, 0, 2**31])
    def test_streams_at_once(self, wrong):
        said = {"max_concurrent_streams": 7 if wrong is None else wrong}
        held = {
            "@type": f"type.googleapis.com/{HTTP}",
            "explicit_http_config": {"http2_protocol_options": said},
        }
        both = (
            made(http2_protocol_options=said),
            made(http2_protocol_options={}, typed_extension_protocol_options={HTTP: held}),
        )
        for resource in both:
            if wrong is None:
                assert good(resource).connecting.most_streams == 7
                assert ignored(resource) == {}
            else:
                [found] = problems(resource)
                assert "max_concurrent_streams: must be 1 to" in found

    def test_the_callers_protocol_is_http1(self):
        assert good(made(http2_protocol_options={})).http2
        found = made(http2_protocol_options={}, protocol_selection="USE_DOWNSTREAM_PROTOCOL")
        assert not good(found).http2
        assert ignored(found) == {}

    @pytest.mark.parametrize(
        ("kind", "told"),
        [
            ("envoy.extensions.upstreams.http.generic.v3.GenericConnectionPoolProto", False),
            ("envoy.extensions.upstreams.http.http.v3.HttpConnectionPoolProto", False),
            ("envoy.extensions.upstreams.http.tcp.v3.TcpConnectionPoolProto", True),
        ],
    )
    def test_pools(self, kind, told):
        typed = build.any_of("xds.type.v3.TypedStruct", {"type_url": f"type.googleapis.com/{kind}"})
        found = ignored(made(upstream_config={"name": "x", "typed_config": typed}))
        assert found == ({"upstream_config": kind} if told else {})

    def test_filters_on_the_way_that_guard_nothing(self):
        kinds = [
            f"envoy.extensions.filters.http.{kind}"
            for kind in ("upstream_codec.v3.UpstreamCodec", "header_mutation.v3.HeaderMutation")
        ]
        filters = [
            {"name": "x", "typed_config": build.any_of("xds.type.v3.TypedStruct", {"type_url": f"t/{kind}"})}
            for kind in kinds
        ]
        held = {"@type": f"type.googleapis.com/{HTTP}", "explicit_http_config": {"http_protocol_options": {}}}
        resource = made(typed_extension_protocol_options={HTTP: {**held, "http_filters": filters}})
        assert list(ignored(resource).values()) == [kinds[1]]

    def test_http3_is_refused(self):
        held = {
            "@type": f"type.googleapis.com/{HTTP}",
            "explicit_http_config": {"http3_protocol_options": {}},
        }
        assert "http3_protocol_options" in problems(made(typed_extension_protocol_options={HTTP: held}))[0]

    def test_deprecated_protocol_fields(self):
        found = good(made(http2_protocol_options={}, max_requests_per_connection=3))
        assert (found.http2, found.max_requests_per_connection) == (True, 3)

    def test_metadata(self):
        found = good(made(metadata={"filter_metadata": {"istio": {"a": [1, {"b": None}]}}}))
        assert found.metadata == {"istio": {"a": [1.0, {"b": None}]}}


NAMES = {"auto_sni": True, "auto_san_validation": True, "override_auto_sni_header": "X-Sni"}


class TestNamesOfTls:
    def of(self, found):
        return (found.auto_sni, found.auto_san, found.auto_sni_header)

    def test_of_the_extension(self):
        options = {
            "explicit_http_config": {"http_protocol_options": {}},
            "upstream_http_protocol_options": NAMES,
        }
        found = good(made(typed_extension_protocol_options={HTTP: build.any_of(HTTP, options)}))
        assert self.of(found) == (True, True, "x-sni")

    def test_of_the_field_of_before(self):
        assert self.of(good(made(upstream_http_protocol_options=NAMES))) == (True, True, "x-sni")
        assert self.of(good(made())) == (False, False, "")

    def test_the_extension_holds_also_where_it_says_nothing(self):
        options = {"explicit_http_config": {"http_protocol_options": {}}}
        extension = {HTTP: build.any_of(HTTP, options)}
        resource = made(typed_extension_protocol_options=extension, upstream_http_protocol_options=NAMES)
        assert self.of(good(resource)) == (False, False, "")

    def test_a_header_that_is_none(self):
        [text] = problems_of_envoy(made(upstream_http_protocol_options={"override_auto_sni_header": "a\nb"}))
        assert text.startswith("upstream_http_protocol_options.override_auto_sni_header: ")

    def test_grpc_does_not_read_them(self):
        found = decode.cluster(raw(made(upstream_http_protocol_options=NAMES)), "target")
        assert self.of(found.value) == (False, False, "")
        assert dict(found.ignored)["upstream_http_protocol_options"] == "gRPC does not read it"


class TestEndpoints:
    def good(self, resource):
        found = decode.endpoint(raw(resource))
        assert found.problems == ()
        return found.value

    def problems(self, resource):
        found = decode.endpoint(raw(resource), "target")
        assert found.value is None
        return found.problems

    def test_fields(self):
        member = build.endpoint(
            "10.0.0.1:80",
            weight=3,
            health="DRAINING",
            hostname="h",
            metadata={"filter_metadata": {"envoy.lb": {"a": 1}}},
        )
        member["endpoint"]["additional_addresses"] = [{"address": build.socket_address("[2001:DB8::1]:80")}]
        found = self.good(
            build.endpoints(
                "c", build.locality(member, "unix:/s", region="r", zone="z", sub_zone="s", weight=7)
            )
        )
        [group] = found.localities
        assert (found.name, group.locality, group.weight) == ("c", Locality("r", "z", "s"), 7)
        first, second = group.endpoints
        assert (first.address, first.weight, first.health) == (Address("10.0.0.1", 80), 3, Health.DRAINING)
        assert first.hostname == "h"
        assert first.metadata == {"envoy.lb": {"a": 1.0}}
        assert first.additional_addresses == (Address("2001:db8::1", 80),)
        assert second.address == Address("/s", 0, True)

    @pytest.mark.parametrize("name", ["a\r\nx: y", "a b", "bücher.example", "\0", "x" * 300])
    def test_rw_03_a_name_that_no_host_has_is_left_out(self, name):
        resource = build.endpoints("c", build.endpoint("10.0.0.1:80", hostname=name))
        found = decode.endpoint(raw(resource))
        assert found.problems == ()
        assert found.value.localities[0].endpoints[0].hostname == ""
        assert [path for path, _ in found.ignored] == ["endpoints[0].lb_endpoints[0].endpoint.hostname"]

    def proxied(self, kind="core.v3.Address", **address):
        held = {
            "envoy.http11_proxy_transport_socket.proxy_address": build.any_of(f"envoy.config.{kind}", address)
        }
        metadata = {"typed_filter_metadata": held}
        return build.endpoints(
            "c",
            build.locality(build.endpoint("10.0.0.1:80", metadata=metadata), metadata=metadata),
        )

    @pytest.mark.parametrize("view", ["target", "sidecar"])
    def test_tl_07_the_proxy_on_the_way(self, view):
        address = {"socket_address": {"address": "10.9.9.9", "port_value": 3128}}
        found = decode.endpoint(raw(self.proxied(**address)), view)
        [group] = found.value.localities
        assert group.proxy == group.endpoints[0].proxy == Address("10.9.9.9", 3128)
        assert found.ignored == ()
        other = decode.endpoint(raw(self.proxied("core.v3.Locality", zone="z")), view).value
        assert other.localities[0].endpoints[0].proxy is None, "of another type it is somebody else's"

    def test_tl_07_a_proxy_that_is_none(self):
        path = "metadata.typed_filter_metadata['envoy.http11_proxy_transport_socket.proxy_address']"
        for address, words in (
            ({"socket_address": {"address": "proxy.name", "port_value": 1}}, ".socket_address.address: "),
            ({"socket_address": {"address": "10.9.9.9", "port_value": 0}}, ".socket_address.port_value: "),
            ({"pipe": {"path": "/p"}}, ".socket_address: is missing"),
            ({}, ".socket_address: is missing"),
        ):
            of_locality, of_endpoint = sorted(self.problems(self.proxied(**address)), key=len)
            assert of_endpoint.startswith(f"endpoints[0].lb_endpoints[0].{path}{words}")
            assert of_locality.startswith(f"endpoints[0].{path}{words}")
        [group] = self.good(self.proxied(pipe={"path": "/p"})).localities
        assert group.proxy == Address("/p", 0, True)

    def test_dv_15_a_locality_without_weight_is_kept(self):
        found = self.good(build.endpoints("c", build.locality("10.0.0.1:80", weight=None)))
        assert found.localities[0].weight is None

    def test_ed_05_nobody(self):
        assert self.good(build.endpoints("c")).endpoints == ()

    def test_ed_06_drops(self):
        policy = {
            "drop_overloads": [
                {"category": "a", "drop_percentage": {"numerator": 5}},
                {"category": "b", "drop_percentage": {"numerator": 200}},
            ],
            "overprovisioning_factor": 100,
            "weighted_priority_health": True,
        }
        found = decode.endpoint(raw(build.endpoints("c", policy=policy)), "target").value
        assert found.drops == (Drop("a", 50_000), Drop("b", 1_000_000))
        assert found.overprovisioning_factor == 100
        assert found.weighted_health

    @pytest.mark.parametrize(
        ("resource", "place"),
        [
            (
                build.endpoints("c", build.endpoint("10.0.0.1:80", weight=0)),
                "lb_endpoints[0].load_balancing_weight",
            ),
            (build.endpoints("c", "host.example:80"), "socket_address.address"),
            (build.endpoints("c", "10.0.0.1:0"), "socket_address.port_value"),
            (build.endpoints("c", "10.0.0.1:70000"), "socket_address.port_value"),
            (build.endpoints("c", "10.0.0.1:80", "10.0.0.1:80"), "endpoints[0]: 10.0.0.1:80 is there twice"),
            (build.endpoints("c", build.locality(priority=1)), "endpoints: priorities must begin with 0"),
            (
                build.endpoints("c", build.locality(), build.locality(priority=2, zone="z")),
                "endpoints: priorities must begin with 0 and have no gap, not 0, 2",
            ),
            (build.endpoints("c", build.locality(priority=200)), "endpoints[0].priority"),
            (
                build.endpoints("c", build.locality("10.0.0.1:80"), build.locality("10.0.0.2:80")),
                "endpoints[1].locality",
            ),
            (
                build.endpoints("c", build.locality(weight=4294967295), build.locality(zone="z")),
                "the weights of priority 0 add up",
            ),
            (
                build.endpoints("c", policy={"drop_overloads": [{"category": "a"}]}),
                "drop_overloads[0].drop_percentage",
            ),
            (
                build.endpoints("c", policy={"drop_overloads": [{"drop_percentage": {}}]}),
                "drop_overloads[0].category",
            ),
            (build.endpoints("c", {"lb_endpoints": [{}]}), "lb_endpoints[0].endpoint: is missing"),
            (build.endpoints("c", {"lb_endpoints": [{"endpoint_name": "x"}]}), "endpoint_name"),
            (build.endpoints(""), "cluster_name"),
        ],
    )
    def test_ed_01_to_ed_06_wrong(self, resource, place):
        assert any(place in found for found in self.problems(resource))

    def test_ed_02_the_same_locality_in_two_priorities(self):
        one, two = (
            build.locality("10.0.0.1:80", zone="z"),
            build.locality("10.0.0.2:80", zone="z", priority=1),
        )
        assert len(self.good(build.endpoints("c", one, two)).localities) == 2

    def test_udp(self):
        member = build.endpoint("10.0.0.1:80")
        member["endpoint"]["address"]["socket_address"]["protocol"] = "UDP"
        assert "UDP is not supported" in self.problems(build.endpoints("c", member))[0]


class TestPoliciesOfCalls:
    def decoded(self, view="auto", **fields):
        options = {
            HTTP: build.any_of(HTTP, {"explicit_http_config": {"http_protocol_options": {}}, **fields})
        }
        made = build.cluster("c", ["127.0.0.1:1"], typed_extension_protocol_options=options)
        return decode.cluster(raw(made), view)

    def matcher(self, **rule):
        return self.decoded(outlier_detection={"error_matcher": rule})

    def test_as_a_rule_there_are_none(self):
        assert self.decoded().value.calls is None

    def test_what_it_orders(self):
        found = self.decoded(
            retry_policy=RETRY,
            hash_policy=[{"header": {"header_name": "x-user"}}],
            request_mirror_policies=[{"cluster": "s"}],
        )
        made = found.value
        assert (made.calls.retry.retries, made.calls.mirrors) == (3, (Mirror("s"),))
        assert made.balancing.hash_policy == (HashPolicy(HashKind.HEADER, "x-user"),)
        assert found.ignored == ()

    def test_which_responses_are_errors(self):
        bad = {"http_response_headers_match": {"headers": [{"name": "x-bad", "present_match": True}]}}
        body = {"http_response_generic_body_match": {}}
        found = self.matcher(or_match={"rules": [{"not_match": bad}, {"any_match": True}, body]})
        headers = ResponseMatch(MatchKind.HEADERS, headers=(HeaderMatch("x-bad", present=True),))
        everything = ResponseMatch(MatchKind.EVERYTHING)
        never = ResponseMatch(MatchKind.NOT, (everything,))
        inner = (ResponseMatch(MatchKind.NOT, (headers,)), everything, never)
        assert found.value.calls.errors == ResponseMatch(MatchKind.ANY, inner)
        assert found.ignored == ()

    @pytest.mark.parametrize(
        ("rule", "problem"),
        [
            ({}, "outlier_detection.error_matcher: one of its rules must be set"),
            (
                {"or_match": {"rules": [{"any_match": True}]}},
                "or_match.rules: must have two members at least",
            ),
            ({"not_match": {}}, "error_matcher.not_match: one of its rules must be set"),
        ],
    )
    def test_a_matcher_that_says_nothing(self, rule, problem):
        assert self.matcher(**rule).problems[0].endswith(problem)

    def test_in_the_target_view_they_are_reported_as_by_grpc(self):
        found = self.decoded("target", retry_policy=RETRY, request_mirror_policies=[{"cluster": "s"}])
        assert found.value.calls is None
        assert [path.rpartition(".")[2] for path, _ in found.ignored] == [
            "retry_policy",
            "request_mirror_policies",
        ]
