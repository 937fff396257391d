"""A control plane for tests: a real gRPC server of the aggregated discovery service, in threads of this process.

with ControlPlane(build.listener("web", routes), build.cluster("a", [address])) as control_plane:
    client = Client(mesh=Mesh({"xds": {"server": control_plane.address}}))
    control_plane.update(build.cluster("a", [other]))        # pushed to who has subscribed
    control_plane.wait_for_ack("cluster")
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar

import grpc

from meshlib.testing.ads_state import State
from meshlib.testing.ads_stream import Faults, Stream
from meshlib.testing.grpc_server import GrpcServer
from meshlib.testing.journal import Journal, Request
from meshlib.testing.load_reports import LoadReports
from meshlib.testing.polls import PollRefused, Polls
from meshlib.testing.rest_server import RestServer
from meshlib.xds import schema
from meshlib.xds.discovery import REQUEST
from meshlib.xds.services import method

__all__ = ["ControlPlane", "Raw", "Resource"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Raw:
    """A resource given as bytes, right or wrong: `kind` is a short name or a type URL."""

    kind: str
    name: str
    value: bytes


# A mapping with "@type" (as `build` makes), a message of the schema (or of another protobuf package), or bytes.
Resource: TypeAlias = "Mapping[str, Any] | schema.WireMessage | Raw"

# Each stream occupies one worker for as long as it is open.
_STREAMS = 256


class ControlPlane(GrpcServer):
    """Serves resources over ADS and over the services of each type, state-of-the-world, delta and unary, on 127.0.0.1.

    `resources` are there from the start. `port` 0 takes a free one and keeps it over restarts. `credentials` make it
    a TLS server. `partial`: state-of-the-world responses for types other than listener and cluster hold only what
    changed, as istiod's do. `resend=False`: a client that reconnects with the newest version gets no answer. `wrap`:
    resources come inside a `Resource` message.

    It starts with `start()` or `with`. Every method may be called from every thread, those that
    start and stop it from one at a time; a change is queued for all open streams when the method returns. Type arguments ("kind") are short names (`listener`, `route`, `cluster`,
    `endpoint`, `secret`) or type URLs.
    """

    def __init__(
        self,
        *resources: Resource,
        port: int = 0,
        credentials: grpc.ServerCredentials | None = None,
        partial: bool = False,
        resend: bool = True,
        wrap: bool = False,
        identifier: str = "meshlib.testing",
    ) -> None:
        super().__init__("the control plane", port=port, credentials=credentials, workers=_STREAMS)
        self.identifier = identifier
        self._state = State()
        self._faults = Faults(partial=partial, resend=resend, wrap=wrap)
        self._journal = Journal()
        #: Its load reporting service.
        self.loads = LoadReports(self._journal)
        self._polls = Polls(self._state, self._faults, self._journal)
        self._lock = self._journal.changed  # guards the state, the faults, the streams and what each has sent
        self._streams: dict[int, Stream] = {}
        self._opened = 0
        self._state.replace(map(_packed, resources), None)

    def bootstrap(self, node: str = "test", **fields: Any) -> dict[str, Any]:
        """A gRPC bootstrap that points here, as the JSON of `GRPC_XDS_BOOTSTRAP` (gRFC A27); plain text."""
        server = {
            "server_uri": self.address,
            "channel_creds": [{"type": "insecure"}],
            "server_features": ["xds_v3"],
        }
        return {"xds_servers": [server], "node": {"id": node}, **fields}

    def rest(self) -> RestServer:
        """A server of the same resources by REST, on a port of its own, for a `with`; `url` is what `xds.server` takes.

        Its requests are among `requests`, with "rest" as their protocol; `refuse` answers them 503. It needs no `start` here.
        """
        return RestServer(self._polls)

    # -------------------------------------------------------------------------------------- resources

    def set(self, *resources: Resource, version: str | None = None) -> None:
        """Makes these all that there is; only types in which something changes get a new version and are pushed."""
        self._change(lambda: self._state.replace([_packed(each) for each in resources], version))

    def update(self, *resources: Resource, version: str | None = None) -> None:
        """Adds these or puts them in place of those of the same name, under a new version, changed or not.

        Versions count up by themselves; `version` names another one.
        """
        self._change(lambda: self._state.update([_packed(each) for each in resources], version))

    def remove(self, kind: str, *names: str, version: str | None = None) -> None:
        """Takes resources away. Raises KeyError for one that is not there."""
        self._change(lambda: self._state.remove(_url(kind), names, version))

    def push(self, *kinds: str) -> None:
        """Sends everything subscribed of these types (of all, without one) again, though nothing changed."""
        with self._lock:
            for stream in self._streams.values():
                stream.again([_url(kind) for kind in kinds] or stream.subscribed())

    def version(self, kind: str) -> str:
        """The version of a type; "" before it has one."""
        with self._lock:
            return self._state.versions.get(_url(kind), "")

    def names(self, kind: str) -> tuple[str, ...]:
        """The names of the resources of a type."""
        with self._lock:
            return tuple(self._state.resources.get(_url(kind), {}))

    def _change(self, change: Callable[[], list[str]]) -> None:
        with self._lock:
            urls = change()
            for stream in self._streams.values():
                stream.changed(urls)
            self._lock.notify_all()

    # ---------------------------------------------------------------------------------------- faults

    def drop_streams(
        self, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE, details: str = "dropped by the test"
    ) -> None:
        """Ends every open stream with this status; new ones are welcome."""
        with self._lock:
            for stream in self._streams.values():
                stream.end(code, details)

    def refuse(
        self,
        code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE,
        details: str = "refused by the test",
        *,
        protocol: Literal["", "sotw", "delta", "fetch", "rest"] = "",
    ) -> None:
        """Ends every new stream and poll (of that protocol) at once, until `accept`. Open ones stay.

        `refuse(UNIMPLEMENTED, protocol="delta")` makes a server that has state of the world only.
        """
        with self._lock:
            self._faults.refuse = (code, details)
            self._faults.refused = protocol

    def accept(self) -> None:
        """Takes new streams again."""
        with self._lock:
            self._faults.refuse = None

    def hold(self, *kinds: str) -> None:
        """Keeps answers of these types (of all, without one) back until `release`."""
        with self._lock:
            self._faults.held.update([_url(kind) for kind in kinds] or [""])

    def release(self, *kinds: str) -> None:
        """Sends what was held of these types (of all, without one), and holds nothing more of them."""
        with self._lock:
            if kinds:
                self._faults.held.difference_update(map(_url, kinds))
            else:
                self._faults.held.clear()
            for stream in self._streams.values():
                stream.release()

    def delay(self, seconds: float, *kinds: str) -> None:
        """Sends every answer of these types (of all, without one) that much later; 0 ends it."""
        with self._lock:
            self._faults.delays.update(dict.fromkeys([_url(kind) for kind in kinds] or [""], seconds))

    def send(self, message: schema.WireMessage) -> None:
        """Sends a DiscoveryResponse (DeltaDiscoveryResponse) as it is on every open stream: version, nonce and all."""
        self.send_bytes(message.SerializeToString())

    def send_bytes(self, data: bytes) -> None:
        """Sends bytes as one message on every open stream: garbage, as a rule."""
        with self._lock:
            for stream in self._streams.values():
                stream.send(data)

    # --------------------------------------------------------------------------------- what was seen

    @property
    def requests(self) -> tuple[Request, ...]:
        """Every request so far, in order of arrival."""
        return self._journal.requests()

    @property
    def seen(self) -> int:
        """How many requests have arrived: what the next one's `index` will be."""
        return self._journal.count

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The open streams."""
        with self._lock:
            return tuple(self._streams.values())

    @property
    def opened(self) -> int:
        """How many streams were ever opened; refused ones count."""
        return self._opened

    def wait_for(
        self, predicate: Callable[[], T], *, timeout: float = 5.0, what: str = "what is awaited"
    ) -> T:
        """Waits until `predicate()` is true, and gives what it returned. Seconds are real ones.

        It is asked again after each request, stream, and change of resources. Raises TimeoutError, which tells what
        came instead.
        """
        return self._journal.wait(predicate, timeout, what)

    def wait_for_request(
        self,
        kind: str | None = None,
        where: Callable[[Request], bool] = lambda _: True,
        *,
        after: int = 0,
        timeout: float = 5.0,
    ) -> Request:
        """The first request of this type for which `where` is true, with an index of at least `after`."""
        short = None if kind is None else schema.SHORT_NAMES.get(_url(kind), kind)
        found = self.wait_for(
            lambda: self._journal.first(
                lambda each: (short is None or each.kind == short) and where(each), after
            ),
            timeout=timeout,
            what=f"a {short or ''} request after #{after}",
        )
        assert found is not None
        return found

    def wait_for_ack(
        self, kind: str, version: str | None = None, *, after: int = 0, timeout: float = 5.0
    ) -> Request:
        """The first request that accepts a response of this type.

        With `version` (default: the newest), one that accepts that version.
        """
        wanted = version if version is not None else self.version(kind)
        return self.wait_for_request(
            kind,
            lambda each: each.is_ack and each.version == wanted,
            after=after,
            timeout=timeout,
        )

    def wait_for_nack(self, kind: str, *, after: int = 0, timeout: float = 5.0) -> Request:
        """The first request that rejects a response of this type; its `error` says why."""
        return self.wait_for_request(kind, lambda each: each.is_nack, after=after, timeout=timeout)

    def wait_for_streams(self, count: int = 1, *, timeout: float = 5.0) -> None:
        """Waits until exactly `count` streams are open."""
        self.wait_for(
            lambda: len(self._streams) == count, timeout=timeout, what=f"the state of {count} open streams"
        )

    # ---------------------------------------------------------------------------------------- the server

    _thread_name = "ads"

    def _install(self, server: grpc.Server) -> None:
        server.add_generic_rpc_handlers((_Handler(self._serve, self._fetch, self.loads),))

    def _end(self, grace: float | None) -> None:
        super()._end(grace)
        with self._lock:
            self._streams.clear()
            self._lock.notify_all()

    def _serve(
        self, protocol: str, incoming: Iterator[bytes], context: grpc.ServicerContext
    ) -> Iterator[bytes]:
        with self._lock:
            self._opened += 1
            refuse = self._faults.refuse if self._faults.refused in ("", protocol) else None
            stream = Stream(
                self._opened,
                protocol,
                context,
                state=self._state,
                faults=self._faults,
                journal=self._journal,
                identifier=self.identifier,
            )
            if refuse is None:
                self._streams[stream.number] = stream
            self._lock.notify_all()
        if refuse is not None:
            context.abort(*refuse)
        with self._closing(stream):
            yield from stream.serve(incoming)

    def _fetch(self, url: str, data: bytes, context: grpc.ServicerContext) -> bytes:
        request = schema.message(REQUEST).FromString(data)
        try:
            response = self._polls.answer("fetch", url, request, data)
        except PollRefused as refused:
            context.abort(refused.code, refused.details)
        if response is None:  # in go-control-plane's words
            context.abort(grpc.StatusCode.UNKNOWN, "skip fetch: version up to date")
        return bytes(response.SerializeToString())

    @contextlib.contextmanager
    def _closing(self, stream: Stream) -> Iterator[None]:
        try:
            yield
        finally:
            with self._lock:
                self._streams.pop(stream.number, None)
                self._lock.notify_all()


_Serve: TypeAlias = Callable[[str, Iterator[bytes], grpc.ServicerContext], Iterator[bytes]]
_Fetch: TypeAlias = Callable[[str, bytes, grpc.ServicerContext], bytes]


class _Handler(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in the stubs only
    """The methods of the aggregated discovery service and of each type's own, on plain bytes: a test may send what is no message."""

    def __init__(self, serve: _Serve, fetch: _Fetch, loads: LoadReports) -> None:
        self._methods = {
            schema.ADS_SOTW: _method(serve, "sotw"),
            schema.ADS_DELTA: _method(serve, "delta"),
            schema.LRS: grpc.stream_stream_rpc_method_handler(loads.serve),
        }
        for short, url in schema.TYPE_URLS.items():
            self._methods[method("v3", short, "Stream")] = _method(serve, "sotw")
            self._methods[method("v3", short, "Delta")] = _method(serve, "delta")
            self._methods[method("v3", short, "Fetch")] = _unary(fetch, url)

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        return self._methods.get(handler_call_details.method)


