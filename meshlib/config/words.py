"""Kinds of text that several sections share: names of headers, methods and services, patterns, paths."""

from __future__ import annotations

from string import ascii_letters, digits

from meshlib.config.hosts import check_host, check_key
from meshlib.config.kinds import Text
from meshlib.model.headers import OF_THE_CONNECTION
from meshlib.model.match import MAX_PATTERN, MAX_PROGRAM

__all__ = ["EDITED", "HEADER", "HOST", "METHOD", "PATH", "PATH_ONLY", "REGEX", "SERVICE", "U32"]

U32 = 2**32 - 1
"""The most that Envoy's weights and thresholds hold."""

_TOKEN = frozenset(ascii_letters + digits + "!#$%&'*+-.^_`|~")  # RFC 9110, section 5.6.2


def _token(text: str) -> str:
    if not _TOKEN.issuperset(text):
        raise ValueError("letters, digits and -_. only")
    return text


def _header(text: str) -> str:
    if not _TOKEN.issuperset(text.removeprefix(":")):
        raise ValueError("not the name of a header")
    return text.lower()


def _editable(text: str) -> str:
    name = _header(text)
    if name.startswith(":") or name == "host":
        raise ValueError("pseudo-headers and Host cannot be edited; rewrite.host does that")  # RW-01
    if name in OF_THE_CONNECTION:
        raise ValueError("it is for the connection to say")
    return name


def _slash(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError("it begins with a /")
    return text


def _no_query(text: str) -> str:
    if "?" in text or "#" in text:
        raise ValueError("it holds no ? and no #")
    return _slash(text)


def _pattern(text: str) -> str:
    """RE2 is loaded only where a configuration has a pattern."""
    import re2

    options = re2.Options()
    options.log_errors = False
    options.encoding = re2.Options.Encoding.LATIN1  # as `core.regex` compiles it
    try:
        size = re2.compile(text.encode(), options=options).programsize
    except re2.error as problem:
        detail = problem.args[0] if problem.args else "wrong"
        raise ValueError(
            detail.decode(errors="replace") if isinstance(detail, bytes) else str(detail)
        ) from None
    if len(text) > MAX_PATTERN or size > MAX_PROGRAM:
        raise ValueError(
            f"at most {MAX_PATTERN} characters, and {MAX_PROGRAM} instructions: it has {len(text)} and {size}"
        )
    return text


METHOD = Text("the name of a method", _token)
HEADER = Text("the name of a header", _header)
EDITED = Text("the name of a header that may be edited", _editable)
REGEX = Text("an RE2 regular expression", _pattern)
SERVICE = Text('the name of a service: "host", "host:port" or "*.suffix"', check_key)
HOST = Text("a host name or an IP address", check_host)
PATH = Text("a path that begins with /", _slash)
PATH_ONLY = Text("a path without a query", _no_query)
