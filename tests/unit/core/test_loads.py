"""What is counted for a load report, through live clusters: LR-03, LR-04, LR-05, OR-01."""

from __future__ import annotations

import pytest

from meshlib.core.loads import Metrics
from meshlib.core.upstream import PickContext, Refusal
from meshlib.model.call import Outcome, OutcomeKind
from meshlib.model.cluster import Discovery, LoadReport
from meshlib.model.endpoint import Drop, Locality
from meshlib.model.headers import Headers
from meshlib.model.policy import Limits
from tests.support.live_kit import CANCELLED, ERROR, OK, REFUSED, Watched, cluster, endpoint, flat, locality

REPORT = LoadReport("xds")
NOT_FOUND = Outcome(OutcomeKind.OK, status=404)
RPC_OK = Outcome(OutcomeKind.OK, status=0, grpc=True)
RPC_NOT_FOUND = Outcome(OutcomeKind.OK, status=5, grpc=True)
RPC_LOST = Outcome(OutcomeKind.RESET, grpc=True)
RPC_BROKEN = Outcome(OutcomeKind.STATUS, status=14, grpc=True)


def taken(watched, now=1.0):
    return watched.live.loads.loads.take(now)


def counts(load):
    """Of the only locality: issued, succeeded, failed, active."""
    [each] = load.localities
    return each.issued, each.succeeded, each.failed, each.active


def attempt(watched, outcome, *, grpc=False, failure=None):
    pick = watched.live.pick(PickContext(grpc=grpc), 0.0)
    if outcome is not None:
        pick.report(outcome, 0.0)
    pick.release(0.0, failure)
    return pick


@pytest.mark.parametrize(
    ("grpc", "outcome", "failure", "expected"),
    [
        (False, OK, None, (1, 1, 0, 0)),
        (False, NOT_FOUND, None, (1, 1, 0, 0)),
        (False, ERROR, None, (1, 0, 1, 0)),
        (False, REFUSED, None, (1, 0, 1, 0)),
        (False, OK, Outcome(OutcomeKind.RESET, status=200), (1, 0, 1, 0)),
        (False, CANCELLED, None, (1, 0, 0, 0)),
        (False, None, None, (1, 0, 0, 0)),
        (True, RPC_OK, None, (1, 1, 0, 0)),
        (True, RPC_NOT_FOUND, None, (1, 0, 1, 0)),
        (True, RPC_LOST, None, (1, 0, 1, 0)),
        (True, RPC_OK, RPC_BROKEN, (1, 0, 1, 0)),
        (True, CANCELLED, None, (1, 0, 1, 0)),
        (True, None, None, (1, 0, 1, 0)),
    ],
)
def test_lr_03_how_an_attempt_counts(grpc, outcome, failure, expected):
    watched = Watched(flat(1, load_report=REPORT))
    attempt(watched, outcome, grpc=grpc, failure=failure)
    assert counts(taken(watched)) == expected


def test_lr_03_an_rpc_that_is_given_up_while_it_is_read_is_an_error():
    watched = Watched(flat(1, load_report=REPORT))
    pick = watched.live.pick(PickContext(grpc=True), 0.0)
    pick.report(RPC_OK, 0.0)
    pick.give_up()
    pick.release(0.0)
    assert counts(taken(watched)) == (1, 0, 1, 0)


def test_lr_03_what_is_in_progress_is_not_reset():
    watched = Watched(flat(1, load_report=REPORT))
    pick = watched.live.pick(PickContext(), 0.0)
    assert counts(taken(watched, 1.0)) == (1, 0, 0, 1)
    assert counts(taken(watched, 2.0)) == (0, 0, 0, 1)
    pick.report(OK, 2.0)
    pick.release(2.0)
    pick.release(2.0)
    assert counts(taken(watched, 3.0)) == (0, 1, 0, 0)
    assert taken(watched, 4.5).zero
    assert taken(watched, 5.0).seconds == 0.5


def test_lr_03_by_locality():
    places = [locality(endpoint(n), zone=zone) for n, zone in enumerate("ab")]
    watched = Watched(cluster(*places, load_report=REPORT))
    for _ in range(20):
        attempt(watched, OK)
    found = taken(watched).localities
    assert {each.locality for each in found} == {Locality("r", "a"), Locality("r", "b")}
    assert sum(each.issued for each in found) == 20


def test_lr_03_logical_dns_is_of_no_locality():
    config = cluster(locality(endpoint(0), zone="a"), load_report=REPORT, discovery=Discovery.LOGICAL_DNS)
    watched = Watched(config)
    attempt(watched, OK)
    assert [each.locality for each in taken(watched).localities] == [Locality()]


