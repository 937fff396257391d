"""A call to a host that the mesh does not carry: urllib3's own way, told to observers and bounded by the deadline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from urllib3 import exceptions
from urllib3.util import Timeout

from meshlib.errors import DeadlineExceeded
from meshlib.hosts.info import attach
from meshlib.model.call import Outcome, OutcomeKind
from meshlib.model.events import AttemptEnded, AttemptStarted
from meshlib.transports.face import Why, direct_info, next_key
from meshlib_requests.failures import Failure, join, made

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from meshlib.runtime.runtime import Runtime
    from meshlib_requests.calls import Asked

__all__ = ["Direct"]


class Direct:
    """One such call. ``deadline`` is absolute, on the runtime's clock."""

    __slots__ = ("_asked", "_deadline", "_emit", "_front", "_key", "_now", "_reason", "_retries", "_since")

    def __init__(
        self,
        front: Any,
        runtime: Runtime,
        asked: Asked,
        reason: Why,
        deadline: float | None,
        retries: Any,
    ) -> None:
        self._front = front
        self._asked = asked
        self._reason = reason
        self._retries = retries
        self._deadline = deadline
        self._now = runtime.clock.now
        self._since = self._now()
        self._emit = runtime.env.emit
        self._key = 0

    def call(self, plain: Callable[..., Any], timeout: Any) -> Any:
        """What ``plain`` gives: urllib3's response. ``plain`` takes the header lines and the timeout."""
        asked = self._asked
        lines: Mapping[str, str] = asked.headers
        if self._deadline is not None:
            timeout = self._bounded(self._deadline)
        if self._emit is not None:
            lines = self._started()
        try:
            raw = plain(lines, timeout)
        except BaseException as error:
            raised = self._failed(error)
            if raised is error:
                raise
            raise raised from raised.__cause__
        outcome = Outcome(OutcomeKind.OK, raw.status, None, True, self._now() - self._since)
        self._tell(outcome, "1.0" if raw.version == 10 else "1.1")
        raw._meshlib_info = direct_info(self._reason, outcome, endpoint=_peer(raw))
        return raw

    def _bounded(self, deadline: float) -> Timeout:
        """The call's timeouts within what is left. Raises where nothing is."""
        left = deadline - self._since
        if left <= 0:
            info = direct_info(self._reason, Outcome(OutcomeKind.TIMEOUT))
            failure = Failure(DeadlineExceeded, info, sent=False)
            error = made(failure, "the deadline is over", self._front, self._asked.path, unconnected=True)
            raise self._front.refusal(error, self._retries, self._asked)
        asked = self._asked
        total = left if asked.total is None else min(left, asked.total)
        return Timeout(total=total, connect=asked.connect, read=asked.read)

    def _started(self) -> Mapping[str, str]:
        """Tell observers; the lines as they left them."""
        asked, front = self._asked, self._front
        head = asked.head(front.scheme)
        before = list(head.headers.raw)
        self._key = next_key()
        assert self._emit is not None
        url = f"{front.scheme}://{asked.authority}{asked.path}"
        self._emit(
            AttemptStarted(self._key, 1, head, asked.authority, head.scheme, url, "", "", "", "direct")
        )
        after = head.headers.raw
        if after == before:
            return asked.headers
        lines: Any = asked.headers.copy()  # type: ignore[attr-defined]
        for name in {name for name, _ in before} - {name for name, _ in after}:
            del lines[name.decode("latin-1")]
        for name, value in after:
            if (name, value) not in before:
                lines[name.decode("latin-1")] = value.decode("latin-1")
        found: Mapping[str, str] = lines
        return found

    def _failed(self, error: BaseException) -> BaseException:
        """What to raise: ``error``, which knows what it was; DeadlineExceeded, too, where it was the deadline's."""
        now = self._now()
        outcome = Outcome(_kind(error), sent=True, seconds=now - self._since, error=error)
        self._tell(outcome, "")
        info = direct_info(self._reason, outcome)
        late = self._deadline is not None and now >= self._deadline - 0.001
        if late and isinstance(error, exceptions.HTTPError):
            both: BaseException = join(error, Failure(DeadlineExceeded, info, sent=True))
            return both
        attach(error, info)
        return error

    def _tell(self, outcome: Outcome, version: str) -> None:
        if self._emit is not None:
            self._emit(AttemptEnded(self._key, 1, outcome, version))


def _kind(error: BaseException) -> OutcomeKind:
    found = getattr(error, "reason", None) or error
    if isinstance(found, exceptions.ConnectTimeoutError):
        return OutcomeKind.CONNECT
    if isinstance(found, exceptions.TimeoutError):
        return OutcomeKind.TIMEOUT
    return OutcomeKind.RESET if isinstance(found, exceptions.HTTPError) else OutcomeKind.CANCELLED


def _peer(raw: Any) -> str:
    """The address that answered, where the connection still tells it."""
    sock = getattr(getattr(raw, "_connection", None), "sock", None)
    try:
        address = sock.getpeername() if sock is not None else None
    except OSError:
        address = None
    if isinstance(address, tuple) and len(address) >= 2:
        host, port = address[0], address[1]
        return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
    return ""
