"""One face for calls over a sync and over an aio channel: what a case asks for, and what came of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import queue
import threading
import time
from collections import Counter, deque
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import grpc

from tests.conformance.support.server import SAY, TALK
from tests.support.asking import asked

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Sequence

__all__ = ["AioCalls", "Answer", "Caller", "Loop", "Pending", "SyncCalls"]

PATIENCE = 15.0  # seconds for a channel to do what it has been told
TIMEOUT = 10.0  # seconds that a call has where the case says nothing
_ABREAST = 20  # calls in flight at a time where many are made


@dataclass(frozen=True)
class Answer:
    """What came of a call. ``who`` answered (None where nobody did), and what that server saw of the call."""

    code: grpc.StatusCode
    details: str
    seconds: float
    who: str | None = None
    path: str = ""
    metadata: tuple[tuple[str, str], ...] = ()
    left: float | None = None  # seconds to the deadline, as the server saw it
    authority: str = ""
    initial: tuple[tuple[str, str], ...] = ()  # the metadata of the answer that came before it

    @property
    def outcome(self) -> str:
        """Who answered, or the name of the code."""
        return self.who or self.code.name

    def values(self, name: str) -> list[str]:
        """The values of this name that arrived as the call's metadata."""
        return [value for key, value in self.metadata if key == name]


def _answer(
    code: grpc.StatusCode, details: str | None, data: bytes | None, seconds: float, initial: Any = ()
) -> Answer:
    if code is not grpc.StatusCode.OK or data is None:
        return Answer(code, details or "", seconds)
    said = json.loads(data)
    metadata = tuple((key, value) for key, value in said["metadata"])
    before = tuple((key, value) for key, value in initial or () if isinstance(value, str))
    return Answer(
        code,
        details or "",
        seconds,
        said["who"],
        said["path"],
        metadata,
        said["left"],
        said["authority"],
        before,
    )


class Pending(Protocol):
    """A call in flight."""

    def result(self, seconds: float = PATIENCE) -> Answer: ...

    def cancel(self) -> None: ...


class Talk(Protocol):
    """A stream in both directions."""

    def say(self, text: str = "") -> str:
        """Sends a message, and gives the name of who answers it. Raises grpc.RpcError once the stream is broken."""

    def over(self) -> grpc.StatusCode:
        """The code that it has ended with, when it has."""

    def finish(self) -> grpc.StatusCode:
        """Sends no more, and gives the code that it ends with."""


class _Calls(Protocol):
    def start(self, path: str, payload: bytes, **options: Any) -> Pending: ...

    def talk(self, path: str, **options: Any) -> Talk: ...

    def close(self) -> None: ...


class Caller:
    """Makes calls over one channel."""

    def __init__(self, calls: _Calls) -> None:
        self._calls = calls

    def start(
        self,
        path: str = SAY,
        *,
        payload: bytes = b"",
        metadata: Sequence[tuple[str, str | bytes]] = (),
        timeout: float | None = TIMEOUT,
        wait_for_ready: bool | None = None,
    ) -> Pending:
        """A call that is on its way."""
        return self._calls.start(
            path, payload, metadata=tuple(metadata), timeout=timeout, wait_for_ready=wait_for_ready
        )

    def call(self, path: str = SAY, **options: Any) -> Answer:
        """What comes of a call."""
        return self.start(path, **options).result(PATIENCE + (options.get("timeout") or 0))

    def outcome(self, path: str = SAY, **options: Any) -> str:
        """Who answers a call, or the name of its code."""
        return self.call(path, **options).outcome

    def talk(self, path: str = TALK, *, timeout: float | None = TIMEOUT) -> Talk:
        """A stream that is open as far as we are concerned."""
        return self._calls.talk(path, timeout=timeout)

    def many(self, count: int, path: str = SAY, **options: Any) -> Counter[str]:
        """How often each outcome came of so many calls, some of them abreast."""
        seen: Counter[str] = Counter()
        flying: deque[Pending] = deque()
        for _ in range(count):
            if len(flying) == _ABREAST:
                seen[flying.popleft().result().outcome] += 1
            flying.append(self.start(path, **options))
        seen.update(each.result().outcome for each in flying)
        return seen

    def row(self, count: int, path: str = SAY, **options: Any) -> list[str]:
        """The outcomes of so many calls, one after the other."""
        return [self.call(path, **options).outcome for _ in range(count)]

    def becomes(
        self, *outcomes: str, calls: int = 0, path: str = SAY, seconds: float = PATIENCE, **options: Any
    ) -> None:
        """Calls until a row of calls has these outcomes, each of them, and no other. Raises AssertionError if it never does.

        A channel tells nobody what it has taken in, so it is called until it shows.
        """
        rows = calls or 4 * len(outcomes)
        last: list[str] = []

        def shown() -> bool:
            last[:] = self.row(rows, path, **options)
            return set(last) == set(outcomes)

        assert asked(shown, seconds), (
            f"waited {seconds:g} s for {sorted(set(outcomes))}; the last outcomes were {last}"
        )

    def until(
        self,
        condition: Callable[[Answer], bool],
        path: str = SAY,
        *,
        seconds: float = PATIENCE,
        **options: Any,
    ) -> Answer:
        """Calls until the condition is true of an answer, and gives that. Raises AssertionError if it never is; as `becomes`."""
        last: list[Answer] = []

        def shown() -> bool:
            last[:] = [self.call(path, **options)]
            return condition(last[0])

        assert asked(shown, seconds), f"waited {seconds:g} s; the last answer was {last[0]}"
        return last[0]

    def fails(
        self, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE, path: str = SAY, **options: Any
    ) -> Answer:
        """Calls until a call ends with this code, and gives that answer."""
        return self.until(lambda answer: answer.code is code, path, **options)

    @contextlib.contextmanager
    def calling(self, path: str = SAY) -> Iterator[Counter[str]]:
        """Inside, calls are made all the time; gives how often each outcome has come so far. One has come back before, and one
        begins after; at the end all have come back.
        """
        seen: Counter[str] = Counter()
        begun, over = threading.Event(), threading.Event()
        thread = threading.Thread(
            target=self._go_on, args=(path, seen, begun, over), name="calling", daemon=True
        )
        thread.start()
        try:
            assert begun.wait(PATIENCE), "the first call has not come back"
            yield seen
        finally:
            over.set()
            thread.join(PATIENCE)
        assert not thread.is_alive(), "a call has not come back"

    def _go_on(self, path: str, seen: Counter[str], begun: threading.Event, over: threading.Event) -> None:
        last = False
        while not last:
            last = over.is_set()
            seen[self.call(path).outcome] += 1
            begun.set()

    def close(self) -> None:
        self._calls.close()


