"""Greenlets on one HTTP/2 connection: ``python gevent_http2.py PORT``, of Go's server. Some are killed, some run into a
``gevent.Timeout``; prints what became of the others and of the connection.
"""

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402
import random  # noqa: E402
import sys  # noqa: E402

import gevent  # noqa: E402

from meshlib.pools.bounds import Bounds  # noqa: E402
from meshlib.runtime.clock import MonotonicClock  # noqa: E402
from meshlib.wire.dial import Place, connect  # noqa: E402
from meshlib.wire.message import Outgoing  # noqa: E402

CLOCK = MonotonicClock()
BODY = random.Random(1).randbytes(300_000)


def bounds() -> Bounds:
    return Bounds(CLOCK, None, {"read": 20.0, "write": 20.0, "connect": 20.0})


def main() -> None:
    connection = connect(Place("127.0.0.1", int(sys.argv[1]), http1=False, http2=True), bounds())
    ended = {"done": 0, "wrong": 0, "killed": 0, "timeout": 0}

    def call(path: bytes, body: bytes | None) -> None:
        try:
            response = connection.send(Outgoing(b"POST", path, [(b"Host", b"a")], body), bounds())
            same = response.read() == (body or b"hello ")
            ended["done" if same else "wrong"] += 1
        except gevent.Timeout:
            ended["timeout"] += 1
        except gevent.GreenletExit:
            ended["killed"] += 1
            raise

    def bounded(seconds: float) -> None:
        with gevent.Timeout(seconds):
            call(b"/wait", None)

    call(b"/hello", None)
    dice = random.Random(7)
    for _ in range(10):
        uploads = [gevent.spawn(call, b"/echo", BODY) for _ in range(15)]
        waiting = [gevent.spawn(call, b"/wait", None) for _ in range(5)]
        late = [gevent.spawn(bounded, 0.02) for _ in range(5)]
        downloads = [gevent.spawn(call, b"/hello", None) for _ in range(15)]
        for victim in [*waiting, *dice.sample(uploads, 5)]:
            for _ in range(dice.randrange(30)):
                gevent.sleep(0)
            victim.kill()
        gevent.joinall(uploads + waiting + late + downloads)
    call(b"/hello", None)
    ended["free"] = connection.free() and connection.idle and not connection.closed
    ended["left"] = (
        len(connection._readers) + (connection._reader is not None) + (connection._writer is not None)
    )
    print(json.dumps(ended))


main()
