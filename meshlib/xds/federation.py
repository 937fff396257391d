"""Several control planes as one: whom to ask for which name, and what is in force of what they say (gRFC A47, A71).

Theory. There is a machine (`meshlib.xds.machine`) for each server, with a cache of its own, and a world (`meshlib.xds.world`) for each
choice of servers, with a graph. Whatever happens, the following is done until nothing changes any more:

    the worlds' graphs say what they want ──by authority──► each machine is told its share
            ▲                                                         │
            └── worlds are made, moved and let go ◄── each authority's fallback decides how many of its servers are open

The first world has each authority's first server. A further one is made when an authority opens a further server. It is let go when the
server above has answered and everything that waits there waits here as well: until then it serves what the server above has not
given yet, though its own server's stream is closed already.

Where there is one server that has everything, none of this is done: what the one graph wants is asked of the one machine.

Not thread-safe; pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import is_
from typing import TYPE_CHECKING

from meshlib.model.snapshot import Absence, Fate, Part
from meshlib.model.status import Rejected
from meshlib.xds.cache import Cache, State
from meshlib.xds.choice import Choice, choose
from meshlib.xds.directory import Directory
from meshlib.xds.fallback import Fallback
from meshlib.xds.graph import Graph
from meshlib.xds.machine import Machine
from meshlib.xds.names import TOP, federated
from meshlib.xds.values import AdsStatus, Interest, told_counts
from meshlib.xds.world import Space, World

if TYPE_CHECKING:
    from meshlib.xds.bootstrap import Server

__all__ = ["Federation", "Line"]

_WILD = "*"


@dataclass(slots=True)
class Line:
    """One server. ``failed``: its last stream could not be opened, or ended before an answer, for the reason ``error``; ``answers``: the
    last one that was opened has been answered; ``seen``: any ever was.
    """

    machine: Machine
    protocol: str
    failed: bool = False
    answers: bool = False
    seen: bool = False
    error: str = ""


class Federation:
    """``make`` gives a server's machine, by its number, the protocol, and the cache of another that it replaces. ``names``: the types'
    full names, by their short ones. ``give_way`` is called at steps of long work.
    """

    def __init__(
        self,
        directory: Directory,
        make: Callable[[int, str, Cache | None], Machine],
        protocol: str,
        view: str,
        source: str,
        names: Mapping[str, str],
        give_way: Callable[[], object] = bool,
    ) -> None:
        self.directory = directory
        self._make = make
        self._names = names
        self._view = view
        self.lines = [
            Line(make(number, protocol, None), protocol) for number in range(len(directory.servers))
        ]
        self._graph = partial(Graph, view=view, source=source, give_way=give_way)
        self.worlds = [World(self._space(), view, self._graph)]
        self.targets: dict[str, str] = {}
        self._fallbacks = {
            authority: Fallback(len(servers), eager=authority in directory.eager)
            for authority, servers in directory.of.items()
        }
        self._asked: tuple[Mapping[str, Interest], ...] = ()
        self._wanted: dict[str, set[tuple[str, str]]] = {}  # by authority: types and names, "*" for all
        self.misplaced: set[tuple[str, str]] = set()
        self._looked_at: dict[
            str, tuple[frozenset[str], frozenset[str]]
        ] = {}  # names, and those of them that are misplaced
        self._made_of: tuple[object, ...] = ()
        self._parts: tuple[Part, ...] = ()  # and of these
        self.choice = Choice((self.worlds[0].graph.part,), {}, self.worlds[0])

    @property
    def single(self) -> bool:
        """Whether there is one server, of which everything is asked."""
        return len(self.directory.servers) == 1

    def _space(self) -> Cache | Space:
        if self.single and self.directory.lenient:
            return self.lines[0].machine.cache
        return Space(self.directory, lambda number: self.lines[number].machine.cache, self._names)

    # --- what is wanted

    def want(self, name: str, authority: str) -> bool:
        if not self.worlds[0].graph.want(name, authority):
            return False
        for world in self.worlds[1:]:
            world.graph.want(name, authority)
        self.targets[name] = authority
        return True

    def forget(self, name: str) -> bool:
        self.targets.pop(name, None)
        forgotten = [world.graph.forget(name) for world in self.worlds]
        return any(forgotten)

    # --- what happens

    def replace(self, number: int, protocol: str) -> None:
        """A server is spoken to in another protocol from now on; what it has said stays."""
        line = self.lines[number]
        silence_tells = line.machine.silence_tells
        line.machine, line.protocol = self._make(number, protocol, line.machine.cache), protocol
        line.machine.silence_tells = silence_tells
        self._asked = ()

    def answered(self, number: int, *, seen: bool = True) -> None:
        """A server answered on its stream; or (not ``seen``) its stream stands though it need not say anything."""
        line = self.lines[number]
        line.seen, line.answers = line.seen or seen, True
        line.failed, line.error = False, ""

    def failed(self, number: int, error: str) -> None:
        """A stream could not be opened, or ended without an answer."""
        line = self.lines[number]
        line.failed, line.answers, line.error = True, False, error

    def put(self, short: str, name: str, server: Server | None) -> None:
        """The resource comes from that server from now on; None: from whom its name says."""
        if server is None:
            if self.directory.moved.pop((short, name), None) is not None:
                self._asked = ()
            return
        key, new = self.directory.enlist(server)
        if new:
            self._fallbacks[key] = Fallback(1)
        for number in range(len(self.lines), len(self.directory.servers)):
            self.lines.append(Line(self._make(number, self.lines[0].protocol, None), self.lines[0].protocol))
        if self.directory.moved.get((short, name)) != key:
            self.directory.moved[short, name] = key
            self._asked = ()

    def _widen(self, now: float) -> None:
        """There was one server, and are several now."""
        for world in self.worlds:
            if not self.single and isinstance(world.cache, Cache):
                world.cache = self._space()
                world.rebuild(self.targets, now, self._names)

    def shut(self, number: int, now: float) -> None:
        """Its stream is closed, since nobody relies on it: how it is now is not known any more."""
        line = self.lines[number]
        line.machine.closed(now)
        line.failed = line.answers = False
        line.error = ""

    def take(self, number: int, now: float) -> None:
        """Takes into the graphs what a machine has changed. Also where that is nothing: all that there is may be known now."""
        self._widen(now)
        changed = self.lines[number].machine.changed()
        for world in self.worlds:
            world.update(number, changed, now)

    def settle(self, now: float) -> None:
        """Asks, opens, closes and chooses, as the theory above has it."""
        if self.single:
            self._ask_the_one()
        else:
            while True:
                self._ask()
                if not (self._open(now) or self._let_go(now)):
                    break
        self._choose()

    @property
    def open(self) -> frozenset[int]:
        """The servers to which there is to be a stream."""
        if self.single:
            return frozenset((0,))
        return frozenset(
            self.directory.of[authority][place]
            for authority, fallback in self._fallbacks.items()
            for place in range(fallback.opened)
        )

    def only_secrets(self, number: int) -> bool:
        """Whether nothing but secrets is asked of a server that a resource names."""
        asked = (
            self._wanted.get(key, ()) for key, numbers in self.directory.of.items() if numbers == (number,)
        )
        return {short for names in asked for short, _ in names} == {"secret"}

    # --- who is asked

    def _ask_the_one(self) -> None:
        """Where there is one server, everything is asked of it but what is no name, or of an authority that nobody has."""
        interests = self.worlds[0].graph.interests()
        if self._asked and interests is self._asked[0]:
            return
        self._asked = (interests,)
        self.misplaced = set()
        for short, interest in interests.items():
            before = self._looked_at.get(short, (frozenset(), frozenset()))
            wrong = before[1] & interest.names | self._wrong(short, interest.names - before[0])
            self._looked_at[short] = (interest.names, wrong)
            self.misplaced.update((short, name) for name in wrong)
            names = interest.names - wrong
            asked = Interest(interest.wildcard, names, interest.expected) if wrong else interest
            self.lines[0].machine.set_interest(short, asked)

    def _wrong(self, short: str, names: Iterable[str]) -> frozenset[str]:
        new = (name for name in names if federated(name))
        return frozenset(name for name in new if self.directory.misfit(short, name, self._names[short]))

    def _ask(self) -> None:
        asked = tuple(world.graph.interests() for world in self.worlds)
        if len(asked) == len(self._asked) and all(
            one is other for one, other in zip(asked, self._asked, strict=True)
        ):
            return
        self._asked = asked
        self._wanted = {}
        self.misplaced = set()
        shares: dict[int, dict[str, tuple[set[str], set[str]]]] = {
            number: {short: (set(), set()) for short in self._names} for number in range(len(self.lines))
        }
        for world, interests in zip(self.worlds, asked, strict=True):
            for short, interest in interests.items():
                self._divide(world, short, interest, shares)
        for number, share in shares.items():
            for short, (names, expected) in share.items():
                wild = _WILD in names
                names.discard(_WILD)
                made = Interest(wild, frozenset(names), frozenset(expected))
                self.lines[number].machine.set_interest(short, made)

    def _divide(
        self,
        world: World,
        short: str,
        interest: Interest,
        shares: Mapping[int, Mapping[str, tuple[set[str], set[str]]]],
    ) -> None:
        space = world.cache
        assert isinstance(space, Space)
        if interest.wildcard:
            shares[space.number(TOP)][short][0].add(_WILD)
            self._wanted.setdefault(TOP, set()).add((short, _WILD))
        for name in interest.names | interest.expected:
            authority = self.directory.authority(short, name)
            if authority is None or self.directory.misfit(short, name, self._names[short]):
                self.misplaced.add((short, name))
                continue
            # What a wildcard should bring is not named, unless it is of an authority that the wildcard is not asked of.
            named = name in interest.names or authority != TOP
            shares[space.number(authority)][short][0 if named else 1].add(name)
            if named:
                self._wanted.setdefault(authority, set()).add((short, name))

    # --- who is open

    def _open(self, now: float) -> bool:
        """Settles each authority's fallback; True if anything is asked of others than before."""
        changed = False
        for authority, fallback in self._fallbacks.items():
            lines = [self.lines[number] for number in self.directory.of[authority]]
            changed |= fallback.settle(
                # Without anything else to be asked the top-level servers tell whether a control plane is there.
                wanted=authority in self._wanted or (authority == TOP and not self._wanted),
                lacks=lambda authority=authority: self._lacks(authority),  # type: ignore[misc]
                failed=lambda place, lines=lines: lines[place].failed,  # type: ignore[misc]
                answers=lambda place, lines=lines: lines[place].answers,  # type: ignore[misc]
            )
        return changed and self._deepen(now)

    def _deepen(self, now: float) -> bool:
        """Makes the worlds that the open servers need; True if there are more, or others are asked in one."""
        deepest = max((fallback.opened - 1 for fallback in self._fallbacks.values()), default=0)
        while len(self.worlds) <= deepest:
            self.worlds.append(World(self._space(), self._view, self._graph))
        moved = False
        for level, world in enumerate(self.worlds[1:], 1):
            levels = {
                authority: max(
                    world.levels.get(authority, 0), min(level, fallback.opened - 1, fallback.count - 1)
                )
                for authority, fallback in self._fallbacks.items()
            }
            if levels != world.levels:
                self._move(world, levels, now)
                moved = True
        return moved

    def _let_go(self, now: float) -> bool:
        """Moves authorities back whose better server is there and has as much; True if any was."""
        moved = False
        for level, world in reversed([*enumerate(self.worlds)][1:]):
            levels = dict(world.levels)
            for authority, fallback in self._fallbacks.items():
                above = max(0, min(level, fallback.opened - 1))
                if above < levels.get(authority, 0) and self._as_good(authority, self.worlds[above], world):
                    levels[authority] = above
            if levels == world.levels:
                continue
            moved = True
            self._move(world, levels, now)
        while len(self.worlds) > 1 and not any(self.worlds[-1].levels.values()):
            self.worlds.pop()
            self._asked = ()
            moved = True
        if moved:
            self._drop_unused()
        return moved

    def _as_good(self, authority: str, above: World, below: World) -> bool:
        if authority not in self._wanted:
            return True
        if authority == TOP and self._view != "target" and below.whole and not above.whole:
            return False
        return frozenset(above.graph.waiting()) <= frozenset(below.graph.waiting())

    def _move(self, world: World, levels: Mapping[str, int], now: float) -> None:
        world.levels.clear()
        world.levels.update(levels)
        world.rebuild(self.targets, now, self._names)
        self._asked = ()

    def _drop_unused(self) -> None:
        """What a server that is no longer asked has said is forgotten: it may be old when it is asked again."""
        used = {
            world.cache.number(authority)
            for world in self.worlds
            for authority in self.directory.of
            if isinstance(world.cache, Space)
        }
        for number, line in enumerate(self.lines):
            if number not in used and line.seen:
                self.lines[number] = Line(self._make(number, line.protocol, None), line.protocol)

    def _lacks(self, authority: str) -> bool:
        """Whether anything that is wanted of an authority is known to none of its open servers (FB-01, FB-07); for a secret alone nobody else is asked."""
        return any(short != "secret" for short, _ in self.unknown(authority))

    def unknown(self, authority: str) -> Sequence[tuple[str, str]]:
        """What is wanted of an authority, and known to none of its open servers: types and names."""
        servers = self.directory.of[authority][: max(1, self._fallbacks[authority].opened)]
        caches = [self.lines[number].machine.cache for number in servers]
        return [
            (short, name)
            for short, name in sorted(self._wanted.get(authority, ()))
            if not any(_knows(cache, short, name) for cache in caches)
        ]

    # --- what there is to say

    def serving(self, name: str) -> World:
        """The world of a target; the first where there is no choice."""
        return self.choice.serves.get(name, self.worlds[0])

    def waiting(self) -> tuple[str, ...]:
        if len(self.worlds) == 1:
            return self.worlds[0].graph.waiting()
        waiting = {id(world): frozenset(world.graph.waiting()) for world in self.worlds}
        return tuple(name for name in self.targets if name in waiting[id(self.serving(name))])

    def lacking(self) -> tuple[str, ...]:
        serving = {id(world): world for world in (*self.choice.serves.values(), self.choice.sidecar)}
        return tuple(dict.fromkeys(words for world in serving.values() for words in world.graph.lacking()))

    def status(self, now: float) -> AdsStatus:
        """Of all servers, as one: what the first of them says of a type stands before the others'."""
        each = [self.lines[number].machine.status(now) for number in sorted(self.open)]
        misplaced = tuple(
            Rejected(name, short, (self.directory.misfit(short, name, self._names[short]),))
            for short, name in sorted(self.misplaced)
        )
        if self.single:
            return replace(each[0], rejected=(*each[0].rejected, *misplaced)) if misplaced else each[0]
        unknown = sorted({item for authority in self._wanted for item in self.unknown(authority)})
        versions: dict[str, str] = {}
        for status in reversed(each):
            versions.update(status.versions)
        return AdsStatus(
            any(status.connected for status in each),
            any(status.answered for status in each),
            versions,
            told_counts({short: len(names) for short, names in self.held(self.open).items()}),
            tuple(f"{short} {name}" for short, name in unknown if name != _WILD),
            next((status.last_error for status in each if status.last_error), ""),
            (*(item for status in each for item in status.rejected), *misplaced),
            tuple(item for status in each for item in status.ignored),
        )

    def held(self, servers: Iterable[int]) -> dict[str, set[str]]:
        """The names of what these servers have, by type."""
        caches = [self.lines[number].machine.cache for number in servers]
        return {short: {name for cache in caches for name in cache.names(short)} for short in self._names}

    # --- who serves

    @property
    def exhausted(self) -> bool:
        """Whether nobody is left whom something new that is wanted could be asked of."""
        return all(
            found.opened == found.count
            for each, found in self._fallbacks.items()
            if found.opened or each == TOP
        )

    @property
    def last(self) -> frozenset[int]:
        """Of each authority of which anything is wanted the server that is relied on."""
        return frozenset(self.relied_on(each) for each, found in self._fallbacks.items() if found.opened)

    def relied_on(self, authority: str) -> int:
        """The last of an authority's servers that is open: nobody is behind it."""
        return self.directory.of[authority][max(0, self._fallbacks[authority].opened - 1)]

    def authority(self, name: str) -> str:
        """Of a target; the top-level servers' where there is none."""
        return self.directory.authority("listener", name) or TOP

    def _choose(self) -> None:
        if self.single or (len(self.worlds) == 1 and not any(line.failed for line in self.lines)):
            part = self.worlds[0].graph.part
            if not _same(self.choice.parts, (part,)) or len(self.choice.serves):
                self._made_of = ()
                self.choice = Choice((part,), {}, self.worlds[0])
            return
        parts = tuple(world.graph.part for world in self.worlds)
        made_of = (
            *(world.whole for world in self.worlds),
            *((line.failed, line.seen) for line in self.lines),
            *(frozenset(world.graph.waiting()) for world in self.worlds),
            tuple(self.targets),
        )
        if made_of == self._made_of and _same(parts, self._parts):
            return
        self._made_of, self._parts = made_of, parts
        made = choose(
            self.worlds,
            {name: self._order(self.authority(name)) for name in self.targets},
            self._order(TOP),
            lambda world, name: self._line_of(world, self.authority(name) if name else TOP).seen,
            self._outages(),
        )
        self.choice = made.with_what_was(self.choice)

    def _line_of(self, world: World, authority: str) -> Line:
        assert isinstance(world.cache, Space)
        return self.lines[world.cache.number(authority)]

    def _order(self, authority: str) -> list[World]:
        if authority not in self.directory.eager:
            return self.worlds
        return sorted(self.worlds, key=lambda world: self._line_of(world, authority).failed)

    def _outages(self) -> dict[str, Absence]:
        """Why targets that have not come will not come now, where that is so for their authority alone."""
        if all(self.lines[number].failed for number in self.last):
            return {}  # then all that is wanted waits in vain
        found = {}
        for name in self.targets:
            line = self.lines[self.relied_on(self.authority(name))]
            if line.failed:
                uri = self.directory.servers[self.relied_on(self.authority(name))].uri
                why = f"listener {name!r} has not come yet, and the control plane {uri} is not reachable: {line.error}"
                found[name] = Absence(Fate.UNANSWERED, why)
        return found


def _knows(cache: Cache, short: str, name: str) -> bool:
    if name == _WILD:
        return short in cache.listed
    entry = cache.get(short, name)
    return entry is not None and entry.state is not State.REQUESTED


def _same(parts: tuple[Part, ...], others: tuple[Part, ...]) -> bool:
    """Whether they are the same objects: to compare what is in them would go through every endpoint."""
    return len(parts) == len(others) and all(map(is_, parts, others))
