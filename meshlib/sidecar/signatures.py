"""What each mesh looks like from inside an application's network namespace. A new mesh is a row.

Ports alone never name a mesh: 15001 is Istio's, ztunnel's, Kuma's, Consul's and Open Service Mesh's. The owner's user id does,
since the kernel reports it and no process of the application's user can take on another's. A row without one is never sure.

Sources, as read in August 2026: Istio's injection template and `pilot/cmd/pilot-agent/status`; ztunnel's ARCHITECTURE.md; the
charts of linkerd2 and `linkerd/app/src/env.rs` of its proxy; consul-k8s' `connect-inject/constants`; Kuma's
`kuma-cp.defaults.yaml` and `readiness/component.go`; Open Service Mesh's `pkg/constants`; Kato's `mesh-data-panel`.
"""

from __future__ import annotations

from typing import NamedTuple

from meshlib.model.sidecar import Mode
from meshlib.sidecar.evidence import Probe

__all__ = [
    "DAPR_GRPC_PORT",
    "DAPR_HEALTH",
    "DAPR_HEALTH_OF_OLD",
    "DAPR_HTTP_PORT",
    "HOST_PORTS",
    "KATO_LISTENERS",
    "KATO_READY",
    "PORTS",
    "SIGNATURES",
    "Signature",
]


class Signature(NamedTuple):
    """One row.

    Attributes:
        kind: As ``SidecarStatus.kind``.
        name: In words.
        mode: How calls are handed to it.
        carrier: The port that takes what is redirected: while it listens, the sidecar is there.
        ports: All of these listen once it is configured, the carrier among them.
        early: Those that listen before that.
        without: None of these listens.
        uid: The user that it runs as; None where that differs from place to place.
        health: What answers 200 once it serves, and 503 before and after; None where nothing may be asked. Its body differs from
            version to version (Kuma's is Envoy's, since its admin interface is a Unix socket).
    """

    kind: str
    name: str
    mode: Mode
    carrier: int
    ports: frozenset[int]
    early: frozenset[int] = frozenset()
    without: frozenset[int] = frozenset()
    uid: int | None = None
    health: Probe | None = None


SIGNATURES: tuple[Signature, ...] = (
    Signature(
        "istio",
        "Istio's sidecar",
        "transparent",
        15001,
        frozenset({15001, 15006, 15021}),
        early=frozenset({15000, 15020, 15090}),
        uid=1337,
        health=Probe.at(15021, "/healthz/ready"),
    ),
    Signature(
        "istio",
        "Istio's ambient mode",
        "transparent",
        15001,
        frozenset({15001, 15006, 15008}),
        without=frozenset({15000, 15020, 15021}),
        uid=0,
    ),
    Signature(
        "linkerd",
        "Linkerd's proxy",
        "transparent",
        4140,
        frozenset({4140, 4143, 4191}),
        early=frozenset({4190}),
        uid=2102,
        health=Probe.at(4191, "/ready"),
    ),
    Signature(
        "kuma",
        "Kuma's sidecar",
        "transparent",
        15001,
        frozenset({15001, 15006}),
        early=frozenset({9901, 9902}),
        uid=5678,
        health=Probe.at(9902, "/ready"),
    ),
    Signature(
        "consul",
        "Consul's transparent proxy",
        "transparent",
        15001,
        frozenset({15001, 20000}),
        early=frozenset({19000, 21000}),
        uid=5995,
        health=Probe.at(21000, "/ready"),
    ),
    Signature(
        "envoy",
        "Open Service Mesh",
        "transparent",
        15001,
        frozenset({15001, 15003}),
        early=frozenset({15000, 15010}),
        uid=1500,
    ),
    Signature("envoy", "an Envoy behind a redirect", "transparent", 15001, frozenset({15001})),
    Signature("envoy", "an Envoy", "listener", 9901, frozenset({9901})),
)

PORTS = frozenset(port for row in SIGNATURES for port in row.ports | row.early)
"""Where none of these listens, no row is there."""

KATO_READY = Probe.at(65533, "/ready", b"LIVE")
KATO_LISTENERS = Probe.at(65533, "/listeners")
"""The only pages of an admin interface that are read: Kato's own test of readiness."""

DAPR_HTTP_PORT = 3500
DAPR_GRPC_PORT = 50001
DAPR_HEALTH = "/v1.0/healthz/outbound"
DAPR_HEALTH_OF_OLD = "/v1.0/healthz"
"""This one waits for the application too, which may be waiting here; Dapr before 1.11 has no other."""

HOST_PORTS = {10248: "kubelet", 10249: "kube-proxy", 10250: "kubelet", 10256: "kube-proxy"}
"""What listens in a node's own network namespace, and in no pod's."""
