"""WSGI applications in the mesh.

    import meshlib_wsgi

    application = meshlib_wsgi.Middleware(application)

Calls of the mesh that the application makes while it serves a request carry that request's trace and id on, and end with
its deadline; also those made while a response is being generated. Nothing is patched and no body is held back.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any

from meshlib.inbound import enter, read, reset
from meshlib.serving import Asked, Desk, raw_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from meshlib.inbound import Inbound
    from meshlib.mesh import Mesh
    from meshlib.serving import Answer, InboundLike, Visit

__all__ = ["Middleware"]

Environ = dict[str, Any]


class Middleware:
    """A WSGI application around another. Thread-safe; starts nothing.

    Args:
        app: The application.
        mesh: Whose rules hold for calls made while serving that name no mesh; None: ``meshlib.default()``.
        inbound: The keys of ``[inbound]`` (readiness, limit, late requests, access log); None: what the mesh's
            configuration says. Raises ConfigError.
    """

    def __init__(
        self, app: Callable[..., Iterable[bytes]], *, mesh: Mesh | None = None, inbound: InboundLike = None
    ) -> None:
        self.app = app
        self.desk = Desk(mesh, inbound)

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        desk = self.desk
        request = read(environ.get, monotonic(), desk.mesh)
        visit = None
        if not desk.idle:
            visit, answer = self._admit(environ, request)
            if answer is not None:
                start_response(f"{answer.status} {answer.reason}", list(answer.headers))
                return [] if environ.get("REQUEST_METHOD") == "HEAD" else [answer.body]
            if visit is not None and desk.logs:
                start_response = _noting(start_response, visit)
        token = enter(request)
        try:
            body = self.app(environ, start_response)
        except BaseException:
            request.answered = True
            if visit is not None:
                visit.failed()
            raise
        finally:
            reset(token)
        if type(body) in (list, tuple):
            # Nothing runs while it is sent. A server may look at its length, so it stays what it is.
            request.answered = True
            if visit is not None:
                visit.sent += sum(map(len, body))
                visit.end()
            return body
        wrapper = environ.get("wsgi.file_wrapper")
        if visit is None and isinstance(wrapper, type) and isinstance(body, wrapper):
            # The server sends the file by itself, if it is still one; where somebody counts, it is read like any other.
            request.answered = True
            return body
        return _Body(body, request, visit)

    def _admit(self, environ: Environ, request: Inbound) -> tuple[Visit | None, Answer | None]:
        """The visit, or what is answered instead of one."""
        desk = self.desk
        answer = desk.readiness(environ.get("PATH_INFO", ""))
        if answer is not None:
            return None, answer
        visit = desk.admit(request, asked(environ) if desk.logs else None)
        if visit.refusal is None:
            return visit, None
        visit.end()
        return None, visit.refusal


class _Body:
    """A response's body, whose generation is part of serving the request."""

    __slots__ = ("_body", "_parts", "_request", "_visit")

    def __init__(self, body: Iterable[bytes], request: Inbound, visit: Visit | None) -> None:
        self._body = body
        self._request = request
        self._visit = visit
        self._parts = _parts(body, request, visit)

    def __iter__(self) -> Iterator[bytes]:
        return self._parts

    def __next__(self) -> bytes:
        return next(self._parts)

    def close(self) -> None:
        """The server is done with it, to its end or not."""
        close = getattr(self._body, "close", None)
        token = enter(self._request)
        try:
            if close is not None:
                close()
        finally:
            reset(token)
            self._request.answered = True
            if self._visit is not None:
                self._visit.end()


def _parts(body: Iterable[bytes], request: Inbound, visit: Visit | None) -> Iterator[bytes]:
    """The parts of ``body``. It runs within the request; between two parts its server runs, which does not."""
    parts: Iterator[bytes] | None = None
    while True:
        token = enter(request)
        try:
            if parts is None:
                parts = iter(body)
            part = next(parts)
        except StopIteration:
            break
        except BaseException:
            request.answered = True
            if visit is not None:
                visit.failed()
            raise
        finally:
            reset(token)
        if visit is not None:
            visit.sent += len(part)
        yield part
    request.answered = True
    if visit is not None:
        visit.end()


def _noting(start_response: Callable[..., Any], visit: Visit) -> Callable[..., Any]:
    """``start_response``, which tells the visit the status, and what goes through ``write``."""

    def noting(status: str, headers: list[tuple[str, str]], *error: Any) -> Callable[[bytes], Any]:
        digits = status[:3]
        visit.status = int(digits) if digits.isascii() and digits.isdigit() else 0
        write = start_response(status, headers, *error)

        def counting(data: bytes) -> Any:
            visit.sent += len(data)
            return write(data)

        return counting

    return noting


def asked(environ: Environ) -> Asked:
    """What the log says of a request."""
    get = environ.get
    path = get("HTTP_X_ENVOY_ORIGINAL_PATH") or get("RAW_URI") or get("REQUEST_URI")
    return Asked(
        get("REQUEST_METHOD", ""),
        path or raw_path(get("SCRIPT_NAME", "") + get("PATH_INFO", ""), get("QUERY_STRING", "")),
        get("SERVER_PROTOCOL", ""),
        get("HTTP_HOST", ""),
        get("HTTP_USER_AGENT", ""),
        get("CONTENT_LENGTH") or "",
    )
