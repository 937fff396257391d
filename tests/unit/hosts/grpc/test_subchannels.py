"""The connections of one channel: when they are made, marked, left and closed. grpc's own are stood in for: they have a state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from meshlib.config import Config
from meshlib.errors import NoHealthyEndpoint
from meshlib.hosts.grpc.settings import Settings
from meshlib.hosts.grpc.subchannel import Subchannel
from meshlib.hosts.grpc.subchannels import READY, TRANSIENT_FAILURE, Subchannels
from meshlib.hosts.grpc.target import read_target
from meshlib.model.call import OutcomeKind
from meshlib.model.events import CONNECTED, DISCONNECTED, FAILED
from meshlib.model.policy import Limits
from meshlib.runtime.worker import Worker
from meshlib.testing.clock import VirtualClock
from tests.support.live_kit import Watched, changed, cluster, endpoint, locality
from tests.support.mesh_tls import demanded

CONNECTING = 1


class Channel:
    def __init__(self, target: str, generation: int) -> None:
        self.target = target
        self.generation = generation
        self.state = CONNECTING
        self.closed = 0


class Kit:
    """Subchannels to the endpoints of one cluster."""

    def __init__(
        self,
        count: int = 1,
        *,
        hostname: str = "",
        metrics: Sequence[str] = (),
        options: Sequence[tuple[str, Any]] = (),
        **fields: Any,
    ) -> None:
        self.told: list[Any] = []
        self.streams: list[Any] = []
        members = locality(*(endpoint(number, hostname=hostname) for number in range(count)))
        self.watched = Watched(cluster(members, **fields))
        self.clock = VirtualClock()
        self.woken = 0
        self.made: list[Channel] = []
        self.rested: list[Channel] = []
        self.runtime: Any = SimpleNamespace(
            view=object(),
            clock=self.clock,
            store=SimpleNamespace(wake=self._wake),
            rests=lambda who: None,
            worker=Worker(self.clock),
            config=Config.from_mapping({"telemetry": {"metrics": metrics}}),
            emit=self.told.append,
            random=lambda: 0.5,
        )
        self.credentials: Any = None
        self.settings = Settings(options, None, None)
        self.all = self.subchannels()

    def subchannels(self) -> Subchannels[Channel]:
        """Those of one more channel."""
        return Subchannels(
            self.runtime,
            read_target("shop:80", (), secure=False),
            self.settings,
            self._make,
            lambda channel, connect: channel.state,
            self._close,
            self.clock.call_later,
            self._rest,
            self._stream,
        )

    def _stream(self, channel: Channel) -> Any:
        """Streams of load reports: who has one, and with which request."""

        def begin(request: bytes, heard: Any, ended: Any) -> Any:
            self.streams.append((channel, request))
            return lambda: self.streams.remove((channel, request))

        return begin

    def _wake(self) -> None:
        self.woken += 1

    def _make(self, target: str, options: Any, credentials: Any, compression: Any) -> Channel:
        assert (credentials, compression) == (self.credentials, None)
        self.made.append(Channel(target, dict(options).get("meshlib.generation", 0)))
        return self.made[-1]

    def _close(self, channel: Channel) -> None:
        channel.closed += 1

    def _rest(self, channel: Channel) -> None:
        """At once, where ``_close`` may leave it to a loop."""
        channel.closed += 1
        self.rested.append(channel)

    def endpoint(self, number: int = 0) -> Any:
        return self.watched.live.endpoints[number]

    def begin(
        self, number: int = 0, authority: str = "shop:80", *, of: Any = None, user: object = "call"
    ) -> Subchannel[Channel]:
        """For a call that is under way from now on."""
        attempt: Any = SimpleNamespace(
            endpoint=self.endpoint(number),
            upstream=self.watched.live,
            head=SimpleNamespace(authority=authority),
            began=self.clock.now(),
        )
        return (of or self.all).get(attempt, user)

    def get(self, *where: Any, **more: Any) -> Subchannel[Channel]:
        """For a call that is over at once."""
        sub = self.begin(*where, user="short", **more)
        del sub.users["short"]
        return sub

    def update(self, *numbers: int) -> None:
        config = self.watched.live.cluster
        self.watched.live.update(changed(config, locality(*(endpoint(number) for number in numbers))), 0.0)
        self.runtime.view = object()


def test_one_an_endpoint_is_made_on_first_use() -> None:
    kit = Kit(2)
    assert kit.get(0) is kit.get(0)
    assert kit.get(1) is not kit.get(0)
    assert [channel.target for channel in kit.made] == ["ipv4:10.0.0.0:80", "ipv4:10.0.0.1:80"]


def test_another_authority_is_another_connection() -> None:
    """A81: the endpoint's name, by a route; both serve as long as somebody may order it."""
    kit = Kit(hostname="one.example")
    own, named = kit.get(), kit.get(authority="one.example")
    assert own is not named
    for _ in range(2):
        assert (kit.get(), kit.get(authority="one.example")) == (own, named)
        kit.runtime.view = object()
    live = kit.watched.live
    live.update(changed(live.cluster, locality(endpoint(0, hostname="other.example"))), 0.0)
    kit.runtime.view = object()
    assert kit.get() is own
    kit.clock.advance(0.0)
    assert (own.channel.closed, named.channel.closed) == (0, 1)


