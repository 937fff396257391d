"""One call as urllib3 asks for it, driven by its plan: each attempt is a request on the lane to an endpoint."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from urllib3 import HTTPHeaderDict
from urllib3.exceptions import HTTPError
from urllib3.util import SKIP_HEADER, Timeout
from urllib3.util.request import rewind_body

from meshlib.core.effects import Call, Finish, Pass, Reply, Send
from meshlib.core.plan import Plan
from meshlib.errors import DeadlineExceeded, Overloaded
from meshlib.inbound import carry
from meshlib.model.call import CallInfo, Head, Outcome, OutcomeKind
from meshlib.model.events import AttemptEnded, AttemptStarted
from meshlib.model.headers import Headers
from meshlib.transports.drive import drive
from meshlib.transports.face import next_key
from meshlib.transports.request import retry_of
from meshlib_requests.answers import Held, edit_lines, hold, ordered
from meshlib_requests.connections import Attempt
from meshlib_requests.failures import Failure, made, outcome_of
from meshlib_requests.options import current_options
from meshlib_requests.targets import Target

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.core.resolution import Resolution
    from meshlib.runtime.runtime import Runtime

__all__ = ["Asked", "Passed", "Performance", "patience", "with_earlier"]

#: How long a call waits for the configuration where its connect timeout is none; httpx's default. Seconds.
_PATIENCE = 5.0


class Passed(Exception):
    """The route goes to a pass-through cluster: call the URL as it is, until ``deadline`` (absolute)."""

    def __init__(self, deadline: float | None) -> None:
        super().__init__()
        self.deadline = deadline


class Asked:
    """What ``urlopen`` was asked for. ``path`` is what routes see; ``skipped``: lines by which urllib3 is told not to add one of
    its own.
    """

    __slots__ = (
        "authority",
        "body",
        "body_pos",
        "chunked",
        "connect",
        "headers",
        "host_line",
        "method",
        "opened",
        "options",
        "path",
        "pool_timeout",
        "raw",
        "read",
        "skipped",
        "target",
        "total",
    )

    def __init__(
        self,
        method: str,
        target: Target,
        headers: Mapping[str, str],
        authority: str,
        timeout: Timeout,
        options: dict[str, Any],
    ) -> None:
        self.method = method
        self.target = target
        self.path = target.path
        self.headers = headers
        self.options = options
        self.opened = False  # whether the body may have been read
        self.raw: list[tuple[bytes, bytes]] = []
        self.skipped: dict[str, str] = {}
        self.authority = target.authority or authority
        self.host_line: tuple[int, str] | None = None  # where the caller wrote one, and how
        self._read_lines()
        self.body: Any = options.pop("body")
        self.body_pos: Any = options.pop("body_pos")
        self.pool_timeout: float | None = options.pop("pool_timeout")
        self.chunked: bool = options.pop("chunked")
        self._read_timeout(timeout)

    def head(self, scheme: str) -> Head:
        return Head(self.method, scheme, self.authority, self.path, Headers.trimmed(self.raw))

    def _read_lines(self) -> None:
        for name, value in _lines(self.headers):
            if value == SKIP_HEADER:
                self.skipped[name] = value
            elif len(name) == 4 and name.lower() in ("host", b"host"):
                self.authority = value if isinstance(value, str) else value.decode("latin-1")
                self.host_line = len(self.raw), name if isinstance(name, str) else name.decode("latin-1")
            else:
                self.raw.append((_raw(name), _raw(value)))

    def _read_timeout(self, timeout: Timeout) -> None:
        total = Timeout.resolve_default_timeout(timeout.total)
        self.total = total
        if total is not None:
            timeout = timeout.clone()
            timeout.start_connect()  # without it there is no telling what total leaves for a read
        self.connect = Timeout.resolve_default_timeout(timeout.connect_timeout)
        self.read = Timeout.resolve_default_timeout(timeout.read_timeout)

    @property
    def replayable(self) -> bool:
        """Whether the body can be sent again: it is not read, as an iterator and a pipe are, or can be rewound."""
        body = self.body
        if hasattr(body, "read"):
            return isinstance(self.body_pos, int) and hasattr(body, "seek")
        return not isinstance(body, Iterator)

    def rewind(self) -> None:
        """Before the body is sent: back to where it began, if it may have been read. Raises UnrewindableBodyError."""
        if self.opened and isinstance(self.body_pos, int):
            rewind_body(self.body, self.body_pos)
        self.opened = True


def _lines(headers: Mapping[str, str]) -> Iterable[tuple[Any, Any]]:
    """All lines in order. requests' mapping keeps them as they are wanted here, and looks each up again otherwise."""
    store = getattr(headers, "_store", None)
    return store.values() if isinstance(store, dict) else headers.items()


