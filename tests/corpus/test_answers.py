"""Each set that has HTTP routes, on one control plane for a real Envoy and for meshlib, and both asked the same.

What must not be: a call that meshlib lets through where Envoy answers it with a refusal, or that goes past the listener.
What differs otherwise is on the list.
"""

from __future__ import annotations

import http.client
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import pytest

import meshlib
from meshlib.testing.control_plane import ControlPlane
from meshlib.xds import schema
from tests.corpus.asking import requests_for
from tests.corpus.loopback import Served, served
from tests.corpus.progress import told
from tests.e2e.oracle.envoy_process import EnvoyProcess
from tests.e2e.oracle.exchange import Client, Exchange, Request, Upstreams, described
from tests.support.asking import asked
from tests.support.ports import Ports

if TYPE_CHECKING:
    from pathlib import Path

    from tests.corpus.cases import Resources

pytestmark = pytest.mark.timeout(0)

_PATIENCE = 20.0  # seconds until both have what the control plane says; resources that never come are given up after 15
_ENVOYS = 8.0  # seconds until Envoy has, or waits for what nobody will send
#: Where meshlib's listeners are: nobody listens there, so that a call past them reaches nobody.
_ELSEWHERE = "127.0.0.9"
_DRAWS = 8  # of the dice, where a share of the calls goes elsewhere
#: Headers that are a proxy's own: docs/differences.md.
_PROXY = (
    "x-envoy-",
    "x-forwarded-",
    "x-request-id",
    "via",
    "traceparent",
    "tracestate",
    "content-length",
    "transfer-encoding",
)


class EnvoyIsGone(Exception):
    """It fell over; the text is the end of what it logged."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, both answers, and the way by which meshlib goes."""

    case: str
    request: Request
    theirs: Exchange
    ours: Exchange
    via: str

    def told(self) -> str:
        said = f"{_told(self.theirs)} by Envoy, {_told(self.ours)} by meshlib ({self.via})"
        return f"{self.case}: {self.request.method} {self.request.path}: {said}"


def test_answers(resources, differences, whole, tmp_path, capsys):
    tally, wrong = Counter(), []
    for number, found in enumerate(resources, 1):
        folder = tmp_path / str(number)
        folder.mkdir()
        try:
            answers = list(_asked(found, folder, tally))
        except EnvoyIsGone as gone:
            answers = []
            tally["gone with Envoy"] += 1
            if not differences.explain("gone", f"{found.name}: {gone}"):
                wrong.append(f"{found.name}: Envoy is gone: {gone}")
        for one in answers:
            kind = _kind(one)
            tally[kind or "the same"] += 1
            if kind and not differences.explain(kind, one.told()):
                wrong.append(f"{kind}: {one.told()}; {one.request}")
        words = ", ".join(f"{count} {word}" for word, count in sorted(tally.items()))
        told(capsys, number, len(resources), f"sets: {words}")
    assert tally.total(), "nothing has that in its name"
    assert not wrong, f"{len(wrong)} differences:\n" + "\n".join(wrong[:60])
    if whole:
        assert differences.unused("passed", "refused", "other", "gone") == []


def _asked(found: Resources, folder: Path, tally: Counter[str]) -> Iterator[Asked]:
    with ExitStack() as stack:
        upstreams = stack.enter_context(Upstreams([f"u{index}" for index in range(6)], ()))
        made = served(found, list(upstreams.addresses.values()))
        if not made.listeners:
            tally["set without HTTP"] += 1
            return
        held = Ports(len(made.listeners))
        stack.callback(held.close)
        ports = {name: port for (name, _), port in zip(made.listeners, held.numbers, strict=True)}
        theirs, ours = (
            stack.enter_context(ControlPlane(*_placed(made, ports, host)))
            for host in ("127.0.0.1", _ELSEWHERE)
        )
        envoy = stack.enter_context(EnvoyProcess(theirs.address, folder))
        try:
            # Envoy says at its admin address what became of its listeners, and only to who asks.
            if not asked(lambda: _envoy_has(envoy), _ENVOYS):
                tally["set that Envoy does not begin with"] += (
                    1  # for want of a secret, or of a service of its own
                )
                return
            if any(request.is_nack for request in theirs.requests):
                tally["set refused by Envoy"] += 1  # test_verdicts has why
                return
            mesh = stack.enter_context(meshlib.Mesh(_config(ours)))
            transport = stack.enter_context(meshlib.Transport(mesh=mesh))
            mesh._runtime().store.wait(lambda _: _mesh_has(mesh, ports.values()), _PATIENCE)
            for name, table in made.listeners:
                for request in requests_for(table):
                    yield _ask(found.name, ports[name], request, upstreams, mesh, transport)
        except OSError as problem:
            raise EnvoyIsGone(f"{problem!r}: {envoy.log()[-1500:]}") from problem


