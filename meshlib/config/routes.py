# ruff: noqa: RUF009  (a field is made by a function that knows what it allows)
"""What the configuration says of routes: which calls, where to, what is changed on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from meshlib.config.kinds import Among, Boolean, Choice, Integer, ListOf, MapOf, Number, Text, seconds
from meshlib.config.policies import (
    BreakerConfig,
    HedgeConfig,
    RateLimitConfig,
    RetryConfig,
    RouteLimitsConfig,
)
from meshlib.config.section import Section, Table, both, only_one, required, setting
from meshlib.config.source import FrozenMap
from meshlib.config.words import EDITED, HEADER, HOST, METHOD, PATH, PATH_ONLY, REGEX, SERVICE, U32

__all__ = [
    "FaultConfig",
    "HeaderEditsConfig",
    "HeaderMatchConfig",
    "MatchConfig",
    "MirrorConfig",
    "QueryMatchConfig",
    "RedirectConfig",
    "ResponseConfig",
    "RewriteConfig",
    "RouteConfig",
]


@dataclass(frozen=True, slots=True)
class QueryMatchConfig(Section):
    """What the first value of a query parameter must be. As text alone: exactly that."""

    exact: str | None = setting(Text(any_text=True), "Equal to this.", None)
    prefix: str | None = setting(Text(), "Begins so.", None)
    suffix: str | None = setting(Text(), "Ends so.", None)
    contains: str | None = setting(Text(), "Holds this.", None)
    regex: str | None = setting(REGEX, "All of it matches this RE2 expression.", None)
    present: bool | None = setting(
        Boolean(), "true: it is there, with whatever value; false: it is not.", None
    )
    ignore_case: bool = setting(Boolean(), "Upper and lower case are the same; not for regex.", default=False)

    def check(self) -> Iterator[tuple[str, str]]:
        yield from _one_matcher(self, "exact", "prefix", "suffix", "contains", "regex", "present")


@dataclass(frozen=True, slots=True)
class HeaderMatchConfig(Section):
    """What a request header must be (several values are joined by a comma). As text alone: exactly that."""

    exact: str | None = setting(Text(any_text=True), "Equal to this.", None)
    prefix: str | None = setting(Text(), "Begins so.", None)
    suffix: str | None = setting(Text(), "Ends so.", None)
    contains: str | None = setting(Text(), "Holds this.", None)
    regex: str | None = setting(REGEX, "All of it matches this RE2 expression.", None)
    present: bool | None = setting(
        Boolean(), "true: it is there, with whatever value; false: it is not.", None
    )
    range: tuple[int, ...] | None = setting(
        ListOf(Integer(-(2**63), 2**63 - 1)),
        "A whole number from the first of these up to, not including, the second.",
        None,
    )
    ignore_case: bool = setting(Boolean(), "Upper and lower case are the same; not for regex.", default=False)
    invert: bool = setting(
        Boolean(), "Must not match. A header that is missing matches in neither way.", default=False
    )
    missing_as_empty: bool = setting(
        Boolean(), "A header that is missing counts as an empty one.", default=False
    )

    def check(self) -> Iterator[tuple[str, str]]:
        yield from _one_matcher(self, "exact", "prefix", "suffix", "contains", "regex", "present", "range")
        if self.range is not None and (len(self.range) != 2 or self.range[0] > self.range[1]):
            yield "range", "must be two whole numbers, the smaller first"  # HM-03


def _one_matcher(section: QueryMatchConfig | HeaderMatchConfig, *names: str) -> Iterator[tuple[str, str]]:
    yield from only_one(section, *names)
    if all(getattr(section, name) is None for name in names):
        yield "", f"must have one of {', '.join(names)}"
    if section.ignore_case and section.regex is not None:
        yield "ignore_case", "is not for regex; write (?i) in it"


@dataclass(frozen=True, slots=True)
class MatchConfig(Section):
    """Which calls a route is for. All that is given must hold; without a path every path does."""

    prefix: str | None = setting(PATH, "The path begins so.", None)
    path: str | None = setting(PATH_ONLY, "The path without its query is this.", None)
    path_separated_prefix: str | None = setting(
        PATH_ONLY, "The path is this, or goes on below it after a /.", None
    )
    regex: str | None = setting(REGEX, "All of the path without its query matches this RE2 expression.", None)
    case_sensitive: bool = setting(Boolean(), "Of the path; not for regex.", default=True)
    methods: tuple[str, ...] | None = setting(ListOf(METHOD, least=1), "The method is one of these.", None)
    headers: Mapping[str, HeaderMatchConfig] = setting(
        MapOf(HEADER, Table(HeaderMatchConfig, shorthand="exact")),
        "What headers must be, by name.",
        FrozenMap(),
    )
    query: Mapping[str, QueryMatchConfig] = setting(
        MapOf(Text("the name of a query parameter"), Table(QueryMatchConfig, shorthand="exact")),
        "What query parameters must be, by name.",
        FrozenMap(),
    )
    percent: float | None = setting(Number(0, 100), "Only this percentage of the calls, drawn by lot.", None)

    def check(self) -> Iterator[tuple[str, str]]:
        yield from only_one(self, "prefix", "path", "path_separated_prefix", "regex")
        if (self.path_separated_prefix or "").endswith("/"):
            yield "path_separated_prefix", "must not end with a /"


@dataclass(frozen=True, slots=True)
class RewriteConfig(Section):
    """What arrives instead of what was asked. As text alone: its prefix."""

    prefix: str | None = setting(
        PATH,
        "Put in the place of the prefix or path that matched.",
        None,
    )
    regex: str | None = setting(
        REGEX, "Every match in the path without its query is replaced by substitution.", None
    )
    substitution: str | None = setting(
        Text(any_text=True), "What takes the place of regex; \\1 is its first group.", None
    )
    host: str | None = setting(Text(), "The Host that the service sees.", None)

    def check(self) -> Iterator[tuple[str, str]]:
        yield from only_one(self, "prefix", "regex")
        yield from both(self, "regex", "substitution")


@dataclass(frozen=True, slots=True)
class RedirectConfig(Section):
    """An answer that sends the caller elsewhere. What is not given stays as it was asked."""

    scheme: str | None = setting(Choice("http", "https"), "The scheme.", None)
    host: str | None = setting(HOST, "The host.", None)
    port: int | None = setting(Integer(1, 65535, what="a port"), "The port.", None)
    path: str | None = setting(PATH, "The path; with a ? its query too.", None)
    prefix: str | None = setting(
        PATH,
        "Put in the place of the prefix or path that matched.",
        None,
    )
    status: int = setting(Among(301, 302, 303, 307, 308), "The status (Envoy `RedirectResponseCode`).", 301)
    strip_query: bool = setting(Boolean(), "Without the query.", default=False)

    def check(self) -> Iterator[tuple[str, str]]:
        yield from only_one(self, "path", "prefix")
        if all(value is None for value in (self.scheme, self.host, self.port, self.path, self.prefix)):
            yield "", "must have one of scheme, host, port, path, prefix"


@dataclass(frozen=True, slots=True)
class ResponseConfig(Section):
    """An answer that is given without asking anybody."""

    status: int = required(Integer(200, 599, what="a status"), "The status.")
    body: str = setting(Text(any_text=True), "The body.", "")
    content_type: str | None = setting(Text(), "Its content type. Default with a body: text/plain.", None)


@dataclass(frozen=True, slots=True)
class HeaderEditsConfig(Section):
    """Changes of headers. Values are Envoy's format: %% is a percent sign."""

    set: Mapping[str, str] = setting(
        MapOf(EDITED, Text(any_text=False)), "Put in the place of what was there.", FrozenMap()
    )
    add: Mapping[str, str] = setting(
        MapOf(EDITED, Text(any_text=False)), "Added to what is there.", FrozenMap()
    )
    remove: tuple[str, ...] = setting(ListOf(EDITED), "Taken away.", ())


