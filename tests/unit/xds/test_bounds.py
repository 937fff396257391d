"""What may be large: each list of a resource and of a response, and messages in messages. Four times as much takes four times as
long, and nothing is kept that was not sent.
"""

from __future__ import annotations

import time

import pytest

from meshlib.core.regex import compile_regex
from meshlib.testing import build
from meshlib.xds import decode, schema
from meshlib.xds.session import Session
from meshlib.xds.v2_hosts import merge_virtual_hosts
from tests.support.xds_kit import (
    ERROR,
    NODE,
    STATUS,
    WRAPPER,
    bad,
    delta_response,
    message,
    packed,
    response,
)

#: Of four times as much: what is linear takes 4 times as long, and what is not 16.
MOST = 10.0
#: Seconds that are too few to be compared.
NOTHING = 0.02
FEW = 300
CONFIG = "envoy.config."


def is_linear(work):
    """Whether four times as much takes about four times as long; looked at again where it does not, as others compute here, too."""

    def took(count):
        do = work(count)
        begun = time.process_time()
        do()
        return time.process_time() - begun

    def ratio():
        few, many = took(FEW), took(4 * FEW)
        return many / few if many > NOTHING else 0.0

    return any(ratio() < MOST for _ in range(3))


# --- resources -----------------------------------------------------------------------------------------------------


def host(**fields):
    """A route configuration of one virtual host with one route, and these three."""
    made = schema.message(f"{CONFIG}route.v3.RouteConfiguration")(name="r", **fields)
    first = made.virtual_hosts.add(name="v", domains=["*"])
    route = first.routes.add()
    route.match.prefix = "/"
    route.route.cluster = "c"
    return made, first, route


def virtual_hosts(count):
    made, first, _ = host()
    for number in range(count):
        made.virtual_hosts.add().CopyFrom(first)
        made.virtual_hosts[-1].name = f"v{number}"
        made.virtual_hosts[-1].domains[:] = [f"h{number}.example"]
    return "route", made


def one_domain_again_and_again(count):
    made, first, _ = host()
    for _ in range(count):
        made.virtual_hosts.add().CopyFrom(first)
    return "route", made


def domains(count):
    made, first, _ = host()
    first.domains.extend(f"*.h{number}.example" for number in range(count))
    return "route", made


def routes(count):
    made, first, _ = host()
    for number in range(count):
        each = first.routes.add()
        each.match.path = f"/p{number}"
        each.route.cluster = "c"
    return "route", made


