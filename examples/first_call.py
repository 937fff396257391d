"""A service without a control plane: three servers, one name, and a call explained."""

from __future__ import annotations

from collections import Counter

import meshlib
from meshlib.testing import Upstream


def main() -> None:
    with Upstream("one") as one, Upstream("two") as two, Upstream("three") as three:
        config = {
            "services": {
                "reviews": {
                    "endpoints": [one.address, two.address, {"address": three.address, "weight": 2}],
                    "balancer": "round_robin",
                }
            }
        }
        with meshlib.Mesh(config) as mesh, meshlib.Client(mesh=mesh) as client:
            answered = Counter(client.get("http://reviews/api/1").json()["name"] for _ in range(40))
            print("who answered 40 calls:", dict(sorted(answered.items())))

            response = client.get("http://reviews/api/2")
            info = meshlib.call_info(response)
            assert info is not None
            print("why the last call went where it went:")
            for line in info.trace():
                print("  ", line)

            print("what a call would do, without doing it:")
            for line in mesh.explain("GET", "http://reviews/api/3").trace():
                print("  ", line)


if __name__ == "__main__":
    main()
