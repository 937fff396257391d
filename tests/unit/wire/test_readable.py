from __future__ import annotations

import select
import socket
import sys
import types

import pytest

from meshlib.wire.readable import new_poll, readable


@pytest.fixture(params=["poll", "select"], autouse=True)
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "select":
        monkeypatch.delattr(select, "poll", raising=False)


def test_there_is_something_to_read_or_the_end_of_all() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert not readable(ours.fileno())
        theirs.send(b"x")
        assert readable(ours.fileno())
        ours.recv(1)
        assert not readable(ours.fileno())
        theirs.close()
        assert readable(ours.fileno())


def test_a_socket_that_is_closed_is_readable() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    ours.close()
    assert readable(ours.fileno())


def test_where_gevent_has_replaced_select_the_systems_own_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkey = types.ModuleType("gevent.monkey")
    monkey.is_module_patched = lambda name: name == "select"  # type: ignore[attr-defined]
    monkey.get_original = lambda module, name: lambda: (module, name)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gevent.monkey", monkey)
    assert new_poll() == ("select", "poll")
