"""What gRPC counts of more than calls: the control plane's streams, outlier detection, connections, TLS handshakes.

gRFC A78 (with A88's states), A91, A94, A118. gRPC calls all of it experimental, and so it is made where ``telemetry.metrics`` names
it (gRFC A79); what is of a weighted round robin or of RLS, which the mesh does not have, is not. ``grpc.target`` is the channel's where
something is of one channel, and :data:`MESH` where it is of all of them: the streams to a control plane, and a cluster's outliers.

A method of detection that gRPC does not have has Envoy's name. Why a connection broke is not known here but where the mesh closed it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshlib.model.endpoint import NOWHERE
from meshlib.model.events import (
    CONNECTED,
    FAILED,
    ConnectionChanged,
    ControlPlaneLost,
    EndpointEjected,
    EndpointSpared,
    ResourcesReceived,
)
from meshlib.runtime.known import Known

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from meshlib.config import TelemetryConfig
    from meshlib.model.endpoint import Locality
    from meshlib.model.status import XdsClientStatus

__all__ = ["MESH", "GrpcInstruments", "handshake_result"]

#: ``grpc.target`` of what serves all channels, as gRPC has ``"#server"`` for what serves a server.
MESH = "#mesh"

#: Parts of the words on a handshake that failed, of grpc's core (1.66 to 1.85) and of ours, and gRFC A118's name of it; the first that
#: fits.
_RESULTS = (
    ("certificate has expired", "CERTIFICATE_EXPIRED"),
    ("certificate is not yet valid", "CERTIFICATE_NOT_YET_VALID"),
    ("certificate revoked", "CERTIFICATE_REVOKED"),
    ("self signed certificate", "CERTIFICATE_AUTHORITY_INVALID"),
    ("self-signed certificate", "CERTIFICATE_AUTHORITY_INVALID"),
    ("unable to get local issuer certificate", "CERTIFICATE_AUTHORITY_INVALID"),
    ("unable to get issuer certificate", "CERTIFICATE_AUTHORITY_INVALID"),
    ("UNKNOWN_CA", "CERTIFICATE_AUTHORITY_INVALID"),
    ("Hostname mismatch", "CERTIFICATE_HOSTNAME_MISMATCH"),
    ("IP address mismatch", "CERTIFICATE_HOSTNAME_MISMATCH"),
    ("none of the names", "CERTIFICATE_HOSTNAME_MISMATCH"),
    ("CERTIFICATE_VERIFY_FAILED", "CERTIFICATE_VERIFICATION_FAILED"),
    ("Hostname Verification Check failed", "CERTIFICATE_HOSTNAME_MISMATCH"),
    ("is not in peer certificate", "CERTIFICATE_HOSTNAME_MISMATCH"),
    ("NO_APPLICATION_PROTOCOL", "NO_APPLICATION_PROTOCOL"),
    ("missing selected ALPN property", "NO_APPLICATION_PROTOCOL"),
    ("does not choose HTTP/2 by ALPN", "NO_APPLICATION_PROTOCOL"),
    ("UNSUPPORTED_PROTOCOL", "PROTOCOL_VERSION_UNSUPPORTED"),
    ("PROTOCOL_VERSION", "PROTOCOL_VERSION_UNSUPPORTED"),
    ("handshake", "UNKNOWN_FAILURE"),
    ("[SSL", "UNKNOWN_FAILURE"),
)

_NONE: dict[str, str] = {}

#: Everything of this process whose streams the gauges show (see :mod:`meshlib.observe.metrics`).
_watched: Known[GrpcInstruments] = Known()


class GrpcInstruments:
    """Those that ``config`` chooses. Thread-safe, as the API's are.

    Args:
        clients: The streams to control planes as they are now; asked in the thread that collects.

    Attributes:
        told: Who is to be told of an event, by its type.
    """

    def __init__(
        self, meter: Any, config: TelemetryConfig, clients: Callable[[], Iterable[XdsClientStatus]]
    ) -> None:
        self.told: dict[type, Callable[[Any], None]] = {}
        self.clients = clients
        self._labels = frozenset(config.labels)
        if "grpc.xds_client" in config.metrics:
            self._make_xds_client(meter)
        if "grpc.lb.outlier_detection" in config.metrics:
            self._make_outlier_detection(meter)
        self._subchannels = "grpc.subchannel" in config.metrics
        self._tls = "grpc.client.tls.handshakes" in config.metrics
        if self._subchannels or self._tls:
            self._make_connections(meter)

    # --- gRFC A78 ---------------------------------------------------------------------------------------------------------

    def _make_xds_client(self, meter: Any) -> None:
        name = "grpc.xds_client."
        self._failures = meter.create_counter(
            f"{name}server_failure", "{failure}", "xDS servers that went from healthy to unhealthy."
        )
        self._valid = meter.create_counter(
            f"{name}resource_updates_valid", "{resource}", "Resources received that were valid."
        )
        self._invalid = meter.create_counter(
            f"{name}resource_updates_invalid", "{resource}", "Resources received that were not valid."
        )
        _watched.add(self)
        words = "1 where the client has a working ADS stream to the xDS server, else 0."
        meter.create_observable_gauge(f"{name}connected", [_connected], "{bool}", words)
        words = "xDS resources."
        meter.create_observable_gauge(f"{name}resources", [_resources], "{resource}", words)
        self.told |= {ControlPlaneLost: self._lost, ResourcesReceived: self._received}

    def _lost(self, event: ControlPlaneLost) -> None:
        self._failures.add(1, {"grpc.target": MESH, "grpc.xds.server": event.server})

    def _received(self, event: ResourcesReceived) -> None:
        labels = {
            "grpc.target": MESH,
            "grpc.xds.server": event.server,
            "grpc.xds.resource_type": event.type,
        }
        self._valid.add(event.valid, labels)
        self._invalid.add(event.invalid, labels)

    # --- gRFC A91 ---------------------------------------------------------------------------------------------------------

    def _make_outlier_detection(self, meter: Any) -> None:
        name = "grpc.lb.outlier_detection."
        words = "Enforced outlier ejections by ejection reason."
        self._enforced = meter.create_counter(f"{name}ejections_enforced", "{ejection}", words)
        words = "Outlier ejections that were not enforced, by why not."
        self._unenforced = meter.create_counter(f"{name}ejections_unenforced", "{ejection}", words)
        self.told |= {EndpointEjected: self._ejected, EndpointSpared: self._spared}

    def _ejected(self, event: EndpointEjected) -> None:
        self._enforced.add(1, self._of_detection(event))

    def _spared(self, event: EndpointSpared) -> None:
        reason = {"grpc.lb.outlier_detection.unenforced_reason": event.reason}
        self._unenforced.add(1, self._of_detection(event) | reason)

    def _of_detection(self, event: EndpointEjected | EndpointSpared) -> dict[str, str]:
        labels = {"grpc.target": MESH, "grpc.lb.outlier_detection.detection_method": event.method}
        return labels | self._chosen({"grpc.lb.backend_service": event.cluster})

    # --- gRFC A94 and A118 ------------------------------------------------------------------------------------------------

    def _make_connections(self, meter: Any) -> None:
        if self._subchannels:
            name = "grpc.subchannel."
            words = "Times that a connection that stood was lost."
            self._disconnections = meter.create_counter(f"{name}disconnections", "{disconnection}", words)
            words = "Successful connection attempts."
            self._succeeded = meter.create_counter(f"{name}connection_attempts_succeeded", "{attempt}", words)
            words = "Failed connection attempts."
            self._failed = meter.create_counter(f"{name}connection_attempts_failed", "{attempt}", words)
            words = "Open connections."
            self._open = meter.create_up_down_counter(f"{name}open_connections", "{connection}", words)
        if self._tls:
            words = "TLS handshakes of clients, by their result."
            self._handshakes = meter.create_counter("grpc.client.tls.handshakes", "{handshake}", words)
        self.told[ConnectionChanged] = self._changed

    def _changed(self, event: ConnectionChanged) -> None:
        labels = {"grpc.target": event.target, **self.of_backend(event.cluster, event.locality)}
        if self._subchannels:
            self._count_connection(event, labels)
        result = handshake_result(event) if self._tls and event.secure else ""
        if result:
            self._handshakes.add(1, labels | {"grpc.tls.handshake.result": result})

    def _count_connection(self, event: ConnectionChanged, labels: dict[str, str]) -> None:
        level = "privacy_and_integrity" if event.secure else "none"
        standing = labels | self._chosen({"grpc.security_level": level})
        if event.change == CONNECTED:
            self._succeeded.add(1, labels)
            self._open.add(1, standing)
        elif event.change == FAILED:
            self._failed.add(1, labels)
        else:
            self._disconnections.add(1, labels | self._chosen({"grpc.disconnect_error": event.error}))
            self._open.add(-1, standing)

    # --- labels -----------------------------------------------------------------------------------------------------------

    def of_backend(self, cluster: str, locality: Locality) -> dict[str, str]:
        """The optional labels of gRFC A78 and A89 that were chosen."""
        if not self._labels:
            return _NONE
        return self._chosen({"grpc.lb.locality": _text(locality), "grpc.lb.backend_service": cluster})

    def _chosen(self, labels: dict[str, str]) -> dict[str, str]:
        return {name: value for name, value in labels.items() if name in self._labels}


def _text(locality: Locality) -> str:
    """As gRFC A78 writes it; ``""`` where nothing is known."""
    if locality == NOWHERE:
        return ""
    parts = ("region", locality.region), ("zone", locality.zone), ("sub_zone", locality.sub_zone)
    return "{" + ", ".join(f'{name}="{value}"' for name, value in parts) + "}"


def handshake_result(event: ConnectionChanged) -> str:
    """Of the handshake of a connection with TLS the result, as gRFC A118 calls it; ``""`` where it did not come to one."""
    if event.change == CONNECTED:
        return "SUCCESS"
    if event.change != FAILED:
        return ""
    return next((result for part, result in _RESULTS if part in event.error), "")


def _connected(_options: object) -> list[Any]:
    """One observation a server; of several streams to one the worst."""
    from opentelemetry.metrics import Observation

    found: dict[str, int] = {}
    for instruments in _watched:
        for client in instruments.clients():
            found[client.server] = min(found.get(client.server, 1), int(client.connected))
    return [
        Observation(value, {"grpc.target": MESH, "grpc.xds.server": server})
        for server, value in found.items()
    ]


def _resources(_options: object) -> list[Any]:
    """One observation for each type, authority and state, of all streams together."""
    from opentelemetry.metrics import Observation

    found: dict[tuple[str, str, str], int] = {}
    for instruments in _watched:
        for client in instruments.clients():
            for key, count in client.resources.items():
                found[key] = found.get(key, 0) + count
    return [
        Observation(
            count,
            {
                "grpc.target": MESH,
                "grpc.xds.authority": authority,
                "grpc.xds.cache_state": state,
                "grpc.xds.resource_type": kind,
            },
        )
        for (kind, authority, state), count in found.items()
    ]
