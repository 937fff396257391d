"""The transports of the httpx family, put together: what the application gave them, and the callers that stand behind them."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from meshlib.hosts.endpoints import WireSettings
from meshlib.hosts.httpx.host import HostDefault
from meshlib.hosts.httpx.wire import AsyncHttpxWire, HttpxWire
from meshlib.hosts.run import Caller
from meshlib.hosts.run_async import AsyncCaller
from meshlib.interceptors import CallPath
from meshlib.model.policy import RetryPolicy
from meshlib.pools import PoolSettings

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from meshlib.hosts.httpx.host import HttpxHost
    from meshlib.runtime.runtime import Runtime

__all__ = ["Notice", "around", "async_caller", "caller", "default_timeout", "elsewhere", "noticing"]

_log = logging.getLogger("meshlib")
_PROXY = (
    "a proxy is set for it and wins (argument, session or environment); unset it or add the host to NO_PROXY"
)
_SOCKET = "its transport's calls all go to the Unix socket that uds= names; leave that out"
#: Beyond this the doubling of a delay has no meaning, and a float overflows.
_MOST_DOUBLINGS = 64

Options = dict[str, Any]


def elsewhere(options: Options) -> str:
    """Why none of the calls is the mesh's: the application says where they all go; ``""`` where it does not."""
    if options.get("proxy") is not None:
        return _PROXY
    return _SOCKET if options.get("uds") is not None else ""


def caller(host: HttpxHost, runtime: Callable[[], Runtime], options: Options) -> Caller[Any, Any]:
    """What stands behind a blocking transport; ``options`` are those of the library's ``HTTPTransport``."""
    contexts = _Contexts(host, options)
    own = partial(plain, host.httpx.HTTPTransport, {**options, "verify": contexts.own, "cert": None})
    settings = _settings(host, options, contexts)
    return Caller(
        host,
        runtime,
        lambda runtime: HttpxWire(runtime, settings, host.whole, own),
        host.path,
        connect_retries(options.get("retries", 0)),
    )


def async_caller(host: HttpxHost, runtime: Callable[[], Runtime], options: Options) -> AsyncCaller[Any, Any]:
    """The same for an async one."""
    contexts = _Contexts(host, options)
    own = partial(plain, host.httpx.AsyncHTTPTransport, {**options, "verify": contexts.own, "cert": None})
    settings = _settings(host, options, contexts)
    return AsyncCaller(
        host,
        runtime,
        lambda runtime: AsyncHttpxWire(runtime, settings, host.whole, own),
        host.async_path,
        connect_retries(options.get("retries", 0)),
    )


def plain(kind: Any, options: Options) -> Any:
    """A transport for calls that are not of the mesh, also where its class is patched."""
    made = kind(**options)
    made._meshlib_plain = True
    return made


class _Contexts:
    """TLS contexts as the library reads ``verify``, ``cert`` and ``trust_env``: what they offer by ALPN is set on them, so
    calls over HTTP/2 and others have one each. A context that the application made itself is one, and is left as it is.
    """

    def __init__(self, host: HttpxHost, options: Options) -> None:
        self._make: Callable[[], ssl.SSLContext] = partial(
            host.httpx.create_ssl_context,
            verify=options.get("verify", True),
            cert=options.get("cert"),
            trust_env=options.get("trust_env", True),
        )
        #: The library's own transport's. Made now, so that what is wrong with the arguments is told now.
        self.own = self._make()
        self._made: dict[bool, ssl.SSLContext] = {}

    def get(self, http2: bool) -> ssl.SSLContext:
        """The context for connections that offer HTTP/2, or that do not."""
        found = self._made.get(http2)
        return found if found is not None else self._made.setdefault(http2, self._make())


def _settings(host: HttpxHost, options: Options, contexts: _Contexts) -> WireSettings:
    limits = options.get("limits", default_limits(host))
    socket_options = options.get("socket_options")
    return WireSettings(
        ssl=contexts.get,
        pool=PoolSettings(
            max_connections=limits.max_connections,
            chosen="limits" in options,
            max_idle=limits.max_keepalive_connections,
            keepalive=limits.keepalive_expiry,
        ),
        http1=options.get("http1", True),
        http2=options.get("http2", False),
        local_address=options.get("local_address"),
        socket_options=() if socket_options is None else tuple(socket_options),
    )


