"""What a listener does to a head before its routes see it.

Envoy's ``HttpConnectionManager`` settings, in its order: ``max_request_headers_kb``, ``max_headers_count``; ``headers_with_underscores_action``; ``path_with_escaped_slashes_action``, ``normalize_path``,
``merge_slashes``; ``strip_trailing_host_dot``, ``strip_any_host_port``, ``strip_matching_host_port``; ``early_header_mutation_extensions``;
``scheme_header_transformation``, ``add_user_agent``, ``append_x_forwarded_port``, ``internal_address_config``, ``via``; ``generate_request_id``. What is changed here is also what goes out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.core.conditions import is_grpc
from meshlib.core.domains import without_port
from meshlib.core.edits import Mutations
from meshlib.core.formats import Values
from meshlib.core.lines import add_via, first_value, set_line
from meshlib.core.paths import path_only
from meshlib.core.replies import Reply
from meshlib.core.router import Internal
from meshlib.core.strings import wire
from meshlib.model.call import Head, Response
from meshlib.model.headers import Headers
from meshlib.model.listener import EscapedSlashes, Underscores

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.core.lines import Lines
    from meshlib.model.listener import HttpManager

__all__ = ["Entrance", "merged_slashes", "normal_path", "stripped"]

_SLASHES = {"%2F": "/", "%2f": "/", "%5C": "\\", "%5c": "\\"}

_HEX = frozenset("0123456789abcdefABCDEF")
_REQUEST_ID = "x-request-id"
_HALF = 1 << 64
#: The bits of a UUID that say which it is, and what they are (RFC 9562, 5.4).
_FIXED = (0xF << 76) | (0x3 << 62)
_VERSION_4 = (0x4 << 76) | (0x2 << 62)
#: What an escape need not hide (RFC 3986, section 2.3).
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_ESCAPED = frozenset(' "<>^`{|}')


class Entrance:
    """What a listener does before its routes are asked, compiled. ``port`` is the listener's, ``node`` the cluster and the id
    of whose calls they are. Immutable; safe to share between threads.
    """

    __slots__ = (
        "_identity",
        "_internal",
        "_manager",
        "_mutations",
        "_port",
        "_via",
        "changes",
        "names_calls",
    )

    def __init__(
        self, manager: HttpManager, port: int | None = None, node: tuple[str, str] = ("", "")
    ) -> None:
        self._manager = manager
        self._port = port
        names = (b"x-envoy-downstream-service-cluster", b"x-envoy-downstream-service-node")
        given = (name.strip().encode() for name in node) if manager.user_agent else ()
        self._identity = tuple((name, value) for name, value in zip(names, given, strict=False) if value)
        self._mutations = Mutations(manager.mutations) if manager.mutations else None
        self._internal = Internal(manager.internal) if manager.internal else None
        self._via = wire(manager.via).strip().encode("latin-1")
        #: Whether a call without an ``x-request-id`` gets one (:meth:`named`).
        self.names_calls = manager.request_ids
        #: Whether it may change a head at all.
        self.changes = (
            manager.request_ids
            or _changes_authority(manager)
            or _changes_path(manager)
            or manager.underscores is not Underscores.ALLOW
            or manager.most_head is not None
            or manager.most_lines is not None
            or bool(manager.scheme or self._identity or (manager.forwarded_port and port))
            or bool(manager.mutations or self._via or manager.internal)
        )

    def seen(self, head: Head) -> Head:
        """The head as the routes see it: itself where nothing is to be done."""
        manager = self._manager
        authority, path = head.authority, head.path
        if _changes_authority(manager):
            authority = stripped(authority, manager, self._port)
        if _changes_path(manager):
            only = path_only(path)
            changed = _changed_path(only, manager)
            path = path if changed == only else changed + path[len(only) :]
        lines = self._lines(head, path, authority)
        scheme = manager.scheme or head.scheme
        if lines is None and (path, authority, scheme) == (head.path, head.authority, head.scheme):
            return head
        new = head.copy()
        new.path, new.authority, new.scheme = path, authority, scheme
        if lines is not None:
            new.headers = Headers(lines)
        return new

    def is_internal(self, head: Head) -> bool:
        """Whether the call came from an address that the listener counts as internal."""
        return self._internal is not None and self._internal.has(head)

    def named(self, head: Head, asked: Head, random: Callable[[], float]) -> Head:
        """With a request's id, a UUID of version 4, if it has none: the same for all attempts. ``random`` gives floats in [0, 1)."""
        if head.headers.get(_REQUEST_ID) is not None:
            return head
        number = (int(random() * _HALF) << 64) | int(random() * _HALF)
        digits = f"{number & ~_FIXED | _VERSION_4:032x}"
        parts = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
        new = head.copy() if head is asked else head
        new.headers.append(_REQUEST_ID, "-".join(parts))
        return new

    def answer(self, asked: Head, seen: Head) -> tuple[Reply, str] | None:
        """The reply of the listener itself to what was asked, and why: a header's name with an underscore is refused, and an
        escaped slash is, or led to the path without.
        """
        manager = self._manager
        if _is_too_large(asked, manager):
            large = Response(431, (), b"Request Header Fields Too Large")
            return Reply(_unread(asked), large), "the request's head is larger than its listener allows"
        if manager.underscores is Underscores.REJECT and _has_underscore(asked):
            refused = Response(400, (), b"Bad Request")
            return Reply(_unread(asked), refused), "a header's name has an underscore"
        action = manager.escaped_slashes
        if action in (EscapedSlashes.KEEP, EscapedSlashes.FORWARD) or not _has_escaped_slash(asked.path):
            return None
        if action is EscapedSlashes.REJECT or is_grpc(asked):
            return Reply(seen, Response(400)), "the path has an escaped slash"
        return Reply(seen, Response(307, (("location", seen.path),))), "the path has an escaped slash"

    def _lines(self, head: Head, path: str, authority: str) -> Lines | None:
        """The header lines with what is to be added and without what is to be dropped, or None for no change. ``path``,
        ``authority``: as they are now.
        """
        manager = self._manager
        drops = manager.underscores is Underscores.DROP and _has_underscore(head)
        adds = manager.scheme or self._identity or manager.forwarded_port or self._via
        internal = self.is_internal(head)
        if not (drops or adds or internal or self._mutations):
            return None
        lines = [line for line in head.headers.raw if not drops or b"_" not in line[0]]
        if self._mutations is not None:
            new = Head(head.method, head.scheme, authority, path, Headers(lines))
            self._mutations.apply(new, Values(new, cluster="", route="", virtual_host=""))
            lines = new.headers.raw
        if internal:
            set_line(lines, b"x-envoy-internal", b"true")
        for name, value in self._identity:
            set_line(lines, name, value)
        if self._identity and not first_value(lines, b"user-agent"):
            set_line(lines, b"user-agent", self._identity[0][1])
        if manager.scheme:
            set_line(lines, b"x-forwarded-proto", manager.scheme.encode())
        if manager.forwarded_port and self._port and first_value(lines, b"x-forwarded-port") is None:
            lines.append((b"x-forwarded-port", str(self._port).encode()))
        if self._via:
            add_via(lines, self._via)
        return lines


