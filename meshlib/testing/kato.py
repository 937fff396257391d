"""A stand-in for the control plane of Kato and Rainbond: xDS v2 on a real gRPC server, in threads of this process.

    node = "demo_def-mesh4f_gr1a2b3c"            # namespace_plugin_alias: what a client says as its node.cluster
    with KatoControlPlane() as kato:
        kato.serve("gr4d5e6f", 5000, "10.0.0.7:5000")
        kato.configure(node, dependency("gr4d5e6f", 5000))
        client = Client(mesh=Mesh({"xds": {"api": "v2", "server": kato.address}, "node": {"cluster": node}}))
        client.get("http://127.0.0.1:5000/")

It has the agent's quirks (`meshlib.testing.kato_resources`) and its server's (`meshlib.testing.kato_cache`), and fails as that
does: `lose_watches`, `recreate`, `kill`, `restart`.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias, TypeVar

import grpc

from meshlib.testing.grpc_server import GrpcServer
from meshlib.testing.journal import Journal, Request
from meshlib.testing.kato_cache import Cache, FetchError, StreamState
from meshlib.testing.kato_http import KatoHttp
from meshlib.testing.kato_resources import CLUSTER, ENDPOINT, LISTENER, ROUTE, Service, node_parts, resources
from meshlib.xds import schema

__all__ = ["KatoControlPlane", "dependency", "inbound"]

T = TypeVar("T")
_STREAMS = 256
_REQUEST = "envoy.service.discovery.v3.DiscoveryRequest"  # of v2, too: the same bytes
_SECRET = "type.googleapis.com/envoy.api.v2.auth.Secret"
_SHORT = {LISTENER: "listener", CLUSTER: "cluster", ENDPOINT: "endpoint", ROUTE: "route", _SECRET: "secret"}
#: What is served: (service, what its methods end with, the type that they are of).
_SERVICES = (
    ("envoy.api.v2.ListenerDiscoveryService", "Listeners", LISTENER),
    ("envoy.api.v2.ClusterDiscoveryService", "Clusters", CLUSTER),
    ("envoy.api.v2.EndpointDiscoveryService", "Endpoints", ENDPOINT),
    ("envoy.api.v2.RouteDiscoveryService", "Routes", ROUTE),
    ("envoy.service.discovery.v2.SecretDiscoveryService", "Secrets", _SECRET),
)
_ADS = "envoy.service.discovery.v2.AggregatedDiscoveryService"


def dependency(alias: str, port: int, protocol: str = "http", **options: str) -> dict[str, Any]:
    """A row of ``base_services``: a component that is called. ``options`` as the governance plugin's: ``Domains``, ``Prefix``, ``Weight``, …"""
    return {"depend_service_alias": alias, "port": port, "protocol": protocol, "options": options}


def inbound(port: int, listen_port: int, protocol: str = "http", **options: str) -> dict[str, Any]:
    """A row of ``base_ports``: a port of our own, and where the plugin listens for it."""
    return {"port": port, "listen_port": listen_port, "protocol": protocol, "options": options}


