"""Names of resources. One of the new kind says by itself which authority has the resource (gRFC A47, xRFC TP1):

    xdstp://authority/type/id?key=value&key=value

Whatever the order of its parameters and however its characters are escaped, it is one name: `canonical` gives the spelling by
which everything here knows it (FE-01). All other names are taken as they are, and belong to the top-level servers.
"""

from __future__ import annotations

from functools import lru_cache

__all__ = ["TOP", "authority_of", "canonical", "federated", "misfit"]

#: The authority of names of the old kind, as gRFC A78 labels it.
TOP = "#old"
_SCHEME = "xdstp:"
# RFC 3986, sections 3.3 and 3.4: what need not be escaped in a segment of a path, and in a query within a parameter.
_PLAIN = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$'()*+,;:@"
_SEGMENT = frozenset(_PLAIN + b"&=")
_QUERY = frozenset(_PLAIN + b"/?")
_HEX = frozenset("0123456789abcdefABCDEF")


def federated(name: str) -> bool:
    """Whether it is of the new kind."""
    return name.startswith(_SCHEME)


def canonical(name: str) -> str:
    """The spelling of ``name``; itself where it is of the old kind, or no name at all."""
    if not federated(name):
        return name
    authority, kind, identity, parameters = _read(name)
    if not identity:
        return name
    query = "&".join(f"{key}={value}" for key, value in parameters)
    return f"{_SCHEME}//{authority}/{kind}/{identity}" + (f"?{query}" if query else "")


def authority_of(name: str) -> str:
    """The authority that has it; `TOP` for a name of the old kind. A name of the new kind may have the empty one."""
    return _read(name)[0] if federated(name) else TOP


def misfit(name: str, full_name: str) -> str:
    """What keeps ``name`` from being one of the type with that full name (FE-02), in words; ``""`` if nothing does."""
    if not federated(name):
        return ""
    _, kind, identity, _ = _read(name)
    if not identity:
        return "is no name: xdstp://authority/type/id is one"
    return "" if kind == full_name else f"names a resource of type {kind!r}, not {full_name!r}"


@lru_cache(maxsize=4096)
def _read(name: str) -> tuple[str, str, str, tuple[tuple[str, str], ...]]:
    """Authority, type, identity and parameters; the identity is ``""`` where it is no name."""
    rest = name.removeprefix(_SCHEME)
    rest, _, query = rest.partition("?")
    authority = ""
    if rest.startswith("//"):
        authority, _, path = rest[2:].partition("/")
    else:
        path = rest.removeprefix("/")
    kind, _, identity = path.partition("/")
    wrong = "#" in name or not all(map(_whole, (authority, path, query)))
    if wrong or not kind or not identity:
        return authority, kind, "", ()
    found: dict[str, str] = {}
    for pair in filter(None, query.split("&")):
        key, _, value = pair.partition("=")
        found[_spell(key, _QUERY)] = _spell(value, _QUERY)  # the last of those with one key
    segments = (
        _spell(segment, _SEGMENT) for segment in identity.split("/")
    )  # an escaped slash is none between two
    return authority, kind, "/".join(segments), tuple(sorted(found.items()))


def _spell(text: str, plain: frozenset[int]) -> str:
    """Escaped where it must be and nowhere else."""
    first, *more = text.encode("utf-8", "surrogatepass").split(b"%")
    raw = first + b"".join(bytes((int(part[:2], 16),)) + part[2:] for part in more)
    return "".join(chr(byte) if byte in plain else f"%{byte:02X}" for byte in raw)


def _whole(text: str) -> bool:
    """Whether each percent sign begins an escape."""
    return all(len(part) >= 2 and _HEX.issuperset(part[:2]) for part in text.split("%")[1:])
