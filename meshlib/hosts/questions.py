"""How a rate limit service is asked (:class:`meshlib.core.effects.Ask`), by those who wait for its answer in each way.

A question is an RPC over a channel of ours to the service's cluster, so that it is balanced, goes over the cluster's TLS and survives
a fork as any other; nothing of it blocks an event loop. There is one channel a cluster, made on first use and kept as long as the
runtime. Whatever goes wrong is no answer: what follows then is the plan's.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.core.effects import Ask
    from meshlib.model.limits import Verdict
    from meshlib.runtime.runtime import Runtime

__all__ = ["ask", "ask_async", "ask_later"]

_log = logging.getLogger("meshlib")

#: Seconds beyond its time within which an RPC has ended.
_GRACE = 1.0


def ask_later(
    runtime: Runtime, question: Ask, then: Callable[[Verdict | None], object]
) -> Callable[[], object]:
    """Ask; ``then`` gets the answer, once, in whatever thread it comes, or None. Gives what ends it."""
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


def ask(runtime: Runtime, question: Ask) -> Verdict | None:
    """Ask, and wait for the answer."""
    done = threading.Event()
    found: list[Verdict | None] = []

    def told(answer: Verdict | None) -> None:
        found.append(answer)
        done.set()

    end = ask_later(runtime, question, told)
    try:
        done.wait(None if runtime.clock.virtual else question.seconds + _GRACE)
    finally:
        if not found:
            end()
    return found[0] if found else None


async def ask_async(runtime: Runtime, question: Ask) -> Verdict | None:
    """The same for a task."""
    from meshlib.runtime.signal import Signal

    signal = Signal()
    found: list[Verdict | None] = []

    def told(answer: Verdict | None) -> None:
        found.append(answer)
        signal.set()

    end = ask_later(runtime, question, told)
    try:
        await signal.wait(runtime.clock.now() + question.seconds + _GRACE, runtime.clock)
    finally:
        if not found:
            end()
    return found[0] if found else None
