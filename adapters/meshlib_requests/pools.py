"""urllib3's pools in the mesh: each is urllib3's own pool for the host of a URL.

``urlopen`` is where urllib3, requests and the libraries built on them come by, so that redirects between hosts, cookies, hooks and
errors above it are theirs. Each call goes to the call engine; what urllib3's ``Retry`` asks for holds where the mesh orders no
retry, and each of its turns is a call of the engine that knows what the ones before have tried.
"""

from __future__ import annotations

import logging
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from urllib3 import connectionpool
from urllib3.exceptions import (
    HTTPError,
    InvalidHeader,
    MaxRetryError,
    ProtocolError,
    ProxyError,
    SSLError,
    TimeoutError,  # noqa: A004
    UnrewindableBodyError,
)
from urllib3.util import Retry, Timeout

from meshlib.errors import DeadlineExceeded, MeshError, Overloaded
from meshlib.hosts.run import Caller
from meshlib.interceptors import CallPath
from meshlib_requests.errors import alone, join_with
from meshlib_requests.host import HOST
from meshlib_requests.request import Request
from meshlib_requests.targets import target_of
from meshlib_requests.tls import Tls
from meshlib_requests.wire import UrllibWire

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from meshlib.core.plan import Plan
    from meshlib.model.call import Attempt, CallInfo
    from meshlib.runtime.runtime import Runtime

__all__ = ["MeshPool", "adopt", "let_go", "notice_proxy"]

_log = logging.getLogger("meshlib")
_DEFAULT_PORTS = {"http": 80, "https": 443}
#: Whose connection classes tools replace.
_LIBRARIES = frozenset({"botocore", "urllib3"})
#: The mesh ordered retries and made them; urllib3 makes none, and says what it says then. As requests' own default.
_NO_MORE = Retry(0, read=False)
#: After which urllib3 may try again; and what the mesh refuses.
_RETRIED = (TimeoutError, ProtocolError, SSLError, ProxyError, MeshError)


