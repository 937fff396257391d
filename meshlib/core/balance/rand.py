"""Random: each pick on its own. Weights of endpoints do not count, as in Envoy (measured with 1.40); localities' do."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.core.upstream import PickContext

__all__ = ["Random"]


class Random:
    """One of ``endpoints``, drawn anew for each pick."""

    __slots__ = ("_endpoints", "_random")

    def __init__(self, endpoints: Sequence[LiveEndpoint], random: Callable[[], float]) -> None:
        self._endpoints = endpoints
        self._random = random

    def pick(self, context: PickContext) -> LiveEndpoint:  # noqa: ARG002 - the protocol's
        endpoints = self._endpoints
        return endpoints[int(self._random() * len(endpoints))]

    peek = pick
