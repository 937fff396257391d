"""A live cluster: the stages of a pick, what closes it, what survives an update, what is told."""

import itertools
import sys
import threading
from collections import Counter
from dataclasses import replace

import pytest

from meshlib.core.endpoint import LiveEndpoint
from meshlib.core.locality import Balance
from meshlib.core.upstream import PickContext, Refusal, RefusalKind
from meshlib.model.call import Outcome, OutcomeKind
from meshlib.model.cluster import Cluster
from meshlib.model.endpoint import Assignment, Drop, Health
from meshlib.model.events import BreakerChanged, EndpointEjected, EndpointReturned
from meshlib.model.policy import (
    Aperture,
    Balancer,
    Balancing,
    Breaker,
    FailurePercentage,
    Limits,
    Outlier,
    RetryBudget,
)
from meshlib.model.subset import Selector, Subsets, labels_of
from meshlib.model.tls import Tls
from meshlib.runtime.live_pick import LivePick
from tests.support.live_kit import (
    CANCELLED,
    ERROR,
    OK,
    REFUSED,
    Watched,
    address,
    changed,
    cluster,
    endpoint,
    flat,
    locality,
)

CONTEXT = PickContext()


def refusal(picked) -> Refusal:
    assert isinstance(picked, Refusal), picked
    return picked


def call(watched, outcome=OK, now=None):
    if now is not None:
        watched.now = now
    pick = watched.live.pick(CONTEXT, watched.now)
    assert not isinstance(pick, Refusal), pick
    pick.report(outcome, watched.now)
    pick.release(watched.now)
    return pick.endpoint


# --- what a pick counts -----------------------------------------------------------------------------------------------


def test_a_pick_counts_until_it_is_released():
    live = Watched(flat(2)).live
    picks = [live.pick(CONTEXT, 0.0) for _ in range(4)]
    assert live.active == 4
    assert [item.active for item in live.endpoints] == [2, 2]
    for pick in picks:
        pick.report(OK, 0.0)
    assert live.active == 4
    for pick in picks:
        pick.release(1.0)
        pick.release(2.0)
    assert live.active == 0
    assert [item.active for item in live.endpoints] == [0, 0]


def test_a_peek_counts_nothing_and_is_what_comes():
    live = Watched(flat(3)).live
    for _ in range(7):
        seen = live.peek(CONTEXT)
        assert live.active == sum(item.active for item in live.endpoints) == 0
        pick = live.pick(CONTEXT, 0.0)
        assert pick.endpoint is seen
        pick.release(0.0)


def test_a_report_counts_once():
    watched = Watched(flat(1, outlier=Outlier(consecutive_5xx=2, max_ejection_percent=100)))
    pick = watched.live.pick(CONTEXT, 0.0)
    for _ in range(5):
        pick.report(ERROR, 0.0)
    pick.release(0.0)
    pick.report(ERROR, 0.0)
    assert watched.events == []
    call(watched, ERROR)
    assert len(watched.events) == 1


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_nobody_there():
    found = refusal(Watched(flat(0)).live.pick(CONTEXT, 0.0))
    assert found == Refusal(RefusalKind.NO_ENDPOINT, "cluster 'c' has no endpoint")
    assert refusal(Watched(Cluster("dns")).live.pick(CONTEXT, 0.0)).kind is RefusalKind.NO_ENDPOINT
    assert Watched(flat(0)).live.peek(CONTEXT) is None


def test_nobody_usable_is_told_with_the_reasons():
    config = cluster(
        locality(endpoint(0, health=Health.UNHEALTHY), endpoint(1, health=Health.DRAINING)),
        balancing=Balancing(panic_threshold=0.0),
    )
    found = refusal(Watched(config).live.pick(CONTEXT, 0.0))
    assert found.detail == "cluster 'c' has no usable endpoint among 2 (2 unhealthy)"


def test_tls_that_cannot_be_had_is_no_plain_text():
    live = Watched(flat(2, tls=Tls(unsupported="certificates by SDS are not supported"))).live
    found = refusal(live.pick(CONTEXT, 0.0))
    assert found.kind is RefusalKind.TLS
    assert "SDS" in found.detail


def test_max_requests():
    live = Watched(flat(2, limits=Limits(max_requests=2))).live
    picks = [live.pick(CONTEXT, 0.0) for _ in range(2)]
    found = refusal(live.pick(CONTEXT, 0.0))
    assert found.kind is RefusalKind.MAX_REQUESTS
    assert found.detail == "cluster 'c' has 2 calls in flight, max_requests is 2"
    picks[0].release(0.0)
    assert not isinstance(live.pick(CONTEXT, 0.0), Refusal)


def test_lowering_a_limit_blocks_until_drained():  # CB-02
    watched = Watched(flat(2, limits=Limits(max_requests=3)))
    picks = [watched.live.pick(CONTEXT, 0.0) for _ in range(3)]
    watched.live.update(replace(watched.live.cluster, limits=Limits(max_requests=1)), 0.0)
    for pick in picks:
        assert refusal(watched.live.pick(CONTEXT, 0.0)).kind is RefusalKind.MAX_REQUESTS
        pick.release(0.0)
    assert not isinstance(watched.live.pick(CONTEXT, 0.0), Refusal)


def test_drops_come_first_and_each_takes_of_what_is_left():  # ED-06
    drawn = iter([0.1, *(0.6, 0.9), 0.5, *(0.6, 0.2)])  # the 0.5 is where round robin starts
    drops = (Drop("first", 500_000), Drop("second", 250_000))
    live = Watched(cluster(locality(endpoint(0)), drops=drops), rand=lambda: next(drawn)).live
    found = refusal(live.pick(CONTEXT, 0.0))
    assert (found.kind, found.detail) == (RefusalKind.DROPPED, "cluster 'c' drops calls (first)")
    assert live.active == 0
    assert not isinstance(live.pick(CONTEXT, 0.0), Refusal)
    assert refusal(live.pick(CONTEXT, 0.0)).detail == "cluster 'c' drops calls (second)"


