"""Rate limits of filters: what is counted of a call, in their order, and what is made of those that are too many.

Theory. A *rule* of a route, its virtual host or the filter itself makes one descriptor of a call, unless one of its actions finds
nothing. A *local* limit has buckets in this process: one for all its calls, and one for each descriptor that it names. A *global* one asks a
service about the descriptors; without one nobody is asked. The filters are asked in their order, each once a call, and before its attempts:

    filter    calls counted   over the limit                    the service does not answer
    admission (`core.admission`: none is counted before it is over, and a share of them is refused)
    local     ``enabled``     of them ``enforced`` are refused  (nobody is asked)
    global    ``enabled``     of them ``enforced`` are refused  the call goes on, or (``deny``) is refused
    a call that is refused ends there; one that is counted and not refused goes on to the next

As with faults, the most specific of weighted cluster, route, virtual host and route configuration that speaks of a filter decides;
a local limit that stands there has buckets of its own (Envoy: "When using per route configuration, the bucket becomes unique to that
route"). The source address of a call is the loopback address: what a sidecar sees of an application beside it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from meshlib.core.conditions import Condition, compile_conditions, header_value, query_parameters
from meshlib.core.edits import ONE_LINE_REQUEST, ONE_LINE_RESPONSE, EditPlan
from meshlib.core.effects import Ask
from meshlib.core.failures import TEXT
from meshlib.core.formats import Format, Values, compile_format
from meshlib.model.call import Response
from meshlib.model.limits import (
    ActionKind,
    Admission,
    Descriptor,
    GlobalLimit,
    HostRules,
    LimitOverride,
    LocalLimit,
)
from meshlib.model.match import PathKind, PathMatch, RouteMatch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from meshlib.core.effects import Call, Env
    from meshlib.core.lines import Lines
    from meshlib.core.match import Match
    from meshlib.core.upstream import LiveAdmission
    from meshlib.model.call import Head, Outcome
    from meshlib.model.limits import Action, DescriptorRule, Verdict
    from meshlib.model.listener import HttpFilter
    from meshlib.model.route import ClusterWeight, Edit, FilterSwitch

__all__ = ["Limited", "Limiting", "descriptors"]

_MILLION = 1_000_000
#: Envoy's bound of `hits_addend`.
_MOST_HITS = 1_000_000_000
#: A number may have a fraction, which does not count (measured with Envoy 1.40).
_DECIMAL = frozenset("0123456789+-.eE")
_MOST_DIGITS = 64
_LOOPBACK = "127.0.0.1"
#: Where a limit of its own stands: listener, then whatever is more specific.
Place = tuple[str, ...]


class Limited(NamedTuple):
    """A call is refused: by this response, of gRPC with RESOURCE_EXHAUSTED where ``exhausted``; ``words`` say by whom."""

    response: Response
    words: str
    exhausted: bool
    flags: str = "RL"


class Limiting:
    """Of one call whose listener has such filters. Driven as its plan.

    Attributes:
        request: Lines that are added to each attempt; ``response``: to the answer.
        asked: What somebody is asked now.
    """

    __slots__ = (
        "_admissions",
        "_call",
        "_cluster",
        "_env",
        "_left",
        "_match",
        "_policy",
        "_weight",
        "asked",
        "request",
        "response",
    )

    def __init__(
        self, call: Call, env: Env, match: Match, weight: ClusterWeight | None, cluster: str
    ) -> None:
        self._call = call
        self._env = env
        self._match = match
        self._weight = weight
        self._cluster = cluster
        self._left: Iterator[HttpFilter] = iter(call.resolution.limits)
        self._policy: GlobalLimit | None = None  # of what is asked
        self._admissions: list[LiveAdmission] = []  # that hear how the call ends
        self.asked: Ask | None = None
        self.request: Lines = []
        self.response: Lines = []

    def go(self, now: float) -> Ask | Limited | None:
        """What is next: somebody is to be asked, the call is refused, or (None) it may pass. Who was asked has answered by now."""
        if self.asked is not None:
            return self._heard(self.asked.verdict, now)
        for each in self._left:
            policy, override, place = self._in_force(each)
            if policy is None or not self._drawn(policy.enabled):
                continue
            if isinstance(policy, Admission):
                refused = self._admitted(policy, place, now)
                if refused is not None:
                    return refused
                continue
            made = self._descriptors(policy, override)
            if isinstance(policy, LocalLimit):
                refused = self._counted(policy, made, place, now)
                if refused is not None:
                    return refused
            elif made:
                domain = (override.domain if override is not None else "") or policy.domain
                return self._question(policy, domain, made)
        return None

    def _question(self, policy: GlobalLimit, domain: str, made: tuple[Descriptor, ...]) -> Ask:
        part, seconds = self._call.resolution.part, policy.seconds
        self._policy = policy
        self.asked = Ask(part, policy.cluster, policy.authority, policy.metadata, seconds, domain, made)
        return self.asked

    def _heard(self, verdict: Verdict | None, now: float) -> Ask | Limited | None:
        policy = self._policy
        assert policy is not None
        self.asked = None
        if verdict is None:
            if self._drawn(policy.deny):
                words = f"the rate limit service {policy.cluster!r} does not answer: {policy.error_status}"
                return Limited(Response(policy.error_status), words, exhausted=False, flags="")
            return self.go(now)
        told = verdict.limits if policy.headers else ()
        lines: Lines = list(verdict.response)
        if verdict.over and policy.tells:
            lines.append((b"x-envoy-ratelimited", b"true"))
        lines.extend(told)
        if verdict.over and self._drawn(policy.enforced):
            lines = self._edited(lines, policy.refusal_headers, ONE_LINE_RESPONSE)
            words = f"the rate limit of {policy.domain!r} is reached: {policy.status}"
            return Limited(_reply(policy.status, verdict.body, lines), words, policy.exhausted)
        self.request.extend(verdict.request)
        self.response.extend(lines)
        return self.go(now)

    def end(self, outcome: Outcome, now: float) -> None:
        """The call is over, and ended so."""
        for admission in self._admissions:
            admission.hear(outcome, now)

    def _admitted(self, policy: Admission, place: Place, now: float) -> Limited | None:
        buckets = self._env.buckets
        assert buckets is not None
        admission = buckets.admission((self._call.resolution.part, *place), policy)
        if self._env.random() < admission.probability(now):
            words = f"listener {place[0]} lets fewer calls through, since too many fail: 503"
            return Limited(Response(503), words, exhausted=False, flags="")
        self._admissions.append(admission)
        return None

    # --- what is in force ---------------------------------------------------------------------------------------------

    def _in_force(
        self, each: HttpFilter
    ) -> tuple[LocalLimit | GlobalLimit | Admission | None, LimitOverride | None, Place]:
        listener = self._call.resolution.listener
        place: Place = (listener.name if listener is not None else "", each.name)
        own = each.limit
        for said, where in self._switches(each.name):
            if not said.on:
                return None, None, place
            if isinstance(said.limit, LocalLimit | Admission):
                return said.limit, None, (*place, *where)
            return own, said.limit, place
        return (None if each.disabled else own), None, place

    def _switches(self, name: str) -> Iterator[tuple[FilterSwitch, Place]]:
        """What places say of the filter, the most specific first."""
        match, weight = self._match, self._weight
        config, host = match.config.name, match.virtual_host.name
        share = (config, host, match.name, weight.cluster) if weight is not None else ()
        for filters, where in (
            (weight.filters if weight is not None else (), share),
            (match.route.filters, (config, host, match.name)),
            (match.virtual_host.filters, (config, host)),
            (match.config.filters, (config,)),
        ):
            for each in filters:
                if each.name == name:
                    yield each, where

    def _drawn(self, per_million: int) -> bool:
        return per_million >= _MILLION or (per_million > 0 and self._env.random() * _MILLION < per_million)

    # --- what is counted ----------------------------------------------------------------------------------------------

    def _descriptors(
        self, policy: LocalLimit | GlobalLimit, override: LimitOverride | None
    ) -> tuple[Descriptor, ...]:
        action, host = self._match.route.action, self._match.virtual_host
        route_rules = getattr(action, "rate_limits", ())
        given = (override.rules if override is not None else ()) or policy.rules
        if given:
            rules: Sequence[DescriptorRule] = given
        else:
            wanted = policy.host_rules if override is None else override.host_rules
            if getattr(action, "include_host_limits", False):
                wanted = HostRules.INCLUDE
            both = wanted is HostRules.INCLUDE or (wanted is HostRules.OVERRIDE and not route_rules)
            rules = (*route_rules, *host.rate_limits) if both else route_rules
        told = self._match.route.metadata
        return descriptors(rules, policy.stage, self._call.head, self._cluster, self._env.cluster, told)

    def _counted(
        self, policy: LocalLimit, made: tuple[Descriptor, ...], place: Place, now: float
    ) -> Limited | None:
        buckets = self._env.buckets
        assert buckets is not None
        passes, told = buckets.take((self._call.resolution.part, *place), policy, made, now)
        if policy.headers:
            self.response.extend(told)
        if passes:
            return None
        if not self._drawn(policy.enforced):
            self.request = self._edited(self.request, policy.request_headers, ONE_LINE_REQUEST)
            return None
        lines = self._edited([], policy.refusal_headers, ONE_LINE_RESPONSE)
        if policy.headers:
            lines.extend(told)
        words = f"a rate limit of listener {place[0]} is reached: {policy.status}"
        return Limited(_reply(policy.status, b"local_rate_limited", lines), words, policy.exhausted)

    def _edited(self, lines: Lines, edits: tuple[Edit, ...], one_line: frozenset[bytes]) -> Lines:
        if not edits:
            return lines
        match = self._match
        values = Values(
            self._call.head,
            cluster=self._cluster,
            route=match.route.name,
            virtual_host=match.virtual_host.name,
        )
        values.response = lines
        return _plan(edits, one_line).apply(lines, values)


def descriptors(
    rules: Sequence[DescriptorRule],
    stage: int,
    head: Head,
    cluster: str,
    own: str,
    metadata: tuple[tuple[tuple[str, ...], str], ...] = (),
) -> tuple[Descriptor, ...]:
    """What the rules of that stage make of a call to ``cluster``. ``own``: the cluster that this process is of; ``metadata``: the route's."""
    found = []
    for rule in rules:
        if rule.stage != stage:
            continue
        entries = []
        for action in rule.actions:
            value = _value(action, head, cluster, own, metadata)
            if value is not None:
                entries.append((action.key, value))
            elif not action.skip:
                break
        else:
            hits = _hits(rule.hits_format, head, cluster) if rule.hits_format else rule.hits
            if entries and not (rule.hits_format and hits is None):
                found.append(Descriptor(tuple(entries), hits))
    return tuple(found)


