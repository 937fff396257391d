"""SdsSecretConfig and instances of providers: who has a secret that is named.

    named with                                       is asked of
    -----------------------------------------------  -----------------------------------------------------------
    ``ads``, ``self``, the cluster of an Envoy's     the control plane (SD-01)
    bootstrap
    another server that may be asked                 that server (gRFC A102)
    the cluster ``sds-grpc``, or a unix socket that  the process's own identity: what Istio's agent has beside an Envoy
    is not there; ``default`` and ``ROOTCA`` of any
    cluster or file
    an instance of a provider of certificates (A29)  the process's own identity
    a name ``file-cert:chain~key``, ``file-root:ca`` nobody: Istio's agent reads these files, and so does a handshake
    (``~crl``)
    nothing, in a file of the application's own      that file: it is a static secret
    nothing, or a file                               nobody: it is reported, and the endpoints are closed

Where resources are read from files, whoever reads them has put ``self`` in the place of a file (`meshlib.xds.discovery`).
"""

from __future__ import annotations

from meshlib.model.tls import Certificate, Pem, SecretFrom, SecretKind, SecretName, Validation
from meshlib.xds.decode.report import Report, join
from meshlib.xds.decode.source import config_source
from meshlib.xds.names import canonical
from meshlib.xds.schema import WireMessage

__all__ = ["instance", "sds_secret"]

# What Istio's agent calls its certificate and its roots, and an Envoy the agent.
_AGENT, _OF_THE_AGENT = "sds-grpc", frozenset({"default", "ROOTCA"})
_FILES, _BETWEEN = {SecretKind.CERTIFICATE: "file-cert:", SecretKind.CA: "file-root:"}, "~"


def sds_secret(
    held: WireMessage, path: str, kind: SecretKind, report: Report, lacks: list[str]
) -> SecretName | Certificate | Validation | None:
    """The name to ask for, or what it says itself; None where nobody is asked, for the reason in `lacks`."""
    name = canonical(str(held.name))
    if not name:
        report.problem(join(path, "name"), "must not be empty")
        return None
    if name.startswith(_FILES[kind]):
        return _files(name.removeprefix(_FILES[kind]), kind, join(path, "name"), report)
    source = _source(held, name, path, report, lacks)
    return None if source is None else SecretName(name, kind, source)


def _source(held: WireMessage, name: str, path: str, report: Report, lacks: list[str]) -> SecretFrom | None:
    which = held.sds_config.WhichOneof("config_source_specifier")
    if report.statics and not held.HasField("sds_config"):
        return SecretFrom.CONTROL_PLANE
    if which is None:
        words = "no source" if held.HasField("sds_config") else "a static secret"
        report.ignore(path, f"{name!r} has no source: there are no static secrets")
        lacks.append(words)
        return None
    if _by_the_agent(held.sds_config, which, name, report):
        return SecretFrom.IDENTITY
    if which in ("path", "path_config_source"):
        report.ignore(path, f"{name!r} is in a file, which a control plane may not name")
        lacks.append("a secret in a file")
        return None
    config_source(held, "sds_config", path, report, ("secret", name))
    return SecretFrom.CONTROL_PLANE


def _by_the_agent(source: WireMessage, which: str, name: str, report: Report) -> bool:
    if which in ("path", "path_config_source"):
        path = str(source.path if which == "path" else source.path_config_source.path)
        return name in _OF_THE_AGENT or report.elsewhere.absent(path)
    if which != "api_config_source" or len(source.api_config_source.grpc_services) != 1:
        return False
    service = source.api_config_source.grpc_services[0]
    if service.HasField("envoy_grpc"):
        return service.envoy_grpc.cluster_name == _AGENT or name in _OF_THE_AGENT
    scheme, _, socket = str(service.google_grpc.target_uri).partition(":")
    return scheme == "unix" and report.elsewhere.absent(socket.removeprefix("//"))


def _files(text: str, kind: SecretKind, path: str, report: Report) -> Certificate | Validation:
    first, _, second = text.partition(_BETWEEN)
    certificate = kind is SecretKind.CERTIFICATE
    if not first or (certificate and not second) or "\0" in text:
        report.problem(path, "must name files")
    if certificate:
        return Certificate(Pem(file=first), Pem(file=second))
    return Validation(Pem(file=first), crl=Pem(file=second))


def instance(held: WireMessage, path: str, kind: SecretKind, report: Report) -> SecretName:
    """An instance of a provider (TL-02): in the target view one of the bootstrap's."""
    name, here = str(held.instance_name), join(path, "instance_name")
    if report.grpc_tls and not name:
        report.problem(here, "must not be empty")
    elif report.grpc_tls and report.instances is not None and name not in report.instances:
        report.problem(here, f"{name[:100]!r} is no certificate provider of the bootstrap")
    return SecretName(name or "default", kind, SecretFrom.IDENTITY)
