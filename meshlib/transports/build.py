"""The transports of one host library, put together: settings, the library's own transport, and bodies."""

from __future__ import annotations

import logging
import ssl
from functools import partial
from typing import TYPE_CHECKING, Any

from meshlib.interceptors import CallPath
from meshlib.model.policy import RetryPolicy
from meshlib.transports.http import BodyLogic, SyncTransport
from meshlib.transports.http_async import AsyncBodyLogic, AsyncTransport
from meshlib.transports.pools import Settings
from meshlib.transports.request import HostDefault, target_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from meshlib.runtime.runtime import Runtime
    from meshlib.transports.kit import Kit

__all__ = ["around", "async_transport", "default_timeout", "noticing", "sync_transport"]

_log = logging.getLogger("meshlib")
_PROXY = (
    "a proxy is set for it and wins (argument, session or environment); unset it or add the host to NO_PROXY"
)
_SOCKET = "its transport's calls all go to the Unix socket that uds= names; leave that out"
#: Beyond this the doubling of a delay has no meaning, and a float overflows.
_MOST_DOUBLINGS = 64


def _settings(kit: Kit, context: ssl.SSLContext, options: dict[str, Any]) -> Settings:
    limits = options.get("limits", _default_limits(kit))
    socket_options: Iterable[Any] | None = options.get("socket_options")
    return Settings(
        ssl=lambda: context,
        http1=options.get("http1", True),
        http2=options.get("http2", False),
        max_connections=limits.max_connections,
        chosen="limits" in options,
        max_idle=limits.max_keepalive_connections,
        keepalive=limits.keepalive_expiry,
        local_address=options.get("local_address"),
        socket_options=None if socket_options is None else tuple(socket_options),
        retry=_connect_retries(options.get("retries", 0)),
    )


def _default_limits(kit: Kit) -> Any:
    """What httpx has where nobody says otherwise."""
    return kit.httpx.Limits(max_connections=100, max_keepalive_connections=20)


def _connect_retries(count: int) -> RetryPolicy | None:
    """What ``retries=`` of httpx's transports orders: to connect again, at once and then after 0.5, 1, 2, … seconds."""
    if count <= 0:
        return None
    return RetryPolicy(on=frozenset({"connect-failure"}), retries=count, wait=_connect_delay)


def _connect_delay(state: Any) -> float:
    number: int = state.attempt_number
    return 0.0 if number == 1 else 0.5 * 2.0 ** min(number - 2, _MOST_DOUBLINGS)


def _elsewhere(options: dict[str, Any]) -> str:
    """Why none of the calls is the mesh's: the application says where they all go; ``""`` where it does not."""
    if options.get("proxy") is not None:
        return _PROXY
    return _SOCKET if options.get("uds") is not None else ""


def _context(kit: Kit, options: dict[str, Any]) -> ssl.SSLContext:
    """The host library's own reading of ``verify``, ``cert`` and ``trust_env``; raises what it raises."""
    context: ssl.SSLContext = kit.httpx.create_ssl_context(
        verify=options.get("verify", True),
        cert=options.get("cert"),
        trust_env=options.get("trust_env", True),
    )
    return context


def sync_transport(kit: Kit, runtime: Callable[[], Runtime], options: dict[str, Any]) -> Any:
    """The logic of a blocking transport; ``options`` are those of the host library's ``HTTPTransport``."""
    if why := _elsewhere(options):
        return noticing(_plain(kit.httpx.HTTPTransport, options), runtime, "handle_request", why)
    context = _context(kit, options)
    own = partial(_plain, kit.httpx.HTTPTransport, {**options, "verify": context, "cert": None})
    body = type("Body", (BodyLogic, kit.httpx.SyncByteStream), {})
    return SyncTransport(kit, runtime, _settings(kit, context, options), own, body, kit.path)


