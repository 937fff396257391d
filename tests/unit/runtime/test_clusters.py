"""The registry follows the configuration: what did not change costs nothing, what left is retired."""

import logging
import random
from dataclasses import replace

from meshlib.core.upstream import PickContext, Refusal
from meshlib.model.endpoint import Locality
from meshlib.model.events import EndpointEjected
from meshlib.model.policy import Balancing, Outlier, ZoneAware
from meshlib.model.snapshot import Part, Snapshot
from meshlib.runtime.clusters import Clusters
from tests.support.live_kit import ERROR, changed, cluster, endpoint, flat, locality

CONTEXT = PickContext()


class Now:
    seconds = 0.0

    def now(self):
        return self.seconds


def made(*parts):
    clusters = Clusters(Now(), random.Random(1).random)
    if parts:
        clusters.reconcile(snapshot(*parts), 0.0)
    return clusters


def snapshot(*parts):
    return Snapshot(
        tuple(Part(source, clusters={item.name: item for item in items}) for source, *items in parts)
    )


def test_names_are_of_their_part():
    one, other = flat(1, name="a"), flat(2, name="a")
    clusters = made(("static", one), ("xds", other))
    assert clusters.get("static", "a").cluster is one
    assert clusters.get("xds", "a").cluster is other
    assert clusters.get("xds", "b") is None
    assert clusters.get("file", "a") is None
    status = clusters.status()
    assert {name: len(item.endpoints) for name, item in status.items()} == {"a": 1, "xds/a": 2}


def test_the_same_object_is_not_touched():
    same, other = flat(3, name="same"), flat(3, name="other")
    clusters = made(("xds", same, other))
    live = clusters.get("xds", "same")
    roster, balance = live._roster, live._balances.of(PickContext())
    clusters.reconcile(snapshot(("xds", same, changed(other, locality(endpoint(8))))), 1.0)
    assert clusters.get("xds", "same") is live
    assert live._roster is roster
    assert live._balances.plain is balance
    assert [item.name for item in clusters.get("xds", "other").endpoints] == ["10.0.0.8:80"]


def test_calls_stay_near_as_the_local_cluster_says():
    """The part's own word on where we are goes before the process's; other callers are another division."""
    up = cluster(locality(endpoint(1), endpoint(2), zone="a"), locality(endpoint(3), zone="b"), name="up")
    up = replace(up, balancing=Balancing(zones=ZoneAware(minimum=0)))

    def fleet(*zones):
        return cluster(
            *(locality(endpoint(100 + number), zone=zone) for number, zone in enumerate(zones)), name="us"
        )

    def part(*items, **fields):
        return Snapshot((Part("file", clusters={item.name: item for item in items}, **fields),))

    def zones():
        live = clusters.get("file", "up")
        return {live.pick(CONTEXT, 0.0).endpoint.locality.zone for _ in range(80)}

    clusters = Clusters(Now(), random.Random(1).random, locality=Locality("r", "a"))
    us = fleet("a", "b")
    clusters.reconcile(part(us, up, local_cluster="us"), 0.0)
    assert zones() == {"a"}
    live = clusters.get("file", "up")
    before = live._balances.plain
    clusters.reconcile(part(us, up, replace(fleet("c"), name="d"), local_cluster="us"), 0.0)
    clusters.reconcile(part(us, up, local_cluster="us"), 0.0)
    assert live._balances.plain is before, "it is the same fleet"
    clusters.reconcile(part(us, up, local_cluster="us", locality=Locality("r", "b")), 0.0)
    assert zones() == {"a", "b"}, "half of the callers, and a third of the endpoints"
    clusters.reconcile(part(fleet("b", *"acde"), up, local_cluster="us", locality=Locality("r", "b")), 0.0)
    assert zones() == {"b"}
    clusters.reconcile(part(up, locality=Locality("r", "x")), 0.0)
    assert zones() == {"a", "b"}


def test_a_changed_cluster_is_the_same_live_one():
    clusters = made(("xds", flat(2, name="a")))
    live = clusters.get("xds", "a")
    pick = live.pick(CONTEXT, 0.0)
    clusters.reconcile(snapshot(("xds", flat(3, name="a"))), 1.0)
    assert clusters.get("xds", "a") is live
    assert pick.endpoint in live.endpoints
    assert live.active == 1


def test_a_cluster_that_left_is_retired_and_comes_back_new():
    config = flat(2, name="a")
    clusters = made(("xds", config))
    live = clusters.get("xds", "a")
    pick = live.pick(CONTEXT, 0.0)
    clusters.reconcile(Snapshot(), 1.0)
    assert clusters.get("xds", "a") is None
    assert pick.endpoint.gone
    assert isinstance(live.pick(CONTEXT, 1.0), Refusal)
    pick.release(1.0)
    clusters.reconcile(snapshot(("xds", config)), 2.0)
    assert clusters.get("xds", "a") is not live


def test_observers_hear_until_they_cancel(caplog):
    config = flat(3, name="a", outlier=Outlier(consecutive_5xx=1, max_ejection_percent=100))
    clusters = made(("xds", config))
    heard = []

    def broken(event):
        raise RuntimeError("observer")

    clusters.subscribe(broken)
    cancel = clusters.subscribe(heard.append)

    def fail():
        pick = clusters.get("xds", "a").pick(CONTEXT, 0.0)
        pick.report(ERROR, 0.0)
        pick.release(0.0)

    with caplog.at_level(logging.ERROR, "meshlib"):
        fail()
    assert [type(event) for event in heard] == [EndpointEjected]
    assert "observer failed" in caplog.text
    cancel()
    cancel()
    with caplog.at_level(logging.CRITICAL, "meshlib"):
        fail()
    assert len(heard) == 1


def test_a_shared_policy_change_reaches_the_live_one():
    config = flat(1, name="a")
    clusters = made(("xds", config))
    clusters.reconcile(snapshot(("xds", replace(config, connect_timeout=1.0))), 0.0)
    assert clusters.get("xds", "a").cluster.connect_timeout == 1.0


def test_one_that_left_by_another_way_is_retired_too():
    """A part that is gone takes its clusters with it, and one that is there again has new ones."""
    one, other = flat(1, name="a"), flat(1, name="b")
    clusters = made(("static", one), ("xds", other))
    live = clusters.get("xds", "b")
    clusters.reconcile(snapshot(("static", one)), 1.0)
    assert clusters.get("xds", "b") is None
    assert isinstance(live.pick(CONTEXT, 1.0), Refusal)
    assert clusters.get("static", "a").endpoints
    clusters.reconcile(snapshot(("static", one), ("xds", other)), 2.0)
    assert clusters.get("xds", "b") is not live
    assert clusters.get("xds", "b").endpoints
