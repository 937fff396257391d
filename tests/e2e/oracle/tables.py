"""Random valid route configurations from a seed, in Envoy's JSON, and what each of them is made of.

The vocabulary is small on purpose, so that matchers overlap and requests hit.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from meshlib.testing import build

__all__ = [
    "ACTIONS",
    "CLUSTERS",
    "HEADER_VALUES",
    "PSEUDO_VALUES",
    "QUERY_KEYS",
    "QUERY_VALUES",
    "Json",
    "Maker",
    "make_table",
]

Json = dict[str, Any]

#: Those with a hostname give it to their endpoint, for ``auto_host_rewrite``.
CLUSTERS = {"alpha": "", "beta": "", "gamma": "gamma.internal", "delta": "", "epsilon": "eps.internal:8443"}

SEGMENTS = ("api", "v1", "v2", "users", "Orders", "x", "a-b", "img.png")
DOMAINS = (
    "shop.test",
    "api.shop.test",
    "Web.Shop.test",
    "a.b.shop.test",
    "shop.test:8080",
    "api.shop.test:80",
    "*.shop.test",
    "*.b.shop.test",
    "*-beta.shop.test",
    "*.test",
    "*.test:8080",
    "shop.*",
    "api.shop.*",
    "api.*",
    "web.shop.test:*",
    "[::1]:9080",
    "10.0.0.7:9080",
)
HEADER_VALUES = {
    "x-tier": ("gold", "Gold", "silver", "gold,silver", ""),
    "x-user": ("alice", "bob", "Alice.Smith", "alice smith"),
    "x-num": ("5", "-3", "10", "007", " 12 ", "ten", "1.5", "99999999999999999999", "+4"),
    "x-flag": ("1", "true", ""),
    "user-agent": ("curl/8.1", "Mozilla/5.0 (X11)", "probe"),
    "accept": ("*/*", "application/json", "text/html, */*"),
    "cookie": ("a=1", "session=abc; a=2", "session=xyz"),
    "content-type": (
        "application/grpc",
        "application/grpc+proto",
        "application/grpc-web",
        "application/json",
    ),
    "x-utf": ("caf\u00c3\u00a9",),  # UTF-8 of "café", one character a byte
    "x-cluster": ("alpha", "beta", "nowhere"),
}
PSEUDO_VALUES = {
    ":method": ("GET", "POST", "HEAD"),
    ":path": ("/", "/api/v1", "/x?q=1"),
    ":scheme": ("http", "https"),
    ":authority": ("shop.test", "api.shop.test:80"),
    "host": ("shop.test", "web.shop.test"),
}
QUERY_KEYS = ("q", "page", "k", "debug")
QUERY_VALUES = ("1", "shoes", "Shoes%20red", "", "10", "a=b", "+")
PATTERNS = (
    "[a-z]+",
    "gold|silver",
    "al.*",
    ".*",
    "[0-9]+",
    "(?i)GOLD",
    "curl/[0-9.]+",
    "[^,]*",
    ".+",
    "caf.",
)
PATH_PATTERNS = (
    "/api/.*",
    "/api/(v1|v2)/[a-z]+",
    "/[^/]+",
    "/api/v[0-9]/users/([0-9]+)",
    ".*\\.png",
    "(?i)/ORDERS/.*",
    "/x(/.*)?",
)
REWRITES = (
    ("^/([^/]+)/(.*)$", "/\\2/\\1"),
    ("/v[0-9]+", "/v9"),
    ("[aeiou]", ""),
    ("(/[a-z]+)", "<\\1>"),
    ("^.*$", ""),
    ("x*", "-"),
    ("users", "\\\\0\\0"),
)
HOST_PATTERNS = (
    ("^/([a-z0-9]+)/.*$", "\\1.rewritten.test"),
    ("^/nothing$", "nobody.test"),
    ("/", "."),
    ("^.*$", ""),
)
REQUEST_FORMATS = (
    "plain",
    "   ",
    " padded\t",
    "%REQ(x-missing)% via",
    "",
    "100%%",
    "%REQ(x-user)%",
    "<%REQ(X-Missing?:path)%>",
    "%REQ(user-agent):4%",
    "%REQ(x-missing)%",
    "%PROTOCOL%",
    "%UPSTREAM_CLUSTER%",
    "%ROUTE_NAME%",
    "%QUERY_PARAM(q)%",
    "%PATH(NQ)%",
    "%PATH(WQ:ORIG)%",
    "%PATH(NQ:PATH):3%",
    "%REQ(:METHOD)% %REQ(:authority)%",
    "%REQ(x-tier)%-%REQ(x-multi)%",
    "%REQUEST_HEADER(x-tier)%",
    "%RESPONSE_CODE%",
    "%UPSTREAM_HOST%",
    "%VIRTUAL_CLUSTER_NAME%",
    "caf\u00e9",
)
RESPONSE_FORMATS = (
    "plain",
    "   ",
    " padded\t",
    "%REQ(x-missing)% via",
    "",
    "%%%%",
    "%RESP(x-up)%",
    "%RESP(X-Missing?x-multi)%",
    "%RESPONSE_CODE%",
    "%RESP(:status)%",
    "%REQ(:path)%",
    "%REQ(x-envoy-original-path?:path)%",
    "%REQ(x-user):2%",
    "%UPSTREAM_CLUSTER%",
    "%ROUTE_NAME%",
    "%RESPONSE_HEADER(x-multi)%",
)
REQUEST_NAMES = (
    "x-added",
    "X-Added",
    "x-tier",
    "x-user",
    "x-multi",
    "user-agent",
    "accept",
    "cookie",
    "via",
    "x-flag",
)
RESPONSE_NAMES = ("x-added", "x-up", "X-Up", "x-multi", "content-type", "set-cookie", "location", "x-late")
#: Of direct responses: before the route's edits, so that nothing of a response is there yet.
DIRECT_FORMATS: tuple[Json, ...] = (
    {"text_format": "{%LOCAL_REPLY_BODY%} %REQ(:path)% %RESPONSE_CODE% %REQ(x-missing)%"},
    {"text_format": "%LOCAL_REPLY_BODY%!", "content_type": "text/html"},
    {"json_format": {"path": "%REQ(:path)%", "code": "%RESPONSE_CODE%", "user": "%REQ(x-user)%"}},
)
ACTIONS = ("APPEND_IF_EXISTS_OR_ADD", "ADD_IF_ABSENT", "OVERWRITE_IF_EXISTS_OR_ADD", "OVERWRITE_IF_EXISTS")
UNITS = {"HUNDRED": 100, "TEN_THOUSAND": 10_000, "MILLION": 1_000_000}


@dataclass(slots=True)
class Maker:
    """Parts of a table, drawn from one generator."""

    rng: random.Random
    #: One for a table: Envoy holds fractions of different units against different parts of its random number.
    unit: str = "HUNDRED"

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    def some(self, choices: tuple[Any, ...] | list[Any], most: int, *, least: int = 0) -> list[Any]:
        return self.rng.sample(list(choices), self.rng.randint(least, min(most, len(choices))))

    def path(self, *, least: int = 0, most: int = 3) -> str:
        return "".join("/" + self.rng.choice(SEGMENTS) for _ in range(self.rng.randint(least, most))) or "/"

    # --- matchers -------------------------------------------------------------------------------------------------

    def string_match(self, values: tuple[str, ...]) -> Json:
        kind = self.rng.choice(("exact", "prefix", "suffix", "contains", "safe_regex", "exact"))
        if kind == "safe_regex":
            return {"safe_regex": {"regex": self.rng.choice(PATTERNS)}}
        value = _text(self.rng.choice(values))
        if kind != "exact":
            value = self._part(value, kind) or "a"
        match: Json = {kind: value}
        if self.chance(0.35):
            match["ignore_case"] = True
            if self.chance(0.5):
                match[kind] = value.upper() if value.isascii() else value
        return match

    def _part(self, value: str, kind: str) -> str:
        size = self.rng.randint(1, 3)
        if kind == "prefix":
            return value[:size]
        return value[-size:] if kind == "suffix" else value[1 : 1 + size]

    def header_match(self) -> Json:
        name = self.rng.choice((*HEADER_VALUES, *PSEUDO_VALUES))
        values = HEADER_VALUES.get(name) or PSEUDO_VALUES[name]
        match: Json = {"name": name.upper() if self.chance(0.1) and not name.startswith(":") else name}
        kind = self.rng.choice(
            ("string", "string", "string", "legacy", "range", "present", "present", "bare")
        )
        if name == "x-num" and self.chance(0.7):
            kind = "range"
        if kind == "string":
            match["string_match"] = self.string_match(values)
        elif kind == "legacy":
            match |= self._legacy(values)
        elif kind == "range":
            start = self.rng.choice((-10, 0, 5))
            match["range_match"] = {"start": start, "end": start + self.rng.choice((0, 5, 6, 15))}
        elif kind == "present":
            match["present_match"] = self.chance(0.6)
        if self.chance(0.25):
            match["invert_match"] = True
        if self.chance(0.2):
            match["treat_missing_header_as_empty"] = True
        return match

    def _legacy(self, values: tuple[str, ...]) -> Json:
        kind = self.rng.choice(("exact", "prefix", "suffix", "contains", "safe_regex"))
        if kind == "safe_regex":
            return {"safe_regex_match": {"regex": self.rng.choice(PATTERNS)}}
        value = _text(self.rng.choice(values))
        if kind != "exact":
            value = self._part(value or "a", kind) or "a"
        return {f"{kind}_match": value}

    def query_match(self) -> Json:
        match: Json = {"name": self.rng.choice(QUERY_KEYS)}
        which = self.rng.random()
        if which < 0.7:
            match["string_match"] = self.string_match(QUERY_VALUES)
        elif which < 0.9:
            match["present_match"] = self.chance(0.7)
        return match

    def match(self) -> Json:
        kind = self.rng.choice(("prefix", "prefix", "path", "path_separated_prefix", "safe_regex"))
        if kind == "safe_regex":
            match: Json = {kind: {"regex": self.rng.choice(PATH_PATTERNS)}}
        elif kind == "prefix":
            tail = self.rng.choice(("", "", "/", "?q"))
            match = {kind: self.rng.choice(("", "/", self.path() + tail, self.path()[:-1] or "/"))}
        elif kind == "path":
            match = {kind: self.path(least=1) + self.rng.choice(("", "", "/"))}
        else:
            match = {kind: self.path(least=1)}
        if self.chance(0.25):
            match["case_sensitive"] = False
            if kind != "safe_regex" and self.chance(0.5):
                match[kind] = match[kind].upper()
        if self.chance(0.45):
            match["headers"] = [self.header_match() for _ in range(self.rng.choice((1, 1, 2)))]
        if self.chance(0.2):
            match["query_parameters"] = [self.query_match() for _ in range(self.rng.choice((1, 1, 2)))]
        if self.chance(0.15):
            share = self.rng.choice((0, 25, 50, 100, 200)) * UNITS[self.unit] // 100
            match["runtime_fraction"] = {"default_value": {"numerator": share, "denominator": self.unit}}
        if self.chance(0.08):
            match["grpc"] = {}
        if self.chance(0.06):
            match["dynamic_metadata"] = [self.metadata_match()]
        if self.chance(0.02):
            match["filter_state"] = [{"key": "nobody", "string_match": {"exact": "x"}}]
        if self.chance(0.02):
            del match[kind]
            match["connect_matcher"] = {}
        if self.chance(0.08):
            match["cookies"] = [self.cookie_match() for _ in range(self.rng.choice((1, 1, 2)))]
        return match

    def metadata_match(self) -> Json:
        """Nothing here sets any."""
        value = self.rng.choice(
            ({"present_match": True}, {"string_match": {"exact": "x"}}, {"null_match": {}})
        )
        match: Json = {"filter": "nobody", "path": [{"key": "k"}], "value": value}
        if self.chance(0.7):
            match["invert"] = True
        return match

    def cookie_match(self) -> Json:
        match: Json = {
            "name": self.rng.choice(("a", "session")),
            "string_match": self.string_match(("1", "2", "abc", "xyz")),
        }
        if self.chance(0.3):
            match["invert_match"] = True
        return match

    # --- edits ----------------------------------------------------------------------------------------------------

    def edits(self, share: float) -> Json:
        made: Json = {}
        for direction, names, formats in (
            ("request", REQUEST_NAMES, REQUEST_FORMATS),
            ("response", RESPONSE_NAMES, RESPONSE_FORMATS),
        ):
            if not self.chance(share):
                continue
            added = [
                self._edit(self.rng.choice(names), self.rng.choice(formats))
                for _ in range(self.rng.randint(0, 4))
            ]
            removed = self.some([name.lower() for name in dict.fromkeys(names)], 2)
            if added:
                made[f"{direction}_headers_to_add"] = added
            if removed:
                made[f"{direction}_headers_to_remove"] = removed
        return made

    def _edit(self, name: str, text: str) -> Json:
        if self.chance(0.15):
            return {"header": {"key": name, "value": text}, "append": self.chance(0.5)}
        edit = build.header(name, text, action=self.rng.choice(ACTIONS))
        if self.chance(0.3):
            edit["keep_empty_value"] = True
        return edit

    # --- actions --------------------------------------------------------------------------------------------------

    def regex(self, choices: tuple[tuple[str, str], ...]) -> Json:
        pattern, substitution = self.rng.choice(choices)
        return {"pattern": {"regex": pattern}, "substitution": substitution}

    def action(self) -> Json:
        which = self.rng.random()
        if which < 0.16:
            return {"redirect": self.redirect()}
        if which < 0.26:
            return {"direct_response": self.direct_response()}
        if which < 0.28:
            return {"non_forwarding_action": {}}
        return {"route": self.forward()}

    def forward(self) -> Json:
        made: Json = self.rng.choice(
            (self._cluster, self._cluster, self._cluster, self._weighted, self._by_header)
        )()
        rewrite = self.rng.random()
        if rewrite < 0.25:
            made["prefix_rewrite"] = self.rng.choice(("/", "/new", "/new/", "relative", "/with?query=1"))
        elif rewrite < 0.4:
            made["regex_rewrite"] = self.regex(REWRITES)
        host = self.rng.random()
        if host < 0.12:
            made["host_rewrite_literal"] = self.rng.choice(("Fixed.test", "fixed.test:81"))
        elif host < 0.22:
            made["host_rewrite_header"] = self.rng.choice(("x-user", "X-Tier", "x-added", "x-missing"))
        elif host < 0.3:
            made["host_rewrite_path_regex"] = self.regex(HOST_PATTERNS)
        elif host < 0.42:
            made["auto_host_rewrite"] = self.chance(0.9)
        if self.chance(0.3):
            made["append_x_forwarded_host"] = True
        if self.chance(0.1):
            made["timeout"] = self.rng.choice(("0s", "30s"))
        if self.chance(0.15):
            made["retry_policy"] = self.retry()
        return made

    def retry(self) -> Json:
        """A policy of which nothing here is an occasion: what is tried again is compared elsewhere."""
        made: Json = {"retry_on": self.rng.choice(("5xx", "gateway-error,reset", "retriable-status-codes"))}
        if self.chance(0.5):
            made["num_retries"] = self.rng.randint(0, 3)
        if self.chance(0.5):
            made["per_try_timeout"] = "10s"
        if self.chance(0.3):
            predicate = "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
            made["retry_host_predicate"] = [
                {
                    "name": "envoy.retry_host_predicates.previous_hosts",
                    "typed_config": build.any_of(predicate),
                }
            ]
        if self.chance(0.3):
            made["retriable_status_codes"] = [418]
        if self.chance(0.3):
            made["retry_back_off"] = {"base_interval": "0.025s", "max_interval": "1s"}
        if self.chance(0.3):
            made["rate_limited_retry_back_off"] = {
                "reset_headers": [
                    {"name": "retry-after", "format": self.rng.choice(("SECONDS", "UNIX_TIMESTAMP"))}
                ],
                "max_interval": "10s",
            }
        if self.chance(0.3):
            made["retriable_headers"] = [{"name": "x-never"}]
        if self.chance(0.3):
            made["retriable_request_headers"] = [self.header_match()]
        return made

    def _cluster(self) -> Json:
        if self.chance(0.06):
            return {
                "cluster": "nowhere",
                "cluster_not_found_response_code": self.rng.choice(("NOT_FOUND", "SERVICE_UNAVAILABLE")),
            }
        return {"cluster": self.rng.choice(list(CLUSTERS))}

    def _by_header(self) -> Json:
        return {"cluster_header": self.rng.choice(("x-cluster", "X-Cluster", "x-tier"))}

    def _weighted(self) -> Json:
        shares = []
        for name in self.some(list(CLUSTERS), 3, least=1):
            share: Json = {"name": name, "weight": self.rng.choice((0, 1, 10, 90))} | self.edits(0.3)
            if self.chance(0.15):
                share["cluster_header"] = "x-cluster"
                del share["name"]
            if self.chance(0.25):
                share["host_rewrite_literal"] = "share.test"
            shares.append(share)
        if not any(share["weight"] for share in shares):
            shares[0]["weight"] = 7
        made: Json = {"clusters": shares}
        if self.chance(0.3):
            made["header_name"] = self.rng.choice(("x-num", "X-Num", "x-user"))
        elif self.chance(0.15):
            made["use_hash_policy"] = self.chance(0.5)
        return {"weighted_clusters": made}

    def redirect(self) -> Json:
        made: Json = {}
        which = self.rng.random()
        if which < 0.3:
            made["https_redirect"] = self.chance(0.9)
        elif which < 0.5:
            made["scheme_redirect"] = self.rng.choice(("https", "http", "ftp"))
        if self.chance(0.4):
            made["host_redirect"] = self.rng.choice(("else.test", "else.test:9"))
        if self.chance(0.3):
            made["port_redirect"] = self.rng.choice((80, 443, 8443))
        path = self.rng.random()
        if path < 0.25:
            made["path_redirect"] = self.rng.choice(("/gone", "gone", "/gone?own=1"))
        elif path < 0.5:
            made["prefix_rewrite"] = self.rng.choice(("/moved", "/", "/moved/"))
        elif path < 0.7:
            made["regex_rewrite"] = self.regex(REWRITES)
        if self.chance(0.6):
            made["response_code"] = self.rng.choice(
                ("MOVED_PERMANENTLY", "FOUND", "SEE_OTHER", "TEMPORARY_REDIRECT", "PERMANENT_REDIRECT")
            )
        if self.chance(0.3):
            made["strip_query"] = True
        return made

    def direct_response(self) -> Json:
        made: Json = {"status": self.rng.choice((200, 201, 204, 304, 308, 403, 404, 418, 503))}
        if made["status"] not in (204, 304) and self.chance(0.7):
            text = self.rng.choice(("hello", "caf\u00e9", '{"a": 1}'))
            made["body"] = {"inline_string": text} if self.chance(0.8) else {"inline_bytes": "aGk="}
            if self.chance(0.3):
                made["body_format"] = self.rng.choice(DIRECT_FORMATS)
        return made

    # --- tables ---------------------------------------------------------------------------------------------------

    def route(self, name: str) -> Json:
        made = {"match": self.match()} | self.action() | self.edits(0.25)
        if self.chance(0.04):
            made["match"]["tls_context"] = {self.rng.choice(("presented", "validated")): self.chance(0.5)}
        if self.chance(0.6):
            made["name"] = name
        return made

    def virtual_host(self, name: str, domains: list[str]) -> Json:
        routes = [self.route(f"{name}-{number}") for number in range(self.rng.randint(2, 9))]
        if self.chance(0.7):
            routes.append({"match": {"prefix": "/"}, "route": {"cluster": self.rng.choice(list(CLUSTERS))}})
        made = build.virtual_host(name, *routes, domains=domains) | self.edits(0.25)
        if self.chance(0.06):
            made["require_tls"] = "ALL"
        if self.chance(0.1):
            made["include_request_attempt_count"] = True
        if self.chance(0.15):
            made["include_attempt_count_in_response"] = True
        if self.chance(0.1):
            made["retry_policy"] = self.retry()
        return made


def _text(value: str) -> str:
    """A value on the wire (a character a byte) as a configuration's text."""
    return value.encode("latin-1").decode("utf-8").strip()


def make_table(seed: int, name: str) -> Json:
    """One RouteConfiguration."""
    maker = Maker(random.Random(f"table/{seed}"))
    maker.unit = maker.rng.choice(list(UNITS))
    domains = maker.some(DOMAINS, 9, least=2)
    hosts = []
    for number in range(maker.rng.randint(1, 4)):
        taken = [domains.pop() for _ in range(min(len(domains), maker.rng.randint(1, 3)))]
        if taken:
            hosts.append(maker.virtual_host(f"host{number}", taken))
    if maker.chance(0.7):
        hosts.append(maker.virtual_host("any", ["*"]))
    maker.rng.shuffle(hosts)
    made = build.route_config(name, *hosts) | maker.edits(0.3)
    if maker.chance(0.3):
        made["most_specific_header_mutations_wins"] = True
    if maker.chance(0.2):
        made["ignore_port_in_host_matching"] = True
    if maker.chance(0.2):
        made["ignore_path_parameters_in_path_matching"] = True
    if maker.chance(0.1):
        made["validate_clusters"] = False
    if maker.chance(0.1):
        made["max_direct_response_body_size_bytes"] = maker.rng.choice((1000, 8192))
    return made
