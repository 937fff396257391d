"""Certificates of every kind, made for a test: with names of each sort, of intermediates, expired, revoked."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
import tempfile
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)
from cryptography.x509.oid import NameOID

__all__ = ["Authority", "Issued", "handshake", "key_usage"]

_DAY = dt.timedelta(days=1)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC).replace(microsecond=0)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def general(name: str | x509.GeneralName) -> x509.GeneralName:
    """``spiffe://…`` is a URI, ``a@b`` an address, the rest an IP address or a DNS name."""
    if not isinstance(name, str):
        return name
    if "://" in name:
        return x509.UniformResourceIdentifier(name)
    if "@" in name:
        return x509.RFC822Name(name)
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


class Issued:
    """A certificate with its key, and those between it and its root."""

    def __init__(
        self, certificate: x509.Certificate, key: Any, between: tuple[x509.Certificate, ...]
    ) -> None:
        self.certificate = certificate
        self.key = key
        self.between = between

    @property
    def chain_pem(self) -> bytes:
        return b"".join(one.public_bytes(Encoding.PEM) for one in (self.certificate, *self.between))

    @property
    def key_pem(self) -> bytes:
        return self.encrypted(None)

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    def encrypted(self, password: bytes | None) -> bytes:
        """The key, under a password."""
        how: Any = NoEncryption() if password is None else BestAvailableEncryption(password)
        made: bytes = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how)
        return made

    def pkcs12(self, password: bytes | None = None) -> bytes:
        how: Any = NoEncryption() if password is None else BestAvailableEncryption(password)
        return pkcs12.serialize_key_and_certificates(
            b"me", self.key, self.certificate, list(self.between), how
        )

    def configure(self, context: ssl.SSLContext) -> ssl.SSLContext:
        """Have ``context`` show it."""
        with tempfile.NamedTemporaryFile() as file:
            file.write(self.chain_pem + self.key_pem)
            file.flush()
            context.load_cert_chain(file.name)
        return context

    def server(self, *, clients: Authority | None = None, alpn: tuple[str, ...] = ()) -> ssl.SSLContext:
        """A server's context; ``clients``: whose certificates it demands."""
        context = self.configure(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        if clients is not None:
            context.load_verify_locations(cadata=clients.pem.decode())
            context.verify_mode = ssl.CERT_REQUIRED
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context

    def write(self, folder: Path) -> None:
        """``cert.pem`` and ``key.pem``, each put in the place of the one before in one step."""
        for name, data in (("cert.pem", self.chain_pem), ("key.pem", self.key_pem)):
            replaced(folder / name, data)


def replaced(path: Path, data: bytes) -> None:
    """Write it beside, and put it in the place in one step."""
    fresh = path.with_suffix(".new")
    fresh.write_bytes(data)
    fresh.replace(path)


class Authority:
    """A CA. ``above``: who signed it; none: it itself."""

    def __init__(self, name: str = "Root", above: Authority | None = None) -> None:
        self.name = _name(name)
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.above = above
        signer, signer_key = (self.name, self.key) if above is None else (above.name, above.key)
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(signer)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_now() - _DAY)
            .not_valid_after(_now() + 100 * _DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False)
            .sign(signer_key, hashes.SHA256())
        )

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def issue(
        self,
        *names: str | x509.GeneralName,
        raw: bytes = b"",
        expired: bool = False,
        seconds: float = 864_000.0,
        subject: str = "leaf",
        key: Any = None,
        usage: x509.KeyUsage | None = None,
    ) -> Issued:
        """A leaf with these alternative names; none: without the extension. ``raw``: the extension's bytes, in their place. ``seconds``:
        for which it is valid from now on. ``key``: its private key, a new one by default; ``usage``: what that is for,
        None: it does not say.
        """
        key = key or ec.generate_private_key(ec.SECP256R1())
        end = _now() - _DAY / 2 if expired else _now() + dt.timedelta(seconds=seconds)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(subject))
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_now() - _DAY)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
            )
        )
        if usage is not None:
            builder = builder.add_extension(usage, critical=True)
        if names or raw:
            found: x509.ExtensionType = x509.SubjectAlternativeName([general(name) for name in names])
            if raw:
                found = x509.UnrecognizedExtension(found.oid, raw)
            builder = builder.add_extension(found, critical=False)
        return Issued(builder.sign(self.key, hashes.SHA256()), key, self._between())

    def _between(self) -> tuple[x509.Certificate, ...]:
        return () if self.above is None else (self.certificate, *self.above._between())

    def revoking(self, *revoked: Issued | Authority) -> bytes:
        """Its list of what it revoked, as PEM."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.name)
            .last_update(_now() - _DAY)
            .next_update(_now() + 10 * _DAY)
        )
        for one in revoked:
            entry = (
                x509.RevokedCertificateBuilder()
                .serial_number(one.certificate.serial_number)
                .revocation_date(_now() - _DAY)
                .build()
            )
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM)


def _usage(*, signs: bool) -> x509.KeyUsage:
    return key_usage(digital_signature=True, signs=signs)


def key_usage(
    *, digital_signature: bool = False, key_encipherment: bool = False, signs: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=key_encipherment,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def handshake(
    context: ssl.SSLContext, server: ssl.SSLContext, host: str | None = "reviews.internal", **options: Any
) -> tuple[Any, Any]:
    """Both sides in memory, as asyncio does it: the client's and the server's. Raises what the client raises."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(to_client, to_server, server_hostname=host, **options)
    other = server.wrap_bio(to_server, to_client, server_side=True)
    left = [client, other]
    for _ in range(20):
        for side in list(left):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            left.remove(side)
        if not left:
            return client, other
    raise AssertionError("the handshake does not end")
