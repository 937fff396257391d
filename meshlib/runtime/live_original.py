"""A pass-through cluster that is in use: its endpoints are the addresses that calls are bound for (`meshlib.core.destination`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.core.endpoint import LiveEndpoint
from meshlib.model.address import Address
from meshlib.model.endpoint import NOWHERE, Endpoint
from meshlib.runtime.live import LiveCluster

if TYPE_CHECKING:
    from meshlib.core.upstream import PickContext, Refusal
    from meshlib.runtime.live_high import LiveHigh
    from meshlib.runtime.live_pick import LivePick

__all__ = ["MOST", "LiveOriginal"]

#: Endpoints that are known at a time. Whoever writes headers may name any number of them.
MOST = 1024


class LiveOriginal(LiveCluster):
    """One that has an endpoint for each address that calls are bound for; of those that carry none the oldest go where there are too
    many.
    """

    __slots__ = ()

    def _pick(self, context: PickContext, now: float, counted: LiveCluster | LiveHigh) -> LivePick | Refusal:
        if context.override is not None:
            for name in context.override.names:
                self._welcome(Address.parse(name))
        return super()._pick(context, now, counted)

    def _welcome(self, address: Address) -> None:
        live = self._roster.live
        if address in live:
            return
        if len(live) >= MOST:
            self._make_room()
        if len(live) < MOST:
            live[address] = LiveEndpoint(
                Endpoint(address), priority=0, locality=NOWHERE, tls=self.cluster.tls
            )

    def _make_room(self) -> None:
        live = self._roster.live
        for address, endpoint in live.items():
            if not endpoint.active:
                endpoint.gone = True
                if self._ejections is not None:
                    self._ejections.forget(endpoint)
                del live[address]
                return
