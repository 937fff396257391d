"""Transport sockets: what a cluster demands of a connection.

What is demanded and cannot be done sets `Tls.unsupported`: the endpoints behind it are then never called, neither
so nor in plain text. In the sidecar view it is no problem of the resource: the rest of the cluster is right, and a control plane that
means somebody else by it must not see a refusal with each push. What Envoy or, in the target view, gRPC refuses (TL-02, TL-03)
is refused.

Secrets that are named (`decode.sds`) are no part of what is decoded here: `core.trust` puts them in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from meshlib.core.trust import merged
from meshlib.model.tls import Certificate, SecretKind, SecretName, Tls, TlsMatch, Validation
from meshlib.xds.decode.address import numeric
from meshlib.xds.decode.certificate import certificate
from meshlib.xds.decode.report import Report, join, walk
from meshlib.xds.decode.sds import instance, sds_secret
from meshlib.xds.decode.validation import judge, validation_context
from meshlib.xds.decode.values import header_value, number, struct, unpacked
from meshlib.xds.schema import WireMessage, type_name

__all__ = ["check_socket", "tls_matches", "transport_socket"]

_TLS = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
_RAW = "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"
_PROXIED = "envoy.extensions.transport_sockets.http_11_proxy.v3.Http11ProxyUpstreamTransport"
_RAW_NAMES = frozenset({"envoy.transport_sockets.raw_buffer", "raw_buffer"})
_MAX_SNI = 255
# Fields of CommonTlsContext that need code of somebody else's, with the words for it.
_ELSEWHERE = {
    "tls_certificate_certificate_provider": "certificates from a provider of the control plane's",
    "validation_context_certificate_provider": "a CA from a provider of the control plane's",
    "custom_tls_certificate_selector": "a selector of certificates",
    "custom_handshaker": "a handshaker of its own",
}
# What names of ciphers are made of; those of RFCs as OpenSSL calls them.
_SUITE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
_STANDARD = {
    f"TLS_{exchange.replace('-', '_')}_WITH_{standard}": f"{'' if exchange == 'RSA' else exchange + '-'}{name}"
    for exchange in ("ECDHE-ECDSA", "ECDHE-RSA", "RSA")
    for standard, name in (
        ("AES_128_GCM_SHA256", "AES128-GCM-SHA256"),
        ("AES_256_GCM_SHA384", "AES256-GCM-SHA384"),
        ("CHACHA20_POLY1305_SHA256", "CHACHA20-POLY1305"),
        ("AES_128_CBC_SHA", "AES128-SHA"),
        ("AES_256_CBC_SHA", "AES256-SHA"),
        ("AES_128_CBC_SHA256", "AES128-SHA256"),
    )
}
_VERSIONS = {0: "", 1: "TLSv1", 2: "TLSv1.1", 3: "TLSv1.2", 4: "TLSv1.3"}


def transport_socket(owner: WireMessage, path: str, report: Report) -> Tls | None:
    """`owner.transport_socket`: None is plain text."""
    if not owner.HasField("transport_socket"):
        return None
    check_socket(owner, path, report)
    socket, path = owner.transport_socket, join(path, "transport_socket")
    if not socket.HasField("typed_config"):
        if socket.name in _RAW_NAMES:
            return None
        report.ignore(path, socket)
        return Tls(unsupported=f"the transport socket {str(socket.name)[:100]!r} has no configuration")
    outer, path = socket.typed_config, join(path, "typed_config")
    try:
        name = type_name(outer.type_url)
    except ValueError as error:
        report.problem(path, str(error))
        return None
    if report.grpc_tls and name not in (_TLS, _PROXIED):
        report.problem(path, f"{name[:100]} is no transport socket of gRPC")
    if name not in (_TLS, _RAW, _PROXIED):
        report.ignore(path, name)
        return Tls(unsupported=f"the transport socket {name[:100]} is not supported")
    inner = unpacked(outer, path, report, _TLS, _RAW, _PROXIED)
    if inner is None:
        return None
    walk(inner, path, report)
    if name == _PROXIED:
        return _proxied(inner, path, report)
    return _context(inner, path, report) if name == _TLS else None


def check_socket(owner: WireMessage, path: str, report: Report) -> None:
    """A transport socket that only its name tells is refused, but for plain text in the sidecar view, which older control planes
    write so.
    """
    socket = owner.transport_socket
    bare = owner.HasField("transport_socket") and not socket.HasField("typed_config")
    if bare and (report.grpc_tls or socket.name not in _RAW_NAMES):
        report.problem(join(path, "transport_socket.typed_config"), "is missing")


def tls_matches(owner: WireMessage, path: str, report: Report) -> tuple[TlsMatch, ...]:
    """`owner.transport_socket_matches`, in order: an endpoint takes the first whose metadata it has."""
    if report.grpc_tls and len(owner.transport_socket_matches):
        report.problem(join(path, "transport_socket_matches"), "is not supported by gRPC")
        return ()
    found: list[TlsMatch] = []
    for index, item in enumerate(owner.transport_socket_matches):
        here = f"{join(path, 'transport_socket_matches')}[{index}]"
        if not item.name:
            report.problem(join(here, "name"), "must not be empty")
        found.append(TlsMatch(str(item.name), struct(item.match), transport_socket(item, here, report)))
    return tuple(found)


def _proxied(message: WireMessage, path: str, report: Report) -> Tls:
    """TL-07: TLS through a proxy that the endpoint's metadata names, its locality's, or the transport itself."""
    inner = transport_socket(message, path, report)
    proxy = None
    if message.HasField("default_proxy_address"):
        proxy = numeric(message.default_proxy_address, join(path, "default_proxy_address"), report)
    if inner is None:
        words = "plain text through a proxy is not supported"
        report.ignore(path, words)
        inner = Tls(unsupported=words)
    return replace(inner, proxied=True, proxy=proxy)


def _context(message: WireMessage, path: str, report: Report) -> Tls:
    if len(message.sni.encode()) > _MAX_SNI:
        report.problem(join(path, "sni"), f"is longer than {_MAX_SNI} bytes")
    header_value(str(message.sni), join(path, "sni"), report)
    common, here = message.common_tls_context, join(path, "common_tls_context")
    if report.grpc_tls:
        _judge_for_grpc(message, here, report)
    lacks = [words for field, words in _ELSEWHERE.items() if common.HasField(field)]
    shown = _shown(common, here, report, lacks)
    validation, roots = _verified(common, here, report, lacks)
    if roots is None and not report.failed:
        which = common.WhichOneof("validation_context_type")
        place = join(here, which) if which is not None else here
        judge(validation, place, report, sent_name=bool(message.auto_sni_san_validation))
    if lacks:
        report.ignore(here, ", ".join(dict.fromkeys(lacks)))
    sessions = number(message, "max_session_keys")
    made = Tls(
        sni=str(message.sni),
        auto_host_sni=bool(message.auto_host_sni),
        auto_sni_san=bool(message.auto_sni_san_validation),
        certificate=shown if isinstance(shown, Certificate) else None,
        certificates=shown if isinstance(shown, SecretName) else None,
        validation=validation,
        roots=roots,
        alpn=() if report.grpc_tls else tuple(map(str, common.alpn_protocols)),
        renegotiates=bool(message.allow_renegotiation),
        usage=message.enforce_rsa_key_usage.value or not message.HasField("enforce_rsa_key_usage"),
        unsupported=f"TLS with {', '.join(dict.fromkeys(lacks))} is not supported" if lacks else "",
        **_limits(common.tls_params, join(here, "tls_params"), report),
    )
    return made if sessions is None else replace(made, sessions=sessions)


def _judge_for_grpc(message: WireMessage, path: str, report: Report) -> None:
    """TL-03, and what gRPC does not read."""
    common = message.common_tls_context
    if not message.HasField("common_tls_context"):
        report.problem(path, "must be set")
    for field in ("tls_params", "custom_handshaker"):
        if common.HasField(field):
            report.problem(join(path, field), "is not supported by gRPC")
    if len(common.alpn_protocols):
        report.ignore(join(path, "alpn_protocols"), "gRPC does not read it")


# --- what this side shows


def _shown(
    common: WireMessage, path: str, report: Report, lacks: list[str]
) -> SecretName | Certificate | None:
    """An instance of a provider goes before certificates, and these before secrets."""
    for field in ("tls_certificate_provider_instance", "tls_certificate_certificate_provider_instance"):
        if common.HasField(field):
            return instance(getattr(common, field), join(path, field), SecretKind.CERTIFICATE, report)
    inline, named = "tls_certificates", "tls_certificate_sds_secret_configs"
    given = [
        f"{join(path, field)}[{index}]"
        for field in (inline, named)
        for index in range(len(getattr(common, field)))
    ]
    if not given:
        return None
    if report.grpc_tls:
        report.problem(given[0], "gRPC shows no certificate but that of a provider's instance")
        return None
    if len(given) > 1 and not common.HasField("custom_tls_certificate_selector"):
        report.problem(given[1], "a client has one certificate")
    if len(common.tls_certificates):
        return certificate(common.tls_certificates[0], given[0], report, lacks)
    made = sds_secret(
        common.tls_certificate_sds_secret_configs[0], given[0], SecretKind.CERTIFICATE, report, lacks
    )
    return None if isinstance(made, Validation) else made


# --- from whom it accepts


def _verified(
    common: WireMessage, path: str, report: Report, lacks: list[str]
) -> tuple[Validation | None, SecretName | None]:
    """What is said of it here, and the secret with the rest."""
    which = common.WhichOneof("validation_context_type")
    found: tuple[Validation | None, SecretName | None] = None, None
    if which == "validation_context":
        found = _by_context(common.validation_context, join(path, which), report, lacks)
    elif which == "validation_context_sds_secret_config":
        found = _with_secret(None, getattr(common, which), join(path, which), report, lacks)
    elif which == "validation_context_certificate_provider_instance":
        found = None, instance(getattr(common, which), join(path, which), SecretKind.CA, report)
    elif which == "combined_validation_context":
        found = _combined(common.combined_validation_context, join(path, which), report, lacks)
    if report.grpc_tls and found[1] is None and not (found[0] is not None and found[0].system):
        report.problem(path, "gRPC needs a ca_certificate_provider_instance, or system_root_certs")
    return found


def _combined(
    held: WireMessage, path: str, report: Report, lacks: list[str]
) -> tuple[Validation | None, SecretName | None]:
    default, named = "default_validation_context", "validation_context_sds_secret_config"
    field = "validation_context_certificate_provider_instance"
    own: tuple[Validation | None, SecretName | None] = None, None
    if held.HasField(default):
        own = _by_context(held.default_validation_context, join(path, default), report, lacks)
    elif not report.grpc_tls:
        report.problem(join(path, default), "must be set")
    if own[1] is not None:
        return own
    if held.HasField(field):
        return own[0], instance(getattr(held, field), join(path, field), SecretKind.CA, report)
    if held.HasField("validation_context_certificate_provider"):
        lacks.append(_ELSEWHERE["validation_context_certificate_provider"])
    elif report.grpc_tls:  # gRPC reads the context in it
        return own
    elif held.HasField(named):
        return _with_secret(own[0], getattr(held, named), join(path, named), report, lacks)
    else:
        report.problem(join(path, named), "must be set")
    return own


def _by_context(
    held: WireMessage, path: str, report: Report, lacks: list[str]
) -> tuple[Validation, SecretName | None]:
    field, roots = "ca_certificate_provider_instance", None
    if held.HasField(field):
        roots = instance(getattr(held, field), join(path, field), SecretKind.CA, report)
    return validation_context(held, path, report, lacks), roots


def _with_secret(
    own: Validation | None, held: WireMessage, path: str, report: Report, lacks: list[str]
) -> tuple[Validation | None, SecretName | None]:
    if report.grpc_tls:
        report.problem(path, "gRPC takes no CA but that of a provider's instance, or the system's")
        return own, None
    made = sds_secret(held, path, SecretKind.CA, report, lacks)
    if isinstance(made, SecretName):
        return own, made
    return (merged(own, made) if isinstance(made, Validation) else own), None


# --- how it is spoken


def _limits(params: WireMessage, path: str, report: Report) -> dict[str, Any]:
    """Versions, ciphers and the curve of TlsParameters, as fields of `Tls`."""
    versions = []
    for field in ("tls_minimum_protocol_version", "tls_maximum_protocol_version"):
        number_of = getattr(params, field)
        if number_of not in _VERSIONS:
            report.problem(join(path, field), f"{number_of} is not known")
        versions.append(_VERSIONS.get(number_of, ""))
    curves = [name for item in params.ecdh_curves for name in item.split(":")]
    if len(curves) > 1:
        report.ignore(join(path, "ecdh_curves"), "Python's ssl takes one curve, or OpenSSL's own")
    return {
        "oldest": versions[0],
        "newest": versions[1],
        "ciphers": tuple(dict.fromkeys(_ciphers(params, path, report))),
        "curve": curves[0] if len(curves) == 1 else "",
    }


def _ciphers(params: WireMessage, path: str, report: Report) -> Iterator[str]:
    """BoringSSL's list: names, and ``[A|B]`` for such as are as good as one another."""
    for index, item in enumerate(params.cipher_suites):
        for part in item.split(":"):
            for name in part.removeprefix("[").removesuffix("]").split("|") if part[:1] == "[" else (part,):
                if _SUITE.issuperset(name) and name:
                    yield _STANDARD.get(name, name)
                else:
                    place = f"{join(path, 'cipher_suites')}[{index}]"
                    report.problem(place, f"{name[:100]!r} is no name of a cipher")
