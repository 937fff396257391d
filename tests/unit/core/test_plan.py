"""The call plan, driven by hand: events in, effects out, no socket and no clock but the test's."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace

import pytest

from meshlib.core.classify import CANCELLED, verdict
from meshlib.core.effects import Call, Env, Finish, Pass, Reply, Send, Sleep, Take, Wait
from meshlib.core.endpoint import LiveEndpoint
from meshlib.core.match import compile_routes
from meshlib.core.plan import Plan
from meshlib.core.plan_limits import SECONDS
from meshlib.core.replies import PLAIN, Replies
from meshlib.core.resolution import Resolution
from meshlib.core.stages import DEFAULT_ROUTE_TIMEOUT
from meshlib.core.upstream import Refusal, RefusalKind
from meshlib.errors import (
    CircuitOpen,
    ConnectFailed,
    DeadlineExceeded,
    NoHealthyEndpoint,
    Overloaded,
    TransportFailed,
)
from meshlib.model.address import Address
from meshlib.model.body import BodyFormat
from meshlib.model.call import Head, Outcome, OutcomeKind, TimeLimit
from meshlib.model.cluster import Cluster, Discovery
from meshlib.model.endpoint import Assignment, Endpoint, Locality
from meshlib.model.events import CallEnded, RetryScheduled
from meshlib.model.headers import Headers
from meshlib.model.listener import HttpManager, Listener
from meshlib.model.match import PathKind, PathMatch, RouteMatch
from meshlib.model.policy import Fault, RetryPolicy, RouteLimits
from meshlib.model.replies import LocalReplies
from meshlib.model.route import (
    DirectResponse,
    Forward,
    HostRewrite,
    HostRewriteKind,
    NonForwarding,
    Redirect,
    Route,
    RouteConfiguration,
    VirtualHost,
)
from meshlib.runtime.live_route import LiveRoute

OK = OutcomeKind.OK
ENDPOINTS = [
    LiveEndpoint(
        Endpoint(Address("10.0.0.1", 80 + n), hostname=f"h{n}.test"), priority=0, locality=Locality()
    )
    for n in range(3)
]


class FakePick:
    def __init__(self, upstream: FakeUpstream, endpoint: LiveEndpoint) -> None:
        self.upstream = upstream
        self.endpoint = endpoint
        self.reports: list[Outcome] = []
        self.released = 0

    def report(self, outcome: Outcome, now: float) -> None:
        self.reports.append(outcome)

    def release(self, now: float, failure: Outcome | None = None) -> None:
        self.released += 1
        self.failure = failure


class FakePermit:
    released = 0

    def release(self) -> None:
        self.released += 1


class FakeUpstream:
    def __init__(self, cluster: Cluster | None = None, *, retries: int = 99) -> None:
        self.cluster = cluster or Cluster("c", assignment=Assignment("c"))
        self.consistent = self.cluster.balancing.consistent
        self.labelled = False
        self.limiter = None
        self.picks: list[FakePick] = []
        self.contexts: list[tuple[LiveEndpoint, ...]] = []
        self.permits: list[FakePermit] = []
        self.refusal: Refusal | None = None
        self.retries = retries

    def pick(self, context, now):  # type: ignore[no-untyped-def]
        self.contexts.append(context.tried)
        if self.refusal is not None:
            return self.refusal
        pick = FakePick(self, ENDPOINTS[len(self.picks) % len(ENDPOINTS)])
        self.picks.append(pick)
        return pick

    def begin_retry(self, budget):  # type: ignore[no-untyped-def]
        if len(self.permits) >= self.retries:
            return None
        self.permits.append(FakePermit())
        return self.permits[-1]

    def peek(self, context):  # type: ignore[no-untyped-def]
        return ENDPOINTS[0]


def outcome(
    kind: OutcomeKind = OK, status: int | None = 200, *, sent: bool = True, **headers: str
) -> Outcome:
    found = Headers.of(*headers.items()) if kind is OK else None
    return Outcome(kind, status if kind is OK else None, found, sent)


def make(
    action=None,
    upstream: FakeUpstream | None = None,
    *,
    from_file: bool = False,
    vhost: dict[str, object] | None = None,
    events: list[object] | None = None,
    answers: list[FakeUpstream | str] | None = None,
    waited: float = 0.0,
    replies: Replies = PLAIN,
    manager: HttpManager | None = None,
    random: Callable[[], float] = lambda: 0.5,
    **call: object,
) -> tuple[Plan, FakeUpstream]:
    upstream = upstream or FakeUpstream()
    route = Route(RouteMatch(PathMatch(PathKind.PREFIX, "/")), action or Forward(cluster="c"), name="r")
    config = RouteConfiguration("rc", (VirtualHost("v", ("*",), (route,), **(vhost or {})),))
    resolution = Resolution(
        "mesh",
        "a test",
        part="p",
        listener=Listener("l", from_file=from_file),
        routes=compile_routes(config),
        replies=replies,
        manager=manager,
    ).after(waited)

    def upstream_of(part: str, name: str) -> FakeUpstream | str:
        if answers is not None:
            return answers.pop(0)
        return upstream if (part, name) == ("p", "c") else "is not known"

    env = Env(
        upstream_of,
        random,
        lambda: 1_000_000.0,
        events.append if events is not None else None,
    )
    head = Head("GET", "http", "reviews", "/api", Headers.of(("accept", "*/*")))
    return Plan(Call(resolution, head, **call), env), upstream


RETRY = RetryPolicy(frozenset({"5xx", "connect-failure"}), retries=2)


@pytest.mark.parametrize("ends", ["close", "cancel", "leave"])
def test_a_call_enters_its_routes_limits_once_and_leaves_them_however_it_ends(ends: str) -> None:
    limits = RouteLimits(max_requests=1)
    live = LiveRoute("r", limits, [].append, lambda: 0.0, 0.0)
    plan, upstream = make(Forward(cluster="c", limits=limits, retry=RETRY))
    other, _ = make(Forward(cluster="c", limits=limits), upstream)
    for each in (plan, other):
        each._env.limits = lambda *_: live
    assert isinstance(plan.start(0.0), Send)
    assert isinstance(plan.outcome(outcome(status=500), 0.1), Sleep)
    assert live.active == 1, "also while it waits for its next attempt"
    refused = other.start(0.1)
    assert isinstance(refused, Finish)
    assert (refused.failure, refused.response.status) == (Overloaded, 503)
    other.close(0.1)
    assert live.active == 1
    assert isinstance(plan.woke(0.2), Send)
    if ends == "cancel":
        plan.cancel(outcome(OutcomeKind.CANCELLED), 0.3)
    elif ends == "leave":
        plan.leave(0.3)
    plan.close(0.3)
    assert live.active == 0
    assert len(upstream.picks) == 2


def test_one_attempt_is_sent_and_its_answer_is_the_end() -> None:
    plan, upstream = make()
    effect = plan.start(100.0)
    assert isinstance(effect, Send)
    assert (effect.number, effect.endpoint.name, effect.head.authority) == (1, "10.0.0.1:80", "reviews")
    end = plan.outcome(outcome(), 100.2)
    assert isinstance(end, Finish)
    assert end.failure is None
    assert upstream.picks[0].released == 0, "the body is not read yet"
    plan.close(101.0)
    plan.close(102.0)
    assert upstream.picks[0].released == 1
    info = plan.info(101.0)
    assert (info.via, info.listener, info.route, info.cluster, info.endpoint) == (
        "mesh",
        "l",
        "r",
        "c",
        "10.0.0.1:80",
    )
    assert [attempt.outcome for attempt in info.attempts] == ["ok"]
    assert info.seconds == pytest.approx(1.0)


def test_a_route_of_a_control_plane_has_envoys_timeout_and_tells_it_upstream() -> None:
    plan, _ = make()  # TO-02
    effect = plan.start(10.0)
    assert isinstance(effect, Send)
    assert effect.deadline == 10.0 + DEFAULT_ROUTE_TIMEOUT
    assert effect.head.headers.get("x-envoy-expected-rq-timeout-ms") == "15000"


@pytest.mark.parametrize(
    ("action", "manager", "idle", "deadline"),
    [
        ({"idle_timeout": 3.0}, {"stream_idle_timeout": 9.0}, 3.0, None),
        ({}, {"stream_idle_timeout": 9.0}, 9.0, None),
        ({"idle_timeout": 0.0}, {"stream_idle_timeout": 9.0}, None, None),
        ({"max_stream_duration": 3.0}, {"max_stream_duration": 9.0}, None, 13.0),
        ({}, {"max_stream_duration": 9.0}, None, 19.0),
        ({"max_stream_duration": 0.0}, {"max_stream_duration": 9.0}, None, None),
        ({"max_stream_duration": 30.0, "timeout": 4.0}, {}, None, 14.0),
    ],
)
def test_ld_08_to_02_the_limits_of_a_stream(action, manager, idle, deadline) -> None:
    plan, _ = make(Forward("c", **{"timeout": 0.0, **action}), manager=HttpManager(**manager))
    effect = plan.start(10.0)
    assert isinstance(effect, Send)
    assert (effect.limits.idle if effect.limits is not None else None) == idle
    assert effect.deadline == deadline


@pytest.mark.parametrize(
    ("limit", "status"),
    [(TimeLimit.IDLE, 504), (TimeLimit.REQUEST, 408)],
)
def test_what_a_limit_of_the_stream_ends_is_not_made_again(limit: TimeLimit, status: int) -> None:
    plan, _ = make(Forward("c", timeout=0.0, retry=RETRY), manager=HttpManager(request_timeout=2.0))
    effect = plan.start(10.0)
    assert isinstance(effect, Send)
    assert effect.limits.written_by == 12.0
    failed = outcome(OutcomeKind.TIMEOUT)
    failed.limit = limit
    end = plan.outcome(failed, 12.0)
    assert isinstance(end, Finish)
    assert (end.failure, end.response.status) == (DeadlineExceeded, status)
    assert f"{limit} is over" in end.message


@pytest.mark.parametrize(("left", "said"), [(0.2509, "250"), (0.0019, "1"), (0.0004, "1")])
def test_what_is_left_is_told_rounded_down_so_that_no_hop_has_more_than_its_caller(
    left: float, said: str
) -> None:
    plan, _ = make(Forward(cluster="c", timeout=left))
    effect = plan.start(0.0)
    assert isinstance(effect, Send)
    assert effect.head.headers.get("x-envoy-expected-rq-timeout-ms") == said


@pytest.mark.parametrize("action", [Forward(cluster="c", timeout=0.0), Forward(cluster="c")])
def test_no_timeout_where_it_is_zero_or_a_file_sets_none(action: Forward) -> None:
    plan, _ = make(action, from_file=action.timeout is None)
    effect = plan.start(10.0)
    assert isinstance(effect, Send)
    assert effect.deadline is None
    assert "x-envoy-expected-rq-timeout-ms" not in effect.head.headers


@pytest.mark.parametrize(
    ("route", "call", "deadline", "expected"),
    [
        (3.0, None, None, 3.0),
        (3.0, 1.0, None, 1.0),
        (3.0, 5.0, None, 3.0),
        (3.0, 0, None, None),
        (3.0, 1.0, 0.5, 0.5),
    ],
)
def test_the_nearest_time_limit_holds(
    route: float, call: float | None, deadline: float | None, expected: float | None
) -> None:
    absolute = None if deadline is None else 10.0 + deadline
    plan, _ = make(Forward(cluster="c", timeout=route), timeout=call, deadline=absolute)
    effect = plan.start(10.0)
    assert isinstance(effect, Send)
    assert effect.deadline == (None if expected is None else 10.0 + expected)


def test_a_deadline_that_is_over_sends_nothing() -> None:
    plan, upstream = make(deadline=9.0, limit="the deadline")
    end = plan.start(10.0)
    assert isinstance(end, Finish)
    assert end.failure is DeadlineExceeded
    assert not upstream.picks
    assert end.response is not None
    assert end.response.status == 504


def test_a_retry_sleeps_lets_the_endpoint_go_and_avoids_it() -> None:
    events: list[object] = []
    plan, upstream = make(Forward(cluster="c", retry=RETRY), events=events)
    plan.start(0.0)
    effect = plan.outcome(outcome(status=503), 0.1)
    assert isinstance(effect, Sleep)
    assert 0 <= effect.seconds <= 0.025
    assert upstream.picks[0].released == 1
    assert [report.status for report in upstream.picks[0].reports] == [503]
    effect = plan.woke(0.2)
    assert isinstance(effect, Send)
    assert effect.number == 2
    assert upstream.contexts[1] == (ENDPOINTS[0],)
    end = plan.outcome(outcome(), 0.3)
    assert isinstance(end, Finish)
    assert end.failure is None
    plan.close(0.4)
    assert [pick.released for pick in upstream.picks] == [1, 1]
    assert [permit.released for permit in upstream.permits] == [1]
    assert [(a.number, a.outcome, a.status) for a in plan.info(0.4).attempts] == [
        (1, "status", 503),
        (2, "ok", 200),
    ]
    assert [type(event) for event in events] == [RetryScheduled, CallEnded]


def test_the_head_of_a_retry_is_made_from_the_first_one() -> None:
    plan, _ = make(Forward(cluster="c", retry=RETRY), vhost={"include_attempt_count": True})
    first = plan.start(0.0)
    assert isinstance(first, Send)
    first.head.headers.set("traceparent", "of the first attempt")
    plan.outcome(outcome(status=503), 0.1)
    second = plan.woke(1.0)
    assert isinstance(second, Send)
    assert "traceparent" not in second.head.headers
    assert (
        first.head.headers.get("x-envoy-attempt-count"),
        second.head.headers.get("x-envoy-attempt-count"),
    ) == ("1", "2")
    assert second.head.headers.get("x-envoy-expected-rq-timeout-ms") == "14000"


def test_after_the_last_retry_the_last_response_is_the_answer() -> None:
    plan, _ = make(Forward(cluster="c", retry=replace(RETRY, retries=1)))
    plan.start(0.0)
    plan.outcome(outcome(status=500), 0.1)
    plan.woke(0.2)
    end = plan.outcome(outcome(status=502), 0.3)
    assert isinstance(end, Finish)
    assert end.failure is None
    assert end.outcome is not None
    assert end.outcome.status == 502


@pytest.mark.parametrize(
    ("kind", "failure", "status"),
    [
        (OutcomeKind.CONNECT, ConnectFailed, 503),
        (OutcomeKind.RESET, TransportFailed, 503),
        (OutcomeKind.REFUSED, TransportFailed, 503),
        (OutcomeKind.TIMEOUT, DeadlineExceeded, 504),
    ],
)
def test_after_the_last_retry_the_last_failure_is_the_answer(
    kind: OutcomeKind, failure: type[Exception], status: int
) -> None:
    plan, _ = make()
    plan.start(0.0)
    end = plan.outcome(Outcome(kind, detail="a reason"), 0.1)
    assert isinstance(end, Finish)
    assert end.failure is failure
    assert "10.0.0.1:80" in end.message
    assert ("a reason" if kind is not OutcomeKind.TIMEOUT else "no answer in time") in end.message
    assert end.response is not None
    assert end.response.status == status


def test_the_budget_can_forbid_a_retry() -> None:
    plan, upstream = make(Forward(cluster="c", retry=RETRY), FakeUpstream(retries=0))
    plan.start(0.0)
    end = plan.outcome(outcome(status=503), 0.1)
    assert isinstance(end, Finish)
    assert end.failure is None
    assert any("as many retries are in flight as" in line for line in plan.info(0.1).trace())
    assert upstream.picks[0].released == 0


def test_no_retry_starts_when_the_deadline_would_pass_first() -> None:
    plan, upstream = make(
        Forward(cluster="c", timeout=1.0, retry=replace(RETRY, base_interval=9.0, max_interval=9.0))
    )
    plan.start(0.0)
    end = plan.outcome(outcome(status=503), 0.9)
    assert isinstance(end, Finish)
    assert end.outcome is not None
    assert not upstream.permits


def test_the_whole_calls_time_is_not_retried_but_an_attempts_is() -> None:
    policy = replace(RETRY, per_try_timeout=0.2)  # RT-06
    plan, _ = make(Forward(cluster="c", timeout=1.0, retry=policy))
    first = plan.start(0.0)
    assert isinstance(first, Send)
    assert first.deadline == pytest.approx(0.2)
    assert isinstance(plan.outcome(Outcome(OutcomeKind.TIMEOUT, sent=True), 0.2), Sleep)
    plan.woke(0.9)
    end = plan.outcome(Outcome(OutcomeKind.TIMEOUT, sent=True), 1.0)
    assert isinstance(end, Finish)
    assert end.failure is DeadlineExceeded
    assert "route's timeout of 1 s" in end.message


class TestSpent:
    """``Plan.spent``: another attempt was due, and none, or no time for it, was left."""

    @staticmethod
    def after(*outcomes: Outcome, retry: RetryPolicy | None = RETRY, **call: object) -> bool:
        plan, _ = make(Forward(cluster="c", retry=retry, timeout=5.0), **call)
        plan.start(0.0)
        for number, each in enumerate(outcomes):
            if number:
                plan.woke(0.1 * number)
            effect = plan.outcome(each, 0.1 * number + 0.05)
        assert isinstance(effect, Finish)
        return plan.spent

    def test_all_attempts_failed_alike(self) -> None:
        assert self.after(outcome(status=503), outcome(status=500), outcome(status=503))
        assert self.after(*[Outcome(OutcomeKind.CONNECT)] * 3)

    def test_one_attempt_is_all_that_is_ordered(self) -> None:
        assert self.after(outcome(status=503), retry=replace(RETRY, retries=0))

    def test_a_stop_strategy_ends_the_attempts(self) -> None:
        assert self.after(outcome(status=503), retry=replace(RETRY, stop=lambda _: True))

    def test_the_last_answer_is_good_or_not_tried_again(self) -> None:
        assert not self.after(outcome(status=503), outcome(status=200))
        assert not self.after(outcome(status=503), outcome(status=503), outcome(status=429))

    def test_nobody_orders_retries(self) -> None:
        assert not self.after(outcome(status=503), retry=None)

    def test_the_body_cannot_be_sent_again(self) -> None:
        """Whoever holds what it was made of can: one attempt was made, and no more are wanted of us."""
        assert not self.after(outcome(status=503), replayable=False)

    def test_a_limit_of_our_own_is_none_of_the_attempts(self) -> None:
        assert not self.after(Outcome(OutcomeKind.OVERFLOW, error=Overloaded("max_pending")))

    def test_the_budget_forbids_it(self) -> None:
        plan, _ = make(Forward(cluster="c", retry=RETRY), FakeUpstream(retries=0))
        plan.start(0.0)
        plan.outcome(outcome(status=503), 0.1)
        assert plan.spent

    def test_nobody_is_left_to_ask(self) -> None:
        plan, upstream = make(Forward(cluster="c", retry=RETRY))
        plan.start(0.0)
        plan.outcome(outcome(status=503), 0.1)
        upstream.refusal = Refusal(RefusalKind.BREAKER, "open")
        assert isinstance(plan.woke(0.2), Finish)
        assert plan.spent

    def test_a_first_attempt_that_is_refused_is_none(self) -> None:
        plan, upstream = make(Forward(cluster="c", retry=RETRY))
        upstream.refusal = Refusal(RefusalKind.BREAKER, "open")
        assert isinstance(plan.start(0.0), Finish)
        assert not plan.spent

    @pytest.mark.parametrize(("retry", "spent"), [(RETRY, True), (None, False)])
    def test_the_time_of_the_call_is_over(self, retry: RetryPolicy | None, spent: bool) -> None:
        plan, _ = make(Forward(cluster="c", timeout=1.0, retry=retry))
        plan.start(0.0)
        plan.outcome(Outcome(OutcomeKind.TIMEOUT, sent=True), 1.0)
        assert plan.spent is spent

    @pytest.mark.parametrize(("said", "spent"), [({}, True), ({"retry-after": "60"}, False)])
    def test_no_time_is_left_unless_the_upstream_says_when(self, said: dict[str, str], spent: bool) -> None:
        """Whoever has more time may come back when the upstream says: that is no attempt too many."""
        policy = replace(
            RETRY, base_interval=9.0, max_interval=9.0, reset_headers=(("retry-after", "retry_after"),)
        )
        plan, _ = make(Forward(cluster="c", timeout=1.0, retry=policy))
        plan.start(0.0)
        assert isinstance(plan.outcome(outcome(status=503, **said), 0.9), Finish)
        assert plan.spent is spent


def test_the_routes_policy_replaces_the_virtual_hosts_whole() -> None:
    plan, _ = make(
        Forward(cluster="c", retry=RetryPolicy(frozenset({"reset"}))), vhost={"retry": RETRY}
    )  # RT-01
    plan.start(0.0)
    assert isinstance(plan.outcome(outcome(status=503), 0.1), Finish)
    plan, _ = make(vhost={"retry": RETRY})
    plan.start(0.0)
    assert isinstance(plan.outcome(outcome(status=503), 0.1), Sleep)


def test_a_calls_own_policy_goes_before_the_routes() -> None:
    plan, _ = make(Forward(cluster="c", retry=RETRY), retry=False)
    plan.start(0.0)
    assert isinstance(plan.outcome(outcome(status=503), 0.1), Finish)
    plan, _ = make(retry=RETRY)
    plan.start(0.0)
    assert isinstance(plan.outcome(outcome(status=503), 0.1), Sleep)


@pytest.mark.parametrize(
    ("kind", "failure"),
    [
        (RefusalKind.NO_ENDPOINT, NoHealthyEndpoint),
        (RefusalKind.TLS, NoHealthyEndpoint),
        (RefusalKind.BREAKER, CircuitOpen),
        (RefusalKind.MAX_REQUESTS, Overloaded),
        (RefusalKind.DROPPED, Overloaded),
    ],
)
def test_a_refusal_is_a_failure_that_says_why(kind: RefusalKind, failure: type[Exception]) -> None:
    upstream = FakeUpstream()
    upstream.refusal = Refusal(kind, "cluster c: the reason")
    plan, _ = make(upstream=upstream)
    end = plan.start(0.0)
    assert isinstance(end, Finish)
    assert (end.failure, end.message) == (failure, "cluster c: the reason")
    assert end.response is not None
    assert (end.response.status, ("x-envoy-overloaded", "true") in end.response.headers) == (
        503,
        failure is not NoHealthyEndpoint,
    )


def test_a_cluster_of_which_nothing_is_known_yet_is_waited_for_once() -> None:
    upstream = FakeUpstream(Cluster("c", Discovery.STRICT_DNS))
    upstream.refusal = Refusal(RefusalKind.NO_ENDPOINT, "nothing yet")
    plan, _ = make(upstream=upstream, wait=2.0)
    effect = plan.start(10.0)
    assert isinstance(effect, Wait)
    assert effect.until == 12.0
    assert isinstance(plan.woke(11.0), Wait), "something else changed"
    upstream.refusal = None
    assert isinstance(plan.woke(11.5), Send)
    upstream.refusal = Refusal(RefusalKind.NO_ENDPOINT, "nothing yet")
    plan, _ = make(upstream=upstream, wait=2.0)
    plan.start(10.0)
    end = plan.woke(12.0)
    assert isinstance(end, Finish)
    assert end.failure is NoHealthyEndpoint


def test_a_retry_that_finds_nobody_reports_how_the_last_attempt_failed() -> None:
    plan, upstream = make(Forward(cluster="c", retry=RETRY))
    plan.start(0.0)
    plan.outcome(Outcome(OutcomeKind.CONNECT, detail="refused"), 0.1)
    upstream.refusal = Refusal(RefusalKind.NO_ENDPOINT, "nobody")
    end = plan.woke(0.2)
    assert isinstance(end, Finish)
    assert end.failure is ConnectFailed


def test_a_local_limit_is_not_held_against_the_host_and_not_retried() -> None:
    plan, upstream = make(Forward(cluster="c", retry=RETRY))
    plan.start(0.0)
    end = plan.outcome(Outcome(OutcomeKind.OVERFLOW, error=Overloaded("max_pending")), 0.1)
    assert isinstance(end, Finish)
    assert end.failure is Overloaded
    assert verdict(upstream.picks[0].reports[0]) is CANCELLED


def test_two_attempts_can_be_in_flight_and_the_first_answer_is_the_calls() -> None:
    plan, upstream = make(Forward(cluster="c", retry=RETRY))
    first = plan.start(0.0)
    second = plan.woke(0.05)  # another one beside it
    assert isinstance(first, Send)
    assert isinstance(second, Send)
    assert (first.number, second.number) == (1, 2)
    assert first.endpoint is not second.endpoint
    end = plan.outcome(outcome(status=200), 0.1, second.number)
    assert isinstance(end, Finish)
    assert end.failure is None
    plan.close(0.2)
    assert [pick.released for pick in upstream.picks] == [1, 1]
    assert [attempt.number for attempt in plan.info(0.2).attempts] == [2]


def test_what_is_told_of_a_call_that_failed_holds_no_error() -> None:
    """It would keep all the frames that the error went through as long as the response, or the error above it, is there."""

    class Gone(Exception):
        """Other than one of Python's own it can be watched."""

    plan = make(Forward(cluster="c", retry=RETRY))[0]
    assert isinstance(plan.start(0.0), Send)
    error = Gone()
    gone = weakref.ref(error)
    plan.outcome(Outcome(OutcomeKind.CONNECT, error=error), 0.1)
    info = plan.info(0.1)
    del plan, error
    gc.collect()
    assert gone() is None
    assert [attempt.outcome for attempt in info.attempts] == ["connect"]


