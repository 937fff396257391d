"""Transport sockets: what a cluster demands of a connection.

What is demanded and cannot be done sets `Tls.unsupported`: the endpoints behind it are then never called, neither
so nor in plain text. It is no problem of the resource: the rest of the cluster is right, and a control plane that
means somebody else by it must not see a refusal with each push. Secrets that the control plane has (SDS over `ads` or `self`)
are asked for, though nothing is done with them yet.

Where no CA is given the system's roots verify the server; Envoy would verify nothing.
"""

from __future__ import annotations

from meshlib.model.match import StringKind, StringMatch
from meshlib.model.tls import (
    Certificate,
    Pem,
    San,
    SanKind,
    SecretKind,
    SecretName,
    Tls,
    TlsMatch,
    Validation,
)
from meshlib.xds.decode.report import Report, join, walk
from meshlib.xds.decode.values import header_value, struct, unpacked
from meshlib.xds.names import canonical
from meshlib.xds.schema import WireMessage, type_name

__all__ = ["certificate", "check_socket", "tls_matches", "transport_socket", "validation_context"]

_TLS = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
_RAW = "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"
_RAW_NAMES = frozenset({"envoy.transport_sockets.raw_buffer", "raw_buffer"})
_MAX_SNI = 255
# Fields of CommonTlsContext that only somebody else can fulfil, with the words for it.
_ELSEWHERE = {
    "tls_certificate_sds_secret_configs": "certificates over SDS",
    "tls_certificate_provider_instance": "certificates from a provider",
    "tls_certificate_certificate_provider": "certificates from a provider",
    "tls_certificate_certificate_provider_instance": "certificates from a provider",
    "custom_tls_certificate_selector": "a selector of certificates",
    "custom_handshaker": "a handshaker of its own",
}
_VALIDATION_ELSEWHERE = {
    "ca_certificate_provider_instance": "a CA from a provider",
    "verify_certificate_spki": "a pinned key",
    "verify_certificate_hash": "a pinned certificate",
    "require_signed_certificate_timestamp": "signed certificate timestamps",
    "crl": "a revocation list",
    "custom_validator_config": "a validator of its own",
}
_CA_ELSEWHERE = {
    "validation_context_sds_secret_config": "a CA over SDS",
    "validation_context_certificate_provider": "a CA from a provider",
    "validation_context_certificate_provider_instance": "a CA from a provider",
}
# What Istio's agent beside a proxy has, and no control plane.
_OF_THE_AGENT = frozenset({"default", "ROOTCA"})
_OTHER_NAME = 5


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
    if name not in (_TLS, _RAW):
        report.ignore(path, name)
        return Tls(unsupported=f"the transport socket {name[:100]} is not supported")
    inner = unpacked(outer, path, report, _TLS, _RAW)
    if inner is None:
        return None
    walk(inner, path, report)
    return _context(inner, path, report) if name == _TLS else None


def check_socket(owner: WireMessage, path: str, report: Report) -> None:
    """Envoy refuses a transport socket that only its name tells; plain text is taken so, as older control planes write it."""
    socket = owner.transport_socket
    bare = owner.HasField("transport_socket") and not socket.HasField("typed_config")
    if bare and socket.name not in _RAW_NAMES and not report.target:
        report.problem(join(path, "transport_socket.typed_config"), "is missing")


def tls_matches(owner: WireMessage, path: str, report: Report) -> tuple[TlsMatch, ...]:
    """`owner.transport_socket_matches`, in order: an endpoint takes the first whose metadata it has."""
    found: list[TlsMatch] = []
    for index, item in enumerate(owner.transport_socket_matches):
        here = f"{join(path, 'transport_socket_matches')}[{index}]"
        if not item.name:
            report.problem(join(here, "name"), "must not be empty")
        found.append(TlsMatch(str(item.name), struct(item.match), transport_socket(item, here, report)))
    return tuple(found)


def _context(message: WireMessage, path: str, report: Report) -> Tls:
    sni = header_value(str(message.sni), join(path, "sni"), report)
    if len(sni.encode()) > _MAX_SNI:
        report.problem(join(path, "sni"), f"is longer than {_MAX_SNI} bytes")
    common, path = message.common_tls_context, join(path, "common_tls_context")
    lacks = [words for field, words in _ELSEWHERE.items() if _is_set(common, field)]
    certificate = _certificates(common, path, report, lacks)
    validation = _validation(common, path, report, lacks)
    secrets = _secrets(common, path, report)
    if lacks:
        report.ignore(path, ", ".join(dict.fromkeys(lacks)))
    return Tls(
        sni=sni,
        certificate=certificate,
        validation=validation,
        certificates=_first(secrets, SecretKind.CERTIFICATE),
        roots=_first(secrets, SecretKind.CA),
        alpn=tuple(str(item) for item in common.alpn_protocols),
        unsupported=f"TLS with {', '.join(dict.fromkeys(lacks))} is not supported" if lacks else "",
    )


