"""The watch on a virtual clock: when it looks, what it asks, what becomes of a call."""

from __future__ import annotations

from types import MappingProxyType

import pytest

from meshlib.sidecar.evidence import Answer, Probe
from tests.support.sidecar_kit import ISTIO, Bench, seen

HEALTH = Probe.at(15021, "/healthz/ready")
NOTHING = seen({})
NOT_READY = {HEALTH: Answer("answered", 503)}


class TestTheFirstLook:
    def test_it_is_the_constructors_and_asks_nobody(self):
        bench = Bench(seen(ISTIO), start=False)
        assert (bench.now.kind, bench.now.mode, bench.now.state) == ("istio", "transparent", "starting")
        assert bench.looks == 1
        assert bench.asked == []
        assert bench.told == []

    def test_where_nothing_is_there_calls_go_on_at_once(self):
        bench = Bench(NOTHING, start=False)
        assert (bench.now.kind, bench.now.state) == ("none", "absent")

    def test_off_looks_at_nothing_and_sets_no_timer(self):
        bench = Bench(seen(ISTIO), mode="off")
        bench.step(60)
        assert bench.now.state == "absent"
        assert bench.looks == 0
        assert bench.worker.run_due() is None


class TestStarting:
    def test_ready_as_soon_as_it_is_answered(self):
        bench = Bench(seen(ISTIO))
        assert bench.now.state == "ready"
        assert bench.now.confidence == "high"
        assert [one.state for one in bench.told] == ["ready"]

    def test_it_is_asked_until_it_is_ready(self):
        bench = Bench(seen(ISTIO), NOT_READY)
        bench.step(5)
        assert bench.now.state == "starting"
        bench.replies = {HEALTH: Answer("answered", 200)}
        bench.step(0.1)
        assert bench.now.state == "ready"
        assert bench.now.since == pytest.approx(bench.clock.now(), abs=0.11)

    @pytest.mark.parametrize("window", [0.0, 1.0, 10.0])
    def test_after_the_window_it_is_gone(self, window):
        bench = Bench(seen(ISTIO), NOT_READY, start_window=window)
        bench.step(max(0, window - 0.2))
        assert bench.now.state == ("starting" if window else "gone")
        bench.step(0.4)
        assert bench.now.state == "gone"
        assert (bench.now.kind, bench.now.mode) == ("istio", "transparent")

    def test_one_that_comes_later_is_found(self):
        bench = Bench(NOTHING)
        bench.step(60)
        bench.evidence = seen(ISTIO)
        bench.step(5.1)
        assert bench.now.state == "ready"
        assert [one.state for one in bench.told] == ["starting", "ready"]

    def test_variables_alone_are_waited_for_once(self):
        bench = Bench(seen({}, environ={"DAPR_HTTP_PORT": "3500"}))
        assert (bench.now.kind, bench.now.state) == ("dapr", "starting")
        bench.step(9.8)
        assert bench.now.state == "starting"
        bench.step(0.4)
        assert bench.now.state == "absent"
        bench.step(60)
        assert [one.state for one in bench.told if one.state != "absent"] == []

    def test_and_is_taken_when_it_comes_after_that(self):
        bench = Bench(seen({}, environ={"DAPR_HTTP_PORT": "3500"}))
        bench.step(30)
        bench.evidence = seen({3500: 0})._replace(environ=bench.evidence.environ)
        bench.replies = {Probe.at(3500, "/v1.0/healthz/outbound"): Answer("answered", 204)}
        bench.replies = {probe._replace(older="/v1.0/healthz"): one for probe, one in bench.replies.items()}
        bench.step(6)
        assert (bench.now.kind, bench.now.mode, bench.now.state) == ("dapr", "api", "ready")

    def test_required_and_not_there(self):
        bench = Bench(NOTHING, mode="require")
        assert bench.now.state == "starting"
        bench.step(10.2)
        assert bench.now.state == "gone"
        bench.evidence = seen(ISTIO)
        bench.step(1)
        assert (bench.now.kind, bench.now.state) == ("istio", "ready")

    def test_told_and_not_there(self):
        bench = Bench(NOTHING, mode="linkerd")
        assert (bench.now.kind, bench.now.state, bench.now.confidence) == ("linkerd", "starting", "high")
        bench.step(10.2)
        assert (bench.now.kind, bench.now.state) == ("linkerd", "gone")