def test_one_whose_endpoint_left_is_closed_once_its_calls_are_over() -> None:
    """A115: at once and whatever its priority was; nothing is kept for the case that it comes back."""
    kit = Kit(2)
    one, left = kit.get(0), kit.begin(1)
    kit.update(0)
    assert kit.get(0) is one
    kit.clock.advance(2.5)
    assert (one.channel.closed, left.channel.closed) == (0, 0)
    del left.users["call"]
    kit.clock.advance(1.0)
    assert (one.channel.closed, left.channel.closed) == (0, 1)


def test_one_that_could_not_connect_is_passed_over_until_it_stands() -> None:
    kit = Kit(2)
    sub, one = kit.get(), kit.endpoint()
    kit.all.unconnected(sub, "refused")
    kit.all.unconnected(sub, "refused")
    assert one.unreached == 1, "one mark a channel, however often"
    kit.clock.advance(5.0)
    assert (one.unreached, kit.woken) == (1, 0)
    sub.channel.state = READY
    kit.clock.advance(0.1)
    assert (one.unreached, kit.woken) == (0, 1)
    assert kit.clock.timers == (), "it is not looked at any more"


def test_one_that_connects_for_long_is_passed_over() -> None:
    kit = Kit(2)
    kit.get()
    kit.clock.advance(0.2)
    assert kit.endpoint().unreached == 0
    kit.clock.advance(0.1)
    assert kit.endpoint().unreached == 1


def test_one_that_fails_is_passed_over_at_the_next_look() -> None:
    kit = Kit(2)
    kit.get().channel.state = TRANSIENT_FAILURE
    kit.clock.advance(0.1)
    assert kit.endpoint().unreached == 1


CHECKS = [("grpc.service_config", '{"healthCheckConfig": {"serviceName": "s"}}')]


def test_one_whose_endpoint_does_not_serve_is_passed_over_before_a_call_meets_it() -> None:
    """A17: where health checks are ordered, one that stood is looked at as long as it is there."""
    for options in (CHECKS, ()):
        kit = Kit(2, options=options)
        sub, one = kit.get(), kit.endpoint()
        sub.channel.state = READY
        kit.clock.advance(1.0)
        assert one.unreached == 0
        sub.channel.state = TRANSIENT_FAILURE
        kit.clock.advance(0.1)
        assert one.unreached == (1 if options else 0)
        kit.clock.advance(5.0)
        assert one.unreached == (1 if options else 0)
        sub.channel.state = READY
        kit.clock.advance(0.1)
        assert (one.unreached, kit.woken) == (0, 1 if options else 0)
        kit.all.close()
        kit.clock.advance(1.0)
        assert kit.clock.timers == ()


def test_one_that_does_not_serve_is_no_failed_connection() -> None:
    kit = Kit(2, options=CHECKS, metrics=["grpc.subchannel"])
    sub = kit.get()
    kit.all.unconnected(sub, "backend unhealthy", OutcomeKind.UNHEALTHY)
    assert (kit.endpoint().unreached, kit.told) == (1, [])
    kit.all.close()


def test_a_mark_ends_with_the_channel() -> None:
    kit = Kit(2)
    kit.all.unconnected(kit.get(), "refused")
    kit.all.close()
    assert kit.endpoint().unreached == 0
    kit.clock.advance(1.0)
    assert kit.clock.timers == ()


def test_a_fork_closes_what_no_call_uses() -> None:
    kit = Kit(2)
    idle, used = kit.get(0), kit.begin(1)
    own, user = kit.all.own_for("call"), "call"
    kit.all.rest()
    assert [channel.closed for channel in kit.made] == [1, 0, 0]
    assert not used.leaving
    assert kit.get(1) is used
    assert kit.get(0) is not idle
    assert kit.all.own() is own
    del own.users[user]
    kit.all.rest()
    assert own.channel.closed == 1
    assert kit.all.own() is not own


