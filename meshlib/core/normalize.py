"""What a listener does to a head before its routes see it: the port of the Host, slashes, dots and escapes of the path.

Envoy's ``HttpConnectionManager`` settings ``strip_any_host_port``, ``strip_matching_host_port``, ``normalize_path`` and
``merge_slashes``, in that order. What is changed here is also what goes out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.core.domains import without_port
from meshlib.core.paths import path_only

if TYPE_CHECKING:
    from meshlib.model.call import Head
    from meshlib.model.listener import HttpManager

__all__ = ["changes_heads", "merged_slashes", "normal_path", "normalized", "stripped"]

_HEX = frozenset("0123456789abcdefABCDEF")
#: What an escape need not hide (RFC 3986, section 2.3).
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_ESCAPED = frozenset(' "<>^`{|}')


def changes_heads(manager: HttpManager) -> bool:
    """Whether this listener may change a head at all."""
    return (
        manager.normalize_path
        or manager.merge_slashes
        or manager.strip_any_port
        or manager.strip_matching_port
    )


def normalized(head: Head, manager: HttpManager, port: int | None = None) -> Head:
    """The head as the routes see it: itself where nothing is to be done. ``port`` is the listener's."""
    authority = stripped(head.authority, manager, port)
    path = head.path
    if manager.normalize_path or manager.merge_slashes:
        only = path_only(path)
        changed = normal_path(only) if manager.normalize_path else only
        changed = merged_slashes(changed) if manager.merge_slashes else changed
        if changed != only:
            path = changed + path[len(only) :]
    if path == head.path and authority == head.authority:
        return head
    new = head.copy()
    new.path, new.authority = path, authority
    return new


def stripped(authority: str, manager: HttpManager, port: int | None = None) -> str:
    """The authority without its port, where the listener strips it."""
    if not (manager.strip_any_port or manager.strip_matching_port):
        return authority
    host = without_port(authority)
    digits = authority[len(host) + 1 :]
    if not (digits.isascii() and digits.isdigit() and len(digits) < 10):
        return authority
    return host if manager.strip_any_port or int(digits) == port else authority


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
