"""The plan of a gRPC call, driven by hand: what differs from an HTTP call's."""

from __future__ import annotations

import pytest

from meshlib.core.effects import Call, Env, Finish, Send, Sleep, Wait
from meshlib.core.endpoint import LiveEndpoint
from meshlib.core.match import compile_routes
from meshlib.core.plan_grpc import GrpcPlan
from meshlib.core.resolution import Resolution
from meshlib.core.upstream import Refusal, RefusalKind
from meshlib.errors import ConnectFailed, DeadlineExceeded, NoHealthyEndpoint, Overloaded
from meshlib.model.address import Address
from meshlib.model.call import Head, Outcome, OutcomeKind
from meshlib.model.cluster import Cluster
from meshlib.model.endpoint import Assignment, Endpoint, Locality
from meshlib.model.headers import Headers
from meshlib.model.listener import HttpManager, Listener
from meshlib.model.match import PathKind, PathMatch, RouteMatch
from meshlib.model.policy import Fault, Hedge, RetryPolicy
from meshlib.model.route import DirectResponse, Forward, Redirect, Route, RouteConfiguration, VirtualHost

ENDPOINTS = [
    LiveEndpoint(Endpoint(Address("10.0.0.1", 80 + n)), priority=0, locality=Locality()) for n in range(2)
]
UNCONNECTED = OutcomeKind.CONNECT
RETRY = RetryPolicy(frozenset({"unavailable"}), retries=2, base_interval=0.1)


class FakePick:
    def __init__(self, upstream: FakeUpstream, endpoint: LiveEndpoint) -> None:
        self.upstream = upstream
        self.endpoint = endpoint
        self.released = 0
        self.failure: Outcome | None = None

    def report(self, outcome: Outcome, now: float) -> None: ...

    def release(self, now: float, failure: Outcome | None = None) -> None:
        self.released += 1
        self.failure = failure


class FakeUpstream:
    def __init__(self) -> None:
        self.cluster = Cluster("c", assignment=Assignment("c"))
        self.consistent = self.cluster.balancing.consistent
        self.labelled = False
        self.limiter = None
        self.picks: list[FakePick] = []
        self.contexts: list[object] = []
        self.refusal: Refusal | None = None
        self.limited: list[bool] = []
        self.is_reached = False

    def pick(self, context, now):  # type: ignore[no-untyped-def]
        self.contexts.append(context)
        if self.refusal is not None:
            return self.refusal
        untried = [endpoint for endpoint in ENDPOINTS if endpoint not in context.tried]
        self.picks.append(FakePick(self, (untried or ENDPOINTS)[0]))
        return self.picks[-1]

    def begin_retry(self, budget, *, limited=True):  # type: ignore[no-untyped-def]
        self.limited.append(limited)
        return type("Permit", (), {"release": lambda self: None})()

    def reached(self) -> bool:
        return self.is_reached


def make(action=None, *, from_file: bool = False, manager: HttpManager | None = None, **call: object):  # type: ignore[no-untyped-def]
    upstream = FakeUpstream()
    route = Route(RouteMatch(PathMatch(PathKind.PREFIX, "/")), action or Forward(cluster="c"), name="r")
    routes = compile_routes(RouteConfiguration("rc", (VirtualHost("v", ("*",), (route,)),)))
    listener = Listener("l", from_file=from_file)
    resolution = Resolution("mesh", "a test", part="p", listener=listener, routes=routes, manager=manager)
    env = Env(lambda part, name: upstream, lambda: 0.5, lambda: 0.0)
    head = Head("POST", "http", "reviews", "/s/m", Headers())
    return GrpcPlan(Call(resolution, head, grpc=True, **call), env), upstream


def status(code: int) -> Outcome:
    return Outcome(OutcomeKind.OK, code, Headers(), sent=True, grpc=True)


@pytest.mark.parametrize(
    ("action", "manager", "limit"),
    [  # TO-01
        ({"timeout": 1.0}, None, None),
        ({"max_stream_duration": 2.0, "timeout": 1.0}, None, 2.0),
        ({"max_stream_duration": 2.0, "grpc_timeout_header_max": 3.0}, None, 3.0),
        ({"max_stream_duration": 2.0, "grpc_timeout_header_max": 0.0}, None, None),
        ({"max_stream_duration": 0.0}, HttpManager(max_stream_duration=4.0), None),
        ({}, HttpManager(max_stream_duration=4.0), 4.0),
    ],
)
def test_how_long_a_stream_may_take(action: dict, manager: HttpManager | None, limit: float | None) -> None:
    plan, _ = make(Forward(cluster="c", **action), manager=manager)
    effect = plan.start(10.0)
    assert isinstance(effect, Send)
    assert effect.deadline == (None if limit is None else 10.0 + limit)
    assert effect.head.headers.raw == [], "the deadline is in gRPC's own header"


