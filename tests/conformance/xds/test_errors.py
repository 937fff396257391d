"""Errors, refusals and deletion: ER-01 to ER-12, in both protocols."""

from __future__ import annotations

import sys

import pytest

from meshlib.testing import build
from meshlib.xds import schema
from meshlib.xds.bootstrap import Feature
from tests.conformance.support.ads import failure, needs, routed
from tests.support.xds_kit import bad, message

SECONDS = 0.8
NOT_FOUND, PERMISSION_DENIED, UNAVAILABLE = 5, 7, 14
KEEP, FAIL = Feature.IGNORE_RESOURCE_DELETION, Feature.FAIL_ON_DATA_ERRORS
TYPES = ("listener", "route", "cluster", "endpoint")


def wrong(short):
    """The same resource of target ``a``, as it is refused."""
    return {
        "listener": build.api_listener("a", "r-a", manager={"http_filters": []}),
        "route": build.route_config(
            "r-a", build.virtual_host("a", {"match": {}, "route": {"cluster": "c-a"}})
        ),
        "cluster": bad("c-a"),
        "endpoint": build.endpoints("c-a", build.locality("10.0.0.1:1", priority=3)),
    }[short]


@pytest.fixture
def serving(control):
    """A function that makes a control plane, of a server with these features, that serves the target ``a``."""

    def make(*features):
        plane = control("a", features=features)
        plane.connect()
        plane.serve("a")
        plane.asked()
        return plane

    return make


class TestRefused:
    def test_what_is_good_beside_it_is_in_force(self, control):
        """ER-01."""
        plane = control("a", "b")
        plane.connect()
        plane.serve("a", "b")
        plane.send("cluster", bad("c-a"), build.cluster("c-b", connect_timeout=7))
        assert plane.part.clusters["c-b"].connect_timeout == 7
        assert (plane.target("a"), plane.target("b")) == ("10.0.0.1:80", "10.0.0.1:80")

    @pytest.mark.parametrize("short", TYPES)
    def test_a_bad_update_leaves_what_was_there(self, serving, short):
        """ER-02."""
        plane = serving()
        plane.send(short, wrong(short))
        assert plane.asked(short)[0].kind == "nack"
        assert plane.target("a") == "10.0.0.1:80"
        plane.advance(100.0)
        assert plane.target("a") == "10.0.0.1:80"

    @pytest.mark.parametrize("short", TYPES)
    def test_a_bad_first_version_fails_calls_in_words(self, control, short):
        """ER-02: at once, and until a good one comes."""
        plane = control("a")
        plane.connect()
        for each in TYPES[: TYPES.index(short)]:
            plane.send(each, needs("a")[each])
        plane.send(short, wrong(short))
        if short in ("listener", "route"):
            assert plane.target("a") == "unusable"
            assert "was refused: " in plane.part.absent["a"].why
        elif short == "cluster":
            assert "was refused: " in plane.target("a")
        else:
            assert plane.target("a") == "nobody"
            assert plane.part.clusters["c-a"].unassigned.startswith(
                "its assignment 'c-a' was refused: endpoints"
            )
            assert [each.type for each in plane.status.rejected] == ["endpoint"]
        for each in TYPES[TYPES.index(short) :]:
            plane.send(each, needs("a")[each])
        assert plane.target("a") == "10.0.0.1:80"
        assert plane.part.clusters["c-a"].unassigned == ""

    def test_the_same_good_version_ends_the_error(self, serving):
        """ER-09: also after an outage."""
        plane = serving()
        plane.send("cluster", bad("c-a"))
        assert [each.resource for each in plane.status.rejected] == ["c-a"]
        plane.end("gone")
        plane.advance(SECONDS)
        plane.end("gone for long")
        assert (plane.status.state, plane.status.last_error) == ("stale", "gone for long")
        plane.advance(SECONDS * 1.6)
        plane.connect()
        plane.send("cluster", needs("a")["cluster"])
        assert (plane.status.rejected, plane.status.state, plane.status.last_error) == ((), "ready", "")

    def test_a_decoder_that_breaks_is_a_refusal(self, serving, monkeypatch):
        """ER-11: the stream goes on."""
        plane = serving()
        monkeypatch.setattr(sys.modules["meshlib.xds.decode.endpoint"], "_group", lambda *_: 1 / 0)
        plane.send("endpoint", build.endpoints("c-a", "10.0.0.2:80"))
        assert "ZeroDivisionError" in plane.asked("endpoint")[0].error
        monkeypatch.undo()
        plane.send("endpoint", build.endpoints("c-a", "10.0.0.2:80"))
        assert plane.target("a") == "10.0.0.2:80"

    @pytest.mark.parametrize(
        ("seconds", "nanos"),
        [(-1, 0), (315_576_000_001, 0), (1, -1), (1, 1_000_000_000), (2**63 - 1, 0), (-(2**63), 0)],
    )
    def test_a_duration_that_is_none(self, serving, seconds, nanos):
        """ER-12."""
        plane = serving()
        cluster = message(build.cluster("c-a"))
        cluster.connect_timeout.seconds, cluster.connect_timeout.nanos = seconds, nanos
        made = schema.pack(cluster)
        plane.send("cluster", ("c-a", made) if plane.protocol == "delta" else made)
        assert "connect_timeout" in plane.asked("cluster")[0].error

    def test_unknown_unable_and_who_may_pass(self, serving):
        """ER-10: a field that is not known is passed over, a value that cannot be done refused, and a guard refused."""
        plane = serving()
        plane.send("cluster", build.cluster("c-a", alt_stat_name="x"))
        assert plane.asked("cluster")[0].kind == "ack"
        plane.send("cluster", build.cluster("c-a", lb_policy="LOAD_BALANCING_POLICY_CONFIG"))
        assert plane.asked("cluster")[0].kind == "nack"
        guard = {
            "name": "rbac",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
                "rules": {},
            },
        }
        plane.send("listener", build.api_listener("a", "r-a", filters=[guard]))
        assert plane.asked("listener")[0].kind == "nack"
        assert plane.target("a") == "10.0.0.1:80"


