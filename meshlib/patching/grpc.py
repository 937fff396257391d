"""grpc: the channels that its four factories make go through the mesh, each call by itself.

Patched are the methods of the two classes of channels behind the factories. So whoever wraps a factory (OpenTelemetry, Sentry and
ddtrace do) or imported one by name, before or after, stands above the mesh and sees a call once, whatever its attempts; and a
channel is grpc's own as ever, with another in the mesh beside it, its *companion*, once a call goes there.

A channel that meshlib made for itself, and one that was made before the patch, has no companion.
"""

from __future__ import annotations

import functools
import os
from importlib import import_module
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

import grpc

from meshlib.patched import replace
from meshlib.patching.active import OFF, runtime
from meshlib.runtime.own_channels import PLAIN

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from meshlib.config import Config
    from meshlib.hosts.grpc.target import Target

__all__ = ["patch"]

_COMPANION = "_meshlib_companion"
_PROXY = "meshlib: %s is of the mesh, but its channel goes through a proxy: name the host in no_proxy to call it through the mesh"

#: Where grpc's core finds a proxy and the hosts that need none, in its order.
_PROXY_OPTION = "grpc.http_proxy"
_PROXIED_OPTION = "grpc.enable_http_proxy"
_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")
_UNPROXIED = ("no_grpc_proxy", "no_proxy")

#: Where grpc's core finds a bootstrap of its own, in its order.
_BOOTSTRAPS = (("GRPC_XDS_BOOTSTRAP", "xds.bootstrap"), ("GRPC_XDS_BOOTSTRAP_CONFIG", "xds.bootstrap_config"))
_BOOTSTRAP_OPTION = "xds_bootstrap"  # how its name ends


def patch(library: ModuleType) -> None:
    """Patch the library."""
    name = library.__name__
    _patch(name, import_module(f"{name}._channel").Channel, _CALLABLES, _METHODS)
    _patch(f"{name}.aio", import_module(f"{name}.aio._channel").Channel, _AIO_CALLABLES, _AIO_METHODS)


def _patch(
    factories: str,
    channel: type,
    callables: dict[str, type[_Callable]],
    methods: dict[str, Callable[[Any], Any]],
) -> None:
    for kind, callable_of in callables.items():
        methods = {**methods, kind: functools.partial(_factory, kind, callable_of)}
    for name, make in methods.items():
        replace(channel, name, make, f"{factories}.insecure_channel", f"{factories}.secure_channel")


# --- the companion ----------------------------------------------------------------------------------------------------------


class _Companion:
    """Of one channel: what makes its channel in the mesh, and that. Thread-safe."""

    def __init__(self, make: Callable[..., Any], target: Any, options: tuple[Any, ...]) -> None:
        self._make = make
        self._target = target.decode(errors="replace") if isinstance(target, bytes) else target
        self._options = options
        self._last: Any = OFF  # the runtime of the last call that there was one for
        self._made: dict[str, Any] = {}  # "channel"; None: it stays grpc's own
        self.closed = False

    @property
    def made(self) -> Any:
        """The channel in the mesh; None where there is none."""
        return self._made.get("channel")

    def channel(self) -> Any:
        """The channel in the mesh that a call goes through; None: it is grpc's own."""
        mesh = runtime()
        if mesh is OFF or self.closed:
            return None
        self._last = mesh
        if "channel" not in self._made:
            # setdefault is atomic: threads that come at once get the same one.
            self._made.setdefault("channel", self._found(mesh))
        return self._made["channel"]

    def _found(self, mesh: Any) -> Any:
        from meshlib.hosts.grpc.target import read_target

        target = read_target(self._target, self._options, secure=False)
        if target.outside or _has_a_bootstrap(target, self._options, mesh.config):
            return None
        if not _proxied(target, self._options):
            return self._make(self._target, self._options, self._runtime)
        if mesh.view.resolve(*target.place).via == "mesh":
            import logging

            logging.getLogger("meshlib").warning(_PROXY, target.place[3])
        return None

    def _runtime(self) -> Any:
        """What a call goes by that was found to be the mesh's, whatever changed since."""
        mesh = runtime()
        return self._last if mesh is OFF else mesh


def _of(channel: Any) -> _Companion | None:
    state = vars(channel)
    found: _Companion | None = None if PLAIN in state else state.get(_COMPANION)
    return found


