"""One aggregated discovery stream, incremental: messages in, messages out.

Theory. Beside what `meshlib.xds.machine` says: client and server tell each other only what has changed, and each resource
has a version of its own, which the cache keeps beside it (DL-08). A request subscribes and unsubscribes, or it
acknowledges; here it never does both, since a server that holds the nonce for an old one drops all of the message, and
others do not read the names of a NACK.

    state of the type          what goes out
    -------------------------  ------------------------------------------------------------------------------------------
    not asked, nothing wanted  nothing: an empty first request would mean everything (DL-10)
    not asked, wanted          all that is wanted (DL-01), and the versions of what is held of it (DL-02)
    asked                      what is owed: the nonce, and what is wrong with what came (DL-03); then what was wanted
                               more or less since, without a nonce (DL-04)

What a response does not name stays (DL-05). What it says is removed is known not to exist, at once (DL-06); it stays
subscribed, and is used should it come later. Of what a listener, a route or a cluster names, and never came, it only says that
it is not there yet: whoever named it may be ahead of it, and what it replaces serves until it comes, or until its time is
over, as in state of the world (CA-08, DL-13). As with Envoy, a route configuration or a load assignment
that is in force stays so: in state of the world nothing could take it away either, and whoever names it is changed
by a response of its own, which may come later than this one.

Istio's server forgets names (`meshlib.xds.istio`). Where the node asks for what that is about, a change of what is wanted subscribes to
all that is wanted, and so does the first response of a push (a system version) that says nothing of some of it.

A resource is kept until the server was told that nobody wants it. So a name that is given up and wanted again in between
needs no request, and neither does the reverse: DL-04's subscription is for clients that drop it at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from meshlib.xds.cache import Cache, Entry, State
from meshlib.xds.decode import ResourceType
from meshlib.xds.istio import wants_grpc
from meshlib.xds.machine import Machine, TypeState
from meshlib.xds.response import Batch, sort_delta
from meshlib.xds.schema import WireMessage
from meshlib.xds.values import ServerFeatures

__all__ = ["DeltaMachine"]


class DeltaMachine(Machine):
    """See the module's header."""

    request = "envoy.service.discovery.v3.DeltaDiscoveryRequest"
    response = "envoy.service.discovery.v3.DeltaDiscoveryResponse"

    def __init__(
        self,
        node: bytes | WireMessage,
        types: Sequence[ResourceType],
        jitter: Callable[[], float],
        features: ServerFeatures | None = None,
        cache: Cache | None = None,
    ) -> None:
        super().__init__(node, types, jitter, features, cache)
        self._forgetful = {item.short for item in types if item.full_state} if wants_grpc(node) else set()
        self._pushes: dict[str, str] = {}  # by type: the system version of the last response
        self._forgotten: set[str] = set()  # types of which all is to be subscribed to anew

    def _requests(self, stream: TypeState, now: float) -> list[bytes]:
        url = stream.type.url
        messages = [
            self._message(reply.error, type_url=url, response_nonce=reply.nonce)
            for reply in self._due(stream, now, hurry=False)
        ]
        wanted, sent = self._names(stream), stream.sent
        more, less = wanted - (sent or frozenset()), (sent or frozenset()) - wanted
        if stream.type.short in self._forgotten or (stream.type.short in self._forgetful and (more or less)):
            self._forgotten.discard(stream.type.short)
            more = wanted
        if not more and not less:
            return messages
        stream.sent = wanted
        if sent is None:
            names = self._spelled(stream, wanted)
            versions = self._versions(stream)
            messages.append(
                self._message(
                    "", type_url=url, resource_names_subscribe=names, initial_resource_versions=versions
                )
            )
        else:
            if more and not stream.by_name:
                more |= wanted & {"*"}  # until now it was meant by an empty list
            messages.append(
                self._message(
                    "",
                    type_url=url,
                    resource_names_subscribe=sorted(more),
                    resource_names_unsubscribe=sorted(less),
                )
            )
        return messages

    def _versions(self, stream: TypeState) -> dict[str, str]:
        """DL-02: of what is held and wanted; what the server has no more has none.

        Under a wildcard also what has none is named, such as what an earlier process left, and all that Istio sends: only then
        does the server say of it that it is gone, and what it has is newer than no version.
        """
        wild = stream.interest.wildcard
        return {
            each.name: each.version
            for each in self.cache.entries(stream.type.short)
            if each.name in stream.interest and (each.version or (wild and each.value is not None))
        }

    # --- one response

    def _sort(self, stream: TypeState, response: WireMessage) -> Batch:
        return sort_delta(response, stream.type, self.cache, stream.interest.names)

    def _remove(self, stream: TypeState, batch: Batch) -> list[str]:
        short, interest = stream.type.short, stream.interest
        if short in self._forgetful:
            self._look_for_forgotten(stream, batch)
        if interest.wildcard and not batch.unnamed:
            self.cache.listed.add(short)
        removed = stream.type.full_state or stream.type.removable or self._features.fail_on_data_errors
        keeps = self._features.keeps_deleted or not removed
        gone: list[str] = []
        for name in batch.removed:
            entry = self.cache.get(short, name)
            if name not in interest or (entry is None and name not in interest.names):
                continue
            had = entry is not None and entry.value is not None
            awaited = not had and (entry is None or entry.state is State.REQUESTED)
            if awaited and short != "listener":
                continue
            stream.timers.pop(name, None)
            if entry is not None and had and keeps and not _left(entry):
                self.cache.outdate(short, name)
                continue
            words = "was deleted by the server" if had else "does not exist: the server has none"
            self.cache.lose(short, name, State.DOES_NOT_EXIST, words)
            stream.touched = stream.touched or interest.wildcard
            gone.append(name)
        return gone

    def _look_for_forgotten(self, stream: TypeState, batch: Batch) -> None:
        """Once a push: the answer to what is then asked is of the same one, or of another that is looked at again."""
        short, told = stream.type.short, batch.there.union(batch.removed)
        if self._pushes.get(short) != batch.version and not stream.interest.names <= told:
            self._forgotten.add(short)
        self._pushes[short] = batch.version


def _left(entry: Entry) -> bool:
    """Whether an earlier process left it, and the server has not spoken of it yet."""
    return entry.state is State.REQUESTED and entry.value is not None
