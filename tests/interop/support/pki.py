"""Certificates of a control plane and its clients, as files that may be renewed under both."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trustme

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Pki"]


class Pki:
    """An authority, and what it signed: for the server at 127.0.0.1, and for a client."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.renew()

    def renew(self) -> None:
        """Another authority, and all that it signs, under the same names of files."""
        authority = trustme.CA()
        self._write("ca", authority.cert_pem.bytes())
        for name in ("127.0.0.1", "client"):
            made = authority.issue_cert(name if name[0].isdigit() else "client.example")
            self._write(f"{name}-cert", b"".join(each.bytes() for each in made.cert_chain_pems))
            self._write(f"{name}-key", made.private_key_pem.bytes())

    def server(self, *, mutual: bool = False) -> tuple[str, ...]:
        """The options of a program here that speaks TLS; ``mutual``: with those only who have a certificate."""
        options = ("-cert", self.path("127.0.0.1-cert"), "-key", self.path("127.0.0.1-key"))
        return (*options, "-client-ca", self.path("ca")) if mutual else options

    def client(self, *, mutual: bool = False) -> dict[str, str]:
        """``xds.tls`` of a mesh of it."""
        known = {"cert": self.path("client-cert"), "key": self.path("client-key")} if mutual else {}
        return {"ca": self.path("ca"), **known}

    def path(self, name: str) -> str:
        return str(self._folder / f"{name}.pem")

    def _write(self, name: str, pem: bytes) -> None:
        (self._folder / f"{name}.pem").write_bytes(pem)
