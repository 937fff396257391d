"""pybreaker's objects behind our permits: what they hear, what they keep, and that they cannot hurt a call."""

import logging
import threading
from datetime import UTC, datetime, timedelta

import pybreaker

from meshlib.core.upstream import PickContext, Refusal
from meshlib.model.policy import Breaker
from meshlib.runtime.pybreaker_bridge import POLL
from tests.support.live_kit import CANCELLED, ERROR, OK, REFUSED, Watched, flat

CONTEXT = PickContext()


def watched(**fields):
    fields = {"consecutive_failures": 2, "open_for": 10.0, **fields}
    return Watched(flat(2, breaker=Breaker(**fields)))


def call(cluster, outcome=OK, now=None):
    """Whether a call was let through."""
    if now is not None:
        cluster.now = now
    pick = cluster.live.pick(CONTEXT, cluster.now)
    if isinstance(pick, Refusal):
        return False
    pick.report(outcome, cluster.now)
    pick.release(cluster.now)
    return True


def state(cluster):
    return cluster.live.status(cluster.now).breaker


def settle(cluster):
    assert cluster.live._breakers.one._bridge.idle(10)


class Listener(pybreaker.CircuitBreakerListener):
    def __init__(self):
        self.heard = []

    def before_call(self, cb, func, *args, **kwargs):
        self.heard.append(("before", cb.name))

    def success(self, cb):
        self.heard.append(("success", cb.current_state))

    def failure(self, cb, exc):
        self.heard.append(("failure", str(exc)))

    def state_change(self, cb, old_state, new_state):
        self.heard.append((old_state.name, new_state.name))


# --- listeners --------------------------------------------------------------------------------------------------------


def test_a_listener_hears_what_pybreaker_would_tell():
    listener = Listener()
    cluster = watched(listeners=(listener,))
    call(cluster, OK)
    call(cluster, ERROR)
    call(cluster, REFUSED)
    assert not call(cluster)
    call(cluster, OK, 10.0)
    before = ("before", "c")
    assert listener.heard == [
        before,
        ("success", "closed"),
        before,
        ("failure", "status 500"),
        before,
        ("failure", "connect"),
        ("closed", "open"),
        ("open", "half-open"),
        before,
        ("success", "closed"),
        ("half-open", "closed"),
    ]


def test_cancelled_calls_are_not_told():
    listener = Listener()
    cluster = watched(listeners=(listener,))
    call(cluster, CANCELLED)
    assert listener.heard == [("before", "c")]


def test_a_listener_gets_the_callers_error():
    error = ConnectionError("no route")
    seen = []

    class Keeps(pybreaker.CircuitBreakerListener):
        def failure(self, cb, exc):
            seen.append((exc, cb.fail_counter, cb.fail_max, cb.reset_timeout, cb.success_threshold))

    cluster = watched(listeners=(Keeps(),))
    pick = cluster.live.pick(CONTEXT, 0.0)
    pick.report(type(REFUSED)(REFUSED.kind, error=error), 0.0)
    assert seen == [(error, 1, 2, 10.0, 1)]


def test_a_listener_that_raises_is_logged_and_fails_no_call(caplog):
    class Broken(pybreaker.CircuitBreakerListener):
        def before_call(self, cb, func, *args, **kwargs):
            raise RuntimeError("broken listener")

        success = failure = state_change = before_call

    good = Listener()
    cluster = watched(listeners=(Broken(), good))
    with caplog.at_level(logging.ERROR, "meshlib"):
        assert call(cluster, ERROR)
        assert call(cluster, ERROR)
    assert "broken listener" in caplog.text
    assert ("closed", "open") in good.heard
    assert state(cluster) == "open"


def test_a_listener_may_move_the_breaker_and_looks_at_it():
    moved = []

    class Moves(pybreaker.CircuitBreakerListener):
        def failure(self, cb, exc):
            moved.append((isinstance(cb, pybreaker.CircuitBreaker), cb.state.name, cb.listeners == (self,)))
            cb.open()

        def state_change(self, cb, old_state, new_state):
            moved.append((old_state.name, new_state.name))

    cluster = watched(listeners=(Moves(),), consecutive_failures=100)
    call(cluster, ERROR)
    assert state(cluster) == "open"
    assert moved == [(True, "closed", True), ("closed", "open")]
    assert not call(cluster, now=9.0)
    cluster.live._breakers.one._bridge._face.close()
    assert state(cluster) == "closed"
    cluster.live._breakers.one._bridge._face.half_open()
    assert state(cluster) == "half_open"


# --- the memory storage -----------------------------------------------------------------------------------------------


def test_a_memory_storage_keeps_up():
    storage = pybreaker.CircuitMemoryStorage(pybreaker.STATE_CLOSED)
    cluster = watched(storage=storage)
    call(cluster, ERROR)
    assert (storage.counter, storage.state) == (1, "closed")
    call(cluster, OK)
    assert storage.counter == 0
    call(cluster, ERROR)
    call(cluster, ERROR)
    assert (storage.counter, storage.state) == (2, "open")
    assert abs((datetime.now(UTC) - storage.opened_at).total_seconds()) < 60
    call(cluster, OK, 10.0)
    assert (storage.state, storage.counter, storage.success_counter) == ("closed", 0, 0)


def test_successes_while_half_open_are_kept():
    storage = pybreaker.CircuitMemoryStorage(pybreaker.STATE_CLOSED)
    cluster = watched(storage=storage, success_threshold=2)
    call(cluster, ERROR)
    call(cluster, ERROR)
    call(cluster, OK, 10.0)
    assert (storage.state, storage.success_counter) == ("half-open", 1)


