"""Names become endpoints: what fills in the clusters whose endpoints DNS tells (STRICT_DNS, LOGICAL_DNS, SRV).

It stands between the sources and the store. A part comes in with clusters that name DNS names, and goes on with their
assignments filled. One look-up serves every cluster that asks the same.

Theory of a look-up:

    new ──ask──► asking ──answer──► held ──TTL──► asking
                    └────failure──► retrying (1 s, × 1.6, to 30 s) ──► asking

A failure takes nothing away: the last answer stays until there is a better one ("stale"), and where one address family
answers and the other cannot be asked, each has its last answer. That a name has no records is an answer; what the
resolver said of it is told in the cluster's ``unresolved``, and the source has "failed" as long as a name has nothing.
``None`` in an assignment means that a name of the cluster never had an outcome; then calls may wait.

A part that replaces an earlier one is kept back for as long as a name in it never had an outcome, at most ``HOLD``
seconds: until then its hosts are served as before (CA-02). A first part goes on at once.

Questions are asked in short-lived threads, at most ``MOST_THREADS`` of them; everything else runs on the worker.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from meshlib.core.strategies import RetryState
from meshlib.model.cluster import Discovery
from meshlib.runtime import threads
from meshlib.sources import dns_fill
from meshlib.sources.base import Source, State
from meshlib.sources.dns_query import Answer, Question, Resolver, Unanswered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import tenacity

    from meshlib.config import DnsConfig
    from meshlib.model.cluster import Cluster
    from meshlib.model.endpoint import Assignment
    from meshlib.model.snapshot import Part
    from meshlib.model.status import SourceStatus
    from meshlib.runtime.worker import Timer
    from meshlib.sources.merge import Merge

__all__ = ["HOLD", "DnsSource"]

#: Seconds for which a part waits for the first answers to its names.
HOLD = 5.0
#: Threads that ask at the same time.
MOST_THREADS = 8

#: A refresh comes up to this share of the TTL early, so that many processes do not ask together.
_JITTER = 0.1

#: Problems that are told; what is more is counted.
_TOLD = 5

_RESOLVED = (Discovery.STRICT_DNS, Discovery.LOGICAL_DNS, Discovery.SRV)


@cache
def _backoff() -> tenacity.wait_exponential:
    """Seconds after a failure: 1, then 1.6 times as long each time, at most 30. A library is loaded when a name fails."""
    import tenacity

    return tenacity.wait_exponential(multiplier=1.0, exp_base=1.6, max=30.0)


class _Lookup:
    """A question in use. ``refresh``: seconds that are used in place of a TTL; None: the TTL is respected. ``failure``: the first pause
    after a failure and the longest, where a cluster says; ``jitter``: at most so many seconds are added to any other.
    """

    __slots__ = (
        "answer",
        "asking",
        "error",
        "failure",
        "failures",
        "floor",
        "jitter",
        "question",
        "refresh",
        "timer",
    )

    def __init__(self, question: Question) -> None:
        self.question = question
        self.answer: Answer | None = None
        self.error = ""
        self.failures = 0
        self.asking = False
        self.refresh: float | None = None
        self.floor = 5.0
        self.failure: tuple[float, float] | None = None
        self.jitter = 0.0
        self.timer: Timer | None = None

    @property
    def settled(self) -> bool:
        """Whether it ever had an outcome."""
        return self.answer is not None or bool(self.error)

    @property
    def empty(self) -> bool:
        """Whether it gives nothing, or nothing yet."""
        return self.answer is None or not self.answer.found

    @property
    def problem(self) -> str:
        """What the resolver said last, where that was no whole answer with something in it."""
        return self.error or (self.answer.nothing if self.answer is not None else "")


class DnsSource(Source):
    """Resolves the names of all parts. ``ask`` answers a question in a helper thread; default: a Resolver's."""

    def __init__(
        self,
        sink: Merge,
        config: DnsConfig,
        ask: Callable[[Question], Answer] | None = None,
        spawn: Callable[[Callable[[], None]], object] | None = None,
    ) -> None:
        super().__init__("dns", "dns", sink)
        resolver = Resolver(config)
        self._merge = sink
        self._server = resolver.server
        self._ask = ask or resolver.ask
        self._spawn = spawn or _thread
        self._least, self._longest = config.min_ttl, config.max_ttl
        self._running = False
        self._raw: dict[str, Part] = {}
        self._passed: set[str] = set()
        self._held: dict[str, Timer] = {}
        self._lookups: dict[Question, _Lookup] = {}
        self._filled: dict[tuple[str, str], tuple[Cluster, Assignment | None, Cluster]] = {}
        self._queue: deque[_Lookup] = deque()
        self._busy = 0

    # --- parts --------------------------------------------------------------------------------------------------

    def resolve(self, part: Part) -> Part | None:
        """``part`` with its names resolved as far as they are, or None: it goes on later. On the worker."""
        self._raw[part.source] = part
        self._register()
        if not any(cluster.discovery in _RESOLVED for cluster in part.clusters.values()):
            self._release(part.source)
            return part
        first = part.source not in self._passed
        if self._settled(part) or first or not self._running:
            self._release(part.source)
            return self._fill(part)
        if part.source not in self._held:
            self._held[part.source] = self.sink.worker.later(HOLD, lambda: self._pass_on(part.source))
        return None

    def _release(self, source: str) -> None:
        self._passed.add(source)
        timer = self._held.pop(source, None)
        if timer is not None:
            timer.cancel()

    def _pass_on(self, source: str) -> None:
        """The names had their time."""
        self._held.pop(source, None)
        part = self._raw.get(source)
        if part is not None:
            self._merge.put(self._fill(part))

    def drop(self, source: str) -> None:
        """A source says nothing any more."""
        self._raw.pop(source, None)
        self._release(source)
        self._passed.discard(source)
        self._register()

    def _settled(self, part: Part) -> bool:
        return all(self._lookups[question].settled for _, question in _questions(part))

    def _fill(self, part: Part) -> Part:
        clusters = dict(part.clusters)
        for name, cluster in part.clusters.items():
            if cluster.discovery in _RESOLVED:
                clusters[name] = self._filled_cluster(part.source, cluster)
        return replace(part, clusters=clusters)

    def _filled_cluster(self, source: str, cluster: Cluster) -> Cluster:
        """The same object as before where nothing changed."""
        assignment = self._assignment(source, cluster)
        known = self._filled.get((source, cluster.name))
        unresolved = self._unresolved(cluster)
        if (
            known is not None
            and known[0] is cluster
            and known[1] == assignment
            and known[2].unresolved == unresolved
        ):
            return known[2]
        made = replace(cluster, assignment=assignment, unresolved=unresolved)
        self._filled[source, cluster.name] = (cluster, assignment, made)
        return made

    def _assignment(self, source: str, cluster: Cluster) -> Assignment | None:
        lookups = [self._lookups[_question(cluster, target.name)] for target in cluster.dns]
        if not all(lookup.settled for lookup in lookups):
            known = self._filled.get((source, cluster.name))
            if known is not None and known[0].dns == cluster.dns:
                return known[1]
            before = self._merge.inherited_cluster(source, cluster.name)
            return before.assignment if before is not None and before.dns == cluster.dns else None
        answers = [lookup.answer.found if lookup.answer is not None else () for lookup in lookups]
        known = self._filled.get((source, cluster.name))
        return dns_fill.fill(cluster, answers, known[1] if known is not None else None)

    def _unresolved(self, cluster: Cluster) -> str:
        """What the resolver said of the names of ``cluster`` that have nothing."""
        lookups = (self._lookups[_question(cluster, target.name)] for target in cluster.dns)
        return _joined(lookup.problem for lookup in lookups if lookup.empty and lookup.problem)

    # --- look-ups -----------------------------------------------------------------------------------------------

    def _register(self) -> None:
        """The look-ups are those that the parts need."""
        wanted: dict[Question, list[Cluster]] = {}
        for part in self._raw.values():
            for cluster, question in _questions(part):
                wanted.setdefault(question, []).append(cluster)
        for question in [question for question in self._lookups if question not in wanted]:
            self._cancel(self._lookups.pop(question))
        if self._filled:
            live = {(part.source, name) for part in self._raw.values() for name in part.clusters}
            self._filled = {key: entry for key, entry in self._filled.items() if key in live}
        for question, clusters in wanted.items():
            lookup = self._lookups.setdefault(question, _Lookup(question))
            fixed = [cluster.dns_refresh for cluster in clusters if not cluster.respect_dns_ttl]
            lookup.refresh = min(fixed, default=None)
            lookup.floor = min(cluster.dns_refresh for cluster in clusters)
            lookup.failure = min(
                (each.dns_failure_refresh for each in clusters if each.dns_failure_refresh is not None),
                default=None,
            )
            lookup.jitter = max(cluster.dns_jitter for cluster in clusters)
            if self._running and not lookup.asking and lookup.timer is None:
                self._enqueue(lookup)
        self._tell()

    def _enqueue(self, lookup: _Lookup) -> None:
        lookup.timer = None
        lookup.asking = True
        self._queue.append(lookup)
        self._next()

    def _next(self) -> None:
        if self._queue:
            Resolver.prepare()
        while self._queue and self._busy < MOST_THREADS:
            lookup = self._queue.popleft()
            self._busy += 1
            self._spawn(lambda lookup=lookup: self._in_thread(lookup))  # type: ignore[misc]

    def _in_thread(self, lookup: _Lookup) -> None:
        try:
            answer: Answer | None = self._ask(lookup.question)
            error = ""
        except Unanswered as problem:
            answer, error = None, str(problem)
        except Exception as problem:  # noqa: BLE001 - whatever it is, the look-up must go on
            answer, error = None, f"{lookup.question.name}: {type(problem).__name__}: {problem}"
        self.sink.worker.post(lambda: self._answered(lookup, answer, error))

    def _answered(self, lookup: _Lookup, answer: Answer | None, error: str) -> None:
        self._busy -= 1
        lookup.asking = False
        if self._lookups.get(lookup.question) is lookup:
            before, said = lookup.answer, lookup.problem
            if answer is not None:
                error = answer.lacks
                lookup.answer = answer if before is None else answer.over(before)
            lookup.error = error
            lookup.failures = lookup.failures + 1 if error else 0
            if self._running:
                lookup.timer = self.sink.worker.later(self._pause(lookup), lambda: self._enqueue(lookup))
            if lookup.answer != before or (lookup.empty and lookup.problem != said):
                self._changed(lookup.question)
            self._tell()
        self._next()

    def _pause(self, lookup: _Lookup) -> float:
        """Seconds until it is asked again."""
        random = self._merge.runtime.random
        jitter = 1.0 - _JITTER * random()
        if lookup.failures and lookup.failure is not None:
            first, longest = lookup.failure
            # 2**30 times the first is beyond any longest one, and 2**10000 is no float.
            pause = min(first * 2.0 ** min(lookup.failures - 1, 30), longest)
            return max(self._least, pause) * jitter
        if lookup.failures:
            state = RetryState(started=0.0)
            state.attempt_number = lookup.failures
            return _backoff()(state) * jitter  # type: ignore[arg-type]  # a state that any strategy can read
        more = lookup.jitter * random() if lookup.jitter else 0.0
        if lookup.refresh is not None:
            return max(self._least, lookup.refresh) * jitter + more
        ttl = lookup.answer.ttl if lookup.answer is not None else None
        seconds = lookup.floor if ttl is None else ttl
        return min(max(seconds, self._least), self._longest) * jitter + more

    def _changed(self, question: Question) -> None:
        for part in list(self._raw.values()):
            if all(question != other for _, other in _questions(part)):
                continue
            if part.source not in self._held:
                self._merge.put(self._fill(part))
            elif self._settled(part):
                self._release(part.source)
                self._merge.put(self._fill(part))

    @staticmethod
    def _cancel(lookup: _Lookup) -> None:
        if lookup.timer is not None:
            lookup.timer.cancel()
            lookup.timer = None

    # --- life ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._running = True
        for lookup in self._lookups.values():
            if not lookup.asking and lookup.timer is None:
                self._enqueue(lookup)
        self._tell()

    def stop(self) -> None:
        self._running = False
        for lookup in self._lookups.values():
            self._cancel(lookup)
        for lookup in self._queue:
            lookup.asking = False
        self._queue.clear()

    @property
    def shown(self) -> bool:
        return bool(self._lookups)

    def status(self) -> SourceStatus:
        lookups = list(self._lookups.values())
        return replace(
            super().status(),
            server=self._server,
            resources={"name": len(lookups)},
            waiting=tuple(sorted({lookup.question.name for lookup in lookups if lookup.empty})),
        )

    def _tell(self) -> None:
        lookups = self._lookups.values()
        troubled = [lookup for lookup in lookups if lookup.problem]
        error = _joined(lookup.problem for lookup in troubled)
        if not lookups:
            self._move(State.IDLE, "")
        elif any(lookup.empty for lookup in troubled):
            self._move(State.FAILED, error)
        elif troubled:
            self._move(State.STALE, error)
        elif all(lookup.settled for lookup in lookups):
            self._move(State.READY, "")
        else:
            self._move(State.CONNECTING, "")


def _question(cluster: Cluster, name: str) -> Question:
    kind = "srv" if cluster.discovery is Discovery.SRV else "addresses"
    return Question(kind, name.lower(), cluster.dns_family, cluster.name_servers)


def _questions(part: Part) -> Iterator[tuple[Cluster, Question]]:
    for cluster in part.clusters.values():
        if cluster.discovery in _RESOLVED:
            for target in cluster.dns:
                yield cluster, _question(cluster, target.name)


def _joined(problems: Iterable[str]) -> str:
    """Problems in one line: the first few, and how many more there are."""
    each = list(dict.fromkeys(problems))
    more = f"; and {len(each) - _TOLD} more" if len(each) > _TOLD else ""
    return "; ".join(each[:_TOLD]) + more


def _thread(work: Callable[[], None]) -> None:
    threads.start(threading.Thread(target=work, name="meshlib-dns", daemon=True))
