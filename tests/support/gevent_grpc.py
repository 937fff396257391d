"""gRPC channels of the mesh under real gevent: `python -m tests.support.gevent_grpc NAME JSON`, where JSON is its argument; `prepared`
in it says whether grpc is.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import contextvars  # noqa: E402
import gc  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections import Counter  # noqa: E402
from typing import Any  # noqa: E402

ARGUMENT: dict[str, Any] = json.loads(sys.argv[2])

if ARGUMENT["prepared"]:
    import grpc.experimental.gevent

    grpc.experimental.gevent.init_gevent()

import gevent  # noqa: E402
import grpc  # noqa: E402

import meshlib  # noqa: E402
import meshlib.grpc  # noqa: E402
from tests.support.gevent_calls import Stop, Ticks  # noqa: E402
from tests.support.watch import Watch  # noqa: E402

HELD = [("x-upstream-order", json.dumps({"hold": "head"}))]
SLOW = [("x-upstream-order", json.dumps({"delay": 0.2, "messages": 3}))]


def ways(channel: Any) -> dict[str, Any]:
    """Each kind of call; what it gives is how many messages came."""
    options = {"timeout": 30, "metadata": SLOW}
    sent = [b"m"] * 3
    return {
        "unary": lambda: len([channel.unary_unary("/s/m")(b"m", **options)]),
        "future": lambda: len([channel.unary_unary("/s/m").future(b"m", **options).result()]),
        "server stream": lambda: len(list(channel.unary_stream("/s/UnaryStream")(b"m", **options))),
        "client stream": lambda: len([channel.stream_unary("/s/StreamUnary")(iter(sent), **options)]),
        "both": lambda: len(list(channel.stream_stream("/s/StreamStream")(iter(sent), **options))),
    }


def ended(way: Any) -> str:
    try:
        return str(way())
    except grpc.RpcError as error:
        return f"{type(error).__name__}: {error}"


def crowd(mesh: meshlib.Mesh) -> Any:
    """20 greenlets in each way at once."""
    since = time.monotonic()
    with Ticks() as ticks, meshlib.grpc.channel("stock", mesh=mesh) as channel:
        calls = {name: [gevent.spawn(ended, way) for _ in range(20)] for name, way in ways(channel).items()}
        gevent.joinall([call for each in calls.values() for call in each], timeout=60)
    found = {name: Counter(call.value for call in each) for name, each in calls.items()}
    return {"found": found, "seconds": time.monotonic() - since, "ticks": ticks.count, "active": active(mesh)}


def killed(mesh: meshlib.Mesh) -> Any:
    """Greenlets that wait for a server are killed, and others come to a deadline: what they held is given back."""
    watch = Watch(mesh)
    with Ticks() as ticks, meshlib.grpc.channel("stock", mesh=mesh) as channel:
        unary, stream = channel.unary_unary("/s/m"), channel.unary_stream("/s/UnaryStream")
        doing = [lambda: unary(b"m", metadata=HELD), lambda: list(stream(b"m", metadata=HELD))]
        waiting = [gevent.spawn(way) for way in doing for _ in range(10)]
        watch.until(lambda: active(mesh) == len(waiting))
        gevent.killall(waiting, Stop())
        waiting.clear()
        gc.collect()  # a stream that nobody reads any more ends when it is collected, as grpc's own
        watch.until(lambda: active(mesh) == 0)
        with meshlib.deadline(0.3):
            context = contextvars.copy_context()
        late = [
            gevent.spawn(context.copy().run, ended, lambda: unary(b"m", metadata=HELD)) for _ in range(20)
        ]
        gevent.joinall(late, timeout=30)
        after = [ended(way) for way in ways(channel).values()]
    codes = Counter(str(one.value).partition(":")[0] for one in late)
    return {"late": codes, "after": after, "ticks": ticks.count, "active": active(mesh)}


def refused(mesh: meshlib.Mesh) -> Any:
    with Ticks() as ticks, meshlib.grpc.channel("stock", mesh=mesh) as channel:
        found = {name: ended(way) for name, way in ways(channel).items()}
    return {"found": found, "worst": ticks.worst, "active": active(mesh)}


def active(mesh: meshlib.Mesh) -> int:
    return sum(cluster.active for cluster in mesh.status().clusters.values())


PROGRAMS = {program.__name__: program for program in (crowd, killed, refused)}


def main() -> None:
    with meshlib.Mesh(ARGUMENT["config"]) as mesh:
        found = PROGRAMS[sys.argv[1]](mesh)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
