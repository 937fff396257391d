"""A context of ``ssl`` for what is demanded and the material for it. What OpenSSL has no word for is left to ``checks``."""

from __future__ import annotations

import contextlib
import os
import ssl
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from meshlib.core.sans import compile_sans, describe_san
from meshlib.errors import ConfigError
from meshlib.model.tls import SanKind
from meshlib.runtime.tls.checks import CheckedContext, Checks
from meshlib.runtime.tls.material import where

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meshlib.model.tls import Certificate, Tls, Validation
    from meshlib.runtime.tls.material import Material

__all__ = ["make"]

#: OpenSSL's ``X509_V_FLAG_NO_CHECK_TIME`` (x509_vfy.h), for which ``ssl`` has no name.
_NO_CHECK_TIME = 0x200000
#: As Envoy spells groups for the exchange of keys, and OpenSSL.
_CURVES = {"P-256": "prime256v1", "P-384": "secp384r1", "P-521": "secp521r1"}
_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"
_CERTIFICATE_END = b"-----END CERTIFICATE-----"
_CRL = b"-----BEGIN X509 CRL-----"


def make(tls: Tls, material: Material, *, named: bool = False) -> CheckedContext:
    """The context. ``named``: names to be checked come with each connection, in the place of its own. Raises ConfigError that says what
    is wrong with which part.
    """
    context = CheckedContext.of()
    context.usage = tls.usage
    if not tls.renegotiates:
        context.options |= ssl.OP_NO_RENEGOTIATION
    _limit(context, tls)
    if tls.alpn:
        context.alpn = tls.alpn
        try:
            context.set_alpn_protocols(())
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError(f"TLS: what ALPN is to offer: {error}") from error
    if tls.validation is not None:
        _verify(context, tls, tls.validation, material, named=named)
    if tls.certificate is not None:
        _show(context, tls.certificate, material)
    return context


def _limit(context: ssl.SSLContext, tls: Tls) -> None:
    """Versions, ciphers, and the group of the key exchange."""
    oldest, newest = _version(tls.oldest), _version(tls.newest)
    if newest is not None and newest < ssl.TLSVersion.TLSv1_2:
        raise ConfigError(f"TLS: {tls.newest} is the newest that may be spoken, and nothing below TLSv1.2 is")
    if newest is not None and oldest is not None and newest < oldest:
        raise ConfigError(f"TLS: nothing is from {tls.oldest} to {tls.newest}")
    context.minimum_version = max(oldest or ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2)
    if newest is not None:
        context.maximum_version = newest
    if tls.ciphers:
        try:
            context.set_ciphers(":".join((*tls.ciphers, "!aNULL", "!eNULL")))
        except ssl.SSLError as error:
            raise ConfigError(f"TLS: no cipher of {', '.join(tls.ciphers)} is known to OpenSSL") from error
    if tls.curve:
        try:
            context.set_ecdh_curve(_CURVES.get(tls.curve, tls.curve))
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError(f"TLS: the curve {tls.curve!r} is not known to OpenSSL") from error


def _version(text: str) -> ssl.TLSVersion | None:
    if not text:
        return None
    try:
        return ssl.TLSVersion[text.removesuffix(".0").replace(".", "_")]
    except KeyError:
        raise ConfigError(f"TLS: {text!r} is no version of TLS") from None


def _verify(
    context: CheckedContext, tls: Tls, validation: Validation, material: Material, *, named: bool
) -> None:
    if validation.sans and not (validation.signed or validation.untrusted):
        raise ConfigError("TLS: names of a certificate are demanded that anybody may have signed")
    if validation.signed:
        context.verify_mode = ssl.CERT_REQUIRED
        _trust(context, validation, material)
        context.check_hostname = (
            validation.system and not validation.sans and not tls.auto_sni_san and not named
        )
    try:
        test = compile_sans(validation.sans) if validation.sans else None
    except ValueError as error:
        raise ConfigError(f"TLS: a name of the certificate: {error}") from error
    context.checks = Checks(
        sans=test,
        wanted=" or ".join(map(describe_san, validation.sans)),
        by_sni=tls.auto_sni_san,
        by_host=validation.system and not validation.sans,
        others=any(san.kind is SanKind.OTHER_NAME for san in validation.sans),
        hashes=frozenset(validation.hashes),
        spki=frozenset(validation.spki),
        domains={domain.lower(): _ders(material[f"roots of {domain!r}"]) for domain in validation.domains}
        if validation.domains and validation.signed
        else None,
        depth=validation.depth if validation.signed else None,
    )


