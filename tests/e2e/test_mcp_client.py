"""MCP's client over a client of ours, against MCP's own server: tools are called through the mesh, answers streamed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any

import mcp
import pytest
from mcp.client.streamable_http import streamable_http_client
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.transport_security import TransportSecuritySettings

import meshlib
import meshlib.httpx2
from tests.support.asgi_server import AsgiServer


class Tools:
    """A server of two tools; ``slowly`` tells of its progress, and is over when the test says so."""

    def __init__(self, name: str) -> None:
        self.go_on = asyncio.Event()
        self.loop: Any = None
        self.calls = 0
        server = MCPServer(name)

        @server.tool()
        async def who() -> str:
            """Who answers."""
            self.calls += 1
            return name

        @server.tool()
        async def slowly(ctx: Context) -> str:
            """Says that it has begun, and waits."""
            self.loop = asyncio.get_running_loop()
            self.calls += 1
            await ctx.report_progress(1, 2, "begun")
            await self.go_on.wait()
            return name

        allowed = TransportSecuritySettings(allowed_hosts=["tools"])
        self.app = server.streamable_http_app(stateless_http=True, transport_security=allowed)

    def release(self) -> None:
        if self.loop is not None:
            self.loop.call_soon_threadsafe(self.go_on.set)


@pytest.fixture
def tools() -> Iterator[list[tuple[Tools, str]]]:
    one, other = Tools("a"), Tools("b")
    with AsgiServer(one.app) as first, AsgiServer(other.app) as second:
        try:
            yield [(one, first.address), (other, second.address)]
        finally:
            one.release()
            other.release()


@pytest.fixture
def mesh(tools: list[tuple[Tools, str]]) -> Iterator[meshlib.Mesh]:
    service = {"endpoints": [address for _, address in tools], "balancer": "round_robin"}
    with meshlib.Mesh({"services": {"tools": service}}) as made:
        yield made


def active(mesh: meshlib.Mesh) -> int:
    return mesh.status().clusters["tools"].active


def connect(http: Any) -> mcp.Client:
    return mcp.Client(streamable_http_client("http://tools/mcp", http_client=http))


async def test_tools_are_called_at_both_endpoints(mesh: meshlib.Mesh) -> None:
    async with meshlib.httpx2.AsyncClient(mesh=mesh) as http, connect(http) as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == {"who", "slowly"}
        answers = [await client.call_tool("who") for _ in range(4)]
    assert Counter(answer.content[0].text for answer in answers) == {"a": 2, "b": 2}
    assert active(mesh) == 0


async def test_progress_comes_while_the_tool_works(
    mesh: meshlib.Mesh, tools: list[tuple[Tools, str]]
) -> None:
    begun: asyncio.Queue[str | None] = asyncio.Queue()

    async def progress(_: float, __: float | None, message: str | None) -> None:
        begun.put_nowait(message)

    async with meshlib.httpx2.AsyncClient(mesh=mesh) as http, connect(http) as client:
        call = asyncio.ensure_future(client.call_tool("slowly", progress_callback=progress))
        assert await asyncio.wait_for(begun.get(), 20) == "begun"
        assert not call.done()
        assert active(mesh) >= 1
        for one, _ in tools:
            one.release()
        assert (await call).content[0].text in {"a", "b"}
    assert active(mesh) == 0


async def test_a_cancelled_call_gives_all_back(mesh: meshlib.Mesh, tools: list[tuple[Tools, str]]) -> None:
    begun = asyncio.Event()

    async def progress(*_: Any) -> None:
        begun.set()

    async with meshlib.httpx2.AsyncClient(mesh=mesh) as http:
        async with connect(http) as client:
            call = asyncio.ensure_future(client.call_tool("slowly", progress_callback=progress))
            await asyncio.wait_for(begun.wait(), 20)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        assert active(mesh) == 0
        async with connect(http) as client:
            assert (await client.call_tool("who")).content[0].text in {"a", "b"}


async def test_a_server_that_is_gone_is_passed_over(tools: list[tuple[Tools, str]]) -> None:
    """A request of MCP's is a POST whose body can be sent again; what was not connected is tried elsewhere."""
    service = {
        "endpoints": ["127.0.0.1:1", tools[1][1]],
        "balancer": "round_robin",
        "retry": {"attempts": 2, "on": ["connect-failure"]},
    }
    with meshlib.Mesh({"services": {"tools": service}}) as mesh:
        async with meshlib.httpx2.AsyncClient(mesh=mesh) as http, connect(http) as client:
            answers = [await client.call_tool("who") for _ in range(4)]
        assert {answer.content[0].text for answer in answers} == {"b"}