def test_attempts_in_flight_are_told_apart_by_number_whichever_is_over_first() -> None:
    plan, upstream = make(Forward(cluster="c", retry=RETRY))
    plan.start(0.0)
    plan.woke(0.01)
    assert isinstance(plan.outcome(outcome(status=503), 0.1, 2), Sleep)
    third = plan.woke(0.2)
    assert isinstance(third, Send)
    assert third.number == 3
    assert isinstance(plan.outcome(outcome(status=200), 0.3, 1), Finish)
    plan.cancel(Outcome(OutcomeKind.CANCELLED), 0.4)
    assert [(one.number, one.outcome) for one in plan.info(0.4).attempts] == [
        (1, "ok"),
        (2, "status"),
        (3, "cancelled"),
    ]
    assert all(pick.released == 1 for pick in upstream.picks)


def test_what_the_configuration_orders_is_a_reply() -> None:
    plan, _ = make(DirectResponse(418, b"teapot"))
    effect = plan.start(0.0)
    assert isinstance(effect, Reply)
    assert (effect.response.status, effect.response.body) == (418, b"teapot")
    plan, _ = make(Redirect(host="elsewhere"))
    effect = plan.start(0.0)
    assert isinstance(effect, Reply)
    assert ("location", "http://elsewhere/api") in effect.response.headers