def test_everything_may_be_dropped():
    live = Watched(
        cluster(locality(endpoint(0)), drops=(Drop("all", 1_000_000),)), rand=lambda: 1 - 2**-53
    ).live
    assert refusal(live.pick(CONTEXT, 0.0)).kind is RefusalKind.DROPPED


def test_the_breaker_opens_and_probes():
    watched = Watched(flat(2, breaker=Breaker(consecutive_failures=2, open_for=10.0)))
    call(watched, ERROR)
    call(watched, REFUSED)
    found = refusal(watched.live.pick(CONTEXT, 9.0))
    assert (found.kind, found.detail) == (RefusalKind.BREAKER, "the breaker of cluster 'c' is open")
    probe = watched.live.pick(CONTEXT, 10.0)
    assert refusal(watched.live.pick(CONTEXT, 10.0)).detail == "the breaker of cluster 'c' is half open"
    probe.report(OK, 10.5)
    assert watched.events == [
        BreakerChanged("c", "closed", "open"),
        BreakerChanged("c", "open", "half_open"),
        BreakerChanged("c", "half_open", "closed"),
    ]
    probe.release(11.0)


@pytest.mark.parametrize("why", ["max_requests", "nobody"])
def test_a_pick_refused_below_the_breaker_gives_its_probe_back(why):
    watched = Watched(flat(1, breaker=Breaker(consecutive_failures=1, open_for=10.0)))
    call(watched, ERROR)
    config = watched.live.cluster
    if why == "nobody":
        watched.live.update(changed(config), 5.0)
    else:
        watched.live.update(replace(config, limits=Limits(max_requests=0)), 5.0)
    for _ in range(3):
        kind = refusal(watched.live.pick(CONTEXT, 10.0)).kind
        assert kind in (RefusalKind.NO_ENDPOINT, RefusalKind.MAX_REQUESTS)
    watched.live.update(config, 11.0)
    assert not isinstance(watched.live.pick(CONTEXT, 11.0), Refusal)


@pytest.mark.parametrize("end", ["released without a report", "reported as cancelled"])
def test_a_cancelled_probe_gives_its_place_back(end):
    watched = Watched(flat(1, breaker=Breaker(consecutive_failures=1, open_for=10.0)))
    call(watched, ERROR)
    probe = watched.live.pick(CONTEXT, 10.0)
    if end == "reported as cancelled":
        probe.report(CANCELLED, 10.0)
    probe.release(10.0)
    assert watched.live.status(10.0).breaker == "half_open"
    assert not isinstance(watched.live.pick(CONTEXT, 10.0), Refusal)


def test_a_body_that_breaks_counts_as_a_failure():
    watched = Watched(flat(1, breaker=Breaker(consecutive_failures=1)))
    pick = watched.live.pick(CONTEXT, 0.0)
    pick.report(OK, 0.0)
    pick.release(1.0, Outcome(OutcomeKind.RESET, status=200))
    pick.release(1.0, Outcome(OutcomeKind.RESET, status=200))
    assert watched.events == [BreakerChanged("c", "closed", "open")]


# --- ejection ---------------------------------------------------------------------------------------------------------


def ejecting(count=4, **fields):
    return flat(count, outlier=Outlier(**{"consecutive_5xx": 1, "max_ejection_percent": 50, **fields}))


def test_an_ejected_endpoint_is_left_out_until_its_time_is_over():
    watched = Watched(ejecting())
    bad = call(watched, ERROR)
    assert watched.events == [
        EndpointEjected("c", bad.name, "1 5xx or lost connections in a row", 30.0, "consecutive_5xx")
    ]
    assert all(call(watched, OK, now) is not bad for now in range(30))
    assert bad in {call(watched, OK, 30.0) for _ in range(4)}
    assert watched.events[1:] == [EndpointReturned("c", bad.name)]


def judging(count=4, **fields):
    """Each host is judged by itself, from 4 calls on."""
    percentage = FailurePercentage(50.0, 1, 4, enforcing=100)
    return ejecting(count, consecutive_5xx=0, success_rate=None, failure_percentage=percentage, **fields)


def alternating(watched, *, now=0.0):
    """Sixteen calls; every second call to the first endpoint fails."""
    bad, calls = watched.live.endpoints[0], Counter()
    for _ in range(16):
        pick = watched.live.pick(CONTEXT, now)
        calls[pick.endpoint] += 1
        failed = pick.endpoint is bad and calls[bad] % 2
        pick.report(ERROR if failed else OK, now)
        pick.release(now)
    return bad


def test_the_first_call_after_an_interval_judges_it():
    watched = Watched(judging())
    bad = alternating(watched)
    assert watched.events == []
    assert all(call(watched, OK, 10.0) is not bad for _ in range(8))
    assert watched.events == [
        EndpointEjected("c", bad.name, "failure percentage: 2 of 4", 30.0, "failure_percentage")
    ]
    assert watched.live.ejected == 1
    assert bad in {call(watched, OK, 40.0) for _ in range(4)}
    assert watched.events[1:] == [EndpointReturned("c", bad.name)]