@dataclass(frozen=True, slots=True)
class FaultConfig(Section):
    """A delay, an answer, or both: the delay comes first. Each is drawn by itself."""

    delay: float | None = setting(seconds(), "Seconds that a call waits before anything is done.", None)
    abort: int | None = setting(
        Integer(200, 599, what="a status"), "The call is answered with this status.", None
    )
    percent: float = setting(Number(0, 100), "So many of a hundred calls.", 100.0)

    def check(self) -> Iterator[tuple[str, str]]:
        if self.delay is None and self.abort is None:
            yield "", "must have delay or abort, or both"


@dataclass(frozen=True, slots=True)
class MirrorConfig(Section):
    """A service that gets calls, too. As text alone: the service, and all of them."""

    service: str = required(SERVICE, "The service.")
    percent: float = setting(Number(0, 100), "So many of a hundred calls.", 100.0)


@dataclass(frozen=True, slots=True)
class RouteConfig(Section):
    """A route: the first whose match holds is taken. Where it says nothing of a target, it is the service itself."""

    name: str | None = setting(Text(), "What traces and spans call it.", None)
    match: MatchConfig = setting(Table(MatchConfig), "Which calls it is for.", MatchConfig())
    service: str | None = setting(SERVICE, "The service that is called.", None)
    split: Mapping[str, int] | None = setting(
        MapOf(SERVICE, Integer(0, U32, what="a weight")),
        "Services by weight; each call goes to one of them.",
        None,
    )
    redirect: RedirectConfig | None = setting(Table(RedirectConfig), "The caller is sent elsewhere.", None)
    response: ResponseConfig | None = setting(Table(ResponseConfig), "The call is answered at once.", None)
    timeout: float | None = setting(
        seconds(zero=True),
        "Seconds for the whole call with its retries; 0: none. Default: the service's.",
        None,
    )
    idle_timeout: float | None = setting(
        seconds(zero=True),
        "Seconds in which a call must have read or written something; 0: none. Over it the call fails, as over its timeout.",
        None,
    )
    retry: RetryConfig | None = setting(Table(RetryConfig), "Instead of the service's.", None)
    breaker: BreakerConfig | None = setting(
        Table(BreakerConfig), "When calls by this route fail at once, beside the service's own.", None
    )
    limits: RouteLimitsConfig | None = setting(
        Table(RouteLimitsConfig), "How much may be in flight by this route, beside the service's own.", None
    )
    rate_limit: RateLimitConfig | None = setting(
        Table(RateLimitConfig),
        "How many calls this process makes by this route in a time; more are answered 429.",
        None,
    )
    hedge: HedgeConfig | None = setting(Table(HedgeConfig), "Instead of the service's.", None)
    rewrite: RewriteConfig | None = setting(
        Table(RewriteConfig, shorthand="prefix"), "What arrives instead.", None
    )
    mirror: MirrorConfig | None = setting(
        Table(MirrorConfig, shorthand="service"), "Where calls go, too; nobody waits for the answer.", None
    )
    fault: FaultConfig | None = setting(
        Table(FaultConfig), "What is done to calls on purpose, to see how the application takes it.", None
    )
    request_headers: HeaderEditsConfig = setting(
        Table(HeaderEditsConfig), "Changes of the request's headers.", HeaderEditsConfig()
    )
    response_headers: HeaderEditsConfig = setting(
        Table(HeaderEditsConfig), "Changes of the response's headers.", HeaderEditsConfig()
    )

    def check(self) -> Iterator[tuple[str, str]]:
        yield from only_one(self, "service", "split", "redirect", "response")
        if self.split is not None and not 0 < sum(self.split.values()) <= U32:
            yield "split", f"must have weights whose sum is 1 to {U32}"  # RA-01
        if self.breaker is not None and self.breaker.scope == "endpoint":
            yield "breaker", 'cannot have scope = "endpoint": it is of this route'
        if self.redirect is None and self.response is None:
            return
        of_calls = (
            "timeout",
            "idle_timeout",
            "retry",
            "hedge",
            "breaker",
            "limits",
            "rate_limit",
            "rewrite",
            "mirror",
            "fault",
        )
        for name in of_calls:
            if getattr(self, name) is not None:
                yield name, "is for calls that are sent on: this route answers by itself"
