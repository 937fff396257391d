from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from meshlib.config import Config
from meshlib.core.resolve import Rules
from meshlib.core.upstream import PickContext
from meshlib.errors import ConfigError
from meshlib.model.address import Address
from meshlib.model.cluster import Cluster
from meshlib.model.endpoint import Assignment, Endpoint, Locality, LocalityEndpoints
from meshlib.model.events import ConfigurationChanged, SourceChanged, Unanswered
from meshlib.model.listener import FilterChain, HttpManager, Listener
from meshlib.model.match import PathKind, PathMatch, RouteMatch
from meshlib.model.route import Forward, Route, RouteConfiguration, VirtualHost
from meshlib.model.snapshot import Absence, Fate, Part
from meshlib.runtime.process import PerProcess
from meshlib.runtime.runtime import SWEEP, Runtime
from meshlib.runtime.worker import Worker
from meshlib.testing.clock import VirtualClock
from tests.support.watch import Waiters


class Workers:
    """One worker without a thread; how often it is leased is counted."""

    def __init__(self, clock):
        self.worker = Worker(clock)
        self.leases = 0

    def acquire(self):
        self.leases += 1
        return self.worker

    def release(self, worker, timeout=1.0, *, for_now=False):
        assert worker is self.worker
        self.leases -= 1


class Feed:
    """Sources that a test speaks for."""

    def __init__(self, *parts, refusal="", fails=None):
        self.parts = parts
        self.refusal = refusal
        self.fails = fails
        self.streaming = True
        self.grows = True
        self.journal = []

    def open(self, runtime, inherited):
        self.journal.append(("open", inherited))
        if self.fails:
            raise self.fails
        return self.parts or inherited

    def start(self):
        self.journal.append("start")

    def stop(self):
        self.journal.append("stop")

    def want(self, name, authority):
        self.journal.append(("want", name, authority))

    def forget(self, name):
        self.journal.append(("forget", name))

    def statuses(self):
        return ()

    def awaits(self, source, cluster):
        return "has not come yet"

    def pending(self, name):
        return ""


def target(name):
    """A part that knows one target."""
    route = Route(RouteMatch(PathMatch(PathKind.PREFIX, "/")), Forward(cluster="c"))
    routes = RouteConfiguration("r", (VirtualHost("v", ("*",), (route,)),))
    listener = Listener(name, (FilterChain(http=HttpManager(routes=routes)),), api=True)
    endpoints = LocalityEndpoints(Locality(), (Endpoint(Address("10.0.0.1", 80)),))
    return Part(
        "xds",
        targets={name: listener},
        clusters={"c": Cluster("c", assignment=Assignment("c", (endpoints,)))},
    )


class Channel:
    """Keeps connections by a name."""

    def __init__(self, needs):
        self.needs = needs

    def rest(self):
        """It has none that a fork would harm."""


class Setting:
    def __init__(self, *parts, rules=None, inherited=None, **feed):
        self.clock = VirtualClock(0.0)
        self.workers = Workers(self.clock)
        self.worker = self.workers.worker
        self.feed = Feed(*parts, **feed)
        self.rules = rules or Rules(has_xds=True)
        self.events = []
        self.runtime = Runtime(
            Config(),
            self.rules,
            self.feed,
            clock=self.clock,
            workers=self.workers,
            inherited=inherited,
            observers=(self.events.append,),
        )
        self.worker.run_due()

    def step(self, seconds):
        self.clock.advance(seconds)
        self.worker.run_due()

    def steps(self, seconds):
        """Second by second: a timer that is set anew counts from when it ran."""
        for _ in range(int(seconds)):
            self.step(1.0)

    def run(self):
        self.worker.run_due()
        return self.feed.journal

    def resolve(self, timeout=0.0, name="reviews"):
        return self.runtime.wait_known("http", name, None, name, timeout)