@pytest.mark.parametrize(("failed", "ejected"), [(2, False), (3, True)])
def test_grpc_calls_are_judged_by_grpcs_rule(failed, ejected):  # OD-04, OD-05, DV-05
    """Above half and not at it; NOT_FOUND is a failure; one of four may go, though Envoy's 10 % would not let it."""
    watched = Watched(judging(max_ejection_percent=10))
    bad, left = watched.live.endpoints[0], failed
    for _ in range(16):
        pick = watched.live.pick(CONTEXT, 0.0)
        code = 5 if pick.endpoint is bad and left else 0
        left -= code == 5
        pick.report(Outcome(OutcomeKind.OK, status=code, sent=True, grpc=True), 0.0)
        pick.release(0.0)
    assert watched.live.status(10.0).endpoints[0].health == ("ejected" if ejected else "healthy")


def test_status_judges_too():
    watched = Watched(judging())
    bad = alternating(watched)
    healths = {item.address: item.health for item in watched.live.status(10.0).endpoints}
    assert healths.pop(bad.name) == "ejected"
    assert set(healths.values()) == {"healthy"}
    assert len(watched.events) == 1


def test_an_update_judges_by_the_settings_and_among_the_endpoints_of_before():
    watched = Watched(judging(max_ejection_percent=25))
    bad = alternating(watched)
    config = replace(
        watched.live.cluster, outlier=replace(watched.live.cluster.outlier, max_ejection_percent=0)
    )
    watched.live.update(changed(config, locality(bad.endpoint)), 11.0)
    assert watched.events == [
        EndpointEjected("c", bad.name, "failure percentage: 2 of 4", 30.0, "failure_percentage")
    ]
    assert bad.ejected


def test_an_update_tells_who_returned():
    watched = Watched(ejecting())
    bad = call(watched, ERROR)
    watched.live.update(changed(watched.live.cluster, locality(bad.endpoint, endpoint(9))), 30.0)
    assert watched.events[1:] == [EndpointReturned("c", bad.name)]


def test_status_tells_and_sweeps():
    watched = Watched(ejecting())
    bad = call(watched, ERROR)
    healths = {item.address: item.health for item in watched.live.status(29.0).endpoints}
    assert Counter(healths.values()) == {"healthy": 3, "ejected": 1}
    assert healths[bad.name] == "ejected"
    assert {item.health for item in watched.live.status(30.0).endpoints} == {"healthy"}


def test_what_status_calls_health():
    config = cluster(
        locality(
            endpoint(0, 3, Health.DRAINING),
            endpoint(1, health=Health.TIMEOUT),
            endpoint(2, health=Health.DEGRADED),
            zone="z",
        )
    )
    found = Watched(config).live.status(0.0)
    assert [item.health for item in found.endpoints] == ["draining", "unhealthy", "healthy"]
    first = found.endpoints[0]
    assert (first.address, first.weight, first.priority, first.locality) == ("10.0.0.0:80", 3, 0, "r/z")
    assert (found.breaker, found.active) == ("closed", 0)


def test_nobody_waits_for_the_retry_of_an_ejected_host():
    """The retry's pick already avoids whom this attempt ejected."""
    watched = Watched(ejecting(2))
    first = watched.live.pick(CONTEXT, 0.0)
    first.report(ERROR, 0.0)
    assert watched.live.pick(CONTEXT, 0.0).endpoint is not first.endpoint


# --- updates ----------------------------------------------------------------------------------------------------------


def test_survivors_keep_counters_ejections_and_the_breaker():
    watched = Watched(replace(ejecting(4), breaker=Breaker(consecutive_failures=2, open_for=10.0)))
    bad = call(watched, ERROR)
    held = watched.live.pick(CONTEXT, 0.0)
    gone = next(item for item in watched.live.endpoints if item not in (bad, held.endpoint))
    kept = [item for item in watched.live.endpoints if item is not gone]
    watched.live.update(
        changed(watched.live.cluster, locality(*(replace(item.endpoint, weight=5) for item in kept))), 1.0
    )
    assert list(watched.live.endpoints) == kept
    assert (bad.ejected, held.endpoint.active, gone.gone, bad.weight) == (True, 1, True, 5)
    call(watched, REFUSED, 1.0)
    assert BreakerChanged("c", "closed", "open") in watched.events
    held.release(2.0)
    assert watched.live.active == 0


def test_a_pick_of_an_endpoint_that_left_still_closes():
    watched = Watched(ejecting(2))
    pick = watched.live.pick(CONTEXT, 0.0)
    watched.live.update(changed(watched.live.cluster, locality(endpoint(9))), 0.0)
    assert pick.endpoint.gone
    pick.report(ERROR, 0.0)
    pick.release(0.0)
    assert (pick.endpoint.active, watched.live.active, watched.events) == (0, 0, [])
    assert watched.live.pick(CONTEXT, 0.0).endpoint.address == address(9)


def test_an_ejected_endpoint_that_leaves_makes_room():
    watched = Watched(ejecting(2, max_ejection_percent=50))
    bad = call(watched, ERROR)
    other = next(item for item in watched.live.endpoints if item is not bad)
    watched.live.update(changed(watched.live.cluster, locality(other.endpoint, endpoint(9))), 0.0)
    ejected = [call(watched, ERROR) for _ in range(1)]
    assert ejected[0].ejected


def test_switching_ejection_off_lets_all_return():
    watched = Watched(ejecting())
    bad = call(watched, ERROR)
    watched.live.update(replace(watched.live.cluster, outlier=None), 1.0)
    assert not bad.ejected
    assert watched.events[-1] == EndpointReturned("c", bad.name)
    assert bad in {call(watched) for _ in range(4)}


