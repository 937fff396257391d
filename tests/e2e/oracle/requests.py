"""Random requests for a table: aimed at one of its routes, then made to miss now and then."""

from __future__ import annotations

import random
from typing import Any

from tests.e2e.oracle.exchange import Request
from tests.e2e.oracle.managers import make_manager
from tests.e2e.oracle.tables import (
    HEADER_VALUES,
    PSEUDO_VALUES,
    QUERY_KEYS,
    QUERY_VALUES,
    SEGMENTS,
    Json,
)

__all__ = ["make_requests"]

_METHODS = ("GET", "GET", "GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS")
#: What a pattern of ``tables.PATH_PATTERNS`` may be aimed at with.
_PATTERN_PATHS = (
    "/api/v1/users",
    "/api/v2/x",
    "/x",
    "/x/y",
    "/api/v1/users/12",
    "/a/img.png",
    "/orders/1",
    "/Orders/x",
)


def make_requests(table: Json, seed: int, count: int) -> list[Request]:
    """``count`` requests for the table. Dots and needless escapes are in paths only where Envoy resolves them: httpx
    always does.
    """
    maker = _Maker(random.Random(f"requests/{seed}"), table)
    maker.odd = ("//", "/%2F", "/a%2fb/", "/a%5Cb/", "/;v=1/")
    if "normalize_path" in make_manager(seed):
        maker.odd += ("/./", "/x/../", "/%2e/", "/%7E/../", "/x%2f..%2f")
    return [maker.request() for _ in range(count)]


