"""TLS contexts for what a control plane demands of a connection (``UpstreamTlsContext``).

Whom a connection is accepted from:

- With a CA of the mesh: a certificate that it signed. If ``sans`` are given, one of them must be in the certificate; the
  name that was asked for does not count, nor does it if no ``sans`` are given (TL-04, as Envoy).
- Without one: what the system trusts, and then the name must match, or one of ``sans``. Envoy accepts anybody there; a
  connection that must be encrypted but may go to anybody is never meant.

Names are checked inside the handshake, so no transport can forget it. Files are looked at before each handshake and read
again when they changed; live connections stay, and material that cannot be read leaves the old in force (TL-06).
"""

from __future__ import annotations

import ipaddress
import logging
import os
import ssl
import tempfile
import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meshlib.errors import ConfigError
from meshlib.runtime.process import Local

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from meshlib.model.tls import Certificate, Pem, Tls

__all__ = ["MeshContext", "context_for", "san_matches"]

#: Contexts kept for values that may come again; one in use lives on whether it is kept or not.
_MOST_KEPT = 256

_log = logging.getLogger("meshlib")


class _Kept:
    """The contexts of one process: those of a parent may be locked, here and in OpenSSL. ``lock`` guards them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.contexts: OrderedDict[tuple[Tls, bool], MeshContext] = OrderedDict()


_here = Local(_Kept)


def context_for(tls: Tls, *, http2: bool = False) -> ssl.SSLContext:
    """The context that ``tls`` demands; the same one for equal values. Thread-safe.

    ``http2`` keeps those who offer HTTP/2 apart from those who do not, since a transport sets what it offers on the
    context. Raises ConfigError that names the field and what is wrong with it, also for what is not supported.
    """
    key = (tls, http2)
    here = _here.get()
    kept = here.contexts
    with here.lock:
        context = kept.get(key)
        if context is not None:
            kept.move_to_end(key)
            return context
    context = MeshContext.of(tls)
    with here.lock:
        context = kept.setdefault(key, context)
        while len(kept) > _MOST_KEPT:
            kept.popitem(last=False)
    return context


class MeshContext(ssl.SSLContext):
    """A context that reads its files anew when they change. It only stands in for the one of the newest files."""

    _tls: Tls
    _inner: _Checked
    _version: tuple[object, ...]
    _alpn: list[str] | None
    _guard: threading.Lock

    @classmethod
    def of(cls, tls: Tls) -> MeshContext:
        """The context for ``tls``. Raises ConfigError."""
        if tls.unsupported:
            raise ConfigError(tls.unsupported)
        made = cls(ssl.PROTOCOL_TLS_CLIENT)
        made._tls = tls
        made._alpn = None
        made._guard = threading.Lock()  # guards _inner, _version, _alpn
        made._version = _version(tls)
        made._inner = _load(tls)
        made.check_hostname = made._inner.check_hostname  # for who looks before the handshake
        return made

    def current(self) -> ssl.SSLContext:
        """The context of the files as they are now; of the last that could be read, if these cannot."""
        version = _version(self._tls)
        with self._guard:
            if version != self._version:
                self._version = version
                try:
                    inner = _load(self._tls)
                except ConfigError as error:
                    _log.warning(
                        "meshlib: TLS files changed and cannot be read; the old stay in use: %s", error
                    )
                else:
                    if self._alpn is not None:
                        inner.set_alpn_protocols(self._alpn)
                    self._inner = inner
            return self._inner

    def set_alpn_protocols(self, alpn_protocols: Any) -> None:
        with self._guard:
            self._alpn = list(alpn_protocols)
            self._inner.set_alpn_protocols(self._alpn)

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        return self.current().wrap_socket(*args, **kwargs)

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        return self.current().wrap_bio(*args, **kwargs)


class _Checked(ssl.SSLContext):
    """A context that also checks subject alternative names."""

    sans: tuple[str, ...] = ()


class _CheckedSocket(ssl.SSLSocket):
    def do_handshake(self, *block: bool) -> None:  # gevent's takes none
        super().do_handshake(*block)
        _check(self)


class _CheckedObject(ssl.SSLObject):
    def do_handshake(self) -> None:
        super().do_handshake()
        _check(self)


def _check(connection: ssl.SSLSocket | ssl.SSLObject) -> None:
    context = connection.context
    sans = context.sans if isinstance(context, _Checked) else ()
    if not sans:
        return
    certificate = connection.getpeercert() or {}
    if not san_matches(sans, certificate):
        held = ", ".join(f"{kind}:{value}" for kind, value in _alternatives(certificate)) or "none"
        raise ssl.SSLCertVerificationError(
            1, f"the certificate has none of the names {', '.join(sans)}; it has {held}"
        )


def san_matches(sans: tuple[str, ...], certificate: Mapping[str, Any]) -> bool:
    """Whether the certificate (as ``getpeercert`` gives it) has one of ``sans``: a DNS name (a wildcard of the
    certificate counts), an IP address in any spelling, a URI or a mail address.
    """
    return any(
        _san_equal(wanted, kind, value) for kind, value in _alternatives(certificate) for wanted in sans
    )


def _alternatives(certificate: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for kind, value in certificate.get("subjectAltName", ()):
        if isinstance(value, str):
            yield kind, value


def _san_equal(wanted: str, kind: str, value: str) -> bool:
    if kind == "IP Address":
        try:
            return ipaddress.ip_address(wanted) == ipaddress.ip_address(value.strip())
        except ValueError:
            return False
    if kind != "DNS":
        return wanted == value
    wanted, value = wanted.lower().rstrip("."), value.lower().rstrip(".")
    if value.startswith("*."):
        label, _, rest = wanted.partition(".")
        return bool(label) and rest == value[2:]
    return wanted == value


def _version(tls: Tls) -> tuple[object, ...]:
    validation, certificate = tls.validation, tls.certificate
    given = [validation.roots] if validation is not None else []
    given += [certificate.chain, certificate.key] if certificate is not None else []
    return tuple(_stamp(pem.file) for pem in given if pem.file)


def _stamp(path: str) -> tuple[object, ...]:
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        return (path,)
    return path, found.st_mtime_ns, found.st_size, found.st_ino


def _load(tls: Tls) -> _Checked:
    context = _Checked(ssl.PROTOCOL_TLS_CLIENT)
    context.sslsocket_class = _CheckedSocket
    context.sslobject_class = _CheckedObject
    validation = tls.validation
    roots = validation.roots if validation is not None else None
    context.sans = tuple(san.match.value for san in validation.sans) if validation is not None else ()
    context.check_hostname = not (roots or context.sans)
    context.verify_mode = ssl.CERT_REQUIRED
    if roots:
        _load_ca(context, roots)
    else:
        context.load_default_certs()
    if tls.certificate is not None and tls.certificate.chain:
        _load_chain(context, tls.certificate)
    return context


def _load_ca(context: ssl.SSLContext, roots: Pem) -> None:
    where = f"ca_file {roots.file!r}" if not roots.data else "ca_pem"
    pem = roots.data or _read(roots.file, where)
    try:
        context.load_verify_locations(cadata=pem.decode("ascii"))
    except UnicodeDecodeError:
        raise ConfigError(f"TLS: {where} is not PEM") from None
    except ssl.SSLError as error:
        raise ConfigError(f"TLS: {where} has no usable certificate: {error.reason or error}") from error


def _load_chain(context: ssl.SSLContext, certificate: Certificate) -> None:
    chain, key = certificate.chain, certificate.key
    cert_where = f"cert_file {chain.file!r}" if not chain.data else "cert_pem"
    key_where = f"key_file {key.file!r}" if key.file and not key.data else "key_pem"
    pem = chain.data or _read(chain.file, cert_where)
    if key:
        pem += b"\n" + (key.data or _read(key.file, key_where))
    try:
        _load_pem(context, pem)
    except ssl.SSLError as error:
        words = f"TLS: {cert_where} and {key_where} are no pair of certificate and key"
        raise ConfigError(f"{words}: {error.reason or error}") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"TLS: {cert_where} and {key_where} cannot be loaded: {error}") from error


def _load_pem(context: ssl.SSLContext, pem: bytes) -> None:
    """OpenSSL wants a file: one in memory where the system has that, so that the key never touches a disk."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("meshlib-key", os.MFD_CLOEXEC)
        try:
            with os.fdopen(os.dup(descriptor), "wb") as file:
                file.write(pem)
            context.load_cert_chain(f"/proc/self/fd/{descriptor}", password=_no_password)
        finally:
            os.close(descriptor)
        return
    with tempfile.TemporaryDirectory() as folder:  # pragma: no cover - systems without memfd
        path = Path(folder, "pair.pem")
        path.touch(mode=0o600)
        path.write_bytes(pem)
        context.load_cert_chain(path, password=_no_password)


def _no_password() -> bytes:
    """Without it OpenSSL would ask at the terminal."""
    raise ValueError("the private key is encrypted")


def _read(path: str, where: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise ConfigError(f"TLS: {where} cannot be read: {error}") from error
