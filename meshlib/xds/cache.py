"""What a control plane said: each resource's value with its raw bytes and version beside it, or why there is none.

States are those of gRFC A40 (checklist CS-02):

    REQUESTED       asked for, nothing came yet; an older process may have left a value, which serves until then
    ACKED           a good version is here and is the newest that came
    NACKED          the newest version was refused; an older good one may be here
    DOES_NOT_EXIST  the server has none: it deleted it, or did not answer within the time
    TIMEOUT         did not answer in time, and the server's features say that this is no proof of absence
    RECEIVED_ERROR  the server said in words why there is none

Not thread-safe: it belongs to the stream's machine, and others read it on the same thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

__all__ = ["Cache", "Entry", "Failure", "Holds", "Knows", "Resources", "State"]


class State(Enum):
    """See the module's header."""

    REQUESTED = "requested"
    ACKED = "acked"
    NACKED = "nacked"
    DOES_NOT_EXIST = "does_not_exist"
    TIMEOUT = "timeout"
    RECEIVED_ERROR = "received_error"


@dataclass(frozen=True, slots=True)
class Failure:
    """The newest that came of a resource and was of no use: ``raw`` and ``version`` of what was refused, empty where the server sent
    an error in its place; ``at``: when.
    """

    at: float
    raw: bytes = field(default=b"", repr=False)
    version: str = ""


@dataclass(slots=True)
class Entry:
    """One resource. ``value``, ``raw``, ``version``, ``ignored`` and ``updated`` (when it came) are of the last good version (None,
    empty: there is none; a value without ``raw`` on a stream is a closed one, see `Cache.close`). ``problems`` say why the newest was
    refused, ``error`` why there is none, ``failure`` what that newest was; ``absent``: it is known not to exist, so that nobody need
    ask again. No bytes of a resource are in a repr: there may be a key among them.
    """

    name: str
    state: State = State.REQUESTED
    value: object | None = None
    raw: bytes = field(default=b"", repr=False)
    version: str = ""
    ignored: tuple[tuple[str, str], ...] = ()
    problems: tuple[str, ...] = ()
    error: str = ""
    absent: bool = False
    updated: float | None = None
    failure: Failure | None = None


class Resources(Protocol):
    """What a graph asks of a cache, or of several."""

    @property
    def listed(self) -> set[str]: ...

    def get(self, short: str, name: str) -> Entry | None: ...

    def value(self, short: str, name: str) -> object | None: ...

    def failed(self, short: str, name: str) -> str: ...

    def missing(self, short: str, name: str) -> str: ...


class Knows(Protocol):
    """What a reader of responses asks of one."""

    def known(self, short: str, raw: bytes) -> Entry | None: ...


class Holds(Knows, Protocol):
    """What takes up the state of an earlier process."""

    listed: set[str]

    def hold(
        self, short: str, name: str, value: object, *, raw: bytes, ignored: tuple[tuple[str, str], ...] = ()
    ) -> None: ...


