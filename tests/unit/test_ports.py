"""The ports that servers of tests are given."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

import pytest

from tests.support.ports import Ports, free_port

HOSTS = ("127.0.0.1", "127.0.0.2", "127.1.2.3")


def test_a_held_port_is_nobodys_at_any_of_the_addresses() -> None:
    with contextlib.closing(Ports(3, HOSTS)) as held:
        assert len(set(held.numbers)) == 3
        for port in held.numbers:
            for host in (*HOSTS, "0.0.0.0"):
                with socket.socket() as other, pytest.raises(OSError, match="in use"):
                    other.bind((host, port))
    with socket.socket() as other:
        other.bind(("0.0.0.0", held.numbers[0]))


def test_a_port_that_is_somebodys_at_another_address_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.ExitStack() as stack:
        taken = stack.enter_context(socket.socket())
        taken.bind(("127.0.0.2", 0))
        number = taken.getsockname()[1]
        given = iter((number, 0))

        class Socket(socket.socket):
            def bind(self, address: tuple[str, int]) -> None:  # type: ignore[override]
                host, port = address
                super().bind((host, next(given) if host == HOSTS[0] else port))

        monkeypatch.setattr("tests.support.ports.socket.socket", Socket)
        held = Ports(1, HOSTS)
        stack.callback(held.close)
        assert held.numbers != [number]
        assert next(given, None) is None, "both were tried"


def test_a_free_port_is_none_of_those_that_the_system_gives() -> None:
    given = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
    assert free_port() < int(given.split()[0])