def test_an_unknown_cluster_fails_with_the_routes_status() -> None:
    plan, _ = make(Forward(cluster="missing", not_found_status=500))
    end = plan.start(0.0)
    assert isinstance(end, Finish)
    assert end.failure is NoHealthyEndpoint
    assert end.response is not None
    assert end.response.status == 500
    assert "missing" in end.message


def test_a_cluster_that_may_come_is_waited_for_and_then_called() -> None:
    upstream = FakeUpstream()
    plan, _ = make(answers=["", "", upstream], wait=2.0)
    assert plan.start(10.0) == Wait(12.0)
    assert plan.woke(11.0) == Wait(12.0), "something else changed"
    effect = plan.woke(11.5)
    assert isinstance(effect, Send)
    assert effect.deadline == 25.0, "the route's timeout counts from the start"


def test_a_cluster_that_is_waited_for_and_does_not_come() -> None:
    plan, _ = make(Forward(cluster="c", not_found_status=404), answers=["", "", "was refused"], wait=2.0)
    assert isinstance(plan.start(10.0), Wait)
    end = plan.woke(12.0)
    assert isinstance(end, Finish)
    assert (end.failure, end.message) == (
        NoHealthyEndpoint,
        "route r names cluster 'c', which has not come yet",
    )
    assert end.response is not None
    assert end.response.status == 404
    end = plan.woke(11.0)
    assert isinstance(end, Finish)
    assert end.message.endswith("which was refused")


