"""The mesh below an httpx.Client of your own."""

from __future__ import annotations

import httpx

import meshlib
from meshlib.testing import Upstream


def main() -> None:
    with Upstream("one") as one, Upstream("elsewhere") as elsewhere:
        mesh = meshlib.Mesh({"services": {"reviews": {"endpoints": [one.address]}}})
        with mesh, httpx.Client(transport=meshlib.Transport(mesh=mesh), headers={"x-team": "pay"}) as client:
            for url in ("http://reviews/", elsewhere.url):
                response = client.get(url)
                info = meshlib.call_info(response)
                assert info is not None
                print(f"{response.json()['name']}: via {info.via}, endpoint {info.endpoint}")


if __name__ == "__main__":
    main()