class TestLife:
    def test_what_is_there_at_once_is_in_force_before_anything_runs(self):
        setting = Setting(target("reviews"))
        assert setting.runtime.view.resolve("http", "reviews", None, "reviews").via == "mesh"
        assert setting.feed.journal == [("open", ()), "start"]
        assert setting.workers.leases == 1

    def test_sources_that_cannot_be_made_leave_nothing_behind(self):
        clock = VirtualClock(0.0)
        workers = Workers(clock)
        feed = Feed(fails=ConfigError("wrong"))
        with pytest.raises(ConfigError):
            Runtime(Config(), Rules(), feed, clock=clock, workers=workers)
        assert workers.leases == 0

    def test_pause_and_resume(self):
        setting = Setting(target("reviews"))
        setting.runtime.want("reviews", "reviews")
        setting.worker.run_due()
        setting.feed.journal.clear()
        setting.runtime.pause()
        assert setting.feed.journal == ["stop"]
        assert (setting.workers.leases, setting.runtime.streaming) == (0, False)
        setting.runtime.resume()
        setting.worker.run_due()
        assert setting.feed.journal[1:] == ["start", ("want", "reviews", "reviews")]
        assert (setting.workers.leases, setting.runtime.streaming) == (1, True)
        setting.runtime.resume()
        assert setting.workers.leases == 1

    def test_close_is_for_good_and_what_is_in_force_can_still_be_read(self):
        setting = Setting(target("reviews"))
        setting.runtime.close()
        setting.runtime.close()
        setting.runtime.resume()
        assert setting.workers.leases == 0
        assert setting.feed.journal[-1] == "stop"
        assert setting.runtime.view.resolve("http", "reviews", None, "reviews").via == "mesh"

    def test_abandoned_it_ends_on_the_worker(self):
        setting = Setting()
        setting.runtime.abandon()
        assert setting.workers.leases == 1
        setting.worker.run_due()
        assert setting.workers.leases == 0
        assert setting.feed.journal[-1] == "stop"

    def test_abandoned_by_the_collector_under_its_own_lock_it_ends_all_the_same(self):
        setting = Setting()
        holder = PerProcess(lambda inherited: setting.runtime)
        holder.get()
        held = [holder]
        del holder

        def collect():
            with setting.runtime._lock:
                held.clear()  # the last reference: the finalizer runs here

        thread = threading.Thread(target=collect, daemon=True)
        thread.start()
        thread.join(5.0)
        assert not thread.is_alive(), "the finalizer waits for the lock that its own thread holds"
        assert setting.runtime.closed
        setting.worker.run_due()
        assert (setting.workers.leases, setting.runtime.running) == (0, False)

    def test_a_mesh_that_is_closed_after_it_was_abandoned_ends_once(self):
        setting = Setting()
        setting.runtime.abandon()
        setting.runtime.close()
        setting.worker.run_due()
        assert setting.workers.leases == 0
        assert setting.feed.journal.count("stop") == 1

    def test_a_child_goes_on_with_what_its_parent_knew(self):
        parent = Setting(target("reviews"))
        parent.runtime.want("reviews", "reviews:80")
        child = Setting(inherited=parent.runtime)
        assert child.feed.journal[0] == ("open", parent.runtime.store.snapshot.parts)
        assert ("want", "reviews", "reviews:80") in child.feed.journal
        assert child.resolve().via == "mesh"
        assert child.runtime.store.snapshot.version > parent.runtime.store.snapshot.version
        compiled = parent.runtime.view.resolve("http", "reviews", None, "reviews").routes
        assert child.resolve().routes is compiled


