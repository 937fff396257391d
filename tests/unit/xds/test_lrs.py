"""What goes out on a stream of load reports, and when: LR-01 to LR-04."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.core.loads import ClusterLoad, LocalityLoad
from meshlib.model.endpoint import Locality
from meshlib.xds import schema
from meshlib.xds.lrs import LoadMachine

REQUEST = schema.message("envoy.service.load_stats.v3.LoadStatsRequest")
RESPONSE = schema.message("envoy.service.load_stats.v3.LoadStatsResponse")
HERE = Locality("r", "z", "s")


def asks(*clusters, seconds=2.0, all_of_them=False):
    made = RESPONSE(clusters=clusters, send_all_clusters=all_of_them)
    made.load_reporting_interval.FromNanoseconds(int(seconds * 1e9))
    return made.SerializeToString()


def load(name="a", *, issued=1, metrics=None, drops=None, refused=0, service="", seconds=2.0):
    places = (LocalityLoad(HERE, issued, issued, 0, 0, metrics or {}),) if issued else ()
    return ClusterLoad(name, service, seconds, places, drops or {}, refused)


class Stream:
    """A machine whose clusters count ``loads``; ``taken``: how often they were asked."""

    def __init__(self, *loads, jitter=0.5):
        node = schema.from_json("envoy.config.core.v3.Node", {"id": "me"})
        self.machine = LoadMachine(node, lambda: jitter)
        self.loads = list(loads)
        self.taken = 0

    def take(self):
        self.taken += 1
        return self.loads

    def open(self):
        return REQUEST.FromString(self.machine.opened())

    def tick(self, now):
        return [REQUEST.FromString(raw) for raw in self.machine.tick(now, self.take)]

    def told(self, now, **options):
        assert self.machine.received(asks(all_of_them=True, **options), now) == ""
        return self


def test_lr_01_the_first_request_has_the_node_and_no_counts():
    first = Stream(load()).open()
    assert first.node.id == "me"
    assert list(first.node.client_features) == ["envoy.lrs.supports_send_all_clusters"]
    assert not len(first.cluster_stats)


def test_lr_01_nothing_is_sent_before_the_server_has_answered():
    stream = Stream(load())
    assert stream.tick(1e6) == []
    stream.open()
    assert stream.machine.next_timer() is None
    assert stream.tick(1e6) == []
    assert stream.taken == 0


def test_lr_02_the_interval_is_the_servers():
    stream = Stream(load())
    stream.open()
    stream.told(10.0, seconds=2.5)
    assert stream.machine.next_timer() == 12.5
    assert stream.tick(12.4) == []
    assert len(stream.tick(12.5)) == 1
    assert stream.machine.next_timer() == 15.0


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.999])
def test_lr_02_it_is_one_second_at_least(seconds):
    stream = Stream(load())
    stream.open()
    assert stream.told(10.0, seconds=seconds).machine.next_timer() == 11.0


def test_lr_02_the_same_answer_again_changes_nothing_and_another_interval_begins_anew():
    stream = Stream(load())
    stream.open()
    stream.told(10.0, seconds=2.0)
    assert stream.told(11.0, seconds=2.0).machine.next_timer() == 12.0
    assert stream.told(11.5, seconds=5.0).machine.next_timer() == 16.5


def test_lr_02_clusters_that_are_not_wanted_are_taken_and_not_told():
    stream = Stream(load("a"), load("b"))
    stream.open()
    stream.machine.received(asks("b", "nobody"), 0.0)
    [report] = stream.tick(2.0)
    assert [each.cluster_name for each in report.cluster_stats] == ["b"]
    assert stream.taken == 1
    stream.machine.received(asks(all_of_them=True), 2.0)
    [report] = stream.tick(4.0)
    assert [each.cluster_name for each in report.cluster_stats] == ["a", "b"]


def test_lr_03_what_a_report_has():
    places = (
        LocalityLoad(HERE, 5, 2, 1, 2, {"named_metrics.q": (2, 7.5), "cpu_utilization": (1, 0.25)}),
        LocalityLoad(Locality(), 1, 1, 0, 0, {}),
    )
    stream = Stream(ClusterLoad("a", "eds", 1.75, places, {"lb": 3, "throttle": 1}, 2))
    stream.open()
    [report] = stream.told(0.0).tick(2.0)
    assert not report.HasField("node")
    [stats] = report.cluster_stats
    assert (stats.cluster_name, stats.cluster_service_name) == ("a", "eds")
    assert stats.load_report_interval.ToNanoseconds() == 1_750_000_000
    assert {each.category: each.dropped_count for each in stats.dropped_requests} == {"lb": 3, "throttle": 1}
    assert stats.total_dropped_requests == 6
    here, nowhere = stats.upstream_locality_stats
    assert (here.locality.region, here.locality.zone, here.locality.sub_zone) == ("r", "z", "s")
    assert (here.total_issued_requests, here.total_successful_requests) == (5, 2)
    assert (here.total_error_requests, here.total_requests_in_progress) == (1, 2)
    [metric] = here.load_metric_stats
    assert (metric.metric_name, metric.num_requests_finished_with_metric) == ("named_metrics.q", 2)
    assert metric.total_metric_value == 7.5
    assert here.cpu_utilization.total_metric_value == 0.25
    assert nowhere.HasField("locality")
    assert nowhere.locality.region == ""


def test_lr_04_zero_is_told_once():
    stream = Stream(load(issued=1))
    stream.open()
    stream.told(0.0)
    assert len(stream.tick(2.0)) == 1
    stream.loads = [load(issued=0)]
    assert len(stream.tick(4.0)) == 1
    assert [len(stream.tick(now)) for now in (6.0, 8.0)] == [0, 0]
    assert stream.taken == 4
    stream.loads = [load(issued=0, refused=1)]
    assert len(stream.tick(10.0)) == 1


def test_lr_04_a_stream_that_is_new_is_told_anew():
    stream = Stream(load(issued=0))
    stream.open()
    stream.told(0.0)
    assert [len(stream.tick(now)) for now in (2.0, 4.0)] == [1, 0]
    stream.machine.closed()
    assert stream.tick(6.0) == []
    stream.open()
    assert stream.tick(8.0) == []
    stream.told(8.0)
    assert len(stream.tick(10.0)) == 1


def test_lr_04_the_delay_grows_until_the_server_answers():
    """ST-04: 1 s, 1.6 times as long each time, up to 120 s."""
    stream = Stream(load())
    assert [round(stream.machine.closed(), 3) for _ in range(3)] == [1.0, 1.6, 2.56]
    for _ in range(20):
        last = stream.machine.closed()
    assert last == 120.0
    stream.open()
    stream.told(0.0)
    assert stream.machine.closed() == 1.0


@pytest.mark.parametrize("raw", [b"\xff", b"\x0a", b"\x12\x02\x08"])
def test_bytes_that_are_no_answer_are_passed_over(raw):
    stream = Stream(load())
    stream.open()
    assert "no LoadStatsResponse" in stream.machine.received(raw, 0.0)
    assert stream.machine.next_timer() is None
    stream.told(0.0)
    stream.machine.received(raw, 1.0)
    assert stream.machine.next_timer() == 2.0


@given(st.binary(max_size=60), st.integers(-(2**62), 2**62), st.integers(-(2**31), 2**31 - 1))
def test_no_answer_breaks_it(raw, seconds, nanos):
    stream = Stream(load())
    stream.open()
    stream.machine.received(raw, 0.0)
    odd = RESPONSE(send_all_clusters=True)
    odd.load_reporting_interval.seconds, odd.load_reporting_interval.nanos = seconds, nanos
    assert stream.machine.received(odd.SerializeToString(), 0.0) == ""
    due = stream.machine.next_timer()
    assert due is not None
    assert 1.0 <= due < 1e9