class KatoControlPlane(GrpcServer):
    """The agent of a host, on 127.0.0.1. `port` 0 takes a free one and keeps it over restarts; `xds_cluster` is how the bootstrap of
    its Envoys calls it (Rainbond: ``rainbond_xds_cluster``).

    It starts with `start()` or `with`. Every method may be called from every thread, those that start and stop it from one
    at a time.
    """

    _thread_name = "kato"

    def __init__(self, *, port: int = 0, xds_cluster: str = "kato_xds_cluster") -> None:
        super().__init__("the Kato control plane", port=port, credentials=None, workers=_STREAMS)
        self._xds_cluster = xds_cluster
        self._journal = Journal()
        self._lock = self._journal.changed  # guards all of the following
        self._cache = Cache()
        self._versions: dict[str, int] = {}
        self._settings: dict[str, Mapping[str, Any]] = {}
        self._services: dict[tuple[str, int], Service] = {}
        self._open: set[_Stream] = set()
        self._opened = 0

    # -------------------------------------------------------------------------------------- what there is

    def serve(self, alias: str, port: int, *ready: str, unready: Iterable[str] = ()) -> None:
        """A Kubernetes Service and its Endpoints, in one subset. `unready`: pods that are not."""
        self.serve_service(Service(alias, port, (ready,), tuple(unready)))

    def serve_service(self, service: Service) -> None:
        """The same with all that may be said of one."""
        with self._lock:
            self._services[service.alias, service.port] = service
            self._recalculate()

    def configure(self, node: str, *rows: Mapping[str, Any]) -> None:
        """The settings of a node's governance plugin, of `dependency` and `inbound`."""
        services = [row for row in rows if "listen_port" not in row]
        self.configure_map(
            node, {"base_services": services, "base_ports": [row for row in rows if row not in services]}
        )

    def configure_map(self, node: str, settings: Mapping[str, Any]) -> None:
        """The same as the JSON of its config map."""
        node_parts(node, self._xds_cluster)
        with self._lock:
            self._settings[node] = settings
            self._recalculate(node)

    def version(self, node: str) -> str:
        """Of the node's snapshot; ``""`` where it has none."""
        with self._lock:
            snapshot = self._cache.snapshots.get(node)
            return snapshot.version if snapshot is not None else ""

    def watches(self, node: str) -> int:
        """How many streams of the node wait for its next snapshot: those that have acknowledged, or refused, the last."""
        with self._lock:
            return self._cache.watching(node)

    def _recalculate(self, *nodes: str) -> None:
        """A new version for these nodes (for all), of every type; a snapshot without a cluster or a listener is not published."""
        for node in nodes or tuple(self._settings):
            place = node_parts(node, self._xds_cluster)
            made = resources(place, self._settings[node], tuple(self._services.values()))
            self._versions[node] = self._versions.get(node, 0) + 1
            if made[LISTENER] and made[CLUSTER]:
                self._cache.set(node, f"version_{self._versions[node]}", {**made, ROUTE: []})
        self._lock.notify_all()

    # ---------------------------------------------------------------------------------------- what goes wrong

    def recreate(self, node: str, *rows: Mapping[str, Any]) -> None:
        """The config map is deleted and made anew: streams that are open never hear again, and versions begin anew."""
        self.lose_watches(node)
        self.configure(node, *rows)

    def lose_watches(self, node: str) -> None:
        """The node is forgotten, and every watch with it; its streams stay open."""
        with self._lock:
            self._cache.clear(node)
            self._versions.pop(node, None)
            self._settings.pop(node, None)

    def drop_streams(
        self, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE, details: str = "dropped by the test"
    ) -> None:
        """Ends every open stream with this status."""
        with self._lock:
            for stream in self._open:
                stream.end(code, details)

    def send_bytes(self, data: bytes, kind: str) -> None:
        """Sends bytes as one message on every open stream of that type."""
        with self._lock:
            for stream in self._open:
                if stream.kind == kind:
                    stream.put(data)

    def start(self) -> KatoControlPlane:
        """Starts to serve; the agent keeps nothing, so that each node's versions begin anew."""
        if not self.running:
            with self._lock:
                self._cache, self._versions = Cache(), {}
                self._recalculate()
            super().start()
        return self

    # --------------------------------------------------------------------------------- what was seen

    @property
    def requests(self) -> tuple[Request, ...]:
        """Every request so far, in order of arrival; `protocol` is "v2", or "fetch" of a unary one."""
        return self._journal.requests()

    @property
    def opened(self) -> int:
        """How many streams were ever opened."""
        return self._opened

    @property
    def streams(self) -> tuple[str, ...]:
        """The types (short names, or "ads") of the open streams, sorted."""
        with self._lock:
            return tuple(sorted(stream.kind for stream in self._open))

    def wait_for(
        self, predicate: Callable[[], T], *, timeout: float = 5.0, what: str = "what is awaited"
    ) -> T:
        """As `ControlPlane.wait_for`."""
        return self._journal.wait(predicate, timeout, what)

    def wait_for_request(
        self,
        kind: str,
        where: Callable[[Request], bool] = lambda _: True,
        *,
        after: int = 0,
        timeout: float = 5.0,
    ) -> Request:
        """The first request of this type for which `where` is true, with an index of at least `after`."""
        found = self.wait_for(
            lambda: self._journal.first(lambda each: each.kind == kind and where(each), after),
            timeout=timeout,
            what=f"a {kind} request after #{after}",
        )
        assert found is not None
        return found

    def wait_for_ack(self, kind: str, version: str, *, after: int = 0, timeout: float = 5.0) -> Request:
        """The first request that accepts that version of this type."""
        return self.wait_for_request(
            kind, lambda each: each.is_ack and each.version == version, after=after, timeout=timeout
        )

    # ------------------------------------------------------------------------------- the agent's other ports

    def api(self) -> KatoHttp:
        """The agent's HTTP API, for a `with`: ``/v1/resources/{tenant}/{alias}/{plugin}`` and ``/v1/registration/{cluster}``."""
        return KatoHttp(self._api)

    def sidecar(self, node: str) -> KatoHttp:
        """The admin page of the node's sidecar, for a `with`: ``/ready`` and ``/listeners``. It has the last state that was published, also
        while the agent is away.
        """
        return KatoHttp(lambda path: self._admin(node, path))

    def _api(self, path: str) -> tuple[int, object]:
        parts = path.strip("/").split("/")
        with self._lock:
            if parts[:2] == ["v1", "resources"] and len(parts) == 5:
                found = self._settings.get(f"{parts[2]}_{parts[4]}_{parts[3]}")
                return (404, {"msg": "not found"}) if found is None else (200, found)
            if parts[:2] == ["v1", "registration"] and len(parts) == 3:
                return 200, {"hosts": self._hosts(parts[2])}
            if parts[:2] == ["v1", "routes"]:
                return 200, ""
        return 404, {"msg": "not found"}

    def _hosts(self, cluster: str) -> list[dict[str, object]]:
        alias, _, port = cluster.rpartition("_")
        found = self._services.get((alias.rpartition("_")[2], int(port) if port.isdecimal() else 0))
        pairs = (each.rpartition(":") for subset in (found.subsets if found else ()) for each in subset)
        return [{"ip_address": host, "port": int(number), "tags": {}} for host, _, number in pairs]

    def _admin(self, node: str, path: str) -> tuple[int, object]:
        with self._lock:
            snapshot = self._cache.snapshots.get(node)
            held = snapshot.resources[LISTENER] if snapshot is not None else ()
        if path == "/ready":
            return (200, "LIVE\n") if held else (503, "PRE_INITIALIZING\n")
        if path == "/listeners":
            return 200, "".join(_shown(packed) for _, packed in held)
        return 404, "invalid path\n"

    # ---------------------------------------------------------------------------------------- the server

    def _install(self, server: grpc.Server) -> None:
        server.add_generic_rpc_handlers((_Handler(self),))

    def _end(self, grace: float | None) -> None:
        super()._end(grace)
        with self._lock:
            self._open.clear()
            self._lock.notify_all()

    def stream(
        self, default: str, incoming: Iterator[bytes], context: grpc.ServicerContext
    ) -> Iterator[bytes]:
        """The answers of one stream."""
        with self._lock:
            self._opened += 1
            stream = _Stream(self._opened, default, self._cache, self._journal, context)
            self._open.add(stream)
            self._lock.notify_all()
        try:
            yield from stream.serve(incoming)
        finally:
            with self._lock:
                stream.over()
                self._open.discard(stream)
                self._lock.notify_all()

    def fetch(self, url: str, data: bytes, context: grpc.ServicerContext) -> bytes:
        """The answer of one unary call."""
        request = schema.message(_REQUEST).FromString(data)
        self._journal.add(lambda index: _record(index, 0, "fetch", url, request, data))
        with self._lock:
            try:
                return bytes(self._cache.fetch(str(request.node.cluster), url, request).SerializeToString())
            except FetchError as problem:
                words = str(problem)
        context.abort(grpc.StatusCode.UNKNOWN, words)
        raise AssertionError("abort raises")


