"""State that processes share: buckets of tokens in a Redis, one script a decision.

Theory. A call that a shared limit holds does not ask by itself: it leaves its question with a thread, which takes all that came while it
was waiting for the last answer and asks for them at once, in one round trip, a script for each bucket. So nothing blocks an event loop, a
process has one connection, and a busy one asks no more often than Redis answers.

    calls ──ask──► waiting ──thread──► EVALSHA (bucket, how many) ──► so many of them pass, the first that came

The script counts by the clock of Redis, so hosts need not agree on the time. A bucket that is not there is a full one; it is forgotten
once it must be full again.

    answering ──an error, or no answer in time──► away ──after AWAY seconds, one question──► answering

While a storage is away nobody waits for it: each process counts for itself. A question that is under way for longer than a call would wait
makes it away too. The thread lives while there is something to ask, and a moment longer.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakValueDictionary

from meshlib.core.plan_limits import SECONDS
from meshlib.runtime import threads
from meshlib.runtime.process import Local

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meshlib.model.policy import RateLimit

    #: Who waits for each bucket.
    _Batch = dict["_Bucket", list[Callable[[bool | None], object]]]

__all__ = ["AWAY", "Storage", "storage_of"]

#: Seconds for which a storage that failed is left alone.
AWAY = 1.0
#: Seconds for which the thread waits for a next question.
_LINGER = 5.0

_log = logging.getLogger("meshlib")

# Answers how many of those that ask may pass. A clock that was set back gives nothing, and goes on from there. A bucket is kept for a second
# longer than it takes to fill, at most for a day.
_TAKE = """
local rate, burst, asked = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local kept = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local since = math.max(0, now - (tonumber(kept[2]) or now))
local tokens = math.min(burst, (tonumber(kept[1]) or burst) + since * rate)
local given = math.max(0, math.min(asked, math.floor(tokens)))
redis.call('HSET', KEYS[1], 'tokens', string.format('%.9f', tokens - given), 'at', string.format('%.6f', now))
redis.call('PEXPIRE', KEYS[1], math.ceil(math.min(86400, 1 + burst / rate) * 1000))
return given
"""
_SHA = hashlib.sha1(_TAKE.encode(), usedforsecurity=False).hexdigest()


class _Bucket(NamedTuple):
    name: str
    rate: float
    burst: float


class _Process:
    """What of a storage is one process's. ``changed`` guards all of it."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.waiting: _Batch = {}
        self.running = False
        self.since: float | None = None  # when the question was asked that is under way
        self.away: float | None = None  # until when it is left alone; None: it answered last
        self.told = False  # that it does not answer


class Storage:
    """One client of Redis. Thread-safe, and across fork; no method blocks, and ``then`` is called in any thread."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._process = Local(_Process)

    def take(self, name: str, limit: RateLimit, then: Callable[[bool | None], object]) -> None:
        """Ask whether a call may pass that takes from the bucket ``name``; None: the storage does not answer."""
        mine = self._process.get()
        now = time.monotonic()
        with mine.changed:
            hangs = mine.since is not None and now - mine.since > SECONDS
            news = hangs and not mine.told
            mine.told = mine.told or hangs
            busy = mine.waiting or mine.since is not None
            asks = not hangs and (mine.away is None or (now >= mine.away and not busy))
            if asks:
                mine.waiting.setdefault(_Bucket(name, limit.rate, limit.burst), []).append(then)
                if mine.running:
                    mine.changed.notify()
                else:
                    mine.running = True
                    threads.start(
                        threading.Thread(
                            target=self._run, args=(mine,), name="meshlib-rate-limit-storage", daemon=True
                        )
                    )
        if news:
            _say(f"does not answer within {SECONDS} s")
        if not asks:
            then(None)

    def _run(self, mine: _Process) -> None:
        while True:
            with mine.changed:
                if not mine.changed.wait_for(lambda: mine.waiting, _LINGER):
                    mine.running = False
                    return
                batch, mine.waiting = mine.waiting, {}
                mine.since = time.monotonic()
            answers, error = self._ask(batch)
            with mine.changed:
                mine.since = None
                mine.away = None if error is None else time.monotonic() + AWAY
                news, mine.told = mine.told is (error is None), error is not None
            if news and error is None:
                _log.warning("meshlib: the storage of rate limits answers again")
            elif news:
                _say(f"fails: {type(error).__name__}: {error}")
            for waiting, given in zip(batch.values(), answers, strict=True):
                for number, then in enumerate(waiting):
                    then(None if given is None else number < given)

    def _ask(self, batch: _Batch) -> tuple[list[int | None], object]:
        """How many of each bucket may pass, None where nobody knows, and the last error."""
        arguments = [
            (1, f"meshlib:rate_limit:{name}", repr(rate), repr(burst), len(waiting))
            for (name, rate, burst), waiting in batch.items()
        ]
        try:
            answers = self._send("evalsha", _SHA, arguments)
            if any(type(each).__name__ == "NoScriptError" for each in answers):
                answers = [
                    again if type(each).__name__ == "NoScriptError" else each
                    for each, again in zip(answers, self._send("eval", _TAKE, arguments), strict=True)
                ]
        except Exception as error:  # noqa: BLE001 - whatever a client raises, there is no answer
            return [None] * len(arguments), error
        wrong = next((each for each in answers if not isinstance(each, int)), None)
        return [each if isinstance(each, int) else None for each in answers], wrong

    def _send(self, command: str, script: str, arguments: Sequence[tuple[object, ...]]) -> list[Any]:
        with self._client.pipeline(transaction=False) as pipe:
            for each in arguments:
                getattr(pipe, command)(script, *each)
            answers: list[Any] = pipe.execute(raise_on_error=False)
        return answers


def _say(what: str) -> None:
    _log.warning(
        "meshlib: the storage of rate limits %s; each process counts for itself until it answers", what
    )


_storages: WeakValueDictionary[int, Storage] = WeakValueDictionary()
_making = Local(threading.Lock)  # guards the above


def storage_of(client: object) -> Storage:
    """The one of a client, for all that use it."""
    with _making.get():
        found = _storages.get(id(client))  # which lives as long as its storage
        if found is None:
            found = _storages[id(client)] = Storage(client)
        return found
