"""What is mirrored arrives as a real Envoy mirrors it: cluster, host, path, lines and body (RW-04)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

import meshlib
from meshlib.testing import Upstream, build
from meshlib.testing.control_plane import ControlPlane
from tests.e2e.oracle.envoy_process import EnvoyProcess
from tests.support.asking import asked
from tests.support.ports import Ports

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(120)]


def mirrors(*policies: dict[str, Any]) -> dict[str, Any]:
    return {"request_mirror_policies": list(policies)}


NEVER = {"default_value": {"numerator": 0}}
ROUTES = {
    "/plain": {"action": mirrors({"cluster": "s"})},
    "/as-it-is": {"action": mirrors({"cluster": "s", "disable_shadow_host_suffix_append": True})},
    "/host": {"action": mirrors({"cluster": "s", "host_rewrite_literal": "lit.example:7"})},
    "/edited": {
        "action": {"prefix_rewrite": "/new", "host_rewrite_literal": "other:81", **mirrors({"cluster": "s"})},
        "request_headers_to_add": [{"header": {"key": "x-added", "value": "%REQ(:path)%"}}],
        "request_headers_to_remove": ["x-gone"],
    },
    "/twice": {"action": mirrors({"cluster": "s"}, {"cluster": "s"}, {"cluster": "none"})},
    "/never": {"action": mirrors({"cluster": "s", "runtime_fraction": NEVER})},
    "/by-header": {"action": mirrors({"cluster_header": "x-to"})},
    "/of-the-host": {"action": {}},
}
#: Path, method, body, lines; how often it is to arrive there.
CALLS: dict[str, tuple[str, str, bytes, dict[str, str], int]] = {
    "a head": ("/plain/a?q=1", "GET", b"", {"x-a": "1", "cookie": "a=b"}, 1),
    "a body": ("/plain", "POST", b"abc" * 1000, {"content-type": "text/x"}, 1),
    "an empty body": ("/plain", "POST", b"", {}, 1),
    "another host": ("/plain", "GET", b"", {"host": "h.example:8080"}, 1),
    "a host without a port": ("/plain", "GET", b"", {"host": "h.example"}, 1),
    "an address": ("/plain", "GET", b"", {"host": "[::1]:80"}, 1),
    "the host as it is": ("/as-it-is", "GET", b"", {}, 1),
    "a host of its own": ("/host", "PUT", b"x", {}, 1),
    "edits": ("/edited/a", "GET", b"", {"x-gone": "1"}, 1),
    "twice": ("/twice", "POST", b"abc", {}, 2),
    "never": ("/never", "GET", b"", {}, 0),
    "by a header": ("/by-header", "GET", b"", {"x-to": "s"}, 1),
    "without the header": ("/by-header", "GET", b"", {}, 0),
    "of the virtual host": ("/of-the-host", "GET", b"", {}, 1),
}
#: What an Envoy adds to what it makes itself, and what is a proxy's; what is another at each call.
OF_ENVOY = {"x-envoy-internal", "x-forwarded-for", "x-forwarded-proto", "x-request-id", "connection"}
TIMES = {"x-envoy-expected-rq-timeout-ms"}


@pytest.fixture(scope="module")
def sides(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[dict[str, httpx.Client], str, Upstream]]:
    with ExitStack() as stack:
        main, shadow = (stack.enter_context(Upstream(name)) for name in ("main", "shadow"))
        held = Ports(1)
        stack.callback(held.close)
        routes = [build.route(prefix, cluster="c", **fields) for prefix, fields in ROUTES.items()]
        host = build.virtual_host(
            "v", *routes, domains=["*"], include_request_attempt_count=True, **mirrors({"cluster": "s"})
        )
        config = build.route_config("r", host, validate_clusters=False)
        plane = stack.enter_context(
            ControlPlane(
                build.cluster("c", [main.address]),
                build.cluster("s", [shadow.address]),
                build.listener("l", config, address=f"127.0.0.1:{held.numbers[0]}"),
            )
        )
        envoy = stack.enter_context(EnvoyProcess(plane.address, tmp_path_factory.mktemp("envoy")))
        envoy.wait_for_listeners(1)
        mesh = stack.enter_context(meshlib.Mesh({"xds": {"server": plane.address, "view": "sidecar"}}))
        mesh.wait_ready(f"127.0.0.1:{held.numbers[0]}", timeout=30)
        plain = stack.enter_context(httpx.Client(timeout=20))
        client = stack.enter_context(meshlib.Client(mesh=mesh, timeout=20))
        assert not [source.rejected for source in mesh.status().sources if source.rejected]
        yield {"ours": client, "theirs": plain}, f"http://127.0.0.1:{held.numbers[0]}", shadow


@pytest.mark.parametrize("call", CALLS)
def test_the_same_arrives(call: str, sides: tuple[dict[str, httpx.Client], str, Upstream]) -> None:
    clients, url, shadow = sides
    path, method, body, headers, count = CALLS[call]
    seen = []
    for client in clients.values():
        before = len(shadow.requests)
        answer = client.request(method, url + path, content=body, headers=headers)
        assert answer.json()["name"] == "main"
        assert asked(lambda before=before: len(shadow.requests) >= before + count, 20)
        if not count:
            # What is sent after it arrives after it.
            client.get(f"{url}/plain")
            assert asked(lambda before=before: len(shadow.requests) > before, 20)
            assert len(shadow.requests) == before + 1
            continue
        for each in shadow.requests[before:]:
            lines = sorted(
                (name.lower(), value) for name, value in each.headers if name.lower() not in OF_ENVOY | TIMES
            )
            assert {name.lower() for name, _ in each.headers} >= TIMES
            seen.append((each.method, each.path, lines, each.body))
    assert len(seen) == 2 * count
    assert all(each == seen[0] for each in seen)
