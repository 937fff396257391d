"""A sidecar, as a process sees its own at one moment.

Theory of the states:

    absent ──a signature, or told──► starting ──it is ready──► ready ◄──it is back── gone
                                        └──the start window is over──► gone ◄──it listens no more── ready
                                        └──known from the environment only, and the window is over──► absent

``absent``: calls go as if there were none. That is so too where something was seen that is not sure enough to change the way of
a call, and beside Istio's agent without an Envoy (mode ``"proxyless"``), where this process is the data plane: what was seen is
in ``kind``, ``mode``, ``confidence`` and ``evidence`` all the same. ``starting``: it is there and not ready yet, so a call
waits. ``ready``: it carries the calls. ``gone``: it is known to belong here and is not there; ``sidecar.fallback`` says what
becomes of a call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from meshlib.model.address import Address
from meshlib.model.status import SidecarStatus

__all__ = ["ABSENT", "Confidence", "Mode", "Sidecar", "State"]

Mode = Literal["transparent", "listener", "forward_proxy", "api", "proxyless", "none"]
State = Literal["absent", "starting", "ready", "gone"]
Confidence = Literal["none", "low", "high"]


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What carries, or would carry, the calls of this process.

    Attributes:
        kind: ``"istio"``, ``"linkerd"``, ``"consul"``, ``"kuma"``, ``"dapr"``, ``"kato"``, ``"envoy"`` (also Open Service
            Mesh), or ``"none"``.
        mode: How calls are handed to it. ``"transparent"``: connections are redirected to it, so connect to the service's name
            and port, and never to ``address``. ``"listener"``: connect to ``address``, or to the listener in ``upstreams``, and
            keep the authority. ``"forward_proxy"``: ``address`` takes the absolute form. ``"api"``: Dapr's, at ``address``. One that is
            required and not found is ``"transparent"``, of no kind: any call may be its.
        state: As above; only this says what becomes of a call.
        confidence: ``"high"`` where it was told by configuration, or is proven.
        evidence: What was seen, a line each.
        address: Where it listens, on loopback or a Unix socket; None where the mode needs none or each upstream has its own.
        grpc: Where it takes gRPC, where that is another address (Dapr).
        upstreams: The local listener of each service that the environment names, by the service's name (lower case, with
            ``-`` for ``_``), and by ``name:port`` where the environment tells the service's own port.
        since: Seconds of the runtime's clock at which this state began.
    """

    kind: str = "none"
    mode: Mode = "none"
    state: State = "absent"
    confidence: Confidence = "none"
    evidence: tuple[str, ...] = ()
    address: Address | None = None
    grpc: Address | None = None
    upstreams: Mapping[str, Address] = field(default_factory=dict, hash=False)
    since: float = 0.0

    @property
    def carries(self) -> bool:
        """Whether calls are handed to it."""
        return self.state == "ready"

    def status(self, now: float) -> SidecarStatus:
        """The same for people, at ``now`` of the clock that ``since`` is of."""
        return SidecarStatus(
            kind=self.kind,
            mode=self.mode,
            confidence=self.confidence,
            evidence=self.evidence,
            in_use=self.carries,
            since=max(0.0, now - self.since),
        )


ABSENT = Sidecar()
