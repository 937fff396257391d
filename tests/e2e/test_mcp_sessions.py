"""MCP's own client and its own servers that keep sessions: three replicas, and each session stays with its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import mcp
import pytest
from mcp.client.streamable_http import streamable_http_client
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings

import meshlib
import meshlib.httpx2
from tests.support.asgi_server import AsgiServer

NAMES = "abc"


def app(name: str) -> Any:
    server = MCPServer(name)

    @server.tool()
    async def who() -> str:
        """Who answers."""
        return name

    allowed = TransportSecuritySettings(allowed_hosts=["tools"])
    return server.streamable_http_app(transport_security=allowed)


@pytest.fixture
def addresses() -> Iterator[list[str]]:
    with ExitStack() as stack:
        yield [stack.enter_context(AsgiServer(app(name))).address for name in NAMES]


def connect(http: Any) -> Any:
    return mcp.Client(streamable_http_client("http://tools/mcp", http_client=http), mode="legacy")


async def name_of(client: mcp.Client) -> str:
    answer = await client.call_tool("who")
    return answer.content[0].text  # type: ignore[union-attr]


@pytest.mark.parametrize("envelope", [False, True])
async def test_each_session_stays_with_its_replica(addresses: list[str], envelope: bool) -> None:
    session = {"header": "mcp-session-id", "envelope": envelope}
    service = {"endpoints": addresses, "session": session}
    with meshlib.Mesh({"services": {"tools": service}}) as mesh:
        async with meshlib.httpx2.AsyncClient(mesh=mesh) as http:
            seen = set()
            for _ in range(4):
                async with connect(http) as client:
                    assert {tool.name for tool in (await client.list_tools()).tools} == {"who"}
                    names = {await name_of(client) for _ in range(6)}
                assert len(names) == 1
                seen |= names
            assert len(seen) > 1, "sessions are spread"


async def test_without_a_session_its_calls_are_lost(addresses: list[str]) -> None:
    with meshlib.Mesh({"services": {"tools": {"endpoints": addresses}}}) as mesh:
        async with meshlib.httpx2.AsyncClient(mesh=mesh) as http:
            words = ""
            try:
                async with connect(http) as client:
                    for _ in range(6):
                        await name_of(client)
            except BaseException as error:  # noqa: BLE001 - a group of the client's task group
                words = _words(error)
    assert "Session" in words


def _words(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return " ".join(map(_words, error.exceptions))
    return repr(error)
