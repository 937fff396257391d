"""The bookkeeping of a pool against a model of it: any row of callers, dials, ends, settings and times.

The model knows who came when, who holds what and what is being dialed. What must hold after each step: nobody is passed over,
no connection has more holders than room, nothing is counted that is not there, and nobody waits while something is to be had.
At the end everything comes back, and nothing is left.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from meshlib.pools.state import PoolSettings, PoolState, Waiter
from tests.support.pool_kit import FakeConnection, FakeLimits


class PoolMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.queue: list[Any] = []  # who waits, in the order of coming
        self.dialing: list[Any] = []
        self.held: list[tuple[Any, FakeConnection]] = []
        self.connections: list[FakeConnection] = []
        self.gone = False

    @initialize(
        most=st.none() | st.integers(1, 4),
        own=st.none() | st.integers(1, 3),
        chosen=st.booleans(),
        max_idle=st.none() | st.integers(0, 2),
        keepalive=st.none() | st.sampled_from([0.0, 5.0]),
        max_age=st.none() | st.just(20.0),
        multiplexed=st.booleans(),
    )
    def begin(self, most, own, chosen, max_idle, keepalive, max_age, multiplexed):
        self.limits = FakeLimits(most)
        self.settings = PoolSettings(own, chosen, max_idle, keepalive, max_age)
        self.state: PoolState[FakeConnection] = PoolState(
            self.limits, self.settings, multiplexed=multiplexed, gone=lambda: self.gone
        )

    def caller(self) -> Any:
        machine = self

        class Caller(Waiter[FakeConnection]):
            def wake(self) -> None:
                assert machine.queue[0] is self, "somebody who came later has its turn"
                machine.queue.pop(0)
                if self.connection is None:
                    machine.dialing.append(self)
                else:
                    machine.hold(self, self.connection)

        return Caller()

    def hold(self, caller: Any, connection: FakeConnection) -> None:
        holders = sum(other is connection for _, other in self.held)
        assert holders == 0 or holders < connection.streams, "more than it has room for"
        self.held.append((caller, connection))

    # --- callers ------------------------------------------------------------------------------------------------------

    @rule()
    def come(self):
        connection = self.state.take(self.now)
        if connection is not None:
            assert not self.queue, "a newcomer has what others wait for"
            self.hold(None, connection)
            return
        caller = self.caller()
        self.queue.append(caller)
        self.state.wait(caller, self.now)

    @precondition(lambda self: self.queue)
    @rule(data=st.data())
    def give_up_waiting(self, data):
        caller = self.queue.pop(data.draw(st.integers(0, len(self.queue) - 1)))
        self.state.leave(caller, self.now)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def give_up_a_turn(self, data):
        index = data.draw(st.integers(0, len(self.held) - 1))
        caller, connection = self.held[index]
        if caller is not None and caller.connection is connection:
            del self.held[index]
            self.state.leave(caller, self.now)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def find_it_of_no_use(self, data):
        """As with GOAWAY, or a peer that closed it: the caller stays at the head of the queue."""
        _, connection = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        connection.room = False
        caller = self.caller()
        self.queue.insert(0, caller)
        self.state.refuse(connection, self.now, caller)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), ends=st.sampled_from(["well", "well", "well", "closed", "no more"]))
    def come_back(self, data, ends):
        _, connection = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        connection.room = connection.room and ends != "no more"
        if ends == "closed":
            connection.close()
        others = any(other is connection for _, other in self.held)
        kept = self.state.put_back(connection, self.now, usable=connection.free())
        assert kept or not others
        if not kept:
            connection.close()

    @precondition(lambda self: self.connections)
    @rule(data=st.data())
    def come_back_twice(self, data):
        connection = data.draw(st.sampled_from(self.connections))
        if all(other is not connection for _, other in self.held):
            before = (self.state.open, self.state.idle, self.limits.count)
            with pytest.raises(RuntimeError, match="twice"):
                self.state.put_back(connection, self.now, usable=True)
            assert (self.state.open, self.state.idle, self.limits.count) == before

    # --- dials --------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.dialing)
    @rule(data=st.data(), streams=st.sampled_from([1, 1, 2, 5]))
    def dial(self, data, streams):
        caller = self.dialing.pop(data.draw(st.integers(0, len(self.dialing) - 1)))
        connection = FakeConnection(streams)
        self.connections.append(connection)
        self.held.append((caller, connection))
        self.state.dialed(connection, self.now)

    @precondition(lambda self: self.dialing)
    @rule(data=st.data(), how=st.sampled_from(["failed", "interrupted", "given up"]))
    def do_not_dial(self, data, how):
        caller = self.dialing.pop(data.draw(st.integers(0, len(self.dialing) - 1)))
        if how == "given up":
            self.state.leave(caller, self.now)
        else:
            self.state.not_dialed(self.now, failed=how == "failed")

    # --- what happens by itself ---------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1.0, 4.0, 6.0, 30.0]))
    def time_passes(self, seconds):
        self.now += seconds
        due = self.state.expire(self.now)
        assert due > self.now

    @precondition(lambda self: self.held)
    @rule(data=st.data(), streams=st.integers(0, 5))
    def its_room_changes(self, data, streams):
        _, connection = data.draw(st.sampled_from(self.held))
        if connection.streams > 1:
            connection.streams = streams
            self.state.serve(self.now)

    @rule(most=st.none() | st.integers(1, 4))
    def the_limit_changes(self, most):
        self.limits.max_connections = most
        self.state.serve(self.now)

    @rule(gone=st.booleans())
    def the_endpoint_leaves_or_comes(self, gone):
        self.gone = gone

    @rule()
    def close(self):
        self.state.clear(self.now)
        assert self.state.idle == 0

    # --- what must hold -----------------------------------------------------------------------------------------------

    @invariant()
    def nothing_is_counted_that_is_not_there(self):
        for connection in self.state.drain_ended():
            assert all(other is not connection for _, other in self.held), "somebody has what ended"
            connection.close()
        assert self.state.waiting == len(self.queue)
        assert self.state.dialing == len(self.dialing)
        assert self.state.open == self.limits.count
        there = {connection for _, connection in self.held}
        assert self.state.idle + len(self.dialing) <= self.state.open
        assert self.state.open <= len(there) + self.state.idle + len(self.dialing)

    @invariant()
    def nobody_waits_while_something_is_to_be_had(self):
        if not self.queue:
            return
        assert self.state.idle == 0
        assert self.state.open > 0, "an endpoint may always have one"
        most, limits = self.settings.max_connections, self.limits
        counted = most is not None and (self.settings.chosen or limits.max_connections is None)
        full = (counted and self.state.open >= most) or (
            limits.max_connections is not None and limits.count >= limits.max_connections
        )
        assert full or self.dialing, "there is a place, and nobody dials"

    def teardown(self):
        if not hasattr(self, "state"):
            return
        while self.held or self.dialing or self.queue:
            if self.dialing:
                self.dialing.pop()
                self.state.not_dialed(self.now, failed=True)
            elif self.held:
                _, connection = self.held.pop()
                if not self.state.put_back(connection, self.now, usable=False):
                    connection.close()
            else:
                raise AssertionError("they wait for ever")
        self.state.clear(self.now)
        for connection in self.state.drain_ended():
            connection.close()
        assert (self.state.open, self.limits.count) == (0, 0)
        assert all(connection.closed for connection in self.connections), "one is lost, and open"


TestPool = PoolMachine.TestCase