def test_lr_03_drops_by_category_and_what_limits_refuse():
    drops = (Drop("lb", 0), Drop("throttle", 1_000_000))
    watched = Watched(flat(1, load_report=REPORT, drops=drops))
    assert isinstance(watched.live.pick(PickContext(), 0.0), Refusal)
    load = taken(watched)
    assert (dict(load.drops), load.refused, load.dropped, load.localities) == ({"throttle": 1}, 0, 1, ())
    watched = Watched(flat(1, load_report=REPORT, limits=Limits(max_requests=1)))
    held = watched.live.pick(PickContext(), 0.0)
    assert isinstance(watched.live.pick(PickContext(), 0.0), Refusal)
    held.release(0.0)
    load = taken(watched)
    assert (dict(load.drops), load.refused, load.dropped) == ({}, 1, 1)
    assert taken(watched).zero


def test_lr_03_the_name_of_the_endpoints_where_it_is_another():
    assert taken(Watched(flat(1, load_report=REPORT, eds_name="c"))).service == ""
    assert taken(Watched(flat(1, load_report=REPORT, eds_name="other"))).service == "other"


def test_lr_04_a_locality_that_left_is_in_one_more_report():
    here = locality(endpoint(0), zone="a")
    watched = Watched(cluster(here, load_report=REPORT))
    pick = watched.live.pick(PickContext(), 0.0)
    watched.live.update(cluster(locality(endpoint(1), zone="b"), load_report=REPORT), 0.0)
    assert counts(taken(watched)) == (1, 0, 0, 1)
    pick.report(OK, 0.0)
    pick.release(0.0)
    [last] = taken(watched).localities
    assert (last.locality.zone, last.succeeded, last.active) == ("a", 1, 0)
    assert taken(watched).localities == ()


def test_what_was_counted_for_another_server_is_kept_for_that():
    watched = Watched(flat(1, load_report=REPORT))
    before = watched.live.loads.loads
    pick = watched.live.pick(PickContext(), 0.0)
    watched.live.update(flat(1, load_report=LoadReport("other")), 0.0)
    assert watched.live.loads.loads is not before
    pick.report(OK, 0.0)
    pick.release(0.0)
    assert before.active is False
    assert counts(before.take(1.0)) == (1, 1, 0, 0)
    assert taken(watched).zero


def test_a_cluster_that_asks_for_none_counts_none():
    watched = Watched(flat(1))
    pick = watched.live.pick(PickContext(), 0.0)
    assert (watched.live.loads.loads, pick.load, pick.listens) == (None, None, False)


METRICS = Metrics(0.5, None, 0.25, named_metrics={"q": 2.0, "p": 3.0}, utilization={"x": 1.0})


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ((), {}),
        (("cpu_utilization", "mem_utilization"), {"cpu_utilization": (2, 1.0)}),
        (("named_metrics.q",), {"named_metrics.q": (2, 4.0)}),
        (("named_metrics.*", "application_utilization"), {
            "application_utilization": (2, 0.5), "named_metrics.q": (2, 4.0), "named_metrics.p": (2, 6.0)
        }),
    ],
)  # fmt: skip
def test_lr_05_the_metrics_that_are_named_are_summed(names, expected):
    watched = Watched(flat(1, load_report=LoadReport("xds", frozenset(names))))
    for _ in range(2):
        pick = watched.live.pick(PickContext(grpc=True), 0.0)
        assert pick.listens is bool(names)
        pick.measured(METRICS)
        pick.measured(None)
        pick.report(RPC_OK, 0.0)
        pick.release(0.0)
    [each] = taken(watched).localities
    assert dict(each.metrics) == expected


def test_lr_05_an_endpoint_that_thinks_of_ever_new_names_is_bounded():
    watched = Watched(flat(1, load_report=LoadReport("xds", frozenset({"named_metrics.*"}))))
    pick = watched.live.pick(PickContext(grpc=True), 0.0)
    for start in range(0, 3000, 100):
        pick.measured(Metrics(named_metrics={f"n{start + n}": 1.0 for n in range(100)}))
    [each] = taken(watched).localities
    assert len(each.metrics) == 1000


def test_or_01_in_the_head_of_a_response_and_to_whoever_listens():
    watched = Watched(flat(1, load_report=LoadReport("xds", frozenset({"named_metrics.q"}))))
    heard = []
    cancel = watched.live.loads.hear(lambda endpoint, metrics: heard.append((endpoint.name, metrics)))
    told = Outcome(OutcomeKind.OK, 200, Headers.of(("endpoint-load-metrics", "TEXT named_metrics.q=4")))
    attempt(watched, told)
    cancel()
    attempt(watched, told)
    [each] = taken(watched).localities
    assert dict(each.metrics) == {"named_metrics.q": (2, 8.0)}
    assert heard == [("10.0.0.0:80", Metrics(named_metrics={"q": 4.0}))]


def test_or_01_nobody_listens_and_nothing_is_read(monkeypatch):
    monkeypatch.setattr("meshlib.xds.orca.of_headers", lambda _: pytest.fail("read"))
    told = Outcome(OutcomeKind.OK, 200, Headers.of(("endpoint-load-metrics", "TEXT named_metrics.q=4")))
    attempt(Watched(flat(1)), told)
    attempt(Watched(flat(1, load_report=REPORT)), told)
