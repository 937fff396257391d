"""A control plane that is polled, served to the session as a stream would: by REST (``protocol = "rest"``, `meshlib.sources.rest`), or
by the unary methods of its services (``"fetch"``, `meshlib.sources.fetch`). What is asked when is decided here, the wire says how.

Theory. The session writes requests as it does on a stream; of each type the newest is kept, and is what the next poll of
that type says: subscription, acknowledgement or refusal in one.

    request with other names ──► due at once         (while one is under way: right after it)
    ``refresh``, ±20 %       ──► due

    poll ──a DiscoveryResponse──► to the session, whose answer the next poll carries
         ├─not modified─────────► nothing is new; nor is it where filters' configurations or secrets are not served at all, which is told
         └─else─────────────────► told; again after a pause with full jitter that doubles with each failure

One poll runs at a time, on the stream's own thread, and the next begins when the session has dealt with what it brought.
The version is said only where the names are those that it was given for: a server that compares nothing but versions
would have nothing to say to new names. Nor is it said with a refusal: a server that goes back to that version shall send it,
so that what was refused is known to be gone. A body that is no DiscoveryResponse is refused with the next poll's ``error_detail``.

The first connection tells whether there is a server at all: without one the stream ends, and the source tries again by
its own backoff. From then on the stream lives, and says of itself what is wrong. What is polled is the server that is
configured.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from meshlib.model.status import Ignored
from meshlib.runtime import threads
from meshlib.xds import schema
from meshlib.xds.discovery import REQUEST
from meshlib.xds.values import RARE

if TYPE_CHECKING:
    from meshlib.runtime.worker import Timer
    from meshlib.sources.stream import Ears
    from meshlib.xds.bootstrap import Server
    from meshlib.xds.schema import WireMessage

__all__ = ["JITTER", "TIMEOUT", "NotServed", "PollError", "PolledStream", "Read", "Wire"]

#: Seconds for a whole poll.
TIMEOUT = 10.0

#: How much of ``refresh`` a poll may come sooner or later, so that clients that started together part.
JITTER = 0.2
#: Pauses after failures, in seconds: at random between the least and a bound that doubles up to the most.
_PAUSE_LEAST = 0.1
_PAUSE_FIRST = 1.0
_PAUSE_MOST = 60.0

_INVALID_ARGUMENT = 3  # google.rpc.Code


class PollError(Exception):
    """Why there is no answer, in words."""


class NotServed(PollError):
    """The server does not have that at all."""


@dataclass(frozen=True, slots=True)
class Read:
    """A DiscoveryResponse of v3, and what was left out of it."""

    message: bytes
    ignored: tuple[Ignored, ...] = ()


class Wire(Protocol):
    """How a server is asked. One thread uses it, but for ``abort`` and ``end``, which any may call, and ``write``, which is the worker's."""

    def connect(self) -> None:
        """Raises PollError where there is no server."""
        ...

    def name(self, url: str) -> str:
        """What a type is asked by, in words of this wire."""
        ...

    def write(self, request: WireMessage) -> bytes:
        """A DiscoveryRequest of v3 as it goes out; ``request`` is changed."""
        ...

    def ask(self, url: str, body: bytes) -> bytes | None:
        """What the server answers to a poll of that type; None: nothing is new. Raises PollError, which names what was asked."""
        ...

    def read(self, url: str, body: bytes) -> Read:
        """What an answer is. Raises whatever it is that it makes of the decoder."""
        ...

    def close(self) -> None:
        """The next poll connects anew."""
        ...

    def abort(self) -> None:
        """End what is under way: it raises PollError."""
        ...

    def end(self) -> None:
        """As ``abort``, and nothing is begun any more."""
        ...


