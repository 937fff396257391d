"""A server of TLS 1.2 (OpenSSL's own) that begins another handshake on a connection that stands."""

from __future__ import annotations

import select
import socket
import ssl
import subprocess
from pathlib import Path

import pytest

from meshlib.model.tls import Pem, Tls, Validation
from meshlib.runtime.tls import context_for
from tests.support.certificates import Authority
from tests.support.ports import Ports

CA = Authority("Mesh")


@pytest.mark.parametrize("allowed", [True, False])
def test_only_where_that_is_allowed(tmp_path: Path, allowed: bool) -> None:
    """Envoy ``allow_renegotiation``. Who does not allow it says so; this server then ends the connection."""
    CA.issue("reviews").write(tmp_path)
    ports = Ports(1)
    where = f"127.0.0.1:{ports.numbers[0]}"
    ports.close()
    command = ["openssl", "s_server", "-accept", where, "-naccept", "1", "-tls1_2"]
    command += ["-cert", str(tmp_path / "cert.pem"), "-key", str(tmp_path / "key.pem")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        while server.stdout.readline() != b"ACCEPT\n":
            assert server.poll() is None
        context = context_for(Tls(validation=Validation(Pem(CA.pem)), renegotiates=allowed))
        host, _, port = where.partition(":")
        with context.wrap_socket(socket.create_connection((host, int(port)))) as connection:
            connection.settimeout(5)
            server.stdin.write(b"r\n")
            server.stdin.flush()
            select.select([connection], [], [], 20)  # it has asked: what it is given now is for us
            if allowed:
                server.stdin.write(b"hello\n")
                server.stdin.flush()
                assert connection.recv(100) == b"hello\n"
            else:
                with pytest.raises(ssl.SSLError):
                    connection.recv(100)
        server.communicate(timeout=20)
