"""The pools that urllib3 and requests think they call: each stands for the host of a URL.

A front is urllib3's own pool for that host. A call to a host that the mesh knows is driven by a plan over the lanes to its
endpoints; every other one goes the pool's own way. ``urlopen`` is where both libraries, and those built on them, come by, so
that retries, redirects, cookies, hooks and errors above it are theirs. What urllib3's ``Retry`` asks for holds where the mesh
orders no retry.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from typing import TYPE_CHECKING, Any, cast

from urllib3 import connectionpool
from urllib3.exceptions import (
    HTTPError,
    MaxRetryError,
    ProtocolError,
    ProxyError,
    SSLError,
    TimeoutError,  # noqa: A004
    UnrewindableBodyError,
)
from urllib3.util import Retry, Timeout
from urllib3.util.request import set_file_position

from meshlib.core.failures import not_made
from meshlib.deadlines import current_deadline
from meshlib.errors import DeadlineExceeded, MeshError, Overloaded
from meshlib.interceptors import CallPath
from meshlib.runtime.process import Local
from meshlib_requests.answers import ordered
from meshlib_requests.calls import Asked, Passed, Performance, patience, with_earlier
from meshlib_requests.direct import Direct
from meshlib_requests.failures import Failure, failure_of, join, made
from meshlib_requests.lanes import Lane, make_lane
from meshlib_requests.targets import target_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from meshlib.core.effects import Send
    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.core.resolution import Resolution
    from meshlib.model.call import Attempt
    from meshlib.runtime.runtime import Runtime

__all__ = ["Front", "adopt", "let_go", "notice_proxy"]

_log = logging.getLogger("meshlib")
_DEFAULT_PORTS = {"http": 80, "https": 443}
#: Whose connection classes tools replace.
_LIBRARIES = frozenset({"botocore", "urllib3"})
#: The mesh ordered retries and made them; urllib3 makes none, and says what it says then. As requests' own default.
_NO_MORE = Retry(0, read=False)
#: After which urllib3 may try again; and what the mesh refuses.
_RETRIED = (TimeoutError, ProtocolError, SSLError, ProxyError, MeshError)
_PASSED = "the route goes to a pass-through cluster"
_TEXT = (("content-type", "text/plain"),)


class Front:
    """Mixed into urllib3's pools. Thread-safe; ``_guard`` guards making and removing lanes, never a look-up.

    Attributes:
        runtime: Gives the runtime whose rules hold.
        arguments: What the pool was made with, beside its host and port.
        call_path: What a call of a pool of this class comes by.
    """

    call_path: CallPath
    scheme: str
    host: str
    port: int | None
    proxy: Any
    headers: Mapping[str, str]
    timeout: Timeout
    retries: Any
    block: bool
    is_same_host: Callable[[str], bool]

    def prepare(self, runtime: Callable[[], Runtime], arguments: dict[str, Any]) -> None:
        """What a constructor would do; urllib3's has a signature of its own."""
        self.runtime = runtime
        self.arguments = arguments
        self._guard = Local(threading.Lock)
        self._lanes: dict[Any, Lane] = {}
        self._pid = os.getpid()
        self._view: object = None
        self._asked_host = f"[{self.host}]" if ":" in self.host else self.host
        port = None if self.port == _DEFAULT_PORTS.get(self.scheme) else self.port
        self._asked_port = port
        self._authority = self._asked_host if port is None else f"{self._asked_host}:{port}"
        weakref.finalize(self, _abandon, self._lanes)

    # --- urllib3's contract -------------------------------------------------------------------------------------

    def urlopen(
        self,
        method: str,
        url: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        retries: Retry | bool | int | None = None,
        redirect: bool = True,
        assert_same_host: bool = True,
        timeout: Any = Timeout.DEFAULT_TIMEOUT,
        pool_timeout: int | None = None,
        release_conn: bool | None = None,
        chunked: bool = False,
        body_pos: Any = None,
        preload_content: bool = True,
        decode_content: bool = True,
        **more: Any,
    ) -> Any:
        """As urllib3's, which see."""
        options: dict[str, Any] = {
            "body": body,
            "pool_timeout": pool_timeout,
            "chunked": chunked,
            "body_pos": body_pos,
            "decode_content": decode_content,
            **more,
        }
        lines = self.headers if headers is None else headers
        runtime = self.runtime()

        own = {
            "retries": retries,
            "redirect": redirect,
            "assert_same_host": assert_same_host,
            "release_conn": release_conn,
            "preload_content": preload_content,
        }

        def plain(headers: Mapping[str, str] = lines, timeout: Any = timeout) -> Any:
            return super(Front, self).urlopen(method, url, headers=headers, timeout=timeout, **own, **options)  # type: ignore[misc]

        if runtime.config.disabled or self.proxy is not None or self.call_path.intercepted():
            return plain()
        if assert_same_host and not self.is_same_host(url):
            return plain()  # which says so
        target = target_of(url)
        asked = Asked(method, target, lines, self._authority, self._timeout(timeout), dict(options))
        return self._carry(
            runtime, asked, plain, retries, timeout=timeout, redirect=redirect, preload=preload_content
        )

    def _carry(
        self,
        runtime: Runtime,
        asked: Asked,
        plain: Callable[..., Any],
        retries: Retry | bool | int | None,
        *,
        timeout: Any,
        redirect: bool,
        preload: bool,
    ) -> Any:
        """The call, by who knows its host; ``plain`` makes it as if nobody did."""
        resolution = self._resolve(runtime, asked)
        if resolution.via == "mesh":
            try:
                raw = self._through_mesh(runtime, resolution, asked, retries, preload=preload)
            except Passed as passed:
                call = Direct(self, runtime, asked, _PASSED, passed.deadline, retries)
                return call.call(plain, timeout)
            location = redirect and raw.get_redirect_location()
            return raw if not location else self._redirected(raw, location, asked, asked.headers, preload)
        if resolution.plain:
            return plain()
        if resolution.via != "direct":
            return self._not_made(runtime, resolution, asked, retries)
        call = Direct(self, runtime, asked, resolution.words, current_deadline(runtime.clock), retries)
        return call.call(plain, timeout)

    def lane(self, effect: Send) -> Lane:
        """The lane to ``effect.endpoint``."""
        endpoint = effect.endpoint
        key = (endpoint, endpoint.tls)
        lane = self._lanes.get(key)
        if lane is None:
            with self._guard.get():
                lane = self._lanes.get(key)
                if lane is None:
                    lane = self._lanes[key] = make_lane(self, effect)
        return lane

    def close(self) -> None:
        """As urllib3's: closed for good."""
        super().close()  # type: ignore[misc]
        self.let_go()

    def let_go(self) -> None:
        """Close what is idle, now, and what is in use when it is done. The front can be used again."""
        self._leave_the_parents()
        for lane in self._drain(lambda _: True):
            lane.wire.close()

    # --- parts --------------------------------------------------------------------------------------------------

    def _resolve(self, runtime: Runtime, asked: Asked) -> Resolution:
        """What the URL means; may wait for the control plane."""
        place = (self.scheme, self.host, self._asked_port, asked.authority)
        resolution = runtime.view.resolve(*place)
        if resolution.via == "wait":
            seconds = patience(asked.connect, current_deadline(runtime.clock), runtime.clock.now())
            resolution = runtime.wait_known(*place, seconds)
        elif resolution.name:
            runtime.want(resolution.name, asked.authority)
        return resolution

    def _not_made(self, runtime: Runtime, resolution: Resolution, asked: Asked, retries: Any) -> Any:
        """The end of a call that its resolution does not let out."""
        end, info = not_made(resolution, asked.authority)
        assert end.failure is not None
        if runtime.config.failures == "respond" and end.response is not None:
            return ordered(end.response, asked.method, asked.path, info)
        error = made(Failure(end.failure, info, sent=False), end.message, self, asked.path)
        raise self.refusal(error, retries, asked)

    def _through_mesh(
        self, runtime: Runtime, resolution: Resolution, asked: Asked, retries: Any, *, preload: bool
    ) -> Any:
        """The plan's response; where the mesh orders no retry, as many plans as ``retries`` asks for."""
        self._tidy(runtime)
        if not isinstance(retries, Retry):
            retries = Retry.from_int(retries, default=self.retries)
        if asked.body is not None:
            asked.body_pos = set_file_position(asked.body, asked.body_pos)
        deadline = current_deadline(runtime.clock)
        earlier: tuple[Attempt, ...] = ()
        tried: tuple[LiveEndpoint, ...] = ()
        while True:
            performance = Performance(self, runtime, resolution, asked, deadline=deadline, tried=tried)
            plan = performance.plan
            try:
                raw = performance.run()
                raw.retries = retries
                if preload:
                    raw.data  # noqa: B018 - it is read and kept
            except HTTPError as error:
                retries = self._again(error, retries, plan, asked, earlier)
            else:
                raw._meshlib_info = with_earlier(raw._meshlib_info, earlier)
                if plan.final or not (retries.total or retries.status_forcelist):
                    return raw
                if not retries.is_retry(asked.method, raw.status, bool(raw.headers.get("Retry-After"))):
                    return raw
                again = self._after_status(raw, retries, asked)
                if again is None:
                    return raw
                retries = again
            earlier = with_earlier(plan.info(runtime.clock.now()), earlier).attempts
            deadline, tried = plan.deadline, plan.tried

    def _again(self, error: HTTPError, retries: Retry, plan: Any, asked: Asked, earlier: Any) -> Retry:
        """What is left of ``retries`` after a failure; raises the failure where nothing is."""
        failure = getattr(error, "_meshlib_failure", None)
        if isinstance(error, MeshError):
            failure = failure_of(error)
        if failure is not None and failure.info is not None:
            failure.info = with_earlier(failure.info, earlier)
        if isinstance(error, Overloaded):
            raise error  # as urllib3 does where its pool has none to give
        if (plan.final or isinstance(error, DeadlineExceeded)) and retries.total is not False:
            retries = _NO_MORE
        try:
            if not isinstance(error, _RETRIED):
                raise error
            retries = retries.increment(
                asked.method,
                asked.path,
                error=error,
                _pool=cast("Any", self),
                _stacktrace=error.__traceback__,
            )
        except HTTPError as final:
            if failure is None:
                raise
            both = join(final, failure)
            raise both from both.__cause__
        retries.sleep()
        return retries

    def _after_status(self, raw: Any, retries: Retry, asked: Asked) -> Retry | None:
        """What is left of ``retries`` after a response that they are for; None: it is the caller's."""
        try:
            left = retries.increment(asked.method, asked.path, response=raw, _pool=cast("Any", self))
        except MaxRetryError as error:
            if retries.raise_on_status:
                raw.drain_conn()
                error._meshlib_info = raw._meshlib_info  # type: ignore[attr-defined]
                raise
            return None
        raw.drain_conn()
        left.sleep(raw)
        return left

    def _redirected(self, raw: Any, location: str, asked: Asked, lines: Any, preload: bool) -> Any:
        """Follow a redirect for a caller of the pool itself, as urllib3's pool does: within its host."""
        method, body, headers = asked.method, asked.body, dict(lines)
        chunked, body_pos = asked.chunked, asked.body_pos
        if raw.status == 303:
            method, body, chunked, body_pos = "GET", None, False, None
            gone = {"content-encoding", "content-language", "content-length", "content-location", "content-type",
                    "digest", "last-modified", "transfer-encoding"}  # fmt: skip
            headers = {name: value for name, value in headers.items() if name.lower() not in gone}
        elif not asked.replayable:
            raise UnrewindableBodyError("Unable to send the body again for redirecting: it can be read once")
        retries: Retry = raw.retries
        try:
            retries = retries.increment(method, asked.path, response=raw, _pool=cast("Any", self))
        except MaxRetryError:
            if retries.raise_on_redirect:
                raw.drain_conn()
                raise
            return raw
        raw.drain_conn()
        retries.sleep_for_retry(raw)
        return self.urlopen(
            method,
            location,
            body,
            headers,
            retries=retries,
            timeout=Timeout(total=asked.total, connect=asked.connect, read=asked.read),
            preload_content=preload,
            chunked=chunked,
            body_pos=body_pos,
            **asked.options,
        )

    def refusal(self, error: Any, retries: Any, asked: Asked) -> Any:
        """What to raise where no call was made: as urllib3 raises what it does not try again."""
        failure = failure_of(error)
        if failure is None or retries is False or (isinstance(retries, Retry) and retries.total is False):
            return error
        try:
            _NO_MORE.increment(asked.method, asked.path, error=error, _pool=cast("Any", self))
        except HTTPError as final:
            both = join(final, failure)
            both.__cause__ = error
            return both
        return error

    def _timeout(self, timeout: Any) -> Timeout:
        if isinstance(timeout, Timeout):
            return timeout
        return self.timeout if timeout is Timeout.DEFAULT_TIMEOUT else Timeout.from_float(timeout)

    def _tidy(self, runtime: Runtime) -> None:
        """Drop the lanes that no new call will use."""
        self._leave_the_parents()
        view = runtime.view
        if view is not self._view:
            self._view = view
            for lane in self._drain(lambda key: key[0].gone or key[0].tls is not key[1]):
                lane.wire.close()

    def _leave_the_parents(self) -> None:
        """In a child after a fork: its lanes' sockets are the parent's."""
        pid = os.getpid()
        if pid != self._pid:
            self._pid = pid
            for lane in self._drain(lambda _: True):
                lane.wire.abandon()

    def _drain(self, which: Callable[[Any], bool]) -> list[Lane]:
        with self._guard.get():
            ended = [key for key in self._lanes if which(key)]
            return [self._lanes.pop(key) for key in ended]