def test_two_breakers_share_a_storage():
    storage = pybreaker.CircuitMemoryStorage(pybreaker.STATE_CLOSED)
    one, other = watched(storage=storage), watched(storage=storage)
    call(one, ERROR)
    call(other, ERROR)  # the second failure in a row, over both
    assert not call(one)
    assert not call(other)
    assert (state(one), state(other)) == ("open", "open")
    storage.state = pybreaker.STATE_CLOSED
    storage.reset_counter()
    assert call(one)
    assert call(other)


def test_a_storage_that_is_open_already_opens_a_new_breaker_for_what_is_left():
    storage = pybreaker.CircuitMemoryStorage(pybreaker.STATE_OPEN)
    storage.opened_at = datetime.now(UTC) - timedelta(seconds=4)
    cluster = watched(storage=storage)
    assert not call(cluster, now=0.0)
    assert not call(cluster, now=1.0)
    assert call(cluster, now=6.0)
    storage = pybreaker.CircuitMemoryStorage(pybreaker.STATE_OPEN)
    storage.opened_at = (datetime.now(UTC) - timedelta(hours=6)).replace(tzinfo=None)  # naive, long ago
    assert call(watched(storage=storage))


def test_a_storage_with_an_unknown_state_changes_nothing():
    storage = pybreaker.CircuitMemoryStorage("broken")
    assert call(watched(storage=storage))


# --- storages elsewhere -----------------------------------------------------------------------------------------------


class Remote(pybreaker.CircuitMemoryStorage):
    """Not the memory storage itself, hence treated as one that is far away. Says which threads touch it; may be made
    to raise or to hang.
    """

    def __init__(self, initial=pybreaker.STATE_CLOSED):
        self.threads = set()
        self.fails = False
        self.gate = threading.Event()
        self.gate.set()
        super().__init__(initial)

    def _touched(self):
        self.threads.add(threading.current_thread().name)
        if not self.gate.wait(20):
            raise TimeoutError
        if self.fails:
            raise ConnectionError("storage is away")

    def increment_counter(self):
        self._touched()
        super().increment_counter()

    def reset_counter(self):
        self._touched()
        super().reset_counter()

    @property
    def state(self):
        self._touched()
        return self._state

    @state.setter
    def state(self, state):
        self._touched()
        self._state = state


def test_no_call_touches_a_storage_that_may_be_slow():
    storage = Remote()
    cluster = watched(storage=storage)
    storage.gate.clear()  # it hangs from here
    for now in range(20):
        call(cluster, OK, float(now))
    assert call(cluster, ERROR)
    assert call(cluster, ERROR)
    assert not call(cluster)  # the local state decides
    storage.gate.set()
    settle(cluster)
    assert (storage._state, storage._fail_counter) == ("open", 2)
    assert storage.threads == {"meshlib-breaker-storage"}
    # Nothing left to do: the thread ends.
    for thread in threading.enumerate():
        if thread.name == "meshlib-breaker-storage":
            thread.join(10)
            assert not thread.is_alive()


def test_a_storage_that_fails_fails_no_call(caplog):
    storage = Remote()
    storage.fails = True
    cluster = watched(storage=storage)
    with caplog.at_level(logging.WARNING, "meshlib"):
        assert call(cluster, ERROR)
        assert call(cluster, ERROR)
        settle(cluster)
        assert not call(cluster)
        assert call(cluster, OK, 10.0)
        settle(cluster)
    assert state(cluster) == "closed"
    assert [record.message for record in caplog.records if "storage is away" in record.message] != []
    assert len(caplog.records) == 1


def test_what_another_process_did_is_learned_at_the_next_look():
    storage = Remote()
    cluster = watched(storage=storage)
    call(cluster)
    settle(cluster)
    storage._state, storage._opened_at = "open", datetime.now(UTC)
    assert call(cluster, now=POLL / 2)  # not asked again yet
    call(cluster, now=POLL)
    settle(cluster)
    assert not call(cluster)
    assert state(cluster) == "open"
    storage._state = "closed"
    call(cluster, now=3.0)
    settle(cluster)
    assert call(cluster)


def test_failures_of_all_processes_count_together():
    storage = Remote()
    cluster = watched(storage=storage, consecutive_failures=3)
    storage._fail_counter = 2  # two of others'
    call(cluster, ERROR)
    settle(cluster)
    assert not call(cluster)
    settle(cluster)
    assert storage._state == "open"


def test_a_look_that_is_older_than_the_last_change_is_not_believed():
    storage = Remote()
    cluster = watched(storage=storage)
    storage.gate.clear()
    call(cluster, OK, 0.0)  # asks; the answer "closed" is on its way
    call(cluster, ERROR)
    call(cluster, ERROR)
    assert state(cluster) == "open"
    storage.gate.set()
    settle(cluster)
    assert state(cluster) == "open"
    assert storage._state == "open"


def test_what_waits_for_a_storage_is_bounded():
    storage = Remote()
    cluster = watched(storage=storage, consecutive_failures=10**6)
    storage.gate.clear()
    for _ in range(2000):
        call(cluster, ERROR)
    assert len(cluster.live._breakers.one._bridge._work._jobs) <= 256
    storage.gate.set()
    settle(cluster)


def test_what_is_no_storage_is_not_used(caplog):
    with caplog.at_level(logging.ERROR, "meshlib"):
        cluster = watched(storage=object())
    assert "no pybreaker storage" in caplog.text
    assert call(cluster)
