"""The machines of control planes and the graphs of references, as one: what a driver needs.

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
from dataclasses import replace
from typing import TYPE_CHECKING

from meshlib.model.cluster import Cluster
from meshlib.model.snapshot import Part
from meshlib.model.status import Rejected
from meshlib.xds import csds, last_good
from meshlib.xds.ads import AdsMachine
from meshlib.xds.bootstrap import Server
from meshlib.xds.cache import Cache, State
from meshlib.xds.census import census
from meshlib.xds.decode import types
from meshlib.xds.delta import DeltaMachine
from meshlib.xds.directory import Directory
from meshlib.xds.elsewhere import Sources
from meshlib.xds.federation import Federation, Line
from meshlib.xds.graph import Graph
from meshlib.xds.istio import wants_grpc
from meshlib.xds.machine import Machine
from meshlib.xds.names import TOP, canonical
from meshlib.xds.schema import WireMessage
from meshlib.xds.services import method
from meshlib.xds.values import AdsStatus, Received, ServerFeatures
from meshlib.xds.world import Space

if TYPE_CHECKING:
    from meshlib.xds.bootstrap import Bootstrap

__all__ = ["VIEWS", "ServerFeatures", "Session", "wants_grpc"]

VIEWS = ("auto", "sidecar", "target")
_MACHINES: Mapping[str, type[Machine]] = {"sotw": AdsMachine, "delta": DeltaMachine}


class Session:
    """`node`: an `envoy.config.core.v3.Node`, serialized or as message; `jitter`: gives a float in [0, 1).

    `view` "auto" asks by wildcard and by name on one stream; where the node asks for Istio's gRPC generator, which
    answers a wildcard otherwise, it is "target". `protocol`: "sotw" or "delta". `bootstrap`: the servers and who is asked for
    what; None: one, and `features` are its own. `at` is everywhere the server that something is about: its place among
    `servers`. `give_way` is called at steps of long work. `load_reports`: clusters may ask for those.
    `there`: whether something is at a path; `envoy_tls`: see `decode.report.Report`.
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
        bootstrap: Bootstrap | None = None,
        source: str = "xds",
        give_way: Callable[[], object] = bool,
        load_reports: bool = False,
        there: Callable[[str], bool] = bool,
        envoy_tls: bool = False,
    ) -> None:
        if view not in VIEWS:
            raise ValueError(f"view must be one of {', '.join(VIEWS)}, not {view!r}")
        self.view = "target" if view == "auto" and wants_grpc(node) else view
        self._node = node
        self._load_reports = load_reports
        self._jitter = jitter
        self._give_way = give_way
        self._features = features
        self._bootstrap = bootstrap
        self._there = there
        self._envoy_tls = envoy_tls
        # TL-02: where there is an identity, it answers for every instance.
        self._instances = (
            None if bootstrap is None or bootstrap.identified else frozenset(bootstrap.providers)
        )
        lenient = bootstrap is None or self.view != "target"
        if bootstrap is None:
            self._directory = Directory((Server(""),), {TOP: (0,)}, lenient=lenient)
        else:
            self._directory = Directory.read(bootstrap, lenient=lenient)
        self._own = len(self._directory.servers)
        trusted = (features or self._features_of(0)).trusted_xds_server
        self._types = types(self.view, give_way, trusted=trusted, server=self._reported_to(0))
        names = {kind.short: kind.full_name for kind in self._types}
        self._federation = Federation(
            self._directory, self._new, protocol, self.view, source, names, give_way
        )
        self._ask(0.0)

    def _new(self, number: int, protocol: str, cache: Cache | None) -> Machine:
        """A machine for a server: what it may say depends on whether it is trusted."""
        features = self._features or self._features_of(number)
        server = self._directory.servers[number]
        elsewhere = None
        if self._bootstrap is not None:
            elsewhere = Sources(
                self._bootstrap, server, self._put, lambda: self.servers[self._own :], self._there
            )
        kinds = types(
            self.view,
            self._give_way,
            trusted=features.trusted_xds_server,
            server=self._reported_to(number),
            elsewhere=elsewhere,
            instances=self._instances,
            envoy_tls=self._envoy_tls,
        )
        return _MACHINES[protocol](self._node, kinds, self._jitter, features, cache)

    def _put(self, short: str, name: str, server: Server | None) -> None:
        self._federation.put(short, name, server)

    def _reported_to(self, number: int) -> str:
        """Where the load of a server's clusters is reported to."""
        return self._directory.servers[number].uri if self._load_reports else ""

    def _features_of(self, number: int) -> ServerFeatures:
        return ServerFeatures.of(feature.value for feature in self._directory.servers[number].features)

    @property
    def servers(self) -> tuple[Server, ...]:
        """Each once, the first of the top level first."""
        return self._directory.servers

    @property
    def open(self) -> frozenset[int]:
        """The servers to which there is to be a stream now."""
        return self._federation.open

    # --- what is wanted

    def want(self, name: str, authority: str = "", now: float = 0.0) -> bool:
        """A target listener is wanted; `authority` is what its virtual hosts are held against (default: `name`).

        True if it was not wanted before; False also where the view has no targets.
        """
        return self._after(self._federation.want(canonical(name), authority or name), now)

    def forget(self, name: str, now: float = 0.0) -> bool:
        """A target is wanted no more. True if it was."""
        return self._after(self._federation.forget(canonical(name)), now)

    # --- what an earlier process had

    def restore(
        self, held: last_good.Held, now: float, give_way: Callable[[], object] = bool
    ) -> tuple[dict[str, set[str]], list[Rejected]]:
        """Puts what a file has of this view into force, until the server says what it has: the names by type, and what of
        it is refused. To be called before the first `opened`.
        """
        found, refused = last_good.restore(held, self.view, self.cache, self._types, give_way)
        for at in range(1, len(self.servers)):
            for entry in self.cache_of(at).entries("cluster"):
                cluster = entry.value
                if isinstance(cluster, Cluster) and cluster.load_report is not None:
                    report = replace(cluster.load_report, server=self._reported_to(at))
                    entry.value = replace(cluster, load_report=report)
        self._graph.update(found, now)
        self._ask(now)
        return found, refused

    def believe_silence(self, at: int = 0) -> None:
        """The server answers another session: where this one's stream is silent, there is nothing."""
        self._line(at).machine.silence_tells = True

    def contents(self, give_way: Callable[[], object] = bool) -> last_good.Contents | None:
        """What is in force, for a file. None while that is not all from the servers that are asked first, or waits for what it names.
        A target that has not come is no reason: there may be none.
        """
        kept = []
        if len(self._federation.worlds) > 1:
            return None
        for short, interest in self._graph.interests().items():
            if short == "secret":
                continue  # none of them goes to a disk, and nothing in force waits for one
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
        listed, versions = frozenset(self.cache.listed), dict(self.status(0.0).versions)
        versions.pop("secret", None)
        return last_good.Contents(self._graph.targets, listed, versions, tuple(kept))

    def _known(self, short: str, name: str) -> bool:
        """Whether the server has said what it has of that name, or was silent for too long."""
        entry = self.cache.get(short, name)
        return entry is not None and entry.state is not State.REQUESTED

    # --- what happens

    def opened(self, now: float, at: int = 0) -> None:
        """A stream is up."""
        self._line(at).machine.opened(now)

    def speak(self, protocol: str, at: int = 0) -> None:
        """The next stream is of this protocol; what is known stays. No stream is up."""
        if protocol != self._line(at).protocol:
            self._federation.replace(at, protocol)
            self._ask(0.0)

    def protocol(self, at: int = 0) -> str:
        """What its next stream speaks."""
        return self._line(at).protocol

    def method(self, at: int) -> str:
        """The method of its next stream, where that is not of aggregated discovery: a server that a resource names for secrets alone
        may have no other service, as agents have.
        """
        if at < self._own or not self._federation.only_secrets(at):
            return ""
        return method("v3", "secret", "Delta" if self.protocol(at) == "delta" else "Stream")

    def stands(self, now: float = 0.0, at: int = 0) -> None:
        """The stream stood for a while without an answer, and none is awaited: it is as good as one that has one."""
        self._line(at).machine.stands()
        self._federation.answered(at, seen=False)
        self._ask(now)

    def outgoing(self, now: float, at: int = 0) -> list[bytes]:
        """Requests to write now, in order; each is given once."""
        return self._line(at).machine.outgoing(now)

    def received(self, raw: bytes, now: float, at: int = 0) -> Received:
        """What came on the stream. Never raises. The next is to be read after `outgoing` was written (ST-10)."""
        found = self._line(at).machine.received(raw, now)
        if found.type:
            self._federation.answered(at)
        self._settle(now, at)
        return found

    def closed(self, now: float, error: str = "", at: int = 0) -> float:
        """The stream ended, or could not be opened: the seconds to wait before the next try (ST-04)."""
        line = self._line(at)
        blamed = not line.machine.status(now).answered
        delay = line.machine.closed(now, error)
        if blamed:
            self._federation.failed(at, error or "the stream ended before the server answered")
        self._ask(now)
        return delay

    def shut(self, now: float, at: int) -> None:
        """Its stream was closed, since it is not among those that are `open`."""
        self._federation.shut(at, now)

    def tick(self, now: float) -> bool:
        """Timers that are due. True if `part`, `waiting` or `pending` may say something else than before."""
        gone = [world.graph.tick(now) for world in self._federation.worlds]
        due = [line.machine.tick(now) for line in self._federation.lines]
        for at, late in enumerate(due):
            if late:
                self._federation.take(at, now)
        if any(gone) or any(due):
            self._settle(now, 0)
        return any(due) or any(gone)

    def next_timer(self) -> float | None:
        """The `now` at which `tick` is due, None if it is not."""
        federation = self._federation
        timers = [line.machine.next_timer() for line in federation.lines]
        timers += [world.graph.next_timer() for world in federation.worlds]
        return min((at for at in timers if at is not None), default=None)

    # --- what there is

    @property
    def part(self) -> Part:
        """What is in force of the servers that are asked first: the same object until something changed."""
        return self._federation.choice.parts[0]

    @property
    def parts(self) -> tuple[Part, ...]:
        """All that is in force: `part`, and one for each choice of other servers that something has to be taken from."""
        return self._federation.choice.parts

    @property
    def revision(self) -> int:
        """Grows when `part` changed."""
        return self._graph.revision

    @property
    def seen(self) -> bool:
        """Whether a server ever said anything."""
        return any(line.seen for line in self._federation.lines)

    @property
    def cache(self) -> Cache | Space:
        """Every resource of the servers that are asked first, with its raw bytes and version. To be read on the thread of the
        session.
        """
        return self._federation.worlds[0].cache

    def cache_of(self, at: int) -> Cache:
        """The same of one server."""
        return self._line(at).machine.cache

    def census(self, at: int = 0) -> Mapping[tuple[str, str, str], int]:
        """How many resources a server's are, by a type's full name, authority and state."""
        return census(self.cache_of(at), self._types)

    def look(self, epoch: float) -> tuple[csds.Client, ...]:
        """All that there is, for the client status service: of each server, the one that is asked first at the end. `epoch`: what makes
        monotonic seconds those since 1970.
        """
        node = self._node if isinstance(self._node, bytes) else bytes(self._node.SerializeToString())
        servers = reversed(range(len(self.servers)))
        return tuple(csds.look(node, epoch, self.cache_of(at), self._types) for at in servers)

    def waiting(self) -> tuple[str, ...]:
        """Targets that are wanted, and neither there nor known not to come."""
        return self._federation.waiting()

    def lacking(self) -> tuple[str, ...]:
        """The clusters that routes name and that are known not to be there, in words."""
        return self._federation.lacking()

    @property
    def complete(self) -> bool:
        """Whether everything that is wanted is there, or known not to come; secrets, for which no start waits, aside."""
        wild = ("listener", "cluster") if self.view != "target" else ()
        listed = all(short in self._federation.choice.sidecar.cache.listed for short in wild)
        return self.seen and listed and not self.waiting() and not self.status(0.0).owes

    def quiet(self, at: int = 0) -> bool:
        """Whether a server that has answered owes nothing: what is wanted of it is there, or known not to come."""
        if self._federation.single:
            return self.complete
        line = self._line(at)
        return line.seen and not line.machine.status(0.0).owes

    def pending(self, name: str) -> str:
        """What a target still lacks, or why it will not come, in words; "" if it can be called."""
        return self._federation.serving(name).graph.pending(name)

    def relied_on(self, name: str = "") -> int:
        """The server behind which there is none to ask for a target, as things stand (FB-03); "": of the top level."""
        return self._federation.relied_on(self._federation.authority(name))

    def relies_on(self, at: int) -> bool:
        """Whether there is none to ask behind that server for anything that is wanted."""
        return self._federation.single or at in self._federation.last

    @property
    def exhausted(self) -> bool:
        """Whether there is no server left to ask for what is not known: an outage is one for what comes, too (FB-03)."""
        return self._federation.single or self._federation.exhausted

    def held(self, at: int | None = None) -> Mapping[str, frozenset[str]]:
        """The names of all that a server has, or those do to which there are streams, by type."""
        servers = self.open if at is None else (at,)
        return {short: frozenset(names) for short, names in self._federation.held(servers).items()}

    def status(self, now: float, at: int | None = None) -> AdsStatus:
        """A value, for `Mesh.status()`: of one server, or of all of them."""
        if at is not None:
            return self._line(at).machine.status(now)
        return self._federation.status(now)

    # --- together

    @property
    def _graph(self) -> Graph:
        return self._federation.worlds[0].graph

    @property
    def _machine(self) -> Machine:
        return self._line(0).machine

    def _line(self, at: int) -> Line:
        return self._federation.lines[at]

    def _after(self, changed: bool, now: float) -> bool:
        if changed:
            self._ask(now)
        return changed

    def _settle(self, now: float, at: int) -> None:
        self._federation.take(at, now)
        self._ask(now)

    def _ask(self, now: float) -> None:
        self._federation.settle(now)
