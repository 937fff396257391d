"""TLS as the application's urllib3 pool has it: for ``https`` URLs to endpoints of which the mesh says nothing else.

What is set on a pool after it was made holds for its next connections, as with urllib3 alone.
"""

from __future__ import annotations

import ssl
import warnings
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from urllib3.connection import _match_hostname
from urllib3.exceptions import InsecureRequestWarning, SSLError
from urllib3.util.ssl_ import (
    assert_fingerprint,
    create_urllib3_context,
    is_ipaddress,
    resolve_cert_reqs,
    resolve_ssl_version,
)
from urllib3.util.ssl_match_hostname import CertificateError

from meshlib.wire.errors import ConnectError
from meshlib_requests.errors import SettingsError

if TYPE_CHECKING:
    from meshlib.wire.dial import Place

__all__ = ["Tls"]

#: What requests (``HTTPAdapter.cert_verify``) and others set on a pool.
_ATTRIBUTES = (
    "assert_fingerprint",
    "assert_hostname",
    "ca_cert_dir",
    "ca_certs",
    "cert_file",
    "cert_reqs",
    "key_file",
    "key_password",
    "ssl_maximum_version",
    "ssl_minimum_version",
    "ssl_version",
)
#: Settings of one pool whose contexts are kept.
_MOST = 8


class Tls:
    """One pool's settings. Thread-safe.

    Attributes:
        server_hostname: What is sent by SNI, and verified.
    """

    #: Stands in a place for the context that the pool's settings give when a connection is made.
    CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    def __init__(self, pool: Any, arguments: dict[str, Any]) -> None:
        self._pool = weakref.ref(pool)
        self._context: ssl.SSLContext | None = arguments.get("ssl_context")
        self._data = arguments.get("ca_cert_data")
        name = (arguments.get("server_hostname") or pool.host).strip("[]").rstrip(".")
        self.server_hostname: str = name.partition("%")[0] if is_ipaddress(name.partition("%")[0]) else name
        self._places: dict[tuple[Any, ...], Place] = {}

    def place(self, place: Place) -> Place:
        """``place`` with the context that the pool's settings give now. Raises SettingsError."""
        settings = self._settings()
        key = (place.host, place.port, place.uds, *settings.values())
        known = self._places.get(key)
        if known is None:
            if len(self._places) >= _MOST:
                self._places.clear()
            known = self._places[key] = replace(place, context=self._make(settings))
        return known

    def verify(self, connection: Any) -> None:
        """What OpenSSL does not look at. Raises ConnectError."""
        settings = self._settings()
        peer = connection.stream.get_extra_info("ssl_object")
        fingerprint, name = settings["assert_fingerprint"], settings["assert_hostname"]
        context = peer.context
        try:
            if fingerprint:
                assert_fingerprint(peer.getpeercert(binary_form=True), fingerprint)
            elif context.verify_mode != ssl.CERT_NONE and not context.check_hostname and name is not False:
                common = self._context is not None and getattr(context, "hostname_checks_common_name", False)
                _match_hostname(peer.getpeercert(), name or self.server_hostname, common)
        except (SSLError, CertificateError) as error:
            raise ConnectError(str(error)) from error

    def warn_unverified(self) -> None:
        """As urllib3 does at each request over a connection whose peer was not verified."""
        pool = self._pool()
        if pool is None or pool.assert_fingerprint or self._mode(pool.cert_reqs) == ssl.CERT_REQUIRED:
            return
        warnings.warn(
            f"Unverified HTTPS request is being made to host '{pool.host}'. Adding certificate verification is strongly "
            "advised. See: https://urllib3.readthedocs.io/en/latest/advanced-usage.html#tls-warnings",
            InsecureRequestWarning,
            stacklevel=2,
        )

    def _settings(self) -> dict[str, Any]:
        pool = self._pool()
        return {name: getattr(pool, name, None) for name in _ATTRIBUTES}

    def _mode(self, cert_reqs: Any) -> ssl.VerifyMode:
        if cert_reqs is None and self._context is not None:
            return self._context.verify_mode
        return resolve_cert_reqs(cert_reqs)

    def _make(self, settings: dict[str, Any]) -> ssl.SSLContext:
        """The context, as urllib3's connections make it."""
        mode = self._mode(settings["cert_reqs"])
        authorities = settings["ca_certs"], settings["ca_cert_dir"], self._data
        context = self._context
        try:
            if context is None:
                context = create_urllib3_context(
                    ssl_version=resolve_ssl_version(settings["ssl_version"]),
                    ssl_minimum_version=settings["ssl_minimum_version"],
                    ssl_maximum_version=settings["ssl_maximum_version"],
                    cert_reqs=mode,
                )
                if not any(authorities):
                    context.load_default_certs()
            if settings["assert_fingerprint"] or settings["assert_hostname"] not in (None, ""):
                context.check_hostname = False
            context.verify_mode = mode
            if any(authorities):
                context.load_verify_locations(*authorities)
            if settings["cert_file"]:
                # Without a password OpenSSL would ask for one at the terminal.
                password = settings["key_password"] or ""
                context.load_cert_chain(settings["cert_file"], settings["key_file"], password)
        except (OSError, ValueError) as error:
            raise SettingsError(error) from error
        return context
