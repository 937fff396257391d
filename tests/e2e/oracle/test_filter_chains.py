"""Filter chains that come by themselves (FCDS), of one control plane: what becomes of calls to a real Envoy's listener, and of ours."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import meshlib
from meshlib.testing import Upstream, build
from meshlib.testing.control_plane import ControlPlane
from meshlib.xds import decode
from tests.e2e.oracle.connections import at
from tests.e2e.oracle.envoy_process import EnvoyProcess
from tests.support.asking import asked
from tests.support.matchers import INPUTS, chain_named, extension
from tests.support.ports import Ports
from tests.support.xds_kit import raw

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(120)]

ONE, TWO, THREE = "127.0.0.1", "127.0.0.2", "127.0.0.3"
CLOSED = "closed"
Ask = Callable[[str], str]


def tree(**chains: str) -> dict[str, Any]:
    """A matcher that leads from addresses to chains: ``one="127.0.0.1"``."""
    table = {"map": {address: chain_named(name) for name, address in chains.items()}}
    return {"matcher_tree": {"input": extension(f"{INPUTS}DestinationIPInput"), "exact_match_map": table}}


def listener(port: int, matcher: dict[str, Any], *static: dict[str, Any]) -> dict[str, Any]:
    source = {"config_source": build.ADS}
    made = build.listener("l", "r", fcds_config=source, filter_chain_matcher=matcher)
    return (
        made | at(port, (ONE, TWO, THREE)) | {"filter_chains": [build.without_type(each) for each in static]}
    )


def chain(name: str, cluster: str) -> dict[str, Any]:
    routes = build.route_config(f"of {name}", build.virtual_host("v", build.route(cluster=cluster)))
    return build.filter_chain(name, routes)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def by_envoy(plane: ControlPlane, port: int, protocol: str, folder: Path, stack: ExitStack) -> Ask:
    stack.enter_context(EnvoyProcess(plane.address, folder, protocol))

    def ask(address: str) -> str:
        connection = http.client.HTTPConnection(address, port, timeout=20)
        try:
            connection.request("GET", "/")
            answer = connection.getresponse()
            body = answer.read()
            return json.loads(body)["name"] if answer.status == 200 else str(answer.status)
        except (ConnectionError, http.client.RemoteDisconnected):
            return CLOSED
        finally:
            connection.close()

    return ask


def by_meshlib(plane: ControlPlane, port: int, protocol: str, _folder: Path, stack: ExitStack) -> Ask:
    config = {"xds": {"server": plane.address, "view": "sidecar", "protocol": protocol}}
    mesh = stack.enter_context(meshlib.Mesh(config))
    client = stack.enter_context(meshlib.Client(mesh=mesh, timeout=20))
    mesh.snapshot()  # it begins to ask

    def ask(address: str) -> str:
        try:
            answer = client.get(f"http://{address}:{port}/")
        except meshlib.NoHealthyEndpoint as error:
            return CLOSED if "none of its filter chains takes the call" in str(error) else str(error)
        return answer.json()["name"] if answer.status_code == 200 else str(answer.status_code)

    return ask


@pytest.mark.parametrize("side", [by_envoy, by_meshlib], ids=["envoy", "meshlib"])
@pytest.mark.parametrize("protocol", ["delta", "sotw"])
def test_chains_that_come_change_and_go(side: Any, protocol: str, stack: ExitStack, tmp_path: Path) -> None:
    held = Ports(1, (ONE, TWO, THREE))
    stack.callback(held.close)
    (port,) = held.numbers
    a, b = stack.enter_context(Upstream("a")), stack.enter_context(Upstream("b"))
    matcher = tree(one=ONE, two=TWO, three=THREE)
    plane = stack.enter_context(
        ControlPlane(
            build.cluster("a", [a.address]),
            build.cluster("b", [b.address]),
            listener(port, matcher, chain("one", "a")),
            chain("one", "b"),  # the listener's own counts
            chain("two", "a"),
            chain("three", "b"),
        )
    )
    ask = side(plane, port, protocol, tmp_path, stack)

    def becomes(*answers: str) -> bool:
        return asked(lambda: tuple(map(ask, (ONE, TWO, THREE))) == answers, 20)

    plane.wait_for_request("filter_chain", lambda each: set(each.names) >= {"two", "three"}, timeout=20)
    assert becomes("a", "a", "b")
    plane.update(chain("two", "b"))
    assert becomes("a", "b", "b")
    # One that does not exist in the newest version: the listener stays as it was until it is known.
    plane.update(listener(port, tree(one=THREE, two=TWO), chain("one", "a")))
    assert becomes(CLOSED, "b", "a")
    if protocol == "delta":  # in the state of the world what is not in a response is not gone
        plane.remove("filter_chain", "two")
        assert becomes(CLOSED, CLOSED, "a")
        plane.update(chain("two", "a"))
        assert becomes(CLOSED, "a", "a")


def test_calls_wait_for_a_chain_that_has_not_come(stack: ExitStack) -> None:
    held = Ports(1, (ONE, TWO, THREE))
    stack.callback(held.close)
    (port,) = held.numbers
    with Upstream("a") as a:
        plane = stack.enter_context(
            ControlPlane(build.cluster("a", [a.address]), listener(port, tree(one=ONE)))
        )
        config = {"xds": {"server": plane.address, "view": "sidecar"}}
        mesh = stack.enter_context(meshlib.Mesh(config))
        mesh.snapshot()  # it begins to ask, and asks for the chain once it has the listener
        plane.wait_for_request("filter_chain", lambda each: "one" in each.names, timeout=20)
        with pytest.raises(meshlib.NotReady, match="listener l have not come yet"):
            mesh.wait_ready(f"{ONE}:{port}", timeout=0.3)
        plane.update(chain("one", "a"))
        mesh.wait_ready(f"{ONE}:{port}", timeout=20)
        with meshlib.Client(mesh=mesh) as client:
            assert client.get(f"http://{ONE}:{port}/").json()["name"] == "a"


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"filter_chain_matcher": None},
        {"fcds_config": {}},
        {"fcds_config": {"name": "x", "config_source": build.ADS}},
    ],
    ids=["as it is", "no matcher", "no source", "a name"],
)
def test_envoy_refuses_the_same(change: dict[str, Any], stack: ExitStack, tmp_path: Path) -> None:
    made = listener(80, tree(one=ONE)) | change
    found = decode.listener(raw({name: value for name, value in made.items() if value is not None}))
    with (
        ControlPlane(
            {name: value for name, value in made.items() if value is not None}, chain("one", "a")
        ) as plane,
        EnvoyProcess(plane.address, tmp_path, "delta"),
    ):
        request = plane.wait_for_request("listener", lambda each: each.is_ack or each.is_nack, timeout=20)
    assert bool(found.problems) == request.is_nack, (found.problems, request.error)
