"""Services that have not joined, or in part: the same for every host."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from meshlib.core.joining import Adoption, Joinings
from meshlib.testing import ControlPlane, Upstream, build
from tests.support.late import again_if_late, soon

UpstreamFactory = Any
Open = Any


def joined(one: Upstream, mode: str, **adoption: Any) -> dict[str, Any]:
    """``127.0.0.1`` at ``one``, so far."""
    return {
        "services": {"127.0.0.1": {"endpoints": [one.address]}},
        "adoption": {"127.0.0.1": mode, **adoption},
        "sidecar": {"mode": "off"},
    }


def test_off_is_as_if_meshlib_were_not_there(open_client: Open, meshlib_upstream: UpstreamFactory) -> None:
    old, new = meshlib_upstream("old"), meshlib_upstream("new")
    answer = open_client(joined(new, "off")).call(url=old.url)
    assert (answer.said["name"], answer.info) == ("old", None)


def test_observed_calls_go_the_old_way_and_are_compared(
    open_client: Open, meshlib_upstream: UpstreamFactory
) -> None:
    old, new = meshlib_upstream("old"), meshlib_upstream("new")
    client = open_client(joined(new, "observe"))
    answer = client.call(url=f"{old.url}/a?secret=1")
    assert answer.said["name"] == "old"
    assert answer.info is not None
    assert answer.info.via == "direct"
    assert "127.0.0.1 is observed" in answer.info.trace()[0]
    assert new.requests_total == 0
    seen: Any = client.mesh.status().adoption["services"]
    assert (seen["127.0.0.1"]["mode"], seen["127.0.0.1"]["calls"]) == ("observe", 1)
    assert seen["127.0.0.1"]["different"] == {"port": 1}
    assert not seen["127.0.0.1"]["safe"]
    (example,) = seen["127.0.0.1"]["examples"]
    assert (example["reason"], example["went"], example["url"]) == ("port", old.address, f"{old.url}/a")
    assert new.address in example["mesh"]


def test_an_observed_call_that_would_go_to_the_same_place_is_the_same(
    open_client: Open, meshlib_upstream: UpstreamFactory
) -> None:
    one = meshlib_upstream("one")
    client = open_client(joined(one, "observe"))
    for _ in range(3):
        client.call(url=one.url)
    seen: Any = client.mesh.status().adoption["services"]
    row = seen["127.0.0.1"]
    assert (row["calls"], row["same"], row["different"], row["safe"]) == (3, 3, {}, True)


def test_a_share_sticks_to_a_header(open_client: Open, meshlib_upstream: UpstreamFactory) -> None:
    old, new = meshlib_upstream("old"), meshlib_upstream("new")
    client = open_client(joined(new, "50%", key="x-user"))
    joining = Joinings(Adoption(services=(("127.0.0.1", "50%"),))).of("127.0.0.1", 80)
    assert joining is not None
    users = [f"user-{number}" for number in range(20)]
    for user in users * 2:
        answer = client.call(url=old.url, headers=(("x-user", user),))
        inside = joining.includes(user)
        assert answer.said["name"] == ("new" if inside else "old")
        assert answer.info is not None
        assert answer.info.via == ("mesh" if inside else "direct")
    seen: Any = client.mesh.status().adoption["services"]
    assert seen["127.0.0.1"]["calls"] == 2 * sum(not joining.includes(user) for user in users)


@pytest.mark.parametrize("mode", ["observe", "off"])
def test_a_default_is_for_all_that_is_not_named(
    open_client: Open, meshlib_upstream: UpstreamFactory, mode: str
) -> None:
    old, new = meshlib_upstream("old"), meshlib_upstream("new")
    config = {**joined(new, "on"), "adoption": {"default": mode}}
    assert open_client(config).call(url=old.url).said["name"] == "old"
    named = {**config, "adoption": {"default": mode, "127.0.0.1": "on"}}
    assert open_client(named).call(url=old.url).said["name"] == "new"


@again_if_late
def test_a_kill_switch_makes_every_call_plain(
    open_client: Open, meshlib_upstream: UpstreamFactory, tmp_path: Path
) -> None:
    old, new = meshlib_upstream("old"), meshlib_upstream("new")
    switch = tmp_path / "off"
    switch.unlink(missing_ok=True)
    client = open_client(joined(new, "on", kill_switch=str(switch)))
    assert client.call(url=old.url).said["name"] == "new"
    changed = client.mesh._runtime().store

    def is_off(view: Any) -> bool:
        return bool(view.rules.disabled)

    began = time.monotonic()
    switch.touch()
    assert changed.wait(is_off, 20)
    soon(time.monotonic() - began, 2.0, "off")
    answer = client.call(url=old.url)
    assert (answer.said["name"], answer.info) == ("old", None)
    began = time.monotonic()
    switch.unlink()
    assert changed.wait(lambda view: not is_off(view), 20)
    soon(time.monotonic() - began, 2.0, "on again")
    assert client.call(url=old.url).said["name"] == "new"


def test_a_kill_switch_that_is_there_from_the_start(
    open_client: Open, meshlib_upstream: UpstreamFactory, tmp_path: Path
) -> None:
    old, new = meshlib_upstream("old"), meshlib_upstream("new")
    (tmp_path / "off").touch()
    answer = open_client(joined(new, "on", kill_switch=str(tmp_path / "off"))).call(url=old.url)
    assert (answer.said["name"], answer.info) == ("old", None)


@pytest.mark.parametrize(
    ("ordered", "written", "name", "via"),
    [
        ("observe", {}, "old", "direct"),
        ("off", {}, "old", None),
        ("0%", {}, "old", "direct"),
        ("100%", {}, "new", "mesh"),
        ("on", {"default": "observe"}, "new", "mesh"),
        ("observe", {"127.0.0.1": "on"}, "new", "mesh"),
        ("sideways", {}, "new", "mesh"),
    ],
)
def test_a_control_plane_may_say_how_far(
    open_client: Open,
    meshlib_upstream: UpstreamFactory,
    meshlib_control_plane: ControlPlane,
    ordered: str,
    written: dict[str, str],
    name: str,
    via: str | None,
) -> None:
    old, new = meshlib_upstream("old"), meshlib_upstream("new")
    port = int(old.address.rpartition(":")[2])
    said = {"filter_metadata": {"meshlib": {"adoption": ordered}}}
    host = build.virtual_host("v", build.route("/", cluster="c"), domains=["*"], metadata=said)
    listener = build.listener("outbound", build.route_config("r", host), address=f"127.0.0.1:{port}")
    meshlib_control_plane.set(listener, build.cluster("c", [new.address]))
    config = {"xds": {"server": meshlib_control_plane.address, "view": "sidecar"}, "adoption": written}
    client = open_client({**config, "sidecar": {"mode": "off"}})
    client.mesh.wait_ready(old.address, timeout=10)
    answer = client.call(url=old.url)
    assert answer.said["name"] == name
    assert (answer.info.via if answer.info is not None else None) == via
