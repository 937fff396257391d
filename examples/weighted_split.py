"""A control plane moves traffic from v1 to v2 while calls go on."""

from __future__ import annotations

from collections import Counter

import meshlib
from meshlib.testing import ControlPlane, Upstream, build


def routes(v1: int, v2: int) -> dict[str, object]:
    host = build.virtual_host("reviews", build.route("/", weights={"reviews-v1": v1, "reviews-v2": v2}))
    return build.route_config("reviews-routes", host)


def shares(client: meshlib.Client, calls: int = 200) -> dict[str, int]:
    return dict(sorted(Counter(client.get("http://reviews/").json()["name"] for _ in range(calls)).items()))


def main() -> None:
    with Upstream("v1") as v1, Upstream("v2") as v2, ControlPlane() as control_plane:
        control_plane.set(
            build.api_listener("reviews", "reviews-routes"),
            routes(100, 0),
            build.cluster("reviews-v1", [v1.address]),
            build.cluster("reviews-v2", [v2.address]),
        )
        # One view is one stream, so that an acknowledgement means that the routes are in force here.
        with (
            meshlib.Mesh({"xds": {"server": control_plane.address, "view": "target"}}) as mesh,
            meshlib.Client(mesh=mesh) as client,
        ):
            mesh.wait_ready("reviews", timeout=5)
            print("all to v1:", shares(client))

            for old, new in ((90, 10), (50, 50), (0, 100)):
                control_plane.update(routes(old, new))
                control_plane.wait_for_ack("route")
                print(f"{old}/{new}:", shares(client))

            control_plane.kill()
            print("the control plane is gone:", shares(client))


if __name__ == "__main__":
    main()
