"""The test kit: everything that a test of mesh-aware code needs, on loopback and without waiting in earnest.

    ControlPlane         a real gRPC server of the aggregated discovery service, scriptable
    Upstream             a real HTTP server in threads of this process, which says who it is and fails on order
    UpstreamProcess      the same as a process of its own, to be killed
    GrpcUpstream         a real gRPC server in this process, which says who it is and fails on order
    GrpcUpstreamProcess  the same as a process of its own, to be killed
    VirtualClock         time that moves when the test says so
    KatoControlPlane     a stand-in for Kato's and Rainbond's control plane (xDS v2), with its quirks and its failures
    IstioCa              a stand-in for Istio's CA: certificates as short-lived as a test wants them, roots that change, refusals
    WorkloadApi          a stand-in for SPIFFE's Workload API: identities that are renewed, withdrawn, refused, bundles of several domains
    Authority            what both sign with: pairs for servers of a test
    build                listeners, routes, clusters and endpoints in a line each

With pytest, the fixtures `meshlib_control_plane`, `meshlib_upstream`, `meshlib_grpc_upstream`, `meshlib_clock`, `meshlib_mesh`
and `meshlib_environment` are there as soon as meshlib is installed.
Importing this package is cheap: each name loads its module, and that its libraries, when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meshlib.testing import build
    from meshlib.testing.authority import Authority
    from meshlib.testing.clock import Timer, VirtualClock
    from meshlib.testing.control_plane import ControlPlane, Raw
    from meshlib.testing.grpc_orders import GrpcOrder
    from meshlib.testing.grpc_upstream import GrpcReceived, GrpcUpstream
    from meshlib.testing.grpc_upstream_process import GrpcUpstreamProcess
    from meshlib.testing.istio_ca import CertificateRequest, IstioCa
    from meshlib.testing.journal import Request
    from meshlib.testing.kato import KatoControlPlane
    from meshlib.testing.orders import Order
    from meshlib.testing.upstream import Received, Upstream
    from meshlib.testing.upstream_process import UpstreamProcess
    from meshlib.testing.workload_api import WorkloadApi

__all__ = [
    "Authority",
    "CertificateRequest",
    "ControlPlane",
    "GrpcOrder",
    "GrpcReceived",
    "GrpcUpstream",
    "GrpcUpstreamProcess",
    "IstioCa",
    "KatoControlPlane",
    "Order",
    "Raw",
    "Received",
    "Request",
    "Timer",
    "Upstream",
    "UpstreamProcess",
    "VirtualClock",
    "WorkloadApi",
    "build",
]

_HOMES = {
    "Authority": "authority",
    "CertificateRequest": "istio_ca",
    "ControlPlane": "control_plane",
    "GrpcOrder": "grpc_orders",
    "GrpcReceived": "grpc_upstream",
    "GrpcUpstream": "grpc_upstream",
    "GrpcUpstreamProcess": "grpc_upstream_process",
    "IstioCa": "istio_ca",
    "KatoControlPlane": "kato",
    "Order": "orders",
    "Raw": "control_plane",
    "Received": "upstream",
    "Request": "journal",
    "Timer": "clock",
    "Upstream": "upstream",
    "UpstreamProcess": "upstream_process",
    "VirtualClock": "clock",
    "WorkloadApi": "workload_api",
}


def __getattr__(name: str) -> Any:
    if name == "build":
        return importlib.import_module("meshlib.testing.build")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