def test_switching_the_breaker_off_lets_calls_through():
    watched = Watched(flat(1, breaker=Breaker(consecutive_failures=1)))
    call(watched, ERROR)
    assert refusal(watched.live.pick(CONTEXT, 0.0)).kind is RefusalKind.BREAKER
    watched.live.update(replace(watched.live.cluster, breaker=None), 0.0)
    call(watched, ERROR)
    assert watched.live.status(0.0).breaker == "closed"


def test_another_balancer_holds_at_once():
    watched = Watched(flat(3))
    watched.live.update(replace(watched.live.cluster, balancing=Balancing(Balancer.LEAST_REQUEST)), 0.0)
    watched.live.endpoints[0].active = 1000
    picked = Counter(call(watched).name for _ in range(300))
    assert picked[watched.live.endpoints[0].name] < 60


def test_the_endpoints_of_an_untouched_assignment_are_not_looked_at():
    watched = Watched(flat(3))
    before = watched.live._roster
    watched.live.update(replace(watched.live.cluster, limits=Limits()), 0.0)
    assert watched.live._roster is before
    watched.live.update(replace(watched.live.cluster, tls=Tls(sni="x")), 0.0)
    assert [item.tls for item in watched.live.endpoints] == [Tls(sni="x")] * 3


def test_a_retired_cluster_refuses_and_its_calls_run_on():
    watched = Watched(flat(2))
    pick = watched.live.pick(CONTEXT, 0.0)
    watched.live.retire()
    assert pick.endpoint.gone
    assert refusal(watched.live.pick(CONTEXT, 1.0)).kind is RefusalKind.NO_ENDPOINT
    pick.release(2.0)
    assert watched.live.active == pick.endpoint.active == 0


# --- retries and connections ------------------------------------------------------------------------------------------


def test_max_retries():  # RT-08
    live = Watched(flat(1, limits=Limits(max_retries=2))).live
    permits = [live.begin_retry(None) for _ in range(3)]
    assert permits[2] is None
    assert live.retries == 2
    permits[0].release()
    permits[0].release()
    assert live.retries == 1
    assert live.begin_retry(None) is not None


def test_a_budget_is_of_the_calls_in_flight():
    live = Watched(flat(1, limits=Limits(budget=RetryBudget(50.0, 0)))).live
    assert live.begin_retry(None) is None
    held = [live.pick(CONTEXT, 0.0) for _ in range(4)]
    assert live.connections_to(live.endpoints[0]).begin_pending(), "one of the four, and not a fifth"
    assert [live.begin_retry(None) is not None for _ in range(3)] == [True, True, False]
    assert live.begin_retry(RetryBudget(100.0, 10)) is None
    assert len(held) == 4


def test_connections_and_pending_calls_are_limited():
    live = Watched(flat(1, limits=Limits(max_connections=1, max_pending=2))).live
    one = live.connections_to(live.endpoints[0])
    assert one.open_connection()
    assert not one.open_connection()
    assert one.open_connection(force=True)
    assert live.connections == 2
    one.close_connection()
    one.close_connection()
    assert one.open_connection()
    assert [one.begin_pending() for _ in range(3)] == [True, True, False]
    one.end_pending()
    assert one.begin_pending()


def test_cb_03_connections_to_each_endpoint_are_limited():
    limits = Limits(max_connections=None, max_connections_per_endpoint=2)
    live = Watched(flat(2, limits=limits)).live
    first, again, other = (live.connections_to(live.endpoints[number]) for number in (0, 0, 1))
    assert first.limited
    assert [pool.open_connection() for pool in (first, again, first, other)] == [True, True, False, True]
    assert again.open_connection(force=True), "a pool that has none may have one, as in Envoy"
    assert [live.connections, *(item.connections for item in live.endpoints)] == [4, 3, 1]
    for _ in range(2):
        first.close_connection()
    assert [again.open_connection(), again.open_connection()] == [True, False]
    live.update(replace(live.cluster, limits=Limits.unlimited()), 0.0)
    assert not first.limited
    assert again.open_connection()


# --- threads ----------------------------------------------------------------------------------------------------------


def run_threads(count, work):
    errors = []
    gate = threading.Barrier(count)

    def guarded(number):
        gate.wait(20)
        try:
            work(number)
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
    assert not any(thread.is_alive() for thread in threads)
    assert errors == []


