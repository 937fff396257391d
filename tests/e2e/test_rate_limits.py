"""Rate limits of an Envoy's filters, over every library: a service is asked, and nobody waits for it who should not."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

import meshlib
from meshlib.testing import build
from tests.support.grpc_channels import FACES as GRPC_FACES
from tests.support.grpc_channels import SERVICE, Channel
from tests.support.libraries import LIBRARIES, Caller
from tests.support.rate_limit_server import RateLimitServer

GLOBAL = "envoy.extensions.filters.http.ratelimit.v3.RateLimit"
LOCAL = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
HTTP2 = {
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": build.any_of(
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        {"explicit_http_config": {"http2_protocol_options": {}}},
    )
}
URL = "http://127.0.0.1:8001/"
Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A file in Envoy's shape: a listener with a rate limit filter before a cluster, whose service is at an address."""

    def make(upstream: Any, limits: str, **fields: Any) -> str:
        service = {"grpc_service": {"envoy_grpc": {"cluster_name": "limits"}}, "transport_api_version": "V3"}
        given = {"domain": "d", "rate_limit_service": service, "timeout": "5s", **fields}
        filters = [{"name": "limits", "typed_config": build.any_of(GLOBAL, given)}]
        routed = build.route(cluster="c")
        user = {"request_headers": {"header_name": "x-user", "descriptor_key": "user"}}
        routed["route"]["rate_limits"] = [{"actions": [user]}]
        host = build.virtual_host("v", routed)
        clusters = [
            build.cluster("c", [upstream.address]),
            build.cluster("limits", [limits], typed_extension_protocol_options=HTTP2),
        ]
        made = build.listener("l", build.route_config("r", host), filters=filters, address="127.0.0.1:8001")
        file = tmp_path / "envoy.json"
        resources = {"listeners": [made], "clusters": clusters}
        file.write_text(json.dumps({"static_resources": resources}))
        return str(file)

    return make


@pytest.fixture
def server() -> Iterator[RateLimitServer]:
    """It lets two calls of each user pass."""
    seen: dict[Any, int] = {}

    def answer(domain: str, descriptors: list[list[tuple[str, str]]]) -> dict[str, Any]:
        user = dict(descriptors[0])["user"]
        if user in ("fail", "hang"):
            return {user: True}
        seen[user] = seen.get(user, 0) + 1
        return {"overall_code": "OK" if seen[user] <= 2 else "OVER_LIMIT", "raw_body": "c2xvdw=="}

    with RateLimitServer(answer) as made:
        yield made


@pytest.mark.parametrize("library", [name for name in LIBRARIES if name != "aiohttp-connector"])
def test_every_library_asks_and_is_refused(
    library: str, write: Write, server: RateLimitServer, upstream: Any
) -> None:
    one = upstream()
    file = write(one, server.address, failure_mode_deny=True)
    with meshlib.Mesh({"services_file": file}) as mesh, Caller(library, mesh) as ask:
        asked = [ask("GET", URL, headers={"x-user": user}) for user in ("a", "a", "a", "b", "fail")]
        statuses = [status for status, _, _ in asked]
        assert statuses == [200, 200, 429, 200, 500]
        refused = asked[2]
        assert refused[1] == b"slow"
        assert refused[2] is not None
        assert any("the rate limit of 'd' is reached" in line for line in refused[2].trace())
        assert any("does not answer" in line for line in asked[4][2].trace())
    assert one.requests_total == 3
    assert [each["descriptors"][0]["entries"][0]["value"] for each in server.asked] == [
        "a",
        "a",
        "a",
        "b",
        "fail",
    ]


@pytest.mark.parametrize("kind", GRPC_FACES)
def test_grpc_calls_ask_too(
    kind: str, write: Write, server: RateLimitServer, meshlib_grpc_upstream: Any
) -> None:
    one = meshlib_grpc_upstream("v1")
    file = write(one, server.address, rate_limited_as_resource_exhausted=True)
    with meshlib.Mesh({"services_file": file}) as mesh, Channel(kind, "127.0.0.1:8001", mesh) as here:
        for _ in range(2):
            here.unary(metadata=(("x-user", "a"),))
        with pytest.raises(grpc.RpcError) as refused:
            here.unary(metadata=(("x-user", "a"),))
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        here.unary(metadata=(("x-user", "fail"),))
        if kind == "sync":
            made = here.channel.unary_unary(f"{SERVICE}Get").future(b"", metadata=(("x-user", "a"),))
            with pytest.raises(grpc.RpcError):
                made.result()
            assert made.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert one.requests_total == 3