def test_a_call_that_finds_its_channel_closed_by_a_fork_takes_another(monkeypatch) -> None:
    kit = Kit()
    asked = kit.all.own
    found: list[Subchannel[Channel]] = []

    def own() -> Subchannel[Channel]:
        found.append(asked())
        if len(found) == 1:
            kit.all.rest()
        return found[-1]

    monkeypatch.setattr(kit.all, "own", own)
    assert kit.all.own_for("call") is found[1]
    assert found[0].channel.closed == 1
    assert (found[0].users, list(found[1].users)) == ({}, ["call"])


def test_one_that_is_closed_while_it_is_found_is_not_given(monkeypatch) -> None:
    """By a fork, or by another call that found it too old."""
    kit = Kit(1, max_connection_age=300.0)
    found: list[Subchannel[Channel]] = []
    current = kit.all._current

    def closes(attempt: Any) -> Subchannel[Channel]:
        sub = current(attempt)
        found.append(sub)
        if len(found) == 1:
            kit.all.rest()
        elif len(found) == 2:
            kit.clock.advance(300.0)
            kit.get()
            kit.clock.advance(0.0)
        return sub

    monkeypatch.setattr(kit.all, "_current", closes)
    given = kit.begin()
    assert [channel.closed for channel in kit.made] == [1, 1, 0]
    assert given.channel is kit.made[2]
    assert [list(sub.users) for sub in found[:2]] == [[], []]
    assert list(given.users) == ["call"]


class TestAge:
    """`max_connection_age`: a connection that is older is replaced between two calls."""

    def test_an_older_one_gives_way_and_its_calls_end_in_peace(self) -> None:
        kit = Kit(1, max_connection_age=300.0)
        old = kit.begin()
        kit.clock.advance(299.9)
        assert kit.get() is old
        kit.clock.advance(0.1)
        young = kit.get()
        assert young is not old
        kit.clock.advance(5.0)
        assert (old.channel.closed, kit.get()) == (0, young)
        del old.users["call"]
        kit.clock.advance(1.0)
        assert (old.channel.closed, young.channel.closed) == (1, 0)

    def test_it_is_another_connection_for_grpc_which_channels_still_share(self) -> None:
        kit = Kit(1, max_connection_age=300.0)
        other = kit.subchannels()
        kit.get()
        kit.clock.advance(200.0)
        late = kit.get(of=other)
        kit.clock.advance(100.0)
        kit.get()
        assert kit.get(of=other) is not late, "it was that of the other, which is as old"
        first, second, third, fourth = (channel.generation for channel in kit.made)
        assert first == second != 0
        assert third == fourth != first

    def test_without_one_it_lives_on(self) -> None:
        kit = Kit()
        sub = kit.get()
        sub.channel.state = READY
        kit.clock.advance(1e6)
        assert kit.get() is sub
        assert sub.channel.generation == 0

    def test_it_holds_as_the_configuration_is_now(self) -> None:
        kit = Kit()
        sub = kit.get()
        kit.clock.advance(50.0)
        live = kit.watched.live
        for age, same in ((51.0, True), (None, True), (49.0, False)):
            live.update(replace(live.cluster, max_connection_age=age), 0.0)
            kit.runtime.view = object()
            assert (kit.get() is sub) is same

    def test_a_change_of_how_many_there_may_be_makes_another(self) -> None:
        """What grpc was told when its channel was made holds for that (A105)."""
        kit = Kit()
        old, live = kit.get(), kit.watched.live
        for limits, same in ((Limits(), True), (Limits(max_connections_per_endpoint=3), False)):
            live.update(replace(live.cluster, limits=limits), 0.0)
            kit.runtime.view = object()
            assert (kit.get() is old) is same
        kit.clock.advance(0.0)
        assert old.channel.closed == 1

    def test_one_that_is_replaced_while_it_could_not_connect_is_no_mark_any_more(self) -> None:
        kit = Kit(2, max_connection_age=300.0)
        old = kit.begin()
        kit.all.unconnected(old, "refused")
        kit.clock.advance(300.0)
        kit.get().channel.state = READY
        kit.all.unconnected(old, "refused")
        kit.clock.advance(0.1)
        assert kit.endpoint().unreached == 0