@pytest.fixture
def restless():
    """Threads change places all the time, so that a race that can happen does."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("restless")
def test_fifty_threads_leave_nothing_behind():
    """Picks, retries, connections, updates, ejections and breaker changes at once: every counter returns to 0."""
    configs = [
        replace(
            flat(count, balancing=Balancing(kind), limits=Limits(max_requests=40, max_connections=20)),
            outlier=Outlier(consecutive_5xx=3, base_ejection=0.01, interval=0.01, max_ejection_percent=60),
            breaker=Breaker(consecutive_failures=8, open_for=0.01, half_open_permits=2),
        )
        for count, kind in itertools.product((3, 7), Balancer)
    ]
    watched = Watched(configs[0])
    live, seen, ticks = watched.live, [], itertools.count()

    def work(number):
        for turn in range(150):
            now = next(ticks) * 0.001
            if number == 0:
                live.update(configs[turn % len(configs)], now)
                continue
            pick = live.pick(CONTEXT, now)
            if isinstance(pick, Refusal):
                assert pick.kind in (RefusalKind.BREAKER, RefusalKind.MAX_REQUESTS)
                continue
            seen.append(pick.endpoint)
            permit = live.begin_retry(None)
            connections = live.connections_to(pick.endpoint)
            opened = connections.open_connection()
            if turn % 5:
                pick.report((OK, ERROR, REFUSED, CANCELLED)[turn % 4], now)
            pick.release(now, REFUSED if turn % 7 == 0 else None)
            if permit is not None:
                permit.release()
            if opened:
                connections.close_connection()

    run_threads(50, work)
    assert (live.active, live.retries, live.connections, live.pending) == (0, 0, 0, 0)
    assert all(item.active == 0 for item in seen)
    assert len(seen) > 1000
    now = next(ticks) * 0.001 + 1000.0
    status = live.status(now)
    assert {item.health for item in status.endpoints} == {"healthy"}
    # The breaker is whole, too: once its time is over it probes and closes.
    for step in range(3):
        probe = live.pick(CONTEXT, now + step)
        probe.report(OK, now + step)
        probe.release(now + step)
    assert live.status(now + 3).breaker == "closed"


def test_calls_of_priority_high_are_counted_by_themselves():
    """CB-01, Envoy ``RoutingPriority``: requests, retries and their budget, connections and who waits for them."""
    config = flat(
        2,
        limits=Limits(1, 1, 1, 0),
        high_limits=Limits(2, 2, 2, 3, RetryBudget(50.0, 1)),
    )
    live = Watched(config).live
    high = live.high
    assert high is live.high
    first = live.pick(CONTEXT, 0.0)
    assert live.pick(CONTEXT, 0.0).kind is RefusalKind.MAX_REQUESTS
    others = [high.pick(CONTEXT, 0.0) for _ in range(2)]
    refused = high.pick(CONTEXT, 0.0)
    assert refused.detail == "cluster 'c' has 2 calls in flight, max_requests is 2"
    assert (live.active, high.active, live.status(0.0).active) == (1, 2, 3)
    assert live.begin_retry(None) is None
    permit = high.begin_retry(None)
    assert permit is not None
    assert high.begin_retry(None) is None, "half of two calls"
    to, own = live.connections_to(live.endpoints[0]), high.connections_to(live.endpoints[0])
    assert [to.open_connection() for _ in range(2)] == [True, False]
    assert [own.open_connection() for _ in range(3)] == [True, True, False]
    assert [to.begin_pending() for _ in range(2)] == [True, False]
    assert [own.begin_pending() for _ in range(3)] == [True, True, False]
    permit.release()
    for pick in (first, *others):
        pick.report(OK, 0.0)
        pick.release(0.0)
    assert (live.active, high.active, live.retries, high.retries) == (0, 0, 0, 0)
    assert live.requests == 3


def test_limits_of_priority_high_follow_an_update():
    watched = Watched(flat(1, high_limits=Limits(max_requests=0)))
    high = watched.live.high
    assert isinstance(high.pick(CONTEXT, 0.0), Refusal)
    watched.live.update(replace(watched.live.cluster, high_limits=Limits(max_requests=1)), 0.0)
    assert not isinstance(high.pick(CONTEXT, 0.0), Refusal)
    assert high.cluster is high.cluster


@pytest.mark.usefixtures("restless")
def test_no_limit_is_passed_by_threads_at_once():
    limits = Limits(max_requests=5, max_retries=3, max_connections=4, max_pending=2)
    live, over = Watched(flat(4, limits=limits, balancing=Balancing(Balancer.LEAST_REQUEST))).live, []

    def work(number):
        to = live.connections_to(live.endpoints[number % 4])
        for _ in range(300):
            pick, permit = live.pick(CONTEXT, 0.0), live.begin_retry(None)
            opened, waits = to.open_connection(), to.begin_pending()
            now = (live.active, live.retries, live.connections, live.pending)
            if any(map(int.__gt__, now, (5, 3, 4, 2))):
                over.append(now)
            if not isinstance(pick, Refusal):
                pick.release(0.0)
            for held, give_back in ((permit, permit and permit.release), (opened, to.close_connection)):
                if held:
                    give_back()
            if waits:
                to.end_pending()

    run_threads(16, work)
    assert over == []
    assert (live.active, live.retries, live.connections, live.pending) == (0, 0, 0, 0)


@pytest.mark.usefixtures("restless")
def test_a_pick_released_by_many_threads_closes_once():
    live = Watched(flat(1, breaker=Breaker(consecutive_failures=5))).live
    for _ in range(20):
        pick, permit = live.pick(CONTEXT, 0.0), live.begin_retry(None)
        run_threads(8, lambda number, pick=pick: (pick.report(ERROR, 0.0), pick.release(0.0)))
        run_threads(8, lambda number, permit=permit: permit.release())
        assert (live.active, live.retries, live.endpoints[0].active) == (0, 0, 0)
        live.update(replace(live.cluster, breaker=None), 0.0)
        live.update(replace(live.cluster, breaker=Breaker(consecutive_failures=5)), 0.0)


def test_who_listens_may_use_the_cluster():
    """Events are told outside the lock: an observer that picks does not wait for itself."""
    seen = []
    watched = Watched(ejecting(4))
    watched.live._emit = lambda event: seen.append(watched.live.pick(CONTEXT, 0.0))
    call(watched, ERROR)
    assert len(seen) == 1
    assert isinstance(seen[0].endpoint, LiveEndpoint)


# --- what is counted --------------------------------------------------------------------------------------------------


def attempt(live, outcome, now=0.0, failure=None):
    pick = live.pick(CONTEXT, now)
    pick.report(outcome, now)
    pick.release(now, failure)
    return pick.endpoint


def test_attempts_and_failures_are_counted_once_each():
    live = Watched(flat(1)).live
    for outcome in (OK, ERROR, REFUSED, CANCELLED):
        attempt(live, outcome)
    attempt(live, OK, failure=Outcome(OutcomeKind.RESET, status=200, sent=True, detail="broke off"))
    attempt(live, ERROR, failure=Outcome(OutcomeKind.RESET, status=500, sent=True))
    live.pick(CONTEXT, 0.0).release(0.0)
    status = live.status(0.0)
    assert (status.requests, status.failures) == (7, 4)
    assert (status.endpoints[0].requests, status.endpoints[0].failures) == (7, 4)


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (ERROR, "status 500"),
        (REFUSED, "connect"),
        (Outcome(OutcomeKind.CONNECT, detail="connection refused"), "connect: connection refused"),
        (Outcome(OutcomeKind.TIMEOUT, error=TimeoutError("too slow")), "timeout: too slow"),
    ],
)
def test_the_last_error_in_words(outcome, words):
    live = Watched(flat(1)).live
    for each in (Outcome(OutcomeKind.OK, status=599), outcome, OK, CANCELLED):
        attempt(live, each)
    assert live.status(0.0).endpoints[0].last_error == words


def test_latency_is_of_answers_of_the_last_minute():
    live = Watched(flat(1)).live
    attempt(live, Outcome(OutcomeKind.TIMEOUT, seconds=9.0), 10.0)
    assert live.status(10.0).endpoints[0].latency is None
    for milliseconds in range(1, 101):
        attempt(live, Outcome(OutcomeKind.OK, status=500, seconds=milliseconds / 1000), 10.0)
    latency = live.status(11.0).endpoints[0].latency
    assert latency.p50 == pytest.approx(0.050, rel=0.05)
    assert latency.p99 == pytest.approx(0.099, rel=0.05)
    assert live.status(80.0).endpoints[0].latency is None


def test_what_limits_refuse_is_counted():
    live = Watched(flat(1, limits=Limits(max_requests=1, max_retries=1, max_pending=1))).live
    held = live.pick(CONTEXT, 0.0)
    assert isinstance(live.pick(CONTEXT, 0.0), Refusal)
    assert [live.begin_retry(None) is not None for _ in range(3)] == [True, False, False]
    to = live.connections_to(live.endpoints[0])
    assert [to.begin_pending() for _ in range(2)] == [True, False]
    held.release(0.0)
    status = live.status(0.0)
    assert (status.requests, status.retries, status.overflows) == (1, 1, 4)


def test_an_ejection_is_counted_and_its_end_is_known():
    outlier = Outlier(consecutive_5xx=1, base_ejection=30.0, interval=10.0, max_ejection_percent=100)
    live = Watched(flat(1, outlier=outlier)).live
    attempt(live, ERROR, 5.0)
    status = live.status(5.0)
    assert status.ejections == 1
    assert status.endpoints[0].health == "ejected"
    assert status.endpoints[0].ejected_for == 35.0  # until 35, and the sweep after that is at 40
    assert live.status(39.0).endpoints[0].ejected_for == 1.0
    status = live.status(40.0)
    assert (status.endpoints[0].health, status.endpoints[0].ejected_for) == ("healthy", None)


def test_counts_survive_an_update_and_a_cluster_keeps_those_of_who_left():
    watched = Watched(flat(2))
    live = watched.live
    gone = attempt(live, ERROR)
    stays = attempt(live, ERROR)
    live.update(changed(live.cluster, locality(stays.endpoint)), 1.0)
    status = live.status(1.0)
    assert gone.gone
    assert (status.requests, status.failures) == (2, 2)
    assert [(item.address, item.requests) for item in status.endpoints] == [(stays.name, 1)]


# --- who builds the balance --------------------------------------------------------------------------------------------


@pytest.fixture
def built(monkeypatch):
    """The balances that are made, each with whether the lock was held; whose lock; what happens while one is made."""
    made, watched, meanwhile = [], [], []

    def balance(*arguments, **options):
        held = bool(watched) and watched[-1].live._lock.locked()
        made.append(held)
        if meanwhile and not held:
            meanwhile.pop(0)()
        return Balance(*arguments, **options)

    monkeypatch.setattr("meshlib.runtime.live_balance.Balance", balance)
    return made, watched, meanwhile


def test_a_pick_after_an_update_builds_nothing(built):
    made, watched, _ = built
    found = Watched(flat(3))
    watched.append(found)
    assert not made, "nobody asked for one"
    call(found)
    for config in (
        flat(5),
        changed(flat(5), locality(endpoint(0, 7))),
        replace(
            flat(5), assignment=Assignment("c", (locality(endpoint(0, 7)),), overprovisioning_factor=200)
        ),
    ):
        made.clear()
        found.live.update(config, 1.0)
        assert made == [False], "by the writer, without the lock"
        call(found)
        assert len(made) == 1


def test_what_says_the_same_again_leaves_the_turns_as_they_are(built):
    """A resource that is sent again, another source's view of it, names that are resolved again."""
    made, watched, _ = built
    weighted = [locality(endpoint(0, 9), endpoint(1, 1))]
    found = Watched(changed(flat(2), *weighted))
    watched.append(found)
    picked = Counter()
    for number in range(40):
        picked[call(found).address] += 1
        if not number:
            made.clear()
        again = locality(endpoint(0, 9), endpoint(1, 1))
        found.live.update(changed(flat(2, limits=Limits(max_requests=9 + number)), again), 1.0)
    assert not made
    assert picked == {address(0): 36, address(1): 4}
    assert found.live.cluster.limits.max_requests == 48