def _method(serve: _Serve, protocol: str) -> grpc.RpcMethodHandler[bytes, bytes]:
    return grpc.stream_stream_rpc_method_handler(lambda incoming, context: serve(protocol, incoming, context))


def _unary(fetch: _Fetch, url: str) -> grpc.RpcMethodHandler[bytes, bytes]:
    return grpc.unary_unary_rpc_method_handler(lambda data, context: fetch(url, data, context))


def _url(kind: str) -> str:
    if "/" in kind:
        return kind
    try:
        return schema.TYPE_URLS[kind]
    except KeyError:
        raise ValueError(
            f"a type is a type URL or one of {', '.join(schema.TYPE_URLS)}, not {kind!r}"
        ) from None


def _packed(resource: Resource) -> tuple[str, str, bytes]:
    """Type URL, name and bytes of a resource."""
    if isinstance(resource, Raw):
        return _url(resource.kind), resource.name, resource.value
    if not isinstance(resource, Mapping):
        return schema.type_url(resource), _name(resource), resource.SerializeToString(deterministic=True)
    url = resource.get("@type")
    if not isinstance(url, str) or not schema.knows(schema.type_name(url)):
        raise ValueError(f"a resource given as a mapping needs an '@type' that the schema has, not {url!r}")
    fields = {key: value for key, value in resource.items() if key != "@type"}
    return _packed(schema.from_json(schema.type_name(url), fields, path=str(fields.get("name", ""))))


def _name(message: schema.WireMessage) -> str:
    for field in ("name", "cluster_name"):
        if field in message.DESCRIPTOR.fields_by_name:
            return str(getattr(message, field))
    raise ValueError(f"{schema.full_name(message)} is no resource: it has no name")
