"""Material of a connection, in each of the ways in which it comes to a process, and servers that are wrong in each way.

A *material* says how the certificate that we show and the roots that we trust are told: inline, in files, by secrets of the control
plane or of a file, by the process's identity, by instances of certificate providers. A *fault* says what of a connection is wrong.
"""

from __future__ import annotations

import ssl
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa

from meshlib.testing import build
from tests.support.certificates import Authority, Issued

__all__ = [
    "CA",
    "ELSEWHERE",
    "FAULTS",
    "MATERIALS",
    "MINE",
    "THEIRS",
    "Fault",
    "Material",
    "Place",
    "certificates",
    "inline",
    "server_of",
]

MINE, THEIRS = "spiffe://td/ns/shop/sa/me", "spiffe://td/ns/shop/sa/reviews"
NAMES = (THEIRS, "reviews.shop", "10.1.2.3", "reviews@shop.example")
CA, ELSEWHERE = Authority("Mesh"), Authority("Elsewhere")
BETWEEN = Authority("Between", CA)
PASSWORD = b"open sesame"
TLS = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
Json = dict[str, Any]


@cache
def certificates() -> dict[str, Issued]:
    """Those of both sides, by what is wrong with them."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return {
        "": CA.issue(*NAMES),
        "of another root": ELSEWHERE.issue(*NAMES),
        "expired": CA.issue(*NAMES, expired=True),
        "by itself": _self_signed(),
        "revoked": CA.issue(*NAMES),
        "mine": CA.issue(MINE),
        "mine, RSA": CA.issue(MINE, key=key),
        "mine, between": BETWEEN.issue(MINE),
        "mine, of another root": ELSEWHERE.issue(MINE),
        "mine, expired": CA.issue(MINE, expired=True),
    }  # fmt: skip


def _self_signed() -> Issued:
    own = Authority("Reviews")
    return Issued(own.certificate, own.key, ())


def server_of(fault: str) -> ssl.SSLContext:
    """Python's, which demands certificates of the mesh's CA."""
    name = fault if fault in certificates() else ""
    context = certificates()[name].server(clients=CA, alpn=("h2", "http/1.1"))
    if fault == "too old":
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


# --- how it is told --------------------------------------------------------------------------------------------------------------


class Place:
    """Where files are, and secrets that somebody has to serve, by name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.secrets: dict[str, Json] = {}

    def file(self, name: str, data: bytes) -> Json:
        path = self.folder / name
        path.write_bytes(data)
        return {"filename": str(path)}


def inline(data: bytes) -> Json:
    return {"inline_bytes": b64encode(data).decode()}


def _pair(shown: Issued, source: Callable[[str, bytes], Json]) -> Json:
    return {
        "certificate_chain": source("chain.pem", shown.chain_pem), "private_key": source("key.pem", shown.key_pem),
    }  # fmt: skip


@dataclass(frozen=True)
class Material:
    """``tell``: of a cell's name, what is shown (None: nothing) and more of the validation, the ``common_tls_context``. ``kind``: which of our
    certificates is shown. ``mesh``: what a mesh has to be for it: ``"ads"``, ``"files"`` (resources of a directory), ``"identity"``.
    """

    name: str
    tell: Callable[[Place, str, Issued | None, Json], Json]
    kind: str = "mine"
    mesh: str = "ads"


def _inline(place: Place, cell: str, shown: Issued | None, more: Json) -> Json:
    del place, cell
    made: Json = {"validation_context": {"trusted_ca": inline(CA.pem), **more}}
    if shown is not None:
        made["tls_certificates"] = [_pair(shown, lambda _name, data: inline(data))]
    return made


def _files(place: Place, cell: str, shown: Issued | None, more: Json) -> Json:
    made: Json = {"validation_context": {"trusted_ca": place.file(f"{cell}-ca.pem", CA.pem), **more}}
    if shown is not None:
        pair = _pair(shown, lambda name, data: place.file(f"{cell}-{name}", data))
        made["tls_certificates"] = [{**pair, "watched_directory": {"path": str(place.folder)}}]
    return made


def _pkcs12(place: Place, cell: str, shown: Issued | None, more: Json) -> Json:
    made = _inline(place, cell, None, more)
    if shown is not None:
        made["tls_certificates"] = [{"pkcs12": inline(shown.pkcs12(PASSWORD)), "password": inline(PASSWORD)}]
    return made


def _encrypted(place: Place, cell: str, shown: Issued | None, more: Json) -> Json:
    made = _inline(place, cell, shown, more)
    if shown is not None:
        made["tls_certificates"][0] |= {
            "private_key": inline(shown.encrypted(PASSWORD)),
            "password": inline(PASSWORD),
        }
    return made


def _secrets(place: Place, cell: str, shown: Issued | None, more: Json, source: Json | None = None) -> Json:
    source = source or {"ads": {}, "resource_api_version": "V3"}
    roots, pair = f"{cell}-roots", f"{cell}-pair"
    place.secrets[roots] = build.secret(roots, ca=CA.pem.decode())
    made: Json = {
        "combined_validation_context": {
            "default_validation_context": more,
            "validation_context_sds_secret_config": {"name": roots, "sds_config": source},
        }
    }
    if shown is not None:
        place.secrets[pair] = build.secret(
            pair, certificate=shown.chain_pem.decode(), key=shown.key_pem.decode()
        )
        made["tls_certificate_sds_secret_configs"] = [{"name": pair, "sds_config": source}]
    return made