def test_calls_go_on_by_the_balance_before_while_another_is_built(built):
    _, watched, meanwhile = built
    found = Watched(flat(2))
    watched.append(found)
    call(found)
    seen = []
    meanwhile.append(lambda: seen.append(call(found).name))
    found.live.update(flat(3), 1.0)
    assert len(seen) == 1


def test_an_ejection_while_a_balance_is_built_has_it_built_again(built):
    made, watched, meanwhile = built
    outlier = Outlier(consecutive_5xx=1, max_ejection_percent=100)
    found = Watched(flat(3, outlier=outlier))
    watched.append(found)
    call(found)
    made.clear()
    ejected = []

    def eject():
        ejected.append(call(found, ERROR))

    meanwhile.append(eject)
    found.live.update(flat(4, outlier=outlier), 1.0)
    assert made == [False, False]
    assert {call(found).name for _ in range(20)} == {item.name for item in found.live.endpoints} - {
        ejected[0].name
    }


def test_where_ejections_never_end_the_next_pick_builds(built):
    made, watched, meanwhile = built
    outlier = Outlier(consecutive_5xx=1, max_ejection_percent=100)
    found = Watched(flat(30, outlier=outlier))
    watched.append(found)
    call(found)
    made.clear()
    meanwhile.extend([lambda: call(found, ERROR)] * 20)
    found.live.update(flat(31, outlier=outlier), 1.0)
    meanwhile.clear()
    assert found.live._balances.plain is None
    assert not call(found).ejected


