"""What a client has of a control plane, as the client status service tells it (CSDS): gRFC A40, A71, A88. Pure.

A stream's cache is looked at on its own thread (`look`); what was seen is a value, and made into a message elsewhere (`response`).
No secret is told: of a resource that has one among its settings there is all but its contents, and what the schema does not
know is left out of those of others (see `meshlib.xds.secrets`).

A mesh is one client with one configuration, whatever number of streams it has: grpcdebug reads no answer with two. What two of
its streams have by the same name stands there once, as the later of them has it: that of the target view.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import dataclass

from meshlib.xds import schema
from meshlib.xds.cache import Cache, Entry, State
from meshlib.xds.decode import ResourceType
from meshlib.xds.schema import WireMessage
from meshlib.xds.secrets import presentable, without_credentials

__all__ = ["SCOPE", "Client", "Refused", "answer", "look"]

_REQUEST = "envoy.service.status.v3.ClientStatusRequest"
_RESPONSE = "envoy.service.status.v3.ClientStatusResponse"
_RESOURCE = "envoy.service.status.v3.ClientConfig.GenericXdsConfig"


#: ``client_scope``: in gRPC a client's is a channel's target (A71); a mesh's streams are shared by all of its channels.
SCOPE = "#mesh"


class Refused(ValueError):
    """A request that cannot be answered; the text says why."""


@dataclass(frozen=True, slots=True)
class Client:
    """What one stream has. ``node``: a serialized Node; ``epoch``: what makes monotonic seconds those since 1970."""

    node: bytes
    epoch: float
    resources: tuple[tuple[str, Entry], ...]


def look(node: bytes, epoch: float, cache: Cache, types: Iterable[ResourceType]) -> Client:
    """What is there now. On the thread of the cache."""
    found = ((kind.short, copy(entry)) for kind in types for entry in cache.entries(kind.short))
    return Client(node, epoch, tuple(found))


def answer(
    request: bytes, meshes: Callable[[], Iterable[Iterable[Client]]], give_way: Callable[[], object] = bool
) -> bytes:
    """The response to a request. `meshes`, asked only where it can be answered, gives the streams of each. Raises Refused."""
    try:
        asked = schema.message(_REQUEST).FromString(request)
    except schema.DecodeError as error:
        raise Refused(f"this is no {_REQUEST}: {error}") from None
    if len(asked.node_matchers):
        raise Refused("node_matchers cannot be honoured: there is this node only")
    made = schema.message(_RESPONSE)()
    for clients in map(tuple, meshes()):
        if not clients:
            continue
        config = made.config.add(client_scope=SCOPE)
        config.node.ParseFromString(clients[0].node)
        without_credentials(config.node.metadata)
        merged = {
            (short, entry.name): (client, entry) for client in clients for short, entry in client.resources
        }
        for (short, _), (client, entry) in merged.items():
            give_way()
            held = _resource(short, entry, client.epoch, contents=not asked.exclude_resource_contents)
            config.generic_xds_configs.append(held)
    return made.SerializeToString()


def _resource(short: str, entry: Entry, epoch: float, *, contents: bool) -> WireMessage:
    made = schema.message(_RESOURCE)(
        type_url=schema.TYPE_URLS[short],
        name=entry.name,
        version_info=entry.version,
        client_status=entry.state.name,  # as ``envoy.admin.v3.ClientResourceStatus`` names them
    )
    if entry.updated is not None:
        _put_time(made.last_updated, epoch + entry.updated)
    if contents:
        _put(made.xds_config, short, entry.raw)
    failure = entry.failure
    if failure is not None and entry.state is not State.DOES_NOT_EXIST:
        state = made.error_state
        state.details = "; ".join(entry.problems) or entry.error
        state.version_info = failure.version
        _put_time(state.last_update_attempt, epoch + failure.at)
        if contents:
            _put(state.failed_configuration, short, failure.raw)
    return made


def _put(any_of: WireMessage, short: str, raw: bytes) -> None:
    shown, _ = presentable(short, raw) if raw else (b"", "")
    if shown:
        any_of.type_url, any_of.value = schema.TYPE_URLS[short], shown


def _put_time(timestamp: WireMessage, seconds: float) -> None:
    timestamp.FromNanoseconds(int(seconds * 1e9))
