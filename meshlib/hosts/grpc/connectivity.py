"""The state of a channel in the mesh, made of what is known of its target and of its subchannels.

    the target is not known yet                       CONNECTING where it is asked to connect, else IDLE
    its listener, routes or clusters cannot be had    TRANSIENT_FAILURE
    one of its subchannels stands                     READY
    else the best of them; none was made yet          CONNECTING, IDLE, TRANSIENT_FAILURE; IDLE

To connect it begins with one endpoint of each cluster that its virtual host names. grpc's own channels watch their state in a
thread each; here the worker looks, as long as somebody is subscribed.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import grpc

from meshlib.core.upstream import PickContext
from meshlib.errors import NoHealthyEndpoint
from meshlib.model.route import Forward
from meshlib.runtime import threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from meshlib.core.resolution import Resolution
    from meshlib.core.upstream import Upstream
    from meshlib.hosts.grpc.subchannels import Subchannels
    from meshlib.hosts.grpc.target import Target
    from meshlib.hosts.grpc.wire import GrpcWire
    from meshlib.runtime.runtime import Runtime

__all__ = ["LOOK", "Connectivity", "state_of"]

#: Seconds between looks; grpc's own channels look each 0.2 s.
LOOK = 0.1

_IDLE, _CONNECTING, _READY = (
    grpc.ChannelConnectivity.IDLE,
    grpc.ChannelConnectivity.CONNECTING,
    grpc.ChannelConnectivity.READY,
)
_FAILURE, _SHUTDOWN = grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN
#: As grpc's core numbers them, the best first.
_BEST = ((2, _READY), (1, _CONNECTING), (0, _IDLE), (3, _FAILURE))


def state_of(
    runtime: Runtime,
    target: Target,
    subchannels: Subchannels[Any],
    *,
    connect: bool,
) -> grpc.ChannelConnectivity:
    """The state of a channel to ``target``, which is to ``connect``."""
    resolution = runtime.view.resolve(*target.place)
    via = resolution.via
    if via == "wait" or (via == "direct" and resolution.unanswered):
        if connect:
            runtime.want(resolution.name, target.place[3])
        return _FAILURE if resolution.hopeless else _CONNECTING if connect else _IDLE
    if target.outside or (via == "direct" and not target.strict) or runtime.config.disabled:
        own = subchannels.own_state(connect=connect)
        return next((state for number, state in _BEST if number == own), _SHUTDOWN)
    if via != "mesh":
        return _FAILURE
    found = set(subchannels.states())
    if connect and 2 not in found:
        found.update(_connect(runtime, resolution, target, subchannels))
    return next((state for number, state in _BEST if number in found), _IDLE)


def _connect(
    runtime: Runtime, resolution: Resolution, target: Target, subchannels: Subchannels[Any]
) -> Iterator[int]:
    """Begin to connect; the states that follow."""
    authority = target.place[3]
    for name in _clusters(resolution, authority):
        upstream: Upstream | str = runtime.env.upstream(resolution.part, name)
        if isinstance(upstream, str):
            yield 3 if upstream else 1
            continue
        leaf, there, _ = upstream.chosen(PickContext(grpc=True))
        endpoint = None if leaf is None else leaf.peek(there)
        if leaf is not None and endpoint is not None:
            try:
                subchannels.connect(endpoint, leaf, authority)
            except NoHealthyEndpoint:
                yield 3
            else:
                yield 1
        else:
            yield 1 if upstream.cluster.assignment is None else 3
    yield from subchannels.states()


def _clusters(resolution: Resolution, authority: str) -> set[str]:
    routes = resolution.routes
    host = routes.grpc.virtual_host(authority) if routes is not None else None
    found: set[str] = set()
    for route in host.routes if host is not None else ():
        action = route.match.route.action
        if isinstance(action, Forward):
            found.update(share.cluster for share in action.weighted)
            found.add(action.cluster)
    return found - {""}


class Connectivity:
    """Who is told of a channel's state. Lock: ``_lock`` guards the subscribers; nobody is told under it."""

    def __init__(self, runtime: Callable[[], Runtime], target: Target, wire: Callable[[], GrpcWire]) -> None:
        self._runtime = runtime
        self._target = target
        self._wire = wire
        self._lock = threading.Lock()
        self._told: list[list[Any]] = []  # each: callback, and the state it was told last
        self._connect = False
        self._looking = False
        self._closed = False

    def subscribe(
        self, callback: Callable[[grpc.ChannelConnectivity], None], *, try_to_connect: bool
    ) -> None:
        with self._lock:
            if self._closed:  # as grpc: nobody is told
                return
            self._told.append([callback, None])
            self._connect = self._connect or try_to_connect
            begin, self._looking = not self._looking, True
        if begin:
            self._runtime().worker.post(self._look)

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        with self._lock:
            # As grpc: by equality, one of them.
            for entry in self._told:
                if entry[0] == callback:
                    self._told.remove(entry)
                    break

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._told.clear()

    def _look(self) -> None:
        if self._closed:
            return
        runtime, wire = self._runtime(), self._wire()
        try:
            state = state_of(runtime, self._target, wire.subchannels, connect=self._connect)
        except ValueError:
            if self._closed:  # meanwhile
                return
            raise
        with self._lock:
            callbacks = [entry[0] for entry in self._told if entry[1] is not state]
            for entry in self._told:
                entry[1] = state
            self._looking = again = bool(self._told)
            if state is _READY:
                self._connect = False
        if callbacks:
            # Somebody else's code, which may take its time.
            threads.start(threading.Thread(target=_tell, args=(callbacks, state), daemon=True))
        if again:
            runtime.worker.later(LOOK, self._look)


def _tell(
    callbacks: list[Callable[[grpc.ChannelConnectivity], None]], state: grpc.ChannelConnectivity
) -> None:
    for callback in callbacks:
        try:
            callback(state)
        except Exception:
            import logging

            logging.getLogger("meshlib").exception("meshlib: a callback of a channel's state failed")