def expressions(count):
    made, first, _ = host()
    for number in range(count // 5):
        each = first.routes.add()
        each.match.safe_regex.regex = f"/p{number}(a|b)*"
        each.route.cluster = "c"
    return "route", made


def shares(count):
    made, _, route = host()
    for number in range(count):
        route.route.weighted_clusters.clusters.add(name=f"c{number}").weight.value = 1
    return "route", made


def conditions(count):
    made, _, route = host()
    for number in range(count):
        route.match.headers.add(name=f"h{number}").string_match.exact = "x"
    return "route", made


def edits(count):
    made, _, route = host()
    for number in range(count):
        header = route.request_headers_to_add.add().header
        header.key, header.value = f"h{number}", "%REQ(x)%%PROTOCOL%"
    return "route", made


def assignment(count, zone, **fields):
    made = schema.message(f"{CONFIG}endpoint.v3.ClusterLoadAssignment")(cluster_name="c")
    for number in range(count):
        if not number or zone:
            group = made.endpoints.add(**fields)
            group.locality.zone = zone.format(number)
            group.load_balancing_weight.value = 1
        address = group.lb_endpoints.add().endpoint.address.socket_address
        address.address, address.port_value = f"10.0.{number >> 8}.{number & 255}", 80
    return "endpoint", made


def endpoints(count):
    return assignment(count, "")


def localities(count):
    return assignment(count, "z{}")


def one_locality_again_and_again(count):
    return assignment(count, "z")


def drops(count):
    short, made = assignment(1, "")
    for number in range(count):
        made.policy.drop_overloads.add(category=f"c{number}").drop_percentage.numerator = 1
    return short, made


def policies(count):
    made = message(build.cluster("c"))
    for number in range(count):
        config = made.load_balancing_policy.policies.add().typed_extension_config
        config.name, config.typed_config.type_url = f"p{number}", "x/y.Z"
    return "cluster", made


def thresholds(count):
    made = message(build.cluster("c"))
    for _ in range(count):
        made.circuit_breakers.thresholds.add().max_requests.value = 1
    return "cluster", made


def metadata(count):
    made = message(build.cluster("c"))
    for number in range(count):
        made.metadata.filter_metadata[f"k{number}"].fields["a"].string_value = "x"
    return "cluster", made


def filters(count):
    made = message(build.api_listener("l", "r"))
    manager = schema.unpack(made.api_listener.api_listener)
    router = manager.http_filters.pop()
    for number in range(count):
        each = manager.http_filters.add(name=f"f{number}", is_optional=True)
        each.typed_config.type_url = "x/y.Z"
    manager.http_filters.append(router)
    made.api_listener.api_listener.CopyFrom(schema.pack(manager))
    return "listener", made


def filter_chains(count):
    made = message(build.listener("l", "r", address="1.2.3.4:80"))
    first = made.filter_chains.pop()
    for number in range(count // 4):
        made.filter_chains.append(first)
        made.filter_chains[-1].filter_chain_match.server_names.append(f"s{number}")
    return "listener", made


RESOURCES = (
    virtual_hosts,
    one_domain_again_and_again,
    domains,
    routes,
    expressions,
    shares,
    conditions,
    edits,
    endpoints,
    localities,
    one_locality_again_and_again,
    drops,
    policies,
    thresholds,
    metadata,
    filters,
    filter_chains,
)


@pytest.mark.parametrize("make", RESOURCES, ids=lambda make: make.__name__)
def test_lists_of_a_resource(make):
    def work(count):
        short, made = make(count)
        raw = made.SerializeToString()
        return lambda: getattr(decode, short)(raw)

    assert is_linear(work)


# --- responses -----------------------------------------------------------------------------------------------------


def clusters(count):
    return "cluster", [build.cluster(f"c{number}") for number in range(count)], {}


def names_that_are_twice(count):
    return "cluster", [build.cluster(f"c{number % (count // 2)}") for number in range(count)], {}


def refused(count):
    return "cluster", [bad(f"c{number}") for number in range(count)], {}


def errors(count):
    name = schema.message("envoy.service.discovery.v3.ResourceName")
    status = STATUS(code=5, message="x" * 100)
    given = [ERROR(resource_name=name(name=f"c{number}"), error_detail=status) for number in range(count)]
    return "cluster", [], {"errors": given}


def listeners_with_their_routes(count):
    made = (
        build.listener(f"l{each}", f"r{each}", address=f"10.0.{each >> 8}.{each & 255}:80")
        for each in range(count)
    )
    return "listener", list(made), {}


def removed(count):
    return "cluster", [], {"removed": [f"c{number}" for number in range(count)]}


def aliases(count):
    given = WRAPPER(name="c", version="1", resource=packed(build.cluster("c")))
    given.aliases.extend(f"a{number}" for number in range(count))
    return "cluster", [given], {}


BOTH = (clusters, names_that_are_twice, refused, errors, listeners_with_their_routes)
RESPONSES = [
    *((make, protocol) for make in BOTH for protocol in ("sotw", "delta")),
    (removed, "delta"),
    (aliases, "delta"),
]


@pytest.mark.parametrize(("make", "protocol"), RESPONSES, ids=lambda each: getattr(each, "__name__", each))
def test_lists_of_a_response(make, protocol):
    """What is told of it is bounded, whatever there is to tell."""

    def work(count):
        session = Session(NODE, view="auto", protocol=protocol, jitter=lambda: 0.5)
        session.opened(0.0)
        session.outgoing(0.0)
        short, given, fields = make(count)
        raw = (delta_response if protocol == "delta" else response)(short, *given, **fields)

        def do():
            session.received(raw, 1.0)
            refusals = [each for each in session.outgoing(1.0) if b"connect_timeout" in each]
            assert all(len(each) < 64 * 1024 for each in refusals)
            assert session.part is not None
            session.tick(30.0)

        return do

    assert is_linear(work)


# --- depth ---------------------------------------------------------------------------------------------------------


def field(number, body):
    return schema.varint(number << 3 | 2) + schema.varint(len(body)) + body


def values(depth):
    """A `google.protobuf.Value` of lists of lists, two messages each; protobuf itself would not make more than a hundred."""
    made = field(3, b"x")
    for _ in range(depth):
        made = field(6, field(1, made))
    return made


@pytest.mark.parametrize("depth", [1, 20, 40, 44, 45, 46, 47, 48, 49, 50, 60, 200, 5000])
@pytest.mark.parametrize("short", ["listener", "route", "cluster", "endpoint"])
def test_messages_in_messages(short, depth):
    """To the depth to which protobuf reads them (100) they are read; what is deeper is refused. Nothing breaks in between."""
    kind = schema.message(schema.type_name(schema.TYPE_URLS[short]))
    holder, wrap = kind, bytes
    if short == "endpoint":  # its endpoints have metadata
        holder = schema.message(f"{CONFIG}endpoint.v3.LbEndpoint")
        wrap = lambda body: field(2, field(2, body))  # noqa: E731 - endpoints, lb_endpoints
    metadata = holder.DESCRIPTOR.fields_by_name["metadata"].number
    struct = field(1, field(1, b"y") + field(2, values(depth)))
    raw = field(1, b"a") + wrap(field(metadata, field(1, field(1, b"x") + field(2, struct))))
    found = getattr(decode, short)(raw)
    assert not any("could not be decoded" in line for line in found.problems)
    refused = any(line.startswith("is no envoy.config") for line in found.problems)
    assert refused or depth < 50
    assert not refused or depth > 44


def test_hosts_whose_domains_overlap_in_every_way_are_not_multiplied():
    """Each of 100 hosts has all domains but one: merged, a 150 kB would be ten megabytes."""
    made = schema.message(f"{CONFIG}route.v3.RouteConfiguration")(name="r")
    for number in range(100):
        own = [f"d{each}" for each in range(100) if each != number]
        route = made.virtual_hosts.add(name=f"v{number}", domains=own).routes.add()
        route.match.prefix = "/" + "x" * 1000
        route.route.cluster = "c"
    assert not merge_virtual_hosts(made)
    assert len(made.virtual_hosts) == 100
    found = decode.route(made.SerializeToString())
    assert "is already a domain" in found.problems[0]


#: An expression of nearly as many instructions as one may have.
LARGE = "/" + "[^x]{1,900}" * 7


def matching(*patterns):
    """A route configuration with a route for each expression."""
    routes = [
        {"match": {"safe_regex": {"regex": pattern}}, "route": {"cluster": "c"}} for pattern in patterns
    ]
    return message(build.route_config("r", build.virtual_host("v", *routes))).SerializeToString()


def test_the_expressions_of_a_resource_are_bounded_together():
    assert decode.route(matching(*[f"{LARGE}{number}" for number in range(40)])).problems == ()
    found = decode.route(matching(*[f"{LARGE}{number}" for number in range(80)]))
    assert found.value is None
    assert all(
        line.endswith("regex: the resource's expressions have more than 1000000 instructions")
        for line in found.problems
    )
    assert decode.route(matching(*[f"/a{number}/.*" for number in range(5000)])).problems == ()


def test_no_text_makes_an_expression_slow():
    """What takes a backtracking matcher for ever takes RE2 a time that grows with the text alone."""
    slow = compile_regex("/(a|a|aa|a?)*(a*)*(.*a){20}b")

    def work(count):
        text = "/" + "a" * (50 * count)
        return lambda: slow.full(text)

    assert is_linear(work)
    large = compile_regex(LARGE)
    begun = time.process_time()
    assert not large.full("/" + "ab" * 30_000 + "x")
    assert time.process_time() - begun < 20.0


def test_what_a_call_makes_of_a_text_is_bounded():
    """A substitution may be put between any two characters, and each command of a format may be a whole head."""
    hosts = [
        (f"{action}.substitution", {action: {"pattern": {"regex": "x*"}, "substitution": "y" * 1025}})
        for action in ("regex_rewrite", "host_rewrite_path_regex")
    ]
    for place, action in hosts:
        route = build.route("/", cluster="c", action=action)
        found = decode.route(
            message(build.route_config("r", build.virtual_host("v", route))).SerializeToString()
        )
        assert [line.partition(" ")[2] for line in found.problems] == [
            "the substitution has 1025 characters, more than 1024"
        ]
        assert place in found.problems[0]
    for count, problems in ((100, []), (101, ["a format has at most 100 commands"])):
        edit = build.header("x", "%REQ(a)%" * count)
        route = build.route("/", cluster="c", request_headers_to_add=[edit])
        found = decode.route(
            message(build.route_config("r", build.virtual_host("v", route))).SerializeToString()
        )
        assert [line.partition(" ")[2] for line in found.problems] == problems