def _through(channel: Any) -> Any:
    """The channel in the mesh that does it for ``channel``; None: it does it itself."""
    companion = _of(channel)
    return None if companion is None else companion.channel()


def _closing(channel: Any) -> Any:
    """The channel in the mesh that is to be closed with ``channel``, if there is one."""
    companion = _of(channel)
    if companion is None:
        return None
    companion.closed = True
    return companion.made


def _given(credentials: Any) -> grpc.ChannelCredentials | None:
    """As the application gave them, of what its channel is given."""
    return None if credentials is None else grpc.ChannelCredentials(credentials)


# --- what stays grpc's own --------------------------------------------------------------------------------------------------


def _has_a_bootstrap(target: Target, options: Any, config: Config) -> bool:
    """Whether grpc would ask a control plane that is not the mesh's."""
    if not target.strict:
        return False
    if target.text.partition(":")[2].startswith("//") and not target.text.partition("://")[2].startswith("/"):
        return True  # an authority, which its bootstrap has
    if any(str(key).endswith(_BOOTSTRAP_OPTION) for key, _ in options):
        return True
    for variable, key in _BOOTSTRAPS:
        if os.environ.get(variable):
            return config.source_of(key) != variable
    return False


def _proxied(target: Target, options: Any) -> bool:
    """Whether grpc goes through an HTTP proxy: an option's, or its environment's."""
    given = dict(options)
    if not given.get(_PROXIED_OPTION, 1):
        return False
    if not (given.get(_PROXY_OPTION) or any(os.environ.get(name) for name in _PROXIES)):
        return False
    host = target.place[1].strip("[]")
    without = next((os.environ[name] for name in _UNPROXIED if os.environ.get(name)), "")
    return not any(_named(entry.strip().lower(), host) for entry in without.split(","))


def _named(entry: str, host: str) -> bool:
    """Whether an entry of ``no_proxy`` is ``host``'s: the end of its name, or its network."""
    if not entry:
        return False
    if host.endswith(entry):
        return True
    try:
        return ip_address(host) in ip_network(entry, strict=False)
    except ValueError:
        return False


# --- the methods ------------------------------------------------------------------------------------------------------------


def _init(original: Any) -> Any:
    @functools.wraps(original)
    def init(self: Any, target: Any, options: Any, credentials: Any, compression: Any) -> None:
        options = tuple(options)

        def make(target: str, options: Any, runtime: Callable[[], Any]) -> Any:
            from meshlib.hosts.grpc.channel import MeshChannel

            return MeshChannel(target, _given(credentials), options, compression, runtime)

        original(self, target, options, credentials, compression)
        vars(self)[_COMPANION] = _Companion(make, target, options)

    return init


def _init_aio(original: Any) -> Any:
    @functools.wraps(original)
    def init(
        self: Any, target: Any, options: Any, credentials: Any, compression: Any, interceptors: Any
    ) -> None:
        options = tuple(options)
        interceptors = None if interceptors is None else tuple(interceptors)

        def make(target: str, options: Any, runtime: Callable[[], Any]) -> Any:
            from meshlib.hosts.grpc_aio.channel import AioMeshChannel

            return AioMeshChannel(target, _given(credentials), options, compression, interceptors, runtime)

        original(self, target, options, credentials, compression, interceptors)
        vars(self)[_COMPANION] = _Companion(make, target, options)

    return init


def _factory(kind: str, callable_of: type[_Callable], original: Any) -> Any:
    @functools.wraps(original)
    def factory(self: Any, *args: Any, **options: Any) -> Any:
        plain, companion = original(self, *args, **options), _of(self)
        return plain if companion is None else callable_of(plain, companion, kind, args, options)

    return factory


def _subscribe(original: Any) -> Any:
    @functools.wraps(original)
    def subscribe(self: Any, callback: Any, try_to_connect: bool | None = None) -> None:
        mesh = _through(self)
        if mesh is None:
            original(self, callback, try_to_connect)
        else:
            mesh.subscribe(callback, try_to_connect)

    return subscribe


def _unsubscribe(original: Any) -> Any:
    @functools.wraps(original)
    def unsubscribe(self: Any, callback: Any) -> None:
        companion = _of(self)
        if companion is not None and companion.made is not None:
            companion.made.unsubscribe(callback)
        original(self, callback)

    return unsubscribe