# --- breakers of endpoints ----------------------------------------------------------------------------------------------


def failing(watched, endpoint, times, now=0.0):
    """Calls until ``endpoint`` has failed so often; the others answer."""
    while times:
        pick = watched.live.pick(CONTEXT, now)
        bad = pick.endpoint is endpoint
        times -= bad
        pick.report(ERROR if bad else OK, now)
        pick.release(now)


def by_endpoint(count, **fields):
    fields = {"consecutive_failures": 3, "open_for": 10.0, **fields}
    return Watched(flat(count, endpoint_breaker=Breaker(**fields)))


def test_each_endpoint_has_a_breaker_of_its_own_and_calls_go_to_the_others():
    watched = by_endpoint(3)
    bad = watched.live.endpoints[1]
    failing(watched, bad, 3)
    assert BreakerChanged("c", "closed", "open", bad.name) in watched.events
    before = bad.requests
    for _ in range(30):
        pick = watched.live.pick(CONTEXT, 1.0)
        pick.report(OK, 1.0)
        pick.release(1.0)
    assert bad.requests == before
    probes = {}
    for _ in range(30):
        pick = watched.live.pick(CONTEXT, 10.0)
        probes.setdefault(pick.endpoint, pick)
    assert bad.requests == before + 1, "one probe at a time"
    probes[bad].report(OK, 10.0)
    probes[bad].release(10.0)
    assert BreakerChanged("c", "half_open", "closed", bad.name) in watched.events


def test_where_the_breakers_of_all_are_open_calls_are_refused_and_of_many_the_last_is_found():
    watched = by_endpoint(40, consecutive_failures=1)
    for one in watched.live.endpoints[1:]:
        failing(watched, one, 1)
    last = watched.live.endpoints[0]
    assert {watched.live.pick(CONTEXT, 1.0).endpoint for _ in range(50)} == {last}
    failing(watched, last, 1)
    refused = watched.live.pick(CONTEXT, 1.0)
    assert isinstance(refused, Refusal)
    assert refused.kind is RefusalKind.BREAKER
    assert "of all endpoints" in refused.detail


def test_the_clusters_breaker_and_its_endpoints_hold_together():
    one, each = Breaker(consecutive_failures=1, open_for=5.0), Breaker(consecutive_failures=1, open_for=10.0)
    watched = Watched(flat(1, breaker=one, endpoint_breaker=each))
    name = watched.live.endpoints[0].name
    failing(watched, watched.live.endpoints[0], 1)
    opened = [BreakerChanged("c", "closed", "open"), BreakerChanged("c", "closed", "open", name)]
    assert watched.events == opened
    assert refusal(watched.live.pick(CONTEXT, 1.0)).detail == "the breaker of cluster 'c' is open"
    assert "of all endpoints" in refusal(watched.live.pick(CONTEXT, 5.0)).detail
    pick = watched.live.pick(CONTEXT, 10.0)  # the cluster's probe came back though the endpoint's refused it
    pick.report(OK, 10.0)
    pick.release(10.0)
    closed = [
        BreakerChanged("c", "open", "half_open"),
        BreakerChanged("c", "open", "half_open", name),
        BreakerChanged("c", "half_open", "closed"),
        BreakerChanged("c", "half_open", "closed", name),
    ]
    assert watched.events == [*opened, *closed]


def test_scopes_change_and_an_endpoint_keeps_its_breaker_over_updates():
    watched = by_endpoint(2)
    bad = watched.live.endpoints[0]
    failing(watched, bad, 3)
    own = bad.breaker
    watched.live.update(flat(3, endpoint_breaker=Breaker(consecutive_failures=3, open_for=99.0)), 1.0)
    assert bad.breaker is own
    assert not own.would_permit(50.0)
    watched.live.update(flat(3, breaker=Breaker(consecutive_failures=3)), 2.0)
    assert bad.breaker is None
    assert watched.live.pick(CONTEXT, 2.0).endpoint in watched.live.endpoints
    watched.live.update(flat(3), 3.0)
    assert watched.live.status(3.0).breaker == "closed"


# --- subsets --------------------------------------------------------------------------------------------------------------


def labelled(number, **labels):
    return endpoint(number, metadata={"envoy.lb": labels})


def subset_of(found, **labels):
    context = PickContext()
    context.labels = labels_of(labels)
    picked = {found.live.pick(context, 0.0) for _ in range(20)}
    return {pick.endpoint.name if isinstance(pick, LivePick) else pick.detail for pick in picked}


def subsets_of(*endpoints, **fields):
    fields.setdefault("balancing", Balancing(subsets=Subsets((Selector(("v",)),))))
    return cluster(locality(*endpoints), **fields)


