from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator

import pytest

from meshlib.runtime.known import Known


class Thing:
    pass


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads take turns at every chance."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_each_is_there_once_and_goes_when_nobody_has_it() -> None:
    known, one, other = Known[Thing](), Thing(), Thing()
    for thing in (one, other, one):
        known.add(thing)
    assert set(known) == {one, other}
    assert len(list(known)) == 2
    del other, thing
    gc.collect()
    assert list(known) == [one]


def test_what_comes_meanwhile_is_not_seen() -> None:
    known, kept = Known[Thing](), [Thing() for _ in range(3)]
    for thing in kept[:2]:
        known.add(thing)
    seen = []
    for thing in known:
        known.add(kept[2])
        seen.append(thing)
    assert seen == kept[:2]


def test_threads_add_and_drop_while_others_look(hasty: None) -> None:
    """As meshes are made and collected while a process forks. A WeakSet raises RuntimeError here."""
    known, kept = Known[Thing](), [Thing() for _ in range(2000)]
    for thing in kept:
        known.add(thing)
    over = threading.Event()

    def make() -> None:
        while not over.is_set():
            some = [Thing() for _ in range(50)]
            for thing in some:
                known.add(thing)

    threads = [threading.Thread(target=make) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(30):
            assert set(kept) <= set(known)
    finally:
        over.set()
        for thread in threads:
            thread.join()
