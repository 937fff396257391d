"""One aggregated discovery stream, state of the world: messages in, messages out.

Theory. Beside what `meshlib.xds.machine` says: a request is three things at once: a subscription (its names replace the
previous ones), an acknowledgement of the response whose nonce it echoes (ACK with that response's version; NACK with
`error_detail` and the last version that was accepted whole), and on the first one of a stream the introduction (`node`).

    owed     wanted differs from sent   what goes out
    -------  -------------------------  --------------------------------------------------------------------------------
    an ACK   no, yes                    the ACK, with the wanted names
    a NACK   no                         the NACK, or nothing while it is held back
    a NACK   yes                        the NACK with the names sent before (a server may not read them), then a request
                                        with those wanted
    an ACK   yes, and sent is nothing   the ACK, of nothing, then a request: go-control-plane takes a name in the acknowledgement of an
                                        answer to nothing for one that came with it, and never sends it
    nothing  yes                        a request with the newest nonce (SW-05)

Listeners and clusters come as the whole state: what is missing from a response was deleted (SW-14). Routes and endpoints
do not.
"""

from __future__ import annotations

from meshlib.xds.cache import State
from meshlib.xds.machine import Machine, TypeState
from meshlib.xds.response import Batch, sort
from meshlib.xds.schema import WireMessage

__all__ = ["AdsMachine"]


class AdsMachine(Machine):
    """See the module's header."""

    request = "envoy.service.discovery.v3.DiscoveryRequest"
    response = "envoy.service.discovery.v3.DiscoveryResponse"

    def _requests(self, stream: TypeState, now: float) -> list[bytes]:
        wanted = self._names(stream)
        owed = self._due(stream, now, hurry=stream.sent != wanted)
        messages: list[bytes] = []
        for index, reply in enumerate(owed):
            if index == len(owed) - 1 and not reply.error and (stream.sent or not wanted):
                stream.sent = wanted
            names = stream.sent or frozenset()
            messages.append(self._request(stream, names, reply.version, reply.nonce, reply.error))
        # The first request of a type must not be empty unless everything is meant (SW-16).
        if stream.sent != wanted and (stream.asked or wanted):
            stream.sent = wanted
            messages.append(self._request(stream, wanted, stream.version, stream.nonce, ""))
        return messages

    def _request(
        self, stream: TypeState, names: frozenset[str], version: str, nonce: str, error: str
    ) -> bytes:
        return self._message(
            error,
            type_url=stream.type.url,
            resource_names=self._spelled(stream, names),
            version_info=version,
            response_nonce=nonce,
        )

    # --- one response

    def _sort(self, stream: TypeState, response: WireMessage) -> Batch:
        return sort(response, stream.type, self.cache)

    def _remove(self, stream: TypeState, batch: Batch) -> list[str]:
        """SW-14: what a full-state response does not have was deleted. SW-15: only what had come can be deleted.

        Where the name of a resource cannot be read it could be any of those missing: then nothing is deleted, and
        nothing is known to be absent.
        """
        short = stream.type.short
        if batch.unnamed or not stream.type.full_state:
            return []
        if stream.interest.wildcard:
            self.cache.listed.add(short)
        if self._features.keeps_deleted:
            return []
        here = batch.there.union(batch.errors)
        gone = [name for name in self.cache.names(short) if name not in here]
        for name in gone:
            self.cache.lose(short, name, State.DOES_NOT_EXIST, "was deleted by the server")
        if stream.interest.wildcard:
            for entry in list(self.cache.entries(short)):  # a refusal goes with its resource
                refused = entry.state is State.NACKED and entry.value is None
                if refused and entry.name not in here and entry.name not in stream.interest.names:
                    self.cache.forget(short, entry.name)
                    gone.append(entry.name)
            stream.touched = bool(gone) or stream.touched
        return gone