def test_what_a_call_waited_for_its_listener_it_does_not_wait_again() -> None:
    plan, _ = make(answers=["", ""], wait=2.0, waited=1.5)
    assert plan.start(10.0) == Wait(10.5)
    assert isinstance(plan.woke(10.5), Finish)


def test_the_deadline_bounds_the_wait_for_a_cluster() -> None:
    plan, _ = make(answers=["", ""], wait=2.0, deadline=11.0)
    assert plan.start(10.0) == Wait(11.0)
    end = plan.woke(11.0)
    assert isinstance(end, Finish)
    assert end.failure is DeadlineExceeded


def test_a_cluster_that_comes_as_a_pass_through_is_passed_through() -> None:
    plan, _ = make(answers=["", FakeUpstream(Cluster("c", Discovery.ORIGINAL_DST))], wait=2.0)
    assert isinstance(plan.start(10.0), Wait)
    assert isinstance(plan.woke(11.0), Pass)


def test_a_pass_through_cluster_is_called_as_it_is() -> None:
    plan, upstream = make(upstream=FakeUpstream(Cluster("c", Discovery.ORIGINAL_DST)))
    effect = plan.start(0.0)
    assert isinstance(effect, Pass)
    assert not upstream.picks


def test_auto_host_rewrite_takes_the_endpoints_name() -> None:
    plan, _ = make(Forward(cluster="c", host_rewrite=HostRewrite(HostRewriteKind.AUTO)))  # RW-03
    effect = plan.start(0.0)
    assert isinstance(effect, Send)
    assert effect.head.authority == "h0.test"