def test_where_it_is_ordered_the_deadline_is_told_in_finagles_form_too() -> None:
    plan, _ = make(deadline=12.5)
    plan._env.deadlines, plan._env.wall = (b"l5d-ctx-deadline",), lambda: 3.0
    effect = plan.start(10.0)
    assert isinstance(effect, Send)
    assert effect.head.headers.raw == [(b"l5d-ctx-deadline", b"3000000000 5500000000")]


def test_a_services_timeout_in_the_file_holds_for_its_calls_of_both_kinds() -> None:
    plan, _ = make(Forward(cluster="c", timeout=2.0), from_file=True)
    effect = plan.start(10.0)
    assert isinstance(effect, Send)
    assert effect.deadline == 12.0


@pytest.mark.parametrize("action", [DirectResponse(200), Redirect(host="other")])
def test_a_response_that_the_configuration_orders_is_unavailable(action: object) -> None:
    plan, _ = make(action)  # RA-04
    end = plan.start(1.0)
    assert isinstance(end, Finish)
    assert end.failure is NoHealthyEndpoint


def test_the_choice_is_made_by_gRPCs_rules() -> None:
    plan, upstream = make()
    plan.start(1.0)
    assert upstream.contexts[0].grpc


def test_an_endpoint_that_cannot_be_connected_to_is_passed_over_whatever_the_policy() -> None:
    plan, upstream = make()
    first = plan.start(1.0)
    second = plan.outcome(Outcome(UNCONNECTED, grpc=True), 1.1, 1)
    assert isinstance(first, Send)
    assert isinstance(second, Send)
    assert second.endpoint is not first.endpoint
    assert upstream.picks[0].released == 1
    end = plan.outcome(status(0), 1.2, 2)
    assert isinstance(end, Finish)
    assert end.failure is None
    assert [attempt.outcome for attempt in plan.info(1.2).attempts] == ["connect", "ok"]


def test_where_none_can_be_connected_to_the_last_failure_is_the_end() -> None:
    plan, upstream = make()
    plan.start(1.0)
    plan.outcome(Outcome(UNCONNECTED, grpc=True), 1.1, 1)
    end = plan.outcome(Outcome(UNCONNECTED, grpc=True), 1.2, 2)
    assert isinstance(end, Finish)
    assert end.failure is ConnectFailed
    plan.close(1.3)
    assert [pick.released for pick in upstream.picks] == [1, 1, 1], "the third was picked and is not sent to"


def test_one_that_waits_for_ready_waits_until_somebody_can_be_reached() -> None:
    plan, upstream = make(patient=True, deadline=9.0)
    plan.start(1.0)
    plan.outcome(Outcome(UNCONNECTED, grpc=True), 1.1, 1)
    wait = plan.outcome(Outcome(UNCONNECTED, grpc=True), 1.2, 2)
    assert isinstance(wait, Wait)
    assert wait.until == 9.0
    assert wait.reached is not None
    assert not wait.reached()
    upstream.is_reached = True
    assert wait.reached()
    again = plan.woke(2.0)
    assert isinstance(again, Send)
    assert again.number == 3
    assert upstream.contexts[-1].tried == (), "all may be called again"


def test_one_that_waits_for_ready_waits_where_nobody_may_be_called() -> None:
    plan, upstream = make(patient=True)
    upstream.refusal = Refusal(RefusalKind.NO_ENDPOINT, "nobody")
    assert isinstance(plan.start(1.0), Wait)
    upstream.refusal = None
    assert isinstance(plan.woke(2.0), Send)


def test_one_that_waits_for_ready_ends_with_its_deadline() -> None:
    plan, upstream = make(patient=True, deadline=5.0)
    upstream.refusal = Refusal(RefusalKind.NO_ENDPOINT, "nobody")
    assert isinstance(plan.start(1.0), Wait)
    end = plan.woke(5.0)
    assert isinstance(end, Finish)
    assert end.failure is DeadlineExceeded