def _abandon(lanes: dict[Any, Lane]) -> None:
    for lane in tuple(lanes.values()):
        lane.wire.abandon()


# --- managers -----------------------------------------------------------------------------------------------------------


def _call_path(kind: type) -> CallPath:
    """``urlopen`` and the connections of ``kind``, as far as these are urllib3's or botocore's own."""
    libraries = [cls for cls in kind.__mro__ if cls.__module__.partition(".")[0] in _LIBRARIES]
    methods = [(connectionpool.HTTPConnectionPool, name) for name in ("urlopen", "_make_request")]
    return CallPath(*methods, *((cls, "ConnectionCls") for cls in libraries if "ConnectionCls" in vars(cls)))


class HTTPConnectionPool(Front, connectionpool.HTTPConnectionPool):  # type: ignore[misc]
    """urllib3's pool of a host, in the mesh."""

    call_path = _call_path(connectionpool.HTTPConnectionPool)


class HTTPSConnectionPool(Front, connectionpool.HTTPSConnectionPool):  # type: ignore[misc]
    """The same over TLS."""

    call_path = _call_path(connectionpool.HTTPSConnectionPool)


_fronts: dict[type, type] = {
    connectionpool.HTTPConnectionPool: HTTPConnectionPool,
    connectionpool.HTTPSConnectionPool: HTTPSConnectionPool,
}