class _Stream:
    """One stream: reads requests on one thread, sends responses from another."""

    def __init__(
        self, number: int, default: str, cache: Cache, journal: Journal, context: grpc.ServicerContext
    ) -> None:
        self.kind = _SHORT.get(default, "ads")
        self._number = number
        self._default = default
        self._journal = journal
        self._context = context
        self._outgoing: queue.SimpleQueue[bytes | tuple[grpc.StatusCode, str] | None] = queue.SimpleQueue()
        self._state = StreamState(cache, default, lambda response: self.put(response.SerializeToString()))

    def serve(self, incoming: Iterator[bytes]) -> Iterator[bytes]:
        if not self._context.add_callback(lambda: self._outgoing.put(None)):
            return
        threading.Thread(
            target=self._read, args=(incoming,), name=f"kato-read-{self._number}", daemon=True
        ).start()
        while (item := self._outgoing.get()) is not None:
            if isinstance(item, tuple):
                self._context.abort(*item)
            yield item

    def put(self, data: bytes) -> None:
        self._outgoing.put(data)

    def end(self, code: grpc.StatusCode, details: str) -> None:
        self._outgoing.put((code, details))

    def over(self) -> None:
        """The lock is held."""
        self._state.end()

    def _read(self, incoming: Iterator[bytes]) -> None:
        try:
            for data in incoming:
                self._received(data)
        except Exception:  # noqa: BLE001  gRPC ends the iterator of a cancelled stream with a bare Exception
            self._outgoing.put(None)
        self._outgoing.put(None)

    def _received(self, data: bytes) -> None:
        try:
            request = schema.message(_REQUEST).FromString(data)
        except schema.DecodeError as problem:
            self.end(grpc.StatusCode.INTERNAL, str(problem))
            return
        url = str(request.type_url) or self._default
        with self._journal.changed:
            self._journal.add(lambda index: _record(index, self._number, "v2", url, request, data))
            wrong = self._state.request(request)
        if wrong:
            self.end(grpc.StatusCode.INVALID_ARGUMENT, wrong)


