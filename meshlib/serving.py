"""What the middlewares of all frameworks do beside handing on: readiness, a limit, late requests, a line in the log.

A middleware has one :class:`Desk`. Where nothing is switched on (``desk.idle``) a request never comes here. Otherwise it
is answered at the desk, or it is a :class:`Visit` that ends once: with the last byte of its response, with the exception
that ended it, or, where a server drops a response without closing it, with the collector.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import quote

from meshlib.config import InboundConfig, read_inbound
from meshlib.errors import MeshError
from meshlib.mesh import default, runtime_of
from meshlib.runtime.process import Local

if TYPE_CHECKING:
    from meshlib.config.shapes import InboundDict
    from meshlib.inbound import Inbound
    from meshlib.mesh import Mesh

__all__ = ["Answer", "Asked", "Desk", "InboundLike", "Visit", "raw_path"]

InboundLike: TypeAlias = "InboundConfig | InboundDict | None"
"""What a middleware takes for the keys of ``[inbound]``; None: what the mesh's configuration says."""

_log = logging.getLogger("meshlib.access")

#: Characters of one value in a line of the log.
_LONGEST = 2048


class Answer:
    """A response of the desk's own."""

    __slots__ = ("body", "flags", "headers", "reason", "status")

    def __init__(
        self,
        status: int,
        reason: str,
        body: bytes,
        *more: tuple[str, str],
        kind: str = "text/plain",
        flags: str = "-",
    ) -> None:
        self.status = status
        self.reason = reason
        self.body = body
        self.headers = (("content-type", kind), ("content-length", str(len(body))), *more)
        self.flags = flags


# The flags are Envoy's: OverloadManagerTerminated, DurationTimeout.
_OVERLOADED = Answer(503, "Service Unavailable", b"overloaded", ("x-envoy-overloaded", "true"), flags="OM")
_LATE = Answer(504, "Gateway Timeout", b"the deadline of the request is over", flags="DT")


class Asked:
    """What the log says of a request; all of it as it came."""

    __slots__ = ("agent", "authority", "length", "method", "path", "protocol")

    def __init__(
        self, method: str, path: str, protocol: str, authority: str, agent: str, length: str
    ) -> None:
        self.method = method
        self.path = path
        self.protocol = protocol
        self.authority = authority
        self.agent = agent
        self.length = length


class _Count:
    def __init__(self) -> None:
        self.lock = threading.Lock()  # guards active
        self.active = 0


class Desk:
    """One for each middleware. Thread-safe, and each process counts for itself.

    Args:
        mesh: Whose rules hold for calls made while serving that name no mesh; None: the process's.
        inbound: The keys of ``[inbound]``. Raises ConfigError.
    """

    def __init__(self, mesh: Mesh | None = None, inbound: InboundLike = None) -> None:
        runtime_of(mesh)  # TypeError for what is none
        self.mesh = mesh
        if inbound is None:
            options = (default() if mesh is None else mesh).config.inbound
        else:
            options = inbound if isinstance(inbound, InboundConfig) else read_inbound(inbound)
        self.options = options
        self._count = Local(_Count)
        #: Visits that the collector ended, and when; whoever comes next sees to them.
        self.abandoned: deque[tuple[Visit, float]] = deque()
        self.logs = options.access_log != "off"
        self.idle = not (self.logs or options.ready or options.max_requests or options.reject_expired)

    @property
    def active(self) -> int:
        """Requests that are being served in this process, as far as a limit has them counted."""
        self._end_abandoned()
        return self._count.get().active

    def readiness(self, path: str) -> Answer | None:
        """The answer where ``path`` asks whether the application can make its calls. Never blocks."""
        options = self.options
        if options.ready is None or path != options.ready:
            return None
        mesh = default() if self.mesh is None else self.mesh
        try:
            mesh.wait_ready(*options.ready_for, timeout=0.0)
        except (MeshError, RuntimeError) as problem:
            missing = getattr(problem, "missing", None) or {"meshlib": str(problem)}
            body = json.dumps({"ready": False, "missing": missing}).encode()
            return Answer(503, "Service Unavailable", body, kind="application/json")
        return Answer(200, "OK", b'{"ready": true}', kind="application/json")

    def admit(self, request: Inbound, asked: Asked | None) -> Visit:
        """Begin a visit; ``visit.refusal`` is what to answer instead of serving it. ``asked``: for the log."""
        if self.abandoned:
            self._end_abandoned()
        visit = Visit(self, request, asked)
        if (
            self.options.reject_expired
            and request.deadline is not None
            and time.monotonic() >= request.deadline
        ):
            visit.refuse(_LATE)
        elif self.options.max_requests is not None and not self._enter(self.options.max_requests):
            visit.refuse(_OVERLOADED)
        else:
            visit.counted = self.options.max_requests is not None
        return visit

    def _end_abandoned(self) -> None:
        while self.abandoned:
            with suppress(IndexError):  # another thread has it
                visit, when = self.abandoned.popleft()
                visit.end(when)

    def _enter(self, most: int) -> bool:
        count = self._count.get()
        with count.lock:
            if count.active >= most:
                return False
            count.active += 1
        return True

    def leave(self) -> None:
        count = self._count.get()
        with count.lock:
            count.active = max(0, count.active - 1)