def test_one_that_is_replaced_is_not_looked_at_any_more_and_ends_at_once() -> None:
    """Not by a task: the loop may not run before the process forks, and grpc's threads would live on."""
    kit = Kit()
    first = kit.get()  # it connects, and is looked at
    kit.watched.live.update(
        replace(kit.watched.live.cluster, limits=Limits(max_connections_per_endpoint=3)), 0.0
    )
    kit.runtime.view = object()
    second = kit.get()
    assert second is not first
    kit.clock.advance(0.05)
    assert kit.rested == [first.channel]
    asked: list[Channel] = []
    kit.all._state = lambda channel, connect: asked.append(channel) or CONNECTING
    kit.clock.advance(0.2)
    assert set(asked) == {second.channel}


def test_once_closed_none_is_made() -> None:
    kit = Kit(2)
    kit.get(0), kit.all.own()
    kit.all.close()
    assert [channel.closed for channel in kit.made] == [1, 1]
    for ask in (
        kit.get,
        kit.all.own,
        lambda: kit.all.own_for("call"),
        lambda: kit.all.own_state(connect=True),
    ):
        with pytest.raises(ValueError, match="closed channel"):
            ask()
    with pytest.raises(ValueError, match="closed channel"):
        kit.all.connect(kit.endpoint(), kit.watched.live, "shop")
    assert len(kit.made) == 2
    assert not kit.all.connected(Subchannel(kit.made[0], None, None))


def test_TLS_that_is_demanded_and_cannot_be_had_is_an_error() -> None:
    kit = Kit()
    one = kit.endpoint()
    one.tls = demanded("no such file")
    with pytest.raises(NoHealthyEndpoint, match=r"demands TLS, which cannot be had: .*no such file"):
        kit.get()
    with pytest.raises(NoHealthyEndpoint, match="no such file"):
        kit.all.connect(one, kit.watched.live, "shop:80")
    assert not kit.made


def test_what_is_idle_and_not_as_the_mesh_demands_now_is_closed() -> None:
    """Not where the application's own credentials hold, whatever the mesh demands."""
    for credentials, closed in ((None, [1, 0]), (grpc.ssl_channel_credentials(), [0, 0])):
        kit = Kit(2)
        kit.credentials = credentials
        kit.settings = Settings((), credentials, None)
        kit.all = kit.subchannels()
        kit.get(0)
        kit.get(1)
        kit.endpoint(0).tls = demanded("no such file")
        kit.runtime.view = object()
        assert kit.get(1).channel is kit.made[1]
        kit.clock.advance(0.0)
        assert [channel.closed for channel in kit.made] == closed
        if credentials is not None:
            assert kit.get(0).channel is kit.made[0]


# --- who observes connections (gRFC A94) ---------------------------------------------------------------------------------


def told(kit: Kit) -> list[tuple[str, str]]:
    return [(event.change, event.error) for event in kit.told]


def test_observers_are_told_of_connections_that_stand_and_break() -> None:
    kit = Kit(metrics=["grpc.subchannel"])
    sub = kit.get()
    kit.clock.advance(0.1)
    assert told(kit) == []
    sub.channel.state = READY
    kit.clock.advance(5.0)
    assert told(kit) == [(CONNECTED, "")]
    assert (kit.told[0].target, kit.told[0].cluster, kit.told[0].secure) == ("dns:///shop:80", "c", False)
    sub.channel.state = 0  # idle: it is not to connect anew before a call wants it
    kit.clock.advance(5.0)
    assert told(kit) == [(CONNECTED, ""), (DISCONNECTED, "unknown")]
    kit.get().channel.state = READY
    kit.clock.advance(0.1)
    assert told(kit)[2:] == [(CONNECTED, "")]
    kit.all.close()
    assert told(kit)[3:] == [(DISCONNECTED, "subchannel shutdown")]
    kit.clock.advance(1.0)
    assert kit.clock.timers == ()


def test_one_that_fails_again_and_again_has_failed_once() -> None:
    kit = Kit(metrics=["grpc.client.tls.handshakes"])
    sub = kit.get()
    sub.channel.state = TRANSIENT_FAILURE
    for _ in range(3):
        kit.all.unconnected(sub, "refused")
        kit.clock.advance(1.0)
    assert told(kit) == [(FAILED, "refused")]
    sub.channel.state = READY
    kit.clock.advance(0.1)
    kit.all.unconnected(sub, "gone")
    assert told(kit)[1:] == [(CONNECTED, ""), (DISCONNECTED, "unknown"), (FAILED, "gone")]


def test_nobody_who_did_not_ask_is_told_of_connections() -> None:
    kit = Kit()
    sub = kit.get()
    kit.all.unconnected(sub, "refused")
    sub.channel.state = READY
    kit.clock.advance(0.1)
    kit.all.close()
    assert kit.told == []
