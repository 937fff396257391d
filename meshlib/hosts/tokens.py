"""How an attempt gets the token that it is to bring (:mod:`meshlib.core.tokens`), by those who wait for it in each way.

A file is read where the attempt is made: that costs some microseconds, and it is never older than that. What the application's
callable waits for holds up the calls that need its token and nobody else: a task's is called in a thread, unless it is asynchronous.
"""

from __future__ import annotations

from contextvars import copy_context
from typing import TYPE_CHECKING, Any, NoReturn

from meshlib.runtime.tokens import as_token, read_token

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.core.attempt import Send
    from meshlib.core.tokens import Demand
    from meshlib.pools.bounds import Bounds

__all__ = ["NoToken", "at_hand", "bring", "bring_async", "given_async", "given_later", "too_late"]


class NoToken(Exception):
    """The token of a service cannot be had, or not be sent. Its words have no part of one."""

    def __init__(self, demand: Demand, problem: str) -> None:
        super().__init__(f"{demand.service} wants a token: {problem}")


def at_hand(demand: Demand) -> bool:
    """Whether nobody need be asked: it is in a file, or may not be sent."""
    return bool(demand.barred) or isinstance(demand.source, str)


def bring(attempt: Send) -> None:
    """Give ``attempt`` its token. Blocks for as long as the application's callable does. Raises NoToken."""
    assert attempt.token is not None
    attempt.bring(given(attempt.token))


async def bring_async(attempt: Send, bounds: Bounds) -> None:
    """The same for a task, within the attempt's time."""
    demand = attempt.token
    assert demand is not None
    if at_hand(demand):
        bring(attempt)
        return
    import anyio

    try:
        with anyio.fail_after(bounds.left("connect")):
            attempt.bring(await given_async(demand))
    except TimeoutError:
        raise too_late(demand) from None


def too_late(demand: Demand) -> NoToken:
    """What gives it was asked, and did not answer in the time of the attempt."""
    return NoToken(demand, "it did not come in time")


def given(demand: Demand) -> str:
    """The token. Raises NoToken."""
    source = demand.source
    if demand.barred:
        raise NoToken(demand, demand.barred)
    if isinstance(source, str):
        try:
            return read_token(source)
        except OSError as problem:
            raise NoToken(demand, str(problem)) from None
    if demand.waits:
        raise NoToken(demand, "what gives it is asynchronous, and the client is not")
    try:
        found = as_token(source())
    except Exception as problem:  # noqa: BLE001 - whatever the application raises
        _failed(demand, problem)
    return _checked(demand, found)


async def given_async(demand: Demand) -> str:
    """What the application's callable gives. Raises NoToken."""
    source: Any = demand.source
    if not demand.waits:
        import anyio.to_thread

        return await anyio.to_thread.run_sync(given, demand, abandon_on_cancel=True)
    try:
        found = as_token(await source())
    except Exception as problem:  # noqa: BLE001 - whatever the application raises
        _failed(demand, problem)
    return _checked(demand, found)


def given_later(demand: Demand, then: Callable[[str | BaseException], object]) -> Callable[[], None]:
    """What a thread does that asks for a token: ``then`` gets it, or why there is none."""

    def ask() -> None:
        try:
            told: str | BaseException = given(demand)
        except BaseException as problem:  # noqa: BLE001 - the caller's, when it asks
            told = problem
        then(told)

    context = copy_context()
    return lambda: context.run(ask)


def _failed(demand: Demand, problem: Exception) -> NoReturn:
    # Its words are the application's, and may have what is secret.
    raise NoToken(demand, f"what gives it failed ({type(problem).__name__})") from problem


def _checked(demand: Demand, found: str | None) -> str:
    if found is None:
        raise NoToken(demand, "what was given is none: it is text of visible ASCII, 16 KiB at most")
    return found
