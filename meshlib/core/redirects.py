"""Redirects that are followed before the caller sees them (Envoy's ``internal_redirect_policy``).

A response whose status the policy names leads the call to the URL in its ``location``, which must be absolute, if the listener that has the
call has a route for that URL, and the policy's predicates take it; else the response is the caller's. The call goes on as its route sent it:
with that route's edits, and then with those of the next. Whatever is not clear is not followed. Measured with Envoy 1.40.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.core.lines import Lines, set_line
from meshlib.model.headers import OF_THE_CONNECTION
from meshlib.model.policy import PredicateKind

if TYPE_CHECKING:
    from meshlib.model.call import Head
    from meshlib.model.headers import Headers
    from meshlib.model.policy import InternalRedirects, RedirectPredicate

__all__ = ["Followed", "accepts", "led_to"]

_SEE_OTHER = 303
_FREE_OF_BODY = ("GET", "HEAD")
_ORIGINAL_URL = b"x-envoy-original-url"


class Followed:
    """The redirects of one call: how many were followed, and how many ``attempts`` were made before the last of them."""

    __slots__ = ("_seen", "attempts", "count")

    def __init__(self) -> None:
        self.count = 0
        self.attempts = 0
        self._seen: set[tuple[str, str]] = set()

    def leads_anew(self, route: str, target: str) -> bool:
        """Whether a redirect of this route led to that one for the first time."""
        known = (route, target) in self._seen
        self._seen.add((route, target))
        return not known


def led_to(
    policy: InternalRedirects, made: Head, sent: Head, status: int, headers: Headers | None
) -> Head | str:
    """The head of the call as it goes on, or why it does not, in words. ``made``: as the route made it, a new one; ``sent``: as it was sent."""
    found = _parts((headers.get("location") or "") if headers is not None else "")
    if found is None:
        return "its location is no absolute URL"
    scheme, authority, path = found
    if scheme != made.scheme and not policy.cross_scheme:
        return f"it leads to {scheme}"
    if status == _SEE_OTHER and made.method not in _FREE_OF_BODY:
        return f"it is for a GET, and the call is a {made.method}"
    assert headers is not None
    lines = made.headers.raw
    for name in policy.copied:
        _copy(name.encode("latin-1", "replace"), headers.raw, lines)
    secure = "https" if made.scheme == "https" else "http"
    set_line(lines, _ORIGINAL_URL, f"{secure}://{sent.authority}{sent.path}".encode("latin-1", "replace"))
    made.scheme, made.authority, made.path = scheme, authority, path
    return made


def accepts(
    predicates: tuple[RedirectPredicate, ...],
    followed: Followed,
    names: tuple[str, str],
    schemes: tuple[str, str],
) -> bool:
    """Whether the predicates take the redirect from the route of the first of ``names`` to that of the second."""
    for predicate in predicates:
        if predicate.kind is PredicateKind.PREVIOUS_ROUTES:
            taken = followed.leads_anew(*names)
        elif predicate.kind is PredicateKind.ALLOWED_ROUTES:
            taken = names[1] in predicate.routes
        else:
            taken = schemes[0] == "https" or schemes[1] != "https"
        if not taken:
            return False
    return True


def _parts(location: str) -> tuple[str, str, str] | None:
    """Scheme, authority and path with its query; None where it is none that a call can go to."""
    scheme, _, rest = location.partition("://")
    scheme = scheme.lower()
    if scheme not in ("http", "https") or not rest.isascii() or not rest.isprintable() or " " in rest:
        return None
    rest = rest.partition("#")[0]
    end = min((at for at in (rest.find("/"), rest.find("?")) if at >= 0), default=len(rest))
    authority, path = rest[:end], rest[end:]
    if not authority or "@" in authority:
        return None
    return scheme, authority, path if path.startswith("/") else f"/{path}"


def _copy(name: bytes, given: Lines, lines: Lines) -> None:
    """The lines of that name are those of the response."""
    if name.decode("latin-1") in OF_THE_CONNECTION or name == b"host":
        return
    lines[:] = [line for line in lines if line[0].lower() != name]
    lines += [(name, value) for key, value in given if key.lower() == name]
