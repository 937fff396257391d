"""What requests reads from the environment for each call, read again only when the environment changed.

requests looks for proxies in the whole environment at every call, which is a quarter of its time. The answer depends on the
environment and on the host; it is kept as long as the environment is the same. Where it may depend on something else (the
settings of macOS and Windows), requests is asked each time.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING, Any

from requests import sessions, utils

from meshlib.hosts.runtime import Local

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["netrc_auth", "proxies_for"]

#: Hosts whose answers are kept.
_MOST = 1024
_ORIGINAL = utils.get_environ_proxies
_ORIGINAL_NETRC = utils.get_netrc_auth
# The mapping behind os.environ: compared as a whole it costs a microsecond, read by name it encodes each name.
_variables: Any = getattr(os.environ, "_data", None)
_comparable = isinstance(_variables, dict) and sys.platform not in {"darwin", "win32"}


class _Kept:
    """Answers for one state of the environment. Replaced as a whole, so that readers need no lock."""

    __slots__ = ("answers", "state")

    def __init__(self, state: dict[Any, Any]) -> None:
        self.state = state
        self.answers: dict[str, dict[str, str]] = {}


_kept = _Kept({})
_places: tuple[Any, tuple[str, ...]] | None = None
_lock = Local(threading.Lock)  # guards filling answers, so that they stay bounded


def proxies_for(url: str, no_proxy: str | None) -> dict[str, str]:
    """As ``requests.utils.get_environ_proxies``; the mapping is the caller's own."""
    ask: Callable[..., dict[str, str]] = vars(sessions)["get_environ_proxies"]
    if no_proxy is not None or ask is not _ORIGINAL or not _comparable:
        return ask(url, no_proxy=no_proxy)
    global _kept  # noqa: PLW0603 - one environment, one memory
    kept = _kept
    if _variables != kept.state:
        kept = _kept = _Kept(_variables.copy())
    origin = _origin(url)
    answer = kept.answers.get(origin)
    if answer is None:
        answer = ask(url)
        with _lock.get():
            if len(kept.answers) >= _MOST:
                kept.answers.clear()
            kept.answers[origin] = answer
    return answer.copy()


def netrc_auth(url: Any) -> tuple[str, str] | None:
    """As ``requests.utils.get_netrc_auth``, which is not asked where there is no file."""
    ask: Callable[[Any], tuple[str, str] | None] = vars(sessions)["get_netrc_auth"]
    if ask is _ORIGINAL_NETRC and _comparable:
        for path in _netrc_places():
            try:
                if os.access(path, os.F_OK):
                    break
            except ValueError:
                continue
        else:
            return None
    return ask(url)


def _netrc_places() -> tuple[str, ...]:
    """Where requests looks for the file, in this state of the environment."""
    global _places  # noqa: PLW0603 - as above
    state = (_variables.get(b"NETRC"), _variables.get(b"HOME"))
    if _places is None or _places[0] != state:
        named = os.environ.get("NETRC")
        wanted = [named] if named is not None else [f"~/{name}" for name in utils.NETRC_FILES]
        _places = state, tuple(os.path.expanduser(path) for path in wanted)  # noqa: PTH111 - as requests
    return _places[1]


def _origin(url: str) -> str:
    """The part of the URL on which the answer depends: scheme and host."""
    end = url.find("/", url.find("://") + 3)
    return url if end < 0 else url[:end]
