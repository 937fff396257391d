"""Secrets (SDS): certificates with their keys, and CAs.

What is no certificate, no key or no CA refuses the resource, so that the one before it stays (SD-03). A secret of another
type is of no use to a client: it is reported, since a server may send what nobody asked for. Whether a CA is all that its user needs
is known where it is merged into what that says (`core.trust`).
"""

from __future__ import annotations

from meshlib.model.tls import Secret, SecretKind
from meshlib.xds.decode.certificate import certificate
from meshlib.xds.decode.report import Report, join
from meshlib.xds.decode.validation import validation_context
from meshlib.xds.schema import WireMessage

__all__ = ["secret"]


def secret(message: WireMessage, path: str, report: Report) -> Secret:
    """A Secret. No key is in what it reports."""
    name, which = str(message.name), message.WhichOneof("type")
    if which is None:
        report.problem(path, "one of tls_certificate and validation_context must be set")
        return Secret(name, SecretKind.OTHER)
    here = join(path, which)
    if which == "tls_certificate":
        return _certificate(name, message.tls_certificate, here, report)
    if which == "validation_context":
        return _ca(name, message.validation_context, here, report)
    return Secret(name, SecretKind.OTHER)


def _certificate(name: str, held: WireMessage, path: str, report: Report) -> Secret:
    lacks: list[str] = []
    made = certificate(held, path, report, lacks)
    if made is None and not lacks:
        report.problem(path, "certificate_chain and private_key must be set")
    if lacks:
        report.ignore(path, ", ".join(lacks))
    return Secret(name, SecretKind.CERTIFICATE, certificate=made, unsupported=", ".join(lacks))


def _ca(name: str, held: WireMessage, path: str, report: Report) -> Secret:
    lacks: list[str] = []
    if not held.ByteSize():
        report.problem(path, "must not be empty")
    if held.HasField("ca_certificate_provider_instance"):
        lacks.append("a CA from a provider")
    made = validation_context(held, path, report, lacks)
    unsupported = ", ".join(dict.fromkeys(lacks))
    if lacks:
        report.ignore(path, unsupported)
    return Secret(name, SecretKind.CA, validation=made, unsupported=unsupported)
