"""What stands in a request's first line, as urllib3 writes it."""

from __future__ import annotations

import re
from http.client import InvalidURL
from typing import TYPE_CHECKING

from urllib3.exceptions import ProtocolError
from urllib3.util.url import _encode_target, parse_url

if TYPE_CHECKING:
    from meshlib.model.call import Head

__all__ = ["Target", "target_of"]

#: Paths that need no encoding: what may be in a URL, and percent signs that mean something.
_PLAIN = re.compile(r"/(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-F]{2})*")
_CONTROL = re.compile(r"[\x00-\x20\x7f]")


class Target:
    """``written`` is what the caller's URL becomes; ``path`` what routes see of it; ``authority`` its own, where it is a whole
    URL, else ``""``.
    """

    __slots__ = ("authority", "path", "written")

    def __init__(self, written: str, path: str, authority: str = "") -> None:
        self.written = written
        self.path = path
        self.authority = authority

    def sent(self, head: Head, authority: str) -> str:
        """What an attempt with ``head`` sends: ``written``, unless a route changed what it says. ``authority``: the call's own."""
        if head.path == self.path and (not self.authority or head.authority == authority):
            return self.written
        return _encoded(head.path)


def target_of(url: str) -> Target:
    """The target for ``url``, as ``urlopen`` takes it. Raises urllib3's errors for what can be none."""
    if url.startswith("/"):
        path = _encoded(url)
        return Target(path, path)
    parsed = parse_url(url)
    written = parsed._replace(fragment=None).url
    if _CONTROL.search(written) is not None:
        # What http.client would say once a connection was taken.
        reason = InvalidURL(f"URL can't contain control characters: {written!r}")
        raise ProtocolError("Connection aborted.", reason)
    if parsed.scheme is None:
        return Target(written, written)  # of no host: ``*``
    return Target(written, parsed.request_uri, parsed.netloc or "")


def _encoded(path: str) -> str:
    if _PLAIN.fullmatch(path) is not None:
        return path
    return _encode_target(path) if path.startswith("/") else _encode_target(f"/{path}")[1:]
