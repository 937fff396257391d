"""xDS v2 at the wire's edge: what comes as v2 is read as the same in v3, and what Kato does oddly is put right."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.model.match import StringKind
from meshlib.testing import build
from meshlib.testing.kato import dependency, inbound
from meshlib.testing.kato_resources import Service, node_parts, resources
from meshlib.xds import decode, schema, v2
from meshlib.xds.decode import types
from tests.support.xds_kit import REQUEST, RESPONSE, message

OURS = "demo_plugin_gr1"
HCM = "envoy.config.filter.network.http_connection_manager.v2.HttpConnectionManager"
MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
URL = "type.googleapis.com/"


def varint(value):
    made = b""
    while value > 127:
        made += bytes([value & 127 | 128])
        value >>= 7
    return made + bytes([value])


def field(number, inner):
    """Bytes of a field by its number: of a message, or of bytes."""
    held = inner if isinstance(inner, bytes) else inner.SerializeToString()
    return varint(number << 3 | 2) + varint(len(held)) + held


def made(kind, *old, **fields):
    """A message of the schema, with fields that it does not have."""
    inner = schema.from_json(kind, fields)
    for each in old:
        inner.MergeFromString(each)
    return inner


def packed(name, inner):
    return schema.message("google.protobuf.Any")(type_url=URL + name, value=inner.SerializeToString())


def struct(**fields):
    return schema.from_json("google.protobuf.Struct", fields)


def translated(name, *resources, ours=OURS):
    """What a response of these is in v3, and what is told."""
    response = RESPONSE(type_url=URL + name, version_info="version_1", nonce="1")
    response.resources.extend(packed(name, each) for each in resources)
    told = v2.response(response, ours)
    return response, told


def read(name, resource, short, ours=OURS):
    """The decoding of one v2 resource."""
    response, told = translated(name, resource, ours=ours)
    (outer,) = response.resources
    kind = next(each for each in types("sidecar") if each.short == short)
    assert outer.type_url == kind.url == response.type_url
    return kind.decode(outer.value), told


def cluster(*old, **fields):
    return read(
        "envoy.api.v2.Cluster", made("envoy.config.cluster.v3.Cluster", *old, name="c", **fields), "cluster"
    )


def listener(*filters, **fields):
    inner = made(
        "envoy.config.listener.v3.Listener", name="l", address=build.socket_address("127.0.0.1:80"), **fields
    )
    inner.filter_chains.add().filters.extend(filters)
    return read("envoy.api.v2.Listener", inner, "listener")


def filter_of(name, *old, typed=None):
    inner = made("envoy.config.listener.v3.Filter", *old, name=name)
    if typed is not None:
        inner.typed_config.CopyFrom(typed)
    return inner


def manager(*filters, hosts=None):
    hosts = hosts or [build.virtual_host("all", build.route("/", cluster="c"), domains=["*"])]
    inner = made(MANAGER, stat_prefix="x", route_config={"name": "r", "virtual_hosts": hosts})
    inner.http_filters.extend(filters)
    return packed(HCM, inner)


def http_filter(name, *old, typed=None):
    inner = made(f"{MANAGER.rpartition('.')[0]}.HttpFilter", *old, name=name)
    if typed is not None:
        inner.typed_config.CopyFrom(typed)
    return inner


ROUTER = http_filter("envoy.router")


class TestRequests:
    @pytest.mark.parametrize(
        ("v3", "old"),
        [
            (schema.LISTENER, "envoy.api.v2.Listener"),
            (schema.CLUSTER, "envoy.api.v2.Cluster"),
            (schema.ENDPOINT, "envoy.api.v2.ClusterLoadAssignment"),
            (schema.ROUTE, "envoy.api.v2.RouteConfiguration"),
            (schema.SECRET, "envoy.api.v2.auth.Secret"),
        ],
    )
    def test_types(self, v3, old):
        raw = v2.request(
            REQUEST(type_url=v3, version_info="version_1", resource_names=["a"], response_nonce="3")
        )
        sent = REQUEST.FromString(raw)
        assert sent.type_url == URL + old
        assert (sent.version_info, list(sent.resource_names), sent.response_nonce) == (
            "version_1",
            ["a"],
            "3",
        )
        assert v2.url_of("type.googleapis.com/x.y") == "type.googleapis.com/x.y"


class TestClusters:
    def test_hosts_are_endpoints(self):
        """1.6: the own inbound cluster is STATIC, with the field that v3 took away."""
        addresses = [
            field(7, made("envoy.config.core.v3.Address", **build.socket_address(f"127.0.0.1:{port}")))
            for port in (1, 2)
        ]
        found, told = cluster(*addresses, type="STATIC", connect_timeout="1s")
        assert found.problems == ()
        assert [str(each.address) for each in found.value.assignment.endpoints] == [
            "127.0.0.1:1",
            "127.0.0.1:2",
        ]
        assert (told, found.ignored) == ((), ())

    def test_tls_that_stood_by_itself_is_demanded(self):
        """A cluster that demands TLS is never called in plain text."""
        context = schema.from_json(
            "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", {"sni": "a.example"}
        )
        found, _ = cluster(field(11, context), type="STATIC")
        assert found.value.tls.sni == "a.example"

    def test_tls_of_a_third_party_component(self):
        context = schema.from_json(
            "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", {"sni": "a.example"}
        )
        inner = made("envoy.config.cluster.v3.Cluster", name="c", type="STATIC")
        inner.transport_socket.name = "envoy.transport_sockets.tls"
        inner.transport_socket.typed_config.CopyFrom(packed("envoy.api.v2.auth.UpstreamTlsContext", context))
        found, _ = read("envoy.api.v2.Cluster", inner, "cluster")
        assert found.value.tls.sni == "a.example"
        assert not found.value.tls.unsupported

    def test_tls_as_a_struct(self):
        socket = made("envoy.config.core.v3.TransportSocket", field(2, struct(sni="a.example")), name="tls")
        inner = made("envoy.config.cluster.v3.Cluster", name="c", type="STATIC")
        inner.transport_socket.CopyFrom(socket)
        found, _ = read("envoy.api.v2.Cluster", inner, "cluster")
        assert found.value.tls.sni == "a.example"

    @pytest.mark.parametrize(("sent", "kept"), [("250s", 5.0), ("61s", 5.0), ("60s", 60.0), ("0.250s", 0.25)])
    def test_a_timeout_of_another_unit(self, sent, kept):
        found, told = cluster(type="STATIC", connect_timeout=sent)
        assert found.value.connect_timeout == kept
        assert [(each.type, each.resource, each.field) for each in told] == (
            [("cluster", "c", "connect_timeout")] if kept == 5.0 else []
        )

    def test_what_is_unknown_deeper_is_told_beside_what_is_read(self):
        inner = made("envoy.config.cluster.v3.Cluster", field(11, b""), name="c", type="STATIC")
        inner.common_lb_config.MergeFromString(field(50, b"x"))
        found, _ = read("envoy.api.v2.Cluster", inner, "cluster")
        assert found.value.tls is not None
        assert found.ignored[0] == ("common_lb_config.#50", "a field that is not known")

    @pytest.mark.parametrize(
        "data", [b"\x39" + b"\x00" * 7 + b"\x01", b"\x38\xff\xff\xff\xff\x0f", b"\x3d\xff\xff\xff\xff"]
    )
    def test_a_number_where_a_message_stood_is_no_message(self, data):
        """It says nothing of how much memory is wanted."""
        found, told = cluster(data, type="STATIC")
        assert (told, found.ignored) == ((), (("#7", "a field that is not known"),))

    def test_a_balancer_of_original_destinations_has_another_name(self):
        inner = made("envoy.config.cluster.v3.Cluster", name="c", type="ORIGINAL_DST")
        inner.lb_policy = 4
        found, told = read("envoy.api.v2.Cluster", inner, "cluster")
        assert (found.problems, told) == ((), ())

    def test_a_panic_threshold_of_half_a_percent_is_one(self):
        found, told = cluster(type="STATIC", common_lb_config={"healthy_panic_threshold": {"value": 0.5}})
        assert found.value.balancing.panic_threshold == 0.5
        assert (told, found.problems) == ((), ())

    def test_what_v3_does_not_have_and_nobody_reads_is_told(self):
        found, _ = cluster(field(35, b"x"), type="STATIC")
        assert found.ignored == (("#35", "a field that is not known"),)
        kept, _ = cluster(field(35, b"x"), field(11, b""), type="STATIC")
        assert kept.ignored[0] == ("#35", "a field that is not known")


class TestListeners:
    def test_a_connection_manager_of_v2_with_a_router_that_only_its_name_tells(self):
        """1.7"""
        found, told = listener(filter_of("envoy.http_connection_manager", typed=manager(ROUTER)))
        assert (found.problems, told) == ((), ())
        (host,) = found.value.http.routes.virtual_hosts
        assert host.routes[0].action.cluster == "c"

    @pytest.mark.parametrize("name", ["envoy.tcp_proxy", "envoy.filters.network.tcp_proxy"])
    def test_a_tcp_proxy(self, name):
        proxy = schema.from_json(
            "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", {"stat_prefix": "x", "cluster": "c"}
        )
        typed = packed("envoy.config.filter.network.tcp_proxy.v2.TcpProxy", proxy)
        as_struct = field(2, struct(stat_prefix="x", cluster="c"))
        for each in (filter_of(name, typed=typed), filter_of(name, as_struct)):
            found, _ = listener(each)
            assert found.problems == ()
            (host,) = found.value.chains[0].tcp.routes.virtual_hosts
            assert host.routes[0].action.cluster == "c"

    def test_a_connection_manager_as_a_struct(self):
        """Names of v2 are those of v3 there; so are filters in it."""
        route = {"match": {"prefix": "/"}, "route": {"cluster": "c", "host_rewrite": "h.example"}}
        settings = struct(
            stat_prefix="x",
            route_config={"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [route]}]},
            http_filters=[
                {"name": "envoy.rate_limit", "config": {"domain": "d"}},
                {"name": "envoy.router", "config": {"start_child_span": True}},
            ],
        )
        found, told = listener(filter_of("envoy.http_connection_manager", field(2, settings)))
        assert found.problems == ()
        assert told == ()
        action = found.value.http.routes.virtual_hosts[0].routes[0].action
        assert action.host_rewrite.value == "h.example"

    def test_a_struct_with_what_nobody_knows_is_told(self):
        found, told = listener(
            filter_of("envoy.tcp_proxy", field(2, struct(stat_prefix="x", cluster="c", deprecated_v1={})))
        )
        assert found.problems == ()
        assert [(each.field, each.type) for each in told] == [
            ("filter_chains[0].filters[0].config.deprecated_v1", "listener")
        ]

    def test_host_rewrite_has_its_number(self):
        inner = build.virtual_host(
            "v",
            {"match": {"prefix": "/"}, "route": {"cluster": "c", "host_rewrite_literal": "h"}},
            domains=["*"],
        )
        found, _ = listener(filter_of("envoy.http_connection_manager", typed=manager(ROUTER, hosts=[inner])))
        assert found.value.http.routes.virtual_hosts[0].routes[0].action.host_rewrite.value == "h"

    def test_a_limit_of_rates_is_reported_and_serves(self):
        """Section 2: envoy.rate_limit with a Struct. It asks how many, and not who."""
        limiter = http_filter("envoy.rate_limit", field(2, struct(domain="limit.common")))
        found, _ = listener(filter_of("envoy.http_connection_manager", typed=manager(limiter, ROUTER)))
        assert found.problems == ()
        assert found.ignored[0][0].endswith("http_filters[0]")

    @pytest.mark.parametrize(
        "guard",
        [
            http_filter("envoy.ext_authz"),
            http_filter("envoy.ext_authz", field(2, struct(failure_mode_allow=True))),
            http_filter(
                "envoy.filters.http.rbac", typed=packed("envoy.config.filter.http.rbac.v2.RBAC", struct())
            ),
            http_filter("jwt-auth", field(2, struct(issuer="x"))),
        ],
        ids=["name", "struct", "type", "istio"],
    )
    def test_who_decides_who_may_pass_is_refused(self, guard):
        found, _ = listener(filter_of("envoy.http_connection_manager", typed=manager(guard, ROUTER)))
        assert "decides who may pass" in found.problems[0]

    def test_downstream_tls_of_v2_is_a_chain_of_tls(self):
        inner = made(
            "envoy.config.listener.v3.Listener", name="l", address=build.socket_address("127.0.0.1:80")
        )
        chain = inner.filter_chains.add()
        chain.filters.append(filter_of("envoy.http_connection_manager", typed=manager(ROUTER)))
        chain.MergeFromString(field(2, b""))
        response, _ = translated("envoy.api.v2.Listener", inner)
        (outer,) = response.resources
        listener_v3 = schema.message("envoy.config.listener.v3.Listener").FromString(outer.value)
        socket = listener_v3.filter_chains[0].transport_socket
        assert socket.typed_config.type_url.endswith("tls.v3.DownstreamTlsContext")

    def test_of_udp(self):
        inner = made(
            "envoy.config.listener.v3.Listener", name="l", address=build.socket_address("127.0.0.1:53")
        )
        inner.address.socket_address.protocol = 1
        found, _ = read("envoy.api.v2.Listener", inner, "listener")
        assert found.problems == ()


class TestOldMatchers:
    """Regular expressions as they stood before RE2 was asked for: a matcher that lost its text would match too much."""

    def match(self, *old, **fields):
        inner = made("envoy.config.route.v3.RouteConfiguration", name="r")
        route = inner.virtual_hosts.add(name="v", domains=["*"]).routes.add()
        route.route.cluster = "c"
        route.match.MergeFromString(
            made("envoy.config.route.v3.RouteMatch", *old, **fields).SerializeToString()
        )
        return read("envoy.api.v2.RouteConfiguration", inner, "route")[0]

    def test_of_a_path(self):
        found = self.match(field(3, b"/a/[0-9]+"))
        assert found.problems == ()
        assert found.value.virtual_hosts[0].routes[0].match.path.value == "/a/[0-9]+"

    def test_of_a_header(self):
        header = made("envoy.config.route.v3.HeaderMatcher", field(5, b"v[0-9]+"), name="x-v")
        found = self.match(field(6, header), prefix="/")
        (condition,) = found.value.virtual_hosts[0].routes[0].match.headers
        assert (condition.string.kind, condition.string.value) == (StringKind.REGEX, "v[0-9]+")

    def test_of_the_query(self):
        plain = made("envoy.config.route.v3.QueryParameterMatcher", field(3, b"1"), name="a")
        regex = made(
            "envoy.config.route.v3.QueryParameterMatcher", field(3, b"[0-9]"), field(4, b"\x08\x01"), name="b"
        )
        found = self.match(field(7, plain), field(7, regex), prefix="/")
        one, other = found.value.virtual_hosts[0].routes[0].match.query
        assert (one.string.kind, other.string.kind) == (StringKind.EXACT, StringKind.REGEX)

    @pytest.mark.parametrize("text", [b"(?=a)", b"\xff\xfe"])
    def test_what_re2_does_not_take_is_refused(self, text):
        inner = made("envoy.config.route.v3.RouteConfiguration", name="r")
        route = inner.virtual_hosts.add(name="v", domains=["*"]).routes.add()
        route.route.cluster = "c"
        route.match.prefix = "/"
        route.match.headers.add(name="x").MergeFromString(field(5, text))
        response, told = translated("envoy.api.v2.RouteConfiguration", inner)
        (outer,) = response.resources
        if told:  # half of it would match every value
            assert outer.type_url == URL + "envoy.api.v2.RouteConfiguration"
            assert "could not be read as v2" in told[0].value
        else:
            assert decode.route(outer.value).problems


class TestVirtualHosts:
    """1.7: Kato gives a domain to several; an Envoy would refuse that."""

    def hosts(self, *hosts):
        inner = made("envoy.config.route.v3.RouteConfiguration", name="r", virtual_hosts=list(hosts))
        found, told = read("envoy.api.v2.RouteConfiguration", inner, "route")
        assert told == ()
        return found

    def host(self, name, prefix, *domains, **fields):
        return build.virtual_host(name, build.route(prefix, cluster=name), domains=list(domains), **fields)

    def test_those_that_share_a_domain_are_one_the_longest_prefix_first(self):
        found = self.hosts(
            self.host("a", "/", "x.com"), self.host("b", "/api", "X.com"), self.host("c", "/", "y.com")
        )
        assert found.problems == ()
        one, other = found.value.virtual_hosts
        assert one.domains == ("x.com",)
        assert [route.action.cluster for route in one.routes] == ["b", "a"]
        assert (other.domains, [route.action.cluster for route in other.routes]) == (("y.com",), ["c"])

    def test_each_domain_has_the_routes_of_those_that_had_it(self):
        found = self.hosts(self.host("a", "/a", "x", "y"), self.host("b", "/b", "y", "z"))
        assert {
            host.domains: [route.action.cluster for route in host.routes]
            for host in found.value.virtual_hosts
        } == {
            ("x",): ["a"],
            ("y",): ["a", "b"],
            ("z",): ["b"],
        }

    def test_who_asks_for_headers_goes_first(self):
        plain = self.host("a", "/", "x")
        header = {"name": "x-tier", "prefix_match": "gold"}
        narrow = self.host("b", "/", "x")
        narrow["routes"][0]["match"]["headers"] = [header]
        found = self.hosts(plain, narrow)
        assert [route.action.cluster for route in found.value.virtual_hosts[0].routes] == ["b", "a"]

    def test_those_that_differ_otherwise_are_refused_as_ever(self):
        found = self.hosts(self.host("a", "/", "x"), self.host("b", "/b", "x", require_tls="ALL"))
        assert "already a domain" in found.problems[0]

    def test_nothing_changes_where_none_is_shared(self):
        hosts = [self.host("a", "/", "x", "y"), self.host("b", "/", "z")]
        inner = made("envoy.config.route.v3.RouteConfiguration", name="r", virtual_hosts=hosts)
        response, _ = translated("envoy.api.v2.RouteConfiguration", inner)
        assert response.resources[0].value == inner.SerializeToString()


def assignment(name, *members):
    inner = made("envoy.config.endpoint.v3.ClusterLoadAssignment", cluster_name=name)
    for group in members:
        held = inner.endpoints.add()
        for address, port in group:
            point = held.lb_endpoints.add().endpoint
            point.address.MergeFrom(made("envoy.config.core.v3.Address", **build.socket_address(address)))
            if port:
                point.health_check_config.port_value = port
    return inner


class TestNotReady:
    """1.6: of a service of which none is ready there is one address without a port for health checks."""

    def addresses(self, inner, ours=OURS):
        found, told = read("envoy.api.v2.ClusterLoadAssignment", inner, "endpoint", ours)
        return [str(each.address) for each in found.value.endpoints], [each.value for each in told]

    def test_the_sign_means_that_nobody_is_there(self):
        assert self.addresses(assignment("demo_gr1_gr2_5000", [("10.0.0.1:80", 0)])) == (
            [],
            ["10.0.0.1:80 is not ready, the control plane says, nor is any other"],
        )

    @pytest.mark.parametrize(
        "groups",
        [
            [[("10.0.0.1:80", 80)]],
            [[("10.0.0.1:80", 0), ("10.0.0.2:80", 0)]],
            [[("10.0.0.1:80", 80)], [("10.0.0.2:80", 80)]],
            [],
        ],
    )
    def test_what_is_no_sign(self, groups):
        kept, told = self.addresses(assignment("demo_gr1_gr2_5000", *groups))
        assert (len(kept), told) == (sum(map(len, groups)), [])

    @pytest.mark.parametrize(
        ("name", "ours"),
        [
            ("reviews", OURS),
            ("demo_gr9_gr2_5000", OURS),
            ("demo_gr1_gr2_5000", "shop"),
            ("demo_gr1_gr2_5000", ""),
        ],
    )
    def test_an_assignment_of_another_control_plane_has_no_such_sign(self, name, ours):
        assert self.addresses(assignment(name, [("10.0.0.1:80", 0)]), ours)[0] == ["10.0.0.1:80"]

    def test_subsets_without_a_place_are_one_locality(self):
        """1.6"""
        two = assignment("demo_gr1_gr2_5000", [("10.0.0.1:80", 80)], [("10.0.0.2:80", 80)])
        found, _ = read("envoy.api.v2.ClusterLoadAssignment", two, "endpoint")
        (group,) = found.value.localities
        assert len(group.endpoints) == 2


SERVICES = (
    Service("gr2", 5000, (("10.0.0.1:5000",), ("10.0.0.2:5001",))),
    Service("gr3", 6000, (), ("10.0.0.5:6000",)),
    Service("gr4", 8080, domain="https://api.example.com", rewrite=True),
)
SETTINGS = {
    "base_services": [
        dependency("gr2", 5000, Domains="shop", Headers="x-a:1"),
        dependency("gr2", 5000, Domains="shop", Prefix="/api"),
        dependency("gr3", 6000, "grpc", GrpcHealthServiceName="a.B"),
        dependency("gr4", 8080, Domains="api"),
    ],
    "base_ports": [inbound(8000, 65301, OPEN_LIMIT="YES")],
}
#: All that Kato's stand-in sends for these, by name.
KATOS = [
    each
    for held in resources(node_parts(OURS, "kato_xds_cluster"), SETTINGS, SERVICES).values()
    for each in held
]


class TestHostile:
    @given(st.binary(max_size=200))
    def test_any_bytes_of_any_type(self, raw):
        response = RESPONSE()
        for name in v2.TYPES:
            response.resources.add(type_url=URL + name, value=raw)
        v2.response(response, OURS)
        for kind in types("sidecar"):
            for outer in response.resources:
                if outer.type_url == kind.url:
                    kind.decode(outer.value)

    @given(st.binary(max_size=60))
    def test_any_bytes_in_fields_that_v3_took_away(self, raw):
        """What cannot be read keeps its type of v2, which the stream's machine refuses."""
        hosts = made("envoy.config.cluster.v3.Cluster", field(7, raw), field(11, raw), name="c")
        chain = made("envoy.config.listener.v3.Listener", name="l")
        chain.filter_chains.add().filters.append(filter_of("envoy.tcp_proxy", field(2, raw)))
        for name, resource, url in (
            ("envoy.api.v2.Cluster", hosts, schema.CLUSTER),
            ("envoy.api.v2.Listener", chain, schema.LISTENER),
        ):
            response, told = translated(name, resource)
            (outer,) = response.resources
            failed = any("could not be read" in each.value for each in told)
            assert outer.type_url == (URL + name if failed else url)

    @given(st.data())
    def test_a_control_planes_resources_with_other_bytes_in_them(self, data):
        name, packed_one = data.draw(st.sampled_from(KATOS))
        raw = bytearray(packed_one.value)
        for _ in range(data.draw(st.integers(1, 8))):
            at = data.draw(st.integers(0, len(raw) - 1))
            raw[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        response = RESPONSE(type_url=packed_one.type_url)
        response.resources.add(type_url=packed_one.type_url, value=bytes(raw))
        v2.response(response, OURS)
        (outer,) = response.resources
        for kind in types("sidecar"):
            if outer.type_url == kind.url:
                found = kind.decode(outer.value)
                assert (found.value is None) == bool(found.problems), name

    def test_filters_within_filters_without_end(self):
        inner = struct()
        for _ in range(200):
            outer = made("envoy.config.listener.v3.Listener", name="l")
            outer.api_listener.api_listener.CopyFrom(packed("envoy.api.v2.Listener", inner))
            inner = outer
        response, told = translated("envoy.api.v2.Listener", inner)
        (outer,) = response.resources
        assert told or outer.type_url == schema.LISTENER

    def test_the_same_bytes_come_of_the_same_bytes(self):
        """What did not change is known by its bytes."""
        inner = made("envoy.config.cluster.v3.Cluster", field(11, b""), name="c", connect_timeout="250s")
        one, other = (translated("envoy.api.v2.Cluster", inner)[0].resources[0].value for _ in range(2))
        assert one == other

    def test_a_good_resource_of_v3_in_v2_is_not_touched(self):
        inner = message(build.cluster("c", ["10.0.0.1:80"]))
        response, _ = translated("envoy.api.v2.Cluster", inner)
        assert response.resources[0].value == inner.SerializeToString()
