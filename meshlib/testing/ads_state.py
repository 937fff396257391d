"""What a control plane serves, and what it owes to each stream: pure, no thread, no socket.

A `State` holds the resources. Each stream has one `Sotw` or `Delta` a resource type, which takes requests and changes of
the state and says what to answer, or None. The rules are those of Envoy's xDS protocol page (checklist SW, DL):

- Listener and Cluster are full-state types: a wildcard is possible, and a state-of-the-world response holds all
  that is subscribed, so what is missing is deleted. For all others a missing resource means nothing.
- A state-of-the-world request with a nonce that is not the newest of its type is ignored (CP-03).
- A NACK is answered only if it asks for something new.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from meshlib.xds import schema

__all__ = ["FULL_STATE", "Delta", "Response", "Sotw", "State", "Stored"]

FULL_STATE = frozenset({schema.LISTENER, schema.CLUSTER})
# Make before break: who refers comes after what it refers to.
_ORDER = (schema.SECRET, schema.CLUSTER, schema.ENDPOINT, schema.LISTENER, schema.ROUTE)


@dataclass(frozen=True, slots=True)
class Stored:
    """One resource: its bytes under its type, and the version at which it was last set."""

    type_url: str
    name: str
    value: bytes
    version: str

    @property
    def own_version(self) -> str:
        """Its version in delta: another for other bytes, also where a server that starts anew counts from 1 again."""
        return f"{self.version}-{zlib.crc32(self.value):08x}"


@dataclass(frozen=True, slots=True)
class Response:
    """What to send; the stream gives it its nonce."""

    type_url: str
    version: str
    resources: tuple[Stored, ...]
    removed: tuple[str, ...] = ()


@dataclass(slots=True)
class State:
    """All resources by type and name, with a version for each type that counts its changes."""

    resources: dict[str, dict[str, Stored]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    changes: int = 0

    def replace(self, given: Iterable[tuple[str, str, bytes]], version: str | None) -> list[str]:
        """Makes these (type URL, name, bytes) the whole state; gives the types in which something changed."""
        wanted: dict[str, dict[str, bytes]] = {url: {} for url in self.resources}
        for url, name, value in given:
            wanted.setdefault(url, {})[name] = value
        changed = [url for url, by_name in wanted.items() if by_name != self._values(url)]
        for url in changed:
            fresh = self._next(url, version)
            old = self.resources.get(url, {})
            self.resources[url] = {
                name: old[name]
                if name in old and old[name].value == value
                else Stored(url, name, value, fresh)
                for name, value in wanted[url].items()
            }
        return _ordered(changed)

    def update(self, given: Iterable[tuple[str, str, bytes]], version: str | None) -> list[str]:
        """Adds or replaces these, all at a new version, changed or not; gives their types."""
        given = tuple(given)
        fresh = {url: self._next(url, version) for url in dict.fromkeys(url for url, _, _ in given)}
        for url, name, value in given:
            self.resources.setdefault(url, {})[name] = Stored(url, name, value, fresh[url])
        return _ordered(fresh)

    def remove(self, url: str, names: Iterable[str], version: str | None) -> list[str]:
        """Takes these out. Raises KeyError for a name that is not there."""
        held = self.resources.get(url, {})
        for name in names:
            del held[name]
        self._next(url, version)
        return [url]

    def _values(self, url: str) -> dict[str, bytes]:
        return {name: stored.value for name, stored in self.resources.get(url, {}).items()}

    def _next(self, url: str, version: str | None) -> str:
        self.changes += 1
        self.versions[url] = str(self.changes) if version is None else version
        return self.versions[url]


class Sotw:
    """One type on a state-of-the-world stream."""

    def __init__(self, type_url: str, *, partial: bool = False, resend: bool = True) -> None:
        self.type_url = type_url
        self.nonce = ""
        self._partial = partial and type_url not in FULL_STATE
        self._resend = resend
        self._names: frozenset[str] = frozenset()
        self._wildcard = False
        self._asked = False
        self._sent: dict[str, str] = {}

    def request(self, names: Iterable[str], version: str, nonce: str, state: State) -> Response | None:
        """The answer to a request, or None."""
        if nonce and nonce != self.nonce:
            return None
        first, self._asked = not self._asked, True
        self._subscribe(frozenset(names), first)
        current = self._current(state)
        self._sent = {name: seen for name, seen in self._sent.items() if self._wants(name)}
        if first and not self._resend and version and version == state.versions.get(self.type_url):
            self._sent = current
            return None
        # Who brings another version may hold what is gone by now.
        stale = bool(version) and version != state.versions.get(self.type_url)
        all_of_it = self._wildcard or (stale and self.type_url in FULL_STATE)
        return self._answer(state, current, must=first and all_of_it)

    def changed(self, state: State) -> Response | None:
        """What a change of the state makes due."""
        return self._answer(state, self._current(state), must=False) if self._asked else None

    def again(self, state: State) -> Response | None:
        """All that is subscribed, though it was sent before."""
        return self._answer(state, self._current(state), must=True) if self._asked else None

    def _subscribe(self, names: frozenset[str], first: bool) -> None:
        if self.type_url in FULL_STATE:
            # No name at all is the old way to say "*", until names are used (SW-16, SW-17).
            legacy = not names and (first or (self._wildcard and not self._names))
            self._wildcard = legacy or "*" in names
        self._names = names

    def _wants(self, name: str) -> bool:
        return self._wildcard or name in self._names

    def _current(self, state: State) -> dict[str, str]:
        held = state.resources.get(self.type_url, {})
        return {name: stored.version for name, stored in held.items() if self._wants(name)}

    def _answer(self, state: State, current: dict[str, str], *, must: bool) -> Response | None:
        before, self._sent = self._sent, current
        fresh = [name for name, version in current.items() if before.get(name) != version]
        lost = self.type_url in FULL_STATE and bool(before.keys() - current.keys())
        if not (must or fresh or lost):
            return None
        held = state.resources.get(self.type_url, {})
        chosen = fresh if self._partial and not must else list(current)
        version = state.versions.get(self.type_url, "0")
        return Response(self.type_url, version, tuple(held[name] for name in chosen))


class Delta:
    """One type on an incremental stream."""

    def __init__(self, type_url: str) -> None:
        self.type_url = type_url
        self._names: set[str] = set()
        self._wildcard = False
        self._asked = False
        self._known: dict[str, str] = {}

    def request(
        self,
        subscribe: Iterable[str],
        unsubscribe: Iterable[str],
        initial: Mapping[str, str],
        state: State,
    ) -> Response | None:
        """The answer to a request, or None."""
        first, self._asked = not self._asked, True
        added, dropped = set(subscribe), set(unsubscribe)
        newly_wild = "*" in added or (first and not added and self.type_url in FULL_STATE)
        if first:
            self._known = dict(initial)
        else:  # who subscribes again to what it holds wants it again (DL-12)
            self._known = {name: version for name, version in self._known.items() if name not in added}
        self._wildcard = (self._wildcard or newly_wild) and "*" not in dropped
        self._names = (self._names | added) - dropped - {"*"}
        # A name given up while "*" stays is ambiguous until it is said again what is true of it (DL-09).
        for name in dropped:
            self._known.pop(name, None)
        self._known = {name: version for name, version in self._known.items() if self._wants(name)}
        told = (added | (dropped if self._wildcard else set())) - {"*"}
        return self._answer(state, told, must=newly_wild)

    def changed(self, state: State) -> Response | None:
        """What a change of the state makes due."""
        return self._answer(state, set(), must=False) if self._asked else None

    def again(self, state: State) -> Response | None:
        """All that is subscribed, though it was sent before."""
        self._known = {}
        return self._answer(state, set(), must=True) if self._asked else None

    def _wants(self, name: str) -> bool:
        return self._wildcard or name in self._names

    def _answer(self, state: State, told: set[str], *, must: bool) -> Response | None:
        held = {
            name: each for name, each in state.resources.get(self.type_url, {}).items() if self._wants(name)
        }
        fresh = tuple(each for name, each in held.items() if self._known.get(name) != each.own_version)
        removed = tuple(sorted((self._known.keys() | told) - held.keys()))
        self._known = {name: each.own_version for name, each in held.items()}
        if not (must or fresh or removed):
            return None
        return Response(self.type_url, state.versions.get(self.type_url, "0"), fresh, removed)


def _ordered(urls: Iterable[str]) -> list[str]:
    return sorted(urls, key=lambda url: (_ORDER.index(url) if url in _ORDER else len(_ORDER), url))
