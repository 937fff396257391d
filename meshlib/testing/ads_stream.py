"""One stream of the discovery service: reads requests on one thread, sends responses from another.

The stream's `lock` is the control plane's: it guards the subscriptions and the order in which responses are queued.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc

from meshlib.testing.ads_state import Delta, Response, Sotw, State
from meshlib.testing.journal import Journal, Request
from meshlib.xds import schema

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Faults", "Stream"]


@dataclass(slots=True)
class Faults:
    """How a control plane misbehaves. Types are type URLs; "" means every type."""

    refuse: tuple[grpc.StatusCode, str] | None = None
    refused: str = ""  # the protocol; "" means both
    held: set[str] = field(default_factory=set)
    delays: dict[str, float] = field(default_factory=dict)
    partial: bool = False
    resend: bool = True
    wrap: bool = False

    def holds(self, url: str) -> bool:
        return "" in self.held or url in self.held

    def delay(self, url: str) -> float:
        return self.delays.get(url, self.delays.get("", 0.0))


@dataclass(frozen=True, slots=True)
class _Send:
    data: bytes
    due: float = 0.0


@dataclass(frozen=True, slots=True)
class _End:
    code: grpc.StatusCode | None = None
    details: str = ""


class Stream:
    """A stream that a client opened. `number` counts from 1; `metadata` and `peer` are gRPC's."""

    def __init__(
        self,
        number: int,
        protocol: str,
        context: grpc.ServicerContext,
        *,
        state: State,
        faults: Faults,
        journal: Journal,
        identifier: str,
    ) -> None:
        self.number = number
        self.protocol = protocol
        self.peer = context.peer()
        self.metadata = dict(context.invocation_metadata())
        self._context = context
        self._state = state
        self._faults = faults
        self._journal = journal
        self._identifier = identifier
        self._types: dict[str, Sotw | Delta] = {}
        self._held: list[Response] = []
        self._unanswered: dict[
            str, str
        ] = {}  # delta: versions of responses, by nonce, until they are acknowledged
        self._nonces = itertools.count(1)
        self._outgoing: queue.SimpleQueue[_Send | _End] = queue.SimpleQueue()
        self._over = threading.Event()

    # ---------------------------------------------------------------------------------- what gRPC calls

    def serve(self, incoming: Iterator[bytes]) -> Iterator[bytes]:
        """The responses of this stream, until it ends."""
        if not self._context.add_callback(self._ended):
            return
        reader = threading.Thread(
            target=self._read, args=(incoming,), name=f"ads-read-{self.number}", daemon=True
        )
        reader.start()
        try:
            yield from self._responses()
        finally:
            self._ended()

    def _responses(self) -> Iterator[bytes]:
        while True:
            item = self._outgoing.get()
            if isinstance(item, _End):
                if item.code is not None:
                    self._context.abort(item.code, item.details)
                return
            wait = item.due - time.monotonic()
            if wait > 0 and self._over.wait(wait):
                return
            yield item.data

    def _ended(self) -> None:
        self._over.set()
        self._outgoing.put(_End())

    def _read(self, incoming: Iterator[bytes]) -> None:
        try:
            for data in incoming:
                self._received(data)
        except Exception:  # noqa: BLE001  gRPC ends the iterator of a cancelled stream with a bare Exception
            self._over.set()
        finally:
            self._outgoing.put(_End())

    # ------------------------------------------------------------------------------------- the protocol

    def _received(self, data: bytes) -> None:
        delta = self.protocol == "delta"
        kind = "DeltaDiscoveryRequest" if delta else "DiscoveryRequest"
        try:
            message = schema.message(f"envoy.service.discovery.v3.{kind}").FromString(data)
        except schema.DecodeError as error:
            self.end(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            return
        with self._journal.changed:
            version = self._unanswered.pop(message.response_nonce, "") if delta else message.version_info
            self._journal.add(lambda index: _record(index, self, message, data, version))
            response = self._on_delta(message) if delta else self._on_sotw(message)
            if response is not None:
                self._queue(response)

    def _on_sotw(self, message: Any) -> Response | None:
        url = message.type_url
        kept = self._types.get(url)
        if not isinstance(kept, Sotw):
            kept = self._types[url] = Sotw(url, partial=self._faults.partial, resend=self._faults.resend)
        return kept.request(message.resource_names, message.version_info, message.response_nonce, self._state)

    def _on_delta(self, message: Any) -> Response | None:
        url = message.type_url
        kept = self._types.get(url)
        if not isinstance(kept, Delta):
            kept = self._types[url] = Delta(url)
        return kept.request(
            message.resource_names_subscribe,
            message.resource_names_unsubscribe,
            message.initial_resource_versions,
            self._state,
        )

    def changed(self, urls: Iterable[str]) -> None:
        """Sends what a change of these types makes due. The lock is held."""
        self._each(urls, lambda kept: kept.changed(self._state))

    def again(self, urls: Iterable[str]) -> None:
        """Sends all that is subscribed of these types once more. The lock is held."""
        self._each(urls, lambda kept: kept.again(self._state))

    def _each(self, urls: Iterable[str], due: Callable[[Sotw | Delta], Response | None]) -> None:
        for url in urls:
            kept = self._types.get(url)
            response = due(kept) if kept is not None else None
            if response is not None:
                self._queue(response)

    def subscribed(self) -> list[str]:
        return list(self._types)

    # ------------------------------------------------------------------------------------- what goes out

    def _queue(self, response: Response) -> None:
        if self._faults.holds(response.type_url):
            self._held.append(response)
            return
        self.send(self._encoded(response), delay=self._faults.delay(response.type_url))

    def release(self) -> None:
        """Sends what was held and is not any more. The lock is held."""
        held, self._held = self._held, []
        for response in held:
            self._queue(response)

    def send(self, data: bytes, *, delay: float = 0.0) -> None:
        """Sends bytes as they are, as one message."""
        self._outgoing.put(_Send(data, time.monotonic() + delay if delay else 0.0))

    def end(self, code: grpc.StatusCode, details: str) -> None:
        """Ends the stream with this status, after what is queued already."""
        self._outgoing.put(_End(code, details))

    def _encoded(self, response: Response) -> bytes:
        nonce = f"{self.number}.{next(self._nonces)}"
        kept = self._types[response.type_url]
        encode = _sotw if isinstance(kept, Sotw) else _delta
        if isinstance(kept, Sotw):
            kept.nonce = nonce
        else:
            self._unanswered[nonce] = response.version
        message = encode(response, nonce, self._faults.wrap)
        message.control_plane.identifier = self._identifier
        return bytes(message.SerializeToString())


def _wrapped(stored: Any) -> Any:
    resource = schema.message("envoy.service.discovery.v3.Resource")(
        name=stored.name, version=stored.own_version
    )
    resource.resource.type_url, resource.resource.value = stored.type_url, stored.value
    return resource


def _sotw(response: Response, nonce: str, wrap: bool) -> Any:
    message = schema.message("envoy.service.discovery.v3.DiscoveryResponse")(
        version_info=response.version, type_url=response.type_url, nonce=nonce
    )
    for stored in response.resources:
        if wrap:
            message.resources.append(schema.pack(_wrapped(stored)))
        else:
            message.resources.add(type_url=stored.type_url, value=stored.value)
    return message


def _delta(response: Response, nonce: str, _wrap: bool) -> Any:
    message = schema.message("envoy.service.discovery.v3.DeltaDiscoveryResponse")(
        system_version_info=response.version, type_url=response.type_url, nonce=nonce
    )
    message.resources.extend(_wrapped(stored) for stored in response.resources)
    message.removed_resources.extend(response.removed)
    return message


def _record(index: int, stream: Stream, message: Any, raw: bytes, version: str) -> Request:
    delta = stream.protocol == "delta"
    refused = message.HasField("error_detail")
    return Request(
        index=index,
        stream=stream.number,
        protocol=stream.protocol,
        kind=schema.SHORT_NAMES.get(message.type_url, message.type_url),
        names=tuple(message.resource_names_subscribe if delta else message.resource_names),
        unsubscribe=tuple(message.resource_names_unsubscribe) if delta else (),
        version="" if delta and refused else version,
        nonce=message.response_nonce,
        error=message.error_detail.message if refused else None,
        error_code=message.error_detail.code if refused else None,
        node=message.node if message.HasField("node") else None,
        initial_versions=dict(message.initial_resource_versions) if delta else {},
        raw=raw,
        at=time.monotonic(),
    )
