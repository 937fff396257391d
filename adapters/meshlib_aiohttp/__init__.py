"""aiohttp's client in the mesh.

    async with meshlib_aiohttp.ClientSession() as session:      # the whole call plan
        async with session.get("http://reviews/api/1") as response:
            ...

    aiohttp.ClientSession(connector=meshlib_aiohttp.connector())  # balancing, ejection, pools; one attempt a call

Hosts that the mesh does not know, and calls through a proxy, are aiohttp's own in every respect. What fails is meshlib's
error and aiohttp's at once. aiohttp speaks HTTP/1.1 only, also to clusters that would like HTTP/2.
"""

from __future__ import annotations

from meshlib.extras import needed

with needed("aiohttp", "meshlib_aiohttp"):
    from meshlib_aiohttp.connectors import Connector, connector
    from meshlib_aiohttp.session import ClientSession

__all__ = ["ClientSession", "Connector", "connector"]
