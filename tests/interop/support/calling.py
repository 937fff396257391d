"""Calls that go on while something happens, and waiting for what they show."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter, deque
from typing import TYPE_CHECKING, Any

from tests.support.asking import asked

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

PATIENCE = 20.0  # seconds for anything that has to come about; a push of istiod takes about 0.2 s
PAUSE = 0.004  # between two calls of one caller, so that they leave the machine to the servers


class Calls:
    """What the calls brought. A lock guards all; every method may be used from any thread.

    ``names``: by the name that answered, every call so far. ``failures``: what was no 200, in words.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._names: Counter[str] = Counter()
        self._recent: deque[str] = deque(maxlen=200)
        self._failures: list[str] = []
        self._over = threading.Event()

    def record(self, call: Callable[[], Any]) -> None:
        try:
            self._note(call())
        except Exception as problem:  # noqa: BLE001 (whatever it is, it is a failed call)
            self._fail(problem)

    async def record_async(self, call: Callable[[], Any]) -> None:
        try:
            self._note(await call())
        except Exception as problem:  # noqa: BLE001 (whatever it is, it is a failed call)
            self._fail(problem)

    def _note(self, response: Any) -> None:
        with self._changed:
            if response.status_code == 200:
                name = response.json()["name"]
                self._names[name] += 1
                self._recent.append(name)
            else:
                self._failures.append(f"{response.status_code} {response.text[:200]}")
            self._changed.notify_all()

    def _fail(self, problem: Exception) -> None:
        with self._changed:
            self._failures.append(f"{type(problem).__name__}: {problem}")
            self._changed.notify_all()

    @property
    def names(self) -> Counter[str]:
        with self._changed:
            return Counter(self._names)

    @property
    def failures(self) -> list[str]:
        with self._changed:
            return list(self._failures)

    @property
    def over(self) -> bool:
        return self._over.is_set()

    def pause(self) -> None:
        self._over.wait(PAUSE)

    def finish(self) -> None:
        self._over.set()

    def more(self, count: int = 50) -> None:
        """Waits until this many further calls have come back, well or not."""
        with self._changed:
            goal = self._total() + count
            self._wait(lambda: self._total() >= goal, f"{count} more calls")

    def only(self, *names: str, count: int = 100) -> None:
        """Waits until the last `count` good answers came from these, and from each of them."""
        wanted = set(names)

        def reached() -> bool:
            last = list(self._recent)[-count:]
            return len(last) >= count and set(last) == wanted

        with self._changed:
            self._wait(reached, f"answers only from {', '.join(sorted(wanted))}")

    def _total(self) -> int:
        return self._names.total() + len(self._failures)

    def _wait(self, reached: Callable[[], bool], what: str) -> None:
        if not self._changed.wait_for(reached, PATIENCE):
            last = Counter(list(self._recent)[-100:])
            raise AssertionError(
                f"waited {PATIENCE:g} s for {what}; the last came from {dict(last)}; failures: {self._failures[-5:]}"
            )


@contextlib.contextmanager
def calling(call: Callable[[], Any], *, callers: int = 4) -> Iterator[Calls]:
    """Inside, this many threads make `call` over and over. At the end the last calls have come back."""
    calls = Calls()

    def work() -> None:
        while not calls.over:
            calls.record(call)
            calls.pause()

    threads = [
        threading.Thread(target=work, name=f"caller-{number}", daemon=True) for number in range(callers)
    ]
    for thread in threads:
        thread.start()
    try:
        yield calls
    finally:
        calls.finish()
        for thread in threads:
            thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads), "a call has not come back"


@contextlib.asynccontextmanager
async def calling_async(call: Callable[[], Any], *, callers: int = 20) -> AsyncIterator[Calls]:
    """As `calling`, with tasks. `Calls` blocks: ask it through ``asyncio.to_thread``."""
    calls = Calls()

    async def work() -> None:
        while not calls.over:
            await calls.record_async(call)
            await asyncio.sleep(PAUSE)

    tasks = [asyncio.create_task(work()) for _ in range(callers)]
    try:
        yield calls
    finally:
        calls.finish()
        await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE)


def said(reached: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """What a control plane says once it is true. It is a program of others, which answers and tells nothing by itself."""
    answer = asked(reached, seconds)
    assert answer, f"waited {seconds:g} s for {what}"
    return answer


def fits(counted: Counter[str], name: str, probability: float) -> bool:
    """Whether `name` came as often as `probability` says, within six standard deviations of a binomial."""
    total = counted.total()
    spread = (total * probability * (1 - probability)) ** 0.5
    return abs(counted[name] - total * probability) <= 6 * spread
