"""What an endpoint says of its load beside calls: OR-02."""

from __future__ import annotations

from typing import Any

import pytest

from meshlib.core.loads import Metrics
from meshlib.hosts.grpc.out_of_band import LoadStream
from meshlib.testing import VirtualClock
from meshlib.xds import schema
from tests.support.live_kit import Watched, flat

REQUEST = schema.message("xds.service.orca.v3.OrcaLoadReportRequest")
REPORT = schema.message("xds.data.orca.v3.OrcaLoadReport")(named_metrics={"q": 2.0}).SerializeToString()


class Stream:
    def __init__(self, request: bytes, heard: Any, ended: Any) -> None:
        self.every = REQUEST.FromString(request).report_interval.ToNanoseconds() / 1e9
        self.heard = heard
        self.ended = ended
        self.cancelled = 0

    def cancel(self) -> None:
        self.cancelled += 1


class Kit:
    """A load stream to the only endpoint of a live cluster."""

    def __init__(self) -> None:
        self.live = Watched(flat(1)).live
        self.clock = VirtualClock()
        self.made: list[Stream] = []
        self.told: list[Any] = []
        self.stream = LoadStream(
            self.live.loads, self.live.endpoints[0], self._begin, self.clock.call_later, lambda: 0.5
        )

    def _begin(self, request: bytes, heard: Any, ended: Any) -> Any:
        self.made.append(Stream(request, heard, ended))
        return self.made[-1].cancel

    def hear(self, every: float) -> Any:
        return self.live.loads.hear(lambda endpoint, metrics: self.told.append((endpoint, metrics)), every)


@pytest.fixture
def kit() -> Kit:
    return Kit()


def test_or_02_there_is_none_as_long_as_nobody_asks(kit: Kit) -> None:
    assert kit.made == []
    cancel = kit.live.loads.hear(lambda endpoint, metrics: None)  # with answers
    assert kit.made == []
    cancel()


def test_or_02_who_asks_is_told(kit: Kit) -> None:
    kit.hear(10.0)
    [stream] = kit.made
    assert stream.every == 10.0
    stream.heard(REPORT)
    stream.heard(b"\xff")
    assert kit.told == [(kit.live.endpoints[0], Metrics(0.0, 0.0, 0.0, 0.0, 0.0, {"q": 2.0}))]


def test_or_02_the_shortest_interval_holds_and_another_begins_anew(kit: Kit) -> None:
    kit.hear(10.0)
    kit.hear(30.0)
    assert len(kit.made) == 1
    shortest = kit.hear(5.0)
    first, second = kit.made
    assert (first.cancelled, second.every, second.cancelled) == (1, 5.0, 0)
    first.heard(REPORT)
    first.ended(False)
    assert kit.told == []
    shortest()
    assert [stream.every for stream in kit.made] == [10.0, 5.0, 10.0]
    assert second.cancelled == 1


def test_or_02_nobody_asks_any_more(kit: Kit) -> None:
    cancel = kit.hear(10.0)
    cancel()
    assert kit.made[0].cancelled == 1
    kit.made[0].ended(False)
    kit.clock.advance(1000.0)
    assert len(kit.made) == 1
    kit.hear(10.0)
    assert len(kit.made) == 2


def test_or_02_a_server_without_the_service_is_not_asked_again(kit: Kit) -> None:
    kit.hear(10.0)
    kit.made[0].ended(True)
    kit.clock.advance(1000.0)
    kit.hear(5.0)
    assert len(kit.made) == 1


def test_or_02_other_errors_back_off_until_a_report_came(kit: Kit) -> None:
    """ST-04's delays."""
    kit.hear(10.0)
    for number, delay in enumerate((1.0, 1.6, 2.56), 1):
        kit.made[-1].ended(False)
        kit.clock.advance(delay - 0.01)
        assert len(kit.made) == number
        kit.clock.advance(0.02)
        assert len(kit.made) == number + 1
    kit.made[-1].heard(REPORT)
    kit.made[-1].ended(False)
    kit.clock.advance(1.01)
    assert len(kit.made) == 5


def test_or_02_with_answers_and_beside_calls_are_never_both(kit: Kit) -> None:
    with_answers: list[Any] = []
    kit.live.loads.hear(lambda endpoint, metrics: with_answers.append(metrics))
    kit.hear(10.0)
    kit.made[0].heard(REPORT)
    assert (len(kit.told), len(with_answers)) == (1, 0)


def test_it_ends_with_its_subchannel(kit: Kit) -> None:
    kit.hear(10.0)
    kit.stream.close()
    assert kit.made[0].cancelled == 1
    kit.made[0].ended(False)
    kit.hear(5.0)
    kit.clock.advance(1000.0)
    assert len(kit.made) == 1


def test_a_stream_that_ends_while_it_begins() -> None:
    kit = Kit()
    inner = kit._begin

    def begin(request: bytes, heard: Any, ended: Any) -> Any:
        cancel = inner(request, heard, ended)
        ended(False)  # before it is known how to cancel it
        return cancel

    kit.stream._begin = begin  # type: ignore[assignment]
    kit.hear(10.0)
    assert kit.made[0].cancelled == 1
    kit.clock.advance(1.01)
    assert len(kit.made) == 2
