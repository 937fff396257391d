"""What is in force while parts come and go: CA-01 to CA-09, and CP-02, CP-05, in both protocols."""

from __future__ import annotations

from itertools import permutations

import pytest

from meshlib.testing import build
from tests.conformance.support.ads import Control, needs, routed

SECONDS = 0.8
TYPES = ("listener", "route", "cluster", "endpoint")
OLD, NEW = "10.0.0.1:80", "10.0.0.2:80"


@pytest.fixture
def serving(control):
    plane = control("a")
    plane.connect()
    plane.serve("a")
    plane.asked()
    return plane


def test_everything_serves_on_without_a_control_plane(serving):
    """CA-01: for a day."""
    serving.end("gone")
    while serving.bench.clock.now() < 1000.0 + 86_400:
        serving.advance(150.0)
        serving.end("UNAVAILABLE: refused")
    assert serving.target("a") == OLD
    assert serving.part.unreached == "UNAVAILABLE: refused"


def test_what_is_named_is_asked_for_from_the_top_down(control):
    """CA-02: and a call waits until all of it is there."""
    plane = control("a")
    assert [each.type for each in plane.connect()] == ["listener"]
    for short, asked in zip(TYPES, ("route", "cluster", "endpoint", None), strict=True):
        assert plane.target("a") in ("", "no host")
        plane.send(short, needs("a")[short])
        assert {each.type for each in plane.asked() if each.names and each.kind == "names"} - {short} <= {
            asked,
            "endpoint",
        }
    assert plane.target("a") == OLD


@pytest.mark.parametrize(
    "order", list(permutations(TYPES)), ids=lambda order: "-".join(each[0] for each in order)
)
def test_an_update_may_come_in_any_order(control, order):
    """CA-03, CA-04: other routes to another cluster, each part by itself; no call meets anything but the one or the other."""
    plane = control("a")
    plane.connect()
    plane.serve("a")
    update = {
        "listener": build.api_listener(
            "a", "r-a", manager={"common_http_protocol_options": {"max_stream_duration": "9s"}}
        ),
        "route": routed("a", "new"),
        "cluster": [build.cluster("c-a"), build.cluster("new")],
        "endpoint": build.endpoints("new", NEW),
    }
    met = []
    for short in order * 3:  # what is not asked for yet comes again
        made = update[short]
        plane.send(short, *(made if isinstance(made, list) else [made]))
        met.append(plane.target("a"))
    assert set(met) <= {OLD, NEW}
    assert met[-1] == NEW
    assert met == sorted(met)  # and once only from the one to the other


def test_an_old_cluster_is_given_up_once_nothing_in_force_names_it(serving):
    """CA-03: not before the new one is whole."""
    serving.send("route", routed("a", "new"))
    asked = serving.asked()
    assert {each.type for each in asked if "c-a" in each.less} == set()
    serving.send("cluster", build.cluster("c-a"), build.cluster("new"))
    serving.send("endpoint", build.endpoints("new", NEW))
    serving.advance(2.0)
    assert serving.target("a") == NEW
    asked = serving.asked()
    if serving.protocol == "delta":
        assert {each.type for each in asked if "c-a" in each.less} == {"cluster", "endpoint"}
    else:
        assert [each.names for each in asked if each.type == "cluster"][-1] == ("new",)
        assert [each.names for each in asked if each.type == "endpoint"][-1] == ("new",)


def test_a_cluster_that_is_updated_keeps_its_endpoints(serving):
    """CA-05: the update is in force at once."""
    serving.send("cluster", build.cluster("c-a", connect_timeout=9))
    assert serving.part.clusters["c-a"].connect_timeout == 9
    assert serving.target("a") == OLD


def test_what_is_wrong_with_a_cluster_concerns_that_one(control):
    """CA-06: its endpoints are gone, or it is; the other's calls are served, and no listener is touched."""
    plane = control("a", "b")
    plane.connect()
    plane.serve("a", "b")
    plane.send("endpoint", build.endpoints("c-b"))
    assert (plane.target("a"), plane.target("b")) == (OLD, "nobody")
    plane.delete("cluster", "c-b", build.cluster("c-a"))
    plane.advance(2.0)
    assert (plane.target("a"), plane.target("b")) == (OLD, "was deleted by the server")


def test_a_listener_changes_where_its_routes_come_from(serving):
    """CA-07: by name, inline, by another name; what was named before is given up."""
    host = build.virtual_host("a", build.route(cluster="c-a"), domains=["a"])
    serving.send("listener", build.api_listener("a", build.route_config("inline", host)))
    assert serving.target("a") == OLD
    [asked] = serving.asked("route")
    assert asked.names == ()
    serving.send("listener", build.api_listener("a", "other"))
    assert serving.target("a") == OLD
    assert [each.names for each in serving.asked("route")] == [("other",)]
    serving.send("route", build.route_config("other", host))
    assert serving.target("a") == OLD


def test_a_listener_that_changes_around_its_routes_needs_none_anew(serving):
    """CA-07, LD-08."""
    duration = {"common_http_protocol_options": {"max_stream_duration": "3s"}}
    serving.send("listener", build.api_listener("a", "r-a", manager=duration))
    assert serving.target("a") == OLD
    assert serving.part.targets["a"].http.max_stream_duration == 3.0
    assert [each.type for each in serving.asked()] == ["listener"]


def test_other_endpoints_of_a_cluster(serving):
    """CA-08: the old ones serve until the new ones are there."""
    serving.send("cluster", build.cluster("c-a", service_name="other"))
    assert serving.target("a") == OLD
    assert {each for asked in serving.asked("endpoint") for each in asked.names} == (
        {"other"} if serving.protocol == "delta" else {"c-a", "other"}
    )
    serving.send("endpoint", build.endpoints("other", NEW))
    assert serving.target("a") == NEW


def test_with_no_control_plane_at_start(control):
    """CA-09: nobody waits once it is known, and it is used when it is there."""
    plane = control("a")
    assert plane.part is None
    plane.end("refused")
    assert plane.part.unreached == "refused"
    plane.advance(SECONDS)
    plane.connect()
    plane.serve("a")
    assert plane.part.unreached == ""
    assert plane.target("a") == OLD


def test_each_view_asks_as_the_client_that_its_servers_know(protocol):
    """CP-02, CP-05: a wildcard by itself gets an answer of a server that is silent unless it is asked for all that it has."""
    plane = Control(protocol, view="sidecar")
    assert [(each.type, each.names) for each in plane.connect()] == [("listener", ()), ("cluster", ())]
    plane.want("ignored")
    assert plane.asked() == []
    host = build.virtual_host("v", build.route(cluster="c"), domains=["shop"])
    plane.send("listener", build.listener("0.0.0.0_80", "80", address="0.0.0.0:80"))
    assert [each.names for each in plane.asked("route")] == [("80",)]
    plane.send("route", build.route_config("80", host))
    plane.send("cluster", build.cluster("c"))
    plane.send("endpoint", build.endpoints("c", OLD))
    assert [each.name for each in plane.part.sidecar] == ["0.0.0.0_80"]
    assert plane.cluster("c") == OLD
