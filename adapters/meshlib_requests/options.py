"""What single calls ask for themselves. requests' functions have no room for it, so it is said around them."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING

from meshlib.hosts.asking import retry_of
from meshlib.model.call import CallOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meshlib.config.shapes import RetryDict
    from meshlib.model.policy import RetryPolicy

__all__ = ["call_options", "current_options"]

_NONE = CallOptions()
_current: ContextVar[CallOptions] = ContextVar("meshlib_requests_options", default=_NONE)

#: What holds here.
current_options = _current.get


@contextmanager
def call_options(
    *,
    timeout: float | None = None,
    retry: RetryPolicy | RetryDict | bool | None = None,
    hash_key: str | None = None,
    idempotent: bool | None = None,
) -> Iterator[None]:
    """Calls of requests and urllib3 inside have these ``meshlib.CallOptions``, as far as the mesh carries them.

    Of nested blocks the inner one holds, whole. It is a context variable: tasks inherit it, as do threads that run in a copy of
    the context. Raises TypeError and ValueError as ``CallOptions`` does, and ConfigError for a retry that cannot be one.
    """
    asked = CallOptions(timeout, retry, hash_key, idempotent)
    options = replace(asked, retry=retry_of(asked))
    token = _current.set(options)
    try:
        yield
    finally:
        _current.reset(token)
