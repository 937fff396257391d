"""Filters that decide who may pass, from a control plane and from a file: no call goes past one, whichever way it comes.

What a real Envoy does in the same places is compared in `oracle/test_guards.py`.
"""

from __future__ import annotations

import json

import pytest

import meshlib
from meshlib.testing import build
from meshlib.testing.control_plane import ControlPlane
from meshlib.testing.upstream import Upstream
from tests.e2e.test_bad_input import source
from tests.support.watch import until

pytestmark = pytest.mark.timeout(60)

RBAC = build.any_of("envoy.extensions.filters.http.rbac.v3.RBAC")
GUARD = {"name": "guard", "typed_config": RBAC}
OFF = build.any_of("envoy.config.route.v3.FilterConfig", {"disabled": True})
HERE = "127.0.0.1:7411"  # nothing listens there: meshlib is the listener
DISCOVERED = {
    "name": "guard",
    "config_discovery": {
        "config_source": {"ads": {}},
        "type_urls": ["type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"],
    },
}
#: From where nothing is asked for: what might come is judged (``tests/e2e/test_extensions.py`` has what is).
ELSEWHERE = DISCOVERED | {
    "config_discovery": DISCOVERED["config_discovery"]
    | {"config_source": {"path_config_source": {"path": "/filters.yaml"}}}
}


def routes(*, closed=None, health=None):
    """A host with two routes; `closed` and `health`: what they say of the filter `guard`."""

    def settings(value):
        return {} if value is None else {"typed_per_filter_config": {"guard": value}}

    return build.route_config(
        "r",
        build.virtual_host(
            "v",
            build.route("/health", cluster="up", **settings(health)),
            build.route(cluster="up", **settings(closed)),
            domains=["shop.test", HERE],
        ),
    )


def statuses(client, *paths):
    return [client.get(f"http://{HERE}{path}").status_code for path in paths]


@pytest.mark.parametrize("by_name", [True, False], ids=["rds", "inline"])
@pytest.mark.parametrize("guard", [GUARD, ELSEWHERE], ids=["typed", "ecds"])
def test_a_refused_listener_is_closed_and_its_host_goes_no_other_way(guard, by_name):
    with Upstream("up") as upstream:
        made = routes()
        listener = build.listener("l", "r" if by_name else made, address=HERE, filters=[guard])
        given = [build.cluster("up", [upstream.address]), listener, *([made] if by_name else [])]
        with (
            ControlPlane(*given) as control_plane,
            meshlib.Mesh({"xds": {"server": control_plane.address, "view": "sidecar"}}) as mesh,
            meshlib.Client(mesh=mesh) as client,
        ):
            mesh.wait_ready(HERE, timeout=10)
            [rejected] = source(mesh).rejected
            assert (rejected.type, rejected.resource) == ("listener", "l")
            assert "decides who may pass, and is not supported" in rejected.problems[0]
            response = client.get(f"http://{HERE}/")
            assert response.status_code == 403
            assert meshlib.call_info(response).via == "mesh"
            assert any(
                "filter guard decides who may pass here" in line
                for line in meshlib.call_info(response).trace()
            )
            assert upstream.requests_total == 0

            control_plane.update(build.listener("l", "r" if by_name else made, address=HERE))
            assert until(mesh, lambda: client.get(f"http://{HERE}/").status_code == 200)
            assert source(mesh).rejected == ()

            seen = len(control_plane.requests)
            control_plane.update(listener)  # refused: the last good state serves, as ever
            control_plane.wait_for_nack("listener", after=seen)
            assert source(mesh).rejected
            assert statuses(client, "/") == [200]


def test_routes_that_come_by_name_lift_a_guard_of_a_listener_that_is_refused():
    """Nothing is known to be left when the listener is judged; what the routes then leave is served."""
    with Upstream("up") as upstream:
        listener = build.listener("l", "r", address=HERE, filters=[GUARD])
        with (
            ControlPlane(
                build.cluster("up", [upstream.address]), listener, routes(health=OFF)
            ) as control_plane,
            meshlib.Mesh({"xds": {"server": control_plane.address, "view": "sidecar"}}) as mesh,
            meshlib.Client(mesh=mesh) as client,
        ):
            mesh.wait_ready(HERE, timeout=10)
            assert source(mesh).rejected
            assert statuses(client, "/health", "/") == [200, 403]


def test_a_target_with_a_guard_is_closed_too():
    with Upstream("up") as upstream:
        target = build.api_listener("shop.test", routes(), filters=[GUARD])
        with (
            ControlPlane(build.cluster("up", [upstream.address]), target) as control_plane,
            meshlib.Mesh(
                {"xds": {"server": control_plane.address, "view": "target", "domains": ["shop.test"]}}
            ) as mesh,
            meshlib.Client(mesh=mesh) as client,
        ):
            assert client.get("http://shop.test/").status_code == 403
            control_plane.wait_for_nack("listener")
            assert source(mesh).rejected
            assert upstream.requests_total == 0


def envoy_file(path, upstream, listener):
    static = {
        "listeners": [build.without_type(listener)],
        "clusters": [build.without_type(build.cluster("up", [upstream.address]))],
    }
    path.write_text(json.dumps({"static_resources": static}))
    return path


def test_a_file_that_is_covered_whole_is_refused(tmp_path):
    with Upstream("up") as upstream:
        path = envoy_file(
            tmp_path / "envoy.json", upstream, build.listener("l", routes(), address=HERE, filters=[GUARD])
        )
        with (
            meshlib.Mesh({"services_file": str(path)}) as mesh,
            meshlib.Client(mesh=mesh) as client,
            pytest.raises(meshlib.ConfigError, match="decides who may pass"),
        ):
            client.get(f"http://{HERE}/")


@pytest.mark.parametrize(
    ("guard", "settings"),
    [
        ({**GUARD, "disabled": True}, {"closed": RBAC}),
        ({**DISCOVERED, "disabled": True}, {"closed": RBAC}),
        (GUARD, {"health": OFF}),
    ],
    ids=["disabled and enabled by a route", "discovered, disabled and enabled", "switched off by a route"],
)
def test_a_file_serves_what_no_guard_covers(tmp_path, guard, settings):
    with Upstream("up") as upstream:
        listener = build.listener("l", routes(**settings), address=HERE, filters=[guard])
        path = envoy_file(tmp_path / "envoy.json", upstream, listener)
        with (
            meshlib.Mesh({"services_file": str(path)}) as mesh,
            meshlib.Client(mesh=mesh) as client,
        ):
            assert statuses(client, "/health", "/") == [200, 403]
            told = [item for each in mesh.status().sources for item in each.ignored]
            assert any("decides who may pass" in item.value for item in told)


def test_a_route_may_put_a_guard_into_a_filter_that_is_none(tmp_path):
    """A composite in the chain does nothing; what a route's matcher makes it run may be anything."""
    kind = "envoy.extensions.common.matching.v3.ExtensionWithMatcher"
    empty = {"name": "guard", "typed_config": build.any_of(kind, {"extension_config": {"name": "inner"}})}
    inside = build.any_of(f"{kind}PerRoute", {"xds_matcher": {"on_no_match": {"action": RBAC}}})
    with Upstream("up") as upstream:
        listener = build.listener("l", routes(closed=inside), address=HERE, filters=[empty])
        path = envoy_file(tmp_path / "envoy.json", upstream, listener)
        with meshlib.Mesh({"services_file": str(path)}) as mesh, meshlib.Client(mesh=mesh) as client:
            assert statuses(client, "/health", "/") == [200, 403]
