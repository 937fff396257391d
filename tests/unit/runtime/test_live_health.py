"""Health checks of a live cluster: who wakes them, whom they keep calls from, and what of a cluster follows them."""

import random
from dataclasses import replace

import pytest

from meshlib.core.endpoint import Down
from meshlib.core.health import Answer
from meshlib.core.upstream import PickContext, Refusal
from meshlib.model.call import Outcome, OutcomeKind
from meshlib.model.endpoint import Health
from meshlib.model.events import EndpointChecked, EndpointReturned
from meshlib.model.headers import Headers
from meshlib.model.health import HealthCheck, HttpCheck
from meshlib.model.policy import Balancer, Balancing, Outlier, SlowStart
from meshlib.runtime.checks import Checks
from meshlib.runtime.live import LiveCluster
from meshlib.testing import VirtualClock
from tests.support.live_kit import GATEWAY, address, cluster, endpoint, locality

CHECK = HealthCheck(HttpCheck("/"), healthy=1)
GOOD, BAD = Answer(True, "status 200"), Answer(False, "status 503")
NO_PANIC = Balancing(panic_threshold=0.0)


class Asked:
    """A live cluster whose answers a test gives."""

    def __init__(self, config, *, wake: bool = True, grpc: bool = False) -> None:
        self.clock = VirtualClock()
        self.events: list[object] = []
        self.checks = Checks(self.clock)
        self.live = LiveCluster(
            config,
            random.Random(1).random,
            self.events.append,
            self.clock.now,
            self.clock.now(),
            checks=self.checks,
        )
        if wake:
            self.pick(grpc=grpc)

    def pick(self, *, grpc: bool = False, key: int | None = None):
        picked = self.live.pick(PickContext(hash=key, grpc=grpc), self.clock.now())
        if isinstance(picked, Refusal):
            return None
        picked.release(self.clock.now())
        return picked.endpoint.name

    def says(self, *answers: Answer) -> None:
        """One for each endpoint, in their order."""
        health = self.live.health
        for (live, _), answer in zip(health.members(self.clock.now()), answers, strict=False):
            health.hear(live, answer, self.clock.now())
        health.settle()

    def picked(self, times: int = 60, **options) -> set[str]:
        return {self.pick(**options) for _ in range(times)}

    def down(self) -> list[int]:
        return [live.down for live in self.live.endpoints]


def names(*numbers: int) -> set[str]:
    return {str(address(number)) for number in numbers}


def flat(count: int, **fields):
    fields.setdefault("health_check", CHECK)
    fields.setdefault("balancing", NO_PANIC)
    return cluster(locality(*(endpoint(number) for number in range(count))), **fields)


@pytest.mark.parametrize("grpc", [False, True])
def test_a_call_wakes_it_and_goes_by_it(grpc):
    one = Asked(flat(3), wake=False)
    assert one.live.health is not None
    assert not one.live.health.awake
    assert one.pick(grpc=grpc) is not None
    assert one.live.health.awake
    assert one.picked(grpc=grpc) == names(0, 1, 2)  # nobody is known yet
    one.says(GOOD, BAD, GOOD)
    assert one.picked(grpc=grpc) == names(0, 2)
    one.says(GOOD, GOOD, GOOD)
    assert one.picked(grpc=grpc) == names(0, 1, 2)
    one.says(BAD, BAD, BAD)
    assert one.picked(grpc=grpc) == {None}
    words = one.live.pick(PickContext(grpc=grpc), one.clock.now()).detail
    assert "3 failing health checks" in words


def test_grpc_calls_pass_over_those_that_gRPC_does_not_know():
    """Of the target view: gRPC's clients do not read `health_checks`."""
    one = Asked(flat(2, health_check=replace(CHECK, grpc=False)), wake=False)
    assert one.pick(grpc=True) is not None
    assert not one.live.health.awake
    one.pick()
    one.says(BAD, BAD)
    assert one.picked() == {None}
    assert one.picked(grpc=True) == names(0, 1)
    assert one.live.reached()
    one.says(GOOD, GOOD)
    picked = one.live.pick(PickContext(), one.clock.now())
    headers = Headers.of(("X-Envoy-Immediate-Health-Check-Fail", "true"))
    picked.report(Outcome(OutcomeKind.OK, status=200, sent=True, headers=headers), one.clock.now())
    picked.release(one.clock.now())
    assert one.picked() == names(0, 1) - {picked.endpoint.name}
    assert one.picked(grpc=True) == names(0, 1), "nor what an answer to another call said instead of a check"


def test_one_that_fails_is_down_before_the_others_are_known():
    one = Asked(flat(3))
    one.says(BAD)
    assert one.picked() == names(1, 2)


def test_one_that_comes_is_called_once_it_passed_and_not_before():
    one = Asked(flat(2))
    one.says(GOOD, GOOD)
    one.live.update(flat(3), one.clock.now())
    assert one.picked() == names(0, 1)
    one.says(GOOD, GOOD, GOOD)
    assert one.picked() == names(0, 1, 2)


@pytest.mark.parametrize(("new_count_not", "reached"), [(False, names(0, 9)), (True, names(0))])
def test_those_that_come_count_or_do_not_in_the_health_of_their_priority(new_count_not, reached):
    """ED-07: of three one is well: 46 % of the load stays, unless the new ones do not count (`ignore_new_hosts_until_first_hc`)."""
    check = replace(CHECK, new_count_not=new_count_not)
    second = locality(endpoint(9), priority=1)

    def config(count):
        first = locality(*(endpoint(number) for number in range(count)))
        return cluster(first, second, health_check=check, balancing=NO_PANIC)

    one = Asked(config(1))
    one.says(GOOD, GOOD)
    one.live.update(config(3), one.clock.now())
    assert one.picked(200) == reached


