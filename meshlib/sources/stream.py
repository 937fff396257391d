"""One discovery stream over grpcio's sync stack: bytes out, bytes in, and how it ended.

Theory. A stream has one reader thread. It opens the channel and the call, and hands every message to the worker by
``post``; it reads the next one only when the worker says that the last was consumed (ST-10), so that a flood stays in
the peer's buffers. Requests go through a queue that grpc's own thread takes from; nothing blocks the worker.

    connecting ──channel ready──► open ──end──► ended
         └───────────end────────────────────────┘

``on_ready`` comes once the transport is connected: only then has what is sent really been sent (EX-01). ``on_end`` comes
exactly once, also after ``cancel``, with why in words. All callbacks run on the worker.

A fork waits (``_settle``) until the streams that were ended just before it are really gone, and grpc's threads with them, those of
its core and the one that takes a stream's requests: where the C library forks, Python's own lock stays broken in a child if a
thread was waiting for it.
"""

from __future__ import annotations

import gc
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol, Self

from meshlib.runtime import threads
from meshlib.runtime.process import Local, settle_before_fork
from meshlib.sources.channel import call_metadata, note_fork, open_channel, wait_quiet
from meshlib.sources.protocol import lacks_method

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc

    from meshlib.model.status import Ignored
    from meshlib.xds.bootstrap import Server

__all__ = ["AdsStream", "Ears", "GrpcStream", "Opener", "channels_closed", "closed", "opened", "words"]

#: grpcio's connectivity watcher looks every 0.2 s whether anybody still listens, and raises in its thread if the channel
#: is closed before it looked. Seconds from the last listener's leaving until a channel may be closed where a grpcio does not say
#: whether its watcher is there; between two looks whether it is; and the most that is waited for one.
_WATCHER_ENDS = 0.25
_WATCHER_LOOKS = 0.01
_WATCHER_MOST = 5.0
#: Seconds for which a fork waits for ended streams, and for grpc's own threads after them.
_SETTLE = 0.5
_QUIET = 1.0
#: The same where channels were closed, of which the application may have more; grpc's threads end in some milliseconds, or not.
_QUIET_CHANNELS = 0.2
#: Threads of streams that a fork waits for after their channels were closed: they end within moments.
_MOST_ENDING = 16


class Ears(Protocol):
    """Who hears of a stream, on the worker. ``stream`` tells a late call of an earlier stream."""

    def on_ready(self, stream: AdsStream) -> None: ...

    def on_message(self, stream: AdsStream, raw: bytes) -> None: ...

    def on_end(self, stream: AdsStream, error: str, *, unimplemented: bool = False) -> None:
        """``unimplemented``: the server said that it does not have what the stream is."""
        ...

    def on_state(self, stream: AdsStream, error: str, ignored: tuple[Ignored, ...] = ()) -> None:
        """A stream that lives on says what is wrong now (``""``: nothing), and what it has read and left out."""
        ...


class AdsStream(Protocol):
    """What the source does with a stream."""

    def send(self, raw: bytes) -> None:
        """Write a request. Never blocks."""
        ...

    def consumed(self) -> None:
        """The last message was dealt with."""
        ...

    def cancel(self, timeout: float = 0.5) -> None:
        """End it, and wait for its thread at most that many seconds."""
        ...


class Opener(Protocol):
    """Makes a stream that has begun to connect. ``protocol``: "sotw" or "delta"."""

    def __call__(
        self, server: Server, ears: Ears, post: Callable[[Callable[[], object]], None], protocol: str
    ) -> AdsStream: ...


