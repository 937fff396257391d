"""The key that a process makes or is given for its identity, and the token by which it asks: looked for in all that a mesh tells."""

from __future__ import annotations

import gc
import json
import logging
import os
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import meshlib
from meshlib.testing.authority import Authority
from meshlib.testing.istio_ca import IstioCa
from meshlib.testing.workload_api import WorkloadApi
from tests.e2e.test_secrets import Records, admin_socket, frames, pickled, reachable, told
from tests.support.tls_server import TlsServer


@contextmanager
def istio(folder: Path) -> Iterator[tuple[dict[str, Any], Authority, list[str]]]:
    with IstioCa(folder) as ca:
        yield {"provider": "istio", **ca.settings}, ca.authority, [ca.token_file.read_text().strip()]


@contextmanager
def spiffe(folder: Path) -> Iterator[tuple[dict[str, Any], Authority, list[str]]]:
    with WorkloadApi(folder / "api.sock") as api:
        yield {"provider": "spiffe", "socket": f"unix:{folder}/api.sock"}, api.authority, []


def context(folder: Path, authority: Authority, uri: str) -> ssl.SSLContext:
    pair = authority.issue(uri)
    file = folder / "server.pem"
    file.write_bytes(pair.chain_pem + pair.key_pem)
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(file)
    made.load_verify_locations(cadata=authority.roots_pem.decode())
    made.verify_mode = ssl.CERT_REQUIRED
    return made


def keys_of(mesh: meshlib.Mesh) -> list[str]:
    """The lines of all keys that it holds."""
    seen: set[int] = set()
    left: list[object] = [mesh]
    found: set[str] = set()
    while left:
        each = left.pop()
        if id(each) in seen or isinstance(each, type | ModuleType):
            continue
        seen.add(id(each))
        if isinstance(each, bytes) and b"-----BEGIN" in each and b"PRIVATE KEY-----" in each:
            _, _, key = each.decode().partition("PRIVATE KEY-----")
            found |= {line for line in key.partition("-----END")[0].splitlines() if line}
        left += gc.get_referents(each)
    return sorted(found)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("provider", [istio, spiffe])
def test_it_is_in_nothing_that_is_told(provider: Any) -> None:
    with tempfile.TemporaryDirectory(prefix="mesh-") as folder:  # short, since the path of a socket is
        look(Path(folder), provider)


def look(tmp_path: Path, provider: Any) -> None:
    records, root = Records(), logging.getLogger()
    before = root.level
    root.addHandler(records)
    root.setLevel(logging.DEBUG)
    errors: list[BaseException] = []
    said: dict[str, str] = {}
    try:
        with provider(tmp_path) as (identity, authority, tokens):
            uri = authority.uri("/reviews")
            with TlsServer(context(tmp_path, authority, uri)) as server:
                config = {
                    "identity": identity,
                    "admin": {"enabled": True, "runtime_dir": str(tmp_path / "run")},
                    "services": {
                        "reviews": {"endpoints": [server.address], "tls": {"sans": [uri]}},
                        "closed": {"endpoints": ["127.0.0.1:1"], "tls": {"sans": [uri]}},
                        "others": {"endpoints": [server.address], "tls": {"sans": ["spiffe://td/other"]}},
                    },
                }
                with meshlib.Mesh(config) as mesh, meshlib.Client(mesh=mesh) as client:
                    assert client.get("http://reviews/", timeout=20.0).status_code == 200
                    secrets = [*keys_of(mesh), *tokens]
                    status = mesh.status()
                    said["status"] = f"{status!r}{json.dumps(status.to_dict())}"
                    snapshot = mesh.snapshot()
                    said["snapshot"] = f"{snapshot!r}{json.dumps(snapshot.to_dict())}"
                    said["configuration"] = repr(mesh.config)
                    for what in ("status", "snapshot", "facts", "process"):
                        said[what] = admin_socket(tmp_path / "run", what).decode()
                    said["objects"] = "\n".join(reachable(mesh))
                    for name in ("closed", "others"):
                        with pytest.raises(meshlib.ConnectFailed) as caught:
                            client.get(f"http://{name}/", timeout=20.0)
                        errors.append(caught.value)
                    said["pickles"] = b"".join(pickled([*errors, status, snapshot])).decode("latin-1")
    finally:
        root.removeHandler(records)
        root.setLevel(before)
    said["errors"] = "".join(map(told, errors))
    said["frames"] = "".join(map(frames, errors))
    said["logs"] = "\n".join(records.lines)
    assert len(secrets) > 2, "it has a key"
    assert "reviews" in said["objects"]
    assert str(os.getpid()) in said["process"]
    for surface, text in said.items():
        assert text, surface
        assert not [secret for secret in secrets if len(secret) > 12 and secret in text], surface