def test_panic_and_priorities_follow():
    """ED-08."""
    first, second = locality(endpoint(0), endpoint(1)), locality(endpoint(2), priority=1)
    one = Asked(cluster(first, second, health_check=CHECK))
    one.says(BAD, BAD, GOOD)
    assert one.picked() == names(2)
    one.says(BAD, BAD, BAD)
    assert one.picked() == names(0, 1, 2)  # nobody is well: all are called


@pytest.mark.parametrize("kind", [Balancer.RING_HASH, Balancer.MAGLEV])
def test_a_hash_does_not_lead_to_one_that_fails(kind):
    one = Asked(flat(3, balancing=Balancing(kind, panic_threshold=0.0)))
    before = {key: one.pick(key=key) for key in range(0, 1 << 64, 1 << 57)}
    one.says(GOOD, BAD, GOOD)
    after = {key: one.pick(key=key) for key in before}
    assert set(before.values()) == names(0, 1, 2)
    assert set(after.values()) == names(0, 2)
    others = [key for key, name in before.items() if name != str(address(1))]
    assert sum(after[key] == before[key] for key in others) > 0.7 * len(others)


def test_what_the_control_plane_says_holds_beside_it():
    members = [endpoint(0), endpoint(1, health=Health.UNHEALTHY)]
    one = Asked(cluster(locality(*members), health_check=CHECK, balancing=NO_PANIC))
    one.says(GOOD, GOOD)
    assert one.picked() == names(0)
    one.says(BAD, BAD)
    assert one.down() == [Down.CHECK, Down.CHECK | Down.CONTROL_PLANE]
    one.live.update(cluster(locality(endpoint(0), endpoint(1)), health_check=CHECK, balancing=NO_PANIC), 0.0)
    assert one.down() == [Down.CHECK, Down.CHECK]


@pytest.mark.parametrize("wanted", [True, False])
def test_a_check_that_passes_ends_an_ejection_where_that_is_wanted(wanted):
    outlier = Outlier(
        consecutive_5xx=1, max_ejection_percent=100.0, base_ejection=1000.0, uneject_by_check=wanted
    )
    one = Asked(flat(1, outlier=outlier, balancing=Balancing()))
    one.says(GOOD)
    picked = one.live.pick(PickContext(), one.clock.now())
    picked.report(GATEWAY, one.clock.now())
    picked.release(one.clock.now())
    assert one.down() == [Down.EJECTED]
    one.says(BAD)
    assert one.down() == [Down.EJECTED | Down.CHECK]
    one.says(GOOD)
    assert one.down() == [0 if wanted else Down.EJECTED]
    assert any(isinstance(event, EndpointReturned) for event in one.events) == wanted


def test_an_answer_to_a_call_may_take_its_endpoint_out():
    one = Asked(flat(2))
    one.says(GOOD, GOOD)
    picked = one.live.pick(PickContext(), one.clock.now())
    headers = Headers.of(("X-Envoy-Immediate-Health-Check-Fail", "true"))
    picked.report(Outcome(OutcomeKind.OK, status=200, sent=True, headers=headers), one.clock.now())
    picked.release(one.clock.now())
    assert picked.endpoint.down == Down.CHECK | Down.UNCOUNTED
    assert picked.endpoint.name not in one.picked()
    told = [event for event in one.events if isinstance(event, EndpointChecked) and not event.first]
    assert [event.health for event in told] == ["unhealthy"]


def test_slow_start_begins_when_it_passes_again():
    slow = Balancing(slow_start=SlowStart(30.0), panic_threshold=0.0)
    one = Asked(flat(2, balancing=slow))
    one.says(GOOD, GOOD)
    one.says(BAD, GOOD)
    one.clock.advance(100.0)
    one.says(GOOD, GOOD)
    since = [live.since for live in one.live.endpoints]
    assert since[0] == one.clock.now()
    assert since[1] < one.clock.now()


@pytest.mark.parametrize("seldom", [False, True])
def test_without_calls_it_sleeps_and_knows_nothing_or_asks_seldom(seldom):
    check = replace(CHECK, no_traffic=60.0) if seldom else CHECK
    one = Asked(flat(2, health_check=check))
    one.says(GOOD, BAD)
    one.checks.sweep()
    for _ in range(10):
        one.clock.advance(15.0)
        one.checks.sweep()
    health = one.live.health
    assert health.awake is seldom
    assert one.down() == ([0, Down.CHECK] if seldom else [0, 0])
    if seldom:
        (live, _), *_ = health.members(one.clock.now())
        assert 60.0 <= health.hear(live, GOOD, one.clock.now()) <= 63.0
        return
    assert [live.check for live in one.live.endpoints] == [None, None]
    assert one.pick() is not None
    assert health.awake


def test_a_configuration_without_it_lifts_everything():
    one = Asked(flat(2))
    one.says(BAD, BAD)
    one.live.update(flat(2, health_check=None), one.clock.now())
    assert one.down() == [0, 0]
    assert one.picked() == names(0, 1)
    assert not one.live._looks  # and a call pays nothing for it