def _of_a_file(place: Place, cell: str, shown: Issued | None, more: Json) -> Json:
    source = {"path_config_source": {"path": str(place.folder / "sds.yaml")}, "resource_api_version": "V3"}
    return _secrets(place, cell, shown, more, source)


_AGENT = {
    "api_config_source": {
        "api_type": "GRPC", "transport_api_version": "V3", "grpc_services": [{"envoy_grpc": {"cluster_name": "sds-grpc"}}],
    },
    "resource_api_version": "V3",
}  # fmt: skip


def _identity(place: Place, cell: str, shown: Issued | None, more: Json) -> Json:
    del place, cell
    made: Json = {
        "combined_validation_context": {
            "default_validation_context": more,
            "validation_context_sds_secret_config": {"name": "ROOTCA", "sds_config": _AGENT},
        }
    }
    if shown is not None:
        made["tls_certificate_sds_secret_configs"] = [{"name": "default", "sds_config": _AGENT}]
    return made


def _instances(place: Place, cell: str, shown: Issued | None, more: Json) -> Json:
    del place, cell
    made: Json = {
        "validation_context": {"ca_certificate_provider_instance": {"instance_name": "ours"}, **more}
    }
    if shown is not None:
        made["tls_certificate_provider_instance"] = {"instance_name": "ours"}
    return made


MATERIALS = (
    Material("inline", _inline),
    Material("inline-rsa", _inline, "mine, RSA"),
    Material("intermediate", _inline, "mine, between"),
    Material("file", _files),
    Material("pkcs12", _pkcs12),
    Material("encrypted", _encrypted),
    Material("sds", _secrets),
    Material("sds-file", _of_a_file, mesh="files"),
    Material("identity", _identity, mesh="identity"),
    Material("instances", _instances, mesh="identity"),
)


# --- what is wrong ---------------------------------------------------------------------------------------------------------------


def _san(kind: str, how: str, value: str) -> Json:
    return {"match_typed_subject_alt_names": [{"san_type": kind, "matcher": {how: value}}]}


@dataclass(frozen=True)
class Fault:
    """``words``: one of them is in the error; none: it is answered. ``server``: what is wrong with it; ``shown``: what is wrong with what we
    show, None: nothing is shown. ``demands``: beside the roots; ``params``: TLS parameters. ``by``: who refuses.
    """

    name: str
    words: tuple[str, ...] = ()
    server: str = ""
    shown: str | None = ""
    demands: Json = field(default_factory=lambda: _san("URI", "exact", THEIRS), hash=False)
    params: Json = field(default_factory=dict, hash=False)
    by: str = "us"


_NONE = ("none of the names",)
_PIN = "ab" * 32
#: A server of TLS 1.3 looks at our certificate when the handshake is over for us. Its alert may be lost with the connection.
_GONE = ("closed", "reset", "broken", "eof occurred")

FAULTS = (
    Fault("right"),
    Fault("right-dns", demands=_san("DNS", "exact", "reviews.shop")),
    Fault("right-ip", demands=_san("IP_ADDRESS", "exact", "10.1.2.3")),
    Fault("right-email", demands=_san("EMAIL", "suffix", "@shop.example")),
    Fault("right-regex", demands=_san("URI", "safe_regex", {"google_re2": {}, "regex": "spiffe://td/.*/reviews"})),  # type: ignore[arg-type]
    Fault("wrong-uri", _NONE, demands=_san("URI", "exact", MINE)),
    Fault("wrong-dns", _NONE, demands=_san("DNS", "exact", "ratings.shop")),
    Fault("wrong-ip", _NONE, demands=_san("IP_ADDRESS", "exact", "10.1.2.4")),
    Fault("wrong-email", _NONE, demands=_san("EMAIL", "exact", "ratings@shop.example")),
    Fault("wrong-prefix", _NONE, demands=_san("URI", "prefix", "spiffe://other/")),
    Fault("another-kind", _NONE, demands=_san("DNS", "exact", THEIRS)),
    Fault("wrong-hash", ("pinned",), demands={"verify_certificate_hash": [_PIN]}),
    Fault("wrong-pin", ("pinned",), demands={"verify_certificate_spki": ["q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s="]}),
    Fault("another-root", ("unable to get local issuer certificate",), server="of another root"),
    Fault("expired", ("certificate has expired",), server="expired"),
    Fault("by-itself", ("self-signed certificate", "self signed certificate"), server="by itself"),
    Fault("too-old", ("protocol version", "unsupported protocol"), server="too old", params={"tls_minimum_protocol_version": "TLSv1_3"}),
    Fault("revoked", ("certificate revoked",), server="revoked", demands={"crl": inline(CA.revoking(certificates()["revoked"]))}),
    Fault("no-certificate", ("certificate required", "handshake failure", *_GONE), shown=None, by="the server"),
    Fault("wrong-client", ("unknown ca", *_GONE), shown=", of another root", by="the server"),
    Fault("expired-client", ("expired", *_GONE), shown=", expired", by="the server"),
)  # fmt: skip
