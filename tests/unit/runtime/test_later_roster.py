"""Endpoints that are made when somebody looks for one, and not before."""

import random
import threading
from dataclasses import replace

import pytest

from meshlib.core.breaker_saved import read
from meshlib.core.upstream import PickContext, Refusal
from meshlib.model.policy import Balancer, Balancing, Breaker, Outlier, SlowStart
from meshlib.model.snapshot import Part, Snapshot
from meshlib.model.subset import Selector, Subsets
from meshlib.runtime import live as live_module
from meshlib.runtime.clusters import Clusters
from meshlib.runtime.later_roster import LaterRoster, next_roster
from meshlib.testing import VirtualClock
from tests.support.live_kit import ERROR, Watched, changed, cluster, endpoint, flat, locality

CONTEXT = PickContext()
FEW = 256


def pick(watched):
    found = watched.live.pick(CONTEXT, 0.0)
    assert not isinstance(found, Refusal), found
    return found


@pytest.mark.parametrize(
    ("config", "later"),
    [
        (flat(1), True),
        (flat(FEW), True),
        (flat(FEW + 1), False),
        (cluster(locality()), False),
        (flat(3, balancing=Balancing(kind=Balancer.RING_HASH)), False),
        (flat(3, balancing=Balancing(subsets=Subsets((Selector(("v",)),)))), False),
        (flat(3, balancing=Balancing(slow_start=SlowStart(10.0))), False),
    ],
    ids=["one", "few", "many", "none", "ring", "subsets", "slow start"],
)
def test_who_makes_them(config, later):
    live = Watched(config).live
    assert live._roster.planned is not later
    there = len(live.endpoints)
    assert live._roster.planned
    assert there == sum(len(part.endpoints) for part in config.assignment.localities)


def test_the_first_call_makes_them_once_for_all_threads():
    live = Watched(flat(100)).live
    assert not live._roster.made
    begin, picked = threading.Barrier(50), []

    def call():
        begin.wait()
        picked.extend((live.pick(CONTEXT, 0.0).endpoint, live.endpoints))

    threads = [threading.Thread(target=call) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {id(item) for item in picked[::2]} <= {id(item) for item in live.endpoints}
    assert len(set(picked[1::2])) == 1, "each thread saw the same ones"
    assert sum(item.active for item in live.endpoints) == 50


def test_threads_that_look_at_the_endpoints_see_the_same_ones():
    roster = LaterRoster(flat(200))
    begin, seen = threading.Barrier(20), []

    def look(name):
        begin.wait()
        seen.append((name, getattr(roster, name)))

    threads = [threading.Thread(target=look, args=(name,)) for name in ("live", "groups") * 10]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: id(found) for name, found in seen} == {"live": id(roster.live), "groups": id(roster.groups)}
    assert all(id(found) == id(getattr(roster, name)) for name, found in seen)
    assert list(roster.live.values()) == roster.groups[0].endpoints


@pytest.mark.parametrize("outliers", [None, Outlier(consecutive_5xx=1)], ids=["plain", "ejecting"])
def test_the_status_tells_of_them_and_makes_none(outliers):
    config = flat(3, outlier=outliers)
    live = Watched(config).live
    told = live.status(0.0)
    assert not live._roster.planned
    assert [each.address for each in told.endpoints] == [str(endpoint(number).address) for number in range(3)]
    assert len(live.endpoints) == 3
    assert live.status(0.0) == told


def test_a_roster_has_no_other_attributes():
    with pytest.raises(AttributeError, match="lively"):
        LaterRoster(flat(1)).lively  # noqa: B018


def test_updates_of_what_nobody_called_make_nothing():
    found = Watched(flat(3))
    for count in range(4, 8):
        found.live.update(flat(count), 1.0)
        assert not found.live._roster.planned
    found.live.update(
        replace(found.live.cluster, limits=replace(found.live.cluster.limits, max_requests=1)), 1.0
    )
    assert not found.live._roster.planned
    before = pick(found).endpoint
    assert len(found.live.endpoints) == 7
    found.live.update(flat(8), 2.0)
    assert found.live._roster.planned
    assert before in found.live.endpoints, "from now on who stays is the same object"


