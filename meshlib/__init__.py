"""A service-mesh data plane inside a Python process.

    import meshlib

    with meshlib.Client() as client:  # an httpx.Client
        client.get("http://reviews/api/1")

The names below are the public ones. Each is imported when it is first used: ``import meshlib`` loads neither grpc nor
protobuf nor httpx, and starts nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshlib import grpc as grpc
    from meshlib import httpx2 as httpx2
    from meshlib.client import AsyncClient, AsyncTransport, Client, Transport
    from meshlib.config import Config
    from meshlib.config.shapes import ConfigDict, RetryDict, ServiceDict
    from meshlib.deadlines import deadline
    from meshlib.errors import (
        CircuitOpen,
        ConfigError,
        ConnectFailed,
        DeadlineExceeded,
        DiscoveryError,
        MeshError,
        NoHealthyEndpoint,
        NotReady,
        Overloaded,
        ProtocolError,
        TransportFailed,
        UnavailableError,
        UnknownService,
    )
    from meshlib.hosts.info import call_info
    from meshlib.mesh import Mesh, default
    from meshlib.model.call import Attempt, CallInfo, CallOptions, Decision, Response
    from meshlib.model.policy import RetryBudget, RetryPolicy
    from meshlib.model.snapshot import Snapshot
    from meshlib.model.status import (
        ClusterStatus,
        EndpointStatus,
        Ignored,
        ProcessStatus,
        Rejected,
        SidecarStatus,
        SourceStatus,
        Status,
    )

__version__ = "0.1.0.dev0"

__all__ = [
    "AsyncClient",
    "AsyncTransport",
    "Attempt",
    "CallInfo",
    "CallOptions",
    "CircuitOpen",
    "Client",
    "ClusterStatus",
    "Config",
    "ConfigDict",
    "ConfigError",
    "ConnectFailed",
    "DeadlineExceeded",
    "Decision",
    "DiscoveryError",
    "EndpointStatus",
    "Ignored",
    "Mesh",
    "MeshError",
    "NoHealthyEndpoint",
    "NotReady",
    "Overloaded",
    "ProcessStatus",
    "ProtocolError",
    "Rejected",
    "Response",
    "RetryBudget",
    "RetryDict",
    "RetryPolicy",
    "ServiceDict",
    "SidecarStatus",
    "Snapshot",
    "SourceStatus",
    "Status",
    "Transport",
    "TransportFailed",
    "UnavailableError",
    "UnknownService",
    "__version__",
    "call_info",
    "deadline",
    "default",
]

_HOMES = {
    "meshlib.client": ("AsyncClient", "AsyncTransport", "Client", "Transport"),
    "meshlib.config": ("Config",),
    "meshlib.config.shapes": ("ConfigDict", "RetryDict", "ServiceDict"),
    "meshlib.deadlines": ("deadline",),
    "meshlib.errors": (
        "CircuitOpen", "ConfigError", "ConnectFailed", "DeadlineExceeded", "DiscoveryError", "MeshError",
        "NoHealthyEndpoint", "NotReady", "Overloaded", "ProtocolError", "TransportFailed", "UnavailableError",
        "UnknownService",
    ),
    "meshlib.mesh": ("Mesh", "default"),
    "meshlib.model.call": ("Attempt", "CallInfo", "CallOptions", "Decision", "Response"),
    "meshlib.model.policy": ("RetryBudget", "RetryPolicy"),
    "meshlib.model.snapshot": ("Snapshot",),
    "meshlib.model.status": (
        "ClusterStatus", "EndpointStatus", "Ignored", "ProcessStatus", "Rejected", "SidecarStatus", "SourceStatus",
        "Status",
    ),
    "meshlib.hosts.info": ("call_info",),
}  # fmt: skip
_HOME = {name: module for module, names in _HOMES.items() for name in names}
#: Of themselves names of the package, but not of `from meshlib import *`, where they would hide the libraries of their names.
_MODULES = frozenset({"grpc", "httpx2"})


def __getattr__(name: str) -> object:
    from importlib import import_module

    home = _HOME.get(name)
    if home is not None:
        # Kept, so that the next use finds it without coming here.
        value: object = getattr(import_module(home), name)
        globals()[name] = value
        return value
    if name in _MODULES:
        try:
            return import_module(f"meshlib.{name}")
        except ModuleNotFoundError as missing:  # `import meshlib.httpx2` says the same, as what it is
            raise AttributeError(str(missing), name=name) from missing
    raise AttributeError(f"module 'meshlib' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_MODULES])
