"""A stream's machine, as far as state of the world and delta are the same: timers, refusals, the cache, what is told.

Theory. A client tells a server, for each type of resource, which names it wants; the server answers with resources, again
and again, and each answer is accepted (ACK) or refused (NACK, with everything that is wrong with it) by its nonce. How
that is said, and how a server says that a resource is gone, is each protocol's own: `meshlib.xds.ads` and
`meshlib.xds.delta` have their tables. Per type there is

    sent       what the server was last told on this stream that is wanted; None: nothing was asked of this type yet
    nonce      of the last response on this stream; "" before one
    version    of the last response that was accepted whole; it outlives the stream (ST-08)
    replies    acknowledgements that are owed, one for each response that was received (SW-01)

    event                     sent      replies       what goes out with `outgoing`
    ------------------------  --------  ------------  --------------------------------------------------------------
    opened                    None      none          every type that is wanted, whole (ST-07)
    wanted differs from sent  → wanted  kept          one request, however often it changed meanwhile (ST-09)
    response, all good        kept      + ACK         the ACK
    response, something bad   kept      + NACK        the NACK: what is good in the response is in force all the same
    response, type not asked  kept      kept          nothing (SW-08)
    bytes that are no answer  kept      kept          nothing (SW-20)
    the same answer again     kept      the newest    nothing until its time has come (below)
    closed                    → None    dropped       nothing; versions and resources stay (CA-01)

A resource that was asked for by name has 15 s to come, counted from the moment the request was handed out to be
written (EX-01, DL-13); then it counts as not existing, and is used at once should it come later. An assignment that says for how
long it holds (Envoy ``endpoint_stale_after``) is gone then, stream or no stream, unless it came again.

A server that answers a NACK with what was refused, or an ACK with what was acknowledged, at once and again, would be
answered as fast as both can (CP-07). So an answer that is the last one again, a refusal in the same words or the
acknowledgement of a response of the same version that brought nothing new, is held back: 0.1 s, then twice as long each
time up to 10 s, and only the newest is sent. What is good in the response is in force at once; a server that waits for
an answer before it sends what is mended waits no longer than that. Another answer, or 10 s of quiet, begins anew.

Not thread-safe; time and randomness are passed in. Nothing here raises for what a server sent.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import ClassVar

from meshlib.model.status import Ignored, Rejected
from meshlib.xds import schema
from meshlib.xds.backoff import grown, reconnect
from meshlib.xds.cache import Cache, State
from meshlib.xds.decode import ResourceType
from meshlib.xds.response import Batch, detail, named
from meshlib.xds.schema import WireMessage
from meshlib.xds.stale import Stale
from meshlib.xds.values import AdsStatus, Interest, Received, ServerFeatures, told_counts

__all__ = ["EXISTENCE_TIMEOUT", "TRANSIENT_TIMEOUT", "Machine", "Reply", "TypeState"]

_STATUS = "google.rpc.Status"
_INVALID_ARGUMENT = 3  # google.rpc.Code
_NOT_FOUND = 5
_PERMISSION_DENIED = 7
_ALL = frozenset({"*"})
# EX-01 (gRFC A57) and EX-07 (gRFC A88), in seconds.
EXISTENCE_TIMEOUT = 15.0
TRANSIENT_TIMEOUT = 30.0
# Ours: hundreds of the same answer a second become at most ten, and soon one in 10 s.
_AGAIN_FIRST = 0.1
_AGAIN_FACTOR = 2.0
_AGAIN_MOST = 10.0
# TP3: this client reads `resource_errors`.
_CLIENT_FEATURE = "xds.config.resource-in-sotw"


@dataclass(slots=True)
class Reply:
    """An acknowledgement that is owed; `error`: what is wrong, "" for an ACK."""

    nonce: str
    version: str
    error: str

    @property
    def said(self) -> tuple[str, str]:
        """What it says, but for the nonce."""
        return ("", self.error) if self.error else (self.version, "")


@dataclass(slots=True)
class TypeState:
    """The state of one type; see the theory above."""

    type: ResourceType
    interest: Interest = field(default_factory=Interest)
    sent: frozenset[str] | None = None  # everything there is is "*"
    by_name: bool = False  # whether this stream ever named something, so that "*" must be spelled out (SW-17)
    nonce: str = ""
    version: str = ""
    replies: list[Reply] = field(default_factory=list)
    timers: dict[str, float] = field(default_factory=dict)
    said: tuple[str, str] | None = (
        None  # what the last response was answered: (version, "") or ("", what is wrong)
    )
    said_at: float = 0.0
    again: int = 0  # how often that was to be said again without a pause
    held_until: float = 0.0  # before this the last of `replies` is not sent; 0: it is not held back
    stray: tuple[Rejected, ...] = ()  # refused without a name, or not wanted: of the last response only
    touched: bool = False  # what is wanted has changed since the last `outgoing`

    @property
    def asked(self) -> bool:
        return self.sent is not None


class Machine(ABC):
    """The machine. A driver calls `opened`, `received`, `closed`, `tick` as things happen, and writes `outgoing`.

    `node`: an `envoy.config.core.v3.Node`, as bytes or message. `types` in the order in which they are asked for.
    `jitter`: gives a float in [0, 1). `cache`: what another machine knew already. `changed` names, per type, what to look
    up anew in `cache`.
    """

    #: The protocol's messages.
    request: ClassVar[str]
    response: ClassVar[str]

    def __init__(
        self,
        node: bytes | WireMessage,
        types: Sequence[ResourceType],
        jitter: Callable[[], float],
        features: ServerFeatures | None = None,
        cache: Cache | None = None,
    ) -> None:
        self.cache = cache or Cache(item.short for item in types)
        self._node = _introduced(node)
        self._jitter = jitter
        self._features = features or ServerFeatures()
        self._streams = {item.short: TypeState(item) for item in types}
        self._by_url = {item.url: item.short for item in types}
        self._open = False
        self._answered = False
        self.silence_tells = False  # whether the server is known to answer: on another stream
        self._failures = 0
        self._last_error = ""
        self._stale = Stale(self.cache)
        self._changed: dict[str, set[str]] = {item.short: set() for item in types}

    # --- what is wanted

    def set_interest(self, short: str, interest: Interest) -> None:
        """Replaces what is wanted of a type. Sent with the next `outgoing`."""
        stream = self._streams[short]
        if interest is stream.interest or interest == stream.interest:
            return
        stream.interest = interest
        stream.touched = True
        due = interest.names | interest.expected
        stream.timers = {name: at for name, at in stream.timers.items() if name in due}

    # --- what happens

    def opened(self, now: float) -> None:
        """A stream is up: everything that is wanted will be asked for on it."""
        if self._open:
            self._reset()
        self._open = True
        self._answered = False
        del now

    def received(self, raw: bytes, now: float) -> Received:
        """Bytes that the server sent."""
        try:
            response = schema.message(self.response).FromString(raw)
        except (schema.DecodeError, RecursionError, TypeError, ValueError) as error:
            kind = self.response.rpartition(".")[2]
            self._last_error = f"the server sent {len(raw)} bytes that are no {kind}: {error}"
            return Received(error=self._last_error)
        short = self._by_url.get(response.type_url, "")
        stream = self._streams.get(short)
        if stream is None or not stream.asked:
            return Received(error=f"the server sent {response.type_url[:200]!r}, which was not asked for")
        self._answered = True
        self._failures = 0
        return self._respond(stream, response, now)

    def stands(self) -> None:
        """The stream stood for a while, and the server owes nothing: it is as good as one that answered."""
        if self._open and not self._answered:
            self._answered = True
            self._failures = 0
            self._last_error = ""  # of an earlier stream

    def closed(self, now: float, error: str = "") -> float:
        """The stream ended, or could not be opened. Gives the seconds to wait before the next try (ST-04).

        One that answered ends without blame (ST-05), and the next try comes after the base delay.
        """
        del now
        if not (self._open and self._answered):
            self._last_error = error or "the stream ended before the server answered"
        self._reset()
        self._open = self._answered = False
        delay = reconnect(self._failures, self._jitter)
        self._failures += 1
        return delay

    def tick(self, now: float) -> bool:
        """Lets the timers that are due expire. True if anything did: then something is known not to exist."""
        expired, self.cache.now = False, now
        for short, stream in self._streams.items():
            for name in [name for name, at in stream.timers.items() if at <= now]:
                if self._answered or self.silence_tells or self.cache.value(short, name) is None:
                    del stream.timers[name]
                    expired = True
                    self._expire(short, name)
                else:  # a server that says nothing at all takes nothing away of what an earlier process left
                    stream.timers[name] = now + EXISTENCE_TIMEOUT
        stale = self._stale.tick(now)
        if stale:
            self._changed["endpoint"].update(stale)
        return expired or bool(stale)

    def next_timer(self) -> float | None:
        """When `tick`, or `outgoing` after it, has something to do."""
        timers = (at for stream in self._streams.values() for at in stream.timers.values())
        held = (
            stream.held_until for stream in self._streams.values() if stream.replies and stream.held_until
        )
        due = min((*timers, *held, self._stale.due))
        return None if due == inf else due

    def changed(self) -> dict[str, set[str]]:
        """Names by type whose value or fate changed since the last call."""
        found = {short: names for short, names in self._changed.items() if names}
        for short in found:
            self._changed[short] = set()
        return found

    # --- what goes out

    def outgoing(self, now: float) -> list[bytes]:
        """The requests to write now, in order; they are handed out once. Timers count from here (EX-01)."""
        if not self._open:
            return []
        messages: list[bytes] = []
        for short, stream in self._streams.items():
            messages.extend(self._requests(stream, now))
            stream.by_name = stream.by_name or not (stream.sent or frozenset()) <= _ALL
            if stream.touched:
                self._evict(short, stream)
                if stream.asked:
                    self._arm(short, stream, now)
        return messages

    @abstractmethod
    def _requests(self, stream: TypeState, now: float) -> list[bytes]:
        """What is to be written of one type now."""

    def _names(self, stream: TypeState) -> frozenset[str]:
        """What is wanted, as it is to be said."""
        return stream.interest.names | _ALL if stream.interest.wildcard else stream.interest.names

    def _spelled(self, stream: TypeState, names: frozenset[str]) -> list[str]:
        """The names in a request. "Everything" is an empty list, until the stream has named something (SW-17)."""
        return [] if names == _ALL and not stream.by_name else sorted(names)

    def _due(self, stream: TypeState, now: float, *, hurry: bool) -> list[Reply]:
        """The acknowledgements to send now; `hurry`: also one that is held back."""
        owed, stream.replies = stream.replies, []
        if owed and now < stream.held_until and not hurry:
            stream.replies.append(owed.pop())
        return owed

    def _message(self, error: str, **fields: object) -> bytes:
        """A request; `error`: what it refuses."""
        request = schema.message(self.request)(node=self._node, **fields)
        if error:
            detail = schema.message(_STATUS)(code=_INVALID_ARGUMENT, message=error)
            request.error_detail.CopyFrom(detail)
        return request.SerializeToString(deterministic=True)

    def _arm(self, short: str, stream: TypeState, now: float) -> None:
        """Starts the timer of everything that was asked for and of which nothing is known (EX-01, EX-04, EX-05)."""
        wait = TRANSIENT_TIMEOUT if self._features.resource_timer_is_transient_error else EXISTENCE_TIMEOUT
        for name in stream.interest.names | stream.interest.expected:
            if name in stream.timers:
                continue
            self.cache.request(short, name)
            entry = self.cache.get(short, name)
            if entry is not None and entry.state is State.REQUESTED:
                stream.timers[name] = now + wait

    def _evict(self, short: str, stream: TypeState) -> None:
        """Drops what is no longer wanted; not before the server is told, so that a name that comes back in between
        is served from here (SW-18, EX-06).
        """
        stream.touched = False
        if stream.interest.wildcard:
            gone = [
                entry.name
                for entry in self.cache.entries(short)
                if entry.value is None
                and entry.name not in stream.interest.names
                and entry.name not in stream.interest.expected
                and entry.state is not State.NACKED
            ]
        else:
            gone = [entry.name for entry in self.cache.entries(short) if entry.name not in stream.interest]
        for name in gone:
            self.cache.forget(short, name)

    # --- one response

    @abstractmethod
    def _sort(self, stream: TypeState, response: WireMessage) -> Batch:
        """What is good and what is wrong of a response."""

    @abstractmethod
    def _remove(self, stream: TypeState, batch: Batch) -> list[str]:
        """Takes out what a response says is gone; the names of what was there."""

    def _respond(self, stream: TypeState, response: WireMessage, now: float) -> Received:
        self.cache.now = now
        batch = self._sort(stream, response)
        updated = self._accept(stream, batch)
        rejected = self._reject(stream, batch)
        failed = self._take_errors(stream, batch)
        removed = self._remove(stream, batch)
        error = detail(rejected)
        if not error:
            stream.version = batch.version  # DV-01: only what was accepted whole moves it
        stream.nonce = response.nonce
        reply = Reply(response.nonce, stream.version, error)
        self._hold_back(stream, reply.said, now, news=not error and bool(updated or removed or failed))
        stream.replies.append(reply)
        self._last_error = error
        short = stream.type.short
        self._changed[short].update(updated, removed, failed, batch.bad)
        return Received(
            short,
            batch.version,
            not error,
            tuple(updated),
            tuple(removed),
            rejected,
            error,
            stream.type.full_name,
            len(batch.good) + len(batch.again),
        )

    def _hold_back(self, stream: TypeState, said: tuple[str, str], now: float, *, news: bool) -> None:
        """Says until when the reply that is now owed is kept, as the theory above has it. `news`: it is due at once."""
        lately = now < max(stream.held_until, stream.said_at) + _AGAIN_MOST
        if said == stream.said and lately and not news:
            while stream.replies and stream.replies[-1].said == said:
                stream.replies.pop()  # of the responses that are answered alike, to answer the newest is enough
            delay = grown(_AGAIN_FIRST, _AGAIN_FACTOR, stream.again, _AGAIN_MOST, self._jitter)
            stream.again += 1
            stream.held_until = max(stream.held_until, now + delay)
        else:
            stream.again = 0
            stream.held_until = 0.0
        stream.said, stream.said_at = said, now

    def _accept(self, stream: TypeState, batch: Batch) -> list[str]:
        """ER-01: what is good comes into force, whatever stands beside it. What nobody asked for is dropped (SW-12)."""
        updated: list[str] = []
        short, interest, give_way = stream.type.short, stream.interest, stream.type.give_way
        for name, (_, version) in batch.again.items():
            give_way()
            if name in interest and self.cache.again(short, name, version):
                stream.timers.pop(name, None)
                updated.append(name)
                if short == "endpoint":
                    self._stale.came(name)
        for name, (raw, found, version) in batch.good.items():
            give_way()
            if name not in interest:
                continue
            stream.timers.pop(name, None)
            value = named(found, found.value, name, version)
            if self.cache.accept(short, name, value, raw=raw, version=version, ignored=found.ignored):
                updated.append(name)
            if short == "endpoint":
                self._stale.came(name)
        if short == "endpoint":
            self._stale.again(batch.again.keys())
        return updated

    def _reject(self, stream: TypeState, batch: Batch) -> tuple[Rejected, ...]:
        short, drops = stream.type.short, self._features.fail_on_data_errors
        rejected = [Rejected("", short, problems) for problems in batch.unnamed]
        stray = list(rejected)
        for name, problems in batch.bad.items():
            rejected.append(Rejected(name, short, problems))
            if name in stream.interest:
                stream.timers.pop(name, None)  # EX-05
                self.cache.reject(short, name, problems, batch.refused.get(name), drop=drops)
                if name in batch.closed:
                    self.cache.close(short, name, batch.closed[name])
            else:
                stray.append(rejected[-1])
        stream.stray = tuple(stray)
        return tuple(rejected)

    def _take_errors(self, stream: TypeState, batch: Batch) -> list[str]:
        """ER-05: the server says in words why there is no resource."""
        taken: list[str] = []
        there = batch.there if batch.errors else ()
        for name, (code, text) in batch.errors.items():
            if name not in stream.interest or name in there:
                continue
            stream.timers.pop(name, None)
            drop = self._features.fail_on_data_errors and code in (_NOT_FOUND, _PERMISSION_DENIED)
            words = f"the server has none: {text or f'code {code}'}"
            entry = self.cache.get(stream.type.short, name)
            keep = entry is not None and entry.value is not None and not drop
            self.cache.lose(
                stream.type.short,
                name,
                State.RECEIVED_ERROR,
                words,
                drop=not keep,
                absent=code == _NOT_FOUND,
            )
            taken.append(name)
        return taken

    def _expire(self, short: str, name: str) -> None:
        """EX-02, EX-07."""
        if self._features.resource_timer_is_transient_error:
            words = f"the server did not answer within {TRANSIENT_TIMEOUT:g} s"
            self.cache.lose(short, name, State.TIMEOUT, words, drop=False, absent=False)
        else:
            words = f"does not exist: the server did not send it within {EXISTENCE_TIMEOUT:g} s"
            self.cache.lose(short, name, State.DOES_NOT_EXIST, words)
        self._changed[short].add(name)

    def _reset(self) -> None:
        for stream in self._streams.values():
            stream.sent, stream.nonce, stream.by_name = None, "", False
            stream.replies.clear()
            stream.said, stream.again = None, 0
            stream.timers.clear()  # EX-03
            stream.touched = True

    # --- what there is to say

    def status(self, now: float) -> AdsStatus:
        """A value, for `Mesh.status()`."""
        del now
        return AdsStatus(
            self._open,
            self._open and self._answered,
            {short: stream.version for short, stream in self._streams.items() if stream.version},
            told_counts({short: sum(1 for _ in self.cache.names(short)) for short in self._streams}),
            tuple(self._waiting()),
            self._last_error,
            tuple(self._rejected()),
            tuple(self._ignored()),
        )

    def _waiting(self) -> Iterable[str]:
        for short, stream in self._streams.items():
            for name in sorted(stream.interest.names):
                entry = self.cache.get(short, name)
                if entry is None or entry.state is State.REQUESTED:
                    yield f"{short} {name}"

    def _rejected(self) -> Iterable[Rejected]:
        for short, stream in self._streams.items():
            yield from stream.stray
            for entry in self.cache.entries(short):
                if entry.state is State.NACKED and entry.name in stream.interest:
                    yield Rejected(entry.name, short, entry.problems)

    def _ignored(self) -> Iterable[Ignored]:
        for short in self._streams:
            for entry in self.cache.entries(short):
                for path, value in entry.ignored:
                    yield Ignored(entry.name, short, path, value)


def _introduced(node: bytes | WireMessage) -> WireMessage:
    """The node with what this client can do (ST-03). Raises ValueError for bytes that are no Node."""
    made = schema.message("envoy.config.core.v3.Node")()
    try:
        made.ParseFromString(node if isinstance(node, bytes) else node.SerializeToString())
    except schema.DecodeError as error:
        raise ValueError(f"the node is no envoy.config.core.v3.Node: {error}") from None
    if _CLIENT_FEATURE not in made.client_features:
        made.client_features.append(_CLIENT_FEATURE)
    return made