class MeshPool:
    """Mixed into urllib3's pools. Thread-safe.

    Attributes:
        runtime: Gives the runtime whose rules hold.
        authority: The host as it is written in Host; ``written_port`` None where it is the scheme's.
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
        """What a constructor would do; urllib3's has a signature of its own. ``arguments``: what that was given, beside host
        and port.
        """
        self.runtime = runtime
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = self.written_port = None if self.port == _DEFAULT_PORTS.get(self.scheme) else self.port
        self.authority = host if port is None else f"{host}:{port}"
        tls = Tls(self, arguments) if self.scheme == "https" else None
        known = weakref.ref(self)  # nobody shall hold the pool but who made it
        self._caller: Caller[Request, Any] = Caller(
            HOST,
            lambda: known().runtime(),  # type: ignore[union-attr]
            lambda runtime: UrllibWire(runtime, arguments, tls, known),
            self.call_path,
        )

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

        def plain(headers: Mapping[str, str] = lines, timeout: Any = timeout, *, alone: bool = False) -> Any:
            """By urllib3 to the URL as it is; ``alone``: others make the retries."""
            return super(MeshPool, self).urlopen(  # type: ignore[misc]
                method,
                url,
                headers=headers,
                timeout=timeout,
                retries=self._only_redirects(retries) if alone else retries,
                redirect=redirect,
                assert_same_host=assert_same_host,
                release_conn=release_conn,
                preload_content=preload_content,
                **options,
            )

        runtime = self.runtime()
        # A proxy wins over the mesh; and urllib3 says what is wrong with a foreign host.
        foreign = assert_same_host and not self.is_same_host(url)
        if runtime.config.disabled or self.proxy is not None or foreign:
            return plain()
        request = Request(self, method, target_of(url), lines, self._timeout(timeout), plain, options)
        raw = self._carry(runtime, request, retries, preload=preload_content)
        location = redirect and not request.direct and raw.get_redirect_location()
        return raw if not location else self._redirected(raw, location, request, preload=preload_content)

    def close(self) -> None:
        """As urllib3's: closed for good."""
        super().close()  # type: ignore[misc]
        self.let_go()

    def let_go(self) -> None:
        """Close what is idle, now, and what is in use when it is done. The pool can be used again."""
        self._caller.close()

    # --- parts --------------------------------------------------------------------------------------------------

    def _carry(
        self, runtime: Runtime, request: Request, asked: Retry | bool | int | None, *, preload: bool
    ) -> Any:
        """The response; where the mesh orders no retry, after as many calls of the engine as ``asked`` wants."""
        caller = self._caller
        retries = asked if isinstance(asked, Retry) else Retry.from_int(asked, default=self.retries)
        while True:
            exchange = caller.begin(request, runtime)
            try:
                raw = caller.finish(request, runtime, exchange)
                if request.direct:
                    return raw
                raw.retries = retries
                if preload:
                    raw.data  # noqa: B018 - it is read and kept
            except HTTPError as error:
                if request.direct:
                    raise
                left = self._after_failure(error, retries, exchange.plan, request)
                attempts = error.info.attempts if isinstance(error, MeshError) and error.info else ()
            else:
                raw._meshlib_info = _with_earlier(raw._meshlib_info, request.earlier)
                found = self._after_response(raw, retries, exchange.plan, request)
                if found is None:
                    return raw
                left, attempts = found, raw._meshlib_info.attempts
            retries = left
            if exchange.plan is not None:
                request.turn(exchange.plan, attempts)

    def _only_redirects(self, asked: Retry | bool | int | None) -> Retry:
        """What of ``asked`` is no retry."""
        retries = asked if isinstance(asked, Retry) else Retry.from_int(asked, default=self.retries)
        if retries.total is False:
            return retries
        return retries.new(connect=0, read=0, other=0, status_forcelist=(), respect_retry_after_header=False)

    def _after_failure(self, error: HTTPError, retries: Retry, plan: Plan | None, request: Request) -> Retry:
        """What is left of ``retries`` after a failure; raises the failure where nothing is."""
        failure = error if isinstance(error, MeshError) else None
        if failure is not None:
            failure.info = _with_earlier(failure.info, request.earlier)
            vars(error).update(url=request.target.path, **{"pool": self} if "pool" in vars(error) else {})
        if isinstance(error, Overloaded | InvalidHeader) or not isinstance(error, _RETRIED):
            raise error  # as urllib3 does where its pool has none to give, and where nobody knows how long a body is
        final = plan is None or plan.final or isinstance(error, DeadlineExceeded)
        if final and failure is not None and retries.total is not False:
            retries = _NO_MORE
        origin: Any = alone(error)
        try:
            retries = retries.increment(
                request.method,
                request.target.path,
                error=origin,
                _pool=cast("Any", self),
                _stacktrace=error.__traceback__,
            )
        except HTTPError as last:
            if failure is None:
                raise
            if last is origin:
                raise error from error.__cause__
            raise join_with(last, failure) from origin
        retries.sleep()
        return retries

    def _after_response(self, raw: Any, retries: Retry, plan: Plan | None, request: Request) -> Retry | None:
        """What is left of ``retries`` after a response that they are for; None: it is the caller's."""
        if plan is None or plan.final or not (retries.total or retries.status_forcelist):
            return None
        if not retries.is_retry(request.method, raw.status, bool(raw.headers.get("Retry-After"))):
            return None
        try:
            left = retries.increment(
                request.method, request.target.path, response=raw, _pool=cast("Any", self)
            )
        except MaxRetryError as error:
            if retries.raise_on_status:
                raw.drain_conn()
                error._meshlib_info = raw._meshlib_info  # type: ignore[attr-defined]
                raise
            return None
        raw.drain_conn()
        left.sleep(raw)
        return left

    def _redirected(self, raw: Any, location: str, request: Request, *, preload: bool) -> Any:
        """Follow a redirect for a caller of the pool itself, as urllib3's pool does: within its host."""
        method, headers, options = request.method, dict(request.headers), request.options
        options["body_pos"] = request.body_pos
        if raw.status == 303:
            method = "GET"
            options.update(body=None, chunked=False, body_pos=None)
            gone = {"content-encoding", "content-language", "content-length", "content-location", "content-type",
                    "digest", "last-modified", "transfer-encoding"}  # fmt: skip
            headers = {name: value for name, value in headers.items() if name.lower() not in gone}
        elif not request.replayable:
            raise UnrewindableBodyError("Unable to send the body again for redirecting: it can be read once")
        retries: Retry = raw.retries
        try:
            retries = retries.increment(method, request.target.path, response=raw, _pool=cast("Any", self))
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
            headers=headers,
            retries=retries,
            timeout=request.timeout,
            preload_content=preload,
            **options,
        )

    def _timeout(self, timeout: Any) -> Timeout:
        if isinstance(timeout, Timeout):
            return timeout
        return self.timeout if timeout is Timeout.DEFAULT_TIMEOUT else Timeout.from_float(timeout)


