"""Endpoints that are named for a call (LB-10)."""

from __future__ import annotations

import pytest

from meshlib.core.endpoint import Down, LiveEndpoint
from meshlib.core.override import Named, Override, spelled
from meshlib.core.upstream import PickContext, Refusal, RefusalKind
from meshlib.model.address import Address
from meshlib.model.call import Head
from meshlib.model.endpoint import Endpoint, Health, Locality
from meshlib.model.headers import Headers
from meshlib.model.policy import Breaker
from tests.support.live_kit import ERROR, Watched, cluster, endpoint, flat, locality

ADDRESS = Address("10.0.0.1", 80)


def live(health: Health = Health.UNKNOWN, down: int = 0, unreached: int = 0) -> LiveEndpoint:
    made = LiveEndpoint(Endpoint(ADDRESS, health=health), priority=0, locality=Locality(), down=down)
    made.unreached = unreached
    return made


ALL = frozenset(Health)


@pytest.mark.parametrize(
    ("health", "down", "statuses", "http", "grpc"),
    [
        (Health.UNKNOWN, 0, None, True, True),
        (Health.HEALTHY, 0, None, True, True),
        (Health.DEGRADED, 0, None, True, False),
        (Health.DRAINING, Down.CONTROL_PLANE, None, False, False),
        (Health.UNHEALTHY, Down.CONTROL_PLANE, None, False, False),
        (Health.DRAINING, Down.CONTROL_PLANE, frozenset({Health.DRAINING}), True, True),
        (Health.HEALTHY, 0, frozenset({Health.DRAINING}), False, False),
        (Health.UNHEALTHY, Down.CONTROL_PLANE, ALL, True, False),
        (Health.TIMEOUT, Down.CONTROL_PLANE, ALL, True, False),
        (Health.DEGRADED, 0, ALL, True, False),
        (Health.HEALTHY, 0, frozenset(), False, False),
        (Health.HEALTHY, Down.EJECTED, None, False, False),
        (Health.HEALTHY, Down.EJECTED, ALL, True, False),
        (Health.HEALTHY, 64, None, False, False),
        (Health.HEALTHY, Down.TLS, ALL, False, False),
    ],
)
def test_which_health_will_do(health, down, statuses, http, grpc) -> None:
    """LB-10: of gRPC only UNKNOWN, HEALTHY and DRAINING are ever taken; who is ejected is UNHEALTHY."""
    item, config = live(health, down), cluster(override_statuses=statuses)
    for is_grpc, taken in ((False, http), (True, grpc)):
        found = Override(["10.0.0.1:80"]).choose({ADDRESS: item}, config, grpc=is_grpc)
        assert (found is item) is taken


def test_grpc_passes_over_whom_it_cannot_connect_to() -> None:
    item = live(unreached=1)
    assert Override(["10.0.0.1:80"]).choose({ADDRESS: item}, cluster(), grpc=True) is None
    assert Override(["10.0.0.1:80"]).choose({ADDRESS: item}, cluster(), grpc=False) is item


def test_addresses_are_written_as_envoy_does() -> None:
    for text, address in {
        "10.0.0.1:80": ADDRESS,
        "[::1]:80": Address("::1", 80),
        "/run/a.sock": Address("/run/a.sock", 0, True),
    }.items():
        item = LiveEndpoint(Endpoint(address), priority=0, locality=Locality())
        assert spelled(address) == text
        assert Override([text]).choose({address: item}, cluster(), grpc=False) is item


@pytest.mark.parametrize(
    "name", ["", "x", "10.0.0.1", "10.0.0.1:0", "::1:80", "[::1]", "unix:", "10.0.0.1:80:80"]
)
def test_what_is_no_address_names_nobody(name: str) -> None:
    assert Override([name]).choose({ADDRESS: live()}, cluster(), grpc=False) is None


def test_a_pick_goes_there_and_counts_there() -> None:
    """Whatever the balancer and the priorities would do; a draining endpoint only by its session (LB-10)."""
    draining = endpoint(3, health=Health.DRAINING)
    config = cluster(
        locality(endpoint(1), endpoint(2), draining),
        locality(endpoint(4), priority=1, zone="z"),
        override_statuses=frozenset({Health.HEALTHY, Health.UNKNOWN, Health.DRAINING}),
    )
    watched = Watched(config)
    for number in (3, 4, 3):
        context = PickContext()
        context.override = Override([f"10.0.0.{number}:80"])
        picked = watched.live.pick(context, 0.0)
        assert not isinstance(picked, Refusal)
        assert picked.endpoint.name == f"10.0.0.{number}:80"
        assert picked.endpoint.active == 1
        assert watched.live.peek(context) is picked.endpoint
        picked.release(0.0)
    names = set()
    for _ in range(50):
        picked = watched.live.pick(PickContext(), 0.0)
        assert not isinstance(picked, Refusal)
        names.add(picked.endpoint.name)
    assert "10.0.0.3:80" not in names


@pytest.mark.parametrize("strict", [False, True])
def test_who_is_gone(strict: bool) -> None:
    watched = Watched(flat(3))
    context = PickContext()
    context.override = Override(["10.9.9.9:80"], strict=strict)
    picked = watched.live.pick(context, 0.0)
    if strict:
        assert isinstance(picked, Refusal)
        assert picked.kind is RefusalKind.SESSION
        assert "10.9.9.9:80" in picked.detail
        assert watched.live.active == 0
    else:
        assert not isinstance(picked, Refusal)


def test_a_strict_call_goes_to_no_other_where_its_endpoints_breaker_is_open() -> None:
    watched = Watched(flat(3, endpoint_breaker=Breaker(consecutive_failures=1)))
    context = PickContext()
    context.override = Override(["10.0.0.1:80"], strict=True)
    picked = watched.live.pick(context, 0.0)
    assert not isinstance(picked, Refusal)
    picked.report(ERROR, 0.0)
    picked.release(0.0)
    again = watched.live.pick(context, 0.0)
    assert isinstance(again, Refusal)
    assert again.kind is RefusalKind.BREAKER


def test_the_policy_goes_through_its_names_attempt_by_attempt() -> None:
    """As Envoy's ``override_host``: who is not there is skipped, health does not matter, and then the balancer chooses."""
    head = Head(
        "GET", "http", "a", "/", Headers.of(("x-to", "10.0.0.9:80, 10.0.0.1:80"), ("x-more", "10.0.0.2:80"))
    )
    named = Named(("x-to", "x-none", "x-more"), head)
    config = cluster(locality(endpoint(0), endpoint(1, health=Health.UNHEALTHY), endpoint(2)))
    watched, went = Watched(config), []
    for number in range(1, 4):
        context = PickContext(number)
        context.override = named.override(number)
        went.append(context.override is not None)
        picked = watched.live.pick(context, 0.0)
        assert not isinstance(picked, Refusal)
        named.picked(picked.endpoint)
        went.append(picked.endpoint.name)
    assert went[:4] == [True, "10.0.0.1:80", True, "10.0.0.2:80"]
    assert went[4] is False


def test_names_are_bounded() -> None:
    head = Head(
        "GET", "http", "a", "/", Headers.of(("x-to", ",".join(f"10.0.0.1:{n + 1}" for n in range(500))))
    )
    override = Named(("x-to",), head).override(1)
    assert override is not None
    assert len(override.names) == 64