def _hits(text: str, head: Head, cluster: str) -> int | None:
    """For how many a call counts by its format; None: that gives no number, or one above Envoy's bound."""
    values = Values(head, cluster=cluster, route="", virtual_host="")
    said = _format(text).render(values).decode("latin-1")
    if not said or not _DECIMAL.issuperset(said) or len(said) > _MOST_DIGITS:
        return None
    try:
        found = float(said)
    except ValueError:
        return None
    return int(found) if 0 <= found <= _MOST_HITS else None


@lru_cache(maxsize=256)
def _format(text: str) -> Format:
    return compile_format(text)


def _value(
    action: Action, head: Head, cluster: str, own: str, metadata: tuple[tuple[tuple[str, ...], str], ...]
) -> str | None:
    kind = action.kind
    if kind is ActionKind.ROUTE:
        return next((value for path, value in metadata if path == action.path), action.value) or None
    if kind is ActionKind.GENERIC_KEY:
        return action.value
    if kind is ActionKind.REQUEST_HEADER:
        return header_value(head, action.source)
    if kind is ActionKind.QUERY_PARAMETER:
        return next(iter(query_parameters(head.path, action.source)), None)
    if kind is ActionKind.DESTINATION_CLUSTER:
        return cluster
    if kind is ActionKind.SOURCE_CLUSTER:
        return own
    if kind is ActionKind.REMOTE_ADDRESS:
        return action.value or _LOOPBACK
    if kind is ActionKind.ABSENT:
        return action.value or None
    holds = all(condition.test(head) for condition in _conditions(action))
    return action.value if holds is action.expect else None


@lru_cache(maxsize=1024)
def _conditions(action: Action) -> tuple[Condition, ...]:
    match = RouteMatch(PathMatch(PathKind.PREFIX, ""), headers=action.headers, query=action.query)
    return compile_conditions(match)


@lru_cache(maxsize=256)
def _plan(edits: tuple[Edit, ...], one_line: frozenset[bytes]) -> EditPlan:
    return EditPlan(edits, (), one_line)


def _reply(status: int, body: bytes, lines: Lines) -> Response:
    text = TEXT if body else ()
    named = {name.lower() for name, _ in lines}
    more = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in lines)
    return Response(status, (*(() if b"content-type" in named else text), *more), body)
