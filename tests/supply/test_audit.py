"""`make audit` against a database of advisories on loopback: what is known is told, and so is that nobody could be asked."""

from __future__ import annotations

import json
import subprocess
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from meshlib.testing.http_thread import HttpThread

ROOT = Path(__file__).resolve().parents[2]
LOCKED = """a2wsgi==1.10.10 \\
    --hash=sha256:a5bcffb52081ba39df0d5e9a884fc6f819d92e3a42389343ba77cbf809fe1f45
h11==0.16.0 \\
    --hash=sha256:63cf8bbe7522de3bf65932fda1d9c2772064ffb3dae62d55932da54b31cb6c86
"""
ADVISORY = {
    "id": "GHSA-0000",
    "summary": "It reads too far.",
    "affected": [
        {
            "package": {"name": "h11", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "0.17.0"}]}],
        }
    ],
}


class Database(HttpThread):
    """OSV's one page, as far as pip-audit reads it. ``known``: what is answered about a package; ``status``: with which."""

    def __init__(self, known: dict[str, list[object]], status: int = 200) -> None:
        super().__init__()
        self.known, self.status, self.asked = known, status, []

    def handler(self) -> type[BaseHTTPRequestHandler]:
        database = self

        class Page(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                database.asked.append((asked["package"]["name"], asked["version"]))
                found = database.known.get(asked["package"]["name"])
                body = json.dumps({"vulns": found} if found else {}).encode()
                self.send_response(database.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        return Page


@pytest.fixture
def audit(tmp_path, monkeypatch):
    file = tmp_path / "some.txt"
    file.write_text(LOCKED)

    def ask(url: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.setenv("MESHLIB_OSV", f"{url}/v1/query")
        command = [sys.executable, str(ROOT / "scripts" / "audit.py"), str(file)]
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=50)

    return ask


def test_nothing_is_known(audit):
    with Database({}) as database:
        done = audit(database.url)
    assert done.returncode == 0, done
    assert done.stdout == "some.txt: 2 versions asked about, none with an advisory\n"
    assert sorted(database.asked) == [("a2wsgi", "1.10.10"), ("h11", "0.16.0")]


def test_what_is_known_is_told_with_where_it_is_mended(audit):
    with Database({"h11": [ADVISORY]}) as database:
        done = audit(database.url)
    assert done.returncode == 1, done
    assert done.stderr == "some.txt: h11 0.16.0: GHSA-0000, fixed in 0.17.0\n"


def test_a_database_that_is_not_there(audit, unused_tcp_port_factory):
    done = audit(f"http://127.0.0.1:{unused_tcp_port_factory()}")
    assert done.returncode == 3, done
    assert done.stderr.startswith("some.txt: not audited: the database of advisories cannot be asked: ")
    assert "Traceback" not in done.stderr


def test_a_database_that_is_out_of_order(audit):
    with Database({}, status=503) as database:
        done = audit(database.url)
    assert done.returncode == 3, done
    assert "not audited: the database of advisories cannot be asked" in done.stderr