def _with_earlier(info: CallInfo | None, earlier: tuple[Attempt, ...]) -> Any:
    """``info`` with the attempts that were made before: each turn of urllib3's ``Retry`` begins a new call."""
    if not earlier or info is None:
        return info
    count = len(earlier)
    later = tuple(replace(one, number=one.number + count) for one in info.attempts)
    return replace(info, attempts=(*earlier, *later))


# --- managers -----------------------------------------------------------------------------------------------------------


def _call_path(kind: type) -> CallPath:
    """``urlopen`` and the connections of ``kind``, as far as these are urllib3's or botocore's own."""
    libraries = [cls for cls in kind.__mro__ if cls.__module__.partition(".")[0] in _LIBRARIES]
    methods = [(connectionpool.HTTPConnectionPool, name) for name in ("urlopen", "_make_request")]
    return CallPath(*methods, *((cls, "ConnectionCls") for cls in libraries if "ConnectionCls" in vars(cls)))


class HTTPConnectionPool(MeshPool, connectionpool.HTTPConnectionPool):  # type: ignore[misc]
    """urllib3's pool of a host, in the mesh."""

    call_path = _call_path(connectionpool.HTTPConnectionPool)


class HTTPSConnectionPool(MeshPool, connectionpool.HTTPSConnectionPool):  # type: ignore[misc]
    """The same over TLS."""

    call_path = _call_path(connectionpool.HTTPSConnectionPool)


_kinds: dict[type, type] = {
    connectionpool.HTTPConnectionPool: HTTPConnectionPool,
    connectionpool.HTTPSConnectionPool: HTTPSConnectionPool,
}


def adopt(manager: Any, runtime: Callable[[], Runtime]) -> None:
    """Pools that ``manager``, a ``urllib3.PoolManager``, makes from now on go through the mesh."""
    kinds = dict(manager.pool_classes_by_scheme)
    manager.pool_classes_by_scheme = {scheme: _maker(kind, runtime) for scheme, kind in kinds.items()}


def _maker(kind: Any, runtime: Callable[[], Runtime]) -> Any:
    """What makes pools of ours in place of ``kind``."""
    if not isinstance(kind, type):
        return kind
    cls = _kinds.get(kind)
    if cls is None:
        cls = _kinds[kind] = type(kind.__name__, (MeshPool, kind), {"call_path": _call_path(kind)})

    def make(host: str, port: int | None = None, **arguments: Any) -> Any:
        pool = cls(host, port, **arguments)
        pool.prepare(runtime, arguments)
        return pool

    return make


def let_go(manager: Any) -> None:
    """Close the connections of the pools that ``manager`` has made, as :meth:`MeshPool.let_go`."""
    with manager.pools.lock:
        pools = [manager.pools.get(key) for key in manager.pools.keys()]  # noqa: SIM118 - no iteration otherwise
    for pool in pools:
        if isinstance(pool, MeshPool):
            pool.let_go()


def notice_proxy(runtime: Runtime, url: str) -> bool:
    """Say that a call to ``url`` goes to a proxy though its host is of the mesh; whether that was said."""
    parts = urlsplit(url)
    scheme, host = parts.scheme, parts.hostname or ""
    port = None if parts.port == _DEFAULT_PORTS.get(scheme) else parts.port
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