class TestGone:
    @pytest.fixture
    def bench(self):
        made = Bench(seen(ISTIO))
        assert made.now.state == "ready"
        made.step(3)
        made.told.clear()
        return made

    def test_within_a_second_though_nobody_calls(self, bench):
        bench.evidence = NOTHING
        bench.step(0.75)
        assert bench.now.state == "gone"
        assert [one.state for one in bench.told] == ["gone"]

    def test_at_once_where_a_call_could_not_connect(self, bench):
        bench.evidence = NOTHING
        bench.watch.suspect()
        bench.watch.suspect()
        before = bench.looks
        bench.step()
        assert bench.now.state == "gone"
        assert bench.looks == before + 1

    def test_a_suspicion_that_is_wrong_changes_nothing(self, bench):
        bench.watch.suspect()
        bench.step(1)
        assert bench.now.state == "ready"
        assert bench.told == []

    def test_one_look_that_misses_it_changes_nothing(self, bench):
        for _ in range(20):
            bench.evidence = NOTHING
            bench.step(0.25)
            bench.evidence = seen(ISTIO)
            bench.step(0.5)
        assert bench.told == []

    def test_one_that_drains_carries_on(self, bench):
        bench.replies = NOT_READY
        bench.step(30)
        bench.watch.suspect()
        bench.step(1)
        assert bench.told == []

    def test_while_it_carries_nobody_asks_it_anything(self, bench):
        bench.asked.clear()
        bench.step(60)
        assert bench.asked == []

    def test_another_users_listener_in_its_place_is_not_it(self, bench):
        bench.evidence = seen(dict.fromkeys(ISTIO, 1000))
        bench.step(0.75)
        assert bench.now.state == "gone"

    def test_it_is_back_within_ten_seconds_and_stays(self, bench):
        bench.evidence = NOTHING
        bench.step(30)
        bench.evidence = seen(ISTIO)
        bench.step(2)
        assert bench.now.state == "ready"
        bench.step(60)
        assert [one.state for one in bench.told] == ["gone", "ready"]

    def test_one_that_comes_and_goes_does_not_flap(self, bench):
        bench.evidence = NOTHING
        bench.step(1)
        for _ in range(20):
            bench.evidence = seen(ISTIO)
            bench.step(0.5)
            bench.evidence = NOTHING
            bench.step(1.0)
        assert [one.state for one in bench.told] == ["gone"]

    def test_it_is_not_back_before_it_says_that_it_is_ready(self, bench):
        bench.evidence, bench.replies = NOTHING, NOT_READY
        bench.step(1)
        bench.evidence = seen(ISTIO)
        bench.step(60)
        assert bench.now.state == "gone"


class TestSeveralListeners:
    """Consul's upstreams: each has its own."""

    VARIABLES = MappingProxyType(
        {
            "A_CONNECT_SERVICE_HOST": "127.0.0.1",
            "A_CONNECT_SERVICE_PORT": "1001",
            "B_CONNECT_SERVICE_HOST": "127.0.0.1",
            "B_CONNECT_SERVICE_PORT": "1002",
        }
    )

    def seen(self, *ports):
        return seen(dict.fromkeys(ports, 5995), environ=self.VARIABLES)

    def test_they_are_waited_for_and_then_those_that_are_there_do(self):
        bench = Bench(self.seen(1001))
        bench.step(9.8)
        assert bench.now.state == "starting"
        bench.step(0.4)
        assert (bench.now.state, set(bench.now.upstreams)) == ("ready", {"a"})
        bench.evidence = self.seen(1001, 1002)
        bench.step(1)
        assert (bench.now.state, set(bench.now.upstreams)) == ("ready", {"a", "b"})

    def test_those_that_were_enough_before_are_enough_again(self):
        bench = Bench(self.seen(1001))
        bench.step(20)
        bench.evidence = self.seen()
        bench.step(1)
        assert bench.now.state == "gone"
        bench.evidence = self.seen(1001)
        bench.step(2)
        assert (bench.now.state, set(bench.now.upstreams)) == ("ready", {"a"})

    def test_one_that_goes_while_it_carries_is_still_its(self):
        bench = Bench(self.seen(1001))
        bench.step(5)
        bench.evidence = self.seen(1001, 1002)
        bench.step(20)
        bench.evidence = self.seen(1001)
        bench.watch.suspect()
        bench.step(20)
        assert (bench.now.state, set(bench.now.upstreams)) == ("ready", {"a", "b"})


class TestLife:
    def test_stopped_it_looks_no_more_and_started_again_it_looks_at_once(self):
        bench = Bench(seen(ISTIO))
        bench.watch.stop()
        bench.evidence = NOTHING
        bench.step(60)
        assert bench.now.state == "ready"
        bench.watch.start(bench.worker)
        bench.step()
        bench.step(0.75)
        assert bench.now.state == "gone"

    def test_an_answer_that_comes_after_the_stop_is_dropped(self):
        bench = Bench(seen(ISTIO), start=False)
        bench.holding = True
        bench.watch.start(bench.worker)
        bench.step()
        (late,) = bench.held
        bench.watch.stop()
        late()
        bench.step(1)
        assert bench.now.state == "starting"

    def test_where_no_thread_can_be_started_it_goes_on(self, caplog):
        bench = Bench(seen(ISTIO), start=False)

        def none(job):
            raise RuntimeError("can't start new thread")

        bench.watch._apart = none
        bench.watch.start(bench.worker)
        bench.step(2)
        assert bench.now.state == "starting"
        assert "can't start new thread" in caplog.text
        bench.watch._apart = bench._apart
        bench.step(0.2)
        assert bench.now.state == "ready"

    def test_a_question_that_fails_and_who_is_told_and_fails_end_nothing(self, caplog, monkeypatch):
        bench = Bench(seen(ISTIO), start=False)

        def fails(anything):
            raise KeyError("a fault of ours")

        monkeypatch.setattr(bench, "ask", fails)
        monkeypatch.setattr(bench.watch, "_changed", fails)
        bench.watch.start(bench.worker)
        bench.step(2)
        assert bench.now.state == "starting"
        monkeypatch.undo()
        bench.step(0.2)
        assert bench.now.state == "ready"
        assert "a fault of ours" in caplog.text

    def test_one_question_at_a_time(self):
        bench = Bench(seen(ISTIO), start=False)
        bench.holding = True
        bench.watch.start(bench.worker)
        bench.step(5)
        assert len(bench.held) == 1

    def test_a_question_that_hangs_ends_no_window(self):
        bench = Bench(seen(ISTIO), start=False, start_window=3.0)
        bench.holding = True
        bench.watch.start(bench.worker)
        bench.step(3.2)
        assert bench.now.state == "gone"
