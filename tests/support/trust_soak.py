"""Calls over TLS while everybody's certificates and the roots above them change: by Istio's CA (its stand-in) and a real Envoy.

The Envoy is the server of two services, ``reviews`` over HTTP and ``stock`` over gRPC. It demands a certificate of the mesh, and has its own and
the roots from files that are replaced while it runs. Ours comes from the CA by the provider of the product.

    the server's leaf    every half of a life
    ours                 by the provider: around the half of each
    a root               told ──two looks at the file──► signs ──until no older leaf lives──► the older one is dropped
"""

from __future__ import annotations

import asyncio
import json
import math
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Self

from meshlib.sources.identity_network import LOOK
from meshlib.testing import GrpcUpstream, IstioCa
from tests.e2e.oracle.envoy_process import EnvoyProcess, Ports

__all__ = ["Load", "Rotation", "Server"]

ACCOUNT = "spiffe://cluster.local/ns/default/sa/server"
_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
_HCM = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
_HTTP = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


class Server:
    """The Envoy, with ``grpc`` behind it. ``address``: of both services."""

    def __init__(self, ca: IstioCa, grpc: GrpcUpstream, folder: Path) -> None:
        self._ca = ca
        self._folder = folder
        self._ports = Ports(1)
        port = self._ports.numbers[0]
        self.address = f"127.0.0.1:{port}"
        self.show()
        self.trust()
        static = {"listeners": [_listener(port, folder)], "clusters": [_grpc_cluster(grpc.port)]}
        admin = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}}
        self._envoy = EnvoyProcess(
            {"node": {"id": "server", "cluster": "server"}, "static_resources": static, "admin": admin},
            folder,
        )

    def __enter__(self) -> Self:
        self._envoy.__enter__()
        self._envoy.wait_for_listeners(1)
        return self

    def __exit__(self, *exc: object) -> None:
        self._envoy.__exit__(*exc)
        self._ports.close()

    def show(self) -> None:
        """A new certificate, of the root that signs now."""
        pair = self._ca.issue(ACCOUNT)
        made = {
            "certificate_chain": _inline(pair.chain_pem),
            "private_key": _inline(pair.key_pem),
        }
        self._write("server", {"tls_certificate": made})

    def trust(self) -> None:
        """The roots that are told now."""
        self._write("roots", {"validation_context": {"trusted_ca": _inline(self._ca.roots_pem)}})

    def tls(self) -> Counter[str]:
        """What its listener has counted of TLS."""
        counted = self._envoy.stats("listener")
        return Counter(
            {key.rpartition(".ssl.")[2]: value for key, value in counted.items() if ".ssl." in key}
        )

    def _write(self, name: str, secret: dict[str, Any]) -> None:
        resource = {"@type": f"{_TLS}Secret", "name": name, **secret}
        unfinished = self._folder / f"{name}.new"
        unfinished.write_text(json.dumps({"resources": [resource]}))
        unfinished.replace(self._folder / f"{name}.json")


def _inline(pem: bytes) -> dict[str, str]:
    return {"inline_string": pem.decode()}


def _sds(name: str, folder: Path) -> dict[str, Any]:
    source = {"path": str(folder / f"{name}.json"), "watched_directory": {"path": str(folder)}}
    return {"name": name, "sds_config": {"path_config_source": source, "resource_api_version": "V3"}}


def _listener(port: int, folder: Path) -> dict[str, Any]:
    common = {
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_certificate_sds_secret_configs": [_sds("server", folder)],
        "combined_validation_context": {
            "default_validation_context": {
                "match_typed_subject_alt_names": [
                    {"san_type": "URI", "matcher": {"exact": "spiffe://cluster.local/ns/default/sa/app"}}
                ]
            },
            "validation_context_sds_secret_config": _sds("roots", folder),
        },
    }
    socket = {
        "@type": f"{_TLS}DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": common,
    }
    routes = [
        {"match": {"prefix": "/", "grpc": {}}, "route": {"cluster": "grpc", "timeout": "0s"}},
        {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "served"}}},
    ]
    manager = {
        "@type": _HCM,
        "stat_prefix": "in",
        "http_filters": [{"name": "router", "typed_config": {"@type": _ROUTER}}],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
    }
    chain = {
        "transport_socket": {"name": "tls", "typed_config": socket},
        "filters": [{"name": "hcm", "typed_config": manager}],
    }
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {"name": "in", "address": address, "filter_chains": [chain]}


