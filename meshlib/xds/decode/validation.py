"""CertificateValidationContext: from whom a connection is accepted.

In the sidecar view as Envoy has it: without a CA nobody is verified, and what would then look as if somebody were is refused. In
the target view as gRPC has it (TL-02, TL-03): the CA comes from a provider's instance, or is the system's; what an Envoy would read
beside it is refused where it makes the check stricter, and else left out.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator

from meshlib.core.trust import unsound
from meshlib.model.match import StringKind, StringMatch
from meshlib.model.tls import Pem, San, SanKind, Validation
from meshlib.xds.decode.certificate import material
from meshlib.xds.decode.pem import certificate_problem, crl_problem
from meshlib.xds.decode.report import Report, join, walk
from meshlib.xds.decode.values import number, string_match, unpacked
from meshlib.xds.schema import WireMessage

__all__ = ["judge", "validation_context"]

_SPIFFE = "envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig"
_KINDS = {
    1: SanKind.EMAIL,
    2: SanKind.DNS,
    3: SanKind.URI,
    4: SanKind.IP,
    5: SanKind.OTHER_NAME,
}
_OID = frozenset("0123456789.")
_SHA256 = 32
_FINGERPRINT = 95  # characters of one with colons
_MOST_DEPTH = 100
# What gRPC refuses (TL-03), and what it does not read.
_NOT_OF_GRPC = (
    "verify_certificate_spki", "verify_certificate_hash", "require_signed_certificate_timestamp", "crl",
    "custom_validator_config",
)  # fmt: skip
_LEFT_BY_GRPC = (
    "trusted_ca",
    "allow_expired_certificate",
    "trust_chain_verification",
    "only_verify_leaf_cert_crl",
)


def validation_context(held: WireMessage, path: str, report: Report, lacks: list[str]) -> Validation:
    """What cannot be done of it goes to `lacks`. Whether the whole verifies anything `judge` says, when it is whole."""
    sans = _sans(held, path, report)
    if report.grpc_tls:
        return _of_grpc(held, path, report, sans)
    if held.require_signed_certificate_timestamp.value:
        lacks.append("signed certificate timestamps")
    roots = material(held, "trusted_ca", path, report, certificate_problem)
    domains: dict[str, Pem] = {}
    if held.HasField("custom_validator_config"):
        domains = _validator(held, path, report, lacks)
    if domains:  # SPIFFE's validator looks at URIs alone
        roots, sans = Pem(), tuple(_uris(sans, path, report))
    if held.trust_chain_verification not in (0, 1):
        report.problem(
            join(path, "trust_chain_verification"), f"{held.trust_chain_verification} is not known"
        )
    untrusted = bool(held.trust_chain_verification)
    if untrusted:
        report.ignore(
            join(path, "trust_chain_verification"),
            "ACCEPT_UNTRUSTED: nobody need have signed the certificate",
        )
    return Validation(
        roots=roots,
        domains=domains,
        system=held.HasField("system_root_certs") and not (roots or domains),
        sans=sans,
        hashes=tuple(_hashes(held, path, report)),
        spki=tuple(_pins(held, path, report)),
        crl=material(held, "crl", path, report, crl_problem),
        crl_leaf=bool(held.only_verify_leaf_cert_crl),
        untrusted=untrusted,
        expired=bool(held.allow_expired_certificate),
        depth=_depth(held, path, report),
    )


def judge(validation: Validation | None, path: str, report: Report, *, sent_name: bool) -> None:
    """Refuses what would verify nothing though it seems to, and reports what verifies nothing."""
    wrong = unsound(validation, sent_name=sent_name)
    if wrong:
        report.problem(path, wrong)
    elif validation is None or not (
        validation.roots or validation.domains or validation.system or validation.hashes or validation.spki
    ):
        report.ignore(path, "there is no CA: nobody is verified, as in Envoy")


def _of_grpc(held: WireMessage, path: str, report: Report, sans: tuple[San, ...]) -> Validation:
    for field in _NOT_OF_GRPC:
        value = getattr(held, field)
        given = value.value if field == "require_signed_certificate_timestamp" else _given(held, field)
        if given:
            report.problem(join(path, field), "is not supported by gRPC")
    for field in _LEFT_BY_GRPC:
        if _given(held, field):
            report.ignore(join(path, field), "gRPC does not read it")
    instance = held.HasField("ca_certificate_provider_instance")
    return Validation(
        system=held.HasField("system_root_certs") and not instance,
        sans=sans,
        depth=_depth(held, path, report),
    )


def _given(held: WireMessage, field: str) -> bool:
    value = getattr(held, field)
    if hasattr(value, "DESCRIPTOR"):
        return bool(held.HasField(field))
    return bool(len(value)) if hasattr(value, "__len__") else bool(value)


def _depth(held: WireMessage, path: str, report: Report) -> int | None:
    """BoringSSL counts the root, and the model does not."""
    depth = number(held, "max_verify_depth")
    if depth is None:
        return None
    if depth > _MOST_DEPTH:
        report.problem(join(path, "max_verify_depth"), f"must be at most {_MOST_DEPTH}, not {depth}")
    return max(0, depth - 1)


# --- names


def _sans(held: WireMessage, path: str, report: Report) -> tuple[San, ...]:
    """The typed ones; those of the field of before only where there are none."""
    old = join(path, "match_subject_alt_names")
    if len(held.match_typed_subject_alt_names):
        if len(held.match_subject_alt_names):
            report.ignore(old, "match_typed_subject_alt_names holds")
        here = join(path, "match_typed_subject_alt_names")
        items = enumerate(held.match_typed_subject_alt_names)
        return tuple(dict.fromkeys(_san(item, f"{here}[{index}]", report) for index, item in items))
    matchers = enumerate(held.match_subject_alt_names)
    return tuple(
        dict.fromkeys(
            San(SanKind.ANY, string_match(item, f"{old}[{index}]", report)) for index, item in matchers
        )
    )


def _san(item: WireMessage, path: str, report: Report) -> San:
    kind = _KINDS.get(item.san_type)
    if kind is None:
        words = f"{item.san_type} is not known" if item.san_type else "must be set"
        report.problem(join(path, "san_type"), words)
    match, here = StringMatch(StringKind.EXACT, ""), join(path, "matcher")
    if item.HasField("matcher"):
        match = string_match(item.matcher, here, report)
    else:
        report.problem(here, "must be set")
    oid = str(item.oid) if kind is SanKind.OTHER_NAME else ""
    if kind is SanKind.OTHER_NAME and not _is_oid(oid):
        words = "must be an object identifier in numbers, as 1.3.6.1.4.1.311.20.2.3"
        report.problem(join(path, "oid"), words)
    return San(kind or SanKind.ANY, match, oid)


def _is_oid(text: str) -> bool:
    arcs = text.split(".")
    return len(arcs) > 1 and all(arcs) and _OID.issuperset(text) and arcs[0] in ("0", "1", "2")


def _uris(sans: tuple[San, ...], path: str, report: Report) -> Iterator[San]:
    for san in sans:
        if san.kind in (SanKind.URI, SanKind.ANY):
            yield San(SanKind.URI, san.match)
        else:
            words = f"the validator of SPIFFE looks at no {san.kind}"
            report.ignore(join(path, "match_typed_subject_alt_names"), words)


# --- what a certificate or its key is


def _hashes(held: WireMessage, path: str, report: Report) -> Iterator[bytes]:
    for index, text in enumerate(held.verify_certificate_hash):
        plain = text.replace(":", "") if len(text) == _FINGERPRINT else text
        try:
            found = bytes.fromhex(plain) if plain.isalnum() else b""
        except ValueError:
            found = b""
        if len(found) == _SHA256:
            yield found
        else:
            report.problem(f"{join(path, 'verify_certificate_hash')}[{index}]", "must be a SHA-256 in hex")


def _pins(held: WireMessage, path: str, report: Report) -> Iterator[bytes]:
    for index, text in enumerate(held.verify_certificate_spki):
        try:
            found = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            found = b""
        if len(found) == _SHA256:
            yield found
        else:
            report.problem(f"{join(path, 'verify_certificate_spki')}[{index}]", "must be a SHA-256 in base64")


# --- the trust domains of SPIFFE


def _validator(held: WireMessage, path: str, report: Report, lacks: list[str]) -> dict[str, Pem]:
    """The CAs of each trust domain; none where it is another validator."""
    outer, here = (
        held.custom_validator_config.typed_config,
        join(path, "custom_validator_config.typed_config"),
    )
    if outer.type_url.rpartition("/")[2] != _SPIFFE:
        lacks.append("a validator of its own")
        return {}
    inner = unpacked(outer, here, report, _SPIFFE)
    if inner is None:
        return {}
    walk(inner, here, report)
    if inner.HasField("trust_bundles"):
        lacks.append("SPIFFE bundles in JSON")
        return {}
    if not len(inner.trust_domains):
        report.problem(join(here, "trust_domains"), "must not be empty")
    found: dict[str, Pem] = {}
    for index, domain in enumerate(inner.trust_domains):
        place = f"{join(here, 'trust_domains')}[{index}]"
        if not domain.name or domain.name in found:
            report.problem(
                join(place, "name"), "must not be empty" if not domain.name else "is there already"
            )
        if not domain.HasField("trust_bundle"):
            report.problem(join(place, "trust_bundle"), "must be set")
        found[str(domain.name)] = material(domain, "trust_bundle", place, report, certificate_problem)
    return found