def test_without_the_service_calls_pass_in_its_time(write: Write, upstream: Any) -> None:
    one, away = upstream(), upstream()
    away.kill()
    with (
        meshlib.Mesh({"services_file": write(one, away.address, timeout="0.3s")}) as mesh,
        meshlib.Client(mesh=mesh) as client,
    ):
        began = time.monotonic()
        assert client.get(URL, headers={"x-user": "a"}).status_code == 200
        assert time.monotonic() - began < 5
        assert client.get(URL).status_code == 200, "nothing to ask"


def test_a_loop_goes_on_while_a_service_hangs_and_a_task_can_be_cancelled(
    write: Write, server: RateLimitServer, upstream: Any
) -> None:
    one = upstream()
    file = write(one, server.address, timeout="30s")

    async def go() -> None:
        async with meshlib.AsyncClient(mesh=mesh) as client:
            hung = asyncio.create_task(client.get(URL, headers={"x-user": "hang"}))
            await asyncio.to_thread(server.wait_asked, 1)
            assert (await client.get(URL, headers={"x-user": "a"})).status_code == 200
            hung.cancel()
            with pytest.raises(asyncio.CancelledError):
                await hung
            with meshlib.deadline(0.2), pytest.raises(meshlib.DeadlineExceeded):
                await client.get(URL, headers={"x-user": "hang"})

    with meshlib.Mesh({"services_file": file}) as mesh:
        asyncio.run(go())
        assert mesh.status().clusters["c"].active == 0
    assert one.requests_total == 1


def test_the_answer_and_the_call_have_what_the_service_adds(write: Write, upstream: Any) -> None:
    def answer(domain: str, descriptors: Any) -> dict[str, Any]:
        return {
            "overall_code": "OK",
            "request_headers_to_add": [
                {"key": "x-told", "value": "yes"},
                {"key": "bad name", "value": "no"},
                {"key": "x-bad", "value": "a\r\nx-more: b"},
                {"key": ":path", "value": "/elsewhere"},
            ],
            "response_headers_to_add": [{"key": "x-left", "value": "5"}],
        }

    one = upstream()
    retry = {"retry_on": "5xx", "num_retries": 1}
    with RateLimitServer(answer) as server:
        file = write(one, server.address)
        text = json.loads(Path(file).read_text())
        chain = text["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
        chain["route_config"]["virtual_hosts"][0]["retry_policy"] = retry
        Path(file).write_text(json.dumps(text))
        one.fail(503, times=1)
        with meshlib.Mesh({"services_file": file}) as mesh, meshlib.Client(mesh=mesh) as client:
            response = client.get(URL, headers={"x-user": "a"})
    assert response.headers["x-left"] == "5"
    arrived = [name.lower() for name, _ in response.json()["headers"]]
    assert arrived.count("x-told") == 1, "each attempt has it once"
    assert "x-bad" not in arrived
    assert "x-more" not in arrived
    assert response.json()["path"] == "/"
    assert len(server.asked) == 1, "a call is asked about once, and not its retries"
    info = meshlib.call_info(response)
    assert info is not None
    assert len(info.attempts) == 2


def test_local_limits_outlive_an_update_of_other_things(tmp_path: Path, upstream: Any) -> None:
    one = upstream()
    file = tmp_path / "envoy.json"

    def put(timeout: str, most: int) -> None:
        bucket = {"max_tokens": most, "tokens_per_fill": 1, "fill_interval": "1000s"}
        everything = {"default_value": {"numerator": 100}}
        fields = {
            "stat_prefix": "l",
            "token_bucket": bucket,
            "filter_enabled": everything,
            "filter_enforced": everything,
        }
        filters = [{"name": "limits", "typed_config": build.any_of(LOCAL, fields)}]
        host = build.virtual_host("v", build.route(cluster="c", timeout=timeout))
        made = build.listener("l", build.route_config("r", host), filters=filters, address="127.0.0.1:8001")
        resources = {"listeners": [made], "clusters": [build.cluster("c", [one.address])]}
        file.write_text(json.dumps({"static_resources": resources}))

    put("5s", 3)
    with meshlib.Mesh({"services_file": str(file)}) as mesh, meshlib.Client(mesh=mesh) as client:
        assert [client.get(URL).status_code for _ in range(2)] == [200, 200]
        version = mesh.explain("GET", URL).timeout
        put("6s", 3)
        runtime = mesh._runtime()
        assert runtime.store.wait(lambda view: mesh.explain("GET", URL).timeout != version, 20)
        assert [client.get(URL).status_code for _ in range(2)] == [200, 429]