def _grpc_cluster(port: int) -> dict[str, Any]:
    endpoint = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}
    return {
        "name": "grpc",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": "grpc",
            "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}],
        },
        "typed_extension_protocol_options": {
            _HTTP.rpartition("/")[2]: {"@type": _HTTP, "explicit_http_config": {"http2_protocol_options": {}}}
        },
    }


class Rotation:
    """Renews the server's certificate every half of the CA's lifetime, and replaces the root ``roots`` times within ``seconds``."""

    def __init__(self, ca: IstioCa, server: Server, *, seconds: float, roots: int) -> None:
        self._ca = ca
        self._server = server
        self._over = threading.Event()
        self._period = ca.lifetime / 2
        told = math.ceil((2 * LOOK) / self._period)  # until everybody has looked at the files
        lived = math.ceil(ca.lifetime / self._period) + 1  # until no leaf of the older root is left
        self._steps: dict[int, Callable[[], None]] = {}
        whole = round(seconds / self._period / (roots + 0.5))
        for root in range(roots):
            begun = root * whole + 1
            self._steps |= {
                begun: self._prepare,
                begun + told: ca.activate,
                begun + told + lived: self._drop,
            }
        self.seconds = max(seconds, (max(self._steps) + 2) * self._period)
        self.renewed = 0
        self.roots = 0
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="rotation", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()

    def wait(self) -> None:
        """Until the time is over."""
        self._thread.join()

    def _run(self) -> None:
        try:
            for step in range(1, math.ceil(self.seconds / self._period) + 1):
                if self._over.wait(self._period):
                    return
                self._steps.get(step, bool)()
                self._server.show()
                self.renewed += 1
        except BaseException as problem:  # noqa: BLE001 - told by the test
            self.failure = problem

    def _prepare(self) -> None:
        self._ca.prepare()
        self._server.trust()

    def _drop(self) -> None:
        self._ca.drop_old_roots()
        self._server.trust()
        self.roots += 1


class Load:
    """Callers, each at a pace of its own, until it is over. A lock guards what they note."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self.done: Counter[str] = Counter()
        self.failures: list[str] = []

    def threads(self, kind: str, count: int, pause: float, call: Callable[[], object]) -> None:
        """This many, which call and pause."""

        def work() -> None:
            while not self._over.is_set():
                try:
                    self._note(kind, call())
                except Exception as problem:  # noqa: BLE001 - whatever it is, it is a failed call
                    self._fail(kind, problem)
                self.pace(pause)

        self._begin([threading.Thread(target=work, daemon=True) for _ in range(count)])

    def tasks(self, count: int, pause: float, main: Callable[[], Any]) -> None:
        """This many of each kind, in an event loop of a thread of their own. ``main``: an async context manager that gives the calls by kind."""

        async def work(kind: str, call: Callable[[], Awaitable[object]]) -> None:
            while not self._over.is_set():
                try:
                    self._note(kind, await call())
                except Exception as problem:  # noqa: BLE001 - as above
                    self._fail(kind, problem)
                await self.pace_async(pause)

        async def run() -> None:
            async with main() as calls:
                await asyncio.gather(
                    *(work(kind, call) for kind, call in calls.items() for _ in range(count))
                )

        self._begin([threading.Thread(target=lambda: asyncio.run(run()), daemon=True)])

    def pace(self, pause: float) -> None:
        self._over.wait(pause)

    async def pace_async(self, pause: float) -> None:
        await asyncio.sleep(pause)

    def finish(self) -> None:
        """Returns when the last calls have come back."""
        self._over.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive(), "a caller hangs"

    def _begin(self, threads: list[threading.Thread]) -> None:
        self._threads += threads
        for thread in threads:
            thread.start()

    def _note(self, kind: str, answer: object) -> None:
        assert answer == "served", answer
        with self._lock:
            self.done[kind] += 1

    def _fail(self, kind: str, problem: Exception) -> None:
        with self._lock:
            self.failures.append(f"{kind}: {type(problem).__name__}: {problem}")