def test_a_cancelled_call_lets_go_of_everything_once() -> None:
    plan, upstream = make(Forward(cluster="c", retry=RETRY))
    plan.start(0.0)
    plan.outcome(outcome(status=503), 0.1)
    plan.cancel(Outcome(OutcomeKind.CANCELLED), 0.2)  # in the sleep
    assert [pick.released for pick in upstream.picks] == [1]
    assert [permit.released for permit in upstream.permits] == [1]
    plan, upstream = make()
    plan.start(0.0)
    plan.cancel(Outcome(OutcomeKind.CANCELLED, sent=True), 0.2)  # in the attempt
    plan.close(0.3)
    assert [pick.released for pick in upstream.picks] == [1]
    assert [attempt.outcome for attempt in plan.info(0.3).attempts] == ["cancelled"]


def test_the_trace_tells_every_step() -> None:
    plan, _ = make(Forward(cluster="c", retry=RETRY))
    plan.start(0.0)
    plan.outcome(Outcome(OutcomeKind.CONNECT), 0.1)
    plan.woke(0.2)
    plan.outcome(outcome(), 0.3)
    text = "\n".join(plan.info(0.3).trace())
    for words in (
        "GET http://reviews/api",
        "a test",
        "listener l of p",
        "route r",
        "cluster c",
        "attempt 1",
        "connect",
        "attempt 2",
    ):
        assert words in text


