"""Bodies that a fault holds up: as long through a real Envoy as by meshlib, and never a byte less (FI)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pyqwest
import pytest

import meshlib
import meshlib_pyqwest
import meshlib_requests
from meshlib.testing import build
from tests.e2e.oracle.beside import Beside
from tests.support.late import within

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(120)]

FAULT = "envoy.extensions.filters.http.fault.v3.HTTPFault"
ALL = {"numerator": 100}
BODY = "".join(f"{number:07}\n" for number in range(4096))  # 32 KiB


def limited(**limit: Any) -> dict[str, Any]:
    fault = build.any_of(FAULT, {"response_rate_limit": limit})
    return {"filters": [{"name": "envoy.filters.http.fault", "typed_config": fault}]}


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beside]:
    routes = [build.route("/", cluster="c", timeout=20)]
    short = [build.route("/", cluster="c", timeout=0.5)]
    listeners = {
        "fixed": (routes, limited(fixed_limit={"limit_kbps": 32}, percentage=ALL)),
        "never": (routes, limited(fixed_limit={"limit_kbps": 1}, percentage={"numerator": 0})),
        "header": (routes, limited(header_limit={}, percentage=ALL)),
        "short": (short, limited(fixed_limit={"limit_kbps": 8}, percentage=ALL)),
    }
    with Beside(tmp_path_factory.mktemp("envoy"), listeners) as made:
        made.upstream.order(body=BODY)
        yield made


@pytest.mark.parametrize(
    ("name", "headers", "seconds"),
    [
        ("fixed", {}, 15 / 16),
        ("header", {"x-envoy-fault-throughput-response": "32"}, 15 / 16),
        ("header", {"x-envoy-fault-throughput-response": "x"}, 0.0),
        ("header", {}, 0.0),
        (
            "header",
            {"x-envoy-fault-throughput-response": "32", "x-envoy-fault-throughput-response-percentage": "0"},
            0.0,
        ),
        ("never", {}, 0.0),
    ],
)
@pytest.mark.parametrize("which", [0, 1], ids=["meshlib", "envoy"])
def test_a_body_takes_as_long(
    beside: Beside, name: str, headers: dict[str, str], seconds: float, which: int
) -> None:
    def read() -> float:
        began = time.monotonic()
        assert beside.one(which, name, headers=headers).body == BODY.encode()
        return time.monotonic() - began

    within(seconds - 0.1, seconds + 0.6, read)


def test_tasks_wait_too_and_give_up_cleanly(beside: Beside) -> None:
    url = f"http://127.0.0.1:{beside.ports['fixed']}/"

    async def run() -> float:
        async with meshlib.AsyncClient(mesh=beside.mesh) as client:
            began = time.monotonic()
            body = (await client.get(url)).content
            took = time.monotonic() - began
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.get(url), 0.3)
            async with client.stream("GET", url) as answer:
                parts = [part async for part in answer.aiter_raw()]
        assert body == b"".join(parts) == BODY.encode()
        assert len(parts) == 16
        return took

    within(0.8, 1.6, lambda: asyncio.run(run()))
    assert [cluster.active for cluster in beside.mesh.status().clusters.values()] == [0]


def test_the_deadline_holds_meanwhile(beside: Beside) -> None:
    def cut() -> float:
        began = time.monotonic()
        with pytest.raises(meshlib.DeadlineExceeded) as raised:
            client.get(f"http://127.0.0.1:{beside.ports['short']}/")
        assert isinstance(raised.value, httpx.TimeoutException)
        return time.monotonic() - began

    with meshlib.Client(mesh=beside.mesh) as client:
        within(0.4, 1.2, cut)


def test_requests_and_pyqwest_are_held_up_too(beside: Beside) -> None:
    url = f"http://127.0.0.1:{beside.ports['fixed']}/"

    def timed(read: Callable[[], bytes]) -> float:
        began = time.monotonic()
        assert read() == BODY.encode()
        return time.monotonic() - began

    def streamed() -> bytes:
        with session.get(url, stream=True) as answer:
            return b"".join(answer.iter_content(1000))

    with meshlib_requests.Session(mesh=beside.mesh) as session:
        within(0.8, 1.6, lambda: timed(lambda: session.get(url).content))
        within(0.8, 1.6, lambda: timed(streamed))
    client = pyqwest.SyncClient(transport=meshlib_pyqwest.SyncTransport(mesh=beside.mesh))
    within(0.8, 1.6, lambda: timed(lambda: client.get(url).content))
