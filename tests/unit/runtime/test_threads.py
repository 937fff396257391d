from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from meshlib.runtime.threads import DEAF_TO, FIRST, PAUSE, SLICE, GiveWay, join, start

STOPS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD, signal.SIGALRM}


def mask() -> set[int]:
    return signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_a_thread_and_what_it_starts_take_no_signal_of_the_process() -> None:
    found: list[set[int]] = []

    def inner() -> None:
        found.append(mask())

    def outer() -> None:
        found.append(mask())
        child = threading.Thread(target=inner)
        child.start()
        child.join()

    thread = threading.Thread(target=outer)
    start(thread)
    thread.join()
    assert len(found) == 2
    for blocked in found:
        assert blocked >= STOPS
        assert not blocked & {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGPROF}


@given(st.sets(st.sampled_from(sorted(DEAF_TO - {signal.SIGKILL, signal.SIGSTOP}))))
def test_the_callers_mask_is_its_own(own: set[int]) -> None:
    before = signal.pthread_sigmask(signal.SIG_SETMASK, own)
    try:
        thread = threading.Thread(target=lambda: None)
        start(thread)
        thread.join()
        assert mask() == own
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_a_signal_goes_to_a_thread_that_wants_it() -> None:
    got: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda *_: got.append(threading.get_ident()))
    over = threading.Event()
    threads = [threading.Thread(target=over.wait) for _ in range(5)]
    try:
        for thread in threads:
            start(thread)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert got == [threading.main_thread().ident]
    finally:
        over.set()
        signal.signal(signal.SIGUSR1, before)
        for thread in threads:
            thread.join()


def test_long_work_pauses_when_a_slice_is_over_and_not_before() -> None:
    now, pauses = 100.0, []

    def sleep(seconds: float) -> None:
        nonlocal now
        pauses.append((round(now, 6), seconds))
        now += 0.01  # others take their time

    give_way = GiveWay(lambda: now, sleep)
    give_way()
    steps = int(100 * (FIRST / SLICE + 9)) + 1
    for _ in range(steps):
        now += SLICE / 100
        give_way()
    assert len(pauses) == 10
    assert {seconds for _, seconds in pauses} == {PAUSE}
    begun = [100.0, *(at + 0.01 for at, _ in pauses)]
    slices = [later - earlier for earlier, (later, _) in zip(begun, pauses, strict=False)]
    assert FIRST * 0.99 <= slices[0] <= FIRST * 1.02
    assert all(SLICE * 0.99 <= each <= SLICE * 1.02 for each in slices[1:])


def test_other_work_begins_without_a_pause() -> None:
    now, pauses = 100.0, []
    give_way = GiveWay(lambda: now, pauses.append)
    for _ in range(10):
        give_way()
        now += 0.9 * FIRST  # it is short
        give_way()
        now += 0.1
    assert pauses == []


def test_a_thread_that_was_joined_is_gone_for_the_kernel_too() -> None:
    for _ in range(300):
        thread = threading.Thread(target=lambda: None)
        start(thread)
        assert join(thread, 10.0)
        assert not Path(f"/proc/self/task/{thread.native_id}").exists()


def test_a_thread_that_goes_on_is_not_waited_for_beyond_the_timeout() -> None:
    go_on = threading.Event()
    thread = threading.Thread(target=go_on.wait)
    start(thread)
    assert not join(thread, 0.01)
    go_on.set()
    assert join(thread, 10.0)