def _config(control_plane: ControlPlane) -> Any:
    node = {"id": "corpus", "cluster": "corpus"}
    return {"xds": {"server": control_plane.address, "view": "sidecar"}, "failures": "respond", "node": node}


def _placed(made: Served, ports: dict[str, int], host: str) -> Iterator[dict[str, Any]]:
    for resource in made.resources:
        if resource["@type"] == schema.LISTENER:
            address = {"address": host, "port_value": ports[resource["name"]]}
            yield {**resource, "address": {"socket_address": address}}
        else:
            yield resource


def _ask(
    case: str, port: int, request: Request, upstreams: Upstreams, mesh: meshlib.Mesh, transport: Any
) -> Asked:
    """Both are asked again where they differ, as a share of the calls may go elsewhere: one answer in common will do."""
    url = f"http://{_ELSEWHERE}:{port}{request.path}"
    headers = [("host", request.authority), *request.headers]
    via = mesh.explain(request.method, url, headers).via
    theirs, ours = list[Exchange](), list[Exchange]()
    for _ in range(_DRAWS):
        upstreams.mark()
        theirs.append(_of_envoy(port, request, upstreams))
        upstreams.mark()
        ours.append(
            _sent(
                transport,
                httpx.Request(request.method, url, headers=headers, content=request.body or None),
                upstreams,
            )
        )
        for one in theirs:
            for other in ours:
                if _essence(one) == _essence(other):
                    return Asked(case, request, one, other, via)
        if b"decides who may pass" in ours[-1].body:
            break  # which no dice change
    return Asked(case, request, theirs[-1], ours[-1], via)


def _of_envoy(port: int, request: Request, upstreams: Upstreams) -> Exchange:
    try:
        with Client(port) as client:
            return client.send(request, upstreams.latest)
    except http.client.HTTPException as problem:
        return Exchange(0, (), f"broken off: {problem!r}".encode())


def _sent(transport: Any, request: httpx.Request, upstreams: Upstreams) -> Exchange:
    try:
        response = transport.handle_request(request)
        body = response.read()
        response.close()
    except httpx.HTTPError as problem:
        return Exchange(0, (), repr(problem).encode(), upstreams.latest())
    lines = tuple((name.lower(), value) for name, value in response.headers.items())
    arrived = described(body)
    return Exchange(response.status_code, lines, b"" if arrived else body, arrived or upstreams.latest())


# --- until both are there


def _envoy_has(envoy: EnvoyProcess) -> bool:
    """It serves, has judged all listeners, and none is warming."""
    if envoy.admin("/ready").strip() != "LIVE":
        return False
    stats = envoy.stats("listener_manager")
    judged = sum(
        stats.get(f"listener_manager.lds.{name}", 0) for name in ("update_success", "update_rejected")
    )
    warming = stats.get("listener_manager.total_listeners_warming", 1)
    return bool(judged and not warming)


def _mesh_has(mesh: meshlib.Mesh, ports: Iterable[int]) -> bool:
    """It knows what is at each of the listeners' addresses, if only that it is refused."""
    return all(mesh.explain("GET", f"http://{_ELSEWHERE}:{port}/").via != "direct" for port in ports)


# --- what differs


def _kind(found: Asked) -> str:
    """``""`` where both did the same; else which kind of difference it is."""
    theirs, ours = found.theirs, found.ours
    if found.via == "direct":
        return "passed"
    if ours.arrived is not None and theirs.arrived is None:
        return "passed" if theirs.status >= 400 else "other"
    if ours.arrived is None and theirs.arrived is not None:
        return "refused"
    return "" if _essence(theirs) == _essence(ours) else "other"


def _essence(exchange: Exchange) -> tuple[Any, ...]:
    arrived = exchange.arrived
    if arrived is None:
        return exchange.status, dict(exchange.headers).get("location", "")
    headers = sorted(line for line in arrived.headers if not line[0].startswith(_PROXY))
    return exchange.status, arrived.upstream, arrived.method, arrived.authority, arrived.path, tuple(headers)


def _told(exchange: Exchange) -> str:
    if exchange.arrived is None:
        return f"{_essence(exchange)} {exchange.body[:160]!r}"
    return str(_essence(exchange))
