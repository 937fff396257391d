"""Where a resource says that others come from (LD-02, CD-02, SD-01, FE-04)."""

from __future__ import annotations

from meshlib.xds.decode.report import Report, join
from meshlib.xds.schema import WireMessage

__all__ = ["config_source"]

# envoy.config.core.v3.ApiConfigSource.ApiType: GRPC, DELTA_GRPC, AGGREGATED_GRPC, AGGREGATED_DELTA_GRPC
_OVER_GRPC = frozenset((2, 3, 5, 6))


def config_source(owner: WireMessage, field: str, path: str, report: Report, what: tuple[str, str]) -> None:
    """Notes where `what` (a type's short name, and a name) comes from: the server that this came from (LD-02, CD-02, FE-04), or one
    that may be named beside it (A102). A cluster that an api_config_source names is what Envoy's own bootstrap calls that server.
    """
    here = join(path, field)
    held = getattr(owner, field)
    which = held.WhichOneof("config_source_specifier") if owner.HasField(field) else None
    if which is None:
        report.problem(here, "must be ads or self")
    elif which == "api_config_source":
        _api_source(held.api_config_source, join(here, which), report, what)
    else:
        report.source(*what, None)
    # Other kinds are refused by the table, with their own path.


def _api_source(held: WireMessage, path: str, report: Report, what: tuple[str, str]) -> None:
    if held.api_type not in _OVER_GRPC:
        place = join(path, "api_type")
        report.problem(place, "must be of gRPC; REST is followed where the control plane is polled by it")
        return
    if len(held.grpc_services) != 1:
        report.problem(join(path, "grpc_services"), f"must be one, not {len(held.grpc_services)}")
        return
    service, here = held.grpc_services[0], f"{join(path, 'grpc_services')}[0]"
    if service.HasField("envoy_grpc"):
        report.source(*what, None)
    elif not service.google_grpc.target_uri:
        report.problem(here, "must have envoy_grpc, or google_grpc with a target_uri")
    elif refused := report.elsewhere.refuses(service):
        report.problem(join(here, "google_grpc"), refused)
    else:
        report.source(*what, service)
