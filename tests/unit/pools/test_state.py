"""Which connections there are, who may have them and who waits: the bookkeeping alone, with connections that only say what
they are. ``tests/machine/test_pool_state.py`` goes any way through it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from meshlib.model.cluster import Cluster
from meshlib.pools.state import PoolSettings, PoolState, Waiter
from tests.support.pool_kit import FakeConnection, FakeLimits


class Caller(Waiter[FakeConnection]):
    """Counts how often it is woken."""

    def __init__(self) -> None:
        super().__init__()
        self.woken = 0

    def wake(self) -> None:
        self.woken += 1


def pool(most: int | None = None, *, multiplexed: bool = False, gone: Any = bool, **settings: Any):
    limits = FakeLimits(most)
    state: PoolState[FakeConnection] = PoolState(
        limits, PoolSettings(**settings), multiplexed=multiplexed, gone=gone
    )
    return state, limits


def wait(state, now=0.0) -> Caller:
    caller = Caller()
    state.wait(caller, now)
    return caller


def dialed(state, now=0.0, streams=1) -> FakeConnection:
    """A connection in the hands of whoever asked for it."""
    caller = wait(state, now)
    assert caller.served
    assert caller.connection is None
    connection = FakeConnection(streams)
    state.dialed(connection, now)
    return connection


def back(state, connection, now=0.0) -> bool:
    return state.put_back(connection, now, usable=connection.free())


class TestIdle:
    def test_the_youngest_is_taken_first(self):
        state, _ = pool()
        first, second = dialed(state), dialed(state)
        assert back(state, first)
        assert back(state, second)
        assert state.take(1.0) is second
        assert state.take(1.0) is first
        assert state.take(1.0) is None

    def test_one_that_rested_for_too_long_ends_and_is_counted_no_more(self):
        state, limits = pool(keepalive=5.0)
        old = dialed(state)
        back(state, old, 10.0)
        assert state.take(15.0) is None
        assert state.drain_ended() == [old]
        assert state.ended == []
        assert (state.open, limits.count) == (0, 0)

    def test_it_is_kept_until_the_moment_when_its_time_is_over(self):
        state, _ = pool(keepalive=5.0)
        connection = dialed(state)
        back(state, connection, 10.0)
        assert state.expire(14.999) == 15.0
        assert state.take(14.999) is connection

    def test_what_is_to_end_ends_without_a_call_and_the_next_time_is_told(self):
        state, limits = pool(keepalive=5.0)
        first, second = dialed(state), dialed(state)
        back(state, first, 1.0)
        back(state, second, 3.0)
        assert state.due() == 6.0
        assert state.expire(6.0) == 8.0
        assert state.drain_ended() == [first]
        assert state.expire(8.0) == float("inf")
        assert (state.open, limits.count) == (0, 0)

    def test_without_a_time_nothing_ends(self):
        state, _ = pool(keepalive=None)
        connection = dialed(state)
        back(state, connection)
        assert state.expire(1e9) == float("inf")
        assert state.take(1e9) is connection

    def test_the_endpoint_left_and_nothing_of_it_stays(self):
        gone = False
        state, limits = pool(keepalive=None, gone=lambda: gone)
        back(state, dialed(state))
        gone = True
        state.expire(1.0)
        assert len(state.drain_ended()) == 1
        assert limits.count == 0


class TestRequests:
    """Of one connection there may be so many (Envoy ``max_requests_per_connection``)."""

    def test_one_that_has_carried_them_ends(self):
        state, limits = pool(max_requests=2)
        connection = dialed(state)
        assert back(state, connection)
        assert state.take(0.0) is connection
        assert not back(state, connection)
        assert (connection.carried, state.open, limits.count) == (2, 0, 0)

    def test_whoever_waits_dials_another(self):
        state, _ = pool(1, max_requests=1)
        connection, caller = dialed(state), wait(state)
        assert not caller.served
        assert not back(state, connection)
        assert (caller.served, caller.connection) == (True, None)

    def test_one_that_is_shared_takes_no_more(self):
        state, _ = pool(multiplexed=True, max_requests=2)
        connection = dialed(state, streams=100)
        assert state.take(0.0) is connection
        assert state.take(0.0) is None
        assert back(state, connection)  # the other is on it still
        assert state.take(0.0) is None
        assert not back(state, connection)
        assert state.open == 0

    def test_no_more_are_counted_on_one_that_is_dialed(self):
        state, _ = pool(multiplexed=True, max_requests=1)
        dialed(state, streams=100)
        first, second = wait(state), wait(state)
        assert (first.served, second.served, state.dialing) == (True, True, 2)

    def test_fewer_from_now_on(self):
        state, _ = pool(max_requests=9)
        connection = dialed(state)
        back(state, connection)
        state.configure(PoolSettings(max_requests=1))
        assert state.take(0.0) is None
        assert state.drain_ended() == [connection]

    def test_a_cluster_says_it(self):
        cluster = Cluster("c", max_requests_per_connection=3)
        assert PoolSettings().within(cluster).max_requests == 3


class TestAge:
    """`max_connection_age`: a connection that is older is replaced between two calls."""

    def test_one_in_use_is_left_alone_and_not_kept_afterwards(self):
        state, limits = pool(keepalive=None, max_age=300.0)
        connection = dialed(state, 100.0)
        assert not back(state, connection, 400.0)
        assert limits.count == 0

    def test_one_that_waits_for_work_ends_at_its_age(self):
        state, _ = pool(keepalive=None, max_age=300.0)
        connection = dialed(state, 100.0)
        back(state, connection, 399.0)
        assert state.due() == 400.0
        state.expire(400.0)
        assert state.drain_ended() == [connection]

    def test_keep_alive_and_age_each_end_it(self):
        state, _ = pool(keepalive=5.0, max_age=300.0)
        young, old = dialed(state, 290.0), dialed(state, 0.0)
        back(state, young, 297.0)
        back(state, old, 298.0)
        assert state.due() == 300.0
        assert state.expire(300.0) == 302.0
        assert state.drain_ended() == [old]

    def test_an_old_one_is_not_handed_to_who_waits(self):
        state, _ = pool(1, max_age=300.0)
        connection = dialed(state)
        waiting = wait(state)
        assert not back(state, connection, 300.0)
        assert (waiting.served, waiting.connection) == (True, None), "it may dial in its place"

    def test_a_shared_one_takes_nobody_new_and_ends_with_its_last_request(self):
        state, _ = pool(multiplexed=True, max_age=300.0)
        connection = dialed(state, streams=100)
        assert state.take(299.0) is connection
        assert state.take(300.0) is None
        assert back(state, connection, 301.0)
        assert not back(state, connection, 301.0)


class TestLimits:
    def test_at_the_limit_there_is_none_but_for_an_endpoint_that_has_none(self):
        state, limits = pool(1)
        dialed(state)
        assert not wait(state).served
        other: PoolState[FakeConnection] = PoolState(limits, PoolSettings())
        assert wait(other).served, "as in Envoy"
        assert limits.count == 2

    @pytest.mark.parametrize("why", ["closed", "gone", "full", "busy", "no keep-alive"])
    def test_what_is_not_kept_is_counted_no_more(self, why):
        gone = False
        state, limits = pool(
            9,
            max_idle=0 if why == "full" else None,
            keepalive=0.0 if why == "no keep-alive" else 5.0,
            gone=lambda: gone,
        )
        connection = dialed(state)
        gone = why == "gone"
        if why == "closed":
            state.clear(0.0)
        connection.room = why != "busy"
        assert not back(state, connection)
        assert (state.open, limits.count, state.idle) == (0, 0, 0)

    @pytest.mark.parametrize("setting", [{"max_idle": 0}, {"keepalive": 0.0}])
    def test_what_would_not_be_kept_idle_goes_to_who_waits_all_the_same(self, setting):
        state, _ = pool(1, **setting)
        connection = dialed(state)
        waiting = wait(state)
        assert back(state, connection)
        assert waiting.connection is connection

    @pytest.mark.parametrize(
        ("ordered", "chosen", "opened"),
        [(None, True, 2), (None, False, 2), (50, True, 2), (50, False, 4), (3, False, 3), (1, True, 1)],
    )
    def test_the_applications_own_limit_holds_where_it_was_chosen_or_none_is_ordered(
        self, ordered, chosen, opened
    ):
        state, _ = pool(ordered, max_connections=2, chosen=chosen)
        assert sum(wait(state).served for _ in range(4)) == opened

    def test_a_limit_that_is_ordered_later_holds_from_then_on(self):
        state, limits = pool(None, max_connections=1)
        dialed(state)
        waiting = wait(state)
        assert not waiting.served
        limits.max_connections = 9
        state.serve(0.0)
        assert waiting.served

    def test_other_settings_hold_for_what_is_there(self):
        state, _ = pool(keepalive=None)
        back(state, dialed(state), 0.0)
        state.configure(PoolSettings(keepalive=2.0))
        assert state.due() == 2.0
        own = PoolSettings(max_idle=3)
        assert own.within(Cluster("c")) is own
        assert own.within(Cluster("c", idle_timeout=7.0)) == replace(own, keepalive=7.0)
        assert own.within(Cluster("c", max_connection_age=9.0)) == replace(own, max_age=9.0)


class TestTurns:
    def test_a_freed_connection_goes_to_the_longest_waiter_and_never_to_a_newcomer(self):
        state, _ = pool(1)
        connection = dialed(state)
        waiting = [wait(state) for _ in range(3)]
        for number in range(3):
            assert back(state, connection)
            assert state.take(0.0) is None, "a newcomer has to join the queue"
            assert [caller.served for caller in waiting] == [index <= number for index in range(3)]
            assert waiting[number].connection is connection
        assert [caller.woken for caller in waiting] == [1, 1, 1]
        back(state, connection)
        assert state.idle == 1

    def test_a_connection_that_is_not_kept_leaves_its_place_to_the_longest_waiter(self):
        state, limits = pool(1)
        connection = dialed(state)
        first, second = wait(state), wait(state)
        connection.room = False
        assert not back(state, connection)
        assert (first.served, first.connection, second.served) == (True, None, False)
        assert limits.count == 1

    def test_a_dial_that_failed_gives_the_next_its_turn(self):
        state, limits = pool(1)
        dialing = wait(state)
        waiting = [wait(state) for _ in range(2)]
        assert dialing.served
        state.not_dialed(0.0, failed=True)
        assert [caller.served for caller in waiting] == [True, False]
        state.not_dialed(0.0, failed=True)
        assert [caller.served for caller in waiting] == [True, True]
        state.not_dialed(0.0, failed=True)
        assert (state.open, limits.count) == (0, 0)

    @pytest.mark.parametrize("had", ["nothing", "a connection", "leave to dial"])
    def test_who_leaves_hands_its_turn_on(self, had):
        state, limits = pool(1)
        connection = dialed(state)
        first, second = wait(state), wait(state)
        if had != "nothing":
            connection.room = had == "a connection"
            back(state, connection)
            assert first.served
        state.leave(first, 0.0)
        if had == "nothing":
            back(state, connection)
        assert second.served
        assert second.connection is (None if had == "leave to dial" else connection)
        assert (limits.count, state.waiting) == (1, 0)

    def test_who_leaves_last_leaves_its_connection_idle(self):
        state, _ = pool(1)
        connection = dialed(state)
        only = wait(state)
        back(state, connection)
        state.leave(only, 0.0)
        assert (state.idle, state.open) == (1, 1)

    def test_a_connection_of_no_use_costs_a_waiter_nothing(self):
        state, _ = pool(1)
        connection = dialed(state)
        first, second = wait(state), wait(state)
        back(state, connection)
        assert first.connection is connection
        again = Caller()
        state.refuse(connection, 0.0, again)
        assert state.drain_ended() == [connection]
        assert (again.served, again.connection, second.served) == (True, None, False)

    def test_put_back_twice_is_refused_and_harms_nothing(self):
        state, limits = pool(2)
        connection = dialed(state)
        assert back(state, connection)
        with pytest.raises(RuntimeError, match=repr(connection)):
            back(state, connection)
        assert (state.idle, state.open, limits.count) == (1, 1, 1)
        assert state.take(0.0) is connection
        assert state.take(0.0) is None
        assert not state.put_back(connection, 0.0, usable=False)
        with pytest.raises(RuntimeError, match="twice"):
            state.put_back(connection, 0.0, usable=False)
        assert (state.open, limits.count) == (0, 0)

    def test_what_is_not_of_this_pool_is_refused(self):
        state, _ = pool()
        with pytest.raises(RuntimeError, match="not of this pool"):
            back(state, FakeConnection())


class TestShared:
    """HTTP/2, as it turns out once a connection is dialed."""

    def test_one_is_shared_while_it_has_room_and_then_another_is_dialed(self):
        state, _ = pool(multiplexed=True)
        connection = dialed(state, streams=3)
        assert [state.take(0.0) for _ in range(3)] == [connection, connection, None]
        assert wait(state).served

    def test_its_room_may_grow_and_shrink(self):
        state, _ = pool(1, multiplexed=True)
        connection = dialed(state, streams=2)
        connection.streams = 1
        assert state.take(0.0) is None
        connection.streams = 3
        assert state.take(0.0) is connection
        waiting = [wait(state) for _ in range(3)]
        assert [caller.connection for caller in waiting] == [connection, None, None]
        connection.streams = 9
        assert state.take(0.0) is None, "there is room, and others wait for it"
        state.serve(0.0)
        assert [caller.connection for caller in waiting] == [connection] * 3

    def test_many_wait_for_one_dial(self):
        state, limits = pool(multiplexed=True)
        callers = [wait(state) for _ in range(50)]
        assert [caller.served for caller in callers] == [True] + [False] * 49
        connection = FakeConnection(100)
        state.dialed(connection, 0.0)
        assert all(caller.connection is connection for caller in callers[1:])
        assert (limits.count, state.open) == (1, 1)
        for _ in range(50):
            back(state, connection)
        assert state.idle == 1

    def test_only_as_many_dials_as_are_needed(self):
        state, limits = pool(multiplexed=True)
        callers = [wait(state) for _ in range(250)]
        assert sum(caller.served for caller in callers) == 3
        for _ in range(3):
            state.dialed(FakeConnection(100), 0.0)
        assert all(caller.served for caller in callers)
        assert limits.count == 3

    def test_it_turns_out_to_be_http1_and_everybody_else_dials(self):
        state, _ = pool(multiplexed=True)
        callers = [wait(state) for _ in range(5)]
        state.dialed(FakeConnection(1), 0.0)
        assert [caller.served for caller in callers] == [True] * 5
        assert state.dialing == 4
        assert wait(state).served, "from now on one request is counted on for each dial"

    def test_it_turns_out_to_be_http2_where_nobody_had_said_so(self):
        state, _ = pool(1)
        connection = dialed(state, streams=100)
        assert wait(state).connection is connection

    def test_after_a_failed_dial_nobody_counts_on_anothers_until_one_succeeds(self):
        state, _ = pool(multiplexed=True)
        callers = [wait(state) for _ in range(10)]
        state.not_dialed(0.0, failed=True)
        assert all(caller.served for caller in callers), (
            "all hear of it in the time of one dial, and not one after the other"
        )
        for _ in range(8):
            state.not_dialed(0.0, failed=True)
        state.dialed(connection := FakeConnection(100), 0.0)
        assert wait(state).connection is connection

    def test_a_dial_that_its_caller_gave_up_is_the_next_ones_alone(self):
        state, _ = pool(multiplexed=True)
        callers = [wait(state) for _ in range(4)]
        state.leave(callers[0], 0.0)
        assert [caller.served for caller in callers] == [True, True, False, False]

    def test_one_that_closed_is_counted_no_more_by_the_first_who_comes_back(self):
        state, limits = pool(1, multiplexed=True)
        connection = dialed(state, streams=2)
        state.take(0.0)
        waiting = wait(state)
        connection.close()
        assert back(state, connection), "somebody else is still on it"
        assert (limits.count, waiting.served, waiting.connection) == (1, True, None)
        assert not back(state, connection)
        assert limits.count == 1, "that is the one that is being dialed"

    def test_one_that_takes_no_more_requests_is_given_to_nobody_and_ends_with_its_last(self):
        state, limits = pool(multiplexed=True)  # GOAWAY
        connection = dialed(state, streams=100)
        state.take(0.0)
        connection.room = False
        state.refuse(connection, 0.0)
        assert state.ended == []
        assert state.take(0.0) is None
        assert not back(state, connection)
        assert limits.count == 0


class TestClosed:
    def test_what_is_idle_ends_and_what_is_in_use_when_it_comes_back(self):
        state, limits = pool()
        idle, busy = dialed(state), dialed(state)
        back(state, idle)
        state.clear(0.0)
        assert state.drain_ended() == [idle]
        assert (state.open, limits.count) == (1, 1)
        assert not back(state, busy)

    def test_who_waits_or_comes_later_is_still_served(self):
        state, _ = pool(1)
        connection = dialed(state)
        waiting = wait(state)
        state.clear(0.0)
        assert not back(state, connection)
        assert (waiting.served, waiting.connection) == (True, None)
