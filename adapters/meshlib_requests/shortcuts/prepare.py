"""Requests, prepared fast where they are plain.

``PreparedRequest.prepare`` takes a URL apart and puts it together, checks each header line, and asks a jar without cookies for
cookies: a fifth of a call, for a request that comes out as it went in. What is plain is taken as it is here; everything else goes
requests' own way. The result is the same.
"""

from __future__ import annotations

from typing import Any

import requests
from requests.cookies import RequestsCookieJar
from requests.structures import CaseInsensitiveDict

from meshlib.hosts.urls import PLAIN

__all__ = ["Lines", "prepare"]


class Lines:
    """A session's header lines, looked at again only when they changed. Thread-safe: what is kept is replaced as a whole."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str, str]] = {}

    def of(self, headers: Any) -> CaseInsensitiveDict[str] | None:
        """A copy as a request has it; None where requests has to look at them. Raises requests' InvalidHeader."""
        if type(headers) is not CaseInsensitiveDict:
            return None
        made: CaseInsensitiveDict[str] = CaseInsensitiveDict()
        lines = made._store
        lines.update(headers._store)
        if lines != self._seen:
            if not all(type(name) is str and type(value) is str for name, value in lines.values()):
                return None
            requests.PreparedRequest().prepare_headers(made)
            self._seen = dict(lines)
        return made


def prepare(
    request: requests.Request,
    *,
    headers: Any,
    checked: bool,
    params: Any,
    auth: Any,
    cookies: Any,
    hooks: Any,
) -> requests.PreparedRequest:
    """What ``PreparedRequest.prepare`` makes of ``request`` and of what its session adds to it. ``checked``: the headers are
    as :meth:`Lines.of` gives them.
    """
    prepared = requests.PreparedRequest()
    prepared.prepare_method((request.method or "").upper())
    url: Any = request.url
    plain = type(url) is str and not params and PLAIN.fullmatch(url) is not None
    if plain:
        prepared.url = url
    else:
        # Nothing to encode is told by text: of a mapping requests finds out the slow way.
        prepared.prepare_url(url, params or "")
    if checked:
        prepared.headers = headers
    else:
        prepared.prepare_headers(headers)
    if type(cookies) is RequestsCookieJar and not len(cookies):
        prepared._cookies = cookies
    else:
        prepared.prepare_cookies(cookies)
    prepared.prepare_body(request.data, request.files, request.json)
    if auth or not plain:
        prepared.prepare_auth(auth, url)
    prepared.prepare_hooks(hooks)
    return prepared
