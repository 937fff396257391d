"""What is PEM, or the file that has it, and certificates with their keys.

What is inline must look like what it is said to be; a file is read when it is used. No byte of either is in what is reported.
"""

from __future__ import annotations

from collections.abc import Callable

from meshlib.model.tls import Certificate, Pem
from meshlib.xds.decode.pem import certificate_problem, key_problem
from meshlib.xds.decode.report import Report, join
from meshlib.xds.schema import WireMessage

__all__ = ["certificate", "material"]

_SEQUENCE = b"\x30"  # with what PKCS #12 begins in DER


def material(
    owner: WireMessage, field: str, path: str, report: Report, judge: Callable[[bytes], str] | None = None
) -> Pem:
    """A DataSource; ``judge`` says of what is inline what is wrong with it."""
    if not owner.HasField(field):
        return Pem()
    source, path = getattr(owner, field), join(path, field)
    which = source.WhichOneof("specifier")
    if which is None:
        report.problem(path, "one of filename, inline_bytes and inline_string must be set")
        return Pem()
    if which == "filename":
        if not source.filename or "\0" in source.filename:
            report.problem(join(path, which), "must be the path of a file")
        return Pem(file=str(source.filename))
    if which == "environment_variable":  # refused by the table
        return Pem()
    held = getattr(source, which)
    made = Pem(bytes(held) if which == "inline_bytes" else str(held).encode())
    if judge is not None and (wrong := judge(made.data)):
        report.problem(path, wrong)
    return made


def certificate(held: WireMessage, path: str, report: Report, lacks: list[str]) -> Certificate | None:
    """A TlsCertificate; None where there is nothing in it. What cannot be done goes to `lacks`."""
    if held.HasField("private_key_provider"):
        lacks.append("a provider of private keys")
    if held.HasField("pkcs12"):
        return _pkcs12(held, path, report)
    password = material(held, "password", path, report)
    chain = material(held, "certificate_chain", path, report, certificate_problem)
    key = material(held, "private_key", path, report, lambda text: key_problem(text, password=bool(password)))
    if not (held.HasField("certificate_chain") or held.HasField("private_key")):
        return None
    if not lacks and not (held.HasField("certificate_chain") and held.HasField("private_key")):
        report.problem(path, "certificate_chain and private_key must be set together")
    return Certificate(chain, key, password=password)


def _pkcs12(held: WireMessage, path: str, report: Report) -> Certificate:
    beside = [
        name for name in ("certificate_chain", "private_key", "private_key_provider") if held.HasField(name)
    ]
    if beside:
        report.problem(join(path, "pkcs12"), f"cannot stand beside {', '.join(beside)}")
    both = material(held, "pkcs12", path, report, _pkcs12_problem)
    return Certificate(pkcs12=both, password=material(held, "password", path, report))


def _pkcs12_problem(data: bytes) -> str:
    return "" if data[:1] == _SEQUENCE else "is no PKCS #12"
