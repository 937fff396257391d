"""An application that uses what meshlib offers. ``make check`` has mypy --strict and pyright read it; nothing runs it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import assert_type

import aiohttp
import httpx
import httpx2
import requests
import tenacity
import urllib3
from flask import Flask

import meshlib
import meshlib_aiohttp
import meshlib_asgi
import meshlib_flask
import meshlib_requests
import meshlib_wsgi
from meshlib.config.shapes import EndpointDict, RouteDict

REVIEWS: meshlib.ServiceDict = {
    "endpoints": ["10.0.0.1:8080", {"address": "10.0.0.2:8080", "weight": 3, "zone": "eu-1b"}],
    "balancer": "least_request",
    "timeout": 2,
    "retry": {
        "attempts": 3,
        "on": ["5xx", "connect-failure"],
        "per_try_timeout": 0.5,
        "stop": tenacity.stop_after_delay(2),
    },
    "breaker": {"consecutive_failures": 5, "open_for": 10.0},
    "outlier": {"consecutive_5xx": 5, "max_ejection_percent": 34},
    "limits": {"max_requests": 200},
}


def whole() -> meshlib.ConfigDict:
    addresses = [f"10.0.0.{number}:8080" for number in range(3)]
    nearby: list[EndpointDict] = [{"address": address} for address in addresses]
    route: RouteDict = {
        "match": {"prefix": "/api", "headers": {"x-tier": "gold"}},
        "split": {"reviews": 9, "canary": 1},
    }
    return {
        "node": {"id": "shop", "metadata": {"team": "pay", "level": 3}},
        "xds": {"server": "127.0.0.1:18000", "tls": {"ca": "ca.pem"}, "domains": ["*.mesh"]},
        "services": {
            "reviews": REVIEWS,
            "canary": {"endpoints": addresses},
            "near": {"endpoints": nearby, "routes": [route, {"redirect": {"host": "x", "status": 302}}]},
        },
        "bypass": ["metrics.internal"],
        "adoption": {"default": "observe", "reviews": "25%"},
        "inbound": {"ready": "/ready", "access_log": "json"},
    }


def meshes(path: Path) -> list[meshlib.Mesh]:
    loaded = json.loads(path.read_text())
    return [
        meshlib.Mesh(),
        meshlib.Mesh(path),
        meshlib.Mesh("mesh.toml"),
        meshlib.Mesh(whole()),
        meshlib.Mesh({"services": {"reviews": REVIEWS, "ratings": {"dns": "ratings:9080"}}}),
        meshlib.Mesh(meshlib.Config.from_mapping(loaded)),
        meshlib.Mesh(meshlib.Config.from_env()),
        meshlib.default(),
    ]


def calls(mesh: meshlib.Mesh) -> None:
    mesh.wait_ready("reviews", "ratings:9080", timeout=5)
    options = meshlib.CallOptions(timeout=0.8, retry={"attempts": 2}, hash_key="me", idempotent=False)
    limits = httpx.Limits(max_connections=10)
    with meshlib.Client(
        mesh=mesh, timeout=3, limits=limits, base_url="http://reviews", headers={"x": "y"}
    ) as client:
        assert_type(client, meshlib.Client)
        response = client.get("/api/1", extensions={"meshlib": options}, params={"page": 1})
        assert_type(response, httpx.Response)
        info = meshlib.call_info(response)
        if info is not None:
            assert_type(info.attempts, tuple[meshlib.Attempt, ...])
            print(info.via, [attempt.seconds for attempt in info.attempts], *info.trace())
        plain: httpx.Client = client
        plain.get("/")
    with meshlib.deadline(1.5), httpx.Client(transport=meshlib.Transport(mesh=mesh, http2=True)) as other:
        other.get("http://reviews/")
    with meshlib.httpx2.Client(mesh=mesh, follow_redirects=True) as second:
        assert_type(second.get("http://reviews/"), httpx2.Response)
    decision = mesh.explain("GET", "http://reviews/", headers={"x-tier": "gold"})
    assert_type(decision.timeout, float | None)
    for source in mesh.status().sources:
        print(source.name, source.state, source.last_error)


def failures(client: meshlib.Client) -> str:
    try:
        return client.get("http://reviews/").text
    except meshlib.NoHealthyEndpoint as problem:
        assert_type(problem.info, meshlib.CallInfo | None)
        return problem.phase
    except httpx.ConnectError as problem:
        return str(problem)


async def later(mesh: meshlib.Mesh) -> None:
    async with meshlib.AsyncClient(mesh=mesh, auth=("me", "secret")) as client:
        assert_type(await client.get("http://reviews/"), httpx.Response)
    async with meshlib_aiohttp.ClientSession(mesh=mesh) as session, session.get("http://reviews/") as answer:
        assert_type(answer, aiohttp.ClientResponse)
        print(answer.status, await answer.text())
        await session.post(
            "http://reviews/", json={"item": 1}, meshlib=meshlib.CallOptions(timeout=0.8, retry=False)
        )
    async with meshlib_aiohttp.ClientSession(
        "http://reviews", timeout=aiohttp.ClientTimeout(total=3), trust_env=True
    ) as based:
        plain: aiohttp.ClientSession = based
        await plain.get("/api/1")
    async with aiohttp.ClientSession(connector=meshlib_aiohttp.connector(mesh)) as own:
        await own.close()


def with_requests(mesh: meshlib.Mesh) -> None:
    session = meshlib_requests.Session(mesh=mesh)
    assert_type(session.get("http://reviews/", timeout=2), requests.Response)
    session.mount("http://", meshlib_requests.MeshAdapter(mesh=mesh, max_retries=urllib3.Retry(3)))
    with meshlib_requests.call_options(timeout=0.5, retry=False):
        session.post("http://reviews/", json={"item": 1})
    meshlib_requests.get("http://reviews/")
    manager: urllib3.PoolManager = meshlib_requests.PoolManager(mesh=mesh)
    manager.request("GET", "http://reviews/")


app = Flask(__name__)
app.config["MESHLIB"] = {"services": {"reviews": REVIEWS}}
meshlib_flask.Meshlib(app)
app.wsgi_app = meshlib_wsgi.Middleware(app.wsgi_app, inbound={"access_log": "envoy"})  # type: ignore[method-assign]


async def asgi(scope: object, receive: object, send: object) -> None:
    print(scope, receive, send)


served = meshlib_asgi.Middleware(
    asgi, mesh=meshlib.Mesh(whole()), inbound={"ready": "/ready", "ready_for": ["reviews"]}
)

if __name__ == "__main__":
    asyncio.run(later(meshlib.default()))