class Visit:
    """A request from its head to the end of its response. ``status`` and ``sent`` (bytes of body) are set on the way."""

    __slots__ = (
        "_asked",
        "_began",
        "_desk",
        "_done",
        "_request",
        "_wall",
        "counted",
        "flags",
        "refusal",
        "sent",
        "status",
    )

    def __init__(self, desk: Desk, request: Inbound, asked: Asked | None) -> None:
        self._desk = desk
        self._request = request
        self._asked = asked
        self._done = False
        self._wall = time.time()
        self._began = time.monotonic()
        self.counted = False
        self.refusal: Answer | None = None
        self.status = 0
        self.sent = 0
        self.flags = "-"

    def refuse(self, answer: Answer) -> None:
        self.refusal = answer
        self.status, self.flags, self.sent = answer.status, answer.flags, len(answer.body)

    def failed(self, flags: str = "-") -> None:
        """An exception ended it; a server answers 500 to that where nothing was answered yet."""
        self.status = self.status or 500
        self.flags = flags
        self.end()

    def end(self, when: float | None = None) -> None:
        """Effective once; from any thread. ``when``: it ended then, on the system's monotonic clock; None: now."""
        if self._done:
            return
        self._done = True
        if self.counted:
            self._desk.leave()
        if self._asked is not None:
            seconds = (time.monotonic() if when is None else when) - self._began
            _write(
                _FORMATS[self._desk.options.access_log](self, self._asked, self._request, self._wall, seconds)
            )

    def __del__(self) -> None:
        """A response that was dropped on the way. The collector runs under any lock, the log's handlers' among them."""
        if not self._done:
            self._desk.abandoned.append((self, time.monotonic()))


# --- the log -----------------------------------------------------------------------------------------------------------


def _write(line: str) -> None:
    """To the handlers of ``meshlib.access``, whatever the level above them: it was asked for by name. Where logging was
    not set up at all, to standard output, where Envoy's goes.
    """
    if not _log.hasHandlers():
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
        return
    record = _log.makeRecord(_log.name, logging.INFO, __file__, 0, line, (), None)
    _log.handle(record)


def _envoy(visit: Visit, asked: Asked, request: Inbound, wall: float, seconds: float) -> str:
    """Envoy's default format, field by field; what only a proxy has (service time, upstream) is a dash."""
    told = map(_quotable, (asked.method, asked.path, asked.protocol))
    quoted = (request.forwarded.get("x-forwarded-for", ""), asked.agent, request.request_id, asked.authority)
    last = " ".join(f'"{_quotable(value) or "-"}"' for value in (*quoted, "-"))
    return (
        f'[{_time(wall)}] "{" ".join(value or "-" for value in told)}" {visit.status} {visit.flags} '
        f"{_length(asked)} {visit.sent} {round(seconds * 1000)} - {last}"
    )


def _json(visit: Visit, asked: Asked, request: Inbound, wall: float, seconds: float) -> str:
    return json.dumps(
        {
            "start_time": _time(wall),
            "method": asked.method[:_LONGEST],
            "path": asked.path[:_LONGEST],
            "protocol": asked.protocol,
            "response_code": visit.status,
            "response_flags": visit.flags,
            "bytes_received": _length(asked),
            "bytes_sent": visit.sent,
            "duration": round(seconds * 1000),
            "x_forwarded_for": request.forwarded.get("x-forwarded-for"),
            "user_agent": asked.agent[:_LONGEST] or None,
            "request_id": request.request_id or None,
            "authority": asked.authority[:_LONGEST] or None,
            "trace_id": request.traceparent[3:35] or None,
            "attempt": request.attempt,
        }
    )


_FORMATS = {"envoy": _envoy, "json": _json}


def _time(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _length(asked: Asked) -> int:
    digits = asked.length
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 15 else 0


def _quotable(text: str) -> str:
    """``text`` between quotation marks, on one line."""
    text = text[:_LONGEST]
    if text.isascii() and text.isprintable() and '"' not in text:
        return text
    return "".join(
        one
        if one.isascii() and one.isprintable() and one != '"'
        else one.encode("unicode_escape").decode().replace('"', "\\x22")
        for one in text
    )


def raw_path(path: str, query: str) -> str:
    """The path as it was on the wire, as far as that can be told from one that was decoded (Latin-1 text)."""
    shown = quote(path, safe="/!$&'()*+,;=:@~-._", encoding="latin-1", errors="replace")
    return f"{shown}?{query}" if query else shown
