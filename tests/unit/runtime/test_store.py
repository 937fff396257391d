from __future__ import annotations

import threading

import pytest

from meshlib.model.cluster import Cluster
from meshlib.model.snapshot import EMPTY, Part, Snapshot
from meshlib.runtime.store import RETIRED, Store
from meshlib.testing.clock import VirtualClock


class FakeView:
    def __init__(self, snapshot, previous):
        self.snapshot = snapshot
        self.previous = previous


class Setting:
    """A store with a compiler and a registry that keep a journal."""

    def __init__(self, snapshot=EMPTY, previous=None):
        self.clock = VirtualClock(0.0)
        self.journal = []
        self.reconciled = []
        self.store = Store(self._compile, self._reconcile, self.clock, snapshot, previous)

    def _compile(self, snapshot, previous):
        self.journal.append("compile")
        return FakeView(snapshot, previous)

    def _reconcile(self, snapshot, now):
        # The view must not have been swapped yet: a route must not be seen before its cluster is there.
        in_force = getattr(self, "store", None)
        self.journal.append(("reconcile", in_force.snapshot.version if in_force else None))
        self.reconciled.append({(part.source, name) for part in snapshot.parts for name in part.clusters})


def part(source, *names):
    return Part(source, clusters={name: Cluster(name) for name in names})


@pytest.fixture
def setting():
    return Setting()


class TestPublish:
    def test_it_starts_empty(self, setting):
        assert setting.store.snapshot.parts == ()
        assert setting.store.view.snapshot.version == 0

    def test_clusters_are_ready_before_the_view_is_swapped(self, setting):
        setting.journal.clear()
        setting.store.publish((part("static", "a"),))
        assert setting.journal == ["compile", ("reconcile", 0)]
        assert setting.store.snapshot.version == 1

    def test_a_view_is_compiled_with_the_one_before(self, setting):
        first = setting.store.view
        setting.store.publish((part("static", "a"),))
        assert setting.store.view.previous is first

    def test_versions_grow_by_one(self, setting):
        for expected in (1, 2, 3):
            setting.store.publish((part("static"),))
            assert setting.store.snapshot.version == expected

    def test_what_fails_to_compile_changes_nothing(self, setting):
        setting.store.publish((part("static", "a"),))
        before = setting.store.view
        setting.store._compile = lambda snapshot, previous: 1 / 0
        with pytest.raises(ZeroDivisionError):
            setting.store.publish((part("static", "b"),))
        assert setting.store.view is before
        assert setting.store.snapshot.version == 1

    def test_recompile_keeps_the_parts(self, setting):
        parts = (part("static", "a"), part("xds", "a"))
        setting.store.publish(parts)
        setting.store.recompile()
        assert setting.store.snapshot.parts == parts
        assert setting.store.snapshot.version == 2

    def test_it_can_start_with_what_a_parent_knew(self):
        view = object()
        setting = Setting(Snapshot((part("xds", "a"),), 7), view)
        assert setting.store.view.previous is view
        assert setting.reconciled == [{("xds", "a")}]


class TestRetired:
    def test_a_cluster_that_left_is_kept_for_calls_under_way(self, setting):
        setting.store.publish((part("xds", "a", "b"),))
        setting.store.publish((part("xds", "b"),))
        assert setting.reconciled[-1] == {("xds", "a"), ("xds", "b")}
        assert set(setting.store.clusters) == {"b"}

    def test_of_a_part_that_left_too(self, setting):
        setting.store.publish((part("static", "a"), part("xds", "a")))
        setting.store.publish((part("static", "a"),))
        assert setting.reconciled[-1] == {("static", "a"), ("xds", "a")}

    def test_a_sweep_lets_it_go_when_its_time_is_over(self, setting):
        setting.store.publish((part("xds", "a"),))
        setting.store.publish((part("xds"),))
        setting.clock.advance(RETIRED - 1)
        assert setting.store.sweep() is True
        assert ("xds", "a") in setting.reconciled[-1]
        setting.clock.advance(2)
        assert setting.store.sweep() is False
        assert setting.reconciled[-1] == set()

    def test_one_that_returns_is_not_retired(self, setting):
        setting.store.publish((part("xds", "a"),))
        setting.store.publish((part("xds"),))
        setting.store.publish((part("xds", "a"),))
        setting.clock.advance(RETIRED + 1)
        setting.store.sweep()
        assert setting.reconciled[-1] == {("xds", "a")}

    def test_many_updates_do_not_grow_it(self, setting):
        for number in range(50):
            setting.clock.advance(RETIRED)
            setting.store.publish((part("xds", f"cluster-{number}"),))
        assert len(setting.reconciled[-1]) <= 3


