"""What meshlib did with a call, found again from what the host library gave."""

from __future__ import annotations

from typing import Any

from meshlib.errors import MeshError
from meshlib.model.call import CallInfo, OutcomeKind

__all__ = ["attach", "call_info"]

_ATTRIBUTE = "_meshlib_info"


def attach(thing: Any, info: CallInfo) -> None:
    """Remember ``info`` on an exception that is not ours. One of a host that could not be reached directly also tells, in
    a note, which known host may have been meant.
    """
    setattr(thing, _ATTRIBUTE, info)
    if isinstance(thing, BaseException) and info.via == "direct" and _unconnected(info):
        for line in info.trace()[1:]:
            thing.add_note(f"meshlib: {line}")


def _unconnected(info: CallInfo) -> bool:
    return bool(info.attempts) and info.attempts[-1].outcome == OutcomeKind.CONNECT.value


def call_info(thing: object) -> CallInfo | None:
    """The :class:`CallInfo` of a response (httpx, httpx2, requests, urllib3, aiohttp), of a gRPC call, or of an exception that a
    call raised; None where meshlib had no part in it. Of an exception, its causes are asked too.
    """
    if isinstance(thing, BaseException):
        return _of_exception(thing)
    extensions = getattr(thing, "extensions", None)
    if isinstance(extensions, dict):
        found = extensions.get("meshlib")
        return found if isinstance(found, CallInfo) else None
    while True:
        found = getattr(thing, _ATTRIBUTE, None)
        if isinstance(found, CallInfo):
            return found
        # What grpc's interceptors make of a call has it inside.
        thing = getattr(thing, "_call", None) if type(thing).__module__ == "grpc._interceptor" else None
        if thing is None:
            return None


def _of_exception(error: BaseException) -> CallInfo | None:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        found = current.info if isinstance(current, MeshError) else getattr(current, _ATTRIBUTE, None)
        if isinstance(found, CallInfo):
            return found
        current = current.__cause__ or current.__context__
    return None
