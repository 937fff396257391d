"""A stream for each type of resource, served to the session as one (``xds.streams = "separate"``, and xDS v2).

Theory. The session asks as on one aggregated stream. What it asks of a type goes to the stream of that type's own service,
which is opened when something of the type is first asked for; the answers come back one at a time (ST-10). Each
request has the node (ST-02). One type, ``_Watch``:

    none ──asked──► open ──end──► waiting ──its time──► open                    one of several ended: the others go on
                     │ └─────old (v2)──────────────────► open                    all at once, in their place
                     └──end, the service is not there──► missing                 said in the status; the others go on
    the last one open ended, or delta's (but where
    only its service is not there): all end, and the source tries again

The streams have connections of their own, so that each ends with its stream, as an aggregated one does.

A request on a stream that took another's place says nothing of that one's responses: it has the newest nonce of its own
stream, or none.

What is v2's: servers of that time answer each request whose version is not theirs, and those alone. A version is
a counter that begins anew when a server or a node's configuration does, and equal numbers may mean different states; a watch
can be lost without an end of its stream. So a stream begins with an empty version; a request for other names than those of which
the last answer surely was has one, too, or it might have no answer (an answer is to one of the requests with the nonce before it,
and which of them is not told); streams are replaced when they are ``AGE`` old, all at once, since a listener and the clusters that
it names come together; and what is not answered within ``PATIENCE`` is told. A watch that was lost is noticed within both together, which is less than 90 s.

Everything runs on the worker; each stream has its own reader.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from meshlib.model.status import Ignored
from meshlib.sources.stream import GrpcStream
from meshlib.xds import schema, v2
from meshlib.xds.discovery import DELTA_REQUEST, DELTA_RESPONSE, REQUEST, RESPONSE
from meshlib.xds.services import method
from meshlib.xds.values import RARE

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.runtime.worker import Timer
    from meshlib.sources.stream import AdsStream, Ears
    from meshlib.xds.bootstrap import Server
    from meshlib.xds.schema import WireMessage

__all__ = ["AGE", "PATIENCE", "SeparateStreams"]

#: Seconds for which a v2 stream lives; a share of it is random, so that clients that started together part.
AGE = 60.0
_AGE_SHARE = 0.25
#: Seconds until a v2 server that owes an answer is said to be silent. It answers at once if it answers at all.
PATIENCE = 15.0
# Kato's service of secrets answers nobody.
_SILENT = frozenset({"secret"})
#: ST-04, for one stream of several.
_PAUSE_FIRST = 1.0
_PAUSE_FACTOR = 1.6
_PAUSE_MOST = 120.0
_PAUSE_JITTER = 0.2


class _Makes(Protocol):
    """Makes one stream of a service."""

    def __call__(
        self,
        server: Server,
        ears: Ears,
        post: Callable[[Callable[[], object]], None],
        protocol: str,
        *,
        method: str,
        announces: bool,
    ) -> AdsStream: ...


@dataclass(slots=True, eq=False)
class _Watch:
    """``request``: the newest; ``named``: whether any had names; ``asked``: the names of those that
    were written with ``nonce``, the newest response's of this stream; ``of``: the names that this response surely is an answer to.
    ``owed``: until when an answer is waited for; ``turn``: when the stream is opened again.
    """

    short: str
    method: str
    stream: AdsStream | None = None
    request: WireMessage | None = None
    named: bool = False
    asked: set[tuple[str, ...]] = field(default_factory=set)
    of: tuple[str, ...] | None = None
    nonce: str = ""
    answered: bool = False
    owed: Timer | None = None
    turn: Timer | None = None
    failures: int = 0
    silent: bool = False
    missing: bool = False
    error: str = ""
    ignored: tuple[Ignored, ...] = field(default=())

    @property
    def wanted(self) -> bool:
        """On a stream, to name nothing after something gives it all up; at its beginning it asks for everything."""
        return self.request is not None and not (self.named and not _names(self.request))

    def rest(self) -> None:
        for timer in (self.owed, self.turn):
            if timer is not None:
                timer.cancel()
        self.owed = self.turn = None


class SeparateStreams:
    """The streams as one. ``api``: "v3" or "v2"; ``later`` sets timers of the worker's; ``random`` gives a float in [0, 1);
    ``ours``: node.cluster, by which a v2 server knows us.
    """

    def __init__(
        self,
        server: Server,
        ears: Ears,
        post: Callable[[Callable[[], object]], None],
        protocol: str,
        *,
        api: str,
        later: Callable[[float, Callable[[], object]], Timer],
        random: Callable[[], float],
        ours: str,
        make: _Makes = GrpcStream,
    ) -> None:
        self._server = server
        self._ears = ears
        self._post = post
        self._protocol = protocol
        self._old = api == "v2"
        self._later = later
        self._random = random
        self._ours = ours
        self._make = make
        verb = "Delta" if protocol == "delta" else "Stream"
        self._request = DELTA_REQUEST if protocol == "delta" else REQUEST
        self._response = DELTA_RESPONSE if protocol == "delta" else RESPONSE
        self._watches = {
            url: _Watch(short, method(api, short, verb)) for url, short in schema.SHORT_NAMES.items()
        }
        self._waiting: deque[tuple[_Watch, AdsStream, bytes]] = deque()
        self._busy: AdsStream | None = None  # whose message is being dealt with
        self._ready = False
        self._answered = False
        self._over = False
        self._told: tuple[str, tuple[Ignored, ...]] = ("", ())
        self._aging: Timer | None = None
        self._open(self._watches[schema.LISTENER])
        if self._old:
            self._age()

    # --- AdsStream ----------------------------------------------------------------------------------------------

    def send(self, raw: bytes) -> None:
        request = schema.message(self._request).FromString(raw)
        watch = self._watches[str(request.type_url)]
        watch.request, watch.named = request, watch.named or bool(_names(request))
        if watch.stream is None:
            if watch.wanted and not watch.missing and watch.turn is None:
                self._open(watch)
        elif self._old and not watch.wanted:  # to a v2 server no names are all names
            self._close(watch)
            watch.silent, watch.error = False, ""
            self._tell()
        else:
            self._write(watch)

    def consumed(self) -> None:
        stream, self._busy = self._busy, None
        if stream is not None:
            stream.consumed()
        self._post(self._deliver)

    def cancel(self, timeout: float = 0.5) -> None:
        self._over = True
        if self._aging is not None:
            self._aging.cancel()
        streams = [watch.stream for watch in self._watches.values() if watch.stream is not None]
        for watch in self._watches.values():
            watch.rest()
        for stream in streams:
            stream.cancel(0.0)
        for stream in streams:
            stream.cancel(timeout)

    # --- one stream ---------------------------------------------------------------------------------------------

    def _open(self, watch: _Watch) -> None:
        watch.rest()
        watch.answered = False
        watch.asked, watch.of, watch.nonce = set(), None, ""
        watch.stream = self._make(
            self._server,
            _Hearing(self, watch),
            self._post,
            self._protocol,
            method=watch.method,
            announces=not self._ready,
        )
        if watch.wanted:
            self._write(watch)

    def _close(self, watch: _Watch) -> None:
        watch.rest()
        stream, watch.stream = watch.stream, None
        if stream is not None:
            stream.cancel(0.0)

    def _write(self, watch: _Watch) -> None:
        """Write the newest request, as it is right on this stream."""
        assert watch.request is not None
        assert watch.stream is not None
        made = type(watch.request)()
        made.CopyFrom(watch.request)
        if self._protocol != "delta":
            self._fit(watch, made)
        watch.stream.send(v2.request(made) if self._old else made.SerializeToString(deterministic=True))

    def _fit(self, watch: _Watch, request: WireMessage) -> None:
        names = tuple(request.resource_names)
        if request.response_nonce != watch.nonce:
            request.response_nonce = watch.nonce
            request.ClearField("error_detail")
        if self._old and names != watch.of:
            request.version_info = ""
            if watch.owed is None and watch.short not in _SILENT:
                watch.owed = self._later(PATIENCE, lambda: self._miss(watch))
        watch.asked.add(names)

    def _age(self) -> None:
        """Replace the streams that are open when they are old."""
        self._aging = self._later(AGE * (1 - _AGE_SHARE * self._random()), self._renew)

    def _renew(self) -> None:
        for watch in self._watches.values():
            if watch.stream is not None:
                self._replace(watch)
        self._age()

    def _replace(self, watch: _Watch) -> None:
        """Open a stream in place of the one that is open, or was."""
        self._close(watch)
        if not self._over and watch.wanted:
            self._open(watch)

    def _miss(self, watch: _Watch) -> None:
        watch.owed = None
        watch.silent = True
        self._tell()

    # --- what streams say ---------------------------------------------------------------------------------------

    def ready(self) -> None:
        """A stream is connected."""
        if not self._ready and not self._over:
            self._ready = True
            self._ears.on_ready(self)

    def arrived(self, watch: _Watch, stream: AdsStream, raw: bytes) -> None:
        """A message of a watch's stream."""
        self._waiting.append((watch, stream, raw))
        self._deliver()

    def _deliver(self) -> None:
        """Hand on the next message, once the one before is dealt with."""
        while self._waiting and self._busy is None and not self._over:
            watch, stream, raw = self._waiting.popleft()
            if stream is not watch.stream:  # of one that was replaced
                continue
            self._busy = stream
            self._ears.on_message(self, self._read(watch, raw))
            self._tell()

    def _read(self, watch: _Watch, raw: bytes) -> bytes:
        """The message as the session is to have it. What is none stays as it is: the session says so."""
        try:
            response: Any = schema.message(self._response).FromString(raw)
        except (schema.DecodeError, RecursionError):
            return raw
        self._answered = watch.answered = True
        watch.nonce = str(response.nonce)
        watch.of = next(iter(watch.asked)) if len(watch.asked) == 1 else None
        watch.asked = set()
        watch.failures, watch.error, watch.silent = 0, "", False
        if watch.owed is not None:
            watch.owed.cancel()
            watch.owed = None
        if not self._old:
            return raw
        watch.ignored = v2.response(response, self._ours)
        return bytes(response.SerializeToString(deterministic=True))

    def ended(self, watch: _Watch, error: str, *, unimplemented: bool) -> None:
        """A watch's stream is over."""
        watch.rest()
        stream, watch.stream = watch.stream, None
        if stream is not None:
            stream.cancel()  # its thread is about to end
        if self._over:
            return
        others = any(each.stream is not None for each in self._watches.values())
        # Of a server that knows none of these services that of the listeners says so.
        no_service = unimplemented and (self._answered or watch.short in RARE)
        if not others or (not no_service and (unimplemented or self._protocol == "delta")):
            self.cancel(0.0)
            self._ears.on_end(self, f"{watch.method}: {error}" if error else "", unimplemented=unimplemented)
            return
        if no_service:
            watch.missing = True
        elif watch.wanted:
            bound = min(_PAUSE_FIRST * _PAUSE_FACTOR ** min(watch.failures, 64), _PAUSE_MOST)
            pause = bound * (1 - _PAUSE_JITTER + 2 * _PAUSE_JITTER * self._random())
            watch.turn = self._later(pause, lambda: self._replace(watch))
            watch.failures += 1
        if no_service and watch.short in RARE:  # no outage: what it would have had is known not to come
            watch.ignored = (Ignored("", watch.short, watch.method, error),)
        elif not watch.answered:
            words = error or "the control plane closed the stream without an answer"
            watch.error = f"{watch.method}: {words}"
        self._tell()

    def _tell(self) -> None:
        if self._over:
            return
        silent = [watch.method for watch in self._watches.values() if watch.silent]
        errors = [watch.error for watch in self._watches.values() if watch.error]
        if silent:
            errors.append(
                f"the control plane has not answered {', '.join(silent)} for {PATIENCE:g} s: it does not know "
                f'node.cluster "{self._ours}", or no longer'
            )
        ignored = tuple(each for watch in self._watches.values() for each in watch.ignored)
        state = ("; ".join(errors), ignored)
        if state != self._told:
            self._told = state
            self._ears.on_state(self, *state)


class _Hearing:
    """What the stream of a watch says; a stream that was replaced is not listened to any more."""

    def __init__(self, streams: SeparateStreams, watch: _Watch) -> None:
        self._streams = streams
        self._watch = watch

    def on_ready(self, stream: AdsStream) -> None:
        if stream is self._watch.stream:
            self._streams.ready()

    def on_message(self, stream: AdsStream, raw: bytes) -> None:
        if stream is self._watch.stream:
            self._streams.arrived(self._watch, stream, raw)

    def on_end(self, stream: AdsStream, error: str, *, unimplemented: bool = False) -> None:
        if stream is self._watch.stream:
            self._streams.ended(self._watch, error, unimplemented=unimplemented)

    def on_state(self, stream: AdsStream, error: str, ignored: tuple[Ignored, ...] = ()) -> None:
        """No stream of grpc's says anything while it lives."""
        del stream, error, ignored


def _names(request: WireMessage) -> bool:
    """Whether a request of either protocol has names."""
    fields = request.DESCRIPTOR.fields_by_name
    return bool(
        getattr(request, "resource_names" if "resource_names" in fields else "resource_names_subscribe")
    )
