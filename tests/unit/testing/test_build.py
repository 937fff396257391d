"""What the builders make is what the schema reads."""

import pytest

from meshlib.testing import build
from meshlib.xds import schema

WHOLE = [
    build.listener("web", build.route_config("r", build.virtual_host("v", build.route(cluster="a")))),
    build.listener("web", "by-name", address="[::1]:8080", manager={"strip_any_host_port": True}),
    build.api_listener(
        "a:80", "by-name", filters=[{"name": "x", "typed_config": build.any_of("a.B", {"c": 1})}]
    ),
    build.route_config(
        "r",
        build.virtual_host(
            "v",
            build.route("/a", headers={"h": "v"}, weights={"a": 1, "b": 2}, timeout=1.5, name="first"),
            build.route(path="/b", redirect={"host_redirect": "x"}),
            build.route(regex="/c.*", respond=(404, "no")),
            build.route(match={"case_sensitive": False}, cluster="c", retry={"retry_on": "5xx"}),
            domains=["a", "*.b"],
            request_headers_to_add=[build.header("x", "y", action="ADD_IF_ABSENT")],
        ),
        most_specific_header_mutations_wins=True,
    ),
    build.cluster("a"),
    build.cluster("a", service_name="s", lb_policy="LEAST_REQUEST", connect_timeout="0.2s"),
    build.cluster("a", ["127.0.0.1:1", build.endpoint("unix:/x", weight=2, health="DRAINING", hostname="h")]),
    build.cluster("a", ["host:80"], type="STRICT_DNS", alt_stat_name="z"),
    build.endpoints("a", "127.0.0.1:1", build.locality("127.0.0.1:2", zone="z", weight=None, priority=1)),
    build.secret("a", certificate="x", key="y"),
    build.secret("a", ca="x"),
]


@pytest.mark.parametrize("resource", WHOLE, ids=lambda resource: str(resource.get("name")))
def test_every_whole_resource_is_read(resource):
    name = schema.type_name(resource["@type"])
    made = schema.from_json(name, build.without_type(resource))
    assert type(made).FromString(made.SerializeToString()) == made


def test_fields_given_win():
    assert build.cluster("a", eds_cluster_config={})["eds_cluster_config"] == {}
    assert build.route(cluster="a", action={"cluster": "b"})["route"]["cluster"] == "b"


def test_an_eds_cluster_asks_over_the_same_stream():
    made = schema.from_json(
        "envoy.config.cluster.v3.Cluster", build.without_type(build.cluster("a", service_name="s"))
    )
    assert made.eds_cluster_config.eds_config.WhichOneof("config_source_specifier") == "ads"
    assert made.eds_cluster_config.service_name == "s"


def test_a_static_cluster_holds_its_endpoints_without_their_type():
    made = build.cluster("a", ["127.0.0.1:1"])
    assert made["type"] == "STATIC"
    assert "@type" not in made["load_assignment"]
    assert made["load_assignment"]["cluster_name"] == "a"


def test_addresses_and_endpoints_share_a_locality():
    made = build.endpoints("a", "127.0.0.1:1", build.endpoint("127.0.0.1:2"), build.locality(zone="z"))
    assert [len(locality["lb_endpoints"]) for locality in made["endpoints"]] == [2, 0]
    assert build.endpoints("a")["endpoints"] == []


def test_the_router_is_last():
    config = build.http_connection_manager("r", filters=[{"name": "x"}])
    assert [each["name"] for each in config["http_filters"]] == ["x", "envoy.filters.http.router"]


def test_nothing_made_is_shared():
    one, two = build.cluster("a"), build.cluster("a")
    one["eds_cluster_config"]["eds_config"]["self"] = {}
    assert "self" not in two["eds_cluster_config"]["eds_config"]
    assert "self" not in build.ADS


@pytest.mark.parametrize(
    ("value", "text"),
    [(1, "1s"), (1.5, "1.5s"), (0, "0s"), (1e-9, "0.000000001s"), ("3s", "3s"), (100, "100s")],
)
def test_durations(value, text):
    assert build.duration(value) == text
    schema.from_json("google.protobuf.Duration", text)


@pytest.mark.parametrize("text", ["", "host", "host:", "host:x", ":"])
def test_what_is_no_address(text):
    with pytest.raises(ValueError, match="an address is"):
        build.socket_address(text)
