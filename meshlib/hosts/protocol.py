"""What a library that applications call with brings to the call engine: two small things, and no loop.

A :class:`Host` reads the library's requests and makes its responses; it is stateless, one object a library. A :class:`Wire`
(:class:`AsyncWire`) moves the bytes of one client's calls in one process, or in one event loop. The engine
(:mod:`meshlib.hosts.run`, :mod:`meshlib.hosts.run_async`) does everything else: who carries the call, discovery, policies,
retries, deadlines, events, ends. docs/reference/hosts.md shows a whole host.

``Q`` and ``R`` are the library's own requests and responses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from meshlib.hosts.errors import ErrorTable

if TYPE_CHECKING:
    from meshlib.core.attempt import Send
    from meshlib.core.effects import Call, Direct
    from meshlib.core.exchange import Place
    from meshlib.core.resolution import Resolution
    from meshlib.hosts.body import OpenCall
    from meshlib.model.call import CallInfo, Response
    from meshlib.model.headers import Headers
    from meshlib.model.policy import RetryPolicy
    from meshlib.pools.bounds import Bounds
    from meshlib.runtime.clock import Clock

__all__ = ["Arrived", "AsyncWire", "ErrorTable", "Host", "Wire"]

Q = TypeVar("Q")
R = TypeVar("R")
Q_contra = TypeVar("Q_contra", contravariant=True)


class Arrived(NamedTuple):
    """The head of a response. ``protocol``: ``"1.1"``, ``"2"``, …; ``peer``: ``host:port``, of a direct call."""

    status: int
    headers: Headers | None
    protocol: str = "1.1"
    peer: str = ""


class Host(Protocol[Q_contra, R]):
    """One library. Stateless; used by any number of threads."""

    @property
    def errors(self) -> ErrorTable: ...

    def place(self, request: Q_contra) -> Place:
        """What the request is for."""
        ...

    def read(
        self, request: Q_contra, clock: Clock, retry: RetryPolicy | None, resolution: Resolution
    ) -> Call:
        """The request as a plan reads it: see :func:`meshlib.hosts.asking.ask`. ``retry``: what the client was told to make
        where nobody orders any.
        """
        ...

    def content(self, request: Q_contra) -> bytes | None:
        """The body of the request, b"" for none; None: it is not at hand whole. Reads nothing, never raises."""
        ...

    def arrived(self, response: R) -> Arrived:
        """The head of a response."""
        ...

    def deliver(self, request: Q_contra, response: R, /, headers: Headers | None, call: OpenCall) -> R:
        """The response for the caller: with ``headers`` in place of its own where they are edited (else None). It must
        hold ``call`` and end it when its body is read, given up or broken.
        """
        ...

    def direct(self, request: Q_contra, response: R, /, info: CallInfo | None) -> R:
        """The response of a call that went to its URL as it is; ``info`` None: meshlib is not to be seen."""
        ...

    def reply(self, request: Q_contra, response: Response, /, info: CallInfo | None) -> R:
        """A reply made locally: a redirect, a direct response, a failure told as a response."""
        ...


class Wire(Protocol[Q_contra, R]):
    """How one client's calls leave, in one process. Used by many threads at once."""

    def send(self, request: Q_contra, attempt: Send, bounds: Bounds) -> R:
        """One attempt, up to its response's head: what ``attempt.head`` says, to ``attempt.endpoint``."""
        ...

    def direct(self, request: Q_contra, call: Direct, bounds: Bounds) -> R:
        """The call by the library's own means, with what observers made of its lines (``call.changes``); where ``call.head`` is
        None as if meshlib were not there.
        """
        ...

    def discard(self, response: R) -> None:
        """The response is not wanted: what is small and at hand is drained, so that its connection can be kept."""
        ...

    def close(self) -> None:
        """Close what is idle now, and what is in use when it is done."""
        ...


class AsyncWire(Protocol[Q_contra, R]):
    """The same, in one event loop."""

    async def send(self, request: Q_contra, attempt: Send, bounds: Bounds) -> R: ...

    async def direct(self, request: Q_contra, call: Direct, bounds: Bounds) -> R: ...

    async def discard(self, response: R) -> None: ...

    async def aclose(self) -> None: ...
