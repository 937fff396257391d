"""aiohttp's own tests over meshlib_aiohttp.

``plain``: aiohttp as it is. ``session``: our session in the place of its own. ``connector``: its sessions, our connector in the place of
its ``TCPConnector``. ``auto``: both are its own, patched by ``meshlib.auto``. ``…-mesh``: the same, with the endpoints substituted.
"""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

from compat_kit import MODE, configure, count, mesh_for

# The release's source lies where the tests run: without the parts of it that are written in C.
sys.path[:] = [path for path in sys.path if path not in ("", str(Path.cwd()))]
aiohttp: Any = import_module("aiohttp")

KIND, _, SUBSTITUTED = MODE.partition("-")


def count_calls() -> None:
    """Count each call that comes to a connector of ours; with ``…-mesh`` it has the mesh of its host."""
    from meshlib_aiohttp.connectors import CHOSEN, Calls

    connect, send = Calls.connect, Calls._send

    async def chosen(self: Any, own: Any, request: Any, traces: Any, timeout: Any) -> Any:
        found = request.__dict__.get(CHOSEN, self._default)
        if SUBSTITUTED and found is not None:
            setattr(request, CHOSEN, (mesh_for(str(request.url))._runtime, found[1]))
        return await connect(self, own, request, traces, timeout)

    async def counted(self: Any, *args: Any) -> Any:
        try:
            response = await send(self, *args)
        except aiohttp.ClientError as error:
            count(error)
            raise
        count(response)
        return response

    Calls.connect, Calls._send = chosen, counted  # type: ignore[method-assign]


def put(name: str, ours: Any) -> None:
    for place in ("aiohttp", "aiohttp.client", "aiohttp.connector", "aiohttp.test_utils"):
        module = import_module(place)
        if hasattr(module, name):
            setattr(module, name, ours)


def put_sessions() -> None:
    import meshlib_aiohttp

    put("ClientSession", meshlib_aiohttp.ClientSession)


def put_connectors() -> None:
    import meshlib_aiohttp

    put("TCPConnector", meshlib_aiohttp.Connector)


def patch() -> None:
    """``meshlib.auto``."""
    configure(1)  # a mesh that has something; which one a call has is chosen above
    import_module("meshlib.auto")


if KIND != "plain":
    count_calls()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        {"session": put_sessions, "connector": put_connectors, "auto": patch}[KIND]()