def test_a_call_is_for_its_subset_and_follows_updates():
    config = subsets_of(labelled(1, v="1"), labelled(2, v="2"), labelled(3, v="2"))
    found = Watched(config)
    assert subset_of(found, v="1") == {"10.0.0.1:80"}
    assert subset_of(found, v="2") == {"10.0.0.2:80", "10.0.0.3:80"}
    live = found.live.endpoints[0]
    found.live.update(subsets_of(labelled(1, v="2"), labelled(3, v="1")), 1.0)
    assert subset_of(found, v="1") == {"10.0.0.3:80"}
    assert subset_of(found, v="2") == {"10.0.0.1:80"}
    assert found.live.endpoints[0] is live, "only its labels are others"
    found.live.update(replace(config, balancing=Balancing()), 2.0)
    assert len(subset_of(found, v="1")) == 3
    found.live.update(config, 3.0)
    assert subset_of(found, v="1") == {"10.0.0.1:80"}
    found.live.retire()
    assert subset_of(found, v="1") == {"cluster 'c' has no endpoint"}


@pytest.mark.parametrize("grpc", [False, True])
def test_an_ejection_holds_in_subsets_and_does_not_sort_them_anew(grpc, monkeypatch):
    outlier = Outlier(consecutive_5xx=1, max_ejection_percent=100)
    found = Watched(subsets_of(labelled(1, v="1"), labelled(2, v="1"), labelled(3, v="2"), outlier=outlier))
    monkeypatch.setattr("meshlib.runtime.live_balance.SubsetIndex", None)
    context = PickContext(grpc=grpc)
    context.labels = labels_of({"v": "1"})
    ejected = found.live.pick(context, 0.0)
    ejected.report(ERROR, 0.0)
    assert ejected.endpoint.ejected
    assert ejected.endpoint not in {found.live.pick(context, 0.0).endpoint for _ in range(20)}


def test_the_writer_makes_what_calls_needed(monkeypatch):
    found = Watched(subsets_of(labelled(1, v="1"), labelled(2, v="2")))
    subset_of(found, v="1")
    found.live.update(subsets_of(labelled(1, v="1"), labelled(2, v="2"), labelled(3, v="1")), 1.0)
    monkeypatch.setattr("meshlib.runtime.live_balance.Balance", None)
    assert subset_of(found, v="1") == {"10.0.0.1:80", "10.0.0.3:80"}


def test_a_call_that_no_subset_is_for_is_told_so():
    found = Watched(subsets_of(labelled(1, v="1")))
    assert subset_of(found, v="9", on=True) == {
        "cluster 'c' has no usable endpoint with on=true, v=9 among 1"
    }
    assert subset_of(found) == {
        "cluster 'c' has no usable endpoint for a call without labels (metadata_match) among 1"
    }
    assert found.live.peek(PickContext()) is not None, "whoever asks whether it can be called"


def test_a_breaker_of_its_own_sends_no_call_out_of_its_subset():
    breaker = Breaker(consecutive_failures=1)
    found = Watched(subsets_of(labelled(1, v="1"), labelled(2, v="2"), endpoint_breaker=breaker))
    context = PickContext()
    context.labels = labels_of({"v": "1"})
    found.live.pick(context, 0.0).report(ERROR, 0.0)
    assert subset_of(found, v="1") == {"the breakers of all endpoints of cluster 'c' are open"}
    assert subset_of(found, v="2") == {"10.0.0.2:80"}


# --- apertures ------------------------------------------------------------------------------------------------------------


def called(found, grpc=False):
    return {found.live.pick(PickContext(grpc=grpc), 0.0).endpoint.name for _ in range(200)}


@pytest.mark.parametrize("grpc", [False, True])
def test_lb_12_a_process_has_a_subset_of_its_own_and_keeps_it(grpc):
    some = Balancing(aperture=Aperture(5))
    one, other = (Watched(flat(60, balancing=some), seed=seed) for seed in (1, 2))
    mine = called(one, grpc)
    assert len(mine) == len(called(other, grpc)) == 5
    assert mine != called(other, grpc)
    one.live.update(flat(61, balancing=some), 1.0)
    assert len(mine - called(one, grpc)) <= 1
    one.live.update(flat(60), 2.0)
    assert len(called(one, grpc)) == 60
    one.live.update(flat(60, balancing=some), 3.0)
    assert called(one, grpc) == mine


def test_a_seed_is_drawn_though_an_update_asks_for_it_first():
    """Else all processes whose balancer becomes pick_first at run time would go to the same endpoint."""
    found = set()
    for seed in range(12):
        watched = Watched(flat(40), seed=seed)
        watched.live.update(flat(40, balancing=Balancing(Balancer.PICK_FIRST, shuffled=True)), 1.0)
        found |= called(watched)
    assert len(found) > 3


def test_an_ejection_leaves_the_others_of_a_subset():
    some = Balancing(aperture=Aperture(5))
    found = Watched(flat(60, balancing=some, outlier=Outlier(consecutive_5xx=1, max_ejection_percent=100)))
    before = called(found)
    pick = found.live.pick(CONTEXT, 0.0)
    pick.report(ERROR, 0.0)
    assert called(found) == before - {pick.endpoint.name}


def test_subsets_are_narrowed_each():
    balancing = Balancing(aperture=Aperture(2), subsets=Subsets((Selector(("v",)),)))
    found = Watched(
        subsets_of(*(labelled(number, v=number % 2) for number in range(30)), balancing=balancing)
    )
    assert len(subset_of(found, v=0)) == len(subset_of(found, v=1)) == 2
