"""What gRPC refuses and Envoy takes, and the other way round: the view of a resource decides.

Envoy's verdicts are measured (tests/e2e/oracle/test_verdicts.py has the same kinds of configuration judged by a real one).
"""

from __future__ import annotations

import pytest

from meshlib.core.match import compile_routes
from meshlib.model.call import Head
from meshlib.model.endpoint import Health
from meshlib.model.headers import Headers
from meshlib.testing import build
from meshlib.xds.session import Session
from tests.support.view_cases import (
    ADDRESS,
    ENVOY_TAKES,
    GRPC_TAKES,
    NEITHER_TAKES,
    action,
    headers,
    judged,
    match,
    routes,
)
from tests.support.xds_kit import raw


@pytest.mark.parametrize("name", ENVOY_TAKES)
def test_grpc_refuses_and_envoy_takes(name):
    resource, words = ENVOY_TAKES[name]
    assert words in judged(resource, "target").problems[0]
    for view in ("sidecar", "auto"):
        assert judged(resource, view).problems == ()


@pytest.mark.parametrize("name", GRPC_TAKES)
def test_envoy_refuses_and_grpc_takes(name):
    resource, words = GRPC_TAKES[name]
    assert judged(resource, "target").problems == ()
    for view in ("sidecar", "auto"):
        assert words in judged(resource, view).problems[0]


@pytest.mark.parametrize("name", NEITHER_TAKES)
def test_both_refuse(name):
    resource, words = NEITHER_TAKES[name]
    assert "none of gRPC's balancers" in judged(resource, "target").problems[0]
    for view in ("sidecar", "auto"):
        assert words in judged(resource, view).problems[0]


def test_a_route_inside_a_listener_has_the_view_of_its_listener():
    inline = routes("a*b")
    assert "may stand alone" in judged(build.api_listener("l", inline), "auto").problems[0]
    assert judged(build.listener("l", inline), "auto").problems == ()


@pytest.mark.parametrize(("view", "refused"), [("sidecar", False), ("auto", False), ("target", True)])
def test_a_stream_judges_by_its_view(view, refused):
    session = Session(b"", view=view, jitter=lambda: 0.5)
    kinds = {kind.short: kind for kind in session._machine._streams.values() for kind in [kind.type]}
    assert bool(kinds["endpoint"].decode(raw(build.endpoints("c", ADDRESS, ADDRESS))).problems) is refused
    assert bool(kinds["route"].decode(raw(routes("a*b"))).problems) is refused
    assert bool(kinds["cluster"].decode(raw(build.cluster("xdstp://a/b"))).problems) is refused


# --- what comes of it in the sidecar view ---------------------------------------------------------------------------


def test_a_locality_that_comes_again_is_one_with_the_last_weight():
    again = [
        build.locality("10.0.0.1:80", zone="a", weight=1),
        build.locality("10.0.0.2:80", zone="b", weight=3),
        build.locality("10.0.0.3:80", zone="a", weight=7),
        build.locality("10.0.0.4:80", zone="a", weight=None),
        build.locality("10.0.0.5:80", zone="a", weight=2, priority=1),
    ]
    found = judged(build.endpoints("c", *again), "sidecar").value.localities
    assert [(str(one.locality), one.priority, one.weight, len(one.endpoints)) for one in found] == [
        ("a", 0, 7, 3),
        ("b", 0, 3, 1),
        ("a", 1, 2, 1),
    ]


def test_an_endpoint_at_port_0_is_left_out_and_reported():
    found = judged(build.endpoints("c", "10.0.0.1:0", "10.0.0.2:80", "unix:/s"), "sidecar")
    assert [str(one.address) for one in found.value.endpoints] == ["10.0.0.2:80", "unix:/s"]
    assert found.ignored[0][1].startswith("nobody can be called at port 0")


@pytest.mark.parametrize(("view", "health"), [("sidecar", Health.UNKNOWN), ("target", Health.UNHEALTHY)])
def test_a_health_that_is_not_known(view, health):
    found = judged(build.endpoints("c", build.endpoint(ADDRESS, health_status=77)), view)
    assert [one.health for one in found.value.endpoints] == [health]


@pytest.mark.parametrize(
    ("domain", "authority", "fits"),
    [
        ("a*b", "a*b", True),
        ("a*b", "axb", False),
        ("*a*", "xa*", True),
        ("*a*", "xax", False),
        ("**", "x*", True),
        ("", "x", False),
    ],
)
def test_a_star_that_is_not_at_one_end_is_a_letter(domain, authority, fits):
    made = compile_routes(judged(routes(domain), "sidecar").value)
    head = Head("GET", "http", authority, "/", Headers())
    assert (made.match(head, lambda: 0.0) is not None) is fits


def test_edits_of_headers_that_nobody_can_send_are_left_out_and_reported():
    edits = [build.header("a b", "x"), build.header("c", "x")]
    found = judged(
        headers(request_headers_to_add=edits, request_headers_to_remove=["", "d e", "f"]), "sidecar"
    )
    assert [edit.name for edit in found.value.edits.request_add] == ["c"]
    assert found.value.edits.request_remove == ("d e", "f")
    assert [path for path, _ in found.ignored] == [
        "request_headers_to_add[0].header.key",
        "request_headers_to_remove[1]",
    ]


def test_a_bias_that_is_none_is_1():
    for bias in (-1.0, "NaN"):
        config = {"active_request_bias": {"default_value": bias, "runtime_key": "x"}}
        found = judged(
            build.cluster("c", [ADDRESS], lb_policy="LEAST_REQUEST", least_request_lb_config=config),
            "sidecar",
        )
        assert found.value.balancing.active_request_bias == 1.0
        assert len(found.ignored) == 1


def test_what_a_cluster_of_eds_holds_beside_it_is_reported():
    inline = build.without_type(build.endpoints("c", ADDRESS))
    found = judged(build.cluster("c", load_assignment=inline), "sidecar")
    assert found.value.assignment is None
    assert [path for path, _ in found.ignored] == ["load_assignment"]


def test_names_without_anything_behind_them_are_nobody():
    found = judged(build.cluster("c", type="STRICT_DNS"), "sidecar")
    assert found.value.assignment.endpoints == ()
    assert "is missing" in judged(build.cluster("c", type="LOGICAL_DNS"), "sidecar").problems[0]


@pytest.mark.parametrize(
    "resource",
    [
        action(host_rewrite_header=""),
        build.route_config("r", build.virtual_host("v", build.route(redirect={"port_redirect": 70000}))),
        routes("a", validate_clusters=False),
    ],
)
@pytest.mark.parametrize("view", ["sidecar", "target"])
def test_what_both_take(resource, view):
    assert judged(resource, view).problems == ()


@pytest.mark.parametrize(
    ("resource", "words"),
    [
        (match(prefix=None, path_separated_prefix="a"), "two characters"),
        (routes("a\nb"), "line break"),
        (
            build.route_config(
                "r",
                build.virtual_host(
                    "v", {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {}}}
                ),
            ),
            "one of filename",
        ),
        (
            build.cluster("c", [ADDRESS], least_request_lb_config={"choice_count": 1}),
            "choice_count: must be at least 2",
        ),
        (
            build.endpoints("c", {"endpoint": {"address": {"socket_address": {"address": "10.0.0.1"}}}}),
            "port_value: is missing",
        ),
    ],
)
def test_what_nobody_takes(resource, words):
    for view in ("sidecar", "target"):
        assert words in judged(resource, view).problems[0]