FLAGS = Replies(
    HttpManager(
        local_replies=LocalReplies((), BodyFormat("%RESPONSE_FLAGS% %UPSTREAM_HOST% %LOCAL_REPLY_BODY%"))
    )
)


@pytest.mark.parametrize(
    ("kind", "flags"),
    [
        (OutcomeKind.CONNECT, b"UF 10.0.0.1:80 "),
        (OutcomeKind.RESET, b"UC 10.0.0.1:80 "),
        (OutcomeKind.TIMEOUT, b"UT 10.0.0.1:80 "),
    ],
)
def test_a_failure_that_is_told_as_a_response_has_envoys_flags(kind: OutcomeKind, flags: bytes) -> None:
    plan, _ = make(replies=FLAGS)
    plan.start(0.0)
    end = plan.outcome(outcome(kind, None), 0.1)
    assert isinstance(end, Finish)
    assert end.response is not None
    assert end.response.body.startswith(flags)


def test_after_retries_it_says_so_and_how_many_there_were() -> None:
    """Measured with Envoy 1.40."""
    policy = RetryPolicy(frozenset({"connect-failure"}), retries=1)
    plan, _ = make(
        Forward(cluster="c", retry=policy), replies=FLAGS, vhost={"attempt_count_in_response": True}
    )
    plan.start(0.0)
    assert isinstance(plan.outcome(outcome(OutcomeKind.CONNECT, None), 0.1), Sleep)
    plan.woke(0.2)
    end = plan.outcome(outcome(OutcomeKind.CONNECT, None), 0.3)
    assert isinstance(end, Finish)
    assert end.response is not None
    assert end.response.body == (
        b"URX,UF 10.0.0.1:81 upstream connect error or disconnect/reset before headers."
        b" retried and the latest reset reason: remote connection failure"
    )
    assert ("x-envoy-attempt-count", "2") in end.response.headers


