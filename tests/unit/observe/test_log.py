from __future__ import annotations

import logging

import pytest

from meshlib.model.call import CallInfo
from meshlib.model.events import (
    BreakerChanged,
    CallEnded,
    ConfigurationChanged,
    EndpointEjected,
    EndpointReturned,
    Event,
    SourceChanged,
    Unanswered,
)
from meshlib.model.status import Ignored, SourceStatus
from meshlib.observe.log import MOST_IGNORED, Log


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "meshlib")
    return caplog


def lines(said: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    found = [(record.levelname, record.getMessage()) for record in said.records]
    said.clear()
    return found


def log(*statuses: SourceStatus) -> Log:
    return Log(lambda: statuses)


def tell(observer: Log, *events: Event) -> None:
    for event in events:
        observer(event)


def test_a_source_that_starts(said: pytest.LogCaptureFixture) -> None:
    tell(
        log(),
        SourceChanged("xds", "connecting"),
        SourceChanged("xds", "ready"),
        SourceChanged("static", "ready"),
    )
    assert lines(said) == [
        ("DEBUG", "meshlib: source xds: connecting"),
        ("INFO", "meshlib: source xds is ready"),
        ("DEBUG", "meshlib: source static is ready"),
    ]


def test_an_outage_is_a_warning_at_its_begin_and_at_its_end(said: pytest.LogCaptureFixture) -> None:
    observer = log()
    away = SourceChanged("xds", "stale", "connection refused")
    tell(observer, SourceChanged("xds", "ready"), away, away)
    tell(observer, SourceChanged("xds", "stale", "timeout"), SourceChanged("xds", "ready"))
    assert lines(said) == [
        ("INFO", "meshlib: source xds is ready"),
        ("WARNING", "meshlib: source xds: connection refused; the last good state serves"),
        ("INFO", "meshlib: source xds: timeout; the last good state serves"),
        ("WARNING", "meshlib: source xds is back"),
    ]


def test_a_source_that_never_was_good(said: pytest.LogCaptureFixture) -> None:
    tell(log(), SourceChanged("xds", "failed", "no such host"))
    assert lines(said) == [("WARNING", "meshlib: source xds: no such host")]


def test_a_source_that_starts_again_after_a_fork_is_no_outage(said: pytest.LogCaptureFixture) -> None:
    observer = log()
    states = ["ready", "idle", "stale", "ready"]
    tell(observer, *(SourceChanged("xds", state) for state in states))
    assert "WARNING" not in [level for level, _ in lines(said)]


def test_ejections_and_breakers(said: pytest.LogCaptureFixture) -> None:
    tell(
        log(),
        EndpointEjected("reviews", "10.0.0.1:80", "5 consecutive 5xx", 30.0),
        EndpointReturned("reviews", "10.0.0.1:80"),
        BreakerChanged("reviews", "closed", "open"),
        BreakerChanged("reviews", "open", "half_open"),
        BreakerChanged("reviews", "half_open", "closed"),
    )
    assert lines(said) == [
        ("WARNING", "meshlib: cluster reviews: 10.0.0.1:80 is ejected for 30 s: 5 consecutive 5xx"),
        ("INFO", "meshlib: cluster reviews: 10.0.0.1:80 is back from its ejection"),
        ("WARNING", "meshlib: cluster reviews: the breaker was closed and is open"),
        ("INFO", "meshlib: cluster reviews: the breaker was open and is half_open"),
        ("INFO", "meshlib: cluster reviews: the breaker was half_open and is closed"),
    ]


def test_a_setting_that_is_not_honoured_is_said_once(said: pytest.LogCaptureFixture) -> None:
    ignored = (Ignored("reviews", "cluster", "lrs_server", "{}"), Ignored("", "bootstrap", "admin", "dict"))
    observer = log(SourceStatus("file", "file", ignored=ignored))
    tell(observer, ConfigurationChanged(1), ConfigurationChanged(2))
    assert lines(said) == [
        ("WARNING", "meshlib: source file: cluster 'reviews': lrs_server is not honoured"),
        ("WARNING", "meshlib: source file: bootstrap: admin is not honoured"),
    ]


def test_what_is_not_honoured_cannot_flood_the_log(said: pytest.LogCaptureFixture) -> None:
    ignored = tuple(Ignored(f"c{n}", "cluster", "f", "") for n in range(MOST_IGNORED * 3))
    observer = log(SourceStatus("xds", "xds", ignored=ignored))
    tell(observer, ConfigurationChanged(1), ConfigurationChanged(2))
    found = lines(said)
    assert len(found) == MOST_IGNORED + 1
    assert found[-1] == (
        "WARNING",
        f"meshlib: source xds: more than {MOST_IGNORED} settings are not honoured; Mesh.status() has all",
    )


def test_calls_are_not_logged(said: pytest.LogCaptureFixture) -> None:
    tell(log(), CallEnded(CallInfo("mesh")))
    assert lines(said) == []


def test_a_call_that_nobody_answered_for_is_said_once(said: pytest.LogCaptureFixture) -> None:
    event = Unanswered("reviews", "direct", "the control plane is not reachable: reviews is called directly")
    observer = log()
    tell(observer, event, event)
    ((level, line),) = lines(said)
    assert level == "WARNING"
    assert line.startswith(
        "meshlib: a call to reviews: the control plane is not reachable: reviews is called "
    )