def _changes_authority(manager: HttpManager) -> bool:
    return manager.strip_any_port or manager.strip_matching_port or manager.strip_trailing_dot


def _changes_path(manager: HttpManager) -> bool:
    escapes = manager.escaped_slashes is not EscapedSlashes.KEEP
    return manager.normalize_path or manager.merge_slashes or escapes


def _changed_path(path: str, manager: HttpManager) -> str:
    """Of a path without query."""
    if manager.escaped_slashes is not EscapedSlashes.KEEP and "%" in path:
        for escape, plain in _SLASHES.items():
            path = path.replace(escape, plain)
    path = normal_path(path) if manager.normalize_path else path
    return merged_slashes(path) if manager.merge_slashes else path


def _unread(asked: Head) -> Head:
    """What is refused while its head is read: a format finds nothing in it."""
    return Head("HEAD" if asked.method == "HEAD" else "", "", "", "", Headers(()))


def _is_too_large(head: Head, manager: HttpManager) -> bool:
    """Whether its lines, Host among them, are too many, or they and the path have too many bytes."""
    lines = head.headers.raw
    hosts = () if any(name.lower() == b"host" for name, _ in lines) else ((b"host", head.authority.encode()),)
    if manager.most_lines is not None and len(lines) + len(hosts) > manager.most_lines:
        return True
    if manager.most_head is None:
        return False
    size = len(head.path.encode()) + sum(len(name) + len(value) for name, value in (*lines, *hosts))
    return size > manager.most_head


def _has_underscore(head: Head) -> bool:
    return any(b"_" in name for name, _ in head.headers.raw)


def _has_escaped_slash(path: str) -> bool:
    only = path_only(path)
    return any(escape in only for escape in _SLASHES)


def stripped(authority: str, manager: HttpManager, port: int | None = None) -> str:
    """The authority without the dot at the end of its host and without its port, as far as the listener strips them."""
    if manager.strip_trailing_dot:
        authority = _without_dot(authority)
    if not (manager.strip_any_port or manager.strip_matching_port):
        return authority
    host = without_port(authority)
    digits = authority[len(host) + 1 :]
    if not (digits.isascii() and digits.isdigit() and len(digits) < 10):
        return authority
    return host if manager.strip_any_port or int(digits) == port else authority


def _without_dot(authority: str) -> str:
    at = authority.rfind(".")
    if at >= 0 and authority[at + 1 : at + 2] in ("", ":"):
        return authority[:at] + authority[at + 1 :]
    return authority


def merged_slashes(path: str) -> str:
    """Each row of slashes as one; a path of nothing else keeps two, as in Envoy."""
    if len(path) > 1 and not path.strip("/"):
        return "//"
    while "//" in path:
        path = path.replace("//", "/")
    return path


def normal_path(path: str) -> str:
    r"""RFC 3986, section 6.2.2 with what browsers do: needless escapes undone, ``\`` as ``/``, dot segments resolved."""
    if "%" not in path and "\\" not in path and "/." not in path and _ESCAPED.isdisjoint(path):
        return path
    return _without_dots(_unescaped(path).replace("\\", "/"))


def _unescaped(path: str) -> str:
    out: list[str] = []
    at = 0
    while at < len(path):
        char = path[at]
        code = path[at + 1 : at + 3]
        if char == "%" and len(code) == 2 and _HEX.issuperset(code):
            plain = chr(int(code, 16))
            out.append(plain if plain in _UNRESERVED else char + code)
            at += 3
            continue
        out.append(f"%{ord(char):02X}" if char in _ESCAPED or ord(char) > 0x7E or ord(char) < 0x20 else char)
        at += 1
    return "".join(out)


def _without_dots(path: str) -> str:
    if "/." not in path:
        return path
    kept: list[str] = []
    segments = path.split("/")
    for number, segment in enumerate(segments):
        last = number == len(segments) - 1
        if segment in (".", ".."):
            if segment == ".." and len(kept) > 1:
                kept.pop()
            if last:
                kept.append("")
        else:
            kept.append(segment)
    return "/".join(kept)
