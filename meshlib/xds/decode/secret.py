"""Secrets (SDS): certificates with their keys, and CAs.

What is no certificate, no key or no CA refuses the resource, so that the one before it stays (SD-03). A secret of another
type is of no use to a client: it is reported, since a server may send what nobody asked for.
"""

from __future__ import annotations

from meshlib.model.tls import Secret, SecretKind
from meshlib.xds.decode.pem import certificate_problem, key_problem
from meshlib.xds.decode.report import Report, join
from meshlib.xds.decode.tls import certificate, validation_context
from meshlib.xds.schema import WireMessage

__all__ = ["secret"]

_INLINE = frozenset({"inline_bytes", "inline_string"})


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
    report.ignore(here, "it is no certificate and no CA")
    return Secret(name, SecretKind.OTHER)


def _certificate(name: str, held: WireMessage, path: str, report: Report) -> Secret:
    lacks: list[str] = []
    made = certificate(held, path, report, lacks)
    if not (made.chain or made.key or lacks):
        report.problem(path, "certificate_chain and private_key must be set")
    _judge(held, "certificate_chain", certificate_problem(made.chain.data), path, report)
    wrong = key_problem(made.key.data, password=held.HasField("password"))
    _judge(held, "private_key", wrong, path, report)
    if lacks:
        report.ignore(path, ", ".join(lacks))
    return Secret(name, SecretKind.CERTIFICATE, certificate=made, unsupported=", ".join(lacks))


def _ca(name: str, held: WireMessage, path: str, report: Report) -> Secret:
    lacks: list[str] = []
    if not held.ByteSize():
        report.problem(path, "must not be empty")
    made = validation_context(held, path, report, lacks)
    _judge(held, "trusted_ca", certificate_problem(made.roots.data), path, report)
    if lacks:
        report.ignore(path, ", ".join(dict.fromkeys(lacks)))
    return Secret(name, SecretKind.CA, validation=made, unsupported=", ".join(dict.fromkeys(lacks)))


def _judge(owner: WireMessage, field: str, wrong: str, path: str, report: Report) -> None:
    """What is inline must be PEM; a file is read when it is used."""
    if wrong and owner.HasField(field) and getattr(owner, field).WhichOneof("specifier") in _INLINE:
        report.problem(join(path, field), wrong)