class TestInterest:
    def test_a_name_is_asked_for_once(self):
        setting = Setting()
        for _ in range(3):
            setting.runtime.want("reviews", "reviews:80")
        setting.runtime.want("")
        setting.worker.run_due()
        assert setting.feed.journal.count(("want", "reviews", "reviews:80")) == 1

    def test_it_is_let_go_of_when_nobody_uses_it(self):
        setting = Setting()
        setting.runtime.want("old", "old")
        setting.runtime.want("used", "used")
        for _ in range(25):
            setting.step(SWEEP)
            setting.runtime.want("used", "used")
        assert ("forget", "old") in setting.feed.journal
        assert ("forget", "used") not in setting.feed.journal
        setting.runtime.want("old", "old")
        setting.worker.run_due()
        assert setting.feed.journal.count(("want", "old", "old")) == 2

    def test_within_two_minutes_of_its_last_use_and_not_before_ninety_seconds(self):
        for late in (0.0, 1.0, SWEEP - 0.001):
            setting = Setting(target("reviews"))
            setting.runtime.want("reviews", "reviews")
            setting.step(late)
            setting.runtime.want("reviews", "reviews")
            setting.steps(89)
            assert ("forget", "reviews") not in setting.run()
            setting.steps(31)
            assert ("forget", "reviews") in setting.run()

    def test_a_call_that_goes_on_is_use(self):
        setting = Setting(target("reviews"))
        setting.runtime.want("reviews", "reviews")
        live = setting.runtime.clusters.get("xds", "c")
        picked = live.pick(PickContext(), 0.0)
        setting.steps(600)
        assert ("forget", "reviews") not in setting.run()
        picked.release(0.0)
        setting.steps(130)
        assert ("forget", "reviews") in setting.run()

    def test_connections_that_are_kept_are_use(self):
        setting = Setting(target("reviews"))
        setting.runtime.want("reviews", "reviews")
        channel = Channel("reviews")
        setting.runtime.rests(channel)
        setting.steps(600)
        assert ("forget", "reviews") not in setting.run()
        channel.needs = ""
        setting.steps(130)
        assert ("forget", "reviews") in setting.run()

    def test_a_call_that_waits_for_the_answer_is_use(self):
        setting = Setting()
        setting.runtime.want("reviews", "reviews")
        cancel = setting.runtime.store.on_change(lambda: None)
        setting.steps(600)
        assert ("forget", "reviews") not in setting.run()
        cancel()
        setting.steps(130)
        assert ("forget", "reviews") in setting.run()

    def test_nothing_is_let_go_of_while_the_control_plane_is_away(self):
        setting = Setting(target("reviews"))
        setting.runtime.want("reviews", "reviews")
        setting.runtime.publish((replace(target("reviews"), unreached="refused"),))
        setting.steps(600)
        assert ("forget", "reviews") not in setting.run()
        setting.runtime.publish((target("reviews"),))
        setting.steps(130)
        assert ("forget", "reviews") in setting.run()

    @pytest.mark.parametrize("fate", [Fate.ABSENT, Fate.UNANSWERED, None])
    def test_of_names_that_nobody_knows_a_hundred_are_kept(self, fate):
        setting = Setting(target("reviews"))
        names = [f"host-{number}" for number in range(300)]
        part = target("reviews")
        if fate is not None:
            absent = {name: Absence(fate, "none") for name in names}
            setting.runtime.publish((replace(part, absent=absent),))
        else:  # nobody ever answers
            setting.runtime.publish((replace(part, unreached="refused"),))
        for name in ("reviews", *names):
            setting.runtime.want(name, name)
        setting.steps(20)
        forgotten = [entry[1] for entry in setting.run() if entry[0] == "forget"]
        assert forgotten == names[:200]
        assert len(setting.runtime.interest) == 101

    def test_what_the_control_plane_refuses_to_give_is_known_to_it(self):
        setting = Setting()
        names = [f"host-{number}" for number in range(300)]
        absent = {name: Absence(Fate.UNUSABLE, "refused") for name in names}
        setting.runtime.publish((Part("xds", absent=absent),))
        for name in names:
            setting.runtime.want(name, name)
        setting.steps(20)
        assert len(setting.runtime.interest) == 300