class Cache:
    """Entries by type's short name and resource name. ``complete``: what is not here will never come (a file).
    ``listed``: the types of which a server has said all that it has (the answer to a wildcard). ``now``: monotonic seconds, set by
    whoever is about to write.
    """

    __slots__ = ("_by_raw", "_entries", "complete", "listed", "now")

    def __init__(self, types: Iterable[str], *, complete: bool = False) -> None:
        types = tuple(types)
        self.complete = complete
        self.now = 0.0
        self.listed: set[str] = set(types) if complete else set()
        self._entries: dict[str, dict[str, Entry]] = {short: {} for short in types}
        # The bytes of good versions, so that what comes again unchanged is known without decoding it.
        self._by_raw: dict[str, dict[bytes, Entry]] = {short: {} for short in self._entries}

    def get(self, short: str, name: str) -> Entry | None:
        return self._entries[short].get(name)

    def value(self, short: str, name: str) -> object | None:
        """The last good version, or None."""
        entry = self._entries[short].get(name)
        return entry.value if entry else None

    def failed(self, short: str, name: str) -> str:
        """Why there is no value and none is to be waited for, in words; "" while it may come, or is here."""
        entry = self._entries[short].get(name)
        if entry is None:
            return "is not there" if self.complete else ""
        if entry.value is not None or entry.state is State.REQUESTED:
            return ""
        if entry.state is State.NACKED:
            return f"was refused: {'; '.join(entry.problems)}"
        return entry.error

    def missing(self, short: str, name: str) -> str:
        """Why there is no value now, in words, though one may come: as ``failed``, or the list of all does not have it;
        "" while nothing is known.
        """
        failed = self.failed(short, name)
        if failed or short not in self.listed or self.value(short, name) is not None:
            return failed
        return "is not among those that the control plane has"

    def entries(self, short: str) -> Iterator[Entry]:
        return iter(self._entries[short].values())

    def names(self, short: str) -> Iterator[str]:
        """Names that have a value."""
        return (name for name, entry in self._entries[short].items() if entry.value is not None)

    def known(self, short: str, raw: bytes) -> Entry | None:
        """The entry whose good version is exactly `raw`."""
        return self._by_raw[short].get(raw)

    def accept(
        self,
        short: str,
        name: str,
        value: object,
        *,
        raw: bytes = b"",
        version: str = "",
        ignored: tuple[tuple[str, str], ...] = (),
    ) -> bool:
        """A good version. False if it is the one that was here (SW-13), though its version may be new."""
        entry = self._entry(short, name)
        same = entry.value is not None and entry.raw == raw and bool(raw)
        if not same:
            self._drop_raw(short, entry)
            entry.value, entry.raw, entry.ignored = value, raw, ignored
            if raw:
                self._by_raw[short][raw] = entry
        entry.version, entry.state, entry.problems, entry.error = version, State.ACKED, (), ""
        entry.absent, entry.updated, entry.failure = False, self.now, None
        return not same

    def again(self, short: str, name: str, version: str) -> bool:
        """The bytes of its good version came again. False if nobody had said anything else of it since."""
        entry = self._entries[short][name]
        if entry.state is not State.ACKED:
            self.accept(short, name, entry.value, raw=entry.raw, version=version, ignored=entry.ignored)
            return True
        entry.version, entry.updated = version, self.now
        return False

    def hold(
        self, short: str, name: str, value: object, *, raw: bytes, ignored: tuple[tuple[str, str], ...] = ()
    ) -> None:
        """A good version of which only an earlier process knows. It is in force, and asked for as if there were none: it has no
        version, so that no server is told of it.
        """
        self.accept(short, name, value, raw=raw, ignored=ignored)
        entry = self._entries[short][name]
        entry.state, entry.updated = State.REQUESTED, None

    def reject(
        self,
        short: str,
        name: str,
        problems: tuple[str, ...],
        refused: tuple[bytes, str] | None = None,
        *,
        drop: bool = False,
    ) -> None:
        """The newest version, `refused` (its bytes and its version), is none; the last good one stays unless `drop` (ER-02, A88)."""
        entry = self._entry(short, name)
        entry.state, entry.problems, entry.error, entry.absent = State.NACKED, problems, "", False
        entry.failure = Failure(self.now, *(refused or ()))
        if drop:
            self._empty(short, entry)

    def close(self, short: str, name: str, value: object) -> None:
        """The refused version, which refuses what it covers, is in force where no good version is: nothing that it covers
        may go another way meanwhile.
        """
        entry = self._entry(short, name)
        if not entry.raw:
            entry.value = value

    def lose(
        self, short: str, name: str, state: State, error: str, *, drop: bool = True, absent: bool = True
    ) -> None:
        """There is none, for the reason `error`. `absent`: it does not exist; else that is not known."""
        entry = self._entry(short, name)
        entry.state, entry.error, entry.absent = state, error, absent
        entry.failure = Failure(self.now)
        if drop:
            entry.problems = ()
            self._empty(short, entry)

    def outdate(self, short: str, name: str) -> None:
        """The server has it no more, and its value stays: its version is one that the server does not know."""
        self._entry(short, name).version = ""

    def request(self, short: str, name: str) -> None:
        """Notes that `name` is asked for, if nothing is known of it."""
        self._entry(short, name)

    def forget(self, short: str, name: str) -> None:
        """As if it had never been asked for."""
        entry = self._entries[short].pop(name, None)
        if entry is not None:
            self._drop_raw(short, entry)

    def _entry(self, short: str, name: str) -> Entry:
        entry = self._entries[short].get(name)
        if entry is None:
            entry = self._entries[short][name] = Entry(name)
        return entry

    def _empty(self, short: str, entry: Entry) -> None:
        self._drop_raw(short, entry)
        entry.value, entry.raw, entry.version, entry.ignored, entry.updated = None, b"", "", (), None

    def _drop_raw(self, short: str, entry: Entry) -> None:
        if entry.raw and self._by_raw[short].get(entry.raw) is entry:
            del self._by_raw[short][entry.raw]
