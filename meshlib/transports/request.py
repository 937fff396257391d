"""A request of an httpx client, read for the plan; what is common to sync and async callers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from meshlib.core.effects import Call
from meshlib.deadlines import current_deadline
from meshlib.inbound import carry
from meshlib.model.call import CallOptions, Head
from meshlib.model.headers import Headers
from meshlib.model.policy import RetryPolicy

if TYPE_CHECKING:
    from meshlib.core.resolution import Resolution
    from meshlib.runtime.clock import Clock

__all__ = [
    "HostDefault",
    "head_of",
    "is_replayable",
    "new_call",
    "options_of",
    "retry_of",
    "target_of",
    "timeouts_of",
]

_NONE: Mapping[str, float | None] = {}
_NO_OPTIONS = CallOptions()


class HostDefault(dict[str, float | None]):
    """The host library's default timeouts, which hold only where neither the application nor the mesh sets any."""


def target_of(request: Any) -> tuple[str, str, int | None, str]:
    """Scheme, host as it goes out, port as written, and the authority asked for (the Host header, which a caller may set)."""
    url = request.url
    authority = ""
    for name, value in request.headers.raw:
        if name.lower() == b"host":
            authority = value.decode("latin-1")
            break
    return url.scheme, url.raw_host.decode("ascii"), url.port, authority or url.netloc.decode("ascii")


def head_of(request: Any, authority: str) -> Head:
    """The head as a plan reads it: Host is the authority and no header line."""
    headers = Headers.trimmed(pair for pair in request.headers.raw if pair[0].lower() != b"host")
    url = request.url
    target = request.extensions.get(
        "target"
    )  # httpx's way to send what no URL has: ``OPTIONS *``, a raw path
    path = url.raw_path if target is None else target
    return Head(
        request.method,
        url.scheme,
        authority,
        path if isinstance(path, str) else path.decode("latin-1"),
        headers,
    )


def options_of(request: Any) -> CallOptions:
    """The call's own options. Raises TypeError for what is none."""
    options = request.extensions.get("meshlib")
    if options is None:
        return _NO_OPTIONS
    if not isinstance(options, CallOptions):
        raise TypeError(f'extensions["meshlib"]: expected meshlib.CallOptions, not {type(options).__name__}')
    return options


def timeouts_of(request: Any) -> Mapping[str, float | None]:
    """The host library's timeouts for this request."""
    found: Mapping[str, float | None] = request.extensions.get("timeout", _NONE)
    return found


def is_replayable(stream: Any, host: Any) -> bool:
    """Whether ``stream`` gives the same bytes a second time. ``host``: the httpx module."""
    if isinstance(stream, host.ByteStream):
        return True
    # A multipart body starts over as long as each of its files can.
    fields = getattr(stream, "fields", None)
    if fields is None or not type(stream).__module__.endswith("._multipart"):
        return False
    return all(_seekable(getattr(field, "file", b"")) for field in fields)


def new_call(
    resolution: Resolution,
    request: Any,
    head: Head,
    options: CallOptions,
    *,
    replayable: bool,
    default_retry: RetryPolicy | None,
    clock: Clock,
) -> Call:
    """The plan's view of the request. Puts into ``head`` what the call inherits from a request being served."""
    deadline = current_deadline(clock)
    return Call(
        resolution,
        head,
        deadline=deadline,
        limit="the deadline" if deadline is not None else "",
        timeout=options.timeout,
        retry=retry_of(options),
        default_retry=default_retry,
        idempotent=options.idempotent,
        hash_key=options.hash_key,
        replayable=replayable,
        wait=connect_patience(timeouts_of(request)),
        counted=carry(head.headers),
    )


def connect_patience(timeouts: Mapping[str, float | None]) -> float:
    """How long a call may wait for the configuration: its own connect timeout; 5 s (httpx's default) where it has none."""
    connect = timeouts.get("connect", 5.0)
    return 5.0 if connect is None else connect


def retry_of(options: CallOptions) -> RetryPolicy | bool | None:
    """The retries that a call orders for itself: a policy, False for none, None for the route's. Raises ConfigError."""
    chosen = options.retry
    if chosen is None or isinstance(chosen, bool | RetryPolicy):
        return None if chosen is True else chosen
    from meshlib.config import read_retry
    from meshlib.runtime.policies import retry_policy

    return retry_policy(read_retry(chosen))


def _seekable(file: Any) -> bool:
    if isinstance(file, str | bytes):
        return True
    seekable = getattr(file, "seekable", None)
    return bool(seekable and seekable())