def _close(original: Any) -> Any:
    @functools.wraps(original)
    def close(self: Any, *exception: Any) -> Any:
        mesh = _closing(self)
        if mesh is not None:
            mesh.close()
        return original(self, *exception)

    return close


def _get_state(original: Any) -> Any:
    @functools.wraps(original)
    def get_state(self: Any, try_to_connect: bool = False) -> Any:
        mesh = _through(self)
        return original(self, try_to_connect) if mesh is None else mesh.get_state(try_to_connect)

    return get_state


def _wait_for_state_change(original: Any) -> Any:
    @functools.wraps(original)
    async def wait_for_state_change(self: Any, last_observed_state: Any) -> None:
        mesh = _through(self)
        if mesh is None:
            await original(self, last_observed_state)
        else:
            await mesh.wait_for_state_change(last_observed_state)

    return wait_for_state_change


def _aclose(original: Any) -> Any:
    @functools.wraps(original)
    async def close(self: Any, grace: float | None = None) -> None:
        mesh = _closing(self)
        if mesh is not None:
            await mesh.close(grace)
        await original(self, grace)

    return close


def _aexit(original: Any) -> Any:
    @functools.wraps(original)
    async def leave(self: Any, *exception: Any) -> Any:
        mesh = _closing(self)
        if mesh is not None:
            await mesh.close()
        return await original(self, *exception)

    return leave


_METHODS: dict[str, Callable[[Any], Any]] = {
    "__init__": _init,
    "subscribe": _subscribe,
    "unsubscribe": _unsubscribe,
    "close": _close,
    "__exit__": _close,
}
_AIO_METHODS: dict[str, Callable[[Any], Any]] = {
    "__init__": _init_aio,
    "get_state": _get_state,
    "wait_for_state_change": _wait_for_state_change,
    "close": _aclose,
    "__aexit__": _aexit,
}


# --- a channel's callables --------------------------------------------------------------------------------------------------


class _Callable:
    """A method of a service: the channel's own (``plain``), and its companion's. Thread-safe."""

    def __init__(
        self, plain: Any, companion: _Companion, kind: str, args: tuple[Any, ...], options: dict[str, Any]
    ) -> None:
        self._plain = plain
        self._companion = companion
        self._make = kind, args, options
        self._of_mesh: Any = None  # replaced whole; made twice where two threads come at once

    def _chosen(self) -> Any:
        channel = self._companion.channel()
        if channel is None:
            return self._plain
        found = self._of_mesh
        if found is None:
            kind, args, options = self._make
            found = self._of_mesh = getattr(channel, kind)(*args, **options)
        return found

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self._chosen()(*args, **options)


class _OneAnswer(_Callable):
    def with_call(self, *args: Any, **options: Any) -> Any:
        return self._chosen().with_call(*args, **options)

    def future(self, *args: Any, **options: Any) -> Any:
        return self._chosen().future(*args, **options)


class _UnaryUnary(_OneAnswer, grpc.UnaryUnaryMultiCallable): ...


class _UnaryStream(_Callable, grpc.UnaryStreamMultiCallable): ...


class _StreamUnary(_OneAnswer, grpc.StreamUnaryMultiCallable): ...


class _StreamStream(_Callable, grpc.StreamStreamMultiCallable): ...


class _AioUnaryUnary(_Callable, grpc.aio.UnaryUnaryMultiCallable): ...


class _AioUnaryStream(_Callable, grpc.aio.UnaryStreamMultiCallable): ...


class _AioStreamUnary(_Callable, grpc.aio.StreamUnaryMultiCallable): ...


class _AioStreamStream(_Callable, grpc.aio.StreamStreamMultiCallable): ...


_CALLABLES: dict[str, type[_Callable]] = {
    "unary_unary": _UnaryUnary,
    "unary_stream": _UnaryStream,
    "stream_unary": _StreamUnary,
    "stream_stream": _StreamStream,
}
_AIO_CALLABLES: dict[str, type[_Callable]] = {
    "unary_unary": _AioUnaryUnary,
    "unary_stream": _AioUnaryStream,
    "stream_unary": _AioStreamUnary,
    "stream_stream": _AioStreamStream,
}