def test_a_refusal_counts_the_attempt_that_could_not_be_made_and_an_unknown_cluster_none() -> None:
    upstream = FakeUpstream()
    upstream.refusal = Refusal(RefusalKind.NO_ENDPOINT, "nobody")
    told = {"attempt_count_in_response": True}
    plan, _ = make(upstream=upstream, replies=FLAGS, vhost=told)
    end = plan.start(0.0)
    assert isinstance(end, Finish)
    assert end.response is not None
    assert end.response.body == b"UH - no healthy upstream"
    assert ("x-envoy-attempt-count", "1") in end.response.headers
    plan, _ = make(Forward(cluster="missing"), replies=FLAGS, vhost=told)
    end = plan.start(0.0)
    assert isinstance(end, Finish)
    assert end.response is not None
    assert end.response.body == b"NC - "
    assert "x-envoy-attempt-count" not in dict(end.response.headers)


def test_a_route_for_servers_is_one_without_a_cluster() -> None:
    plan, _ = make(NonForwarding(), replies=FLAGS)
    effect = plan.start(0.0)
    assert isinstance(effect, Reply)
    assert (effect.response.status, effect.response.body) == (503, b"NC - ")


def test_the_attempts_of_an_answer_are_told() -> None:
    plan, _ = make(vhost={"attempt_count_in_response": True})
    plan.start(0.0)
    plan.outcome(outcome(), 0.1)
    made = plan.response_headers(Headers.of(("x-up", "1")))
    assert made is not None
    assert list(made) == [("x-up", "1"), ("x-envoy-attempt-count", "1")]


# --- faults and rate limits --------------------------------------------------------------------------------------------


def faulted(fault, *, chance=0.0, upstream=None, **call):
    return make(Forward(cluster="c", fault=fault), upstream, random=lambda: chance, **call)


def test_a_fault_delays_and_then_the_call_goes_on() -> None:
    """FI-01: before any traffic."""
    plan, upstream = faulted(Fault(delay=0.5, delay_per_million=1_000_000))
    effect = plan.start(10.0)
    assert isinstance(effect, Sleep)
    assert effect.seconds == 0.5
    assert not upstream.picks
    assert isinstance(plan.woke(10.5), Send)


def test_a_fault_answers_and_touches_nothing() -> None:
    plan, upstream = faulted(Fault(abort=418, abort_per_million=1_000_000))
    effect = plan.start(0.0)
    assert isinstance(effect, Reply)
    assert (effect.response.status, effect.response.body) == (418, b"fault filter abort")
    assert not upstream.contexts