class TestWaiting:
    def test_what_is_known_waits_for_nothing(self):
        setting = Setting(target("reviews"))
        assert setting.resolve(5.0).via == "mesh"

    def test_the_time_runs_from_when_the_name_was_first_wanted(self):
        setting = Setting()
        runtime = setting.runtime
        reviews, other = (runtime.view.resolve("http", name, None, name) for name in ("reviews", "other"))
        assert runtime.patience(reviews, 5.0) == 5.0
        runtime.want("reviews", "reviews")
        setting.clock.advance(3.0)
        assert runtime.patience(reviews, 5.0) == 2.0
        setting.clock.advance(3.0)
        assert runtime.patience(reviews, 5.0) == 0.0
        assert setting.resolve(5.0).via == "direct"
        assert runtime.patience(other, 5.0) == 5.0

    def test_a_call_that_would_fail_waits_for_its_own_time(self):
        setting = Setting(rules=Rules(has_xds=True, cold_start="fail"))
        runtime = setting.runtime
        runtime.want("reviews", "reviews")
        setting.clock.advance(6.0)
        assert runtime.patience(runtime.view.resolve("http", "reviews", None, "reviews"), 5.0) == 5.0
        assert setting.resolve(0.0).via == "failed"

    def test_whoever_was_not_answered_is_told_of(self):
        setting = Setting(rules=Rules(has_xds=True, server="10.0.0.1:18000"))
        setting.events.clear()
        found = setting.resolve(0.0)
        assert found.reason == (
            "the control plane 10.0.0.1:18000 has not answered: listener reviews is asked for, and not there yet: "
            "reviews is called directly"
        )
        assert setting.events == [Unanswered("reviews", "direct", found.reason)]
        assert ("want", "reviews", "reviews") in [*setting.feed.journal, *setting.run()]

    def test_the_time_that_a_call_waited_is_known_to_its_plan(self):
        setting = Setting()
        since = setting.clock.now()
        setting.clock.advance(2.0)
        setting.runtime.publish((target("reviews"),))
        found = setting.runtime.settled("http", "reviews", None, "reviews", since)
        assert (found.via, found.waited) == ("mesh", 2.0)
        assert setting.resolve(5.0).waited == 0.0

    def test_of_a_pure_sidecar_view_from_the_start(self):
        setting = Setting(rules=Rules(has_xds=True, view="sidecar"))
        resolution = setting.runtime.view.resolve("http", "reviews", None, "reviews")
        assert setting.runtime.patience(resolution, 5.0) == 5.0
        setting.clock.advance(6.0)
        assert setting.runtime.patience(resolution, 5.0) == 0.0
        assert setting.resolve(5.0).via == "direct"

    def test_a_publication_ends_it(self):
        setting = Setting()
        found, waiters = [], Waiters(setting.runtime.store)
        thread = threading.Thread(target=lambda: found.append(setting.resolve(20.0).via))
        thread.start()
        waiters.until(1)
        assert bool(setting.runtime.awaited)
        setting.runtime.publish((target("reviews"),))
        thread.join(10.0)
        assert found == ["mesh"]
        assert not setting.runtime.awaited

    def test_the_twin_for_event_loops_tells_once(self):
        setting = Setting()
        told = []
        cancel = setting.runtime.on_known(
            "http", "reviews", None, "reviews", lambda found: told.append(found.via)
        )
        assert told == []
        setting.runtime.publish((target("reviews"),))
        setting.runtime.publish((target("reviews"),))
        assert told == ["mesh"]
        cancel()
        assert not setting.runtime.awaited

    def test_where_the_control_plane_cannot_be_used_both_fail_at_once(self):
        setting = Setting(refusal="meshlib: call init_gevent()")
        found = setting.resolve(5.0)
        assert (found.via, found.reason) == ("failed", "meshlib: call init_gevent()")
        told = []
        setting.runtime.on_known("http", "reviews", None, "reviews", told.append)()
        assert [each.via for each in told] == ["wait"]  # at once: there is nothing to wait for
        assert setting.runtime.settled("http", "reviews", None, "reviews").via == "failed"
        assert setting.resolve(5.0, name="example.com").via == "direct"


class TestEvents:
    def test_changes_are_told_and_wake_who_waits(self):
        setting = Setting()
        setting.events.clear()
        woken = []
        setting.runtime.store.on_change(lambda: woken.append(1))
        setting.runtime.source_changed("xds", "failed", "refused")
        setting.runtime.publish((target("reviews"),))
        assert setting.events == [SourceChanged("xds", "failed", "refused"), ConfigurationChanged(2)]
        assert len(woken) == 2

    def test_other_rules_are_compiled_once(self):
        setting = Setting(target("reviews"))
        version = setting.runtime.store.snapshot.version
        setting.runtime.reconfigure(Config(bypass=("x",)), setting.rules)
        assert setting.runtime.store.snapshot.version == version
        setting.runtime.reconfigure(Config(bypass=("reviews",)), Rules(bypass=("reviews",), has_xds=True))
        assert setting.resolve().via == "direct"
        assert setting.runtime.config.bypass == ("reviews",)
