"""What a trace is told of the steps of a request: httpcore's names and shapes (``<step>.started``, ``.complete``, ``.failed``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from meshlib.wire.message import Head, Lines

__all__ = ["shown", "traced", "traced_async"]

T = TypeVar("T")


def traced(
    trace: Callable[[str, dict[str, Any]], object] | None,
    step: str,
    info: dict[str, Any],
    call: Callable[..., T],
    *arguments: Any,
) -> T:
    """``call(*arguments)``, as a step that ``trace`` is told of."""
    if trace is None:
        return call(*arguments)
    trace(f"{step}.started", info)
    try:
        value = call(*arguments)
    except BaseException as error:
        trace(f"{step}.failed", {"exception": error})
        raise
    trace(f"{step}.complete", {"return_value": value})
    return value


async def traced_async(
    trace: Callable[[str, dict[str, Any]], Awaitable[object]] | None,
    step: str,
    info: dict[str, Any],
    call: Callable[..., Awaitable[T]],
    *arguments: Any,
) -> T:
    """The same, awaited."""
    if trace is None:
        return await call(*arguments)
    await trace(f"{step}.started", info)
    try:
        value = await call(*arguments)
    except BaseException as error:
        await trace(f"{step}.failed", {"exception": error})
        raise
    await trace(f"{step}.complete", {"return_value": value})
    return value


def shown(head: Head) -> tuple[bytes, int, bytes, Lines]:
    """A head as a trace is told of it."""
    return head.version, head.status, head.reason, head.headers
