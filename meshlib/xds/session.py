"""A stream's machine and the graph of references, as one: what a driver of one control plane needs.

    session.want("reviews:9080")
    session.opened(now)
    while …:
        for message in session.outgoing(now): write(message)
        session.received(read(), now)
        … session.part …

`outgoing` is to be called after each `opened`, `received`, `want` and `forget`, when what it gives is really written.
Not thread-safe; pure: time and randomness are passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from meshlib.model.snapshot import Part
from meshlib.model.status import Rejected
from meshlib.xds import last_good
from meshlib.xds.ads import AdsMachine
from meshlib.xds.cache import Cache, State
from meshlib.xds.census import census
from meshlib.xds.decode import types
from meshlib.xds.delta import DeltaMachine
from meshlib.xds.graph import Graph
from meshlib.xds.istio import wants_grpc
from meshlib.xds.machine import Machine
from meshlib.xds.schema import WireMessage
from meshlib.xds.values import AdsStatus, Received, ServerFeatures

__all__ = ["VIEWS", "ServerFeatures", "Session", "wants_grpc"]

VIEWS = ("auto", "sidecar", "target")
_MACHINES: Mapping[str, type[Machine]] = {"sotw": AdsMachine, "delta": DeltaMachine}


class Session:
    """`node`: an `envoy.config.core.v3.Node`, serialized or as message; `jitter`: gives a float in [0, 1).

    `view` "auto" asks by wildcard and by name on one stream; where the node asks for Istio's gRPC generator, which
    answers a wildcard otherwise, it is "target". `protocol`: "sotw" or "delta". `server` is for words only. `give_way`
    is called at steps of long work.
    Raises ValueError for a wrong argument.
    """

    def __init__(
        self,
        node: bytes | WireMessage,
        *,
        view: str = "auto",
        protocol: str = "sotw",
        jitter: Callable[[], float],
        features: ServerFeatures | None = None,
        server: str = "",
        source: str = "xds",
        give_way: Callable[[], object] = bool,
    ) -> None:
        if view not in VIEWS:
            raise ValueError(f"view must be one of {', '.join(VIEWS)}, not {view!r}")
        self.view = "target" if view == "auto" and wants_grpc(node) else view
        self.server = server
        self.seen = False
        self._types = types(self.view, give_way, trusted=features is not None and features.trusted_xds_server)
        self.protocol = protocol
        self._arguments = (node, self._types, jitter, features)
        self._machine = _MACHINES[protocol](*self._arguments)
        self._graph = Graph(self._machine.cache, self.view, source)
        self._ask()

    # --- what is wanted

    def want(self, name: str, authority: str = "") -> bool:
        """A target listener is wanted; `authority` is what its virtual hosts are held against (default: `name`).

        True if it was not wanted before; False also where the view has no targets.
        """
        return self._after(self._graph.want(name, authority))

    def forget(self, name: str) -> bool:
        """A target is wanted no more. True if it was."""
        return self._after(self._graph.forget(name))

    # --- what an earlier process had

    def restore(
        self, held: last_good.Held, now: float, give_way: Callable[[], object] = bool
    ) -> tuple[dict[str, set[str]], list[Rejected]]:
        """Puts what a file has of this view into force, until the server says what it has: the names by type, and what of
        it is refused. To be called before the first `opened`.
        """
        found, refused = last_good.restore(held, self.view, self.cache, self._types, give_way)
        self._graph.update(found, now)
        self._ask()
        return found, refused

    def believe_silence(self) -> None:
        """The server answers another session: where this one's stream is silent, there is nothing."""
        self._machine.silence_tells = True

    def contents(self, give_way: Callable[[], object] = bool) -> last_good.Contents | None:
        """What is in force, for a file. None while that is not all from the server, or waits for what it names. A target that
        has not come is no reason: there may be none.
        """
        kept = []
        for short, interest in self._graph.interests().items():
            if interest.wildcard and short not in self.cache.listed:
                return None
            if short != "listener" and not all(self._known(short, name) for name in interest.names):
                return None
            for entry in self.cache.entries(short):
                give_way()
                if entry.raw and entry.state is State.REQUESTED:
                    return None
                if entry.raw:
                    kept.append(last_good.Kept(short, entry.name, entry.version, entry.raw))
        listed, versions = frozenset(self.cache.listed), self._machine.status(0.0).versions
        return last_good.Contents(self._graph.targets, listed, versions, tuple(kept))

    def _known(self, short: str, name: str) -> bool:
        """Whether the server has said what it has of that name, or was silent for too long."""
        entry = self.cache.get(short, name)
        return entry is not None and entry.state is not State.REQUESTED

    # --- what happens

    def opened(self, now: float) -> None:
        """A stream is up."""
        self._machine.opened(now)

    def speak(self, protocol: str) -> None:
        """The next stream is of this protocol; what is known stays. No stream is up."""
        if protocol != self.protocol:
            self.protocol = protocol
            silence_tells = self._machine.silence_tells
            self._machine = _MACHINES[protocol](*self._arguments, self.cache)
            self._machine.silence_tells = silence_tells
            self._ask()

    def stands(self) -> None:
        """The stream stood for a while without an answer, and none is awaited: it is as good as one that has one."""
        self._machine.stands()

    def outgoing(self, now: float) -> list[bytes]:
        """Requests to write now, in order; each is given once."""
        return self._machine.outgoing(now)

    def received(self, raw: bytes, now: float) -> Received:
        """What came on the stream. Never raises. The next is to be read after `outgoing` was written (ST-10)."""
        found = self._machine.received(raw, now)
        self.seen = self.seen or bool(found.type)
        self._settle(now)
        return found

    def closed(self, now: float, error: str = "") -> float:
        """The stream ended, or could not be opened: the seconds to wait before the next try (ST-04)."""
        return self._machine.closed(now, error)

    def tick(self, now: float) -> bool:
        """Timers that are due. True if `part`, `waiting` or `pending` may say something else than before."""
        gone = self._graph.tick(now)
        due = self._machine.tick(now)
        if due or gone:
            self._settle(now)
        return due or gone

    def next_timer(self) -> float | None:
        """The `now` at which `tick` is due, None if it is not."""
        timers = (self._machine.next_timer(), self._graph.next_timer())
        return min((at for at in timers if at is not None), default=None)

    # --- what there is

    @property
    def part(self) -> Part:
        """What is in force: the same object until something changed."""
        return self._graph.part

    @property
    def revision(self) -> int:
        """Grows when `part` changed."""
        return self._graph.revision

    @property
    def cache(self) -> Cache:
        """Every resource with its raw bytes and version. To be read on the thread of the session."""
        return self._machine.cache

    def census(self) -> Mapping[tuple[str, str, str], int]:
        """How many resources there are, by a type's full name, authority and state."""
        return census(self.cache, self._types)

    def waiting(self) -> tuple[str, ...]:
        """Targets that are wanted, and neither there nor known not to come."""
        return self._graph.waiting()

    def lacking(self) -> tuple[str, ...]:
        """The clusters that routes name and that are known not to be there, in words."""
        return self._graph.lacking()

    @property
    def complete(self) -> bool:
        """Whether everything that is wanted is there, or known not to come."""
        wild = ("listener", "cluster") if self.view != "target" else ()
        listed = all(short in self.cache.listed for short in wild)
        return self.seen and listed and not self.waiting() and not self._machine.status(0.0).waiting

    def pending(self, name: str) -> str:
        """What a target still lacks, or why it will not come, in words; "" if it can be called."""
        return self._graph.pending(name)

    def status(self, now: float) -> AdsStatus:
        """A value, for `Mesh.status()`."""
        return self._machine.status(now)

    # --- together

    def _after(self, changed: bool) -> bool:
        if changed:
            self._ask()
        return changed

    def _settle(self, now: float) -> None:
        # Also where nothing changed: all that there is may be known now.
        self._graph.update(self._machine.changed(), now)
        self._ask()

    def _ask(self) -> None:
        for short, interest in self._graph.interests().items():
            self._machine.set_interest(short, interest)