def async_transport(kit: Kit, runtime: Callable[[], Runtime], options: dict[str, Any]) -> Any:
    """The same for an async one."""
    if why := _elsewhere(options):
        return noticing(_plain(kit.httpx.AsyncHTTPTransport, options), runtime, "handle_async_request", why)
    context = _context(kit, options)
    own = partial(_plain, kit.httpx.AsyncHTTPTransport, {**options, "verify": context, "cert": None})
    body = type("AsyncBody", (AsyncBodyLogic, kit.httpx.AsyncByteStream), {})
    return AsyncTransport(kit, runtime, _settings(kit, context, options), own, body, kit.async_path)


def _plain(kind: Any, options: dict[str, Any]) -> Any:
    """A transport for calls that are not of the mesh, also where its class is patched."""
    made = kind(**options)
    made._meshlib_plain = True
    return made


class _Inner:
    """The transport that we stand before, as the one for direct calls. Whoever made it closes it."""

    def __init__(self, handle: Callable[..., Any], method: str) -> None:
        setattr(self, method, handle)

    def close(self) -> None:
        """Not ours."""

    async def aclose(self) -> None:
        """Not ours."""


def around(
    kit: Kit, runtime: Callable[[], Runtime], pool: Any, handle: Callable[..., Any], method: str
) -> SyncTransport | AsyncTransport:
    """The logic of a transport that stands before one of the host library's own. ``pool`` is that one's, of which the
    settings are taken; ``handle`` its own ``method`` (``handle_request`` or ``handle_async_request``).
    """
    settings = Settings(
        ssl=lambda: pool._ssl_context or kit.httpx.create_ssl_context(),
        http1=pool._http1,
        http2=pool._http2,
        max_connections=pool._max_connections,
        chosen=pool._max_connections != _default_limits(kit).max_connections,
        max_idle=pool._max_keepalive_connections,
        keepalive=pool._keepalive_expiry,
        local_address=pool._local_address,
        socket_options=None if pool._socket_options is None else tuple(pool._socket_options),
        retry=_connect_retries(pool._retries),
    )
    own = partial(_Inner, handle, method)
    # A tool that stands before the library's transport has passed the call on.
    path = CallPath((type(pool), method))
    if method == "handle_request":
        body = type("Body", (BodyLogic, kit.httpx.SyncByteStream), {})
        return SyncTransport(kit, runtime, settings, own, body, path)
    body = type("AsyncBody", (AsyncBodyLogic, kit.httpx.AsyncByteStream), {})
    return AsyncTransport(kit, runtime, settings, own, body, path)


def default_timeout(kit: Kit) -> Any:
    """The host library's default timeout, marked as nobody's choice, so that what the mesh orders goes before it."""
    plain = kit.httpx.Timeout(5.0)

    class DefaultTimeout(kit.httpx.Timeout):  # type: ignore[name-defined,misc]
        def as_dict(self) -> dict[str, float | None]:
            return HostDefault(super().as_dict())

        # Libraries ask whether a client has the default timeout, and take their own where it does (openai, anthropic).
        def __eq__(self, other: object) -> bool:
            return bool(plain == other)

        __hash__ = None  # type: ignore[assignment]  # as the library has it

    return DefaultTimeout(connect=plain.connect, read=plain.read, write=plain.write, pool=plain.pool)


def noticing(transport: Any, runtime: Callable[[], Runtime], method: str, why: str = _PROXY) -> Any:
    """``transport``, which carries whatever it is given, and says once that it carries calls to a host of the mesh."""
    notice, inner = _Notice(runtime, why), getattr(transport, method)

    def handle(request: Any) -> Any:
        notice.look(request)
        return inner(request)

    setattr(transport, method, handle)
    return transport


class _Notice:
    """Says once that calls to a host of the mesh go elsewhere, because the host library was told to."""

    def __init__(self, runtime: Callable[[], Runtime], why: str) -> None:
        self._runtime = runtime
        self._why = why
        self._said = False

    def look(self, request: Any) -> None:
        """Look at a request that goes elsewhere."""
        if self._said:
            return
        scheme, host, port, authority = target_of(request)
        if self._runtime().view.resolve(scheme, host, port, authority).via == "mesh":
            self._said = True
            _log.warning(
                "meshlib: %s is of the mesh, but %s to call it through the mesh", authority, self._why
            )
