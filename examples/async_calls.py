"""A hundred calls at once with AsyncClient."""

from __future__ import annotations

import asyncio
from collections import Counter

import meshlib
from meshlib.testing import Upstream


async def calls(servers: list[Upstream]) -> None:
    config = {
        "services": {
            "reviews": {"endpoints": [server.address for server in servers], "balancer": "least_request"}
        }
    }
    async with meshlib.Mesh(config) as mesh, meshlib.AsyncClient(mesh=mesh) as client:
        responses = await asyncio.gather(*(client.get(f"http://reviews/{number}") for number in range(100)))
        print(
            "a hundred calls:",
            dict(sorted(Counter(response.json()["name"] for response in responses).items())),
        )


def main() -> None:
    with Upstream("one") as one, Upstream("two") as two:
        asyncio.run(calls([one, two]))


if __name__ == "__main__":
    main()
