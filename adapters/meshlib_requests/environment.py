"""What requests reads from the environment for each call, read again only when the environment changed.

requests looks for proxies in the whole environment at every call, which is a quarter of its time. The answer depends on the
environment and on the host; it is kept as long as the environment is the same. Where it may depend on something else (the
settings of macOS and Windows), requests is asked each time.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

from requests import utils

__all__ = ["proxies_for"]

#: Hosts whose answers are kept.
_MOST = 1024
_ORIGINAL = utils.get_environ_proxies
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
_lock = threading.Lock()  # guards filling answers, so that they stay bounded


def proxies_for(url: str, no_proxy: str | None) -> dict[str, str]:
    """As ``requests.utils.get_environ_proxies``; the mapping is the caller's own."""
    ask = utils.get_environ_proxies
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
        with _lock:
            if len(kept.answers) >= _MOST:
                kept.answers.clear()
            kept.answers[origin] = answer
    return answer.copy()


def _origin(url: str) -> str:
    """The part of the URL on which the answer depends: scheme and host."""
    end = url.find("/", url.find("://") + 3)
    return url if end < 0 else url[:end]
