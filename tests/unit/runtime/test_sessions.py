"""What a process remembers of sessions whose names endpoints chose."""

from __future__ import annotations

import threading

from meshlib.runtime.sessions import Sessions

HERE = ("c", "10.0.0.1:80")


def test_the_one_that_was_not_asked_for_the_longest_goes_first() -> None:
    known = Sessions(most=3)
    for name in "abc":
        known.keep("l", name, HERE, 0.0, 60.0)
    assert known.find("l", "a", 1.0) == HERE
    known.keep("l", "d", HERE, 2.0, 60.0)
    assert [known.find("l", name, 3.0) is not None for name in "abcd"] == [True, False, True, True]
    assert len(known) == 3


def test_a_session_is_of_its_service() -> None:
    known = Sessions()
    known.keep("one", "a", HERE, 0.0, 60.0)
    assert known.find("other", "a", 1.0) is None
    assert known.find("on", "e\0a", 1.0) is None


def test_no_name_is_kept() -> None:
    known = Sessions()
    known.keep("l", "a-secret", HERE, 0.0, 60.0)
    assert "a-secret" not in repr(known._known)


def test_a_child_knows_what_was_known_though_somebody_holds_the_lock() -> None:
    known = Sessions()
    known.keep("l", "a", HERE, 0.0, 60.0)
    with known._lock:
        child = Sessions(known)
        assert child.find("l", "a", 1.0) == HERE
    child.keep("l", "b", HERE, 1.0, 60.0)
    assert known.find("l", "b", 2.0) is None


def test_many_threads() -> None:
    known = Sessions(most=100)

    def work(number: int) -> None:
        for step in range(2000):
            known.keep("l", f"{number}-{step % 50}", ("c", str(number)), float(step), 1e6)
            found = known.find("l", f"{number}-{step % 50}", float(step))
            assert found is None or found == ("c", str(number))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(known) <= 100
