"""A `GrpcUpstream` as a process of its own: for tests that kill it in earnest."""

from __future__ import annotations

import json
from typing import Any

import grpc

from meshlib.testing.grpc_orders import GrpcOrder
from meshlib.testing.grpc_upstream import CONTROL_SERVICE
from meshlib.testing.upstream_process import END, ServerProcess

__all__ = ["GrpcUpstreamProcess"]


class GrpcUpstreamProcess(ServerProcess):
    """A `GrpcUpstream`. It is told what to do by calls of a service of its own, which count in no number."""

    MODULE = "meshlib.testing.grpc_upstream"

    @property
    def target(self) -> str:
        """As `GrpcUpstream.target`."""
        return f"ipv4:{self.address}"

    def order(self, order: GrpcOrder | None = None, *, times: int | None = None, **parts: Any) -> None:
        """As `GrpcUpstream.order`."""
        made = (order or GrpcOrder()).to_dict() | GrpcOrder(**parts).to_dict()
        self._ask("order", made if times is None else made | {"times": times})

    def behave(self) -> None:
        self._ask("behave")

    def release(self) -> None:
        self._ask("release")

    def counts(self) -> dict[str, int]:
        """As `GrpcUpstream.counts`."""
        return self._ask("counts")

    def _ask(self, what: str, value: dict[str, Any] | None = None) -> dict[str, int]:
        with grpc.insecure_channel(self.target) as channel:
            ask = channel.unary_unary(
                CONTROL_SERVICE + what, lambda told: json.dumps(told).encode(), json.loads
            )
            try:
                counts: dict[str, int] = ask(value, timeout=END)
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
                    raise ValueError(error.details()) from error
                raise
        return counts