class _Maker:
    def __init__(self, rng: random.Random, table: Json) -> None:
        self.rng = rng
        self.hosts: list[Json] = table["virtual_hosts"]
        self.odd: tuple[str, ...] = ()

    def request(self) -> Request:
        rng = self.rng
        host = rng.choice(self.hosts)
        route = rng.choice(host["routes"]) if rng.random() < 0.9 else None
        match: Json = route["match"] if route is not None else {"prefix": "/"}
        headers = {name: rng.choice(values) for name, values in HEADER_VALUES.items() if rng.random() < 0.3}
        pseudo: dict[str, str] = {}
        for wanted in match.get("headers", ()):
            if rng.random() < 0.85:
                self._aim(wanted, headers, pseudo)
        for wanted in match.get("cookies", ()):
            if rng.random() < 0.8:
                value = _fitting(wanted["string_match"], rng, ("1", "2", "abc"))
                headers["cookie"] = f"{wanted['name']}={value}; b=3"
        if "grpc" in match and rng.random() < 0.8:
            headers["content-type"] = "application/grpc"
        target: Json = (route or {}).get("route", {})
        by_header = "cluster_header" in str(target)
        if by_header and rng.random() < 0.8:
            headers["x-cluster"] = rng.choice(("alpha", "beta", "gamma"))
        path = pseudo.get(":path") or self._path(match) + self._query(match)
        authority = pseudo.get(":authority") or self._authority(host)
        method = pseudo.get(":method") or rng.choice(_METHODS)
        lines = list(headers.items())
        if rng.random() < 0.2:
            lines += [("x-multi", "one"), ("X-Multi", "two")]
        if rng.random() < 0.1 and lines:
            lines.append(rng.choice(lines))
        if rng.random() < 0.1:
            lines.append(("x-forwarded-host", rng.choice(("first.test", f"first.test,{authority}"))))
        if rng.random() < 0.1:
            lines.append(("x-forwarded-port", rng.choice(("1", ""))))
        if rng.random() < 0.1:
            lines.append((rng.choice(("x_user", "X-User_", "_")), "1"))
        rng.shuffle(lines)
        body = b"some body" if method in ("POST", "PUT") else b""
        return Request(method, authority, path, tuple(lines), body)

    # --- aiming ---------------------------------------------------------------------------------------------------

    def _authority(self, host: Json) -> str:
        rng = self.rng
        domain: str = rng.choice(host["domains"])
        if domain == "*":
            domain = rng.choice(("unknown.example", "shop.test", "web.shop.test:81"))
        filled = rng.choice(("web", "a.b", "x-beta", "api"))
        text = domain.replace(
            "*", filled if domain.startswith("*") else rng.choice(("test", "example", "8080"))
        )
        if rng.random() < 0.2 and ":" not in text:
            text += rng.choice((":80", ":8080"))
        if rng.random() < 0.15:
            text = text.upper()
        if rng.random() < 0.1:
            text += "." if ":" not in text else ""
        if rng.random() < 0.1:
            text = rng.choice(("shop.test", "api.shop.test", ".shop.test", "nobody.example", "shop."))
        return text

    def _path(self, match: Json) -> str:
        rng = self.rng
        if "safe_regex" in match:
            path = rng.choice(_PATTERN_PATHS)
        else:
            path = match.get("path") or match.get("prefix") or match.get("path_separated_prefix") or "/"
        if rng.random() < 0.4 and "path" not in match:
            path += rng.choice(("/", "", "s")) + rng.choice(SEGMENTS)
        elif rng.random() < 0.1:
            path += "/"
        if rng.random() < 0.15:
            path = path.swapcase()
        path = path.partition("?")[0]
        if rng.random() < 0.15:
            path = path.replace("/", rng.choice(self.odd), 1)
        elif rng.random() < 0.1:
            path += rng.choice((";v=1", ";v=1/api", ";", "%2F", "%5c"))
        return path if path.startswith("/") else "/" + path

    def _query(self, match: Json) -> str:
        rng = self.rng
        pairs = [
            f"{wanted['name']}={_fitting(wanted.get('string_match', {}), rng, QUERY_VALUES)}"
            for wanted in match.get("query_parameters", ())
            if rng.random() < 0.85
        ]
        while rng.random() < 0.3:
            key = rng.choice(QUERY_KEYS)
            pairs.append(rng.choice((key, f"{key}={rng.choice(QUERY_VALUES)}", "", f"{key}&")))
        if not pairs:
            return rng.choice(("", "", "", "?"))
        return "?" + "&".join(pairs).replace("caf\u00e9", "")

    def _aim(self, wanted: Json, headers: dict[str, str], pseudo: dict[str, str]) -> None:
        name = wanted["name"].lower()
        values = HEADER_VALUES.get(name) or PSEUDO_VALUES[name]
        value = _wire(_header_value(wanted, self.rng, values))
        if name in (":authority", "host"):
            pseudo[":authority"] = value.replace(" ", "") or "shop.test"
        elif name == ":path":
            pseudo[":path"] = value if value.startswith("/") else f"/{value}"
        elif name == ":method":
            pseudo[":method"] = value if value in _METHODS else "GET"
        elif name == ":scheme":
            pass
        elif wanted.get("present_match") is False:
            headers.pop(name, None)
        else:
            headers[name] = value


def _header_value(wanted: Json, rng: random.Random, values: tuple[str, ...]) -> str:
    if "range_match" in wanted:
        return str(rng.randint(wanted["range_match"]["start"] - 1, wanted["range_match"]["end"] + 1))
    if "string_match" in wanted:
        return _fitting(wanted["string_match"], rng, values)
    for kind in ("exact", "prefix", "suffix", "contains"):
        if f"{kind}_match" in wanted:
            return _fitting({kind: wanted[f"{kind}_match"]}, rng, values)
    return rng.choice(values)


def _fitting(match: Json, rng: random.Random, values: tuple[str, ...]) -> str:
    """A value that most likely fits a StringMatcher."""
    filler = rng.choice(("", "z", "9"))
    made: Any = rng.choice(values)
    if "exact" in match:
        made = match["exact"]
    elif "prefix" in match:
        made = match["prefix"] + filler
    elif "suffix" in match:
        made = filler + match["suffix"]
    elif "contains" in match:
        made = filler + match["contains"] + filler
    text: str = made
    return text.swapcase() if match.get("ignore_case") and rng.random() < 0.5 and text.isascii() else text


def _wire(text: str) -> str:
    return (
        text
        if max(text, default="").isascii()
        else text.encode("latin-1" if "\u00c3" in text else "utf-8").decode("latin-1")
    )
