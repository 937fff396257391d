"""Requests for a route table: aimed at each of its routes, and past them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

from tests.corpus.trees import get
from tests.e2e.oracle.exchange import Request

__all__ = ["requests_for"]

Json = dict[str, Any]

_HOSTS, _ROUTES = 5, 6  # of a table, and of a host


def requests_for(table: Json) -> Iterator[Request]:
    """A few requests for each route, without repeating one."""
    seen: set[Request] = set()
    for request in _all(table):
        if request not in seen:
            seen.add(request)
            yield request


def _all(table: Json) -> Iterator[Request]:
    for host in islice(get(table, "virtual_hosts") or (), _HOSTS):
        authority = _authority((get(host, "domains") or ["*"])[0])
        for route in islice(get(host, "routes") or (), _ROUTES):
            match = get(route, "match") or {}
            path = _path(match)
            yield _aimed(match, authority, path)
            yield Request("GET", authority, path)
            yield Request(
                "POST", authority, f"{path.rstrip('/')}/more", (("content-type", "text/plain"),), b"body"
            )
        yield Request("GET", authority, "/nowhere-at-all")
    yield Request("GET", "nobody.example", "/")


def _authority(domain: str) -> str:
    if domain in ("", "*"):
        return "anybody.example"
    return domain.replace("*", "some", 1)


def _path(match: Json) -> str:
    for kind in ("path", "prefix", "path_separated_prefix"):
        if get(match, kind):
            return _rooted(str(get(match, kind)))
    return _rooted(_text(get(get(match, "safe_regex", {}), "regex", "")))


def _rooted(path: str) -> str:
    return path if path.startswith("/") else f"/{path}"


def _text(pattern: str) -> str:
    """Something that the pattern matches, for the patterns that people write; else what is left of it."""
    for written, meant in (
        (r"\\d\+|\[0-9\]\+", "1"),
        (r"\.[*+]|\[\^/\]\+|\\S\+|\\w\+", "x"),
        (r"[\^$()?]", ""),
        (r"\\(.)", r"\1"),
    ):
        pattern = re.sub(written, meant, pattern)
    return pattern.split("|")[0]


def _aimed(match: Json, authority: str, path: str) -> Request:
    method, lines = "GET", list[tuple[str, str]]()
    for item in get(match, "headers") or ():
        value = _value(get(item, "string_match") or item)
        if item["name"] == ":method":
            method = value or method
        elif not item["name"].startswith(":") and not get(item, "invert_match"):
            lines.append((item["name"], value))
    query = "&".join(
        f"{item['name']}={_value(get(item, 'string_match') or {})}"
        for item in get(match, "query_parameters") or ()
    )
    cookies = "; ".join(
        f"{item['name']}={_value(get(item, 'string_match'))}" for item in get(match, "cookies") or ()
    )
    if cookies:
        lines.append(("cookie", cookies))
    if get(match, "grpc") is not None:
        lines.append(("content-type", "application/grpc"))
    return Request(method, authority, f"{path}?{query}" if query else path, tuple(lines))


def _value(string: Json) -> str:
    for kind in ("exact", "prefix", "suffix", "contains"):
        for name in (kind, f"{kind}_match"):
            if get(string, name):
                return str(get(string, name))
    pattern = get(get(string, "safe_regex", {}), "regex") or get(get(string, "safe_regex_match", {}), "regex")
    return _text(str(pattern)) if pattern else "x"
