"""The same call through a real Envoy and by meshlib, on one control plane: what the caller gets, and what came to the upstream."""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import httpx

import meshlib
from meshlib.testing import Upstream, build
from meshlib.testing.control_plane import ControlPlane
from tests.e2e.oracle.envoy_process import EnvoyProcess
from tests.support.ports import Ports

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["Beside", "Got"]

Json = dict[str, Any]

#: A call's number, by which what arrives is known to be its own: an attempt that was given up may arrive when the next call is made.
_CALL = "x-oracle-call"


class Got(NamedTuple):
    """``arrived``: at the first upstream, in order: method, path and lines of each request."""

    status: int
    lines: list[tuple[str, str]]
    body: bytes
    arrived: list[tuple[str, str, list[tuple[str, str]]]]

    def line(self, name: str) -> str | None:
        """What the response says in all lines of that name."""
        return ", ".join(value for key, value in self.lines if key == name) or None

    def sent(self, name: str, number: int = 0) -> str | None:
        """What a request that arrived says in all lines of that name."""
        return ", ".join(value for key, value in self.arrived[number][2] if key == name) or None


class Beside:
    """``listeners``: by name, the virtual hosts' routes and further fields of :func:`build.listener`. Cluster ``c`` is ``upstream``;
    ``clusters``: others; ``hosts``, ``cluster``, ``table``: more fields of each virtual host, of ``c`` and of each route configuration; ``config``: of
    meshlib's.
    """

    def __init__(
        self,
        folder: Path,
        listeners: Mapping[str, tuple[Sequence[Json], Json]],
        *clusters: Json,
        config: Json | None = None,
        hosts: Json | None = None,
        cluster: Json | None = None,
        table: Json | None = None,
    ) -> None:
        self._folder = folder
        self._listeners = listeners
        self._clusters = clusters
        self._config = config or {}
        self._hosts = hosts or {}
        self._cluster = cluster or {}
        self._table = {"validate_clusters": False} | (table or {})
        self._stack = ExitStack()
        self._numbers = map(str, itertools.count(1))

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.upstream = stack.enter_context(Upstream("c"))
            held = Ports(len(self._listeners))
            stack.callback(held.close)
            self.ports = dict(zip(self._listeners, held.numbers, strict=True))
            resources = [
                build.listener(
                    name,
                    build.route_config(
                        f"routes-{name}",
                        build.virtual_host("v", *routes, domains=["*"], **self._hosts),
                        **self._table,
                    ),
                    address=f"127.0.0.1:{self.ports[name]}",
                    **fields,
                )
                for name, (routes, fields) in self._listeners.items()
            ]
            own = build.cluster("c", [self.upstream.address], **self._cluster)
            self.plane = stack.enter_context(ControlPlane(own, *self._clusters, *resources))
            self.envoy = stack.enter_context(EnvoyProcess(self.plane.address, self._folder))
            try:
                self.envoy.wait_for_listeners(len(resources))
            finally:
                refused = [request.error for request in self.plane.requests if request.is_nack]
                assert not refused, refused
            self._plain = stack.enter_context(httpx.Client(timeout=20, trust_env=False))
            config = {"xds": {"server": self.plane.address, "view": "sidecar"}, "failures": "respond"}
            self.mesh = stack.enter_context(meshlib.Mesh(config | self._config))
            self.mesh.wait_ready(*(f"127.0.0.1:{port}" for port in held.numbers), timeout=30)
            self._ours = stack.enter_context(meshlib.Client(mesh=self.mesh, timeout=20))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def ask(self, name: str, path: str = "/", method: str = "GET", **request: Any) -> tuple[Got, Got]:
        """What meshlib has, and what Envoy has."""
        return self.one(0, name, path, method, **request), self.one(1, name, path, method, **request)

    def one(self, which: int, name: str, path: str = "/", method: str = "GET", **request: Any) -> Got:
        """What one of them has: 0 is meshlib, 1 Envoy."""
        client, url = (self._ours, self._plain)[which], f"http://127.0.0.1:{self.ports[name]}{path}"
        number, headers = next(self._numbers), httpx.Headers(request.pop("headers", None))
        headers[_CALL] = number
        before = self.upstream.requests_total
        answer = client.request(method, url, headers=headers, **request)
        arrived = [
            (
                each.method,
                each.path,
                [(name.lower(), value) for name, value in each.headers if name.lower() != _CALL],
            )
            for each in self.upstream.requests[before:]
            if each.header(_CALL) == number
        ]
        lines = [(name.lower(), value) for name, value in answer.headers.multi_items()]
        return Got(answer.status_code, lines, answer.content, arrived)