def _trust(context: ssl.SSLContext, validation: Validation, material: Material) -> None:
    """Who may have signed, and what was revoked."""
    if validation.system:
        context.load_default_certs()
    for what, pem in (
        ("roots", validation.roots),
        *((f"roots of {domain!r}", pem) for domain, pem in validation.domains.items()),
    ):
        if pem:
            _load(context, where(what, pem), material[what], "x509", "certificate")
    if validation.roots or validation.domains:
        # As in Envoy: what is trusted ends a chain, whoever signed it.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if validation.crl:
        where_crl = where("revocation list", validation.crl)
        _load(context, where_crl, material["revocation list"], "crl", "revocation list")
    if validation.crl or _CRL in material["roots"]:
        context.verify_flags |= (
            ssl.VERIFY_CRL_CHECK_LEAF if validation.crl_leaf else ssl.VERIFY_CRL_CHECK_CHAIN
        )
    if validation.expired:
        context.verify_flags |= ssl.VerifyFlags(_NO_CHECK_TIME)


def _load(context: ssl.SSLContext, words: str, data: bytes, kind: str, what: str) -> None:
    """Certificates and revocation lists of PEM, of which OpenSSL reads the latter from files alone."""
    before = context.cert_store_stats()[kind]
    problem = ""
    try:
        with _file(data) as path:
            context.load_verify_locations(cafile=path)
    except (OSError, ValueError) as error:
        problem = f": {getattr(error, 'reason', None) or error}"
    if problem or (context.cert_store_stats()[kind] == before and _is_empty(data, kind)):
        raise ConfigError(f"TLS: {words}: no usable {what} is in it{problem}")


def _is_empty(data: bytes, kind: str) -> bool:
    """Whether it has nothing of the kind: one that is in the store already is not counted again."""
    return (_CRL if kind == "crl" else _CERTIFICATE) not in data


def _ders(pem: bytes) -> frozenset[bytes]:
    """The certificates in it, which OpenSSL has read."""
    found = set()
    for block in pem.split(_CERTIFICATE)[1:]:
        body, end, _ = block.partition(_CERTIFICATE_END)
        if end:
            text = (_CERTIFICATE + body + _CERTIFICATE_END).decode("ascii", "replace")
            with contextlib.suppress(ValueError):
                found.add(ssl.PEM_cert_to_DER_cert(text))
    return frozenset(found)


def _show(context: ssl.SSLContext, certificate: Certificate, material: Material) -> None:
    """Our own certificate."""
    password = material["password"].rstrip(b"\r\n")
    if certificate.pkcs12:
        words = where("PKCS #12", certificate.pkcs12)
        pem, password = _unpacked(words, material["PKCS #12"], password), b""
    elif certificate.chain:
        words = where("certificate", certificate.chain)
        pem = material["certificate"]
        if certificate.key:
            words += f" and {where('private key', certificate.key)}"
            pem += b"\n" + material["private key"]
    else:
        raise ConfigError("TLS: a private key is given, and no certificate for it")
    try:
        with _file(pem) as path:
            context.load_cert_chain(path, password=_Password(password))
    except ssl.SSLError as error:
        reason = error.reason or str(error)
        if password:
            reason += ": is the password right?"
        raise ConfigError(f"TLS: {words}: no pair of certificate and key: {reason}") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"TLS: {words}: cannot be loaded: {error}") from error


class _Password:
    """Without it OpenSSL would ask at the terminal."""

    def __init__(self, password: bytes) -> None:
        self._password = password

    def __call__(self) -> bytes:
        if not self._password:
            raise ValueError("the private key is encrypted, and no password is given")
        return self._password


def _unpacked(words: str, data: bytes, password: bytes) -> bytes:
    """What is in PKCS #12, as PEM."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, pkcs12
    from cryptography.x509 import InvalidVersion

    try:
        key, leaf, others = pkcs12.load_key_and_certificates(data, password or None)
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidVersion) as error:
        raise ConfigError(f"TLS: {words}: cannot be read: {error}") from error
    if key is None or leaf is None:
        raise ConfigError(f"TLS: {words}: a certificate with its private key is not in it")
    chain = b"".join(one.public_bytes(Encoding.PEM) for one in (leaf, *others))
    return chain + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@contextlib.contextmanager
def _file(data: bytes) -> Iterator[str]:
    """A file with it, as OpenSSL wants: one in memory where the system has that, so that a key never touches a disk."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("meshlib-tls", os.MFD_CLOEXEC)
        try:
            with os.fdopen(os.dup(descriptor), "wb") as file:
                file.write(data)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
        return
    with tempfile.TemporaryDirectory() as folder:  # pragma: no cover - systems without memfd
        path = Path(folder, "pair.pem")
        path.touch(mode=0o600)
        path.write_bytes(data)
        yield str(path)
