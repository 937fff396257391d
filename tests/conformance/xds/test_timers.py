"""What does not come: EX-01 to EX-08, in both protocols."""

from __future__ import annotations

from meshlib.testing import build
from meshlib.xds.bootstrap import Feature
from tests.conformance.support.ads import needs, routed
from tests.support.xds_kit import bad

SECONDS = 0.8


def test_the_time_runs_from_when_the_request_was_written(control):
    """EX-01: not while the stream connects, and not while the next try is waited for."""
    plane = control("a", "b")
    plane.advance(60.0)
    plane.end("refused")
    plane.advance(SECONDS)
    plane.connect()
    plane.send("listener", needs("b")["listener"])
    plane.advance(14.9)
    assert plane.target("a") == ""
    plane.advance(0.2)
    assert plane.target("a") == "absent"


def test_it_stays_subscribed_and_is_used_when_it_comes(control):
    """EX-02: the calls of a route without its cluster fail meanwhile."""
    plane = control("a")
    plane.connect()
    plane.send("listener", needs("a")["listener"])
    plane.send("route", needs("a")["route"])
    plane.advance(15.1)
    assert "does not exist: the server did not send it within 15 s" in plane.target("a")
    plane.asked()
    plane.advance(100.0)
    assert plane.asked() == []
    plane.send("cluster", needs("a")["cluster"])
    plane.send("endpoint", needs("a")["endpoint"])
    assert plane.target("a") == "10.0.0.1:80"


def test_a_stream_that_breaks_begins_it_anew(control):
    """EX-03."""
    plane = control("a", "b")
    plane.connect()
    plane.send("listener", needs("b")["listener"])
    plane.advance(14.0)
    plane.end("gone")
    plane.advance(14.0)
    assert plane.target("a") == ""
    plane.connect()
    plane.send("listener", needs("b")["listener"])
    plane.advance(14.9)
    assert plane.target("a") == ""
    plane.advance(0.2)
    assert plane.target("a") == "absent"


def test_what_is_here_needs_not_come_again(control):
    """EX-04: a server that says nothing on a new stream takes nothing away."""
    plane = control("a")
    plane.connect()
    plane.serve("a")
    plane.end("gone")
    plane.advance(SECONDS)
    plane.connect()
    plane.advance(100.0)
    assert plane.target("a") == "10.0.0.1:80"


def test_what_was_refused_exists(control):
    """EX-05: it is wrong, and not absent; also when its time would be over."""
    plane = control("a")
    plane.connect()
    plane.send("listener", build.api_listener("a", "r", manager={"http_filters": []}))
    assert plane.target("a") == "unusable"
    plane.advance(20.0)
    assert plane.target("a") == "unusable"
    assert "was refused" in plane.part.absent["a"].why


def test_a_name_that_goes_and_returns_loses_nothing_that_came(control):
    """EX-06: before anything is written; no time runs for it either."""
    plane = control("a")
    plane.connect()
    plane.serve("a")
    plane.asked()
    plane.streams[
        -1
    ].ears._answering = True  # a response is being dealt with, and nothing is written before its answer
    plane.bench.merge.forget("a")
    plane.want("a")
    plane.send("endpoint", needs("a")["endpoint"])
    assert plane.target("a") == "10.0.0.1:80"
    plane.advance(100.0)
    assert plane.target("a") == "10.0.0.1:80"
    assert [each.type for each in plane.asked()] == ["endpoint"]


def test_where_silence_is_a_transient_error(control):
    """EX-07: 30 s, and then nothing is known; not that there is none."""
    plane = control("a", "b", features=[Feature.RESOURCE_TIMER_IS_TRANSIENT_ERROR])
    plane.connect()
    plane.send("listener", needs("b")["listener"])
    plane.advance(29.9)
    assert plane.target("a") == ""
    plane.advance(0.2)
    assert plane.target("a") == "unanswered"
    assert "did not answer within 30 s" in plane.part.absent["a"].why


def test_one_that_does_not_come_fails_no_other(control):
    """EX-08: of each type."""
    plane = control("a", "b", "c", "d")
    plane.connect()
    plane.send("listener", *(needs(each)["listener"] for each in "bcd"))
    plane.send("route", *(needs(each)["route"] for each in "cd"))
    plane.send("cluster", needs("d")["cluster"])
    plane.advance(15.1)
    plane.send("endpoint", needs("d")["endpoint"])
    assert [plane.target(each) for each in "abd"] == ["absent", "unusable", "10.0.0.1:80"]
    assert "did not send it within 15 s" in plane.target("c")


def test_each_name_has_its_own_time(control):
    """EX-01: one that is wanted later has its own 15 s."""
    plane = control("a", "b")
    plane.connect()
    plane.send("listener", needs("b")["listener"])
    plane.advance(10.0)
    plane.want("c")
    plane.advance(5.1)
    assert (plane.target("a"), plane.target("c")) == ("absent", "")
    plane.advance(10.0)
    assert plane.target("c") == "absent"


def test_nobody_waits_for_a_cluster_that_was_refused(control):
    """EX-05, ER-02: calls to it fail, with what is wrong; those to others are served."""
    plane = control("a", "b")
    plane.connect()
    plane.send("listener", needs("a")["listener"], needs("b")["listener"])
    plane.send("route", routed("a", "one"), routed("b", "two"))
    plane.send("cluster", bad("one"), build.cluster("two"))
    plane.send("endpoint", build.endpoints("two", "10.0.0.2:80"))
    assert "was refused: " in plane.target("a")
    assert plane.target("b") == "10.0.0.2:80"
