"""A URL as a call reads it, where no host library has read it before: for ``explain`` and ``meshlib route``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from meshlib.model.call import Head
from meshlib.model.headers import Headers
from meshlib.model.hosts import ascii_host, ipv6_host

if TYPE_CHECKING:
    from collections.abc import Iterable

    from meshlib.core.exchange import Place

__all__ = ["PLAIN", "asked"]

#: A URL that host libraries send as it is written: no user, no IPv6, no escape, no segment that begins with a dot (RFC 3986). The
#: groups are scheme, host, port, path and query.
PLAIN = re.compile(
    r"(https?)://([a-z0-9][a-z0-9.-]*)(?::([1-9][0-9]{0,3}|[1-5][0-9]{4}))?"
    r"(/(?:[A-Za-z0-9_~!$&'()*+,=:@-][A-Za-z0-9_~!$&'()*+,=:@.-]*/)*"
    r"(?:[A-Za-z0-9_~!$&'()*+,=:@-][A-Za-z0-9_~!$&'()*+,=:@.-]*)?)"
    r"(?:\?([A-Za-z0-9_~!$&'()*+,=:@./?-]+))?"
)

#: What may stand in a path or a query as it is (RFC 3986, 3.3 and 3.4), and what is escaped already.
_AS_IT_IS = "!$&'()*+,;=:@/?%[]-._~|"
_DEFAULT_PORTS = {"http": 80, "https": 443}


def asked(method: str, url: str, headers: Iterable[tuple[str, str]]) -> tuple[Place, Head]:
    """What a call is for and its head, as host libraries make them: names as DNS has them, a path without dot segments, what
    may not be sent escaped. Raises ValueError that names ``url``.
    """
    try:
        parts = urlsplit(url)
        scheme, port, host = parts.scheme.lower(), parts.port, _host(parts.hostname or "")
    except ValueError as problem:
        raise ValueError(f"{url!r}: {problem}") from None
    if scheme not in _DEFAULT_PORTS or not host or port == 0:
        raise ValueError(f"{url!r}: must be http://host[:port]… or https://host[:port]…")
    if port == _DEFAULT_PORTS[scheme]:
        port = None
    lines = Headers.of(*headers)
    authority = lines.get("host") or (host if port is None else f"{host}:{port}")
    lines.remove("host")
    path = quote(_without_dots(parts.path) or "/", safe=_AS_IT_IS)
    if parts.query:
        path += "?" + quote(parts.query, safe=_AS_IT_IS)
    return (scheme, host, port, authority), Head(method.upper(), scheme, authority, path, lines)


def _host(text: str) -> str:
    if ":" not in text:
        return ascii_host(text)
    ipv6_host(text)
    return f"[{text}]"  # sent as it was written


def _without_dots(path: str) -> str:
    """RFC 3986, 5.2.4."""
    if "/." not in path:
        return path
    kept: list[str] = []
    segments = path.split("/")
    for segment in segments:
        if segment == "..":
            if len(kept) > 1:
                kept.pop()
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/".join(kept)
