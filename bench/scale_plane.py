"""The control plane of the case ``scale``, in a process of its own: what it serves is made beforehand, so that it only sends.

``python -m bench.scale_plane CLUSTERS ENDPOINTS UPSTREAM LISTENER full|small`` prints its address. Then each line of its input is an
order, answered with a line of JSON:

    loaded          seconds from the first request on until everything was acknowledged
    fill            the large clusters come; seconds until they were acknowledged
    change COUNT    one endpoint becomes another, so many times, one after the other: the seconds of each
"""

from __future__ import annotations

import json
import sys
import time

from bench.scale_shapes import Shape
from meshlib.testing import ControlPlane
from meshlib.testing.control_plane import Raw

_PATIENCE = 120.0
#: Seconds between a change and the next.
_REST = 0.05


def main(arguments: list[str]) -> None:
    clusters, endpoints, upstream, listener, how = arguments
    shape = Shape(int(clusters), int(endpoints), upstream, listener)
    large = shape.large()
    turns = [shape.changed(turn) for turn in (1, 0)]
    with ControlPlane(*(large if how == "full" else shape.small())) as plane:
        _say(plane.address)
        for line in sys.stdin:
            order, _, count = line.strip().partition(" ")
            seen, began = plane.seen, time.monotonic()
            if order == "loaded":
                ended = _loaded(plane, shape.clusters, 0)
                _say(ended - plane.requests[0].at)
            elif order == "fill":
                plane.set(*large)
                _say(_loaded(plane, shape.clusters, seen) - began)
            else:
                _say([_change(plane, turns[number % 2]) for number in range(int(count))])


def _change(plane: ControlPlane, resource: Raw) -> float:
    seen, began = plane.seen, time.monotonic()
    plane.update(resource)
    took = plane.wait_for_ack("endpoint", after=seen, timeout=_PATIENCE).at - began
    time.sleep(_REST)
    return took


def _loaded(plane: ControlPlane, clusters: int, after: int) -> float:
    """When the newest of each type was acknowledged, the endpoints after all of them had been asked for."""

    def all_asked() -> int:
        asked: set[str] = set()
        for each in plane.requests[after:]:
            if each.kind == "endpoint":
                asked.update(each.names)
                if len(asked) >= clusters:
                    return each.index + 1
        return 0

    since = plane.wait_for(all_asked, timeout=_PATIENCE, what="a request for all endpoints")
    there = [plane.wait_for_ack("endpoint", after=since, timeout=_PATIENCE).at]
    kinds = ("route", "cluster") if after else ("listener", "route", "cluster")
    there.extend(plane.wait_for_ack(kind, after=after, timeout=_PATIENCE).at for kind in kinds)
    return max(there)


def _say(what: object) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
