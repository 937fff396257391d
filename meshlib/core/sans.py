"""Names of a certificate against those that a peer must have (gRFC A29 TL-04, Envoy ``SubjectAltNameMatcher``).

As in Envoy, an exact matcher of a DNS name follows the rules of DNS: case does not count, and a wildcard of the certificate
stands for a part of its first label. Any other matcher looks at the name's text as it is, that of an address in its canonical
spelling. A matcher for any kind looks at all but ``otherName``.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from typing import NamedTuple

from meshlib.core.strings import compile_string, describe_string, fold, wire
from meshlib.model.match import StringKind, StringMatch
from meshlib.model.tls import San, SanKind

__all__ = [
    "PeerName",
    "SansTest",
    "canonical",
    "compile_sans",
    "describe_name",
    "describe_san",
    "dns_matches",
]

#: What ``otherName`` is to a matcher that names no kind: nothing.
_ANY = frozenset({SanKind.DNS, SanKind.URI, SanKind.EMAIL, SanKind.IP})


class PeerName(NamedTuple):
    """A subject alternative name of a certificate. ``oid``: the type of an OTHER_NAME."""

    kind: SanKind
    value: str
    oid: str = ""


SansTest = Callable[[Iterable[PeerName]], bool]


def compile_sans(sans: Iterable[San]) -> SansTest:
    """Whether one of the names is one of ``sans``. Raises ValueError for a regular expression that is none."""
    tests = [_compile(san) for san in sans]
    return lambda names: any(test(name) for name in names for test in tests)


def dns_matches(wanted: str, held: str) -> bool:
    """Whether a certificate for ``held``, which may have a wildcard, is one for ``wanted``."""
    wanted, held = fold(wanted).removesuffix("."), fold(held).removesuffix(".")
    if wanted == held:
        return bool(wanted)
    label, _, rest = wanted.partition(".")
    pattern, _, held_rest = held.partition(".")
    if not label or not rest or rest != held_rest or "*" in rest or pattern.startswith("xn--"):
        return False
    before, star, after = pattern.partition("*")
    if not star or "*" in after:
        return False
    return len(label) >= len(before) + len(after) and label.startswith(before) and label.endswith(after)


def canonical(address: str) -> str | None:
    """The address as ``inet_ntop`` spells it; None: it is none."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return f"::ffff:{found.ipv4_mapped}"
    return str(found)


def describe_san(san: San) -> str:
    """In words: ``uri exact "spiffe://a/b"``."""
    kind = "" if san.kind is SanKind.ANY else f"{san.kind.value}{san.oid and ' ' + san.oid} "
    return kind + describe_string(san.match)


def describe_name(name: PeerName) -> str:
    """In words: ``uri "spiffe://a/b"``."""
    return f'{name.kind.value}{name.oid and " " + name.oid} "{name.value}"'


def _compile(san: San) -> Callable[[PeerName], bool]:
    test, dns, address = compile_string(san.match), _dns(san.match), _address(san.match)
    kinds = _ANY if san.kind is SanKind.ANY else {san.kind}

    def matches(name: PeerName) -> bool:
        if name.kind not in kinds:
            return False
        if name.kind is SanKind.DNS:
            return dns(name.value)
        if name.kind is SanKind.IP:
            return address(name.value)
        if name.kind is SanKind.OTHER_NAME and (not san.oid or name.oid != san.oid):
            return False
        return test(wire(name.value))

    return matches


def _dns(match: StringMatch) -> Callable[[str], bool]:
    if match.kind is StringKind.EXACT:
        return lambda value: dns_matches(match.value, value)
    test = compile_string(match)
    return lambda value: test(wire(value))


def _address(match: StringMatch) -> Callable[[str], bool]:
    if match.kind is StringKind.EXACT:
        wanted = canonical(match.value)
        return lambda value: wanted is not None and canonical(value) == wanted
    test = compile_string(match)

    def matches(value: str) -> bool:
        spelled = canonical(value)
        return spelled is not None and test(spelled)

    return matches