class _Requests(Iterator[bytes]):
    """What a thread of grpcio's takes requests from."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._taker: threading.Thread | None = None
        self._taken = threading.Event()

    def put(self, raw: bytes | None) -> None:
        self._queue.put(raw)

    def join(self, timeout: float) -> None:
        """Of a call that was made and is over: wait for the end of that thread, which would be in the way of a fork, at most so many
        seconds.
        """
        until = time.monotonic() + timeout
        if self._taken.wait(timeout) and self._taker is not None:
            threads.join(self._taker, max(0.0, until - time.monotonic()))

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        if self._taker is None:
            self._taker = threading.current_thread()
            self._taken.set()
        raw = self._queue.get()
        if raw is None:
            raise StopIteration
        return raw


class GrpcStream:
    """A stream on a channel of its own. ``method``: of the service; aggregated discovery unless it is said. ``announces``: it says
    when it is connected, for which grpcio has a thread look five times a second. ``only``: the one request of a method that takes no
    more than that.

    ``_lock`` guards the call and the channel between the reader thread, which makes them, and ``cancel``.
    """

    def __init__(
        self,
        server: Server,
        ears: Ears,
        post: Callable[[Callable[[], object]], None],
        protocol: str,
        *,
        method: str = "",
        announces: bool = True,
        only: bytes | None = None,
    ) -> None:
        self._server = server
        self._protocol = protocol
        self._method = method
        self._ears = ears
        self._post = post
        self._requests = _Requests()
        if only is not None:
            self._requests.put(only)
            self._requests.put(None)
        self._consumed = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._cancelled = False
        self._listens = announces
        self._closable = 0.0  # when (monotonic) the connectivity watcher is surely gone
        self._channel: grpc.Channel | None = None
        self._call: Any = None
        self._thread = threading.Thread(target=self._run, name="meshlib-xds", daemon=True)
        opened(self)
        threads.start(self._thread)

    def send(self, raw: bytes) -> None:
        self._requests.put(raw)

    def consumed(self) -> None:
        self._consumed.release()

    def cancel(self, timeout: float = 0.5) -> None:
        with self._lock:
            self._cancelled = True
            call = self._call
        self._requests.put(None)
        self._consumed.release()
        if call is not None:
            call.cancel()
        threads.join(self._thread, timeout)

    # --- the reader thread --------------------------------------------------------------------------------------

    def _run(self) -> None:
        unimplemented = False
        try:
            error = self._read()
        except Exception as problem:  # noqa: BLE001 - whatever it is, the source must hear of the end
            error, unimplemented = words(problem), lacks_method(problem)
        self._post(lambda: self._ears.on_end(self, error, unimplemented=unimplemented))
        try:
            self._close()
        finally:
            closed(self, self._thread)

    def _read(self) -> str:
        call = self._open()
        if call is None:
            return "cancelled"
        for raw in call:
            self._post(lambda raw=raw: self._ears.on_message(self, raw))  # type: ignore[misc]
            self._consumed.acquire()
            if self._cancelled:
                return "cancelled"
        return ""

    def _open(self) -> Any:
        from meshlib.xds.schema import ADS_DELTA, ADS_SOTW

        metadata = call_metadata(self._server)
        channel = open_channel(self._server)
        with self._lock:
            if self._cancelled:
                channel.close()
                return None
            self._channel = channel
            # None: bytes as they are. No deadline and no context of anybody's call (ST-12).
            method = self._method or (ADS_DELTA if self._protocol == "delta" else ADS_SOTW)
            self._call = channel.stream_stream(method, None, None)(self._requests, metadata=metadata or None)
        if self._listens:
            channel.subscribe(self._connectivity, try_to_connect=True)
        return self._call

    def _connectivity(self, state: grpc.ChannelConnectivity) -> None:
        """In a thread of grpc's."""
        channel = self._channel
        if state.name != "READY" or not self._listens or channel is None:
            return
        self._unwatch(channel)
        self._post(lambda: self._ears.on_ready(self))

    def _unwatch(self, channel: grpc.Channel) -> None:
        # First: the reader thread, which closes, may find that another is about to leave it.
        self._closable = math.inf
        self._listens = False
        try:
            channel.unsubscribe(self._connectivity)
        finally:
            self._closable = time.monotonic() + _WATCHER_ENDS

    def _watched(self, channel: grpc.Channel) -> bool:
        """Whether grpcio's watcher may still look at it."""
        state, now = getattr(channel, "_connectivity_state", None), time.monotonic()
        known = getattr(state, "polling", None)  # grpcio's own: cleared by the watcher at its end
        return now < self._closable if known is None else known and now < self._closable + _WATCHER_MOST

    def _close(self) -> None:
        self._requests.put(None)
        with self._lock:
            channel, self._channel = self._channel, None
            call, self._call = self._call, None
        if channel is None:
            return
        if self._listens:
            self._unwatch(channel)
        while self._watched(channel):
            time.sleep(_WATCHER_LOOKS)
        channel.close()
        if call is not None:
            self._requests.join(_SETTLE)


class _Live(Protocol):
    def cancel(self, timeout: float) -> None:
        """End it, and wait at most that many seconds until its channel is closed."""
        ...


class _Streams:
    """Those of one process: ``live`` have a channel or are about to; ``ending``: the threads of those that had one last; ``lately``:
    since grpc was last waited for.
    """

    def __init__(self) -> None:
        self.live: set[_Live] = set()  # adding, discarding and copying are atomic
        self.ending: deque[threading.Thread] = deque(maxlen=_MOST_ENDING)
        self.lately = False
        self.closed = False  # channels of others, since the last fork


_streams = Local(_Streams)


def _settle() -> None:
    """Before a fork: all meshes are paused, so that whatever still lives is on its way to its end."""
    mine = _streams.get()
    until = time.monotonic() + _SETTLE
    for stream in list(mine.live):
        stream.cancel(max(0.0, until - time.monotonic()))
    for thread in tuple(mine.ending):
        threads.join(thread, max(0.0, until - time.monotonic()))
    if _polls():
        # A channel of asyncio that nobody has any more is in it until it is collected: in the child, which waits for it for ever.
        gc.collect()
        mine.closed = mine.closed or not _polls()
    if mine.lately or mine.closed:
        wait_quiet(_QUIET if mine.lately else _QUIET_CHANNELS)
        mine.lately, mine.closed = bool(mine.live), False
    note_fork()


def _polls() -> bool:
    """Whether grpc's thread for channels of asyncio runs: it is there as long as one of them is."""
    return any("_poll_wrapper" in thread.name for thread in threading.enumerate())


def opened(stream: _Live) -> None:
    """It has a channel to a control plane, or is about to: a fork waits until it is `closed`."""
    mine = _streams.get()
    mine.live.add(stream)
    mine.lately = True


def closed(stream: _Live, thread: threading.Thread | None = None) -> None:
    """Its channel is closed; ``thread``: has nothing else to do, and ends."""
    mine = _streams.get()
    if thread is not None:
        mine.ending.append(thread)
    mine.live.discard(stream)


def channels_closed() -> None:
    """Channels of this process that are of no stream were closed: the next fork waits for grpc's threads to end."""
    _streams.get().closed = True


settle_before_fork(_settle)


def words(problem: Exception) -> str:
    """What a person is told of how a call ended. grpc's text begins with what every failed connection has in common."""
    code, details = getattr(problem, "code", None), getattr(problem, "details", None)
    if callable(code) and callable(details):
        text = str(details() or "").removeprefix("failed to connect to all addresses; last error: ")
        status = code()
        name = getattr(status, "name", str(status))
        return f"{name}: {text}" if text else name
    return f"{type(problem).__name__}: {problem}"