def default_limits(host: HttpxHost) -> Any:
    """What the library has where nobody says otherwise."""
    return host.httpx.Limits(max_connections=100, max_keepalive_connections=20)


def connect_retries(count: int) -> RetryPolicy | None:
    """What ``retries=`` of the library's transports orders: to connect again, at once and then after 0.5, 1, 2, … seconds."""
    if count <= 0:
        return None
    return RetryPolicy(on=frozenset({"connect-failure"}), retries=count, wait=_connect_delay)


def _connect_delay(state: Any) -> float:
    number: int = state.attempt_number
    return 0.0 if number == 1 else 0.5 * 2.0 ** min(number - 2, _MOST_DOUBLINGS)


def default_timeout(httpx: Any) -> Any:
    """The library's default timeout, marked as nobody's choice, so that what the mesh orders goes before it."""
    plain = httpx.Timeout(5.0)

    class DefaultTimeout(httpx.Timeout):  # type: ignore[misc]
        def as_dict(self) -> dict[str, float | None]:
            return HostDefault(super().as_dict())

        # Libraries ask whether a client has the default timeout, and take their own where it does (openai, anthropic).
        def __eq__(self, other: object) -> bool:
            return bool(plain == other)

        __hash__ = None  # type: ignore[assignment]  # as the library has it

    return DefaultTimeout(connect=plain.connect, read=plain.read, write=plain.write, pool=plain.pool)


class _Inner:
    """The transport that we stand before, as the one for direct calls. Whoever made it closes it."""

    def __init__(self, handle: Callable[..., Any], method: str) -> None:
        setattr(self, method, handle)

    def close(self) -> None:
        """Not ours."""

    async def aclose(self) -> None:
        """Not ours."""


def around(
    host: HttpxHost, runtime: Callable[[], Runtime], pool: Any, handle: Callable[..., Any], method: str
) -> Any:
    """What stands before one of the library's own transports. ``pool`` is that one's, of which the settings are taken;
    ``handle`` its own ``method`` (``handle_request`` or ``handle_async_request``).
    """
    most = pool._max_connections
    settings = WireSettings(
        ssl=lambda _: pool._ssl_context or host.httpx.create_ssl_context(),
        pool=PoolSettings(
            max_connections=most,
            chosen=most != default_limits(host).max_connections,
            max_idle=pool._max_keepalive_connections,
            keepalive=pool._keepalive_expiry,
        ),
        http1=pool._http1,
        http2=pool._http2,
        local_address=pool._local_address,
        socket_options=() if pool._socket_options is None else tuple(pool._socket_options),
    )
    own = partial(_Inner, handle, method)
    # A tool that stands before the library's transport has passed the call on.
    path = CallPath((type(pool), method))
    retry = connect_retries(pool._retries)
    if method == "handle_request":
        return Caller(
            host, runtime, lambda runtime: HttpxWire(runtime, settings, host.whole, own), path, retry
        )
    return AsyncCaller(
        host, runtime, lambda runtime: AsyncHttpxWire(runtime, settings, host.whole, own), path, retry
    )


class Notice:
    """Says once that calls to a host of the mesh go elsewhere, because the library was told to."""

    __slots__ = ("_host", "_said", "_why")

    def __init__(self, host: HttpxHost, why: str = _PROXY) -> None:
        self._host = host
        self._why = why
        self._said = False

    def look(self, runtime: Runtime, request: Any) -> None:
        """Look at a request that goes elsewhere."""
        if self._said:
            return
        place = self._host.place(request)
        if runtime.view.resolve(*place).via == "mesh":
            self._said = True
            _log.warning(
                "meshlib: %s is of the mesh, but %s to call it through the mesh", place[3], self._why
            )


def noticing(
    host: HttpxHost, transport: Any, runtime: Callable[[], Runtime], method: str, why: str = _PROXY
) -> Any:
    """``transport``, which carries whatever it is given, and says once that it carries calls to a host of the mesh."""
    inner, notice = getattr(transport, method), Notice(host, why)
    transport._meshlib_plain = True

    def handle(request: Any) -> Any:
        notice.look(runtime(), request)
        return inner(request)

    setattr(transport, method, handle)
    return transport