@dataclass(slots=True, eq=False)
class _Type:
    """``request``: the newest; ``named``: whether any had names; ``asked``: the names of the last poll; ``known``: those that
    the version in hand is for; ``refused``: what is wrong with the last body.
    """

    url: str
    request: WireMessage | None = None
    named: bool = False
    asked: tuple[str, ...] | None = None
    known: tuple[str, ...] | None = None
    timer: Timer | None = None
    failures: int = 0
    error: str = ""
    refused: str = ""
    ignored: tuple[Ignored, ...] = ()

    @property
    def wanted(self) -> bool:
        """On a stream, to name nothing after something gives it all up; a poll without names would be one for everything."""
        return self.request is not None and not (self.named and not self.request.resource_names)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What came of a poll. ``message``: a DiscoveryResponse, None where nothing is new."""

    message: bytes | None = None
    error: str = ""
    refused: bool = False
    ignored: tuple[Ignored, ...] = ()


class PolledStream:
    """The stream whose other end is polled. ``wire`` makes what asks a server; ``later`` sets timers of the worker's; ``random`` gives a float in [0, 1)."""

    def __init__(
        self,
        server: Server,
        ears: Ears,
        post: Callable[[Callable[[], object]], None],
        protocol: str = "sotw",
        *,
        wire: Callable[[Server], Wire],
        later: Callable[[float, Callable[[], object]], Timer],
        random: Callable[[], float],
        refresh: float,
    ) -> None:
        del protocol  # state of the world is all that there is here
        self._ears = ears
        self._post = post
        self._later = later
        self._random = random
        self._refresh = refresh
        self._types = {url: _Type(url) for url in schema.SHORT_NAMES}
        self._due: deque[_Type] = (
            deque()
        )  # in turn, so that none waits for ever behind one that is always due
        self._node: WireMessage | None = None
        self._busy = False  # a poll is under way, or its answer is being dealt with
        self._deadline: Timer | None = None
        self._told: tuple[str, tuple[Ignored, ...]] = ("", ())
        self._cancelled = False
        self._wire = wire(server)
        self._polls: queue.SimpleQueue[tuple[_Type, tuple[str, ...], bytes] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="meshlib-xds-poll", daemon=True)
        threads.start(self._thread)

    # --- AdsStream ----------------------------------------------------------------------------------------------

    def send(self, raw: bytes) -> None:
        request = schema.message(REQUEST).FromString(raw)
        if request.HasField("node"):
            self._node = request.node
        kind = self._types[request.type_url]
        kind.request = request
        kind.named = kind.named or bool(request.resource_names)
        if tuple(request.resource_names) != kind.asked and not kind.failures:
            self._make_due(kind)

    def consumed(self) -> None:
        self._busy = False
        self._post(self._poll)

    def cancel(self, timeout: float = 0.5) -> None:
        self._cancelled = True
        for timer in (self._deadline, *(kind.timer for kind in self._types.values())):
            if timer is not None:
                timer.cancel()
        self._polls.put(None)
        self._wire.end()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout)

    # --- on the worker ------------------------------------------------------------------------------------------

    def _make_due(self, kind: _Type) -> None:
        if kind not in self._due:
            self._due.append(kind)
        self._post(self._poll)

    def _poll(self) -> None:
        """Begin the next poll that is due."""
        if self._busy or self._cancelled:
            return
        while self._due and not self._due[0].wanted:
            self._due.popleft()
        if not self._due:
            return
        self._busy, kind = True, self._due.popleft()
        assert kind.request is not None
        if kind.timer is not None:
            kind.timer.cancel()
        kind.asked = names = tuple(kind.request.resource_names)
        self._deadline = self._later(TIMEOUT, self._wire.abort)
        self._polls.put((kind, names, self._body(kind, names)))

    def _body(self, kind: _Type, names: tuple[str, ...]) -> bytes:
        assert kind.request is not None
        request = schema.message(REQUEST)()
        request.CopyFrom(kind.request)
        if self._node is not None:
            request.node.CopyFrom(self._node)
        if names != kind.known or request.HasField("error_detail"):
            request.version_info = ""
        if kind.refused:
            request.error_detail.code, request.error_detail.message = _INVALID_ARGUMENT, kind.refused
        return self._wire.write(request)

    def _answered(self, kind: _Type, names: tuple[str, ...], answer: _Answer) -> None:
        if self._cancelled:
            return
        if self._deadline is not None:
            self._deadline.cancel()
        kind.error, kind.refused = answer.error, answer.error if answer.refused else ""
        kind.failures = kind.failures + 1 if answer.error else 0
        if not answer.error:
            kind.known = names
        kind.timer = self._later(self._pause(kind), lambda: self._make_due(kind))
        if not answer.error and kind.request is not None and tuple(kind.request.resource_names) != names:
            self._make_due(kind)  # what came into being while this was under way
        if answer.message is not None or answer.ignored:
            kind.ignored = answer.ignored
        if answer.message is None:
            self._busy = False
            self._post(self._poll)
        else:
            self._ears.on_message(self, answer.message)
        self._tell(always=answer.message is None and not answer.error)

    def _pause(self, kind: _Type) -> float:
        """Seconds until the next poll of a type."""
        if not kind.failures:
            return self._refresh * (1 - JITTER + 2 * JITTER * self._random())
        bound = min(_PAUSE_FIRST * 2.0 ** min(kind.failures - 1, 16), _PAUSE_MOST)
        return max(_PAUSE_LEAST, bound * self._random())

    def _tell(self, *, always: bool) -> None:
        errors = (kind.error for kind in self._types.values() if kind.error)
        ignored = tuple(each for kind in self._types.values() for each in kind.ignored)
        state = ("; ".join(errors), ignored)
        if always or state != self._told:
            self._told = state
            self._ears.on_state(self, *state)

    # --- the thread ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._wire.connect()
        except PollError as problem:
            error = str(problem)
            self._post(lambda: self._ears.on_end(self, error))
            return
        self._post(lambda: self._ears.on_ready(self))
        while (poll := self._polls.get()) is not None and not self._cancelled:
            kind, names, body = poll
            answer = self._ask(kind, body)
            self._post(lambda kind=kind, names=names, answer=answer: self._answered(kind, names, answer))  # type: ignore[misc]
            del poll, body, answer
        self._wire.close()

    def _ask(self, kind: _Type, body: bytes) -> _Answer:
        try:
            found = self._wire.ask(kind.url, body)
        except PollError as problem:
            short = schema.SHORT_NAMES[kind.url]
            if isinstance(problem, NotServed) and short in RARE:
                return _Answer(ignored=(Ignored("", short, self._wire.name(kind.url), str(problem)),))
            return _Answer(error=str(problem))
        if found is None:
            return _Answer()
        try:
            read = self._wire.read(kind.url, found)
        except ValueError as problem:
            problems = getattr(problem, "problems", None) or (str(problem),)
            text = "; ".join(problems[:10])[:4000]
        except RecursionError:
            text = "is nested too deeply"
        except Exception as problem:  # noqa: BLE001 - whatever a body makes of the decoder, the thread lives
            text = f"{type(problem).__name__}: {problem}"
        else:
            return _Answer(read.message, ignored=read.ignored)
        name = self._wire.name(kind.url)
        return _Answer(error=f"{name}: the answer is no DiscoveryResponse: {text}", refused=True)