def _secrets(common: WireMessage, path: str, report: Report) -> tuple[SecretName, ...]:
    """The secrets to ask for (SD-01)."""
    field = "tls_certificate_sds_secret_configs"
    given = [
        (item, f"{join(path, field)}[{index}]", SecretKind.CERTIFICATE)
        for index, item in enumerate(getattr(common, field))
    ]
    field, combined = "validation_context_sds_secret_config", "combined_validation_context"
    for owner, here in ((common, path), (getattr(common, combined), join(path, combined))):
        if owner.HasField(field):
            given.append((getattr(owner, field), join(here, field), SecretKind.CA))
    found = (_secret(item, here, kind, report) for item, here, kind in given)
    return tuple(dict.fromkeys(each for each in found if each is not None))


def _secret(held: WireMessage, path: str, kind: SecretKind, report: Report) -> SecretName | None:
    name = canonical(str(held.name))
    which = held.sds_config.WhichOneof("config_source_specifier")
    if not name:
        report.problem(join(path, "name"), "must not be empty")
    elif not held.HasField("sds_config"):
        report.ignore(path, f"{name!r} is a static secret; there are none")
    elif name in _OF_THE_AGENT:
        report.ignore(path, f"{name!r} is a secret of Istio's agent; the control plane is not asked for it")
    elif which not in ("ads", "self"):
        report.ignore(
            path, f"{name!r} does not come from the control plane: {which or 'no source'} is not followed"
        )
    else:
        return SecretName(name, kind)
    return None


def _first(secrets: tuple[SecretName, ...], kind: SecretKind) -> SecretName | None:
    return next((each for each in secrets if each.kind is kind), None)


def _certificates(common: WireMessage, path: str, report: Report, lacks: list[str]) -> Certificate | None:
    if not len(common.tls_certificates):
        return None
    path = join(path, "tls_certificates")
    for index in range(1, len(common.tls_certificates)):
        report.ignore(f"{path}[{index}]", "the first certificate is used")
    return certificate(common.tls_certificates[0], f"{path}[0]", report, lacks)


def certificate(held: WireMessage, path: str, report: Report, lacks: list[str]) -> Certificate:
    """The chain and the key of a TlsCertificate; what cannot be done goes to `lacks`."""
    lacks.extend(
        f"a certificate with {field}"
        for field in ("pkcs12", "private_key_provider", "password")
        if held.HasField(field)
    )
    cert = _data(held, "certificate_chain", path, report)
    key = _data(held, "private_key", path, report)
    if not lacks and bool(cert) != bool(key):
        report.problem(path, "certificate_chain and private_key must be set together")
    return Certificate(cert, key)


def _validation(common: WireMessage, path: str, report: Report, lacks: list[str]) -> Validation | None:
    which = common.WhichOneof("validation_context_type")
    if which is None:
        return None
    held, path = getattr(common, which), join(path, which)
    if which == "combined_validation_context":
        lacks.extend(words for field, words in _CA_ELSEWHERE.items() if held.HasField(field))
        held, path = held.default_validation_context, join(path, "default_validation_context")
    elif which != "validation_context":
        lacks.append(_CA_ELSEWHERE[which])
        return None
    return validation_context(held, path, report, lacks)


def validation_context(held: WireMessage, path: str, report: Report, lacks: list[str]) -> Validation:
    """The CA and the names of a CertificateValidationContext; what cannot be done goes to `lacks`."""
    lacks.extend(words for field, words in _VALIDATION_ELSEWHERE.items() if _is_set(held, field))
    if held.trust_chain_verification:
        lacks.append("certificates that are not verified")
    return Validation(_data(held, "trusted_ca", path, report), sans=_sans(held, path, report, lacks))


def _sans(held: WireMessage, path: str, report: Report, lacks: list[str]) -> tuple[San, ...]:
    found: list[San] = []
    for index, item in enumerate(held.match_typed_subject_alt_names):
        if item.san_type == _OTHER_NAME or item.matcher.WhichOneof("match_pattern") != "exact":
            report.ignore(f"{join(path, 'match_typed_subject_alt_names')}[{index}]", item)
            lacks.append("names that are not matched exactly")
        else:
            found.append(San(SanKind.ANY, StringMatch(StringKind.EXACT, str(item.matcher.exact))))
    for index, item in enumerate(held.match_subject_alt_names):
        if item.WhichOneof("match_pattern") != "exact":
            report.ignore(f"{join(path, 'match_subject_alt_names')}[{index}]", item)
            lacks.append("names that are not matched exactly")
        else:
            found.append(San(SanKind.ANY, StringMatch(StringKind.EXACT, str(item.exact))))
    return tuple(dict.fromkeys(found))


def _data(owner: WireMessage, field: str, path: str, report: Report) -> Pem:
    """A DataSource."""
    if not owner.HasField(field):
        return Pem()
    source, path = getattr(owner, field), join(path, field)
    which = source.WhichOneof("specifier")
    if which == "filename":
        if not source.filename or "\0" in source.filename:
            report.problem(join(path, which), "must be the path of a file")
        return Pem(file=str(source.filename))
    if which == "inline_bytes":
        return Pem(bytes(source.inline_bytes))
    if which == "inline_string":
        return Pem(str(source.inline_string).encode())
    if which is None:
        report.problem(path, "one of filename, inline_bytes and inline_string must be set")
    return Pem()


def _is_set(message: WireMessage, field: str) -> bool:
    value = getattr(message, field)
    if hasattr(value, "DESCRIPTOR"):
        return bool(message.HasField(field))
    return bool(len(value))
