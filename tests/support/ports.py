"""Ports for the servers of tests, on loopback."""

from __future__ import annotations

import random
import socket
from collections.abc import Sequence
from contextlib import ExitStack

__all__ = ["Ports", "free_port"]

_TRIES = 100


class Ports:
    """Ports that nobody else is given at any of ``hosts``, addresses of loopback: each stays bound (not listening) with
    SO_REUSEPORT, as Envoy binds.
    """

    def __init__(self, count: int, hosts: Sequence[str] = ("127.0.0.1",)) -> None:
        self._stack = ExitStack()
        try:
            self.numbers = [self._held(hosts) for _ in range(count)]
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._stack.close()

    def _held(self, hosts: Sequence[str]) -> int:
        for _ in range(_TRIES):
            with ExitStack() as stack:
                port = 0  # a free one at the first address; it may be somebody's at the next
                try:
                    for host in hosts:
                        held = stack.enter_context(socket.socket())
                        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                        held.bind((host, port))
                        port = held.getsockname()[1]
                except OSError:
                    if not port:
                        raise
                    continue
                self._stack.push(stack.pop_all())
                return port
        raise AssertionError(f"no port is free at all of {', '.join(hosts)}")


def free_port() -> int:
    """For a program that binds it itself and alone, or that has to find it again after it was down. It is from below those
    that the system gives away: from among these it could become the local end of somebody's connection meanwhile, even of
    the client's own attempt to reach the program.
    """
    for _ in range(_TRIES):
        port = random.randrange(20000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port from 20000 to 32000")