class TestWaiting:
    def test_a_wait_that_holds_already_returns_at_once(self, setting):
        assert setting.store.wait(lambda view: True, 0.0)

    def test_a_wait_that_never_holds_is_bounded(self, setting):
        results = []
        thread = threading.Thread(target=lambda: results.append(setting.store.wait(lambda view: False, 5.0)))
        thread.start()
        setting.clock.wait_for_sleepers(1)
        setting.clock.advance(4.9)
        assert (setting.clock.sleepers, results) == (1, [])
        setting.clock.advance(0.1)
        thread.join(10.0)
        assert results == [False]

    def test_a_publication_wakes_who_waits(self, setting):
        results = []
        looked = threading.Event()

        def ready(view):
            looked.set()
            return view.snapshot.version >= 2

        thread = threading.Thread(target=lambda: results.append(setting.store.wait(ready, 10.0)))
        thread.start()
        assert looked.wait(5.0)
        setting.store.publish((part("static"),))
        setting.store.publish((part("static"),))
        thread.join(5.0)
        assert results == [True]
        assert not setting.store.waiting

    def test_no_wake_is_lost_between_a_look_and_the_wait(self, setting):
        """The publication happens inside the look itself, after it read the old view."""
        calls = []

        def ready(view):
            calls.append(view.snapshot.version)
            if len(calls) == 1:
                setting.store.publish((part("static"),))
            return view.snapshot.version == 1

        assert setting.store.wait(ready, 5.0)
        assert calls == [0, 1]

    def test_callbacks_are_called_until_they_are_cancelled(self, setting):
        seen = []
        cancel = setting.store.on_change(lambda: seen.append(setting.store.snapshot.version))
        setting.store.publish((part("static"),))
        setting.store.wake()
        cancel()
        cancel()
        setting.store.publish((part("static"),))
        assert seen == [1, 1]

    def test_a_callback_that_fails_stops_nobody(self, setting, caplog):
        seen = []
        setting.store.on_change(lambda: 1 / 0)
        setting.store.on_change(lambda: seen.append(1))
        setting.store.publish((part("static"),))
        assert seen == [1]
        assert "ZeroDivisionError" in caplog.text
        assert setting.store.snapshot.version == 1

    def test_a_callback_may_cancel_itself(self, setting):
        seen = []

        def once():
            seen.append(1)
            cancel()

        cancel = setting.store.on_change(once)
        setting.store.wake()
        setting.store.wake()
        assert seen == [1]


class TestReaders:
    def test_a_reader_sees_whole_views_only(self, setting):
        """Every view that a reader sees has clusters that were reconciled before it was."""
        stop = threading.Event()
        wrong = []

        def read():
            while not stop.is_set():
                view = setting.store.view
                names = {(each.source, name) for each in view.snapshot.parts for name in each.clusters}
                if names and not any(names <= seen for seen in list(setting.reconciled)[-4:]):
                    wrong.append(names)

        thread = threading.Thread(target=read)
        thread.start()
        for number in range(300):
            setting.store.publish((part("xds", f"c{number}"),))
        stop.set()
        thread.join(5.0)
        assert wrong == []