class TestDeleted:
    @pytest.mark.parametrize(
        ("features", "kept"),
        [
            pytest.param((), False, id="neither"),
            pytest.param((KEEP,), True, id="ignore_resource_deletion"),
            pytest.param((FAIL,), False, id="fail_on_data_errors"),
            pytest.param((KEEP, FAIL), False, id="both"),
        ],
    )
    @pytest.mark.parametrize("short", ["listener", "cluster"])
    def test_a_listener_or_a_cluster(self, serving, short, features, kept):
        """ER-03, ER-04, DV-02: beside fail_on_data_errors the older feature says nothing."""
        plane = serving(*features)
        plane.delete(short, "a" if short == "listener" else "c-a")
        plane.advance(2.0)
        gone = "absent" if short == "listener" else "was deleted by the server"
        assert plane.target("a") == ("10.0.0.1:80" if kept else gone)
        plane.serve("a")
        assert plane.target("a") == "10.0.0.1:80"

    @pytest.mark.parametrize("short", TYPES)
    def test_a_refused_update_takes_away_what_was_there_where_the_server_says_so(self, serving, short):
        """ER-04."""
        plane = serving(FAIL)
        plane.send(short, wrong(short))
        plane.advance(2.0)
        assert plane.target("a") != "10.0.0.1:80"
        plane.serve("a")
        assert plane.target("a") == "10.0.0.1:80"


class TestTold:
    @pytest.mark.parametrize("code", [NOT_FOUND, PERMISSION_DENIED])
    def test_the_server_says_why_there_is_none(self, control, code):
        """ER-05: nobody waits; and it is used should it come."""
        plane = control("a")
        plane.connect()
        plane.send("listener", errors=[failure("a", code, "not for you")])
        assert plane.asked("listener")[0].kind == "ack"
        assert plane.target("a") == ("absent" if code == NOT_FOUND else "unanswered")
        assert "not for you" in plane.part.absent["a"].why
        plane.serve("a")
        assert plane.target("a") == "10.0.0.1:80"

    @pytest.mark.parametrize("short", TYPES)
    @pytest.mark.parametrize(
        ("code", "features", "kept"),
        [
            (NOT_FOUND, (), True),
            (NOT_FOUND, (FAIL,), False),
            (PERMISSION_DENIED, (FAIL,), False),
            (UNAVAILABLE, (FAIL,), True),
        ],
    )
    def test_what_is_here_stays_unless_the_server_takes_it_away(self, serving, short, code, features, kept):
        """ER-04, ER-05, ER-06: a listener or a cluster that only has an error is not missing either."""
        plane = serving(*features)
        name = {"listener": "a", "route": "r-a"}.get(short, "c-a")
        plane.send(short, errors=[failure(name, code, "why")])
        plane.advance(2.0)
        assert plane.asked(short)[0].kind == "ack"
        assert (plane.target("a") == "10.0.0.1:80") is kept
        plane.serve("a")
        assert plane.target("a") == "10.0.0.1:80"

    @pytest.mark.parametrize("error", [failure("", NOT_FOUND), failure("a", 0)], ids=["no name", "OK"])
    def test_an_error_that_says_nothing_is_refused(self, serving, error):
        """ER-05."""
        plane = serving()
        plane.send("endpoint", errors=[error])
        assert (
            plane.asked("endpoint")[0].error
            == "endpoint: resource_errors[0]: must have the name of a resource and a code other than OK"
        )

    def test_it_is_told_until_something_else_is_known(self, control):
        """ER-05: a later stream does not forget it."""
        plane = control("a", "b")
        plane.connect()
        plane.send("listener", errors=[failure("a", NOT_FOUND, "first")])
        plane.end("gone")
        plane.advance(SECONDS)
        plane.connect()
        plane.advance(20.0)
        assert "first" in plane.part.absent["a"].why
        plane.send("listener", errors=[failure("a", NOT_FOUND, "second")])
        assert "second" in plane.part.absent["a"].why


class TestOutages:
    def test_an_error_of_the_stream_takes_nothing_away(self, serving):
        """ER-07, CA-01: however long."""
        plane = serving()
        for _ in range(20):
            plane.end("UNAVAILABLE: refused")
            plane.advance(121.0)
        assert plane.status.state == "stale"
        assert plane.target("a") == "10.0.0.1:80"
        assert {short: count for short, count in plane.status.resources.items() if count} == dict.fromkeys(
            TYPES, 1
        )

    def test_a_new_cluster_of_what_is_in_force_while_it_is_away(self, serving):
        """ER-07: what a route in force names and never came is not waited for."""
        plane = serving()
        plane.send("route", routed("a", "new"))
        plane.end("gone")
        plane.advance(SECONDS)
        plane.end("gone")
        assert plane.target("a") == "10.0.0.1:80"
