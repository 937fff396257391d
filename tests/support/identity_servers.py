"""A server that demands certificates of whoever issues identities in a test, and the configuration of a process that calls it."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from meshlib.testing import Authority, Upstream

__all__ = ["configured", "reviews"]

SERVER = "spiffe://example.org/ns/default/sa/reviews"


@contextmanager
def reviews(authority: Authority, folder: Path) -> Iterator[Upstream]:
    """A server that demands a certificate of the authority."""
    pair = authority.issue(SERVER)
    (folder / "reviews.pem").write_bytes(pair.key_pem + pair.chain_pem)
    (folder / "roots.pem").write_bytes(authority.roots_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "reviews.pem")
    context.load_verify_locations(folder / "roots.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    with Upstream("reviews", tls=context) as upstream:
        yield upstream


def configured(identity: dict[str, Any], upstream: Upstream) -> str:
    """Of a process that is to have that identity, as JSON."""
    service = {"endpoints": [upstream.address], "tls": {"sans": [SERVER]}}
    return json.dumps({"identity": identity, "services": {"reviews": service}})
