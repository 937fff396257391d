"""A control plane under real gevent: `python -m tests.support.gevent_xds JSON`, with commands as lines on standard input.

Each command is answered by a line of JSON. Calls go on from the first `calls` to `count`.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402
import os  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections import Counter  # noqa: E402
from typing import Any  # noqa: E402

ARGUMENT: dict[str, Any] = json.loads(sys.argv[1])

if ARGUMENT["prepared"]:
    import grpc.experimental.gevent

    grpc.experimental.gevent.init_gevent()

import gevent.event  # noqa: E402
from gevent.fileobject import FileObject  # noqa: E402

import meshlib  # noqa: E402
from tests.support.watch import Waiters  # noqa: E402


class Program:
    def __init__(self) -> None:
        self.mesh = meshlib.Mesh(
            {"xds": ARGUMENT["xds"], "services": {"local": {"endpoints": [ARGUMENT["local"]]}}}
        )
        self.client = meshlib.Client(mesh=self.mesh)
        self.found: Counter[str] = Counter()
        self.worst, self.ticks = 0.0, 0
        self.on = True
        self.turned = gevent.event.Event()
        gevent.spawn(self.tick)

    def tick(self) -> None:
        last = time.monotonic()
        while True:
            gevent.sleep(0.01)
            now = time.monotonic()
            self.worst, self.ticks, last = max(self.worst, now - last), self.ticks + 1, now
            if self.ticks > 20:
                self.turned.set()

    def caller(self) -> None:
        while self.on:
            try:
                self.found[str(self.client.get("http://reviews/").status_code)] += 1
            except meshlib.MeshError as error:
                self.found[repr(error)] += 1
            gevent.sleep(0.005)

    def call(self, host: str) -> Any:
        since = time.monotonic()
        try:
            said = self.client.get(f"http://{host}/").json()["name"]
        except meshlib.MeshError as error:
            said = f"{type(error).__name__}: {error}"
        return [said, time.monotonic() - since]

    def calls(self) -> None:
        self.worst = self.ticks = 0
        self.turned.clear()
        self.callers = [gevent.spawn(self.caller) for _ in range(5)]

    def count(self) -> Any:
        """What came of the calls; some time went by, in which the hub has turned."""
        self.turned.wait(10)
        self.on = False
        gevent.joinall(self.callers, timeout=30)
        return {"found": self.found, "worst": self.worst, "ticks": self.ticks}

    def reach(self, name: str) -> bool:
        """Whether a change reached it within 20 seconds."""
        store = self.mesh._runtime().store
        return store.wait(lambda _: self.call("reviews")[0] == name, 20.0)

    def killed(self) -> Any:
        """A call that waits for the control plane is killed; nobody waits on."""
        store = self.mesh._runtime().store
        waiters = Waiters(store)
        waiting = gevent.spawn(self.call, "nobody-knows-it")
        waiters.until(1)
        waiting.kill()
        return store.waiting

    def programs(self, count: str) -> Any:
        """So many programs are executed; the worst of their codes, and the state of the stream at the end."""
        codes = [subprocess.run(["true"], check=False).returncode for _ in range(int(count))]
        return [max(map(abs, codes)), self.state(20.0)]

    def state(self, patience: float = 0.0) -> str:
        def state() -> str:
            return next(one.state for one in self.mesh.status().sources if one.kind == "xds")

        self.mesh._runtime().store.wait(lambda _: state() == "ready", patience)
        return state()

    def becomes(self, state: str) -> bool:
        """Whether the control plane was in this state within 20 seconds."""
        store = self.mesh._runtime().store
        return store.wait(lambda _: self.state() == state, 20.0)

    def fork(self) -> Any:
        """What a child calls and knows."""
        reading, writing = os.pipe()
        pid = gevent.os.fork()
        if not pid:
            os.write(writing, json.dumps([self.call("reviews")[0], self.state(20.0)]).encode())
            self.mesh.close()
            os._exit(0)
        os.close(writing)
        with FileObject(reading, "rb") as pipe:
            said = json.loads(pipe.read())
        return [*said, os.waitpid(pid, 0)[1], self.call("reviews")[0], self.state(20.0)]

    def close(self) -> float:
        since = time.monotonic()
        self.mesh.close()
        return time.monotonic() - since


def main() -> None:
    program = Program()
    for line in FileObject(sys.stdin.buffer, "rb"):
        name, *arguments = line.decode().split()
        print(json.dumps(getattr(program, name)(*arguments)), flush=True)


if __name__ == "__main__":
    main()