def test_a_call_in_the_middle_of_an_update_keeps_its_endpoint(monkeypatch):
    found = Watched(flat(3))
    given = []

    def meanwhile(*arguments):
        roster = next_roster(*arguments)
        assert roster is not None
        assert not roster.planned
        given.append(pick(found))
        return roster

    monkeypatch.setattr(live_module, "next_roster", meanwhile)
    found.live.update(changed(flat(3), locality(endpoint(0), endpoint(1), endpoint(2), endpoint(3))), 1.0)
    endpoint_of_call = given[0].endpoint
    assert endpoint_of_call in found.live.endpoints
    assert len(found.live.endpoints) == 4
    assert endpoint_of_call.active == 1
    given[0].report(ERROR, 1.0)
    given[0].release(1.0)
    assert (endpoint_of_call.active, endpoint_of_call.failures) == (0, 1)


def test_a_balance_of_nobody_does_not_stay():
    found = Watched(cluster(locality()))
    assert isinstance(found.live.pick(CONTEXT, 0.0), Refusal)
    found.live.update(flat(2), 1.0)
    assert not found.live._roster.planned
    assert pick(found).endpoint in found.live.endpoints


def test_a_balancer_that_takes_long_is_made_by_the_writer_also_of_those():
    found = Watched(flat(3))
    found.live.update(replace(found.live.cluster, balancing=Balancing(kind=Balancer.MAGLEV)), 1.0)
    assert found.live._balances.plain is not None


def test_one_that_left_has_nobody():
    found = Watched(flat(3))
    found.live.retire()
    assert isinstance(found.live.pick(CONTEXT, 0.0), Refusal)
    assert found.live.endpoints == ()


def test_breakers_of_endpoints_that_are_not_made_know_nothing_and_are_restored():
    policy = flat(2, endpoint_breaker=Breaker(consecutive_failures=1, open_for=10.0))
    one, other = Watched(policy), Watched(policy)
    assert one.live.saved(0.0) == {}
    assert not one.live._roster.planned
    failed = pick(one)
    failed.report(ERROR, 0.0)
    failed.release(0.0)
    saved = one.live.saved(0.0)
    other.live.restore({name: read(each, name, 0.0) for name, each in saved.items()})
    assert not other.live._roster.planned
    assert {pick(other).endpoint.name for _ in range(6)} == {
        item.name for item in other.live.endpoints if item.name != failed.endpoint.name
    }


def test_calls_of_many_threads_while_the_writer_updates_let_go_of_all():
    """Every endpoint that a call has, and that stays, is the one that the cluster has."""
    live = Clusters(VirtualClock(), random.Random(1).random)
    draw, over, failed = random.Random(2), threading.Event(), []
    configs = {f"c{number}": flat(5, name=f"c{number}") for number in range(40)}

    def publish(version):
        live.reconcile(Snapshot((Part("xds", clusters=dict(configs)),), version), float(version))

    def call(seed):
        mine, held = random.Random(seed), []
        while not over.is_set():
            picked = live.get("xds", mine.choice(list(configs))).pick(CONTEXT, 0.0)
            if isinstance(picked, Refusal):
                failed.append(picked)
                return
            held.append(picked)
            if len(held) > 5:
                held.pop(0).release(0.0)
        for picked in held:
            picked.release(0.0)

    publish(1)
    threads = [threading.Thread(target=call, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for version in range(2, 30):
        for name in draw.sample(list(configs), 25):
            numbers = [0, *draw.sample(range(1, 12), 4)]
            configs[name] = cluster(locality(*map(endpoint, numbers)), name=name)
        publish(version)
    over.set()
    for thread in threads:
        thread.join()
    assert not failed
    for name, config in configs.items():
        found = live.get("xds", name)
        assert found.active == sum(item.active for item in found.endpoints) == 0
        assert {item.address for item in found.endpoints} == {
            item.address for item in config.assignment.endpoints
        }
