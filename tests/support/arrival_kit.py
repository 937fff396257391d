"""A control plane whose answers come type by type, on a virtual clock, and what calls meet meanwhile.

`Scene` runs the real source, merge, runtime, view and plan; only the stream and the time are the test's.
"""

from __future__ import annotations

from meshlib.config import Config
from meshlib.core.effects import Call, Finish, Pass, Reply, Send, Wait
from meshlib.core.plan import Plan
from meshlib.core.resolve import Rules
from meshlib.model.call import Head
from meshlib.runtime.runtime import Runtime
from meshlib.runtime.worker import Worker
from meshlib.sources.merge import Merge
from meshlib.sources.xds_pair import xds_source
from meshlib.testing import build
from meshlib.testing.clock import VirtualClock
from meshlib.xds.bootstrap import Bootstrap, Node, Server
from tests.support.xds_kit import REQUEST, response

__all__ = ["Scene"]

SERVER = "10.0.0.1:18000"
PATIENCE = 5.0  # seconds: a call's connect timeout


def resources():
    """By type: a listener for an Envoy at 127.0.0.1:80 and a target `reviews`, with the same routes and cluster."""
    host = build.virtual_host(
        "v",
        build.route("/forbidden", respond=(403, "")),
        build.route("/gone", cluster="gone"),
        build.route("/", cluster="c"),
        domains=["reviews", "127.0.0.1"],
    )
    return {
        "listener": [build.listener("l", "r", address="127.0.0.1:80"), build.api_listener("reviews", "r")],
        "route": [build.route_config("r", host)],
        "cluster": [build.cluster("c")],
        "endpoint": [build.endpoints("c", "10.0.0.9:80")],
    }


class Scripted:
    """A stream to a server that answers what it was asked, for the types that it gives out."""

    def __init__(self, scene, ears):
        self._scene = scene
        self._ears = ears
        self._asked = {}
        self._answered = {}
        self._nonce = 0
        scene.streams.append(self)
        if scene.up:
            scene.post(lambda: ears.on_ready(self))

    def send(self, raw):
        request = REQUEST.FromString(raw)
        short = next(short for short, url in self._scene.urls.items() if url == request.type_url)
        self._asked[short] = tuple(request.resource_names)
        self._scene.post(lambda: self.answer(short))

    def answer(self, short):
        """What is asked for and given out, once."""
        there = self._scene.given.get(short)
        if short not in self._asked or there is None:
            return
        names = self._asked[short]
        found = [each for each in there if not names or build_name(each) in names]
        if not names and short == "listener":
            found = [each for each in found if "api_listener" not in each]
        key = (names, tuple(map(id, found)))
        if key != self._answered.get(short) and (found or short in ("listener", "cluster")):
            self._answered[short] = key
            self._nonce += 1
            self._ears.on_message(self, response(short, *found, nonce=str(self._nonce)))

    def end(self, error):
        self._ears.on_end(self, error)

    def consumed(self):
        pass

    def cancel(self, timeout=0.5):
        pass


def build_name(resource):
    return resource.get("name") or resource.get("clusterName") or resource["cluster_name"]


class Scene:
    """A runtime with one control plane, of which nothing is given out yet. `up`: it takes streams."""

    def __init__(self, view, *, up=True, **rules):
        from meshlib.xds import schema

        self.urls = schema.TYPE_URLS
        self.view = view
        self.up = up
        self.given = {}
        self.streams = []
        self.events = []
        self.clock = VirtualClock(1000.0)
        self.worker = Worker(self.clock)
        bootstrap = Bootstrap((Server(SERVER),), Node("me"))

        def opener(server, ears, post, protocol):
            return Scripted(self, ears)

        self.runtime = Runtime(
            Config(),
            Rules(has_xds=True, view=view, server=SERVER, **rules),
            Merge(lambda merge: [xds_source(merge, bootstrap, view, opener, protocol="sotw")]),
            clock=self.clock,
            workers=self,
            observers=(self.events.append,),
        )
        self.step()

    # --- what a runtime takes its worker from

    def acquire(self):
        return self.worker

    def release(self, worker, timeout=1.0, *, for_now=False):
        pass

    def post(self, work):
        self.worker.post(work)

    # --- time and the server

    def step(self, seconds=0.0):
        goal = self.clock.now() + seconds
        while True:
            wait = self.worker.run_due()
            if wait is None or self.clock.now() + wait > goal:
                break
            self.clock.advance(wait)
        self.clock.advance(goal - self.clock.now())
        self.worker.run_due()

    def give(self, short, *given):
        """From now on the server gives out this type: `given`, or what there is."""
        self.given[short] = list(given) or resources()[short]
        for stream in self.streams:
            self.post(lambda stream=stream: stream.answer(short))
        self.step()

    def take(self, short):
        """The server has nothing of this type any more, and says so."""
        self.given[short] = []
        for stream in self.streams:
            self.post(lambda stream=stream: stream.answer(short))
        self.step()

    def end(self, error):
        """Every stream ends; new ones fail alike."""
        self.up = False
        for stream in self.streams:
            self.post(lambda stream=stream: stream.end(error))
        self.step()

    # --- calls

    def call(self, url):
        """What a call meets now: the endpoint, "direct", a status that the configuration orders, "wait", "failed", or the
        status that Envoy has for the failure."""
        place, head = _asked(url)
        found = self.runtime.view.resolve(*place)
        self.runtime.want(found.name, place[3])
        self.step()
        found = self.runtime.view.resolve(*place)
        if found.via == "wait" and self.runtime.patience(found, PATIENCE) > 0:
            return "wait"
        return self._ends(self.runtime.settled(*place, self.clock.now()), head, PATIENCE)

    def last(self, url):
        """The same for a call whose patience is at its end."""
        place, head = _asked(url)
        return self._ends(self.runtime.settled(*place, self.clock.now()), head, 0.0)

    def reason(self, url):
        return self.runtime.settled(*_asked(url)[0], self.clock.now()).reason

    def _ends(self, found, head, wait):
        if found.via != "mesh":
            return found.via
        effect = Plan(Call(found, head, wait=wait), self.runtime.env).start(self.clock.now())
        if isinstance(effect, Send):
            return effect.endpoint.name
        if isinstance(effect, Reply):
            return effect.response.status
        if isinstance(effect, Finish):
            return effect.response.status
        assert isinstance(effect, Wait | Pass)
        return type(effect).__name__.lower()


def _asked(url):
    scheme, _, rest = url.partition("://")
    authority, _, path = rest.partition("/")
    host, _, port = authority.partition(":")
    return (scheme, host, int(port) if port else None, authority), Head("GET", scheme, authority, "/" + path)
