"""How a rate limit service (:class:`meshlib.core.effects.Ask`) and a storage (:class:`meshlib.core.effects.Take`) are asked, by those who
wait for the answer in each way.

A question to a service is an RPC over a channel of ours to the service's cluster, so that it is balanced, goes over the cluster's TLS and survives
a fork as any other. There is one channel a cluster, made on first use and kept as long as the runtime. A storage is asked by a thread of its
own (:mod:`meshlib.runtime.shared`). Nothing of either blocks an event loop. Whatever goes wrong is no answer: what follows then is the plan's.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

from meshlib.core.effects import Ask, Take

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.model.limits import Verdict
    from meshlib.runtime.runtime import Runtime

__all__ = ["ask", "ask_async", "ask_later"]

_log = logging.getLogger("meshlib")

#: Seconds beyond its time within which an RPC has ended.
_GRACE = 1.0


def ask_later(runtime: Runtime, question: Ask | Take, then: Callable[[Any], object]) -> Callable[[], object]:
    """Ask; ``then`` gets the answer, once, in whatever thread it comes, or None. Gives what ends it. A storage may answer too late."""
    if isinstance(question, Take):
        question.limiter.ask(then)
        return bool

    from meshlib.xds import rls

    def told(call: Any) -> None:
        try:
            answer = rls.verdict(call.result())
        except Exception as error:  # noqa: BLE001 - whatever it is, there is no answer
            _log.debug("meshlib: the rate limit service %s does not answer: %r", question.cluster, error)
            answer = None
        then(answer)

    try:
        channel = runtime.services.get(question.part, question.cluster, question.authority)
        method = channel.unary_unary(rls.METHOD)
        call = method.future(rls.question(question), timeout=question.seconds, metadata=question.metadata)
    except Exception as error:  # noqa: BLE001 - no channel can be had: as above
        _log.debug("meshlib: the rate limit service %s cannot be asked: %r", question.cluster, error)
        then(None)
        return bool
    call.add_done_callback(told)
    end: Callable[[], object] = call.cancel
    return end


def ask(runtime: Runtime, question: Ask | Take) -> Any:
    """Ask, and wait for the answer."""
    done = threading.Event()
    found: list[Verdict | bool | None] = []

    def told(answer: Verdict | bool | None) -> None:
        found.append(answer)
        done.set()

    end = ask_later(runtime, question, told)
    try:
        done.wait(None if runtime.clock.virtual else _patience(question))
    finally:
        if not found:
            end()
    return found[0] if found else None


async def ask_async(runtime: Runtime, question: Ask | Take) -> Any:
    """The same for a task."""
    from meshlib.runtime.signal import Signal

    signal = Signal()
    found: list[Verdict | bool | None] = []

    def told(answer: Verdict | bool | None) -> None:
        found.append(answer)
        signal.set()

    end = ask_later(runtime, question, told)
    try:
        await signal.wait(runtime.clock.now() + _patience(question), runtime.clock)
    finally:
        if not found:
            end()
    return found[0] if found else None


def _patience(question: Ask | Take) -> float:
    """The channel keeps the time of an RPC; nobody does for a storage."""
    return question.seconds + (_GRACE if isinstance(question, Ask) else 0.0)