_Method: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"


class _Handler(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in the stubs only
    """The methods of the six services, on plain bytes. What is not here, v3 above all, is UNIMPLEMENTED."""

    def __init__(self, plane: KatoControlPlane) -> None:
        self._methods: dict[str, _Method] = {
            f"/{_ADS}/StreamAggregatedResources": _streaming(plane, ""),
            f"/{_ADS}/DeltaAggregatedResources": _no_delta(),
        }
        for service, plural, url in _SERVICES:
            self._methods[f"/{service}/Stream{plural}"] = _streaming(plane, url)
            self._methods[f"/{service}/Delta{plural}"] = _no_delta()
            self._methods[f"/{service}/Fetch{plural}"] = _unary(plane, url)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> _Method | None:
        return self._methods.get(handler_call_details.method)


def _streaming(plane: KatoControlPlane, url: str) -> _Method:
    return grpc.stream_stream_rpc_method_handler(
        lambda incoming, context: plane.stream(url, incoming, context)
    )


def _unary(plane: KatoControlPlane, url: str) -> _Method:
    return grpc.unary_unary_rpc_method_handler(lambda data, context: plane.fetch(url, data, context))


def _no_delta() -> _Method:
    def refuse(incoming: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        del incoming
        context.set_code(grpc.StatusCode.UNKNOWN)
        context.set_details("not implemented")
        return iter(())

    return grpc.stream_stream_rpc_method_handler(refuse)


def _record(index: int, stream: int, protocol: str, url: str, message: Any, raw: bytes) -> Request:
    refused = message.HasField("error_detail")
    return Request(
        index=index,
        stream=stream,
        protocol=protocol,
        kind=_SHORT.get(url, url),
        names=tuple(message.resource_names),
        unsubscribe=(),
        version=message.version_info,
        nonce=message.response_nonce,
        error=message.error_detail.message if refused else None,
        error_code=message.error_detail.code if refused else None,
        node=message.node if message.HasField("node") else None,
        initial_versions={},
        raw=raw,
        at=time.monotonic(),
    )


def _shown(packed: schema.WireMessage) -> str:
    made = schema.message("envoy.config.listener.v3.Listener").FromString(packed.value)
    where = made.address.socket_address
    return f"{made.name}::{where.address}:{where.port_value}\n"