@pytest.mark.parametrize("kind", [RefusalKind.MAX_REQUESTS, RefusalKind.DROPPED])
def test_what_a_control_plane_refuses_is_unavailable_and_what_the_file_does_is_not(kind: RefusalKind) -> None:
    """CB-01, ED-06."""
    plan, upstream = make(patient=True)
    upstream.refusal = Refusal(kind, "no")
    end = plan.start(1.0)
    assert isinstance(end, Finish)
    assert end.failure is Overloaded
    assert end.outcome is not None
    assert (end.outcome.status, end.outcome.grpc) == (14, True)
    plan, upstream = make(from_file=True)
    upstream.refusal = Refusal(kind, "no")
    end = plan.start(1.0)
    assert isinstance(end, Finish)
    assert end.outcome is None


def test_a_retry_says_how_many_were_before_it() -> None:
    """gRFC A6."""
    plan, upstream = make(Forward(cluster="c", retry=RETRY), counted=True)
    first = plan.start(1.0)
    assert isinstance(first, Send)
    assert first.head.headers.to_dict() == {"x-envoy-attempt-count": "1"}
    sleep = plan.outcome(status(14), 1.1, 1)
    assert isinstance(sleep, Sleep)
    second = plan.woke(1.3)
    assert isinstance(second, Send)
    assert second.head.headers.to_dict() == {"x-envoy-attempt-count": "2", "grpc-previous-rpc-attempts": "1"}
    assert first.head.headers.to_dict() == {"x-envoy-attempt-count": "1"}
    assert upstream.limited == [False], "RT-08: gRPC knows no limit of retries in flight"


def test_a_budget_of_the_file_holds() -> None:
    plan, upstream = make(Forward(cluster="c", retry=RETRY), from_file=True)
    plan.start(1.0)
    plan.outcome(status(14), 1.1, 1)
    assert upstream.limited == [True]


def test_the_status_of_a_stream_comes_at_its_end() -> None:
    plan, upstream = make()
    plan.start(1.0)
    plan.outcome(status(0), 1.1, 1)
    plan.close(3.0, Outcome(OutcomeKind.STATUS, 13, sent=True, grpc=True))
    attempt = plan.info(3.0).attempts[0]
    assert (attempt.outcome, attempt.status, attempt.seconds) == ("status", 13, 2.0)
    assert upstream.picks[0].failure is not None


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault(abort=503, abort_per_million=1_000_000), 14),
        (Fault(abort=429, abort_per_million=1_000_000), 14),
        (Fault(abort=404, abort_per_million=1_000_000), 12),
        (Fault(abort=200, abort_per_million=1_000_000), 2),
        (Fault(abort_code=8, abort_per_million=1_000_000), 8),
        (Fault(abort_code=0, abort_per_million=1_000_000), 2),
    ],
)
def test_fi_02_a_fault_ends_a_call_with_a_code(fault: Fault, code: int) -> None:
    plan, upstream = make(Forward(cluster="c", fault=fault))
    effect = plan.start(0.0)
    assert isinstance(effect, Finish)
    assert effect.failure is NoHealthyEndpoint
    assert effect.outcome is not None
    assert (effect.outcome.status, effect.outcome.grpc) == (code, True)
    assert not upstream.picks


@pytest.mark.parametrize(
    ("asked", "action", "deadline"),
    [
        (10.0, {"grpc_timeout_header_max": 0.0}, 8.0),
        (10.0, {"grpc_timeout_header_max": 5.0}, 5.0),
        (10.0, {}, 10.0),
        # Nothing would be left.
        (2.0, {"grpc_timeout_header_max": 0.0}, 2.0),
        (None, {"grpc_timeout_header_max": 0.0}, None),
    ],
)
def test_a_route_may_end_calls_before_their_callers_do(
    asked: float | None, action: dict[str, float], deadline: float | None
) -> None:
    plan, _ = make(Forward("c", grpc_timeout_offset=2.0, **action), deadline=asked)
    sent = plan.start(0.0)
    assert isinstance(sent, Send)
    assert (plan.deadline, sent.deadline) == (deadline, deadline)


@pytest.mark.parametrize("retry", [None, RETRY])
def test_envoys_hedges_are_of_http_calls_and_an_applications_own_hold(retry: RetryPolicy | None) -> None:
    envoys = Hedge(on_try_timeout=True, methods=None)
    own = Hedge(after=0.5, methods=None, budget=None, own=True)
    for default in (None, own):
        plan, _ = make(
            Forward(cluster="c", hedge=envoys, retry=retry), concurrent=True, default_hedge=default
        )
        effect = plan.start(10.0)
        assert isinstance(effect, Send)
        assert effect.hedge_at == (10.5 if default is own and retry is None else None)