# ------------------------------------------------------------------------------------------------------ a sync channel


class SyncCalls:
    """Calls over a ``grpc.Channel``."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    def start(self, path: str, payload: bytes, **options: Any) -> Pending:
        return _SyncPending(self._channel.unary_unary(path), payload, options)

    def talk(self, path: str, **options: Any) -> Talk:
        return _SyncTalk(self._channel, path, options)

    def close(self) -> None:
        self._channel.close()


class _SyncPending:
    def __init__(self, method: Any, payload: bytes, options: dict[str, Any]) -> None:
        self._begun = time.monotonic()
        self._ended = self._begun
        self._done = threading.Event()
        self._future = method.future(payload, **options)
        self._future.add_done_callback(self._over)

    def _over(self, _: object) -> None:
        self._ended = time.monotonic()
        self._done.set()

    def result(self, seconds: float = PATIENCE) -> Answer:
        assert self._done.wait(seconds), f"a call has not come back within {seconds:g} s"
        code = self._future.code()
        data = self._future.result() if code is grpc.StatusCode.OK else None
        initial = self._future.initial_metadata()
        return _answer(code, self._future.details(), data, self._ended - self._begun, initial)

    def cancel(self) -> None:
        self._future.cancel()


class _SyncTalk:
    def __init__(self, channel: grpc.Channel, path: str, options: dict[str, Any]) -> None:
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._call = channel.stream_stream(path)(iter(self._requests.get, None), **options)

    def say(self, text: str = "") -> str:
        self._requests.put(text.encode())
        try:
            return str(json.loads(next(self._call))["who"])
        except BaseException:
            self._requests.put(None)  # what reads the requests ends with the call
            raise

    def over(self) -> grpc.StatusCode:
        try:
            for _ in self._call:
                raise AssertionError("a message that nobody asked for")
        except grpc.RpcError:
            pass
        self._requests.put(None)
        return self._call.code()

    def finish(self) -> grpc.StatusCode:
        self._requests.put(None)
        return self.over()


# ------------------------------------------------------------------------------------------------------ an aio channel


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="loop", daemon=True)
        self._thread.start()

    def submit(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Coroutine[Any, Any, Any], seconds: float = PATIENCE) -> Any:
        return self.submit(work).result(seconds)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()


class AioCalls:
    """Calls over a ``grpc.aio.Channel``, which ``make`` makes on the loop that it is used on."""

    def __init__(self, loop: Loop, make: Callable[[], grpc.aio.Channel]) -> None:
        self._loop = loop
        self._channel: grpc.aio.Channel = loop.run(_made(make))

    def start(self, path: str, payload: bytes, **options: Any) -> Pending:
        return _AioPending(self._loop, self._unary(path, payload, options))

    async def _unary(self, path: str, payload: bytes, options: dict[str, Any]) -> Answer:
        begun = time.monotonic()
        call = self._channel.unary_unary(path)(payload, **options)
        try:
            data = await call
        except grpc.aio.AioRpcError as error:
            return _answer(error.code(), error.details(), None, time.monotonic() - begun)
        code, initial = await call.code(), await call.initial_metadata()
        return _answer(code, await call.details(), data, time.monotonic() - begun, initial)

    def talk(self, path: str, **options: Any) -> Talk:
        return _AioTalk(self._loop, self._channel, path, options)

    def close(self) -> None:
        self._loop.run(self._channel.close())


async def _made(make: Callable[[], Any]) -> Any:
    return make()


class _AioPending:
    def __init__(self, loop: Loop, work: Coroutine[Any, Any, Answer]) -> None:
        self._begun = time.monotonic()
        self._future = loop.submit(work)

    def result(self, seconds: float = PATIENCE) -> Answer:
        try:
            answer: Answer = self._future.result(seconds)
        except CancelledError:
            return Answer(grpc.StatusCode.CANCELLED, "", time.monotonic() - self._begun)
        return answer

    def cancel(self) -> None:
        self._future.cancel()


class _AioTalk:
    def __init__(self, loop: Loop, channel: grpc.aio.Channel, path: str, options: dict[str, Any]) -> None:
        self._loop = loop
        self._call: Any = loop.run(_made(lambda: channel.stream_stream(path)(**options)))

    def say(self, text: str = "") -> str:
        return str(json.loads(self._loop.run(self._exchange(text.encode())))["who"])

    async def _exchange(self, data: bytes) -> bytes:
        await self._call.write(data)
        answer = await self._call.read()
        if answer is grpc.aio.EOF:
            raise AssertionError(f"the stream has ended with {await self._call.code()}")
        return bytes(answer)

    def over(self) -> grpc.StatusCode:
        code: grpc.StatusCode = self._loop.run(self._call.code())
        return code

    def finish(self) -> grpc.StatusCode:
        self._loop.run(self._call.done_writing())
        return self.over()