def _raw(text: Any) -> bytes:
    """As ``http.client`` writes a name or a value. Raises TypeError, UnicodeEncodeError."""
    if isinstance(text, str):
        return text.encode("latin-1")
    if isinstance(text, int):
        return str(text).encode("ascii")
    if not isinstance(text, bytes):
        raise TypeError(f"a header line is of str or bytes, not {type(text).__name__}")
    return text


def patience(connect: float | None, deadline: float | None, now: float) -> float:
    """Seconds for which a call may wait for the control plane."""
    seconds = _PATIENCE if connect is None else connect
    return seconds if deadline is None else max(0.0, min(seconds, deadline - now))


class Performance:
    """The hands of one plan (see ``meshlib.transports.drive.Hands``), and what its end is to urllib3."""

    __slots__ = ("_asked", "_attempt", "_emit", "_front", "_key", "_runtime", "_seen", "now", "plan", "sleep")

    def __init__(
        self,
        front: Any,
        runtime: Runtime,
        resolution: Resolution,
        asked: Asked,
        *,
        deadline: float | None,
        tried: tuple[LiveEndpoint, ...],
    ) -> None:
        self._front = front
        self._runtime = runtime
        self._asked = asked
        self._attempt: Attempt | None = None
        self._emit = runtime.env.emit
        self._key = 0
        self._seen = runtime.view
        self.now = runtime.clock.now
        self.sleep = runtime.clock.sleep
        head, options = asked.head(front.scheme), current_options()
        call = Call(
            resolution,
            head,
            deadline=deadline,
            limit="the deadline" if deadline is not None else "",
            timeout=options.timeout,
            retry=retry_of(options),
            idempotent=options.idempotent,
            hash_key=options.hash_key,
            replayable=asked.replayable,
            wait=_PATIENCE if asked.connect is None else asked.connect,
            counted=carry(head.headers),
            tried=tried,
        )
        self.plan = Plan(call, runtime.env)

    def run(self) -> Any:
        """urllib3's response, open. Raises urllib3's errors, each of which is meshlib's, too, or carries a Failure."""
        end, raw = drive(self.plan, self)
        if raw is not None:
            return self._answered(raw)
        now = self.now()
        self.plan.close(now)
        if isinstance(end, Pass):
            raise Passed(end.deadline)
        info = self.plan.info(now)
        if isinstance(end, Reply):
            return ordered(end.response, self._asked.method, self._asked.path, info)
        return self._ended(end, info)

    # --- hands --------------------------------------------------------------------------------------------------

    def send(self, effect: Send) -> tuple[Outcome, Any]:
        asked = self._asked
        asked.rewind()
        pool = asked.pool_timeout
        if (
            pool is None and not self._front.block
        ):  # the application bounds its connections, and waits as urllib3 does
            pool = asked.connect
        attempt = self._attempt = Attempt(
            self.now,
            effect.deadline,
            {"connect": asked.connect, "read": asked.read, "pool": pool},
            effect.connect_timeout,
            self._runtime.clock.alarm if self._runtime.clock.virtual else None,
        )
        since = self.now()
        self._started(effect)
        lane = self._front.lane(effect)
        try:
            raw = self._open(lane, effect, attempt)
        except (HTTPError, Overloaded, TimeoutError) as error:
            self._give_back(lane, attempt)
            outcome = outcome_of(error, attempt, self.now() - since)
            self._tell(effect, outcome, "")
            return outcome, None
        except BaseException as error:
            self._give_back(lane, attempt)
            outcome = Outcome(
                OutcomeKind.CANCELLED, sent=attempt.sent, seconds=self.now() - since, error=error
            )
            self._tell(effect, outcome, "")
            raise
        headers = Headers(
            (name.encode("latin-1"), value.encode("latin-1", "replace"))
            for name, value in raw.headers.items()
        )
        outcome = Outcome(OutcomeKind.OK, raw.status, headers, True, self.now() - since)
        self._tell(effect, outcome, "1.0" if raw.version == 10 else "1.1")
        return outcome, (raw, headers)

    def discard(self, answer: Any) -> None:
        raw, _ = answer
        raw.close()
        raw.release_conn()

    def changed(self, until: float) -> None:
        seen, store = self._seen, self._runtime.store
        store.wait(lambda view: view is not seen, until - self.now())
        self._seen = store.view

    # --- parts --------------------------------------------------------------------------------------------------

    def _open(self, lane: Any, effect: Send, attempt: Attempt) -> Any:
        asked, head = self._asked, effect.head
        timeout = Timeout(
            total=asked.total,
            connect=attempt.left(attempt.seconds("connect")),
            read=attempt.left(asked.read),
        )
        attempt.authority = head.authority
        return lane.open(
            attempt,
            head.method,
            asked.target.sent(head, asked.authority),
            timeout=timeout,
            body=asked.body,
            headers=self._sent_lines(head),
            chunked=asked.chunked,
            **asked.options,
        )

    def _sent_lines(self, head: Head) -> Mapping[str, str]:
        """The head's lines as urllib3 takes them; Host among them only where the caller wrote it."""
        asked = self._asked
        pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers.raw]
        if asked.host_line is not None:
            place, name = asked.host_line
            pairs.insert(place, (name, head.authority))
        lines = {**asked.skipped, **dict(pairs)}
        if len(lines) == len(asked.skipped) + len(pairs):
            return lines
        repeated = HTTPHeaderDict(asked.skipped)
        for name, value in pairs:
            repeated.add(name, value)
        return repeated

    @staticmethod
    def _give_back(lane: Any, attempt: Attempt) -> None:
        connection, attempt.connection = attempt.connection, None
        if connection is not None:
            connection.close()
            lane.give_back(connection)

    def _answered(self, answer: Any) -> Any:
        raw, headers = answer
        assert self._attempt is not None
        edited = self.plan.response_headers(headers)
        if edited is not None:
            edit_lines(raw, edited)
        return hold(
            raw, Held(self._runtime, self.plan, self._attempt, raw.status), self.plan.info(self.now())
        )

    def _ended(self, end: Finish, info: CallInfo) -> Any:
        assert end.failure is not None
        asked, attempt = self._asked, self._attempt
        if self._runtime.config.failures == "respond" and end.response is not None:
            return ordered(end.response, asked.method, asked.path, info)
        sent = any(one.sent for one in info.attempts)
        failure = Failure(end.failure, info, sent=sent)
        origin = end.outcome.error if end.outcome is not None else None
        timed_out = attempt is not None and attempt.expired
        if isinstance(origin, HTTPError) and not timed_out and not _late(end):
            # What the network said is what the caller hears, in urllib3's words.
            origin._meshlib_failure = failure  # type: ignore[attr-defined]
            raise origin
        unconnected = not info.attempts or info.attempts[-1].outcome == OutcomeKind.CONNECT.value
        error = made(failure, end.message, self._front, asked.path, unconnected=unconnected)
        raise error from origin

    # --- observers ----------------------------------------------------------------------------------------------

    def _started(self, effect: Send) -> None:
        if self._emit is not None:
            front, plan = self._front, self.plan
            self._key = next_key()
            self._emit(
                AttemptStarted(
                    key=self._key,
                    number=effect.number,
                    head=effect.head,
                    asked=self._asked.authority,
                    scheme=front.scheme,
                    url=f"{front.scheme}://{self._asked.authority}{self._asked.path}",
                    endpoint=effect.endpoint.name,
                    cluster=plan.cluster,
                    route=plan.route,
                    via="mesh",
                )
            )

    def _tell(self, effect: Send, outcome: Outcome, protocol: str) -> None:
        if self._emit is not None:
            self._emit(AttemptEnded(self._key, effect.number, outcome, protocol))


def _late(end: Finish) -> bool:
    """Whether the call's own time was over, whatever its last attempt reported."""
    kind = end.outcome.kind if end.outcome is not None else None
    return end.failure is DeadlineExceeded and kind is not OutcomeKind.TIMEOUT


def with_earlier(info: CallInfo, earlier: tuple[Any, ...]) -> CallInfo:
    """``info`` with the attempts that were made before this plan: ``Retry`` of urllib3 begins a new one each time."""
    if not earlier:
        return info
    count = len(earlier)
    later = tuple(replace(one, number=one.number + count) for one in info.attempts)
    return replace(info, attempts=(*earlier, *later))
