from __future__ import annotations

from meshlib.model.snapshot import Part
from meshlib.sources.base import Source, State
from tests.support.sources_kit import Bench


class Told(Source):
    """A source that says what it is told to."""

    def __init__(self, name, sink, *, first=None):
        super().__init__(name, name, sink)
        self.first = first
        self.journal = []

    def open(self, inherited):
        self.journal.append(("open", inherited))
        if self.first is not None:
            self.sink.publish(self.first)

    def start(self):
        self.journal.append("start")

    def stop(self):
        self.journal.append("stop")

    def want(self, name, authority):
        self.journal.append(("want", name, authority))

    def forget(self, name):
        self.journal.append(("forget", name))


def three(merge, bench):
    bench.told = {name: Told(name, merge) for name in ("xds", "static", "file")}
    return list(bench.told.values())


def test_parts_come_in_the_order_of_precedence_whoever_spoke_first():
    bench = Bench(three)
    for name in ("xds", "file", "static"):
        bench.merge.publish(Part(name))
        bench.step()
    assert [part.source for part in bench.published[-1]] == ["static", "file", "xds"]


def test_what_is_there_at_once_is_the_first_row_and_posts_nothing():
    bench = Bench(lambda merge, bench: [Told("static", merge, first=Part("static"))], start=False)
    assert [part.source for part in bench.published[0]] == ["static"]
    assert bench.worker.run_due() is None
    assert len(bench.published) == 1


def test_several_publications_in_one_round_are_one():
    bench = Bench(three)
    before = len(bench.published)
    for _ in range(10):
        bench.merge.publish(Part("xds"))
    bench.merge.publish(Part("static"))
    bench.step()
    assert len(bench.published) == before + 1


def test_the_same_part_again_is_no_change():
    bench = Bench(three)
    part = Part("xds")
    bench.merge.publish(part)
    bench.step()
    before = len(bench.published)
    bench.merge.publish(part)
    bench.step()
    assert len(bench.published) == before


def test_a_part_replaces_only_its_own():
    bench = Bench(three)
    static, first, second = Part("static"), Part("xds"), Part("xds", absent=frozenset({"a"}))
    bench.merge.publish(static)
    bench.merge.publish(first)
    bench.step()
    bench.merge.publish(second)
    bench.step()
    assert bench.published[-1] == (static, second)
    assert bench.published[-1][0] is static


def test_a_source_that_says_nothing_any_more_is_gone():
    bench = Bench(three)
    bench.merge.publish(Part("file"))
    bench.merge.publish(Part("xds"))
    bench.step()
    bench.merge.withdraw("file")
    bench.step()
    assert [part.source for part in bench.published[-1]] == ["xds"]


def test_what_a_parent_left_serves_until_its_source_speaks():
    left = Part("xds", absent=frozenset({"gone"}))
    bench = Bench(three, inherited=[left, Part("registry")])
    assert bench.published[0] == (left,)
    assert bench.told["xds"].journal[0] == ("open", left)
    assert bench.told["static"].journal[0] == ("open", None)


def test_every_source_hears_of_wanted_names_and_is_stopped_last_first():
    bench = Bench(three)
    bench.merge.want("reviews", "reviews:80")
    bench.merge.forget("reviews")
    order = []
    for name, source in bench.told.items():
        assert source.journal[2:] == [("want", "reviews", "reviews:80"), ("forget", "reviews")]
        source.stop = lambda name=name: order.append(name)
    bench.merge.stop()
    assert order == ["file", "static", "xds"]


class TestState:
    """The rules of an outage, which every source shares (CA-01)."""

    def make(self):
        bench = Bench(lambda merge, bench: [Told("xds", merge)])
        return bench, bench.merge.sources[0]

    def test_trouble_before_anything_good_is_failure(self):
        bench, source = self.make()
        source.begin()
        source.trouble("refused")
        assert source.state is State.FAILED
        assert bench.changes == [("xds", "connecting", ""), ("xds", "failed", "refused")]

    def test_trouble_after_something_good_is_staleness(self):
        bench, source = self.make()
        source.begin()
        source.good()
        source.trouble("gone")
        assert bench.status("xds").state == "stale"
        assert bench.status("xds").last_error == "gone"
        source.good()
        assert bench.status("xds").state == "ready"
        assert bench.status("xds").last_error == ""

    def test_since_counts_from_the_change_of_state_not_of_words(self):
        bench, source = self.make()
        source.trouble("one")
        bench.step(10.0)
        source.trouble("two")
        assert bench.status("xds").since == 10.0
        assert bench.status("xds").last_error == "two"

    def test_the_same_again_tells_nobody(self):
        bench, source = self.make()
        source.trouble("one")
        before = len(bench.changes)
        source.trouble("one")
        assert len(bench.changes) == before

    def test_having_been_good_is_remembered_over_a_stop(self):
        _, source = self.make()
        source.good()
        source.rest()
        assert source.state is State.IDLE
        source.begin()
        assert source.state is State.STALE