def test_a_delay_comes_before_the_answer() -> None:
    plan, upstream = faulted(Fault(0.5, 1_000_000, 503, 1_000_000))
    assert isinstance(plan.start(0.0), Sleep)
    effect = plan.woke(0.5)
    assert isinstance(effect, Reply)
    assert effect.response.status == 503
    assert not upstream.picks


def test_each_is_drawn_by_itself_and_a_share_is_a_share() -> None:
    draws = iter([0.05, 0.2])
    plan, _ = make(
        Forward(cluster="c", fault=Fault(0.5, 100_000, 503, 100_000)), random=lambda: next(draws, 0.5)
    )
    assert isinstance(plan.start(0.0), Sleep)
    assert isinstance(plan.woke(0.5), Send), "the answer was not drawn"
    plan, _ = faulted(Fault(0.5, 100_000, 503, 100_000), chance=0.5)
    assert isinstance(plan.start(0.0), Send)


@pytest.mark.parametrize("abort", [0, 503])
def test_the_deadline_ends_a_delay(abort) -> None:
    plan, upstream = faulted(Fault(5.0, 1_000_000, abort, 1_000_000), deadline=11.0)
    effect = plan.start(10.0)
    assert isinstance(effect, Sleep)
    assert effect.seconds == 1.0
    ended = plan.woke(11.0)
    assert isinstance(ended, Finish)
    assert ended.failure is DeadlineExceeded
    assert not upstream.picks


def test_only_so_many_are_delayed_at_a_time_and_one_that_is_given_up_counts_no_more() -> None:
    """FI-04."""
    fault = Fault(0.5, 1_000_000, most=1)
    first, _ = faulted(fault)
    assert isinstance(first.start(0.0), Sleep)
    second, _ = faulted(fault)
    second._env.delayed = first._env.delayed
    assert isinstance(second.start(0.0), Send)
    first.close(0.1)
    assert first._env.delayed == []
    third, _ = faulted(fault)
    assert isinstance(third.start(0.2), Sleep)
    third.woke(0.7)
    third.close(0.8)
    assert third._env.delayed == []


class Counted:
    def __init__(self, tokens: int, *, shared: bool = False) -> None:
        self.tokens, self.asked, self.shared = tokens, 0, shared

    def take(self, now: float) -> bool:
        self.asked += 1
        self.tokens -= 1
        return self.tokens >= 0


def test_over_the_rate_limit_a_call_is_answered_429_and_a_retry_is_no_call() -> None:
    upstream = FakeUpstream()
    upstream.limiter = Counted(1)  # type: ignore[assignment]
    retry = RetryPolicy(on=frozenset({"5xx"}))
    plan, _ = make(Forward(cluster="c", retry=retry), upstream)
    plan.start(0.0)
    assert isinstance(plan.outcome(outcome(status=500), 0.0), Sleep)
    assert isinstance(plan.woke(0.1), Send)
    assert upstream.limiter.asked == 1
    plan, _ = make(Forward(cluster="c", retry=retry), upstream)
    effect = plan.start(0.0)
    assert isinstance(effect, Reply)
    assert (effect.response.status, effect.response.body) == (429, b"local_rate_limited")
    assert len(upstream.picks) == 2


@pytest.mark.parametrize("route", [True, False, None])
@pytest.mark.parametrize("cluster", [True, False, None])
def test_storages_decide_of_the_route_first_and_each_once(route: bool | None, cluster: bool | None) -> None:
    """None: it does not answer, and what is known here decides: that one more may pass."""
    upstream = FakeUpstream()
    upstream.limiter = Counted(1, shared=True)  # type: ignore[assignment]
    live = LiveRoute("r", RouteLimits(), [].append, lambda: 0.0, 0.0)
    live.limiter = Counted(1, shared=True)  # type: ignore[assignment]
    plan, _ = make(Forward(cluster="c", limits=RouteLimits(), retry=RETRY), upstream)
    plan._env.limits = lambda *_: live
    effect = plan.start(0.0)
    for says, limiter in ((route, live.limiter), (cluster, upstream.limiter)):
        assert isinstance(effect, Take)
        assert effect.limiter is limiter
        assert effect.seconds == SECONDS
        effect.verdict = says
        effect = plan.woke(0.0)
        assert limiter.asked == (says is None)  # type: ignore[union-attr]
        if says is False:
            break
    if False in (route, cluster):
        assert isinstance(effect, Reply)
        assert effect.response.status == 429
    else:
        assert isinstance(effect, Send)
        assert live.active == 1
        assert isinstance(plan.outcome(outcome(status=500), 0.0), Sleep)
        assert isinstance(plan.woke(0.1), Send), "a retry is no call"
    plan.close(0.2)
    assert live.active == 0


def test_a_storage_is_waited_for_until_the_deadline_at_most() -> None:
    upstream = FakeUpstream()
    upstream.limiter = Counted(0, shared=True)  # type: ignore[assignment]
    plan, _ = make(Forward(cluster="c"), upstream, deadline=0.1)
    effect = plan.start(0.0)
    assert isinstance(effect, Take)
    assert effect.seconds == pytest.approx(0.1)