def adopt(manager: Any, runtime: Callable[[], Runtime]) -> None:
    """Pools that ``manager``, a ``urllib3.PoolManager``, makes from now on go through the mesh."""
    kinds = dict(manager.pool_classes_by_scheme)
    manager.pool_classes_by_scheme = {scheme: _maker(kind, runtime) for scheme, kind in kinds.items()}


def _maker(kind: Any, runtime: Callable[[], Runtime]) -> Any:
    """What makes fronts in place of ``kind``."""
    if not isinstance(kind, type):
        return kind
    cls = _fronts.get(kind)
    if cls is None:
        cls = _fronts[kind] = type(kind.__name__, (Front, kind), {"call_path": _call_path(kind)})

    def make(host: str, port: int | None = None, **arguments: Any) -> Any:
        front = cls(host, port, **arguments)
        front.prepare(runtime, arguments)
        return front

    return make


def let_go(manager: Any) -> None:
    """Close the connections of the fronts that ``manager`` has made, as :meth:`Front.let_go`."""
    with manager.pools.lock:
        fronts = [manager.pools.get(key) for key in manager.pools.keys()]  # noqa: SIM118 - no iteration otherwise
    for front in fronts:
        if isinstance(front, Front):
            front.let_go()


def notice_proxy(runtime: Runtime, scheme: str, host: str, port: int | None) -> bool:
    """Say that calls to ``host`` go to a proxy though it is of the mesh; whether that was said."""
    port = None if port == _DEFAULT_PORTS.get(scheme) else port
    shown = f"[{host}]" if ":" in host else host
    authority = shown if port is None else f"{shown}:{port}"
    if runtime.config.disabled or runtime.view.resolve(scheme, host, port, authority).via != "mesh":
        return False
    _log.warning(
        "meshlib: %s is of the mesh, but a proxy is set for it and wins (argument, session or environment); "
        "unset it or add the host to NO_PROXY to call it through the mesh",
        authority,
    )
    return True
