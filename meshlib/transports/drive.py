"""The two loops: what a plan asks for is done, what came of it is told, until it ends.

The loops hold no decision. Whatever ends them otherwise (a cancelled task, an interrupt, an error of the caller's own
body) is told to the plan, which lets go of everything it holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from meshlib.core.effects import Finish, Pass, Reply, Send, Sleep, Wait
from meshlib.model.call import Outcome, OutcomeKind

if TYPE_CHECKING:
    from meshlib.core.plan import Plan

__all__ = ["AsyncHands", "End", "Hands", "drive", "drive_async"]

End = Finish | Reply | Pass


class Hands(Protocol):
    """What a blocking transport does for a plan. An answer is its own: an open response of some kind."""

    def now(self) -> float: ...

    def send(self, effect: Send) -> tuple[Outcome, Any]:
        """One attempt, up to its response's head. An upstream's failure is an outcome; other errors are raised."""
        ...

    def discard(self, answer: Any) -> None:
        """The answer is not wanted: another attempt follows."""
        ...

    def sleep(self, seconds: float) -> None: ...

    def changed(self, until: float) -> None:
        """Wait for the next configuration, at most until the absolute time ``until``."""
        ...


class AsyncHands(Protocol):
    """What an async transport does for a plan."""

    def now(self) -> float: ...

    async def send(self, effect: Send) -> tuple[Outcome, Any]: ...

    async def discard(self, answer: Any) -> None: ...

    async def sleep(self, seconds: float) -> None: ...

    async def changed(self, until: float) -> None: ...


def drive(plan: Plan, hands: Hands) -> tuple[End, Any]:
    """Run the call to its end. The answer, if there is one, is the caller's to close; so then is the plan."""
    try:
        effect = plan.start(hands.now())
        while True:
            if isinstance(effect, Send):
                outcome, answer = hands.send(effect)
                effect = plan.outcome(outcome, hands.now())
                if answer is not None:
                    if isinstance(effect, Finish) and effect.failure is None:
                        return effect, answer
                    hands.discard(answer)
            elif isinstance(effect, Sleep):
                hands.sleep(effect.seconds)
                effect = plan.woke(hands.now())
            elif isinstance(effect, Wait):
                hands.changed(effect.until)
                effect = plan.woke(hands.now())
            else:
                return effect, None
    except BaseException as error:
        plan.cancel(Outcome(OutcomeKind.CANCELLED, error=error), hands.now())
        raise


async def drive_async(plan: Plan, hands: AsyncHands) -> tuple[End, Any]:
    """The same for a task."""
    try:
        effect = plan.start(hands.now())
        while True:
            if isinstance(effect, Send):
                outcome, answer = await hands.send(effect)
                effect = plan.outcome(outcome, hands.now())
                if answer is not None:
                    if isinstance(effect, Finish) and effect.failure is None:
                        return effect, answer
                    await hands.discard(answer)
            elif isinstance(effect, Sleep):
                await hands.sleep(effect.seconds)
                effect = plan.woke(hands.now())
            elif isinstance(effect, Wait):
                await hands.changed(effect.until)
                effect = plan.woke(hands.now())
            else:
                return effect, None
    except BaseException as error:
        plan.cancel(Outcome(OutcomeKind.CANCELLED, error=error), hands.now())
        raise
