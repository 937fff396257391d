"""``import meshlib.auto``: the calls of requests, urllib3, httpx, httpx2, aiohttp and grpc go through the mesh from here on.

What is imported already is patched now, the rest when it is imported. Which rules hold is what ``meshlib.default()`` says;
without any configuration nothing changes. ``meshlib run -- COMMAND`` does this in another program and its children.

``remove()`` puts everything back; ``install()`` does it again. ``mesh.status().process.patched`` lists what is replaced.
"""

from __future__ import annotations

from meshlib.patching import install, remove

__all__ = ["install", "remove"]

install()
